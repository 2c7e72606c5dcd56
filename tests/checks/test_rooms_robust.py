"""Judges of rooms endpoints and dns never raise, whatever well-formed facts they get, and never contradict themselves."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import facts, flows

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import (
    Absent,
    Blind,
    Conntrack,
    DnsAnswer,
    DnsSeries,
    Fact,
    FlowRecord,
    HttpRequest,
    Interface,
    KubeObject,
    Listed,
    Listener,
    LogLine,
    Metric,
    ResolvConf,
    Route,
    TcpConnect,
)  # fmt: skip
from mcdoctor.models.flow import Flow
from mcdoctor.models.outcome import Failed, findings
from mcdoctor.models.record import from_record, to_record
from mcdoctor_checks import dns, endpoints

SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
CHECKS = (*endpoints.CHECKS, *dns.CHECKS)


@SLOW
@given(facts(KubeObject, DnsAnswer, DnsSeries, ResolvConf, LogLine, Conntrack, FlowRecord, Metric, Interface, Route, TcpConnect,
             HttpRequest, Listener, Listed, Absent, Blind), flows, st.booleans())  # fmt: skip
def test_judges_never_raise(seen: list[Fact], flow: Flow, whole: bool) -> None:
    collected = Facts(seen, flow, ("*",) if whole else ())
    for check in CHECKS:
        outcome = check.judge(collected)
        for finding in findings(outcome):
            assert finding.id in check.findings
            assert all(isinstance(v, (str, int, float)) for v in finding.args.values())
        assert not isinstance(outcome, Failed) or outcome.findings


@SLOW
@given(facts(KubeObject, max_size=10), flows)
def test_objects_of_any_shape_are_read(seen: list[Fact], flow: Flow) -> None:
    collected = Facts(seen, flow)
    for check in CHECKS:
        check.judge(collected)


@SLOW
@given(facts(DnsAnswer, DnsSeries, ResolvConf, max_size=8), flows)
def test_a_recording_is_judged_as_the_run_was(seen: list[Fact], flow: Flow) -> None:
    loaded = [from_record(to_record(f)) for f in seen]
    for check in dns.CHECKS:
        live, replayed = check.judge(Facts(seen, flow)), check.judge(Facts(loaded, flow))
        assert type(live) is type(replayed)
        assert [(f.id, f.args) for f in findings(live)] == [(f.id, f.args) for f in findings(replayed)]


@SLOW
@given(facts(DnsAnswer, DnsSeries, ResolvConf, max_size=10), flows)
def test_views_of_strangers_accuse_nobody(seen: list[Fact], flow: Flow) -> None:
    """Facts from pods and machines that are not the source's give no error about the source's DNS."""
    import dataclasses

    from mcdoctor.models.vantage import Vantage

    away = [dataclasses.replace(f, vantage=Vantage(cluster="b", namespace="shop", pod="stranger-1")) for f in seen]
    flow = dataclasses.replace(flow, source_cluster="a")
    for check in dns.CHECKS:
        if check.id != "dns-other-servers-agree":
            assert not isinstance(check.judge(Facts(away, flow)), Failed), check.id
