"""A small HTTPS server that answers as a Kubernetes API server does, in all the ways in which one can fail."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from mcdoctor.kube.config import connect
from mcdoctor.kube.transport import Api


def status(code: int, reason: str, message: str, **details: Any) -> dict[str, Any]:
    """A Status object in the shape of a 1.36 API server."""
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    return {**body, "reason": reason, **({"details": details} if details else {}), "code": code}


@dataclass
class Reply:
    code: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None  # send this many bytes of the body, then drop the connection
    drip: float | None = None  # seconds between bytes


@dataclass
class Request:
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    body: Any

    def header(self, name: str) -> list[str]:
        return [v for k, v in self.headers if k.lower() == name.lower()]

    def asked(self, name: str) -> str | None:
        return dict(self.query).get(name)


@dataclass
class Socket:
    """The server's end of a websocket."""

    raw: socket.socket
    request: Request

    def send(self, data: bytes, opcode: int = 2) -> None:
        size = len(data)
        head = bytes([0x80 | opcode])
        if size < 126:
            head += bytes([size])
        elif size < 1 << 16:
            head += b"\x7e" + struct.pack("!H", size)
        else:
            head += b"\x7f" + struct.pack("!Q", size)
        self.raw.sendall(head + data)

    def close(self, code: int = 1000) -> None:
        self.send(struct.pack("!H", code), 8)

    def receive(self) -> tuple[int, bytes] | None:
        head = self._exactly(2)
        if head is None:
            return None
        size = head[1] & 0x7F
        if size == 126:
            size = struct.unpack("!H", self._exactly(2) or b"\0\0")[0]
        elif size == 127:
            size = struct.unpack("!Q", self._exactly(8) or bytes(8))[0]
        mask = self._exactly(4) or bytes(4)
        data = self._exactly(size) or b""
        return head[0] & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(data))

    def _exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            piece = self.raw.recv(count - len(data))
            if not piece:
                return None
            data += piece
        return data


Route = Callable[[Request], "Reply | Callable[[Socket], None] | None"]


class FakeApi:
    """Routes by longest path prefix; the last one added wins. Unknown paths answer as an API server does."""

    def __init__(self, certificates: Path) -> None:
        self.requests: list[Request] = []
        self.routes: dict[str, Route] = {}
        self.folder = certificates
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def log_message(self, *_: Any) -> None:
                return

            def _any(self) -> None:
                parts = urlsplit(self.path)
                size = int(self.headers.get("Content-Length") or 0)
                text = self.rfile.read(size) if size else b""
                with suppress(ValueError):
                    text = json.loads(text)
                query = parse_qsl(parts.query)
                request = Request(self.command, parts.path, query, list(self.headers.items()), text)
                fake.requests.append(request)
                answer = fake.answer(request)
                if isinstance(answer, Reply):
                    self._reply(answer)
                else:
                    self._upgrade(request, answer)

            do_GET = do_POST = do_PATCH = do_DELETE = _any

            def _reply(self, reply: Reply) -> None:
                time.sleep(reply.delay)
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.code)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if reply.drip is not None:
                    for i in range(len(body)):
                        self.wfile.write(body[i : i + 1])
                        self.wfile.flush()
                        time.sleep(reply.drip)
                elif reply.cut is not None:
                    self.wfile.write(body[: reply.cut])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                else:
                    self.wfile.write(body)
                self.wfile.flush()

            def _upgrade(self, request: Request, talk: Callable[[Socket], None]) -> None:
                key = request.header("Sec-WebSocket-Key")[0]
                digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
                protocol = request.header("Sec-WebSocket-Protocol")[0].split(",")[0].strip()
                self.send_response(101)
                self.send_header("Upgrade", "websocket")
                self.send_header("Connection", "Upgrade")
                self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
                self.send_header("Sec-WebSocket-Protocol", protocol)
                self.end_headers()
                self.wfile.flush()
                with suppress(OSError):
                    talk(Socket(self.connection, request))
                self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                return  # clients that hang up are part of the tests

        self._server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def route(self, prefix: str, answer: Route | Reply | dict[str, Any]) -> None:
        if callable(answer):
            self.routes[prefix] = answer
        else:
            reply = answer if isinstance(answer, Reply) else Reply(body=answer)
            self.routes[prefix] = lambda _: reply

    def answer(self, request: Request) -> Any:
        for prefix in sorted(self.routes, key=len, reverse=True):
            if request.path.startswith(prefix):
                answer = self.routes[prefix](request)
                if answer is not None:
                    return answer
        if request.path == "/apis":
            return Reply(body={"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
        return Reply(404, b"404 page not found\n", {"Content-Type": "text/plain"})

    def asked(self, prefix: str, method: str | None = None) -> list[Request]:
        return [r for r in self.requests if r.path.startswith(prefix) and method in (None, r.method)]

    def kubeconfig(self, **user: Any) -> Path:
        path = self.folder / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "here",
                    "clusters": [
                        {
                            "name": "c",
                            "cluster": {"server": self.url, "certificate-authority": str(self.folder / "server.pem")},
                        }
                    ],
                    "users": [{"name": "u", "user": user or {"token": "t0ken"}}],
                    "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
                }
            )
        )
        return path

    def connect(self, **options: Any) -> Api:
        return connect("here", kubeconfig=str(self.kubeconfig()), **{"request_timeout": 2.0, **options})

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fake-api")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("api")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    return folder


@pytest.fixture
def fake(certificates: Path) -> Iterator[FakeApi]:
    server = FakeApi(certificates)
    yield server
    server.stop()


@pytest.fixture
def reply() -> type[Reply]:
    return Reply


@pytest.fixture
def failure() -> Callable[..., dict[str, Any]]:
    return status
