"""The order of checks, concluded from what they give, need and use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from mcdoctor.check import Check


class PlanError(ValueError):
    """The checks cannot be ordered, or two have one id."""


@dataclass(slots=True)
class Plan:
    """Checks and their order. Take what is `ready`, say `done`, until it is not `active`."""

    by_id: Mapping[str, Check]
    _sorter: TopologicalSorter[str]

    @property
    def active(self) -> bool:
        return self._sorter.is_active()

    def ready(self) -> tuple[Check, ...]:
        """Checks that may start now, by id; each is given out once."""
        return tuple(self.by_id[i] for i in sorted(self._sorter.get_ready()))

    def done(self, *checks: Check) -> None:
        self._sorter.done(*(c.id for c in checks))


def plan(checks: Iterable[Check]) -> Plan:
    """Givers before takers; raises PlanError when two checks have one id or need one another in a circle."""
    by_id: dict[str, Check] = {}
    for check in checks:
        if check.id in by_id:
            raise PlanError(f"two checks have the id {check.id!r}")
        by_id[check.id] = check
    givers: dict[type, list[str]] = {}
    for check in by_id.values():
        for kind in check.gives:
            givers.setdefault(kind, []).append(check.id)
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for check in by_id.values():
        sorter.add(
            check.id, *{g for kind in (*check.needs, *check.uses) for g in givers.get(kind, ()) if g != check.id}
        )
    try:
        sorter.prepare()
    except CycleError as error:
        raise PlanError(f"checks need one another in a circle: {' -> '.join(error.args[1])}") from error
    return Plan(by_id, sorter)


def levels(checks: Iterable[Check]) -> Iterator[tuple[Check, ...]]:
    """The checks in groups that do not need one another, givers before takers; raises PlanError."""
    order = plan(checks)
    while order.active:
        group = order.ready()
        yield group
        order.done(*group)
