"""Runs on a node: opens sockets in the networks of its pods. Speaks JSON lines, see `matrix.Prober`."""

import ctypes
import errno
import json
import os
import pathlib
import select
import socket
import sys
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
_NETWORKS = pathlib.Path("/run/netns")


def enter(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _LIBC.setns(descriptor, 0x40000000):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


def networks():
    """Address to the network namespace of the pod that has it."""
    found = {}
    for path in _NETWORKS.iterdir():
        try:
            enter(str(path))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect(("192.0.2.1", 9))  # sends nothing; picks the address that the pod would send from
                found[probe.getsockname()[0]] = str(path)
        except OSError:
            continue
    return found


def outcome(code):
    if code == 0:
        return "open"
    if code == errno.ECONNREFUSED:
        return "refused"
    return "silent" if code in (errno.ETIMEDOUT, errno.EINPROGRESS, errno.EAGAIN) else "unreachable"


def run(probes, timeout, known):
    results = ["silent"] * len(probes)
    waiting = {}
    poller = select.epoll()
    for index in sorted(range(len(probes)), key=lambda index: probes[index][0]):
        source, destination, protocol, port = probes[index]
        enter(known[source])
        end = socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM)
        end.setblocking(False)
        code = end.connect_ex((destination, port))
        if protocol == "UDP" and code == 0:
            end.send(b"?")
        elif code not in (0, errno.EINPROGRESS):
            results[index] = outcome(code)
            end.close()
            continue
        poller.register(end, select.EPOLLOUT if protocol == "TCP" else select.EPOLLIN)
        waiting[end.fileno()] = (end, index, protocol)
    until = time.monotonic() + timeout
    while waiting and (left := until - time.monotonic()) > 0:
        for descriptor, _ in poller.poll(left):
            end, index, protocol = waiting.pop(descriptor)
            poller.unregister(descriptor)
            code = end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if protocol == "UDP" and code == 0:
                try:
                    end.recv(64)
                except OSError as error:
                    code = error.errno
            results[index] = outcome(code)
            end.close()
    for end, _, _ in waiting.values():
        end.close()
    poller.close()
    return results


def main():
    known = networks()
    for line in sys.stdin:
        request = json.loads(line)
        if any(probe[0] not in known for probe in request["probes"]):
            known = networks()
        print(json.dumps(run(request["probes"], request["timeout"], known)), flush=True)


main()
