"""Calico: NetworkPolicy and GlobalNetworkPolicy in tiers, network sets, host endpoints, staged kinds, profiles.

Sources: projectcalico/calico `api/pkg/apis/projectcalico/v3`, `libcalico-go/lib/validator/v3/validator.go`,
`libcalico-go/lib/backend/syncersv1/updateprocessors`, `libcalico-go/lib/backend/k8s/conversion`,
`felix/calc/policy_sorter.go`, `felix/rules/policy.go` (FilterRuleToIPVersion), `app-policy/checker`,
docs.tigera.io "Host endpoints".

Tiers are walked by order. In a tier the policies that select the endpoint are walked by order; the first rule that
matches allows, denies or passes on to the next tier. Where such policies are there and none decides, the tier's
default action does. What all tiers leave is up to the profile, which allows for pods. Calico enforces Kubernetes'
NetworkPolicies in tier "default" at order 1000, and AdminNetworkPolicies in tiers of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isnan
from typing import Any, TypeAlias

from mcdoctor.policy import kubernetes
from mcdoctor.policy.addresses import Block, Ip, host_block, parse_block, parse_ip
from mcdoctor.policy.calico_selectors import (
    EQUAL,
    NAME,
    NAMESPACE,
    OF_NAMESPACE,
    OF_SERVICE_ACCOUNT,
    ORCHESTRATOR,
    SERVICE_ACCOUNT,
    All,
    Among,
    Column,
    Compare,
    Global,
    Has,
    SelectorError,
    compile_bits,
    conjunction,
    evaluate,
    has_global,
    parse,
    scoped,
)
from mcdoctor.policy.calico_selectors import Node as Selector
from mcdoctor.policy.family import Compiled, Family
from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.index import Chosen, Index
from mcdoctor.policy.kubernetes import Kubernetes
from mcdoctor.policy.layers import Tiered
from mcdoctor.policy.ports import NamedPort, PortRange
from mcdoctor.policy.question import Http, Icmp, Packet
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
    assuming,
    both,
    chain,
    either,
    first_match,
    negate,
)
from mcdoctor.policy.world import METADATA_NAME, Cluster, DomainName, End, Labels, Node, Object, Outside, Pod

LAYER = "calico"
V3, V1 = "projectcalico.org", "crd.projectcalico.org"
GROUPS = (V3, V1)
POLICY, GLOBAL_POLICY, TIER = "NetworkPolicy", "GlobalNetworkPolicy", "Tier"
SET, GLOBAL_SET, HOST = "NetworkSet", "GlobalNetworkSet", "HostEndpoint"
STAGED, GLOBAL_STAGED, KUBERNETES_STAGED = (
    "StagedNetworkPolicy",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
)
DEFAULT_TIER, ADMIN_TIER, BASELINE_TIER = "default", "kube-admin", "kube-baseline"
KUBERNETES_ORDER, KUBERNETES_PREFIX = 1000.0, "knp.default."
PROTOCOLS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132, "UDPLite": 136}
_TRANSPORTS = {6: "TCP", 17: "UDP", 132: "SCTP"}
_ACTIONS = ("Allow", "Deny", "Log", "Pass")
_DEFAULT_ALLOW = "projectcalico-default-allow"

# Ports of hosts that Felix keeps open whatever policies say (FailsafeInboundHostPorts, FailsafeOutboundHostPorts).
_FAILSAFE = {
    Direction.INGRESS: {("TCP", p) for p in (22, 179, 2379, 2380, 5473, 6443, 6666, 6667)} | {("UDP", 68)},
    Direction.EGRESS: {("TCP", p) for p in (179, 2379, 2380, 5473, 6443, 6666, 6667)} | {("UDP", 53), ("UDP", 67)},
}

_NOT_HTTP = Doubt("whether a rule for HTTP requests without a protocol also covers what is not TCP")

Port: TypeAlias = PortRange | NamedPort


@dataclass(frozen=True, slots=True)
class Tier:
    """`action` "Deny" or "Pass": what becomes of what no policy of the tier decides. `known`: read or built in."""

    name: str
    order: float
    action: str
    known: bool = True


BUILT_IN = (
    Tier(ADMIN_TIER, 1_000, "Pass"),
    Tier("adminnetworkpolicy", 1_000, "Pass"),  # its name before ClusterNetworkPolicy
    Tier(DEFAULT_TIER, 1_000_000, "Deny"),
    Tier(BASELINE_TIER, 10_000_000, "Pass"),
    Tier("baselineadminnetworkpolicy", 10_000_000, "Pass"),
)


@dataclass(frozen=True, slots=True, eq=False)
class AddressSet:
    """A NetworkSet or GlobalNetworkSet."""

    ref: Ref
    labels: Labels
    blocks: tuple[Block, ...]
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """A HostEndpoint. `interface` "*" = all of them, '' = the one that has `ips`."""

    ref: Ref
    labels: Labels
    node: str
    interface: str
    ips: tuple[Ip, ...]
    ports: tuple[tuple[str, str, int], ...]
    profiles: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What a selector selects in the cluster: classes of pods, address sets and host endpoints."""

    chosen: Chosen
    sets: tuple[tuple[AddressSet, Match], ...]
    hosts: tuple[Host, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Entity:
    """`source` or `destination` of a rule; everything given must hold. `service`: (namespace, name)."""

    selector: Selection | None
    not_selector: Selection | None
    nets: tuple[Block, ...]
    not_nets: tuple[Block, ...]
    ports: tuple[Port, ...]
    not_ports: tuple[Port, ...]
    service: tuple[str, str] | None
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IcmpMatch:
    """None = any."""

    type: int | None
    code: int | None


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """`paths`: (text, is a prefix); () = any."""

    methods: tuple[str, ...]
    paths: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """`protocol`, `not_protocol`: IP protocol numbers. `versions`: those that its CIDRs leave possible."""

    action: str
    versions: frozenset[int]
    protocol: int | None
    not_protocol: int | None
    icmp: IcmpMatch | None
    not_icmp: IcmpMatch | None
    source: Entity | None
    destination: Entity | None
    http: HttpMatch | None
    pointer: str


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One direction of a policy. `pointer`: what says that it applies there; `doubt`: why that is not certain."""

    rules: tuple[Rule, ...]
    pointer: str
    doubt: Doubt | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """`place`: in its tier, by order, ties by name, namespace and kind (`PolKVLess`). `forward`: applyOnForward.

    `early`: preDNAT or doNotTrack, which pods never see. `possible`: the classes that `subject` selects or may select.
    `staged`: the action of a policy that is not enforced.
    """

    ref: Ref
    tier: str
    place: tuple[float, str]
    subject: Selection
    possible: int
    ingress: Side | None
    egress: Side | None
    forward: bool
    early: bool
    staged: str = ""

    def side(self, direction: Direction) -> Side | None:
        return self.egress if direction is Direction.EGRESS else self.ingress


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """A policy that applies, or may apply, to an endpoint in one direction."""

    policy: Policy
    side: Side
    match: Match


Entry: TypeAlias = Applied | kubernetes.Policy
Line: TypeAlias = tuple[Tier, tuple[Entry, ...]]
"""A tier with the policies in it that apply to one endpoint in one direction, in order."""


# --- what selectors see --------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Place:
    """The endpoints of one cluster as selectors see them: pods with inherited labels, address sets, host endpoints."""

    index: Index
    cluster: Cluster
    accounts: Mapping[tuple[str, str], Labels]
    everything: int
    sets: tuple[AddressSet, ...] = ()
    hosts: tuple[Host, ...] = ()
    columns: dict[str, Column] = field(default_factory=dict)
    selections: dict[Selector, Selection] = field(default_factory=dict)

    def inherited(self, namespace: str, account: str, key: str) -> tuple[str | None, bool]:
        """(A label that comes with the namespace or service account, whether it is not known)."""
        if key == NAMESPACE:
            return namespace, False
        if key == SERVICE_ACCOUNT:
            return account or None, False
        if key.startswith(OF_NAMESPACE):
            key = key.removeprefix(OF_NAMESPACE)
            if key == NAME:
                return namespace, False
            found = self.cluster.namespaces.get(namespace)
            if found is None or (not found.known and key != METADATA_NAME):
                return None, True
            return found.labels.get(key), False
        if key == OF_SERVICE_ACCOUNT + NAME:
            return account or None, False
        labels = self.accounts.get((namespace, account))
        return (None, bool(account)) if labels is None else (labels.get(key.removeprefix(OF_SERVICE_ACCOUNT)), False)

    def column(self, key: str) -> Column:
        found = self.columns.get(key)
        if found is None:
            values: dict[str, list[int]] = {}
            unseen: list[int] = []
            special = key in (NAMESPACE, SERVICE_ACCOUNT) or key.startswith((OF_NAMESPACE, OF_SERVICE_ACCOUNT))
            for number in self.index.spans.get(self.cluster.name, range(0)):
                each = self.index.classes[number]
                open_ = False
                if key == ORCHESTRATOR:
                    value: str | None = "k8s"
                elif special:
                    value, open_ = self.inherited(each.namespace, each.service_account, key)
                else:
                    value = each.labels.get(key)
                if open_:
                    unseen.append(number)
                elif value is not None:
                    values.setdefault(value, []).append(number)
            bits = {value: self.index.bits_of(numbers) for value, numbers in values.items()}
            found = self.columns[key] = Column(bits, self.index.bits_of(unseen))
        return found

    def set_match(self, node: Selector, each: AddressSet) -> Match:
        namespace = each.ref.namespace
        labels = dict(each.labels)
        unseen: Callable[[str], bool] = lambda _: False  # noqa: E731
        if namespace:
            known = self.cluster.namespaces.get(namespace)
            labels |= {OF_NAMESPACE + k: v for k, v in (known.labels.items() if known else ())}
            labels |= {NAMESPACE: namespace, OF_NAMESPACE + NAME: namespace}
            if known is None or not known.known:
                unseen = lambda key: key.startswith(OF_NAMESPACE) and key not in labels  # noqa: E731
        found = evaluate(node, labels, unseen)
        return _open_namespace(namespace) if found is None else found

    def select(self, node: Selector) -> Selection:
        found = self.selections.get(node)
        if found is None:
            sets = tuple((each, m) for each in self.sets if (m := self.set_match(node, each)) is not False)
            hosts = tuple(each for each in self.hosts if evaluate(node, each.labels))
            found = self.selections[node] = Selection(compile_bits(node, self), sets, hosts)
        return found


def _open_namespace(name: str) -> Doubt:
    return Doubt(f"the labels of namespace {name} are not known (no Namespace object was given)")


def _open_pod(place: _Place, pod: Pod) -> Doubt:
    if not place.cluster.namespaces[pod.namespace].known:
        return _open_namespace(pod.namespace)
    return Doubt(f"the labels of ServiceAccount {pod.namespace}/{pod.service_account} are not known")


# --- reading -------------------------------------------------------------------------------------------------------

_PORT_RANGE = re.compile(r"(\d{1,9})(?::(\d{1,9}))?\Z", re.ASCII)
_PORT_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}\Z")
_DIGITS = re.compile(r"\d{1,3}\Z", re.ASCII)


def _selector(field: Field, *, global_: bool = False) -> Selector | None:
    """None when missing or empty. `global_`: global() may stand here, by itself."""
    text = field.text("")
    if not text:
        return None
    try:
        node = parse(text)
    except SelectorError as error:
        raise Refused(field.pointer, f"not a selector: {error}") from None
    if has_global(node) and not (global_ and isinstance(node, Global)):
        why = "global() cannot be combined" if global_ else "global() is for the namespaceSelector of a rule's entity"
        raise Refused(field.pointer, why)
    return node


def _number(field: Field) -> float:
    value = field.value
    if value is None:
        return inf
    if type(value) not in (int, float) or isnan(value):
        raise Refused(field.pointer, "must be a number")
    return float(value)


def _nets(field: Field) -> tuple[Block, ...]:
    """CIDRs of a rule: the prefix is required and no host bit may be set."""
    found = []
    for item in field.items():
        text = item.text()
        try:
            block = parse_block(text)
            strict = parse_ip(text.partition("/")[0]).value == block.low
        except ValueError:
            raise Refused(item.pointer, f"{text!r} is not a valid CIDR") from None
        if not strict:
            raise Refused(item.pointer, f"{text!r} has host bits set")
        found.append(block)
    return tuple(found)


def _ports(field: Field, protocol: int | None) -> tuple[Port, ...]:
    found: list[Port] = []
    name = _TRANSPORTS.get(protocol or 0)
    for item in field.items():
        if name is None:
            raise Refused(item.pointer, "rules that specify ports must set protocol to TCP or UDP or SCTP")
        value = item.value
        if type(value) is int:
            low = high = value
        else:
            text = item.text()
            numbers = _PORT_RANGE.match(text)
            if not numbers:
                if not _PORT_NAME.match(text):
                    raise Refused(item.pointer, f"{text!r} is no port, range or port name")
                found.append(NamedPort(name, text))
                continue
            low = int(numbers[1])
            high = low if numbers[2] is None else int(numbers[2])
        if not 1 <= low <= 65535 or not 1 <= high <= 65535:
            raise Refused(item.pointer, "a port is between 1 and 65535")
        if low > high:
            raise Refused(item.pointer, "port range invalid")
        found.append(PortRange(name, low, high))
    return tuple(found)


def _protocol(field: Field) -> int | None:
    value = field.value
    if value is None:
        return None
    if type(value) is str and _DIGITS.match(value):
        value = int(value)
    if type(value) is int:
        if not 1 <= value <= 255:
            raise Refused(field.pointer, "protocol number invalid")
        return value
    text = field.text()
    if text not in PROTOCOLS:
        raise Refused(field.pointer, f"{text!r} is not one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[text]


def _icmp(field: Field) -> IcmpMatch | None:
    if not field.present:
        return None
    limits = {"type": 254, "code": 255}
    for name, most in limits.items():
        if field[name].present and not 0 <= field[name].integer() <= most:
            raise Refused(field[name].pointer, f"must be between 0 and {most}")
    if field["code"].present and not field["type"].present:
        raise Refused(field["code"].pointer, "ICMP code specified without an ICMP type")
    return IcmpMatch(field["type"].value, field["code"].value)


def _http(field: Field) -> HttpMatch | None:
    if not field.present:
        return None
    methods = field["methods"].texts()
    if len(set(methods)) != len(methods):
        raise Refused(field["methods"].pointer, "a method is listed twice")
    paths = []
    for item in field["paths"].items():
        exact, prefix = item["exact"].text(""), item["prefix"].text("")
        path = exact or prefix
        if bool(exact) is bool(prefix):
            raise Refused(item.pointer, "exactly one of exact and prefix must be set")
        if not path.startswith("/") or any(c in path for c in "? #"):
            raise Refused(item.pointer, "must start with / and not contain a blank, ? or #")
        paths.append((path, bool(prefix)))
    return HttpMatch(methods, tuple(paths))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads policies. `namespace` '' = a global policy."""

    place: _Place
    namespace: str

    def select(self, node: Selector | None) -> Selection | None:
        return None if node is None else self.place.select(node)

    def entity(self, field: Field, protocol: int | None, egress: bool, far: bool, action: str) -> Entity | None:
        """`far`: the end that is not the policy's own, where services and domains may stand."""
        if not field.mapping():
            return None
        namespaces = _selector(field["namespaceSelector"], global_=True)
        selector, excluded = _selector(field["selector"]), _selector(field["notSelector"])
        accounts = field["serviceAccounts"]
        names = accounts["names"].texts()
        account_selector = _selector(accounts["selector"])
        nets, not_nets = _nets(field["nets"]), _nets(field["notNets"])
        ports, not_ports = _ports(field["ports"], protocol), _ports(field["notPorts"], protocol)
        services = field["services"]
        service = None
        if services.present:
            service = self.service(services, far)
            others = ("namespaceSelector", "selector", "notSelector", "nets", "notNets", "serviceAccounts")
            for name in others + (("ports", "notPorts") if egress else ()):
                if field[name].value or (name == "serviceAccounts" and accounts.present):
                    raise Refused(field[name].pointer, "cannot be specified with services on the same rule")
        domains = tuple(_domain(item) for item in field["domains"].items())
        if domains and not (egress and far and action == "Allow"):
            raise Refused(field["domains"].pointer, "only the destination of an egress rule that allows has domains")
        parts: list[Selector] = []
        if account_selector is not None:
            parts.append(scoped(account_selector, OF_SERVICE_ACCOUNT, All()))
        if names:
            parts.append(Among(SERVICE_ACCOUNT, tuple(sorted(set(names)))))
        if selector is not None:
            parts.append(selector)
        # In a namespaced policy any of these means the own namespace, a notSelector too (`getEndpointSelector`).
        if namespaces is not None:
            parts.insert(0, scoped(namespaces, OF_NAMESPACE, Has(NAMESPACE)))
        elif self.namespace and (parts or excluded is not None):
            parts.insert(0, Compare(NAMESPACE, EQUAL, self.namespace))
        wanted = conjunction(parts) if parts else None
        return Entity(self.select(wanted), self.select(excluded), nets, not_nets, ports, not_ports, service, domains)

    def service(self, field: Field, far: bool) -> tuple[str, str]:
        if not far:
            raise Refused(field.pointer, "services are for the source of ingress and the destination of egress rules")
        name, namespace = field["name"].text(""), field["namespace"].text("")
        if not name:
            raise Refused(field["name"].pointer, "must specify a service name")
        if not namespace and not self.namespace:
            raise Refused(field["namespace"].pointer, "must specify a namespace")
        return namespace or self.namespace, name

    def rule(self, field: Field, egress: bool) -> Rule:
        field.mapping()
        action = field["action"].choice(_ACTIONS)
        version = field["ipVersion"]
        if version.present and version.integer() not in (4, 6):
            raise Refused(version.pointer, f"{version.value} is neither 4 nor 6")
        protocol, excluded = _protocol(field["protocol"]), _protocol(field["notProtocol"])
        for each in (protocol, excluded):
            own = {1: 4, 58: 6}.get(each or 0)
            if own and version.present and version.value != own:
                raise Refused(version.pointer, f"protocol {'ICMP' if own == 4 else 'ICMPv6'} requires ipVersion {own}")
        icmp = _icmp(field["icmp"])
        if icmp is not None and protocol not in (1, 58):
            raise Refused(field["icmp"].pointer, "rules that specify ICMP fields must set protocol to ICMP")
        http = _http(field["http"])
        if http is not None:
            if egress:
                raise Refused(field["http"].pointer, "not allowed in egress rules")
            if action != "Allow":
                raise Refused(field["http"].pointer, "only valid for Allow rules")
            if protocol not in (None, 6):
                raise Refused(field["protocol"].pointer, "rules that specify HTTP fields must set protocol to TCP")
        source = self.entity(field["source"], protocol, egress, not egress, action)
        destination = self.entity(field["destination"], protocol, egress, egress, action)
        versions = self.versions(field, source, destination)
        return Rule(
            action,
            versions,
            protocol,
            excluded,
            icmp,
            _icmp(field["notICMP"]),
            source,
            destination,
            http,
            field.pointer,
        )

    @staticmethod
    def versions(field: Field, source: Entity | None, destination: Entity | None) -> frozenset[int]:
        """The IP versions a rule can match: CIDRs of one version keep it from the other, negated ones too."""
        told = field["ipVersion"].value
        found = {told} if told else {4, 6}
        for name, entity in (("source", source), ("destination", destination)):
            for key, blocks in (("nets", entity.nets), ("notNets", entity.not_nets)) if entity else ():
                there = {block.version for block in blocks}
                if there and told and there != {told}:
                    raise Refused(field[name][key].pointer, "rule IP version doesn't match CIDR version")
                if len(there) > 1 or (there and not there & found):
                    raise Refused(field[name][key].pointer, "rule contains both IPv4 and IPv6 CIDRs")
                found &= there or found
        return frozenset(found)

    def rules(self, field: Field, egress: bool) -> tuple[Rule, ...]:
        return tuple(self.rule(item, egress) for item in field.items())


def _domain(field: Field) -> str:
    name = field.text().rstrip(".").lower()
    if not name or any(c.isspace() or c == "/" for c in name):
        raise Refused(field.pointer, f"{field.value!r} is not a domain name")
    return name


def _types(spec: Field) -> tuple[str, ...]:
    listed = spec["types"].texts()
    for number, item in enumerate(spec["types"].items()):
        if item.choice(("Ingress", "Egress")) in listed[:number]:
            raise Refused(item.pointer, "type specified more than once")
    return listed


def read(obj: Object, place: _Place, namespaced: bool, staged: bool = False) -> Policy:
    """Parse and compile a policy of one of the four kinds. Raises Refused where Calico's validation would."""
    whole = Field(obj.raw)
    spec = whole["spec"]
    old = _version(whole) == V1
    reader = _Reader(place, obj.ref.namespace if namespaced else "")
    action = spec["stagedAction"].choice(("Set", "Delete", "Learn", "Ignore"), "Set") if staged else ""
    order = _number(spec["order"])
    tier = spec["tier"].text("") or DEFAULT_TIER
    parts: list[Selector] = []
    selector = _selector(spec["selector"])
    if selector is not None:
        parts.append(selector)
    if namespaced:
        parts.append(Compare(NAMESPACE, EQUAL, obj.ref.namespace))
    else:
        namespaces = _selector(spec["namespaceSelector"])
        if namespaces is not None:
            parts.append(scoped(namespaces, OF_NAMESPACE, Has(NAMESPACE)))
    accounts = _selector(spec["serviceAccountSelector"])
    if accounts is not None:
        parts.append(scoped(accounts, OF_SERVICE_ACCOUNT, Has(SERVICE_ACCOUNT)))
    ingress, egress = reader.rules(spec["ingress"], False), reader.rules(spec["egress"], True)
    listed = _types(spec)
    flags = {name: spec[name].boolean(False) for name in ("doNotTrack", "preDNAT", "applyOnForward")}
    if not namespaced:
        if flags["doNotTrack"] and flags["preDNAT"]:
            raise Refused(spec["preDNAT"].pointer, "preDNAT and doNotTrack cannot both be true")
        if flags["preDNAT"] and egress:
            raise Refused(spec["egress"].pointer, "a preDNAT policy cannot have egress rules")
        if flags["preDNAT"] and "Egress" in listed:
            raise Refused(spec["types"].pointer, "a preDNAT policy cannot have type Egress")
        if (flags["doNotTrack"] or flags["preDNAT"]) and not flags["applyOnForward"]:
            raise Refused(spec["applyOnForward"].pointer, "must be true if preDNAT or doNotTrack is")
    wanted = listed or (("Egress",) if egress and not ingress else ("Ingress", "Egress") if egress else ("Ingress",))

    def side(name: str, section: Field, rules: tuple[Rule, ...]) -> Side | None:
        doubt = None
        if name not in wanted:
            if listed or not old:
                return None
            doubt = Doubt(
                f"{obj.ref} has no types: Calico's API would have filled them in without {name}, but an object "
                "written straight to its CRD counts for both directions"
            )
        if section.present:
            return Side(rules, section.pointer, doubt)
        if name in listed:
            return Side(rules, f"{spec['types'].pointer}/{listed.index(name)}", doubt)
        return Side(rules, spec.pointer if spec.present else "", doubt)

    early = not namespaced and (flags["doNotTrack"] or flags["preDNAT"])
    subject = place.select(conjunction(parts))
    return Policy(
        obj.ref,
        tier,
        (order, f"{obj.ref.name}/{obj.ref.namespace}/{obj.ref.kind}"),
        subject,
        0 if early else subject.chosen.bits | subject.chosen.maybe,
        side("Ingress", spec["ingress"], ingress),
        side("Egress", spec["egress"], egress),
        namespaced or flags["applyOnForward"],
        early,
        action,
    )


def _version(whole: Field) -> str:
    version = whole["apiVersion"].text()
    if version not in (f"{V3}/v3", f"{V1}/v1"):
        raise Refused("/apiVersion", f"no kind {whole['kind'].value} in {version!r}")
    return version.partition("/")[0]


def _labels(obj: Object) -> Labels:
    """Its labels; the CRDs keep those given through Calico's API in an annotation."""
    stored = obj.annotations.get("projectcalico.org/metadata")
    if stored:
        try:
            meta = json.loads(stored)
        except (ValueError, RecursionError):
            raise Refused("/metadata/annotations/projectcalico.org~1metadata", "not JSON") from None
        more = meta.get("labels") if type(meta) is dict else None
        if type(more) is dict:
            return {**obj.labels, **{k: v for k, v in more.items() if type(v) is str}}
    return obj.labels


def _address_set(obj: Object) -> AddressSet:
    whole = Field(obj.raw)
    _version(whole)
    labels = _labels(obj)
    if NAMESPACE in labels:
        raise Refused("/metadata/labels", f"{NAMESPACE} is not a valid label name")
    blocks = tuple(_cidr_or_ip(item) for item in whole["spec"]["nets"].items())
    domains = tuple(_domain(item) for item in whole["spec"]["allowedEgressDomains"].items())
    return AddressSet(obj.ref, labels, blocks, domains)


def _cidr_or_ip(field: Field) -> Block:
    text = field.text()
    try:
        return parse_block(text) if "/" in text else host_block(parse_ip(text))
    except ValueError:
        raise Refused(field.pointer, f"{text!r} is neither a CIDR nor an address") from None


def _host(obj: Object) -> Host:
    whole = Field(obj.raw)
    _version(whole)
    spec = whole["spec"]
    node, interface = spec["node"].text(""), spec["interfaceName"].text("")
    ips = []
    for item in spec["expectedIPs"].items():
        try:
            ips.append(parse_ip(item.text()))
        except ValueError:
            raise Refused(item.pointer, f"{item.value!r} is not an address") from None
    if not node:
        raise Refused(spec["node"].pointer, "no node has been specified")
    if not interface and not ips:
        raise Refused(spec["interfaceName"].pointer, "no interface or expected IPs have been specified")
    ports = []
    for item in spec["ports"].items():
        protocol = _protocol(item["protocol"])
        ports.append((item["name"].text(), _TRANSPORTS.get(protocol or 0, ""), item["port"].integer()))
    return Host(obj.ref, _labels(obj), node, interface, tuple(ips), tuple(ports), spec["profiles"].texts())


def _tier(obj: Object) -> Tier:
    whole = Field(obj.raw)
    _version(whole)
    spec = whole["spec"]
    order = _number(spec["order"])
    action = spec["defaultAction"].choice(("Deny", "Pass"), "Deny")
    built_in = next((each for each in BUILT_IN if each.name == obj.ref.name), None)
    if built_in is not None and order != built_in.order:
        raise Refused(spec["order"].pointer, f"the order of tier {built_in.name} must be {built_in.order:g}")
    if built_in is not None and not spec["defaultAction"].present:
        action = built_in.action
    return Tier(obj.ref.name, order, action)


# --- matching ------------------------------------------------------------------------------------------------------


def _versions(packet: Packet) -> tuple[int, ...]:
    """The IP versions the packet may have; (0,) = not known."""
    if packet.icmp is not None:
        return (packet.icmp.family,)
    if packet.version:
        return (packet.version,)
    if packet.protocol in ("ICMP", "ICMPv6"):
        return (4,) if packet.protocol == "ICMP" else (6,)
    here, there = ({ip.version for ip in packet.ips(end)} for end in (packet.source, packet.destination))
    return tuple(sorted(here & there if here and there else here | there)) or (0,)


def _protocol_number(packet: Packet) -> int | None:
    if packet.icmp is not None:
        return 58 if packet.icmp.family == 6 else 1
    return PROTOCOLS.get(packet.protocol)


def _ips(packet: Packet, end: End, version: int) -> tuple[Ip, ...]:
    found = packet.ips(end)
    return tuple(ip for ip in found if ip.version == version) if version else found


def _inside(blocks: Sequence[Block], packet: Packet, end: End, version: int) -> Match:
    blocks = [block for block in blocks if version in (0, block.version)]
    if not blocks:
        return False
    if isinstance(end, DomainName):
        if any(block.prefix == 0 for block in blocks):
            return True
        return Doubt(f"which addresses {end} resolves to", unseen=False)
    ips = _ips(packet, end, version)
    if not ips:
        return Doubt(f"the address of {end} is not known")
    inside = [any(ip in block for block in blocks) for ip in ips]
    if any(inside) and not all(inside):
        return Doubt(f"which address of {end} is used ({', '.join(map(str, ips))})", unseen=False)
    return all(inside)


def _names(domains: Sequence[str], end: End) -> Match:
    """Domains of Calico Enterprise: exact, or `*` for one or more labels."""
    match end:
        case DomainName():
            return any(re.fullmatch(re.escape(d).replace(r"\*", r".+"), end.name) is not None for d in domains)
        case Outside():
            return Doubt(f"whether {end} is an address of {', '.join(domains)}")
        case _:
            return False


def _icmp_match(rule: IcmpMatch, icmp: Icmp | None) -> Match:
    if rule.type is None:
        return True
    if icmp is None or icmp.type is None:
        return Doubt("which type of ICMP message it is", unseen=False)
    if icmp.type != rule.type:
        return False
    return True if rule.code is None else Doubt("which code the ICMP message has", unseen=False)


def _http_match(rule: HttpMatch, http: Http | None) -> Match:
    method = http.method if http else None
    path = http.path if http else None
    found: Match = True
    if rule.methods and "*" not in rule.methods:
        found = Doubt("the method of the HTTP request", unseen=False) if method is None else method in rule.methods
    if rule.paths and found is not False:
        if path is None:
            found = both(found, Doubt("the path of the HTTP request", unseen=False))
        else:
            plain = path.partition("?")[0].partition("#")[0]
            found = both(found, any(plain.startswith(p) if prefix else plain == p for p, prefix in rule.paths))
    return found


def _weakened(ruling: Ruling, doubt: Doubt, why: str) -> Ruling:
    """A refusal that is only perhaps one."""
    if all(branch.effect is not Effect.DENY for branch in ruling.branches):
        return ruling
    branches = [assuming(b, (doubt,)) if b.effect is Effect.DENY else b for b in ruling.branches]
    return Ruling((Branch(Effect.ALLOW, (), why, (doubt,)), *branches), ruling.trace)


@dataclass(frozen=True, slots=True, eq=False)
class Calico:
    """One cluster's policies. `policies` by tier and direction, in order; `hosts` by node; `lines`: a memo.

    `plain` and `admin`: the Kubernetes kinds, which Calico enforces in its tiers. `failsafe_told`: the failsafe ports
    are configured.
    """

    place: _Place
    plain: Kubernetes | None
    admin: Tiered | None
    tiers: tuple[Tier, ...]
    policies: Mapping[tuple[str, Direction], tuple[Policy, ...]]
    staged: tuple[Policy | kubernetes.Policy, ...]
    hosts: Mapping[str, tuple[Host, ...]]
    failsafe_told: bool
    refusals: tuple[Refusal, ...]
    lines: dict[tuple[object, Direction], tuple[Line, ...]] = field(default_factory=dict)

    def enforce(self, packet: Packet) -> Ruling:
        subject = packet.subject
        match subject:
            case Pod(host_network=False) if subject.cluster == self.place.cluster.name:
                return self._pod(subject, packet)
            case Pod() if subject.cluster == self.place.cluster.name:
                return self._node(subject.node, packet)
            case Node() if subject.cluster == self.place.cluster.name:
                return self._node(subject.name, packet)
            case _:
                return SILENT

    # Which policies apply.

    def applying(self, packet: Packet) -> tuple[Line, ...]:
        """Tier by tier, the policies that apply, or may apply, to the packet's subject pod in its direction."""
        subject = packet.subject
        assert isinstance(subject, Pod)
        number = self.place.index.class_of[subject]
        key = number, packet.direction
        found = self.lines.get(key)
        if found is None:
            selected = self.plain.selected[packet.direction].get(number, ()) if self.plain else ()
            if self.plain and not self.plain.datapath.enforces_network_policy:
                selected = ()

            def chosen(policies: Sequence[Policy]) -> Iterator[tuple[Policy, Match]]:
                for policy in policies:
                    if policy.possible >> number & 1:
                        yield policy, self._selects(policy, number, subject)

            found = self.lines[key] = tuple(self._lines(chosen, packet.direction, selected))
        return found

    def _selects(self, policy: Policy, number: int, pod: Pod) -> Match:
        if policy.possible >> number & 1:
            return True if policy.subject.chosen.bits >> number & 1 else _open_pod(self.place, pod)
        return False

    def _lines(
        self,
        chosen: Callable[[Sequence[Policy]], Iterator[tuple[Policy, Match]]],
        direction: Direction,
        others: Sequence[kubernetes.Policy],
    ) -> Iterator[Line]:
        for tier in self.tiers:
            applied: list[tuple[tuple[float, str], Entry]] = []
            for policy, match in chosen(self.policies.get((tier.name, direction), ())):
                side = policy.side(direction)
                assert side is not None
                sure = match if side.doubt is None else both(match, side.doubt)
                applied.append((policy.place, Applied(policy, side, self._of_tier(tier, sure))))
            if tier.name == DEFAULT_TIER and others:
                for each in others:
                    name = f"{KUBERNETES_PREFIX}{each.ref.name}/{each.ref.namespace}/KubernetesNetworkPolicy"
                    applied.append(((KUBERNETES_ORDER, name), each))
                applied.sort(key=lambda item: item[0])
            if applied or (self.admin is not None and tier.name in (ADMIN_TIER, BASELINE_TIER)):
                yield tier, tuple(entry for _, entry in applied)

    def _at_host(self, host: Host, direction: Direction) -> tuple[Line, ...]:
        key = host, direction
        found = self.lines.get(key)
        if found is None:

            def chosen(policies: Sequence[Policy]) -> Iterator[tuple[Policy, Match]]:
                return ((policy, True) for policy in policies if host in policy.subject.hosts)

            found = self.lines[key] = tuple(self._lines(chosen, direction, ()))
        return found

    def _of_tier(self, tier: Tier, match: Match) -> Match:
        if not tier.known:
            return both(
                match, Doubt(f"the place and the default action of tier {tier.name} (no Tier object was given)")
            )
        if self.admin is not None and tier.name in (ADMIN_TIER, BASELINE_TIER):
            return both(
                match, Doubt(f"in what order Calico's own policies of tier {tier.name} and the admin kinds come")
            )
        return match

    # One endpoint.

    def _pod(self, subject: Pod, packet: Packet) -> Ruling:
        peer = packet.peer
        itself = isinstance(peer, Pod) and peer.key == subject.key
        if itself and packet.service is None:
            return Ruling((Branch(Effect.NEXT, why="a pod's traffic to its own address never leaves it"),))
        last = Branch(Effect.ALLOW, (), f"no tier decides, and profile kns.{subject.namespace} allows")
        ruling = chain(self._walk(self.applying(packet), packet), last)
        trace = (*ruling.trace, *self._would(packet))
        ruling = Ruling(ruling.branches, trace)
        if itself and packet.direction is Direction.INGRESS:
            doubt = Doubt("traffic of a pod to itself through a Service comes back from the address of its node")
            ruling = _weakened(ruling, doubt, "a node always reaches its own pods")
        return self._forwarded(subject, packet, ruling)

    def _walk(self, lines: Sequence[Line], packet: Packet, *, admin: bool = True) -> Iterator[Ruling]:
        for tier, entries in lines:
            if entries:
                yield self._in_tier(tier, entries, packet)
            if self.admin is not None and admin and tier.name == ADMIN_TIER:
                yield self.admin.admin(packet)
            if self.admin is not None and admin and tier.name == BASELINE_TIER:
                yield self.admin.baseline(packet)

    def _in_tier(self, tier: Tier, entries: Sequence[Entry], packet: Packet) -> Ruling:
        direction = packet.direction
        rules: list[tuple[Match, Branch]] = []
        trace: list[Step] = []
        applied: Match = False
        refusing: list[Deciding] = []
        for entry in entries:
            decided = False
            match entry:
                case kubernetes.Policy():
                    assert self.plain is not None
                    applied = True
                    refusing.append(kubernetes.isolation(entry, direction))
                    admission = self.plain.admits(entry, packet)
                    where, told = entry.ref, "no rule matches"
                    if admission.by is not None:
                        decided = admission.match is True
                        told = "a rule allows" if decided else "a rule may allow"
                        rules.append((admission.match, Branch(Effect.ALLOW, (admission.by,), f"{where} allows it")))
                case Applied():
                    where, told = entry.policy.ref, "no rule matches"
                    applied = either(applied, entry.match)
                    refusing.append(
                        Deciding(
                            where,
                            entry.side.pointer,
                            direction,
                            "deny",
                            implicit=True,
                            note=f"applies in tier {tier.name}, no rule matches",
                        )
                    )
                    for match, branch, rule in self._rules(entry.policy, entry.side, packet):
                        if branch is None:
                            trace.append(Step(LAYER, f"{where} logs it and goes on", where, rule.pointer))
                            continue
                        met = both(entry.match, match)
                        rules.append((met, branch))
                        told = (
                            f"a rule {'' if met is True else 'may '}{rule.action.lower()}{'s' if met is True else ''}"
                        )
                        decided = met is True
                        if match is True:
                            break
            trace.append(Step(LAYER, f"{where} applies to {packet.subject} in tier {tier.name}; {told}", where))
            if decided:
                break
        names = ", ".join(str(each.ref) for each in refusing)
        if tier.action == "Pass" and tier.known:
            end = Branch(Effect.NEXT, (), f"tier {tier.name} passes on what none of its policies decides")
        else:
            why = f"{names} appl{'y' if len(refusing) > 1 else 'ies'} in tier {tier.name}, no rule matches"
            end = Branch(Effect.DENY, tuple(refusing), why)
        if isinstance(applied, Doubt):
            rules.append((applied, end))
            end = Branch(Effect.NEXT)
        return first_match(rules, end, trace)

    def _rules(self, policy: Policy, side: Side, packet: Packet) -> Iterator[tuple[Match, Branch | None, Rule]]:
        """The rules that match or may match, in order; no branch for one that only logs."""
        versions = _versions(packet)
        for rule in side.rules:
            match = self.matches(rule, packet, versions)
            if match is False:
                continue
            if rule.action == "Log":
                yield match, None, rule
                continue
            effect = {"Allow": Effect.ALLOW, "Deny": Effect.DENY, "Pass": Effect.NEXT}[rule.action]
            verb = {"Allow": "allows it", "Deny": "denies it", "Pass": "passes it on to the next tier"}[rule.action]
            deciding = Deciding(policy.ref, rule.pointer, packet.direction, rule.action.lower())
            yield match, Branch(effect, (deciding,), f"{policy.ref} {verb}"), rule

    def _would(self, packet: Packet) -> Iterator[Step]:
        """What staged policies would do: told, never done."""
        if not self.staged:
            return
        subject = packet.subject
        assert isinstance(subject, Pod)
        number = self.place.index.class_of[subject]
        for policy in self.staged:
            if isinstance(policy, kubernetes.Policy):
                room = self.place.index.rooms.get((subject.cluster, policy.ref.namespace))
                local = number - room.base if room else -1
                if self.plain is None or room is None or policy.side(packet.direction) is None or local < 0:
                    continue
                if room.select(policy.subject) >> local & 1:
                    by = self.plain.admits(policy, packet).by
                    told = "allow it" if by else "isolate the pod, and no rule of it matches"
                    yield Step(LAYER, f"{policy.ref} is staged: it would {told}", policy.ref, by.pointer if by else "")
                continue
            side = policy.side(packet.direction)
            if side is None or self._selects(policy, number, subject) is False:
                continue
            if policy.staged != "Set":
                yield Step(LAYER, f"{policy.ref} is staged to {policy.staged.lower()}: no effect", policy.ref)
                continue
            first = next(((b, r) for _, b, r in self._rules(policy, side, packet) if b is not None), None)
            told = (
                first[1].action.lower() + " it" if first else f"apply in tier {policy.tier}, and no rule of it matches"
            )
            pointer = first[1].pointer if first else side.pointer
            yield Step(LAYER, f"{policy.ref} is staged: it would {told}", policy.ref, pointer)

    # Hosts.

    def _node(self, name: str, packet: Packet) -> Ruling:
        """Traffic of the node itself and of pods on its network: only host endpoints say anything about it."""
        hosts = self.hosts.get(name, ())
        if not hosts:
            return SILENT
        branches: list[Branch] = []
        trace: list[Step] = []
        for host in hosts:
            ruling = self._host(host, packet)
            trace += ruling.trace
            doubts = (Doubt(f"which interface of node {name} is used"),) if len(hosts) > 1 else ()
            branches += [assuming(branch, doubts) for branch in ruling.branches]
        return Ruling(tuple(branches), tuple(trace))

    def _host(self, host: Host, packet: Packet) -> Ruling:
        direction = packet.direction

        lines = self._at_host(host, direction)
        early = any(isinstance(e, Applied) and e.policy.early for _, entries in lines for e in entries)
        normal = tuple(
            (tier, tuple(e for e in entries if isinstance(e, Applied) and not e.policy.early))
            for tier, entries in lines
        )
        if _DEFAULT_ALLOW in host.profiles:
            last = Branch(Effect.ALLOW, (), f"{host.ref} has profile {_DEFAULT_ALLOW}")
        else:
            by = Deciding(host.ref, "/spec", direction, "deny", implicit=True, note="no policy and no profile allows")
            last = Branch(Effect.DENY, (by,), f"{host.ref} exists and nothing allows")
        ruling = chain(self._walk(normal, packet, admin=False), last)
        allowed = "what host endpoints leave alone is allowed"
        if early:
            doubt = Doubt(f"untracked or pre-DNAT policies apply to {host.ref}; they come before all others")
            denied = Branch(Effect.DENY, (), "an untracked or pre-DNAT policy may deny it", (doubt,))
            ruling = Ruling((*_weakened(ruling, doubt, allowed).branches, denied), ruling.trace)
        if host.profiles and _DEFAULT_ALLOW not in host.profiles:
            ruling = _weakened(ruling, Doubt(f"what profile {', '.join(host.profiles)} of {host.ref} allows"), allowed)
        if host.interface != "*":
            ruling = _weakened(ruling, Doubt(f"whether the traffic takes the interface of {host.ref}"), allowed)
        peer = packet.peer
        if isinstance(peer, Pod) and peer.node == host.node:
            doubt = Doubt(f"how node {host.node} treats traffic with its own pods (DefaultEndpointToHostAction)")
            ruling = _weakened(ruling, doubt, allowed)
        if self.failsafe_told or packet.port is None or (packet.protocol, packet.port) in _FAILSAFE[direction]:
            ruling = _weakened(ruling, Doubt("which failsafe ports Felix keeps open on hosts"), allowed)
        return ruling

    def _forwarded(self, subject: Pod, packet: Packet, ruling: Ruling) -> Ruling:
        """Traffic between a pod and another machine is forwarded by its node: only applyOnForward policies see it."""
        peer = packet.peer
        if isinstance(peer, Pod) and peer.node == subject.node and subject.node:
            return ruling
        denying: list[str] = []
        trace: list[Step] = []
        for host in self.hosts.get(subject.node, ()) if subject.node else self.place.hosts:
            lines = tuple(
                (tier, tuple(e for e in entries if isinstance(e, Applied) and e.policy.forward))
                for tier, entries in self._at_host(host, packet.direction)
            )
            found = chain(self._walk(lines, packet, admin=False), Branch(Effect.ALLOW))
            if any(branch.effect is Effect.DENY for branch in found.branches):
                denying += [str(by.ref) for b in found.branches if b.effect is Effect.DENY for by in b.by]
                trace += found.trace
        if not denying:
            return ruling
        names = ", ".join(dict.fromkeys(denying))
        doubt = Doubt(f"whether host endpoints that {names} apply to (applyOnForward) see this traffic, and refuse it")
        branches = [assuming(b, (doubt,)) if b.effect is not Effect.DENY else b for b in ruling.branches]
        denied = Branch(Effect.DENY, (), f"{names} may refuse it at a host endpoint", (doubt,))
        return Ruling((*branches, denied), (*ruling.trace, *trace))

    # One rule.

    def matches(self, rule: Rule, packet: Packet, versions: Sequence[int]) -> Match:
        """Does a rule match? Where it does for one IP version and not for another, it hangs on which is used."""
        found = self._matches(rule, packet, versions[0])
        for version in versions[1:]:
            other = self._matches(rule, packet, version)
            if other is not found:
                if isinstance(found, bool) and isinstance(other, bool):
                    return Doubt("which IP version is used", unseen=False)
                found = found if isinstance(found, Doubt) else other
        return found

    def _matches(self, rule: Rule, packet: Packet, version: int) -> Match:
        found: Match = True
        if version == 0 and len(rule.versions) < 2:
            found = Doubt("which IP version is used")
        elif version and version not in rule.versions:
            return False
        number = _protocol_number(packet)
        if rule.protocol is not None and rule.protocol != number:
            return False
        if rule.not_protocol is not None and rule.not_protocol == number:
            return False
        if rule.icmp is not None:
            found = both(found, _icmp_match(rule.icmp, packet.icmp))
        if rule.not_icmp is not None and rule.not_icmp.type is not None and number in (1, 58):
            found = both(found, negate(_icmp_match(rule.not_icmp, packet.icmp)))
        for entity, end in ((rule.source, packet.source), (rule.destination, packet.destination)):
            if found is False:
                return False
            if entity is not None:
                named = rule.action == "Allow" and end is packet.destination and packet.direction is Direction.EGRESS
                found = both(found, self._entity(entity, end, packet, version, named))
        if rule.http is not None and found is not False:
            found = both(found, _http_match(rule.http, packet.http) if number == 6 else _NOT_HTTP)
        return found

    def _entity(self, entity: Entity, end: End, packet: Packet, version: int, named: bool) -> Match:
        """`named`: domains of address sets count."""
        found: Match = True
        if entity.ports or entity.not_ports:
            found = self._ports(entity, end, packet)
        if entity.nets and found is not False:
            found = both(found, _inside(entity.nets, packet, end, version))
        if entity.not_nets and found is not False:
            found = both(found, negate(_inside(entity.not_nets, packet, end, version)))
        if entity.selector is not None and found is not False:
            found = both(found, self.selected(entity.selector, end, packet, version, named))
        if entity.not_selector is not None and found is not False:
            found = both(found, negate(self.selected(entity.not_selector, end, packet, version, named=False)))
        if entity.service is not None and found is not False:
            found = both(found, self._service(entity.service, end, packet, version))
        if entity.domains and found is not False:
            found = both(found, _names(entity.domains, end))
        return found

    def selected(self, selection: Selection, end: End, packet: Packet, version: int, named: bool = False) -> Match:
        """Is the end among what a selector selects: a pod of this cluster, or an address of a set or a host?"""
        found: Match = False
        if isinstance(end, Pod) and not end.host_network and end.cluster == self.place.cluster.name:
            number = self.place.index.class_of[end]
            if selection.chosen.bits >> number & 1:
                return True
            if selection.chosen.maybe >> number & 1:
                found = _open_pod(self.place, end)
        for each, match in selection.sets:
            here: Match = _inside(each.blocks, packet, end, version) if each.blocks else False
            if named and each.domains:
                here = either(here, _names(each.domains, end))
            found = either(found, both(match, here))
        if selection.hosts:
            ips = _ips(packet, end, version)
            found = either(found, any(ip in host.ips for host in selection.hosts for ip in ips))
        return found

    def _ports(self, entity: Entity, end: End, packet: Packet) -> Match:
        destination = end is packet.destination
        found: Match = True
        if entity.ports:
            found = self._any_port(entity.ports, end, packet, destination)
        if entity.not_ports and found is not False:
            found = both(found, negate(self._any_port(entity.not_ports, end, packet, destination)))
        return found

    def _any_port(self, ports: Sequence[Port], end: End, packet: Packet, destination: bool) -> Match:
        found: Match = False
        for port in ports:
            match port:
                case PortRange(low=1, high=65535):
                    return True
                case _ if not destination:
                    found = Doubt("the source port of the connection", unseen=False)
                case PortRange() if packet.port is None:
                    found = either(found, Doubt("which port is used", unseen=False))
                case PortRange():
                    found = either(found, port.low <= (packet.port or 0) <= port.high)
                case NamedPort():
                    numbers = self._named(port, end, packet)
                    if numbers and packet.port is None:
                        found = either(found, Doubt("which port is used", unseen=False))
                    else:
                        found = either(found, packet.port in numbers)
        return found

    def _named(self, port: NamedPort, end: End, packet: Packet) -> set[int]:
        if isinstance(end, Pod) and not end.host_network and end.cluster == self.place.cluster.name:
            return {p.port for p in end.named_ports(port.name, port.protocol)}
        ips = packet.ips(end)
        return {
            number
            for host in self.place.hosts
            if any(ip in host.ips for ip in ips)
            for name, protocol, number in host.ports
            if name == port.name and protocol == port.protocol
        }

    def _service(self, key: tuple[str, str], end: End, packet: Packet, version: int) -> Match:
        """Is the end an endpoint of the Service, as a destination on the endpoint's port?"""
        cluster = self.place.cluster
        destination = end is packet.destination
        if isinstance(end, DomainName):
            return Doubt(f"which addresses {end} resolves to", unseen=False)
        ips = _ips(packet, end, version)
        own = (end.namespace, end.name) if isinstance(end, Pod) and end.cluster == cluster.name else None
        slices, service = cluster.slices.get(key, ()), cluster.services.get(key)
        if not slices and service is not None and service.selector:
            if own is None or own[0] != service.namespace or not isinstance(end, Pod):
                return False
            if any(end.labels.get(k) != v for k, v in service.selector.items()):
                return False
            if not destination:
                return True
            numbers = [
                number
                for p in service.ports
                if p.protocol == packet.protocol
                for number in (
                    [p.target]
                    if isinstance(p.target, int)
                    else [named.port for named in end.named_ports(p.target, p.protocol)]
                )
            ]
            if packet.port is None and numbers:
                return Doubt("which port is used", unseen=False)
            return packet.port in numbers
        if not slices:
            return Doubt(f"the endpoints of Service {key[0]}/{key[1]} are not known")
        found: Match = False
        for each in slices:
            if not any(e.ip in ips if ips else own is not None and e.target == own for e in each.endpoints):
                continue
            if not destination:
                return True
            there = [number for _, number, protocol in each.ports if protocol == packet.protocol]
            if packet.port is None and there:
                found = either(found, Doubt("which port is used", unseen=False))
            else:
                found = either(found, packet.port in there or None in there)
        return found


# --- compiling -----------------------------------------------------------------------------------------------------


def _objects(cluster: Cluster, kind: str) -> Iterator[Object]:
    """The objects of a kind in both API groups; one that both show counts once, as Calico's own API shows it."""
    seen: set[tuple[str, str]] = set()
    for group in GROUPS:
        for obj in cluster.of(group, kind):
            key = obj.ref.namespace, obj.ref.name.removeprefix("default.")
            if key not in seen:
                seen.add(key)
                yield obj


def _shown(obj: Object, plain: frozenset[tuple[str, str]], admin: frozenset[str]) -> bool:
    """Calico's API also shows Kubernetes' own policies under its kinds; those are read where they come from."""
    name = obj.ref.name
    if name.startswith(KUBERNETES_PREFIX):
        return (obj.ref.namespace, name.removeprefix(KUBERNETES_PREFIX)) in plain
    if name.startswith(("kanp.", "kbanp.", "kcnp.")):
        return name.split(".", 2)[-1] in admin
    return False


def compile_cluster(index: Index, cluster: str, earlier: Mapping[str, Compiled]) -> Calico:
    world = index.world.clusters[cluster]
    plain, admin = earlier.get("kubernetes"), earlier.get("admin")
    before = earlier.get(LAYER)
    if isinstance(before, Calico) and before.place.index is index and before.place.cluster is world:
        # Only what others compiled has changed: what was read here stands.
        return replace(before, plain=plain if isinstance(plain, Kubernetes) else None, lines={})
    refusals: list[Refusal] = []

    def each(kind: str, make: Callable[[Object], Any], *, fatal: bool = True) -> list[Any]:
        made = []
        for obj in _objects(world, kind):
            try:
                made.append(make(obj))
            except Refused as refused:
                refusals.append(Refusal(obj.ref, refused.pointer, refused.why, fatal))
        return made

    accounts = {(o.ref.namespace, o.ref.name): o.labels for o in world.of("", "ServiceAccount")}
    place = _Place(index, world, accounts, index.cluster(cluster) & ~index.host_network())
    place.sets = tuple(each(SET, _address_set) + each(GLOBAL_SET, _address_set))
    place.hosts = tuple(each(HOST, _host))
    tiers = {tier.name: tier for tier in (*BUILT_IN, *each(TIER, _tier, fatal=False))}

    of_admin = frozenset(
        o.ref.name
        for kind in ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
        for o in world.of("policy.networking.k8s.io", kind)
    )
    own = frozenset((o.ref.namespace, o.ref.name) for o in world.of(*kubernetes.KIND))
    policies: dict[str, list[Policy]] = {}
    for kind, namespaced in ((POLICY, True), (GLOBAL_POLICY, False)):
        for obj in _objects(world, kind):
            if _shown(obj, own, of_admin):
                continue
            try:
                policy = read(obj, place, namespaced)
            except Refused as refused:
                refusals.append(Refusal(obj.ref, refused.pointer, refused.why))
                continue
            if policy.tier not in tiers:
                tiers[policy.tier] = Tier(policy.tier, -inf, "Deny", known=False)
            if not tiers[policy.tier].known:
                refusals.append(Refusal(obj.ref, "/spec/tier", f"no Tier {policy.tier} was given", fatal=False))
            policies.setdefault(policy.tier, []).append(policy)
    for found in policies.values():
        found.sort(key=lambda p: p.place)
    staged: list[Policy | kubernetes.Policy] = [
        *each(STAGED, lambda o: read(o, place, namespaced=True, staged=True)),
        *each(GLOBAL_STAGED, lambda o: read(o, place, namespaced=False, staged=True)),
        *each(KUBERNETES_STAGED, lambda o: _staged_kubernetes(o, index)),
    ]
    felix = [o for group in GROUPS for o in world.of(group, "FelixConfiguration")]
    told = any("failsafe" in key.lower() for o in felix for key in _spec(o))
    return Calico(
        place,
        plain if isinstance(plain, Kubernetes) else None,
        admin if isinstance(admin, Tiered) and of_admin else None,
        tuple(sorted(tiers.values(), key=lambda t: (t.order, t.name))),
        {(name, d): tuple(p for p in found if p.side(d)) for name, found in policies.items() for d in Direction},
        tuple(staged),
        {name: tuple(h for h in place.hosts if h.node == name) for name in {h.node for h in place.hosts}},
        told,
        tuple(refusals),
    )


def _spec(obj: Object) -> Mapping[str, Any]:
    spec = obj.raw.get("spec")
    return spec if isinstance(spec, dict) else {}


def _staged_kubernetes(obj: Object, index: Index) -> kubernetes.Policy:
    whole = Field(obj.raw)
    _version(whole)
    whole["spec"]["stagedAction"].choice(("Set", "Delete", "Learn", "Ignore"), "Set")
    spec = {k: v for k, v in whole["spec"].mapping().items() if k != "stagedAction"}
    return kubernetes.read(Object(obj.ref, {**obj.raw, "apiVersion": "networking.k8s.io/v1", "spec": spec}), index)


FAMILY = Family(
    LAYER,
    frozenset(
        {
            (group, kind)
            for group in GROUPS
            for kind in (
                POLICY,
                GLOBAL_POLICY,
                TIER,
                SET,
                GLOBAL_SET,
                HOST,
                STAGED,
                GLOBAL_STAGED,
                KUBERNETES_STAGED,
            )
        }
    ),
    compile_cluster,
)
