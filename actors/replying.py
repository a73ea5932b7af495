"""How an answer finds its way to who asked: to an actor of this node, or back over the link to a peer's Node."""

from __future__ import annotations

from typing import Any

from thespian.actors import Actor

from raftkv.actors.messages import Asker, ForwardReply


def reply(actor: Actor, node_id: str, asker: Asker, answer: Any) -> None:
    """Send ``answer`` to ``asker`` in the name of ``actor``, which runs on node ``node_id``."""
    if asker.forward is None:
        actor.send(asker.address, answer)
    else:
        boot, number = asker.forward
        actor.send(asker.address, ForwardReply(node_id, boot, number, answer))
