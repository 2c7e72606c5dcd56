"""Gateway API routes as Linkerd's proxy matches them: which request goes to which route.

Source: linkerd2-proxy `linkerd/http/route/src/{lib.rs,http/match*,grpc/match.rs}`. The best match wins: host, then the
length of the path matched, method, number of headers, number of query parameters; then the oldest route, then by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qsl

from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.question import Http
from mcdoctor.policy.verdict import Doubt, Match, Ref, both, either
from mcdoctor.policy.world import Object

GROUP, GATEWAY = "policy.linkerd.io", "gateway.networking.k8s.io"
EXACT, REGULAR, PREFIX = "Exact", "RegularExpression", "PathPrefix"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
Rank: TypeAlias = tuple[int, ...]
UNSAID = Doubt("it hangs on the HTTP request, which was not said", unseen=False)


@dataclass(frozen=True, slots=True)
class Text:
    """A header or query parameter wanted: `name` exactly (headers: lower case), its value exact or by expression."""

    name: str
    value: str
    expression: re.Pattern[str] | None


@dataclass(frozen=True, slots=True)
class Request:
    """One entry of `matches`: everything given must hold. `service` and `rpc` belong to GRPCRoutes."""

    kind: str = PREFIX
    path: str = "/"
    expression: re.Pattern[str] | None = None
    method: str | None = None
    headers: tuple[Text, ...] = ()
    query: tuple[Text, ...] = ()
    grpc: bool = False
    service: str | None = None
    rpc: str | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    kind: str
    namespace: str
    name: str
    port: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """`requests`: (entry of `matches`, pointer to its rule); `hosts` lower case, () = any."""

    ref: Ref
    group: str
    parents: tuple[Parent, ...]
    hosts: tuple[str, ...]
    requests: tuple[tuple[Request, str], ...]
    created: str
    pointer: str

    @property
    def order(self) -> tuple[bool, str, str, str, str]:
        return (not self.created, self.created, self.group, self.ref.kind, self.ref.name)


def read_route(obj: Object, group: str) -> Route:
    """An HTTPRoute, GRPCRoute, TLSRoute or TCPRoute with its parents among Linkerd's kinds. Raises Refused."""
    spec = Field(obj.raw)["spec"]
    parents = tuple(_parents(spec["parentRefs"], obj))
    requests: list[tuple[Request, str]] = []
    if parents and obj.ref.kind in ("HTTPRoute", "GRPCRoute"):
        read = _http_request if obj.ref.kind == "HTTPRoute" else _grpc_request
        for rule in spec["rules"].items():
            rule.mapping()
            listed = list(rule["matches"].items())
            requests += [(read(item), rule.pointer) for item in listed]
            if not listed:
                requests.append((Request(grpc=obj.ref.kind == "GRPCRoute"), rule.pointer))
        if not spec["rules"].present:  # the API server's default: one rule that matches everything
            requests.append((Request(grpc=obj.ref.kind == "GRPCRoute"), spec.pointer))
    hosts = tuple(h.lower() for h in spec["hostnames"].texts())
    pointer = spec["rules"].pointer if spec["rules"].present else spec.pointer
    return Route(obj.ref, group, parents, hosts, tuple(requests), obj.created, pointer)


def _parents(listed: Field, obj: Object) -> Iterator[Parent]:
    """Parents that are Servers or EgressNetworks and did not refuse the route in its status."""
    refused = _refused(obj)
    for item in listed.items():
        kind = item["kind"].text("Gateway")
        if item["group"].text(GATEWAY).lower() != GROUP or kind.lower() not in ("server", "egressnetwork"):
            continue
        namespace, name = item["namespace"].text(obj.ref.namespace), item["name"].text()
        port = item["port"].integer() if item["port"].present else None
        if kind.lower() == "server":
            if namespace != obj.ref.namespace:
                raise Refused(item["namespace"].pointer, "may not name a Server of another namespace")
            for field in (item["port"], item["sectionName"]):
                if field.present:
                    raise Refused(field.pointer, "may not be set where the parent is a Server")
            kind = "Server"
        else:
            if port is None:
                raise Refused(item["port"].pointer, "an EgressNetwork needs a port")
            kind = "EgressNetwork"
        if (kind, name) not in refused:
            yield Parent(kind, namespace, name, port)


def _refused(obj: Object) -> frozenset[tuple[str, str]]:
    """(kind, name) of parents whose controller says that it did not accept the route."""
    status = obj.raw.get("status")
    found = set()
    for parent in _dicts(status.get("parents") if isinstance(status, dict) else None):
        reference = parent.get("parentRef")
        for condition in _dicts(parent.get("conditions")):
            refused = condition.get("type") == "Accepted" and condition.get("status") == "False"
            if refused and isinstance(reference, dict):
                found.add((str(reference.get("kind")), str(reference.get("name"))))
    return frozenset(found)


def _dicts(value: object) -> list[Mapping[str, object]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _expression(field: Field) -> re.Pattern[str]:
    try:
        return re.compile(field.text())
    except (re.error, RecursionError, OverflowError) as error:
        raise Refused(field.pointer, f"not a regular expression: {error}") from None


def _texts(listed: Field, *, fold: bool) -> tuple[Text, ...]:
    found = []
    for item in listed.items():
        kind = item["type"].choice((EXACT, REGULAR), EXACT)
        name, value = item["name"].text(), item["value"].text()
        expression = _expression(item["value"]) if kind == REGULAR else None
        found.append(Text(name.lower() if fold else name, value, expression))
    return tuple(found)


def _http_request(item: Field) -> Request:
    path = item["path"]
    kind = path["type"].choice((EXACT, PREFIX, REGULAR), PREFIX)
    value = path["value"].text("/")
    if kind != REGULAR and not value.startswith("/"):
        raise Refused(path["value"].pointer, "must start with a slash")
    return Request(
        kind,
        value,
        _expression(path["value"]) if kind == REGULAR and path["value"].present else None,
        item["method"].choice(METHODS) if item["method"].present else None,
        _texts(item["headers"], fold=True),
        _texts(item["queryParams"], fold=False),
    )


def _grpc_request(item: Field) -> Request:
    method = item["method"]
    service, rpc = method["service"].text("") or None, method["method"].text("") or None
    if method.present and service is None and rpc is None:
        raise Refused(method.pointer, "at least one of service and method must be set")
    return Request(headers=_texts(item["headers"], fold=True), grpc=True, service=service, rpc=rpc)


# --- matching --------------------------------------------------------------------------------------------------------


def ranked(routes: Iterable[Route], http: Http | None) -> list[tuple[Match, Route, str]]:
    """The entries that match or may match, best first, each with its route and the pointer of its rule."""
    found: list[tuple[Rank, tuple[bool, str, str, str, str], int, Match, Route, str]] = []
    for route in routes:
        host, host_rank = _host(route.hosts, http)
        if host is False:
            continue
        for number, (request, pointer) in enumerate(route.requests):
            match, rank = _request(request, http)
            match = both(host, match)
            if match is not False:
                worst_first = tuple(-r for r in (*host_rank, *rank))
                found.append((worst_first, route.order, number, match, route, pointer))
    found.sort(key=lambda entry: entry[:3])
    return [entry[3:] for entry in found]


def matches_any(route: Route, http: Http | None) -> Match:
    found: Match = False
    for match, _, _ in ranked([route], http):
        found = either(found, match)
    return found


def host_fits(pattern: str, host: str) -> bool:
    """`*.x` covers names below x, not x."""
    return host.endswith(pattern[1:]) and host != pattern[1:] if pattern.startswith("*.") else host == pattern


def _host(hosts: tuple[str, ...], http: Http | None) -> tuple[Match, Rank]:
    if not hosts:
        return True, (0, 0)
    best = max((not h.startswith("*."), len(h)) for h in hosts)
    if http is None or http.host is None:
        return UNSAID, (1 + best[0], best[1])
    name = http.host.lower()
    name = name if name.startswith("[") else name.partition(":")[0]
    fitting = [(1 + (not h.startswith("*.")), len(h)) for h in hosts if host_fits(h, name)]
    return (True, max(fitting)) if fitting else (False, (0, 0))


def _whole(expression: re.Pattern[str], text: str) -> bool:
    """The first match must be the whole text, as the proxy's library has it (no second try for a longer one)."""
    found = expression.search(text)
    return found is not None and found.span() == (0, len(text))


def _text(wanted: Text, given: str | None) -> bool:
    if given is None:
        return False
    return given == wanted.value if wanted.expression is None else _whole(wanted.expression, given)


def _headers(wanted: tuple[Text, ...], http: Http | None) -> Match:
    if not wanted:
        return True
    if http is None or not http.headers:
        return UNSAID
    return all(_text(each, http.headers.get(each.name)) for each in wanted)


def _request(wanted: Request, http: Http | None) -> tuple[Match, Rank]:
    if wanted.grpc:
        return _rpc(wanted, http)
    path = None if http is None else http.path
    bare, _, query = (path or "").partition("?")
    found: Match = True
    prefix = wanted.path.rstrip("/")
    if wanted.kind == PREFIX:
        length = max(len(prefix), 1)
        if prefix:
            trimmed = bare.rstrip("/")
            found = UNSAID if path is None else trimmed == prefix or trimmed.startswith(prefix + "/")
    elif wanted.kind == EXACT or wanted.expression is None:
        length, found = len(wanted.path), UNSAID if path is None else bare == wanted.path
    else:
        length = len(bare) if path is not None else 1 << 16
        found = UNSAID if path is None else _whole(wanted.expression, bare)
    if wanted.method is not None:
        found = both(found, UNSAID if http is None or http.method is None else http.method == wanted.method)
    found = both(found, _headers(wanted.headers, http))
    if wanted.query:
        given: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            given.setdefault(name, value)
        found = both(found, UNSAID if path is None else all(_text(q, given.get(q.name)) for q in wanted.query))
    return found, (length, wanted.method is not None, len(wanted.headers), len(wanted.query))


def _rpc(wanted: Request, http: Http | None) -> tuple[Match, Rank]:
    found: Match = UNSAID if http is None or http.method is None else http.method == "POST"
    path = None if http is None else http.path
    if path is None:
        found = both(found, UNSAID if wanted.service or wanted.rpc else True)
    else:
        parts = path.partition("?")[0].split("/")
        shaped = len(parts) >= 3 and not parts[0]
        found = both(found, shaped and wanted.service in (None, parts[1]) and wanted.rpc in (None, parts[2]))
    found = both(found, _headers(wanted.headers, http))
    return found, (len(wanted.service or ""), len(wanted.rpc or ""), len(wanted.headers), 0)
