"""The far end: reads requests as JSON lines, runs them in a bounded pool, writes facts as JSON lines.

The first line in is the configuration `{"nonce": …, "vantage": {…}, "deadline": seconds}`, then one request a line:
`{"id", "operation", "budget", "request": {…}}`. Every line out begins with the nonce and a blank, so that text of
others on the same stream is told apart: first `{"hello": {…}}`, then `{"id", "fact": {…}}` and `{"id", "done": true}`.
It ends at the end of its input, on SIGTERM and at its own deadline. A bare Python 3.11 is enough.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from mcdoctor import __version__
from mcdoctor.models.codec import Malformed, decode
from mcdoctor.models.record import to_record
from mcdoctor.models.requests import OPERATIONS
from mcdoctor.models.vantage import Vantage
from mcdoctor.net.operations import perform

WORKERS = 8
DEADLINE = 900.0


class Agent:
    """One stream of requests and answers."""

    def __init__(self, source: BinaryIO, write: Callable[[bytes], object], config: dict[str, Any]) -> None:
        self._source, self._write = source, write
        self._nonce = str(config.get("nonce") or "mcdoctor")
        self._vantage = decode(Vantage, config.get("vantage") or {})
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers = 0
        self._idle = 0

    def say(self, message: dict[str, Any]) -> None:
        line = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        with self._lock:
            self._write(f"{self._nonce} {line}\n".encode("utf-8", "replace"))

    def run(self) -> None:
        """Answers until the input ends."""
        self.say({"hello": hello()})
        for line in self._source:
            if line.strip():
                self._accept(line)

    def _accept(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self.say({"error": "a line is not JSON"})
            return
        if not isinstance(message, dict) or "id" not in message:
            self.say({"error": "a request is an object with an id"})
            return
        with self._lock:
            grow = self._idle == 0 and self._workers < WORKERS
            self._workers += grow
            self._idle -= not grow and self._idle > 0
        self._jobs.put(message)
        if grow:
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            message = self._jobs.get()
            self._answer(message)
            with self._lock:
                self._idle += 1

    def _answer(self, message: dict[str, Any]) -> None:
        key = message["id"]
        try:
            cls = OPERATIONS[str(message.get("operation"))]
            request = decode(cls, message.get("request") or {})
            budget = float(message.get("budget") or 30.0)
        except KeyError:
            self.say({"id": key, "done": True, "error": f"unknown operation {str(message.get('operation'))[:80]!r}"})
            return
        except (Malformed, TypeError, ValueError) as error:
            self.say({"id": key, "done": True, "error": f"malformed request: {error}"})
            return
        for fact in perform(request, self._vantage, budget):
            self.say({"id": key, "fact": to_record(fact)})
        self.say({"id": key, "done": True})


def hello() -> dict[str, Any]:
    """Who answers: versions, uid, what it may do."""
    from mcdoctor.net.system import capabilities, may_ping

    return {
        "version": __version__,
        "python": platform.python_version(),
        "uid": os.geteuid(),
        "pid": os.getpid(),
        "capabilities": sorted(capabilities()),
        "ping": may_ping(),
    }


def _write_out(data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(1, view) :]
    except OSError:  # nobody reads any more
        os._exit(0)


def main(source: BinaryIO | None = None) -> None:
    """The agent on stdin and stdout; does not return."""
    source = source or sys.stdin.buffer
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the asking side decides; it closes our input
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        config = json.loads(source.readline() or b"{}")
        agent = Agent(source, _write_out, config if isinstance(config, dict) else {})
        deadline = float(config.get("deadline") or DEADLINE)
    except (ValueError, TypeError, AttributeError) as error:
        print(f"mcdoctor: the prober got no usable configuration: {error}", flush=True)
        os._exit(2)
    timer = threading.Timer(deadline, lambda: os._exit(0))
    timer.daemon = True
    timer.start()
    agent.run()
    os._exit(0)  # not waiting for probes under way: nobody reads their facts


if __name__ == "__main__":
    main()
