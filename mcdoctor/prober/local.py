"""Probers on this machine: in this process, or as a child that a command puts elsewhere (a network namespace)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mcdoctor.models.facts import Fact
from mcdoctor.models.requests import ProbeRequest
from mcdoctor.models.vantage import Vantage
from mcdoctor.net.operations import owed, perform
from mcdoctor.prober.client import StreamProber, finished


class LocalProber:
    """A Prober in this process."""

    def __init__(self, vantage: Vantage) -> None:
        self._vantage = vantage
        self._closed = threading.Event()

    @property
    def vantage(self) -> Vantage:
        return self._vantage

    def run(self, request: ProbeRequest, *, budget: float) -> tuple[Fact, ...]:
        if self._closed.is_set():
            return (owed(request, self._vantage, "the prober was closed"),)
        if budget <= 0:
            return (owed(request, self._vantage, "no time was left for it"),)
        facts: list[Fact] = []
        done = threading.Event()

        def work() -> None:
            for fact in perform(request, self._vantage, budget):
                facts.append(fact)
            done.set()

        threading.Thread(target=work, daemon=True).start()
        if done.wait(budget + 0.5):
            return tuple(map(finished, facts))
        return (*map(finished, list(facts)), owed(request, self._vantage, f"no answer within {budget:g} s"))

    def close(self) -> None:
        self._closed.set()


def program() -> list[str]:
    """This Python running the agent of this installation; its byte code is compiled already, unlike the archive's."""
    spec = importlib.util.find_spec("dns")
    package = Path(__file__).resolve().parents[2]
    roots = [str(package)]
    if spec is not None and spec.origin is not None:
        roots.append(str(Path(spec.origin).resolve().parents[1]))
    code = f"import sys; sys.path[:0] = {roots!r}; from mcdoctor.prober.agent import main; main()"
    return [sys.executable, "-I", "-S", "-c", code]


def spawn(
    argv: Sequence[str],
    vantage: Vantage,
    *,
    deadline: float = 900.0,
    timeout: float = 15.0,
    environment: Mapping[str, str] | None = None,
) -> StreamProber:
    """A prober as a child process: `argv` is what runs it where it should be (`nsenter --net=…`), empty for here.

    Raises ProberLost when it does not come up, OSError when the command cannot be run.
    """
    process = subprocess.Popen(
        [*argv, *program()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # Ctrl-C is the parent's; it ends the child by closing its input
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdout = process.stdout

    def end() -> None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        if process.poll() is None:
            process.kill()
            process.wait()
        stdout.close()

    return StreamProber(stdout, process.stdin, vantage, on_close=end).start(deadline=deadline, timeout=timeout)
