"""A proxy in front of an API server that fails the way API servers fail, and counts what passes.

It ends TLS with a certificate of the cluster's own authority, so kubeconfigs made by `kubeconfig` trust it, and passes
bearer tokens and impersonation headers on. One request a connection; upgrades (exec, attach) become a tunnel.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from mcrig import pki
from mcrig.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answers `status` itself, with a Status object as the API server writes it. 401 is what an expired token meets."""

    status: int
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Slow:
    """Waits this many seconds before the request goes on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CutBody:
    """Resets the connection after this many bytes of the body."""

    after: int


@dataclass(frozen=True, slots=True)
class Die:
    """From this request on nobody listens any more, and every open connection is reset."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Cuts the connection, both ways, this many seconds after the request came; the others go on."""

    after: float


Fault = Refuse | Slow | CutBody | Die | Drop


@dataclass(slots=True)
class Rule:
    """Applies `fault` to requests whose `METHOD path` matches, after letting `skip` of them pass, `times` times."""

    fault: Fault
    pattern: str = ""
    skip: int = 0
    times: int | None = None


@dataclass(slots=True)
class Seen:
    """A request that reached the proxy, with the bytes of request and answer so far (heads included, TLS not)."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int
    received: int = 0
    status: int | None = None
    at: float = dataclasses.field(default_factory=time.time)


@dataclass(slots=True)
class FaultProxy:
    """Runs in a thread of its own from creation to `close`; `rules` and `seen` may be used from any thread."""

    cluster: Cluster
    rules: list[Rule] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    port: int = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop, init=False)
    _thread: threading.Thread = field(init=False)
    _server: asyncio.Server = field(init=False)
    _open: set[asyncio.StreamWriter] = field(default_factory=set, init=False)
    _closing: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        folder = self.cluster.pki
        if not (folder / "fault-proxy.crt").exists():
            pki.Authority.load(folder).issue("fault-proxy", "fault-proxy", hosts=("127.0.0.1", "localhost"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "fault-proxy.crt", folder / "fault-proxy.key")
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context, backlog=128)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nobody listens any more; open connections are reset. From any thread, any number of times, also at once."""
        # A second caller waits for the first: what it handed to a loop that has just stopped would never run.
        with self._closing:
            if self._loop.is_closed():
                return
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def reset(self) -> None:
        """Forgets rules and counts."""
        self.rules.clear()
        self.seen.clear()

    @property
    def requests(self) -> int:
        return len(self.seen)

    @property
    def bytes(self) -> int:
        return sum(seen.sent + seen.received for seen in self.seen)

    # -- inside the loop

    def _die(self) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _end(self) -> None:
        self._die()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _pick(self, line: str) -> Iterator[Fault]:
        for rule in self.rules:
            if not re.search(rule.pattern, line):
                continue
            if rule.skip > 0:
                rule.skip -= 1
            elif rule.times is None or rule.times > 0:
                if rule.times is not None:
                    rule.times -= 1
                yield rule.fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._server.is_serving():  # its handshake was under way when the proxy died
            writer.transport.abort()
            return
        self._open.add(writer)
        # A client that goes away in the middle is its own business; being cancelled is how `_end` ends us.
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            await self._one(reader, writer)
        self._open.discard(writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        fields = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(method, path, headers, len(head) + len(body))
        self.seen.append(seen)
        cut: int | None = None
        for fault in self._pick(f"{method} {path}"):
            match fault:
                case Refuse():
                    answer = _status(fault)
                    seen.received, seen.status = len(answer), fault.status
                    writer.write(answer)
                    await writer.drain()
                    return
                case Slow():
                    await asyncio.sleep(fault.seconds)
                case CutBody():
                    cut = fault.after
                case Die():
                    self._die()
                    return
                case Drop():
                    self._loop.call_later(fault.after, writer.transport.abort)
                case _:
                    assert_never(fault)
        upgrade = "upgrade" in headers
        if not upgrade:
            lines = [*(line for line in lines if not line.lower().startswith("connection:")), "Connection: close"]
        trust = ssl.create_default_context(cafile=str(self.cluster.pki / "ca.crt"))
        far = await asyncio.open_connection("127.0.0.1", self.cluster.site.port, ssl=trust)
        self._open.add(far[1])
        try:
            far[1].write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            await far[1].drain()
            towards_server = asyncio.ensure_future(_pump(reader, far[1])) if upgrade else None
            await _answer(far[0], writer, cut, seen)
            if towards_server:
                towards_server.cancel()
        finally:
            self._open.discard(far[1])
            far[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: int | None, seen: Seen) -> None:
    """Carries the answer to the client, whole or up to `cut` bytes of its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    seen.status = int(head.split(b" ", 2)[1])
    seen.received = len(head)
    writer.write(head)
    left = cut
    while chunk := await reader.read(65536 if left is None else min(left, 65536)):
        seen.received += len(chunk)
        writer.write(chunk)
        await writer.drain()
        if left is not None:
            left -= len(chunk)
            if left == 0:
                # What was sent shall arrive before the connection breaks.
                await asyncio.sleep(0.05)
                writer.transport.abort()
                return


_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


def _status(fault: Refuse) -> bytes:
    reason = _REASONS.get(fault.status, "InternalError")
    text = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason, "reason": reason,
        "code": fault.status,
    }  # fmt: skip
    if fault.retry_after is not None:
        text["details"] = {"retryAfterSeconds": fault.retry_after}
    body = json.dumps(text).encode()
    lines = [f"HTTP/1.1 {fault.status} {reason}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    if fault.retry_after is not None:
        lines.append(f"Retry-After: {fault.retry_after}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def kubeconfig(path: Path, proxies: dict[str, FaultProxy], namespace: str = "demo") -> Path:
    """Writes a kubeconfig that reaches each context through its proxy, with a token of an administrator."""
    entries = {}
    for name, proxy in proxies.items():
        entries[name] = (proxy.cluster.pki / "ca.crt", proxy.server, admin_token(proxy.cluster))
    pki.token_kubeconfig(path, entries, namespace)
    return path


def admin_token(cluster: Cluster) -> str:
    """A token of a service account that may do everything; an administrator's certificate would not pass the proxy."""
    cluster.kubectl("create", "serviceaccount", "rig-admin", "-n", "kube-system", check=False)
    binding = ("create", "clusterrolebinding", "rig-admin", "--clusterrole=cluster-admin")
    cluster.kubectl(*binding, "--serviceaccount=kube-system:rig-admin", check=False)
    return cluster.kubectl("create", "token", "rig-admin", "-n", "kube-system", "--duration=24h").strip()
