"""Order, failure, deadline and replay: what the runner promises whatever the checks are."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest

from mcdoctor.check import Check, World
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Banner, Blind, Clock, Interception, TcpConnect
from mcdoctor.models.flow import Flow
from mcdoctor.models.ids import Hop, Severity
from mcdoctor.models.outcome import Failed, Finding, Passed, Skipped, Unknown
from mcdoctor.models.playbook import Cause, FindingText, Library, Text
from mcdoctor.models.record import from_record, to_record
from mcdoctor.models.vantage import Vantage
from mcdoctor.runner.plan import PlanError, levels
from mcdoctor.runner.run import Run, arrange, conclude

AT = datetime(2026, 1, 1, tzinfo=UTC)
HERE = Vantage(cluster="a", pod="p")
FLOW = Flow(source_text="f", destination_text="b", host="b.example")


class Silent:
    """A prober that knows its place and is asked nothing by these checks."""

    vantage = HERE

    def run(self, request, *, budget):
        return ()

    def close(self):
        return None


def tcp(result="open"):
    return TcpConnect(at=AT, vantage=HERE, address="10.0.0.1", port=80, result=result, ms=1.0)


def banner():
    return Banner(at=AT, vantage=HERE, address="10.0.0.1", port=80, result="silent", ms=1.0)


def judge_of(kind):
    def judge(facts):
        found = facts.all(kind)
        if not found:
            blind = facts.blind_to(kind)
            return Unknown(blind[0].reason if blind else "nothing")
        return Passed(found)

    return judge


def check(name, *, gives=(), needs=(), uses=(), probe=None, judge=None, **kw):
    kind = (gives or needs or (TcpConnect,))[0]
    return Check(id=name, title=name, gives=gives, needs=needs, uses=uses, probe=probe, judge=judge or judge_of(kind), **kw)


def run(checks, *, prober=True, seconds=30.0, **kw):
    world = World(flow=FLOW, facts=Facts(), prober=Silent() if prober else None, deadline=time.monotonic() + seconds)
    return Run(checks=checks, library=kw.pop("library", Library()), world=world, **kw)


def outcomes(report):
    return {r.id: r.outcome for r in report.ran}


def test_givers_run_before_takers_whatever_the_order():
    seen = []
    first = check("tcp-reach", gives=(TcpConnect,), probe=lambda w: seen.append("tcp") or [tcp()])
    second = check("banner-read", gives=(Banner,), needs=(TcpConnect,), probe=lambda w: seen.append(len(w.facts.all(TcpConnect))) or [banner()])
    report = run([second, first]).execute()
    assert seen == ["tcp", 1]
    assert all(isinstance(o, Passed) for o in outcomes(report).values())
    assert [[c.id for c in level] for level in levels([second, first])] == [["tcp-reach"], ["banner-read"]]


def test_a_circle_and_a_double_are_errors():
    one = check("one-check", gives=(TcpConnect,), uses=(Banner,))
    two = check("two-check", gives=(Banner,), uses=(TcpConnect,))
    with pytest.raises(PlanError, match="circle"):
        list(levels([one, two]))
    with pytest.raises(PlanError, match="two checks"):
        list(levels([one, one]))


def test_a_probe_that_raises_costs_its_own_facts_and_blocks_by_name():
    def broken(world):
        yield banner()
        raise RuntimeError("boom")

    one = check("tcp-reach", gives=(TcpConnect, Banner), probe=broken)
    two = check("later-check", needs=(TcpConnect,), gives=(Clock,), probe=lambda w: [], judge=judge_of(TcpConnect))
    three = check("banner-check", needs=(Banner,), judge=judge_of(Banner))
    got = outcomes(run([one, two, three]).execute())
    assert isinstance(got["tcp-reach"], Unknown) and "boom" in got["tcp-reach"].reason
    assert isinstance(got["later-check"], Skipped) and got["later-check"].blocked_by == "tcp-reach"
    assert isinstance(got["banner-check"], Passed)


def test_a_judge_that_raises_is_unknown():
    def judge(facts):
        raise ValueError("odd")

    got = outcomes(run([check("odd-judge", judge=judge)]).execute())
    assert isinstance(got["odd-judge"], Unknown) and "odd" in got["odd-judge"].reason


def test_no_prober_no_verdict_and_the_reason_is_said():
    never = check("tcp-reach", gives=(TcpConnect,), probe=lambda w: pytest.fail("nothing may be sent"))
    report = run([never], prober=False, why_no_prober="--probe none").execute()
    assert outcomes(report)["tcp-reach"] == Unknown("--probe none")
    assert report.verdict.value == "inconclusive"


def test_a_late_probe_ends_by_its_time_out_and_the_others_stand():
    done = threading.Event()

    def slow(world):
        done.wait(10)
        return []

    slow_check = check("slow-check", gives=(Banner,), probe=slow, timeout=0.3)
    quick = check("tcp-reach", gives=(TcpConnect,), probe=lambda w: [tcp()])
    begun = time.monotonic()
    got = outcomes(run([slow_check, quick]).execute())
    done.set()
    assert time.monotonic() - begun < 3
    assert isinstance(got["slow-check"], Unknown) and "0.3 s" in got["slow-check"].reason
    assert isinstance(got["tcp-reach"], Passed)


def test_stopping_keeps_what_is_there():
    going = run([])

    def stop(world):
        going.world.stopped.set()
        return [tcp()]

    going.checks = [
        check("tcp-reach", gives=(TcpConnect,), probe=stop),
        check("late-check", gives=(Banner,), uses=(TcpConnect,), probe=lambda w: time.sleep(5) or []),
    ]
    begun = time.monotonic()
    got = outcomes(going.execute())
    assert time.monotonic() - begun < 3
    assert isinstance(got["late-check"], Unknown)


def text(t):
    return Text(en=t, ko=t)


LIBRARY = Library(
    causes={
        "port-refused": Cause(
            id="port-refused", hop=Hop.DEST_POD, layer="l4", summary=text("x"), confirm=text("x"),
            when_all=("tcp-refused",), proved_by=("banner-refused",),
        )
    },
    findings={i: FindingText(id=i, text=text(i)) for i in ("tcp-refused", "banner-refused")},
)  # fmt: skip


def refused(facts):
    bad = [t for t in facts.all(TcpConnect) if t.result == "refused"]
    return Failed(tuple(Finding(id="tcp-refused", hop=Hop.DEST_POD, subject=t.subject, evidence=(t,)) for t in bad)) if bad else Passed()


def proof(facts):
    found = facts.all(Banner)
    note = Finding(id="banner-refused", hop=Hop.DEST_POD, subject="x", severity=Severity.NOTE, evidence=found)
    return Passed(found, (note,))


@pytest.mark.parametrize(("result", "ran"), [("refused", True), ("open", False)])
def test_a_proof_runs_only_for_a_candidate(result, ran):
    checks = [
        check("tcp-reach", gives=(TcpConnect,), probe=lambda w: [tcp(result)], judge=refused),
        check("banner-proof", gives=(Banner,), probe=lambda w: [banner()], judge=proof, proves=("port-refused",)),
    ]
    report = run(checks, library=LIBRARY).execute()
    assert any(isinstance(f, Banner) for f in report.facts) is ran
    assert isinstance(outcomes(report)["banner-proof"], Passed if ran else Skipped)
    assert [d.certainty.value for d in report.diagnoses] == (["proved"] if ran else [])


@pytest.mark.parametrize("result", ["refused", "open", "timeout"])
def test_the_replay_of_a_run_agrees_with_it(result):
    checks = [
        check("tcp-reach", gives=(TcpConnect,), probe=lambda w: [tcp(result)], judge=refused),
        check("banner-proof", gives=(Banner,), probe=lambda w: [banner()], judge=proof, proves=("port-refused",)),
        check("clock-read", gives=(Clock,), probe=lambda w: 1 / 0),
        check("blind-kind", needs=(Interception,), judge=judge_of(Interception)),
    ]
    live = run(checks, library=LIBRARY).execute()
    recorded = [from_record(to_record(f)) for f in live.facts]
    again = conclude(checks, recorded, FLOW, LIBRARY)
    assert [(r.id, r.outcome) for r in again.ran] == [(r.id, r.outcome) for r in live.ran]
    assert again.verdict == live.verdict
    assert [(d.cause.id, d.certainty) for d in again.diagnoses] == [(d.cause.id, d.certainty) for d in live.diagnoses]


def test_the_order_of_facts_does_not_depend_on_arrival():
    facts = [tcp(), banner(), tcp("refused"), Blind(at=AT, vantage=HERE, wanted="x", about="y", reason="z")]
    assert [type(f) for f in arrange(facts)] == [type(f) for f in arrange(list(reversed(facts)))]
