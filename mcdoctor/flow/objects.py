"""Reading raw Kubernetes objects: workloads to pods, Services to backends. Pure; tolerant of odd shapes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcdoctor.flow import kinds
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import KubeObject
from mcdoctor.models.flow import Backend, Pod, Protocol, ServicePort

_PROXIES = {"istio-proxy": "istio", "linkerd-proxy": "linkerd"}


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def maps(value: Any) -> Iterable[Mapping[str, Any]]:
    """The objects in a list that should hold objects."""
    return (v for v in sequence(value) if isinstance(v, Mapping))


def matches(selector: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """A label selector with matchLabels and matchExpressions; an empty one matches everything."""
    for key, value in mapping(selector.get("matchLabels")).items():
        if labels.get(key) != value:
            return False
    for expression in maps(selector.get("matchExpressions")):
        key, values = str(expression.get("key")), sequence(expression.get("values"))
        match expression.get("operator"):
            case "In":
                if labels.get(key) not in values:
                    return False
            case "NotIn":
                if key in labels and labels[key] in values:
                    return False
            case "Exists":
                if key not in labels:
                    return False
            case "DoesNotExist":
                if key in labels:
                    return False
            case _:
                return False
    return True


def containers(pod: KubeObject) -> Iterable[Mapping[str, Any]]:
    """Containers, and init containers that keep running (native sidecars)."""
    yield from maps(pod.spec.get("containers"))
    yield from (c for c in maps(pod.spec.get("initContainers")) if c.get("restartPolicy") == "Always")


def proxy_of(pod: KubeObject, namespace_labels: Mapping[str, str]) -> str | None:
    """istio or linkerd with a sidecar, ztunnel when enrolled in ambient, else None."""
    for container in containers(pod):
        if proxy := _PROXIES.get(str(container.get("name"))):
            return proxy
    mode = pod.labels.get("istio.io/dataplane-mode", namespace_labels.get("istio.io/dataplane-mode"))
    if mode == "ambient" and pod.annotations.get("ambient.istio.io/redirection", "enabled") == "enabled":
        return "ztunnel"
    return None


def pod_of(facts: Facts, body: KubeObject) -> Pod:
    """The Pod of a pod object."""
    ips = tuple(str(i["ip"]) for i in maps(body.status.get("podIPs")) if i.get("ip"))
    if not ips and body.status.get("podIP"):
        ips = (str(body.status["podIP"]),)
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in maps(body.status.get("conditions")))
    namespace = facts.object(kinds.NAMESPACE, body.cluster, None, body.namespace or "")
    return Pod(
        cluster=body.cluster,
        namespace=body.namespace or "default",
        name=body.name,
        ips=ips,
        node=body.spec.get("nodeName"),
        phase=body.status.get("phase"),
        ready=ready,
        host_network=bool(body.spec.get("hostNetwork")),
        proxy=proxy_of(body, namespace.labels if namespace else {}),
    )


def pods_of(facts: Facts, workload: KubeObject) -> tuple[Pod, ...]:
    """The living pods of a workload, a Service or a pod, ready ones first, by name."""
    if workload.kind == kinds.POD:
        return (pod_of(facts, workload),)
    if workload.kind == kinds.SERVICE:
        labels = mapping(workload.spec.get("selector"))
        selector: Mapping[str, Any] = {"matchLabels": labels} if labels else {}
    else:
        selector = mapping(workload.spec.get("selector"))
    if not selector:
        return ()
    pods = [
        pod_of(facts, p)
        for p in facts.objects(kinds.POD, workload.cluster, workload.namespace)
        if matches(selector, p.labels) and p.status.get("phase") not in ("Succeeded", "Failed")
    ]
    return tuple(sorted(pods, key=lambda p: (not p.ready, p.name)))


def port_entry(service: KubeObject, wanted: str | None) -> Mapping[str, Any] | None:
    """The port of a Service (or ServiceImport) that is meant: by number or name, else its only, HTTP-like or first."""
    ports = [p for p in maps(service.spec.get("ports")) if p.get("port") is not None]
    if wanted is not None:
        return next((p for p in ports if wanted in (str(p["port"]), p.get("name"))), None)
    for preferred in ("http", "https", "grpc", "h2"):
        for port in ports:
            if str(port.get("name") or "").startswith(preferred) or str(port.get("appProtocol") or "") == preferred:
                return port
    return next((p for p in ports if p.get("protocol", "TCP") == "TCP"), ports[0] if ports else None)


def service_port(facts: Facts, service: KubeObject, wanted: str | None) -> ServicePort:
    """A Service or ServiceImport with the port that is meant and the backends of its EndpointSlices."""
    spec = service.spec
    entry = port_entry(service, wanted)
    imported = service.kind.startswith("ServiceImport")
    ips = sequence(spec.get("ips") if imported else spec.get("clusterIPs")) or [spec.get("clusterIP")]
    addresses = tuple(str(a) for a in ips if a and a != "None")
    backends = backends_of(facts, service, entry)
    target = str(entry.get("targetPort", entry["port"])) if entry else None
    if target and not target.isdigit():
        target = next((str(b.port) for b in backends), target)
    return ServicePort(
        cluster=service.cluster,
        namespace=service.namespace or "default",
        name=service.name,
        type="ServiceImport" if imported else str(spec.get("type") or "ClusterIP"),
        cluster_ips=addresses,
        external_name=spec.get("externalName") if spec.get("type") == "ExternalName" else None,
        port=int(entry["port"]) if entry and str(entry["port"]).isdigit() else None,
        port_name=entry.get("name") if entry else None,
        target=target,
        app_protocol=entry.get("appProtocol") if entry else None,
        headless=spec.get("clusterIP") == "None" or (imported and spec.get("type") == "Headless"),
        backends=backends,
    )


def slices_of(facts: Facts, service: KubeObject) -> tuple[KubeObject, ...]:
    """The EndpointSlices of a Service, or of a ServiceImport by the labels of the MCS API."""
    found = []
    for piece in facts.objects(kinds.SLICE, service.cluster, service.namespace):
        imported = piece.labels.get("multicluster.kubernetes.io/service-name")
        if piece.labels.get("kubernetes.io/service-name") == service.name or (
            service.kind.startswith("ServiceImport") and imported == service.name
        ):
            found.append(piece)
    return tuple(found)


def backends_of(facts: Facts, service: KubeObject, entry: Mapping[str, Any] | None) -> tuple[Backend, ...]:
    """Addresses behind the port, from EndpointSlices, else from Endpoints."""
    found: dict[tuple[str, int], Backend] = {}
    for piece in slices_of(facts, service):
        number = _slice_port(piece.body.get("ports"), entry)
        for endpoint in maps(piece.body.get("endpoints")):
            conditions = mapping(endpoint.get("conditions"))
            reference = mapping(endpoint.get("targetRef"))
            for address in sequence(endpoint.get("addresses")):
                if number is None:
                    continue
                pod = None
                if reference.get("kind") == "Pod":
                    pod = f"{reference.get('namespace', service.namespace)}/{reference.get('name')}"
                source = piece.labels.get("multicluster.kubernetes.io/source-cluster")
                found[(str(address), number)] = Backend(
                    cluster=source or service.cluster,
                    address=str(address),
                    port=number,
                    ready=conditions.get("ready") is not False,
                    pod=pod,
                    node=endpoint.get("nodeName"),
                    zone=endpoint.get("zone"),
                )
    if not found:
        plain = facts.object(kinds.ENDPOINTS, service.cluster, service.namespace, service.name)
        for subset in maps(plain.body.get("subsets") if plain else None):
            number = _slice_port(subset.get("ports"), entry)
            for key, ready in (("addresses", True), ("notReadyAddresses", False)):
                for address in maps(subset.get(key)):
                    if number is None or not address.get("ip"):
                        continue
                    found[(str(address["ip"]), number)] = Backend(
                        cluster=service.cluster, address=str(address["ip"]), port=number, ready=ready
                    )
    return tuple(found.values())


def _slice_port(ports: Any, entry: Mapping[str, Any] | None) -> int | None:
    """The number in a slice that belongs to the Service's port, matched by name."""
    numbered = [p for p in maps(ports) if isinstance(p.get("port"), int)]
    if entry is not None:
        for port in numbered:
            if (port.get("name") or "") == (entry.get("name") or ""):
                return int(port["port"])
        if len(numbered) == 1 and not numbered[0].get("name"):
            return int(numbered[0]["port"])
        return None
    return int(numbered[0]["port"]) if numbered else None


_BY_NAME: tuple[tuple[str, Protocol], ...] = (
    ("https", "https"), ("http2", "h2c"), ("http", "http"), ("grpc", "grpc"), ("h2c", "h2c"), ("h2", "h2c"),
    ("tls", "tls"), ("tcp", "tcp"), ("udp", "udp"), ("mysql", "tcp"), ("redis", "tcp"), ("mongo", "tcp"),
    ("postgres", "tcp"), ("amqp", "tcp"), ("kafka", "tcp"), ("web", "http"),
)  # fmt: skip
_BY_NUMBER: Mapping[int, Protocol] = {
    80: "http", 8080: "http", 8000: "http", 443: "https", 8443: "https", 50051: "grpc",
    5432: "tcp", 3306: "tcp", 6379: "tcp", 27017: "tcp", 5672: "tcp", 9092: "tcp",
}  # fmt: skip
_APP_PROTOCOLS: Mapping[str, Protocol] = {
    "kubernetes.io/h2c": "h2c", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https",
    "http2": "h2c", "h2c": "h2c", "http": "http", "https": "https", "grpc": "grpc", "tls": "tls", "tcp": "tcp",
}  # fmt: skip


def protocol_of(port: ServicePort | None, number: int | None, probe_scheme: str | None = None) -> Protocol | None:
    """What is spoken on a port: appProtocol, the readiness probe, the port's name, a well-known number; else None."""
    if port is not None and port.app_protocol and (known := _APP_PROTOCOLS.get(port.app_protocol.lower())):
        return known
    if probe_scheme:
        return "https" if probe_scheme.upper() == "HTTPS" else "http"
    if port is not None and port.port_name:
        for prefix, protocol in _BY_NAME:
            if port.port_name == prefix or port.port_name.startswith(f"{prefix}-"):
                return protocol
    return _BY_NUMBER.get(number or 0)


def readiness_request(facts: Facts, service: KubeObject | None, target: str | None) -> tuple[str, str] | None:
    """(scheme, path) of the HTTP readiness probe on the target port of a pod behind the Service."""
    if service is None or not mapping(service.spec.get("selector")):
        return None
    selector = {"matchLabels": mapping(service.spec.get("selector"))}
    for pod in facts.objects(kinds.POD, service.cluster, service.namespace):
        if not matches(selector, pod.labels):
            continue
        for container in maps(pod.spec.get("containers")):
            request = mapping(mapping(container.get("readinessProbe")).get("httpGet"))
            if not request:
                continue
            names = {str(p.get("name")): str(p.get("containerPort")) for p in maps(container.get("ports"))}
            port = str(request.get("port"))
            if target is None or target in (port, names.get(port)):
                return str(request.get("scheme") or "HTTP"), str(request.get("path") or "/")
    return None


def address_kind(text: str) -> int | None:
    """4 or 6 for an address, None for a name."""
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return None
