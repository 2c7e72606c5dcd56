"""Edits of Istio: a rule of an AuthorizationPolicy or one of its own, a port that takes plaintext, a visible host.

Who calls is named by identity where the connection carries one, by address where it does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from mcdoctor.policy.edits.edit import (
    FOREIGN,
    ITEM,
    POLICY,
    RULE,
    Edit,
    Raw,
    Wanted,
    Words,
    edited,
    free_name,
    identity,
    names,
    new_object,
    spec_of,
)
from mcdoctor.policy.istio import NETWORKING, SECURITY, Istio, Peer
from mcdoctor.policy.question import Packet
from mcdoctor.policy.world import DomainName, Mesh, Object, Outside, Pod

_AUTHORIZATION = (SECURITY, "AuthorizationPolicy")
_PEERS = (SECURITY, "PeerAuthentication")


def edits(wanted: Wanted) -> Iterator[Edit]:
    family = wanted.engine.compiled[wanted.packet.cluster]["istio"]
    if not isinstance(family, Istio):
        return
    if not wanted.ingress:
        yield from _registry(wanted, family)
    elif isinstance(wanted.packet.destination, Pod) and wanted.packet.port is not None:
        if strict(wanted):
            yield from _plaintext(wanted, family, wanted.packet.destination)
        else:
            yield from _authorised(wanted, family, wanted.packet.destination)


def strict(wanted: Wanted) -> bool:
    """Is it mTLS that is missing?"""
    return wanted.ingress and any(d.ref.kind == _PEERS[1] for d in wanted.by)


# --- AuthorizationPolicy -------------------------------------------------------------------------------------------


def _authorised(wanted: Wanted, family: Istio, subject: Pod) -> Iterator[Edit]:
    refusing = list(wanted.holding([SECURITY], [_AUTHORIZATION[1]]))
    sources = [_source(wanted, family)]
    ports: Raw = {"ports": [str(wanted.packet.port)]}
    request = _request(wanted.packet)
    # ztunnel leaves out a rule with fields of HTTP: then only the whole port can be named.
    for number, operation in enumerate([ports | request, ports] if request else [ports]):
        for source in sources:
            if source is None:
                continue
            size = number * FOREIGN
            for obj in refusing:
                yield from _in_policy(wanted, obj, source, operation, size)
            yield from _new(wanted, subject, refusing, source, operation, size)


def _source(wanted: Wanted, family: Istio) -> Raw | None:
    """The caller: by its identity, else by its addresses."""
    found: Raw = {}
    for packet in wanted.packets:
        peer = family.peer(packet)
        if isinstance(peer, Peer) and peer.principal is not None:
            found.setdefault("principals", {})[peer.principal] = None
        else:
            found.setdefault("ipBlocks", {}).update({str(ip): None for ip in packet.ips(packet.source)})
    if len(found) != 1 or not all(found.values()):
        wanted.reasons.append(
            Words(
                "neither the caller's identity nor its address is known",
                "호출자의 identity와 주소를 모두 알 수 없습니다",
            )
        )
        return None
    return {key: list(values) for key, values in found.items()}


def _request(packet: Packet) -> Raw:
    http = packet.http
    found: Raw = {}
    if http is not None and http.method is not None:
        found["methods"] = [http.method]
    if http is not None and http.path is not None:
        found["paths"] = [http.path.partition("?")[0]]
    return found


def _told(wanted: Wanted, source: Raw, operation: Raw) -> tuple[str, str]:
    """The caller and what it may ask for, in words."""
    request = " ".join([*operation.get("methods", ()), *operation.get("paths", ())])
    return ", ".join(next(iter(source.values()))), f"{request}, {wanted.traffic}" if request else wanted.traffic


def _in_policy(wanted: Wanted, obj: Object, source: Raw, operation: Raw, size: int) -> Iterator[Edit]:
    who, what = _told(wanted, source, operation)
    for number in range(len(spec_of(obj).get("rules") or ())):

        def join(raw: Raw, number: int = number) -> bool:
            rule = raw["spec"]["rules"][number]
            if rule.get("when") or rule["to"] != [{"operation": operation}]:
                return False
            rule["from"] += [{"source": source}]
            return True

        raw = edited(obj, join)
        if raw is not None:
            told = Words(
                f"add {who} to rule {number} of {obj.ref}, which has {what}",
                f"{what} 포트를 이미 허용하는 {obj.ref}의 {number}번 규칙에 {who} 호출자를 추가합니다",
            )
            yield Edit((raw,), False, told, ITEM + size)

    def add(raw: Raw) -> None:
        if raw.get("spec") is None:  # an empty spec is an ALLOW policy that never matches
            raw["spec"] = {}
        raw["spec"]["rules"] = [*(raw["spec"].get("rules") or []), _rule(source, operation)]

    raw = edited(obj, add)
    if raw is not None:
        told = Words(
            f"add a rule for {who} on {what} to {obj.ref}",
            f"{obj.ref}에 {who} 호출자의 {what} 트래픽 규칙을 추가합니다",
        )
        yield Edit((raw,), False, told, RULE + size)


def _rule(source: Raw, operation: Raw) -> Raw:
    return {"from": [{"source": source}], "to": [{"operation": operation}]}


def _new(
    wanted: Wanted, subject: Pod, refusing: list[Object], source: Raw, operation: Raw, size: int
) -> Iterator[Edit]:
    who, what = _told(wanted, source, operation)
    spec: Raw = {"action": "ALLOW", "rules": [_rule(source, operation)]}
    targets = next((t for obj in refusing if (t := spec_of(obj).get("targetRefs"))), None)
    labels = identity(wanted.engine, subject)
    if targets and all(spec_of(obj).get("targetRefs") for obj in refusing):
        namespace = refusing[0].ref.namespace
        spec = {"targetRefs": targets} | spec
    elif labels:
        namespace = subject.namespace
        spec = {"selector": {"matchLabels": labels}} | spec
    else:
        return
    name = free_name(wanted, names(wanted, namespace, _AUTHORIZATION))
    told = Words(
        f"an AuthorizationPolicy that admits {who} to {what}",
        f"{who} 호출자의 {what} 트래픽을 허용하는 AuthorizationPolicy를 새로 만듭니다",
    )
    yield Edit((new_object(f"{SECURITY}/v1", _AUTHORIZATION[1], namespace, name, spec),), True, told, POLICY + size)


# --- PeerAuthentication --------------------------------------------------------------------------------------------


def honest(wanted: Wanted) -> Words:
    """What to do about a caller that sends plaintext to a workload that takes mutual TLS only."""
    packet = wanted.packet
    client = packet.client or packet.source
    named = ", ".join(str(d.ref) for d in wanted.by)
    meshed = isinstance(client, Pod) and bool(client.mesh & {Mesh.ISTIO_SIDECAR, Mesh.ISTIO_AMBIENT})
    if packet.mtls is False:
        advice = "use mutual TLS", "mutual TLS로 호출하십시오"
    elif meshed:
        advice = (
            f"{client} is in the mesh but a DestinationRule or its proxy does not use mutual TLS: set tls.mode to "
            "ISTIO_MUTUAL",
            f"{client}은(는) mesh에 속하지만 DestinationRule 때문에 mutual TLS를 쓰지 않습니다. "
            "tls.mode를 ISTIO_MUTUAL로 바꾸십시오",
        )
    elif isinstance(client, Pod):
        advice = (
            f"put {client} in the mesh (sidecar injection or ambient mode)",
            f"{client}을(를) mesh에 넣으십시오 (sidecar injection 또는 ambient mode)",
        )
    else:
        advice = (
            f"{client} cannot join the mesh: send it through a gateway of the mesh",
            f"{client}은(는) mesh에 들어올 수 없으므로 mesh의 gateway를 거치게 하십시오",
        )
    return Words(
        f"{named} takes mutual TLS only, and that is meant: {advice[0]}",
        f"{named}은(는) 의도적으로 mutual TLS만 허용합니다. {advice[1]}",
    )


def _plaintext(wanted: Wanted, family: Istio, subject: Pod) -> Iterator[Edit]:
    """PERMISSIVE on this port of this workload: broader than asked, since it takes plaintext from anybody."""
    port = wanted.packet.port
    ports = {str(port): {"mode": "PERMISSIVE"}}
    told = Words(
        f"broader than asked: port {port} of {subject} takes plaintext from anybody (PERMISSIVE)",
        f"질문보다 넓은 변경입니다: {subject}의 {port} 포트가 누구의 평문이든 받습니다 (PERMISSIVE)",
    )
    for obj in wanted.holding([SECURITY], [_PEERS[1]]):

        def exempt(raw: Raw) -> bool:
            spec = raw["spec"]
            if not (spec.get("selector") or {}).get("matchLabels"):
                return False
            listed = {k: v for k, v in (spec.get("portLevelMtls") or {}).items() if str(k) != str(port)}
            spec["portLevelMtls"] = listed | ports
            return True

        raw = edited(obj, exempt)
        if raw is not None:
            yield Edit((raw,), False, told, RULE)
            return
    labels = identity(wanted.engine, subject)
    if labels:
        mode = family.mtls_mode(subject, None, ambient=Mesh.ISTIO_AMBIENT in subject.mesh)[0]
        spec = {"selector": {"matchLabels": labels}, "mtls": {"mode": mode}, "portLevelMtls": ports}
        name = free_name(wanted, names(wanted, subject.namespace, _PEERS))
        raw = new_object(f"{SECURITY}/v1", _PEERS[1], subject.namespace, name, spec)
        yield Edit((raw,), True, told, POLICY)


# --- what the registry lets a workload reach -----------------------------------------------------------------------


def _registry(wanted: Wanted, family: Istio) -> Iterator[Edit]:
    """A host for the Sidecar that hides it, or a ServiceEntry for what the registry does not have."""
    packet = wanted.packet
    source, end, service = packet.source, packet.destination, packet.service
    if not isinstance(source, Pod):
        return
    sidecar = family.sidecar_of(source)
    if service is not None:
        host = f"{service.namespace}/{service.name}.{service.namespace}.svc.cluster.local"
    elif isinstance(end, DomainName):
        host = f"*/{end.name}"
    else:
        host = ""
    entry = _entry(wanted, source) if service is None else None
    scoped: list[Raw] = []
    if sidecar is not None and host:
        for obj in wanted.cluster.of(NETWORKING, "Sidecar"):
            if obj.ref == sidecar.ref:

                def show(raw: Raw) -> None:
                    raw["spec"]["egress"][0]["hosts"] += [host]

                raw = edited(obj, show)
                scoped += [raw] if raw is not None else []
    for raw in scoped:
        ref = sidecar.ref if sidecar is not None else ""
        shown = Words(f"add the host {host} to {ref}", f"{ref}에 {host} host를 추가합니다")
        yield Edit((raw,), False, shown, ITEM)
        if entry is not None:
            yield Edit((entry, raw), True, _entered(wanted), FOREIGN)
    if entry is not None:
        yield Edit((entry,), True, _entered(wanted), POLICY)


def _entered(wanted: Wanted) -> Words:
    end = wanted.packet.destination
    return Words(f"a ServiceEntry for {end}", f"{end} 대상의 ServiceEntry를 새로 만듭니다")


def _entry(wanted: Wanted, source: Pod) -> Raw | None:
    packet = wanted.packet
    end = packet.destination
    if packet.port is None:
        return None
    spec: Raw = {"exportTo": ["."], "location": "MESH_EXTERNAL"}
    spec["ports"] = [{"name": f"tcp-{packet.port}", "number": packet.port, "protocol": "TCP"}]
    match end:
        case DomainName():
            spec = {"hosts": [end.name], **spec, "resolution": "DNS"}
            stem = end.name
        case Outside():
            stem = str(end.ip).replace(":", "-").replace(".", "-")
            spec = {"hosts": [f"{stem}.external"], "addresses": [str(end.ip)], **spec, "resolution": "NONE"}
        case _:
            return None
    name = f"external-{stem}"[:60].replace(".", "-").rstrip("-")
    return new_object(f"{NETWORKING}/v1", "ServiceEntry", source.namespace, name, spec)
