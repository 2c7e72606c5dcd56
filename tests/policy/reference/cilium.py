"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy with NetworkPolicy, naively: one packet against raw objects.

docs.cilium.io, "Overview of Network Policy" and "Layer 3/4 Examples". One cluster; L3, L4, denies, default deny.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from reference import kubernetes as np

Objects = np.Objects


def identity(pod: dict[str, Any], objects: Objects) -> dict[str, str]:
    meta = pod["metadata"]
    labels = dict(meta["labels"])
    labels["io.kubernetes.pod.namespace"] = meta["namespace"]
    labels["io.cilium.k8s.policy.serviceaccount"] = pod["spec"].get("serviceAccountName", "default")
    for key, value in np.namespaces(objects)[meta["namespace"]].items():
        labels["io.cilium.k8s.namespace.labels." + key] = value
    return labels


def bare(key: str) -> str:
    return key.split(":", 1)[1] if key.startswith(("k8s:", "any:")) else key


def selected(selector: dict[str, Any], pod: dict[str, Any], objects: Objects, namespace: str, implied: bool) -> bool:
    """`implied`: a namespaced policy's selector means its own namespace unless it names one."""
    plain = {
        "matchLabels": {bare(k): v for k, v in (selector.get("matchLabels") or {}).items()},
        "matchExpressions": [e | {"key": bare(e["key"])} for e in selector.get("matchExpressions") or []],
    }
    keys = [*plain["matchLabels"], *(e["key"] for e in plain["matchExpressions"])]
    names = any(k == "io.kubernetes.pod.namespace" or k.startswith("io.cilium.k8s.namespace.labels.") for k in keys)
    if namespace and (implied or not names) and pod["metadata"]["namespace"] != namespace:
        return False
    return np.selects(plain, identity(pod, objects))


def entity(name: str, end: Any, subject: dict[str, Any]) -> bool:
    if name == "all":
        return True
    if isinstance(end, str):
        return name == "world"
    if np.host(end):
        own = end["spec"]["nodeName"] == subject["spec"]["nodeName"]
        return name == "cluster" or name == ("host" if own else "remote-node")
    return name == "cluster"


def inside(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr, strict=False)


def refused(spec: dict[str, Any]) -> bool:
    """ "FromEndpoints, FromCIDR, FromCIDRSet and FromEntities are mutually exclusive. Only one of these members may be
    present within an individual rule."
    """
    sections = [(s, "from") for s in ("ingress", "ingressDeny")] + [(s, "to") for s in ("egress", "egressDeny")]
    rules = [(rule, side) for section, side in sections for rule in spec.get(section) or []]
    return any(sum(bool(rule.get(side + f)) for f in ("Endpoints", "Entities", "CIDR", "CIDRSet")) > 1 for rule, side in rules)  # fmt: skip


def l3(rule: dict[str, Any], side: str, end: Any, subject: dict[str, Any], objects: Objects, namespace: str) -> bool:
    fields = [f for f in ("Endpoints", "Entities", "CIDR", "CIDRSet") if side + f in rule]
    if not fields:
        return True
    for field in fields:
        for item in rule[side + field]:
            pod = not isinstance(end, str) and not np.host(end)
            if field == "Endpoints" and pod and selected(item, end, objects, namespace, False):
                return True
            if field == "Entities" and entity(item, end, subject):
                return True
            if field == "CIDR" and isinstance(end, str) and inside(end, item):
                return True
            if field == "CIDRSet" and isinstance(end, str):
                holes = any(inside(end, e) for e in item.get("except") or [])
                if inside(end, item["cidr"]) and not holes:
                    return True
    return False


def l4(rule: dict[str, Any], destination: Any, port: int, protocol: str) -> bool:
    if not rule.get("toPorts"):
        return True
    for block in rule["toPorts"]:
        for item in block["ports"]:
            if item.get("protocol", "ANY") not in ("ANY", protocol):
                continue
            if not item["port"].isdigit():
                if np.port_matches({"port": item["port"], "protocol": protocol}, destination, port, protocol):
                    return True
            elif item["port"] == "0" or int(item["port"]) <= port <= (item.get("endPort") or int(item["port"])):
                return True
    return False


def without_blocks(policy: dict[str, Any]) -> dict[str, Any]:
    """A NetworkPolicy as it stands towards a node: "CIDR rules do not apply to nodes"."""
    never = {"podSelector": {"matchLabels": {"never": "never"}}}
    spec = dict(policy["spec"])
    for section, peers in (("ingress", "from"), ("egress", "to")):
        rules = []
        for rule in spec.get(section) or []:
            if rule.get(peers):
                told = rule | {peers: [never if "ipBlock" in peer else peer for peer in rule[peers]]}
                rules.append(told)
            else:
                rules.append(rule)
        if section in spec:
            spec[section] = rules
    return policy | {"spec": spec}


def direction_verdict(
    objects: Objects, direction: str, source: Any, destination: Any, port: int, protocol: str, covers: bool | None
) -> str:
    subject, end = (destination, source) if direction == "Ingress" else (source, destination)
    if isinstance(subject, str) or np.host(subject):
        return np.ALLOWED
    if not isinstance(destination, str) and np.host(destination):
        # Port names of pods on the host network are not known to agents (updatePodHostData in pkg/k8s/watchers/pod.go).
        destination = destination | {"spec": destination["spec"] | {"containers": []}}
        end = destination if direction == "Egress" else end
    section, side = direction.lower(), "from" if direction == "Ingress" else "to"
    closed, admitted = False, False
    for policy in objects:
        if policy["kind"] not in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"):
            continue
        namespace, spec = policy["metadata"].get("namespace", ""), policy["spec"]
        if refused(spec):
            continue
        if not selected(spec["endpointSelector"], subject, objects, namespace, True):
            continue
        allows, denies = spec.get(section) or [], spec.get(section + "Deny") or []
        if (
            allows or denies
        ):  # without rules in a direction a policy does nothing there, whatever enableDefaultDeny says
            closed = closed or spec.get("enableDefaultDeny", {}).get(section, True)
        for rules, deny in ((denies, True), (allows, False)):
            for rule in rules:
                if not rule:
                    continue
                if l3(rule, side, end, subject, objects, namespace) and l4(rule, destination, port, protocol):
                    if deny:
                        return np.DENIED
                    admitted = True
    isolated = [
        p
        for p in objects
        if p["kind"] == "NetworkPolicy"
        and p["metadata"]["namespace"] == subject["metadata"]["namespace"]
        and np.selects(p["spec"].get("podSelector"), subject["metadata"]["labels"])
        and direction in np.types(p["spec"])
    ]
    if isolated:
        closed = True
        known = [without_blocks(o) for o in isolated] if not isinstance(end, str) and np.host(end) else isolated
        known += [o for o in objects if o["kind"] == "Namespace"]
        verdict = np.direction_verdict(known, direction, source, destination, port, protocol, False)
        if verdict == np.ALLOWED:
            # Deny rules of policies further down were all looked at above; an allow of either sort is enough.
            admitted = True
    return np.ALLOWED if admitted or not closed else np.DENIED
