"""ANP, BANP and CNP with NetworkPolicy between: the engine against the naive evaluator over generated worlds."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from policy_build import one
from policy_worlds import small_admin
from reference import admin as naive

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Direction
from mcdoctor.policy.world import End, Outside

PORTS = ((80, "TCP"), (5432, "UDP"), (1000, "SCTP"))
OUTSIDE = ("192.0.2.7", "10.0.0.9", "172.16.1.2", "fd00::1")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(min_value=0, max_value=10**9))
@example(seed=0)
@example(seed=3)
def test_every_pair_agrees_with_the_naive_evaluator(seed: int) -> None:
    objects = small_admin(random.Random(seed))
    engine = one(*objects, cni="kube-router")
    assert not engine.refusals
    ends: list[tuple[Any, End]] = [(text, Outside(parse_ip(text))) for text in OUTSIDE]
    for raw in objects:
        if raw["kind"] == "Pod":
            ends.append((raw, engine.world.clusters["a"].pods[raw["metadata"]["namespace"], raw["metadata"]["name"]]))
    for raw_source, source in ends:
        for raw_destination, destination in ends:
            if raw_source is raw_destination:
                continue
            for port, protocol in PORTS:
                for direction in Direction:
                    if isinstance(source if direction is Direction.EGRESS else destination, Outside):
                        continue
                    packet = Packet("a", direction, source, destination, protocol, port)
                    expected = naive.direction_verdict(
                        objects, direction.capitalize(), raw_source, raw_destination, port, protocol, True
                    )
                    assert engine.decide(packet).verdict == expected, (direction, source, destination, port, protocol)
