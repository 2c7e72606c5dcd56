"""The smallest change that lets refused traffic through: proposed, verified by asking again, counted for what else
it opens.

For every layer that refuses because nothing admits the traffic its family offers edits (`edits`): an item in a rule, a
rule in an object that refuses, an object of its own kind beside it. Ends are named as exactly as the objects allow: by
labels inside a namespace, by identity in a mesh, by address for what selectors cannot match. Each edit is applied in
memory; one that does not let the traffic through, that would not be taken by the API server or that takes anything away
is dropped. The rest is counted with the whole engine (`opened`) and ranked by what else it opens.

A rule that says deny is somebody's decision: it is named as deliberate, never edited away. A deny of the baseline tier
is a default that NetworkPolicies may override, so one is offered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcdoctor.policy.edits import calico, cilium, istio, kubernetes, linkerd
from mcdoctor.policy.edits.edit import Edit, Wanted, Words
from mcdoctor.policy.engine import Engine
from mcdoctor.policy.fields import Refused
from mcdoctor.policy.index import mentioned, texts_of
from mcdoctor.policy.kubernetes import Kubernetes
from mcdoctor.policy.layers import LayerDecision, PointDecision
from mcdoctor.policy.matrix import simple
from mcdoctor.policy.opened import MESHES, Opened, opened
from mcdoctor.policy.path import Answer, PathAnswer, PointAnswer, ask
from mcdoctor.policy.verdict import Deciding, Direction, Ref, Verdict
from mcdoctor.policy.world import Object

_OFFERS: Mapping[str, tuple[Callable[[Wanted], Iterator[Edit]], ...]] = {
    "kubernetes": (kubernetes.edits,),
    "cilium": (cilium.edits, kubernetes.edits),
    "calico": (calico.edits, kubernetes.edits),
    "istio": (istio.edits,),
    "linkerd": (linkerd.edits,),
}
_MOST_PATHS = 6


@dataclass(frozen=True, slots=True)
class Option:
    """One change: full objects to apply, the one that admits first.

    `opens`: pairs of ends and ports it newly allows besides the one asked for, in its direction; `addresses`: addresses
    outside that it newly admits; `examples`: some of the pairs. `exact` False: there was too much to count, the figures
    are a lower bound. `order`: the size of the change.
    """

    objects: tuple[Mapping[str, Any], ...]
    new: bool
    words: Words
    opens: int
    addresses: int
    layer: int
    order: int
    examples: tuple[str, ...] = ()
    exact: bool = True

    @property
    def object(self) -> Mapping[str, Any]:
        return self.objects[0]

    @property
    def text(self) -> str:
        return self.words.en

    @property
    def cost(self) -> tuple[bool, int, int, int, int]:
        """What else it opens, what its layer alone opens, then its size: the least first."""
        return not self.exact, self.opens, self.addresses, self.layer, self.order

    @property
    def ref(self) -> str:
        meta = self.object["metadata"]
        return f"{self.object['kind']} {meta['namespace']}/{meta['name']}"


@dataclass(frozen=True, slots=True)
class Side:
    """One layer of an enforcing point that refuses. `options` are verified and the best comes first.

    `deliberate`: what says deny on purpose. `words`: why there is no option, or what to do rather than take one.
    """

    cluster: str
    direction: Direction
    layer: str
    deliberate: tuple[Deciding, ...]
    options: tuple[Option, ...]
    words: Words | None = None

    @property
    def why(self) -> str:
        return self.words.en if self.words else ""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What to change on every side that refuses; `verdict` is the answer with the first option of each side applied."""

    sides: tuple[Side, ...]
    verdict: Verdict

    @property
    def objects(self) -> tuple[Mapping[str, Any], ...]:
        """Everything to apply, each object once, as the last side leaves it."""
        found: dict[tuple[str, str, str, str], Mapping[str, Any]] = {}
        for side in self.sides:
            for raw in side.options[0].objects if side.options else ():
                meta = raw["metadata"]
                found[raw["apiVersion"], raw["kind"], meta.get("namespace", ""), meta["name"]] = raw
        return tuple(found.values())


def suggest(engine: Engine, answer: Answer, limit: int = 3) -> Suggestion | None:
    """The smallest verified change for an answer that is not `allowed`; None when nothing refuses for certain.

    Every path that is refused is opened one after the other, each with what was proposed before it applied.
    """
    sides: list[Side] = []
    changed, after = engine, answer
    tried: set[tuple[str, str, int | None]] = set()
    for _ in range(_MOST_PATHS):
        path = next((p for p in after.paths if p.verdict is Verdict.DENIED and _key(p) not in tried), None)
        if path is None:
            break
        tried.add(_key(path))
        for point in path.points:
            if point.verdict is Verdict.DENIED:
                for side, then in _sides(changed, point, limit):
                    changed = then
                    if side not in sides:
                        sides.append(side)
        after = ask(changed, answer.question, explain=False)
    return Suggestion(tuple(sides), after.verdict) if sides else None


def _key(path: PathAnswer) -> tuple[str, str, int | None]:
    return str(path.source), str(path.destination), path.port


def apply(engine: Engine, cluster: str, objects: Sequence[Mapping[str, Any]], *, plain: bool = False) -> Engine:
    """The engine as it would be with these policy objects added or replaced. Raises Refused.

    `plain`: NetworkPolicy alone decides in this cluster, so that nothing else has to be compiled again.
    """
    family = engine.compiled[cluster]["kubernetes"]
    raw = objects[0]
    words = mentioned(texts_of(objects))
    indexed = not words - engine.index.interest or not words & engine.index.label_keys - engine.index.interest
    native = raw["apiVersion"] == "networking.k8s.io/v1" and len(objects) == 1
    if native and isinstance(family, Kubernetes) and indexed and plain:
        meta = raw["metadata"]
        obj = Object(Ref(cluster, raw["kind"], meta["namespace"], meta["name"]), raw)
        return engine.replacing(cluster, "kubernetes", family.with_policy(obj))
    for each in reversed(objects):  # what the first refers to comes before it
        engine = engine.with_object(cluster, each)
    names = {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects}
    for refusal in engine.refusals:
        ref = refusal.ref
        if refusal.fatal and ref.cluster == cluster and (ref.kind, ref.namespace, ref.name) in names:
            raise Refused(refusal.field, refusal.why)
    return engine


def to_yaml(*objects: Mapping[str, Any]) -> str:
    """The full objects as YAML documents, keys in the order given."""
    import yaml

    return "---\n".join(
        yaml.safe_dump(json.loads(json.dumps(raw)), sort_keys=False, default_flow_style=False) for raw in objects
    )


# --- one enforcing point -------------------------------------------------------------------------------------------


def _sides(engine: Engine, point: PointAnswer, limit: int) -> Iterator[tuple[Side, Engine]]:
    """One side for every layer that refuses, with the engine as its best option leaves it, for the next one."""
    plain = simple(engine, point.cluster)
    names = dict.fromkeys(layer.layer for p in point.points for layer in _refusing(p))
    for name in names:
        points = tuple(engine.decide(p.packet, p.wire, mesh=p.mesh) for p in point.points)
        by = tuple(dict.fromkeys(d for p in points for layer in _refusing(p, name) for d in layer.decision.by))
        if not any(_refusing(p, name) for p in points):
            continue  # what was proposed for another layer opens this one too
        packets = tuple(p.packet if name in MESHES else p.wire or p.packet for p in points)
        wanted = Wanted(engine, name, points, packets, by, [], plain)
        side = _side(wanted, limit)
        if side.options:
            engine = apply(engine, point.cluster, side.options[0].objects, plain=plain)
        yield side, engine


def _refusing(point: PointDecision, name: str = "") -> list[LayerDecision]:
    return [layer for layer in point.layers if layer.decision.verdict is Verdict.DENIED and name in ("", layer.layer)]


def _side(wanted: Wanted, limit: int) -> Side:
    packet, layer = wanted.packet, wanted.layer
    explicit = tuple(d for d in wanted.by if d.effect == "deny" and not d.implicit)
    place = packet.cluster, packet.direction, layer
    if layer == "istio" and istio.strict(wanted):
        return Side(*place, explicit, _options(wanted, limit), istio.honest(wanted))
    if layer == "istio" and packet.direction is Direction.EGRESS:
        explicit = ()  # REGISTRY_ONLY is a list of what is admitted, like isolation
    deliberate = tuple(d for d in explicit if not _overridable(wanted, d.ref))
    if deliberate:
        names = ", ".join(f"{d.ref} {d.pointer}" for d in deliberate)
        words = Words(
            f"refused on purpose by {names}: ask its owner",
            f"{names}에서 의도적으로 거부하므로 담당자에게 문의하십시오",
        )
        return Side(*place, deliberate, (), words)
    options = _options(wanted, limit)
    return Side(*place, () if options else explicit, options, None if options else _reason(wanted, explicit))


def _overridable(wanted: Wanted, ref: Ref) -> bool:
    """A default of the baseline tier, made for NetworkPolicies to override."""
    if ref.kind == "BaselineAdminNetworkPolicy":
        return True
    of_kind = wanted.cluster.of("policy.networking.k8s.io", ref.kind)
    return ref.kind == "ClusterNetworkPolicy" and any(
        o.ref == ref and o.raw.get("spec", {}).get("tier") == "Baseline" for o in of_kind
    )


_TAKES = Words(
    "every change that would let it through takes away traffic that is allowed now",
    "이 트래픽을 허용하는 변경은 모두 지금 허용되는 다른 트래픽을 막습니다",
)


def _reason(wanted: Wanted, explicit: Sequence[Deciding]) -> Words:
    if explicit:
        names = ", ".join(f"{d.ref} {d.pointer}" for d in explicit)
        return Words(
            f"refused on purpose by {names}, a default that a NetworkPolicy could override; but one would isolate the "
            "pod and take away what is allowed now: ask its owner",
            f"{names}에서 의도적으로 거부합니다. NetworkPolicy로 덮어쓸 수 있는 기본값이지만 그러면 Pod가 격리되어 "
            "지금 허용되는 트래픽이 막히므로 담당자에게 문의하십시오",
        )
    if wanted.reasons:
        told = tuple(dict.fromkeys(wanted.reasons))
        return Words("; ".join(w.en for w in told), "; ".join(w.ko for w in told))
    kinds = ", ".join(dict.fromkeys(d.ref.kind for d in wanted.by)) or wanted.layer
    return Words(
        f"no change of the forms tried lets it through ({kinds} refuses)",
        f"시도한 변경 가운데 이 트래픽을 허용하는 것이 없습니다 ({kinds}에서 거부)",
    )


def _options(wanted: Wanted, limit: int) -> tuple[Option, ...]:
    """The offers that hold what they promise, the one that opens least first."""
    engine, cluster = wanted.engine, wanted.packet.cluster
    found: list[Option] = []
    offered = sorted((e for offer in _OFFERS[wanted.layer] for e in offer(wanted)), key=lambda e: e.order)
    seen: list[tuple[Any, ...]] = []
    for edit in offered:
        if edit.objects in seen:
            continue
        seen.append(edit.objects)
        if len([o for o in found if o.cost[:4] == (False, 0, 0, 0)]) >= limit:
            break  # nothing that comes later can be smaller
        try:
            after = apply(engine, cluster, edit.objects, plain=wanted.plain)
        except Refused:
            continue
        if not all(_passes(after, before, wanted.layer) for before in wanted.points):
            continue
        census = opened(engine, after, wanted, edit)
        if census is None:
            wanted.reasons.append(_TAKES)
        else:
            found.append(_option(edit, census))
    return tuple(sorted(found, key=lambda option: option.cost)[:limit])


def _option(edit: Edit, census: Opened) -> Option:
    return Option(
        edit.objects,
        edit.new,
        edit.text,
        census.pairs,
        census.addresses,
        census.layer,
        edit.order,
        tuple(census.examples),
        census.exact,
    )


def _passes(after: Engine, before: PointDecision, layer: str) -> bool:
    """The layer admits it now, and no other layer is worse off."""
    point = after.decide(before.packet, before.wire, mesh=before.mesh)
    was = {each.layer: each.decision.verdict for each in before.layers}
    for each in point.layers:
        unchanged = each.layer != layer and each.decision.verdict is was.get(each.layer, Verdict.ALLOWED)
        if each.decision.verdict is not Verdict.ALLOWED and not unchanged:
            return False
    return True
