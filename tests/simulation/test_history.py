"""Which anomalies a history of clients has, and which it has not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path
from random import Random
from typing import Any, get_args

import msgspec
import pytest

from raftkv.actors.messages.base import Level
from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
    Refused,
)
from raftkv.simulation.checks.history import History, Operation
from raftkv.simulation.checks.operation import JUDGED, NOT_REPORTED
from raftkv.store.commands import (
    NOT_THERE,
    THERE,
    Command,
    Delete,
    DeleteDone,
    DeleteIf,
    Get,
    Item,
    Put,
    PutDone,
    PutIf,
    Result,
    Unmatched,
)
from raftkv.store.keyspace import Keyspace
from tests.simulation.sequential_store import SequentialStore

KINDS = (
    "nodes differ",
    "not linearizable",
    "the results do not belong",
    "a condition is reported not to hold",
    "the condition names a later revision",
    "the items do not belong",
    "the revisions do not count",
    "the item is not possible",
    "a later index has an earlier term",
    "one index has two revisions",
    "a later index has an earlier revision",
    "at no later index",
    "at an earlier revision",
    "went back to",
    "which no operation wrote:",
    "which was written only later:",
    "and k = ",
    "though revision",
)


class Recorded:
    """A history written by hand: one request after the other, at times that count up by one."""

    def __init__(self) -> None:
        self.history = History()
        self.ms = 0.0

    def now(self) -> float:
        self.ms += 1
        return self.ms

    def begin(self, request: Propose | Read, client: str = "c", node: str = "n1") -> Operation:
        return self.history.begin(client, node, self.now(), request)

    def end(self, operation: Operation, reply: Any) -> None:
        self.history.end(operation, self.now(), reply)

    def does(self, request: Propose | Read, reply: Any, client: str = "c", node: str = "n1") -> Operation:
        operation = self.begin(request, client, node)
        self.end(operation, reply)
        return operation

    def accused(self, finals: Any = None) -> list[str]:
        """Return the kinds of the anomalies."""
        verdict = self.history.verdict(finals)
        assert verdict.ok == (not verdict.anomalies)
        return [kind for anomaly in verdict.anomalies for kind in KINDS if kind in anomaly.text.split("\n")[0]]


def put(value: str, *keys: str) -> Propose:
    return Propose(tuple(Put(key, value.encode()) for key in keys or ("k",)), 1000.0)


def delete(*keys: str) -> Propose:
    return Propose(tuple(Delete(key) for key in keys or ("k",)), 1000.0)


def put_if(value: str, revision: int, key: str = "k") -> Propose:
    return Propose((PutIf(key, value.encode(), revision),), 1000.0)


def delete_if(revision: int, key: str = "k") -> Propose:
    return Propose((DeleteIf(key, revision),), 1000.0)


def several(*commands: Command) -> Propose:
    return Propose(commands, 1000.0)


def get(*keys: str, level: Level = "linearizable") -> Read:
    return Read(tuple(Get(key) for key in keys or ("k",)), level, 1000.0)


def stale(*keys: str) -> Read:
    return get(*keys, level="stale")


def done(index: int = NOT_REPORTED, revision: int = NOT_REPORTED, *results: Result, term: int = 1) -> Applied:
    return Applied(index, term, revision, results or (PutDone(revision),))


def gone(existed: bool, index: int = NOT_REPORTED, revision: int = NOT_REPORTED) -> Applied:
    return Applied(index, 1, revision, (DeleteDone(revision, existed),))


def saw(
    *values: str | None, index: int = NOT_REPORTED, revision: int = NOT_REPORTED, modified: int = NOT_REPORTED
) -> ReadResult:
    items = [None if value is None else Item(value.encode(), NOT_REPORTED, modified, NOT_REPORTED) for value in values]
    return ReadResult(index, revision, tuple(items))


def unmatched(modified: int, index: int = NOT_REPORTED, revision: int = NOT_REPORTED) -> Applied:
    return Applied(index, 1, revision, (Unmatched(revision, modified),))


UNKNOWN, REFUSED, SILENCE = Refused("unknown"), Refused("no_leader", "none is known"), None

Exchanged = tuple[Propose | Read, Applied | ReadResult | Refused | None]

FINE: dict[str, tuple[list[Exchanged], str | None]] = {
    "a write": ([(put("1"), done())], "1"),
    "a write over another": ([(put("1"), done()), (put("2"), done()), (get(), saw("2"))], "2"),
    "an unknown write that is not done": ([(put("1"), UNKNOWN)], None),
    "one that is done late": ([(put("1"), SILENCE), (get(), saw(None))], "1"),
    "a write that was refused": ([(put("1"), REFUSED)], None),
    "a read that was refused": ([(put("1"), done()), (get(), REFUSED), (get(), SILENCE), (get(), UNKNOWN)], "1"),
    "a deletion": ([(put("1"), done()), (delete(), gone(True)), (get(), saw(None))], None),
    "a deletion of nothing": ([(delete(), gone(False))], None),
    "an unknown deletion": ([(put("1"), done()), (delete(), UNKNOWN)], None),
    "a stale read of something old": ([(put("1"), done()), (put("2"), done()), (stale(), saw("1"))], "2"),
}
BROKEN: dict[str, tuple[list[Exchanged], str | None]] = {
    "an acknowledged write is lost": ([(put("1"), done())], None),
    "a write that was refused is done": ([(put("1"), REFUSED)], "1"),
    "a read of a value from nowhere": ([(put("1"), done()), (get(), saw("x"))], "1"),
    "the end is not the last write": ([(put("1"), done()), (put("2"), done())], "1"),
    "a read misses a write": ([(put("1"), done()), (get(), saw(None))], "1"),
    "a deletion misses a write": ([(put("1"), done()), (delete(), gone(False))], None),
    "a deletion deletes what is not there": ([(delete(), gone(True))], None),
    "a deletion is undone": ([(put("1"), done()), (delete(), gone(True)), (get(), saw("1"))], None),
    "an unknown write shows and vanishes": ([(put("1"), UNKNOWN), (get(), saw("1")), (get(), saw(None))], None),
}


def recorded(asked: list[Exchanged]) -> Recorded:
    history = Recorded()
    for request, reply in asked:
        history.does(request, reply)
    return history


# Only reads report a revision, and no answer an index: values and times alone decide.
SEEN_AT_1, SEEN_AT_2 = (get(), saw("1", revision=1, modified=1)), (get(), saw("2", revision=2, modified=2))

FINE |= {
    "a creation": ([(put_if("1", NOT_THERE), done())], "1"),
    "a creation of what is there": ([(put("1"), done()), (put_if("2", NOT_THERE), unmatched(1))], "1"),
    "a change of whatever is there": ([(put("1"), done()), (put_if("2", THERE), done())], "2"),
    "a change of what is not there": ([(put_if("2", THERE), unmatched(NOT_THERE))], None),
    "a change of what was seen": ([(put("1"), UNKNOWN), SEEN_AT_1, (put_if("2", 1), done())], "2"),
    "a change of what is no longer so": (
        [(put("1"), done()), SEEN_AT_1, (put("2"), done()), (put_if("3", 1), unmatched(2))],
        "2",
    ),
    "a change of what is gone": (
        [(put("1"), done()), SEEN_AT_1, (delete(), gone(True)), (put_if("3", 1), unmatched(NOT_THERE))],
        None,
    ),
    "a change of a revision with an unknown value": ([(put("1"), UNKNOWN), (put_if("2", 7), done())], "2"),
    "one that fails without a revision": (
        [(put("1"), UNKNOWN), (put_if("2", 7), unmatched(NOT_REPORTED))],
        "1",
    ),
    "a removal of what was seen": ([(put("1"), done()), SEEN_AT_1, (delete_if(1), gone(True))], None),
    "a removal of what is no longer so": (
        [(put("1"), done()), SEEN_AT_1, (put("2"), done()), (delete_if(1), unmatched(2))],
        "2",
    ),
    "an unknown creation": ([(put_if("1", NOT_THERE), SILENCE)], "1"),
    "an unknown creation that is not done": ([(put_if("1", NOT_THERE), UNKNOWN)], None),
    "an unknown change of what is no longer so": (
        [(put("1"), done()), SEEN_AT_1, (put_if("2", 1), UNKNOWN), (put("3"), done())],
        "3",
    ),
    "an unknown removal": ([(put("1"), done()), (delete_if(THERE), SILENCE)], None),
    "one value at two revisions": (
        [(put("1"), done()), SEEN_AT_1, (put("2"), done()), (put("1"), done()), (put_if("3", 1), unmatched(3))],
        "1",
    ),
    "a condition on what the same entry has left": (
        [
            (
                several(Put("k", b"1"), PutIf("k", b"2", NOT_THERE), PutIf("k", b"3", THERE), DeleteIf("k", 9)),
                done(-1, -1, PutDone(-1), Unmatched(-1, 1), PutDone(-1), Unmatched(-1, 2)),
            )
        ],
        "3",
    ),
    "an unknown entry of which only one condition holds": (
        [
            (put("1"), done()),
            SEEN_AT_1,
            (several(PutIf("k", b"2", NOT_THERE), PutIf("k", b"3", 1), PutIf("k", b"4", 1)), UNKNOWN),
        ],
        "3",
    ),
}
BROKEN |= {
    "a creation of what is there already": ([(put("1"), done()), (put_if("2", NOT_THERE), done())], "2"),
    "two creations": ([(put_if("1", NOT_THERE), done()), (put_if("2", NOT_THERE), done())], "2"),
    "a creation that is refused though nothing is there": ([(put_if("1", NOT_THERE), unmatched(1))], None),
    "a change of nothing": ([(put_if("2", THERE), done())], "2"),
    "a change that finds nothing though something is there": (
        [(put("1"), done()), (put_if("2", THERE), unmatched(NOT_THERE))],
        "1",
    ),
    "a change of what is overwritten": (
        [(put("1"), done()), SEEN_AT_1, (put("2"), done()), (put_if("3", 1), done())],
        "3",
    ),
    "two changes of the same": (
        [(put("1"), done()), SEEN_AT_1, (put_if("2", 1), done()), (put_if("3", 1), done())],
        "3",
    ),
    "a change of what is there that is said not to match": (
        [(put("1"), done()), SEEN_AT_1, (put_if("2", 1), unmatched(NOT_REPORTED))],
        "1",
    ),
    "a change of what is there that is said to find something else": (
        [(put("1"), done()), SEEN_AT_1, (put_if("2", 1), unmatched(2))],
        "1",
    ),
    "a change that is said not to match and is done": (
        [(put("1"), done()), SEEN_AT_1, (put("2"), done()), (put_if("3", 1), unmatched(2))],
        "3",
    ),
    "a removal of what is overwritten": (
        [(put("1"), done()), SEEN_AT_1, (put("2"), done()), (delete_if(1), gone(True))],
        None,
    ),
    "an unknown creation of what is there already": ([(put("1"), done()), (put_if("2", NOT_THERE), UNKNOWN)], "2"),
    "an unknown change of what is overwritten": (
        [(put("1"), done()), SEEN_AT_1, (put("2"), done()), (put_if("3", 1), SILENCE)],
        "3",
    ),
    "an unknown change that is done twice": (
        [(put("1"), done()), SEEN_AT_1, (put_if("2", 1), UNKNOWN), SEEN_AT_2, (put_if("3", 2), done())],
        "2",
    ),
    "an unknown removal of what is overwritten": (
        [(put("1"), done()), SEEN_AT_1, (put("2"), done()), (delete_if(1), UNKNOWN)],
        None,
    ),
    "a condition on what the same entry has left, reported as if before": (
        [
            (
                several(Put("k", b"1"), PutIf("k", b"2", NOT_THERE)),
                done(-1, -1, PutDone(-1), PutDone(-1)),
            )
        ],
        "2",
    ),
    "an unknown entry of which both conditions held": (
        [(put("1"), done()), SEEN_AT_1, (several(PutIf("k", b"2", 1), PutIf("k", b"3", 1)), UNKNOWN)],
        "3",
    ),
}


@pytest.mark.parametrize(("asked", "final"), FINE.values(), ids=FINE.keys())
def test_a_store_that_keeps_its_promises_is_accused_of_nothing(asked: list[Exchanged], final: str | None) -> None:
    value = None if final is None else final.encode()
    assert recorded(asked).accused({"n1": {"k": value}, "n2": {"k": value}}) == []


@pytest.mark.parametrize(("asked", "final"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_promise_is_reported(asked: list[Exchanged], final: str | None) -> None:
    value = None if final is None else final.encode()
    assert recorded(asked).accused({"n1": {"k": value}, "n2": {"k": value}}) == ["not linearizable"]


def test_nodes_that_differ_at_the_end_are_reported() -> None:
    history = recorded([(put("1", "a"), UNKNOWN), (put("2", "b"), done())])
    assert history.accused({"n1": {"a": b"1", "b": b"2"}, "n2": {"b": b"2"}}) == ["nodes differ"]


def test_a_key_that_no_operation_wrote_is_reported() -> None:
    assert recorded([(put("1", "a"), done())]).accused({"n1": {"a": b"1", "b": b"2"}}) == ["not linearizable"]


def test_several_keys_are_written_and_read_at_one_moment() -> None:
    history = recorded([(put("1", "a", "b"), done(NOT_REPORTED, NOT_REPORTED, PutDone(-1), PutDone(-1)))])
    slow = history.begin(put("2", "a", "b"), "other")
    history.does(get("a", "b"), saw("2", "1"))
    history.end(slow, done(NOT_REPORTED, NOT_REPORTED, PutDone(-1), PutDone(-1)))
    assert history.accused() == ["not linearizable"]


def test_what_happens_in_one_millisecond_has_the_order_in_which_it_was_recorded() -> None:
    history = History()
    write = history.begin("c1", "n1", 5.0, put("1"))
    history.end(write, 5.0, done())
    read = history.begin("c2", "n1", 5.0, get())
    history.end(read, 5.0, saw(None))
    assert not history.verdict().ok


def test_an_entry_that_undoes_its_own_work_changes_nothing() -> None:
    request = Propose((Put("k", b"1"), Delete("k")), 1000.0)
    both = (PutDone(NOT_REPORTED), DeleteDone(NOT_REPORTED, True))
    assert recorded([(request, done(NOT_REPORTED, NOT_REPORTED, *both)), (get(), saw(None))]).accused() == []
    not_there = (PutDone(NOT_REPORTED), DeleteDone(NOT_REPORTED, False))
    assert recorded([(request, done(NOT_REPORTED, NOT_REPORTED, *not_there))]).accused() == ["not linearizable"]


# --- Indexes and revisions.

POSITIONS: dict[str, tuple[list[Exchanged], list[str]]] = {
    "all in order": (
        [
            (put("1"), done(2, 1)),
            (get(), saw("1", index=2, revision=1, modified=1)),
            (put("2"), done(4, 2)),
            (stale(), saw("1", index=3, revision=1, modified=1)),
            (delete(), gone(True, 5, 3)),
            (delete(), gone(False, 6, 3)),
            (get(), saw(None, index=6, revision=3)),
        ],
        [],
    ),
    "other results": ([(delete(), done(2, 1))], ["the results do not belong"]),
    "too few items": ([(get("a", "b"), saw(None))], ["the items do not belong"]),
    "a revision too far": (
        [(put("1", "a", "b"), done(2, 3, PutDone(1), PutDone(3)))],
        ["the revisions do not count"],
    ),
    "an item from the future": (
        [(put("1"), done(2, 1)), (get(), saw("1", index=2, revision=1, modified=2))],
        ["the item is not possible"],
    ),
    "terms go back": (
        [(put("1"), done(2, 1, term=2)), (put("2"), done(3, 2, term=1))],
        ["a later index has an earlier term"],
    ),
    "one index, two states": (
        [(put("1", "a"), done(2, 1)), (get(), saw(None, index=2, revision=2))],
        ["one index has two revisions"],
    ),
    "an index goes back": (
        [(put("1"), done(3, 1)), (put("2"), done(2, 2))],
        ["a later index has an earlier revision", "at no later index"],
    ),
    "a revision goes back": (
        [(put("1"), done(2, 2)), (put("2"), done(3, 2))],
        ["a later index has an earlier revision", "and k = "],
    ),
    "a read goes back": (
        [(put("1"), done(2, 1)), (put("2", "a"), done(3, 2)), (get(), saw("1", index=2, revision=1, modified=1))],
        ["at no later index"],
    ),
    "a read goes back, without an index": (
        [(put("1"), done(-1, 1)), (put("2", "a"), done(-1, 2)), (get(), saw("1", revision=1, modified=1))],
        ["at an earlier revision"],
    ),
    "a write goes back, without an index": (
        [(put("1", "a"), done(-1, 2)), (put("2"), done(-1, 2))],
        ["at an earlier revision", "and k = "],
    ),
    "stale reads go back, without an index": (
        [(stale(), saw(None, revision=2)), (stale(), saw(None, revision=1))],
        ["went back to"],
    ),
    "conditions in order": (
        [
            (put_if("1", NOT_THERE), done(2, 1)),
            (put_if("2", NOT_THERE), unmatched(1, 3, 1)),
            (put_if("2", 1), done(4, 2)),
            (put("x", "a"), done(5, 3)),
            (delete_if(1), unmatched(2, 6, 3)),
            (delete_if(2), gone(True, 7, 4)),
            (put_if("3", THERE), unmatched(NOT_THERE, 8, 4)),
        ],
        [],
    ),
    "what did not match has used up a revision": (
        [(put("1"), done(2, 1)), (put_if("2", NOT_THERE), unmatched(1, 3, 2)), (put("3", "a"), done(4, 2))],
        ["a later index has an earlier revision"],
    ),
    "a condition tells of one entry what can't be": (
        [(several(PutIf("k", b"1", 7), Put("a", b"2")), done(2, 2, Unmatched(1, NOT_THERE), PutDone(1)))],
        ["the revisions do not count"],
    ),
    "a condition that holds by what is said": (
        [(put("1"), done(2, 1)), (put("2", "a"), done(3, 2)), (put_if("2", 1), unmatched(1, 4, 2))],
        ["not linearizable", "a condition is reported not to hold"],
    ),
    "a condition that the key is there, reported not to hold": (
        [(put("1"), done(2, 1)), (put_if("2", THERE), unmatched(1, 3, 1))],
        ["not linearizable", "a condition is reported not to hold"],
    ),
    "something that came only later": (
        [(put("0"), UNKNOWN), (put_if("1", 7), unmatched(3, 2, 2))],
        ["a condition is reported not to hold", "the condition names a later revision"],
    ),
    "a condition on something that comes only later": (
        [(put("1"), UNKNOWN), (put_if("2", 2), done(3, 2))],
        ["not linearizable", "the condition names a later revision"],
    ),
    "a result that no condition has": (
        [(put("1"), UNKNOWN), (delete_if(THERE), gone(False, 2, 0))],
        ["the results do not belong"],
    ),
    "a result of a condition where there was none": (
        [(put("1"), unmatched(NOT_THERE, 2, 3))],
        ["the results do not belong"],
    ),
    "the key was changed in between": (
        [(put("1"), done(2, 1)), (put("2"), done(3, 2)), (put("x", "a"), done(4, 3)), (put_if("3", 1), done(5, 4))],
        ["not linearizable", "though revision"],
    ),
    "the key was changed in between, by whom no time tells": (
        [(put("1"), done(2, 1)), (stale(), saw("2", index=3, revision=2, modified=2)), (put_if("3", 1), done(5, 3))],
        ["which no operation wrote:", "though revision"],
    ),
    "an earlier change of the key is reported": (
        [(put("1"), done(2, 1)), (put("2"), done(3, 2)), (put_if("3", NOT_THERE), unmatched(1, 4, 2))],
        ["not linearizable", "though revision"],
    ),
    "nothing is there though something is known": (
        [(put("1"), done(2, 1)), (put_if("2", THERE), unmatched(NOT_THERE, 3, 1))],
        ["not linearizable", "though revision"],
    ),
    "a change of another key is reported": (
        [(put("1"), done(2, 1)), (put("2", "a"), done(3, 2)), (put_if("3", NOT_THERE), unmatched(2, 4, 2))],
        ["and k = "],
    ),
    "a condition on the revision of another key": (
        [(put("1"), done(2, 1)), (put("2", "a"), done(3, 2)), (put_if("3", 2), done(4, 3))],
        ["and k = "],
    ),
    "a condition on the revision of a deletion": (
        [(put("1"), done(2, 1)), (delete(), gone(True, 3, 2)), (put("2"), UNKNOWN), (put_if("3", 2), done(5, 4))],
        ["and k = "],
    ),
    "two changes at one revision": (
        [(put("1"), done(2, 1)), (put("2"), SILENCE), (get(), saw("2", index=2, revision=1, modified=1))],
        ["and k = "],
    ),
}


@pytest.mark.parametrize(("asked", "accusations"), POSITIONS.values(), ids=POSITIONS.keys())
def test_indexes_and_revisions_must_fit_each_other_and_the_times(
    asked: list[Exchanged], accusations: list[str]
) -> None:
    assert recorded(asked).accused() == accusations


def test_operations_of_one_entry_share_its_index() -> None:
    """The front end puts what comes together into one entry, and tells the revision after all of it."""
    history = Recorded()
    first, second = history.begin(put("1", "a"), "c1"), history.begin(put("2", "b"), "c2")
    history.end(first, done(2, 2, PutDone(1)))
    history.end(second, done(2, 2, PutDone(2)))
    history.does(get("a", "b"), saw("1", "2", index=2, revision=2))
    assert history.accused() == []


# --- Stale reads: any state that there has been, but one, and no earlier one than this node has shown.

WRITES: list[Exchanged] = [(put("1", "a", "b"), done(2, 2, PutDone(1), PutDone(2))), (put("2", "a"), done(3, 3))]


@pytest.mark.parametrize(
    ("reads", "accusations"),
    [
        ([(stale("a"), saw(None, index=1, revision=0))], []),
        ([(stale("a", "b"), saw("1", "1", index=2, revision=2))], []),
        ([(stale("a", "b"), saw("2", "1", index=3, revision=3))], []),
        ([(stale("a"), saw("x", index=3, revision=3))], ["which no operation wrote:"]),
        ([(stale("a", "b"), saw(None, "1", index=2, revision=2))], ["though revision"]),
        ([(stale("a", "b"), saw("2", None, index=3, revision=3))], ["though revision"]),
        ([(stale("a"), saw("1", index=3, revision=3, modified=1))], ["though revision"]),
        (
            [(stale(), saw(None, index=3, revision=3)), (stale(), saw(None, index=2, revision=2))],
            ["went back to"],
        ),
        (
            [(get(), saw(None, index=3, revision=3)), (stale(), saw(None, index=2, revision=2))],
            ["went back to"],
        ),
        (
            [(stale(), saw(None, index=2, revision=3))],
            ["one index has two revisions", "a later index has an earlier revision"],
        ),
    ],
)
def test_a_stale_read_shows_a_state_that_has_been(reads: list[Exchanged], accusations: list[str]) -> None:
    assert recorded([*WRITES, *reads]).accused() == accusations


def test_a_stale_read_shows_nothing_that_was_written_only_later() -> None:
    assert recorded([(stale(), saw("1")), (put("1"), done())]).accused() == ["which was written only later:"]


def test_another_node_may_be_behind() -> None:
    history = recorded(WRITES)
    history.does(stale("a"), saw("2", index=3, revision=3), node="n1")
    history.does(stale("a"), saw("1", index=2, revision=2), node="n2")
    assert history.accused() == []


def test_reads_at_once_may_show_either_state_first() -> None:
    history = recorded(WRITES)
    slow = history.begin(stale("a"), "other")
    history.does(stale("a"), saw("2", index=3, revision=3))
    history.end(slow, saw("1", index=2, revision=2))
    assert history.accused() == []


def test_a_node_that_lost_its_disk_is_not_bound_by_what_it_has_shown() -> None:
    history = recorded(WRITES)
    history.does(stale("a"), saw("2", index=3, revision=3))
    under_way = history.begin(stale("a"), "other")
    history.history.wiped("n1", history.now())
    history.does(stale("a"), saw(None, index=1, revision=0))
    history.end(under_way, saw("2", index=3, revision=3))
    history.does(stale("a"), saw("1", index=2, revision=2))
    assert history.accused() == []


def test_an_unknown_deletion_may_be_why_nothing_is_there() -> None:
    history = recorded([*WRITES, (delete("a"), SILENCE)])
    history.does(stale("a"), saw(None, index=4, revision=4))
    assert history.accused() == []


# --- Recording.


def test_what_was_answered_decides_what_became_of_an_operation() -> None:
    history = recorded(
        [(put("1"), done()), (put("1"), REFUSED), (put("1"), UNKNOWN), (put("1"), SILENCE), (get(), UNKNOWN)]
    )
    history.begin(get())
    assert [(each.outcome, each.answer) for each in history.history.operations] == [
        ("ok", ""),
        ("failed", "no_leader: none is known"),
        ("unknown", "unknown"),
        ("unknown", "no answer"),
        ("unknown", "unknown"),
        ("unknown", ""),
    ]
    assert [each.answered_ms for each in history.history.operations] == [2, 4, 6, 8, 10, inf]


def test_an_operation_ends_once_and_with_an_answer_to_what_was_asked() -> None:
    history = Recorded()
    write = history.begin(put("1"))
    with pytest.raises(ValueError, match="does not answer"):
        history.end(write, saw(None))
    history.end(write, done())
    with pytest.raises(ValueError, match="has ended already"):
        history.end(write, done())


def test_an_operation_is_described_in_one_line() -> None:
    history = recorded([(put("1", "a", "b"), done(2, 2, PutDone(1), PutDone(2))), (delete(), gone(False, 3, 2))])
    history.does(get("a", "k"), saw("1", None, index=3, revision=2), "reader", "n2")
    history.begin(put("x" * 100))
    history.does(put_if("y", 2, "a"), unmatched(1, 4, 2))
    history.does(put_if("y", THERE, "b"), unmatched(NOT_THERE, 5, 2))
    history.does(delete_if(1, "a"), gone(True, 6, 3))
    history.begin(put_if("z", NOT_THERE))
    assert [str(operation) for operation in history.history.operations] == [
        "#0 1.000 to 2.000 ms, c at n1: write put a = 1, put b = 1: ok at index 2, revision 2",
        "#1 3.000 to 4.000 ms, c at n1: write delete k (was not there): ok at index 3, revision 2",
        "#2 5.000 to 6.000 ms, reader at n2: read a is 1, k is nothing: ok at index 3, revision 2",
        f"#3 7.000 to never ms, c at n1: write put k = {'x' * 40}…: unknown",
        "#4 8.000 to 9.000 ms, c at n1: write put a = y if at 2 (was at 1): ok at index 4, revision 2",
        "#5 10.000 to 11.000 ms, c at n1: write put b = y if there (was not there): ok at index 5, revision 2",
        "#6 12.000 to 13.000 ms, c at n1: write delete a if at 1: ok at index 6, revision 3",
        "#7 14.000 to never ms, c at n1: write put k = z if not there: unknown",
    ]


# --- The story.


def test_a_verdict_tells_what_had_an_order_and_what_has_none() -> None:
    verdict = recorded([(put("1"), done()), (put("2"), done()), (get(), saw("1")), (get(), saw("2"))]).history.verdict()
    assert verdict.text == (
        "4 operations by 1 clients (4 ok, 0 failed, 0 unknown): 1 anomaly\n"
        "k: not linearizable\n"
        "  All operations that had ended before fit this order:\n"
        "    #0 1.000 to 2.000 ms, c at n1: write put k = 1: ok\n"
        "    #1 3.000 to 4.000 ms, c at n1: write put k = 2: ok\n"
        "  With the end of this operation, no order is left:\n"
        "    #2 5.000 to 6.000 ms, c at n1: read k is 1: ok\n"
        "  It saw k = 1, but in that order #1 left 2 there, and had ended before this began."
    )
    assert [operation.number for operation in verdict.anomalies[0].operations] == [2]
    assert [operation.number for operation in verdict.anomalies[0].order] == [0, 1]


def test_a_verdict_on_a_good_history_is_one_line() -> None:
    verdict = recorded(WRITES).history.verdict()
    assert verdict[:2] == (
        True,
        "2 operations by 1 clients (2 ok, 0 failed, 0 unknown): linearizable, and all indexes and revisions agree",
    )


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ([(get(), saw("x"))], "It saw k = x, which no operation wrote."),
        (
            [(put("x"), REFUSED), (get(), saw("x"))],
            "It saw k = x, which only #0 could have written, but it was refused.",
        ),
        ([(get(), saw("x")), (put("x"), done())], "It saw k = x, which #1 wrote only later."),
        ([(delete(), gone(True))], "It saw k there, but in that order it never was."),
        (
            [(put("1"), done()), SEEN_AT_1, (put_if("x", 1), unmatched(NOT_REPORTED))],
            "It saw k without 1, but in that order #0 left 1 there, and had ended before this began.",
        ),
        (
            [(put("1"), done()), (put_if("x", NOT_THERE), unmatched(1)), (get(), saw("x"))],
            "It saw k = x, which only #1 could have written, but its condition did not hold.",
        ),
        (
            [(put("1"), SILENCE), (get(), saw("1")), (get(), saw(None))],
            "It saw k = nothing, but in that order #0 left 1 there, and #1, after it, had ended before this began.",
        ),
    ],
)
def test_a_verdict_says_why_there_is_no_order(asked: list[Exchanged], reason: str) -> None:
    assert recorded(asked).history.verdict().text.splitlines()[-1].strip() == reason


def test_a_verdict_of_a_search_that_gave_up_is_not_ok() -> None:
    history = recorded([(put("1"), done()), (get(), saw("1"))])
    verdict = history.history.verdict(limit=0)
    assert not verdict.ok
    assert verdict.undecided == ("k: undecided, no order was found in 0 configurations",)
    assert "1 undecided, which does not count as passed" in verdict.text


# --- Histories of a store that is right, and the same with one mistake.


@pytest.mark.parametrize("seed", range(30))
def test_a_store_that_does_one_thing_after_the_other_is_accused_of_nothing(seed: int) -> None:
    rng = Random(seed)
    history = SequentialStore(
        seed,
        clients=rng.choice([2, 6]),
        operations=120,
        unknown=rng.choice([0, 0.1, 0.3]),
        keys=rng.choice([1, 3, 6]),
        many=rng.choice([0, 0.3]),
        conditional=rng.choice([0, 0.3, 0.8]),
    ).history
    verdict = history.verdict()
    assert verdict.ok, f"seed {seed}: {verdict.text}"


class ConditionsAreForgotten(Keyspace):
    """Every condition holds."""

    def apply(self, command: Command) -> Result:
        if isinstance(command, PutIf):
            command = Put(command.key, command.value)
        elif isinstance(command, DeleteIf) and self.get(command.key) is not None:
            command = Delete(command.key)
        return super().apply(command)


class ConditionsAreChecksOfTheWholeKeyspace(Keyspace):
    """A condition is on the revision of the keyspace, not of the key."""

    def apply(self, command: Command) -> Result:
        item = self.get(command.key)
        if isinstance(command, PutIf | DeleteIf) and item and 0 < command.revision != self.revision:
            return Unmatched(self.revision, item.modify_revision)
        return super().apply(command)


class ConditionsAreOnTheCreation(Keyspace):
    """A condition on any earlier version of a key holds."""

    def apply(self, command: Command) -> Result:
        item = self.get(command.key)
        if isinstance(command, PutIf | DeleteIf) and item and item.create_revision <= command.revision:
            command = msgspec.structs.replace(command, revision=item.modify_revision)
        return super().apply(command)


class NotThereIsWhateverIsThere(Keyspace):
    """What is to be created is changed."""

    def apply(self, command: Command) -> Result:
        if isinstance(command, PutIf) and command.revision == NOT_THERE:
            command = Put(command.key, command.value)
        return super().apply(command)


class UnmatchedUsesUpARevision(Keyspace):
    """What changes nothing is counted."""

    def apply(self, command: Command) -> Result:
        result = super().apply(command)
        if isinstance(result, Unmatched):
            self.revision += 1
            result = Unmatched(self.revision, result.modify_revision)
        return result


class UnmatchedTellsAnotherRevision(Keyspace):
    """The create revision is reported instead of the modify revision."""

    def apply(self, command: Command) -> Result:
        result = super().apply(command)
        item = self.get(command.key)
        return Unmatched(result.revision, item.create_revision) if isinstance(result, Unmatched) and item else result


class UnmatchedIsDoneAllTheSame(Keyspace):
    """Some writes that are reported to have changed nothing have changed the key."""

    def apply(self, command: Command) -> Result:
        result = super().apply(command)
        if isinstance(result, Unmatched) and isinstance(command, PutIf) and self.revision % 3 == 0:
            super().apply(Put(command.key, command.value))
        return result


WRONG_STORES = [
    (ConditionsAreForgotten, True),
    (ConditionsAreChecksOfTheWholeKeyspace, True),
    (ConditionsAreOnTheCreation, True),
    (NotThereIsWhateverIsThere, True),
    (UnmatchedUsesUpARevision, False),
    (UnmatchedTellsAnotherRevision, False),
    (UnmatchedIsDoneAllTheSame, True),
]
"""Each with whether values and times alone tell so."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("wrong", "by_values"), WRONG_STORES)
def test_a_store_that_is_wrong_about_conditions_is_found(wrong: type[Keyspace], by_values: bool, seed: int) -> None:
    history = SequentialStore(seed, operations=120, keys=2, conditional=0.6, keyspace=wrong).history
    accused = [anomaly.text.split("\n")[0] for anomaly in history.verdict().anomalies]
    assert accused, f"seed {seed}: {wrong.__doc__} was not noticed"
    if by_values:
        assert any(text.endswith("not linearizable") for text in accused), f"seed {seed}: {accused}"


def items(read: Operation) -> tuple[Item | None, ...]:
    assert isinstance(read.reply, ReadResult)
    return read.reply.items


def shows(read: Operation, *found: Item | None) -> None:
    assert isinstance(read.reply, ReadResult)
    read.reply = msgspec.structs.replace(read.reply, items=found)


def ended(history: History, kind: str) -> list[Operation]:
    return [each for each in history.operations if each.kind == kind and each.outcome == "ok"]


def shows_an_old_state(history: History, rng: Random) -> None:
    """A linearizable read returns what an earlier one did, whose value had been overwritten and seen so."""
    reads = [each for each in ended(history, "read") if len(each.keys) == 1]
    pairs = []
    for between in reads:
        same = [each for each in reads if each.keys == between.keys and items(each) != items(between)]
        before = [each for each in same if each.ended < between.began]
        after = [each for each in reads if each.keys == between.keys and between.ended < each.began]
        pairs += [(old, later) for old in before[-1:] for later in after]
    old, later = rng.choice(pairs)
    later.reply = old.reply


def reads_from_nowhere(history: History, rng: Random) -> None:
    """A read returns a value that no operation wrote."""
    read = rng.choice(ended(history, rng.choice(["read", "stale read"])))
    shows(read, *[Item(b"x", NOT_REPORTED, NOT_REPORTED, NOT_REPORTED) for _ in items(read)])


def loses_a_write(history: History, rng: Random) -> None:
    """A write that was seen is said to have been refused."""
    seen = {item.value for each in ended(history, "read") for item in items(each) if item}
    write = rng.choice([each for each in ended(history, "write") if values(each) & seen])
    write.reply, write.outcome = Refused("no_leader"), "failed"


def values(operation: Operation) -> set[bytes]:
    assert isinstance(operation.request, Propose)
    return {command.value for command in operation.request.commands if isinstance(command, Put)}


def tells_a_wrong_index(history: History, rng: Random) -> None:
    """A write is reported at a much later index than its own."""
    write = rng.choice(ended(history, "write")[20:])
    assert isinstance(write.reply, Applied)
    write.reply = msgspec.structs.replace(write.reply, index=write.reply.index - 15)


def tears_a_stale_read(history: History, rng: Random) -> None:
    """A stale read returns an item as it was before the last change that its revision counts."""
    written = {value for write in ended(history, "write") for value in values(write)}
    first = [(each, each.keys[0], items(each)[0]) for each in ended(history, "stale read")]
    pairs = [
        (item, later)
        for _, key, item in first
        for later, other_key, newer in first
        if item
        and newer
        and key == other_key
        and item.modify_revision < newer.modify_revision
        and newer.value in written
    ]
    old_item, later = rng.choice(pairs)
    shows(later, old_item, *items(later)[1:])


MISTAKES = [shows_an_old_state, reads_from_nowhere, loses_a_write, tells_a_wrong_index, tears_a_stale_read]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_in_a_long_history_is_found(mistake: Callable[[History, Random], None], seed: int) -> None:
    history = SequentialStore(seed, operations=200, keys=3).history
    assert history.verdict().ok, f"seed {seed}"
    mistake(history, Random(seed))
    verdict = history.verdict()
    assert verdict.anomalies, f"seed {seed}: {mistake.__doc__} was not noticed"


def test_the_same_history_has_the_same_verdict_in_every_process() -> None:
    """Nothing depends on how the text of a key is hashed."""
    program = (
        "from random import Random\n"
        "from tests.simulation.sequential_store import SequentialStore\n"
        "from tests.simulation.test_history import shows_an_old_state\n"
        "history = SequentialStore(3, operations=200).history\n"
        "print(history.verdict())\n"
        "shows_an_old_state(history, Random(3))\n"
        "print(history.verdict())\n"
    )
    root = Path(__file__).parents[2]
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hashseed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashseed in ("1", "2")
    }
    assert len(printed) == 1
    assert "not linearizable" in printed.pop()


def test_every_command_has_a_check() -> None:
    """What checks do not know would pass unjudged, or be taken for a deletion."""
    missing = [command.__name__ for command in get_args(Command) if command not in JUDGED]
    assert not missing, f"no check for {', '.join(missing)}: see Effects and positions in simulation/checks"


def test_a_command_without_a_check_can_not_be_sent_by_a_client() -> None:
    with pytest.raises(ValueError, match="no check for NotACommand"):
        History().begin("c1", "n1", 0.0, Propose((NotACommand(),), 1.0))  # type: ignore[arg-type]


class NotACommand:
    """Stands for a command that was added to the keyspace alone."""
