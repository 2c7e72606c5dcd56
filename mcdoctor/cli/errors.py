"""How a command ends early: one clear line on stderr and the right exit code."""

from __future__ import annotations

import sys
import unicodedata
from typing import NoReturn

USAGE = 2
NOT_SETTLED = 3
FAILED = 4
INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command; `code` is its exit code, `hint` an optional second line with the next step."""

    def __init__(self, message: str, code: int = USAGE, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def fail(message: str, code: int = USAGE, hint: str = "") -> NoReturn:
    raise CommandError(message, code, hint)


def plain(text: str) -> str:
    """Text from outside on one line, without control or direction characters."""
    cleaned = "".join(" " if c in "\n\r\t" else c for c in text)
    return "".join(c for c in cleaned if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn")).strip()


def say(text: str) -> None:
    """A line of progress or advice, on stderr."""
    print(plain(text), file=sys.stderr, flush=True)
