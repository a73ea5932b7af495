"""The check for linearizability, on histories whose verdict is known, and against the definition itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.simulation.checks.linearizability import SOMETHING, Call, Judgement, Not, Seen, Value, Verdict, linearize

A, B, C = b"a", b"b", b"c"


def write(invoked: float, returned: float, value: Value, key: str = "k") -> Call:
    return Call(invoked, returned, leaves=((key, value),))


def read(invoked: float, returned: float, value: Value, key: str = "k") -> Call:
    return Call(invoked, returned, sees=((key, value),))


def remove(invoked: float, returned: float) -> Call:
    """A deletion that reported an existing key."""
    return Call(invoked, returned, sees=(("k", SOMETHING),), leaves=(("k", None),))


def swap(invoked: float, returned: float, old: Seen, new: Value, key: str = "k") -> Call:
    """A write on a condition that held, or, where it never ended, one that is done only if that holds."""
    return Call(invoked, returned, sees=((key, old),), leaves=((key, new),))


def missed(invoked: float, returned: float, value: Value) -> Call:
    """A write whose condition, that the key has this value, did not hold."""
    return Call(invoked, returned, sees=(("k", Not(value)),))


def ways(*calls: Call) -> list[Call]:
    """One request that went in one of these ways, or was never done."""
    return [call._replace(request="one") for call in calls]


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
    "a write on a condition finds what was written last": [
        *(write(0, 1, A), swap(2, 3, A, B), missed(4, 5, A), swap(6, 7, B, C), read(8, 9, C)),
    ],
    "of two writes on one condition either may come first, and the other misses it": [
        *(write(0, 1, A), missed(2, 9, A), swap(3, 8, A, B), read(10, 11, B)),
    ],
    "what is missed may be nothing": [missed(0, 1, A), write(2, 3, A), write(4, 5, None), missed(6, 7, A)],
    "what is missed may be missing only for a moment": [
        *(write(0, 1, A), write(2, 9, B), missed(3, 4, A), write(5, 6, A), read(10, 11, A)),
    ],
    "an unknown write on a condition may have been done": [write(0, 1, A), swap(2, inf, A, B), read(3, 4, B)],
    "an unknown write on a condition may not have been done": [write(0, 1, A), swap(2, inf, A, B), read(3, 4, A)],
    "an unknown write on a condition may be done late, when it holds again": [
        *(write(0, 1, A), swap(2, inf, A, C), write(3, 4, B), read(5, 6, B), write(7, 8, A), read(9, 10, C)),
    ],
    "unknown writes may each be the condition of the next": [
        *(swap(0, inf, None, A), swap(0, inf, A, B), swap(0, inf, B, C), read(1, 2, C)),
    ],
    "an unknown deletion of whatever is there": [
        *(write(0, inf, A), swap(0, inf, SOMETHING, None), read(1, 2, A), read(3, 4, None)),
    ],
    "an unknown write on a condition is there for a moment, and a call misses it": [
        *(write(0, 1, A), swap(2, inf, A, B), missed(3, 4, A), swap(5, 6, B, A)),
    ],
    "what an unknown write needed may be gone before anybody notices it": [
        *(write(0, 1, A, "x"), Call(2, inf, (("x", A),), (("y", B),)), Call(2, inf, (("x", B),), (("y", B),))),
        *(write(2, 3, C, "x"), read(4, 5, B, "y")),
    ],
    "an unknown write is needed after what would have undone it": [
        *(swap(0, inf, None, C), read(1, 5, None), swap(2, 5, Not(B), None), read(6, 7, B)),
        Call(2, 2, (("k", SOMETHING), ("k", Not(B))), (("k", B),)),
    ],
    "half of one of two unknown writes may be seen after the other half was overwritten": [
        *(write_both(0, inf, A, A), write_both(0, inf, A, A), write(1, 4, B, "x"), read_both(5, 6, B, A)),
    ],
    "an unknown request that went in another way leaves room for one that does the same": [
        *ways(write(0, inf, A, "x"), write(0, inf, B, "y")),
        *(write(1, inf, B, "y"), read_both(2, 3, A, B)),
    ],
    "an unknown request goes in one of its ways": [
        *(write_both(0, 1, A, A), read_both(4, 5, B, C)),
        *ways(
            Call(2, inf, (("x", A),), (("x", B), ("y", C))),
            Call(2, inf, (("x", Not(A)),), (("y", C),)),
        ),
    ],
    "an unknown request goes in the other of its ways": [
        *(write_both(0, 1, A, A), write(0, 1, C, "x"), read_both(4, 5, C, C)),
        *ways(
            Call(2, inf, (("x", A),), (("x", B), ("y", C))),
            Call(2, inf, (("x", Not(A)),), (("y", C),)),
        ),
    ],
}
BAD = {
    "a value that no call wrote": [write(0, 1, A), read(2, 3, B)],
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
    "a write on a condition that held no more": [write(0, 1, A), write(2, 3, B), swap(4, 5, A, C)],
    "a write on a condition that never held": [write(0, 1, A), swap(2, 3, B, C), write(4, 5, B)],
    "two writes on the same condition": [write(0, 1, A), swap(2, 9, A, B), swap(2, 9, A, C)],
    "two creations": [swap(0, 9, None, A), swap(0, 9, None, B)],
    "a condition that is missed though it holds": [write(0, 1, A), missed(2, 3, A)],
    "nothing and something are missed": [write(0, 1, A), Call(2, 3, sees=(("k", Not(None)), ("k", Not(A))))],
    "an unknown write on a condition that held no more": [
        *(write(0, 1, A), write(2, 3, B), swap(4, inf, A, C), read(5, 6, C)),
    ],
    "an unknown write on a condition that was done twice": [
        *(write(0, 1, A), swap(2, inf, A, B), swap(3, 4, B, A), read(5, 6, A), swap(7, 8, B, C)),
    ],
    "of two unknown writes on the same condition both are seen": [
        *(write(0, 1, A), swap(2, inf, A, B), swap(2, inf, A, C), read(3, 4, B), read(5, 6, C)),
    ],
    "a chain of unknown writes with a link that is missing": [
        *(swap(0, inf, None, A), swap(0, inf, B, C), read(1, 2, C)),
    ],
    "an unknown write on a condition, seen before that held": [
        *(swap(0, inf, A, B), read(1, 2, B), write(3, 4, A)),
    ],
    "an unknown request goes in both of its ways": [
        *(write_both(0, 1, A, A), read_both(4, 5, A, C), read_both(6, 7, B, C)),
        *ways(
            Call(2, inf, (("x", A),), (("x", B), ("y", C))),
            Call(2, inf, (("x", Not(A)),), (("y", C),)),
        ),
    ],
    "an unknown request goes in both of its ways, with different keys": [
        *ways(write(0, inf, A, "x"), write(0, inf, B, "y")),
        *(read(1, 2, A, "x"), read(1, 2, B, "y")),
    ],
    "an unknown request goes in a way that was closed": [
        *(write_both(0, 1, A, A), read_both(4, 5, A, C)),
        *ways(
            Call(2, inf, (("x", A),), (("x", B), ("y", C))),
            Call(2, inf, (("x", Not(A)),), (("y", C),)),
        ),
    ],
}


def outcomes(calls: Iterable[Call]) -> set[Judgement]:
    return {verdict.judgement for verdict in linearize(calls)}


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


def test_names_the_end_after_which_no_order_is_left() -> None:
    """Of the two readers the one who ended last: before that, all was well."""
    a, b = write(0, 9, A), write(0, 9, B)
    first, second, third = read(10, 11, A), read(12, 14, B), read(12, 13, A)
    (verdict,) = linearize([a, b, first, second, third])
    assert verdict.unexplained == (second,)
    assert set(verdict.order) == {a, b, first, third}


def test_an_unknown_write_keeps_its_condition_while_the_culprit_is_looked_for() -> None:
    """Without the condition, the value could have been there in time, and a later read would be to blame."""
    a, b, unknown = write(0, 1, A), write(2, 3, B), swap(4, inf, A, C)
    seen, later = read(5, 6, C), read(7, 8, B)
    (verdict,) = linearize([a, b, unknown, seen, later])
    assert verdict[:4] == (("k",), "not linearizable", (a, b), (seen,))


def test_keys_that_no_call_connects_are_stores_of_their_own() -> None:
    calls = [
        *(write(0, 1, A, "p"), write_both(0, 1, A, A), read(2, 3, B, "p"), write(2, 3, B, "x")),
        Call(0, 1, sees=(("y", A), ("z", None))),
    ]
    assert [(verdict.keys, verdict.judgement) for verdict in linearize(calls)] == [
        (("p",), "not linearizable"),
        (("x", "y", "z"), "linearizable"),
    ]


def test_an_unnoticed_call_connects_no_keys() -> None:
    calls = [write_both(0, inf, A, A), write(1, 2, B, "x"), write(1, 2, B, "y")]
    assert [verdict.keys for verdict in linearize(calls)] == [("x",), ("y",)]


# --- Against the definition: some order of the calls, without some of the unknown ones, that a store could follow.


def obeys(order: tuple[Call, ...]) -> bool:
    """Return whether no call comes after one that began only after its end, and each sees what the others left."""
    state: dict[str, Value] = {}
    for place, call in enumerate(order):
        if any(later.returned < call.invoked for later in order[place:]):
            return False
        for key, seen in call.sees:
            held = state.get(key)
            if (held == seen.value) if isinstance(seen, Not) else (held != seen):
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
        if each_request_goes_one_way(chosen)
        for order in itertools.permutations([*known, *chosen])
    )


def each_request_goes_one_way(calls: Iterable[Call]) -> bool:
    requests = [call.request for call in calls if call.request]
    return len(requests) == len(set(requests))


VALUES: list[Value] = [None, A, B, C]
SEEN: list[Seen] = [*VALUES, SOMETHING, Not(A), Not(B)]
ACTIONS = ("read", "write", "unknown", "remove", "exchange", "missed", "unknown exchange", "unknown ways")


def calls_of(random: Random, action: str, keys: tuple[str, ...], request: str) -> list[Call]:
    """Return what one request may be: a call, or the ways in which it may have gone."""
    first, second = sorted((random.randrange(8), random.randrange(8)))
    touched = sorted(random.sample(keys, min(len(keys), random.randint(1, 2))))
    facts = tuple((key, random.choice(VALUES)) for key in touched)
    condition = tuple((key, random.choice(SEEN)) for key in random.choices(keys, k=random.choice([1, 1, 2])))
    if action == "read":
        return [Call(first, second, sees=facts)]
    if action == "write":
        return [Call(first, second, leaves=facts)]
    if action == "unknown":
        return [Call(first, inf, leaves=facts)]
    if action == "remove":
        return [Call(first, second, ((touched[0], SOMETHING),), tuple((key, None) for key in touched))]
    if action == "exchange":
        return [Call(first, second, condition, facts)]
    if action == "missed":
        return [Call(first, second, condition)]
    if action == "unknown exchange":
        return [Call(first, inf, condition, facts)]
    other = ((random.choice(keys), random.choice(VALUES)),)
    return [
        Call(first, inf, condition, facts, request=request),
        Call(first, inf, random.choice([(), condition, ((keys[0], Not(A)),)]), other, request=request),
    ]


def random_history(random: Random, keys: tuple[str, ...], most: int) -> list[Call]:
    """Return few calls, at few moments and with few values, so that much of it could and could not be."""
    actions = random.sample(ACTIONS, random.randint(2, len(ACTIONS)))
    calls: list[Call] = []
    for number in range(random.randint(1, most)):
        calls += calls_of(random, random.choice(actions), keys, f"request {number}")
    return calls[:most]


@given(st.randoms(use_true_random=False), st.sampled_from([("k",), ("x", "y"), ("x", "y", "z")]))
def test_the_verdict_is_that_of_trying_every_order(random: Random, keys: tuple[str, ...]) -> None:
    calls = random_history(random, keys, 5)
    assert (outcomes(calls) <= {"linearizable"}) == some_order_obeys(calls)


@pytest.mark.parametrize("keys", [("k",), ("x", "y"), ("x", "y", "z")], ids=len)
def test_the_verdicts_on_thousands_of_small_histories_are_those_of_trying_every_order(keys: tuple[str, ...]) -> None:
    found = {True: 0, False: 0}
    for seed in range(2000):
        calls = random_history(Random(f"history {seed} of {keys}"), keys, 5)
        fine = some_order_obeys(calls)
        assert (outcomes(calls) <= {"linearizable"}) == fine, f"seed {seed} of {keys}: {calls}"
        found[fine] += 1
    # Neither kind is rare, or the test would say little.
    assert min(found.values()) > 400


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
    assert verdict.judgement == "linearizable"
    assert verdict.configurations < 1000
    (verdict,) = linearize([*puts, *deletions, *known, remove(1000, 1001)])
    assert (verdict.judgement, verdict.unexplained) == ("not linearizable", (remove(1000, 1001),))
    assert verdict.configurations < 1000


def test_many_unknown_writes_on_conditions_cost_no_more_than_a_few() -> None:
    """Creations and deletions of which any may follow any other: those that come to the same need not all be tried."""
    values = [b"v%d" % number for number in range(12)]
    creations = [swap(number, inf, None, value) for number, value in enumerate(values)]
    deletions = [swap(number, inf, value, None) for number, value in enumerate(values)]
    others = [swap(0, inf, SOMETHING, None), swap(0, inf, None, b"other"), swap(0, inf, SOMETHING, b"another")]
    known = [remove(10 * number, 10 * number + 1) for number in range(1, 9)]

    (verdict,) = linearize([*creations, *deletions, *others, *known])
    assert verdict.judgement == "linearizable"
    assert verdict.configurations < 1000
    (verdict,) = linearize([*creations, *known, remove(1000, 1001)])
    assert verdict.judgement == "linearizable"
    (verdict,) = linearize([*creations, *known, *[remove(1000 + number, 1000 + number) for number in range(5)]])
    assert verdict.judgement == "not linearizable"
    assert verdict.configurations < 1000


def test_a_hint_changes_how_soon_there_is_a_verdict_and_not_which() -> None:
    """All at once, read in an order that a search would not try first."""
    values = [b"v%d" % number for number in range(8)]
    writes = [write(0, 100, value)._replace(hint=-number) for number, value in enumerate(values)]
    reads = [read(100 - 2 * number, 101 - 2 * number, value) for number, value in enumerate(values)]

    (hinted,) = linearize([*writes, *reads])
    (plain,) = linearize([call._replace(hint=inf) for call in [*writes, *reads]])
    assert (hinted.judgement, plain.judgement) == ("linearizable", "linearizable")
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
