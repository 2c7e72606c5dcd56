"""Findings against the causes of the library: which causes match, on what evidence, and how far they are settled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mcdoctor.models.ids import Certainty, Severity
from mcdoctor.models.outcome import Finding
from mcdoctor.models.playbook import Cause, Library


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A cause with what was found of what it names. `missing` are finding ids that would settle it."""

    cause: Cause
    certainty: Certainty
    supporting: tuple[Finding, ...] = ()
    against: tuple[Finding, ...] = ()
    proof: tuple[Finding, ...] = ()
    explained: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def ids(self) -> frozenset[str]:
        """The ids that it rests on, proof left out."""
        return frozenset(f.id for f in self.supporting)

    @property
    def weight(self) -> Severity:
        """The worst severity among what it rests on or explains."""
        return worst((*self.supporting, *self.explained, *self.proof))


@dataclass(frozen=True, slots=True)
class Present:
    """The findings of a run by id."""

    by_id: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)

    def of(self, ids: Iterable[str]) -> tuple[Finding, ...]:
        """The findings with these ids, in the order of the ids."""
        return tuple(f for i in dict.fromkeys(ids) for f in self.by_id.get(i, ()))


SEVERITIES = (Severity.ERROR, Severity.WARNING, Severity.NOTE)


def worst(findings: Iterable[Finding]) -> Severity:
    """The worst severity, `note` for none."""
    return min((f.severity for f in findings), key=SEVERITIES.index, default=Severity.NOTE)


def present(findings: Sequence[Finding]) -> Present:
    by_id: dict[str, tuple[Finding, ...]] = {}
    for finding in findings:
        by_id[finding.id] = (*by_id.get(finding.id, ()), finding)
    return Present(by_id)


def match(findings: Sequence[Finding], library: Library) -> tuple[Match, ...]:
    """Every cause whose conditions are met, in the order of the library."""
    seen = present(findings)
    return tuple(m for cause in library.causes.values() if (m := _match(cause, seen)) is not None)


def _match(cause: Cause, seen: Present) -> Match | None:
    proof = seen.of(cause.proved_by)
    if seen.of(cause.unless) or not _conditions_hold(cause, seen):
        return None
    supporting = seen.of((*cause.when_all, *cause.when_any))
    explained = tuple(f for f in seen.of(cause.explains) if f not in supporting)
    if worst((*supporting, *explained, *proof)) is Severity.NOTE:
        return None  # context alone: nothing is wrong that this could be the cause of
    against = seen.of(cause.against)
    missing = tuple(i for i in dict.fromkeys(cause.wants) if i not in seen.by_id)
    return Match(
        cause=cause,
        certainty=_certainty(cause, proof, against, missing),
        supporting=supporting,
        against=against,
        proof=proof,
        explained=explained,
        missing=() if proof and not against else missing,
    )


def _conditions_hold(cause: Cause, seen: Present) -> bool:
    """A proof alone makes a match only where the cause names no other condition."""
    if not cause.when_all and not cause.when_any:
        return any(i in seen.by_id for i in cause.proved_by)
    return all(i in seen.by_id for i in cause.when_all) and (
        not cause.when_any or any(i in seen.by_id for i in cause.when_any)
    )


def _certainty(
    cause: Cause, proof: tuple[Finding, ...], against: tuple[Finding, ...], missing: tuple[str, ...]
) -> Certainty:
    """A wanted finding that would prove the cause is not needed to support it; any other wanted one is."""
    if against:
        return Certainty.POSSIBLE
    if proof:
        return Certainty.PROVED
    if not cause.supports or any(i not in cause.proved_by for i in missing):
        return Certainty.POSSIBLE
    return Certainty.SUPPORTED
