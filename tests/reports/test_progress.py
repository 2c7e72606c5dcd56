"""Progress goes to stderr: silent, plain or moving, and never with anything hidden in it."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass

import pytest

from mcdoctor.check import Check
from mcdoctor.models.outcome import Passed
from mcdoctor.models.report import Report
from mcdoctor.reports.progress import Progress

CHECK = Check(id="tcp-one", title="one", judge=lambda _facts: Passed())


@dataclass(frozen=True)
class Event:
    check: Check | None
    state: str
    report: Report | None = None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(stream: io.StringIO, report: Report, *, quiet: bool = False, language: str = "en") -> str:
    with Progress(language=language, quiet=quiet, stream=stream) as told:
        told.tell(Event(CHECK, "started"))
        told.tell(Event(CHECK, "probed"))
        told.tell(Event(CHECK, "started"))
        told.tell(Event(CHECK, "late"))
        told.tell(Event(None, "provisional", report))
    return stream.getvalue()


def test_quiet_is_silent(samples: dict[str, Report]) -> None:
    assert tell(io.StringIO(), samples["black-hole"], quiet=True) == ""
    assert tell(Terminal(), samples["black-hole"], quiet=True) == ""


def test_plain_lines_where_there_is_no_terminal(samples: dict[str, Report]) -> None:
    late, suspected = tell(io.StringIO(), samples["black-hole"]).splitlines()
    assert late == "tcp-one did not end in time"
    assert suspected == (
        "so far: Packets over 1400 bytes vanish between cluster-a and cluster-b and nobody tells the sender."
    )


def test_nothing_is_suspected_without_a_diagnosis(samples: dict[str, Report]) -> None:
    assert tell(io.StringIO(), samples["healthy"]).splitlines() == ["tcp-one did not end in time"]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_moving_line_on_a_terminal(
    language: str, samples: dict[str, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    hostile = dataclasses.replace(samples["hostile"], diagnoses=samples["hostile"].diagnoses)
    shown = tell(Terminal(), hostile, language=language)
    assert "owned" not in shown
    assert "\x1b[2J" not in shown
    assert "\x1b[?25h" in shown  # the cursor is shown again
