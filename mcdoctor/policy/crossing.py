"""How traffic between two pods looks at every point that enforces policies: inside a cluster and from one to another.

The path is a list of legs. A leg is one enforcing point in one direction with the packet as it looks there; where it
is not
known which address is seen, the leg holds every reading, and they must agree for a certain answer.

What carries a pair across clusters, and what each side then sees:

    clustermesh      pod identities on both sides
    flat             the other pod's own address, but as an address: no selector matches it
    globalnet        the global address of the other side, never its pod address
    istio            east-west gateway of B at A (15443); gateway pod at B; mesh identity kept end to end
    istio-ambient    gateway of B (15008) at A; gateway pod to 15008 at B; identity kept
    linkerd          gateway of B (4143) at A; gateway pod, then 4143, at B; the client's identity is lost to the
    gateway's
    relay            a local router pod on each side (Skupper); no identity
    load-balancer    the load balancer's address at A; a node's or the client's at B
    unknown          read both as flat and as translated to a node address
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcdoctor.policy.addresses import Atoms, Block, Ip, parse_block, parse_ip
from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.question import Packet, Question
from mcdoctor.policy.resolve import Backend
from mcdoctor.policy.selectors import matches, parse
from mcdoctor.policy.verdict import Direction
from mcdoctor.policy.world import Cluster, DomainName, End, Mesh, Node, Outside, Pod, Service, World

CARRIERS = (
    "clustermesh",
    "flat",
    "globalnet",
    "istio",
    "istio-ambient",
    "linkerd",
    "relay",
    "load-balancer",
    "unknown",
)
_SPELLINGS = {
    "cilium": "clustermesh", "cluster-mesh": "clustermesh", "cilium-clustermesh": "clustermesh",
    "vpn": "flat", "vpc-peering": "flat", "bgp": "flat", "submariner": "flat", "routed": "flat", "direct": "flat",
    "submariner-globalnet": "globalnet",
    "east-west": "istio", "eastwest": "istio", "east-west-gateway": "istio", "istio-gateway": "istio",
    "istio-multi-network": "istio", "ambient": "istio-ambient", "linkerd-gateway": "linkerd", "skupper": "relay",
    "loadbalancer": "load-balancer", "nodeport": "load-balancer", "node-port": "load-balancer", "lb": "load-balancer",
}  # fmt: skip
_CALICO = ("projectcalico.org", "crd.projectcalico.org")
HBONE = 15008
EAST_WEST = 15443
LINKERD_INBOUND = 4143


@dataclass(frozen=True, slots=True)
class Leg:
    """One enforcing point in one direction. `readings`: the packet as it may look there; `wire`: what the network
    layers see.

    `mesh` False: only the network layers are asked (a gateway passes the mesh's TLS through untouched).
    """

    label: str
    readings: tuple[Packet, ...]
    wire: tuple[Packet, ...] = ()
    mesh: bool = True


@dataclass(frozen=True, slots=True)
class Path:
    legs: tuple[Leg, ...]
    carrier: str
    notes: tuple[str, ...] = ()


def carrier_named(text: str) -> str | None:
    word = text.strip().lower().replace("_", "-").replace(" ", "-")
    word = _SPELLINGS.get(word, word)
    return word if word in CARRIERS else None


def detect(world: World, source: Pod | Node, destination: Pod | Node, service: Service | None) -> tuple[str, str]:
    """(carrier, evidence) for ends in different clusters, from the configuration on both sides."""
    a, b = world.clusters[source.cluster], world.clusters[destination.cluster]
    ours, theirs = _cilium_cluster(a), _cilium_cluster(b)
    if ours and theirs and ours != theirs:
        return "clustermesh", f"cilium-config names the clusters {ours[0]} ({ours[1]}) and {theirs[0]} ({theirs[1]})"
    captured = source.mesh if isinstance(source, Pod) else frozenset()
    if Mesh.LINKERD in captured:
        if service is not None and "mirror.linkerd.io/cluster-name" in service.labels:
            if service.labels.get("multicluster.linkerd.io/remote-discovery"):
                return "flat", f"{service} mirrors by remote discovery"
            return "linkerd", f"{service} is a mirror Service"
        if a.of("multicluster.linkerd.io", "Link") and gateway_service(b, "linkerd"):
            return "linkerd", "a Link and the gateway of the other side"
    if captured & {Mesh.ISTIO_SIDECAR, Mesh.ISTIO_AMBIENT} and gateway_service(b, "istio"):
        networks = _istio_network(a), _istio_network(b)
        if networks[0] != networks[1]:
            ambient = Mesh.ISTIO_AMBIENT in captured
            return (
                "istio-ambient" if ambient else "istio",
                f"Istio networks {networks[0] or '?'} and {networks[1] or '?'}",
            )
        if networks[0]:
            return "flat", f"both clusters are on Istio network {networks[0]}"
    if any(cluster.of("submariner.io", "ClusterGlobalEgressIP") or _global_cidrs(cluster, "") for cluster in (a, b)):
        return "globalnet", "Submariner with Globalnet"
    if a.of("submariner.io", "Endpoint") or b.of("submariner.io", "Endpoint") or a.of("submariner.io", "Gateway"):
        return "flat", "Submariner without Globalnet"
    if any(cluster.of("skupper.io", "Site") for cluster in (a, b)):
        return "relay", "Skupper"
    return "unknown", "nothing says what connects the clusters"


def _cilium_cluster(cluster: Cluster) -> tuple[str, str] | None:
    for obj in cluster.of("", "ConfigMap"):
        if obj.ref.name == "cilium-config":
            data = cluster.config_map(obj.ref.namespace, obj.ref.name) or {}
            number = data.get("cluster-id", "0")
            if number not in ("", "0"):
                return data.get("cluster-name", cluster.name), number
    return None


def _istio_network(cluster: Cluster) -> str:
    system = cluster.namespaces.get("istio-system")
    if system is not None and "topology.istio.io/network" in system.labels:
        return system.labels["topology.istio.io/network"]
    service = gateway_service(cluster, "istio")
    return service.labels.get("topology.istio.io/network", "") if service else ""


def gateway_service(cluster: Cluster, carrier: str) -> Service | None:
    """The Service of the gateway that takes in traffic of `carrier` ("istio", "istio-ambient" or "linkerd")."""
    for service in cluster.services.values():
        numbers = {p.port for p in service.ports}
        if carrier == "linkerd":
            if service.name == "linkerd-gateway" or "mirror.linkerd.io/gateway-identity" in service.annotations:
                return service
        elif carrier == "istio-ambient":
            if HBONE in numbers and "topology.istio.io/network" in service.labels:
                return service
        elif EAST_WEST in numbers or (service.labels.get("istio") or "").startswith("eastwest"):
            return service
    return gateway_service(cluster, "istio-ambient") if carrier == "istio" else None


def pods_of(cluster: Cluster, service: Service) -> tuple[Pod, ...]:
    if not service.selector:
        return ()
    return tuple(
        pod
        for pod in cluster.pods.values()
        if pod.namespace == service.namespace
        and pod.phase not in ("Succeeded", "Failed")
        and all(pod.labels.get(k) == v for k, v in service.selector.items())
    )


def _global_cidrs(cluster: Cluster, name: str) -> tuple[str, ...]:
    """Global CIDRs of the cluster called `name` in Submariner's Cluster objects; of all of them when `name` is ''."""
    found: list[str] = []
    for obj in cluster.of("submariner.io", "Cluster"):
        spec = obj.raw.get("spec")
        if isinstance(spec, dict) and (not name or spec.get("cluster_id") in (name, None)):
            listed = spec.get("global_cidr")
            found.extend(c for c in (listed if isinstance(listed, list) else ()) if isinstance(c, str))
    return tuple(found)


def global_addresses(
    world: World, pod: Pod | Node, service: Service | None, *, egress: bool, atoms: Mapping[int, Atoms]
) -> tuple[Ip, ...]:
    """The addresses by which Globalnet may show a pod to the other cluster, one for each range that policies tell
    apart (`atoms`); () when they are not among the objects.

    Egress: GlobalEgressIPs that select it, else the cluster's ClusterGlobalEgressIP, else any of the global CIDR that
    is not another's.
    """
    cluster = world.clusters[pod.cluster]
    allocated: list[str] = []
    others: list[str] = []
    if egress:
        if isinstance(pod, Pod):
            for obj in cluster.of("submariner.io", "GlobalEgressIP"):
                spec = Field(obj.raw)["spec"]
                try:
                    chosen = not spec["podSelector"].present or matches(parse(spec["podSelector"]), pod.labels)
                except Refused:
                    continue
                mine = obj.ref.namespace == pod.namespace and chosen
                (allocated if mine else others).extend(_texts(obj.raw, "allocatedIPs"))
        if not allocated:
            for obj in cluster.of("submariner.io", "ClusterGlobalEgressIP"):
                allocated += _texts(obj.raw, "allocatedIPs")
    else:
        for obj in cluster.of("submariner.io", "GlobalIngressIP"):
            names = [_member(obj.raw, "spec", reference, "name") for reference in ("serviceRef", "podRef")]
            ip = _member(obj.raw, "status", "allocatedIP")
            if obj.ref.namespace == pod_namespace(pod) and (
                (service is not None and names[0] == service.name) or names[1] == pod.name
            ):
                allocated += [ip] if isinstance(ip, str) else []
    if allocated:
        return _told_apart(_spans(allocated), (), atoms)
    everywhere = [c for each in world.clusters.values() for c in _global_cidrs(each, pod.cluster)]
    return _told_apart(_spans(dict.fromkeys(everywhere)), _spans(others), atoms)


def _spans(texts: Iterable[str]) -> list[Block]:
    """CIDRs, addresses and ranges ("242.0.0.1-242.0.0.8"); what is none is left out."""
    found = []
    for text in texts:
        try:
            if "/" in text:
                found.append(parse_block(text))
            else:
                low, _, high = text.partition("-")
                first, last = parse_ip(low.strip()), parse_ip((high or low).strip())
                found.append(Block(first.version, first.value, last.value))
        except ValueError:
            continue
    return found


def _told_apart(spans: Sequence[Block], others: Sequence[Block], atoms: Mapping[int, Atoms]) -> tuple[Ip, ...]:
    """Addresses of these spans, one for each range of the atoms, without those of `others`."""
    found: dict[Ip, None] = {}
    for span in spans:
        ranges = atoms[span.version]
        starts = (max(span.low, ranges.starts[number]) for number in ranges.within(span))
        for value in (*starts, span.high):
            ip = Ip(span.version, value)
            if not any(ip in other for other in others):
                found[ip] = None
    return tuple(found)


def _member(raw: Any, *names: str) -> Any:
    """A member of nested mappings; None where there is none."""
    for name in names:
        raw = raw.get(name) if isinstance(raw, Mapping) else None
    return raw


def pod_namespace(pod: Pod | Node) -> str:
    return pod.namespace if isinstance(pod, Pod) else ""


def _texts(raw: Mapping[str, Any], name: str) -> list[str]:
    status = raw.get("status")
    listed = status.get(name) if isinstance(status, dict) else None
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []


def _addresses(texts: Iterable[str]) -> tuple[Ip, ...]:
    found = []
    for text in texts:
        low, _, high = text.partition("-")
        for each in (low, high):
            try:
                found.append(parse_ip(each.strip()))
            except ValueError:
                continue
    return tuple(dict.fromkeys(found))


def addresses(end: End) -> tuple[Ip, ...]:
    match end:
        case Outside():
            return (end.ip,)
        case DomainName():
            return ()
        case Pod():
            return end.ips or (end.host_ips if end.host_network else ())
        case Node():
            return end.ips


def outsides(ips: Iterable[Ip], otherwise: str) -> tuple[End, ...]:
    """As addresses only; a named stand-in when none is known (it matches no block for certain)."""
    found = tuple(Outside(ip) for ip in dict.fromkeys(ips))
    return found or (DomainName(otherwise),)


def nodes_of(cluster: Cluster, destination: End, limit: int = 4) -> tuple[End, ...]:
    """Nodes that may have taken in traffic for a pod and put their address on it: its own only as an address.

    What a node itself sends to its pods is never refused; what it merely translates may be.
    """
    own = destination.node if isinstance(destination, Pod) else ""
    listed = [node for node in cluster.nodes.values() if node.ips]
    others = tuple(node for node in listed if node.name != own)[:limit]
    return others or tuple(Outside(node.ips[0]) for node in listed)


def wired(packet: Packet) -> Packet | None:
    """What the network layers see of a packet between two captured pods, or None when it is the packet itself.

    Ambient: HBONE to 15008 of the destination pod. Linkerd: opaque ports travel inside the proxies' own port 4143.
    Plaintext by question (`mtls` False) and anything but TCP is not encapsulated.
    """
    if packet.protocol != "TCP" or packet.mtls is False or not isinstance(packet.destination, Pod):
        return None
    client = packet.client if packet.client is not None else packet.source
    if not isinstance(client, Pod) or client.host_network:
        return None
    istio = {Mesh.ISTIO_AMBIENT, Mesh.ISTIO_SIDECAR}
    if Mesh.ISTIO_AMBIENT in packet.destination.mesh and client.mesh & istio:
        return replace(packet, port=HBONE)
    if Mesh.LINKERD in packet.destination.mesh and Mesh.LINKERD in client.mesh and packet.port is not None:
        opaque = packet.destination.annotations.get("config.linkerd.io/opaque-ports")
        if packet.service is not None:
            opaque = packet.service.annotations.get("config.linkerd.io/opaque-ports", opaque)
        if opaque and in_port_list(packet.port, opaque):
            return replace(packet, port=LINKERD_INBOUND)
    return None


def in_port_list(port: int, text: str) -> bool:
    """Linkerd's lists: "25,443,8000-8100"."""
    for item in text.split(","):
        low, _, high = item.strip().partition("-")
        if low.isdigit() and int(low) <= port <= int(high if high.isdigit() else low):
            return True
    return False


def _leg(label: str, packets: Sequence[Packet], *, mesh: bool = True) -> Leg:
    wires = tuple(wired(p) or p for p in packets)
    plain = all(w is p for w, p in zip(wires, packets, strict=True))
    return Leg(label, tuple(packets), () if plain else wires, mesh)


@dataclass(frozen=True, slots=True)
class Ask:
    """What stays the same along the path."""

    question: Question
    client: Pod | None
    service: Service | None
    version: int = 0

    def packet(
        self, cluster: str, direction: Direction, source: End, destination: End, port: int | None, **rest: Any
    ) -> Packet:
        q = self.question
        given: dict[str, Any] = {
            "protocol": ("ICMP" if q.icmp.family == 4 else "ICMPv6") if q.icmp else q.protocol,
            "icmp": q.icmp,
            "http": q.http,
            "mtls": q.mtls,
            "principal": q.principal,
            "client": self.client,
            "service": self.service,
            "version": self.version,
        }
        return Packet(
            cluster=cluster, direction=direction, source=source, destination=destination, port=port, **(given | rest)
        )


def direct(
    ask: Ask, source: End, destination: End, port: int | None, source_cluster: str, destination_cluster: str
) -> Path:
    """One cluster, or one end outside of all: both ends as they are."""
    legs = []
    if source_cluster and isinstance(source, (Pod, Node)):
        legs.append(_leg("source", [ask.packet(source_cluster, Direction.EGRESS, source, destination, port)]))
    if destination_cluster and isinstance(destination, (Pod, Node)):
        legs.append(
            _leg("destination", [ask.packet(destination_cluster, Direction.INGRESS, source, destination, port)])
        )
    return Path(tuple(legs), "direct")


def relayed(
    ask: Ask,
    source: End,
    source_cluster: str,
    via: Sequence[End],
    via_cluster: str,
    via_port: int | None,
    backend: Backend,
) -> Path:
    """Through a gateway pod, node or address that the question names: source → via, then via → destination."""
    legs: list[Leg] = []
    egress, ingress = Direction.EGRESS, Direction.INGRESS
    as_seen: Sequence[End] = via
    if source_cluster and via_cluster and source_cluster != via_cluster:
        as_seen = outsides((ip for each in via for ip in addresses(each)), "the gateway")
    if source_cluster and isinstance(source, (Pod, Node)):
        legs.append(_leg("source", [ask.packet(source_cluster, egress, source, each, via_port) for each in as_seen]))
    gateways = [each for each in via if isinstance(each, (Pod, Node))]
    if gateways and via_cluster:
        seen = [source] if source_cluster in ("", via_cluster) else list(outsides(addresses(source), str(source)))
        legs.append(
            _leg(
                "gateway",
                [ask.packet(via_cluster, ingress, s, g, via_port) for g in gateways for s in seen],
                mesh=False,
            )
        )
        target: End = backend.end
        if backend.cluster and backend.cluster != via_cluster:
            target = outsides(addresses(backend.end), str(backend.end))[0]
        legs.append(
            _leg("gateway", [ask.packet(via_cluster, egress, g, target, backend.port) for g in gateways], mesh=False)
        )
    if backend.cluster and isinstance(backend.end, (Pod, Node)):
        seen_last: Sequence[End] = via
        if via_cluster and via_cluster != backend.cluster:
            seen_last = outsides((ip for each in via for ip in addresses(each)), "the gateway")
        legs.append(
            _leg("destination", [ask.packet(backend.cluster, ingress, s, backend.end, backend.port) for s in seen_last])
        )
    return Path(tuple(legs), "via")


def by_waypoint(ask: Ask, source: Pod, backend: Backend, waypoint: str, pods: Sequence[Pod]) -> Path:
    """To an ambient pod through a waypoint of its cluster: HBONE to the waypoint, and from there to the pod.

    The waypoint's own AuthorizationPolicies are asked with the destination's. Where its pods are not among the
    objects, the last leg is read from an unnamed end and as if there were none: both must agree.
    """
    cluster = backend.cluster
    unseen: tuple[End, ...] = (DomainName(f"waypoint {waypoint}"),)
    ends: Sequence[End] = pods or unseen
    legs = [_leg("source", [ask.packet(cluster, Direction.EGRESS, source, end, HBONE) for end in ends])]
    if pods:
        into = [ask.packet(cluster, Direction.INGRESS, source, pod, HBONE) for pod in pods]
        legs.append(Leg("waypoint", tuple(into), mesh=False))
        out = tuple(ask.packet(cluster, Direction.EGRESS, pod, backend.end, backend.port) for pod in pods)
        legs.append(Leg("waypoint", out, tuple(replace(p, port=HBONE) for p in out), mesh=False))
    last = ends if pods else (*ends, source)
    final = tuple(ask.packet(cluster, Direction.INGRESS, end, backend.end, backend.port) for end in last)
    legs.append(Leg("destination", final, tuple(replace(p, port=HBONE) for p in final)))
    note = f"through waypoint {waypoint}" + ("" if pods else ", whose pods are not among the objects")
    return Path(tuple(legs), "waypoint", (note,))


def across(
    world: World,
    ask: Ask,
    source: Pod | Node,
    backend: Backend,
    carrier: str,
    evidence: str,
    atoms: Mapping[int, Atoms],
) -> Path:
    """From one cluster to a pod or node of another, as `carrier` carries it. `atoms`: how policies cut the address
    space, by IP version.
    """
    a, b = source.cluster, backend.cluster
    remote = world.clusters[b]
    destination, port = backend.end, backend.port
    assert isinstance(destination, (Pod, Node))
    egress, ingress = Direction.EGRESS, Direction.INGRESS
    notes = [f"{a} to {b}: {carrier} ({evidence})", *_tunnel(world.clusters[a], remote, carrier)]

    def leave(ends: Sequence[End], at: int | None) -> Leg:
        return _leg("source", [ask.packet(a, egress, source, end, at) for end in ends])

    def arrive(ends: Sequence[End], at: int | None = port, **rest: Any) -> Leg:
        return _leg("destination", [ask.packet(b, ingress, end, destination, at, **rest) for end in ends])

    match carrier:
        case "clustermesh":
            return Path((leave([destination], port), arrive([source])), carrier, tuple(notes))
        case "globalnet":
            there = outsides(
                global_addresses(world, destination, ask.service, egress=False, atoms=atoms),
                f"the global address of {destination}",
            )
            here = outsides(
                global_addresses(world, source, None, egress=True, atoms=atoms), f"the global address of {source}"
            )
            return Path((leave(there, port), arrive(here)), carrier, tuple(notes))
        case "istio" | "istio-ambient" | "linkerd":
            return _through_gateway(world, ask, source, backend, carrier, notes)
        case "relay":
            notes.append("each side sees its own router pod")
            local, far = _routers(world.clusters[a]), _routers(remote)
            return Path(
                (
                    leave(local or [DomainName("the local router")], port),
                    arrive(far or [DomainName("the router")], client=None, mtls=False),
                ),
                carrier,
                tuple(notes),
            )
        case "load-balancer":
            return from_load_balancer(world, ask, source, backend, notes)
        case "flat":
            here = outsides(addresses(source), f"the address of {source}")
            there = outsides(addresses(destination), f"the address of {destination}")
            if (pool := _masquerading(world.clusters[a], source, destination)) is not None:
                node = world.clusters[a].nodes.get(source.node) if isinstance(source, Pod) else None
                here = outsides(node.ips if node else (), f"the node of {source}")
                notes.append(f"{pool} masquerades what leaves Calico's pools: {b} sees the node of {source}")
            notes += _overlap(remote, source) + _overlap(world.clusters[a], destination)
            return Path((leave(there, port), arrive(here)), carrier, tuple(notes))
        case _:
            here = outsides(addresses(source), f"the address of {source}")
            there = outsides(addresses(destination), f"the address of {destination}")
            here += tuple(Outside(ip) for node in world.clusters[a].nodes.values() for ip in node.ips[:1])[:2]
            here += nodes_of(remote, destination, 2)
            notes.append("read both with the pod's own address and as translated to a node's")
            return Path((leave(there, port), arrive(here)), "unknown", tuple(notes))


def _masquerading(cluster: Cluster, source: Pod | Node, destination: Pod | Node) -> str | None:
    """The Calico IPPool by which a pod's traffic to an address outside all pools leaves with its node's address."""
    if not isinstance(source, Pod) or source.host_network:
        return None
    pools: list[tuple[str, Block, bool]] = []
    for group in _CALICO:
        for obj in cluster.of(group, "IPPool"):
            spec = obj.raw.get("spec")
            if isinstance(spec, dict) and isinstance(spec.get("cidr"), str):
                try:
                    pools.append((str(obj.ref), parse_block(spec["cidr"]), spec.get("natOutgoing") is True))
                except ValueError:
                    continue
    for ip in addresses(destination):
        if any(ip in block for _, block, _ in pools):
            continue
        for name, block, outgoing in pools:
            if outgoing and any(own in block for own in source.ips if own.version == ip.version):
                return name
    return None


_TUNNELS = {
    "submariner": "UDP 4500, 4490 and 4800 (Submariner)",
    "clustermesh": "UDP 8472 or 6081, with WireGuard 51871 (Cilium)",
}


def _tunnel(a: Cluster, b: Cluster, carrier: str) -> list[str]:
    """Packets between pods travel from node to node inside a tunnel, which policies for nodes must let through too."""
    inside = carrier in ("flat", "globalnet") and any(c.of("submariner.io", "Endpoint") for c in (a, b))
    ports = _TUNNELS.get("submariner" if inside else carrier)
    if ports is None:
        return []
    found = [str(obj.ref) for c in (a, b) for group in _CALICO for obj in c.of(group, "HostEndpoint")]
    for cluster in (a, b):
        for obj in cluster.of("cilium.io", "CiliumClusterwideNetworkPolicy"):
            specs = obj.raw.get("specs")
            listed = [obj.raw.get("spec"), *(specs if isinstance(specs, list) else ())]
            if any(isinstance(spec, Mapping) and "nodeSelector" in spec for spec in listed):
                found.append(str(obj.ref))
    if not found:
        return []
    return [f"the tunnel between the nodes needs {ports}: not asked of the policies for nodes ({', '.join(found[:3])})"]


def _overlap(cluster: Cluster, end: Pod | Node) -> list[str]:
    return [
        f"{ip} of {end} is also the address of {owner} in {cluster.name}: a CIDR rule for one admits the other"
        for ip in addresses(end)
        if (owner := cluster.by_ip.get(ip)) is not None
    ]


def _routers(cluster: Cluster) -> list[End]:
    return [
        p
        for p in cluster.pods.values()
        if p.labels.get("skupper.io/component") == "router" or p.name.startswith("skupper-router")
    ]


def from_load_balancer(world: World, ask: Ask, source: End, backend: Backend, notes: list[str]) -> Path:
    """Through a LoadBalancer or NodePort Service of the destination's cluster."""
    service, cluster = backend.service, world.clusters[backend.cluster]
    legs: list[Leg] = []
    if isinstance(source, (Pod, Node)):
        asked = ask.question.port
        found = [p for p in service.ports if asked in (p.port, p.name)] if service else []
        if service and not found and len(service.ports) == 1:
            found = list(service.ports)
        if service and service.type == "NodePort":
            outer = [ip for node in cluster.nodes.values() for ip in node.ips]
            at = found[0].node_port or None if found else None
        else:
            outer = [ip for ip in service.ips if ip not in service.cluster_ips] if service else []
            at = found[0].port if found else asked if isinstance(asked, int) else None
        target = outsides(outer, "the load balancer")
        legs.append(_leg("source", [ask.packet(source.cluster, Direction.EGRESS, source, end, at) for end in target]))
    seen = client_seen(cluster, source, backend.end, service, notes)
    legs.append(
        _leg(
            "destination",
            [ask.packet(backend.cluster, Direction.INGRESS, end, backend.end, backend.port) for end in seen],
        )
    )
    return Path(tuple(legs), "load-balancer", tuple(notes))


def client_seen(
    cluster: Cluster, source: End, destination: End, service: Service | None, notes: list[str]
) -> tuple[End, ...]:
    """Whose address a pod behind a LoadBalancer or NodePort Service sees."""
    own = outsides(addresses(source), str(source)) if not isinstance(source, Outside) else (source,)
    if service is not None and service.external_traffic_policy == "Local":
        notes.append("externalTrafficPolicy Local keeps the client's address")
        return own
    nodes = nodes_of(cluster, destination)
    notes.append("externalTrafficPolicy Cluster: the pod sees the address of the node that took the traffic in")
    return nodes or (*own, DomainName("a node"))


def _through_gateway(
    world: World, ask: Ask, source: Pod | Node, backend: Backend, carrier: str, notes: list[str]
) -> Path:
    a, remote = source.cluster, world.clusters[backend.cluster]
    destination = backend.end
    service = gateway_service(remote, carrier)
    default = {"istio": EAST_WEST, "istio-ambient": HBONE, "linkerd": LINKERD_INBOUND}[carrier]
    outer: list[Ip] = []
    target = default
    if service is not None:
        outer = [ip for ip in service.ips if ip not in service.cluster_ips]
        spec = next((p for p in service.ports if p.port == default), None)
        if spec is not None and isinstance(spec.target, int):
            target = spec.target
    else:
        notes.append(f"no gateway Service of {carrier} among the objects of {remote.name}")
    if carrier == "linkerd":
        outer += [
            ip for obj in world.clusters[a].of("multicluster.linkerd.io", "Link") for ip in _link_addresses(obj.raw)
        ]
    gateways = pods_of(remote, service) if service is not None else ()
    away = outsides(outer, f"the gateway of {remote.name}")
    legs = [_leg("source", [ask.packet(a, Direction.EGRESS, source, end, default) for end in away])]
    if gateways:
        note: list[str] = []
        seen = client_seen(remote, source, gateways[0], service, note)
        legs.append(
            _leg(
                "gateway",
                [ask.packet(remote.name, Direction.INGRESS, s, g, target) for g in gateways for s in seen],
                mesh=carrier == "linkerd",
            )
        )
        notes += note
    ends: Sequence[End] = gateways or (DomainName(f"the gateway pod of {remote.name}"),)
    # Linkerd's gateway speaks for itself; where it is not among the pods, nobody known does.
    own = {id(end): end if isinstance(end, Pod) else None for end in ends}
    client_of = own if carrier == "linkerd" else {id(end): ask.client for end in ends}
    inner = {"istio": backend.port, "istio-ambient": HBONE, "linkerd": LINKERD_INBOUND}[carrier]
    for label, direction in (("gateway", Direction.EGRESS), ("destination", Direction.INGRESS)):
        if direction is Direction.EGRESS and not gateways:
            continue
        packets = tuple(
            ask.packet(remote.name, direction, end, destination, backend.port, client=client_of[id(end)])
            for end in ends
        )
        wires = tuple(replace(packet, port=inner) for packet in packets)
        legs.append(Leg(label, packets, wires, mesh=direction is Direction.INGRESS))
    if carrier == "linkerd":
        notes.append("the gateway's identity arrives, the client's is lost")
    return Path(tuple(legs), carrier, tuple(notes))


def _link_addresses(raw: Mapping[str, Any]) -> tuple[Ip, ...]:
    spec = raw.get("spec")
    text = spec.get("gatewayAddress") if isinstance(spec, dict) else None
    return _addresses(text.split(",")) if isinstance(text, str) else ()
