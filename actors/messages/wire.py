"""How messages between nodes become bytes and come back.

Everything that comes from another node is checked here, once: whatever ``decode_peer`` returns has the form of a
message that a node of ours would send, and its entries can be applied. Whether it is true, only the sender knows: a
peer with the cluster's secret is trusted not to contradict what is committed.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Union

import msgspec

import raftkv.actors.messages
from raftkv.actors.messages.base import PeerMessage


def _subclasses(kind: type[PeerMessage]) -> Iterator[type[PeerMessage]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


# A message is known here when its module has been imported; which modules a program imports otherwise must not matter.
for _module in pkgutil.iter_modules(raftkv.actors.messages.__path__, f"{raftkv.actors.messages.__name__}."):
    if _module.name != __name__:
        importlib.import_module(_module.name)

PEER_MESSAGES: tuple[type[PeerMessage], ...] = tuple(_subclasses(PeerMessage))
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
