"""Acknowledged writes survive `kill -9` of the leader and of all nodes, at any moment."""

from __future__ import annotations

import signal
from random import Random

import pytest

from tests.support.cluster import Cluster, MakeCluster, rounds, timeout_s
from tests.support.load import MakeLoad, check

LEADER_ROUNDS, ALL_ROUNDS = 5, 3


@pytest.mark.timeout(timeout_s(LEADER_ROUNDS, 30))
def test_no_acknowledged_write_is_lost_when_leaders_are_killed(
    cluster: Cluster, make_load: MakeLoad, seed: int
) -> None:
    rng = Random(seed)
    load = make_load(cluster)
    for _ in range(rounds(LEADER_ROUNDS)):
        leader = cluster.wait_for_leader()
        load.wait_for_writes(rng.randint(1, 50))
        cluster.kill(leader)
        cluster.wait_for_leader(not_in=(leader,))
        load.wait_for_writes(rng.randint(1, 10), *cluster.running)
        cluster.start(leader)
        load.wait_for_writes(1, leader)

    cluster.kill()
    cluster.start()
    load.wait_for_writes(1, *cluster.ids)
    check(cluster, load)


@pytest.mark.timeout(timeout_s(ALL_ROUNDS, 30))
def test_no_acknowledged_write_is_lost_when_all_nodes_are_killed_at_once(
    cluster: Cluster, make_load: MakeLoad, seed: int
) -> None:
    rng = Random(seed)
    load = make_load(cluster)
    for _ in range(rounds(ALL_ROUNDS)):
        load.wait_for_writes(rng.randint(1, 100))
        cluster.kill()
        cluster.start()
        load.wait_for_writes(1, *cluster.ids)
    check(cluster, load)


def test_a_node_that_missed_writes_is_not_elected(make_cluster: MakeCluster, make_load: MakeLoad) -> None:
    """It campaigns far earlier than the only other node, and still the other node must be elected."""
    cluster = make_cluster(election_min_ms="1000", election_max_ms="2000")
    cluster.start()
    load = make_load(cluster)
    load.wait_for_writes(5, *cluster.ids)
    leader = cluster.wait_for_leader()
    behind, complete = (node_id for node_id in cluster.ids if node_id != leader)
    cluster.kill(behind)
    load.wait_for_writes(20, leader, complete)
    cluster[complete].freeze()
    cluster.kill(leader)
    cluster.start(behind, election_min_ms="150", election_max_ms="300")
    cluster.wait_for_status(behind, lambda status: status["role"] == "candidate", f"{behind} asks for votes")
    cluster[complete].signal(signal.SIGCONT)

    assert cluster.wait_for_leader(behind, complete) == complete
    load.wait_for_writes(5, behind, complete)
    cluster.start(leader)
    check(cluster, load)
