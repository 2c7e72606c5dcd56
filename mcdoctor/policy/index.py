"""Pods that no policy can tell apart are one class; selectors become bitsets over classes.

Classes are numbered cluster by cluster, namespace by namespace, so a namespace is a contiguous range and a bitset of
its
classes can be kept small by leaving out everything below it (`Room.base`). A bitset is a plain int: bit n = class n.

Label keys that no policy object mentions anywhere in its text are left out of the class: nothing can select by them.
"""

from __future__ import annotations

import copy
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from mcdoctor.policy.addresses import Block, cut, host_block, parse_block, parse_ip
from mcdoctor.policy.selectors import DOES_NOT_EXIST, EXISTS, IN, Requirement, Selector, holds
from mcdoctor.policy.world import METADATA_NAME, ContainerPort, Labels, Mesh, Namespace, Pod, World

_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_ADDRESS = re.compile(r"(?=.*[.:])[0-9A-Fa-f:.]+(/[0-9]{1,3})?\Z")
_SOURCES = ("k8s.", "any.")  # Cilium also writes `k8s.app` for `k8s:app`


# A smallest change selects by these even where no policy did so far.
_IDENTITY = ("app", "app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/instance", "k8s-app")


def texts_of(objects: Iterable[Mapping[str, Any]]) -> set[str]:
    """Every string in these objects, keys of maps included."""
    strings: set[str] = set()
    pending: list[Any] = list(objects)
    while pending:
        value = pending.pop()
        kind = type(value)
        if kind is dict:
            strings.update(key for key in value if type(key) is str)
            pending.extend(value.values())
        elif kind is list:
            pending.extend(value)
        elif kind is str:
            strings.add(value)
    return strings


def mentioned(strings: Iterable[str]) -> set[str]:
    """Every word of these strings that could be a label key."""
    words: set[str] = set()
    for string in strings:
        for word in _TOKEN.findall(string):
            words.add(word)
            if word.startswith(_SOURCES):
                words.add(word.partition(".")[2])
    return words


_Cells: TypeAlias = tuple[tuple[int, int], ...]
_Pairs: TypeAlias = tuple[tuple[str, str], ...]
_Key: TypeAlias = tuple[_Pairs, tuple[ContainerPort, ...], bool, str, frozenset[Mesh], _Cells, _Pairs]
_STEERING = ("config.linkerd.io/", "traffic.sidecar.istio.io/")
"""Annotations of meshed pods that change what their proxy enforces."""


def _steering(pod: Pod) -> _Pairs:
    if not pod.mesh:
        return ()
    return tuple(sorted(item for item in pod.annotations.items() if item[0].startswith(_STEERING)))


@dataclass(frozen=True, slots=True, eq=False)
class PodClass:
    """Pods alike in everything that policies can see. `labels`: only keys some policy mentions."""

    number: int
    cluster: str
    namespace: str
    labels: Labels
    host_network: bool
    service_account: str
    mesh: frozenset[Mesh]
    pods: tuple[Pod, ...]
    cells: tuple[tuple[int, int], ...]
    """Where their addresses lie among the blocks that policies name: (IP version, number of the range)."""


@dataclass(slots=True, eq=False)
class Room:
    """One namespace's classes `base .. base+count-1` with an inverted index; its bitsets are relative to `base`."""

    namespace: Namespace
    base: int
    count: int = 0
    host_network: int = 0
    labels: dict[tuple[str, str], int] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    selected: dict[Selector, int] = field(default_factory=dict)

    @property
    def everything(self) -> int:
        return (1 << self.count) - 1

    def select(self, selector: Selector) -> int:
        """The classes of this namespace that `selector` matches (host-network pods included), relative to `base`."""
        found = self.selected.get(selector)
        if found is None:
            found = self.everything
            for requirement in selector:
                found &= self._holding(requirement)
                if not found:
                    break
            self.selected[selector] = found
        return found

    def _holding(self, requirement: Requirement) -> int:
        key = requirement.key
        if requirement.operator == EXISTS:
            return self.keys.get(key, 0)
        if requirement.operator == DOES_NOT_EXIST:
            return self.everything & ~self.keys.get(key, 0)
        found = 0
        for value in requirement.values:
            found |= self.labels.get((key, value), 0)
        return found if requirement.operator == IN else self.everything & ~found


@dataclass(frozen=True, slots=True)
class Chosen:
    """Classes selected: `bits` surely, `maybe` where a namespace's labels are not known (disjoint from `bits`)."""

    bits: int
    maybe: int = 0


class Index:
    """Classes of a world and the bitsets of label selectors over them. Built once, then read only (its memos grow)."""

    def __init__(self, world: World, policies: Iterable[Mapping[str, Any]]) -> None:
        """`policies`: the raw objects that select pods, of all clusters and families."""
        self.world = world
        strings = texts_of(policies)
        self.interest = mentioned(strings) | set(_IDENTITY)
        if any(pod.mesh for pod in world.pods()):  # what a proxy takes a port for follows from the Services on it
            self.interest.update(k for c in world.clusters.values() for s in c.services.values() for k in s.selector)
        blocks = [block for block in map(_block, strings) if block is not None]
        self.atoms = {version: cut(version, blocks) for version in (4, 6)}
        self.classes: list[PodClass] = []
        self.class_of: dict[Pod, int] = {}
        self.rooms: dict[tuple[str, str], Room] = {}
        self.spans: dict[str, range] = {}
        self._numbers: dict[tuple[str, str], list[int]] = {}
        self._having: dict[str, list[int]] = {}
        self._bits: dict[object, int] = {}
        self._namespace_bits: dict[tuple[str, Selector], Chosen] = {}
        self._pod_bits: dict[tuple[str, Selector], int] = {}
        self._host_network: list[int] = []
        self._in_cell: dict[tuple[int, int], list[int]] = {}
        self._build()

    def _build(self) -> None:
        interest = self.interest
        starts = {version: atoms.starts for version, atoms in self.atoms.items()}
        for cluster in self.world.clusters.values():
            start = len(self.classes)
            by_namespace: dict[str, dict[_Key, list[Pod]]] = {name: {} for name in sorted(cluster.namespaces)}
            for pod in cluster.pods.values():
                kept = [item for item in pod.labels.items() if item[0] in interest]
                if len(kept) > 1:
                    kept.sort()
                cells = tuple([(ip.version, bisect_right(starts[ip.version], ip.value) - 1) for ip in pod.ips])
                key = (
                    tuple(kept),
                    pod.ports,
                    pod.host_network,
                    pod.service_account,
                    pod.mesh,
                    cells,
                    _steering(pod),
                )
                by_namespace[pod.namespace].setdefault(key, []).append(pod)
            for name, groups in by_namespace.items():
                room = Room(cluster.namespaces[name], len(self.classes), len(groups))
                self.rooms[cluster.name, name] = room
                for local, (key, pods) in enumerate(groups.items()):
                    number = room.base + local
                    bit = 1 << local
                    first = pods[0]
                    labels = dict(key[0])
                    self.classes.append(
                        PodClass(
                            number,
                            cluster.name,
                            name,
                            labels,
                            first.host_network,
                            first.service_account,
                            first.mesh,
                            tuple(pods),
                            key[5],
                        )
                    )
                    for pod in pods:
                        self.class_of[pod] = number
                    if first.host_network:
                        room.host_network |= bit
                        self._host_network.append(number)
                    for cell in key[5]:
                        self._in_cell.setdefault(cell, []).append(number)
                    for item in labels.items():
                        room.labels[item] = room.labels.get(item, 0) | bit
                        room.keys[item[0]] = room.keys.get(item[0], 0) | bit
                        self._numbers.setdefault(item, []).append(number)
                        self._having.setdefault(item[0], []).append(number)
            self.spans[cluster.name] = range(start, len(self.classes))

    @cached_property
    def label_keys(self) -> frozenset[str]:
        """Every label key that some pod carries, mentioned by a policy or not."""
        return frozenset(key for pod in self.class_of for key in pod.labels)

    @cached_property
    def meshes(self) -> Mapping[str, frozenset[Mesh]]:
        """How pods of each cluster are captured by meshes."""
        return {
            name: frozenset(mesh for number in span for mesh in self.classes[number].mesh)
            for name, span in self.spans.items()
        }

    def over(self, world: World) -> Index:
        """The same classes over a world that differs in policy objects only."""
        other = copy.copy(self)
        other.world = world
        return other

    # Atoms: bitsets over all classes of all clusters, host-network pods included.

    def bits_of(self, numbers: Iterable[int]) -> int:
        """The bitset of these class numbers, in one pass (shifting bit by bit would copy it every time)."""
        mask = bytearray(len(self.classes) // 8 + 1)
        for number in numbers:
            mask[number >> 3] |= 1 << (number & 7)
        return int.from_bytes(mask, "little")

    def _remembered(self, key: object, numbers: Iterable[int]) -> int:
        found = self._bits.get(key)
        if found is None:
            found = self._bits[key] = self.bits_of(numbers)
        return found

    @cached_property
    def port_numbers(self) -> Mapping[str, frozenset[int]]:
        """Names of container ports -> the numbers that any pod has for them."""
        found: dict[str, set[int]] = {}
        for each in self.classes:
            for port in each.pods[0].ports:
                found.setdefault(port.name, set()).add(port.port)
        return {name: frozenset(numbers) for name, numbers in found.items() if name}

    def members(self, bits: int) -> Iterator[PodClass]:
        """The classes in a bitset."""
        while bits:
            low = bits & -bits
            yield self.classes[low.bit_length() - 1]
            bits ^= low

    def everything(self) -> int:
        return (1 << len(self.classes)) - 1

    def cluster(self, name: str) -> int:
        span = self.spans.get(name, range(0))
        return ((1 << len(span)) - 1) << span.start

    def namespace(self, cluster: str, name: str) -> int:
        room = self.rooms.get((cluster, name))
        return room.everything << room.base if room else 0

    def label(self, key: str, value: str) -> int:
        """Classes whose pods carry this label, in all clusters."""
        return self._remembered((key, value), self._numbers.get((key, value), ()))

    def has(self, key: str) -> int:
        return self._remembered(key, self._having.get(key, ()))

    def within(self, block: Block) -> int:
        """Classes with an address in a block that some policy names (so that no class lies across its edge)."""
        found = self._bits.get(block)
        if found is None:
            ranges = self.atoms[block.version].within(block)
            cells = [cell for cell in self._in_cell if cell[0] == block.version and cell[1] in ranges]
            found = self._remembered(block, (number for cell in cells for number in self._in_cell[cell]))
        return found

    def with_port(self, name: str, protocol: str, port: int) -> int:
        """Classes whose pods have a container port of this name, protocol and number."""
        key = ("port", name, protocol, port)
        found = self._bits.get(key)
        if found is None:
            numbers = (
                c.number for c in self.classes if any(p.port == port for p in c.pods[0].named_ports(name, protocol))
            )
            found = self._remembered(key, numbers)
        return found

    def host_network(self) -> int:
        return self._remembered(("host network",), self._host_network)

    # Label selectors.

    def pods(self, cluster: str, selector: Selector) -> int:
        """Classes of one cluster, in all its namespaces, that a pod selector matches (host-network pods included)."""
        found = self._pod_bits.get((cluster, selector))
        if found is None:
            found = self.cluster(cluster)
            for requirement in selector:
                if requirement.operator in (EXISTS, DOES_NOT_EXIST):
                    holding = self.has(requirement.key)
                else:
                    holding = 0
                    for value in requirement.values:
                        holding |= self.label(requirement.key, value)
                found &= holding if requirement.operator in (EXISTS, IN) else ~holding
            self._pod_bits[cluster, selector] = found
        return found

    def in_namespaces(self, cluster: str, selector: Selector) -> Chosen:
        """Classes of the cluster's namespaces that a namespace selector matches."""
        found = self._namespace_bits.get((cluster, selector))
        if found is None:
            surely: list[range] = []
            perhaps: list[range] = []
            for name, namespace in self.world.clusters[cluster].namespaces.items():
                room = self.rooms[cluster, name]
                if room.count:
                    match = namespace_matches(selector, namespace)
                    if match is not False:
                        (surely if match else perhaps).append(range(room.base, room.base + room.count))
            found = Chosen(
                self.bits_of(n for span in surely for n in span), self.bits_of(n for span in perhaps for n in span)
            )
            self._namespace_bits[cluster, selector] = found
        return found


def _block(text: str) -> Block | None:
    """A CIDR, or a single address: meshes and Calico's sets name those too."""
    if not _ADDRESS.match(text):
        return None
    try:
        return parse_block(text) if "/" in text else host_block(parse_ip(text))
    except ValueError:
        return None


def namespace_matches(selector: Selector, namespace: Namespace) -> bool | None:
    """None when it hangs on labels of a namespace whose object was not given."""
    if namespace.known:
        return all(holds(requirement, namespace.labels) for requirement in selector)
    open_ = False
    for requirement in selector:
        if requirement.key != METADATA_NAME:
            open_ = True
        elif not holds(requirement, namespace.labels):
            return False
    return None if open_ else True
