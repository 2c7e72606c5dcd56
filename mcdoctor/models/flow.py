"""The flow: who calls whom, through what, and which addresses stand on the way.

A Flow is concluded from the target texts and the objects that were read, by pure code (`mcdoctor.flow.resolve`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from mcdoctor.models.vantage import Vantage

_REPLICA = re.compile(r"(-[0-9a-z]{6,10})?-[0-9a-z]{5}|-\d+")  # what controllers put behind a workload's name

Protocol = Literal["http", "https", "h2c", "grpc", "tls", "tcp", "udp"]
RungLabel = Literal["name", "cluster-ip", "gateway", "endpoint", "neighbour"]
LayerName = Literal["naming", "l7", "l3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One end as the user typed it: `[KIND/]NAME[.NAMESPACE][:PORT][@CONTEXT]`, a host name, a URL or an address."""

    text: str
    form: Literal["object", "host", "address"]
    name: str
    kind: str | None = None
    namespace: str | None = None
    port: str | None = None
    context: str | None = None
    scheme: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What the path needs to know of a pod. `proxy`: istio, linkerd (sidecar) or ztunnel (ambient)."""

    cluster: str
    namespace: str
    name: str
    ips: tuple[str, ...] = ()
    node: str | None = None
    phase: str | None = None
    ready: bool = False
    host_network: bool = False
    proxy: str | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A named thing with pods, or a bare pod; `kind` with its group, such as Deployment.apps."""

    cluster: str
    namespace: str
    kind: str
    name: str
    pods: tuple[Pod, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind.partition('.')[0].lower()}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One address behind a Service, from its EndpointSlices (or the pod itself where there are none)."""

    cluster: str
    address: str
    port: int
    ready: bool = True
    pod: str | None = field(default=None, metadata={"doc": "namespace/name"})
    node: str | None = None
    zone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """A Service of the flow with the port that is meant; `target` is the port behind it, as a number where known."""

    cluster: str
    namespace: str
    name: str
    type: str = "ClusterIP"
    cluster_ips: tuple[str, ...] = ()
    external_name: str | None = None
    port: int | None = None
    port_name: str | None = None
    target: str | None = None
    app_protocol: str | None = None
    headless: bool = False
    backends: tuple[Backend, ...] = ()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A rung of the destination ladder: the same request, one hop nearer to the application each time."""

    label: RungLabel
    address: str | None
    port: int
    cluster: str | None = None
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of the interconnect with what shows it; layers stack, they do not exclude one another."""

    layer: LayerName
    system: str
    mode: str | None = None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowNote:
    """Something odd met while the pair was resolved; becomes a finding of the check `flow-pair-resolves`."""

    id: str
    subject: str
    args: tuple[tuple[str, str], ...] = ()
    evidence: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The resolved pair.

    `host` is the name that a client in the source pod would use (absolute, no trailing dot), null for an address.
    `local` is the Service (or mirror, or import) of the destination's name in the source's cluster, `remote` the
    Service in the destination's cluster, null when there is none or it could not be seen.
    """

    source_text: str
    destination_text: str
    source: Workload | None = None
    source_cluster: str = ""
    destination_cluster: str = ""
    namespace: str = field(default="", metadata={"doc": "the destination's namespace"})
    name: str = field(default="", metadata={"doc": "the destination's name"})
    host: str | None = None
    address: str | None = None
    port: int | None = None
    protocol: Protocol | None = None
    path: str = "/"
    local: ServicePort | None = None
    remote: ServicePort | None = None
    backends: tuple[Backend, ...] = ()
    rungs: tuple[Rung, ...] = ()
    interconnect: tuple[Layer, ...] = ()
    notes: tuple[FlowNote, ...] = ()
    cluster_domain: str = "cluster.local"

    @property
    def source_pod(self) -> Pod | None:
        """The pod that stands for the source: the first ready one."""
        pods = self.source.pods if self.source else ()
        return next((p for p in pods if p.ready), pods[0] if pods else None)

    def is_source(self, vantage: Vantage) -> bool:
        """Whether a pod's vantage is a pod of the source, by its name where the pod itself is not among those seen."""
        source = self.source
        if source is None:
            return True
        if vantage.namespace and vantage.namespace != source.namespace:
            return False
        pod = vantage.pod or ""
        if pod in {p.name for p in source.pods} or pod == source.name:
            return True
        return pod.startswith(f"{source.name}-") and _REPLICA.fullmatch(pod[len(source.name) :]) is not None

    @property
    def destination(self) -> str:
        """The destination for people."""
        return self.host or self.address or (f"{self.namespace}/{self.name}" if self.namespace else self.name)

    @property
    def crosses_clusters(self) -> bool:
        return bool(self.destination_cluster) and self.destination_cluster != self.source_cluster
