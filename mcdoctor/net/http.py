"""HTTP requests: one, or a paced series on new or kept connections. HTTP/1.x here, HTTP/2 and gRPC in `h2`.

Only the outcome, headers of interest and the start of the body are kept, secrets removed. Certificates are not judged
here (that is `tls`): the question is who answers, and what.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from mcdoctor.models.facts import Fact, HttpRequest, HttpResult, HttpSample, HttpSeries
from mcdoctor.models.redact import plain, printable, redact_headers, redact_text
from mcdoctor.models.requests import SendRequest
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import tcp, wire

if TYPE_CHECKING:
    from mcdoctor.net.tls import Talk

T = TypeVar("T")

MIN_INTERVAL = 0.2  # at most five requests a second to one destination, whoever asks for a series
_REFUSAL = 0.4  # seconds
_MAX_HEAD, _MAX_BODY = 64 << 10, 1 << 20
_HEADERS = frozenset(
    ("server", "via", "location", "content-type", "content-length", "retry-after", "connection", "x-served-by",
     "x-request-id", "grpc-status", "grpc-message", "www-authenticate", "alt-svc", "x-forwarded-for", "x-cache",
     "proxy-status", "upgrade")
)  # fmt: skip
_PREFIXES = ("x-envoy-", "l5d-", "x-b3-", "x-istio-")


class HttpFailure(Exception):
    """The exchange ended before a whole answer: the result word and what was seen."""

    def __init__(self, result: HttpResult, error: str) -> None:
        super().__init__(error)
        self.result: HttpResult = result
        self.error = error


@dataclass(slots=True)
class Exchange:
    """One request as it went; filled while it goes, so that a time-out keeps what had arrived."""

    at: datetime
    result: HttpResult = "timeout"
    status: int | None = None
    grpc_status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    body_bytes: int = 0
    request_bytes: int = 0
    error: str | None = None
    connection: Literal["new", "kept"] = "new"
    connection_id: int = 0
    idle: float | None = None
    ms: float = 0.0
    reusable: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL taken apart, with the address to dial."""

    url: str
    scheme: str
    host: str
    port: int
    path: str
    address: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


def probe(request: SendRequest, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields HttpRequest, or HttpSeries when `count` is above 1; Blind for what cannot be sent."""
    kind: type[Fact] = HttpSeries if request.count > 1 else HttpRequest
    if request.protocol in ("h3", "grpc-web"):
        yield wire.blind(vantage, kind, shown_url(request.url), f"this prober does not speak {request.protocol}")
        return
    try:
        parts = split_url(request.url)
        check_words(request)
    except ValueError as error:
        yield wire.blind(vantage, kind, shown_url(request.url), f"the request cannot be sent: {error}")
        return
    start = time.monotonic()
    try:
        addresses = (wire.ip_address(request.address),) if request.address else wire.resolve(
            parts.host, time.monotonic() + wire.left(deadline, request.timeout)
        )  # fmt: skip
    except ValueError as error:
        yield wire.blind(vantage, kind, shown_url(request.url), f"the request cannot be sent: {error}")
        return
    except (socket.gaierror, TimeoutError) as error:
        unresolved = Exchange(wire.now(), "dns-error", error=_gai(error), ms=wire.ms_since(start))
        yield _fact(request, vantage, parts, [unresolved], None)
        return
    destination = replace(parts, address=addresses[0])
    line = _Line(destination, request, deadline)
    try:
        exchanges = []
        for index in range(request.count):
            if index and time.monotonic() >= deadline:
                break
            if request.count > 1 and not _PACE.wait(
                (destination.address, destination.port), request.interval, deadline
            ):
                break
            exchanges.append(line.exchange(keep=request.keep and index < request.count - 1))
    except OSError as error:
        about = shown_url(request.url)
        yield wire.blind(vantage, kind, about, f"no socket could be opened here: {wire.errno_name(error.errno)}")
        return
    finally:
        line.close()
    yield _fact(request, vantage, destination, exchanges, wire.endpoint(destination.address, destination.port))


def _fact(
    request: SendRequest, vantage: Vantage, destination: Destination, exchanges: list[Exchange], dialled: str | None
) -> Fact:
    uid, bypass = wire.proxy_view(vantage)
    url = shown_url(request.url)
    if request.count > 1:
        return HttpSeries(
            at=wire.now(),
            vantage=vantage,
            url=url,
            method=request.method,
            protocol=request.protocol,
            address=dialled,
            uid=uid,
            bypass_proxy=bypass,
            interval_ms=max(request.interval, MIN_INTERVAL) * 1000,
            samples=tuple(
                HttpSample(
                    at=e.at,
                    result=e.result,
                    status=e.status,
                    ms=e.ms,
                    connection=e.connection,
                    connection_id=e.connection_id,
                    served_by=served_by(e.headers),
                    error=e.error,
                )
                for e in exchanges
            ),
        )
    (e,) = exchanges
    return HttpRequest(
        at=wire.now(),
        vantage=vantage,
        url=url,
        method=request.method,
        protocol=request.protocol,
        address=dialled,
        uid=uid,
        bypass_proxy=bypass,
        result=e.result,
        status=e.status,
        grpc_status=e.grpc_status,
        request_headers=redact_headers(request.headers) if request.headers else None,
        headers=interesting(e.headers) or None,
        body_start=printable(e.body, 400) if e.body else None,
        request_bytes=e.request_bytes or None,
        body_bytes=e.body_bytes if e.status is not None else None,
        error=e.error,
        connection=e.connection,
        served_by=served_by(e.headers),
        max_segment=request.max_segment,
        ms=e.ms,
    )


def split_url(url: str) -> Destination:
    """Raises ValueError for anything but an http or https URL with a host."""
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("a URL holds no spaces and no control characters")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http or https URL with a host")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(url, parts.scheme, parts.hostname, port, path, "")


def shown_url(url: str) -> str:
    return plain(redact_text(url), 500)


def check_words(request: SendRequest) -> None:
    """No header or method may carry a line break into the request; raises ValueError."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", request.method):
        raise ValueError("not a method")
    for name, value in (request.headers or {}).items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\x00]", value):
            raise ValueError(f"{name!r} is not a header")


def interesting(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {n: v for n, v in headers.items() if n in _HEADERS or n.startswith(_PREFIXES)}
    return {name: plain(value, 300) for name, value in redact_headers(kept).items()}


def served_by(headers: Mapping[str, str]) -> str | None:
    """`cluster/pod` as the backend itself reported it in x-served-by."""
    value = headers.get("x-served-by")
    return plain(redact_text(value), 200) if value else None


def _gai(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    names = {getattr(socket, n): n for n in dir(socket) if n.startswith("EAI_")}
    return names.get(error.errno, str(error.errno))


class _Pace:
    """Keeps series to one destination `interval` apart, several series at once included."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[tuple[str, int], float] = {}

    def wait(self, key: tuple[str, int], interval: float, deadline: float) -> bool:
        """Waits for the next free moment; False when that is after the deadline."""
        with self._lock:
            moment = max(time.monotonic(), self._next.get(key, 0.0))
            if moment >= deadline:
                return False
            self._next[key] = moment + max(interval, MIN_INTERVAL)
        time.sleep(max(0.0, moment - time.monotonic()))
        return True


_PACE = _Pace()


class _Line:
    """The connections of one request or series to one destination."""

    def __init__(self, destination: Destination, request: SendRequest, deadline: float) -> None:
        self._to, self._request, self._deadline = destination, request, deadline
        self._stream: Stream | None = None
        self._opened = 0
        self._idle_since = 0.0

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def exchange(self, keep: bool) -> Exchange:
        """One request. A kept connection that turns out to be closed is reported as it is, not quietly renewed."""
        start = time.monotonic()
        until = start + wire.left(self._deadline, self._request.timeout)
        done = Exchange(wire.now())
        try:
            if self._stream is None:
                self._opened += 1
                self._stream = open_stream(self._to, self._request, until)
            else:
                done.connection = "kept"
                done.idle = round(start - self._idle_since, 3)
            done.connection_id = self._opened
            self._stream.until = until
            if self._request.protocol in ("h2", "grpc"):
                from mcdoctor.net import h2

                h2.exchange(self._stream, self._to, self._request, done)
            else:
                exchange_h1(self._stream, self._to, self._request, done, keep)
            done.result = "response"
        except HttpFailure as failure:
            done.result, done.error = failure.result, failure.error
            done.connection_id = self._opened
            done.reusable = False
        done.ms = wire.ms_since(start)
        self._idle_since = time.monotonic()
        if not (keep and done.reusable):
            self.close()
        return done


class Stream:
    """A connected byte stream, plain or TLS, whose reads and writes end at `until` and fail as HttpFailure."""

    def __init__(self, sock: socket.socket, until: float, heard: Talk | None = None) -> None:
        """`heard`: what the TLS layer hears, alerts among it."""
        self._sock = sock
        self._heard = heard
        self.until = until
        self.buffer = b""
        self.tag: object = None  # what a protocol keeps between exchanges on the connection

    def send(self, data: bytes) -> None:
        self._do(lambda: self._sock.sendall(data))

    def more(self) -> bool:
        """Reads what there is into the buffer; False at the end of the stream."""
        data = self._do(lambda: self._sock.recv(65536))
        self.buffer += data
        return bool(data)

    def _do(self, action: Callable[[], T]) -> T:
        remaining = self.until - time.monotonic()
        if remaining <= 0:
            raise HttpFailure("timeout", "timeout")
        self._sock.settimeout(remaining)
        try:
            return action()
        except TimeoutError:
            raise HttpFailure("timeout", "timeout") from None
        except ssl.SSLEOFError:
            raise self._alert() or HttpFailure("closed", "closed without a TLS close") from None
        except ssl.SSLError as error:
            raise self._alert() or HttpFailure("tls-error", error.reason or "TLS failed") from None
        except ConnectionError as error:
            raise self._alert() or HttpFailure("reset", wire.errno_name(error.errno) or "reset") from None
        except OSError as error:
            icmp = wire.first_icmp(self._sock)
            name = wire.icmp_name(icmp, wire.is_v6(icmp.sender or "")) if icmp else wire.errno_name(error.errno)
            raise HttpFailure("timeout" if icmp is None else "reset", name or "failed") from None

    def _alert(self) -> HttpFailure | None:
        """The server's TLS alert, which explains an end that looks like a mere close to a writer."""
        if self._heard is None:
            return None
        if self._heard.alert() is None:
            with suppress(OSError, ValueError):
                self._sock.settimeout(0.05)
                self._sock.recv(1)
        alert = self._heard.alert()
        return HttpFailure("tls-error", f"alert {alert.name} by the {alert.by}") if alert else None

    def hear_refusal(self) -> None:
        """Waits a little for a TLS 1.3 server's word on the client certificate that it asked for and did not get.

        Raises HttpFailure tls-error; a request sent at once could lose the alert to the reset that follows it.
        """
        if self._heard is None or not self._heard.requested:
            return
        whole, self.until = self.until, min(self.until, time.monotonic() + _REFUSAL)
        try:
            while not self._heard.tickets and self.more():
                pass
        except HttpFailure as failure:
            if failure.result != "timeout":
                raise
        finally:
            self.until = whole

    def close(self) -> None:
        with suppress(OSError):
            self._sock.close()


def open_stream(to: Destination, request: SendRequest, until: float) -> Stream:
    """Connects, and shakes hands for https; raises HttpFailure, or OSError when no socket can be had."""
    seen = tcp.connect(to.address, to.port, max(0.0, until - time.monotonic()), request.max_segment)
    if seen.sock is None:
        raise HttpFailure("connect-error", seen.words())
    sock = seen.sock
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if to.scheme == "http":
        return Stream(sock, until)
    sock.settimeout(max(0.001, until - time.monotonic()))
    from mcdoctor.net.tls import Talk, listen_in

    heard = Talk()
    context = lenient_context()
    listen_in(context, heard)
    context.set_alpn_protocols(["h2"] if request.protocol in ("h2", "grpc") else ["http/1.1"])
    try:
        wrapped = context.wrap_socket(sock, server_hostname=server_name(to.host))
    except TimeoutError:
        sock.close()
        raise HttpFailure("timeout", "timeout in the TLS handshake") from None
    except ssl.SSLError as error:
        sock.close()
        alert = heard.alert()
        words = f"alert {alert.name} by the {alert.by}" if alert else error.reason
        raise HttpFailure("tls-error", words or "the TLS handshake failed") from None
    except (OSError, ValueError) as error:
        sock.close()
        number = error.errno if isinstance(error, OSError) else None
        word = "reset" if isinstance(error, ConnectionError) else "failed"
        raise HttpFailure("tls-error", f"{wire.errno_name(number) or word} in the TLS handshake") from None
    if request.protocol in ("h2", "grpc") and wrapped.selected_alpn_protocol() not in ("h2", None):
        wrapped.close()
        raise HttpFailure("protocol-error", f"the server chose {wrapped.selected_alpn_protocol()} by ALPN, not h2")
    stream = Stream(wrapped, until, heard)
    try:
        stream.hear_refusal()
    except HttpFailure:
        stream.close()
        raise
    return stream


def lenient_context() -> ssl.SSLContext:
    """A client context that accepts any certificate and old parameters: to see what is there, not to trust it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with suppress(ssl.SSLError):
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def server_name(host: str) -> str | None:
    """The SNI for a host: none for addresses, and without the trailing dot."""
    try:
        wire.ip_address(host)
    except ValueError:
        return host.rstrip(".") or None
    return None


# --- HTTP/1.x ------------------------------------------------------------------------------------------------------


def h1_head(to: Destination, request: SendRequest, keep: bool) -> bytes:
    """The request with its head and body as bytes; the caller's headers replace ours."""
    given = {name.lower(): (name, value) for name, value in (request.headers or {}).items()}
    body = (request.body or "").encode()
    ours = {
        "host": ("Host", to.authority),
        "user-agent": ("User-Agent", "mcdoctor"),
        "accept": ("Accept", "*/*"),
        "connection": ("Connection", "keep-alive" if keep else "close"),
    }
    if body or request.method in ("POST", "PUT", "PATCH"):
        ours["content-length"] = ("Content-Length", str(len(body)))
    if request.protocol == "websocket":
        ours["connection"] = ("Connection", "Upgrade")
        ours["upgrade"] = ("Upgrade", "websocket")
        ours["sec-websocket-version"] = ("Sec-WebSocket-Version", "13")
        ours["sec-websocket-key"] = ("Sec-WebSocket-Key", "bWNkb2N0b3ItcHJvYmUhIQ==")
    version = "HTTP/1.0" if request.protocol == "http/1.0" else "HTTP/1.1"
    lines = [f"{request.method} {to.path} {version}"]
    lines += [f"{name}: {value}" for name, value in {**ours, **given}.values()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8") + body


def exchange_h1(stream: Stream, to: Destination, request: SendRequest, done: Exchange, keep: bool) -> None:
    """Sends one request and reads one answer into `done`; raises HttpFailure."""
    message = h1_head(to, request, keep)
    done.request_bytes = len(message)
    stream.buffer = b""
    try:
        stream.send(message)
    except HttpFailure as failure:
        if failure.result != "reset":
            raise
        # an early answer, such as 413 with a close, may stand before the reset
    while True:
        status, headers = _read_head(stream)
        if status == 101 or status >= 200:
            break
    done.status, done.headers = status, headers
    with suppress(ValueError):
        done.grpc_status = int(headers["grpc-status"]) if "grpc-status" in headers else None
    whole = _read_body(stream, request, status, headers, done)
    wants_close = "close" in headers.get("connection", "").lower() or request.protocol == "http/1.0"
    done.reusable = whole and not wants_close and status != 101


def _read_head(stream: Stream) -> tuple[int, dict[str, str]]:
    while b"\r\n\r\n" not in stream.buffer and b"\n\n" not in stream.buffer:
        if len(stream.buffer) >= 5 and not stream.buffer.startswith(b"HTTP/"):
            raise HttpFailure("protocol-error", f"not HTTP: {printable(stream.buffer, 60)}")
        if len(stream.buffer) > _MAX_HEAD:
            raise HttpFailure("protocol-error", "the head of the answer does not end")
        if not stream.more():
            if not stream.buffer:
                raise HttpFailure("closed", "closed without an answer")
            if not stream.buffer.startswith(b"HTTP/"[: len(stream.buffer)]):
                raise HttpFailure("protocol-error", f"not HTTP: {printable(stream.buffer, 60)}")
            raise HttpFailure("closed", "closed within the head of the answer")
    head, stream.buffer = _cut(stream.buffer)
    return parse_head(head)


def _cut(data: bytes) -> tuple[bytes, bytes]:
    ends = [(data.find(mark), len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if mark in data]
    place, length = min(ends)
    return data[:place], data[place + length :]


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers (lower case; repeated ones joined by a comma); raises HttpFailure protocol-error."""
    lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    match = re.fullmatch(r"HTTP/\d(?:\.\d)? ([1-9]\d\d)(?: .*)?", lines[0])
    if match is None:
        raise HttpFailure("protocol-error", f"not HTTP: {printable(lines[0].encode('latin-1'), 60)}")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon and name.strip():
            key = name.strip().lower()
            headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    return int(match[1]), headers


def _read_body(stream: Stream, request: SendRequest, status: int, headers: Mapping[str, str], done: Exchange) -> bool:
    """Reads the body into `done`, at most a megabyte; True when it was read to its end and the connection can go on."""
    if request.method == "HEAD" or status in (101, 204, 304):
        return True
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _read_chunks(stream, done)
    length = headers.get("content-length", "").partition(",")[0].strip()
    wanted = int(length) if length.isdigit() else None
    while wanted is None or done.body_bytes < wanted:
        if stream.buffer:
            take = stream.buffer if wanted is None else stream.buffer[: wanted - done.body_bytes]
            _keep(done, take)
            stream.buffer = stream.buffer[len(take) :]
            if done.body_bytes >= _MAX_BODY:
                return False
            continue
        if not stream.more():
            if wanted is not None:
                raise HttpFailure("closed", f"closed after {done.body_bytes} of {wanted} bytes of the body")
            return False
    return wanted is not None


def _keep(done: Exchange, data: bytes) -> None:
    done.body_bytes += len(data)
    if len(done.body) < 512:
        done.body = (done.body + data)[:512]


def _read_chunks(stream: Stream, done: Exchange) -> bool:
    while True:
        line = _line(stream)
        size_text = line.partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", size_text):
            raise HttpFailure("protocol-error", "a chunk without its size")
        size = int(size_text, 16)
        if size == 0:
            while _line(stream):
                pass
            return True
        remaining = size
        while remaining:
            if not stream.buffer and not stream.more():
                raise HttpFailure("closed", f"closed after {done.body_bytes} bytes, within a chunk")
            take = stream.buffer[:remaining]
            stream.buffer = stream.buffer[len(take) :]
            remaining -= len(take)
            _keep(done, take)
            if done.body_bytes >= _MAX_BODY:
                return False
        _line(stream)


def _line(stream: Stream) -> bytes:
    while b"\n" not in stream.buffer:
        if len(stream.buffer) > _MAX_HEAD:
            raise HttpFailure("protocol-error", "a line of the body's framing does not end")
        if not stream.more():
            raise HttpFailure("closed", "closed within the body")
    line, _, stream.buffer = stream.buffer.partition(b"\n")
    return line.rstrip(b"\r")
