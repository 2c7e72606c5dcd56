"""Dataclasses to JSON and back, by their type hints.

A field whose default is None is optional: left out when None. Unknown keys are ignored, so that records written by
a newer build or by somebody else load. A value of the wrong shape raises `Malformed`, which names the field.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class Malformed(ValueError):
    """A record does not have the shape of its kind; the text names the field and what was found."""


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, milliseconds where there are any."""
    moment = moment.astimezone(UTC)
    spec = "milliseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=spec).replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """An RFC 3339 time with its zone; raises ValueError."""
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00") if text.endswith("Z") else text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    key: str
    hint: Any
    required: bool
    omit_none: bool


@cache
def _shape(cls: Any) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls)
    shape = []
    for field in dataclasses.fields(cls):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        key = field.metadata.get("json", field.name)
        shape.append(_Field(field.name, key, hints[field.name], not has_default, field.default is None))
    return tuple(shape)


def encode(value: Any) -> Any:
    """The JSON form of a value: dataclasses become objects, times RFC 3339 text, enums their value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out: dict[str, Any] = {}
        for field in _shape(type(value)):
            inner = getattr(value, field.name)
            if inner is None and field.omit_none:
                continue
            out[field.key] = encode(inner)
        return out
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value


def decode(cls: type[T], data: Any, where: str = "") -> T:
    """An instance of the dataclass `cls` from its JSON form; raises Malformed."""
    if not isinstance(data, Mapping):
        raise Malformed(f"{where or cls.__name__}: expected an object, found {_name(data)}")
    values: dict[str, Any] = {}
    for field in _shape(typing.cast(typing.Hashable, cls)):
        path = f"{where}.{field.key}" if where else field.key
        if field.key not in data or (data[field.key] is None and not field.required):
            if field.required:
                raise Malformed(f"{path} is missing")
            continue
        values[field.name] = _value(field.hint, data[field.key], path)
    return cls(**values)


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _fail(path: str, wanted: str, value: Any) -> Malformed:
    shown = repr(value) if isinstance(value, (str, int, float, bool)) else _name(value)
    return Malformed(f"{path}: expected {wanted}, found {shown[:80]}")


def _value(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any or hint is object:
        return value
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise _fail(path, "one of " + ", ".join(map(str, choices)), value)
        return value
    if origin in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        if value is None:
            return None
        errors = []
        for choice in inner:
            try:
                return _value(choice, value, path)
            except Malformed as error:
                errors.append(error)
        raise errors[0]
    if origin is tuple:
        if not isinstance(value, list):
            raise _fail(path, "a list", value)
        return tuple(_value(typing.get_args(hint)[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _fail(path, "an object", value)
        return {str(k): _value(typing.get_args(hint)[1], v, f"{path}.{k}") for k, v in value.items()}
    return _scalar(hint, value, path)


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), value, path)
    if hint is datetime:
        try:
            return moment(value)
        except (ValueError, TypeError, AttributeError):
            raise _fail(path, "an RFC 3339 time", value) from None
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _fail(path, "a number", value)
        return float(value)
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            raise _fail(path, "a whole number", value)
        return int(value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            raise _fail(path, "one of " + ", ".join(str(m.value) for m in hint), value) from None
    if not isinstance(value, hint):
        raise _fail(path, {str: "text", bool: "true or false"}.get(hint, hint.__name__), value)
    return value
