"""`explain`, `checks` and `playbooks`: what mcdoctor knows, from the registry and the library."""

from __future__ import annotations

import enum
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcdoctor.cli.errors import USAGE, fail

if TYPE_CHECKING:
    from mcdoctor.check import Check
    from mcdoctor.models.ids import Symptom
    from mcdoctor.models.playbook import Cause, Language, Library


class _Output(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


class _Language(enum.StrEnum):
    EN = "en"
    KO = "ko"


def _default_language() -> _Language:
    return _Language.KO if os.environ.get("MCDOCTOR_LANG", "").lower().startswith("ko") else _Language.EN


_DEFAULT_LANGUAGE = _default_language()
_Lang = Annotated[_Language, typer.Option("--lang", help="of the texts")]
_Out = Annotated[_Output, typer.Option("-o", "--output", help="of the list")]


def register(app: typer.Typer) -> None:
    """Adds the three commands."""

    @app.command()
    def explain(
        name: Annotated[
            str, typer.Argument(metavar="ID", help="of a check, finding, cause or symptom", show_default=False)
        ],
        lang: _Lang = _DEFAULT_LANGUAGE,
    ) -> None:
        """Explains an id: check, finding, cause."""
        _print_page(explain_page(name, lang.value))

    @app.command()
    def checks(output: _Out = _Output.TEXT) -> None:
        """Lists the checks."""
        from mcdoctor.runner.registry import load

        registry = load()
        for problem in registry.problems:
            print(f"warning: {problem}", file=sys.stderr)
        if output is _Output.JSON:
            _print_json([_check_entry(c) for c in registry.checks])
        else:
            widest = max((len(c.id) for c in registry.checks), default=0)
            for check in registry.checks:
                print(f"{check.id:{widest}}  {check.title}")

    @app.command()
    def playbooks(
        output: _Out = _Output.TEXT,
        lang: _Lang = _DEFAULT_LANGUAGE,
    ) -> None:
        """Lists symptoms with their causes."""
        from mcdoctor_playbooks import load

        library = load()
        if output is _Output.JSON:
            _print_json(_playbook_entries(library))
            return
        for symptom, book in library.playbooks.items():
            print(f"{symptom.value}: {book.title.in_language(lang.value)}")
            for name in book.causes:
                print(f"  {name}: {library.causes[name].summary.in_language(lang.value)}")


def explain_page(name: str, language: Language) -> str:
    """The page of an id, in Markdown. Ends the command when there is none such."""
    import difflib

    from mcdoctor.docsgen import check_page
    from mcdoctor.models.ids import Symptom
    from mcdoctor.runner.registry import load as load_checks
    from mcdoctor_playbooks import load as load_library

    library, checks = load_library(), load_checks().checks
    by_id = {c.id: c for c in checks}
    findings = {*library.findings, *(f for c in checks for f in c.findings)}
    if name in by_id:
        return check_page(by_id[name], library, language)
    if name in library.causes:
        return _cause_page(library.causes[name], library, language)
    if name in set(Symptom):
        return _symptom_page(Symptom(name), library, language)
    if name in findings:
        return _finding_page(name, library, checks, language)
    known = [*by_id, *library.causes, *Symptom, *findings]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "See them: mcdoctor checks, mcdoctor playbooks."
    return fail(f"{name!r} is no check, finding, cause or symptom", USAGE, hint)


def _print_page(text: str) -> None:
    """Markdown, laid out on a terminal, as it is into a pipe."""
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console(no_color=bool(os.environ.get("NO_COLOR"))).print(Markdown(text, hyperlinks=False))


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, ensure_ascii=False, indent=2))


def _symptom_page(symptom: Symptom, library: Library, language: Language) -> str:
    book = library.playbooks.get(symptom)
    if book is None:
        return f"# {symptom.value}\n\nThere is no playbook for this symptom."
    out = [f"# {symptom.value}: {book.title.in_language(language)}", "", book.look.in_language(language), ""]
    for number, name in enumerate(book.causes, 1):
        out.append(f"{number}. `{name}`: {library.causes[name].summary.in_language(language)}")
    return "\n".join(out)


def _finding_page(name: str, library: Library, checks: tuple[Check, ...], language: Language) -> str:
    from mcdoctor.reports.words import say

    text = library.findings.get(name)
    out = [f"# {name}", ""]
    if text is not None:
        out += [text.text.in_language(language), ""]
    seen = [c.id for c in checks if name in c.findings]
    uses: dict[str, list[str]] = {}
    for cause in library.causes.values():
        for key, ids in (
            ("evidence", cause.when_all + cause.when_any),
            ("proof", cause.proved_by),
            ("against", cause.against + cause.unless),
            ("missing", cause.wants),
            ("explains", cause.explains),
        ):
            if name in ids:
                uses.setdefault(key, []).append(f"`{cause.id}`")
    if seen:
        out.append(f"- {say('checks', language)}: {', '.join(f'`{i}`' for i in seen)}")
    out += [f"- {say(key, language)} → {', '.join(ids)}" for key, ids in uses.items()]
    return "\n".join(out)


def _cause_page(cause: Cause, library: Library, language: Language) -> str:
    from mcdoctor.reports.clean import fence
    from mcdoctor.reports.words import HOPS, RISKS, say

    def sentences(ids: tuple[str, ...]) -> list[str]:
        return [
            f"- `{i}`" + (f": {library.findings[i].text.in_language(language)}" if i in library.findings else "")
            for i in ids
        ]

    symptoms = ", ".join(f"`{s.value}`" for s in cause.symptoms)
    out = [f"# {cause.id}", "", cause.summary.in_language(language), ""]
    out += [f"- {HOPS[cause.hop].in_language(language)} (`{cause.hop.value}`), {cause.layer}"]
    out += [f"- {say('symptom', language)}: {symptoms}"] if symptoms else []
    for key, ids in (
        ("evidence", cause.when_all),
        ("evidence-any", cause.when_any),
        ("proof", cause.proved_by),
        ("missing", cause.wants),
        ("against", cause.against),
        ("ruled-out", cause.unless),
        ("explains", cause.explains),
    ):
        if ids:
            out += ["", f"## {say(key, language)}", "", *sentences(ids)]
    out += ["", f"## {say('confirm', language)}", "", cause.confirm.in_language(language)]
    if cause.remedies:
        out += ["", f"## {say('remedy', language)}", ""]
    for remedy in cause.remedies:
        out.append(f"- {remedy.text.in_language(language)} ({RISKS[remedy.risk].in_language(language)})")
        out += [fence("\n".join(remedy.commands))] if remedy.commands else []
        out += [fence(remedy.object)] if remedy.object else []
    if cause.refs:
        out += ["", *(f"- {ref}" for ref in cause.refs)]
    return "\n".join(out)


def _check_entry(check: Check) -> dict[str, Any]:
    return {
        "id": check.id,
        "title": check.title,
        "room": check.room,
        "needs": [k.KIND for k in check.needs],
        "uses": [k.KIND for k in check.uses],
        "gives": [k.KIND for k in check.gives],
        "findings": list(check.findings),
        "proves": list(check.proves),
        "probes": check.probe is not None,
        "timeoutSeconds": check.timeout,
    }


def _playbook_entries(library: Library) -> list[dict[str, Any]]:
    from mcdoctor.models.codec import encode

    return [
        {
            "symptom": symptom.value,
            "title": encode(book.title),
            "look": encode(book.look),
            "causes": [encode(library.causes[name]) for name in book.causes],
        }
        for symptom, book in library.playbooks.items()
    ]
