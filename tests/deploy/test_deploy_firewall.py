"""The rules that drop packets: the netlink messages are parsed back and compared."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pytest

from deploy.firewall import (
    ACKNOWLEDGE,
    BEGIN,
    DELETE_TABLE,
    END,
    NEW_CHAIN,
    NEW_RULE,
    NEW_TABLE,
    Drop,
    batch,
)

DROPPED = ("immediate", {1: b"\0\0\0\0", 2: {2: {1: b"\0\0\0\0"}}})


def read_attributes(data: bytes) -> dict[int, Any]:
    """Return attributes by number; nested attributes are parsed too, and a list of steps keeps its order."""
    found: dict[int, Any] = {}
    while data:
        length, number = struct.unpack_from("=HH", data)
        value = data[4:length]
        if number == 0x8004 and value[2:4] == struct.pack("=H", 0x8001):
            found[4] = read_steps(value)
        elif number & 0x8000:
            found[number & 0x7FFF] = read_attributes(value)
        else:
            found[number] = value
        data = data[(length + 3) & ~3 :]
    return found


def read_steps(data: bytes) -> list[Any]:
    steps = []
    while data:
        (length,) = struct.unpack_from("=H", data)
        step = read_attributes(data[4:length])
        steps.append((step[1].rstrip(b"\0").decode(), step[2]))
        data = data[length:]
    return steps


def read_batch(data: bytes) -> list[tuple[int, bool, dict[int, Any]]]:
    """Return type, whether an answer is requested, and attributes of each message."""
    messages = []
    while data:
        length, kind, flags = struct.unpack_from("=IHH", data)
        assert length % 4 == 0
        messages.append((kind, bool(flags & ACKNOWLEDGE), read_attributes(data[20:length])))
        data = data[length:]
    return messages


def rules(drops: list[Drop]) -> list[tuple[str, list[Any]]]:
    """Return the chain and the steps of each rule."""
    data, _ = batch(5001, drops)
    return [
        (attributes[2].rstrip(b"\0").decode(), attributes[4])
        for kind, _, attributes in read_batch(data)
        if kind == NEW_RULE
    ]


def compares(steps: list[Any]) -> list[tuple[int, int, bytes]]:
    """Return (header, offset, value) for each comparison with a part of the packet."""
    found = []
    for (name, load), (after, compared) in pairwise(steps):
        if name == "payload":
            assert after == "cmp"
            header, offset = (struct.unpack(">i", load[number])[0] for number in (2, 3))
            assert struct.unpack(">i", load[4])[0] == len(compared[3][1])
            found.append((header, offset, compared[3][1]))
    return found


def test_a_batch_deletes_all_earlier_rules_before_it_adds_new_ones() -> None:
    data, answers = batch(5001, [("10.0.0.2", "in", 1.0)])
    messages = read_batch(data)

    assert [kind for kind, _, _ in messages] == [
        *(BEGIN, NEW_TABLE, DELETE_TABLE, NEW_TABLE, NEW_CHAIN, NEW_CHAIN, NEW_RULE, NEW_RULE, END)
    ]
    assert sum(answered for _, answered, _ in messages) == answers == 7


@pytest.mark.parametrize(("direction", "coming", "going"), [("in", 2, 0), ("out", 0, 2)])
def test_both_directions_of_one_connection_are_dropped(direction: str, coming: int, going: int) -> None:
    """Incoming: from that source address; outgoing: to that destination; the port shows which side opened it."""
    address, port = bytes([10, 0, 0, 2]), struct.pack(">H", 5001)

    found = rules([("10.0.0.2", direction, 1.0)])

    assert [(chain, compares(steps), steps[-1]) for chain, steps in found] == [
        ("input", [(1, 12, address), (2, coming, port)], DROPPED),
        ("output", [(1, 16, address), (2, going, port)], DROPPED),
    ]


def test_a_loss_draws_a_random_number_for_each_packet() -> None:
    ((_, certain), _), ((_, by_chance), _) = (rules([("10.0.0.2", "in", loss)]) for loss in (1.0, 0.3))
    added = [step for step in by_chance if step not in certain]

    assert [name for name, _ in added] == ["numgen", "byteorder", "cmp"]
    # Less than 300,000 of a million.
    assert struct.unpack(">i", added[0][1][2]) == (1_000_000,)
    assert added[2][1][3][1] == struct.pack(">I", 300_000)


def test_without_drops_there_are_no_rules() -> None:
    assert rules([]) == []
