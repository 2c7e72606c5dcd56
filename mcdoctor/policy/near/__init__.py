"""Near misses: the rule that was probably meant, and the one thing that keeps it from matching.

Every family says what each of its rules asks for and the packet does not meet, with the change that would meet it
(`conditions.Candidate`). A rule that lacks one thing is reported only after the engine was asked again with that one
change, of the object in memory or of the traffic, and the layer then no longer refuses. Where no rule lacks one thing
only, those that lack two are reported, each with both changes and both of them needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from mcdoctor.policy.engine import Engine
from mcdoctor.policy.family import Compiled, Family
from mcdoctor.policy.layers import PointDecision, systems
from mcdoctor.policy.near import admin, calico, cilium, istio, kubernetes, linkerd
from mcdoctor.policy.near.conditions import Candidate, Condition, apply, at, pointer_of
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Decision, Direction, Ref, Verdict, settle
from mcdoctor.policy.world import Cluster, Object, Pod

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


@dataclass(frozen=True, eq=False)
class _Scene:
    """One layer that refuses one packet."""

    engine: Engine
    layer: str
    packet: Packet
    decision: Decision

    @property
    def here(self) -> Cluster:
        return self.engine.world.clusters[self.packet.cluster]

    @property
    def compiled(self) -> Mapping[str, Compiled]:
        return self.engine.compiled[self.packet.cluster]

    def closest(self, limit: int) -> list[NearMiss]:
        likely = [c for c in self._candidates() if 1 <= len(c.fails) <= 2]
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
            before = self._before(candidate)
            after = self._after(candidate, before, candidate.fails)
            if after is None or after.verdict is Verdict.DENIED:
                continue
            if gap > 1 and any(self._opens(candidate, before, each) for each in candidate.fails):
                continue
            found.append(self._told(candidate, before, after))
        return found

    def _opens(self, candidate: Candidate, before: Mapping[Ref, Any], alone: Condition) -> bool:
        after = self._after(candidate, before, (alone,))
        return after is not None and after.verdict is not Verdict.DENIED

    def _told(self, candidate: Candidate, before: Mapping[Ref, Any], after: Decision) -> NearMiss:
        why = "; ".join(c.en for c in candidate.fails)
        ko = "; ".join(c.ko for c in candidate.fails)
        then = after.why if after.verdict is not Verdict.ALLOWED else ""
        if then:
            why, ko = f"{why} (then it hangs on this: {then})", f"{ko} (그 다음은 여기에 달려 있습니다: {then})"
        traffic = {key: value for c in candidate.fails for key, value in c.traffic.items()}
        direction = self.packet.direction
        changes = tuple(_changes(candidate, before))
        return NearMiss(
            candidate.ref, pointer_of(candidate.path), direction, why, len(candidate.fails), ko, changes, traffic, then
        )

    def _before(self, candidate: Candidate) -> dict[Ref, Any]:
        """The objects that the candidate's edits are about, as they are; None for one that does not exist."""
        refs = {edit.ref or candidate.ref for condition in candidate.fails for edit in condition.edits}
        found: dict[Ref, Any] = {ref: candidate.raw if ref == candidate.ref else None for ref in refs}
        if refs - {candidate.ref}:
            for kinds in self.here.objects.values():
                found.update({obj.ref: obj.raw for obj in kinds if obj.ref in found})
        return found

    def _after(
        self, candidate: Candidate, before: Mapping[Ref, Any], conditions: tuple[Condition, ...]
    ) -> Decision | None:
        """What the layer says with these conditions met; None where a change makes an object that would be refused."""
        packet = self.packet
        for condition in conditions:
            packet = replace(packet, **condition.traffic)
        edits = [edit for condition in conditions for edit in condition.edits]
        changed = {
            ref: apply(raw, [e for e in edits if (e.ref or candidate.ref) == ref]) for ref, raw in before.items()
        }
        changed = {ref: raw for ref, raw in changed.items() if raw is not None}
        compiled = self._compiled(changed)
        if any(r.ref in changed and r.fatal for family in compiled.values() for r in family.refusals):
            return None
        if self.layer in ("istio", "linkerd"):
            return settle(compiled[self.layer].enforce(packet))
        ruling = next(ruling for name, ruling in systems(compiled, packet, self.here.datapath) if name == self.layer)
        return settle(ruling)

    @cached_property
    def _families(self) -> tuple[Family, ...]:
        return tuple(f for f in self.engine.families if f.name in _NEEDED[self.layer])

    @cached_property
    def _bearing(self) -> Mapping[tuple[str, str], tuple[Object, ...]]:
        """The objects of the cluster, of policies over packets only those that bear on this one."""
        if self.layer in ("istio", "linkerd"):
            return self.here.objects
        subject, packet = self.packet.subject, self.packet
        listed = [*kubernetes.relevant(self.compiled["kubernetes"], packet), *admin.relevant(self.compiled["admin"])]
        if self.layer == "cilium":
            listed += cilium.relevant(self.compiled["cilium"], packet)
        if self.layer == "calico":
            if not isinstance(subject, Pod) or subject.host_network:
                return self.here.objects  # a host endpoint: any policy may be about it
            listed += calico.relevant(self.compiled["calico"], packet)
        kinds = {kind for family in self._families for kind in family.kinds if kind[1] in _POLICIES}
        found = {kind: () if kind in kinds else objects for kind, objects in self.here.objects.items()}
        for obj in listed:
            kind = _kind(obj.ref, obj.raw)
            found[kind] = (*found.get(kind, ()), obj)
        return found

    def _compiled(self, changed: Mapping[Ref, Any]) -> Mapping[str, Compiled]:
        """The layer's families over the objects that bear on the packet, with some of them changed."""
        name = self.packet.cluster
        objects = dict(self._bearing)
        for ref, raw in changed.items():
            kind = _kind(ref, raw)
            objects[kind] = (*(o for o in objects.get(kind, ()) if o.ref != ref), Object(ref, raw))
        world = replace(
            self.engine.world, clusters={**self.engine.world.clusters, name: replace(self.here, objects=objects)}
        )
        index = self.engine.index.over(world)
        done = dict(self.compiled)
        for family in self._families:
            done[family.name] = family.compile(index, name, done)
        return {family.name: done[family.name] for family in self._families}

    def _candidates(self) -> Iterator[Candidate]:
        """The ways in which rules of the layer may match."""
        compiled, packet, decision = self.compiled, self.packet, self.decision
        match self.layer:
            case "istio":
                yield from istio.candidates(compiled["istio"], packet, decision)
                return
            case "linkerd":
                yield from linkerd.candidates(compiled["linkerd"], packet, decision)
                return
            case _:
                pass
        yield from kubernetes.candidates(self.engine.world, compiled["kubernetes"], packet)
        yield from admin.candidates(compiled["admin"], packet, decision)
        if self.layer == "cilium":
            yield from cilium.candidates(compiled["cilium"], packet)
        subject = packet.subject
        if self.layer == "calico" and isinstance(subject, Pod) and not subject.host_network:
            yield from calico.candidates(compiled["calico"], packet, decision)


def _kind(ref: Ref, raw: Any) -> tuple[str, str]:
    return str(raw["apiVersion"]).rpartition("/")[0], ref.kind


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
