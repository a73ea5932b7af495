"""Addresses of peers, resolved at each connect: a restarted container has a new address under its old name."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

SocketAddresses = list[tuple[str, int]]


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[host]:port``; raises ``ValueError``."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError(f"not host:port: {address!r}")
    return host, int(port)


class Resolver:
    """Resolves the name of one peer, on at most one thread however long the name service takes."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, int], asyncio.Future[SocketAddresses | OSError]] = {}

    async def resolve(self, host: str, port: int) -> SocketAddresses:
        """Return socket addresses in order of preference; raises ``OSError``. May be cancelled and called again."""
        with contextlib.suppress(OSError):
            return _look_up(host, port, socket.AI_NUMERICHOST)
        answer = self._pending.get((host, port))
        if answer is None:
            answer = self._pending[host, port] = self._start(host, port)
        found = await asyncio.shield(answer)
        if isinstance(found, OSError):
            raise found
        return found

    def _start(self, host: str, port: int) -> asyncio.Future[SocketAddresses | OSError]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[SocketAddresses | OSError] = loop.create_future()

        def done(found: SocketAddresses | OSError) -> None:
            del self._pending[host, port]
            answer.set_result(found)

        def work() -> None:
            try:
                found: SocketAddresses | OSError = _look_up(host, port)
            except OSError as error:
                found = error
            with contextlib.suppress(RuntimeError):  # The loop may have been closed.
                loop.call_soon_threadsafe(done, found)

        # A daemon, unlike the threads of the loop's executor: a look-up that hangs must not delay the exit.
        threading.Thread(target=work, name=f"look up {host}", daemon=True).start()
        return answer


def _look_up(host: str, port: int, flags: int = 0) -> SocketAddresses:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError:
        raise OSError(f"not a host name: {host!r}") from None
    return list(dict.fromkeys((str(info[4][0]), port) for info in found))
