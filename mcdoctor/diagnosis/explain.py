"""From what the checks found to the answer: verdict, symptoms, ranked diagnoses and what could not be seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mcdoctor.diagnosis.match import Match, match, worst
from mcdoctor.diagnosis.rank import broken_hop, rank
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Blind, Fact, HttpRequest, HttpSeries
from mcdoctor.models.flow import Flow
from mcdoctor.models.ids import Hop, Severity, Symptom, Verdict
from mcdoctor.models.outcome import Failed, Finding, Passed, Unknown, findings
from mcdoctor.models.playbook import Library
from mcdoctor.models.report import Diagnosis, Limit, Ran, Report
from mcdoctor.models.vantage import Vantage

END_TO_END = "request-reaches-backend"
"""The check that sends the request of the flow itself: without it nothing is ever healthy."""

POLICIES = "netpol-allows-path"
"""The check that asks the policy engine whether the source itself may pass."""

PARTIAL = frozenset(
    {
        Symptom.INTERMITTENT_LATENCY,
        Symptom.DNS_FLAPPING,
        Symptom.LARGE_PAYLOAD_HANG,
        Symptom.UNEVEN_LOAD_OR_NO_FAILOVER,
        Symptom.POLICY_WITHOUT_EFFECT,
    }
)
"""Symptoms of a path that works for some of the traffic."""


def diagnose(
    ran: Sequence[Ran],
    facts: Facts | Iterable[Fact],
    flow: Flow,
    library: Library,
    *,
    symptom: Symptom | None = None,
) -> tuple[Verdict, tuple[Symptom, ...], tuple[Diagnosis, ...], tuple[Limit, ...]]:
    """The answer. `symptom` is what the user said that they see; it comes first among the symptoms."""
    found = [f for r in ran for f in findings(r.outcome)]
    first = _symptoms(found, symptom)
    ranked = rank(match(found, library), first, library)
    diagnoses = tuple(_diagnosis(m, i, flow) for i, m in enumerate(ranked, 1))
    return verdict(ran, facts, flow), _with_causes(first, diagnoses), diagnoses, limits(ran, facts)


def verdict(ran: Sequence[Ran], facts: Iterable[Fact] = (), flow: Flow | None = None) -> Verdict:
    """Healthy only when the request of the flow itself got through and no error stands against it.

    Names decide with it: a request that got through to an address, while its name steadily fails, does not help the
    client, who has only the name; one that ended at a name that resolves now and then says no more than that. Nor does
    one that went past the forward proxy to which the workload's environment sends it. So does
    place: what got through from beside the source is healthy only where policies are known to treat the source alike.
    """
    errors = [f for r in ran for f in findings(r.outcome) if f.severity is Severity.ERROR]
    outcome = next((r.outcome for r in ran if r.id == END_TO_END), None)
    through = isinstance(outcome, Passed) or (
        isinstance(outcome, Failed) and worst(outcome.findings) is not Severity.ERROR
    )
    if not errors:
        alike = beside(ran, flow) is None or _treated_alike(ran, flow)
        return Verdict.HEALTHY if through and alike and not _some_hang(ran) else Verdict.INCONCLUSIVE
    if through:
        cut_off = (_name_fails(errors) and _nameless(facts)) or _always_another(errors) or _shut_in(errors)
        return Verdict.BROKEN if cut_off else Verdict.DEGRADED
    if isinstance(outcome, Failed):
        stops = [f for f in outcome.findings if f.severity is Severity.ERROR]
        if not _name_fails(errors) and all(f.symptom is Symptom.DNS_PERSISTENT_FAILURE for f in stops):
            stops = [f for f in errors if f not in stops]  # what else there is decides
    else:
        stops = errors
    return Verdict.DEGRADED if all(_partial(f) for f in stops) else Verdict.BROKEN


def beside(ran: Sequence[Ran], flow: Flow | None) -> Vantage | None:
    """The pod or node beside the source from which alone the request got through; None where the source itself sent."""
    outcome = next((r.outcome for r in ran if r.id == END_TO_END), None)
    if flow is None or not isinstance(outcome, Passed):
        return None
    places = [f.vantage for f in outcome.evidence if f.vantage.pod or f.vantage.node]
    if not places or any(p.pod and flow.is_source(p) for p in places):
        return None
    return places[0]


def _treated_alike(ran: Sequence[Ran], flow: Flow | None) -> bool:
    """Policies let the source itself through, and no proxy captures it, which a pod beside it does not have."""
    pod = flow.source_pod if flow else None
    allowed = any(r.id == POLICIES and isinstance(r.outcome, Passed) for r in ran)
    return allowed and not (pod and pod.proxy)


def _name_fails(errors: Sequence[Finding]) -> bool:
    """True when the name fails steadily, not now and then."""
    flaps = any(f.symptom is Symptom.DNS_FLAPPING for f in errors)
    return not flaps and any(f.symptom is Symptom.DNS_PERSISTENT_FAILURE and not _partial(f) for f in errors)


def _always_another(errors: Sequence[Finding]) -> bool:
    """True when every answer came from somebody else: the destination itself was never reached."""
    return any(f.symptom is Symptom.WRONG_DESTINATION and "failed" in f.args and not _partial(f) for f in errors)


def _some_hang(ran: Sequence[Ran]) -> bool:
    """True when some of the source's own requests never end, though nothing tells how large they are."""
    doubts = [f for r in ran for f in findings(r.outcome) if f.severity is Severity.WARNING]
    return any(f.symptom is Symptom.LARGE_PAYLOAD_HANG for f in doubts)


def _shut_in(errors: Sequence[Finding]) -> bool:
    """True when the workload's own way out is shut, such as by a forward proxy: that a probe got past it helps nobody.

    A finding of a warning's weight, such as a variable that nothing was sent through, does not say so.
    """
    return any(f.hop is Hop.SOURCE_POD and f.symptom is Symptom.EGRESS_BLOCKED and not _partial(f) for f in errors)


def _nameless(facts: Iterable[Fact]) -> bool:
    """True when a request ended at its name, each time that it was tried."""
    return any(
        (isinstance(f, HttpRequest) and f.result == "dns-error" and not f.successes)
        or (isinstance(f, HttpSeries) and any(s.result == "dns-error" for s in f.samples))
        for f in facts
    )


def _partial(finding: Finding) -> bool:
    """True when the finding itself says that some of the traffic gets through."""
    failed, tries = finding.args.get("failed"), finding.args.get("tries")
    if isinstance(failed, (int, float)) and isinstance(tries, (int, float)):
        return failed < tries
    return finding.symptom in PARTIAL


def exit_code(report: Report, fail_on: Severity = Severity.ERROR) -> int:
    """0 healthy, or warnings only · 1 something wrong · 3 not settled. The same for every format."""
    if report.verdict in (Verdict.BROKEN, Verdict.DEGRADED):
        return 1
    levels = {
        Severity.ERROR: (Severity.ERROR,),
        Severity.WARNING: (Severity.ERROR, Severity.WARNING),
        Severity.NOTE: tuple(Severity),
    }[fail_on]
    if any(f.severity in levels for r in report.ran for f in findings(r.outcome)):
        return 1
    return 0 if report.verdict is Verdict.HEALTHY else 3


def unexplained(report: Report) -> tuple[Finding, ...]:
    """Errors that no listed cause rests on or explains; they are told plainly."""
    told = [f for d in report.diagnoses for f in (*d.supporting, *d.explained, *d.proof, *d.against)]
    errors = [f for r in report.ran for f in findings(r.outcome) if f.severity is Severity.ERROR]
    return tuple(f for f in errors if f not in told)


def _symptoms(found: Sequence[Finding], asked: Symptom | None) -> tuple[Symptom, ...]:
    """The user's own first, then those of errors by hop, then those of warnings."""
    seen = [f for f in found if f.symptom is not None and f.severity is not Severity.NOTE]
    seen.sort(key=lambda f: (f.severity is not Severity.ERROR, f.hop.position))
    named = [f.symptom for f in seen if f.symptom is not None]
    return tuple(dict.fromkeys([asked, *named] if asked is not None else named))


def _with_causes(symptoms: tuple[Symptom, ...], diagnoses: Sequence[Diagnosis]) -> tuple[Symptom, ...]:
    """Findings without a symptom of their own take the first one of the answer's cause."""
    if symptoms or not diagnoses:
        return symptoms
    return diagnoses[0].cause.symptoms[:1]


def _diagnosis(found: Match, place: int, flow: Flow) -> Diagnosis:
    return Diagnosis(
        cause=found.cause,
        rank=place,
        certainty=found.certainty,
        hop=found.cause.hop,
        object=_object(found, flow),
        supporting=found.supporting,
        against=found.against,
        missing=found.missing,
        proof=found.proof,
        explained=found.explained,
        remedies=found.cause.remedies,
    )


def _object(found: Match, flow: Flow) -> str:
    """The object at fault: the subject of the finding nearest to the cause's hop, its own evidence first."""
    evidence = (*found.supporting, *found.proof, *found.explained)
    at_hop = [f for f in evidence if f.hop is found.cause.hop and f.subject]
    at_break = [f for f in evidence if f.hop is broken_hop(found) and f.subject]
    at_hop.sort(key=lambda f: (f in found.explained, f.severity is Severity.NOTE))
    for finding in (*at_hop, *at_break, *evidence):
        if finding.subject:
            return finding.subject
    return flow.destination


# --- what could not be seen --------------------------------------------------------------------------------------


def limits(ran: Sequence[Ran], facts: Iterable[Fact]) -> tuple[Limit, ...]:
    """Blind facts and Unknown outcomes, one entry a reason, with permission and command where known."""
    blind = [f for f in facts if isinstance(f, Blind)]
    folded: dict[tuple[str, str | None], list[Blind]] = {}
    for fact in blind:
        folded.setdefault((fact.reason, fact.permission), []).append(fact)
    out = [_blind_limit(group) for group in folded.values()]
    told = {fact.reason for fact in blind}
    unknown: dict[tuple[str, str | None], list[Ran]] = {}
    for r in ran:
        if isinstance(r.outcome, Unknown) and r.outcome.reason not in told:
            unknown.setdefault((r.outcome.reason, r.outcome.command), []).append(r)
    for (reason, command), group in unknown.items():
        out.append(Limit(what=", ".join(r.id for r in group), reason=reason, command=command))
    return tuple(out)


def _blind_limit(group: Sequence[Blind]) -> Limit:
    wanted = _few([b.wanted for b in group])
    about = _few([f"{b.about} in {b.cluster}" if b.cluster else b.about for b in group if b.about])
    return Limit(
        what=f"{wanted}: {about}" if about else wanted,
        reason=group[0].reason,
        permission=group[0].permission,
        command=next((b.command for b in group if b.command), None),
    )


def _few(names: Sequence[str]) -> str:
    """The first of them, each once, and how many more there are."""
    unique = list(dict.fromkeys(names))
    rest = [f"{len(unique) - 4} more"] if len(unique) > 4 else []
    return ", ".join([*unique[:4], *rest])
