"""Durable before said: saves in order, and the messages that wait for them."""

from __future__ import annotations

import pytest

from raftkv.raft.progress import AMPLE_FREE_BYTES
from raftkv.raft.save_queue import AMPLE_FROM_BYTES, SaveQueue


def test_a_message_waits_for_all_saves_that_were_asked_for_before_it() -> None:
    saves = SaveQueue()
    saves.begin(0, 1, 0.0)
    saves.begin(0, 1, 0.0)
    assert saves.send_later("n2", "second")
    saves.begin(0, 1, 0.0)
    assert saves.send_later("n3", "third")
    saves.confirm(1)
    assert list(saves.take_ready(1)) == []
    saves.confirm(2)
    assert list(saves.take_ready(2)) == [("n2", "second")]
    saves.confirm(3)
    assert list(saves.take_ready(3)) == [("n3", "third")]
    assert not saves.send_later("n2", "nothing to wait for")


def test_a_message_can_not_wait_for_a_save_that_was_not_asked_for() -> None:
    saves = SaveQueue()
    saves.hard_state_dirty = True
    with pytest.raises(AssertionError):
        saves.send_later("n2", "a vote")


def test_what_was_cut_off_does_not_become_durable_with_an_earlier_save() -> None:
    saves = SaveQueue(durable_index=2)
    saves.begin(5, 1, 0.0)
    saves.truncate(4)
    saves.begin(4, 2, 0.0)

    saves.confirm(1)
    assert (saves.durable_index, saves.durable_term) == (3, 1)
    saves.confirm(2)
    assert (saves.durable_index, saves.durable_term) == (4, 2)


def test_a_cut_lowers_what_is_durable() -> None:
    saves = SaveQueue(durable_index=7)
    saves.truncate(4)
    assert saves.durable_index == 3


def test_entries_take_their_room_when_they_are_appended() -> None:
    saves = SaveQueue(free_bytes=1000)
    saves.appended(300)
    assert saves.available_bytes == 700
    saves.begin(1, 1, 0.0)
    saves.appended(100)
    assert saves.available_bytes == 600
    assert saves.reported_free_bytes == 600

    saves.confirm(1)
    saves.free_bytes = 700
    assert saves.available_bytes == 600


@pytest.mark.parametrize(
    ("free_bytes", "reported"),
    [(AMPLE_FROM_BYTES, AMPLE_FREE_BYTES), (AMPLE_FROM_BYTES - 1, AMPLE_FROM_BYTES - 1), (-5, 0)],
)
def test_room_is_reported_only_where_it_may_begin_to_matter(free_bytes: int, reported: int) -> None:
    assert SaveQueue(free_bytes=free_bytes).reported_free_bytes == reported


def test_the_age_of_the_oldest_save_tells_how_long_the_disk_has_not_answered() -> None:
    saves = SaveQueue()
    assert saves.oldest_ms is None
    saves.begin(0, 1, 5.0)
    saves.begin(0, 1, 9.0)
    assert saves.oldest_ms == 5.0
    saves.confirm(1)
    assert saves.oldest_ms == 9.0
