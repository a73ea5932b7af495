"""Faults: their kinds, how a seed draws them, and how ``Nemesis`` injects and undoes each.

Every seed uses another subset of kinds (swarm testing: Groce and others, 2012): with all kinds at once, one fault hides
what another would show. The faults of a run are a list that is drawn before it starts, so that they can be saved, run
again and made fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

import msgspec

from raftkv.actors.messages.requests import Resign
from raftkv.exit_status import EXIT_UNUSABLE
from raftkv.simulation.cluster.cluster import NORMAL_HANDLING_MS, Machine, SimulatedCluster
from raftkv.simulation.cluster.network import Pair

SPAN_MS = 600_000.0
"""The time for which faults are drawn; runs are shorter."""


class Fault(msgspec.Struct, frozen=True):
    """One fault: when it starts, its kind, its target, how long it lasts, and its value.

    ``target`` is names of machines with commas between them, or ``leader``, ``follower``, ``any``, ``all`` or ``most``
    (any majority), resolved when the fault starts. For ``halves`` the names are those of one half, for ``ring`` all in
    their order, for ``bridge`` the bridge and the nodes on one side of it, for ``slow-way`` source and target. The
    meaning of ``value`` depends on the kind; all other random choices come from ``seed``.
    """

    at_ms: float
    kind: str
    target: str = ""
    for_ms: float = 0.0
    value: float = 0.0
    seed: int = 0

    def __str__(self) -> str:
        """Return the fault as text, without its time."""
        span = f" for {self.for_ms:.0f} ms" if self.for_ms else ""
        value = f" ({self.value:g})" if self.value else ""
        return f"{self.kind} {self.target}{value}{span}".replace("  ", " ")


Draw = Callable[[Random], float]


def _some(*choices: float) -> Draw:
    return lambda random: random.choice(choices)


def _short(random: Random) -> float:
    """Return a duration in ms, mostly short, sometimes longer than an election or a time-out of a link."""
    return random.choice([30.0, 200.0, 700.0, 3000.0]) * random.uniform(0.5, 1.5)


ANY_NODE = ("leader", "leader", "follower", "any", "any")

KINDS: dict[str, dict[str, tuple[Sequence[str], Draw, Draw]]] = {
    "network": {
        "loss": (("",), _short, _some(0.01, 0.1, 0.3, 0.6)),
        "repeat": (("",), _short, _some(0.05, 0.3)),
        "replay": (("",), _short, _some(0.05, 0.3)),
        "latency": (("",), _short, _some(3.0, 20.0, 100.0, 300.0)),
        "order": (("",), _short, _some(0.0)),
        "slow-way": (("any",), _short, _some(20.0, 150.0, 400.0)),
        "disconnect": (ANY_NODE, _some(0.0), _some(0.0)),
    },
    "partition": {
        "halves": (("",), _short, _some(0.0)),
        "isolate": (ANY_NODE, _short, _some(0.0)),
        "one-way-out": (ANY_NODE, _short, _some(0.0)),
        "one-way-in": (ANY_NODE, _short, _some(0.0)),
        "ring": (("",), _short, _some(0.0)),
        "bridge": (ANY_NODE, _short, _some(0.0)),
        "flap": (ANY_NODE, _short, _some(20.0, 100.0, 250.0)),
    },
    "crash": {
        "crash": ((*ANY_NODE, "most", "all"), _short, _some(0.0)),
        "kill": ((*ANY_NODE, "most", "all"), _short, _some(0.0)),
        "restart": ((*ANY_NODE, "most", "all"), _some(0.0), _some(0.0, 1.0)),
        "resign": (ANY_NODE, _short, _some(0.0)),
    },
    "pause": {
        "pause": ((*ANY_NODE, "most"), _short, _some(0.0)),
        "stun": (("leader", "leader", "any"), _short, _some(50.0, 300.0)),
        "starve": (ANY_NODE, _short, _some(0.5, 3.0, 15.0)),
    },
    "clock": {
        "rate": ((*ANY_NODE, "all"), _short, _some(0.5, 0.9, 1.1, 2.0)),
        "jump": (ANY_NODE, _some(0.0), _some(100.0, 500.0, 5000.0)),
    },
    "disk": {
        "slow-sync": ((*ANY_NODE, "all"), _short, _some(5.0, 50.0, 200.0)),
        "hang-sync": (ANY_NODE, _some(0.0), _some(200.0, 1200.0, 5000.0, 60_000.0)),
        "write-error": (ANY_NODE, _some(0.0), _some(0.0, 3.0)),
        "sync-error": (ANY_NODE, _some(0.0), _some(0.0, 3.0)),
        "power-cut": (ANY_NODE, _some(0.0), _some(1.0, 2.0, 5.0, 20.0)),
        "full": ((*ANY_NODE, "most", "all"), _short, _some(0.0, 2000.0, 150_000.0)),
    },
    "damage": {
        "flip": (ANY_NODE, _some(0.0), _some(0.0)),
        "misdirect": (ANY_NODE, _some(0.0), _some(0.0)),
        "wipe": (ANY_NODE, _short, _some(0.0)),
    },
}
"""By class and kind: possible targets, duration in ms, value."""

CLASSES = tuple(KINDS)

SEEDS = 1_000_000


def draw(seed: int, classes: Iterable[str] | None = None) -> list[Fault]:
    """Return the faults of this seed; by default the seed also chooses the classes."""
    random = Random(f"faults of {seed}")
    if classes is None:
        count = random.choice([1, 2, 2, 3, 4, len(CLASSES)])
        classes = random.sample(CLASSES, count)
    kinds = [(kind, *rest) for each in sorted(classes) for kind, rest in KINDS[each].items()]
    # Only a part of the kinds, each with a weight of its own.
    kinds = [each for each in kinds if random.random() < 0.7] or kinds
    weights = [random.choice([1, 1, 3, 10]) for _ in kinds]
    mean_ms = random.choice([100.0, 400.0, 1500.0, 5000.0])
    faults: list[Fault] = []
    at_ms = random.expovariate(1 / mean_ms)
    while kinds and at_ms < SPAN_MS:
        kind, targets, span, value = random.choices(kinds, weights)[0]
        target, for_ms, amount = random.choice(targets), round(span(random), 3), round(value(random), 3)
        faults.append(Fault(round(at_ms, 3), kind, target, for_ms, amount, random.randrange(SEEDS)))
        at_ms += random.expovariate(1 / mean_ms)
    return faults


class Nemesis:
    """Injects a list of faults into a cluster, and undoes them all at the end."""

    def __init__(self, cluster: SimulatedCluster, faults: Sequence[Fault], seed: int) -> None:
        self._cluster = cluster
        self._random = Random(f"nemesis of {seed}")
        self.faults = faults
        self.done: list[Fault] = []
        """The faults that took effect, in order, with the names of their targets: injected again, they do the same."""
        self.on_fault: Callable[[Fault, list[str]], None] | None = None
        """Called with each fault that takes effect, and the names of its targets."""
        self.healed = False
        self.damaged: set[str] = set()
        """Machines whose disk was damaged or wiped: their nodes may never be able to return."""
        self.may_damage = False
        """Whether disks may be damaged: only in a founded cluster, because the founding needs every node."""
        self._cuts: dict[int, set[Pair]] = {}
        self._cut_number = 0
        self._active: dict[tuple[str, str], list[float]] = {}
        """The values of the faults that are active, by kind and by machine or way; "" is the whole network."""
        self._down: dict[str, int] = {}
        cluster.ended.append(self._on_ended)
        cluster.power_lost.append(self._boot_soon)

    def start(self) -> None:
        """Schedule all faults, counted from now."""
        scheduler = self._cluster.simulation.scheduler
        start_ms = scheduler.now_ms
        for fault in self.faults:
            scheduler.at(start_ms + fault.at_ms, self._inject, fault)

    def heal(self) -> None:
        """Undo all faults but damage and wipes of disks."""
        self.healed = True
        cluster = self._cluster
        self._cuts.clear()
        self._active.clear()
        self._apply("")
        cluster.network.slow_ms.clear()
        cluster.network.cut_off(())
        for machine in cluster.machines.values():
            self._apply(machine.name)
            machine.disk.disarm()
            if machine.hangs_until_ms > cluster.now_ms:
                # A sync that hangs ends with its process only.
                machine.hangs_until_ms = 0.0
                machine.kill()
            if machine.is_up and machine.resigned:
                machine.kill()
            self._boot(machine)

    # --- injecting

    def _inject(self, fault: Fault) -> None:
        if self.healed:
            return
        names = self._names(fault)
        if not names and fault.kind not in EVERYWHERE:
            return
        undo = getattr(self, "_" + fault.kind.replace("-", "_"))(fault, names)
        if undo is False:
            return
        done = msgspec.structs.replace(fault, target=",".join(names))
        self.done.append(done)
        if self.on_fault is not None:
            self.on_fault(done, names)
        if undo is not None:
            self._cluster.simulation.scheduler.after(fault.for_ms, self._undo, undo)

    def _undo(self, undo: Callable[[], None]) -> None:
        if not self.healed:
            undo()

    def _names(self, fault: Fault) -> list[str]:
        """Return the names of a fault's targets in the present state of the cluster."""
        random = Random(f"whom fault {fault.seed} befalls")
        names = self._resolve(fault.target, random)
        rest = [name for name in self._cluster.names if name not in names]
        random.shuffle(rest)
        if fault.kind == "halves" and not names:
            return rest[: len(rest) // 2]
        if fault.kind == "ring" and not names:
            return rest
        if fault.kind == "bridge" and len(names) == 1:
            return names + rest[: len(rest) // 2]
        if fault.kind == "slow-way" and len(names) == 1:
            return names + rest[:1]
        return names

    def _resolve(self, target: str, random: Random) -> list[str]:
        names, leaders = list(self._cluster.names), self._cluster.leaders()
        if target == "leader":
            return leaders[-1:]
        if target == "follower":
            names = [name for name in names if name not in leaders]
            return [random.choice(names)] if names else []
        if target == "any":
            return [random.choice(names)]
        if target == "most":
            return random.sample(names, len(names) // 2 + 1)
        if target == "all":
            return names
        return [name for name in target.split(",") if name in self._cluster.machines]

    def _machines(self, names: Iterable[str]) -> list[Machine]:
        return [self._cluster.machines[name] for name in names]

    # --- faults with a value that lasts

    def _hold(self, kind: str, names: Iterable[str], value: float) -> Callable[[], None]:
        """Activate a value for a kind; the returned function ends it, and other active values of the kind remain."""
        for name in names:
            self._active.setdefault((kind, name), []).append(value)
            self._apply(name)

        def undo() -> None:
            for name in names:
                self._active[kind, name].remove(value)
                self._apply(name)

        return undo

    def _apply(self, name: str) -> None:
        """Apply the worst active value of each kind to a machine, to a way ("n1,n2") or, with "", to the network."""

        def worst(kind: str, otherwise: float = 0.0) -> float:
            return max(self._active.get((kind, name), ()), default=otherwise)

        if not name:
            network = self._cluster.network
            network.loss = worst("loss")
            network.repeat_late = worst("replay")
            network.repeat = max(worst("repeat"), network.repeat_late)
            network.latency_ms = (0.1, max(1.0, worst("latency")))
            network.ordered = bool(worst("order"))
            return
        if "," in name:
            source, target = name.split(",")
            self._cluster.network.slow_ms[source, target] = worst("slow-way")
            return
        machine = self._cluster.machines[name]
        machine.troubled_ms = self._cluster.now_ms
        machine.handling_ms = worst("starve", NORMAL_HANDLING_MS)
        slow_ms = worst("slow-sync")
        machine.sync_ms = (slow_ms / 2, slow_ms * 1.5) if slow_ms else NORMAL_SYNC_MS
        machine.disk.capacity = int(min(self._active.get(("full", name), ()), default=PLENTY))
        rates = self._active.get(("rate", name)) or [1.0]
        if machine.clock.rate != rates[-1]:
            machine.clock.run_at(rates[-1])
        if machine.process_number in self._active.get(("pause", name), ()):
            machine.stop()
        else:
            machine.go_on()

    # --- the network

    def _loss(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        return self._hold("loss", [""], fault.value)

    def _repeat(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        return self._hold("repeat", [""], fault.value)

    def _replay(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        return self._hold("replay", [""], fault.value)

    def _latency(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        return self._hold("latency", [""], fault.value)

    def _order(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        return self._hold("order", [""], 1.0)

    def _slow_way(self, fault: Fault, names: list[str]) -> Callable[[], None] | bool:
        if len(names) < 2:
            return False
        return self._hold("slow-way", [f"{names[0]},{names[1]}"], fault.value)

    def _disconnect(self, fault: Fault, names: list[str]) -> None:
        for other in self._cluster.names:
            if other != names[0]:
                self._cluster.network.disconnect(names[0], other)

    # --- partitions

    def _cut(self, pairs: Iterable[Pair]) -> Callable[[], None]:
        self._cut_number += 1
        number = self._cut_number
        self._cuts[number] = set(pairs)
        self._apply_cuts()

        def undo() -> None:
            self._cuts.pop(number, None)
            self._apply_cuts()

        return undo

    def _apply_cuts(self) -> None:
        self._cluster.network.cut_off(pair for pairs in self._cuts.values() for pair in pairs)

    def _others(self, name: str) -> list[str]:
        return [other for other in self._cluster.names if other != name]

    def _halves(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        rest = [name for name in self._cluster.names if name not in names]
        return self._cut({pair for one in names for other in rest for pair in ((one, other), (other, one))})

    def _isolate(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        name = names[0]
        return self._cut({pair for other in self._others(name) for pair in ((name, other), (other, name))})

    def _one_way_out(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        return self._cut({(names[0], other) for other in self._others(names[0])})

    def _one_way_in(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        return self._cut({(other, names[0]) for other in self._others(names[0])})

    def _ring(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        """Let each node see only its neighbours in a ring: a majority, and a different one for each."""
        size = len(names)
        reach = max(1, size // 4)
        together = {
            (names[place], names[(place + step) % size])
            for place in range(size)
            for step in (*range(-reach, 0), *range(1, reach + 1))
        }
        return self._cut({(one, other) for one in names for other in names if one != other} - together)

    def _bridge(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        """Cut two halves off from each other; one node sees both."""
        some = names[1:]
        others = [name for name in self._cluster.names if name not in names]
        return self._cut({pair for one in some for other in others for pair in ((one, other), (other, one))})

    def _flap(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        """Cut a node off and reconnect it, again and again."""
        scheduler = self._cluster.simulation.scheduler
        over = False
        undo_cut: Callable[[], None] | None = None

        def turn() -> None:
            nonlocal undo_cut
            if self.healed:
                return
            if undo_cut is not None:
                undo_cut()
                undo_cut = None
            elif not over:
                undo_cut = self._isolate(fault, names)
            if not over:
                scheduler.after(fault.value, turn)

        def undo() -> None:
            nonlocal over
            over = True
            if undo_cut is not None:
                turn()

        turn()
        return undo

    # --- processes

    def _crash(self, fault: Fault, names: list[str]) -> Callable[[], None] | bool:
        return self._take_down(names, Random(fault.seed))

    def _kill(self, fault: Fault, names: list[str]) -> Callable[[], None] | bool:
        return self._take_down(names)

    def _restart(self, fault: Fault, names: list[str]) -> bool | None:
        boot = self._take_down(names, Random(fault.seed) if fault.value else None)
        if callable(boot):
            boot()
        return None if boot else False

    def _take_down(self, names: list[str], power: Random | None = None) -> Callable[[], None] | bool:
        """Kill processes; with ``power``, their machines lose power and any part of what is not synced."""
        machines = [machine for machine in self._machines(names) if machine.is_up]
        if not machines:
            return False
        for machine in machines:
            if power is not None:
                machine.crash(power)
            else:
                machine.kill()
            self._down[machine.name] = self._down.get(machine.name, 0) + 1

        def undo() -> None:
            for machine in machines:
                self._down[machine.name] -= 1
                self._boot(machine)

        return undo

    def _boot(self, machine: Machine) -> None:
        if not machine.is_up and (self.healed or not self._down.get(machine.name)):
            machine.boot()

    def _on_ended(self, machine: Machine, status: int, line: str) -> None:
        """Restart a process that has stopped itself, as a supervisor would; but not one on a damaged disk."""
        if status == EXIT_UNUSABLE and machine.name in self.damaged:
            return
        self._boot_soon(machine)

    def _boot_soon(self, machine: Machine) -> None:
        self._cluster.simulation.scheduler.after(self._random.uniform(50.0, 1500.0), self._boot, machine)

    def _resign(self, fault: Fault, names: list[str]) -> Callable[[], None] | bool:
        """Stop a node as SIGTERM does: it hands over leadership and exits."""
        machine = self._cluster.machines[names[0]]
        node = machine.node
        if node is None or machine.is_stopped:
            return False
        machine.resigned = True
        node.tell(Resign(1000.0))
        process = machine.process_number
        boot: list[Callable[[], None]] = []

        def end() -> None:
            if machine.process_number == process and machine.is_up and not self.healed:
                taken = self._take_down([machine.name])
                if callable(taken):
                    boot.append(taken)

        end_ms = Random(fault.seed).uniform(0.0, min(1000.0, fault.for_ms))
        self._cluster.simulation.scheduler.after(end_ms, end)
        return lambda: boot[0]() if boot else None

    def _pause(self, fault: Fault, names: list[str]) -> Callable[[], None] | bool:
        """Pause processes; a process that starts later on the same machine is not paused."""
        undo = [
            self._hold("pause", [machine.name], machine.process_number)
            for machine in self._machines(names)
            if machine.is_up
        ]
        return _all_of(undo) if undo else False

    def _stun(self, fault: Fault, names: list[str]) -> Callable[[], None] | bool:
        """Pause a machine and cut it off a little longer: it resumes with an old view of the cluster."""
        resume = self._pause(fault, names)
        if not callable(resume):
            return False
        connect = self._isolate(fault, names)

        def undo() -> None:
            resume()
            self._cluster.simulation.scheduler.after(fault.value, self._undo, connect)

        return undo

    def _starve(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        return self._hold("starve", names, fault.value)

    # --- clocks

    def _rate(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        return self._hold("rate", names, fault.value)

    def _jump(self, fault: Fault, names: list[str]) -> None:
        machine = self._cluster.machines[names[0]]
        machine.troubled_ms = self._cluster.now_ms
        machine.clock.jump(fault.value)

    # --- disks

    def _slow_sync(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        return self._hold("slow-sync", names, fault.value)

    def _hang_sync(self, fault: Fault, names: list[str]) -> None:
        machine = self._cluster.machines[names[0]]
        machine.hangs_until_ms = max(machine.hangs_until_ms, self._cluster.now_ms + fault.value)

    def _write_error(self, fault: Fault, names: list[str]) -> None:
        self._cluster.machines[names[0]].disk.fail("write", after=int(fault.value))

    def _sync_error(self, fault: Fault, names: list[str]) -> None:
        self._cluster.machines[names[0]].disk.fail("sync", after=int(fault.value))

    def _power_cut(self, fault: Fault, names: list[str]) -> None:
        """Make the power fail in the middle of disk operations."""
        self._cluster.machines[names[0]].disk.cut_after(int(fault.value))

    def _full(self, fault: Fault, names: list[str]) -> Callable[[], None]:
        undo = [
            self._hold("full", [machine.name], machine.disk.used() + int(fault.value))
            for machine in self._machines(names)
        ]
        return _all_of(undo)

    # --- damage, which is not undone

    def _may_lose(self, name: str) -> bool:
        """Whether this machine may lose its data: a minority may."""
        return name in self.damaged or len(self.damaged) < (len(self._cluster.names) - 1) // 2

    def _flip(self, fault: Fault, names: list[str]) -> bool | None:
        disk = self._cluster.machines[names[0]].disk
        if not self.may_damage or not self._may_lose(names[0]) or disk.flip_bit(Random(fault.seed)) is None:
            return False
        self.damaged.add(names[0])
        return None

    def _misdirect(self, fault: Fault, names: list[str]) -> bool | None:
        if not self.may_damage or not self._may_lose(names[0]):
            return False
        self.damaged.add(names[0])
        self._cluster.machines[names[0]].disk.misdirect_next_write(Random(fault.seed))
        return None

    def _wipe(self, fault: Fault, names: list[str]) -> Callable[[], None] | bool:
        machine = self._cluster.machines[names[0]]
        if not self._may_lose(names[0]):
            return False
        self.damaged.add(names[0])
        machine.wipe()
        self._down[machine.name] = self._down.get(machine.name, 0) + 1

        def undo() -> None:
            self._down[machine.name] -= 1
            self._boot(machine)

        return undo


def _all_of(functions: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def call() -> None:
        for function in functions:
            function()

    return call


EVERYWHERE = frozenset({"loss", "repeat", "replay", "latency", "order"})
"""Kinds that affect all traffic and have no target."""

NORMAL_SYNC_MS = (0.1, 1.0)
PLENTY = 1 << 40
