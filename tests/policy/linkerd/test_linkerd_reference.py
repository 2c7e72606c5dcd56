"""Linkerd: the engine against the naive evaluator over generated clusters; every pointer resolves."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from policy_build import one
from reference import linkerd as naive

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import Engine
from mcdoctor.policy.question import Http, Packet
from mcdoctor.policy.verdict import Direction
from mcdoctor.policy.world import End, Outside

OUTSIDE = ("198.51.100.7", "10.0.0.77", "2001:db8::1")


def ends(objects: naive.Objects, engine: Engine) -> list[tuple[Any, End]]:
    pods = engine.world.clusters["a"].pods
    found: list[tuple[Any, End]] = [(text, Outside(parse_ip(text))) for text in OUTSIDE]
    found += [(raw, pods[raw["metadata"]["namespace"], raw["metadata"]["name"]]) for raw in naive.of(objects, "Pod")]
    return found


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(min_value=0, max_value=10**9))
@example(seed=0)
@example(seed=1)
def test_every_pair_agrees_with_the_naive_evaluator(seed: int) -> None:
    objects = naive.world(random.Random(seed))
    engine = one(*objects)
    assert not [r for r in engine.refusals if r.fatal], engine.refusals
    everyone = ends(objects, engine)
    http = random.Random(seed + 1)
    for raw_source, source in everyone:
        for raw_destination, destination in everyone:
            if raw_source is raw_destination:
                continue
            for port in (8080, 9990, 5432):
                method, path = http.choice(naive.METHODS), http.choice(naive.PATHS)
                if not isinstance(destination, Outside):
                    expected = naive.ingress(objects, raw_source, raw_destination, port, method, path)
                    asked = Packet("a", Direction.INGRESS, source, destination, "TCP", port, http=Http(method, path))
                    assert engine.decide(asked).verdict == expected, (str(source), str(destination), port, method, path)
                elif not isinstance(source, Outside):
                    expected = naive.egress(objects, raw_source, raw_destination, port)
                    asked = Packet("a", Direction.EGRESS, source, destination, "TCP", port)
                    assert engine.decide(asked).verdict == expected, (str(source), str(destination), port)


def test_both_verdicts_and_all_kinds_are_met() -> None:
    """The comparison is worth something only where the worlds are not all alike."""
    seen: dict[str, int] = {}
    kinds: set[str] = set()
    for seed in range(100):
        objects = naive.world(random.Random(seed))
        engine = one(*objects)
        pods = list(engine.world.clusters["a"].pods.values())
        for source in pods:
            for destination in pods:
                decided = engine.decide(
                    Packet("a", Direction.INGRESS, source, destination, "TCP", 8080, http=Http("GET", "/a"))
                )
                seen[decided.verdict] = seen.get(decided.verdict, 0) + 1
                for layer in decided.layers:
                    if layer.layer == "linkerd":
                        kinds |= {f"{d.ref.kind} {d.effect}" for d in layer.decision.by}
    assert min(seen["allowed"], seen["denied"]) > 100
    wanted = {"Server allow", "Server deny", "ServerAuthorization allow", "AuthorizationPolicy allow", "Pod deny"}
    assert wanted | {"Namespace deny", "HTTPRoute deny"} <= kinds


def test_deciding_pointers_resolve_in_their_objects() -> None:
    for seed in range(40):
        objects = naive.world(random.Random(seed))
        engine = one(*objects)
        by_name = {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]): o for o in objects}
        everyone = [end for _, end in ends(objects, engine)]
        for source in everyone:
            for destination in everyone:
                for direction in Direction:
                    decision = engine.decide(Packet("a", direction, source, destination, "TCP", 8080))
                    for layer in decision.layers:
                        for deciding in layer.decision.by:
                            found: Any = by_name[deciding.ref.kind, deciding.ref.namespace, deciding.ref.name]
                            for escaped in deciding.pointer.split("/")[1:]:
                                part = escaped.replace("~1", "/").replace("~0", "~")
                                found = found[int(part)] if isinstance(found, list) else found[part]
