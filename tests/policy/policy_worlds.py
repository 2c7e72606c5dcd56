"""Seeded worlds: small ones full of odd policies for comparison with naive evaluators, large ones for measuring."""

from __future__ import annotations

import random
from typing import Any

Raw = dict[str, Any]
APPS = ("web", "api", "db")
TIERS = ("front", "back")
TEAMS = ("red", "blue")
PORT_NAMES = ("http", "sql", "metrics")


def _labels(rng: random.Random) -> dict[str, str]:
    labels = {"app": rng.choice(APPS)}
    if rng.random() < 0.6:
        labels["tier"] = rng.choice(TIERS)
    return labels


def _selector(rng: random.Random, keys: dict[str, tuple[str, ...]]) -> Raw:
    selector: Raw = {}
    if rng.random() < 0.3:
        return selector
    key = rng.choice(list(keys))
    if rng.random() < 0.6:
        selector["matchLabels"] = {key: rng.choice(keys[key])}
    else:
        operator = rng.choice(("In", "NotIn", "Exists", "DoesNotExist"))
        expression: Raw = {"key": key, "operator": operator}
        if operator in ("In", "NotIn"):
            expression["values"] = rng.sample(keys[key], rng.randint(1, len(keys[key])))
        selector["matchExpressions"] = [expression]
    return selector


def _pods(rng: random.Random) -> Raw:
    return _selector(rng, {"app": APPS, "tier": TIERS})


def _namespaces(rng: random.Random) -> Raw:
    return _selector(rng, {"team": TEAMS, "kubernetes.io/metadata.name": ("n0", "n1", "n2")})


def _peer(rng: random.Random) -> Raw:
    kind = rng.random()
    if kind < 0.3:
        return {"podSelector": _pods(rng)}
    if kind < 0.5:
        return {"namespaceSelector": _namespaces(rng)}
    if kind < 0.7:
        return {"namespaceSelector": _namespaces(rng), "podSelector": _pods(rng)}
    block: Raw = {"cidr": rng.choice(("10.0.0.0/8", "10.0.0.0/30", "0.0.0.0/0", "192.0.2.0/24", "fd00::/16"))}
    if block["cidr"] in ("10.0.0.0/8", "0.0.0.0/0") and rng.random() < 0.5:
        block["except"] = [rng.choice(("10.0.0.0/31", "10.0.0.4/32"))]
    return {"ipBlock": block}


def _port(rng: random.Random) -> Raw:
    item: Raw = {}
    if rng.random() < 0.5:
        item["protocol"] = rng.choice(("TCP", "UDP", "SCTP"))
    kind = rng.random()
    if kind < 0.4:
        item["port"] = rng.choice((80, 8080, 5432))
    elif kind < 0.6:
        item["port"] = rng.choice((80, 1000))
        item["endPort"] = rng.choice((1000, 8080, 9000))
    elif kind < 0.9:
        item["port"] = rng.choice(PORT_NAMES)
    return item


def _rule(rng: random.Random, peers: str) -> Raw:
    rule: Raw = {}
    if rng.random() < 0.8:
        rule[peers] = [_peer(rng) for _ in range(rng.randint(0, 2))]
    if rng.random() < 0.7:
        rule["ports"] = [_port(rng) for _ in range(rng.randint(0, 2))]
    return rule


def network_policy(rng: random.Random, namespace: str, name: str) -> Raw:
    spec: Raw = {"podSelector": _pods(rng)}
    if rng.random() < 0.7:
        spec["ingress"] = [_rule(rng, "from") for _ in range(rng.randint(0, 2))]
    if rng.random() < 0.6:
        spec["egress"] = [_rule(rng, "to") for _ in range(rng.randint(0, 2))]
    if rng.random() < 0.6:
        spec["policyTypes"] = rng.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"], []))
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    }


def _admin_peer(rng: random.Random, egress: bool) -> Raw:
    kind = rng.random()
    if kind < 0.35:
        return {"namespaces": _namespaces(rng)}
    if kind < 0.7 or not egress:
        return {"pods": {"namespaceSelector": _namespaces(rng), "podSelector": _pods(rng)}}
    if kind < 0.9:
        return {
            "networks": rng.sample(
                ["10.0.0.0/30", "10.0.0.0/8", "192.0.2.0/24", "0.0.0.0/0", "::/0"], rng.randint(1, 2)
            )
        }
    return {"nodes": _selector(rng, {"zone": ("z0", "z1")})}


def _admin_port(rng: random.Random, named: bool) -> Raw:
    """v1alpha1."""
    kind = rng.random()
    if kind < 0.5:
        return {"portNumber": {"protocol": rng.choice(("TCP", "UDP", "SCTP")), "port": rng.choice((80, 8080, 5432))}}
    if kind < 0.75 or not named:
        return {"portRange": {"start": rng.choice((80, 1000)), "end": rng.choice((1000, 8080))}}
    return {"namedPort": rng.choice(PORT_NAMES)}


def _cluster_protocol(rng: random.Random, named: bool) -> Raw:
    """v1alpha2."""
    if named and rng.random() < 0.25:
        return {"destinationNamedPort": rng.choice(PORT_NAMES)}
    protocol = rng.choice(("tcp", "udp", "sctp"))
    kind = rng.random()
    if kind < 0.2:
        return {protocol: {}}
    if kind < 0.6:
        return {protocol: {"destinationPort": {"number": rng.choice((80, 8080, 5432))}}}
    return {protocol: {"destinationPort": {"range": {"start": 80, "end": rng.choice((1000, 9000))}}}}


def admin_policy(rng: random.Random, kind: str, name: str) -> Raw:
    """An AdminNetworkPolicy, a BaselineAdminNetworkPolicy or a ClusterNetworkPolicy."""
    second = kind == "ClusterNetworkPolicy"
    actions = ["Accept" if second else "Allow", "Deny", *([] if kind == "BaselineAdminNetworkPolicy" else ["Pass"])]

    def rules(egress: bool) -> list[Raw]:
        found = []
        for _ in range(rng.randint(0, 2)):
            peers = [_admin_peer(rng, egress) for _ in range(rng.randint(1, 2))]
            named = not any(key in peer for peer in peers for key in ("networks", "nodes"))
            rule: Raw = {"action": rng.choice(actions), "to" if egress else "from": peers}
            if rng.random() < 0.5:
                if second:
                    rule["protocols"] = [_cluster_protocol(rng, named) for _ in range(rng.randint(1, 2))]
                else:
                    rule["ports"] = [_admin_port(rng, named) for _ in range(rng.randint(1, 2))]
            found.append(rule)
        return found

    subject: Raw = {"namespaces": _namespaces(rng)}
    if rng.random() < 0.5:
        subject = {"pods": {"namespaceSelector": _namespaces(rng), "podSelector": _pods(rng)}}
    spec: Raw = {"subject": subject, "ingress": rules(False), "egress": rules(True)}
    if kind != "BaselineAdminNetworkPolicy":
        spec["priority"] = rng.randint(0, 3)
    if second:
        spec["tier"] = rng.choice(("Admin", "Baseline"))
    version = "v1alpha2" if second else "v1alpha1"
    meta = {"name": "default" if kind == "BaselineAdminNetworkPolicy" else name}
    return {"apiVersion": f"policy.networking.k8s.io/{version}", "kind": kind, "metadata": meta, "spec": spec}


def small_admin(rng: random.Random) -> list[Raw]:
    """A small world with nodes, NetworkPolicies and policies of the admin kinds (of one API generation, as in real
    life).
    """
    objects = small(rng)
    for number in range(6):
        labels = {"zone": f"z{number % 2}"} if number else {}
        addresses = [{"type": "InternalIP", "address": "172.16.0.5" if number == 5 else f"172.16.1.{number}"}]
        meta = {"name": f"node{number}", "labels": labels}
        objects.append({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"addresses": addresses}})
    if rng.random() < 0.5:
        kinds = ["AdminNetworkPolicy"] * rng.randint(0, 3) + ["BaselineAdminNetworkPolicy"] * rng.randint(0, 1)
    else:
        kinds = ["ClusterNetworkPolicy"] * rng.randint(1, 4)
    return objects + [admin_policy(rng, kind, f"admin{number}") for number, kind in enumerate(kinds)]


def small(rng: random.Random) -> list[Raw]:
    """Three namespaces, six pods (one dual-stack, perhaps one on the host network), up to five NetworkPolicies."""
    objects: list[Raw] = []
    for number in range(3):
        labels = {"team": rng.choice(TEAMS)} if rng.random() < 0.7 else {}
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"n{number}", "labels": labels}})
    for number in range(6):
        ips = [f"10.0.0.{number + 1}"]
        ports = [
            {"name": name, "containerPort": rng.choice((80, 8080, 5432)), "protocol": rng.choice(("TCP", "TCP", "UDP"))}
            for name in rng.sample(PORT_NAMES, rng.randint(0, 2))
        ]
        spec: Raw = {"nodeName": f"node{number}", "containers": [{"name": "app", "ports": ports}]}
        if number == 5 and rng.random() < 0.5:
            spec["hostNetwork"] = True
            ips = ["172.16.0.5"]
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"namespace": f"n{number % 3}", "name": f"p{number}", "labels": _labels(rng)},
                "spec": spec,
                "status": {"phase": "Running", "podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]},
            }
        )
    for number in range(rng.randint(0, 5)):
        objects.append(network_policy(rng, f"n{rng.randrange(3)}", f"np{number}"))
    return objects


def large(pods: int, policies: int, namespaces: int, seed: int = 7) -> list[Raw]:
    """`pods` and `policies` spread evenly over namespaces; 40 different workloads a namespace at most; policies as
    people
    write them: an isolating subject, two rules with label pairs, some across namespaces, some CIDRs, some named
    ports."""
    rng = random.Random(seed)
    objects: list[Raw] = []
    for number in range(namespaces):
        labels = {"team": f"t{number % 20}", "env": rng.choice(("prod", "stage"))}
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"ns{number}", "labels": labels}})
    for number in range(pods):
        home = number % namespaces
        app = (number // namespaces) % 40
        labels = {"app": f"app{app}", "tier": TIERS[app % 2], "pod-template-hash": f"{app:010x}", "version": "v1"}
        ip = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"namespace": f"ns{home}", "name": f"app{app}-{number}", "labels": labels},
                "spec": {
                    "nodeName": f"node{number % 200}",
                    "serviceAccountName": "default",
                    "containers": [
                        {"name": "app", "image": "registry/app:1", "ports": [{"name": "http", "containerPort": 8080}]}
                    ],
                },
                "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
            }
        )
    for number in range(policies):
        home = number % namespaces
        peers: list[Raw] = [{"podSelector": {"matchLabels": {"app": f"app{rng.randrange(40)}"}}}]
        if rng.random() < 0.5:
            other: Raw = {"namespaceSelector": {"matchLabels": {"team": f"t{rng.randrange(20)}"}}}
            if rng.random() < 0.5:
                other["podSelector"] = {"matchLabels": {"tier": rng.choice(TIERS)}}
            peers.append(other)
        if rng.random() < 0.2:
            peers.append({"ipBlock": {"cidr": f"192.168.{rng.randrange(256)}.0/24"}})
        ports: list[Raw] = [{"port": rng.choice((8080, 9090, "http"))}]
        spec: Raw = {"podSelector": {"matchLabels": {"app": f"app{rng.randrange(40)}"}}}
        if rng.random() < 0.7:
            spec |= {"policyTypes": ["Ingress"], "ingress": [{"from": peers, "ports": ports}]}
        else:
            spec |= {"policyTypes": ["Egress"], "egress": [{"to": peers, "ports": ports}]}
        objects.append(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"namespace": f"ns{home}", "name": f"policy{number}"},
                "spec": spec,
            }
        )
    return objects
