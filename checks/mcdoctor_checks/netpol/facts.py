"""Which policies concern the flow, and which of them are out of sight."""

from __future__ import annotations

from mcdoctor.flow.kinds import READINGS
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Blind, KubeObject

NETWORK_POLICY = "NetworkPolicy.networking.k8s.io"
POLICY_KINDS = frozenset(
    {
        "NetworkPolicy.networking.k8s.io",
        "CiliumNetworkPolicy.cilium.io",
        "CiliumClusterwideNetworkPolicy.cilium.io",
        "NetworkPolicy.projectcalico.org",
        "NetworkPolicy.crd.projectcalico.org",
        "GlobalNetworkPolicy.projectcalico.org",
        "GlobalNetworkPolicy.crd.projectcalico.org",
        "AdminNetworkPolicy.policy.networking.k8s.io",
        "BaselineAdminNetworkPolicy.policy.networking.k8s.io",
        "ClusterNetworkPolicy.policy.networking.k8s.io",
    }
)
"""Kinds whose objects decide over packets; those of meshes decide over requests and are judged elsewhere."""


def policies(facts: Facts, *namespaces: tuple[str, str]) -> tuple[KubeObject, ...]:
    """Packet policies of these (cluster, namespace) places, and the cluster-wide ones of those clusters."""
    places = frozenset(namespaces)
    clusters = {cluster for cluster, _ in places}
    return tuple(
        o
        for kind in sorted(POLICY_KINDS)
        for o in facts.objects(kind)
        if (o.cluster, o.namespace) in places or (o.namespace is None and o.cluster in clusters)
    )


def unseen(facts: Facts, cluster: str, namespace: str) -> tuple[Blind, ...]:
    """Refusals and time-outs that keep policies of this place out of sight."""
    known = {r.kind for r in READINGS}
    return tuple(
        b
        for b in facts.all(Blind)
        if b.wanted in POLICY_KINDS & known
        and b.cluster == cluster
        and (f" in {namespace}" in b.about or " in " not in b.about)
    )
