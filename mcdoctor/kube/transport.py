"""HTTP and websockets to one API server: the official client's configuration, our deadlines and retries."""

from __future__ import annotations

import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from mcdoctor.kube.errors import Answer, KubeConfigError, NoAnswer, one_line

if TYPE_CHECKING:
    from websocket import WebSocket

CONNECT_TIMEOUT = 5.0
SILENCE = 30.0
"""Seconds for which a server that stayed silent twice in a row is not asked again."""

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom to act as (`--as`, `--as-group`, or the user entry of the kubeconfig)."""

    user: str | None = None
    groups: tuple[str, ...] = ()
    uid: str | None = None
    extra: tuple[tuple[str, str], ...] = ()

    def headers(self) -> list[tuple[str, str]]:
        """Impersonation headers; a group each has its own."""
        pairs = [("Impersonate-User", self.user)] if self.user else []
        pairs += [("Impersonate-Group", g) for g in self.groups]
        pairs += [("Impersonate-Uid", self.uid)] if self.uid else []
        pairs += [(f"Impersonate-Extra-{key}", value) for key, value in self.extra]
        return pairs


class Api:
    """One API server, asked as one identity. Safe to use from several threads."""

    def __init__(
        self,
        configuration: Any,
        *,
        context: str,
        namespace: str = "default",
        identity: Identity | None = None,
        timeout: float = 15.0,
        deadline: float = float("inf"),
        authorise: Callable[[], Mapping[str, str]] | None = None,
        kubeconfig: str | None = None,
    ) -> None:
        """`configuration`: a `kubernetes.client.Configuration`. `timeout`: seconds for one request (0: none).

        `deadline`: on the monotonic clock; nothing is waited for beyond it. `authorise`: gives the authentication
        headers of a request. Raises KubeConfigError when certificates cannot be loaded.
        """
        from kubernetes.client.rest import RESTClientObject

        self.context = context
        self.namespace = namespace
        self.identity = identity or Identity()
        self.timeout = timeout or 3600.0
        self.deadline = deadline
        self.kubeconfig = kubeconfig
        self._configuration = configuration
        self._authorise = authorise or (lambda: {})
        self._lock = threading.Lock()
        self._silent = 0
        self._silent_until = 0.0
        self._silent_text = ""
        if not configuration.verify_ssl:
            import urllib3

            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user's kubeconfig asks for it
        try:
            self._pool = RESTClientObject(configuration).pool_manager
        except Exception as error:  # proxies and certificates fail here in as many ways as there are libraries
            raise KubeConfigError(f"context {context!r}: {one_line(str(error))}") from None

    @property
    def server(self) -> str:
        """The server's URL."""
        return str(self._configuration.host)

    def left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def close(self) -> None:
        self._pool.clear()

    # --- HTTP ---

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Any = None,
        content_type: str = "application/json",
        timeout: float | None = None,
        last_words: bool = False,
    ) -> Answer:
        """One request with its retries; any HTTP status is an answer. Raises NoAnswer.

        429 is tried again after the server's Retry-After while the deadline allows; a GET also once after 5xx or a
        dropped connection. `last_words`: cleaning up, which has `timeout` seconds of its own beyond the deadline.
        """
        limit = timeout or self.timeout
        end = time.monotonic() + limit if last_words else self.deadline
        again = method == "GET"
        polite = 5
        while True:
            self._not_silent()
            try:
                answer = self._once(method, path, query, body, content_type, limit, end)
            except NoAnswer as failure:
                self._heard(failure)
                if again and not failure.silent and _dropped(failure) and end - time.monotonic() > 0.1:
                    again = False
                    continue
                raise
            self._heard(None)
            if answer.status == 429 and polite:
                polite -= 1
                pause = 1.0 if answer.retry_after is None else answer.retry_after
            elif answer.status in (500, 502, 503, 504) and again:
                again = False
                pause = 0.2 if answer.retry_after is None else answer.retry_after
            else:
                return answer
            pause += random.uniform(0, 0.05)
            if time.monotonic() + pause > min(end, time.monotonic() + 30):
                return answer
            time.sleep(pause)

    def get(self, path: str, query: Query = (), *, timeout: float | None = None) -> Answer:
        return self.request("GET", path, query=query, timeout=timeout)

    def _once(
        self, method: str, path: str, query: Query, body: Any, content_type: str, limit: float, end: float
    ) -> Answer:
        import urllib3

        until = min(time.monotonic() + limit, end)
        left = until - time.monotonic()
        if left <= 0:
            raise NoAnswer("the run's deadline had passed")
        headers = urllib3.HTTPHeaderDict({"Accept": "application/json", **self._authorise()})
        for name, value in self.identity.headers():
            headers.add(name, value)
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            response = self._pool.request(
                method,
                self.server + path + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT, left), read=left),
                preload_content=False,
                redirect=False,
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._explained(error, left) from None
        content = bytearray()
        try:
            while chunk := response.read1(1 << 18):
                content += chunk
                if time.monotonic() > until:
                    response.close()
                    raise NoAnswer(f"the answer was not complete within {limit:.0f} s", silent=True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            response.close()
            if isinstance(error, urllib3.exceptions.ReadTimeoutError):
                raise NoAnswer(f"the answer stopped after {len(content)} bytes", silent=True) from None
            raise NoAnswer(f"the answer was cut off after {len(content)} bytes") from None
        response.release_conn()
        return Answer(response.status, bytes(content), _seconds(response.headers.get("Retry-After")))

    def _explained(self, error: Exception, waited: float) -> NoAnswer:
        from urllib3 import exceptions

        place = self.place
        match error:
            case exceptions.NameResolutionError():
                return NoAnswer(f"the API server's name in {self.server} does not resolve")
            case exceptions.NewConnectionError():
                return NoAnswer(f"no connection to {place}: {_deepest(error)}")
            case exceptions.ConnectTimeoutError():
                return NoAnswer(f"no connection to {place} within {min(CONNECT_TIMEOUT, waited):.0f} s", silent=True)
            case exceptions.ReadTimeoutError():
                return NoAnswer(f"{place} did not answer within {waited:.0f} s", silent=True)
            case exceptions.ProxyError():
                return NoAnswer(f"the proxy in front of {place} failed: {_deepest(error)}")
            case exceptions.SSLError() | ssl.SSLError():
                return NoAnswer(f"TLS with {place} failed: {_deepest(error)}")
            case exceptions.ProtocolError():
                return NoAnswer(f"{place} dropped the connection")
            case _:
                return NoAnswer(f"{place} cannot be asked: {_deepest(error)}")

    @property
    def place(self) -> str:
        """Host and port of the server, for messages."""
        return urlsplit(self.server).netloc or self.server

    def _not_silent(self) -> None:
        with self._lock:
            if time.monotonic() < self._silent_until:
                raise NoAnswer(f"{self._silent_text}; not asked again")

    def _heard(self, failure: NoAnswer | None) -> None:
        """A server that lets time-outs pass twice in a row is left alone for a while: each costs seconds of the run."""
        with self._lock:
            if failure is None or not failure.silent:
                self._silent = 0
                return
            self._silent += 1
            if self._silent >= 2:
                self._silent = 0
                self._silent_text = str(failure)
                self._silent_until = time.monotonic() + SILENCE

    # --- websockets ---

    def websocket(self, path: str, query: Query, protocols: Sequence[str], *, timeout: float = 10.0) -> WebSocket:
        """An open websocket with authentication and impersonation, which the official client drops there.

        Raises Refused with the server's HTTP answer, or NoAnswer.
        """
        import websocket

        headers = [f"{name}: {value}" for name, value in (*self._authorise().items(), *self.identity.headers())]
        scheme, _, rest = self.server.partition("://")
        url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}{path}?{urlencode(query)}"
        options: dict[str, Any] = {"header": headers, "subprotocols": list(protocols), "suppress_origin": True}
        options |= self._proxy()
        try:
            socket = websocket.WebSocket(sslopt=self._tls() if scheme == "https" else None, skip_utf8_validation=True)
            socket.settimeout(min(timeout, max(self.left(), 2.0)))  # also after the deadline: to end something
            socket.connect(url, **options)  # type: ignore[no-untyped-call]
        except websocket.WebSocketBadStatusException as error:
            raise Refused(Answer(int(error.status_code), bytes(error.resp_body or b""))) from None
        except (TimeoutError, websocket.WebSocketTimeoutException):
            raise NoAnswer(f"{self.place} did not open a websocket within {timeout:.0f} s", silent=True) from None
        except (OSError, ValueError, websocket.WebSocketException) as error:
            raise NoAnswer(f"no websocket to {self.place}: {_deepest(error)}") from None
        return socket

    def _tls(self) -> dict[str, Any]:
        c = self._configuration
        options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED if c.verify_ssl else ssl.CERT_NONE}
        if not c.verify_ssl:
            options["check_hostname"] = False
        elif c.ssl_ca_cert:
            options["ca_certs"] = c.ssl_ca_cert
        if c.cert_file:
            options["certfile"] = c.cert_file
        if c.key_file:
            options["keyfile"] = c.key_file
        if name := getattr(c, "tls_server_name", None):
            options["server_hostname"] = name
        return options

    def _proxy(self) -> dict[str, Any]:
        if not self._configuration.proxy:
            return {"http_no_proxy": ["*"]}
        proxy = urlsplit(self._configuration.proxy)
        options: dict[str, Any] = {
            "http_proxy_host": proxy.hostname,
            "http_proxy_port": proxy.port,
            "proxy_type": proxy.scheme if proxy.scheme.startswith("socks") else "http",
        }
        if self._configuration.no_proxy:
            options["http_no_proxy"] = self._configuration.no_proxy.split(",")
        if proxy.username:
            options["http_proxy_auth"] = (proxy.username, proxy.password or "")
        return options


class Refused(Exception):
    """A websocket was refused with an HTTP answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


def _dropped(failure: NoAnswer) -> bool:
    return "dropped the connection" in str(failure) or "cut off" in str(failure)


def _deepest(error: BaseException) -> str:
    """The innermost reason, which is the one people know: `Connection refused`, `certificate verify failed`."""
    seen: list[BaseException] = [error]
    while (inner := seen[-1].__cause__ or seen[-1].__context__) is not None and inner not in seen:
        seen.append(inner)
    for arg in error.args:
        if isinstance(arg, BaseException):
            seen.append(arg)
    last = seen[-1]
    text = last.strerror if isinstance(last, OSError) and last.strerror else str(last)
    return one_line(text or type(last).__name__, 200)


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; the form with a date is not used by API servers."""
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None
