"""All kinds mixed in one cluster: nothing raises, pointers resolve, layers compose, and what cannot matter does not."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_build import obj, one
from policy_worlds import small_admin

from mcdoctor.policy.engine import Engine
from mcdoctor.policy.families import FAMILIES
from mcdoctor.policy.path import Answer, ask
from mcdoctor.policy.question import Address, Http, Icmp, NodeName, PodName, Question
from mcdoctor.policy.verdict import Verdict, conjunction

Raw = dict[str, Any]
MESH_GROUPS = ("security.istio.io", "networking.istio.io", "policy.linkerd.io")


def _authorization(rng: random.Random, name: str) -> Raw:
    rule: Raw = {}
    if rng.random() < 0.7:
        rule["from"] = [
            {"source": rng.choice([{"namespaces": ["n0"]}, {"principals": ["*"]}, {"ipBlocks": ["10.0.0.0/30"]}])}
        ]
    if rng.random() < 0.6:
        rule["to"] = [{"operation": rng.choice([{"ports": ["80"]}, {"methods": ["GET"]}, {"notPaths": ["/admin*"]}])}]
    action = rng.choice(("ALLOW", "DENY", "AUDIT"))
    spec: Raw = {"action": action, "rules": [] if action == "ALLOW" and rng.random() < 0.2 else [rule]}
    if rng.random() < 0.6:
        spec["selector"] = {"matchLabels": {"app": rng.choice(("web", "api", "db"))}}
    return obj("security.istio.io/v1", "AuthorizationPolicy", f"n{rng.randrange(3)}", name, spec)


def _peer_authentication(rng: random.Random, name: str) -> Raw:
    mode = rng.choice(("STRICT", "PERMISSIVE", "DISABLE"))
    return obj("security.istio.io/v1", "PeerAuthentication", f"n{rng.randrange(3)}", name, {"mtls": {"mode": mode}})


def _cilium(rng: random.Random, name: str) -> Raw:
    rule: Raw = {}
    if rng.random() < 0.8:
        rule["fromEndpoints"] = [{"matchLabels": {"app": rng.choice(("web", "api"))}}]
    else:
        rule["fromEntities"] = [rng.choice(("world", "cluster", "all"))]
    if rng.random() < 0.6:
        rule["toPorts"] = [{"ports": [{"port": "80", "protocol": "TCP"}]}]
    spec: Raw = {"endpointSelector": {"matchLabels": {"app": rng.choice(("web", "api", "db"))}}}
    spec["ingress" if rng.random() < 0.7 else "ingressDeny"] = [rule]
    return obj("cilium.io/v2", "CiliumNetworkPolicy", f"n{rng.randrange(3)}", name, spec)


def _calico(rng: random.Random, name: str) -> Raw:
    rule: Raw = {"action": rng.choice(("Allow", "Deny", "Pass", "Log")), "protocol": "TCP"}
    if rng.random() < 0.7:
        rule["source"] = rng.choice([{"selector": "app == 'web'"}, {"nets": ["10.0.0.0/30"]}, {"selector": "all()"}])
    if rng.random() < 0.5:
        rule["destination"] = {"ports": [80]}
    spec: Raw = {"order": rng.choice((10, 2000)), "selector": rng.choice(("all()", "app == 'api'", "has(tier)"))}
    spec |= {"types": ["Ingress"], "ingress": [rule]}
    if rng.random() < 0.5:
        return obj("projectcalico.org/v3", "GlobalNetworkPolicy", None, name, spec)
    return obj("projectcalico.org/v3", "NetworkPolicy", f"n{rng.randrange(3)}", name, spec)


def _linkerd(rng: random.Random, name: str) -> Raw:
    spec = {"podSelector": {"matchLabels": {"app": rng.choice(("web", "api"))}}, "port": rng.choice((80, "http"))}
    return obj("policy.linkerd.io/v1beta3", "Server", f"n{rng.randrange(3)}", name, spec)


def mixed(rng: random.Random) -> list[Raw]:
    objects = small_admin(rng)
    for raw in objects:
        if raw["kind"] == "Pod" and rng.random() < 0.6:
            raw["spec"]["containers"].append({"name": rng.choice(("istio-proxy", "linkerd-proxy"))})
    makers = (_authorization, _peer_authentication, _cilium, _calico, _linkerd)
    return objects + [rng.choice(makers)(rng, f"mixed{number}") for number in range(rng.randint(1, 8))]


def group(raw: Raw) -> str:
    return str(raw["apiVersion"]).rpartition("/")[0]


def questions(engine: Engine, rng: random.Random) -> list[Question]:
    pods = [PodName(p.namespace, p.name) for p in engine.world.clusters["a"].pods.values()]
    found = []
    for _ in range(8):
        address = Address(next(iter(engine.world.pods())).ips[0])
        source = rng.choice([rng.choice(pods), rng.choice(pods), address, NodeName("node1")])
        http = rng.choice([None, Http("GET", "/admin"), Http("POST", "/", "x", {"a": "b"})])
        icmp = Icmp(4, 8) if rng.random() < 0.1 else None
        found.append(Question(source, rng.choice(pods), rng.choice((80, 8080)), icmp=icmp, http=http))
    return found


def _pointers_resolve(objects: list[Raw], answer: Answer) -> None:
    for deciding in answer.deciding:
        ref = deciding.ref
        same = [
            o for o in objects
            if o["kind"] == ref.kind and o["metadata"]["name"] == ref.name and o["metadata"].get("namespace", "") == ref.namespace
        ]  # fmt: skip
        if not same:
            continue  # a default that no object states
        resolved = False
        for found in same:
            value: Any = found
            try:
                for escaped in deciding.pointer.split("/")[1:]:
                    part = escaped.replace("~1", "/").replace("~0", "~")
                    value = value[int(part)] if isinstance(value, list) else value[part]
                resolved = True
            except (KeyError, IndexError, TypeError, ValueError):
                continue
        assert resolved, deciding


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9))
def test_mixed_worlds_answer_every_question_consistently(seed: int) -> None:
    rng = random.Random(seed)
    objects = mixed(rng)
    engine = one(*objects)
    assert not [r for r in engine.refusals if r.fatal], engine.refusals
    for question in questions(engine, rng):
        answer = ask(engine, question)
        assert answer.verdict is conjunction((answer.egress, answer.ingress)) or len(answer.paths) > 1
        if answer.verdict is Verdict.DENIED:
            assert answer.deciding, answer.reason
            assert all(d.effect == "deny" for d in answer.deciding)
        if answer.verdict in (Verdict.CONDITIONAL, Verdict.UNKNOWN):
            assert answer.reason
        _pointers_resolve(objects, answer)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), cni=st.sampled_from(["kube-router", "cilium", "calico"]))
def test_network_and_mesh_compose_by_conjunction(seed: int, cni: str) -> None:
    """Dropping the mesh's objects, or the network's, gives the two verdicts whose conjunction is the whole."""
    rng = random.Random(seed)
    objects = mixed(rng)
    whole = one(*objects, cni=cni)
    bare = [o for o in objects if group(o) in ("", "v1") or o["kind"] in ("Pod", "Namespace", "Node")]
    network = one(*[o for o in objects if group(o) not in MESH_GROUPS], cni=cni)
    mesh = one(*bare, *[o for o in objects if group(o) in MESH_GROUPS], cni=cni)
    for question in questions(whole, rng):
        answers = [ask(engine, question) for engine in (whole, network, mesh)]
        for side in ("egress", "ingress"):
            expected = conjunction((getattr(answers[1], side), getattr(answers[2], side)))
            assert getattr(answers[0], side) is expected, (question, side, [a.reason for a in answers])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9))
def test_the_order_of_objects_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    objects = mixed(rng)
    shuffled = copy.deepcopy(objects)
    rng.shuffle(shuffled)
    first, second = one(*objects), one(*shuffled)
    for question in questions(first, random.Random(seed)):
        one_answer, other = ask(first, question), ask(second, question)
        assert (one_answer.verdict, one_answer.egress, one_answer.ingress) == (
            other.verdict,
            other.egress,
            other.ingress,
        )
        assert set(one_answer.deciding) == set(other.deciding)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


JUNK = st.sampled_from(
    [None, True, 0, -1, 2**70, 1.5, "", "*", "10.0.0.0/33", "\u0000", [], {}, [{}], {"": ""}, [[]], "a" * 300]
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6), pick=st.integers(0, 10**6), junk=JUNK)
def test_junk_anywhere_never_raises(seed: int, pick: int, junk: Any) -> None:
    rng = random.Random(seed)
    objects = copy.deepcopy(mixed(rng))
    places = [p for p in _places(objects) if len(p) > 1]
    place = places[pick % len(places)]
    holder: Any = objects
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = junk
    engine = one(*objects)
    pods = [PodName(p.namespace, p.name) for p in engine.world.clusters["a"].pods.values()][:4]
    for source in pods:
        for destination in pods:
            ask(engine, Question(source, destination, 80, http=rng.choice([None, Http("GET", "/")])))


@pytest.mark.parametrize("family", [f.name for f in FAMILIES])
def test_every_family_is_silent_without_objects_of_its_kinds(family: str) -> None:
    objects = [o for o in small_admin(random.Random(4)) if o["kind"] in ("Namespace", "Pod", "Node")]
    engine = one(*objects)
    for question in questions(engine, random.Random(1)):
        assert ask(engine, question).verdict is Verdict.ALLOWED
    assert not engine.compiled["a"][family].refusals
