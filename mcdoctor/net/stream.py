"""Path MTU as real traffic meets it: a TCP stream on the real port, watched through TCP_INFO. No privilege needed.

Forward: connections whose segments are limited to different sizes (TCP_MAXSEG) each send a valid, long beginning of a
conversation: an HTTP request with a padded header, or a TLS ClientHello with a padding extension (RFC 7685). Whether
full segments are acknowledged, or sent again and again while a connection with small segments gets through, is in
TCP_INFO. Reverse: a short request with usual and with small segments; the peer's segments obey the MSS that we
announce.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from mcdoctor.models.facts import Fact, PathMtu
from mcdoctor.models.requests import MeasurePathMtu
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import mtu, tcp, wire

_SMALL = 576
_SIZES = (1450, 1400, 1300)
_PATIENCE = 1.5  # seconds; with the least RTO of 200 ms the kernel has sent a segment again three times by then
_ENOUGH_RETRANS = 4
_PADDING, _MAX_HELLO = 21, 16_000  # extension type; one record holds 16384 bytes


@dataclass(slots=True)
class _Run:
    """One connection and what is asked of it."""

    sock: socket.socket
    size: int  # of its full packets when it was opened
    first: tcp.TcpInfo
    forward: bool
    small: bool
    payload: bytes = b""
    received: int = 0
    ended: bool = False
    settled: bool = False
    last_byte: float = 0.0


def measure(request: MeasurePathMtu, vantage: Vantage, address: str, top: int, until: float) -> Iterator[Fact]:
    """Yields PathMtu forward and, where the answer is long enough to tell, reverse; Blind for what cannot be told."""
    about = f"{address} by tcp"
    if request.port is None:
        yield wire.blind(vantage, PathMtu, about, "no port was given to open a stream to")
        return
    if not (request.tls or request.host):
        reason = "what the port speaks is not known, so nothing long that it would understand can be sent"
        yield wire.blind(vantage, PathMtu, wire.endpoint(address, request.port) + " by tcp", reason)
        return
    overhead = (40 if wire.is_v6(address) else 20) + 20
    tally = mtu.Tally()
    sizes: list[int | None] = [None, *(s for s in _SIZES if s < top), _SMALL]
    plan: list[tuple[int | None, bool]] = [(s, True) for s in sizes] + [(None, False), (_SMALL, False)]

    def open_one(index: int) -> tcp.Connection:
        size, _ = plan[index]
        segment = None if size is None else size - overhead
        return tcp.connect(address, request.port or 0, wire.left(until, 1.5), segment)

    opened = wire.side_by_side(len(plan), 0.0, open_one)
    if opened[0].sock is None and all(c.sock is None for c in opened):
        reason = f"no connection: {opened[0].words()}"
        yield wire.blind(vantage, PathMtu, wire.endpoint(address, request.port) + " by tcp", reason)
        return
    runs = [_begin(c.sock, *plan[i], request, overhead) for i, c in enumerate(opened) if c.sock is not None]
    try:
        _watch(runs, min(until, time.monotonic() + _PATIENCE))
        _settle(tally, runs)
        reverse = _reverse(request, vantage, runs, top)
        more = mtu.narrower(tally)
        sizes_left = [s for s in more if (tally.largest_delivered or 0) < s and s not in tally.sizes]
        if sizes_left and tally.told and until - time.monotonic() > 0.9:
            plan = [(s, True) for s in sizes_left]
            again = wire.side_by_side(len(plan), 0.0, open_one)
            second = [_begin(c.sock, *plan[i], request, overhead) for i, c in enumerate(again) if c.sock is not None]
            runs += second
            _watch(second, until)
            _settle(tally, second)
    finally:
        for run in runs:
            run.sock.close()
    if not tally.told:
        reason = "small segments are not acknowledged either: nothing can be said of sizes"
        yield wire.blind(vantage, PathMtu, wire.endpoint(address, request.port) + " by tcp", reason)
    else:
        whole = runs[0].first
        tally.mss = (whole.advmss + whole.header - 20, whole.snd_mss + whole.header - 20)
        yield mtu.as_fact(request, vantage, tally, top, "tcp", request.port)
    yield reverse


def _begin(sock: socket.socket, size: int | None, forward: bool, request: MeasurePathMtu, overhead: int) -> _Run:
    sock.setblocking(False)
    info = tcp.tcp_info(sock)
    packet = info.snd_mss + info.header + overhead - 20
    wanted = 2 * info.snd_mss + 200 if forward else 0
    run = _Run(sock, packet, info, forward, size == _SMALL, opening(request, wanted))
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        sock.send(run.payload)
    return run


def _watch(runs: list[_Run], end: float) -> None:
    """Reads and looks at TCP_INFO until every run is settled or the time is over."""
    step = 0.01
    while time.monotonic() < end:
        for run in runs:
            _drain(run)
            if run.forward and not run.settled:
                info = tcp.tcp_info(run.sock)
                acked = info.bytes_acked > len(run.payload) or (info.unacked == 0 and info.data_segs_out > 0)
                given_up = info.total_retrans - run.first.total_retrans >= _ENOUGH_RETRANS
                run.settled = acked or given_up or run.ended
            elif not run.forward:
                quiet = run.received > 0 and time.monotonic() - run.last_byte > 0.3
                run.settled = run.ended or quiet
        if all(run.settled for run in runs):
            return
        time.sleep(min(step, max(0.0, end - time.monotonic())))
        step = min(step * 1.5, 0.05)


def _drain(run: _Run) -> None:
    while not run.ended:
        try:
            data = run.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            run.ended = True
            return
        run.ended = not data
        run.received += len(data)
        if data:
            run.last_byte = time.monotonic()


def _settle(tally: mtu.Tally, runs: list[_Run]) -> None:
    """What the forward runs show of their sizes."""
    for run in runs:
        if not run.forward:
            continue
        info = tcp.tcp_info(run.sock)
        again = info.total_retrans - run.first.total_retrans
        acked = (
            info.bytes_acked > len(run.payload) or (info.unacked == 0 and info.data_segs_out > 0) or run.received > 0
        )
        if run.small:
            tally.control_sent += max(1, info.data_segs_out)
            tally.control_lost += min(max(1, info.data_segs_out), again if acked else max(1, again))
        seen = tally.of(run.size)
        seen.sent += 1
        if info.pmtu < run.first.pmtu:  # a router named a smaller MTU, and the kernel believed it
            seen.too_big, seen.mtu = True, info.pmtu
            if acked:
                tally.of(info.pmtu).delivered = True
        elif acked and info.snd_mss >= run.first.snd_mss:
            seen.delivered = True
        elif acked and info.snd_mss < run.first.snd_mss:
            # net.ipv4.tcp_mtu_probing: the kernel found the black hole by itself and went on with smaller segments
            tally.of(run.size - run.first.snd_mss + info.snd_mss).delivered = True


def _reverse(request: MeasurePathMtu, vantage: Vantage, runs: list[_Run], top: int) -> Fact:
    """The way back, judged by what arrives with usual and with small segments."""
    about = f"the way back from {wire.endpoint(request.address, request.port or 0)} by tcp"
    usual = next((r for r in runs if not r.forward and not r.small), None)
    small = next((r for r in runs if not r.forward and r.small), None)
    if usual is None or small is None:
        return wire.blind(vantage, PathMtu, about, "not every connection came up")
    info = tcp.tcp_info(usual.sock)
    full = info.advmss  # the kernel has taken the room of timestamps off already
    if max(usual.received, small.received) <= full:
        what = "nothing came back" if not small.received else f"the answer of {small.received} bytes fits one packet"
        return wire.blind(vantage, PathMtu, about, f"{what}: it cannot show whether large ones arrive")
    tally = mtu.Tally(mss=(info.advmss + info.header - 20,))
    wire_size = usual.size - usual.first.snd_mss + full
    if usual.received > full:
        biggest = usual.size - usual.first.snd_mss + max(info.rcv_mss, _SMALL)
        tally.of(min(biggest, wire_size)).delivered = True
    elif not usual.ended:
        tally.of(wire_size)
    else:
        return wire.blind(vantage, PathMtu, about, "the peer ended the connection early")
    tally.of(small.size).delivered = small.received > 0
    tally.control_sent, tally.control_lost = 1, int(small.received == 0)
    fact = mtu.as_fact(request, vantage, tally, top, "tcp", request.port)
    return replace(fact, direction="reverse")


# --- something long and valid to say -------------------------------------------------------------------------------


def opening(request: MeasurePathMtu, length: int) -> bytes:
    """A valid beginning of a conversation, of at least `length` bytes where the protocol allows."""
    if request.tls:
        return client_hello(request.sni or request.host, length)
    # a server closes after the answer, so that the end of a short answer is seen as such
    head = f"GET / HTTP/1.1\r\nHost: {request.host}\r\nUser-Agent: mcdoctor\r\nAccept: */*\r\nConnection: close\r\n"
    missing = length - len(head) - 4
    if missing > 0:
        name = "X-Mcdoctor-Padding: "
        head += name + "0" * max(1, missing - len(name)) + "\r\n"
    return (head + "\r\n").encode("latin-1", "replace")


def client_hello(sni: str | None, length: int) -> bytes:
    """OpenSSL's own ClientHello with a padding extension up to `length`, at most one TLS record."""
    from mcdoctor.net.http import lenient_context, server_name

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = lenient_context().wrap_bio(incoming, outgoing, server_hostname=server_name(sni) if sni else None)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return pad_hello(outgoing.read(), length)


def pad_hello(record: bytes, length: int) -> bytes:
    """The record with extension 21 (padding) of its own size at the end, in place of one that OpenSSL put there.

    Unchanged when it is long enough, and when it is no ClientHello.
    """
    if len(record) < 5 + 4 + 38 or len(record) >= min(length, _MAX_HELLO):
        return record
    body = record[9:]
    place = 34
    place += 1 + body[place]
    place += 2 + int.from_bytes(body[place : place + 2], "big")
    place += 1 + body[place]
    rest, extensions = body[place + 2 :], b""
    while len(rest) >= 4:
        size = 4 + int.from_bytes(rest[2:4], "big")
        if int.from_bytes(rest[:2], "big") != _PADDING:
            extensions += rest[:size]
        rest = rest[size:]
    missing = max(0, min(length, _MAX_HELLO) - (9 + place + 2 + len(extensions) + 4))
    extensions += _PADDING.to_bytes(2, "big") + missing.to_bytes(2, "big") + bytes(missing)
    body = body[:place] + len(extensions).to_bytes(2, "big") + extensions
    return record[:3] + (len(body) + 4).to_bytes(2, "big") + record[5:6] + len(body).to_bytes(3, "big") + body
