"""Istio at the receiving workload, naively: one connection against raw objects, nothing shared with the engine.

Straight from istio.io/reference/config/security (authorization-policy, conditions, peer_authentication), the Envoy RBAC
filters that `pilot/pkg/security/authz` generates, and `pilot/pkg/serviceregistry/ambient/authorization.go` with ztunnel's
`src/rbac.rs`. `world` makes the clusters it is compared on, with sidecars or with ambient.
"""

from __future__ import annotations

import ipaddress
import random
import re
from dataclasses import dataclass
from typing import Any

Objects = list[dict[str, Any]]
ALLOWED, DENIED, UNKNOWN = "allowed", "denied", "unknown"
ROOT, DOMAIN, ALIAS, PROVIDER = "istio-system", "td1", "old-td", "opa"
HTTP_ONLY = {"hosts", "methods", "paths", "requestPrincipals"}
L4_WHEN = {"source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port"}


@dataclass
class Connection:
    """`identity` (trust domain, namespace, service account); `request` None on a TCP port."""

    source_ip: str
    destination_ip: str
    port: int
    identity: tuple[str, str, str] | None
    request: dict[str, Any] | None
    proxy: str
    """"http", "tcp" or "ztunnel"."""

    @property
    def principal(self) -> str | None:
        return None if self.identity is None else "{}/ns/{}/sa/{}".format(*self.identity)


def wild(pattern: str, value: str) -> bool:
    """ "Exact, prefix, suffix and presence match"."""
    if pattern == "*":
        return len(value) > 0
    if pattern[0] == "*":
        return value.endswith(pattern[1:])
    if pattern[-1] == "*":
        return value.startswith(pattern[:-1])
    return value == pattern


def within(block: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(block, strict=False)


def principal_fits(pattern: str, connection: Connection) -> bool:
    who = connection.principal
    if who is None:
        return False
    patterns = [pattern]
    head, _, rest = pattern.partition("/")
    if connection.proxy != "ztunnel" and pattern.count("/") == 4 and head in (DOMAIN, ALIAS, "cluster.local"):
        patterns = [f"{DOMAIN}/{rest}", f"{ALIAS}/{rest}"]
    return any(wild(p, who) for p in patterns)


def value_fits(field: str, value: str, home: str, connection: Connection) -> bool:
    identity, request = connection.identity, connection.request or {}
    match field:
        case "principals" | "source.principal":
            return principal_fits(value, connection)
        case "namespaces" | "source.namespace":
            if identity is None:
                return False
            if connection.proxy == "ztunnel":
                return wild(value, identity[1])
            return re.search(f".*/ns/{value.replace('*', '.*')}/.*", f"spiffe://{connection.principal}") is not None
        case "serviceAccounts" | "source.serviceAccount":
            place, slash, name = value.partition("/")
            return identity is not None and identity[1:] == ((place, name) if slash else (home, value))
        case "trustDomains":
            trusted = (DOMAIN, ALIAS)
            if identity is None:
                return False
            return identity[0] in trusted if value in trusted else wild(value, identity[0])
        case "ipBlocks" | "source.ip" | "remoteIpBlocks" | "remote.ip":
            return within(value, connection.source_ip)
        case "destination.ip":
            return within(value, connection.destination_ip)
        case "ports" | "destination.port":
            return int(value) == connection.port
        case "hosts":
            return wild(value.lower(), request["host"].lower())
        case "methods":
            return wild(value, request["method"])
        case "paths":
            return wild(value, request["path"])
        case "requestPrincipals":
            return False  # no token is ever sent here
        case "request.headers[x-team]":
            return "x-team" in request["headers"] and wild(value, request["headers"]["x-team"])
        case _:
            raise AssertionError(field)


def split(section: dict[str, Any]) -> list[tuple[str, list[str], list[str]]]:
    """(field, values, notValues) of one source or operation."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for key, listed in section.items():
        if key.startswith("not"):
            found.setdefault(key[3].lower() + key[4:], ([], []))[1].extend(listed)
        else:
            found.setdefault(key, ([], []))[0].extend(listed)
    return [(field, values, nots) for field, (values, nots) in found.items()]


def field_fits(field: str, values: list[str], nots: list[str], home: str, connection: Connection) -> bool:
    if values and not any(value_fits(field, v, home, connection) for v in values):
        return False
    return not any(value_fits(field, v, home, connection) for v in nots)


def rule_fits(rule: dict[str, Any], action: str, home: str, connection: Connection) -> bool:
    froms = [split(entry["source"]) for entry in rule.get("from") or []]
    tos = [split(entry["operation"]) for entry in rule.get("to") or []]
    whens = [[(w["key"], w.get("values") or [], w.get("notValues") or [])] for w in rule.get("when") or []]

    def unknown(field: str) -> bool:
        if connection.proxy == "http":
            return False
        if field in HTTP_ONLY or field.startswith("request."):
            return True
        if connection.proxy == "tcp":
            return False
        return field == "remoteIpBlocks" or ("." in field and field not in L4_WHEN)

    def lost(field: str) -> bool:
        return unknown(field) or (connection.proxy == "ztunnel" and field == "trustDomains")

    everything = [c for group in (*froms, *tos, *whens) for c in group]
    if action == "ALLOW" and any(unknown(c[0]) for c in everything):
        return False

    def one_of(groups: list[list[tuple[str, list[str], list[str]]]]) -> bool:
        for group in groups:
            kept = [c for c in group if not lost(c[0])]
            if not kept and connection.proxy == "ztunnel":
                continue  # "empty clause": skipped
            if all(field_fits(*c, home, connection) for c in kept):
                return True
        return not groups

    return one_of(froms) and one_of(tos) and all(one_of([w]) for w in whens)


def selected(policy: dict[str, Any], pod: dict[str, Any]) -> bool:
    if policy["metadata"]["namespace"] not in (ROOT, pod["metadata"]["namespace"]):
        return False
    wanted = policy["spec"].get("selector", {}).get("matchLabels", {})
    return all(pod["metadata"]["labels"].get(k) == v for k, v in wanted.items())


def mode(objects: Objects, pod: dict[str, Any], port: int, ambient: bool) -> str:
    """The effective mTLS mode: most narrow scope first, the oldest in each, UNSET inherits."""
    home = pod["metadata"]["namespace"]
    peers = [o for o in objects if o["kind"] == "PeerAuthentication"]
    peers.sort(key=lambda o: o["metadata"]["creationTimestamp"])

    def first(place: str, narrow: bool) -> dict[str, Any]:
        for o in peers:
            if o["metadata"]["namespace"] == place and selected(o, pod) and ("selector" in o["spec"]) == narrow:
                return dict(o["spec"])
        return {}

    def stated(spec: dict[str, Any]) -> str:
        return str(spec.get("mtls", {}).get("mode", "UNSET"))

    inherited = "PERMISSIVE"
    for spec in (first(ROOT, False), first(home, False) if home != ROOT else {}):
        inherited = inherited if stated(spec) == "UNSET" else stated(spec)
    workload = first(home, True) if home != ROOT else {}
    effective = inherited if stated(workload) == "UNSET" else stated(workload)
    ports = {int(p): v["mode"] for p, v in workload.get("portLevelMtls", {}).items()}
    at_port = ports.get(port, "UNSET")
    if at_port == "UNSET":
        return effective
    if ambient and at_port == "DISABLE" and stated(workload) == "UNSET" and "PERMISSIVE" not in ports.values():
        return effective  # the static STRICT policy stays
    return str(at_port)


def captured(end: Any, objects: Objects) -> str:
    """ "sidecar", "ambient" or ""."""
    if isinstance(end, str):
        return ""
    if any(c["name"] == "istio-proxy" for c in end["spec"]["containers"]):
        return "sidecar"
    home = end["metadata"]["namespace"]
    labels = next(o for o in objects if o["kind"] == "Namespace" and o["metadata"]["name"] == home)["metadata"][
        "labels"
    ]
    said = end["metadata"]["labels"].get("istio.io/dataplane-mode", labels.get("istio.io/dataplane-mode"))
    return "ambient" if said == "ambient" else ""


def ingress(
    objects: Objects, source: Any, destination: dict[str, Any], port: int, request: dict[str, Any] | None
) -> str:
    """`source`: a raw pod or an address; `request` None: the port speaks TCP."""
    how = captured(destination, objects)
    if not how:
        return ALLOWED
    tls = mode(objects, destination, port, how == "ambient")
    meshed = bool(captured(source, objects))
    if tls == "STRICT" and not meshed:
        return DENIED
    identity = None
    if meshed and not (tls == "DISABLE" and how == "sidecar"):
        identity = (DOMAIN, source["metadata"]["namespace"], source["spec"]["serviceAccountName"])
    address = source if isinstance(source, str) else source["status"]["podIP"]
    proxy = "ztunnel" if how == "ambient" else "tcp" if request is None else "http"
    connection = Connection(address, destination["status"]["podIP"], port, identity, request, proxy)
    policies = [
        o
        for o in objects
        if o["kind"] == "AuthorizationPolicy"
        and selected(o, destination)
        and o["metadata"].get("annotations", {}).get("istio.io/dry-run") != "true"
    ]

    def any_match(action: str, policy: dict[str, Any]) -> bool:
        home = destination["metadata"]["namespace"]
        return any(rule_fits(r, action, home, connection) for r in policy["spec"].get("rules") or [])

    def acting(action: str) -> Objects:
        return [p for p in policies if p["spec"].get("action", "ALLOW") == action]

    asked = [] if how == "ambient" else [p for p in acting("CUSTOM") if any_match("CUSTOM", p)]
    if any(p["spec"]["provider"]["name"] != PROVIDER for p in asked):
        return DENIED
    if any(any_match("DENY", p) for p in acting("DENY")):
        return DENIED
    if acting("ALLOW") and not any(any_match("ALLOW", p) for p in acting("ALLOW")):
        return DENIED
    return UNKNOWN if asked else ALLOWED


# --- worlds ----------------------------------------------------------------------------------------------------------

VALUES: dict[str, tuple[str, ...]] = {
    "principals": (
        f"{DOMAIN}/ns/n0/sa/a0", f"{ALIAS}/ns/n0/sa/a0", "cluster.local/ns/n1/sa/a1", "other/ns/n0/sa/a0",
        "*", "*/sa/a1", f"{DOMAIN}/ns/n0/*", "cluster.local/ns/n1/sa/*", "*/ns/n0/sa/a0",
    ),
    "namespaces": ("n0", "n1", "n*", "*1", "*", "none", "n*0"),
    "serviceAccounts": ("a0", "n0/a0", "n1/a1", "n1/a0"),
    "trustDomains": (DOMAIN, ALIAS, "other", "td*"),
    "ipBlocks": ("10.0.0.1", "10.0.0.0/30", "203.0.113.0/24", "fd00::/8"),
    "remoteIpBlocks": ("10.0.0.2", "10.0.0.0/8"),
    "requestPrincipals": ("*", "issuer/subject"),
    "hosts": ("API", "api", "*.example", "*"),
    "ports": ("8080", "9090", "80"),
    "methods": ("GET", "get", "P*", "*"),
    "paths": ("/a", "/a*", "*b", "*"),
    "source.ip": ("10.0.0.1", "10.0.0.0/30"),
    "remote.ip": ("10.0.0.1", "10.0.0.0/30"),
    "source.namespace": ("n0", "*1"),
    "source.principal": (f"{DOMAIN}/ns/n0/sa/a0", "*"),
    "source.serviceAccount": ("n0/a0", "a1"),
    "destination.ip": ("10.0.0.1", "10.0.0.0/31"),
    "destination.port": ("8080", "9090"),
    "request.headers[x-team]": ("red", "r*", "*"),
}  # fmt: skip
SOURCE = (
    "principals",
    "namespaces",
    "serviceAccounts",
    "trustDomains",
    "ipBlocks",
    "remoteIpBlocks",
    "requestPrincipals",
)
OPERATION = ("hosts", "ports", "methods", "paths")
WHEN = tuple(key for key in VALUES if "." in key)
MODES = ("UNSET", "DISABLE", "PERMISSIVE", "STRICT")


def _some(rng: random.Random, field: str) -> list[str]:
    return rng.sample(VALUES[field], rng.randint(1, 2))


def _section(rng: random.Random, fields: tuple[str, ...]) -> dict[str, Any]:
    chosen = rng.sample(fields, rng.choice((1, 1, 2)))
    if "serviceAccounts" in chosen and {"principals", "namespaces"} & set(chosen):
        chosen = ["serviceAccounts"]
    section: dict[str, Any] = {}
    for field in chosen:
        negative = "not" + field[0].upper() + field[1:]
        for key, odds in ((field, 0.7), (negative, 0.4)):
            if rng.random() < odds:
                section[key] = _some(rng, field)
    return section or {chosen[0]: _some(rng, chosen[0])}


def _rule(rng: random.Random) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    if rng.random() < 0.6:
        rule["from"] = [{"source": _section(rng, SOURCE)} for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.5:
        rule["to"] = [{"operation": _section(rng, OPERATION)} for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.3:
        key = rng.choice(WHEN)
        rule["when"] = [{"key": key, rng.choice(("values", "values", "notValues")): _some(rng, key)}]
    return rule


def _meta(rng: random.Random, home: str, name: str, number: int) -> dict[str, Any]:
    return {"namespace": home, "name": name, "creationTimestamp": f"2026-01-{rng.randint(1, 9)}{number}T00:00:00Z"}


def world(rng: random.Random) -> Objects:
    """A small mesh full of odd policies: port 8080 speaks HTTP and 9090 TCP, as their Services say."""
    ambient = rng.random() < 0.5
    mesh = f"trustDomain: {DOMAIN}\ntrustDomainAliases: [{ALIAS}]\nextensionProviders:\n- name: {PROVIDER}\n  envoyExtAuthzGrpc: {{}}"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": ROOT, "name": "istio"}}
    objects: Objects = [config | {"data": {"mesh": mesh}}]
    for home in ("n0", "n1", ROOT):
        labels = {"istio.io/dataplane-mode": "ambient"} if ambient and home != ROOT else {}
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": home, "labels": labels}})
    for number, home in enumerate(("n0", "n0", "n1", ROOT)):
        meshed = rng.random() < 0.8
        containers = (
            [{"name": "app"}, {"name": "istio-proxy"}]
            if meshed and not (ambient and home != ROOT)
            else [{"name": "app"}]
        )
        labels = {"app": rng.choice(("web", "api"))}
        if ambient and not meshed:
            labels["istio.io/dataplane-mode"] = "none"
        meta = {"namespace": home, "name": f"p{number}", "labels": labels}
        address = f"10.0.0.{number + 1}"
        spec = {"serviceAccountName": rng.choice(("a0", "a1")), "containers": containers, "nodeName": f"x{number}"}
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        objects.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status})
    for home in ("n0", "n1", ROOT):
        for app in ("web", "api"):
            ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "tcp", "port": 90, "targetPort": 9090}]
            spec = {"selector": {"app": app}, "ports": ports}
            objects.append(
                {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": home, "name": app}, "spec": spec}
            )
    for number in range(rng.randint(1, 4)):
        action = rng.choice(("ALLOW", "ALLOW", "DENY", "DENY", "CUSTOM", "AUDIT"))
        spec = {"action": action, "rules": [_rule(rng) for _ in range(rng.randint(1, 2))]}
        if action == "ALLOW" and rng.random() < 0.1:
            spec["rules"] = []
        if action == "CUSTOM":
            spec["provider"] = {"name": rng.choice((PROVIDER, PROVIDER, "missing"))}
        if rng.random() < 0.4:
            spec["selector"] = {"matchLabels": {"app": rng.choice(("web", "api"))}}
        meta = _meta(rng, rng.choice(("n0", "n0", "n1", ROOT)), f"z{number}", number)
        if rng.random() < 0.1:
            meta["annotations"] = {"istio.io/dry-run": rng.choice(("true", "false"))}
        objects.append(
            {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": meta, "spec": spec}
        )
    for number in range(rng.randint(0, 4)):
        spec = {"mtls": {"mode": rng.choice((*MODES, "STRICT"))}} if rng.random() < 0.7 else {}
        if rng.random() < 0.5:
            spec["selector"] = {"matchLabels": {"app": rng.choice(("web", "api"))}}
            if rng.random() < 0.7:
                ports = rng.sample(("8080", "9090"), rng.randint(1, 2))
                spec["portLevelMtls"] = {port: {"mode": rng.choice(MODES)} for port in ports}
        meta = _meta(rng, rng.choice(("n0", "n1", ROOT)), f"m{number}", number)
        objects.append(
            {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": meta, "spec": spec}
        )
    return objects


def request(rng: random.Random) -> dict[str, Any]:
    headers = {"x-team": rng.choice(("red", "blue"))} if rng.random() < 0.5 else {}
    return {
        "method": rng.choice(("GET", "POST")), "path": rng.choice(("/a", "/a/b", "/c")),
        "host": rng.choice(("api", "x.example")), "headers": headers,
    }  # fmt: skip
