"""Starting and stopping a lab, and the way into its pods."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from mcdoctor.lab.schema import LabSpec, load

_START_WITHIN = 25.0
_ENTER = str(Path(__file__).with_name("enter.py"))


class LabFailed(RuntimeError):
    """The lab did not come up; the text says why."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A scenario folder that can be started."""

    folder: Path

    def spec(self) -> LabSpec:
        """Its lab.yaml; raises BadLab or OSError."""
        return load(Path(self.folder) / "lab.yaml")

    def start(self, *, detached: bool = False) -> RunningLab:
        """Starts the lab and returns when every server listens, in about half a second.

        It ends with `stop()`, with the `with` block, or when this process ends, however it ends; a detached one only
        with `stop()`. Raises BadLab or LabFailed.
        """
        command = [sys.executable, "-m", "mcdoctor.lab.supervisor", str(Path(self.folder).resolve())]
        process = subprocess.Popen(
            [*command, "--detached"] if detached else command,
            stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if detached else None,
            env={**os.environ, "PYTHONPATH": _import_path()},
            start_new_session=True,  # Ctrl-C is for the caller, who then stops the lab
        )
        try:
            spec = self.spec()  # read while the other process starts
            answer = _first_line(process)
        except BaseException:
            _end(process)
            raise
        if "hosts" not in answer:
            _end(process)
            raise LabFailed(answer.get("error", "the lab did not start"))
        running = RunningLab(folder=Path(self.folder).resolve(), spec=spec, hosts=answer["hosts"], pid=process.pid)
        running._process = None if detached else process
        if detached:
            if process.stdout is not None:
                process.stdout.close()
            process.returncode = 0  # it is not ours to wait for
        return running


@dataclass(slots=True)
class RunningLab:
    """A lab that runs. `hosts`: name of a host in lab.yaml → pid of its process."""

    folder: Path
    spec: LabSpec
    hosts: Mapping[str, int]
    pid: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def clusters(self) -> tuple[str, ...]:
        return self.spec.clusters()

    def pods(self) -> tuple[tuple[str, str], ...]:
        """(cluster, namespace/pod) of every pod that runs here."""
        return tuple((h.cluster, h.pod) for h in self.spec.hosts.values() if h.cluster and h.pod)

    def argv(self, cluster: str, pod: str, *, all_capabilities: bool = False) -> list[str]:
        """Prefix of a command line that runs the command inside a pod (`namespace/name`).

        The command keeps working folder, environment and user; it loses the capabilities of a root user over the
        network, as in a debug container, unless all are asked for. Raises LookupError for a pod that is not here.
        """
        for name, host in self.spec.hosts.items():
            if host.cluster == cluster and host.pod == pod:
                return self.argv_of_host(name, all_capabilities=all_capabilities)
        raise LookupError(f"no pod {pod} of cluster {cluster} runs in the lab {self.name}")

    def argv_of_host(self, name: str, *, all_capabilities: bool = False) -> list[str]:
        """The same for any host by its name in lab.yaml. Raises LookupError."""
        if name not in self.hosts:
            raise LookupError(f"no host {name} in the lab {self.name}")
        option = ["--all-capabilities"] if all_capabilities else []
        return [sys.executable, "-I", "-S", _ENTER, *option, str(self.hosts[name])]

    def alive(self) -> bool:
        """Whether the supervisor still runs."""
        if self._process is not None:
            return self._process.poll() is None
        return _is_supervisor(self.pid)

    def stop(self) -> None:
        """Ends the lab; safe to call twice. Returns when its processes, and so its namespaces, are gone."""
        if self._process is not None:
            _end(self._process)
        elif _is_supervisor(self.pid):
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        give_up = time.monotonic() + 5
        while time.monotonic() < give_up and any(_exists(pid) for pid in (self.pid, *self.hosts.values())):
            time.sleep(0.005)

    def __enter__(self) -> RunningLab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- a detached lab is found again by its state file ----------------------------------------------------------

    def save(self, path: Path) -> None:
        """Writes what `found` needs."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = {"folder": str(self.folder), "pid": self.pid, "hosts": dict(self.hosts)}
        path.write_text(json.dumps(state), encoding="utf-8")


def found(path: Path) -> RunningLab | None:
    """The detached lab whose state is in a file; None when there is none or it ended."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        folder, pid, hosts = Path(state["folder"]), int(state["pid"]), dict(state["hosts"])
        spec = load(folder / "lab.yaml")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return RunningLab(folder=folder, spec=spec, hosts=hosts, pid=pid) if _is_supervisor(pid) else None


def _import_path() -> str:
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _START_WITHIN)
    line = process.stdout.readline() if ready else b""
    try:
        answer = json.loads(line)
    except ValueError:
        return {"error": "the lab did not start"}
    return answer if isinstance(answer, dict) else {"error": "the lab did not start"}


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    if process.poll() is None:
        ended = os.pidfd_open(process.pid)
        try:
            if not select.select([ended], [], [], 2.0)[0]:
                process.kill()
        finally:
            os.close(ended)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _exists(pid: int) -> bool:
    """Whether a process runs; one that ended but was not waited for yet does not."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] != "Z"
        )
    except OSError:
        return False


def _is_supervisor(pid: int) -> bool:
    try:
        return b"mcdoctor.lab.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
