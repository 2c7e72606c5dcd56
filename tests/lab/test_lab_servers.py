"""The servers of a host, on loopback and in memory."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import pytest

from mcdoctor.lab.certificates import authority, server_certificate
from mcdoctor.lab.schema import DnsFault, DnsServer, Host, HttpServer, Route, TcpServer, Tls
from mcdoctor.lab.servers import _Dns, on_trouble, serve

RECORDS = {
    "a.test": ("A 10.0.0.1", "A 10.0.0.2"),
    "alias.test": ("CNAME a.test.",),
    "away.test": ("CNAME www.elsewhere.",),
    "loop.test": ("CNAME loop.test.",),
    "*.wild.test": ("A 10.0.0.9",),
    "many.test": tuple(f"A 10.1.{i // 250}.{i % 250}" for i in range(200)),
}


def ask(
    server: DnsServer, name: str, kind: str = "A", *, transport: str = "udp", times: int = 1, edns: int = 1232
) -> str:
    """What came of a query, in words; of several, joined by commas."""
    running = _Dns(server, random.Random(1))

    async def run() -> list[str]:
        return [words(await running.answer(query.to_wire(), transport)) for _ in range(times)]

    query = dns.message.make_query(name, kind, use_edns=edns > 0, payload=edns)
    return ", ".join(asyncio.run(run()))


def words(wire: bytes | None) -> str:
    if wire is None:
        return "silent"
    message = dns.message.from_wire(wire)
    found = sorted(str(r) for rrset in message.answer for r in rrset)
    tc = "TC " if message.flags & dns.flags.TC else ""
    soa = " SOA" if any(r.rdtype == 6 for r in message.authority) else ""
    return f"{tc}{dns.rcode.to_text(message.rcode())} {' '.join(found)}".strip() + soa


def server(**kw: object) -> DnsServer:
    return DnsServer(**({"zones": ("test",), "records": RECORDS} | kw))  # type: ignore[arg-type]


def fault(**kw: object) -> DnsServer:
    return server(faults=(DnsFault(**kw),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("a.test", "A", "NOERROR 10.0.0.1 10.0.0.2"),
        ("A.TEST", "A", "NOERROR 10.0.0.1 10.0.0.2"),
        ("a.test", "AAAA", "NOERROR SOA"),
        ("b.test", "A", "NXDOMAIN SOA"),
        ("x.y.wild.test", "A", "NOERROR 10.0.0.9"),
        ("alias.test", "A", "NOERROR 10.0.0.1 10.0.0.2 a.test."),
        ("alias.test", "CNAME", "NOERROR a.test."),
        ("away.test", "A", "NXDOMAIN www.elsewhere."),
        ("loop.test", "A", "SERVFAIL loop.test."),
        ("test.other", "A", "NXDOMAIN"),
    ],
)
def test_answers(name: str, kind: str, said: str) -> None:
    assert ask(server(), name, kind) == said


@pytest.mark.parametrize(
    ("otherwise", "said"), [("servfail", "SERVFAIL"), ("refused", "REFUSED"), ("silent", "silent")]
)
def test_names_of_no_zone(otherwise: str, said: str) -> None:
    assert ask(server(otherwise=otherwise), "www.elsewhere") == said


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [("nxdomain", "NXDOMAIN SOA"), ("servfail", "SERVFAIL"), ("refused", "REFUSED"), ("silent", "silent"),
     ("empty", "NOERROR SOA"), ("truncated", "TC NOERROR")],
)  # fmt: skip
def test_faults(behaviour: str, said: str) -> None:
    assert ask(fault(behaviour=behaviour), "a.test") == said
    assert ask(fault(behaviour=behaviour, names=("*.other",)), "a.test").startswith("NOERROR 10.0.0.1")
    assert ask(fault(behaviour=behaviour, types=("AAAA",)), "a.test").startswith("NOERROR 10.0.0.1")


def test_a_truncated_answer_is_whole_over_tcp() -> None:
    assert ask(fault(behaviour="truncated"), "a.test", transport="tcp").startswith("NOERROR 10.0.0.1")


def test_a_fault_of_one_transport() -> None:
    udp_only_silent = fault(behaviour="silent", transport="udp")
    assert ask(udp_only_silent, "a.test") == "silent"
    assert ask(udp_only_silent, "a.test", transport="tcp").startswith("NOERROR")


def test_flapping_by_count_and_by_chance() -> None:
    said = ask(fault(behaviour="nxdomain", every=2), "a.test", times=6).split(", ")
    assert [s.split()[0] for s in said] == ["NOERROR", "NXDOMAIN"] * 3
    said = ask(fault(behaviour="nxdomain", share=0.5), "a.test", times=200).split(", ")
    assert 70 < sum(s.startswith("NXDOMAIN") for s in said) < 130


def test_large_answers_respect_the_size_that_was_offered() -> None:
    assert ask(server(), "many.test", edns=0).startswith("TC NOERROR")
    assert ask(server(), "many.test", edns=4096).startswith("NOERROR 10.1.0.0")
    assert ask(server(), "many.test", transport="tcp").startswith("NOERROR 10.1.0.0")


@pytest.mark.parametrize("junk", [b"", b"\x00" * 5, b"\xff" * 40, dns.message.Message(id=7).to_wire()])
def test_junk_gets_no_answer(junk: bytes) -> None:
    assert asyncio.run(_Dns(server(), random.Random(1)).answer(junk, "udp")) is None


# --- on loopback ----------------------------------------------------------------------------------------------------


@contextmanager
def listening(host: Host, certificates: dict[int, bytes] | None = None) -> Iterator[list[object]]:
    """The servers of a host on a loop of their own; the list collects what went wrong there."""
    loop = asyncio.new_event_loop()
    wrong: list[object] = []
    loop.set_exception_handler(lambda _loop, context: wrong.append(context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(host, certificates or {}), loop).result(5)
    try:
        yield wrong
    finally:

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def host(**kw: object) -> Host:
    return Host(address="10.0.0.1", router="r", cluster="cluster-b", pod="shop/web-1", **kw)  # type: ignore[arg-type]


def talk(port: int, data: bytes, wrap: Callable[[socket.socket], socket.socket] = lambda s: s) -> bytes:
    with wrap(socket.create_connection(("127.0.0.1", port), 2)) as sock:
        sock.settimeout(2)
        sock.sendall(data)
        answer = b""
        while part := sock.recv(65536):
            answer += part
        return answer


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def test_http() -> None:
    port = free_port()
    routes = (
        Route(path="/healthz"),
        Route(path="/big*", body_bytes=5000, headers={"x-a": "b"}),
        Route(path="/bad", status=503),
        Route(path="/close", close=True),
        Route(path="/slow", delay_ms=100),
    )
    with listening(host(http=(HttpServer(port=port, bind="127.0.0.1", routes=routes),))) as wrong:
        last = "Connection: close"
        answer = talk(port, get("/healthz") + get("/big/1", last))
        first, _, second = answer.partition(b"ok\n")
        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"x-served-by: cluster-b/web-1\r\n" in first
        assert b"connection: keep-alive" in first
        assert b"x-a: b" in second
        assert len(second.partition(b"\r\n\r\n")[2]) == 5000
        assert talk(port, get("/bad", last)).startswith(b"HTTP/1.1 503 Service Unavailable")
        assert talk(port, get("/nothing", last)).startswith(b"HTTP/1.1 404 Not Found")
        assert talk(port, get("/close")) == b""
        assert talk(port, b"hello\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert (
            talk(port, b"POST /healthz HTTP/1.1\r\ncontent-length: 5\r\n\r\nabcde" + get("/healthz", last)).count(
                b"200 OK"
            )
            == 2
        )
        assert b"ok" not in talk(port, b"HEAD /healthz HTTP/1.0\r\n\r\n")
        assert wrong == []


def test_a_share_of_failures() -> None:
    port = free_port()
    routes = (Route(path="/*", status=503, share=0.5), Route(path="/*"))
    with listening(host(http=(HttpServer(port=port, bind="127.0.0.1", routes=routes),))):
        answer = talk(port, get("/") * 199 + get("/", "Connection: close"))
        assert 60 < answer.count(b" 503 ") < 140


@pytest.mark.parametrize(
    ("tls", "trouble"),
    [
        (Tls(names=("web.test",)), None),
        (Tls(names=("other.test",)), "Hostname mismatch"),
        (Tls(names=("web.test",), days=-2), "certificate has expired"),
        (Tls(names=("web.test",), trusted=False), "unable to get local issuer certificate"),
        (Tls(names=("web.test", "127.0.0.1"), chain_bytes=4000), None),
    ],
)
def test_tls(tls: Tls, trouble: str | None) -> None:
    trusted, foreign = authority("Root"), authority("Other")
    pem = server_certificate(trusted if tls.trusted else foreign, tls)
    context = ssl.create_default_context(cadata=trusted.pem())
    port = free_port()

    def wrap(sock: socket.socket) -> socket.socket:
        return context.wrap_socket(sock, server_hostname="web.test")

    with listening(host(http=(HttpServer(port=port, bind="127.0.0.1", tls=tls),)), {port: pem}):
        if trouble is None:
            assert talk(port, get("/healthz", "Connection: close"), wrap).startswith(b"HTTP/1.1 200")
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match=trouble):
                talk(port, b"", wrap)
    if tls.chain_bytes:
        assert len(pem) > tls.chain_bytes


def test_plain_tcp() -> None:
    ports = [free_port() for _ in range(3)]
    servers = (
        TcpServer(port=ports[0], bind="127.0.0.1", banner="hello\r\n"),
        TcpServer(port=ports[1], bind="127.0.0.1", echo=True),
        TcpServer(port=ports[2], bind="127.0.0.1", reset=True),
    )
    with listening(host(tcp=servers)):
        for port, said in zip(ports[:2], (b"hello\r\n", b"again"), strict=True):
            with socket.create_connection(("127.0.0.1", port), 2) as sock:
                sock.sendall(b"again")
                assert sock.recv(100) == said
        # the reset may come before connect has looked
        with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", ports[2]), 2) as sock:
            sock.recv(100)
            sock.recv(100)


def test_dns_over_the_wire_and_forwarding() -> None:
    upstream, front = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
    dead = free_port(socket.SOCK_DGRAM)
    servers = (
        DnsServer(port=upstream, bind="127.0.0.1", zones=("test",), records=RECORDS),
        DnsServer(
            port=front,
            bind="127.0.0.1",
            forward={"test": (f"127.0.0.1:{upstream}",), "dead": (f"127.0.0.1:{dead}",)},
            forward_timeout_ms=200,
        ),
    )
    with listening(host(dns=servers)) as wrong:

        def udp(name: str) -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(2)
                sock.connect(("127.0.0.1", front))
                sock.send(dns.message.make_query(name, "A").to_wire())
                return words(sock.recv(4096))

        assert udp("a.test") == "NOERROR 10.0.0.1 10.0.0.2"
        assert udp("nope.test") == "NXDOMAIN SOA"
        assert udp("x.dead") == "SERVFAIL"
        assert udp("elsewhere") == "NXDOMAIN"
        wire = dns.message.make_query("a.test", "A").to_wire()
        with socket.create_connection(("127.0.0.1", front), 2) as sock:
            for _ in range(2):
                sock.sendall(struct.pack("!H", len(wire)) + wire)
                (size,) = struct.unpack("!H", sock.recv(2))
                assert words(sock.recv(size)) == "NOERROR 10.0.0.1 10.0.0.2"
        assert wrong == []


def test_only_defects_are_reported() -> None:
    seen: list[object] = []
    loop = asyncio.new_event_loop()
    loop.default_exception_handler = seen.append  # type: ignore[method-assign]
    try:
        on_trouble(loop, {"exception": ConnectionResetError()})
        on_trouble(loop, {"exception": ssl.SSLError()})
        assert seen == []
        on_trouble(loop, {"exception": KeyError()})
        assert len(seen) == 1
    finally:
        loop.close()
