"""Cilium: CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, and NetworkPolicy as Cilium enforces it.

Sources in cilium/cilium: `pkg/policy/api` (fields and `rule_validation.go`), `pkg/k8s/apis/cilium.io/{v2,utils}` (scope
of selectors), `pkg/policy/{repository,rule,mapstate}.go` (default deny, deny first, merging), `pkg/policy/k8s/
service.go`, `pkg/k8s/network_policy.go`, `pkg/fqdn/matchpattern`; documentation under security/policy and
network/clustermesh/policy.

All kinds form one repository. Per direction a pod is isolated as soon as one selecting policy has a section for it (and
does not opt out by `enableDefaultDeny`); a rule that denies beats every rule that allows; what no rule allows is
refused where the pod is isolated. Peers are known by their labels (identities), never by address, unless they are
outside.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TypeAlias, assert_never

from mcdoctor.policy import kubernetes
from mcdoctor.policy.addresses import Block, Ip, host_block, parse_block, parse_ip
from mcdoctor.policy.cilium_identity import (
    CLUSTER,
    NAMESPACE_LABELS,
    POD_NAMESPACE,
    Config,
    Identity,
    Term,
    Terms,
    all_hold,
    host_identity,
    parse_terms,
    pod_identity,
    read_config,
    reserved,
)
from mcdoctor.policy.family import Compiled, Family
from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.index import Index
from mcdoctor.policy.kubernetes import Kubernetes
from mcdoctor.policy.ports import NamedPort, PortRange
from mcdoctor.policy.question import Http, Packet
from mcdoctor.policy.selectors import DOES_NOT_EXIST, EXISTS, IN, NOT_IN, Selector
from mcdoctor.policy.verdict import (
    SILENT,
    Branch,
    Deciding,
    Direction,
    Doubt,
    Effect,
    Match,
    Ref,
    Refusal,
    Ruling,
    Step,
    both,
    either,
)
from mcdoctor.policy.world import Cluster, DomainName, End, Node, Object, Outside, Pod

GROUP = "cilium.io"
NAMESPACED = (GROUP, "CiliumNetworkPolicy")
CLUSTERWIDE = (GROUP, "CiliumClusterwideNetworkPolicy")
CIDR_GROUP = (GROUP, "CiliumCIDRGroup")
LAYER = "cilium"
ENTITIES = (
    "all", "world", "world-ipv4", "world-ipv6", "cluster", "host", "init", "ingress", "unmanaged", "remote-node",
    "health", "none", "kube-apiserver", "cluster-mesh",
)  # fmt: skip
_MOST_ITEMS = 40


# --- peers, ports and what rules demand of a request ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class LabelPeer:
    """Managed endpoints by labels, scope included. `any_cluster`: the selector names the cluster itself, or a reserved
    label; otherwise policy-default-local-cluster decides whether it means the local cluster only.
    """

    terms: Terms
    any_cluster: bool
    pointer: str


@dataclass(frozen=True, slots=True)
class EntityPeer:
    entity: str
    pointer: str


@dataclass(frozen=True, slots=True)
class BlockPeer:
    """Addresses outside the cluster; several blocks where a CiliumCIDRGroup holds them."""

    blocks: tuple[Block, ...]
    excepts: tuple[Block, ...]
    pointer: str


@dataclass(frozen=True, slots=True)
class NamePeer:
    """Addresses learnt from DNS look-ups of names that match."""

    name: str
    expression: re.Pattern[str]
    pointer: str


@dataclass(frozen=True, slots=True)
class NodePeer:
    """Other nodes by their labels (enable-node-selector-labels)."""

    terms: Terms
    pointer: str


@dataclass(frozen=True, slots=True)
class ServicePeer:
    """Backends of Services: by the Service's selector, or by address where it has none."""

    labels: tuple[LabelPeer, ...]
    blocks: tuple[Block, ...]
    pointer: str


@dataclass(frozen=True, slots=True)
class GroupPeer:
    """A cloud provider's groups: the addresses in them are not among the objects."""

    pointer: str


Peer: TypeAlias = LabelPeer | EntityPeer | BlockPeer | NamePeer | NodePeer | ServicePeer | GroupPeer


@dataclass(frozen=True, slots=True)
class Ports:
    """Numeric ports, both ends included; `low` 0 = all. `protocols` () = TCP, UDP and SCTP."""

    protocols: tuple[str, ...]
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class PortName:
    protocols: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class IcmpType:
    """`type` None = all of the family's."""

    family: int
    type: int | None


Item: TypeAlias = Ports | PortName | IcmpType


@dataclass(frozen=True, slots=True)
class HttpRule:
    """Regular expressions that must match whole, headers that must be there (value None = whatever it is).

    `secret`: names of headers whose value is kept in a Secret.
    """

    method: str
    path: str
    host: str
    headers: tuple[tuple[str, str | None], ...]
    secret: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DnsRule:
    """Look-ups of these names pass, others are refused by the DNS proxy."""

    patterns: tuple[tuple[str, re.Pattern[str]], ...]


@dataclass(frozen=True, slots=True)
class OtherRule:
    """Kafka or a parser of its own: not evaluated."""

    protocol: str


Layer7: TypeAlias = tuple[HttpRule, ...] | DnsRule | OtherRule | None


@dataclass(frozen=True, slots=True)
class PortRule:
    """One item of `toPorts` or `icmps`. `names`: TLS server names demanded; `listener`: an Envoy listener of one's
    own.
    """

    items: tuple[Item, ...]
    layer7: Layer7
    names: tuple[str, ...]
    listener: str


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """`peers` None = anybody, () = nobody; `ports` None = everything, () = nothing.

    `loose`: toServices that select no Service beside toPorts.
    """

    peers: tuple[Peer, ...] | None
    ports: tuple[PortRule, ...] | None
    pointer: str
    authentication: str = ""
    loose: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """One direction of a policy. `isolates`: what no rule allows is refused; `pointer`: the section that says so.

    `requires`: what every peer given by labels must fulfil besides, in allowing and in denying rules (before 1.19).
    """

    allows: tuple[Rule, ...]
    denies: tuple[Rule, ...]
    isolates: bool
    pointer: str
    requires: tuple[Terms, ...] = ()
    requires_of_denies: tuple[Terms, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """One rule of the repository. `namespace` '' = clusterwide; `nodes`: it selects nodes instead of pods."""

    ref: Ref
    subject: Terms
    nodes: bool
    namespace: str
    sides: Mapping[Direction, Side]
    object: Object


# --- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reader:
    """What parsing an object hangs on besides the object; `warnings` collects what is worth saying."""

    cluster: Cluster
    config: Config
    groups: Mapping[str, tuple[tuple[Block, ...], Mapping[str, str]]]
    warnings: list[Refusal]


def _address_block(field: Field) -> Block:
    """A CIDR, or an address standing for itself."""
    text = field.text()
    try:
        return parse_block(text) if "/" in text else host_block(parse_ip(text))
    except ValueError:
        raise Refused(field.pointer, f"{text!r} is neither a CIDR nor an address") from None


def _cidr(field: Field) -> Block:
    try:
        return parse_block(field.text())
    except ValueError:
        raise Refused(field.pointer, f"{field.value!r} is not a CIDR") from None


def scoped(terms: Terms, namespace: str, *, initial: bool = False) -> tuple[Terms, bool]:
    """A peer selector with the scope Cilium adds, and whether it says by itself which clusters it means.

    Source: `getEndpointSelector` in pkg/k8s/apis/cilium.io/utils.
    """
    if any(t.source == "reserved" for t in terms):
        return terms, True
    if not any(t.names(POD_NAMESPACE) for t in terms):
        if not namespace:
            if not initial:
                terms = (*terms, Term("k8s", POD_NAMESPACE, EXISTS))
        elif not any(t.source in ("k8s", "any") and t.key.startswith(NAMESPACE_LABELS + ".") for t in terms):
            terms = (*terms, Term("k8s", POD_NAMESPACE, IN, (namespace,)))
    return terms, any(t.names(CLUSTER) for t in terms)


def _label_peer(field: Field, namespace: str, initial: bool) -> LabelPeer:
    terms, any_cluster = scoped(parse_terms(field), namespace, initial=initial)
    return LabelPeer(terms, any_cluster, field.pointer)


def _cidr_set(field: Field, reader: Reader, ref: Ref) -> BlockPeer:
    cidr, group, selector = field["cidr"], field["cidrGroupRef"], field["cidrGroupSelector"]
    given = [f for f in (cidr, group, selector) if f.present and f.value != ""]
    if len(given) != 1:
        why = "more than one" if given else "one"
        raise Refused(field.pointer, f"{why} of cidr, cidrGroupRef and cidrGroupSelector " + (
            "may not be set" if given else "is required"))  # fmt: skip
    excepts = tuple(_cidr(item) for item in field["except"].items())
    if given[0] is cidr:
        block = _cidr(cidr)
        for item, excepted in zip(field["except"].items(), excepts, strict=True):
            if not block.covers(excepted):
                raise Refused(item.pointer, f"is not inside {cidr.value}")
        return BlockPeer((block,), excepts, field.pointer)
    if given[0] is group:
        name = group.text()
        if name not in reader.groups:
            missing = f"CiliumCIDRGroup {name} is not among the objects: it matches nothing"
            reader.warnings.append(Refusal(ref, group.pointer, missing, fatal=False))
        return BlockPeer(reader.groups[name][0] if name in reader.groups else (), excepts, field.pointer)
    terms = parse_terms(selector)
    chosen = [
        blocks
        for blocks, labels in reader.groups.values()
        if all_hold(
            tuple(replace(t, source="any") for t in terms), Identity({k: ("any", v) for k, v in labels.items()})
        )
        is True
    ]
    return BlockPeer(tuple(b for blocks in chosen for b in blocks), excepts, field.pointer)


_NAME = re.compile(r"([-a-zA-Z0-9_]+[.]?)+\Z")
_PATTERN = re.compile(r"([-a-zA-Z0-9_*]+[.]?)+\Z")
_DNS_CHARACTER = "[-a-z0-9_]"


def name_expression(pattern: str, *, whole_labels: bool = True) -> re.Pattern[str]:
    """A matchName or matchPattern as a regular expression over lower-case names without the trailing dot.

    `*` stays inside a label and alone stands for every name. `whole_labels` (Cilium 1.19 and later): `**.` in front
    stands for whole labels; before, several stars mean no more than one.
    """
    pattern = pattern.strip().lower().rstrip(".")
    if pattern == "*" or (whole_labels and set(pattern) == {"*"}):
        return re.compile(rf"{_DNS_CHARACTER}+(\.{_DNS_CHARACTER}+)*\Z")
    front = ""
    found = re.match(r"\*{2,}\.", pattern)
    if found and whole_labels:
        front, pattern = rf"{_DNS_CHARACTER}+(\.{_DNS_CHARACTER}+)*\.", pattern[found.end() :]
    parts = re.split(r"\*+", pattern)
    return re.compile(front + f"{_DNS_CHARACTER}*".join(map(re.escape, parts)) + r"\Z")


def _dns_name(field: Field, reader: Reader) -> tuple[str, re.Pattern[str]]:
    field.mapping()
    name, pattern = field["matchName"], field["matchPattern"]
    if name.present == pattern.present:
        raise Refused(field.pointer, "exactly one of matchName and matchPattern must be given")
    chosen = name if name.present else pattern
    text = chosen.text("")
    if not (len(text) <= 255 and (_PATTERN if chosen is pattern else _NAME).match(text)) and text:
        raise Refused(chosen.pointer, f"{text!r} is not a DNS name" + (" pattern" if chosen is pattern else ""))
    whole_labels = reader.config.before(1, 19) is not True
    return text, name_expression(text, whole_labels=whole_labels) if text else re.compile(r"(?!)")


def _service(field: Field, reader: Reader, namespace: str) -> ServicePeer:
    by_selector, by_name = field["k8sServiceSelector"], field["k8sService"]
    labels: list[LabelPeer] = []
    blocks: list[Block] = []
    terms = parse_terms(by_selector["selector"]) if by_selector.present else ()
    home = (by_selector if by_selector.present else by_name)["namespace"].text("")
    name = by_name["serviceName"].text("")
    for service in reader.cluster.services.values():
        if home not in ("", service.namespace):
            continue
        if by_selector.present:
            identity = Identity({k: ("any", v) for k, v in service.labels.items()})
            if all_hold(tuple(replace(t, source="any") for t in terms), identity) is not True:
                continue
        elif not by_name.present or service.name != name:
            continue
        if service.selector:
            if reader.config.before(1, 17):
                continue  # toServices then meant the addresses of Services without a selector only
            own = tuple(Term("any", k, IN, (v,)) for k, v in sorted(service.selector.items()))
            labels.append(LabelPeer((*own, Term("k8s", POD_NAMESPACE, IN, (service.namespace,))), False, field.pointer))
        else:
            for part in reader.cluster.slices.get((service.namespace, service.name), ()):
                blocks += [host_block(e.ip) for e in part.endpoints if e.ip is not None]
    return ServicePeer(tuple(labels), tuple(blocks), field.pointer)


_PEERS = {
    Direction.INGRESS: ("fromEndpoints", "fromCIDR", "fromCIDRSet", "fromEntities", "fromNodes", "fromGroups"),
    Direction.EGRESS: (
        "toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toServices", "toGroups", "toNodes", "toFQDNs",
    ),
}  # fmt: skip


def _peers(
    field: Field, direction: Direction, deny: bool, namespace: str, initial: bool, reader: Reader, ref: Ref
) -> tuple[Peer, ...] | None:
    """The peers of a rule; None where the rule names none, () where it names an empty list."""
    names = [n for n in _PEERS[direction] if not (deny and n == "toFQDNs") and field[n].present]
    used = [n for n in names if any(True for _ in field[n].items())]
    if len(used) > 1 and not (deny and reader.config.before(1, 17)):
        why = f"may not be combined with {used[0]} in one rule: Cilium takes no such policy; use a rule for each"
        raise Refused(field[used[1]].pointer, why)
    if not used:
        return () if any(n not in ("toServices", "toGroups", "fromGroups", "toFQDNs") for n in names) else None
    # Several kinds of peers (in denying rules, which were not checked before 1.17) are OR'ed.
    found: list[Peer] = []
    for name, item in [(each, item) for each in used for item in field[each].items()]:
        match name.removeprefix("from").removeprefix("to"):
            case "Endpoints":
                found.append(_label_peer(item, namespace, initial))
            case "CIDR":
                found.append(BlockPeer((_address_block(item),), (), item.pointer))
            case "CIDRSet":
                found.append(_cidr_set(item, reader, ref))
            case "Entities":
                older = reader.config.before(1, 20)  # does not know the last one
                found.append(EntityPeer(item.choice(ENTITIES[:-1] if older else ENTITIES), item.pointer))
            case "Nodes":
                if reader.config.node_labels is False:
                    raise Refused(field[name].pointer, f"{name} needs enable-node-selector-labels")
                found.append(NodePeer(parse_terms(item), item.pointer))
            case "Services":
                found.append(_service(item, reader, namespace))
            case "FQDNs":
                found.append(NamePeer(*_dns_name(item, reader), item.pointer))
            case _:
                item.mapping()
                found.append(GroupPeer(item.pointer))
    if any(n not in used and n not in ("toServices", "toGroups", "fromGroups", "toFQDNs") for n in names):
        return ()  # an empty list of another sort selects nobody, and takes the whole rule with it
    return tuple(found)


_PROTOCOLS = {"TCP": ("TCP",), "UDP": ("UDP",), "SCTP": ("SCTP",), "ANY": (), "": (),
              "ICMP": ("ICMP",), "ICMPV6": ("ICMPv6",)}  # fmt: skip
_EXTENDED = ("VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH")
_PORT_NAME = re.compile(r"(?=.{1,15}\Z)(?=.*[A-Za-z])(?!.*--)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\Z")


def _port(field: Field, reader: Reader, dns: bool) -> Item | None:
    protocol = field["protocol"].text("").upper()
    if protocol not in _PROTOCOLS and protocol not in _EXTENDED:
        raise Refused(field["protocol"].pointer, f"{field['protocol'].value!r} is not one of TCP, UDP, SCTP, ANY")
    port = field["port"]
    text = port.text("")
    end = field["endPort"].integer(0)
    if not 0 <= end <= 65535:
        raise Refused(field["endPort"].pointer, f"{end} is not between 0 and 65535")
    if not text:
        if not reader.config.port_may_miss and protocol not in _EXTENDED:
            raise Refused(port.pointer, "port must be specified")
        text = "0"
    if protocol in _EXTENDED:
        return None  # no traffic that can be asked about
    protocols = _PROTOCOLS[protocol]
    if _PORT_NAME.match(text):
        return PortName(protocols, text.lower())
    low = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else -1
    if not 0 <= low <= 65535:
        raise Refused(port.pointer, f"{text!r} is neither a port number nor a port name")
    if dns and end > low:
        raise Refused(field["endPort"].pointer, "DNS rules do not support port ranges")
    if protocol in ("ICMP", "ICMPV6"):
        return IcmpType(4 if protocol == "ICMP" else 6, low or None)
    return Ports(protocols, low, max(low, end) if low else 65535)


# Expressions are RE2's: it has no look-around and no back references, Python has none of the others.
_NOT_IN_RE2 = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]")
_ONLY_IN_RE2 = re.compile(r"\[\[:|\\[pPQzC]|\(\?[a-zA-Z-]+[:)]|\(\?<[A-Za-z_]")


@lru_cache(maxsize=2000)
def _compiled(text: str) -> re.Pattern[str] | None:
    """The expression, or None where Python cannot say what RE2 makes of it. Raises ValueError where RE2 refuses it."""
    if _NOT_IN_RE2.search(text):
        raise ValueError("look-around and back references are not supported")
    if _ONLY_IN_RE2.search(text):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sets that Python may one day read differently
        try:
            return re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from None


def _expression(field: Field) -> str:
    text = field.text("")
    try:
        _compiled(text)
    except ValueError as error:
        raise Refused(field.pointer, f"{text!r} is not a regular expression: {error}") from None
    return text


def _http(field: Field) -> HttpRule:
    field.mapping()
    headers: list[tuple[str, str | None]] = []
    secret: list[str] = []
    for header in field["headers"].texts():
        name, _, value = header.partition(" ")
        headers.append((name.rstrip(":").lower(), value or None))
    for item in field["headerMatches"].items():
        name = item["name"].text()
        if not name:
            raise Refused(item["name"].pointer, "header name missing")
        mismatch = item["mismatch"].choice(("", "LOG", "ADD", "DELETE", "REPLACE"), "")
        if item["secret"].present and not item["secret"]["name"].text(""):
            raise Refused(item["secret"]["name"].pointer, "secret name missing")
        if mismatch:
            continue  # the request is changed or logged, not refused
        if item["secret"].present:
            secret.append(name.lower())
        else:
            headers.append((name.lower(), item["value"].text("") or None))
    return HttpRule(
        _expression(field["method"]),
        _expression(field["path"]),
        field["host"].text(""),
        tuple(headers),
        tuple(secret),
    )


def _layer7(field: Field, direction: Direction, nodes: bool, any_ports: bool, reader: Reader, ref: Ref) -> Layer7:
    """`rules` of a port rule; None where it holds none."""
    field.mapping()
    http = tuple(_http(item) for item in field["http"].items())
    gone = [n for n in ("kafka", "l7", "l7proto") if field[n].present] if reader.config.before(1, 20) is False else []
    if gone:
        dropped = f"{', '.join(gone)}: gone since Cilium 1.20, the API server drops it and all requests pass"
        reader.warnings.append(Refusal(ref, field.pointer, dropped, fatal=False))
        field = Field({name: value for name, value in field.mapping().items() if name not in gone}, field.pointer)
    kafka = tuple(item.mapping() and "kafka" for item in field["kafka"].items())
    dns = tuple(_dns_name(item, reader) for item in field["dns"].items())
    proto = field["l7proto"].text("")
    other = tuple(item.strings() and "l7" for item in field["l7"].items())
    if other and not proto:
        raise Refused(field["l7"].pointer, "'l7' may only be specified when 'l7proto' is also specified")
    if sum(map(bool, (http, kafka, dns, proto))) > 1:
        raise Refused(field.pointer, "multiple L7 protocol rule types specified in single rule")
    where = "host " if nodes else ""
    if (http or kafka or dns) and not reader.config.layer7:
        raise Refused(field.pointer, "needs enable-l7-proxy")
    if dns and direction is Direction.INGRESS:
        raise Refused(field["dns"].pointer, "DNS rules are not supported on ingress")
    for name, given in (("http", http), ("kafka", kafka)):
        if given and nodes:
            raise Refused(field[name].pointer, f"L7 rules are not supported on {where}{direction}")
    if dns and not any_ports:
        raise Refused(field["dns"].pointer, "port 53 must be specified for DNS rules")
    if http:
        return http
    if dns:
        return DnsRule(dns)
    return OtherRule("kafka" if kafka else proto) if kafka or (proto and other) else None


def _port_rule(field: Field, direction: Direction, deny: bool, nodes: bool, reader: Reader, ref: Ref) -> PortRule:
    field.mapping()
    rules = field["rules"]
    if deny:
        if rules.present and rules.value:
            ignored = "a deny rule cannot look into requests: the API server drops this, all requests are denied"
            reader.warnings.append(Refusal(ref, rules.pointer, ignored, fatal=False))
        rules = Field(None, rules.pointer)
    has_dns = any(True for _ in rules["dns"].items())
    listed = list(field["ports"].items())
    if len(listed) > _MOST_ITEMS:
        raise Refused(field["ports"].pointer, f"too many ports, the most is {_MOST_ITEMS}")
    parsed = [(item, _port(item, reader, has_dns)) for item in listed]
    layer7 = _layer7(rules, direction, nodes, bool(listed), reader, ref)
    if layer7 is not None:
        for item, port in parsed:
            tcp = isinstance(port, (Ports, PortName)) and port.protocols == ("TCP",)
            if not has_dns and not tcp:
                raise Refused(item["protocol"].pointer, "L7 rules can only apply to TCP except for DNS rules")
            if isinstance(port, Ports) and port.low == 0:
                raise Refused(item["port"].pointer, "L7 rules can not be used when a port is 0")
    names: tuple[str, ...] = ()
    listener = ""
    if not deny:
        names = field["serverNames"].texts()
        if "" in names:
            raise Refused(field["serverNames"].pointer, "empty server name is not allowed")
        if names and layer7 is not None and not field["terminatingTLS"].present:
            raise Refused(
                field["serverNames"].pointer, "serverNames are not allowed with L7 rules without TLS termination"
            )
        if field["listener"].present:
            if direction is Direction.INGRESS:
                raise Refused(field["listener"].pointer, "a listener is not allowed on ingress")
            if layer7 is not None:
                raise Refused(field["listener"].pointer, "a listener is not allowed with L7 rules")
            listener = field["listener"]["name"].text()
    return PortRule(tuple(port for _, port in parsed if port is not None), layer7, names, listener)


# ICMP types by name: pkg/policy/api/icmp.go.
_ICMP4 = {
    "EchoReply": 0, "DestinationUnreachable": 3, "Redirect": 5, "Echo": 8, "EchoRequest": 8, "RouterAdvertisement": 9,
    "RouterSelection": 10, "TimeExceeded": 11, "ParameterProblem": 12, "Timestamp": 13, "TimestampReply": 14,
    "Photuris": 40, "ExtendedEchoRequest": 42, "ExtendedEchoReply": 43,
}  # fmt: skip
_ICMP6 = {
    "DestinationUnreachable": 1, "PacketTooBig": 2, "TimeExceeded": 3, "ParameterProblem": 4, "EchoRequest": 128,
    "EchoReply": 129, "MulticastListenerQuery": 130, "MulticastListenerReport": 131, "MulticastListenerDone": 132,
    "RouterSolicitation": 133, "RouterAdvertisement": 134, "NeighborSolicitation": 135, "NeighborAdvertisement": 136,
    "RedirectMessage": 137, "RouterRenumbering": 138, "ICMPNodeInformationQuery": 139,
    "ICMPNodeInformationResponse": 140, "InverseNeighborDiscoverySolicitation": 141,
    "InverseNeighborDiscoveryAdvertisement": 142, "HomeAgentAddressDiscoveryRequest": 144,
    "HomeAgentAddressDiscoveryReply": 145, "MobilePrefixSolicitation": 146, "MobilePrefixAdvertisement": 147,
    "DuplicateAddressRequestCodeSuffix": 157, "DuplicateAddressConfirmationCodeSuffix": 158,
    "ExtendedEchoRequest": 160, "ExtendedEchoReply": 161,
}  # fmt: skip


def _icmp(field: Field) -> PortRule:
    fields = list(field["fields"].items())
    if len(fields) > _MOST_ITEMS:
        raise Refused(field["fields"].pointer, f"too many types, the most is {_MOST_ITEMS}")
    found: list[Item] = []
    for item in fields:
        family = 6 if item["family"].choice(("IPv4", "IPv6", ""), "IPv4") == "IPv6" else 4
        kind = item["type"]
        if type(kind.value) is str:
            names = _ICMP6 if family == 6 else _ICMP4
            digits = kind.value.isascii() and kind.value.isdigit() and len(kind.value) < 4
            number = names.get(kind.value, int(kind.value) if digits else -1)
        else:
            number = kind.integer()
        if not 0 <= number <= 255:
            raise Refused(kind.pointer, f"{kind.value!r} is not an ICMP type of IPv{family}")
        found.append(IcmpType(family, number))
    return PortRule(tuple(found), None, (), "")


def _rule(
    field: Field, direction: Direction, deny: bool, nodes: bool, namespace: str, initial: bool, reader: Reader, ref: Ref
) -> Rule:
    field.mapping()
    peers = _peers(field, direction, deny, namespace, initial, reader, ref)
    ports, icmps = list(field["toPorts"].items()), list(field["icmps"].items())
    if ports and icmps:
        raise Refused(field["icmps"].pointer, "icmps may only be present without toPorts; use a rule of its own")
    if icmps and not reader.config.icmp:
        raise Refused(field["icmps"].pointer, "needs enable-icmp-rules")
    listed = [_port_rule(item, direction, deny, nodes, reader, ref) for item in ports] + [_icmp(i) for i in icmps]
    authentication = ""
    if not deny and field["authentication"].present:
        authentication = field["authentication"]["mode"].choice(("disabled", "required", "test-always-fail"))
    loose = False
    if peers and all(isinstance(p, ServicePeer) for p in peers):
        if deny:  # only allowing rules have their Services resolved (pkg/policy/k8s/service.go)
            peers = tuple(ServicePeer((), (), p.pointer) for p in peers)
        loose = bool(listed) and not any(isinstance(p, ServicePeer) and (p.labels or p.blocks) for p in peers)
        if ports and not deny and reader.config.before(1, 17) and not reader.config.before(1, 14):
            raise Refused(field["toPorts"].pointer, "may not be combined with toServices before Cilium 1.17")
        if listed:
            risk = "toServices beside toPorts: where it selects no Service, some versions open the port to everyone"
            reader.warnings.append(Refusal(ref, field["toServices"].pointer, risk, fatal=False))
    if peers is None and not listed:
        peers = ()  # an empty rule allows nothing, the opposite of NetworkPolicy
    elif peers is None and _required(field, direction):
        peers = ()
    return Rule(peers, tuple(listed) or None, field.pointer, authentication, loose)


def _required(field: Field, direction: Direction) -> list[Field]:
    return list(field["fromRequires" if direction is Direction.INGRESS else "toRequires"].items())


def _requirements(rules: Sequence[Field], direction: Direction, namespace: str, reader: Reader) -> tuple[Terms, ...]:
    found = []
    for rule in rules:
        for item in _required(rule, direction):
            if reader.config.before(1, 19) is False:
                raise Refused(item.pointer, "fromRequires and toRequires are gone since Cilium 1.19")
            found.append(scoped(parse_terms(item), namespace)[0])
    return tuple(found)


def _side(
    spec: Field, direction: Direction, nodes: bool, namespace: str, initial: bool, reader: Reader, ref: Ref
) -> Side | None:
    allow, deny = spec[direction.value], spec[f"{direction.value}Deny"]
    allowing, denying = list(allow.items()), list(deny.items())
    given = (direction, False, nodes, namespace, initial, reader, ref)
    allows = tuple(_rule(item, *given) for item in allowing)
    denies = tuple(_rule(item, direction, True, nodes, namespace, initial, reader, ref) for item in denying)
    wanted = spec["enableDefaultDeny"][direction.value].boolean(True)
    if not allows and not denies:
        return None
    return Side(
        allows,
        denies,
        wanted or not reader.config.default_deny_switch,
        allow.pointer if allowing else deny.pointer,
        _requirements(allowing, direction, namespace, reader),
        _requirements(denying, direction, namespace, reader),
    )


def _policy(spec: Field, obj: Object, namespace: str, reader: Reader) -> Policy:
    if not spec.mapping():
        raise Refused(spec.pointer, "must have at least one of ingress, ingressDeny, egress and egressDeny")
    endpoints, nodes = spec["endpointSelector"], spec["nodeSelector"]
    if endpoints.present and nodes.present:
        raise Refused(nodes.pointer, "may not be given beside endpointSelector")
    if not endpoints.present and not nodes.present:
        raise Refused(endpoints.pointer, "one of endpointSelector and nodeSelector is required")
    if nodes.present and namespace:
        raise Refused(nodes.pointer, "only a CiliumClusterwideNetworkPolicy can select nodes")
    subject = parse_terms(nodes if nodes.present else endpoints)
    initial = any(t.source == "reserved" and t.key == "init" for t in subject)
    if namespace:
        subject = tuple(t for t in subject if not (t.source == "k8s" and t.key == POD_NAMESPACE and t.operator == IN))
    sides = {d: side for d in Direction if (side := _side(spec, d, nodes.present, namespace, initial, reader, obj.ref))}
    if not sides:
        raise Refused(spec.pointer, "must have at least one of ingress, ingressDeny, egress and egressDeny")
    return Policy(obj.ref, subject, nodes.present, namespace, sides, obj)


def read(obj: Object, reader: Reader) -> tuple[Policy, ...]:
    """The rules of one CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy. Raises Refused where the agent would."""
    whole = Field(obj.raw)
    if whole["apiVersion"].value != "cilium.io/v2":
        raise Refused("/apiVersion", f"no kind {obj.ref.kind} in {whole['apiVersion'].value!r}")
    spec, specs = whole["spec"], whole["specs"]
    if not spec.present and not specs.present:
        raise Refused(spec.pointer, "one of spec and specs is required")
    parts = ([spec] if spec.present else []) + list(specs.items())
    return tuple(_policy(part, obj, obj.ref.namespace, reader) for part in parts)


def _cidr_groups(cluster: Cluster, refusals: list[Refusal]) -> dict[str, tuple[tuple[Block, ...], Mapping[str, str]]]:
    found: dict[str, tuple[tuple[Block, ...], Mapping[str, str]]] = {}
    for obj in cluster.of(*CIDR_GROUP):
        try:
            blocks = tuple(_address_block(item) for item in Field(obj.raw)["spec"]["externalCIDRs"].items())
        except Refused as refused:
            refusals.append(Refusal(obj.ref, refused.pointer, refused.why))
        else:
            found[obj.ref.name] = (blocks, obj.labels)
    return found


# --- NetworkPolicy as Cilium reads it -------------------------------------------------------------------------------


def _terms(selector: Selector, prefix: str = "") -> Terms:
    return tuple(Term("k8s", prefix + r.key, r.operator, r.values) for r in selector)


def _translated_peer(peer: kubernetes.Peer, namespace: str) -> Peer:
    match peer:
        case kubernetes.BlockPeer():
            return BlockPeer((peer.block,), peer.excepts, peer.pointer)
        case kubernetes.PodPeer():
            pods = _terms(peer.pods or ())
            if peer.namespaces is None:
                where: Terms = (Term("k8s", POD_NAMESPACE, IN, (namespace,)),)
            else:
                where = _terms(peer.namespaces, NAMESPACE_LABELS + ".") or (Term("k8s", POD_NAMESPACE, EXISTS),)
            return LabelPeer(pods + where, any(t.names(CLUSTER) for t in pods), peer.pointer)
        case _:
            assert_never(peer)


def _translated_port(port: kubernetes.Port) -> Item:
    match port:
        case NamedPort():
            return PortName((port.protocol,) if port.protocol else (), port.name)
        case PortRange():
            everything = port.low <= 1 and port.high >= 65535
            return Ports((port.protocol,) if port.protocol else (), 0 if everything else port.low, port.high)
        case _:
            assert_never(port)


def translated(policy: kubernetes.Policy) -> Policy:
    """A NetworkPolicy as the repository holds it: an allowing rule an item, isolating in its directions."""
    namespace = policy.ref.namespace
    sides: dict[Direction, Side] = {}
    for direction in Direction:
        side = policy.side(direction)
        if side is None:
            continue
        rules = tuple(
            Rule(
                None if rule.peers is None else tuple(_translated_peer(p, namespace) for p in rule.peers),
                None
                if rule.ports is None
                else (PortRule(tuple(_translated_port(p) for p in rule.ports), None, (), ""),),
                rule.pointer,
            )
            for rule in side.rules
        )
        sides[direction] = Side(rules, (), True, side.pointer)
    return Policy(policy.ref, _terms(policy.subject), False, namespace, sides, policy.object)


# --- matching -------------------------------------------------------------------------------------------------------

_INTRICATE = re.compile(r"[*+}]\)*[*+{]|\)[*+{]")  # repeated repetitions may take exponential time


def _full_match(expression: str, text: str | None, what: str) -> Match:
    """A regular expression that must match whole; '' matches everything."""
    if not expression:
        return True
    if text is None:
        return Doubt(f"the {what} of the request ({expression})", unseen=False)
    if expression == text and re.escape(text) == text:
        return True
    try:
        compiled = _compiled(expression)
    except ValueError:  # `host` is not checked beforehand, Envoy refuses it
        compiled = None
    if compiled is None or (_INTRICATE.search(expression) and len(text) > 200):
        return Doubt(f"whether {what} {text!r} matches the regular expression {expression!r} is not evaluated here")
    return compiled.fullmatch(text) is not None


def _http_rule(rule: HttpRule, http: Http | None) -> Match:
    asked = http or Http()
    found = both(
        _full_match(rule.method, asked.method, "method"),
        both(_full_match(rule.path, asked.path, "path"), _full_match(rule.host, asked.host, "host")),
    )
    for name, value in rule.headers:
        if http is None:
            found = both(found, Doubt(f"header {name} of the request", unseen=False))
        else:
            sent = http.headers.get(name)
            found = both(found, sent is not None and value in (None, sent))
    for name in rule.secret:
        if http is None or name in http.headers:
            found = both(found, Doubt(f"header {name} must have a value kept in a Secret", unseen=False))
        else:
            found = False
    return found


def _layer7_match(layer7: Layer7, packet: Packet) -> Match:
    match layer7:
        case None:
            return True
        case DnsRule():
            if any(set(text.rstrip(".")) == {"*"} for text, _ in layer7.patterns):
                return True
            return Doubt("only look-ups of " + ", ".join(text for text, _ in layer7.patterns) + " pass", unseen=False)
        case OtherRule():
            return Doubt(f"the request must pass the rules for {layer7.protocol}", unseen=False)
        case _:
            found: Match = False
            for rule in layer7:
                found = either(found, _http_rule(rule, packet.http))
                if found is True:
                    break
            return found


def _agreed(matches: Sequence[Match], why: str) -> Match:
    """One answer from several readings of the same thing; a Doubt where they differ."""
    first = matches[0]
    if all(m == first for m in matches[1:]):
        return first
    return Doubt(why)


def _unresolved(end: DomainName) -> Doubt:
    if " " in end.name:  # a stand-in for an address that is not known
        return Doubt(f"the address of {end} is not known")
    return Doubt(f"which addresses {end} resolves to", unseen=False)


def managed(end: End) -> bool:
    """A pod with a network of its own: Cilium knows it by its labels."""
    return isinstance(end, Pod) and not end.host_network


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a rule matches, where, and what it demands of traffic that another rule lets through as well."""

    match: Match
    by: Deciding | None = None
    burdens: tuple[Doubt, ...] = ()


NO = Outcome(False)


@dataclass(frozen=True, eq=False)
class Cilium:
    """The repository of one cluster."""

    index: Index
    cluster: str
    config: Config
    policies: tuple[Policy, ...]
    refusals: tuple[Refusal, ...]
    nodes_by_cidr: bool | None
    selections: dict[int, tuple[tuple[Policy, Match], ...]] = field(default_factory=dict)
    identities: dict[int, Identity] = field(default_factory=dict)
    peers: dict[tuple[LabelPeer, int], Match] = field(default_factory=dict)

    # What is known of the clusters.

    def sees(self, index: Index) -> bool:
        """Do the same pods and settings lie under another index?"""
        worlds = index.world.clusters, self.index.world.clusters
        same = (here.of("", "ConfigMap") is worlds[1][name].of("", "ConfigMap") for name, here in worlds[0].items())
        return index.class_of is self.index.class_of and all(same)

    @cached_property
    def configs(self) -> Mapping[str, Config]:
        return {name: read_config(cluster) for name, cluster in self.index.world.clusters.items()}

    @cached_property
    def names(self) -> frozenset[str]:
        """Names by which the clusters at hand go."""
        return frozenset(self.index.world.clusters) | {c.cluster_name for c in self.configs.values() if c.ref}

    @cached_property
    def by_namespace(self) -> Mapping[str, tuple[Policy, ...]]:
        """Policies for pods; '' holds those of all namespaces."""
        found: dict[str, list[Policy]] = {"": []}
        for policy in self.policies:
            if not policy.nodes:
                found.setdefault(policy.namespace, []).append(policy)
        return {name: tuple(listed) for name, listed in found.items()}

    @cached_property
    def host_policies(self) -> tuple[Policy, ...]:
        return tuple(p for p in self.policies if p.nodes)

    @cached_property
    def dns_rules(self) -> tuple[DnsRule, ...]:
        """Every rule of the cluster that sends look-ups through the DNS proxy."""
        return tuple(rule for policy in self.policies for rule in _dns_rules(policy))

    @cached_property
    def port_numbers(self) -> Mapping[tuple[str, str], frozenset[int]]:
        """(name, protocol) of container ports -> their numbers, over all pods that Cilium sees here."""
        found: dict[tuple[str, str], set[int]] = {}
        for cluster in self.index.world.clusters.values():
            if cluster.name != self.cluster and self.configs[cluster.name].ref is None:
                continue
            for pod in cluster.pods.values():
                if pod.host_network or pod.phase in ("Succeeded", "Failed"):
                    continue
                for port in pod.ports:
                    if port.name and not port.init:
                        found.setdefault((port.name.lower(), port.protocol), set()).add(port.port)
        return {key: frozenset(numbers) for key, numbers in found.items()}

    @cached_property
    def api_servers(self) -> frozenset[Ip] | None:
        """Addresses behind the Service default/kubernetes; None when they are not among the objects."""
        slices = self.index.world.clusters[self.cluster].slices.get(("default", "kubernetes"))
        found = frozenset(e.ip for part in slices or () for e in part.endpoints if e.ip is not None)
        return found or None

    @cached_property
    def control_plane(self) -> frozenset[str]:
        """Nodes that run the API server, by its static pod or the node's role label."""
        here = self.index.world.clusters[self.cluster]
        roles = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
        found = {node.name for node in here.nodes.values() if any(role in node.labels for role in roles)}
        found |= {
            p.node for p in here.pods.values() if p.host_network and p.labels.get("component") == "kube-apiserver"
        }
        return frozenset(found)

    def identity(self, pod: Pod) -> Identity:
        number = self.index.class_of[pod]
        found = self.identities.get(number)
        if found is None:
            cluster = self.index.world.clusters[pod.cluster]
            namespace = cluster.namespaces[pod.namespace]
            found = self.identities[number] = pod_identity(pod, namespace, self.configs[pod.cluster])
        return found

    # Subjects.

    def selecting(self, subject: End) -> tuple[tuple[Policy, Match], ...]:
        """The policies that select an end of this cluster; a Doubt where labels are missing."""
        match subject:
            case Pod(host_network=False):
                number = self.index.class_of[subject]
                found = self.selections.get(number)
                if found is None:
                    identity = self.identity(subject)
                    candidates = (*self.by_namespace.get(subject.namespace, ()), *self.by_namespace[""])
                    found = self.selections[number] = _chosen(candidates, identity, self.names)
                return found
            case Node() | Pod():
                if not self.host_policies or self.config.host_firewall is False:
                    return ()
                nodes = self.index.world.clusters[self.cluster].nodes
                node = nodes.get(subject.node) if isinstance(subject, Pod) else subject
                if node is None:
                    unknown = Doubt(f"the node of {subject} is not among the objects")
                    return tuple((policy, unknown) for policy in self.host_policies)
                chosen = _chosen(self.host_policies, host_identity(node), self.names)
                if self.config.host_firewall is None:
                    switch = Doubt("whether the host firewall is on: cilium-config is not among the objects")
                    return tuple((policy, both(m, switch)) for policy, m in chosen)
                return chosen
            case _:
                return ()

    # Peers.

    def is_local(self, end: Pod | Node, packet: Packet) -> bool | None:
        """Is a node, or a pod on its network, the very node of the packet's subject?"""
        if end.cluster != packet.cluster:
            return False
        subject = packet.subject
        home = subject.name if isinstance(subject, Node) else subject.node if isinstance(subject, Pod) else ""
        name = end.name if isinstance(end, Node) else end.node
        return home == name if home and name else None

    def is_api_server(self, end: End, packet: Packet) -> Match:
        if isinstance(end, DomainName):
            known = self.api_servers is not None or bool(self.control_plane)
            return False if known else _unresolved(end)
        if isinstance(end, (Pod, Node)) and end.cluster != self.cluster:
            return False
        if self.api_servers is not None:
            return any(ip in self.api_servers for ip in packet.ips(end))
        if self.control_plane:
            name = end.name if isinstance(end, Node) else end.node if isinstance(end, Pod) else ""
            return name in self.control_plane
        return Doubt(f"whether {end} is the API server: the endpoints of default/kubernetes are not among the objects")

    def readings(self, end: End, packet: Packet) -> tuple[tuple[Identity, ...], str]:
        """The identities that an end other than a managed pod may have, and why there are several."""
        api = self.is_api_server(end, packet)
        extra = ((),) if api is False else (("kube-apiserver",),) if api is True else ((), ("kube-apiserver",))
        why = api.why if isinstance(api, Doubt) else ""
        match end:
            case Pod() | Node():
                local = self.is_local(end, packet)
                bases = [name for name, wanted in (("host", True), ("remote-node", False)) if local in (wanted, None)]
                if local is None:
                    why = f"whether {end} is on the same node is not known"
            case Outside():
                dual = f"world-ipv{end.ip.version}"
                stack = self.config.dual_stack
                bases = [name for name, wanted in ((dual, True), ("world", False)) if stack in (wanted, None)]
                if stack is None:
                    why = why or "whether Cilium runs dual-stack is not known"
            case DomainName():
                bases, why = ["world", "world-ipv4", "world-ipv6"], _unresolved(end).why
            case _:
                assert_never(end)
        return tuple(reserved(base, *names) for base in bases for names in extra), why

    def _labels(self, peer: LabelPeer, packet: Packet, requires: Sequence[Terms]) -> Match:
        end = packet.peer
        if isinstance(end, Pod) and not end.host_network:
            key = (peer, self.index.class_of[end])
            found = self.peers.get(key)
            if found is None:
                found = self.peers[key] = self._pod(peer, end)
            for terms in requires if found is not False else ():
                found = both(found, all_hold(terms, self.identity(end), self.names))
            return found
        identities, why = self.readings(end, packet)
        wanted = (*peer.terms, *(t for terms in requires for t in terms))
        found = _agreed([all_hold(wanted, each, self.names) for each in identities], why)
        if found is not False and not peer.any_cluster and self.config.local_cluster is not False:
            return False if self.config.local_cluster else both(found, _BOTH_READINGS)
        if found is True and all(t.operator in (NOT_IN, DOES_NOT_EXIST) for t in wanted):
            return _NEGATIVE
        return found

    def _pod(self, peer: LabelPeer, pod: Pod) -> Match:
        found = all_hold(peer.terms, self.identity(pod), self.names)
        if found is False or peer.any_cluster or pod.cluster == self.cluster:
            return found
        if self.config.local_cluster is None:
            return both(found, _BOTH_READINGS)
        return False if self.config.local_cluster else found

    def _entity(self, entity: str, packet: Packet) -> Match:
        end = packet.peer
        if entity == "all":
            return True
        if isinstance(end, Pod) and not end.host_network:
            return entity == "cluster-mesh" or (entity == "cluster" and end.cluster == self.cluster)
        match entity, end:
            case "cluster" | "cluster-mesh", Pod() | Node():
                return True
            case "cluster" | "cluster-mesh", _:
                # An API server outside counts as `cluster` too; an address is not taken for one without a sign of it.
                return self.is_api_server(end, packet) is True
            case "kube-apiserver", _:
                return self.is_api_server(end, packet)
            case "host" | "remote-node", Pod() | Node():
                local = self.is_local(end, packet)
                if local is None:
                    return Doubt(f"whether {end} is on the same node is not known")
                return local is (entity == "host")
            case "world", Outside():
                return True
            case "world", DomainName():
                return _unresolved(end) if " " in end.name else True
            case "world-ipv4" | "world-ipv6", Outside():
                if entity != f"world-ipv{end.ip.version}":
                    return False
                if self.config.dual_stack is None:
                    return Doubt(f"{entity} exists in dual-stack clusters only, and whether this is one is not known")
                return self.config.dual_stack
            case "world-ipv4" | "world-ipv6", DomainName():
                return False if self.config.dual_stack is False else _unresolved(end)
            case _:
                return False  # health, init, ingress, unmanaged, none: no end that can be asked about

    def _blocks(self, blocks: Sequence[Block], excepts: Sequence[Block], packet: Packet) -> Match:
        """Addresses outside; nodes and (since 1.20) managed pods only where policy-cidr-match-mode says so."""
        end = packet.peer
        if not blocks or (managed(end) and not self.config.pods_by_cidr):
            return False
        if isinstance(end, DomainName):
            doubt = _unresolved(end)
            versions = {b.version for b in blocks if b.prefix == 0}
            return True if not excepts and versions and not doubt.unseen else doubt
        nodes: Match = True
        if managed(end):
            if getattr(end, "cluster", "") != self.cluster:
                nodes = Doubt("policy-cidr-match-mode: pods is not documented for pods of meshed clusters")
        elif isinstance(end, (Pod, Node)):
            if self.nodes_by_cidr is False:
                return False
            if self.nodes_by_cidr is None:
                nodes = Doubt("whether CIDR rules match nodes: policy-cidr-match-mode is not known")
            elif self.is_local(end, packet) is not False:
                nodes = Doubt("policy-cidr-match-mode promises CIDR rules for other nodes, not for the pod's own")
        ips = packet.ips(end)
        if not ips:
            return both(nodes, Doubt(f"the address of {end} is not known"))
        inside = [any(ip in b for b in blocks) and not any(ip in b for b in excepts) for ip in ips]
        if not any(inside):
            return False
        if not all(inside):
            used = Doubt(f"which address of {end} is used ({', '.join(map(str, ips))})", unseen=False)
            return both(nodes, used)
        return nodes

    def _name(self, peer: NamePeer, packet: Packet) -> Match:
        end = packet.peer
        match end:
            case DomainName():
                if " " in end.name:
                    return _unresolved(end)
                if not peer.expression.match(end.name):
                    return False
                own = (r for policy, _ in self.selecting(packet.subject) for r in _dns_rules(policy))
                if any(e.match(end.name) for r in own for _, e in r.patterns):
                    return True  # who asks for a name looks it up first, and the proxy learns its addresses
                if any(e.match(end.name) for r in self.dns_rules for _, e in r.patterns):
                    return Doubt(
                        f"no rule sends look-ups of {end} by {packet.subject} through Cilium's DNS proxy; "
                        "toFQDNs then knows only what other pods have looked up"
                    )
                return False  # its addresses are never learnt
            case Outside():
                if not self.dns_rules:
                    return False
                return Doubt(f"whether {end} was the answer to a look-up of {peer.name}, which toFQDNs then covers")
            case _:
                return False

    def _node(self, peer: NodePeer, packet: Packet) -> Match:
        end = packet.peer
        if managed(end) or isinstance(end, (Outside, DomainName)):
            return False
        assert isinstance(end, (Pod, Node))
        nodes = self.index.world.clusters[end.cluster].nodes
        node = nodes.get(end.node) if isinstance(end, Pod) else end
        local = self.is_local(end, packet)
        if local is True:
            return False
        if node is None or local is None:
            return Doubt(f"the node of {end} is not known")
        found = all_hold(peer.terms, Identity({k: ("node", v) for k, v in node.labels.items()}), self.names)
        if self.config.node_labels is None:
            found = both(found, Doubt("whether nodes are known by labels: cilium-config is not among the objects"))
        if end.cluster != self.cluster and self.config.local_cluster is not False:
            found = False if self.config.local_cluster else both(found, _BOTH_READINGS)
        return found

    def matches(self, peer: Peer, packet: Packet, requires: Sequence[Terms] = ()) -> Match:
        """Is the packet's far end what a peer item means?"""
        match peer:
            case LabelPeer():
                return self._labels(peer, packet, requires)
            case EntityPeer():
                return self._entity(peer.entity, packet)
            case BlockPeer():
                return self._blocks(peer.blocks, peer.excepts, packet)
            case NamePeer():
                return self._name(peer, packet)
            case NodePeer():
                return self._node(peer, packet)
            case ServicePeer():
                found = self._blocks(peer.blocks, (), packet)
                for each in peer.labels:
                    found = either(found, self._labels(each, packet, ()))
                return found
            case GroupPeer():
                if managed(packet.peer):
                    return False
                return Doubt("which addresses the cloud provider's group holds")
            case _:
                assert_never(peer)

    # Ports.

    def _item(self, item: Item, packet: Packet) -> Match:
        match item:
            case IcmpType():
                asked = packet.icmp
                if asked is None or asked.family != item.family:
                    return False
                if item.type is None or asked.type == item.type:
                    return True
                if item.type == 0:
                    return Doubt("ICMP type 0 is also how Cilium writes 'every type'")
                return Doubt("which ICMP type is used", unseen=False) if asked.type is None else False
            case Ports():
                if packet.icmp is not None or (item.protocols and packet.protocol not in item.protocols):
                    return False
                if packet.protocol not in ("TCP", "UDP", "SCTP"):
                    return False
                if item.low == 0:
                    return True
                if packet.port is None:
                    return Doubt("which port is used", unseen=False)
                return item.low <= packet.port <= item.high
            case PortName():
                if packet.icmp is not None or (item.protocols and packet.protocol not in item.protocols):
                    return False
                return self._port_name(item.name, packet)
            case _:
                assert_never(item)

    def _port_name(self, name: str, packet: Packet) -> Match:
        """A named port: of the destination, but up to 1.19 egress takes the one number all pods use for the name."""
        end = packet.destination
        own = set()
        if isinstance(end, Pod) and not end.host_network:
            own = {p.port for p in end.ports if p.name.lower() == name and p.protocol == packet.protocol and not p.init}
        everywhere = self.port_numbers.get((name, packet.protocol), frozenset())
        before = self.config.before(1, 20)
        if packet.direction is Direction.INGRESS or before is False:
            numbers = [own]
        elif before:
            numbers = [set(everywhere) if len(everywhere) == 1 else set()]
        else:
            numbers = [own, set(everywhere) if len(everywhere) == 1 else set()]
        if packet.port is None:
            return Doubt("which port is used", unseen=False) if any(numbers) else False
        return _agreed(
            [packet.port in each for each in numbers],
            f"port name {name} has several numbers among the pods: before 1.20 Cilium then leaves the rule out "
            "for egress, and its version is not known",
        )

    def covers(self, ports: Sequence[PortRule], packet: Packet) -> tuple[Match, tuple[Doubt, ...]]:
        """Do port rules, requests included, cover the packet? With what they demand of all traffic they are about."""
        found: Match = False
        burdens: list[Doubt] = []
        for rule in ports:
            here: Match = False
            for item in rule.items:
                here = either(here, self._item(item, packet))
                if here is True:
                    break
            if here is False:
                continue
            if rule.names:
                burdens.append(Doubt(f"TLS must be for {' or '.join(rule.names)} (serverNames)", unseen=False))
            if rule.listener:
                burdens.append(
                    Doubt(f"the Envoy listener {rule.listener} takes the traffic, and decides by its own rules")
                )
            found = either(found, both(here, _layer7_match(rule.layer7, packet)))
        return found, tuple(burdens)

    # Rules.

    def weigh(self, policy: Policy, rule: Rule, packet: Packet, effect: str, requires: Sequence[Terms]) -> Outcome:
        """Does one rule match, and by which item?"""
        covered: Match = True
        burdens: tuple[Doubt, ...] = ()
        if rule.ports is not None:
            covered, burdens = self.covers(rule.ports, packet)
            if covered is False:
                return NO
        if rule.authentication == "test-always-fail":
            return NO
        if rule.loose:
            if self.config.before(1, 19) and not self.config.before(1, 14):
                return NO
            loose = Doubt("toServices selects no Service here: beside toPorts, some versions then open the port to all")
            by = Deciding(policy.ref, rule.pointer, packet.direction, effect)
            return Outcome(both(covered, loose), by, burdens)
        found: Match = False
        pointer = rule.pointer
        if rule.peers is None:
            found = True
        for peer in rule.peers or ():
            match = self.matches(peer, packet, requires)
            if match is False:
                continue
            if found is False or match is True:
                pointer = peer.pointer
            found = either(found, match)
            if found is True:
                break
        found = both(covered, found)
        if found is False:
            return NO
        if rule.authentication == "required":
            burdens = (*burdens, Doubt("both ends must authenticate each other (authentication.mode)", unseen=False))
        return Outcome(found, Deciding(policy.ref, pointer, packet.direction, effect), burdens)

    def _outcomes(
        self,
        chosen: Sequence[tuple[Policy, Match]],
        packet: Packet,
        pick: Callable[[Side], Sequence[Rule]],
        effect: str,
    ) -> Iterator[tuple[Policy, Outcome]]:
        """Per policy the outcome of its best rule (of those that deny, or of those that allow)."""
        direction = packet.direction
        every = [side for policy, _ in chosen if (side := policy.sides.get(direction))]
        required = [r for s in every for r in (s.requires_of_denies if effect == "deny" else s.requires)]
        for policy, selected in chosen:
            side = policy.sides.get(direction)
            best = NO
            burdens: tuple[Doubt, ...] = ()
            for rule in pick(side) if side else ():
                outcome = self.weigh(policy, rule, packet, effect, required)
                burdens += outcome.burdens
                if best.match is False or outcome.match is True:
                    best = outcome
                if best.match is True and not burdens and effect == "deny":
                    break
            yield policy, Outcome(both(selected, best.match), best.by, burdens)

    def enforce(self, packet: Packet) -> Ruling:
        subject, direction = packet.subject, packet.direction
        chosen = [
            (policy, match)
            for policy, match in self.selecting(subject)
            if direction in policy.sides and getattr(subject, "cluster", "") == self.cluster
        ]
        always = self.config.mode == "always" and managed(subject)
        if not chosen and not always:
            return SILENT
        if self.config.mode == "never":
            note = Step(LAYER, f"policy enforcement is off (enable-policy: never): {len(chosen)} without effect")
            return Ruling((Branch(Effect.NEXT, why=note.text),), (note,))
        denies = list(self._outcomes(chosen, packet, lambda side: side.denies, "deny"))
        allows = list(self._outcomes(chosen, packet, lambda side: side.allows, "allow"))
        trace = tuple(
            Step(LAYER, f"{policy.ref} selects {subject} for {direction}; {_told(deny, allow)}", policy.ref, pointer)
            for (policy, deny), (_, allow) in zip(denies, allows, strict=True)
            for pointer in [next((o.by.pointer for o in (deny, allow) if o.by), "")]
        )
        branches = self._branches(chosen, denies, allows, packet, always)
        if self.config.audit:
            branches = [_audited(branch) for branch in branches]
        return Ruling(tuple(branches), trace)

    def _branches(
        self,
        chosen: Sequence[tuple[Policy, Match]],
        denies: Sequence[tuple[Policy, Outcome]],
        allows: Sequence[tuple[Policy, Outcome]],
        packet: Packet,
        always: bool,
    ) -> list[Branch]:
        direction = packet.direction
        refusing = tuple(o.by for _, o in denies if o.match is True and o.by)
        if refusing:
            return [Branch(Effect.DENY, refusing, f"{refusing[0].ref} denies it, and a deny beats every allow")]
        perhaps = [(o.by, o.match) for _, o in denies if isinstance(o.match, Doubt) and o.by]
        branches = [Branch(Effect.DENY, (by,), f"{by.ref} may deny it", (doubt,)) for by, doubt in perhaps]
        escaped = tuple(doubt for _, doubt in perhaps)
        burdens = tuple(dict.fromkeys(b for _, o in allows if o.match is not False for b in o.burdens))
        isolating = [(p, m) for p, m in chosen if p.sides[direction].isolates]
        surely = always or any(m is True for _, m in isolating)
        closed = tuple(_isolation(p, direction) for p, _ in isolating)
        closed = closed or (self._closed(direction) if always else ())
        told = ", ".join(str(by.ref) for by in closed)
        shut = f"{told} isolate{'s' if len(closed) == 1 else ''} {packet.subject} and no rule matches"
        if packet.http is not None and self._answered(chosen, packet):
            shut += ": the connection is taken, the proxy answers the request with 403"
        admitted = tuple(o.by for _, o in allows if o.match is True and o.by)
        if not surely and not isolating:
            return [*branches, Branch(Effect.NEXT, why="no policy isolates it", doubts=escaped)]
        opening = [(o.by, o.match) for _, o in allows if isinstance(o.match, Doubt) and o.by]
        if not surely:
            doubts = tuple(m for _, m in isolating if isinstance(m, Doubt))
            branches.append(
                Branch(Effect.NEXT, why="whether a policy isolates it is not known", doubts=escaped + doubts)
            )
            if admitted:
                escaped += doubts
            elif not opening:
                return [*branches, Branch(Effect.DENY, closed, shut, doubts)]
        if admitted:
            branches.append(Branch(Effect.ALLOW, admitted, f"{admitted[0].ref} allows it", escaped + burdens))
            if burdens:
                branches.append(Branch(Effect.DENY, admitted, "what the rules demand is not met", burdens))
            return branches
        branches += [
            Branch(Effect.ALLOW, (by,), f"{by.ref} may allow it", (doubt, *escaped, *burdens)) for by, doubt in opening
        ]
        last = [doubt for _, doubt in opening]
        if packet.source is packet.destination:
            last.append(Doubt("a pod reaching itself by its own address is left to the plugin (kubernetes#95879)"))
            branches.append(Branch(Effect.ALLOW, (), "traffic of a pod to itself", (last[-1], *escaped)))
        return [*branches, Branch(Effect.DENY, closed, shut, tuple(last))]

    def _answered(self, chosen: Sequence[tuple[Policy, Match]], packet: Packet) -> bool:
        """Would a rule for requests let the connection in, whatever the request is?"""
        for policy, _ in chosen:
            side = policy.sides[packet.direction]
            for rule in side.allows:
                ports = tuple(replace(p, layer7=None) for p in rule.ports or () if isinstance(p.layer7, tuple))
                anyway = replace(rule, ports=ports)
                if ports and self.weigh(policy, anyway, packet, "allow", side.requires).match is True:
                    return True
        return False

    def _closed(self, direction: Direction) -> tuple[Deciding, ...]:
        """The setting that isolates every pod."""
        if self.config.ref is None:
            return ()
        note = "policies are always enforced, no rule matches"
        return (Deciding(self.config.ref, "/data/enable-policy", direction, "deny", implicit=True, note=note),)


_BOTH_READINGS = Doubt(
    "a selector without io.cilium.k8s.policy.cluster means the local cluster only since Cilium 1.19 "
    "(policy-default-local-cluster), all clusters before; neither the setting nor the version is known"
)


_NEGATIVE = Doubt(
    "a selector of negative expressions alone is documented to mean pods, but by Cilium's source it also matches "
    "what has no such labels: nodes and addresses outside"
)


def _dns_rules(policy: Policy) -> Iterator[DnsRule]:
    side = policy.sides.get(Direction.EGRESS)
    for rule in side.allows if side else ():
        for ports in rule.ports or ():
            if isinstance(ports.layer7, DnsRule):
                yield ports.layer7


def _chosen(policies: Sequence[Policy], identity: Identity, names: frozenset[str]) -> tuple[tuple[Policy, Match], ...]:
    found = ((policy, all_hold(policy.subject, identity, names)) for policy in policies)
    return tuple((policy, match) for policy, match in found if match is not False)


def _isolation(policy: Policy, direction: Direction) -> Deciding:
    note = "isolates the pod, no rule matches"
    return Deciding(policy.ref, policy.sides[direction].pointer, direction, "deny", implicit=True, note=note)


def _told(deny: Outcome, allow: Outcome) -> str:
    for outcome, verb in ((deny, "deny"), (allow, "allow")):
        if outcome.match is True:
            return f"a rule {'denies' if verb == 'deny' else 'allows'} it"
        if outcome.match is not False:
            return f"a rule may {verb} it"
    return "no rule matches"


def _audited(branch: Branch) -> Branch:
    """In audit mode a refusal is written down, not done."""
    if branch.effect is not Effect.DENY:
        return branch
    by = tuple(replace(d, effect="audit") for d in branch.by)
    return Branch(Effect.ALLOW, by, f"policy audit mode: it would be denied ({branch.why})", branch.doubts)


def compile_cluster(index: Index, cluster: str, earlier: Mapping[str, Compiled]) -> Cilium:
    world = index.world.clusters[cluster]
    before = earlier.get(LAYER)
    known = before if isinstance(before, Cilium) and before.sees(index) else None
    config = read_config(world) if known is None else known.config
    refusals: list[Refusal] = []
    reader = Reader(world, config, _cidr_groups(world, refusals), refusals)
    policies: list[Policy] = []
    for kind, enabled in zip((NAMESPACED, CLUSTERWIDE), config.own_policies, strict=True):
        for obj in sorted(world.of(*kind), key=lambda o: (o.ref.namespace, o.ref.name)):
            warned = len(refusals)
            if not enabled:
                refusals.append(Refusal(obj.ref, "/kind", "cilium-config tells the agents not to read this kind"))
                continue
            try:
                policies += read(obj, reader)
            except Refused as refused:
                del refusals[warned:]
                refusals.append(Refusal(obj.ref, refused.pointer, refused.why))
    native = earlier.get("kubernetes")
    if isinstance(native, Kubernetes) and config.network_policies:
        policies += map(translated, native.policies)
    found = Cilium(index, cluster, config, tuple(policies), tuple(refusals), world.datapath.ipblock_covers_nodes)
    if known is not None:
        # Only policies have changed: what is known of agents and pods stands.
        found.__dict__.update((k, v) for k, v in known.__dict__.items() if k in ("configs", "port_numbers"))
    return found


FAMILY = Family("cilium", frozenset({NAMESPACED, CLUSTERWIDE, CIDR_GROUP}), compile_cluster)
