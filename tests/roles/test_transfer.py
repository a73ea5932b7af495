"""Leadership transfer (dissertation, 3.10): a node that is about to stop hands leadership over."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.actors.messages.node import (
    Apply,
    AskFreeBytes,
    Save,
)
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    RequestVote,
    TimeoutNow,
)
from raftkv.actors.messages.requests import (
    Done,
    Forward,
    ForwardReply,
    Propose,
    Refused,
)
from raftkv.config.settings import Limits
from tests.roles.rehearsal import (
    Becomes,
    Player,
    append,
    ask_read_index,
    bootstrapping,
    candidate,
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
    read,
    refusals,
    resign,
    settled_leader,
    write,
)

DONE = ("client", Done())
GIVEN_UP_MS = 600


def still_led(chief: Player, span_ms: float, *, match_index: int = 2) -> list[tuple[str, Any]]:
    """Let time pass while all peers answer heartbeats, and return all that is sent."""
    shown = []
    for _ in range(round(span_ms / 50)):
        shown += chief.waits_ms(50)
        for peer in chief.replica.peers:
            shown += chief.gets(matched(peer, term=2, match_index=match_index))
    return shown


# --- choosing and asking


def test_a_leader_that_retires_asks_a_peer_to_campaign() -> None:
    """3.10: with TimeoutNow, and it is answered when it leads no more."""
    chief = settled_leader()

    assert chief.gets(resign()) == [("n3", TimeoutNow("n1", 2))]
    shown = chief.gets(RequestVote("n3", 3, 2, 2, transfer=True))
    assert DONE in shown
    assert shown[-1] == ("n3", granted("n1", term=3))


def test_the_most_up_to_date_peer_is_chosen() -> None:
    """3.10: it has the least to catch up with."""
    chief = settled_leader()
    chief.gets(write())
    chief.gets(matched("n2", term=2, match_index=3))

    assert chief.gets(resign()) == [("n2", TimeoutNow("n1", 2))]


def test_the_peer_is_asked_once_it_has_all_that_the_leader_has() -> None:
    """3.10, steps 2 and 3: before that it could not be elected."""
    chief = settled_leader()
    chief.gets(write(), write())

    assert only(TimeoutNow, chief.gets(resign())) == []
    assert only(TimeoutNow, chief.gets(matched("n3", term=2, match_index=3))) == []
    assert only(TimeoutNow, chief.gets(matched("n2", term=2, match_index=4))) == []
    assert only(TimeoutNow, chief.gets(matched("n3", term=2, match_index=4))) == [("n3", TimeoutNow("n1", 2))]


def test_a_peer_that_has_not_been_heard_lately_is_not_chosen() -> None:
    """Nobody is there to take over."""
    chief = settled_leader()
    for _ in range(8):
        chief.waits_ms(50)
        chief.gets(matched("n2", term=2, match_index=2))

    assert chief.gets(resign()) == [("n2", TimeoutNow("n1", 2))]


def test_without_anyone_to_take_over_the_request_is_answered_at_once() -> None:
    """Waiting would help nobody."""
    assert leader().gets(resign()) == [DONE]
    assert leader(entries=log(names=("n1",))).gets(resign()) == [DONE]


@pytest.mark.parametrize("node", [follower, candidate, bootstrapping, lambda: follower_of("n2")])
def test_a_node_that_does_not_lead_retires_at_once(node: Any) -> None:
    """It has nothing to hand over."""
    player = node()

    assert player.gets(resign()) == [DONE]
    assert player.replica.resigned


def test_the_request_to_campaign_is_repeated_while_the_peer_answers() -> None:
    """Raft's own messages may be lost."""
    chief = settled_leader()
    chief.gets(resign())

    assert only(TimeoutNow, chief.gets(matched("n3", term=2, match_index=2))) == [("n3", TimeoutNow("n1", 2))]
    assert only(TimeoutNow, chief.gets(matched("n2", term=2, match_index=2))) == []


# --- giving up


def test_a_transfer_that_takes_too_long_is_given_up() -> None:
    """3.10: after about an election timeout the leader goes on serving."""
    chief = settled_leader()
    chief.gets(resign(), write(reply_to="patient"))

    shown = still_led(chief, GIVEN_UP_MS + 50)

    assert only(Done, shown) == [DONE]
    assert [len(save.entries) for _, save in only(Save, shown)] == [1]
    assert chief.role == "leader"
    assert only(TimeoutNow, still_led(chief, 100, match_index=3)) == []


def test_a_retired_node_does_not_campaign() -> None:
    """It is about to stop: it would only have to hand leadership over again."""
    leaving = follower(term=2)
    leaving.gets(resign())

    assert leaving.waits_ms(2000) == []
    assert leaving.gets(TimeoutNow("n2", 2)) == []
    assert leaving.role == "follower"


def test_a_retired_node_still_votes_and_appends() -> None:
    """The others may need it for as long as it is there."""
    leaving = follower(term=1)
    leaving.gets(resign())

    assert leaving.gets(RequestVote("n2", 2, 1, 1))[-1] == ("n2", granted("n1", term=2))
    assert leaving.gets(append(entry(2, 2), term=2))[-1] == ("n2", matched("n1", term=2, match_index=2))


def test_a_candidate_that_retires_does_not_begin_another_election() -> None:
    """The one under way may still be won."""
    leaving = candidate()
    leaving.gets(resign())

    shown = leaving.waits_ms(400)

    assert only(RequestVote, shown) == []
    assert ("node", Becomes("follower")) in shown


# --- meanwhile


def test_requests_are_held_while_leadership_is_handed_over() -> None:
    """3.10, step 1: entries added now would have to be caught up with as well."""
    chief = settled_leader()
    chief.gets(resign())

    assert chief.gets(write(), read()) == []
    assert chief.replica.log.last_index == 2


def test_requests_that_were_held_go_to_the_next_leader() -> None:
    """As soon as it is known; they carry the time that is left."""
    chief = settled_leader()
    chief.gets(resign(), write(put(9, 9), until=1000.0))
    chief.gets(RequestVote("n3", 3, 2, 2, transfer=True))

    shown = chief.gets(append(noop(3, 3), sender="n3", term=3, prev=(2, 2)))

    assert only(Forward, shown) == [("n3", Forward("n1", 77, 1, Propose((put(9, 9),), 1000.0)))]


def test_a_request_held_too_long_is_refused() -> None:
    """It was certainly not done."""
    chief = settled_leader()
    chief.gets(resign(), write(until=100.0))

    assert refusals(still_led(chief, 200)) == [("client", "no_leader")]


def test_requests_that_wait_for_a_transfer_are_bounded() -> None:
    """As those that wait for an election."""
    chief = settled_leader(limits=Limits(held_requests=1))
    chief.gets(resign(), write(reply_to="first"))

    assert refusals(chief.gets(write(reply_to="second"))) == [("second", "overloaded")]


def test_what_a_follower_passes_on_is_not_held_but_sent_back() -> None:
    """It holds the request itself, and knows whom to ask next."""
    chief = settled_leader()
    chief.gets(resign())

    refusal = Refused("not_leader", "leadership goes to n3")

    assert chief.gets(write(reply_to="n2", forward=(5, 1)), ask_read_index("n2", 2)) == [
        ("n2", ForwardReply("n1", 5, 1, refusal)),
        ("n2", ForwardReply("n1", 5, 2, refusal)),
    ]


def test_what_was_appended_before_is_still_answered() -> None:
    """A transfer loses no write: who asked is remembered in the replica."""
    chief = settled_leader()
    asked = write()
    chief.gets(asked, resign())
    chief.gets(RequestVote("n3", 3, 3, 2, transfer=True))
    assert chief.role == "follower"

    shown = chief.gets(append(noop(4, 3), sender="n3", term=3, prev=(3, 2), commit=4))

    assert [(apply.first_index, apply.waiters) for _, apply in only(Apply, shown)] == [
        (3, ((3, asked.reply_to),)),
        (4, ()),
    ]


# --- the chosen peer


def test_timeout_now_is_heeded_though_the_leader_was_just_heard() -> None:
    """3.10: the prohibition of 4.2.3 is not for elections that the leader asked for."""
    heir = follower_of("n2")

    assert ("node", Becomes("candidate")) in heir.gets(TimeoutNow("n2", 2))
    assert heir.replica.current_term == 3


def test_timeout_now_twice_is_one_election() -> None:
    """The second one is of the term before."""
    heir = follower_of("n2")
    heir.gets(TimeoutNow("n2", 2))

    assert heir.gets(TimeoutNow("n2", 2)) == []
    assert heir.replica.current_term == 3


def test_a_candidate_in_its_pre_vote_campaigns_at_once_when_it_is_asked_to() -> None:
    """The leader knows that it is up to date."""
    heir = follower_of("n2")
    heir.waits_ms(301)
    assert heir.role == "candidate"

    shown = heir.gets(TimeoutNow("n2", 2))

    assert [message for _, message in only(RequestVote, shown)] == [RequestVote("n1", 3, 1, 1, transfer=True)] * 2


def test_the_heir_is_elected_by_those_who_hear_the_old_leader() -> None:
    """3.10: its RequestVote says that the leader wanted it."""
    voter = follower_of("n2")

    assert voter.gets(RequestVote("n3", 3, 1, 1, transfer=True))[-1] == ("n3", granted("n1", term=3))


# --- for lack of room


def test_a_leader_without_room_hands_over_to_a_peer_that_has_some() -> None:
    """The write is refused; the next one finds a leader that can take it."""
    chief = settled_leader()
    chief.replica.saves.free_bytes = 1000

    shown = chief.gets(write())

    assert shown == [
        ("journal", AskFreeBytes()),
        ("n3", TimeoutNow("n1", 2)),
        ("client", Refused("no_room", "the disks of a majority are full; deleting is possible")),
    ]


def test_a_peer_whose_disk_is_full_is_not_chosen_for_its_room() -> None:
    """It could not take the write either."""
    chief = settled_leader()
    chief.gets(AppendEntriesReply("n3", 2, False, 2, no_room=True))
    chief.replica.saves.free_bytes = 1000

    assert [target for target, _ in only(TimeoutNow, chief.gets(write()))] == ["n2"]


def test_one_transfer_at_a_time() -> None:
    """A second write without room does not begin another."""
    chief = settled_leader()
    chief.replica.saves.free_bytes = 1000
    chief.gets(write())

    assert chief.gets(write()) == []
    assert [type(message) for _, message in chief.waits_ms(51)] == [AppendEntries, AppendEntries]
