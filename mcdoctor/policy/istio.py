"""Istio: AuthorizationPolicy, PeerAuthentication and RequestAuthentication at the receiving workload, Sidecar scope and
REGISTRY_ONLY at the sending one.

Sources: istio/istio `pilot/pkg/security/authz/{model,builder}`, `pilot/pkg/model/{authorization,policyattachment,
authentication,sidecar}.go`, `pilot/pkg/security/authn`, `pilot/pkg/serviceregistry/ambient/authorization.go`;
istio/ztunnel `src/rbac.rs`, `src/state.rs`.

Who enforces differs, and with it what a rule means: a sidecar knows HTTP on HTTP ports and drops HTTP conditions on TCP
ports; ztunnel knows only connections; a waypoint knows HTTP and enforces what is attached to it by targetRefs. A pod
outside the mesh enforces nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from mcdoctor.policy.addresses import Block, host_block, parse_block, parse_ip
from mcdoctor.policy.family import Compiled, Family
from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.index import Index
from mcdoctor.policy.question import Packet
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
from mcdoctor.policy.world import Cluster, DomainName, End, Mesh, Node, Object, Pod, Service, World

LAYER = "istio"
SECURITY, NETWORKING = "security.istio.io", "networking.istio.io"
ACTIONS = ("ALLOW", "DENY", "AUDIT", "CUSTOM")
MODES = ("UNSET", "DISABLE", "PERMISSIVE", "STRICT")
_CLUSTER_DOMAIN = "cluster.local"
_CAPTURE = "traffic.sidecar.istio.io/"
_AGENT_PORTS = (15020, 15021, 15090)
_SERVER_FIRST = (25, 53, 3306, 27017)  # wellKnownPorts of pilot: not looked into where nothing declares them
_TCP_WORDS = ("tcp", "tls", "https", "mongo", "mysql", "redis", "kubernetes.io/wss")
_GATEWAY_NAME, _MANAGED = "gateway.networking.k8s.io/gateway-name", "gateway.istio.io/managed"
_WAYPOINT = "istio.io-mesh-controller"


class Enforcer(StrEnum):
    """Who decides: a sidecar on an HTTP or a TCP port, ztunnel (connections only), a waypoint (HTTP)."""

    HTTP = "http"
    TCP = "tcp"
    ZTUNNEL = "ztunnel"
    WAYPOINT = "waypoint"


# --- mesh configuration ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """What the ConfigMap `istio` says, defaults where it says nothing. `ref` None: no such ConfigMap was seen."""

    trust_domain: str = "cluster.local"
    aliases: tuple[str, ...] = ()
    root_namespace: str = "istio-system"
    outbound: str = "ALLOW_ANY"
    providers: frozenset[str] | None = None
    http_providers: frozenset[str] = frozenset()
    """Those that speak HTTP only: a CUSTOM policy of theirs does nothing on a TCP port."""
    normalization: str = "BASE"
    ref: Ref | None = None

    @property
    def trusted(self) -> tuple[str, ...]:
        return (self.trust_domain, *self.aliases)


def mesh_config(cluster: Cluster) -> MeshConfig:
    """The mesh's configuration, from ConfigMap istio-system/istio (or one of a revision, or of another namespace)."""
    named = [
        (
            obj.ref.namespace != "istio-system",
            obj.ref.name != "istio",
            obj.ref.namespace,
            obj.ref.name,
            obj,
            data["mesh"],
        )
        for obj in cluster.of("", "ConfigMap")
        if (obj.ref.name == "istio" or obj.ref.name.startswith("istio-"))
        and isinstance(data := obj.raw.get("data"), dict)
        and "mesh" in data
    ]
    if not named:
        return MeshConfig()
    *_, found, text = min(named, key=lambda entry: entry[:4])
    raw = _yaml(text)
    paths = raw.get("pathNormalization")
    outbound = raw.get("outboundTrafficPolicy")
    providers = raw.get("extensionProviders")
    aliases = raw.get("trustDomainAliases")
    return MeshConfig(
        trust_domain=_text(raw.get("trustDomain")) or "cluster.local",
        aliases=tuple(a for a in aliases if isinstance(a, str)) if isinstance(aliases, list) else (),
        root_namespace=_text(raw.get("rootNamespace")) or found.ref.namespace or "istio-system",
        outbound=(_text(outbound.get("mode")) if isinstance(outbound, dict) else "") or "ALLOW_ANY",
        providers=frozenset(str(p["name"]) for p in providers if isinstance(p, dict) and "name" in p)
        if isinstance(providers, list)
        else frozenset(),
        http_providers=frozenset(
            str(p.get("name")) for p in providers if isinstance(p, dict) and "envoyExtAuthzHttp" in p
        )
        if isinstance(providers, list)
        else frozenset(),
        normalization=(_text(paths.get("normalization")) if isinstance(paths, dict) else "") or "BASE",
        ref=found.ref,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _block(text: str) -> Block:
    """A CIDR or a single address; raises ValueError."""
    return parse_block(text) if "/" in text else host_block(parse_ip(text))


def _yaml(text: object) -> Mapping[str, Any]:
    """A YAML mapping out of a ConfigMap value; {} when it is none."""
    if not isinstance(text, str) or not text.strip():
        return {}
    import yaml

    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# --- objects --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    group: str
    kind: str
    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Clause:
    """One `source`, one `operation` or all of `when`: conditions that must hold together."""

    conditions: tuple[Condition, ...]
    pointer: str


@dataclass(frozen=True, slots=True)
class Condition:
    """`field` is the upstream name (`principals`, `ports`, `when:source.ip`); `values` OR, `nots` none of."""

    field: str
    values: tuple[str, ...]
    nots: tuple[str, ...]
    pointer: str


@dataclass(frozen=True, slots=True)
class Rule:
    """`sources` and `operations` empty = not restricted."""

    sources: tuple[Clause, ...]
    operations: tuple[Clause, ...]
    when: tuple[Condition, ...]
    pointer: str


@dataclass(frozen=True, slots=True, eq=False)
class Authorization:
    ref: Ref
    action: str
    rules: tuple[Rule, ...]
    selector: Mapping[str, str] | None
    targets: tuple[Target, ...]
    provider: str
    dry_run: bool
    created: str
    whole_pointer: str


@dataclass(frozen=True, slots=True, eq=False)
class PeerAuthentication:
    ref: Ref
    mode: str
    mode_pointer: str
    ports: Mapping[int, tuple[str, str]]
    selector: Mapping[str, str] | None
    created: str


@dataclass(frozen=True, slots=True, eq=False)
class RequestAuthentication:
    ref: Ref
    selector: Mapping[str, str] | None
    targets: tuple[Target, ...]
    issuers: int
    headers: frozenset[str]
    """Where a token may stand: header names in lower case ("cookie" too), and `params` of the query."""
    params: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Sidecar:
    ref: Ref
    selector: Mapping[str, str] | None
    hosts: tuple[tuple[str, str, int | None], ...] | None
    """(namespace, host, the only port it is for); None = no egress section: everything is visible."""
    outbound: str
    outbound_pointer: str


_SOURCE_FIELDS = (
    "principals", "requestPrincipals", "namespaces", "ipBlocks", "remoteIpBlocks", "serviceAccounts", "trustDomains",
)  # fmt: skip
_OPERATION_FIELDS = ("hosts", "ports", "methods", "paths")
_HTTP_FIELDS = frozenset({"requestPrincipals", "hosts", "methods", "paths"})
_ZTUNNEL_WHEN = frozenset(
    f"when:{key}" for key in ("source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port")
)
_WHEN = re.compile(
    r"request\.headers\[.+\]|source\.ip|remote\.ip|source\.(namespace|principal|serviceAccount|trustDomain)"
    r"|request\.auth\.(principal|audiences|presenter)|request\.auth\.claims(\[.+\])+|destination\.(ip|port)"
    r"|connection\.sni|experimental\.envoy\.filters\..+"
)


def _selector(spec: Field) -> Mapping[str, str] | None:
    selector = spec["selector"]
    if not selector.present:
        return None
    labels = selector["matchLabels"].strings()
    for key, member in selector["matchLabels"].members():
        if not key:
            raise Refused(member.pointer, "empty key")
        if "*" in key or "*" in member.text():
            raise Refused(member.pointer, "wildcard is not supported in selector")
    return labels


def _targets(spec: Field, namespace: str) -> tuple[Target, ...]:
    single, several = spec["targetRef"], spec["targetRefs"]
    if spec["selector"].present and (single.present or several.present):
        raise Refused(spec["selector"].pointer, "only one of targetRefs or selector can be set")
    found = []
    for item in [*([single] if single.present else []), *several.items()]:
        place = item["namespace"].text("") or namespace
        found.append(Target(item["group"].text(""), item["kind"].text(), item["name"].text(), place))
    return tuple(found)


def _condition(name: str, positive: Field, negative: Field) -> Condition | None:
    values, nots = positive.texts(), negative.texts()
    for item in [*positive.items(), *negative.items()]:
        if not item.text():
            raise Refused(item.pointer, "value cannot be empty")
    for each in (positive, negative):
        if each.present and not list(each.items()):
            raise Refused(each.pointer, "must not be an empty list")
    if not values and not nots:
        return None
    for item in [*positive.items(), *negative.items()]:
        _check_value(name, item)
    return Condition(name, values, nots, positive.pointer if values else negative.pointer)


def _check_value(name: str, item: Field) -> None:
    text = item.text()
    if name in ("ipBlocks", "remoteIpBlocks", "when:source.ip", "when:remote.ip", "when:destination.ip"):
        try:
            _block(text)
        except ValueError:
            raise Refused(item.pointer, f"{text!r} is not an IP address or CIDR") from None
    elif name in ("ports", "when:destination.port"):
        if not text.isdigit() or not 1 <= int(text) <= 65535:
            raise Refused(item.pointer, f"{text!r} is not a port between 1 and 65535")
    elif name == "serviceAccounts" and "*" in text:
        raise Refused(item.pointer, "wildcard is not supported in serviceAccounts")


def _clause(member: Field, names: Iterable[str]) -> Clause:
    if not member.mapping():
        raise Refused(member.pointer, "must not be empty")
    conditions = []
    for name in names:
        negative = "not" + name[0].upper() + name[1:]
        if (condition := _condition(name, member[name], member[negative])) is not None:
            conditions.append(condition)
    fields = {c.field for c in conditions}
    if "serviceAccounts" in fields and fields & {"principals", "namespaces"}:
        raise Refused(member.pointer, "serviceAccounts cannot be used together with principals or namespaces")
    return Clause(tuple(conditions), member.pointer)


def _rule(item: Field) -> Rule:
    item.mapping()
    sections = {}
    for name, inner, names in (("from", "source", _SOURCE_FIELDS), ("to", "operation", _OPERATION_FIELDS)):
        clauses = []
        for entry in item[name].items():
            if not entry[inner].present:
                raise Refused(entry[inner].pointer, "required value")
            clauses.append(_clause(entry[inner], names))
        if item[name].present and not clauses:
            raise Refused(item[name].pointer, "must not be an empty list")
        sections[name] = tuple(clauses)
    when = []
    for entry in item["when"].items():
        key = entry["key"].text()
        if not _WHEN.fullmatch(key):
            raise Refused(entry["key"].pointer, f"unknown attribute: {key}")
        condition = _condition(f"when:{key}", entry["values"], entry["notValues"])
        if condition is None:
            raise Refused(entry.pointer, "at least one of values or notValues must be set")
        when.append(condition)
    return Rule(sections["from"], sections["to"], tuple(when), item.pointer)


def _read_authorization(obj: Object) -> Authorization:
    whole = Field(obj.raw)
    spec = whole["spec"]
    action = spec["action"].choice(ACTIONS, "ALLOW")
    provider = spec["provider"]["name"].text("")
    rules = tuple(_rule(item) for item in spec["rules"].items())
    if action == "CUSTOM" and not provider:
        raise Refused(spec["provider"].pointer, "must be set for action CUSTOM")
    if action != "CUSTOM" and spec["provider"].present:
        raise Refused(spec["provider"].pointer, "must not be set for actions other than CUSTOM")
    if action == "DENY" and spec["rules"].present and not rules:
        raise Refused(spec["rules"].pointer, "a DENY policy without rules does nothing")
    return Authorization(
        obj.ref,
        action,
        rules,
        _selector(spec),
        _targets(spec, obj.ref.namespace),
        provider,
        obj.annotations.get("istio.io/dry-run", "") in ("1", "t", "T", "true", "TRUE", "True"),
        obj.created,
        spec["rules"].pointer if spec["rules"].present else spec.pointer if spec.present else "",
    )


def _read_peer(obj: Object) -> PeerAuthentication:
    spec = Field(obj.raw)["spec"]
    selector = _selector(spec)
    mode = spec["mtls"]["mode"]
    ports: dict[int, tuple[str, str]] = {}
    for name, member in spec["portLevelMtls"].members():
        if not str(name).isdigit() or not 1 <= int(name) <= 65535:
            raise Refused(member.pointer, f"{name!r} is not a port between 1 and 65535")
        ports[int(name)] = (member["mode"].choice(MODES, "UNSET"), member["mode"].pointer)
    if ports and not selector:
        raise Refused(spec["portLevelMtls"].pointer, "port level mTLS needs a selector")
    return PeerAuthentication(obj.ref, mode.choice(MODES, "UNSET"), mode.pointer, ports, selector, obj.created)


def _read_request(obj: Object) -> RequestAuthentication:
    spec = Field(obj.raw)["spec"]
    rules = list(spec["jwtRules"].items())
    headers: set[str] = set()
    params: set[str] = set()
    for item in rules:
        if not item["issuer"].text(""):
            raise Refused(item["issuer"].pointer, "issuer must be set")
        names = [each["name"].text("").lower() for each in item["fromHeaders"].items()]
        queried, cookies = item["fromParams"].texts(), item["fromCookies"].texts()
        headers.update(names, ("cookie",) if cookies else ())
        params.update(queried)
        if not (names or queried or cookies):
            headers.add("authorization")
            params.add("access_token")
    return RequestAuthentication(
        obj.ref,
        _selector(spec),
        _targets(spec, obj.ref.namespace),
        len(rules),
        frozenset(headers),
        frozenset(params),
    )


def _read_sidecar(obj: Object) -> Sidecar:
    spec = Field(obj.raw)["spec"]
    selector = spec["workloadSelector"]
    hosts: list[tuple[str, str, int | None]] = []
    for listener in spec["egress"].items():
        only = listener["port"]["number"].integer() if listener["port"]["number"].present else None
        for item in listener["hosts"].items():
            namespace, slash, host = item.text().partition("/")
            if not slash or not namespace or not host:
                raise Refused(item.pointer, "must be of the form namespace/dnsName")
            hosts.append((namespace, host.lower(), only))
    policy = spec["outboundTrafficPolicy"]["mode"]
    return Sidecar(
        obj.ref,
        selector["labels"].strings() if selector.present else None,
        tuple(hosts) if spec["egress"].present else None,
        policy.choice(("REGISTRY_ONLY", "ALLOW_ANY"), "") if policy.present else "",
        policy.pointer,
    )


# --- identities and strings -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the connection. `principal` has no scheme; None: plaintext, no identity."""

    principal: str | None

    @property
    def parts(self) -> tuple[str, str, str] | None:
        """(trust domain, namespace, service account) of an Istio identity."""
        found = re.fullmatch(r"([^/]+)/ns/([^/]+)/sa/([^/]+)", self.principal or "")
        return (found[1], found[2], found[3]) if found else None


def string_match(pattern: str, value: str, *, fold: bool = False) -> bool:
    """Istio's strings: exact, `prefix*`, `*suffix`, `*` = present and not empty."""
    if fold:
        pattern, value = pattern.lower(), value.lower()
    if pattern == "*":
        return value != ""
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return pattern == value


def normalized(path: str, how: str) -> str:
    """A request's path as the proxy compares it: without query and fragment, and by `pathNormalization` of the mesh
    (BASE unless told otherwise: dot segments resolved, backslashes turned).
    """
    path = path.partition("?")[0].partition("#")[0]
    if how == "NONE" or not path.startswith("/"):
        return path
    if how == "DECODE_AND_MERGE_SLASHES":
        path = re.sub("%2f|%5c", "/", path, flags=re.IGNORECASE)
    kept: list[str] = []
    parts = path.replace("\\", "/").split("/")[1:]
    for number, part in enumerate(parts):
        dots = re.sub("%2e", ".", part, flags=re.IGNORECASE)
        if dots == "..":
            kept = kept[:-1]
        elif dots != ".":
            kept.append(part)
        if dots in (".", "..") and number == len(parts) - 1:
            kept.append("")
    path = "/" + "/".join(kept)
    return re.sub("/{2,}", "/", path) if how in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES") else path


def path_match(pattern: str, path: str) -> bool:
    """As `string_match`, and the templates `{*}` (one segment) and `{**}` (zero or more)."""
    if "{" not in pattern:
        return string_match(pattern, path)
    expression = "".join(
        "[^/]+" if part == "{*}" else ".*" if part == "{**}" else re.escape(part)
        for part in re.split(r"(\{\*\*\}|\{\*\})", pattern)
    )
    return re.fullmatch(expression, path) is not None


def principal_match(pattern: str, principal: str, config: MeshConfig) -> bool:
    """A principal pattern against an identity, in Envoy: a trust domain that is the local one or an alias stands for
    all of them, and so does `cluster.local` (`pilot/pkg/security/trustdomain/bundle.go`).
    """
    parts = pattern.split("/")
    domain = parts[0]
    known = domain == _CLUSTER_DOMAIN or any(string_match(domain, each) for each in config.trusted)
    if len(parts) != 5 or domain == "*" or not known:
        return string_match(pattern, principal)
    rest = pattern[len(domain) :]
    suffix = domain[1:] if domain.startswith("*") else None
    expanded = {pattern if suffix is not None and d.endswith(suffix) else d + rest for d in config.trusted}
    return any(string_match(each, principal) for each in expanded)


def namespace_match(pattern: str, namespace: str) -> bool:
    """In Envoy a namespace is part of an expression: `*` may stand anywhere in it."""
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), namespace) is not None


_NO_REQUEST = Doubt("it depends on the HTTP request, which was not said", unseen=False)


@dataclass(frozen=True, slots=True)
class View:
    """A packet as one enforcer sees it."""

    packet: Packet
    enforcer: Enforcer
    peer: Peer | Doubt
    config: MeshConfig
    namespace: str
    jwt: Match
    """Whether the request carries a token that a RequestAuthentication accepts."""


def _values(condition: Condition, test: Match | None, one: Any) -> Match:
    """Positive values OR, none of the negative ones. `one(value)` is a Match; `test` overrides it where not None."""
    found: Match = True
    if condition.values:
        found = False
        for value in condition.values:
            found = either(found, one(value) if test is None else test)
    refused: Match = False
    for value in condition.nots:
        refused = either(refused, one(value) if test is None else test)
    return both(found, negate(refused))


def _condition_match(condition: Condition, view: View) -> Match:
    name = condition.field
    packet = view.packet
    peer = view.peer
    match name:
        case "principals" | "when:source.principal":
            if isinstance(peer, Doubt):
                return _values(condition, peer, None)
            who = peer.principal
            if view.enforcer is Enforcer.ZTUNNEL:  # it knows no aliases
                return _values(condition, None, lambda v: who is not None and string_match(v, who))
            return _values(condition, None, lambda v: who is not None and principal_match(v, who, view.config))
        case "namespaces" | "when:source.namespace":
            fits = string_match if view.enforcer is Enforcer.ZTUNNEL else namespace_match
            return _identity_part(condition, peer, lambda parts, v: fits(v, parts[1]))
        case "trustDomains" | "when:source.trustDomain":
            trusted = view.config.trusted
            return _identity_part(
                condition,
                peer,
                lambda parts, v: parts[0] in trusted if v in trusted else string_match(v, parts[0]),
            )
        case "serviceAccounts" | "when:source.serviceAccount":
            return _identity_part(condition, peer, lambda parts, v: _account(v, parts, view.namespace))
        case "ipBlocks" | "when:source.ip":
            return _values(condition, None, lambda v: _within(v, packet, packet.source))
        case "remoteIpBlocks" | "when:remote.ip":
            if packet.http is not None and "x-forwarded-for" in packet.http.headers:
                return _values(condition, Doubt("which address X-Forwarded-For is trusted for", unseen=False), None)
            return _values(condition, None, lambda v: _within(v, packet, packet.source))
        case "when:destination.ip":
            return _values(condition, None, lambda v: _within(v, packet, packet.destination))
        case "ports" | "when:destination.port":
            if packet.port is None:
                return _values(condition, Doubt("which port is used", unseen=False), None)
            return _values(condition, None, lambda v: v == str(packet.port))
        case "when:connection.sni":
            return Doubt("the SNI of the connection was not said", unseen=False)
        case _:
            return _request_match(condition, view)


def _identity_part(condition: Condition, peer: Peer | Doubt, test: Any) -> Match:
    if isinstance(peer, Doubt):
        return _values(condition, peer, None)
    parts = peer.parts
    return _values(condition, None, lambda v: parts is not None and bool(test(parts, v)))


def _account(value: str, parts: tuple[str, str, str], namespace: str) -> bool:
    """`ns/sa`, or `sa` in the policy's own namespace."""
    place, slash, name = value.partition("/")
    return (parts[1], parts[2]) == ((place, name) if slash else (namespace, value))


def _within(value: str, packet: Packet, end: Any) -> Match:
    block: Block = _block(value)
    if isinstance(end, DomainName):
        return Doubt(f"which addresses {end} resolves to", unseen=False)
    ips = packet.ips(end)
    if not ips:
        return Doubt(f"the address of {end} is not known")
    inside = [ip in block for ip in ips]
    if all(inside) or not any(inside):
        return inside[0]
    return Doubt(f"which address of {end} is used", unseen=False)


def _request_match(condition: Condition, view: View) -> Match:
    """Conditions on the HTTP request."""
    http = view.packet.http
    name = condition.field
    if name == "requestPrincipals" or name.startswith("when:request.auth."):
        # A token that is there may say anything; without one, no positive value fits and no negative one either.
        return _values(condition, view.jwt, None)
    if http is None:
        return _values(condition, _NO_REQUEST, None)

    def of(value: str | None, test: Any) -> Match:
        return _NO_REQUEST if value is None else bool(test(value))

    match name:
        case "hosts":
            return _values(condition, None, lambda v: of(http.host, lambda h: string_match(v, h, fold=True)))
        case "methods":
            return _values(condition, None, lambda v: of(http.method, lambda m: string_match(v, m)))
        case "paths":
            how = view.config.normalization
            return _values(condition, None, lambda v: of(http.path, lambda p: path_match(v, normalized(p, how))))
        case _ if name.startswith("when:request.headers["):
            header = name[len("when:request.headers[") : -1].lower()
            value = http.headers.get(header)
            return _values(condition, None, lambda v: value is not None and string_match(v, value))
        case _:
            return _values(condition, Doubt(f"{name.removeprefix('when:')} was not said", unseen=False), None)


def _is_http(condition: Condition) -> bool:
    return condition.field in _HTTP_FIELDS or condition.field.startswith("when:request.")


def _clauses(clauses: tuple[Clause, ...], view: View, keep: Any, *, empty_matches: bool) -> Match:
    """One of the clauses; `keep` says which conditions this enforcer knows."""
    if not clauses:
        return True
    found: Match = False
    for clause in clauses:
        known = [c for c in clause.conditions if keep(c)]
        if not known and clause.conditions and not empty_matches:
            continue
        match: Match = True
        for condition in known:
            match = both(match, _condition_match(condition, view))
        found = either(found, match)
    return found


def rule_match(rule: Rule, action: str, view: View) -> Match:
    """Does the rule match, as this enforcer would have it?"""
    unknown = _unknown_to(view.enforcer)
    everything = [*(c for clause in (*rule.sources, *rule.operations) for c in clause.conditions), *rule.when]
    foreign = [c for c in everything if unknown(c)]
    if foreign and action == "ALLOW":
        return False  # the whole rule is left out
    if foreign and view.enforcer is Enforcer.ZTUNNEL and not [c for c in everything if not unknown(c)]:
        return False  # an HTTP-only DENY does nothing there

    def keep(condition: Condition) -> bool:
        if condition.field == "trustDomains" and view.enforcer is Enforcer.ZTUNNEL:
            return False  # neither carried over to ztunnel nor reported
        return not unknown(condition)

    # In a sidecar a clause left without conditions matches any connection; in ztunnel it never matches.
    empty = view.enforcer is not Enforcer.ZTUNNEL
    found = _clauses(rule.sources, view, keep, empty_matches=empty)
    found = both(found, _clauses(rule.operations, view, keep, empty_matches=empty))
    for condition in rule.when:
        if keep(condition):
            found = both(found, _condition_match(condition, view))
        elif not empty:
            return False
    return found


def _unknown_to(enforcer: Enforcer) -> Any:
    match enforcer:
        case Enforcer.HTTP | Enforcer.WAYPOINT:
            return lambda _c: False
        case Enforcer.TCP:
            return _is_http
        case Enforcer.ZTUNNEL:
            return lambda c: (
                c.field in _HTTP_FIELDS
                or c.field == "remoteIpBlocks"
                or (c.field.startswith("when:") and c.field not in _ZTUNNEL_WHEN)
            )


# --- the family ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Istio:
    """The Istio objects of one cluster."""

    world: World
    cluster: str
    config: MeshConfig
    authorizations: tuple[Authorization, ...]
    peers: tuple[PeerAuthentication, ...]
    requests: tuple[RequestAuthentication, ...]
    sidecars: tuple[Sidecar, ...]
    refusals: tuple[Refusal, ...]
    _memo: dict[tuple[str, str, str], tuple[Authorization, ...]] = field(default_factory=dict)
    _services: dict[tuple[str, str, str], tuple[Service, ...]] = field(default_factory=dict)

    @cached_property
    def configs(self) -> Mapping[str, MeshConfig]:
        return {name: mesh_config(cluster) for name, cluster in self.world.clusters.items()}

    def enforce(self, packet: Packet) -> Ruling:
        if packet.direction is Direction.EGRESS:
            return self._egress(packet)
        pod = packet.destination
        if not isinstance(pod, Pod) or pod.cluster != self.cluster or packet.protocol != "TCP":
            return SILENT
        if Mesh.ISTIO_SIDECAR in pod.mesh:
            return SILENT if _bypasses_inbound(pod, packet.port) else self._sidecar_ingress(packet, pod)
        return self._ambient_ingress(packet, pod) if through_ztunnel(packet, pod) else SILENT

    # --- who is calling ---

    def mtls(self, packet: Packet) -> Match:
        """Whether the connection is mutual TLS of the mesh: said, or concluded from how the caller is meshed."""
        if packet.mtls is not None:
            return packet.mtls
        if packet.principal is not None:
            return True
        client, pod = client_of(packet), packet.destination
        if client is None or not client.mesh & {Mesh.ISTIO_SIDECAR, Mesh.ISTIO_AMBIENT}:
            return False
        if Mesh.ISTIO_SIDECAR in client.mesh and _bypasses_outbound(client, packet):
            return False
        if isinstance(pod, Pod) and pod.cluster == self.cluster and Mesh.ISTIO_SIDECAR in pod.mesh & client.mesh:
            told = self._client_tls(packet, client, pod)
            if told is not None:
                return told == "ISTIO_MUTUAL"
            return self.mtls_mode(pod, packet.port, ambient=False)[0] != "DISABLE"  # automatic mTLS follows the server
        return True

    def _client_tls(self, packet: Packet, client: Pod, pod: Pod) -> str | None:
        """`trafficPolicy.tls.mode` of the DestinationRule that the client's proxy uses; None = automatic mTLS."""
        services = (packet.service,) if packet.service is not None else self._services_of(pod)
        rules = self.world.clusters[client.cluster].of(NETWORKING, "DestinationRule")
        for service in services:
            name = f"{service.name}.{service.namespace}.svc.{_CLUSTER_DOMAIN}"
            for place in dict.fromkeys((client.namespace, service.namespace, self.config.root_namespace)):
                for rule in rules:
                    spec = rule.raw.get("spec")
                    host = _text(spec.get("host")) if isinstance(spec, dict) else ""
                    short = "." not in host and host == service.name and rule.ref.namespace == service.namespace
                    if rule.ref.namespace != place or not host or not (short or _host_fits(host, name)):
                        continue
                    policy = spec.get("trafficPolicy") if isinstance(spec, dict) else None
                    return _tls_mode(policy, _asked_ports(packet, service)) or None
        return None

    @staticmethod
    def client(packet: Packet) -> Pod | None:
        return client_of(packet)

    def waypoint(self, packet: Packet, pod: Pod) -> tuple[str, str] | None:
        return waypoint_of(self.world.clusters[self.cluster], packet, pod)

    def peer(self, packet: Packet) -> Peer | Doubt:
        """The caller's identity."""
        if self.mtls(packet) is not True:
            return Peer(None)
        if packet.principal is not None:
            return Peer(packet.principal.removeprefix("spiffe://"))
        client = client_of(packet)
        if client is None:
            return Doubt("the identity of the caller is not known")
        config = self.configs.get(client.cluster, self.config)
        return Peer(f"{config.trust_domain}/ns/{client.namespace}/sa/{client.service_account or 'default'}")

    # --- receiving ---

    def _sidecar_ingress(self, packet: Packet, pod: Pod) -> Ruling:
        mode, decided = self.mtls_mode(pod, packet.port, ambient=False)
        if mode == "STRICT" and self.mtls(packet) is False and not _only_proxy(pod):
            return self._strict(packet, decided)
        protocol = self.port_protocol(pod, packet)
        policies = self.selecting(pod)
        requests = self._requests_for(pod)
        jwt = _jwt(packet, requests)
        # A sidecar told not to speak TLS learns no identity.
        peer = Peer(None) if mode == "DISABLE" else self.peer(packet)
        views = [
            View(packet, enforcer, peer, self.config, pod.namespace, jwt)
            for enforcer in ([protocol] if isinstance(protocol, Enforcer) else [Enforcer.HTTP, Enforcer.TCP])
        ]
        rulings = [self._decide(policies, view, f"the sidecar of {pod}") for view in views]
        if isinstance(protocol, Doubt) and _effects(rulings[0]) != _effects(rulings[1]):
            branches = [
                Branch(b.effect, b.by, b.why, (*b.doubts, protocol)) for ruling in rulings for b in ruling.branches
            ]
            return Ruling(tuple(branches), rulings[0].trace)
        return _with_tokens(rulings[0], packet, requests if views[0].enforcer is Enforcer.HTTP else ())

    def _strict(self, packet: Packet, decided: Deciding | None) -> Ruling:
        by = (decided,) if decided else ()
        why = f"{decided.ref if decided else 'the mesh'} is STRICT and the caller sends plaintext"
        step = Step(LAYER, why, decided.ref if decided else None, decided.pointer if decided else "")
        return Ruling((Branch(Effect.DENY, by, why),), (step,))

    def _ambient_ingress(self, packet: Packet, pod: Pod) -> Ruling:
        mode, decided = self.mtls_mode(pod, packet.port, ambient=True)
        if mode == "STRICT" and self.mtls(packet) is False:
            return self._strict(packet, decided)
        peer = self.peer(packet)
        jwt: Match = False
        waypoint = self.waypoint(packet, pod)
        trace: tuple[Step, ...] = ()
        refused: tuple[Branch, ...] = ()
        doubts: tuple[Doubt, ...] = ()
        if waypoint is not None:
            name, namespace = waypoint
            client = client_of(packet)
            asked = packet if client is None else replace(packet, source=client)
            requests = tuple(r for r in self.requests if self._on_waypoint(r, namespace, name, packet.service))
            view = View(asked, Enforcer.WAYPOINT, peer, self.config, pod.namespace, _jwt(packet, requests))
            attached = tuple(a for a in self.authorizations if self._on_waypoint(a, namespace, name, packet.service))
            first = self._decide(attached, view, f"the waypoint {namespace}/{name}")
            first = _with_tokens(first, packet, requests)
            passed = [b for b in first.branches if b.effect is not Effect.DENY]
            if not passed:
                return first
            refused = tuple(b for b in first.branches if b.effect is Effect.DENY)
            doubts = tuple(dict.fromkeys(d for b in passed for d in b.doubts)) if refused else ()
            trace = first.trace
            peer = Peer(f"{self.config.trust_domain}/ns/{namespace}/sa/{name}")
        view = View(packet, Enforcer.ZTUNNEL, peer, self.config, pod.namespace, jwt)
        policies = tuple(p for p in self.selecting(pod) if p.action in ("ALLOW", "DENY"))
        ruling = self._decide(policies, view, f"the ztunnel of {pod}")
        here = tuple(Branch(b.effect, b.by, b.why, (*doubts, *b.doubts)) for b in ruling.branches)
        return Ruling((*here, *refused), (*trace, *ruling.trace))

    def _decide(self, policies: Iterable[Authorization], view: View, who: str) -> Ruling:
        """CUSTOM, then DENY, then ALLOW; AUDIT and dry runs only leave a line in the trace."""
        live = [p for p in policies if not p.dry_run]
        trace: list[Step] = [Step(LAYER, f"{p.ref} is a dry run", p.ref) for p in policies if p.dry_run]
        ordered: list[tuple[Match, Branch]] = []
        direction = Direction.INGRESS
        for action in ("CUSTOM", "DENY"):
            for policy in (p for p in live if p.action == action):
                if (
                    action == "CUSTOM"
                    and view.enforcer is Enforcer.TCP
                    and policy.provider in self.config.http_providers
                ):
                    trace.append(Step(LAYER, f"{policy.ref}: its provider knows HTTP only", policy.ref))
                    continue
                for rule in policy.rules:
                    match = rule_match(rule, action, view)
                    if match is False:
                        continue
                    trace.append(Step(LAYER, f"{policy.ref} ({action}): a rule matches", policy.ref, rule.pointer))
                    by = (Deciding(policy.ref, rule.pointer, direction, "deny"),)
                    if action == "DENY":
                        ordered.append((match, Branch(Effect.DENY, by, f"{policy.ref} denies it")))
                    elif self.config.providers is not None and policy.provider not in self.config.providers:
                        why = f"{policy.ref} names the provider {policy.provider}, which the mesh does not have"
                        ordered.append((match, Branch(Effect.DENY, by, why)))
                    else:
                        doubt = Doubt(f"the external authorizer {policy.provider} of {policy.ref} decides")
                        ordered.append((both(match, doubt), Branch(Effect.DENY, by, doubt.why)))
        for policy in (p for p in live if p.action == "AUDIT"):
            trace.append(Step(LAYER, f"{policy.ref} only audits", policy.ref))
        allows = [p for p in live if p.action == "ALLOW"]
        if not allows:
            return first_match(ordered, Branch(Effect.NEXT), trace)
        surely: list[Deciding] = []
        for policy in allows:
            best: tuple[Match, Rule] | None = None
            for rule in policy.rules:
                match = rule_match(rule, "ALLOW", view)
                if match is True:
                    best = (True, rule)
                    break
                if match is not False and best is None:
                    best = (match, rule)
            what = "no rule matches" if best is None else "a rule matches" if best[0] is True else "a rule may match"
            trace.append(Step(LAYER, f"{policy.ref} (ALLOW): {what}", policy.ref, best[1].pointer if best else ""))
            if best is None:
                continue
            by = (Deciding(policy.ref, best[1].pointer, direction, "allow"),)
            if best[0] is True:
                surely.extend(by)
            else:
                ordered.append((best[0], Branch(Effect.ALLOW, by, f"{policy.ref} may allow it")))
        if surely:
            # A certain ALLOW makes the doubtful ones irrelevant; denials still come first.
            ordered = [entry for entry in ordered if entry[1].effect is Effect.DENY]
            ordered.append((True, Branch(Effect.ALLOW, tuple(surely), f"{surely[0].ref} allows it")))
        names = ", ".join(str(p.ref) for p in allows)
        refusing = tuple(
            Deciding(p.ref, p.whole_pointer, direction, "deny", implicit=True, note="no rule matches") for p in allows
        )
        why = f"{names}: {'an ALLOW policy is' if len(allows) == 1 else 'ALLOW policies are'} there and no rule matches"
        return first_match(ordered, Branch(Effect.DENY, refusing, f"{why} at {who}"), trace)

    def selecting(self, pod: Pod) -> tuple[Authorization, ...]:
        """AuthorizationPolicies on a workload: of the root and its own namespace; on gateways also by targetRefs."""
        found = self._memo.get(pod.key)
        if found is None:
            found = self._memo[pod.key] = tuple(p for p in self.authorizations if self._on_workload(p, pod))
        return found

    def _on_workload(self, policy: Authorization | RequestAuthentication, pod: Pod) -> bool:
        """Is the policy one of a pod's proxy? targetRefs are for gateways; a waypoint knows nothing else (attach)."""
        if policy.ref.namespace not in (self.config.root_namespace, pod.namespace):
            return False
        gateway = pod.labels.get(_GATEWAY_NAME)
        if not policy.targets:
            return not (gateway and pod.labels.get(_MANAGED) == _WAYPOINT) and _selects(policy.selector, pod)
        return gateway is not None and any(
            t.kind == "Gateway" and (t.namespace, t.name) == (pod.namespace, gateway) for t in policy.targets
        )

    def _on_waypoint(
        self, policy: Authorization | RequestAuthentication, namespace: str, waypoint: str, service: Service | None
    ) -> bool:
        """Does a waypoint enforce the policy: attached to it, to the Service, or to its class?"""
        for target in policy.targets:
            place = target.namespace, target.name
            match target.kind:
                case "Service" if service is not None and place == (service.namespace, service.name):
                    return True
                case "Gateway" if place == (namespace, waypoint):
                    return True
                case "GatewayClass" if target.name == "istio-waypoint":
                    if policy.ref.namespace == self.config.root_namespace:
                        return True
                case _:
                    pass
        return False

    def mtls_mode(self, pod: Pod, port: int | None, *, ambient: bool) -> tuple[str, Deciding | None]:
        """The effective mode: port beats workload beats namespace beats mesh; UNSET inherits; PERMISSIVE by default."""
        root = self.config.root_namespace
        own = [p for p in self.peers if p.ref.namespace == pod.namespace]
        candidates = [
            *_oldest(p for p in own if p.selector and _selects(p.selector, pod) and pod.namespace != root),
            *_oldest(p for p in own if not p.selector),
            *_oldest(p for p in self.peers if p.ref.namespace == root and not p.selector),
        ]
        for policy in candidates:
            if port is not None and port in policy.ports and policy.ports[port][0] != "UNSET":
                mode, pointer = policy.ports[port]
                exempt = mode != "DISABLE" or any(each == "PERMISSIVE" for each, _ in policy.ports.values())
                if ambient and policy.mode == "UNSET" and not exempt:
                    continue  # from a STRICT that is inherited ambient exempts PERMISSIVE ports, and others with them
                return mode, Deciding(policy.ref, pointer, Direction.INGRESS, "deny")
            if policy.mode != "UNSET":
                return policy.mode, Deciding(policy.ref, policy.mode_pointer, Direction.INGRESS, "deny")
        return "PERMISSIVE", None

    def port_protocol(self, pod: Pod, packet: Packet) -> Enforcer | Doubt:
        """What the sidecar takes the port for: by the Services on it, else it looks at the first bytes."""
        known: set[Enforcer] = set()
        for service in self._services_of(pod):
            for port in service.ports:
                number = port.target if isinstance(port.target, int) else None
                if number is None:
                    number = next((p.port for p in pod.named_ports(str(port.target), port.protocol)), None)
                if number != packet.port:
                    continue
                word = (port.app_protocol or port.name.partition("-")[0]).lower()
                if word in ("http", "http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws"):
                    known.add(Enforcer.HTTP)
                elif word in _TCP_WORDS or port.port in _SERVER_FIRST:
                    known.add(Enforcer.TCP)
        if len(known) == 1:
            return known.pop()
        if packet.http is not None:
            return Enforcer.HTTP
        return Doubt("whether the connection speaks HTTP, which the port does not declare", unseen=False)

    def _services_of(self, pod: Pod) -> tuple[Service, ...]:
        found = self._services.get(pod.key)
        if found is None:
            found = tuple(
                s
                for (namespace, _), s in self.world.clusters[self.cluster].services.items()
                if namespace == pod.namespace and s.selector and _selects(s.selector, pod)
            )
            self._services[pod.key] = found
        return found

    # --- tokens ---

    def _requests_for(self, pod: Pod) -> tuple[RequestAuthentication, ...]:
        return tuple(r for r in self.requests if self._on_workload(r, pod))

    # --- sending ---

    def _egress(self, packet: Packet) -> Ruling:
        pod = packet.source
        if not isinstance(pod, Pod) or Mesh.ISTIO_SIDECAR not in pod.mesh or pod.cluster != self.cluster:
            return SILENT
        if packet.protocol != "TCP" or _bypasses_outbound(pod, packet):
            return SILENT  # the sidecar captures TCP only
        sidecar = self.sidecar_of(pod)
        mode, by = self.outbound_mode(sidecar)
        scope = self._visible(packet, pod, sidecar)
        if scope is True or mode != "REGISTRY_ONLY":
            text = "the registry has the destination" if scope is True else "unknown destinations pass through"
            return Ruling((Branch(Effect.NEXT),), (Step(LAYER, f"{pod}: {text}"),))
        where = f"{by.ref}" if by else "the mesh"
        why = f"{where} lets {pod} reach only what the registry has, and {_destination(packet)} is not visible to it"
        return first_match(
            [(negate(scope), Branch(Effect.DENY, (by,) if by else (), why))],
            Branch(Effect.NEXT),
            [Step(LAYER, why, by.ref if by else None, by.pointer if by else "")],
        )

    def sidecar_of(self, pod: Pod) -> Sidecar | None:
        """The Sidecar resource of a pod: by workload, else of its namespace, else of the root namespace."""
        own = [s for s in self.sidecars if s.ref.namespace == pod.namespace]
        for group in (
            [s for s in own if s.selector is not None and _selects(s.selector, pod)],
            [s for s in own if s.selector is None],
            [s for s in self.sidecars if s.ref.namespace == self.config.root_namespace and s.selector is None],
        ):
            if group:
                return group[0]
        return None

    def outbound_mode(self, sidecar: Sidecar | None) -> tuple[str, Deciding | None]:
        if sidecar is not None and sidecar.outbound:
            return sidecar.outbound, Deciding(sidecar.ref, sidecar.outbound_pointer, Direction.EGRESS, "deny")
        if self.config.ref is not None:
            return self.config.outbound, Deciding(self.config.ref, "/data/mesh", Direction.EGRESS, "deny")
        return self.config.outbound, None

    def _visible(self, packet: Packet, pod: Pod, sidecar: Sidecar | None) -> Match:
        """Whether the caller's proxy knows the destination."""
        names: list[tuple[str, str]] = []
        if packet.service is not None:
            service = packet.service
            exported = service.annotations.get("networking.istio.io/exportTo", "*")
            if not _exported(exported, service.namespace, pod):
                return False
            names.append((service.namespace, f"{service.name}.{service.namespace}.svc.{_CLUSTER_DOMAIN}"))
        elif isinstance(packet.destination, DomainName):
            names.extend(self._entries(packet.destination.name, packet.port, pod))
        elif isinstance(packet.destination, Pod):
            return Doubt("whether the proxy knows a pod's address depends on how the pod is addressed", unseen=False)
        else:
            names.extend(self._entries_of_address(packet, pod))
        if not names:
            return False
        if sidecar is None or sidecar.hosts is None:
            return True
        asked = _asked_ports(packet, packet.service)
        return any(
            _host_in_scope(namespace, host, own, item, pod)
            for own, item in names
            for namespace, host, only in sidecar.hosts
            if only is None or only in asked
        )

    def _entries(self, name: str, port: int | None, pod: Pod) -> Iterator[tuple[str, str]]:
        for obj in self.world.clusters[self.cluster].of(NETWORKING, "ServiceEntry"):
            spec = obj.raw.get("spec")
            if not isinstance(spec, dict) or not _entry_port(spec, port):
                continue
            exports = spec.get("exportTo")
            listed = ",".join(str(e) for e in exports) if isinstance(exports, list) and exports else "*"
            if not _exported(listed, obj.ref.namespace, pod):
                continue
            for host in _items(spec.get("hosts")):
                if isinstance(host, str) and _host_fits(host.lower(), name):
                    yield obj.ref.namespace, host.lower()

    def _entries_of_address(self, packet: Packet, pod: Pod) -> Iterator[tuple[str, str]]:
        for obj in self.world.clusters[self.cluster].of(NETWORKING, "ServiceEntry"):
            spec = obj.raw.get("spec")
            if not isinstance(spec, dict) or not _entry_port(spec, packet.port):
                continue
            for text in _items(spec.get("addresses")):
                try:
                    block = _block(str(text))
                except ValueError:
                    continue
                if any(ip in block for ip in packet.ips(packet.destination)):
                    for host in _items(spec.get("hosts")):
                        yield obj.ref.namespace, str(host).lower()


def client_of(packet: Packet) -> Pod | None:
    """The workload whose proxy speaks."""
    if packet.client is not None:
        return packet.client
    return packet.source if isinstance(packet.source, Pod) else None


def through_ztunnel(packet: Packet, pod: Pod) -> bool:
    """What the node sends its own pods (kubelet's probes) comes as 169.254.7.127 and passes ztunnel by."""
    if Mesh.ISTIO_AMBIENT not in pod.mesh or packet.protocol != "TCP":
        return False
    return packet.mtls is not None or packet.principal is not None or not _from_own_node(packet.source, pod)


def waypoint_of(cluster: Cluster, packet: Packet, pod: Pod) -> tuple[str, str] | None:
    """(name, namespace) of the waypoint in front of an ambient destination for this packet, or None.

    Traffic to a Service goes through the Service's (or namespace's) waypoint, traffic to a pod's own address only
    through one that is for workloads (label `istio.io/waypoint-for` of its Gateway; services where it says nothing).
    Callers outside the mesh pass it by.
    """
    client = client_of(packet)
    if client is None or not client.mesh & {Mesh.ISTIO_SIDECAR, Mesh.ISTIO_AMBIENT}:
        return None
    asked: Service | Pod = packet.service if packet.service is not None else pod
    home = cluster.namespaces.get(asked.namespace)
    for labels in (asked.labels, home.labels if home else {}):
        name = labels.get("istio.io/use-waypoint")
        if name == "none":
            return None
        if name:
            namespace = labels.get("istio.io/use-waypoint-namespace", asked.namespace)
            gateways = cluster.of("gateway.networking.k8s.io", "Gateway")
            told = [g.labels for g in gateways if (g.ref.namespace, g.ref.name) == (namespace, name)]
            serves = told[0].get("istio.io/waypoint-for", "service") if told else "service"
            wanted = "service" if packet.service is not None else "workload"
            return (name, namespace) if serves in (wanted, "all") else None
    return None


def _jwt(packet: Packet, requests: Iterable[RequestAuthentication]) -> Match:
    """Whether a token's claims could match: none is looked for, none was sent, or it depends on the token."""
    looking = [r for r in requests if r.issuers]
    if not looking:
        return False
    http = packet.http
    if http is None:
        return _NO_REQUEST
    asked = {pair.partition("=")[0] for pair in (http.path or "").partition("?")[2].split("&")}
    if any(r.headers & http.headers.keys() or r.params & asked for r in looking):
        return Doubt("what the request's token says", unseen=False)
    return False


def _with_tokens(ruling: Ruling, packet: Packet, requests: Iterable[RequestAuthentication]) -> Ruling:
    """RequestAuthentication refuses a token that is there and not valid; without one it lets the request on."""
    listed = [r for r in requests if r.issuers]
    if packet.http is None or _jwt(packet, listed) is False:
        return ruling
    doubt = Doubt(f"whether {listed[0].ref} takes the request's token", unseen=False)
    by = (Deciding(listed[0].ref, "/spec/jwtRules", Direction.INGRESS, "deny"),)
    refused = Branch(Effect.DENY, by, "the token is not valid", (doubt,))
    return Ruling((*ruling.branches, refused), ruling.trace)


def _from_own_node(source: End, pod: Pod) -> bool:
    home = pod.cluster, pod.node
    match source:
        case Node():
            return home == (source.cluster, source.name)
        case Pod(host_network=True):
            return pod.node != "" and home == (source.cluster, source.node)
        case _:
            return False


def _listed(text: str, port: int | None) -> bool:
    """A list of ports of the annotations that steer capture: "8080,9090" or "*"."""
    words = [word.strip() for word in text.split(",")]
    return "*" in words or (port is not None and str(port) in words)


def _bypasses_inbound(pod: Pod, port: int | None) -> bool:
    """Ports that never reach the sidecar: its own for health and metrics, and what the annotations leave out."""
    if port in _AGENT_PORTS:
        return True
    included = pod.annotations.get(_CAPTURE + "includeInboundPorts", "*")
    return not _listed(included, port) or _listed(pod.annotations.get(_CAPTURE + "excludeInboundPorts", ""), port)


def _bypasses_outbound(pod: Pod, packet: Packet) -> bool:
    """What a pod's sidecar does not capture on the way out: before translation, so the Service's port and address."""
    asked = _asked_ports(packet, packet.service)
    if any(_listed(pod.annotations.get(_CAPTURE + "excludeOutboundPorts", ""), port) for port in asked):
        return True
    ips = packet.service.cluster_ips if packet.service is not None else packet.ips(packet.destination)
    excluded = _ranges(pod.annotations.get(_CAPTURE + "excludeOutboundIPRanges", ""))
    included = pod.annotations.get(_CAPTURE + "includeOutboundIPRanges", "*")
    if ips and all(any(ip in block for block in excluded) for ip in ips):
        return True
    if included.strip() == "*" or any(
        _listed(pod.annotations.get(_CAPTURE + "includeOutboundPorts", ""), port) for port in asked
    ):
        return False
    return bool(ips) and not any(ip in block for ip in ips for block in _ranges(included))


def _ranges(text: str) -> tuple[Block, ...]:
    found = []
    for word in text.split(","):
        try:
            found.append(_block(word.strip()))
        except ValueError:
            continue
    return tuple(found)


def _asked_ports(packet: Packet, service: Service | None) -> frozenset[int]:
    """The ports a client may have asked for to end at the packet's: those of the Service before translation."""
    own = frozenset() if packet.port is None else frozenset({packet.port})
    if service is None or not isinstance(packet.destination, Pod):
        return own
    names = {p.name for p in packet.destination.ports if p.port == packet.port} - {""}
    return frozenset(p.port for p in service.ports if p.target == packet.port or p.target in names) or own


def _tls_mode(policy: object, asked: frozenset[int]) -> str:
    """`tls.mode` of a trafficPolicy; one for the port replaces all of it (portLevelSettings)."""
    if not isinstance(policy, dict):
        return ""
    listed = policy.get("portLevelSettings")
    for each in listed if isinstance(listed, list) else ():
        port = each.get("port") if isinstance(each, dict) else None
        if isinstance(port, dict) and port.get("number") in asked:
            return _tls_mode({"tls": each.get("tls")}, frozenset())
    tls = policy.get("tls")
    return _text(tls.get("mode")) if isinstance(tls, dict) else ""


def _only_proxy(pod: Pod) -> bool:
    """A gateway: a pod that is nothing but a proxy; PeerAuthentication is about workloads, its listeners have TLS of
    their own."""
    containers = pod.raw_spec.get("containers")
    names = [c.get("name") for c in containers if isinstance(c, dict)] if isinstance(containers, list) else []
    return names == ["istio-proxy"]


def _effects(ruling: Ruling) -> set[Effect]:
    return {Effect.DENY if b.effect is Effect.DENY else Effect.ALLOW for b in ruling.branches}


def _selects(selector: Mapping[str, str] | None, pod: Pod) -> bool:
    return not selector or all(pod.labels.get(k) == v for k, v in selector.items())


def _oldest(policies: Iterable[PeerAuthentication]) -> list[PeerAuthentication]:
    """The one that counts of several in one scope: the oldest, by name where the age is the same."""
    return sorted(policies, key=lambda p: (p.created or "~", p.ref.name))[:1]


def _exported(listed: str, namespace: str, pod: Pod) -> bool:
    """exportTo: `*` everybody, `.` the own namespace, `~` nobody, else namespaces."""
    words = [w.strip() for w in listed.split(",")]
    return any(w == "*" or (w == "." and namespace == pod.namespace) or w == pod.namespace for w in words)


def _entry_port(spec: Mapping[str, Any], port: int | None) -> bool:
    ports = spec.get("ports")
    if port is None or not isinstance(ports, list) or not ports:
        return True
    return any(isinstance(p, dict) and p.get("number") == port for p in ports)


def _host_fits(pattern: str, name: str) -> bool:
    return pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))


def _host_in_scope(namespace: str, host: str, own: str, name: str, pod: Pod) -> bool:
    """A `namespace/dnsName` of a Sidecar's egress against a host in a namespace."""
    if namespace == "~":
        return False
    if namespace not in ("*", own) and not (namespace == "." and own == pod.namespace):
        return False
    return _host_fits(host, name) or (name.startswith("*.") and host == name)


def _destination(packet: Packet) -> str:
    return str(packet.service or packet.destination)


_READERS = {
    "AuthorizationPolicy": _read_authorization,
    "PeerAuthentication": _read_peer,
    "RequestAuthentication": _read_request,
    "Sidecar": _read_sidecar,
}


def compile_cluster(index: Index, cluster: str, earlier: Mapping[str, Compiled]) -> Istio:
    """The Istio family of one cluster."""
    del earlier  # a mesh builds on no other family
    mine = index.world.clusters[cluster]
    refusals: list[Refusal] = []
    found: dict[str, list[Any]] = {kind: [] for kind in _READERS}
    for kind, read in _READERS.items():
        group = NETWORKING if kind == "Sidecar" else SECURITY
        for obj in sorted(mine.of(group, kind), key=lambda o: (o.ref.namespace, o.ref.name)):
            try:
                found[kind].append(read(obj))
            except Refused as refused:
                refusals.append(Refusal(obj.ref, refused.pointer, refused.why))
        for obj in mine.of(NETWORKING, kind) if group == SECURITY else ():
            refusals.append(Refusal(obj.ref, "/apiVersion", f"{kind} is of group {SECURITY}, not {NETWORKING}"))
    return Istio(
        index.world,
        cluster,
        mesh_config(mine),
        tuple(found["AuthorizationPolicy"]),
        tuple(found["PeerAuthentication"]),
        tuple(found["RequestAuthentication"]),
        tuple(found["Sidecar"]),
        tuple(refusals),
    )


FAMILY = Family(
    LAYER,
    frozenset(
        {
            (SECURITY, "AuthorizationPolicy"),
            (SECURITY, "PeerAuthentication"),
            (SECURITY, "RequestAuthentication"),
            (NETWORKING, "Sidecar"),
            (NETWORKING, "DestinationRule"),
        }
    ),
    compile_cluster,
)
