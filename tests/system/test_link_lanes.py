"""The two lanes to a peer: order, bounds, and messages that are given back."""

from __future__ import annotations

from raftkv.actors.system.link.frames import BULK_FRAGMENT, BULK_LAST, CONTROL_MESSAGE, HEADER, KEEPALIVE, frame
from raftkv.actors.system.link.lanes import MESSAGE_OVERHEAD, Lanes, QueuedMessage

EVERYTHING = 1 << 30


def lanes(
    *, frame_bytes: int = 4, bulk_bytes: int = 10_000, control_messages: int = 100, control_bytes: int = 1000
) -> Lanes:
    return Lanes(
        frame_bytes=frame_bytes,
        bulk_bytes=bulk_bytes,
        control_messages=control_messages,
        control_bytes=control_bytes,
    )


def queued(body: bytes) -> QueuedMessage:
    return QueuedMessage("target", "source", body.decode(), body)


def taken(queue: Lanes, budget: int = EVERYTHING) -> tuple[bytes, int]:
    pieces, frames = queue.take(budget)
    return b"".join(pieces), frames


def test_control_is_taken_before_bulk_and_each_lane_in_order() -> None:
    queue = lanes()
    queue.put_bulk(queued(b"b1"))
    queue.put_control(b"c1")
    queue.put_bulk(queued(b"b2"))
    queue.put_control(b"c2")
    queue.put_keepalive(b"k")

    first = frame(KEEPALIVE, b"k") + frame(CONTROL_MESSAGE, b"c1") + frame(CONTROL_MESSAGE, b"c2")
    assert taken(queue) == (first + frame(BULK_LAST, b"b1") + frame(BULK_LAST, b"b2"), 5)
    assert (bool(queue), queue.bulk_bytes, queue.control_bytes) == (False, 0, 0)


def test_control_comes_between_the_fragments_of_a_large_message() -> None:
    queue = lanes()
    queue.put_bulk(queued(b"abcdefghi"))

    assert taken(queue, HEADER.size + 4) == (frame(BULK_FRAGMENT, b"abcd"), 1)
    queue.put_control(b"c")
    assert taken(queue) == (
        frame(CONTROL_MESSAGE, b"c") + frame(BULK_FRAGMENT, b"efgh") + frame(BULK_LAST, b"i"),
        3,
    )


def test_takes_at_most_the_budget_but_at_least_one_frame() -> None:
    queue = lanes()
    for number in range(3):
        queue.put_bulk(queued(b"%d234" % number))

    assert taken(queue, 1) == (frame(BULK_LAST, b"0234"), 1)
    assert taken(queue, 2 * (HEADER.size + 4) - 1) == (frame(BULK_LAST, b"1234"), 1)
    queue.put_control(b"c")
    assert taken(queue, HEADER.size + 4) == (frame(CONTROL_MESSAGE, b"c"), 1)
    assert taken(queue, HEADER.size + 4) == (frame(BULK_LAST, b"2234"), 1)
    assert taken(queue) == (b"", 0)


def test_bulk_that_does_not_fit_is_refused() -> None:
    queue = lanes(bulk_bytes=2 * (MESSAGE_OVERHEAD + 2))

    assert [queue.put_bulk(queued(body)) for body in (b"b1", b"b2", b"b3")] == [True, True, False]
    assert queue.bulk_bytes == 2 * (MESSAGE_OVERHEAD + 2)
    assert not queue.is_half_empty()
    assert taken(queue, 1) == (frame(BULK_LAST, b"b1"), 1)
    assert queue.is_half_empty()
    assert queue.put_bulk(queued(b"b3"))
    assert taken(queue) == (frame(BULK_LAST, b"b2") + frame(BULK_LAST, b"b3"), 2)


def test_a_message_counts_until_its_last_fragment_is_taken() -> None:
    queue = lanes(bulk_bytes=MESSAGE_OVERHEAD + 10)
    assert queue.put_bulk(queued(b"abcdefgh"))

    assert taken(queue, 1) == (frame(BULK_FRAGMENT, b"abcd"), 1)
    assert not queue.put_bulk(queued(b"x"))
    assert taken(queue, 1) == (frame(BULK_LAST, b"efgh"), 1)
    assert queue.put_bulk(queued(b"x"))


def test_the_oldest_control_messages_make_room_for_the_newest() -> None:
    by_number = lanes(control_messages=2)
    by_number.put_keepalive(b"k")
    assert [by_number.put_control(body) for body in (b"1", b"2", b"3")] == [0, 0, 1]
    kept = frame(CONTROL_MESSAGE, b"2") + frame(CONTROL_MESSAGE, b"3")
    assert taken(by_number) == (frame(KEEPALIVE, b"k") + kept, 3)

    by_bytes = lanes(control_bytes=2 * (HEADER.size + 4))
    assert [by_bytes.put_control(body) for body in (b"1", b"2", b"345", b"6789")] == [0, 0, 1, 1]
    assert taken(by_bytes) == (frame(CONTROL_MESSAGE, b"345") + frame(CONTROL_MESSAGE, b"6789"), 2)


def test_gives_back_only_bulk_of_which_nothing_was_taken() -> None:
    queue = lanes()
    messages = [queued(body) for body in (b"gone", b"in parts", b"whole", b"also whole")]
    for one in messages:
        queue.put_bulk(one)
    taken(queue, HEADER.size + 4)
    taken(queue, HEADER.size + 4)
    queue.put_control(b"c")

    assert queue.clear() == messages[2:]
    assert (bool(queue), queue.bulk_bytes, queue.control_bytes) == (False, 0, 0)
    assert queue.clear() == []
