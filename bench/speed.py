"""`make bench`: what users wait for, each beside a yardstick measured in the same run, so that ratios can be compared.

CPU is user + system of the whole process, the steady figure on a shared machine; wall is what somebody waits.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
MCDOCTOR = [sys.executable, "-m", "mcdoctor"]
# As users have it: byte code is kept from one run to the next, whatever this shell says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds, in seconds."""

    cpu: float
    wall: float


def cost(command: list[str], rounds: int = 5, accepted: tuple[int, ...] = (0,)) -> Cost:
    """What a command costs, byte code made before where it runs more than once. Another exit code is an error."""
    cpu, wall = [], []
    if rounds > 1:
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.perf_counter()
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        wall.append(time.perf_counter() - begun)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if ran.returncode not in accepted:
            raise SystemExit(f"{' '.join(command)}: exit {ran.returncode}\n{ran.stderr[-2000:]}")
    return Cost(statistics.median(cpu), statistics.median(wall))


def row(name: str, value: float, goal: float | None, yardstick: str, other: float) -> bool:
    kept = goal is None or value <= goal
    target = "" if goal is None else f"<= {goal:g} s {'ok' if kept else 'MISSED'}"
    print(f"{name:44} {value:7.3f} s  {target:16} {value / other:6.1f} x {yardstick} ({other:.3f} s)")
    return kept


def main() -> int:
    kept = []
    nothing = cost([sys.executable, "-c", "pass"], 9)
    helped = cost([*MCDOCTOR, "--help"], 9)
    kept.append(row("mcdoctor --help, CPU", helped.cpu, 0.2, "python -c pass", nothing.cpu))
    sys.path.insert(0, str(ROOT))
    from mcdoctor.lab import available
    from mcdoctor.lab.scenarios import folder

    with tempfile.TemporaryDirectory() as place:
        bundle = folder("healthy")
        if reason := available():
            print(f"the lab cannot run here: {reason}")
        else:
            bundle = Path(place) / "bundle"
            cost([*MCDOCTOR, "collect", "frontend", "backend", "--lab", "healthy", "-f", str(bundle)], 1)
        replayed = cost([*MCDOCTOR, "replay", str(bundle), "-o", "json"], 5, (0, 3))
        kept.append(row("replay of a small bundle, CPU", replayed.cpu, 0.6, "python -c pass", nothing.cpu))
    if available() is None:
        kept.extend(lab())
    return 0 if all(kept) else 1


def lab() -> list[bool]:
    """The lab's figures; the yardstick is a person's first three commands, in the same lab, one after another."""
    from mcdoctor.lab import Lab
    from mcdoctor.lab.scenarios import folder

    begun = time.perf_counter()
    running = Lab(folder("healthy")).start()
    started = time.perf_counter() - begun
    try:
        prefix = running.argv("cluster-a", running_pod(running))
        by_hand = 0.0
        for tool in (["dig", "+time=2", "+tries=1", "backend.app.svc.cluster.local"],
                     ["tracepath", "-n", "-m", "5", "backend.app.svc.cluster.local"],
                     ["curl", "-sko", os.devnull, "-m", "5", "http://backend.app.svc.cluster.local/"]):  # fmt: skip
            if shutil.which(tool[0]):
                begun = time.perf_counter()
                subprocess.run([*prefix, *tool], capture_output=True, check=False)
                by_hand += time.perf_counter() - begun
            else:
                print(f"yardstick without {tool[0]}, which is not installed")
    finally:
        running.stop()
    pair = ["diagnose", "frontend", "backend", "-q", "--lab"]
    healthy = cost([*MCDOCTOR, *pair, "healthy"], 3)
    hole = cost([*MCDOCTOR, *pair, "default"], 3, (1,))
    nothing = "dig, tracepath, curl"
    return [
        row("lab start, wall", started, 2.0, nothing, by_hand),
        row("healthy pair in the lab, wall", healthy.wall, 3.0, nothing, by_hand),
        row("black hole in the lab, wall", hole.wall, 6.0, nothing, by_hand),
    ]


def running_pod(running: object) -> str:
    """namespace/name of the scenario's frontend pod."""
    from mcdoctor.lab.scenarios import folder
    from mcdoctor.models.facts import KubeObject
    from mcdoctor.runner.bundle import read_bundle

    for fact in read_bundle(folder("healthy")).facts:
        if isinstance(fact, KubeObject) and fact.kind == "Pod" and fact.name.startswith("frontend"):
            return f"{fact.namespace}/{fact.name}"
    raise SystemExit("the scenario has no frontend pod")


if __name__ == "__main__":
    sys.exit(main())
