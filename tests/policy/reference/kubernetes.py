"""NetworkPolicy v1, naively: one packet against raw objects, straight from the documents, nothing shared with the
engine.

kubernetes.io/docs/concepts/services-networking/network-policies and the comments of `networking/v1/types.go`.
"""

from __future__ import annotations

import ipaddress
from typing import Any

Objects = list[dict[str, Any]]
ALLOWED, DENIED, UNKNOWN = "allowed", "denied", "unknown"


def namespaces(objects: Objects) -> dict[str, dict[str, str]]:
    found = {}
    for each in objects:
        if each["kind"] == "Namespace":
            name = each["metadata"]["name"]
            found[name] = {**(each["metadata"].get("labels") or {}), "kubernetes.io/metadata.name": name}
    return found


def selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """ "The result of matchLabels and matchExpressions are ANDed. An empty label selector matches all objects."""
    selector = selector or {}
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
        if operator == "In" and not (key in labels and labels[key] in values):
            return False
        if operator == "NotIn" and key in labels and labels[key] in values:
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True


def types(spec: dict[str, Any]) -> list[str]:
    """ "If this field is not specified, it will default based on the existence of ingress or egress rules"."""
    if spec.get("policyTypes"):
        return list(spec["policyTypes"])
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def host(pod: dict[str, Any]) -> bool:
    return bool(pod["spec"].get("hostNetwork"))


def addresses(end: Any) -> list[str]:
    return [end] if isinstance(end, str) else [entry["ip"] for entry in end["status"]["podIPs"]]


def peer_matches(peer: dict[str, Any], policy: dict[str, Any], end: Any, objects: Objects, covers: bool | None) -> Any:
    """True, False, or None when it hangs on whether ipBlock covers pods. `end`: a raw pod or an address."""
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        inside = False
        for address in addresses(end):
            ip = ipaddress.ip_address(address)
            excepted = any(ip in ipaddress.ip_network(e, strict=False) for e in block.get("except") or [])
            inside = inside or (ip in ipaddress.ip_network(block["cidr"], strict=False) and not excepted)
        if isinstance(end, str) or host(end) or not inside:
            return inside
        return covers
    if isinstance(end, str) or host(end):
        return False
    labels, namespace = end["metadata"]["labels"], end["metadata"]["namespace"]
    if peer.get("namespaceSelector") is None:
        return namespace == policy["metadata"]["namespace"] and selects(peer["podSelector"], labels)
    return selects(peer["namespaceSelector"], namespaces(objects)[namespace]) and selects(
        peer.get("podSelector"), labels
    )


def port_matches(item: dict[str, Any], destination: Any, port: int, protocol: str) -> bool:
    if item.get("protocol", "TCP") != protocol:
        return False
    wanted = item.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        if isinstance(destination, str):
            return False
        running = list(destination["spec"]["containers"])
        running += [c for c in destination["spec"].get("initContainers") or [] if c.get("restartPolicy") == "Always"]
        return any(
            p.get("name") == wanted and p["containerPort"] == port and p.get("protocol", "TCP") == protocol
            for container in running
            for p in container.get("ports") or []
        )
    return bool(wanted <= port <= item.get("endPort", wanted))


def direction_verdict(
    objects: Objects, direction: str, source: Any, destination: Any, port: int, protocol: str, covers: bool | None
) -> str:
    """One direction. `direction`: Ingress or Egress."""
    subject, peer = (destination, source) if direction == "Ingress" else (source, destination)
    if isinstance(subject, str) or host(subject):
        return ALLOWED
    selecting = [
        p
        for p in objects
        if p["kind"] == "NetworkPolicy"
        and p["metadata"]["namespace"] == subject["metadata"]["namespace"]
        and selects(p["spec"].get("podSelector"), subject["metadata"]["labels"])
        and direction in types(p["spec"])
    ]
    if not selecting:
        return ALLOWED
    perhaps = False
    for policy in selecting:
        for rule in policy["spec"].get(direction.lower()) or []:
            ports, peers = rule.get("ports") or [], rule.get("from" if direction == "Ingress" else "to") or []
            if ports and not any(port_matches(item, destination, port, protocol) for item in ports):
                continue
            matches = [peer_matches(item, policy, peer, objects, covers) for item in peers] or [True]
            if True in matches:
                return ALLOWED
            perhaps = perhaps or None in matches
    return UNKNOWN if perhaps else DENIED
