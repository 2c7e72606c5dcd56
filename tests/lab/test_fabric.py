"""The network between the hosts, packet by packet, without a namespace."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcdoctor.lab import packets
from mcdoctor.lab.fabric import Delivery, Fabric
from mcdoctor.lab.packets import ICMP, TCP, UDP, Packet

from .conftest import spec_of

CLIENT, SERVER, SERVICE = "10.10.0.1", "10.20.0.1", "10.110.0.1"
SYN, ACK, RST = 0x02, 0x10, 0x04


def raw(address: str) -> bytes:
    return ip_address(address).packed


def make(source: str, destination: str, protocol: int, payload: bytes, *, ttl: int = 64, df: bool = True) -> bytes:
    flags, identification = (0x4000, 0) if df else (0, 0x1234)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identification, flags, ttl, protocol, 0)
    header = bytearray(header + raw(source) + raw(destination))
    header[10:12] = packets.checksum(header).to_bytes(2, "big")
    return bytes(header) + payload


def with_sum(source: str, destination: str, protocol: int, segment: bytearray, at: int) -> bytes:
    pseudo = raw(source) + raw(destination) + struct.pack("!BBH", 0, protocol, len(segment))
    segment[at : at + 2] = packets.checksum(pseudo + bytes(segment)).to_bytes(2, "big")
    return bytes(segment)


def tcp(source: str, sport: int, destination: str, dport: int, flags: int = SYN, size: int = 0, **kw: int) -> bytes:
    segment = bytearray(struct.pack("!HHIIBBHHH", sport, dport, 1000, 0, 0x50, flags, 65535, 0, 0) + bytes(size))
    return make(source, destination, TCP, with_sum(source, destination, TCP, segment, 16), **kw)


def udp(source: str, sport: int, destination: str, dport: int, data: bytes = b"hello", df: bool = True) -> bytes:
    segment = bytearray(struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data)
    return make(source, destination, UDP, with_sum(source, destination, UDP, segment, 6), df=df)


def ping(source: str, destination: str, size: int = 56, **kw: int) -> bytes:
    body = bytearray(struct.pack("!BBHHH", 8, 0, 0, 7, 1) + bytes(size))
    body[2:4] = packets.checksum(body).to_bytes(2, "big")
    return make(source, destination, ICMP, bytes(body), **kw)


def sound(data: bytes) -> Packet:
    """The packet, after its checksums were found right."""
    packet = packets.read(data)
    assert packet is not None
    assert packets.checksum(packet.raw[: packet.header]) == 0
    if packet.offset or packet.is_first_piece:
        return packet
    payload = bytes(packet.raw[packet.header :])
    pseudo = packet.source + packet.destination + struct.pack("!BBH", 0, packet.protocol, len(payload))
    assert packets.checksum(payload if packet.protocol == ICMP else pseudo + payload) == 0
    return packet


def only(found: list[Delivery], host: str) -> Packet:
    assert [d.host for d in found] == [host]
    return sound(found[0].packet)


def icmp(found: list[Delivery]) -> tuple[int, int, str, Packet]:
    """Type, code, sender and quoted packet of the ICMP error that the client got."""
    packet = only(found, "client")
    assert packet.protocol == ICMP
    inner = packets.quoted(packet)
    assert inner is not None
    return packet.icmp_type, packet.raw[packet.header + 1], str(ip_address(packet.source)), inner


def test_a_packet_crosses_three_routers() -> None:
    packet = only(Fabric(spec_of()).handle("client", tcp(CLIENT, 4000, SERVER, 8080), 0.0), "server")
    assert (packet.ttl, packet.destination_port) == (61, 8080)


def test_a_spoofed_source_goes_nowhere() -> None:
    assert Fabric(spec_of()).handle("client", tcp("10.10.0.9", 4000, SERVER, 8080), 0.0) == []


@pytest.mark.parametrize("junk", [b"", b"\x45\x00", b"\x60" + bytes(39), bytes(60), b"\x4f" + bytes(30)])
def test_junk_is_dropped(junk: bytes) -> None:
    assert Fabric(spec_of()).handle("client", junk, 0.0) == []


@given(st.binary(max_size=80))
def test_no_packet_breaks_the_fabric(data: bytes) -> None:
    fabric = Fabric(spec_of())
    fabric.handle("client", data, 0.0)
    for protocol in (ICMP, TCP, UDP, 47):
        for destination in (SERVER, SERVICE, "172.18.0.1", "10.99.9.9"):
            fabric.handle("client", make(CLIENT, destination, protocol, data), 0.0)


@given(
    st.binary(min_size=1, max_size=400).filter(lambda b: len(b) % 2 == 0),
    st.integers(0, 10),
    st.binary(min_size=2, max_size=2),
)
def test_an_adjusted_checksum_is_the_checksum(data: bytes, word: int, new: bytes) -> None:
    at = 2 * (word % (len(data) // 2))
    changed = data[:at] + new + data[at + 2 :]
    adjusted = packets.adjusted(packets.checksum(data), data[at : at + 2], new)
    assert {adjusted, packets.checksum(changed)} in ({adjusted}, {0, 0xFFFF})


# --- routers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ttl", "router"), [(1, "172.18.1.1"), (2, "172.18.0.1"), (3, "172.18.2.1")])
def test_the_router_where_the_ttl_ends_says_so(ttl: int, router: str) -> None:
    kind, code, sender, inner = icmp(Fabric(spec_of()).handle("client", tcp(CLIENT, 4000, SERVER, 8080, ttl=ttl), 0.0))
    assert (kind, code, sender) == (11, 0, router)
    assert (inner.source_port, inner.destination_port) == (4000, 8080)


def test_icmp_errors_are_limited_as_on_linux() -> None:
    fabric = Fabric(spec_of())
    probe = tcp(CLIENT, 4000, SERVER, 8080, ttl=1)
    assert sum(len(fabric.handle("client", probe, 0.0)) for _ in range(20)) == 6
    assert fabric.handle("client", probe, 0.5) == []
    assert len(fabric.handle("client", probe, 1.6)) == 1


def test_a_silent_router_sends_no_errors() -> None:
    spec = spec_of().__class__  # the class, to build the same lab with a silent router
    lab = spec_of()
    routers = {n: type(r)(address=r.address, cluster=r.cluster, silent=n == "middle") for n, r in lab.routers.items()}
    fabric = Fabric(spec(**{f: getattr(lab, f) for f in lab.__slots__} | {"routers": routers}))
    assert fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080, ttl=2), 0.0) == []
    assert len(fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080, ttl=3), 0.0)) == 1


def test_routers_answer_pings_and_refuse_the_rest() -> None:
    fabric = Fabric(spec_of())
    assert only(fabric.handle("client", ping(CLIENT, "172.18.0.1"), 0.0), "client").icmp_type == 0
    assert only(fabric.handle("client", tcp(CLIENT, 4000, "172.18.0.1", 22), 0.0), "client").raw[33] & RST
    assert icmp(fabric.handle("client", udp(CLIENT, 4000, "172.18.0.1", 53), 0.0))[:2] == (3, 3)


def test_an_address_that_is_nowhere_is_unreachable() -> None:
    assert icmp(Fabric(spec_of()).handle("client", tcp(CLIENT, 4000, "10.99.9.9", 80), 0.0))[:3] == (3, 0, "172.18.1.1")


# --- MTU ------------------------------------------------------------------------------------------------------------


def test_frag_needed_names_the_mtu_and_is_not_limited() -> None:
    fabric = Fabric(spec_of("mtu: 1400"))
    for _ in range(20):
        found = fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080, ACK, 1361), 0.0)
        kind, code, sender, _ = icmp(found)
        assert (kind, code, sender) == (3, 4, "172.18.0.1")
        assert int.from_bytes(found[0].packet[26:28], "big") == 1400
    only(fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080, ACK, 1360), 0.0), "server")


def test_a_black_hole_is_silent_both_ways() -> None:
    fabric = Fabric(spec_of("mtu: 1400, frag_needed: false"))
    assert fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080, ACK, 1361), 0.0) == []
    assert fabric.handle("server", tcp(SERVER, 8080, CLIENT, 4000, ACK, 1361), 0.0) == []
    only(fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080, ACK, 1360), 0.0), "server")


def test_one_way_faults() -> None:
    fabric = Fabric(spec_of("mtu: 1400, frag_needed: false, one_way: true"))
    assert fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080, ACK, 1400), 0.0) == []
    only(fabric.handle("server", tcp(SERVER, 8080, CLIENT, 4000, ACK, 1400), 0.0), "client")


def test_without_df_a_large_packet_is_cut_and_translated_whole() -> None:
    fabric = Fabric(spec_of("mtu: 600"))
    data = bytes(range(256)) * 5
    found = fabric.handle("client", udp(CLIENT, 4000, SERVICE, 53, data, df=False), 0.0)
    assert [d.host for d in found] == ["server"] * 3
    pieces = [sound(d.packet) for d in found]
    assert all(p.size <= 600 and p.destination == raw(SERVER) for p in pieces)
    whole = bytearray()
    for piece in sorted(pieces, key=lambda p: p.offset):
        assert len(whole) == piece.offset
        whole += piece.raw[20:]
    pseudo = raw(CLIENT) + raw(SERVER) + struct.pack("!BBH", 0, UDP, len(whole))
    assert packets.checksum(pseudo + bytes(whole)) == 0
    assert whole[8:] == data
    # the answer, cut by its sender, is translated piece by piece
    answer = packets.read(udp(SERVER, 53, CLIENT, 4000, data, df=False))
    assert answer is not None
    back = [fabric.handle("server", bytes(p.raw), 0.0) for p in packets.fragments(answer, 580)]
    assert {sound(d.packet).source for found in back for d in found} == {raw(SERVICE)}


# --- Service addresses ----------------------------------------------------------------------------------------------


def test_a_service_address_becomes_the_backend_and_back() -> None:
    fabric = Fabric(spec_of())
    there = only(fabric.handle("client", tcp(CLIENT, 4000, SERVICE, 80), 0.0), "server")
    assert (there.destination, there.destination_port) == (raw(SERVER), 8080)
    back = only(fabric.handle("server", tcp(SERVER, 8080, CLIENT, 4000, SYN | ACK), 0.0), "client")
    assert (back.source, back.source_port) == (raw(SERVICE), 80)


def test_errors_about_a_translated_packet_speak_of_the_service() -> None:
    fabric = Fabric(spec_of("mtu: 1400"))
    fabric.handle("client", tcp(CLIENT, 4000, SERVICE, 80), 0.0)
    for probe in (
        tcp(CLIENT, 4000, SERVICE, 80, ACK, ttl=1),
        tcp(CLIENT, 4000, SERVICE, 80, ACK, ttl=3),
        tcp(CLIENT, 4000, SERVICE, 80, ACK, 1400),
    ):
        _, _, _, inner = icmp(fabric.handle("client", probe, 0.0))
        assert (inner.destination, inner.destination_port) == (raw(SERVICE), 80)


def test_an_error_of_the_backend_comes_from_the_service() -> None:
    fabric = Fabric(spec_of())
    there = only(fabric.handle("client", udp(CLIENT, 4000, SERVICE, 53), 0.0), "server")
    error = packets.icmp_error(there, raw(SERVER), 3, 3)
    _, _, sender, inner = icmp(fabric.handle("server", bytes(error.raw), 0.0))
    assert (sender, inner.destination) == (SERVICE, raw(SERVICE))


def test_an_error_of_the_client_reaches_the_backend() -> None:
    fabric = Fabric(spec_of())
    fabric.handle("client", udp(CLIENT, 4000, SERVICE, 53), 0.0)
    answer = only(fabric.handle("server", udp(SERVER, 53, CLIENT, 4000), 0.0), "client")
    error = packets.icmp_error(answer, raw(CLIENT), 3, 3)
    got = only(fabric.handle("client", bytes(error.raw), 0.0), "server")
    inner = packets.quoted(got)
    assert inner is not None
    assert (inner.source, inner.source_port, inner.destination_port) == (raw(SERVER), 53, 4000)


def test_a_service_without_endpoints_rejects_or_drops() -> None:
    fabric = Fabric(spec_of())
    assert icmp(fabric.handle("client", tcp(CLIENT, 4000, SERVICE, 81), 0.0))[:2] == (3, 3)
    assert fabric.handle("client", tcp(CLIENT, 4000, SERVICE, 82), 0.0) == []
    assert fabric.handle("client", tcp(CLIENT, 4000, SERVICE, 8080), 0.0) == []
    assert fabric.handle("client", ping(CLIENT, SERVICE), 0.0) == []


def test_a_direct_connection_from_a_used_port_is_left_alone() -> None:
    fabric = Fabric(spec_of())
    fabric.handle("client", tcp(CLIENT, 4000, SERVICE, 80), 0.0)
    fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080), 1.0)
    back = only(fabric.handle("server", tcp(SERVER, 8080, CLIENT, 4000, SYN | ACK), 1.0), "client")
    assert (back.source, back.source_port) == (raw(SERVER), 8080)


# --- filters, policies, loss, delay ---------------------------------------------------------------------------------


def filtered(action: str, more: str = "") -> Fabric:
    rule = f"{{at: middle, action: {action}, protocol: tcp, destinations: [server], ports: [8080]{more}}}"
    return Fabric(spec_of(more=f"filters:\n  - {rule}\n"))


def test_a_filter_drops_only_what_it_names() -> None:
    fabric = filtered("drop")
    assert fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080), 0.0) == []
    only(fabric.handle("client", tcp(CLIENT, 4000, SERVER, 22), 0.0), "server")
    only(fabric.handle("client", udp(CLIENT, 4000, SERVER, 8080), 0.0), "server")


def test_a_filter_resets() -> None:
    answer = only(filtered("reset").handle("client", tcp(CLIENT, 4000, SERVER, 8080), 0.0), "client")
    sequence, acknowledged, flags = struct.unpack_from("!IIxB", answer.raw, 24)
    assert (answer.source, sequence, acknowledged, flags) == (raw(SERVER), 0, 1001, RST | ACK)


@pytest.mark.parametrize(("action", "code"), [("reject", 3), ("prohibited", 13)])
def test_a_filter_refuses_with_icmp(action: str, code: int) -> None:
    found = filtered(action).handle("client", tcp(CLIENT, 4000, SERVER, 8080), 0.0)
    assert icmp(found)[:3] == (3, code, "172.18.0.1")


def test_a_filter_of_icmp_types_hides_frag_needed() -> None:
    more = "filters:\n  - {at: left, action: drop, protocol: icmp, icmp: [3]}\n"
    fabric = Fabric(spec_of("mtu: 1400", more))
    assert fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080, ACK, 1400), 0.0) == []
    only(fabric.handle("client", ping(CLIENT, SERVER), 0.0), "server")


def policy(direction: str, deny: str) -> Fabric:
    cluster = "cluster-a" if direction == "egress" else "cluster-b"
    rule = f"{{policy: NetworkPolicy shop/p, cluster: {cluster}, direction: {direction}, deny: [{deny}]}}"
    return Fabric(spec_of(more=f"enforce:\n  policies:\n    - {rule}\n"))


def test_an_ingress_policy_is_enforced_at_the_last_node() -> None:
    fabric = policy("ingress", "{destinations: [server], except_ports: [22]}")
    assert fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080), 0.0) == []
    assert fabric.handle("client", ping(CLIENT, SERVER), 0.0) == []
    only(fabric.handle("client", tcp(CLIENT, 4000, SERVER, 22), 0.0), "server")
    assert icmp(fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080, ttl=3), 0.0))[2] == "172.18.2.1"


def test_policies_let_replies_pass() -> None:
    fabric = policy("ingress", "{destinations: [server]}")
    only(fabric.handle("server", tcp(SERVER, 5000, CLIENT, 80), 0.0), "client")
    only(fabric.handle("client", tcp(CLIENT, 80, SERVER, 5000, SYN | ACK), 0.0), "server")
    only(fabric.handle("server", udp(SERVER, 5000, CLIENT, 53), 0.0), "client")
    only(fabric.handle("client", udp(CLIENT, 53, SERVER, 5000), 0.0), "server")
    assert fabric.handle("client", udp(CLIENT, 54, SERVER, 5001), 0.0) == []


def test_an_egress_policy_sees_the_backend_not_the_service() -> None:
    by_backend = policy("egress", "{sources: [client], destinations: [server], ports: [8080]}")
    assert by_backend.handle("client", tcp(CLIENT, 4000, SERVICE, 80), 0.0) == []
    by_service = policy("egress", "{sources: [client], destinations: [10.110.0.0/16]}")
    only(by_service.handle("client", tcp(CLIENT, 4000, SERVICE, 80), 0.0), "server")


def test_a_policy_of_the_other_cluster_is_not_enforced_here() -> None:
    rule = "{policy: NetworkPolicy shop/p, cluster: cluster-b, direction: egress, deny: [{}]}"
    fabric = Fabric(spec_of(more=f"enforce:\n  policies:\n    - {rule}\n"))
    only(fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080), 0.0), "server")


def test_loss_is_the_share_that_was_asked_for() -> None:
    fabric = Fabric(spec_of("loss: 0.3"))
    for size in (0, 1400):
        arrived = sum(
            len(fabric.handle("client", udp(CLIENT, 4000, SERVER, 53, bytes(size)), 0.0)) for _ in range(3000)
        )
        assert 0.66 < arrived / 3000 < 0.74


def test_delay_adds_up_and_jitter_stays_within() -> None:
    fabric = Fabric(spec_of("delay_ms: 20, jitter_ms: 5"))
    delays = [fabric.handle("client", udp(CLIENT, 4000, SERVER, 53), 0.0)[0].after for _ in range(200)]
    assert 0.020 <= min(delays) < 0.021
    assert 0.024 < max(delays) < 0.025
    answered = fabric.handle("client", tcp(CLIENT, 4000, SERVER, 8080, ttl=3), 0.0)[0].after
    assert 0.040 <= answered < 0.050  # there and back
