"""Applying what a near miss names, to objects built anew: none of the engine's short cuts is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from policy_build import one

from mcdoctor.policy.engine import Engine
from mcdoctor.policy.near import NearMiss, applied
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Decision, Ref
from mcdoctor.policy.world import End, Pod

Raw = dict[str, Any]


def key(raw: Raw) -> Ref:
    meta = raw["metadata"]
    return Ref("a", raw["kind"], meta.get("namespace", ""), meta["name"])


def moved(end: End, engine: Engine) -> End:
    return engine.world.clusters["a"].pods[end.namespace, end.name] if isinstance(end, Pod) else end


def with_changes(objects: list[Raw], cni: str, miss: NearMiss) -> Engine:
    """The world with the changes of a near miss; none of the objects changed may be refused."""
    changed: dict[Ref, Any] = {}
    for change in miss.changes:
        same = [o for o in objects if key(o) == change.ref]
        before = changed.get(change.ref, same[0] if same else None)
        changed[change.ref] = applied(before, [change])
    engine = one(*[o for o in objects if key(o) not in changed], *changed.values(), cni=cni)
    assert not [r for r in engine.refusals if r.ref in changed and r.fatal], (miss, engine.refusals)
    return engine


def decided(engine: Engine, packet: Packet, layers: set[str], miss: NearMiss) -> list[Decision]:
    """What these layers say in that world to the packet as the near miss would have it."""
    ends = {"source": moved(packet.source, engine), "destination": moved(packet.destination, engine)}
    again = replace(packet, **ends, **miss.traffic)
    return [layer.decision for layer in engine.decide(again).layers if layer.layer in layers]


def resolves(raw: Any, pointer: str) -> bool:
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        try:
            raw = raw[int(name)] if isinstance(raw, list) else raw[name]
        except (KeyError, IndexError, ValueError):
            return False
    return True
