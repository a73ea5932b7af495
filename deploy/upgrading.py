"""A rolling upgrade: one node at a time gets another image, while the others serve."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy.containers import Found
from deploy.engine import DeployError, explained
from deploy.interrupts import uninterrupted
from deploy.making import ClusterSpec, Part, ids_to_be, make, remove
from deploy.waiting import PATIENCE_S

if TYPE_CHECKING:
    from deploy.cluster import Cluster


def upgrade(cluster: Cluster, image: str, within_s: float) -> list[str]:
    """Give every node the image with this id and return those that had another; raises ``DeployError``.

    The next node is taken only when all that ran have applied whatever was committed, so that a majority always has
    everything. The leader comes last: it hands over once, to a node that has the new image already. A node that does
    not get ready with the new image within ``within_s`` gets its old one back, and the upgrade ends there.
    """
    there = cluster.found()
    ids = ids_to_be(cluster.client, cluster.names)
    ran = [node_id for node_id, found in there.items() if found.runs]
    outdated = [node_id for node_id, found in there.items() if found.image != image]
    leader = cluster.leader() if ran else None
    for node_id in in_turn(outdated, leader):
        if ran:
            cluster.wait_until_caught_up(*ran)
        cluster.say(f"upgrading {node_id}")
        before = there[node_id]
        try:
            with explained():
                replace(cluster, ids, before, image, within_s)
        except BaseException as error:
            failed = isinstance(error, DeployError)
            # Without a second thought, or the node would stay stopped, or be gone.
            with uninterrupted():
                with contextlib.suppress(OSError):
                    why = "does not get ready" if failed else "is not upgraded, because of an interrupt"
                    cluster.say(f"{node_id} {why}; it gets its old image back")
                replace(cluster, ids, before, before.image, PATIENCE_S)
            if failed:
                raise DeployError(
                    f"{node_id} does not get ready with the new image, and runs the old one: {error}"
                ) from None
            raise
    return outdated


def in_turn(ids: list[str], leader: str | None) -> list[str]:
    """Return these nodes with the leader last."""
    return sorted(ids, key=lambda node_id: node_id == leader)


def replace(cluster: Cluster, ids: Sequence[str], before: Found, image: str, within_s: float) -> None:
    """Put a container of another image in the place of a node's, on the same data; start it if it ran."""
    node_id = before.node_id
    now = cluster.found().get(node_id)
    if now is not None:
        cluster.stop(node_id)
        remove(cluster.client, {Part("container", now.container, node_id)})
    shape = ClusterSpec(ids, {node_id: before.port}, image, before.settings)
    make(cluster.client, cluster.names, shape, [node_id])
    if before.runs:
        cluster.start(node_id, within_s=within_s)
        cluster.wait_until_caught_up(node_id, within_s=within_s)
