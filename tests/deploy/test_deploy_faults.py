"""Faults of the network as values: cuts, losses, and the rules of each node."""

from __future__ import annotations

import pytest

from deploy.engine import UsageError
from deploy.faults import describe, drops_of, flaky, isolate, partition, read_groups

IDS = ["n1", "n2", "n3"]
ADDRESSES = {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3"}


def both(one: str, other: str, loss: float = 1.0) -> dict[tuple[str, str], float]:
    return {(one, other): loss, (other, one): loss}


def test_groups_are_separated_by_slashes() -> None:
    assert read_groups("n1, n2/n3", IDS) == [["n1", "n2"], ["n3"]]


@pytest.mark.parametrize("text", ["n1", "n1,n2,n3", "n1/n1", "n1/", "", "/", "n1/n9"])
def test_an_invalid_partition_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_groups(text, IDS)


def test_a_partition_cuts_between_groups_in_both_directions() -> None:
    assert partition({}, [["n1", "n2"], ["n3"]]) == both("n1", "n3") | both("n2", "n3")


def test_a_partition_replaces_cuts_but_not_losses() -> None:
    before = both("n1", "n2") | {("n1", "n3"): 0.3}

    assert partition(before, [["n1", "n2"], ["n3"]]) == both("n1", "n3") | both("n2", "n3")
    assert partition(before, [["n1"], ["n2"]]) == both("n1", "n2") | {("n1", "n3"): 0.3}


def test_an_isolated_node_receives_nothing_sends_nothing_or_both() -> None:
    incoming = {("n2", "n1"): 1.0, ("n3", "n1"): 1.0}
    outgoing = {("n1", "n2"): 1.0, ("n1", "n3"): 1.0}

    assert isolate({}, "n1", IDS, "in") == incoming
    assert isolate({}, "n1", IDS, "out") == outgoing
    assert isolate({}, "n1", IDS) == incoming | outgoing
    assert isolate(both("n2", "n3"), "n1", IDS, "in") == incoming | both("n2", "n3")


def test_a_loss_is_between_a_node_and_all_others_until_it_is_set_to_zero() -> None:
    lossy = flaky({}, "n1", IDS, 0.3)

    assert lossy == both("n1", "n2", 0.3) | both("n1", "n3", 0.3)
    assert flaky(lossy, "n2", IDS, 0.0) == both("n1", "n3", 0.3)


def test_a_cut_stays_when_a_loss_is_added() -> None:
    cut = both("n1", "n2") | {("n3", "n1"): 1.0}

    assert flaky(cut, "n1", IDS, 0.3) == cut | {("n1", "n3"): 0.3}
    assert flaky(flaky(cut, "n1", IDS, 0.3), "n1", IDS, 0.0) == cut


def test_a_cut_is_enforced_at_both_ends() -> None:
    """So it holds while one of them restarts."""
    losses = {("n1", "n2"): 1.0}

    assert {node: drops_of(node, losses, ADDRESSES) for node in IDS} == {
        "n1": [("10.0.0.2", "out", 1.0)],
        "n2": [("10.0.0.1", "in", 1.0)],
        "n3": [],
    }


def test_a_loss_is_enforced_where_the_packets_arrive() -> None:
    losses = both("n1", "n2", 0.3)

    assert {node: drops_of(node, losses, ADDRESSES) for node in IDS} == {
        "n1": [("10.0.0.2", "in", 0.3)],
        "n2": [("10.0.0.1", "in", 0.3)],
        "n3": [],
    }


def test_a_node_without_an_address_needs_no_rule() -> None:
    assert drops_of("n1", both("n1", "n2"), {"n1": "10.0.0.1"}) == []


def test_faults_are_described_node_by_node() -> None:
    losses = {**both("n1", "n2"), ("n3", "n1"): 1.0, ("n3", "n2"): 0.3}

    assert {node: describe(node, losses) for node in [*IDS, "n4"]} == {
        "n1": "receives nothing from n2, n3; cannot reach n2",
        "n2": "is cut off from n1; loses 30% of the packets from n3",
        "n3": "cannot reach n1",
        "n4": "",
    }
    assert describe("n1", both("n1", "n2", 0.3) | both("n1", "n3", 0.3)) == "loses 30% of the packets from n2, n3"
    assert describe("n1", {("n2", "n1"): 0.3, ("n3", "n1"): 0.005}) == (
        "loses 0.5% of the packets from n3; loses 30% of the packets from n2"
    )
