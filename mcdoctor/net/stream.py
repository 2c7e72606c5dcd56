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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from mcdoctor.models.facts import Fact, PathMtu
from mcdoctor.models.requests import MeasurePathMtu
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import mtu, tcp, wire

_SMALL = 576
_SIZES = (1450, 1400, 1300)
_BACK = 2  # connections with usual segments that look at the way back: one alone may meet plain loss
_PATIENCE = 2.0  # seconds for a first round: with the least RTO of 200 ms the third retransmission is gone after 0.6
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
    port, about = request.port, f"{wire.endpoint(address, request.port)} by tcp"
    if not (request.tls or request.host):
        reason = "what the port speaks is not known, so nothing long that it would understand can be sent"
        yield wire.blind(vantage, PathMtu, about, reason)
        return
    overhead = (40 if wire.is_v6(address) else 20) + 20
    tally = mtu.Tally()
    sizes: list[int | None] = [None, *(s for s in _SIZES if s < top), _SMALL]
    plan = [(s, True) for s in sizes] + [(None, False)] * _BACK + [(_SMALL, False)]
    runs: list[_Run] = []

    def open_all(plan: list[tuple[int | None, bool]]) -> list[tcp.Connection]:
        def open_one(index: int) -> tcp.Connection:
            size, _ = plan[index]
            return tcp.connect(address, port, wire.left(until, 1.5), None if size is None else size - overhead)

        opened = wire.side_by_side(len(plan), 0.0, open_one)
        for index, connection in enumerate(opened):
            if connection.sock is not None:
                runs.append(_begin(connection.sock, *plan[index], request, overhead))
            elif connection.result == "timeout":  # its SYNs were small packets, and lost
                tally.control_sent += 2
                tally.control_lost += 2
        return opened

    try:
        opened = open_all(plan)
        if not runs:
            yield wire.blind(vantage, PathMtu, about, f"no connection: {opened[0].words()}")
            return
        begun = time.monotonic()
        _watch(runs, min(until, begun + _PATIENCE), lambda run: run.forward)
        _settle(tally, runs)
        sure = [s for s in mtu.narrower(tally, mtu.NEEDED) if s not in tally.sizes]
        again = [s.size for s in tally.sizes.values() if s.lost]
        if again and tally.told and until - time.monotonic() > 0.8:
            first = len(runs)
            sizes_again: list[tuple[int | None, bool]] = [(s, True) for s in (*again, *sure)]
            open_all(sizes_again[: mtu.BURST])
            _watch(runs[first:], until - 0.1, lambda run: run.forward)
            _settle(tally, runs[first:])
        _watch(runs, min(until, begun + _PATIENCE), lambda run: not run.forward)
        back = _reverse(request, vantage, runs, top, tally)
    finally:
        for run in runs:
            run.sock.close()
    if not tally.told:
        reason = "small segments are not acknowledged either: nothing can be said of sizes"
        yield wire.blind(vantage, PathMtu, about, reason)
    else:
        whole = runs[0].first
        tally.mss = (whole.advmss + whole.header - 20, whole.snd_mss + whole.header - 20)
        yield mtu.as_fact(request, vantage, tally, top, "tcp", port)
    yield back


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


def _watch(runs: list[_Run], end: float, wanted: Callable[[_Run], bool]) -> None:
    """Reads and looks at TCP_INFO until every wanted run is settled or the time is over."""
    step = 0.01
    while True:
        for run in runs:
            _drain(run)
            if run.forward and not run.settled:
                info = tcp.tcp_info(run.sock)
                given_up = info.total_retrans - run.first.total_retrans >= mtu.NEEDED
                run.settled = _acked(run, info) or given_up or run.ended
            elif not run.forward:
                quiet = run.received > 0 and time.monotonic() - run.last_byte > 0.3
                run.settled = run.ended or (quiet and run.small)
        left = end - time.monotonic()
        if left <= 0 or all(run.settled for run in runs if wanted(run)):
            return
        time.sleep(min(step, left))
        step = min(step * 1.5, 0.05)


def _acked(run: _Run, info: tcp.TcpInfo) -> bool:
    """True when everything that was sent has arrived."""
    return info.bytes_acked > len(run.payload) or (info.unacked == 0 and info.data_segs_out > 0) or run.received > 0


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
    """What the runs show of their sizes, and of plain loss: SYNs, and segments of sizes that do arrive."""
    for run in runs:
        info = tcp.tcp_info(run.sock)
        again = info.total_retrans - run.first.total_retrans
        acked = _acked(run, info)
        tally.control_sent += 1 + run.first.total_retrans
        tally.control_lost += run.first.total_retrans
        if not run.forward:
            continue
        adapted = info.snd_mss < run.first.snd_mss  # by a router's word or by net.ipv4.tcp_mtu_probing
        if run.small or (acked and not adapted):
            tally.control_sent += info.data_segs_out
            tally.control_lost += again
        seen = tally.of(run.size)
        seen.sent += again + (info.data_segs_out > 0)
        if info.pmtu < run.first.pmtu:  # a router named a smaller MTU, and the kernel believed it
            seen.too_big, seen.mtu = True, info.pmtu
            if acked:
                tally.of(info.pmtu).delivered = True
        elif acked and adapted:  # the kernel found the black hole by itself and went on with smaller segments
            tally.of(run.size - run.first.snd_mss + info.snd_mss).delivered = True
        elif acked:
            seen.delivered = True


def _reverse(request: MeasurePathMtu, vantage: Vantage, runs: list[_Run], top: int, forward: mtu.Tally) -> Fact:
    """The way back, judged by what arrives with usual and with small segments. Plain loss is told by `forward`."""
    about = f"the way back from {wire.endpoint(request.address, request.port or 0)} by tcp"
    usual = [r for r in runs if not r.forward and not r.small]
    small = [r for r in runs if not r.forward and r.small]
    if not usual or not small:
        return wire.blind(vantage, PathMtu, about, "not every connection came up")
    whole, little = max(usual, key=lambda r: r.received), small[0]
    infos = [tcp.tcp_info(r.sock) for r in usual]
    info = tcp.tcp_info(whole.sock)
    full = info.advmss  # the kernel has taken the room of timestamps off already
    if max(whole.received, little.received) <= full:
        what = "nothing came back" if not little.received else f"the answer of {little.received} bytes fits one packet"
        return wire.blind(vantage, PathMtu, about, f"{what}: it cannot show whether large ones arrive")
    overhead = whole.size - whole.first.snd_mss
    tally = mtu.Tally(mss=(full + info.header - 20,))
    if whole.received > full:
        tally.of(overhead + min(max(info.rcv_mss, _SMALL), full)).delivered = True
    elif any(r.ended for r in usual):
        return wire.blind(vantage, PathMtu, about, "the peer ended the connection early")
    elif len(usual) < _BACK or not all(i.unacked == 0 and i.data_segs_out > 0 for i in infos):
        return wire.blind(vantage, PathMtu, about, "the request itself did not get through every time")
    else:
        tally.of(overhead + full).sent = mtu.NEEDED  # the peer's kernel has sent it again by itself, on each connection
    tally.of(little.size).delivered = little.received > 0
    tally.of(little.size).sent = mtu.NEEDED
    tally.control_sent, tally.control_lost = forward.control_sent, forward.control_lost
    return replace(mtu.as_fact(request, vantage, tally, top, "tcp", request.port), direction="reverse")


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
