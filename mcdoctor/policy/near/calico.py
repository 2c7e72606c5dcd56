"""What keeps a rule of a Calico policy from matching, and what comes before it.

Policies are walked tier by tier and in order, so a rule may also come too late: after a rule that denies, or in a tier
that is never reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isinf
from typing import Any

from mcdoctor.policy.calico import GROUPS, PROTOCOLS, Applied, Calico, Entity, Policy, Rule
from mcdoctor.policy.calico_selectors import (
    NAME,
    NAMESPACE,
    OF_NAMESPACE,
    OF_SERVICE_ACCOUNT,
    ORCHESTRATOR,
    SERVICE_ACCOUNT,
    And,
    Node,
    conjunction,
    evaluate,
    parse,
)
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
    covers,
    hidden,
    inside,
    items,
    joined,
    mapping,
    outside,
    path_in,
    ports_text,
    selected,
    traffic_of,
)
from mcdoctor.policy.ports import NamedPort, PortRange
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Deciding, Decision, Direction
from mcdoctor.policy.world import DomainName, End, Object, Pod

_TRANSPORTS = {6: "TCP", 17: "UDP", 132: "SCTP"}


def relevant(family: Compiled, packet: Packet) -> list[Object]:
    """The policies that apply to the packet's subject."""
    assert isinstance(family, Calico)
    wanted = {
        entry.policy.ref for _, entries in family.applying(packet) for entry in entries if isinstance(entry, Applied)
    }
    here = family.place.cluster
    kinds = [(group, kind) for group in GROUPS for kind in ("NetworkPolicy", "GlobalNetworkPolicy")]
    return [obj for kind in kinds for obj in here.of(*kind) if obj.ref in wanted]


def candidates(family: Compiled, packet: Packet, decision: Decision) -> Iterator[Candidate]:
    """Every rule that allows or passes on, of the policies that apply to the packet's subject."""
    assert isinstance(family, Calico)
    raws = {obj.ref: obj.raw for obj in relevant(family, packet)}
    applied = [e.policy for _, entries in family.applying(packet) for e in entries if isinstance(e, Applied)]
    for policy in applied:
        raw, side = raws[policy.ref], policy.side(packet.direction)
        for rule in side.rules if side else ():
            if rule.action not in ("Allow", "Pass"):
                continue
            path = path_in(raw, rule.pointer)
            fails = _rule(family, policy, rule, raw, path, packet)
            if fails is None:
                continue
            conditions, asked = fails
            if not conditions:
                late = _late(family, policy, path, raw, packet, decision)
                conditions, asked = ([late] if late else []), asked + 1
            yield Candidate(policy.ref, path, raw, tuple(conditions), asked)


# --- order -----------------------------------------------------------------------------------------------------------


def _late(family: Calico, policy: Policy, path: Path, raw: Raw, packet: Packet, decision: Decision) -> Condition | None:
    """The rule matches, but what refuses comes first."""
    by = next((d for d in decision.by if d.effect == "deny"), None)
    if by is None:
        return None
    if by.ref == policy.ref and not by.implicit:
        return _same_policy(path, raw, by)
    for tier, entries in family.applying(packet):
        for entry in entries:
            if not isinstance(entry, Applied) or entry.policy.ref != by.ref:
                continue
            order = entry.policy.place[0]
            before = 0 if isinf(order) else order - 1
            first = f"{by.ref} denies first"
            first_ko = f"{by.ref}이(가) 먼저 거부합니다"
            if tier.name != policy.tier:
                if by.implicit:
                    first = f"tier {tier.name} comes first, {by.ref} applies in it and none of its rules matches"
                    first_ko = f"tier {tier.name}이(가) 먼저이고, 거기서 {by.ref}이(가) 적용되지만 맞는 규칙이 없습니다"
                edits = [Edit(("spec", "tier"), tier.name)]
                edits += [] if by.implicit else [Edit(("spec", "order"), before)]
                return Condition(
                    f"the rule matches, but {first} (this policy is in tier {policy.tier})",
                    f"규칙은 맞지만 {first_ko}(이 정책은 tier {policy.tier}에 있습니다)",
                    tuple(edits),
                )
            own = "none" if isinf(policy.place[0]) else f"{policy.place[0]:g}"
            shown = "none" if isinf(order) else f"{order:g}"
            return Condition(
                f"the rule matches, but {first} (order {shown}, this policy has {own})",
                f"규칙은 맞지만 {first_ko}(order {shown}, 이 정책은 {own})",
                (Edit(("spec", "order"), before),),
            )
    return None


def _same_policy(path: Path, raw: Raw, by: Deciding) -> Condition | None:
    section, number = path[:-1], path[-1]
    first = path_in(raw, by.pointer)[-1]
    if not isinstance(number, int) or not isinstance(first, int) or first >= number:
        return None
    listed = items(raw, section)
    moved = [*listed[:first], listed[number], *listed[first:number], *listed[number + 1 :]]
    return Condition(
        f"the rule matches, but rule {first} of the same policy denies first",
        f"규칙은 맞지만 같은 정책의 규칙 {first}이(가) 먼저 거부합니다",
        (Edit(section, moved),),
    )


# --- one rule --------------------------------------------------------------------------------------------------------


def _rule(family: Calico, policy: Policy, rule: Rule, raw: Raw, path: Path, packet: Packet) -> Fails | None:
    number = packet_protocol(packet)
    found: list[Condition] = []
    asked = 0
    if rule.protocol is not None:
        asked += 1
        if rule.protocol != number:
            ported = any(e and (e.ports or e.not_ports) for e in (rule.source, rule.destination))
            if rule.icmp is not None or (ported and number not in _TRANSPORTS):
                return None
            written = mapping(raw, path)["protocol"]
            found.append(
                Condition(
                    f"the rule is for {written}, the traffic is {traffic_of(packet).partition(' ')[0]}",
                    f"규칙은 {written}용이고 트래픽은 {traffic_of(packet).partition(' ')[0]}입니다",
                    (Edit((*path, "protocol"), _TRANSPORTS.get(number or 0, number)),),
                )
            )
    if rule.not_protocol is not None:
        asked += 1
        if rule.not_protocol == number:
            found.append(_excluded(path, "notProtocol", packet.protocol))
    for name, wanted in (("icmp", rule.icmp), ("notICMP", rule.not_icmp)):
        if wanted is None:
            continue
        asked += 1
        kind = packet.icmp.type if packet.icmp else None
        if (wanted.type is not None and kind is not None) and (wanted.type == kind) is (name == "notICMP"):
            what = f"ICMP type {wanted.type}"
            found.append(
                _excluded(path, name, what)
                if name == "notICMP"
                else Condition(*covers(what, f"type {kind}"), (Edit((*path, name), {"type": kind}),))
            )
    if rule.http is not None:
        fails = _http(rule, raw, (*path, "http"), packet)
        found, asked = found + fails[0], asked + fails[1]
    for name, entity, end in (
        ("source", rule.source, packet.source),
        ("destination", rule.destination, packet.destination),
    ):
        if entity is not None:
            part = _entity(family, policy, rule, entity, raw, (*path, name), end, packet)
            if part is None:
                return None
            found, asked = found + part[0], asked + part[1]
    return found, asked


def packet_protocol(packet: Packet) -> int | None:
    if packet.icmp is not None:
        return 58 if packet.icmp.family == 6 else 1
    return PROTOCOLS.get(packet.protocol)


def _excluded(path: Path, name: str, what: str) -> Condition:
    return Condition(
        f"{what} is excluded by {name}",
        f"{what}은(는) {name}에서 제외됩니다",
        (Edit((*path, name), gone=True),),
    )


def _http(rule: Rule, raw: Raw, path: Path, packet: Packet) -> Fails:
    found: list[Condition] = []
    http = packet.http
    assert rule.http is not None
    method, asked = (http.method, http.path) if http else (None, None)
    plain = (asked or "").partition("?")[0].partition("#")[0]
    methods, paths = rule.http.methods, rule.http.paths
    if methods and method is not None and "*" not in methods and method not in methods:
        texts = covers(f"the methods {', '.join(methods)}", method)
        found.append(Condition(*texts, append(raw, (*path, "methods"), method)))
    if paths and asked is not None and not any(plain.startswith(p) if prefix else plain == p for p, prefix in paths):
        texts = covers(f"the paths {', '.join(p + ('*' if prefix else '') for p, prefix in paths)}", plain)
        found.append(Condition(*texts, append(raw, (*path, "paths"), {"exact": plain})))
    return found, bool(methods) + bool(paths)


def _entity(
    family: Calico, policy: Policy, rule: Rule, entity: Entity, raw: Raw, path: Path, end: End, packet: Packet
) -> Fails | None:
    """What fails of `source` or `destination`; None where it is of another sort altogether."""
    parts: list[Fails] = []
    ips = packet.ips(end)
    nets, excluded = items(raw, (*path, "nets")), items(raw, (*path, "notNets"))
    if nets and not isinstance(end, DomainName):
        if not ips:
            return None
        if any(inside(ip, net) for ip in ips for net in nets):
            parts.append(([], 1))
        else:
            texts = outside(f"{end} ({ips[0]})" if str(end) != str(ips[0]) else str(end), ", ".join(map(str, nets)))
            parts.append(([Condition(*texts, append(raw, (*path, "nets"), address(ips[0])))], 1))
    if excluded:
        holes = [n for n, net in enumerate(excluded) if any(inside(ip, net) for ip in ips)]
        if holes:
            edits = tuple(Edit((*path, "notNets", n), gone=True) for n in holes)
            net = excluded[holes[0]]
            texts = (f"{ips[0]} is excluded by notNets {net}", f"{ips[0]}은(는) notNets {net}에서 제외됩니다")
            parts.append(([Condition(*texts, edits)], 1))
        else:
            parts.append(([], 1))
    if entity.selector is not None:
        fails = _selected(family, policy, entity, raw, path, end, packet)
        if fails is None:
            return None
        parts.append(fails)
    if entity.not_selector is not None:
        hit = family.selected(entity.not_selector, end, packet, 0) is True
        parts.append(([_excluded(path, "notSelector", str(end))] if hit else [], 1))
    if entity.service is not None:
        parts.append(_service(entity, path, packet))
    if entity.domains:
        if not isinstance(end, DomainName):
            return None
        names = ", ".join(entity.domains)
        fitting = end.name in entity.domains
        texts = (f"{end} is not {names}", f"{end}은(는) {names}이(가) 아닙니다")
        parts.append(([] if fitting else [Condition(*texts, append(raw, (*path, "domains"), end.name))], 1))
    if end is packet.destination:
        parts.append(_ports(entity, raw, path, packet))
    return joined(*parts)


def _ports(entity: Entity, raw: Raw, path: Path, packet: Packet) -> Fails:
    found: list[Condition] = []
    number = packet.port
    if entity.ports and number is not None and not any(_holds(p, packet) for p in entity.ports):
        # The protocol is a field of its own: here only numbers and names count.
        plain = [PortRange(packet.protocol, p.low, p.high) if isinstance(p, PortRange) else p for p in entity.ports]
        found.append(Condition(*ports_text(plain, packet), append(raw, (*path, "ports"), number)))
    if entity.not_ports and number is not None:
        hits = [n for n, p in enumerate(entity.not_ports) if _holds(p, packet)]
        if hits:
            texts = (f"port {number} is excluded by notPorts", f"포트 {number}은(는) notPorts에서 제외됩니다")
            found.append(Condition(*texts, tuple(Edit((*path, "notPorts", n), gone=True) for n in hits)))
    return found, bool(entity.ports) + bool(entity.not_ports)


def _holds(port: PortRange | NamedPort, packet: Packet) -> bool:
    match port:
        case PortRange():
            return packet.port is not None and port.low <= packet.port <= port.high
        case NamedPort():
            end = packet.destination
            named = end.named_ports(port.name, port.protocol) if isinstance(end, Pod) else ()
            return packet.port in [p.port for p in named]


def _service(entity: Entity, path: Path, packet: Packet) -> Fails:
    assert entity.service is not None
    namespace, name = entity.service
    asked = packet.service
    if asked is None or (asked.namespace, asked.name) == entity.service or packet.direction is Direction.INGRESS:
        return [], 1
    texts = (
        f"the rule is for Service {namespace}/{name}, the traffic is for {asked.namespace}/{asked.name}",
        f"규칙은 Service {namespace}/{name}용이고 트래픽은 {asked.namespace}/{asked.name}(으)로 갑니다",
    )
    edit = Edit((*path, "services"), {"name": asked.name, "namespace": asked.namespace})
    return [Condition(*texts, (edit,))], 1


# --- selectors -------------------------------------------------------------------------------------------------------


def _labels(family: Calico, pod: Pod) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """What selectors of endpoints, of namespaces and of service accounts see of a pod."""
    space = family.place.cluster.namespaces.get(pod.namespace) if pod.cluster == family.place.cluster.name else None
    spaces = {**(space.labels if space else {}), NAME: pod.namespace}
    accounts = {**family.place.accounts.get((pod.namespace, pod.service_account), {}), NAME: pod.service_account}
    own = {
        **pod.labels,
        ORCHESTRATOR: "k8s",
        NAMESPACE: pod.namespace,
        SERVICE_ACCOUNT: pod.service_account,
        **{OF_NAMESPACE + k: v for k, v in spaces.items()},
        **{OF_SERVICE_ACCOUNT + k: v for k, v in accounts.items()},
    }
    return own, spaces, accounts


def _selected(
    family: Calico, policy: Policy, entity: Entity, raw: Raw, path: Path, end: End, packet: Packet
) -> Fails | None:
    """`selector`, `namespaceSelector` and `serviceAccounts` against a pod; None where they cannot mean the end."""
    assert entity.selector is not None
    if family.selected(entity.selector, end, packet, 0) is not False:
        return [], 1
    ips = packet.ips(end)
    names = ("selector", "namespaceSelector", "serviceAccounts")
    by_address: tuple[Edit, ...] = ()
    if ips:
        gone = tuple(Edit((*path, name), gone=True) for name in names if at(raw, (*path, name)) is not None)
        by_address = (*append(raw, (*path, "nets"), address(ips[0])), *gone)
    client = hidden(family.place.index.world, packet) if end is packet.peer else None
    return selected(packet, end, client, by_address, lambda pod: _of_pod(family, policy, raw, path, pod))


def _of_pod(family: Calico, policy: Policy, raw: Raw, path: Path, pod: Pod) -> Fails:
    own, spaces, accounts = _labels(family, pod)
    item = mapping(raw, path)
    parts = [_text(item.get("selector"), (*path, "selector"), own, str(pod))]
    written = item.get("namespaceSelector")
    this = f'{NAME} == "{pod.namespace}"'
    if written:
        fits = str(written).strip() != "global()"
        parts.append(
            _text(written, (*path, "namespaceSelector"), spaces, f"namespace {pod.namespace}", instead=this)
            if fits
            else ([_scope(f"global() means what is in no namespace, {pod} is in {pod.namespace}", pod, path, this)], 1)
        )
    elif policy.ref.namespace and policy.ref.namespace != pod.namespace and policy.ref.kind == "NetworkPolicy":
        home = policy.ref.namespace
        en = f"without a namespaceSelector the rule means namespace {home}, {pod.name} is in {pod.namespace}"
        parts.append(([_scope(en, pod, path, this)], 1))
    listed = items(item, ("serviceAccounts", "names"))
    if listed:
        names = ", ".join(map(str, listed))
        texts = (
            f"{pod} runs as {pod.service_account}, the rule wants the service account {names}",
            f"{pod}의 service account는 {pod.service_account}이고, 규칙은 {names}을(를) 요구합니다",
        )
        edits = append(raw, (*path, "serviceAccounts", "names"), pod.service_account)
        parts.append(([] if pod.service_account in listed else [Condition(*texts, edits)], 1))
    place = (*path, "serviceAccounts", "selector")
    who = f"service account {pod.namespace}/{pod.service_account}"
    parts.append(_text(at(raw, place), place, accounts, who))
    return joined(*parts)


def _scope(en: str, pod: Pod, path: Path, this: str) -> Condition:
    ko = f"규칙의 범위에 namespace {pod.namespace}이(가) 없습니다({pod})"
    return Condition(en, ko, (Edit((*path, "namespaceSelector"), this),))


def _text(written: Any, path: Path, labels: Mapping[str, str], who: str, *, instead: str = "") -> Fails:
    """A selector in Calico's language: each part of its conjunction that does not hold. `instead`: one that would."""
    if not isinstance(written, str) or not written:
        return [], 0
    node = parse(written)
    parts = list(node.nodes) if isinstance(node, And) else [node]
    kept: list[Node] = [each for each in parts if evaluate(each, labels) is not False]
    failing = [each for each in parts if each not in kept]
    if len(failing) > 1 and not instead:
        # One place of the object holds them all: each is told, together they are too many for one thing.
        without = Edit(path, str(conjunction(kept)))
        return [Condition(*_wants(who, each, labels), (without,)) for each in failing], len(parts)
    edit = Edit(path, instead or str(conjunction(kept)))
    return [Condition(*_wants(who, each, labels), (edit,)) for each in failing], len(parts)


def _wants(who: str, node: Node, labels: Mapping[str, str]) -> tuple[str, str]:
    key = getattr(node, "key", "")
    has = "" if not key else f"{key}={labels[key]}" if key in labels else f"no label {key}"
    has_ko = "" if not key else f"label {key}={labels[key]}" if key in labels else f"label {key} 없음"
    en = f"{who} has {has}, the rule wants {node}" if has else f"{who} does not fit {node}"
    ko = f"{who}: {has_ko}. 규칙은 {node}을(를) 요구합니다" if has else f"{who}은(는) {node}에 맞지 않습니다"
    return en, ko
