"""All pairs of pods of one cluster for one port: who may reach whom, as rectangles (these sources × those).

Pods with the same policies form a profile; an egress and an ingress profile meet in one rectangle, so no pair is ever
looked at by itself. Where kinds other than NetworkPolicy are present each pair of classes is asked in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mcdoctor.policy.engine import Engine
from mcdoctor.policy.families import FAMILIES
from mcdoctor.policy.index import Chosen, PodClass
from mcdoctor.policy.kubernetes import Kubernetes
from mcdoctor.policy.verdict import Direction, Verdict
from mcdoctor.policy.world import Mesh, Pod

MOST_PAIRS = 400_000


class TooLarge(ValueError):
    """More pairs of classes than can be asked one by one; the message says how to narrow it down."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Every one of `sources` has `verdict` to every one of `destinations`: bitsets over pods (`Matrix.pods`)."""

    sources: int
    destinations: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """`pods`: in the order of the bitsets' bits. Host-network pods are left out: they count as their node.

    Rectangles of one verdict do not overlap; pairs in none of them are denied.
    """

    protocol: str
    port: int
    pods: tuple[Pod, ...]
    rectangles: tuple[Rectangle, ...]

    @property
    def total(self) -> int:
        """Ordered pairs of different pods."""
        return len(self.pods) * (len(self.pods) - 1)

    def count(self, verdict: Verdict) -> int:
        """Ordered pairs of different pods with this verdict."""
        if verdict is Verdict.DENIED:
            return self.total - sum(self.count(v) for v in Verdict if v is not Verdict.DENIED)
        return sum(
            r.sources.bit_count() * r.destinations.bit_count() - (r.sources & r.destinations).bit_count()
            for r in self.rectangles
            if r.verdict is verdict
        )

    def cells(self) -> dict[tuple[str, str], dict[Verdict, int]]:
        """(source workload, destination workload) -> pairs by verdict; a workload is `namespace/name`."""
        masks: dict[str, int] = {}
        for number, pod in enumerate(self.pods):
            name = workload(pod)
            masks[name] = masks.get(name, 0) | 1 << number
        found: dict[tuple[str, str], dict[Verdict, int]] = {}
        for rectangle in self.rectangles:
            across = [(n, m) for n, mask in masks.items() if (m := mask & rectangle.destinations)]
            for source, mask in masks.items():
                here = mask & rectangle.sources
                if here:
                    for destination, there in across:
                        pairs = here.bit_count() * there.bit_count() - (here & there).bit_count()
                        if pairs:
                            cell = found.setdefault((source, destination), {})
                            cell[rectangle.verdict] = cell.get(rectangle.verdict, 0) + pairs
        for source, mask in masks.items():
            for destination, other in masks.items():
                total = mask.bit_count() * other.bit_count() - (mask & other).bit_count()
                cell = found.setdefault((source, destination), {})
                denied = total - sum(cell.values())
                if denied:
                    cell[Verdict.DENIED] = denied
                if not total:
                    del found[source, destination]
        return found

    def verdict(self, source: Pod, destination: Pod) -> Verdict:
        here, there = 1 << self.pods.index(source), 1 << self.pods.index(destination)
        for rectangle in self.rectangles:
            if rectangle.sources & here and rectangle.destinations & there:
                return rectangle.verdict
        return Verdict.DENIED


def workload(pod: Pod) -> str:
    return f"{pod.namespace}/{pod.owner[1] or pod.name}"


@dataclass(frozen=True, slots=True)
class _Pods:
    """Classes as ranges of pod numbers."""

    starts: Mapping[int, int]
    sizes: Mapping[int, int]
    memo: dict[int, int]

    def of(self, classes: int) -> int:
        """A bitset over classes as one over pods; runs of neighbouring classes are copied whole."""
        found = self.memo.get(classes)
        if found is not None:
            return found
        result, bits, shift = 0, classes, 0
        while bits:
            low = (bits & -bits).bit_length() - 1
            bits >>= low
            shift += low
            gap = ~bits
            run = (gap & -gap).bit_length() - 1
            first = self.starts.get(shift)
            if first is not None:
                last = shift + run - 1
                result |= ((1 << (self.starts[last] + self.sizes[last] - first)) - 1) << first
            bits >>= run
            shift += run
        self.memo[classes] = result
        return result


def simple(engine: Engine, cluster: str) -> bool:
    """Only NetworkPolicy decides in this cluster: every other family has no policy there, no mesh encapsulates."""
    world = engine.world.clusters[cluster]
    wrapping = {Mesh.ISTIO_AMBIENT, Mesh.LINKERD}
    if world.unseen or engine.index.meshes[cluster] & wrapping:
        return False
    return not any(
        world.of(*kind) for family in FAMILIES if family.name != "kubernetes" for kind in family.kinds if kind[0]
    )


def all_pairs(
    engine: Engine, cluster: str, port: int, protocol: str = "TCP", namespaces: frozenset[str] = frozenset()
) -> Matrix:
    """Every pair of pods of one cluster (of `namespaces` when given), both directions decided. Raises TooLarge."""
    index = engine.index
    classes = [
        index.classes[number]
        for number in index.spans[cluster]
        if not index.classes[number].host_network and (not namespaces or index.classes[number].namespace in namespaces)
    ]
    pods: list[Pod] = []
    starts: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for each in classes:
        starts[each.number] = len(pods)
        sizes[each.number] = len(each.pods)
        pods.extend(each.pods)
    # Runs of class numbers must be runs of pod numbers: classes left out get an empty range where they stand.
    at = 0
    for number in index.spans[cluster]:
        if number in starts:
            at = starts[number] + sizes[number]
        else:
            starts[number], sizes[number] = at, 0
    numbering = _Pods(starts, sizes, {})
    kubernetes = engine.compiled[cluster].get("kubernetes")
    if isinstance(kubernetes, Kubernetes) and simple(engine, cluster):
        rectangles = _by_profile(kubernetes, classes, numbering, protocol, port)
    else:
        rectangles = _one_by_one(engine, classes, numbering, protocol, port)
    return Matrix(protocol, port, tuple(pods), tuple(rectangles))


@dataclass(frozen=True, slots=True)
class _Profile:
    """Members, and whom they may exchange traffic with: surely, and surely or perhaps. Bitsets over pods."""

    members: int
    surely: int
    perhaps: int


def _profiles(
    family: Kubernetes, classes: list[PodClass], numbering: _Pods, direction: Direction, protocol: str, port: int
) -> list[_Profile]:
    grouped: dict[tuple[object, ...], list[PodClass]] = {}
    selected = family.selected[direction] if family.datapath.enforces_network_policy else {}
    for each in classes:
        policies = selected.get(each.number)
        key: tuple[object, ...] = () if policies is None else (*map(id, policies),)
        if policies is not None and direction is Direction.INGRESS:
            key = (each.pods[0].ports, *key)  # names of ports are looked up on the subject
        grouped.setdefault(key, []).append(each)
    everybody = numbering.of(family.index.bits_of(c.number for c in classes))
    found = []
    for members in grouped.values():
        whole = numbering.of(family.index.bits_of(c.number for c in members))
        policies = selected.get(members[0].number)
        if policies is None:
            found.append(_Profile(whole, everybody, everybody))
        else:
            reach: Chosen = family.union(policies, members[0].number, direction, protocol, port)
            surely = numbering.of(reach.bits) & everybody
            maybe = numbering.of(reach.maybe) & everybody if reach.maybe else 0
            found.append(_Profile(whole, surely, surely | maybe))
    return found


def _by_profile(
    family: Kubernetes, classes: list[PodClass], numbering: _Pods, protocol: str, port: int
) -> Iterator[Rectangle]:
    outgoing = _profiles(family, classes, numbering, Direction.EGRESS, protocol, port)
    incoming = _profiles(family, classes, numbering, Direction.INGRESS, protocol, port)
    for e in outgoing:
        members, reach, perhaps = e.members, e.surely, e.perhaps
        for i in incoming:
            sources = members & i.surely
            if sources:
                destinations = i.members & reach
                if destinations:
                    yield Rectangle(sources, destinations, Verdict.ALLOWED)
            if i.perhaps != i.surely or perhaps != reach:
                yield from _open(e, i)


def _open(e: _Profile, i: _Profile) -> Iterator[Rectangle]:
    """What may but need not be allowed: the possible rectangle without the sure one, as two that do not overlap."""
    sources, destinations = e.members & i.perhaps, i.members & e.perhaps
    if not sources or not destinations:
        return
    sure_sources, sure_destinations = sources & i.surely, destinations & e.surely
    if sources & ~sure_sources:
        yield Rectangle(sources & ~sure_sources, destinations, Verdict.UNKNOWN)
    if sure_sources and destinations & ~sure_destinations:
        yield Rectangle(sure_sources, destinations & ~sure_destinations, Verdict.UNKNOWN)


def _one_by_one(
    engine: Engine, classes: list[PodClass], numbering: _Pods, protocol: str, port: int
) -> Iterator[Rectangle]:
    from mcdoctor.policy.path import ask
    from mcdoctor.policy.question import PodName, Question

    if len(classes) ** 2 > MOST_PAIRS:
        raise TooLarge(
            f"{len(classes)} kinds of pods make {len(classes) ** 2} pairs, and policies other than NetworkPolicy have "
            f"to be asked pair by pair (at most {MOST_PAIRS}): name namespaces"
        )
    for source in classes:
        by_verdict: dict[Verdict, int] = {}
        for destination in classes:
            first = source.pods[0]
            last = destination.pods[-1] if source is destination else destination.pods[0]
            if first is last:
                continue
            question = Question(
                PodName(first.namespace, first.name, first.cluster),
                PodName(last.namespace, last.name, last.cluster),
                port,
                protocol,
            )
            verdict = ask(engine, question, explain=False).verdict
            by_verdict[verdict] = by_verdict.get(verdict, 0) | numbering.of(1 << destination.number)
        for verdict, destinations in by_verdict.items():
            if verdict is not Verdict.DENIED:
                yield Rectangle(numbering.of(1 << source.number), destinations, verdict)


@dataclass(frozen=True, slots=True)
class Change:
    """Pairs of workloads whose verdict differs between two matrices, with how many pairs of pods have each verdict."""

    source: str
    destination: str
    before: Mapping[Verdict, int]
    after: Mapping[Verdict, int]


def changes(before: Matrix, after: Matrix) -> list[Change]:
    """What another set of policies would change, pair of workloads by pair of workloads."""
    old, new = before.cells(), after.cells()
    return [
        Change(*pair, old.get(pair, {}), new.get(pair, {}))
        for pair in sorted({*old, *new})
        if old.get(pair, {}) != new.get(pair, {})
    ]
