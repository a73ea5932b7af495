"""The check for linearizability, on histories whose verdict is known, and against the definition itself."""

from __future__ import annotations

import itertools
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.linearizability import Call, Value, linearize


def write(invoked: float, returned: float, value: Value) -> Call:
    return Call(invoked, returned, "write", value)


def read(invoked: float, returned: float, value: Value) -> Call:
    return Call(invoked, returned, "read", value)


GOOD = {
    "nothing at all": [],
    "what is not there reads as None": [read(0, 1, None)],
    "a read after a write sees it": [write(0, 1, "a"), read(2, 3, "a")],
    "a read during a write may see it": [write(0, 3, "a"), read(1, 2, "a")],
    "a read during a write may not see it yet": [write(0, 3, "a"), read(1, 2, None)],
    "of two writes at once either may be last": [write(0, 3, "a"), write(1, 2, "b"), read(4, 5, "a")],
    "the later beginning may come first": [write(0, 3, "a"), write(1, 4, "b"), read(2, 5, "a"), read(6, 7, "a")],
    "an unknown write may have been done": [write(0, inf, "a"), read(1, 2, "a")],
    "an unknown write may not have been done": [write(0, inf, "a"), read(1, 2, None)],
    "an unknown write may be done late": [
        *(write(0, inf, "a"), write(1, 2, "b"), read(3, 4, "b"), read(5, 6, "a"), read(7, 8, "a")),
    ],
    "a deletion is a write of None": [write(0, 1, "a"), write(2, 3, None), read(4, 5, None)],
    "an unknown deletion may be done late": [
        *(write(0, 1, "a"), write(2, inf, None), read(3, 4, "a"), read(5, 6, None), write(7, 8, "b"), read(9, 10, "b")),
    ],
    "events of one moment overlap": [write(0, 1, "a"), read(1, 2, None)],
}
BAD = {
    "a value that nobody wrote": [write(0, 1, "a"), read(2, 3, "b")],
    "a write that was acknowledged and is lost": [write(0, 1, "a"), read(2, 3, None)],
    "a stale read": [write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "a")],
    "a read that goes back behind another": [write(0, inf, "a"), read(1, 2, "a"), read(3, 4, None)],
    "two readers who saw two orders": [
        *(write(0, 9, "a"), write(0, 9, "b"), read(1, 2, "a"), read(3, 4, "b"), read(5, 6, "a")),
    ],
    "a read from the future": [read(0, 1, "a"), write(2, 3, "a")],
    "a read from the future of an unknown write": [read(0, 1, "a"), write(2, inf, "a")],
    "an unknown write done twice": [
        *(write(0, inf, "a"), read(1, 2, "a"), write(3, 4, "b"), read(5, 6, "b"), read(7, 8, "a")),
    ],
    "a stale read at a leader of the past": [
        *(write(0, 1, "a"), write(2, 8, "b"), read(3, 4, "b"), read(5, 6, "a")),
    ],
}


@pytest.mark.parametrize("calls", GOOD.values(), ids=GOOD.keys())
def test_what_could_have_happened_one_after_the_other_is_linearizable(calls: list[Call]) -> None:
    assert linearize(calls).unexplained == ()


@pytest.mark.parametrize("calls", BAD.values(), ids=BAD.keys())
def test_what_could_not_have_happened_one_after_the_other_is_not(calls: list[Call]) -> None:
    assert not linearize(calls).linearizable


def test_says_which_order_explains_the_calls() -> None:
    a, b, seen = write(0, 3, "a"), write(1, 2, "b"), read(4, 5, "a")
    assert linearize([a, b, seen]).order == (b, a, seen)


def test_says_what_cannot_be_explained() -> None:
    a, b, stale, later = write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "a"), read(6, 7, "a")
    assert linearize([a, b, stale, later]) == ((a, b), (stale, later))


# --- Against the definition: some order of the calls, without some of the unknown ones, that a register could follow.


def obeys(order: tuple[Call, ...]) -> bool:
    """Return whether no call comes after one that began only after its end, and every read sees the last write."""
    state: Value = None
    for place, call in enumerate(order):
        if any(later.returned < call.invoked for later in order[place:]):
            return False
        if call.action == "write":
            state = call.value
        elif call.value != state:
            return False
    return True


def some_order_obeys(calls: list[Call]) -> bool:
    known = [call for call in calls if call.returned < inf]
    unknown = [call for call in calls if call.returned == inf]
    return any(
        obeys(order)
        for count in range(len(unknown) + 1)
        for chosen in itertools.combinations(unknown, count)
        for order in itertools.permutations([*known, *chosen])
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Call]:
    moments = st.integers(0, 7)
    calls = []
    for _ in range(draw(st.integers(1, 5))):
        first, second = sorted((draw(moments), draw(moments)))
        value = draw(st.sampled_from([None, "a", "b", "c"]))
        if draw(st.booleans()):
            calls.append(read(first, second, value))
        else:
            calls.append(write(first, draw(st.sampled_from([float(second), inf])), value))
    return calls


@given(histories())
def test_the_verdict_is_that_of_trying_every_order(calls: list[Call]) -> None:
    assert linearize(calls).linearizable == some_order_obeys(calls)


# --- Histories as long as those of the tests that use this.


def history_of_a_register(rng: Random, clients: int, calls: int) -> list[Call]:
    """Return what clients see of a register that does everything at one moment; some never get an answer."""
    history: list[Call] = []
    now = [0.0] * clients
    effects: list[tuple[float, int]] = []
    for number in range(calls):
        client = rng.randrange(clients)
        invoked = now[client] + rng.expovariate(1)
        effect = invoked + rng.expovariate(1)
        returned = now[client] = effect + rng.expovariate(1)
        action = rng.choice(["read", "write"])
        unknown = action == "write" and rng.random() < 0.1
        if unknown and rng.random() < 0.5:
            effect = inf
        history.append((write if action == "write" else read)(invoked, inf if unknown else returned, f"v{number}"))
        effects.append((effect, number))
    state: Value = None
    for effect, number in sorted(effects):
        call = history[number]
        if call.action == "read":
            history[number] = call._replace(value=state)
        elif effect < inf:
            state = call.value
    return history


@pytest.mark.parametrize("seed", range(5))
def test_a_long_history_of_a_register_is_linearizable(seed: int) -> None:
    verdict = linearize(history_of_a_register(Random(seed), clients=12, calls=1500))
    assert verdict.unexplained == ()


@pytest.mark.parametrize("seed", range(5))
def test_one_stale_read_in_a_long_history_is_found(seed: int) -> None:
    rng = Random(seed)
    history = history_of_a_register(rng, clients=12, calls=1500)
    stale = rng.choice([number for number, call in enumerate(history) if call.action == "read" and call.invoked > 100])
    # A value that had been overwritten, and read as such, before this read began.
    before = [call for call in history if call.action == "read" and call.returned < history[stale].invoked]
    history[stale] = history[stale]._replace(value=min(before, key=lambda call: call.returned).value)

    verdict = linearize(history)

    assert history[stale] in verdict.unexplained


def test_many_reads_at_once_cost_no_more_than_as_many_in_a_row() -> None:
    """Each subset of them could have gone before the write that they did not see: too many to try."""
    values = [f"v{number}" for number in range(5)]
    writes = [write(2 * number, 2 * number + 3, value) for number, value in enumerate(values)]
    reads = [read(0, 20, value) for value in values for _ in range(50)]

    assert linearize([*writes, *reads]).unexplained == ()
    assert linearize([*writes, *reads, read(21, 22, "v0")]).unexplained == (read(21, 22, "v0"),)
