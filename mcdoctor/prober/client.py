"""The near end: a Prober over any pair of byte streams, whatever carries them (a pipe, attach, exec)."""

from __future__ import annotations

import json
import queue
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from mcdoctor.models.codec import Malformed, encode
from mcdoctor.models.facts import Fact, TlsHandshake
from mcdoctor.models.record import from_record
from mcdoctor.models.redact import plain, redact_text
from mcdoctor.models.requests import ProbeRequest
from mcdoctor.models.vantage import Vantage
from mcdoctor.net.operations import owed

_GRACE = 1.0  # seconds that an answer may be on its way after its budget
_MAX_LINE = 8 << 20


class Reader(Protocol):
    """What facts come from: `readline` blocks, and gives b"" at the end."""

    def readline(self, limit: int = -1, /) -> bytes: ...


class Writer(Protocol):
    """Where requests go."""

    def write(self, data: bytes, /) -> Any: ...

    def flush(self) -> Any: ...

    def close(self) -> Any: ...


class ProberLost(Exception):
    """The far end did not come up; the text says why, in words for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What the far end says of itself. `capabilities`: net_raw, net_admin, net_bind_service, as far as it has them."""

    version: str = ""
    python: str = ""
    uid: int = -1
    pid: int = 0
    capabilities: tuple[str, ...] = ()
    ping: bool = False


@dataclass(slots=True)
class _Open:
    """A request that waits for its facts; `None` in the queue says done."""

    request: ProbeRequest
    facts: list[Fact] = field(default_factory=list)
    done: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)


class StreamProber:
    """A Prober at the other end of two byte streams. Thread-safe; every open request ends when the stream is lost."""

    def __init__(
        self, reader: Reader, writer: Writer, vantage: Vantage, *, on_close: Callable[[], object] | None = None
    ) -> None:
        """Call `start` next. `on_close` runs once, after the streams are let go: end a process, detach."""
        self._reader, self._writer, self._vantage, self._on_close = reader, writer, vantage, on_close
        self._nonce = f"mcd-{secrets.token_hex(8)}"
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._open: dict[int, _Open] = {}
        self._next = 0
        self._lost: str | None = None
        self._closed = False
        self._greeted: queue.SimpleQueue[Hello | None] = queue.SimpleQueue()
        self._stray: deque[str] = deque(maxlen=5)
        self._listener = threading.Thread(target=self._listen, name="prober-listener", daemon=True)
        self.hello = Hello()

    @property
    def vantage(self) -> Vantage:
        return self._vantage

    @vantage.setter
    def vantage(self, value: Vantage) -> None:
        """For what is learned later, such as the proxy that captures the pod: facts from then on carry it."""
        self._vantage = value

    @property
    def lost(self) -> str | None:
        """Why the far end is gone; None while it is there."""
        return self._lost

    def start(self, envelope: bytes = b"", *, deadline: float = 900.0, timeout: float = 15.0) -> StreamProber:
        """Sends the program (from `bootstrap.envelope`; empty when it runs already) and waits for its hello.

        `deadline`: seconds after which the far end gives up by itself. Raises ProberLost, everything closed.
        """
        config = {"nonce": self._nonce, "vantage": encode(self._vantage), "deadline": deadline}
        self._listener.start()

        def send() -> None:  # a full pipe must not hold up the time-out
            try:
                self._send(envelope + json.dumps(config).encode() + b"\n")
            except (OSError, ValueError) as error:
                self._broke(f"the prober could not be sent: {error}")

        threading.Thread(target=send, name="prober-sender", daemon=True).start()
        try:
            hello = self._greeted.get(timeout=timeout)
        except queue.Empty:
            hello = None
            self._lose(f"the prober did not answer within {timeout:g} s")
        if hello is None:
            reason = self._lost or "the prober did not start"
            self.close()
            raise ProberLost(reason)
        self.hello = hello
        return self

    def run(self, request: ProbeRequest, *, budget: float) -> tuple[Fact, ...]:
        """The facts of one request; a Blind stands for what did not come within the budget."""
        waiting = _Open(request)
        with self._lock:
            lost = self._lost
            self._next += 1
            key = self._next
            if lost is None:
                self._open[key] = waiting
        if lost is not None:
            return (owed(request, self._vantage, lost),)
        if budget <= 0:
            with self._lock:
                self._open.pop(key, None)
            return (owed(request, self._vantage, "no time was left for it"),)
        message = {"id": key, "operation": request.OPERATION, "budget": budget, "request": encode(request)}
        try:
            self._send(json.dumps(message).encode() + b"\n")
        except (OSError, ValueError) as error:
            self._broke(f"the stream to the prober broke: {error}")
        try:
            failure = waiting.done.get(timeout=budget + _GRACE)
        except queue.Empty:
            failure = f"no answer from the prober within {budget:g} s"
        with self._lock:
            self._open.pop(key, None)
            facts = tuple(waiting.facts)
        return facts if failure is None else (*facts, owed(request, self._vantage, failure))

    def close(self) -> None:
        """Ends the far end by ending its input; open requests become Blind. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._lose("the prober was closed")
        with suppress(OSError, ValueError):
            self._writer.close()
        if self._on_close is not None:
            self._on_close()

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._writer.write(data)
            self._writer.flush()

    def _broke(self, reason: str) -> None:
        """Writing failed: the far end's last words, which the listener is about to read, say more than the errno."""
        self._listener.join(1.0)
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        with self._lock:
            if self._lost is None:
                self._lost = reason
            waiting = list(self._open.values())
            self._open.clear()
        for one in waiting:
            one.done.put(self._lost)
        self._greeted.put(None)

    def _listen(self) -> None:
        reason = "the prober ended"
        try:
            while line := self._reader.readline(_MAX_LINE):
                self._hear(line)
        except (OSError, ValueError) as error:
            reason = f"the stream from the prober broke: {error}"
        said = "; ".join(self._stray)
        self._lose(f"{reason}; its last words: {said}" if said else reason)

    def _hear(self, line: bytes) -> None:
        """One line of the far end; what is not ours is kept for the reason, in case it ends."""
        before, ours, text = line.partition(self._nonce.encode() + b" ")
        if before.strip():
            self._stray.append(plain(redact_text(before.decode("utf-8", "replace")), 300))
        if not ours:
            return
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            self._stray.append(f"a line of {len(text)} bytes that was cut short")
            return
        if isinstance(message, dict):
            self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        if isinstance(message.get("hello"), Mapping):
            self._greeted.put(_hello(message["hello"]))
            return
        key = message.get("id")
        with self._lock:
            waiting = self._open.get(key) if isinstance(key, int) else None
        if waiting is None:
            return
        if "fact" in message:
            fact = self._fact(waiting.request, message["fact"])
            with self._lock:
                waiting.facts.append(fact)
        if message.get("done"):
            error = message.get("error")
            waiting.done.put(f"the prober refused: {plain(str(error), 300)}" if error else None)

    def _fact(self, request: ProbeRequest, record: Any) -> Fact:
        try:
            fact = from_record(record)
            fact = replace(fact, vantage=self._vantage)  # where it was seen from is for us to say, not for the stream
        except (Malformed, TypeError, ValueError) as error:
            return owed(request, self._vantage, f"the prober's answer cannot be read: {plain(str(error), 200)}")
        return finished(fact)


def finished(fact: Fact) -> Fact:
    """What only the asking side can add: certificates read from their DER."""
    if isinstance(fact, TlsHandshake) and fact.der:
        from mcdoctor.net.certificates import read_chain

        return read_chain(fact)
    return fact


def _hello(data: Mapping[str, Any]) -> Hello:
    def number(key: str) -> int:
        value = data.get(key)
        return value if isinstance(value, int) else -1

    found = data.get("capabilities")
    return Hello(
        version=plain(str(data.get("version", "")), 40),
        python=plain(str(data.get("python", "")), 40),
        uid=number("uid"),
        pid=number("pid"),
        capabilities=tuple(plain(str(c), 40) for c in found) if isinstance(found, list) else (),
        ping=bool(data.get("ping")),
    )
