"""Fact kinds: what was seen, in the source's own terms, without a judgement.

Every fact is a frozen dataclass with a JSON form of one line: `kind`, `at`, `vantage` and the fields below. The same
lines are the recording, the test case and the wire from the debug container. Three rules hold for all kinds:
no answer (`timeout`) and the answer no (`refused`) are different; a probe that did not run leaves no record; `ms` is
the time until the result, for time-outs the time waited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal

from mcdoctor.models.vantage import Vantage


def doc(text: str, default: Any = MISSING) -> Any:
    """A dataclass field with its documentation, which docs/facts.md prints."""
    if default is MISSING:
        return field(metadata={"doc": text})
    return field(default=default, metadata={"doc": text})


Transport = Literal["udp", "tcp", "tls", "https"]
Resolver = Literal["direct", "glibc", "musl", "go", "proxy-capture"]
DnsResult = Literal["answered", "timeout", "refused", "unreachable"]
Rcode = Literal["NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"]
TcpResult = Literal["open", "refused", "reset", "timeout", "unreachable"]
HttpProtocol = Literal["http/1.0", "http/1.1", "h2", "h3", "grpc", "grpc-web", "websocket"]
HttpResult = Literal[
    "response", "connect-error", "reset", "closed", "timeout", "tls-error", "dns-error", "protocol-error"
]
TlsResult = Literal["ok", "alert", "reset", "closed", "timeout", "plaintext", "verify-failed", "refused", "unreachable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What every fact has."""

    KIND: ClassVar[str] = ""

    at: datetime = doc("when it was seen, RFC 3339, UTC")
    vantage: Vantage = doc("where it was seen from")

    @property
    def subject(self) -> str:
        """What the fact is about, for people: a name, an address, an object."""
        return ""


# --- parts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsRecord:
    name: str
    type: str
    ttl: int
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSample:
    at: datetime
    result: DnsResult
    rcode: str | None = None
    answers: tuple[str, ...] | None = None
    ttl: int | None = None
    server: str | None = None
    source_port: int | None = None
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IcmpError:
    """The ICMP (or ICMPv6) error received."""

    type: int
    code: int
    sender: str | None = field(default=None, metadata={"json": "from"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceHop:
    ttl: int
    address: str | None
    ms: float | None = None
    icmp: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeResult:
    size: int
    result: Literal["delivered", "lost", "frag-needed"]
    mtu: int | None = None
    sender: str | None = field(default=None, metadata={"json": "from"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsAlert:
    name: str
    by: Literal["client", "server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsVerification:
    ok: bool
    error: str | None = None
    against: tuple[str, ...] | None = None
    name_matched: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    subject: str
    issuer: str
    sans: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    sha256: str
    serial: str | None = None
    is_ca: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSample:
    at: datetime
    result: HttpResult
    status: int | None
    ms: float
    connection: Literal["new", "kept"] | None = None
    connection_id: int | None = None
    served_by: str | None = None
    response_flags: str | None = None
    error: str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCertificate:
    sha256: str
    subject: str | None = None
    not_after: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConntrackEntry:
    protocol: str
    original: str
    reply: str
    state: str | None = None
    timeout_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    address: str
    port: int
    protocol: Literal["tcp", "udp"]
    process: str | None = None
    backlog: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    at: datetime
    value: float


# --- kinds seen by a prober --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvConf(Fact):
    """Content of /etc/resolv.conf at the vantage."""

    KIND: ClassVar[str] = "resolv_conf"
    nameservers: tuple[str, ...]
    search: tuple[str, ...]
    options: tuple[str, ...]
    libc: Literal["glibc", "musl", "none"] | None = None
    host_aliases: Mapping[str, str] | None = doc("extra /etc/hosts lines, name: address", None)

    @property
    def subject(self) -> str:
        return "/etc/resolv.conf"

    @property
    def ndots(self) -> int:
        """The ndots option, 1 where it is not set."""
        for option in self.options:
            name, _, value = option.partition(":")
            if name == "ndots" and value.isdigit():
                return int(value)
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsAnswer(Fact):
    """One DNS query."""

    KIND: ClassVar[str] = "dns_answer"
    name: str = doc("the name as asked; a trailing dot means absolute")
    type: str = doc("A, AAAA, SRV, CNAME, …")
    server: str = doc("address:port asked, or the resolver's first server when resolver is a libc")
    transport: Transport
    resolver: Resolver | None = doc(
        "direct (default): one query to `server`; else through that resolver with its search list", None
    )
    result: DnsResult
    rcode: Rcode | None = doc("needed when answered", None)
    answers: tuple[DnsRecord, ...] | None = doc("needed when answered; may be empty", None)
    chain: tuple[str, ...] | None = doc("CNAME targets in order", None)
    ttl: int | None = doc("lowest TTL of the answer", None)
    authority: tuple[DnsRecord, ...] | None = doc("authority section, such as the SOA of a denial", None)
    aa: bool | None = None
    tc: bool | None = None
    ra: bool | None = None
    edns_size: int | None = doc("UDP size offered", None)
    size: int | None = doc("bytes of the answer", None)
    source_port: int | None = None
    tries: int | None = None
    successes: int | None = None
    ms: float
    icmp: IcmpError | None = doc("the ICMP error received", None)
    error: str | None = doc("the errno's name, or the C library's (EAI_AGAIN, …), where there was one", None)

    @property
    def subject(self) -> str:
        return self.name

    @property
    def addresses(self) -> tuple[str, ...]:
        """The A or AAAA data of the answer."""
        return tuple(r.data for r in self.answers or () if r.type in ("A", "AAAA"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSeries(Fact):
    """The same query, repeated."""

    KIND: ClassVar[str] = "dns_series"
    name: str = doc("the name as asked; a trailing dot means absolute")
    type: str = doc("A, AAAA, SRV, CNAME, …")
    server: str = doc("address:port asked, or the resolver's first server when resolver is a libc")
    transport: Transport
    resolver: Resolver | None = doc(
        "direct (default): one query to `server`; else through that resolver with its search list", None
    )
    interval_ms: float
    source_port: int | None = doc("set when one socket was kept", None)
    samples: tuple[DnsSample, ...]

    @property
    def subject(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface(Fact):
    """One network interface at the vantage."""

    KIND: ClassVar[str] = "interface"
    name: str
    mtu: int
    addresses: tuple[str, ...] = doc("CIDR form")
    type: str | None = doc("veth, vxlan, geneve, wireguard, ipip, physical, bridge, ipvlan, dummy, …", None)
    up: bool | None = None
    peer: str | None = None
    offloads: Mapping[str, str] | None = doc("name: on or off", None)
    counters: Mapping[str, float] | None = doc("rx_dropped, tx_dropped, rx_errors, …", None)

    @property
    def subject(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Fact):
    """One line of the routing table, or (lookup set) the answer for one destination."""

    KIND: ClassVar[str] = "route"
    destination: str = doc("CIDR or default")
    lookup: str | None = doc("address asked for", None)
    type: Literal["unicast", "blackhole", "unreachable", "prohibit", "local"] | None = None
    via: str | None = None
    dev: str | None = None
    src: str | None = None
    table: str | None = None
    metric: int | None = None
    mtu: int | None = None
    protocol: str | None = doc("kernel, bird, …", None)

    @property
    def subject(self) -> str:
        return self.lookup or self.destination


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpConnect(Fact):
    """TCP connect."""

    KIND: ClassVar[str] = "tcp_connect"
    address: str
    port: int
    name: str | None = doc("name that gave the address, when any", None)
    result: TcpResult = doc("of several tries the best: open when any succeeded")
    icmp: IcmpError | None = doc("the ICMP error received", None)
    from_ttl: int | None = doc("TTL of the SYN-ACK or RST received", None)
    ms: float
    tries: int | None = None
    successes: int | None = None
    uid: int | None = doc("effective uid; 1337/2102 bypass the sidecar", None)
    bypass_proxy: bool | None = None
    source: str | None = doc("local address:port", None)
    source_port_reused: bool | None = None
    error: str | None = doc("the errno's name where there was one", None)
    retransmits: int | None = doc("SYNs sent again, over all tries that ended open", None)

    @property
    def subject(self) -> str:
        return f"{self.address}:{self.port}" if ":" not in self.address else f"[{self.address}]:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpProbe(Fact):
    """UDP datagram to a tunnel, discovery or DNS-like port."""

    KIND: ClassVar[str] = "udp_probe"
    address: str
    port: int
    result: Literal["reply", "no-reply", "refused", "unreachable", "arrived", "lost"]
    seen_at: str | None = doc("where a capture looked for it", None)
    size: int | None = None
    tries: int | None = None
    successes: int | None = None
    ms: float | None = None

    @property
    def subject(self) -> str:
        return f"{self.address}:{self.port}/udp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace(Fact):
    """Path trace."""

    KIND: ClassVar[str] = "trace"
    destination: str
    protocol: Literal["tcp", "udp", "icmp"]
    port: int | None = None
    direction: Literal["forward", "reverse"] | None = None
    reached: bool
    hops: tuple[TraceHop, ...]

    @property
    def subject(self) -> str:
        return self.destination


@dataclass(frozen=True, slots=True, kw_only=True)
class PathMtu(Fact):
    """Packets of growing size with DF; sizes are those of the IP packet on the wire."""

    KIND: ClassVar[str] = "path_mtu"
    direction: Literal["forward", "reverse"] = doc("forward: from A towards B")
    destination: str
    protocol: Literal["udp", "tcp", "icmp"] | None = None
    port: int | None = None
    sizes: tuple[SizeResult, ...]
    interface_mtu: int | None = None
    mss: tuple[int, ...] | None = doc("MSS seen in SYN and SYN-ACK", None)
    control_lost: int | None = doc("small control packets sent between the sizes and lost", None)
    control_sent: int | None = doc("small control packets sent between the sizes", None)

    @property
    def subject(self) -> str:
        return self.destination

    @property
    def largest_delivered(self) -> int | None:
        return max((s.size for s in self.sizes if s.result == "delivered"), default=None)

    @property
    def smallest_lost(self) -> int | None:
        return min((s.size for s in self.sizes if s.result == "lost"), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsHandshake(Fact):
    """TLS handshake."""

    KIND: ClassVar[str] = "tls_handshake"
    address: str
    port: int
    sni: str | None = doc("server name sent; null: none")
    alpn_offered: tuple[str, ...] | None = None
    alpn: str | None = doc("protocol agreed", None)
    version: Literal["TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"] | None = None
    cipher: str | None = None
    result: TlsResult
    alert: TlsAlert | None = None
    verify: TlsVerification | None = doc("the prober's own judgement of the chain", None)
    chain: tuple[Certificate, ...] | None = doc("certificates sent, leaf first", None)
    client_cert_requested: bool | None = None
    acceptable_issuers: tuple[str, ...] | None = None
    client_cert_sent: str | None = doc("first SAN or subject of what was sent", None)
    post_handshake_alert: str | None = doc("alert after the handshake (TLS 1.3 client certificate refusals)", None)
    first_bytes: str | None = doc("hex or text when plaintext came back", None)
    uid: int | None = None
    bypass_proxy: bool | None = None
    tries: int | None = None
    successes: int | None = None
    ms: float
    der: tuple[str, ...] | None = doc("certificates sent as base64 DER; becomes `chain` where they can be read", None)

    @property
    def subject(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest(Fact):
    """One request."""

    KIND: ClassVar[str] = "http_request"
    url: str
    method: str | None = None
    protocol: HttpProtocol
    address: str | None = doc("address:port really dialled", None)
    uid: int | None = doc("effective uid of the prober; 1337 (Istio) and 2102 (Linkerd) bypass the sidecar", None)
    bypass_proxy: bool | None = doc("true: the sidecar was bypassed", None)
    via: str | None = doc("forward proxy used (HTTP_PROXY), host:port", None)
    result: HttpResult
    status: int | None = None
    grpc_status: int | None = None
    request_headers: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = doc("response headers of interest, lower case", None)
    body_start: str | None = None
    request_bytes: int | None = None
    body_bytes: int | None = None
    response_flags: str | None = doc("from the access log of the proxy nearest the vantage, when known", None)
    error: str | None = None
    connection: Literal["new", "kept"] | None = None
    idle_s: float | None = doc("how long a kept connection had been idle", None)
    served_by: str | None = doc("cluster/pod that answered, as the backend itself reported it", None)
    max_segment: int | None = doc("TCP_MAXSEG asked for, when the request was made with small segments", None)
    tries: int | None = None
    successes: int | None = None
    ms: float

    @property
    def subject(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSeries(Fact):
    """Many requests."""

    KIND: ClassVar[str] = "http_series"
    url: str
    method: str | None = None
    protocol: HttpProtocol
    address: str | None = doc("address:port really dialled", None)
    uid: int | None = doc("effective uid of the prober; 1337 (Istio) and 2102 (Linkerd) bypass the sidecar", None)
    bypass_proxy: bool | None = doc("true: the sidecar was bypassed", None)
    via: str | None = doc("forward proxy used (HTTP_PROXY), host:port", None)
    interval_ms: float
    samples: tuple[HttpSample, ...]

    @property
    def subject(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner(Fact):
    """What a server says, or does not say, when a client connects and keeps silent."""

    KIND: ClassVar[str] = "banner"
    address: str
    port: int
    result: Literal["text", "silent", "closed", "reset", "refused", "timeout", "unreachable"] = doc(
        "silent: the connection is open and nothing came, which is what most protocols do"
    )
    first_bytes: str | None = doc("printable text or hex of what came", None)
    ms: float

    @property
    def subject(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Svid(Fact):
    """An identity document held at the vantage."""

    KIND: ClassVar[str] = "svid"
    spiffe_id: str
    trust_domain: str
    not_before: datetime
    not_after: datetime
    issuer_sha256: str = doc("fingerprint of the issuing certificate")
    root_sha256: str | None = None
    sha256: str | None = None
    source: str | None = doc("sds, workload-api, linkerd-proxy, file, …", None)

    @property
    def subject(self) -> str:
        return self.spiffe_id


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustBundle(Fact):
    """Roots trusted at the vantage for one trust domain."""

    KIND: ClassVar[str] = "trust_bundle"
    trust_domain: str
    roots: tuple[RootCertificate, ...]
    source: str | None = None

    @property
    def subject(self) -> str:
        return self.trust_domain


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSource(Fact):
    """What the receiving side saw of a probe from A."""

    KIND: ClassVar[str] = "observed_source"
    listening: str = doc("address:port that received it")
    ip: str
    port: int | None = None
    sni: str | None = None
    peer_id: str | None = doc("identity of the TLS peer", None)
    host_header: str | None = None
    forwarded_for: str | None = None
    protocol: str | None = None
    sent_from: str | None = doc("address the sender had", None)

    @property
    def subject(self) -> str:
        return self.listening


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock(Fact):
    """Clock offset of the vantage to the collector."""

    KIND: ClassVar[str] = "clock"
    offset_s: float
    reference: str | None = None
    synchronized: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl(Fact):
    """One kernel setting."""

    KIND: ClassVar[str] = "sysctl"
    name: str
    value: str

    @property
    def subject(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Conntrack(Fact):
    """Connection tracking state."""

    KIND: ClassVar[str] = "conntrack"
    count: int
    max: int
    insert_failed: int | None = None
    drop: int | None = None
    early_drop: int | None = None
    seconds: float | None = doc("period of the counters", None)
    entries: tuple[ConntrackEntry, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFact(Fact):
    """Any other fact about a node."""

    KIND: ClassVar[str] = "node_fact"
    name: str = doc("such as kernel, kube_proxy_mode, iptables_backend, tunnel, cni_config")
    value: Any

    @property
    def subject(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener(Fact):
    """Sockets in listening state at the vantage."""

    KIND: ClassVar[str] = "listener"
    sockets: tuple[Socket, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketFilter(Fact):
    """A filtering or NAT rule at the vantage that concerns the path."""

    KIND: ClassVar[str] = "packet_filter"
    table: str
    rule: str
    packets: int | None = None
    backend: Literal["iptables-legacy", "iptables-nft", "nftables", "ipvs", "ebpf"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture(Fact):
    """Summary of a packet capture."""

    KIND: ClassVar[str] = "capture"
    interface: str
    filter: str
    matched: int
    flags: tuple[str, ...] | None = None
    first: tuple[str, ...] | None = doc("short lines", None)
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRecord(Fact):
    """Flow record of a data plane (Hubble, Calico, ztunnel or proxy access log)."""

    KIND: ClassVar[str] = "flow"
    source: str
    destination: str
    verdict: str
    reason: str | None = None
    reason_code: int | None = None
    identity: str | None = None
    component: str | None = None
    fields: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Fact):
    """A time series as a metrics system has it."""

    KIND: ClassVar[str] = "metric"
    name: str
    labels: Mapping[str, str]
    type: Literal["counter", "gauge", "histogram"]
    samples: tuple[Point, ...]

    @property
    def subject(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine(Fact):
    """A line written by a component."""

    KIND: ClassVar[str] = "log_line"
    component: str = doc("istiod, envoy, ztunnel, coredns, linkerd-proxy, cilium-agent, kubelet, kernel, app, …")
    text: str
    container: str | None = None
    level: str | None = None
    count: int | None = doc("how often in the window", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interception(Fact):
    """Whether a local proxy answers in place of the far side; low-layer facts of a captured pod say nothing of it."""

    KIND: ClassVar[str] = "interception"
    captured: bool
    by: str | None = doc("istio, linkerd, ztunnel, unknown", None)
    evidence: tuple[str, ...] = doc("what shows it: a listening port, a container, a label, an answer from nowhere")


# --- kinds about Kubernetes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeObject(Fact):
    """A Kubernetes object as the API server gave it, secret values removed. In a bundle: a file under objects/."""

    KIND: ClassVar[str] = "object"
    cluster: str
    body: Mapping[str, Any]
    file: str | None = doc("where in a bundle it stands, file or file:line", None)

    @property
    def kind(self) -> str:
        """`Service`, `Deployment.apps`, `Gateway.networking.istio.io`: the kind, with its group where it has one."""
        group = str(self.body.get("apiVersion", "")).rpartition("/")[0]
        name = str(self.body.get("kind", ""))
        return f"{name}.{group}" if group else name

    @property
    def name(self) -> str:
        return str((self.body.get("metadata") or {}).get("name", ""))

    @property
    def namespace(self) -> str | None:
        value = (self.body.get("metadata") or {}).get("namespace")
        return str(value) if value else None

    @property
    def labels(self) -> Mapping[str, str]:
        return (self.body.get("metadata") or {}).get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        return (self.body.get("metadata") or {}).get("annotations") or {}

    @property
    def spec(self) -> Mapping[str, Any]:
        value = self.body.get("spec")
        return value if isinstance(value, Mapping) else {}

    @property
    def status(self) -> Mapping[str, Any]:
        value = self.body.get("status")
        return value if isinstance(value, Mapping) else {}

    @property
    def subject(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointAnswer(Fact):
    """What a debug endpoint of a component answered. In a bundle: a file under endpoints/POD/PATH."""

    KIND: ClassVar[str] = "endpoint_answer"
    cluster: str
    pod: str
    path: str = doc("such as debug/syncz, config_dump, certs")
    body: Any = doc("parsed JSON, else text")

    @property
    def subject(self) -> str:
        return f"{self.pod} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Fact):
    """A list was read to its end: what is not in it is not there. Rules about absence rest on it."""

    KIND: ClassVar[str] = "listed"
    cluster: str
    wanted: str = doc("kind with its group, such as Service or EndpointSlice.discovery.k8s.io")
    namespace: str | None = doc("null: all namespaces", None)
    selector: str | None = doc("label selector of the request, when there was one", None)
    field_selector: str | None = doc("field selector of the request, when there was one", None)
    count: int

    @property
    def subject(self) -> str:
        return self.wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent(Fact):
    """The server looked and there is none: a 404, never a 403."""

    KIND: ClassVar[str] = "absent"
    cluster: str
    wanted: str = doc("kind with its group; the kind itself is unknown to the server when `name` is missing")
    namespace: str | None = None
    name: str | None = None

    @property
    def subject(self) -> str:
        place = "/".join(p for p in (self.namespace, self.name) if p)
        return f"{self.wanted} {place}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Blind(Fact):
    """Something could not be seen: forbidden, timed out, tool missing, the probe failed. Never the same as absent."""

    KIND: ClassVar[str] = "blind"
    wanted: str = doc("the fact kind, or the Kubernetes kind with its group, that is owed")
    about: str = doc("what it would have been about")
    reason: str = doc("why, in one line")
    cluster: str | None = None
    permission: str | None = doc("verb and resource that were missing, such as `list endpointslices`", None)
    command: str | None = doc("what someone who may can run", None)
    status: int | None = doc("HTTP status of the API server's answer, when there was one", None)

    @property
    def subject(self) -> str:
        return self.about


PROBED: tuple[type[Fact], ...] = (
    ResolvConf, DnsAnswer, DnsSeries, Interface, Route, TcpConnect, UdpProbe, Trace, PathMtu, TlsHandshake,
    HttpRequest, HttpSeries, Banner, Svid, TrustBundle, ObservedSource, Clock, Sysctl, Conntrack, NodeFact, Listener,
    PacketFilter, Capture, FlowRecord, Metric, LogLine, Interception,
)  # fmt: skip
READ: tuple[type[Fact], ...] = (KubeObject, EndpointAnswer, Listed, Absent, Blind)
KINDS: Mapping[str, type[Fact]] = {cls.KIND: cls for cls in (*PROBED, *READ)}
