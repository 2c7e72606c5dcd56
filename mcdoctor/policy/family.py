"""What a policy family is, and what it looks like once compiled for one cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mcdoctor.policy.index import Index
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Refusal, Ruling


class Compiled(Protocol):
    """A family's policies of one cluster, ready to be asked. Pure and read only (memos may grow)."""

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Objects that the API server or the controller would not take; they were left out."""
        ...

    def enforce(self, packet: Packet) -> Ruling:
        """What this family alone does with a packet of `packet.cluster` in `packet.direction`; NEXT = nothing of
        ours applies.
        """
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """`kinds`: (API group, kind) it parses. `compile(index, cluster name, families compiled before it)`: for one
    cluster.
    """

    name: str
    kinds: frozenset[tuple[str, str]]
    compile: Callable[[Index, str, Mapping[str, Compiled]], Compiled]
