"""All checks: the built-in ones, and those of other distributions (entry-point group `mcdoctor.checks`)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points

from mcdoctor.check import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The checks, and one line for each plug-in that could not be used."""

    checks: tuple[Check, ...]
    problems: tuple[str, ...] = ()


def load() -> Registry:
    """Built-in checks first. A plug-in that fails to import, or repeats an id, is a line, not a crash."""
    from mcdoctor_checks import CHECKS

    found: dict[str, Check] = {c.id: c for c in CHECKS}
    problems: list[str] = []
    for point in entry_points(group="mcdoctor.checks"):
        name = f"{point.name} of {point.dist.name if point.dist else 'an unknown distribution'}"
        try:
            extra = tuple(point.load())
        except Exception as error:  # somebody else's code may fail in any way
            problems.append(f"plug-in {name} could not be loaded: {type(error).__name__}: {error}")
            continue
        for check in extra:
            if not isinstance(check, Check):
                problems.append(f"plug-in {name} holds something that is not a Check")
            elif check.id in found:
                problems.append(f"plug-in {name} repeats the check id {check.id!r}")
            else:
                found[check.id] = check
    return Registry(checks=tuple(found.values()), problems=tuple(problems))
