"""The report as YAML: the same document as JSON."""

from __future__ import annotations

from typing import Any

from mcdoctor.models.playbook import Language, Library
from mcdoctor.models.report import Report
from mcdoctor.reports.clean import lines
from mcdoctor.reports.json import document


def render(report: Report, library: Library, language: Language = "en") -> str:
    """One YAML document. Hidden characters are stripped: YAML has no escape for all of them in plain text."""
    import yaml

    class Plain(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # either has the same interface
        def ignore_aliases(self, data: Any) -> bool:
            return True

    text: str = yaml.dump(
        _clean(document(report, library, language)), Dumper=Plain, allow_unicode=True, sort_keys=False, width=120
    )
    return text


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return lines(value)
    if isinstance(value, dict):
        return {lines(k): _clean(v) for k, v in value.items()}
    return [_clean(v) for v in value] if isinstance(value, (list, tuple)) else value
