"""Frames: any split of the stream gives the same messages, and any bytes raise ``BadFrame`` at most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.actors.system.link.frames import (
    BULK_FRAGMENT,
    BULK_LAST,
    CONTROL_MESSAGE,
    FROM_ACCEPTOR,
    FROM_DIALLER,
    HEADER,
    KEEPALIVE,
    READ_BYTES,
    Assembler,
    BadFrame,
    FrameReader,
    frame,
)
from raftkv.actors.system.link.lanes import Lanes, QueuedMessage

FRAME_BYTES = 16
MESSAGE_BYTES = 64


class Receiver:
    """Reads a stream in pieces of any size, as a connection does."""

    def __init__(self, frame_bytes: int = FRAME_BYTES, message_bytes: int = MESSAGE_BYTES) -> None:
        self.reader = FrameReader(frame_bytes, FROM_DIALLER)
        self.assembler = Assembler(message_bytes)
        self.messages: list[bytes] = []

    def gets(self, data: bytes) -> None:
        while data:
            room = self.reader.room()
            now, data = data[: len(room)], data[len(room) :]
            room[: len(now)] = now
            for flags, body in self.reader.frames(len(now)):
                whole = body if flags == KEEPALIVE else self.assembler.add(flags, body)
                if whole is not None:
                    self.messages.append(bytes(whole))


def lanes() -> Lanes:
    return Lanes(frame_bytes=FRAME_BYTES, bulk_bytes=1 << 30, control_messages=1000, control_bytes=1 << 20)


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Return ``data`` in pieces."""
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=20)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.lists(st.binary(min_size=1, max_size=MESSAGE_BYTES), max_size=10), st.integers(1, 200), st.data())
def test_messages_survive_any_split_of_the_stream(messages: list[bytes], budget: int, data: st.DataObject) -> None:
    sender = lanes()
    for message in messages:
        assert sender.put_bulk(QueuedMessage("t", "s", None, message))
    stream = bytearray()
    while sender:
        stream += b"".join(sender.take(budget)[0])

    receiver = Receiver()
    for piece in data.draw(cuts(bytes(stream))):
        receiver.gets(piece)

    assert receiver.messages == messages


@given(st.binary(max_size=300), st.data())
def test_any_bytes_are_frames_or_raise_bad_frame(noise: bytes, data: st.DataObject) -> None:
    receiver = Receiver()
    try:
        for piece in data.draw(cuts(noise)):
            receiver.gets(piece)
    except BadFrame as error:
        assert str(error) in {  # noqa: PT017
            "unknown flags",
            "frame over the limit",
            "message over the limit",
            "empty fragment",
        }
    assert len(receiver.reader.room()) == READ_BYTES
    assert all(len(message) <= MESSAGE_BYTES for message in receiver.messages)


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (HEADER.pack(1, 0) + b"x", "unknown flags"),
        (HEADER.pack(1, 5) + b"x", "unknown flags"),
        (HEADER.pack(1, CONTROL_MESSAGE | 128) + b"x", "unknown flags"),
        (HEADER.pack(FRAME_BYTES + 1, CONTROL_MESSAGE), "frame over the limit"),
        (HEADER.pack(2**32 - 1, BULK_LAST), "frame over the limit"),
        (frame(BULK_FRAGMENT, b"x" * FRAME_BYTES) * 5, "message over the limit"),
        (frame(BULK_FRAGMENT, b"x" * FRAME_BYTES) * 4 + frame(BULK_LAST, b"x"), "message over the limit"),
        (frame(BULK_FRAGMENT, b""), "empty fragment"),
        (frame(BULK_FRAGMENT, b"x") + frame(BULK_LAST, b""), "empty fragment"),
    ],
)
def test_bytes_that_no_link_sends_raise_bad_frame(stream: bytes, problem: str) -> None:
    with pytest.raises(BadFrame, match=f"^{problem}$"):
        Receiver().gets(stream)


def test_a_message_of_exactly_the_limit_is_accepted() -> None:
    receiver = Receiver()
    receiver.gets(frame(BULK_FRAGMENT, b"x" * FRAME_BYTES) * 3 + frame(BULK_LAST, b"y" * FRAME_BYTES))
    assert receiver.messages == [b"x" * 48 + b"y" * 16]


def test_control_messages_may_come_between_fragments() -> None:
    receiver = Receiver()
    receiver.gets(frame(BULK_FRAGMENT, b"bu") + frame(CONTROL_MESSAGE, b"control") + frame(BULK_LAST, b"lk"))
    assert receiver.messages == [b"control", b"bulk"]


def test_an_acceptor_may_send_only_keepalives() -> None:
    reader = FrameReader(FRAME_BYTES, FROM_ACCEPTOR)
    stream = frame(KEEPALIVE, b"id") + frame(CONTROL_MESSAGE, b"x")
    reader.room()[: len(stream)] = stream
    frames = reader.frames(len(stream))
    flags, body = next(frames)
    assert (flags, bytes(body)) == (KEEPALIVE, b"id")
    with pytest.raises(BadFrame, match="unknown flags"):
        next(frames)
