"""What the API server would refuse is named with object and field; the rest stands; nothing raises."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_build import namespace, network_policy, one, packet, pod
from policy_worlds import small

WORLD = (
    namespace("shop"),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1"),
    pod("shop", "api", {"app": "api"}, ip="10.0.0.2"),
)
CLOSED = network_policy("shop", "closed", {"podSelector": {}, "policyTypes": ["Ingress"]})


def rule(**parts: Any) -> dict[str, Any]:
    return {"podSelector": {}, "ingress": [parts]}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (rule(ports=[{"port": 90, "endPort": 80}]), "/spec/ingress/0/ports/0/endPort"),
        (rule(ports=[{"port": "http", "endPort": 80}]), "/spec/ingress/0/ports/0/endPort"),
        (rule(ports=[{"endPort": 80}]), "/spec/ingress/0/ports/0/endPort"),
        (rule(ports=[{"port": 0}]), "/spec/ingress/0/ports/0/port"),
        (rule(ports=[{"port": 70000}]), "/spec/ingress/0/ports/0/port"),
        (rule(ports=[{"port": "NotAName"}]), "/spec/ingress/0/ports/0/port"),
        (rule(ports=[{"port": "a-name-that-is-too-long"}]), "/spec/ingress/0/ports/0/port"),
        (rule(ports=[{"port": 80, "protocol": "ICMP"}]), "/spec/ingress/0/ports/0/protocol"),
        (rule(ports={"port": 80}), "/spec/ingress/0/ports"),
        (rule(**{"from": [{}]}), "/spec/ingress/0/from/0"),
        (rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.1"}}]}), "/spec/ingress/0/from/0/ipBlock/cidr"),
        (rule(**{"from": [{"ipBlock": {}}]}), "/spec/ingress/0/from/0/ipBlock/cidr"),
        (rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.1.0.0/25"]}}]}), "/spec/ingress/0/from/0/ipBlock/except/0"),
        (rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.0/24"]}}]}), "/spec/ingress/0/from/0/ipBlock/except/0"),
        (rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}, "podSelector": {}}]}), "/spec/ingress/0/from/0"),
        (rule(**{"from": "all"}), "/spec/ingress/0/from"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "/spec/podSelector/matchExpressions/0/values"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}, "/spec/podSelector/matchExpressions/0/values"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}, "/spec/podSelector/matchExpressions/0/operator"),
        ({"podSelector": {"matchLabels": {"app": True}}}, "/spec/podSelector/matchLabels/app"),
        ({"podSelector": {"matchLabels": {"a b": "c"}}}, "/spec/podSelector/matchLabels"),
        ({"podSelector": {}, "policyTypes": ["ingress"]}, "/spec/policyTypes/0"),
        ({"podSelector": {}, "policyTypes": ["Ingress", "Egress", "Ingress"]}, "/spec/policyTypes"),
        ({"podSelector": []}, "/spec/podSelector"),
        ([], "/spec"),
    ],
)  # fmt: skip
def test_what_the_api_server_refuses_is_named_and_the_rest_stands(spec: Any, field: str) -> None:
    engine = one(*WORLD, CLOSED, network_policy("shop", "broken", spec))
    assert [(r.ref.name, r.field) for r in engine.refusals] == [("broken", field)]
    assert engine.decide(packet(engine, "ingress", "shop/web", "shop/api")).verdict == "denied"


def test_a_removed_api_group_is_named() -> None:
    old = CLOSED | {"apiVersion": "extensions/v1beta1"}
    assert [r.field for r in one(*WORLD, old).refusals] == ["/apiVersion"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**6), pick=st.integers(0, 10**6), junk=JSON)
def test_junk_anywhere_in_any_object_never_raises(seed: int, pick: int, junk: Any) -> None:
    objects = small(random.Random(seed))
    places = [p for p in _places(objects) if p]
    place = places[pick % len(places)]
    holder: Any = objects
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = junk
    engine = one(*objects)
    pods = list(engine.world.clusters["a"].pods.values())
    for source in pods[:2]:
        for destination in pods[-2:]:
            for direction in ("ingress", "egress"):
                engine.decide(packet(engine, direction, f"{source.namespace}/{source.name}", f"{destination.namespace}/{destination.name}"))  # fmt: skip
