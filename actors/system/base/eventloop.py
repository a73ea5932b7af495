"""A Thespian system base on an asyncio event loop: all actors of a node in one process.

``start_on_loop`` makes an actor system on the running loop. After ``install()`` Thespian's own
``ActorSystem("eventLoopBase")`` works too; where no loop is running, it gets a thread with a loop of its own.
Messages are passed by reference: who has sent one must not change it any more.
"""

from __future__ import annotations

import asyncio
import logging
import logging.config
import sys
import types
from threading import get_ident
from typing import Any

from thespian.actors import ActorSystem

from raftkv.actors.system.base.addresses import NodeAddress, remote_address
from raftkv.actors.system.base.base import SHUTDOWN_TIMEOUT_S, EventLoopBase
from raftkv.actors.system.base.loop_thread import LoopThread
from raftkv.actors.system.base.router import Transport
from raftkv.actors.system.base.thread_cell import current_actor_base

__all__ = [
    "BASE_NAME",
    "PICKLE_MESSAGES",
    "ActorSystemBase",
    "EventLoopBase",
    "EventLoopSystem",
    "NodeAddress",
    "Transport",
    "install",
    "remote_address",
    "start_on_loop",
]

BASE_NAME = "eventLoopBase"
# The capability that turns on the debug mode of pickling every message, where there is no constructor to tell.
PICKLE_MESSAGES = "Pickle Messages"


class EventLoopSystem(ActorSystem):
    """An ``ActorSystem`` that keeps its ``base``, which is needed for what Thespian has no name for.

    That is: ``deliver`` and ``peer_changed`` for a transport, ``dead_letters``, and ``wait_closed`` after a shutdown.
    """

    def __init__(self, base: EventLoopBase) -> None:
        super().__init__(systemBase=base, capabilities=base.capabilities, transientUnique=True)
        self.base = base
        self.systemAddress = base.address


def start_on_loop(
    capabilities: dict[str, Any] | None = None,
    node_id: str = "",
    transport: Transport | None = None,
    pickle_messages: bool = False,
    shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S,
) -> EventLoopSystem:
    """Make an actor system on the running event loop.

    On the loop's thread ``ask`` and ``listen`` return awaitables, ``shutdown`` returns at once: then
    ``await system.base.wait_closed()``. ``pickle_messages`` copies every message by pickling it, to find those who
    change what they have sent. Actors that have not exited ``shutdown_timeout_s`` after a shutdown are given up.
    """
    base = EventLoopBase(
        asyncio.get_running_loop(),
        get_ident(),
        dict(capabilities or {}),
        node_id=node_id,
        transport=transport,
        pickle_messages=pickle_messages,
        shutdown_timeout_s=shutdown_timeout_s,
    )
    return EventLoopSystem(base)


class ActorSystemBase(EventLoopBase):
    """The base as Thespian makes it by name: on the running loop, or else on a thread with a loop of its own."""

    def __init__(self, system: Any, logDefs: Any = None) -> None:
        if logDefs:
            logging.config.dictConfig(logDefs)
        self._loop_thread: LoopThread | None = None
        try:
            loop, thread = asyncio.get_running_loop(), get_ident()
        except RuntimeError:
            self._loop_thread = LoopThread()
            loop, thread = self._loop_thread.loop, self._loop_thread.begin()
        super().__init__(
            loop, thread, system.capabilities, pickle_messages=bool(system.capabilities.get(PICKLE_MESSAGES))
        )
        system.systemAddress = self.address

    def shutdown(self) -> None:
        """End all actors, the system, and the loop's thread if it is our own."""
        super().shutdown()
        if self._loop_thread is not None and current_actor_base() is not self:
            self._loop_thread.join(SHUTDOWN_TIMEOUT_S)

    def finish(self) -> None:
        """Release all that wait, and stop the loop if it is our own."""
        super().finish()
        if self._loop_thread is not None:
            self._loop_thread.stop(self.message_loop.drain)
            # Another thread may get the same identity once this one has ended.
            self.thread = 0


def install(name: str = BASE_NAME) -> None:
    """Make the base known to Thespian, so that ``ActorSystem(name)`` finds it."""
    module = types.ModuleType(f"thespian.system.{name}", __doc__)
    module.ActorSystemBase = ActorSystemBase  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
