"""The check for linearizability, on histories whose verdict is known, and against the definition itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.simulation.linearizability import SOMETHING, Call, Outcome, Something, Value, Verdict, linearize

A, B, C = b"a", b"b", b"c"


def write(invoked: float, returned: float, value: Value, key: str = "k") -> Call:
    return Call(invoked, returned, leaves=((key, value),))


def read(invoked: float, returned: float, value: Value, key: str = "k") -> Call:
    return Call(invoked, returned, sees=((key, value),))


def remove(invoked: float, returned: float) -> Call:
    """A deletion that was told that there was something."""
    return Call(invoked, returned, sees=(("k", SOMETHING),), leaves=(("k", None),))


def write_both(invoked: float, returned: float, x: Value, y: Value) -> Call:
    return Call(invoked, returned, leaves=(("x", x), ("y", y)))


def read_both(invoked: float, returned: float, x: Value, y: Value) -> Call:
    return Call(invoked, returned, sees=(("x", x), ("y", y)))


GOOD = {
    "nothing at all": [],
    "what is not there reads as None": [read(0, 1, None)],
    "a read after a write sees it": [write(0, 1, A), read(2, 3, A)],
    "a read during a write may see it": [write(0, 3, A), read(1, 2, A)],
    "a read during a write may not see it yet": [write(0, 3, A), read(1, 2, None)],
    "of two writes at once either may be last": [write(0, 3, A), write(1, 2, B), read(4, 5, A)],
    "the later beginning may come first": [write(0, 3, A), write(1, 4, B), read(2, 5, A), read(6, 7, A)],
    "an unknown write may have been done": [write(0, inf, A), read(1, 2, A)],
    "an unknown write may not have been done": [write(0, inf, A), read(1, 2, None)],
    "an unknown write may be done late": [
        *(write(0, inf, A), write(1, 2, B), read(3, 4, B), read(5, 6, A), read(7, 8, A)),
    ],
    "a deletion is a write of None": [write(0, 1, A), write(2, 3, None), read(4, 5, None)],
    "an unknown deletion may be done late": [
        *(write(0, 1, A), write(2, inf, None), read(3, 4, A), read(5, 6, None), write(7, 8, B), read(9, 10, B)),
    ],
    "two unknown deletions may both be done": [
        *(write(0, 1, A), write(2, inf, None), write(2, inf, None), read(3, 4, None)),
        *(write(5, 6, B), read(7, 8, B), read(9, 10, None)),
    ],
    "a deletion during a write may find what it left": [write(0, 3, A), remove(1, 2), read(4, 5, None)],
    "an unknown write may be what a deletion found": [write(0, inf, A), remove(1, 2), read(3, 4, None)],
    "one value may be written twice": [write(0, 1, A), write(2, 3, B), write(4, 5, A), read(6, 7, A)],
    "events of one moment overlap": [write(0, 1, A), read(1, 2, None)],
    "keys are written one by one or together": [
        *(write_both(0, 1, A, A), write(2, 3, B, "x"), read_both(4, 5, B, A), read(4, 5, B, "x")),
    ],
    "two keys may be read before or after a write of both": [
        *(write_both(0, 9, A, A), read_both(1, 2, None, None), read_both(3, 4, A, A)),
    ],
    "of an unknown write of two keys one may be overwritten before it is seen": [
        *(write_both(0, inf, A, A), write(1, 2, B, "x"), read_both(3, 4, B, None), read_both(5, 6, A, A)),
    ],
    "half of an unknown write may be seen after the other half was overwritten": [
        *(write_both(0, inf, A, A), write(1, 4, B, "x"), read_both(5, 6, B, A)),
    ],
}
BAD = {
    "a value that nobody wrote": [write(0, 1, A), read(2, 3, B)],
    "a write that was acknowledged and is lost": [write(0, 1, A), read(2, 3, None)],
    "a stale read": [write(0, 1, A), write(2, 3, B), read(4, 5, A)],
    "a read that goes back behind another": [write(0, inf, A), read(1, 2, A), read(3, 4, None)],
    "two readers who saw two orders": [
        *(write(0, 9, A), write(0, 9, B), read(1, 2, A), read(3, 4, B), read(5, 6, A)),
    ],
    "two leaders, each with a write of its own": [
        *(write(0, 1, A), write(2, 5, B), write(2, 5, C), read(6, 9, B), read(6, 9, C), read(10, 11, B)),
        *(read(10, 11, C), read(12, 13, B)),
    ],
    "a read from the future": [read(0, 1, A), write(2, 3, A)],
    "a read from the future of an unknown write": [read(0, 1, A), write(2, inf, A)],
    "an unknown write done twice": [
        *(write(0, inf, A), read(1, 2, A), write(3, 4, B), read(5, 6, B), read(7, 8, A)),
    ],
    "an unknown write that shows and vanishes again": [
        *(write(0, 1, A), write(2, inf, B), read(3, 4, B), read(5, 6, A)),
    ],
    "a stale read at a leader of the past": [
        *(write(0, 1, A), write(2, 8, B), read(3, 4, B), read(5, 6, A)),
    ],
    "a deletion that is not": [write(0, 1, A), write(2, 3, None), read(4, 5, A)],
    "a deletion of what was not there": [write(0, 1, A), remove(2, 3), remove(4, 5)],
    "a deletion that was done twice": [
        *(write(0, 1, A), write(2, inf, None), read(3, 4, None), write(5, 6, B), read(7, 8, None)),
    ],
    "half of a write of two keys": [write_both(0, 1, A, A), write_both(2, 9, B, B), read_both(3, 4, B, A)],
    "half of an unknown write of two keys": [write_both(0, inf, A, A), read_both(1, 2, A, None)],
    "two keys in two orders": [
        *(write_both(0, 9, A, A), write_both(0, 9, B, B), read(10, 11, A, "x"), read(10, 11, B, "y")),
    ],
    "one read of two values": [Call(0, 1, sees=(("k", None), ("k", A))), write(0, 1, A)],
}


def outcomes(calls: Iterable[Call]) -> set[Outcome]:
    return {verdict.outcome for verdict in linearize(calls)}


@pytest.mark.parametrize("calls", GOOD.values(), ids=GOOD.keys())
def test_what_could_have_happened_one_after_the_other_is_linearizable(calls: list[Call]) -> None:
    assert outcomes(calls) <= {"linearizable"}
    assert some_order_obeys(calls)


@pytest.mark.parametrize("calls", BAD.values(), ids=BAD.keys())
def test_what_could_not_have_happened_one_after_the_other_is_not(calls: list[Call]) -> None:
    assert "not linearizable" in outcomes(calls)
    assert not some_order_obeys(calls)


def test_says_which_order_explains_the_calls() -> None:
    a, b, seen = write(0, 3, A), write(1, 2, B), read(4, 5, A)
    assert linearize([a, b, seen]) == [Verdict(("k",), "linearizable", (b, a, seen), (), configurations=3)]


def test_says_with_whose_end_it_could_not_be_explained_any_more_and_what_else_has_no_place() -> None:
    a, b, stale, well, later = write(0, 1, A), write(2, 3, B), read(4, 5, A), read(6, 7, B), read(8, 9, A)
    (verdict,) = linearize([a, b, stale, well, later])
    assert verdict[:4] == (("k",), "not linearizable", (a, b), (stale, later))


def test_says_with_whose_end_it_is_too_late_where_nobody_alone_is_wrong() -> None:
    """Of the two readers the one who ended last: before that, all was well."""
    a, b = write(0, 9, A), write(0, 9, B)
    first, second, third = read(10, 11, A), read(12, 14, B), read(12, 13, A)
    (verdict,) = linearize([a, b, first, second, third])
    assert verdict.unexplained == (second,)
    assert set(verdict.order) == {a, b, first, third}


def test_keys_that_no_call_connects_are_stores_of_their_own() -> None:
    calls = [
        *(write(0, 1, A, "p"), write_both(0, 1, A, A), read(2, 3, B, "p"), write(2, 3, B, "x")),
        Call(0, 1, sees=(("y", A), ("z", None))),
    ]
    assert [(verdict.keys, verdict.outcome) for verdict in linearize(calls)] == [
        (("p",), "not linearizable"),
        (("x", "y", "z"), "linearizable"),
    ]


def test_what_nobody_noticed_connects_no_keys() -> None:
    calls = [write_both(0, inf, A, A), write(1, 2, B, "x"), write(1, 2, B, "y")]
    assert [verdict.keys for verdict in linearize(calls)] == [("x",), ("y",)]


# --- Against the definition: some order of the calls, without some of the unknown ones, that a store could follow.


def obeys(order: tuple[Call, ...]) -> bool:
    """Return whether no call comes after one that began only after its end, and each sees what the others left."""
    state: dict[str, Value] = {}
    for place, call in enumerate(order):
        if any(later.returned < call.invoked for later in order[place:]):
            return False
        for key, value in call.sees:
            held = state.get(key)
            if (held is None) if isinstance(value, Something) else (held != value):
                return False
        state.update(call.leaves)
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


VALUES: st.SearchStrategy[Value] = st.sampled_from([None, A, B, C])


@st.composite
def histories(draw: st.DrawFn, keys: tuple[str, ...], most: int) -> list[Call]:
    moments = st.integers(0, 7)
    some_keys = st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True)
    calls = []
    for _ in range(draw(st.integers(1, most))):
        first, second = sorted((draw(moments), draw(moments)))
        touched = sorted(draw(some_keys))
        facts = tuple((key, draw(VALUES)) for key in touched)
        action = draw(st.sampled_from(["read", "write", "unknown", "remove", "exchange"]))
        if action == "read":
            calls.append(Call(first, second, sees=facts))
        elif action == "write":
            calls.append(Call(first, second, leaves=facts))
        elif action == "unknown":
            calls.append(Call(first, inf, leaves=facts))
        elif action == "remove":
            calls.append(Call(first, second, ((touched[0], SOMETHING),), tuple((key, None) for key in touched)))
        else:
            calls.append(Call(first, second, ((keys[0], draw(VALUES)),), facts))
    return calls


@given(histories(("k",), 5))
def test_the_verdict_on_one_key_is_that_of_trying_every_order(calls: list[Call]) -> None:
    assert (outcomes(calls) <= {"linearizable"}) == some_order_obeys(calls)


@given(histories(("x", "y", "z"), 6))
def test_the_verdict_on_several_keys_is_that_of_trying_every_order(calls: list[Call]) -> None:
    assert (outcomes(calls) <= {"linearizable"}) == some_order_obeys(calls)


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
        is_write = rng.random() < 0.5
        unknown = is_write and rng.random() < 0.1
        if unknown and rng.random() < 0.5:
            effect = inf
        value = b"v%d" % number
        history.append((write if is_write else read)(invoked, inf if unknown else returned, value))
        effects.append((effect, number))
    state: Value = None
    for effect, number in sorted(effects):
        call = history[number]
        if call.sees:
            history[number] = call._replace(sees=(("k", state),))
        elif effect < inf:
            ((_, state),) = call.leaves
    return history


@pytest.mark.parametrize("seed", range(5))
def test_a_long_history_of_a_register_is_linearizable(seed: int) -> None:
    assert outcomes(history_of_a_register(Random(seed), clients=12, calls=1500)) == {"linearizable"}


@pytest.mark.parametrize("seed", range(5))
def test_one_stale_read_in_a_long_history_is_found(seed: int) -> None:
    rng = Random(seed)
    history = history_of_a_register(rng, clients=12, calls=1500)
    stale = rng.choice([number for number, call in enumerate(history) if call.sees and call.invoked > 100])
    # A value that had been overwritten, and read as such, before this read began.
    before = [call for call in history if call.sees and call.returned < history[stale].invoked]
    history[stale] = history[stale]._replace(sees=min(before, key=lambda call: call.returned).sees)

    (verdict,) = linearize(history)

    assert verdict.unexplained == (history[stale],)


def test_many_reads_at_once_cost_no_more_than_as_many_in_a_row() -> None:
    """Each subset of them could have gone before the write that they did not see: too many to try."""
    values = [b"v%d" % number for number in range(5)]
    writes = [write(2 * number, 2 * number + 3, value) for number, value in enumerate(values)]
    reads = [read(0, 20, value) for value in values for _ in range(50)]

    assert outcomes([*writes, *reads]) == {"linearizable"}
    (verdict,) = linearize([*writes, *reads, read(21, 22, b"v0")])
    assert verdict.unexplained == (read(21, 22, b"v0"),)


def test_many_unknown_writes_cost_no_more_than_a_few() -> None:
    """Each may have been done or not, at any time: too many sets to try."""
    puts = [write(0, inf, b"v%d" % number) for number in range(40)]
    deletions = [write(0, inf, None) for _ in range(40)]
    known = [remove(10 * number, 10 * number + 1) for number in range(40)]

    (verdict,) = linearize([*puts, *deletions, *known])
    assert verdict.outcome == "linearizable"
    assert verdict.configurations < 1000
    (verdict,) = linearize([*puts, *deletions, *known, remove(1000, 1001)])
    assert (verdict.outcome, verdict.unexplained) == ("not linearizable", (remove(1000, 1001),))
    assert verdict.configurations < 1000


def test_a_hint_changes_how_soon_there_is_a_verdict_and_not_which() -> None:
    """All at once, read in an order that nobody would try first."""
    values = [b"v%d" % number for number in range(8)]
    writes = [write(0, 100, value)._replace(hint=-number) for number, value in enumerate(values)]
    reads = [read(100 - 2 * number, 101 - 2 * number, value) for number, value in enumerate(values)]

    (hinted,) = linearize([*writes, *reads])
    (plain,) = linearize([call._replace(hint=inf) for call in [*writes, *reads]])
    assert (hinted.outcome, plain.outcome) == ("linearizable", "linearizable")
    assert hinted.configurations <= plain.configurations
    backwards = [call._replace(hint=-call.hint) for call in [*writes, *reads, read(110, 111, values[3])]]
    assert outcomes(backwards) == {"not linearizable"}


# --- The limit: no search goes on for ever, and one that was ended proves nothing.


def test_a_search_that_comes_to_its_limit_is_undecided() -> None:
    """Twelve writes of two keys at once, and a read of two values that no one of them has left."""
    writes = [write_both(0, 100, b"%d" % (number % 6), b"%d" % (number % 4)) for number in range(12)]
    reads = [read_both(101, 102, b"0", b"1")]

    (verdict,) = linearize([*writes, *reads], limit=100)
    assert verdict[1:] == ("undecided", (), (), 100)
    assert outcomes([*writes, *reads]) == {"not linearizable"}
