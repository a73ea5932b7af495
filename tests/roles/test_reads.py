"""Read-only queries without the log (dissertation, 6.4)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from raftkv.actors.messages.node import ReadAt, Save
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    RequestVote,
)
from raftkv.actors.messages.requests import (
    AskReadIndex,
    Forward,
    ForwardReply,
    ReadIndex,
    Refused,
)
from raftkv.raft.configuration import Configuration, Member
from raftkv.raft.entry import Entry, Kind
from tests.roles.rehearsal import (
    Becomes,
    append,
    ask_read_index,
    entry,
    follower,
    follower_of,
    granted,
    leader,
    log,
    matched,
    only,
    read,
    read_at,
    refusals,
    settled_leader,
    write,
)

FIVE = ("n1", "n2", "n3", "n4", "n5")


def heartbeat(round: int, *, term: int = 2, index: int = 2, commit: int = 2) -> AppendEntries:
    """Return a heartbeat of n1 that refers to its no-op."""
    return append(sender="n1", term=term, prev=(index, term), commit=commit, round=round)


def round_of(shown: list[tuple[str, Any]]) -> set[int]:
    """Return the rounds that the heartbeats among these messages belong to."""
    return {message.read_round for _, message in only(AppendEntries, shown)}


# --- at the leader


def test_a_read_is_answered_once_a_majority_has_answered_a_round_of_heartbeats() -> None:
    """6.4, step 3: whoever is superseded must not answer from what it has."""
    chief = settled_leader()

    assert chief.gets(read()) == [("n2", heartbeat(1)), ("n3", heartbeat(1))]
    assert chief.gets(matched("n3", term=2, match_index=2, read_round=1)) == [read_at(read_index=2)]


def test_a_read_writes_nothing_to_the_log() -> None:
    """6.4: that is what the rounds are for."""
    chief = settled_leader()

    shown = chief.gets(read(), matched("n2", term=2, match_index=2, read_round=1))

    assert only(Save, shown) == []
    assert chief.replica.log.last_index == 2


def test_a_round_needs_the_answers_of_a_majority() -> None:
    """6.4: in a cluster of five, two others."""
    chief = settled_leader(entries=log(names=FIVE))
    chief.gets(read())

    assert only(ReadAt, chief.gets(matched("n5", term=2, match_index=2, read_round=1))) == []
    assert only(ReadAt, chief.gets(matched("n5", term=2, match_index=2, read_round=1))) == []
    assert only(ReadAt, chief.gets(matched("n2", term=2, match_index=2, read_round=1))) == [read_at(read_index=2)]


def test_only_voters_confirm_a_round() -> None:
    """4.2.1: a learner counts for nothing."""
    members = tuple(Member(name, f"{name}:5001", f"{name}-1") for name in FIVE[:4])
    founding = Configuration(members, frozenset(FIVE[:3])).encode()
    chief = settled_leader(entries=(Entry(1, 1, Kind.CONFIGURATION, founding),))
    chief.gets(read())

    assert only(ReadAt, chief.gets(matched("n4", term=2, match_index=2, read_round=1))) == []
    assert only(ReadAt, chief.gets(matched("n2", term=2, match_index=2, read_round=1))) == [read_at(read_index=2)]


def test_a_round_of_joint_consensus_needs_both_majorities() -> None:
    """4.3: while two configurations are in force, every decision is taken in both."""
    members = tuple(Member(name, f"{name}:5001", f"{name}-1") for name in FIVE)
    joint = Configuration(members, frozenset({"n1", "n4", "n5"}), frozenset({"n1", "n2", "n3"})).encode()
    chief = settled_leader(entries=(Entry(1, 1, Kind.CONFIGURATION, joint),))
    chief.gets(read())

    for peer in ("n4", "n5"):
        assert only(ReadAt, chief.gets(matched(peer, term=2, match_index=2, read_round=1))) == []
    assert only(ReadAt, chief.gets(matched("n3", term=2, match_index=2, read_round=1))) == [read_at(read_index=2)]


def test_reads_that_wait_together_share_one_round() -> None:
    """6.4: the leader can confirm any number of reads with one round."""
    chief = settled_leader()

    shown = chief.gets(read("a"), read("b"), ask_read_index("n2"))

    assert shown == [("n2", heartbeat(1)), ("n3", heartbeat(1))]
    assert chief.gets(matched("n2", term=2, match_index=2, read_round=1)) == [
        read_at("a", read_index=2),
        read_at("b", read_index=2),
        ("n2", ForwardReply("n1", 5, 1, ReadIndex(2))),
    ]


def test_a_read_joins_a_round_that_was_not_sent_yet() -> None:
    """6.4: the heartbeats must be sent after the read index was taken, so a round under way is of no use to it."""
    chief = settled_leader()
    chief.gets(read("early"))

    assert chief.gets(read("late")) == []
    assert chief.gets(matched("n2", term=2, match_index=2, read_round=1)) == [
        read_at("early", read_index=2),
        ("n2", heartbeat(2)),
        ("n3", heartbeat(2)),
    ]
    assert chief.gets(matched("n3", term=2, match_index=2, read_round=1)) == []
    assert chief.gets(matched("n3", term=2, match_index=2, read_round=2)) == [read_at("late", read_index=2)]


def test_the_read_index_is_the_commit_index_when_the_round_was_sent() -> None:
    """6.4, step 2: what was committed later need not be seen."""
    chief = settled_leader()
    chief.gets(read())
    chief.gets(write())
    chief.gets(matched("n3", term=2, match_index=3))
    assert chief.replica.commit_index == 3

    assert chief.gets(matched("n2", term=2, match_index=2, read_round=1))[0] == read_at(read_index=2)


def test_a_read_sees_every_write_that_was_committed_before_it_came() -> None:
    """6.4: the round's index is taken anew for each round."""
    chief = settled_leader()
    chief.gets(read("early"), write())
    chief.gets(matched("n3", term=2, match_index=3))
    chief.gets(read("late"))

    chief.gets(matched("n3", term=2, match_index=3, read_round=1))
    assert chief.gets(matched("n3", term=2, match_index=3, read_round=2)) == [read_at("late", read_index=3)]


def test_entries_carry_the_round_too() -> None:
    """Any AppendEntries sent after the round began proves as much as a heartbeat."""
    chief = settled_leader()
    chief.gets(read())

    assert round_of(chief.gets(write())) == {1}


def test_entries_sent_with_a_round_carry_the_one_before() -> None:
    """A write and a read of one turn: the entries leave before the read index is taken."""
    chief = settled_leader()

    sent = [(m.read_round, len(m.entries)) for _, m in only(AppendEntries, chief.gets(write(), read()))]

    assert sent == [(0, 1), (0, 1), (1, 0), (1, 0)]


def test_a_refusal_confirms_a_round_as_well() -> None:
    """Whoever refuses entries in our term still takes us for its leader."""
    chief = leader(entries=log(1))
    chief.gets(matched("n2", term=2, match_index=3), read())

    refusal = AppendEntriesReply("n3", 2, False, 2, read_round=1, conflict_index=2)

    assert only(ReadAt, chief.gets(refusal)) == [read_at(read_index=3)]


def test_answers_of_another_term_confirm_nothing() -> None:
    """3.3: they were given to another leader, who counted rounds of its own."""
    chief = settled_leader(term=3)
    chief.gets(read())

    assert chief.gets(matched("n2", term=2, match_index=2, read_round=1)) == []
    assert chief.gets(matched("n3", term=2, match_index=2, read_round=9)) == []


def test_reads_wait_for_the_no_op_of_the_term() -> None:
    """6.4, step 1: until then a leader does not know which entries are committed (pitfalls 28 and 40)."""
    fresh = leader(entries=log(1))

    assert fresh.gets(read()) == []
    shown = fresh.gets(matched("n2", term=2, match_index=3))

    assert fresh.replica.commit_index == 3
    assert only(ReadAt, shown) == []
    assert [message for target, message in shown if target == "n3"] == [
        append(sender="n1", term=2, prev=(2, 1), commit=3, round=1)
    ]
    assert only(ReadAt, fresh.gets(matched("n2", term=2, match_index=3, read_round=1))) == [read_at(read_index=3)]


def test_entries_of_earlier_terms_on_a_majority_do_not_open_the_reads() -> None:
    """6.4, step 1, and 3.6.2: only an entry of the leader's own term does."""
    fresh = leader(term=3, entries=log(1, 2))
    fresh.gets(read())

    shown = fresh.gets(matched("n2", term=3, match_index=3), matched("n3", term=3, match_index=3))

    assert (only(ReadAt, shown), round_of(shown)) == ([], {0})


def test_rounds_are_never_counted_anew_in_one_life() -> None:
    """Pitfall 41: (term, number) names a round once and for all, across any number of terms in office."""
    chief = settled_leader()
    chief.gets(read(), matched("n2", term=2, match_index=2, read_round=1))
    chief.gets(append(term=3, prev=(2, 2), commit=2), append(term=3, prev=(2, 2), commit=2))
    chief.waits_ms(300)
    chief.gets(granted("n2", term=4, pre_vote=True), granted("n2", term=4))
    assert (chief.role, chief.replica.current_term) == ("leader", 4)
    chief.gets(matched("n2", term=4, match_index=3))

    assert round_of(chief.gets(read())) == {2}


def test_old_answers_after_a_pause_do_not_confirm_a_new_read() -> None:
    """Pitfall 41: heartbeats are sent again under the round's number; answers to them prove nothing later.

    The leader is stopped; meanwhile the others elect another one and commit. Then the answers to its last
    heartbeats, which lay in its socket, are handled together with a new read.
    """
    chief = settled_leader()
    chief.gets(read("old"))
    chief.gets(matched("n2", term=2, match_index=2, read_round=1))
    for _ in range(3):
        assert round_of(chief.waits_ms(51)) == {1}
    chief.stage.clock.ms += 10_000
    late = [matched(peer, term=2, match_index=2, read_round=1) for peer in ("n2", "n3")]

    for order in itertools.permutations([read("new"), *late]):
        assert only(ReadAt, chief.gets(*order)) == []


def test_a_read_that_comes_while_a_round_is_repeated_waits_for_the_next() -> None:
    """Pitfall 41: the repetitions belong to the reads that the round was begun for."""
    chief = settled_leader()
    chief.gets(read("old"))
    chief.waits_ms(50)
    chief.gets(read("new"))
    chief.waits_ms(50)

    shown = only(ReadAt, chief.gets(matched("n2", term=2, match_index=2, read_round=1)))

    assert shown == [read_at("old", read_index=2)]


def test_a_lost_round_is_repeated_with_the_next_heartbeats() -> None:
    """Raft's own messages may be lost."""
    chief = settled_leader()
    chief.gets(read())

    assert chief.waits_ms(51) == [("n2", heartbeat(1)), ("n3", heartbeat(1))]


def test_stepping_down_sends_those_who_wait_for_a_read_elsewhere() -> None:
    """6.4: nothing was done, so they may simply try again, wherever they asked."""
    old = settled_leader()
    old.gets(read(reply_to="in the round"))
    old.gets(read(reply_to="waiting"), ask_read_index("n3", 8))

    shown = old.gets(append(term=3, sender="n2", prev=(2, 2)))

    why = Refused("retry", "leadership was lost before the read was confirmed")
    assert only(Refused, shown) == [("in the round", why), ("waiting", why)]
    assert only(ForwardReply, shown) == [("n3", ForwardReply("n1", 5, 8, why))]


def test_a_leader_without_a_majority_answers_no_read() -> None:
    """6.2, 6.4: it steps down, and says that it could not confirm the read."""
    lonely = settled_leader()
    lonely.gets(read())

    shown = lonely.waits_ms(700)

    assert only(ReadAt, shown) == []
    assert refusals(shown) == [("client", "retry")]
    assert ("node", Becomes("follower")) in shown


def test_a_node_alone_confirms_its_own_rounds() -> None:
    """6.4: one of one is a majority."""
    alone = leader(entries=log(names=("n1",)))

    assert alone.replica.commit_index == 2
    assert alone.gets(read()) == [read_at(read_index=2)]


def test_a_read_that_comes_too_late_is_not_begun() -> None:
    """A request is dropped when its time is over."""
    chief = settled_leader()
    chief.waits_ms(10)

    assert chief.gets(read(until=10.0)) == [
        ("client", Refused("no_leader", "the time for this request was over before it began"))
    ]


# --- at a follower


def test_a_follower_asks_the_leader_for_a_read_index_and_answers_from_its_own_store() -> None:
    """6.4: so that reads need not all be served by the leader."""
    helper = follower_of("n2")

    assert helper.gets(read(until=1000.0)) == [("n2", Forward("n1", 77, 1, AskReadIndex(1000.0)))]
    assert helper.gets(ForwardReply("n2", 77, 1, ReadIndex(5))) == [read_at(read_index=5, until=1000.0)]


def test_a_leader_answers_a_follower_with_the_read_index_alone() -> None:
    """6.4: the query itself stays with the follower."""
    chief = settled_leader()
    chief.gets(ask_read_index("n3", 4, boot=9))

    assert chief.gets(matched("n2", term=2, match_index=2, read_round=1)) == [
        ("n3", ForwardReply("n1", 9, 4, ReadIndex(2)))
    ]


def test_answers_are_matched_by_boot_and_number_and_used_once() -> None:
    """An answer to a request of an earlier life, or one that was given already, is for nobody."""
    helper = follower_of("n2")
    helper.gets(read("a"), read("b"))

    assert helper.gets(ForwardReply("n2", 76, 1, ReadIndex(5)), ForwardReply("n2", 77, 3, ReadIndex(5))) == []
    assert helper.gets(ForwardReply("n2", 77, 2, ReadIndex(6))) == [read_at("b", read_index=6)]
    assert helper.gets(ForwardReply("n2", 77, 2, ReadIndex(7))) == []
    assert helper.gets(ForwardReply("n2", 77, 1, ReadIndex(8))) == [read_at("a", read_index=8)]


def test_a_read_index_is_good_whoever_leads_by_then() -> None:
    """6.4: it was confirmed, so this node may answer from it in any role and term."""
    helper = follower_of("n2")
    helper.gets(read())
    helper.waits_ms(301)
    assert helper.role == "candidate"

    assert helper.gets(ForwardReply("n2", 77, 1, ReadIndex(5))) == [read_at(read_index=5)]


def test_a_refusal_is_passed_on_to_who_asked() -> None:
    """The leader has lost its office: the client may try again."""
    helper = follower_of("n2")
    helper.gets(read())

    assert helper.gets(ForwardReply("n2", 77, 1, Refused("retry", "lost"))) == [("client", Refused("retry", "lost"))]


# --- stale reads


def test_a_stale_read_asks_nobody() -> None:
    """It is answered from this node's own store, whoever leads or if nobody does."""
    helper = follower_of("n2")

    assert helper.gets(read(level="stale")) == [read_at(read_index=1)]
    helper.waits_ms(301)
    assert helper.role == "candidate"
    assert helper.gets(read(level="stale")) == [read_at(read_index=1)]


def test_a_node_that_has_restarted_asks_the_leader_what_stale_reads_have_to_show() -> None:
    """It must not show less than what it has shown before, of which it knows nothing."""
    restarted = follower(term=2, entries=log(1, 2, 2), commit_index=0)

    [(target, passed)] = only(Forward, restarted.gets(append(term=2, prev=(4, 2), commit=4)))
    assert (target, passed) == ("n2", Forward("n1", 77, 1, AskReadIndex(1000.0)))
    assert only(Forward, restarted.gets(append(term=2, prev=(4, 2), commit=4))) == []
    assert restarted.gets(ForwardReply("n2", 77, 1, ReadIndex(4))) == []
    assert restarted.gets(read(level="stale")) == [read_at(read_index=4)]


def test_a_stale_read_goes_the_long_way_as_long_as_that_is_not_known() -> None:
    """The leader's answer to any question of this life will do."""
    restarted = follower(term=2, entries=log(1, 2, 2), commit_index=0)
    restarted.gets(append(term=2, prev=(4, 2), commit=4))

    [(target, passed)] = only(Forward, restarted.gets(read(level="stale")))
    assert (target, type(passed.request)) == ("n2", AskReadIndex)
    assert restarted.gets(ForwardReply("n2", 77, passed.number, ReadIndex(5))) == [read_at(read_index=5)]
    assert restarted.gets(read(level="stale")) == [read_at(read_index=5)]


def test_the_leader_is_asked_again_when_it_does_not_say() -> None:
    """Questions may be lost, and leaders change."""
    restarted = follower(term=2, entries=log(1, 2, 2), commit_index=0)
    restarted.gets(append(term=2, prev=(4, 2), commit=4))
    restarted.gets(ForwardReply("n2", 77, 1, Refused("retry", "lost")))

    [(target, passed)] = only(Forward, restarted.gets(append(sender="n3", term=3, prev=(4, 2), commit=4)))
    assert (target, passed.number) == ("n3", 2)


@pytest.mark.parametrize("answers_first", ["n2", "n3"])
def test_a_new_leader_is_asked_at_once_while_the_former_one_owes_its_answer(answers_first: str) -> None:
    """A leader that stands still or is cut off says nothing: stale reads must not wait until it is given up.

    Nor is its answer worth less if it comes all the same: a majority followed it after the question.
    """
    restarted = follower(term=2, entries=log(1, 2, 2), commit_index=0)
    restarted.gets(append(term=2, prev=(4, 2), commit=4))

    passed = [
        only(Forward, restarted.gets(append(sender="n3", term=3, prev=(4, 2), commit=4))),
        only(Forward, restarted.gets(append(sender="n3", term=3, prev=(4, 2), commit=4))),
    ]

    assert passed == [[("n3", Forward("n1", 77, 2, AskReadIndex(1000.0)))], []]
    assert restarted.gets(ForwardReply(answers_first, 77, {"n2": 1, "n3": 2}[answers_first], ReadIndex(4))) == []
    assert restarted.gets(read(level="stale")) == [read_at(read_index=4)]


def test_a_leader_that_leads_again_is_asked_again() -> None:
    """What it was asked in its first term it may have forgotten."""
    restarted = follower(term=2, entries=log(1, 2, 2), commit_index=0)

    asked = [
        only(Forward, restarted.gets(append(sender=leader, term=term, prev=(4, 2), commit=4)))
        for leader, term in (("n2", 2), ("n3", 3), ("n2", 4), ("n2", 4))
    ]

    assert [[(target, passed.number) for target, passed in each] for each in asked] == [
        [("n2", 1)],
        [("n3", 2)],
        [("n2", 3)],
        [],
    ]


def test_no_message_of_an_earlier_life_tells_a_stale_read_what_to_show() -> None:
    """A very old AppendEntries, of the same leader and term, comes after the restart: found by a simulated life."""
    restarted = follower(term=2, entries=log(2, 2, 2), commit_index=0)
    restarted.gets(append(entry(3, 2), term=2, prev=(2, 2), commit=2))

    assert only(ReadAt, restarted.gets(read(level="stale"))) == []


def test_a_stale_read_without_a_leader_waits_for_one() -> None:
    """As long as there was none in this life, nobody could say what is committed."""
    alone = follower(commit_index=0)

    assert alone.gets(read(level="stale")) == []
    passed = only(Forward, alone.gets(append(term=2, commit=1)))
    assert [each.request for _, each in passed] == [AskReadIndex(1e9), AskReadIndex(1000.0)]


def test_a_new_leader_serves_stale_reads_once_its_no_op_is_committed() -> None:
    """From there on its commit index covers everything that any leader before has acknowledged."""
    fresh = leader(entries=log(1), commit_index=0)

    assert fresh.gets(read(level="stale")) == []
    fresh.gets(matched("n2", term=2, match_index=3))
    assert fresh.gets(read(level="stale")) == [read_at(read_index=3)]


def test_a_stale_read_that_never_hears_of_a_commit_is_refused_at_its_deadline() -> None:
    """Nothing waits for ever."""
    cut_off = follower(commit_index=0)
    cut_off.gets(read(level="stale", until=100.0))

    assert refusals(cut_off.waits_ms(120)) == [("client", "no_leader")]


def test_a_vote_does_not_disturb_reads_under_way() -> None:
    """4.2.3: who leads with a majority ignores candidates, and goes on."""
    chief = settled_leader()
    chief.gets(read())

    assert chief.gets(RequestVote("n3", 9, 9, 2)) == []
    assert only(ReadAt, chief.gets(matched("n2", term=2, match_index=2, read_round=1))) == [read_at(read_index=2)]
