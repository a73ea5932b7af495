"""Nodes behind a router or in containers listen elsewhere than where the others reach them."""

from __future__ import annotations

from tests.support.cluster import MakeCluster, Reserved
from tests.support.load import MakeLoad, check
from tests.system.link_nodes import Relay


def test_nodes_that_listen_elsewhere_than_where_they_are_reached_make_a_cluster(
    make_cluster: MakeCluster, make_load: MakeLoad
) -> None:
    """The start list has what the others are to call; where a node listens is its own affair."""
    cluster = make_cluster()
    load = make_load(cluster, writers=1)
    inside = {node_id: Reserved() for node_id in cluster.ids}
    relays = {node_id: Relay(reserved.port) for node_id, reserved in inside.items()}
    for relay in relays.values():
        load.run(relay.__aenter__())
    try:
        published = {node_id: relay.address for node_id, relay in relays.items()}
        initial_cluster = ",".join(f"{node_id}={address}" for node_id, address in published.items())
        for node_id in cluster.ids:
            listens = f"127.0.0.1:{inside[node_id].port}"
            cluster.start(node_id, initial_cluster=initial_cluster, raft=listens, advertise_raft=published[node_id])

        leader = cluster.wait_for_leader()
        load.wait_for_writes(5, *cluster.ids)
        status = cluster.wait_for_status(leader, lambda status: status["leader"] == leader, f"{leader} leads")
        assert {peer["id"]: peer["address"] for peer in status["peers"]} == {
            node_id: published[node_id] for node_id in cluster.ids if node_id != leader
        }
        check(cluster, load)
        cluster.terminate()
        # All of them were called where they are published: nobody else knows where they listen.
        assert [node_id for node_id, relay in relays.items() if not relay.forth] == []
    finally:
        for relay in relays.values():
            load.run(relay.__aexit__())
        for reserved in inside.values():
            reserved.close()
