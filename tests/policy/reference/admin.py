"""ANP, BANP and CNP, naively: one packet against raw objects, straight from the API's comments and overview."""

from __future__ import annotations

import ipaddress
from typing import Any

from reference import kubernetes as np

Objects = np.Objects


def in_selection(selection: dict[str, Any], pod: dict[str, Any], objects: Objects) -> bool:
    """`namespaces` or `pods`; "host-networked pods are not included"."""
    if np.host(pod):
        return False
    labels = np.namespaces(objects)[pod["metadata"]["namespace"]]
    if "namespaces" in selection:
        return np.selects(selection["namespaces"], labels)
    both = selection["pods"]
    return np.selects(both["namespaceSelector"], labels) and np.selects(both["podSelector"], pod["metadata"]["labels"])


def peer_matches(peer: dict[str, Any], end: Any, objects: Objects) -> bool:
    if "networks" in peer:
        return any(
            ipaddress.ip_address(a) in ipaddress.ip_network(n) for a in np.addresses(end) for n in peer["networks"]
        )
    if "nodes" in peer:  # "matching on the IPs present in the node.Status.Addresses field"
        if not isinstance(end, str) and not np.host(end):
            return False
        own = np.addresses(end)
        return any(
            address["address"] in own
            for node in objects
            if node["kind"] == "Node" and np.selects(peer["nodes"], node["metadata"]["labels"])
            for address in node["status"]["addresses"]
        )
    return not isinstance(end, str) and in_selection(peer, end, objects)


def port_matches(item: dict[str, Any], destination: Any, port: int, protocol: str) -> bool:
    if "portNumber" in item:
        return item["portNumber"].get("protocol", "TCP") == protocol and item["portNumber"]["port"] == port
    if "portRange" in item:
        span = item["portRange"]
        return span.get("protocol", "TCP") == protocol and bool(span["start"] <= port <= span["end"])
    for name in ("namedPort", "destinationNamedPort"):
        if name in item:
            return np.port_matches({"port": item[name], "protocol": protocol}, destination, port, protocol)
    if protocol.lower() not in item:
        return False
    wanted = item[protocol.lower()].get("destinationPort")
    if wanted is None:
        return True
    if "number" in wanted:
        return bool(wanted["number"] == port)
    return bool(wanted["range"]["start"] <= port <= wanted["range"]["end"])


def tier(
    objects: Objects, admin: bool, direction: str, source: Any, destination: Any, port: int, protocol: str
) -> set[str]:
    """The actions possible: one of Allow, Deny, Pass, or none (empty); several where equal priorities differ."""
    subject, peer = (destination, source) if direction == "Ingress" else (source, destination)
    found: dict[int, set[str]] = {}
    for policy in objects:
        kind, spec = policy["kind"], policy.get("spec", {})
        if kind == "AdminNetworkPolicy":
            belongs, priority = admin, spec["priority"]
        elif kind == "BaselineAdminNetworkPolicy":
            belongs, priority = not admin, 5000
        elif kind == "ClusterNetworkPolicy":
            belongs, priority = (spec["tier"] == "Admin") == admin, spec["priority"]
        else:
            continue
        if not belongs or not in_selection(spec["subject"], subject, objects):
            continue
        for rule in spec[direction.lower()]:
            ports = rule.get("ports") or rule.get("protocols")
            if ports and not any(port_matches(item, destination, port, protocol) for item in ports):
                continue
            if any(peer_matches(p, peer, objects) for p in rule["from" if direction == "Ingress" else "to"]):
                found.setdefault(priority, set()).add(rule["action"].replace("Accept", "Allow"))
                break
    return found[min(found)] if found else set()


def direction_verdict(
    objects: Objects, direction: str, source: Any, destination: Any, port: int, protocol: str, covers: bool | None
) -> str:
    """Admin tier, then NetworkPolicy for the pods it isolates, then the baseline tier, then allowed."""
    subject = destination if direction == "Ingress" else source
    if isinstance(subject, str) or np.host(subject):
        return np.ALLOWED
    arguments = (direction, source, destination, port, protocol)
    verdicts = set()
    for action in tier(objects, True, *arguments) or {"Pass"}:
        if action != "Pass":
            verdicts.add(np.ALLOWED if action == "Allow" else np.DENIED)
            continue
        isolated = any(
            p["kind"] == "NetworkPolicy"
            and p["metadata"]["namespace"] == subject["metadata"]["namespace"]
            and np.selects(p["spec"].get("podSelector"), subject["metadata"]["labels"])
            and direction in np.types(p["spec"])
            for p in objects
        )
        if isolated:
            verdicts.add(np.direction_verdict(objects, *arguments, covers))
        else:
            for last in tier(objects, False, *arguments) or {"Pass"}:
                verdicts.add(np.DENIED if last == "Deny" else np.ALLOWED)
    return verdicts.pop() if len(verdicts) == 1 else np.UNKNOWN
