"""What the vantage's own kernel and files say: resolv.conf, interfaces, routes, sysctls, listeners, the clock.

Interfaces and routes come from rtnetlink, not /sys, since /sys may show another network namespace.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from mcdoctor.models.facts import Clock, Fact, Interface, Listener, ResolvConf, Route, Socket, Sysctl
from mcdoctor.models.requests import (
    LookUpRoute,
    ReadClock,
    ReadInterfaces,
    ReadListeners,
    ReadResolvConf,
    ReadSysctl,
)
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import wire
from mcdoctor.net.dns import libc

_PROC = Path("/proc")
_OWN_NAMES = {
    "localhost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
}


def resolv_conf(request: ReadResolvConf, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields ResolvConf; without the file the library's default, 127.0.0.1, stands in nobody's list: no nameservers."""
    path = Path("/etc/resolv.conf")
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        yield wire.blind(vantage, ResolvConf, str(path), f"cannot be read: {wire.errno_name(error.errno)}")
        return
    nameservers, search, options = parse_resolv_conf(text)
    try:
        aliases = parse_hosts(Path("/etc/hosts").read_text("utf-8", "replace"))
    except OSError:
        aliases = {}
    yield ResolvConf(
        at=wire.now(),
        vantage=vantage,
        nameservers=nameservers,
        search=search,
        options=options,
        libc=libc(),
        host_aliases=aliases or None,
    )


def parse_resolv_conf(text: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Nameservers, search list and options as the C library reads them: the last search or domain line wins."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = re.split(r"[#;]", line, maxsplit=1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            nameservers.append(words[1])
        elif words[0] == "search":
            search = words[1:]
        elif words[0] == "domain":
            search = words[1:2]
        elif words[0] == "options":
            options += words[1:]
    return tuple(nameservers), tuple(search), tuple(options)


def parse_hosts(text: str) -> dict[str, str]:
    """name: address of /etc/hosts, without the loopback lines that every machine has. The first line of a name wins."""
    own = socket.gethostname()
    aliases: dict[str, str] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        for name in words[1:]:
            if name not in _OWN_NAMES and name != own and not words[0].startswith("fe00::"):
                aliases.setdefault(name, words[0])
    return aliases


# --- rtnetlink ---------------------------------------------------------------------------------------------------

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26
_REQUEST, _DUMP = 1, 0x300
_FIB_MATCH = 0x2000
_ROUTE_TYPES = {1: "unicast", 2: "local", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_ROUTE_PROTOCOLS = {1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 12: "bird", 16: "dhcp", 186: "bgp"}
_REFUSALS = {errno.EINVAL: "blackhole", errno.EACCES: "prohibit"}


def _ask_kernel(kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """Messages that rtnetlink answers with; raises OSError with the kernel's errno."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:  # type: ignore[attr-defined,unused-ignore]
        sock.bind((0, 0))
        sock.settimeout(2.0)
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 1, 0) + body)
        while True:
            data = sock.recv(1 << 17)
            while len(data) >= 16:
                length, answer, _, _, _ = struct.unpack_from("=IHHII", data)
                payload = data[16:length]
                if answer == _NLMSG_DONE or length < 16:
                    return
                if answer == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    if number:
                        raise OSError(number, errno.errorcode.get(number, "netlink"))
                    return
                yield answer, payload
                if not flags & _DUMP:
                    return
                data = data[(length + 3) & ~3 :]


def attributes(data: bytes) -> dict[int, bytes]:
    """`struct rtattr` list to type: value; a cut list ends where it is cut."""
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4 or length > len(data):
            break
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def interfaces(request: ReadInterfaces, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields an Interface each, loopback included."""
    try:
        addresses: dict[int, list[str]] = {}
        for _, message in _ask_kernel(_GETADDR, _DUMP, struct.pack("=B7x", 0)):
            af, prefix, _, _, index = struct.unpack_from("=BBBBI", message)
            attrs = attributes(message[8:])
            raw = attrs.get(2) or attrs.get(1)  # IFA_LOCAL, else IFA_ADDRESS
            if raw and af in (socket.AF_INET, socket.AF_INET6):
                addresses.setdefault(index, []).append(f"{socket.inet_ntop(af, raw)}/{prefix}")
        links = list(_ask_kernel(_GETLINK, _DUMP, struct.pack("=BxHiII", 0, 0, 0, 0, 0)))
    except OSError as error:
        yield wire.blind(vantage, Interface, "interfaces", f"rtnetlink failed: {wire.errno_name(error.errno)}")
        return
    names = {struct.unpack_from("=i", m, 4)[0]: _text(attributes(m[16:]).get(3, b"")) for _, m in links}
    for _, message in links:
        _, hardware, index, flags, _ = struct.unpack_from("=BxHiII", message)
        attrs = attributes(message[16:])
        name = names[index]
        linked = struct.unpack("=I", attrs[5])[0] if len(attrs.get(5, b"")) == 4 else None
        yield Interface(
            at=wire.now(),
            vantage=vantage,
            name=name,
            mtu=struct.unpack("=I", attrs[4])[0] if len(attrs.get(4, b"")) == 4 else 0,
            addresses=tuple(addresses.get(index, ())),
            type=_link_kind(attrs, hardware),
            up=bool(flags & 1),
            # IFLA_LINK of a veth numbers an interface of the other namespace: named only when it is one of ours
            peer=names.get(linked) if linked and linked != index and 37 not in attrs else None,
            offloads=_offloads(name),
            counters=_counters(attrs.get(23, b"")),
        )


def _link_kind(attrs: dict[int, bytes], hardware: int) -> str | None:
    kind = attributes(attrs.get(18, b"")).get(1)  # IFLA_LINKINFO / IFLA_INFO_KIND
    if kind:
        return _text(kind)
    return {772: "loopback", 1: "physical", 768: "ipip", 776: "sit", 778: "gre", 65534: "tun"}.get(hardware)


def _counters(raw: bytes) -> dict[str, float] | None:
    """rtnl_link_stats64: packets, bytes, errors and drops."""
    if len(raw) < 64:
        return None
    names = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped")
    return dict(zip(names, map(float, struct.unpack_from("=8Q", raw)), strict=True))


def _offloads(name: str) -> dict[str, str] | None:
    """ETHTOOL_G* of the offloads that change packet sizes or checksums; needs no privilege."""
    import array
    import fcntl

    found = {}
    commands = {"rx-checksum": 0x14, "tx-checksum": 0x16, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for label, command in commands.items():
            value = array.array("I", [command, 0])
            try:
                fcntl.ioctl(sock, 0x8946, struct.pack("16sP", name.encode()[:15], value.buffer_info()[0]))
            except OSError:
                continue
            found[label] = "on" if value[1] else "off"
    return found or None


def route(request: LookUpRoute, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields Route: the table's line that matches and what the kernel makes of it, a learned path MTU included.

    No route at all comes as type `unreachable` with the address itself as destination.
    """
    address = wire.ip_address(request.address).partition("%")[0]
    try:
        plain = _look_up(address, 0)
    except OSError as error:
        if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, *_REFUSALS):
            yield wire.blind(vantage, Route, address, f"rtnetlink failed: {wire.errno_name(error.errno)}")
            return
        yield Route(
            at=wire.now(),
            vantage=vantage,
            destination=f"{address}/{128 if wire.is_v6(address) else 32}",
            lookup=address,
            type=_REFUSALS.get(error.errno, "unreachable"),  # type: ignore[arg-type]  # literals of the map above
        )
        return
    try:
        line = _look_up(address, _FIB_MATCH)
    except OSError:  # kernels before 4.13 do not know the flag for both families
        line = plain
    header, attrs = plain
    line_header, line_attrs = line
    af = socket.AF_INET6 if wire.is_v6(address) else socket.AF_INET
    prefix, table, protocol, kind = line_header[1], line_header[4], line_header[5], header[7]
    if kind in (6, 7, 8) or line_header[7] in (6, 7, 8):
        kind = line_header[7]
    network = socket.inet_ntop(af, line_attrs[1]) if 1 in line_attrs else None
    number = struct.unpack("=I", line_attrs[15])[0] if 15 in line_attrs else table
    yield Route(
        at=wire.now(),
        vantage=vantage,
        destination=f"{network}/{prefix}" if network and prefix else "default",
        lookup=address,
        type=_ROUTE_TYPES.get(kind),  # type: ignore[arg-type]  # literals of the map above
        via=_gateway(attrs, af),
        dev=_device(attrs),
        src=socket.inet_ntop(af, attrs[7]) if 7 in attrs else None,
        table={254: "main", 255: "local", 253: "default"}.get(number, str(number)),
        metric=struct.unpack("=I", line_attrs[6])[0] if 6 in line_attrs else None,
        mtu=_metric_mtu(attrs) or _metric_mtu(line_attrs),
        protocol=_ROUTE_PROTOCOLS.get(protocol, str(protocol) if protocol else None),
    )


def device_towards(address: str) -> str | None:
    """Name of the interface that a packet to the address leaves by; None where there is no route."""
    try:
        _, attrs = _look_up(address.partition("%")[0], 0)
    except OSError:
        return None
    return _device(attrs)


def on_link(address: str) -> bool:
    """True when the address belongs to a network that this machine is part of, or to itself."""
    try:
        header, attrs = _look_up(address, 0)
    except OSError:
        return False
    return header[7] == 2 or _gateway(attrs, socket.AF_INET6 if wire.is_v6(address) else socket.AF_INET) is None


def _look_up(address: str, flags: int) -> tuple[tuple[int, ...], dict[int, bytes]]:
    af = socket.AF_INET6 if wire.is_v6(address) else socket.AF_INET
    raw = socket.inet_pton(af, address)
    body = (
        struct.pack("=BBBBBBBBI", af, len(raw) * 8, 0, 0, 0, 0, 0, 0, flags) + struct.pack("=HH", 4 + len(raw), 1) + raw
    )
    for _, message in _ask_kernel(_GETROUTE, 0, body):
        return struct.unpack_from("=BBBBBBBB", message), attributes(message[12:])
    raise OSError(errno.ENETUNREACH, "no answer")


def _gateway(attrs: dict[int, bytes], af: int) -> str | None:
    if 5 in attrs:
        return socket.inet_ntop(af, attrs[5])
    if 18 in attrs and len(attrs[18]) in (6, 18):  # RTA_VIA: an IPv4 route through an IPv6 neighbour
        via = struct.unpack_from("=H", attrs[18])[0]
        return socket.inet_ntop(via, attrs[18][2:])
    return None


def _device(attrs: dict[int, bytes]) -> str | None:
    if 4 not in attrs:
        return None
    index = struct.unpack("=I", attrs[4])[0]
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _metric_mtu(attrs: dict[int, bytes]) -> int | None:
    raw = attributes(attrs.get(8, b"")).get(2)  # RTA_METRICS / RTAX_MTU
    return struct.unpack("=I", raw)[0] if raw and len(raw) == 4 else None


# --- /proc -------------------------------------------------------------------------------------------------------


def sysctl(request: ReadSysctl, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields Sysctl for each name that exists; nothing for one that does not; Blind for one that may not be read."""
    for name in request.names:
        if not re.fullmatch(r"[a-z0-9_]+(\.[A-Za-z0-9_/@:-]+)+", name):
            yield wire.blind(vantage, Sysctl, name, "not the name of a kernel setting")
            continue
        # sysctl(8): a dot parts, a slash stands for a dot inside a name such as an interface's
        path = _PROC / "sys" / Path(*(part.replace("/", ".") for part in name.split(".")))
        try:
            value = " ".join(path.read_text("utf-8", "replace").split())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except OSError as error:
            yield wire.blind(vantage, Sysctl, name, f"cannot be read: {wire.errno_name(error.errno)}")
            continue
        yield Sysctl(at=wire.now(), vantage=vantage, name=name, value=value)


def listening() -> list[Socket]:
    """Listening TCP and bound, unconnected UDP sockets of this network namespace; raises OSError."""
    found = []
    for file, protocol, state in (
        ("tcp", "tcp", "0A"),
        ("tcp6", "tcp", "0A"),
        ("udp", "udp", "07"),
        ("udp6", "udp", "07"),
    ):
        try:
            text = (_PROC / "net" / file).read_text("utf-8", "replace")
        except FileNotFoundError:  # no IPv6 here
            continue
        found += parse_proc_net(text, protocol, state)
    return found


def parse_proc_net(text: str, protocol: str, state: str) -> list[Socket]:
    """Sockets in `state` from /proc/net/{tcp,udp}[6]; lines of another shape are passed over."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 5 or words[3] != state:
            continue
        try:
            address, _, port = words[1].partition(":")
            raw = bytes.fromhex(address)
            host = b"".join(struct.pack("=I", n) for n in struct.unpack(f">{len(raw) // 4}I", raw))
            name = socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, host)
            waiting = int(words[4].partition(":")[2], 16)
            found.append(
                Socket(address=name, port=int(port, 16), protocol=protocol, backlog=str(waiting) if waiting else None)  # type: ignore[arg-type]
            )
        except (ValueError, struct.error):
            continue
    return found


def listeners(request: ReadListeners, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields Listener; `backlog` is how many connections wait to be accepted, where any do."""
    try:
        yield Listener(at=wire.now(), vantage=vantage, sockets=tuple(listening()))
    except OSError as error:
        yield wire.blind(vantage, Listener, "/proc/net", f"cannot be read: {wire.errno_name(error.errno)}")


def clock(request: ReadClock, vantage: Vantage, deadline: float) -> Iterator[Fact]:
    """Yields Clock: this clock less the asking side's, the way of the request included (milliseconds)."""
    yield Clock(at=wire.now(), vantage=vantage, offset_s=round(time.time() - request.now, 3), reference="collector")


def capabilities() -> frozenset[str]:
    """Those of the effective capabilities that widen what can be seen: net_raw, net_admin, net_bind_service."""
    try:
        text = (_PROC / "self/status").read_text()
        value = int(re.search(r"^CapEff:\s*([0-9a-f]+)", text, re.MULTILINE)[1], 16)  # type: ignore[index]
    except (OSError, TypeError):
        return frozenset()
    return frozenset(n for bit, n in ((10, "net_bind_service"), (12, "net_admin"), (13, "net_raw")) if value >> bit & 1)


def may_ping() -> bool:
    """True when the kernel gives this group ping sockets (net.ipv4.ping_group_range)."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except OSError:
        return False
    return True
