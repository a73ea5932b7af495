"""A rolling upgrade: one node at a time gets another image while the others serve.

The next node is replaced only when all nodes that ran have applied everything committed, so a majority always has
every acknowledged write. The leader comes last: leadership moves once, to a node that has the new image already. If a
node does not get ready with the new image, it gets the old one back and the upgrade ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from deploy.containers import NodeContainer
from deploy.engine import DeployError, explained
from deploy.interrupts import uninterrupted
from deploy.monitor import Monitor
from deploy.nodes import Nodes
from deploy.resources import ClusterSpec, Resource, create_nodes, intended_nodes, remove
from deploy.waiting import PATIENCE_S


class Upgrade:
    """A rolling upgrade of one cluster."""

    def __init__(self, nodes: Nodes, monitor: Monitor, say: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._monitor = monitor
        self._say = say
        self._ids = intended_nodes(nodes.client, nodes.names)

    def run(self, image: str, within_s: float) -> list[str]:
        """Give every node the image with this id; return the nodes that had another one. Raises ``DeployError``.

        ``within_s`` is how long one node may take to get ready.
        """
        there = self._nodes.found()
        ran = [node_id for node_id, container in there.items() if container.is_running]
        outdated = [node_id for node_id, container in there.items() if container.image != image]
        leader = self._monitor.leader() if ran else None
        for node_id in leader_last(outdated, leader):
            if ran:
                self._monitor.wait_until_caught_up(ran)
            self._say(f"upgrading {node_id}")
            self._replace_or_restore(there[node_id], image, within_s)
        return outdated

    def _replace_or_restore(self, before: NodeContainer, image: str, within_s: float) -> None:
        node_id = before.node_id
        try:
            with explained():
                self._replace(before, image, within_s)
        except BaseException as error:
            failed = isinstance(error, DeployError)
            # A further signal must not leave the node stopped or without a container.
            with uninterrupted():
                with contextlib.suppress(OSError):
                    why = "does not get ready" if failed else "is not upgraded, because of an interrupt"
                    self._say(f"{node_id} {why}; it gets its old image back")
                self._replace(before, before.image, PATIENCE_S)
            if failed:
                raise DeployError(
                    f"{node_id} does not get ready with the new image, and runs the old one: {error}"
                ) from None
            raise

    def _replace(self, before: NodeContainer, image: str, within_s: float) -> None:
        """Replace a node's container by one with ``image`` on the same data; start it if the old one ran."""
        node_id = before.node_id
        now = self._nodes.found().get(node_id)
        if now is not None:
            self._nodes.stop([node_id])
            remove(self._nodes.client, {Resource("container", now.container_id, node_id)})
        spec = ClusterSpec(self._ids, {node_id: before.port}, image, before.settings)
        create_nodes(self._nodes.client, self._nodes.names, spec, [node_id])
        if before.is_running:
            self._nodes.start([node_id])
            self._monitor.wait_until_alive([node_id], within_s)
            self._monitor.wait_until_caught_up([node_id], within_s)


def leader_last(ids: Sequence[str], leader: str | None) -> list[str]:
    """Return these nodes with the leader last."""
    return sorted(ids, key=lambda node_id: node_id == leader)
