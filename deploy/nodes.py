"""The nodes of one cluster as containers: list, start, stop, kill, pause and unpause them.

Each operation acts only on containers whose state it can change and returns the ids of those, so repeating an
operation is harmless and returns an empty list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from docker.errors import APIError

from deploy.containers import STOP_S, NodeContainer, find
from deploy.engine import DeployError, UsageError, explained, in_parallel
from deploy.names import Names
from deploy.packet_loss import PacketLoss

ALREADY_DONE = re.compile(r"is not running|is already paused")


class Nodes:
    """The nodes of one cluster."""

    def __init__(self, client: Any, names: Names) -> None:
        self.client = client
        self.names = names
        self.packet_loss = PacketLoss(client, names)

    def found(self) -> dict[str, NodeContainer]:
        """Return the nodes' containers by node id."""
        with explained():
            return find(self.client, self.names)

    def there(self) -> dict[str, NodeContainer]:
        """Return the nodes' containers; raises ``DeployError`` if there are none."""
        found = self.found()
        if not found:
            raise DeployError(f"there is no cluster {self.names.cluster} here; `up` creates it")
        return found

    def select(self, ids: Sequence[str]) -> dict[str, NodeContainer]:
        """Return the containers of these nodes; raises ``UsageError`` if one of them does not exist."""
        found = self.found()
        for node_id in ids:
            if node_id not in found:
                cluster = f"{self.names.cluster}, which has {', '.join(found) or 'none'}"
                raise UsageError(f"there is no node {node_id} in {cluster}")
        return {node_id: found[node_id] for node_id in ids}

    def state(self, node_id: str) -> str:
        """Return the state of a node's container, or ``gone``."""
        found = self.found()
        return found[node_id].state if node_id in found else "gone"

    def start(self, ids: Sequence[str]) -> list[str]:
        """Start these nodes, or unpause them, and set their packet-loss rules again."""
        with explained():
            selected = self.select(ids)
            changed = [node_id for node_id in ids if selected[node_id].state not in ("running", "restarting")]

            def start_one(node_id: str) -> None:
                container = selected[node_id]
                act = self.client.api.unpause if container.state == "paused" else self.client.api.start
                act(container.container_id)

            in_parallel(start_one, changed)
            if changed:
                self.packet_loss.apply_again()
        return changed

    def stop(self, ids: Sequence[str]) -> list[str]:
        """Stop these nodes with SIGTERM, so that a leader hands over."""

        def stop_one(container: NodeContainer) -> None:
            if container.state == "paused":
                # A frozen process does not receive SIGTERM.
                self.client.api.unpause(container.container_id)
            self.client.api.stop(container.container_id, timeout=STOP_S)

        return self._change(ids, stop_one, "running", "paused", "restarting")

    def kill(self, ids: Sequence[str]) -> list[str]:
        """Kill these nodes with SIGKILL, all at once; the engine does not restart them."""

        def kill_one(container: NodeContainer) -> None:
            if container.state == "paused":
                self.client.api.unpause(container.container_id)
            self.client.api.kill(container.container_id)

        return self._change(ids, kill_one, "running", "paused", "restarting")

    def pause(self, ids: Sequence[str]) -> list[str]:
        """Freeze these nodes."""
        return self._change(ids, lambda container: self.client.api.pause(container.container_id), "running")

    def unpause(self, ids: Sequence[str]) -> list[str]:
        """Let frozen nodes continue."""
        return self._change(ids, lambda container: self.client.api.unpause(container.container_id), "paused")

    def _change(self, ids: Sequence[str], act: Callable[[NodeContainer], object], *states: str) -> list[str]:
        """Call ``act`` for those of these nodes that are in one of these states; return their ids."""
        with explained():
            selected = self.select(ids)
            changed = [node_id for node_id in ids if selected[node_id].state in states]
            in_parallel(lambda container: unless_done(act, container), [selected[node_id] for node_id in changed])
        return changed


def unless_done(act: Callable[[NodeContainer], object], container: NodeContainer) -> None:
    """Call ``act``; accept that the container has reached the state by itself, or by another command, meanwhile."""
    try:
        act(container)
    except APIError as error:
        if not ALREADY_DONE.search(str(error.explanation)):
            raise
