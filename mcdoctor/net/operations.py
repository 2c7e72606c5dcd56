"""The operations of the prober by name. Each module is imported when it is first asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import import_module

from mcdoctor.models.facts import (
    Banner,
    Blind,
    Clock,
    DnsAnswer,
    DnsSeries,
    Fact,
    HttpRequest,
    Interception,
    Interface,
    Listener,
    PathMtu,
    ResolvConf,
    Route,
    Sysctl,
    TcpConnect,
    TlsHandshake,
    Trace,
)
from mcdoctor.models.redact import plain, redact_text
from mcdoctor.models.requests import ProbeRequest
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import wire

Operation = Callable[[ProbeRequest, Vantage, float], Iterator[Fact]]

# operation: module, function, kind of fact that it owes
_OPERATIONS: dict[str, tuple[str, str, type[Fact]]] = {
    "read-resolv-conf": ("system", "resolv_conf", ResolvConf),
    "read-interfaces": ("system", "interfaces", Interface),
    "look-up-route": ("system", "route", Route),
    "ask-dns": ("dns", "probe", DnsAnswer),
    "sample-dns": ("dns", "series", DnsSeries),
    "connect-tcp": ("tcp", "probe", TcpConnect),
    "trace-path": ("trace", "probe", Trace),
    "measure-path-mtu": ("mtu", "probe", PathMtu),
    "shake-tls": ("tls", "probe", TlsHandshake),
    "send-request": ("http", "probe", HttpRequest),
    "read-banner": ("tcp", "banner", Banner),
    "detect-capture": ("capture", "detect", Interception),
    "read-clock": ("system", "clock", Clock),
    "read-sysctl": ("system", "sysctl", Sysctl),
    "read-listeners": ("system", "listeners", Listener),
}


def perform(request: ProbeRequest, vantage: Vantage, budget: float = 30.0) -> Iterator[Fact]:
    """The facts of a request, as they are seen. Never raises: what fails is a Blind that says why.

    `budget`: seconds for the whole; operations with several attempts end with what they have when it is over.
    """
    if request.OPERATION not in _OPERATIONS:
        yield owed(request, vantage, f"this prober does not know the operation {request.OPERATION!r}")
        return
    module, function, _ = _OPERATIONS[request.OPERATION]
    try:
        operation: Operation = getattr(import_module(f"mcdoctor.net.{module}"), function)
        yield from operation(request, vantage, time.monotonic() + budget)
    except Exception as error:
        yield owed(request, vantage, f"the probe failed: {type(error).__name__}: {plain(redact_text(str(error)), 200)}")


def owed(request: ProbeRequest, vantage: Vantage, reason: str) -> Blind:
    """The Blind that stands for a request whose facts did not come."""
    return wire.blind(vantage, kind_of(request), about(request), reason)


def kind_of(request: ProbeRequest) -> type[Fact]:
    """The kind of fact that a request asks for."""
    _, _, kind = _OPERATIONS.get(request.OPERATION, ("", "", Fact))
    return kind


def about(request: ProbeRequest) -> str:
    """What a request is about, as the subject of its fact would say: a name, address:port or URL."""
    url = getattr(request, "url", None)
    if url is not None:
        return plain(redact_text(url), 500)
    name, kind = getattr(request, "name", None), getattr(request, "type", None)
    if name and kind:
        return f"{name} {kind}"
    address, port = getattr(request, "address", None), getattr(request, "port", None)
    if address:
        return wire.endpoint(address, port) if port else address
    return kind_of(request).KIND.replace("_", " ") or request.OPERATION
