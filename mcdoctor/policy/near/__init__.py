"""Near misses: the rule that was probably meant, and the one thing that keeps it from matching.

Every family says what each of its rules asks for and the packet does not meet, with the change that would meet it
(`conditions.Candidate`). A rule that lacks one thing is reported only after the engine was asked again with that one
change, of the object in memory or of the traffic, and the layer then no longer refuses. Where no rule lacks one thing
only, those that lack two are reported, each with both changes and both of them needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mcdoctor.policy.engine import Engine
from mcdoctor.policy.family import Compiled
from mcdoctor.policy.layers import PointDecision, systems
from mcdoctor.policy.near import admin, calico, cilium, istio, kubernetes, linkerd
from mcdoctor.policy.near.conditions import Candidate, Condition, apply, at, pointer_of
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Decision, Direction, Ref, Verdict, settle
from mcdoctor.policy.world import Object, Pod

_NEEDED = {
    "kubernetes": ("kubernetes", "admin"),
    "cilium": ("kubernetes", "admin", "cilium"),
    "calico": ("kubernetes", "admin", "calico"),
    "istio": ("istio",),
    "linkerd": ("linkerd",),
}
_POLICIES = frozenset(
    f"{prefix}NetworkPolicy"
    for prefix in ("", "Global", "Cilium", "CiliumClusterwide", "Admin", "BaselineAdmin", "Cluster")
)
"""Kinds of which only the objects that bear on the packet are compiled again."""
_MOST = 60
"""Evaluations for one refusal; the likeliest rules come first."""


@dataclass(frozen=True, slots=True)
class Change:
    """An operation of JSON Patch (RFC 6902) on one object: `op` "add", "replace" or "remove"."""

    ref: Ref
    op: str
    pointer: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class NearMiss:
    """`gap`: how many things keep the rule from matching; with 1, `changes` or `traffic` is that one thing undone.

    `why` and `ko` say it in English and Korean. `traffic`: fields of the Packet to be otherwise. `then`: what the
    answer hangs on once the rule matches, '' when it is allowed for certain.
    """

    ref: Ref
    pointer: str
    direction: Direction
    why: str
    gap: int
    ko: str = ""
    changes: tuple[Change, ...] = field(default=(), compare=False)
    traffic: Mapping[str, Any] = field(default_factory=dict, compare=False)
    then: str = ""


def near_misses(engine: Engine, point: PointDecision, limit: int = 3) -> tuple[NearMiss, ...]:
    """The rules that come closest to admitting what one enforcing point refuses, closest first, layer by layer."""
    found: list[NearMiss] = []
    for layer in point.layers:
        if layer.decision.verdict is Verdict.DENIED and layer.layer in _NEEDED:
            packet = point.packet if layer.layer in ("istio", "linkerd") else point.wire or point.packet
            found += _Scene(engine, layer.layer, packet, layer.decision).closest(limit)
    return tuple(found)


def applied(raw: Any, changes: Iterable[Change]) -> Any:
    """The object with changes of a near miss applied, for whoever wants to see or try it. `raw` None: a new object."""
    for change in changes:
        raw = _patched(raw, change.pointer.split("/")[1:], change)
    return raw


def _patched(raw: Any, parts: list[str], change: Change) -> Any:
    if not parts:
        return change.value
    name = parts[0].replace("~1", "/").replace("~0", "~")
    if isinstance(raw, list):
        number = int(name)
        if len(parts) > 1:
            return [*raw[:number], _patched(raw[number], parts[1:], change), *raw[number + 1 :]]
        put = [] if change.op == "remove" else [change.value]
        return [*raw[:number], *put, *raw[number + (change.op != "add") :]]
    if len(parts) == 1 and change.op == "remove":
        return {key: value for key, value in raw.items() if key != name}
    return {**raw, name: _patched(raw.get(name), parts[1:], change)}


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """One layer that refuses one packet."""

    engine: Engine
    layer: str
    packet: Packet
    decision: Decision

    def closest(self, limit: int) -> list[NearMiss]:
        relevant, candidates = self._material()
        likely = [c for c in candidates if 1 <= len(c.fails) <= 2]
        likely.sort(
            key=lambda c: (len(c.fails), len(c.fails) - c.asked, c.ref.namespace, c.ref.name, pointer_of(c.path))
        )
        found: list[NearMiss] = []
        left = _MOST
        for candidate in likely:
            gap = len(candidate.fails)
            if len(found) >= limit or left <= 0 or (found and gap > found[0].gap):
                break
            left -= 1 if gap == 1 else 3
            after = self._after(relevant, candidate, candidate.fails)
            if after is None or after.verdict is Verdict.DENIED:
                continue
            if gap > 1 and any(self._opens(relevant, candidate, each) for each in candidate.fails):
                continue
            found.append(self._told(candidate, after))
        return found

    def _opens(self, relevant: frozenset[Ref] | None, candidate: Candidate, alone: Condition) -> bool:
        after = self._after(relevant, candidate, (alone,))
        return after is not None and after.verdict is not Verdict.DENIED

    def _told(self, candidate: Candidate, after: Decision) -> NearMiss:
        why = "; ".join(c.en for c in candidate.fails)
        ko = "; ".join(c.ko for c in candidate.fails)
        then = after.why if after.verdict is not Verdict.ALLOWED else ""
        if then:
            why, ko = f"{why} (then it hangs on this: {then})", f"{ko} (그 다음은 여기에 달려 있습니다: {then})"
        traffic = {key: value for c in candidate.fails for key, value in c.traffic.items()}
        direction = self.packet.direction
        changes = tuple(_changes(candidate, self._objects(candidate)))
        return NearMiss(
            candidate.ref, pointer_of(candidate.path), direction, why, len(candidate.fails), ko, changes, traffic, then
        )

    def _objects(self, candidate: Candidate) -> dict[Ref, Any]:
        """The objects that the candidate's edits are about, as they are; None for one that does not exist."""
        refs = {edit.ref or candidate.ref for condition in candidate.fails for edit in condition.edits}
        found: dict[Ref, Any] = dict.fromkeys(refs)
        if candidate.ref in found:
            found[candidate.ref] = candidate.raw
        here = self.engine.world.clusters[self.packet.cluster]
        for listed in here.objects.values():
            found.update({obj.ref: obj.raw for obj in listed if obj.ref in found})
        return found

    def _after(
        self, relevant: frozenset[Ref] | None, candidate: Candidate, conditions: Iterable[Condition]
    ) -> Decision | None:
        """What the layer says with these conditions met; None where a change makes an object that would be refused."""
        conditions = tuple(conditions)
        packet = self.packet
        for condition in conditions:
            packet = replace(packet, **condition.traffic)
        before = self._objects(candidate)
        edits = [edit for condition in conditions for edit in condition.edits]
        changed = {
            ref: apply(raw, [e for e in edits if (e.ref or candidate.ref) == ref]) for ref, raw in before.items()
        }
        changed = {ref: raw for ref, raw in changed.items() if raw is not None}
        compiled = self._compiled(relevant, changed)
        if any(r.ref in changed and r.fatal for family in compiled.values() for r in family.refusals):
            return None
        if self.layer in ("istio", "linkerd"):
            return settle(compiled[self.layer].enforce(packet))
        datapath = self.engine.world.clusters[packet.cluster].datapath
        ruling = next(ruling for name, ruling in systems(compiled, packet, datapath) if name == self.layer)
        return settle(ruling)

    def _compiled(self, relevant: frozenset[Ref] | None, changed: Mapping[Ref, Any]) -> Mapping[str, Compiled]:
        """The layer's families over the objects that bear on this packet, with some of them changed."""
        engine, name = self.engine, self.packet.cluster
        families = [f for f in engine.families if f.name in _NEEDED[self.layer]]
        kinds = {kind for family in families for kind in family.kinds}
        here = engine.world.clusters[name]
        objects = dict(here.objects)
        for kind in kinds:
            some = relevant is not None and kind[1] in _POLICIES
            listed = (o for o in here.of(*kind) if o.ref not in changed)
            objects[kind] = tuple(o for o in listed if not some or o.ref in (relevant or ()))
        for ref, raw in changed.items():
            kind = (str(raw["apiVersion"]).rpartition("/")[0], ref.kind)
            objects[kind] = (*objects.get(kind, ()), Object(ref, raw))
        world = replace(engine.world, clusters={**engine.world.clusters, name: replace(here, objects=objects)})
        index = engine.index.over(world)
        done: dict[str, Compiled] = {}
        for family in families:
            done[family.name] = family.compile(index, name, done)
        return done

    def _material(self) -> tuple[frozenset[Ref] | None, list[Candidate]]:
        """The policies that bear on the packet (None = any of the layer's), and the ways their rules may match."""
        compiled, packet, decision = self.engine.compiled[self.packet.cluster], self.packet, self.decision
        match self.layer:
            case "istio":
                return None, list(istio.candidates(compiled["istio"], packet, decision))
            case "linkerd":
                return None, list(linkerd.candidates(compiled["linkerd"], packet, decision))
            case _:
                pass
        relevant = kubernetes.relevant(compiled["kubernetes"], packet) | admin.relevant(compiled["admin"])
        found = list(kubernetes.candidates(self.engine.world, compiled["kubernetes"], packet))
        found += admin.candidates(compiled["admin"], packet, decision)
        if self.layer == "cilium":
            relevant |= cilium.relevant(compiled["cilium"], packet)
            found += cilium.candidates(compiled["cilium"], packet)
        if self.layer == "calico":
            if not isinstance(packet.subject, Pod) or packet.subject.host_network:
                return None, found  # a host endpoint: any policy may be about it
            relevant |= calico.relevant(compiled["calico"], packet)
            found += calico.candidates(compiled["calico"], packet, decision)
        return frozenset(relevant), found


def _changes(candidate: Candidate, before: Mapping[Ref, Any]) -> Iterator[Change]:
    """The edits as operations of JSON Patch, in an order in which they may be applied one after another."""
    edits = [edit for condition in candidate.fails for edit in condition.edits]
    gone = sorted((e for e in edits if e.gone), key=lambda e: (e.path[:-1], e.path[-1]), reverse=True)
    now = dict(before)
    for edit in [*(e for e in edits if not e.gone), *gone]:
        ref = edit.ref or candidate.ref
        path, value = edit.path, edit.value
        if edit.gone:
            yield Change(ref, "remove", pointer_of(path))
        else:
            # What is missing on the way comes with the value.
            while len(path) > 1 and at(now[ref], path[:-1]) is None:
                last = path[-1]
                path, value = path[:-1], ([value] if isinstance(last, int) else {last: value})
            there = at(now[ref], path)
            yield Change(ref, "add" if there is None else "replace", pointer_of(path), value)
        now[ref] = apply(now[ref], (edit,))
