"""A leader that is suspended for a while is replaced, and serves no stale read when it resumes."""

from __future__ import annotations

import signal
from random import Random

import pytest

from tests.support.cluster import Cluster, rounds, suspend_for, timeout_s
from tests.support.load import MakeLoad, check

SHORT_ROUNDS = 5
READS_IN_A_ROW = 40


@pytest.mark.timeout(180)
def test_a_leader_that_was_frozen_steps_down_and_serves_no_stale_read(cluster: Cluster, make_load: MakeLoad) -> None:
    """Reads that were sent to it while it was frozen are the first messages that it sees when it resumes."""
    load = make_load(cluster)
    old = cluster.wait_for_leader()
    others = [node_id for node_id in cluster.ids if node_id != old]
    load.wait_for_writes(5, *cluster.ids)
    said = len(cluster[old].log)

    cluster[old].freeze()
    suspend_for(3.0)
    cluster.wait_for_leader(*others, not_in=(old,))
    # The registers now have values that the old leader does not know.
    load.wait_for_writes(20, *others)
    sent_meanwhile = [load.read_in_a_row(old, READS_IN_A_ROW) for _ in range(4)]
    load.wait_for_writes(20, *others)
    cluster[old].signal(signal.SIGCONT)
    sent_at_once = [load.read_in_a_row(old, READS_IN_A_ROW) for _ in range(4)]

    # All of them wait for a leader and are answered.
    for row in sent_meanwhile + sent_at_once:
        assert [operation.answer for operation in row.result(60)] == ["200"] * READS_IN_A_ROW
    cluster.wait_for_log(old, " follower in term ", after=said)
    load.wait_for_writes(5, *cluster.ids)
    check(cluster, load)


@pytest.mark.timeout(180)
def test_a_replaced_leader_that_hears_of_no_other_serves_no_stale_read(cluster: Cluster, make_load: MakeLoad) -> None:
    """When it resumes, the others, which were restarted meanwhile, are frozen, so no message tells it of its successor.

    Only by confirming its leadership before it answers can it notice that it was replaced.
    """
    load = make_load(cluster)
    load.wait_for_writes(5, *cluster.ids)
    old = cluster.wait_for_leader()
    others = [node_id for node_id in cluster.ids if node_id != old]
    cluster[old].freeze()
    cluster.kill(*others)
    cluster.start(*others)
    cluster.wait_for_leader(*others)
    load.wait_for_writes(20, *others)

    rows = [load.read_in_a_row(old, READS_IN_A_ROW) for _ in range(4)]
    load.wait_for_writes(5, *others)
    for node_id in others:
        cluster[node_id].freeze()
    cluster[old].signal(signal.SIGCONT)
    cluster.wait_for_status(old, lambda status: status["role"] != "leader", f"{old} is no longer the leader")
    for node_id in others:
        cluster[node_id].signal(signal.SIGCONT)

    for row in rows:
        assert [operation.answer for operation in row.result(60)] == ["200"] * READS_IN_A_ROW
    load.wait_for_writes(5, *cluster.ids)
    check(cluster, load)


@pytest.mark.timeout(timeout_s(SHORT_ROUNDS, 30))
def test_leaders_may_be_frozen_for_any_time(cluster: Cluster, make_load: MakeLoad, seed: int) -> None:
    """For shorter and longer than an election: some are replaced, some are not, some just as they resume."""
    rng = Random(seed)
    load = make_load(cluster)
    for number in range(rounds(SHORT_ROUNDS)):
        load.wait_for_writes(5, *cluster.ids)
        leader = cluster.wait_for_leader()
        cluster[leader].freeze()
        rows = [load.read_in_a_row(leader, READS_IN_A_ROW) for _ in range(2)]
        # Every fifth freeze is long; the others last about an election timeout.
        suspend_for(rng.uniform(1.0, 5.0) if number % 5 == 4 else rng.uniform(0.2, 0.8))
        cluster[leader].signal(signal.SIGCONT)
        rows += [load.read_in_a_row(leader, READS_IN_A_ROW) for _ in range(2)]
        for row in rows:
            row.result(60)
    load.wait_for_writes(5, *cluster.ids)
    check(cluster, load)
