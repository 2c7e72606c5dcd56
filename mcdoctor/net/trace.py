"""Path trace without privilege: packets with growing TTL, the routers' ICMP read from each socket's error queue."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mcdoctor.models.facts import Fact, Trace, TraceHop
from mcdoctor.models.requests import TracePath
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import wire

_AT_ONCE = 4  # a destination answers a handful of packets with ICMP, then one a second
_PORT = 33434
_GIVE_UP = 4  # silent hops in a row after which the rest is taken to be silent too


@dataclass(slots=True)
class _Hop:
    ttl: int
    sock: socket.socket
    begun: float
    hop: TraceHop | None = None
    reached: bool = False


def probe(request: TracePath, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields Trace; silent hops have no address. Blind where this machine cannot send such packets."""
    address = wire.ip_address(request.address)
    hops: list[_Hop] = []
    reached = False
    ttl = 1
    try:
        while ttl <= request.max_hops and not reached and time.monotonic() < deadline:
            batch = _ask(request, address, range(ttl, min(ttl + _AT_ONCE, request.max_hops + 1)), deadline)
            hops += batch
            ttl += _AT_ONCE
            reached = any(h.reached for h in batch)
            quiet = [h.hop is None for h in hops[-_GIVE_UP:]]
            if any(h.hop is not None and not h.reached and _final(h.hop) for h in batch):
                break
            if len(quiet) == _GIVE_UP and all(quiet) and ttl > 2 * _AT_ONCE:
                break
        heard = max((h.ttl for h in hops if h.hop is not None), default=0)
        holes = [h.ttl for h in hops if h.hop is None and h.ttl < heard][:_AT_ONCE]
        if holes and time.monotonic() < deadline:
            # A router that answers others first may have no ICMP left for this one: ask once more.
            again = {one.ttl: one for one in _ask(request, address, holes, deadline) if one.hop is not None}
            hops = [again.get(h.ttl, h) for h in hops]
    except OSError as error:
        reason = f"{request.protocol} packets cannot be sent here: {wire.errno_name(error.errno)}"
        yield wire.blind(vantage, Trace, address, reason)
        return
    shown: list[TraceHop] = []
    for one in hops:
        shown.append(one.hop or TraceHop(ttl=one.ttl, address=None))
        if one.reached or (one.hop is not None and _final(one.hop)):
            break
    while len(shown) > 1 and not reached and shown[-1].address is None and shown[-2].address is None:
        shown.pop()  # a run of silence at the end says no more than one line of it
    yield Trace(
        at=wire.now(),
        vantage=vantage,
        destination=request.address,
        protocol=request.protocol,
        port=request.port or (_PORT if request.protocol == "udp" else None),
        direction="forward",
        reached=reached,
        hops=tuple(shown),
    )


def _final(hop: TraceHop) -> bool:
    """True for an ICMP error other than time-exceeded: the trace ends there."""
    return hop.icmp is not None and hop.icmp not in ("time-exceeded", "echo-reply", "syn-ack", "rst", "reply")


def _ask(request: TracePath, address: str, ttls: Iterable[int], deadline: float) -> list[_Hop]:
    """One packet per TTL, all at once."""
    batch: list[_Hop] = []
    try:
        for ttl in ttls:
            batch.append(_send(request, address, ttl))
        _collect(batch, address, min(deadline, time.monotonic() + request.timeout))
    finally:
        for one in batch:
            one.sock.close()
    return batch


def _send(request: TracePath, address: str, ttl: int) -> _Hop:
    v6 = wire.is_v6(address)
    if request.protocol == "icmp":
        protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
        sock = socket.socket(wire.family(address), socket.SOCK_DGRAM, protocol)
    else:
        kind = socket.SOCK_STREAM if request.protocol == "tcp" else socket.SOCK_DGRAM
        sock = socket.socket(wire.family(address), kind)
    one = _Hop(ttl, sock, time.monotonic())
    try:
        sock.setblocking(False)
        wire.want_errors(sock)
        wire.set_ttl(sock, ttl)
        if request.protocol == "tcp":
            failed = sock.connect_ex((address, request.port or 80))
            if failed not in (0, errno.EINPROGRESS):
                _look(one, address, failed)
                if one.hop is None:
                    raise OSError(failed, "connect")
        else:
            sock.connect((address, 0 if request.protocol == "icmp" else request.port or _PORT + ttl))
            body = (
                struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 0, ttl) + bytes(24)
                if request.protocol == "icmp"
                else bytes(24)
            )
            sock.send(body)
    except BaseException:
        sock.close()
        raise
    return one


def _collect(batch: list[_Hop], address: str, end: float) -> None:
    poller = select.poll()
    waiting: dict[int, _Hop] = {}
    for one in batch:
        if one.hop is None:
            waiting[one.sock.fileno()] = one
            poller.register(one.sock, select.POLLIN | (select.POLLOUT if one.sock.type == socket.SOCK_STREAM else 0))
    while waiting and time.monotonic() < end:
        for descriptor, events in poller.poll(max(0.0, end - time.monotonic()) * 1000):
            if descriptor not in waiting:  # let go since poll saw it
                continue
            one = waiting[descriptor]
            stream = one.sock.type == socket.SOCK_STREAM
            ended = bool(events & select.POLLOUT) and stream
            failed = wire.connect_error(one.sock) if ended else one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            opened = ended and not failed
            _look(one, address, failed, opened)
            if one.hop is not None:
                poller.unregister(descriptor)
                del waiting[descriptor]
                if one.reached:  # hops behind the destination have nothing to add
                    for other in [d for d, w in waiting.items() if w.ttl > one.ttl]:
                        poller.unregister(other)
                        del waiting[other]


def _look(one: _Hop, address: str, failed: int, opened: bool = False) -> None:
    """Notes the hop that answered, when one did."""
    ms = wire.ms_since(one.begun)
    for entry in wire.queued_errors(one.sock):
        icmp = entry.icmp
        if icmp is None:
            continue
        name = wire.icmp_name(icmp, wire.is_v6(address))
        one.hop = TraceHop(ttl=one.ttl, address=icmp.sender, ms=ms, icmp=name)
        one.reached = icmp.sender == address and name == "port-unreachable"
        return
    if opened:
        one.hop, one.reached = TraceHop(ttl=one.ttl, address=address, ms=ms, icmp="syn-ack"), True
    elif failed == errno.ECONNREFUSED and one.sock.type == socket.SOCK_STREAM:
        one.hop, one.reached = TraceHop(ttl=one.ttl, address=address, ms=ms, icmp="rst"), True
    elif one.sock.type != socket.SOCK_STREAM:
        try:
            one.sock.recv(2048, socket.MSG_DONTWAIT)
        except OSError:
            return
        word = "echo-reply" if one.sock.proto in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6) else "reply"
        one.hop, one.reached = TraceHop(ttl=one.ttl, address=address, ms=ms, icmp=word), True
