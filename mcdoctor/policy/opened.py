"""What an edit opens besides what was asked for, counted with the whole engine: every family, both kinds of layers.

Only what the changed object can touch is looked at: the pods (or nodes) it selects, against every pod, node and range
of addresses, on every port that the object tells apart. Pods that no policy tells apart are asked once. Where
NetworkPolicy alone decides, bitsets answer for all far pods at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mcdoctor.policy.addresses import Block, Ip, cut, host_block, parse_block
from mcdoctor.policy.calico import Calico
from mcdoctor.policy.cilium import Cilium
from mcdoctor.policy.crossing import wired
from mcdoctor.policy.edits.edit import Edit, Wanted
from mcdoctor.policy.engine import Engine
from mcdoctor.policy.family import Compiled
from mcdoctor.policy.gateway_routes import GROUP as SERVERS
from mcdoctor.policy.index import PodClass
from mcdoctor.policy.istio import Istio
from mcdoctor.policy.kubernetes import Kubernetes
from mcdoctor.policy.ports import TRANSPORTS
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Direction, Effect, Ruling, Verdict, settle
from mcdoctor.policy.world import End, Node, Outside, Pod

MESHES = ("istio", "linkerd")
_RANK = {Verdict.DENIED: 0, Verdict.UNKNOWN: 1, Verdict.CONDITIONAL: 1, Verdict.ALLOWED: 2}
_FEW, _MOST_ASKED = 10_000, 40_000
_BESIDE = (False, False, False)
_SHOWN = 3
_RANGE = re.compile(r"(\d{1,5})[:-](\d{1,5})\Z")


@dataclass(slots=True)
class Opened:
    """`pairs`: newly allowed pairs of ends and ports, without the one asked for; `addresses`: outside, newly admitted.

    `layer`: pairs that the refusing layer alone newly admits. `examples`: some of the pairs, in words. `exact` False:
    there was too much to look at, and the figures are a lower bound.
    """

    pairs: int = 0
    addresses: int = 0
    layer: int = 0
    examples: list[str] = field(default_factory=list)
    exact: bool = True

    def show(self, source: End, destination: End, protocol: str, port: int | None, more: str = "") -> None:
        text = f"{source} to {destination} on {protocol}" + (f" {port}" if port is not None else "") + more
        if len(self.examples) < _SHOWN and text not in self.examples:
            self.examples.append(text)


def opened(before: Engine, after: Engine, wanted: Wanted, edit: Edit) -> Opened | None:
    """None when anything is taken away."""
    if wanted.plain and before.index.classes is after.index.classes:
        peer = wanted.packet.peer
        if isinstance(peer, Pod) and peer.cluster == wanted.packet.cluster and not peer.host_network:
            return _by_rows(before, after, wanted, edit)
    return _Census(before, after, wanted, edit).take()


# --- ports, addresses ----------------------------------------------------------------------------------------------


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _scalars(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _scalars(inner)
    else:
        yield value


def _atoms(objects: Sequence[Mapping[str, Any]], wanted: Wanted) -> list[tuple[str, int | None]]:
    """(protocol, port) that stand for all that these objects can tell apart; the one asked for comes first."""
    packet = wanted.packet
    if wanted.layer == "linkerd":  # the ports are the Servers'
        objects = [*objects, *(obj.raw for obj in wanted.cluster.of(SERVERS, "Server"))]
    edges = {1}
    words: set[str] = set()
    for value in (v for raw in objects for v in _scalars(raw.get("spec", raw.get("specs")))):
        if type(value) is str:
            words.add(value)
            span = _RANGE.match(value)
            numbers = [int(span[1]), int(span[2])] if span else [int(value)] if value.isdecimal() else []
        else:
            numbers = [value] if type(value) is int else []
        edges |= {n + step for n in numbers if 0 < n < 65536 for step in (0, 1)}
    named = wanted.engine.index.port_numbers
    edges |= {number for word in words & named.keys() for number in named[word]}
    asked = (packet.protocol, packet.port)
    found: dict[tuple[str, int | None], None] = {asked: None}
    found |= {("TCP", port): None for port in sorted(edges)}
    for protocol in ("UDP", "SCTP"):
        listed = sorted(edges) if protocol in words or protocol.lower() in words else [packet.port or 1]
        found |= {(protocol, port): None for port in listed}
    return list(found)


def _blocks(objects: Iterable[Mapping[str, Any]]) -> list[Block]:
    found: dict[Block, None] = {}
    for value in (v for raw in objects for v in _scalars(raw)):
        if type(value) is str and "/" in value:
            try:
                found[parse_block(value)] = None
            except ValueError:
                continue
    return list(found)


# --- NetworkPolicy alone -------------------------------------------------------------------------------------------


def _by_rows(before: Engine, after: Engine, wanted: Wanted, edit: Edit) -> Opened | None:
    """Where only NetworkPolicy decides and the far end is a pod of the cluster: all far pods at once."""
    packet, index = wanted.packet, before.index
    direction = packet.direction
    old, new = (engine.compiled[packet.cluster]["kubernetes"] for engine in (before, after))
    assert isinstance(old, Kubernetes) and isinstance(new, Kubernetes)
    everything = index.cluster(packet.cluster) & ~index.host_network()
    found = Opened()
    numbers = _policy_numbers(before, after, edit.objects[0], packet)
    atoms = _atoms(edit.objects, wanted)
    for asked in atoms:
        # A rule that admits ICMP has no ports at all, and so admits any.
        protocol, port = asked if asked[0] in TRANSPORTS else ("TCP", 1)
        for number in numbers:
            was = old.row(number, direction, protocol, port or 1)
            now = new.row(number, direction, protocol, port or 1)
            surely, perhaps = (everything, 0) if was is None else (was.bits, was.maybe & ~was.bits)
            then, maybe = (everything, 0) if now is None else (now.bits, now.maybe & ~now.bits)
            if surely & ~then or perhaps & ~(then | maybe):
                return None
            risen = (then & ~surely) | (maybe & ~surely & ~perhaps)
            if risen:
                here = index.classes[number]
                for there in before.index.members(risen):
                    found.pairs += len(here.pods) * (len(there.pods) - (here is there))
                    if len(found.examples) < _SHOWN:
                        ends = _other(here, there, packet if asked == atoms[0] else None)
                        if ends is not None:
                            found.show(*(ends if direction is Direction.EGRESS else ends[::-1]), protocol, port)
    found.pairs = max(0, found.pairs - 1)
    found.layer = found.pairs
    if edit.reuses and (blocks := _blocks(edit.objects)):
        # The rule's other peers get the port too, and these may be addresses and nodes.
        census = _Census(before, after, wanted, edit, pods=False)
        far = census.take(blocks)
        if far is None:
            return None
        found.pairs += far.pairs
        found.addresses += far.addresses
        found.examples += far.examples[: _SHOWN - len(found.examples)]
    return found


def _other(here: PodClass, there: PodClass, asked: Packet | None) -> tuple[Pod, Pod] | None:
    """A pair of these classes that is not the one asked for."""
    for subject in here.pods[:2]:
        for peer in there.pods[:2]:
            if subject is not peer and (asked is None or (subject, peer) != (asked.subject, asked.peer)):
                return subject, peer
    return None


def _policy_numbers(before: Engine, after: Engine, raw: Mapping[str, Any], packet: Packet) -> list[int]:
    """The classes that a NetworkPolicy isolates in the packet's direction, before or after."""
    meta = raw["metadata"]
    found: dict[int, None] = {}
    for engine in (before, after):
        family = engine.compiled[packet.cluster]["kubernetes"]
        assert isinstance(family, Kubernetes)
        room = engine.index.rooms[packet.cluster, meta["namespace"]]
        for policy in family.policies[slice(*family.places(meta["namespace"], meta["name"]))]:
            bits = room.select(policy.subject) & ~room.host_network
            found |= {each.number: None for each in engine.index.members(bits << room.base)}
    return list(found)


# --- every family --------------------------------------------------------------------------------------------------


class _Census:
    """One edit's comparison of two engines, pair by pair of ends that the changed objects can touch."""

    def __init__(self, before: Engine, after: Engine, wanted: Wanted, edit: Edit, *, pods: bool = True) -> None:
        self.before, self.after, self.wanted, self.edit = before, after, wanted, edit
        self.pods = pods
        self.packet = wanted.packet
        self.index = after.index
        self.mesh = wanted.layer in MESHES
        self.wrapped = not self.mesh and wanted.points[0].wire is not None
        here = after.compiled[self.packet.cluster]
        names = [n if n in here else "kubernetes" for n in wanted.cluster.datapath.systems]
        if self.mesh:
            names = [wanted.layer]
        compiled = [
            (before.compiled[self.packet.cluster].get(n), after.compiled[self.packet.cluster].get(n)) for n in names
        ]
        self.changed: list[tuple[Compiled, Compiled]] = [(b, a) for b, a in compiled if b and a and b is not a]
        self.asked = {p.peer for p in wanted.packets}
        self.refusing = {d.ref for d in wanted.by}
        self.admitted: set[End] = set()
        self.found = Opened()

    def take(self, only: Sequence[Block] = ()) -> Opened | None:
        subjects = dict(self._subjects())
        blocks = _blocks(self.edit.objects)
        peers = dict(self._peers(blocks))
        if only:
            inside = [e for e in peers if any(ip in block for ip in _ips(e) for block in only)]
            peers = {e: peers[e] for e in inside if not isinstance(e, Pod)}
        atoms = _atoms(self.edit.objects, self.wanted)
        if self.mesh:
            atoms = [(protocol, port) for protocol, port in atoms if protocol == "TCP"]
        ranges = list(self._ranges(blocks, only))
        own = self.packet.subject
        far: list[tuple[End, int]] = [*peers.items(), *ranges]
        few = _spread(far, self.asked)
        nodes = [(end, count) for end, count in far if isinstance(end, Node)]  # which is a subject's own node differs
        relevant: list[tuple[End, int]] | None = None
        whole = len(subjects) * len(far) * len(atoms) <= _FEW
        work = 0
        ordered = sorted(subjects, key=lambda s: s is not own)
        for subject, atom in ((s, a) for s in ordered for a in atoms):
            # On other ports an edit can only isolate who was open: that shows with any far end, and at the own node.
            here = far if whole or relevant is None else relevant if atom == atoms[0] else few
            if here is few and isinstance(subject, Pod):
                here = list(dict.fromkeys([*few, *(each for each in nodes if each[0].name == subject.node)]))
            if work and work + len(here) > _MOST_ASKED:
                self.found.exact = False
                break
            work += len(here)
            moved = self._compare(subject, subjects[subject], atom, here, atom == atoms[0])
            if moved is None:
                return None
            relevant = relevant if relevant is not None else list(dict.fromkeys([*moved, *few, *nodes]))
        self.found.addresses += sum(size for end, size in ranges if end in self.admitted)
        return self.found

    def _compare(
        self, subject: End, size: int, atom: tuple[str, int | None], far: Sequence[tuple[End, int]], first: bool
    ) -> list[tuple[End, int]] | None:
        """Counts what rises between one subject and these far ends; None = something is taken away.

        Returns the far ends that may rise for another subject too: all but those that lack a rule before and after.
        """
        moved: list[tuple[End, int]] = []
        for peer, count in far:
            alike = first and subject is self.packet.subject and peer in self.asked
            itself = min(size, count) if subject is peer else 0  # nobody opens a pod to itself
            if size * count <= itself and not alike and not isinstance(peer, Outside):
                continue
            rise = self._rise(subject, peer, *atom, asked=alike)
            if rise is None:
                return None
            if rise is _BESIDE:
                continue
            moved.append((peer, count))
            whole, layer, others = rise
            if isinstance(peer, Outside) and peer not in self.asked:
                if whole:
                    self.admitted.add(peer)
                continue
            pairs = max(0, size * count - itself - alike)
            if layer:
                self.found.layer += pairs
            if whole and pairs + (alike and others) > 0:
                self._count(subject, peer, *atom, pairs + (alike and others), bool(alike and not pairs))
        return moved

    def _count(self, subject: End, peer: End, protocol: str, port: int | None, pairs: int, requests: bool) -> None:
        self.found.pairs += pairs
        outward = self.packet.direction is Direction.EGRESS
        if pairs and not requests and subject is self.packet.subject and peer in self.asked:
            subject, peer = self._mate(subject, peer)
        ends = (subject, peer) if outward else (peer, subject)
        self.found.show(*ends, protocol, port, " (other requests)" if requests else "")

    def _mate(self, subject: End, peer: End) -> tuple[End, End]:
        """A pair just like this one, where there is one."""
        both = [
            self.index.classes[self.index.class_of[e]].pods[:2] if isinstance(e, Pod) else (e,) for e in (subject, peer)
        ]
        return next(((s, p) for s in both[0] for p in both[1] if (s, p) != (subject, peer)), (subject, peer))

    def _rise(
        self, subject: End, peer: End, protocol: str, port: int | None, *, asked: bool = False
    ) -> tuple[bool, bool, bool] | None:
        """(opened as a whole, opened in the layer, other requests of the same pair opened); None = something taken.

        `_BESIDE`: refused for want of the same rule before and after.
        """
        whole = layer = others = False
        beside = True
        kinds = [self.packet.http]
        if self.packet.http is not None and (protocol, port) == self._first:
            kinds.append(None)
        for http in kinds:
            packet = self._between(subject, peer, protocol, port)
            if packet.http is not http:
                packet = replace(packet, http=http)
            seen = packet if self.mesh or self.wrapped else wired(packet) or packet
            rulings = [(old.enforce(seen), new.enforce(seen)) for old, new in self.changed]
            if all(_same(old, new) for old, new in rulings):
                beside = beside and all(self._lacks(old) for old, _ in rulings)
                continue
            beside = False
            local = [(_RANK[settle(old).verdict], _RANK[settle(new).verdict]) for old, new in rulings]
            layer = layer or any(new > old for old, new in local)
            was, now = self._rank(self.before, packet), self._rank(self.after, packet)
            if now < was:
                return None
            whole = whole or now > was
            if asked and http is None and self.packet.http is not None:
                # Where requests are told apart, or could be, the edit may let others through than the one asked for.
                others = now == 2 and (was == 1 or (was == 0 and self.wanted.layer == "istio"))
        return _BESIDE if beside else (whole, layer, others)

    def _lacks(self, ruling: Ruling) -> bool:
        """Is it refused just as what was asked for, because the same objects do not admit it?"""
        by = [d for branch in ruling.branches for d in branch.by]
        refused = all(branch.effect is Effect.DENY and not branch.doubts for branch in ruling.branches)
        return refused and bool(by) and all(d.implicit and d.ref in self.refusing for d in by)

    @property
    def _first(self) -> tuple[str, int | None]:
        return self.packet.protocol, self.packet.port

    def _rank(self, engine: Engine, packet: Packet) -> int:
        if self.wrapped:
            return _RANK[engine.decide(packet, mesh=False).verdict]
        return _RANK[engine.decide(packet, wired(packet), mesh=self.wanted.points[0].mesh).verdict]

    def _between(self, subject: End, peer: End, protocol: str, port: int | None) -> Packet:
        """The packet asked for, with other ends or another port."""
        asked = self.packet
        same = (subject is asked.subject, peer is asked.peer)
        if all(same) and (protocol, port) == self._first:
            return asked
        outward = asked.direction is Direction.EGRESS
        icmp = asked.icmp if (protocol, port) == self._first else None
        return replace(
            asked,
            source=subject if outward else peer,
            destination=peer if outward else subject,
            protocol=protocol,
            port=port,
            icmp=icmp,
            http=asked.http if protocol == asked.protocol else None,
            mtls=asked.mtls if same[1] else None,
            principal=asked.principal if same[1] else None,
            client=asked.client if same[1] else None,
            service=asked.service if same[outward] else None,
            version=asked.version if all(same) else 0,
        )

    # Ends.

    def _subjects(self) -> Iterator[tuple[End, int]]:
        """The ends that the changed objects select, one of each class with how many are alike."""
        own = self.packet.subject
        if not isinstance(own, Pod) or own.host_network:
            yield own, 1
            yield from ((n, 1) for n in self.index.world.clusters[self.packet.cluster].nodes.values() if n is not own)
            return
        for number in self.index.spans[self.packet.cluster]:
            each = self.index.classes[number]
            if not each.host_network and any(self._touches(raw, each) for raw in self.edit.objects):
                yield own if own in each.pods else each.pods[0], len(each.pods)

    def _touches(self, raw: Mapping[str, Any], each: PodClass) -> bool:
        meta = raw["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        for engine in (self.before, self.after):
            families = engine.compiled[self.packet.cluster]
            pod, group = each.pods[0], str(raw["apiVersion"]).rpartition("/")[0]
            number = engine.index.class_of[pod]
            match group:
                case "networking.k8s.io":
                    native = families["kubernetes"]
                    assert isinstance(native, Kubernetes)
                    refs = [p.ref for p in native.selected[self.packet.direction].get(number, ())]
                case "cilium.io":
                    cilium = families["cilium"]
                    assert isinstance(cilium, Cilium)
                    refs = [p.ref for p, _ in cilium.selecting(pod)]
                case "projectcalico.org" | "crd.projectcalico.org":
                    calico = families["calico"]
                    assert isinstance(calico, Calico)
                    refs = [p.ref for ps in calico.policies.values() for p in ps if p.possible >> number & 1]
                case _:
                    istio = families["istio"]
                    mesh_wide = isinstance(istio, Istio) and namespace == istio.config.root_namespace
                    return not namespace or namespace == each.namespace or (mesh_wide and group.endswith("istio.io"))
            if any((r.kind, r.namespace, r.name) == (raw["kind"], namespace, name) for r in refs):
                return True
        return False

    def _peers(self, blocks: Sequence[Block]) -> Iterator[tuple[End, int]]:
        """Every far end that may be told apart: pods by class, those inside a CIDR of the edit by themselves; nodes."""
        here = self.packet.cluster
        world = self.index.world
        clusters = [here, *(name for name in world.clusters if name != here and self._meshed(name))]
        named = {p.peer for p in self.wanted.packets}
        listed: dict[End, int] = dict.fromkeys(named, 1)
        for name in clusters if self.pods else ():
            for number in self.index.spans[name]:
                each = self.index.classes[number]
                if each.host_network:
                    continue
                if len(each.pods) == 1:
                    listed[each.pods[0]] = 1
                    continue
                alone = [p for p in each.pods if any(ip in block for ip in p.ips for block in blocks)]
                rest = [p for p in each.pods if p not in alone] if alone else each.pods
                listed |= dict.fromkeys(alone, 1)
                first = next((p for p in rest if p in named), rest[0] if rest else None)
                if first is not None:
                    listed[first] = len(rest)
        for name in clusters:
            for node in world.clusters[name].nodes.values():
                listed.setdefault(node, 1)
        yield from listed.items()

    def _meshed(self, other: str) -> bool:
        """Are the pods of another cluster known here by their identity?"""
        peer = self.packet.peer
        if isinstance(peer, Pod) and peer.cluster == other:
            return True
        families = self.after.compiled[self.packet.cluster]
        cilium = families.get("cilium")
        known = isinstance(cilium, Cilium) and all(
            cilium.configs[name].ref is not None for name in (self.packet.cluster, other)
        )
        return self.wanted.layer == "cilium" and known

    def _ranges(self, blocks: Sequence[Block], only: Sequence[Block]) -> Iterator[tuple[Outside, int]]:
        """Ranges of addresses outside that no policy tells apart: one address of each, and how many there are."""
        asked = [ip for p in self.wanted.packets for ip in p.ips(p.peer)]
        owned: dict[Ip, object] = {}
        for cluster in self.index.world.clusters.values():
            owned |= cluster.by_ip
        versions = {4} | {b.version for b in blocks} | {ip.version for ip in asked}
        if any(ip.version == 6 for ip in owned):
            versions.add(6)
        for version in sorted(versions):
            limit = (1 << (32 if version == 4 else 128)) - 1
            mine = cut(version, [*blocks, *(host_block(ip) for ip in asked if ip.version == version)])
            starts = sorted({*self.index.atoms[version].starts, *mine.starts})
            for low, high in zip(starts, [*(s - 1 for s in starts[1:]), limit], strict=True):
                if any(ip.version == version and ip.value == low == high for ip in asked):
                    continue
                inside = sum(1 for ip in owned if ip.version == version and low <= ip.value <= high)
                if high - low + 1 <= inside or (
                    only and not any(b.low <= low <= b.high for b in only if b.version == version)
                ):
                    continue
                free = next((Ip(version, v) for v in range(low, high + 1) if Ip(version, v) not in owned), None)
                if free is not None:
                    yield Outside(free), high - low + 1 - inside


def _spread(far: Sequence[tuple[End, int]], asked: Collection[End]) -> list[tuple[End, int]]:
    """Some of the far ends, of every sort and of many namespaces, those asked about among them."""
    sorts: dict[object, tuple[End, int]] = {}
    for end, count in far:
        match end:
            case Pod():
                sort: object = (end.cluster, end.namespace)
            case Outside():
                sort = (end.ip.version, len(sorts) % 3)
            case _:
                sort = type(end)
        sorts.setdefault(end if end in asked else sort, (end, count))
    return list(sorts.values())[:40]


def _ips(end: End) -> tuple[Ip, ...]:
    match end:
        case Pod() | Node():
            return end.ips
        case Outside():
            return (end.ip,)
        case _:
            return ()


def _same(old: Ruling, new: Ruling) -> bool:
    return {(b.effect, bool(b.doubts)) for b in old.branches} == {(b.effect, bool(b.doubts)) for b in new.branches}
