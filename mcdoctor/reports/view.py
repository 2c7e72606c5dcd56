"""What every renderer shows, put into sentences once: headline, hops, causes, table rows, checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcdoctor.diagnosis import END_TO_END, beside, unexplained
from mcdoctor.models.facts import Absent, EndpointAnswer, Fact, KubeObject, Listed
from mcdoctor.models.flow import Flow
from mcdoctor.models.ids import Certainty, Hop, Severity, Symptom, Verdict
from mcdoctor.models.outcome import Finding, Passed, Skipped, Unknown, findings, word
from mcdoctor.models.playbook import Language, Library, Remedy, Text
from mcdoctor.models.report import Diagnosis, Limit, Ran, Report
from mcdoctor.reports.clean import Slots, command, fill, fill_lines, line, open_slots, unfilled, without_empty_remarks
from mcdoctor.reports.describe import describe, place
from mcdoctor.reports.korean import TITLES, in_korean
from mcdoctor.reports.words import ENDINGS, HOPS, VERDICTS, WANTED, say

ROOM_HOPS: Mapping[str, tuple[Hop, ...]] = {
    "dns": (Hop.SOURCE_DNS,),
    "endpoints": (Hop.DEST_SERVICE, Hop.DEST_ENDPOINT),
    "netpol": (Hop.SOURCE_EGRESS_POLICY, Hop.DEST_INGRESS_POLICY),
    "tcp": (Hop.NETWORK,),
    "mtu": (Hop.NETWORK,),
    "tls": (Hop.DEST_POD,),
}
"""Which hops a room's checks look at; the request itself looks at all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HopLine:
    """One hop of the path. `state`: an outcome word, `unseen`, or `follows` where only consequences were found.

    `sign` marks the hop at fault.
    """

    hop: Hop
    name: str
    state: str
    label: str
    sign: str = ""
    saying: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table: symptom, cause, how to confirm, what to do."""

    symptom: str
    cause: str
    certainty: Certainty | None
    confirm: str
    act: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """A report in one language."""

    report: Report
    library: Library
    language: Language

    # --- slots and sentences ---

    @property
    def slots(self) -> dict[str, str | int | float]:
        """What the flow fills in."""
        return flow_slots(self.report.flow)

    def sentence(self, finding: Finding) -> str:
        return sentence(finding, self.report.flow, self.library, self.language)

    def finding_name(self, name: str) -> str:
        """A finding that was not made: what to look for, else its sentence without what only it could fill in."""
        text = self.library.findings.get(name)
        if text is None:
            return name
        return open_slots(fill((text.wanted or text.text).in_language(self.language), self.slots))

    def cause_slots(self, diagnosis: Diagnosis) -> Slots:
        """The flow's values, then those of the findings, the proof first; `subject` is the object at fault."""
        slots = self.slots
        for finding in (*diagnosis.explained, *reversed(diagnosis.supporting), *reversed(diagnosis.proof)):
            slots.update({k: v for k, v in finding.args.items() if v != ""})
        slots["subject"] = diagnosis.object
        return slots

    def summary(self, diagnosis: Diagnosis) -> str:
        return self._filled(diagnosis.cause.summary, diagnosis)

    def confirm(self, diagnosis: Diagnosis) -> str:
        return self._filled(diagnosis.cause.confirm, diagnosis)

    def _filled(self, text: Text, diagnosis: Diagnosis) -> str:
        return without_empty_remarks(fill(text.in_language(self.language), self.cause_slots(diagnosis)))

    def remedy(self, remedy: Remedy, diagnosis: Diagnosis) -> tuple[str, tuple[str, ...], str | None]:
        """Text, commands and manifest; a manifest that cannot be filled is left out."""
        slots = self.cause_slots(diagnosis)
        manifest = remedy.object
        if manifest is not None and unfilled(manifest, slots):
            manifest = None
        return (
            self._filled(remedy.text, diagnosis),
            tuple(command(c, slots) for c in remedy.commands),
            None if manifest is None else fill_lines(manifest, slots),
        )

    def evidence(self, finding: Finding) -> tuple[str, ...]:
        """The facts behind a finding, one line each, the same line once."""
        return tuple(dict.fromkeys(self.fact(f) for f in finding.evidence))

    def fact(self, fact: Fact) -> str:
        """The fact and who saw it from where; the source pod by that name. What was read says its cluster itself."""
        if isinstance(fact, (KubeObject, EndpointAnswer, Listed, Absent)):
            return describe(fact, self.language)
        pod, vantage = self.report.flow.source_pod, fact.vantage
        own = pod is not None and (pod.cluster, pod.namespace, pod.name) == (
            vantage.cluster, vantage.namespace, vantage.pod,
        )  # fmt: skip
        seen = say("source-pod", self.language) if own else place(vantage, self.language)
        return f"{describe(fact, self.language)} [{seen}]"

    # --- parts of the report ---

    @property
    def verdict(self) -> str:
        return VERDICTS[self.report.verdict].in_language(self.language)

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        report, language = self.report, self.language
        slots = {k: line(v) for k, v in self.slots.items()}
        ends = {"source": slots["source"], "destination": slots["destination"]}
        near = beside(report.ran, report.flow)
        if near is not None and report.verdict in (Verdict.HEALTHY, Verdict.INCONCLUSIVE) and not report.interrupted:
            key = "works-beside" if report.verdict is Verdict.HEALTHY else "works-beside-only"
            return say(key, language, **ends, place=place(near, language))
        if report.verdict is Verdict.HEALTHY:
            warnings = sum(f.severity is Severity.WARNING for r in report.ran for f in findings(r.outcome))
            return say("works-with-warnings" if warnings else "works", language, **ends, count=warnings)
        if report.verdict is Verdict.INCONCLUSIVE:
            reason = self._why_not_settled()
            return say("not-settled" if reason else "nothing-sent", language, **ends, reason=reason)
        errors = unexplained(report)
        if self.answer is None:
            first = min(errors, key=lambda f: f.hop.position, default=None)
            told = self.sentence(first) if first else ""
            return told + say("no-known-cause", language)
        if self.answer.certainty is not Certainty.POSSIBLE:
            return self.summary(self.answer)
        if len(self.rivals) < 2:
            return say("most-likely", language) + self.summary(self.answer)
        seen = max(self.answer.supporting, key=lambda f: (f.severity is Severity.ERROR, -f.hop.position))
        names = ", ".join(d.cause.id for d in self.rivals[:4])
        return say("cannot-part", language, seen=self.sentence(seen), causes=names)

    @property
    def answer(self) -> Diagnosis | None:
        """The cause on rank 1, where it is a cause of what makes the verdict."""
        first = next(iter(self.report.diagnoses), None)
        if first is None:
            return None
        about = (*first.supporting, *first.explained, *first.proof)
        errors = any(f.severity is Severity.ERROR for r in self.report.ran for f in findings(r.outcome))
        return first if not errors or any(f.severity is Severity.ERROR for f in about) else None

    @property
    def wrong(self) -> bool:
        """Something is wrong, not merely worth a look or unseen."""
        return self.report.verdict in (Verdict.BROKEN, Verdict.DEGRADED)

    def heading(self, diagnosis: Diagnosis) -> str:
        """What a cause is called: the root cause, the most likely one, or something worth a look."""
        if not self.wrong:
            return say("worth-a-look", self.language)
        if diagnosis is not self.answer:
            return say("cause", self.language)
        return say("root-cause" if self.certain else "likely-cause", self.language)

    @property
    def rivals(self) -> tuple[Diagnosis, ...]:
        """The possible causes that rest on the very evidence that the first one rests on, that one included."""
        answer = self.answer
        if answer is None or answer.certainty is not Certainty.POSSIBLE:
            return ()
        ids = {f.id for f in answer.supporting}
        return tuple(
            d
            for d in self.report.diagnoses
            if d.certainty is Certainty.POSSIBLE and {f.id for f in d.supporting} == ids
        )

    def _why_not_settled(self) -> str:
        if self.report.interrupted:
            return say("interrupted-early", self.language)
        outcome = next((r.outcome for r in self.report.ran if r.id == END_TO_END), None)
        return self.reason(outcome.reason) if isinstance(outcome, Unknown) else ""

    def reason(self, reason: str) -> str:
        """Why something is not known, in the language as far as it is in the phrase book."""
        return line(in_korean(reason) if self.language == "ko" else reason)

    def title(self, run: Ran) -> str:
        """What a check makes sure of."""
        return line(TITLES.get(run.id, run.title) if self.language == "ko" else run.title)

    def wanted(self, limit: Limit) -> str:
        """What could not be seen, kinds of facts in words."""
        kinds, colon, about = limit.what.partition(": ")
        words = [WANTED[k].in_language(self.language) if k in WANTED else k for k in kinds.split(", ")]
        return line(", ".join(words) + colon + about)

    @property
    def unexplained(self) -> tuple[Finding, ...]:
        return unexplained(self.report)

    @property
    def hops(self) -> tuple[HopLine, ...]:
        """The path, source first, only the hops that this pair has or that something was found at."""
        report = self.report
        by_hop: dict[Hop, list[Finding]] = {}
        for r in report.ran:
            for finding in findings(r.outcome):
                if finding.severity is not Severity.NOTE:
                    by_hop.setdefault(finding.hop, []).append(finding)
        at_fault = {self.answer.hop, *(d.hop for d in self.rivals)} if self.answer else set()
        if not self.wrong:
            at_fault = set()
        follows = [f for d in report.diagnoses if d.certainty is not Certainty.POSSIBLE for f in d.explained]
        lines = []
        for hop in Hop:
            label = hop_label(hop, report.flow, self.language)
            there = by_hop.get(hop, [])
            if label is None and not there and hop not in at_fault and not _looked_at(hop, report.ran):
                continue
            there.sort(key=lambda f: (f.severity is not Severity.ERROR, f in follows))
            state = _state(hop, there, report.ran)
            if there and all(f in follows for f in there) and hop not in at_fault:
                state = "follows"
            lines.append(
                HopLine(
                    hop=hop,
                    name=HOPS[hop].in_language(self.language),
                    state="failed" if hop in at_fault and self.certain else state,
                    label=label or "",
                    sign=self._sign() if hop in at_fault else "",
                    saying=self._saying(hop, there, follows) if hop in at_fault else self._first(there),
                )
            )
        return tuple(lines)

    def _first(self, there: Sequence[Finding]) -> str:
        return self.sentence(there[0]) if there else ""

    def _saying(self, hop: Hop, there: Sequence[Finding], follows: Sequence[Finding]) -> str:
        """At the hop at fault: what the cause rests on there, rather than what merely follows from it."""
        answer = self.answer
        if answer is None or not self.certain or any(f not in follows for f in there):
            return self._first(there)
        own = next((f for f in (*answer.supporting, *answer.proof) if f.hop is hop), None)
        return self.sentence(own) if own else self.summary(answer)

    @property
    def certain(self) -> bool:
        return self.answer is not None and self.answer.certainty is not Certainty.POSSIBLE

    def _sign(self) -> str:
        if not self.certain:
            return say("suspected", self.language)
        return say("here" if self.report.verdict is Verdict.BROKEN else "fault-here", self.language)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The table: each symptom with its causes, best first."""
        report = self.report
        symptoms = report.symptoms or tuple(dict.fromkeys(s for d in report.diagnoses for s in d.cause.symptoms[:1]))
        left = list(report.diagnoses)
        rows: list[Row] = []
        for symptom in symptoms:
            mine = [d for d in left if _is_about(d, symptom)]
            if not mine and any(_is_about(d, symptom) for d in report.diagnoses):
                continue  # its cause stands with an earlier symptom
            left = [d for d in left if d not in mine]
            rows += [self._row(symptom, d) for d in mine] or [self._empty_row(symptom)]
        return (*rows, *(self._row(next(iter(d.cause.symptoms), None), d) for d in left))

    def _row(self, symptom: Symptom | None, diagnosis: Diagnosis) -> Row:
        acts = tuple(self.remedy(r, diagnosis)[0] for r in diagnosis.remedies)
        return Row(
            symptom=self.symptom(symptom) if symptom else "",
            cause=diagnosis.cause.id,
            certainty=diagnosis.certainty,
            confirm=self.confirm(diagnosis),
            act=acts,
        )

    def _empty_row(self, symptom: Symptom) -> Row:
        seen = any(f.symptom is symptom for r in self.report.ran for f in findings(r.outcome))
        book = self.library.playbooks.get(symptom)
        look = fill(book.look.in_language(self.language), self.slots) if book else ""
        said = say("no-cause-matched" if seen else "not-seen-now", self.language)
        return Row(symptom=self.symptom(symptom), cause=said, certainty=None, confirm=look)

    def symptom(self, symptom: Symptom) -> str:
        book = self.library.playbooks.get(symptom)
        return book.title.in_language(self.language) if book else symptom.value

    def check_lines(self, run: Ran) -> tuple[str, ...]:
        """What a check has to say: its findings, or why it has none."""
        outcome = run.outcome
        if isinstance(outcome, Unknown):
            return (self.reason(outcome.reason),)
        if isinstance(outcome, Skipped):
            waits = say("after", self.language, check=outcome.blocked_by) if outcome.blocked_by else ""
            reason = self.reason(outcome.reason)
            return (f"{reason} ({line(waits)})" if waits else reason,)
        if isinstance(outcome, Passed):
            return (self.title(run),)
        shown = [f for f in outcome.findings if f.severity is not Severity.NOTE]
        return tuple(dict.fromkeys(self.sentence(f) for f in shown))


def _is_about(diagnosis: Diagnosis, symptom: Symptom) -> bool:
    """True when the cause is known for the symptom, or rests on a finding of it here."""
    found = (*diagnosis.supporting, *diagnosis.explained)
    return symptom in diagnosis.cause.symptoms or any(f.symptom is symptom for f in found)


def sentence(finding: Finding, flow: Flow, library: Library, language: Language) -> str:
    """The sentence of a finding in the language; without one, its id and subject."""
    text = library.findings.get(finding.id)
    if text is None:
        return line(f"{finding.id}: {finding.subject}" if finding.subject else finding.id)
    slots = {**flow_slots(flow), "subject": finding.subject, **finding.args}
    if language == "ko":  # a judge that words a value itself gives both languages
        slots |= {name.removesuffix("_ko"): value for name, value in finding.args.items() if name.endswith("_ko")}
    if (how := slots.get("how")) in ENDINGS:
        slots["how"] = ENDINGS[str(how)].in_language(language)
    return fill(text.text.in_language(language), slots)


def flow_slots(flow: Flow) -> dict[str, str | int | float]:
    """The slots that every text may use."""
    source = flow.source
    return {
        "source": str(source) if source else flow.source_text,
        "destination": flow.destination or flow.destination_text,
        "host": flow.host or flow.address or flow.name or flow.destination_text,
        "port": flow.port if flow.port is not None else "",
        "namespace": flow.namespace,
        "source_cluster": flow.source_cluster,
        "destination_cluster": flow.destination_cluster or flow.source_cluster,
        "subject": flow.destination or flow.destination_text,
    }


def hop_label(hop: Hop, flow: Flow, language: Language) -> str | None:
    """What stands at this hop for this pair; None when nothing is known to stand there."""

    def where(what: str, cluster: str) -> str:
        return say("in", language, what=line(what), cluster=line(cluster)) if cluster else line(what)

    pod, service = flow.source_pod, flow.remote or flow.local
    match hop:
        case Hop.SOURCE_POD:
            return where(str(pod or flow.source or flow.source_text), flow.source_cluster)
        case Hop.SOURCE_DNS:
            return line(flow.host) if flow.host else None
        case Hop.SOURCE_PROXY:
            return line(pod.proxy) if pod and pod.proxy else None
        case Hop.NETWORK:
            # the clusters' own names say more than "network" does
            stack = " + ".join(dict.fromkeys(f"{x.system} {x.mode or ''}".strip() for x in flow.interconnect))
            ends = f"{flow.source_cluster} → {flow.destination_cluster}" if flow.crosses_clusters else ""
            return line(f"{ends} ({stack})" if ends and stack else ends or stack)
        case Hop.DEST_GATEWAY:
            gates = [f"{r.address}:{r.port}" for r in flow.rungs if r.label == "gateway" and r.address]
            return line(", ".join(gates)) if gates else None
        case Hop.DEST_SERVICE:
            if service is None:
                return None
            port = f":{service.port}" if service.port is not None else ""
            return where(f"{service}{port}", service.cluster)
        case Hop.DEST_ENDPOINT:
            if not flow.backends:
                return None
            ready = [b for b in flow.backends if b.ready]
            count = say("ready-of", language, ready=len(ready), total=len(flow.backends))
            shown = ", ".join(f"{b.address}:{b.port}" for b in flow.backends[:3])
            return f"{count}: {line(shown)}"
        case Hop.DEST_POD:
            pods = list(dict.fromkeys(b.pod for b in flow.backends if b.pod))
            rest = f" (+{len(pods) - 2})" if len(pods) > 2 else ""
            return where(", ".join(pods[:2]) + rest, flow.destination_cluster) if pods else None
        case _:
            return None


def _looked_at(hop: Hop, ran: Sequence[Ran]) -> bool:
    """A room that looks at policies only makes its hops worth a line when it came to a result."""
    return any(
        hop in ROOM_HOPS.get(r.id.partition("-")[0], ()) and word(r.outcome) in ("passed", "unknown") for r in ran
    )


def _state(hop: Hop, there: Sequence[Finding], ran: Sequence[Ran]) -> str:
    if there:
        return "failed" if there[0].severity is Severity.ERROR else "warned"
    if any(r.id == END_TO_END and isinstance(r.outcome, Passed) for r in ran):
        return "passed"
    words = {word(r.outcome) for r in ran if hop in ROOM_HOPS.get(r.id.partition("-")[0], ())}
    if "passed" in words and not words & {"unknown", "failed"}:
        return "passed"
    return "unknown" if "unknown" in words else "unseen"
