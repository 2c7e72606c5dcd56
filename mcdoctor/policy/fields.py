"""Reading untrusted JSON: a cursor that knows its JSON pointer and refuses values of the wrong form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class Refused(Exception):
    """The API server would not accept this field. `pointer` is where (RFC 6901), `why` in a few words."""

    def __init__(self, pointer: str, why: str) -> None:
        super().__init__(f"{pointer}: {why}")
        self.pointer = pointer
        self.why = why


def escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


@dataclass(frozen=True, slots=True)
class Field:
    """A value inside an object and the pointer to it; `value` is None when the field is missing or null."""

    value: Any
    pointer: str = ""

    def __getitem__(self, name: str) -> Field:
        """The named member; raises Refused when this value is neither an object nor missing."""
        value = self.value
        if value is None:
            return Field(None, f"{self.pointer}/{escape(name)}")
        if type(value) is not dict:
            raise Refused(self.pointer, "must be an object")
        return Field(value.get(name), f"{self.pointer}/{escape(name)}")

    def __contains__(self, name: str) -> bool:
        return type(self.value) is dict and name in self.value

    @property
    def present(self) -> bool:
        return self.value is not None

    def items(self) -> Iterator[Field]:
        """The elements of a list (none when missing)."""
        value = self.value
        if value is None:
            return
        if type(value) is not list:
            raise Refused(self.pointer, "must be a list")
        for number, item in enumerate(value):
            yield Field(item, f"{self.pointer}/{number}")

    def mapping(self) -> dict[str, Any]:
        """The object itself ({} when missing)."""
        if self.value is None:
            return {}
        if type(self.value) is not dict:
            raise Refused(self.pointer, "must be an object")
        return self.value

    def members(self) -> Iterator[tuple[str, Field]]:
        for name, value in self.mapping().items():
            yield name, Field(value, f"{self.pointer}/{escape(str(name))}")

    def strings(self) -> dict[str, str]:
        """A map of strings to strings, as labels are."""
        found = self.mapping()
        for name, value in found.items():
            if type(name) is not str or type(value) is not str:
                raise Refused(f"{self.pointer}/{escape(str(name))}", "must be a string")
        return found

    def text(self, default: str | None = None) -> str:
        if self.value is None and default is not None:
            return default
        if type(self.value) is not str:
            raise Refused(self.pointer, "required value" if self.value is None else "must be a string")
        return self.value

    def texts(self) -> tuple[str, ...]:
        return tuple(item.text() for item in self.items())

    def integer(self, default: int | None = None) -> int:
        if self.value is None and default is not None:
            return default
        if type(self.value) is not int:
            raise Refused(self.pointer, "required value" if self.value is None else "must be an integer")
        return self.value

    def boolean(self, default: bool | None = None) -> bool:
        if self.value is None and default is not None:
            return default
        if type(self.value) is not bool:
            raise Refused(self.pointer, "required value" if self.value is None else "must be a boolean")
        return self.value

    def choice(self, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self.text(default)
        if value not in allowed:
            raise Refused(self.pointer, f"{value!r} is not one of {', '.join(allowed)}")
        return value
