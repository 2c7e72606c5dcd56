"""Small Kubernetes objects for tests."""

from __future__ import annotations

from datetime import UTC, datetime

from mcdoctor.models.facts import KubeObject, Listed
from mcdoctor.models.vantage import Vantage

AT = datetime(2026, 1, 1, tzinfo=UTC)


def thing(cluster, kind, name, namespace="app", *, version="v1", labels=None, annotations=None, spec=None, status=None, **rest):
    body = {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "labels": labels or {}, "annotations": annotations or {}},
        "spec": spec or {},
        "status": status or {},
        **rest,
    }
    if namespace:
        body["metadata"]["namespace"] = namespace
    return KubeObject(at=AT, vantage=Vantage(cluster=cluster), cluster=cluster, body=body)


def pod(cluster, name, app, ip, *, ready=True, namespace="app", containers=None, node="n1"):
    return thing(
        cluster, "Pod", name, namespace,
        labels={"app": app},
        spec={"nodeName": node, "containers": containers or [{"name": "app", "ports": [{"containerPort": 8080, "name": "web"}]}]},
        status={"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    )  # fmt: skip


def deployment(cluster, name, namespace="app"):
    return thing(cluster, "Deployment", name, namespace, version="apps/v1", spec={"selector": {"matchLabels": {"app": name}}})


def service(cluster, name, namespace="app", *, ip="10.96.0.10", ports=None, selector=True, **kw):
    spec = {"clusterIP": ip, "ports": ports or [{"name": "http", "port": 80, "targetPort": "web"}]}
    if selector:
        spec["selector"] = {"app": name}
    return thing(cluster, "Service", name, namespace, spec=spec | kw.pop("spec", {}), **kw)


def slice_of(cluster, name, addresses, namespace="app", *, port=8080, ready=True, port_name="http"):
    return thing(
        cluster, "EndpointSlice", f"{name}-x", namespace, version="discovery.k8s.io/v1",
        labels={"kubernetes.io/service-name": name},
        ports=[{"name": port_name, "port": port}],
        endpoints=[{"addresses": [a], "conditions": {"ready": ready}} for a in addresses],
    )  # fmt: skip


def namespace(cluster, name):
    return thing(cluster, "Namespace", name, None)


def listed(cluster, kind, namespace="app"):
    return Listed(at=AT, vantage=Vantage(cluster=cluster), cluster=cluster, wanted=kind, namespace=namespace, count=0)
