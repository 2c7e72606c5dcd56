"""A Report in, text out. `render` is the one entry point; renderers are imported when they are asked for."""

from __future__ import annotations

import os
import shutil
import sys

from mcdoctor.models.playbook import Language, Library
from mcdoctor.models.report import Report

NARROWEST = 50
FORMATS = ("text", "json", "yaml", "markdown")


def render(
    report: Report,
    format: str = "text",
    language: Language = "en",
    *,
    library: Library | None = None,
    color: bool | None = None,
    width: int | None = None,
    verbose: bool = False,
) -> str:
    """The report as text of the format; raises ValueError for a format that is none of FORMATS.

    `width` and `color` matter to the format text; None: those of the terminal that stdout is, plain 80 columns where
    it is none. `verbose`: the facts too.
    """
    if library is None:
        from mcdoctor_playbooks import load

        library = load()
    match format:
        case "text":
            from mcdoctor.reports import text

            columns = _columns() if width is None else width
            colored = _colored() if color is None else color
            return text.render(report, library, language, color=colored, width=columns, verbose=verbose)
        case "markdown":
            from mcdoctor.reports import markdown

            return markdown.render(report, library, language, verbose=verbose)
        case "json":
            from mcdoctor.reports import json

            return json.render(report, library, language)
        case "yaml":
            from mcdoctor.reports import yaml

            return yaml.render(report, library, language)
        case _:
            raise ValueError(f"{format!r} is none of {', '.join(FORMATS)}")


def _columns() -> int:
    """Of the terminal; wider than 120 columns is hard to read."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return 80
    return min(max(shutil.get_terminal_size((80, 24)).columns, NARROWEST), 120)


def _colored() -> bool:
    """On a terminal, unless NO_COLOR is set to anything (https://no-color.org) or the terminal is dumb."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
