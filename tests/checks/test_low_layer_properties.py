"""Judges of the rooms tcp, mtu and request on any facts at all: never an exception, only declared ids, stable answers."""

from __future__ import annotations

import pytest
import strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcdoctor.check import Check
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Fact, HttpRequest, HttpSeries, KubeObject, PathMtu, TcpConnect
from mcdoctor.models.outcome import Failed, Passed, findings, word
from mcdoctor_checks import mtu, request, tcp
from mcdoctor_checks.mtu.shape import shape

OURS = (*tcp.CHECKS, *mtu.CHECKS, *request.CHECKS)
BASE = (TcpConnect, PathMtu, HttpRequest, HttpSeries, KubeObject)


@pytest.mark.parametrize("check", OURS, ids=lambda c: c.id)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_judges_take_anything(check: Check, data: st.DataObject) -> None:
    kinds: tuple[type[Fact], ...] = tuple({*check.gives, *check.uses, *BASE})
    facts = data.draw(strategies.facts(*sorted(kinds, key=lambda k: k.KIND), max_size=6))
    flow = data.draw(strategies.flows)
    outcome = check.judge(Facts(facts, flow))
    told = findings(outcome)
    assert {f.id for f in told} <= set(check.findings)
    assert word(check.judge(Facts(facts, flow))) == word(outcome)
    assert all(f.subject is not None for f in told)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(fact=strategies.of_class(PathMtu))
def test_a_hole_lies_between_what_was_seen(fact: PathMtu) -> None:
    """The largest delivered is below the smallest lost, and both were really measured."""
    seen = shape(fact)
    if seen.form == "hole":
        assert seen.delivered is not None
        assert seen.lost is not None
        assert seen.delivered < seen.lost
        assert {seen.delivered, seen.lost} <= {s.size for s in fact.sizes}
    if not any(s.result == "lost" for s in fact.sizes):
        assert seen.form in ("fine", "signalled", "any-size", "nothing")


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_captured_pod_never_makes_a_verdict_on_the_network(data: st.DataObject) -> None:
    """Rule 7: connects of a captured pod that bypass nothing neither pass nor fail anything."""
    facts = data.draw(strategies.facts(TcpConnect))
    flow = data.draw(strategies.flows)
    veiled = [
        f for f in facts if isinstance(f, TcpConnect) and f.vantage.captured and not f.bypass_proxy and f.uid is None
    ]
    outcome = tcp.tcp_reaches_destination.judge(Facts(veiled, flow))
    assert not isinstance(outcome, (Passed, Failed))
