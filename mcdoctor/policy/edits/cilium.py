"""Edits of CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

Peers are labels for what Cilium manages (with the cluster's name for a pod of another cluster), entities for nodes,
CIDRs for addresses outside, names for names. A deny has no exception in Cilium, so none is offered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mcdoctor.policy.cilium import CLUSTERWIDE, NAMESPACED, Cilium, Policy, managed
from mcdoctor.policy.cilium_identity import CLUSTER, POD_NAMESPACE
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
    edited,
    free_name,
    identity,
    joined_peer,
    joined_port,
    names,
    new_object,
    of_its_own,
    unnamed,
)
from mcdoctor.policy.ports import TRANSPORTS
from mcdoctor.policy.world import DomainName, Node, Pod

_DNS = {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s-app": "kube-dns"}


def edits(wanted: Wanted) -> Iterator[Edit]:
    family = wanted.engine.compiled[wanted.packet.cluster]["cilium"]
    if not isinstance(family, Cilium):
        return
    packet = wanted.packet
    ports = _ports(wanted)
    if ports is None:
        return
    kinds = (NAMESPACED[1], CLUSTERWIDE[1])
    here = [
        policy
        for policy, _ in family.selecting(packet.subject)
        if packet.direction in policy.sides and policy.ref.kind in kinds
    ]
    for policy in here:
        for field, items in _peers(wanted, family, policy.namespace, policy.nodes):
            yield from _in_policy(wanted, policy, field, items, ports)
        yield from _lent(wanted, policy, ports)
    subject = packet.subject
    if isinstance(subject, Pod) and managed(subject):
        labels = identity(wanted.engine, subject, family.config.labels.keeps)
        refs = {d.ref for d in wanted.by}
        foreign = 0 if any(policy.ref in refs for policy in here) else FOREIGN
        for field, items in _peers(wanted, family, subject.namespace, False) if labels else ():
            for rules in _rules(field, items, ports):
                name = free_name(wanted, names(wanted, subject.namespace, NAMESPACED))
                spec = {"endpointSelector": {"matchLabels": labels}, packet.direction.value: rules}
                raw = new_object("cilium.io/v2", NAMESPACED[1], subject.namespace, name, spec)
                yield Edit((raw,), True, of_its_own(wanted, NAMESPACED[1]), POLICY + foreign)


def _ports(wanted: Wanted) -> Raw | None:
    packet = wanted.packet
    if packet.icmp is not None:
        if packet.icmp.type is None:
            wanted.reasons.append(
                Words(
                    "a Cilium rule names ICMP by its type, and the question says none",
                    "Cilium 규칙은 ICMP type을 지정해야 하는데 질문에 type이 없습니다",
                )
            )
            return None
        return {"icmps": [{"fields": [{"family": f"IPv{packet.icmp.family}", "type": packet.icmp.type}]}]}
    if packet.protocol not in TRANSPORTS:
        wanted.reasons.append(
            Words(
                f"a Cilium rule cannot name {packet.protocol}", f"Cilium 규칙은 {packet.protocol}를 지정할 수 없습니다"
            )
        )
        return None
    return {"toPorts": [{"ports": [{"port": str(packet.port or 0), "protocol": packet.protocol}]}]}


def _peers(wanted: Wanted, family: Cilium, home: str, nodes: bool) -> Iterator[tuple[str, list[Any]]]:
    """(field, its items) that may mean the far end, most exact first; `home` '' = a clusterwide policy."""
    packet = wanted.packet
    side, end = "from" if wanted.ingress else "to", packet.peer
    if isinstance(end, Pod) and managed(end):
        config = family.configs[end.cluster]
        labels = identity(wanted.engine, end, config.labels.keeps)
        if end.namespace != home:
            labels = {f"k8s:{POD_NAMESPACE}": end.namespace} | labels
        if not labels:
            return
        there = {f"k8s:{CLUSTER}": config.cluster_name} if config.ref is not None else {}
        if end.cluster == packet.cluster:
            yield f"{side}Endpoints", [{"matchLabels": labels}]
        if there and (end.cluster != packet.cluster or len(family.configs) > 1):
            yield f"{side}Endpoints", [{"matchLabels": labels | there}]
        return
    if isinstance(end, DomainName):
        if wanted.ingress:
            wanted.reasons.append(unnamed("CiliumNetworkPolicy", end))
        else:
            yield "toFQDNs", [{"matchName": end.name}]
        return
    if isinstance(end, (Pod, Node)):
        for entity in ("kube-apiserver", "host", "remote-node"):
            if not (nodes and wanted.ingress is False and entity == "host"):
                yield f"{side}Entities", [entity]
    exact, wider = blocks(wanted)
    if exact:
        yield f"{side}CIDR", exact
    if wider:
        yield f"{side}CIDR", wider


def _spec(raw: Raw, policy: Policy, wanted: Wanted) -> Any:
    """The part of the object that this rule of the repository was read from."""
    pointer = policy.sides[wanted.packet.direction].pointer
    value: Any = raw
    for step in pointer.split("/")[1:-1]:
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def _in_policy(wanted: Wanted, policy: Policy, field: str, items: list[Any], ports: Raw) -> Iterator[Edit]:
    section = wanted.packet.direction.value
    side = policy.sides[wanted.packet.direction]
    for number, _ in enumerate(side.allows):

        def join(raw: Raw, number: int = number) -> bool:
            rule = _spec(raw, policy, wanted)[section][number]
            if set(rule) != {field, *ports} or _plain(rule) != ports:
                return False
            rule[field] += items
            return True

        raw = edited(policy.object, join)
        if raw is not None:
            yield Edit((raw,), False, joined_peer(wanted, policy.ref, number), ITEM)

    for rules in _rules(field, items, ports):

        def add(raw: Raw, rules: list[Raw] = rules) -> None:
            spec = _spec(raw, policy, wanted)
            spec[section] = [*(spec.get(section) or []), *rules]

        raw = edited(policy.object, add)
        if raw is not None:
            yield Edit((raw,), False, added_rule(wanted, policy.ref), RULE)


def _plain(rule: Raw) -> Raw:
    """The ports of a rule in the form of `_ports`, with nothing else that they demand."""
    if "icmps" in rule:
        return {"icmps": rule["icmps"]}
    listed = [{"port": str(p["port"]), "protocol": p.get("protocol", "ANY")} for p in rule["toPorts"][0]["ports"]]
    return {"toPorts": [{"ports": listed}] if set(rule["toPorts"][0]) == {"ports"} else rule["toPorts"]}


def _lent(wanted: Wanted, policy: Policy, ports: Raw) -> Iterator[Edit]:
    """The port, or the request, added to a rule that has the peer."""
    packet = wanted.packet
    section = packet.direction.value
    http = packet.http
    for number, rule in enumerate(policy.sides[packet.direction].allows):
        if rule.ports is None or "toPorts" not in ports:
            continue

        def lend(raw: Raw, number: int = number) -> bool:
            listed = _spec(raw, policy, wanted)[section][number]["toPorts"]
            if set(listed[0]) == {"ports"}:
                listed[0]["ports"] += ports["toPorts"][0]["ports"]
            else:
                listed += ports["toPorts"]
            return True

        raw = edited(policy.object, lend)
        if raw is not None:
            yield Edit((raw,), False, joined_port(wanted, policy.ref, number), PORT, reuses=True)
        if http is None or (http.method is None and http.path is None):
            continue

        def request(raw: Raw, number: int = number) -> bool:
            item = {"method": http.method, "path": (http.path or "").partition("?")[0]}
            asked = {key: _literal(value) for key, value in item.items() if value}
            found = False
            for each in _spec(raw, policy, wanted)[section][number]["toPorts"]:
                if "http" in (each.get("rules") or {}):
                    each["rules"]["http"] += [asked]
                    found = True
            return found

        raw = edited(policy.object, request)
        if raw is not None:
            yield Edit((raw,), False, _request(wanted, policy, number), ITEM, reuses=True)


def _literal(text: str) -> str:
    """As a regular expression that means just this text."""
    return "".join(f"\\{c}" if c in ".+*?()|[]{}^$\\" else c for c in text)


def _request(wanted: Wanted, policy: Policy, number: int) -> Words:
    http = wanted.packet.http
    what = " ".join(part for part in (http.method, http.path) if part) if http else ""
    return Words(
        f"add the request {what} to rule {number} of {policy.ref}",
        f"{policy.ref}의 {number}번 규칙에 {what} 요청을 추가합니다",
    )


def _rules(field: str, items: list[Any], ports: Raw) -> Iterator[list[Raw]]:
    """The rule; for a name also with the look-up that it may still need."""
    rule = {field: items, **ports}
    yield [rule]
    if field == "toFQDNs":
        yield [rule, _look_up(items)]


def _look_up(items: list[Any]) -> Raw:
    """Look-ups of the name through Cilium's DNS proxy, without which toFQDNs knows no address."""
    ports = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": items}}
    return {"toEndpoints": [{"matchLabels": dict(_DNS)}], "toPorts": [ports]}
