"""Sentences of the dissertation that no other file of this folder has (its chapters 3 and 4)."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.actors.messages.node import Apply, Save
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.messages.requests import Applied, Propose
from raftkv.raft.configuration import Configuration, Member
from raftkv.raft.entry import Entry, Kind
from tests.roles.rehearsal import (
    Becomes,
    Player,
    append,
    candidate,
    denied,
    entry,
    follower,
    follower_of,
    granted,
    leader,
    log,
    matched,
    noop,
    only,
    put,
    settled_leader,
    write,
)
from tests.support.in_memory import InMemoryCluster

SIZES = range(1, 10)


def names(size: int) -> tuple[str, ...]:
    """Return the ids of a cluster of this size."""
    return tuple(f"n{number}" for number in range(1, size + 1))


# --- terms (3.3)

ROLES: dict[str, Any] = {
    "follower": lambda: follower(term=2),
    "candidate": lambda: candidate(term=1),
    "leader": lambda: leader(term=2),
}
LATER = [
    RequestVote("n2", 7, 9, 6, transfer=True),
    append(term=7),
    denied("n2", term=7),
    denied("n2", term=7, pre_vote=True),
    AppendEntriesReply("n2", 7, False, 1),
]


@pytest.mark.parametrize("message", LATER, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("role", ROLES)
def test_whoever_hears_of_a_later_term_adopts_it_and_follows(role: str, message: Any) -> None:
    """3.3: current terms are exchanged with every message; the smaller one is updated, and its server follows."""
    player: Player = ROLES[role]()
    assert player.replica.current_term == 2

    shown = player.gets(message)

    assert (player.role, player.replica.current_term) == ("follower", 7)
    assert only(Save, shown)[0][1].current_term == 7


@pytest.mark.parametrize("role", ROLES)
def test_requests_of_an_earlier_term_are_refused_with_the_current_one(role: str) -> None:
    """3.3: so that who sent them learns that it is stale."""
    player: Player = ROLES[role]()

    assert player.gets(RequestVote("n2", 1, 9, 1)) == [("n2", denied("n1", term=2))]
    ((target, refusal),) = player.gets(append(term=1))
    assert (target, refusal.term, refusal.success) == ("n2", 2, False)
    assert (player.role, player.replica.log.last_index) == (role, 2 if role == "leader" else 1)


@pytest.mark.parametrize("role", ROLES)
def test_answers_of_an_earlier_term_change_nothing(role: str) -> None:
    """3.3: they belong to what is over."""
    player: Player = ROLES[role]()

    assert player.gets(granted("n2", term=1), denied("n2", term=1), matched("n2", term=1, match_index=1)) == []
    assert player.gets(TimeoutNow("n2", 1)) == []
    assert player.role == role


def test_a_granted_pre_vote_is_no_later_term() -> None:
    """9.6: it names the term that was asked about, which nobody has begun."""
    player = leader(term=2)

    assert player.gets(granted("n2", term=9, pre_vote=True)) == []
    assert player.role == "leader"


# --- elections (3.4)


def test_a_follower_stays_one_while_it_hears_from_its_leader() -> None:
    """3.4: every valid message of a leader begins the election timeout anew."""
    content = follower(term=2)
    for _ in range(50):
        content.gets(append(term=2))
        assert content.waits_ms(149) == []

    assert content.role == "follower"


def test_refused_entries_count_as_hearing_from_the_leader() -> None:
    """3.4: the leader is there, though its log does not fit."""
    content = follower(term=2)
    for _ in range(10):
        content.gets(append(term=2, prev=(9, 2)))
        assert content.waits_ms(149) == []

    assert content.role == "follower"


def test_a_leader_of_the_past_does_not_keep_a_follower_from_campaigning() -> None:
    """3.4: only valid messages do, those of the current term."""
    waiting = follower(term=3)
    shown: list[Any] = []
    for _ in range(4):
        waiting.gets(append(term=2))
        shown += waiting.waits_ms(100)

    assert ("node", Becomes("candidate")) in shown


def test_a_refused_candidate_does_not_keep_a_follower_from_campaigning() -> None:
    """3.4: only giving one's vote begins the timeout anew."""
    waiting = follower(term=2, entries=log(2))
    shown: list[Any] = []
    for term in range(3, 7):
        waiting.gets(RequestVote("n2", term, 1, 1))
        shown += waiting.waits_ms(100)

    assert ("node", Becomes("candidate")) in shown


def test_a_leader_sends_heartbeats_to_all_of_its_peers_all_the_time() -> None:
    """3.4: to keep its authority; and they say how far is committed (3.5)."""
    chief = settled_leader(entries=log(names=names(5)))
    beat = append(sender="n1", term=2, prev=(2, 2), commit=2)

    assert chief.waits_ms(51) == [(peer, beat) for peer in ("n2", "n3", "n4", "n5")]
    assert chief.waits_ms(51) == [(peer, beat) for peer in ("n2", "n3", "n4", "n5")]


@pytest.mark.parametrize("size", SIZES)
def test_a_candidate_is_elected_by_a_majority_of_the_whole_cluster(size: int) -> None:
    """3.4, and pitfall 13: not one vote fewer, however many servers there are."""
    hopeful = Player("candidate", follower(entries=log(names=names(size))).replica)
    hopeful.starts()
    hopeful.gets(*(granted(name, term=2, pre_vote=True) for name in names(size)[1:]))
    needed = size // 2 + 1

    for count, voter in enumerate(names(size)[1:], 2):
        assert hopeful.role == ("leader" if count > needed else "candidate")
        hopeful.gets(granted(voter, term=2))
    assert hopeful.role == "leader"


@pytest.mark.parametrize("size", SIZES)
def test_an_entry_is_committed_by_a_majority_of_the_whole_cluster(size: int) -> None:
    """3.5, and pitfalls 13 and 24: not one server fewer, whichever they are."""
    chief = leader(entries=log(names=names(size)))
    needed = size // 2 + 1

    for count, peer in enumerate(reversed(names(size)[1:]), 2):
        assert (chief.replica.commit_index == 2) == (count > needed)
        chief.gets(matched(peer, term=2, match_index=2))
    assert chief.replica.commit_index == 2


def test_a_node_alone_is_elected_when_its_vote_is_durable() -> None:
    """3.8: there is nobody else to wait for, but its own disk."""
    alone = follower(entries=log(names=("n1",)))
    alone.disk_waits = True
    alone.waits_ms(301)
    assert alone.role == "candidate"

    alone.disk_answers()
    assert alone.role == "leader"


def test_each_election_has_a_timeout_of_its_own() -> None:
    """3.4: every candidate waits a random time before it tries again."""
    unlucky = candidate(term=1)
    drawn = set()
    for _ in range(10):
        unlucky.waits_ms(unlucky.roles["candidate"].election_ms - unlucky.stage.clock.ms + 1)
        drawn.add(unlucky.roles["candidate"].election_ms - unlucky.stage.clock.ms)

    assert len(drawn) == 10
    assert all(140 <= timeout <= 300 for timeout in drawn)


def test_only_voters_are_asked_and_counted() -> None:
    """4.2.1: learners get entries and have no vote, in elections as in commitment."""
    members = tuple(Member(name, f"{name}:5001", f"{name}-1") for name in names(4))
    learners = (Entry(1, 1, Kind.CONFIGURATION, Configuration(members, frozenset(names(3))).encode()),)
    hopeful = candidate(entries=learners)
    assert hopeful.gets(granted("n4", term=2)) == []
    shown = hopeful.gets(granted("n2", term=2))
    assert {target for target, _ in only(AppendEntries, shown)} == {"n2", "n3", "n4"}

    assert only(Apply, hopeful.gets(matched("n4", term=2, match_index=2))) == []
    assert len(only(Apply, hopeful.gets(matched("n3", term=2, match_index=2)))) == 1


# --- replication (3.5)


def test_a_leader_never_changes_or_removes_its_own_entries() -> None:
    """3.5, leader append-only: whatever it is sent."""
    chief = settled_leader(entries=log(1, 1))
    before = chief.replica.log.span(1, 4)

    chief.gets(
        append(entry(2, 2), term=2, sender="n3"),
        append(entry(2, 1), term=1, sender="n3"),
        AppendEntriesReply("n2", 2, False, 3, conflict_term=1, conflict_index=2),
        RequestVote("n3", 2, 9, 2),
        write(),
    )

    assert chief.role == "leader"
    assert chief.replica.log.span(1, 4) == before
    assert chief.replica.log.last_index == 5


def test_the_next_message_says_what_was_committed_by_the_last_answers() -> None:
    """3.5: the leader includes the highest index it knows to be committed, in heartbeats too."""
    chief = settled_leader()
    chief.gets(write())
    chief.gets(matched("n2", term=2, match_index=3))

    assert {message.leader_commit for _, message in only(AppendEntries, chief.waits_ms(51))} == {3}


def test_a_follower_applies_what_it_learns_to_be_committed_in_the_order_of_the_log() -> None:
    """3.5: and only then."""
    learner = follower(term=2)
    assert only(Apply, learner.gets(append(entry(2, 2), entry(3, 2), entry(4, 2), term=2))) == []

    first = only(Apply, learner.gets(append(term=2, prev=(4, 2), commit=3)))
    second = only(Apply, learner.gets(append(term=2, prev=(4, 2), commit=4)))

    assert [apply for _, apply in first + second] == [Apply(2, (entry(2, 2), entry(3, 2))), Apply(4, (entry(4, 2),))]


def test_the_same_entries_twice_are_appended_once() -> None:
    """3.7: requests are idempotent, so a server that crashed before its answer can simply be asked again."""
    learner = follower(term=2)
    request = append(entry(2, 2), entry(3, 2), term=2)
    first = learner.gets(request)

    second = learner.gets(request)

    assert only(Save, first) == [("journal", Save(1, 2, None, (entry(2, 2), entry(3, 2))))]
    assert second == [("n2", matched("n1", term=2, match_index=3))]


def test_entries_that_overlap_with_known_ones_are_appended_from_where_they_are_new() -> None:
    """3.7: as when an answer was lost."""
    learner = follower(term=2, entries=log(2))

    shown = learner.gets(append(entry(2, 2), entry(3, 2), term=2))

    assert only(Save, shown) == [("journal", Save(1, 2, None, (entry(3, 2),)))]
    assert shown[-1] == ("n2", matched("n1", term=2, match_index=3))


def test_while_a_peer_is_probed_no_entries_are_sent_to_it() -> None:
    """3.5: until both logs are known to agree somewhere; then all that it lacks, at once."""
    chief = leader(term=5, entries=log(1, 1, 4, 4, 4))
    probe = chief.gets(AppendEntriesReply("n2", 5, False, 6, conflict_term=2, conflict_index=3))
    again = chief.waits_ms(51)

    assert [len(message.entries) for target, message in probe + again if target == "n2"] == [0, 0]
    shown = only(AppendEntries, chief.gets(matched("n2", term=5, match_index=2)))
    assert [[e.index for e in message.entries] for _, message in shown] == [[3, 4, 5, 6, 7]]


def test_one_slow_follower_holds_up_nobody() -> None:
    """3.5: a majority is enough, each time."""
    chief = settled_leader()

    for index in range(3, 20):
        chief.gets(write())
        chief.gets(matched("n2", term=2, match_index=index))
        assert chief.replica.commit_index == index


def test_a_slow_follower_gets_all_of_it_when_it_answers_again() -> None:
    """3.5: the leader tries without end."""
    chief = settled_leader()
    for index in range(3, 9):
        chief.gets(write())
        chief.gets(matched("n2", term=2, match_index=index))
    for _ in range(10):
        chief.waits_ms(50)
        chief.gets(matched("n2", term=2, match_index=8))

    shown = chief.gets(matched("n3", term=2, match_index=2))

    assert [e.index for _, message in only(AppendEntries, shown) for e in message.entries] == [3, 4, 5, 6, 7, 8]


# --- what is lost in a crash (3.8)


def test_a_restarted_leader_s_own_entries_are_not_committed_by_its_restart() -> None:
    """3.8: the commit index is not on disk, and is found out anew, with an entry of the new term."""
    restarted = follower(term=2, entries=log(2, 2), commit_index=0)
    restarted.waits_ms(301)
    restarted.gets(granted("n2", term=3, pre_vote=True), granted("n2", term=3))
    assert (restarted.role, restarted.replica.commit_index) == ("leader", 0)

    restarted.gets(matched("n2", term=3, match_index=3))
    assert restarted.replica.commit_index == 0
    ((_, apply),) = only(Apply, restarted.gets(matched("n2", term=3, match_index=4)))
    assert apply.entries == (*log(2, 2), noop(4, 3))


# --- those who would disturb (4.2.3)


def test_whoever_has_not_heard_its_leader_for_the_shortest_timeout_votes_again() -> None:
    """4.2.3: nobody campaigns earlier than that, so elections that are needed are not held up."""
    voter = follower_of("n2")
    voter.waits_ms(149)
    assert voter.gets(RequestVote("n3", 3, 9, 2, pre_vote=True)) == [("n3", denied("n1", term=2, pre_vote=True))]
    voter.stage.clock.ms = 150.0

    assert voter.gets(RequestVote("n3", 3, 9, 2, pre_vote=True)) == [("n3", granted("n1", term=3, pre_vote=True))]
    assert voter.gets(RequestVote("n3", 3, 9, 2))[-1] == ("n3", granted("n1", term=3))


def test_a_server_that_was_cut_off_does_not_depose_the_leader_when_it_is_back() -> None:
    """4.2.3, 9.6, and pitfall 14: it has not gone to a later term, since nobody would have voted for it."""
    lonely = follower_of("n2")
    lonely.waits_ms(60_000)
    assert (lonely.role, lonely.replica.current_term) == ("candidate", 2)

    assert lonely.gets(append(term=2)) == [("node", Becomes("follower")), ("n2", matched("n1", term=2, match_index=1))]


def test_a_vote_reply_alone_makes_nobody_a_candidate() -> None:
    """3.4: roles change by time-outs, majorities, later terms and leaders only."""
    player = follower(term=2)

    assert player.gets(RequestVoteReply("n2", 2, True), RequestVoteReply("n3", 2, True)) == []
    assert player.role == "follower"


# --- whole clusters, where elections could go on for ever (9.6)


def three_nodes(seed: int) -> InMemoryCluster:
    """Return a cluster with a leader."""
    cluster = InMemoryCluster(3, seed)
    cluster.run_ms(2000)
    assert len(cluster.leaders()) == 1
    return cluster


@pytest.mark.parametrize("seed", range(5))
def test_a_leader_that_stops_does_not_keep_the_others_from_electing(seed: int) -> None:
    """Pitfall 15: one of three is gone, and the other two need each other's pre-vote."""
    cluster = three_nodes(seed)
    for _ in range(3):
        (old,) = cluster.leaders()
        cluster.crash(old)
        cluster.run_ms(2000)

        (new,) = cluster.leaders()
        assert new != old
        cluster.boot(old)
        cluster.run_ms(1000)
        assert cluster.leaders() == [new]


@pytest.mark.parametrize("seed", range(5))
def test_a_leader_stays_while_one_follower_can_t_hear_it(seed: int) -> None:
    """Pitfall 17: that one campaigns all the time, and the other one goes on hearing the leader."""
    cluster = three_nodes(seed)
    (chief,) = cluster.leaders()
    deaf = next(name for name in cluster.names if name != chief)
    cluster.cut = {(chief, deaf)}
    cluster.run_ms(10_000)

    assert cluster.leaders() == [chief]
    assert cluster.replica(chief).current_term == cluster.replica(deaf).current_term


@pytest.mark.parametrize("seed", range(5))
def test_a_chain_of_three_has_a_leader(seed: int) -> None:
    """Pitfall 17: the two ends can't reach each other, and both reach the one in the middle."""
    cluster = three_nodes(seed)
    cluster.cut = {("n1", "n3"), ("n3", "n1")}
    cluster.run_ms(2000)
    leaders = cluster.leaders()
    cluster.run_ms(10_000)

    assert len(leaders) == 1
    assert cluster.leaders() == leaders
    cluster.ask(leaders[0], Propose((put(1, 1),), 1000.0), "client")
    cluster.run_ms(100)
    assert [(reply_to, type(reply)) for reply_to, reply in cluster.replies] == [("client", Applied)]
