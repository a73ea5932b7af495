"""Majorities, alone and joint, checked by trying all subsets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.raft.configuration import (
    Configuration,
    Member,
    cluster_id,
    decode_configuration,
    founding_configuration,
    majority,
)

NAMES = [f"n{number}" for number in range(1, 10)]


def configuration(voters: int, outgoing: tuple[str, ...] = ()) -> Configuration:
    """Return a configuration of the first so many voters, joint with others if there are any."""
    members = tuple(Member(name, f"{name}:5001", "1") for name in sorted({*NAMES[:voters], *outgoing}))
    return Configuration(members, frozenset(NAMES[:voters]), frozenset(outgoing))


@pytest.mark.parametrize("size", range(1, 10))
def test_two_majorities_of_the_same_voters_share_one(size: int) -> None:
    """3.6.3: that is all that safety needs of a majority; and one voter less would be none."""
    voters = NAMES[:size]
    config = configuration(size)
    quorums = [set(some) for some in itertools.combinations(voters, majority(size))]
    assert all(config.has_quorum(quorum) for quorum in quorums)
    assert all(one & other for one in quorums for other in quorums)
    assert not any(config.has_quorum(some) for some in itertools.combinations(voters, majority(size) - 1))


@pytest.mark.parametrize("size", range(1, 10))
@given(data=st.data())
def test_the_quorum_value_is_the_highest_that_a_quorum_has_reached(size: int, data: st.DataObject) -> None:
    """By definition, whatever the order of the values."""
    outgoing = data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5).map(tuple))
    config = configuration(size, outgoing)
    values = {voter: data.draw(st.integers(0, 9)) for voter in sorted(config.all_voters)}
    reached = config.quorum_value(values)
    assert config.has_quorum({voter for voter, value in values.items() if value >= reached})
    assert not config.has_quorum({voter for voter, value in values.items() if value > reached})
    assert config.quorum_value(values.__getitem__) == reached


def test_a_joint_configuration_needs_a_majority_of_each() -> None:
    """4.3."""
    joint = configuration(3, ("n4", "n5", "n6"))
    assert not joint.has_quorum({"n1", "n2", "n3", "n4"})
    assert not joint.has_quorum({"n1", "n4", "n5", "n6"})
    assert joint.has_quorum({"n1", "n2", "n4", "n5"})


def test_nobody_is_no_majority_of_nobody() -> None:
    assert not Configuration().has_quorum(set())


def test_everyone_makes_the_same_bytes_of_the_same_members() -> None:
    """Entry 1 is written by each node for itself, and the cluster's id is its hash."""
    members = [Member(name, f"{name}:5001", f"{name}-1") for name in NAMES[:3]]
    foundings = [founding_configuration(order) for order in itertools.permutations(members)]
    assert len({founding.encode() for founding in foundings}) == 1
    assert {decode_configuration(founding.encode()) for founding in foundings} == {foundings[0]}
    other = founding_configuration([*members[:2], Member("n3", "n3:5001", "n3-2")])
    assert cluster_id(other) != cluster_id(foundings[0])
