"""Notes of the resolution as findings."""

from __future__ import annotations

from collections.abc import Mapping

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import KubeObject, Listed
from mcdoctor.models.flow import FlowNote
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome, settle

_MISSING = Symptom.REMOTE_SERVICE_NOT_IMPORTED
_KINDS: Mapping[str, tuple[Hop, Severity, Symptom | None]] = {
    "destination-missing-here": (Hop.SOURCE_DNS, Severity.ERROR, _MISSING),
    "destination-namespace-missing-here": (Hop.SOURCE_DNS, Severity.ERROR, _MISSING),
    "destination-not-exported": (Hop.CONTROL_PLANE, Severity.ERROR, _MISSING),
    "destination-not-imported": (Hop.CONTROL_PLANE, Severity.ERROR, _MISSING),
    "destination-missing-there": (Hop.DEST_SERVICE, Severity.WARNING, None),
    "destination-not-global": (Hop.CONTROL_PLANE, Severity.ERROR, _MISSING),
    "source-has-no-running-pod": (Hop.SOURCE_POD, Severity.WARNING, None),
}


def judge(facts: Facts) -> Outcome:
    """Failed when the two sides do not fit together; Passed with the objects of the pair otherwise."""
    flow = facts.flow
    facts.all(Listed)
    problems = [_finding(facts, note) for note in flow.notes]
    ends = [facts.object("Service", end.cluster, end.namespace, end.name) for end in (flow.local, flow.remote) if end]
    return settle(problems, tuple(o for o in ends if o is not None))


def _finding(facts: Facts, note: FlowNote) -> Finding:
    hop, severity, symptom = _KINDS[note.id]
    args = dict(note.args)
    shown = tuple(o for o in facts.objects("Service", None, args.get("namespace")) if o.name == args.get("name"))
    evidence: tuple[KubeObject, ...] = shown
    return Finding(
        id=note.id, hop=hop, subject=note.subject, severity=severity, symptom=symptom, args=args, evidence=evidence
    )
