"""Path MTU with raw packets, where NET_RAW is granted: SYNs with padding to the real port, echo requests otherwise.

Packets are made and read with scapy layers, which are imported only here and only then. A SYN may carry data
(RFC 9293); hosts acknowledge the SYN and leave the data, so a SYN-ACK or RST shows that a packet of that size arrived,
past filters that know the port. IPv4 only: elsewhere the other levels stand alone.
"""

from __future__ import annotations

import errno
import random
import select
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from mcdoctor.models.facts import Fact, PathMtu
from mcdoctor.models.requests import MeasurePathMtu
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import mtu, wire


def possible() -> bool:
    """True when raw sockets are granted and the scapy layers came along."""
    import importlib.util

    from mcdoctor.net.system import capabilities

    return "net_raw" in capabilities() and importlib.util.find_spec("scapy") is not None


def measure(request: MeasurePathMtu, vantage: Vantage, address: str, top: int, until: float) -> Iterator[Fact]:
    """Yields PathMtu by raw TCP to the port, or by raw echo without one; Blind when controls are silent too."""
    about = f"{address} by raw packets"
    if wire.is_v6(address):
        yield wire.blind(vantage, PathMtu, about, "raw packets are sent over IPv4 only")
        return
    with _Raw(address, request.port) as sender:
        tally = mtu.Tally()
        mtu.explore(tally, top, lambda sizes: _burst(tally, sizes, sender, until), until)
    if tally.refused:
        yield wire.blind(vantage, PathMtu, about, tally.refused)
    elif not tally.told:
        yield wire.blind(vantage, PathMtu, about, "small packets are not answered either: nothing can be said of sizes")
    else:
        yield mtu.as_fact(request, vantage, tally, top, "tcp" if request.port else "icmp", request.port)


class _Raw:
    """Three raw sockets, and the layers to fill and read them."""

    def __init__(self, address: str, port: int | None) -> None:
        from scapy.layers.inet import ICMP, IP, TCP, ICMPerror, IPerror, TCPerror  # noqa: F401  (registers the layers)

        self.IP, self.TCP, self.ICMP = IP, TCP, ICMP
        self.address, self._port = address, port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            self._source = str(probe.getsockname()[0])
        self._out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        wire.do_not_fragment(self._out)
        self._out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        self.inputs = [
            socket.socket(socket.AF_INET, socket.SOCK_RAW, p) for p in (socket.IPPROTO_ICMP, socket.IPPROTO_TCP)
        ]
        self._base = random.randrange(40_000, 60_000)
        self._sent = 0

    def __enter__(self) -> _Raw:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._out, *self.inputs):
            sock.close()

    def send(self, size: int) -> tuple[int, int]:
        """The packet's number, which comes back in answers, and the errno of sending (0: sent)."""
        self._sent += 1
        number = self._base + self._sent
        packet = self.IP(src=self._source, dst=self.address, flags="DF", id=number)
        if self._port:
            packet /= self.TCP(sport=number, dport=self._port, flags="S", seq=number * 65_537 & 0xFFFFFFFF)
        else:
            packet /= self.ICMP(type=8, id=self._base, seq=number)
        raw = bytes(packet / bytes(max(0, size - len(packet))))
        try:
            self._out.sendto(raw, (self.address, 0))
        except OSError as error:
            return number, error.errno or errno.EIO
        return number, 0

    def read(self, data: bytes) -> tuple[int, str, int | None, str] | None:
        """(number, what, mtu, sender) of an answer to one of ours; None for anybody else's packet."""
        try:
            packet: Any = self.IP(data)
            if self.TCP in packet and packet.src == self.address and packet[self.TCP].sport == self._port:
                return packet[self.TCP].dport, "arrived", None, packet.src
            if self.ICMP not in packet:
                return None
            icmp = packet[self.ICMP]
            if icmp.type == 0 and icmp.id == self._base and packet.src == self.address:
                return icmp.seq, "arrived", None, packet.src
            inner = icmp.payload
            if icmp.type != 3 or getattr(inner, "dst", None) != self.address:
                return None
            what = "too-big" if icmp.code == 4 else f"{icmp.type}/{icmp.code}"
            return inner.id, what, getattr(icmp, "nexthopmtu", None), packet.src
        except Exception:  # hostile bytes: scapy raises whatever its fields raise
            return None


def _burst(tally: mtu.Tally, sizes: Sequence[int], sender: _Raw, until: float) -> None:
    start = time.monotonic()
    waiting: dict[int, mtu.Seen | None] = {}
    for index, size in enumerate((*sizes, mtu.CONTROL)):
        seen = tally.of(size) if index < len(sizes) else None
        number, failed = sender.send(size)
        if seen is not None:
            seen.sent += 1
            seen.too_big |= failed == errno.EMSGSIZE
        if not failed:
            waiting[number] = seen
    tally.control_sent += 1
    control_back = False
    poller = select.poll()
    by_descriptor = {sock.fileno(): sock for sock in sender.inputs}
    for sock in sender.inputs:
        poller.register(sock, select.POLLIN)
    end = min(until, start + 1.0)
    while waiting and time.monotonic() < end:
        for descriptor, _ in poller.poll(max(0.0, end - time.monotonic()) * 1000):
            answer = sender.read(by_descriptor[descriptor].recv(65535))
            if answer is None or answer[0] not in waiting:
                continue
            number, what, named, source = answer
            seen = waiting.pop(number)
            if what == "arrived":
                if seen is None:
                    control_back = True
                    end = min(end, time.monotonic() + max(0.25, 3 * (time.monotonic() - start)))
                else:
                    seen.delivered = True
            elif what == "too-big" and seen is not None:
                seen.too_big, seen.mtu, seen.sender = True, named or None, source
            elif what != "too-big":
                tally.refused = f"{source} answers with ICMP {what} in place of the destination"
    tally.control_lost += not control_back
