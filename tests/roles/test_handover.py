"""The baton: what happens to messages that are on their way while the replica goes from role to role (DESIGN, 2)."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import pytest
from thespian.actors import ActorAddress, WakeupMessage

from raftkv.actors.messages.node import (
    AppliedUpTo,
    Apply,
    Assume,
    Flush,
    NotSent,
    PeerDown,
    PeerUp,
    Save,
    Saved,
)
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.messages.requests import (
    AskStatus,
    Forward,
    ForwardReply,
    PendingRequest,
    Propose,
    Read,
    ReadIndex,
    Refused,
    ReplyTo,
)
from raftkv.store.commands import Get
from tests.roles.backstage import Backstage
from tests.roles.rehearsal import (
    CLASSES,
    ROOM,
    Becomes,
    append,
    entry,
    follower,
    granted,
    introduce,
    matched,
    noop,
    only,
    put,
    read,
    refusals,
    settled_leader,
    write,
)

WRITE = Propose((put(9, 9),), 1000.0)
READ = Read((Get("k"),), "linearizable", 1000.0)

IN_FLIGHT = [
    RequestVote("n2", 1, 1, 1),
    RequestVoteReply("n2", 1, False),
    append(term=1),
    matched("n2", term=1, match_index=1),
    TimeoutNow("n2", 0),
    ForwardReply("n2", 1, 1, ReadIndex(1)),
    introduce("n2"),
    write(),
    read(),
    PendingRequest(AskStatus(), ReplyTo(ActorAddress("client")), 0.0),
    Saved(1, ROOM),
    AppliedUpTo(1),
    PeerUp("n2"),
    PeerDown("n2", "reset"),
    NotSent("n2", append(), "full"),
]


def node(*, term: int = 1) -> Backstage:
    """Return a node that follows nobody."""
    backstage = Backstage()
    backstage.recovers(term=term)
    assert backstage.holder == "follower"
    return backstage


def leading_node() -> Backstage:
    """Return a node that leads in term 2; its no-op is index 2 and committed."""
    backstage = node()
    backstage.wakes_after_ms(301)
    backstage.settle()
    backstage.wakes_after_ms(301)
    backstage.settle()
    backstage.gets(granted("n2", term=2, pre_vote=True), Saved(1, ROOM), granted("n2", term=2), Saved(2, ROOM))
    backstage.gets(matched("n2", term=2, match_index=2), matched("n3", term=2, match_index=2), AppliedUpTo(2))
    assert (backstage.holder, backstage.replica.commit_index) == ("leader", 2)
    return backstage


# --- a role without the replica


@pytest.mark.parametrize("message", IN_FLIGHT, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("role", sorted(CLASSES))
def test_a_role_without_the_replica_returns_what_it_gets_to_node(role: str, message: Any) -> None:
    """Whoever has the replica by then must get it."""
    backstage = Backstage()

    backstage.post(message, to=role)
    backstage.handle(role)

    assert backstage.waiting("n1") == [message]


@pytest.mark.parametrize(
    "message", [Flush(), WakeupMessage(timedelta(), 1)], ids=lambda message: type(message).__name__
)
@pytest.mark.parametrize("role", sorted(CLASSES))
def test_a_role_without_the_replica_drops_its_own_wake_ups_and_flushes(role: str, message: Any) -> None:
    """They meant a tenure that is over."""
    backstage = Backstage()

    backstage.post(message, to=role)
    backstage.handle(role)

    assert backstage.waiting("n1") == []
    assert backstage.failures == []


def test_the_old_role_keeps_nothing_of_the_replica() -> None:
    """It is moved, never shared."""
    old = settled_leader()
    old.gets(append(term=3, prev=(2, 2)))

    assert [name for name, role in old.roles.items() if hasattr(role, "replica")] == ["follower"]


def test_a_role_that_is_handed_a_second_replica_stops_the_node() -> None:
    """There is one; two would both vote."""
    player = follower()

    with pytest.raises(AssertionError, match="70: bug in follower: AssertionError\\('follower was handed a second"):
        player.gets(Assume(player.replica, "follower", "twice"))


# --- the cause


def test_the_cause_is_handled_by_the_new_role_before_anything_else() -> None:
    """A write that waits behind the new leader's message meets a follower that knows whom to ask."""
    backstage = leading_node()
    backstage.post(append(noop(3, 3), term=3, prev=(2, 2)), WRITE)

    shown = backstage.settle()

    assert only(Forward, shown) == [("n2", Forward("n1", backstage.replica.boot_id, 1, WRITE))]
    assert backstage.holder == "follower"


def test_the_new_role_announces_its_office_and_then_handles_the_cause() -> None:
    """Observers hear of each change once, in order."""
    backstage = leading_node()
    backstage.changes.clear()

    backstage.gets(append(noop(3, 3), term=3, prev=(2, 2)))

    assert [(change.role, change.term, change.leader) for change in backstage.changes] == [
        ("follower", 3, None),
        ("follower", 3, "n2"),
    ]


def test_a_cause_may_change_the_role_again() -> None:
    """A candidate whose asking would do is handed TimeoutNow with the replica, and campaigns at once."""
    backstage = node()

    shown = backstage.gets(TimeoutNow("n2", 1))

    assert shown == [("journal", Save(1, 2, "n1"))]
    assert backstage.holder == "candidate"


# --- something is on its way at a change of role


def test_a_save_that_ends_during_a_change_of_role_is_not_missed() -> None:
    """The candidate's vote becomes durable while another candidate of its term is met by the old role."""
    backstage = node()
    backstage.gets(RequestVote("n2", 2, 1, 1))
    backstage.wakes_after_ms(301)
    backstage.settle()
    backstage.wakes_after_ms(301)
    backstage.post(Saved(1, ROOM))
    backstage.handle("n1")
    backstage.handle("follower")
    assert backstage.holder is None
    backstage.handle("n1")
    backstage.handle("candidate")
    assert backstage.holder == "candidate"
    assert backstage.waiting("follower") == [Saved(1, ROOM)]

    shown = backstage.settle()

    assert shown[0] == ("n2", granted("n1", term=2))
    assert backstage.replica.saves.durable_term == 2


def test_a_vote_that_comes_during_a_change_of_role_counts_for_nothing_else() -> None:
    """The candidate has stepped down; its former self gets the vote and returns it."""
    backstage = node()
    backstage.gets(TimeoutNow("n2", 1))
    backstage.gets(Saved(1, ROOM))
    backstage.post(append(term=2, sender="n3"), granted("n2", term=2))
    backstage.handle("n1", 2)
    backstage.handle("candidate", 2)
    assert backstage.holder is None

    backstage.settle()

    assert backstage.role("follower").has_replica
    assert backstage.replica.leader_id == "n3"


def test_a_vote_of_the_election_that_was_won_comes_to_the_leader_and_does_nothing() -> None:
    """It was on its way to the candidate when that won."""
    backstage = node()
    backstage.gets(TimeoutNow("n2", 1), Saved(1, ROOM))
    backstage.post(granted("n2", term=2), granted("n3", term=2))
    backstage.handle("n1", 2)
    backstage.handle("candidate", 2)

    shown = backstage.settle()

    assert backstage.holder == "leader"
    assert [message for _, message in only(Save, shown)] == [Save(2, 2, "n1", (noop(2, 2),))]


def test_a_write_that_comes_during_a_change_of_role_is_neither_lost_nor_done_twice() -> None:
    """The leader steps down with the write behind in its mailbox."""
    backstage = leading_node()
    backstage.post(append(noop(3, 3), term=3, prev=(2, 2)), WRITE)
    backstage.handle("n1", 2)
    backstage.handle("leader", 2)
    assert backstage.holder is None

    shown = backstage.settle()

    assert [message.request for _, message in only(Forward, shown)] == [WRITE]
    assert backstage.replica.log.between(2, 3, 1 << 20) == (noop(2, 2), noop(3, 3))


def test_writes_that_were_appended_and_not_flushed_are_saved_by_who_steps_down() -> None:
    """What the log has, the journal gets: the flush is dropped when it comes."""
    backstage = leading_node()
    backstage.post(WRITE, append(term=3, prev=(2, 2)))
    backstage.handle("n1", 2)
    backstage.handle("leader")
    assert backstage.waiting("leader")[-1] == Flush()

    saves = [message for _, message in only(Save, backstage.settle())]

    assert [(save.number, save.current_term, len(save.entries)) for save in saves] == [(3, 3, 1)]
    assert [e.term for save in saves for e in save.entries] == [2]
    assert backstage.waiting("leader") == []


def test_writes_that_were_not_flushed_are_saved_by_who_steps_down_of_its_own_accord() -> None:
    """No term changes then that would be saved in any case."""
    lonely = settled_leader()
    lonely.waits_ms(299)
    lonely.stage.give("leader", write())

    shown = lonely.stalls_ms(2)

    assert ("node", Becomes("follower")) in shown
    assert [entry.index for _, save in only(Save, shown) for entry in save.entries] == [3]


def test_a_read_that_waits_for_a_round_is_sent_elsewhere_once() -> None:
    """The answers to the round come to a follower, and mean nothing to it."""
    backstage = leading_node()
    backstage.gets(READ)
    backstage.post(append(term=3, prev=(2, 2)), matched("n2", term=2, match_index=2, read_round=1))
    backstage.handle("n1", 2)

    shown = backstage.settle()

    assert refusals(shown) == [("test", "retry")]
    assert [target for target, _ in shown if target == "store"] == []


def test_a_read_that_comes_during_a_change_of_role_is_asked_of_the_new_leader() -> None:
    """It had not begun."""
    backstage = leading_node()
    backstage.post(append(term=3, prev=(2, 2)), READ)
    backstage.handle("n1", 2)
    backstage.handle("leader", 2)

    shown = backstage.settle()

    assert refusals(shown) == []
    assert [target for target, _ in only(Forward, shown)] == ["n2"]


def test_an_old_wake_up_is_not_taken_for_one_of_a_new_tenure() -> None:
    """Wake-ups can't be cancelled; the node leads again before the one of its last tenure comes."""
    chief = settled_leader()
    actor = chief.roles["leader"]
    old = WakeupMessage(timedelta(), actor._wake_number)
    chief.gets(append(term=3, prev=(2, 2), commit=2))
    chief.waits_ms(301)
    chief.gets(granted("n2", term=4, pre_vote=True), granted("n2", term=4))
    assert chief.role == "leader"

    assert chief.gets(old) == []
    assert chief.gets(WakeupMessage(timedelta(), actor._wake_number)) != []


def test_an_old_wake_up_within_a_tenure_is_dropped() -> None:
    """Only the last one asked for means anything."""
    voter = follower(term=1)
    first = WakeupMessage(timedelta(), voter.roles["follower"]._wake_number)
    voter.waits_ms(51)
    voter.stage.clock.ms += 400

    assert voter.gets(first) == []
    assert voter.role == "follower"


def test_an_old_flush_in_a_new_tenure_does_no_harm() -> None:
    """It flushes what is there already, and the flush that was asked for finds nothing left."""
    chief = settled_leader()
    chief.stage.give("leader", write())

    shown = chief.gets(Flush())

    assert [(target, type(message)) for target, message in shown] == [
        ("journal", Save),
        ("n2", AppendEntries),
        ("n3", AppendEntries),
    ]


def test_what_the_store_applied_during_a_change_of_role_is_noted() -> None:
    """Or applying would stop for ever once its window is full."""
    backstage = leading_node()
    backstage.gets(WRITE, Saved(3, ROOM))
    backstage.gets(matched("n2", term=2, match_index=3))
    backstage.post(append(term=3, prev=(3, 2)), AppliedUpTo(3))
    backstage.handle("n1", 2)
    backstage.handle("leader", 2)

    backstage.settle()

    assert backstage.replica.last_applied == 3


def test_a_message_that_bounces_through_several_changes_is_handled_once() -> None:
    """It meets one role after the other just after that one has handed the replica on."""
    backstage = leading_node()
    backstage.post(append(term=3, prev=(2, 2)), WRITE)
    backstage.handle("n1", 2)
    backstage.handle("leader", 2)
    backstage.handle("n1")
    backstage.post(TimeoutNow("n2", 3), to="follower")
    backstage.handle("n1")
    backstage.handle("follower", 2)
    assert backstage.waiting("follower") == [backstage.waiting("follower")[0]]
    assert backstage.holder is None

    shown = backstage.settle()

    assert backstage.holder == "candidate"
    assert len(only(Forward, shown)) + len(backstage.replica.requests.held) == 1


# --- around truncation


def test_a_save_of_what_was_cut_off_since_makes_nothing_durable() -> None:
    """The old leader's entries were on the way to its disk when the new leader's replaced them."""
    old = settled_leader()
    old.disk_waits = True
    old.gets(write(), write())
    first = old.held_back[0]
    old.gets(append(noop(3, 3), term=3, prev=(2, 2)))
    assert old.replica.log.last_index == 3

    old.gets(Saved(first.number, ROOM))
    assert old.replica.durable_index == 2
    old.gets(append(term=3, prev=(3, 3), commit=3))
    shown = old.disk_answers()
    assert only(AppendEntriesReply, shown) == [
        ("n2", matched("n1", term=3, match_index=3)),
        ("n2", matched("n1", term=3, match_index=2)),
    ]
    assert [apply.entries for _, apply in only(Apply, shown)] == [(noop(3, 3),)]


def test_a_confirmation_that_waited_is_sent_though_its_entries_were_cut_off_since() -> None:
    """It is true in the term in which it was given: the log was so when the leader of then asked."""
    slow = follower(term=2)
    slow.disk_waits = True
    slow.gets(append(entry(2, 2), entry(3, 2), term=2))
    slow.gets(append(entry(2, 3), term=3, sender="n3"))

    shown = slow.disk_answers()

    assert shown == [
        ("n2", matched("n1", term=2, match_index=3)),
        ("n3", matched("n1", term=3, match_index=2)),
    ]


def test_those_whose_entries_were_cut_off_learn_it_when_others_are_committed_there() -> None:
    """Not when it is cut off: another node may still hold the entry, be elected and commit it."""
    old = settled_leader()
    old.gets(write(reply_to="first"), write(reply_to="second"))
    assert refusals(old.gets(append(noop(3, 3), term=3, prev=(2, 2)))) == []

    assert refusals(old.gets(append(term=3, prev=(3, 3), commit=3))) == [("first", "not_committed")]
    shown = old.gets(append(entry(4, 3), term=3, prev=(3, 3), commit=4))
    assert refusals(shown) == [("second", "not_committed")]


def test_an_entry_that_was_cut_off_may_come_back_and_is_answered_then() -> None:
    """n3 had it and is elected: the write was done after all."""
    old = settled_leader()
    asked = write()
    old.gets(asked)
    written = old.replica.log.entry(3)
    old.gets(append(noop(3, 3), term=3, prev=(2, 2)))
    old.gets(append(written, noop(4, 4), sender="n3", term=4, prev=(2, 2)))

    ((_, apply),) = only(Apply, old.gets(append(sender="n3", term=4, prev=(4, 4), commit=4)))

    assert apply.waiters == ((3, asked.reply_to),)


def test_a_leader_again_does_not_confuse_its_writes_at_one_index() -> None:
    """Those who wait are known by index and term."""
    chief = settled_leader()
    chief.gets(write(reply_to="of term 2"))
    chief.gets(append(term=3, prev=(2, 2), commit=2))
    chief.gets(append(noop(3, 3), term=3, prev=(2, 2), commit=2))
    chief.waits_ms(301)
    chief.gets(granted("n2", term=4, pre_vote=True), granted("n2", term=4), write(reply_to="of term 4"))
    assert chief.role == "leader"

    shown = chief.gets(matched("n2", term=4, match_index=5))

    assert refusals(shown) == [("of term 2", "not_committed")]
    assert [reply_to.address.addressDetails for _, m in only(Apply, shown) for _, reply_to in m.waiters] == [
        "of term 4"
    ]


# --- any order


@pytest.mark.parametrize("seed", range(100))
def test_no_order_of_messages_within_a_node_loses_anything(seed: int) -> None:
    """Requests, votes, entries and saves, handled in any order of the actors: each request is answered once."""
    random = Random(seed)
    backstage = leading_node()
    saved = 2
    boot = backstage.replica.boot_id
    asked = 0
    answered: list[str] = []
    forwarded: list[int] = []

    def note(shown: list[tuple[str, Any]]) -> None:
        nonlocal saved
        for target, message in shown:
            if isinstance(message, Save):
                saved = message.number
                backstage.post(Saved(saved, ROOM))
            elif isinstance(message, Apply):
                answered.extend(reply_to.address.addressDetails for _, reply_to in message.waiters)
                backstage.post(AppliedUpTo(message.first_index + len(message.entries) - 1))
            elif isinstance(message, Forward):
                forwarded.append(message.number)
            elif isinstance(message, Refused):
                answered.append(target)

    def step() -> None:
        waiting = [who for who, mail in backstage.mail.items() if mail]
        note(backstage.handle(random.choice(waiting)) if waiting else [])

    def term() -> int:
        return backstage.replica.current_term if backstage.holder else 99

    for _ in range(60):
        choice = random.random()
        if choice < 0.4:
            asked += 1
            note(backstage.post(Propose((put(asked, 1),), 300.0), sender=f"client {asked}"))
        elif choice < 0.5:
            note(backstage.post(RequestVote("n3", term() + 1, 99, 99, transfer=True)))
        elif choice < 0.6 and backstage.holder:
            note(backstage.post(TimeoutNow("n3", term())))
        elif choice < 0.8 and backstage.holder:
            note(backstage.post(granted("n2", term=term()), matched("n2", term=term(), match_index=2)))
        for _ in range(random.randrange(8)):
            step()
    while any(backstage.mail.values()):
        step()
    for _ in range(20):
        backstage.wakes_after_ms(50)
        while any(backstage.mail.values()):
            step()
    note(backstage.post(*(ForwardReply("n3", boot, number, Refused("retry")) for number in forwarded)))
    while any(backstage.mail.values()):
        step()

    assert backstage.failures == [], f"seed {seed}"
    assert sorted(answered) == sorted(f"client {number}" for number in range(1, asked + 1)), f"seed {seed}"
