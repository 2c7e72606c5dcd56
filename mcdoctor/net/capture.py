"""Whether a local proxy answers for the far side: proxy ports that listen here, and an answer from nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mcdoctor.models.facts import Fact, Interception
from mcdoctor.models.requests import DetectCapture
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import system, tcp, wire

# the first hosts of TEST-NET-1 to 3 (RFC 5737): routed nowhere, so whoever answers is near
_NOWHERE = ("192.0.2.1", "198.51.100.1", "203.0.113.1")
_NOWHERE_PORT = 80
_AT_ONCE = 0.4
_OUTBOUND = {15001: "istio", 4140: "linkerd"}
_ZTUNNEL = 15008
_ISTIO_ONLY = {15000, 15020, 15021, 15090}  # a sidecar has these; a pod that ztunnel serves has not
_SIGNS = {15001, 15006, 15021, 15090, _ZTUNNEL, 4140, 4143, 4191}


def detect(request: DetectCapture, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields Interception. An outbound proxy port means captured unless this uid goes past it; so does an answer of
    a TEST-NET address. Neither of the two is `captured: false`. Blind when the listeners cannot be read and nobody
    answers.
    """
    evidence: list[str] = []
    nowhere = next((a for a in _NOWHERE if not system.on_link(a)), _NOWHERE[-1])  # a laboratory may use one of them
    try:
        ports: set[int] | None = {s.port for s in system.listening() if s.protocol == "tcp"}
    except OSError as error:
        ports = None
        unread = f"the listening ports cannot be read ({wire.errno_name(error.errno)}) and {nowhere} does not answer"
    by = _owner(ports or set())
    evidence += [f"listens on {port}" for port in sorted((ports or set()) & _SIGNS)]
    bypass = wire.BYPASS_UIDS.get(os.geteuid())
    try:
        seen = tcp.connect(nowhere, _NOWHERE_PORT, wire.left(deadline, _AT_ONCE))
    except OSError:
        seen = tcp.Connection("timeout", 0.0)
    if seen.sock is not None:
        seen.sock.close()
        evidence.append(f"{nowhere}, an address that nobody has, answers in {seen.ms:.0f} ms")
    captured = seen.result == "open" or (by is not None and bypass is None)
    if by is not None and bypass is not None and not captured:
        evidence.append(f"this prober's uid {os.geteuid()} goes past the proxy")
    if ports is None and not captured:
        yield wire.blind(vantage, Interception, "local proxy", unread)
        return
    owner = by or ("unknown" if captured else None)
    yield Interception(at=wire.now(), vantage=vantage, captured=captured, by=owner, evidence=tuple(evidence))


def _owner(ports: set[int]) -> str | None:
    """Whose outbound port listens."""
    if 15001 in ports and _ZTUNNEL in ports and not ports & _ISTIO_ONLY:
        return "ztunnel"
    return next((owner for port, owner in _OUTBOUND.items() if port in ports), None)
