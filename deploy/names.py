"""What everything of a cluster is called, and the labels by which it is found again: they are all that is remembered.

Whatever is made has the label ``raftkv.cluster``, and nothing without it is ever changed or removed.
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
    """The names of the parts of one cluster."""

    def __init__(self, cluster: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", cluster):
            raise UsageError(f"{cluster!r} is no name for a cluster; use small letters, digits and dashes")
        self.cluster = cluster
        self.clients = f"{cluster}-clients"
        """The network on which clients reach the nodes."""
        self.peers = f"{cluster}-peers"
        """The network on which the nodes reach each other."""
        self.secret = f"{cluster}-secret"
        """The volume with what proves that a node belongs to the cluster."""
        self.faults = f"{cluster}-faults"
        """The volume, always empty, whose label says which messages are being lost."""

    def node(self, node_id: str) -> str:
        """Return the name of a node's container, and of the volume with its data."""
        return f"{self.cluster}-{node_id}"

    def labels(self, **more: str) -> dict[str, str]:
        """Return the labels of a part of the cluster."""
        return {CLUSTER_LABEL: self.cluster, **more}

    @property
    def mine(self) -> dict[str, list[str]]:
        """The filter that finds the parts of this cluster, and no others."""
        return {"label": [f"{CLUSTER_LABEL}={self.cluster}"]}


def peer_name(node_id: str) -> str:
    """Return the name by which a node is reached by the others.

    A name of its own, because the one for clients could be resolved to an address in their network.
    """
    return f"{node_id}.peers"


def in_order(node_id: str) -> tuple[str, int]:
    """Return what to sort nodes by, so that n10 comes after n9."""
    return node_id.rstrip("0123456789"), int(re.findall(r"\d*$", node_id)[0] or 0)
