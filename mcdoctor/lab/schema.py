"""`lab.yaml` as types: what a simulated pair of clusters consists of, and how it is read.

`docs/lab.md` is generated from these classes: every field carries its `doc`. Unknown keys, wrong types and dangling
names are refused with the file, the line and the path of the key; nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

API_VERSION = "mcdoctor.dev/v1"

T = TypeVar("T")


class BadLab(ValueError):
    """`lab.yaml` cannot be used; the text names file, line and key."""


Action = Literal["drop", "reset", "reject", "prohibited"]
DnsBehaviour = Literal["nxdomain", "servfail", "refused", "silent", "empty", "truncated", "answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The diagnosis that the scenario is made for."""

    source: str = field(metadata={"doc": "source as on the command line, such as `frontend.shop@cluster-a`"})
    destination: str = field(metadata={"doc": "destination as on the command line, such as `backend.shop:8443`"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """A hop: a node, a gateway, a router between the clusters. Lowers the TTL, translates Service addresses."""

    address: str = field(metadata={"doc": "IPv4 address in the ICMP messages it sends; it answers pings on it"})
    cluster: str | None = field(
        default=None, metadata={"doc": "its cluster; Service addresses of that cluster are translated here"}
    )
    silent: bool = field(
        default=False, metadata={"doc": "sends no ICMP errors at all: not seen in traces, no frag-needed"}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A line between two routers, with its faults. Faults hold both ways unless `one_way` is set."""

    between: tuple[str, ...] = field(metadata={"doc": "the two routers"})
    mtu: int = field(default=1500, metadata={"doc": "largest IP packet in bytes that passes"})
    frag_needed: bool = field(
        default=True, metadata={"doc": "whether the router before the line reports a packet that is too large"}
    )
    loss: float = field(default=0.0, metadata={"doc": "share of packets lost, 0 to 1, whatever their size"})
    delay_ms: float = field(default=0.0, metadata={"doc": "delay of every packet"})
    jitter_ms: float = field(default=0.0, metadata={"doc": "random part on top of the delay, from 0 to this"})
    one_way: bool = field(default=False, metadata={"doc": "faults hold only from the first router to the second"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A packet filter at a router. An empty list matches everything; replies are matched like any packet."""

    at: str = field(metadata={"doc": "the router"})
    action: Action = field(
        metadata={"doc": "drop: silence; reset: TCP RST; reject: ICMP port unreachable; prohibited: ICMP code 13"}
    )
    protocol: Literal["tcp", "udp", "icmp", "any"] = field(default="any", metadata={"doc": "which packets"})
    sources: tuple[str, ...] = field(default=(), metadata={"doc": "hosts or CIDRs"})
    destinations: tuple[str, ...] = field(
        default=(), metadata={"doc": "hosts or CIDRs, after translation of Service addresses"}
    )
    ports: tuple[int, ...] = field(default=(), metadata={"doc": "destination ports"})
    icmp: tuple[int, ...] = field(default=(), metadata={"doc": "ICMP types, for protocol icmp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """What one policy forbids, as the scenario's author worked it out. Dropped in silence, replies are not touched."""

    sources: tuple[str, ...] = field(default=(), metadata={"doc": "hosts or CIDRs; empty: all"})
    destinations: tuple[str, ...] = field(
        default=(), metadata={"doc": "hosts or CIDRs, after translation of Service addresses; empty: all"}
    )
    protocol: Literal["tcp", "udp", "icmp", "any"] = field(default="any", metadata={"doc": "which packets"})
    ports: tuple[int, ...] = field(default=(), metadata={"doc": "destination ports; empty: all"})
    except_ports: tuple[int, ...] = field(default=(), metadata={"doc": "destination ports that stay open"})
    except_destinations: tuple[str, ...] = field(default=(), metadata={"doc": "hosts or CIDRs that stay reachable"})
    except_sources: tuple[str, ...] = field(default=(), metadata={"doc": "hosts or CIDRs that stay admitted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforced:
    """A policy object of the bundle and the packets that it costs."""

    policy: str = field(metadata={"doc": "`KIND namespace/name` of the object in the bundle"})
    cluster: str = field(metadata={"doc": "its cluster"})
    direction: Literal["ingress", "egress"] = field(
        metadata={"doc": "where it is enforced: at the node of the destination or source"}
    )
    deny: tuple[Deny, ...] = field(metadata={"doc": "what is dropped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforce:
    """The enforcing point of the simulated CNI."""

    policies: tuple[Enforced, ...] = field(default=(), metadata={"doc": "policies with their effect on packets"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddress:
    """A Service address (ClusterIP or load balancer) that routers translate to a backend, as kube-proxy does."""

    name: str = field(metadata={"doc": "for people: namespace/name"})
    address: str = field(metadata={"doc": "the IPv4 address"})
    cluster: str = field(metadata={"doc": "translated at the routers of this cluster"})
    ports: tuple[ServicePortMap, ...] = field(
        metadata={"doc": "its ports; packets to other ports vanish, as with kube-proxy"}
    )
    at: tuple[str, ...] = field(default=(), metadata={"doc": "only at these routers instead of all of the cluster"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePortMap:
    """One port of a Service address."""

    port: int = field(metadata={"doc": "the Service's port"})
    to: tuple[str, ...] = field(metadata={"doc": "backends as `address:port`; empty: no endpoints"})
    protocol: Literal["tcp", "udp"] = field(default="tcp", metadata={"doc": "of the port"})
    empty: Literal["reject", "drop"] = field(
        default="reject", metadata={"doc": "what happens without endpoints; kube-proxy rejects"}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvConf:
    """/etc/resolv.conf of a host."""

    nameservers: tuple[str, ...] = field(metadata={"doc": "addresses"})
    search: tuple[str, ...] = field(default=(), metadata={"doc": "search list"})
    options: tuple[str, ...] = field(default=("ndots:5",), metadata={"doc": "options"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificate of a TLS server, signed by the lab's own CA, which every host trusts."""

    names: tuple[str, ...] = field(metadata={"doc": "DNS names or IP addresses in the certificate (SANs)"})
    days: int = field(default=90, metadata={"doc": "days until it expires; negative: expired that many days ago"})
    trusted: bool = field(default=True, metadata={"doc": "false: signed by a second CA that nobody trusts"})
    alpn: tuple[str, ...] = field(default=("http/1.1",), metadata={"doc": "protocols offered by ALPN"})
    chain_bytes: int = field(
        default=0, metadata={"doc": "pads the certificate to at least this size, for large handshakes"}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What an HTTP server does for a path. The first that matches counts."""

    path: str = field(metadata={"doc": "exact path, or a prefix when it ends with `*`"})
    status: int = field(default=200, metadata={"doc": "status code"})
    body_bytes: int = field(default=3, metadata={"doc": "size of the body"})
    delay_ms: float = field(default=0.0, metadata={"doc": "wait before the answer"})
    hang: bool = field(default=False, metadata={"doc": "never answers"})
    close: bool = field(default=False, metadata={"doc": "closes the connection instead of answering"})
    share: float = field(
        default=1.0, metadata={"doc": "share of requests that it holds for, 0 to 1; the others go on to the next match"}
    )
    headers: Mapping[str, str] = field(default_factory=dict, metadata={"doc": "further response headers"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """An HTTP/1.1 server; answers carry `x-served-by: cluster/pod`."""

    port: int = field(metadata={"doc": "port"})
    bind: str = field(default="0.0.0.0", metadata={"doc": "address to listen on"})
    tls: Tls | None = field(default=None, metadata={"doc": "serves HTTPS"})
    routes: tuple[Route, ...] = field(
        default=(Route(path="/healthz"), Route(path="/*")), metadata={"doc": "paths; others are 404"}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpServer:
    """A server that speaks no HTTP."""

    port: int = field(metadata={"doc": "port"})
    bind: str = field(default="0.0.0.0", metadata={"doc": "address to listen on"})
    banner: str = field(default="", metadata={"doc": "text sent after accept; empty: waits in silence"})
    echo: bool = field(default=False, metadata={"doc": "sends back what it gets"})
    reset: bool = field(default=False, metadata={"doc": "resets every connection after accept"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsFault:
    """A name server's misbehaviour for some names. The first that matches counts."""

    behaviour: DnsBehaviour = field(default="answer", metadata={"doc": "what it does instead; answer: only the delay"})
    names: tuple[str, ...] = field(default=(), metadata={"doc": "names, `*.zone` for all under a zone; empty: all"})
    types: tuple[str, ...] = field(default=(), metadata={"doc": "record types; empty: all"})
    transport: Literal["udp", "tcp", "any"] = field(default="any", metadata={"doc": "over which transport"})
    share: float = field(default=1.0, metadata={"doc": "share of queries, 0 to 1, chosen at random"})
    every: int = field(
        default=0, metadata={"doc": "only each n-th query for the name (flapping that a test can count on); 0: all"}
    )
    delay_ms: float = field(default=0.0, metadata={"doc": "wait before the answer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsServer:
    """A name server."""

    port: int = field(default=53, metadata={"doc": "port"})
    bind: str = field(default="0.0.0.0", metadata={"doc": "address to listen on"})
    zones: tuple[str, ...] = field(
        default=(), metadata={"doc": "zones it is authoritative for: unknown names below get NXDOMAIN with an SOA"}
    )
    records: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict, metadata={"doc": 'name: ["A 10.0.0.1", "CNAME other.", …]; `*.zone` is a wildcard'}
    )
    ttl: int = field(default=5, metadata={"doc": "TTL of the answers in seconds"})
    forward: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata={
            "doc": "zone: servers `address[:port]` asked for its names; several: one at random; `.` for all names"
        },
    )
    forward_timeout_ms: float = field(default=2000.0, metadata={"doc": "no answer after this: SERVFAIL"})
    otherwise: Literal["nxdomain", "servfail", "refused", "silent"] = field(
        default="nxdomain", metadata={"doc": "for names of no zone"}
    )
    faults: tuple[DnsFault, ...] = field(default=(), metadata={"doc": "misbehaviour"})
    transports: tuple[Literal["udp", "tcp"], ...] = field(
        default=("udp", "tcp"), metadata={"doc": "served; over others it is not listening"}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A pod, a name server, a machine outside: one network namespace with one interface and some servers."""

    address: str = field(metadata={"doc": "IPv4 address"})
    router: str = field(metadata={"doc": "the router at the other end of its interface, such as its node"})
    cluster: str | None = field(default=None, metadata={"doc": "its cluster"})
    pod: str | None = field(default=None, metadata={"doc": "namespace/name of the Pod object that it stands for"})
    mtu: int = field(default=1500, metadata={"doc": "MTU of its interface"})
    resolv_conf: ResolvConf | None = field(
        default=None, metadata={"doc": "/etc/resolv.conf; without one no name resolves"}
    )
    http: tuple[HttpServer, ...] = field(default=(), metadata={"doc": "HTTP servers"})
    tcp: tuple[TcpServer, ...] = field(default=(), metadata={"doc": "plain TCP servers"})
    dns: tuple[DnsServer, ...] = field(default=(), metadata={"doc": "name servers"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSpec:
    """The whole file."""

    apiVersion: str = field(metadata={"doc": f"`{API_VERSION}`"})
    kind: Literal["Lab"] = field(metadata={"doc": "`Lab`"})
    about: str = field(metadata={"doc": "one line: what is wrong"})
    diagnose: Pair = field(metadata={"doc": "the pair to diagnose"})
    routers: Mapping[str, Router] = field(metadata={"doc": "hops by name"})
    hosts: Mapping[str, Host] = field(metadata={"doc": "network namespaces by name"})
    links: tuple[Link, ...] = field(
        default=(), metadata={"doc": "lines between routers; together they must join all of them"}
    )
    services: tuple[ServiceAddress, ...] = field(default=(), metadata={"doc": "Service addresses"})
    filters: tuple[Filter, ...] = field(default=(), metadata={"doc": "packet filters"})
    enforce: Enforce = field(default=Enforce(), metadata={"doc": "policy enforcement"})
    seed: int = field(default=1, metadata={"doc": "start of the random numbers for loss and shares"})

    def clusters(self) -> tuple[str, ...]:
        """Names of the clusters, sorted."""
        return tuple(sorted({h.cluster for h in self.hosts.values() if h.cluster}))


# --- reading -----------------------------------------------------------------------------------------------------


def load(path: Path) -> LabSpec:
    """The lab of a `lab.yaml`; raises BadLab, or OSError where the file cannot be read."""
    return parse(path.read_text(encoding="utf-8"), str(path))


def parse(text: str, name: str = "lab.yaml") -> LabSpec:
    """The lab described by YAML text; `name` is used in messages. Raises BadLab."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        tree = yaml.compose(text, Loader=loader)
        data = yaml.load(text, Loader=loader)  # noqa: S506 - one of the safe loaders
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise BadLab(f"{name}{line}: {getattr(error, 'problem', None) or 'not YAML'}") from None
    try:
        spec = _decode(LabSpec, data, ())
        for where, trouble in _troubles(spec):
            raise _Wrong(where, trouble)
    except _Wrong as wrong:
        line = f":{_line(tree, wrong.where)}" if tree is not None else ""
        raise BadLab(f"{name}{line}: {_path(wrong.where)}{wrong.text}") from None
    return spec


class _Wrong(Exception):
    def __init__(self, where: tuple[str | int, ...], text: str) -> None:
        self.where = where
        self.text = text


def _path(where: tuple[str | int, ...]) -> str:
    text = ""
    for step in where:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return f"{text}: " if text else ""


def _line(node: Any, where: tuple[str | int, ...]) -> int:
    """Line, from 1, of the deepest node on the way to `where`."""
    line: int = node.start_mark.line + 1
    for step in where:
        value = node.value
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                break
            node = value[step]
            line = node.start_mark.line + 1
        else:
            found = next((pair for pair in value if isinstance(pair, tuple) and pair[0].value == step), None)
            if found is None:
                break
            node = found[1]
            line = found[0].start_mark.line + 1
    return line


@cache
def _hints(cls: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


def _decode(cls: type[T], data: Any, where: tuple[str | int, ...]) -> T:
    if not isinstance(data, Mapping):
        raise _Wrong(where, f"expected a mapping, found {_found(data)}")
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    for key in data:
        if key not in fields:
            raise _Wrong((*where, str(key)), f"no such key; known here: {', '.join(fields)}")
    hints = _hints(typing.cast(Any, cls))
    values: dict[str, Any] = {}
    for name, spec in fields.items():
        if name in data and data[name] is not None:
            values[name] = _value(hints[name], data[name], (*where, name))
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise _Wrong(where, f"{name} is missing")
    return cls(**values)


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, (Mapping, list)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    return f"{value!r}"[:60]


def _value(hint: Any, value: Any, where: tuple[str | int, ...]) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args:
            raise _Wrong(where, f"expected one of {', '.join(map(str, args))}, found {_found(value)}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _value(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _Wrong(where, f"expected a list, found {_found(value)}")
        return tuple(_value(args[0], v, (*where, i)) for i, v in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _Wrong(where, f"expected a mapping, found {_found(value)}")
        return {str(k): _value(args[1], v, (*where, str(k))) for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return _decode(typing.cast(type, hint), value, where)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise _Wrong(where, f"expected {names[hint]}, found {_found(value)}")
    return value


def _troubles(lab: LabSpec) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong between fields: names that are nowhere, addresses twice, numbers out of range."""
    if lab.apiVersion != API_VERSION:
        yield ("apiVersion",), f"expected {API_VERSION}, found {lab.apiVersion!r}"
    yield from _addresses(lab)
    for i, link in enumerate(lab.links):
        if len(link.between) != 2 or link.between[0] == link.between[1]:
            yield ("links", i, "between"), "expected two different routers"
        for end in link.between:
            yield from _known(end, lab.routers, ("links", i, "between"), "router")
        if not 0 <= link.loss <= 1:
            yield ("links", i, "loss"), f"expected a share from 0 to 1, found {link.loss:g}"
        if not 68 <= link.mtu <= 9000:
            yield ("links", i, "mtu"), f"expected 68 to 9000 bytes, found {link.mtu}"
    parts = _parts(lab)
    if len(parts) > 1:
        yield ("links",), f"no line joins {min(parts[1])} to {min(parts[0])}"
    for i, rule in enumerate(lab.filters):
        yield from _known(rule.at, lab.routers, ("filters", i, "at"), "router")
        for key, ends in (("sources", rule.sources), ("destinations", rule.destinations)):
            yield from _ends(ends, lab, ("filters", i, key))
        if rule.action == "reset" and rule.protocol != "tcp":
            yield ("filters", i, "action"), "reset needs protocol tcp"
    for i, enforced in enumerate(lab.enforce.policies):
        for j, deny in enumerate(enforced.deny):
            for key in ("sources", "destinations", "except_sources", "except_destinations"):
                yield from _ends(getattr(deny, key), lab, ("enforce", "policies", i, "deny", j, key))
    for i, service in enumerate(lab.services):
        for name in service.at:
            yield from _known(name, lab.routers, ("services", i, "at"), "router")
        if not any(r.cluster == service.cluster for r in lab.routers.values()) and not service.at:
            yield ("services", i, "cluster"), f"no router belongs to cluster {service.cluster!r}"
        for j, port in enumerate(service.ports):
            for k, backend in enumerate(port.to):
                if not re.fullmatch(r"[0-9.]+:[0-9]+", backend) or not _ipv4(backend.partition(":")[0]):
                    yield ("services", i, "ports", j, "to", k), f"expected address:port, found {backend!r}"
    for name, host in lab.hosts.items():
        yield from _host(name, host, lab)


def _addresses(lab: LabSpec) -> Iterator[tuple[tuple[str | int, ...], str]]:
    seen: dict[str, str] = {}
    places: list[tuple[tuple[str | int, ...], str, str]] = [
        *((("routers", n, "address"), r.address, n) for n, r in lab.routers.items()),
        *((("hosts", n, "address"), h.address, n) for n, h in lab.hosts.items()),
        *((("services", i, "address"), s.address, s.name) for i, s in enumerate(lab.services)),
    ]
    for where, address, name in places:
        if not _ipv4(address):
            yield where, f"expected an IPv4 address, found {address!r}"
        elif address in seen:
            yield where, f"{address} already belongs to {seen[address]}"
        seen[address] = name


def _host(name: str, host: Host, lab: LabSpec) -> Iterator[tuple[tuple[str | int, ...], str]]:
    where = ("hosts", name)
    yield from _known(host.router, lab.routers, (*where, "router"), "router")
    if host.pod is not None and (host.pod.count("/") != 1 or host.cluster is None):
        yield (*where, "pod"), "expected namespace/name, and the cluster beside it"
    if not 576 <= host.mtu <= 9000:
        yield (*where, "mtu"), f"expected 576 to 9000 bytes, found {host.mtu}"
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", name):
        yield where, f"{name!r} is not a host name"
    listening = [
        *((("http", i), s.port, s.bind) for i, s in enumerate(host.http)),
        *((("tcp", i), s.port, s.bind) for i, s in enumerate(host.tcp)),
        *((("dns", i), s.port, s.bind) for i, s in enumerate(host.dns)),
    ]
    for key, port, bind in listening:
        if not 1 <= port <= 65535:
            yield (*where, *key, "port"), f"expected 1 to 65535, found {port}"
        if not _ipv4(bind):
            yield (*where, *key, "bind"), f"expected an IPv4 address, found {bind!r}"
    for i, web in enumerate(host.http):
        if web.tls is not None and not web.tls.names:
            yield (*where, "http", i, "tls", "names"), "expected at least one name"
    for i, dns in enumerate(host.dns):
        for record, values in dns.records.items():
            for j, value in enumerate(values):
                if not re.fullmatch(r"(A|AAAA|CNAME|SRV|TXT|PTR|NS|MX) \S.*", value):
                    yield (*where, "dns", i, "records", record, j), f"expected `TYPE data`, found {value!r}"


def _known(name: str, names: Iterable[str], where: tuple[str | int, ...], what: str) -> Iterator[tuple[Any, str]]:
    if name not in names:
        yield where, f"no {what} is called {name!r}"


def _ends(ends: Iterable[str], lab: LabSpec, where: tuple[str | int, ...]) -> Iterator[tuple[Any, str]]:
    for end in ends:
        if end not in lab.hosts:
            try:
                ipaddress.IPv4Network(end)
            except ValueError:
                yield where, f"{end!r} is neither a host of this lab nor a CIDR"


def _ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _parts(lab: LabSpec) -> list[set[str]]:
    """The routers in groups that links join."""
    groups = [{name} for name in lab.routers]
    for link in lab.links:
        touched = [g for g in groups if g & set(link.between)]
        groups = [g for g in groups if g not in touched]
        groups.append(set().union(*touched))
    return groups
