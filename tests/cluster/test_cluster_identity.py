"""A data directory belongs to one node of one cluster; a node with any other directory stays out and says why."""

from __future__ import annotations

import shutil

from tests.support.cluster import Cluster, MakeCluster
from tests.support.load import MakeLoad, check


def last_line(cluster: Cluster, node_id: str) -> str:
    """Return the last line that the node itself wrote to its log."""
    return next(line for line in reversed(cluster[node_id].log.splitlines()) if "-------" not in line)


def assert_refused(cluster: Cluster, node_id: str, line: str) -> None:
    """Check that a started node ends with status 1 and this line."""
    cluster.expected_complaints.append(line)
    assert (cluster[node_id].wait(), last_line(cluster, node_id)) == (1, f"raftkv: {line}")


def test_a_wiped_node_stays_out_and_says_why(calm_cluster: Cluster, make_load: MakeLoad) -> None:
    """It has lost its votes and entries; counted in a majority, it could help to lose an acknowledged write."""
    cluster = calm_cluster
    load = make_load(cluster)
    load.wait_for_writes(10, *cluster.ids)
    before = cluster.wait_for_status("n3", lambda status: bool(status["leader"]), "a leader")
    cluster.kill("n3")
    shutil.rmtree(cluster["n3"].directory)
    cluster.start("n3")

    out = cluster.wait_for_status("n3", lambda status: "lost or replaced" in (status["reason"] or ""), "why it is out")
    assert (out["role"], out["leader"], out["cluster_id"], out["last_log_index"]) == ("follower", None, None, 0)
    assert out["reason"] == (
        f"cluster {before['cluster_id']} knows n3 as {before['incarnation']}, and this is {out['incarnation']}: "
        "its data directory was lost or replaced, so it can't go on as the same node"
    )
    cluster.wait_for_log("n3", f"no leader: {out['reason']}")
    answer = cluster.ask("n3", "PUT", "/keys/a/?timeout=1", {"value": "1"})
    assert (answer.status, answer.outcome, answer.headers["Retry-After"]) == (503, "not_done", "1")
    assert out["reason"] in answer.body["error"]["message"]
    # The other nodes go on.
    load.wait_for_writes(10, "n1", "n2")

    # It does not vote, so one other node has no majority.
    cluster.kill("n1")
    cluster.wait_for_status("n2", lambda status: status["leader"] is None, "no leader")
    answer = cluster.ask("n2", "PUT", "/keys/a/?timeout=2", {"value": "2"})
    assert (answer.status, answer.outcome) == (503, "not_done")
    cluster.start("n1")
    cluster.wait_for_leader("n1", "n2")
    load.wait_for_writes(10, "n1", "n2")
    cluster.kill("n3")
    check(cluster, load)


def test_directories_of_two_nodes_that_were_swapped_are_refused(cluster: Cluster) -> None:
    assert cluster.put("n1", "a", "1").status == 200
    cluster.terminate()
    n1, n2, aside = cluster["n1"].directory, cluster["n2"].directory, cluster.directory / "aside"
    n1.rename(aside)
    n2.rename(n1)
    aside.rename(n2)

    cluster.start()
    assert_refused(cluster, "n1", f"data directory {n1} belongs to node n2, not to n1")
    assert_refused(cluster, "n2", f"data directory {n2} belongs to node n1, not to n2")

    # The directories are unchanged.
    n1.rename(aside)
    n2.rename(n1)
    aside.rename(n2)
    cluster.start("n1", "n2")
    cluster.wait_for_leader()
    assert [cluster.get(node_id, "a") for node_id in cluster.ids] == ["1", "1", "1"]


def test_a_directory_that_was_copied_to_another_node_is_refused(cluster: Cluster) -> None:
    assert cluster.put("n1", "a", "1").status == 200
    cluster.terminate("n2")
    shutil.rmtree(cluster["n2"].directory)
    cluster.terminate("n1")
    shutil.copytree(cluster["n1"].directory, cluster["n2"].directory)

    cluster.start("n1", "n2")
    assert_refused(cluster, "n2", f"data directory {cluster['n2'].directory} belongs to node n1, not to n2")
    cluster.wait_for_leader("n1", "n3")
    assert cluster.get("n1", "a") == "1"


def test_a_directory_that_another_process_holds_is_refused(cluster: Cluster) -> None:
    """Two processes with one identity would be two voters with one vote."""
    twin = cluster.add("twin")
    twin.start(f"n1=127.0.0.1:{twin.raft}", cluster.settings | {"id": "n1", "data-dir": str(cluster["n1"].directory)})
    assert_refused(cluster, "twin", f"data directory {cluster['n1'].directory} is in use by another process")
    assert cluster.put("n1", "a", "1").status == 200


def test_a_directory_of_another_cluster_is_refused(cluster: Cluster) -> None:
    """A --cluster list with other nodes means that the node should belong to another cluster."""
    assert cluster.put("n1", "a", "1").status == 200
    cluster_id = cluster.wait_for_status("n1")["cluster_id"]
    cluster.terminate()
    for node_id in ("m2", "m3"):
        cluster.add(node_id)

    cluster.start("n1", "m2", "m3", initial_cluster=cluster.list_of("n1", "m2", "m3"))

    assert_refused(
        cluster,
        "n1",
        f"data directory {cluster['n1'].directory} belongs to another cluster: {cluster_id} of n1, n2, n3, "
        "while --cluster names m2, m3, n1",
    )
    # The new nodes wait for the third node of their own cluster and do not join the existing one.
    waiting = cluster.wait_for_status("m2", lambda status: status["reason"] is not None, "why there is no leader")
    assert (waiting["cluster_id"], waiting["last_log_index"]) == (None, 0)

    # The directory is unchanged.
    cluster.start("n1", "n2", "n3", initial_cluster=cluster.list_of("n1", "n2", "n3"))
    cluster.wait_for_leader("n1", "n2", "n3")
    assert cluster.get("n1", "a") == "1"


def test_a_node_with_the_data_of_another_cluster_does_not_bootstrap(make_cluster: MakeCluster) -> None:
    """Two clusters with the same ids: data of one neither bootstraps the other again nor adds values."""
    first, second = make_cluster(), make_cluster()
    first.start()
    first.wait_for_leader()
    assert first.put("n1", "a", "1").status == 200
    first.terminate()
    second.start()
    second.wait_for_leader()
    assert second.put("n1", "b", "2").status == 200
    second.terminate("n1")
    shutil.rmtree(second["n1"].directory)
    shutil.copytree(first["n1"].directory, second["n1"].directory)

    second.start("n1")

    second.expected_complaints.append(f"data directory {second['n1'].directory}")
    second.wait_for_log("n2", "different clusters")
    assert second.put("n2", "c", "3").status == 200
    assert [second.get(node_id, key) for node_id in ("n2", "n3") for key in "abc"] == [None, "2", "3"] * 2


def test_a_node_among_the_nodes_of_another_cluster_keeps_its_log(cluster: Cluster) -> None:
    """Same ids and addresses, another cluster id: peers are let in only after the journal has told the cluster id.

    Earlier, the leader of the other cluster, in a later term, truncated acknowledged entries.
    """
    for number in range(100):
        assert cluster.put("n1", f"a{number}", "x" * 50_000).status == 200
    before = cluster.wait_for_status("n3", lambda status: status["last_applied"] >= 101, "all writes")
    cluster.terminate()
    aside = cluster.directory / "aside"
    cluster["n3"].directory.rename(aside)
    for node_id in cluster.ids:
        shutil.rmtree(cluster[node_id].directory, ignore_errors=True)

    cluster.start()
    while cluster.wait_for_status(cluster.wait_for_leader())["term"] <= before["term"] + 2:
        leader = cluster.wait_for_leader()
        cluster.kill(leader)
        cluster.start(leader)
    assert cluster.put("n1", "b", "1").status == 200
    cluster.kill("n3")
    shutil.rmtree(cluster["n3"].directory)
    aside.rename(cluster["n3"].directory)
    said = len(cluster["n3"].log)
    cluster.start("n3")

    cluster.wait_for_log("n3", "no leader: no majority", after=said)
    after = cluster.wait_for_status("n3", lambda status: bool(status["cluster_id"]), "its cluster")
    assert (after["cluster_id"], after["last_log_index"]) == (before["cluster_id"], before["last_log_index"])
    assert "is connected" not in cluster["n3"].log[said:]
