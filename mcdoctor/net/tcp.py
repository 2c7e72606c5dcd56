"""TCP connects: open, refused, reset, silent or unreachable, and by whose ICMP message."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from mcdoctor.models.facts import Banner, Fact, IcmpError, TcpConnect, TcpResult
from mcdoctor.models.requests import ConnectTcp, ReadBanner
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import wire

_UNABLE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAFNOSUPPORT}
_APART = 0.02  # seconds between tries: side by side, yet not one burst that one queue drops as one
_LATE_RESET = 0.04  # a proxy that accepts and cannot go on resets within a few round trips


@dataclass(frozen=True, slots=True)
class Connection:
    """How one connect ended; `sock` only when it is open (blocking, to be closed by the caller)."""

    result: TcpResult
    ms: float
    sock: socket.socket | None = None
    icmp: IcmpError | None = None
    error: str | None = None
    source: str | None = None
    ttl: int | None = None

    def words(self) -> str:
        """The result for an `error` field: `refused`, `unreachable: EHOSTUNREACH, admin-prohibited from 10.0.0.1`."""
        more = [self.error] if self.error and self.result == "unreachable" else []
        if self.icmp:
            name = wire.icmp_name(self.icmp, bool(self.icmp.sender and wire.is_v6(self.icmp.sender)))
            more.append(f"{name} from {self.icmp.sender}" if self.icmp.sender else name)
        return f"{self.result}: {', '.join(more)}" if more else self.result


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """The part of the kernel's `struct tcp_info` that tells what became of our segments. Sizes in bytes, rtt in s."""

    state: int
    options: int
    rto: float
    snd_mss: int
    rcv_mss: int
    unacked: int
    pmtu: int
    rtt: float
    advmss: int
    total_retrans: int
    bytes_acked: int
    bytes_received: int
    data_segs_out: int

    @property
    def header(self) -> int:
        """TCP header with the options that every segment carries."""
        return 32 if self.options & 1 else 20


def parse_tcp_info(raw: bytes) -> TcpInfo:
    """From `struct tcp_info`; what an older kernel does not fill is 0. Raises ValueError when it is cut short."""
    if len(raw) < 104:
        raise ValueError("tcp_info is too short")
    state, _, _, _, _, options = struct.unpack_from("=6B", raw)
    words = struct.unpack_from("=24I", raw, 8)
    acked, received = struct.unpack_from("=QQ", raw, 120) if len(raw) >= 136 else (0, 0)
    (segments,) = struct.unpack_from("=I", raw, 156) if len(raw) >= 160 else (0,)
    return TcpInfo(
        state, options, words[0] / 1e6, words[2], words[3], words[4], words[13], words[15] / 1e6, words[19],
        words[23], acked, received, segments,
    )  # fmt: skip


def tcp_info(sock: socket.socket) -> TcpInfo:
    return parse_tcp_info(sock.getsockopt(socket.IPPROTO_TCP, wire.TCP_INFO, 256))


def connect(address: str, port: int, timeout: float, max_segment: int | None = None) -> Connection:
    """One connect. An ICMP error ends it as unreachable even where the errno says refused (REJECT's default)."""
    start = time.monotonic()
    sock = socket.socket(wire.family(address), socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        wire.want_errors(sock)
        if max_segment is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, max_segment)
        number = sock.connect_ex((address, port))
        source = _source(sock)
        if number == errno.EINPROGRESS:
            poller = select.poll()
            poller.register(sock, select.POLLOUT)
            if not poller.poll(timeout * 1000):
                ms = wire.ms_since(start)
                sock.close()
                return Connection("timeout", ms, source=source)
            number = wire.connect_error(sock)
        ms = wire.ms_since(start)
        if number == 0:
            sock.setblocking(True)
            return Connection("open", ms, sock, source=source)
        if number in _UNABLE:
            raise OSError(number, errno.errorcode[number])
        icmp = wire.first_icmp(sock)
        error = wire.errno_name(number)
        sock.close()
        if number == errno.ETIMEDOUT:
            return Connection("timeout", ms, error=error, source=source)
        if icmp is None and number == errno.ECONNREFUSED:
            return Connection("refused", ms, error=error, source=source)
        if icmp is None and number in (errno.ECONNRESET, errno.EPIPE):
            return Connection("reset", ms, error=error, source=source)
        return Connection("unreachable", ms, icmp=icmp, error=error, source=source)
    except BaseException:
        sock.close()
        raise


def _source(sock: socket.socket) -> str | None:
    with suppress(OSError):
        name = sock.getsockname()
        if name[1]:
            return wire.endpoint(name[0], name[1])
    return None


def _reset_soon(sock: socket.socket, rtt: float) -> bool:
    """True when a RST follows the SYN-ACK at once. A silent or a talking server is simply open."""
    if not wire.wait_readable(sock, min(0.2, _LATE_RESET + 2 * rtt)):
        return False
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except ConnectionResetError:
        return True
    except OSError:
        return False
    return False


def probe(request: ConnectTcp, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields TcpConnect (of several tries the best), or Blind when this machine cannot open sockets."""
    address = wire.ip_address(request.address)
    listen = _ttl_listener(address)

    def attempt(_: int) -> tuple[Connection, int]:
        seen = connect(address, request.port, wire.left(deadline, request.timeout))
        again = 0
        if seen.sock is not None:
            with seen.sock:
                again = tcp_info(seen.sock).total_retrans
                if _reset_soon(seen.sock, seen.ms / 1000):
                    return Connection("reset", seen.ms, error="ECONNRESET", source=seen.source), again
        return seen, again

    try:
        seen = wire.side_by_side(request.tries, _APART, attempt, deadline)
    except OSError as error:
        about = wire.endpoint(address, request.port)
        yield wire.blind(vantage, TcpConnect, about, f"no socket could be opened here: {wire.errno_name(error.errno)}")
        return
    finally:
        ttls = listen.stop() if listen else {}
    order = ("open", "reset", "refused", "unreachable", "timeout")
    best, _ = min(seen, key=lambda s: (order.index(s[0].result), s[0].ms))
    uid, bypass = wire.proxy_view(vantage)
    several = len(seen) > 1
    yield TcpConnect(
        at=wire.now(),
        vantage=vantage,
        address=request.address,
        port=request.port,
        name=request.name,
        result=best.result,
        icmp=best.icmp,
        from_ttl=ttls.get(best.source or ""),
        ms=best.ms,
        tries=len(seen) if several else None,
        successes=sum(c.result == "open" for c, _ in seen) if several else None,
        retransmits=sum(again for _, again in seen),
        uid=uid,
        bypass_proxy=bypass,
        source=best.source,
        error=best.error,
    )


class _TtlListener:
    """Collects the TTL of SYN-ACK and RST segments from a peer, by our address:port. Needs NET_RAW."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self._sock, self._peer = sock, peer

    def stop(self) -> dict[str, int]:
        seen: dict[str, int] = {}
        with self._sock:
            for _ in range(4096):
                try:
                    packet, address = self._sock.recvfrom(128, socket.MSG_DONTWAIT)
                except OSError:
                    break
                header = (packet[0] & 15) * 4 if packet else 0
                if address[0] != self._peer or len(packet) < header + 14:
                    continue
                port = int.from_bytes(packet[header + 2 : header + 4], "big")
                flags = packet[header + 13]
                if flags & 0x12 == 0x12 or flags & 0x04:
                    seen.setdefault(wire.endpoint(socket.inet_ntoa(packet[16:20]), port), packet[8])
        return seen


def _ttl_listener(address: str) -> _TtlListener | None:
    """IPv4 only: IPv6 raw sockets do not give the header."""
    if wire.is_v6(address):
        return None
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    except OSError:
        return None
    return _TtlListener(sock, address)


def banner(request: ReadBanner, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Connects, says nothing and listens; yields Banner."""
    from mcdoctor.models.redact import printable

    address = wire.ip_address(request.address)
    start = time.monotonic()
    seen = connect(address, request.port, wire.left(deadline, request.timeout))
    result, first = seen.result, b""
    said: str = result
    if seen.sock is not None:
        with seen.sock:
            said = "silent"
            if wire.wait_readable(seen.sock, wire.left(deadline, request.timeout)):
                try:
                    first = seen.sock.recv(256)
                    said = "text" if first else "closed"
                except OSError:
                    said = "reset"
    yield Banner(
        at=wire.now(),
        vantage=vantage,
        address=request.address,
        port=request.port,
        result=said,  # type: ignore[arg-type]  # TcpResult less `open`, and the words above
        first_bytes=printable(first) if first else None,
        ms=wire.ms_since(start),
    )
