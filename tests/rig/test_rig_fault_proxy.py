"""The proxy in front of the API server fails as told, counts honestly, and otherwise lets everything through."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from mcrig import binaries, faultproxy, pki
from mcrig import rig as rigs
from mcrig.cluster import Cluster, Site
from mcrig.faultproxy import CutBody, Die, FaultProxy, Refuse, Rule, Slow
from mcrig.machines import Machine

pytestmark = pytest.mark.timeout(120)

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


@pytest.mark.rig
def test_without_a_rule_everything_passes_and_is_counted(proxy: FaultProxy, token: str) -> None:
    status, _, body = ask(proxy, token, PODS)
    assert (status, json.loads(body)["kind"]) == (200, "PodList")
    assert [(seen.method, seen.path, seen.status) for seen in proxy.seen] == [("GET", PODS, 200)]
    assert len(body) < proxy.bytes < len(body) + 4000


@pytest.mark.rig
def test_exec_passes_as_an_upgrade(proxy: FaultProxy, tmp_path: Path) -> None:
    config = faultproxy.kubeconfig(tmp_path / "kubeconfig", {"cluster-a": proxy})
    command = [binaries.need("kubectl"), "--kubeconfig", config, "exec", "-n", "demo", "deploy/frontend", "--"]
    command += ["python3", "-c", "print('y' * 100000)"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout == "y" * 100000 + "\n", result.stderr


@pytest.mark.rig
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


@pytest.mark.rig
def test_a_body_that_is_cut(proxy: FaultProxy, token: str) -> None:
    proxy.rules.append(Rule(CutBody(100), PODS))
    with pytest.raises((ConnectionError, http.client.IncompleteRead, ssl.SSLError)):
        ask(proxy, token, PODS)
    assert ask(proxy, token, "/version")[0] == 200


@pytest.mark.rig
def test_death_comes_after_the_requests_it_was_told_to_let_pass(proxy: FaultProxy, token: str) -> None:
    proxy.rules.append(Rule(Die(), skip=1))
    assert ask(proxy, token, "/version")[0] == 200
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected, ssl.SSLError)):
        ask(proxy, token, "/version")
    with pytest.raises(ConnectionRefusedError):
        ask(proxy, token, "/version")


@pytest.mark.rig
def test_a_slow_server_meets_the_time_limit_of_the_client(proxy: FaultProxy, token: str) -> None:
    proxy.rules.append(Rule(Slow(2), times=1))
    with pytest.raises(TimeoutError):
        ask(proxy, token, "/version", timeout=0.5)
    assert ask(proxy, token, "/version")[0] == 200


# --- its end, which needs no cluster: a server that takes every request for an upgrade and echoes stands for one ---


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("lone")
    pki.Authority.create(folder / "pki", "lone").issue("server", "server", hosts=("127.0.0.1",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pki" / "server.crt", folder / "pki" / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def echo(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as far:
                far.recv(65536)
                far.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                while piece := far.recv(65536):
                    far.sendall(piece)
        except OSError:
            connection.close()

    def serve() -> None:
        try:
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=echo, args=(connection,), daemon=True).start()
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    nowhere = cast(Machine, None)  # the proxy uses neither machine
    yield Cluster(Site("lone", 99, listener.getsockname()[1]), folder, nowhere, nowhere)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def tunnel(proxy: FaultProxy) -> ssl.SSLSocket:
    """A connection through the proxy on which what is sent comes back."""
    context = ssl.create_default_context(cafile=str(proxy.cluster.pki / "ca.crt"))
    plain = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    near = context.wrap_socket(plain, server_hostname="127.0.0.1")
    near.sendall(b"GET /attach HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    assert near.recv(65536).startswith(b"HTTP/1.1 101 ")
    return near


def over(near: ssl.SSLSocket, request: bytes = b"") -> bool:
    """True when the other side has let go of the connection."""
    try:
        near.sendall(request)
        return near.recv(100) == b""
    except ConnectionError:
        return True


def close_after(proxy: FaultProxy, together: threading.Barrier, delay: float) -> None:
    together.wait()
    time.sleep(delay)
    proxy.close()


def test_closing_from_two_threads_at_once_ends_it_once(lone: Cluster) -> None:
    """The second used to hand its work to a loop that had just stopped, and waited in vain."""
    with ThreadPoolExecutor(2) as pool:
        for turn in range(20):
            proxy = FaultProxy(lone)
            with tunnel(proxy) as near:
                near.sendall(b"still there")
                assert near.recv(100) == b"still there"
                together = threading.Barrier(2)
                closings = [pool.submit(close_after, proxy, together, delay) for delay in (0.0, turn * 0.0001)]
                for closing in closings:
                    closing.result(30)
                assert over(near)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def test_who_was_connected_but_not_greeted_when_it_died_is_not_served(lone: Cluster) -> None:
    with FaultProxy(lone) as proxy:
        plain = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
        proxy.rules.append(Rule(Die(), "^GET /die"))
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected, ssl.SSLError)):
            ask(proxy, "none", "/die")
        context = ssl.create_default_context(cafile=str(lone.pki / "ca.crt"))
        try:
            late = context.wrap_socket(plain, server_hostname="127.0.0.1")
        except OSError:
            plain.close()
        else:
            with late:
                assert over(late, b"GET /late HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n")
        assert [seen.path for seen in proxy.seen] == ["/die"]
