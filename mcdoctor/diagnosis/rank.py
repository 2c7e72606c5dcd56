"""The order of matched causes, and what it does to their certainty.

1. What rests on errors comes before what rests on warnings.
2. Certainty. A cause loses it (it becomes `possible`) when another accounts for all of its evidence: the
   evidence of the other is wider, or the same (then both lose it: nothing parts them), or names it as a consequence.
3. The earlier broken hop, then the more specific cause, then the order of the symptom's playbook.
4. A cause all of whose evidence is a consequence of a better one at an earlier or the same hop, or of a proved one at
   any hop, is not a rival: what it rests on is listed under the better one as explained. A proved one always stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mcdoctor.diagnosis.match import SEVERITIES, Match
from mcdoctor.models.ids import Certainty, Hop, Symptom
from mcdoctor.models.outcome import Finding
from mcdoctor.models.playbook import Library

_CERTAINTIES = (Certainty.PROVED, Certainty.SUPPORTED, Certainty.POSSIBLE)


def rank(matches: Sequence[Match], symptoms: Sequence[Symptom], library: Library) -> tuple[Match, ...]:
    """The matches, best first, consequences folded into what explains them."""
    weighed = [_lowered(m, matches) for m in matches]
    order = _suspicion(symptoms, library)
    weighed.sort(key=lambda m: _key(m, order))
    return _fold(weighed)


def _key(match: Match, order: dict[str, int]) -> tuple[int, int, int, int, int, int, str]:
    return (
        SEVERITIES.index(match.weight),
        _CERTAINTIES.index(match.certainty),
        broken_hop(match).position,
        len(match.against),
        -len({f.id for f in (*match.supporting, *match.proof)}),
        order.get(match.cause.id, len(order)),
        match.cause.id,
    )


def broken_hop(match: Match) -> Hop:
    """The earliest hop among the worst findings that the cause rests on, else among those that it explains."""
    own = [f.hop for f in match.supporting if f.severity is match.weight]
    other = [f.hop for f in (*match.proof, *match.explained) if f.severity is match.weight]
    return min(own or other, key=lambda h: h.position)


def _suspicion(symptoms: Sequence[Symptom], library: Library) -> dict[str, int]:
    """Cause ids in the order in which the playbooks of these symptoms suspect them."""
    books = [library.playbooks[s] for s in symptoms if s in library.playbooks]
    return {c: i for i, c in enumerate(dict.fromkeys(c for b in books for c in b.causes))}


def _lowered(match: Match, matches: Sequence[Match]) -> Match:
    others = [m for m in matches if m.cause.id != match.cause.id and not m.against]
    rivalled = {
        Certainty.PROVED: any(_proved_alike(other, match) for other in others),
        Certainty.SUPPORTED: any(_accounts_for(other, match) for other in others),
        Certainty.POSSIBLE: False,
    }[match.certainty]
    return replace(match, certainty=Certainty.POSSIBLE) if rivalled else match


def _proved_alike(other: Match, match: Match) -> bool:
    """True when the same experiment, on the same or wider evidence, proves another cause: then it parts nothing."""
    return (
        other.certainty is Certainty.PROVED
        and {f.id for f in match.proof} <= {f.id for f in other.proof}
        and match.ids <= other.ids
    )


def _accounts_for(other: Match, match: Match) -> bool:
    """True when nothing in the evidence of `match` speaks for it rather than for `other`."""
    if _explains(other, match):
        return not _explains(match, other)
    if other.certainty is Certainty.POSSIBLE:
        return False
    return match.ids <= other.ids


def _explains(better: Match, match: Match) -> bool:
    """True when all that `match` rests on is a consequence of the other; what a cause rests on is none of its own."""
    own = {*better.cause.when_all, *better.cause.when_any}
    return bool(match.ids) and match.ids <= frozenset(better.cause.explains) - own


def _not_later(hop: Hop, other: Hop) -> bool:
    """The control plane steers every hop, so it comes before all of them."""
    return hop is Hop.CONTROL_PLANE or hop.position <= other.position


def _fold(ranked: Sequence[Match]) -> tuple[Match, ...]:
    kept: list[Match] = []
    for match in ranked:
        for i, better in enumerate(kept):
            if (
                match.certainty is not Certainty.PROVED
                and better.certainty is not Certainty.POSSIBLE
                and _explains(better, match)
                and (better.certainty is Certainty.PROVED or _not_later(better.cause.hop, match.cause.hop))
            ):
                kept[i] = replace(better, explained=_union(better.explained, match.supporting))
                break
        else:
            kept.append(match)
    return tuple(kept)


def _union(first: tuple[Finding, ...], second: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return (*first, *(f for f in second if f not in first))
