"""What keeps an ALLOW rule of an AuthorizationPolicy from matching, and a caller from getting past STRICT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from mcdoctor.policy.family import Compiled
from mcdoctor.policy.istio import (
    NETWORKING,
    SECURITY,
    Authorization,
    Clause,
    Enforcer,
    Istio,
    Peer,
    Rule,
    View,
    rule_match,
)
from mcdoctor.policy.istio import Condition as Asked
from mcdoctor.policy.near.conditions import (
    Candidate,
    Condition,
    Edit,
    Fails,
    Path,
    Raw,
    append,
    joined,
    mapping,
    path_in,
)
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Deciding, Decision, Direction, Doubt, Ref
from mcdoctor.policy.world import DomainName, Mesh, Pod

_REQUEST = frozenset({"requestPrincipals", "hosts", "methods", "paths"})
_CONNECTION_WHEN = frozenset(
    f"when:{key}" for key in ("source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port")
)
_IDENTITY = frozenset(
    ("principals", "namespaces", "serviceAccounts", "trustDomains",
     "when:source.principal", "when:source.namespace", "when:source.serviceAccount", "when:source.trustDomain")
)  # fmt: skip
_WORDS = {
    "principals": "principal", "namespaces": "namespace", "serviceAccounts": "service account",
    "trustDomains": "trust domain", "ipBlocks": "address", "remoteIpBlocks": "address", "ports": "port",
    "hosts": "host", "methods": "method", "paths": "path",
}  # fmt: skip


def candidates(family: Compiled, packet: Packet, decision: Decision) -> Iterator[Candidate]:
    assert isinstance(family, Istio)
    raws = {
        obj.ref: obj.raw
        for kind in ((SECURITY, "AuthorizationPolicy"), (SECURITY, "PeerAuthentication"), (NETWORKING, "Sidecar"))
        for obj in family.world.clusters[family.cluster].of(*kind)
    }
    if packet.direction is Direction.EGRESS:
        yield from _outbound(family, packet, decision, raws)
        return
    pod = packet.destination
    if not isinstance(pod, Pod):
        return
    plain = _plain(family, packet)
    strict = next((d for d in decision.by if d.ref.kind == "PeerAuthentication"), None)
    if strict is not None:
        yield _strict(packet, strict, raws[strict.ref], plain)
    for policy, enforcer, peer in _policies(family, packet, pod):
        raw = raws[policy.ref]
        for rule in policy.rules:
            for source, operation in product(rule.sources or (None,), rule.operations or (None,)):
                asking = _Asking(family, packet, pod, policy, enforcer, peer, raw)
                fails = asking.fails(rule, source, operation)
                if fails is None:
                    continue
                conditions, asked = fails
                if plain is not None and (strict is not None or asking.wants_identity(rule, source)):
                    conditions = [plain, *conditions]
                clause = source or operation
                path = path_in(raw, clause.pointer if clause else rule.pointer)
                yield Candidate(policy.ref, path, raw, tuple(conditions), asked)


def _plain(family: Istio, packet: Packet) -> Condition | None:
    """The caller sends plaintext; with mutual TLS it would have an identity."""
    client = family.client(packet)
    if family.mtls(packet) is not False or client is None:
        return None
    meshed = client.mesh & {Mesh.ISTIO_SIDECAR, Mesh.ISTIO_AMBIENT}
    en = (
        f"{client} sends plaintext"
        if meshed
        else f"{client} is not in the mesh: it sends plaintext and has no identity"
    )
    ko = (
        f"{client}은(는) 평문으로 보냅니다"
        if meshed
        else f"{client}은(는) mesh 밖에 있어 평문으로 보내며 신원이 없습니다"
    )
    return Condition(en, ko, traffic={"mtls": True})


def _strict(packet: Packet, by: Deciding, raw: Raw, plain: Condition | None) -> Candidate:
    path = path_in(raw, by.pointer)
    only = "STRICT takes mutual TLS only", "STRICT는 mutual TLS만 받습니다"
    if plain is not None:
        condition = replace(plain, en=f"{only[0]}, and {plain.en}", ko=f"{only[1]}. {plain.ko}")
    else:
        en, ko = (
            f"{only[0]}, and {packet.source} is outside the mesh",
            f"{only[1]}. {packet.source}은(는) mesh 밖입니다",
        )
        condition = Condition(en, ko, (Edit(path, "PERMISSIVE"),))
    return Candidate(by.ref, path, raw, (condition,), 1)


def _policies(family: Istio, packet: Packet, pod: Pod) -> Iterator[tuple[Authorization, Enforcer, Peer | Doubt]]:
    """The ALLOW policies on the receiving pod, each with who enforces it and who is seen to call."""
    would = family.peer(packet)
    if isinstance(would, Peer) and would.principal is None and family.client(packet) is not None:
        would = family.peer(replace(packet, mtls=True))
    waypoint = family.waypoint(packet, pod) if Mesh.ISTIO_AMBIENT in pod.mesh else None
    if waypoint is not None:
        name, namespace = waypoint
        for policy in family.authorizations:
            if policy.action == "ALLOW" and not policy.dry_run and _attached(policy, name, namespace, packet):
                yield policy, Enforcer.WAYPOINT, would
        would = Peer(f"{family.config.trust_domain}/ns/{namespace}/sa/{name}")
    enforcer = Enforcer.ZTUNNEL
    if Mesh.ISTIO_SIDECAR in pod.mesh:
        protocol = family.port_protocol(pod, packet)
        enforcer = protocol if isinstance(protocol, Enforcer) else Enforcer.HTTP
    for policy in family.selecting(pod):
        if policy.action == "ALLOW" and not policy.dry_run:
            yield policy, enforcer, would


def _attached(policy: Authorization, waypoint: str, namespace: str, packet: Packet) -> bool:
    """Might the waypoint enforce the policy?"""
    service = packet.service
    return any(
        target.kind == "GatewayClass"
        or (target.kind == "Gateway" and (target.name, target.namespace) == (waypoint, namespace))
        or (target.kind == "Service" and service is not None and target.name == service.name)
        for target in policy.targets
    )


@dataclass(frozen=True, slots=True)
class _Asking:
    """One policy asked about one packet."""

    family: Istio
    packet: Packet
    pod: Pod
    policy: Authorization
    enforcer: Enforcer
    peer: Peer | Doubt
    raw: Raw

    def wants_identity(self, rule: Rule, source: Clause | None) -> bool:
        return any(c.values and c.field in _IDENTITY for c in (*(source.conditions if source else ()), *rule.when))

    def fails(self, rule: Rule, source: Clause | None, operation: Clause | None) -> Fails | None:
        """What fails of one source and one operation and all of `when`; None when something fails beyond repair."""
        parts: list[Fails] = []
        edits: list[Edit] = []
        names: list[str] = []
        for clause, exact in ((source, self._exact_source()), (operation, self._exact_operation())):
            if clause is None:
                continue
            foreign = [c.field for c in clause.conditions if self._foreign(c, clause)]
            if foreign:
                if exact is None:
                    return None
                names += foreign
                edits.append(Edit(path_in(self.raw, clause.pointer), exact))
                parts.append(([], len(clause.conditions)))
                continue
            for condition in clause.conditions:
                if condition.field == "trustDomains" and self.enforcer is Enforcer.ZTUNNEL:
                    continue
                part = self._condition(condition, path_in(self.raw, clause.pointer), exact)
                if part is None:
                    return None
                parts.append(part)
        for condition in rule.when:
            path = path_in(self.raw, condition.pointer)[:-1]
            if self._foreign(condition, None):
                names.append(condition.field.removeprefix("when:"))
                edits.append(Edit(path, gone=True))
                continue
            part = self._condition(condition, path, None)
            if part is None:
                return None
            parts.append(part)
        if names:
            parts.append(([self._unenforceable(names, tuple(edits))], 1))
        return joined(*parts)

    def _foreign(self, condition: Asked, clause: Clause | None) -> bool:
        """Does this enforcer know nothing of the condition, so that it leaves the whole rule out?"""
        name = condition.field
        if self.enforcer is Enforcer.TCP:
            return name in _REQUEST or name.startswith("when:request.")
        if self.enforcer is not Enforcer.ZTUNNEL:
            return False
        if name == "trustDomains" and clause is not None and len(clause.conditions) == 1:
            return True
        foreign = name.startswith("when:") and name not in _CONNECTION_WHEN
        return name in _REQUEST or name == "remoteIpBlocks" or foreign

    def _unenforceable(self, names: list[str], edits: tuple[Edit, ...]) -> Condition:
        listed = ", ".join(names)
        if self.enforcer is Enforcer.TCP:
            return Condition(
                f"port {self.packet.port} is no HTTP port, and an ALLOW rule with {listed} is left out there",
                f"포트 {self.packet.port}은(는) HTTP 포트가 아니므로 {listed}이(가) 있는 ALLOW 규칙은 빠집니다",
                edits,
            )
        return Condition(
            f"ztunnel leaves out an ALLOW rule with {listed}; a waypoint could enforce it",
            f"ztunnel은 {listed}이(가) 있는 ALLOW 규칙을 제외합니다. waypoint라면 적용할 수 있습니다",
            edits,
        )

    def _exact_source(self) -> dict[str, list[str]] | None:
        ips = self.packet.ips(self.packet.source)
        return {"ipBlocks": [str(ip) for ip in ips]} if ips else None

    def _exact_operation(self) -> dict[str, list[str]] | None:
        return {"ports": [str(self.packet.port)]} if self.packet.port is not None else None

    def _holds(self, condition: Asked) -> bool:
        """Might it hold? Asked of a rule with this condition alone."""
        view = View(self.packet, self.enforcer, self.peer, self.family.config, self.pod.namespace, False)
        alone = Rule((Clause((condition,), ""),), (), (), "")
        return rule_match(alone, "ALLOW", view) is not False

    def _condition(self, condition: Asked, path: Path, exact: dict[str, list[str]] | None) -> Fails | None:
        """`path`: the source, the operation or the entry of `when`."""
        name = condition.field
        when = name.startswith("when:")
        value = self._value(name)
        found: list[Condition] = []
        word = _WORDS.get(name, name.removeprefix("when:"))
        if condition.values and not self._holds(replace(condition, nots=())):
            if value is None:
                return None
            wanted = ", ".join(condition.values)
            en = f"the {word} is {value}, the rule wants {wanted}"
            ko = f"{word}은(는) {value}이고, 규칙은 {wanted}을(를) 요구합니다"
            found.append(Condition(en, ko, append(self.raw, (*path, "values" if when else name), value)))
        hits = [
            n for n, each in enumerate(condition.nots) if not self._holds(replace(condition, values=(), nots=(each,)))
        ]
        if hits:
            key = "notValues" if when else f"not{name[0].upper()}{name[1:]}"
            en = f"the {word} {value} is excluded by {key} {condition.nots[hits[0]]}"
            ko = f"{word} {value}은(는) {key} {condition.nots[hits[0]]}에서 제외됩니다"
            edits = tuple(Edit((*path, key, n), gone=True) for n in hits)
            if len(hits) == len(condition.nots):
                alone = not condition.values if when else len(mapping(self.raw, path)) == 1
                if alone and not when and exact is None:
                    return None
                edits = (Edit((*path, key), gone=True),)
                if alone:
                    edits = (Edit(path, gone=True),) if when else (Edit(path, exact),)
            found.append(Condition(en, ko, edits))
        return found, bool(condition.values) + bool(condition.nots)

    def _value(self, name: str) -> str | None:
        """What the packet has of a field; None where that is not known or nothing to put into a rule."""
        packet, http = self.packet, self.packet.http
        peer = self.peer if isinstance(self.peer, Peer) else Peer(None)
        parts = peer.parts
        source = next(iter(packet.ips(packet.source)), None)
        match name.removeprefix("when:"):
            case "principals" | "source.principal":
                return peer.principal
            case "namespaces" | "source.namespace":
                return parts[1] if parts else None
            case "trustDomains" | "source.trustDomain":
                return parts[0] if parts else None
            case "serviceAccounts" | "source.serviceAccount":
                return f"{parts[1]}/{parts[2]}" if parts else None
            case "ipBlocks" | "remoteIpBlocks" | "source.ip" | "remote.ip":
                return str(source) if source is not None else None
            case "destination.ip":
                return next((str(ip) for ip in packet.ips(packet.destination)), None)
            case "ports" | "destination.port":
                return str(packet.port) if packet.port is not None else None
            case "methods":
                return http.method if http else None
            case "hosts":
                return http.host if http else None
            case "paths":
                return http.path.partition("?")[0] if http and http.path is not None else None
            case other if other.startswith("request.headers["):
                return http.headers.get(other[len("request.headers[") : -1].lower()) if http else None
            case _:
                return None


# --- sending ---------------------------------------------------------------------------------------------------------


def _outbound(family: Istio, packet: Packet, decision: Decision, raws: dict[Ref, Raw]) -> Iterator[Candidate]:
    """REGISTRY_ONLY: a host that the Sidecar does not list, a name that no ServiceEntry has."""
    pod, service, destination = packet.source, packet.service, packet.destination
    if not isinstance(pod, Pod):
        return
    sidecar = family.sidecar_of(pod)
    if sidecar is not None and sidecar.hosts and service is not None:
        raw = raws[sidecar.ref]
        path: Path = ("spec", "egress", 0, "hosts")
        host = f"{service.namespace}/{service.name}.{service.namespace}.svc.cluster.local"
        listed = ", ".join(f"{namespace}/{name}" for namespace, name, _ in sidecar.hosts)
        texts = f"{service} is not among the hosts {listed}", f"{service}은(는) hosts {listed}에 없습니다"
        yield Candidate(sidecar.ref, path, raw, (Condition(*texts, append(raw, path, host)),), 1)
    if isinstance(destination, DomainName) and packet.port is not None:
        ref = Ref(family.cluster, "ServiceEntry", pod.namespace, destination.name.replace(".", "-")[:60].rstrip("-"))
        entry = {
            "apiVersion": f"{NETWORKING}/v1",
            "kind": "ServiceEntry",
            "metadata": {"namespace": ref.namespace, "name": ref.name},
            "spec": {
                "hosts": [destination.name],
                "location": "MESH_EXTERNAL",
                "resolution": "DNS",
                "ports": [{"number": packet.port, "name": f"tcp-{packet.port}", "protocol": "TCP"}],
            },
        }
        texts = (
            f"REGISTRY_ONLY, and no ServiceEntry visible to {pod} has {destination} on port {packet.port}",
            f"REGISTRY_ONLY인데 {pod}에서 보이는 ServiceEntry 중 {destination} 포트 {packet.port}이(가) 없습니다",
        )
        for by in decision.by[:1]:
            path = tuple(by.pointer.replace("~1", "/").split("/")[1:])
            yield Candidate(by.ref, path, {}, (Condition(*texts, (Edit((), entry, ref=ref),)),), 1)
