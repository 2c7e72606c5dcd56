"""One request read: how it ended, and who answered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import HttpRequest, HttpSample, HttpSeries
from mcdoctor.models.flow import Flow, RungLabel
from mcdoctor_checks.sight import (
    address_book,
    bypasses,
    is_address,
    name_addresses,
    place,
    rung_of,
    source_proxy,
    split_host_port,
)

Ending = Literal[
    "application", "proxy-5xx", "proxy-4xx", "proxy-other", "forward-proxy", "plain-on-tls", "times-out", "refused",
    "unreachable", "reset", "closed", "tls-on-plain", "tls-fails", "name-fails", "protocol-fails", "cannot-connect",
]  # fmt: skip

# Envoy, by the body that it writes itself: https://www.envoyproxy.io/docs/envoy/latest/configuration/observability
_PROXY_BODY = re.compile(
    r"upstream connect error|no healthy upstream|upstream request timeout|RBAC: access denied|"
    r"no cluster match|fault filter abort|upstream_reset|stream timeout|fail-?fast|"
    r"default backend - 404|no available server|<center>nginx",
    re.I,
)
_PLAIN_ON_TLS = re.compile(
    r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server|"
    r"client sent an HTTP request to|speaking plain HTTP to an SSL",
    re.I,
)
_TLS_ON_PLAIN = re.compile(
    r"wrong[_ ]version|record layer failure|http[_ ]request|unknown protocol|first record does not look|"
    r"packet length too long|not a TLS",
    re.I,
)
_FLAGS_OF_PROXY = re.compile(r"\b(UH|UF|UO|UC|UT|UR|URX|NR|NC|DPE|UPE|UMSDR|LR|RL|DC|UAEX|FI|NFCF|DT|OM)\b")
_BALANCERS = re.compile(
    r"awselb|cloudfront|cloudflare|google frontend|gws|bigip|haproxy|azure|varnish|squid|akamai", re.I
)

_SAID = 240  # Envoy may add why its connection failed, which begins after 105 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a request ended. `by`: who answered, as far as it can be told."""

    ending: Ending
    status: int | None = None
    by: str = ""
    flags: str = ""
    error: str = ""
    ms: float = 0.0

    @property
    def proves_path(self) -> bool:
        return self.ending == "application"


def read(request: HttpRequest) -> Answer:
    """Reads one request."""
    return _read(
        result=request.result,
        status=request.status,
        grpc=request.grpc_status,
        headers={k.lower(): v for k, v in (request.headers or {}).items()},
        body=request.body_start or "",
        flags=request.response_flags or "",
        error=request.error or "",
        served_by=request.served_by,
        via=request.via,
        ms=request.ms,
        https=request.url.lower().startswith("https"),
    )


def read_sample(series: HttpSeries, sample: HttpSample, like: Mapping[int, Answer] | None = None) -> Answer:
    """Reads one of a series. A sample has no headers: `like` holds answers by status that were seen in full."""
    answer = _read(
        result=sample.result,
        status=sample.status,
        grpc=None,
        headers={},
        body="",
        flags=sample.response_flags or "",
        error=sample.error or "",
        served_by=sample.served_by,
        via=series.via,
        ms=sample.ms,
        https=series.url.lower().startswith("https"),
    )
    known = (like or {}).get(sample.status or 0)
    if known is not None and not sample.response_flags and not sample.served_by and sample.result == "response":
        return Answer(ending=known.ending, status=sample.status, by=known.by, flags=known.flags, ms=sample.ms)
    return answer


def _read(
    *,
    result: str,
    status: int | None,
    grpc: int | None,
    headers: Mapping[str, str],
    body: str,
    flags: str,
    error: str,
    served_by: str | None,
    via: str | None,
    ms: float,
    https: bool,
) -> Answer:
    if result != "response":
        return Answer(ending=_broken(result, error), error=error or result, flags=flags, ms=ms)
    by = served_by or headers.get("server", "")
    if not https and status == 400 and _PLAIN_ON_TLS.search(body):
        return Answer(ending="plain-on-tls", status=status, by=by, error=body[:120], ms=ms)
    proxy = _proxy(status or 0, grpc, headers, body, flags, served_by)
    if proxy is None:
        return Answer(ending="application", status=status, by=by, flags=flags, ms=ms)
    if via and not flags and status in (403, 407, 502, 503, 504):
        return Answer(ending="forward-proxy", status=status, by=via, error=body[:120], ms=ms)
    code = status or 0
    ending: Ending = "proxy-5xx" if code >= 500 or grpc else "proxy-4xx" if code >= 400 else "proxy-other"
    return Answer(ending=ending, status=status, by=proxy, flags=flags, error=body[:_SAID], ms=ms)


def _broken(result: str, error: str) -> Ending:
    """Endings without an answer. Texts are those of this prober and of common clients."""
    text = error.lower()
    if result == "connect-error":
        if "refused" in text:
            return "refused"
        if re.search(r"time[d -]*out|timeout|i/o timeout|etimedout", text):
            return "times-out"
        if re.search(r"reset", text):
            return "reset"
        if re.search(r"unreachable|no route|prohibited|ehost|enet", text):
            return "unreachable"
        return "cannot-connect"
    if result == "tls-error":
        if re.search(r"timeout|timed out", text):
            return "times-out"
        return "tls-on-plain" if _TLS_ON_PLAIN.search(text) else "tls-fails"
    plain: dict[str, Ending] = {
        "timeout": "times-out",
        "reset": "reset",
        "closed": "closed",
        "dns-error": "name-fails",
    }
    if result == "protocol-error" and re.search(r"\\x15\\x03|\\x16\\x03|1503|tls|ssl", text):
        return "plain-on-tls"
    return plain.get(result, "protocol-fails")


def _proxy(
    status: int, grpc: int | None, headers: Mapping[str, str], body: str, flags: str, served_by: str | None
) -> str | None:
    """Who between the caller and the application made this answer; None when the application did."""
    server = headers.get("server", "")
    if served_by:
        return None
    if "l5d-proxy-error" in headers or "l5d-proxy-error" in body:
        return "linkerd"
    if flags and _FLAGS_OF_PROXY.search(flags):
        return f"{server or 'envoy'} ({flags})"
    failing = status >= 400 or bool(grpc)
    if failing and _PROXY_BODY.search(body):
        return server or "a proxy"
    if grpc == 14 and not body and "x-envoy-upstream-service-time" not in headers and "envoy" in server:
        return server
    if "envoy" in server:
        # Envoy adds this header to what an upstream sent, be it empty; without it the answer is Envoy's own.
        own = "x-envoy-upstream-service-time" not in headers and (failing or 300 <= status < 400)
        return server if own else None
    if status in (502, 504):
        return server or headers.get("via") or "a gateway"
    if failing and _BALANCERS.search(server):
        return server
    if status == 503 and any(k.startswith(("x-envoy-", "l5d-")) for k in headers):
        return "a proxy"
    return None


# --- which requests are the flow's ---------------------------------------------------------------------------------

LARGE = 1300  # a request above this many bytes does not fit one segment of a small path


def target(facts: Facts, url: str, address: str | None) -> RungLabel | None:
    """The rung that a request was sent to: by the address dialled where it is known, else by the URL's host."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError:
        return None
    port = port or {"https": 443, "http": 80, "grpc": None, "wss": 443, "ws": 80}.get(parts.scheme)
    flow = facts.flow
    named = _is_destination(facts, host)
    if address:
        dialled, at = split_host_port(address)
        if dialled and is_address(dialled):
            label = rung_of(facts, dialled, at if at is not None else port)
            if named and _led_there(facts, dialled, label):
                return "name" if _same_port(flow.port, port) else "neighbour"
            return None if label == "gateway" and not named and _of_another(flow, host) else label
    if named:
        return "name" if _same_port(flow.port, port) else "neighbour"
    return rung_of(facts, host, port) if host else None


def _of_another(flow: Flow, host: str) -> bool:
    """A Service's name that is not the destination's: behind a gateway stand many."""
    name, _, rest = host.partition(".")
    namespace, _, kind = rest.partition(".")
    return kind.startswith("svc.") and (namespace != flow.namespace or not name.startswith(flow.name))


def _led_there(facts: Facts, dialled: str, label: RungLabel | None) -> bool:
    """Whether the name gave this address. A probe of the ladder dials an address under the name that never gave it."""
    if any(r.result == "dns-error" and place(facts.flow, r.vantage) == "source" for r in facts.all(HttpRequest)):
        return False
    if led := name_addresses(facts):
        return dialled in led
    return label in (None, "name", "cluster-ip", "gateway")


def _same_port(wanted: int | None, port: int | None) -> bool:
    return wanted is None or port is None or wanted == port


def _is_destination(facts: Facts, host: str) -> bool:
    """The flow's own name, or a shorter or longer form of it."""
    flow = facts.flow
    own = (flow.host or flow.address or "").rstrip(".").lower()
    if not host:
        return False
    if own and (host == own or own.startswith(f"{host}.")):
        return True
    if host in {(s.external_name or "").rstrip(".").lower() for s in (flow.local, flow.remote) if s}:
        return True
    first, _, rest = host.partition(".")
    names = {flow.name.lower(), *(s.name.lower() for s in (flow.local, flow.remote) if s)} - {""}
    if first not in names:
        return host in {a.lower() for a in address_book(facts) if not is_address(a)}
    return not rest or rest.split(".")[0] == flow.namespace.lower()


def own_requests(facts: Facts) -> tuple[list[HttpRequest], list[HttpSeries]]:
    """The flow's own requests, from the nearest place to the source that has any.

    Sent as the workload: a probe that went past the pod's proxy took another path than the workload's traffic does.
    """
    for where in ("source", "near"):
        singles = [r for r in facts.all(HttpRequest) if place(facts.flow, r.vantage) == where]
        series = [s for s in facts.all(HttpSeries) if place(facts.flow, s.vantage) == where]
        mine = [r for r in singles if _counts(facts, r)], [s for s in series if _counts(facts, s)]
        if mine[0] or mine[1]:
            return mine
    return [], []


def _counts(facts: Facts, fact: HttpRequest | HttpSeries) -> bool:
    if bypasses(fact) and _has_proxy(facts):
        return False
    return target(facts, fact.url, fact.address) is not None


def _has_proxy(facts: Facts) -> bool:
    return source_proxy(facts) is not None


def front_requests(facts: Facts) -> tuple[list[HttpRequest], list[HttpSeries]]:
    """Those of the first rung that was asked: the name, else the Service, the gateway, the endpoints."""
    singles, series = own_requests(facts)
    labelled = [(target(facts, f.url, f.address), f) for f in singles]
    labelled_series = [(target(facts, f.url, f.address), f) for f in series]
    for label in ("name", "cluster-ip", "gateway", "endpoint"):
        mine = [f for at, f in labelled if at == label]
        theirs = [f for at, f in labelled_series if at == label]
        if not mine and not theirs:
            continue
        if label == "endpoint" and facts.flow.host and not _only_endpoints(facts):
            return [], []  # a request straight to a pod does not show that the way through the name works
        return mine, theirs
    return [], []


def _only_endpoints(facts: Facts) -> bool:
    """No Service address stands before the endpoints: headless, or a pod named directly."""
    local = facts.flow.local
    return local is not None and local.headless


def ordinary(requests: Iterable[HttpRequest]) -> list[HttpRequest]:
    """Requests that fit a segment, with segments as usual, on connections that had not been idle."""
    return [r for r in requests if not r.max_segment and (r.request_bytes or 0) <= LARGE and (r.idle_s or 0) < 5]
