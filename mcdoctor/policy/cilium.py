"""Cilium: CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, with NetworkPolicy in the same repository of rules.

Sources: docs.cilium.io (security/policy, network/clustermesh/policy); cilium/cilium `pkg/policy/api`,
`pkg/policy/rule.go` and `pkg/k8s/apis/cilium.io/utils`, and its connectivity tests.

A rule that selects an endpoint turns on default deny in the directions it has sections for. Denies come first,
whatever the
order; then anything that any rule allows is allowed. Peers are identities, not addresses: a CIDR never matches a
managed pod
of any meshed cluster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mcdoctor.policy.addresses import Block, host_block, parse_block, parse_ip
from mcdoctor.policy.family import Compiled, Family
from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.index import Index
from mcdoctor.policy.kubernetes import Kubernetes, PodPeer, isolation, ports_match
from mcdoctor.policy.question import Http, Packet
from mcdoctor.policy.selectors import DOES_NOT_EXIST, EXISTS, IN, NOT_IN, Requirement, holds, matches
from mcdoctor.policy.verdict import (
    SILENT,
    Branch,
    Deciding,
    Direction,
    Doubt,
    Effect,
    Match,
    Ref,
    Refusal,
    Ruling,
    Step,
    both,
    either,
    first_match,
)
from mcdoctor.policy.world import Cluster, DomainName, End, Labels, Node, Object, Outside, Pod

GROUP = "cilium.io"
LAYER = "cilium"
NAMESPACE = "io.kubernetes.pod.namespace"
ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
CLUSTER = "io.cilium.k8s.policy.cluster"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
ENTITIES = (
    "all",
    "world",
    "world-ipv4",
    "world-ipv6",
    "cluster",
    "host",
    "remote-node",
    "kube-apiserver",
    "ingress",
    "init",
    "health",
    "unmanaged",
    "none",
)


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements on an identity's labels. `keys`: with their source prefix cut off; `reserved`: identities named as
    `reserved:x`."""

    requirements: tuple[Requirement, ...]
    reserved: tuple[Requirement, ...]
    namespace: str | None
    """Implied namespace of a namespaced policy, None when there is none or the selector names its own."""
    any_cluster: bool
    """The selector says which clusters it means."""


@dataclass(frozen=True, slots=True)
class Cidr:
    blocks: tuple[tuple[Block, tuple[Block, ...]], ...]


@dataclass(frozen=True, slots=True)
class Entity:
    name: str


@dataclass(frozen=True, slots=True)
class Fqdn:
    pattern: str
    exact: bool


@dataclass(frozen=True, slots=True)
class Services:
    """(namespace, name) or (namespace, selector); namespace '' = any."""

    namespace: str
    name: str
    selector: tuple[Requirement, ...] | None


@dataclass(frozen=True, slots=True)
class Nodes:
    requirements: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class Opaque:
    """Peers or conditions that cannot be told from the objects at hand."""

    why: str


Peer: TypeAlias = Selector | Cidr | Entity | Fqdn | Services | Nodes | Opaque


@dataclass(frozen=True, slots=True)
class Port:
    """`protocol` "ANY" or one; `name` set for a named port; 0-65535 when all."""

    protocol: str
    low: int
    high: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class HttpRule:
    method: str
    path: str
    host: str
    headers: tuple[str, ...]
    matches: tuple[tuple[str, str | None, str], ...]
    """(name, value, mismatch action)."""


@dataclass(frozen=True, slots=True)
class PortRule:
    """`http` None = no L7; () = nothing fits. `names`: DNS patterns a DNS rule lets through. `open`: an L7 rule of
    another sort.
    """

    ports: tuple[Port, ...]
    http: tuple[HttpRule, ...] | None
    names: tuple[Fqdn, ...] | None
    open: str


@dataclass(frozen=True, slots=True)
class Rule:
    """`peers` None = anybody; `ports` None = every port and protocol; `icmp` None = not restricted to ICMP."""

    peers: tuple[tuple[Peer, str], ...] | None
    ports: tuple[PortRule, ...] | None
    icmp: tuple[tuple[int, int | None], ...] | None
    pointer: str
    condition: str


@dataclass(frozen=True, slots=True)
class Section:
    allow: tuple[Rule, ...]
    deny: tuple[Rule, ...]
    default_deny: bool
    pointer: str


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """One rule object (`spec`, or an item of `specs`). `node`: it selects nodes, not endpoints."""

    ref: Ref
    subject: Selector
    node: bool
    ingress: Section
    egress: Section

    def section(self, direction: Direction) -> Section:
        return self.egress if direction is Direction.EGRESS else self.ingress


@dataclass(frozen=True, slots=True)
class Settings:
    """From cilium-config, `local_only`: selectors without a cluster label mean the local cluster; None = not known."""

    cluster: str = "default"
    mode: str = "default"
    audit: bool = False
    host_firewall: bool | None = None
    local_only: bool | None = None
    filters: tuple[str, ...] = ()
    node_cidrs: bool = False


def settings_of(cluster: Cluster) -> Settings:
    data: Mapping[str, str] | None = None
    for obj in cluster.of("", "ConfigMap"):
        if obj.ref.name == "cilium-config":
            data = cluster.config_map(obj.ref.namespace, obj.ref.name)
    told = (data or {}).get("policy-default-local-cluster")
    local = None if told is None else told == "true"
    if local is None:
        version = _version(cluster)
        local = None if version is None else version >= (1, 19)
    if data is None:
        return Settings(local_only=local)
    return Settings(
        data.get("cluster-name") or "default",
        data.get("enable-policy") or "default",
        data.get("policy-audit-mode") == "true",
        data.get("enable-host-firewall") == "true",
        local,
        tuple(data.get("labels", "").split()),
        "nodes" in data.get("policy-cidr-match-mode", ""),
    )


def _version(cluster: Cluster) -> tuple[int, int] | None:
    """The agent's version, from the image of its DaemonSet or pods."""
    texts: list[str] = []
    for obj in cluster.of("apps", "DaemonSet"):
        if obj.ref.name == "cilium":
            texts.append(str(obj.raw.get("spec")))
    texts += [str(p.raw_spec.get("containers")) for p in cluster.pods.values() if p.labels.get("k8s-app") == "cilium"]
    for text in texts:
        found = re.search(r"cilium/cilium[^'\"]*:v?(\d+)\.(\d+)", text)
        if found:
            return int(found.group(1)), int(found.group(2))
    return None


# --- reading -------------------------------------------------------------------------------------------------------


def _requirements(field: Field) -> tuple[tuple[str, Requirement], ...]:
    """(source prefix, requirement) of a selector."""
    found = []

    def split(key: str) -> tuple[str, str]:
        for mark in (":", "."):
            prefix, sep, rest = key.partition(mark)
            if sep and prefix in ("k8s", "any", "reserved", "cidr", "unspec") and rest:
                return prefix, rest
        return "any", key

    for key, value in field["matchLabels"].members():
        prefix, rest = split(key)
        found.append((prefix, Requirement(rest, IN, (value.text(""),))))
    for item in field["matchExpressions"].items():
        prefix, rest = split(item["key"].text())
        operator, values = item["operator"].choice((IN, NOT_IN, EXISTS, DOES_NOT_EXIST)), item["values"].texts()
        if (operator in (IN, NOT_IN)) != bool(values):
            raise Refused(item["values"].pointer, f"does not fit operator {operator}")
        found.append((prefix, Requirement(rest, operator, tuple(sorted(values)))))
    return tuple(found)


def selector(field: Field, namespace: str) -> Selector:
    """`namespace` '' = a cluster-wide policy."""
    listed = _requirements(field)
    reserved = tuple(r for prefix, r in listed if prefix == "reserved")
    plain = tuple(r for prefix, r in listed if prefix != "reserved")
    keys = [r.key for r in plain]
    own = any(key == NAMESPACE or key.startswith(NAMESPACE_LABELS) for key in keys) or bool(reserved)
    return Selector(plain, reserved, namespace if namespace and not own else None, CLUSTER in keys)


def _block(field: Field) -> Block:
    text = field.text()
    try:
        return parse_block(text) if "/" in text else host_block(parse_ip(text))
    except ValueError:
        raise Refused(field.pointer, f"{text!r} is not a valid CIDR") from None


@dataclass(frozen=True, slots=True)
class _Reader:
    namespace: str
    groups: Mapping[str, tuple[tuple[Block, ...], Labels]]

    def peers(self, rule: Field, side: str) -> tuple[tuple[Peer, str], ...] | None:
        """`side` "from" or "to". None when no peer field is given at all."""
        found: list[tuple[Peer, str]] = []
        given = False
        for name in ("Endpoints", "CIDR", "CIDRSet", "Entities", "Nodes", "Groups", "Services", "FQDNs", "Requires"):
            listed = rule[side + name]
            if not listed.present:
                continue
            given = True
            for item in listed.items():
                found.append((self.peer(name, item), item.pointer))
        return tuple(found) if given else None

    def peer(self, name: str, item: Field) -> Peer:
        match name:
            case "Endpoints":
                return selector(item, self.namespace)
            case "CIDR":
                return Cidr(((_block(item), ()),))
            case "CIDRSet":
                return self.cidr_set(item)
            case "Entities":
                return Entity(item.choice(ENTITIES))
            case "Nodes":
                return Nodes(tuple(r for _, r in _requirements(item)))
            case "Services":
                service, by_label = item["k8sService"], item["k8sServiceSelector"]
                if service.present:
                    return Services(service["namespace"].text(self.namespace), service["serviceName"].text(), None)
                chosen = tuple(r for _, r in _requirements(by_label["selector"]))
                return Services(by_label["namespace"].text(""), "", chosen)
            case "FQDNs":
                exact, pattern = item["matchName"], item["matchPattern"]
                if not exact.present and not pattern.present:
                    raise Refused(item.pointer, "must set matchName or matchPattern")
                text = exact.text() if exact.present else pattern.text()
                return Fqdn(text.rstrip(".").lower(), exact.present)
            case _:
                return Opaque(f"{name} is not told by the objects at hand")

    def cidr_set(self, item: Field) -> Cidr:
        excepts = tuple(_block(each) for each in item["except"].items())
        if item["cidrGroupRef"].present:
            blocks, _ = self.groups.get(item["cidrGroupRef"].text(), ((), {}))
            return Cidr(tuple((block, excepts) for block in blocks))
        if item["cidrGroupSelector"].present:
            wanted = tuple(r for _, r in _requirements(item["cidrGroupSelector"]))
            chosen = [
                b for blocks, labels in self.groups.values() if all(holds(r, labels) for r in wanted) for b in blocks
            ]
            return Cidr(tuple((block, excepts) for block in chosen))
        block = _block(item["cidr"])
        for number, each in enumerate(excepts):
            if not block.covers(each):
                raise Refused(f"{item.pointer}/except/{number}", "must be inside cidr")
        return Cidr(((block, excepts),))

    def port(self, item: Field) -> Port:
        protocol = item["protocol"].text("ANY").upper()
        if protocol not in ("ANY", "TCP", "UDP", "SCTP", "ICMP", "ICMPV6", "VRRP", "IGMP"):
            raise Refused(item["protocol"].pointer, f"{protocol!r} is not a protocol")
        text = item["port"].text()
        if not text.isdigit():
            if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", text, re.I):
                raise Refused(item["port"].pointer, f"{text!r} is neither a port nor a port name")
            return Port(protocol, 0, 0, text.lower())
        low = int(text)
        if low > 65535:
            raise Refused(item["port"].pointer, f"{low} is not a port")
        if low == 0:
            return Port(protocol, 0, 65535)
        high = item["endPort"].integer(0) or low
        if high < low or high > 65535:
            raise Refused(item["endPort"].pointer, "must be between port and 65535")
        return Port(protocol, low, high)

    def port_rule(self, item: Field, deny: bool) -> PortRule:
        ports = tuple(self.port(each) for each in item["ports"].items())
        rules = item["rules"]
        if deny and rules.present:
            raise Refused(rules.pointer, "a deny rule cannot carry L7 rules")
        http: tuple[HttpRule, ...] | None = None
        names: tuple[Fqdn, ...] | None = None
        other = ""
        if rules["http"].present:
            http = tuple(self.http(each) for each in rules["http"].items()) or None
        if rules["dns"].present:
            listed = [self.peer("FQDNs", each) for each in rules["dns"].items()]
            names = tuple(each for each in listed if isinstance(each, Fqdn))
        for name in ("kafka", "l7", "l7proto"):
            if rules[name].present:
                other = f"what the {name} rules say of the request"
        if item["serverNames"].present:
            other = "the server name (SNI) of the TLS connection"
        return PortRule(ports, http, names, other)

    def http(self, item: Field) -> HttpRule:
        for name in ("method", "path", "host"):
            try:
                re.compile(item[name].text(""))
            except re.error as error:
                raise Refused(item[name].pointer, f"not a regular expression: {error}") from None
        checks = []
        for each in item["headerMatches"].items():
            value = each["value"].text() if each["value"].present else None
            checks.append((each["name"].text().lower(), value, each["mismatch"].text("")))
        return HttpRule(
            item["method"].text(""),
            item["path"].text(""),
            item["host"].text(""),
            item["headers"].texts(),
            tuple(checks),
        )

    def rule(self, item: Field, side: str, deny: bool) -> Rule:
        item.mapping()
        ports, icmps = item["toPorts"], item["icmps"]
        if ports.present and icmps.present:
            raise Refused(item.pointer, "toPorts and icmps cannot be combined")
        peers = self.peers(item, side)
        if ports.present and item["toServices"].present:
            raise Refused(
                item.pointer, "toServices and toPorts cannot be combined: older versions opened the port to the world"
            )
        icmp: list[tuple[int, int | None]] = []
        for each in icmps.items():
            for one in each["fields"].items():
                icmp.append((6 if one["family"].text("IPv4") == "IPv6" else 4, _icmp_type(one["type"])))
        mode = item["authentication"]["mode"].text("")
        return Rule(
            peers,
            tuple(self.port_rule(each, deny) for each in ports.items()) or None,
            tuple(icmp) if icmps.present else None,
            item.pointer,
            "whether both ends authenticate each other" if mode == "required" else "",
        )

    def section(self, spec: Field, name: str) -> Section:
        side = "from" if name == "ingress" else "to"
        allow = tuple(self.rule(item, side, False) for item in spec[name].items())
        deny = tuple(self.rule(item, side, True) for item in spec[name + "Deny"].items())
        told = spec["enableDefaultDeny"][name]
        default = told.boolean() if told.present else bool(allow or deny)
        return Section(
            allow, deny, default, spec[name if allow else name + "Deny"].pointer if allow or deny else spec.pointer
        )


_ICMP_TYPES = {
    "EchoReply": (0, 129),
    "EchoRequest": (8, 128),
    "DestinationUnreachable": (3, 1),
    "TimeExceeded": (11, 3),
}


def _icmp_type(field: Field) -> int | None:
    if type(field.value) is int:
        return field.integer()
    text = field.text()
    if text.isdigit():
        return int(text)
    if text not in _ICMP_TYPES:
        return None
    return _ICMP_TYPES[text][0]


def read(obj: Object, groups: Mapping[str, tuple[tuple[Block, ...], Labels]]) -> list[Policy]:
    """The rules of one object. Raises Refused."""
    whole = Field(obj.raw)
    clusterwide = obj.ref.kind == "CiliumClusterwideNetworkPolicy"
    namespace = "" if clusterwide else obj.ref.namespace
    specs = [*([whole["spec"]] if whole["spec"].present else []), *whole["specs"].items()]
    if not specs:
        raise Refused("/spec", "spec or specs is required")
    found = []
    for spec in specs:
        endpoints, nodes = spec["endpointSelector"], spec["nodeSelector"]
        if endpoints.present == nodes.present:
            raise Refused(spec.pointer, "exactly one of endpointSelector and nodeSelector must be set")
        if nodes.present and not clusterwide:
            raise Refused(nodes.pointer, "only a CiliumClusterwideNetworkPolicy selects nodes")
        reader = _Reader(namespace, groups)
        subject = selector(nodes if nodes.present else endpoints, namespace)
        if namespace:
            subject = Selector(subject.requirements, subject.reserved, namespace, subject.any_cluster)
        found.append(
            Policy(obj.ref, subject, nodes.present, reader.section(spec, "ingress"), reader.section(spec, "egress"))
        )
    return found


# --- identities ----------------------------------------------------------------------------------------------------


def kept(key: str, filters: Sequence[str]) -> bool:
    """Does cilium-config's label filter leave a pod label in the identity? The longest match decides."""
    included, ignored, inclusive = -1, -1, False
    for text in filters:
        negative = text.startswith("!")
        pattern = text.lstrip("!")
        source, colon, rest = pattern.partition(":")
        pattern = rest if colon and source in ("k8s", "any", "") else pattern
        if pattern.startswith("!"):
            negative, pattern = True, pattern[1:]
        inclusive = inclusive or not negative
        try:
            found = re.match(pattern, key)
        except re.error:
            continue
        if found:
            if negative:
                ignored = max(ignored, found.end())
            else:
                included = max(included, found.end())
    if not inclusive:
        return ignored < 0
    return included >= 0 and included >= ignored


@dataclass(frozen=True, slots=True, eq=False)
class Cilium:
    index: Index
    cluster: str
    settings: Settings
    policies: tuple[Policy, ...]
    kubernetes: Kubernetes | None
    refusals: tuple[Refusal, ...]
    identities: dict[Pod, Labels]
    selecting: dict[Pod, tuple[Policy, ...]]

    def labels(self, pod: Pod) -> Labels:
        """The identity labels of a pod of any cluster at hand, without source prefix."""
        found = self.identities.get(pod)
        if found is None:
            there = self.index.world.clusters[pod.cluster]
            settings = self.settings if pod.cluster == self.cluster else settings_of(there)
            labels = {key: value for key, value in pod.labels.items() if kept(key, settings.filters)}
            name = settings.cluster if settings.cluster != "default" or pod.cluster == self.cluster else pod.cluster
            labels |= {NAMESPACE: pod.namespace, ACCOUNT: pod.service_account, CLUSTER: name}
            namespace = there.namespaces[pod.namespace]
            labels |= {NAMESPACE_LABELS + key: value for key, value in namespace.labels.items()}
            found = self.identities[pod] = labels
        return found

    def enforce(self, packet: Packet) -> Ruling:
        subject = packet.subject
        policies, doubt = self._selecting(subject)
        np = self.kubernetes.selecting(packet) if self.kubernetes is not None else ()
        if self.settings.mode == "never":
            return SILENT
        if not policies and not np and self.settings.mode != "always":
            return SILENT
        if not isinstance(subject, Pod) and not policies:
            return SILENT
        direction = packet.direction
        trace: list[Step] = []
        rules: list[tuple[Match, Branch]] = []
        closing: list[Deciding] = []
        for policy in policies:
            section = policy.section(direction)
            for rule in section.deny:
                match, pointer = self._rule(rule, packet, policies)
                if match is not False:
                    by = Deciding(policy.ref, pointer, direction, "deny")
                    rules.append((match, Branch(Effect.DENY, (by,), f"{policy.ref} denies it")))
        admitted: list[tuple[Match, Deciding]] = []
        for policy in policies:
            section = policy.section(direction)
            if section.default_deny:
                closing.append(
                    Deciding(policy.ref, section.pointer, direction, "deny", implicit=True, note="default deny")
                )
            found: tuple[Match, str] = (False, section.pointer)
            for rule in section.allow:
                match, pointer = self._rule(rule, packet, policies)
                if match is True:
                    found = (True, pointer)
                    break
                if match is not False and found[0] is False:
                    found = (match, pointer)
            if section.allow or section.deny:
                told = "allows it" if found[0] is True else "does not allow it" if found[0] is False else "may allow it"
                trace.append(Step(LAYER, f"{policy.ref} selects {subject} and {told}", policy.ref, found[1]))
            if found[0] is not False:
                admitted.append((found[0], Deciding(policy.ref, found[1], direction, "allow")))
        for policy_np in np:
            assert self.kubernetes is not None
            admission = self.kubernetes.admits(policy_np, packet)
            match = admission.match
            deciding = admission.by
            if match is False and isinstance(packet.peer, Pod) and packet.peer.cluster != self.cluster:
                match, deciding = self._remote_np(policy_np, packet)
            trace.append(Step(LAYER, f"{policy_np.ref} isolates {subject} for {direction}", policy_np.ref))
            closing.append(isolation(policy_np, direction))
            if match is not False and deciding is not None:
                admitted.append((match, deciding))
        sure = tuple(by for match, by in admitted if match is True)
        if sure:
            rules.append((True, Branch(Effect.ALLOW, sure, f"{sure[0].ref} allows it")))
        else:
            rules += [(match, Branch(Effect.ALLOW, (by,), f"{by.ref} may allow it")) for match, by in admitted]
        otherwise = Branch(Effect.NEXT)
        if closing or self.settings.mode == "always":
            names = ", ".join(dict.fromkeys(str(by.ref) for by in closing)) or "enable-policy: always"
            otherwise = Branch(
                Effect.DENY, tuple(dict.fromkeys(closing)), f"{names} close {subject} and no rule allows it"
            )
        ruling = first_match(rules, otherwise, trace)
        if doubt is not None:
            open_branches = tuple(Branch(b.effect, b.by, b.why, (doubt, *b.doubts)) for b in ruling.branches)
            ruling = Ruling((*open_branches, Branch(Effect.NEXT, doubts=(doubt,))), ruling.trace)
        if self.settings.audit and any(b.effect is Effect.DENY for b in ruling.branches):
            step = Step(LAYER, "policy-audit-mode: what would be refused is only logged")
            return Ruling((Branch(Effect.NEXT, why=step.text),), (*ruling.trace, step))
        return ruling

    def _selecting(self, subject: End) -> tuple[tuple[Policy, ...], Doubt | None]:
        """The policies that select an end, and what that hangs on."""
        if isinstance(subject, Pod) and not subject.host_network:
            if subject.cluster != self.cluster:
                return (), None
            found = self.selecting.get(subject)
            if found is None:
                labels = self.labels(subject)
                found = tuple(
                    p
                    for p in self.policies
                    if not p.node and self._fits(p.subject, labels, subject, local=True) is True
                )
                self.selecting[subject] = found
            return found, None
        name = subject.node if isinstance(subject, Pod) else subject.name if isinstance(subject, Node) else ""
        node = self.index.world.clusters[self.cluster].nodes.get(name)
        labels = node.labels if node is not None else {}
        chosen = tuple(p for p in self.policies if p.node and all(holds(r, labels) for r in p.subject.requirements))
        if not chosen or self.settings.host_firewall is False:
            return (), None
        if self.settings.host_firewall is None:
            return chosen, Doubt("whether the host firewall is on (no cilium-config among the objects)")
        return chosen, None

    def _fits(self, wanted: Selector, labels: Labels, pod: Pod, *, local: bool = False) -> Match:
        if wanted.reserved:
            return False
        if wanted.namespace is not None and labels.get(NAMESPACE) != wanted.namespace:
            return False
        found: Match = True
        namespace = self.index.world.clusters[pod.cluster].namespaces[pod.namespace]
        for requirement in wanted.requirements:
            if requirement.key.startswith(NAMESPACE_LABELS) and not namespace.known:
                found = both(
                    found,
                    Doubt(f"the labels of namespace {pod.namespace} are not known (no Namespace object was given)"),
                )
            elif not holds(requirement, labels):
                return False
        if not local and pod.cluster != self.cluster and not wanted.any_cluster:
            if self.settings.local_only is True:
                return False
            if self.settings.local_only is None:
                why = (
                    "policy-default-local-cluster (on from Cilium 1.19) decides whether it means pods of other clusters"
                )
                found = both(found, Doubt(f"{why}, and neither it nor the version is known"))
        return found

    def _remote_np(self, policy: object, packet: Packet) -> tuple[Match, Deciding | None]:
        """A NetworkPolicy's selectors and a pod of a meshed cluster, as far as Cilium lets them meet."""
        from mcdoctor.policy.kubernetes import Policy as NetworkPolicy

        assert isinstance(policy, NetworkPolicy) and isinstance(packet.peer, Pod)
        pod = packet.peer
        namespace = self.index.world.clusters[pod.cluster].namespaces[pod.namespace]
        side = policy.side(packet.direction)
        for rule in side.rules if side else ():
            covered = ports_match(rule, packet)
            for peer in rule.peers or ():
                if not isinstance(peer, PodPeer) or not matches(peer.pods or (), pod.labels):
                    continue
                if peer.namespaces is None:
                    fits = pod.namespace == policy.ref.namespace
                else:
                    fits = matches(peer.namespaces, namespace.labels)
                match = both(covered, both(fits, self._fits(Selector((), (), None, False), self.labels(pod), pod)))
                if match is not False:
                    return match, Deciding(policy.ref, peer.pointer, packet.direction, "allow")
        return False, None

    # rules

    def _rule(self, rule: Rule, packet: Packet, policies: Sequence[Policy]) -> tuple[Match, str]:
        """Does a rule match, and by which of its items."""
        if rule.peers is None and rule.ports is None and rule.icmp is None:
            return False, rule.pointer  # an empty rule allows nothing
        covered = self._ports(rule, packet)
        if covered is False:
            return False, rule.pointer
        if rule.condition:
            covered = both(covered, Doubt(rule.condition, unseen=False))
        if rule.peers is None:
            return covered, rule.pointer
        found: Match = False
        where = rule.pointer
        for peer, pointer in rule.peers:
            match = both(covered, self._peer(peer, packet, policies))
            if match is True:
                return True, pointer
            if match is not False and found is False:
                found, where = match, pointer
        return found, where

    def _ports(self, rule: Rule, packet: Packet) -> Match:
        if packet.icmp is not None:
            if rule.icmp is None:
                return rule.ports is None
            for family, kind in rule.icmp:
                if family == packet.icmp.family and (packet.icmp.type is None or kind == packet.icmp.type):
                    return True if packet.icmp.type is not None else Doubt("which ICMP type it is", unseen=False)
            return False
        if rule.icmp is not None:
            return False
        if rule.ports is None:
            return True
        found: Match = False
        for each in rule.ports:
            covered: Match = not each.ports
            for port in each.ports:
                covered = either(covered, _port(port, packet))
            if covered is False:
                continue
            found = either(found, both(covered, _l7(each, packet)))
            if found is True:
                break
        return found

    def _peer(self, peer: Peer, packet: Packet, policies: Sequence[Policy]) -> Match:
        end = packet.peer
        match peer:
            case Selector():
                return self._selected(peer, end, packet)
            case Cidr():
                return self._cidr(peer, end, packet)
            case Entity():
                return self._entity(peer.name, end, packet)
            case Nodes():
                node = self._node(end)
                return node is not None and all(holds(r, node.labels) for r in peer.requirements)
            case Services():
                return self._service(peer, packet)
            case Fqdn():
                return _fqdn(peer, end, policies)
            case Opaque():
                return Doubt(peer.why)

    def _selected(self, peer: Selector, end: End, packet: Packet) -> Match:
        if peer.reserved:
            return any(self._entity(r.key, end, packet) is True for r in peer.reserved)
        if not isinstance(end, Pod) or end.host_network:
            return False
        return self._fits(peer, self.labels(end), end)

    def _node(self, end: End) -> Node | None:
        nodes = self.index.world.clusters[self.cluster].nodes
        if isinstance(end, Node):
            return nodes.get(end.name, end)
        if isinstance(end, Pod) and end.host_network:
            return nodes.get(end.node) or Node(end.cluster, end.node, {}, end.ips)
        return None

    def _cidr(self, peer: Cidr, end: End, packet: Packet) -> Match:
        if isinstance(end, Pod) and not end.host_network:
            return False
        if self._node(end) is not None and not self.settings.node_cidrs:
            return False
        if isinstance(end, DomainName):
            if any(block.prefix == 0 and not excepts for block, excepts in peer.blocks):
                return True
            return Doubt(f"which addresses {end} resolves to", unseen=False) if peer.blocks else False
        return any(
            ip in block and not any(ip in hole for hole in excepts)
            for ip in packet.ips(end)
            for block, excepts in peer.blocks
        )

    def _entity(self, name: str, end: End, packet: Packet) -> Match:
        if name == "all":
            return True
        if isinstance(end, (Outside, DomainName)):
            if name in ("world-ipv4", "world-ipv6"):
                return not isinstance(end, Outside) or end.ip.version == int(name[-1])
            return name == "world"
        node = self._node(end)
        if node is None:
            assert isinstance(end, Pod)
            return name == "cluster" and end.cluster == self.cluster
        subject = packet.subject
        own = subject.node if isinstance(subject, Pod) else subject.name if isinstance(subject, Node) else ""
        if name == "kube-apiserver":
            marks = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
            return any(mark in node.labels for mark in marks)
        if node.cluster != self.cluster:
            return name == "remote-node"
        return name in ("cluster", "host" if node.name == own else "remote-node")

    def _service(self, peer: Services, packet: Packet) -> Match:
        cluster = self.index.world.clusters[self.cluster]
        for service in cluster.services.values():
            if peer.namespace and service.namespace != peer.namespace:
                continue
            chosen = (
                service.name == peer.name
                if peer.selector is None
                else all(holds(r, service.labels) for r in peer.selector)
            )
            if not chosen:
                continue
            end = packet.destination
            if packet.service is service:
                return True
            if isinstance(end, Pod) and service.selector and end.namespace == service.namespace:
                behind = all(end.labels.get(k) == v for k, v in service.selector.items())
                if behind:
                    return True
            for each in cluster.slices.get((service.namespace, service.name), ()):
                if any(e.ip in packet.ips(end) for e in each.endpoints):
                    return True
        return False


def _port(port: Port, packet: Packet) -> Match:
    if port.protocol not in (packet.protocol, "ANY"):
        return False
    if port.name:
        end = packet.destination
        if not isinstance(end, Pod):
            return False
        protocol = None if port.protocol == "ANY" else port.protocol
        numbers = [p.port for p in end.named_ports(port.name, protocol) if p.protocol == packet.protocol]
        if numbers and packet.port is None:
            return Doubt("which port is used", unseen=False)
        return packet.port in numbers
    if port.low == 0:
        return True
    if packet.port is None:
        return Doubt("which port is used", unseen=False)
    return port.low <= packet.port <= port.high


def _l7(rule: PortRule, packet: Packet) -> Match:
    found: Match = True
    if rule.http is not None:
        found = False
        for each in rule.http:
            found = either(found, _http(each, packet.http))
    if rule.names is not None and not any(n.pattern == "*" for n in rule.names):
        found = both(found, Doubt("which name is looked up", unseen=False))
    if rule.open:
        found = both(found, Doubt(rule.open, unseen=False))
    return found


def _http(rule: HttpRule, http: Http | None) -> Match:
    found: Match = True
    for pattern, given, what in (
        (rule.method, http.method if http else None, "the HTTP method"),
        (rule.path, http.path if http else None, "the HTTP path"),
        (rule.host, http.host if http else None, "the HTTP host"),
    ):
        if pattern:
            if given is None:
                found = both(found, Doubt(f"{what} was not said", unseen=False))
            else:
                bare = given.partition("?")[0] if what.endswith("path") else given
                found = both(found, re.fullmatch(pattern, bare) is not None)
    wanted = [(h.partition(":")[0].strip().lower(), h.partition(":")[2].strip() or None) for h in rule.headers]
    wanted += [(name, value) for name, value, mismatch in rule.matches if not mismatch]
    for name, value in wanted:
        if http is None or not http.headers:
            found = both(found, Doubt(f"header {name} was not said", unseen=False))
        else:
            given = http.headers.get(name)
            found = both(found, given is not None and (value is None or given == value))
    return found


def name_pattern(text: str) -> re.Pattern[str]:
    """`*` stays inside a label, alone it is any name; a leading `**.` is any number of labels."""
    if text == "*":
        return re.compile(r".+")
    lead = ""
    if text.startswith("**."):
        lead, text = r"([-a-z0-9_]+\.)+", text[3:]
    return re.compile(lead + "[-a-z0-9_]*".join(map(re.escape, text.split("*"))))


def _covers(peer: Fqdn, name: str) -> bool:
    return name == peer.pattern if peer.exact else name_pattern(peer.pattern).fullmatch(name) is not None


def _fqdn(peer: Fqdn, end: End, policies: Sequence[Policy]) -> Match:
    """A name matches only where a rule of the same endpoint sends its look-up through the DNS proxy."""
    proxied = [
        names
        for policy in policies
        for rule in policy.egress.allow
        for each in rule.ports or ()
        if each.names is not None
        for names in each.names
    ]
    if isinstance(end, DomainName):
        if not _covers(peer, end.name):
            return False
        return any(_covers(names, end.name) for names in proxied)
    if isinstance(end, Outside) and proxied:
        return Doubt(f"whether {end} was learnt from a look-up of {peer.pattern}")
    return False


def compile_cluster(index: Index, cluster: str, earlier: Mapping[str, Compiled]) -> Cilium:
    world = index.world.clusters[cluster]
    refusals: list[Refusal] = []
    groups: dict[str, tuple[tuple[Block, ...], Labels]] = {}
    for obj in world.of(GROUP, "CiliumCIDRGroup"):
        try:
            listed = Field(obj.raw)["spec"]["externalCIDRs"].items()
            groups[obj.ref.name] = (tuple(_block(item) for item in listed), obj.labels)
        except Refused as refused:
            refusals.append(Refusal(obj.ref, refused.pointer, refused.why))
    policies: list[Policy] = []
    for kind in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"):
        for obj in sorted(world.of(GROUP, kind), key=lambda o: (o.ref.namespace, o.ref.name)):
            try:
                policies += read(obj, groups)
            except Refused as refused:
                refusals.append(Refusal(obj.ref, refused.pointer, refused.why))
    kubernetes = earlier.get("kubernetes")
    return Cilium(
        index,
        cluster,
        settings_of(world),
        tuple(policies),
        kubernetes if isinstance(kubernetes, Kubernetes) else None,
        tuple(refusals),
        {},
        {},
    )


FAMILY = Family(
    "cilium",
    frozenset((GROUP, kind) for kind in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "CiliumCIDRGroup")),
    compile_cluster,
)
