"""Who calls whom: the pair of targets and the objects that were read, resolved to a Flow. Pure.

Anything odd that is met on the way becomes a FlowNote, which the check `flow-pair-resolves` turns into a finding; only
what leaves no flow to look at (no such name anywhere, several candidates, a port that does not exist) is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence

from mcdoctor.flow import interconnect, kinds
from mcdoctor.flow.objects import maps, pods_of, protocol_of, readiness_request, sequence, service_port
from mcdoctor.flow.request import FlowRequest
from mcdoctor.flow.target import settle
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import KubeObject
from mcdoctor.models.flow import Backend, Flow, FlowNote, Protocol, Rung, ServicePort, Target, Workload

FINDINGS = (
    "destination-missing-here",
    "destination-namespace-missing-here",
    "destination-not-exported",
    "destination-not-imported",
    "destination-missing-there",
    "destination-not-global",
    "source-has-no-running-pod",
)
"""Finding ids of the notes that `resolve` makes."""

_SCHEMES: dict[str, Protocol] = {
    "http": "http", "https": "https", "grpc": "grpc", "grpcs": "grpc", "tcp": "tcp", "tls": "tls",
}  # fmt: skip
_ENDPOINT_RUNGS = 6


class FlowError(ValueError):
    """There is no flow to look at; the message is one line for the user."""


class NotFound(FlowError):
    """No such name anywhere; `nearest` are names that are like it."""

    def __init__(self, message: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.nearest = nearest


class Unseen(FlowError):
    """The name was not seen, but not everything could be looked at; `command` is for someone who may look."""

    def __init__(self, message: str, command: str | None = None) -> None:
        super().__init__(message)
        self.command = command


class Ambiguous(FlowError):
    """Several things have that name; `candidates` are targets that say which one is meant."""

    def __init__(self, message: str, candidates: tuple[str, ...]) -> None:
        super().__init__(message)
        self.candidates = candidates


def resolve(request: FlowRequest, facts: Facts) -> Flow:
    """The flow of a request; raises FlowError."""
    notes: list[FlowNote] = []
    here = request.source_cluster
    there = request.destination_cluster or here
    source = _source(request, facts)
    if not source.pods and _none_runs(facts, source):
        notes.append(_note("source-has-no-running-pod", str(source), workload=str(source), cluster=here))
    known = {str(o.namespace) for o in facts.objects(kinds.SERVICE)} | {
        str(o.namespace) for o in facts.objects(kinds.POD)
    }
    known |= {o.name for o in facts.objects(kinds.NAMESPACE)}
    target = settle(request.destination, known.__contains__)
    flow = Flow(
        source_text=request.source.text,
        destination_text=request.destination.text,
        source=source,
        source_cluster=here,
        destination_cluster=there,
        cluster_domain=_cluster_domain(facts, here),
    )
    if target.form == "object":
        flow = _object_destination(flow, request, target, facts, notes)
    else:
        flow = _host_destination(flow, request, target, facts)
    flow = dataclasses.replace(flow, notes=(*notes, *flow.notes))
    flow = _speaks(flow, request, target, facts)
    flow = dataclasses.replace(flow, interconnect=interconnect.layers(facts, flow))
    return dataclasses.replace(flow, rungs=_rungs(flow, facts))


def _note(note: str, subject: str, **args: str) -> FlowNote:
    return FlowNote(id=note, subject=subject, args=tuple(sorted(args.items())))


def _cluster_domain(facts: Facts, cluster: str) -> str:
    """The cluster domain, from the Corefile's `kubernetes` plugin; cluster.local where it does not say."""
    config = facts.object(kinds.CONFIG_MAP, cluster, "kube-system", "coredns")
    data = config.body.get("data") if config else None
    text = str(data.get("Corefile", "")) if isinstance(data, dict) else ""
    for raw in text.splitlines():
        words = raw.partition("#")[0].split()
        if words[:1] == ["kubernetes"] and len(words) > 1 and words[1] not in ("{", "in-addr.arpa"):
            return words[1].rstrip(".")
    return "cluster.local"


# --- source ------------------------------------------------------------------------------------------------------


def _source(request: FlowRequest, facts: Facts) -> Workload:
    target = request.source
    if target.form != "object":
        raise FlowError(f"{target.text!r}: the source is a workload or a pod, not a host or an address")
    namespace = target.namespace or request.namespace
    found = _named(facts, target, request.source_cluster, namespace, (*kinds.WORKLOADS, kinds.SERVICE))
    if not found and target.namespace is None and request.namespace is None:
        found = _labelled(facts, target, request.source_cluster)
    if not found:
        names = {
            o.name
            for kind in (*kinds.WORKLOADS, kinds.SERVICE)
            for o in facts.objects(kind, request.source_cluster, namespace)
        }
        place = f"namespace {namespace} of {request.source_cluster}" if namespace else request.source_cluster
        _all_seen(facts, target, (request.source_cluster,), place)
        raise NotFound(f"no workload, pod or Service {target.name!r} in {place}", _nearest(target.name, names))
    chosen = _one(target, found)
    return Workload(
        cluster=chosen.cluster,
        namespace=chosen.namespace or "default",
        kind=chosen.kind,
        name=chosen.name,
        pods=pods_of(facts, chosen),
    )


def _none_runs(facts: Facts, source: Workload) -> bool:
    """The workload has no pod: all pods there are known, or the workload itself counts none."""
    if facts.complete(kinds.POD, source.cluster, source.namespace):
        return True
    found = facts.object(source.kind, source.cluster, source.namespace, source.name)
    return found is not None and 0 in (found.spec.get("replicas"), found.status.get("replicas"))


def _named(
    facts: Facts, target: Target, cluster: str, namespace: str | None, allowed: Iterable[str]
) -> list[KubeObject]:
    """Objects of the target's name, of the first kind that has any: a Deployment before its pods and its Service."""
    for kind in (target.kind,) if target.kind else tuple(allowed):
        found = [o for o in facts.objects(kind, cluster, namespace) if o.name == target.name]
        if found:
            return found
    return []


def _labelled(facts: Facts, target: Target, cluster: str) -> list[KubeObject]:
    """Pods that carry the name as their app label, one a namespace."""
    found: dict[str | None, KubeObject] = {}
    for pod in facts.objects(kinds.POD, cluster):
        if target.name in (pod.labels.get("app"), pod.labels.get("app.kubernetes.io/name")):
            found.setdefault(pod.namespace, pod)
    return list(found.values())


def _one(target: Target, found: list[KubeObject]) -> KubeObject:
    if len(found) > 1:
        candidates = tuple(sorted(f"{o.name}.{o.namespace}" for o in found))
        raise Ambiguous(f"{target.text!r} is in several namespaces: {', '.join(candidates)}", candidates)
    return found[0]


def _nearest(name: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(difflib.get_close_matches(name, sorted(set(names)), n=3, cutoff=0.6))


# --- destination: a Service, an import or a workload by name ----------------------------------------------------------


def _object_destination(flow: Flow, request: FlowRequest, target: Target, facts: Facts, notes: list[FlowNote]) -> Flow:
    here, there = flow.source_cluster, flow.destination_cluster
    # Namespace sameness: the name means the same namespace on both sides; an own --to-namespace says otherwise.
    asked = target.namespace or request.to_namespace
    source_namespace = flow.source.namespace if flow.source else None
    wanted = asked or request.namespace
    remote = _service(facts, target, there, wanted, source_namespace)
    local = remote if there == here else _service(facts, target, here, wanted, source_namespace, remote)
    imported = _imported(facts, target, here, wanted or (remote.namespace if remote else None))
    if local is None and imported is None and there != here:
        local = _mirror(facts, target, here, there, wanted or (remote.namespace if remote else None))
    if local is None and remote is None and imported is None:
        pods = _pod_destination(flow, target, facts, wanted, request.port or target.port)
        if pods is not None:
            return pods
        raise _nowhere(facts, flow, target, wanted)
    shown = local or imported or remote
    assert shown is not None  # one of the three is there
    namespace = shown.namespace or "default"
    _missing(flow, facts, notes, target.name, namespace, local, imported, remote)
    port = request.port or target.port
    local_port = _with_port(facts, local or imported, port)
    remote_port = _with_port(facts, remote, port)
    if local is not None and imported is None:
        host = f"{local.name}.{namespace}.svc.{flow.cluster_domain}"
    elif local is None and (imported is not None or _may_be_imported(facts, here, there, namespace, target.name)):
        host = f"{target.name}.{namespace}.svc.clusterset.local"
    else:
        host = f"{target.name}.{namespace}.svc.{flow.cluster_domain}"
    backends = (local_port.backends if local_port else ()) or (remote_port.backends if remote_port else ())
    if remote_port is not None and there != here and remote_port.backends:
        backends = remote_port.backends
    return dataclasses.replace(
        flow,
        namespace=namespace,
        name=target.name,
        host=host,
        port=(local_port.port if local_port else None) or (remote_port.port if remote_port else None) or _number(port),
        local=local_port,
        remote=remote_port,
        backends=backends,
    )


def _service(
    facts: Facts,
    target: Target,
    cluster: str,
    namespace: str | None,
    beside: str | None,
    other: KubeObject | None = None,
) -> KubeObject | None:
    """The Service of the name: in the namespace asked for, else with its twin, else beside the source, else alone."""
    if target.kind not in (None, kinds.SERVICE):
        return None
    found = [o for o in facts.objects(kinds.SERVICE, cluster, namespace) if o.name == target.name]
    if namespace is None and len(found) > 1:
        for preferred in (other.namespace if other else None, beside):
            if near := [o for o in found if o.namespace == preferred]:
                return near[0]
    if namespace is None and other is not None:
        found = [o for o in found if o.namespace == other.namespace]
    return _one(target, found) if found else None


def _imported(facts: Facts, target: Target, cluster: str, namespace: str | None) -> KubeObject | None:
    for kind in (kinds.SERVICE_IMPORT, kinds.LIGHTHOUSE_IMPORT):
        for found in facts.objects(kind, cluster, namespace):
            if found.name == target.name:
                return found
    return None


def _mirror(facts: Facts, target: Target, here: str, there: str, namespace: str | None) -> KubeObject | None:
    """Linkerd's mirror `NAME-CLUSTER` (or the federated Service) in the source's cluster."""
    mirrors = [
        o
        for o in facts.objects(kinds.SERVICE, here, namespace)
        if interconnect.is_mirror(o) and o.name.startswith(f"{target.name}-")
    ]
    exact = [o for o in mirrors if o.name == f"{target.name}-{there}"]
    chosen = exact or mirrors
    return chosen[0] if len(chosen) == 1 else None


def _with_port(facts: Facts, service: KubeObject | None, wanted: str | None) -> ServicePort | None:
    if service is None:
        return None
    found = service_port(facts, service, wanted)
    if wanted is not None and found.port is None and found.external_name is None and service.spec.get("ports"):
        ports = ", ".join(
            f"{p.get('port')}" + (f" ({p['name']})" if p.get("name") else "") for p in maps(service.spec.get("ports"))
        )
        raise FlowError(f"port {wanted} is not on {service.subject} in {service.cluster}; it has {ports}")
    return found


def _number(port: str | None) -> int | None:
    return int(port) if port and port.isdigit() else None


def _missing(
    flow: Flow,
    facts: Facts,
    notes: list[FlowNote],
    name: str,
    namespace: str,
    local: KubeObject | None,
    imported: KubeObject | None,
    remote: KubeObject | None,
) -> None:
    """What is not where the other side expects it; absence counts only where lists are complete."""
    here, there = flow.source_cluster, flow.destination_cluster
    if here == there:
        return
    args = {"name": name, "namespace": namespace, "here": here, "there": there}
    subject = f"{kinds.SERVICE} {namespace}/{name}"
    stands_in = _may_be_imported(facts, here, there, namespace, name) or _may_be_mirrored(facts, here, remote)
    unknown_here = local is None and imported is None and facts.absent(kinds.SERVICE, here, namespace, name)
    if remote is not None and unknown_here and not stands_in:
        if facts.absent(kinds.NAMESPACE, here, None, namespace):
            notes.append(_note("destination-namespace-missing-here", f"Namespace {namespace}", **args))
        notes.append(_note("destination-missing-here", subject, **args))
    if remote is None and facts.absent(kinds.SERVICE, there, namespace, name):
        plain = local is not None and (local.spec.get("type") == "ExternalName" or not local.spec.get("selector"))
        if not plain:
            notes.append(_note("destination-missing-there", subject, **args))
    uses_mcs = any(facts.objects(k) for k in (kinds.SERVICE_IMPORT, kinds.SERVICE_EXPORT))
    if remote is not None and uses_mcs and local is None:
        exported = facts.object(kinds.SERVICE_EXPORT, there, namespace, name)
        if exported is None and facts.absent(kinds.SERVICE_EXPORT, there, namespace, name):
            notes.append(_note("destination-not-exported", subject, **args))
        elif exported is not None and imported is None and facts.absent(kinds.SERVICE_IMPORT, here, namespace, name):
            notes.append(_note("destination-not-imported", subject, **args))
    if local is not None and remote is not None and interconnect.is_global(local) != interconnect.is_global(remote):
        side = there if interconnect.is_global(local) else here
        notes.append(_note("destination-not-global", subject, side=side, **args))


_IMPORTS = ((kinds.SERVICE_EXPORT, kinds.SERVICE_IMPORT), (kinds.LIGHTHOUSE_EXPORT, kinds.LIGHTHOUSE_IMPORT))


def _may_be_imported(facts: Facts, here: str, there: str, namespace: str, name: str) -> bool:
    """It is exported there, and whether it was imported here was not seen: then the import stands for the Service."""
    return any(
        facts.object(export, there, namespace, name) is not None and not facts.absent(imported, here, namespace, name)
        for export, imported in _IMPORTS
    )


def _may_be_mirrored(facts: Facts, here: str, remote: KubeObject | None) -> bool:
    """It is marked for a service mirror there, and the Link here that would fetch it was not seen."""
    marked = remote is not None and any(label.startswith("mirror.linkerd.io/") for label in remote.labels)
    return marked and not facts.objects(kinds.LINK, here) and not facts.complete(kinds.LINK, here)


def _pod_destination(flow: Flow, target: Target, facts: Facts, namespace: str | None, port: str | None) -> Flow | None:
    """A workload or pod named directly: its pods are the backends."""
    found = _named(facts, target, flow.destination_cluster, namespace, kinds.WORKLOADS)
    if not found:
        return None
    chosen = _one(target, found)
    pods = [p for p in pods_of(facts, chosen) if p.ips]
    number = _number(port)
    if number is None:
        why = f"and its port {port} can only be given as a number" if port else "so the port must be said"
        raise FlowError(f"{target.text!r} has no Service, {why}: as in {target.name}:8080")
    return dataclasses.replace(
        flow,
        namespace=chosen.namespace or "default",
        name=chosen.name,
        address=pods[0].ips[0] if pods else None,
        port=number,
        backends=tuple(
            Backend(cluster=p.cluster, address=p.ips[0], port=number, ready=p.ready, pod=str(p), node=p.node)
            for p in pods
        ),
    )


def _nowhere(facts: Facts, flow: Flow, target: Target, namespace: str | None) -> NotFound:
    names = {o.name for o in facts.objects(kinds.SERVICE, None, namespace)}
    clusters = " or ".join(dict.fromkeys((flow.source_cluster, flow.destination_cluster)))
    place = f"namespace {namespace} of {clusters}" if namespace else clusters
    _all_seen(facts, target, (flow.source_cluster, flow.destination_cluster), place)
    return NotFound(f"no Service, import or workload {target.name!r} in {place}", _nearest(target.name, names))


def _all_seen(facts: Facts, target: Target, clusters: Sequence[str], place: str) -> None:
    """Raises Unseen where something of that name may have been hidden: what was refused is not absent."""
    for kind in (*kinds.WORKLOADS, kinds.SERVICE):
        for blind in facts.blind_to(kind):
            if blind.cluster in clusters:
                what = f"nothing named {target.name!r} was seen in {place}, but not everything could be looked at"
                raise Unseen(f"{what}: {blind.reason}", blind.command)


# --- destination: a host or an address ------------------------------------------------------------------------------


def _host_destination(flow: Flow, request: FlowRequest, target: Target, facts: Facts) -> Flow:
    port = request.port or target.port
    if target.form == "address":
        service = next(
            (
                o
                for o in facts.objects(kinds.SERVICE, flow.source_cluster)
                if target.name in (o.spec.get("clusterIP"), *sequence(o.spec.get("clusterIPs")))
            ),
            None,
        )
        local = _with_port(facts, service, port)
        return dataclasses.replace(
            flow,
            address=target.name,
            name=service.name if service else target.name,
            namespace=(service.namespace or "") if service else "",
            port=(local.port if local else None) or _number(port),
            local=local,
            backends=local.backends if local else (),
        )
    host = target.name
    labels = host.split(".")
    local = remote = None
    name, namespace = host, ""
    if len(labels) >= 3 and labels[2] == "svc":
        name, namespace = labels[0], labels[1]
        if len(labels) == 3:
            host = f"{host}.{flow.cluster_domain}"
        clusterset = host.endswith(".svc.clusterset.local")
        here = facts.object(kinds.SERVICE_IMPORT if clusterset else kinds.SERVICE, flow.source_cluster, namespace, name)
        there = facts.object(kinds.SERVICE, flow.destination_cluster, namespace, name)
        local, remote = _with_port(facts, here, port), _with_port(facts, there, port)
    else:
        alias = next(
            (
                o
                for o in facts.objects(kinds.SERVICE, flow.source_cluster)
                if str(o.spec.get("externalName", "")).rstrip(".") == host
            ),
            None,
        )
        local = _with_port(facts, alias, port)
    number = (local.port if local else None) or (remote.port if remote else None) or _number(port)
    return dataclasses.replace(
        flow,
        name=name,
        namespace=namespace,
        host=host,
        port=number,
        local=local,
        remote=remote,
        backends=(remote.backends if remote else ()) or (local.backends if local else ()),
    )


# --- protocol and ladder ----------------------------------------------------------------------------------------------


def _speaks(flow: Flow, request: FlowRequest, target: Target, facts: Facts) -> Flow:
    """The protocol, the path to ask for, and the port where only the protocol tells it."""
    behind = flow.remote or flow.local
    service = behind and facts.object(kinds.SERVICE, behind.cluster, behind.namespace, behind.name)
    ready = readiness_request(facts, service or None, behind.target if behind else None)
    if target.scheme:
        protocol: Protocol | None = _SCHEMES[target.scheme]
    else:
        declared = protocol_of(flow.local, flow.port, ready[0] if ready else None)
        protocol = declared or protocol_of(flow.remote, flow.port, ready[0] if ready else None)
    port = flow.port or _number(request.port or target.port)
    if port is None:
        port = {"https": 443, "http": 80}.get(protocol or "")
    if port is None:
        port = 443 if flow.host and flow.local is None else 80
        protocol = protocol or ("https" if port == 443 else "http")
    path = target.path or (ready[1] if ready else "/")
    return dataclasses.replace(flow, protocol=protocol, path=path, port=port)


def _rungs(flow: Flow, facts: Facts) -> tuple[Rung, ...]:
    """The destination ladder, from the name to the pods, and a neighbour."""
    rungs: list[Rung] = []
    port = flow.port or 0
    if flow.host:
        rungs.append(Rung(label="name", address=None, port=port, about=flow.host))
    if flow.address:
        rungs.append(Rung(label="cluster-ip", address=flow.address, port=port, about=f"address {flow.address}"))
    if flow.local is not None:
        about = f"{'ServiceImport' if flow.local.type == 'ServiceImport' else 'Service'} {flow.local}"
        rungs.extend(
            Rung(label="cluster-ip", address=ip, port=port, cluster=flow.source_cluster, about=about)
            for ip in flow.local.cluster_ips
            if ip != flow.address
        )
    reachable = flow.local.backends if flow.local is not None and flow.local.backends else ()
    if not reachable and _flat(flow):
        reachable = flow.backends
    rungs.extend(
        Rung(
            label="endpoint",
            address=b.address,
            port=b.port,
            cluster=b.cluster,
            about=f"pod {b.pod}" if b.pod else f"endpoint {b.address}",
        )
        for b in [b for b in reachable if b.ready][:_ENDPOINT_RUNGS]
    )
    rungs.extend(_neighbours(flow, facts, {r.address for r in rungs}))
    return tuple(rungs)


def _flat(flow: Flow) -> bool:
    """Whether pods of the destination's cluster may be reachable by their own addresses: nothing says otherwise."""
    if not flow.crosses_clusters:
        return True
    for layer in flow.interconnect:
        if "globalnet" in (layer.mode or "") or (layer.system == "linkerd-mirror" and layer.mode == "gateway"):
            return False
    return True


def _neighbours(flow: Flow, facts: Facts, taken: set[str | None]) -> list[Rung]:
    """One other ready address behind a Service beside the destination, to part the path from the application."""
    if not _flat(flow):
        return []
    for service in facts.objects(kinds.SERVICE, flow.destination_cluster, flow.namespace):
        if service.name == flow.name or not service.spec.get("selector"):
            continue
        for backend in service_port(facts, service, None).backends:
            if backend.ready and backend.address not in taken:
                return [
                    Rung(
                        label="neighbour",
                        address=backend.address,
                        port=backend.port,
                        cluster=backend.cluster,
                        about=f"Service {service.namespace}/{service.name}",
                    )
                ]
    return []
