"""How messages between nodes become bytes and come back.

Everything that comes from another node is checked here, once: whatever ``decode_peer`` returns can be handled, appended
and applied without stopping this node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

import msgspec

# Importing a module of messages is what makes its messages known here.
import raftkv.actors.messages.node
import raftkv.actors.messages.raft
import raftkv.actors.messages.requests  # noqa: F401
from raftkv.actors.messages.base import PeerMessage

PEER_MESSAGES: tuple[type[PeerMessage], ...] = tuple(PeerMessage.__subclasses__())
"""Every message that may come from another node."""

_decoder: msgspec.msgpack.Decoder[PeerMessage] = msgspec.msgpack.Decoder(Union[PEER_MESSAGES])  # noqa: UP007

encode_peer: Callable[[PeerMessage], bytes] = msgspec.msgpack.Encoder().encode


def decode_peer(data: bytes) -> PeerMessage:
    """Return a peer's message; raises ``msgspec.DecodeError`` where it is not one that a node of ours would send."""
    try:
        message = _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.ValidationError(f"text that is not UTF-8: {error}") from None
    except RecursionError:
        raise msgspec.ValidationError("nested too deeply") from None
    message.check()
    return message


def is_control(message: PeerMessage) -> bool:
    """Whether ``message`` goes in the control lane of the link, before anything bulky."""
    return message.is_control()
