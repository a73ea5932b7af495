"""Everything about one peer that we send to: dialling it again and again, and what to do with messages meanwhile."""

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

OVERFLOW = "more waits to be sent than may wait"

_encode_body = msgspec.msgpack.Encoder().encode


class OutboundPeer:
    """One peer and the way to it. ``refusal`` says, for people, why it is not connected; empty when it is.

    ``failures`` counts attempts and short-lived connections in a row. ``up`` is what was told last: ``on_up`` and
    ``on_down`` take turns. They and ``on_refused`` are called in a later turn of the loop, in the order in which
    things happened.
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
        self._hurry = asyncio.Event()
        self._closing = False

    # --- Sending.

    @property
    def waiting(self) -> int:
        """Bytes that wait in our lanes and in the transport."""
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
        connection.wake()
        if dropped:
            self._context.stats.control_dropped += dropped
            self._overflow(connection)

    def _send_bulk(self, connection: Outgoing, parcel: QueuedMessage) -> None:
        if connection.lanes.put_bulk(parcel):
            connection.wake()
        else:
            # First who was certainly not sent, then that others may be lost: the first may be asked for again.
            self._refuse(parcel.target, parcel.source, parcel.message, parcel.control, OVERFLOW)
            self._overflow(connection)

    def _overflow(self, connection: Outgoing) -> None:
        connection.overflowed = True
        if self.up:
            self._context.stats.overflows += 1
            self._down(OVERFLOW)

    def _refuse(self, target: str, source: str, message: Any, control: bool, reason: str) -> None:
        if control:
            # Loss is normal for Raft's own messages, and they would be out of date when somebody hears of it.
            self._context.stats.control_dropped += 1
            return
        self._context.stats.bulk_refused += 1
        loop = asyncio.get_running_loop()
        loop.call_soon(self._context.on_refused, self.id, target, source, message, reason)

    # --- What the connection tells (``Owner``).

    def established(self, connection: Outgoing) -> None:
        """Carry messages from now on."""
        self._connection = connection
        self._context.stats.connects += 1
        self._came_up()

    def relieved(self, connection: Outgoing) -> None:
        """Carry messages again, now that fewer wait."""
        if connection is self._connection:
            self._came_up()

    def lost(self, connection: Outgoing) -> None:
        """Say so, and give back the bulk messages of which nothing has left this node."""
        self._connection = None
        self._context.stats.losses += 1
        for parcel in connection.lanes.clear():
            self._refuse(parcel.target, parcel.source, parcel.message, parcel.control, connection.reason)
        self._down(connection.reason)

    def _came_up(self) -> None:
        self.up = True
        self.refusal = ""
        logger.info("%s is connected", self.id)
        asyncio.get_running_loop().call_soon(self._context.on_up, self.id)

    def _down(self, reason: str) -> None:
        self.refusal = reason
        if self.up:
            self.up = False
            logger.log(logging.INFO if self._closing else logging.WARNING, "%s is not connected: %s", self.id, reason)
            asyncio.get_running_loop().call_soon(self._context.on_down, self.id, reason)

    # --- Dialling.

    def start(self) -> None:
        """Begin to dial."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"dial {self.id}")

    def move(self, address: str) -> None:
        """Dial another address from the next time on; raises ``ValueError``."""
        self._address = split_address(address)
        self._hurry.set()

    def hurry(self) -> None:
        """Dial without waiting: the peer has just shown that it is there."""
        self._hurry.set()

    def tick(self) -> None:
        """Note that time has passed."""
        if self._connection is not None:
            self._connection.tick(self._context.settings.silent_ticks)

    async def close(self, reason: str, grace_s: float) -> None:
        """Dial no more; send what waits within ``grace_s`` seconds, then end the connection."""
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
        self._down(reason)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection = await self._connect()
            except (OSError, Refusal) as error:
                self.failures += 1
                self._failed(error)
            except Exception:
                # Not dialling any more would be the worst that a bug could do here.
                self.failures += 1
                self.refusal = "internal error"
                logger.exception("dialling %s failed", self.id)
            else:
                since = loop.time()
                # Not "await connection.closed": to cancel this task would cancel that future too.
                await asyncio.wait([connection.closed])
                # A connection that ends as soon as it is made is a failure too, or two nodes that were given one id
                # would push each other out without a pause.
                lasted = (loop.time() - since) * 1000 >= self._context.settings.backoff_max_ms
                self.failures = 1 if lasted else self.failures + 1
            await self._wait()

    def _failed(self, error: OSError | Refusal) -> None:
        text = describe(error)
        self._context.stats.failed_dials[error.reason if isinstance(error, Refusal) else "not reached"] += 1
        if text != self.refusal:
            self.refusal = text
            logger.warning("%s at %s:%d is not connected: %s", self.id, *self._address, text)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(backoff_ms(self._context.settings, self.failures, self._context.rng) / 1000):
                await self._hurry.wait()
        except TimeoutError:
            pass
        self._hurry.clear()

    async def _connect(self) -> Outgoing:
        settings = self._context.settings
        try:
            async with asyncio.timeout(settings.connect_ms / 1000):
                addresses = await self._resolver.resolve(*self._address)
            connection = await self._reach(addresses, settings.connect_ms / 1000 / len(addresses))
        except TimeoutError:
            raise TimeoutError(f"no answer within {settings.connect_ms} ms") from None
        try:
            async with asyncio.timeout(settings.handshake_ms / 1000):
                await connection.shaken
        except TimeoutError:
            raise Refusal(Reason.DEADLINE) from None
        finally:
            if connection.peer is None and not connection.over:
                connection.fail("handshake not done")
        return connection

    async def _reach(self, addresses: SocketAddresses, each_s: float) -> Outgoing:
        # Each address has its share of the time: the first may be a black hole.
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
    """Return how long to wait before dialling again after ``failures`` in a row: twice as long each time, about.

    At random, so that nodes that lost each other at one moment do not all come back at one moment.
    """
    longest_ms = min(settings.backoff_max_ms, settings.backoff_min_ms << min(failures - 1, 16))
    return longest_ms * rng.uniform(0.5, 1.0)


def describe(error: OSError | Refusal) -> str:
    """Return why a peer was not reached, for people."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError):
        # asyncio puts the address in place of the system's own words.
        words = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        return (words or str(error) or type(error).__name__).lower()
    return str(error)
