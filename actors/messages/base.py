"""What all messages share: their two bases, and the types of their fields. Times are milliseconds, sizes bytes."""

from __future__ import annotations

from typing import Annotated, Literal

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


class Wire(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A message that may go to another node."""
