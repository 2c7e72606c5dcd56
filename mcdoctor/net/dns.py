"""DNS: one query to one server over UDP, TCP or TLS, or through the C library with its search list.

The rcode is taken from the answer's own header. A reply counts only when its id and question are ours. A reply that
cannot be parsed is Blind, since no rcode can be taken from it in good faith.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mcdoctor.models.facts import (
    DnsAnswer,
    DnsRecord,
    DnsResult,
    DnsSample,
    DnsSeries,
    Fact,
    IcmpError,
    Rcode,
    Resolver,
    Transport,
)
from mcdoctor.models.requests import AskDns, SampleDns
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import tcp, wire

if TYPE_CHECKING:
    import dns.message

EDNS_SIZE = 1232
_RCODES = get_args(Rcode)
_APART = 0.02
_RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one query; `message` when it was answered, `unseen` when the answer could not be made out."""

    result: DnsResult
    ms: float
    message: dns.message.Message | None = None
    size: int | None = None
    edns_size: int | None = None
    source_port: int | None = None
    icmp: IcmpError | None = None
    error: str | None = None
    unseen: str | None = None
    records: tuple[DnsRecord, ...] = field(default=())
    rcode: Rcode | None = None


def probe(request: AskDns, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields DnsAnswer, or Blind where the query could not be made or the reply not be read."""
    about = f"{request.name} {request.type}"
    try:
        asker = _asker(request, deadline)
    except _CannotAsk as error:
        yield wire.blind(vantage, DnsAnswer, about, str(error))
        return
    replies = wire.side_by_side(request.tries, _APART, lambda _: asker.ask(), deadline)
    order = ("answered", "refused", "unreachable", "timeout")
    best = min(replies, key=lambda r: (order.index(r.result), r.unseen is not None, r.rcode == "SERVFAIL", r.ms))
    if best.unseen is not None:
        yield wire.blind(vantage, DnsAnswer, f"{about} at {asker.server}", best.unseen)
        return
    several = len(replies) > 1
    yield _answer(request, vantage, asker, best, replies if several else None)


def series(request: SampleDns, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields DnsSeries; a sample does not wait for the one before it. Blind where nothing could be asked or read."""
    about = f"{request.name} {request.type}"
    try:
        asker = _asker(request, deadline)
    except _CannotAsk as error:
        yield wire.blind(vantage, DnsSeries, about, str(error))
        return

    def sample(_: int) -> tuple[Any, Reply]:
        at = wire.now()
        return at, asker.ask()

    taken = wire.side_by_side(request.samples, request.interval, sample, deadline)
    read = [(at, reply) for at, reply in taken if reply.unseen is None]
    for reason in dict.fromkeys(reply.unseen for _, reply in taken if reply.unseen is not None):
        yield wire.blind(vantage, DnsSeries, f"{about} at {asker.server}", reason)
    if not read:
        return
    yield DnsSeries(
        at=wire.now(),
        vantage=vantage,
        name=request.name,
        type=request.type.upper(),
        server=asker.server,
        transport=request.transport,
        resolver=asker.resolver,
        interval_ms=request.interval * 1000,
        samples=tuple(
            DnsSample(
                at=at,
                result=reply.result,
                rcode=reply.rcode,
                answers=_data(reply.records, request.type) if reply.rcode is not None else None,
                ttl=min((r.ttl for r in reply.records), default=None),
                server=asker.server,
                source_port=reply.source_port,
                ms=reply.ms,
            )
            for at, reply in read
        ),
    )


def _data(records: tuple[DnsRecord, ...], wanted: str) -> tuple[str, ...]:
    return tuple(r.data for r in records if r.type == wanted.upper())


def _answer(
    request: AskDns, vantage: Vantage, asker: _Direct | _Library, reply: Reply, all_replies: list[Reply] | None
) -> DnsAnswer:
    message = reply.message
    flags = message.flags if message is not None else 0
    authority = _records(message.authority) if message is not None else ()
    answered = reply.result == "answered"
    return DnsAnswer(
        at=wire.now(),
        vantage=vantage,
        name=request.name,
        type=request.type.upper(),
        server=asker.server,
        transport=request.transport,
        resolver=asker.resolver,
        result=reply.result,
        rcode=reply.rcode,
        answers=reply.records if answered else None,
        chain=tuple(r.data for r in reply.records if r.type == "CNAME") or None,
        ttl=min((r.ttl for r in reply.records), default=None) if message is not None else None,
        authority=authority or None,
        aa=bool(flags & 0x0400) if message is not None else None,
        tc=bool(flags & 0x0200) if message is not None else None,
        ra=bool(flags & 0x0080) if message is not None else None,
        edns_size=reply.edns_size,
        size=reply.size,
        source_port=reply.source_port,
        tries=len(all_replies) if all_replies else None,
        successes=sum(r.result == "answered" for r in all_replies) if all_replies else None,
        ms=reply.ms,
        icmp=reply.icmp,
        error=reply.error,
    )


class _CannotAsk(Exception):
    """The query cannot be put: not a name, no such type, no server."""


def _asker(request: AskDns | SampleDns, deadline: float) -> _Direct | _Library:
    if request.server is None:
        return _Library(request.name, request.type.upper(), request.timeout, deadline)
    if request.transport not in ("udp", "tcp", "tls"):
        raise _CannotAsk(f"queries over {request.transport} are not spoken by this prober")
    return _Direct(request.name, request.type, request.server, request.transport, request.timeout, deadline)


# --- straight to a server --------------------------------------------------------------------------------------


class _Direct:
    """One question to one server, each time from a new socket with a new id."""

    resolver: Resolver = "direct"

    def __init__(
        self, name: str, kind: str, server: str, transport: Transport, timeout: float, deadline: float
    ) -> None:
        import dns.exception
        import dns.name
        import dns.rdatatype

        try:
            self._name = dns.name.from_text(name)  # absolute with or without its trailing dot: nothing is appended
            self._type = dns.rdatatype.from_text(kind)
        except (dns.exception.DNSException, ValueError, UnicodeError) as error:
            raise _CannotAsk(f"{name!r} {kind} is not a question: {error}") from None
        try:
            self._address, self._port = wire.split_endpoint(server, 853 if transport == "tls" else 53)
        except ValueError as error:
            raise _CannotAsk(f"{server!r} is not a server: {error}") from None
        self.server = wire.endpoint(self._address, self._port)
        self._transport, self._timeout, self._deadline = transport, timeout, deadline

    def ask(self) -> Reply:
        reply = self._once(EDNS_SIZE)
        # a server that does not know EDNS says so with these; what a client without EDNS gets is what counts
        if (
            reply.rcode == "FORMERR"
            or (reply.rcode == "NOTIMP" and reply.result == "answered")
            or reply.unseen == _BADVERS
        ):
            again = self._once(None)
            if again.result == "answered":
                return again
        return reply

    def _once(self, edns: int | None) -> Reply:
        import dns.flags
        import dns.message

        query = dns.message.make_query(
            self._name,
            self._type,
            use_edns=False if edns is None else 0,
            payload=edns or 0,
            flags=dns.flags.RD,
            id=random.getrandbits(16),
        )
        wire_form = query.to_wire()
        timeout = wire.left(self._deadline, self._timeout)
        try:
            if self._transport == "udp":
                return self._over_udp(query, wire_form, timeout, edns)
            return self._over_stream(query, wire_form, timeout, edns)
        except OSError as error:
            return Reply("timeout", 0.0, unseen=f"no socket could be opened here: {wire.errno_name(error.errno)}")

    def _over_udp(self, query: dns.message.Message, wire_form: bytes, timeout: float, edns: int | None) -> Reply:
        start = time.monotonic()
        with socket.socket(wire.family(self._address), socket.SOCK_DGRAM) as sock:
            wire.want_errors(sock)
            number, icmp = 0, None
            try:
                sock.connect((self._address, self._port))
                sock.send(wire_form)
            except OSError as error:
                number = error.errno or errno.EIO
            source = int(sock.getsockname()[1]) or None
            while not number:
                if not wire.wait_readable(sock, timeout - (time.monotonic() - start)):
                    return Reply("timeout", wire.ms_since(start), edns_size=edns, source_port=source)
                try:
                    data = sock.recv(65535, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    icmp = wire.first_icmp(sock)  # a soft error, such as host-unreachable, is only in the queue
                    number = errno.EHOSTUNREACH if icmp else 0
                    continue
                except OSError as error:
                    number = error.errno or errno.EIO
                    continue
                reply = _read(query, data, start, edns, source)
                if reply is not None:
                    return reply
            icmp = icmp or wire.first_icmp(sock)
        return Reply(
            _udp_failure(number, icmp),
            wire.ms_since(start),
            edns_size=edns,
            source_port=source,
            icmp=icmp,
            error=wire.errno_name(number),
        )

    def _over_stream(self, query: dns.message.Message, wire_form: bytes, timeout: float, edns: int | None) -> Reply:
        start = time.monotonic()
        seen = tcp.connect(self._address, self._port, timeout)
        port = int(seen.source.rpartition(":")[2]) if seen.source else None
        if seen.sock is None:
            result: DnsResult = "refused" if seen.result in ("refused", "reset") else "unreachable"
            result = "timeout" if seen.result == "timeout" else result
            return Reply(result, seen.ms, source_port=port, icmp=seen.icmp, error=seen.error)
        sock = seen.sock
        try:
            if self._transport == "tls":
                import ssl

                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                sock.settimeout(max(0.001, timeout - (time.monotonic() - start)))
                sock = context.wrap_socket(sock)
            sock.settimeout(max(0.001, timeout - (time.monotonic() - start)))
            sock.sendall(len(wire_form).to_bytes(2, "big") + wire_form)
            while True:
                head = _exactly(sock, 2, start + timeout)
                data = _exactly(sock, int.from_bytes(head, "big"), start + timeout)
                reply = _read(query, data, start, edns, port)
                if reply is not None:
                    return reply
        except TimeoutError:
            return Reply("timeout", wire.ms_since(start), source_port=port)
        except EOFError:
            return Reply("refused", wire.ms_since(start), source_port=port, error="closed")
        except ConnectionError as error:
            return Reply("refused", wire.ms_since(start), source_port=port, error=wire.errno_name(error.errno))
        except OSError as error:  # ssl.SSLError among them
            reason = getattr(error, "reason", None) or wire.errno_name(error.errno) or type(error).__name__
            return Reply("refused", wire.ms_since(start), source_port=port, error=str(reason))
        finally:
            sock.close()


def _exactly(sock: socket.socket, count: int, until: float) -> bytes:
    """Reads `count` bytes; raises EOFError when the peer ends before, TimeoutError when the time is over."""
    data = b""
    while len(data) < count:
        remaining = until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        sock.settimeout(remaining)
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _udp_failure(number: int, icmp: IcmpError | None) -> DnsResult:
    """Port-unreachable is how UDP says refused; any other ICMP error, or none with an errno, is unreachable."""
    if icmp is not None:
        return "refused" if (icmp.type, icmp.code) in ((3, 3), (1, 4)) else "unreachable"
    return "refused" if number == errno.ECONNREFUSED else "unreachable"


_BADVERS = "the server answered BADVERS"


def _read(query: dns.message.Message, data: bytes, start: float, edns: int | None, source: int | None) -> Reply | None:
    """The reply in these bytes, or None when they are no reply to this query: another id, another question."""
    ms = wire.ms_since(start)
    if len(data) < 12 or int.from_bytes(data[:2], "big") != query.id or not data[2] & 0x80:
        return None
    message = parse(data)
    if message is None:
        reason = f"the reply of {len(data)} bytes is not a DNS message"
        return Reply("answered", ms, size=len(data), edns_size=edns, source_port=source, unseen=reason)
    if message.question and message.question != query.question:
        return None  # FORMERR and some SERVFAILs come without the question
    rcode = _rcode_name(message)
    if rcode not in _RCODES:
        reason = _BADVERS if rcode in ("BADVERS", "BADSIG") else f"the server answered {rcode}"
        return Reply("answered", ms, size=len(data), edns_size=edns, source_port=source, unseen=reason)
    return Reply(
        "answered",
        ms,
        message,
        len(data),
        edns,
        source,
        records=_records(message.answer),
        rcode=rcode,  # type: ignore[arg-type]  # one of _RCODES by the test above
    )


def _rcode_name(message: dns.message.Message) -> str:
    import dns.rcode

    return dns.rcode.to_text(message.rcode())


def parse(data: bytes) -> dns.message.Message | None:
    """A DNS message from hostile bytes, None when they are none."""
    import dns.exception
    import dns.message

    try:
        return dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError, KeyError, OverflowError, NotImplementedError):
        return None


def _records(sections: Any) -> tuple[DnsRecord, ...]:
    import dns.rdatatype

    return tuple(
        DnsRecord(
            name=rrset.name.to_text(),
            type=dns.rdatatype.to_text(rrset.rdtype),
            ttl=rrset.ttl,
            data=rdata.to_text(),
        )
        for rrset in sections
        for rdata in rrset
    )


# --- through the C library ---------------------------------------------------------------------------------------


class _Library:
    """What a program gets from getaddrinfo: /etc/hosts, the search list, every server in turn."""

    def __init__(self, name: str, kind: str, timeout: float, deadline: float) -> None:
        if kind not in ("A", "AAAA"):
            raise _CannotAsk(f"the C library looks up A and AAAA, not {kind}")
        self.resolver: Resolver = "musl" if libc() == "musl" else "glibc"
        self.server = first_nameserver()
        self._name, self._kind, self._timeout, self._deadline = name, kind, timeout, deadline

    def ask(self) -> Reply:
        import threading

        start = time.monotonic()
        outcome: list[Reply] = []

        def look_up() -> None:
            outcome.append(self._look_up(start))

        thread = threading.Thread(target=look_up, daemon=True)  # getaddrinfo cannot be interrupted, only abandoned
        thread.start()
        thread.join(wire.left(self._deadline, self._timeout))
        return outcome[0] if outcome else Reply("timeout", wire.ms_since(start))

    def _look_up(self, start: float) -> Reply:
        wanted = socket.AF_INET if self._kind == "A" else socket.AF_INET6
        try:
            infos = socket.getaddrinfo(self._name, None, wanted, socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno == socket.EAI_NONAME and self._has_other_addresses(wanted):
                # The library says "no such name" also of a name without addresses of this one family.
                return Reply("answered", wire.ms_since(start), rcode="NOERROR", error="EAI_NONAME")
            return _library_failure(error.errno, wire.ms_since(start))
        except (UnicodeError, OSError) as error:
            return Reply("answered", wire.ms_since(start), unseen=f"{self._name!r} could not be looked up: {error}")
        addresses = dict.fromkeys(str(info[4][0]) for info in infos)
        records = tuple(DnsRecord(name=self._name, type=self._kind, ttl=0, data=a) for a in addresses)
        return Reply("answered", wire.ms_since(start), records=records, rcode="NOERROR")

    def _has_other_addresses(self, family: int) -> bool:
        other = socket.AF_INET6 if family == socket.AF_INET else socket.AF_INET
        with suppress(UnicodeError, OSError):
            return bool(socket.getaddrinfo(self._name, None, other, socket.SOCK_STREAM))
        return False


def _library_failure(number: int | None, ms: float) -> Reply:
    """EAI codes as DNS words. EAI_AGAIN folds SERVFAIL, REFUSED and unreachable servers; `error` keeps it visible."""
    names = {getattr(socket, n): n for n in dir(socket) if n.startswith("EAI_")}
    name = names.get(number, str(number))
    if name == "EAI_NONAME":
        return Reply("answered", ms, rcode="NXDOMAIN", error=name)
    if name in ("EAI_NODATA", "EAI_ADDRFAMILY"):
        return Reply("answered", ms, rcode="NOERROR", error=name)
    if name in ("EAI_AGAIN", "EAI_FAIL"):
        return Reply("answered", ms, rcode="SERVFAIL", error=name)
    return Reply("answered", ms, unseen=f"the C library failed with {name}")


def libc() -> Literal["glibc", "musl", "none"]:
    """The C library of this prober's own Python."""
    with suppress(ValueError, OSError, AttributeError):
        if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return "glibc"
    return "musl" if any(Path("/lib").glob("ld-musl-*")) else "none"


def first_nameserver() -> str:
    """address:port of the first nameserver line; the library's own default where there is none."""
    with suppress(OSError, ValueError):
        for line in _RESOLV_CONF.read_text("utf-8", "replace").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                return wire.endpoint(*wire.split_endpoint(words[1], 53))
    return "127.0.0.1:53"
