"""What keeps a rule of a NetworkPolicy from matching."""

from __future__ import annotations

from collections.abc import Iterator

from mcdoctor.policy.family import Compiled
from mcdoctor.policy.kubernetes import BlockPeer, Kubernetes, Peer, PodPeer, Policy, Rule, ports_match
from mcdoctor.policy.near.conditions import (
    Candidate,
    Condition,
    Edit,
    Fails,
    Path,
    Raw,
    address,
    append,
    at,
    hidden,
    items,
    joined,
    mapping,
    outside,
    path_in,
    peer_ip,
    ports_text,
    selected,
    selector_fails,
)
from mcdoctor.policy.ports import TRANSPORTS
from mcdoctor.policy.question import Packet
from mcdoctor.policy.world import METADATA_NAME, DomainName, Object, Pod, World


def relevant(family: Compiled, packet: Packet) -> list[Object]:
    """The policies that isolate the packet's subject."""
    assert isinstance(family, Kubernetes)
    return [policy.object for policy in family.selecting(packet)]


def candidates(world: World, family: Compiled, packet: Packet) -> Iterator[Candidate]:
    """Every rule and every peer in it, of the policies that isolate the packet's subject."""
    assert isinstance(family, Kubernetes)
    for policy in family.selecting(packet):
        side, raw = policy.side(packet.direction), policy.object.raw
        for rule in side.rules if side else ():
            path = path_in(raw, rule.pointer)
            ports = _ports(raw, path, rule, packet)
            if rule.peers is None:
                yield Candidate(policy.ref, path, raw, tuple(ports[0]), ports[1])
            for peer in rule.peers or ():
                fails = _peer(world, family, policy, peer, packet)
                if fails is not None:
                    conditions, asked = joined(fails, ports)
                    yield Candidate(policy.ref, path_in(raw, peer.pointer), raw, tuple(conditions), asked)


def _ports(raw: Raw, path: Path, rule: Rule, packet: Packet) -> Fails:
    if rule.ports is None:
        return [], 0
    if ports_match(rule, packet) is not False:
        return [], 1
    place = (*path, "ports")
    edits: tuple[Edit, ...] = (Edit(place, gone=True),)
    if packet.protocol in TRANSPORTS:
        item = {"protocol": packet.protocol} | ({} if packet.port is None else {"port": packet.port})
        edits = append(raw, place, item)
    return [Condition(*ports_text(rule.ports, packet), edits)], 1


def _peer(world: World, family: Kubernetes, policy: Policy, peer: Peer, packet: Packet) -> Fails | None:
    """What fails of a peer item; None when it is of another sort altogether."""
    raw = policy.object.raw
    path = path_in(raw, peer.pointer)
    ip = peer_ip(packet)
    by_address = () if ip is None else (Edit(path, {"ipBlock": {"cidr": address(ip)}}),)
    match peer:
        case BlockPeer():
            return _block(family, raw, path, peer, packet)
        case PodPeer():
            return selected(
                packet, packet.peer, hidden(world, packet), by_address,
                lambda pod: _selectors(world, policy, raw, path, pod),
            )  # fmt: skip


def _block(family: Kubernetes, raw: Raw, path: Path, peer: BlockPeer, packet: Packet) -> Fails | None:
    end, ips = packet.peer, packet.ips(packet.peer)
    if not ips or isinstance(end, DomainName):
        return None
    managed = isinstance(end, Pod) and not end.host_network
    within = next((ip for ip in ips if ip in peer.block), None)
    if managed and family.datapath.ipblock_covers_pods is False:
        if within is None:
            return None
        assert isinstance(end, Pod)
        cni = family.datapath.cni
        known = {k: v for k, v in end.labels.items() if k in family.index.interest}
        peer_now = {
            "namespaceSelector": {"matchLabels": {METADATA_NAME: end.namespace}},
            "podSelector": {"matchLabels": known},
        }
        return [
            Condition(
                f"{within} is in {peer.block}, but on {cni} an ipBlock never matches pods",
                f"{within}은(는) {peer.block}에 속하지만 {cni}에서 ipBlock은 pod와 일치하지 않습니다",
                (Edit(path, peer_now),),
            )
        ], 1
    if within is None:
        edit = Edit((*path, "ipBlock"), {"cidr": address(ips[0])})
        return [Condition(*outside(str(ips[0]), str(peer.block)), (edit,))], 1
    holes = [n for n, block in enumerate(peer.excepts) if within in block]
    if holes:
        hole = peer.excepts[holes[0]]
        return [
            Condition(
                f"{within} is in {peer.block} but excepted by {hole}",
                f"{within}은(는) {peer.block}에 속하지만 except의 {hole}에서 제외됩니다",
                tuple(Edit((*path, "ipBlock", "except", n), gone=True) for n in holes),
            )
        ], 1
    return [], 1


def _selectors(world: World, policy: Policy, raw: Raw, path: Path, end: Pod) -> Fails:
    spaces, pods = (*path, "namespaceSelector"), (*path, "podSelector")
    fitting = selector_fails(raw, pods, end.labels, str(end))
    if at(raw, spaces) is None:
        home = policy.ref.namespace
        if end.namespace == home:
            return joined(fitting, ([], 1))
        en = f"a podSelector alone means namespace {home}, {end.name} is in {end.namespace}"
        ko = f"podSelector만 있으면 namespace {home}을(를) 뜻하고 {end.name}은(는) {end.namespace}에 있습니다"
        edit = Edit(spaces, {"matchLabels": {METADATA_NAME: end.namespace}})
        return joined(fitting, ([Condition(en, ko, (edit,))], 1))
    return joined(namespace_fails(world, raw, spaces, end), fitting)


def namespace_fails(world: World, raw: Raw, path: Path, end: Pod) -> Fails:
    """A namespace selector against the pod's namespace, with the usual mistake told."""
    namespace = world.clusters[end.cluster].namespaces[end.namespace]
    meant = mapping(raw, (*path, "matchLabels")).get("name") == namespace.name
    meant = meant or any(e.get("key") == "name" and namespace.name in items(e, ("values",)) for e in
                         items(raw, (*path, "matchExpressions")))  # fmt: skip
    own = f"{METADATA_NAME}={namespace.name}"
    hint = (
        (f"; {own} would match", f"; {own}은(는) 일치합니다") if meant and "name" not in namespace.labels else ("", "")
    )
    return selector_fails(raw, path, namespace.labels, f"namespace {namespace.name}", hint)
