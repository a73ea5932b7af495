"""Fuzzing what one node reads from another: handshake records, frames, whole connections, messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, cast
from zlib import crc32

import msgspec
from thespian.actors import ActorAddress

from raftkv.actors.messages import wire
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
    PendingRequest,
    Propose,
    ReadIndex,
    ReadResult,
    Refused,
    ReplyTo,
)
from raftkv.actors.system.link import handshake
from raftkv.actors.system.link.frames import (
    BULK_FRAGMENT,
    BULK_LAST,
    CONTROL_MESSAGE,
    FROM_DIALLER,
    HEADER,
    KEEPALIVE,
    Assembler,
    BadFrame,
    FrameReader,
    frame,
)
from raftkv.actors.system.link.handshake import (
    MAGIC,
    PREAMBLE,
    RECORD_BYTES,
    VERSION,
    Acceptor,
    Challenge,
    Dialler,
    Hello,
    PeerIdentity,
    Proof,
    RecordReader,
    Refusal,
    Rejected,
    Welcome,
)
from raftkv.actors.system.link.incoming import InboundConnections, Incoming
from raftkv.actors.system.link.settings import Codec, Context, LinkSettings
from raftkv.raft.replica import Replica
from raftkv.store.commands import Delete, DeleteDone, DeleteIf, Item, Put, PutDone, PutIf, Unmatched
from tests.fuzz.target import Target, pieces
from tests.roles.rehearsal import ROOM, Player, entry, founding_entry, log, noop

FRAME_BYTES, MESSAGE_BYTES = 64, 256
SECRET = b"a secret"
US, THEM = PeerIdentity("n1", "n1-1", "c0ffee"), PeerIdentity("n2", "n2-1", "c0ffee")
_pack = msgspec.msgpack.encode


class Frames(Target):
    """A stream of frames decodes the same however it is cut, in bounded memory; the only error is ``BadFrame``."""

    words = (
        *(HEADER.pack(n, f) for n in (0, 1, 64, 65, 2**31, 2**32 - 1) for f in (1, 2, 3, 4)),
        bytes(range(32)),
    )

    def seeds(self) -> Sequence[bytes]:
        """Return streams of all kinds of frames."""
        bulk = frame(BULK_FRAGMENT, b"a" * 60) + frame(BULK_FRAGMENT, b"b" * 60) + frame(BULK_LAST, b"c")
        control = frame(CONTROL_MESSAGE, b"urgent")
        return [control * 3, bulk, bulk[:65] + control + bulk[65:], frame(KEEPALIVE, b"c0ffee") + bulk + control]

    def check(self, data: bytes) -> str:
        """Read the stream in pieces and at once."""
        messages, ending = self._read(pieces(data, FRAME_BYTES))
        assert (messages, ending) == self._read(iter([data])), "the result depends on how the stream is cut"
        return ending

    def _read(self, stream: Iterator[bytes]) -> tuple[list[bytes], str]:
        reader, assembler = FrameReader(FRAME_BYTES, FROM_DIALLER), Assembler(MESSAGE_BYTES)
        messages: list[bytes] = []
        try:
            for piece in stream:
                while piece:
                    free_bytes = reader.room()
                    assert len(free_bytes) > 0, "the buffer has no room"
                    now, piece = piece[: len(free_bytes)], piece[len(free_bytes) :]
                    free_bytes[: len(now)] = now
                    for flags, body in reader.frames(len(now)):
                        assert len(body) <= FRAME_BYTES, len(body)
                        if flags == KEEPALIVE:
                            continue
                        whole = assembler.add(flags, body)
                        assert len(assembler._parts) <= MESSAGE_BYTES, len(assembler._parts)
                        if whole is not None:
                            messages.append(bytes(whole))
        except BadFrame as error:
            return messages, str(error)
        return messages, f"{min(len(messages), 9)} messages"


class Handshakes(Target):
    """Both sides of a handshake, fed with records. The right proof is added to an input that sends a ``Hello``.

    Only a known node that has proved the secret and addressed this node is admitted.
    """

    words = (MAGIC, PREAMBLE.pack(MAGIC, VERSION, 0), PREAMBLE.pack(MAGIC, VERSION, RECORD_BYTES), b"n1", b"n2",
             b"c0ffee", b"\xc4\x20" + bytes(32), b"\x95\x05", b"\x91\x04", b"\xd9\x40" + b"x" * 64)  # fmt: skip

    def seeds(self) -> Sequence[bytes]:
        """Return records of either side, valid and invalid."""
        hellos = [Dialler(THEM, target, SECRET).hello() for target in ("n1", "n3")]
        strangers = [Dialler(PeerIdentity(name, "1", ""), "n1", SECRET).hello() for name in ("n1", "n9")]
        others = (Challenge("n1", "1", "c0ffee", "", bytes(32), bytes(32)), Proof(bytes(32)), Welcome())
        said = [handshake._record(record) for record in (*others, Rejected("wrong cluster id", "no"))]
        return [*hellos, *strangers, *said, hellos[0] + said[1], b"".join(said)]

    def check(self, data: bytes) -> str:
        """Feed ``data`` to an acceptor, then to a dialler."""
        return f"{self._accept(data)} / {self._dial(data)}"

    def _accept(self, data: bytes) -> str:
        acceptor = Acceptor(US, SECRET, lambda name: name in ("n2", "n3"))
        hello: Hello | None = None
        try:
            for record in self._records(data):
                acceptor.gets(record)
                assert acceptor.peer is None, "admitted without a proof"
                if isinstance(record, Hello):
                    hello = record
            if hello is None:
                return "no hello"
            _, challenge = cast(tuple[Hello, Challenge], acceptor._exchange)
            acceptor.gets(Proof(handshake._proof(SECRET, "dialler", hello, challenge)))
        except Refusal as refusal:
            return self._ending(refusal)
        assert acceptor.peer == PeerIdentity(
            hello.node_id, hello.incarnation, hello.cluster_id, hello.initial_cluster_hash
        )
        assert (hello.target, hello.node_id in ("n2", "n3")) == ("n1", True)
        assert hello.cluster_id in ("", "c0ffee")
        return "admitted"

    def _dial(self, data: bytes) -> str:
        dialler = Dialler(THEM, "n1", SECRET)
        dialler.hello()
        try:
            for record in self._records(data):
                dialler.gets(record)
        except Refusal as refusal:
            return self._ending(refusal)
        assert dialler.peer is None, "admitted without a proof"
        return "waits"

    def _ending(self, refusal: Refusal) -> str:
        assert len(refusal.record()) <= PREAMBLE.size + RECORD_BYTES
        assert str(refusal).isprintable()
        return str(refusal.reason)

    def _records(self, data: bytes) -> Iterator[handshake.HandshakeRecord]:
        reader = RecordReader()
        for piece in pieces(data, 99):
            while piece:
                free_bytes = reader.room()
                assert 0 < len(free_bytes) <= RECORD_BYTES + PREAMBLE.size, len(free_bytes)
                now, piece = piece[: len(free_bytes)], piece[len(free_bytes) :]
                free_bytes[: len(now)] = now
                if (record := reader.record(len(now))) is not None:
                    yield record


ENTRIES = (*log(1, 1, 2), noop(5, 2))
MESSAGES: tuple[PeerMessage, ...] = (
    RequestVote("n2", 3, 5, 2),
    RequestVote("n2", 3, 5, 2, pre_vote=True, transfer=True),
    RequestVoteReply("n2", 2, True),
    RequestVoteReply("n2", 3, False, pre_vote=True),
    AppendEntries("n2", 2, 4, 2, (noop(5, 2), entry(6, 2)), 4, 7),
    AppendEntries("n2", 3, 1, 1, ENTRIES[1:], 0),
    AppendEntries("n2", 3, 0, 0, (founding_entry(), noop(2, 3)), 1),
    AppendEntries("n2", 2, 5, 2, (), 5),
    AppendEntriesReply("n2", 2, True, 5, 7),
    AppendEntriesReply("n2", 2, False, 4, 7, 1, 2, True, 512),
    TimeoutNow("n2", 2),
    Forward("n2", 7, 1, Propose((Put("key", b"value"), Delete("key")), 1000.0)),
    Forward("n2", 7, 1, Propose((PutIf("key", b"value", 0), DeleteIf("key", 1 << 62)), 1000.0)),
    Forward("n2", 7, 2, AskReadIndex(1000.0)),
    ForwardReply("n2", 1, 1, Applied(9, 2, 9, (PutDone(9), DeleteDone(9, True)))),
    ForwardReply("n2", 1, 1, Applied(9, 2, 9, (Unmatched(9, 0), Unmatched(9, 3)))),
    ForwardReply("n2", 1, 1, ReadResult(9, 9, (Item(b"value", 1, 2, 3), None))),
    ForwardReply("n2", 1, 1, ReadIndex(9)),
    ForwardReply("n2", 1, 1, Done()),
    ForwardReply("n2", 1, 1, Refused("not_leader", "n3")),
    BootstrapHello("n2", "n2-1", "the list", (("n2", "n2-1"), ("n3", "n3-1")), founding_entry().data, True),
    AdvertiseAddress("n2", "n2:4001"),
)
ROLES = ("follower", "leader", "candidate", "bootstrap")


class Messages(Target):
    """A message from a peer is refused, or is the same after encoding it again and stops no role that receives it.

    The input is an array of byte strings, each of them a message.
    """

    words = (b"n1", b"n2", b"n3", b"\xa2n2", b"\xc0", b"\x80", b"\xc2", b"\xc3", b"\xc4\x00", b"\xcf" + b"\x7f" * 8,
             b"\xcf\x40" + bytes(7), b"\xd3" + b"\xff" * 8, b"\xcb" + bytes(8), b"\xcb\x7f\xf0" + bytes(6),
             *(bytes([0x90 + i]) for i in range(10)), *(bytes([i]) for i in (*range(9), 16, 17, 18, 34, 35, 48, 49)),
             b"the list", b"no_leader", b"unknown", b"\x91" * 50)  # fmt: skip

    def seeds(self) -> Sequence[bytes]:
        """Return one message of each kind, and all of them in a row."""
        encoded = [wire.encode_peer(message) for message in MESSAGES]
        return [*(_pack([one]) for one in encoded), _pack(encoded[4:8]), _pack(encoded)]

    def check(self, data: bytes) -> str:
        """Decode the messages and send them to a role that the input selects."""
        try:
            parts = msgspec.msgpack.decode(data, type=list[bytes])[:8]
        except (msgspec.DecodeError, UnicodeDecodeError):
            parts = [data]
        player = self._player(crc32(data))
        ending, appends = "", 0
        for part in parts:
            try:
                message = wire.decode_peer(part)
            except msgspec.DecodeError:
                ending += "-"
                continue
            assert wire.decode_peer(wire.encode_peer(message)) == message
            assert isinstance(wire.is_control(message), bool)
            if message.sender != "n2":
                # The link drops messages in the name of another node.
                ending += "?"
                continue
            try:
                player.gets(*_as_node_passes_on(message))
            except AssertionError:
                # A leader that contradicts itself breaks Raft, so the node stops. One message alone cannot do that.
                if not (appends and isinstance(message, AppendEntries) and "AssertionError(" in str(player.failure)):
                    raise
                return f"{player.role} stops"
            appends += isinstance(message, AppendEntries)
            ending += type(message).__name__[0]
        player.waits_ms(700.0)
        assert player.failure is None, player.failure
        return f"{player.role} {ending}"

    @staticmethod
    def _player(number: int) -> Player:
        role = ROLES[number % len(ROLES)]
        entries = () if role == "bootstrap" else ENTRIES
        replica = Replica("n1", "n1-1", 1, current_term=2 if entries else 0, entries=entries, free_bytes=ROOM)
        player = Player(role, replica, names=("n1", "n2", "n3"))
        player.starts()
        return player


def _as_node_passes_on(message: PeerMessage) -> tuple[object, ...]:
    """Return what Node gives a role when this message arrives: nothing, for messages that it handles itself."""
    if isinstance(message, Forward):
        reply_to = ReplyTo(ActorAddress(message.sender), (message.boot_id, message.number))
        return (PendingRequest(message.request, reply_to, message.request.timeout_ms),)
    return (message,) if message.for_role else ()


class Socket(asyncio.Transport):
    """The part of a transport that a connection uses; counts the bytes written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self.ended = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def setsockopt(self, *option: Any) -> None:
        """Accept any option, as a socket does."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Accept any limits, as a transport does."""

    def write(self, data: Any) -> None:
        self.sent += len(data)

    def abort(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


class Connections(Target):
    """A connection that an authenticated peer has opened, with messages as the nodes of a cluster send them.

    Bad input ends only this connection: no error is logged, and only messages from this peer are delivered.
    """

    words = (*Frames.words, *Messages.words, b"\x93\xa4node\xa0", b"c0ffee")

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._errors = _Errors()
        logging.getLogger("raftkv.link").addHandler(self._errors)
        logging.getLogger("raftkv.link").propagate = False

    def seeds(self) -> Sequence[bytes]:
        """Return streams of one and of many messages, in both lanes."""
        bodies = [_pack(("node", "node", wire.encode_peer(message))) for message in MESSAGES]
        bulk = bodies[5]
        cut = frame(BULK_FRAGMENT, bulk[:99]) + frame(BULK_LAST, bulk[99:])
        return [
            *(frame(CONTROL_MESSAGE, body) for body in bodies),
            cut + frame(KEEPALIVE, b"c0ffee"),
            b"".join(frame(CONTROL_MESSAGE, body) for body in bodies),
            frame(CONTROL_MESSAGE, _pack(("node", "node", wire.encode_peer(RequestVote("n3", 3, 5, 2))))),
            frame(KEEPALIVE, b"decaf") + cut,
        ]

    def check(self, data: bytes) -> str:
        """Complete the handshake of a peer and feed it ``data``."""
        return self._runner.run(self._check(data))

    async def _check(self, data: bytes) -> str:
        received: list[tuple[str, str, str, Any]] = []
        context = Context(
            LinkSettings(node_id="n1", incarnation="n1-1", secret=SECRET, frame_bytes=1024, message_bytes=8192),
            Codec(wire.encode_peer, wire.decode_peer, wire.is_control, lambda message: cast(str, message.sender)),
            receive=lambda *what: received.append(what),
            on_up=lambda peer: None,
            on_down=lambda peer, reason: None,
            on_refused=lambda *what: None,
            cluster_id=lambda: "c0ffee",
            rng=Random(1),
        )
        admitted: list[str] = []
        connection = InboundConnections(context, lambda name: name == "n2", admitted.append).accept()
        socket = Socket()
        connection.connection_made(socket)
        dialler = Dialler(THEM, "n1", SECRET)
        self._feed(connection, dialler.hello())
        hello, challenge = cast(tuple[Hello, Challenge], connection._acceptor._exchange)
        self._feed(connection, handshake._record(Proof(handshake._proof(SECRET, "dialler", hello, challenge))))
        assert admitted == ["n2"]
        said = socket.sent
        for piece in pieces(data, 1024):
            self._feed(connection, piece)
        assert self._errors.records == []
        assert socket.ended == connection.over
        assert socket.sent - said <= len(data) + HEADER.size + 64, "it sends more than it received"
        for peer, target, source, message in received:
            assert (peer, message.sender, type(target), type(source)) == ("n2", "n2", str, str)
            assert isinstance(message, PeerMessage)
        connection.connection_lost(None)
        return f"{connection.reason} after {min(len(received), 9)}"

    def _feed(self, connection: Incoming, data: bytes) -> None:
        while data and not connection.over:
            free_bytes = connection.get_buffer(-1)
            assert len(free_bytes) > 0, "the buffer has no room"
            now, data = data[: len(free_bytes)], data[len(free_bytes) :]
            free_bytes[: len(now)] = now
            connection.buffer_updated(len(now))

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()
        logging.getLogger("raftkv.link").removeHandler(self._errors)
        logging.getLogger("raftkv.link").propagate = True
