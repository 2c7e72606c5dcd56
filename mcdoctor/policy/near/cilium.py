"""What keeps a rule of a CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy from matching."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, assert_never

from mcdoctor.policy.cilium import (
    BlockPeer,
    Cilium,
    EntityPeer,
    GroupPeer,
    IcmpType,
    LabelPeer,
    NamePeer,
    NodePeer,
    Peer,
    Policy,
    PortName,
    PortRule,
    Ports,
    Rule,
    ServicePeer,
)
from mcdoctor.policy.cilium_identity import CLUSTER, POD_NAMESPACE, Identity, Term, holds, split_key
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
    dicts,
    hidden,
    inside,
    items,
    joined,
    mapping,
    outside,
    path_in,
    peer_ip,
    remote_selector,
    service_port,
    traffic_of,
    wrong_value,
)
from mcdoctor.policy.ports import TRANSPORTS
from mcdoctor.policy.question import Packet
from mcdoctor.policy.selectors import IN
from mcdoctor.policy.verdict import Direction
from mcdoctor.policy.world import DomainName, End, Node, Object, Outside, Pod

_NO_LOOK_UP = (
    "no rule sends the look-ups of names through Cilium's DNS proxy, so toFQDNs never learns an address",
    "이름 조회를 Cilium DNS proxy로 보내는 규칙이 없어 toFQDNs가 주소를 알 수 없습니다",
)


def relevant(family: Compiled, packet: Packet) -> list[Object]:
    """The policies on the packet's subject, and those whose DNS rules feed toFQDNs."""
    assert isinstance(family, Cilium)
    chosen = [policy for policy, _ in family.selecting(packet.subject)]
    if not isinstance(packet.peer, (Pod, Node)):
        chosen = list(family.policies)
    return list({policy.ref: policy.object for policy in chosen if policy.ref.kind != "NetworkPolicy"}.values())


def candidates(family: Compiled, packet: Packet) -> Iterator[Candidate]:
    """Every rule that allows, by every peer and every port rule of it."""
    assert isinstance(family, Cilium)
    for policy, _ in family.selecting(packet.subject):
        side = policy.sides.get(packet.direction)
        if side is None or policy.ref.kind == "NetworkPolicy":
            continue
        for rule in side.allows:
            yield from _rule(family, policy, rule, packet)


def _rule(family: Cilium, policy: Policy, rule: Rule, packet: Packet) -> Iterator[Candidate]:
    raw = policy.object.raw
    path = path_in(raw, rule.pointer)
    entity: Path = (*path, "fromEntities" if packet.direction is Direction.INGRESS else "toEntities")
    if rule.peers == () and not rule.loose:
        # An item that names nobody: `{}`, or an empty list.
        empty = [name for name, value in mapping(raw, path).items() if value == [] and name[:2] in ("fr", "to")]
        if empty or rule.ports is None:
            why = "an empty rule of Cilium allows nothing (fromEntities or toEntities: [all] allows everything)"
            ko = "Cilium에서 빈 규칙은 아무것도 허용하지 않습니다(모두 허용하려면 fromEntities 또는 toEntities: [all])"
            if empty:
                why = f"an empty list of peers ({empty[0]}) selects nobody"
                ko = f"비어 있는 peer 목록({empty[0]})은 아무것도 선택하지 않습니다"
            gone = tuple(Edit((*path, name), gone=True) for name in empty if (*path, name) != entity)
            condition = Condition(why, ko, (Edit(entity, ["all"]), *gone))
            for fails, asked in _requests(family, rule, raw, path, packet):
                yield Candidate(policy.ref, path, raw, (condition, *fails), asked + 1)
        return
    for fails, asked in _requests(family, rule, raw, path, packet):
        if rule.peers is None:
            yield Candidate(policy.ref, path, raw, tuple(fails), asked)
        for peer in rule.peers or ():
            found = _peer(family, policy, peer, raw, entity, packet)
            if found is not None:
                conditions = (*found[0], *fails)
                yield Candidate(policy.ref, path_in(raw, peer.pointer), raw, conditions, found[1] + asked)


# --- peers -----------------------------------------------------------------------------------------------------------


def _peer(family: Cilium, policy: Policy, peer: Peer, raw: Raw, entity: Path, packet: Packet) -> Fails | None:
    """What fails of a peer item; None when it is of another sort altogether."""
    path, end = path_in(raw, peer.pointer), packet.peer
    match peer:
        case LabelPeer():
            if family.matches(peer, packet) is not False:
                return [], max(len(peer.terms), 1)
            return _labels(family, peer, raw, path, entity, packet)
        case _ if family.matches(peer, packet) is not False:
            return [], 1
        case BlockPeer():
            return _block(family, peer, raw, path, entity, packet)
        case EntityPeer():
            return _entity(family, peer, raw, path, packet)
        case NamePeer():
            return _name(family, peer, raw, path, packet)
        case NodePeer():
            name = end.name if isinstance(end, Node) else end.node if isinstance(end, Pod) and end.host_network else ""
            nodes = family.index.world.clusters[family.cluster].nodes
            if name not in nodes:
                return None
            identity = Identity({k: ("node", v) for k, v in nodes[name].labels.items()})
            return _terms(family, peer.terms, identity, raw, path, f"node {name}")
        case ServicePeer():
            return _service(raw, path, packet)
        case GroupPeer():
            return None
        case _:
            assert_never(peer)


def _labels(family: Cilium, peer: LabelPeer, raw: Raw, path: Path, entity: Path, packet: Packet) -> Fails | None:
    end, ip = packet.peer, peer_ip(packet)
    count = max(len(peer.terms), 1)
    client = hidden(family.index.world, packet)
    if client is not None and not isinstance(end, Pod):
        failing = [t for t in peer.terms if holds(t, family.identity(client), family.names) is False]
        edits = _instead(raw, path, f"{str(entity[-1])[:-8]}CIDR", address(ip)) if ip is not None else ()
        return ([remote_selector(client, end, edits)], count) if not failing else None
    if not isinstance(end, Pod):
        return None
    identity = family.identity(end)
    if end.host_network:
        if any(holds(t, identity, family.names) is False for t in peer.terms):
            return None
        en = f"{end} is on the host network: Cilium knows it as its node, never by its labels"
        ko = f"{end}은(는) host network를 쓰므로 Cilium은 label이 아니라 노드로 식별합니다"
        return [Condition(en, ko, _instead(raw, path, str(entity[-1]), *_entities(family, end, packet)))], count
    fails, _ = _terms(family, peer.terms, identity, raw, path, str(end), end)
    if not fails and end.cluster != family.cluster:
        en = f"the selector fits {end}, but without {CLUSTER} it means this cluster only (policy-default-local-cluster)"
        ko = f"selector는 {end}에 맞지만 {CLUSTER}이(가) 없으면 이 클러스터만 뜻합니다(policy-default-local-cluster)"
        name = identity.labels.get(CLUSTER, ("", end.cluster))[1]
        return [Condition(en, ko, (Edit((*path, "matchLabels", CLUSTER), name),))], count
    return fails, count


def _terms(
    family: Cilium, terms: tuple[Term, ...], identity: Identity, raw: Raw, path: Path, who: str, end: Pod | None = None
) -> Fails:
    """Requirements that fail, each with its place in the object; one that is not there is the scope Cilium adds."""
    found: list[Condition] = []
    for term in terms:
        if holds(term, identity, family.names) is not False:
            continue
        value = identity.labels.get(term.key)
        place = _written(raw, path, term)
        wanted = f"{term.key} {term.operator} {', '.join(term.values)}".strip()
        if end is not None and term.names(POD_NAMESPACE) and len(term.values) == 1:
            texts = (
                f"the selector means namespace {term.values[0]}, {end.name} is in {end.namespace}",
                f"selector는 namespace {term.values[0]}을(를) 뜻하고 {end.name}은(는) {end.namespace}에 있습니다",
            )
        elif value is None:
            texts = (
                f"{who} has no label {term.key} that Cilium counts, the rule wants {wanted}",
                f"{who}에 Cilium이 인식하는 label {term.key}이(가) 없고, 규칙은 {wanted}을(를) 요구합니다",
            )
        else:
            texts = wrong_value(who, term.key, value[1], wanted)
        if place is None:
            edit = Edit((*path, "matchLabels", f"k8s:{term.key}"), value[1] if value else "")
        elif value is None or term.operator != IN or term.source not in ("any", value[0]):
            edit = Edit(place, gone=True)
        elif place[-2] == "matchLabels":
            edit = Edit(place, value[1])
        else:
            edit = append(raw, (*place, "values"), value[1])[0]
        found.append(Condition(*texts, (edit,)))
    return found, max(len(terms), 1)


def _written(raw: Raw, path: Path, term: Term) -> Path | None:
    """Where a selector of Cilium, or of the Kubernetes form, has this requirement."""
    for key in mapping(raw, (*path, "matchLabels")):
        if term.operator == IN and split_key(key) == (term.source, term.key):
            return (*path, "matchLabels", key)
    for number, item in enumerate(items(raw, (*path, "matchExpressions"))):
        same = item.get("operator") == term.operator and split_key(str(item.get("key"))) == (term.source, term.key)
        if same and set(items(item, ("values",))) == set(term.values):
            return (*path, "matchExpressions", number)
    return None


def _endpoints(entities: object) -> str:
    """`fromEndpoints` for `fromEntities`, and so on."""
    return f"{str(entities).removesuffix('Entities')}Endpoints"


def _instead(raw: Raw, path: Path, kind: str, *values: object) -> tuple[Edit, ...]:
    """Peers of another kind in place of the item at `path`: kinds of peers do not stand together in one rule."""
    rule = path[:-2]
    if len(items(raw, path[:-1])) == 1:
        return Edit((*rule, kind), list(values)), Edit(path[:-1], gone=True)
    kept = {key: value for key, value in mapping(raw, rule).items() if key in ("toPorts", "icmps")}
    return append(raw, rule[:-1], {kind: list(values), **kept})


def _entities(family: Cilium, end: End, packet: Packet) -> tuple[str, ...]:
    """The entities that an end is."""
    match end:
        case Pod(host_network=False):
            return ("cluster",) if end.cluster == family.cluster else ()
        case Pod() | Node():
            local = family.is_local(end, packet)
            return ("host", "remote-node") if local is None else ("host",) if local else ("remote-node",)
        case Outside() | DomainName():
            return ("world",)
        case _:
            assert_never(end)


def _block(family: Cilium, peer: BlockPeer, raw: Raw, path: Path, entity: Path, packet: Packet) -> Fails | None:
    end = packet.peer
    ips = packet.ips(end)
    if not ips or isinstance(end, DomainName):
        return None
    within = next((ip for ip in ips if any(ip in block for block in peer.blocks)), None)
    single = isinstance(at(raw, path), str)
    blocks = ", ".join(map(str, peer.blocks)) or "an empty group"
    if isinstance(end, Outside):
        if within is None:
            edit = Edit(path, address(ips[0]) if single else {"cidr": address(ips[0])})
            return [Condition(*outside(str(ips[0]), blocks), (edit,))], 1
        holes = [n for n, hole in enumerate(items(raw, (*path, "except"))) if inside(within, hole)]
        edits = tuple(Edit((*path, "except", n), gone=True) for n in holes)
        texts = (f"{within} is in {blocks} but excepted", f"{within}은(는) {blocks}에 속하지만 except에서 제외됩니다")
        return [Condition(*texts, edits)], 1
    if within is None:
        return None
    if isinstance(end, Node) or end.host_network:
        edits = _instead(raw, path, str(entity[-1]), *_entities(family, end, packet))
        what, ko = "nodes (policy-cidr-match-mode)", "노드(policy-cidr-match-mode)"
    else:
        labels = {f"k8s:{POD_NAMESPACE}": end.namespace}
        labels |= {f"k8s:{k}": v for k, v in end.labels.items() if k in family.index.interest
                   and k in family.identity(end).labels}  # fmt: skip
        if end.cluster != family.cluster:
            labels[CLUSTER] = family.identity(end).labels.get(CLUSTER, ("", end.cluster))[1]
        edits = _instead(raw, path, _endpoints(entity[-1]), {"matchLabels": labels})
        what, ko = "managed pods", "Cilium이 관리하는 pod"
    return [
        Condition(
            f"{within} is inside, but CIDR rules of Cilium do not match {what}",
            f"{within}은(는) 범위 안에 있지만 Cilium의 CIDR 규칙은 {ko}와(과) 일치하지 않습니다",
            edits,
        )
    ], 1


def _entity(family: Cilium, peer: EntityPeer, raw: Raw, path: Path, packet: Packet) -> Fails | None:
    end = packet.peer
    right = _entities(family, end, packet)
    if peer.entity == "cluster" and isinstance(end, Pod) and end.cluster != family.cluster:
        name = family.identity(end).labels.get(CLUSTER, ("", end.cluster))[1]
        scope = {"matchLabels": {CLUSTER: name, f"k8s:{POD_NAMESPACE}": end.namespace}}
        return [
            Condition(
                f"the entity cluster is the local cluster only, {end} is in {end.cluster}",
                f"entity cluster는 로컬 클러스터만 뜻하고 {end}은(는) {end.cluster}에 있습니다",
                _instead(raw, path, _endpoints(path[-2]), scope),
            )
        ], 1
    if not right:
        return None
    named = " or ".join(right)
    return [
        Condition(
            f"the entity {peer.entity} does not cover {end}, which is {named}",
            f"entity {peer.entity}에는 {end}이(가) 속하지 않습니다({named})",
            append(raw, path[:-1], *right),
        )
    ], 1


def _name(family: Cilium, peer: NamePeer, raw: Raw, path: Path, packet: Packet) -> Fails | None:
    end = packet.peer
    if not isinstance(end, DomainName) or " " in end.name:
        return None
    found: list[Condition] = []
    if not peer.expression.match(end.name):
        texts = (f"{end} does not match {peer.name}", f"{end}은(는) {peer.name}과(와) 일치하지 않습니다")
        found.append(Condition(*texts, append(raw, path[:-1], {"matchName": end.name})))
    if not any(e.match(end.name) for rule in family.dns_rules for _, e in rule.patterns):
        proxied: dict[str, Any] = {
            "toEndpoints": [{"matchLabels": {f"k8s:{POD_NAMESPACE}": "kube-system", "k8s:k8s-app": "kube-dns"}}],
            "toPorts": [
                {
                    "ports": [{"port": "53", "protocol": "UDP"}, {"port": "53", "protocol": "TCP"}],
                    "rules": {"dns": [{"matchName": end.name}]},
                }
            ],
        }
        found.append(Condition(*_NO_LOOK_UP, append(raw, path[:-3], proxied)))
    return found, 2


def _service(raw: Raw, path: Path, packet: Packet) -> Fails | None:
    service = packet.service
    named = mapping(raw, (*path, "k8sService"))
    if service is None or not named:
        return None
    wanted = f"{named.get('namespace', '')}/{named.get('serviceName', '')}"
    asked = f"{service.namespace}/{service.name}"
    edit = Edit((*path, "k8sService"), {"serviceName": service.name, "namespace": service.namespace})
    return [
        Condition(
            f"the rule is for Service {wanted}, the traffic is for {asked}",
            f"규칙은 Service {wanted}용이고 트래픽은 {asked}(으)로 갑니다",
            (edit,),
        )
    ], 1


# --- ports and requests ----------------------------------------------------------------------------------------------


def _requests(family: Cilium, rule: Rule, raw: Raw, path: Path, packet: Packet) -> Iterator[Fails]:
    """What fails of each item of `toPorts`, or of `icmps`; once with nothing where the rule has neither."""
    if rule.ports is None:
        yield [], 0
        return
    icmps = items(raw, (*path, "icmps"))
    for number, each in enumerate(rule.ports):
        place: Path = (*path, "icmps" if icmps else "toPorts", number)
        if family.covers((each,), packet)[0] is not False:
            yield [], 1
        elif icmps:
            if packet.icmp is not None and packet.icmp.type is not None:
                offered = ", ".join(f"ICMPv{i.family} type {i.type}" for i in each.items if isinstance(i, IcmpType))
                value = {"family": f"IPv{packet.icmp.family}", "type": packet.icmp.type}
                texts = covers(offered, traffic_of(packet))
                yield [Condition(*texts, append(raw, (*place, "fields"), value))], 1
        elif packet.icmp is None and packet.protocol in TRANSPORTS:
            yield from _port_rule(family, each, raw, place, packet)


def _port_rule(family: Cilium, rule: PortRule, raw: Raw, path: Path, packet: Packet) -> Iterator[Fails]:
    bare = PortRule(rule.items, None, (), "")
    ports: Fails = ([], 1)
    if family.covers((bare,), packet)[0] is False:
        item = {"port": str(packet.port or 0), "protocol": packet.protocol}
        ports = ([Condition(*_ports(rule, packet), append(raw, (*path, "ports"), item))], 1)
    requests = items(raw, (*path, "rules", "http"))
    if not requests or not isinstance(rule.layer7, tuple):
        yield ports
        return
    for number in range(len(requests)):
        yield joined(ports, _http(family, rule, raw, (*path, "rules", "http", number), packet))


def _ports(rule: PortRule, packet: Packet) -> tuple[str, str]:
    """Why port rules leave a packet out."""
    offered = []
    for item in rule.items:
        match item:
            case Ports():
                if packet.service is not None and any(
                    p.port == item.low == item.high and p.target != p.port for p in packet.service.ports
                ):
                    return service_port(item.low, packet)
                numbers = "" if not item.low else f" {item.low}" + (f"-{item.high}" if item.high > item.low else "")
                offered.append(("/".join(item.protocols) or "any protocol") + numbers)
            case PortName():
                offered.append(f"the port named {item.name}")
            case IcmpType():
                offered.append(f"ICMPv{item.family} type {item.type}")
    return covers(", ".join(offered) or "no port", traffic_of(packet))


def _http(family: Cilium, rule: PortRule, raw: Raw, path: Path, packet: Packet) -> Fails:
    """What of a request one item of `rules.http` does not let through."""
    item = mapping(raw, path)
    http = packet.http
    found: list[Condition] = []
    asked = {"method": http.method, "path": http.path, "host": http.host} if http else {}
    for name, value in asked.items():
        wanted = item.get(name)
        if wanted and value is not None and not _fits(str(wanted), value):
            texts = (
                f"the {name} is {value}, the rule wants {wanted}",
                f"요청의 {name}은(는) {value}이고, 규칙은 {wanted}을(를) 요구합니다",
            )
            found.append(Condition(*texts, (Edit((*path, name), re.escape(value).replace(r"\-", "-")),)))
    sent = http.headers if http else {}
    if http is not None:
        for number, header in enumerate(items(raw, (*path, "headers"))):
            name, _, value = str(header).partition(" ")
            key = name.rstrip(":").lower()
            if key not in sent or (value and sent[key] != value):
                found.append(_header(key, value, (*path, "headers", number)))
        for number, match in enumerate(dicts(raw, (*path, "headerMatches"))):
            key, value = str(match.get("name")).lower(), match.get("value")
            if not match.get("mismatch") and (key not in sent or (value and sent[key] != value)):
                found.append(_header(key, value or "", (*path, "headerMatches", number)))
    return found, max(len(item), 1)


def _fits(expression: str, value: str) -> bool:
    try:
        return re.fullmatch(expression, value) is not None
    except re.error:
        return True  # not for us to say; the engine has its doubt


def _header(key: str, value: str, place: Path) -> Condition:
    wanted = f"{key}: {value}" if value else key
    return Condition(
        f"the request has no header {wanted}", f"요청에 header {wanted}이(가) 없습니다", (Edit(place, gone=True),)
    )
