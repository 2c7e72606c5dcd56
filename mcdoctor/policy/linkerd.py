"""Linkerd: Server, ServerAuthorization, AuthorizationPolicy, its authentications, routes and default policies.

Sources: linkerd2 `policy-controller/k8s/index/src/{defaults.rs,cluster_info.rs,inbound/*}` and
`policy-controller/k8s/api`; linkerd2-proxy `linkerd/app/inbound/src/policy`.

Policy is enforced by the receiving proxy alone. A port with a Server refuses what nothing authorises (its accessPolicy
may say otherwise); a port without one follows the default policy of the pod, its namespace or the cluster.
Authorisations are OR'ed; inside one AuthorizationPolicy all authentications must hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mcdoctor.policy.addresses import Block, parse_block
from mcdoctor.policy.crossing import in_port_list
from mcdoctor.policy.family import Compiled, Family
from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.index import Index
from mcdoctor.policy.question import Http, Packet
from mcdoctor.policy.selectors import DOES_NOT_EXIST, EXISTS, Requirement, Selector, matches, parse
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
    negate,
)
from mcdoctor.policy.world import Cluster, Mesh, Object, Pod

GROUP, GATEWAY = "policy.linkerd.io", "gateway.networking.k8s.io"
LAYER = "linkerd"
DEFAULT_INBOUND = "config.linkerd.io/default-inbound-policy"
POLICIES = (
    "all-unauthenticated",
    "all-authenticated",
    "cluster-unauthenticated",
    "cluster-authenticated",
    "deny",
    "audit",
)
_PRIVATE = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8"
# A Server for external workloads selects no pod: an impossible selector keeps it out without a case of its own.
_NOTHING: Selector = (Requirement("a", EXISTS), Requirement("a", DOES_NOT_EXIST))
_PROTOCOLS = ("unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS")


@dataclass(frozen=True, slots=True)
class Networks:
    """Blocks with exceptions; the peer address of the connection is compared."""

    blocks: tuple[tuple[Block, tuple[Block, ...]], ...]


@dataclass(frozen=True, slots=True)
class Identities:
    """Exact names, `*`, or `*.suffix`; SPIFFE ids exactly. `any_tls`: TLS without a client identity will do."""

    names: tuple[str, ...]
    any_tls: bool = False


Authentication: TypeAlias = Networks | Identities


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    ref: Ref
    pods: Selector
    port: int | str
    protocol: str
    access: str
    pointer: str
    created: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """One authorisation: all of `required` must hold. `server`/`selector`/`target` say what it is for."""

    ref: Ref
    server: str
    selector: Selector | None
    target: tuple[str, str]
    """(kind, name): Server, Namespace, HTTPRoute or GRPCRoute; ("", "") for a ServerAuthorization."""
    required: tuple[Authentication, ...]
    pointer: str


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """An HTTPRoute or GRPCRoute attached to Servers. `matches` () = everything."""

    ref: Ref
    servers: tuple[str, ...]
    hosts: tuple[str, ...]
    matches: tuple[Mapping[str, Any], ...]
    created: str
    pointer: str


@dataclass(frozen=True, slots=True)
class Settings:
    """From the ConfigMap linkerd-config; defaults where it is not among the objects."""

    namespace: str = "linkerd"
    trust_domain: str = "cluster.local"
    default: str = "all-unauthenticated"
    networks: tuple[Block, ...] = ()
    ref: Ref | None = None


def _cidr(field: Field) -> Block:
    try:
        return parse_block(
            field.text() if "/" in str(field.value) else f"{field.text()}/{128 if ':' in field.text() else 32}"
        )
    except ValueError:
        raise Refused(field.pointer, f"{field.value!r} is not a valid CIDR") from None


def _networks(field: Field) -> Networks:
    found = []
    for item in field.items():
        found.append((_cidr(item["cidr"]), tuple(_cidr(each) for each in item["except"].items())))
    if not found:
        raise Refused(field.pointer, "must have at least one network")
    return Networks(tuple(found))


def settings_of(cluster: Cluster) -> Settings:
    from mcdoctor.policy.documents import parse as read_documents

    values: Mapping[str, Any] = {}
    namespace, ref = "linkerd", None
    for obj in cluster.of("", "ConfigMap"):
        data = obj.raw.get("data")
        if obj.ref.name == "linkerd-config" and isinstance(data, dict) and isinstance(data.get("values"), str):
            documents, _ = read_documents(data["values"], "values")
            values = documents[0].object if documents else {}
            namespace, ref = obj.ref.namespace, obj.ref
    proxy = values.get("proxy")
    default = proxy.get("defaultInboundPolicy") if isinstance(proxy, dict) else None
    blocks = []
    for text in str(values.get("clusterNetworks") or _PRIVATE).split(","):
        try:
            blocks.append(parse_block(text.strip()))
        except ValueError:
            continue
    return Settings(
        namespace,
        str(values.get("identityTrustDomain") or values.get("clusterDomain") or "cluster.local"),
        default if default in POLICIES else "all-unauthenticated",
        tuple(blocks),
        ref,
    )


# --- reading -------------------------------------------------------------------------------------------------------


def read_server(obj: Object) -> Server:
    spec = Field(obj.raw)["spec"]
    pods, others = spec["podSelector"], spec["externalWorkloadSelector"]
    if pods.present == others.present:
        raise Refused(spec.pointer, "exactly one of podSelector and externalWorkloadSelector must be set")
    port = spec["port"]
    if type(port.value) is not str:
        number = port.integer()
        if not 1 <= number <= 65535:
            raise Refused(port.pointer, f"{number} is not between 1 and 65535")
    protocol = spec["proxyProtocol"].choice(_PROTOCOLS, "unknown")
    access = spec["accessPolicy"]
    selector = parse(pods) if pods.present else _NOTHING
    return Server(
        obj.ref,
        selector,
        port.value,
        protocol,
        access.choice(POLICIES, "deny"),
        access.pointer if access.present else spec.pointer,
        obj.created,
        obj.labels,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    settings: Settings
    meshes: Mapping[tuple[str, str], Identities]
    networks: Mapping[tuple[str, str], Networks]

    def account(self, name: str, namespace: str) -> str:
        return f"{name}.{namespace}.serviceaccount.identity.{self.settings.namespace}.{self.settings.trust_domain}"

    def server_authorization(self, obj: Object) -> Grant:
        spec = Field(obj.raw)["spec"]
        server, client = spec["server"], spec["client"]
        if server["name"].present == server["selector"].present:
            raise Refused(server.pointer, "exactly one of name and selector must be set")
        required: list[Authentication] = []
        if client["networks"].present:
            required.append(_networks(client["networks"]))
        tls = client["meshTLS"]
        if not client["unauthenticated"].boolean(False):
            if not tls.present:
                raise Refused(client.pointer, "must set unauthenticated or meshTLS")
            if tls["unauthenticatedTLS"].boolean(False):
                required.append(Identities((), any_tls=True))
            else:
                names = list(tls["identities"].texts())
                for item in tls["serviceAccounts"].items():
                    names.append(self.account(item["name"].text(), item["namespace"].text(obj.ref.namespace)))
                if not names:
                    raise Refused(tls.pointer, "authorises no clients")
                required.append(Identities(tuple(names)))
        selector = parse(server["selector"]) if server["selector"].present else None
        return Grant(obj.ref, server["name"].text(""), selector, ("", ""), tuple(required), client.pointer)

    def authorization_policy(self, obj: Object) -> Grant | str:
        """Or the reference that is missing: then the policy counts as absent."""
        spec = Field(obj.raw)["spec"]
        target = spec["targetRef"]
        kind = target["kind"].choice(("Server", "Namespace", "HTTPRoute", "GRPCRoute"))
        name = target["name"].text()
        if kind == "Namespace" and name != obj.ref.namespace:
            raise Refused(target["name"].pointer, "cannot target another namespace")
        references = spec["requiredAuthenticationRefs"]
        found: list[Authentication] = []
        counted = {"tls": 0, "network": 0}
        missing = ""
        for item in references.items():
            wanted = item["kind"].choice(("MeshTLSAuthentication", "NetworkAuthentication", "ServiceAccount"))
            counted["network" if wanted == "NetworkAuthentication" else "tls"] += 1
            place = item["namespace"].text(obj.ref.namespace), item["name"].text()
            if wanted == "ServiceAccount":
                found.append(Identities((self.account(place[1], place[0]),)))
                continue
            known: Authentication | None = (self.meshes if wanted.startswith("Mesh") else self.networks).get(place)
            if known is None:
                missing = f"{wanted} {place[0]}/{place[1]}"
            else:
                found.append(known)
        if max(counted.values()) > 1:
            raise Refused(
                references.pointer, "at most one MeshTLSAuthentication or ServiceAccount and one NetworkAuthentication"
            )
        pointer = references.pointer if references.present else spec.pointer
        return missing or Grant(obj.ref, "", None, (kind, name), tuple(found), pointer)

    def identities(self, obj: Object) -> Identities:
        spec = Field(obj.raw)["spec"]
        names = list(spec["identities"].texts())
        for item in spec["identityRefs"].items():
            kind = item["kind"].choice(("ServiceAccount", "Namespace"))
            if kind == "ServiceAccount":
                names.append(self.account(item["name"].text(), item["namespace"].text(obj.ref.namespace)))
            else:
                names.append(self.account("*", item["name"].text()))
        if not names:
            raise Refused(spec.pointer, "must have identities or identityRefs")
        return Identities(tuple(names))


def read_route(obj: Object) -> Route | None:
    """None when it is attached to no Server."""
    spec = Field(obj.raw)["spec"]
    servers = []
    for parent in spec["parentRefs"].items():
        attached = parent["group"].text(GATEWAY) == GROUP and parent["kind"].text("Gateway") == "Server"
        if attached and parent["namespace"].text(obj.ref.namespace) == obj.ref.namespace:
            servers.append(parent["name"].text())
    if not servers:
        return None
    found: list[Mapping[str, Any]] = []
    for rule in spec["rules"].items():
        listed = [item.mapping() for item in rule["matches"].items()]
        found += listed or [{}]
    pointer = spec["rules"].pointer if spec["rules"].present else spec.pointer
    return Route(obj.ref, tuple(servers), spec["hostnames"].texts(), tuple(found) or ({},), obj.created, pointer)


# --- the state of one cluster --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Linkerd:
    cluster: str
    world: Cluster
    settings: Settings
    servers: tuple[Server, ...]
    grants: tuple[Grant, ...]
    routes: tuple[Route, ...]
    absent: Mapping[Ref, str]
    refusals: tuple[Refusal, ...]
    index: Index

    def enforce(self, packet: Packet) -> Ruling:
        pod = packet.destination
        if packet.direction is Direction.EGRESS or packet.protocol != "TCP":
            return SILENT  # there is no policy on the sending side
        if not isinstance(pod, Pod) or pod.cluster != self.cluster or Mesh.LINKERD not in pod.mesh:
            return SILENT
        notes = pod.annotations
        if packet.port is not None and in_port_list(
            packet.port, self._annotation(pod, "config.linkerd.io/skip-inbound-ports")
        ):
            return SILENT
        tls = self._tls(packet)
        rules: list[tuple[Match, Branch]] = []
        trace: list[Step] = []
        demanded = notes.get("config.linkerd.io/proxy-require-identity-inbound-ports", "")
        if packet.port is not None and in_port_list(packet.port, demanded):
            pointer = "/metadata/annotations/config.linkerd.io~1proxy-require-identity-inbound-ports"
            by = Deciding(pod.ref, pointer, Direction.INGRESS, "deny")
            rules.append((negate(tls), Branch(Effect.DENY, (by,), f"{pod} demands an identity on port {packet.port}")))
        server = self.server(pod, packet.port)
        if server is None:
            return self._default(pod, packet, tls, rules)
        trace.append(Step(LAYER, f"{server.ref} covers port {packet.port} of {pod}", server.ref, server.pointer))
        routes = [] if server.protocol in ("opaque", "TLS") or self._opaque(pod, packet) else self._routes(server)
        granting = [g for g in self.grants if self._targets(g, server)]
        for ref, missing in self.absent.items():
            if ref.namespace == server.ref.namespace:
                trace.append(Step(LAYER, f"{ref} counts as absent: {missing} does not exist", ref))
        if routes:
            return self._per_route(routes, granting, server, packet, tls, rules, trace)
        if self._probe(pod, packet):
            trace.append(Step(LAYER, "an HTTP probe of the pod is always let in"))
            return Ruling((Branch(Effect.ALLOW, (), "an HTTP probe of the pod is always let in"),), tuple(trace))
        return self._decide(granting, server, packet, tls, rules, trace)

    # who asks

    def _annotation(self, pod: Pod, name: str) -> str:
        return pod.annotations.get(name) or self.world.namespaces[pod.namespace].annotations.get(name, "")

    def _tls(self, packet: Packet) -> Match:
        if packet.mtls is not None:
            return packet.mtls
        if packet.principal is not None:
            return True
        client = packet.client if packet.client is not None else packet.source
        if not isinstance(client, Pod) or Mesh.LINKERD not in client.mesh:
            return False
        skipped = client.annotations.get("config.linkerd.io/skip-outbound-ports", "")
        return not (packet.port is not None and in_port_list(packet.port, skipped))

    def identity(self, packet: Packet) -> str | None:
        if packet.principal is not None:
            return packet.principal
        client = packet.client if packet.client is not None else packet.source
        if not isinstance(client, Pod):
            return None
        settings = self.settings
        if client.cluster != self.cluster and client.cluster in self.index.world.clusters:
            settings = settings_of(self.index.world.clusters[client.cluster])
        suffix = f"serviceaccount.identity.{settings.namespace}.{settings.trust_domain}"
        return f"{client.service_account}.{client.namespace}.{suffix}"

    def _holds(self, required: Authentication, packet: Packet, tls: Match) -> Match:
        match required:
            case Networks():
                ips = packet.ips(packet.source)
                if not ips:
                    return Doubt(f"the address of {packet.source} is not known")
                return any(
                    ip in block and not any(ip in hole for hole in excepts)
                    for ip in ips
                    for block, excepts in required.blocks
                )
            case Identities():
                if required.any_tls:
                    return tls
                name = self.identity(packet)
                return both(tls, name is not None and any(_named(pattern, name) for pattern in required.names))

    def _allowed(self, policy: str, packet: Packet, tls: Match) -> Match:
        """Does a default policy, or a Server's accessPolicy, let the packet in?"""
        if policy == "deny":
            return False
        found: Match = True
        if policy.startswith("cluster-"):
            found = self._holds(Networks(tuple((block, ()) for block in self.settings.networks)), packet, tls)
        return both(found, tls) if policy.endswith("-authenticated") else found

    # what is asked

    def server(self, pod: Pod, port: int | None) -> Server | None:
        """The Server of a pod's port: the oldest, then by name."""
        found = [s for s in self.servers if s.ref.namespace == pod.namespace and self._covers(s, pod, port)]
        return min(found, key=lambda s: (s.created or "9", s.ref.name), default=None)

    @staticmethod
    def _covers(server: Server, pod: Pod, port: int | None) -> bool:
        if port is None or not matches(server.pods, pod.labels):
            return False
        if isinstance(server.port, int):
            return server.port == port
        return any(p.port == port for p in pod.named_ports(server.port, None, init=True))

    @staticmethod
    def _targets(grant: Grant, server: Server) -> bool:
        """A grant for the whole Server, by name, by label or through its namespace."""
        if grant.ref.namespace != server.ref.namespace:
            return False
        if grant.target[0] == "Namespace":
            return True
        if grant.target[0] == "Server":
            return grant.target[1] == server.ref.name
        if grant.target[0]:
            return False
        if grant.selector is not None:
            return matches(grant.selector, server.labels)
        return grant.server == server.ref.name

    def _routes(self, server: Server) -> list[Route]:
        return [r for r in self.routes if r.ref.namespace == server.ref.namespace and server.ref.name in r.servers]

    def _opaque(self, pod: Pod, packet: Packet) -> bool:
        return packet.port is not None and in_port_list(
            packet.port, self._annotation(pod, "config.linkerd.io/opaque-ports")
        )

    @staticmethod
    def _probe(pod: Pod, packet: Packet) -> bool:
        """Is the request one of the pod's HTTP probes, by path and port?"""
        if packet.http is None or packet.http.path is None or packet.http.method not in (None, "GET"):
            return False
        containers = pod.raw_spec.get("containers")
        for container in containers if isinstance(containers, list) else ():
            for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
                probe = container.get(kind) if isinstance(container, dict) else None
                get = probe.get("httpGet") if isinstance(probe, dict) else None
                if not isinstance(get, dict):
                    continue
                port = get.get("port")
                numbers = [port] if isinstance(port, int) else [p.port for p in pod.named_ports(str(port), None)]
                if packet.port in numbers and packet.http.path.partition("?")[0] == (get.get("path") or "/"):
                    return True
        return False

    # deciding

    def _default(self, pod: Pod, packet: Packet, tls: Match, rules: list[tuple[Match, Branch]]) -> Ruling:
        pointer = "/metadata/annotations/" + DEFAULT_INBOUND.replace("/", "~1")
        namespace = self.world.namespaces[pod.namespace]
        policy, ref = self.settings.default, self.settings.ref
        if pod.annotations.get(DEFAULT_INBOUND) in POLICIES:
            policy, ref = pod.annotations[DEFAULT_INBOUND], pod.ref
        elif namespace.annotations.get(DEFAULT_INBOUND) in POLICIES:
            policy, ref = namespace.annotations[DEFAULT_INBOUND], Ref(self.cluster, "Namespace", "", pod.namespace)
        else:
            pointer = "/data/values"
        if policy in ("all-unauthenticated", "audit") and not rules:
            return SILENT
        if self._probe(pod, packet):
            return SILENT
        step = Step(LAYER, f"no Server covers port {packet.port} of {pod}: default policy {policy}", ref, pointer)
        allowed = self._allowed(policy, packet, tls)
        deny = (Deciding(ref, pointer, Direction.INGRESS, "deny", implicit=True),) if ref is not None else ()
        why = f"the default policy of {pod} is {policy}"
        rules.append((allowed, Branch(Effect.NEXT, why=why)))
        return first_match(rules, Branch(Effect.DENY, deny, why), (step,))

    def _decide(
        self,
        granting: Sequence[Grant],
        server: Server,
        packet: Packet,
        tls: Match,
        rules: list[tuple[Match, Branch]],
        trace: list[Step],
    ) -> Ruling:
        admitted: list[tuple[Match, Deciding]] = []
        for grant in granting:
            match: Match = True
            for required in grant.required:
                match = both(match, self._holds(required, packet, tls))
            told = "admits it" if match is True else "does not admit it" if match is False else "may admit it"
            trace.append(Step(LAYER, f"{grant.ref} {told}", grant.ref, grant.pointer))
            if match is not False:
                admitted.append((match, Deciding(grant.ref, grant.pointer, Direction.INGRESS, "allow")))
        sure = tuple(by for match, by in admitted if match is True)
        if sure:
            rules.append((True, Branch(Effect.ALLOW, sure, f"{sure[0].ref} allows it")))
        rules += [(match, Branch(Effect.ALLOW, (by,), f"{by.ref} may allow it")) for match, by in admitted if not sure]
        access = self._allowed(server.access, packet, tls)
        by = Deciding(server.ref, server.pointer, Direction.INGRESS, "allow")
        rules.append((access, Branch(Effect.ALLOW, (by,), f"the accessPolicy of {server.ref} is {server.access}")))
        closed = Deciding(
            server.ref, server.pointer, Direction.INGRESS, "deny", implicit=True, note="nothing authorises it"
        )
        return first_match(rules, Branch(Effect.DENY, (closed,), f"nothing authorises it at {server.ref}"), trace)

    def _per_route(
        self,
        routes: Sequence[Route],
        granting: Sequence[Grant],
        server: Server,
        packet: Packet,
        tls: Match,
        rules: list[tuple[Match, Branch]],
        trace: list[Step],
    ) -> Ruling:
        """A request goes to the route that fits best and needs an authorisation there; one that fits none gets 404."""
        fitting: list[tuple[Match, tuple[int, ...], Route]] = []
        for route in routes:
            match, rank = _fits(route, packet.http)
            if match is not False:
                fitting.append((match, rank, route))
        fitting.sort(key=lambda f: (f[1], f[2].created or "9", f[2].ref.name))
        branches: list[Branch] = []
        doubts: tuple[Doubt, ...] = ()
        for match, _, route in fitting:
            own = [
                g
                for g in self.grants
                if g.ref.namespace == route.ref.namespace and g.target == (route.ref.kind, route.ref.name)
            ]
            ruling = self._decide([*own, *granting], server, packet, tls, list(rules), trace)
            here = (*doubts, match) if isinstance(match, Doubt) else doubts
            branches += [Branch(b.effect, b.by, b.why, (*here, *b.doubts)) for b in ruling.branches]
            if match is True:
                return Ruling(tuple(branches), tuple(trace))
            assert isinstance(match, Doubt)
            doubts = (*doubts, match)
        names = ", ".join(str(route.ref) for route in routes)
        by = tuple(Deciding(r.ref, r.pointer, Direction.INGRESS, "deny", implicit=True) for r in routes)
        branches.append(Branch(Effect.DENY, by, f"the request fits none of {names}: 404", doubts))
        return Ruling(tuple(branches), tuple(trace))


def _named(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*.") and "://" not in pattern:
        return name.endswith(pattern[1:])
    return pattern == name


def _fits(route: Route, http: Http | None) -> tuple[Match, tuple[int, ...]]:
    """Whether a request fits a route, and its rank (smaller = more specific), by Gateway API's order."""
    unsaid = Doubt("which HTTP request it is was not said", unseen=False)
    if http is None:
        everything = not route.hosts and any(not m for m in route.matches)
        return (True if everything and len(route.matches) == 1 else unsaid), (9,)
    host: Match = True
    if route.hosts:
        host = (
            unsaid
            if http.host is None
            else any(_wild(h.lower(), http.host.lower().partition(":")[0]) for h in route.hosts)
        )
    best: tuple[Match, tuple[int, ...]] = (False, (9,))
    found: Match = False
    for each in route.matches:
        match, rank = _request(each, http, unsaid)
        found = either(found, match)
        if match is not False and (best[0] is False or rank < best[1]):
            best = (match, rank)
    return both(host, found), best[1]


def _request(wanted: Mapping[str, Any], http: Http, unsaid: Doubt) -> tuple[Match, tuple[int, ...]]:
    found: Match = True
    kind, length = 3, 0
    path = wanted.get("path")
    if isinstance(path, dict):
        value = str(path.get("value") or "/")
        mode = path.get("type") or "PathPrefix"
        kind, length = {"Exact": 0, "PathPrefix": 1}.get(mode, 2), len(value)
        if http.path is None:
            found = unsaid
        else:
            bare = http.path.partition("?")[0]
            if mode == "Exact":
                found = bare == value
            elif mode == "RegularExpression":
                try:
                    found = re.fullmatch(value, bare) is not None
                except re.error:
                    found = False
            else:
                trimmed = value.rstrip("/")
                found = bare == trimmed or bare.startswith(trimmed + "/")
    method = wanted.get("method")
    if isinstance(method, str):
        found = both(found, unsaid if http.method is None else http.method == method)
    headers = wanted.get("headers")
    listed = [h for h in headers if isinstance(h, dict)] if isinstance(headers, list) else []
    for header in listed:
        name, value = str(header.get("name", "")).lower(), str(header.get("value", ""))
        if not http.headers:
            found = both(found, unsaid)
            continue
        given = http.headers.get(name)
        if header.get("type") == "RegularExpression" and given is not None:
            try:
                found = both(found, re.fullmatch(value, given) is not None)
            except re.error:
                found = False
        else:
            found = both(found, given == value)
    return found, (kind, -length, 0 if isinstance(method, str) else 1, -len(listed))


def _wild(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


_READ = ("Server", "ServerAuthorization", "AuthorizationPolicy", "MeshTLSAuthentication", "NetworkAuthentication")


def compile_cluster(index: Index, cluster: str, earlier: Mapping[str, Compiled]) -> Linkerd:
    world = index.world.clusters[cluster]
    settings = settings_of(world)
    refusals: list[Refusal] = []

    def listed(*kinds: tuple[str, str]) -> Iterator[Object]:
        for kind in kinds:
            yield from sorted(world.of(*kind), key=lambda o: (o.ref.namespace, o.ref.name))

    meshes: dict[tuple[str, str], Identities] = {}
    networks: dict[tuple[str, str], Networks] = {}
    reader = _Reader(settings, meshes, networks)
    servers: list[Server] = []
    grants: list[Grant] = []
    routes: list[Route] = []
    absent: dict[Ref, str] = {}
    kinds = [
        (GROUP, kind) for kind in ("MeshTLSAuthentication", "NetworkAuthentication", "Server", "ServerAuthorization")
    ]
    attached = [(GROUP, "HTTPRoute"), (GATEWAY, "HTTPRoute"), (GATEWAY, "GRPCRoute")]
    for obj in listed(*kinds, (GROUP, "AuthorizationPolicy"), *attached):
        place = (obj.ref.namespace, obj.ref.name)
        try:
            match obj.ref.kind:
                case "MeshTLSAuthentication":
                    meshes[place] = reader.identities(obj)
                case "NetworkAuthentication":
                    networks[place] = _networks(Field(obj.raw)["spec"]["networks"])
                case "Server":
                    servers.append(read_server(obj))
                case "ServerAuthorization":
                    grants.append(reader.server_authorization(obj))
                case "AuthorizationPolicy":
                    grant = reader.authorization_policy(obj)
                    if isinstance(grant, Grant):
                        grants.append(grant)
                    else:
                        absent[obj.ref] = grant
                case _:
                    route = read_route(obj)
                    if route is not None:
                        routes.append(route)
        except Refused as refused:
            refusals.append(Refusal(obj.ref, refused.pointer, refused.why))
    return Linkerd(
        cluster, world, settings, tuple(servers), tuple(grants), tuple(routes), absent, tuple(refusals), index
    )


FAMILY = Family(
    "linkerd",
    frozenset(
        {*((GROUP, kind) for kind in _READ), (GROUP, "HTTPRoute"), (GATEWAY, "HTTPRoute"), (GATEWAY, "GRPCRoute")}
    ),
    compile_cluster,
)
