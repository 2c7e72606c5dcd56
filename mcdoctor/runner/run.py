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
from mcdoctor.models.ids import Symptom, Verdict
from mcdoctor.models.outcome import Failed, Outcome, Passed, Skipped, Unknown
from mcdoctor.models.playbook import Library
from mcdoctor.models.report import Ran, Report
from mcdoctor.models.vantage import Vantage
from mcdoctor.runner.plan import levels, plan

_THREADS = 6
_TELL_EVERY = 0.5
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
        self._probe(ordinary)
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

    def _probe(self, checks: Sequence[Check]) -> None:
        """Runs the probes, each as soon as those that give to it are done; what one owes and does not give is Blind."""
        if self.world.prober is None and not self.world.readers:
            for check in checks:
                if check.probe is not None:
                    self.facts.extend(self._owed(check, self._no_prober))
            return
        order = plan(checks)
        pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="probe")
        running: dict[Future[None], _Probing] = {}
        told = time.monotonic()
        try:
            while order.active and not self.world.stopped.is_set():
                for check in order.ready():
                    if check.probe is None:
                        order.done(check)
                        continue
                    self.watch(Event(check=check, state="started"))
                    seen = Facts(self.facts, self.world.flow, self.complete)
                    probing = _Probing(check, time.monotonic() + min(check.timeout, self.world.left()))
                    running[pool.submit(probing.gather, dataclasses.replace(self.world, facts=seen))] = probing
                finished, _ = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
                for future in [*finished, *(f for f, p in running.items() if p.late and f not in finished)]:
                    probing = running.pop(future)
                    self._take(probing, ended=future in finished)
                    order.done(probing.check)
                if finished and time.monotonic() - told > _TELL_EVERY:
                    self.watch(Event(check=None, state="provisional", report=self.report()))
                    told = time.monotonic()
            for probing in running.values():
                self.facts.extend(self._owed(probing.check, "the run was stopped before this was seen"))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _take(self, probing: _Probing, *, ended: bool) -> None:
        """The facts of a probe, also of one that did not end in time: those that it had found by then."""
        found = tuple(probing.found)
        self._took[probing.check.id] = probing.ms
        self.facts.extend(found)
        if ended:
            if self.world.prober is None:  # it could still read clusters; what it could not send is owed
                self.facts.extend(self._owed(probing.check, self._no_prober))
            self.watch(Event(check=probing.check, state="probed", ms=probing.ms, facts=found))
            return
        late = f"the probe did not end within {probing.check.timeout:g} s"
        self.facts.extend(self._owed(probing.check, late if self.world.left() else "the time for the run was over"))
        self.watch(Event(check=probing.check, state="late", ms=probing.ms, facts=found))

    @property
    def _no_prober(self) -> str:
        return self.why_no_prober or "nothing was sent: this run has no prober"

    def _owed(self, check: Check, reason: str) -> list[Fact]:
        vantage = self.world.prober.vantage if self.world.prober else Vantage()
        about = self.world.flow.destination
        given = {type(f) for f in self.facts}
        return [
            Blind(at=datetime.now(UTC), vantage=vantage, wanted=kind.KIND, about=about, reason=reason)
            for kind in check.gives
            if kind not in given
        ]


@dataclass(slots=True)
class _Probing:
    """One probe on its way."""

    check: Check
    limit: float
    begun: float = field(default_factory=time.monotonic)
    found: list[Fact] = field(default_factory=list)
    ended: float | None = None

    @property
    def late(self) -> bool:
        return time.monotonic() > self.limit

    @property
    def ms(self) -> float:
        return ((self.ended or time.monotonic()) - self.begun) * 1000

    def gather(self, world: World) -> None:
        """Runs the probe; one that raises costs its own facts only."""
        assert self.check.probe is not None
        try:
            for fact in self.check.probe(world):
                self.found.append(fact)
        except Exception as error:
            vantage = world.prober.vantage if world.prober else Vantage()
            reason = f"the probe of {self.check.id} failed: {type(error).__name__}: {error}"
            given = {type(f) for f in self.found}
            about = world.flow.destination
            self.found.extend(
                Blind(at=datetime.now(UTC), vantage=vantage, wanted=kind.KIND, about=about, reason=reason)
                for kind in self.check.gives
                if kind not in given
            )
        self.ended = time.monotonic()


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
    if interrupted and verdict is Verdict.HEALTHY:  # what was not looked at yet may be what is wrong
        verdict = Verdict.INCONCLUSIVE
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
