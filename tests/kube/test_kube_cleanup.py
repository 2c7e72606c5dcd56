"""Cleanup finds what is ours, ends or deletes it, and never touches anything else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mcdoctor.kube.cleanup import Leftover, end, find

LABELS = {"app.kubernetes.io/managed-by": "mcdoctor", "mcdoctor.dev/run": "r1"}


def ephemeral(name: str, run: str | None = "r2") -> dict:
    return {"name": name, "env": [{"name": "MCDOCTOR_RUN", "value": run}] if run else []}


def pods(*states: tuple[str, str | None, dict]) -> dict:
    frontend = {
        "metadata": {"name": "frontend", "namespace": "shop"},
        "spec": {"ephemeralContainers": [ephemeral(name, run) for name, run, _ in states]},
        "status": {"ephemeralContainerStatuses": [{"name": name, "state": state} for name, _, state in states]},
    }
    own = {
        "metadata": {"name": "mcdoctor-run-r1", "namespace": "shop", "labels": LABELS},
        "status": {"phase": "Running"},
    }
    return {"kind": "PodList", "metadata": {}, "items": [frontend, own]}


def maps() -> dict:
    owner = {
        "name": "mcdoctor-run-r1",
        "namespace": "shop",
        "labels": LABELS,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"kind": "ConfigMapList", "metadata": {}, "items": [{"metadata": owner}]}


@pytest.fixture
def shop(fake):
    fake.route(
        "/api/v1/namespaces/shop/pods",
        pods(
            ("mcdoctor-r2", "r2", {"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
            ("mcdoctor-r3", "r3", {"terminated": {"exitCode": 0}}),
            ("mcdoctor-r4", "r4", {"waiting": {"reason": "ImagePullBackOff"}}),
            ("mcdoctor-not-ours", None, {"running": {}}),
            ("debugger-abc", "r5", {"running": {}}),
        ),
    )
    fake.route("/api/v1/namespaces/shop/configmaps", maps())
    fake.route("/version", {"gitVersion": "v1.36.2"})
    return fake


def test_only_what_is_ours_is_found(shop):
    found = find(shop.connect(), "shop")
    assert [(x.kind, x.name, x.run, x.can_go) for x in found.leftovers] == [
        ("ephemeral container", "mcdoctor-r2", "r2", True),
        ("ephemeral container", "mcdoctor-r3", "r3", False),
        ("ephemeral container", "mcdoctor-r4", "r4", False),
        ("pod", "mcdoctor-run-r1", "r1", True),
        ("configmap", "mcdoctor-run-r1", "r1", True),
    ]
    assert found.unseen == ()
    assert shop.asked("/api/v1/namespaces/shop/configmaps")[0].asked("labelSelector") == (
        "app.kubernetes.io/managed-by=mcdoctor"
    )
    assert str(found.leftovers[0]) == (
        "ephemeral container mcdoctor-r2 in pod shop/frontend (running, since 2026-01-01T00:00:00Z)"
    )


def test_one_run_can_be_chosen(shop):
    assert {x.run for x in find(shop.connect(), "shop", "r1").leftovers} == {"r1"}


def test_what_cannot_be_looked_at_is_said(shop, reply, failure):
    shop.route("/api/v1/namespaces/shop/configmaps", reply(403, failure(403, "Forbidden", "configmaps is forbidden")))
    found = find(shop.connect(), "shop")
    assert found.unseen == ("configmaps: configmaps is forbidden",) and len(found.leftovers) == 4


def test_a_deletion_is_waited_for_and_told(shop, reply, failure):
    gone = []
    path = "/api/v1/namespaces/shop/configmaps/mcdoctor-run-r1"

    def answer(request):
        if request.method == "DELETE":
            gone.append(request.body["propagationPolicy"])
            return reply(body={"kind": "Status", "status": "Success"})
        return reply(404, failure(404, "NotFound", "gone", name="mcdoctor-run-r1", kind="configmaps"))

    shop.route(path, answer)
    one = Leftover(kind="configmap", namespace="shop", name="mcdoctor-run-r1")
    assert end(shop.connect(), "a", one) == "deleted configmap shop/mcdoctor-run-r1"
    assert gone == ["Background"]
    shop.route(path, reply(403, failure(403, "Forbidden", "cannot delete resource")))
    assert end(shop.connect(), "a", one).startswith("could not delete configmap shop/mcdoctor-run-r1: cannot delete")


def command(fake, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mcdoctor", "cleanup", "--kubeconfig", str(fake.kubeconfig()), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def test_without_a_terminal_it_wants_a_yes(shop):
    ran = command(shop)
    assert ran.returncode == 2 and "use --yes" in ran.stderr and "found pod shop/mcdoctor-run-r1" in ran.stderr
    assert not [r for r in shop.requests if r.method == "DELETE"]


def test_a_dry_run_only_shows(shop):
    ran = command(shop, "--dry-run")
    assert ran.returncode == 0 and ran.stdout == ""
    assert "2 ephemeral container(s) of earlier runs have ended" in ran.stderr
    assert not [r for r in shop.requests if r.method == "DELETE"]


def test_a_dead_server_and_an_unknown_context_are_one_line(shop):
    ran = command(shop, "--context", "nope")
    assert ran.returncode == 2 and "known: here" in ran.stderr and "Traceback" not in ran.stderr
    path = shop.kubeconfig()
    shop.stop()
    line = [sys.executable, "-m", "mcdoctor", "cleanup", "--kubeconfig", str(path)]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 3 and "Connection refused" in ran.stderr and "Traceback" not in ran.stderr
