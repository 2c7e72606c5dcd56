"""The one process that owns a running lab: `python -m mcdoctor.lab.supervisor FOLDER [--detached]`.

It leaves the host's namespaces, forks a process a host (which runs the host's servers), joins them with veth pairs and
then forwards every packet itself. It ends on SIGTERM, SIGINT, or when its standard input ends, which is when its
parent does; the kernel ends the hosts with it, and the namespaces end with their processes.

Says one JSON line on standard output: `{"hosts": {name: pid}, …}` when everything listens, or `{"error": text}`.
"""

from __future__ import annotations

import fcntl
import gc
import heapq
import itertools
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcdoctor.lab import namespaces
from mcdoctor.lab.schema import BadLab, Host, LabSpec, load

if TYPE_CHECKING:
    from mcdoctor.lab.fabric import Fabric

_ETH_P_IP = 0x0800
_GATEWAY, _GATEWAY_MAC = "169.254.1.1", "02:00:5e:00:00:01"
_READY_WITHIN = 20.0


def main(arguments: list[str]) -> int:
    folder, detached = Path(arguments[0]), "--detached" in arguments[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    try:
        lab = load(folder / "lab.yaml")
        hosts, sockets = _build(lab)
    except (OSError, BadLab, _NotReady) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    print(json.dumps({"hosts": hosts, "pid": os.getpid()}), flush=True)
    _let_go_of(1)
    from mcdoctor.lab.fabric import Fabric

    _forward(Fabric(lab), lab, sockets, watch=None if detached else 0)
    return 0


class _NotReady(Exception):
    pass


def _let_go_of(*descriptors: int) -> None:
    """Standard streams that somebody may be waiting on."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _build(lab: LabSpec) -> tuple[dict[str, int], dict[str, socket.socket]]:
    """Makes hosts and lines; the pid and the packet socket of each host."""
    namespaces.enter_private_world()
    certificates, trusted = _certificates(lab)
    namespaces.own_etc(_etc(lab, trusted))
    _import_early(lab)
    pids: dict[str, int] = {}
    pipes: dict[str, tuple[int, int]] = {}
    for name, host in lab.hosts.items():
        pids[name], *ends = _fork_host(name, host, certificates.get(name, {}))
        pipes[name] = (ends[0], ends[1])
    for name, (answers, _) in pipes.items():
        _expect(answers, "unshared", name)
    sockets = _join(lab, pids)
    for _, go in pipes.values():
        os.write(go, b"go")
        os.close(go)
    for name, (answers, _) in pipes.items():
        _expect(answers, "ready", name)
        os.close(answers)
    return pids, sockets


def _import_early(lab: LabSpec) -> None:
    """Before forking, so that it is paid once."""
    import mcdoctor.lab.servers  # noqa: F401

    _iproute()
    if any(host.dns for host in lab.hosts.values()):
        import dns.message
        import dns.rdtypes.ANY.CNAME
        import dns.rdtypes.ANY.SOA
        import dns.rdtypes.IN.A
        import dns.rrset  # noqa: F401
    gc.collect()
    gc.freeze()


def _iproute() -> Any:
    from pyroute2.iproute.linux import IPRoute

    return IPRoute


def _certificates(lab: LabSpec) -> tuple[Mapping[str, Mapping[int, bytes]], str | None]:
    """Key and certificate for each host and port, and the CA to trust; none where nothing speaks TLS."""
    if not any(web.tls for host in lab.hosts.values() for web in host.http):
        return {}, None
    from mcdoctor.lab.certificates import authority, server_certificate

    trusted, foreign = authority("Lab Root CA"), authority("Some Other CA")
    return {
        name: {
            web.port: server_certificate(trusted if web.tls.trusted else foreign, web.tls)
            for web in host.http
            if web.tls
        }
        for name, host in lab.hosts.items()
    }, trusted.pem()


def _etc(lab: LabSpec, trusted: str | None) -> dict[str, str]:
    """The files under /etc that differ from the machine's; those of one host under `lab/`."""
    files = {"resolv.conf": "", "hosts": "127.0.0.1 localhost\n", "nsswitch.conf": "passwd: files\nhosts: files dns\n"}
    for name, host in lab.hosts.items():
        conf = host.resolv_conf
        lines = []
        if conf is not None:
            lines += [f"search {' '.join(conf.search)}"] if conf.search else []
            lines += [f"nameserver {server}" for server in conf.nameservers]
            lines += [f"options {' '.join(conf.options)}"] if conf.options else []
        files[f"lab/{name}.resolv.conf"] = "\n".join([*lines, ""])
        files[f"lab/{name}.hosts"] = f"127.0.0.1 localhost\n::1 localhost\n{host.address} {_hostname(name, host)}\n"
    if trusted:
        files["lab/ca.crt"] = trusted
    return files


def _hostname(name: str, host: Host) -> str:
    return host.pod.partition("/")[2] if host.pod else name


# --- a host ------------------------------------------------------------------------------------------------------


def _fork_host(name: str, host: Host, certificates: Mapping[int, bytes]) -> tuple[int, int, int]:
    """Forks the process of a host: its pid, the end to read its answers from, the end that lets it go on."""
    answers, answer = os.pipe()
    wait, go = os.pipe()
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        os.close(answer)
        os.close(wait)
        return pid, answers, go
    code = 1
    try:
        os.close(answers)
        os.close(go)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        namespaces.die_with_parent(supervisor)
        _run_host(name, host, certificates, answer, wait)
        code = 0
    except BaseException as error:
        with suppress(OSError):
            os.write(answer, f"error {error}\n".encode())
    finally:
        os._exit(code)


def _run_host(name: str, host: Host, certificates: Mapping[int, bytes], answer: int, wait: int) -> None:
    namespaces.unshare(namespaces.NEWNET | namespaces.NEWNS | namespaces.NEWUTS)
    namespaces.bind(f"/etc/lab/{name}.resolv.conf", "/etc/resolv.conf")
    namespaces.bind(f"/etc/lab/{name}.hosts", "/etc/hosts")
    namespaces.set_hostname(_hostname(name, host))
    namespaces.write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")  # pods of an IPv4 cluster have no IPv6
    namespaces.write_sysctl("net/ipv4/ping_group_range", "0 0")  # as container runtimes do
    namespaces.write_sysctl("net/ipv4/tcp_mtu_probing", "0")
    os.write(answer, b"unshared\n")
    os.read(wait, 2)
    _configure(host)
    import asyncio

    from mcdoctor.lab.servers import on_trouble, serve

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(on_trouble)
        await serve(host, certificates)
        _let_go_of(0, 1)
        os.write(answer, b"ready\n")
        os.close(answer)
        await asyncio.Event().wait()

    asyncio.run(run())


def _configure(host: Host) -> None:
    """Address and routes as Calico gives them to pods: a /32 and one gateway for everything."""
    namespaces.offloads_off("eth0")
    with _iproute()() as ip:
        link = socket.if_nametoindex("eth0")
        ip.link("set", index=1, state="up")
        ip.link("set", index=link, state="up")
        ip.addr("add", index=link, address=host.address, prefixlen=32)
        ip.neigh("add", dst=_GATEWAY, lladdr=_GATEWAY_MAC, ifindex=link, state=0x80)  # NUD_PERMANENT
        ip.route("add", dst=f"{_GATEWAY}/32", oif=link, scope=253)
        ip.route("add", dst="default", gateway=_GATEWAY, oif=link)


def _expect(answers: int, word: str, name: str) -> None:
    ready, _, _ = select.select([answers], [], [], _READY_WITHIN)
    line = os.read(answers, 500).decode(errors="replace").strip() if ready else "no answer"
    if not line.startswith(word):
        raise _NotReady(f"host {name}: {line.removeprefix('error ') or 'ended'}")


# --- the network between -----------------------------------------------------------------------------------------


def _join(lab: LabSpec, pids: Mapping[str, int]) -> dict[str, socket.socket]:
    """A veth pair for each host, its near end as a packet socket."""
    sockets = {}
    with _iproute()() as ip:
        for number, (name, host) in enumerate(lab.hosts.items()):
            near = f"h{number}"
            far = {"ifname": "eth0", "net_ns_pid": pids[name], "mtu": host.mtu, "address": _mac(number)}
            ip.link("add", ifname=near, kind="veth", mtu=9000, state="up", peer=far)
            namespaces.offloads_off(near)
            channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # a protocol only on bind: one wait less
            channel.bind((near, _ETH_P_IP))
            channel.setblocking(False)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            sockets[name] = channel
    return sockets


def _mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def _forward(fabric: Fabric, lab: LabSpec, sockets: Mapping[str, socket.socket], watch: int | None) -> None:
    """Carries packets until told to end. `watch`: a descriptor whose end means that the parent is gone."""
    wake, ended = _wake_on_signals()
    by_number = {channel.fileno(): (name, channel) for name, channel in sockets.items()}
    gateway = bytes.fromhex(_GATEWAY_MAC.replace(":", ""))
    frame = {
        name: bytes.fromhex(_mac(number).replace(":", "")) + gateway + _ETH_P_IP.to_bytes(2, "big")
        for number, name in enumerate(lab.hosts)
    }
    watched = [*by_number, wake, *([watch] if watch is not None else [])]
    later: list[tuple[float, int, str, bytes]] = []
    order = itertools.count()
    clock = time.monotonic

    def send(host: str, packet: bytes) -> None:
        with suppress(OSError):  # a full queue or a line that is gone loses the packet, as on a real one
            sockets[host].send(frame[host] + packet)

    while True:
        pause = max(0.0, later[0][0] - clock()) if later else None
        ready, _, _ = select.select(watched, [], [], pause)
        for number in ready:
            if number not in by_number:
                if number == wake and not ended():
                    continue
                return
            host, channel = by_number[number]
            for _ in range(32):
                try:
                    data = channel.recv(65536)
                except OSError:
                    break
                now = clock()
                for after, receiver, packet in fabric.handle(host, data[14:], now):
                    if after <= 0:
                        send(receiver, packet)
                    else:
                        heapq.heappush(later, (now + after, next(order), receiver, packet))
        while later and later[0][0] <= clock():
            _, _, receiver, packet = heapq.heappop(later)
            send(receiver, packet)


def _wake_on_signals() -> tuple[int, Any]:
    """A descriptor that becomes readable on a signal, and a function that says whether one means the end."""
    wake, end = os.pipe()
    for descriptor in (wake, end):
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK)
    signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)

    def ended() -> bool:
        return any(number != signal.SIGCHLD for number in os.read(wake, 64))

    return wake, ended


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # nothing to tidy: the kernel ends the hosts with this process
