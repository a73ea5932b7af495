"""In containers: acknowledged writes survive every fault of the nodes and of the network between them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.containers import MakeContainers
from tests.support.load import MakeLoad, check


def test_each_node_accepts_writes_and_all_nodes_show_them(containers: Any) -> None:
    ids = containers.ids
    for node_id in ids:
        containers.put(node_id, f"through {node_id}/", node_id)
    # Repeating it changes nothing.
    containers.up()

    assert ids == ["n1", "n2", "n3"]
    assert {(reader, writer): containers.get(reader, f"through {writer}/") for reader in ids for writer in ids} == {
        (reader, writer): writer for reader in ids for writer in ids
    }


@pytest.mark.parametrize(("strike", "bring_back"), [("stop", "start"), ("kill", "start"), ("pause", "unpause")])
def test_when_the_leader_is_gone_the_others_elect_one_and_it_comes_back_as_a_follower(
    containers: Any, make_load: MakeLoad, strike: str, bring_back: str
) -> None:
    load = make_load(containers)
    load.wait_for_writes(20)
    old, term = containers.leader_and_term()

    assert getattr(containers, strike)(old) == [old]
    # Repeating it changes nothing.
    assert getattr(containers, strike)(old) == []
    containers.leader(not_in=[old])
    load.wait_for_writes(20, *[node_id for node_id in containers.ids if node_id != old])
    assert getattr(containers, bring_back)(old) == [old]
    # It knows that its term is over; it may have been elected again since.
    containers.wait_for_leader(after_term=term)
    load.wait_for_writes(5, old)
    check(containers, load)


def test_nodes_can_be_restarted_one_after_the_other(containers: Any, make_load: MakeLoad) -> None:
    load = make_load(containers)
    for node_id in (containers.random_follower(), containers.leader()):
        load.wait_for_writes(10)
        assert containers.restart(node_id) == [node_id]
        load.wait_for_writes(5, node_id)
    check(containers, load)


def test_all_nodes_killed_at_once_come_back_with_everything(containers: Any, make_load: MakeLoad) -> None:
    load = make_load(containers)
    load.wait_for_writes(50)
    ids = containers.ids

    assert containers.kill(*ids) == ids
    assert containers.running == []
    containers.up()
    load.wait_for_writes(5, *ids)
    check(containers, load)


def test_the_smaller_side_of_a_partition_accepts_nothing(containers: Any, make_load: MakeLoad) -> None:
    load = make_load(containers)
    load.wait_for_writes(20)
    old = containers.leader()
    others = [node_id for node_id in containers.ids if node_id != old]

    containers.partition([old], others)
    new = containers.leader(not_in=[old])
    load.wait_for_writes(20, *others)
    # The outcome of a write to a leader that does not know yet that it is alone would be unknown.
    containers.wait_until_alone(old)
    refused = containers.ask(old, "PUT", "/keys/alone/?timeout=0.5", {"value": "x"})
    assert containers.heal()
    load.wait_for_writes(5, old)
    check(containers, load)

    assert new in others
    assert (refused.status, refused.body["error"]["outcome"]) == (503, "not_done")
    assert containers.get(new, "alone") is None
    assert not containers.heal()


@pytest.mark.parametrize("one_way", ["in", "out"])
def test_a_leader_that_is_cut_off_in_one_direction_does_not_hold_the_others_up(
    containers: Any, make_load: MakeLoad, one_way: Any
) -> None:
    load = make_load(containers)
    load.wait_for_writes(20)
    old = containers.leader()
    others = [node_id for node_id in containers.ids if node_id != old]

    containers.isolate(old, one_way)
    new = containers.leader(not_in=[old])
    load.wait_for_writes(20, *others)
    containers.heal()
    load.wait_for_writes(5, old)
    check(containers, load)

    assert new in others


def test_a_cut_holds_through_a_restart_of_the_node(containers: Any) -> None:
    follower = containers.random_follower()
    containers.isolate(follower)
    containers.restart(follower)

    alone = containers.ask(follower, "GET", "/keys/a/?timeout=0.5")
    containers.heal()
    containers.wait_until_caught_up()

    assert alone.status == 503
    assert containers.get(follower, "a") is None


def test_a_node_that_loses_packets_only_makes_things_slow(containers: Any, make_load: MakeLoad) -> None:
    load = make_load(containers)
    load.wait_for_writes(10)
    node_id = containers.random_follower()

    containers.flaky(node_id, 0.3)
    load.wait_for_writes(30, *[other for other in containers.ids if other != node_id])
    assert {loss for pair, loss in containers.losses().items() if node_id in pair} == {0.3}
    containers.heal()
    load.wait_for_writes(5, *containers.ids)
    check(containers, load)


def test_a_single_node_and_a_cluster_of_five(make_containers: MakeContainers) -> None:
    alone = make_containers(1)
    alone.put("n1", "a", "1")
    assert alone.get("n1", "a") == "1"

    five = make_containers(5)
    five.partition(["n1", "n2"], ["n3", "n4", "n5"])
    # What goes to a leader that is cut off meanwhile has an unknown outcome, and is answered so.
    five.put(five.leader(not_in=["n1", "n2"]), "a", "1")
    five.heal()
    five.wait_until_caught_up()
    assert {node_id: five.get(node_id, "a") for node_id in five.ids} == dict.fromkeys(five.ids, "1")
