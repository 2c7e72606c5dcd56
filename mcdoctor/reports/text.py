"""The report for a terminal: the answer first, then the path, then why, then what to do, then everything else."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from textwrap import wrap

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mcdoctor.models.ids import Severity, Verdict
from mcdoctor.models.outcome import Finding, word
from mcdoctor.models.playbook import Language, Library
from mcdoctor.models.report import Diagnosis, Report
from mcdoctor.reports.clean import line, lines
from mcdoctor.reports.view import HopLine, Row, View
from mcdoctor.reports.words import CERTAINTIES, MARKS, OUTCOMES, RISKS, say

STYLES = {"passed": "green", "failed": "bold red", "warned": "yellow", "unknown": "magenta", "skipped": "dim"}
CAUSE_WIDTH = 20  # columns; ids break at their hyphens
NARROWEST = 50
TABLE_WIDTH = 76  # below it the table becomes a list
VERDICT_STYLES = {
    Verdict.HEALTHY: "bold green",
    Verdict.DEGRADED: "bold yellow",
    Verdict.BROKEN: "bold red",
    Verdict.INCONCLUSIVE: "bold magenta",
}
SEVERITY_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: ""}


def render(
    report: Report,
    library: Library,
    language: Language = "en",
    *,
    color: bool = False,
    width: int = 80,
    verbose: bool = False,
) -> str:
    """Text of at most `width` columns (50 at least); without `color` there is no escape sequence in it."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(width, NARROWEST),
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in _parts(View(report, library, language), verbose, narrow=console.width < TABLE_WIDTH):
        console.print(part, crop=False, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))
    plain = (row.rstrip() if not color else row for row in out.getvalue().splitlines())
    return "\n".join(plain) + "\n"


def _parts(view: View, verbose: bool, narrow: bool) -> Iterable[RenderableType]:
    yield from _head(view)
    yield from _path(view)
    for diagnosis in view.report.diagnoses:
        if diagnosis.rank == 1:
            yield from _answer(view, diagnosis, verbose)
    yield from _others(view)
    if view.unexplained:
        yield _title(say("unexplained", view.language))
        yield from _findings(view, view.unexplained)
    if view.rows:
        yield from _table(view, narrow)
    yield from _checks(view, verbose)
    yield from _limits(view)
    if verbose and view.report.facts:
        yield _title(say("facts", view.language))
        yield from (_item("·", view.fact(f)) for f in view.report.facts)


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _item(mark: str, text: str, *, indent: int = 2, style: str = "", mark_style: str = "") -> RenderableType:
    """A mark and a text whose further lines hang under its first."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark, style=mark_style or style), Text(line(text), style=style))
    return Padding(grid, (0, 0, 0, indent))


def _head(view: View) -> Iterable[RenderableType]:
    report, flow = view.report, view.report.flow
    # further lines hang under the first: no text of a cluster ever stands where the verdict stands
    yield _item(f"{view.verdict}:", view.headline, indent=0, mark_style=VERDICT_STYLES[report.verdict])
    facts = [line(f"{flow.source_text} → {flow.destination_text}"), line(report.means)]
    if report.seconds:
        facts.append(say("took", view.language, seconds=f"{report.seconds:.1f}"))
    yield Padding(Text(" · ".join(f for f in facts if f), style="dim"), (0, 0, 0, 2))
    if report.interrupted:
        yield Text(say("interrupted", view.language), style="bold yellow")


def _path(view: View) -> Iterable[RenderableType]:
    hops = view.hops
    if not hops:
        return
    yield _title(say("path", view.language))
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for hop in hops:
        style = STYLES.get(hop.state, "dim")
        grid.add_row(Text(MARKS[hop.state], style=style), Text(hop.name, style=style), _hop(hop))
    yield Padding(grid, (0, 0, 0, 2))


def _hop(hop: HopLine) -> RenderableType:
    label = Text(hop.label)
    if hop.sign:
        label.append(" " if hop.label else "").append(hop.sign, style="bold red")
    if not hop.saying:
        return label
    saying = Text(hop.saying, style=STYLES.get(hop.state, ""))
    return Group(label, saying) if label.plain else saying


def _answer(view: View, diagnosis: Diagnosis, verbose: bool) -> Iterable[RenderableType]:
    language = view.language
    title = _title(view.heading(diagnosis))
    title.append(f": {diagnosis.cause.id}", style="bold")
    title.append(f" ({CERTAINTIES[diagnosis.certainty].in_language(language)})", style="not bold")
    yield title
    yield Padding(Text(view.summary(diagnosis)), (0, 0, 0, 2))
    yield Padding(Text(f"{say('object', language)}: {line(diagnosis.object)}"), (0, 0, 0, 2))
    for key, found in (
        ("evidence", diagnosis.supporting),
        ("proof", diagnosis.proof),
        ("against", diagnosis.against),
        ("explains", diagnosis.explained),
    ):
        if found:
            yield Padding(Text(say(key, language), style="bold"), (0, 0, 0, 2))
            yield from _findings(view, found, indent=4, facts=verbose or key != "explains")
    if diagnosis.missing:
        yield Padding(Text(say("missing", language), style="bold"), (0, 0, 0, 2))
        yield from (_item("?", view.finding_name(i), indent=4) for i in diagnosis.missing)
        yield _item("→", view.confirm(diagnosis), indent=4)
    yield from _remedies(view, diagnosis)


def _findings(view: View, found: Sequence[Finding], indent: int = 2, *, facts: bool = True) -> Iterable[RenderableType]:
    shown: set[str] = set()
    for finding in found:
        sentence = view.sentence(finding)
        if sentence not in shown:
            shown.add(sentence)
            yield _item("-", sentence, indent=indent, style=SEVERITY_STYLES[finding.severity])
        told = view.evidence(finding) if facts else ()
        yield from (_item("·", fact, indent=indent + 2, style="dim") for fact in told[:3])
        if len(told) > 3:
            yield _item("·", say("more", view.language, count=len(told) - 3), indent=indent + 2, style="dim")


def _remedies(view: View, diagnosis: Diagnosis) -> Iterable[RenderableType]:
    if not diagnosis.remedies:
        return
    language = view.language
    yield Padding(Text(say("remedy", language), style="bold"), (0, 0, 0, 2))
    for number, remedy in enumerate(diagnosis.remedies, 1):
        text, commands, manifest = view.remedy(remedy, diagnosis)
        risk = RISKS[remedy.risk].in_language(language)
        yield _item(f"{number}.", f"{text} ({risk})", indent=4)
        for command in commands:
            # never wrapped: a command must survive copy and paste
            yield Text(f"       $ {command}", style="cyan", no_wrap=True, overflow="ignore")
        if manifest:
            yield Text(
                "\n".join(f"       {row}" for row in lines(manifest).rstrip().split("\n")),
                no_wrap=True,
                overflow="ignore",
            )


def _others(view: View) -> Iterable[RenderableType]:
    others = [d for d in view.report.diagnoses if d.rank > 1]
    if not others:
        return
    language = view.language
    yield _title(say("others", language))
    for other in others[:5]:
        certainty = CERTAINTIES[other.certainty].in_language(language)
        yield _item(f"{other.rank}.", f"{other.cause.id} ({certainty}): {view.summary(other)}")
        yield from (
            _item("!", f"{say('against', language)}: {view.sentence(f)}", indent=5, style="dim") for f in other.against
        )
        if other.missing:
            wanted = "; ".join(view.finding_name(i) for i in other.missing)
            yield _item("?", f"{say('missing', language)}: {wanted}", indent=5, style="dim")
    if len(others) > 5:
        yield _item("·", say("more", language, count=len(others) - 5))


def _table(view: View, narrow: bool) -> Iterable[RenderableType]:
    language = view.language
    yield _title(say("table", language))
    last = ""
    if narrow:
        for row in view.rows[:8]:
            certainty = f" ({CERTAINTIES[row.certainty].in_language(language)})" if row.certainty else ""
            if row.symptom != last:
                yield _item("-", row.symptom)
            last = row.symptom
            yield _item("·", f"{row.cause}{certainty}: {row.confirm}", indent=4)
            yield from (_item("→", act, indent=6) for act in row.act)
        return
    table = Table(show_lines=True, expand=True, padding=(0, 1), header_style="bold")
    table.add_column(say("symptom", language), width=16, overflow="fold")
    table.add_column(say("cause", language), width=CAUSE_WIDTH, overflow="fold")
    table.add_column(say("confirm-act", language), ratio=1, overflow="fold")
    for row in view.rows[:8]:
        table.add_row(Text(line(row.symptom) if row.symptom != last else ""), _cause_cell(view, row), _act_cell(row))
        last = row.symptom
    yield table


def _cause_cell(view: View, row: Row) -> Text:
    text = Text("\n".join(wrap(line(row.cause), CAUSE_WIDTH)))
    if row.certainty:
        text.append(f"\n({CERTAINTIES[row.certainty].in_language(view.language)})", style="dim")
    return text


def _act_cell(row: Row) -> Text:
    text = Text(line(row.confirm))
    for act in row.act:
        text.append(f"\n→ {line(act)}")
    return text


def _checks(view: View, verbose: bool) -> Iterable[RenderableType]:
    language, ran = view.language, view.report.ran
    if not ran:
        return
    words = [word(r.outcome) for r in ran]
    title = _title(say("checks", language))
    title.append(":", style="not bold")
    for state, text in OUTCOMES.items():
        count = words.count(state)
        title.append(f" {MARKS[state]} ", style=STYLES[state] if count else "dim")
        title.append(f"{count} {text.in_language(language)}", style="not bold" if count else "not bold dim")
    yield title
    for state in ("failed", "warned", "unknown", "passed", "skipped"):
        runs = [r for r in ran if word(r.outcome) == state]
        if runs and state in ("passed", "skipped") and not verbose:
            rooms = Counter(r.id.partition("-")[0] for r in runs)
            told = ", ".join(f"{room} {count}" for room, count in sorted(rooms.items()))
            yield _item(MARKS[state], f"{told} {say('by-name', language)}", mark_style=STYLES[state])
            continue
        for run in runs:
            said = view.check_lines(run)
            yield _item(MARKS[state], f"{run.id}: {said[0]}" if said else run.id, mark_style=STYLES[state])
            yield from (_item(" ", more, indent=4) for more in said[1:])


def _limits(view: View) -> Iterable[RenderableType]:
    language = view.language
    told = {r.id for r in view.report.ran}  # an unknown check's reason stands with the checks already
    limits = [x for x in view.report.limits if x.command or x.permission or not told.issuperset(x.what.split(", "))]
    if not limits:
        return
    yield _title(say("limits", language))
    for limit in limits:
        needs = f" ({say('needs', language)}: {limit.permission})" if limit.permission else ""
        yield _item("?", f"{view.wanted(limit)}: {view.reason(limit.reason)}{needs}", mark_style="magenta")
        if limit.command:
            yield Text(f"      $ {line(limit.command)}", style="cyan", no_wrap=True, overflow="ignore")
