"""Cilium in a cluster mesh, naively: one packet against the raw objects of both clusters, every setting told.

docs.cilium.io, "Network Policy" under Cluster Mesh, "Layer 3/4/7 Examples", "Deny Policies"; named ports as in
`pkg/types/portmap.go` before 1.20 and from it on.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

from reference import cilium as single
from reference import kubernetes as np

Raw = dict[str, Any]
CLUSTER, NAMESPACE = "io.cilium.k8s.policy.cluster", "io.kubernetes.pod.namespace"


@dataclass(frozen=True)
class World:
    """`objects` by cluster; a cluster's Cilium name is its name here. `local`: policy-default-local-cluster."""

    objects: dict[str, list[Raw]]
    local: bool
    since_1_20: bool
    nodes_by_cidr: bool


@dataclass(frozen=True)
class End:
    """A raw pod or node of `cluster`, or an address outside where `raw` is a string."""

    cluster: str
    raw: Any

    @property
    def managed(self) -> bool:
        return not isinstance(self.raw, str) and self.raw["kind"] == "Pod" and not np.host(self.raw)

    @property
    def node(self) -> str:
        return str(self.raw["metadata"]["name"] if self.raw["kind"] == "Node" else self.raw["spec"]["nodeName"])

    @property
    def address(self) -> str:
        if isinstance(self.raw, str):
            return self.raw
        if self.raw["kind"] == "Node":
            return str(self.raw["status"]["addresses"][0]["address"])
        return str(self.raw["status"]["podIP"])


@dataclass(frozen=True)
class Asked:
    port: int
    protocol: str
    icmp: int | None
    http: tuple[str, str] | None
    """(method, path)."""


def chosen(selector: Raw, end: End, world: World, namespace: str, here: str) -> bool:
    """A peer selector: the policy's namespace unless it names one, the local cluster (if so set) unless it names one."""
    if not end.managed:
        return False
    plain = {
        "matchLabels": {single.bare(k): v for k, v in (selector.get("matchLabels") or {}).items()},
        "matchExpressions": [e | {"key": single.bare(e["key"])} for e in selector.get("matchExpressions") or []],
    }
    keys = [*plain["matchLabels"], *(e["key"] for e in plain["matchExpressions"])]
    own_space = any(k == NAMESPACE or k.startswith("io.cilium.k8s.namespace.labels.") for k in keys)
    if namespace and not own_space and end.raw["metadata"]["namespace"] != namespace:
        return False
    if world.local and CLUSTER not in keys and end.cluster != here:
        return False
    return np.selects(plain, single.identity(end.raw, world.objects[end.cluster]) | {CLUSTER: end.cluster})


def native_peer(peer: Raw, end: End, world: World, namespace: str, here: str) -> bool:
    """A NetworkPolicy peer: pods of every meshed cluster unless selectors mean the local one; never pods by address."""
    if "ipBlock" in peer:
        return in_block(peer["ipBlock"]["cidr"], peer["ipBlock"].get("except") or [], end, world)
    if not end.managed or (world.local and end.cluster != here):
        return False
    return (
        np.peer_matches(peer, {"metadata": {"namespace": namespace}}, end.raw, world.objects[end.cluster], False)
        is True
    )


def in_block(cidr: str, holes: list[str], end: End, world: World) -> bool:
    if end.managed or (not isinstance(end.raw, str) and not world.nodes_by_cidr):
        return False
    ip = ipaddress.ip_address(end.address)
    return ip in ipaddress.ip_network(cidr) and not any(ip in ipaddress.ip_network(hole) for hole in holes)


def entity(name: str, end: End, subject: End, here: str) -> bool:
    if name == "all":
        return True
    if isinstance(end.raw, str):
        return name == "world" or name == f"world-ipv{ipaddress.ip_address(end.raw).version}"
    if end.managed:
        return name == "cluster" and end.cluster == here
    own = end.cluster == here and end.node == subject.node
    return name in ("cluster", "host" if own else "remote-node")


def ports_named(name: str, protocol: str, destination: End, egress: bool, world: World) -> set[int]:
    def of(raw: Raw) -> set[int]:
        return {
            p["containerPort"]
            for c in raw["spec"]["containers"]
            for p in c.get("ports") or []
            if p.get("name") == name and p.get("protocol", "TCP") == protocol
        }

    if egress and not world.since_1_20:  # the one number that all pods of the mesh agree on
        everyone = [o for objects in world.objects.values() for o in objects if o["kind"] == "Pod" and not np.host(o)]
        numbers = {number for raw in everyone for number in of(raw)}
        return numbers if len(numbers) == 1 else set()
    return of(destination.raw) if destination.managed else set()


def port_rule(rule: Raw, asked: Asked, destination: End, egress: bool, world: World, deny: bool) -> str:
    """ "yes", "no", or "perhaps" where it hangs on a request that was not told."""
    if asked.icmp is not None:
        return "no"
    for item in rule.get("ports") or []:
        if item.get("protocol", "ANY") not in ("ANY", asked.protocol):
            continue
        if item["port"].isdigit():
            low = int(item["port"])
            covered = low == 0 or low <= asked.port <= (item.get("endPort") or low)
        else:
            covered = asked.port in ports_named(item["port"], asked.protocol, destination, egress, world)
        if covered:
            break
    else:
        return "no"
    http = (rule.get("rules") or {}).get("http") or []
    if not http or deny:
        return "yes"
    answers = []
    for each in http:
        if not each:
            return "yes"
        if asked.http is None:
            answers.append("perhaps")
            continue
        method, path = asked.http
        fits = re.fullmatch(each.get("method", ".*"), method) and re.fullmatch(each.get("path", ".*"), path)
        answers.append("yes" if fits else "no")
    return "yes" if "yes" in answers else "perhaps" if "perhaps" in answers else "no"


def cilium_rule(
    rule: Raw,
    end: End,
    subject: End,
    destination: End,
    asked: Asked,
    egress: bool,
    world: World,
    namespace: str,
    here: str,
    deny: bool,
) -> str:
    side = "to" if egress else "from"
    peers = [f for f in ("Endpoints", "Entities", "CIDR", "CIDRSet") if side + f in rule]
    if not peers and not rule.get("toPorts") and not rule.get("icmps"):
        return "no"  # an empty rule
    matched = not peers
    for field in peers:
        for item in rule[side + field]:
            matched = matched or {
                "Endpoints": lambda i: chosen(i, end, world, namespace, here),
                "Entities": lambda i: entity(i, end, subject, here),
                "CIDR": lambda i: in_block(i, [], end, world),
                "CIDRSet": lambda i: in_block(i["cidr"], i.get("except") or [], end, world),
            }[field](item)
    if not matched:
        return "no"
    if rule.get("icmps"):
        types = [f["type"] for each in rule["icmps"] for f in each["fields"]]
        return "yes" if asked.icmp in types else "no"
    if rule.get("toPorts"):
        answers = [port_rule(each, asked, destination, egress, world, deny) for each in rule["toPorts"]]
        return "yes" if "yes" in answers else "perhaps" if "perhaps" in answers else "no"
    return "yes"


def native_rule(
    rule: Raw, end: End, destination: End, asked: Asked, egress: bool, world: World, namespace: str, here: str
) -> bool:
    peers, ports = rule.get("to" if egress else "from") or [], rule.get("ports") or []
    if peers and not any(native_peer(p, end, world, namespace, here) for p in peers):
        return False
    if not ports:
        return True
    for item in ports:
        if asked.icmp is None and item.get("protocol", "TCP") == asked.protocol:
            wanted = item.get("port")
            if wanted is None:
                return True
            if isinstance(wanted, str):
                if asked.port in ports_named(wanted, asked.protocol, destination, egress, world):
                    return True
            elif wanted <= asked.port <= item.get("endPort", wanted):
                return True
    return False


def verdict(world: World, here: str, direction: str, source: End, destination: End, asked: Asked) -> str:
    """What the policies of cluster `here` say in one direction ("ingress" or "egress")."""
    egress = direction == "egress"
    subject, end = (source, destination) if egress else (destination, source)
    if (
        not egress
        and not end.managed
        and not isinstance(end.raw, str)
        and end.cluster == here
        and end.node == subject.node
    ):
        return np.ALLOWED  # a node reaches its own pods
    closed, admitted = False, set()
    for policy in world.objects[here]:
        namespace = policy["metadata"].get("namespace", "")
        if policy["kind"] in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"):
            for spec in [policy["spec"]] if "spec" in policy else policy["specs"]:
                if not single.selected(spec["endpointSelector"], subject.raw, world.objects[here], namespace, True):
                    continue
                allows, denies = spec.get(direction) or [], spec.get(direction + "Deny") or []
                if (allows or denies) and spec.get("enableDefaultDeny", {}).get(direction, True):
                    closed = True
                for rule in denies:
                    if (
                        cilium_rule(rule, end, subject, destination, asked, egress, world, namespace, here, True)
                        == "yes"
                    ):
                        return np.DENIED
                for rule in allows:
                    admitted.add(
                        cilium_rule(rule, end, subject, destination, asked, egress, world, namespace, here, False)
                    )
        elif policy["kind"] == "NetworkPolicy" and namespace == subject.raw["metadata"]["namespace"]:
            spec = policy["spec"]
            isolates = direction.capitalize() in np.types(spec)
            if isolates and np.selects(spec.get("podSelector"), subject.raw["metadata"]["labels"]):
                closed = True
                for rule in spec.get(direction) or []:
                    if native_rule(rule, end, destination, asked, egress, world, namespace, here):
                        admitted.add("yes")
    if "yes" in admitted or not closed:
        return np.ALLOWED
    return "conditional" if "perhaps" in admitted else np.DENIED
