"""How an answer finds its way to who asked: to an actor of this node, or back over the link to a peer's Node."""

from __future__ import annotations

from typing import Any

from thespian.actors import Actor

from raftkv.actors.messages.requests import ForwardReply, ReplyTo


def reply(actor: Actor, node_id: str, reply_to: ReplyTo, answer: Any) -> None:
    """Send ``answer`` to ``reply_to`` in the name of ``actor``, which runs on node ``node_id``."""
    if reply_to.forward is None:
        actor.send(reply_to.address, answer)
    else:
        boot, number = reply_to.forward
        actor.send(reply_to.address, ForwardReply(node_id, boot, number, answer))
