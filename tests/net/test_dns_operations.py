"""DNS against real servers: every answer, every silence, and what is no answer at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcdoctor.models.facts import Blind, DnsAnswer, DnsSeries, Fact
from mcdoctor.models.requests import AskDns, SampleDns
from mcdoctor.net import dns as operation

Ask = Callable[..., list[Fact]]
Start = Callable[..., Any]
SOA = "example. 30 IN SOA ns.example. admin.example. 1 2 3 4 30"


def one(facts: list[Fact]) -> DnsAnswer:
    (fact,) = facts
    assert isinstance(fact, DnsAnswer), fact
    return fact


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_answer_with_its_chain_ttl_and_flags(ask: Ask, dns_server: Start, answer: Start, transport: str) -> None:
    server = dns_server(
        lambda q, _, __: answer(q, "web.example. 60 IN CNAME lb.example.", "lb.example. 20 IN A 10.0.0.7")
    )
    fact = one(ask(AskDns(name="web.example", server=server.address, transport=transport)))
    assert (fact.result, fact.rcode, fact.addresses, fact.chain) == (
        "answered",
        "NOERROR",
        ("10.0.0.7",),
        ("lb.example.",),
    )
    assert (fact.ttl, fact.ra, fact.aa, fact.tc) == (20, True, False, False)
    assert fact.server == server.address
    assert fact.transport == transport
    assert fact.resolver == "direct"
    assert server.asked[0][0] == transport
    assert server.asked[0][1].payload == fact.edns_size == 1232


@pytest.mark.parametrize("kind, record, data", [
    ("AAAA", "a.example. 5 IN AAAA fd00::1", "fd00::1"),
    ("SRV", "a.example. 5 IN SRV 0 10 8080 b.example.", "0 10 8080 b.example."),
    ("PTR", "a.example. 5 IN PTR b.example.", "b.example."),
    ("TXT", 'a.example. 5 IN TXT "x y"', '"x y"'),
])  # fmt: skip
def test_other_types(ask: Ask, dns_server: Start, answer: Start, kind: str, record: str, data: str) -> None:
    server = dns_server(lambda q, _, __: answer(q, record))
    fact = one(ask(AskDns(name="a.example.", type=kind, server=server.address)))
    assert [r.data for r in fact.answers or ()] == [data]


@pytest.mark.parametrize("rcode", ["NXDOMAIN", "SERVFAIL", "REFUSED"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_each_refusal_stays_apart(ask: Ask, dns_server: Start, answer: Start, rcode: str, transport: str) -> None:
    code = dns.rcode.from_text(rcode)
    server = dns_server(lambda q, _, __: answer(q, rcode=code, authority=(SOA,)))
    fact = one(ask(AskDns(name="x.example", server=server.address, transport=transport)))
    assert (fact.result, fact.rcode, fact.answers) == ("answered", rcode, ())
    assert [r.type for r in fact.authority or ()] == ["SOA"]


def test_an_empty_answer_is_no_nxdomain(ask: Ask, dns_server: Start, answer: Start) -> None:
    server = dns_server(lambda q, _, __: answer(q, authority=(SOA,)))
    fact = one(ask(AskDns(name="x.example", type="AAAA", server=server.address)))
    assert (fact.result, fact.rcode, fact.answers) == ("answered", "NOERROR", ())


def test_silence_is_a_timeout(ask: Ask, dns_server: Start) -> None:
    server = dns_server(lambda *_: None)
    fact = one(ask(AskDns(name="x.example", server=server.address, timeout=0.2)))
    assert (fact.result, fact.rcode, fact.answers) == ("timeout", None, None)
    assert 200 <= fact.ms < 400


def test_a_closed_port_is_refused_with_its_icmp(ask: Ask) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    fact = one(ask(AskDns(name="x.example", server=f"127.0.0.1:{port}", timeout=1.0)))
    assert fact.result == "refused"
    assert fact.icmp is not None
    assert (fact.icmp.type, fact.icmp.code, fact.icmp.sender) == (3, 3, "127.0.0.1")
    fact = one(ask(AskDns(name="x.example", server=f"127.0.0.1:{port}", transport="tcp")))
    assert fact.result == "refused"
    assert fact.icmp is None


def test_no_route_is_unreachable(ask: Ask) -> None:
    fact = one(ask(AskDns(name="x.example", server="255.255.255.255:53", timeout=0.5)))
    assert fact.result == "unreachable"
    assert fact.error in ("EACCES", "ENETUNREACH")


def test_truncation_is_noted_and_tcp_brings_the_rest(ask: Ask, dns_server: Start, answer: Start) -> None:
    records = [f"x.example. 9 IN A 10.0.0.{n}" for n in range(1, 30)]
    server = dns_server(
        lambda q, _, transport: answer(q, truncated=True) if transport == "udp" else answer(q, *records)
    )
    assert one(ask(AskDns(name="x.example", server=server.address))).tc is True
    whole = one(ask(AskDns(name="x.example", server=server.address, transport="tcp")))
    assert whole.tc is False
    assert len(whole.addresses) == 29


def test_replies_with_another_id_or_question_are_not_ours(ask: Ask, dns_server: Start, answer: Start) -> None:
    def talk(query: dns.message.Message, data: bytes, _: str) -> list[bytes]:
        other = dns.message.make_query("evil.example", "A", id=query.id)
        wrong_id = dns.message.from_wire(data)
        wrong_id.id ^= 1
        forged = answer(wrong_id, "x.example. 9 IN A 6.6.6.6")
        return [
            forged,
            answer(other, "evil.example. 9 IN A 6.6.6.6"),
            data,
            answer(query, "x.example. 9 IN A 10.0.0.1"),
        ]

    server = dns_server(talk)
    for transport in ("udp", "tcp"):
        fact = one(ask(AskDns(name="x.example", server=server.address, transport=transport)))
        assert fact.addresses == ("10.0.0.1",)


def test_a_malformed_reply_is_blind_not_a_verdict(ask: Ask, dns_server: Start) -> None:
    server = dns_server(lambda q, data, _: data[:2] + b"\x81\x80\x00\x01\x00\x09\x00\x00\x00\x00\xff\xff\xff")
    (fact,) = ask(AskDns(name="x.example", server=server.address, timeout=0.3))
    assert isinstance(fact, Blind)
    assert fact.wanted == "dns_answer"
    assert "not a DNS message" in fact.reason


def test_a_server_without_edns_is_asked_again_without(ask: Ask, dns_server: Start, answer: Start) -> None:
    def talk(query: dns.message.Message, _: bytes, __: str) -> bytes:
        if query.edns >= 0:
            plain = dns.message.make_query("x.example", "A", id=query.id, use_edns=False)
            return answer(plain, rcode=dns.rcode.FORMERR)
        return answer(query, "x.example. 9 IN A 10.0.0.1")

    fact = one(ask(AskDns(name="x.example", server=dns_server(talk).address)))
    assert (fact.addresses, fact.edns_size) == (("10.0.0.1",), None)


def test_tries_fold_to_a_rate(ask: Ask, dns_server: Start, answer: Start) -> None:
    counter = iter(range(100))

    def talk(query: dns.message.Message, _: bytes, __: str) -> bytes | None:
        return answer(query, "x.example. 9 IN A 10.0.0.1") if next(counter) % 2 else None

    begun = time.monotonic()
    fact = one(ask(AskDns(name="x.example", server=dns_server(talk).address, tries=6, timeout=0.3)))
    assert (fact.result, fact.tries, fact.successes) == ("answered", 6, 3)
    assert time.monotonic() - begun < 1.0


def test_a_series_keeps_order_and_does_not_wait_for_the_silent(ask: Ask, dns_server: Start, answer: Start) -> None:
    counter = iter(range(100))

    def talk(query: dns.message.Message, _: bytes, __: str) -> bytes | None:
        n = next(counter)
        return (
            None
            if n == 2
            else answer(query, rcode=dns.rcode.SERVFAIL)
            if n == 4
            else answer(query, f"x.example. {n} IN A 10.0.0.{n}")
        )

    begun = time.monotonic()
    (fact,) = ask(SampleDns(name="x.example", server=dns_server(talk).address, samples=6, interval=0.05, timeout=0.4))
    assert time.monotonic() - begun < 1.2
    assert isinstance(fact, DnsSeries)
    assert [s.result for s in fact.samples] == ["answered", "answered", "timeout", "answered", "answered", "answered"]
    assert fact.samples[4].rcode == "SERVFAIL"
    assert fact.samples[5].answers == ("10.0.0.5",)
    assert len({s.source_port for s in fact.samples}) == 6
    assert [s.at for s in fact.samples] == sorted(s.at for s in fact.samples)


def test_the_library_looks_at_hosts_and_reports_its_own_words(ask: Ask) -> None:
    fact = one(ask(AskDns(name="localhost")))
    assert fact.addresses == ("127.0.0.1",)
    assert fact.resolver in ("glibc", "musl")
    (other,) = ask(AskDns(name="localhost", type="SRV"))
    assert isinstance(other, Blind)


@pytest.mark.parametrize("number, rcode", [(socket.EAI_NONAME, "NXDOMAIN"), (socket.EAI_AGAIN, "SERVFAIL")])
def test_library_failures(number: int, rcode: str) -> None:
    reply = operation._library_failure(number, 1.0)
    assert (reply.result, reply.rcode) == ("answered", rcode)
    assert operation._library_failure(12345, 1.0).unseen is not None


@pytest.mark.parametrize("request_", [
    AskDns(name="x" * 64 + ".example", server="127.0.0.1"), AskDns(name="a..b", server="127.0.0.1"),
    AskDns(name="x.example", type="NOPE", server="127.0.0.1"), AskDns(name="x.example", server="not-an-address"),
    AskDns(name="x.example", server="127.0.0.1:99999"), AskDns(name="x.example", server="127.0.0.1", transport="https"),
    SampleDns(name="a..b", server="127.0.0.1"),
])  # fmt: skip
def test_what_cannot_be_asked_is_blind(ask: Ask, request_: AskDns) -> None:
    (fact,) = ask(request_)
    assert isinstance(fact, Blind)
    assert "the probe failed" not in fact.reason


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    operation.parse(data)


@given(st.binary(max_size=120), st.integers(0, 119), st.binary(min_size=1, max_size=8))
def test_no_reply_breaks_the_reader(tail: bytes, place: int, patch: bytes) -> None:
    query = dns.message.make_query("x.example", "A", id=7, use_edns=0)
    data = bytearray(dns.message.make_response(query).to_wire() + tail)
    data[place : place + len(patch)] = patch
    reply = operation._read(query, bytes(data), time.monotonic(), 1232, 1)
    assert reply is None or reply.result == "answered"
