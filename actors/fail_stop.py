"""The base of a node's own actors: handlers found by name, and fail-stop.

A handler that raises has hit a bug. The actor's state may be half changed, so it must not handle another message,
nor the same one again (Thespian would retry it). The node stops instead, and a restart recovers from disk.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, ClassVar

from thespian.actors import Actor

from raftkv.actors.messages.base import Message, WireMessage
from raftkv.actors.messages.node import Start
from raftkv.actors.messages.requests import ForwardReply, Reply, ReplyTo, Status
from raftkv.environment import Environment
from raftkv.exit_status import EXIT_BUG
from raftkv.raft.entry import NodeId

Handler = Callable[[Any, Any], None]


class FailStopActor(Actor):
    """An actor whose handlers are its methods named ``on_`` and the class of the message, such as ``on_Start``.

    Every message of ours has a handler or is listed in ``ignores``; anything else is a bug. Messages of Thespian
    without a handler are dropped. ``sender`` is the address that the message being handled came from.
    """

    retry_failed_messages = False
    label: ClassVar[str] = "actor"
    """What reports of bugs call this actor."""
    handlers: ClassVar[dict[str, Handler]] = {}
    ignores: ClassVar[frozenset[type]] = frozenset()
    """Messages that may arrive and mean nothing here."""

    start: Start
    environment: Environment
    node_id: NodeId
    sender: Any = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        # One look-up per message; Thespian's own dispatcher walks two class hierarchies for each.
        cls.handlers = {name[3:]: getattr(cls, name) for name in dir(cls) if name.startswith("on_")}

    def receiveMessage(self, message: Any, sender: Any) -> None:
        """Handle one message; stop the node if that raises."""
        self.sender = sender
        try:
            self.handle(message)
        except Exception as error:
            self.failed(message, error)

    def handle(self, message: Any) -> None:
        """Call the handler of a message."""
        handler = self.handlers.get(type(message).__name__)
        if handler is not None:
            handler(self, message)
        else:
            self.unhandled(message)

    def unhandled(self, message: Any) -> None:
        """Drop a message without a handler, if that is intended."""
        kind = type(message)
        missed = issubclass(kind, Message | WireMessage) and not self.is_ignored(kind)
        assert not missed, f"no handler for {kind.__name__} in {self.label}"

    @classmethod
    def is_ignored(cls, kind: type[Message | WireMessage]) -> bool:
        """Whether messages of this class may arrive and mean nothing here."""
        return kind in cls.ignores

    def on_Start(self, message: Start) -> None:
        """Learn the addresses of the node's other actors, and the environment."""
        self.start = message
        self.node_id = message.node_id
        self.environment = message.environment

    def reply(self, reply_to: ReplyTo, answer: Reply | Status) -> None:
        """Answer a request, of an actor of this node or of another node."""
        if reply_to.forward is None:
            self.send(reply_to.address, answer)
        else:
            boot_id, number = reply_to.forward
            # No request that a peer can send is answered by a Status.
            assert not isinstance(answer, Status), answer
            self.send(reply_to.address, ForwardReply(self.node_id, boot_id, number, answer))

    def failed(self, message: Any, error: Exception) -> None:
        """Stop the node, which has a bug; before there is an environment, let the actor system report it."""
        if not hasattr(self, "environment"):
            raise error
        line = f"bug in {self.label}: {error!r} on {message!r:.500}"
        self.environment.fail(EXIT_BUG, f"{line}\n{traceback.format_exc()}")
