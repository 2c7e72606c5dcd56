"""A prober that outlives its connection once: when that drops, another one is started in its place and goes on.

What the first had found stays. A request that was under way is asked again, since all are harmless to repeat; one
that may change something at the destination is not. Everything that was created is accounted for at the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from mcdoctor.kube.agent import Opened
from mcdoctor.kube.ephemeral import Place
from mcdoctor.kube.errors import NoAnswer, one_line
from mcdoctor.kube.transport import Api
from mcdoctor.models.facts import Blind, Fact
from mcdoctor.models.redact import redact_text
from mcdoctor.models.requests import ProbeRequest, SendRequest
from mcdoctor.models.vantage import Vantage

BACK = 20.0
"""Seconds for which an API server that went away with the connection is waited for."""
_ENDING = 5.0
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Lasting:
    """A Prober over `first`, and once over what `again` opens. Thread-safe."""

    def __init__(self, first: Opened, again: Callable[[], Opened], tell: Callable[[str], None]) -> None:
        """`again` raises NoVantage. `tell` takes a line for the user, from a thread of ours."""
        self._opened = [first]
        self._again, self._tell = again, tell
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._starting: threading.Thread | None = None
        self._over = False
        self._why = ""
        self._late: tuple[str, ...] = ()

    @property
    def vantage(self) -> Vantage:
        return self._opened[-1].prober.vantage

    def run(self, request: ProbeRequest, *, budget: float) -> tuple[Fact, ...]:
        """The facts of one request, of both connections where the first dropped meanwhile; a Blind for what is owed."""
        until = time.monotonic() + budget
        opened = self._opened[-1]
        unsent = _lost(opened) is not None
        facts = opened.prober.run(request, budget=budget)
        lost = _lost(opened)
        if lost is None or not facts:
            return facts
        *seen, owed = facts
        if not isinstance(owed, Blind):
            return facts
        if isinstance(request, SendRequest) and request.method.upper() not in _SAFE and not unsent:
            self._next(opened, lost, until=0.0)
            why = f"a {request.method} is not sent twice"
        elif (more := self._next(opened, lost, until)) is not None:
            return (*seen, *more.prober.run(request, budget=max(0.0, until - time.monotonic())))
        else:
            why = self._why or "another one was not there in time"
        return (*seen, replace(owed, reason=f"{owed.reason}; {why}"))

    def close(self) -> None:
        """Ends the probing; `end` ends what was created."""
        self._over = True
        for opened in tuple(self._opened):
            opened.prober.close()

    def end(self) -> tuple[str, ...]:
        """Ends all that was created, also what is just being started; lines for the user. Safe to call twice."""
        with self._lock:
            self._over = True
            starting = self._starting
        lines: list[str] = []
        if starting is not None:
            starting.join(_ENDING)
            if starting.is_alive():
                lines.append("another prober was still being started: it ends by itself; look with: mcdoctor cleanup")
        for opened in tuple(self._opened):
            lines += opened.close()
        return (*lines, *self._late)

    def _next(self, lost: Opened, reason: str, until: float) -> Opened | None:
        """The one that takes the place of `lost`; None when there is none by then, or will not be."""
        with self._lock:
            if self._over:
                return None
            if self._opened[-1] is not lost:
                return self._opened[-1]
            if self._starting is None:
                self._starting = threading.Thread(target=self._start, args=(reason,), name="prober again", daemon=True)
                self._starting.start()
            elif self._settled.is_set():
                self._why = self._why or "it was lost a second time, and none is started any more"
                return None
        self._settled.wait(max(0.0, until - time.monotonic()))
        return self._opened[-1] if self._opened[-1] is not lost else None

    def _start(self, reason: str) -> None:
        self._tell(f"The connection to the prober was lost ({one_line(reason, 200)}); another one takes its place.")
        try:
            more = self._again()
        except Exception as failure:  # NoVantage and whatever a library raises: its text is the reason
            self._why = f"another one could not be started: {redact_text(one_line(str(failure), 300))}"
            self._tell(f"{self._why[0].upper()}{self._why[1:]}. What was found so far is kept.")
        else:
            with self._lock:
                over = self._over
                if not over:
                    self._opened.append(more)
            if over:
                self._late = more.close()
        finally:
            self._settled.set()


def _lost(opened: Opened) -> str | None:
    """Why the far end is gone, where the prober can tell; None while it is there."""
    return getattr(opened.prober, "lost", None)


def lasting(opened: Opened, again: Callable[[], Opened] | None, tell: Callable[[str], None]) -> Opened:
    """The same, with a prober that is started once more when its connection drops; as it is without `again`."""
    if again is None:
        return opened
    prober = Lasting(opened, again, tell)
    return Opened(prober, prober.end, opened.limits)


def once_back(api: Api, place: Place, opener: Callable[[], Opened]) -> Opened:
    """Opens when the API server answers again; what went away with the connection may need some seconds."""
    until = time.monotonic() + min(BACK, api.left())
    path = f"/api/v1/namespaces/{place.namespace}/pods/{place.pod}"
    while True:
        try:
            api.get(path, timeout=2.0)
            break
        except NoAnswer:
            if time.monotonic() > until:
                break  # opening says why not
            time.sleep(0.5)
    return opener()
