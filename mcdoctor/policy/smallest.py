"""The smallest change that lets refused traffic through: proposed, verified by asking again, counted for what else
it opens.

For every side that refuses by isolation (no rule admits it): the peer added to a rule that already has the port, the
port
added to a rule that already has the peer, a rule added to a policy that isolates the pod, or a policy of its own.
Peers are
named as exactly as the objects allow: by labels inside a namespace, by address for what selectors cannot match. A
change
that would take anything away, or that does not let the traffic through when asked again, is dropped.

A rule that says deny is somebody's decision: it is named as deliberate, never edited away.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcdoctor.policy.addresses import Ip, host_block, parse_block
from mcdoctor.policy.engine import Engine
from mcdoctor.policy.fields import Refused
from mcdoctor.policy.index import PodClass
from mcdoctor.policy.kubernetes import Kubernetes, Policy, Rule, port_match
from mcdoctor.policy.layers import PointDecision
from mcdoctor.policy.path import Answer, PointAnswer, ask
from mcdoctor.policy.ports import NamedPort, PortRange
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Deciding, Direction, Ref, Verdict, settle
from mcdoctor.policy.world import METADATA_NAME, DomainName, Node, Object, Outside, Pod

# Labels that come and go with a rollout: never part of a proposal.
_FLEETING = frozenset(
    (
        "pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "app.kubernetes.io/version",
        "version",
        "helm.sh/chart",
    )
)


@dataclass(frozen=True, slots=True)
class Option:
    """One full object to apply. `opens`: pairs of pods and ports it newly allows besides the one asked for, in its
    direction;
    `addresses`: addresses outside that it newly admits."""

    object: Mapping[str, Any]
    new: bool
    text: str
    opens: int
    addresses: int
    order: int

    @property
    def cost(self) -> tuple[int, int, int]:
        return self.opens, self.addresses, self.order

    @property
    def ref(self) -> str:
        meta = self.object["metadata"]
        return f"{self.object['kind']} {meta['namespace']}/{meta['name']}"


@dataclass(frozen=True, slots=True)
class Side:
    """One enforcing point that refuses. `options` are verified and the best comes first; without any, `why` says
    why.
    """

    cluster: str
    direction: Direction
    deliberate: tuple[Deciding, ...]
    options: tuple[Option, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What to change on every side that refuses; `verdict` is the answer with the first option of each side applied."""

    sides: tuple[Side, ...]
    verdict: Verdict

    @property
    def objects(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(side.options[0].object for side in self.sides if side.options)


def suggest(engine: Engine, answer: Answer, limit: int = 3) -> Suggestion | None:
    """The smallest verified change for an answer that is not `allowed`; None when nothing refuses for certain."""
    path = next((p for p in answer.paths if p.verdict is Verdict.DENIED), None)
    if path is None:
        return None
    sides: list[Side] = []
    changed = engine
    for point in path.points:
        if point.verdict is Verdict.DENIED:
            side = _side(changed, point, limit)
            sides.append(side)
            if side.options:
                changed = apply(changed, point.cluster, side.options[0].object)
    if not sides:
        return None
    after = ask(changed, answer.question, explain=False)
    return Suggestion(tuple(sides), after.verdict)


def apply(engine: Engine, cluster: str, raw: Mapping[str, Any]) -> Engine:
    """The engine as it would be with one policy added or replaced. Raises Refused."""
    if raw["apiVersion"] != "networking.k8s.io/v1":
        return engine.with_object(cluster, raw)
    meta = raw["metadata"]
    family = engine.compiled[cluster]["kubernetes"]
    assert isinstance(family, Kubernetes)
    obj = Object(Ref(cluster, raw["kind"], meta["namespace"], meta["name"]), raw)
    return engine.replacing(cluster, "kubernetes", family.with_policy(obj))


def _side(engine: Engine, point: PointAnswer, limit: int) -> Side:
    refusing = [layer for p in point.points for layer in p.layers if layer.decision.verdict is Verdict.DENIED]
    by = (d for layer in refusing for d in layer.decision.by)
    explicit = tuple(dict.fromkeys(d for d in by if d.effect == "deny" and not d.implicit))
    packets = tuple(_seen(p) for p in point.points)
    if explicit:
        names = ", ".join(f"{d.ref} {d.pointer}" for d in explicit)
        return Side(point.cluster, point.direction, explicit, (), f"refused on purpose by {names}: ask its owner")
    others = sorted({layer.layer for layer in refusing} & {"istio", "linkerd"})
    if others:
        kinds = {d.ref.kind: d for layer in refusing for d in layer.decision.by}
        alone = len({layer.layer for layer in refusing}) == 1
        found = _mesh_options(engine, point, kinds) if alone else ()
        why = "" if found else f"{' and '.join(others)} refuses: a NetworkPolicy cannot help"
        return Side(point.cluster, point.direction, (), found, why)
    subject = packets[0].subject
    if not isinstance(subject, Pod):
        return Side(point.cluster, point.direction, (), (), f"{subject} is no pod that a NetworkPolicy could select")
    options, why = _options(engine, point, packets, limit)
    return Side(point.cluster, point.direction, (), options, why)


def _mesh_options(engine: Engine, point: PointAnswer, kinds: Mapping[str, Deciding]) -> tuple[Option, ...]:
    """A policy of the mesh's own kind for exactly this client, where an ALLOW policy or a Server closes the pod."""
    packet = point.points[0].packet
    subject, client = packet.destination, packet.client
    if not isinstance(subject, Pod) or packet.port is None or point.direction is not Direction.INGRESS:
        return ()
    labels = _identity(engine, subject)
    found: list[Option] = []
    for raw, text in _mesh_candidates(packet, subject, client, labels, kinds):
        if all(_passes(engine.with_object(point.cluster, raw), p) for p in point.points):
            pods = engine.world.clusters[point.cluster].pods.values()
            served = sum(
                p.namespace == subject.namespace and all(p.labels.get(k) == v for k, v in labels.items()) for p in pods
            )
            callers = 1
            if client is not None:
                others = engine.world.clusters[client.cluster].pods.values()
                same = (client.namespace, client.service_account)
                callers = sum((p.namespace, p.service_account) == same for p in others)
            found.append(Option(raw, True, text, served * callers - 1, 0, 0))
    return tuple(found)


def _mesh_candidates(
    packet: Packet, subject: Pod, client: Pod | None, labels: Mapping[str, str], kinds: Mapping[str, Deciding]
) -> Iterator[tuple[dict[str, Any], str]]:
    name = f"allow-{subject.owner[1] or subject.name}-from-{client.service_account if client else 'address'}"[:60]
    meta = {"namespace": subject.namespace, "name": name.rstrip("-.")}
    if "AuthorizationPolicy" in kinds and labels:
        operation: dict[str, Any] = {"ports": [str(packet.port)]}
        if packet.http is not None and packet.http.method is not None:
            operation["methods"] = [packet.http.method]
        if packet.http is not None and packet.http.path is not None:
            operation["paths"] = [packet.http.path.partition("?")[0]]
        if packet.principal is not None:
            source: dict[str, Any] = {"principals": [packet.principal.removeprefix("spiffe://")]}
        elif client is not None and client.mesh and packet.mtls is not False:
            source = {"principals": [f"cluster.local/ns/{client.namespace}/sa/{client.service_account}"]}
        else:
            source = {"ipBlocks": [str(ip) for ip in packet.ips(packet.source)]}
        rule = {"from": [{"source": source}], "to": [{"operation": operation}]}
        spec = {"selector": {"matchLabels": dict(labels)}, "action": "ALLOW", "rules": [rule]}
        raw = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": meta, "spec": spec}
        yield raw, f"an AuthorizationPolicy that admits {next(iter(source.values()))[0]} to port {packet.port}"
    server = kinds.get("Server")
    if server is not None and client is not None:
        accounts = [{"namespace": client.namespace, "name": client.service_account}]
        spec = {"server": {"name": server.ref.name}, "client": {"meshTLS": {"serviceAccounts": accounts}}}
        version = "policy.linkerd.io/v1beta1"
        raw = {"apiVersion": version, "kind": "ServerAuthorization", "metadata": meta, "spec": spec}
        yield raw, f"a ServerAuthorization of {server.ref.name} for {client.namespace}/{client.service_account}"


def _seen(point: PointDecision) -> Packet:
    """What the network layers saw."""
    return point.wire or point.packet


# --- candidates ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidate:
    raw: dict[str, Any]
    new: bool
    text: str
    addresses: int
    order: int


def _options(
    engine: Engine, point: PointAnswer, packets: Sequence[Packet], limit: int
) -> tuple[tuple[Option, ...], str]:
    family = engine.compiled[point.cluster]["kubernetes"]
    assert isinstance(family, Kubernetes)
    peers = _peers(engine, family, packets)
    if isinstance(peers, str):
        return (), peers
    ranked: list[tuple[Option, Kubernetes]] = []
    for candidate in _candidates(engine, family, packets[0], peers):
        meta = candidate.raw["metadata"]
        obj = Object(Ref(point.cluster, "NetworkPolicy", meta["namespace"], meta["name"]), candidate.raw)
        try:
            changed = family.with_policy(obj)
        except Refused:
            continue
        opened = _opens(engine, family, changed, obj, packets[0])
        if opened is not None:
            option = Option(candidate.raw, candidate.new, candidate.text, opened, candidate.addresses, candidate.order)
            ranked.append((option, changed))
    ranked.sort(key=lambda pair: pair[0].cost)
    found: list[Option] = []
    for option, changed in ranked:
        after = engine.replacing(point.cluster, "kubernetes", changed)
        if all(_passes(after, p) for p in point.points):
            found.append(option)
            if len(found) == limit:
                break
    return tuple(found), "" if found else "no NetworkPolicy of the forms tried lets it through"


def _passes(engine: Engine, point: PointDecision) -> bool:
    return engine.decide(point.packet, point.wire, mesh=point.mesh).verdict is Verdict.ALLOWED


def stable_labels(pod: Pod) -> dict[str, str]:
    return {key: value for key, value in pod.labels.items() if key not in _FLEETING}


def _identity(engine: Engine, pod: Pod) -> dict[str, str]:
    """The fewest stable labels that select as few pods of the namespace as all of them together do."""
    labels = stable_labels(pod)
    room = engine.index.rooms[pod.cluster, pod.namespace]
    chosen = {key: value for key, value in labels.items() if key in engine.index.interest}
    if not chosen:
        return labels

    def selected(pairs: Mapping[str, str]) -> int:
        bits = room.everything
        for pair in pairs.items():
            bits &= room.labels.get(pair, 0)
        return bits

    best = selected(chosen)
    preferred = ("app", "app.kubernetes.io/name", "k8s-app")
    keys = sorted(chosen, key=lambda key: (preferred.index(key) if key in preferred else len(preferred), key))
    for key in keys:
        if selected({key: chosen[key]}) == best:
            return {key: chosen[key]}
    for number, key in enumerate(keys):
        for other in keys[number + 1 :]:
            if selected({key: chosen[key], other: chosen[other]}) == best:
                return {key: chosen[key], other: chosen[other]}
    return chosen


@dataclass(frozen=True, slots=True)
class _Peers:
    """How the far end can be named in a rule, most exact first; each with the number of addresses outside it admits."""

    items: tuple[list[dict[str, Any]], ...]
    addresses: tuple[int, ...]


def _peers(engine: Engine, family: Kubernetes, packets: Sequence[Packet]) -> _Peers | str:
    end = packets[0].peer
    home = packets[0].subject
    assert isinstance(home, Pod)
    if isinstance(end, Pod) and end.cluster == family.cluster and not end.host_network:
        labels = _identity(engine, end)
        if not labels:
            return f"{end} has no label that would stay: nothing selects it alone"
        peer: dict[str, Any] = {"podSelector": {"matchLabels": labels}}
        if end.namespace != home.namespace:
            peer = {"namespaceSelector": {"matchLabels": {METADATA_NAME: end.namespace}}} | peer
        return _Peers(([peer],), (0,))
    ips: list[Ip] = []
    for packet in packets:
        match packet.peer:
            case DomainName() as name:
                return f"a NetworkPolicy cannot name {name}"
            case Pod() as pod if pod.cluster != family.cluster and not pod.host_network:
                return f"{pod} is known by its identity in another cluster: a NetworkPolicy cannot name it"
            case Pod() | Node() | Outside():
                ips += packet.ips(packet.peer)
    ips = list(dict.fromkeys(ips))
    if not ips:
        return f"the address of {end} is not known"
    exact = [{"ipBlock": {"cidr": str(host_block(ip))}} for ip in ips]
    items, counts = [exact], [0]
    wider = _remote_cidrs(engine, packets[0], ips)
    if wider:
        items.append([{"ipBlock": {"cidr": cidr}} for cidr in wider])
        counts.append(sum(parse_block(c).high - parse_block(c).low + 1 for c in wider) - len(ips))
    return _Peers(tuple(items), tuple(counts))


def _remote_cidrs(engine: Engine, packet: Packet, ips: Sequence[Ip]) -> list[str]:
    """The pod CIDRs of the other cluster's nodes that hold these addresses: pods move, their CIDR stays."""
    client = packet.client
    found: list[str] = []
    for cluster in engine.world.clusters.values():
        if cluster.name == packet.cluster or (client is not None and cluster.name != client.cluster and not found):
            continue
        for node in cluster.nodes.values():
            for cidr in node.pod_cidrs:
                try:
                    block = parse_block(cidr)
                except ValueError:
                    continue
                if any(ip in block for ip in ips) and cidr not in found:
                    found.append(cidr)
    return found


def _candidates(engine: Engine, family: Kubernetes, packet: Packet, peers: _Peers) -> Iterator[_Candidate]:
    direction = packet.direction
    section, side_name = direction.value, "from" if direction is Direction.INGRESS else "to"
    port: list[dict[str, Any]] = []
    if packet.protocol in ("TCP", "UDP", "SCTP"):
        item: dict[str, Any] = {"protocol": packet.protocol}
        if packet.port is not None:
            item["port"] = packet.port
        port = [item]
    subject = packet.subject
    assert isinstance(subject, Pod)
    whom = str(packet.peer)
    what = f"{packet.protocol} {packet.port}" if packet.port is not None else packet.protocol
    for items, addresses in zip(peers.items, peers.addresses, strict=True):
        for policy in family.selecting(packet):
            side = policy.side(direction)
            for number, rule in enumerate(side.rules if side else ()):
                if rule.peers is not None and _only_this_port(rule, packet):
                    raw = _copy(policy)
                    raw["spec"][section][number][side_name] += items
                    yield _Candidate(
                        raw, False, f"add {whom} to rule {number} of {policy.ref}, which has {what}", addresses, 0
                    )
                if port and rule.ports is not None and _has_peer(family, policy, number, packet):
                    raw = _copy(policy)
                    raw["spec"][section][number]["ports"] += port
                    yield _Candidate(raw, False, f"add {what} to rule {number} of {policy.ref}, which has {whom}", 0, 1)
            raw = _copy(policy)
            rules = raw["spec"].get(section)
            raw["spec"][section] = [*(rules or []), {side_name: items, **({"ports": port} if port else {})}]
            if not raw["spec"].get("policyTypes"):
                sides = [d for d in (Direction.INGRESS, Direction.EGRESS) if policy.side(d)]
                raw["spec"]["policyTypes"] = [d.value.capitalize() for d in sides]
            yield _Candidate(raw, False, f"add a rule for {whom} on {what} to {policy.ref}", addresses, 2)
        labels = _identity(engine, subject)
        if labels:
            rule_raw = {side_name: items, **({"ports": port} if port else {})}
            yield _Candidate(
                {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "NetworkPolicy",
                    "metadata": {"namespace": subject.namespace, "name": _free_name(family, packet)},
                    "spec": {
                        "podSelector": {"matchLabels": labels},
                        "policyTypes": [direction.value.capitalize()],
                        section: [rule_raw],
                    },
                },
                True,
                f"a policy of its own for {subject}, {direction} on {what}",
                addresses,
                3,
            )


def _copy(policy: Policy) -> dict[str, Any]:
    """The raw object, deep, without what the server adds."""
    raw: dict[str, Any] = copy.deepcopy(dict(policy.object.raw))
    meta = raw["metadata"]
    for name in ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields", "selfLink"):
        meta.pop(name, None)
    meta.setdefault("namespace", policy.ref.namespace)
    annotations = meta.get("annotations")
    if isinstance(annotations, dict):
        annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
        if not annotations:
            del meta["annotations"]
    raw.pop("status", None)
    if raw.get("spec") is None:  # an empty spec isolates every pod of the namespace, and has no place for a rule yet
        raw["spec"] = {"podSelector": {}}
    return raw


def _only_this_port(rule: Rule, packet: Packet) -> bool:
    """The rule covers the packet's port and nothing else, so that a peer added to it gets no more than was asked
    for.
    """
    if rule.ports is None or len(rule.ports) != 1 or packet.port is None:
        return False
    match rule.ports[0]:
        case PortRange(protocol, low, high):
            return protocol == packet.protocol and low == high == packet.port
        case NamedPort() as named:
            return port_match(named, packet) is True


def _has_peer(family: Kubernetes, policy: Policy, number: int, packet: Packet) -> bool:
    """Would this rule admit the packet if its ports did?"""
    side = policy.side(packet.direction)
    assert side is not None
    unbound = replace(side, rules=(replace(side.rules[number], ports=None),))
    name = "egress" if packet.direction is Direction.EGRESS else "ingress"
    freed = Policy(
        policy.ref,
        policy.subject,
        unbound if name == "ingress" else None,
        unbound if name == "egress" else None,
        policy.object,
    )
    return side.rules[number].peers is not None and family.admits(freed, packet).match is True


def _free_name(family: Kubernetes, packet: Packet) -> str:
    subject, peer = packet.subject, packet.peer
    assert isinstance(subject, Pod)
    other = f"{peer.owner[1] or peer.name}" if isinstance(peer, Pod) else "address"
    verb = "from" if packet.direction is Direction.INGRESS else "to"
    name = f"allow-{subject.owner[1] or subject.name}-{verb}-{other}"[:60].rstrip("-.")
    taken = {p.ref.name for p in family.policies if p.ref.namespace == subject.namespace}
    return next(n for n in (name, *(f"{name[:57]}-{i}" for i in range(2, 1000))) if n not in taken)


# --- counting ------------------------------------------------------------------------------------------------------


def _opens(engine: Engine, before: Kubernetes, after: Kubernetes, obj: Object, packet: Packet) -> int | None:
    """Pairs of pods and ports newly allowed in the packet's direction besides the asked one; None when anything is
    taken away.
    """
    index, direction = engine.index, packet.direction
    touched: dict[int, None] = {}
    for family in (before, after):
        for policy in family.policies:
            if policy.ref.namespace == obj.ref.namespace and policy.ref.name == obj.ref.name:
                room = index.rooms[family.cluster, obj.ref.namespace]
                bits = room.select(policy.subject) & ~room.host_network
                while bits:
                    low = bits & -bits
                    touched[room.base + low.bit_length() - 1] = None
                    bits ^= low
    everything = index.cluster(before.cluster) & ~index.host_network()
    total = 0
    for protocol, port in _atoms(after, obj, packet):
        for number in touched:
            was, now = before.row(number, direction, protocol, port), after.row(number, direction, protocol, port)
            if was is None and now is not None:
                return None  # a pod that was open becomes isolated
            old = everything if was is None else was.bits
            new = everything if now is None else now.bits
            if old & ~new:
                return None
            if new != old:
                total += len(index.classes[number].pods) * _pods_in(engine, new & ~old)
    if before.peer_number(packet) < 0:
        total += sum(
            len(index.classes[number].pods)
            for number in touched
            if _newly(before, after, packet, index.classes[number])
        )
    return max(0, total - 1)


def _newly(before: Kubernetes, after: Kubernetes, packet: Packet, members: PodClass) -> bool:
    """Does the far end, which is no pod of the cluster, come to reach (or be reached by) these pods?"""
    pod = members.pods[0]
    leaving = packet.direction is Direction.EGRESS
    other = replace(packet, source=pod) if leaving else replace(packet, destination=pod)
    verdicts = [settle(family.enforce(other)).verdict for family in (before, after)]
    return verdicts[0] is not Verdict.ALLOWED and verdicts[1] is Verdict.ALLOWED


def _pods_in(engine: Engine, bits: int) -> int:
    count = 0
    while bits:
        low = bits & -bits
        count += len(engine.index.classes[low.bit_length() - 1].pods)
        bits ^= low
    return count


def _atoms(family: Kubernetes, obj: Object, packet: Packet) -> list[tuple[str, int]]:
    """Ports that stand for all that the changed policy can tell apart."""
    found = {(packet.protocol, packet.port or 1): None}
    for policy in family.policies:
        if policy.ref.namespace == obj.ref.namespace and policy.ref.name == obj.ref.name:
            side = policy.side(packet.direction)
            for rule in side.rules if side else ():
                for port in rule.ports or ():
                    match port:
                        case PortRange(protocol, low, high):
                            found[protocol or "TCP", low] = None
                            found[protocol or "TCP", high] = None
                        case NamedPort() as named:
                            end = packet.destination
                            listed = end.named_ports(named.name, named.protocol) if isinstance(end, Pod) else ()
                            found |= {(each.protocol, each.port): None for each in listed}
    return list(found)


def to_yaml(raw: Mapping[str, Any]) -> str:
    """The full object as YAML, keys in the order given."""
    import yaml

    return yaml.safe_dump(json.loads(json.dumps(raw)), sort_keys=False, default_flow_style=False)
