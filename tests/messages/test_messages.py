"""What crosses between nodes: it comes back as it went, and nothing else comes in."""

from __future__ import annotations

import ast
import contextlib
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import raftkv.actors.messages
from raftkv.actors.messages.base import PeerMessage
from raftkv.actors.messages.node import AdvertiseAddress
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    BootstrapHello,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.messages.requests import (
    Applied,
    AskReadIndex,
    Done,
    Forward,
    ForwardReply,
    Propose,
    ReadIndex,
    ReadResult,
    Refused,
)
from raftkv.actors.messages.wire import PEER_MESSAGES, decode_peer, encode_peer, is_control
from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import Delete, DeleteDone, Item, Put, PutDone, encode_commands

COMMANDS = (Put("k", b"\xff"), Delete("ä"))
ENTRIES = (Entry(4, 2, Kind.NOOP, b""), Entry(5, 3, Kind.COMMANDS, encode_commands(COMMANDS)))
MESSAGES: list[PeerMessage] = [
    RequestVote("n1", 3, 9, 2, True, True),
    RequestVoteReply("n1", 3, True, True),
    AppendEntries("n1", 3, 3, 2, ENTRIES, 4, 7),
    AppendEntriesReply("n1", 3, False, 9, 7, 2, 5, True, 100),
    TimeoutNow("n1", 3),
    Forward("n1", 2**62, 5, Propose(COMMANDS, 1500.0)),
    Forward("n1", 1, 5, AskReadIndex(1500.0)),
    *(
        ForwardReply("n1", 1, 5, reply)
        for reply in (
            Applied(5, 3, 2, (PutDone(1), DeleteDone(2, True))),
            ReadResult(5, 2, (Item(b"", 1, 2, 2), None)),
            ReadIndex(5),
            Done(),
            Refused("unknown", "who knows"),
        )
    ),
    BootstrapHello("n1", "i1", "list", (("n1", "i1"), ("n2", "i2")), b"founding", True),
    AdvertiseAddress("n1", "10.0.0.1:4001"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_went(message: PeerMessage) -> None:
    assert decode_peer(encode_peer(message)) == message


def test_every_message_is_tried_here() -> None:
    missing = [kind.__name__ for kind in PEER_MESSAGES if kind not in map(type, MESSAGES)]
    assert not missing, f"no example of {', '.join(missing)} in MESSAGES"


@pytest.mark.parametrize(
    "entries",
    [
        (Entry(5, 2, Kind.NOOP, b""),),
        (Entry(4, 2, Kind.NOOP, b""), Entry(6, 2, Kind.NOOP, b"")),
        (Entry(4, 1, Kind.NOOP, b""),),
        (Entry(4, 3, Kind.NOOP, b""), Entry(5, 2, Kind.NOOP, b"")),
        (Entry(4, 4, Kind.NOOP, b""),),
        (Entry(4, 3, 9, b""),),
        (Entry(4, 3, Kind.COMMANDS, b"\xc1"),),
        (Entry(4, 3, Kind.COMMANDS, encode_commands((Put("k", b""),)).replace(b"\xa1k", b"\xa1\xa3")),),
        (Entry(4, 3, Kind.CONFIGURATION, b"\x93\x90\x90\x90"),),
    ],
    ids=["gap before", "gap within", "term before the last", "terms fall", "term after the sender's", "kind",
         "commands", "key that is not text", "configuration"],
)  # fmt: skip
def test_entries_that_no_leader_of_ours_sends_are_refused(entries: tuple[Entry, ...]) -> None:
    """They would stop the node that appends or applies them, and every other one, at every start."""
    with pytest.raises(msgspec.DecodeError):
        decode_peer(encode_peer(AppendEntries("n1", 3, 3, 2, entries, 0)))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_in_one_way(data: bytes) -> None:
    try:
        message = decode_peer(data)
    except msgspec.DecodeError:
        return
    assert isinstance(message, PeerMessage)


@given(st.sampled_from(MESSAGES), st.data())
def test_a_changed_byte_is_refused_in_one_way_or_makes_another_message(
    message: PeerMessage, data: st.DataObject
) -> None:
    encoded = bytearray(encode_peer(message))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(msgspec.DecodeError):
        assert isinstance(decode_peer(bytes(encoded)), PeerMessage)


def test_only_what_may_be_large_is_in_the_bulk_lane() -> None:
    bulk = {type(message).__name__ for message in MESSAGES if not is_control(message)}
    assert bulk == {"AppendEntries", "Forward", "ForwardReply"}
    assert is_control(AppendEntries("n1", 3, 3, 2, (), 4))


def test_which_messages_are_known_does_not_depend_on_what_else_was_imported() -> None:
    """A server that decodes fewer messages than the tests would close the connections of its peers."""
    code = "from raftkv.actors.messages.wire import PEER_MESSAGES; print(*sorted(m.__name__ for m in PEER_MESSAGES))"
    known = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    folder = Path(raftkv.actors.messages.__path__[0])
    declared = [
        node.name
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "PeerMessage" for base in node.bases)
    ]

    assert known == sorted(declared)
