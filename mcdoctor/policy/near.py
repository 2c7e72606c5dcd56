"""Near misses: the rule that was probably meant, and the one thing that keeps it from matching."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mcdoctor.policy import cilium, kubernetes
from mcdoctor.policy.cilium import Cilium
from mcdoctor.policy.cilium_identity import POD_NAMESPACE, Term
from mcdoctor.policy.cilium_identity import holds as term_holds
from mcdoctor.policy.family import Compiled
from mcdoctor.policy.kubernetes import BlockPeer, Kubernetes, PodPeer, Rule
from mcdoctor.policy.ports import NamedPort, PortRange
from mcdoctor.policy.question import Packet
from mcdoctor.policy.selectors import Selector, holds
from mcdoctor.policy.verdict import Direction, Ref
from mcdoctor.policy.world import METADATA_NAME, DomainName, Namespace, Node, Outside, Pod, World


@dataclass(frozen=True, slots=True)
class NearMiss:
    """`gap` is how many things keep the rule from matching; 1 = change this and it does."""

    ref: Ref
    pointer: str
    direction: Direction
    why: str
    gap: int


def near_misses(world: World, family: Compiled | None, packet: Packet, limit: int = 3) -> tuple[NearMiss, ...]:
    """The rules that come closest to admitting a refused packet, closest first."""
    match family:
        case Kubernetes():
            found = [miss for policy in family.selecting(packet) for miss in _of_policy(world, family, policy, packet)]
        case Cilium():
            found = list(_of_cilium(family, packet))
        case _:
            return ()
    found.sort(key=lambda miss: (miss.gap, miss.ref.name, miss.pointer))
    if found:
        closest = found[0].gap
        found = [miss for miss in found if miss.gap == closest]
    return tuple(found[:limit]) if found and found[0].gap <= 2 else ()


def _of_policy(world: World, family: Kubernetes, policy: kubernetes.Policy, packet: Packet) -> Iterator[NearMiss]:
    side = policy.side(packet.direction)
    for rule in side.rules if side else ():
        port_gap = _port_gap(rule, packet)
        if rule.peers is None:
            if port_gap:
                yield NearMiss(policy.ref, rule.pointer, packet.direction, port_gap, 1)
            continue
        for peer in rule.peers:
            reasons = _peer_gaps(world, family, policy, peer, packet)
            if reasons is None:
                continue
            gaps = [*reasons, port_gap] if port_gap else reasons
            if gaps:
                yield NearMiss(policy.ref, peer.pointer, packet.direction, "; ".join(gaps), len(gaps))


def _port_gap(rule: Rule, packet: Packet) -> str:
    """Why the rule's ports leave the packet out, or ''."""
    if kubernetes.ports_match(rule, packet) is not False or rule.ports is None:
        return ""
    asked = f"{packet.protocol} {packet.port}" if packet.port is not None else packet.protocol
    offered = ", ".join(_port_text(port) for port in rule.ports)
    service = packet.service
    for port in rule.ports:
        match port:
            case PortRange() if (
                port.protocol != packet.protocol and packet.port and port.low <= packet.port <= port.high
            ):
                return f"the rule is for {port.protocol}, the traffic is {packet.protocol}"
            case PortRange() if service is not None and any(
                p.port == port.low == port.high and p.target != p.port for p in service.ports
            ):
                return f"the rule names the Service's port {port.low}; policies see the pod's port {packet.port}"
            case NamedPort():
                end = packet.destination
                if isinstance(end, Pod) and not end.named_ports(port.name, None):
                    return f"{end} has no container port named {port.name}"
                if not isinstance(end, Pod):
                    return f"the port name {port.name} cannot be resolved for {end}, which is no pod here"
            case _:
                pass
    return f"the rule covers {offered}, the traffic is {asked}"


def _port_text(port: kubernetes.Port) -> str:
    match port:
        case NamedPort():
            return f"{port.protocol} {port.name}"
        case PortRange():
            if port.low == port.high:
                return f"{port.protocol} {port.low}"
            return f"{port.protocol}" if port.high - port.low == 65534 else f"{port.protocol} {port.low}-{port.high}"


def _peer_gaps(
    world: World, family: Kubernetes, policy: kubernetes.Policy, peer: kubernetes.Peer, packet: Packet
) -> list[str] | None:
    """What keeps a peer item from matching ([] when it matches); None when it is of another sort altogether."""
    end = packet.peer
    match peer:
        case BlockPeer():
            ips = packet.ips(end)
            if not ips:
                return None
            for ip in ips:
                if ip in peer.block:
                    hole = next((block for block in peer.excepts if ip in block), None)
                    if hole is not None:
                        return [f"{ip} is in {peer.block} but excepted by {hole}"]
                    if isinstance(end, Pod) and family.datapath.ipblock_covers_pods is False:
                        return [f"{ip} is in {peer.block}, but on {family.datapath.cni} an ipBlock never matches pods"]
                    return []
            return [f"{ips[0]} is not in {peer.block}"]
        case PodPeer():
            return _selector_gaps(world, policy, peer, end, packet)


def _selector_gaps(
    world: World, policy: kubernetes.Policy, peer: PodPeer, end: Pod | Node | Outside | DomainName, packet: Packet
) -> list[str] | None:
    if isinstance(end, (Outside, DomainName)):
        client = packet.client
        remote = client is not None and packet.direction is Direction.INGRESS and client.cluster != packet.cluster
        if client is not None and remote and not _gaps(world, policy, peer, client):
            where = f"{client} is in cluster {client.cluster} and arrives as {end}"
            return [f"the selectors fit, but {where}: selectors never match remote pods"]
        return None
    if isinstance(end, Node):
        return None
    if end.host_network:
        if _gaps(world, policy, peer, end) == []:
            return [f"the selectors fit {end}, but it is on the host network and counts as its node"]
        return None
    return _gaps(world, policy, peer, end)


def _gaps(world: World, policy: kubernetes.Policy, peer: PodPeer, end: Pod) -> list[str]:
    gaps = []
    if peer.namespaces is None:
        if end.namespace != policy.ref.namespace:
            own = policy.ref.namespace
            gaps.append(f"a podSelector alone means namespace {own}, {end.name} is in {end.namespace}")
    else:
        namespace = world.clusters[end.cluster].namespaces[end.namespace]
        gaps += _failing(peer.namespaces, namespace)
    gaps += [
        f"{end} has no label {requirement}" if requirement.key not in end.labels else
        f"{end} has {requirement.key}={end.labels[requirement.key]}, the rule wants {requirement}"
        for requirement in peer.pods or ()
        if not holds(requirement, end.labels)
    ]  # fmt: skip
    return gaps


def _failing(selector: Selector, namespace: Namespace) -> list[str]:
    found = []
    for requirement in selector:
        if holds(requirement, namespace.labels):
            continue
        hint = ""
        if requirement.key == "name" and requirement.values == (namespace.name,):
            hint = f"; {METADATA_NAME}={namespace.name} would match"
        found.append(f"namespace {namespace.name} has no label {requirement}{hint}")
    return found


# --- Cilium's own kinds --------------------------------------------------------------------------------------------


def _of_cilium(family: Cilium, packet: Packet) -> Iterator[NearMiss]:
    for policy, _ in family.selecting(packet.subject):
        side = policy.sides.get(packet.direction)
        if side is None or policy.ref.kind == "NetworkPolicy":
            continue
        for rule in side.allows:
            ports = ""
            if rule.ports is not None and family.covers(rule.ports, packet)[0] is False:
                ports = _cilium_ports(rule.ports, packet)
            if rule.ports is None and rule.peers == ():
                why = "an empty rule of Cilium allows nothing (fromEntities or toEntities: [all] allows everything)"
                yield NearMiss(policy.ref, rule.pointer, packet.direction, why, 1)
            elif rule.peers is None and ports:
                yield NearMiss(policy.ref, rule.pointer, packet.direction, ports, 1)
            for peer in rule.peers or ():
                gaps = _cilium_gaps(family, peer, packet)
                if gaps is not None and (gaps or ports):
                    gaps = [*gaps, ports] if ports else gaps
                    yield NearMiss(policy.ref, peer.pointer, packet.direction, "; ".join(gaps), len(gaps))


def _cilium_ports(rules: tuple[cilium.PortRule, ...], packet: Packet) -> str:
    """Why port rules leave a packet out."""
    offered = []
    for item in (item for rule in rules for item in rule.items):
        match item:
            case cilium.Ports():
                if packet.service is not None and any(
                    p.port == item.low == item.high and p.target != p.port for p in packet.service.ports
                ):
                    return f"the rule names the Service's port {item.low}; policies see the pod's port {packet.port}"
                numbers = "" if not item.low else f" {item.low}" + (f"-{item.high}" if item.high > item.low else "")
                offered.append(("/".join(item.protocols) or "any protocol") + numbers)
            case cilium.PortName():
                offered.append(f"the port named {item.name}")
            case cilium.IcmpType():
                offered.append(f"ICMPv{item.family} type {item.type}")
    asked = f"{packet.protocol} {packet.port}" if packet.port is not None else packet.protocol
    return f"the rule covers {', '.join(offered) or 'no port'}, the traffic is {asked}, or its request is another"


def _cilium_gaps(family: Cilium, peer: cilium.Peer, packet: Packet) -> list[str] | None:
    """What keeps a peer item from matching ([] when it may match); None when it is of another sort altogether."""
    if family.matches(peer, packet) is not False:
        return []
    end = packet.peer
    match peer:
        case cilium.LabelPeer() if isinstance(end, Pod) and not end.host_network:
            identity = family.identity(end)
            failing = [t for t in peer.terms if term_holds(t, identity, family.names) is False]
            if not failing and end.cluster != family.cluster:
                return [
                    f"the selector fits {end}, but without io.cilium.k8s.policy.cluster it means this cluster only "
                    "(policy-default-local-cluster)"
                ]
            return [_failing_term(t, end, identity.labels.get(t.key)) for t in failing]
        case cilium.LabelPeer() if isinstance(end, Pod):
            return [f"{end} is on the host network: Cilium knows it as its node, never by its labels"]
        case cilium.BlockPeer():
            inside = next((ip for ip in packet.ips(end) if any(ip in b for b in peer.blocks)), None)
            if inside is None or isinstance(end, DomainName):
                return None
            if isinstance(end, Outside):
                return [f"{inside} is excepted"]
            what = "nodes (policy-cidr-match-mode)" if isinstance(end, Node) or end.host_network else "managed pods"
            return [f"{inside} is inside, but CIDR rules of Cilium do not match {what}"]
        case cilium.EntityPeer(entity="cluster") if isinstance(end, Pod) and end.cluster != family.cluster:
            return [f"the entity cluster is the local cluster only, {end} is in {end.cluster}"]
        case _:
            return None


def _failing_term(term: Term, end: Pod, found: tuple[str, str] | None) -> str:
    if term.names(POD_NAMESPACE) and len(term.values) == 1:
        return f"the selector means namespace {term.values[0]}, {end.name} is in {end.namespace}"
    wanted = f"{term.key} {term.operator} {', '.join(term.values)}".strip()
    has = f"{term.key}={found[1]}" if found is not None else f"no label {term.key} that Cilium counts"
    return f"{end} has {has}, the rule wants {wanted}"
