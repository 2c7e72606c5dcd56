"""What `mcdoctor rbac` prints is what is read: enough for every read, and nothing that no read needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
import yaml

from mcdoctor.check import World
from mcdoctor.flow import FlowRequest, parse_target, resolve
from mcdoctor.flow.gather import gather
from mcdoctor.kube.agent import Agent, NoVantage
from mcdoctor.kube.ephemeral import Place, prepare
from mcdoctor.kube.rbac import VANTAGES, Rule, Subject, manifests, merged
from mcdoctor.kube.resources import KNOWN
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Absent, Fact, KubeObject, Listed
from mcdoctor.models.vantage import Vantage
from mcdoctor.runner.registry import load

SEEN = {"at": datetime(2026, 1, 1, tzinfo=UTC), "vantage": Vantage(cluster="a")}
Read = tuple[str, str, str | None, str | None]


class Recorder:
    """A reader that remembers what was asked of it; it has one Deployment and one Service, and what makes a diagnosis
    read on: a pod in a mesh, a policy of Calico for hosts that goes by service accounts."""

    cluster = "a"

    def __init__(self) -> None:
        self.reads: set[Read] = set()

    def get(self, kind: str, namespace: str | None, name: str) -> Fact:
        self.reads.add(("get", kind, namespace, name))
        if (kind, name) in (("Deployment.apps", "frontend"), ("Service", "backend")):
            return self._object(kind, namespace or "shop", name)
        return Absent(**SEEN, cluster="a", wanted=kind, namespace=namespace, name=name)

    def list(
        self, kind: str, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> Sequence[Fact]:
        self.reads.add(("list", kind, namespace, None))
        name = {"Deployment.apps": "frontend", "Service": "backend"}.get(kind)
        place = {"frontend": "shop", "backend": "data"}.get(name or "")
        found = [self._object(kind, namespace or place, name)] if name and place else []
        if kind == "Pod" and namespace:
            found = [self._object(kind, namespace, "one", {"containers": [{"name": "istio-proxy"}]})]
        if kind == "GlobalNetworkPolicy.projectcalico.org":
            found = [self._object(kind, None, "g", {"applyOnForward": True, "serviceAccountSelector": "all()"})]
        return [
            *found,
            Listed(**SEEN, cluster="a", wanted=kind, namespace=namespace, selector=labels, count=len(found)),
        ]

    def ask(self, namespace: str, pod: str, port: int, path: str) -> Fact:
        raise AssertionError("no debug endpoint is read for a flow")

    def _object(self, kind: str, namespace: str | None, name: str, spec: dict | None = None) -> KubeObject:
        word, _, group = kind.partition(".")
        version = f"{group}/v1" if group else "v1"
        meta = {"name": name, **({"namespace": namespace} if namespace else {})}
        body = {"apiVersion": version, "kind": word, "metadata": meta, "spec": spec or {}}
        return KubeObject(**SEEN, cluster="a", body=body)


def reads(namespace: str | None, to_namespace: str | None) -> set[Read]:
    recorder = Recorder()
    request = FlowRequest(
        source=parse_target("frontend"),
        destination=parse_target("backend"),
        source_cluster="a",
        destination_cluster="a",
        namespace=namespace,
        to_namespace=to_namespace,
    )
    gather({"a": recorder}, request)
    return recorder.reads


def reads_of_probes() -> set[Read]:
    """What the probes of all checks read of a cluster where nothing was gathered but the pair."""
    recorder = Recorder()
    request = FlowRequest(
        source=parse_target("frontend"),
        destination=parse_target("backend:80"),
        source_cluster="a",
        namespace="shop",
        to_namespace="data",
    )
    pair = Facts(
        (recorder._object("Deployment.apps", "shop", "frontend"), recorder._object("Service", "data", "backend"))
    )
    flow = resolve(request, pair)
    world = World(flow=flow, facts=Facts(tuple(pair), flow), readers=(recorder,))
    for check in load().checks:
        if check.probe is not None:
            list(check.probe(world))
    return recorder.reads


def allowed(objects: list[dict], read: Read) -> bool:
    verb, kind, namespace, name = read
    resource = KNOWN[kind]
    for role in objects:
        if role["kind"] == "Role" and role["metadata"]["namespace"] != namespace:
            continue
        for rule in role.get("rules", ()):
            if (
                resource.group in rule["apiGroups"]
                and resource.plural in rule["resources"]
                and verb in rule["verbs"]
                and ("resourceNames" not in rule or name in rule["resourceNames"])
            ):
                return True
    return False


def test_every_read_of_a_flow_is_granted():
    objects = manifests("diagnose", namespace="shop", to_namespace="data", cluster_scope=True, extensions=True)
    for wanted in (reads("shop", "data"), reads(None, None), reads_of_probes()):
        assert len(wanted) > 5
        assert [r for r in sorted(wanted, key=str) if not allowed(objects, r)] == []


def test_without_cluster_scope_only_what_is_read_cluster_wide_is_missing():
    objects = manifests("diagnose", namespace="shop", to_namespace="data", extensions=True)
    assert not any(o["kind"].startswith("Cluster") for o in objects)
    missing = {r for r in reads("shop", "data") if not allowed(objects, r)}
    assert missing and all(namespace is None for _, _, namespace, _ in missing)


def test_nothing_is_granted_that_no_read_needs():
    objects = manifests("diagnose", namespace="shop", to_namespace="data", cluster_scope=True, extensions=True)
    everything = reads("shop", "data") | reads(None, None) | reads_of_probes()
    # nodes tell which cluster is which; namespaces are listed where a policy selects some
    everything |= {("list", "Node", None, None), ("list", "Namespace", None, None)}
    asked = {(verb, KNOWN[kind].group, KNOWN[kind].plural) for verb, kind, _, _ in everything}
    for role in objects:
        for rule in role.get("rules", ()):
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    assert (verb, rule["apiGroups"][0], resource) in asked
                    assert "*" not in (verb, resource)


def test_reading_never_grants_secrets_or_writes():
    for purpose in ("diagnose", "collect"):
        for role in manifests(purpose, namespace="shop", cluster_scope=True, extensions=True):
            for rule in role.get("rules", ()):
                assert set(rule["verbs"]) <= {"get", "list"} and "secrets" not in rule["resources"]


def test_probing_is_granted_where_the_source_is_and_nowhere_else():
    objects = manifests("probe", namespace="shop", to_namespace="data")
    active = {
        role["metadata"]["namespace"]
        for role in objects
        for rule in role.get("rules", ())
        if {"create", "patch", "delete"} & set(rule["verbs"])
    }
    assert active == {"shop"}


def test_the_rights_that_are_reviewed_are_the_rights_that_are_granted(fake):
    """The reviews that `prepare` asks, against the table that `rbac` prints."""
    with pytest.raises(NoVantage):  # there is no such pod; the reviews are asked before
        prepare(fake.connect(), Place("a", "shop", "frontend"), Agent(("x",), lambda s, v: None))
    asked = set()
    for request in fake.asked("/apis/authorization.k8s.io"):
        a = request.body["spec"]["resourceAttributes"]
        asked.add((a["verb"], a["resource"] + (f"/{a['subresource']}" if "subresource" in a else "")))
    assert asked == {(verb, rule.resource) for rule in VANTAGES["ephemeral"] for verb in rule.verbs}


def test_rules_of_one_resource_come_together():
    rules = [
        Rule("", "pods", ("list",)),
        Rule("", "pods", ("get",)),
        Rule("", "services", ("get", "list")),
        Rule("", "configmaps", ("get",), ("coredns",)),
    ]
    assert merged(rules) == [
        {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["coredns"], "verbs": ["get"]},
    ]


def test_a_subject_is_bound_as_rbac_writes_it():
    bound = manifests("diagnose", namespace="shop", subject=Subject("Group", "team-a"))
    assert bound[1]["subjects"] == [{"kind": "Group", "name": "team-a", "apiGroup": "rbac.authorization.k8s.io"}]
    default = manifests("diagnose", namespace="shop")
    assert default[0]["kind"] == "ServiceAccount"
    assert default[2]["subjects"] == [{"kind": "ServiceAccount", "name": "mcdoctor", "namespace": "shop"}]


def rbac(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mcdoctor", "rbac", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_the_command_prints_yaml():
    ran = rbac("--for", "probe", "-n", "shop", "--serviceaccount", "ci:bot", "--probe", "pod")
    assert ran.returncode == 0 and ran.stderr == ""
    objects = list(yaml.safe_load_all(ran.stdout))
    assert objects == manifests("probe", namespace="shop", probe="pod", subject=Subject("ServiceAccount", "bot", "ci"))


@pytest.mark.parametrize("arguments", [("--user", "a", "--group", "b"), ("--serviceaccount", "bot"), ("--for", "x")])
def test_a_wrong_call_is_a_usage_error(arguments):
    ran = rbac(*arguments)
    assert ran.returncode == 2 and "Traceback" not in ran.stderr and ran.stdout == ""


def test_granting_to_one_takes_nothing_from_another():
    def names(user: str, **options: object) -> set[tuple[str, str, str]]:
        objects = manifests(namespace="shop", cluster_scope=True, subject=Subject("User", user), **options)
        return {
            (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects if "roleRef" in o
        }

    assert not names("jane", purpose="probe") & names("kate", purpose="probe")
    for options in ({"purpose": "diagnose"}, {"purpose": "probe"}, {"purpose": "probe", "probe": "pod"}):
        roles = {}
        for role in manifests(namespace="shop", **options):
            if "rules" in role:
                roles[(role["metadata"]["namespace"], role["metadata"]["name"])] = role["rules"]
        for role in manifests(namespace="shop", to_namespace="data", **options):
            key = (role["metadata"].get("namespace"), role["metadata"]["name"])
            assert "rules" not in role or roles.get(key, role["rules"]) == role["rules"]
