"""Reading objects that others wrote: values of the wrong form count as missing."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from mcdoctor.models.codec import moment
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Fact, Listed
from mcdoctor.models.ids import Severity
from mcdoctor.models.outcome import Failed, Finding, Outcome, Passed, Unknown


def fields(value: Any) -> Mapping[str, Any]:
    """The value when it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> tuple[Any, ...]:
    """The elements of a list; nothing for any other value."""
    return tuple(value) if isinstance(value, (list, tuple)) else ()


def text(value: Any) -> str:
    """The text, or "" for any other value."""
    return value if isinstance(value, str) else ""


def texts(value: Any) -> tuple[str, ...]:
    return tuple(v for v in items(value) if isinstance(v, str) and v)


def number(value: Any) -> int | None:
    """A whole number, also when written as digits; None for any other value."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None


def strings(value: Any) -> dict[str, str]:
    """The members of an object whose values are texts, as labels are."""
    return {str(k): v for k, v in fields(value).items() if isinstance(v, str)}


def when(value: Any) -> datetime | None:
    """A time as objects write it, or None."""
    try:
        return moment(value) if isinstance(value, str) and value else None
    except ValueError:
        return None


def family(address: str) -> int | None:
    """4 or 6, None for what is not an address."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).version
    except ValueError:
        return None


def canonical(address: str) -> str:
    """One spelling for each address (IPv6 has many); other text as it stands."""
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return address


def whole(facts: Facts, kind: str, cluster: str, namespace: str, selector: Mapping[str, str] | None = None) -> bool:
    """True when every object of the kind there (under that selector, whatever its order) is known."""
    if facts.complete(kind, cluster, namespace):
        return True
    if selector is None:
        return False
    wanted = {f"{k}={v}" for k, v in selector.items()}
    return any(
        fact.cluster == cluster
        and fact.wanted == kind
        and fact.namespace in (None, namespace)
        and fact.field_selector is None
        and fact.selector is not None
        and {part.strip().replace("==", "=") for part in fact.selector.split(",")} <= wanted
        for fact in facts.all(Listed)
    )


def selected(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(k) == v for k, v in selector.items())


def conclude(problems: list[Finding], unknown: Iterable[str] = (), evidence: tuple[Fact, ...] = ()) -> Outcome:
    """Failed with any problem that is more than a note, else Unknown with the first reason, else Passed."""
    if any(p.severity is not Severity.NOTE for p in problems):
        return Failed(tuple(problems))
    reasons = tuple(unknown)
    if reasons:
        return Unknown(reasons[0], notes=tuple(problems))
    return Passed(evidence, tuple(problems))


def shown(names: Iterable[str], most: int = 4) -> str:
    """A short list for people: `a, b, c, d (+3)`; `-` when there is nothing. The same in every language."""
    every = list(dict.fromkeys(names))
    head = ", ".join(every[:most])
    return f"{head} (+{len(every) - most})" if len(every) > most else head or "-"
