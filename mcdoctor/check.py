"""A check is a value: what it needs, how facts are gathered, and how they are judged.

`probe` does I/O through ports and yields facts; `judge` is pure and turns facts into an outcome. A check without a
probe is a rule. What a judge may read is `needs`, `uses` and `gives` (and Blind, Absent, Listed, always).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Blind, Fact
from mcdoctor.models.flow import Flow
from mcdoctor.models.ids import Symptom, slug
from mcdoctor.models.outcome import Outcome
from mcdoctor.models.requests import ProbeRequest
from mcdoctor.ports import ClusterReader, Prober


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for besides the pair."""

    symptom: Symptom | None = None
    request_method: str = "GET"
    request_path: str | None = None
    request_headers: tuple[tuple[str, str], ...] = ()
    request_body: str | None = None
    requests: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a probe gets: the flow, the facts so far, the ports and the time left.

    `prober` is None when nothing can be sent (a bundle, `--probe none`); probes that need it yield nothing then: the
    runner reports why, once. `bypass` sees the network outside the pod's proxy where there is such a view.
    """

    flow: Flow
    facts: Facts
    prober: Prober | None = None
    bypass: Prober | None = None
    far: Prober | None = field(default=None, metadata={"doc": "a prober at the destination, with --both"})
    readers: tuple[ClusterReader, ...] = ()
    options: Options = field(default_factory=Options)
    deadline: float = float("inf")
    stopped: threading.Event = field(default_factory=threading.Event)

    def left(self) -> float:
        """Seconds until the deadline of the run."""
        return max(0.0, self.deadline - time.monotonic())

    def ask(self, request: ProbeRequest, *, budget: float = 10.0) -> tuple[Fact, ...]:
        """Runs a request at the source's prober within what is left of the run; no prober, no facts."""
        if self.prober is None or self.stopped.is_set():
            return ()
        return self.prober.run(request, budget=min(budget, self.left()))

    def reader(self, cluster: str) -> ClusterReader | None:
        return next((r for r in self.readers if r.cluster == cluster), None)


Probe = Callable[[World], Iterable[Fact]]
Judge = Callable[[Facts], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check.

    `needs`: kinds without which it is skipped. `uses`: kinds read when they are there; orders, does not block.
    `gives`: kinds its probe yields. `findings`: every finding id that its judge can emit. `proves`: cause ids; such a
    check runs only after a first diagnosis that names one of them as a candidate, to settle it.
    """

    id: str
    title: str
    judge: Judge
    probe: Probe | None = None
    needs: tuple[type[Fact], ...] = ()
    uses: tuple[type[Fact], ...] = ()
    gives: tuple[type[Fact], ...] = ()
    findings: tuple[str, ...] = ()
    proves: tuple[str, ...] = ()
    timeout: float = 10.0
    doc: str = ""

    def __post_init__(self) -> None:
        slug(self.id)

    @property
    def room(self) -> str:
        """The first word of the id: the layer it belongs to."""
        return self.id.partition("-")[0]

    def may_read(self) -> frozenset[type[Fact]]:
        return frozenset({*self.needs, *self.uses, *self.gives, Blind})
