"""What must hold in a cluster at every moment: Raft's five properties, and that nothing is said before it is durable.

After each message that an actor has handled, what it may have changed is compared with what was there before, and
with what all nodes have done so far; every so many events everything is compared as a whole. Nothing here has any
effect on the cluster: it behaves with the checks as it does without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftkv.actors.messages.node import (
    Apply,
    Boot,
    ReadAt,
    Recovered,
    RoleChanged,
    Save,
    Saved,
)
from raftkv.actors.messages.raft import AppendEntriesReply
from raftkv.actors.messages.requests import (
    ForwardReply,
    Propose,
    Read,
)
from raftkv.actors.roles.leader import Leader
from raftkv.actors.roles.role import Role
from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.endpoint import Ask
from raftkv.exit_status import EXIT_BUG, EXIT_UNUSABLE
from raftkv.simulation.checks.expected_disk import ExpectedDisk
from raftkv.simulation.checks.node_checker import NodeChecker
from raftkv.simulation.checks.record import ClusterRecord
from raftkv.simulation.checks.send_checker import SendChecker
from raftkv.simulation.checks.violation import Violation
from raftkv.simulation.cluster.cluster import Machine, SimulatedCluster, SimulatedNode

__all__ = ["Invariants", "Violation"]

EVERYTHING_EVENTS = 1000
"""After how many events everything is looked at."""

_FAILED = frozenset({"failed", "full"})
_DAMAGED = frozenset({"flipped", "misdirected"})


class Invariants:
    """Watches a cluster from its first boot on, and raises ``Violation`` out of the simulation's ``step``."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.record = ClusterRecord()
        self._cluster = cluster
        self._said = SendChecker(self.record)
        self._lives: dict[SimulatedNode, NodeChecker] = {}
        self._found: Violation | None = None
        self._until_everything = EVERYTHING_EVENTS
        self._cluster_id: str | None = None
        self._expected: set[str] = set()
        self._faults_before: dict[str, int] = {}
        """How many faults a disk had when the latest process on it had its first message."""
        self._faults_before_wipe: dict[str, int] = {}
        self._changes: dict[type, Callable[[SimulatedNode, ActorCell, Any, Any], None]] = {
            Boot: self._on_boot,
            Recovered: self._on_recovered,
            Save: self._on_save,
            Saved: self._on_saved,
            Apply: self._on_apply,
            ReadAt: self._on_answers,
            ForwardReply: self._on_answers,
            Propose: self._on_request,
            Read: self._on_request,
        }
        self._also_said = cluster.network.said
        cluster.network.said = self._on_said
        cluster.handled.append(self._handled)
        cluster.ended.append(self._on_ended)
        cluster.wiped.append(self._on_wiped)
        cluster.role_changed.append(self._on_role_changed)

    # --- for others

    @property
    def acknowledged_index(self) -> int:
        """The latest index that a client was told of: whoever reads from now on must see it."""
        return self.record.acknowledged_index

    def item_at(self, key: str, index: int) -> Any:
        """Return what must be under ``key`` when the committed entry at ``index`` has been applied, or None."""
        return self.record.committed.item(key, index)

    def expect_end(self, name: str) -> None:
        """Let the next process that ends itself on this machine do so: something was done to it on purpose."""
        self._expected.add(name)

    def look_at_everything(self) -> None:
        """Compare everything with everything; raises ``Violation``, also for what was found a moment ago."""
        if self._found is not None:
            raise self._found
        for node, life in self._lives.items():
            if node.machine.node is node:
                replica = node.replica
                life.look_at_everything(node.holder if replica is not None else None)

    # --- what the cluster tells

    def _handled(self, node: SimulatedNode, cell: ActorCell, message: Any, sender: Any) -> None:
        if self._found is not None:
            raise self._found
        kind = type(message)
        change = self._changes.get(kind)
        if change is not None:
            change(node, cell, message, sender)
        role = cell.instance
        if isinstance(role, Role) and role.has_replica:
            life = self._lives[node]
            life.look(role)
            if kind is AppendEntriesReply and isinstance(role, Leader):
                life.match(role, message.sender)
        self._until_everything -= 1
        if not self._until_everything:
            self._until_everything = EVERYTHING_EVENTS
            self.look_at_everything()

    def _on_said(self, source: str, target: str, message: Any) -> None:
        if self._also_said is not None:
            self._also_said(source, target, message)
        try:
            self._said.judge(source, target, message)
        except Violation as violation:
            self._raise_soon(violation)

    def _raise_soon(self, violation: Violation) -> None:
        """Raise where no actor catches it: we may be in the middle of a handler, which takes it for its own error."""
        if self._found is None:
            self._found = violation
            self._cluster.simulation.scheduler.after(0.0, self.look_at_everything)

    # --- lives

    def _on_boot(self, node: SimulatedNode, cell: ActorCell, message: Boot, sender: Any) -> None:
        name, disks = node.machine.name, self.record.durable
        disk = disks.get(name)
        if disk is None:
            disks[name] = self.record.disks[name, message.incarnation] = ExpectedDisk(name, message.incarnation)
        elif disk.incarnation != message.incarnation:
            raise Violation(f"{name} comes back as {message.incarnation} on the disk of {disk.incarnation}")
        for earlier in [life for life in self._lives if life.machine is node.machine]:
            del self._lives[earlier]
        self._lives[node] = NodeChecker(name, self.record, self._said)
        self._faults_before[name] = len(node.machine.disk.happened)

    def _on_recovered(self, node: SimulatedNode, cell: ActorCell, message: Recovered, sender: Any) -> None:
        self.record.durable[node.machine.name].recovered(message)
        self._lives[node].recovered()

    def _on_wiped(self, machine: Machine) -> None:
        self.record.durable.pop(machine.name, None)
        self._faults_before_wipe[machine.name] = len(machine.disk.happened)

    def _on_ended(self, machine: Machine, status: int, line: str) -> None:
        name = machine.name
        if name in self._expected:
            self._expected.discard(name)
            return
        happened = machine.disk.happened
        failed = any(fault.kind in _FAILED for fault in happened[self._faults_before.get(name, 0) :])
        damaged = any(fault.kind in _DAMAGED for fault in happened[self._faults_before_wipe.get(name, 0) :])
        explained = (status == EXIT_BUG and failed and line.startswith("the journal stops after")) or (
            status == EXIT_UNUSABLE and (failed or damaged)
        )
        if not explained:
            self._raise_soon(Violation(f"{name} ends itself with status {status}: {line}"))

    def _on_role_changed(self, event: RoleChanged) -> None:
        if event.cluster_id is not None:
            self._cluster_id = self._cluster_id or event.cluster_id
            if event.cluster_id != self._cluster_id:
                self._raise_soon(
                    Violation(f"{event.id} belongs to cluster {event.cluster_id}, others to {self._cluster_id}")
                )

    # --- disks, stores and answers

    def _on_save(self, node: SimulatedNode, cell: ActorCell, message: Save, sender: Any) -> None:
        self.record.durable[node.machine.name].asked(message)

    def _on_saved(self, node: SimulatedNode, cell: ActorCell, message: Saved, sender: Any) -> None:
        self.record.durable[node.machine.name].saved(message.number)

    def _on_apply(self, node: SimulatedNode, cell: ActorCell, message: Apply, sender: Any) -> None:
        life = self._lives[node]
        life.applied(cell.instance, message)
        life.see_answers()

    def _on_answers(self, node: SimulatedNode, cell: ActorCell, message: Any, sender: Any) -> None:
        self._lives[node].see_answers()

    def _on_request(self, node: SimulatedNode, cell: ActorCell, message: Propose | Read, sender: Any) -> None:
        ask = node.base.receivers.get(getattr(sender, "number", 0))
        if isinstance(ask, Ask):
            self._lives[node].asked(ask, message)
