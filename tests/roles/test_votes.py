"""Voting and elections (dissertation, 3.4, 3.6.1, 4.2.3, 9.6)."""

from __future__ import annotations

import itertools

import pytest

from raftkv.actors.messages.node import Save
from raftkv.actors.messages.raft import RequestVote, TimeoutNow
from raftkv.raft.log import Log
from tests.roles.rehearsal import (
    Becomes,
    append,
    candidate,
    denied,
    follower,
    granted,
    leader,
    log,
    matched,
    noop,
    only,
    settled_leader,
)


def test_grants_at_most_one_vote_per_term() -> None:
    """3.4: each server votes for at most one candidate in a given term, first come first served."""
    voter = follower(term=1)

    assert voter.gets(RequestVote("n2", 2, 1, 1)) == [("journal", Save(1, 2, "n2")), ("n2", granted("n1", term=2))]
    assert voter.gets(RequestVote("n3", 2, 1, 1)) == [("n3", denied("n1", term=2))]


def test_repeats_its_vote_to_the_same_candidate() -> None:
    """3.4: a candidate whose answer was lost asks again, and is told the same, without another save."""
    voter = follower(term=2, voted_for="n2")

    assert voter.gets(RequestVote("n2", 2, 1, 1)) == [("n2", granted("n1", term=2))]


def test_a_vote_is_not_said_before_it_is_durable() -> None:
    """3.8: current term and vote are on disk before the answer leaves."""
    voter = follower(term=1)
    voter.disk_waits = True

    assert voter.gets(RequestVote("n2", 2, 1, 1)) == [("journal", Save(1, 2, "n2"))]
    assert voter.disk_answers() == [("n2", granted("n1", term=2))]


def test_a_vote_under_way_to_disk_is_answered_in_the_term_it_was_given() -> None:
    """A reply is complete when it is decided: a later term that comes before the disk answers does not change it."""
    voter = follower(term=1)
    voter.disk_waits = True
    voter.gets(RequestVote("n2", 2, 1, 1))

    assert voter.gets(RequestVote("n3", 3, 1, 1)) == [("journal", Save(2, 3, "n3"))]
    assert voter.disk_answers() == [("n2", granted("n1", term=2)), ("n3", granted("n1", term=3))]


def test_denies_a_candidate_of_an_earlier_term() -> None:
    """3.3: a request of a stale term is refused, with the current one."""
    assert follower(term=5).gets(RequestVote("n2", 4, 9, 4)) == [("n2", denied("n1", term=5))]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    list(itertools.product([(1,), (1, 1), (1, 2), (1, 1, 2), (1, 3)], [(1, 1), (2, 1), (2, 2), (3, 2), (2, 3)])),
)
def test_votes_only_for_a_log_at_least_as_up_to_date(ours: tuple[int, ...], theirs: tuple[int, int]) -> None:
    """3.6.1: the later last term is more up to date; with equal terms the longer log is."""
    voter = follower(term=3, entries=log(*ours[1:]))
    last_index, last_term = theirs
    mine = (ours[-1], len(ours))

    answer = voter.gets(RequestVote("n2", 4, last_index, last_term))[-1]

    assert answer == ("n2", (granted if (last_term, last_index) >= mine else denied)("n1", term=4))


def test_the_longer_log_of_an_earlier_term_is_not_more_up_to_date() -> None:
    """3.6.1, and the mistake of comparing the index first."""
    assert not Log(log(3)).is_up_to_date(last_log_index=9, last_log_term=2)


def test_a_follower_that_hears_nothing_asks_for_pre_votes_and_changes_nothing() -> None:
    """9.6: before an election a server asks whether it would be elected, and does not go to another term."""
    lonely = follower(term=4)
    pre_vote = RequestVote("n1", 5, 1, 1, pre_vote=True)

    shown = lonely.waits_ms(300)

    assert shown[:3] == [("node", Becomes("candidate")), ("n2", pre_vote), ("n3", pre_vote)]
    assert only(Save, shown) == []
    assert lonely.replica.current_term == 4


def test_a_pre_vote_changes_nothing_at_the_voter() -> None:
    """9.6: it is granted to any number of candidates, in a term that nobody has begun."""
    voter = follower(term=1)

    assert voter.gets(RequestVote("n2", 2, 1, 1, True)) == [("n2", granted("n1", term=2, pre_vote=True))]
    assert voter.gets(RequestVote("n3", 2, 1, 1, True)) == [("n3", granted("n1", term=2, pre_vote=True))]
    assert (voter.replica.current_term, voter.replica.voted_for) == (1, None)


def test_whoever_hears_a_leader_refuses_pre_votes_and_ignores_candidates() -> None:
    """4.2.3: a server that hears from a current leader does not help to disturb it."""
    content = follower(term=2)
    content.gets(append(term=2, sender="n2"))

    assert content.gets(RequestVote("n3", 3, 9, 2, pre_vote=True)) == [("n3", denied("n1", term=2, pre_vote=True))]
    assert content.gets(RequestVote("n3", 3, 9, 2)) == []
    assert content.replica.current_term == 2


def test_a_transfer_is_not_a_disturbance() -> None:
    """3.10: the leader itself asked for this election."""
    content = follower(term=2)
    content.gets(append(term=2, sender="n2"))

    assert content.gets(RequestVote("n3", 3, 9, 2, transfer=True))[-1] == ("n3", granted("n1", term=3))


def test_a_leader_ignores_a_candidate_that_the_majority_has_no_need_of() -> None:
    """4.2.3: a server that was cut off must not depose the leader when it comes back."""
    deaf = settled_leader(term=2)

    assert deaf.gets(RequestVote("n3", 7, 9, 2)) == []
    assert deaf.role == "leader"


def test_asks_for_votes_only_once_its_own_is_durable() -> None:
    """3.8: a candidate that forgot its own vote could vote again in the same term."""
    hopeful = follower(term=1)
    hopeful.waits_ms(300)
    hopeful.disk_waits = True

    assert hopeful.gets(granted("n2", term=2, pre_vote=True)) == [("journal", Save(1, 2, "n1"))]
    request = RequestVote("n1", 2, 1, 1)
    assert hopeful.disk_answers() == [("n2", request), ("n3", request)]


def test_votes_are_counted_by_voter_not_by_message() -> None:
    """3.4: a repeated answer is one vote."""
    members = ("n1", "n2", "n3", "n4", "n5")
    hopeful = candidate(term=1, entries=log(names=members))

    assert hopeful.gets(granted("n2", term=2), granted("n2", term=2)) == []
    assert hopeful.gets(granted("n3", term=2))[0] == ("node", Becomes("leader"))


def test_votes_of_another_term_do_not_count() -> None:
    """3.4: neither late answers of an earlier election nor pre-votes elect anyone."""
    hopeful = candidate(term=3)

    assert hopeful.gets(granted("n2", term=3), granted("n3", term=4, pre_vote=True), denied("n2", term=4)) == []
    assert hopeful.role == "candidate"


def test_a_leader_begins_its_term_with_a_no_op() -> None:
    """3.6.2, 6.4: it makes the entries of earlier terms committable and reads possible."""
    hopeful = candidate(term=1)

    shown = hopeful.gets(granted("n2", term=2))

    assert shown[:2] == [("node", Becomes("leader")), ("journal", Save(2, 2, "n1", (noop(2, 2),)))]
    sent = append(noop(2, 2), sender="n1", term=2, prev=(1, 1), commit=1)
    assert [message for message in shown if message[1] == sent] == [("n2", sent), ("n3", sent)]


def test_a_candidate_follows_the_leader_of_its_term() -> None:
    """3.4: a leader whose term is at least as large is legitimate."""
    loser = candidate(term=1)

    assert loser.gets(append(term=2, sender="n3")) == [
        ("node", Becomes("follower")),
        ("n3", matched("n1", term=2, match_index=1)),
    ]
    assert (loser.replica.leader_id, loser.replica.voted_for) == ("n3", "n1")


def test_a_candidate_of_the_same_term_keeps_its_vote_when_it_steps_down() -> None:
    """3.4: stepping down within a term must not make a second vote possible in it."""
    loser = candidate(term=1)
    loser.gets(append(term=2, sender="n3"))
    loser.waits_ms(149)

    assert loser.gets(RequestVote("n2", 2, 9, 2)) == [("n2", denied("n1", term=2))]


def test_a_candidate_rejects_a_leader_of_an_earlier_term_and_goes_on() -> None:
    """3.4: the stale leader learns the term."""
    hopeful = candidate(term=4)

    (answer,) = hopeful.gets(append(term=4, sender="n3"))

    assert (answer[0], answer[1].term, answer[1].success) == ("n3", 5, False)
    assert hopeful.role == "candidate"


def test_an_election_without_a_winner_is_repeated() -> None:
    """3.4: the candidate times out and starts anew, by asking again whether it has a chance."""
    unlucky = candidate(term=1)

    asked = [message for _, message in only(RequestVote, unlucky.waits_ms(301))]

    assert RequestVote("n1", 3, 1, 1, pre_vote=True) in asked
    assert unlucky.replica.current_term == 2


def test_election_timeouts_are_drawn_anew_each_time() -> None:
    """3.4: randomised, so that split votes are rare."""
    waiter = follower()
    drawn = set()
    for _ in range(20):
        waiter.gets(append(term=2, sender="n2"))
        drawn.add(waiter.roles["follower"].election_ms - waiter.stage.clock.ms)

    assert len(drawn) == 20
    assert all(150 <= timeout <= 300 for timeout in drawn)


def test_timeout_now_starts_an_election_at_once_and_without_asking_first() -> None:
    """3.10: leadership transfer."""
    heir = follower(term=2)
    heir.gets(append(term=2, sender="n2"))

    shown = heir.gets(TimeoutNow("n2", 2))

    request = RequestVote("n1", 3, 1, 1, transfer=True)
    assert shown == [("node", Becomes("candidate")), ("journal", Save(1, 3, "n1")), ("n2", request), ("n3", request)]


def test_an_old_timeout_now_is_ignored() -> None:
    """3.10: the leader that sent it is no longer one."""
    assert follower(term=3).gets(TimeoutNow("n2", 2)) == []


def test_a_stalled_follower_listens_once_more_before_it_campaigns() -> None:
    """A wake-up that comes late means that we slept, not that the leader is dead."""
    sleeper = follower(term=2)
    sleeper.gets(append(term=2, sender="n2"))

    assert sleeper.stalls_ms(3000) == []
    assert sleeper.role == "follower"
    assert ("node", Becomes("candidate")) in sleeper.waits_ms(301)


def test_a_leader_that_no_majority_answers_steps_down() -> None:
    """6.2: clients must be able to find the leader of the other side."""
    lonely = settled_leader(term=2)

    assert ("node", Becomes("follower")) in lonely.waits_ms(700)
    assert lonely.replica.leader_id is None


def test_a_leader_that_one_of_two_peers_answers_stays() -> None:
    """6.2: a majority of three is two."""
    loved = settled_leader(term=2)
    for _ in range(20):
        loved.waits_ms(50)
        loved.gets(matched("n2", term=2, match_index=2))

    assert loved.role == "leader"


def test_a_leader_steps_down_for_a_later_term_whoever_tells_it() -> None:
    """3.3: a server that finds its term out of date becomes a follower at once."""
    for message in (denied("n2", term=9), append(term=9, sender="n2"), matched("n2", term=9, match_index=1)):
        old = leader(term=2)
        assert ("node", Becomes("follower")) in old.gets(message)
        assert (old.replica.current_term, old.replica.voted_for) == (9, None)


def test_a_leader_whose_disk_does_not_answer_steps_down() -> None:
    """Leadership follows the disk: heartbeats alone must not keep a node in office that can save nothing."""
    stuck = settled_leader(term=2)
    stuck.disk_waits = True
    stuck.gets(*[])
    stuck.roles["leader"]._append(0, b"")
    stuck.gets(matched("n2", term=2, match_index=2))
    for _ in range(24):
        stuck.waits_ms(50)
        if stuck.role == "leader":
            stuck.gets(matched("n2", term=2, match_index=2))

    assert stuck.role == "follower"
