"""Nodes behind a router or in containers listen at other addresses than those at which peers reach them."""

from __future__ import annotations

from tests.support.cluster import MakeCluster, Reserved
from tests.support.load import MakeLoad, check
from tests.system.link_nodes import Relay


def test_nodes_may_listen_at_other_addresses_than_they_advertise(
    make_cluster: MakeCluster, make_load: MakeLoad
) -> None:
    """The --cluster list has the addresses to which peers connect; each node may listen at another one."""
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
        # Every node was reached through its published address; no other node knows where it listens.
        assert [node_id for node_id, relay in relays.items() if not relay.forth] == []
    finally:
        for relay in relays.values():
            load.run(relay.__aexit__())
        for reserved in inside.values():
            reserved.close()
