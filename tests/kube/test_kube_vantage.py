"""Vantages against an API server that holds one pod: what is asked before anything is created, and how it ends."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from contextlib import suppress

import pytest

from mcdoctor.kube import ephemeral, pod, vantage
from mcdoctor.kube.agent import Agent, NoVantage
from mcdoctor.kube.ephemeral import Place
from mcdoctor.kube.lasting import lasting
from mcdoctor.models.facts import Blind, ResolvConf
from mcdoctor.models.requests import ReadResolvConf

POD = "/api/v1/namespaces/shop/pods/frontend"
PLACE = Place("a", "shop", "frontend", node="n1")
ECHO = ("python3", "-c", "echo")


class EchoProber:
    """Asks for N bytes, gets them."""

    def __init__(self, stream, seen_from):
        self.stream, self.vantage = stream, seen_from
        self.reader, self.writer = stream.reader, stream.writer

    def run(self, count, **_):
        self.writer.write(b"%d\n" % count)
        return len(self.reader.readline()) - 1

    def close(self):
        with suppress(OSError):
            self.writer.close()


AGENT = Agent(ECHO, EchoProber)


class Kubelet:
    """One pod, its ephemeral containers, and who may do what with it."""

    def __init__(self, fake, reply, failure):
        self.fake, self.reply, self.failure = fake, reply, failure
        self.denied: set[str] = set()
        self.spec: dict = {"nodeName": "n1", "containers": [{"name": "app"}], "serviceAccountName": "fe"}
        self.labels = {"app": "frontend", "tier": "web", "pod-template-hash": "abc"}
        self.containers: list[dict] = []
        self.phase = "Running"
        self.state = lambda name: {"running": {}}
        self.ended: set[str] = set()
        self.refuse = lambda container: None
        self.attached = 0
        self.talk = self.echo
        fake.route("/version", {"major": "1", "minor": "36", "gitVersion": "v1.36.2"})
        fake.route("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self.review)
        me = {"kind": "SelfSubjectReview", "status": {"userInfo": {"username": "jane"}}}
        fake.route("/apis/authentication.k8s.io/v1/selfsubjectreviews", reply(201, me))
        fake.route(POD, self.pod)
        fake.route(f"{POD}/ephemeralcontainers", self.patch)
        fake.route(f"{POD}/attach", self.attach)

    def review(self, request):
        a = request.body["spec"]["resourceAttributes"]
        what = f"{a['verb']} {a['resource']}" + (f"/{a['subresource']}" if "subresource" in a else "")
        return self.reply(201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": what not in self.denied}})

    def pod(self, request):
        statuses = []
        for container in self.containers:
            name = container["name"]
            ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}
            statuses.append({"name": name, "state": ended if name in self.ended else self.state(name)})
        return self.reply(
            body={
                "kind": "Pod",
                "apiVersion": "v1",
                "metadata": {"name": "frontend", "namespace": "shop", "labels": self.labels},
                "spec": {**self.spec, "ephemeralContainers": self.containers},
                "status": {"phase": self.phase, "ephemeralContainerStatuses": statuses},
            }
        )

    def patch(self, request):
        container = request.body["spec"]["ephemeralContainers"][0]
        if why := self.refuse(container):
            return self.reply(403, self.failure(403, "Forbidden", why, name="frontend", kind="pods"))
        if request.asked("dryRun") is None:
            self.containers.append(container)
        return self.reply(body={"kind": "Pod"})

    def attach(self, request):
        self.attached += 1
        name = request.asked("container")

        def run(ws):
            try:
                self.talk(ws)
            finally:
                self.ended.add(name)

        return run

    def echo(self, ws):
        line = b""
        while (frame := ws.receive()) is not None and frame[0] != 8:
            data = frame[1]
            if frame[0] == 9:
                ws.send(data, 10)
            elif data[:2] == b"\xff\x00":
                break
            elif data[:1] == b"\x00":
                line += data[1:]
                while b"\n" in line:
                    count, _, line = line.partition(b"\n")
                    text = b"x" * int(count) + b"\n"
                    for i in range(0, len(text), 30000):
                        ws.send(b"\x01" + text[i : i + 30000])
        ws.send(b"\x03" + json.dumps({"status": "Success"}).encode())
        ws.close()

    def patches(self, dry):
        return [r for r in self.fake.asked(f"{POD}/ephemeralcontainers") if (r.asked("dryRun") == "All") is dry]


@pytest.fixture
def kubelet(fake, reply, failure):
    return Kubelet(fake, reply, failure)


def reasons(caught) -> str:
    return " | ".join(b.reason for b in caught.value.blinds)


# --- ephemeral ---


def test_a_debug_container_is_tried_dry_then_made_then_ended(fake, kubelet):
    api = fake.connect()
    wanted = ephemeral.prepare(api, PLACE, AGENT)
    assert len(kubelet.patches(dry=True)) == 1 and not kubelet.patches(dry=False)
    assert wanted.name in wanted.creates() and "stays in the pod" in wanted.creates()
    opened = wanted.open()
    assert [opened.prober.run(n) for n in (1, 5000, 1_000_000)] == [1, 5000, 1_000_000]
    seen = opened.prober.vantage
    assert (seen.cluster, seen.namespace, seen.pod, seen.container, seen.node) == (
        "a", "shop", "frontend", wanted.name, "n1",
    )  # fmt: skip
    lines = opened.close()
    assert lines == (
        f"ephemeral containers cannot be removed: {wanted.name} in pod shop/frontend has ended (exit code 0)",
    )
    requests = len(fake.requests)
    assert opened.close() == lines and len(fake.requests) == requests


def test_the_container_is_what_pod_security_restricted_asks_for(fake, kubelet):
    ephemeral.prepare(fake.connect(), PLACE, AGENT).open().close()
    (request,) = kubelet.patches(dry=False)
    assert request.header("Content-Type") == ["application/strategic-merge-patch+json"]
    (container,) = kubelet.containers
    assert container["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["command"] == list(ECHO) and container["image"] == "python:3-slim"
    assert container["stdin"] and container["stdinOnce"] and "targetContainerName" not in container
    assert container["env"] == [{"name": "MCDOCTOR_RUN", "value": container["name"].removeprefix("mcdoctor-")}]


def test_two_runs_have_two_names(fake, kubelet):
    api = fake.connect()
    assert len({ephemeral.prepare(api, PLACE, AGENT).name for _ in range(5)}) == 5


def test_impersonation_is_on_the_patch_and_on_the_websocket(fake, kubelet):
    ephemeral.prepare(fake.connect(as_user="jane", as_groups=["g"]), PLACE, AGENT).open().close()
    for request in fake.requests:
        assert request.header("Impersonate-User") == ["jane"] and request.header("Impersonate-Group") == ["g"]
    assert fake.asked(f"{POD}/attach") and kubelet.patches(dry=False)


@pytest.mark.parametrize(
    "right", ["patch pods/ephemeralcontainers", "get pods/attach", "create pods/attach", "get pods"]
)
def test_a_missing_right_is_named_before_anything_is_tried(fake, kubelet, right):
    kubelet.denied = {right}
    with pytest.raises(NoVantage) as caught:
        ephemeral.prepare(fake.connect(), PLACE, AGENT)
    (blind,) = caught.value.blinds
    assert blind.permission == f"{right} in shop" and blind.status == 403
    assert blind.command == (
        "mcdoctor rbac --for probe --probe ephemeral -n shop --user jane | kubectl apply --context here -f -"
    )
    assert not kubelet.patches(dry=True)


def test_an_older_server_asks_get_only_of_a_websocket(fake, kubelet):
    kubelet.denied = {"create pods/attach"}
    fake.route("/version", {"major": "1", "minor": "34+", "gitVersion": "v1.34.1"})
    assert ephemeral.prepare(fake.connect(), PLACE, AGENT).name


def test_where_reviews_cannot_be_asked_the_dry_run_decides(fake, kubelet, reply):
    fake.route("/apis/authorization.k8s.io", reply(404, b"404 page not found"))
    assert ephemeral.prepare(fake.connect(), PLACE, AGENT).name


def test_another_user_is_tried_where_admission_wants_another(fake, kubelet):
    kubelet.spec["containers"] = [{"name": "app", "securityContext": {"runAsUser": 1000700000}}]
    kubelet.refuse = lambda c: None if c["securityContext"].get("runAsUser") == 1000700000 else "must be in the ranges"
    assert ephemeral.prepare(fake.connect(), PLACE, AGENT).container["securityContext"]["runAsUser"] == 1000700000


def test_admission_that_refuses_is_quoted_and_nothing_is_created(fake, kubelet):
    kubelet.refuse = lambda c: 'pods "frontend" is forbidden: no debug containers here'
    plan = vantage.choose("auto", fake.connect(), PLACE, AGENT)
    assert plan.kind == "none" and "no debug containers here" in plan.limits[0].reason
    assert plan.limits[0].permission is None and "kubectl debug" in str(plan.limits[0].command)
    assert not kubelet.patches(dry=False)
    with pytest.raises(NoVantage):
        plan.open()


def test_a_webhook_that_has_no_dry_run_does_not_count_as_a_refusal(fake, kubelet):
    kubelet.refuse = lambda c: "admission webhook does not support dry run"
    wanted = ephemeral.prepare(fake.connect(), PLACE, AGENT)
    kubelet.refuse = lambda c: None
    wanted.open().close()


def test_raw_sockets_only_where_granted_and_else_what_is_lost(fake, kubelet):
    wanted = ephemeral.prepare(fake.connect(), PLACE, AGENT, profile="raw")
    assert wanted.container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW"]}
    assert wanted.container["securityContext"]["runAsUser"] == 0 and wanted.limits == ()
    kubelet.refuse = lambda c: "violates PodSecurity" if c["securityContext"].get("runAsUser") == 0 else None
    wanted = ephemeral.prepare(fake.connect(), PLACE, AGENT, profile="raw")
    assert wanted.container["securityContext"]["runAsUser"] == 65532
    assert "no raw sockets" in wanted.limits[0].reason and "violates PodSecurity" in wanted.limits[0].reason


@pytest.mark.parametrize(
    ("containers", "uid"),
    [
        ({"containers": [{"name": "app"}, {"name": "istio-proxy"}]}, 1337),
        ({"initContainers": [{"name": "istio-proxy", "securityContext": {"runAsUser": 1001337}}]}, 1001337),
        ({"containers": [{"name": "linkerd-proxy", "securityContext": {"runAsUser": 2102}}, {"name": "app"}]}, 2102),
    ],
)  # fmt: skip
def test_the_bypassing_view_runs_as_the_user_of_the_pods_own_proxy(fake, kubelet, containers, uid):
    kubelet.spec.update(containers)
    place = Place("a", "shop", "frontend", captured="istio")
    opened = ephemeral.prepare(fake.connect(), place, AGENT, bypass=True).open()
    assert kubelet.containers[0]["securityContext"]["runAsUser"] == uid
    assert opened.prober.vantage.captured is None
    opened.close()
    opened = ephemeral.prepare(fake.connect(), place, AGENT).open()
    assert opened.prober.vantage.captured == "istio"
    opened.close()


def test_ambient_has_no_bypassing_view(fake, kubelet):
    with pytest.raises(NoVantage, match="ambient"):
        ephemeral.prepare(fake.connect(), Place("a", "shop", "frontend", captured="ztunnel"), AGENT, bypass=True)


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "InvalidImageName"]
)
def test_a_container_that_cannot_start_ends_the_attempt_at_once(fake, kubelet, reason):
    kubelet.state = lambda name: {"waiting": {"reason": reason, "message": "because of\nthis"}}
    started = time.monotonic()
    with pytest.raises(NoVantage) as caught:
        ephemeral.prepare(fake.connect(), PLACE, AGENT, image="x:1").open()
    assert time.monotonic() - started < 2
    assert f"{reason}: because of this" in reasons(caught) and "--image" in reasons(caught)
    assert "never started" in reasons(caught)


def test_a_container_that_never_starts_ends_the_attempt_by_the_deadline(fake, kubelet, monkeypatch):
    monkeypatch.setattr(ephemeral, "END_TIMEOUT", 0.3)
    monkeypatch.setattr(ephemeral.account, "__kwdefaults__", {"certain": True, "timeout": 0.3})
    kubelet.state = lambda name: {"waiting": {"reason": "ContainerCreating"}}
    started = time.monotonic()
    with pytest.raises(NoVantage) as caught:
        ephemeral.prepare(fake.connect(), PLACE, AGENT, start_timeout=0.5).open()
    assert time.monotonic() - started < 2.5
    assert "did not run within 0 s: ContainerCreating" in reasons(caught)


def test_a_container_that_ends_at_once_says_why(fake, kubelet):
    kubelet.state = lambda name: {"terminated": {"exitCode": 3, "message": "mcdoctor: Python 3.11 or newer is needed"}}
    with pytest.raises(NoVantage) as caught:
        ephemeral.prepare(fake.connect(), PLACE, AGENT).open()
    assert "exit code 3" in reasons(caught) and "Python 3.11" in reasons(caught)


def test_an_attach_that_is_refused_still_accounts_for_the_container(fake, kubelet, reply, failure):
    fake.route(f"{POD}/attach", reply(403, failure(403, "Forbidden", "cannot get resource pods/attach")))
    with pytest.raises(NoVantage) as caught:
        ephemeral.prepare(fake.connect(), PLACE, AGENT).open()
    assert caught.value.blinds[0].permission == "get and create pods/attach in shop"
    assert "still runs and could not be ended" in reasons(caught)


def test_a_prober_that_does_not_start_is_told_with_its_last_words(fake, kubelet):
    def talk(stream, _):
        stream.wait(1)
        raise RuntimeError("no hello")

    kubelet.talk = lambda ws: ws.send(b"\x02python3: can't open file\n")
    with pytest.raises(NoVantage, match="no hello: python3: can't open file"):
        ephemeral.prepare(fake.connect(), PLACE, Agent(ECHO, talk)).open()
    assert kubelet.ended


def test_a_pod_that_is_not_running_or_gone_is_said(fake, kubelet, reply, failure):
    kubelet.phase = "Pending"
    with pytest.raises(NoVantage, match="needs a running pod"):
        ephemeral.prepare(fake.connect(), PLACE, AGENT)
    fake.route(POD, reply(404, failure(404, "NotFound", "gone", name="frontend", kind="pods")))
    with pytest.raises(NoVantage, match="is gone"):
        ephemeral.prepare(fake.connect(), PLACE, AGENT)


def test_a_pod_that_goes_away_meanwhile_takes_the_container_with_it(fake, kubelet, reply, failure):
    opened = ephemeral.prepare(fake.connect(), PLACE, AGENT).open()
    fake.route(POD, reply(404, failure(404, "NotFound", "gone", name="frontend", kind="pods")))
    assert "is gone, and the ephemeral container" in opened.close()[0]


@pytest.mark.parametrize("where", ["patch", "wait", "talk"])
def test_an_interrupt_in_any_phase_ends_the_container(fake, kubelet, monkeypatch, where):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    agent = Agent(ECHO, interrupt) if where == "talk" else AGENT
    wanted = ephemeral.prepare(fake.connect(), PLACE, agent)
    if where == "patch":
        patch = ephemeral._patch
        monkeypatch.setattr(ephemeral, "_patch", lambda *a, **k: (patch(*a, **k), interrupt()))
    elif where == "wait":
        monkeypatch.setattr(ephemeral._Session, "_wait_running", interrupt)
    with pytest.raises(KeyboardInterrupt):
        wanted.open()
    assert kubelet.ended == {wanted.name}


def test_a_dropped_attach_ends_open_requests_as_blind_with_the_reason(fake, kubelet):
    from mcdoctor.prober.bootstrap import command
    from mcdoctor.prober.client import StreamProber

    def hello(ws):
        nonce = json.loads(ws.receive()[1][1:])["nonce"]
        ws.send(b"\x01" + nonce.encode() + b' {"hello": {"version": "1"}}\n')
        ws.receive()
        ws.raw.shutdown(2)

    kubelet.talk = hello
    agent = Agent(tuple(command()), lambda s, v: StreamProber(s.reader, s.writer, v).start(b"", timeout=3))
    opened = ephemeral.prepare(fake.connect(), PLACE, agent).open()
    started = time.monotonic()
    (fact,) = opened.prober.run(ReadResolvConf(), budget=10)
    assert isinstance(fact, Blind) and time.monotonic() - started < 3
    assert "has ended" in opened.close()[0]


def test_a_second_debug_container_takes_over_on_a_dropped_attach(fake, kubelet):
    from mcdoctor.prober.bootstrap import command
    from mcdoctor.prober.client import StreamProber

    def answers(ws):
        nonce = json.loads(ws.receive()[1][1:])["nonce"].encode()
        ws.send(b"\x01" + nonce + b' {"hello": {"version": "1"}}\n')
        request = json.loads(ws.receive()[1][1:])
        if kubelet.attached == 1:
            ws.raw.shutdown(2)
            return
        record = {"kind": "resolv_conf", "at": "2026-01-01T00:00:00Z", "vantage": {}, "nameservers": ["10.0.0.10"]}
        record |= {"search": [], "options": []}
        ws.send(b"\x01" + nonce + b" " + json.dumps({"id": request["id"], "fact": record}).encode() + b"\n")
        ws.send(b"\x01" + nonce + b" " + json.dumps({"id": request["id"], "done": True}).encode() + b"\n")
        ws.receive()

    kubelet.talk = answers
    agent = Agent(tuple(command()), lambda s, v: StreamProber(s.reader, s.writer, v).start(b"", timeout=3))
    plan = vantage.choose("ephemeral", fake.connect(), PLACE, agent)
    assert "another one only if its connection drops" in plan.creates[0]
    told: list[str] = []
    kept = lasting(plan.open(), plan.again, told.append)
    (found,) = kept.prober.run(ReadResolvConf(), budget=10)
    assert isinstance(found, ResolvConf), found
    names = [c["name"] for c in kubelet.containers]
    assert len(set(names)) == 2 and found.vantage.container == names[1] == kept.prober.vantage.container
    lines = kept.close()
    assert [name in line and "has ended" in line for name, line in zip(names, lines, strict=True)] == [True, True]
    assert len(told) == 1


def test_the_real_prober_travels_and_answers(fake, kubelet):
    """The container's command runs as a process of this machine; the zip goes in and facts come out over attach."""
    from mcdoctor.prober.archive import archive
    from mcdoctor.prober.bootstrap import command, envelope
    from mcdoctor.prober.client import StreamProber

    def process(ws):
        (container,) = kubelet.containers
        child = subprocess.Popen(container["command"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

        def out():
            while piece := child.stdout.read(65536):
                ws.send(b"\x01" + piece)
            ws.close()

        carrier = threading.Thread(target=out)
        carrier.start()
        while (frame := ws.receive()) is not None and frame[0] != 8:
            if frame[1][:1] == b"\x00":
                child.stdin.write(frame[1][1:])
            elif frame[1][:2] == b"\xff\x00":
                child.stdin.close()
                break
        with suppress(OSError):
            child.stdin.close()
        child.wait(5)
        carrier.join(5)
        child.stdout.close()

    kubelet.talk = process
    program = archive()
    agent = Agent(
        tuple(command()), lambda s, v: StreamProber(s.reader, s.writer, v).start(envelope(program, binary=True))
    )
    opened = ephemeral.prepare(fake.connect(), PLACE, agent).open()
    (fact,) = opened.prober.run(ReadResolvConf(), budget=5)
    assert isinstance(fact, ResolvConf) and fact.vantage.pod == "frontend"
    assert "has ended" in opened.close()[0]


# --- the choice ---


def test_inside_the_source_pod_auto_is_local(fake, kubelet, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("HOSTNAME", "frontend")
    closed = []

    class Local:
        vantage = None

        def close(self):
            closed.append(1)

    plan = vantage.choose("auto", fake.connect(), PLACE, AGENT, local=Local)
    assert plan.kind == "local" and plan.creates == ()
    assert plan.open().close() == () and closed == [1]
    monkeypatch.setenv("HOSTNAME", "toolbox")
    assert vantage.choose("auto", fake.connect(), PLACE, AGENT, local=Local).kind == "ephemeral"


def test_none_sends_nothing_and_asks_nothing(fake, kubelet):
    plan = vantage.choose("none", fake.connect(), PLACE, AGENT)
    assert plan.kind == "none" and fake.requests == []
    with pytest.raises(NoVantage):
        plan.open()


# --- exec ---


def test_exec_takes_the_first_container_that_has_python(fake, kubelet):
    kubelet.spec["containers"] = [{"name": "istio-proxy"}, {"name": "static"}, {"name": "app"}]

    def run(request):
        def talk(ws):
            if request.asked("container") == "static":
                message = 'exec: "python3": executable file not found in $PATH'
                ws.send(b"\x03" + json.dumps({"status": "Failure", "message": message}).encode())
                ws.close()
            else:
                kubelet.echo(ws)

        return talk

    class Careful(EchoProber):
        def __init__(self, stream, seen_from):
            super().__init__(stream, seen_from)
            if self.run(1) != 1:
                raise OSError("the process ended")

    fake.route(f"{POD}/exec", run)
    plan = vantage.choose(
        "exec", fake.connect(), Place("a", "shop", "frontend", captured="istio"), Agent(ECHO, Careful)
    )
    assert plan.kind == "exec" and "container static or app or istio-proxy" in plan.creates[0]
    opened = plan.open()
    assert opened.prober.vantage.container == "app" and opened.prober.vantage.captured == "istio"
    assert [q for q in fake.asked(f"{POD}/exec")[-1].query if q[0] == "command"] == [("command", w) for w in ECHO]
    opened.close()
    plan = vantage.choose("exec", fake.connect(), PLACE, Agent(ECHO, Careful), target="static")
    with pytest.raises(NoVantage, match=r"static: no python3; it needs python3, 3\.11 or newer"):
        plan.open()


def test_exec_without_the_right(fake, kubelet):
    kubelet.denied = {"create pods/exec"}
    plan = vantage.choose("exec", fake.connect(), PLACE, AGENT)
    assert plan.kind == "none" and plan.limits[0].permission == "create pods/exec in shop"


# --- own pod ---


def listing(kind, *specs):
    items = [{"metadata": {"name": f"x{i}", "namespace": "shop"}, "spec": s} for i, s in enumerate(specs)]
    return {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {}, "items": items}


class Namespace:
    """Where the own pod and its owner are made and deleted."""

    def __init__(self, fake, kubelet, reply, failure):
        self.reply, self.failure, self.kubelet = reply, failure, kubelet
        self.objects: dict[str, dict] = {}
        self.log: list[str] = []
        fake.route("/api/v1/namespaces/shop/services", listing("Service", {"selector": {"app": "frontend"}}))
        fake.route("/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies", listing("NetworkPolicy"))
        for resource in ("pods", "configmaps"):
            fake.route(f"/api/v1/namespaces/shop/{resource}", lambda r, kind=resource: self.handle(r, kind))

    def handle(self, request, resource):
        name = request.path.split("/")[6] if request.path.count("/") > 5 else None
        key = f"{resource}/{name}"
        if request.method == "POST":
            name = request.body["metadata"]["name"]
            if request.asked("dryRun") is None:
                self.objects[f"{resource}/{name}"] = request.body
                self.log.append(f"create {resource}")
            return self.reply(201, {**request.body, "metadata": {**request.body["metadata"], "uid": f"uid-{resource}"}})
        if key not in self.objects:
            return self.reply(404, self.failure(404, "NotFound", f"{key} not found", name=name, kind=resource))
        if request.path.endswith("/attach"):
            return self.kubelet.echo
        if request.method == "DELETE":
            self.objects.pop(key)
            self.log.append(f"delete {resource}")
            return self.reply(body={"kind": "Status", "status": "Success"})
        return self.reply(body={**self.objects[key], "status": {"phase": "Running"}})


@pytest.fixture
def namespace(fake, kubelet, reply, failure):
    return Namespace(fake, kubelet, reply, failure)


def test_the_own_pod_is_beside_the_source_and_owned_by_the_run(fake, kubelet, namespace):
    kubelet.spec |= {"dnsConfig": {"nameservers": ["10.0.0.10"]}, "dnsPolicy": "None"}
    plan = vantage.choose("pod", fake.connect(), PLACE, AGENT)
    assert plan.kind == "pod" and len(plan.creates) == 2 and namespace.log == []
    opened = plan.open()
    (body,) = [o for k, o in namespace.objects.items() if k.startswith("pods/")]
    (owner,) = body["metadata"]["ownerReferences"]
    assert owner["controller"] is True and owner["kind"] == "ConfigMap" and owner["uid"] == "uid-configmaps"
    assert body["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "mcdoctor"
    spec = body["spec"]
    assert (spec["nodeName"], spec["serviceAccountName"], spec["dnsPolicy"]) == ("n1", "fe", "None")
    assert spec["automountServiceAccountToken"] is False and spec["activeDeadlineSeconds"] > 0
    assert spec["readinessGates"]
    assert opened.prober.run(9000) == 9000
    assert opened.prober.vantage.pod == body["metadata"]["name"] and opened.prober.vantage.captured is None
    lines = opened.close()
    assert namespace.log == ["create configmaps", "create pods", "delete pods", "delete configmaps"]
    assert all(line.startswith("deleted ") for line in lines) and opened.close() == lines


def test_the_own_pod_keeps_labels_but_never_those_that_a_service_selects(fake, kubelet, namespace):
    own = pod.prepare(fake.connect(), PLACE, AGENT)
    labels = own.manifest["metadata"]["labels"]
    assert labels["tier"] == "web" and "app" not in labels and "pod-template-hash" not in labels
    assert own.limits == ()


def test_a_label_that_a_policy_needs_and_a_service_selects_is_a_limit(fake, kubelet, namespace):
    policy = {"podSelector": {"matchLabels": {"app": "frontend"}}, "policyTypes": ["Egress"]}
    fake.route("/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies", listing("NetworkPolicy", policy))
    own = pod.prepare(fake.connect(), PLACE, AGENT)
    assert "app" not in own.manifest["metadata"]["labels"]
    assert "cannot carry the label app" in own.limits[0].reason


def test_where_services_cannot_be_seen_no_label_is_carried(fake, kubelet, namespace, reply, failure):
    fake.route("/api/v1/namespaces/shop/services", reply(403, failure(403, "Forbidden", "no", kind="services")))
    own = pod.prepare(fake.connect(), PLACE, AGENT)
    assert "tier" not in own.manifest["metadata"]["labels"]
    assert own.limits[0].permission == "list services in shop"


@pytest.mark.parametrize(
    ("wanted", "selectors", "policy_keys", "carried"),
    [
        ({"a": "1", "b": "2"}, [], [], {"a": "1", "b": "2"}),
        ({"a": "1", "b": "2"}, [{"a": "1"}], [], {"b": "2"}),
        ({"a": "1", "b": "2"}, [{"a": "1", "b": "2"}], ["a"], {"a": "1"}),
        ({"a": "1", "b": "2"}, [{"a": "1", "b": "2"}], ["b"], {"b": "2"}),
        ({"a": "1", "b": "2"}, [{"a": "1", "b": "2"}, {"b": "2"}], ["b"], {}),
        ({"a": "1"}, [{"a": "other"}, {}], [], {"a": "1"}),
        ({"pod-template-hash": "x", "security.istio.io/tlsMode": "istio", "a": "1"}, [], [], {"a": "1"}),
    ],
)
def test_no_set_of_carried_labels_completes_a_selector(wanted, selectors, policy_keys, carried):
    labels = pod.safe_labels(wanted, selectors, policy_keys)
    assert not any(s and s.items() <= labels.carried.items() for s in selectors)
    assert dict(labels.carried).items() <= carried.items() or labels.carried == carried


def test_an_interrupt_deletes_the_pod_and_its_owner(fake, kubelet, namespace, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pod._Session, "_wait_running", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pod.prepare(fake.connect(), PLACE, AGENT).open()
    assert namespace.objects == {} and namespace.log[-2:] == ["delete pods", "delete configmaps"]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (
            {
                "phase": "Pending",
                "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}],
            },
            "ErrImagePull: no",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "node was full"}, "node was full"),
        ({"phase": "Pending"}, "did not run within"),
    ],
)
def test_an_own_pod_that_cannot_start_is_said_and_deleted(fake, kubelet, namespace, reply, status, says):
    handle = namespace.handle

    def never_running(request, resource):
        answer = handle(request, resource)
        if request.method == "GET" and answer.code == 200:
            answer.body["status"] = status
        return answer

    fake.route("/api/v1/namespaces/shop/pods/mcdoctor", lambda r: never_running(r, "pods"))
    with pytest.raises(NoVantage) as caught:
        pod.prepare(fake.connect(), PLACE, AGENT, start_timeout=0.3).open()
    assert says in reasons(caught) and namespace.objects == {}


def test_an_own_pod_that_is_not_let_in_creates_nothing(fake, kubelet, namespace, reply, failure):
    refusal = reply(403, failure(403, "Forbidden", "exceeded quota: pods"))
    fake.route("/api/v1/namespaces/shop/pods", lambda r: refusal if r.method == "POST" else kubelet.pod(r))
    plan = vantage.choose("pod", fake.connect(), PLACE, AGENT)
    assert plan.kind == "none" and "exceeded quota" in plan.limits[0].reason and namespace.log == []


def test_an_owner_that_is_not_let_in_creates_no_pod(fake, kubelet, namespace, reply, failure):
    own = pod.prepare(fake.connect(), PLACE, AGENT)
    fake.route("/api/v1/namespaces/shop/configmaps", reply(403, failure(403, "Forbidden", "no configmaps")))
    with pytest.raises(NoVantage, match="no configmaps"):
        own.open()
    assert namespace.objects == {} and namespace.log == []


def test_an_own_pod_whose_prober_does_not_start_is_deleted(fake, kubelet, namespace):
    def talk(*_):
        raise RuntimeError("no hello")

    with pytest.raises(NoVantage, match="no hello"):
        pod.prepare(fake.connect(), PLACE, Agent(ECHO, talk)).open()
    assert namespace.objects == {}


def test_what_could_not_be_deleted_is_said(fake, kubelet, namespace, reply, failure):
    opened = pod.prepare(fake.connect(), PLACE, AGENT).open()
    refusal = reply(403, failure(403, "Forbidden", "cannot delete resource"))
    handle = namespace.handle
    fake.route(
        "/api/v1/namespaces/shop/configmaps/mcdoctor",
        lambda r: refusal if r.method == "DELETE" else handle(r, "configmaps"),
    )
    lines = opened.close()
    assert lines[0].startswith("deleted pod") and "cannot delete resource" in lines[1]


def test_an_account_is_honest_about_what_it_could_not_see(fake, kubelet, reply, failure):
    api = fake.connect()
    wanted = ephemeral.prepare(api, PLACE, AGENT)
    opened = wanted.open()
    fake.route(POD, reply(503, failure(503, "ServiceUnavailable", "etcd is gone")))
    (line,) = opened.close()
    assert line.startswith(f"could not see what became of the ephemeral container {wanted.name}")
    assert "mcdoctor cleanup -n shop --context here" in line


def test_a_container_that_does_not_end_is_said(fake, kubelet):
    wanted = ephemeral.prepare(fake.connect(), PLACE, AGENT)
    kubelet.containers.append(dict(wanted.container))
    line = ephemeral.account(wanted.api, PLACE, wanted.name, end_it=False, timeout=0.3)
    assert "is still running; end it with: mcdoctor cleanup" in line
    assert ephemeral.account(wanted.api, PLACE, "mcdoctor-none", end_it=False).endswith("was not created")
