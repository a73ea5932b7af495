"""A cluster bootstraps once, when all its nodes are connected, in whatever order they start."""

from __future__ import annotations

from itertools import permutations

import pytest

from tests.support.cluster import CALM, Cluster, MakeCluster

ORDERS = list(permutations(["n1", "n2", "n3"]))


def wait_for_reason(cluster: Cluster, node_id: str, reason: str) -> None:
    status = cluster.wait_for_status(node_id, lambda status: status["reason"] == reason, f"{node_id}: {reason}")
    assert (status["role"], status["leader"], status["cluster_id"]) == ("follower", None, None)


@pytest.mark.parametrize("order", ORDERS, ids=["-".join(order) for order in ORDERS])
def test_nodes_may_be_started_in_any_order(make_cluster: MakeCluster, order: tuple[str, str, str]) -> None:
    """Each node starts only after the ones before it have reported which nodes they wait for."""
    first, second, third = order
    cluster = make_cluster()
    cluster.start(first)
    missing = ", ".join(sorted([second, third]))
    wait_for_reason(cluster, first, f"waiting for {missing}: the cluster begins when all its nodes have met")
    cluster.start(second)
    for node_id in (first, second):
        wait_for_reason(cluster, node_id, f"waiting for {third}: the cluster begins when all its nodes have met")
    cluster.start(third)

    cluster.wait_for_leader()
    assert cluster.put(first, "a", "1").status == 200
    assert [cluster.get(node_id, "a") for node_id in order] == ["1", "1", "1"]
    founded = {cluster.wait_for_status(node_id)["cluster_id"] for node_id in cluster.ids}
    assert len(founded) == 1


def test_a_single_node_reports_which_nodes_it_waits_for(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(**CALM)
    cluster.start("n2")

    reason = "waiting for n1, n3: the cluster begins when all its nodes have met"
    wait_for_reason(cluster, "n2", reason)
    cluster.wait_for_log("n2", f"no leader: {reason} (n1: connection refused; n3: connection refused)")
    answer = cluster.ask("n2", "PUT", "/keys/a/?timeout=0.2", {"value": "1"})
    assert (answer.status, answer.outcome, answer.headers["Retry-After"]) == (503, "not_done", "1")
    assert reason in answer.body["error"]["message"]
    assert cluster.ask("n2", "GET", "/livez").status == 200
    assert cluster.ask("n2", "GET", "/readyz").status == 503


def test_no_node_bootstraps_while_the_cluster_lists_differ(make_cluster: MakeCluster) -> None:
    """Two lists could bootstrap two clusters, each with a majority of its own."""
    cluster = make_cluster(3)
    cluster.add("n4")
    three = cluster.list_of("n1", "n2", "n3")
    cluster.start("n1", "n2", initial_cluster=three)
    cluster.start("n3", initial_cluster=cluster.list_of("n1", "n2", "n3", "n4"))

    for node_id in ("n1", "n2"):
        wait_for_reason(cluster, node_id, "n3 was started with another --cluster list")
    status = cluster.wait_for_status("n3", lambda status: "another --cluster list" in (status["reason"] or ""), "why")
    assert status["reason"].startswith(("n1 ", "n2 "))
    assert [cluster.wait_for_status(node_id)["last_log_index"] for node_id in ("n1", "n2", "n3")] == [0, 0, 0]

    cluster.terminate("n3")
    cluster.start("n3", initial_cluster=three)
    cluster.wait_for_leader("n1", "n2", "n3")
    assert cluster.put("n3", "a", "1").status == 200


def test_the_first_write_to_a_new_cluster_works_at_once(make_cluster: MakeCluster) -> None:
    """It is sent while the nodes are still connecting, and waits."""
    cluster = make_cluster()
    cluster.start()
    cluster.wait_for_status("n2")
    assert cluster.put("n2", "a", "1").body == {"value": "1"}
    assert [cluster.get(node_id, "a") for node_id in cluster.ids] == ["1", "1", "1"]


def test_every_node_names_the_url_of_the_leader_where_its_process_id_is(cluster: Cluster) -> None:
    leader = cluster.wait_for_leader()
    for node_id in cluster.ids:
        status = cluster.wait_for_status(
            node_id, lambda status: status["leader_url"] is not None, f"{node_id} knows where {leader} is"
        )
        assert (status["leader"], status["leader_url"]) == (leader, f"http://127.0.0.1:{cluster[leader].http}")
    assert cluster.wait_for_status(leader)["pid"] == cluster[leader].pid


def test_a_cluster_of_one_node_works(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    cluster.start()
    cluster.wait_for_leader()
    assert cluster.put("n1", "a", "1").body == {"value": "1"}
    cluster.kill()
    cluster.start()
    cluster.wait_for_leader()
    assert cluster.get("n1", "a") == "1"
