"""The order of checks, concluded from what they give, need and use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

from mcdoctor.check import Check


class PlanError(ValueError):
    """The checks cannot be ordered, or two have one id."""


def levels(checks: Iterable[Check]) -> Iterator[tuple[Check, ...]]:
    """Groups of checks that may run side by side, givers before takers, ties by id; raises PlanError."""
    by_id: dict[str, Check] = {}
    for check in checks:
        if check.id in by_id:
            raise PlanError(f"two checks have the id {check.id!r}")
        by_id[check.id] = check
    givers: dict[type, list[str]] = {}
    for check in by_id.values():
        for kind in check.gives:
            givers.setdefault(kind, []).append(check.id)
    graph = {
        check.id: {g for kind in (*check.needs, *check.uses) for g in givers.get(kind, ()) if g != check.id}
        for check in by_id.values()
    }
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        raise PlanError(f"checks need one another in a circle: {' -> '.join(error.args[1])}") from error
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        yield tuple(by_id[i] for i in ready)
        sorter.done(*ready)
