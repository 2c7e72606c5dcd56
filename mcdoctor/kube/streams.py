"""stdin and stdout of a process in a container as one local socket, over attach or exec."""

from __future__ import annotations

import contextlib
import io
import json
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mcdoctor.kube.errors import one_line
from mcdoctor.kube.transport import Api

if TYPE_CHECKING:
    from websocket import WebSocket

_STDIN, _STDOUT, _STDERR, _STATUS, _CLOSE = 0, 1, 2, 3, 255
_V5, _V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_PIECE = 32 * 1024
_BACKLOG = 4 << 20
_UNANSWERED = 3
_PING = 10.0  # proxies in front of API servers drop connections that stay quiet for a minute


def attach(api: Api, namespace: str, pod: str, container: str) -> ProcessStream:
    """Attaches to a running container. Raises transport.Refused and NoAnswer."""
    return _open(api, namespace, pod, "attach", [("container", container)])


def execute(api: Api, namespace: str, pod: str, container: str, command: Sequence[str]) -> ProcessStream:
    """Starts a process in a container. Raises transport.Refused and NoAnswer."""
    return _open(api, namespace, pod, "exec", [("container", container), *(("command", word) for word in command)])


def _open(api: Api, namespace: str, pod: str, how: str, query: list[tuple[str, str]]) -> ProcessStream:
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/{how}"
    streams = [("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("tty", "false")]
    return ProcessStream(api.websocket(path, [*query, *streams], [_V5, _V4]))


class Input:
    """The stdin of a process as a writer; closing it is end of file there."""

    def __init__(self, stream: ProcessStream) -> None:
        self._stream = stream

    def write(self, data: bytes, /) -> int:
        self._stream.local.sendall(data)
        return len(data)

    def flush(self) -> None:
        return

    def close(self) -> None:
        self._stream.end_input()


class ProcessStream:
    """A process's standard streams. `local` is our end of a socket: what is written there is its stdin, what it writes
    to stdout is read there, whole and in order; end of file when it ended or the connection was lost.

    One thread owns the websocket, since a TLS connection must not be used by two at once.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self.local, self._inner = socket.socketpair()
        self._inner.setblocking(False)
        self._websocket = websocket
        self._websocket.settimeout(10.0)
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._stderr: deque[bytes] = deque(maxlen=64)
        self._status: dict[str, Any] | None = None
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._carry, name="mcdoctor process stream", daemon=True)
        self._thread.start()

    @property
    def stderr(self) -> str:
        """The end of what the process wrote to stderr."""
        return b"".join(self._stderr).decode("utf-8", "replace")[-4000:]

    @property
    def exit_code(self) -> int | None:
        """The process's exit code where the server told it (exec does, attach does not always)."""
        status = self._status
        if status is None:
            return None
        if status.get("status") == "Success":
            return 0
        for cause in (status.get("details") or {}).get("causes") or []:
            if cause.get("reason") == "ExitCode":
                try:
                    return int(cause["message"])
                except (KeyError, ValueError):
                    return None
        return None

    @property
    def ending(self) -> str | None:
        """Why the stream ended, one line; None while it lasts."""
        if not self._ended.is_set():
            return None
        if self._lost:
            return self._lost
        if self._status is not None and self._status.get("status") != "Success":
            return one_line(str(self._status.get("message") or "the process failed"))
        return "the process ended"

    @property
    def reader(self) -> io.BufferedReader:
        """The process's stdout."""
        return self.local.makefile("rb")

    @property
    def writer(self) -> Input:
        """The process's stdin."""
        return Input(self)

    def wait(self, timeout: float) -> bool:
        """True when the stream has ended within the time."""
        return self._ended.wait(timeout)

    def end_input(self) -> None:
        """End of file on the process's stdin (where the server speaks v5; older ones learn it by `close`)."""
        try:
            self.local.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """Lets go of the connection; safe to call twice."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self.local.shutdown(socket.SHUT_RDWR)
        self._ended.wait(2.0)
        self.local.close()

    # --- the thread ---

    def _carry(self) -> None:
        from websocket import WebSocketException

        try:
            self._loop()
        except (WebSocketException, OSError, ValueError) as error:
            if not self._closing.is_set():
                self._lost = f"the connection to the container was lost: {one_line(str(error) or type(error).__name__)}"
        finally:
            with contextlib.suppress(OSError):
                self._inner.shutdown(socket.SHUT_RDWR)
            self._inner.close()
            self._ended.set()
            with contextlib.suppress(WebSocketException, OSError):
                self._websocket.close(timeout=1)

    def _loop(self) -> None:
        wire = self._websocket.sock
        assert wire is not None
        waiting = bytearray()
        input_open = True
        heard = pinged = time.monotonic()
        unanswered = 0
        while not self._closing.is_set():
            poll = select.poll()
            if len(waiting) < _BACKLOG:
                poll.register(wire, select.POLLIN)
            wanted = (select.POLLIN if input_open else 0) | (select.POLLOUT if waiting else 0)
            poll.register(self._inner, wanted)  # with no event wanted, closing still wakes us
            ready = dict(poll.poll(min(1.0, _PING / 2) * 1000))
            now = time.monotonic()
            buffered = isinstance(wire, ssl.SSLSocket) and wire.pending() > 0
            inner = ready.get(self._inner.fileno(), 0)
            if inner & select.POLLIN and input_open:
                piece = self._inner.recv(_PIECE)
                if piece:
                    self._websocket.send_binary(bytes([_STDIN]) + piece)
                else:
                    input_open = False
                    if self._websocket.getsubprotocol() == _V5:
                        self._websocket.send_binary(bytes([_CLOSE, _STDIN]))
            while (ready.get(wire.fileno()) or buffered) and len(waiting) < _BACKLOG:
                heard, unanswered = now, 0
                if not self._frame(waiting):
                    self._flush(waiting)
                    return
                ready.pop(wire.fileno(), None)
                buffered = isinstance(wire, ssl.SSLSocket) and wire.pending() > 0
            if waiting:
                with contextlib.suppress(BlockingIOError):
                    del waiting[: self._inner.send(waiting)]
            if now - max(heard, pinged) > _PING:
                if unanswered == _UNANSWERED:
                    raise OSError(f"nothing was heard for {now - heard:.0f} s")
                self._websocket.ping()
                pinged, unanswered = now, unanswered + 1

    def _frame(self, waiting: bytearray) -> bool:
        """Takes one frame; false when the stream is over."""
        from websocket import ABNF, WebSocketConnectionClosedException, WebSocketTimeoutException

        try:
            opcode, data = self._websocket.recv_data(control_frame=True)
        except WebSocketTimeoutException:
            return True  # a frame that comes slowly: the rest will follow
        except WebSocketConnectionClosedException:
            if self._status is None and not self._closing.is_set():
                self._lost = "the connection to the container was lost"
            return False
        if opcode == ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1000
            if code not in (1000, 1005) and self._status is None:
                self._lost = (
                    f"the API server closed the connection ({code} {one_line(data[2:].decode('utf-8', 'replace'))})"
                )
            return False
        if opcode not in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) or not data:
            return True
        channel, payload = data[0], data[1:]
        if channel == _STDOUT:
            waiting += payload
        elif channel == _STDERR:
            self._stderr.append(payload)
        elif channel == _STATUS and payload:
            try:
                status = json.loads(payload)
            except ValueError:
                status = {"status": "Failure", "message": payload.decode("utf-8", "replace")}
            self._status = status if isinstance(status, dict) else {}
        return True

    def _flush(self, waiting: bytearray) -> None:
        """What came before the end still reaches the reader."""
        self._inner.settimeout(5.0)
        self._inner.sendall(waiting)
