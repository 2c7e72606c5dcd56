"""What the vantage says of itself: files and rtnetlink here, parsers on hostile text."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcdoctor.models.facts import (
    Blind,
    Clock,
    Fact,
    Interception,
    Interface,
    Listener,
    ResolvConf,
    Route,
    Socket,
    Sysctl,
)
from mcdoctor.models.requests import (
    DetectCapture,
    LookUpRoute,
    ReadClock,
    ReadInterfaces,
    ReadListeners,
    ReadResolvConf,
    ReadSysctl,
)
from mcdoctor.net import capture, system, tcp

Ask = Callable[..., list[Fact]]


def test_resolv_conf_as_the_library_reads_it() -> None:
    text = (
        "# generated\nnameserver 10.96.0.10\nnameserver fd00::a ; second\ndomain old.example\n"
        "search shop.svc.cluster.local svc.cluster.local\noptions ndots:5 timeout:1\n"
        "options edns0\nnameserver\nnonsense\n"
    )
    assert system.parse_resolv_conf(text) == (
        ("10.96.0.10", "fd00::a"),
        ("shop.svc.cluster.local", "svc.cluster.local"),
        ("ndots:5", "timeout:1", "edns0"),
    )


def test_hosts_without_loopback() -> None:
    text = "127.0.0.1 localhost\nfe00::0 ip6-mcastprefix\n# x\n10.1.2.3 db db.example # main\n10.9.9.9 db\n"
    assert system.parse_hosts(text) == {"db": "10.1.2.3", "db.example": "10.1.2.3"}


@given(st.text(max_size=300))
def test_any_file_is_read(text: str) -> None:
    system.parse_resolv_conf(text)
    system.parse_hosts(text)
    system.parse_proc_net("header\n" + text, "tcp", "0A")


@given(st.binary(max_size=200))
def test_any_netlink_attributes_are_read(data: bytes) -> None:
    system.attributes(data)


def test_reads_of_this_machine(ask: Ask) -> None:
    (resolver,) = ask(ReadResolvConf())
    assert isinstance(resolver, ResolvConf)
    loopback = next(f for f in ask(ReadInterfaces()) if isinstance(f, Interface) and f.name == "lo")
    assert "127.0.0.1/8" in loopback.addresses
    assert loopback.mtu >= 1500
    assert loopback.type == "loopback"
    (route,) = ask(LookUpRoute(address="127.0.0.1"))
    assert isinstance(route, Route)
    assert (route.type, route.dev) == ("local", "lo")
    (clock,) = ask(ReadClock(now=time.time() - 100))
    assert isinstance(clock, Clock)
    assert 99 < clock.offset_s < 102


def test_sysctls_and_no_other_file(ask: Ask) -> None:
    names = (
        "net.ipv4.ip_local_port_range",
        "net.ipv4.no_such",
        "net.ipv4.conf.lo.forwarding",
        "net.../../etc/passwd",
        "passwd",
    )
    facts = ask(ReadSysctl(names=names))
    read = {f.name: f.value for f in facts if isinstance(f, Sysctl)}
    assert set(read) == {"net.ipv4.ip_local_port_range", "net.ipv4.conf.lo.forwarding"}
    assert len(read["net.ipv4.ip_local_port_range"].split()) == 2
    assert {f.about for f in facts if isinstance(f, Blind)} == {"net.../../etc/passwd", "passwd"}


def test_listeners_of_both_families(ask: Ask) -> None:
    with contextlib.ExitStack() as stack:
        expected = []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            sock = stack.enter_context(socket.socket(family))
            sock.bind((address, 0))
            sock.listen()
            expected.append(Socket(address=address, port=sock.getsockname()[1], protocol="tcp"))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        expected.append(Socket(address="127.0.0.1", port=udp.getsockname()[1], protocol="udp"))
        (fact,) = ask(ReadListeners())
    assert isinstance(fact, Listener)
    assert set(expected) <= set(fact.sockets)


# --- interception ----------------------------------------------------------------------------------------------------


def detect(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, ports: tuple[int, ...] | None, answers: bool, uid: int = 1000
) -> Fact:
    def listening() -> list[Socket]:
        if ports is None:
            raise PermissionError(13, "no")
        return [Socket(address="0.0.0.0", port=p, protocol="tcp") for p in ports]

    def connect(address: str, *_: Any) -> tcp.Connection:
        assert address in ("192.0.2.1", "198.51.100.1", "203.0.113.1")
        return tcp.Connection("timeout", 400.0) if not answers else tcp.Connection("open", 1.0, socket.socket())

    monkeypatch.setattr(system, "listening", listening)
    monkeypatch.setattr(capture.tcp, "connect", connect)
    monkeypatch.setattr(capture.os, "geteuid", lambda: uid)
    (fact,) = ask(DetectCapture())
    return fact


@pytest.mark.parametrize("ports, answers, uid, captured, by", [
    ((8080,), False, 1000, False, None),
    ((8080, 15001, 15006, 15021, 15090), True, 1000, True, "istio"),
    ((15001, 15006, 15090), False, 1000, True, "istio"),  # an include list may leave TEST-NET out
    ((15001, 15006, 15090), False, 1337, False, "istio"),
    ((15001, 15006, 15008), True, 1000, True, "ztunnel"),
    ((4140, 4143, 4191), True, 1000, True, "linkerd"),
    ((4140, 4143, 4191), False, 2102, False, "linkerd"),
    ((8080,), True, 1000, True, "unknown"),
    ((15006,), False, 1000, False, None),
])  # fmt: skip
def test_interception(
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    ports: tuple[int, ...],
    answers: bool,
    uid: int,
    captured: bool,
    by: str | None,
) -> None:
    fact = detect(ask, monkeypatch, ports, answers, uid)
    assert isinstance(fact, Interception)
    assert (fact.captured, fact.by) == (captured, by)
    assert bool(fact.evidence) == (ports != (8080,) or answers)


def test_interception_unread_and_unanswered_is_blind(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(detect(ask, monkeypatch, None, False), Blind)
    fact = detect(ask, monkeypatch, None, True)
    assert isinstance(fact, Interception)
    assert (fact.captured, fact.by) == (True, "unknown")


def test_netlink_answers_are_cut_where_they_are_cut() -> None:
    good = struct.pack("=HHI", 8, 4, 1400)
    assert system.attributes(good + b"\x03\x00\x01") == {4: good[4:]}
    assert system.attributes(good + struct.pack("=HH", 99, 1) + b"x") == {4: good[4:]}
