"""Which plugin enforces a cluster's policies, concluded from its objects or told by the user.

Order of trust: what the user says; the plugin's own configuration, agents and per-pod annotations; the policy kinds
present
(a CiliumNetworkPolicy means nothing anywhere else). Two plugins seen: both must allow, and where they would differ on
Kubernetes policies the answer is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcdoctor.policy.world import Datapath, Object, Pod

# cni -> does ipBlock cover pod addresses (reference: policy semantics, NetworkPolicy v1). None = upstream promises
# nothing.
CNIS: Mapping[str, bool | None] = {
    "calico": True,
    "cilium": False,
    "kube-router": True,
    "kube-network-policies": True,
    "kindnet": True,
    "ovn-kubernetes": True,
    "antrea": None,
    "weave": None,
    "aws-vpc-cni": None,
    "azure-npm": None,
    "flannel": None,
    "none": None,
}

_AGENTS = {
    "cilium": "cilium",
    "calico-node": "calico",
    "canal": "calico",
    "kube-router": "kube-router",
    "kube-network-policies": "kube-network-policies",
    "kindnet": "kindnet",
    "ovnkube-node": "ovn-kubernetes",
    "antrea-agent": "antrea",
    "weave-net": "weave",
    "azure-npm": "azure-npm",
    "kube-flannel-ds": "flannel",
}
_CALICO_GROUPS = ("projectcalico.org", "crd.projectcalico.org")
_CALICO_POLICIES = (
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    "Tier",
    "StagedNetworkPolicy",
    "StagedGlobalNetworkPolicy",
    "NetworkSet",
    "GlobalNetworkSet",
)
_CALICO_STATE = ("IPPool", "FelixConfiguration", "ClusterInformation", "BGPConfiguration", "HostEndpoint")


def conclude(
    told: str, objects: Mapping[tuple[str, str], tuple[Object, ...]], pods: Mapping[tuple[str, str], Pod]
) -> Datapath:
    """The datapath of one cluster. `told`: '' or a key of CNIS (others count as a plugin without known
    peculiarities).
    """
    from mcdoctor.policy.world import Datapath

    found: dict[str, str] = {}
    if told:
        found[told] = "as told"
    if not found:
        for obj in objects.get(("apps", "DaemonSet"), ()):
            cni = _AGENTS.get(obj.ref.name)
            if cni:
                found.setdefault(cni, str(obj.ref))
        for (namespace, name), pod in pods.items():
            cni = _AGENTS.get(pod.owner[1]) if pod.owner[0] == "DaemonSet" else None
            if cni:
                found.setdefault(cni, f"pod {namespace}/{name}")
            elif "cni.projectcalico.org/podIP" in pod.annotations:
                found.setdefault("calico", f"annotation of pod {namespace}/{name}")
        for obj in objects.get(("", "ConfigMap"), ()):
            if obj.ref.name == "cilium-config":
                found.setdefault("cilium", str(obj.ref))
        for kind in ("CiliumNode", "CiliumEndpoint", "CiliumIdentity"):
            if objects.get(("cilium.io", kind)):
                found.setdefault("cilium", f"a {kind}")
        for group in _CALICO_GROUPS:
            for kind in _CALICO_STATE:
                if objects.get((group, kind)):
                    found.setdefault("calico", f"a {kind}")
    systems = [cni for cni in ("cilium", "calico") if cni in found]
    if not told:
        # Policy kinds say who must be enforcing them, but not that nobody else does.
        if ("cilium.io", "CiliumNetworkPolicy") in objects or (
            "cilium.io",
            "CiliumClusterwideNetworkPolicy",
        ) in objects:
            if "cilium" not in systems:
                systems.append("cilium")
            if not found:
                found["cilium"] = "policies of its kinds"
        if any((group, kind) in objects for group in _CALICO_GROUPS for kind in _CALICO_POLICIES):
            if "calico" not in systems:
                systems.append("calico")
            if not found or (set(found) == {"cilium"} and found["cilium"] == "policies of its kinds"):
                found["calico"] = "policies of its kinds"
    cni = next(iter(found)) if len(found) == 1 else None
    evidence = ", ".join(f"{name} ({why})" for name, why in found.items()) or "nothing seen"
    covers = {CNIS.get(each) for each in found} if found else {None}
    agreed = covers.pop() if len(covers) == 1 else None
    nodes: bool | None = True
    own_node = False
    if "cilium" in systems:
        settings = [
            data
            for obj in objects.get(("", "ConfigMap"), ())
            if obj.ref.name == "cilium-config" and isinstance(data := obj.raw.get("data"), dict)
        ]
        modes = [str(data.get("policy-cidr-match-mode", "")) for data in settings]
        nodes = any("nodes" in mode for mode in modes) if modes else (None if len(systems) > 1 else False)
        own_node = any(str(data.get("allow-localhost", "")).strip().lower() == "policy" for data in settings)
    return Datapath(
        cni=cni,
        systems=tuple(systems) or ("kubernetes",),
        evidence=evidence,
        ipblock_covers_pods=agreed,
        ipblock_covers_nodes=nodes,
        icmp_isolated=True if cni in ("calico", "cilium") else None,
        enforces_network_policy=cni not in ("flannel", "none"),
        asks_for_own_node=own_node and systems == ["cilium"],
    )
