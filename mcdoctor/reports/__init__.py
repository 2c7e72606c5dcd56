"""A Report in, text out. `render` is the one entry point; renderers are imported when they are asked for."""

from __future__ import annotations

from typing import Literal, assert_never, get_args

from mcdoctor.models.playbook import Language, Library
from mcdoctor.models.report import Report

Format = Literal["text", "json", "yaml", "markdown"]
FORMATS: tuple[str, ...] = get_args(Format)


def render(
    report: Report,
    format: Format = "text",
    language: Language = "en",
    *,
    library: Library | None = None,
    color: bool = False,
    width: int = 80,
    verbose: bool = False,
) -> str:
    """The report as text of the format; `color`, `width` and `verbose` (the facts too) matter to people's formats."""
    if library is None:
        from mcdoctor_playbooks import load

        library = load()
    match format:
        case "text":
            from mcdoctor.reports import text

            return text.render(report, library, language, color=color, width=width, verbose=verbose)
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
            assert_never(format)
