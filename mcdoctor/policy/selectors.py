"""Kubernetes label selectors: parsed once into a canonical, hashable form.

`matchLabels` and `matchExpressions` are AND'ed; NotIn and DoesNotExist also hold when the key is missing.
Source: apimachinery `pkg/apis/meta/v1/types.go` (LabelSelector) and `pkg/apis/meta/v1/validation`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mcdoctor.policy.fields import Field, Refused

IN, NOT_IN, EXISTS, DOES_NOT_EXIST = "In", "NotIn", "Exists", "DoesNotExist"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        match self.operator:
            case "In" if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case "In":
                return f"{self.key} in ({', '.join(self.values)})"
            case "NotIn":
                return f"{self.key} not in ({', '.join(self.values)})"
            case "Exists":
                return f"{self.key} present"
            case _:
                return f"{self.key} absent"


Selector: TypeAlias = tuple[Requirement, ...]
"""All of these must hold; () selects everything. Sorted, so that equal selectors are equal values."""


def holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case _:
            return value is None


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    return all(holds(requirement, labels) for requirement in selector)


_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_KEY = re.compile(rf"(?:(?=[^/]{{1,253}}/){_SUBDOMAIN}/)?{_NAME}\Z")
_VALUE = re.compile(rf"({_NAME})?\Z")
_known_keys: set[str] = set()
_known_values: set[str] = set()


def check_key(field: Field, key: str) -> None:
    if key not in _known_keys:
        if not _KEY.match(key):
            raise Refused(field.pointer, f"{key!r} is not a label key")
        _known_keys.add(key)


def check_value(field: Field, value: str) -> None:
    if value not in _known_values:
        if not _VALUE.match(value):
            raise Refused(field.pointer, f"{value!r} is not a label value")
        _known_values.add(value)


def parse(field: Field) -> Selector:
    """A LabelSelector; a missing one gives () like an empty one: the caller tells them apart. Raises Refused."""
    if not field.mapping():
        return ()
    found: list[Requirement] = []
    labels = field["matchLabels"]
    if labels.present:
        for key, value in labels.members():
            check_key(labels, key)
            check_value(value, value.text())
            found.append(Requirement(key, IN, (value.value,)))
    for item in field["matchExpressions"].items():
        key, operator, values = item["key"].text(), item["operator"].text(), item["values"]
        check_key(item["key"], key)
        listed = values.texts()
        if operator in (IN, NOT_IN):
            if not listed:
                raise Refused(values.pointer, f"must be specified when operator is {operator}")
            for value in values.items():
                check_value(value, value.text())
        elif operator in (EXISTS, DOES_NOT_EXIST):
            if listed:
                raise Refused(values.pointer, f"may not be specified when operator is {operator}")
        else:
            raise Refused(item["operator"].pointer, f"{operator!r} is not a valid selector operator")
        found.append(Requirement(key, operator, tuple(sorted(set(listed)))))
    return tuple(sorted(set(found)))


def text(selector: Selector) -> str:
    return ", ".join(map(str, selector)) or "everything"
