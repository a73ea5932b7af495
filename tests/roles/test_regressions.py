"""Mistakes that a close reading found, each kept as the test that showed it."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.actors.messages.node import AppliedUpTo, ReadAt
from raftkv.actors.messages.raft import AppendEntries, AppendEntriesReply
from raftkv.actors.messages.requests import (
    Done,
    Forward,
    ForwardReply,
    Propose,
    ReadIndex,
)
from raftkv.actors.messages.wire import decode_peer, encode_peer
from raftkv.store.commands import Put, invalid
from tests.roles.rehearsal import (
    append,
    bootstrapping,
    entry,
    follower,
    follower_of,
    founding_entry,
    introduce,
    leader,
    log,
    matched,
    only,
    put,
    read,
    refusals,
    resign,
    settled_leader,
    write,
)
from tests.roles.test_store import Keeper, query


def test_what_the_store_says_may_be_overtaken_at_a_change_of_role() -> None:
    """One AppliedUpTo went to the old role and comes back through Node, behind the next one.

    A leader that applies all the time and steps down meets this: the node stops itself with status 70.
    """
    busy = follower(term=2)
    busy.store_answers = False
    busy.gets(append(entry(2, 2), term=2, commit=2), append(entry(3, 2), term=2, prev=(2, 2), commit=3))

    assert busy.gets(AppliedUpTo(3), AppliedUpTo(2)) == []
    assert busy.replica.last_applied == 3


def test_a_peer_that_comes_back_is_not_sent_the_whole_log_again() -> None:
    """The probe begins at the end of the leader's log and stays there until the peer says where it differs.

    One of three is down at an election: 300 ms later its probe is at index 0, which matches any log.
    """
    chief = leader(term=3, entries=log(1, 1, 1, 2, 2, 2))
    for _ in range(8):
        chief.waits_ms(50)
        chief.gets(matched("n2", term=3, match_index=8))

    probes = [message for target, message in only(AppendEntries, chief.waits_ms(50)) if target == "n3"]

    assert [probe.prev_log_index for probe in probes] == [7]


def test_an_old_introduction_does_not_bring_back_a_node_that_was_wiped() -> None:
    """n3 was wiped and is n3-2; an introduction of n3-1 comes late, at a node that had never met that.

    It is taken for the newer one, n3-2 is taken for the past for ever, and the cluster is never founded; where the
    others met both in the right order, even two foundings are possible.
    """
    lonely = bootstrapping()
    lonely.gets(introduce("n3", "n1-1", incarnation="n3-2"))
    lonely.gets(introduce("n3", "n1-1", incarnation="n3-1"))

    lonely.gets(introduce("n2", "n1-1", "n3-2"), introduce("n3", "n1-1", "n2-1", incarnation="n3-2"))

    assert lonely.role == "follower"


def test_a_node_does_not_adopt_a_founding_with_other_nodes_than_its_list() -> None:
    """n1 introduced itself, was stopped, and came back with a shorter list: it does not know how to reach n3.

    It adopts entry 1 and fails with a KeyError as soon as it campaigns; Node would refuse these data at a start.
    """
    confused = bootstrapping(("n1", "n2"))

    confused.gets(introduce("n2", founding=founding_entry().data, asks=False))

    assert confused.role == "bootstrap"


def test_a_read_that_waits_at_the_leader_is_answered_when_its_time_is_over() -> None:
    """The no-op may never be committed, as when the disks of the others are full: heartbeats are answered all the same.

    The reads wait for ever, and without a bound on their number.
    """
    blocked = leader()
    blocked.gets(read(until=20.0))

    shown = []
    for _ in range(3):
        shown += blocked.waits_ms(50)
        blocked.gets(AppendEntriesReply("n2", 2, False, 1, no_room=True))

    assert refusals(shown) == [("client", "retry")]


def test_a_stale_read_after_a_restart_asks_for_a_read_index() -> None:
    """A new leader's commit index may be behind what this node has applied before its restart.

    This node had applied 3, as its clients saw; the new leader does not know yet that 3 is committed.
    """
    restarted = follower(term=2, entries=log(2, 2), commit_index=0)
    restarted.gets(append(term=3, prev=(3, 2), commit=2))

    assert only(ReadAt, restarted.gets(read(level="stale"))) == []
    shown = restarted.gets(ForwardReply("n2", 77, 2, ReadIndex(4)))
    assert [message.read_index for _, message in only(ReadAt, shown)] == [4]


def test_everyone_who_asks_a_leader_to_retire_is_answered() -> None:
    """The second request must not make the first one forgotten."""
    chief = settled_leader()
    chief.gets(resign(reply_to="first"))

    shown = chief.gets(resign(reply_to="second"))
    for _ in range(14):
        shown += chief.waits_ms(50)
        shown += chief.gets(matched("n2", term=2, match_index=2))

    assert sorted(target for target, _ in only(Done, shown)) == ["first", "second"]


def test_a_refusal_of_what_was_never_sent_does_not_stop_the_leader() -> None:
    """Nothing on the network can crash a node; a success beyond the log is ignored already."""
    chief = settled_leader()

    assert chief.gets(AppendEntriesReply("n2", 2, False, 99, conflict_index=99)) == []


def test_a_round_that_was_never_sent_is_not_confirmed() -> None:
    """Or all later rounds would count as answered by that peer."""
    chief = settled_leader()
    chief.gets(matched("n2", term=2, match_index=2, read_round=99))

    assert only(ReadAt, chief.gets(read())) == []


def test_a_bootstrapping_node_forgets_why_it_was_left_out_once_that_is_no_longer_so() -> None:
    """n2 was started with another list by mistake, and then with the right one; now only n3 is missing."""
    waiting = bootstrapping()
    waiting.gets(introduce("n2", list_hash="another list"))
    waiting.gets(introduce("n2", "n1-1"))

    reason = waiting.roles["bootstrap"].reason_for_no_leader()

    assert reason == "waiting for n3: the cluster begins when all its nodes have met"


def test_a_key_is_measured_in_bytes() -> None:
    """The refusal speaks of bytes: four of them make one of these characters."""
    assert invalid((Put("\N{GRINNING FACE}" * (64 << 10), b""),)) is not None


def test_the_store_has_one_wake_up_pending_at_most() -> None:
    """Wake-ups can't be cancelled: each one asked for while another is pending asks for its own successor."""
    keeper = Keeper()
    for index in range(1, 6):
        keeper.gets(query(read_index=index))
        keeper.applies(entry(index, 1))

    assert len(keeper.stage.wakeups) == 1


def test_a_request_of_a_peer_has_an_end() -> None:
    """With a deadline that is not a number a request would never expire."""
    endless = Forward("n2", 1, 1, Propose((put(1, 1),), float("nan")))

    with pytest.raises(msgspec.DecodeError):
        decode_peer(encode_peer(endless))


def test_an_answer_of_the_wrong_kind_does_not_leave_its_client_without_any() -> None:
    """Only a peer that breaks the protocol sends one; the request is forgotten then, and must be answered."""
    helper = follower_of("n2")
    helper.gets(write(reply_to="writer"))

    assert refusals(helper.gets(ForwardReply("n2", 77, 1, ReadIndex(5)))) == [("writer", "unknown")]
