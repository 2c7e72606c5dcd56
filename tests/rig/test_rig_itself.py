"""The rig does what it promises: the healthy pair works, and each fault really reaches the packets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from mcrig import rig as rigs

pytestmark = [pytest.mark.rig, pytest.mark.timeout(240)]

_GET = """
import json, sys, urllib.request, urllib.error
try:
    body = b"x" * int(sys.argv[2]) if len(sys.argv) > 2 else None
    answer = urllib.request.urlopen(sys.argv[1], data=body, timeout=5).read()
    print(json.dumps({"ok": True, "answer": answer.decode()[:200], "length": len(answer)}))
except urllib.error.URLError as error:
    print(json.dumps({"ok": False, "why": type(error.reason).__name__, "errno": getattr(error.reason, "errno", None)}))
except OSError as error:
    print(json.dumps({"ok": False, "why": type(error).__name__, "errno": error.errno}))
"""


def request(rig: rigs.Rig, path: str = "/", size: int | None = None) -> dict[str, object]:
    """One request from the frontend in A to the Service `backend`."""
    arguments = ["python3", "-", f"http://backend{path}", *([str(size)] if size else [])]
    text = rig.a.kubectl("exec", "-i", "-n", "demo", "deploy/frontend", "--", *arguments, input=_GET)
    answer: dict[str, object] = json.loads(text)
    return answer


def test_the_healthy_pair_answers_and_the_caller_keeps_its_address(clean_rig: rigs.Rig) -> None:
    answer = request(clean_rig)
    pod = json.loads(clean_rig.a.kubectl("get", "pod", "-n", "demo", "-l", "app=frontend", "-o", "json"))["items"][0]
    assert answer["ok"] is True
    assert json.loads(str(answer["answer"]))["from"] == pod["status"]["podIP"]


@pytest.mark.parametrize(
    ("inject", "why"),
    [
        pytest.param(lambda rig: rig.network.route_missing(), "OSError", id="route-missing"),
        pytest.param(lambda rig: rig.network.filter_drop(80), "TimeoutError", id="drop"),
        pytest.param(lambda rig: rig.network.filter_reject(80), "ConnectionRefusedError", id="reject"),
    ],
)
def test_a_fault_between_the_clusters_stops_the_request(
    clean_rig: rigs.Rig, inject: Callable[[rigs.Rig], None], why: str
) -> None:
    inject(clean_rig)
    errno = {"OSError": 101, "ConnectionRefusedError": 111}.get(why)
    assert request(clean_rig) == {"ok": False, "why": why, "errno": errno}
    clean_rig.network.clear()
    assert request(clean_rig)["ok"] is True


@pytest.mark.parametrize("path_and_size", [("/", 200_000), ("/bytes/200000", None)], ids=["upload", "download"])
def test_a_small_mtu_without_icmp_is_a_black_hole_for_large_payloads_only(
    clean_rig: rigs.Rig, path_and_size: tuple[str, int | None]
) -> None:
    clean_rig.network.mtu(1400, icmp=False)
    assert request(clean_rig)["ok"] is True
    assert request(clean_rig, *path_and_size)["why"] == "TimeoutError"


def test_a_small_mtu_with_icmp_only_makes_packets_smaller(clean_rig: rigs.Rig) -> None:
    clean_rig.network.mtu(1400, icmp=True)
    assert request(clean_rig, "/", 200_000)["ok"] is True


_ROUND_TRIPS = """
import socket, sys, time
query = bytes.fromhex("000001000001000000000000") + b"\\x00" + bytes.fromhex("00020001")
ends = []
for _ in range(200):
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.setblocking(False)
    end.sendto(query, (sys.argv[1], 30053))
    ends.append(end)
    time.sleep(0.002)
time.sleep(1)
def answered(end):
    try:
        return bool(end.recv(512))
    except BlockingIOError:
        return False
print(sum(map(answered, ends)))
"""


def test_loss_hits_about_the_share_that_was_asked_for(clean_rig: rigs.Rig) -> None:
    def round_trips() -> int:
        return int(clean_rig.a.node.run("python3", "-c", _ROUND_TRIPS, clean_rig.b.site.node))

    assert round_trips() == 200
    clean_rig.network.loss(0.3)
    # Both directions must survive: 0.7 * 0.7 = 98 of 200; six standard deviations either side.
    assert 56 <= round_trips() <= 140


def test_network_policy_is_enforced(clean_rig: rigs.Rig) -> None:
    clean_rig.b.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: demo}\n"
        "spec: {podSelector: {}, policyTypes: [Ingress]}\n"
    )
    deadline = time.monotonic() + 10
    while request(clean_rig)["ok"] and time.monotonic() < deadline:
        time.sleep(0.3)
    assert request(clean_rig)["ok"] is False


def test_an_ephemeral_container_runs_from_the_image_on_the_node(clean_rig: rigs.Rig) -> None:
    pod = clean_rig.a.kubectl("get", "pod", "-n", "demo", "-l", "app=frontend", "-o", "name").strip()
    name = f"probe-{time.time_ns()}"
    clean_rig.a.kubectl(
        "debug", "-n", "demo", pod, "--image=python:3-slim", "--profile=restricted", "-c", name, "--quiet", "--",
        "python3", "-c", "import os, ssl, sqlite3; print('as', os.getuid())",
    )  # fmt: skip
    deadline = time.monotonic() + 15
    while not (text := clean_rig.a.kubectl("logs", "-n", "demo", pod, "-c", name, check=False)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert text == "as 10001\n"
