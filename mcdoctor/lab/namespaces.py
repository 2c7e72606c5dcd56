"""Linux namespaces by system call: the few that the lab needs, without tools and without root.

Works as root (no user namespace needed) and as a plain user (user namespace with one mapped id). Raises OSError with
the call's name where the kernel refuses.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import signal
import socket
import struct
from contextlib import suppress
from pathlib import Path

NEWNS, NEWUTS, NEWUSER, NEWNET = 0x00020000, 0x04000000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_SPARE = "/tmp"  # noqa: S108 - a folder that every machine has
_SIOCETHTOOL = 0x8946
# ETHTOOL_S{RXCSUM,TXCSUM,SG,TSO,GSO,GRO}
_OFFLOADS = (0x15, 0x17, 0x19, 0x1F, 0x24, 0x2C)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: object, about: str = "") -> int:
    result: int = getattr(_libc(), name)(*args)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}{f' {about}' if about else ''}: {os.strerror(error)}")
    return result


def unshare(flags: int) -> None:
    _call("unshare", ctypes.c_int(flags))


def mount(source: str, target: str, kind: str | None = None, flags: int = 0) -> None:
    encoded = kind.encode() if kind else None
    _call("mount", source.encode(), target.encode(), encoded, ctypes.c_ulong(flags), None, about=target)


def bind(source: str, target: str) -> None:
    mount(source, target, flags=_MS_BIND | _MS_REC)


def unmount(target: str) -> None:
    _call("umount2", target.encode(), ctypes.c_int(_MNT_DETACH), about=target)


def make_mounts_private() -> None:
    """Nothing that is mounted from here on is seen outside."""
    mount("none", "/", flags=_MS_REC | _MS_PRIVATE)


def set_hostname(name: str) -> None:
    socket.sethostname(name[:64])


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when `parent` (its parent's pid) ends. Exits at once when that is past."""
    _call("prctl", ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGKILL), *(ctypes.c_ulong(0),) * 3)
    if os.getppid() != parent:
        os._exit(1)


def enter_private_world() -> None:
    """Leaves the host: new network, mount and UTS namespaces, in a new user namespace where that is needed."""
    if os.geteuid() == 0:
        try:
            unshare(NEWNET | NEWNS | NEWUTS)
        except PermissionError:
            pass  # root without CAP_SYS_ADMIN, as in a container: like a plain user
        else:
            make_mounts_private()
            return
    uid, gid = os.geteuid(), os.getegid()
    unshare(NEWUSER | NEWNET | NEWNS | NEWUTS)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
    make_mounts_private()


def own_etc(files: dict[str, str]) -> None:
    """/etc becomes a folder in memory: the old entries as links, and `files` (relative path: content) on top."""
    mount("tmpfs", _SPARE, "tmpfs")  # hidden for a moment, in this mount namespace only
    fresh = Path(_SPARE, "etc")
    (fresh / ".host").mkdir(parents=True)
    bind("/etc", str(fresh / ".host"))
    for entry in (fresh / ".host").iterdir():
        if entry.name not in files:
            (fresh / entry.name).symlink_to(f".host/{entry.name}")
    for name, content in files.items():
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).write_text(content, encoding="utf-8")
    bind(str(fresh), "/etc")
    unmount(_SPARE)


def offloads_off(interface: str) -> None:
    """Packets leave the interface as they would on a wire: whole checksums, no oversized segments."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in _OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0), 8)
            request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
            with suppress(OSError):  # not every kernel lets each be switched; the test of the lab sees the packets
                fcntl.ioctl(control, _SIOCETHTOOL, request)


def write_sysctl(name: str, value: str) -> None:
    """Sets a network setting of this namespace; where /proc is read-only the kernel's default stays."""
    with suppress(OSError):
        Path("/proc/sys", *name.split("/")).write_text(value, encoding="ascii")


_WHY = {
    errno.ENOSPC: "their number is limited by /proc/sys/user/max_*_namespaces",
    errno.EPERM: "the kernel, a container's profile or AppArmor refuses them",
    errno.EACCES: "the kernel, a container's profile or AppArmor refuses them",
}


def why_not() -> str | None:
    """Tries, in a child, what a lab needs. None when it works, else the reason in a few words."""
    if not hasattr(os, "fork") or not Path("/proc/self/ns/net").exists():
        return "this is not Linux"
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        reason = ""
        try:
            os.close(read_end)
            enter_private_world()
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0):
                pass
        except OSError as error:
            reason = _WHY.get(error.errno or 0) or error.strerror or str(error)
        except BaseException as error:
            reason = type(error).__name__
        os.write(write_end, reason.encode()[:500])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8", errors="replace") as answer:
        reason = answer.read()
    os.waitpid(child, 0)
    return f"network namespaces are not allowed here ({reason})" if reason else None
