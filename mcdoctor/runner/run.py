"""One run: probes in the order of their facts, then every judge over all facts, diagnosis, proofs, report.

Judges see the whole set of facts, never a part of it, so a replay of the recording comes to the same outcomes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mcdoctor.check import Check, World
from mcdoctor.diagnosis import diagnose
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Absent, Blind, EndpointAnswer, Fact, KubeObject, Listed
from mcdoctor.models.flow import Flow
from mcdoctor.models.ids import Symptom
from mcdoctor.models.outcome import Failed, Outcome, Passed, Skipped, Unknown
from mcdoctor.models.playbook import Library
from mcdoctor.models.report import Ran, Report
from mcdoctor.models.vantage import Vantage
from mcdoctor.runner.plan import levels

_THREADS = 6
_ALWAYS: frozenset[type[Fact]] = frozenset({Blind, Absent, Listed, EndpointAnswer})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something to tell while a run goes on. `report` holds a provisional report where one is at hand."""

    check: Check | None
    state: str
    ms: float = 0.0
    facts: tuple[Fact, ...] = ()
    report: Report | None = None


Watcher = Callable[[Event], None]


def _silent(_event: Event) -> None:
    return


@dataclass(slots=True, kw_only=True)
class Run:
    """What a run needs and what it has gathered; `execute` fills it, `report` reads it at any time."""

    checks: Sequence[Check]
    library: Library
    world: World
    facts: list[Fact] = field(default_factory=list)
    complete: tuple[str, ...] = ()
    means: str = ""
    why_no_prober: str = ""
    watch: Watcher = _silent
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    interrupted: bool = False
    _clock: float = field(default_factory=time.monotonic)
    _took: dict[str, float] = field(default_factory=dict)

    def execute(self) -> Report:
        """Runs all probes, judges, diagnoses, tries the proofs, and reports."""
        ordinary = [c for c in self.checks if not c.proves]
        for level in levels(ordinary):
            if self._probe(level):
                self.watch(Event(check=None, state="provisional", report=self.report()))
        report = self.report()
        if self.world.prober is not None and not self.world.stopped.is_set():
            wanted = {d.cause.id for d in report.diagnoses}
            proofs = tuple(c for c in self.checks if c.proves and wanted & set(c.proves))
            if proofs:
                self._probe(proofs)
                report = self.report()
        return report

    def report(self) -> Report:
        """The report of the facts so far."""
        return conclude(
            self.checks,
            self.facts,
            self.world.flow,
            self.library,
            complete=self.complete,
            took=self._took,
            vantage=self.world.prober.vantage if self.world.prober else None,
            means=self.means,
            started=self.started,
            seconds=time.monotonic() - self._clock,
            interrupted=self.interrupted,
            symptom=self.world.options.symptom,
        )

    def _probe(self, level: Sequence[Check]) -> bool:
        """Runs the probes of one level side by side; what one owes and does not give becomes Blind. True: some ran."""
        seen = Facts(self.facts, self.world.flow, self.complete)
        world = dataclasses.replace(self.world, facts=seen)
        probing = [c for c in level if c.probe is not None]
        if not probing:
            return False
        if self.world.prober is None:
            reason = self.why_no_prober or "nothing was sent: this run has no prober"
            for check in probing:
                self.facts.extend(self._owed(check, seen, reason))
            return False
        pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="probe")
        try:
            running: dict[Future[tuple[tuple[Fact, ...], float]], Check] = {}
            for check in probing:
                self.watch(Event(check=check, state="started"))
                running[pool.submit(_gather, check, world)] = check
            limits = {c.id: time.monotonic() + min(c.timeout, world.left()) for c in probing}
            while running and not world.stopped.is_set():
                done, _ = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
                for future in done:
                    check = running.pop(future)
                    found, ms = future.result()
                    self._took[check.id] = ms
                    self.facts.extend(found)
                    self.watch(Event(check=check, state="probed", ms=ms, facts=found))
                for future, check in list(running.items()):
                    if time.monotonic() > limits[check.id]:
                        del running[future]
                        reason = f"the probe did not end within {check.timeout:g} s"
                        self.facts.extend(self._owed(check, seen, reason))
                        self.watch(Event(check=check, state="late"))
            for check in running.values():
                self.facts.extend(self._owed(check, seen, "the run was stopped before this was seen"))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return True

    def _owed(self, check: Check, seen: Facts, reason: str) -> list[Fact]:
        vantage = self.world.prober.vantage if self.world.prober else Vantage()
        about = self.world.flow.destination
        return [
            Blind(at=datetime.now(UTC), vantage=vantage, wanted=kind.KIND, about=about, reason=reason)
            for kind in check.gives
            if not seen.all(kind)
        ]


def _gather(check: Check, world: World) -> tuple[tuple[Fact, ...], float]:
    """The facts of one probe; one that raises costs its own facts only."""
    assert check.probe is not None
    begun = time.monotonic()
    found: list[Fact] = []
    try:
        found.extend(check.probe(world))
    except Exception as error:
        vantage = world.prober.vantage if world.prober else Vantage()
        reason = f"the probe of {check.id} failed: {type(error).__name__}: {error}"
        given = {type(f) for f in found}
        found.extend(
            Blind(at=datetime.now(UTC), vantage=vantage, wanted=kind.KIND, about=world.flow.destination, reason=reason)
            for kind in check.gives
            if kind not in given
        )
    return tuple(found), (time.monotonic() - begun) * 1000


def arrange(facts: Iterable[Fact]) -> list[Fact]:
    """The one order in which judges see facts: objects by cluster, answers of debug endpoints, then the rest by kind.

    Within a kind the order of arrival is kept by time, so that a run and the replay of its recording look alike.
    """
    objects: dict[str, list[Fact]] = {}
    answers: list[Fact] = []
    rest: list[Fact] = []
    for fact in facts:
        if isinstance(fact, KubeObject):
            objects.setdefault(fact.cluster, []).append(fact)
        elif isinstance(fact, EndpointAnswer):
            answers.append(fact)
        else:
            rest.append(fact)
    rest.sort(key=lambda f: (type(f).KIND, f.at))
    arranged: list[Fact] = []
    for cluster in sorted(objects):
        arranged.extend(
            sorted(
                objects[cluster],
                key=lambda f: (f.kind, f.namespace or "", f.name) if isinstance(f, KubeObject) else ("", "", ""),
            )
        )
    answers.sort(key=lambda f: f.subject)
    return [*arranged, *answers, *rest]


def judge_all(checks: Sequence[Check], facts: Facts) -> tuple[tuple[Check, Outcome], ...]:
    """Every check's outcome over all facts. A check whose needs nobody gave is Skipped, with the blocker's name."""
    givers: dict[type[Fact], list[Check]] = {}
    for check in checks:
        for kind in check.gives:
            givers.setdefault(kind, []).append(check)
    outcomes: list[tuple[Check, Outcome]] = []
    for level in levels(checks):
        for check in level:
            outcomes.append((check, _judge(check, facts, givers)))
    return tuple(outcomes)


def _judge(check: Check, facts: Facts, givers: dict[type[Fact], list[Check]]) -> Outcome:
    for kind in check.needs:
        if facts.all(kind):
            continue
        blind = facts.blind_to(kind)
        blocker = next((g.id for g in givers.get(kind, ()) if g.id != check.id), None)
        reason = blind[0].reason if blind else f"there is no fact of kind {kind.KIND}"
        return Skipped(reason, blocker)
    if check.proves and not any(facts.all(kind) for kind in check.gives):
        return Skipped("not needed: no cause that it would settle is in question")
    try:
        return check.judge(facts)
    except Exception as error:  # a judge that raises is our bug: say so, and lose only its verdict
        return Unknown(f"the judge of {check.id} failed: {type(error).__name__}: {error}")


def conclude(
    checks: Sequence[Check],
    found: Iterable[Fact],
    flow: Flow,
    library: Library,
    *,
    complete: Iterable[str] = (),
    took: dict[str, float] | None = None,
    vantage: Vantage | None = None,
    means: str = "",
    started: datetime | None = None,
    seconds: float = 0.0,
    interrupted: bool = False,
    symptom: Symptom | None = None,
) -> Report:
    """From facts to the report: judges, then diagnosis. Pure but for its arguments."""
    arranged = arrange(found)
    facts = Facts(arranged, flow, complete)
    ran = tuple(
        Ran(
            id=check.id,
            title=check.title,
            outcome=outcome,
            vantage=_seen_from(outcome, check, vantage),
            ms=(took or {}).get(check.id, 0.0),
        )
        for check, outcome in judge_all(checks, facts)
    )
    verdict, symptoms, diagnoses, limits = diagnose(ran, facts, flow, library, symptom=symptom)
    return Report(
        flow=flow,
        verdict=verdict,
        symptoms=symptoms,
        diagnoses=diagnoses,
        ran=ran,
        facts=tuple(arranged),
        limits=limits,
        means=means,
        started=started,
        seconds=seconds,
        interrupted=interrupted,
    )


def _seen_from(outcome: Outcome, check: Check, vantage: Vantage | None) -> str:
    """Where the evidence was seen from: of the first fact that has a place, else the prober's place."""
    evidence: tuple[Fact, ...] = ()
    match outcome:
        case Passed():
            evidence = outcome.evidence
        case Failed():
            evidence = tuple(e for f in outcome.findings for e in f.evidence)
        case _:
            pass
    for fact in evidence:
        if isinstance(fact, KubeObject):
            return f"API server in {fact.cluster}"
        return str(fact.vantage)
    return str(vantage) if vantage and check.probe else ""
