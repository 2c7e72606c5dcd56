"""The engine against the naive evaluator, over generated worlds: every pair, both directions, several ports."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from policy_build import one
from policy_worlds import small
from reference import kubernetes as naive

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Direction
from mcdoctor.policy.world import End, Outside

PORTS = ((80, "TCP"), (8080, "TCP"), (5432, "UDP"), (1000, "SCTP"))
OUTSIDE = ("192.0.2.7", "10.0.0.9", "fd00::1")


@pytest.mark.parametrize("plugin", ["kube-router", ""])
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(min_value=0, max_value=10**9))
@example(seed=0)
@example(seed=1)
def test_every_pair_agrees_with_the_naive_evaluator(plugin: str, seed: int) -> None:
    objects = small(random.Random(seed))
    covers = True if plugin else None
    engine = one(*objects, cni=plugin)
    ends: list[tuple[Any, End]] = [(text, Outside(parse_ip(text))) for text in OUTSIDE]
    for raw in objects:
        if raw["kind"] == "Pod":
            key = (raw["metadata"]["namespace"], raw["metadata"]["name"])
            ends.append((raw, engine.world.clusters["a"].pods[key]))
    for raw_source, source in ends:
        for raw_destination, destination in ends:
            if raw_source is raw_destination:
                continue
            for port, protocol in PORTS:
                for direction in Direction:
                    subject = source if direction is Direction.EGRESS else destination
                    if isinstance(subject, Outside):
                        continue
                    packet = Packet("a", direction, source, destination, protocol, port)
                    expected = naive.direction_verdict(
                        objects, direction.capitalize(), raw_source, raw_destination, port, protocol, covers
                    )
                    assert engine.decide(packet).verdict == expected, (direction, source, destination, port, protocol)


def test_deciding_pointers_resolve_in_their_objects() -> None:
    for seed in range(60):
        objects = small(random.Random(seed))
        engine = one(*objects, cni="kube-router")
        by_name = {
            (o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in objects if o["kind"] == "NetworkPolicy"
        }
        pods = list(engine.world.clusters["a"].pods.values())
        for source in pods:
            for destination in pods:
                for direction in Direction:
                    decision = engine.decide(Packet("a", direction, source, destination, "TCP", 80))
                    for layer in decision.layers:
                        for deciding in layer.decision.by:
                            found: Any = by_name[deciding.ref.namespace, deciding.ref.name]
                            for part in deciding.pointer.split("/")[1:]:
                                found = found[int(part)] if isinstance(found, list) else found[part]
