"""From the names in a question to records: pods, workloads, Services with their endpoints, addresses.

What cannot be resolved is `Unresolved(why)`, never an exception and never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mcdoctor.policy.addresses import Ip, parse_ip
from mcdoctor.policy.question import Address, Fqdn, NodeName, PodName, ServiceName
from mcdoctor.policy.world import Cluster, DomainName, End, Endpoint, Node, Outside, Pod, Service, World


@dataclass(frozen=True, slots=True)
class Unresolved:
    """`why` names what is missing; the answer to the question is unknown."""

    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """`end` in `cluster` ('' = outside of all clusters). `note`: what was assumed."""

    end: End
    cluster: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint of a Service with the port traffic reaches it on."""

    end: End
    cluster: str
    port: int | None
    service: Service | None = None
    note: str = ""


FINISHED = ("Succeeded", "Failed")


def clusters(world: World, wanted: str, first: str = "", role: str = "") -> Iterator[Cluster]:
    """The clusters to look in: the one named, else `first`, then those of `role`, then the rest."""
    if wanted:
        found = world.clusters.get(wanted)
        if found is not None:
            yield found
        return
    yield from sorted(world.clusters.values(), key=lambda c: (c.name != first, bool(role) and c.role != role))


def no_cluster(world: World, wanted: str) -> Unresolved | None:
    if wanted and wanted not in world.clusters:
        return Unresolved(f"no cluster {wanted} among {', '.join(world.clusters) or 'none'}")
    return None


def pods_named(cluster: Cluster, name: PodName) -> tuple[Pod, ...]:
    """The pod of that name, else the pods of the workload of that name; pods alike to every policy count once."""
    pod = cluster.pods.get((name.namespace, name.name))
    if pod is not None:
        return (pod,)
    return tuple(p for p in cluster.by_workload.get((name.namespace, name.name), ()) if p.phase not in FINISHED)


def pod_ends(world: World, name: PodName, first: str = "", role: str = "") -> tuple[Found, ...] | Unresolved:
    missing = no_cluster(world, name.cluster)
    if missing:
        return missing
    for cluster in clusters(world, name.cluster, first, role):
        pods = pods_named(cluster, name)
        if pods:
            note = (
                "" if pods[0].name == name.name else f"{name.namespace}/{name.name} is a workload of {len(pods)} pods"
            )
            if pods[0].synthetic:
                note = f"{pods[0]} is read from the template of {' '.join(pods[0].owner)}; it has no address yet"
            return tuple(Found(pod, cluster.name, note) for pod in pods)
    return Unresolved(f"no pod or workload {name.namespace}/{name.name} among the objects")


def node_end(world: World, name: NodeName, first: str = "", role: str = "") -> Found | Unresolved:
    missing = no_cluster(world, name.cluster)
    if missing:
        return missing
    for cluster in clusters(world, name.cluster, first, role):
        node = cluster.nodes.get(name.name)
        if node is not None:
            return Found(node, cluster.name)
        running = [pod for pod in cluster.pods.values() if pod.node == name.name]
        if running:
            ips = next((p.host_ips for p in running if p.host_ips), ())
            return Found(Node(cluster.name, name.name, {}, ips), cluster.name, f"no Node object for {name.name}")
    return Unresolved(f"no node {name.name} among the objects")


def owner_of(world: World, ip: Ip, wanted: str = "", first: str = "") -> tuple[Pod | Node | Service, str] | None:
    """Whose address it is, the nearest cluster first."""
    for cluster in clusters(world, wanted, first):
        owner = cluster.by_ip.get(ip)
        if owner is not None:
            return owner, cluster.name
    return None


def address_end(world: World, address: Address, first: str = "") -> Found | Service:
    """The pod or node of an address, the Service it stands for, else the address itself."""
    owned = owner_of(world, address.ip, address.cluster, first)
    if owned is None:
        return Found(Outside(address.ip), "")
    owner, cluster = owned
    if isinstance(owner, Service):
        return owner
    return Found(owner, cluster, f"{address.ip} is {owner}")


def service_named(world: World, name: ServiceName, first: str = "") -> tuple[Service, ...] | Unresolved:
    """The Service, nearest cluster first; in several clusters when it is one Service of the cluster set (see
    `backends`).
    """
    missing = no_cluster(world, name.cluster)
    if missing:
        return missing
    found = [
        c.services[key]
        for c in clusters(world, name.cluster, first)
        if (key := (name.namespace, name.name)) in c.services
    ]
    if not found:
        return Unresolved(f"no Service {name.namespace}/{name.name} among the objects")
    return tuple(found)


def backends(world: World, service: Service, port: int | str | None, protocol: str) -> Sequence[Backend] | Unresolved:
    """The endpoints of one Service object that are ready, with the port they are reached on.

    From its EndpointSlices when there are any, else from the pods its selector matches. A headless Service translates
    nothing: the port stays as asked.
    """
    cluster = world.clusters[service.cluster]
    if service.type == "ExternalName":
        number = port if isinstance(port, int) else None
        return (Backend(DomainName(service.external_name.rstrip(".").lower()), "", number, service),)
    wanted = [
        p
        for p in service.ports
        if p.protocol == protocol
        and (port is None or port in (p.port, p.name) or (isinstance(port, str) and port == str(p.port)))
    ]
    if port is None and len(wanted) > 1:
        return Unresolved(
            f"{service} has ports {', '.join(str(p.port) for p in wanted)}: which one is meant was not said"
        )
    if not wanted and not (service.headless and isinstance(port, int)):
        offered = ", ".join(f"{p.port}/{p.protocol}" for p in service.ports) or "none"
        return Unresolved(f"{service} has no port {port}/{protocol} (it has {offered})")
    spec = wanted[0] if wanted else None
    found: list[Backend] = []
    passed_over: list[str] = []
    slices = cluster.slices.get((service.namespace, service.name), ())
    if slices:
        for each in slices:
            numbers = [n for name, n, p in each.ports if p == protocol and spec is not None and name == spec.name]
            for endpoint in each.endpoints:
                end = endpoint_end(world, cluster, each.namespace, endpoint)
                if not endpoint.ready:
                    passed_over.append(f"{end} is not ready")
                elif service.headless and isinstance(port, int):
                    found.append(Backend(end, cluster.name if isinstance(end, (Pod, Node)) else "", port, service))
                elif numbers:
                    found.append(
                        Backend(end, cluster.name if isinstance(end, (Pod, Node)) else "", numbers[0], service)
                    )
                else:
                    passed_over.append(f"{end} has no port for {spec.name or spec.port if spec else port}")
    elif service.selector:
        for pod in cluster.pods.values():
            if pod.namespace != service.namespace or pod.phase in FINISHED:
                continue
            if any(pod.labels.get(key) != value for key, value in service.selector.items()):
                continue
            if not pod.ready:
                passed_over.append(f"{pod} is not ready")
                continue
            if service.headless and isinstance(port, int):
                found.append(Backend(pod, cluster.name, port, service))
                continue
            assert spec is not None
            if isinstance(spec.target, int):
                found.append(Backend(pod, cluster.name, spec.target, service))
                continue
            named = pod.named_ports(spec.target, protocol)
            if named:
                found.append(Backend(pod, cluster.name, named[0].port, service))
            else:
                passed_over.append(f"{pod} has no port named {spec.target}")
    else:
        return Unresolved(f"{service} has no selector and no EndpointSlices were given")
    if not found:
        why = "; ".join(passed_over[:3]) or "its selector matches no pod"
        return Unresolved(f"{service} has no endpoint for port {port}: {why}")
    return found


def endpoint_end(world: World, cluster: Cluster, namespace: str, endpoint: Endpoint) -> End:
    if endpoint.target is not None:
        pod = cluster.pods.get(endpoint.target)
        if pod is not None:
            return pod
    if endpoint.ip is not None:
        owner = cluster.by_ip.get(endpoint.ip)
        return owner if isinstance(owner, (Pod, Node)) else Outside(endpoint.ip)
    return DomainName(endpoint.hostname.rstrip(".").lower())


def fqdn_service(name: Fqdn) -> ServiceName | None:
    """`svc.ns.svc[.anything]` is a Service of the clusters, and `…svc.clusterset.local` one of the set."""
    parts = name.name.rstrip(".").lower().split(".")
    if len(parts) >= 3 and parts[2] == "svc" and all(parts[:2]):
        return ServiceName(parts[1], parts[0])
    return None


_ZONES = (["cluster", "local"], ["clusterset", "local"])


def name_meant(world: World, name: Fqdn, source: Found) -> ServiceName | PodName | Address | Unresolved | None:
    """What a host name stands for inside the clusters; None = a name outside. Names that can only be of a cluster but
    lead to nothing known are Unresolved: whose policies would be asked is open.

    Source: "DNS for Services and Pods" (kubernetes.io), the CoreDNS plugin `kubernetes`.
    """
    text = name.name.rstrip(".").lower()
    try:
        return Address(parse_ip(text))
    except ValueError:
        pass
    parts = text.split(".")
    if len(parts) <= 2 and isinstance(source.end, Pod):  # by the search list of the pod's resolv.conf
        near = ServiceName(parts[1] if len(parts) == 2 else source.end.namespace, parts[0], source.cluster)
        return near if (near.namespace, near.name) in world.clusters[source.cluster].services else None
    inside = parts[-2:] in _ZONES or parts[-1] == "svc"
    service = fqdn_service(name)
    if service is not None:
        known = service_named(world, service, source.cluster)
        if isinstance(known, Unresolved):
            return known if inside else None
        return service
    if len(parts) > 3 and parts[3] == "svc":
        for cluster in clusters(world, "", source.cluster):
            for pod in cluster.pods.values():
                dashed = [str(ip).replace(".", "-").replace(":", "-") for ip in pod.ips]
                if pod.namespace == parts[2] and parts[0] in (pod.raw_spec.get("hostname"), *dashed):
                    return PodName(pod.namespace, pod.name, cluster.name)
    if len(parts) > 2 and parts[2] == "pod" and inside:
        for spelled in (parts[0].replace("-", "."), parts[0].replace("-", ":")):
            try:
                return Address(parse_ip(spelled))
            except ValueError:
                continue
    return Unresolved(f"{text} is a name inside a cluster, and leads to nothing among the objects") if inside else None


def behind_node(world: World, node: Node, port: int, protocol: str) -> tuple[Service | Pod, int] | None:
    """What a port of a node leads to: the Service of that node port or the pod of that host port, and its own port."""
    cluster = world.clusters[node.cluster]
    return cluster.by_node_port.get((port, protocol)) or cluster.by_host_port.get((node.name, port, protocol))
