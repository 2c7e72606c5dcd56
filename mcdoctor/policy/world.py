"""The clusters a question is asked about: small parsed records of pods, namespaces, nodes and Services, raw policy
objects beside.

Input is raw Kubernetes JSON. Nothing is fetched and nothing is completed by guessing: a namespace that pods live in but
that was not among the objects has `known=False`, and what hangs on its labels stays open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias

from mcdoctor.policy.addresses import Ip, parse_ip
from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.verdict import Ref, Refusal

METADATA_NAME = "kubernetes.io/metadata.name"
Labels: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Document:
    """One raw Kubernetes object and where it was read from."""

    object: Mapping[str, Any]
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Object:
    """A raw object of a kind that is kept whole."""

    ref: Ref
    raw: Mapping[str, Any]

    @property
    def labels(self) -> Labels:
        return _labels(self.raw.get("metadata"), "labels")

    @property
    def annotations(self) -> Labels:
        return _labels(self.raw.get("metadata"), "annotations")

    @property
    def created(self) -> str:
        """creationTimestamp (RFC 3339 in UTC, so it sorts as text), '' when missing."""
        meta = self.raw.get("metadata")
        stamp = meta.get("creationTimestamp") if isinstance(meta, dict) else None
        return stamp if isinstance(stamp, str) else ""


class Mesh(StrEnum):
    """How a pod's traffic is captured by a mesh."""

    ISTIO_SIDECAR = "istio-sidecar"
    ISTIO_AMBIENT = "istio-ambient"
    LINKERD = "linkerd"


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """`init`: of an init container; `sidecar`: of one that keeps running (restartPolicy Always)."""

    name: str
    port: int
    protocol: str
    init: bool = False
    sidecar: bool = False
    host_port: int = 0


@dataclass(frozen=True, slots=True)
class Namespace:
    cluster: str
    name: str
    labels: Labels
    annotations: Labels
    known: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Pod:
    """A pod, or the pod a workload's template would give (`synthetic`: no address, no node)."""

    cluster: str
    namespace: str
    name: str
    labels: Labels
    annotations: Labels
    ips: tuple[Ip, ...]
    node: str
    host_network: bool
    host_ips: tuple[Ip, ...]
    service_account: str
    ports: tuple[ContainerPort, ...]
    mesh: frozenset[Mesh]
    phase: str
    ready: bool
    owner: tuple[str, str]
    synthetic: bool = False
    raw_spec: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return f"pod {self.namespace}/{self.name}"

    @property
    def key(self) -> tuple[str, str, str]:
        return self.cluster, self.namespace, self.name

    @property
    def ref(self) -> Ref:
        return Ref(self.cluster, "Pod", self.namespace, self.name)

    def named_ports(self, name: str, protocol: str | None, *, init: bool = False) -> tuple[ContainerPort, ...]:
        """Ports called `name`; those of init containers count when they keep running, or all of them with `init`."""
        return tuple(
            p
            for p in self.ports
            if p.name == name and (protocol is None or p.protocol == protocol) and (init or not p.init or p.sidecar)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    cluster: str
    name: str
    labels: Labels
    ips: tuple[Ip, ...]
    pod_cidrs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"node {self.name}"


@dataclass(frozen=True, slots=True)
class Outside:
    """An address that belongs to no known pod and no known node of the clusters at hand."""

    ip: Ip

    def __str__(self) -> str:
        return str(self.ip)


@dataclass(frozen=True, slots=True)
class DomainName:
    """A host name outside the clusters whose addresses are not known here; lower case, no trailing dot."""

    name: str

    def __str__(self) -> str:
        return self.name


End: TypeAlias = Pod | Node | Outside | DomainName


@dataclass(frozen=True, slots=True)
class ServicePort:
    name: str
    port: int
    protocol: str
    target: int | str
    node_port: int = 0
    app_protocol: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    cluster: str
    namespace: str
    name: str
    type: str
    selector: Labels
    ips: tuple[Ip, ...]
    """Cluster IPs, load-balancer and external IPs: where traffic to it may be addressed."""
    cluster_ips: tuple[Ip, ...]
    headless: bool
    external_name: str
    ports: tuple[ServicePort, ...]
    labels: Labels
    annotations: Labels
    external_traffic_policy: str = ""
    source_ranges: tuple[str, ...] = ()
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        return f"Service {self.namespace}/{self.name}"

    @property
    def ref(self) -> Ref:
        return Ref(self.cluster, "Service", self.namespace, self.name, self.file, self.line)


@dataclass(frozen=True, slots=True)
class Endpoint:
    ip: Ip | None
    hostname: str
    ready: bool
    target: tuple[str, str] | None
    """(namespace, name) of the pod behind it."""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    namespace: str
    service: str
    ports: tuple[tuple[str, int | None, str], ...]
    """(name, port, protocol)."""
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Datapath:
    """Who enforces the L3/L4 policies of a cluster, and the points on which plugins differ. None = not known.

    `systems`: "cilium" and "calico" where those enforce their own kinds (Kubernetes policies included), else
    ("kubernetes",). `evidence` says what it was concluded from. `asks_for_own_node`: a node's traffic to its own pods
    needs a rule too (Cilium with `allow-localhost: policy`).
    """

    cni: str | None
    systems: tuple[str, ...]
    evidence: str
    ipblock_covers_pods: bool | None
    ipblock_covers_nodes: bool | None
    icmp_isolated: bool | None
    enforces_network_policy: bool = True
    asks_for_own_node: bool = False


@dataclass(frozen=True, eq=False)
class Cluster:
    """One cluster's records. `objects` holds every other object raw, by (API group, kind)."""

    name: str
    role: str
    namespaces: Mapping[str, Namespace]
    pods: Mapping[tuple[str, str], Pod]
    nodes: Mapping[str, Node]
    services: Mapping[tuple[str, str], Service]
    slices: Mapping[tuple[str, str], tuple[EndpointSlice, ...]]
    objects: Mapping[tuple[str, str], tuple[Object, ...]]
    datapath: Datapath
    unseen: tuple[str, ...] = ()

    def of(self, group: str, kind: str) -> tuple[Object, ...]:
        return self.objects.get((group, kind), ())

    def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """`data` of a ConfigMap, or None when it is not among the objects."""
        for each in self.of("", "ConfigMap"):
            if each.ref.namespace == namespace and each.ref.name == name:
                return _labels(each.raw, "data")
        return None

    @cached_property
    def by_ip(self) -> Mapping[Ip, Pod | Node | Service]:
        """Whose address it is: nodes before host-network pods, live pods before finished ones."""
        owners: dict[Ip, Pod | Node | Service] = {}
        for service in self.services.values():
            for ip in service.ips:
                owners[ip] = service
        for finished in (True, False):
            for pod in self.pods.values():
                if not pod.host_network and (pod.phase in ("Succeeded", "Failed")) is finished:
                    for ip in pod.ips:
                        owners[ip] = pod
        for node in self.nodes.values():
            for ip in node.ips:
                owners[ip] = node
        return owners

    @cached_property
    def by_node_port(self) -> Mapping[tuple[int, str], tuple[Service, int]]:
        """(node port, protocol) -> the Service it leads to, on every node, and the Service's port."""
        return {
            (port.node_port, port.protocol): (service, port.port)
            for service in self.services.values()
            if service.type in ("NodePort", "LoadBalancer")
            for port in service.ports
            if port.node_port
        }

    @cached_property
    def by_host_port(self) -> Mapping[tuple[str, int, str], tuple[Pod, int]]:
        """(node, host port, protocol) -> the running pod it leads to and the container's port."""
        return {
            (pod.node, port.host_port, port.protocol): (pod, port.port)
            for pod in self.pods.values()
            if pod.node and not pod.host_network and pod.phase not in ("Succeeded", "Failed")
            for port in pod.ports
            if port.host_port
        }

    @cached_property
    def by_workload(self) -> Mapping[tuple[str, str], tuple[Pod, ...]]:
        """(namespace, workload name) -> its pods."""
        found: dict[tuple[str, str], list[Pod]] = {}
        for pod in self.pods.values():
            if pod.owner[1]:
                found.setdefault((pod.namespace, pod.owner[1]), []).append(pod)
        return {key: tuple(pods) for key, pods in found.items()}


@dataclass(frozen=True, eq=False)
class World:
    clusters: Mapping[str, Cluster]
    refusals: tuple[Refusal, ...] = ()

    def pods(self) -> Iterable[Pod]:
        for cluster in self.clusters.values():
            yield from cluster.pods.values()


@dataclass(frozen=True, slots=True)
class ClusterInput:
    """One cluster's objects. `cni`: what the user says enforces policy there (`datapath.CNIS`), '' = conclude it."""

    name: str
    documents: Iterable[Document | Mapping[str, Any]]
    role: str = ""
    cni: str = ""
    unseen: tuple[str, ...] = ()
    """Policy kinds that could not be read, each with the reason: nothing is then allowed for certain."""


def _labels(holder: object, name: str) -> Labels:
    """A string map out of untrusted JSON; values that are not strings are dropped."""
    found = holder.get(name) if isinstance(holder, dict) else None
    if not found or type(found) is not dict:
        return {}
    if all(type(v) is str and type(k) is str for k, v in found.items()):
        return found
    return {k: v for k, v in found.items() if type(k) is str and type(v) is str}


def _word(value: object) -> str:
    """A string out of untrusted JSON, '' for anything else."""
    return value if type(value) is str else ""


def _ips(texts: Iterable[object]) -> tuple[Ip, ...]:
    found = []
    for text in texts:
        if type(text) is str:
            try:
                found.append(parse_ip(text))
            except ValueError:
                continue
    return tuple(dict.fromkeys(found))


_WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "ReplicationController"}


def _container_ports(spec: Mapping[str, Any]) -> tuple[ContainerPort, ...]:
    found: list[ContainerPort] = []
    for section in ("containers", "initContainers"):
        containers = spec.get(section)
        if not containers:
            continue
        init = section == "initContainers"
        for container in containers:
            ports = container.get("ports")
            if not ports:
                continue
            sidecar = init and container.get("restartPolicy") == "Always"
            for port in ports:
                number = port.get("containerPort")
                if type(number) is int:
                    name, protocol, host_port = port.get("name"), port.get("protocol"), port.get("hostPort")
                    found.append(
                        ContainerPort(
                            name if type(name) is str else "",
                            number,
                            protocol if type(protocol) is str else "TCP",
                            init,
                            sidecar,
                            host_port if type(host_port) is int else 0,
                        )
                    )
    return tuple(found)


_NO_MESH: frozenset[Mesh] = frozenset()
_PROXIES = {"istio-proxy": Mesh.ISTIO_SIDECAR, "linkerd-proxy": Mesh.LINKERD}


def _mesh(spec: Mapping[str, Any], labels: Labels, namespace: Namespace | None, host_network: bool) -> frozenset[Mesh]:
    found = [
        _PROXIES[container["name"]]
        for section in ("containers", "initContainers")
        for container in spec.get(section) or ()
        if container.get("name") in _PROXIES
    ]
    if Mesh.ISTIO_SIDECAR not in found and not host_network:
        mode = labels.get("istio.io/dataplane-mode")
        if mode is None and namespace is not None:
            mode = namespace.labels.get("istio.io/dataplane-mode")
        if mode == "ambient":
            found.append(Mesh.ISTIO_AMBIENT)
    return frozenset(found) if found else _NO_MESH


def _owner(meta: Mapping[str, Any], labels: Labels) -> tuple[str, str]:
    for owner in meta.get("ownerReferences") or ():
        if owner.get("controller"):
            kind, name = str(owner.get("kind", "")), str(owner.get("name", ""))
            suffix = labels.get("pod-template-hash")
            if kind == "ReplicaSet" and suffix and name.endswith("-" + suffix):
                return "Deployment", name[: -len(suffix) - 1]
            return kind, name
    return "", ""


def _pod(cluster: str, raw: Mapping[str, Any], namespaces: Mapping[str, Namespace]) -> Pod:
    meta = raw["metadata"]
    spec = raw.get("spec") or {}
    status = raw.get("status") or {}
    namespace = meta.get("namespace") or "default"
    labels = _labels(meta, "labels")
    pod_ips = status.get("podIPs")
    ips = _ips([entry.get("ip") for entry in pod_ips] if pod_ips else [status.get("podIP")])
    if not ips:
        ips = _ips([status.get("podIP")])
    host_network = spec.get("hostNetwork") is True
    host_ips = [entry.get("ip") for entry in status.get("hostIPs") or ()] or [status.get("hostIP")]
    phase = status.get("phase") or ""
    conditions = status.get("conditions")
    ready = all(c.get("status") == "True" for c in conditions if c.get("type") == "Ready") if conditions else True
    return Pod(
        cluster=cluster,
        namespace=namespace,
        name=str(meta["name"]),
        labels=labels,
        annotations=_labels(meta, "annotations"),
        ips=ips,
        node=_word(spec.get("nodeName")),
        host_network=host_network,
        host_ips=_ips(host_ips),
        service_account=_word(spec.get("serviceAccountName") or spec.get("serviceAccount")) or "default",
        ports=_container_ports(spec),
        mesh=_mesh(spec, labels, namespaces.get(namespace), host_network),
        phase=phase,
        ready=ready and not meta.get("deletionTimestamp"),
        owner=_owner(meta, labels),
        raw_spec=spec,
    )


def _template_pod(cluster: str, obj: Object, namespaces: Mapping[str, Namespace]) -> Pod | None:
    """The pod a workload's template would give."""
    spec = Field(obj.raw)["spec"]
    if obj.ref.kind == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template = spec["template"].value
    if type(template) is not dict:
        return None
    meta = dict(template.get("metadata") or {})
    meta |= {"name": obj.ref.name, "namespace": obj.ref.namespace}
    pod = _pod(cluster, {"metadata": meta, "spec": template.get("spec") or {}}, namespaces)
    return replace(pod, owner=(obj.ref.kind, obj.ref.name), synthetic=True)


def _node(cluster: str, raw: Mapping[str, Any]) -> Node:
    meta = raw["metadata"]
    spec = raw.get("spec") or {}
    status = raw.get("status") or {}
    addresses = [a.get("address") for a in status.get("addresses") or () if a.get("type") != "Hostname"]
    cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    return Node(cluster, str(meta["name"]), _labels(meta, "labels"), _ips(addresses), tuple(map(str, cidrs)))


def _service(cluster: str, raw: Mapping[str, Any], ref: Ref) -> Service:
    meta = raw["metadata"]
    spec = raw.get("spec") or {}
    ingress = ((raw.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    listed = spec.get("clusterIPs") or [spec.get("clusterIP")]
    cluster_ips = _ips(listed)
    ports = []
    for port in spec.get("ports") or ():
        number = port.get("port")
        if type(number) is not int:
            continue
        target = port.get("targetPort")
        ports.append(
            ServicePort(
                str(port.get("name") or ""),
                number,
                str(port.get("protocol") or "TCP"),
                target if type(target) in (int, str) and target not in (0, "") else number,
                port.get("nodePort") if type(port.get("nodePort")) is int else 0,
                str(port.get("appProtocol") or ""),
            )
        )
    return Service(
        cluster=cluster,
        namespace=ref.namespace,
        name=ref.name,
        type=str(spec.get("type") or "ClusterIP"),
        selector=_labels(spec, "selector"),
        ips=cluster_ips + _ips(spec.get("externalIPs") or ()) + _ips(entry.get("ip") for entry in ingress),
        cluster_ips=cluster_ips,
        headless=listed[:1] == ["None"],
        external_name=str(spec.get("externalName") or ""),
        ports=tuple(ports),
        labels=_labels(meta, "labels"),
        annotations=_labels(meta, "annotations"),
        external_traffic_policy=str(spec.get("externalTrafficPolicy") or ""),
        source_ranges=tuple(str(r) for r in spec.get("loadBalancerSourceRanges") or ()),
        file=ref.file,
        line=ref.line,
    )


def _slice(raw: Mapping[str, Any], ref: Ref) -> EndpointSlice:
    """An EndpointSlice (discovery.k8s.io)."""
    endpoints = []
    for entry in raw.get("endpoints") or ():
        target = entry.get("targetRef") or {}
        conditions = entry.get("conditions") or {}
        pod = (
            (str(target.get("namespace") or ref.namespace), str(target["name"]))
            if target.get("kind") == "Pod"
            else None
        )
        for address in entry.get("addresses") or ():
            ips = _ips([address])
            endpoints.append(
                Endpoint(
                    ips[0] if ips else None, "" if ips else str(address), conditions.get("ready") is not False, pod
                )
            )
    ports = tuple(
        (
            str(p.get("name") or ""),
            p.get("port") if type(p.get("port")) is int else None,
            str(p.get("protocol") or "TCP"),
        )
        for p in raw.get("ports") or ()
    )
    service = _labels(raw.get("metadata"), "labels").get("kubernetes.io/service-name", "")
    return EndpointSlice(ref.namespace, service, ports, tuple(endpoints))


def _endpoints(raw: Mapping[str, Any], ref: Ref) -> list[EndpointSlice]:
    """A legacy Endpoints object, as slices; each subset has its own ports."""
    found = []
    for subset in raw.get("subsets") or ():
        ports = tuple(
            (
                str(p.get("name") or ""),
                p.get("port") if type(p.get("port")) is int else None,
                str(p.get("protocol") or "TCP"),
            )
            for p in subset.get("ports") or ()
        )
        endpoints = []
        for ready, listed in ((True, subset.get("addresses")), (False, subset.get("notReadyAddresses"))):
            for address in listed or ():
                target = address.get("targetRef") or {}
                pod = (
                    (str(target.get("namespace") or ref.namespace), str(target["name"]))
                    if target.get("kind") == "Pod"
                    else None
                )
                ips = _ips([address.get("ip")])
                if ips:
                    endpoints.append(Endpoint(ips[0], "", ready, pod))
        found.append(EndpointSlice(ref.namespace, ref.name, ports, tuple(endpoints)))
    return found


# Cluster-scoped kinds that mcdoctor reads; everything else without a namespace gets "default", as kubectl would.
CLUSTER_SCOPED = frozenset(
    """
    APIService AdminNetworkPolicy BaselineAdminNetworkPolicy Broker CiliumCIDRGroup CiliumClusterwideEnvoyConfig
    CiliumClusterwideNetworkPolicy CiliumIdentity CiliumNode ClusterGlobalEgressIP ClusterInformation
    ClusterNetworkPolicy ClusterRole ClusterRoleBinding ClusterTrustBundle CustomResourceDefinition ExternalNode
    FelixConfiguration GatewayClass GlobalNetworkPolicy GlobalNetworkSet HostEndpoint IPPool IngressClass
    Installation MeshConfig MutatingWebhookConfiguration Namespace Node PersistentVolume PriorityClass Profile
    RuntimeClass StagedGlobalNetworkPolicy StorageClass Tier ValidatingWebhookConfiguration
    """.split()  # noqa: SIM905
)


def _identify(cluster: str, document: Document) -> tuple[str, Ref] | Refusal:
    """(API group, reference), or why the object cannot even be named."""
    raw = document.object
    api_version, kind, meta = raw.get("apiVersion"), raw.get("kind"), raw.get("metadata")
    unnamed = Ref(cluster, str(kind or "object"), "", "", document.file, document.line)
    if type(kind) is not str or not kind:
        return Refusal(unnamed, "/kind", "required value")
    if type(api_version) is not str or not api_version:
        return Refusal(unnamed, "/apiVersion", "required value")
    if type(meta) is not dict:
        return Refusal(unnamed, "/metadata", "must be an object")
    name, namespace = meta.get("name"), meta.get("namespace")
    if type(name) is not str or not name:
        if type(meta.get("generateName")) is str:
            name = meta["generateName"]
        else:
            return Refusal(unnamed, "/metadata/name", "required value")
    if namespace is not None and type(namespace) is not str:
        return Refusal(unnamed, "/metadata/namespace", "must be a string")
    group = api_version.rpartition("/")[0]
    scope = "" if kind in CLUSTER_SCOPED else namespace or "default"
    return group, Ref(cluster, kind, scope, name, document.file, document.line)


def _flatten(documents: Iterable[Document | Mapping[str, Any]]) -> Iterable[Document]:
    """Documents one by one; Lists are opened (the API has no lists of lists)."""
    for given in documents:
        document = given if isinstance(given, Document) else Document(given)
        raw = document.object
        if not isinstance(raw, Mapping):
            yield Document({}, document.file, document.line)
            continue
        items = raw.get("items")
        kind = raw.get("kind")
        if type(items) is list and (kind is None or (type(kind) is str and kind.endswith("List"))):
            item_kind = kind[:-4] if kind not in (None, "List") else None
            for entry in items:
                yield _item(entry, item_kind, raw, document)
        else:
            yield document


def _item(entry: Any, kind: str | None, holder: Mapping[str, Any], document: Document) -> Document:
    """An item of a list; typed lists (PodList) leave kind and apiVersion out of their items."""
    if type(entry) is dict and kind and "kind" not in entry:
        entry = {"apiVersion": holder.get("apiVersion"), "kind": kind} | entry
    return Document(entry if type(entry) is dict else {}, document.file, document.line)


def _cluster(given: ClusterInput, refusals: list[Refusal]) -> Cluster:
    from mcdoctor.policy.datapath import conclude

    name = given.name
    sorted_out: dict[str, list[tuple[Ref, Mapping[str, Any]]]] = {}
    objects: dict[tuple[str, str], dict[tuple[str, str], Object]] = {}
    plain = {
        ("", "Pod"),
        ("", "Namespace"),
        ("", "Node"),
        ("", "Service"),
        ("", "Endpoints"),
        ("discovery.k8s.io", "EndpointSlice"),
    }
    for document in _flatten(given.documents):
        identity = _identify(name, document)
        if isinstance(identity, Refusal):
            refusals.append(identity)
            continue
        group, ref = identity
        if (group, ref.kind) in plain:
            sorted_out.setdefault(ref.kind, []).append((ref, document.object))
        else:
            objects.setdefault((group, ref.kind), {})[(ref.namespace, ref.name)] = Object(ref, document.object)

    def read(kind: str) -> Iterable[tuple[Ref, Mapping[str, Any]]]:
        return sorted_out.get(kind, ())

    malformed = (KeyError, TypeError, AttributeError, ValueError, IndexError)
    namespaces: dict[str, Namespace] = {}
    for ref, raw in read("Namespace"):
        meta = raw["metadata"]
        labels = {**_labels(meta, "labels"), METADATA_NAME: ref.name}
        namespaces[ref.name] = Namespace(name, ref.name, labels, _labels(meta, "annotations"))
    pods: dict[tuple[str, str], Pod] = {}
    for ref, raw in read("Pod"):
        try:
            pods[ref.namespace, ref.name] = _pod(name, raw, namespaces)
        except malformed as error:
            refusals.append(Refusal(ref, "/spec", f"not the form of a Pod: {error}"))
    nodes: dict[str, Node] = {}
    services: dict[tuple[str, str], Service] = {}
    slices: dict[tuple[str, str], list[EndpointSlice]] = {}
    for ref, raw in read("Node"):
        try:
            nodes[ref.name] = _node(name, raw)
        except malformed as error:
            refusals.append(Refusal(ref, "/status", f"not the form of a Node: {error}"))
    for ref, raw in read("Service"):
        try:
            services[ref.namespace, ref.name] = _service(name, raw, ref)
        except malformed as error:
            refusals.append(Refusal(ref, "/spec", f"not the form of a Service: {error}"))
    for ref, raw in read("EndpointSlice"):
        try:
            found = _slice(raw, ref)
            slices.setdefault((found.namespace, found.service), []).append(found)
        except malformed as error:
            refusals.append(Refusal(ref, "/endpoints", f"not the form of an EndpointSlice: {error}"))
    for ref, raw in read("Endpoints"):
        try:
            if (ref.namespace, ref.name) not in slices:
                slices[ref.namespace, ref.name] = _endpoints(raw, ref)
        except malformed as error:
            refusals.append(Refusal(ref, "/subsets", f"not the form of Endpoints: {error}"))

    owners = {(p.namespace, p.owner[0], p.owner[1]) for p in pods.values()}
    for (_, kind), found_objects in objects.items():
        if kind not in _WORKLOADS:
            continue
        for obj in found_objects.values():
            owned = (obj.raw.get("metadata") or {}).get("ownerReferences")
            if owned or (obj.ref.namespace, kind, obj.ref.name) in owners or (obj.ref.namespace, obj.ref.name) in pods:
                continue
            try:
                pod = _template_pod(name, obj, namespaces)
            except (*malformed, Refused) as error:
                refusals.append(Refusal(obj.ref, "/spec/template", f"not the form of a pod template: {error}"))
                continue
            if pod is not None:
                pods[pod.namespace, pod.name] = pod
    for pod in pods.values():
        if pod.namespace not in namespaces:
            namespaces[pod.namespace] = Namespace(name, pod.namespace, {METADATA_NAME: pod.namespace}, {}, known=False)
    kept = {key: tuple(found.values()) for key, found in objects.items()}
    return Cluster(
        name=name,
        role=given.role,
        namespaces=namespaces,
        pods=pods,
        nodes=nodes,
        services=services,
        slices={key: tuple(found) for key, found in slices.items()},
        objects=kept,
        datapath=conclude(given.cni, kept, pods),
        unseen=given.unseen,
    )


def build(clusters: Sequence[ClusterInput]) -> World:
    """The world of these clusters. Objects that cannot be read are listed in `refusals`; nothing raises."""
    refusals: list[Refusal] = []
    built = {given.name: _cluster(given, refusals) for given in clusters}
    return World(built, tuple(refusals))
