"""Seeded worlds in which much is refused for want of a rule: every family by itself, on its own plugin, and mixed."""

from __future__ import annotations

import random
from typing import Any

from policy_build import obj
from policy_worlds import APPS, Raw, small, small_admin

FLAVOURS = ("kubernetes", "admin", "cilium", "calico", "istio", "ambient", "linkerd", "mixed")
_KEY = "config.linkerd.io/default-inbound-policy"


def _home(rng: random.Random) -> str:
    return f"n{rng.randrange(3)}"


def _cilium(rng: random.Random, name: str) -> Raw:
    side = rng.choice(("ingress", "egress"))
    word = "from" if side == "ingress" else "to"
    rules: list[Raw] = []
    for _ in range(rng.randint(0, 2)):
        rule: Raw = rng.choice(
            [
                {f"{word}Endpoints": [{"matchLabels": {"app": rng.choice(APPS)}}]},
                {f"{word}Entities": [rng.choice(("world", "host", "remote-node"))]},
                {f"{word}CIDR": [rng.choice(("192.0.2.0/24", "198.51.100.0/25"))]},
            ]
        )
        if rng.random() < 0.7:
            ports: Raw = {"ports": [{"port": rng.choice(("80", "8080", "http")), "protocol": "TCP"}]}
            if side == "ingress" and rng.random() < 0.3:
                ports["rules"] = {"http": [{"method": "GET", "path": "/public"}]}
            rule = rule | {"toPorts": [ports]}
        rules.append(rule)
    selector = {"matchLabels": {"app": rng.choice(APPS)}} if rng.random() < 0.6 else {}
    spec: Raw = {"endpointSelector": selector, side: rules or [{}]}
    if rng.random() < 0.15:
        spec[f"{side}Deny"] = [{f"{word}Endpoints": [{"matchLabels": {"app": rng.choice(APPS)}}]}]
    if rng.random() < 0.3:
        return obj("cilium.io/v2", "CiliumClusterwideNetworkPolicy", None, name, spec)
    if rng.random() < 0.2:
        whole = obj("cilium.io/v2", "CiliumNetworkPolicy", _home(rng), name, None)
        del whole["spec"]
        return whole | {"specs": [spec]}
    return obj("cilium.io/v2", "CiliumNetworkPolicy", _home(rng), name, spec)


def _calico(rng: random.Random, name: str) -> Raw:
    side = rng.choice(("ingress", "egress"))
    end = "source" if side == "ingress" else "destination"
    rules: list[Raw] = []
    for _ in range(rng.randint(0, 2)):
        rule: Raw = {"action": rng.choice(("Allow", "Allow", "Allow", "Log", "Deny", "Pass")), "protocol": "TCP"}
        rule[end] = rng.choice(
            [{"selector": "app == 'web'"}, {"nets": ["10.0.0.2/32"]}, {"nets": ["192.0.2.0/24"]}, {}]
        )
        if rng.random() < 0.6:
            rule["destination"] = {**rule.get("destination", {}), "ports": [rng.choice((80, 8080))]}
        rules.append(rule)
    spec: Raw = {"selector": rng.choice(("all()", "app == 'api'", "has(tier)")), side: rules}
    spec["types"] = [side.capitalize()]
    if rng.random() < 0.5:
        spec["order"] = rng.choice((10, 2000))
    tier = rng.choice(("", "", "security"))
    if tier:
        spec["tier"] = tier
    name = f"{tier}.{name}" if tier else name
    if rng.random() < 0.4:
        return obj("projectcalico.org/v3", "GlobalNetworkPolicy", None, name, spec)
    return obj("projectcalico.org/v3", "NetworkPolicy", _home(rng), name, spec)


def _istio(rng: random.Random, name: str) -> Raw:
    kind = rng.random()
    if kind < 0.25:
        mode = rng.choice(("STRICT", "STRICT", "PERMISSIVE"))
        spec: Raw = {"mtls": {"mode": mode}}
        if rng.random() < 0.5:
            spec["selector"] = {"matchLabels": {"app": rng.choice(APPS)}}
        return obj("security.istio.io/v1", "PeerAuthentication", _home(rng), name, spec)
    rules: list[Raw] = []
    for _ in range(rng.randint(0, 2)):
        rule: Raw = {"from": [{"source": rng.choice([{"namespaces": ["n0"]}, {"ipBlocks": ["10.0.0.2/32"]}])}]}
        if rng.random() < 0.7:
            rule["to"] = [{"operation": rng.choice([{"ports": ["80"]}, {"methods": ["GET"]}, {"ports": ["8080"]}])}]
        rules.append(rule)
    action = "DENY" if rules and rng.random() < 0.15 else "ALLOW"
    spec = {"action": action, "rules": rules}
    if rng.random() < 0.6:
        spec["selector"] = {"matchLabels": {"app": rng.choice(APPS)}}
    home = "istio-system" if rng.random() < 0.2 else _home(rng)
    return obj("security.istio.io/v1", "AuthorizationPolicy", home, name, spec)


def _linkerd(rng: random.Random, number: int) -> list[Raw]:
    home, name = _home(rng), f"server{number}"
    spec = {"podSelector": {"matchLabels": {"app": rng.choice(APPS)}}, "port": rng.choice((80, 8080, "http"))}
    found = [obj("policy.linkerd.io/v1beta3", "Server", home, name, spec)]
    kind = rng.random()
    if kind < 0.3:
        client = {"meshTLS": {"serviceAccounts": [{"name": "default", "namespace": _home(rng)}]}}
        spec = {"server": {"name": name}, "client": client}
        found.append(obj("policy.linkerd.io/v1beta1", "ServerAuthorization", home, f"grant{number}", spec))
    elif kind < 0.6:
        ref = {"group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": f"known{number}"}
        target = {"group": "policy.linkerd.io", "kind": "Server", "name": name}
        spec = {"targetRef": target, "requiredAuthenticationRefs": [ref]}
        found.append(obj("policy.linkerd.io/v1alpha1", "AuthorizationPolicy", home, f"authz{number}", spec))
        names = {"identities": ["default.n0.serviceaccount.identity.linkerd.cluster.local"]}
        found.append(obj("policy.linkerd.io/v1alpha1", "MeshTLSAuthentication", home, f"known{number}", names))
    return found


def world(rng: random.Random, flavour: str) -> tuple[list[Raw], str]:
    """(objects, the plugin to name)."""
    cni = "kube-router"
    bare = flavour in ("istio", "ambient", "linkerd")
    objects = small_admin(rng) if flavour in ("admin", "mixed") or rng.random() < 0.3 else small(rng)
    if bare or (flavour in ("cilium", "calico") and rng.random() < 0.5):
        objects = [o for o in objects if o["kind"] in ("Pod", "Namespace", "Node")]
    count = rng.randint(1, 4)
    if flavour in ("cilium", "mixed"):
        cni = "cilium"
        objects += [_cilium(rng, f"c{n}") for n in range(count)]
        if rng.random() < 0.5:
            objects.append(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"namespace": "kube-system", "name": "cilium-config"},
                    "data": {"cluster-name": "a", "policy-default-local-cluster": "true"},
                }
            )
    if flavour == "calico":
        cni = "calico"
        objects += [_calico(rng, f"k{n}") for n in range(count)]
        objects.append(obj("projectcalico.org/v3", "Tier", None, "security", {"order": 10, "defaultAction": "Deny"}))
    if bare or flavour == "mixed":
        proxy = {"linkerd": "linkerd-proxy"}.get(flavour, "istio-proxy")
        for raw in objects:
            if raw["kind"] == "Pod" and not raw["spec"].get("hostNetwork") and rng.random() < 0.75:
                if flavour == "ambient":
                    raw["metadata"]["labels"]["istio.io/dataplane-mode"] = "ambient"
                else:
                    raw["spec"]["containers"].append({"name": proxy, "image": "x"})
                raw["spec"]["serviceAccountName"] = rng.choice(("default", raw["metadata"]["name"]))
            if flavour == "linkerd" and raw["kind"] == "Pod" and rng.random() < 0.3:
                policy = rng.choice(("deny", "all-authenticated", "cluster-authenticated"))
                raw["metadata"].setdefault("annotations", {})[_KEY] = policy
        if flavour == "linkerd":
            objects += [each for n in range(count) for each in _linkerd(rng, n)]
        else:
            objects += [_istio(rng, f"i{n}") for n in range(count)]
    return objects, cni


def key(raw: Raw) -> tuple[Any, ...]:
    meta = raw["metadata"]
    return str(raw["apiVersion"]).rpartition("/")[0], raw["kind"], meta.get("namespace"), meta["name"]
