"""What an edit is, what it is asked for, and what all families need to write one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcdoctor.policy.addresses import Ip, host_block, parse_block
from mcdoctor.policy.engine import Engine
from mcdoctor.policy.layers import PointDecision
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import Deciding, Direction, Ref
from mcdoctor.policy.world import Cluster, DomainName, End, Node, Object, Pod

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
_SERVER_FIELDS = ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields", "selfLink")

# How large a change is, smallest first; another kind than the one that refuses comes after all of these.
ITEM, PORT, RULE, POLICY, FOREIGN = 0, 1, 2, 3, 10

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Words:
    """One sentence in English and in Korean; it reads as English."""

    en: str
    ko: str

    def __str__(self) -> str:
        return self.en


@dataclass(frozen=True, slots=True)
class Edit:
    """Full objects to apply, the one that admits first. `order`: its size, for ranking what opens as much.

    `reuses`: the edit lends a port to a rule that was there, whose other peers get it as well.
    """

    objects: tuple[Raw, ...]
    new: bool
    text: Words
    order: int
    reuses: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What is to get through: the enforcing point by reading, and each packet as the refusing layer sees it.

    `plain`: NetworkPolicy alone decides in this cluster. `by`: what refuses there. `reasons`: why a family offers
    nothing, filled while it tries.
    """

    engine: Engine
    layer: str
    points: tuple[PointDecision, ...]
    packets: tuple[Packet, ...]
    by: tuple[Deciding, ...]
    reasons: list[Words]
    plain: bool = False

    @property
    def packet(self) -> Packet:
        return self.packets[0]

    @property
    def cluster(self) -> Cluster:
        return self.engine.world.clusters[self.packet.cluster]

    @property
    def ingress(self) -> bool:
        return self.packet.direction is Direction.INGRESS

    @property
    def traffic(self) -> str:
        """Protocol and port in words."""
        packet = self.packet
        if packet.icmp is not None and packet.icmp.type is not None:
            return f"ICMP type {packet.icmp.type}"
        return f"{packet.protocol} {packet.port}" if packet.port is not None else packet.protocol

    def holding(self, groups: Iterable[str], kinds: Iterable[str]) -> Iterator[Object]:
        """The objects of these groups and kinds that refuse by not admitting, each once."""
        wanted = {d.ref for d in self.by}
        for kind in kinds:
            for group in groups:
                yield from (obj for obj in self.cluster.of(group, kind) if obj.ref in wanted)


def cleaned(obj: Object) -> Raw:
    """The raw object, deep, without what the server adds."""
    raw: Raw = copy.deepcopy(dict(obj.raw))
    meta = raw["metadata"]
    for name in _SERVER_FIELDS:
        meta.pop(name, None)
    if obj.ref.namespace:
        meta.setdefault("namespace", obj.ref.namespace)
    annotations = meta.get("annotations")
    if isinstance(annotations, dict):
        annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
        if not annotations:
            del meta["annotations"]
    raw.pop("status", None)
    return raw


def edited(obj: Object, change: Callable[[Raw], object]) -> Raw | None:
    """A cleaned copy with `change` made to it; None where the object has not the form that the change expects."""
    raw = cleaned(obj)
    try:
        return raw if change(raw) is not False else None
    except (KeyError, TypeError, AttributeError, IndexError):
        return None


def spec_of(obj: Object) -> Mapping[str, Any]:
    """The spec, empty where there is none."""
    spec = obj.raw.get("spec")
    return spec if isinstance(spec, dict) else {}


def new_object(version: str, kind: str, namespace: str, name: str, spec: Raw) -> Raw:
    return {"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace, "name": name}, "spec": spec}


def stable_labels(pod: Pod) -> dict[str, str]:
    return {key: value for key, value in pod.labels.items() if key not in _FLEETING}


def identity(engine: Engine, pod: Pod, usable: Callable[[str], bool] = lambda _: True) -> dict[str, str]:
    """The fewest stable labels that select as few other workloads' pods of the namespace as all of them together do."""
    labels = {key: value for key, value in stable_labels(pod).items() if usable(key)}
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
    found = _fewest(chosen, lambda pairs: selected(pairs) == best)
    strangers = [
        other for each in engine.index.members(best << room.base) for other in each.pods if not _mates(pod, other)
    ]
    return found | _apart(labels, strangers) if strangers else found


def _fewest(labels: Mapping[str, str], enough: Callable[[Mapping[str, str]], bool]) -> dict[str, str]:
    """One label, or two, or all of them."""
    preferred = ("app", "app.kubernetes.io/name", "k8s-app")
    keys = sorted(labels, key=lambda key: (preferred.index(key) if key in preferred else len(preferred), key))
    for key in keys:
        if enough({key: labels[key]}):
            return {key: labels[key]}
    for number, key in enumerate(keys):
        for other in keys[number + 1 :]:
            if enough({key: labels[key], other: labels[other]}):
                return {key: labels[key], other: labels[other]}
    return dict(labels)


def _mates(pod: Pod, other: Pod) -> bool:
    return pod is other or (pod.owner[1] != "" and pod.owner == other.owner)


def _apart(labels: Mapping[str, str], strangers: Sequence[Pod]) -> dict[str, str]:
    """Labels that no policy mentions so far, but which keep pods of other workloads out."""
    found: dict[str, str] = {}
    left = list(strangers)
    while left:
        without = {key: sum(p.labels.get(key) != value for p in left) for key, value in labels.items()}
        key = max(sorted(without), key=lambda k: without[k])
        if not without[key]:
            break
        found[key] = labels[key]
        left = [p for p in left if p.labels.get(key) == labels[key]]
    return found


def workload(pod: Pod) -> str:
    return pod.owner[1] or pod.name


def names(wanted: Wanted, namespace: str, *kinds: tuple[str, str]) -> set[str]:
    """The names that objects of these (group, kind) have in a namespace."""
    return {o.ref.name for kind in kinds for o in wanted.cluster.of(*kind) if o.ref.namespace == namespace}


def free_name(wanted: Wanted, taken: Collection[str], prefix: str = "") -> str:
    """A name for a new object that is not taken."""
    subject, peer = wanted.packet.subject, wanted.packet.client or wanted.packet.peer
    own = workload(subject) if isinstance(subject, Pod) else "node"
    other = workload(peer) if isinstance(peer, Pod) else "node" if isinstance(peer, Node) else "address"
    if isinstance(peer, DomainName):
        other = "name"
    stem = f"{prefix}allow-{own}-{'from' if wanted.ingress else 'to'}-{other}"[:60].rstrip("-.")
    return next(n for n in (stem, *(f"{stem[:57]}-{i}" for i in range(2, 1000))) if n not in taken)


def addresses(wanted: Wanted) -> list[Ip]:
    """Every address of the far end in any reading."""
    found: dict[Ip, None] = {}
    for packet in wanted.packets:
        found |= dict.fromkeys(packet.ips(packet.peer))
    return list(found)


def blocks(wanted: Wanted) -> tuple[list[str], list[str]]:
    """The far end as CIDRs: exactly, and as the pod CIDRs of the other cluster's nodes, which stay when pods move."""
    ips = addresses(wanted)
    exact = [str(host_block(ip)) for ip in ips]
    packet = wanted.packet
    client = packet.client
    wider: list[str] = []
    for cluster in wanted.engine.world.clusters.values():
        if cluster.name == packet.cluster or (client is not None and cluster.name != client.cluster and not wider):
            continue
        for node in cluster.nodes.values():
            for cidr in node.pod_cidrs:
                try:
                    block = parse_block(cidr)
                except ValueError:
                    continue
                if any(ip in block for ip in ips) and cidr not in wider:
                    wider.append(cidr)
    return exact, wider


def local_pod(wanted: Wanted, end: End) -> Pod | None:
    """The far end where selectors of this cluster can mean it."""
    if isinstance(end, Pod) and end.cluster == wanted.packet.cluster and not end.host_network:
        return end
    return None


def unnamed(kind: str, end: End) -> Words:
    return Words(f"a {kind} cannot name {end}", f"{kind}로는 {end} 상대를 지정할 수 없습니다")


def added_rule(wanted: Wanted, ref: Ref, note: tuple[str, str] = ("", "")) -> Words:
    whom, what = str(wanted.packet.peer), wanted.traffic
    return Words(
        f"add a rule for {whom} on {what} to {ref}{note[0]}",
        f"{ref}에 {whom}의 {what} 트래픽 규칙을 추가합니다{note[1]}",
    )


def joined_peer(wanted: Wanted, ref: Ref, number: int) -> Words:
    whom, what = str(wanted.packet.peer), wanted.traffic
    return Words(
        f"add {whom} to rule {number} of {ref}, which has {what}",
        f"{what} 포트를 이미 허용하는 {ref}의 {number}번 규칙에 {whom} 상대를 추가합니다",
    )


def joined_port(wanted: Wanted, ref: Ref, number: int) -> Words:
    whom, what = str(wanted.packet.peer), wanted.traffic
    return Words(
        f"add {what} to rule {number} of {ref}, which has {whom}",
        f"{whom} 상대를 이미 허용하는 {ref}의 {number}번 규칙에 {what} 포트를 추가합니다",
    )


def of_its_own(wanted: Wanted, kind: str) -> Words:
    subject, what = wanted.packet.subject, wanted.traffic
    return Words(
        f"a {kind} of its own for {subject}, {wanted.packet.direction} on {what}",
        f"{subject} 전용 {kind}를 새로 만듭니다 ({'들어오는' if wanted.ingress else '나가는'} {what} 트래픽)",
    )
