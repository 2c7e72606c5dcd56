"""Short builders of raw Kubernetes objects for tests of the policy engine; everything is what kubectl would give."""

from __future__ import annotations

from typing import Any

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import Engine, load
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Direction
from mcdoctor.policy.world import ClusterInput, DomainName, End, Node, Outside, Pod


def namespace(name: str, **labels: str) -> dict[str, Any]:
    meta = {"name": name, "labels": {k.replace("__", "/").replace("_", "-"): v for k, v in labels.items()}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def pod(
    namespace: str,
    name: str,
    labels: dict[str, str] | None = None,
    *,
    ip: str | list[str] = "",
    ports: dict[str, int | str] | None = None,
    node: str = "n1",
    account: str = "default",
    host_network: bool = False,
    containers: tuple[str, ...] = ("app",),
    native_sidecars: tuple[str, ...] = (),
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """`ports`: container port name -> number, or "53/UDP"; of the first container."""
    ips = [ip] if isinstance(ip, str) else ip
    listed = []
    for port_name, spec in (ports or {}).items():
        number, _, protocol = str(spec).partition("/")
        listed.append({"name": port_name, "containerPort": int(number), "protocol": protocol or "TCP"})
    spec: dict[str, Any] = {
        "nodeName": node,
        "serviceAccountName": account,
        "containers": [{"name": c, "image": "x", "ports": listed if i == 0 else []} for i, c in enumerate(containers)],
    }
    if native_sidecars:
        spec["initContainers"] = [{"name": c, "image": "x", "restartPolicy": "Always"} for c in native_sidecars]
    if host_network:
        spec["hostNetwork"] = True
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels or {}, "annotations": annotations or {}},
        "spec": spec,
        "status": {"phase": "Running", "podIP": ips[0], "podIPs": [{"ip": each} for each in ips if each]},
    }


def node(name: str, ip: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]},
    }


def service(
    namespace: str, name: str, selector: dict[str, str], ports: list[dict[str, Any]], **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": selector, "ports": ports, **spec},
    }


def obj(api_version: str, kind: str, namespace: str | None, name: str, spec: Any, **metadata: Any) -> dict[str, Any]:
    meta = {"name": name, **metadata} if namespace is None else {"namespace": namespace, "name": name, **metadata}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, "spec": spec}


def network_policy(namespace: str, name: str, spec: Any) -> dict[str, Any]:
    return obj("networking.k8s.io/v1", "NetworkPolicy", namespace, name, spec)


def one(*objects: dict[str, Any], cni: str = "", name: str = "a") -> Engine:
    """An engine over one cluster."""
    return load([ClusterInput(name, objects, cni=cni)])


def end(engine: Engine, text: str, cluster: str = "a") -> End:
    """`ns/name` a pod, `node:NAME` a node, `dns:NAME` a host name, else an address."""
    if text.startswith("node:"):
        found: Node = engine.world.clusters[cluster].nodes[text[5:]]
        return found
    if text.startswith("dns:"):
        return DomainName(text[4:])
    if "/" in text:
        namespace, _, name = text.partition("/")
        one_pod: Pod = engine.world.clusters[cluster].pods[namespace, name]
        return one_pod
    return Outside(parse_ip(text))


def packet(
    engine: Engine,
    direction: str,
    source: str,
    destination: str,
    port: int | None = 80,
    protocol: str = "TCP",
    **rest: Any,
) -> Packet:
    """A packet inside cluster "a" as its policies see it in `direction`."""
    return Packet("a", Direction(direction), end(engine, source), end(engine, destination), protocol, port, **rest)
