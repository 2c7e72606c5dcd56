"""Which facts may speak of the far side, and of which part of the path.

A probe in a captured pod ends at the local proxy: its TCP, TLS and segment facts say nothing of the network. A fact
from a pod that does not belong to the flow says nothing of the flow. The rooms below TLS share these two questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import DnsAnswer, Fact, Interception, KubeObject, PathMtu, ResolvConf, Trace, UdpProbe
from mcdoctor.models.flow import Flow, RungLabel
from mcdoctor.models.vantage import Vantage

F = TypeVar("F", bound=Fact)

Place = Literal["source", "near", "far", "outside"]
PROXY_UIDS = frozenset({1337, 2102})  # Istio's and Linkerd's own: their traffic is not captured
GATEWAY_PORTS = frozenset({15443, 15008, 4143})  # mutual TLS between networks, HBONE, Linkerd
_SIDECARS = {"istio-proxy": "istio", "linkerd-proxy": "linkerd", "consul-dataplane": "consul", "kuma-sidecar": "kuma"}


# --- shapes of objects ---------------------------------------------------------------------------------------------


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def maps(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list that should hold objects."""
    return [v for v in items(value) if isinstance(v, Mapping)]


def number(value: Any) -> int | None:
    """A whole number, from a number or its text."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


# --- where from ----------------------------------------------------------------------------------------------------


def place(flow: Flow, vantage: Vantage) -> Place:
    """`source`: a pod of the source; `near`: its cluster, another pod or node; `far`: the destination's side."""
    if vantage.cluster and flow.source_cluster and vantage.cluster != flow.source_cluster:
        return "far" if vantage.cluster == flow.destination_cluster else "outside"
    if vantage.pod:
        backends = {b.pod for b in flow.backends if b.pod}
        if f"{vantage.namespace}/{vantage.pod}" in backends:
            return "far"
        return "source" if flow.is_source(vantage) else "near"
    if vantage.node:
        return "near"
    return "source" if vantage.host and flow.source is None else "outside"


def bypasses(fact: Fact) -> bool:
    """True when the probe went round the pod's proxy."""
    return getattr(fact, "bypass_proxy", None) is True or getattr(fact, "uid", None) in PROXY_UIDS


def veil(facts: Facts, fact: Fact) -> str | None:
    """The proxy that stood between this fact and the far side; None where nothing did.

    Capture redirects TCP only: UDP and ICMP leave the pod as they are, so such probes are never veiled.
    """
    if bypasses(fact) or isinstance(fact, UdpProbe):
        return None
    if isinstance(fact, (PathMtu, Trace)) and fact.protocol in ("udp", "icmp"):
        return None
    return capturing(facts, fact.vantage, denied=getattr(fact, "bypass_proxy", None) is False)


def capturing(facts: Facts, vantage: Vantage, *, denied: bool = False) -> str | None:
    """The proxy that captures TCP at a vantage. `denied`: the record says that nothing was bypassed."""
    if vantage.captured:
        return vantage.captured
    for seen in facts.all(Interception):
        if seen.captured and _same_place(seen.vantage, vantage):
            return seen.by or "a local proxy"
    flow = facts.flow
    if vantage.pod:
        if (body := pod_object(facts, vantage)) is not None and (found := proxy_in(body)):
            return found
        pods = flow.source.pods if flow.source and place(flow, vantage) == "source" else ()
        named = [p for p in pods if p.name == vantage.pod] or list(pods)
        if found := next((p.proxy for p in named if p.proxy), None):
            return found
    if denied and (meshes := [x.system for x in flow.interconnect if x.layer == "l7" and x.system != "gateway-api"]):
        return meshes[0]
    return None


def source_proxy(facts: Facts) -> str | None:
    """The proxy that captures the source: by its pods, and by what its probes say where the pods were not read."""
    flow = facts.flow
    pods = flow.source.pods if flow.source else ()
    if found := next((p.proxy for p in pods if p.proxy), None):
        return found
    for fact in facts:
        seen = fact.by or "a local proxy" if isinstance(fact, Interception) and fact.captured else fact.vantage.captured
        if seen and place(flow, fact.vantage) == "source":
            return seen
    return None


def _same_place(one: Vantage, other: Vantage) -> bool:
    return (one.cluster, one.namespace, one.pod, one.node, one.host) == (
        other.cluster,
        other.namespace,
        other.pod,
        other.node,
        other.host,
    )


def pod_object(facts: Facts, vantage: Vantage) -> KubeObject | None:
    """The Pod of a vantage, when it was read."""
    if not vantage.pod:
        return None
    for pod in facts.objects("Pod", vantage.cluster, vantage.namespace):
        if pod.name == vantage.pod:
            return pod
    return None


def proxy_in(pod: KubeObject) -> str | None:
    """The proxy that a pod carries, or that captures it by annotation."""
    for container in (*maps(pod.spec.get("containers")), *maps(pod.spec.get("initContainers"))):
        if found := _SIDECARS.get(str(container.get("name"))):
            return found
    return "ztunnel" if pod.annotations.get("ambient.istio.io/redirection") == "enabled" else None


def clear(facts: Facts, kind: type[F], *places: Place) -> list[F]:
    """Facts of a kind that speak of the far side, seen from these places (default: source, near)."""
    wanted = places or ("source", "near")
    return [f for f in facts.all(kind) if place(facts.flow, f.vantage) in wanted and veil(facts, f) is None]


def veiled_by(facts: Facts, kind: type[F]) -> str | None:
    """The proxy behind which every fact of this kind from the source was seen, if there are any."""
    for fact in facts.all(kind):
        if place(facts.flow, fact.vantage) == "source" and (found := veil(facts, fact)):
            return found
    return None


# --- where to ------------------------------------------------------------------------------------------------------


def name_addresses(facts: Facts) -> tuple[str, ...]:
    """What the destination's name resolved to for the source: by its own nameservers, not by others that were asked."""
    host = (facts.flow.host or "").rstrip(".").lower()
    own = {s for c in facts.all(ResolvConf) if place(facts.flow, c.vantage) == "source" for s in c.nameservers}
    found: dict[str, None] = {}
    for answer in facts.all(DnsAnswer):
        if own and answer.resolver in (None, "direct") and split_host_port(answer.server)[0] not in own:
            continue
        if host and answer.name.rstrip(".").lower() == host and place(facts.flow, answer.vantage) == "source":
            found.update(dict.fromkeys(answer.addresses))
    found.update(dict.fromkeys(r.address for r in facts.flow.rungs if r.label == "name" and r.address))
    return tuple(found)


def address_book(facts: Facts) -> dict[str, RungLabel]:
    """Every address known to stand on the way, with its rung; nearer rungs win."""
    flow = facts.flow
    book: dict[str, RungLabel] = {}
    book.update(dict.fromkeys(_service_addresses(flow), "cluster-ip"))
    for rung in flow.rungs:
        if rung.address and rung.label != "name":
            book.setdefault(rung.address, rung.label)
    services = [s for s in (flow.local, flow.remote) if s]
    for backend in (*flow.backends, *(b for s in services for b in s.backends)):
        book.setdefault(backend.address, "endpoint")
    for address in gateway_addresses(facts):
        book.setdefault(address, "gateway")
    if flow.address:
        book.setdefault(flow.address, "cluster-ip")
    return book


def _service_addresses(flow: Flow) -> set[str]:
    """Service addresses on either side; an import may list the remote one as its endpoint."""
    return {ip for service in (flow.local, flow.remote) if service for ip in service.cluster_ips}


def pods_are_reachable(flow: Flow) -> bool:
    """Whether the destination's pods are meant to be spoken to by their own addresses."""
    flat = any(x.layer == "l3" and "globalnet" not in (x.mode or "") for x in flow.interconnect)
    return flat or not flow.crosses_clusters


def gateway_addresses(facts: Facts) -> tuple[str, ...]:
    """Addresses on which the destination's cluster lets others in."""
    cluster = facts.flow.destination_cluster or None
    found: list[str] = []
    for service in facts.objects("Service", cluster):
        if service.spec.get("type") == "LoadBalancer":
            for entry in maps(mapping(service.status.get("loadBalancer")).get("ingress")):
                found += [str(entry[k]) for k in ("ip", "hostname") if entry.get(k)]
        found += [str(ip) for ip in items(service.spec.get("externalIPs"))]
    for gateway in facts.objects("Gateway.gateway.networking.k8s.io", cluster):
        found += [str(a["value"]) for a in maps(gateway.status.get("addresses")) if a.get("value")]
    for link in facts.objects("Link.multicluster.linkerd.io", facts.flow.source_cluster or None):
        found += [a.strip() for a in str(link.spec.get("gatewayAddress") or "").split(",") if a.strip()]
    return tuple(dict.fromkeys(found))


def rung_of(facts: Facts, address: str, port: int | None, name: str | None = None) -> RungLabel | None:
    """The rung that an address and port belong to; None for a stranger. Another port of a known address: neighbour."""
    flow = facts.flow
    for rung in flow.rungs:
        if rung.address == address and (port is None or rung.port == port or not rung.port):
            return "cluster-ip" if rung.label == "endpoint" and address in _service_addresses(flow) else rung.label
    host = (flow.host or "").rstrip(".").lower()
    named = bool(host and name and name.rstrip(".").lower() == host) or address in name_addresses(facts)
    label = address_book(facts).get(address)
    if label is None:
        label = "name" if named or address.rstrip(".").lower() == host != "" else None
    if label is None or port is None or label == "neighbour":
        return label
    known = _ports(flow, label)
    return label if not known or port in known else "neighbour"


def _ports(flow: Flow, label: RungLabel) -> set[int]:
    wanted = {flow.port} if flow.port else set()
    if label == "endpoint":
        targets = {number(s.target) for s in (flow.local, flow.remote) if s}
        return {b.port for b in flow.backends} or {t for t in targets if t} or wanted
    return {*wanted, *GATEWAY_PORTS} if label == "gateway" else wanted


def split_host_port(text: str) -> tuple[str, int | None]:
    """`1.2.3.4:80`, `[::1]:80`, `host` apart."""
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or text, parts.port
    except ValueError:
        return text, None


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def unready(flow: Flow) -> frozenset[str]:
    """Addresses of backends that are not ready: nobody sends traffic to them."""
    services = [s for s in (flow.local, flow.remote) if s]
    every = [*flow.backends, *(b for s in services for b in s.backends)]
    ready = {b.address for b in every if b.ready}
    return frozenset(b.address for b in every if not b.ready) - ready


def path_nodes(flow: Flow) -> frozenset[str]:
    """Nodes that the flow is known to touch."""
    pods = flow.source.pods if flow.source else ()
    return frozenset({*(p.node for p in pods if p.node), *(b.node for b in flow.backends if b.node)})


def on_path(flow: Flow, facts: Iterable[F]) -> list[F]:
    """Facts of nodes and pods in the two clusters; of nodes known to be elsewhere only where none is on the path."""
    clusters = {flow.source_cluster, flow.destination_cluster, None}
    inside = [f for f in facts if f.vantage.cluster in clusters or place(flow, f.vantage) != "outside"]
    nodes = path_nodes(flow)
    chosen = [f for f in inside if not f.vantage.node or not nodes or f.vantage.node in nodes]
    return chosen or inside
