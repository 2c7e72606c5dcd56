"""Path MTU, by three means, each honest about what it can tell.

1. Datagrams with DF whatever the kernel believes: UDP to a port where nobody listens (the far kernel's port-unreachable
   shows that a size arrived) and ping sockets where the kernel grants them (the echo shows it).
2. A TCP stream on the real port (`stream`), which needs no privilege and sees what real traffic sees.
3. Raw packets made with scapy where NET_RAW is granted (`raw`): SYNs with padding to the real port, echo requests.

A burst holds at most five sizes and one small control packet: kernels answer a handful of packets with ICMP and then
one a second, so more at once would invent black holes. The control goes last: when its answer comes, the budget of
answers was not spent by the sizes before it. Sizes are those of the IP packet.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mcdoctor.models.facts import Fact, PathMtu, SizeResult
from mcdoctor.models.requests import MeasurePathMtu
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import system, wire

BURST = 5
CONTROL = 96
LADDER = (9000, 8950, 8900, 1500, 1480, 1460, 1450, 1440, 1420, 1400, 1380, 1350, 1300, 1280)
_CLOSED_PORT = 33434  # where traceroute begins: hardly anybody listens there
NEEDED = 3  # losses of one size before it counts as lost
_SIOCGIFMTU = 0x8921

Protocol = Literal["udp", "icmp", "tcp"]


@dataclass(slots=True)
class Seen:
    """What is known of one size so far."""

    size: int
    delivered: bool = False
    mtu: int | None = None
    sender: str | None = None
    too_big: bool = False
    sent: int = 0  # how often, retransmissions by TCP included

    @property
    def lost(self) -> bool:
        """True as long as nothing came back."""
        return not self.delivered and not self.too_big

    def result(self) -> SizeResult:
        if self.delivered:
            return SizeResult(size=self.size, result="delivered")
        if self.too_big:
            return SizeResult(size=self.size, result="frag-needed", mtu=self.mtu, sender=self.sender)
        return SizeResult(size=self.size, result="lost")


@dataclass(slots=True)
class Tally:
    """All sizes of one means, and the control packets between them."""

    sizes: dict[int, Seen] = field(default_factory=dict)
    control_sent: int = 0
    control_lost: int = 0
    refused: str | None = None  # why this means can tell nothing, when it cannot
    mss: tuple[int, ...] | None = None
    control_counts: bool = True  # false where a lost control may be a ration used up, which is no loss

    def of(self, size: int) -> Seen:
        return self.sizes.setdefault(size, Seen(size))

    @property
    def largest_delivered(self) -> int | None:
        return max((s.size for s in self.sizes.values() if s.delivered), default=None)

    @property
    def told(self) -> bool:
        """True when anything at all came back, so that silence about a size means something."""
        return self.control_lost < self.control_sent or any(s.delivered for s in self.sizes.values())


def probe(request: MeasurePathMtu, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields PathMtu for each means that could tell something, Blind for each that could not."""
    import queue
    import threading

    from mcdoctor.net import raw, stream

    address = wire.ip_address(request.address)
    until = time.monotonic() + wire.left(deadline, request.timeout)
    top = interface_mtu(address)
    found: queue.SimpleQueue[Fact | None] = queue.SimpleQueue()

    def means(look: Callable[[], Iterator[Fact]], name: str) -> None:
        try:
            for fact in look():
                found.put(fact)
        except Exception as error:  # one means must not take the others with it
            number = error.errno if isinstance(error, OSError) else None
            reason = f"{name} failed: {wire.errno_name(number) or type(error).__name__}"
            found.put(wire.blind(vantage, PathMtu, f"{address} by {name}", reason))
        finally:
            found.put(None)

    # UDP and TCP do not disturb each other; echo and UDP share the far kernel's ICMP, of which echoes are not rationed
    all_means: list[tuple[str, Callable[[], Iterator[Fact]]]] = [
        ("udp", lambda: _datagrams(request, vantage, address, top, until, "udp")),
        ("icmp", lambda: _datagrams(request, vantage, address, top, until, "icmp")),
        ("tcp", lambda: stream.measure(request, vantage, address, top, until)),
    ]
    if raw.possible():
        all_means.append(("raw", lambda: raw.measure(request, vantage, address, top, until)))
    for name, look in all_means:
        threading.Thread(target=means, args=(look, name), daemon=True).start()
    open_means = len(all_means)
    while open_means:
        fact = found.get()
        if fact is None:
            open_means -= 1
        else:
            yield fact


def interface_mtu(address: str) -> int:
    """MTU of the interface towards the address, whatever path MTU was learned; 1500 when the kernel does not say."""
    import fcntl

    device = system.device_towards(address)
    if device is None:
        return 1500
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFMTU, struct.pack("16si", device.encode()[:15], 0) + bytes(20))
        except OSError:
            return 1500
    return min(int(struct.unpack_from("=i", answer, 16)[0]), 65535)


def first_sizes(top: int) -> tuple[int, ...]:
    """Five sizes, the interface's own first: where tunnels usually end."""
    usual = [s for s in (8950, 1500, 1450, 1400, 1280) if s < top]
    return (top, *usual[-(BURST - 1) :])


def narrower(tally: Tally, needed: int, limit: int = BURST) -> tuple[int, ...]:
    """The sizes to try next: MTUs that routers named, those lost fewer than `needed` times (loss hits any size), then
    usual MTUs within the gap. Empty when there is nothing more to learn."""
    low = tally.largest_delivered or 0
    told = [s.mtu for s in tally.sizes.values() if s.too_big and s.mtu and s.mtu not in tally.sizes and s.mtu >= 576]
    unsure = sorted(s.size for s in tally.sizes.values() if s.lost and s.sent < needed)
    high = min((s.size for s in tally.sizes.values() if s.size > low and not s.delivered), default=0)
    between = [s for s in LADDER if low < s < high and s not in tally.sizes]
    step = max(1, len(between) // 3)
    return tuple(dict.fromkeys([*told, *unsure, *between[step // 2 :: step]]))[:limit]


def explore(
    tally: Tally,
    top: int,
    send: Callable[[Sequence[int]], None],
    until: float,
    *,
    rounds: int = 6,
    limit: int = BURST,
    pause: float = 0.0,
) -> None:
    """Bursts until every size arrived, was refused by name, or was lost NEEDED times; or the time is over."""
    send(first_sizes(top))
    if not tally.told and not any(s.too_big for s in tally.sizes.values()):
        send(())  # one more control alone: the first may have been lost, or the far kernel's answers used up
    for _ in range(rounds):
        sizes = narrower(tally, NEEDED, limit)
        if tally.refused or not tally.told or not sizes or time.monotonic() > until - 0.2 - pause:
            return
        time.sleep(pause)
        send(sizes)


def as_fact(
    request: MeasurePathMtu, vantage: Vantage, tally: Tally, top: int, protocol: Protocol, port: int | None
) -> PathMtu:
    return PathMtu(
        at=wire.now(),
        vantage=vantage,
        direction="forward",
        destination=request.address,
        protocol=protocol,
        port=port,
        # what was lost once or twice is not known: any loss on the way does that
        sizes=tuple(
            s.result() for s in sorted(tally.sizes.values(), key=lambda s: -s.size) if not s.lost or s.sent >= NEEDED
        ),
        interface_mtu=top,
        mss=tally.mss,
        control_lost=tally.control_lost if tally.control_counts else None,
        control_sent=tally.control_sent if tally.control_counts else None,
    )


# --- level 1: datagrams --------------------------------------------------------------------------------------------


def _datagrams(
    request: MeasurePathMtu, vantage: Vantage, address: str, top: int, until: float, protocol: Literal["udp", "icmp"]
) -> Iterator[Fact]:
    about = f"{address} by {protocol}"
    if protocol == "icmp":
        try:
            _ping_socket(address).close()
        except OSError:
            reason = "ping sockets are not granted here (net.ipv4.ping_group_range)"
            yield wire.blind(vantage, PathMtu, about, reason)
            return
    tally = Tally()
    send = _Ping(address) if protocol == "icmp" else _Udp(address)
    try:
        if protocol == "udp":  # the far kernel's ration of answers grows by one a second
            explore(tally, top, lambda sizes: burst(tally, sizes, send, until), until, rounds=2, limit=3, pause=0.5)
        else:
            explore(tally, top, lambda sizes: burst(tally, sizes, send, until), until)
    finally:
        send.close()
    if tally.refused:
        yield wire.blind(vantage, PathMtu, about, tally.refused)
        return
    if not tally.told:
        if any(s.too_big for s in tally.sizes.values()) and tally.largest_delivered is None:
            yield as_fact(request, vantage, _signalled_only(tally), top, protocol, None)
        what = "echo requests are not answered" if protocol == "icmp" else "datagrams to a closed port are not answered"
        yield wire.blind(vantage, PathMtu, about, f"{what}, small ones neither: nothing can be said of sizes")
        return
    if protocol == "udp" and tally.control_lost:
        # the ration may be used up: what arrived did arrive, what did not says nothing
        tally.sizes = {s.size: s for s in tally.sizes.values() if not s.lost}
        tally.control_counts = False
        if (tally.largest_delivered or 0) < top and not any(s.too_big for s in tally.sizes.values()):
            reason = "not every small datagram was answered: loss, or the far kernel's ration of ICMP answers used up"
            yield wire.blind(vantage, PathMtu, about, reason)
            return
    yield as_fact(request, vantage, tally, top, protocol, _CLOSED_PORT if protocol == "udp" else None)


def _signalled_only(tally: Tally) -> Tally:
    """Only the sizes that a router refused: the silence about the others says nothing when controls are silent too."""
    return Tally(
        sizes={s.size: s for s in tally.sizes.values() if s.too_big},
        control_sent=tally.control_sent,
        control_lost=tally.control_lost,
    )


class _Udp:
    """Sends UDP datagrams, each from a socket of its own, so that every error belongs to one packet."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._header = 48 if wire.is_v6(address) else 28
        self._sockets: dict[int, socket.socket] = {}  # by descriptor

    def send(self, size: int, number: int) -> tuple[socket.socket, int]:
        """The socket that will hear of it, and the errno of sending (0: sent)."""
        sock = socket.socket(wire.family(self.address), socket.SOCK_DGRAM)
        self._sockets[sock.fileno()] = sock
        wire.want_errors(sock)
        wire.do_not_fragment(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        try:
            sock.connect((self.address, _CLOSED_PORT + number))
            sock.send(bytes(max(0, size - self._header)))
        except OSError as error:
            return sock, error.errno or errno.EIO
        return sock, 0

    def answered(self, sock: socket.socket) -> bool:
        """True when an application answered; takes one pending errno off the socket."""
        try:
            return bool(sock.recv(65535, socket.MSG_DONTWAIT)) or True
        except OSError:
            return False

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()


def _ping_socket(address: str) -> socket.socket:
    if wire.is_v6(address):
        return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


class _Ping:
    """Sends echo requests from ping sockets; the kernel gives each socket an id of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._header = 48 if wire.is_v6(address) else 28
        self._type = 128 if wire.is_v6(address) else 8
        self._sockets: list[socket.socket] = []

    def send(self, size: int, number: int) -> tuple[socket.socket, int]:
        sock = _ping_socket(self.address)
        self._sockets.append(sock)
        wire.want_errors(sock)
        wire.do_not_fragment(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        packet = struct.pack("!BBHHH", self._type, 0, 0, 0, number & 0xFFFF) + bytes(max(0, size - self._header))
        try:
            sock.connect((self.address, 0))
            sock.send(packet)
        except OSError as error:
            return sock, error.errno or errno.EIO
        return sock, 0

    def answered(self, sock: socket.socket) -> bool:
        try:
            return bool(sock.recv(65535, socket.MSG_DONTWAIT))
        except OSError:
            return False

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def burst(tally: Tally, sizes: Sequence[int], send: _Udp | _Ping, until: float) -> None:
    """Sends the sizes and then a control, and waits for what comes back; every result goes into the tally."""
    waiting: dict[int, tuple[socket.socket, Seen | None]] = {}
    poller = select.poll()
    start = time.monotonic()
    tally.control_sent += 1
    control_back = False
    for number, size in enumerate((*sizes, CONTROL)):
        seen = tally.of(size) if number < len(sizes) else None
        sock, failed = send.send(size, number)
        if seen is not None:
            seen.sent += 1
        if failed and seen is not None:
            for entry in wire.queued_errors(sock):
                _note(seen, entry)
            if failed == errno.EMSGSIZE:
                seen.too_big = True
            continue
        if not failed:
            waiting[sock.fileno()] = (sock, seen)
            poller.register(sock, select.POLLIN)
    end = min(until, start + 1.0)
    while waiting:
        remaining = end - time.monotonic()
        if remaining <= 0:
            break
        events = poller.poll(remaining * 1000)
        for descriptor, _ in events:
            sock, seen = waiting[descriptor]
            back = _back(send, sock, seen, tally)
            if not back:
                continue
            poller.unregister(descriptor)
            del waiting[descriptor]
            if seen is None:
                control_back = True
                # the rest is due within a few round trips of the control
                end = min(end, time.monotonic() + max(0.25, 3 * (time.monotonic() - start)))
    if not control_back:
        tally.control_lost += 1


def _back(send: _Udp | _Ping, sock: socket.socket, seen: Seen | None, tally: Tally) -> bool:
    """Reads what came back to one packet; True when that settles it."""
    settled = send.answered(sock)
    if settled and seen is not None:
        seen.delivered = True
    for entry in wire.queued_errors(sock):
        icmp = entry.icmp
        if entry.errno == errno.EMSGSIZE:
            settled = True
            if seen is not None:
                _note(seen, entry)
        elif icmp is not None:
            settled = True
            if (icmp.type, icmp.code) not in ((3, 3), (1, 4)) or icmp.sender != send.address:
                name = wire.icmp_name(icmp, wire.is_v6(send.address))
                tally.refused = f"{icmp.sender} answers {name} in place of the destination"
            elif seen is not None:
                seen.delivered = True
    return settled


def _note(seen: Seen, entry: wire.QueuedError) -> None:
    if entry.errno == errno.EMSGSIZE:
        seen.too_big = True
        seen.mtu = entry.mtu or seen.mtu
        seen.sender = entry.sender or seen.sender
