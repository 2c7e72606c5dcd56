"""Speed of the policy engine, on one core, beside a naive evaluator in the same run.

    python bench/policy.py            figures against their goals, then 100,000 pods x 75,000 policies (some 1.5 GB)
    python bench/policy.py --quick    without the large world

Worlds come from the seeded generator of the tests. Exit code 1 when a goal is missed.
"""

from __future__ import annotations

import gc
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "policy")]

from policy_worlds import large  # noqa: E402
from reference import kubernetes as naive  # noqa: E402

from mcdoctor.policy.engine import Engine, compile_world  # noqa: E402
from mcdoctor.policy.matrix import all_pairs  # noqa: E402
from mcdoctor.policy.path import ask  # noqa: E402
from mcdoctor.policy.question import Packet, PodName, Question  # noqa: E402
from mcdoctor.policy.smallest import suggest  # noqa: E402
from mcdoctor.policy.verdict import Direction, Verdict  # noqa: E402
from mcdoctor.policy.world import ClusterInput, build  # noqa: E402

PORT = 8080


def timed(work: Callable[[], Any], best_of: int = 1) -> tuple[float, Any]:
    """Seconds of CPU, the best of some runs, and the last result."""
    best, result = float("inf"), None
    for _ in range(best_of):
        gc.collect()
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best, result


class Table:
    def __init__(self) -> None:
        self.missed = 0

    def line(self, what: str, seconds: float, goal: float | None = None, beside: str = "") -> None:
        told = f"{seconds * 1000:10.3f} ms"
        if goal is None:
            verdict = ""
        else:
            missed = seconds > goal
            self.missed += missed
            verdict = f"  goal {goal * 1000:8.1f} ms  {'MISSED' if missed else 'ok':6} ({goal / seconds:6.1f}x inside)"
        print(f"{what:58}{told}{verdict}{'  ' + beside if beside else ''}", flush=True)


def world_line(engine: Engine, policies: int) -> None:
    family: Any = engine.compiled["a"]["kubernetes"]
    selectors = {room_key for room in engine.index.rooms.values() for room_key in room.selected}
    profiles = {(d, tuple(map(id, ps))) for d, by in family.selected.items() for ps in by.values()}
    print(
        f"  {len(engine.world.clusters['a'].pods)} pods, {policies} policies, {len(engine.index.classes)} classes, "
        f"{len(selectors)} selectors, {len(profiles)} profiles"
    )


def questions(engine: Engine, count: int, seed: int = 3) -> list[Question]:
    rng = random.Random(seed)
    pods = list(engine.world.clusters["a"].pods.values())
    pairs = [(rng.choice(pods), rng.choice(pods)) for _ in range(count)]
    return [Question(PodName(s.namespace, s.name), PodName(d.namespace, d.name), PORT) for s, d in pairs if s is not d]


def decisions(engine: Engine, asked: list[Question]) -> int:
    """Both directions of each question, with their traces."""
    pods = engine.world.clusters["a"].pods
    denied = 0
    for question in asked:
        source, target = question.source, question.destination
        assert isinstance(source, PodName) and isinstance(target, PodName)
        here, there = pods[source.namespace, source.name], pods[target.namespace, target.name]
        for direction in Direction:
            decided = engine.decide(Packet("a", direction, here, there, "TCP", PORT))
            denied += decided.verdict is Verdict.DENIED
    return denied


def naively(objects: list[Any], engine: Engine, asked: list[Question]) -> int:
    raws = {(o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in objects if o["kind"] == "Pod"}
    policies = [o for o in objects if o["kind"] in ("NetworkPolicy", "Namespace")]
    denied = 0
    for question in asked:
        source, target = question.source, question.destination
        assert isinstance(source, PodName) and isinstance(target, PodName)
        for direction in ("Egress", "Ingress"):
            denied += (
                naive.direction_verdict(
                    policies,
                    direction,
                    raws[source.namespace, source.name],
                    raws[target.namespace, target.name],
                    PORT,
                    "TCP",
                    True,
                )
                == naive.DENIED
            )
    return denied


def measure(table: Table) -> None:
    objects = large(10_000, 1_000, 100)
    gc.freeze()
    print("10,000 pods x 1,000 policies in 100 namespaces")
    parsing, world = timed(lambda: build([ClusterInput("a", objects, cni="kube-router")]), 3)
    table.line("records of raw objects", parsing)
    indexing, engine = timed(lambda: compile_world(world), 3)
    table.line("index (all families compiled)", indexing, 0.3)
    world_line(engine, 1_000)

    asked = questions(engine, 2_000)
    decisions(engine, asked)
    seconds, _ = timed(lambda: decisions(engine, asked), 3)
    each = seconds / len(asked) / 2
    few = asked[:40]
    slow, slow_denied = timed(lambda: naively(objects, engine, few))
    naive_each = slow / len(few) / 2
    assert decisions(engine, few) == slow_denied, "the naive evaluator disagrees"
    table.line(
        "one decision with trace", each, 0.0002, f"naive {naive_each * 1e6:.0f} us without: {naive_each / each:.0f}x"
    )
    answering, _ = timed(lambda: [ask(engine, q) for q in asked], 1)
    table.line("one whole answer (both sides, reason, near misses)", answering / len(asked))

    pairing, matrix = timed(lambda: all_pairs(engine, "a", PORT), 3)
    hours = naive_each * 2 * matrix.total / 3600
    table.line("all pairs, one port", pairing, 0.5, f"naive {hours:.1f} h, extrapolated")
    print(f"  {matrix.count(Verdict.ALLOWED)} of {matrix.total} pairs allowed, {len(matrix.rectangles)} rectangles")

    refused = [a for a in (ask(engine, q) for q in asked) if a.verdict is Verdict.DENIED][:60]
    seconds, suggestions = timed(lambda: [suggest(engine, a) for a in refused], 2)
    assert all(s is not None and s.verdict is Verdict.ALLOWED for s in suggestions)
    table.line("smallest change, verified", seconds / len(refused), 0.005)
    cold(table, objects)


def padded(objects: list[Any]) -> list[Any]:
    """Pods as large as an API server gives them (5.7 KB): managed fields, volumes, conditions."""
    managed = [
        {
            "manager": "kubelet",
            "operation": "Update",
            "fieldsV1": {f"f:field{n}": {"f:a": {}, "f:b": {}} for n in range(60)},
        }
    ]
    volumes = [{"name": f"v{n}", "projected": {"sources": [{"configMap": {"name": "root-ca"}}]}} for n in range(8)]
    env = [{"name": f"SETTING_{n}", "value": "something of a usual length"} for n in range(20)]
    found = []
    for each in objects:
        if each["kind"] == "Pod":
            spec = dict(each["spec"], volumes=volumes)
            spec["containers"] = [dict(c, env=env) for c in spec["containers"]]
            found.append(dict(each, metadata=dict(each["metadata"], managedFields=managed), spec=spec))
        else:
            found.append(each)
    return found


def cold(table: Table, objects: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clusters" / "a" / "objects"
        folder.mkdir(parents=True)
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": padded(objects)})
        (folder / "all.json").write_text(text)
        pods = [o["metadata"] for o in objects if o["kind"] == "Pod"]
        question = {
            "id": 1,
            "source": {"pod": f"{pods[0]['namespace']}/{pods[0]['name']}"},
            "destination": {"pod": f"{pods[1]['namespace']}/{pods[1]['name']}"},
            "port": PORT,
        }
        command = "import sys; from mcdoctor.cli.policy import app; app()"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", command, "check", "--queries", "-", "--bundle", name, "-o", "jsonl"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert json.loads(done.stdout)["id"] == 1
        gc.disable()
        parsing, _ = timed(lambda: json.loads(text))
        beside = f"json.loads alone {parsing:.2f} s"
        table.line(f"cold `policy check`, 10,000 pods ({len(text) >> 20} MiB of JSON)", seconds, 3.0, beside)


def measure_large() -> None:
    print("100,000 pods x 75,000 policies in 25,000 namespaces (Antrea's shape)")
    objects = large(100_000, 75_000, 25_000)
    gc.freeze()
    gc.disable()
    table = Table()
    parsing, world = timed(lambda: build([ClusterInput("a", objects, cni="kube-router")]))
    table.line("records of raw objects", parsing)
    indexing, engine = timed(lambda: compile_world(world))
    table.line("index (all families compiled)", indexing)
    world_line(engine, 75_000)
    asked = questions(engine, 500)
    seconds, _ = timed(lambda: decisions(engine, asked))
    table.line("one decision with trace", seconds / len(asked) / 2)
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB, raw objects included")


def main() -> int:
    table = Table()
    measure(table)
    if "--quick" not in sys.argv[1:]:
        measure_large()
    return 1 if table.missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
