"""Sending to one peer: dialling it until it is connected, and queueing, refusing or dropping messages to it.

No message is ever sent twice. A bulk message of which nothing has left this node is given back with a reason; a control
message may be dropped, which is only counted. ``on_up`` and ``on_down`` take turns, and bulk messages to a peer that is
not up are refused at once. Failed dials are repeated with exponential backoff and jitter.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from typing import Any

import msgspec

from raftkv.actors.system.link.handshake import Reason, Refusal
from raftkv.actors.system.link.lanes import QueuedMessage
from raftkv.actors.system.link.outgoing import Outgoing
from raftkv.actors.system.link.resolver import Resolver, SocketAddresses, split_address
from raftkv.actors.system.link.settings import Context, LinkSettings, logger

OVERFLOW = "too much is queued to be sent"

_encode_body = msgspec.msgpack.Encoder().encode


class OutboundPeer:
    """One peer that we send to.

    ``refusal`` says in plain words why the peer is not connected; it is empty when it is. ``failures`` counts failed
    dials and short-lived connections in a row. ``up`` is the state that was reported last, by ``on_up`` or ``on_down``.
    Both, and ``on_refused``, are called in a later turn of the loop, in the order of the events.
    """

    def __init__(self, context: Context, peer: str, address: str) -> None:
        self.id = peer
        self.up = False
        self.refusal = "not tried yet"
        self.failures = 0
        self._address = split_address(address)
        self._context = context
        self._resolver = Resolver()
        self._connection: Outgoing | None = None
        self._task: asyncio.Task[None] | None = None
        self._skip_backoff = asyncio.Event()
        self._closing = False

    # --- Sending.

    @property
    def waiting(self) -> int:
        """The bytes queued in our lanes and in the transport."""
        return 0 if self._connection is None else self._connection.waiting

    def send(self, target: str, source: str, message: Any) -> None:
        """Queue a message, or refuse or drop it."""
        context, connection = self._context, self._connection
        control = context.codec.is_control(message)
        if connection is None or not (control or self.up):
            self._refuse(target, source, message, control, self.refusal)
            return
        body = _encode_body((target, source, context.codec.encode(message)))
        if len(body) > context.settings.message_bytes:
            self._refuse(target, source, message, control, f"message of {len(body)} bytes is over the limit")
        elif control and len(body) <= context.settings.frame_bytes:
            self._send_control(connection, body)
        else:
            self._send_bulk(connection, QueuedMessage(target, source, message, body, control=control))

    def _send_control(self, connection: Outgoing, body: bytes) -> None:
        dropped = connection.lanes.put_control(body)
        connection.schedule_flush()
        if dropped:
            self._context.stats.control_dropped += dropped
            self._overflow(connection)

    def _send_bulk(self, connection: Outgoing, queued: QueuedMessage) -> None:
        if connection.lanes.put_bulk(queued):
            connection.schedule_flush()
        else:
            # First this message, which was certainly not sent and may be retried; then on_down, after which others may
            # be lost.
            self._refuse(queued.target, queued.source, queued.message, queued.control, OVERFLOW)
            self._overflow(connection)

    def _overflow(self, connection: Outgoing) -> None:
        connection.overflowed = True
        if self.up:
            self._context.stats.overflows += 1
            self._report_down(OVERFLOW)

    def _refuse(self, target: str, source: str, message: Any, control: bool, reason: str) -> None:
        if control:
            # Losses are normal for Raft's own messages, and a returned one would be out of date.
            self._context.stats.control_dropped += 1
            return
        self._context.stats.bulk_refused += 1
        loop = asyncio.get_running_loop()
        loop.call_soon(self._context.on_refused, self.id, target, source, message, reason)

    # --- What the connection calls (``ConnectionOwner``).

    def established(self, connection: Outgoing) -> None:
        """Send messages through ``connection`` from now on."""
        self._connection = connection
        self._context.stats.connects += 1
        self._report_up()

    def drained(self, connection: Outgoing) -> None:
        """Report the peer as up again, after an overflow."""
        if connection is self._connection:
            self._report_up()

    def lost(self, connection: Outgoing) -> None:
        """Report the peer as down, and give back the bulk messages of which nothing has left this node."""
        self._connection = None
        self._context.stats.losses += 1
        for queued in connection.lanes.clear():
            self._refuse(queued.target, queued.source, queued.message, queued.control, connection.reason)
        self._report_down(connection.reason)

    def _report_up(self) -> None:
        self.up = True
        self.refusal = ""
        logger.info("%s is connected", self.id)
        asyncio.get_running_loop().call_soon(self._context.on_up, self.id)

    def _report_down(self, reason: str) -> None:
        self.refusal = reason
        if self.up:
            self.up = False
            logger.log(logging.INFO if self._closing else logging.WARNING, "%s is not connected: %s", self.id, reason)
            asyncio.get_running_loop().call_soon(self._context.on_down, self.id, reason)

    # --- Dialling.

    def start(self) -> None:
        """Start dialling."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"dial {self.id}")

    def set_address(self, address: str) -> None:
        """Dial another address from the next dial on; raises ``ValueError``."""
        self._address = split_address(address)
        self._skip_backoff.set()

    def skip_backoff(self) -> None:
        """Dial without waiting any longer: the peer has just connected to us."""
        self._skip_backoff.set()

    def tick(self) -> None:
        """Send a keepalive, or give up a peer that has not answered for too long."""
        if self._connection is not None:
            self._connection.tick(self._context.settings.silent_ticks)

    async def close(self, reason: str, grace_s: float) -> None:
        """Stop dialling; send what is queued, for at most ``grace_s`` seconds, then end the connection."""
        self._closing = True
        connection = self._connection
        if connection is not None and grace_s > 0:
            connection.finish(reason)
            await asyncio.wait([connection.closed], timeout=grace_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if connection is not None:
            connection.fail(reason)
            await asyncio.wait([connection.closed])
        self._report_down(reason)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection = await self._connect()
            except (OSError, Refusal) as error:
                self.failures += 1
                self._failed(error)
            except Exception:
                # A bug here must not end the dialling for good.
                self.failures += 1
                self.refusal = "internal error"
                logger.exception("dialling %s failed", self.id)
            else:
                since = loop.time()
                # Not "await connection.closed": cancelling this task would cancel that future too.
                await asyncio.wait([connection.closed])
                # A connection that ends soon counts as a failure: two nodes with the same id would otherwise replace
                # each other's connections without a pause.
                lasted = (loop.time() - since) * 1000 >= self._context.settings.backoff_max_ms
                self.failures = 1 if lasted else self.failures + 1
            await self._back_off()

    def _failed(self, error: OSError | Refusal) -> None:
        text = describe(error)
        self._context.stats.failed_dials[error.reason if isinstance(error, Refusal) else "not reached"] += 1
        if text != self.refusal:
            self.refusal = text
            logger.warning("%s at %s:%d is not connected: %s", self.id, *self._address, text)

    async def _back_off(self) -> None:
        try:
            async with asyncio.timeout(backoff_ms(self._context.settings, self.failures, self._context.rng) / 1000):
                await self._skip_backoff.wait()
        except TimeoutError:
            pass
        self._skip_backoff.clear()

    async def _connect(self) -> Outgoing:
        settings = self._context.settings
        try:
            async with asyncio.timeout(settings.connect_ms / 1000):
                addresses = await self._resolver.resolve(*self._address)
            connection = await self._connect_to_any(addresses, settings.connect_ms / 1000 / len(addresses))
        except TimeoutError:
            raise TimeoutError(f"no answer within {settings.connect_ms} ms") from None
        try:
            async with asyncio.timeout(settings.handshake_ms / 1000):
                await connection.handshaken
        except TimeoutError:
            raise Refusal(Reason.DEADLINE) from None
        finally:
            if connection.peer is None and not connection.over:
                connection.fail("handshake not done")
        return connection

    async def _connect_to_any(self, addresses: SocketAddresses, each_s: float) -> Outgoing:
        # Each address gets a share of the time: the first one may never answer.
        last: OSError = OSError("the name has no address")
        for host, port in addresses:
            try:
                async with asyncio.timeout(each_s):
                    loop = asyncio.get_running_loop()
                    _, connection = await loop.create_connection(self._new_connection, host, port)
                    return connection
            except OSError as error:
                last = error
        raise last

    def _new_connection(self) -> Outgoing:
        return Outgoing(self._context, self.id, self)


def backoff_ms(settings: LinkSettings, failures: int, rng: random.Random) -> float:
    """Return how long to wait after ``failures`` in a row: about twice as long each time, up to a maximum.

    The jitter keeps nodes that lost each other at the same moment from dialling at the same moment.
    """
    longest_ms = min(settings.backoff_max_ms, settings.backoff_min_ms << min(failures - 1, 16))
    return longest_ms * rng.uniform(0.5, 1.0)


def describe(error: OSError | Refusal) -> str:
    """Return in plain words why a peer was not reached."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError):
        # asyncio replaces the system's own text by one with the address.
        words = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        return (words or str(error) or type(error).__name__).lower()
    return str(error)
