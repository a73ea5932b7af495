"""The invariants of a cluster at every moment: Raft's five properties, and no promise before it is on disk.

After each message that an actor handles, ``NodeChecker`` compares what may have changed in that node with what it was
before and with ``ClusterRecord``, which holds what all nodes have done; ``SendChecker`` looks at each message between
nodes. Every ``EVERYTHING_EVENTS`` messages, whole logs and keyspaces are compared. The checks have no effect on the
cluster: it behaves with them as without.
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
"""After how many messages whole logs and keyspaces are compared."""

_FAILED = frozenset({"failed", "full"})
_DAMAGED = frozenset({"flipped", "misdirected"})


class Invariants:
    """Watches a cluster from its first boot on, and raises ``Violation`` out of the simulation's ``step``."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.record = ClusterRecord()
        self._cluster = cluster
        self._send_checker = SendChecker(self.record)
        self._checkers: dict[SimulatedNode, NodeChecker] = {}
        self._found: Violation | None = None
        self._until_everything = EVERYTHING_EVENTS
        self._cluster_id: str | None = None
        self._expected: set[str] = set()
        self._faults_before: dict[str, int] = {}
        """How many events a disk had recorded when its latest process booted."""
        self._faults_before_wipe: dict[str, int] = {}
        """The same, when it was last wiped."""
        self._on_message: dict[type, Callable[[SimulatedNode, ActorCell, Any, Any], None]] = {
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
        self._next_on_send = cluster.network.on_send
        cluster.network.on_send = self._on_send
        cluster.handled.append(self._on_handled)
        cluster.ended.append(self._on_ended)
        cluster.wiped.append(self._on_wiped)
        cluster.role_changed.append(self._on_role_changed)

    # --- for tests and clients

    @property
    def acknowledged_index(self) -> int:
        """The latest index that a client got ``Applied`` for: every later linearizable read must see it."""
        return self.record.acknowledged_index

    def item_at(self, key: str, index: int) -> Any:
        """Return the item that must be under ``key`` after the committed entry at ``index`` is applied, or None."""
        return self.record.committed.item(key, index)

    def expect_end(self, name: str) -> None:
        """Accept that the next process on this machine ends itself: the test makes it do so."""
        self._expected.add(name)

    def check_everything(self) -> None:
        """Compare all logs and keyspaces as a whole; raises ``Violation``, also one that is waiting to be raised."""
        if self._found is not None:
            raise self._found
        for node, checker in self._checkers.items():
            if node.machine.node is node:
                replica = node.replica
                checker.check_everything(node.holder if replica is not None else None)

    # --- hooks

    def _on_handled(self, node: SimulatedNode, cell: ActorCell, message: Any, sender: Any) -> None:
        if self._found is not None:
            raise self._found
        kind = type(message)
        on_message = self._on_message.get(kind)
        if on_message is not None:
            on_message(node, cell, message, sender)
        role = cell.instance
        if isinstance(role, Role) and role.has_replica:
            checker = self._checkers[node]
            checker.check(role)
            if kind is AppendEntriesReply and isinstance(role, Leader):
                checker.check_match(role, message.sender)
        self._until_everything -= 1
        if not self._until_everything:
            self._until_everything = EVERYTHING_EVENTS
            self.check_everything()

    def _on_send(self, source: str, target: str, message: Any) -> None:
        if self._next_on_send is not None:
            self._next_on_send(source, target, message)
        try:
            self._send_checker.check(source, target, message)
        except Violation as violation:
            self._raise_soon(violation)

    def _raise_soon(self, violation: Violation) -> None:
        """Raise outside of any actor: a handler that is running would take it for its own error."""
        if self._found is None:
            self._found = violation
            self._cluster.simulation.scheduler.after(0.0, self.check_everything)

    # --- processes

    def _on_boot(self, node: SimulatedNode, cell: ActorCell, message: Boot, sender: Any) -> None:
        name, disks = node.machine.name, self.record.disks
        disk = disks.get(name)
        if disk is None:
            disks[name] = self.record.all_disks[name, message.incarnation] = ExpectedDisk(name, message.incarnation)
        elif disk.incarnation != message.incarnation:
            raise Violation(f"{name} restarts as {message.incarnation} on the disk of {disk.incarnation}")
        for earlier in [each for each in self._checkers if each.machine is node.machine]:
            del self._checkers[earlier]
        self._checkers[node] = NodeChecker(name, self.record, self._send_checker)
        self._faults_before[name] = len(node.machine.disk.events)

    def _on_recovered(self, node: SimulatedNode, cell: ActorCell, message: Recovered, sender: Any) -> None:
        self.record.disks[node.machine.name].check_recovered(message)
        self._checkers[node].start_from_disk()

    def _on_wiped(self, machine: Machine) -> None:
        self.record.disks.pop(machine.name, None)
        self._faults_before_wipe[machine.name] = len(machine.disk.events)

    def _on_ended(self, machine: Machine, status: int, line: str) -> None:
        name = machine.name
        if name in self._expected:
            self._expected.discard(name)
            return
        happened = machine.disk.events
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
        self.record.disks[node.machine.name].note_save(message)

    def _on_saved(self, node: SimulatedNode, cell: ActorCell, message: Saved, sender: Any) -> None:
        self.record.disks[node.machine.name].note_saved(message.number)

    def _on_apply(self, node: SimulatedNode, cell: ActorCell, message: Apply, sender: Any) -> None:
        checker = self._checkers[node]
        checker.check_apply(cell.instance, message)
        checker.check_answers()

    def _on_answers(self, node: SimulatedNode, cell: ActorCell, message: Any, sender: Any) -> None:
        self._checkers[node].check_answers()

    def _on_request(self, node: SimulatedNode, cell: ActorCell, message: Propose | Read, sender: Any) -> None:
        ask = node.base.receivers.get(getattr(sender, "number", 0))
        if isinstance(ask, Ask):
            self._checkers[node].note_request(ask, message)
