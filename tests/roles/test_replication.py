"""Log replication and commitment (dissertation, 3.5, 3.6)."""

from __future__ import annotations

import pytest
from thespian.actors import ActorAddress

from raftkv.actors.messages.node import (
    AppliedUpTo,
    Apply,
    AskFreeBytes,
    FreeBytes,
    NotSent,
    PeerDown,
    Save,
    Saved,
)
from raftkv.actors.messages.raft import AppendEntries, AppendEntriesReply
from raftkv.actors.messages.requests import (
    PendingRequest,
    Propose,
    Refused,
    ReplyTo,
)
from raftkv.actors.roles.role import APPLY_ENTRIES, MAX_INFLIGHT_APPLIES
from raftkv.store.commands import MAX_COMMANDS, MAX_KEY_BYTES, MAX_VALUE_BYTES, Command, Delete, Put
from tests.roles.rehearsal import (
    ROOM,
    Becomes,
    append,
    entry,
    follower,
    leader,
    log,
    matched,
    noop,
    only,
    put,
    settled_leader,
    write,
)


def test_appends_what_follows_its_log_and_confirms_it_when_durable() -> None:
    """3.5: success says that the entries are on disk."""
    learner = follower(term=2)
    learner.disk_waits = True

    shown = learner.gets(append(entry(2, 2), entry(3, 2), term=2))

    assert shown == [("journal", Save(1, 2, None, (entry(2, 2), entry(3, 2))))]
    assert learner.disk_answers() == [("n2", matched("n1", term=2, match_index=3))]


def test_rejects_entries_that_do_not_follow_its_log_and_says_where_it_ends() -> None:
    """3.5: the consistency check, with a hint so that the leader need not go back one by one."""
    short = follower(term=2)

    assert short.gets(append(entry(6, 2), term=2, prev=(5, 2))) == [
        ("n2", AppendEntriesReply("n1", 2, False, 5, 0, conflict_term=0, conflict_index=2))
    ]


def test_a_rejection_names_the_conflicting_term_and_its_first_index() -> None:
    """3.5: the leader can skip all entries of that term at once."""
    strayed = follower(term=4, entries=log(1, 2, 2, 2))

    assert strayed.gets(append(term=4, prev=(5, 3))) == [
        ("n2", AppendEntriesReply("n1", 4, False, 5, 0, conflict_term=2, conflict_index=3))
    ]


def test_a_conflicting_entry_and_all_after_it_are_replaced() -> None:
    """3.5: the leader's log wins."""
    strayed = follower(term=3, entries=log(1, 2, 2))

    shown = strayed.gets(append(entry(3, 3), term=3, prev=(2, 1)))

    assert shown == [("journal", Save(1, 3, None, (entry(3, 3),))), ("n2", matched("n1", term=3, match_index=3))]
    assert strayed.replica.log.between(1, 3, 1 << 20) == (*log(1), entry(3, 3))


def test_a_delayed_request_does_not_cut_off_what_a_later_one_added() -> None:
    """3.5: only a conflict truncates; the entries in between may have been acknowledged."""
    full = follower(term=2, entries=log(2, 2, 2))

    assert full.gets(append(entry(2, 2), term=2)) == [("n2", matched("n1", term=2, match_index=2))]
    assert full.replica.log.last_index == 4


def test_commits_no_further_than_the_last_entry_of_the_request() -> None:
    """Figure 3.1, AppendEntries rule 5: what lies behind it may differ from the leader's log."""
    stale_tail = follower(term=3, entries=log(2, 2))

    stale_tail.gets(append(term=3, prev=(1, 1), commit=3))

    assert stale_tail.replica.commit_index == 1


def test_the_commit_index_never_falls() -> None:
    """Figure 3.1: commit_index increases monotonically."""
    ahead = follower(term=2, entries=log(2, 2), commit_index=3)

    ahead.gets(append(term=2, prev=(1, 1), commit=1), append(term=2, prev=(3, 2), commit=0))

    assert ahead.replica.commit_index == 3


def test_applies_only_what_is_committed_and_on_its_own_disk() -> None:
    """Applied <= min(commit index, durable index)."""
    eager = follower(term=2)
    eager.disk_waits = True

    assert only(Apply, eager.gets(append(entry(2, 2), term=2, commit=2))) == []
    assert eager.replica.commit_index == 2
    assert only(Apply, eager.disk_answers()) == [("store", Apply(2, (entry(2, 2),)))]


def test_a_heartbeat_is_answered_at_once_and_reports_only_what_is_durable() -> None:
    """A slow disk must not look like a dead node, nor like a saved entry."""
    slow = follower(term=2)
    slow.disk_waits = True
    slow.gets(append(term=2))
    slow.disk_answers()
    slow.disk_waits = True
    slow.gets(append(entry(2, 2), term=2))

    assert slow.gets(append(term=2, prev=(2, 2))) == [("n2", matched("n1", term=2, match_index=1))]


def test_a_save_under_way_does_not_make_durable_what_was_cut_off_meanwhile() -> None:
    """Truncation lowers what saves under way will have made durable."""
    busy = follower(term=2)
    busy.disk_waits = True
    busy.gets(append(entry(2, 2), entry(3, 2), term=2, commit=1))
    first = busy.held_back[0]
    busy.gets(append(entry(2, 3), term=3, sender="n3"))
    second = busy.held_back[1]

    busy.gets(Saved(first.number, ROOM))
    assert busy.replica.durable_index == 1
    busy.gets(Saved(second.number, ROOM))
    assert busy.replica.durable_index == 2


def test_a_reply_waits_for_its_save_through_a_change_of_role() -> None:
    """The replica carries what is to be said; whoever holds it then says it, unchanged."""
    busy = follower(term=2)
    busy.disk_waits = True
    busy.gets(append(entry(2, 2), term=2))
    assert ("node", Becomes("candidate")) in busy.waits_ms(301)

    assert ("n2", matched("n1", term=2, match_index=2)) in busy.disk_answers()


def test_a_leader_saves_and_sends_in_parallel_and_counts_itself_by_its_disk() -> None:
    """10.2.1: its own disk is one of the majority, no more."""
    chief = settled_leader()
    chief.disk_waits = True

    shown = chief.gets(write())

    assert [target for target, _ in shown] == ["journal", "n2", "n3"]
    assert only(Apply, chief.gets(matched("n2", term=2, match_index=3))) == []
    assert chief.replica.commit_index == 2
    assert [m.first_index for _, m in only(Apply, chief.disk_answers())] == [3]


def test_nothing_is_committed_that_the_leader_alone_has() -> None:
    """3.5: whatever is on the way to the others, only what they confirm counts."""
    chief = settled_leader()

    assert only(Apply, chief.gets(write(), write())) == []
    assert chief.replica.commit_index == 2


def test_a_leader_commits_without_its_own_disk_when_a_majority_has_it() -> None:
    """3.5: an entry is committed once a majority has it; but it is applied here only when it is durable here."""
    chief = settled_leader()
    chief.disk_waits = True
    chief.gets(write())

    shown = chief.gets(matched("n2", term=2, match_index=3), matched("n3", term=2, match_index=3))

    assert only(Apply, shown) == []
    assert chief.replica.commit_index == 3


def test_all_that_arrives_in_a_turn_is_one_save_and_one_message_per_peer() -> None:
    """The cost of a write is shared."""
    chief = settled_leader()

    shown = chief.gets(write(reply_to="a"), write(reply_to="b"), write(reply_to="c"))

    assert [target for target, _ in shown] == ["journal", "n2", "n3"]
    assert len(shown[0][1].entries) == 3


def test_the_client_is_named_to_the_store_when_its_entry_is_committed() -> None:
    """One reply to each client, and by the store: it knows the result."""
    chief = settled_leader()
    asked = write()
    chief.gets(asked)

    (apply,) = only(Apply, chief.gets(matched("n3", term=2, match_index=3)))

    assert apply[1].waiters == ((3, asked.reply_to),)


def test_figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting() -> None:
    """Figure 3.7: (c) S1, leader of term 4, has replicated entry 3 of term 2 on a majority, and must not commit it."""
    s1 = leader(term=4, entries=log(2, 2))
    s1.gets(matched("n2", term=4, match_index=3))
    assert s1.replica.commit_index == 1

    # (e): an entry of its own term on a majority commits everything before it too.
    s1.gets(matched("n2", term=4, match_index=4))
    assert s1.replica.commit_index == 4


def test_a_leader_goes_back_past_the_whole_conflicting_term() -> None:
    """3.5: one round per term, not per entry."""
    chief = leader(term=5, entries=log(1, 1, 4, 4, 4))
    refusal = AppendEntriesReply("n2", 5, False, 6, 0, conflict_term=2, conflict_index=3)

    assert chief.gets(refusal) == [("n2", append(sender="n1", term=5, prev=(2, 1), commit=1))]


def test_a_leader_that_knows_the_conflicting_term_goes_on_behind_its_own_last_entry_of_it() -> None:
    """3.5: both logs agree somewhere within that term."""
    chief = leader(term=5, entries=log(2, 2, 4, 4))
    refusal = AppendEntriesReply("n2", 5, False, 5, 0, conflict_term=2, conflict_index=2)

    assert chief.gets(refusal) == [("n2", append(sender="n1", term=5, prev=(3, 2), commit=1))]


def test_an_old_refusal_of_what_matches_by_now_is_ignored() -> None:
    """Messages may be late: match_index never falls."""
    chief = settled_leader(entries=log(1, 1))

    assert chief.gets(AppendEntriesReply("n2", 2, False, 2, 0, conflict_term=0, conflict_index=1)) == []


def test_an_old_confirmation_does_not_lower_the_match_index() -> None:
    """Figure 3.1: match_index increases monotonically."""
    chief = settled_leader(entries=log(1, 1))

    chief.gets(matched("n2", term=2, match_index=1))

    assert chief.roles["leader"].replication.progress["n2"].match_index == 4


def test_answers_of_an_earlier_term_are_ignored() -> None:
    """3.3: they speak of a log that may have been cut off since."""
    chief = leader(term=3)

    chief.gets(matched("n2", term=2, match_index=2), matched("n3", term=2, match_index=2))

    assert chief.replica.commit_index == 1


def test_bytes_on_the_way_to_a_peer_are_bounded() -> None:
    """A peer that does not answer gets no more than the limit."""
    chief = settled_leader()
    chief.roles["leader"].replication.progress["n2"]._limit = 200

    sent = [m for _ in range(10) for target, m in chief.gets(write()) if target == "n2"]

    assert 0 < len(sent) < 10


def test_a_lost_connection_is_probed_before_anything_is_sent_again() -> None:
    """What was on its way may be lost."""
    chief = settled_leader()
    chief.gets(write())
    chief.gets(PeerDown("n2", "reset"))

    assert [target for target, _ in chief.gets(write())] == ["journal", "n3"]
    beat = only(AppendEntries, chief.waits_ms(51))
    assert ("n2", append(sender="n1", term=2, prev=(2, 2), commit=2)) in beat


def test_entries_that_the_link_refused_are_sent_again() -> None:
    """Nothing is dropped silently."""
    chief = settled_leader()
    refused = next(m for target, m in chief.gets(write()) if target == "n2")
    chief.gets(NotSent("n2", refused, "full"))
    chief.waits_ms(51)

    shown = chief.gets(matched("n2", term=2, match_index=2))

    assert ("n2", append(*refused.entries, sender="n1", term=2, prev=(2, 2), commit=2)) in shown


def test_lost_entries_are_sent_again_without_being_told() -> None:
    """3.5: the leader retries until all followers have everything."""
    chief = settled_leader()
    lost = next(m for target, m in chief.gets(write()) if target == "n2")
    for _ in range(8):
        chief.waits_ms(50)
        chief.gets(matched("n3", term=2, match_index=3))

    shown = chief.gets(matched("n2", term=2, match_index=2))

    assert [m.entries for target, m in only(AppendEntries, shown) if target == "n2"] == [lost.entries]


def test_uncommitted_bytes_are_capped() -> None:
    """A leader that is cut off must not append for ever."""
    chief = settled_leader()
    chief.roles["leader"].uncommitted_bytes = 64 << 20

    (answer,) = chief.gets(write())

    assert (answer[0], answer[1].code) == ("client", "overloaded")


def test_without_room_nothing_is_appended() -> None:
    """Room is checked before appending: the answer is a refusal, and nothing is lost."""
    chief = settled_leader()
    chief.replica.saves.free_bytes = 1000

    shown = chief.gets(write())

    assert ("client", "no_room") in [(target, m.code) for target, m in only(Refused, shown)]
    assert only(Save, shown) == []


def test_a_follower_without_room_says_so_and_appends_nothing() -> None:
    """The leader leaves it alone for a while; it does not die."""
    full = follower(term=2)
    full.replica.saves.free_bytes = 10

    asked, answer = full.gets(append(entry(2, 2), term=2))

    assert asked == ("journal", AskFreeBytes())
    assert (answer[1].success, answer[1].no_room, answer[1].free_bytes) == (False, True, 10)
    assert full.replica.log.last_index == 1


def test_a_follower_takes_entries_again_when_the_journal_says_that_there_is_room() -> None:
    """It saves nothing meanwhile, so no save would tell it; it asks now and then, not at every refusal."""
    full = follower(term=2)
    full.replica.saves.free_bytes = 10
    full.gets(append(entry(2, 2), term=2))
    assert only(AskFreeBytes, full.gets(append(entry(2, 2), term=2))) == []

    full.gets(FreeBytes(1 << 20))

    (answer,) = only(AppendEntriesReply, full.gets(append(entry(2, 2), term=2)))
    assert (answer[1].success, answer[1].match_index) == (True, 2)


def test_a_follower_whose_room_is_scarce_looks_for_more_with_its_heartbeats() -> None:
    """Its leader, who knows, sends it nothing that it could refuse."""
    full = follower(term=2)
    full.gets(append(term=2))
    full.replica.saves.free_bytes = 10

    shown = full.gets(append(term=2)) + full.gets(append(term=2))

    assert [target for target, _ in shown] == ["journal", "n2", "n2"]
    assert [message.free_bytes for _, message in only(AppendEntriesReply, shown)] == [10, 10]


def test_a_follower_without_room_takes_the_no_op_of_a_new_leader() -> None:
    """There is always a place for it; without it the leader could serve no reads."""
    full = follower(term=2)
    full.replica.saves.free_bytes = 10

    shown = full.gets(append(noop(2, 2), term=2))

    assert [type(message) for _, message in shown] == [Save, AppendEntriesReply]
    assert shown[1][1].success


def test_writes_pending_when_a_leader_steps_down_are_answered_when_their_fate_is_known() -> None:
    """Stepping down answers nobody, since the entry may still be committed."""
    old = settled_leader()
    asked = write()
    old.gets(asked)

    shown = old.gets(append(term=3, sender="n2", prev=(2, 2)))
    assert only(Refused, shown) == []

    committed = old.replica.log.entry(3)
    (apply,) = only(Apply, old.gets(append(sender="n2", term=3, prev=(3, 2), commit=3)))
    assert (apply[1].entries, apply[1].waiters) == ((committed,), ((3, asked.reply_to),))


def test_a_write_whose_place_another_entry_took_was_not_committed() -> None:
    """Only when another entry is committed at its index is that certain."""
    old = settled_leader()
    old.gets(write())

    assert only(Refused, old.gets(append(noop(3, 3), term=3, sender="n2", prev=(2, 2)))) == []
    (answer,) = only(Refused, old.gets(append(term=3, sender="n2", prev=(3, 3), commit=3)))
    assert (answer[0], answer[1].code) == ("client", "not_committed")


def test_a_write_whose_time_is_over_is_unknown() -> None:
    """It may yet be committed."""
    chief = settled_leader()
    chief.gets(write(until=20.0))

    (answer,) = only(Refused, chief.waits_ms(60))

    assert (answer[0], answer[1].code) == ("client", "unknown")


def test_entries_that_were_not_flushed_are_saved_when_the_leader_steps_down() -> None:
    """A save speaks for the whole log: what it calls durable must have been given to the journal."""
    old = settled_leader()
    old.disk_waits = True
    old.roles["leader"]._append(0, b"")

    saves = only(Save, old.gets(append(term=3, sender="n2", prev=(2, 2))))

    assert [entry.index for _, save in saves for entry in save.entries] == [3]


def test_much_that_is_committed_at_once_is_applied_in_pieces_without_a_gap() -> None:
    """Pitfall 26: after a restart a whole log is committed with one message, and must not stall the loop."""
    count = 2 * APPLY_ENTRIES + 10
    restarted = follower(term=2, entries=log(*([2] * (count - 1))), commit_index=0)
    restarted.store_answers = False

    pieces = [apply for _, apply in only(Apply, restarted.gets(append(term=2, prev=(count, 2), commit=count)))]
    assert len(pieces) == MAX_INFLIGHT_APPLIES
    pieces += [apply for _, apply in only(Apply, restarted.gets(AppliedUpTo(APPLY_ENTRIES)))]
    assert only(Apply, restarted.gets(AppliedUpTo(2 * APPLY_ENTRIES))) == []

    assert [entry.index for apply in pieces for entry in apply.entries] == list(range(1, count + 1))
    assert [len(apply.entries) for apply in pieces] == [APPLY_ENTRIES, APPLY_ENTRIES, 10]


@pytest.mark.parametrize(
    ("commands", "why"),
    [
        ((Put("", b"v"),), f"a key has 1 to {MAX_KEY_BYTES} bytes"),
        ((put(1, 1), Delete("ä" * (MAX_KEY_BYTES // 2 + 1))), f"a key has 1 to {MAX_KEY_BYTES} bytes"),
        ((Put("\ud800", b"v"),), "a key is Unicode text without lone surrogates"),
        ((Put("k", bytes(MAX_VALUE_BYTES + 1)),), f"a value has at most {MAX_VALUE_BYTES} bytes"),
        ((), f"an entry has 1 to {MAX_COMMANDS} commands"),
        ((Delete("k"),) * (MAX_COMMANDS + 1), f"an entry has 1 to {MAX_COMMANDS} commands"),
    ],
    ids=["no key", "long key", "surrogate", "large value", "no command", "too many"],
)
def test_what_can_be_no_entry_is_refused_and_leaves_no_trace(commands: tuple[Command, ...], why: str) -> None:
    """Wherever it came from: what one node takes into its log, all have to be able to apply."""
    chief = settled_leader()
    asked = PendingRequest(Propose(commands, 1000.0), ReplyTo(ActorAddress("client")), 1e9)

    assert chief.gets(asked) == [("client", Refused("invalid", why))]
    assert chief.replica.log.last_index == 2
