"""One run of a cluster, drawn from a seed: first with faults, then without, when the cluster must recover.

The phases, in virtual time: until the cluster has handled ``RunPlan.events`` messages, clients write and read while the
``Nemesis`` injects faults. Then all faults end, and within bounded times the cluster must elect a leader, take a write
and a read through every node, and make all replicas equal. Last, the history of the clients is judged. A plan gives the
same run, message by message, in every process.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Any

import msgspec

from raftkv.actors.messages.requests import Applied, ReadResult
from raftkv.actors.node import Node
from raftkv.actors.store import Store
from raftkv.config.settings import Limits
from raftkv.simulation.checks.history import History
from raftkv.simulation.checks.invariants import Invariants, Violation
from raftkv.simulation.clients import Clients
from raftkv.simulation.cluster.cluster import SIMULATED_LIMITS, SimulatedCluster, SimulatedNode
from raftkv.simulation.cluster.trace import Trace
from raftkv.simulation.faults.faults import Fault, Nemesis, draw

EVENTS = 20_000
"""How many messages actors handle under faults."""

QUIET_MS = 6_000.0
"""How long a quiet end is: longer than any request may take."""

QUIET_EVERY = 4
"""Runs of seeds that this divides end with a quiet time."""

LONGEST_MS = 300_000.0
"""How long the faults last at most."""

FOUNDING_MS = 20_000.0
RECOVERY_MS = 5_000.0
CATCHING_UP_MS = 5_000.0
"""How long a healthy cluster may take to be founded, to have one leader that all follow, to have equal replicas."""


class RunPlan(msgspec.Struct, frozen=True):
    """Everything that determines a run."""

    seed: int
    nodes: int
    events: int
    shuffled: bool
    calm_start: bool
    limits: Limits
    faults: tuple[Fault, ...]


def plan(
    seed: int,
    *,
    nodes: int = 0,
    events: int = EVENTS,
    classes: Collection[str] | None = None,
    faults: Sequence[Fault] | None = None,
) -> RunPlan:
    """Return the plan of this seed; an argument that is given replaces what the seed would draw."""
    random = Random(f"plan of {seed}")
    size = random.choice([1, 2, 3, 3, 3, 3, 4, 5, 5, 7])
    shuffled = random.random() < 0.3
    calm_start = random.random() < 0.8
    limits = random.choice([SIMULATED_LIMITS, SIMULATED_LIMITS, TIGHT_LIMITS])
    drawn = draw(seed, classes) if faults is None else faults
    return RunPlan(seed, nodes or size, events, shuffled, calm_start, limits, tuple(drawn))


TIGHT_LIMITS = msgspec.structs.replace(
    SIMULATED_LIMITS, append_bytes=2000, inflight_bytes=6000, uncommitted_bytes=20_000, held_requests=5
)
"""So tight that runs reach every limit."""


class RunResult(msgspec.Struct, frozen=True):
    """The result of a run; ``violation`` is empty if the run passed."""

    seed: int
    nodes: int
    events: int
    virtual_ms: float
    violation: str
    faults: tuple[Fault, ...]
    """The faults that took effect, with the names of their targets."""
    answers: dict[str, int]
    """How many requests ended with which kind of answer."""
    elections: int

    @property
    def ok(self) -> bool:
        """Whether the run passed."""
        return not self.violation


class Run:
    """A cluster with its clients, its faults and its checks."""

    def __init__(
        self, plan: RunPlan, *, node_class: type[Node] = Node, write: Callable[[str], None] | None = None
    ) -> None:
        """Pass each line of the trace to ``write``, if it is given."""
        self.plan = plan
        self.cluster = SimulatedCluster(
            plan.nodes, plan.seed, shuffled=plan.shuffled, node_class=node_class, limits=plan.limits
        )
        self.trace = Trace(self.cluster, write)
        self.invariants = Invariants(self.cluster)
        self.history = History()
        self.clients = Clients(self.cluster, self.history, plan.seed)
        self.nemesis = Nemesis(self.cluster, plan.faults, plan.seed)
        self.nemesis.on_fault = self._on_fault
        self.marks: list[tuple[float, float | None, str, str]] = []
        """Faults and changes of role for the timeline: from when, until when (ms), where, what."""
        self.terms: set[int] = set()
        """The terms that had a leader."""
        self.cluster.role_changed.append(self._on_role_changed)
        self.cluster.wiped.append(lambda machine: self.history.wiped(machine.name, self.cluster.now_ms))

    def run(self) -> RunResult:
        """Run all phases and return the result."""
        violation = ""
        try:
            self._run_with_faults()
            self._recover()
            self._check_history()
        except AssertionError as error:
            violation = f"{error}\n{self.trace.last()}"
        except Exception as error:
            # The error is not the cluster's but the simulation's, and must not look as if the run had passed.
            violation = f"{type(error).__name__} in the simulation: {error}\n{traceback.format_exc()}"
        for system in self.cluster.simulation.systems.values():
            # Otherwise coroutines that never started would warn.
            system.loop.close()
        return RunResult(
            self.plan.seed,
            self.plan.nodes,
            self.cluster.events,
            self.cluster.now_ms,
            violation,
            tuple(self.nemesis.done),
            self.clients.answers,
            len(self.terms),
        )

    # --- phases

    def _run_with_faults(self) -> None:
        cluster = self.cluster
        cluster.boot()
        if self.plan.calm_start:
            self._until(self._serves, FOUNDING_MS, "a healthy cluster was not founded")
        self.clients.start()
        self.nemesis.start()
        scheduler = cluster.simulation.scheduler
        end_ms = scheduler.now_ms + LONGEST_MS
        while cluster.events < self.plan.events and scheduler.now_ms < end_ms and scheduler.step():
            if not self.nemesis.may_damage:
                self.nemesis.may_damage = self._is_founded()

    def _recover(self) -> None:
        self.trace.note("", "all faults end")
        self.nemesis.heal()
        self._until(self._serves, RECOVERY_MS, "with no fault left, no leader is followed by all nodes")
        self.clients.stop()
        written: set[tuple[str, str]] = set()
        for name in self._undamaged():
            self._request_until_answered(name, "put", Applied, written)
        self._until(
            lambda: len(written) == len(self._undamaged()), RECOVERY_MS, "with no fault left, writes are not applied"
        )
        read: set[tuple[str, str]] = set()
        for name in self._undamaged():
            for kind in ("get", "stale"):
                self._request_until_answered(name, kind, ReadResult, read)
        everything = {(name, kind) for name in self._undamaged() for kind in ("get", "stale")}
        self._until(lambda: read == everything, RECOVERY_MS, "with no fault left, reads are not answered")
        self._until(self._all_equal, CATCHING_UP_MS, "with no fault left, the replicas do not become equal")
        if self.plan.seed % QUIET_EVERY == 0:
            self.cluster.simulation.run_ms(QUIET_MS)
            self._check_nothing_waits()

    def _check_nothing_waits(self) -> None:
        """Check that no request is kept longer than the longest one may take."""
        for node in self._undamaged_nodes():
            assert node is not None, "a node has stopped since the replicas became equal"
            replica, store = node.replica, node.actor(Store)
            assert replica is not None, "the replica changes its role in a quiet cluster"
            rounds = getattr(node.holder, "rounds", None)
            waiting = {
                "forwarded requests": replica.requests.forwarded,
                "held requests": replica.requests.held,
                "saves": replica.saves.pending,
                "reads in the store": store.waiting,
                "reads that wait for a round": rounds.waiting if rounds is not None else (),
            }
            for name, items in waiting.items():
                if items:
                    raise Violation(
                        f"{node.machine.name} still keeps {name} after {QUIET_MS / 1000:g} s without requests: {items}"
                    )

    def _request_until_answered(self, name: str, kind: str, answer: type, done: set[tuple[str, str]]) -> None:
        """Send a request through this node until it is answered: connections may just have been lost."""

        def end(reply: Any) -> None:
            if isinstance(reply, answer):
                done.add((name, kind))
            else:
                self._request_until_answered(name, kind, answer, done)

        self.clients.request_once(name, kind, end)

    def _check_history(self) -> None:
        self.invariants.check_everything()
        verdict = self.history.verdict(self._finals(), log=self.invariants.record.committed.applied_commands())
        if not verdict.ok:
            raise Violation(f"the history of the clients has no explanation:\n{verdict.text}")

    # --- states of the cluster

    def _finals(self) -> dict[str, dict[str, bytes | None]]:
        """Return the value that each undamaged node has at the end under each key of the history."""
        finals: dict[str, dict[str, bytes | None]] = {}
        keys = self.history.keys()
        for node in self._undamaged_nodes():
            assert node is not None, "a node has stopped since the replicas became equal"
            get = node.actor(Store).keyspace.get
            items = {key: get(key) for key in keys}
            finals[node.machine.name] = {key: item.value if item else None for key, item in items.items()}
        return finals

    def _undamaged(self) -> list[str]:
        """Return the machines whose disk was neither damaged nor wiped."""
        return [name for name in self.cluster.names if name not in self.nemesis.damaged]

    def _undamaged_nodes(self) -> list[SimulatedNode | None]:
        return [self.cluster.machines[name].node for name in self._undamaged()]

    def _is_founded(self) -> bool:
        return all(node is not None and node.replica and node.replica.founding for node in self._undamaged_nodes())

    def _serves(self) -> bool:
        """Whether there is a leader that every undamaged node follows."""
        replicas = [node.replica if node is not None else None for node in self._undamaged_nodes()]
        leaders = {(replica.current_term, replica.leader_id) if replica else None for replica in replicas}
        return len(leaders) == 1 and None not in leaders and None not in {leader[1] for leader in leaders if leader}

    def _all_equal(self) -> bool:
        """Whether all undamaged nodes have the same log and have applied all of it."""
        states = []
        for node in self._undamaged_nodes():
            replica = node.replica if node is not None else None
            if replica is None or replica.last_applied < replica.log.last_index:
                return False
            states.append((replica.log.last_index, replica.log.last_term))
        return len(set(states)) == 1

    def _until(self, condition: Callable[[], bool], within_ms: float, failure: str) -> None:
        if not self.cluster.simulation.run_until(condition, within_ms):
            states = "; ".join(self._state(name) for name in self.cluster.names)
            raise Violation(f"{failure} within {within_ms / 1000:g} s: {states}")

    def _state(self, name: str) -> str:
        machine = self.cluster.machines[name]
        if machine.node is None:
            return f"{name} is down ({machine.ended[1] if machine.ended else 'never started'})"
        replica = machine.node.replica
        if replica is None:
            return f"{name} has no replica"
        return (
            f"{name} {machine.node.role} term {replica.current_term} leader {replica.leader_id} log "
            f"{replica.log.last_index} committed {replica.commit_index} applied {replica.last_applied}"
        )

    # --- hooks

    def _on_fault(self, fault: Fault, names: list[str]) -> None:
        for name in names or [""]:
            self.trace.note(name, str(fault))
        now_ms = self.cluster.now_ms
        until_ms = now_ms + fault.for_ms if fault.for_ms else None
        for name in names or ["network"]:
            self.marks.append((now_ms, until_ms, name, f"{fault.kind} {fault.value:g}"))

    def _on_role_changed(self, event: Any) -> None:
        if event.role == "leader":
            self.terms.add(event.term)
            now_ms = self.cluster.now_ms
            self.marks.append((now_ms, None, event.id, f"leads in term {event.term}"))
