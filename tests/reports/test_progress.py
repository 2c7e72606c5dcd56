"""Progress goes to stderr: silent, plain or moving, and never with anything hidden in it."""

from __future__ import annotations

import io

import pytest

from mcdoctor.models.ids import Hop
from mcdoctor.models.outcome import Failed, Finding, Outcome, Passed, Skipped, Unknown
from mcdoctor.models.report import Ran
from mcdoctor.reports.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ran(name: str, outcome: Outcome) -> Ran:
    return Ran(id=name, title=name, outcome=outcome)


def tell(stream: io.StringIO, **kw: bool) -> str:
    with progress(stream, "en", **kw) as told:
        told.phase("reading \x1b[2Jobjects")
        told.started("dns-one")
        told.ended(ran("dns-one", Passed()))
        told.started("tcp-one")
        told.ended(ran("tcp-one", Failed((Finding(id="a-b", hop=Hop.NETWORK, subject="x"),))))
        told.ended(ran("mtu-one", Unknown("blind")))
        told.ended(ran("tls-one", Skipped("why")))
        told.suspect("a firewall")
        told.suspect("a firewall")
    return stream.getvalue()


def test_quiet_is_silent() -> None:
    assert tell(io.StringIO(), quiet=True) == ""
    assert tell(Terminal(), quiet=True) == ""


def test_plain_lines_where_there_is_no_terminal() -> None:
    assert tell(io.StringIO()).splitlines() == [
        "reading objects",
        "✗ tcp-one: failed",
        "? mtu-one: unknown",
        "so far: a firewall",
    ]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_moving_line_on_a_terminal(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress(stream, language) as told:
        told.phase("reading \x1b]0;owned\x07objects")
        told.started("tcp-one")
        told.ended(ran("tcp-one", Passed()))
        told.suspect("a [red]firewall[/nothing]")
        told.phase("x")
    assert "owned" not in stream.getvalue()
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is shown again
