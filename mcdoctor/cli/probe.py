"""`mcdoctor probe`: the prober by itself, from this machine or inside a pod. Facts only, no verdict.

Nothing but typer is imported before a command runs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mcdoctor.models.facts import Fact
    from mcdoctor.models.requests import ProbeRequest

app = typer.Typer(
    rich_markup_mode=None, help="Send one kind of probe from here and print what was seen.", no_args_is_help=True
)


class Output(enum.StrEnum):
    """How facts are printed: text for people, or one JSON object a line."""

    text = "text"
    json = "json"


class Transport(enum.StrEnum):
    """How a DNS query travels."""

    udp = "udp"
    tcp = "tcp"
    tls = "tls"


class Protocol(enum.StrEnum):
    """What a request is sent over."""

    http1 = "http/1.1"
    http10 = "http/1.0"
    h2 = "h2"
    grpc = "grpc"
    websocket = "websocket"


class TraceProtocol(enum.StrEnum):
    """What a trace is made of."""

    udp = "udp"
    tcp = "tcp"
    icmp = "icmp"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="text, or json: one fact a line.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0.05, max=60.0, help="Seconds for one attempt.")]
TriesOption = Annotated[int, typer.Option("--tries", min=1, max=50, help="Attempts, side by side.")]


@app.command()
def dns(
    name: Annotated[str, typer.Argument(help="The name; a trailing dot makes no difference to a direct query.")],
    type: Annotated[str, typer.Option("--type", "-t", help="Record type.")] = "A",
    server: Annotated[str | None, typer.Option("--server", help="One server instead of all in resolv.conf.")] = None,
    transport: Annotated[Transport, typer.Option("--transport")] = Transport.udp,
    tries: TriesOption = 1,
    timeout: TimeoutOption = 2.0,
    output: OutputOption = Output.text,
) -> None:
    """Ask each nameserver by itself, and the C library with its search list."""
    from mcdoctor.models.requests import AskDns, ReadResolvConf

    requests: list[ProbeRequest] = []
    servers: Sequence[str | None] = [server] if server else _nameservers(output, ReadResolvConf())
    for one in servers:
        requests.append(
            AskDns(name=name, type=type, server=one, transport=transport.value, tries=tries, timeout=timeout)
        )
    _run(requests, output)


@app.command()
def tcp(
    target: Annotated[str, typer.Argument(metavar="HOST:PORT")],
    tries: TriesOption = 3,
    timeout: TimeoutOption = 3.0,
    output: OutputOption = Output.text,
) -> None:
    """Connect: open, refused, reset, silent or unreachable, and by whose ICMP message."""
    from mcdoctor.models.requests import ConnectTcp

    host, port = _target(target)
    name = None if _is_address(host) else host
    needed = _port(port, target)
    _run(
        [ConnectTcp(address=a, port=needed, name=name, tries=tries, timeout=timeout) for a in _addresses(host)], output
    )


@app.command()
def mtu(
    target: Annotated[str, typer.Argument(metavar="HOST[:PORT]")],
    tls: Annotated[
        bool | None, typer.Option("--tls/--http", help="What the port speaks; 443 and 8443 are TLS.")
    ] = None,
    host_header: Annotated[str | None, typer.Option("--host", help="Host header or server name to send.")] = None,
    timeout: TimeoutOption = 3.0,
    output: OutputOption = Output.text,
) -> None:
    """Measure the path MTU by datagrams, and with a port by a TCP stream (HTTP or TLS)."""
    from mcdoctor.models.requests import MeasurePathMtu

    host, port = _target(target)
    speaks_tls = port in (443, 8443) if tls is None else tls
    said = host_header or host
    address = _addresses(host)[0]
    _run([MeasurePathMtu(address=address, port=port, sni=said, host=said, tls=speaks_tls, timeout=timeout)], output)


@app.command()
def tls(
    target: Annotated[str, typer.Argument(metavar="HOST:PORT")],
    sni: Annotated[str | None, typer.Option("--sni", help="Server name to send instead of HOST.")] = None,
    alpn: Annotated[list[str] | None, typer.Option("--alpn", help="Protocol to offer; repeat for several.")] = None,
    max_segment: Annotated[int | None, typer.Option("--max-segment", min=88, max=65495, help="TCP_MAXSEG.")] = None,
    timeout: TimeoutOption = 3.0,
    output: OutputOption = Output.text,
) -> None:
    """Shake hands: version, certificates, alerts and who sent them; a client certificate refused afterwards too."""
    from mcdoctor.models.requests import ShakeTls

    host, port = _target(target)
    name = sni or (None if _is_address(host) else host)
    request = ShakeTls(
        address=_addresses(host)[0],
        port=_port(port, target),
        sni=name,
        alpn=tuple(alpn) if alpn else None,
        max_segment=max_segment,
        timeout=timeout,
    )
    _run([request], output)


@app.command()
def request(
    url: Annotated[str, typer.Argument(metavar="URL")],
    address: Annotated[
        str | None, typer.Option("--address", help="Dial this address; Host and SNI stay the URL's.")
    ] = None,
    method: Annotated[str, typer.Option("--method", "-X")] = "GET",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="'Name: value'; repeat for several.")
    ] = None,
    protocol: Annotated[Protocol, typer.Option("--protocol")] = Protocol.http1,
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="Requests, at most five a second.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Keep one connection for all.")] = False,
    max_segment: Annotated[int | None, typer.Option("--max-segment", min=88, max=65495, help="TCP_MAXSEG.")] = None,
    timeout: TimeoutOption = 3.0,
    output: OutputOption = Output.text,
) -> None:
    """Send a request: who answers, and what."""
    from mcdoctor.models.requests import SendRequest

    headers: dict[str, str] = {}
    for line in header or ():
        name, colon, value = line.partition(":")
        if not colon:
            raise typer.BadParameter(f"{line!r} is not 'Name: value'", param_hint="--header")
        headers[name.strip()] = value.strip()
    sent = SendRequest(
        url=url,
        address=address,
        method=method,
        protocol=protocol.value,
        headers=headers or None,
        count=count,
        keep=keep,
        max_segment=max_segment,
        timeout=timeout,
    )
    _run([sent], output, budget=count * (timeout + 0.2) + 5.0)


@app.command()
def path(
    target: Annotated[str, typer.Argument(metavar="HOST[:PORT]")],
    protocol: Annotated[TraceProtocol | None, typer.Option("--protocol", help="tcp with a port, udp without.")] = None,
    max_hops: Annotated[int, typer.Option("--max-hops", min=1, max=64)] = 16,
    timeout: TimeoutOption = 1.0,
    output: OutputOption = Output.text,
) -> None:
    """Trace the path with growing TTL, without privilege."""
    from mcdoctor.models.requests import TracePath

    host, port = _target(target)
    means = protocol or (TraceProtocol.tcp if port else TraceProtocol.udp)
    request = TracePath(
        address=_addresses(host)[0], port=port, protocol=means.value, max_hops=max_hops, timeout=timeout
    )
    _run([request], output)


@app.command()
def environment(output: OutputOption = Output.text) -> None:
    """Read what this place says of itself: resolver, interfaces, proxies that capture, listeners, settings."""
    from mcdoctor.models.requests import DetectCapture, ReadInterfaces, ReadListeners, ReadResolvConf, ReadSysctl

    names = ("net.ipv4.ip_local_port_range", "net.ipv4.tcp_mtu_probing", "net.ipv4.ip_no_pmtu_disc",
             "net.ipv4.ping_group_range", "net.ipv4.tcp_syn_retries", "net.ipv4.tcp_tw_reuse",
             "net.ipv6.conf.all.disable_ipv6")  # fmt: skip
    _run([ReadResolvConf(), ReadInterfaces(), DetectCapture(), ReadListeners(), ReadSysctl(names=names)], output)


# --- what the commands share ----------------------------------------------------------------------------------------


def _target(text: str) -> tuple[str, int | None]:
    """Host and port of `name`, `name:80`, `10.0.0.1:80`, `[fd00::1]:80`, `fd00::1`."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or (port and not (port.isdigit() and 0 < int(port) < 65536)):
        raise typer.BadParameter(f"{text!r} is not HOST or HOST:PORT")
    return host, int(port) if port else None


def _port(port: int | None, target: str) -> int:
    if port is None:
        raise typer.BadParameter(f"{target!r} has no port: HOST:PORT")
    return port


def _is_address(host: str) -> bool:
    from mcdoctor.net.wire import ip_address

    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _addresses(host: str) -> tuple[str, ...]:
    import socket
    import time

    from mcdoctor.net.wire import resolve

    try:
        return resolve(host, time.monotonic() + 10.0)
    except (socket.gaierror, TimeoutError) as error:
        words = error.strerror if isinstance(error, socket.gaierror) else str(error)
        typer.echo(f"{host}: {words}. `mcdoctor probe dns {host}` shows who says so.", err=True)
        raise typer.Exit(3) from None


def _nameservers(output: Output, question: ProbeRequest) -> list[str | None]:
    from mcdoctor.models.facts import ResolvConf
    from mcdoctor.models.vantage import Vantage
    from mcdoctor.net.operations import perform

    facts = list(perform(question, Vantage(host="localhost")))
    _show(facts, output)
    found = [server for fact in facts if isinstance(fact, ResolvConf) for server in fact.nameservers]
    return [*found, None]


def _run(requests: Iterable[ProbeRequest], output: Output, budget: float = 30.0) -> None:
    """Runs the requests one after another. Exit code 3 when nothing could be seen."""
    import socket

    from mcdoctor.models.facts import Blind
    from mcdoctor.models.vantage import Vantage
    from mcdoctor.prober.local import LocalProber

    prober = LocalProber(Vantage(host=socket.gethostname()))
    seen = False
    for one in requests:
        facts = prober.run(one, budget=budget)
        _show(facts, output)
        seen = seen or any(not isinstance(fact, Blind) for fact in facts)
    if not seen:
        raise typer.Exit(3)


def _show(facts: Iterable[Fact], output: Output) -> None:
    from mcdoctor.models.record import to_line

    for fact in facts:
        typer.echo(to_line(fact) if output is Output.json else words(fact))


_SAID = ("result", "rcode", "status", "ms")  # first, in this order, without their names
_LEFT_OUT = (
    "kind",
    "at",
    "vantage",
    "uid",
    "counters",
    "offloads",
    "resolver",
    "interval_ms",
    "edns_size",
    "source_port",
)


def words(fact: Fact) -> str:
    """One fact as a line for people: kind, subject, what was seen; lists on lines of their own."""
    from mcdoctor.models.record import to_record
    from mcdoctor.models.redact import plain

    record = to_record(fact)
    subject = fact.subject
    left = {
        k: v
        for k, v in record.items()
        if k not in _LEFT_OUT and k not in _SAID and v not in (None, [], {}) and v != subject
    }
    head = [record["kind"].replace("_", "-"), subject]
    head += [_value(record[k]) + (" ms" if k == "ms" else "") for k in _SAID if record.get(k) is not None]
    lines = []
    for key, value in left.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"    {key}: {_pairs(item)}" for item in value]
        else:
            head.append(f"{key}={_value(value)}")
    return "\n".join([plain("  ".join(filter(None, head))), *(("    " + plain(line)) for line in lines)])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return "{" + _pairs(value) + "}"
    return str(value)


def _pairs(item: dict[str, Any]) -> str:
    return " ".join(f"{k}={_value(v)}" for k, v in item.items() if v is not None and k != "at")
