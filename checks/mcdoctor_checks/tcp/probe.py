"""Connects to every rung of the ladder, side by side; more tries and a trace where the first is odd."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from mcdoctor.check import World
from mcdoctor.models.facts import Fact, TcpConnect
from mcdoctor.models.ids import Symptom
from mcdoctor.models.requests import ConnectTcp, DetectCapture, LookUpRoute, ProbeRequest, TracePath
from mcdoctor.ports import Prober
from mcdoctor_checks.sight import name_addresses, pods_are_reachable

_ENDPOINTS = 6
_CAREFUL = (Symptom.CONNECTION_TIMEOUT, Symptom.CONNECTION_REFUSED_OR_RESET, Symptom.INTERMITTENT_LATENCY)


def low_level(world: World) -> Prober | None:
    """Where to see the network from: past the pod's proxy where that is possible."""
    return world.bypass or world.prober


def side_by_side(
    prober: Prober | None, world: World, requests: Iterable[ProbeRequest], budget: float
) -> Iterator[Fact]:
    """The facts of independent requests, in the order of the requests."""
    wanted = list(requests)
    if prober is None or not wanted or world.stopped.is_set():
        return
    limit = min(budget, world.left())
    with ThreadPoolExecutor(max_workers=min(6, len(wanted))) as pool:
        for facts in pool.map(lambda r: prober.run(r, budget=limit), wanted):
            yield from facts


def probe_capture(world: World) -> Iterator[Fact]:
    """Whether a local proxy stands in front of the source's prober."""
    yield from world.ask(DetectCapture(), budget=2.0)


def ladder(world: World) -> list[tuple[str, int, str | None]]:
    """(address, port, name) of each rung, each once, the front first."""
    flow = world.flow
    found: dict[tuple[str, int], str | None] = {}
    if flow.port:
        for address in name_addresses(world.facts):
            found[(address, flow.port)] = flow.host
    endpoints = 0
    for rung in flow.rungs:
        if rung.label == "name" or not rung.address or not rung.port:
            continue
        endpoints += rung.label == "endpoint"
        if rung.label != "endpoint" or endpoints <= _ENDPOINTS:
            found.setdefault((rung.address, rung.port), None)
    if pods_are_reachable(flow):
        for backend in [b for b in flow.backends if b.ready][: max(0, _ENDPOINTS - endpoints)]:
            found.setdefault((backend.address, backend.port), None)
    return [(a, p, n) for (a, p), n in found.items()]


def probe(world: World) -> Iterator[Fact]:
    """One try each; ten where a rung did not open (or the symptom is of connecting), a trace of the first silent."""
    prober = low_level(world)
    rungs = ladder(world)
    first = [ConnectTcp(address=a, port=p, name=n, timeout=1.5) for a, p, n in rungs]
    facts = list(side_by_side(prober, world, first, 5.0))
    yield from facts
    connects = [f for f in facts if isinstance(f, TcpConnect)]
    odd = [
        (a, p, n) for a, p, n in rungs if any(f.address == a and f.port == p and f.result != "open" for f in connects)
    ]
    if world.options.symptom in _CAREFUL:
        odd = rungs[:1] + [r for r in odd if r != rungs[0]] if rungs else []
    again: list[ProbeRequest] = [ConnectTcp(address=a, port=p, name=n, tries=10, timeout=1.5) for a, p, n in odd[:4]]
    dead = [f for f in connects if f.result in ("timeout", "unreachable")]
    if dead:
        again.append(TracePath(address=dead[0].address, port=dead[0].port, protocol="tcp"))
        again.append(LookUpRoute(address=dead[0].address))
    opened = [f for f in connects if f.result == "open"]
    if odd and opened and odd[0] == rungs[0]:
        # How far packets to the front come, beside how far those to an endpoint do.
        if not dead:
            again.append(TracePath(address=odd[0][0], port=odd[0][1], protocol="tcp"))
        again.append(TracePath(address=opened[0].address, port=opened[0].port, protocol="tcp"))
    yield from side_by_side(prober, world, again, 6.0)
    if odd and world.far is not None:
        inside = [ConnectTcp(address=b.address, port=b.port, timeout=1.5) for b in world.flow.backends[:_ENDPOINTS]]
        yield from side_by_side(world.far, world, inside, 4.0)
