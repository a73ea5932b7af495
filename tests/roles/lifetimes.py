"""The life of a cluster under trouble, drawn from a seed, and what must hold in it all the time and in the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import Any

from raftkv.actors.messages.raft import RequestVote, TimeoutNow
from raftkv.actors.messages.requests import (
    Propose,
    Read,
    Refused,
    Resign,
)
from raftkv.actors.node import Node
from raftkv.raft.entry import Entry
from raftkv.simulation.checks.history import History, Operation
from raftkv.store.commands import Get, Put
from tests.support.in_memory import InMemoryCluster, MemoryNode

ROUNDS = 40
REGISTERS = ("r1", "r2")
REPLAY = "RAFTKV_REHEARSAL_SEEDS={seed} .venv/bin/python -m pytest tests/roles/test_rehearsal.py"


def seeds_to_run(default: int) -> list[int]:
    """Return the seeds of RAFTKV_REHEARSAL_SEEDS, "first-last" or one alone; by default that many, from 0 on."""
    given = os.environ.get("RAFTKV_REHEARSAL_SEEDS")
    if given is None:
        return list(range(default))
    first, _, last = given.partition("-")
    return list(range(int(first), int(last or first) + 1))


class Broken(AssertionError):
    """A rule does not hold; says with which seed, and how to see it again."""


class Lifetime:
    """One cluster, its clients, and its troubles."""

    def __init__(self, seed: int, node_class: type[Node] = MemoryNode, *, size: int = 0) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.size = size or self.random.choice([1, 2, 3, 3, 3, 3, 4, 5])
        self.cluster = InMemoryCluster(self.size, seed, node_class, shuffled=self.random.random() < 0.5)
        self.history = History()
        self.asked: dict[str, Operation] = {}
        """By the name of who asked."""
        self.noted = 0
        """How many of the replies have been looked at."""
        self.counts: dict[str, int] = {}
        """How many requests ended how."""
        self.watch = Watch(self.cluster)

    # --- living

    def run(self) -> Lifetime:
        """Live through trouble, recover, and see whether all is well; raises ``Broken`` with the seed."""
        try:
            self._live()
            self._recover()
        except AssertionError as error:
            raise Broken(f"seed {self.seed}: {error}\nTo see it again: {REPLAY.format(seed=self.seed)}") from error
        return self

    def _live(self) -> None:
        cluster, random = self.cluster, self.random
        cluster.loss = random.choice([0.0, 0.01, 0.1])
        cluster.repeat = random.choice([0.0, 0.1])
        cluster.delay_ms = (0.1, random.choice([1.0, 20.0, 100.0]))
        for box in cluster.boxes.values():
            box.slow_ms = random.choice([0.0, 0.0, 2.0, 30.0])
        self._pass_ms(800)
        random.choice([self._weather, self._weather, self._elections, self._bursts, self._pauses])()

    def _weather(self) -> None:
        """A bit of everything."""
        for _ in range(ROUNDS):
            self._clients()
            self._trouble()
            self._pass_ms(self.random.choice([10, 50, 300]))

    def _elections(self) -> None:
        """One election after the other, and nodes that are restarted in the middle of them."""
        cluster, random = self.cluster, self.random
        for _ in range(ROUNDS // 2):
            if leaders := cluster.leaders():
                self._clients()
                self._cut(self._around(leaders[-1]))
            for _ in range(40):
                if any(isinstance(item[4], RequestVote) and not item[4].pre_vote for item in cluster.network):
                    break
                self._pass_ms(10)
            for _ in range(random.choice([1, 5, 20])):
                for _ in range(random.randrange(8)):
                    cluster.step()
                self._restart([random.choice(cluster.names)] if random.random() < 0.3 else [])
            self._heal()
            self._pass_ms(random.choice([1, 20, 200]))

    def _bursts(self) -> None:
        """Many writes at once, at leaders that are deposed in the middle of them."""
        cluster, random = self.cluster, self.random
        for _ in range(ROUNDS // 2):
            leaders = cluster.leaders()
            for leader in leaders:
                event = random.randrange(4)
                if event == 0:
                    self._cut(self._around(leader))
                elif event == 1:
                    self._restart([leader])
                elif event == 2:
                    heir = random.choice(cluster.names)
                    cluster.ask(heir, TimeoutNow(leader, cluster.boxes[leader].term), "mischief")
            for _ in range(random.choice([3, 15])):
                for leader in leaders:
                    self._write(leader, [random.choice(REGISTERS), f"k{len(self.asked)}"], 2000.0)
                for _ in range(random.choice([0, 3, 12])):
                    cluster.step()
            self._pass_ms(random.choice([5, 50, 400]))
            if random.random() < 0.5:
                self._heal()

    def _pauses(self) -> None:
        """Leaders whose process is stopped for a while, and asked when they wake up what they held for true."""
        cluster, random = self.cluster, self.random
        for _ in range(ROUNDS // 2):
            name = self._somebody()
            self._clients()
            for _ in range(random.randrange(10)):
                cluster.step()
            cluster.paused.add(name)
            if random.random() < 0.5:
                self._cut(self._around(name))
            self._pass_ms(random.choice([50, 400, 700]))
            for other in cluster.names:
                if other != name:
                    self._write(other, [random.choice(REGISTERS)], 2000.0)
            self._pass_ms(random.choice([5, 50, 300]))
            for key in REGISTERS:
                self._read(name, key, 2000.0)
            cluster.paused.clear()
            self._pass_ms(random.choice([5, 50, 400]))
            self._heal()

    def _pass_ms(self, span_ms: float) -> None:
        self.cluster.run_ms(span_ms)
        self._note_replies()
        self.watch.look()

    def _recover(self) -> None:
        cluster = self.cluster
        cluster.cut, cluster.loss, cluster.repeat, cluster.delay_ms = set(), 0.0, 0.0, (0.1, 1.0)
        cluster.paused.clear()
        for box in cluster.boxes.values():
            box.slow_ms = 0.0
        self._pass_ms(100)
        for name in cluster.names:
            # Those that were asked to retire wait to be stopped; so they are.
            if cluster.is_up(name) and getattr(cluster.replica(name), "retired", True):
                cluster.crash(name)
        self._boot({name for name in cluster.names if not cluster.is_up(name)})
        self._pass_ms(4000)
        assert len(cluster.leaders()) == 1, f"leaders after all is healed: {cluster.leaders()}"
        for number, name in enumerate(cluster.names):
            self._write(name, [f"end{number}"], 5000.0)
        self._pass_ms(1500)
        ends = list(self.asked.values())[-self.size :]
        assert all(end.outcome == "ok" for end in ends), f"a write after all is healed: {[str(end) for end in ends]}"
        self._judge()

    def _judge(self) -> None:
        keyspaces = {name: self.cluster.keyspace(name).items() for name in self.cluster.names}
        assert all(keyspace == keyspaces["n1"] for keyspace in keyspaces.values()), "the keyspaces differ in the end"
        verdict = self.history.verdict(
            {name: {key: item.value for key, item in keyspace} for name, keyspace in keyspaces.items()}
        )
        assert verdict.ok, verdict.text

    # --- clients

    def _clients(self) -> None:
        cluster, random = self.cluster, self.random
        pace = random.choice([0, 0, 2, 10])
        for _ in range(random.randrange(7)):
            name = self._somebody()
            if not cluster.is_up(name):
                continue
            for _ in range(pace):
                cluster.step()
            timeout_ms = random.choice([200.0, 2000.0])
            choice = random.random()
            if choice < 0.3:
                self._write(name, [f"k{len(self.asked)}"], timeout_ms)
            elif choice < 0.6:
                self._write(name, [random.choice(REGISTERS), f"k{len(self.asked)}"], timeout_ms)
            elif choice < 0.9:
                self._read(name, random.choice(REGISTERS), timeout_ms)
            else:
                self._read_stale(name, timeout_ms)

    def _write(self, name: str, keys: list[str], timeout_ms: float) -> None:
        reply_to = f"w{len(self.asked)}"
        self._ask(name, reply_to, Propose(tuple(Put(key, reply_to.encode()) for key in keys), timeout_ms))

    def _read(self, name: str, key: str, timeout_ms: float) -> None:
        self._ask(name, f"r{len(self.asked)}", Read((Get(key),), "linearizable", timeout_ms))

    def _read_stale(self, name: str, timeout_ms: float) -> None:
        self._ask(name, f"s{len(self.asked)}", Read((Get(REGISTERS[0]),), "stale", timeout_ms))

    def _ask(self, name: str, reply_to: str, request: Propose | Read) -> None:
        self.asked[reply_to] = self.history.begin(reply_to, name, self.cluster.stage.clock.ms, request)
        self.cluster.ask(name, request, reply_to)

    def _note_replies(self) -> None:
        cluster = self.cluster
        for (reply_to, reply), when_ms in zip(
            cluster.replies[self.noted :], cluster.replied_ms[self.noted :], strict=True
        ):
            self.noted += 1
            if reply_to in self.asked:
                self._note(reply_to, reply, when_ms)
        assert len({reply_to for reply_to, _ in cluster.replies}) == len(cluster.replies), "somebody was answered twice"

    def _note(self, reply_to: str, reply: Any, when_ms: float) -> None:
        how = reply.code if isinstance(reply, Refused) else type(reply).__name__
        self.counts[how] = self.counts.get(how, 0) + 1
        self.history.end(self.asked[reply_to], when_ms, reply)

    # --- trouble

    def _trouble(self) -> None:
        cluster, random = self.cluster, self.random
        name, other = self._somebody(), random.choice(cluster.names)
        up = [each for each in cluster.names if cluster.is_up(each)]
        events: list[tuple[float, Callable[[], None]]] = [
            (0.10, lambda: self._crash([name])),
            (0.10, lambda: self._restart([name])),
            (0.15, lambda: self._boot(set(cluster.names) - set(up))),
            (0.10, lambda: self._cut(self._around(name))),
            (0.05, lambda: self._cut({(name, each) for each in cluster.names})),
            (0.05, lambda: self._cut({(each, name) for each in cluster.names})),
            (0.05, lambda: self._cut({(name, other)})),
            (0.12, self._heal),
            (0.02, lambda: self._crash(up)),
            (0.02, lambda: self._restart(up)),
            (0.05, lambda: cluster.disconnect(name, other) if name in up and name != other else None),
            (0.05, lambda: cluster.paused.add(name) if name in up else None),
            (0.04, cluster.paused.clear),
            (0.04, lambda: self._retire(name) if name in up else None),
            (0.04, lambda: setattr(cluster.boxes[name], "slow_ms", random.choice([0.0, 5.0, 500.0]))),
        ]
        draw = random.random()
        for weight, event in events:
            draw -= weight
            if draw < 0:
                # Not always when all is quiet: what has just been said may be on its way.
                for _ in range(random.choice([0, 0, 3, 30])):
                    cluster.step()
                event()
                return

    def _around(self, name: str) -> set[tuple[str, str]]:
        return {pair for each in self.cluster.names if each != name for pair in ((name, each), (each, name))}

    def _somebody(self) -> str:
        """Return a leader, where there is one, as often as not: it is the one that matters."""
        leaders = self.cluster.leaders()
        return self.random.choice(leaders if leaders and self.random.random() < 0.5 else self.cluster.names)

    def _crash(self, names: list[str]) -> None:
        for name in names:
            if self.cluster.is_up(name):
                self.cluster.crash(name)

    def _restart(self, names: list[str]) -> None:
        self._crash(names)
        self._boot(set(names))

    def _boot(self, names: set[str]) -> None:
        for name in sorted(names):
            self.cluster.boot(name)
            self.watch.booted(name)

    def _cut(self, pairs: set[tuple[str, str]]) -> None:
        self.cluster.cut |= pairs

    def _heal(self) -> None:
        self.cluster.cut = set()

    def _retire(self, name: str) -> None:
        """Hand leadership over; a process would stop then, this one is restarted some time later."""
        self.cluster.ask(name, Resign(1000.0), f"retire{self.cluster.stage.clock.ms}")


class Watch:
    """Looks at all nodes of a cluster from outside, now and then: Raft's five properties (dissertation, figure 3.2)."""

    def __init__(self, cluster: InMemoryCluster) -> None:
        self.cluster = cluster
        self.leaders: dict[int, str] = {}
        """By term."""
        self.looked = 0
        """How many of the changes of role have been looked at."""
        self.committed: list[Entry] = []
        """What any node has ever known to be committed."""
        self.commit_indexes: dict[str, int] = {}
        """Of each node in this life."""
        self.terms: dict[str, int] = {}
        """On the disk of each node, whether that runs or not."""

    def booted(self, name: str) -> None:
        """Begin a new life of a node."""
        self.commit_indexes.pop(name, None)

    def look(self) -> None:
        """Raise ``AssertionError`` for what can't be."""
        self._election_safety()
        replicas = {name: replica for name in self.cluster.names if (replica := self.cluster.replica(name)) is not None}
        for name, replica in replicas.items():
            self._state_machine_safety(name, replica)
        for name, box in self.cluster.boxes.items():
            assert box.term >= self.terms.get(name, 0), f"the term on {name}'s disk has fallen"
            self.terms[name] = box.term
        self._leader_completeness(replicas)
        self._log_matching(replicas)

    def _election_safety(self) -> None:
        for change in self.cluster.changes[self.looked :]:
            if change.role == "leader":
                first = self.leaders.setdefault(change.term, change.id)
                assert first == change.id, f"two leaders in term {change.term}: {first} and {change.id}"
        self.looked = len(self.cluster.changes)

    def _state_machine_safety(self, name: str, replica: Any) -> None:
        known = self.commit_indexes.get(name, 0)
        assert replica.commit_index >= known, f"the commit index of {name} has fallen"
        entries = replica.log.span(known + 1, replica.commit_index)
        for entry in entries:
            if entry.index <= len(self.committed):
                assert self.committed[entry.index - 1] == entry, f"{name} has committed another entry {entry.index}"
            else:
                self.committed.append(entry)
        self.commit_indexes[name] = replica.commit_index
        store: Any = self.cluster.stage.actors[f"{name}/store"]
        assert store.last_applied <= min(replica.commit_index, replica.durable_index), f"{name} applied too much"

    def _leader_completeness(self, replicas: dict[str, Any]) -> None:
        latest = max([*self.terms.values(), *(replica.current_term for replica in replicas.values())], default=0)
        for name in self.cluster.leaders():
            replica = replicas[name]
            if replica.current_term == latest:
                log = replica.log.span(1, len(self.committed))
                assert log == self.committed, f"{name} leads without all that is committed"

    def _log_matching(self, replicas: dict[str, Any]) -> None:
        logs = [(name, replica.log.span(1, replica.log.last_index)) for name, replica in sorted(replicas.items())]
        for number, (name, log) in enumerate(logs):
            for other_name, other in logs[number + 1 :]:
                same = min(len(log), len(other))
                while same and log[same - 1].term != other[same - 1].term:
                    same -= 1
                assert log[:same] == other[:same], f"the logs of {name} and {other_name} differ before {same}"
