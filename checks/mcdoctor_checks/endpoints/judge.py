"""What the objects on both sides say about the Service, the pods behind it and its endpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mcdoctor.flow.interconnect import is_mirror
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Fact, KubeObject, Listener, TcpConnect
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome, Skipped, Unknown
from mcdoctor_checks.endpoints.facts import (
    SLICE,
    STUCK,
    Port,
    Side,
    Slice,
    cluster_ips,
    condition,
    declared,
    families,
    finished,
    is_external_name,
    is_headless,
    meant,
    nearest,
    pod_ips,
    pods_of,
    ready,
    resolve,
    selector,
    service_ports,
    sides,
    slices_of,
    terminating,
    why_not_ready,
    young,
)
from mcdoctor_checks.reading import (
    conclude,
    family,
    fields,
    items,
    number,
    selected,
    shown,
    strings,
    text,
    when,
    whole,
)
from mcdoctor_checks.sight import source_proxy

Args = dict[str, str | int | float]

_NO_SERVICE = "the destination is not a Service"
_SETTLING = 30.0  # seconds in which a controller may still be at work on a new object
_STARTING = 180.0  # seconds in which a pod that is not ready yet may simply be starting


def _severity(side: Side, severity: Severity = Severity.ERROR) -> Severity:
    """A Service whose traffic also goes to endpoints elsewhere is not broken by what this cluster lacks."""
    return Severity.NOTE if side.merged else severity


def _symptom(facts: Facts) -> Symptom:
    """What no usable endpoint looks like from the source: a proxy answers 503, kube-proxy refuses."""
    return Symptom.SURGE_5XX if source_proxy(facts) else Symptom.CONNECTION_REFUSED_OR_RESET


def _seen(facts: Facts) -> tuple[list[Side], list[str], Outcome | None]:
    """Sides whose Service was seen, why others were not, and the outcome when there is nothing to judge."""
    found = sides(facts)
    if not found:
        return [], [], Skipped(_NO_SERVICE)
    present = [s for s in found if s.service is not None]
    missing = []
    for side in found:
        if side.service is None and not (present and facts.absent("Service", side.cluster, side.namespace, side.name)):
            blind = facts.blind_to("Service")
            missing.append(blind[0].reason if blind else f"{side.subject} was not seen")
    if present:
        return present, missing, None
    if all(facts.absent("Service", s.cluster, s.namespace, s.name) for s in found):
        return [], [], Skipped("there is no Service", "endpoints-service-is-usable")
    return [], missing, Unknown(missing[0], _get(found[0], "service"))


def _get(side: Side, what: str) -> str:
    return f"kubectl --context {side.cluster} -n {side.namespace} get {what} {side.name} -o yaml"


# --- the Service itself -------------------------------------------------------------------------------------------


def judge_service(facts: Facts) -> Outcome:
    """The Service exists and has the port; an ExternalName leads somewhere that can be resolved."""
    found = sides(facts)
    if not found:
        return Skipped(_NO_SERVICE)
    problems: list[Finding] = []
    unknown: list[str] = []
    evidence: list[Fact] = []
    for side in found:
        if side.service is None:
            if facts.absent("Service", side.cluster, side.namespace, side.name):
                if any(_stands_for_another(s.service) for s in found if s.service is not None):
                    continue
                near = _similar(facts, side)
                args: Args = {"service": str(side), "cluster": side.cluster, "near": shown(near)}
                problems.append(
                    Finding(
                        id="service-absent",
                        hop=Hop.DEST_SERVICE,
                        subject=side.subject,
                        symptom=Symptom.DNS_PERSISTENT_FAILURE,
                        args=args,
                    )
                )
            else:
                unknown.append(f"{side.subject} was not seen")
            continue
        evidence.append(side.service)
        problems.extend(_external_name(facts, side) if is_external_name(side.service) else _port(facts, side))
    return conclude(problems, unknown, tuple(evidence))


def _stands_for_another(service: KubeObject) -> bool:
    """An alias, or a Service whose endpoints somebody keeps: what it leads to may bear any name over there."""
    return is_external_name(service) or not selector(service)


def _similar(facts: Facts, side: Side) -> list[str]:
    """Services of the same name elsewhere in the cluster, then those of a similar name in the namespace."""
    everywhere = facts.objects("Service", side.cluster)
    same = [f"{s.namespace}/{s.name}" for s in everywhere if s.name == side.name]
    alike = [
        f"{s.namespace}/{s.name}"
        for s in everywhere
        if s.namespace == side.namespace and (s.name in side.name or side.name in s.name)
    ]
    return same + [a for a in alike if a not in same]


def _external_name(facts: Facts, side: Side) -> Iterator[Finding]:
    service = side.service
    assert service is not None
    target = text(service.spec.get("externalName")).rstrip(".").lower()
    common: Args = {"service": str(side), "cluster": side.cluster, "target": target}
    domain = facts.flow.cluster_domain
    if family(target) is not None:
        yield Finding(
            id="external-name-is-address",
            hop=Hop.DEST_SERVICE,
            subject=side.subject,
            symptom=Symptom.DNS_PERSISTENT_FAILURE,
            args=common,
            evidence=(service,),
        )
    elif target == f"{side.name}.{side.namespace}.svc.{domain}":
        yield Finding(
            id="external-name-to-itself",
            hop=Hop.DEST_SERVICE,
            subject=side.subject,
            symptom=Symptom.DNS_PERSISTENT_FAILURE,
            args=common,
            evidence=(service,),
        )
    else:
        inside = target.endswith(f".svc.{domain}")
        chain = _aliases(facts, service, side.cluster, domain)
        if chain.absent:
            yield Finding(
                id="external-name-target-absent",
                hop=Hop.DEST_SERVICE,
                subject=side.subject,
                symptom=Symptom.DNS_PERSISTENT_FAILURE,
                args={**common, "target": chain.target},
                evidence=chain.services,
            )
            return
        yield Finding(
            id="external-name-in-cluster" if inside else "external-name-alias",
            hop=Hop.DEST_SERVICE,
            subject=side.subject,
            severity=Severity.NOTE,
            args=common,
            evidence=(service,),
        )


@dataclass(frozen=True, slots=True)
class _Chain:
    """Aliases of this cluster that lead to one another; `absent`: the last one names a Service that does not exist."""

    services: tuple[KubeObject, ...]
    target: str
    absent: bool


def _aliases(facts: Facts, first: KubeObject, cluster: str, domain: str) -> _Chain:
    services = [first]
    while True:
        target = text(services[-1].spec.get("externalName")).rstrip(".").lower()
        labels = target.removesuffix(f".svc.{domain}").split(".")
        if not target.endswith(f".svc.{domain}") or len(labels) < 2:
            return _Chain(tuple(services), target, False)
        name, namespace = labels[-2:]  # what stands before them names a pod or a port of the Service
        if facts.absent("Service", cluster, namespace, name):
            return _Chain(tuple(services), target, True)
        following = facts.object("Service", cluster, namespace, name)
        if following is None or not is_external_name(following) or following in services:
            return _Chain(tuple(services), target, False)
        services.append(following)


def _port(facts: Facts, side: Side) -> Iterator[Finding]:
    service = side.service
    assert service is not None
    wanted = facts.flow.port
    ports = service_ports(service)
    reference = facts.flow.remote if side.destination else facts.flow.local
    if reference is not None and reference.port is not None:
        wanted = reference.port
    if wanted is None or not ports:
        return
    same = [p for p in ports if p.port == wanted]
    args: Args = {
        "service": str(side),
        "cluster": side.cluster,
        "port": wanted,
        "ports": shown(f"{p}/{p.protocol}" for p in ports),
    }
    if same and facts.flow.protocol not in (None, "udp") and all(p.protocol != "TCP" for p in same):
        yield Finding(
            id="service-port-other-protocol",
            hop=Hop.DEST_SERVICE,
            subject=side.subject,
            severity=_severity(side),
            symptom=Symptom.CONNECTION_REFUSED_OR_RESET,
            args={**args, "protocol": same[0].protocol},
            evidence=(service,),
        )


# --- selector and pods --------------------------------------------------------------------------------------------


def judge_selector(facts: Facts) -> Outcome:
    """The selector matches pods."""
    present, unknown, early = _seen(facts)
    if early is not None:
        return early
    problems: list[Finding] = []
    evidence: list[Fact] = []
    judged = False
    for side in present:
        service = side.service
        assert service is not None
        wanted = selector(service)
        if not wanted or is_external_name(service):
            continue
        judged = True
        matched = pods_of(facts, side)
        if matched:
            evidence.extend((service, *matched))
            continue
        slices = slices_of(facts, side)
        # The controller lists every matching pod that has an address, ready or not: an empty slice is its word.
        empty = bool(slices) and not any(s.endpoints for s in slices)
        if any(s.endpoints for s in slices):
            evidence.append(service)  # pods were not read, and the endpoints show that there are some
            continue
        counted = any((number(o.status.get("replicas")) or 0) > 0 for o in _owners(facts, side, wanted))
        all_seen = whole(facts, "Pod", side.cluster, side.namespace, wanted)
        if not all_seen and (counted or not empty):
            unknown.append(f"pods of {side.namespace} in {side.cluster} were not all seen")
            continue
        if side.merged:  # its endpoints are those of the other cluster: nothing here need match
            problems.append(_none_of_its_own(side, service, tuple(s.origin for s in slices)))
            continue
        problems.append(_no_match(facts, side, wanted, tuple(s.origin for s in slices)))
    if not judged and not unknown:
        return Skipped("no Service of this flow selects pods")
    return conclude(problems, unknown, tuple(evidence))


def _none_of_its_own(side: Side, service: KubeObject, slices: tuple[KubeObject, ...]) -> Finding:
    return Finding(
        id="service-without-own-pods",
        hop=Hop.DEST_SERVICE,
        subject=side.subject,
        severity=Severity.NOTE,
        args={"service": str(side), "cluster": side.cluster},
        evidence=(service, *slices),
    )


def _no_match(facts: Facts, side: Side, wanted: Mapping[str, str], slices: tuple[KubeObject, ...]) -> Finding:
    service = side.service
    assert service is not None
    told = ",".join(f"{k}={v}" for k, v in wanted.items())
    common: Args = {"service": str(side), "cluster": side.cluster, "selector": told}
    for owner in _owners(facts, side, wanted):
        replicas = number(owner.spec.get("replicas"))
        of_owner: Args = {**common, "workload": f"{owner.kind.partition('.')[0]} {owner.name}"}
        if replicas == 0:
            return Finding(
                id="workload-scaled-to-zero",
                hop=Hop.DEST_ENDPOINT,
                subject=side.subject,
                severity=_severity(side),
                symptom=_symptom(facts),
                args=of_owner,
                evidence=(service, owner, *slices),
            )
        failure = condition(owner, "ReplicaFailure")
        why = text(failure.get("message")) if failure.get("status") == "True" else ""
        return Finding(
            id="workload-has-no-pods",
            hop=Hop.DEST_ENDPOINT,
            subject=side.subject,
            severity=_severity(side),
            symptom=_symptom(facts),
            args={**of_owner, "why": why or "-"},
            evidence=(service, owner, *slices),
        )
    candidates = tuple(p for p in facts.objects("Pod", side.cluster, side.namespace) if not finished(p))
    near = nearest(wanted, candidates)
    return Finding(
        id="selector-matches-no-pod",
        hop=Hop.DEST_SERVICE,
        subject=side.subject,
        severity=_severity(side),
        symptom=_symptom(facts),
        args={
            **common,
            "near": f"{near[0].name} ({near[1]})" if near else "-",
        },
        evidence=(service, *slices, *((near[0],) if near else ())),
    )


def _owners(facts: Facts, side: Side, wanted: Mapping[str, str]) -> tuple[KubeObject, ...]:
    """Workloads whose pods the selector would match."""
    return tuple(
        o
        for kind in ("Deployment.apps", "StatefulSet.apps", "ReplicaSet.apps", "DaemonSet.apps")
        for o in facts.objects(kind, side.cluster, side.namespace)
        if not any(r.get("kind") == "Deployment" for r in map(fields, items(_meta(o).get("ownerReferences"))))
        and selected(wanted, strings(fields(fields(o.spec.get("template")).get("metadata")).get("labels")))
    )


def _meta(o: KubeObject) -> Mapping[str, object]:
    return fields(o.body.get("metadata"))


def judge_ready(facts: Facts) -> Outcome:
    """There is an endpoint that may get traffic, and if not, what keeps the pods from being ready."""
    present, unknown, early = _seen(facts)
    if early is not None:
        return early
    problems: list[Finding] = []
    evidence: list[Fact] = []
    for side in present:
        service = side.service
        assert service is not None
        if is_external_name(service):
            continue
        pods, slices = pods_of(facts, side), slices_of(facts, side)
        evidence.extend((service, *(s.origin for s in slices), *pods))
        if slices:
            problems.extend(_by_slices(facts, side, pods, slices))
        elif side.merged:
            problems.extend(_some_not_ready(side, pods))
        elif pods and not any(map(ready, pods)) and service.spec.get("publishNotReadyAddresses") is not True:
            problems.append(_none_ready(facts, side, pods, slices))
        elif not pods:
            unknown.append(f"neither endpoints nor pods of {side.subject} were seen")
        else:
            problems.extend(_some_not_ready(side, pods))
    return conclude(problems, unknown, tuple(evidence))


def _by_slices(facts: Facts, side: Side, pods: tuple[KubeObject, ...], slices: tuple[Slice, ...]) -> Iterator[Finding]:
    service = side.service
    assert service is not None
    endpoints = [e for s in slices for e in s.endpoints]
    objects = tuple(s.origin for s in slices)
    common: Args = {"service": str(side), "cluster": side.cluster, "count": len(endpoints)}
    if side.merged and not any(e.ready for e in endpoints):  # others serve: what this side lacks stops nobody
        yield from _some_not_ready(side, pods)
        return
    if not endpoints:
        waiting = tuple(p for p in pods if not ready(p))
        if waiting and len(waiting) == len(pods):
            yield _none_ready(facts, side, pods, slices)
        elif not selector(service):
            yield Finding(
                id="endpoints-manual-empty",
                hop=Hop.DEST_ENDPOINT,
                subject=side.subject,
                severity=_severity(side),
                symptom=_symptom(facts),
                args=common,
                evidence=(service, *objects),
            )
        else:
            yield Finding(
                id="endpoints-empty",
                hop=Hop.DEST_ENDPOINT,
                subject=side.subject,
                severity=_severity(side),
                symptom=_symptom(facts),
                args=common,
                evidence=(service, *objects),
            )
        return
    if not any(e.ready for e in endpoints):
        if any(e.serving and e.terminating for e in endpoints):
            yield Finding(
                id="endpoints-only-terminating",
                hop=Hop.DEST_ENDPOINT,
                subject=side.subject,
                severity=_severity(side),
                symptom=Symptom.SURGE_5XX,
                args=common,
                evidence=(service, *objects, *pods),
            )
        elif is_mirror(service):
            yield Finding(
                id="mirror-endpoints-not-ready",
                hop=Hop.DEST_ENDPOINT,
                subject=side.subject,
                severity=_severity(side),
                symptom=_symptom(facts),
                args=common,
                evidence=(service, *objects),
            )
        else:
            yield _none_ready(facts, side, pods, slices)
        return
    leaving = [e for e in endpoints if e.terminating]
    if leaving:
        yield Finding(
            id="endpoints-terminating",
            hop=Hop.DEST_ENDPOINT,
            subject=side.subject,
            severity=Severity.NOTE,
            args={**common, "leaving": len(leaving)},
            evidence=objects,
        )
    yield from _some_not_ready(side, pods)


def _none_ready(facts: Facts, side: Side, pods: tuple[KubeObject, ...], slices: tuple[Slice, ...]) -> Finding:
    service = side.service
    assert service is not None
    addresses = shown(e.address for s in slices for e in s.endpoints)
    why = shown((f"{p.name}: {why_not_ready(p)}" for p in pods if not ready(p)), most=2)
    return Finding(
        id="endpoints-none-ready",
        hop=Hop.DEST_POD if pods else Hop.DEST_ENDPOINT,
        subject=side.subject,
        severity=_severity(side),
        symptom=_symptom(facts),
        args={
            "service": str(side),
            "cluster": side.cluster,
            "pods": shown([p.name for p in pods]) if pods else addresses,
            "why": why,
        },
        evidence=(service, *(s.origin for s in slices), *pods),
    )


def _some_not_ready(side: Side, pods: tuple[KubeObject, ...]) -> Iterator[Finding]:
    """Some pods do not serve while others do: a note while they may be starting or leaving, else a warning."""
    for pod in pods:
        if ready(pod) or terminating(pod):
            continue
        why = why_not_ready(pod)
        stuck = why.startswith(STUCK) or not young(pod, _STARTING)
        yield Finding(
            id="endpoints-some-not-ready",
            hop=Hop.DEST_POD,
            subject=f"Pod {pod.namespace}/{pod.name} in {side.cluster}",
            severity=_severity(side, Severity.WARNING if stuck else Severity.NOTE),
            symptom=Symptom.SURGE_5XX if stuck else None,
            args={"service": str(side), "cluster": side.cluster, "pod": pod.name, "why": why},
            evidence=(pod,),
        )


# --- ports --------------------------------------------------------------------------------------------------------


def judge_ports(facts: Facts) -> Outcome:
    """The target port resolves on the pods, and the endpoints carry it."""
    present, unknown, early = _seen(facts)
    if early is not None:
        return early
    problems: list[Finding] = []
    evidence: list[Fact] = []
    for side in present:
        service = side.service
        assert service is not None
        if is_external_name(service):
            continue
        pods, slices = pods_of(facts, side), slices_of(facts, side)
        evidence.append(service)
        for port in meant(side, facts.flow):
            found = list(_target(facts, side, port, pods)) if pods else []
            if any(s.endpoints for s in slices):
                found += _slice_ports(facts, side, port, pods, slices)
            problems += found
            problems += _not_served(facts, side, port, pods, found)
            if not pods and not slices:
                unknown.append(f"neither pods nor endpoints of {side.subject} were seen")
    return conclude(problems, unknown, tuple(evidence))


def _target(facts: Facts, side: Side, port: Port, pods: tuple[KubeObject, ...]) -> Iterator[Finding]:
    service = side.service
    assert service is not None
    common: Args = {"service": str(side), "cluster": side.cluster, "port": str(port), "target": port.target}
    lacking = tuple(p for p in pods if resolve(p, port) is None)
    if lacking and len(lacking) == len(pods):
        has = [f"{name or 'unnamed'}={n}/{proto}" for name, n, proto in declared(pods[0])]
        yield Finding(
            id="target-port-name-unknown",
            hop=Hop.DEST_SERVICE,
            subject=side.subject,
            severity=_severity(side),
            symptom=_symptom(facts),
            args={**common, "declared": shown(has)},
            evidence=(service, *lacking[:3]),
        )
    elif lacking:
        yield Finding(
            id="target-port-name-partial",
            hop=Hop.DEST_SERVICE,
            subject=side.subject,
            severity=_severity(side, Severity.WARNING),
            symptom=Symptom.UNEVEN_LOAD_OR_NO_FAILOVER,
            args={**common, "pods": shown(p.name for p in lacking)},
            evidence=(service, *lacking[:3]),
        )
    elif isinstance(port.target, int) and port.target not in _probed_ports(pods):
        # Declaring ports is optional: it tells something only where a pod declares others and not this one.
        others = [declared(p) for p in pods]
        if all(others) and not any(n == port.target for ports in others for _, n, _ in ports):
            yield Finding(
                id="target-port-undeclared",
                hop=Hop.DEST_SERVICE,
                subject=side.subject,
                severity=Severity.NOTE,
                args={**common, "declared": shown(f"{n}/{proto}" for _, n, proto in others[0])},
                evidence=(service, pods[0]),
            )


def _probed_ports(pods: tuple[KubeObject, ...]) -> set[int | None]:
    """Ports that readiness probes use: something that is ready listens there."""
    found: set[int | None] = set()
    for pod in pods:
        for container in map(fields, items(pod.spec.get("containers"))):
            probe = fields(container.get("readinessProbe"))
            found.update(number(fields(probe.get(means)).get("port")) for means in ("httpGet", "tcpSocket", "grpc"))
    return found


def _slice_ports(
    facts: Facts, side: Side, port: Port, pods: tuple[KubeObject, ...], slices: tuple[Slice, ...]
) -> Iterator[Finding]:
    """kube-proxy joins a Service port and a slice port by name; the number must be the one that the pods listen on."""
    service = side.service
    assert service is not None
    common: Args = {"service": str(side), "cluster": side.cluster, "port": str(port)}
    filled = [s for s in slices if s.endpoints]
    if all(not s.ports for s in filled) and is_headless(service):
        return
    matching = [(s, n) for s in filled for name, n, proto in s.ports if name == port.name and proto == port.protocol]
    objects = tuple(s.origin for s in filled)
    if not matching:
        if isinstance(port.target, str) and pods and all(resolve(p, port) is None for p in pods):
            return  # told by the unresolved name
        has = shown(f"{name or 'unnamed'}={n}/{proto}" for s in filled for name, n, proto in s.ports)
        yield Finding(
            id="endpoints-lack-port" if selector(service) else "endpoints-manual-lack-port",
            hop=Hop.DEST_ENDPOINT,
            subject=side.subject,
            severity=_severity(side),
            symptom=_symptom(facts),
            args={**common, "has": has},
            evidence=(service, *objects),
        )
        return
    numbers = {n for _, n in matching if n is not None}
    addresses = {e.address for t in filled for e in t.endpoints}
    refused = [
        f
        for f in facts.all(TcpConnect)
        if f.result == "refused" and f.port == port.port and f.address in addresses and not f.successes
    ]
    if is_headless(service) and numbers and port.port not in numbers and refused:
        yield Finding(
            id="endpoints-headless-port-differs",
            hop=Hop.DEST_SERVICE,
            subject=side.subject,
            symptom=Symptom.CONNECTION_REFUSED_OR_RESET,
            args={**common, "number": port.port, "has": shown(str(n) for n in sorted(numbers))},
            evidence=(service, *objects, *refused[:2]),
        )
    if not selector(service):
        return  # written by hand: any number may be meant
    wanted = {resolve(p, port) for p in pods} | ({port.target} if isinstance(port.target, int) else set())
    wrong = {n for _, n in matching if n is not None} - wanted
    if wanted - {None} and wrong:
        yield Finding(
            id="endpoints-port-differs",
            hop=Hop.DEST_ENDPOINT,
            subject=side.subject,
            severity=_severity(side),
            symptom=_symptom(facts),
            args={**common, "has": shown(str(n) for n in sorted(wrong)), "wanted": shown(str(w) for w in wanted if w)},
            evidence=(service, *objects),
        )


def _not_served(
    facts: Facts, side: Side, port: Port, pods: tuple[KubeObject, ...], problems: list[Finding]
) -> Iterator[Finding]:
    """One note for all that shows a wrong target port: what the objects say, or the sockets inside a pod."""
    shows: list[Fact] = [e for p in problems if p.id != "endpoints-port-differs" for e in p.evidence]
    named = {p.name: p for p in pods}
    for listener in facts.all(Listener):
        where = listener.vantage
        if where.cluster not in (None, side.cluster) or where.namespace not in (None, side.namespace):
            continue
        pod = named.get(where.pod or "")
        target = resolve(pod, port) if pod else None
        sockets = [s.port for s in listener.sockets if s.protocol == port.protocol.lower()]
        if target is not None and sockets and target not in sockets:
            shows.append(listener)
    if shows:
        yield Finding(
            id="target-port-not-served",
            hop=Hop.DEST_SERVICE,
            subject=side.subject,
            severity=Severity.NOTE,
            args={"service": str(side), "cluster": side.cluster, "port": str(port), "target": port.target},
            evidence=tuple({id(e): e for e in shows}.values()),
        )


# --- endpoints against pods ---------------------------------------------------------------------------------------


def judge_endpoints(facts: Facts) -> Outcome:
    """The endpoints are there, belong to living pods, and are of the Service's address family."""
    present, unknown, early = _seen(facts)
    if early is not None:
        return early
    problems: list[Finding] = []
    evidence: list[Fact] = []
    for side in present:
        service = side.service
        assert service is not None
        if is_external_name(service):
            continue
        slices, pods = slices_of(facts, side), pods_of(facts, side)
        evidence.extend((service, *(s.origin for s in slices)))
        if not slices:
            if whole(facts, SLICE, side.cluster, side.namespace, {"kubernetes.io/service-name": side.name}):
                problems.extend(_no_slice(facts, side, pods))
            else:
                unknown.append(f"EndpointSlices of {side.subject} were not seen")
            continue
        if selector(service):
            problems.extend(_stale(facts, side, pods, slices))
        else:
            problems.append(
                Finding(
                    id="endpoints-manual",
                    hop=Hop.DEST_ENDPOINT,
                    subject=side.subject,
                    severity=Severity.NOTE,
                    args={
                        "service": str(side),
                        "cluster": side.cluster,
                        "addresses": shown(e.address for s in slices for e in s.endpoints),
                        "manager": shown(s.managed_by for s in slices if s.managed_by),
                    },
                    evidence=tuple(s.origin for s in slices),
                )
            )
        problems.extend(_family(facts, side, slices))
    return conclude(problems, unknown, tuple(evidence))


def _no_slice(facts: Facts, side: Side, pods: tuple[KubeObject, ...]) -> Iterator[Finding]:
    service = side.service
    assert service is not None
    remote_discovery = any("remote-discovery" in k or "remote-service" in k for k in strings(service.labels))
    if side.merged and not pods:
        return
    if not selector(service) and (remote_discovery or side.merged):
        return
    settled = not _recent(service, _SETTLING)
    yield Finding(
        id="endpoints-slice-absent",
        hop=Hop.DEST_ENDPOINT,
        subject=side.subject,
        severity=_severity(side) if settled else Severity.NOTE,
        symptom=_symptom(facts) if settled else None,
        args={"service": str(side), "cluster": side.cluster, "pods": len(pods)},
        evidence=(service, *pods[:3]),
    )


def _recent(o: KubeObject, seconds: float) -> bool:
    created = when(_meta(o).get("creationTimestamp"))
    return created is not None and timedelta(0) <= o.at - created < timedelta(seconds=seconds)


def _stale(facts: Facts, side: Side, pods: tuple[KubeObject, ...], slices: tuple[Slice, ...]) -> Iterator[Finding]:
    service = side.service
    assert service is not None
    by_name = {p.name: p for p in facts.objects("Pod", side.cluster, side.namespace)}
    by_ip = {ip for p in by_name.values() if not finished(p) for ip in pod_ips(p)}
    all_seen = whole(facts, "Pod", side.cluster, side.namespace)
    listed: set[str] = set()
    for part in slices:
        for endpoint in part.endpoints:
            listed.add(endpoint.address)
            pod = by_name.get(endpoint.pod) if endpoint.pod else None
            why = ""
            if pod is not None and finished(pod):
                why = f"pod {pod.name}: {pod.status.get('phase')}"
            elif pod is not None and pod_ips(pod) and endpoint.address not in pod_ips(pod):
                why = f"pod {pod.name}: {pod_ips(pod)[0]}"
            elif pod is None and endpoint.ready and all_seen and endpoint.address not in by_ip:
                why = "-"
            if why:
                yield Finding(
                    id="endpoints-address-stale",
                    hop=Hop.DEST_ENDPOINT,
                    subject=side.subject,
                    severity=_severity(side),
                    symptom=_symptom(facts),
                    args={"service": str(side), "cluster": side.cluster, "address": endpoint.address, "why": why},
                    evidence=(part.origin, *((pod,) if pod else ())),
                )
    missing = [
        p
        for p in pods
        if ready(p) and pod_ips(p) and not listed & set(pod_ips(p)) and not _became_ready_lately(p, slices[0].origin.at)
    ]
    if missing:
        yield Finding(
            id="endpoints-lack-ready-pod",
            hop=Hop.DEST_ENDPOINT,
            subject=side.subject,
            severity=_severity(side, Severity.ERROR if not listed else Severity.WARNING),
            symptom=_symptom(facts) if not listed else Symptom.UNEVEN_LOAD_OR_NO_FAILOVER,
            args={"service": str(side), "cluster": side.cluster, "pods": shown(p.name for p in missing)},
            evidence=(service, *(s.origin for s in slices), *missing[:3]),
        )


def _became_ready_lately(pod: KubeObject, seen: datetime) -> bool:
    since = when(condition(pod, "Ready").get("lastTransitionTime"))
    return since is not None and seen - since < timedelta(seconds=_SETTLING)


def _family(facts: Facts, side: Side, slices: tuple[Slice, ...]) -> Iterator[Finding]:
    """Each family that the Service promises has a ready endpoint; a mixed Service misses one for some clients."""
    service = side.service
    assert service is not None
    promised = families(service)
    has = {family(e.address) for s in slices for e in s.endpoints if e.ready} - {None}
    if not has or not promised or is_headless(service):
        return
    missing = [v for v in promised if v not in has]
    every = whole(facts, SLICE, side.cluster, side.namespace, {"kubernetes.io/service-name": side.name})
    of_pods = {family(a) for p in pods_of(facts, side) for a in pod_ips(p)}
    if not missing or not (every or (of_pods and of_pods.isdisjoint(missing))):  # a slice may not have been read
        return
    total = len(missing) == len(promised)
    yield Finding(
        id="endpoints-family-missing",
        hop=Hop.DEST_ENDPOINT,
        subject=side.subject,
        severity=_severity(side, Severity.ERROR if total else Severity.WARNING),
        symptom=_symptom(facts) if total else None,
        args={
            "service": str(side),
            "cluster": side.cluster,
            "missing": shown(f"IPv{v}" for v in missing),
            "address": shown(a for a in cluster_ips(service) if family(a) in missing),
        },
        evidence=(service, *(s.origin for s in slices)),
    )


# --- traffic kept on the node -------------------------------------------------------------------------------------


def judge_local(facts: Facts) -> Outcome:
    """A Service that keeps traffic on the client's node has a ready endpoint there."""
    present, unknown, early = _seen(facts)
    if early is not None:
        return early
    problems: list[Finding] = []
    evidence: list[Fact] = []
    source = facts.flow.source
    nodes = {p.node for p in source.pods if p.node} if source else set()
    judged = False
    for side in present:
        service = side.service
        assert service is not None
        entered_here = not side.destination or not facts.flow.crosses_clusters
        if is_external_name(service) or is_headless(service) or not entered_here:
            continue
        if service.spec.get("internalTrafficPolicy") != "Local":
            continue
        judged = True
        slices = slices_of(facts, side)
        serving = {e.node for s in slices for e in s.endpoints if e.ready}
        evidence.extend((service, *(s.origin for s in slices)))
        if not nodes:
            unknown.append("the node of the source pod is not known")
        elif not slices or None in serving:
            unknown.append(f"the nodes of the endpoints of {side.subject} are not known")
        elif without := sorted(n for n in nodes if n and n not in serving):
            problems.append(
                Finding(
                    id="endpoints-none-on-node",
                    hop=Hop.SOURCE_NODE,
                    subject=side.subject,
                    severity=_severity(side, Severity.ERROR if len(without) == len(nodes) else Severity.WARNING),
                    symptom=Symptom.CONNECTION_TIMEOUT,
                    args={
                        "service": str(side),
                        "cluster": side.cluster,
                        "nodes": shown(without),
                        "serving": shown(sorted(n for n in serving if n)),
                    },
                    evidence=tuple(evidence),
                )
            )
    if not judged:
        return Skipped("no Service of this flow keeps traffic on the node")
    return conclude(problems, unknown, tuple(evidence))
