"""The carrier of a process's streams, and the ways to an API server: quiet lines, slow readers, proxies, odd ends."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest
import yaml

from mcdoctor.kube import streams
from mcdoctor.kube.access import Right, review, whoami
from mcdoctor.kube.config import connect
from mcdoctor.kube.errors import NoAnswer
from mcdoctor.kube.reader import ApiReader
from mcdoctor.kube.streams import attach, execute
from mcdoctor.kube.transport import Refused
from mcdoctor.models.facts import Blind, Listed

ATTACH = "/api/v1/namespaces/shop/pods/p/attach"
EXEC = "/api/v1/namespaces/shop/pods/p/exec"


def opened(fake, talk):
    fake.route(ATTACH, lambda _: talk)
    return attach(fake.connect(), "shop", "p", "c")


def test_what_is_asked_of_the_server(fake):
    stream = opened(fake, lambda ws: ws.close())
    assert stream.wait(2)
    (request,) = fake.asked(ATTACH)
    assert dict(request.query) == {
        "container": "c", "stdin": "true", "stdout": "true", "stderr": "true", "tty": "false",
    }  # fmt: skip
    assert request.header("Sec-WebSocket-Protocol") == ["v5.channel.k8s.io,v4.channel.k8s.io"]


def test_frames_of_any_cut_come_out_as_one_stream(fake):
    def talk(ws):
        for piece in (b"he", b"", b"llo\n", b"x" * 70_000, b"\n"):
            ws.send(b"\x01" + piece)
        ws.send(b"\x02warning\n")
        ws.close()

    stream = opened(fake, talk)
    assert stream.reader.read() == b"hello\n" + b"x" * 70_000 + b"\n"
    assert stream.wait(2) and stream.stderr == "warning\n" and stream.ending == "the process ended"
    stream.close()
    stream.close()


def test_a_slow_reader_holds_the_sender_and_loses_nothing(fake, monkeypatch):
    monkeypatch.setattr(streams, "_BACKLOG", 100_000)
    whole = b"y" * 3_000_000

    def talk(ws):
        for i in range(0, len(whole), 50_000):
            ws.send(b"\x01" + whole[i : i + 50_000])
        ws.close()

    stream = opened(fake, talk)
    reader, got = stream.reader, b""
    while piece := reader.read1(65536):
        got += piece
        time.sleep(0.001)
    assert got == whole


def test_end_of_input_is_told_and_output_still_comes(fake):
    def talk(ws):
        data = b""
        while (frame := ws.receive()) and frame[1] != b"\xff\x00":
            data += frame[1][1:]
        ws.send(b"\x01" + data.upper())
        ws.close()

    stream = opened(fake, talk)
    writer = stream.writer
    writer.write(b"quiet ")
    writer.write(b"words" * 20_000)
    writer.flush()
    writer.close()
    assert stream.reader.read() == b"QUIET " + b"WORDS" * 20_000


@pytest.mark.parametrize(
    ("status", "code", "ending"),
    [
        ({"status": "Success"}, 0, "the process ended"),
        (
            {"status": "Failure", "message": "exit 3", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}},
            3,
            "exit 3",
        ),
        ({"status": "Failure", "message": "no such\ncontainer"}, None, "no such container"),
    ],
)
def test_how_a_process_ended(fake, status, code, ending):
    def talk(ws):
        ws.send(b"\x03" + json.dumps(status).encode())
        ws.close()

    fake.route(EXEC, lambda _: talk)
    stream = execute(fake.connect(), "shop", "p", "c", ["x", "y z"])
    assert stream.wait(2)
    assert (stream.exit_code, stream.ending) == (code, ending)
    assert [v for k, v in fake.asked(EXEC)[0].query if k == "command"] == ["x", "y z"]


@pytest.mark.parametrize(
    ("talk", "ending"),
    [
        (lambda ws: ws.raw.shutdown(2), "the connection to the container was lost"),
        (lambda ws: ws.close(1011), "the API server closed the connection (1011 )"),
        (lambda ws: ws.send(b"\x03container gone"), "container gone"),
    ],
)
def test_why_a_stream_ended(fake, talk, ending):
    stream = opened(fake, talk)
    assert stream.reader.read() == b"" and stream.wait(2)
    assert ending in str(stream.ending)


def test_a_quiet_line_is_kept_open_by_pings(fake, monkeypatch):
    monkeypatch.setattr(streams, "_PING", 0.2)
    pings = []

    def talk(ws):
        while len(pings) < 3 and (frame := ws.receive()):
            if frame[0] == 9:
                pings.append(frame)
                ws.send(frame[1], 10)
        ws.send(b"\x01still here\n")
        ws.close()

    stream = opened(fake, talk)
    assert stream.reader.readline() == b"still here\n" and len(pings) == 3


def test_a_line_that_went_dead_without_a_word_is_noticed(fake, monkeypatch):
    monkeypatch.setattr(streams, "_PING", 0.1)
    stream = opened(fake, lambda ws: time.sleep(5))
    assert stream.wait(4) and "nothing was heard" in str(stream.ending)


def test_closing_wakes_a_reader(fake):
    stream = opened(fake, lambda ws: ws.receive() and ws.receive())
    threading.Timer(0.2, stream.close).start()
    started = time.monotonic()
    with suppress(ValueError, OSError):
        assert stream.reader.read() == b""
    assert time.monotonic() - started < 2


def test_a_websocket_that_is_refused_carries_the_answer(fake, reply, failure):
    fake.route(ATTACH, reply(403, failure(403, "Forbidden", "cannot get resource pods/attach")))
    with pytest.raises(Refused, match="cannot get resource pods/attach") as caught:
        attach(fake.connect(), "shop", "p", "c")
    assert caught.value.answer.status == 403


def test_a_websocket_that_never_opens_ends_by_the_time_out(fake, reply):
    fake.route(ATTACH, reply(delay=4))
    api = fake.connect()
    started = time.monotonic()
    with pytest.raises(NoAnswer, match="did not open a websocket"):
        api.websocket(ATTACH, [], ["v5.channel.k8s.io"], timeout=0.3)
    assert time.monotonic() - started < 2
    fake.stop()
    with pytest.raises(NoAnswer, match="no websocket to"):
        api.websocket(ATTACH, [], ["v5.channel.k8s.io"], timeout=0.3)


# --- the way to the server ---


class Proxy:
    """A proxy that knows CONNECT."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        line = head.split(b"\r\n")[0].decode()
        self.asked.append(line)
        host, port = line.split()[1].rsplit(":", 1)
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=self._copy, args=(server, client), daemon=True).start()
        self._copy(client, server)

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        self._listener.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.stop()


def test_the_proxy_of_the_kubeconfig_carries_requests_and_websockets(fake, proxy, tmp_path):
    fake.route("/version", {"gitVersion": "v1"})
    fake.route(ATTACH, lambda _: lambda ws: ws.send(b"\x01hi\n"))
    document = yaml.safe_load(fake.kubeconfig().read_text())
    document["clusters"][0]["cluster"]["proxy-url"] = f"http://127.0.0.1:{proxy.port}"
    path = tmp_path / "c"
    path.write_text(yaml.safe_dump(document))
    api = connect(kubeconfig=str(path), request_timeout=3)
    assert ApiReader(api).check() == "v1"
    assert attach(api, "shop", "p", "c").reader.readline() == b"hi\n"
    target = fake.url.removeprefix("https://")
    assert [line.split()[:2] for line in proxy.asked] == [["CONNECT", target]] * 2
    proxy.stop()
    document["clusters"][0]["cluster"]["proxy-url"] = "http://127.0.0.1:1"
    path.write_text(yaml.safe_dump(document))
    fact = ApiReader(connect(kubeconfig=str(path), request_timeout=3)).list("Service", "shop")[0]
    assert isinstance(fact, Blind) and "proxy" in fact.reason


def test_a_name_that_does_not_resolve(tmp_path):
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://api.invalid:6443"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
        "current-context": "c",
    }
    path = tmp_path / "c"
    path.write_text(yaml.safe_dump(document))
    fact = ApiReader(connect(kubeconfig=str(path), request_timeout=3)).list("Service", "shop")[0]
    assert isinstance(fact, Blind) and "https://api.invalid:6443 does not resolve" in fact.reason


def test_a_plain_text_port_is_no_tls(certificates, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    client.close()

        threading.Thread(target=serve, daemon=True).start()
        server = f"https://127.0.0.1:{listener.getsockname()[1]}"
        document = {
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
            "current-context": "c",
        }
        path = tmp_path / "c"
        path.write_text(yaml.safe_dump(document))
        fact = ApiReader(connect(kubeconfig=str(path), request_timeout=3)).list("Service", "shop")[0]
    assert isinstance(fact, Blind) and ("TLS with" in fact.reason or "dropped the connection" in fact.reason)


# --- reviews ---


def test_reviews_are_data_and_never_raise(fake, reply, failure):
    rights = [Right("list", "endpointslices", "shop", "discovery.k8s.io"), Right("get", "pods/attach", name="p")]
    assert [str(r) for r in rights] == ["list endpointslices.discovery.k8s.io in shop", "get pods/attach"]
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    fake.route(path, lambda r: reply(201, {"status": {"allowed": "namespace" in r.body["spec"]["resourceAttributes"]}}))
    assert [r.allowed for r in review(fake.connect(), rights)] == [True, False]
    fake.route(path, reply(403, failure(403, "Forbidden", "no reviews for you")))
    (asked, _) = review(fake.connect(), rights)
    assert asked.allowed is None and asked.reason == "no reviews for you"
    fake.route(path, reply(body=b"nonsense"))
    assert review(fake.connect(), rights)[0].allowed is None
    api = fake.connect()
    fake.stop()
    assert [r.allowed for r in review(api, rights)] == [None, None]
    assert whoami(api) is None


def test_threads_share_a_reader(fake):
    body = {"kind": "ServiceList", "apiVersion": "v1", "metadata": {}, "items": []}
    fake.route("/api/v1/namespaces", body)
    reader = ApiReader(fake.connect())
    results = []
    threads = [
        threading.Thread(target=lambda i=i: results.append(reader.list("Service", f"n{i}")[-1])) for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(results) == 12 and all(isinstance(r, Listed) for r in results)
    assert all(r.at <= datetime.now(UTC) for r in results)
