"""The front end as a whole: listens, accepts connections, leads each request to its action, and stops in order.

One sweep every second closes the connections whose clients are too slow, and no others: a request that waits for the
node has its own deadline. A stop closes idle connections at once, lets requests and streams under way end within a
grace, and cuts off the rest.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Callable
from email.utils import formatdate

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httputil import HTTPConnection, HTTPServerConnectionDelegate
from tornado.netutil import add_accept_handler

from raftkv.actors.gateway import Gateway
from raftkv.config.settings import Limits
from raftkv.http.answers import Headers
from raftkv.http.connection import RequestHeaders
from raftkv.http.errors import ErrorKind, HttpError
from raftkv.http.exchange import Action, Exchange
from raftkv.http.keys import Keys, header_text
from raftkv.http.operations import Describe, Operations
from raftkv.http.stream import Lingerer, Stream, closing_answer
from raftkv.http.target import split_target
from raftkv.http.tornado_connection import TornadoExchange
from raftkv.raft.entry import NodeId

IDLE_TIMEOUT_S = 75.0
BODY_TIMEOUT_S = 30.0
BUFFERED_BYTES = 256 << 20
BACKLOG = 1024
# The exchange counts every byte of a body: its limits depend on the request, and it answers 413.
_NO_LIMIT = 1 << 62
# Files that a node needs for itself: its journal, its peers, its log.
_OTHER_FILES = 128
# How long a stop waits for the sources of streams that it has cut off.
_CLEAN_UP_S = 0.2

_log = logging.getLogger("raftkv.http")
_CROWDED = closing_answer(HttpError(ErrorKind.TOO_MANY_CONNECTIONS))


class Remote:
    """Where a connection comes from, in the form in which Tornado logs it."""

    protocol = "http"

    def __init__(self, address: object) -> None:
        self.remote_ip = str(address[0]) if isinstance(address, tuple) else "0.0.0.0"

    def __str__(self) -> str:
        """Return the client's address."""
        return self.remote_ip


class FrontEnd(HTTPServerConnectionDelegate):
    """Serves ``gateway``'s node over HTTP, on the running loop.

    A connection is closed after ``idle_timeout_s`` without a complete header, and after ``body_timeout_s`` in which the
    client did not complete a body, or did not read an answer or the next piece of a stream. All bodies that are not
    complete yet have at most ``buffered_bytes`` together.
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
        self.streams: set[asyncio.Task[None]] = set()
        self._served_by = header_text(node_id)
        self.answer_headers = self._answer_headers()
        self._limits = limits
        self._keys = Keys(gateway, limits)
        self._operations = Operations(gateway, node_id, describe)
        self._max_connections = max_connections or _most_connections()
        self._tick_s = min(1.0, idle_timeout_s / 4, body_timeout_s / 4)
        self._idle_ticks = round(idle_timeout_s / self._tick_s)
        self._body_ticks = round(body_timeout_s / self._tick_s)
        # Tornado's own time-outs cost 20 µs a request; the sweep does the same for all connections at once.
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
        """How many connections are in the middle of a request, its answer or a stream."""
        return sum(map(self._is_busy, self._connections))

    def listen(self, host: str, port: int) -> None:
        """Accept connections at ``host``; port 0 takes a free one, and sets ``port``. May raise ``OSError``: in use."""
        for listening in _listening_sockets(host, port):
            self._sockets.append((listening, add_accept_handler(listening, self._accept)))
            self.port = self.port or listening.getsockname()[1]
        if self._sweeper is None:
            self._sweep()

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let what is under way end within ``grace_s`` seconds, then close every connection."""
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
            if connection in self._open:
                self._open[connection].close()
            await connection.close()
        if self.streams:
            await asyncio.wait(self.streams, timeout=_CLEAN_UP_S)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._lingerer.close()

    def action(self, method: str, target: str, headers: RequestHeaders) -> Action:
        """Return what a request asks for: the one place that knows which path is served where. Raises ``HttpError``."""
        path, query = split_target(target)
        if path.startswith("/keys/") and len(path) > 6:
            return self._keys.action(method, path[6:], query, headers)
        return self._operations.action(method, path, query)

    # --- Called by Tornado's connections.

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> TornadoExchange:
        """Return the exchange for the next request of a connection; the one before has been answered."""
        assert isinstance(server_conn, HTTP1ServerConnection), "the front end makes its connections itself"
        assert isinstance(request_conn, HTTP1Connection), "the front end makes its connections itself"
        stream = server_conn.stream
        assert isinstance(stream, Stream), "the front end makes its streams itself"
        exchange = self._open[server_conn] = TornadoExchange(self, request_conn, stream)
        if self.stopping:
            stream.close()
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
                _log.debug("a connection over the limit had ended before it could be refused")
            connection.close()
            return
        stream = Stream(connection, self._lingerer, self._limits.header_bytes)
        server_connection = HTTP1ServerConnection(stream, self._parameters, Remote(address))
        self._connections.add(server_connection)
        server_connection.start_serving(self)

    def _answer_headers(self) -> Headers:
        """Return the headers that every answer has."""
        return (("Date", formatdate(usegmt=True)), ("X-Raft-Served-By", self._served_by))

    def _is_busy(self, connection: object) -> bool:
        exchange = self._open.get(connection)
        return exchange is not None and exchange.begun

    def _sweep(self) -> None:
        """Close the connections whose clients have been too slow."""
        self.tick += 1
        self.answer_headers = self._answer_headers()
        for connection in list(self._connections):
            exchange = self._open.get(connection)
            if exchange is None:
                continue
            waited = self.tick - exchange.since_tick
            if waited > (self._body_ticks if exchange.begun else self._idle_ticks) and exchange.waits_for_client:
                exchange.give_up()
        self._sweeper = asyncio.get_running_loop().call_later(self._tick_s, self._sweep)


def _listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of ``host``, all with the same port; raises ``OSError``."""
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, *_, address in dict.fromkeys(found):
        taken = sockets[0].getsockname()[1] if sockets else port
        try:
            # It keeps IPv6 sockets to IPv6, so that both families can have the same port.
            listening = socket.create_server((address[0], taken, *address[2:]), family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                # A name such as localhost often has an address of a family that this machine has switched off.
                unavailable = error
                continue
            for earlier in sockets:
                earlier.close()
            raise
        listening.setblocking(False)
        sockets.append(listening)
    if unavailable is not None and not sockets:
        raise unavailable
    return sockets


def _most_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 16 if soft == resource.RLIM_INFINITY else max(64, soft - _OTHER_FILES)
