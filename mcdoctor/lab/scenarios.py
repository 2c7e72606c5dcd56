"""The scenarios that ship with mcdoctor, and what is expected of a diagnosis of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent / "scenarios"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a diagnosis should say. `causes`: rank 1 first; `silent`: no cause and no error finding at all."""

    verdict: str
    causes: tuple[str, ...] = ()
    symptom: str | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A folder with bundle.yaml, clusters/, lab.yaml, expect.yaml and, once recorded, facts/."""

    name: str
    folder: Path
    about: str
    source: str
    destination: str
    expect: Expectation

    @property
    def recorded(self) -> bool:
        return any(self.folder.glob("facts/*.jsonl"))


class BadScenario(ValueError):
    """A scenario folder cannot be used; the text names the file."""


def names() -> tuple[str, ...]:
    """Names of the scenarios that ship, `default` and `healthy` first."""
    found = sorted(path.parent.name for path in _HERE.glob("*/lab.yaml"))
    first = [name for name in ("default", "healthy") if name in found]
    return (*first, *(name for name in found if name not in first))


def folder(name: str) -> Path:
    """The folder of a scenario by name, or of one elsewhere by its path. Raises LookupError with the nearest names."""
    if name in names():
        return _HERE / name
    if os.sep in name and (Path(name) / "lab.yaml").is_file():
        return Path(name)
    import difflib

    near = difflib.get_close_matches(name, names(), n=3) or names()[:3]
    raise LookupError(f"no scenario is called {name!r}; nearest: {', '.join(near)}")


def scenario(name: str) -> Scenario:
    """One scenario. Raises LookupError, BadLab or BadScenario."""
    from mcdoctor.lab.schema import load

    place = folder(name)
    lab = load(place / "lab.yaml")
    return Scenario(
        name=place.name,
        folder=place,
        about=lab.about,
        source=lab.diagnose.source,
        destination=lab.diagnose.destination,
        expect=_expectation(place / "expect.yaml"),
    )


def scenarios() -> Iterator[Scenario]:
    """All that ship."""
    return (scenario(name) for name in names())


def _expectation(path: Path) -> Expectation:
    import yaml

    try:
        data: Any = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (OSError, yaml.YAMLError) as error:
        raise BadScenario(f"{path}: {error}") from None
    known = {"verdict", "causes", "symptom", "silent"}
    if not isinstance(data, Mapping) or "verdict" not in data or set(data) - known:
        raise BadScenario(f"{path}: expected verdict, and perhaps causes, symptom, silent")
    return Expectation(
        verdict=str(data["verdict"]),
        causes=tuple(map(str, data.get("causes") or ())),
        symptom=data.get("symptom"),
        silent=bool(data.get("silent", False)),
    )
