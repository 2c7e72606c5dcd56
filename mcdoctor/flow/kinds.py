"""The Kubernetes kinds that a diagnosis reads, and where: the one table for reading, recording and RBAC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["pair", "cluster", "named", "root", "account", "hosts"]

WORKLOADS = ("Deployment.apps", "StatefulSet.apps", "DaemonSet.apps", "ReplicaSet.apps", "Job.batch", "Pod")
SERVICE = "Service"
SLICE = "EndpointSlice.discovery.k8s.io"
ENDPOINTS = "Endpoints"
POD = "Pod"
NAMESPACE = "Namespace"
NODE = "Node"
NETWORK_POLICY = "NetworkPolicy.networking.k8s.io"
CONFIG_MAP = "ConfigMap"
SERVICE_IMPORT = "ServiceImport.multicluster.x-k8s.io"
SERVICE_EXPORT = "ServiceExport.multicluster.x-k8s.io"
LIGHTHOUSE_IMPORT = "ServiceImport.lighthouse.submariner.io"
LIGHTHOUSE_EXPORT = "ServiceExport.lighthouse.submariner.io"
SERVICE_ENTRY = "ServiceEntry.networking.istio.io"
LINK = "Link.multicluster.linkerd.io"
SUBMARINER_GATEWAY = "Gateway.submariner.io"
SUBMARINER_ENDPOINT = "Endpoint.submariner.io"
SUBMARINER_CLUSTER = "Cluster.submariner.io"
HTTP_ROUTE = "HTTPRoute.gateway.networking.k8s.io"
GATEWAY = "Gateway.gateway.networking.k8s.io"
ISTIO_GATEWAY = "Gateway.networking.istio.io"
FEDERATED_SERVICE = "FederatedService.types.kubefed.io"


@dataclass(frozen=True, slots=True)
class Reading:
    """One thing read. `pair`: in the pair's namespaces; `cluster`: everywhere; `named`: one object, `namespace/name`,
    or `name` of one without a namespace.

    Read only where what was read before asks for it: `root`, in Istio's root namespace when its proxies stand in the
    path; `account`, the ServiceAccounts of the pair's pods by name, when a policy of Calico goes by them; `hosts`,
    everywhere, when Calico's host endpoints can matter.

    `optional` kinds come from extensions: a server that does not know them is no limit. A named optional object that
    may not be read is one only where the cluster serves the extension's API `group`, so that it is known to be there;
    one that is `quiet` never is, it only sharpens what is known.
    """

    kind: str
    scope: Scope
    name: str | None = None
    optional: bool = False
    group: str = ""
    quiet: bool = False


READINGS: tuple[Reading, ...] = (
    Reading(NETWORK_POLICY, "pair"),
    Reading(SERVICE_IMPORT, "pair", optional=True),
    Reading(SERVICE_EXPORT, "pair", optional=True),
    Reading(LIGHTHOUSE_IMPORT, "pair", optional=True),
    Reading(LIGHTHOUSE_EXPORT, "pair", optional=True),
    Reading(SERVICE_ENTRY, "pair", optional=True),
    Reading("VirtualService.networking.istio.io", "pair", optional=True),
    Reading("DestinationRule.networking.istio.io", "pair", optional=True),
    Reading("Sidecar.networking.istio.io", "pair", optional=True),
    Reading("AuthorizationPolicy.security.istio.io", "pair", optional=True),
    Reading("PeerAuthentication.security.istio.io", "pair", optional=True),
    Reading("RequestAuthentication.security.istio.io", "pair", optional=True),
    Reading("CiliumNetworkPolicy.cilium.io", "pair", optional=True),
    Reading("CiliumClusterwideNetworkPolicy.cilium.io", "cluster", optional=True),
    Reading("NetworkPolicy.projectcalico.org", "pair", optional=True),
    Reading("NetworkPolicy.crd.projectcalico.org", "pair", optional=True),
    Reading("GlobalNetworkPolicy.projectcalico.org", "cluster", optional=True),
    Reading("GlobalNetworkPolicy.crd.projectcalico.org", "cluster", optional=True),
    Reading("Tier.projectcalico.org", "cluster", optional=True),
    Reading("Tier.crd.projectcalico.org", "cluster", optional=True),
    Reading("NetworkSet.projectcalico.org", "cluster", optional=True),
    Reading("NetworkSet.crd.projectcalico.org", "cluster", optional=True),
    Reading("GlobalNetworkSet.projectcalico.org", "cluster", optional=True),
    Reading("GlobalNetworkSet.crd.projectcalico.org", "cluster", optional=True),
    Reading("CiliumCIDRGroup.cilium.io", "cluster", optional=True),
    Reading("AdminNetworkPolicy.policy.networking.k8s.io", "cluster", optional=True),
    Reading("BaselineAdminNetworkPolicy.policy.networking.k8s.io", "cluster", optional=True),
    Reading("ClusterNetworkPolicy.policy.networking.k8s.io", "cluster", optional=True),
    Reading("Server.policy.linkerd.io", "pair", optional=True),
    Reading("ServerAuthorization.policy.linkerd.io", "pair", optional=True),
    Reading("AuthorizationPolicy.policy.linkerd.io", "pair", optional=True),
    Reading("MeshTLSAuthentication.policy.linkerd.io", "pair", optional=True),
    Reading("NetworkAuthentication.policy.linkerd.io", "pair", optional=True),
    Reading("HTTPRoute.policy.linkerd.io", "pair", optional=True),
    Reading("GRPCRoute.gateway.networking.k8s.io", "pair", optional=True),
    Reading("EgressNetwork.policy.linkerd.io", "pair", optional=True),
    Reading(HTTP_ROUTE, "pair", optional=True),
    Reading(GATEWAY, "pair", optional=True),
    Reading("HorizontalPodAutoscaler.autoscaling", "pair", optional=True),
    Reading(LINK, "cluster", optional=True),
    Reading(SUBMARINER_GATEWAY, "cluster", optional=True),
    Reading(SUBMARINER_ENDPOINT, "cluster", optional=True),
    Reading(SUBMARINER_CLUSTER, "cluster", optional=True),
    Reading(FEDERATED_SERVICE, "pair", optional=True),
    Reading(CONFIG_MAP, "named", "kube-system/coredns"),
    Reading(CONFIG_MAP, "named", "kube-system/cilium-config", optional=True, group="cilium.io"),
    Reading(CONFIG_MAP, "named", "istio-system/istio", optional=True, group="istio.io"),
    Reading(CONFIG_MAP, "named", "linkerd/linkerd-config", optional=True),
    Reading(SERVICE, "named", "kube-system/kube-dns"),
    Reading("DaemonSet.apps", "named", "kube-system/cilium", optional=True, group="cilium.io"),
    Reading("DaemonSet.apps", "named", "kube-system/calico-node", optional=True, group="projectcalico.org"),
    Reading("DaemonSet.apps", "named", "kube-system/kube-router", optional=True),
    Reading("DaemonSet.apps", "named", "kube-system/antrea-agent", optional=True),
    Reading("DaemonSet.apps", "named", "kube-system/kindnet", optional=True),
    Reading("FelixConfiguration.projectcalico.org", "named", "default", optional=True, quiet=True),
    Reading("FelixConfiguration.crd.projectcalico.org", "named", "default", optional=True, quiet=True),
    Reading("AuthorizationPolicy.security.istio.io", "root", optional=True),
    Reading("PeerAuthentication.security.istio.io", "root", optional=True),
    Reading("RequestAuthentication.security.istio.io", "root", optional=True),
    Reading("Sidecar.networking.istio.io", "root", optional=True),
    Reading("ServiceAccount", "account", optional=True),
    Reading("HostEndpoint.projectcalico.org", "hosts", optional=True),
    Reading("HostEndpoint.crd.projectcalico.org", "hosts", optional=True),
)
ISTIO_ROOT = "istio-system"
"""Istio's root namespace where its configuration names no other."""

ON_DEMAND: tuple[Reading, ...] = (
    Reading(CONFIG_MAP, "named", "kube-system/coredns-custom", optional=True),
    Reading(CONFIG_MAP, "named", "kube-system/node-local-dns", optional=True),
    Reading(CONFIG_MAP, "named", "kube-system/kube-dns", optional=True),
    Reading(CONFIG_MAP, "named", "openshift-dns/dns-default", optional=True),
)
"""What probes of checks read besides, when what was gathered does not settle it. Rights are granted for both."""
