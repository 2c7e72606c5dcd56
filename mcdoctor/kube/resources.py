"""From a kind with its group (`Deployment.apps`) to its place in the API: static for what ships, discovered else."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mcdoctor.kube.errors import NoAnswer
from mcdoctor.kube.transport import Api


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of a kind live."""

    kind: str
    group: str
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full(self) -> str:
        """As kubectl takes it: `services`, `endpointslices.discovery.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def short(self) -> str:
        """For people: the plural alone where it is Kubernetes' own, with the group where it is an extension's."""
        return self.plural if self.group in BUILT_IN else self.full

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        parts = ["", "apis", self.group, self.version] if self.group else ["", "api", self.version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(p, safe="") for p in (name, subresource) if p is not None]
        return "/".join(parts)


BUILT_IN = frozenset(
    {
        "", "apps", "batch", "discovery.k8s.io", "networking.k8s.io", "policy", "autoscaling", "coordination.k8s.io",
        "rbac.authorization.k8s.io", "apiextensions.k8s.io", "admissionregistration.k8s.io", "apiregistration.k8s.io",
    }
)  # fmt: skip
"""Groups that every API server has: a 403 about them never hides that there is no such kind."""

_CLUSTER_WIDE = frozenset(
    {
        "Namespace", "Node", "IngressClass", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy",
        "GatewayClass", "CiliumClusterwideNetworkPolicy", "CiliumNode", "CiliumIdentity", "GlobalNetworkPolicy", "Tier",
        "ClusterSPIFFEID", "ClusterFederatedTrustDomain", "CustomResourceDefinition", "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration", "IPPool", "HostEndpoint", "GlobalNetworkSet", "ClusterRole",
        "FelixConfiguration",
        "ClusterRoleBinding", "APIService", "ClusterTrustBundle",
    }
)  # fmt: skip

_GROUPS: Mapping[tuple[str, str], str] = {
    ("", "v1"): "Pod Service Endpoints Namespace Node ConfigMap Secret ServiceAccount Event ReplicationController",
    ("apps", "v1"): "Deployment StatefulSet DaemonSet ReplicaSet",
    ("batch", "v1"): "Job CronJob",
    ("autoscaling", "v2"): "HorizontalPodAutoscaler",
    ("discovery.k8s.io", "v1"): "EndpointSlice",
    ("networking.k8s.io", "v1"): "NetworkPolicy Ingress IngressClass",
    ("coordination.k8s.io", "v1"): "Lease",
    ("rbac.authorization.k8s.io", "v1"): "Role RoleBinding ClusterRole ClusterRoleBinding",
    ("apiextensions.k8s.io", "v1"): "CustomResourceDefinition",
    ("admissionregistration.k8s.io", "v1"): "MutatingWebhookConfiguration ValidatingWebhookConfiguration",
    ("policy.networking.k8s.io", "v1alpha1"): "AdminNetworkPolicy BaselineAdminNetworkPolicy",
    ("policy.networking.k8s.io", "v1alpha2"): "ClusterNetworkPolicy",
    ("multicluster.x-k8s.io", "v1alpha1"): "ServiceExport ServiceImport",
    ("lighthouse.submariner.io", "v2alpha1"): "ServiceExport ServiceImport",
    ("submariner.io", "v1"): "Cluster Endpoint Gateway",
    ("submariner.io", "v1alpha1"): "Submariner ServiceDiscovery Broker",
    ("networking.istio.io", "v1"): "VirtualService DestinationRule Gateway ServiceEntry Sidecar WorkloadEntry"
    " WorkloadGroup",
    ("networking.istio.io", "v1alpha3"): "EnvoyFilter",
    ("networking.istio.io", "v1beta1"): "ProxyConfig",
    ("security.istio.io", "v1"): "PeerAuthentication AuthorizationPolicy RequestAuthentication",
    ("telemetry.istio.io", "v1"): "Telemetry",
    ("gateway.networking.k8s.io", "v1"): "Gateway GatewayClass HTTPRoute GRPCRoute",
    ("gateway.networking.k8s.io", "v1beta1"): "ReferenceGrant",
    ("gateway.networking.k8s.io", "v1alpha2"): "TCPRoute TLSRoute UDPRoute",
    ("gateway.networking.k8s.io", "v1alpha3"): "BackendTLSPolicy",
    ("cilium.io", "v2alpha1"): "CiliumCIDRGroup",
    ("cilium.io", "v2"): "CiliumNetworkPolicy CiliumClusterwideNetworkPolicy CiliumEndpoint CiliumNode CiliumIdentity",
    ("crd.projectcalico.org", "v1"): "NetworkPolicy GlobalNetworkPolicy Tier IPPool NetworkSet GlobalNetworkSet"
    " HostEndpoint FelixConfiguration",
    ("projectcalico.org", "v3"): "NetworkPolicy GlobalNetworkPolicy Tier IPPool NetworkSet GlobalNetworkSet"
    " HostEndpoint FelixConfiguration",
    ("multicluster.linkerd.io", "v1alpha1"): "Link",
    ("policy.linkerd.io", "v1beta3"): "Server HTTPRoute",
    ("policy.linkerd.io", "v1beta1"): "ServerAuthorization",
    ("policy.linkerd.io", "v1alpha1"): "AuthorizationPolicy MeshTLSAuthentication NetworkAuthentication EgressNetwork",
    ("linkerd.io", "v1alpha2"): "ServiceProfile",
    ("spire.spiffe.io", "v1alpha1"): "ClusterSPIFFEID ClusterFederatedTrustDomain",
    ("types.kubefed.io", "v1beta1"): "FederatedService",
}


def _plural(kind: str) -> str:
    word = kind.lower()
    if word == "endpoints":
        return word
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def _table() -> dict[str, Resource]:
    table: dict[str, Resource] = {}
    for (group, version), kinds in _GROUPS.items():
        for kind in kinds.split():
            plural = _plural(kind)
            key = f"{kind}.{group}" if group else kind
            table[key] = Resource(kind, group, version, plural, kind not in _CLUSTER_WIDE)
    return table


KNOWN: Mapping[str, Resource] = _table()
"""Kinds whose place need not be asked for, by `Kind` or `Kind.group`."""


_FAILURE = 10.0


class Unserved(Exception):
    """The server does not have the kind: its own discovery says so."""


class Discovery:
    """Finds the place of a kind, asking the server once for its groups and once for a group that is in doubt."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.RLock()
        self._groups: dict[str, list[str]] | None = None
        self._resources: dict[str, list[Resource]] = {}
        self._found: dict[str, Resource] = {}
        self._failed: tuple[float, NoAnswer] | None = None

    def resolve(self, kind: str) -> Resource:
        """The place of a kind. Raises Unserved when the server says there is no such kind, NoAnswer when it cannot
        be found out. Kubernetes' own kinds are not looked up."""
        found, known = self._found.get(kind), KNOWN.get(kind)
        if found is not None:
            return found
        if known is not None and known.group in BUILT_IN:
            return known  # without the lock: a slow discovery holds up extensions only
        with self._lock:
            found = self._found[kind] = self._found.get(kind) or self._look_up(kind, known)
            return found

    def again(self, kind: str) -> Resource:
        """The place of a kind whose known path was not found: another version, or Unserved. Raises NoAnswer."""
        with self._lock:
            found = self._found[kind] = self._listed(kind)
            return found

    def _look_up(self, kind: str, known: Resource | None) -> Resource:
        versions = self.versions(kind.partition(".")[2])
        if known is not None and known.version in versions:
            return known
        return self._listed(kind)

    def _listed(self, kind: str) -> Resource:
        name, _, group = kind.partition(".")
        for version in self.versions(group):
            for resource in self._in_version(group, version):
                if resource.kind == name:
                    return resource
        raise Unserved(kind)

    def versions(self, group: str) -> list[str]:
        """Versions of a group, the preferred one first. Raises Unserved for a group that is not there, NoAnswer."""
        if not group:
            return ["v1"]
        with self._lock:
            if self._groups is None:
                self._groups = self._read_groups()
            if group not in self._groups:
                raise Unserved(group)
            return self._groups[group]

    def _read_groups(self) -> dict[str, list[str]]:
        """A failure is remembered for a while: dozens of extension kinds would each ask again."""
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise NoAnswer(str(self._failed[1]))
        try:
            document = self._document("/apis", "APIGroupList")
        except NoAnswer as failure:
            self._failed = (time.monotonic() + _FAILURE, failure)
            raise
        return {str(g["name"]): _in_order(g) for g in document.get("groups") or []}

    def _in_version(self, group: str, version: str) -> list[Resource]:
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        if path not in self._resources:
            self._resources[path] = [
                Resource(str(r["kind"]), group, version, str(r["name"]), bool(r.get("namespaced")))
                for r in self._document(path, "APIResourceList").get("resources") or []
                if "/" not in str(r.get("name", "/"))
            ]
        return self._resources[path]

    def _document(self, path: str, kind: str) -> Mapping[str, Any]:
        answer = self._api.get(path)
        try:
            document = answer.json() if answer.ok else None
        except ValueError:
            document = None
        if not isinstance(document, Mapping) or document.get("kind") != kind:
            raise NoAnswer(f"API discovery at {path} failed: {answer.message}" if not answer.ok else _strange(path))
        return document


def _strange(path: str) -> str:
    return f"what answers at {path} is not a Kubernetes API server"


def _in_order(group: Mapping[str, Any]) -> list[str]:
    versions = [str(v["version"]) for v in group.get("versions") or []]
    preferred = str((group.get("preferredVersion") or {}).get("version", ""))
    return sorted(versions, key=lambda v: v != preferred)
