"""Real packets through namespaces: client, router, server. Rejections by ICMP, silence, loss, path MTU, traces.

Works as a plain user too, where user namespaces are allowed; skips plainly elsewhere.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mcdoctor.models.facts import Blind, DnsAnswer, Fact, HttpRequest, PathMtu, Route, TcpConnect, TlsHandshake, Trace
from mcdoctor.models.requests import (
    AskDns,
    ConnectTcp,
    LookUpRoute,
    MeasurePathMtu,
    ProbeRequest,
    SendRequest,
    ShakeTls,
    TracePath,
)
from mcdoctor.models.vantage import Vantage
from mcdoctor.prober.client import StreamProber
from mcdoctor.prober.local import spawn

pytestmark = pytest.mark.lab

_HOLDER = """
import subprocess, sys
wait = "import sys; print('up', flush=True); sys.stdin.read()"
children = [subprocess.Popen(["unshare", "--net", sys.executable, "-c", wait],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
for child in children:
    child.stdout.readline()
print(*(child.pid for child in children), flush=True)
sys.stdin.read()
for child in children:
    child.stdin.close()
    child.wait()
"""

_SERVER = """
import socket, ssl, sys, threading, time

def serve(port, talk, family=socket.AF_INET6):
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("::", port))
    sock.listen(64)
    def one(connection):
        try:
            talk(connection)
        except OSError:
            pass
        finally:
            connection.close()
    def loop():
        while True:
            connection, _ = sock.accept()
            threading.Thread(target=one, args=(connection,), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()

def http(connection):
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        more = connection.recv(65536)
        if not more:
            return
        data += more
    large = b"GET /small" not in data
    body = b"x" * (20000 if large else 10)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nX-Served-By: b/pod\\r\\n" % len(body))
    connection.sendall(b"Connection: close\\r\\n\\r\\n")
    connection.sendall(body)

def tls(connection):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    with context.wrap_socket(connection, server_side=True) as wrapped:
        wrapped.recv(1)

serve(8080, http)
serve(8443, tls)
print("up", flush=True)
sys.stdin.read()
"""


class Net:
    """client 10.9.1.2/fd09:1::2 — router — 10.9.2.2/fd09:2::2 server."""

    SERVER, SERVER6 = "10.9.2.2", "fd09:2::2"

    def __init__(self, chain: str) -> None:
        self.holder = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", _HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None
        words = self.holder.stdout.readline().split()
        if len(words) != 2:
            self.holder.wait(5)
            pytest.skip("network namespaces are not allowed here")
        self.pids = {"client": self.holder.pid, "router": int(words[0]), "server": int(words[1])}
        self._build()
        self.server = subprocess.Popen(
            [*self.argv("server"), sys.executable, "-c", _SERVER, chain],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == "up\n"
        self.prober: StreamProber = spawn(self.argv("client"), Vantage(cluster="a", pod="client"))
        for address in (self.SERVER, self.SERVER6):  # neighbour discovery may still go on
            for _ in range(10):
                (fact,) = self.ask(ConnectTcp(address=address, port=8080, timeout=0.5))
                if isinstance(fact, TcpConnect) and fact.result == "open":
                    break

    def argv(self, place: str) -> list[str]:
        return ["nsenter", "--user", "--preserve-credentials", "--net", f"--target={self.pids[place]}"]

    def run(self, place: str, *words: str) -> None:
        done = subprocess.run([*self.argv(place), *words], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, (words, done.stderr)

    def ip(self, place: str, text: str) -> None:
        self.run(place, "ip", *text.split())

    def _build(self) -> None:
        router = self.pids["router"]
        self.ip("client", f"link add c0 type veth peer name r0 netns {router}")
        self.ip("server", f"link add s0 type veth peer name r1 netns {router}")
        for place, device, four, six in (
            ("client", "c0", "10.9.1.2/24", "fd09:1::2/64"), ("router", "r0", "10.9.1.1/24", "fd09:1::1/64"),
            ("router", "r1", "10.9.2.1/24", "fd09:2::1/64"), ("server", "s0", "10.9.2.2/24", "fd09:2::2/64"),
        ):  # fmt: skip
            self.ip(place, "link set lo up")
            self.ip(place, f"addr add {four} dev {device}")
            self.ip(place, f"addr add {six} dev {device} nodad")
            self.ip(place, f"link set {device} up")
        for place, four, six in (("client", "10.9.1.1", "fd09:1::1"), ("server", "10.9.2.1", "fd09:2::1")):
            self.ip(place, f"route add default via {four}")
            self.ip(place, f"-6 route add default via {six}")
        # the router forwards; echo answers and errors of the kernels are not rationed, so that tests need not wait
        forward = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
        for place, settings in (("router", forward), ("client", "net.ipv4.ping_group_range=0\t0"), ("server", "")):
            for setting in [
                *(s for s in settings.split(" ") if s),
                "net.ipv4.icmp_ratelimit=0",
                "net.ipv6.icmp.ratelimit=0",
            ]:
                name, _, value = setting.partition("=")
                self.run(place, "sh", "-c", f"echo '{value}' > /proc/sys/{name.replace('.', '/')}")
        self.ip("client", "link set c0 mtu 1500")

    def rules(self, *rules: str) -> None:
        """The router's forward chain (and nothing else) until the next call."""
        lines = ["flush ruleset", "add table inet t", "add chain inet t f { type filter hook forward priority 0; }"]
        lines += ["add chain inet t o { type filter hook output priority 0; }"]
        lines += [f"add rule inet t {rule}" for rule in rules]
        done = subprocess.run(
            [*self.argv("router"), "nft", "-f", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def clean(self) -> None:
        self.rules()
        self.ip("router", "link set r1 mtu 1500")
        self.ip("server", "link set s0 mtu 1500")
        for place in ("client", "server"):
            self.ip(place, "route flush cache")
            self.ip(place, "-6 route flush cache")

    def ask(self, request: ProbeRequest, budget: float = 8.0) -> tuple[Fact, ...]:
        return self.prober.run(request, budget=budget)

    def close(self) -> None:
        self.prober.close()
        for process in (self.server, self.holder):
            assert process.stdin is not None
            process.stdin.close()
            process.wait(5)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


@pytest.fixture(scope="module")
def built(certificates: dict[str, Any]) -> Iterator[Net]:
    missing = [tool for tool in ("unshare", "nsenter", "ip", "nft") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    net = Net(str(certificates["server"]))
    yield net
    net.close()


@pytest.fixture
def net(built: Net) -> Net:
    built.clean()
    return built


def connect(net: Net, address: str = Net.SERVER, port: int = 8080, **more: Any) -> TcpConnect:
    (fact,) = net.ask(ConnectTcp(address=address, port=port, **{"timeout": 1.0, **more}))
    assert isinstance(fact, TcpConnect), fact
    return fact


def test_open_over_both_families(net: Net) -> None:
    for address in (net.SERVER, net.SERVER6):
        assert connect(net, address).result == "open"
        assert connect(net, address, 9).result == "refused"
    assert connect(net).from_ttl == 63


@pytest.mark.parametrize("reject, icmp", [
    ("icmp port-unreachable", (3, 3)), ("icmp admin-prohibited", (3, 13)), ("icmp host-prohibited", (3, 10)),
    ("icmp net-unreachable", (3, 0)), ("icmp host-unreachable", (3, 1)),
])  # fmt: skip
def test_a_rejection_by_icmp_is_unreachable_whatever_the_errno(net: Net, reject: str, icmp: tuple[int, int]) -> None:
    net.rules(f"f ip daddr {net.SERVER} tcp dport 8080 reject with {reject}")
    fact = connect(net)
    assert fact.result == "unreachable"
    assert fact.icmp is not None
    assert (fact.icmp.type, fact.icmp.code, fact.icmp.sender) == (*icmp, "10.9.1.1")
    (request,) = net.ask(SendRequest(url=f"http://{net.SERVER}:8080/"))
    assert isinstance(request, HttpRequest)
    assert request.result == "connect-error"
    assert (request.error or "").startswith("unreachable: ")
    (tls,) = net.ask(ShakeTls(address=net.SERVER, port=8080))
    assert isinstance(tls, TlsHandshake)
    assert tls.result == "unreachable"


@pytest.mark.parametrize("reject, icmp", [("icmpv6 admin-prohibited", (1, 1)), ("icmpv6 port-unreachable", (1, 4))])
def test_a_rejection_by_icmpv6(net: Net, reject: str, icmp: tuple[int, int]) -> None:
    net.rules(f"f ip6 daddr {net.SERVER6} tcp dport 8080 reject with {reject}")
    fact = connect(net, net.SERVER6)
    assert fact.result == "unreachable"
    assert fact.icmp is not None
    assert (fact.icmp.type, fact.icmp.code) == icmp


def test_a_rejection_by_reset_is_refused_and_from_nearer(net: Net) -> None:
    net.rules("f tcp dport 8080 reject with tcp reset")
    fact = connect(net)
    assert (fact.result, fact.icmp) == ("refused", None)
    assert fact.from_ttl is not None


def test_a_drop_is_silence(net: Net) -> None:
    net.rules("f tcp dport 8080 drop")
    fact = connect(net, timeout=0.5)
    assert (fact.result, fact.icmp, fact.error) == ("timeout", None, None)


def test_an_absent_neighbour_and_an_absent_route(net: Net) -> None:
    fact = connect(net, "10.9.1.77", timeout=4.5)
    assert (fact.result, fact.error) == ("unreachable", "EHOSTUNREACH")
    net.ip("client", "route add unreachable 10.77.0.0/16")
    net.ip("client", "route add blackhole 10.78.0.0/16")
    net.ip("client", "route add prohibit 10.79.0.0/16")
    try:
        kinds = []
        for address in ("10.77.0.1", "10.78.0.1", "10.79.0.1"):
            assert connect(net, address).result == "unreachable"
            (route,) = net.ask(LookUpRoute(address=address))
            assert isinstance(route, Route)
            kinds.append(route.type)
        assert kinds == ["unreachable", "blackhole", "prohibit"]
    finally:
        for kind, block in (("unreachable", 77), ("blackhole", 78), ("prohibit", 79)):
            net.ip("client", f"route del {kind} 10.{block}.0.0/16")


def test_loss_shows_as_a_rate(net: Net) -> None:
    net.rules("f tcp dport 8080 numgen random mod 100 < 60 drop")
    fact = connect(net, tries=20, timeout=0.6)  # below the first retransmission of a SYN
    assert fact.result == "open"
    assert fact.tries == 20
    assert 0 < (fact.successes or 0) < 20


def test_dns_rejections(net: Net) -> None:
    net.rules("f udp dport 53 reject with icmp admin-prohibited")
    (fact,) = net.ask(AskDns(name="x.example", server=net.SERVER, timeout=0.5))
    assert isinstance(fact, DnsAnswer)
    assert fact.result == "unreachable"
    assert fact.icmp is not None
    assert (fact.icmp.type, fact.icmp.code) == (3, 13)
    net.rules("f udp dport 53 drop")
    (fact,) = net.ask(AskDns(name="x.example", server=net.SERVER, timeout=0.3))
    assert isinstance(fact, DnsAnswer)
    assert (fact.result, fact.icmp) == ("timeout", None)


def test_a_route_is_looked_up(net: Net) -> None:
    (route,) = net.ask(LookUpRoute(address=net.SERVER))
    assert isinstance(route, Route)
    assert (route.destination, route.via, route.dev, route.src) == ("default", "10.9.1.1", "c0", "10.9.1.2")
    (route,) = net.ask(LookUpRoute(address="fd09:1::77"))
    assert isinstance(route, Route)
    assert (route.destination, route.via, route.dev) == ("fd09:1::/64", None, "c0")


# --- traces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize("address, hop", [(Net.SERVER, "10.9.1.1"), (Net.SERVER6, "fd09:1::1")])
def test_a_trace_reaches_the_destination(net: Net, protocol: Any, address: str, hop: str) -> None:
    (fact,) = net.ask(TracePath(address=address, protocol=protocol, port=8080 if protocol == "tcp" else None))
    assert isinstance(fact, Trace)
    assert fact.reached
    assert [h.address for h in fact.hops] == [hop, address]
    assert fact.hops[0].icmp == "time-exceeded"


def test_a_trace_ends_where_packets_are_dropped_or_refused(net: Net) -> None:
    net.rules("f tcp dport 8080 drop")
    (fact,) = net.ask(TracePath(address=net.SERVER, protocol="tcp", port=8080, timeout=0.3, max_hops=8))
    assert isinstance(fact, Trace)
    assert not fact.reached
    assert [h.address for h in fact.hops] == ["10.9.1.1", None]
    net.rules("f tcp dport 8080 reject with icmp admin-prohibited")
    (fact,) = net.ask(TracePath(address=net.SERVER, protocol="tcp", port=8080, timeout=0.3))
    assert isinstance(fact, Trace)
    assert not fact.reached
    assert fact.hops[-1].icmp in ("admin-prohibited", "time-exceeded")


def test_a_trace_asks_again_where_an_answer_was_lost(net: Net) -> None:
    net.rules("o icmp type time-exceeded numgen inc mod 100 0 drop")  # the first of a hundred
    (fact,) = net.ask(TracePath(address=net.SERVER, protocol="udp", timeout=0.5))
    assert isinstance(fact, Trace)
    assert [h.address for h in fact.hops] == ["10.9.1.1", net.SERVER]


# --- path MTU --------------------------------------------------------------------------------------------------------


def measure(net: Net, address: str = Net.SERVER, **more: Any) -> tuple[list[PathMtu], list[Blind], float]:
    begun = time.monotonic()
    facts = net.ask(MeasurePathMtu(**{"address": address, "port": 8080, "host": "api.example", **more}))
    seconds = time.monotonic() - begun
    return [f for f in facts if isinstance(f, PathMtu)], [f for f in facts if isinstance(f, Blind)], seconds


def forward(facts: Sequence[PathMtu]) -> dict[str, PathMtu]:
    """By means; the stream's fact stands for tcp (it has an MSS, raw packets have none)."""
    found = {}
    for fact in facts:
        if fact.direction == "forward":
            raw = fact.protocol == "tcp" and fact.mss is None
            found["raw" if raw else str(fact.protocol)] = fact
    return found


FAMILIES = [Net.SERVER, Net.SERVER6]


@pytest.mark.parametrize("address", FAMILIES)
def test_a_whole_path(net: Net, address: str) -> None:
    facts, _, seconds = measure(net, address)
    by = forward(facts)
    assert {"udp", "icmp", "tcp"} <= set(by)
    for fact in by.values():
        assert fact.largest_delivered == 1500
        assert fact.smallest_lost is None
        assert fact.interface_mtu == 1500
        assert fact.control_lost == 0
    (back,) = [f for f in facts if f.direction == "reverse"]
    assert back.largest_delivered is not None
    assert back.largest_delivered > 1400
    assert seconds < 2.5


@pytest.mark.parametrize("address", FAMILIES)
def test_a_smaller_path_that_says_so(net: Net, address: str) -> None:
    net.ip("router", "link set r1 mtu 1400")
    facts, _, _ = measure(net, address)
    by = forward(facts)
    for means in ("udp", "icmp"):
        told = [s for s in by[means].sizes if s.result == "frag-needed"]
        assert told
        assert {s.mtu for s in told} == {1400}
        assert by[means].largest_delivered == 1400
        assert by[means].smallest_lost is None
    sender = by["icmp"].sizes[0].sender
    assert sender == ("10.9.1.1" if address == net.SERVER else "fd09:1::1")
    assert by["tcp"].largest_delivered == 1400
    assert by["tcp"].smallest_lost is None


@pytest.mark.parametrize("address", FAMILIES)
def test_a_black_hole_within_three_seconds(net: Net, address: str) -> None:
    net.ip("router", "link set r1 mtu 1400")
    net.rules("o icmp type destination-unreachable drop", "o icmpv6 type packet-too-big drop")
    facts, _, seconds = measure(net, address)
    assert seconds < 3.6  # 3.0 of its own; the rest is for a busy machine
    by = forward(facts)
    assert {"udp", "icmp", "tcp"} <= set(by)
    for fact in by.values():
        assert fact.largest_delivered == 1400, fact
        assert fact.smallest_lost is not None
        assert 1400 < fact.smallest_lost <= (1450 if fact.protocol == "udp" else 1420)  # few answers, few sizes
        assert all(s.result != "frag-needed" for s in fact.sizes)


def test_a_black_hole_for_tcp_where_everything_else_is_filtered(net: Net, certificates: dict[str, Any]) -> None:
    net.ip("router", "link set r1 mtu 1400")
    net.rules("o icmp type destination-unreachable drop", "f meta l4proto { udp, icmp } drop")
    for more in ({}, {"port": 8443, "tls": True, "sni": "api.example"}):
        facts, blinds, seconds = measure(net, **more)
        by = forward(facts)
        assert "tcp" in by
        assert "udp" not in by
        assert "icmp" not in by
        assert (by["tcp"].largest_delivered, by["tcp"].control_lost) == (1400, 0)
        assert by["tcp"].smallest_lost in (1420, 1440, 1450)
        assert {b.about.rpartition(" ")[2] for b in blinds} >= {"udp", "icmp"}
        assert seconds < 3.6  # 3.0 of its own; the rest is for a busy machine


def test_a_black_hole_on_the_way_back(net: Net) -> None:
    # large packets vanish towards the client only
    net.rules("f iifname r1 ip length > 1400 drop")
    facts, _, _ = measure(net)
    by = forward(facts)
    assert by["tcp"].largest_delivered == 1500
    assert by["udp"].largest_delivered == 1500
    (back,) = [f for f in facts if f.direction == "reverse"]
    assert [(s.size, s.result) for s in back.sizes] == [(1500, "lost"), (576, "delivered")]


def test_loss_of_any_size_is_not_a_black_hole(net: Net) -> None:
    net.rules("f numgen random mod 100 < 40 drop")
    lost, sent = 0, 0
    for _ in range(2):
        facts, _, _ = measure(net)
        for fact in facts:
            lost += fact.control_lost or 0
            sent += fact.control_sent or 0
    assert sent > 0
    assert lost > 0.1 * sent


def test_a_filter_that_answers_for_the_destination_is_no_delivery(net: Net) -> None:
    net.rules("f udp dport 30000-40000 reject with icmp port-unreachable")
    facts, blinds, _ = measure(net)
    assert "udp" not in forward(facts)
    (blind,) = [b for b in blinds if b.about.endswith("by udp")]
    assert "10.9.1.1" in blind.reason


def test_nothing_can_be_told_of_a_silent_address(net: Net) -> None:
    net.rules("f drop")
    facts, blinds, seconds = measure(net)
    assert facts == []
    assert len(blinds) >= 3
    assert seconds < 4.0


def test_a_stream_needs_to_know_what_to_say(net: Net) -> None:
    facts, blinds, _ = measure(net, host=None)
    assert "tcp" not in forward(facts)
    assert any("what the port speaks" in b.reason for b in blinds)
    facts, blinds, _ = measure(net, port=None)
    assert any("no port" in b.reason for b in blinds)


def test_small_segments_prove_a_black_hole(net: Net) -> None:
    net.ip("router", "link set r1 mtu 1400")
    net.ip("server", "link set s0 mtu 1500")
    net.rules("o icmp type destination-unreachable drop", "f iifname r1 ip length > 1400 drop")
    url = f"http://{net.SERVER}:8080/"
    (whole,) = net.ask(SendRequest(url=url, timeout=1.0))
    (small,) = net.ask(SendRequest(url=url, timeout=2.0, max_segment=1200))
    assert isinstance(whole, HttpRequest)
    assert isinstance(small, HttpRequest)
    assert whole.result == "timeout"
    assert (small.result, small.status, small.body_bytes, small.max_segment) == ("response", 200, 20_000, 1200)
    (tls,) = net.ask(ShakeTls(address=net.SERVER, port=8443, sni="api.example", max_segment=500))
    assert isinstance(tls, TlsHandshake)
    assert tls.result == "ok"
