"""What happens while it happens, on stderr: one moving line on a terminal, plain lines elsewhere, nothing when quiet.

The runner calls `started`, `ended` and `suspect`; it may do so from several threads.
"""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TextIO

from mcdoctor.models.outcome import word
from mcdoctor.models.playbook import Language
from mcdoctor.models.report import Ran
from mcdoctor.reports.clean import line
from mcdoctor.reports.words import MARKS, OUTCOMES, say

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text


class Progress(AbstractContextManager["Progress"], Protocol):
    """What a run tells of itself."""

    def phase(self, text: str) -> None:
        """A step that is no check: reading objects, starting the prober."""

    def started(self, check: str) -> None:
        """A check has begun to probe."""

    def ended(self, run: Ran) -> None:
        """A check has its outcome."""

    def suspect(self, sentence: str) -> None:
        """The cause as it looks so far; may change."""


def progress(stream: TextIO, language: Language = "en", *, quiet: bool = False, color: bool = True) -> Progress:
    """Silent, moving or plain, whichever fits the stream."""
    if quiet:
        return Silent()
    return Moving(stream, language, color=color) if stream.isatty() else Plain(stream, language)


class Silent:
    """Tells nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def phase(self, text: str) -> None: ...

    def started(self, check: str) -> None: ...

    def ended(self, run: Ran) -> None: ...

    def suspect(self, sentence: str) -> None: ...


class Plain:
    """A line for each step, for logs: what passed is not worth one."""

    def __init__(self, stream: TextIO, language: Language) -> None:
        self._stream, self._language = stream, language
        self._lock = threading.Lock()
        self._suspected = ""

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def _write(self, text: str) -> None:
        with self._lock:
            print(line(text), file=self._stream, flush=True)

    def phase(self, text: str) -> None:
        self._write(text)

    def started(self, check: str) -> None: ...

    def ended(self, run: Ran) -> None:
        state = word(run.outcome)
        if state in ("failed", "warned", "unknown"):
            self._write(f"{MARKS[state]} {run.id}: {OUTCOMES[state].in_language(self._language)}")

    def suspect(self, sentence: str) -> None:
        if sentence != self._suspected:
            self._suspected = sentence
            self._write(f"{say('so-far', self._language)}: {sentence}")


class Moving:
    """One line that moves: what runs now, how much is done, and the cause so far. It is gone when the run ends."""

    def __init__(self, stream: TextIO, language: Language, *, color: bool = True) -> None:
        self._stream, self._language, self._color = stream, language, color
        self._lock = threading.Lock()
        self._running: dict[str, None] = {}
        self._phase = self._suspected = ""
        self._ended = 0
        self._begun = time.monotonic()
        self._status: Status | None = None

    def __enter__(self) -> Moving:
        from rich.console import Console

        console = Console(file=self._stream, markup=False, highlight=False, no_color=not self._color)
        self._status = console.status(self._text(), spinner="dots")
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _text(self) -> Text:
        from rich.text import Text

        now = ", ".join(list(self._running)[:3]) or self._phase
        parts = [f"{say('running', self._language)} {now}" if self._running else now, f"✓ {self._ended}"]
        if self._suspected:
            parts.append(f"{say('so-far', self._language)}: {self._suspected}")
        # as Text: a string would be read as markup
        return Text(line("  ".join(p for p in parts if p)), no_wrap=True, overflow="ellipsis")

    def _show(self) -> None:
        if self._status is not None:
            self._status.update(self._text())

    def phase(self, text: str) -> None:
        with self._lock:
            self._phase = text
            self._show()

    def started(self, check: str) -> None:
        with self._lock:
            self._running[check] = None
            self._show()

    def ended(self, run: Ran) -> None:
        with self._lock:
            self._running.pop(run.id, None)
            self._ended += 1
            self._show()

    def suspect(self, sentence: str) -> None:
        with self._lock:
            self._suspected = sentence
            self._show()
