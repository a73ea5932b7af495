"""What all messages share: their bases, and the types of their fields. Times are milliseconds, sizes bytes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from raftkv.raft.names import NAME_LENGTH

RoleName = Literal["bootstrap", "follower", "candidate", "leader"]
Index = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Term = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
TimeoutMs = Annotated[float, msgspec.Meta(ge=0, le=86_400_000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH)]
Level = Literal["linearizable", "stale"]
"""How fresh a read is to be."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message that stays inside the node."""

    for_role: ClassVar[bool] = False
    """Whether Node passes it on to the role that holds the replica."""
    ignored_by: ClassVar[frozenset[RoleName]] = frozenset()
    """The roles to which it means nothing; all others have a handler for it, if it is for the role."""


class WireMessage(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A message, or a part of one, that may go to another node. Tags are on the wire and are never used again."""

    for_role: ClassVar[bool] = False
    ignored_by: ClassVar[frozenset[RoleName]] = frozenset()


class PeerMessage(WireMessage, frozen=True):
    """A message between the Node actors of two nodes.

    A subclass is all that declares one: its tag and fields, its lane (``is_control``), its ``check``, whether the
    network may repeat it, and whether it is for the role that holds the replica (``for_role``) or for Node itself.
    ``raftkv.actors.messages.wire`` finds it; tests then ask for its handlers and for its check in the simulation.
    ``sender`` is the node that sent the message: the link checks it against the peer that proved its identity.
    """

    for_role: ClassVar[bool] = True
    may_repeat: ClassVar[bool] = True
    """Whether it does no harm when it arrives twice."""

    sender: Name

    def is_control(self) -> bool:
        """Whether it goes in the control lane of the link, before anything bulky."""
        return True

    def check(self) -> None:
        """Raise ``msgspec.ValidationError`` for fields that would stop the node that handles the message."""
