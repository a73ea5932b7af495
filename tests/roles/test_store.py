"""The store: committed entries in order, one answer to each client, and queries that wait for their read index."""

from __future__ import annotations

from typing import Any

import pytest
from thespian.actors import ActorAddress

from raftkv.actors.messages.node import (
    AppliedUpTo,
    Apply,
    ReadAt,
)
from raftkv.actors.messages.requests import (
    Applied,
    ForwardReply,
    ReadResult,
    Refused,
    ReplyTo,
)
from raftkv.actors.store import Store
from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import Delete, DeleteDone, Get, Item, Put, PutDone, encode_commands
from tests.roles.rehearsal import entry, founding_entry, noop, start_message
from tests.support.stage import Stage

CLIENT = ReplyTo(ActorAddress("client"))


class Keeper:
    """A store alone on a stage."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.failure: str | None = None
        self.store: Any = self.stage.put("store", Store)
        self.stage.give("store", start_message(self.stage.clock, self._fail))

    def _fail(self, status: int, line: str) -> None:
        self.failure = f"{status}: {line}"

    def gets(self, *messages: Any) -> list[tuple[str, Any]]:
        """Handle messages, and return all that is sent."""
        for message in messages:
            self.stage.give("store", message)
        sent, self.stage.sent = self.stage.sent, []
        return [(target, message) for _, target, message in sent]

    def applies(self, *entries: Entry, waiters: tuple[tuple[int, ReplyTo], ...] = ()) -> list[tuple[str, Any]]:
        """Apply entries, and return all that is sent."""
        return self.gets(Apply(entries[0].index, entries, waiters))

    def waits_ms(self, span_ms: float) -> list[tuple[str, Any]]:
        """Let time pass, and return all that is sent."""
        end = self.stage.clock.ms + span_ms
        while (due := min((wakeup[0] for wakeup in self.stage.wakeups), default=end + 1)) <= end:
            self.stage.clock.ms = due
            self.stage.wake_due()
        self.stage.clock.ms = end
        return self.gets()


def query(key: str = "k2", *, read_index: int, until: float = 1e9, reply_to: ReplyTo = CLIENT) -> ReadAt:
    """Return a query that has to see everything up to ``read_index``."""
    return ReadAt((Get(key),), reply_to, read_index, until)


def commands(index: int, *some: Put | Delete) -> Entry:
    """Return an entry of these commands."""
    return Entry(index, 1, Kind.COMMANDS, encode_commands(some))


def test_applies_entries_in_order_and_says_how_far() -> None:
    """3.5: in log order, each once."""
    keeper = Keeper()

    assert keeper.applies(founding_entry(), entry(2, 1), entry(3, 1)) == [("node", AppliedUpTo(3))]
    assert keeper.store.keyspace.items() == [("k2", Item(b"t1", 1, 1, 1)), ("k3", Item(b"t1", 2, 2, 1))]


def test_no_ops_and_configurations_change_nothing_and_use_up_no_revision() -> None:
    """Only commands are for the state machine."""
    keeper = Keeper()
    keeper.applies(founding_entry(), noop(2, 1), entry(3, 1), noop(4, 2))

    assert keeper.store.keyspace.revision == 1


def test_each_client_gets_the_results_of_its_own_entry() -> None:
    """One answer to each, with the keyspace's revision after that entry and not after the last."""
    keeper = Keeper()
    peer = ReplyTo(ActorAddress("n2"), (5, 8))

    shown = keeper.applies(
        commands(1, Put("a", b"1"), Put("b", b"2")),
        commands(2, Delete("a"), Delete("nothing")),
        waiters=((1, CLIENT), (2, peer)),
    )

    assert shown == [
        ("client", Applied(1, 1, 2, (PutDone(1), PutDone(2)))),
        ("n2", ForwardReply("n1", 5, 8, Applied(2, 1, 3, (DeleteDone(3, True), DeleteDone(3, False))))),
        ("node", AppliedUpTo(2)),
    ]


def test_two_clients_of_one_entry_are_both_answered() -> None:
    """Whoever waits for an entry is told, however many they are."""
    keeper = Keeper()

    shown = keeper.applies(entry(1, 1), waiters=((1, CLIENT), (1, ReplyTo(ActorAddress("other")))))

    assert [target for target, _ in shown] == ["client", "other", "node"]


def test_entries_that_were_applied_before_are_skipped() -> None:
    """An entry is applied once."""
    keeper = Keeper()
    keeper.applies(entry(1, 1), entry(2, 1))

    keeper.applies(entry(2, 1), entry(3, 1))

    assert (keeper.store.last_applied, keeper.store.keyspace.revision) == (3, 3)


def test_a_gap_stops_the_node() -> None:
    """Rather than going on with a keyspace that is not the cluster's."""
    keeper = Keeper()
    keeper.applies(entry(1, 1))
    keeper.applies(entry(3, 1))

    assert keeper.failure is not None
    assert keeper.failure.startswith("70: bug in store")
    assert keeper.store.last_applied == 1


def test_a_query_is_answered_at_once_when_its_read_index_is_applied() -> None:
    """6.4, step 4."""
    keeper = Keeper()
    keeper.applies(entry(1, 1), entry(2, 1))

    assert keeper.gets(query(read_index=2)) == [("client", ReadResult(2, 2, (Item(b"t1", 2, 2, 1),)))]
    assert keeper.gets(query("nothing", read_index=0)) == [("client", ReadResult(2, 2, (None,)))]


def test_a_query_waits_until_its_read_index_is_applied() -> None:
    """6.4, step 4, and pitfall 43: an older state must not be shown."""
    keeper = Keeper()

    assert keeper.gets(query(read_index=2), query("k1", read_index=3)) == []
    assert keeper.applies(entry(1, 1)) == [("node", AppliedUpTo(1))]
    assert keeper.applies(entry(2, 1)) == [
        ("node", AppliedUpTo(2)),
        ("client", ReadResult(2, 2, (Item(b"t1", 2, 2, 1),))),
    ]
    assert keeper.applies(entry(3, 1))[1:] == [("client", ReadResult(3, 3, (Item(b"t1", 1, 1, 1),)))]


def test_a_query_whose_time_is_over_is_refused() -> None:
    """Nothing was done, and nothing waits for ever."""
    keeper = Keeper()
    keeper.gets(query(read_index=2, until=150.0), query(read_index=3, until=1000.0))

    assert keeper.waits_ms(150) == []
    assert keeper.waits_ms(100) == [("client", Refused("no_leader", "entry 2 was not applied in time, only 0"))]
    assert len(keeper.applies(entry(1, 1), entry(2, 1))) == 1
    assert len(keeper.applies(entry(3, 1))) == 2


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_same_entries_give_the_same_keyspace_however_they_are_cut(size: int) -> None:
    """3.5: the state follows from the log alone."""
    entries = [
        founding_entry(),
        commands(2, Put("a", b"1"), Delete("b")),
        noop(3, 1),
        commands(4, Put("b", b"2"), Put("a", b"3")),
        commands(5, Delete("a"), Put("a", b"4")),
    ]
    keeper = Keeper()
    for first in range(0, 5, size):
        keeper.applies(*entries[first : first + size])

    assert keeper.store.keyspace.items() == [("a", Item(b"4", 5, 5, 1)), ("b", Item(b"2", 2, 2, 1))]
