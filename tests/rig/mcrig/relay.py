"""Carries a loopback port of the host into a machine: `relay.py PORT PID HOST PORT`.

The listening socket is made on the host; then the process moves into the machine's network namespace, so that
every connection onwards starts there. Sockets keep the namespace they were made in.
"""

import asyncio
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


async def main(port: int, pid: int, host: str, target: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), reuse_port=False, backlog=256)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward_reader, onward_writer = await asyncio.open_connection(host, target)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(pump(reader, onward_writer), pump(onward_reader, writer))
        for end in (writer, onward_writer):
            end.close()

    async with await asyncio.start_server(serve, sock=listener) as server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
