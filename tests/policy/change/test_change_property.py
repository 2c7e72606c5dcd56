"""Every change proposed, in generated worlds of all kinds: applied it lets the traffic through, takes nothing away and
opens nothing that it does not count; what says deny on purpose is left alone.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from typing import Any

import pytest
from change_worlds import FLAVOURS, Raw, key, world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_build import one

from mcdoctor.policy import opened, smallest
from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import Engine, load
from mcdoctor.policy.path import ask
from mcdoctor.policy.question import Address, Http, NodeName, PodName, Question
from mcdoctor.policy.smallest import Suggestion, suggest
from mcdoctor.policy.verdict import Direction, Verdict
from mcdoctor.policy.world import ClusterInput

RANK = {Verdict.DENIED: 0, Verdict.UNKNOWN: 1, Verdict.CONDITIONAL: 1, Verdict.ALLOWED: 2}
OUTSIDE = ("192.0.2.7", "198.51.100.9", "203.0.113.5")
PORTS = ((80, "TCP"), (8080, "TCP"), (81, "TCP"), (5432, "TCP"), (80, "UDP"), (53, "SCTP"))
Reach = dict[tuple[Any, ...], tuple[int, int]]


def with_objects(objects: list[Raw], changed: list[Any]) -> list[Raw]:
    names = {key(raw) for raw in changed}
    return [o for o in objects if key(o) not in names] + [json.loads(json.dumps(raw)) for raw in changed]


def ends(engine: Engine) -> list[Any]:
    here = engine.world.clusters["a"]
    pods = [PodName(p.namespace, p.name) for p in here.pods.values() if not p.host_network]
    return [*pods, *(NodeName(n) for n in here.nodes), *(Address(parse_ip(text)) for text in OUTSIDE)]


def reach(engine: Engine, http: Http | None) -> Reach:
    """(source, destination, port, protocol) -> ranks of egress and ingress."""
    found: Reach = {}
    everything = ends(engine)
    for source in everything:
        for destination in everything:
            if source == destination or not (isinstance(source, PodName) or isinstance(destination, PodName)):
                continue
            for port, protocol in PORTS:
                asked = Question(source, destination, port, protocol, http=http if protocol == "TCP" else None)
                answer = ask(engine, asked, explain=False)
                found[source, destination, port, protocol] = RANK[answer.egress], RANK[answer.ingress]
    return found


def denied(engine: Engine, rng: random.Random, http: Http | None) -> Question | None:
    everything = ends(engine)
    for _ in range(40):
        source, destination = rng.choice(everything), rng.choice(everything)
        if source == destination or not (isinstance(source, PodName) or isinstance(destination, PodName)):
            continue
        question = Question(source, destination, rng.choice((80, 8080)), http=http)
        if ask(engine, question, explain=False).verdict is Verdict.DENIED:
            return question
    return None


def sides_of(suggestion: Suggestion) -> list[list[Any]]:
    """For each choice of one option a side, the objects to apply: all first options, then each other one instead."""
    first = [side.options[0] for side in suggestion.sides]
    found = [first]
    for number, side in enumerate(suggestion.sides):
        if number == len(suggestion.sides) - 1:  # later sides were asked with the first options of the earlier applied
            found += [[*first[:number], option] for option in side.options[1:]]
    return found


@pytest.mark.parametrize("flavour", FLAVOURS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), asks_http=st.booleans(), large=st.booleans())
def test_every_change_holds_what_it_promises(flavour: str, seed: int, asks_http: bool, large: bool) -> None:
    """`large`: counted as in a world too large to look at every pair."""
    few = opened._FEW
    try:
        opened._FEW = 0 if large else few
        check(flavour, seed, asks_http)
    finally:
        opened._FEW = few


def check(flavour: str, seed: int, asks_http: bool) -> str:
    rng = random.Random(seed)
    objects, cni = world(rng, flavour)
    engine = one(*objects, cni=cni)
    http = Http("POST", "/cart", "shop") if asks_http else None
    question = denied(engine, rng, http)
    if question is None:
        return "nothing refused"
    untouched = copy.deepcopy(objects)
    answer = ask(engine, question)
    suggestion = suggest(engine, answer)
    assert objects == untouched
    assert suggestion is not None
    for side in suggestion.sides:
        strict = [d for d in side.deliberate if d.ref.kind == "PeerAuthentication"]
        if side.deliberate and not strict:
            assert not side.options
            assert "on purpose" in side.why
        for option in side.options:
            assert str(option.words.ko) and option.text
            assert not strict or "broader" in option.text
        if not side.options:
            assert side.why
    if not all(side.options for side in suggestion.sides):
        return "deliberate" if any(side.deliberate for side in suggestion.sides) else "nothing offered"
    assert suggestion.verdict is not Verdict.DENIED
    before = reach(engine, http)
    for number, chosen in enumerate(sides_of(suggestion)):
        changed: list[Raw] = []
        for option in chosen:
            changed = with_objects(changed, list(option.objects))
        rebuilt = one(*with_objects(objects, changed), cni=cni)
        assert not [r for r in rebuilt.refusals if r.fatal], (changed, rebuilt.refusals)
        after_question = ask(rebuilt, question)
        assert after_question.verdict is not Verdict.DENIED
        if number == 0:
            assert after_question.verdict is suggestion.verdict
        after = reach(rebuilt, http)
        asked = (question.source, question.destination, question.port, question.protocol)
        seen: set[tuple[Any, ...]] = set()
        for pair, ranks in before.items():
            for direction, was, now in zip(("egress", "ingress"), ranks, after[pair], strict=True):
                assert now >= was, (pair, direction)
                if now > was and pair != asked:
                    far = pair[1] if direction == "egress" else pair[0]
                    other = isinstance(far, Address) and far not in asked[:2]
                    # Ports that nothing tells apart are counted once.
                    port = pair[2:] if pair[2:] == asked[2:] else "other ports"
                    seen.add((f"{direction} {'address' if other else 'pair'}", *pair[:2], port))
        risen = Counter(each[0] for each in seen)
        for direction in Direction:
            counted = [o for o, s in zip(chosen, suggestion.sides, strict=True) if s.direction is direction]
            pairs, addresses = sum(o.opens for o in counted), sum(o.addresses for o in counted)
            assert risen[f"{direction} pair"] <= pairs, (direction, risen, [o.text for o in counted])
            assert addresses or not risen[f"{direction} address"], (direction, risen, [o.text for o in counted])
    return "changed"


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9))
def test_bitsets_count_what_the_whole_engine_counts(seed: int) -> None:
    """Where NetworkPolicy alone decides rows of bits are counted; pair by pair the figures are the same."""
    rng = random.Random(seed)
    objects, cni = world(rng, "kubernetes")
    engine = one(*objects, cni=cni)
    question = denied(engine, rng, None)
    if question is None:
        return
    answer = ask(engine, question)
    counted = []
    real = smallest.simple
    try:
        for decide in (real, lambda *_: False):
            smallest.simple = decide  # type: ignore[assignment]
            found = suggest(engine, answer, limit=50)
            assert found is not None
            counted.append([sorted((o.text, o.opens, o.addresses) for o in side.options) for side in found.sides])
    finally:
        smallest.simple = real
    assert counted[0] == counted[1]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        found += places(inner, (*path, step))
    return found


JUNK = st.sampled_from([None, True, 0, -1, 2**70, 1.5, "", "*", "10.0.0.0/33", "\u0000", [], {}, [{}], {"": ""}, [[]]])


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(flavour=st.sampled_from(FLAVOURS), seed=st.integers(0, 10**6), pick=st.integers(0, 10**6), junk=JUNK)
def test_junk_anywhere_never_raises_while_a_change_is_sought(flavour: str, seed: int, pick: int, junk: Any) -> None:
    rng = random.Random(seed)
    objects, cni = world(rng, flavour)
    objects = copy.deepcopy(objects)
    kinds = [n for n, o in enumerate(objects) if o["kind"] not in ("Pod", "Namespace", "Node")]
    listed = [(n, *p) for n in kinds for p in places(objects[n]) if p] or [p for p in places(objects) if len(p) > 1]
    *way, last = listed[pick % len(listed)]
    holder: Any = objects
    for step in way:
        holder = holder[step]
    if junk is True:
        del holder[last]
    else:
        holder[last] = junk
    engine = one(*objects, cni=cni)
    for http in (None, Http("POST", "/cart")):
        question = denied(engine, rng, http)
        if question is not None:
            suggest(engine, ask(engine, question))


def moved(objects: list[Raw]) -> list[Raw]:
    """The same world on other addresses: 10.1.x instead of 10.0.x, 172.17.x instead of 172.16.x."""
    text = json.dumps(objects).replace('"10.0.0.', '"10.1.0.').replace('"172.16.', '"172.17.')
    return [raw for raw in json.loads(text) if isinstance(raw, dict)]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    flavours=st.tuples(st.sampled_from(FLAVOURS), st.sampled_from(FLAVOURS)),
    via=st.sampled_from(("flat", "clustermesh", "globalnet", None)),
    seed=st.integers(0, 10**9),
)
def test_changes_on_both_sides_of_two_clusters(flavours: tuple[str, str], via: str | None, seed: int) -> None:
    rng = random.Random(seed)
    worlds = [world(rng, flavour) for flavour in flavours]
    objects = {"a": worlds[0][0], "b": moved(worlds[1][0])}

    def build(changed: dict[str, list[Raw]]) -> Engine:
        return load(
            [
                ClusterInput(n, with_objects(objects[n], changed.get(n, [])), cni=w[1])
                for n, w in zip("ab", worlds, strict=True)
            ]
        )

    engine = build({})
    here, there = ([(p.namespace, p.name) for p in engine.world.clusters[n].pods.values()] for n in "ab")
    for _ in range(12):
        source, destination = PodName(*rng.choice(here), "a"), PodName(*rng.choice(there), "b")
        question = Question(source, destination, rng.choice((80, 8080)), via=via)
        answer = ask(engine, question)
        if answer.verdict is not Verdict.DENIED:
            continue
        suggestion = suggest(engine, answer)
        assert suggestion is not None
        if not all(side.options for side in suggestion.sides):
            continue
        assert suggestion.verdict is not Verdict.DENIED
        changed: dict[str, list[Raw]] = {}
        for side in suggestion.sides:
            earlier = changed.get(side.cluster, [])
            changed[side.cluster] = with_objects(earlier, list(side.options[0].objects))
        rebuilt = build(changed)
        assert not [r for r in rebuilt.refusals if r.fatal]
        assert ask(rebuilt, question).verdict is suggestion.verdict
        return
