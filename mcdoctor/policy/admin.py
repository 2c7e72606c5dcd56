"""AdminNetworkPolicy, BaselineAdminNetworkPolicy (v1alpha1) and ClusterNetworkPolicy (v1alpha2): cluster-wide tiers.

Sources: kubernetes-sigs/network-policy-api `apis/v1alpha1/*_types.go`, `apis/v1alpha2/clusternetworkpolicy_types.go`,
`site-src/api-overview.md`.

The admin tier comes before NetworkPolicy, the baseline tier after it and only for pods that no NetworkPolicy
isolates. Inside a
tier the lower priority number comes first, then rule order; the first rule that matches decides; nothing is denied by
default. Pass leaves the tier. Two policies of one priority that match with different actions are undefined: unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from mcdoctor.policy.addresses import Block, parse_block
from mcdoctor.policy.cilium_identity import read_config
from mcdoctor.policy.family import Compiled, Family
from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.index import Chosen, Index
from mcdoctor.policy.ports import TRANSPORTS, NamedPort, PortRange
from mcdoctor.policy.question import Packet
from mcdoctor.policy.selectors import Selector, matches, parse
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
    first_match,
)
from mcdoctor.policy.world import Cluster, DomainName, Node, Object, Outside, Pod

GROUP = "policy.networking.k8s.io"
ADMIN, BASELINE, CLUSTER = "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"
LAYER = "admin"
_AFTER_ALL = 1001


@dataclass(frozen=True, slots=True)
class PodsPeer:
    """Classes of pods with a network of their own."""

    chosen: Chosen


@dataclass(frozen=True, slots=True)
class RelatedPeer:
    """Old v1alpha1: namespaces that share, or differ in, the values of these labels with the subject's namespace."""

    labels: tuple[str, ...]
    same: bool
    pods: Selector


@dataclass(frozen=True, slots=True)
class NodesPeer:
    nodes: Selector


@dataclass(frozen=True, slots=True)
class NetworksPeer:
    """Addresses of any sort, pods' included."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class NamesPeer:
    names: tuple[str, ...]


Peer: TypeAlias = PodsPeer | RelatedPeer | NodesPeer | NetworksPeer | NamesPeer
Port: TypeAlias = PortRange | NamedPort


@dataclass(frozen=True, slots=True)
class Rule:
    """`action` "allow", "deny" or "pass". `peers` with their pointers; `ports` None = everything, ICMP too.

    `closed`: a peer has no field known here: an allow matches nothing, anything else denies all.
    """

    action: str
    peers: tuple[tuple[Peer, str], ...]
    ports: tuple[Port, ...] | None
    pointer: str
    closed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    ref: Ref
    admin: bool
    priority: int
    subject: Chosen
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        return self.egress if direction is Direction.EGRESS else self.ingress


# --- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reader:
    index: Index
    cluster: str
    kind: str

    @property
    def second(self) -> bool:
        """v1alpha2."""
        return self.kind == CLUSTER

    def pods(self, namespaces: Selector, pods: Selector) -> Chosen:
        chosen = self.index.in_namespaces(self.cluster, namespaces)
        those = self.index.pods(self.cluster, pods) & ~self.index.host_network()
        return Chosen(chosen.bits & those, chosen.maybe & those)

    def namespaced(self, field: Field) -> Chosen:
        # The CRD of v1alpha2 leaves namespaceSelector out of what is required: then all namespaces are meant.
        for name in ("podSelector",) if self.second else ("namespaceSelector", "podSelector"):
            if not field[name].present:
                raise Refused(field[name].pointer, "required value")
        return self.pods(parse(field["namespaceSelector"]), parse(field["podSelector"]))

    def subject(self, field: Field) -> Chosen:
        one_of(field, ("namespaces", "pods"))
        if field["namespaces"].present:
            return self.pods(parse(field["namespaces"]), ())
        return self.namespaced(field["pods"])

    def peer(self, field: Field, egress: bool, action: str) -> Peer | None:
        """None: no field known to this reader."""
        outside = ("nodes", "networks") if self.kind == BASELINE else ("nodes", "networks", "domainNames")
        known = ("namespaces", "pods", *(outside if egress else ()))
        members = field.mapping()
        if not members:
            raise Refused(field.pointer, "must have exactly one field")
        if not any(name in members for name in known):
            return None
        one_of(field, known)
        namespaces, pods = field["namespaces"], field["pods"]
        if namespaces.present:
            return self.namespaces_peer(namespaces, ())
        if pods.present:
            if pods["namespaces"].present:
                return self.namespaces_peer(pods["namespaces"], parse(pods["podSelector"]))
            return PodsPeer(self.namespaced(pods))
        if field["nodes"].present:
            return NodesPeer(parse(field["nodes"]))
        if field["networks"].present:
            return NetworksPeer(tuple(_block(item) for item in at_least_one(field["networks"])))
        if action != "allow":
            raise Refused(field["domainNames"].pointer, "only rules that allow may name domains")
        return NamesPeer(tuple(_domain(item) for item in at_least_one(field["domainNames"])))

    def namespaces_peer(self, field: Field, pods: Selector) -> Peer:
        for name, same in (("sameLabels", True), ("notSameLabels", False)):
            if field[name].present:
                return RelatedPeer(field[name].texts(), same, pods)
        inner = field["namespaceSelector"]
        return PodsPeer(self.pods(parse(inner if inner.present else field), pods))

    def ports(self, field: Field, egress: bool, peers: Sequence[tuple[Peer, str]]) -> tuple[Port, ...] | None:
        if not field.present:
            return None
        found: list[Port] = []
        for item in at_least_one(field):
            port = _protocol(item) if self.second else _port(item)
            named = isinstance(port, NamedPort)
            if named and egress and any(not isinstance(p, (PodsPeer, RelatedPeer)) for p, _ in peers):
                raise Refused(item.pointer, "networks, nodes and domains have no named ports")
            found.append(port)
        return tuple(found)

    def rules(self, field: Field, egress: bool) -> tuple[Rule, ...]:
        allow = "Accept" if self.second else "Allow"
        actions = (allow, "Deny") if self.kind == BASELINE else (allow, "Deny", "Pass")
        found = []
        for item in field.items():
            action = {"Deny": "deny", "Pass": "pass"}.get(item["action"].choice(actions), "allow")
            peers: list[tuple[Peer, str]] = []
            closed = False
            for each in at_least_one(item["to" if egress else "from"]):
                peer = self.peer(each, egress, action)
                if peer is None:
                    closed = True
                else:
                    peers.append((peer, each.pointer))
            ports = self.ports(item["protocols" if self.second else "ports"], egress, peers)
            found.append(Rule(action, tuple(peers), ports, item.pointer, closed))
        if len(found) > (25 if self.second else 100):
            raise Refused(field.pointer, "too many rules")
        return tuple(found)


def one_of(field: Field, names: Sequence[str]) -> None:
    given = [name for name in names if field[name].present]
    if len(given) != 1:
        raise Refused(field.pointer, f"exactly one of {', '.join(names)} must be set")


def at_least_one(field: Field) -> tuple[Field, ...]:
    found = tuple(field.items())
    if not found:
        raise Refused(field.pointer, "must have at least one item" if field.present else "required value")
    return found


def _block(field: Field) -> Block:
    try:
        return parse_block(field.text())
    except ValueError:
        raise Refused(field.pointer, f"{field.value!r} is not a valid CIDR") from None


_LABEL = r"[a-z0-9]([-a-z0-9_]*[a-z0-9])?"
_DOMAIN = re.compile(rf"(\*\.)?({_LABEL}\.)+{_LABEL}\.?\Z", re.IGNORECASE)


def _domain(field: Field) -> str:
    name = field.text()
    if len(name) > 255 or not _DOMAIN.match(name):
        raise Refused(field.pointer, f"{field.value!r} is neither a domain name nor *.domain")
    return name.rstrip(".").lower()


def _number(field: Field) -> int:
    number = field.integer()
    if not 1 <= number <= 65535:
        raise Refused(field.pointer, f"{number} is not between 1 and 65535")
    return number


def _range(field: Field, protocol: str, *, proper: bool = False) -> PortRange:
    """`proper`: a range of one port is none (v1alpha2)."""
    low, high = _number(field["start"]), _number(field["end"])
    if low > high or (proper and low == high):
        raise Refused(field["end"].pointer, "must be above `start`" if proper else "must not be below `start`")
    return PortRange(protocol, low, high)


def _port(field: Field) -> Port:
    """v1alpha1: portNumber, portRange or namedPort."""
    one_of(field, ("portNumber", "portRange", "namedPort"))
    if field["namedPort"].present:
        return NamedPort(None, field["namedPort"].text())
    single, many = field["portNumber"], field["portRange"]
    if single.present:
        number = _number(single["port"])
        return PortRange(single["protocol"].choice(TRANSPORTS, "TCP"), number, number)
    return _range(many, many["protocol"].choice(TRANSPORTS, "TCP"))


def _protocol(field: Field) -> Port:
    """v1alpha2: tcp, udp or sctp with an optional destinationPort, or destinationNamedPort."""
    one_of(field, ("tcp", "udp", "sctp", "destinationNamedPort"))
    if field["destinationNamedPort"].present:
        return NamedPort(None, field["destinationNamedPort"].text())
    name = next(n for n in ("tcp", "udp", "sctp") if field[n].present)
    port = field[name]["destinationPort"]
    if not port.present:
        return PortRange(name.upper())
    one_of(port, ("number", "range"))
    if port["range"].present:
        return _range(port["range"], name.upper(), proper=True)
    number = _number(port["number"])
    return PortRange(name.upper(), number, number)


def read(obj: Object, index: Index) -> Policy:
    """Parse and compile one object of the three kinds. Raises Refused."""
    whole = Field(obj.raw)
    kind = obj.ref.kind
    version = "v1alpha2" if kind == CLUSTER else "v1alpha1"
    served = (f"{GROUP}/{version}", f"{GROUP}/v1beta1") if kind == CLUSTER else (f"{GROUP}/{version}",)
    if whole["apiVersion"].value not in served:
        raise Refused("/apiVersion", f"no kind {kind} in {whole['apiVersion'].value!r}")
    if kind == BASELINE and obj.ref.name != "default":
        raise Refused("/metadata/name", "the only BaselineAdminNetworkPolicy is called default")
    spec = whole["spec"]
    reader = _Reader(index, obj.ref.cluster, kind)
    admin = kind == ADMIN or (kind == CLUSTER and spec["tier"].choice(("Admin", "Baseline")) == "Admin")
    priority = _AFTER_ALL
    if kind != BASELINE:
        priority = spec["priority"].integer()
        if not 0 <= priority <= 1000:
            raise Refused(spec["priority"].pointer, f"{priority} is not between 0 and 1000")
    if not spec["subject"].present:
        raise Refused(spec["subject"].pointer, "required value")
    return Policy(
        obj.ref,
        admin,
        priority,
        reader.subject(spec["subject"]),
        reader.rules(spec["ingress"], False),
        reader.rules(spec["egress"], True),
    )


# --- matching ------------------------------------------------------------------------------------------------------


def _open_namespace(pod: Pod) -> Doubt:
    return Doubt(f"the labels of namespace {pod.namespace} are not known (no Namespace object was given)")


def _port_match(port: Port, packet: Packet) -> Match:
    if packet.protocol not in TRANSPORTS or port.protocol not in (None, packet.protocol):
        return False
    match port:
        case PortRange():
            if packet.port is None and (port.low > 1 or port.high < 65535):
                return Doubt("which port is used", unseen=False)
            return packet.port is None or port.low <= packet.port <= port.high
        case NamedPort():
            end = packet.destination
            numbers = [p.port for p in end.named_ports(port.name, packet.protocol)] if isinstance(end, Pod) else []
            if numbers and packet.port is None:
                return Doubt("which port is used", unseen=False)
            return packet.port in numbers


@dataclass(frozen=True, slots=True, eq=False)
class Admin:
    """The three kinds of one cluster, each tier sorted by priority. `enforce` is not asked: the tiers are, by
    `layers`.
    """

    index: Index
    cluster: str
    tiers: tuple[tuple[Policy, ...], tuple[Policy, ...]]
    refusals: tuple[Refusal, ...]

    def admin(self, packet: Packet) -> Ruling:
        return self._tier(self.tiers[0], packet)

    def baseline(self, packet: Packet) -> Ruling:
        return self._tier(self.tiers[1], packet)

    def enforce(self, packet: Packet) -> Ruling:
        return SILENT

    def _tier(self, policies: tuple[Policy, ...], packet: Packet) -> Ruling:
        if not policies:
            return SILENT
        subject = packet.subject
        if not isinstance(subject, Pod) or subject.host_network or subject.cluster != self.cluster:
            return SILENT
        peer = packet.peer
        if isinstance(peer, Pod) and peer.key == subject.key and packet.service is None:
            return SILENT  # a pod's own address is not subject; through a Service it is
        number = self.index.class_of[subject]
        selecting = [p for p in policies if (p.subject.bits | p.subject.maybe) >> number & 1]
        rules: list[tuple[Match, Branch]] = []
        trace: list[Step] = []
        for _, group in groupby(selecting, key=lambda p: p.priority):
            rules += self._priority(list(group), number, packet, trace)
        return first_match(rules, Branch(Effect.NEXT), trace)

    def _priority(
        self, policies: Sequence[Policy], number: int, packet: Packet, trace: list[Step]
    ) -> Iterator[tuple[Match, Branch]]:
        """The rules of policies of one priority, in order; where several match and differ, each only perhaps."""
        matched: list[list[tuple[Match, Branch]]] = []
        for policy in policies:
            found = list(self._rules(policy, number, packet))
            matched.append(found)
            told = f"{found[0][1].by[0].effect} by {found[0][1].by[0].pointer}" if found else "no rule matches"
            trace.append(
                Step(LAYER, f"{policy.ref} (priority {policy.priority}) selects {packet.subject}; {told}", policy.ref)
            )
        deciding = [found for found in matched if found]
        effects = {branch.by[0].effect for found in deciding for _, branch in found}
        if len(deciding) < 2 or len(effects) == 1:
            for found in deciding:
                yield from found
            return
        names = ", ".join(str(found[0][1].by[0].ref) for found in deciding)
        undefined = Doubt(f"{names} have one priority and differ: which one applies is undefined")
        for found in deciding[:-1]:
            for match, branch in found:
                yield both(match, undefined), branch
        yield from deciding[-1]

    def _rules(self, policy: Policy, number: int, packet: Packet) -> Iterator[tuple[Match, Branch]]:
        selected: Match = True
        if not policy.subject.bits >> number & 1:
            assert isinstance(packet.subject, Pod)
            selected = _open_namespace(packet.subject)
        for rule in policy.rules(packet.direction):
            action, match, pointer = rule.action, self._matches(rule, packet), rule.pointer
            if rule.closed:
                if action == "allow":
                    continue
                action, match = "deny", (True, rule.pointer)
            pointer = match[1]
            outcome = both(selected, match[0])
            if outcome is False:
                continue
            deciding = Deciding(policy.ref, pointer, packet.direction, action)
            effect = {"allow": Effect.ALLOW, "deny": Effect.DENY, "pass": Effect.NEXT}[action]
            verb = {"allow": "allows it", "deny": "denies it", "pass": "passes it on"}[action]
            yield outcome, Branch(effect, (deciding,), f"{policy.ref} {verb}")
            if outcome is True:
                return

    def _matches(self, rule: Rule, packet: Packet) -> tuple[Match, str]:
        covered: Match = rule.ports is None
        for port in rule.ports or ():
            covered = either(covered, _port_match(port, packet))
        if covered is False:
            return False, rule.pointer
        found: Match = False
        where = rule.pointer
        for peer, pointer in rule.peers:
            match = both(covered, self._peer(peer, packet))
            if match is True:
                return True, pointer
            if found is False and match is not False:
                found, where = match, pointer
        return found, where

    def _peer(self, peer: Peer, packet: Packet) -> Match:
        end = packet.peer
        match peer:
            case PodsPeer():
                if not isinstance(end, Pod) or end.host_network or end.cluster != self.cluster:
                    return False
                number = self.index.class_of[end]
                if peer.chosen.bits >> number & 1:
                    return True
                return _open_namespace(end) if peer.chosen.maybe >> number & 1 else False
            case RelatedPeer():
                return self._related(peer, packet)
            case NodesPeer():
                return self._nodes(peer, packet)
            case NetworksPeer():
                if isinstance(end, DomainName):
                    whole = any(block.prefix == 0 for block in peer.blocks)
                    return True if whole else Doubt(f"which addresses {end} resolves to", unseen=False)
                ips = packet.ips(end)
                if not ips:
                    return Doubt(f"the address of {end} is not known")
                inside = [any(ip in block for block in peer.blocks) for ip in ips]
                if any(inside) and not all(inside) and len({ip.version for ip in ips}) > 1:
                    return Doubt(f"which address of {end} is used", unseen=False)
                return any(inside)
            case NamesPeer():
                return _names(peer, end)

    def _related(self, peer: RelatedPeer, packet: Packet) -> Match:
        end, subject = packet.peer, packet.subject
        if not isinstance(end, Pod) or not isinstance(subject, Pod) or end.host_network or end.cluster != self.cluster:
            return False
        namespaces = self.index.world.clusters[self.cluster].namespaces
        there, here = namespaces[end.namespace], namespaces[subject.namespace]
        if not matches(peer.pods, end.labels) or not peer.labels:
            return False
        for namespace, pod in ((there, end), (here, subject)):
            if not namespace.known:
                return _open_namespace(pod)
        if any(key not in there.labels for key in peer.labels):
            return False
        equal = all(there.labels[key] == here.labels.get(key) for key in peer.labels)
        return equal if peer.same else not equal

    def _nodes(self, peer: NodesPeer, packet: Packet) -> Match:
        """By the addresses of the nodes, so a host-network pod counts as its node."""
        nodes = self.index.world.clusters[self.cluster].nodes
        end = packet.peer
        if isinstance(end, Node):
            return matches(peer.nodes, nodes[end.name].labels) if end.name in nodes else not peer.nodes
        if isinstance(end, Pod) and end.host_network and end.cluster == self.cluster:
            if end.node in nodes:
                return matches(peer.nodes, nodes[end.node].labels)
            return True if not peer.nodes else Doubt(f"the labels of node {end.node} are not known")
        if isinstance(end, Outside):
            return any(end.ip in node.ips and matches(peer.nodes, node.labels) for node in nodes.values())
        return False


def _names(peer: NamesPeer, end: Pod | Node | Outside | DomainName) -> Match:
    match end:
        case DomainName():
            return any(
                end.name.endswith(name[1:]) if name.startswith("*.") else end.name == name for name in peer.names
            )
        case Outside():
            return Doubt(f"whether {end} is an address of {', '.join(peer.names)}")
        case _:
            return False


def unenforced(world: Cluster, kind: str) -> str:
    """Why the plugin is known to do nothing with objects of a kind; '' where it does, or is not known not to.

    Cilium knows ClusterNetworkPolicy since 1.20 (`enable-k8s-cluster-network-policy`) and never knew v1alpha1.
    """
    if not world.datapath.enforces_network_policy:
        return f"{world.datapath.cni} enforces no policies"
    config = read_config(world)
    if world.datapath.systems != ("cilium",) or config.version is None:
        return ""
    if kind == CLUSTER and config.version >= (1, 20) and (config.ref is None or config.cluster_network_policies):
        return ""
    return f"Cilium {'.'.join(map(str, config.version))} does not enforce this kind here"


def compile_cluster(index: Index, cluster: str, earlier: Mapping[str, Compiled]) -> Admin:
    world = index.world.clusters[cluster]
    policies: list[Policy] = []
    refusals: list[Refusal] = []
    for kind in (ADMIN, BASELINE, CLUSTER):
        objects = world.of(GROUP, kind)
        why = unenforced(world, kind) if objects else ""
        for obj in objects:
            if why:
                refusals.append(Refusal(obj.ref, "/kind", why))
                continue
            try:
                policies.append(read(obj, index))
            except Refused as refused:
                refusals.append(Refusal(obj.ref, refused.pointer, refused.why))
    policies.sort(key=lambda p: (p.priority, p.ref.kind, p.ref.name))
    admin = tuple(p for p in policies if p.admin)
    baseline = tuple(p for p in policies if not p.admin)
    return Admin(index, cluster, (admin, baseline), tuple(refusals))


FAMILY = Family("admin", frozenset({(GROUP, ADMIN), (GROUP, BASELINE), (GROUP, CLUSTER)}), compile_cluster)
