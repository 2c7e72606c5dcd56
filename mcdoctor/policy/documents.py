"""Text of manifests to documents: JSON, JSON lines and YAML with many documents, each with its file and line.

A document that cannot be parsed is a `Problem` with file and line; the rest is read. YAML is read with the C loader
where
there is one; time stamps stay text, as in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from mcdoctor.policy.world import Document

_SEPARATOR = re.compile(r"^---(?=\s|$)[^\n]*\n?|^\.\.\.\s*\n", re.M)
_LARGEST_EXPANSION = 2_000_000


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of a file that could not be read; `line` counts from 1, None when it is not known."""

    file: str
    line: int | None
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.why}" if self.line else f"{self.file}: {self.why}"


def parse(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    """The documents of one file. The form is told by the name (.json, .jsonl), else by the first character. Never
    raises.
    """
    if file.endswith(".jsonl"):
        return _json_lines(text, file)
    if file.endswith(".json") or text[:64].lstrip()[:1] in ("{", "["):
        try:
            return _unwrapped(json.loads(text), file, None), []
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            if file.endswith(".json"):
                return [], [Problem(file, line, f"not JSON: {getattr(error, 'msg', 'nested too deeply')}")]
    return _yaml(text, file)


def _unwrapped(value: Any, file: str, line: int | None) -> list[Document]:
    if type(value) is list:
        return [Document(each, file, line) for each in value if type(each) is dict]
    return [Document(value, file, line)] if type(value) is dict else []


def _json_lines(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    documents: list[Document] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            documents += _unwrapped(json.loads(line), file, number)
        except (ValueError, RecursionError) as error:
            problems.append(Problem(file, number, f"not JSON: {getattr(error, 'msg', 'nested too deeply')}"))
    return documents, problems


@cache
def _loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = type("Loader", (base,), {})
    loader.yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in pairs if tag != "tag:yaml.org,2002:timestamp"]
        for first, pairs in base.yaml_implicit_resolvers.items()
    }
    return loader


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of each document, so that a broken one does not take the others with it."""
    start, line = 0, 1
    for match in _SEPARATOR.finditer(text):
        yield line, text[start : match.start()]
        line += text.count("\n", start, match.end())
        start = match.end()
    yield line, text[start:]


def _yaml(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    import yaml

    documents: list[Document] = []
    problems: list[Problem] = []
    for first, chunk in _chunks(text):
        if not chunk.strip():
            continue
        lead = next(
            (n for n, row in enumerate(chunk.split("\n")) if row.strip() and not row.lstrip().startswith("#")), None
        )
        if lead is None:
            continue
        try:
            value = yaml.load(chunk, Loader=_loader())  # noqa: S506  (a safe loader without time stamps)
            if "*" in chunk and "&" in chunk and _expanded(value) > _LARGEST_EXPANSION:
                raise ValueError("its aliases expand beyond all measure")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problems.append(
                Problem(file, first + (mark.line if mark else 0), f"not YAML: {error.problem or error.context}")
            )
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            problems.append(Problem(file, first + lead, f"not YAML: {reason}"))
        else:
            if value is None:
                continue
            found = _unwrapped(value, file, first + lead)
            if not found:
                problems.append(Problem(file, first + lead, "not a Kubernetes object"))
            documents += found
    return documents, problems


def _expanded(value: Any, seen: dict[int, int] | None = None) -> int:
    """How many values there are when every alias is written out; RecursionError for one that holds itself."""
    seen = {} if seen is None else seen
    if not isinstance(value, (dict, list)):
        return 1
    known = seen.get(id(value))
    if known is not None:
        if known < 0:
            raise RecursionError("an alias that holds itself")
        return known
    seen[id(value)] = -1
    parts = value.values() if isinstance(value, Mapping) else value
    total = 1 + sum(_expanded(part, seen) for part in parts)
    seen[id(value)] = total
    return total
