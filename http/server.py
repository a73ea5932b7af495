"""The front end as a whole: listens, takes connections, sends each request to its action, and stops in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Callable
from email.utils import formatdate

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPServerConnectionDelegate
from tornado.netutil import add_accept_handler

from raftkv.actors.gateway import Gateway
from raftkv.config.settings import Limits
from raftkv.http.errors import RETRY_SOON, HttpError
from raftkv.http.exchange import Action, Exchange
from raftkv.http.keys import Keys, header_text
from raftkv.http.operations import Describe, Operations
from raftkv.http.stream import Lingerer, Stream, closing_answer
from raftkv.http.target import split_target
from raftkv.raft.entry import NodeId

IDLE_TIMEOUT_S = 75.0
BODY_TIMEOUT_S = 30.0
BUFFERED_BYTES = 256 << 20
BACKLOG = 1024
# Every byte that is read is counted by the exchange, whose limits depend on the request and answer with a 413.
_NO_LIMIT = 1 << 62
# Files that a node needs for itself: its journal, its peers, its log.
_OTHER_FILES = 128

_log = logging.getLogger("raftkv.http")
_CROWDED = closing_answer(
    HttpError(503, "too_many_connections", "this node has as many connections as it can take", headers=RETRY_SOON)
)


class Remote:
    """Where a connection comes from, as Tornado's log and its applications want to know."""

    protocol = "http"

    def __init__(self, address: object) -> None:
        self.remote_ip = str(address[0]) if isinstance(address, tuple) else "0.0.0.0"

    def __str__(self) -> str:
        """Return the client's address."""
        return self.remote_ip


class FrontEnd(HTTPServerConnectionDelegate):
    """Serves ``gateway``'s node over HTTP, on the running loop.

    A connection is closed after ``idle_timeout_s`` without a complete header, and after ``body_timeout_s`` in which a
    body did not become complete or an answer was not fetched. All bodies that are not yet complete together have at
    most ``buffered_bytes``.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        node_id: NodeId,
        limits: Limits,
        describe: Describe = dict,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        body_timeout_s: float = BODY_TIMEOUT_S,
        max_connections: int | None = None,
        buffered_bytes: int = BUFFERED_BYTES,
    ) -> None:
        self.port = 0
        self.stopping = False
        self.tick = 0
        self.buffered_bytes = 0
        self.buffered_limit = buffered_bytes
        self.date = formatdate(usegmt=True)
        self.served_by = header_text(node_id)
        self._limits = limits
        self._keys = Keys(gateway, limits)
        self._operations = Operations(gateway, node_id, describe)
        self._max_connections = max_connections or _connections_we_can_have()
        self._tick_s = min(1.0, idle_timeout_s / 4, body_timeout_s / 4)
        self._idle_ticks = round(idle_timeout_s / self._tick_s)
        self._body_ticks = round(body_timeout_s / self._tick_s)
        # No time-outs of Tornado's own: they cost 20 µs a request, and the sweep does the same for all connections.
        self._parameters = HTTP1ConnectionParameters(max_header_size=limits.header_bytes, max_body_size=_NO_LIMIT)
        self._lingerer = Lingerer()
        self._sockets: list[tuple[socket.socket, Callable[[], None]]] = []
        self._open: dict[object, Exchange] = {}
        self._connections: set[HTTP1ServerConnection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def busy(self) -> int:
        """How many connections are in the middle of a request or its answer."""
        return sum(map(self._is_busy, self._connections))

    def listen(self, host: str, port: int) -> None:
        """Accept connections at ``host``; port 0 takes a free one, see ``port``. Raises ``OSError`` if it is in use."""
        for listening in _listening_sockets(host, port):
            self._sockets.append((listening, add_accept_handler(listening, self._accept)))
            self.port = self.port or listening.getsockname()[1]
        if self._sweeper is None:
            self._sweep()

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let requests under way end within ``grace_s`` seconds, then close every connection."""
        self.stopping = True
        self._parameters.no_keep_alive = True
        for listening, remove in self._sockets:
            remove()
            listening.close()
        self._sockets.clear()
        for connection in list(self._connections):
            if not self._is_busy(connection):
                connection.stream.close()
        if self.busy:
            self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._drained], timeout=grace_s)
        for connection in list(self._connections):
            await connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._lingerer.close()

    def action(self, method: str, target: str, headers: HTTPHeaders) -> Action:
        """Return what a request asks for: the one place where paths lead to what serves them. Raises ``HttpError``."""
        path, query = split_target(target)
        if path.startswith("/keys/") and len(path) > 6:
            return self._keys.action(method, path[6:], query, headers)
        return self._operations.action(method, path, query)

    # --- What Tornado's connections call.

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> Exchange:
        """Wait for the next request of a connection: the one before, if any, has been answered."""
        assert isinstance(server_conn, HTTP1ServerConnection), "the front end makes its connections itself"
        assert isinstance(request_conn, HTTP1Connection), "the front end makes its connections itself"
        exchange = self._open[server_conn] = Exchange(self, server_conn, request_conn)
        if self.stopping:
            server_conn.stream.close()
        return exchange

    def on_close(self, server_conn: object) -> None:
        """Forget a connection that has ended."""
        self._open.pop(server_conn, None)
        self._connections.discard(server_conn)
        if self._drained is not None and not self._drained.done() and not self.busy:
            self._drained.set_result(None)

    # --- Connections.

    def _accept(self, connection: socket.socket, address: object) -> None:
        if len(self._connections) >= self._max_connections:
            try:
                connection.send(_CROWDED)
            except OSError:
                _log.debug("a connection too many was gone before it could be told")
            connection.close()
            return
        stream = Stream(connection, self._lingerer, self._limits.header_bytes)
        server_connection = HTTP1ServerConnection(stream, self._parameters, Remote(address))
        self._connections.add(server_connection)
        server_connection.start_serving(self)

    def _is_busy(self, connection: object) -> bool:
        exchange = self._open.get(connection)
        return exchange is not None and exchange.begun

    def _sweep(self) -> None:
        """Close the connections that have kept us waiting for too long."""
        self.tick += 1
        self.date = formatdate(usegmt=True)
        for connection in list(self._connections):
            exchange = self._open.get(connection)
            if exchange is None:
                continue
            waited = self.tick - exchange.since_tick
            if waited > (self._body_ticks if exchange.begun else self._idle_ticks) and exchange.waits_for_client:
                exchange.give_up()
        self._sweeper = asyncio.get_running_loop().call_later(self._tick_s, self._sweep)


def _listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address that ``host`` means, all with one port; raises ``OSError``."""
    sockets: list[socket.socket] = []
    not_here: OSError | None = None
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, *_, address in dict.fromkeys(found):
        taken = sockets[0].getsockname()[1] if sockets else port
        try:
            # This keeps IPv6 sockets to IPv6, so that both families can have the same port.
            listening = socket.create_server((address[0], taken, *address[2:]), family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                # A name such as localhost often means an address of a family that this machine has switched off.
                not_here = error
                continue
            for earlier in sockets:
                earlier.close()
            raise
        listening.setblocking(False)
        sockets.append(listening)
    if not_here is not None and not sockets:
        raise not_here
    return sockets


def _connections_we_can_have() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 16 if soft == resource.RLIM_INFINITY else max(64, soft - _OTHER_FILES)
