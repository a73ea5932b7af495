"""A cluster of simulated machines, each with a disk and a clock that outlive the processes on it.

A process is a real node: its actors, its gateway and its recovery from disk are those of ``raftkv serve``. Only the
system base, the clock, the disk and the transport are simulated. ``SimulatedCluster`` has hooks (lists of functions) by
which the checks and the trace see every handled message.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Any

from thespian.actors import ActorAddress

from raftkv.actors.gateway import Gateway
from raftkv.actors.journal import Journal
from raftkv.actors.messages.base import RoleName
from raftkv.actors.messages.node import (
    AdvertiseAddress,
    Assume,
    Boot,
    Flush,
    RoleChanged,
)
from raftkv.actors.node import Node
from raftkv.actors.observer import Observe, Observer
from raftkv.actors.roles.role import Role
from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.eventloop import EventLoopSystem, remote_address
from raftkv.actors.system.base.message_loop import Receiver
from raftkv.actors.system.virtual.scheduler import VirtualClock
from raftkv.actors.system.virtual.simulation import SimulatedBase, Simulation
from raftkv.config.settings import Limits, Timing
from raftkv.environment import Environment
from raftkv.exit_status import EXIT_UNUSABLE
from raftkv.journal.data_directory import DataDirectoryError, open_data_directory
from raftkv.raft.replica import Replica
from raftkv.simulation.cluster.disk import PowerCut, SimulatedDisk
from raftkv.simulation.cluster.network import Network

NODE = "node"
DIRECTORY = "/data"

SEGMENT_BYTES = 64 << 10
"""Small, so that some thousand entries fill several segments."""

NORMAL_HANDLING_MS = 0.02
"""How long a healthy machine takes to handle a message, on average."""

SIMULATED_LIMITS = Limits(segment_bytes=SEGMENT_BYTES)


class SimulatedNode:
    """One process of a node, from its start to its end."""

    def __init__(self, machine: Machine, system: EventLoopSystem, node: ActorAddress) -> None:
        self.machine = machine
        self.system = system
        self.base: SimulatedBase = system.base  # type: ignore[assignment]
        self.address = node
        self.recovered = False
        self.roles: list[Role] = []
        """The role actors; empty before the node has created them."""
        self.holder: Role | None = None
        """The role that had the replica last."""
        rng = Random(machine.cluster.simulation.random.random())
        self.gateway = Gateway(self._ask, rng=rng, loop=self.base.loop)
        self.rng = rng

    def _ask(self, message: object, timeout_s: float) -> Any:
        return self.system.ask(self.address, message, timeout_s)

    def tell(self, message: Any) -> None:
        """Send a message to the node's parent actor."""
        self.system.tell(self.address, message)

    def actor(self, of: type) -> Any:
        """Return the node's actor of this class, or None."""
        for receiver in self.base.receivers.values():
            if isinstance(receiver, ActorCell) and isinstance(receiver.instance, of):
                return receiver.instance
        return None

    @property
    def replica(self) -> Replica | None:
        """The replica; None before it exists and while one role hands it to another."""
        holder = self.holder
        if holder is not None and holder.has_replica:
            return holder.replica
        self.holder = next((role for role in self.roles if role.has_replica), None)
        return None if self.holder is None else self.holder.replica

    @property
    def role(self) -> RoleName | None:
        """The role that has the replica."""
        return None if self.replica is None or self.holder is None else self.holder.role


class Machine:
    """A disk, a clock, and the process that runs there, if any; a ``Host`` of the network."""

    def __init__(self, cluster: SimulatedCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.disk = SimulatedDisk()
        self.clock = VirtualClock(cluster.simulation.scheduler, cluster.simulation.random.uniform(0.0, 1e6))
        self.node: SimulatedNode | None = None
        self.process_number = 0
        self.incarnations = 0
        self.is_stopped = False
        self.ended: tuple[int, str] | None = None
        """The exit status and the line with which the last process stopped itself."""
        self.is_lost = False
        """Whether the machine went down with its process, so that no connection was closed."""
        self.handling_ms = NORMAL_HANDLING_MS
        """How long handling a message takes, on average."""
        self.sync_ms: tuple[float, float] = (0.1, 1.0)
        """How long writing and syncing a batch of the journal takes: (least, most)."""
        self.hangs_until_ms = 0.0
        """No sync ends before this moment."""
        self.resigned = False
        """Whether the process was asked to stop."""
        self.crashed_ms = float("-inf")
        """When power last failed."""
        self.troubled_ms = float("-inf")
        """When the process was last paused or slow, or its clock wrong."""

    # --- a host

    @property
    def is_up(self) -> bool:
        """Whether a process runs."""
        return self.node is not None

    @property
    def is_listening(self) -> bool:
        """Whether a process runs and has read its journal."""
        return self.node is not None and self.node.recovered

    def tell(self, message: Any) -> None:
        """Deliver a message of the node's own link."""
        if self.node is not None:
            self.node.tell(message)

    def deliver(self, source: str, target: str, sender: str, message: Any) -> None:
        """Deliver a message of a peer."""
        if self.node is not None:
            self.node.base.deliver(source, target, sender, message)

    def send(self, peer: str, target: str, source: str, message: Any) -> None:
        """Send a message of the node to a peer (as its transport)."""
        self.cluster.network.send(self.name, peer, target, source, message)

    def is_well_since(self, node: SimulatedNode, since_ms: float) -> bool:
        """Whether this process has run without interruption, delay or clock fault since that time."""
        troubled = self.is_stopped or self.handling_ms > NORMAL_HANDLING_MS or self.clock.rate != 1.0 or self.resigned
        return self.node is node and not troubled and self.troubled_ms < since_ms

    # --- a process

    def boot(self) -> None:
        """Start a process from the disk; it may stop itself at once, see ``ended``."""
        assert self.node is None, f"{self.name} is up already"
        cluster = self.cluster
        self.process_number += 1
        self.ended = None
        self.resigned = False
        self.is_lost = False
        try:
            directory = open_data_directory(self.disk, DIRECTORY, self.name, new_incarnation=self._new_incarnation)
        except DataDirectoryError as error:
            self._stop_itself(EXIT_UNUSABLE, str(error))
            return
        except PowerCut:
            self.lose_power()
            return
        system = cluster.simulation.start(self.name, clock=self.clock, cost=self._cost, transport=self)
        loop: Any = system.base.loop
        loop.on_task_failed = self._task_failed
        node = system.createActor(cluster.node_class, globalName=NODE)
        self.node = SimulatedNode(self, system, node)
        environment = Environment(
            directory=DIRECTORY,
            disk=self.disk,
            clock=self.clock,
            rng=self.node.rng,
            timing=cluster.timing,
            limits=cluster.limits,
            fail=self._stop_itself,
        )
        observer = system.createActor(Observer)
        system.tell(observer, Observe(self._on_event, environment))
        initial_cluster = tuple((name, f"{name}:5001") for name in cluster.machines)
        boot = Boot(
            node_id=self.name,
            incarnation=directory.identity.incarnation,
            initial_cluster=initial_cluster,
            peer_address=lambda peer: remote_address(peer, NODE),
            observer=observer,
            http=f"{self.name}:4001",
            environment=environment,
        )
        self.node.tell(boot)
        cluster.network.update_connections()

    def crash(self, random: Random | None = None) -> None:
        """Lose power: the process is gone, and everything that was not synced, or with ``random`` any part of it.

        Peers may see their connections end at once, or notice only the silence.
        """
        if random is not None:
            self._write_in_part(random)
            self.is_lost = random.random() < 0.5
        self.crashed_ms = self.cluster.now_ms
        self._end()
        if random is None:
            self.disk.crash()
        else:
            self.disk.crash_at_random(random)
        self.cluster.network.update_connections()

    def _write_in_part(self, random: Random) -> None:
        """Write a part of the batch that the journal is writing.

        The dispatcher of the journal does all of the work at the end of its duration, so that nothing is half-written
        before.
        """
        journal = None if self.node is None else self.node.actor(Journal)
        if journal is not None and type(journal._myRef.dispatcher.next_message) is Flush and not self.disk.is_cut:
            self.disk.cut_after(random.randint(1, 4))
            with contextlib.suppress(PowerCut):
                journal.receiveMessage(Flush(), None)

    def lose_power(self) -> None:
        """Crash in the middle of a disk operation, as ``SimulatedDisk.cut_after`` planned."""
        self.crash(self.cluster.simulation.random)
        for hook in self.cluster.power_lost:
            hook(self)

    def kill(self) -> None:
        """Kill the process; its writes remain in the page cache of the system."""
        self._end()
        self.disk.kill()
        self.cluster.network.update_connections()

    def _end(self) -> None:
        if self.node is not None:
            self.node.base.kill()
            self.node = None
        self.is_stopped = False

    def stop(self) -> None:
        """Pause the process, as SIGSTOP does."""
        if self.node is not None and not self.is_stopped:
            self.is_stopped = True
            self.node.base.pause()
            self.cluster.network.update_connections()

    def go_on(self) -> None:
        """Resume the process, as SIGCONT does."""
        if self.node is not None and self.is_stopped:
            self.is_stopped = False
            self.node.base.resume()
            self.cluster.network.update_connections()

    def wipe(self) -> None:
        """Kill the process and replace the disk by an empty one; the node restarts as another incarnation."""
        self.kill()
        self.disk.wipe()
        for hook in self.cluster.wiped:
            hook(self)

    def _new_incarnation(self) -> str:
        self.incarnations += 1
        return f"{self.incarnations:012x}-{self.name}"

    def _stop_itself(self, status: int, line: str) -> None:
        self.kill()
        self.ended = (status, line)
        self.cluster.on_ended(self, status, line)

    def _on_event(self, event: RoleChanged | AdvertiseAddress) -> None:
        node = self.node
        if node is not None and isinstance(event, RoleChanged):
            node.gateway.on_role_changed(event)
            if not node.recovered:
                node.recovered = True
                self.cluster.network.update_connections()
            self.cluster.on_role_changed(event)

    def _task_failed(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error))
        raise AssertionError(f"a task of {self.name} ended with an unhandled {error!r}:\n{text}")

    def _cost(self, receiver: Receiver, message: Any) -> float:
        random = self.cluster.simulation.random
        if type(message) is Flush and getattr(receiver, "dispatcher", None) is not self.node_dispatcher:
            due_ms = self.hangs_until_ms - self.cluster.simulation.scheduler.now_ms
            return max(due_ms, random.uniform(*self.sync_ms))
        return random.random() * 2 * self.handling_ms

    @property
    def node_dispatcher(self) -> Any:
        """The dispatcher of all actors without a thread of their own."""
        return None if self.node is None else self.node.base.dispatcher


class SimulatedCluster:
    """The machines n1, n2, … and the network between them."""

    def __init__(
        self,
        size: int,
        seed: int,
        *,
        shuffled: bool = False,
        node_class: type[Node] = Node,
        timing: Timing | None = None,
        limits: Limits = SIMULATED_LIMITS,
    ) -> None:
        self.simulation = Simulation(seed, shuffled=shuffled, on_handled=self._watch, on_raised=self._raised)
        self.node_class = node_class
        self.timing = timing or Timing()
        self.limits = limits
        self.events = 0
        """How many messages actors have handled."""
        self.machines: dict[str, Machine] = {}
        for number in range(1, size + 1):
            self.machines[f"n{number}"] = Machine(self, f"n{number}")
        random = Random(self.simulation.random.random())
        self.network = Network(self.simulation.scheduler, random, dict(self.machines))
        self.handled: list[Callable[[SimulatedNode, ActorCell, Any, Any], None]] = []
        """Called after each message that an actor has handled: node, cell, message, sender."""
        self.ended: list[Callable[[Machine, int, str], None]] = []
        """Called after a process has stopped itself: machine, exit status, line."""
        self.power_lost: list[Callable[[Machine], None]] = []
        """Called after the power of a machine failed in the middle of a disk operation."""
        self.wiped: list[Callable[[Machine], None]] = []
        """Called after the disk of a machine was replaced by an empty one."""
        self.role_changed: list[Callable[[RoleChanged], None]] = []
        """Called with each change of role, term or leader of a node."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the machines."""
        return tuple(self.machines)

    @property
    def now_ms(self) -> float:
        """Virtual time, which no machine's clock shows."""
        return self.simulation.scheduler.now_ms

    def boot(self, names: Collection[str] | None = None) -> None:
        """Start the machines that are not up; all by default."""
        for name in self.names if names is None else names:
            if not self.machines[name].is_up:
                self.machines[name].boot()

    def leaders(self) -> list[str]:
        """Return the nodes whose leader has the replica."""
        return [name for name, node in self.nodes().items() if node.role == "leader"]

    def nodes(self) -> Mapping[str, SimulatedNode]:
        """Return the processes that run."""
        return {name: machine.node for name, machine in self.machines.items() if machine.node is not None}

    def on_ended(self, machine: Machine, status: int, line: str) -> None:
        """Call the hooks after a process has stopped itself."""
        for hook in self.ended:
            hook(machine, status, line)

    def on_role_changed(self, event: RoleChanged) -> None:
        """Call the hooks with a change of role, term or leader."""
        for hook in self.role_changed:
            hook(event)

    def _raised(self, base: SimulatedBase, error: BaseException) -> None:
        if isinstance(error, PowerCut):
            self.machines[base.node_id].lose_power()

    def _watch(self, base: SimulatedBase, cell: ActorCell, message: Any, sender: Any) -> None:
        self.events += 1
        node = self.machines[base.node_id].node
        if node is None or node.base is not base:
            return
        if type(message) is Boot:
            actors = [each.instance for each in base.receivers.values() if isinstance(each, ActorCell)]
            node.roles = [actor for actor in actors if isinstance(actor, Role)]
        elif type(message) is Assume and isinstance(cell.instance, Role):
            node.holder = cell.instance
        for hook in self.handled:
            hook(node, cell, message, sender)
