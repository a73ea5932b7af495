"""Requests at a node that does not lead: passed on one hop, or held until there is a leader (6.2)."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.actors.messages.node import (
    Apply,
    NotSent,
    PeerDown,
    PeerUp,
    Save,
)
from raftkv.actors.messages.requests import (
    Applied,
    AskReadIndex,
    Forward,
    ForwardReply,
    Propose,
    Refused,
)
from raftkv.config.settings import Limits
from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import PutDone, encode_commands
from tests.roles.rehearsal import (
    Becomes,
    Player,
    append,
    ask_read_index,
    bootstrapping,
    candidate,
    follower,
    follower_of,
    granted,
    matched,
    noop,
    only,
    put,
    read,
    refusals,
    settled_leader,
    write,
)


def passed_on(number: int = 1, *, index: int = 9, left_ms: float = 1e9) -> Forward:
    """Return what a follower makes of ``write(put(index, 9))``."""
    return Forward("n1", 77, number, Propose((put(index, 9),), left_ms))


# --- one hop


def test_a_follower_passes_a_write_on_to_the_leader() -> None:
    """6.2: a client may ask any node."""
    helper = follower_of("n2")

    assert helper.gets(write()) == [("n2", passed_on())]
    done = Applied(2, 2, 1, (PutDone(1),))
    assert helper.gets(ForwardReply("n2", 77, 1, done)) == [("client", done)]


def test_a_request_that_is_passed_on_carries_the_time_that_is_left() -> None:
    """Clocks of different nodes have nothing to do with each other."""
    helper = follower_of("n2")
    helper.waits_ms(40)

    assert helper.gets(write(until=100.0)) == [("n2", passed_on(left_ms=60.0))]


@pytest.mark.parametrize("request_of_a_peer", [write(reply_to="n3", forward=(5, 1)), ask_read_index("n3", 1)])
@pytest.mark.parametrize(
    ("node", "leader_known"), [(lambda: follower_of("n2"), "n2"), (follower, ""), (candidate, ""), (bootstrapping, "")]
)
def test_a_request_goes_one_hop_and_never_more(node: Any, leader_known: str, request_of_a_peer: Any) -> None:
    """It is neither passed on a second time nor held: two nodes could send it back and forth."""
    bystander = node()

    refusal = ForwardReply(
        "n1", 5, 1, Refused("not_leader", f"{leader_known} leads" if leader_known else "no leader is known")
    )

    assert bystander.gets(request_of_a_peer) == [("n3", refusal)]
    assert list(bystander.replica.requests.held) == []


def test_the_leader_serves_what_a_follower_passes_on() -> None:
    """The store's answer goes back to the follower's Node, under the number of its request."""
    chief = settled_leader()
    asked = write(reply_to="n3", forward=(5, 1))
    chief.gets(asked)

    ((_, apply),) = only(Apply, chief.gets(matched("n2", term=2, match_index=3)))

    assert apply.waiters == ((3, asked.reply_to),)


def test_a_refusal_of_the_leader_is_passed_on() -> None:
    """It has its own words for why not."""
    helper = follower_of("n2")
    helper.gets(write())

    full = Refused("overloaded", "too much waits")

    assert helper.gets(ForwardReply("n2", 77, 1, full)) == [("client", full)]


def test_an_answer_finds_its_client_through_a_change_of_role() -> None:
    """What was passed on is remembered in the replica."""
    helper = follower_of("n2")
    helper.gets(write())
    helper.waits_ms(301)
    assert helper.role == "candidate"

    done = Applied(2, 2, 1, (PutDone(1),))

    assert helper.gets(ForwardReply("n2", 77, 1, done)) == [("client", done)]


# --- held during elections


@pytest.mark.parametrize("node", [follower, candidate, bootstrapping])
def test_requests_wait_while_there_is_no_leader(node: Any) -> None:
    """During an election requests wait instead of failing."""
    waiting = node()

    assert waiting.gets(write(), read()) == []
    assert len(waiting.replica.requests.held) == 2


def test_held_requests_go_to_the_leader_when_one_is_heard_in_their_order() -> None:
    """The election is over."""
    waiting = follower(term=2)
    waiting.gets(write(put(8, 9)), read(), write(put(9, 9)))

    shown = waiting.gets(append(term=2, sender="n3"))

    assert shown == [
        ("n3", passed_on(1, index=8)),
        ("n3", Forward("n1", 77, 2, AskReadIndex(1e9))),
        ("n3", passed_on(3, index=9)),
        ("n3", matched("n1", term=2, match_index=1)),
    ]


def test_held_requests_are_served_by_this_node_when_it_is_elected() -> None:
    """They follow the no-op of the new term."""
    hopeful = candidate(term=1)
    hopeful.gets(write(put(8, 9)), read(), write(put(9, 9)))

    shown = hopeful.gets(granted("n2", term=2))

    writes = tuple(Entry(i, 2, Kind.COMMANDS, encode_commands((put(k, 9),))) for i, k in ((3, 8), (4, 9)))
    assert [save.entries for _, save in only(Save, shown)] == [(noop(2, 2),), writes]
    assert len(hopeful.roles["leader"].rounds.waiting) == 1


def test_a_candidate_that_loses_passes_on_what_it_held() -> None:
    """Whoever won."""
    loser = candidate(term=1)
    loser.gets(write())

    shown = loser.gets(append(term=2, sender="n3"))

    assert shown[:2] == [("node", Becomes("follower")), ("n3", passed_on())]


def test_held_requests_go_to_the_next_leader_too() -> None:
    """The one who was followed when they came is not asked again."""
    helper = follower_of("n2")
    helper.waits_ms(301)
    helper.gets(write())

    assert only(Forward, helper.gets(append(term=3, sender="n3"))) == [("n3", passed_on(left_ms=1e9 - 301))]


def test_a_request_is_held_until_its_deadline_and_then_refused() -> None:
    """Not done: it never left this node."""
    waiting = follower()
    waiting.gets(PeerUp("n2"), write(until=100.0), read(until=120.0), write(reply_to="patient", until=1e9))

    assert waiting.waits_ms(99) == []
    expected = Refused("no_leader", "an election is under way")
    assert waiting.waits_ms(60) == [("client", expected), ("client", expected)]
    assert [asked.reply_to.address.addressDetails for asked in waiting.replica.requests.held] == ["patient"]


def test_a_refusal_says_who_is_missing_for_a_majority() -> None:
    """Whoever operates the cluster must know what to do."""
    cut_off = follower()
    cut_off.gets(PeerUp("n2"), PeerUp("n3"), PeerDown("n3", "reset"), PeerDown("n2", "reset"), write(until=100.0))

    assert cut_off.waits_ms(120) == [
        ("client", Refused("no_leader", "no majority: n2, n3 can't be reached, and 2 of 3 are needed"))
    ]


def test_a_request_whose_time_is_over_is_not_passed_on_when_a_leader_is_heard() -> None:
    """Nobody waits for it any more, and it must not be done behind their back."""
    waiting = follower(term=2)
    waiting.gets(write(until=10.0))
    waiting.stage.clock.ms = 20.0

    shown = waiting.gets(append(term=2))

    assert only(Forward, shown) == []
    assert refusals(shown) == [("client", "no_leader")]


def test_requests_that_may_wait_are_bounded() -> None:
    """What does not fit is refused at once, and certainly not done."""
    crowded = follower(limits=Limits(held_requests=2))
    crowded.gets(write(), read())

    assert crowded.gets(write(reply_to="third")) == [
        ("third", Refused("overloaded", "2 requests wait for a leader already"))
    ]
    assert len(crowded.replica.requests.held) == 2


def test_a_place_becomes_free_when_a_held_request_is_over() -> None:
    """The bound is on those that wait, not on those that have waited."""
    crowded = follower(limits=Limits(held_requests=1))
    crowded.gets(write(until=10.0))
    crowded.waits_ms(60)

    assert crowded.gets(write()) == []


# --- lost on the way


def test_what_was_passed_on_to_a_leader_that_is_lost_may_have_been_done() -> None:
    """A write is not known to be done or not done; a read can simply be tried again (pitfall 44)."""
    helper = follower_of("n2")
    helper.gets(write(reply_to="writer"), read(reply_to="reader"))

    why = "the connection to n2, the leader, was lost"

    assert helper.gets(PeerDown("n2", "reset")) == [
        ("writer", Refused("unknown", why)),
        ("reader", Refused("retry", why)),
    ]


def test_another_peer_s_connection_is_nothing_to_those_who_wait_for_the_leader() -> None:
    """Only what went over that connection can be lost with it."""
    helper = follower_of("n2")
    helper.gets(write())

    assert helper.gets(PeerDown("n3", "reset")) == []
    assert list(helper.replica.requests.forwarded) == [1]


def test_what_went_to_an_earlier_leader_is_lost_with_that_one() -> None:
    """Each request remembers whom it went to."""
    helper = follower_of("n2")
    helper.gets(write(reply_to="first"))
    helper.gets(append(term=3, sender="n3"), write(reply_to="second"))

    assert [target for target, _ in helper.gets(PeerDown("n2", "reset"))] == ["first"]
    assert [target for target, _ in helper.gets(PeerDown("n3", "reset"))] == ["second"]


def test_a_request_that_never_left_this_node_was_not_done() -> None:
    """The link refused it at once, so another try can do no harm."""
    helper = follower_of("n2")
    ((_, forward),) = helper.gets(write())

    assert helper.gets(NotSent("n2", forward, "not connected")) == [
        ("client", Refused("not_leader", "n2 can't be reached: not connected"))
    ]
    assert helper.gets(NotSent("n2", forward, "not connected")) == []


def test_a_leader_that_does_not_answer_in_time_leaves_a_write_unknown() -> None:
    """It may yet be done; a read has no such doubt."""
    helper = follower_of("n2")
    helper.gets(write(reply_to="writer", until=100.0), read(reply_to="reader", until=100.0))

    why = "the leader did not answer in time"

    assert helper.waits_ms(120) == [("writer", Refused("unknown", why)), ("reader", Refused("retry", why))]


@pytest.mark.parametrize("event", ["lost", "late", "refused"])
def test_an_answer_that_comes_after_all_is_for_nobody(event: str) -> None:
    """Each client is answered once."""
    helper = follower_of("n2")
    ((_, forward),) = helper.gets(write(until=100.0))
    if event == "lost":
        helper.gets(PeerDown("n2", "reset"))
    elif event == "late":
        helper.waits_ms(120)
    else:
        helper.gets(NotSent("n2", forward, "full"))

    assert helper.gets(ForwardReply("n2", 77, 1, Applied(2, 2, 1, (PutDone(1),)))) == []


def test_numbers_of_requests_are_never_used_again() -> None:
    """An answer that is late must not meet another request."""
    helper = follower_of("n2")
    helper.gets(write(), write())
    helper.gets(PeerDown("n2", "reset"))
    helper.gets(append(term=2, sender="n2"))

    assert helper.gets(write()) == [("n2", passed_on(3))]


def _roles() -> list[Player]:
    return [follower(), candidate(), settled_leader(), bootstrapping()]


def test_nothing_that_was_passed_on_is_kept_for_ever() -> None:
    """In every role the deadline is looked at."""
    for player in _roles():
        asked = write(until=50.0)
        player.replica.requests.forward(asked, "n3")

        assert ("client", "unknown") in refusals(player.waits_ms(110))
        assert player.replica.requests.forwarded == {}
