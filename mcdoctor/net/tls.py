"""TLS handshakes: what both sides said, whatever the certificates are worth; the judgement of the chain apart.

The handshake runs over memory buffers, so that bytes which are no TLS are seen as they came. OpenSSL's message callback
(`SSLContext._msg_callback`, private, in CPython since 3.8; guarded) shows the handshake messages in the clear: the
whole chain, the request for a client certificate with its issuers, alerts of both sides with who sent them.
"""

from __future__ import annotations

import base64
import errno
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from mcdoctor.models.facts import Fact, TlsAlert, TlsHandshake, TlsResult, TlsVerification
from mcdoctor.models.redact import plain, printable
from mcdoctor.models.requests import ShakeTls
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import tcp, wire
from mcdoctor.net.http import lenient_context, server_name

ALERTS = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed", 22: "record_overflow",
    30: "decompression_failure", 40: "handshake_failure", 41: "no_certificate", 42: "bad_certificate",
    43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired", 46: "certificate_unknown",
    47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error", 51: "decrypt_error",
    60: "export_restriction", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
    86: "inappropriate_fallback", 90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension",
    110: "unsupported_extension", 111: "certificate_unobtainable", 112: "unrecognized_name",
    113: "bad_certificate_status_response", 114: "bad_certificate_hash_value", 115: "unknown_psk_identity",
    116: "certificate_required", 120: "no_application_protocol",
}  # fmt: skip
_RECORDS = (20, 21, 22, 23)
_HANDSHAKE, _ALERT = 22, 21
_CERTIFICATE, _CERTIFICATE_REQUEST, _NEW_TICKET = 11, 13, 4
_AFTER = 0.6  # seconds in which a server that asked for a client certificate may refuse the empty one
_VERSIONS = {"TLSv1": "TLSv1.0"}


@dataclass(slots=True)
class Talk:
    """What was heard while the handshake went on."""

    chain: list[bytes] = field(default_factory=list)
    requested: bool = False
    issuers: list[str] | None = None
    alerts: list[tuple[Literal["client", "server"], int]] = field(default_factory=list)
    tickets: int = 0
    heard: bytes = b""  # the first bytes of the server, as they came

    def alert(self) -> TlsAlert | None:
        """The alert that ended it: the first one that is not a farewell."""
        for by, code in self.alerts:
            if code not in (0, 90):
                return TlsAlert(name=alert_name(code), by=by)
        return None


def alert_name(code: int) -> str:
    return ALERTS.get(code, f"alert_{code}")


def probe(request: ShakeTls, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields TlsHandshake, with `der` for the chain; Blind where no socket could be had."""
    address = wire.ip_address(request.address)
    about = wire.endpoint(address, request.port)
    until = time.monotonic() + wire.left(deadline, request.timeout)
    try:
        fact = _shake(request, vantage, address, until)
    except OSError as error:
        yield wire.blind(
            vantage, TlsHandshake, about, f"no socket could be opened here: {wire.errno_name(error.errno)}"
        )
        return
    except ValueError as error:  # a server name that is none
        yield wire.blind(vantage, TlsHandshake, about, f"the handshake cannot be begun: {plain(str(error), 200)}")
        return
    yield fact


def _shake(request: ShakeTls, vantage: Vantage, address: str, until: float) -> TlsHandshake:
    start = time.monotonic()
    sni = server_name(request.sni) if request.sni else None
    talk = Talk()
    context = lenient_context()
    if request.alpn:
        context.set_alpn_protocols(list(request.alpn))
    listen_in(context, talk)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=sni)  # before the connect: it checks the name
    connection = tcp.connect(address, request.port, max(0.0, until - time.monotonic()), request.max_segment)
    result: TlsResult
    post: str | None = None
    verify: TlsVerification | None = None
    version: str | None = None
    cipher: tuple[str, str, int] | None = None
    alpn: str | None = None
    if connection.sock is None:
        result = connection.result if connection.result != "open" else "closed"
    else:
        with connection.sock as sock:
            result = _converse(sock, tls, incoming, outgoing, talk, until)
            if result == "ok":
                ms = wire.ms_since(start)
                version, cipher, alpn = (
                    tls.version(),
                    tls.cipher(),
                    tls.selected_alpn_protocol(),
                )  # gone after a refusal
                post = _afterwards(sock, tls, incoming, outgoing, talk, until)
    if result != "ok":
        ms = wire.ms_since(start)
    elif talk.chain:
        verify = _verify(request, address, sni, until)
    if not talk.chain and result == "ok":
        leaf = tls.getpeercert(binary_form=True)
        talk.chain = [leaf] if leaf else []
    uid, bypass = wire.proxy_view(vantage)
    return TlsHandshake(
        at=wire.now(),
        vantage=vantage,
        address=request.address,
        port=request.port,
        sni=sni,
        alpn_offered=request.alpn,
        alpn=alpn,
        version=cast(Any, _VERSIONS.get(version, version) if version else None),
        cipher=cipher[0] if cipher else None,
        result=result,
        alert=talk.alert() if result == "alert" else None,
        verify=verify,
        client_cert_requested=talk.requested if result == "ok" or talk.requested else None,
        acceptable_issuers=tuple(talk.issuers) if talk.issuers else None,
        post_handshake_alert=post,
        first_bytes=printable(talk.heard) if result == "plaintext" else None,
        uid=uid,
        bypass_proxy=bypass,
        ms=ms,
        der=tuple(base64.b64encode(c).decode() for c in talk.chain[:10]) or None,
    )


def _converse(
    sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, talk: Talk, until: float
) -> TlsResult:
    """Runs the handshake to its end."""
    while True:
        try:
            tls.do_handshake()
            _flush(sock, outgoing, until)
            return "ok"
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            with suppress(OSError, TimeoutError):
                _flush(sock, outgoing, until)  # our own alert, so that the server knows too
            if talk.heard and not _is_tls(talk.heard):
                return "plaintext"
            _from_reason(talk, error)
            return "alert" if talk.alert() else "closed"
        try:
            _flush(sock, outgoing, until)
            data = _receive(sock, until)
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return "reset" if isinstance(error, ConnectionError) else "unreachable"
        if not data:
            if talk.heard and not _is_tls(talk.heard):
                return "plaintext"
            incoming.write_eof()
            return "alert" if talk.alert() else "closed"
        if len(talk.heard) < 256:
            talk.heard += data[:256]
        if not _is_tls(talk.heard):
            return "plaintext"
        incoming.write(data)


def _is_tls(data: bytes) -> bool:
    """True when the bytes may begin a TLS record; short beginnings get the benefit of the doubt."""
    return data[0] in _RECORDS and (len(data) < 2 or data[1] == 3) if data else True


def _flush(sock: socket.socket, outgoing: ssl.MemoryBIO, until: float) -> None:
    data = outgoing.read()
    if data:
        sock.settimeout(max(0.001, until - time.monotonic()))
        sock.sendall(data)


def _receive(sock: socket.socket, until: float) -> bytes:
    remaining = until - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    sock.settimeout(remaining)
    return sock.recv(65536)


def _afterwards(
    sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, talk: Talk, until: float
) -> str | None:
    """What a TLS 1.3 server says to the missing client certificate, after a handshake that looked well to us.

    Session tickets mean that it accepted; so does silence. Older versions refuse within the handshake.
    """
    if not talk.requested or tls.version() != "TLSv1.3":
        return None
    end = min(until, time.monotonic() + _AFTER)
    while not talk.tickets:
        try:
            tls.read(1)
            return None  # the server speaks first: it accepted
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            return "close_notify"
        except ssl.SSLError as error:
            _from_reason(talk, error)
            refused = talk.alert()
            return refused.name if refused else None
        try:
            _flush(sock, outgoing, end)
            data = _receive(sock, end)
        except TimeoutError:
            return None
        except OSError as error:
            return "reset" if error.errno in (errno.ECONNRESET, errno.EPIPE) else None
        if not data:
            return "closed"
        incoming.write(data)
    return None


def _verify(request: ShakeTls, address: str, sni: str | None, until: float) -> TlsVerification | None:
    """A second handshake that trusts the vantage's own roots. The name is judged where the chain is read (`der`)."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if not context.cert_store_stats()["x509_ca"] and not context.get_ca_certs():
        paths = ssl.get_default_verify_paths()
        if paths.cafile is None and paths.capath is None:
            return None  # nothing to judge against
    if request.alpn:
        context.set_alpn_protocols(list(request.alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=sni)
    try:
        connection = tcp.connect(address, request.port, max(0.0, until - time.monotonic()), request.max_segment)
    except OSError:
        return None
    if connection.sock is None:
        return None
    with connection.sock as sock:
        while True:
            try:
                tls.do_handshake()
                return TlsVerification(ok=True, against=("system",))
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                with suppress(OSError):
                    _flush(sock, outgoing, until)
                return TlsVerification(ok=False, error=plain(error.verify_message, 200), against=("system",))
            except ssl.SSLError:
                return None
            try:
                _flush(sock, outgoing, until)
                data = _receive(sock, until)
            except OSError:
                return None
            if not data:
                return None
            incoming.write(data)


# --- listening in --------------------------------------------------------------------------------------------------


def listen_in(context: ssl.SSLContext, talk: Talk) -> None:
    """Lets `talk` hear every message of connections made from the context."""

    def hear(_: object, direction: str, version: Any, content: Any, message: Any, data: bytes) -> None:
        with suppress(ValueError, TypeError, IndexError):
            hear_message(talk, direction, int(version), int(content), int(message), data)

    with suppress(AttributeError):
        context._msg_callback = hear  # type: ignore[attr-defined]


def hear_message(talk: Talk, direction: str, version: int, content: int, message: int, data: bytes) -> None:
    """One message as OpenSSL shows it. Hostile bytes: raises ValueError or IndexError where they do not fit."""
    by: Literal["client", "server"] = "server" if direction == "read" else "client"
    if content == _ALERT and len(data) >= 2:
        talk.alerts.append((by, data[1]))
    elif content == _HANDSHAKE and by == "server":
        newer = version >= 0x0304
        if message == _CERTIFICATE:
            talk.chain = certificates(data, newer)
        elif message == _CERTIFICATE_REQUEST:
            talk.requested = True
            talk.issuers = issuers(data, newer)
        elif message == _NEW_TICKET:
            talk.tickets += 1


class _Bytes:
    """Reads length-prefixed pieces; ValueError where they are cut short."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if count > len(self.data):
            raise ValueError("cut short")
        piece, self.data = self.data[:count], self.data[count:]
        return piece

    def vector(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width), "big"))


def certificates(message: bytes, newer: bool) -> list[bytes]:
    """DER certificates of a Certificate message (RFC 5246 7.4.2, RFC 8446 4.4.2), leaf first; raises ValueError."""
    reader = _Bytes(message)
    reader.take(4)
    if newer:
        reader.vector(1)
    inner = _Bytes(reader.vector(3))
    found = []
    while inner.data:
        found.append(inner.vector(3))
        if newer:
            inner.vector(2)
    return found


def issuers(message: bytes, newer: bool) -> list[str]:
    """Names of the authorities in a CertificateRequest, as text; raises ValueError."""
    reader = _Bytes(message)
    reader.take(4)
    reader.vector(1)  # certificate types, or the context of TLS 1.3
    names = b""
    if newer:
        extensions = _Bytes(reader.vector(2))
        while extensions.data:
            kind = int.from_bytes(extensions.take(2), "big")
            value = extensions.vector(2)
            if kind == 47:
                names = _Bytes(value).vector(2)
    else:
        reader.vector(2)  # signature algorithms
        names = reader.vector(2)
    inner = _Bytes(names)
    found = []
    while inner.data:
        found.append(distinguished_name(inner.vector(2)))
    return found


_ATTRIBUTES = {b"\x55\x04\x03": "CN", b"\x55\x04\x06": "C", b"\x55\x04\x07": "L", b"\x55\x04\x08": "ST",
               b"\x55\x04\x0a": "O", b"\x55\x04\x0b": "OU"}  # fmt: skip


def distinguished_name(der: bytes) -> str:
    """`O=cluster.local,CN=root` in the order of the encoding; hex of what cannot be read."""
    try:
        parts = []
        sequence = _der(_Bytes(der), 0x30)
        while sequence.data:
            pair = _der(_der(sequence, 0x31), 0x30)
            kind = _der(pair, 0x06).data
            pair.take(1)
            text = _der_value(pair).decode("utf-8", "replace")
            label = _ATTRIBUTES.get(kind)
            if label:
                parts.append(f"{label}={plain(text, 100)}")
        return ",".join(parts)
    except (ValueError, IndexError):
        return der[:64].hex()


def _der(reader: _Bytes, tag: int) -> _Bytes:
    if reader.take(1)[0] != tag:
        raise ValueError("another tag")
    return _Bytes(_der_value(reader))


def _der_value(reader: _Bytes) -> bytes:
    length = reader.take(1)[0]
    if length & 0x80:
        length = int.from_bytes(reader.take(length & 0x7F), "big")
    return reader.take(length)


def _from_reason(talk: Talk, error: ssl.SSLError) -> None:
    """An alert named only by OpenSSL's reason, where the message callback is missing."""
    reason = (error.reason or "").lower()
    if talk.alert() is None and "alert_" in reason:
        name = reason.partition("alert_")[2]
        code = next((c for c, n in ALERTS.items() if n == name), None)
        if code is not None:
            talk.alerts.append(("server", code))
