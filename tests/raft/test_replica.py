"""The books that the replica keeps: what is durable, and who waits for what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftkv.raft.entry import Entry, Kind
from raftkv.raft.replica import Replica, Waiting

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4)),
        st.tuples(st.just("truncate"), st.integers(1, 12)),
        st.tuples(st.just("saved"), st.integers(1, 3)),
    ),
    max_size=40,
)


@given(STEPS)
def test_the_durable_index_is_what_a_disk_would_hold_of_this_log(steps: list[tuple[str, int]]) -> None:
    """A model of the disk takes the saves in order; whatever it shares with the log is durable, and no more."""
    replica = Replica("n1", "1", 1, current_term=1, free_bytes=1 << 30)
    disk: list[Entry] = []
    under_way: list[tuple[Entry, ...]] = []
    term = 1
    for what, number in steps:
        if what == "append":
            first = replica.log.last_index + 1
            new = tuple(Entry(index, term, Kind.NOOP, b"") for index in range(first, first + number))
            replica.append(new)
            replica.save(0.0)
            under_way.append(new)
        elif what == "truncate" and number <= replica.log.last_index:
            # As a follower does: the cut and what takes its place are one save.
            term += 1
            replica.truncate(number)
            new = (Entry(number, term, Kind.NOOP, b""),)
            replica.append(new)
            replica.save(0.0)
            under_way.append(new)
        elif what == "saved" and replica.saves:
            done = replica.saves[min(number, len(replica.saves)) - 1].number
            for new in under_way[: done - replica.saves[0].number + 1]:
                del disk[new[0].index - 1 :]
                disk.extend(new)
            del under_way[: done - replica.saves[0].number + 1]
            replica.saved(done)
        log = replica.log.span(1, replica.log.last_index)
        assert replica.durable_index <= len(log)
        assert disk[: replica.durable_index] == log[: replica.durable_index]
    replica.saved(10**9)
    assert replica.durable_index == replica.log.last_index
    assert replica.available_bytes == replica.free_bytes


def test_a_reply_waits_for_all_saves_that_were_asked_for_before_it() -> None:
    replica = Replica("n1", "1", 1, current_term=1)
    replica.save(0.0)
    replica.save(0.0)
    assert replica.reply_when_saved("n2", "second")
    replica.save(0.0)
    assert replica.reply_when_saved("n3", "third")
    replica.saved(1)
    assert list(replica.saved_replies(1)) == []
    replica.saved(2)
    assert list(replica.saved_replies(2)) == [("n2", "second")]
    replica.saved(3)
    assert list(replica.saved_replies(3)) == [("n3", "third")]
    assert not replica.reply_when_saved("n2", "nothing to wait for")


def test_askers_of_an_index_wait_in_any_term_until_it_is_applied_or_their_time_is_over() -> None:
    """An index may be appended to twice, in two terms of office: only applying it tells who was lucky."""
    replica = Replica("n1", "1", 1)
    early, late = Waiting(2, "early", 10.0), Waiting(3, "late", 20.0)
    replica.wait_for(7, early)
    replica.wait_for(7, late)
    assert replica.expired_waiters(9.0) == []
    assert replica.expired_waiters(10.0) == ["early"]
    assert replica.waiting_for(7) == [late]
    assert replica.waiting_for(7) == []
