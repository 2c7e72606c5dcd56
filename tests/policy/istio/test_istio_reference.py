"""Istio: the engine against the naive evaluator over generated meshes, with sidecars and with ambient."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from policy_build import one
from reference import istio as naive

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.question import Http, Packet
from mcdoctor.policy.verdict import Direction
from mcdoctor.policy.world import End, Outside

OUTSIDE = ("203.0.113.9", "10.0.0.77")


def compare(seed: int) -> dict[str, int]:
    """Every pair of one world on both ports; how often each verdict came out."""
    objects = naive.world(random.Random(seed))
    engine = one(*objects)
    assert engine.refusals == ()
    pods = engine.world.clusters["a"].pods
    raw_pods = [o for o in objects if o["kind"] == "Pod"]
    everyone: list[tuple[Any, End]] = [(text, Outside(parse_ip(text))) for text in OUTSIDE]
    everyone += [(raw, pods[raw["metadata"]["namespace"], raw["metadata"]["name"]]) for raw in raw_pods]
    asked, seen = random.Random(seed + 1), dict[str, int]()
    for raw_source, source in everyone:
        for raw_destination, destination in everyone[len(OUTSIDE) :]:
            if raw_source is raw_destination:
                continue
            for port in (8080, 9090):
                request = naive.request(asked) if port == 8080 else None
                expected = naive.ingress(objects, raw_source, raw_destination, port, request)
                http = Http(**request) if request else None
                packet = Packet("a", Direction.INGRESS, source, destination, "TCP", port, http=http)
                found = engine.decide(packet)
                assert found.verdict == expected, (str(source), str(destination), port, request, found.layers)
                seen[expected] = seen.get(expected, 0) + 1
    return seen


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(min_value=0, max_value=10**9))
@example(seed=0)
@example(seed=1)
def test_every_pair_agrees_with_the_naive_evaluator(seed: int) -> None:
    compare(seed)


def test_all_verdicts_are_met() -> None:
    """The comparison is worth something only where the worlds are not all alike."""
    total: dict[str, int] = {}
    for seed in range(60):
        for verdict, number in compare(seed).items():
            total[verdict] = total.get(verdict, 0) + number
    assert min(total["allowed"], total["denied"]) > 300 and total["unknown"] > 5, total


def test_deciding_pointers_resolve_in_their_objects() -> None:
    for seed in range(40):
        objects = naive.world(random.Random(seed))
        engine = one(*objects)
        by_name = {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]): o for o in objects}
        pods = list(engine.world.clusters["a"].pods.values())
        for source in pods:
            for destination in pods:
                for port in (8080, 9090):
                    packet = Packet("a", Direction.INGRESS, source, destination, "TCP", port)
                    for layer in engine.decide(packet).layers:
                        for deciding in layer.decision.by:
                            found: Any = by_name[deciding.ref.kind, deciding.ref.namespace, deciding.ref.name]
                            for part in deciding.pointer.split("/")[1:]:
                                found = found[int(part)] if isinstance(found, list) else found[part]
