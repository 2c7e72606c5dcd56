"""Worlds of the exam: raw objects of one or two clusters, as kubectl gives them."""

from __future__ import annotations

from typing import Any

from policy_build import namespace, network_policy, node, obj, pod, service

Raw = dict[str, Any]
PROXY = {"native_sidecars": ("istio-proxy",)}
MESHED = {"containers": ("app", "linkerd-proxy")}


def labelled(raw: Raw, labels: dict[str, str]) -> Raw:
    raw["metadata"]["labels"] = {**raw["metadata"].get("labels", {}), **labels}
    return raw


def istio_world(*more: Raw, ambient: bool = False) -> list[Raw]:
    """shop/web and shop/api (HTTP) and shop/db (TCP) in the mesh, other/bare outside of it."""
    mesh: dict[str, Any] = {} if ambient else PROXY
    shop = namespace("shop")
    if ambient:
        labelled(shop, {"istio.io/dataplane-mode": "ambient"})
    return [
        shop, namespace("other"), namespace("istio-system"), node("n1", "172.16.0.1"), node("n2", "172.16.0.2"),
        pod("shop", "web", {"app": "web"}, ip="10.0.0.1", account="web", node="n2", **mesh),
        pod("shop", "api", {"app": "api"}, ip="10.0.0.2", account="api", ports={"http": 8080}, **mesh),
        pod("shop", "db", {"app": "db"}, ip="10.0.0.4", account="db", ports={"tcp-sql": 5432}, **mesh),
        pod("other", "bare", {"app": "bare"}, ip="10.0.0.3", account="bare", node="n2"),
        service("shop", "api", {"app": "api"}, [{"name": "http", "port": 80, "targetPort": 8080}]),
        service("shop", "db", {"app": "db"}, [{"name": "tcp-sql", "port": 5432, "targetPort": 5432}]),
        *more,
    ]  # fmt: skip


def authz(name: str, spec: Any, home: str = "shop", **metadata: Any) -> Raw:
    return obj("security.istio.io/v1", "AuthorizationPolicy", home, name, spec, **metadata)


def peer(name: str, spec: Any, home: str = "shop", **metadata: Any) -> Raw:
    return obj("security.istio.io/v1", "PeerAuthentication", home, name, spec, **metadata)


def request(name: str, spec: Any, home: str = "shop") -> Raw:
    return obj("security.istio.io/v1", "RequestAuthentication", home, name, spec)


def sidecar(spec: Any) -> Raw:
    return obj("networking.istio.io/v1", "Sidecar", "shop", "default", spec)


def entry(host: str, port: int = 443) -> Raw:
    return obj(
        "networking.istio.io/v1", "ServiceEntry", "shop", "out", {"hosts": [host], "ports": [{"number": port, "name": "tls", "protocol": "TLS"}]}
    )  # fmt: skip


def config_map(home: str, name: str, **data: str) -> Raw:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": home, "name": name}, "data": data}


def mesh(text: str) -> Raw:
    return config_map("istio-system", "istio", mesh=text)


def waypoint(*more: Raw) -> list[Raw]:
    """The ambient world with a waypoint in front of the Service shop/api."""
    front = labelled(
        service("shop", "api", {"app": "api"}, [{"name": "http", "port": 80, "targetPort": 8080}]),
        {"istio.io/use-waypoint": "wp"},
    )
    own = {"gateway.networking.k8s.io/gateway-name": "wp", "gateway.istio.io/managed": "istio.io-mesh-controller"}
    runs = pod("shop", "wp-1", own, ip="10.0.0.8", node="n2", account="wp", containers=("istio-proxy",))
    return [*istio_world(*more, ambient=True), front, runs]


def calico_world(*more: Raw) -> list[Raw]:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "data", "name": "store", "labels": {"role": "storage"}}}  # fmt: skip
    return [
        namespace("shop", team="a"), namespace("data", team="b"), node("n1", "172.16.0.1"), node("n2", "172.16.0.2"),
        pod("shop", "web", {"app": "web"}, ip="10.0.0.1", node="n1", account="front"),
        pod("shop", "tool", {"app": "tool", "env": "dev"}, ip="10.0.0.3", node="n1"),
        pod("data", "db", {"app": "db"}, ip="10.0.0.2", ports={"sql": 5432}, node="n2", account="store"),
        pod("data", "job", {"app": "web"}, ip="10.0.0.5", node="n1", account="front"),
        account, *more,
    ]  # fmt: skip


def cnp(name: str, home: str = "data", **spec: Any) -> Raw:
    return obj("projectcalico.org/v3", "NetworkPolicy", home, name, spec)


def gnp(name: str, **spec: Any) -> Raw:
    return obj("projectcalico.org/v3", "GlobalNetworkPolicy", None, name, spec)


def tier(name: str, **spec: Any) -> Raw:
    return obj("projectcalico.org/v3", "Tier", None, name, spec)


def calico(kind: str, home: str | None, name: str, spec: Any, **metadata: Any) -> Raw:
    return obj("projectcalico.org/v3", kind, home, name, spec, **metadata)


def linkerd_world(*more: Raw, home: dict[str, str] | None = None, own: dict[str, str] | None = None) -> list[Raw]:
    shop = namespace("shop")
    shop["metadata"]["annotations"] = home or {}
    api = pod("shop", "api", {"app": "api"}, ip="10.0.0.2", ports={"http": 8080}, annotations=own, **MESHED)
    return [
        shop, namespace("old"), node("n1", "172.16.0.1"),
        pod("shop", "web", {"app": "web"}, ip="10.0.0.1", account="web-sa", **MESHED), api,
        pod("old", "job", {"app": "job"}, ip="10.0.0.9", node="n9"), *more,
    ]  # fmt: skip


def linkerd(kind: str, name: str, spec: Any, version: str = "v1alpha1", home: str = "shop") -> Raw:
    return obj(f"policy.linkerd.io/{version}", kind, home, name, spec)


def server(**spec: Any) -> Raw:
    body = {"podSelector": {"matchLabels": {"app": "api"}}, "port": 8080, **spec}
    return linkerd("Server", "api", body, "v1beta3")


def grants(kind: str, name: str, *refs: tuple[str, str]) -> Raw:
    """An AuthorizationPolicy of a target, by its references."""
    group = "" if kind == "Namespace" else "policy.linkerd.io"
    listed = [{"group": "" if k == "ServiceAccount" else "policy.linkerd.io", "kind": k, "name": n} for k, n in refs]
    spec = {"targetRef": {"group": group, "kind": kind, "name": name}, "requiredAuthenticationRefs": listed}
    return linkerd("AuthorizationPolicy", f"for-{name}", spec)


def route(name: str, path: str) -> Raw:
    spec = {
        "parentRefs": [{"group": "policy.linkerd.io", "kind": "Server", "name": "api"}],
        "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}]}],
    }
    return linkerd("HTTPRoute", name, spec, "v1beta3")


# --- two clusters ---------------------------------------------------------------------------------------------------


def a_side(*more: Raw, **extra: Any) -> list[Raw]:
    web = pod("shop", "web", {"app": "web"}, ip="10.1.0.1", node="a1", account="web", **extra)
    return [namespace("shop"), node("a1", "172.16.0.1"), web, *more]


def b_side(*more: Raw, **extra: Any) -> list[Raw]:
    api = pod("shop", "api", {"app": "api"}, ip="10.2.0.1", node="b1", account="api", ports={"http": 8080}, **extra)
    return [namespace("shop"), node("b1", "172.17.0.1"), node("b2", "172.17.0.2"), api, *more]


def admits(*peers: Raw, port: int | str = 8080, home: str = "shop", name: str = "in") -> Raw:
    rule = {"from": list(peers), "ports": [{"port": port}]}
    return network_policy(home, name, {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule]})


def lets_out(*peers: Raw, port: int | str = 8080) -> Raw:
    rule = {"to": list(peers), "ports": [{"port": port}]}
    return network_policy("shop", "out", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]})


def block(cidr: str) -> Raw:
    return {"ipBlock": {"cidr": cidr}}


def of(home: str, **labels: str) -> Raw:
    """Pods of a namespace, by labels."""
    found: Raw = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": home}}}
    return found | ({"podSelector": {"matchLabels": labels}} if labels else {})


def network(name: str) -> Raw:
    return labelled(namespace("istio-system"), {"topology.istio.io/network": name})


def east_west(port: int = 15443) -> list[Raw]:
    """The east-west gateway of cluster b."""
    labels = {"istio": "eastwestgateway"}
    outer = service("istio-system", "istio-eastwestgateway", labels, [{"name": "tls", "port": port, "targetPort": port}], type="LoadBalancer", externalIPs=["203.0.113.9"])  # fmt: skip
    outer["metadata"]["labels"] = {"istio": "eastwestgateway", "topology.istio.io/network": "net-b"}
    runs = pod("istio-system", "gw-1", labels, ip="10.2.9.1", node="b2", account="gw", containers=("istio-proxy",))
    return [network("net-b"), runs, outer]


def global_cidrs() -> list[Raw]:
    return [
        obj("submariner.io/v1", "Cluster", "submariner-operator", name, {"cluster_id": name, "global_cidr": [cidr]})
        for name, cidr in (("a", "242.1.0.0/16"), ("b", "242.2.0.0/16"))
    ]
