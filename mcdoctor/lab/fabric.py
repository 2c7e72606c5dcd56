"""The network between the hosts: routers, lines with faults, Service addresses, filters and policies.

No sockets here: a packet comes in from a host, and out come packets with the host to hand them to and the delay after
which. The order of things at a router is that of a Linux node: translate Service addresses, route, TTL, MTU, filters.
"""

from __future__ import annotations

import ipaddress
import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from mcdoctor.lab import packets
from mcdoctor.lab.packets import ICMP, TCP, UDP, Packet
from mcdoctor.lab.schema import Action, Deny, Filter, LabSpec, Link, ServicePortMap

_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}
_K = TypeVar("_K")
_V = TypeVar("_V")
_REMEMBERED = 8192
_BURST, _REFILL = 6, 1.0  # ICMP errors per router and receiver, as Linux limits them (icmp_ratelimit)


class Delivery(NamedTuple):
    """A packet for a host, `after` seconds from now."""

    after: float
    host: str
    packet: bytes


class _End(NamedTuple):
    address: bytes
    port: int


class _Tuple(NamedTuple):
    protocol: int
    source: _End
    destination: _End


@dataclass(slots=True)
class _Nat:
    """The connections that one router translates: by original tuple, and by the tuple of the replies."""

    services: dict[bytes, dict[tuple[int, int], ServicePortMap]] = field(default_factory=dict)
    backend: dict[_Tuple, _End] = field(default_factory=dict)
    service: dict[_Tuple, _End] = field(default_factory=dict)
    pieces: dict[tuple[bytes, bytes, int, int], tuple[_End | None, _End | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Line:
    """One direction of a link."""

    mtu: int
    frag_needed: bool
    loss: float
    delay: float
    jitter: float


@dataclass(frozen=True, slots=True)
class _Rule:
    """A filter or one `deny`, ready to match."""

    action: Action
    protocol: int | None
    sources: tuple[tuple[int, int], ...]
    destinations: tuple[tuple[int, int], ...]
    ports: frozenset[int]
    icmp: frozenset[int] = frozenset()
    except_sources: tuple[tuple[int, int], ...] = ()
    except_destinations: tuple[tuple[int, int], ...] = ()
    except_ports: frozenset[int] = frozenset()

    def matches(self, packet: Packet) -> bool:
        if self.protocol is not None and packet.protocol != self.protocol:
            return False
        if self.icmp and packet.icmp_type not in self.icmp:
            return False
        if self.ports and packet.destination_port not in self.ports:
            return False
        if packet.destination_port in self.except_ports:
            return False
        source, destination = int.from_bytes(packet.source, "big"), int.from_bytes(packet.destination, "big")
        return (
            (not self.sources or _within(source, self.sources))
            and (not self.destinations or _within(destination, self.destinations))
            and not _within(source, self.except_sources)
            and not _within(destination, self.except_destinations)
        )


def _within(address: int, networks: Iterable[tuple[int, int]]) -> bool:
    return any(address & mask == network for network, mask in networks)


def _bytes(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed


class Fabric:
    """The running network of a lab. Not thread-safe: one loop owns it."""

    def __init__(self, lab: LabSpec) -> None:
        self._random = random.Random(lab.seed)
        self._routers = {name: _bytes(r.address) for name, r in lab.routers.items()}
        self._silent = {name for name, r in lab.routers.items() if r.silent}
        self._router_of = {address: name for name, address in self._routers.items()}
        self._hosts = {_bytes(h.address): (name, h.router, h.mtu) for name, h in lab.hosts.items()}
        self._first = {name: (h.router, _bytes(h.address)) for name, h in lab.hosts.items()}
        self._lines = dict(_lines(lab.links))
        self._next = _next_hops(lab)
        self._nat = {name: _Nat() for name in lab.routers}
        self._service_routers: dict[bytes, tuple[str, ...]] = {}
        for service in lab.services:
            at = service.at or tuple(n for n, r in lab.routers.items() if r.cluster == service.cluster)
            self._service_routers[_bytes(service.address)] = at
            for router in at:
                ports = self._nat[router].services.setdefault(_bytes(service.address), {})
                ports.update({(_PROTOCOLS[p.protocol], p.port): p for p in service.ports})
        self._rules: dict[str, list[_Rule]] = {name: [] for name in lab.routers}
        for rule in lab.filters:
            self._rules[rule.at].append(_filter(rule, lab))
        self._leaving: dict[bytes, list[_Rule]] = {}
        self._entering: dict[bytes, list[_Rule]] = {}
        for enforced in lab.enforce.policies:
            side = self._leaving if enforced.direction == "egress" else self._entering
            for host in lab.hosts.values():
                if host.cluster == enforced.cluster:
                    side.setdefault(_bytes(host.address), []).extend(_deny(deny, lab) for deny in enforced.deny)
        self._asked: dict[_End, None] = {}  # UDP sockets that sent first: what comes to them is a reply
        self._tokens: dict[tuple[str, bytes], tuple[float, float]] = {}

    def handle(self, host: str, data: bytes, now: float) -> list[Delivery]:
        """What becomes of a packet that a host sent at `now` (any steady clock, seconds)."""
        packet = packets.read(data)
        router, address = self._first[host]
        if packet is None or packet.source != address:
            return []  # not IPv4, or not its own address: real nodes drop spoofed packets too
        out: list[Delivery] = []
        self._walk(packet, router, 0.0, now, out)
        return out

    def _walk(
        self, packet: Packet, at: str, after: float, now: float, out: list[Delivery], made_here: bool = False
    ) -> None:
        """Carries a packet from router to router until it is delivered, dropped or answered."""
        first = not made_here
        for _ in range(64):
            if not self._translate(packet, at, after, now, out):
                return
            if packet.destination == self._routers[at]:
                self._answer(packet, at, after, now, out)
                return
            target = self._where(packet.destination, at)
            if target is None:
                self._error(packet, at, packets.UNREACHABLE, packets.NET_UNREACHABLE, after, now, out)
                return
            if not made_here:
                if packet.ttl <= 1:
                    self._error(packet, at, packets.TIME_EXCEEDED, 0, after, now, out)
                    return
                packets.lower_ttl(packet)
            here = target == at
            host = self._hosts.get(packet.destination) if here else None
            onward = at if here else self._next[at, target]
            line = _Line(host[2], True, 0.0, 0.0, 0.0) if host else self._lines[at, onward]
            if packet.size > line.mtu and packet.dont_fragment:
                if line.frag_needed:
                    self._error(packet, at, packets.UNREACHABLE, packets.FRAG_NEEDED, after, now, out, line.mtu)
                return
            if not made_here and self._filtered(packet, at, first, host is not None, after, now, out):
                return
            if packet.size > line.mtu:
                for piece in packets.fragments(packet, line.mtu):
                    self._walk(piece, at, after, now, out, made_here=True)
                return
            if line.loss and self._random.random() < line.loss:
                return
            if host:
                out.append(Delivery(after, host[0], bytes(packet.raw)))
                return
            after += line.delay + (self._random.random() * line.jitter if line.jitter else 0.0)
            at, first, made_here = onward, False, False

    def _where(self, destination: bytes, at: str) -> str | None:
        """The router to go to for an address."""
        if host := self._hosts.get(destination):
            return host[1]
        if router := self._router_of.get(destination):
            return router
        routers = self._service_routers.get(destination, ())
        return None if at in routers else min(routers, key=lambda r: (self._distance(at, r), r), default=None)

    def _distance(self, start: str, end: str) -> int:
        steps = 0
        while start != end:
            start = self._next[start, end]
            steps += 1
        return steps

    def _filtered(
        self, packet: Packet, at: str, first: bool, last: bool, after: float, now: float, out: list[Delivery]
    ) -> bool:
        """True when a filter or a policy took the packet; tells the sender as the rule says."""
        rules: list[_Rule] = []
        if (first or last) and self._opens(packet):
            if first:
                rules += self._leaving.get(packet.source, ())
            if last:
                rules += self._entering.get(packet.destination, ())
        rules += self._rules[at]
        taken = next((rule for rule in rules if rule.matches(packet)), None) if rules else None
        if taken is None:
            if first and packet.protocol == UDP and self._opens(packet):
                _remember(self._asked, _End(packet.source, packet.source_port), None)
            return False
        match taken.action:
            case "drop":
                pass
            case "reset":
                answer = packets.reset(packet) if not packet.offset else None
                if answer is not None:
                    self._walk(answer, at, after, now, out, made_here=True)
            case "reject":
                self._error(packet, at, packets.UNREACHABLE, packets.PORT_UNREACHABLE, after, now, out)
            case "prohibited":
                self._error(packet, at, packets.UNREACHABLE, packets.PROHIBITED, after, now, out)
        return True

    def _opens(self, packet: Packet) -> bool:
        """Whether a packet starts something: policies let replies pass, as a firewall with state does."""
        if packet.protocol == UDP:
            return _End(packet.destination, packet.destination_port) not in self._asked
        return packet.opens or packet.icmp_type == packets.ECHO or packet.protocol not in (TCP, ICMP)

    def _answer(self, packet: Packet, at: str, after: float, now: float, out: list[Delivery]) -> None:
        """A router as the destination: answers pings, has no open port."""
        answer: Packet | None = None
        if packet.icmp_type == packets.ECHO:
            answer = packets.echo_reply(packet)
        elif packet.protocol == TCP and not packet.offset:
            answer = packets.reset(packet)
        elif packet.protocol == UDP and not packet.offset:
            self._error(packet, at, packets.UNREACHABLE, packets.PORT_UNREACHABLE, after, now, out)
        if answer is not None:
            self._walk(answer, at, after, now, out, made_here=True)

    def _error(
        self, about: Packet, at: str, kind: int, code: int, after: float, now: float, out: list[Delivery], mtu: int = 0
    ) -> None:
        """Sends an ICMP error, unless about an ICMP error or a later fragment, or too many of them (RFC 1812)."""
        if at in self._silent or about.is_icmp_error or about.offset:
            return
        if (kind, code) != (packets.UNREACHABLE, packets.FRAG_NEEDED):  # Linux never limits those
            tokens, since = self._tokens.get((at, about.source), (float(_BURST), now))
            tokens = min(float(_BURST), tokens + (now - since) * _REFILL)
            self._tokens[at, about.source] = (max(tokens - 1, tokens if tokens < 1 else 0.0), now)
            if tokens < 1:
                return
        error = packets.icmp_error(about, self._routers[at], kind, code, mtu)
        self._walk(error, at, after, now, out, made_here=True)

    # --- Service addresses -------------------------------------------------------------------------------------

    def _translate(self, packet: Packet, at: str, after: float, now: float, out: list[Delivery]) -> bool:
        """Service address to backend, and back in replies. False: the packet ends here."""
        nat = self._nat[at]
        if packet.is_icmp_error:
            self._translate_error(packet, nat)
            return True
        piece = (packet.source, packet.destination, packet.protocol, packet.identification)
        if packet.offset:
            source, destination = nat.pieces.get(piece, (None, None))
            packets.rewrite(packet, source=source, destination=destination)
            return destination is not None or packet.destination not in nat.services
        key = _key(packet)
        if (original := nat.service.get(key)) is not None:
            if packet.is_first_piece:
                _remember(nat.pieces, piece, (original, None))
            packets.rewrite(packet, source=original)
            return True
        ports = nat.services.get(packet.destination)
        if ports is None:
            if nat.service and (packet.opens or packet.protocol == UDP):
                # a direct connection from a port that a translated one used before: its replies are its own
                reply = _Tuple(key.protocol, key.destination, key.source)
                if nat.service.pop(reply, None) is not None:
                    for old in [k for k, b in nat.backend.items() if k.source == key.source and b == key.destination]:
                        del nat.backend[old]
            return True
        port = ports.get((packet.protocol, packet.destination_port))
        if port is None:
            return False
        if not port.to:
            if port.empty == "reject":
                self._error(packet, at, packets.UNREACHABLE, packets.PORT_UNREACHABLE, after, now, out)
            return False
        chosen = nat.backend.get(key)
        if chosen is None:
            address, _, number = self._random.choice(port.to).partition(":")
            chosen = _End(_bytes(address), int(number))
            _remember(nat.backend, key, chosen)
            _remember(nat.service, _Tuple(packet.protocol, chosen, key.source), key.destination)
        if packet.is_first_piece:
            _remember(nat.pieces, piece, (None, chosen))
        packets.rewrite(packet, destination=chosen)
        return True

    @staticmethod
    def _translate_error(error: Packet, nat: _Nat) -> None:
        """An ICMP error about a translated packet speaks of the address that its receiver knows."""
        inner = packets.quoted(error)
        if inner is None:
            return
        key = _key(inner)
        sent_to_client = nat.backend.get(_Tuple(key.protocol, key.destination, key.source))
        if sent_to_client is not None:  # a client's error about a reply: to the backend, in its terms
            packets.rewrite_quoted(error, source=sent_to_client)
            packets.readdress(error, destination=sent_to_client.address)
            return
        service = nat.service.get(_Tuple(key.protocol, key.destination, key.source))
        if service is not None:  # about a translated request: back to the client
            if error.source == key.destination.address:
                packets.readdress(error, source=service.address)
            packets.rewrite_quoted(error, destination=service)


def _remember(table: dict[_K, _V], key: _K, value: _V) -> None:
    """Adds to a table that forgets its oldest entries."""
    if len(table) >= _REMEMBERED:
        del table[next(iter(table))]
    table[key] = value


def _key(packet: Packet) -> _Tuple:
    return _Tuple(
        packet.protocol, _End(packet.source, packet.source_port), _End(packet.destination, packet.destination_port)
    )


def _lines(links: Iterable[Link]) -> Iterable[tuple[tuple[str, str], _Line]]:
    for link in links:
        start, end = link.between
        faulty = _Line(link.mtu, link.frag_needed, link.loss, link.delay_ms / 1000, link.jitter_ms / 1000)
        yield (start, end), faulty
        yield (end, start), _Line(1500, True, 0.0, 0.0, 0.0) if link.one_way else faulty


def _next_hops(lab: LabSpec) -> Mapping[tuple[str, str], str]:
    """The next router on a shortest way, for each pair."""
    near: dict[str, list[str]] = {name: [] for name in lab.routers}
    for link in lab.links:
        near[link.between[0]].append(link.between[1])
        near[link.between[1]].append(link.between[0])
    hops: dict[tuple[str, str], str] = {}
    for start in sorted(near):
        before: dict[str, str] = {start: start}
        queue = deque([start])
        while queue:
            here = queue.popleft()
            for there in sorted(near[here]):
                if there not in before:
                    before[there] = here
                    queue.append(there)
        for end in before:
            if end <= start:
                continue  # laid together with the way back, when the other end was the start
            way = [end]
            while way[-1] != start:
                way.append(before[way[-1]])
            way.reverse()
            for i, here in enumerate(way[:-1]):
                hops.setdefault((here, end), way[i + 1])
            for i, here in enumerate(way[1:], 1):
                hops.setdefault((here, start), way[i - 1])
    return hops


def _networks(ends: Iterable[str], lab: LabSpec) -> tuple[tuple[int, int], ...]:
    found = []
    for end in ends:
        network = ipaddress.IPv4Network(lab.hosts[end].address if end in lab.hosts else end)
        found.append((int(network.network_address), int(network.netmask)))
    return tuple(found)


def _filter(rule: Filter, lab: LabSpec) -> _Rule:
    return _Rule(
        action=rule.action,
        protocol=_PROTOCOLS.get(rule.protocol),
        sources=_networks(rule.sources, lab),
        destinations=_networks(rule.destinations, lab),
        ports=frozenset(rule.ports),
        icmp=frozenset(rule.icmp),
    )


def _deny(deny: Deny, lab: LabSpec) -> _Rule:
    return _Rule(
        action="drop",
        protocol=_PROTOCOLS.get(deny.protocol),
        sources=_networks(deny.sources, lab),
        destinations=_networks(deny.destinations, lab),
        ports=frozenset(deny.ports),
        except_sources=_networks(deny.except_sources, lab),
        except_destinations=_networks(deny.except_destinations, lab),
        except_ports=frozenset(deny.except_ports),
    )
