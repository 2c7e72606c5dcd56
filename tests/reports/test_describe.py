"""Evidence lines: what was asked, what came back, in few words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mcdoctor.models.facts import (
    Absent,
    Banner,
    Blind,
    DnsAnswer,
    DnsRecord,
    DnsSample,
    DnsSeries,
    Fact,
    HttpRequest,
    HttpSample,
    HttpSeries,
    IcmpError,
    Interception,
    Interface,
    KubeObject,
    PathMtu,
    SizeResult,
    TcpConnect,
    TlsAlert,
    TlsHandshake,
    Trace,
    TraceHop,
)
from mcdoctor.models.vantage import Vantage
from mcdoctor.reports.describe import describe, place

AT = datetime(2026, 1, 1, tzinfo=UTC)


def make(cls: type[Fact], **kw: Any) -> Fact:
    return cls(at=AT, vantage=Vantage(), **kw)


DNS: dict[str, Any] = {"name": "b.demo.", "type": "A", "server": "10.0.0.10:53", "transport": "udp"}


@pytest.mark.parametrize(
    ("fact", "en", "ko"),
    [
        (
            make(DnsAnswer, **DNS, result="answered", rcode="NOERROR", ms=2.0,
                 answers=(DnsRecord(name="b.demo.", type="A", ttl=5, data="10.1.0.1"),)),
            "DNS b.demo. A @10.0.0.10:53/udp: NOERROR, 10.1.0.1, 2 ms",
            "DNS b.demo. A @10.0.0.10:53/udp: NOERROR, 10.1.0.1, 2 ms",
        ),
        (
            make(DnsAnswer, **DNS, result="timeout", tries=5, successes=2, ms=2000.0),
            "DNS b.demo. A @10.0.0.10:53/udp: no answer, 2 of 5, 2000 ms",
            "DNS b.demo. A @10.0.0.10:53/udp: 응답 없음, 5번 중 2번, 2000 ms",
        ),
        (
            make(DnsSeries, **DNS, interval_ms=50.0, samples=(
                DnsSample(at=AT, result="answered", rcode="NOERROR", answers=("10.1.0.1",), ms=1.0),
                DnsSample(at=AT, result="answered", rcode="NXDOMAIN", ms=1.0),
                DnsSample(at=AT, result="answered", rcode="NXDOMAIN", ms=1.0),
                DnsSample(at=AT, result="timeout", ms=1.0),
            )),
            "DNS b.demo. A @10.0.0.10:53/udp: 1× NOERROR 10.1.0.1, 2× NXDOMAIN, 1× no answer",
            "DNS b.demo. A @10.0.0.10:53/udp: 1× NOERROR 10.1.0.1, 2× NXDOMAIN, 1× 응답 없음",
        ),
        (
            make(TcpConnect, address="fd00::1", port=80, result="unreachable", ms=12000.0, uid=1337,
                 icmp=IcmpError(type=3, code=13, sender="10.0.0.1")),
            "TCP [fd00::1]:80: unreachable, ICMP 3/13 from 10.0.0.1, 12.0 s, uid 1337",
            "TCP [fd00::1]:80: 도달 불가, ICMP 3/13 from 10.0.0.1, 12.0 s, uid 1337",
        ),
        (
            make(PathMtu, direction="forward", destination="10.2.0.1", sizes=(
                SizeResult(size=1400, result="delivered"), SizeResult(size=1500, result="frag-needed", mtu=1400))),
            "path MTU 10.2.0.1: delivered up to 1400 bytes, signalled MTU 1400",
            "path MTU 10.2.0.1: 1400바이트까지 전달됨, 알려진 MTU 1400",
        ),
        (
            make(PathMtu, direction="forward", destination="10.2.0.1", sizes=(SizeResult(size=576, result="lost"),)),
            "path MTU 10.2.0.1: no size delivered, lost from 576",
            "path MTU 10.2.0.1: 전달된 크기 없음, 576바이트부터 유실됨",
        ),
        (
            make(Trace, destination="10.2.0.1", protocol="udp", reached=False,
                 hops=(TraceHop(ttl=1, address="10.0.0.1"), TraceHop(ttl=2, address=None))),
            "trace 10.2.0.1 (udp): not reached, last hop 1 10.0.0.1",
            "trace 10.2.0.1 (udp): 도달하지 못함, last hop 1 10.0.0.1",
        ),
        (
            make(TlsHandshake, address="10.2.0.1", port=443, sni="b.demo", result="alert", ms=3.0,
                 alert=TlsAlert(name="unknown_ca", by="server")),
            "TLS 10.2.0.1:443 SNI b.demo: alert, unknown_ca (server), 3 ms",
            "TLS 10.2.0.1:443 SNI b.demo: alert, unknown_ca (server), 3 ms",
        ),
        (
            make(HttpRequest, url="http://b.demo/", protocol="http/1.1", result="response", status=503, ms=4.0,
                 response_flags="UF", address="10.2.0.1:80"),
            "GET http://b.demo/: @10.2.0.1:80, 503, UF, 4 ms",
            "GET http://b.demo/: @10.2.0.1:80, 503, UF, 4 ms",
        ),
        (
            make(HttpSeries, url="http://b.demo/", protocol="http/1.1", interval_ms=200.0, samples=tuple(
                HttpSample(at=AT, result=r, status=s, ms=1.0)
                for r, s in (("response", 200), ("response", 200), ("reset", None)))),
            "GET http://b.demo/: 2× 200, 1× reset",
            "GET http://b.demo/: 2× 200, 1× reset됨",
        ),
        (
            make(Banner, address="10.2.0.1", port=22, result="text", first_bytes="SSH-2.0", ms=1.0),
            'banner 10.2.0.1:22: text came, "SSH-2.0"',
            'banner 10.2.0.1:22: 텍스트 수신, "SSH-2.0"',
        ),
        (
            make(Interception, captured=True, by="istio", evidence=("port 15001",)),
            "captured by istio: port 15001",
            "istio 프록시가 가로챔: port 15001",
        ),
        (make(Interception, captured=False, evidence=()), "not captured by a proxy", "프록시가 가로채지 않음"),
        (
            make(Absent, cluster="b", wanted="Service", namespace="demo", name="x"),
            "Service demo/x: there is none, cluster b",
            "Service demo/x: 존재하지 않음, 클러스터 b",
        ),
        (
            make(Blind, wanted="Service", about="demo/x", reason="403"),
            "Service demo/x: could not be seen: 403",
            "Service demo/x: 확인할 수 없음: 403",
        ),
        (
            make(KubeObject, cluster="b", file="objects/a.yaml:3",
                 body={"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": "demo"}}),
            "Service demo/x: cluster b, objects/a.yaml:3",
            "Service demo/x: 클러스터 b, objects/a.yaml:3",
        ),
        (
            make(Interface, name="eth0", mtu=1450, addresses=("10.0.0.1/24",)),
            "interface eth0: MTU 1450, 10.0.0.1/24",
            "interface eth0: MTU 1450, 10.0.0.1/24",
        ),
    ],
)  # fmt: skip
def test_describe(fact: Fact, en: str, ko: str) -> None:
    assert describe(fact, "en") == en
    assert describe(fact, "ko") == ko


@pytest.mark.parametrize(
    ("vantage", "en", "ko"),
    [
        (Vantage(cluster="a", namespace="demo", pod="x"), "pod demo/x in a", "a의 pod demo/x"),
        (Vantage(pod="x", captured="istio"), "pod x (captured by istio)", "pod x (istio 프록시가 가로챔)"),
        (Vantage(cluster="a", node="n"), "node n in a", "a의 node n"),
        (Vantage(host="laptop"), "host laptop", "host laptop"),
        (Vantage(), "API server", "API 서버"),
    ],
)
def test_place(vantage: Vantage, en: str, ko: str) -> None:
    assert (place(vantage, "en"), place(vantage, "ko")) == (en, ko)
