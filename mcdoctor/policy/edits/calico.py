"""Edits of Calico's NetworkPolicy and GlobalNetworkPolicy, in the tier whose end refuses.

In a tier before the last a rule may also pass the traffic on: then the tiers after it still decide, where an Allow
would skip them.
"""

from __future__ import annotations

from collections.abc import Iterator

from mcdoctor.policy.calico import BASELINE_TIER, DEFAULT_TIER, GLOBAL_POLICY, GROUPS, V1, V3
from mcdoctor.policy.calico import POLICY as KIND
from mcdoctor.policy.edits.edit import (
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
    local_pod,
    names,
    new_object,
    of_its_own,
    spec_of,
    unnamed,
)
from mcdoctor.policy.ports import TRANSPORTS
from mcdoctor.policy.world import DomainName, Object, Pod


def edits(wanted: Wanted) -> Iterator[Edit]:
    packet = wanted.packet
    section = packet.direction.value
    near, far = ("source", "destination") if wanted.ingress else ("destination", "destination")
    refusing = list(wanted.holding(GROUPS, (KIND, GLOBAL_POLICY)))
    for obj in refusing:
        tier = _tier(obj)
        for peer in _peers(wanted, obj.ref.namespace):
            for number in range(len(spec_of(obj).get(section) or ())):
                yield from _in_rule(wanted, obj, number, near, peer)
            for action in ("Pass", "Allow") if tier not in (DEFAULT_TIER, BASELINE_TIER) else ("Allow",):
                rule = _rule(wanted, action, near, far, peer)

                def add(raw: Raw, rule: Raw = rule) -> None:
                    spec = raw["spec"]
                    spec[section] = [*(spec.get(section) or []), rule]
                    if not spec.get("types"):
                        spec["types"] = (
                            ["Ingress", "Egress"]
                            if spec.get("ingress") and spec.get("egress")
                            else [section.capitalize()]
                        )

                raw = edited(obj, add)
                if raw is not None:
                    yield Edit((raw,), False, added_rule(wanted, obj.ref, _passing(action, tier)), RULE)
    subject = packet.subject
    if not refusing or not isinstance(subject, Pod) or subject.host_network:
        return
    first = refusing[0]
    tier = _tier(first)
    old = str(first.raw["apiVersion"]).startswith(V1)
    prefix = f"{tier}." if old or tier != DEFAULT_TIER else ""
    version = f"{V1}/v1" if old else f"{V3}/v3"
    labels = identity(wanted.engine, subject)
    for peer in _peers(wanted, subject.namespace) if labels else ():
        for action in ("Pass", "Allow") if tier not in (DEFAULT_TIER, BASELINE_TIER) else ("Allow",):
            name = free_name(wanted, names(wanted, subject.namespace, *((group, KIND) for group in GROUPS)), prefix)
            spec: Raw = {} if tier == DEFAULT_TIER else {"tier": tier}
            spec |= {"selector": _selected(labels), "types": [section.capitalize()]}
            spec |= {section: [_rule(wanted, action, near, far, peer)]}
            told, note = of_its_own(wanted, f"Calico {KIND}"), _passing(action, tier)
            raw = new_object(version, KIND, subject.namespace, name, spec)
            yield Edit((raw,), True, Words(told.en + note[0], told.ko + note[1]), POLICY)


def _tier(obj: Object) -> str:
    return str(spec_of(obj).get("tier") or DEFAULT_TIER)


def _passing(action: str, tier: str) -> tuple[str, str]:
    if action == "Allow":
        return "", ""
    return (
        f" (Pass: the tiers after {tier} still decide)",
        f" (Pass: {tier} 다음 tier가 계속 판단합니다)",
    )


def _quoted(value: str) -> str:
    return f"'{value}'"


def _selected(labels: dict[str, str]) -> str:
    return " && ".join(f"{key} == {_quoted(value)}" for key, value in labels.items())


def _peers(wanted: Wanted, home: str) -> Iterator[Raw]:
    """The far end as fields of a rule's entity, most exact first; `home` '' = a global policy."""
    packet = wanted.packet
    pod = local_pod(wanted, packet.peer)
    if pod is not None:
        labels = identity(wanted.engine, pod)
        entity = {"selector": _selected(labels)} if labels else {}
        if pod.namespace != home:
            entity["namespaceSelector"] = f"projectcalico.org/name == {_quoted(pod.namespace)}"
        if entity:
            yield entity
        if labels:
            return
    if any(isinstance(p.peer, DomainName) for p in wanted.packets):
        wanted.reasons.append(unnamed("Calico NetworkPolicy", packet.peer))
        return
    exact, wider = blocks(wanted)
    for nets in (exact, wider):
        if nets and len({":" in net for net in nets}) == 1:
            yield {"nets": nets}


def _protocol(wanted: Wanted) -> Raw:
    packet = wanted.packet
    if packet.icmp is None:
        return {"protocol": packet.protocol}
    kind = {} if packet.icmp.type is None else {"icmp": {"type": packet.icmp.type}}
    return {"protocol": "ICMP" if packet.icmp.family == 4 else "ICMPv6", **kind}


def _rule(wanted: Wanted, action: str, near: str, far: str, peer: Raw) -> Raw:
    packet = wanted.packet
    rule: Raw = {"action": action, **_protocol(wanted), near: dict(peer)}
    if packet.port is not None and packet.protocol in TRANSPORTS:
        rule[far] = {**rule.get(far, {}), "ports": [packet.port]}
    return rule


def _in_rule(wanted: Wanted, obj: Object, number: int, near: str, peer: Raw) -> Iterator[Edit]:
    packet = wanted.packet
    section, port = packet.direction.value, packet.port

    def fits(rule: Raw) -> bool:
        return rule["action"] == "Allow" and rule.get("protocol") == packet.protocol and "http" not in rule

    def join(raw: Raw) -> bool:
        rule = raw["spec"][section][number]
        entity = rule[near]
        if not fits(rule) or port is None or rule["destination"].get("ports") not in ([port], [str(port)]):
            return False
        rest = {key: value for key, value in entity.items() if key != "ports"}
        if set(rest) != set(peer) or rest.get("namespaceSelector") != peer.get("namespaceSelector"):
            return False
        if "nets" in peer:
            entity["nets"] += peer["nets"]
        else:
            entity["selector"] = f"({entity['selector']}) || ({peer['selector']})"
        return True

    def lend(raw: Raw) -> bool:
        rule = raw["spec"][section][number]
        if not fits(rule) or port is None:
            return False
        rule["destination"]["ports"] += [port]
        return True

    raw = edited(obj, join)
    if raw is not None:
        yield Edit((raw,), False, joined_peer(wanted, obj.ref, number), ITEM)
    raw = edited(obj, lend)
    if raw is not None:
        yield Edit((raw,), False, joined_port(wanted, obj.ref, number), PORT, reuses=True)
