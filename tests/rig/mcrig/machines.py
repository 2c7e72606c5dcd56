"""A machine of the rig: a process that holds namespaces of its own for network, mounts, host name, IPC and processes.

Nothing of the host is touched: links join namespaces directly, mounts are private, and when the holder ends, the
kernel ends every process in it and takes links, rules and mounts away.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Ignored SIGCHLD survives exec: the kernel then reaps what is left to this first process.
_HOLD = "trap '' CHLD; echo ready; exec sleep infinity"


def started(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: names it for good with its pid. None: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True, slots=True)
class Machine:
    """`pid` is the first process in the machine's namespaces, `keeper` its parent outside."""

    name: str
    pid: int
    keeper: int
    ticks: int

    @classmethod
    def start(cls, name: str) -> Machine:
        keeper = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", _HOLD],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert keeper.stdout is not None
        said = keeper.stdout.readline().strip()
        if said != "ready":
            raise RuntimeError(f"machine {name}: {said}")
        pid = int(Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()[0])
        machine = cls(name, pid, keeper.pid, started(pid) or 0)
        keeper.stdout.close()
        _KEEPERS[keeper.pid] = keeper
        machine.run("hostname", name)
        machine.run("ip", "link", "set", "lo", "up")
        return machine

    @property
    def alive(self) -> bool:
        return started(self.pid) == self.ticks

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` in this machine."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-i", "-p", "--", *command]

    def run(self, *command: str, input: str | None = None, check: bool = True, timeout: float = 60) -> str:
        """Runs to the end and gives back stdout. Raises RuntimeError with stderr when it fails and `check` is set."""
        result = subprocess.run(self.command(*command), input=input, capture_output=True, text=True, timeout=timeout)
        if check and result.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}")
        return result.stdout

    def sysctl(self, values: Mapping[str, str]) -> None:
        """Sets kernel settings of this machine's network namespace."""
        script = "\n".join(f"echo {value} > /proc/sys/{key}" for key, value in values.items())
        self.run("sh", "-e", "-c", script)

    def daemon(self, log: Path, *command: str, env: Mapping[str, str] | None = None) -> int:
        """Starts a program that stays, output to `log`; gives its process id on the host."""
        with log.open("ab") as stream:
            process = subprocess.Popen(
                self.command(*command), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                env={**os.environ, **(env or {})}, start_new_session=True,
            )  # fmt: skip
        _KEEPERS[process.pid] = process
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if pids := children.read_text().split():
                    return int(pids[0])
            except OSError:
                break
            time.sleep(0.01)
        raise RuntimeError(f"{self.name}: {command[0]} ended at once: {log.read_text(errors='replace')[-600:]}")

    def stop(self) -> None:
        """Ends everything in the machine."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        if keeper := _KEEPERS.pop(self.keeper, None):
            keeper.wait(10)


# Children of this very process, kept so that they are waited for and not reported as forgotten.
_KEEPERS: dict[int, subprocess.Popen[str] | subprocess.Popen[bytes]] = {}


def link(left: Machine, left_name: str, right: Machine, right_name: str, mtu: int = 1500) -> None:
    """Joins two machines by a cable: a veth pair without any of the offloads that would hide packet sizes."""
    subprocess.run(
        ["ip", "link", "add", left_name, "netns", str(left.pid), "type", "veth", "peer", "name", right_name,
         "netns", str(right.pid)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    for machine, name in ((left, left_name), (right, right_name)):
        machine.run("ethtool", "-K", name, "tso", "off", "gso", "off", "gro", "off", "tx", "off", check=False)
        machine.run("ip", "link", "set", name, "mtu", str(mtu), "up")
