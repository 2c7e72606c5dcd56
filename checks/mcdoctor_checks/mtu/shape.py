"""What one series of sizes says: fine, smaller and signalled, a black hole, loss of any size, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mcdoctor.models.facts import PathMtu

Form = Literal["fine", "signalled", "hole", "any-size", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`delivered`: the largest size that arrived; `lost`: the smallest that should have and did not; `told`: the MTU
    that an ICMP error named."""

    form: Form
    fact: PathMtu
    delivered: int | None = None
    lost: int | None = None
    told: int | None = None

    def admits(self, limit: int) -> bool:
        """Whether a path that carries `limit` bytes and no more would look like this."""
        return self.delivered is not None and self.lost is not None and self.delivered <= limit < self.lost

    @property
    def full_segments_pass(self) -> bool:
        """TCP: the largest segment that the two ends agreed on arrived."""
        agreed = min(self.fact.mss) if self.fact.mss else None
        return agreed is not None and self.delivered is not None and self.delivered >= agreed + 28


def shape(fact: PathMtu) -> Shape:
    """Reads one fact. Sizes above the sender's own interface never left and are not looked at."""
    top = fact.interface_mtu
    sizes = [s for s in fact.sizes if top is None or s.size <= top]
    delivered = {s.size for s in sizes if s.result == "delivered"}
    told_at = {s.size: s.mtu for s in sizes if s.result == "frag-needed"}
    largest = max(delivered, default=None)
    told = min((m if m else size - 1 for size, m in told_at.items()), default=None)
    lost = [s.size for s in sizes if s.result == "lost"]
    if largest is None:
        form: Form = "signalled" if told is not None and all(s > told for s in lost) else "nothing"
        return Shape(form=form, fact=fact, told=told)
    if _control_is_lost(fact):
        return Shape(form="any-size", fact=fact, delivered=largest, told=told)
    small = [s for s in lost if s <= largest]
    if len(small) >= 2:
        return Shape(form="any-size", fact=fact, delivered=largest, lost=min(lost), told=told)
    # A sender that was told an MTU keeps below it: only what is lost within it is a hole.
    above = [s for s in lost if s > largest and s not in told_at and (told is None or s <= told)]
    if not above:
        form = "signalled" if told is not None else "fine"
        return Shape(form=form, fact=fact, delivered=largest, told=told)
    if small or (len(above) == 1 and fact.control_lost):
        return Shape(form="nothing", fact=fact, delivered=largest, lost=min(above), told=told)
    return Shape(form="hole", fact=fact, delivered=largest, lost=min(above), told=told)


def _control_is_lost(fact: PathMtu) -> bool:
    """Small packets sent between the sizes were lost too: more than one in five, or of many TCP segments (for which no
    kernel rations its answers) one in ten."""
    lost, sent = fact.control_lost or 0, fact.control_sent or 0
    rate = lost / max(sent, lost, 1)
    return (lost >= 2 and rate > 0.2) or (fact.protocol == "tcp" and lost >= 3 and rate > 0.1)


def settle_direction(shapes: Sequence[Shape], lossy: bool = False) -> Shape | None:
    """What several means say together. TCP on the real port decides where it carried its largest segment.

    `lossy`: packets are known to be lost whatever their size. Then, and where one means lost small packets too, chance
    may look like a hole: two means must show the same one. None: nothing usable, or the means contradict one another.
    """
    tcp = [s for s in shapes if s.fact.protocol == "tcp"]
    passed = [s for s in shapes if s.form in ("fine", "signalled")]
    full = next((s for s in tcp if s in passed and s.full_segments_pass), None)
    holes = sorted((s for s in shapes if s.form == "hole"), key=lambda s: s.fact.protocol != "tcp")
    any_size = _first(shapes, "any-size")
    doubtful = lossy or any_size is not None
    for hole in holes:
        if full is not None and hole.fact.protocol != "tcp":
            continue
        others = [s for s in shapes if s is not hole and s.delivered is not None and not _elsewhere(hole, s)]
        if any((s.delivered or 0) >= (hole.lost or 0) for s in others if s.form != "hole"):
            continue
        if doubtful and not any(_same_hole(hole, other) for other in holes if other is not hole):
            continue
        return hole
    if full is not None:
        return full
    if any_size is not None:
        return any_size
    if holes:
        return next((s for s in tcp if s in passed), None)
    return _first(passed, "signalled") or _first(passed, "fine")


def _elsewhere(one: Shape, other: Shape) -> bool:
    """The same means to another address is another path: one node's may be whole and the next one's not."""
    return one.fact.protocol == other.fact.protocol and one.fact.destination != other.fact.destination


def _same_hole(one: Shape, other: Shape) -> bool:
    """Two series, of two means or two addresses, with a limit that fits both."""
    if one.fact.protocol == other.fact.protocol and one.fact.destination == other.fact.destination:
        return False
    low = max(one.delivered or 0, other.delivered or 0)
    return low < min(one.lost or 0, other.lost or 0)


def _first(shapes: Sequence[Shape], form: Form) -> Shape | None:
    return next((s for s in shapes if s.form == form), None)
