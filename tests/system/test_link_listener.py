"""The port on which peers connect to a node."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket

import pytest

from raftkv.actors.system.link.listener import Listener
from raftkv.actors.system.link.settings import BoundedLog
from tests.system.link_nodes import on_a_loop, turns, until


class Greeter(asyncio.Protocol):
    """Greets each connection and closes it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"hello")
        transport.close()


class CountingLog(BoundedLog):
    """Counts the lines."""

    lines = 0

    def warning(self, kind: str, text: str, *values: object) -> None:
        self.lines += 1


async def greeting(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        return await reader.read(-1)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
@on_a_loop
async def test_listens_on_one_port_of_every_address_of_its_host(host: str) -> None:
    listener = Listener(Greeter, BoundedLog())
    port = await listener.start(host, 0)
    try:
        assert await greeting("127.0.0.1", port) == b"hello"
        if socket.has_ipv6 and len(listener._sockets) == 2:
            assert await greeting("::1", port) == b"hello"
    finally:
        await listener.close()
    with pytest.raises(ConnectionRefusedError):
        await greeting("127.0.0.1", port)


@on_a_loop
async def test_an_error_names_the_address_that_is_in_use() -> None:
    listener = Listener(Greeter, BoundedLog())
    port = await listener.start("127.0.0.1", 0)
    try:
        other = Listener(Greeter, BoundedLog())
        with pytest.raises(OSError, match=rf"address already in use: 127\.0\.0\.1:{port}") as raised:
            await other.start("127.0.0.1", port)
        assert raised.value.errno == errno.EADDRINUSE
        with pytest.raises(OSError, match=r"cannot assign requested address: 192\.0\.2\.1:0"):
            await other.start("192.0.2.1", 0)
        await other.close()
    finally:
        await listener.close()


@on_a_loop
async def test_accepts_again_after_a_lack_of_file_descriptors() -> None:
    log = CountingLog()
    listener = Listener(Greeter, log)
    port = await listener.start("127.0.0.1", 0)
    client = socket.socket()
    client.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    try:
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        await until(lambda: log.lines)
        # It retries after a pause, not in each turn of the loop.
        await turns(1000)
        assert log.lines < 100
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await asyncio.get_running_loop().sock_recv(client, 10) == b"hello"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.close()
        await listener.close()
