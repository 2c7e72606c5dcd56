"""The proxy in front of the API server fails as told, counts honestly, and otherwise lets everything through."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcrig import binaries, faultproxy
from mcrig import rig as rigs
from mcrig.faultproxy import CutBody, Die, FaultProxy, Refuse, Rule, Slow

pytestmark = [pytest.mark.rig, pytest.mark.timeout(120)]

PODS = "/api/v1/namespaces/demo/pods"


@pytest.fixture(scope="module")
def token(rig: rigs.Rig) -> str:
    return faultproxy.admin_token(rig.a)


@pytest.fixture
def proxy(rig: rigs.Rig) -> Iterator[FaultProxy]:
    with FaultProxy(rig.a) as proxy:
        yield proxy


def ask(proxy: FaultProxy, token: str, path: str, timeout: float = 10) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, as a client without retries sees them."""
    context = ssl.create_default_context(cafile=str(proxy.cluster.pki / "ca.crt"))
    host, port = proxy.server.removeprefix("https://").split(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def test_without_a_rule_everything_passes_and_is_counted(proxy: FaultProxy, token: str) -> None:
    status, _, body = ask(proxy, token, PODS)
    assert (status, json.loads(body)["kind"]) == (200, "PodList")
    assert [(seen.method, seen.path, seen.status) for seen in proxy.seen] == [("GET", PODS, 200)]
    assert len(body) < proxy.bytes < len(body) + 4000


def test_exec_passes_as_an_upgrade(proxy: FaultProxy, tmp_path: Path) -> None:
    config = faultproxy.kubeconfig(tmp_path / "kubeconfig", {"cluster-a": proxy})
    command = [binaries.need("kubectl"), "--kubeconfig", config, "exec", "-n", "demo", "deploy/frontend", "--"]
    command += ["python3", "-c", "print('y' * 100000)"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout == "y" * 100000 + "\n", result.stderr


@pytest.mark.parametrize(
    ("status", "reason"), [(429, "TooManyRequests"), (500, "InternalError"), (401, "Unauthorized")]
)
def test_a_refusal_is_the_one_asked_for_as_often_as_asked_for(
    proxy: FaultProxy, token: str, status: int, reason: str
) -> None:
    proxy.rules.append(Rule(Refuse(status, retry_after=1), f"GET {PODS}", times=2))
    for _ in range(2):
        answer, headers, body = ask(proxy, token, PODS)
        assert (answer, headers["Retry-After"], json.loads(body)["reason"]) == (status, "1", reason)
    assert ask(proxy, token, PODS)[0] == 200


def test_a_body_that_is_cut(proxy: FaultProxy, token: str) -> None:
    proxy.rules.append(Rule(CutBody(100), PODS))
    with pytest.raises((ConnectionError, http.client.IncompleteRead, ssl.SSLError)):
        ask(proxy, token, PODS)
    assert ask(proxy, token, "/version")[0] == 200


def test_death_comes_after_the_requests_it_was_told_to_let_pass(proxy: FaultProxy, token: str) -> None:
    proxy.rules.append(Rule(Die(), skip=1))
    assert ask(proxy, token, "/version")[0] == 200
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected, ssl.SSLError)):
        ask(proxy, token, "/version")
    with pytest.raises(ConnectionRefusedError):
        ask(proxy, token, "/version")


def test_a_slow_server_meets_the_time_limit_of_the_client(proxy: FaultProxy, token: str) -> None:
    proxy.rules.append(Rule(Slow(2), times=1))
    with pytest.raises(TimeoutError):
        ask(proxy, token, "/version", timeout=0.5)
    assert ask(proxy, token, "/version")[0] == 200
