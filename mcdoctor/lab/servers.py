"""The servers of a host: DNS, HTTP, HTTPS and plain TCP, on one asyncio loop."""

from __future__ import annotations

import asyncio
import http
import os
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never, cast

if TYPE_CHECKING:
    import dns.message
    import dns.name
    import dns.rdatatype

    from mcdoctor.lab.schema import DnsFault, DnsServer, Host, HttpServer, Route, TcpServer, Tls

_HEAD_LIMIT = 256 * 1024
_Certificates = Mapping[int, bytes]


async def serve(host: Host, certificates: _Certificates) -> None:
    """Starts all servers of a host; returns when they listen. Raises OSError when one cannot.

    `certificates`: port → key and certificate as PEM.
    """
    for web in host.http:
        context = _context(web.tls, certificates[web.port]) if web.tls else None
        name = f"{host.cluster}/{host.pod.partition('/')[2]}" if host.pod else host.address
        await asyncio.start_server(_Http(web, name).serve, web.bind, web.port, ssl=context, limit=_HEAD_LIMIT)
    for plain in host.tcp:
        await asyncio.start_server(_Tcp(plain).serve, plain.bind, plain.port)
    for number, names in enumerate(host.dns):
        await _Dns(names, random.Random(number)).start()


def on_trouble(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handler of what goes wrong on a loop of servers: a client's broken connection is no news, all else is."""
    if not isinstance(context.get("exception"), (OSError, TimeoutError)):  # SSLError is an OSError
        loop.default_exception_handler(context)


def _context(tls: Tls, pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(list(tls.alpn))
    handle = os.memfd_create("certificate")  # OpenSSL only loads files; this one has no name to clean up
    try:
        os.write(handle, pem)
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
    return context


@dataclass(slots=True)
class _Http:
    server: HttpServer
    name: str

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError, ValueError):
            while await self._one(reader, writer):
                pass
        with suppress(OSError, ssl.SSLError):
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; True when the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        words = head[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            return False
        method, target, version = words
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        left = int(headers.get("content-length", "0"))
        if left and headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while left > 0:
            part = await reader.read(min(left, 65536))
            if not part:
                return False
            left -= len(part)
        route = self._route(target.partition("?")[0])
        if route is not None:
            if route.delay_ms:
                await asyncio.sleep(route.delay_ms / 1000)
            if route.hang:
                await reader.read()
                return False
            if route.close:
                return False
        status = route.status if route else 404
        body = (b"ok\n" * (route.body_bytes // 3 + 1))[: route.body_bytes] if route else b"no such page\n"
        keep = headers.get("connection", "").lower() != "close" and version != "HTTP/1.0"
        phrase = http.HTTPStatus(status).phrase if status in http.HTTPStatus.__members__.values() else "Unknown"
        lines = [
            f"HTTP/1.1 {status} {phrase}",
            "server: shop",
            "content-type: text/plain",
            f"content-length: {len(body)}",
            f"x-served-by: {self.name}",
            f"connection: {'keep-alive' if keep else 'close'}",
            *(f"{name}: {value}" for name, value in (route.headers if route else {}).items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if method == "HEAD" else body))
        await writer.drain()
        return keep

    def _route(self, path: str) -> Route | None:
        for route in self.server.routes:
            fits = path.startswith(route.path[:-1]) if route.path.endswith("*") else path == route.path
            if fits and (route.share >= 1 or random.random() < route.share):
                return route
        return None


@dataclass(slots=True)
class _Tcp:
    server: TcpServer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            if self.server.reset:
                opened: socket.socket = writer.get_extra_info("socket")
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            if self.server.banner:
                writer.write(self.server.banner.encode())
            while data := await reader.read(65536):
                if self.server.echo:
                    writer.write(data)
                    await writer.drain()
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: _Dns) -> None:
        self.server = server
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(data, addr))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = await self.server.answer(data, "udp")
        if answer is not None:
            self.transport.sendto(answer, addr)


@dataclass(slots=True)
class _Dns:
    server: DnsServer
    random: random.Random
    asked: Counter[tuple[int, str]] = field(default_factory=Counter)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        if "udp" in self.server.transports:
            await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=(self.server.bind, self.server.port)
            )
        if "tcp" in self.server.transports:
            await asyncio.start_server(self._stream, self.server.bind, self.server.port)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
                answer = await self.answer(await reader.readexactly(size), "tcp")
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        with suppress(OSError):
            writer.close()

    async def answer(self, wire: bytes, transport: str) -> bytes | None:
        """The answer to a query in wire form; None for silence."""
        import dns.exception
        import dns.flags
        import dns.message
        import dns.rcode
        import dns.rdatatype

        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            return None
        if query.flags & dns.flags.QR or len(query.question) != 1:
            return None
        response = dns.message.make_response(query, recursion_available=True, our_payload=1232)
        question = query.question[0]
        fault = self._fault(question.name.to_text(omit_final_dot=True).lower(), question.rdtype, transport)
        if fault is not None and fault.delay_ms:
            await asyncio.sleep(fault.delay_ms / 1000)
        behaviour = fault.behaviour if fault is not None else "answer"
        match behaviour:
            case "silent":
                return None
            case "nxdomain":
                response.set_rcode(dns.rcode.NXDOMAIN)
                self._deny(response, question.name)
            case "servfail":
                response.set_rcode(dns.rcode.SERVFAIL)
            case "refused":
                response.set_rcode(dns.rcode.REFUSED)
            case "empty":
                self._deny(response, question.name)
            case "truncated":
                if transport == "udp":
                    response.flags |= dns.flags.TC
                elif not await self._look_up(response, question.name, question.rdtype):
                    return None
            case "answer":
                if not await self._look_up(response, question.name, question.rdtype):
                    return None
            case _:
                assert_never(behaviour)
        limit = 65535 if transport == "tcp" else max(512, query.payload) if query.edns >= 0 else 512
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            short = dns.message.make_response(query, recursion_available=True)
            short.flags |= dns.flags.TC
            return short.to_wire()

    def _fault(self, name: str, kind: int, transport: str) -> DnsFault | None:
        for number, fault in enumerate(self.server.faults):
            if fault.names and not any(_covers(pattern, name) for pattern in fault.names):
                continue
            if fault.types and _type_text(kind) not in fault.types:
                continue
            if fault.transport not in ("any", transport):
                continue
            if fault.every:
                self.asked[number, name] += 1
                if self.asked[number, name] % fault.every:
                    continue
            if fault.share < 1 and self.random.random() >= fault.share:
                continue
            return fault
        return None

    async def _look_up(self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> bool:
        """Fills in the answer, from records, zones or another server. False: stay silent."""
        import dns.flags
        import dns.rcode

        for _ in range(8):  # CNAMEs
            text = name.to_text(omit_final_dot=True).lower()
            zone = _closest(text, self.server.zones)
            records = self._records(text)
            if records is None and zone is None:
                servers = _closest(text, self.server.forward)
                if servers is not None:
                    await self._forward(response, name, kind, self.server.forward[servers])
                    return True
                if self.server.otherwise == "silent":
                    return False
                codes = {"nxdomain": "NXDOMAIN", "servfail": "SERVFAIL", "refused": "REFUSED"}
                response.set_rcode(dns.rcode.from_text(codes[self.server.otherwise]))
                return True
            response.flags |= dns.flags.AA
            if records is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                self._deny(response, name)
                return True
            target = self._add(response, name, kind, records)
            if target is None:
                return True
            name = target
        response.set_rcode(dns.rcode.SERVFAIL)
        return True

    def _add(
        self, response: dns.message.Message, name: dns.name.Name, kind: int, records: tuple[str, ...]
    ) -> dns.name.Name | None:
        """Adds the records of a name that fit; the target where a CNAME leads on."""
        import dns.rdatatype
        import dns.rrset

        by_type: dict[str, list[str]] = {}
        for record in records:
            word, _, value = record.partition(" ")
            by_type.setdefault(word, []).append(value)
        wanted = _type_text(kind)
        use = "CNAME" if "CNAME" in by_type and wanted != "CNAME" else wanted
        if use not in by_type:
            self._deny(response, name)
            return None
        values = by_type[use]
        self.random.shuffle(values)
        rrset = dns.rrset.from_text_list(name, self.server.ttl, "IN", use, values)
        response.answer.append(rrset)
        return rrset[0].target if use == "CNAME" and wanted != "CNAME" else None

    def _records(self, name: str) -> tuple[str, ...] | None:
        records = self.server.records
        if name in records:
            return records[name]
        parent = name.partition(".")[2]
        while parent:
            if f"*.{parent}" in records:
                return records[f"*.{parent}"]
            parent = parent.partition(".")[2]
        return None

    def _deny(self, response: dns.message.Message, name: dns.name.Name) -> None:
        """The SOA that goes with a denial, when the name is in a zone of this server."""
        import dns.rrset

        zone = _closest(name.to_text(omit_final_dot=True).lower(), self.server.zones)
        if zone is not None:
            soa = f"ns.dns.{zone}. hostmaster.{zone}. 1 7200 1800 86400 {self.server.ttl}"
            response.authority.append(dns.rrset.from_text(f"{zone}.", self.server.ttl, "IN", "SOA", soa))

    async def _forward(
        self,
        response: dns.message.Message,
        name: dns.name.Name,
        kind: dns.rdatatype.RdataType,
        servers: tuple[str, ...],
    ) -> None:
        """Asks another server over UDP, as CoreDNS' forward does; silence there is SERVFAIL here."""
        import dns.flags
        import dns.message
        import dns.rcode

        address, _, port = self.random.choice(servers).partition(":")
        query = dns.message.make_query(name, kind)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            try:
                channel.connect((address, int(port or 53)))
                channel.send(query.to_wire())
                wire = await asyncio.wait_for(loop.sock_recv(channel, 4096), self.server.forward_timeout_ms / 1000)
                reply = dns.message.from_wire(wire)
            except (OSError, TimeoutError, ValueError):
                response.set_rcode(dns.rcode.SERVFAIL)
                return
        response.set_rcode(reply.rcode())
        response.answer.extend(reply.answer)
        response.authority.extend(reply.authority)


def _type_text(kind: int) -> str:
    import dns.rdatatype

    return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(kind))


def _covers(pattern: str, name: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _closest(name: str, zones: Mapping[str, object] | tuple[str, ...]) -> str | None:
    """The longest zone that a name is in; `.` holds every name."""
    fitting = [zone for zone in zones if zone in (".", name) or name.endswith("." + zone)]
    return max(fitting, key=len, default=None)
