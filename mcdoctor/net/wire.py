"""What all wire operations share: time, addresses, kernel constants, ICMP errors, attempts side by side.

Standard library only: this code travels to a debug container.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from mcdoctor.models.facts import Blind, Fact, IcmpError
from mcdoctor.models.vantage import Vantage

T = TypeVar("T")

# <linux/in.h>, <linux/in6.h>, <linux/tcp.h>: not all of them are in the socket module
IP_TTL, IP_RECVERR, IP_RECVTTL, IP_MTU_DISCOVER, IP_MTU = 2, 11, 12, 10, 14
IPV6_UNICAST_HOPS, IPV6_RECVERR, IPV6_MTU_DISCOVER, IPV6_MTU = 16, 25, 23, 24
PMTUDISC_DO, PMTUDISC_PROBE = 2, 3
MSG_ERRQUEUE = 0x2000
TCP_INFO = 11
ORIGIN_LOCAL, ORIGIN_ICMP, ORIGIN_ICMP6 = 1, 2, 3

BYPASS_UIDS = {1337: "istio", 2102: "linkerd"}


def now() -> datetime:
    return datetime.now(UTC)


def ms_since(start: float) -> float:
    """Milliseconds since a monotonic time, to a hundredth."""
    return round((time.monotonic() - start) * 1000, 2)


def left(deadline: float, timeout: float) -> float:
    """Seconds that an attempt may take: its own time-out, but not beyond the deadline; never negative."""
    return max(0.0, min(timeout, deadline - time.monotonic()))


def is_v6(address: str) -> bool:
    return ":" in address


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if is_v6(address) else socket.AF_INET


def endpoint(address: str, port: int) -> str:
    """`10.0.0.1:53`, `[fd00::1]:53`."""
    return f"[{address}]:{port}" if is_v6(address) else f"{address}:{port}"


def split_endpoint(text: str, port: int) -> tuple[str, int]:
    """Address and port of `10.0.0.1`, `10.0.0.1:53`, `fd00::1` or `[fd00::1]:53`; raises ValueError."""
    text = text.strip()
    if text.startswith("["):
        address, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not an address with a port")
        text, rest = address, rest[1:]
    elif text.count(":") == 1:
        text, _, rest = text.partition(":")
    else:
        rest = ""
    if rest:
        port = int(rest)
    if not 0 < port < 65536:
        raise ValueError(f"{port} is not a port")
    return ip_address(text), port


def ip_address(text: str) -> str:
    """The address as it stands when it is one (a zone is kept); raises ValueError."""
    bare = text.partition("%")[0]
    try:
        socket.inet_pton(family(bare), bare)
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is not an IP address") from None
    return text


def resolve(host: str, deadline: float) -> tuple[str, ...]:
    """Addresses of a host through the C library, addresses as they are; raises socket.gaierror or TimeoutError."""
    try:
        return (ip_address(host),)
    except ValueError:
        pass
    found: list[tuple[str, ...]] = []
    failed: list[OSError | UnicodeError] = []

    def look_up() -> None:
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.append(tuple(dict.fromkeys(str(info[4][0]) for info in infos)))
        except (OSError, UnicodeError) as error:
            failed.append(error)

    thread = threading.Thread(target=look_up, daemon=True)  # getaddrinfo cannot be interrupted, only abandoned
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if failed:
        if isinstance(failed[0], UnicodeError):
            raise socket.gaierror(socket.EAI_NONAME, "not a host name")
        raise failed[0]
    if not found:
        raise TimeoutError("the resolver did not answer in time")
    return found[0]


def proxy_view(vantage: Vantage) -> tuple[int, bool | None]:
    """Effective uid, and whether that uid goes past the proxy that captures the vantage (None: not captured)."""
    uid = os.geteuid()
    return uid, (uid in BYPASS_UIDS if vantage.captured else None)


def blind(vantage: Vantage, kind: type[Fact], about: str, reason: str, command: str | None = None) -> Blind:
    return Blind(
        at=now(),
        vantage=vantage,
        cluster=vantage.cluster,
        wanted=kind.KIND,
        about=about,
        reason=reason,
        command=command,
    )


def side_by_side(count: int, apart: float, attempt: Callable[[int], T], deadline: float = float("inf")) -> list[T]:
    """The results of `attempt(0) … attempt(count - 1)`, begun `apart` seconds after one another, none waiting.

    Attempts that would begin after the deadline are left out (the first never is).
    """
    if count <= 1:
        return [attempt(0)]
    results: dict[int, T] = {}
    failures: list[BaseException] = []

    def one(index: int) -> None:
        try:
            results[index] = attempt(index)
        except BaseException as error:
            failures.append(error)

    threads = []
    start = time.monotonic()
    for index in range(count):
        pause = start + index * apart - time.monotonic()
        if index and time.monotonic() + max(0.0, pause) > deadline:
            break
        if pause > 0:
            time.sleep(pause)
        thread = threading.Thread(target=one, args=(index,), daemon=True)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[index] for index in sorted(results)]


# --- errors from the network -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QueuedError:
    """One entry of a socket's error queue: the errno, where it came from and, for too-big messages, the MTU."""

    errno: int
    origin: int
    type: int
    code: int
    info: int
    sender: str | None
    data: bytes

    @property
    def icmp(self) -> IcmpError | None:
        if self.origin not in (ORIGIN_ICMP, ORIGIN_ICMP6):
            return None
        return IcmpError(type=self.type, code=self.code, sender=self.sender)

    @property
    def mtu(self) -> int | None:
        """The MTU named by a frag-needed or packet-too-big message, or by the own interface."""
        return self.info if self.errno == errno.EMSGSIZE and self.info else None


def want_errors(sock: socket.socket) -> None:
    """Ask the kernel to keep ICMP errors of the socket with their type, code and sender."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def set_ttl(sock: socket.socket, ttl: int) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TTL, ttl)


def do_not_fragment(sock: socket.socket) -> None:
    """DF on everything, whatever the kernel believes of the path (IP_PMTUDISC_PROBE)."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)


def queued_errors(sock: socket.socket) -> Iterator[QueuedError]:
    """Empties the socket's error queue without waiting."""
    while True:
        try:
            data, ancillary, _, _ = sock.recvmsg(2048, 512, MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            return
        for level, kind, raw in ancillary:
            if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
                parsed = parse_extended_error(raw, data)
                if parsed is not None:
                    yield parsed


def parse_extended_error(raw: bytes, data: bytes = b"") -> QueuedError | None:
    """`struct sock_extended_err` with the offender's socket address behind it; None when it is cut short."""
    if len(raw) < 16:
        return None
    number, origin, kind, code, _, info, _ = struct.unpack_from("=IBBBBII", raw)
    sender = None
    if len(raw) >= 24:
        (offender,) = struct.unpack_from("=H", raw, 16)
        if offender == socket.AF_INET:
            sender = socket.inet_ntop(socket.AF_INET, raw[20:24])
        elif offender == socket.AF_INET6 and len(raw) >= 40:
            sender = socket.inet_ntop(socket.AF_INET6, raw[24:40])
    return QueuedError(number, origin, kind, code, info, sender, data)


def first_icmp(sock: socket.socket) -> IcmpError | None:
    """The first ICMP error in the socket's queue."""
    return next((e.icmp for e in queued_errors(sock) if e.icmp is not None), None)


_ICMP = {
    (False, 3, 0): "net-unreachable", (False, 3, 1): "host-unreachable", (False, 3, 2): "protocol-unreachable",
    (False, 3, 3): "port-unreachable", (False, 3, 4): "frag-needed", (False, 3, 9): "net-prohibited",
    (False, 3, 10): "host-prohibited", (False, 3, 13): "admin-prohibited", (False, 11, 0): "time-exceeded",
    (True, 1, 0): "no-route", (True, 1, 1): "admin-prohibited", (True, 1, 3): "host-unreachable",
    (True, 1, 4): "port-unreachable", (True, 1, 5): "policy-failed", (True, 1, 6): "route-rejected",
    (True, 2, 0): "packet-too-big", (True, 3, 0): "time-exceeded",
}  # fmt: skip


def icmp_name(icmp: IcmpError, v6: bool) -> str:
    """`time-exceeded`, `admin-prohibited`, …; `type/code` where there is no common name."""
    return _ICMP.get((v6, icmp.type, icmp.code), f"{icmp.type}/{icmp.code}")


def connect_error(sock: socket.socket) -> int:
    """How a connect that has ended went: an errno, 0 for open.

    An ICMP error that comes on another processor closes the socket a moment before its error can be read: a socket
    without error and without peer has failed too, and its error follows (ENOTCONN where it does not).
    """
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        return number
    try:
        sock.getpeername()
    except OSError as error:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or error.errno or errno.ENOTCONN
    return 0


def errno_name(number: int | None) -> str | None:
    return errno.errorcode.get(number, str(number)) if number else None


def wait_readable(sock: socket.socket, seconds: float) -> bool:
    """True when there is something to read or an error to fetch. poll, since select stops at 1024 descriptors."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(max(0.0, seconds) * 1000))
