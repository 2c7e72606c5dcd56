"""IPv4 packets as bytes: reading, checksums, ICMP errors, resets, fragments. Pure functions."""

from __future__ import annotations

import struct
from dataclasses import dataclass

ICMP, TCP, UDP = 1, 6, 17

ECHO_REPLY, UNREACHABLE, ECHO, TIME_EXCEEDED = 0, 3, 8, 11
NET_UNREACHABLE, PORT_UNREACHABLE, FRAG_NEEDED, PROHIBITED = 0, 3, 4, 13

_LEAST = {ICMP: 8, TCP: 20, UDP: 8}  # bytes of a transport header
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_IP = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")


@dataclass(slots=True)
class Packet:
    """An IPv4 packet and the parts that forwarding looks at. Ports are 0 where there are none."""

    raw: bytearray
    header: int
    protocol: int
    ttl: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    dont_fragment: bool
    offset: int
    identification: int

    @property
    def size(self) -> int:
        return len(self.raw)

    @property
    def is_first_piece(self) -> bool:
        """The first fragment of several."""
        return not self.offset and bool(self.raw[6] & 0x20)

    @property
    def icmp_type(self) -> int:
        return self.raw[self.header] if self.protocol == ICMP and not self.offset else -1

    @property
    def is_icmp_error(self) -> bool:
        return self.icmp_type in (UNREACHABLE, TIME_EXCEEDED, 4, 5, 12)

    @property
    def opens(self) -> bool:
        """A TCP SYN without ACK."""
        return self.protocol == TCP and not self.offset and self.raw[self.header + 13] & (_SYN | _ACK) == _SYN


def read(data: bytes) -> Packet | None:
    """The packet at the start of `data` (trailing padding is cut); None when it is not a whole IPv4 packet
    with a whole transport header."""
    if len(data) < 20 or data[0] >> 4 != 4:
        return None
    header = (data[0] & 15) * 4
    total, identification, flags, ttl, protocol = struct.unpack_from("!HHHBB", data, 2)
    if header < 20 or total < header or total > len(data):
        return None
    offset = (flags & 0x1FFF) * 8
    if not offset and total < header + _LEAST.get(protocol, 0):
        return None
    start, end = struct.unpack_from("!HH", data, header) if protocol in (TCP, UDP) and not offset else (0, 0)
    return Packet(
        bytearray(data[:total]), header, protocol, ttl, data[12:16], data[16:20], start, end,
        bool(flags & 0x4000), offset, identification,
    )  # fmt: skip


def checksum(data: bytes | bytearray) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def adjusted(old_sum: int, old: bytes, new: bytes) -> int:
    """A checksum after some 16-bit words it covers changed (RFC 1624)."""
    count = len(old) // 2
    total: int = (~old_sum & 0xFFFF) + sum(struct.unpack(f"!{count}H", new))
    total += sum(~word & 0xFFFF for word in struct.unpack(f"!{count}H", old))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _seal(raw: bytearray, header: int = 20, at: int = 0) -> None:
    struct.pack_into("!H", raw, at + 10, 0)
    struct.pack_into("!H", raw, at + 10, checksum(raw[at : at + header]))


def lower_ttl(packet: Packet) -> None:
    packet.ttl -= 1
    packet.raw[8] = packet.ttl
    _seal(packet.raw, packet.header)


def build(source: bytes, destination: bytes, protocol: int, payload: bytes, *, ttl: int = 64) -> Packet:
    """A packet with a plain header, DF set, from parts."""
    raw = bytearray(_IP.pack(0x45, 0, 20 + len(payload), 0, 0x4000, ttl, protocol, 0, source, destination)) + payload
    _seal(raw)
    made = read(bytes(raw))
    assert made is not None
    return made


def icmp_error(about: Packet, source: bytes, kind: int, code: int, mtu: int = 0) -> Packet:
    """The ICMP error that a router at `source` sends about a packet; quotes up to 548 bytes of it (RFC 1812)."""
    body = bytearray(struct.pack("!BBHHH", kind, code, 0, 0, mtu)) + about.raw[:548]
    struct.pack_into("!H", body, 2, checksum(body))
    return build(source, about.source, ICMP, bytes(body))


def echo_reply(ping: Packet) -> Packet:
    body = bytearray(ping.raw[ping.header :])
    body[0] = ECHO_REPLY
    struct.pack_into("!H", body, 2, 0)
    struct.pack_into("!H", body, 2, checksum(body))
    return build(ping.destination, ping.source, ICMP, bytes(body))


def reset(about: Packet) -> Packet | None:
    """The RST that answers a TCP segment as if its destination had sent it (RFC 9293, 3.5.2); None for a RST."""
    _, _, sequence, acknowledged, offset, flags, _, _, _ = _TCP.unpack_from(about.raw, about.header)
    if flags & _RST:
        return None
    if flags & _ACK:
        reply_sequence, reply_ack, reply_flags = acknowledged, 0, _RST
    else:
        length = about.size - about.header - (offset >> 4) * 4 + bool(flags & _SYN) + bool(flags & _FIN)
        reply_sequence, reply_ack, reply_flags = 0, (sequence + length) & 0xFFFFFFFF, _RST | _ACK
    segment = bytearray(
        _TCP.pack(about.destination_port, about.source_port, reply_sequence, reply_ack, 0x50, reply_flags, 0, 0, 0)
    )
    pseudo = about.destination + about.source + struct.pack("!BBH", 0, TCP, len(segment))
    struct.pack_into("!H", segment, 16, checksum(pseudo + bytes(segment)))
    return build(about.destination, about.source, TCP, bytes(segment))


def fragments(packet: Packet, mtu: int) -> list[Packet]:
    """The packet cut into pieces of at most `mtu` bytes; options of the header are copied to each."""
    step = (mtu - packet.header) // 8 * 8
    payload = packet.raw[packet.header :]
    more_after = int.from_bytes(packet.raw[6:8], "big") & 0x2000
    pieces = []
    for start in range(0, len(payload), step):
        part = payload[start : start + step]
        raw = packet.raw[: packet.header] + part
        last = start + step >= len(payload)
        flags = (packet.offset + start) // 8 | (more_after if last else 0x2000)
        struct.pack_into("!H", raw, 2, len(raw))
        struct.pack_into("!H", raw, 6, flags)
        _seal(raw, packet.header)
        piece = read(bytes(raw))
        if piece is not None:
            pieces.append(piece)
    return pieces


def rewrite(
    packet: Packet, *, source: tuple[bytes, int] | None = None, destination: tuple[bytes, int] | None = None
) -> None:
    """Changes an end (address, port) of a TCP or UDP packet in place, with its checksums."""
    for end, address_at, port_at in ((source, 12, 0), (destination, 16, 2)):
        if end is None:
            continue
        address, port = end
        raw, l4 = packet.raw, packet.header
        old = bytes(raw[address_at : address_at + 4])
        raw[address_at : address_at + 4] = address
        if not packet.offset:
            old += bytes(raw[l4 + port_at : l4 + port_at + 2])
            struct.pack_into("!H", raw, l4 + port_at, port)
            sum_at = l4 + (16 if packet.protocol == TCP else 6)
            (was,) = struct.unpack_from("!H", raw, sum_at)
            if was or packet.protocol == TCP:  # a UDP checksum of zero means none
                now = adjusted(was, old, address + struct.pack("!H", port))
                struct.pack_into("!H", raw, sum_at, now or (0xFFFF if packet.protocol == UDP else 0))
        if address_at == 12:
            packet.source, packet.source_port = address, port
        else:
            packet.destination, packet.destination_port = address, port
    _seal(packet.raw, packet.header)


def quoted(error: Packet) -> Packet | None:
    """The packet that an ICMP error is about, as far as it is quoted."""
    inner = bytes(error.raw[error.header + 8 :])
    if len(inner) < 28 or inner[0] >> 4 != 4:
        return None
    header = (inner[0] & 15) * 4
    if header < 20 or len(inner) < header + 4:
        return None
    protocol = inner[9]
    start, end = struct.unpack_from("!HH", inner, header) if protocol in (TCP, UDP) else (0, 0)
    return Packet(bytearray(inner), header, protocol, inner[8], inner[12:16], inner[16:20], start, end, True, 0, 0)


def rewrite_quoted(
    error: Packet, *, source: tuple[bytes, int] | None = None, destination: tuple[bytes, int] | None = None
) -> None:
    """Changes an end of the packet that an ICMP error quotes, so that its sender knows it again."""
    at = error.header + 8
    raw = error.raw
    header = (raw[at] & 15) * 4
    for end, address_at, port_at in ((source, 12, 0), (destination, 16, 2)):
        if end is not None:
            raw[at + address_at : at + address_at + 4] = end[0]
            struct.pack_into("!H", raw, at + header + port_at, end[1])
    _seal(raw, header, at)
    struct.pack_into("!H", raw, error.header + 2, 0)
    struct.pack_into("!H", raw, error.header + 2, checksum(raw[error.header :]))


def readdress(packet: Packet, *, source: bytes | None = None, destination: bytes | None = None) -> None:
    """Changes addresses of a packet whose transport checksum does not cover them (ICMP)."""
    if source is not None:
        packet.raw[12:16] = packet.source = source
    if destination is not None:
        packet.raw[16:20] = packet.destination = destination
    _seal(packet.raw, packet.header)
