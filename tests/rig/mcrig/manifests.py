"""What runs in the two clusters, as manifests.

The pair: Deployment `frontend` in A calls Service `backend` in A, an ExternalName for
`backend.demo.svc.cluster-b.internal`. A's CoreDNS forwards that zone to B's CoreDNS on a node port; B answers with
the ClusterIP of its own Service `backend`, which the routers carry to B's node: a flat network with a stub zone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mcrig import images
from mcrig.cluster import SITES, Site

DNS_NODE_PORT = 30053
NAMESPACE = "demo"


def dump(objects: Sequence[object]) -> str:
    """As JSON: YAML would read the label value `y` as a truth value."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def corefile(site: Site, stub_target: str | None = None) -> str:
    """CoreDNS's configuration. `stub_target` replaces the address and port to which the other cluster's zone goes."""
    other = SITES[1] if site is SITES[0] else SITES[0]
    target = stub_target or f"{other.node}:{DNS_NODE_PORT}"
    return f"""\
.:53 {{
    errors
    health {{
        lameduck 1s
    }}
    ready
    kubernetes cluster.local {site.zone} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    forward . /etc/resolv.conf
    cache 5
    loop
    reload 5s
}}
{other.zone}:53 {{
    errors
    cache 5
    forward . {target}
}}
"""


def upstream_corefile(site: Site) -> str:
    """The resolver beyond the cluster, on the router: it knows no name at all, and says so."""
    return f""".:53 {{
    bind 192.168.{site.octet}.1
    template ANY ANY . {{
        rcode NXDOMAIN
        authority ". 60 IN SOA a.root-servers.net. nstld.verisign-grs.com. 1 1800 900 604800 60"
    }}
}}
"""


def coredns(site: Site, configuration: str | None = None) -> str:
    labels = {"k8s-app": "kube-dns"}
    meta = {"namespace": "kube-system"}
    return dump(
        [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "coredns", **meta}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "system:coredns"},
                "rules": [
                    {
                        "apiGroups": [""],
                        "resources": ["endpoints", "services", "pods", "namespaces"],
                        "verbs": ["list", "watch"],
                    },
                    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
                ],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "system:coredns"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
                "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
            },
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "coredns", **meta},
                "data": {"Corefile": configuration or corefile(site)},
            },
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "coredns", "labels": labels, **meta},
                "spec": {
                    "replicas": 1,
                    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "serviceAccountName": "coredns",
                            "dnsPolicy": "Default",
                            "terminationGracePeriodSeconds": 2,
                            "containers": [
                                {
                                    "name": "coredns",
                                    "image": images.COREDNS,
                                    "imagePullPolicy": "IfNotPresent",
                                    "args": ["-conf", "/etc/coredns/Corefile"],
                                    "ports": [
                                        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                                        {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                                    ],
                                    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                                    "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
                                }
                            ],
                            "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
                        },
                    },
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "kube-dns", "labels": labels, **meta},
                "spec": {"clusterIP": site.dns, "selector": labels, "ports": _dns_ports()},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "dns-for-peers", "labels": labels, **meta},
                "spec": {"type": "NodePort", "selector": labels, "ports": _dns_ports(DNS_NODE_PORT)},
            },
        ]
    )


def _dns_ports(node_port: int | None = None) -> list[dict[str, object]]:
    extra = {"nodePort": node_port} if node_port else {}
    return [
        {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP", **extra},
        {"name": "dns-tcp", "port": 53, "targetPort": 53, "protocol": "TCP", **extra},
    ]


def deployment(
    name: str, environment: dict[str, str], ready_port: int | None = 8080, replicas: int = 1
) -> dict[str, object]:
    """A Deployment of the small HTTP server, as a plain user, fit for the `restricted` Pod Security level."""
    container: dict[str, object] = {
        "name": "app",
        "image": images.APP,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": key, "value": value} for key, value in {"NAME": name, **environment}.items()],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if environment.get("MODE") != "idle":
        container["ports"] = [{"name": "http", "containerPort": 8080}]
        if ready_port:
            container["readinessProbe"] = {"tcpSocket": {"port": ready_port}, "periodSeconds": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "securityContext": {
                        "runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}
                    },
                    "containers": [container],
                },
            },
        },
    }  # fmt: skip


def backend_service() -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "backend", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "backend"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }


def demo_workloads(site: Site) -> tuple[str, ...]:
    return ("frontend",) if site is SITES[0] else ("backend",)


def demo(site: Site) -> str:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    if site is SITES[1]:
        return dump([namespace, deployment("backend", {}), backend_service()])
    remote = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "backend", "namespace": NAMESPACE},
        "spec": {
            "type": "ExternalName",
            "externalName": f"backend.{NAMESPACE}.svc.{SITES[1].zone}",
            "ports": [{"name": "http", "port": 80}],
        },
    }
    return dump([namespace, deployment("frontend", {"MODE": "idle"}), remote])
