"""One role alone on a stage: gets messages, and shows everything it sends.

The node under test is n1; its peers are n2 and n3 (and n4, n5 where a test wants five). The journal of the stage
answers every save at once, unless the test holds it back with ``disk_waits``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from thespian.actors import ActorAddress

from raftkv.actors.messages.node import (
    AppliedUpTo,
    Apply,
    Assume,
    Flush,
    ReadAt,
    RoleChanged,
    Save,
    Saved,
    Start,
)
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    BootstrapHello,
    RequestVoteReply,
)
from raftkv.actors.messages.requests import (
    AskReadIndex,
    PendingRequest,
    Propose,
    Read,
    Refused,
    ReplyTo,
    Resign,
)
from raftkv.actors.roles.bootstrap import Bootstrap
from raftkv.actors.roles.candidate import Candidate
from raftkv.actors.roles.follower import Follower
from raftkv.actors.roles.leader import Leader
from raftkv.actors.roles.role import Role
from raftkv.config.settings import Limits, Timing
from raftkv.environment import Clock, Environment
from raftkv.raft.configuration import Member, founding_configuration
from raftkv.raft.entry import Entry, Kind
from raftkv.raft.replica import Replica
from raftkv.store.commands import Get, Put, encode_commands
from tests.support.stage import Stage

ROOM = 1 << 40
NAMES = ("n1", "n2", "n3")
INITIAL_CLUSTER_HASH = "the list"
CLASSES: dict[str, type[Role]] = {
    "bootstrap": Bootstrap,
    "follower": Follower,
    "candidate": Candidate,
    "leader": Leader,
}
"""What a player is made of; a test may put another class in for as long as it runs."""


@dataclass(frozen=True)
class Becomes:
    """The replica was handed to another role."""

    role: str


def founding_entry(names: tuple[str, ...] = NAMES) -> Entry:
    """Return entry 1 of a cluster of these nodes."""
    members = [Member(name, f"{name}:5001", f"{name}-1") for name in names]
    return Entry(1, 1, Kind.CONFIGURATION, founding_configuration(members).encode())


def log(*terms: int, names: tuple[str, ...] = NAMES) -> tuple[Entry, ...]:
    """Return entry 1 and, from index 2 on, an entry of each of these terms: what it sets tells them apart."""
    return founding_entry(names), *(entry(index, term) for index, term in enumerate(terms, 2))


def entry(index: int, term: int) -> Entry:
    """Return an entry that sets key ``k<index>`` to ``t<term>``."""
    return Entry(index, term, Kind.COMMANDS, encode_commands((put(index, term),)))


def noop(index: int, term: int) -> Entry:
    """Return the no-op with which a leader begins its term."""
    return Entry(index, term, Kind.NOOP, b"")


def put(index: int, term: int) -> Put:
    """Return the command of ``entry(index, term)``."""
    return Put(f"k{index}", b"t%d" % term)


def start_message(
    clock: Clock, fail: Callable[[int, str], None], names: tuple[str, ...] = NAMES, limits: Limits | None = None
) -> Start:
    """Return the first message to an actor of n1, whose Node, journal and store nobody plays but the test."""
    return Start(
        node_id="n1",
        node=ActorAddress("node"),
        journal=ActorAddress("journal"),
        store=ActorAddress("store"),
        peer_address=ActorAddress,
        initial_cluster=tuple((name, f"{name}:5001") for name in names),
        initial_cluster_hash=INITIAL_CLUSTER_HASH,
        environment=Environment(
            directory="",
            disk=None,  # type: ignore[arg-type]
            clock=clock,
            rng=Random(1),
            timing=Timing(),
            limits=limits or Limits(),
            fail=fail,
        ),
    )


class Player:
    """A role that has the replica, until it hands it on: then the role that it named goes on in its place."""

    def __init__(
        self, role: str, replica: Replica, *, names: tuple[str, ...] = (), limits: Limits | None = None
    ) -> None:
        self.stage = Stage()
        self._given = replica
        self.disk_waits = False
        self.held_back: list[Save] = []
        self.store_answers = True
        self.announced: list[RoleChanged] = []
        self.failure: str | None = None
        self.roles: dict[str, Any] = {name: self.stage.put(name, actor) for name, actor in CLASSES.items()}
        start = start_message(self.stage.clock, self._fail, names or replica.configuration.ids, limits)
        for name in self.roles:
            self.stage.give(name, start)
        self.role = role

    def _fail(self, status: int, line: str) -> None:
        self.failure = f"{status}: {line}"

    @property
    def replica(self) -> Replica:
        """The replica as the role has it that holds it; before the start, the one that was given."""
        return next((actor.replica for actor in self.roles.values() if actor.has_replica), self._given)

    # --- acting

    def starts(self) -> list[tuple[str, Any]]:
        """Take the replica over, and return what is sent at once."""
        self.stage.give(self.role, Assume(self.replica, self.role, "the test says so"))  # type: ignore[arg-type]
        return self._shown()

    def gets(self, *messages: Any) -> list[tuple[str, Any]]:
        """Handle messages, and return all that is sent: (to whom, what), in order."""
        for message in messages:
            self.stage.give(self.role, message)
        return self._shown()

    def waits_ms(self, span_ms: float) -> list[tuple[str, Any]]:
        """Let time pass, every wake-up at its moment, and return all that is sent."""
        end = self.stage.clock.ms + span_ms
        shown = []
        while (due := min((w[0] for w in self.stage.wakeups), default=end + 1)) <= end:
            self.stage.clock.ms = max(due, self.stage.clock.ms)
            self.stage.wake_due()
            shown += self._shown()
        self.stage.clock.ms = end
        return shown

    def stalls_ms(self, span_ms: float) -> list[tuple[str, Any]]:
        """Let time pass while nothing is handled, as when the process was stopped; then what is due comes late."""
        self.stage.clock.ms += span_ms
        self.stage.wake_due()
        return self._shown()

    def disk_answers(self) -> list[tuple[str, Any]]:
        """Let the saves that were held back become durable, and return what is sent upon that."""
        saves, self.held_back = self.held_back, []
        self.disk_waits = False
        return self.gets(Saved(saves[-1].number, ROOM)) if saves else []

    # --- looking on

    def _shown(self) -> list[tuple[str, Any]]:
        shown: list[tuple[str, Any]] = []
        while self.stage.sent:
            source, target, message = self.stage.sent.pop(0)
            assert self.failure is None, self.failure
            if isinstance(message, Flush):
                self.stage.give(target, message, source)
            elif isinstance(message, RoleChanged):
                self.announced.append(message)
            elif isinstance(message, Save):
                shown.append((target, message))
                if self.disk_waits:
                    self.held_back.append(message)
                else:
                    self.stage.give(self.role, Saved(message.number, ROOM))
            elif isinstance(message, Assume):
                shown.append((target, Becomes(message.role)))
                self.role = message.role
                self.stage.give(self.role, message)
            elif isinstance(message, Apply) and self.store_answers:
                shown.append((target, message))
                self.stage.give(self.role, AppliedUpTo(message.entries[-1].index))
            else:
                shown.append((target, message))
        assert self.failure is None, self.failure
        return shown


def _replica(term: int, entries: tuple[Entry, ...], voted_for: str | None, commit_index: int) -> Replica:
    replica = Replica("n1", "n1-1", 77, current_term=term, voted_for=voted_for, entries=entries, free_bytes=ROOM)
    replica.commit_index = replica.applying_index = replica.last_applied = commit_index
    # One that knows of commits has asked for a read index before.
    replica.min_stale_read_index = commit_index or None
    return replica


def bootstrapping(names: tuple[str, ...] = NAMES, *, incarnation: str = "n1-1") -> Player:
    """Return a node without data that has been started with a list of these nodes."""
    player = Player("bootstrap", Replica("n1", incarnation, 77, free_bytes=ROOM), names=names)
    player.starts()
    return player


def follower(
    *,
    term: int = 1,
    entries: tuple[Entry, ...] | None = None,
    voted_for: str | None = None,
    commit_index: int = 1,
    limits: Limits | None = None,
) -> Player:
    """Return a follower with this log (entry 1 alone by default)."""
    replica = _replica(term, log() if entries is None else entries, voted_for, commit_index)
    player = Player("follower", replica, limits=limits)
    assert player.starts() == []
    return player


def follower_of(leader: str, *, term: int = 2, limits: Limits | None = None) -> Player:
    """Return a follower that has just heard from this leader."""
    player = follower(term=term, limits=limits)
    player.gets(append(sender=leader, term=term, commit=1))
    assert player.replica.leader_id == leader
    return player


def candidate(*, term: int = 1, entries: tuple[Entry, ...] | None = None, commit_index: int = 1) -> Player:
    """Return a candidate that was granted its pre-votes and asks for votes in ``term`` + 1."""
    player = Player("candidate", _replica(term, log() if entries is None else entries, None, commit_index))
    player.starts()
    player.gets(granted("n2", term=term + 1, pre_vote=True), granted("n3", term=term + 1, pre_vote=True))
    return player


def leader(
    *,
    term: int = 2,
    entries: tuple[Entry, ...] | None = None,
    commit_index: int = 1,
    disk_waits: bool = False,
    limits: Limits | None = None,
) -> Player:
    """Return a leader that has just been elected in ``term``: its no-op is saved and sent, and nobody has answered."""
    replica = _replica(term, log() if entries is None else entries, "n1", commit_index)
    player = Player("leader", replica, limits=limits)
    player.disk_waits = disk_waits
    player.starts()
    return player


def settled_leader(*, term: int = 2, entries: tuple[Entry, ...] | None = None, limits: Limits | None = None) -> Player:
    """Return a leader whose no-op is committed, and whose peers have all that it has."""
    player = leader(term=term, entries=entries, limits=limits)
    last = player.replica.log.last_index
    for peer in player.replica.peers:
        player.gets(matched(peer, term=term, match_index=last))
    assert player.replica.commit_index == last
    return player


def granted(sender: str, *, term: int, pre_vote: bool = False) -> RequestVoteReply:
    """Return a vote."""
    return RequestVoteReply(sender, term, True, pre_vote)


def denied(sender: str, *, term: int, pre_vote: bool = False) -> RequestVoteReply:
    """Return a refused vote."""
    return RequestVoteReply(sender, term, False, pre_vote)


def matched(sender: str, *, term: int, match_index: int, read_round: int = 0) -> AppendEntriesReply:
    """Return a successful answer to AppendEntries."""
    return AppendEntriesReply(sender, term, True, match_index, read_round)


def append(
    *entries: Entry, sender: str = "n2", term: int = 2, prev: tuple[int, int] = (1, 1), commit: int = 0, round: int = 0
) -> AppendEntries:
    """Return an AppendEntries; ``prev`` is (prev_log_index, prev_log_term)."""
    return AppendEntries(sender, term, *prev, entries, commit, round)


def write(
    *commands: Put, reply_to: str = "client", forward: tuple[int, int] | None = None, until: float = 1e9
) -> PendingRequest:
    """Return a write as Node gives it to a role."""
    return PendingRequest(Propose(commands or (put(9, 9),), 1000.0), ReplyTo(ActorAddress(reply_to), forward), until)


def read(
    key: str = "k", *, level: Any = "linearizable", reply_to: str = "client", until: float = 1e9
) -> PendingRequest:
    """Return a read as Node gives it to a role."""
    return PendingRequest(Read((Get(key),), level, 1000.0), ReplyTo(ActorAddress(reply_to)), until)


def ask_read_index(peer: str = "n2", number: int = 1, *, boot: int = 5, until: float = 1e9) -> PendingRequest:
    """Return a follower's question for a read index, as Node gives it to a role."""
    return PendingRequest(AskReadIndex(1000.0), ReplyTo(ActorAddress(peer), (boot, number)), until)


def resign(*, reply_to: str = "client") -> PendingRequest:
    """Return the request to hand leadership over before the node stops."""
    return PendingRequest(Resign(1000.0), ReplyTo(ActorAddress(reply_to)), 1e9)


def read_at(key: str = "k", *, read_index: int, reply_to: str = "client", until: float = 1e9) -> tuple[str, ReadAt]:
    """Return what the store is told to answer to ``read(key)``."""
    return "store", ReadAt((Get(key),), ReplyTo(ActorAddress(reply_to)), read_index, until)


def refusals(shown: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Return who was refused something, and with which code."""
    return [(target, message.code) for target, message in only(Refused, shown)]


def introduce(
    sender: str,
    *met: str,
    incarnation: str = "",
    list_hash: str = INITIAL_CLUSTER_HASH,
    founding: bytes = b"",
    asks: bool = True,
) -> BootstrapHello:
    """Return an introduction: ``met`` are incarnations such as "n2-1"."""
    own = incarnation or f"{sender}-1"
    pairs = tuple(sorted((name.split("-")[0], name) for name in {own, *met}))
    return BootstrapHello(sender, own, list_hash, () if founding else pairs, founding, asks)


def only(kind: type, shown: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return those of the messages that are of one kind."""
    return [(target, message) for target, message in shown if isinstance(message, kind)]
