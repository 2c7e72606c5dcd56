"""The report: the one model that every renderer reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from mcdoctor.models.facts import Fact
from mcdoctor.models.flow import Flow
from mcdoctor.models.ids import Certainty, Hop, Symptom, Verdict
from mcdoctor.models.outcome import Finding, Outcome
from mcdoctor.models.playbook import Cause, Remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One check as it went. `vantage` is text for people; `ms` the probe's wall time, 0 in a replay."""

    id: str
    title: str
    outcome: Outcome
    vantage: str = ""
    ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A cause with what speaks for it, against it and what would settle it. Rank 1 is the answer."""

    cause: Cause
    rank: int
    certainty: Certainty
    hop: Hop
    object: str
    supporting: tuple[Finding, ...] = ()
    against: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()
    proof: tuple[Finding, ...] = ()
    explained: tuple[Finding, ...] = ()
    remedies: tuple[Remedy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Something that could not be seen: what, why, what was missing, and the command for whoever may run it."""

    what: str
    reason: str
    permission: str | None = None
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything about one diagnosis."""

    flow: Flow
    verdict: Verdict
    symptoms: tuple[Symptom, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    ran: tuple[Ran, ...] = ()
    facts: tuple[Fact, ...] = ()
    limits: tuple[Limit, ...] = ()
    means: str = field(default="", metadata={"doc": "how it was looked: live, bundle, lab, recording; with its name"})
    started: datetime | None = None
    seconds: float = 0.0
    interrupted: bool = False
