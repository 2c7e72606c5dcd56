"""What keeps a rule of an AdminNetworkPolicy, BaselineAdminNetworkPolicy or ClusterNetworkPolicy from matching.

In these tiers the first rule that matches decides, so a rule may also come too late.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mcdoctor.policy.admin import ADMIN, BASELINE, CLUSTER, GROUP, Admin, Policy, Rule
from mcdoctor.policy.family import Compiled
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
    inside,
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
from mcdoctor.policy.near.kubernetes import namespace_fails
from mcdoctor.policy.ports import TRANSPORTS, NamedPort, PortRange
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Deciding, Decision, Direction
from mcdoctor.policy.world import METADATA_NAME, DomainName, Node, Object, Pod, World


def relevant(family: Compiled) -> list[Object]:
    assert isinstance(family, Admin)
    here = family.index.world.clusters[family.cluster]
    return [obj for kind in (ADMIN, BASELINE, CLUSTER) for obj in here.of(GROUP, kind)]


def candidates(family: Compiled, packet: Packet, decision: Decision) -> Iterator[Candidate]:
    """Every peer of every rule that allows or passes on, in the policies that select the packet's subject."""
    assert isinstance(family, Admin)
    subject, world = packet.subject, family.index.world
    if not isinstance(subject, Pod) or subject.host_network or subject.cluster != family.cluster:
        return
    number = family.index.class_of[subject]
    here = world.clusters[family.cluster]
    selecting = [p for tier in family.tiers for p in tier if p.subject.bits >> number & 1]
    raws = {o.ref: o.raw for p in selecting for o in here.of(GROUP, p.ref.kind) if o.ref == p.ref}
    refusing = [d for d in decision.by if not d.implicit and d.effect == "deny"]
    by_ref = {p.ref: p for p in selecting}
    for policy in selecting:
        raw = raws[policy.ref]
        for rule in policy.rules(packet.direction):
            if rule.action == "deny" or rule.closed:
                continue
            ports = _ports(raw, path_in(raw, rule.pointer), policy, rule, packet)
            for _, pointer in rule.peers:
                path = path_in(raw, pointer)
                fails = _peer(world, raw, path, packet)
                if fails is None:
                    continue
                conditions, asked = joined(fails, ports)
                if not conditions:
                    conditions = [c for d in refusing[:1] if (c := _late(policy, rule, raw, by_ref.get(d.ref), d))]
                    asked += 1
                yield Candidate(policy.ref, path, raw, tuple(conditions), asked)


def _late(policy: Policy, rule: Rule, raw: Raw, denying: Policy | None, by: Deciding) -> Condition | None:
    """The rule matches, but a rule that denies comes first."""
    if denying is None or denying.admin is not policy.admin:
        return None
    if denying.ref == policy.ref:
        section, number = path_in(raw, rule.pointer)[:-1], path_in(raw, rule.pointer)[-1]
        assert isinstance(number, int)
        listed = items(raw, section)
        first = path_in(raw, by.pointer)[len(section)]
        assert isinstance(first, int)
        moved = [*listed[:first], listed[number], *listed[first:number], *listed[number + 1 :]]
        return Condition(
            f"the rule matches, but rule {first} of the same policy denies first",
            f"규칙은 맞지만 같은 정책의 규칙 {first}이(가) 먼저 거부합니다",
            (Edit(section, moved),),
        )
    if policy.ref.kind == BASELINE or denying.priority == 0:
        return None
    return Condition(
        f"the rule matches, but {denying.ref} denies first (priority {denying.priority} before {policy.priority})",
        f"규칙은 맞지만 {denying.ref}이(가) 먼저 거부합니다(priority {denying.priority}, 이 정책은 {policy.priority})",
        (Edit(("spec", "priority"), denying.priority - 1),),
    )


def _ports(raw: Raw, path: Path, policy: Policy, rule: Rule, packet: Packet) -> Fails:
    if rule.ports is None:
        return [], 0
    if any(_covers(port, packet) for port in rule.ports):
        return [], 1
    second = policy.ref.kind == CLUSTER
    place = (*path, "protocols" if second else "ports")
    edits: tuple[Edit, ...] = (Edit(place, gone=True),)
    if packet.protocol in TRANSPORTS and packet.port is not None:
        item: dict[str, Any] = {"portNumber": {"protocol": packet.protocol, "port": packet.port}}
        if second:
            item = {packet.protocol.lower(): {"destinationPort": {"number": packet.port}}}
        edits = append(raw, place, item)
    return [Condition(*ports_text(rule.ports, packet), edits)], 1


def _covers(port: PortRange | NamedPort, packet: Packet) -> bool:
    if port.protocol not in (None, packet.protocol):
        return False
    match port:
        case PortRange():
            return packet.port is None or port.low <= packet.port <= port.high
        case NamedPort():
            end = packet.destination
            named = end.named_ports(port.name, packet.protocol) if isinstance(end, Pod) else ()
            return packet.port in [p.port for p in named]


def _peer(world: World, raw: Raw, path: Path, packet: Packet) -> Fails | None:
    """What fails of a peer item; None when it is of another sort altogether."""
    item, end, ip = mapping(raw, path), packet.peer, peer_ip(packet)
    if "networks" in item:
        place = (*path, "networks")
        if ip is None or isinstance(end, DomainName):
            return None
        if any(inside(each, block) for each in packet.ips(end) for block in items(raw, place)):
            return [], 1
        blocks = ", ".join(map(str, items(raw, place)))
        return [Condition(*outside(str(ip), blocks), append(raw, place, address(ip)))], 1
    if "domainNames" in item:
        return _names(raw, (*path, "domainNames"), end)
    if "nodes" in item:
        nodes = world.clusters[packet.cluster].nodes
        name = end.name if isinstance(end, Node) else end.node if isinstance(end, Pod) and end.host_network else ""
        if name not in nodes:
            return None
        return selector_fails(raw, (*path, "nodes"), nodes[name].labels, f"node {name}")
    client = hidden(world, packet)
    by_address = (
        () if ip is None or packet.direction is Direction.INGRESS else (Edit(path, {"networks": [address(ip)]}),)
    )
    return selected(packet, end, client, by_address, lambda pod: _selectors(world, raw, path, pod, packet))


def _names(raw: Raw, place: Path, end: object) -> Fails | None:
    if not isinstance(end, DomainName):
        return None
    listed = [str(name).rstrip(".").lower() for name in items(raw, place)]
    if any(end.name.endswith(n[1:]) if n.startswith("*.") else end.name == n for n in listed):
        return [], 1
    above = next((n for n in listed if n == f"*.{end.name}"), None)
    en = f"{above} covers names below {end}, not itself" if above else f"{end} is not {' or '.join(listed)}"
    ko = f"{above}은(는) {end} 자신을 포함하지 않습니다" if above else f"{end}은(는) {', '.join(listed)}이(가) 아닙니다"
    return [Condition(en, ko, append(raw, place, end.name))], 1


def _selectors(world: World, raw: Raw, path: Path, end: Pod, packet: Packet) -> Fails:
    """`namespaces` or `pods` of a peer, in today's and in the older form."""
    pods = "pods" in mapping(raw, path)
    outer: Path = (*path, "pods") if pods else (*path, "namespaces")
    spaces = outer
    if pods:
        spaces = (
            (*outer, "namespaces") if at(raw, (*outer, "namespaces")) is not None else (*outer, "namespaceSelector")
        )
    if at(raw, (*spaces, "namespaceSelector")) is not None:
        spaces = (*spaces, "namespaceSelector")
    fitting = selector_fails(raw, (*outer, "podSelector"), end.labels, str(end)) if pods else ([], 0)
    shared = items(raw, (*spaces, "sameLabels"))
    if not shared:
        return joined(namespace_fails(world, raw, spaces, end), fitting)
    subject = packet.subject
    assert isinstance(subject, Pod)
    there, here = (world.clusters[p.cluster].namespaces[p.namespace] for p in (end, subject))
    differing = [
        (n, key) for n, key in enumerate(shared) if key not in there.labels or there.labels[key] != here.labels.get(key)
    ]
    conditions = []
    for n, key in differing:
        edit = Edit((*spaces, "sameLabels", n), gone=True)
        if len(shared) == 1:  # an empty list would select nothing
            edit = Edit(spaces, {"namespaceSelector": {"matchLabels": {METADATA_NAME: there.name}}})
        en = f"namespaces {there.name} and {here.name} differ in the label {key} (sameLabels)"
        ko = f"namespace {there.name}과(와) {here.name}의 label {key}이(가) 다릅니다(sameLabels)"
        conditions.append(Condition(en, ko, (edit,)))
    return joined((conditions, len(shared)), fitting)
