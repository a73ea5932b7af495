"""What a history of clients is accused of, and what it is not."""

from __future__ import annotations

from math import inf

import pytest

from tests.support.history import History, Operation, Outcome
from tests.support.linearizability import Value

KINDS = ("acknowledged and lost", "which nobody wrote", "a value that nobody wrote", "nodes differ", "not linearizable")


def write(at: float, key: str, value: str, outcome: Outcome = "ok") -> Operation:
    return Operation("write", key, value, "n1", "w", at, at + 1 if outcome == "ok" else inf, outcome)


def read(at: float, key: str, value: Value, outcome: Outcome = "ok") -> Operation:
    return Operation("read", key, value, "n2", "r", at, at + 1, outcome)


def faults(operations: list[Operation], n1: dict[str, Value], n2: dict[str, Value] | None = None) -> list[str]:
    """Return what a history is accused of, where the two nodes have these values in the end, or both the first."""
    history = History()
    history.operations = operations
    told = history.faults({"n1": n1, "n2": n1 if n2 is None else n2})
    return [kind for fault in told for kind in KINDS if kind in fault]


@pytest.mark.parametrize(
    ("operations", "final"),
    [
        ([write(0, "a", "1")], "1"),
        ([write(0, "a", "1"), write(2, "a", "2"), read(4, "a", "2")], "2"),
        ([write(0, "a", "1", "unknown")], None),
        ([write(0, "a", "1", "unknown"), read(2, "a", None)], "1"),
        ([write(0, "a", "1", "failed")], None),
        ([write(0, "a", "1"), read(2, "a", None, "failed")], "1"),
    ],
)
def test_a_store_that_keeps_its_promises_is_accused_of_nothing(operations: list[Operation], final: Value) -> None:
    assert faults(operations, {"a": final}) == []


@pytest.mark.parametrize(
    ("operations", "final", "accusations"),
    [
        ([write(0, "a", "1")], None, ["acknowledged and lost"]),
        ([write(0, "a", "1", "failed")], "1", ["which nobody wrote"] * 2),
        ([write(0, "a", "1"), read(2, "a", "x")], "1", ["a value that nobody wrote"]),
        ([write(0, "a", "1"), write(2, "a", "2")], "1", ["not linearizable"]),
        ([write(0, "a", "1"), read(2, "a", None)], "1", ["not linearizable"]),
    ],
)
def test_a_broken_promise_is_told(operations: list[Operation], final: Value, accusations: list[str]) -> None:
    assert faults(operations, {"a": final}) == accusations


def test_nodes_that_differ_in_the_end_are_told() -> None:
    operations = [write(0, "a", "1", "unknown"), write(0, "b", "2")]
    assert faults(operations, {"a": "1", "b": "2"}, {"a": None, "b": "2"}) == ["nodes differ"]


def test_each_key_is_a_register_of_its_own() -> None:
    operations = [write(0, "a", "1"), write(2, "b", "2"), read(4, "a", "1"), read(6, "b", "2")]
    history = History()
    history.operations = operations
    assert (history.keys(), history.faults({"n1": {"a": "1", "b": "2"}})) == (["a", "b"], [])
