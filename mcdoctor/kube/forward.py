"""One HTTP GET to a port inside a pod, over the API server's port-forward."""

from __future__ import annotations

import http.client
import io
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mcdoctor.kube.errors import NoAnswer, one_line
from mcdoctor.kube.transport import Api

if TYPE_CHECKING:
    from websocket import WebSocket

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1


def http_get(api: Api, namespace: str, pod: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of `GET path` at the pod's port, sent from its loopback side.

    Raises transport.Refused when the API server refuses to forward, NoAnswer when the port does not answer HTTP.
    """
    socket = api.websocket(
        f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/portforward",
        [("ports", str(port))],
        [_PROTOCOL],
    )
    until = min(time.monotonic() + api.timeout, api.deadline)
    try:
        socket.settimeout(max(0.1, until - time.monotonic()))
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: localhost:{port}",
            "Accept: application/json, */*",
            "Connection: close",
        )
        socket.send_binary(bytes([_DATA]) + "\r\n".join((*lines, "", "")).encode("ascii"))
        response = http.client.HTTPResponse(_Incoming(socket, until), method="GET")  # type: ignore[arg-type]  # needs makefile only
        response.begin()
        return response.status, response.read()
    except _PortError as error:
        raise NoAnswer(f"port {port} of the pod: {one_line(str(error))}") from None
    except (OSError, http.client.HTTPException, UnicodeEncodeError) as error:
        raise NoAnswer(
            f"port {port} of the pod did not answer HTTP: {one_line(str(error) or type(error).__name__)}"
        ) from None
    finally:
        socket.shutdown()  # type: ignore[no-untyped-call]


class _PortError(Exception):
    """What the kubelet says when the port cannot be reached."""


class _Incoming(io.RawIOBase):
    """The data channel of a forwarded port as a readable stream."""

    def __init__(self, socket: WebSocket, until: float) -> None:
        self._socket = socket
        self._until = until
        self._rest = b""
        self._opened: set[int] = set()

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            frame = self._frame()
            if frame is None:
                return 0
            self._rest = frame
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _frame(self) -> bytes | None:
        import websocket

        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no complete answer in time")
        self._socket.settimeout(left)
        try:
            opcode, data = self._socket.recv_data()
        except websocket.WebSocketTimeoutException:
            raise TimeoutError("no complete answer in time") from None
        except websocket.WebSocketException:
            return None
        if opcode == websocket.ABNF.OPCODE_CLOSE or not data:
            return None
        channel, payload = data[0], data[1:]
        if channel not in self._opened:  # the first frame of each channel repeats the port
            self._opened.add(channel)
            return b"" if len(data) == 3 else self._accepted(channel, payload)
        return self._accepted(channel, payload)

    def _accepted(self, channel: int, payload: bytes) -> bytes:
        if channel == _ERROR and payload:
            raise _PortError(payload.decode("utf-8", "replace"))
        return payload
