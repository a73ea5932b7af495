"""A majority is enough and a minority is not; while there is no leader, requests wait for one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.cluster import ANSWER_S, Answer, Cluster, MakeCluster
from tests.support.load import PATIENCE_S, MakeLoad, check


def test_five_nodes_go_on_without_two(make_cluster: MakeCluster, make_load: MakeLoad) -> None:
    cluster = make_cluster(5)
    cluster.start()
    leader = cluster.wait_for_leader()
    load = make_load(cluster, writers=1)
    load.wait_for_writes(5, *cluster.ids)
    other = next(node_id for node_id in cluster.ids if node_id != leader)

    cluster.kill(leader, other)
    cluster.wait_for_leader(not_in=(leader, other))
    load.wait_for_writes(10, *cluster.running)
    cluster.start()
    load.wait_for_writes(5, *cluster.ids)
    check(cluster, load)


@pytest.mark.parametrize("survivor", ["leader", "follower"])
def test_one_node_of_three_takes_no_writes_and_says_why(calm_cluster: Cluster, survivor: str) -> None:
    cluster = calm_cluster
    assert cluster.put("n1", "a", "1").status == 200
    cluster.wait_until_equal()
    leader = cluster.wait_for_leader()
    left = leader if survivor == "leader" else next(node_id for node_id in cluster.ids if node_id != leader)
    gone = [node_id for node_id in cluster.ids if node_id != left]
    cluster.kill(*gone)

    # A write that it accepted before it noticed may have been applied.
    first = cluster.ask(left, "PUT", "/keys/b/?timeout=1", {"value": "2"})
    assert (first.status, first.outcome) in [(503, "not_done"), (504, "unknown")]
    reason = f"no majority: {', '.join(gone)} can't be reached, and 2 of 3 are needed"
    status = cluster.wait_for_status(left, lambda status: status["reason"] == reason, reason)
    assert (status["role"] == "leader", status["leader"]) == (False, None)
    cluster.wait_for_log(left, f"no leader: {reason}")

    for method, body in (("PUT", {"value": "3"}), ("DELETE", None), ("GET", None)):
        refused = cluster.ask(left, method, "/keys/c/?timeout=0.3", body)
        assert (refused.status, refused.outcome, refused.headers["Retry-After"]) == (503, "not_done", "1")
        assert reason in refused.body["error"]["message"]
    assert cluster.get(left, "a", level="stale") == "1"
    ready = cluster.ask(left, "GET", "/readyz?verbose")
    assert (ready.status, reason in ready.body["error"]["message"]) == (503, True)

    cluster.start(gone[0])
    cluster.wait_for_leader()
    assert cluster.put(left, "c", "4").status == 200
    assert [cluster.get(node_id, key) for node_id in cluster.running for key in "ac"] == ["1", "4"] * 2


def test_requests_through_every_node_wait_for_an_election_and_succeed(make_cluster: MakeCluster) -> None:
    """Within their timeouts, however long the election takes; no client gets an error."""
    cluster = make_cluster(election_min_ms="1000", election_max_ms="2000")
    cluster.start()
    old = cluster.wait_for_leader()
    assert cluster.put(old, "a", "0").status == 200
    cluster.kill(old)
    left = cluster.running
    for node_id in left:
        # Before that it may forward a request into a connection whose other end is gone, which ends in a correct 504.
        cluster.wait_for_status(
            node_id, lambda status: not connected(status, old), f"{node_id} has noticed that {old} is gone"
        )

    def write(number: int) -> Answer:
        return cluster.put(left[number % 2], f"b{number}", str(number))

    def read(number: int) -> Answer:
        return cluster.ask(left[number % 2], "GET", f"/keys/a/?timeout={ANSWER_S}")

    with ThreadPoolExecutor(16) as threads:
        writes, reads = threads.map(write, range(16)), threads.map(read, range(16))
        assert [(answer.status, answer.body) for answer in writes] == [(200, {"value": str(n)}) for n in range(16)]
        assert [(answer.status, answer.body) for answer in reads] == [(200, {"value": "0"})] * 16
    assert cluster.wait_for_leader() != old


def connected(status: dict[str, object], peer: str) -> bool:
    peers = status["peers"]
    assert isinstance(peers, list)
    return next(bool(each["connected"]) for each in peers if each["id"] == peer)


def test_elections_under_load_refuse_no_request(make_cluster: MakeCluster, make_load: MakeLoad) -> None:
    """Requests to surviving nodes wait for the next leader, whether the last one was stopped or killed."""
    cluster = make_cluster(5)
    cluster.start()
    load = make_load(cluster, writers=1, timeout_s=PATIENCE_S / 2)
    for stop in (cluster.terminate, cluster.kill):
        load.wait_for_writes(10, *cluster.running)
        leader = cluster.wait_for_leader()
        stop(leader)
        cluster.wait_for_leader(not_in=(leader,))
    load.wait_for_writes(10, *cluster.running)
    survivors = cluster.running
    cluster.start()
    check(cluster, load)
    assert [each for each in load.history.operations if each.node in survivors and each.answer == "503"] == []
