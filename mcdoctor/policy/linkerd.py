"""Linkerd: Server, ServerAuthorization, AuthorizationPolicy, its authentications, routes, default policies and
EgressNetwork.

Sources: linkerd2 `policy-controller/k8s/index/src/{defaults.rs,cluster_info.rs,inbound/*}`, there
`outbound/index/egress_network.rs`, `policy-controller/{src/admission.rs,k8s/api,grpc/src/inbound.rs}`; linkerd2-proxy
`linkerd/app/inbound/src/policy`, `linkerd/proxy/server-policy`.

Policy is enforced by the receiving proxy. A port with a Server refuses what nothing authorises (its accessPolicy may
say otherwise); a port without one follows the default policy of the pod, its namespace or the cluster. Authorisations
are OR'ed; inside one AuthorizationPolicy all authentications must hold. The sending proxy knows EgressNetworks only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from mcdoctor.policy.addresses import Block, Ip, host_block, parse_block, parse_ip
from mcdoctor.policy.crossing import in_port_list
from mcdoctor.policy.family import Compiled, Family
from mcdoctor.policy.fields import Field, Refused, escape
from mcdoctor.policy.gateway_routes import GATEWAY, GROUP, Route, host_fits, matches_any, ranked, read_route
from mcdoctor.policy.index import Index
from mcdoctor.policy.question import Packet
from mcdoctor.policy.selectors import Selector, matches, parse
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
    first_match,
    negate,
)
from mcdoctor.policy.world import Cluster, DomainName, End, Mesh, Object, Pod, World

LAYER = "linkerd"
CONFIG = "config.linkerd.io/"
DEFAULT_INBOUND = CONFIG + "default-inbound-policy"
REQUIRE_IDENTITY = CONFIG + "proxy-require-identity-inbound-ports"
POLICIES = (
    "all-unauthenticated",
    "all-authenticated",
    "cluster-unauthenticated",
    "cluster-authenticated",
    "deny",
    "audit",
)
INBOUND_PORT, TAP_PORT, ADMIN_PORT = 4143, 4190, 4191
_PRIVATE = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8"
_EVERYWHERE = "0.0.0.0/0,::/0"
_OPAQUE = "25,587,3306,4444,5432,6379,9300,11211"
_PROTOCOLS = ("unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS")


@dataclass(frozen=True, slots=True)
class Networks:
    """Blocks with exceptions; the peer address of the connection is compared."""

    blocks: tuple[tuple[Block, tuple[Block, ...]], ...]

    def covers(self, ip: Ip) -> bool:
        return any(ip in block and not any(ip in hole for hole in holes) for block, holes in self.blocks)

    @property
    def everything(self) -> bool:
        return {block.version for block, holes in self.blocks if block.prefix == 0 and not holes} == {4, 6}


@dataclass(frozen=True, slots=True)
class Identities:
    """Exact names, `*`, or `*.suffix`; SPIFFE ids exactly. `any_tls`: mesh TLS without a client identity will do."""

    names: tuple[str, ...]
    any_tls: bool = False


Authentication: TypeAlias = Networks | Identities


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """`pods` None: it selects external workloads, no pods."""

    ref: Ref
    pods: Selector | None
    port: int | str
    protocol: str
    access: str
    pointer: str
    created: str
    labels: Mapping[str, str]

    @property
    def order(self) -> tuple[bool, str, str]:
        return (not self.created, self.created, self.ref.name)


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """One authorisation: all of `required` must hold.

    `target` is (group, kind, name) of an AuthorizationPolicy's target, ("", "Namespace", ...) for the namespace;
    a ServerAuthorization has kind "Server" and, where it names no Server, the `selector` of its labels.
    """

    ref: Ref
    target: tuple[str, str, str]
    selector: Selector | None
    required: tuple[Authentication, ...]
    pointer: str


@dataclass(frozen=True, slots=True, eq=False)
class EgressNetwork:
    """`networks` None: everything outside the cluster networks."""

    ref: Ref
    networks: Networks | None
    deny: bool
    created: str


# --- configuration ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """What the control plane runs with; upstream's defaults where nothing says otherwise."""

    namespace: str = "linkerd"
    trust_domain: str = "cluster.local"
    default: str = ""
    """The cluster's default policy, '' = not seen."""
    default_by: tuple[Ref, str] | None = None
    networks: Networks = Networks(())
    probes: Networks = Networks(())
    opaque: str = _OPAQUE
    skip_inbound: str = ""
    egress_namespace: str = "linkerd-egress"

    def account(self, name: str, namespace: str) -> str:
        return f"{name}.{namespace}.serviceaccount.identity.{self.namespace}.{self.trust_domain}"


@lru_cache(maxsize=64)
def _values(text: str) -> Mapping[str, Any]:
    from mcdoctor.policy.documents import parse as read_documents

    documents, _ = read_documents(text, "values.yaml")
    return documents[0].object if documents else {}


def _nested(values: Mapping[str, Any], *path: str) -> Any:
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _blocks(text: object, otherwise: str) -> Networks:
    """A list of CIDRs, with commas or as YAML has it; what is none is left out."""
    listed = text if isinstance(text, list) else text.split(",") if isinstance(text, str) and text.strip() else None
    found = []
    for each in listed if listed is not None else otherwise.split(","):
        try:
            found.append((parse_block(str(each).strip()), ()))
        except ValueError:
            continue
    return Networks(tuple(found))


def _containers(pod: Pod) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(JSON pointer, container), init containers included."""
    for section in ("containers", "initContainers"):
        listed = pod.raw_spec.get(section)
        for number, container in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(container, Mapping):
                yield f"/spec/{section}/{number}", container


def _arguments(container: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(flag, value, index in `args`) of `--flag=value` and `--flag value`."""
    listed = container.get("args")
    words = [str(w) for w in listed] if isinstance(listed, list) else []
    for number, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and equals:
            yield flag[2:], value, number
        elif flag.startswith("--") and number + 1 < len(words) and not words[number + 1].startswith("--"):
            yield flag[2:], words[number + 1], number + 1


def _environment(pod: Pod, wanted: str) -> tuple[str, str]:
    """(value, pointer) of a variable of the pod's proxy, or ("", "")."""
    for pointer, container in _containers(pod):
        listed = container.get("env") if container.get("name") == "linkerd-proxy" else None
        for number, item in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(item, Mapping) and item.get("name") == wanted and isinstance(item.get("value"), str):
                return item["value"], f"{pointer}/env/{number}/value"
    return "", ""


def settings_of(cluster: Cluster) -> Settings:
    """From the ConfigMap linkerd-config, the policy controller's arguments and, without either, a proxy's variables."""
    found = Settings(networks=_blocks(None, _PRIVATE), probes=_blocks(None, _EVERYWHERE))
    known = False
    for obj in cluster.of("", "ConfigMap"):
        data = obj.raw.get("data")
        text = data.get("values") if isinstance(data, Mapping) else None
        if obj.ref.name != "linkerd-config" or not isinstance(text, str):
            continue
        values, known = _values(text), True
        default = _nested(values, "proxy", "defaultInboundPolicy")
        stated = default in POLICIES
        found = Settings(
            obj.ref.namespace,
            str(values.get("identityTrustDomain") or values.get("clusterDomain") or "cluster.local"),
            default if stated else "",
            (obj.ref, "/data/values") if stated else None,
            _blocks(values.get("clusterNetworks"), _PRIVATE),
            _blocks(_nested(values, "policyController", "probeNetworks"), _EVERYWHERE),
            str(_nested(values, "proxy", "opaquePorts") or _OPAQUE),
            str(_nested(values, "proxyInit", "ignoreInboundPorts") or ""),
            str(_nested(values, "egress", "globalEgressNetworkNamespace") or "linkerd-egress"),
        )
    meshed: Pod | None = None
    for pod in cluster.pods.values():
        if Mesh.LINKERD not in pod.mesh:
            continue
        meshed = meshed or pod
        if pod.labels.get("linkerd.io/control-plane-component") != "destination":
            continue
        for pointer, container in _containers(pod):
            if container.get("name") == "policy":
                found, known = _argued(found, pod, pointer, container), True
    if meshed is not None and not known:
        local, _ = _environment(meshed, "LINKERD2_PROXY_IDENTITY_LOCAL_NAME")
        namespace, dot, domain = local.partition(".serviceaccount.identity.")[2].partition(".")
        networks, _ = _environment(meshed, "LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS")
        found = replace(found, networks=_blocks(networks, _PRIVATE))
        if dot:
            found = replace(found, namespace=namespace, trust_domain=domain)
    return found


def _argued(found: Settings, pod: Pod, pointer: str, container: Mapping[str, Any]) -> Settings:
    for flag, value, number in _arguments(container):
        match flag:
            case "default-policy" if value in POLICIES:
                found = replace(found, default=value, default_by=(pod.ref, f"{pointer}/args/{number}"))
            case "cluster-networks":
                found = replace(found, networks=_blocks(value, _PRIVATE))
            case "probe-networks":
                found = replace(found, probes=_blocks(value, _EVERYWHERE))
            case "identity-domain":
                found = replace(found, trust_domain=value)
            case "control-plane-namespace":
                found = replace(found, namespace=value)
            case "default-opaque-ports":
                found = replace(found, opaque=value)
            case "global-egress-network-namespace":
                found = replace(found, egress_namespace=value)
            case _:
                pass
    return found


# --- reading -------------------------------------------------------------------------------------------------------


def _block(item: Field) -> Block:
    text = item.text()
    try:
        return parse_block(text) if "/" in text else host_block(parse_ip(text))
    except ValueError:
        raise Refused(item.pointer, f"{text!r} is not an IP address or CIDR") from None


def _networks(listed: Field) -> Networks:
    found = []
    for item in listed.items():
        block = _block(item["cidr"])
        holes = []
        for each in item["except"].items():
            hole = _block(each)
            if hole.covers(block):
                raise Refused(each.pointer, f"{block} is completely negated by {hole}")
            if not block.covers(hole):
                raise Refused(each.pointer, f"{block} does not include {hole}")
            holes.append(hole)
        found.append((block, tuple(holes)))
    if not found:
        raise Refused(listed.pointer, "at least one network must be specified")
    return Networks(tuple(found))


_DNS_LIKE = re.compile(r"(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]+(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._-]+)*\Z")


def _identity(item: Field) -> str:
    text = item.text()
    if not (_SPIFFE if text.startswith("spiffe://") else _DNS_LIKE).match(text):
        raise Refused(item.pointer, f"{text!r} is neither a DNS-like identity nor a SPIFFE id")
    return text


def _kind(reference: Field, allowed: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """(group, kind) of a reference; both compare without case, and the core group may be left out."""
    group = reference["group"].text("").lower().removesuffix("core")
    word = reference["kind"].text().lower()
    for kind, groups in allowed.items():
        if word == kind.lower() and group in groups:
            return group, kind
    shown = reference["kind"].text() + (f".{group}" if group else "")
    raise Refused(reference["kind"].pointer, f"{shown} is not one of {', '.join(allowed)} of the group expected")


def read_server(obj: Object) -> Server:
    spec = Field(obj.raw)["spec"]
    pods, others = spec["podSelector"], spec["externalWorkloadSelector"]
    if pods.present == others.present:
        raise Refused(spec.pointer, "exactly one of podSelector and externalWorkloadSelector must be set")
    port = spec["port"]
    if type(port.value) is str:
        if not port.value:
            raise Refused(port.pointer, "must not be empty")
    elif not 1 <= port.integer() <= 65535:
        raise Refused(port.pointer, f"{port.value} is not between 1 and 65535")
    protocol = spec["proxyProtocol"].choice(_PROTOCOLS, "unknown")
    access = spec["accessPolicy"]
    selector = parse(pods if pods.present else others)
    return Server(
        obj.ref,
        selector if pods.present else None,
        port.value,
        protocol,
        access.choice(POLICIES, "deny"),
        access.pointer if access.present else spec.pointer,
        obj.created,
        obj.labels,
    )


def read_server_authorization(obj: Object, settings: Settings) -> Grant:
    spec = Field(obj.raw)["spec"]
    server, client = spec["server"], spec["client"]
    if server["name"].present == server["selector"].present:
        raise Refused(server.pointer, "exactly one of name and selector must be set")
    # Without networks the controller sends the cluster's (to_authz in grpc/src/inbound.rs).
    given = client["networks"]
    required: list[Authentication] = [_networks(given) if list(given.items()) else settings.networks]
    tls = client["meshTLS"]
    names = list(tls["identities"].texts())
    for item in tls["serviceAccounts"].items():
        names.append(settings.account(item["name"].text(), item["namespace"].text(obj.ref.namespace)))
    unauthenticated = client["unauthenticated"].boolean(False)
    if unauthenticated and tls.present:
        raise Refused(client["unauthenticated"].pointer, "must be false if meshTLS is specified")
    if not unauthenticated:
        if not tls.present:
            raise Refused(client.pointer, "must set unauthenticated or meshTLS")
        if tls["unauthenticatedTLS"].boolean(False):
            if names:
                raise Refused(tls["unauthenticatedTLS"].pointer, "must be false if any client is specified")
            required.append(Identities((), any_tls=True))
        elif not names:
            raise Refused(tls.pointer, "authorises no clients")
        else:
            required.append(Identities(tuple(names)))
    name, by_label = server["name"], server["selector"]
    selector = parse(by_label) if by_label.present else None
    return Grant(obj.ref, (GROUP, "Server", name.text("")), selector, tuple(required), client.pointer)


_AUTHENTICATIONS = {"MeshTLSAuthentication": (GROUP,), "NetworkAuthentication": (GROUP,), "ServiceAccount": ("",)}
_TARGETS = {"Server": (GROUP,), "Namespace": ("",), "HTTPRoute": (GROUP, GATEWAY), "GRPCRoute": (GATEWAY,)}
_CLIENTS = {"ServiceAccount": ("",), "Namespace": ("",)}
Known: TypeAlias = Mapping[tuple[str, str, str], Authentication]


def read_authorization_policy(obj: Object, settings: Settings, known: Known) -> Grant | str:
    """Or which reference is missing: then the policy counts as absent."""
    spec = Field(obj.raw)["spec"]
    target = spec["targetRef"]
    group, kind = _kind(target, _TARGETS)
    name = target["name"].text()
    if kind == "Namespace" and name != obj.ref.namespace:
        raise Refused(target["name"].pointer, "cannot target another namespace")
    references = spec["requiredAuthenticationRefs"]
    found: list[Authentication] = []
    counted = {"client": 0, "network": 0}
    missing = ""
    for item in references.items():
        _, wanted = _kind(item, _AUTHENTICATIONS)
        counted["network" if wanted == "NetworkAuthentication" else "client"] += 1
        place = item["namespace"].text(obj.ref.namespace), item["name"].text()
        if wanted == "ServiceAccount":
            found.append(Identities((settings.account(place[1], place[0]),)))
        elif (wanted, *place) in known:
            found.append(known[(wanted, *place)])
        else:
            missing = missing or f"{wanted} {place[0]}/{place[1]}"
    if max(counted.values()) > 1:
        raise Refused(
            references.pointer, "at most one MeshTLSAuthentication or ServiceAccount and one NetworkAuthentication"
        )
    pointer = references.pointer if references.present else spec.pointer
    return missing or Grant(obj.ref, (group, kind, name), None, tuple(found), pointer)


def read_identities(obj: Object, settings: Settings) -> Identities:
    spec = Field(obj.raw)["spec"]
    identities, references = spec["identities"], spec["identityRefs"]
    if identities.present and references.present:
        raise Refused(spec.pointer, "only one of identities and identityRefs may be set")
    names = [_identity(item) for item in identities.items()]
    for item in references.items():
        _, kind = _kind(item, _CLIENTS)
        if kind == "ServiceAccount":
            names.append(settings.account(item["name"].text(), item["namespace"].text(obj.ref.namespace)))
        else:
            if item["namespace"].present:
                raise Refused(item["namespace"].pointer, "a Namespace is cluster-scoped and cannot have a namespace")
            names.append(settings.account("*", item["name"].text()))
    if not names:
        raise Refused(spec.pointer, "must have identities or identityRefs")
    return Identities(tuple(names))


def read_egress_network(obj: Object) -> EgressNetwork:
    spec = Field(obj.raw)["spec"]
    deny = spec["trafficPolicy"].choice(("Allow", "Deny")) == "Deny"
    networks = _networks(spec["networks"]) if spec["networks"].present else None
    return EgressNetwork(obj.ref, networks, deny, obj.created)


# --- the state of one cluster --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Linkerd:
    """The Linkerd objects of one cluster. Servers, grants and networks are kept by namespace."""

    world: World
    cluster: str
    servers: Mapping[str, Sequence[Server]]
    grants: Mapping[str, Sequence[Grant]]
    routes: Sequence[Route]
    egress: Mapping[str, Sequence[EgressNetwork]]
    absent: Mapping[Ref, str]
    refusals: tuple[Refusal, ...]
    _settings: dict[str, Settings] = field(default_factory=dict)

    def settings(self, cluster: str) -> Settings:
        found = self._settings.get(cluster)
        if found is None:
            found = self._settings[cluster] = settings_of(self.world.clusters[cluster])
        return found

    @cached_property
    def own(self) -> Settings:
        return self.settings(self.cluster)

    def enforce(self, packet: Packet) -> Ruling:
        if packet.protocol != "TCP":
            return SILENT  # the proxies capture TCP only
        subject = packet.subject
        if not isinstance(subject, Pod) or subject.cluster != self.cluster or Mesh.LINKERD not in subject.mesh:
            return SILENT
        if packet.direction is Direction.EGRESS:
            return self._egress(packet, subject) if self.egress else SILENT
        if packet.port is not None:
            return self._ingress(packet, subject)
        # Any port may be meant: the Servers' ports, and one that has none.
        unsaid = Doubt("which port is used", unseen=False)
        ports = {p for server in self._selecting(subject) for p in _ports(server, subject)}
        rulings = [self._ingress(replace(packet, port=port), subject) for port in sorted(ports)]
        rulings.append(self._ingress(packet, subject))
        branches = [Branch(b.effect, b.by, b.why, (*b.doubts, unsaid)) for r in rulings for b in r.branches]
        return Ruling(tuple(branches), tuple(step for r in rulings for step in r.trace))

    # --- receiving ---

    def _ingress(self, packet: Packet, pod: Pod) -> Ruling:
        if self._skipped(pod, packet.port, "inbound"):
            return SILENT
        tls = self._tls(packet)
        first: list[tuple[Match, Branch]] = []
        if packet.port == INBOUND_PORT:
            why = f"the proxy of {pod} takes only connections with an identity on its own port {INBOUND_PORT}"
            first.append((negate(tls), Branch(Effect.DENY, (), why)))
        server = self.server(pod, packet.port)
        if server is None:
            return self._default(pod, packet, tls, first)
        trace = [Step(LAYER, f"{server.ref} covers port {packet.port} of {pod}", server.ref, server.pointer)]
        trace += [
            Step(LAYER, f"{ref} counts as absent: {missing} does not exist", ref)
            for ref, missing in self.absent.items()
            if ref.namespace == pod.namespace
        ]
        granting = [g for g in self.grants.get(pod.namespace, ()) if _targets(g, server)]
        opaque = server.protocol in ("opaque", "TLS") or (tls is not False and self._opaque(pod, packet))
        routes = [] if opaque else self._attached(server)
        if routes:
            return self._by_route(routes, granting, server, packet, tls, first, trace)
        if server.protocol != "gRPC" and not opaque:
            first.append((self._probe(pod, packet), Branch(Effect.ALLOW, (), "HTTP probes of the pod are let in")))
        return self._decide(granting, server, packet, tls, first, trace)

    def _annotation(self, pod: Pod, name: str) -> str:
        """Of the pod, else of its namespace: the injector copies what the namespace has."""
        return pod.annotations.get(CONFIG + name) or self._home(pod).get(CONFIG + name, "")

    def _home(self, pod: Pod) -> Mapping[str, str]:
        return self.world.clusters[self.cluster].namespaces[pod.namespace].annotations

    def _skipped(self, pod: Pod, port: int | None, side: str) -> bool:
        """Ports that never reach the proxy. What the init container was told counts; 4191 is the proxy's own."""
        if port is None or (side == "inbound" and port == ADMIN_PORT):
            return False
        if side == "inbound" and port == TAP_PORT:
            return True
        for _, container in _containers(pod):
            if container.get("name") == "linkerd-init":
                told = {flag: value for flag, value, _ in _arguments(container)}
                return in_port_list(port, told.get(f"{side}-ports-to-ignore", ""))
        listed = self._annotation(pod, f"skip-{side}-ports")
        return in_port_list(port, listed or (self.own.skip_inbound if side == "inbound" else ""))

    def _opaque(self, pod: Pod, packet: Packet) -> bool:
        """Whether a meshed client hands the connection over without looking for HTTP."""
        listed = pod.annotations.get(CONFIG + "opaque-ports", self._home(pod).get(CONFIG + "opaque-ports"))
        return packet.port is not None and in_port_list(packet.port, self.own.opaque if listed is None else listed)

    # who asks

    @staticmethod
    def _client(packet: Packet) -> End:
        return packet.client if packet.client is not None else packet.source

    def _tls(self, packet: Packet) -> Match:
        """Whether the connection carries a mesh identity: said, or concluded from how the client is meshed."""
        if packet.mtls is not None:
            return packet.mtls
        if packet.principal is not None:
            return True
        client = self._client(packet)
        if isinstance(client, DomainName):
            return Doubt(f"the identity of {client} is not known")
        if not isinstance(client, Pod) or Mesh.LINKERD not in client.mesh:
            return False
        asked = {packet.port}
        if packet.service is not None and isinstance(packet.destination, Pod):
            # Before translation the client's rules see the port of the Service.
            target = {packet.port, *(p.name for p in packet.destination.ports if p.port == packet.port)} - {"", None}
            asked = {p.port for p in packet.service.ports if p.target in target} or asked
        return not any(self._skipped_by(client, port) for port in asked)

    def _skipped_by(self, client: Pod, port: int | None) -> bool:
        if client.cluster == self.cluster:
            return self._skipped(client, port, "outbound")
        return port is not None and in_port_list(port, client.annotations.get(CONFIG + "skip-outbound-ports", ""))

    def identity(self, packet: Packet) -> str | Doubt:
        if packet.principal is not None:
            return packet.principal
        client = self._client(packet)
        if not isinstance(client, Pod):
            return Doubt(f"the identity of {client} is not known")
        known = client.cluster in self.world.clusters
        settings = self.settings(client.cluster) if known else self.own
        return settings.account(client.service_account or "default", client.namespace)

    def _holds(self, required: Authentication, packet: Packet, tls: Match) -> Match:
        match required:
            case Networks():
                ips = packet.ips(packet.source)
                if not ips:
                    return required.everything or Doubt(f"the address of {packet.source} is not known")
                inside = [required.covers(ip) for ip in ips]
                if all(inside) or not any(inside):
                    return inside[0]
                return Doubt(f"which address of {packet.source} is used", unseen=False)
            case Identities():
                if required.any_tls or "*" in required.names:
                    return tls
                if tls is False:
                    return False
                name = self.identity(packet)
                if isinstance(name, Doubt):
                    return both(tls, name)
                return both(tls, any(_named(pattern, name) for pattern in required.names))

    def _allowed(self, policy: str, packet: Packet, tls: Match) -> Match:
        """Does a default policy, or a Server's accessPolicy, let the packet in?"""
        if policy == "deny":
            return False
        found: Match = self._holds(self.own.networks, packet, tls) if policy.startswith("cluster-") else True
        return both(found, tls) if policy.endswith("-authenticated") else found

    # what is asked

    def _selecting(self, pod: Pod) -> Iterator[Server]:
        for server in self.servers.get(pod.namespace, ()):
            if server.pods is not None and matches(server.pods, pod.labels):
                yield server

    def server(self, pod: Pod, port: int | None) -> Server | None:
        """The Server of a pod's port: the oldest, then by name."""
        return next((s for s in self._selecting(pod) if port is not None and port in _ports(s, pod)), None)

    def _attached(self, server: Server) -> list[Route]:
        """The routes of a Server that its protocol has a use for."""
        kind = "GRPCRoute" if server.protocol == "gRPC" else "HTTPRoute"
        return [
            r
            for r in self.routes
            if r.ref.kind == kind
            and r.ref.namespace == server.ref.namespace
            and any(p.kind == "Server" and p.name == server.ref.name for p in r.parents)
        ]

    def _probe(self, pod: Pod, packet: Packet) -> Match:
        """Is it one of the pod's HTTP probes, from a network where probes come from?"""
        paths = set(_probe_paths(pod, packet.port))
        if not paths:
            return False
        http = packet.http
        if http is None or http.path is None:
            # Ordinary traffic is not taken for a probe; what a node sends may be one.
            if isinstance(packet.source, (Pod, DomainName)) or http is not None:
                return False
            asked: Match = Doubt("whether the request is one of the pod's HTTP probes", unseen=False)
        else:
            asked = http.method in (None, "GET") and http.path.partition("?")[0] in paths
        return both(asked, self._holds(self.own.probes, packet, False))

    # deciding

    def _default(self, pod: Pod, packet: Packet, tls: Match, first: list[tuple[Match, Branch]]) -> Ruling:
        policy, ref, pointer = self.default_policy(pod)
        if packet.port is not None and in_port_list(
            packet.port, self._annotation(pod, REQUIRE_IDENTITY[len(CONFIG) :])
        ):
            stricter = policy.replace("-unauthenticated", "-authenticated")
            if stricter != policy:
                policy, ref = stricter, pod.ref
                if REQUIRE_IDENTITY not in pod.annotations:
                    ref = Ref(self.cluster, "Namespace", "", pod.namespace)
                pointer = _annotated(REQUIRE_IDENTITY)
        if policy in ("all-unauthenticated", "audit") and not first:
            return SILENT
        step = Step(LAYER, f"no Server covers port {packet.port} of {pod}: default policy {policy}", ref, pointer)
        why = f"the default policy of {pod} on port {packet.port} is {policy}"
        if not (tls is not False and self._opaque(pod, packet)):
            first.append((self._probe(pod, packet), Branch(Effect.NEXT, (), "HTTP probes of the pod are let in")))
        first.append((self._allowed(policy, packet, tls), Branch(Effect.NEXT, why=why)))
        deny = (Deciding(ref, pointer, Direction.INGRESS, "deny", implicit=True),) if ref is not None else ()
        return first_match(first, Branch(Effect.DENY, deny, why), (step,))

    def default_policy(self, pod: Pod) -> tuple[str, Ref | None, str]:
        """(policy, object that sets it, pointer): the pod's annotation, its namespace's, the cluster's, the proxy's."""
        if pod.annotations.get(DEFAULT_INBOUND) in POLICIES:
            return pod.annotations[DEFAULT_INBOUND], pod.ref, _annotated(DEFAULT_INBOUND)
        home = self._home(pod)
        if home.get(DEFAULT_INBOUND) in POLICIES:
            return home[DEFAULT_INBOUND], Ref(self.cluster, "Namespace", "", pod.namespace), _annotated(DEFAULT_INBOUND)
        if self.own.default_by is not None:
            return self.own.default, *self.own.default_by
        value, pointer = _environment(pod, "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY")
        if value in POLICIES:
            return value, pod.ref, pointer
        return "all-unauthenticated", None, ""

    def _decide(
        self,
        granting: Iterable[Grant],
        server: Server,
        packet: Packet,
        tls: Match,
        first: Sequence[tuple[Match, Branch]],
        trace: Sequence[Step],
    ) -> Ruling:
        sure: list[Deciding] = []
        perhaps: list[tuple[Match, Branch]] = []
        steps = list(trace)
        for grant in granting:
            match: Match = True
            for required in grant.required:
                match = both(match, self._holds(required, packet, tls))
            told = "admits it" if match is True else "does not admit it" if match is False else "may admit it"
            steps.append(Step(LAYER, f"{grant.ref} {told}", grant.ref, grant.pointer))
            by = Deciding(grant.ref, grant.pointer, Direction.INGRESS, "allow")
            if match is True:
                sure.append(by)
            elif match is not False:
                perhaps.append((match, Branch(Effect.ALLOW, (by,), f"{grant.ref} may allow it")))
        access = self._allowed(server.access, packet, tls)
        by = Deciding(server.ref, server.pointer, Direction.INGRESS, "allow")
        opened = Branch(Effect.ALLOW, (by,), f"the accessPolicy of {server.ref} is {server.access}")
        rules = list(first)
        if sure:
            rules.append((True, Branch(Effect.ALLOW, tuple(sure), f"{sure[0].ref} allows it")))
        elif access is True:
            rules.append((True, opened))
        else:
            rules += [*perhaps, (access, opened)]
        closed = Deciding(
            server.ref, server.pointer, Direction.INGRESS, "deny", implicit=True, note="nothing authorises it"
        )
        return first_match(rules, Branch(Effect.DENY, (closed,), f"nothing authorises it at {server.ref}"), steps)

    def _by_route(
        self,
        routes: Sequence[Route],
        granting: Sequence[Grant],
        server: Server,
        packet: Packet,
        tls: Match,
        first: Sequence[tuple[Match, Branch]],
        trace: Sequence[Step],
    ) -> Ruling:
        """A request goes to the route that fits best and needs an authorisation of it or of the Server; one that fits
        none gets 404. What is not HTTP, on a port that takes both, needs one of the Server.
        """
        branches: list[Branch] = []
        steps = list(trace)
        doubts: tuple[Doubt, ...] = ()
        if packet.http is None and server.protocol == "unknown":
            plain = self._decide(granting, server, packet, tls, first, ())
            either_way = Doubt("whether the connection speaks HTTP", unseen=False)
            branches += [Branch(b.effect, b.by, b.why, (either_way, *b.doubts)) for b in plain.branches]
            doubts = (either_way,)
        for match, route, pointer in ranked(routes, packet.http):
            steps.append(Step(LAYER, f"{route.ref} takes the request", route.ref, pointer))
            target = (route.group, route.ref.kind, route.ref.name)
            its = [g for g in self.grants.get(route.ref.namespace, ()) if g.target == target]
            ruling = self._decide([*its, *granting], server, packet, tls, first, ())
            here = (*doubts, match) if isinstance(match, Doubt) else doubts
            branches += [Branch(b.effect, b.by, b.why, (*here, *b.doubts)) for b in ruling.branches]
            steps += ruling.trace
            if match is True:
                return Ruling(tuple(branches), tuple(steps))
            assert isinstance(match, Doubt)
            doubts = (*doubts, match)
        names = ", ".join(str(route.ref) for route in routes)
        by = tuple(Deciding(r.ref, r.pointer, Direction.INGRESS, "deny", implicit=True) for r in routes)
        branches.append(Branch(Effect.DENY, by, f"the request fits none of {names}: 404", doubts))
        return Ruling(tuple(branches), tuple(steps))

    # --- sending ---

    def _egress(self, packet: Packet, pod: Pod) -> Ruling:
        """What EgressNetworks refuse: traffic to their networks that none of their routes describes."""
        listed = self.egress.get(pod.namespace) or self.egress.get(self.own.egress_namespace)
        if not listed or packet.service is not None or self._skipped(pod, packet.port, "outbound"):
            return SILENT
        destination = packet.destination
        if isinstance(destination, DomainName):
            doubt = Doubt(f"which addresses {destination} resolves to", unseen=False)
            found = {id(n): n for n in listed}
        else:
            chosen = [self._capturing(listed, ip) for ip in packet.ips(destination)]
            if not chosen:
                return SILENT
            found = {id(n): n for n in chosen if n is not None}
            doubt = Doubt(f"which address of {destination} is used", unseen=False)
            if isinstance(destination, Pod):
                doubt = Doubt("whether the proxy takes a pod's address for one of an EgressNetwork")
            elif len(found) <= 1 and None not in chosen:
                return self._at_network(next(iter(found.values())), packet, True)
        branches = [Branch(Effect.NEXT, (), "no EgressNetwork captures it", (doubt,))]
        for network in found.values():
            ruling = self._at_network(network, packet, doubt)
            branches += [Branch(b.effect, b.by, b.why, (doubt, *b.doubts)) for b in ruling.branches]
        steps = tuple(Step(LAYER, f"{n.ref} may capture it", n.ref, "/spec/trafficPolicy") for n in found.values())
        return Ruling(tuple(branches), steps)

    def _capturing(self, listed: Iterable[EgressNetwork], ip: Ip) -> EgressNetwork | None:
        """The network of the smallest block around the address; then the oldest, then by name."""
        found = []
        for network in listed:
            sizes = [block.high - block.low for block, holes in self._blocks_of(network) if ip in block
                     and not any(ip in hole for hole in holes)]  # fmt: skip
            if sizes:
                found.append((min(sizes), network.created, network.ref.name, network))
        return min(found, key=lambda f: f[:3])[3] if found else None

    def _blocks_of(self, network: EgressNetwork) -> Iterable[tuple[Block, tuple[Block, ...]]]:
        if network.networks is not None:
            return network.networks.blocks
        inside = [block for block, _ in self.own.networks.blocks]
        return [
            (whole, tuple(b for b in inside if b.version == whole.version))
            for whole in (parse_block("0.0.0.0/0"), parse_block("::/0"))
        ]

    def _at_network(self, network: EgressNetwork, packet: Packet, captured: Match) -> Ruling:
        pointer = "/spec/trafficPolicy"
        if not network.deny:
            return Ruling((Branch(Effect.NEXT),), (Step(LAYER, f"{network.ref} allows all", network.ref, pointer),))
        rules: list[tuple[Match, Branch]] = []
        for route in self.routes:
            place = (route.ref.namespace, network.ref.namespace)
            attached = any(
                p.kind == "EgressNetwork" and (p.namespace, p.name) == (network.ref.namespace, network.ref.name)
                and packet.port in (p.port, None)
                for p in route.parents
            )  # fmt: skip
            if attached and (
                place[0] == place[1] or (isinstance(packet.source, Pod) and place[0] == packet.source.namespace)
            ):
                by = Deciding(route.ref, route.pointer, Direction.EGRESS, "allow")
                why = f"{route.ref} describes it"
                rules.append((_described(route, packet), Branch(Effect.ALLOW, (by,), why)))
        deny = Deciding(network.ref, pointer, Direction.EGRESS, "deny", implicit=bool(rules))
        why = f"{network.ref} refuses what no route of it describes"
        told = "captures it" if captured is True else "may capture it"
        trace = (Step(LAYER, f"{network.ref} {told}: {len(rules)} routes on the port", network.ref, pointer),)
        return first_match(rules, Branch(Effect.DENY, (deny,), why), trace)


def _annotated(name: str) -> str:
    return f"/metadata/annotations/{escape(name)}"


def _ports(server: Server, pod: Pod) -> Iterable[int]:
    """The ports of the pod that a Server covers; a name may stand for several, of init containers too."""
    if isinstance(server.port, int):
        return (server.port,)
    return {p.port for p in pod.named_ports(server.port, "TCP", init=True)}


def _targets(grant: Grant, server: Server) -> bool:
    """A grant of the Server's namespace that holds for the whole Server."""
    _, kind, name = grant.target
    if kind == "Namespace":
        return True
    if kind != "Server":
        return False
    return matches(grant.selector, server.labels) if grant.selector is not None else name == server.ref.name


def _named(pattern: str, name: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else pattern in ("*", name)


def _probe_paths(pod: Pod, port: int | None) -> Iterator[str]:
    """Paths of the HTTP probes on a port, of init containers too; a port's name is looked up in its own container."""
    for _, container in _containers(pod):
        for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
            probe = container.get(kind)
            get = probe.get("httpGet") if isinstance(probe, Mapping) else None
            if not isinstance(get, Mapping):
                continue
            number = get.get("port")
            if isinstance(number, str) and not number.isdigit():
                listed = container.get("ports")
                number = next(
                    (
                        p.get("containerPort")
                        for p in (listed if isinstance(listed, list) else ())
                        if isinstance(p, Mapping)
                        and str(p.get("name", "")).lower() == number.lower()
                        and str(p.get("protocol") or "TCP").upper() == "TCP"
                    ),
                    None,
                )
            if number is not None and str(number) == str(port):
                yield str(get.get("path") or "/").partition("?")[0]


def _described(route: Route, packet: Packet) -> Match:
    """Whether a route of an EgressNetwork describes the traffic."""
    kind = route.ref.kind
    if kind == "TCPRoute":
        return True
    if kind != "TLSRoute":
        return matches_any(route, packet.http)
    name = packet.destination.name if isinstance(packet.destination, DomainName) else None
    if route.hosts and name is not None and not any(host_fits(h, name) for h in route.hosts):
        return False
    return Doubt("which server name the connection's TLS asks for", unseen=False)


_AUTHENTICATION_KINDS = ("MeshTLSAuthentication", "NetworkAuthentication")
_OBJECTS = (*_AUTHENTICATION_KINDS, "Server", "ServerAuthorization", "AuthorizationPolicy", "EgressNetwork")
_ROUTES = ((GROUP, "HTTPRoute"), *((GATEWAY, kind) for kind in ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute")))
KINDS = frozenset({*((GROUP, kind) for kind in _OBJECTS), *_ROUTES})


def _overlapping(servers: Iterable[Server]) -> Iterator[Refusal]:
    """Younger Servers that the webhook would not have let in beside an older one."""
    earlier: list[Server] = []
    for server in servers:
        for other in earlier:
            alike = server.pods in (other.pods, ()) or other.pods == ()
            both_pods = server.pods is not None and other.pods is not None
            if both_pods and alike and server.port == other.port:
                why = f"{other.ref} already defines a policy for port {server.port} of pods selected by this one"
                yield Refusal(server.ref, "/spec/port", why, fatal=False)
                break
        earlier.append(server)


def compile_cluster(index: Index, cluster: str, earlier: Mapping[str, Compiled]) -> Linkerd:
    """The Linkerd family of one cluster."""
    del earlier  # a mesh builds on no other family
    mine = index.world.clusters[cluster]
    refusals: list[Refusal] = []
    servers: dict[str, list[Server]] = {}
    grants: dict[str, list[Grant]] = {}
    routes: list[Route] = []
    egress: dict[str, list[EgressNetwork]] = {}
    absent: dict[Ref, str] = {}
    known: dict[tuple[str, str, str], Authentication] = {}
    compiled = Linkerd(index.world, cluster, servers, grants, routes, egress, absent, ())
    for group, kind in (*((GROUP, kind) for kind in _OBJECTS), *_ROUTES):
        for obj in sorted(mine.of(group, kind), key=lambda o: (o.ref.namespace, o.ref.name)):
            home = obj.ref.namespace
            try:
                match kind:
                    case "MeshTLSAuthentication":
                        known[kind, home, obj.ref.name] = read_identities(obj, compiled.own)
                    case "NetworkAuthentication":
                        known[kind, home, obj.ref.name] = _networks(Field(obj.raw)["spec"]["networks"])
                    case "Server":
                        servers.setdefault(home, []).append(read_server(obj))
                    case "ServerAuthorization":
                        grants.setdefault(home, []).append(read_server_authorization(obj, compiled.own))
                    case "AuthorizationPolicy":
                        grant = read_authorization_policy(obj, compiled.own, known)
                        if isinstance(grant, Grant):
                            grants.setdefault(home, []).append(grant)
                        else:
                            absent[obj.ref] = grant
                    case "EgressNetwork":
                        egress.setdefault(home, []).append(read_egress_network(obj))
                    case _:
                        route = read_route(obj, group)
                        if route.parents:
                            routes.append(route)
            except Refused as refused:
                refusals.append(Refusal(obj.ref, refused.pointer, refused.why))
    for listed in servers.values():
        listed.sort(key=lambda s: s.order)
        refusals += _overlapping(listed)
    routes.sort(key=lambda r: r.order)
    return replace(compiled, refusals=tuple(refusals))


FAMILY = Family(LAYER, KINDS, compile_cluster)
