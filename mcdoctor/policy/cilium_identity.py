"""What Cilium knows a packet's ends by: the agent's configuration, label filters, and labels instead of addresses.

Sources in cilium/cilium: `pkg/labelsfilter/filter.go` (which labels count), `pkg/labels` (sources `k8s:`, `any:`,
`reserved:`), `pkg/option/config.go` (keys of the ConfigMap cilium-config), `pkg/ipcache/metadata.go` (nodes, world).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.selectors import DOES_NOT_EXIST, EXISTS, IN, NOT_IN, check_key, check_value
from mcdoctor.policy.verdict import Doubt, Match, Ref, both
from mcdoctor.policy.world import METADATA_NAME, Cluster, Namespace, Node, Pod

POD_NAMESPACE = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels"
CLUSTER = "io.cilium.k8s.policy.cluster"
SERVICE_ACCOUNT = "io.cilium.k8s.policy.serviceaccount"


# --- labels and selectors over them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """One requirement on the label `source:key`; source "any" = whatever source."""

    source: str
    key: str
    operator: str
    values: tuple[str, ...] = ()

    def names(self, key: str) -> bool:
        """Is it about this label of Kubernetes?"""
        return self.key == key and self.source in ("k8s", "any")


Terms: TypeAlias = tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """Labels by key, each with its source and value. `open_namespace`: labels of this namespace are not known.

    `cluster`: the cluster's name where only a guess is known (then the label CLUSTER is left out of `labels`).
    """

    labels: Mapping[str, tuple[str, str]]
    open_namespace: str = ""
    cluster: str = ""


def split_key(key: str) -> tuple[str, str]:
    """(source, key) of a label key as selectors write it: `k8s:app`, `any:app`, `reserved:host`, or plain `app`."""
    if key.startswith("$"):
        return "reserved", key[1:]
    source, colon, rest = key.partition(":")
    if colon:
        return source or "any", rest
    if key.startswith("reserved."):
        return "reserved", key[len("reserved.") :]
    return "any", key


def parse_terms(field: Field) -> Terms:
    """A selector of Cilium: a LabelSelector whose keys may carry a source. Raises Refused."""
    field.mapping()
    found: list[Term] = []
    labels = field["matchLabels"]
    for key, value in labels.members() if labels.present else ():
        source, name = split_key(key)
        check_key(value, f"{source}.{name}")
        check_value(value, value.text())
        found.append(Term(source, name, IN, (value.value,)))
    for item in field["matchExpressions"].items():
        written, operator, values = item["key"], item["operator"].text(), item["values"]
        source, name = split_key(written.text())
        check_key(written, f"{source}.{name}")
        listed = values.texts()
        if operator in (IN, NOT_IN):
            if not listed:
                raise Refused(values.pointer, f"must be specified when operator is {operator}")
            for value in values.items():
                check_value(value, value.text())
        elif operator in (EXISTS, DOES_NOT_EXIST):
            if listed:
                raise Refused(values.pointer, f"may not be specified when operator is {operator}")
        else:
            raise Refused(item["operator"].pointer, f"{operator!r} is not a valid selector operator")
        found.append(Term(source, name, operator, tuple(sorted(set(listed)))))
    return tuple(found)


def holds(term: Term, identity: Identity, clusters: frozenset[str] = frozenset()) -> Match:
    """Does a label requirement hold? `clusters`: names by which the clusters at hand go."""
    found = identity.labels.get(term.key)
    value = found[1] if found is not None and term.source in ("any", found[0]) else None
    if value is None and identity.open_namespace and term.key.startswith(NAMESPACE_LABELS + "."):
        return Doubt(f"the labels of namespace {identity.open_namespace} are not known (no Namespace object was given)")
    if value is None and identity.cluster and term.names(CLUSTER):
        if term.operator in (EXISTS, DOES_NOT_EXIST):
            return term.operator == EXISTS
        inside = identity.cluster in term.values
        if not inside and not clusters.issuperset(term.values):
            return Doubt(f"the name Cilium has for cluster {identity.cluster} is not known (cilium-config is missing)")
        return inside if term.operator == IN else not inside
    if term.operator == IN:
        return value is not None and value in term.values
    if term.operator == NOT_IN:
        return value is None or value not in term.values
    return (value is not None) is (term.operator == EXISTS)


def all_hold(terms: Sequence[Term], identity: Identity, clusters: frozenset[str] = frozenset()) -> Match:
    found: Match = True
    for term in terms:
        found = both(found, holds(term, identity, clusters))
        if found is False:
            return False
    return found


# --- the agent's configuration --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prefix:
    """One entry of a label filter: a regular expression that must match at the start of the key."""

    source: str
    expression: re.Pattern[str]
    ignore: bool


_BASE = (
    r"reserved:.*", r"io\.kubernetes\.pod\.namespace", r"io\.cilium\.k8s\.namespace\.labels", r"app\.kubernetes\.io",
    r"io\.cilium\.k8s\.policy\.cluster", r"io\.cilium\.k8s\.policy\.serviceaccount", r"!io\.kubernetes",
    r"!kubernetes\.io", r"!statefulset\.kubernetes\.io/pod-name", r"!apps\.kubernetes\.io/pod-index",
    r"!batch\.kubernetes\.io/job-completion-index", r"!batch\.kubernetes\.io/controller-uid",
    r"!.*beta\.kubernetes\.io", r"!k8s\.io", r"!pod-template-generation", r"!pod-template-hash",
    r"!controller-revision-hash", r"!controller-uid", r"!annotation.*", r"!etcd_node", r"!topology\.kubernetes\.io",
)  # fmt: skip


def _prefix(text: str) -> Prefix | None:
    source, colon, rest = text.partition(":")
    if not colon:
        source, rest = "", text
    ignore = rest.startswith("!")
    try:
        return Prefix(source, re.compile(rest[1:] if ignore else rest), ignore) if rest else None
    except re.error:
        return None


BASE_PREFIXES: tuple[Prefix, ...] = tuple(p for p in map(_prefix, _BASE) if p is not None)


@dataclass(frozen=True, slots=True)
class LabelFilter:
    """Which labels of a pod become part of its identity; `inclusive`: only those that some entry names."""

    prefixes: tuple[Prefix, ...] = BASE_PREFIXES
    inclusive: bool = False

    def keeps(self, key: str, source: str = "k8s") -> bool:
        included = ignored = 0
        for prefix in self.prefixes:
            if prefix.source in ("", source) and (found := prefix.expression.match(key)):
                length = found.end()
                if not prefix.ignore:
                    included = max(included, length)
                elif not ignored or length < ignored:
                    ignored = length
        return (not self.inclusive and not ignored) or included > ignored


def label_filter(text: str) -> LabelFilter:
    """The filter of cilium-config's `labels`: entries separated by blanks, added to the built-in ones."""
    extra = tuple(p for p in map(_prefix, text.split()) if p is not None)
    return LabelFilter(BASE_PREFIXES + extra, any(not p.ignore for p in extra))


@dataclass(frozen=True, slots=True)
class Config:
    """What cilium-config and the agents' image say. None = not known; `ref` None = no cilium-config was given."""

    ref: Ref | None
    cluster_name: str
    version: tuple[int, int] | None
    mode: str
    audit: bool
    host_firewall: bool | None
    local_cluster: bool | None
    """policy-default-local-cluster: selectors without a cluster label mean the local cluster (default since 1.19)."""
    dual_stack: bool | None
    node_labels: bool | None
    default_deny_switch: bool
    port_may_miss: bool
    pods_by_cidr: bool
    """policy-cidr-match-mode names pods (since 1.20): CIDR rules match managed pods by their addresses."""
    network_policies: bool
    cluster_network_policies: bool
    own_policies: tuple[bool, bool]
    """Whether the agents read CiliumNetworkPolicy, and CiliumClusterwideNetworkPolicy."""
    layer7: bool
    icmp: bool
    labels: LabelFilter

    def before(self, major: int, minor: int) -> bool | None:
        return None if self.version is None else self.version < (major, minor)


_VERSION = re.compile(r":v?(\d+)\.(\d+)")


def agent_version(cluster: Cluster) -> tuple[int, int] | None:
    """(major, minor) of the agents, from the image tags of the DaemonSet or its pods; None when not told or mixed."""
    found: set[tuple[int, int]] = set()
    for pod in cluster.pods.values():
        if pod.owner == ("DaemonSet", "cilium") or pod.labels.get("k8s-app") == "cilium":
            containers = pod.raw_spec.get("containers")
            for container in containers if isinstance(containers, list) else ():
                image = container.get("image") if isinstance(container, dict) else None
                if isinstance(image, str) and container.get("name") in ("cilium-agent", None):
                    tag = _VERSION.search(image.rpartition("/")[2])
                    if tag:
                        found.add((int(tag[1]), int(tag[2])))
    return found.pop() if len(found) == 1 else None


def _flag(data: Mapping[str, str], key: str) -> bool | None:
    value = data.get(key)
    return None if value is None or not value.strip() else value.strip().lower() in ("true", "t", "1")


def read_config(cluster: Cluster) -> Config:
    ref: Ref | None = None
    data: Mapping[str, str] = {}
    for obj in cluster.of("", "ConfigMap"):
        if obj.ref.name == "cilium-config":
            ref = obj.ref
            data = cluster.config_map(ref.namespace, ref.name) or {}
            break
    version = agent_version(cluster)
    local = _flag(data, "policy-default-local-cluster")
    if local is None and version is not None:
        local = version >= (1, 19)
    given = ref is not None
    four, six = _flag(data, "enable-ipv4"), _flag(data, "enable-ipv6")
    mode = data.get("enable-policy", "default").strip().lower()
    return Config(
        ref=ref,
        cluster_name=(data.get("cluster-name") or "default") if given else "",
        version=version,
        mode=mode if mode in ("default", "always", "never") else "default",
        audit=_flag(data, "policy-audit-mode") is True,
        host_firewall=(_flag(data, "enable-host-firewall") is True) if given else None,
        local_cluster=local,
        dual_stack=None if six is None else bool(six and four is not False),
        node_labels=(_flag(data, "enable-node-selector-labels") is True) if given else None,
        default_deny_switch=_flag(data, "enable-non-default-deny-policies") is not False,
        port_may_miss=_flag(data, "enable-extended-ip-protocols") is True,
        pods_by_cidr="pods" in data.get("policy-cidr-match-mode", "") and not (version and version < (1, 20)),
        network_policies=_flag(data, "enable-k8s-networkpolicy") is not False,
        cluster_network_policies=_flag(data, "enable-k8s-cluster-network-policy") is True,
        own_policies=(
            _flag(data, "enable-cilium-network-policy") is not False,
            _flag(data, "enable-cilium-clusterwide-network-policy") is not False,
        ),
        layer7=_flag(data, "enable-l7-proxy") is not False,
        icmp=_flag(data, "enable-icmp-rules") is not False,
        labels=label_filter(data.get("labels", "")),
    )


# --- identities -----------------------------------------------------------------------------------------------------


def pod_identity(pod: Pod, namespace: Namespace, config: Config) -> Identity:
    """The labels of a managed pod: its own, its namespace's, its service account and its cluster, filtered."""
    labels = {key: ("k8s", value) for key, value in pod.labels.items() if config.labels.keeps(key)}
    for key, value in namespace.labels.items():
        name = f"{NAMESPACE_LABELS}.{key}"
        if config.labels.keeps(name):
            labels[name] = ("k8s", value)
    derived = {POD_NAMESPACE: pod.namespace, SERVICE_ACCOUNT: pod.service_account}
    if config.ref is not None:
        derived[CLUSTER] = config.cluster_name
    labels |= {key: ("k8s", value) for key, value in derived.items() if config.labels.keeps(key)}
    if not namespace.known:
        labels.setdefault(f"{NAMESPACE_LABELS}.{METADATA_NAME}", ("k8s", namespace.name))
    return Identity(labels, "" if namespace.known else namespace.name, "" if config.ref is not None else pod.cluster)


def reserved(*names: str) -> Identity:
    return Identity(dict.fromkeys(names, ("reserved", "")))


def host_identity(node: Node) -> Identity:
    """The node itself as subject of host policies: its Kubernetes labels and `reserved:host`."""
    return Identity({key: ("k8s", value) for key, value in node.labels.items()} | {"host": ("reserved", "")})
