"""Near misses over generated worlds: with what a near miss names undone, the refusal is gone, for every family.

The world with the change is built anew from its objects (`policy_near`).
"""

from __future__ import annotations

import collections
import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from calico.test_calico_reference import world as calico_world
from cilium.test_cilium_reference import SETTINGS
from cilium.test_cilium_reference import policy as cilium_policy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from policy_build import node, one
from policy_near import decided, key, resolves, with_changes
from policy_worlds import small, small_admin
from reference import istio, linkerd

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import Engine
from mcdoctor.policy.layers import PointDecision
from mcdoctor.policy.near import near_misses
from mcdoctor.policy.question import Http, Packet
from mcdoctor.policy.verdict import Direction, Verdict
from mcdoctor.policy.world import DomainName, End, Outside, Pod

Raw = dict[str, Any]
OUTSIDE: tuple[End, ...] = (
    Outside(parse_ip("192.0.2.7")),
    Outside(parse_ip("10.0.0.77")),
    DomainName("api.example.com"),
)


def cilium_world(rng: random.Random) -> list[Raw]:
    objects = [o for o in small(rng) if o["kind"] != "NetworkPolicy" or rng.random() < 0.3]
    objects += [cilium_policy(rng, f"c{number}") for number in range(rng.randint(1, 4))]
    return [*objects, SETTINGS, *(node(f"node{n}", "172.16.0.5" if n == 5 else f"172.17.0.{n}") for n in range(6))]


WORLDS: dict[str, tuple[Callable[[random.Random], list[Raw]], str]] = {
    "kubernetes": (small, "kube-router"),
    "admin": (small_admin, "ovn-kubernetes"),
    "cilium": (cilium_world, "cilium"),
    "calico": (calico_world, "calico"),
    "istio": (istio.world, ""),
    "linkerd": (linkerd.world, ""),
}


def http(family: str, rng: random.Random, port: int) -> Http | None:
    if family == "istio":
        return Http(**istio.request(rng)) if port == 8080 else None
    if family == "linkerd":
        return Http(rng.choice(linkerd.METHODS), rng.choice(linkerd.PATHS))
    return None


def refused(family: str, engine: Engine, rng: random.Random) -> Iterator[PointDecision]:
    """Every packet of a world, on one port each, that some layer refuses."""
    pods: list[End] = list(engine.world.clusters["a"].pods.values())
    for source in [*OUTSIDE[:2], *pods]:
        for destination in [*OUTSIDE, *pods]:
            if source is destination:
                continue
            port, protocol = rng.choice(((80, "TCP"), (8080, "TCP"), (9090, "TCP"), (5432, "UDP")))
            direction = rng.choice(list(Direction))
            subject = source if direction is Direction.EGRESS else destination
            if not isinstance(subject, Pod) or (isinstance(source, Outside) and isinstance(destination, Outside)):
                continue
            packet = Packet("a", direction, source, destination, protocol, port, http=http(family, rng, port))
            point = engine.decide(packet)
            if any(layer.decision.verdict is Verdict.DENIED for layer in point.layers):
                yield point


def check(family: str, seed: int, seen: collections.Counter[str]) -> None:
    make, cni = WORLDS[family]
    rng = random.Random(seed)
    objects = make(rng)
    engine = one(*objects, cni=cni)
    points = list(refused(family, engine, rng))
    for point in rng.sample(points, min(len(points), 12)):
        layers = {layer.layer for layer in point.layers if layer.decision.verdict is Verdict.DENIED}
        found = near_misses(engine, point)
        seen["refused"] += 1
        seen["near"] += bool(found)
        for miss in found:
            seen[miss.ref.kind] += 1
            assert miss.why and any("가" <= c <= "힣" for c in miss.ko), miss
            assert miss.changes or miss.traffic, miss
            assert [o for o in objects if key(o) == miss.ref and resolves(o, miss.pointer)] or not miss.changes, miss
            told = (family, seed, str(point.packet.source), str(point.packet.destination), point.packet.port, miss)
            after = decided(with_changes(objects, cni, miss), point.packet, layers, miss)
            wanted = {Verdict.ALLOWED} if not miss.then else {Verdict.UNKNOWN, Verdict.CONDITIONAL}
            # Where two layers refuse, the miss speaks for one of them.
            assert not after or any(decision.verdict in wanted for decision in after), told


@pytest.mark.parametrize("family", list(WORLDS))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(min_value=0, max_value=10**9))
def test_what_a_near_miss_names_undone_lifts_the_refusal(family: str, seed: int) -> None:
    check(family, seed, collections.Counter())


@pytest.mark.parametrize(
    ("family", "kinds"),
    [
        ("kubernetes", {"NetworkPolicy"}),
        ("admin", {"NetworkPolicy", "AdminNetworkPolicy", "ClusterNetworkPolicy"}),
        ("cilium", {"NetworkPolicy", "CiliumNetworkPolicy"}),
        ("calico", {"NetworkPolicy", "GlobalNetworkPolicy"}),
        ("istio", {"AuthorizationPolicy", "PeerAuthentication"}),
        ("linkerd", {"Server", "AuthorizationPolicy", "ServerAuthorization", "HTTPRoute"}),
    ],
)
def test_the_generated_worlds_have_near_misses_of_every_kind(family: str, kinds: set[str]) -> None:
    seen: collections.Counter[str] = collections.Counter()
    for seed in range(120 if family == "linkerd" else 40):
        check(family, seed, seen)
    assert kinds <= set(seen), seen
    assert seen["near"] > seen["refused"] / 10, seen


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        found += places(member, (*path, name))
    return found


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 70_000), st.sampled_from(("", "x", "*", "10.0.0.0/8", "a b")),
    st.sampled_from(([], {}, [{}], [None], [[]], {"x": []}, ["x"], {"matchLabels": {"a": "b"}})),
)  # fmt: skip


@pytest.mark.parametrize("family", list(WORLDS))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), picks=st.lists(st.tuples(st.integers(0, 10**9), JUNK), min_size=1, max_size=3))
@example(seed=732, picks=[(732, True)])
@example(seed=732, picks=[(183, True)])
def test_junk_in_a_policy_never_raises(family: str, seed: int, picks: list[tuple[int, Any]]) -> None:
    make, cni = WORLDS[family]
    rng = random.Random(seed)
    objects = copy.deepcopy(make(rng))
    policies = [
        o for o in objects if o["kind"] not in ("Pod", "Namespace", "Node", "ConfigMap", "Service") and "spec" in o
    ]
    for pick, junk in picks if policies else ():
        raw = policies[pick % len(policies)]
        listed = places({"spec": raw["spec"]})
        *way, last = listed[pick // len(policies) % len(listed)]
        holder: Any = raw
        for name in way:
            holder = holder[name]
        holder[last] = copy.deepcopy(junk)  # two places may not share it: one may come to lie inside the other
    engine = one(*objects, cni=cni)
    for point in refused(family, engine, rng):
        near_misses(engine, point)
