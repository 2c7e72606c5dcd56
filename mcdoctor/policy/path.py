"""Questions answered: ends resolved, the path walked leg by leg, one verdict with everything that decides it.

A Service with several endpoints, a workload with pods that differ and a dual-stack pair are several paths; when they
disagree the answer is `conditional` and says to how many it is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mcdoctor.policy.crossing import (
    Ask,
    Leg,
    Path,
    across,
    by_waypoint,
    carrier_named,
    client_seen,
    detect,
    direct,
    relayed,
)
from mcdoctor.policy.engine import Engine
from mcdoctor.policy.istio import through_ztunnel, waypoint_of
from mcdoctor.policy.layers import PointDecision
from mcdoctor.policy.near import NearMiss, near_misses
from mcdoctor.policy.question import Address, Fqdn, NodeName, Packet, PodName, Question, ServiceName
from mcdoctor.policy.resolve import (
    Backend,
    Found,
    Unresolved,
    address_end,
    backends,
    behind_node,
    clusters,
    fqdn_service,
    name_meant,
    node_end,
    pod_ends,
    service_named,
)
from mcdoctor.policy.verdict import Deciding, Direction, Refusal, Step, Verdict, conjunction
from mcdoctor.policy.world import Cluster, DomainName, End, Node, Outside, Pod, Service, World


@dataclass(frozen=True, slots=True)
class PointAnswer:
    """One leg settled. `by` decides it; `points` holds one decision a reading."""

    label: str
    cluster: str
    direction: Direction
    verdict: Verdict
    by: tuple[Deciding, ...]
    why: str
    points: tuple[PointDecision, ...]

    @property
    def trace(self) -> tuple[Step, ...]:
        return tuple(step for layer in self.points[0].layers for step in layer.decision.trace)


@dataclass(frozen=True, slots=True)
class PathAnswer:
    """One source pod to one endpoint."""

    source: End
    destination: End
    port: int | None
    verdict: Verdict
    egress: Verdict
    ingress: Verdict
    points: tuple[PointAnswer, ...]
    carrier: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """`deciding`: what refuses when denied, what admits when allowed, what it hangs on otherwise; in path order."""

    question: Question
    verdict: Verdict
    egress: Verdict
    ingress: Verdict
    deciding: tuple[Deciding, ...]
    reason: str
    paths: tuple[PathAnswer, ...] = ()
    near: tuple[NearMiss, ...] = ()
    notes: tuple[str, ...] = ()


def unknown(question: Question, why: str) -> Answer:
    return Answer(question, Verdict.UNKNOWN, Verdict.UNKNOWN, Verdict.UNKNOWN, (), why)


# --- from the question to paths ------------------------------------------------------------------------------------


def _sources(engine: Engine, question: Question) -> tuple[Found, ...] | Unresolved:
    world, source = engine.world, question.source
    match source:
        case PodName():
            first = _local_cluster(engine, question)
            found = pod_ends(world, source, first, "source")
            return found if isinstance(found, Unresolved) else _alike(engine, found)
        case NodeName():
            node = node_end(world, source, "", "source")
            return node if isinstance(node, Unresolved) else (node,)
        case Address():
            first = getattr(question.destination, "cluster", "")
            end = address_end(world, source, first)
            return (Found(Outside(source.ip), ""),) if isinstance(end, Service) else (end,)


def _local_cluster(engine: Engine, question: Question) -> str:
    """Where the source is looked for first when its cluster was not said: with the destination if it is there too."""
    roles = [c.name for c in engine.world.clusters.values() if c.role == "source"]
    return roles[0] if roles else ""


def _alike(engine: Engine, found: tuple[Found, ...]) -> tuple[Found, ...]:
    """One pod of each class."""
    if len(found) == 1:
        return found
    classes: dict[int, Found] = {}
    for each in found:
        assert isinstance(each.end, Pod)
        classes.setdefault(engine.index.class_of[each.end], each)
    return tuple(classes.values())


def _targets(engine: Engine, question: Question, source: Found) -> tuple[list[Backend], list[str]] | Unresolved:
    """The endpoints the destination stands for, seen from `source`."""
    world, target, port = engine.world, question.destination, question.port
    number = port if isinstance(port, int) else None
    match target:
        case PodName():
            found = pod_ends(world, target, source.cluster)
            if isinstance(found, Unresolved):
                return found
            chosen = _alike(engine, found)
            ends = []
            for each in chosen:
                assert isinstance(each.end, Pod)
                at = number
                if isinstance(port, str):
                    named = each.end.named_ports(port, question.protocol)
                    if not named:
                        return Unresolved(f"{each.end} has no port named {port}")
                    at = named[0].port
                ends.append(Backend(each.end, each.cluster, at))
            return ends, [n for each in chosen if (n := each.note)][:1]
        case NodeName():
            node = node_end(world, target, source.cluster)
            if isinstance(node, Unresolved):
                return node
            behind = _behind_node(engine, question, source, node.end)
            return behind or ([Backend(node.end, node.cluster, number)], [node.note] if node.note else [])
        case Address():
            end = address_end(world, target, source.cluster)
            if isinstance(end, Service):
                return _service_targets(engine, question, source, [end], [f"{target.ip} is an address of {end}"])
            behind = _behind_node(engine, question, source, end.end)
            return behind or ([Backend(end.end, end.cluster, number)], [end.note] if end.note else [])
        case ServiceName():
            services = service_named(world, target, source.cluster)
            if isinstance(services, Unresolved):
                return services
            return _service_targets(engine, question, source, services, [])
        case Fqdn():
            meant = name_meant(world, target, source)
            if isinstance(meant, Unresolved):
                return meant
            if isinstance(meant, ServiceName):
                services = service_named(world, meant, source.cluster)
                if isinstance(services, Unresolved):
                    return services
                return _service_targets(engine, question, source, services, [f"{target.name} is {services[0]}"])
            if meant is not None:
                reached = _targets(engine, replace(question, destination=meant), source)
                if isinstance(reached, Unresolved):
                    return reached
                return reached[0], [f"{target.name} is {reached[0][0].end}"]
            return [Backend(DomainName(target.name.rstrip(".").lower()), "", number)], []


def _behind_node(
    engine: Engine, question: Question, source: Found, end: End
) -> tuple[list[Backend], list[str]] | Unresolved | None:
    """The endpoints behind a node port or host port; None where the node itself is meant."""
    if not isinstance(end, Node) or not isinstance(question.port, int):
        return None
    behind = behind_node(engine.world, end, question.port, question.protocol)
    if behind is None:
        return None
    there, port = behind
    told = f"port {question.port} of {end} leads to {there}"
    if isinstance(source.end, Pod) and not source.end.host_network:
        return Unresolved(f"{told}: ask for that; what the policies of {source.end} see of the way is up to the plugin")
    if isinstance(there, Pod):
        return [Backend(there, end.cluster, port)], [told]
    return _service_targets(engine, replace(question, port=port), source, [there], [told])


def _service_targets(
    engine: Engine, question: Question, source: Found, services: Sequence[Service], notes: list[str]
) -> tuple[list[Backend], list[str]] | Unresolved:
    """The endpoints of a Service as its own cluster has them, and those of its namesakes where the cluster set
    joins them.
    """
    nearest = services[0]
    if nearest.type == "ExternalName":
        meant = fqdn_service(Fqdn(nearest.external_name))
        there = service_named(engine.world, meant, source.cluster) if meant is not None else Unresolved("")
        others = [s for s in there if s.type != "ExternalName"] if not isinstance(there, Unresolved) else []
        if others:
            notes.append(f"{nearest} is an ExternalName for {others[0]}")
            return _service_targets(engine, question, source, others[:1], notes)
    mirrored = _mirrored(engine, nearest)
    if isinstance(mirrored, Service):
        notes.append(f"{nearest} mirrors {mirrored} of cluster {mirrored.cluster}")
        spec = next((p for p in nearest.ports if question.port in (p.port, p.name, None)), None)
        found = backends(engine.world, mirrored, spec.port if spec else question.port, question.protocol)
        if isinstance(found, Unresolved):
            return found
        return [replace(b, service=nearest) for b in found], notes
    joined = [nearest]
    if getattr(question.destination, "cluster", "") in ("", source.cluster):
        for cluster in clusters(engine.world, "", source.cluster):
            other = cluster.services.get((nearest.namespace, nearest.name))
            if other is not None and other is not nearest and _one_service(engine, source, nearest, other):
                joined.append(other)
    if source.cluster and nearest.cluster != source.cluster:
        notes.append(f"{nearest} is not in cluster {source.cluster} but in {nearest.cluster}")
    listed: list[Backend] = []
    failed: Unresolved | None = None
    for service in joined:
        found = backends(engine.world, service, question.port, question.protocol)
        if isinstance(found, Unresolved):
            failed = failed or found
        else:
            listed += found
    if not listed and failed is not None:
        return failed
    return listed, notes


def _mirrored(engine: Engine, service: Service) -> Service | None:
    """The Service that a Linkerd mirror Service stands for, when its cluster is among those at hand."""
    cluster = service.labels.get("mirror.linkerd.io/cluster-name")
    name = service.annotations.get("mirror.linkerd.io/remote-svc-fq-name", "").split(".")
    if not cluster or len(name) < 2 or cluster not in engine.world.clusters:
        return None
    return engine.world.clusters[cluster].services.get((name[1], name[0]))


def _one_service(engine: Engine, source: Found, here: Service, there: Service) -> bool:
    """Is a Service of the same name in another cluster joined with the near one, as seen from the source?"""
    marks = ("service.cilium.io/global", "io.cilium/global-service")
    if any(here.annotations.get(m) == "true" for m in marks) and any(there.annotations.get(m) == "true" for m in marks):
        shared = there.annotations.get("service.cilium.io/shared", there.annotations.get("io.cilium/shared-service"))
        affinity = here.annotations.get("service.cilium.io/affinity")
        return shared != "false" and affinity != "local"
    # With several ports, whichever: only the pods behind them matter.
    found = backends(engine.world, there, there.ports[0].port if there.ports else None, "TCP")
    if isinstance(source.end, Pod) and not isinstance(found, Unresolved) and isinstance(found[0].end, (Pod, Node)):
        return detect(engine.world, source.end, found[0].end, here)[0] in ("istio", "istio-ambient")
    return False


def _path(engine: Engine, question: Question, source: Found, backend: Backend, version: int) -> Path | Unresolved:
    world, end = engine.world, source.end
    ask = Ask(question, end if isinstance(end, Pod) else None, backend.service, version)
    via = question.via
    carrier = ""
    if isinstance(via, str):
        named = carrier_named(via)
        if named is None:
            return Unresolved(f"via {via!r} is neither a pod, an address nor a known kind of path")
        carrier = named
    elif via is not None:
        return _via(engine, ask, source, backend, via)
    remote = isinstance(backend.end, (Pod, Node)) and backend.cluster != ""
    if isinstance(end, (Pod, Node)) and remote and backend.cluster != source.cluster:
        assert isinstance(backend.end, (Pod, Node))
        if carrier:
            return across(world, ask, end, backend, carrier, "as asked", engine.index.atoms)
        found, evidence = detect(world, end, backend.end, backend.service)
        if found == "unknown" and backend.service is not None and backend.service.type in ("LoadBalancer", "NodePort"):
            found, evidence = "load-balancer", f"{backend.service} is of type {backend.service.type}"
        path = across(world, ask, end, backend, found, evidence, engine.index.atoms)
        return _or_meshed(world, ask, end, backend, path) if found == "unknown" else path
    service = backend.service
    if isinstance(end, Outside) and remote and service is not None and service.type in ("LoadBalancer", "NodePort"):
        notes: list[str] = []
        cluster = world.clusters[backend.cluster]
        seen = client_seen(cluster, end, backend.end, service, notes)
        if "cilium" in cluster.datapath.systems and end not in seen:
            seen = (*seen, end)
            notes.append("Cilium may keep the client's address: with DSR, and where that node runs the pod itself")
        packets = [ask.packet(backend.cluster, Direction.INGRESS, s, backend.end, backend.port) for s in seen]
        return Path((Leg("destination", tuple(packets)),), "load-balancer", tuple(notes))
    return _by_waypoint(engine, ask, source, backend) or direct(
        ask, end, backend.end, backend.port, source.cluster, backend.cluster
    )


def _may_be_meshed(cluster: Cluster) -> bool:
    """May Cilium run there, without cilium-config saying `cluster-id: 0`, which no meshed cluster has?"""
    told = [obj.ref.namespace for obj in cluster.of("", "ConfigMap") if obj.ref.name == "cilium-config"]
    settings = cluster.config_map(told[0], "cilium-config") or {} if told else {}
    may = "cilium" in cluster.datapath.systems or (cluster.datapath.cni is None and len(cluster.datapath.systems) == 1)
    return may and settings.get("cluster-id") != "0"


def _or_meshed(world: World, ask: Ask, source: Pod | Node, backend: Backend, path: Path) -> Path:
    """Clusters on Cilium that nothing is known to join may be a ClusterMesh: then each side sees the identity."""
    both = world.clusters[source.cluster], world.clusters[backend.cluster]
    if not all(map(_may_be_meshed, both)) or not any("cilium" in each.datapath.systems for each in both):
        return path
    legs = []
    for leg in path.legs:
        first = leg.readings[0]
        packet = ask.packet(first.cluster, first.direction, source, backend.end, backend.port)
        wire = (*leg.wire, packet) if leg.wire else ()
        legs.append(replace(leg, readings=(*leg.readings, packet), wire=wire))
    note = "Cilium runs there: read as a ClusterMesh too (no cilium-config on both sides settles it)"
    return replace(path, legs=tuple(legs), notes=(*path.notes, note))


def _by_waypoint(engine: Engine, ask: Ask, source: Found, backend: Backend) -> Path | None:
    """Inside one cluster of an ambient mesh: the path through the waypoint that the destination asks for."""
    end, target = source.end, backend.end
    if not isinstance(end, Pod) or not isinstance(target, Pod) or end.key == target.key:
        return None
    cluster = engine.world.clusters[backend.cluster]
    packet = ask.packet(backend.cluster, Direction.INGRESS, end, target, backend.port)
    named = waypoint_of(cluster, packet, target) if through_ztunnel(packet, target) else None
    if named is None:
        return None
    name, namespace = named
    pods = [
        pod
        for pod in cluster.pods.values()
        if pod.namespace == namespace and pod.labels.get("gateway.networking.k8s.io/gateway-name") == name
    ]
    return by_waypoint(ask, end, backend, f"{namespace}/{name}", pods)


def _via(
    engine: Engine, ask: Ask, source: Found, backend: Backend, via: PodName | Address | NodeName | ServiceName
) -> Path | Unresolved:
    """The gateway a question names, as the ends and the port it is reached on."""
    world = engine.world
    port = ask.question.port if isinstance(ask.question.port, int) else backend.port
    ends: tuple[End, ...] = ()
    cluster = ""
    match via:
        case PodName():
            found = pod_ends(world, via, backend.cluster)
            if isinstance(found, Unresolved):
                service = ServiceName(via.namespace, via.name, via.cluster)
                if isinstance(service_named(world, service, backend.cluster), Unresolved):
                    return found
                return _via(engine, ask, source, backend, service)
            ends, cluster = tuple(f.end for f in _alike(engine, found)), found[0].cluster
        case NodeName():
            node = node_end(world, via, backend.cluster)
            if isinstance(node, Unresolved):
                return node
            ends, cluster = (node.end,), node.cluster
        case Address():
            owner = address_end(world, via, backend.cluster)
            if isinstance(owner, Found):
                ends, cluster = (owner.end,), owner.cluster
            else:
                ends = (Outside(via.ip),)
        case ServiceName():
            services = service_named(world, via, backend.cluster)
            if isinstance(services, Unresolved):
                return services
            ends = tuple(
                p
                for p in world.clusters[services[0].cluster].pods.values()
                if p.namespace == services[0].namespace
                and services[0].selector
                and all(p.labels.get(k) == v for k, v in services[0].selector.items())
            )
            cluster = services[0].cluster
            if not ends:
                return Unresolved(f"{services[0]} has no pods to go through")
    return relayed(ask, source.end, source.cluster, ends, cluster, _gateway_port(ends, port), backend)


def _gateway_port(ends: Iterable[End], port: int | None) -> int | None:
    """East-west and Linkerd gateways and waypoints take traffic in on a port of their own; others on the one asked
    for.
    """
    for end in ends:
        if isinstance(end, Pod):
            numbers = {p.port for p in end.ports}
            if end.labels.get("istio", "").startswith("eastwest") or 15443 in numbers:
                return 15443
            if "linkerd-gateway" in (end.labels.get("app"), end.labels.get("component")):
                return 4143
            if end.labels.get("gateway.istio.io/managed") in (
                "istio.io-mesh-controller",
                "istio.io-eastwest-controller",
            ):
                return 15008
    return port


# --- settling ------------------------------------------------------------------------------------------------------


def _settle(engine: Engine, leg: Leg) -> PointAnswer:
    wires: Sequence[Packet | None] = leg.wire or [None] * len(leg.readings)
    points = tuple(engine.decide(p, w, mesh=leg.mesh) for p, w in zip(leg.readings, wires, strict=True))
    first = points[0]
    cluster, direction = first.packet.cluster, first.packet.direction
    unseen = engine.world.clusters[cluster].unseen
    if unseen and all(point.verdict is Verdict.ALLOWED for point in points):
        return PointAnswer(leg.label, cluster, direction, Verdict.UNKNOWN, (), "; ".join(unseen), points)
    if all(point.verdict is first.verdict for point in points[1:]):
        return PointAnswer(leg.label, cluster, direction, first.verdict, _by(first), _why(first), points)
    told = "; ".join(
        dict.fromkeys(f"seen from {p.packet.source} to {p.packet.destination}: {p.verdict}" for p in points[:4])
    )
    by = tuple(dict.fromkeys(d for point in points for d in _by(point)))
    why = f"it hangs on which address is seen ({told})"
    return PointAnswer(leg.label, cluster, direction, Verdict.UNKNOWN, by, why, points)


def _by(point: PointDecision) -> tuple[Deciding, ...]:
    """What decides a point: of a refusal only those that refuse, all layers of them."""
    chosen = [layer for layer in point.layers if layer.decision.verdict is point.verdict]
    by = dict.fromkeys(d for layer in chosen for d in layer.decision.by)
    final = tuple(d for d in by if d.effect in ("allow", "deny"))
    return final or tuple(by)  # a rule that passes, logs or audits decides only where nothing else does


def _why(point: PointDecision) -> str:
    chosen = [layer.decision.why for layer in point.layers if layer.decision.verdict is point.verdict]
    told = [why for why in dict.fromkeys(chosen) if why and why != "no policy applies"]
    return "; ".join(told) or "no policy applies"


def _walk(engine: Engine, source: Found, backend: Backend, path: Path) -> PathAnswer:
    points = tuple(_settle(engine, leg) for leg in path.legs)
    egress = conjunction(p.verdict for p in points if p.direction is Direction.EGRESS)
    ingress = conjunction(p.verdict for p in points if p.direction is Direction.INGRESS)
    verdict = conjunction((egress, ingress))
    return PathAnswer(source.end, backend.end, backend.port, verdict, egress, ingress, points, path.carrier, path.notes)


def _joined(verdicts: Sequence[Verdict]) -> Verdict:
    """Of several paths: agreement, else unknown if any is, else conditional."""
    seen = set(verdicts)
    if len(seen) == 1:
        return verdicts[0]
    return Verdict.UNKNOWN if Verdict.UNKNOWN in seen else Verdict.CONDITIONAL


def ask(engine: Engine, question: Question, *, explain: bool = True) -> Answer:
    """Answer one question. Never raises for what the objects or the question hold. `explain` False leaves out near
    misses.
    """
    if question.source == question.destination and isinstance(question.source, PodName):
        question = replace(question, via=None)
    sources = _sources(engine, question)
    if isinstance(sources, Unresolved):
        return unknown(question, sources.why)
    walked: list[PathAnswer] = []
    notes: list[str] = [s.note for s in sources if s.note][:1]
    for source in sources:
        targets = _targets(engine, question, source)
        if isinstance(targets, Unresolved):
            return unknown(question, targets.why)
        listed, told = targets
        notes += told
        for backend in listed:
            for version in _versions(question, source.end, backend.end):
                path = _path(engine, question, source, backend, version)
                if isinstance(path, Unresolved):
                    return unknown(question, path.why)
                walked.append(_walk(engine, source, backend, path))
    notes += [note for path in walked for note in path.notes]
    return _answer(engine, question, walked, tuple(dict.fromkeys(notes)), explain)


def _versions(question: Question, source: End, destination: End) -> tuple[int, ...]:
    """0 = whatever address there is; 4 and 6 apart when both ends have both."""
    if question.icmp is not None:
        return (question.icmp.family,)
    for asked in (question.source, question.destination):
        if isinstance(asked, Address):
            return (asked.ip.version,)
    if isinstance(source, Pod) and isinstance(destination, Pod):
        both = {ip.version for ip in source.ips} & {ip.version for ip in destination.ips}
        if len(both) > 1:
            return (4, 6)
        if both and (len(source.ips) > 1 or len(destination.ips) > 1):
            return tuple(both)
        return (0,)
    return (0,)


def _answer(
    engine: Engine, question: Question, walked: list[PathAnswer], notes: tuple[str, ...], explain: bool
) -> Answer:
    verdict = _joined([path.verdict for path in walked])
    egress = _joined([path.egress for path in walked])
    ingress = _joined([path.ingress for path in walked])
    deciding = _deciding(walked, verdict)
    near: tuple[NearMiss, ...] = ()
    if explain and verdict is not Verdict.ALLOWED:
        near = _near(engine, walked)
    reason = _reason(engine, walked, verdict, near)
    extra = [*notes, *_absent(engine, walked)]
    if explain and isinstance(question.destination, (ServiceName, Fqdn)):
        extra += _names(engine, question, walked)
    if extra:
        reason = f"{reason} ({'; '.join(extra)})"
    return Answer(question, verdict, egress, ingress, deciding, reason, tuple(walked), near, tuple(extra))


def _deciding(walked: Sequence[PathAnswer], verdict: Verdict) -> tuple[Deciding, ...]:
    """Denied: every refusal. Allowed: what admits. Else: what refuses or is open on any path, and on a mixed one
    what admits.
    """
    found: dict[Deciding, None] = {}
    for path in walked:
        for point in path.points:
            if verdict in (Verdict.DENIED, Verdict.ALLOWED):
                take = point.verdict is verdict
            else:
                take = point.verdict is not Verdict.ALLOWED or len(walked) > 1
            if take:
                found.update(dict.fromkeys(point.by))
    return tuple(found)


def _reason(engine: Engine, walked: Sequence[PathAnswer], verdict: Verdict, near: Sequence[NearMiss]) -> str:
    several = len(engine.world.clusters) > 1
    if len(walked) > 1 and len({path.verdict for path in walked}) > 1:
        allowed = sum(path.verdict is Verdict.ALLOWED for path in walked)
        parts = [f"allowed to {allowed} of {len(walked)} endpoints"]
        for kind in (Verdict.DENIED, Verdict.UNKNOWN, Verdict.CONDITIONAL):
            first = next((path for path in walked if path.verdict is kind), None)
            if first is not None:
                parts.append(f"{kind} to {first.destination}: {_told(first, kind, several)}")
        text = "; ".join(parts)
    else:
        text = _told(walked[0], verdict, several)
    if near:
        text += ". Nearest rule: " + "; ".join(f"{n.ref} {n.pointer}: {n.why}" for n in near[:2])
    return text


def _told(path: PathAnswer, verdict: Verdict, several: bool) -> str:
    chosen = [p for p in path.points if p.verdict is verdict] or list(path.points)
    if not chosen:
        return "neither end is in a cluster at hand: no policy applies"
    return "; ".join(
        dict.fromkeys(
            f"{p.direction}{f' at the {p.label} in cluster {p.cluster}' if several else ''}: {p.why}" for p in chosen
        )
    )


def _near(engine: Engine, walked: Sequence[PathAnswer]) -> tuple[NearMiss, ...]:
    found: dict[NearMiss, None] = {}
    for path in walked:
        for answer in path.points:
            for point in answer.points if answer.verdict is not Verdict.ALLOWED else ():
                found.update(dict.fromkeys(near_misses(engine, point)))
        if found:
            break
    return tuple(found)


def _absent(engine: Engine, walked: Sequence[PathAnswer]) -> list[str]:
    """Objects of the pair's namespaces that do not count, because the API server would not have taken them."""
    refusals = engine.refusals_by_namespace
    if not refusals:
        return []
    places = {
        (end.cluster, end.namespace)
        for path in walked
        for end in (path.source, path.destination)
        if isinstance(end, Pod)
    }
    places |= {(point.cluster, "") for path in walked for point in path.points}
    listed: list[Refusal] = [r for place in sorted(places) for r in refusals.get(place, ()) if r.fatal]
    return [f"not counted: {r.ref}, {r.field or '/'} {r.why}" for r in listed[:3]]


def _names(engine: Engine, question: Question, walked: Sequence[PathAnswer]) -> list[str]:
    """Name look-ups come first: say so when the source may not ask its DNS server."""
    source = walked[0].source
    if (
        not isinstance(source, Pod)
        or source.host_network
        or (
            walked[0].egress is Verdict.ALLOWED
            and not any(p.by for p in walked[0].points if p.direction is Direction.EGRESS)
        )
    ):
        return []
    for cluster in clusters(engine.world, source.cluster):
        if ("kube-system", "kube-dns") in cluster.services:
            name = PodName(source.namespace, source.name, source.cluster)
            target = ServiceName("kube-system", "kube-dns", source.cluster)
            asked = ask(engine, Question(name, target, 53, "UDP"), explain=False)
            if asked.verdict is Verdict.DENIED and question.destination != target:
                return [f"the name look-up itself is refused: UDP 53 to {target.namespace}/{target.name}"]
    return []
