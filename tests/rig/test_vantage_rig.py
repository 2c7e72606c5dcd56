"""Vantages on a real cluster: rights, admission, images, interrupts, two at once, and nothing left."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcrig import faultproxy
from mcrig import rig as rigs

from mcdoctor.cli.wiring import agent
from mcdoctor.kube import cleanup, ephemeral, vantage
from mcdoctor.kube.agent import NoVantage
from mcdoctor.kube.config import connect
from mcdoctor.kube.ephemeral import Place
from mcdoctor.kube.reader import ApiReader
from mcdoctor.kube.transport import Api
from mcdoctor.models.facts import Absent, Blind, DnsAnswer, EndpointAnswer, KubeObject, Listed, ResolvConf
from mcdoctor.models.requests import AskDns, ConnectTcp, ReadListeners, ReadResolvConf, SampleDns

pytestmark = [pytest.mark.rig, pytest.mark.timeout(180)]

RUN = secrets.token_hex(3)  # a namespace of an earlier run may still be going away
NAMESPACE = f"vantage-restricted-{RUN}"
OPEN = f"vantage-open-{RUN}"
MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: %(namespace)s, labels: {%(label)s}}
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: %(namespace)s, labels: {app: caller, tier: front}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: registry.rig/app:1
    env: [{name: MODE, value: idle}]
    securityContext:
      {runAsNonRoot: true, runAsUser: 10001, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]},
       seccompProfile: {type: RuntimeDefault}}
---
apiVersion: v1
kind: Service
metadata: {name: caller, namespace: %(namespace)s}
spec: {selector: {app: caller}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: caller-headless, namespace: %(namespace)s}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {tier: front}, ports: [{port: 80}]}
"""


_applied: list[str] = []


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[rigs.Rig]:
    """The rig with two namespaces of our own; the demo is left alone."""
    rig = rigs.running() or request.getfixturevalue("rig")
    label = "pod-security.kubernetes.io/enforce: restricted"
    rig.a.apply(MANIFEST % {"namespace": NAMESPACE, "label": label})
    rig.a.apply(MANIFEST % {"namespace": OPEN, "label": ""})
    for namespace in (NAMESPACE, OPEN):
        rig.a.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/caller", "--timeout=60s", timeout=70)
    yield rig
    for printed in _applied:
        rig.a.kubectl("delete", "--ignore-not-found", "-f", "-", input=printed)
    for namespace in (NAMESPACE, OPEN):
        rig.a.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def api(cluster: rigs.Rig) -> Iterator[Api]:
    api = connected(cluster)
    yield api
    api.close()


def connected(rig: rigs.Rig, **options: object) -> Api:
    return connect("cluster-a", kubeconfig=str(rig.kubeconfig), **options)  # type: ignore[arg-type]


def place(namespace: str = NAMESPACE) -> Place:
    return Place("cluster-a", namespace, "caller", node="node-a")


def states(rig: rigs.Rig, namespace: str = NAMESPACE) -> dict[str, str]:
    """Name and state of each ephemeral container of the caller."""
    pod = json.loads(rig.a.kubectl("-n", namespace, "get", "pod", "caller", "-o", "json"))
    found = pod["status"].get("ephemeralContainerStatuses") or []
    return {s["name"]: next(iter(s["state"]), "") for s in found}


def still_running(rig: rigs.Rig, namespace: str = NAMESPACE) -> list[str]:
    return [name for name, state in states(rig, namespace).items() if state == "running"]


# --- reading ---


def test_the_reader_reads_a_real_server(api: Api) -> None:
    reader = ApiReader(api, "a")
    assert reader.check().startswith("v1.")
    facts = reader.list("Pod", NAMESPACE, labels="app=caller")
    assert isinstance(facts[0], KubeObject) and "managedFields" not in facts[0].body["metadata"]
    assert isinstance(facts[-1], Listed)
    assert isinstance(reader.get("Service", NAMESPACE, "nobody"), Absent)
    assert isinstance(reader.list("VirtualService.networking.istio.io", NAMESPACE)[0], Absent)
    assert isinstance(reader.list("CustomResourceDefinition.apiextensions.k8s.io")[-1], Listed)


def test_a_debug_endpoint_is_read_through_a_real_port_forward(cluster: rigs.Rig, api: Api) -> None:
    name = cluster.a.kubectl("-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "name").split("/")[1]
    answer = ApiReader(api).ask("kube-system", name.strip(), 8080, "health")
    assert isinstance(answer, EndpointAnswer) and answer.body == "OK"
    refused = ApiReader(api).ask("kube-system", name.strip(), 1, "health")
    assert isinstance(refused, Blind) and "port 1 of the pod" in refused.reason


# --- ephemeral ---


def test_the_first_fact_comes_within_three_seconds_where_pod_security_is_restricted(
    cluster: rigs.Rig, api: Api
) -> None:
    started = time.monotonic()
    opened = ephemeral.prepare(api, place(), agent(60)).open()
    try:
        (fact,) = opened.prober.run(ReadResolvConf(), budget=5)
        assert time.monotonic() - started < 3
        assert isinstance(fact, ResolvConf) and fact.search[0] == f"{NAMESPACE}.svc.cluster.local"
        assert (fact.vantage.pod, fact.vantage.node) == ("caller", "node-a")
        (answer,) = opened.prober.run(AskDns(name="kubernetes.default.svc.cluster.local"), budget=5)
        assert isinstance(answer, DnsAnswer) and answer.rcode == "NOERROR"
    finally:
        lines = opened.close()
    assert "has ended (exit code 0)" in lines[0]
    assert still_running(cluster) == []


def test_output_far_above_four_kilobytes_comes_whole(api: Api) -> None:
    opened = ephemeral.prepare(api, place(), agent(60)).open()
    try:
        facts = opened.prober.run(ConnectTcp(address="10.110.0.1", port=443, tries=30), budget=10)
        assert facts and not any(isinstance(f, Blind) for f in facts)
        many = [opened.prober.run(AskDns(name=f"{'x' * 60}.{i}.example", timeout=1), budget=3) for i in range(40)]
        assert sum(len(repr(f)) for fs in many for f in fs) > 8192 and all(many)
    finally:
        opened.close()


def test_two_runs_at_once_do_not_meet(cluster: rigs.Rig) -> None:
    results: list[tuple[str, bool]] = []

    def run() -> None:
        api = connected(cluster)
        opened = ephemeral.prepare(api, place(), agent(60)).open()
        try:
            (fact,) = opened.prober.run(ReadResolvConf(), budget=5)
            results.append((str(opened.prober.vantage.container), isinstance(fact, ResolvConf)))
        finally:
            opened.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({name for name, _ in results}) == 2 and all(ok for _, ok in results)
    assert still_running(cluster) == []


def test_pod_security_that_forbids_raw_sockets_costs_them_and_nothing_else(api: Api) -> None:
    wanted = ephemeral.prepare(api, place(), agent(60), profile="raw")
    assert 'violates PodSecurity "restricted' in wanted.limits[0].reason
    opened = wanted.open()
    try:
        assert isinstance(opened.prober.run(ReadResolvConf(), budget=5)[0], ResolvConf)
    finally:
        opened.close()


def test_raw_sockets_where_they_are_granted(api: Api) -> None:
    wanted = ephemeral.prepare(api, place(OPEN), agent(60), profile="raw")
    assert wanted.limits == ()
    opened = wanted.open()
    try:
        assert "net_raw" in opened.prober.hello.capabilities  # type: ignore[attr-defined]  # a StreamProber
    finally:
        opened.close()


def test_a_profile_that_admission_refuses_creates_nothing(cluster: rigs.Rig, api: Api) -> None:
    before = states(cluster)
    with pytest.raises(NoVantage, match='violates PodSecurity "restricted'):
        ephemeral.prepare(api, place(), agent(60), profile="sysadmin")
    assert states(cluster) == before


CAPTURED = """
apiVersion: v1
kind: Pod
metadata: {name: captured, namespace: %s}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: app
    image: registry.rig/app:1
    env: [{name: MODE, value: idle}]
    securityContext: {runAsUser: 10001, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  - name: istio-proxy
    image: registry.rig/app:1
    env: [{name: MODE, value: idle}]
    securityContext: {runAsUser: 1337, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


def test_the_view_past_the_proxy_runs_as_its_user_also_where_security_is_restricted(
    cluster: rigs.Rig, api: Api
) -> None:
    cluster.a.apply(CAPTURED % NAMESPACE)
    cluster.a.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/captured", "--timeout=60s", timeout=70)
    seen_from = Place("cluster-a", NAMESPACE, "captured", captured="istio")
    plan = vantage.choose("ephemeral", api, seen_from, agent(60), bypass=True)
    opened = plan.open()
    try:
        assert opened.prober.hello.uid == 1337  # type: ignore[attr-defined]  # a StreamProber
        (fact,) = opened.prober.run(ReadResolvConf(), budget=5)
        assert fact.vantage.captured is None
    finally:
        opened.close()


def test_the_processes_of_a_container_can_be_shared(api: Api) -> None:
    opened = ephemeral.prepare(api, place(OPEN), agent(60), target="app").open()
    try:
        assert isinstance(opened.prober.run(ReadResolvConf(), budget=5)[0], ResolvConf)
        opened.prober.run(ReadListeners(), budget=5)
    finally:
        opened.close()


def test_an_image_that_cannot_be_pulled_ends_by_the_deadline_with_the_reason(cluster: rigs.Rig, api: Api) -> None:
    wanted = ephemeral.prepare(api, place(OPEN), agent(60), image="registry.invalid/none:1", start_timeout=20)
    started = time.monotonic()
    with pytest.raises(NoVantage) as caught:
        wanted.open()
    assert time.monotonic() - started < 28
    assert "--image" in str(caught.value)
    assert states(cluster, OPEN)[wanted.name] == "waiting"


def test_an_image_without_python_ends_with_the_reason(api: Api) -> None:
    with pytest.raises(NoVantage, match="python3"):
        ephemeral.prepare(api, place(OPEN), agent(60), image="registry.rig/pause:1", start_timeout=20).open()


# --- the others ---


def test_an_own_pod_is_never_an_endpoint_and_is_gone_afterwards(cluster: rigs.Rig, api: Api) -> None:
    plan = vantage.choose("pod", api, place(), agent(60))
    assert plan.kind == "pod", plan.limits
    opened = plan.open()
    name = str(opened.prober.vantage.pod)
    try:
        (fact,) = opened.prober.run(ReadResolvConf(), budget=5)
        assert isinstance(fact, ResolvConf) and fact.vantage.node == "node-a"
        pod = json.loads(cluster.a.kubectl("-n", NAMESPACE, "get", "pod", name, "-o", "json"))
        assert pod["spec"]["nodeName"] == "node-a"
        assert {c["type"]: c["status"] for c in pod["status"]["conditions"]}["Ready"] == "False"
        time.sleep(1.5)  # the endpoints controller would have acted by now
        slices = cluster.a.kubectl("-n", NAMESPACE, "get", "endpointslices", "-o", "json")
        assert pod["status"]["podIP"] not in slices
    finally:
        lines = opened.close()
    assert [line.split()[0] for line in lines] == ["deleted", "deleted"]
    assert name not in cluster.a.kubectl("-n", NAMESPACE, "get", "pods,configmaps", "-o", "name")


def test_the_owner_takes_the_own_pod_with_it(cluster: rigs.Rig, api: Api) -> None:
    """A run that was killed: deleting its run object is enough, and no controller had adopted the pod."""
    opened = vantage.choose("pod", api, place(), agent(60)).open()
    name = str(opened.prober.vantage.pod)
    cluster.a.kubectl("-n", NAMESPACE, "delete", "configmap", name)
    until = time.monotonic() + 30
    while name in cluster.a.kubectl("-n", NAMESPACE, "get", "pods", "-o", "name") and time.monotonic() < until:
        time.sleep(0.3)
    assert name not in cluster.a.kubectl("-n", NAMESPACE, "get", "pods", "-o", "name")
    opened.close()


def test_exec_runs_in_the_application_s_container(api: Api) -> None:
    opened = vantage.choose("exec", api, place(), agent(60)).open()
    try:
        (fact,) = opened.prober.run(ReadResolvConf(), budget=5)
        assert isinstance(fact, ResolvConf) and fact.vantage.container == "app"
    finally:
        opened.close()


# --- rights ---


def granted(rig: rigs.Rig, user: str, *arguments: str) -> None:
    """Applies exactly what `mcdoctor rbac` prints."""
    command = [sys.executable, "-m", "mcdoctor", "rbac", "-n", NAMESPACE, "--user", user, *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    rig.a.apply(printed)
    _applied.append(printed)


def test_a_viewer_is_told_the_verb_that_is_missing(cluster: rigs.Rig) -> None:
    granted(cluster, "rig-viewer", "--for", "diagnose")
    api = connected(cluster, as_user="rig-viewer")
    assert isinstance(ApiReader(api).list("Pod", NAMESPACE)[-1], Listed)
    plan = vantage.choose("auto", api, place(), agent(60))
    assert plan.kind == "none"
    permissions = [b.permission for b in plan.limits]
    assert permissions == [
        f"patch pods/ephemeralcontainers in {NAMESPACE}",
        f"get pods/attach in {NAMESPACE}",
        f"create pods/attach in {NAMESPACE}",
    ]
    assert plan.limits[0].command == (
        f"mcdoctor rbac --for probe --probe ephemeral -n {NAMESPACE} --user rig-viewer"
        " | kubectl apply --context cluster-a -f -"
    )
    answer = ApiReader(api).ask(NAMESPACE, "caller", 8080, "x")
    assert isinstance(answer, Blind) and answer.permission == f"get and create pods/portforward in {NAMESPACE}"


@pytest.mark.parametrize("kind", ["ephemeral", "pod", "exec"])
def test_what_rbac_prints_is_enough_to_probe_also_impersonated(cluster: rigs.Rig, kind: str) -> None:
    user = f"rig-prober-{kind}"
    granted(cluster, user, "--for", "probe", "--probe", kind)
    api = connected(cluster, as_user=user, as_groups=["system:authenticated"])
    plan = vantage.choose(kind, api, place(), agent(60))  # type: ignore[arg-type]
    assert plan.kind == kind, plan.limits
    opened = plan.open()
    try:
        assert isinstance(opened.prober.run(ReadResolvConf(), budget=5)[0], ResolvConf)
    finally:
        lines = opened.close()
    assert not any("could not" in line or "still" in line for line in lines)
    everyone = connected(cluster, as_user="rig-nobody")
    assert vantage.choose(kind, everyone, place(), agent(60)).kind == "none"  # type: ignore[arg-type]


# --- interrupts and leftovers ---

DRIVER = """
import signal, sys, time
from mcdoctor.cli.wiring import agent
from mcdoctor.kube import vantage
from mcdoctor.kube.config import connect
from mcdoctor.kube.ephemeral import Place
from mcdoctor.models.requests import SampleDns

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell without job control makes us ignore it
kubeconfig, namespace, kind = sys.argv[1:]
api = connect("cluster-a", kubeconfig=kubeconfig)
plan = vantage.choose(kind, api, Place("cluster-a", namespace, "caller"), agent(60))
print("planned", flush=True)
opened = None
try:
    opened = plan.open()
    print("opened", flush=True)
    while True:
        opened.prober.run(SampleDns(name="kubernetes.default.svc.cluster.local", samples=40, interval=0.1), budget=6)
except KeyboardInterrupt:
    if opened is not None:
        print(*opened.close(), sep="\\n", flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("kind", ["ephemeral", "pod"])
@pytest.mark.parametrize(
    ("word", "delay"), [("planned", 0.0), ("planned", 0.05), ("planned", 0.3), ("planned", 0.8), ("opened", 0.5)]
)
def test_an_interrupt_at_any_moment_leaves_nothing_running(
    cluster: rigs.Rig, api: Api, kind: str, word: str, delay: float
) -> None:
    command = [sys.executable, "-c", DRIVER, str(cluster.kubeconfig), NAMESPACE, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()) and line.strip() != word:
            pass
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(20) == 130
    until = time.monotonic() + 3  # a container that was being created when we left may start and end once more
    while still_running(cluster) and time.monotonic() < until:
        time.sleep(0.2)
    assert still_running(cluster) == []
    assert [x for x in cleanup.find(api, NAMESPACE).leftovers if x.kind != "ephemeral container"] == []


def test_a_killed_run_ends_by_itself_and_cleanup_takes_the_rest(cluster: rigs.Rig, api: Api) -> None:
    for kind in ("ephemeral", "pod"):
        command = [sys.executable, "-c", DRIVER, str(cluster.kubeconfig), NAMESPACE, kind]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while process.stdout.readline().strip() != "opened":
                pass
            process.kill()
    until = time.monotonic() + 10
    while still_running(cluster) and time.monotonic() < until:
        time.sleep(0.2)
    assert still_running(cluster) == []  # its stdin closed when the connection went
    found = cleanup.find(api, NAMESPACE).leftovers
    assert {x.kind for x in found if x.can_go} == {"pod", "configmap"}
    command = [sys.executable, "-m", "mcdoctor", "cleanup", "--context", "cluster-a", "-n", NAMESPACE, "--yes"]
    ran = subprocess.run(
        [*command, "--kubeconfig", str(cluster.kubeconfig)], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("deleted ") == 2 and "have ended; their entries go with their pods" in ran.stderr
    assert [x for x in cleanup.find(api, NAMESPACE).leftovers if x.can_go] == []


def test_a_connection_that_drops_ends_as_blind_and_ends_the_container(cluster: rigs.Rig, tmp_path: Path) -> None:
    with faultproxy.FaultProxy(cluster.a) as proxy:
        path = faultproxy.kubeconfig(tmp_path / "kubeconfig", {"cluster-a": proxy}, NAMESPACE)
        opened = ephemeral.prepare(connect("cluster-a", kubeconfig=str(path)), place(), agent(60)).open()
        name = str(opened.prober.vantage.container)
        assert isinstance(opened.prober.run(ReadResolvConf(), budget=5)[0], ResolvConf)
        threading.Timer(0.5, proxy.close).start()
        started = time.monotonic()
        slow = SampleDns(name="kubernetes.default.svc.cluster.local", samples=80, interval=0.1)
        (fact,) = opened.prober.run(slow, budget=10)
        assert isinstance(fact, Blind) and time.monotonic() - started < 5
        assert "could not see what became of the ephemeral container" in opened.close()[0]
    until = time.monotonic() + 10
    while states(cluster)[name] == "running" and time.monotonic() < until:
        time.sleep(0.2)
    assert states(cluster)[name] == "terminated"


def test_a_slow_and_busy_server_only_costs_time(cluster: rigs.Rig, tmp_path: Path) -> None:
    with faultproxy.FaultProxy(cluster.a) as proxy:
        path = faultproxy.kubeconfig(tmp_path / "kubeconfig", {"cluster-a": proxy}, NAMESPACE)
        proxy.rules[:] = [
            faultproxy.Rule(faultproxy.Refuse(429, retry_after=1), "PATCH ", times=1),
            faultproxy.Rule(faultproxy.Refuse(503), "GET .*/pods/caller$", times=1),
            faultproxy.Rule(faultproxy.Slow(0.5), "GET .*/attach", times=1),
        ]
        opened = ephemeral.prepare(connect("cluster-a", kubeconfig=str(path)), place(), agent(60)).open()
        assert isinstance(opened.prober.run(ReadResolvConf(), budget=5)[0], ResolvConf)
        assert "has ended" in opened.close()[0]


def test_cleanup_ends_a_container_that_still_runs(cluster: rigs.Rig, api: Api) -> None:
    wanted = ephemeral.prepare(api, place(), agent(60))
    session = ephemeral._Session(wanted)
    ephemeral._patch(api, place(), wanted.container, dry=False)
    session._wait_running()
    (running,) = [x for x in cleanup.find(api, NAMESPACE).leftovers if x.state == "running"]
    assert "has ended" in cleanup.end(api, "cluster-a", running)
    assert still_running(cluster) == []
