"""One request at a time over HTTP/2, enough to see who answers: RFC 9113 frames and an RFC 7541 decoder.

Headers are sent without indexing and without Huffman coding, so that only the decoder keeps state. gRPC is a POST by
definition; an empty message to a method that does not exist, or to a health check, changes nothing, and its grpc-status
is the answer.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mcdoctor.net.http import Destination, Exchange, HttpFailure, Stream

if TYPE_CHECKING:
    from mcdoctor.models.requests import SendRequest

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 0x20
_MAX_FRAME, _MAX_BODY, _MAX_BLOCK = 16_384, 1 << 20, 64 << 10
_WINDOW = 1 << 20
_ERRORS = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


@dataclass(slots=True)
class _Connection:
    """What lives as long as the connection: the header table and the number of the next stream."""

    decoder: Decoder
    next_stream: int = 1


def exchange(stream: Stream, to: Destination, request: SendRequest, done: Exchange) -> None:
    """Sends one request and reads its answer into `done`; raises HttpFailure."""
    begin = b""
    if isinstance(stream.tag, _Connection):
        connection = stream.tag
    else:
        connection = stream.tag = _Connection(Decoder())
        settings = b"\x00\x02\x00\x00\x00\x00" + b"\x00\x04" + _WINDOW.to_bytes(4, "big")  # no push; stream window
        begin = (
            PREFACE
            + frame(SETTINGS, 0, 0, settings)
            + frame(WINDOW_UPDATE, 0, 0, (_WINDOW - 65_535).to_bytes(4, "big"))
        )
    number = connection.next_stream
    connection.next_stream += 2
    head, body = _message(to, request)
    message = frame(HEADERS, END_HEADERS | (0 if body is not None else END_STREAM), number, head)
    if body is not None:
        message += frame(DATA, END_STREAM, number, body)
    done.request_bytes = len(message)
    stream.send(begin + message)
    _read(stream, connection, number, done, fresh=bool(begin))


def _message(to: Destination, request: SendRequest) -> tuple[bytes, bytes | None]:
    grpc = request.protocol == "grpc"
    given = {n.lower(): v for n, v in (request.headers or {}).items()}
    authority = given.pop("host", to.authority)
    for name in ("connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"):
        given.pop(name, None)
    fields = {
        ":method": "POST" if grpc else request.method,
        ":scheme": to.scheme,
        ":path": to.path,
        ":authority": authority,
    }
    fields |= {"user-agent": "mcdoctor", "accept": "*/*"}
    body: bytes | None = request.body.encode() if request.body else None
    if grpc:
        fields |= {"content-type": "application/grpc", "te": "trailers"}
        body = bytes(5)  # an empty message, not compressed
    return b"".join(literal(n, v) for n, v in {**fields, **given}.items()), body


def _read(stream: Stream, connection: _Connection, number: int, done: Exchange, fresh: bool) -> None:
    block, block_owner, ends, collecting = b"", 0, False, False
    first = fresh
    while True:
        kind, flags, owner, payload = _frame(stream, first)
        first = False
        if collecting and (kind != CONTINUATION or owner != block_owner):
            raise HttpFailure("protocol-error", "a header block was interrupted")
        if kind == SETTINGS and not flags & ACK:
            stream.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            stream.send(frame(PING, ACK, 0, payload[:8].ljust(8, b"\0")))
        elif kind == GOAWAY:
            code = int.from_bytes(payload[4:8], "big")
            last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
            done.reusable = False
            if code or last < number:
                raise HttpFailure("protocol-error" if code else "closed", f"GOAWAY {_error(code)}")
        elif kind == RST_STREAM and owner == number:
            code = int.from_bytes(payload[:4], "big")
            if done.status is None or code:
                raise HttpFailure("reset", f"RST_STREAM {_error(code)}")
        elif kind in (HEADERS, CONTINUATION):
            piece = _unpadded(payload, flags) if kind == HEADERS else payload
            if kind == HEADERS:
                piece = piece[5:] if flags & PRIORITY else piece
                ends, block, block_owner = bool(flags & END_STREAM), b"", owner
            block += piece
            collecting = not flags & END_HEADERS
            if len(block) > _MAX_BLOCK:
                raise HttpFailure("protocol-error", "the header block does not end")
            if collecting:
                continue
            headers = connection.decoder.decode(block)
            if owner == number:
                _note(done, headers)
                if ends:
                    done.reusable = True
                    return
        elif kind == DATA and owner == number:
            data = _unpadded(payload, flags)
            done.body_bytes += len(data)
            done.body = (done.body + data)[:512]
            if payload and not flags & END_STREAM:
                more = len(payload).to_bytes(4, "big")
                stream.send(frame(WINDOW_UPDATE, 0, 0, more) + frame(WINDOW_UPDATE, 0, number, more))
            if flags & END_STREAM:
                done.reusable = True
                return
            if done.body_bytes >= _MAX_BODY:
                return


def _frame(stream: Stream, first: bool) -> tuple[int, int, int, bytes]:
    while len(stream.buffer) < 9:
        _more(stream, first)
    if first and (stream.buffer[:4] == b"HTTP" or stream.buffer[3] != SETTINGS):
        from mcdoctor.models.redact import printable

        raise HttpFailure("protocol-error", f"not HTTP/2: {printable(stream.buffer, 60)}")
    length = int.from_bytes(stream.buffer[:3], "big")
    if length > _MAX_FRAME:
        raise HttpFailure("protocol-error", f"a frame of {length} bytes")
    kind, flags, owner = stream.buffer[3], stream.buffer[4], int.from_bytes(stream.buffer[5:9], "big") & 0x7FFFFFFF
    while len(stream.buffer) < 9 + length:
        _more(stream, False)
    payload = stream.buffer[9 : 9 + length]
    stream.buffer = stream.buffer[9 + length :]
    return kind, flags, owner, payload


def _more(stream: Stream, first: bool) -> None:
    if not stream.more():
        if first and stream.buffer.startswith(b"HTTP"):
            raise HttpFailure("protocol-error", "not HTTP/2: an HTTP/1 answer")
        raise HttpFailure("closed", "closed without an answer" if first else "closed within the answer")


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise HttpFailure("protocol-error", "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


def _note(done: Exchange, headers: list[tuple[str, str]]) -> None:
    """Takes the answer's head, or its trailers."""
    for name, value in headers:
        if name == ":status":
            if not (value.isdigit() and len(value) == 3):
                raise HttpFailure("protocol-error", "a status that is no number")
            done.status = int(value)
        elif not name.startswith(":"):
            done.headers[name] = f"{done.headers[name]}, {value}" if name in done.headers else value
    if done.status is None:
        raise HttpFailure("protocol-error", "an answer without its status")
    if "grpc-status" in done.headers:
        with suppress(ValueError):
            done.grpc_status = int(done.headers["grpc-status"])


def _error(code: int) -> str:
    return _ERRORS[code] if code < len(_ERRORS) else str(code)


# --- HPACK -----------------------------------------------------------------------------------------------------------


def literal(name: str, value: str) -> bytes:
    """A header field without indexing, both strings plain (RFC 7541 6.2.2)."""
    out = b"\x00"
    for text in (name, value):
        raw = text.encode("utf-8")
        out += _integer(len(raw)) + raw
    return out


def _integer(value: int) -> bytes:
    """7-bit prefix integer with the Huffman bit clear."""
    if value < 127:
        return bytes((value,))
    out, value = b"\x7f", value - 127
    while value >= 128:
        out += bytes((value & 127 | 128,))
        value >>= 7
    return out + bytes((value,))


_STATIC_TABLE = (
    ":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|"
    ":status 204|:status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-"
    "encoding gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|"
    "authorization|cache-control|content-disposition|content-encoding|content-language|content-length|"
    "content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|if-"
    "modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|"
    "proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|strict-"
    "transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)
_STATIC = tuple((name, value) for name, _, value in (entry.partition(" ") for entry in _STATIC_TABLE.split("|")))

# RFC 7541 appendix B: the code is canonical, so the lengths (each a letter, 5 bits is A) say all of it
_LENGTHS = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHFIBCCCCCCCCCCCCCCCCCCCCCCDCDIOIJBKABA"
    "BABBBACCBBBABCBAABCCCCCKGJIXPRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQSRSSPRRRSRRSVVPORSRU"
    "VVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWVZ"
)


def _codes() -> dict[tuple[int, int], int]:
    """(length, code): symbol."""
    found: dict[tuple[int, int], int] = {}
    code = last = 0
    for length, symbol in sorted((ord(letter) - 60, symbol) for symbol, letter in enumerate(_LENGTHS)):
        code = (code + 1) << (length - last) if last else 0
        last = length
        found[length, code] = symbol
    return found


_HUFFMAN = _codes()


def huffman(data: bytes) -> bytes:
    """Decodes an RFC 7541 string; raises ValueError for bad codes and bad padding."""
    out = bytearray()
    code = length = 0
    for byte in data:
        for shift in range(7, -1, -1):
            code = code << 1 | byte >> shift & 1
            length += 1
            symbol = _HUFFMAN.get((length, code))
            if symbol is not None:
                if symbol == 256:
                    raise ValueError("the end symbol within a string")
                out.append(symbol)
                code = length = 0
            elif length > 30:
                raise ValueError("no such code")
    if length > 7 or code != (1 << length) - 1:
        raise ValueError("bad padding")
    return bytes(out)


@dataclass(slots=True)
class Decoder:
    """Header blocks to fields; keeps the dynamic table of one connection."""

    table: list[tuple[str, str]] = field(default_factory=list)
    limit: int = 4096
    allowed: int = 4096

    def decode(self, block: bytes) -> list[tuple[str, str]]:
        """Raises HttpFailure protocol-error for what is no header block."""
        try:
            return self._decode(block)
        except (ValueError, IndexError) as error:
            raise HttpFailure("protocol-error", f"a header block that cannot be read: {error}") from None

    def _decode(self, block: bytes) -> list[tuple[str, str]]:
        fields: list[tuple[str, str]] = []
        place = 0
        while place < len(block):
            byte = block[place]
            if byte & 0x80:
                index, place = _read_integer(block, place, 7)
                fields.append(self._entry(index))
            elif byte & 0xE0 == 0x20:
                self.limit, place = _read_integer(block, place, 5)
                if self.limit > self.allowed:
                    raise ValueError("a table larger than allowed")
                self._evict()
            else:
                kept = bool(byte & 0x40)
                index, place = _read_integer(block, place, 6 if kept else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, place = _read_string(block, place)
                value, place = _read_string(block, place)
                fields.append((name, value))
                if kept:
                    self.table.insert(0, (name, value))
                    self._evict()
        return fields

    def _entry(self, index: int) -> tuple[str, str]:
        if index == 0:
            raise ValueError("index 0")
        return _STATIC[index - 1] if index <= len(_STATIC) else self.table[index - len(_STATIC) - 1]

    def _evict(self) -> None:
        size = sum(len(n) + len(v) + 32 for n, v in self.table)
        while self.table and size > self.limit:
            name, value = self.table.pop()
            size -= len(name) + len(value) + 32


def _read_integer(block: bytes, place: int, bits: int) -> tuple[int, int]:
    full = (1 << bits) - 1
    value, place = block[place] & full, place + 1
    if value < full:
        return value, place
    shift = 0
    while True:
        byte, place = block[place], place + 1
        value += (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return value, place
        if shift > 28:
            raise ValueError("an integer too large")


def _read_string(block: bytes, place: int) -> tuple[str, int]:
    coded = bool(block[place] & 0x80)
    length, place = _read_integer(block, place, 7)
    raw = block[place : place + length]
    if len(raw) < length:
        raise ValueError("a string cut short")
    return (huffman(raw) if coded else raw).decode("latin-1"), place + length
