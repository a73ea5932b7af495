"""SIGTERM: a node finishes its requests, hands leadership over, and exits with status 0 within five seconds."""

from __future__ import annotations

import asyncio
import signal

from tests.support.cluster import Cluster
from tests.support.load import Connection, Load, MakeLoad, Response, check

# A node that takes longer than 4.5 s to stop ends with status 1.
STOPPED_IN_TIME = 0


def test_a_leader_that_is_stopped_hands_leadership_over(calm_cluster: Cluster, make_load: MakeLoad) -> None:
    cluster = calm_cluster
    load = make_load(cluster)
    for _ in range(3):
        load.wait_for_writes(10, *cluster.ids)
        leader = cluster.wait_for_leader()
        others = [node_id for node_id in cluster.ids if node_id != leader]
        seen = {node_id: len(cluster[node_id].log) for node_id in others}
        assert cluster.terminate(leader) == {leader: STOPPED_IN_TIME}
        successor = cluster.wait_for_leader(*others)
        cluster.wait_for_log(successor, f"{leader} hands leadership over", seen[successor])
        load.wait_for_writes(10, *others)
        cluster.start(leader)
    load.wait_for_writes(10, *cluster.ids)
    check(cluster, load)


def test_a_follower_that_is_stopped_changes_nothing(calm_cluster: Cluster, make_load: MakeLoad) -> None:
    cluster = calm_cluster
    load = make_load(cluster)
    load.wait_for_writes(10, *cluster.ids)
    leader = cluster.wait_for_leader()
    follower = next(node_id for node_id in cluster.ids if node_id != leader)
    assert cluster.terminate(follower) == {follower: STOPPED_IN_TIME}
    load.wait_for_writes(10, *cluster.running)
    cluster.start(follower)
    load.wait_for_writes(10, *cluster.ids)
    check(cluster, load)


def test_all_nodes_that_are_stopped_at_once_lose_nothing(calm_cluster: Cluster, make_load: MakeLoad) -> None:
    cluster = calm_cluster
    load = make_load(cluster)
    for _ in range(2):
        load.wait_for_writes(20, *cluster.ids)
        assert cluster.terminate() == dict.fromkeys(cluster.ids, STOPPED_IN_TIME)
        cluster.start()
    load.wait_for_writes(1, *cluster.ids)
    check(cluster, load)


async def write_on(connections: list[Connection]) -> None:
    """Send one write on each connection."""
    for number, connection in enumerate(connections):
        connection.send("PUT", f"/keys/in-flight-{number}/?timeout=1", {"value": str(number)})


async def answers_on(connections: list[Connection]) -> list[Response]:
    """Return the answer that came on each connection; raises if one did not."""
    async with asyncio.timeout(20):
        return [await connection.receive() for connection in connections]


async def connect(port: int, count: int) -> list[Connection]:
    return [await Connection.open(port) for _ in range(count)]


def test_requests_in_flight_are_answered_before_a_leader_stops(calm_cluster: Cluster, make_load: MakeLoad) -> None:
    """They are in its log and wait for the followers, which resume only after it was asked to stop."""
    cluster = calm_cluster
    client: Load = make_load(cluster, writers=0, readers=0)
    leader = cluster.wait_for_leader()
    others = [node_id for node_id in cluster.ids if node_id != leader]
    connections = client.run(connect(cluster[leader].http, 20))
    before = cluster.wait_for_status(leader)["last_log_index"]
    for node_id in others:
        cluster[node_id].freeze()

    client.run(write_on(connections))
    cluster.wait_for_status(leader, lambda status: status["last_log_index"] > before, "the writes are in its log")
    cluster[leader].signal(signal.SIGTERM)
    for node_id in others:
        cluster[node_id].signal(signal.SIGCONT)

    answers = client.run(answers_on(connections))
    for connection in connections:
        connection.close()
    assert cluster[leader].wait() == STOPPED_IN_TIME
    cluster.wait_for_leader()
    for number, answer in enumerate(answers):
        value = cluster.get(others[0], f"in-flight-{number}")
        if answer.status == 200:
            assert value == str(number)
        elif answer.status == 503:
            assert (answer.body["error"]["outcome"], value) == ("not_done", None)
        else:
            assert (answer.status, answer.body["error"]["outcome"]) == (504, "unknown")
            assert value in (None, str(number))
