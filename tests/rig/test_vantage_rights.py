"""With fewer rights than it wants, the command still reports what it could see, and names the right that is missing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from mcrig import rig as rigs

pytestmark = [pytest.mark.rig, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[rigs.Rig]:
    rig = rigs.running() or request.getfixturevalue("rig")
    yield rig
    for name, printed in _applied:
        getattr(rig, name).kubectl("delete", "--ignore-not-found", "-f", "-", input=printed)
    _applied.clear()
    # a pod that has had many debug containers becomes slow to look at; the next tests get a fresh one
    rig.a.kubectl("-n", "demo", "rollout", "restart", "deployment/frontend")
    rig.a.kubectl("-n", "demo", "rollout", "status", "deployment/frontend", "--timeout=60s", timeout=70)


_applied: list[tuple[str, str]] = []


def granted(rig: rigs.Rig, user: str, *arguments: str, clusters: str = "ab") -> None:
    """Applies exactly what `mcdoctor rbac` prints."""
    command = [sys.executable, "-m", "mcdoctor", "rbac", "-n", "demo", "--user", user, *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    for name in clusters:
        getattr(rig, name).apply(printed)
        _applied.append((name, printed))


def diagnose(rig: rigs.Rig, user: str, *arguments: str) -> tuple[int, dict[str, Any] | None, str]:
    """Exit code, report and stderr of a diagnosis of the demo as a user."""
    command = [sys.executable, "-m", "mcdoctor", "diagnose", "frontend", "backend", "--yes", "-o", "json"]
    command += ["--kubeconfig", str(rig.kubeconfig), "--context", "cluster-a", "--to-context", "cluster-b"]
    ran = subprocess.run([*command, "--as", user, *arguments], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in ran.stderr
    return ran.returncode, json.loads(ran.stdout) if ran.stdout else None, ran.stderr


def permissions(report: dict[str, Any] | None) -> set[str]:
    assert report is not None
    return {limit["permission"] for limit in report["limits"] if limit.get("permission")}


def facts(report: dict[str, Any] | None, kind: str) -> list[dict[str, Any]]:
    assert report is not None
    return [f for f in report["facts"] if f["kind"] == kind]


def test_what_rbac_prints_is_enough_for_a_whole_diagnosis(cluster: rigs.Rig) -> None:
    granted(cluster, "rig-all", "--for", "probe", "--cluster-scope")
    _, report, stderr = diagnose(cluster, "rig-all")
    other = {"get configmaps in istio-system", "get configmaps in openshift-dns"}  # the rig has no such namespaces
    assert permissions(report) <= other
    assert facts(report, "http_request") or facts(report, "tcp_connect")
    assert "has ended" in stderr


def test_a_viewer_gets_a_static_report_that_names_the_verbs(cluster: rigs.Rig) -> None:
    granted(cluster, "rig-view", "--for", "diagnose", "--cluster-scope")
    code, report, stderr = diagnose(cluster, "rig-view")
    assert code == 3 and report is not None and report["verdict"] == "inconclusive"
    assert {"patch pods/ephemeralcontainers in demo", "get pods/attach in demo"} <= permissions(report)
    commands = [limit.get("command", "") for limit in report["limits"]]
    assert any(c.startswith("mcdoctor rbac --for probe --probe ephemeral -n demo --user rig-view |") for c in commands)
    assert any(check["outcome"] == "passed" for check in report["checks"])
    assert not facts(report, "tcp_connect") and "ephemeral containers cannot be removed" not in stderr


def test_one_namespace_only(cluster: rigs.Rig) -> None:
    granted(cluster, "rig-namespaced", "--for", "probe")
    _, report, _ = diagnose(cluster, "rig-namespaced", "-n", "demo")
    assert "get namespaces" in permissions(report)
    assert facts(report, "dns_answer")


def test_the_other_cluster_may_be_closed(cluster: rigs.Rig) -> None:
    granted(cluster, "rig-only-a", "--for", "probe", "--cluster-scope", clusters="a")
    _, report, _ = diagnose(cluster, "rig-only-a", "-n", "demo")
    assert (report is not None and report["verdict"] != "healthy") or facts(report, "http_series")
    assert facts(report, "dns_answer")
    wanted = {limit.get("permission") for limit in report["limits"] if "cluster-b" in limit["what"]}
    assert "list endpointslices in demo" in wanted


def test_no_right_at_all_is_not_the_absence_of_the_workload(cluster: rigs.Rig) -> None:
    code, report, stderr = diagnose(cluster, "rig-stranger", "-n", "demo")
    assert code == 3 and report is None
    assert "not allowed to get deployments in demo" in stderr and "no workload" not in stderr


@pytest.mark.parametrize("delay", [0.6, 1.2, 1.8, 2.5])
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_diagnosis_leaves_no_running_container(cluster: rigs.Rig, delay: float, sign: int) -> None:
    command = [sys.executable, "-m", "mcdoctor", "diagnose", "frontend", "backend", "--yes"]
    command += ["--kubeconfig", str(cluster.kubeconfig), "--context", "cluster-a", "--to-context", "cluster-b"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(sign)
    _, err = process.communicate(timeout=30)
    # killed by SIGINT is 130 for a shell: so Python ends when the signal came while a class was being made
    assert process.returncode in (130, -signal.SIGINT, 0, 1, 3), err
    assert "Traceback" not in err
    until = time.monotonic() + 3
    ours = set(re.findall(r"mcdoctor-[a-z0-9]+", err))  # said before it is created; the pod may serve other runs too
    while (running := ours & _running(cluster)) and time.monotonic() < until:
        time.sleep(0.2)
    assert running == set()


def _running(rig: rigs.Rig) -> set[str]:
    pods = json.loads(rig.a.kubectl("-n", "demo", "get", "pods", "-l", "app=frontend", "-o", "json"))["items"]
    return {
        status["name"]
        for pod in pods
        for status in pod["status"].get("ephemeralContainerStatuses") or []
        if "running" in status["state"]
    }
