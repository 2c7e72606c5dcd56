"""Where a fact was seen from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Vantage:
    """A pod (cluster, namespace, pod), a node (cluster, node) or a machine outside (host, cluster where it matters)."""

    cluster: str | None = field(default=None, metadata={"doc": "name of the cluster in this run or bundle"})
    namespace: str | None = None
    pod: str | None = None
    container: str | None = None
    node: str | None = None
    host: str | None = field(default=None, metadata={"doc": "a machine outside the cluster, such as the collector's"})
    captured: str | None = field(
        default=None, metadata={"doc": "the proxy that captures the pod's traffic: istio, linkerd, ztunnel, …"}
    )

    def __str__(self) -> str:
        if self.pod:
            place = f"pod {self.namespace}/{self.pod}" if self.namespace else f"pod {self.pod}"
        elif self.node:
            place = f"node {self.node}"
        elif self.host:
            place = f"host {self.host}"
        else:
            place = "API server"
        return f"{place} in {self.cluster}" if self.cluster else place
