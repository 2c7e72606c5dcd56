"""Real servers for the wire operations: DNS over UDP and TCP, raw TCP behaviours, TLS with certificates made here."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from mcdoctor.models.facts import Fact
from mcdoctor.models.requests import ProbeRequest
from mcdoctor.models.vantage import Vantage
from mcdoctor.net.operations import perform

HERE = Vantage(host="test")


@pytest.fixture
def ask() -> Callable[..., list[Fact]]:
    def run(request: ProbeRequest, budget: float = 10.0, vantage: Vantage = HERE) -> list[Fact]:
        return list(perform(request, vantage, budget))

    return run


class Server:
    """A TCP server that gives every connection to `talk` in a thread, and a count of connections."""

    def __init__(self, talk: Callable[[socket.socket], None], family: int = socket.AF_INET) -> None:
        self.talk = talk
        self.connections = 0
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.socket.listen(64)
        self.port: int = self.socket.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(connection)
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with contextlib.suppress(Exception):  # what the client did to it is the test's business
            self.talk(connection)
        with contextlib.suppress(OSError):
            connection.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(talk: Callable[[socket.socket], None], family: int = socket.AF_INET) -> Server:
        servers.append(Server(talk, family))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise ValueError("closed")
        data += more
    return data


@pytest.fixture
def reset() -> Callable[[socket.socket], None]:
    """Ends a connection with RST."""
    return _reset


@pytest.fixture
def read_request() -> Callable[[socket.socket], bytes]:
    """Reads to the end of an HTTP head."""
    return _read_request


# --- DNS -----------------------------------------------------------------------------------------------------------

DnsTalk = Callable[[dns.message.Message, bytes, str], bytes | list[bytes] | None]


class DnsServer:
    """UDP and TCP on one port; `talk(query, wire, transport)` gives the reply's bytes, several of them, or silence."""

    def __init__(self, talk: DnsTalk) -> None:
        self.talk = talk
        self.asked: list[tuple[str, dns.message.Message]] = []
        for _ in range(20):
            self.tcp = socket.socket()
            self.tcp.bind(("127.0.0.1", 0))
            self.port: int = self.tcp.getsockname()[1]
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self.udp.bind(("127.0.0.1", self.port))
                break
            except OSError:
                self.tcp.close()
                self.udp.close()
        self.tcp.listen(16)
        threading.Thread(target=self._udp, daemon=True).start()
        threading.Thread(target=self._tcp, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _replies(self, data: bytes, transport: str) -> list[bytes]:
        query = dns.message.from_wire(data)
        self.asked.append((transport, query))
        reply = self.talk(query, data, transport)
        return [] if reply is None else reply if isinstance(reply, list) else [reply]

    def _udp(self) -> None:
        while True:
            try:
                data, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            threading.Thread(target=self._one_udp, args=(data, peer), daemon=True).start()

    def _one_udp(self, data: bytes, peer: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            for reply in self._replies(data, "udp"):
                self.udp.sendto(reply, peer)

    def _tcp(self) -> None:
        while True:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                head = connection.recv(2)
                data = connection.recv(int.from_bytes(head, "big"))
                for reply in self._replies(data, "tcp"):
                    connection.sendall(len(reply).to_bytes(2, "big") + reply)
                time.sleep(0.01)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.tcp.shutdown(socket.SHUT_RDWR)
        self.tcp.close()
        self.udp.close()


@pytest.fixture
def dns_server() -> Iterator[Callable[[DnsTalk], DnsServer]]:
    servers: list[DnsServer] = []

    def start(talk: DnsTalk) -> DnsServer:
        servers.append(DnsServer(talk))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def _answer(
    query: dns.message.Message,
    *records: str,
    rcode: int = dns.rcode.NOERROR,
    authority: tuple[str, ...] = (),
    truncated: bool = False,
) -> bytes:
    """A reply with records in master-file form."""
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.RA
    if truncated:
        reply.flags |= dns.flags.TC
    reply.set_rcode(rcode)
    for section, lines in ((reply.answer, records), (reply.authority, authority)):
        for line in lines:
            name, ttl, _, kind, data = line.split(" ", 4)
            section.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    return reply.to_wire()


@pytest.fixture
def answer() -> Callable[..., bytes]:
    return _answer


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`server`: chain and key of api.example and *.wild.example, issued by `ca`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder = tmp_path_factory.mktemp("certificates")
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    def name(text: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "mcdoctor test"),
                x509.NameAttribute(NameOID.COMMON_NAME, text),
            ]
        )

    def make(
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        signer: ec.EllipticCurvePrivateKey,
        sans: list[x509.GeneralName],
        ca: bool,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        return builder.sign(signer, hashes.SHA256())

    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = make("test root", root_key, "test root", root_key, [], True)
    sans: list[x509.GeneralName] = [
        x509.DNSName("api.example"),
        x509.DNSName("*.wild.example"),
        x509.UniformResourceIdentifier("spiffe://cluster.local/ns/shop/sa/backend"),
    ]
    leaf = make("api", leaf_key, "test root", root_key, sans, False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(root.public_bytes(pem))
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(leaf.public_bytes(pem) + root.public_bytes(pem) + key)
    return {"ca": folder / "ca.pem", "server": folder / "server.pem"}


@pytest.fixture
def serve_tls(serve: Callable[..., Server], certificates: dict[str, Path]) -> Callable[..., Server]:
    """A TLS server; `adjust` changes its context, `talk` gets the TLS socket."""

    def start(
        adjust: Callable[[ssl.SSLContext], None] = lambda _: None,
        talk: Callable[[ssl.SSLSocket], None] = lambda tls: tls.recv(1) and None,
    ) -> Server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates["server"])
        adjust(context)

        def one(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as tls:
                talk(tls)

        return serve(one)

    return start
