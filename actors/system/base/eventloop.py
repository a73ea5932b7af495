"""A Thespian actor system on an asyncio event loop: the entry points to this package.

``start_on_loop`` starts an actor system on the running loop. After ``install()``, Thespian's own
``ActorSystem("eventLoopBase")`` works too; where no loop is running, it starts a thread with a loop of its own.
Messages are passed by reference: a sender must not change a message that it has sent.
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
from raftkv.actors.system.base.thread_cell import current_actor_host

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
# The capability that turns on the debug mode of pickling every message, for systems created by Thespian by name.
PICKLE_MESSAGES = "Pickle Messages"


class EventLoopSystem(ActorSystem):
    """An ``ActorSystem`` that exposes its ``base``, for what Thespian's interface does not have.

    These are ``deliver`` and ``peer_changed`` for a transport, ``dead_letters``, and ``wait_closed`` after a shutdown.
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
    """Start an actor system on the running event loop.

    On the loop's thread ``ask`` and ``listen`` return awaitables, and ``shutdown`` returns at once; ``await
    system.base.wait_closed()`` waits for its end. ``pickle_messages`` copies every message by pickling it, to find
    actors that change a message after sending it. Actors that have not ended ``shutdown_timeout_s`` after the shutdown
    began are abandoned.
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
    """The base that Thespian creates by name: on the running loop, or else on a thread with a loop of its own."""

    def __init__(self, system: Any, logDefs: Any = None) -> None:
        if logDefs:
            logging.config.dictConfig(logDefs)
        self._loop_thread: LoopThread | None = None
        try:
            loop, thread = asyncio.get_running_loop(), get_ident()
        except RuntimeError:
            self._loop_thread = LoopThread()
            loop, thread = self._loop_thread.loop, self._loop_thread.start()
        super().__init__(
            loop, thread, system.capabilities, pickle_messages=bool(system.capabilities.get(PICKLE_MESSAGES))
        )
        system.systemAddress = self.address

    def shutdown(self) -> None:
        """Shut the system down, and end the loop's thread if it is our own."""
        super().shutdown()
        if self._loop_thread is not None and current_actor_host() is not self:
            self._loop_thread.join(SHUTDOWN_TIMEOUT_S)

    def finish(self) -> None:
        """Finish the shutdown, and stop the loop if it is our own."""
        super().finish()
        if self._loop_thread is not None:
            self._loop_thread.stop(self.message_loop.drain)
            # After this thread has ended, another one may get the same identity.
            self.thread = 0


def install(name: str = BASE_NAME) -> None:
    """Register the base with Thespian, so that ``ActorSystem(name)`` finds it."""
    module = types.ModuleType(f"thespian.system.{name}", __doc__)
    module.ActorSystemBase = ActorSystemBase  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
