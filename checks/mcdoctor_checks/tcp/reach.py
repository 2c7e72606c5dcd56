"""TCP connects summed up a rung at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import IcmpError, TcpConnect
from mcdoctor.models.flow import RungLabel
from mcdoctor_checks.sight import Place, clear, name_addresses, rung_of, unready

State = Literal["open", "sometimes", "refused", "reset", "silent", "unreachable"]
_STATES: dict[str, State] = {
    "refused": "refused", "reset": "reset", "timeout": "silent", "unreachable": "unreachable",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One address and port as tried from one side. `named`: the destination's name leads there."""

    label: RungLabel
    address: str
    port: int
    named: bool
    facts: tuple[TcpConnect, ...]

    @property
    def tries(self) -> int:
        return sum(tries(f) for f in self.facts)

    @property
    def opens(self) -> int:
        return sum(opens(f) for f in self.facts)

    @property
    def failures(self) -> Counter[State]:
        found: Counter[State] = Counter()
        for fact in self.facts:
            if lost := tries(fact) - opens(fact):
                found[_state(fact)] += lost
        return found

    @property
    def state(self) -> State:
        """One silent try in ten (or one at all where others opened) is how networks are; a refusal is an answer."""
        lost = self.tries - self.opens
        if not lost:
            return "open"
        worst = self.failures.most_common(1)[0][0]
        if not self.opens:
            # Routers and firewalls limit how many ICMP errors they send: one says more than the silence around it.
            told = next((f for f in self.facts if f.icmp is not None), None)
            return _state(told) if told else worst
        answered = lost - self.failures["silent"]
        return "sometimes" if answered >= 1 or lost > max(1, self.tries // 10) else "open"

    @property
    def icmp(self) -> IcmpError | None:
        return next((f.icmp for f in self.facts if f.icmp is not None), None)

    @property
    def where(self) -> str:
        return self.facts[0].subject


def _state(fact: TcpConnect) -> State:
    """An ICMP port-unreachable is how a REJECT rule refuses."""
    if fact.icmp is not None and (fact.icmp.type, fact.icmp.code) in ((3, 3), (1, 4)):
        return "refused"
    return _STATES.get(fact.result, "silent")


def tries(fact: TcpConnect) -> int:
    return max(fact.tries or 1, fact.successes or 0, 1)


def opens(fact: TcpConnect) -> int:
    if fact.successes is not None:
        return max(0, fact.successes)
    return tries(fact) if fact.result == "open" else 0


def reaches(facts: Facts, *places: Place) -> list[Reach]:
    """Every rung tried from these places by probes that no proxy answered; pods that are not ready are left out."""
    return group(facts, clear(facts, TcpConnect, *places))


def group(facts: Facts, connects: Iterable[TcpConnect]) -> list[Reach]:
    """Connects by address and port; strangers are left out, unless nothing else was tried on the flow's own port."""
    host = (facts.flow.host or "").rstrip(".").lower()
    led = set(name_addresses(facts))
    found: dict[tuple[str, int], list[TcpConnect]] = {}
    labels: dict[tuple[str, int], RungLabel] = {}
    strangers: dict[tuple[str, int], list[TcpConnect]] = {}
    idle = unready(facts.flow)
    for fact in connects:
        key = (fact.address, fact.port)
        label = rung_of(facts, fact.address, fact.port, fact.name)
        if label == "endpoint" and fact.address in idle:
            continue
        if label is None:
            strangers.setdefault(key, []).append(fact)
            continue
        labels[key] = label
        found.setdefault(key, []).append(fact)
    if not found:
        for key, theirs in strangers.items():
            if facts.flow.port in (None, key[1]):
                found[key], labels[key] = theirs, "name"
    return [
        Reach(
            label=labels[key],
            address=key[0],
            port=key[1],
            named=labels[key] == "name"
            or (
                labels[key] != "neighbour"
                and (key[0] in led or any((f.name or "").rstrip(".").lower() == host != "" for f in theirs))
            ),
            facts=tuple(theirs),
        )
        for key, theirs in found.items()
    ]


def front(ladder: list[Reach]) -> list[Reach]:
    """The rung that a client meets first: what the name leads to, else the Service, the gateway, the endpoints."""
    if named := [r for r in ladder if r.named]:
        return named
    for label in ("cluster-ip", "gateway", "endpoint"):
        if found := [r for r in ladder if r.label == label]:
            return found
    return []


def together(parts: list[Reach]) -> State:
    """The state of several addresses that stand for one rung.

    A client tries the addresses of two families in turn: one family that opens is enough.
    """
    families: dict[bool, list[Reach]] = {}
    for part in parts:
        families.setdefault(":" in part.address, []).append(part)
    states = [_of_family(f) for f in families.values()]
    best: tuple[State, ...] = ("open", "sometimes")
    for state in best:
        if state in states:
            return state
    return states[0]


def _of_family(parts: list[Reach]) -> State:
    states = {p.state for p in parts}
    if len(states) == 1:
        return states.pop()
    if states & {"open", "sometimes"}:
        return "sometimes"
    sums: Counter[State] = Counter()
    for part in parts:
        sums += part.failures
    return sums.most_common(1)[0][0]
