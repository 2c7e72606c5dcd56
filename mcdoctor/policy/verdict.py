"""What an evaluation says: three-valued matches, the branches a walk can take, and the verdict they settle into.

A rule either matches, does not match, or may match: then the match *is* the `Doubt`, which says what it hangs on.
A layer that walks its rules returns a `Ruling`: every outcome that is still possible, each with the doubts it assumes.
One outcome without doubts is a certain answer; outcomes that agree are certain too, whatever the doubts;
outcomes that differ become `conditional` (hangs on the request or the endpoint) or `unknown` (hangs on something
unseen).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Verdict(StrEnum):
    ALLOWED = "allowed"
    DENIED = "denied"
    CONDITIONAL = "conditional"
    UNKNOWN = "unknown"


class Direction(StrEnum):
    EGRESS = "egress"
    INGRESS = "ingress"


class Effect(StrEnum):
    """What a rule, a policy or a layer does with a packet. NEXT: this layer says nothing, the next one decides."""

    ALLOW = "allow"
    DENY = "deny"
    NEXT = "next"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a match is open. `unseen`: a fact is missing (verdict unknown); else it hangs on the request
    (conditional).
    """

    why: str
    unseen: bool = True

    def __bool__(self) -> bool:
        raise TypeError("a doubt is neither true nor false: compare with `is True` or `is False`")


Match: TypeAlias = bool | Doubt


def both(first: Match, second: Match) -> Match:
    """Three-valued AND; of two doubts the one that weighs more (unseen) is kept."""
    if first is False or second is False:
        return False
    if first is True:
        return second
    if second is True:
        return first
    return second if second.unseen else first


def either(first: Match, second: Match) -> Match:
    """Three-valued OR."""
    if first is True or second is True:
        return True
    if first is False:
        return second
    if second is False:
        return first
    return second if second.unseen else first


def negate(match: Match) -> Match:
    return match if isinstance(match, Doubt) else not match


@dataclass(frozen=True, slots=True)
class Ref:
    """An object by cluster, kind, namespace and name ('' when cluster-scoped); `file` and `line` when it was read
    from one.
    """

    cluster: str
    kind: str
    namespace: str
    name: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Deciding:
    """The object that decides, where in it (RFC 6901 pointer that resolves in the object), and what it does.

    `effect` is "allow", "deny" (a refusal, by a rule or by isolating the pod), "pass", "audit" or "log".
    `implicit`: no rule says deny; the object isolates the pod and none of its rules matches.
    """

    ref: Ref
    pointer: str
    direction: Direction
    effect: str
    implicit: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the trace: what was looked at in which layer, and what came of it. `deciding` when it points
    into an object.
    """

    layer: str
    text: str
    ref: Ref | None = None
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """One possible outcome of a layer, under the doubts listed; `why` in one clause."""

    effect: Effect
    by: tuple[Deciding, ...] = ()
    why: str = ""
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class Ruling:
    """All outcomes a layer leaves possible, most trusted first, with the trace of how it got there. Never empty."""

    branches: tuple[Branch, ...]
    trace: tuple[Step, ...] = ()


SILENT = Ruling((Branch(Effect.NEXT),))


@dataclass(frozen=True, slots=True)
class Decision:
    """A layer stack's settled answer for one packet."""

    verdict: Verdict
    by: tuple[Deciding, ...]
    why: str
    doubts: tuple[Doubt, ...] = ()
    trace: tuple[Step, ...] = ()


def first_match(rules: Iterable[tuple[Match, Branch]], otherwise: Branch, trace: Sequence[Step] = ()) -> Ruling:
    """Ordered rules, the first that matches decides; a rule that may match opens a branch and the walk goes on."""
    branches: list[Branch] = []
    doubts: tuple[Doubt, ...] = ()
    for match, branch in rules:
        if match is False:
            continue
        if match is True:
            branches.append(assuming(branch, doubts))
            return Ruling(tuple(branches), tuple(trace))
        assert isinstance(match, Doubt)
        branches.append(assuming(branch, (*doubts, match)))
        doubts = (*doubts, match)
    branches.append(assuming(otherwise, doubts))
    return Ruling(tuple(branches), tuple(trace))


def assuming(branch: Branch, doubts: tuple[Doubt, ...]) -> Branch:
    if not doubts:
        return branch
    return Branch(branch.effect, branch.by, branch.why, doubts + branch.doubts)


def chain(layers: Iterable[Ruling], last: Branch) -> Ruling:
    """Layers one after another: where one leaves NEXT possible, the following one is asked; `last` ends the chain.

    Pass a generator: a layer is only evaluated when an earlier one leaves it something to say.
    """
    done: list[Branch] = []
    trace: list[Step] = []
    pending: list[Branch] = [Branch(Effect.NEXT)]
    for ruling in layers:
        trace.extend(ruling.trace)
        following: list[Branch] = []
        for before in pending:
            for branch in ruling.branches:
                merged = Branch(branch.effect, before.by + branch.by, branch.why, before.doubts + branch.doubts)
                (following if branch.effect is Effect.NEXT else done).append(merged)
        pending = following
        if not pending:
            break
    # What an earlier layer passed on stays in `by` only where the end of the chain decides nothing of its own.
    done.extend(Branch(last.effect, before.by + last.by, last.why or before.why, before.doubts) for before in pending)
    return Ruling(tuple(done), tuple(trace))


def settle(ruling: Ruling) -> Decision:
    """One verdict from the possible outcomes. NEXT that nobody took up counts as allowed."""
    denies = [b for b in ruling.branches if b.effect is Effect.DENY]
    allows = [b for b in ruling.branches if b.effect is not Effect.DENY]
    if not denies or not allows:
        branches = denies or allows
        certain = next((b for b in branches if not b.doubts), branches[-1])
        verdict = Verdict.DENIED if denies else Verdict.ALLOWED
        return Decision(verdict, certain.by, certain.why, (), ruling.trace)
    doubts = tuple(dict.fromkeys(d for b in ruling.branches for d in b.doubts))
    verdict = Verdict.UNKNOWN if any(d.unseen for d in doubts) else Verdict.CONDITIONAL
    by = tuple(dict.fromkeys(d for b in ruling.branches for d in b.by))
    why = "; ".join(d.why for d in doubts)
    return Decision(verdict, by, why, doubts, ruling.trace)


def conjunction(verdicts: Iterable[Verdict]) -> Verdict:
    """All must allow: one denial denies, then unknown, then conditional."""
    seen = set(verdicts)
    for verdict in (Verdict.DENIED, Verdict.UNKNOWN, Verdict.CONDITIONAL):
        if verdict in seen:
            return verdict
    return Verdict.ALLOWED


@dataclass(frozen=True, slots=True)
class Refusal:
    """An object the API server (or its controller) would not take: it counts as absent, the rest stands.

    `field` is a JSON pointer, possibly to a missing field; `fatal` False: the object stands, only this is worth a
    warning.
    """

    ref: Ref
    field: str
    why: str
    fatal: bool = True
