"""Services, their endpoints and the pods behind them, read from objects of any origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import KubeObject
from mcdoctor.models.flow import Flow
from mcdoctor_checks.reading import canonical, family, fields, items, number, selected, strings, text, texts, when
from mcdoctor_checks.sight import source_proxy

STUCK = "stopped container"
SLICE = "EndpointSlice.discovery.k8s.io"
_SERVICE_NAME = "kubernetes.io/service-name"
_GLOBAL = ("service.cilium.io/global", "io.cilium/global-service")
_REMOTE_DISCOVERY = ("multicluster.linkerd.io/remote-discovery", "multicluster.linkerd.io/remote-service")


@dataclass(frozen=True, slots=True)
class Side:
    """A Service of the flow at one end; `merged`: it also has endpoints that this cluster does not list."""

    cluster: str
    namespace: str
    name: str
    service: KubeObject | None
    destination: bool
    merged: bool

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def subject(self) -> str:
        return f"Service {self.namespace}/{self.name} in {self.cluster}"


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a Service; `target` is a number or the name of a container port."""

    name: str
    port: int
    protocol: str
    target: int | str

    def __str__(self) -> str:
        return f"{self.port}/{self.name}" if self.name else str(self.port)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of an EndpointSlice. A condition that is not written counts as the API says: ready and serving."""

    address: str
    ready: bool
    serving: bool
    terminating: bool
    pod: str | None
    node: str | None


@dataclass(frozen=True, slots=True)
class Slice:
    """An EndpointSlice, or one subset of a legacy Endpoints object. `ports`: name to number, None for any port."""

    origin: KubeObject
    endpoints: tuple[Endpoint, ...]
    ports: tuple[tuple[str, int | None, str], ...]
    managed_by: str


def sides(facts: Facts) -> tuple[Side, ...]:
    """The destination's Service and, where it is another object, the one that stands for it in the source's cluster."""
    flow = facts.flow
    found: list[Side] = []
    cluster = flow.destination_cluster or flow.source_cluster
    if flow.remote is not None:
        found.append(_side(facts, flow.remote.cluster, flow.remote.namespace, flow.remote.name, destination=True))
    elif flow.name and flow.namespace and cluster and names_a_service(flow):
        found.append(_side(facts, cluster, flow.namespace, flow.name, destination=True))
    if flow.local is not None and flow.local.type != "ClusterSetIP":
        side = _side(facts, flow.local.cluster, flow.local.namespace, flow.local.name, destination=False)
        if side.service is not None and all((s.cluster, str(s)) != (side.cluster, str(side)) for s in found):
            found.append(side)
    return tuple(found)


def names_a_service(flow: Flow) -> bool:
    """False when the user named a workload or an address: that it has no Service is then no fault."""
    kind, slash, _ = flow.destination_text.partition("/")
    return not slash or kind.lower() in ("service", "services", "svc")


def _side(facts: Facts, cluster: str, namespace: str, name: str, *, destination: bool) -> Side:
    service = facts.object("Service", cluster, namespace, name)
    merged = False
    if service is not None and not destination and facts.flow.crosses_clusters:
        annotations, labels = strings(service.annotations), strings(service.labels)
        pods = facts.flow.source.pods if facts.flow.source else ()
        captured = not pods or source_proxy(facts) is not None  # pods not seen: a proxy may be in them
        layered = any(layer.layer == "l7" for layer in facts.flow.interconnect)
        merged = (
            captured
            or layered
            or any(annotations.get(a) == "true" for a in _GLOBAL)
            or any(label in labels for label in _REMOTE_DISCOVERY)
        )
    return Side(cluster, namespace, name, service, destination, merged)


def selector(service: KubeObject) -> dict[str, str]:
    """The selector, {} for a Service without one."""
    return strings(service.spec.get("selector"))


def is_external_name(service: KubeObject) -> bool:
    return service.spec.get("type") == "ExternalName"


def is_headless(service: KubeObject) -> bool:
    return service.spec.get("clusterIP") == "None"


def cluster_ips(service: KubeObject) -> tuple[str, ...]:
    """The virtual addresses; empty for headless and ExternalName."""
    found = texts(service.spec.get("clusterIPs")) or texts([service.spec.get("clusterIP")])
    return tuple(canonical(a) for a in found if family(a))


def families(service: KubeObject) -> tuple[int, ...]:
    """IP versions that the Service serves, () when nothing says so."""
    written = texts(service.spec.get("ipFamilies"))
    if written:
        return tuple(6 if f == "IPv6" else 4 for f in written)
    return tuple(dict.fromkeys(v for a in cluster_ips(service) if (v := family(a)) is not None))


def service_ports(service: KubeObject) -> tuple[Port, ...]:
    """The ports; a missing targetPort means the same number."""
    ports = []
    for entry in items(service.spec.get("ports")):
        found = number(fields(entry).get("port"))
        if found is None:
            continue
        target = fields(entry).get("targetPort")
        wanted: int | str = found if target in (None, 0, "") else (number(target) or text(target) or found)
        ports.append(Port(text(entry.get("name")), found, text(entry.get("protocol")) or "TCP", wanted))
    return tuple(ports)


def meant(side: Side, flow: Flow) -> tuple[Port, ...]:
    """The ports that the flow goes through: the one of its number, all when it names none, none when it is missing."""
    assert side.service is not None
    ports = service_ports(side.service)
    reference = flow.local if not side.destination else flow.remote
    wanted = reference.port if reference is not None and reference.port is not None else flow.port
    return ports if wanted is None else tuple(p for p in ports if p.port == wanted)


def slices_of(facts: Facts, side: Side) -> tuple[Slice, ...]:
    """The EndpointSlices of a Service; a legacy Endpoints object only where there are none."""
    found = tuple(
        _slice(o)
        for o in facts.objects(SLICE, side.cluster, side.namespace)
        if strings(o.labels).get(_SERVICE_NAME) == side.name
    )
    if found:
        return found
    legacy = facts.object("Endpoints", side.cluster, side.namespace, side.name)
    return _subsets(legacy) if legacy is not None else ()


def _slice(origin: KubeObject) -> Slice:
    endpoints = []
    for entry in map(fields, items(origin.body.get("endpoints"))):
        conditions = fields(entry.get("conditions"))
        ready = conditions.get("ready") is not False
        terminating = conditions.get("terminating") is True
        serving = conditions.get("serving")
        reference = fields(entry.get("targetRef"))
        pod = text(reference.get("name")) if reference.get("kind", "Pod") == "Pod" else ""
        for address in texts(entry.get("addresses")):
            endpoints.append(
                Endpoint(
                    canonical(address),
                    ready,
                    serving if isinstance(serving, bool) else ready,
                    terminating,
                    pod or None,
                    text(entry.get("nodeName")) or None,
                )
            )
    ports = tuple(
        (text(p.get("name")), number(p.get("port")), text(p.get("protocol")) or "TCP")
        for p in map(fields, items(origin.body.get("ports")))
    )
    return Slice(
        origin, tuple(endpoints), ports, strings(origin.labels).get("endpointslice.kubernetes.io/managed-by", "")
    )


def _subsets(origin: KubeObject) -> tuple[Slice, ...]:
    found = []
    for subset in map(fields, items(origin.body.get("subsets"))):
        endpoints = []
        for key, ready in (("addresses", True), ("notReadyAddresses", False)):
            for entry in map(fields, items(subset.get(key))):
                if address := text(entry.get("ip")):
                    reference = fields(entry.get("targetRef"))
                    pod = text(reference.get("name")) if reference.get("kind", "Pod") == "Pod" else ""
                    node = text(entry.get("nodeName")) or None
                    endpoints.append(Endpoint(canonical(address), ready, ready, False, pod or None, node))
        ports = tuple(
            (text(p.get("name")), number(p.get("port")), text(p.get("protocol")) or "TCP")
            for p in map(fields, items(subset.get("ports")))
        )
        found.append(Slice(origin, tuple(endpoints), ports, ""))
    return tuple(found) or (Slice(origin, (), (), ""),)


# --- pods ---------------------------------------------------------------------------------------------------------


def pods_of(facts: Facts, side: Side) -> tuple[KubeObject, ...]:
    """The pods that the Service's selector matches and that may serve: finished ones do not count."""
    assert side.service is not None
    wanted = selector(side.service)
    if not wanted:
        return ()
    return tuple(
        p
        for p in facts.objects("Pod", side.cluster, side.namespace)
        if selected(wanted, strings(p.labels)) and not finished(p)
    )


def finished(pod: KubeObject) -> bool:
    return pod.status.get("phase") in ("Succeeded", "Failed")


def terminating(pod: KubeObject) -> bool:
    return bool(text(fields(pod.body.get("metadata")).get("deletionTimestamp")))


def pod_ips(pod: KubeObject) -> tuple[str, ...]:
    listed = [text(fields(e).get("ip")) for e in items(pod.status.get("podIPs"))]
    return tuple(dict.fromkeys(canonical(a) for a in (*listed, text(pod.status.get("podIP"))) if a))


def condition(pod: KubeObject, kind: str) -> Mapping[str, Any]:
    return next((c for c in map(fields, items(pod.status.get("conditions"))) if c.get("type") == kind), {})


def ready(pod: KubeObject) -> bool:
    return condition(pod, "Ready").get("status") == "True" and not terminating(pod)


def young(pod: KubeObject, seconds: float) -> bool:
    """True when the pod was created less than so long before it was read."""
    created = when(fields(pod.body.get("metadata")).get("creationTimestamp"))
    return created is not None and pod.at - created < timedelta(seconds=seconds)


def containers(pod: KubeObject) -> tuple[Mapping[str, Any], ...]:
    """Containers that keep running: the plain ones and sidecars (init containers that always restart)."""
    plain = tuple(map(fields, items(pod.spec.get("containers"))))
    side = tuple(c for c in map(fields, items(pod.spec.get("initContainers"))) if c.get("restartPolicy") == "Always")
    return plain + side


def declared(pod: KubeObject) -> tuple[tuple[str, int, str], ...]:
    """Container ports as (name, number, protocol)."""
    found = []
    for container in containers(pod):
        for port in map(fields, items(container.get("ports"))):
            value = number(port.get("containerPort"))
            if value is not None:
                found.append((text(port.get("name")), value, text(port.get("protocol")) or "TCP"))
    return tuple(found)


def resolve(pod: KubeObject, port: Port) -> int | None:
    """The number of the target port on this pod; None when the pod has no port of that name and protocol."""
    if isinstance(port.target, int):
        return port.target
    return next((n for name, n, proto in declared(pod) if name == port.target and proto == port.protocol), None)


def why_not_ready(pod: KubeObject) -> str:
    """The reason in Kubernetes' own words, most telling first."""
    if terminating(pod):
        return "Terminating"
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"{text(scheduled.get('reason')) or 'not scheduled'}: {text(scheduled.get('message'))}".rstrip(": ")
    for status in _statuses(pod):
        waiting = text(fields(fields(status.get("state")).get("waiting")).get("reason"))
        if waiting not in ("", "PodInitializing", "ContainerCreating"):
            last = fields(fields(status.get("lastState")).get("terminated"))
            reason = text(last.get("reason"))
            ended = f" (last: {reason}, exit code {last.get('exitCode')})" if reason else ""
            return f"{STUCK} {text(status.get('name'))}: {waiting}{ended}"
    for status in _statuses(pod):
        name = text(status.get("name"))
        if "running" in fields(status.get("state")) and status.get("ready") is False:
            return f"container {name} is not ready{_probe(pod, name)}"
        terminated = text(fields(fields(status.get("state")).get("terminated")).get("reason"))
        if terminated not in ("", "Completed") and status.get("ready") is False:
            return f"{STUCK} {name}: {terminated}"
    for gate in map(fields, items(pod.spec.get("readinessGates"))):
        kind = text(gate.get("conditionType"))
        if condition(pod, kind).get("status") != "True":
            return f"readinessGate {kind}"
    state = condition(pod, "Ready")
    phase = text(pod.status.get("phase")) or "unknown"
    return text(state.get("message")) or text(state.get("reason")) or f"phase {phase}"


def _statuses(pod: KubeObject) -> tuple[Mapping[str, Any], ...]:
    keys = ("initContainerStatuses", "containerStatuses")
    return tuple(fields(s) for key in keys for s in items(pod.status.get(key)))


def _probe(pod: KubeObject, container: str) -> str:
    probe = next((fields(c.get("readinessProbe")) for c in containers(pod) if c.get("name") == container), {})
    if http := fields(probe.get("httpGet")):
        return f", readinessProbe GET {text(http.get('path')) or '/'} port {http.get('port')}"
    if tcp := fields(probe.get("tcpSocket")):
        return f", readinessProbe tcpSocket port {tcp.get('port')}"
    if grpc := fields(probe.get("grpc")):
        return f", readinessProbe grpc port {grpc.get('port')}"
    if "exec" in probe:
        return ", readinessProbe exec"
    return ""


def nearest(wanted: Mapping[str, str], pods: tuple[KubeObject, ...]) -> tuple[KubeObject, str] | None:
    """The pod whose labels differ least from the selector, and how: `app=backend-v2, not backend`."""
    best: tuple[int, KubeObject, str] | None = None
    for pod in pods:
        labels = strings(pod.labels)
        wrong = [k for k, v in wanted.items() if labels.get(k) != v]
        # A pod that shares nothing is near only when it at least carries the key with a similar value.
        if len(wrong) == len(wanted) and not any(_alike(labels.get(k, ""), wanted[k]) for k in wrong):
            continue
        told = "; ".join(f"{k}={labels[k]}, not {wanted[k]}" if k in labels else f"no {k}={wanted[k]}" for k in wrong)
        if wrong and (best is None or len(wrong) < best[0]):
            best = (len(wrong), pod, told)
    return (best[1], best[2]) if best else None


def _alike(one: str, other: str) -> bool:
    one, other = one.lower(), other.lower()
    return bool(one and other) and (one in other or other in one)
