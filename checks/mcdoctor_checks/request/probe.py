"""The flow's own request: once, then a short series, then (on variance, or when asked) the whole series."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from mcdoctor.check import World
from mcdoctor.models.facts import Fact, HttpProtocol, HttpRequest, HttpSeries
from mcdoctor.models.ids import Symptom
from mcdoctor.models.requests import ProbeRequest, ReadBanner, SendRequest
from mcdoctor_checks.mtu.judge import verdicts
from mcdoctor_checks.request.answer import LARGE, own_requests, read
from mcdoctor_checks.sight import name_addresses
from mcdoctor_checks.tcp.probe import side_by_side

SHORT = 4  # requests of each of the two first series: 0.6 s at five a second
_SYMPTOMS = (
    Symptom.INTERMITTENT_LATENCY, Symptom.SURGE_5XX, Symptom.CONNECTION_REFUSED_OR_RESET, Symptom.CONNECTION_TIMEOUT,
    Symptom.UNEVEN_LOAD_OR_NO_FAILOVER,
)  # fmt: skip
_IDLE = 61.0  # just beyond the shortest limit of common load balancers
PADDING = "x-mcdoctor-padding"
PADDED = 3600  # bytes: three segments of an Ethernet path, and within the 8 KB that servers allow for headers


def plan(world: World) -> SendRequest | None:
    """The request as the user or the flow has it; None where the protocol is not HTTP."""
    flow, options = world.flow, world.options
    protocol: HttpProtocol = {"h2c": "h2", "grpc": "grpc"}.get(flow.protocol or "", "http/1.1")  # type: ignore[assignment]
    assert protocol in get_args(HttpProtocol)
    if flow.protocol in ("tcp", "udp", "tls") and options.request_path is None:
        return None
    host = flow.host or flow.address
    if not host:
        return None
    scheme = "https" if flow.protocol in ("https", "tls") else "http"
    shown = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[scheme]
    port = f":{flow.port}" if flow.port and flow.port != usual else ""
    path = options.request_path or flow.path or "/"
    return SendRequest(
        url=f"{scheme}://{shown}{port}{path}",
        method=options.request_method,
        protocol=protocol,
        headers=dict(options.request_headers) or None,
        body=options.request_body,
    )


def harmless(request: SendRequest) -> bool:
    """Whether repeating the request has no effect on the server."""
    return request.method.upper() in ("GET", "HEAD", "OPTIONS")


def probe(world: World) -> Iterator[Fact]:
    """One request by name, always. Then more: each endpoint when it failed, series when it did not."""
    request = plan(world)
    if request is None:
        yield from side_by_side(world.prober, world, _banners(world), 4.0)
        return
    first = list(world.ask(request, budget=4.0))
    yield from first
    answers = [read(f) for f in first if isinstance(f, HttpRequest)]
    if not answers or not harmless(request):
        return
    if not answers[0].proves_path:
        yield from _after_failure(world, request)
        if world.flow.protocol is None:
            yield from side_by_side(world.prober, world, _banners(world), 4.0)
        return
    if answers[0].ms > 1500:
        return  # slow as it is: a series would only cost the server
    yield from _series(world, request, _wanted(world))


def _wanted(world: World) -> int:
    """How many requests of a series to make in all."""
    return max(0, min(world.options.requests, 100))


def _series(world: World, request: SendRequest, whole: int) -> Iterator[Fact]:
    """A short series on new and on kept connections at once; the rest only where these vary or the symptom asks."""
    short = [_repeat(request, min(SHORT, whole), keep) for keep in (False, True)] if whole > 1 else []
    facts = list(side_by_side(world.prober, world, short, 6.0))
    yield from facts
    rest = whole - sum(len(f.samples) for f in facts if isinstance(f, HttpSeries))
    if rest > 1 and (world.options.symptom in _SYMPTOMS or _varies(facts)):
        more = [_repeat(request, (rest + 1) // 2, keep) for keep in (False, True)]
        yield from side_by_side(world.prober, world, more, 0.2 * rest + 6.0)
    if world.options.symptom is Symptom.CONNECTION_REFUSED_OR_RESET and world.left() > _IDLE + 10:
        idle = SendRequest(
            url=request.url,
            method=request.method,
            protocol=request.protocol,
            headers=request.headers,
            count=2,
            interval=_IDLE,
            keep=True,
        )
        yield from world.ask(idle, budget=_IDLE + 8)


def _repeat(request: SendRequest, count: int, keep: bool) -> SendRequest:
    return SendRequest(
        url=request.url,
        method=request.method,
        protocol=request.protocol,
        headers=request.headers,
        body=request.body,
        count=count,
        interval=0.2,
        keep=keep,
        timeout=2.0,
    )


def _varies(facts: list[Fact]) -> bool:
    """Some fail and some do not, or some take far longer than others."""
    samples = [s for f in facts if isinstance(f, HttpSeries) for s in f.samples]
    good = sorted(s.ms for s in samples if s.result == "response" and (s.status or 0) < 500)
    if len(good) < len(samples):
        return True
    return bool(good) and good[-1] > max(10 * good[len(good) // 2], good[len(good) // 2] + 500)


def _after_failure(world: World, request: SendRequest) -> Iterator[Fact]:
    """The same request to the other rungs of the ladder, the name's own address left out."""
    flow = world.flow
    taken = set(name_addresses(world.facts))
    rungs = [r for r in flow.rungs if r.address and r.label not in ("name", "neighbour") and r.address not in taken]
    ladder: list[ProbeRequest] = []
    for rung in rungs[:4]:
        url = request.url
        if rung.port != flow.port and flow.host:
            scheme, _, rest = url.partition("://")
            path = "/" + rest.partition("/")[2]
            url = f"{scheme}://{flow.host}:{rung.port}{path}"
        ladder.append(
            SendRequest(
                url=url,
                address=rung.address,
                method=request.method,
                protocol=request.protocol,
                headers=request.headers,
                timeout=2.0,
            )
        )
    yield from side_by_side(world.prober, world, ladder, 4.0)


def _banners(world: World) -> list[ProbeRequest]:
    flow = world.flow
    addresses = [*name_addresses(world.facts), *(r.address for r in flow.rungs if r.address and r.label != "neighbour")]
    port = flow.port or 0
    return [ReadBanner(address=a, port=port, timeout=1.5) for a in list(dict.fromkeys(addresses))[:2] if port]


def probe_large(world: World) -> Iterator[Fact]:
    """The request with a long header, where sizes were seen to matter or a small request was not answered."""
    request = plan(world)
    if request is None or not harmless(request) or request.protocol not in ("http/1.1", "h2"):
        return
    holes = verdicts(world.facts).holes
    asked = world.options.symptom is Symptom.LARGE_PAYLOAD_HANG
    if not holes and not asked:
        return
    if not any(read(r).proves_path for r in own_requests(world.facts)[0]):
        return  # nothing small gets through: a large one would only wait
    yield from world.ask(padded(request), budget=4.0)


def padded(request: SendRequest, max_segment: int | None = None) -> SendRequest:
    """The request grown by a header, so that it takes several segments and still changes nothing."""
    headers = {**(request.headers or {}), PADDING: "x" * PADDED}
    return SendRequest(
        url=request.url,
        method=request.method,
        protocol=request.protocol,
        headers=headers,
        max_segment=max_segment,
        timeout=1.8,
    )


def probe_small_segments(world: World) -> Iterator[Fact]:
    """The requests that hung, as they were, with segments that fit what was delivered."""
    request = plan(world)
    if request is None or not harmless(request):
        return
    fits = min((h.delivered for h in verdicts(world.facts).holes if h.delivered), default=1252)
    segment = max(536, min(1200, fits - 52))
    hung = [r for r in own_requests(world.facts)[0] if not r.max_segment and r.result in ("timeout", "reset", "closed")]
    again: list[ProbeRequest] = []
    if any((r.request_bytes or 0) <= LARGE and r.url == request.url for r in hung):
        again.append(
            SendRequest(
                url=request.url,
                method=request.method,
                protocol=request.protocol,
                headers=request.headers,
                max_segment=segment,
                timeout=1.8,
            )
        )
    if any((r.request_bytes or 0) > LARGE for r in hung):
        again.append(padded(request, segment))
    yield from side_by_side(world.prober, world, again, 5.0)
