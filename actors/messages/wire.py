"""How messages between nodes become bytes and come back, and which of them are urgent.

What comes from another node is checked here, once: whatever ``decode_peer`` returns can be handled, appended and
applied without stopping this node.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftkv.actors.messages.node import AdvertiseAddress
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    BootstrapHello,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.messages.requests import Forward, ForwardReply
from raftkv.raft.configuration import decode_configuration
from raftkv.raft.entry import Kind
from raftkv.store.commands import decode_commands

PeerMessage = (
    RequestVote
    | RequestVoteReply
    | AppendEntries
    | AppendEntriesReply
    | TimeoutNow
    | Forward
    | ForwardReply
    | BootstrapHello
    | AdvertiseAddress
)

_KINDS = frozenset(Kind)
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[PeerMessage] = msgspec.msgpack.Decoder(PeerMessage)

encode_peer: Callable[[PeerMessage], bytes] = _encoder.encode


def decode_peer(data: bytes) -> PeerMessage:
    """Return a peer's message; raises ``msgspec.DecodeError`` where it is not one that a node of ours would send."""
    try:
        message = _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.ValidationError(f"text that is not UTF-8: {error}") from None
    except RecursionError:
        raise msgspec.ValidationError("nested too deeply") from None
    if isinstance(message, AppendEntries):
        _check_entries(message)
    return message


def _check_entries(message: AppendEntries) -> None:
    """Raise ``msgspec.ValidationError`` for entries that would stop the node that appends or applies them."""
    index, term = message.prev_log_index, message.prev_log_term
    for entry in message.entries:
        index += 1
        if entry.index != index or not term <= entry.term <= message.term or entry.kind not in _KINDS:
            raise msgspec.ValidationError(f"entry {entry.index} of term {entry.term} where {index} belongs")
        if entry.kind == Kind.COMMANDS:
            decode_commands(entry.data)
        elif entry.kind == Kind.CONFIGURATION:
            if index != 1:
                # The members are those of the founding, until there is a way to change them.
                raise msgspec.ValidationError(f"a configuration at index {index}")
            decode_configuration(entry.data)
        term = entry.term


def is_control(message: PeerMessage) -> bool:
    """Whether ``message`` goes in the control lane of the link, before anything bulky."""
    return not isinstance(message, Forward | ForwardReply) and not (
        isinstance(message, AppendEntries) and message.entries
    )
