"""What a prober can be asked for. Each request is plain data, is sent as one JSON line, and yields facts.

All time-outs are in seconds and hold for one attempt; `budget` on the wire bounds the whole request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from mcdoctor.models.facts import HttpProtocol, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """What every request has: the name of its operation."""

    OPERATION: ClassVar[str] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResolvConf(ProbeRequest):
    """Yields ResolvConf."""

    OPERATION: ClassVar[str] = "read-resolv-conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadInterfaces(ProbeRequest):
    """Yields an Interface each."""

    OPERATION: ClassVar[str] = "read-interfaces"


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUpRoute(ProbeRequest):
    """Yields Route with `lookup` set."""

    OPERATION: ClassVar[str] = "look-up-route"
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskDns(ProbeRequest):
    """One query to one server (or, with server null, through the C library); yields DnsAnswer."""

    OPERATION: ClassVar[str] = "ask-dns"
    name: str
    type: str = "A"
    server: str | None = None
    transport: Transport = "udp"
    tries: int = 1
    timeout: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleDns(ProbeRequest):
    """The same query several times, each from a new socket; yields DnsSeries."""

    OPERATION: ClassVar[str] = "sample-dns"
    name: str
    type: str = "A"
    server: str | None = None
    transport: Transport = "udp"
    samples: int = 5
    interval: float = 0.05
    timeout: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectTcp(ProbeRequest):
    """Yields TcpConnect. Tries run side by side, a little apart, so that loss shows as a rate quickly."""

    OPERATION: ClassVar[str] = "connect-tcp"
    address: str
    port: int
    name: str | None = None
    tries: int = 1
    timeout: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TracePath(ProbeRequest):
    """Yields Trace: TCP SYNs (or UDP where raw answers cannot be read) with growing TTL."""

    OPERATION: ClassVar[str] = "trace-path"
    address: str
    port: int | None = None
    protocol: Literal["tcp", "udp", "icmp"] = "udp"
    max_hops: int = 16
    timeout: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurePathMtu(ProbeRequest):
    """Yields PathMtu for each means that worked (udp, icmp, tcp on the port), Blind for each that could not.

    The TCP stream says something long that the port understands: a ClientHello with `tls` (server name `sni`, else
    `host`), else an HTTP GET with `host`; with neither nothing is sent, and that means is Blind.
    """

    OPERATION: ClassVar[str] = "measure-path-mtu"
    address: str
    port: int | None = None
    sni: str | None = None
    host: str | None = None
    tls: bool = False
    timeout: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShakeTls(ProbeRequest):
    """Yields TlsHandshake."""

    OPERATION: ClassVar[str] = "shake-tls"
    address: str
    port: int
    sni: str | None = None
    alpn: tuple[str, ...] | None = None
    max_segment: int | None = None
    timeout: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest(ProbeRequest):
    """One request (HttpRequest), or a series of `count` (HttpSeries); no side effects unless the user asked.

    `address` (ip) is dialled instead of the URL's host when given; the Host header and SNI stay those of the URL.
    """

    OPERATION: ClassVar[str] = "send-request"
    url: str
    address: str | None = None
    method: str = "GET"
    protocol: HttpProtocol = "http/1.1"
    headers: Mapping[str, str] | None = None
    body: str | None = None
    count: int = 1
    interval: float = 0.2
    keep: bool = False
    max_segment: int | None = None
    timeout: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBanner(ProbeRequest):
    """Connects and listens; yields Banner."""

    OPERATION: ClassVar[str] = "read-banner"
    address: str
    port: int
    timeout: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectCapture(ProbeRequest):
    """Yields Interception, from listening proxy ports and the answer of an address that nobody has."""

    OPERATION: ClassVar[str] = "detect-capture"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadClock(ProbeRequest):
    """Yields Clock against the `now` of the asking side (seconds since the epoch)."""

    OPERATION: ClassVar[str] = "read-clock"
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSysctl(ProbeRequest):
    """Yields Sysctl for each name that exists, such as net.ipv4.ip_local_port_range."""

    OPERATION: ClassVar[str] = "read-sysctl"
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadListeners(ProbeRequest):
    """Yields Listener from /proc/net."""

    OPERATION: ClassVar[str] = "read-listeners"


OPERATIONS: Mapping[str, type[ProbeRequest]] = {
    cls.OPERATION: cls
    for cls in (
        ReadResolvConf, ReadInterfaces, LookUpRoute, AskDns, SampleDns, ConnectTcp, TracePath, MeasurePathMtu,
        ShakeTls, SendRequest, ReadBanner, DetectCapture, ReadClock, ReadSysctl, ReadListeners,
    )
}  # fmt: skip
