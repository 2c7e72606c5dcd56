"""What a diagnosis costs: it does not grow with what else is in the cluster, it stays small, and it starts soon."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcrig import faultproxy, load
from mcrig import rig as rigs
from mcrig.faultproxy import FaultProxy, Seen

pytestmark = [pytest.mark.rig, pytest.mark.timeout(400)]


def run(rig: rigs.Rig, tmp_path: Path) -> tuple[dict[str, object], list[Seen], int]:
    """Report, requests to both API servers, and the peak memory of the process in KiB."""
    with FaultProxy(rig.a) as a, FaultProxy(rig.b) as b:
        config = faultproxy.kubeconfig(tmp_path / "kubeconfig", {"cluster-a": a, "cluster-b": b})
        out = tmp_path / "report.json"
        command = [sys.executable, "-m", "mcdoctor", "diagnose", "frontend", "backend", "--context", "cluster-a"]
        command += ["--yes", "-o", "json"]
        environment = {**os.environ, "KUBECONFIG": str(config), "MCDOCTOR_HISTORY": "off"}
        with out.open("wb") as stream:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.DEVNULL, env=environment
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return json.loads(out.read_text()), [*a.seen, *b.seen], usage.ru_maxrss


@pytest.fixture(scope="module")
def filled(rig: rigs.Rig) -> Iterator[None]:
    for cluster in rig.clusters:
        load.fill(cluster)
    yield
    for cluster in rig.clusters:
        load.empty(cluster)


def _reading(seen: list[Seen]) -> tuple[list[str], int]:
    """The requests that read, and their bytes. The prober's own stream is left out: it is the same work every time."""
    reads = [request for request in seen if request.method == "GET" and "/attach" not in request.path]
    paths = sorted(request.path.partition("?")[0] for request in reads if "/pods/" not in request.path)
    return paths, sum(request.received for request in reads if "/pods/" not in request.path)


def test_cost_does_not_grow_with_other_namespaces(
    clean_rig: rigs.Rig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run(clean_rig, tmp_path)  # what only a first run asks is not what is compared
    _, alone, _ = run(clean_rig, tmp_path)
    request.getfixturevalue("filled")
    report, crowded, memory = run(clean_rig, tmp_path)
    assert report["verdict"] == "healthy"
    paths_alone, bytes_alone = _reading(alone)
    paths_crowded, bytes_crowded = _reading(crowded)
    assert paths_crowded == paths_alone
    assert bytes_crowded < bytes_alone * 1.2 + 2000, f"{bytes_alone} bytes became {bytes_crowded}"
    assert memory < 150 * 1024, f"{memory} KiB at the peak"


def test_the_first_fact_comes_within_3_seconds(clean_rig: rigs.Rig, tmp_path: Path) -> None:
    report, seen, _ = run(clean_rig, tmp_path)
    asked = next(
        r.at for r in seen if r.method == "PATCH" and "ephemeralcontainers" in r.path and "dryRun" not in r.path
    )
    first = min(
        datetime.datetime.fromisoformat(fact["at"]).timestamp()
        for fact in report["facts"]  # type: ignore[attr-defined]
        if str(fact["vantage"].get("container", "")).startswith("mcdoctor")
    )
    assert first - asked <= 3.0, f"{first - asked:.1f} s"
