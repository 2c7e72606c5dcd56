"""The engine: a world compiled once, questions answered many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mcdoctor.policy.families import FAMILIES
from mcdoctor.policy.family import Compiled, Family
from mcdoctor.policy.index import Index, mentioned, texts_of
from mcdoctor.policy.layers import PointDecision, decide
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Ref, Refusal
from mcdoctor.policy.world import ClusterInput, Object, World, build


@dataclass(frozen=True, eq=False)
class Engine:
    """`compiled[cluster][family]`. Use `load`; then `path.ask` for questions, `decide` for one packet at one point."""

    world: World
    index: Index
    compiled: Mapping[str, Mapping[str, Compiled]]
    families: tuple[Family, ...] = FAMILIES

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Every object that does not count, of all clusters and families."""
        of_families = (r for families in self.compiled.values() for each in families.values() for r in each.refusals)
        return (*self.world.refusals, *of_families)

    def replacing(self, cluster: str, name: str, compiled: Compiled) -> Engine:
        """The engine with one family of one cluster replaced, and what was compiled on top of it compiled again."""
        families = dict(self.compiled[cluster])
        families[name] = compiled
        systems = self.world.clusters[cluster].datapath.systems
        for family in self.families:
            if name == "kubernetes" and family.name in systems and family.name != name:
                families[family.name] = family.compile(self.index, cluster, families)
        return Engine(self.world, self.index, {**self.compiled, cluster: families}, self.families)

    def with_object(self, cluster: str, raw: Mapping[str, Any]) -> Engine:
        """The engine as it would be with one policy object added or replaced; what is not touched is kept.

        An object that would be refused is in `refusals` and changes nothing but what it replaces.
        """
        here = self.world.clusters[cluster]
        meta = raw["metadata"]
        group = str(raw["apiVersion"]).rpartition("/")[0]
        ref = Ref(cluster, raw["kind"], meta.get("namespace", ""), meta["name"])
        kind = (group, ref.kind)
        kept = [o for o in here.of(*kind) if (o.ref.namespace, o.ref.name) != (ref.namespace, ref.name)]
        objects = {**here.objects, kind: (*kept, Object(ref, raw))}
        world = World({**self.world.clusters, cluster: replace(here, objects=objects)}, self.world.refusals)
        elsewhere = not any(kind in family.kinds for family in self.families)  # read from the world as it is needed
        if elsewhere or mentioned(texts_of([raw])) & self.index.label_keys - self.index.interest:
            return compile_world(world, self.families)
        index = self.index.over(world)
        families = dict(self.compiled[cluster])
        touched = False
        for family in self.families:
            touched = touched or kind in family.kinds
            if touched:
                families[family.name] = family.compile(index, cluster, families)
        return Engine(world, index, {**self.compiled, cluster: families}, self.families)

    @cached_property
    def refusals_by_namespace(self) -> Mapping[tuple[str, str], tuple[Refusal, ...]]:
        """`refusals` by (cluster, namespace)."""
        found: dict[tuple[str, str], list[Refusal]] = {}
        for refusal in self.refusals:
            found.setdefault((refusal.ref.cluster, refusal.ref.namespace), []).append(refusal)
        return {place: tuple(listed) for place, listed in found.items()}

    def decide(self, packet: Packet, wire: Packet | None = None, *, mesh: bool = True) -> PointDecision:
        """What one enforcing point says: the policies of `packet.cluster` in `packet.direction`.

        `wire`: what the network layers see instead, where a mesh encapsulates. `mesh` False: network layers only.
        """
        datapath = self.world.clusters[packet.cluster].datapath
        return decide(self.compiled[packet.cluster], packet, datapath, wire, mesh=mesh)


def compile_world(world: World, families: Sequence[Family] = FAMILIES) -> Engine:
    kinds = {kind for family in families for kind in family.kinds}
    policies = [obj.raw for cluster in world.clusters.values() for kind in kinds for obj in cluster.of(*kind)]
    index = Index(world, policies)
    compiled: dict[str, dict[str, Compiled]] = {}
    for name in world.clusters:
        done: dict[str, Compiled] = {}
        for family in families:
            done[family.name] = family.compile(index, name, done)
        compiled[name] = done
    return Engine(world, index, compiled, tuple(families))


def load(clusters: Sequence[ClusterInput], families: Sequence[Family] = FAMILIES) -> Engine:
    """The engine for these clusters' raw objects."""
    return compile_world(build(clusters), families)
