"""The log makes the search for an order short, and never makes it wrong."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
    Refused,
)
from raftkv.raft.entry import Entry, Kind
from raftkv.simulation.checks.committed import AppliedCommand, Committed
from raftkv.simulation.checks.effect import Effects
from raftkv.simulation.checks.hints import Hints
from raftkv.simulation.checks.history import History, Operation
from raftkv.simulation.checks.operation import NOT_REPORTED
from raftkv.simulation.run import Run, plan
from raftkv.store.commands import Command, Delete, DeleteDone, Get, Item, Put, PutDone, PutIf, encode_commands
from tests.simulation.sequential_store import SequentialStore

FEW = 300
"""Configurations that a search with good hints may try."""


def log_of(*entries: tuple[Command, ...]) -> list[AppliedCommand]:
    """Return the applied commands of these entries; the first is at index 1."""
    committed = Committed()
    for number, commands in enumerate(entries, 1):
        committed.add(Entry(number, 1, Kind.COMMANDS, encode_commands(commands)), 1)
    return list(committed.applied_commands())


def asked(history: History, *commands: Command, reply: Applied | Refused | None = None) -> Operation:
    """Record a write and its reply."""
    operation = history.begin("c", "n1", len(history.operations) * 1e6, Propose(commands, 1000.0))
    history.end(operation, operation.invoked_ms + 0.5, reply)
    return operation


def hints_of(history: History, log: list[AppliedCommand], operation: Operation) -> list[float]:
    """Return the hints for all possible effects of a write."""
    assert isinstance(operation.request, Propose)
    effects = Effects(history.operations).possible(operation.request, None)
    return [Hints(history.operations, log).hint(operation, effect) for effect in effects]


def test_a_write_in_the_log_has_a_place_and_another_has_none() -> None:
    history = History()
    done, never = asked(history, Put("a", b"2")), asked(history, Put("a", b"3"))
    log = log_of((Put("b", b"1"),), (Put("b", b"1b"), Put("a", b"2"), Put("c", b"")))

    assert hints_of(history, log, done) == [2]
    assert hints_of(history, log, never) == [inf]


def test_of_the_ways_that_a_condition_allows_the_one_that_it_went() -> None:
    history = History()
    asked(history, Put("a", b"1"), reply=Applied(1, 1, 1, (PutDone(1),)))
    both = asked(history, PutIf("a", b"2", 1), PutIf("b", b"3", 7))
    log = log_of((Put("a", b"1"),), (PutIf("a", b"2", 1), PutIf("b", b"3", 7)))
    assert isinstance(both.request, Propose)
    effects = Effects(history.operations).possible(both.request, None)

    found = [effect.leaves for effect in effects if Hints(history.operations, log).hint(both, effect) == 1]

    assert found == [(("a", b"2"),)]
    assert len(effects) == 3


def test_of_equal_deletions_the_answered_one_gets_the_reported_place() -> None:
    """One that was certainly not done has none, and none is older than who asked for it."""
    history = History()
    failed = asked(history, Delete("a"), reply=Refused("not_leader"))
    asked(history, Put("a", b"1"), reply=Applied(1, 1, 1, (PutDone(1),)))
    early = asked(history, Delete("a"))
    answered = asked(history, Delete("a"), reply=Applied(2, 1, 2, (DeleteDone(2, True),)))
    late = asked(history, Delete("a"))
    log = log_of((Put("a", b"1"),), (Delete("a"),), (Delete("a"),), (Put("a", b"2"),), (Delete("a"),))

    assert {each.number: hints_of(history, log, each) for each in (failed, early, late)} == {
        failed.number: [inf],
        early.number: [2],
        late.number: [3],
    }
    assert isinstance(answered.request, Propose)
    assert isinstance(answered.reply, Applied)
    (effect,) = Effects(history.operations).possible(answered.request, answered.reply)
    assert Hints(history.operations, log).hint(answered, effect) == 1


@pytest.mark.parametrize("seed", [0, 5, 7])
def test_the_log_makes_a_search_feasible_that_is_not_without_it(seed: int) -> None:
    store = SequentialStore(seed, clients=10, operations=250, unknown=0.5, keys=6, many=0.7, conditional=0.3)

    blind = store.history.verdict(limit=10 * FEW)
    knowing = store.history.verdict(limit=FEW, log=store.committed.applied_commands())

    assert blind.anomalies == ()
    assert len(blind.undecided) == 1
    assert knowing.ok


@pytest.mark.parametrize(("seed", "faults"), [(154, "crash"), (79, "pause"), (194, "pause")])
def test_a_run_with_hundreds_of_unanswered_requests_is_judged(seed: int, faults: str) -> None:
    """Some were for many keys, on conditions: no order was found in 100,000 configurations before the log was asked."""
    result = Run(plan(seed, events=20_000, classes=(faults,))).run()

    assert result.violation == ""
    assert result.answers["silence"] > 50


@pytest.mark.parametrize("seed", range(40))
def test_a_log_that_is_wrong_changes_no_verdict(seed: int) -> None:
    """Neither that of a history that can be explained, nor that of one where a read saw what was not there yet."""
    random = Random(seed)
    store = SequentialStore(seed, clients=3, operations=40, unknown=0.3, keys=2, conditional=0.4)
    log = list(store.committed.applied_commands())
    wrong = random.sample(log, len(log) * 2 // 3)

    assert store.history.verdict(log=wrong).ok
    assert store.history.verdict(log=log).ok

    # It was written once, and something else when that had been acknowledged.
    for value in (b"early", b"late"):
        asked(
            store.history,
            Put("k0", value),
            reply=Applied(NOT_REPORTED, NOT_REPORTED, NOT_REPORTED, (PutDone(NOT_REPORTED),)),
        )
    after_ms = len(store.history.operations) * 1e6
    read = store.history.begin("c", "n1", after_ms, Read((Get("k0"),), "linearizable", 1000.0))
    item = Item(b"early", NOT_REPORTED, NOT_REPORTED, NOT_REPORTED)
    store.history.end(read, after_ms, ReadResult(NOT_REPORTED, NOT_REPORTED, (item,)))

    assert ["not linearizable" in anomaly.text for anomaly in store.history.verdict(log=wrong).anomalies] == [True]
    assert ["not linearizable" in anomaly.text for anomaly in store.history.verdict(log=log).anomalies] == [True]
