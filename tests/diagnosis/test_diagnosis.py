"""Findings in, ranked causes and a verdict out: what follows from what, and what must never be claimed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcdoctor.diagnosis import diagnose, exit_code, unexplained, verdict
from mcdoctor.diagnosis.match import match
from mcdoctor.diagnosis.rank import rank
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Blind, HttpRequest, HttpSample, HttpSeries
from mcdoctor.models.flow import Flow
from mcdoctor.models.ids import Certainty, Hop, Severity, Symptom, Verdict
from mcdoctor.models.outcome import Failed, Finding, Outcome, Passed, Skipped, Unknown
from mcdoctor.models.playbook import Cause, Library, Playbook, Text
from mcdoctor.models.report import Ran, Report
from mcdoctor.models.vantage import Vantage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
T = Text(en="e", ko="k")
E2E = "request-reaches-backend"


def cause(name: str, hop: Hop = Hop.NETWORK, **kw: Any) -> Cause:
    return Cause(id=name, hop=hop, layer="l4", summary=T, confirm=T, **kw)


def library(*causes: Cause, books: dict[Symptom, tuple[str, ...]] | None = None) -> Library:
    playbooks = {s: Playbook(symptom=s, title=T, look=T, causes=ids) for s, ids in (books or {}).items()}
    return Library(causes={c.id: c for c in causes}, playbooks=playbooks)


def found(name: str, hop: Hop = Hop.NETWORK, severity: Severity = Severity.ERROR, **kw: Any) -> Finding:
    return Finding(id=name, hop=hop, subject=kw.pop("subject", f"subject of {name}"), severity=severity, **kw)


def note(name: str, hop: Hop = Hop.NETWORK) -> Finding:
    return found(name, hop, Severity.NOTE)


def ranked(lib: Library, *findings: Finding, symptoms: tuple[Symptom, ...] = ()) -> list[tuple[str, str]]:
    return [(m.cause.id, m.certainty.value) for m in rank(match(findings, lib), symptoms, lib)]


def ran(outcome: Outcome, name: str = E2E) -> Ran:
    return Ran(id=name, title=name, outcome=outcome)


class TestMatch:
    def test_all_of_the_conditions_are_needed(self) -> None:
        lib = library(cause("needs-two", when_all=("one-seen", "two-seen")))
        assert ranked(lib, found("one-seen")) == []
        assert ranked(lib, found("one-seen"), found("two-seen")) == [("needs-two", "supported")]

    def test_one_of_any_is_enough_but_needed(self) -> None:
        lib = library(cause("needs-any", when_all=("one-seen",), when_any=("two-seen", "three-seen")))
        assert ranked(lib, found("one-seen")) == []
        assert ranked(lib, found("one-seen"), found("three-seen")) == [("needs-any", "supported")]

    def test_unless_removes_even_a_proved_cause(self) -> None:
        lib = library(cause("gone-away", when_all=("one-seen",), unless=("odd-seen",), proved_by=("proof-seen",)))
        assert ranked(lib, found("one-seen"), note("proof-seen"), note("odd-seen")) == []

    def test_against_leaves_it_possible_and_is_kept(self) -> None:
        lib = library(cause("in-doubt", when_all=("one-seen",), against=("odd-seen",), proved_by=("proof-seen",)))
        (m,) = match([found("one-seen"), note("odd-seen"), note("proof-seen")], lib)
        assert m.certainty is Certainty.POSSIBLE
        assert [f.id for f in m.against] == ["odd-seen"]

    def test_proof_settles(self) -> None:
        lib = library(cause("proved-one", when_all=("one-seen",), proved_by=("proof-seen",), wants=("proof-seen",)))
        (m,) = match([found("one-seen"), note("proof-seen")], lib)
        assert (m.certainty, m.missing) == (Certainty.PROVED, ())

    def test_proof_without_the_conditions_is_not_a_match(self) -> None:
        lib = library(cause("proved-one", when_all=("one-seen",), proved_by=("proof-seen",)))
        assert ranked(lib, found("proof-seen")) == []

    def test_a_cause_of_proof_alone(self) -> None:
        lib = library(cause("proof-only", proved_by=("proof-seen",)))
        assert ranked(lib, found("proof-seen")) == [("proof-only", "proved")]
        assert ranked(lib, found("one-seen")) == []

    def test_what_is_wanted_and_missing_leaves_it_possible(self) -> None:
        lib = library(cause("wants-more", when_all=("one-seen",), wants=("two-seen",)))
        (m,) = match([found("one-seen")], lib)
        assert (m.certainty, m.missing) == (Certainty.POSSIBLE, ("two-seen",))

    def test_a_wanted_proof_is_shown_missing_and_does_not_hinder(self) -> None:
        lib = library(cause("wants-proof", when_all=("one-seen",), wants=("proof-seen",), proved_by=("proof-seen",)))
        (m,) = match([found("one-seen")], lib)
        assert (m.certainty, m.missing) == (Certainty.SUPPORTED, ("proof-seen",))

    def test_evidence_that_never_suffices(self) -> None:
        lib = library(cause("weak-one", when_all=("one-seen",), supports=False))
        assert ranked(lib, found("one-seen")) == [("weak-one", "possible")]

    def test_notes_alone_are_no_cause_of_anything(self) -> None:
        lib = library(cause("context-only", when_all=("one-seen",), explains=("two-seen",)))
        assert ranked(lib, note("one-seen")) == []
        assert ranked(lib, note("one-seen"), found("two-seen")) == [("context-only", "supported")]

    def test_every_instance_of_a_finding_is_evidence(self) -> None:
        lib = library(cause("both-seen", when_all=("one-seen",)))
        (m,) = match([found("one-seen", subject="a"), found("one-seen", subject="b")], lib)
        assert [f.subject for f in m.supporting] == ["a", "b"]


class TestRank:
    def test_errors_before_warnings_whatever_the_certainty(self) -> None:
        lib = library(
            cause("proved-warning", when_all=("one-seen",), proved_by=("proof-seen",)),
            cause("possible-error", when_all=("two-seen",), supports=False),
        )
        answer = ranked(lib, found("one-seen", severity=Severity.WARNING), note("proof-seen"), found("two-seen"))
        assert answer == [("possible-error", "possible"), ("proved-warning", "proved")]

    def test_certainty_first(self) -> None:
        lib = library(
            cause("possible-early", Hop.SOURCE_DNS, when_all=("one-seen",), supports=False),
            cause("proved-late", Hop.DEST_POD, when_all=("two-seen",), proved_by=("proof-seen",)),
        )
        answer = ranked(lib, found("one-seen", Hop.SOURCE_DNS), found("two-seen", Hop.DEST_POD), note("proof-seen"))
        assert [a for a, _ in answer] == ["proved-late", "possible-early"]

    def test_the_earlier_broken_hop_first(self) -> None:
        lib = library(
            cause("late-one", Hop.DEST_POD, when_all=("two-seen",)),
            cause("early-one", Hop.SOURCE_DNS, when_all=("one-seen",)),
        )
        answer = ranked(lib, found("two-seen", Hop.DEST_POD), found("one-seen", Hop.SOURCE_DNS))
        assert answer == [("early-one", "supported"), ("late-one", "supported")]

    def test_the_wider_evidence_wins_and_the_narrower_is_no_longer_supported(self) -> None:
        lib = library(cause("narrow-one", when_all=("one-seen",)), cause("wide-one", when_all=("one-seen", "two-seen")))
        answer = ranked(lib, found("one-seen"), found("two-seen"))
        assert answer == [("wide-one", "supported"), ("narrow-one", "possible")]

    def test_two_with_the_same_evidence_cannot_be_parted(self) -> None:
        lib = library(
            cause("first-one", when_all=("one-seen",)),
            cause("second-one", when_all=("one-seen",)),
            books={Symptom.NO_ROUTE: ("second-one", "first-one")},
        )
        answer = ranked(lib, found("one-seen"), symptoms=(Symptom.NO_ROUTE,))
        assert answer == [("second-one", "possible"), ("first-one", "possible")]

    def test_an_experiment_parts_them(self) -> None:
        lib = library(
            cause("first-one", when_all=("one-seen",)),
            cause("second-one", when_all=("one-seen",), proved_by=("proof-seen",)),
        )
        answer = ranked(lib, found("one-seen"), note("proof-seen"))
        assert answer == [("second-one", "proved"), ("first-one", "possible")]

    def test_one_experiment_that_proves_two_causes_parts_nothing(self) -> None:
        lib = library(
            cause("first-one", when_all=("one-seen",), proved_by=("proof-seen",)),
            cause("second-one", when_all=("one-seen",), proved_by=("proof-seen",)),
        )
        answer = ranked(lib, found("one-seen"), note("proof-seen"))
        assert answer == [("first-one", "possible"), ("second-one", "possible")]

    def test_the_proof_belongs_to_the_wider_evidence(self) -> None:
        lib = library(
            cause("narrow-one", when_all=("one-seen",), proved_by=("proof-seen",)),
            cause("wide-one", when_all=("one-seen", "two-seen"), proved_by=("proof-seen",)),
        )
        answer = ranked(lib, found("one-seen"), found("two-seen"), note("proof-seen"))
        assert answer == [("wide-one", "proved"), ("narrow-one", "possible")]

    def test_two_separate_faults_both_stand(self) -> None:
        lib = library(cause("first-one", when_all=("one-seen",)), cause("second-one", when_all=("two-seen",)))
        assert {c for _, c in ranked(lib, found("one-seen"), found("two-seen"))} == {"supported"}

    def test_a_possible_rival_does_not_weaken_a_supported_cause(self) -> None:
        lib = library(
            cause("sure-one", when_all=("one-seen",)), cause("weak-one", when_all=("one-seen",), supports=False)
        )
        assert ranked(lib, found("one-seen"))[0] == ("sure-one", "supported")

    def test_the_symptoms_playbook_breaks_the_tie(self) -> None:
        lib = library(
            cause("aa-one", when_all=("one-seen",), supports=False),
            cause("bb-one", when_all=("one-seen",), supports=False),
            books={Symptom.SURGE_5XX: ("bb-one",)},
        )
        assert ranked(lib, found("one-seen"))[0][0] == "aa-one"
        assert ranked(lib, found("one-seen"), symptoms=(Symptom.SURGE_5XX,))[0][0] == "bb-one"


class TestConsequences:
    early = cause("early-one", Hop.SOURCE_DNS, when_all=("name-fails",), explains=("request-fails",))
    late = cause("late-one", Hop.DEST_POD, when_all=("request-fails",))
    findings = (found("name-fails", Hop.SOURCE_DNS), found("request-fails", Hop.DEST_POD))

    def test_are_listed_under_what_explains_them(self) -> None:
        lib = library(self.late, self.early)
        (m,) = rank(match(self.findings, lib), (), lib)
        assert m.cause.id == "early-one"
        assert [f.id for f in m.explained] == ["request-fails"]

    def test_stay_rivals_of_a_cause_that_is_only_possible(self) -> None:
        weak = cause("early-one", Hop.SOURCE_DNS, when_all=("name-fails",), explains=("request-fails",), supports=False)
        assert ranked(library(self.late, weak), *self.findings) == [("early-one", "possible"), ("late-one", "possible")]

    def test_a_proved_cause_is_never_explained_away(self) -> None:
        late = cause("late-one", Hop.DEST_POD, when_all=("request-fails",), proved_by=("proof-seen",))
        answer = ranked(library(late, self.early), *self.findings, note("proof-seen"))
        assert answer == [("late-one", "proved"), ("early-one", "supported")]

    def test_a_later_hop_weakens_but_does_not_hide_an_earlier_one(self) -> None:
        early = cause("early-one", Hop.NETWORK, when_all=("tcp-refused",))
        late = cause("late-one", Hop.DEST_POD, when_all=("pod-not-ready",), explains=("tcp-refused",))
        answer = ranked(library(early, late), found("tcp-refused"), found("pod-not-ready", Hop.DEST_POD))
        assert answer == [("late-one", "supported"), ("early-one", "possible")]

    def test_the_control_plane_explains_every_hop(self) -> None:
        top = cause("top-one", Hop.CONTROL_PLANE, when_all=("secret-invalid",), explains=("no-endpoints",))
        low = cause("low-one", Hop.DEST_SERVICE, when_all=("no-endpoints",))
        answer = ranked(
            library(low, top), found("no-endpoints", Hop.DEST_SERVICE), found("secret-invalid", Hop.CONTROL_PLANE)
        )
        assert answer == [("top-one", "supported")]

    def test_causes_that_explain_each_other_both_stay(self) -> None:
        a = cause("aa-one", Hop.SOURCE_DNS, when_all=("one-seen",), explains=("two-seen",))
        b = cause("bb-one", Hop.SOURCE_DNS, when_all=("two-seen",), explains=("one-seen",))
        answer = ranked(library(a, b), found("one-seen"), found("two-seen"))
        assert [name for name, _ in answer] in (["aa-one", "bb-one"], ["aa-one"])

    def test_what_has_evidence_against_it_explains_nothing_away(self) -> None:
        doubted = cause(
            "early-one", Hop.SOURCE_DNS, when_all=("name-fails",), explains=("request-fails",), against=("odd-seen",)
        )
        answer = ranked(library(self.late, doubted), *self.findings, note("odd-seen"))
        assert answer == [("late-one", "supported"), ("early-one", "possible")]


class TestVerdict:
    @pytest.mark.parametrize(
        ("runs", "expected"),
        [
            ([], Verdict.INCONCLUSIVE),
            ([ran(Passed())], Verdict.HEALTHY),
            ([ran(Passed(), "dns-service-resolves")], Verdict.INCONCLUSIVE),
            ([ran(Unknown("no prober"))], Verdict.INCONCLUSIVE),
            ([ran(Skipped("not asked"))], Verdict.INCONCLUSIVE),
            ([ran(Passed()), ran(Failed((found("one-seen"),)), "mtu-path")], Verdict.DEGRADED),
            ([ran(Passed()), ran(Failed((found("a-b", severity=Severity.WARNING),)), "mtu-path")], Verdict.HEALTHY),
            ([ran(Passed()), ran(Unknown("tool missing"), "mtu-path")], Verdict.HEALTHY),
            ([ran(Failed((found("one-seen"),)))], Verdict.BROKEN),
            ([ran(Failed((found("one-seen", args={"failed": 3, "tries": 20}),)))], Verdict.DEGRADED),
            ([ran(Failed((found("one-seen", args={"failed": 20, "tries": 20}),)))], Verdict.BROKEN),
            ([ran(Failed((found("one-seen", severity=Severity.WARNING),)))], Verdict.HEALTHY),
            ([ran(Failed((found("one-seen"),)), "dns-service-resolves")], Verdict.BROKEN),
            (
                [ran(Failed((found("a-b", symptom=Symptom.DNS_FLAPPING),)), "dns-service-resolves")],
                Verdict.DEGRADED,
            ),
            ([ran(Failed((found("a-b", severity=Severity.WARNING),)), "mtu-path")], Verdict.INCONCLUSIVE),
        ],
    )
    def test_follows_from_the_outcomes(self, runs: list[Ran], expected: Verdict) -> None:
        assert verdict(runs) is expected

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["dns-one", "tcp-one", E2E]),
                st.sampled_from([Passed(), Unknown("why"), Skipped("why"), Failed((found("one-seen"),))]),
            ),
            max_size=5,
            unique_by=lambda x: x[0],
        )
    )
    def test_is_healthy_only_with_the_request_and_without_an_error(self, runs: list[tuple[str, Outcome]]) -> None:
        answer = verdict([ran(o, n) for n, o in runs])
        through = any(n == E2E and isinstance(o, Passed) for n, o in runs)
        error = any(isinstance(o, Failed) for _, o in runs)
        assert (answer is Verdict.HEALTHY) == (through and not error)


class TestNames:
    """A request to an address does not show that a client who has only the name gets through."""

    def at_name(self, result: str = "dns-error") -> HttpRequest:
        return HttpRequest(at=NOW, vantage=Vantage(), url="http://b/", protocol="http/1.1", result=result, ms=1.0)  # type: ignore[arg-type]

    def series(self) -> HttpSeries:
        sample = HttpSample(at=NOW, result="dns-error", status=None, ms=1.0)
        return HttpSeries(
            at=NOW, vantage=Vantage(), url="http://b/", protocol="http/1.1", interval_ms=1.0, samples=(sample,)
        )

    def runs(self, *findings: Finding) -> list[Ran]:
        return [ran(Passed()), ran(Failed(findings), "dns-name-resolves")]

    persistent = found("name-gone", Hop.SOURCE_DNS, symptom=Symptom.DNS_PERSISTENT_FAILURE)
    flapping = found("name-flaps", Hop.SOURCE_DNS, symptom=Symptom.DNS_FLAPPING)

    def test_a_name_that_never_resolves_breaks_the_flow(self) -> None:
        assert verdict(self.runs(self.persistent), [self.at_name()]) is Verdict.BROKEN
        assert verdict(self.runs(self.persistent), [self.series()]) is Verdict.BROKEN

    def test_only_where_a_request_ended_at_the_name(self) -> None:
        assert verdict(self.runs(self.persistent), [self.at_name("response")]) is Verdict.DEGRADED
        assert verdict(self.runs(self.persistent), []) is Verdict.DEGRADED

    def test_a_request_that_ended_at_a_flapping_name_says_no_more_than_that(self) -> None:
        at_name = ran(Failed((found("name-fails", symptom=Symptom.DNS_PERSISTENT_FAILURE),)))
        flaps = ran(Failed((self.flapping,)), "dns-steady")
        silent = ran(Failed((found("tcp-silent", symptom=Symptom.CONNECTION_TIMEOUT),)), "tcp-open")
        assert verdict([at_name, flaps]) is Verdict.DEGRADED
        assert verdict([at_name, flaps, silent]) is Verdict.BROKEN
        assert verdict([at_name]) is Verdict.BROKEN

    def test_a_name_that_fails_now_and_then_degrades_it(self) -> None:
        assert verdict(self.runs(self.persistent, self.flapping), [self.at_name()]) is Verdict.DEGRADED


class TestExitCode:
    @pytest.mark.parametrize(
        ("answer", "severity", "fail_on", "code"),
        [
            (Verdict.HEALTHY, None, Severity.ERROR, 0),
            (Verdict.HEALTHY, Severity.WARNING, Severity.ERROR, 0),
            (Verdict.HEALTHY, Severity.WARNING, Severity.WARNING, 1),
            (Verdict.HEALTHY, Severity.NOTE, Severity.NOTE, 1),
            (Verdict.HEALTHY, Severity.NOTE, Severity.WARNING, 0),
            (Verdict.INCONCLUSIVE, None, Severity.ERROR, 3),
            (Verdict.INCONCLUSIVE, Severity.WARNING, Severity.ERROR, 3),
            (Verdict.INCONCLUSIVE, Severity.WARNING, Severity.WARNING, 1),
            (Verdict.BROKEN, Severity.ERROR, Severity.ERROR, 1),
            (Verdict.DEGRADED, Severity.ERROR, Severity.ERROR, 1),
        ],
    )
    def test_follows_from_verdict_and_findings(
        self, answer: Verdict, severity: Severity | None, fail_on: Severity, code: int
    ) -> None:
        runs = (ran(Failed((found("one-seen", severity=severity),)), "mtu-path"),) if severity else ()
        report = Report(flow=Flow(source_text="a", destination_text="b"), verdict=answer, ran=runs)
        assert exit_code(report, fail_on) == code


class TestDiagnose:
    def test_whole(self) -> None:
        lib = library(
            cause("why-slow", Hop.NETWORK, when_all=("one-seen",), symptoms=(Symptom.LARGE_PAYLOAD_HANG,)),
        )
        runs = [ran(Passed()), ran(Failed((found("one-seen", Hop.NETWORK, subject="10.0.0.1"),)), "mtu-path")]
        flow = Flow(source_text="a", destination_text="b", host="b.example")
        answer, symptoms, diagnoses, limits = diagnose(runs, Facts(), flow, lib)
        assert answer is Verdict.DEGRADED
        assert symptoms == (Symptom.LARGE_PAYLOAD_HANG,)
        assert [(d.rank, d.cause.id, d.object, d.hop) for d in diagnoses] == [(1, "why-slow", "10.0.0.1", Hop.NETWORK)]
        assert limits == ()

    def test_the_users_symptom_comes_first(self) -> None:
        runs = [ran(Failed((found("one-seen", symptom=Symptom.NO_ROUTE),)))]
        flow = Flow(source_text="a", destination_text="b")
        _, symptoms, _, _ = diagnose(runs, Facts(), flow, library(), symptom=Symptom.DNS_FLAPPING)
        assert symptoms == (Symptom.DNS_FLAPPING, Symptom.NO_ROUTE)

    def test_symptoms_of_errors_by_hop_then_warnings(self) -> None:
        runs = [
            ran(
                Failed(
                    (
                        found("w-w", Hop.SOURCE_POD, Severity.WARNING, symptom=Symptom.DNS_FLAPPING),
                        found("l-l", Hop.DEST_POD, symptom=Symptom.SURGE_5XX),
                        found("e-e", Hop.SOURCE_DNS, symptom=Symptom.DNS_PERSISTENT_FAILURE),
                        found("n-n", Hop.SOURCE_POD, Severity.NOTE, symptom=Symptom.NO_ROUTE),
                    )
                )
            )
        ]
        _, symptoms, _, _ = diagnose(runs, Facts(), Flow(source_text="a", destination_text="b"), library())
        assert symptoms == (Symptom.DNS_PERSISTENT_FAILURE, Symptom.SURGE_5XX, Symptom.DNS_FLAPPING)

    def test_an_error_without_a_cause_is_still_told(self) -> None:
        lib = library(cause("other-one", when_all=("two-seen",)))
        findings = (found("one-seen"), found("two-seen"))
        runs = (ran(Failed(findings)),)
        flow = Flow(source_text="a", destination_text="b")
        answer, symptoms, diagnoses, limits = diagnose(runs, (), flow, lib)
        report = Report(flow=flow, verdict=answer, symptoms=symptoms, diagnoses=diagnoses, ran=runs, limits=limits)
        assert answer is Verdict.BROKEN
        assert [f.id for f in unexplained(report)] == ["one-seen"]

    def test_the_object_is_what_stands_at_the_causes_hop(self) -> None:
        lib = library(cause("why-so", Hop.DEST_SERVICE, when_all=("one-seen", "two-seen")))
        runs = [ran(Failed((found("one-seen", Hop.NETWORK), found("two-seen", Hop.DEST_SERVICE, subject="Service x"))))]
        _, _, (d,), _ = diagnose(runs, (), Flow(source_text="a", destination_text="b"), lib)
        assert d.object == "Service x"

    def test_without_any_subject_the_object_is_the_destination(self) -> None:
        lib = library(cause("why-so", Hop.DEST_SERVICE, when_all=("one-seen",)))
        flow = Flow(source_text="a", destination_text="b", host="b.example")
        _, _, (d,), _ = diagnose([ran(Failed((found("one-seen", subject=""),)))], (), flow, lib)
        assert d.object == "b.example"


class TestLimits:
    def blind(self, **kw: Any) -> Blind:
        return Blind(at=NOW, vantage=Vantage(), **{"wanted": "Service", "about": "demo/a", "reason": "403", **kw})

    def test_are_folded_by_reason(self) -> None:
        facts = [
            self.blind(about=f"demo/{x}", cluster="b", permission="get services", command=c)
            for x, c in (("a", None), ("b", "kubectl get svc"), ("b", None), ("c", None), ("d", None), ("e", None))
        ]
        _, _, _, (limit,) = diagnose([], facts, Flow(source_text="a", destination_text="b"), library())
        assert limit.what == "Service: demo/a in b, demo/b in b, demo/c in b, demo/d in b, 1 more"
        assert (limit.permission, limit.command) == ("get services", "kubectl get svc")

    def test_one_reason_for_many_kinds_is_one_limit(self) -> None:
        facts = [self.blind(wanted=w, about="b.demo", reason="nothing was sent") for w in ("tcp_connect", "dns_answer")]
        _, _, _, (limit,) = diagnose([], facts, Flow(source_text="a", destination_text="b"), library())
        assert (limit.what, limit.reason) == ("tcp_connect, dns_answer: b.demo", "nothing was sent")

    def test_unknown_outcomes_are_told_once(self) -> None:
        runs = [
            ran(Unknown("403"), "endpoints-exist"),
            ran(Unknown("no tool", "apt install x"), "mtu-path"),
            ran(Unknown("no tool", "apt install x"), "mtu-other"),
        ]
        facts = [self.blind(about="")]
        _, _, _, out = diagnose(runs, facts, Flow(source_text="a", destination_text="b"), library())
        assert [(x.what, x.reason, x.command) for x in out] == [
            ("Service", "403", None),
            ("mtu-path, mtu-other", "no tool", "apt install x"),
        ]


@given(
    st.permutations(["one-seen", "two-seen", "three-seen"]),
    st.lists(st.sampled_from(["one-seen", "two-seen", "three-seen"]), min_size=1, unique=True),
)
def test_the_order_in_which_checks_ran_does_not_change_the_answer(order: list[str], there: list[str]) -> None:
    lib = library(
        cause("aa-one", Hop.SOURCE_DNS, when_all=("one-seen",), explains=("three-seen",)),
        cause("bb-one", Hop.NETWORK, when_any=("two-seen", "three-seen")),
        cause("cc-one", Hop.DEST_POD, when_all=("three-seen",)),
    )
    assert ranked(lib, *[found(x) for x in order if x in there]) == ranked(lib, *[found(x) for x in sorted(there)])
