"""The report as Markdown, for a ticket or a chat: nothing in it is taken as markup."""

from __future__ import annotations

from collections.abc import Iterable

from mcdoctor.models.outcome import Finding, word
from mcdoctor.models.playbook import Language, Library
from mcdoctor.models.report import Diagnosis, Report
from mcdoctor.reports.clean import code, fence, line, markdown
from mcdoctor.reports.view import View
from mcdoctor.reports.words import CERTAINTIES, MARKS, OUTCOMES, RISKS, say


def render(report: Report, library: Library, language: Language = "en", *, verbose: bool = False) -> str:
    """GitHub-flavoured Markdown with a line break at its end."""
    view = View(report, library, language)
    flow = report.flow
    out = [f"# {markdown(view.verdict)}: {markdown(view.headline)}", ""]
    out += [f"{code(flow.source_text)} → {code(flow.destination_text)} · {markdown(report.means)}", ""]
    if report.interrupted:
        out += [f"**{markdown(say('interrupted', language))}**", ""]
    out += [f"## {say('path', language)}", ""]
    for hop in view.hops:
        sign = f" **{markdown(hop.sign)}**" if hop.sign else ""
        saying = f" — {markdown(hop.saying)}" if hop.saying else ""
        out.append(f"- {MARKS[hop.state]} **{markdown(hop.name)}** {markdown(hop.label)}{sign}{saying}")
    for diagnosis in report.diagnoses:
        out += ["", *_diagnosis(view, diagnosis)]
    if view.unexplained:
        out += ["", f"## {say('unexplained', language)}", "", *_findings(view, view.unexplained)]
    if view.rows:
        out += ["", *_table(view)]
    out += ["", f"## {say('checks', language)}", ""]
    for run in report.ran:
        state = word(run.outcome)
        said = "; ".join(view.check_lines(run))
        out.append(f"- {MARKS[state]} {code(run.id)} {OUTCOMES[state].in_language(language)}: {markdown(said)}")
    if report.limits:
        out += ["", f"## {say('limits', language)}", ""]
        for limit in report.limits:
            needs = f" ({say('needs', language)}: {code(limit.permission)})" if limit.permission else ""
            out.append(f"- {markdown(view.wanted(limit))}: {markdown(view.reason(limit.reason))}{needs}")
            if limit.command:
                out.append(f"  - {code(limit.command)}")
    if verbose and report.facts:
        out += ["", f"## {say('facts', language)}", "", *(f"- {markdown(view.fact(f))}" for f in report.facts)]
    return "\n".join(out) + "\n"


def _diagnosis(view: View, diagnosis: Diagnosis) -> Iterable[str]:
    language, cause = view.language, diagnosis.cause
    certainty = CERTAINTIES[diagnosis.certainty].in_language(language)
    yield f"## {view.heading(diagnosis)}: {code(cause.id)} ({certainty})"
    yield ""
    yield markdown(view.summary(diagnosis))
    yield ""
    yield f"- {say('object', language)}: {markdown(diagnosis.object)}"
    for key, found in (
        ("evidence", diagnosis.supporting),
        ("proof", diagnosis.proof),
        ("explains", diagnosis.explained),
        ("against", diagnosis.against),
    ):
        if found:
            yield f"- {say(key, language)}:"
            yield from (f"  {x}" for x in _findings(view, found))
    if diagnosis.missing:
        yield f"- {say('missing', language)}: " + "; ".join(markdown(view.finding_name(i)) for i in diagnosis.missing)
    yield f"- {say('confirm', language)}: {markdown(view.confirm(diagnosis))}"
    for number, remedy in enumerate(diagnosis.remedies, 1):
        text, commands, manifest = view.remedy(remedy, diagnosis)
        yield ""
        yield f"**{say('remedy', language)} {number}** ({RISKS[remedy.risk].in_language(language)}): {markdown(text)}"
        if commands:
            yield ""
            yield fence("\n".join(commands))
        if manifest:
            yield ""
            yield fence(manifest)


def _findings(view: View, found: Iterable[Finding]) -> Iterable[str]:
    for finding in found:
        yield f"- {markdown(view.sentence(finding))}"
        yield from (f"  - {code(fact)}" for fact in view.evidence(finding))


def _table(view: View) -> Iterable[str]:
    language = view.language
    yield f"| {say('symptom', language)} | {say('cause', language)} | {say('confirm-act', language)} |"
    yield "|---|---|---|"
    shown = ""
    for row in view.rows:
        symptom = "" if row.symptom == shown else row.symptom
        shown = row.symptom
        certainty = f" ({CERTAINTIES[row.certainty].in_language(language)})" if row.certainty else ""
        cause = code(row.cause, table=True) if row.certainty else markdown(row.cause)
        act = "<br>".join(f"→ {markdown(a)}" for a in row.act)
        last = "<br>".join(x for x in (markdown(line(row.confirm)), act) if x)
        yield f"| {markdown(symptom)} | {cause}{certainty} | {last} |"
