"""Each invariant of a simulated cluster is noticed when it does not hold, and none is when all do."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any, get_args

import pytest
from thespian.actors import Actor

from raftkv.actors.journal import Journal
from raftkv.actors.messages.node import (
    Apply,
    Flush,
    ReadAt,
    Recovered,
    RoleChanged,
    Save,
    Saved,
)
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    BootstrapHello,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.messages.requests import (
    Applied,
    Done,
    Forward,
    ForwardReply,
    PendingRequest,
    Propose,
    Reply,
    Resign,
)
from raftkv.actors.messages.wire import PEER_MESSAGES
from raftkv.actors.node import ROLES, Node
from raftkv.actors.roles.candidate import Candidate
from raftkv.actors.roles.follower import Follower
from raftkv.actors.roles.leader import Leader
from raftkv.actors.roles.role import Role
from raftkv.actors.store import Store
from raftkv.actors.system.virtual.scheduler import VirtualLoop
from raftkv.exit_status import EXIT_BUG, EXIT_UNUSABLE
from raftkv.raft.entry import Entry, Kind
from raftkv.raft.replica import Replica
from raftkv.raft.save_queue import SaveQueue
from raftkv.simulation.checks.expected_disk import ExpectedDisk
from raftkv.simulation.checks.invariants import Invariants, Violation
from raftkv.simulation.checks.record import ClusterRecord
from raftkv.simulation.checks.send_checker import CHECKS, REPLY_CHECKS
from raftkv.simulation.cluster.cluster import SimulatedCluster, SimulatedNode
from raftkv.simulation.cluster.disk import DiskEvent
from raftkv.store.commands import Command, Delete, Get, Put, encode_commands
from tests.roles import mutants

PATIENCE_MS = 20_000.0


class Town:
    """A cluster with its invariants, and what a test does to them."""

    def __init__(self, size: int = 3, seed: int = 1, node_class: type[Node] = Node, *, watched: bool = True) -> None:
        self.random = Random(f"town {seed}")
        self.cluster = SimulatedCluster(size, seed, shuffled=seed % 2 == 0, node_class=node_class)
        self.invariants = Invariants(self.cluster) if watched else None
        self.written = 0
        self.replies: list[Any] = []
        self.elected = 0
        self.cluster.role_changed.append(self._count)
        self.cluster.boot()

    def _count(self, event: RoleChanged) -> None:
        self.elected += event.role == "leader"

    @property
    def simulation(self) -> Any:
        """What makes time pass."""
        return self.cluster.simulation

    def founded(self) -> Town:
        """Wait until one node leads and the others know it."""
        assert self.simulation.run_until(self._follow_one, PATIENCE_MS)
        return self

    def _follow_one(self) -> bool:
        replicas = [node.replica for node in self.cluster.nodes().values()]
        leaders = {replica.leader_id if replica else None for replica in replicas}
        return len(leaders) == 1 and None not in leaders and len(replicas) == len(self.cluster.names)

    @property
    def leader(self) -> SimulatedNode:
        """The node that leads in the latest term."""
        nodes = self.cluster.nodes()
        return max((nodes[name] for name in self.cluster.leaders()), key=lambda node: _replica(node).current_term)

    @property
    def followers(self) -> list[SimulatedNode]:
        """All others that are up."""
        return [node for node in self.cluster.nodes().values() if node is not self.leader]

    def write(self, node: SimulatedNode, count: int = 1) -> None:
        """Ask for as many writes, and wait for no answer."""
        for _ in range(count):
            self.written += 1
            command: Command = Put(f"k{self.written % 5}", b"%d" % self.written)
            if self.written % 7 == 0:
                command = Delete("k1")
            self.replies.append(node.gateway.propose(command, 1.0))

    def read(self, node: SimulatedNode, level: Any = "linearizable") -> None:
        """Ask for a read, and wait for no answer."""
        self.replies.append(node.gateway.read(Get(f"k{self.random.randrange(5)}"), level, 1.0))

    def written_everywhere(self, count: int = 5) -> Town:
        """Write so many entries, and wait until all nodes have applied them."""
        for _ in range(count):
            self.write(self.leader)
            self.simulation.run_ms(20.0)
        self.simulation.run_ms(200.0)
        assert len({_replica(node).last_applied for node in self.cluster.nodes().values()}) == 1
        return self

    def cut_off(self, *names: str) -> None:
        """Let nothing through between these and the others."""
        others = [name for name in self.cluster.names if name not in names]
        self.cluster.network.cut_off(pair for one in names for two in others for pair in ((one, two), (two, one)))

    def run(self, seconds: float) -> None:
        """Write and read under crashes and partitions, drawn from the seed."""
        cluster, random = self.cluster, self.random
        end_ms = cluster.now_ms + seconds * 1000.0
        while cluster.now_ms < end_ms:
            for _ in range(random.randrange(6)):
                nodes = list(cluster.nodes().values())
                if nodes and random.random() < 0.6:
                    self.write(random.choice(nodes), random.choice([1, 1, 5]))
                elif nodes:
                    self.read(random.choice(nodes), random.choice(["linearizable", "linearizable", "stale"]))
            self.trouble()
            self.simulation.run_ms(random.choice([1.0, 10.0, 50.0, 300.0]))

    def trouble(self) -> None:
        """Do something to the cluster, or undo it."""
        cluster, random = self.cluster, self.random
        network, name = cluster.network, random.choice([*cluster.names, *cluster.leaders()])
        machine = cluster.machines[name]
        choice = random.randrange(12)
        if choice == 0:
            machine.crash(random)
        elif choice == 1 and machine.is_up:
            machine.kill()
            machine.boot()
        elif choice == 2:
            self.cut_off(name)
        elif choice == 3:
            network.cut_off([(name, other) for other in cluster.names])
        elif choice == 4:
            network.cut_off([(other, name) for other in cluster.names])
        elif choice == 5:
            network.loss, network.repeat = random.choice([(0.0, 0.0), (0.1, 0.1)])
            network.repeat_late = random.choice([0.0, 0.5])
            network.latency_ms = (0.1, random.choice([1.0, 20.0, 80.0]))
        elif choice == 6:
            for each in random.sample(list(cluster.machines.values()), len(cluster.machines) // 2 + 1):
                each.crash(random)
        elif choice == 7:
            machine.stop()
        elif choice == 8:
            for each in cluster.machines.values():
                each.go_on()
        elif choice == 9:
            machine.sync_ms = random.choice([(0.1, 1.0), (0.1, 1.0), (5.0, 40.0)])
        else:
            network.cut_off([])
            cluster.boot()

    def goes_on(self, within_ms: float = 5000.0) -> str:
        """Let time pass until something is reported; return that."""
        assert self.invariants is not None
        with pytest.raises(Violation) as caught:
            self._go_on(within_ms, self.invariants)
        return str(caught.value)

    def _go_on(self, within_ms: float, invariants: Invariants) -> None:
        self.simulation.run_ms(within_ms)
        invariants.check_everything()


def _replica(node: SimulatedNode) -> Replica:
    replica = node.replica
    assert replica is not None
    return replica


def node_with(*classes: type[Actor]) -> type[Node]:
    """Return the class of a node that has these in the place of the right ones."""
    roles = {role.role: role for role in ROLES}
    roles.update({each.role: each for each in classes if issubclass(each, Role)})
    members: dict[str, Any] = {"role_classes": tuple(roles.values())}
    for each in classes:
        if issubclass(each, Store):
            members["store_class"] = each
        elif issubclass(each, Journal):
            members["journal_class"] = each
    return type("WrongNode", (Node,), members)


# --- nothing is reported where nothing is wrong


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_nothing_is_reported_of_a_quiet_cluster(size: int) -> None:
    town = Town(size).founded()
    for round_ in range(300):
        node = town.cluster.nodes()[f"n{round_ % size + 1}"]
        town.write(node)
        town.read(node, "stale" if round_ % 5 == 0 else "linearizable")
        town.simulation.run_ms(5.0)
    town.simulation.run_ms(500.0)
    assert town.invariants is not None
    town.invariants.check_everything()
    assert all(reply.done() and not reply.exception() for reply in town.replies)
    assert town.invariants.acknowledged_index == _replica(town.leader).commit_index


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_reported_under_crashes_and_partitions(seed: int) -> None:
    print(f"seed {seed}")
    town = Town([3, 5, 3, 4, 3, 2][seed], seed).founded()
    town.run(30.0)
    assert town.invariants is not None
    town.invariants.check_everything()
    assert town.elected > 3
    assert town.invariants.acknowledged_index > 20


def test_a_cluster_behaves_with_the_checks_as_without() -> None:
    ends = []
    for watched in (False, True):
        town = Town(3, 5, watched=watched).founded()
        town.run(10.0)
        states = [(node.role, node.replica and node.replica.log.last_index) for node in town.cluster.nodes().values()]
        ends.append((town.cluster.events, town.cluster.now_ms, states, town.cluster.network.counts))

    assert ends[0] == ends[1]


def test_the_model_knows_every_key_at_every_index() -> None:
    town = Town().founded()
    for command in (Put("a", b"1"), Put("a", b"2"), Delete("a"), Put("b", b"3")):
        town.replies.append(town.leader.gateway.propose(command, 1.0))
        town.simulation.run_ms(100.0)
    invariants, last = town.invariants, _replica(town.leader).commit_index
    assert invariants is not None

    def seen(key: str) -> list[Any]:
        return [item and item.value for item in (invariants.item_at(key, last - back) for back in (4, 3, 2, 1, 0))]

    assert seen("a") == [None, b"1", b"2", None, None]
    assert seen("b") == [None, None, None, None, b"3"]


# --- what a replica holds is changed behind its back


def _holder(replica: Replica, name: str) -> Replica | SaveQueue:
    return replica.saves if name.startswith("durable") else replica


def falls(name: str, to: int = 0) -> Callable[[Town], None]:
    """Return a change that sets a number of a follower's replica back."""
    return lambda town: setattr(_holder(_replica(town.followers[0]), name), name, to)


def cuts_off_what_is_committed(town: Town) -> None:
    _replica(town.followers[0]).log.truncate(3)


def leader_removes_an_entry(town: Town) -> None:
    leader = town.leader
    town.cut_off(leader.machine.name)
    town.write(leader)
    town.simulation.run_ms(20.0)
    replica = _replica(leader)
    assert replica.log.last_index > replica.commit_index
    replica.truncate(replica.log.last_index)


def has_another_entry_of_the_same_term(town: Town) -> None:
    town.cluster.network.cut_off((one, two) for one in town.cluster.names for two in town.cluster.names)
    for number, node in enumerate(town.cluster.nodes().values()):
        replica = _replica(node)
        data = encode_commands((Put("k", b"%d" % number),))
        replica.append((Entry(replica.log.last_index + 1, replica.current_term, Kind.COMMANDS, data),))


def has_another_term_before_an_entry(town: Town) -> None:
    town.cluster.network.cut_off((one, two) for one in town.cluster.names for two in town.cluster.names)
    for number, node in enumerate(town.cluster.nodes().values()):
        replica = _replica(node)
        last, term = replica.log.last_index, replica.current_term
        replica.append(
            (Entry(last + 1, term + min(number, 1), Kind.NOOP, b""), Entry(last + 2, term + 3, Kind.NOOP, b""))
        )


def an_entry_in_the_middle_changes(town: Town) -> None:
    log: Any = _replica(town.followers[0]).log
    log._entries[2] = Entry(3, 2, Kind.NOOP, b"")


def commits_alone(town: Town) -> None:
    leader = town.leader
    town.cut_off(leader.machine.name)
    town.write(leader)
    town.simulation.run_ms(20.0)
    replica = _replica(leader)
    replica.commit_index = replica.log.last_index


def commits_more_than_it_has(town: Town) -> None:
    replica = _replica(town.followers[0])
    replica.commit_index = replica.log.last_index + 1


def takes_for_durable_what_is_not(town: Town) -> None:
    town.cluster.machines[town.leader.machine.name].hangs_until_ms = town.cluster.now_ms + 500.0
    leader = town.leader
    town.write(leader)
    town.simulation.run_ms(20.0)
    replica = _replica(leader)
    replica.saves.durable_index = replica.log.last_index


def takes_a_term_for_durable(town: Town) -> None:
    _replica(town.followers[0]).saves.durable_term += 1


def hands_over_too_much(town: Town) -> None:
    _replica(town.followers[0]).applying_index += 1


def takes_for_applied_what_is_not(town: Town) -> None:
    replica = _replica(town.followers[0])
    replica.last_applied += 1


def changes_its_vote(town: Town) -> None:
    replica = next(r for r in map(_replica, town.cluster.nodes().values()) if r.voted_for)
    replica.voted_for = "n9"


def believes_more_of_a_peer(town: Town) -> None:
    leader: Any = town.leader.holder
    leader.replication.progress[town.followers[0].machine.name].match_index += 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (falls("current_term"), "to term 0"),
        (falls("commit_index", 1), "the commit index of"),
        (falls("durable_index", 1), "the durable index of"),
        (falls("durable_term", 1), "the durable term of"),
        (falls("applying_index", 1), "sent to the store"),
        (falls("last_applied", 1), "sent to the store"),
        (cuts_off_what_is_committed, "are committed"),
        (leader_removes_an_entry, "and removes entry"),
        (has_another_entry_of_the_same_term, "does not match the other logs: it has entry"),
        (has_another_term_before_an_entry, "does not match the other logs: before entry"),
        (an_entry_in_the_middle_changes, "has changed in the middle"),
        (commits_alone, ", of n1, n2, n3"),
        (commits_more_than_it_has, "its log ends at"),
        (takes_for_durable_what_is_not, "as durable, but its disk holds nothing"),
        (takes_a_term_for_durable, "as durable, but its disk holds term"),
        (hands_over_too_much, "applies entries up to"),
        (takes_for_applied_what_is_not, "as applied, but its store has applied"),
        (changes_its_vote, "changes its vote in term"),
        (believes_more_of_a_peer, "as on the disk of"),
    ],
)
def test_an_impossible_replica_is_noticed(change: Callable[[Town], None], words: str) -> None:
    town = Town().founded().written_everywhere()
    change(town)

    assert words in town.goes_on()


# --- what is in the store


def another_value(town: Town) -> None:
    town.followers[0].actor(Store).keyspace.apply(Put("k2", b"wrong"))


def applies_in_silence(town: Town) -> None:
    town.followers[0].actor(Store).last_applied += 1


def tells_store(*entries: Entry) -> Callable[[Town], None]:
    """Return what has a follower's store apply entries that it should not."""

    def tell(town: Town) -> None:
        node, store = town.followers[0], town.followers[0].actor(Store)
        first = store.last_applied + 1
        moved = tuple(Entry(first + place, entry.term, entry.kind, entry.data) for place, entry in enumerate(entries))
        node.system.tell(store.myAddress, Apply(first, moved))

    return tell


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (another_value, "under k2, but the log gives"),
        (applies_in_silence, "without an Apply"),
        (tells_store(Entry(1, 1, Kind.NOOP, b"")), "but committed is nothing"),
    ],
)
def test_an_impossible_store_is_noticed(change: Callable[[Town], None], words: str) -> None:
    town = Town().founded().written_everywhere()
    change(town)

    assert words in town.goes_on()


def test_a_store_that_applies_an_entry_that_is_not_committed_is_noticed() -> None:
    """State machine safety (3.6.3)."""
    town = Town().founded().written_everywhere()
    leader, follower = town.leader, town.followers[0]
    town.cut_off(follower.machine.name)
    town.write(leader)
    town.simulation.run_ms(20.0)
    store, first = follower.actor(Store), _replica(follower).last_applied + 1
    assert _replica(leader).commit_index == first
    wrong = Entry(first, 1, Kind.COMMANDS, encode_commands((Put("k", b"wrong"),)))
    follower.system.tell(store.myAddress, Apply(first, (wrong,)))

    assert f"applies entry {first} of term 1 ([k=wrong]), but committed is entry {first}" in town.goes_on()


def test_a_store_that_applies_an_entry_that_is_not_on_disk_is_noticed() -> None:
    town = Town().founded().written_everywhere()
    leader, follower = town.leader, town.followers[0]
    town.cut_off(follower.machine.name)
    town.write(leader)
    town.simulation.run_ms(20.0)
    store, entry = follower.actor(Store), _replica(leader).log.entry(_replica(leader).commit_index)
    follower.system.tell(store.myAddress, Apply(entry.index, (entry,)))

    assert "which is not on its disk" in town.goes_on()


# --- messages between nodes


@pytest.mark.parametrize("kind", PEER_MESSAGES)
def test_every_message_between_nodes_has_a_check(kind: type) -> None:
    """A new type of message needs an entry in ``send_checker.CHECKS``: its check, or why there is nothing to check."""
    assert kind in CHECKS, f"no check for {kind.__name__}"


@pytest.mark.parametrize("kind", get_args(Reply))
def test_every_forwarded_reply_has_a_check(kind: type) -> None:
    assert kind in REPLY_CHECKS, f"no check for {kind.__name__}"


def test_the_network_repeats_every_message_but_forwarded_requests_and_their_replies() -> None:
    """A repeated write would be applied twice."""
    assert {kind for kind in PEER_MESSAGES if not kind.may_repeat} == {Forward, ForwardReply}


def test_a_message_without_a_check_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CHECKS, TimeoutNow)
    town = Town().founded().written_everywhere()
    town.leader.tell(Resign(1000.0))

    assert town.goes_on() == "no check for TimeoutNow"


def test_an_answer_without_a_check_fails_the_run() -> None:
    """A write is answered ``Applied`` or ``Refused``, never ``Done``."""
    town = Town(3, 1, node_with(AnswersDone)).founded()
    node = town.leader
    node.system.ask(node.address, Propose((Put("k", b""),), 1000.0), 1.0)

    assert re.fullmatch(r"no check for Done, which n\d answers to Propose", town.goes_on())


class AnswersDone(Leader):
    """A leader that answers writes with the wrong kind of reply."""

    def serve(self, asked: PendingRequest) -> None:
        self.reply(asked.reply_to, Done())


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (lambda me, term, last: AppendEntries(me, term, 0, 0, (), 0), "two leaders in term"),
        (lambda me, term, last: AppendEntries(me, term + 1, 0, 0, (), 0), "but the term on its disk is"),
        (lambda me, term, last: AppendEntries("n9", term, 0, 0, (), 0), "in the name of n9"),
        (lambda me, term, last: RequestVote(me, term, last, term), "no vote for itself"),
        (lambda me, term, last: RequestVote(me, term + 2, last, term, pre_vote=True), "asks for pre-votes in term"),
        (lambda me, term, last: RequestVoteReply(me, term, True), "its vote in term"),
        (lambda me, term, last: RequestVoteReply(me, term + 1, False), "but the term on its disk is"),
        (lambda me, term, last: AppendEntriesReply(me, term, True, last + 1), "confirms entries up to"),
        (lambda me, term, last: AppendEntriesReply(me, term + 1, True, last), "but the term on its disk is"),
        (lambda me, term, last: TimeoutNow(me, term + 1), "but the term on its disk is"),
        (
            lambda me, term, last: BootstrapHello(me, "i", "l", (), b"founding"),
            "a founding configuration that is not",
        ),
        (lambda me, term, last: ForwardReply(me, 1, 1, Applied(last + 1, term, 1, ())), "but committed is nothing"),
        (lambda me, term, last: ForwardReply(me, 1, 1, Applied(2, term + 1, 1, ())), "but committed is entry 2"),
        (lambda me, term, last: ForwardReply(me, 1, 1, Applied(2, term, 100, ())), "which results in"),
    ],
)
def test_a_message_that_must_not_be_sent_is_noticed(says: Callable[[str, int, int], Any], words: str) -> None:
    town = Town().founded().written_everywhere()
    liar, target = town.followers
    message = says(liar.machine.name, _replica(liar).current_term, _replica(liar).log.last_index)
    town.cluster.network.send(liar.machine.name, target.machine.name, "node", "node", message)

    assert words in town.goes_on()


def test_a_campaign_with_a_log_that_is_not_on_disk_is_noticed() -> None:
    town = Town().founded().written_everywhere()
    name, replica = town.leader.machine.name, _replica(town.leader)
    message = RequestVote(name, replica.current_term, replica.log.last_index + 5, replica.current_term)
    town.cluster.network.send(name, town.followers[0].machine.name, "node", "node", message)

    assert "asks for votes in term" in (said := town.goes_on())
    assert "with a log that ends at" in said


class ConfirmsAllItHas(Follower):
    """A heartbeat is answered with the end of the log on disk, though the leader may have another there."""

    def confirm(self, message: AppendEntries, match_index: int) -> None:
        self.replica.leader_matched_index = self.replica.log.last_index
        super().confirm(message, match_index)


def test_a_confirmation_of_an_entry_that_the_leader_does_not_have_is_noticed() -> None:
    """Figure 3.1: what is confirmed equals the leader's log. Here the end of a follower's log does not."""
    town = Town(3, 1, node_with(ConfirmsAllItHas)).founded().written_everywhere()
    old = town.leader
    town.cut_off(old.machine.name)
    town.write(old, 3)
    assert town.simulation.run_until(lambda: len(town.cluster.leaders()) == 1 and town.leader is not old, PATIENCE_MS)
    town.cluster.network.cut_off([])

    assert "where the leader of term" in town.goes_on()


# --- mistakes of actors


class LeadsWithoutVotes(Candidate):
    """A candidate that needs no votes."""

    def count_votes(self) -> None:
        if not self.pre_vote:
            self.votes |= self.replica.configuration.all_voters
        super().count_votes()


class SavesNothing(Journal):
    """Says that everything is on disk, when it has begun to run for long enough not to be looked at."""

    def receiveMessage(self, message: Any, sender: Any) -> None:
        """Save what comes first, and no more."""
        if isinstance(message, Flush) and self._last_number > 6:
            self._waiting = None
            self.send(self.start.node, Saved(self._last_number, 1 << 40))
        else:
            super().receiveMessage(message, sender)


class ComesBackWithout(Journal):
    """Loses something of what it had saved; which, its subclasses say."""

    def send(self, target: Any, message: Any) -> None:
        super().send(target, self.less(message) if isinstance(message, Recovered) and message.entries else message)

    def less(self, message: Recovered) -> Recovered:
        raise NotImplementedError


class ForgetsItsTerm(ComesBackWithout):
    """The term on disk is not read."""

    def less(self, message: Recovered) -> Recovered:
        return Recovered(1, None, message.entries, message.free_bytes)


class ForgetsItsVote(ComesBackWithout):
    """The vote on disk is not read."""

    def less(self, message: Recovered) -> Recovered:
        return Recovered(message.current_term, None, message.entries, message.free_bytes)


class ForgetsAnEntry(ComesBackWithout):
    """The last entry on disk is not read."""

    def less(self, message: Recovered) -> Recovered:
        return Recovered(message.current_term, message.voted_for, message.entries[:-1], message.free_bytes)


class InventsAnEntry(ComesBackWithout):
    """More is read than was written."""

    def less(self, message: Recovered) -> Recovered:
        more = Entry(message.entries[-1].index + 1, message.current_term, Kind.NOOP, b"")
        return Recovered(message.current_term, message.voted_for, (*message.entries, more), message.free_bytes)


def restarted(town: Town) -> None:
    """Lose power everywhere and come back."""
    for machine in town.cluster.machines.values():
        machine.crash()
    town.cluster.boot()


@pytest.mark.parametrize(
    ("journal", "words"),
    [
        (SavesNothing, "restarts with"),
        (ForgetsItsTerm, "restarts in term 1, but had saved term"),
        (ForgetsItsVote, "restarts with a vote for None in term"),
        (ForgetsAnEntry, "restarts with nothing where it had saved entry"),
        (InventsAnEntry, "which it never saved as such"),
    ],
)
def test_a_journal_that_loses_data_is_noticed(journal: type[Journal], words: str) -> None:
    town = Town(3, 1, node_with(journal)).founded().written_everywhere()
    restarted(town)

    assert words in town.goes_on()


class ConfirmsTooMuch(Journal):
    """A save more is confirmed than there was."""

    def send(self, target: Any, message: Any) -> None:
        super().send(target, Saved(message.number + 1, message.free_bytes) if isinstance(message, Saved) else message)


def test_a_journal_that_confirms_too_much_is_noticed() -> None:
    assert "but got only" in Town(3, 1, node_with(ConfirmsTooMuch)).goes_on()


class AppliesEachTwice(Store):
    """Every entry is applied once more than it should be."""

    def apply_entry(self, entry: Entry) -> Any:
        super().apply_entry(entry)
        return super().apply_entry(entry)


class ResultsAreWrong(Store):
    """The keyspace is right, but the answers are not."""

    def apply_entry(self, entry: Entry) -> Any:
        return super().apply_entry(entry)[1:]


class ReadsAnotherKey(Store):
    """A query is answered with what is under another key."""

    def on_ReadAt(self, message: Any) -> None:
        """Look for the wrong thing."""
        super().on_ReadAt(ReadAt((Get("k4"),), message.reply_to, message.read_index, message.deadline_ms))


ACTORS: list[tuple[tuple[type[Actor], ...], str]] = [
    (mutants.everywhere(mutants.SaysBeforeItIsSaved), "but the term on its disk is"),
    ((mutants.AcknowledgesBeforeItIsSaved,), "confirms entries up to"),
    ((mutants.CountsItselfBeforeItIsSaved,), ", of n1, n2, n3"),
    ((LeadsWithoutVotes,), "with votes from"),
    ((mutants.CountsMessages,), "with votes from"),
    ((mutants.CountsVotesOfAnyTerm,), "with votes from"),
    (mutants.everywhere(mutants.VotesTwice), "changes its vote in term"),
    ((mutants.VotesAgainAfterSteppingDown,), "changes its vote in term"),
    ((mutants.NeverCutsOff,), "does not match the other logs or: confirms entries up to"),
    ((mutants.CommitsPastTheNewEntries,), "as committed, but entry"),
    ((mutants.CutsOffOnAnyAppend,), "truncates entry or: which is on disk only at"),
    (mutants.everywhere(mutants.AppliesWhatIsNotOnDisk), "durable"),
    ((AppliesEachTwice,), "the log gives"),
    ((ResultsAreWrong,), "which results in"),
    ((ReadsAnotherKey,), "answers a read with"),
    ((mutants.ReadsAtOnceInTheStore,), "was committed when the read came"),
    (
        mutants.everywhere(mutants.StaleReadsAtOnce),
        "was shown by that node when or: allows stale reads from index",
    ),
    (mutants.everywhere(mutants.AnswersByIndexAlone), "as applied with entry"),
]
STRUCTURES: list[tuple[str, type, str]] = [
    (
        "raftkv.raft.replica.Log",
        mutants.SkipsTheConsistencyCheck,
        "does not match the other logs or: confirms entries up to",
    ),
    ("raftkv.raft.replica.Log", mutants.VotesForAnyLog, "without entry"),
    ("raftkv.actors.node.Replica", mutants.ForgetsWhatWasCutOff, "as durable, but its disk holds"),
    ("raftkv.actors.roles.replication.Progress", mutants.MatchGoesBack, "the match index of"),
    ("raftkv.actors.roles.replication.Progress", mutants.SentIsMatched, ", of n1, n2, n3"),
    ("raftkv.actors.roles.replication.Progress", mutants.TakesAProbeForAMatch, ""),
]


def first_report(node_class: type[Node]) -> str:
    """Live with a mistake, seed after seed, and return what is reported first."""
    for seed in range(20):
        print(f"seed {seed}")
        town = Town(3, seed, node_class)
        assert town.invariants is not None
        try:
            town.founded().run(20.0)
            town.invariants.check_everything()
        except Violation as violation:
            return str(violation)
        finally:
            VirtualLoop.close_all()
    pytest.fail("nothing was reported")


@pytest.mark.parametrize(
    ("classes", "words"), [pytest.param(*each, id=each[0][0].__name__.removesuffix("Bootstrap")) for each in ACTORS]
)
def test_a_mistake_of_an_actor_is_noticed(classes: tuple[type[Actor], ...], words: str) -> None:
    report = first_report(node_with(*classes))
    assert any(each in report for each in words.split(" or: ")), report


@pytest.mark.parametrize(("place", "wrong", "words"), [pytest.param(*each, id=each[1].__name__) for each in STRUCTURES])
def test_a_mistake_of_a_structure_is_noticed(
    place: str, wrong: type, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, wrong)
    report = first_report(Node)
    assert any(each in report for each in words.split(" or: ")), report


def test_a_read_that_no_majority_confirmed_is_noticed() -> None:
    """6.4: a leader that was deposed in its sleep, and reads before it knows."""
    town = Town(3, 1, node_with(mutants.ReadsWithoutARound)).founded().written_everywhere()
    old = town.leader
    town.cut_off(old.machine.name)
    old.machine.stop()
    assert town.simulation.run_until(lambda: town.leader is not old, PATIENCE_MS)
    town.write(town.leader, 3)
    town.simulation.run_ms(200.0)
    old.machine.go_on()
    town.read(old)

    assert "was committed when the read came" in town.goes_on()


@pytest.mark.parametrize(
    ("terms_back", "vote", "words"), [(1, None, "goes back from term"), (0, "n9", "votes twice in term")]
)
def test_a_save_that_no_node_may_send_is_noticed(terms_back: int, vote: str | None, words: str) -> None:
    town = Town().founded().written_everywhere()
    node = next(node for node in town.cluster.nodes().values() if _replica(node).voted_for)
    journal = node.actor(Journal)
    node.system.tell(journal.myAddress, Save(journal._last_number + 1, _replica(node).current_term - terms_back, vote))

    assert words in town.goes_on()


def test_a_gap_in_the_saved_entries_is_noticed() -> None:
    """Section 3.5: what a leader has appended is saved as well when it steps down before it has flushed."""
    town = Town().founded().written_everywhere()
    node: Any = town.followers[0]
    journal, last = node.actor(Journal), _replica(node).log.last_index
    save = Save(
        journal._last_number + 1, _replica(node).current_term, _replica(node).voted_for, (Entry(last + 2, 9, 0, b""),)
    )
    node.system.tell(journal.myAddress, save)

    assert f"but its log on disk ends at {last}" in town.goes_on()


# --- disks, and processes that end


class Raises(Follower):
    """A bug."""

    def on_AppendEntries(self, message: AppendEntries) -> None:
        """Fail at the third entry."""
        assert message.prev_log_index < 2
        super().on_AppendEntries(message)


def test_a_process_that_ends_for_a_bug_is_noticed() -> None:
    assert "ends itself with status 70: bug in follower" in Town(3, 1, node_with(Raises)).goes_on()


def test_a_process_that_ends_for_a_failed_disk_is_not() -> None:
    town = Town().founded().written_everywhere()
    machine = town.leader.machine
    machine.disk.fail("sync")
    town.write(town.leader)
    town.simulation.run_ms(200.0)

    assert machine.ended is not None
    assert machine.ended[0] == EXIT_BUG


def test_a_failed_disk_explains_no_later_end() -> None:
    town = Town().founded().written_everywhere()
    machine = town.leader.machine
    machine.disk.fail("sync")
    town.write(town.leader)
    town.simulation.run_ms(200.0)
    machine.boot()
    town.simulation.run_ms(200.0)
    machine._stop_itself(EXIT_BUG, "the journal stops after no reason")

    assert "the journal stops after no reason" in town.goes_on()


def test_an_end_that_is_expected_is_not_reported() -> None:
    town = Town().founded()
    assert town.invariants is not None
    town.invariants.expect_end("n1")
    town.cluster.machines["n1"]._stop_itself(EXIT_BUG, "once")
    town.simulation.run_ms(100.0)
    town.cluster.machines["n1"].boot()
    town.simulation.run_ms(100.0)
    town.cluster.machines["n1"]._stop_itself(EXIT_BUG, "twice")

    assert "n1 ends itself with status 70: twice" in town.goes_on()


@pytest.mark.parametrize("is_a_fault", [True, False])
def test_damage_that_is_found_is_reported_unless_a_fault_explains_it(is_a_fault: bool) -> None:
    town = Town().founded().written_everywhere()
    machine = town.leader.machine
    machine.crash()
    journal = next(path for path in machine.disk.files() if path.endswith(".wal"))
    if is_a_fault:
        machine.disk.events.append(DiskEvent("flipped", journal, "by the test"))
    machine.disk.flip(journal, 512 + 8)
    machine.boot()

    if is_a_fault:
        town.simulation.run_ms(1000.0)
        assert machine.ended is not None
        assert machine.ended[0] == EXIT_UNUSABLE
    else:
        assert "ends itself with status 1" in town.goes_on()


def test_a_node_with_a_wiped_disk_is_another_incarnation() -> None:
    town = Town().founded().written_everywhere()
    name = town.leader.machine.name
    town.cluster.machines[name].wipe()
    town.cluster.boot()
    town.simulation.run_ms(3000.0)
    town.write(town.leader, 3)
    town.simulation.run_ms(500.0)
    assert town.invariants is not None
    town.invariants.check_everything()
    assert town.cluster.nodes()[name].role == "bootstrap"


def test_a_disk_that_gets_empty_by_itself_is_noticed() -> None:
    town = Town().founded().written_everywhere()
    machine = town.leader.machine
    machine.kill()
    machine.disk.wipe()
    machine.boot()

    assert "restarts as" in town.goes_on()


def test_two_clusters_are_noticed() -> None:
    town = Town().founded()
    town.cluster.on_role_changed(RoleChanged("n1", "follower", 1, None, "", "another"))

    assert "n1 belongs to cluster another" in town.goes_on()


def test_another_founding_is_noticed() -> None:
    town = Town().founded()
    log: Any = _replica(town.followers[0]).log
    founding = Entry(1, 1, Kind.CONFIGURATION, log.configuration.encode() + b" ")
    node = town.followers[0]
    assert town.invariants is not None
    with pytest.raises(Violation, match="belongs to another cluster"):
        town.invariants.record.note_entry(node.machine.name, founding, 0)


def test_a_second_vote_of_a_term_is_noticed_across_restarts() -> None:
    """Section 3.4: each server votes for at most one candidate in a given term; wiped, it is another server."""
    record = ClusterRecord()
    record.note_vote(ExpectedDisk("n1", "first"), 5, "n2")
    record.note_vote(ExpectedDisk("n1", "second"), 5, "n3")

    with pytest.raises(Violation, match="n1 votes twice in term 5: for n2 and for n3"):
        record.note_vote(ExpectedDisk("n1", "first"), 5, "n3")


def test_saves_have_numbers_without_gaps() -> None:
    with pytest.raises(Violation, match="n1 sends save 2 after save 0"):
        ExpectedDisk("n1", "first").note_save(Save(2, 1, None))


def test_a_save_that_was_not_confirmed_may_be_there_or_not_but_only_as_a_whole() -> None:
    def found(*entries: Entry, term: int) -> None:
        disk = ExpectedDisk("n1", "first")
        disk.note_save(Save(1, 1, None, (one,)))
        disk.note_saved(1)
        disk.note_save(Save(2, 2, "n1"))
        disk.note_save(Save(3, 2, "n1", (two, three)))
        disk.check_recovered(Recovered(term, "n1" if term == 2 else None, entries, 0))

    one, two, three = (Entry(index, 1, Kind.NOOP, b"") for index in (1, 2, 3))
    found(one, term=1)
    found(one, term=2)
    found(one, two, three, term=2)
    for entries, term in (((one, two), 2), ((one, two, three), 1), ((), 2)):
        with pytest.raises(Violation, match="n1 restarts with"):
            found(*entries, term=term)
