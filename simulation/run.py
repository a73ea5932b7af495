"""One life of a cluster, all of it drawn from a seed: trouble first, and then none, when all must be well again."""

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
from raftkv.simulation.cluster.clients import Clients
from raftkv.simulation.cluster.cluster import SIMULATED_LIMITS, SimulatedCluster, SimulatedNode
from raftkv.simulation.faults.faults import Fault, Nemesis, draw
from raftkv.simulation.report.trace import Trace

EVENTS = 20_000
"""How many messages actors handle in the first phase."""

QUIET_MS = 6_000.0
"""Longer than any client waits."""

QUIET_EVERY = 4
"""The lives of which seeds end with such a quiet time."""

LONGEST_MS = 300_000.0
"""For how long the first phase goes on at most."""

FOUNDING_MS = 20_000.0
RECOVERY_MS = 5_000.0
CATCHING_UP_MS = 5_000.0
"""How long a healthy cluster may take to be founded, to have a leader for all, and to be the same everywhere."""


class RunPlan(msgspec.Struct, frozen=True):
    """All that a life is made from."""

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
    """Return the plan of this seed; what is given here is not drawn."""
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
"""So tight that every limit is met."""


class RunResult(msgspec.Struct, frozen=True):
    """What became of a life; ``violation`` is empty if all was well."""

    seed: int
    nodes: int
    events: int
    virtual_ms: float
    violation: str
    faults: tuple[Fault, ...]
    """Those that came to pass."""
    answers: dict[str, int]
    elections: int

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.violation


class Run:
    """A cluster, its clients, its faults, and those who watch."""

    def __init__(
        self, plan: RunPlan, *, node_class: type[Node] = Node, write: Callable[[str], None] | None = None
    ) -> None:
        """Give each line of the trace to ``write``, if that is given."""
        self.plan = plan
        self.cluster = SimulatedCluster(
            plan.nodes, plan.seed, shuffled=plan.shuffled, node_class=node_class, limits=plan.limits
        )
        self.trace = Trace(self.cluster, write)
        self.invariants = Invariants(self.cluster)
        self.history = History()
        self.clients = Clients(self.cluster, self.history, plan.seed)
        self.nemesis = Nemesis(self.cluster, plan.faults, plan.seed)
        self.nemesis.told = self._tell_fault
        self.marks: list[tuple[float, float | None, str, str]] = []
        """Faults and changes of role, for a picture: from when, until when, where, what."""
        self.terms: set[int] = set()
        self.cluster.role_changed.append(self._on_role_changed)
        self.cluster.wiped.append(lambda machine: self.history.wiped(machine.name, self.cluster.now_ms))

    def run(self) -> RunResult:
        """Live, and return what became of it."""
        violation = ""
        try:
            self._live()
            self._recover()
            self._judge()
        except AssertionError as error:
            violation = f"{error}\n{self.trace.last()}"
        except Exception as error:
            # Not a word of the cluster's: the simulation itself is wrong, which must not look as if all were well.
            violation = f"{type(error).__name__} in the simulation: {error}\n{traceback.format_exc()}"
        for system in self.cluster.simulation.systems.values():
            # Or coroutines that have not begun yet would complain.
            system.loop.close()
        return RunResult(
            self.plan.seed,
            self.plan.nodes,
            self.cluster.events,
            self.cluster.now_ms,
            violation,
            tuple(self.nemesis.done),
            self.clients.outcomes,
            len(self.terms),
        )

    # --- phases

    def _live(self) -> None:
        cluster = self.cluster
        cluster.boot()
        if self.plan.calm_start:
            self._until(self._serves, FOUNDING_MS, "a healthy cluster was not founded")
        self.clients.begin()
        self.nemesis.begin()
        scheduler = cluster.simulation.scheduler
        end_ms = scheduler.now_ms + LONGEST_MS
        while cluster.events < self.plan.events and scheduler.now_ms < end_ms and scheduler.step():
            if not self.nemesis.may_damage:
                self.nemesis.may_damage = self._is_founded()

    def _recover(self) -> None:
        self.trace.note("", "all faults end")
        self.nemesis.heal()
        self._until(self._serves, RECOVERY_MS, "without any fault the cluster does not get to a leader for all")
        self.clients.end()
        written: set[tuple[str, str]] = set()
        for name in self._sound():
            self._ask_until_done(name, "put", Applied, written)
        self._until(lambda: len(written) == len(self._sound()), RECOVERY_MS, "without any fault writes are not done")
        read: set[tuple[str, str]] = set()
        for name in self._sound():
            for kind in ("get", "stale"):
                self._ask_until_done(name, kind, ReadResult, read)
        everything = {(name, kind) for name in self._sound() for kind in ("get", "stale")}
        self._until(lambda: read == everything, RECOVERY_MS, "without any fault reads are not answered")
        self._until(self._all_equal, CATCHING_UP_MS, "without any fault the replicas do not become equal")
        if self.plan.seed % QUIET_EVERY == 0:
            self.cluster.simulation.run_ms(QUIET_MS)
            self._nobody_waits()

    def _nobody_waits(self) -> None:
        """See that every request has been forgotten when the time of the longest one is over."""
        for node in self._sound_nodes():
            assert node is not None, "a node has ended since all were equal"
            replica, store = node.replica, node.actor(Store)
            assert replica is not None, "a quiet node hands its replica on"
            rounds = getattr(node.holder, "rounds", None)
            waiting = {
                "requests passed on": replica.requests.forwarded,
                "requests held": replica.requests.held,
                "saves": replica.saves.pending,
                "reads in the store": store.waiting,
                "reads in a round": rounds.waiting if rounds is not None else (),
            }
            for what, items in waiting.items():
                if items:
                    raise Violation(
                        f"{node.machine.name} still keeps {what} after {QUIET_MS / 1000:g} s of quiet: {items}"
                    )

    def _ask_until_done(self, name: str, kind: str, answer: type, done: set[tuple[str, str]]) -> None:
        """Ask this node, again if need be: just now, connections may still have been lost."""

        def end(reply: Any) -> None:
            if isinstance(reply, answer):
                done.add((name, kind))
            else:
                self._ask_until_done(name, kind, answer, done)

        self.clients.ask_once(name, kind, end)

    def _judge(self) -> None:
        self.invariants.look_at_everything()
        verdict = self.history.verdict(self._finals(), log=self.invariants.record.committed.carried_out())
        if not verdict.ok:
            raise Violation(f"the history of the clients can't be explained:\n{verdict.text}")

    # --- looking

    def _finals(self) -> dict[str, dict[str, bytes | None]]:
        """Return what each sound node has in the end for each key that a client asked for."""
        finals: dict[str, dict[str, bytes | None]] = {}
        keys = self.history.keys()
        for node in self._sound_nodes():
            assert node is not None, "a node has ended since all were equal"
            get = node.actor(Store).keyspace.get
            items = {key: get(key) for key in keys}
            finals[node.machine.name] = {key: item.value if item else None for key, item in items.items()}
        return finals

    def _sound(self) -> list[str]:
        """Return the machines whose disk holds what it should."""
        return [name for name in self.cluster.names if name not in self.nemesis.out]

    def _sound_nodes(self) -> list[SimulatedNode | None]:
        return [self.cluster.machines[name].node for name in self._sound()]

    def _is_founded(self) -> bool:
        return all(node is not None and node.replica and node.replica.founding for node in self._sound_nodes())

    def _serves(self) -> bool:
        """Whether there is a leader that every sound node follows."""
        replicas = [node.replica if node is not None else None for node in self._sound_nodes()]
        leaders = {(replica.current_term, replica.leader_id) if replica else None for replica in replicas}
        return len(leaders) == 1 and None not in leaders and None not in {leader[1] for leader in leaders if leader}

    def _all_equal(self) -> bool:
        """Whether all sound nodes have applied the same log as a whole."""
        states = []
        for node in self._sound_nodes():
            replica = node.replica if node is not None else None
            if replica is None or replica.last_applied < replica.log.last_index:
                return False
            states.append((replica.log.last_index, replica.log.last_term))
        return len(set(states)) == 1

    def _until(self, condition: Callable[[], bool], within_ms: float, otherwise: str) -> None:
        if not self.cluster.simulation.run_until(condition, within_ms):
            states = "; ".join(self._state(name) for name in self.cluster.names)
            raise Violation(f"{otherwise} within {within_ms / 1000:g} s: {states}")

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

    # --- telling

    def _tell_fault(self, fault: Fault, names: list[str]) -> None:
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
