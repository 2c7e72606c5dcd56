"""HTTP/1, HTTP/2 and gRPC requests against real servers, well-behaved and not."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import hpack
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from hypothesis import given
from hypothesis import strategies as st

from mcdoctor.models.facts import Blind, Fact, HttpRequest, HttpSeries
from mcdoctor.models.requests import SendRequest
from mcdoctor.net import h2, http

Ask = Callable[..., list[Fact]]
Start = Callable[..., Any]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def send(ask: Ask, port: int, path: str = "/", scheme: str = "http", **more: Any) -> HttpRequest:
    request = SendRequest(url=f"{scheme}://api.example:{port}{path}", address="127.0.0.1", **{"timeout": 1.0, **more})
    (fact,) = ask(request)
    assert isinstance(fact, HttpRequest), fact
    return fact


def answering(read_request: Start, *pieces: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        read_request(connection)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)

    return talk


def test_a_whole_answer(ask: Ask, serve: Start, read_request: Start) -> None:
    heads: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        heads.append(read_request(connection))
        connection.sendall(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 11\r\nServer: envoy\r\n"
            b"X-Served-By: cluster-b/pod-1\r\n"
            b"Set-Cookie: sid=abc\r\nX-Envoy-Upstream-Service-Time: 3\r\nX-Other: 1\r\n\r\nno upstream"
        )

    fact = send(ask, serve(talk).port, "/ready?x=1", headers={"X-Tenant": "7", "Authorization": "Bearer abcdef123456"})
    assert (fact.result, fact.status, fact.body_start, fact.body_bytes) == ("response", 503, "no upstream", 11)
    assert fact.served_by == "cluster-b/pod-1"
    assert fact.headers == {
        "content-length": "11", "server": "envoy", "x-served-by": "cluster-b/pod-1",
        "x-envoy-upstream-service-time": "3",
    }  # fmt: skip
    assert fact.request_headers == {"X-Tenant": "7", "Authorization": "[redacted]"}
    assert fact.connection == "new"
    head = heads[0].decode()
    assert head.startswith("GET /ready?x=1 HTTP/1.1\r\nHost: api.example:")
    assert "Authorization: Bearer abcdef123456" in head


@pytest.mark.parametrize("pieces, status, body", [
    ((CHUNKED + b"4\r\nab", b"cd\r\n3;x=y\r\nefg\r\n0\r\nT: 1\r\n\r\n"), 200, "abcdefg"),
    ((b"HTTP/1.0 200 OK\r\n\r\nuntil the end",), 200, "until the end"),
    ((b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",), 204, None),
    ((b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",), 200, "ok"),
    ((b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",), 200, "ok"),
    ((b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",), 101, None),
])  # fmt: skip
def test_forms_of_answers(
    ask: Ask, serve: Start, read_request: Start, pieces: tuple[bytes, ...], status: int, body: str | None
) -> None:
    fact = send(ask, serve(answering(read_request, *pieces, pause=0.02)).port)
    assert (fact.result, fact.status, fact.body_start) == ("response", status, body)


@pytest.mark.parametrize("pieces, result, error", [
    ((), "closed", "closed without an answer"),
    ((b"HTTP/1.1 200 OK\r\nContent-L",), "closed", "closed within the head of the answer"),
    ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",), "closed", "closed after 3 of 9 bytes of the body"),
    ((CHUNKED + b"9\r\nabc",), "closed", "closed after 3 bytes, within a chunk"),
    ((CHUNKED + b"zz\r\n",), "protocol-error", "a chunk without its size"),
    ((b"SSH-2.0-OpenSSH_9.2\r\n",), "protocol-error", "not HTTP: SSH-2.0-OpenSSH_9.2"),
    ((b"\x15\x03\x01\x00\x02\x02\x46",), "protocol-error", "not HTTP: 15030100020246"),
])  # fmt: skip
def test_answers_that_are_none(
    ask: Ask, serve: Start, read_request: Start, pieces: tuple[bytes, ...], result: str, error: str
) -> None:
    fact = send(ask, serve(answering(read_request, *pieces)).port)
    assert (fact.result, fact.error) == (result, error)


def test_reset_and_silence(ask: Ask, serve: Start, read_request: Start, reset: Start) -> None:
    def abrupt(connection: socket.socket) -> None:
        read_request(connection)
        reset(connection)

    assert send(ask, serve(abrupt).port).result == "reset"
    fact = send(ask, serve(lambda c: time.sleep(2)).port, timeout=0.3)
    assert (fact.result, fact.status) == ("timeout", None)
    assert 300 <= fact.ms < 600


def test_a_body_that_hangs_keeps_its_status(ask: Ask, serve: Start, read_request: Start) -> None:
    talk = answering(read_request, b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"x" * 1000, pause=2.0)
    fact = send(ask, serve(talk).port, timeout=0.4)
    assert (fact.result, fact.status, fact.body_bytes) == ("timeout", 200, 1000)


def test_nobody_listens(ask: Ask) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    fact = send(ask, port)
    assert (fact.result, fact.error, fact.address) == ("connect-error", "refused", f"127.0.0.1:{port}")


def test_a_name_that_does_not_resolve(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(http.wire.socket, "getaddrinfo", fail)
    (fact,) = ask(SendRequest(url="http://nowhere.example/"))
    assert isinstance(fact, HttpRequest)
    assert (fact.result, fact.error, fact.address) == ("dns-error", "EAI_NONAME", None)


@pytest.mark.parametrize("bad", [
    {"url": "ftp://x/"}, {"url": "http://"}, {"url": "http://x:99999/"}, {"url": "http://x/\r\nEvil: 1"},
    {"url": "http://x/", "method": "GET /\r\n"}, {"url": "http://x/", "headers": {"A": "b\r\nc: d"}},
    {"url": "http://x/", "headers": {"A b": "c"}}, {"url": "http://x/", "address": "not-an-address"},
    {"url": "http://x/", "protocol": "h3"},
])  # fmt: skip
def test_what_cannot_be_sent_is_blind(ask: Ask, bad: dict[str, Any]) -> None:
    (fact,) = ask(SendRequest(**bad))
    assert isinstance(fact, Blind)
    assert "the probe failed" not in fact.reason


def test_secrets_in_urls_and_bodies_are_redacted(ask: Ask, serve: Start, read_request: Start) -> None:
    body = b'{"password": "hunter2", "token":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"}'
    talk = answering(read_request, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    port = serve(talk).port
    (fact,) = ask(SendRequest(url=f"http://user:pa55word@127.0.0.1:{port}/"))
    assert isinstance(fact, HttpRequest)
    assert "pa55word" not in fact.url
    assert fact.body_start is not None
    assert "hunter2" not in fact.body_start
    assert "eyJ" not in fact.body_start


def keeping(read_request: Start, limit: int = 100) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        for n in range(limit):
            read_request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Served-By: b/%d\r\n\r\n" % n)

    return talk


def test_a_series_on_new_and_on_kept_connections_is_paced(ask: Ask, serve: Start, read_request: Start) -> None:
    for keep in (False, True):
        server = serve(keeping(read_request))
        url = f"http://127.0.0.1:{server.port}/"
        begun = time.monotonic()
        (fact,) = ask(SendRequest(url=url, count=4, interval=0.01, keep=keep))
        assert time.monotonic() - begun > 0.58
        assert isinstance(fact, HttpSeries)
        assert [s.status for s in fact.samples] == [200] * 4
        assert [s.connection for s in fact.samples] == (["new"] + ["kept"] * 3 if keep else ["new"] * 4)
        assert [s.connection_id for s in fact.samples] == ([1] * 4 if keep else [1, 2, 3, 4])
        assert server.connections == (1 if keep else 4)
        assert fact.interval_ms == 200


def test_two_series_share_the_pace(ask: Ask, serve: Start, read_request: Start) -> None:
    from mcdoctor.net.wire import side_by_side

    url = f"http://127.0.0.1:{serve(keeping(read_request)).port}/"
    begun = time.monotonic()
    side_by_side(2, 0.0, lambda _: ask(SendRequest(url=url, count=3)))
    assert time.monotonic() - begun > 0.95


def test_a_kept_connection_that_was_closed_shows_as_such(ask: Ask, serve: Start, read_request: Start) -> None:
    url = f"http://127.0.0.1:{serve(keeping(read_request, 2)).port}/"
    (fact,) = ask(SendRequest(url=url, count=4, keep=True))
    assert isinstance(fact, HttpSeries)
    assert [s.result for s in fact.samples][:2] == ["response", "response"]
    assert fact.samples[2].result in ("closed", "reset")
    assert fact.samples[2].connection == "kept"
    assert (fact.samples[3].result, fact.samples[3].connection, fact.samples[3].connection_id) == ("response", "new", 2)


def test_a_series_ends_with_its_budget(ask: Ask, serve: Start) -> None:
    url = f"http://127.0.0.1:{serve(lambda c: time.sleep(3)).port}/"
    begun = time.monotonic()
    (fact,) = ask(SendRequest(url=url, count=20, timeout=0.3), budget=1.0)
    assert time.monotonic() - begun < 1.4
    assert isinstance(fact, HttpSeries)
    assert 2 <= len(fact.samples) <= 5
    assert {s.result for s in fact.samples} == {"timeout"}


def test_https_and_its_failures(ask: Ask, serve: Start, serve_tls: Start, read_request: Start) -> None:
    talk = answering(read_request, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert send(ask, serve_tls(talk=talk).port, scheme="https").status == 200
    plain = send(ask, serve(answering(read_request, b"HTTP/1.1 400 no\r\n\r\n")).port, scheme="https", timeout=0.4)
    assert plain.result in ("tls-error", "timeout")
    silent = send(ask, serve(lambda c: time.sleep(2)).port, scheme="https", timeout=0.3)
    assert (silent.result, silent.error) == ("timeout", "timeout in the TLS handshake")

    def wants_certificate(context: ssl.SSLContext) -> None:
        context.verify_mode = ssl.CERT_REQUIRED

    fact = send(ask, serve_tls(wants_certificate).port, scheme="https", timeout=3.0)
    assert (fact.result, fact.error) == ("tls-error", "alert certificate_required by the server")

    def may_have_one(context: ssl.SSLContext) -> None:
        context.verify_mode = ssl.CERT_OPTIONAL

    assert send(ask, serve_tls(may_have_one, talk).port, scheme="https", timeout=3.0).status == 200


# --- HTTP/2 ----------------------------------------------------------------------------------------------------------


def h2_server(answer: Callable[[H2Connection, int, dict[bytes, bytes]], None]) -> Callable[[socket.socket], None]:
    """An HTTP/2 server made of the h2 package."""

    def talk(connection: socket.socket) -> None:
        state = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        state.initiate_connection()
        connection.sendall(state.data_to_send())
        requests: dict[int, dict[bytes, bytes]] = {}
        while data := connection.recv(65536):
            for event in state.receive_data(data):
                if isinstance(event, RequestReceived):
                    requests[event.stream_id] = {bytes(n): bytes(v) for n, v in event.headers}
                elif isinstance(event, DataReceived):
                    state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    answer(state, event.stream_id, requests[event.stream_id])
            connection.sendall(state.data_to_send())

    return talk


def test_h2_with_prior_knowledge_on_one_connection(ask: Ask, serve: Start) -> None:
    seen: list[dict[bytes, bytes]] = []

    def answer(state: H2Connection, stream: int, headers: dict[bytes, bytes]) -> None:
        seen.append(headers)
        state.send_headers(stream, [(":status", "200"), ("x-served-by", "b/pod"), ("server", "envoy")])
        state.send_data(stream, b"hello", end_stream=True)

    server = serve(h2_server(answer))
    fact = send(ask, server.port, "/p", protocol="h2")
    assert (fact.result, fact.status, fact.body_start, fact.served_by) == ("response", 200, "hello", "b/pod")
    assert seen[0][b":method"] == b"GET"
    assert seen[0][b":path"] == b"/p"
    url = f"http://127.0.0.1:{server.port}/"
    (series,) = ask(SendRequest(url=url, protocol="h2", count=3, keep=True))
    assert isinstance(series, HttpSeries)
    assert [(s.status, s.connection) for s in series.samples] == [(200, "new"), (200, "kept"), (200, "kept")]
    assert server.connections == 2


def test_h2_large_bodies_pass_flow_control(ask: Ask, serve: Start) -> None:
    def answer(state: H2Connection, stream: int, _: dict[bytes, bytes]) -> None:
        state.send_headers(stream, [(":status", "200")])
        for _ in range(5):
            state.send_data(stream, b"x" * 12_000)
        state.end_stream(stream)

    fact = send(ask, serve(h2_server(answer)).port, protocol="h2")
    assert (fact.result, fact.body_bytes) == ("response", 60_000)


def test_grpc_status_comes_from_the_trailers(ask: Ask, serve: Start) -> None:
    seen: list[dict[bytes, bytes]] = []

    def answer(state: H2Connection, stream: int, headers: dict[bytes, bytes]) -> None:
        seen.append(headers)
        if headers[b":path"].endswith(b"/Check"):
            state.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            state.send_data(stream, b"\0\0\0\0\2\x08\x01")
            state.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        else:
            head = [(":status", "200"), ("grpc-status", "12"), ("grpc-message", "unknown service")]
            state.send_headers(stream, head, end_stream=True)

    server = serve(h2_server(answer))
    fact = send(ask, server.port, "/grpc.health.v1.Health/Check", protocol="grpc")
    assert (fact.result, fact.status, fact.grpc_status) == ("response", 200, 0)
    assert seen[0][b"te"] == b"trailers"
    fact = send(ask, server.port, "/no.Such/Method", protocol="grpc")
    assert (fact.grpc_status, (fact.headers or {})["grpc-message"]) == (12, "unknown service")


def test_h2_refusals(ask: Ask, serve: Start, read_request: Start) -> None:
    fact = send(ask, serve(h2_server(lambda s, n, _: s.reset_stream(n, 7))).port, protocol="h2")
    assert (fact.result, fact.error) == ("reset", "RST_STREAM REFUSED_STREAM")
    fact = send(ask, serve(h2_server(lambda s, n, _: s.close_connection(11))).port, protocol="h2")
    assert (fact.result, fact.error) == ("protocol-error", "GOAWAY ENHANCE_YOUR_CALM")
    one = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    fact = send(ask, serve(answering(read_request, one)).port, protocol="h2")
    assert fact.result == "protocol-error"
    assert (fact.error or "").startswith("not HTTP/2: HTTP/1.1 400")


def test_h2_over_tls_needs_alpn(ask: Ask, serve_tls: Start) -> None:
    def answer(state: H2Connection, stream: int, _: dict[bytes, bytes]) -> None:
        state.send_headers(stream, [(":status", "204")], end_stream=True)

    server = serve_tls(lambda c: c.set_alpn_protocols(["h2"]), h2_server(answer))
    assert send(ask, server.port, scheme="https", protocol="h2").status == 204


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True),
            st.text(st.characters(max_codepoint=255), max_size=60),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_the_decoder_reads_what_another_encoder_writes(fields: list[tuple[str, str]], coded: bool) -> None:
    encoder, decoder = hpack.Encoder(), h2.Decoder()
    for _ in range(3):
        block = encoder.encode([(n.encode(), v.encode("latin-1")) for n, v in fields], huffman=coded)
        assert decoder.decode(block) == fields


@given(st.text(max_size=300), st.text(max_size=300))
def test_another_decoder_reads_our_literals(name: str, value: str) -> None:
    decoded = hpack.Decoder(max_header_list_size=1 << 20).decode(h2.literal(name, value), raw=True)
    assert [(n.decode(), v.decode()) for n, v in decoded] == [(name, value)]


@given(st.binary(max_size=200))
def test_no_header_block_breaks_the_decoder(block: bytes) -> None:
    try:
        h2.Decoder().decode(block)
    except http.HttpFailure as failure:
        assert failure.result == "protocol-error"


@given(st.binary(max_size=300))
def test_no_head_breaks_the_parser(head: bytes) -> None:
    for data in (head, b"HTTP/1.1 200 OK\r\n" + head):
        try:
            status, _ = http.parse_head(data)
        except http.HttpFailure as failure:
            assert failure.result == "protocol-error"
        else:
            assert 100 <= status <= 999


@pytest.mark.parametrize("seed", range(12))
def test_hostile_bytes_from_a_server_end_as_a_result(ask: Ask, serve: Start, read_request: Start, seed: int) -> None:
    import random

    chance = random.Random(seed)
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" if seed % 2 else b""
    noise = start + chance.randbytes(500)
    fact = send(ask, serve(answering(read_request, noise)).port, timeout=0.5)
    assert fact.result in ("protocol-error", "closed", "reset", "response")
    h2_fact = send(ask, serve(lambda c: c.sendall(noise)).port, timeout=0.5, protocol="h2")
    assert h2_fact.result in ("protocol-error", "closed", "reset")
