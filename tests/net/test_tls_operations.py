"""TLS handshakes against real servers: what was said, by whom, and what the chain is worth."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcdoctor.models.facts import Blind, Fact, TlsHandshake
from mcdoctor.models.requests import MeasurePathMtu, ShakeTls
from mcdoctor.net import stream, tls
from mcdoctor.net.certificates import names_match, read_chain

Ask = Callable[..., list[Fact]]
Start = Callable[..., Any]


def shake(ask: Ask, port: int, **more: Any) -> TlsHandshake:
    (fact,) = ask(ShakeTls(**{"address": "127.0.0.1", "port": port, "sni": "api.example", "timeout": 2.0, **more}))
    assert isinstance(fact, TlsHandshake), fact
    return fact


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_whole_chain_and_its_judgement(ask: Ask, serve_tls: Start, version: str) -> None:
    def adjust(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
        context.set_alpn_protocols(["h2", "http/1.1"])

    raw = shake(ask, serve_tls(adjust).port, alpn=("http/1.1", "h2"))
    assert (raw.result, raw.version, raw.alpn, raw.sni) == ("ok", version, "h2", "api.example")
    assert raw.der is not None
    assert raw.chain is None
    fact = read_chain(raw)
    assert fact.der is None
    assert fact.chain is not None
    leaf, root = fact.chain
    assert leaf.subject == "CN=api,O=mcdoctor test"
    assert leaf.sans == ("api.example", "*.wild.example", "spiffe://cluster.local/ns/shop/sa/backend")
    assert (leaf.is_ca, root.is_ca) == (False, True)
    assert fact.verify is not None
    assert (fact.verify.ok, fact.verify.against, fact.verify.name_matched) == (False, ("system",), True)
    assert "self-signed" in (fact.verify.error or "")
    assert fact.client_cert_requested is False


def test_the_name_is_judged_apart(ask: Ask, serve_tls: Start) -> None:
    fact = read_chain(shake(ask, serve_tls().port, sni="other.example"))
    assert fact.result == "ok"
    assert fact.verify is not None
    assert fact.verify.name_matched is False


def client_certificate(certificates: dict[str, Path]) -> Callable[[ssl.SSLContext], None]:
    def adjust(context: ssl.SSLContext) -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates["ca"])

    return adjust


def test_tls13_client_certificate_refused_after_the_handshake(
    ask: Ask, serve_tls: Start, certificates: dict[str, Path]
) -> None:
    fact = shake(ask, serve_tls(client_certificate(certificates)).port)
    assert (fact.result, fact.version) == ("ok", "TLSv1.3")
    assert fact.post_handshake_alert == "certificate_required"
    assert fact.client_cert_requested is True


def test_tls12_client_certificate_refused_within_it(ask: Ask, serve_tls: Start, certificates: dict[str, Path]) -> None:
    def adjust(context: ssl.SSLContext) -> None:
        client_certificate(certificates)(context)
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    fact = shake(ask, serve_tls(adjust).port)
    assert fact.result == "alert"
    assert fact.alert is not None
    assert (fact.alert.by, fact.alert.name) == ("server", "handshake_failure")
    assert fact.client_cert_requested is True


def test_an_optional_client_certificate_is_no_refusal(
    ask: Ask, serve_tls: Start, certificates: dict[str, Path]
) -> None:
    def adjust(context: ssl.SSLContext) -> None:
        client_certificate(certificates)(context)
        context.verify_mode = ssl.CERT_OPTIONAL

    fact = shake(ask, serve_tls(adjust).port)
    assert (fact.result, fact.client_cert_requested, fact.post_handshake_alert) == ("ok", True, None)


def test_the_servers_alert(ask: Ask, serve_tls: Start) -> None:
    def adjust(context: ssl.SSLContext) -> None:
        context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME  # type: ignore[assignment]

    fact = shake(ask, serve_tls(adjust).port)
    assert (fact.result, fact.chain) == ("alert", None)
    assert fact.alert is not None
    assert (fact.alert.by, fact.alert.name) == ("server", "unrecognized_name")


def test_our_own_alert_is_ours(ask: Ask, serve: Start) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        # a ServerHello that chooses a cipher nobody offered
        body = b"\x03\x03" + bytes(32) + b"\x00" + b"\xfe\xfe" + b"\x00"
        hello = b"\x02" + len(body).to_bytes(3, "big") + body
        connection.sendall(b"\x16\x03\x03" + len(hello).to_bytes(2, "big") + hello)
        time.sleep(0.3)

    fact = shake(ask, serve(talk).port)
    assert fact.result == "alert"
    assert fact.alert is not None
    assert fact.alert.by == "client"


@pytest.mark.parametrize("talk, result", [
    (lambda c: c.recv(1) and c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "plaintext"),
    (lambda c: c.sendall(b"220 mail.example ESMTP\r\n") or time.sleep(0.5), "plaintext"),
    (lambda c: c.recv(4096) and None, "closed"),
    (lambda c: time.sleep(2), "timeout"),
])  # fmt: skip
def test_what_is_no_tls(ask: Ask, serve: Start, talk: Callable[[socket.socket], None], result: str) -> None:
    fact = shake(ask, serve(talk).port, timeout=0.6)
    assert fact.result == result
    assert (fact.first_bytes is not None) == (result == "plaintext")


def test_reset_and_refused(ask: Ask, serve: Start, reset: Start) -> None:
    server = serve(lambda c: c.recv(1) and reset(c))
    assert shake(ask, server.port).result == "reset"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert shake(ask, port).result == "refused"


@pytest.mark.parametrize("bad", [{"sni": "a" * 300}, {"sni": ".."}, {"address": "nope"}])
def test_what_cannot_be_begun_is_blind(ask: Ask, bad: dict[str, Any]) -> None:
    (fact,) = ask(ShakeTls(**{"address": "127.0.0.1", "port": 9, **bad}))
    assert isinstance(fact, (Blind, TlsHandshake))


@given(st.binary(max_size=200), st.booleans())
def test_no_handshake_message_breaks_the_listener(data: bytes, newer: bool) -> None:
    talk = tls.Talk()
    for content in (21, 22):
        for message in (4, 11, 13):
            with contextlib.suppress(ValueError, IndexError):
                tls.hear_message(talk, "read", 0x304 if newer else 0x303, content, message, data)
    tls.distinguished_name(data)


def test_issuers_of_both_versions() -> None:
    name = bytes.fromhex("300f310d300b060355040a0c046d657368")
    entry = len(name).to_bytes(2, "big") + name
    names = len(entry).to_bytes(2, "big") + entry
    older = b"\x01\x40" + b"\x00\x02\x04\x03" + names
    extension = b"\x00\x2f" + len(names).to_bytes(2, "big") + names
    newer = b"\x00" + len(extension).to_bytes(2, "big") + extension
    for body, is_newer in ((older, False), (newer, True)):
        message = b"\x0d" + len(body).to_bytes(3, "big") + body
        assert tls.issuers(message, is_newer) == ["O=mesh"]


@pytest.mark.parametrize("name, sans, matches", [
    ("api.example", ("api.example",), True), ("API.example.", ("api.EXAMPLE",), True),
    ("a.wild.example", ("*.wild.example",), True), ("a.b.wild.example", ("*.wild.example",), False),
    ("wild.example", ("*.wild.example",), False), ("api.example", ("spiffe://api.example",), False),
    ("api.example", ("DNS:api.example",), True), ("api.example", (), False),
])  # fmt: skip
def test_names(name: str, sans: tuple[str, ...], matches: bool) -> None:
    assert names_match(name, sans) is matches


def test_a_chain_that_cannot_be_read_stays_der(ask: Ask, serve_tls: Start) -> None:
    from dataclasses import replace

    fact = shake(ask, serve_tls().port)
    assert fact.der is not None
    broken = replace(fact, der=(base64.b64encode(b"nonsense").decode(),))
    assert read_chain(broken) == broken
    half = read_chain(replace(fact, der=(fact.der[0], "!!")))
    assert half.chain is not None
    assert len(half.chain) == 1


# --- the padded ClientHello of the path MTU stream -------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 600, 3000, 15_000])
def test_a_padded_hello_is_valid(serve_tls: Start, length: int) -> None:
    hello = stream.client_hello("api.example", length)
    assert len(hello) >= min(length, 15_900)
    with socket.create_connection(("127.0.0.1", serve_tls().port)) as sock:
        sock.settimeout(2)
        sock.sendall(hello)
        answer = sock.recv(6)
    assert answer[:3] == b"\x16\x03\x03"  # a handshake record, not an alert
    assert answer[5] == 2  # ServerHello


def test_a_padded_request_is_valid() -> None:
    head = stream.opening(MeasurePathMtu(address="10.0.0.1", port=80, host="api.example"), 3000)
    assert len(head) >= 3000
    assert head.startswith(b"GET / HTTP/1.1\r\nHost: api.example\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n\r\n") == 1


@given(st.binary(max_size=300), st.integers(0, 20_000))
def test_padding_never_raises_on_openssl_shapes(tail: bytes, length: int) -> None:
    hello = stream.client_hello("api.example", 0)
    assert len(stream.pad_hello(hello, length)) >= len(hello)
