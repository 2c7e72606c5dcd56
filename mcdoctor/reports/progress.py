"""What happens while it happens, on stderr: a moving line on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from mcdoctor.check import Check
from mcdoctor.models.playbook import Language
from mcdoctor.models.report import Report
from mcdoctor.reports.clean import line
from mcdoctor.reports.words import say

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text


class Told(Protocol):
    """What a run tells of itself. `state`: started, probed, late (of a check) or provisional (with a report)."""

    @property
    def check(self) -> Check | None: ...
    @property
    def state(self) -> str: ...
    @property
    def report(self) -> Report | None: ...


class Progress:
    """Shows what a run tells. The moving line is gone when the run ends; plain lines stay."""

    def __init__(self, *, language: Language = "en", quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._language = language
        self._quiet = quiet
        self._running: dict[str, None] = {}
        self._done = 0
        self._suspected = ""
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        if not self._quiet and self._stream.isatty():
            from rich.console import Console

            self._status = Console(file=self._stream, highlight=False).status(self._text(), spinner="dots")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def tell(self, event: Told) -> None:
        """Takes one event of the run."""
        if self._quiet:
            return
        if event.check is not None and event.state == "started":
            self._running[event.check.id] = None
        elif event.check is not None:
            self._done += self._running.pop(event.check.id, "") is None
            if event.state == "late":
                self._line(say("late", self._language, check=event.check.id))
        if event.report is not None and event.report.diagnoses:
            self._suspect(event.report)
        if self._status is not None:
            self._status.update(self._text())

    def _suspect(self, report: Report) -> None:
        from mcdoctor.reports.view import View
        from mcdoctor_playbooks import load

        before, self._suspected = self._suspected, View(report, load(), self._language).headline
        if self._suspected != before:
            self._line(f"{say('so-far', self._language)}: {self._suspected}")

    def _line(self, text: str) -> None:
        if self._status is None:
            print(line(text), file=self._stream, flush=True)

    def _text(self) -> Text:
        from rich.text import Text

        parts = [f"{say('running', self._language)} {', '.join(list(self._running)[:3])}", f"✓ {self._done}"]
        if self._suspected:
            parts.append(f"{say('so-far', self._language)}: {self._suspected}")
        # as Text: a string would be read as markup
        return Text(line("  ".join(parts)), no_wrap=True, overflow="ellipsis")
