"""The objects of a run as a world of the policy engine, and the flow as questions to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import KubeObject, ResolvConf
from mcdoctor.models.flow import Flow, Pod
from mcdoctor.policy.addresses import Ip, parse_ip
from mcdoctor.policy.engine import Engine, load
from mcdoctor.policy.families import FAMILIES
from mcdoctor.policy.question import Address, PodName, Question, ServiceName
from mcdoctor.policy.world import ClusterInput, Document
from mcdoctor_checks.sight import name_addresses

_MESH_GROUPS = ("security.istio.io", "networking.istio.io", "policy.linkerd.io")
# Without their objects the meshes would still answer, from annotations and ConfigMaps, and wrongly.
_NETWORK = tuple(family for family in FAMILIES if family.name not in ("istio", "linkerd"))


def engine(
    facts: Facts, flow: Flow, *, without: Iterable[KubeObject] = (), changed: Iterable[KubeObject] = ()
) -> Engine:
    """The policy engine over every object seen, mesh policies left out; some objects removed or replaced in memory."""
    gone = {id(o) for o in without}
    clusters: dict[str, list[Document | Mapping[str, Any]]] = {}
    for fact in [*(f for f in facts if isinstance(f, KubeObject) and id(f) not in gone), *changed]:
        if not fact.kind.endswith(_MESH_GROUPS):
            clusters.setdefault(fact.cluster, []).append(fact.body)
    roles = {flow.source_cluster: "source", flow.destination_cluster: "destination"}
    return load(
        [ClusterInput(name, documents, role=roles.get(name, "")) for name, documents in clusters.items()], _NETWORK
    )


def source_of(pod: Pod) -> PodName:
    return PodName(pod.namespace, pod.name, pod.cluster)


def data_question(facts: Facts, flow: Flow, pod: Pod) -> Question | None:
    """May the source's pod reach the destination's port? None when there is nothing to ask about."""
    end = flow.remote or (flow.local if flow.local and flow.local.type != "ServiceImport" else None)
    if end is not None and end.external_name is None:
        return Question(
            source_of(pod), ServiceName(end.namespace, end.name, end.cluster), end.port or flow.port, _transport(flow)
        )
    for text in (flow.address, *name_addresses(facts)):  # an alias leads to the addresses that the source was given
        if text and (ip := _ip(text)):
            return Question(source_of(pod), Address(ip, flow.source_cluster), flow.port, _transport(flow))
    return None


def _ip(text: str) -> Ip | None:
    try:
        return parse_ip(text)
    except ValueError:
        return None


def _transport(flow: Flow) -> str:
    return "UDP" if flow.protocol == "udp" else "TCP"


def dns_questions(facts: Facts, flow: Flow, pod: Pod) -> tuple[tuple[str, Question], ...]:
    """(nameserver, question) for DNS over UDP: the pod's own nameservers, else the cluster's DNS Service."""
    service = facts.object("Service", pod.cluster, "kube-system", "kube-dns")
    addresses: Sequence[str] = ()
    for conf in facts.all(ResolvConf):
        if conf.vantage.cluster in (None, pod.cluster) and conf.vantage.pod in (None, pod.name):
            addresses = conf.nameservers
            break
    own = {str(service.spec.get("clusterIP"))} if service else set()
    if not addresses and service:
        addresses = tuple(own)
    asked: list[tuple[str, Question]] = []
    for text in addresses:
        ip = _ip(text)
        if text in own:
            target: ServiceName | Address = ServiceName("kube-system", "kube-dns", pod.cluster)
        elif ip:
            target = Address(ip, pod.cluster)
        else:
            continue
        asked.append((text, Question(source_of(pod), target, 53, "UDP")))
    return tuple(asked)
