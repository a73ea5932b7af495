"""The names and labels of everything that belongs to a cluster.

The labels are the only record of a cluster: each resource that is created has the label ``raftkv.cluster``, and a
resource without it is never changed or removed.
"""

from __future__ import annotations

import re

from deploy.engine import UsageError

CLUSTER_LABEL = "raftkv.cluster"
NODE_LABEL = "raftkv.node"
NODES_LABEL = "raftkv.nodes"
PORT_LABEL = "raftkv.port"
SETTINGS_LABEL = "raftkv.settings"
FAULTS_LABEL = "raftkv.faults"

DEFAULT_NAME = "raftkv"
DEFAULT_IMAGE = "raftkv"

HTTP_PORT, RAFT_PORT = 4001, 5001


class Names:
    """The names of the resources of one cluster."""

    def __init__(self, cluster: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", cluster):
            raise UsageError(
                f"{cluster!r} is not a valid cluster name; use at most 41 lower-case letters, digits and dashes"
            )
        self.cluster = cluster
        self.clients = f"{cluster}-clients"
        """The network on which clients reach the nodes."""
        self.peers = f"{cluster}-peers"
        """The network on which the nodes reach each other."""
        self.secret = f"{cluster}-secret"
        """The volume with the cluster secret."""
        self.faults = f"{cluster}-faults"
        """The volume, always empty, whose label records which packets are dropped."""

    def node(self, node_id: str) -> str:
        """Return the name of a node's container, and of the volume with its data."""
        return f"{self.cluster}-{node_id}"

    def labels(self, **more: str) -> dict[str, str]:
        """Return the labels of a resource of the cluster."""
        return {CLUSTER_LABEL: self.cluster, **more}

    @property
    def mine(self) -> dict[str, list[str]]:
        """The engine's filter for the resources of this cluster."""
        return {"label": [f"{CLUSTER_LABEL}={self.cluster}"]}


def peer_name(node_id: str) -> str:
    """Return the host name by which the other nodes reach a node.

    It differs from the name in the network for clients, which could resolve to an address there.
    """
    return f"{node_id}.peers"


def sort_key(node_id: str) -> tuple[str, int]:
    """Return the key by which nodes are sorted: n10 comes after n9."""
    return node_id.rstrip("0123456789"), int(re.findall(r"\d*$", node_id)[0] or 0)
