"""Packets of growing size to an address of the destination that opens."""

from __future__ import annotations

from collections.abc import Iterator

from mcdoctor.check import World
from mcdoctor.models.facts import Fact
from mcdoctor.models.requests import MeasurePathMtu, ProbeRequest, ReadInterfaces
from mcdoctor_checks.tcp.probe import low_level, side_by_side
from mcdoctor_checks.tcp.reach import reaches

_TLS = ("https", "tls")
_HTTP = ("http", "https", "h2c", "grpc")


def probe(world: World) -> Iterator[Fact]:
    """Interfaces, and the sizes that reach one endpoint (else the Service or gateway) that a connect found open."""
    flow = world.flow
    prober = low_level(world)
    requests: list[ProbeRequest] = [ReadInterfaces()]
    seen = [r for r in reaches(world.facts, "source", "near") if r.opens and r.label != "neighbour"]
    # An endpoint answers for every size and protocol; a Service's address only for its own port.
    seen.sort(key=lambda r: ("endpoint", "gateway", "name", "cluster-ip").index(r.label))
    if seen:
        address, port = seen[0].address, seen[0].port
    elif reaches(world.facts, "source", "near"):
        address, port = "", 0  # nothing opens: sizes are not the question
    else:
        rung = next((r for r in flow.rungs if r.address and r.label in ("endpoint", "gateway", "cluster-ip")), None)
        address, port = (rung.address or "", rung.port) if rung else ("", 0)
    if address:
        host = flow.host
        requests.append(
            MeasurePathMtu(
                address=address,
                port=port or None,
                sni=host if flow.protocol in _TLS else None,
                host=host if flow.protocol in _HTTP else None,  # a database is sent no HTTP
                tls=flow.protocol in _TLS,
            )
        )
    yield from side_by_side(prober, world, requests, 6.0)
