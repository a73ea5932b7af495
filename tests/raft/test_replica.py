"""The replica's state: what is durable, which cluster it belongs to, and its one vote in a term."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.raft.configuration import Member, cluster_id, founding_configuration
from raftkv.raft.entry import Entry, Kind
from raftkv.raft.replica import Replica

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
        elif what == "saved" and replica.saves.pending:
            done = replica.saves.pending[min(number, len(replica.saves.pending)) - 1].number
            for new in under_way[: done - replica.saves.pending[0].number + 1]:
                del disk[new[0].index - 1 :]
                disk.extend(new)
            del under_way[: done - replica.saves.pending[0].number + 1]
            replica.saved(done)
        log = replica.log.span(1, replica.log.last_index)
        assert replica.durable_index <= len(log)
        assert disk[: replica.durable_index] == log[: replica.durable_index]
    replica.saved(10**9)
    assert replica.durable_index == replica.log.last_index
    assert replica.saves.available_bytes == replica.saves.free_bytes


MEMBERS = [Member("n1", "n1:5001", "1"), Member("n2", "n2:5001", "1")]
FOUNDING = Entry(1, 1, Kind.CONFIGURATION, founding_configuration(MEMBERS).encode())


def test_a_replica_knows_its_cluster_from_entry_1_on_and_from_what_was_on_disk() -> None:
    new = Replica("n1", "1", 1)
    assert (new.founding, new.cluster_id, new.peers) == (b"", None, ())

    new.append((FOUNDING,))
    restarted = Replica("n1", "1", 2, current_term=1, entries=(FOUNDING,))

    for replica in (new, restarted):
        assert replica.founding == FOUNDING.data
        assert replica.cluster_id == cluster_id(founding_configuration(MEMBERS))
        assert replica.peers == ("n2",)


def test_a_replica_votes_once_in_a_term() -> None:
    """3.4; the vote has to be saved before the candidate may know of it."""
    replica = Replica("n1", "1", 1, current_term=1)
    replica.vote_for("n2")
    replica.save(0.0)
    replica.vote_for("n2")
    assert not replica.saves.hard_state_dirty
    with pytest.raises(AssertionError):
        replica.vote_for("n3")

    replica.adopt_term(2)
    assert (replica.voted_for, replica.saves.hard_state_dirty) == (None, True)
    replica.vote_for("n3")


def test_terms_never_fall() -> None:
    replica = Replica("n1", "1", 1, current_term=2)
    with pytest.raises(AssertionError):
        replica.adopt_term(2)


def test_what_is_committed_is_never_cut_off() -> None:
    replica = Replica("n1", "1", 1, current_term=1, entries=(FOUNDING,))
    replica.commit_index = 1
    with pytest.raises(AssertionError, match="committed up to 1"):
        replica.truncate(1)


def test_a_cluster_whose_founding_was_cut_off_is_not_known_any_more() -> None:
    replica = Replica("n1", "1", 1, current_term=1, entries=(FOUNDING,))
    replica.truncate(1)
    assert (replica.founding, replica.cluster_id, replica.configuration.members) == (b"", None, ())
