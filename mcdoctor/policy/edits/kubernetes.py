"""Edits of NetworkPolicy: an item in a rule, a rule in a policy that isolates the pod, or a policy of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mcdoctor.policy.edits.edit import (
    FOREIGN,
    ITEM,
    POLICY,
    PORT,
    RULE,
    Edit,
    Raw,
    Wanted,
    Words,
    added_rule,
    blocks,
    cleaned,
    free_name,
    identity,
    joined_peer,
    joined_port,
    local_pod,
    new_object,
    of_its_own,
    unnamed,
)
from mcdoctor.policy.kubernetes import Kubernetes, Policy, Rule, port_match
from mcdoctor.policy.ports import TRANSPORTS, NamedPort, PortRange
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Direction
from mcdoctor.policy.world import METADATA_NAME, DomainName, Pod


def edits(wanted: Wanted) -> Iterator[Edit]:
    family = wanted.engine.compiled[wanted.packet.cluster]["kubernetes"]
    packet = wanted.packet
    subject, direction = packet.subject, packet.direction
    if not isinstance(family, Kubernetes):
        return
    if not isinstance(subject, Pod) or subject.host_network:
        wanted.reasons.append(
            Words(
                f"{subject} is no pod that a NetworkPolicy could select",
                f"{subject}은(는) NetworkPolicy가 선택할 수 있는 Pod가 아닙니다",
            )
        )
        return
    section, side_name = direction.value, "from" if wanted.ingress else "to"
    selecting = family.selecting(packet)
    foreign = FOREIGN if wanted.layer != "kubernetes" and not _refuses(wanted, selecting) else 0
    ports: list[Raw] = []
    note = ("", "")
    if packet.protocol in TRANSPORTS:
        item: Raw = {"protocol": packet.protocol}
        if packet.port is not None:
            item["port"] = packet.port
        ports = [item]
    else:
        note = (
            f" (a NetworkPolicy cannot name {packet.protocol}: it covers every protocol)",
            f" (NetworkPolicy는 {packet.protocol}를 지정할 수 없어 모든 프로토콜을 허용합니다)",
        )
    for items in _peers(wanted):
        rule_raw: Raw = {side_name: items, **({"ports": ports} if ports else {})}
        for policy in selecting:
            side = policy.side(direction)
            for number, rule in enumerate(side.rules if side else ()):
                if rule.peers is not None and _only_this_port(rule, packet):
                    raw = _copy(policy)
                    raw["spec"][section][number][side_name] += items
                    yield Edit((raw,), False, joined_peer(wanted, policy.ref, number), ITEM + foreign)
                if ports and rule.ports is not None and _has_peer(family, policy, number, packet):
                    raw = _copy(policy)
                    raw["spec"][section][number]["ports"] += ports
                    yield Edit((raw,), False, joined_port(wanted, policy.ref, number), PORT + foreign, reuses=True)
            raw = _copy(policy)
            raw["spec"][section] = [*(raw["spec"].get(section) or []), rule_raw]
            if not raw["spec"].get("policyTypes"):
                sides = [d for d in (Direction.INGRESS, Direction.EGRESS) if policy.side(d)]
                raw["spec"]["policyTypes"] = [d.value.capitalize() for d in sides]
            yield Edit((raw,), False, added_rule(wanted, policy.ref, note), RULE + foreign)
        labels = identity(wanted.engine, subject)
        if not labels:
            wanted.reasons.append(_no_labels(subject))
            continue
        here = family.policies[slice(*family.places(subject.namespace))]
        name = free_name(wanted, {policy.ref.name for policy in here})
        spec = {
            "podSelector": {"matchLabels": labels},
            "policyTypes": [direction.value.capitalize()],
            section: [rule_raw],
        }
        own = of_its_own(wanted, "NetworkPolicy")
        told = Words(own.en + note[0], own.ko + note[1])
        raw = new_object("networking.k8s.io/v1", "NetworkPolicy", subject.namespace, name, spec)
        yield Edit((raw,), True, told, POLICY + foreign)


def _refuses(wanted: Wanted, selecting: Any) -> bool:
    refs = {d.ref for d in wanted.by}
    return any(policy.ref in refs for policy in selecting)


def _no_labels(pod: Pod) -> Words:
    return Words(
        f"{pod} has no label that would stay: nothing selects it alone",
        f"{pod}에는 계속 유지되는 label이 없어 이 Pod만 선택할 수 없습니다",
    )


def _peers(wanted: Wanted) -> Iterator[list[Raw]]:
    """How the far end can be named in a rule, most exact first."""
    packet = wanted.packet
    end, home = packet.peer, packet.subject
    assert isinstance(home, Pod)
    pod = local_pod(wanted, end)
    if pod is not None:
        labels = identity(wanted.engine, pod)
        if not labels:
            wanted.reasons.append(_no_labels(pod))
            return
        peer: Raw = {"podSelector": {"matchLabels": labels}}
        if pod.namespace != home.namespace:
            peer = {"namespaceSelector": {"matchLabels": {METADATA_NAME: pod.namespace}}} | peer
        yield [peer]
        return
    for each in wanted.packets:
        if isinstance(each.peer, DomainName):
            wanted.reasons.append(unnamed("NetworkPolicy", each.peer))
            return
        if isinstance(each.peer, Pod) and each.peer.cluster != packet.cluster and not each.peer.host_network:
            wanted.reasons.append(
                Words(
                    f"{each.peer} is known by its identity in another cluster: a NetworkPolicy cannot name it",
                    f"{each.peer}은(는) 다른 클러스터의 identity로 식별되므로 NetworkPolicy로 지정할 수 없습니다",
                )
            )
            return
    exact, wider = blocks(wanted)
    if not exact:
        wanted.reasons.append(Words(f"the address of {end} is not known", f"{end}의 주소를 알 수 없습니다"))
        return
    yield [{"ipBlock": {"cidr": cidr}} for cidr in exact]
    if wider:
        yield [{"ipBlock": {"cidr": cidr}} for cidr in wider]


def _copy(policy: Policy) -> Raw:
    raw = cleaned(policy.object)
    if raw.get("spec") is None:  # an empty spec isolates every pod of the namespace, and has no place for a rule yet
        raw["spec"] = {"podSelector": {}}
    return raw


def _only_this_port(rule: Rule, packet: Packet) -> bool:
    """The rule covers the packet's port and nothing else: a peer added to it gets no more than was asked for."""
    if rule.ports is None or len(rule.ports) != 1 or packet.port is None:
        return False
    match rule.ports[0]:
        case PortRange(protocol, low, high):
            return protocol == packet.protocol and low == high == packet.port
        case NamedPort() as named:
            return port_match(named, packet) is True


def _has_peer(family: Kubernetes, policy: Policy, number: int, packet: Packet) -> bool:
    """Would this rule admit the packet if its ports did?"""
    side = policy.side(packet.direction)
    assert side is not None
    unbound = replace(side, rules=(replace(side.rules[number], ports=None),))
    inward = packet.direction is Direction.INGRESS
    freed = Policy(policy.ref, policy.subject, unbound if inward else None, None if inward else unbound, policy.object)
    return side.rules[number].peers is not None and family.admits(freed, packet).match is True
