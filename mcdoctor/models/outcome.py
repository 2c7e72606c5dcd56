"""How a check ends: a closed union, always reported. A warned check is a Failed one with warnings only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from mcdoctor.models.facts import Fact
from mcdoctor.models.ids import Hop, Severity, Symptom


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it should be, or that speaks for or against a cause. Its sentence is in findings.yaml.

    `args` fill the slots of that sentence (and of cause texts); evidence is facts, never prose. `vantage` is where it
    was seen from when that matters.
    """

    id: str
    hop: Hop
    subject: str
    severity: Severity = Severity.ERROR
    symptom: Symptom | None = None
    args: Mapping[str, str | int | float] = field(default_factory=dict)
    evidence: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """What should hold, holds. `notes` are findings of severity note: context for causes and readers."""

    evidence: tuple[Fact, ...] = ()
    notes: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """At least one finding."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """Could not be seen or settled; `command` is what someone with the rights can run."""

    reason: str
    command: str | None = None
    notes: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """Did not run: not applicable here (blocked_by null), or waits for what another check could not provide."""

    reason: str
    blocked_by: str | None = None


Outcome = Passed | Failed | Unknown | Skipped


def word(outcome: Outcome) -> str:
    """passed, failed, warned, unknown or skipped."""
    match outcome:
        case Passed():
            return "passed"
        case Failed(findings):
            return "failed" if any(f.severity is Severity.ERROR for f in findings) else "warned"
        case Unknown():
            return "unknown"
        case Skipped():
            return "skipped"
        case _:
            assert_never(outcome)


def findings(outcome: Outcome) -> tuple[Finding, ...]:
    """Every finding of an outcome, notes included."""
    match outcome:
        case Passed():
            return outcome.notes
        case Failed():
            return outcome.findings
        case Unknown():
            return outcome.notes
        case Skipped():
            return ()
        case _:
            assert_never(outcome)


def settle(problems: list[Finding], evidence: tuple[Fact, ...] = ()) -> Outcome:
    """Failed when any problem is more than a note, else Passed with the notes."""
    if any(p.severity is not Severity.NOTE for p in problems):
        return Failed(tuple(problems))
    return Passed(evidence, tuple(problems))
