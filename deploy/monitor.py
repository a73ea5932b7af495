"""The nodes of one cluster as they report themselves over HTTP: leadership, readiness and progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from deploy.containers import NodeContainer
from deploy.engine import DeployError, UsageError, in_parallel
from deploy.node_http import error_message, try_get
from deploy.nodes import Nodes
from deploy.waiting import PATIENCE_S, wait_for


class ObservedNode(NamedTuple):
    """A node as seen from outside: its container, and its answer to ``/status``, None if it does not answer."""

    container: NodeContainer
    status: Mapping[str, Any] | None


class Monitor:
    """Observes the nodes of one cluster."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._name = nodes.names.cluster
        self._rng = Random()

    def running(self) -> list[str]:
        """Return the nodes that run and are not paused."""
        return [node_id for node_id, container in self._nodes.found().items() if container.is_running]

    def views(self) -> dict[str, ObservedNode]:
        """Return the state of all nodes; raises ``DeployError`` if there are none."""
        there = self._nodes.there()

        def observe(container: NodeContainer) -> ObservedNode:
            answer = try_get(container.port, "/status") if container.is_running else None
            return ObservedNode(container, answer.body if answer is not None and answer.status == 200 else None)

        return dict(zip(there, in_parallel(observe, there.values()), strict=True))

    def leader(self, not_in: Sequence[str] = (), within_s: float = PATIENCE_S) -> str:
        """Wait for a leader that is not in ``not_in``; return the one of the highest term.

        Raises ``DeployError`` at once if too few nodes run for an election.
        """
        seen: dict[str, ObservedNode] = {}

        def look() -> str | None:
            seen.update(self.views())
            leaders = {
                node.status["term"]: node_id
                for node_id, node in seen.items()
                if node.status is not None and node.status["role"] == "leader" and node_id not in not_in
            }
            voters = [node for node in seen.values() if node.container.state in ("running", "restarting")]
            if not leaders and 2 * len(voters) <= len(seen):
                raise DeployError(f"{self._name} has no leader: {reasons(seen)}")
            return leaders[max(leaders)] if leaders else None

        return wait_for(look, lambda: f"{self._name} has no leader: {reasons(seen)}", within_s)

    def random_follower(self) -> str:
        """Return a node, chosen at random, that runs and does not lead."""
        leader = self.leader()
        followers = [node_id for node_id in self.running() if node_id != leader]
        if not followers:
            raise DeployError(f"no follower runs in {self._name}")
        return self._rng.choice(followers)

    def resolve(self, target: str) -> list[str]:
        """Return the nodes that ``target`` names: a node id, ``leader``, ``random-follower`` or ``all``."""
        there = list(self._nodes.there())
        if target == "leader":
            return [self.leader()]
        if target == "random-follower":
            return [self.random_follower()]
        if target != "all" and target not in there:
            raise UsageError(
                f"{target} is not in {self._name}, which has {', '.join(there)}; leader, random-follower and all are "
                "also allowed"
            )
        return there if target == "all" else [target]

    def wait_until_alive(self, ids: Sequence[str], within_s: float = PATIENCE_S) -> None:
        """Return when each of these nodes answers at all."""
        waiting, ports = set(ids), self._ports()

        def look() -> bool:
            waiting.difference_update([each for each in waiting if try_get(ports[each], "/livez")])
            return not waiting

        def why() -> str:
            return "; ".join(f"{each} does not answer, its container is {self._nodes.state(each)}" for each in waiting)

        wait_for(look, why, within_s)

    def wait_until_ready(self, ids: Sequence[str] = (), within_s: float = PATIENCE_S) -> None:
        """Return when each of these nodes, by default all that run, answers a linearizable read."""
        waiting = dict.fromkeys(ids or self.running(), "it does not answer")
        ports = self._ports()

        def look() -> bool:
            for node_id in list(waiting):
                answer = try_get(ports[node_id], "/readyz", timeout_s=2.0)
                if answer is not None and answer.status == 200:
                    del waiting[node_id]
                elif answer is not None:
                    waiting[node_id] = error_message(answer)
            return not waiting

        def why() -> str:
            return "; ".join(f"{each} ({self._nodes.state(each)}): {message}" for each, message in waiting.items())

        wait_for(look, why, within_s)

    def wait_until_caught_up(self, ids: Sequence[str] = (), within_s: float = PATIENCE_S) -> None:
        """Return when each of these nodes, by default all that run, has applied all that is committed now."""
        waited_for = ids or tuple(self.running())
        # A node that answers a linearizable read knows the commit index of the moment when the read was sent.
        self.wait_until_ready(waited_for, within_s)
        goal = 0

        def statuses() -> list[Mapping[str, Any]]:
            views = self.views()
            return [status for each in waited_for if each in views and (status := views[each].status) is not None]

        def know_the_goal() -> bool:
            nonlocal goal
            found = statuses()
            goal = max((status["commit_index"] for status in found), default=0)
            return len(found) == len(waited_for)

        def look() -> bool:
            found = statuses()
            return len(found) == len(waited_for) and all(status["last_applied"] >= goal for status in found)

        wait_for(know_the_goal, lambda: f"not all of {', '.join(waited_for)} answer", within_s)
        wait_for(look, lambda: f"not all of {', '.join(waited_for)} have applied entry {goal}", within_s)

    def _ports(self) -> dict[str, int]:
        return {node_id: container.port for node_id, container in self._nodes.found().items()}


def reasons(views: Mapping[str, ObservedNode]) -> str:
    """Return why there is no leader, node by node."""
    lines = []
    for node_id, (container, status) in views.items():
        if status is None:
            lines.append(f"{node_id} does not answer" if container.is_running else f"{node_id} is {container.state}")
        else:
            lines.append(f"{node_id}: {status['reason'] or 'it follows ' + str(status['leader'])}")
    return "; ".join(lines)
