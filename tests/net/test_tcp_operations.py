"""TCP connects and banners against real listeners on loopback."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcdoctor.models.facts import Banner, Blind, Fact, IcmpError, TcpConnect
from mcdoctor.models.requests import ConnectTcp, ReadBanner
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import system, tcp, wire

Ask = Callable[..., list[Fact]]
Start = Callable[..., Any]


def connect(ask: Ask, port: int, address: str = "127.0.0.1", **more: Any) -> TcpConnect:
    (fact,) = ask(ConnectTcp(address=address, port=port, **more))
    assert isinstance(fact, TcpConnect), fact
    return fact


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def silent(connection: socket.socket) -> None:
    time.sleep(2)


@pytest.mark.parametrize("address, family", [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_silent_server_is_open(ask: Ask, serve: Start, address: str, family: int) -> None:
    fact = connect(ask, serve(silent, family).port, address)
    assert fact.result == "open"
    assert fact.error is None
    assert fact.source is not None
    assert fact.retransmits == 0
    assert fact.ms < 500


def test_a_closing_server_is_open(ask: Ask, serve: Start) -> None:
    assert connect(ask, serve(lambda c: None).port).result == "open"


def test_refused_is_a_reset_to_the_syn(ask: Ask) -> None:
    fact = connect(ask, closed_port())
    assert (fact.result, fact.error, fact.icmp) == ("refused", "ECONNREFUSED", None)


def test_a_socket_without_error_and_without_peer_is_not_open(serve: Start) -> None:
    """As it looks for a moment when an ICMP error is handled on another processor."""
    with socket.socket() as sock:
        sock.setblocking(False)
        if sock.connect_ex(("127.0.0.1", closed_port())) == errno.EINPROGRESS:
            select.select([], [sock], [], 2)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED  # and forgotten by that
        assert wire.connect_error(sock) == errno.ENOTCONN
    with socket.create_connection(("127.0.0.1", serve(silent).port), 2) as sock:
        assert wire.connect_error(sock) == 0


def test_accepted_and_reset_at_once_is_reset(ask: Ask, serve: Start, reset: Start) -> None:
    assert connect(ask, serve(reset).port).result == "reset"


def test_a_full_backlog_is_silence(ask: Ask) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            fact = connect(ask, port, timeout=0.3)
    assert fact.result == "timeout"
    assert 300 <= fact.ms < 600


def test_tries_run_side_by_side_and_count(ask: Ask, serve: Start) -> None:
    begun = time.monotonic()
    fact = connect(ask, serve(silent).port, tries=8)
    assert (fact.tries, fact.successes, fact.result) == (8, 8, "open")
    assert time.monotonic() - begun < 1.0


def test_an_address_that_is_none_is_blind(ask: Ask) -> None:
    (fact,) = ask(ConnectTcp(address="example.com", port=80))
    assert isinstance(fact, Blind)
    assert (fact.wanted, fact.about) == ("tcp_connect", "example.com:80")


def test_broadcast_is_unreachable_with_its_errno(ask: Ask) -> None:
    fact = connect(ask, 80, "255.255.255.255", timeout=0.3)
    assert fact.result == "unreachable"
    assert fact.error in ("EACCES", "ENETUNREACH")
    assert fact.icmp is None


def test_the_ttl_of_the_answer_where_raw_sockets_are_granted(ask: Ask, serve: Start) -> None:
    fact = connect(ask, serve(silent).port)
    assert fact.from_ttl == (64 if "net_raw" in system.capabilities() else None)


def test_a_captured_vantage_says_whether_the_uid_goes_past(
    ask: Ask, serve: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = serve(silent).port
    seen = []
    for uid in (1000, 1337):
        monkeypatch.setattr(wire.os, "geteuid", lambda uid=uid: uid)
        (fact,) = ask(ConnectTcp(address="127.0.0.1", port=port), vantage=Vantage(pod="p", captured="istio"))
        assert isinstance(fact, TcpConnect)
        seen.append((fact.uid, fact.bypass_proxy))
    assert seen == [(1000, False), (1337, True)]


@pytest.mark.parametrize("talk, said", [
    (lambda c: c.sendall(b"220 mail.example ESMTP\r\n") or time.sleep(1), "text"),
    (silent, "silent"),
    (lambda c: None, "closed"),
])  # fmt: skip
def test_banner(ask: Ask, serve: Start, talk: Callable[[socket.socket], None], said: str) -> None:
    (fact,) = ask(ReadBanner(address="127.0.0.1", port=serve(talk).port, timeout=0.4))
    assert isinstance(fact, Banner)
    assert fact.result == said
    assert fact.first_bytes == ("220 mail.example ESMTP" if said == "text" else None)


def test_banner_of_nobody(ask: Ask, serve: Start, reset: Start) -> None:
    (fact,) = ask(ReadBanner(address="127.0.0.1", port=closed_port()))
    assert isinstance(fact, Banner)
    assert fact.result == "refused"
    (fact,) = ask(ReadBanner(address="127.0.0.1", port=serve(reset).port))
    assert isinstance(fact, Banner)
    assert fact.result == "reset"


def test_words_for_an_error_field() -> None:
    icmp = IcmpError(type=3, code=13, sender="10.0.0.1")
    seen = tcp.Connection("unreachable", 1.0, icmp=icmp, error="EHOSTUNREACH")
    assert seen.words() == "unreachable: EHOSTUNREACH, admin-prohibited from 10.0.0.1"
    assert tcp.Connection("refused", 1.0, error="ECONNREFUSED").words() == "refused"


@given(st.binary(max_size=300))
def test_tcp_info_of_any_length(raw: bytes) -> None:
    if len(raw) < 104:
        with pytest.raises(ValueError, match="too short"):
            tcp.parse_tcp_info(raw)
    else:
        assert tcp.parse_tcp_info(raw).header in (20, 32)


@given(st.binary(max_size=60))
def test_error_queue_entries_of_any_length(raw: bytes) -> None:
    entry = wire.parse_extended_error(raw)
    assert entry is None or isinstance(entry.errno, int)


def test_an_error_queue_entry_names_its_sender() -> None:
    raw = struct.pack("=IBBBBII", errno.EMSGSIZE, wire.ORIGIN_ICMP, 3, 4, 0, 1400, 0)
    raw += struct.pack("=HH", socket.AF_INET, 0) + socket.inet_aton("10.1.2.3") + bytes(8)
    entry = wire.parse_extended_error(raw)
    assert entry is not None
    assert entry.mtu == 1400
    assert entry.icmp == IcmpError(type=3, code=4, sender="10.1.2.3")


@pytest.mark.parametrize("text, expected", [
    ("10.0.0.1", ("10.0.0.1", 53)), ("10.0.0.1:5353", ("10.0.0.1", 5353)), ("fd00::1", ("fd00::1", 53)),
    ("[fd00::1]:5353", ("fd00::1", 5353)), ("fe80::1%eth0", ("fe80::1%eth0", 53)),
])  # fmt: skip
def test_endpoints(text: str, expected: tuple[str, int]) -> None:
    assert wire.split_endpoint(text, 53) == expected
    assert wire.split_endpoint(wire.endpoint(*expected), 1) == expected


@pytest.mark.parametrize(
    "text", ["", "host", "10.0.0.1:0", "10.0.0.1:x", "[fd00::1", "[fd00::1]x", "10.0.0", "1.2.3.4:70000"]
)
def test_endpoints_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        wire.split_endpoint(text, 53)


def test_side_by_side_hands_on_failures_and_stops_at_the_deadline() -> None:
    with pytest.raises(ZeroDivisionError):
        wire.side_by_side(3, 0.0, lambda n: 1 // n)
    assert wire.side_by_side(50, 0.05, lambda n: n, time.monotonic() + 0.12) in ([0, 1], [0, 1, 2])
