"""Majorities of one to nine voters, alone and joint, beside their definition: more than half, of each set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.raft.configuration import Configuration, Member, majority

NAMES = [f"n{number}" for number in range(1, 10)]
SIZES = range(1, 10)


def configuration(voters: frozenset[str], outgoing: frozenset[str] = frozenset(), learners: int = 0) -> Configuration:
    """Return a configuration with these voters and so many members that do not vote."""
    names = [*sorted(voters | outgoing), *(f"learner{i}" for i in range(learners))]
    return Configuration(tuple(Member(name, f"{name}:1", "1") for name in names), voters, outgoing)


def subsets(names: frozenset[str]) -> Iterator[frozenset[str]]:
    """Give every subset."""
    ordered = sorted(names)
    for count in range(len(ordered) + 1):
        yield from map(frozenset, itertools.combinations(ordered, count))


def is_quorum(config: Configuration, agreeing: frozenset[str]) -> bool:
    """Whether it is one by definition, without a division."""
    return all(
        2 * len(agreeing & voters) > len(voters) for voters in (config.voters, config.outgoing) if voters
    ) and bool(config.voters)


def joints(most: int) -> Iterator[Configuration]:
    """Give configurations in all sizes and overlaps of old and new voters, of at most so many in all."""
    for new, old, common in itertools.product(range(1, most + 1), range(most + 1), range(most + 1)):
        if common <= min(new, old) and new + old - common <= most:
            yield configuration(frozenset(NAMES[:new]), frozenset(NAMES[new - common : new - common + old]))


@pytest.mark.parametrize("size", SIZES)
def test_a_majority_is_the_fewest_of_whom_no_two_groups_are_strangers(size: int) -> None:
    """3.6.3: any two share a member; with one fewer, two groups can decide against each other."""
    needed = majority(size)
    assert 2 * needed > size
    assert 2 * (needed - 1) <= size


def test_has_quorum_is_the_definition_for_every_subset_of_every_configuration() -> None:
    """4.3: joint, a majority of the old and one of the new; whoever is in both counts in both."""
    seen = 0
    for config in joints(9):
        for agreeing in subsets(config.all_voters):
            seen += 1
            assert config.has_quorum(agreeing) == is_quorum(config, agreeing), (config, agreeing)
    assert seen > 30_000


def test_whoever_has_no_vote_does_not_count() -> None:
    """Learners and strangers, however many of them agree."""
    for size in SIZES:
        config = configuration(frozenset(NAMES[:size]), learners=9)
        others = {f"learner{i}" for i in range(9)} | {"stranger"}
        few = set(NAMES[: majority(size) - 1])
        assert not config.has_quorum(others | few)
        assert config.has_quorum(others | few | {NAMES[size - 1]})


def test_a_quorum_of_a_joint_configuration_meets_every_one_before_and_after() -> None:
    """So no two leaders and no two commits on the way from one to the other."""
    for config in joints(6):
        quorums = [agreeing for agreeing in subsets(config.all_voters) if config.has_quorum(agreeing)]
        for voters in filter(None, (config.voters, config.outgoing)):
            alone = configuration(voters)
            for other in subsets(voters):
                if alone.has_quorum(other):
                    assert all(other & quorum for quorum in quorums), (config, other)


def reached_by_a_quorum(config: Configuration, values: dict[str, int]) -> int:
    """Return the highest value that a quorum has reached, by trying them all."""
    return max(
        value
        for value in {0, *values.values()}
        if is_quorum(config, frozenset(name for name, own in values.items() if own >= value))
    )


@pytest.mark.parametrize("size", range(1, 6))
def test_the_commit_index_of_all_match_indexes_is_the_definition(size: int) -> None:
    """3.5: the highest index that is stored on a majority, whatever the order in which they are asked."""
    config = configuration(frozenset(NAMES[:size]))
    for indexes in itertools.product(range(4), repeat=size):
        values = dict(zip(NAMES, indexes, strict=False))
        assert config.quorum_value(values) == reached_by_a_quorum(config, values), values


@given(
    voters=st.frozensets(st.sampled_from(NAMES), min_size=1),
    outgoing=st.frozensets(st.sampled_from(NAMES)),
    indexes=st.lists(st.integers(0, 5) | st.integers(0, 2**63), min_size=9, max_size=9),
    learners=st.integers(0, 3),
)
def test_the_commit_index_of_any_match_indexes_is_the_definition(
    voters: frozenset[str], outgoing: frozenset[str], indexes: list[int], learners: int
) -> None:
    """Of one to nine voters, alone or joint, with the index that nobody has reached but a learner left out."""
    config = configuration(voters, outgoing, learners)
    values = {name: index for name, index in zip(NAMES, indexes, strict=True) if name in config.all_voters}
    told = values | {f"learner{i}": 2**63 for i in range(learners)}
    expected = reached_by_a_quorum(config, values)
    assert config.quorum_value(told) == config.quorum_value(told.__getitem__) == expected


@given(
    voters=st.frozensets(st.sampled_from(NAMES), min_size=1),
    outgoing=st.frozensets(st.sampled_from(NAMES)),
    data=st.data(),
)
def test_the_commit_index_never_falls_when_a_match_index_rises(
    voters: frozenset[str], outgoing: frozenset[str], data: st.DataObject
) -> None:
    """And does not pass what was highest."""
    config = configuration(voters, outgoing)
    values = {name: data.draw(st.integers(0, 9)) for name in sorted(config.all_voters)}
    before = config.quorum_value(values)
    riser = data.draw(st.sampled_from(sorted(values)))
    values[riser] += data.draw(st.integers(1, 9))
    assert before <= config.quorum_value(values) <= max(values.values())
