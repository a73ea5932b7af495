"""The port on which peers connect to this node.

It accepts connections itself, one in each turn of the loop, instead of using asyncio's server: that one leaks a
connection that arrives while the server is closed (CPython 3.11), and accepts a whole backlog at once.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from raftkv.actors.system.link.settings import BoundedLog

BACKLOG = 128
RETRY_S = 0.1


class Listener:
    """Listens on every address of a host; ``protocol`` returns the protocol of a new connection."""

    def __init__(self, protocol: Callable[[], asyncio.BaseProtocol], log: BoundedLog) -> None:
        self._protocol = protocol
        self._log = log
        self._sockets: list[socket.socket] = []
        self._retries: dict[socket.socket, asyncio.TimerHandle] = {}
        self._starting: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen on ``port`` (0: any free one) and return it; raises ``OSError``. An empty host: all interfaces."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        missing = OSError("the name has no address")
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                try:
                    # All addresses share the port of the first one.
                    self._listen(family, (address[0], port, *address[2:]))
                    port = self._sockets[0].getsockname()[1]
                except OSError as error:
                    if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise
                    missing = error
            if not self._sockets:
                # Some of several may be missing: "localhost" names ::1 even on machines without IPv6.
                raise missing
        except OSError:
            self._close_sockets()
            raise
        for sock in self._sockets:
            self._watch(sock)
        return port

    def _listen(self, family: int, address: tuple[str | int, ...]) -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            words = os.strerror(error.errno or 0).lower()
            raise OSError(error.errno, f"{words}: {address[0]}:{address[1]}") from None
        self._sockets.append(sock)

    def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, _ = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # No file descriptor left, for example. The connection keeps waiting, so the loop would call again at once.
            self._log.warning("accept", "can't accept a connection: %s", error)
            loop.remove_reader(sock)
            self._retries[sock] = loop.call_later(RETRY_S, self._watch, sock)
            return
        connection.setblocking(False)
        task = loop.create_task(self._serve(connection))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def _watch(self, sock: socket.socket) -> None:
        self._retries.pop(sock, None)
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()

    async def close(self) -> None:
        """Stop listening. When this returns, every accepted connection has its protocol."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
        for timer in self._retries.values():
            timer.cancel()
        self._close_sockets()
        if self._starting:
            await asyncio.wait(self._starting)

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self._retries.clear()
