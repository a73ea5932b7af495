"""A cluster that writes down its messages between nodes as a story in plain words."""

from __future__ import annotations

from typing import Any, NamedTuple

from raftkv.actors.messages.base import PeerMessage
from raftkv.actors.messages.node import AdvertiseAddress, RoleChanged
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
    AskReadIndex,
    Forward,
    ForwardReply,
    Propose,
    Read,
    ReadIndex,
    ReadResult,
    Refused,
)
from raftkv.raft.configuration import decode_configuration
from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import Command, Put, decode_commands
from tests.support.in_memory import InMemoryCluster


class Line(NamedTuple):
    """One event: the time, the node or the two nodes, and what happened."""

    ms: float
    who: str
    what: str

    def __str__(self) -> str:
        """Return the line of the story."""
        return f"{self.ms:8.1f} ms  {self.who:<12}  {self.what}"


class Storyteller(InMemoryCluster):
    """Writes down every message between nodes when it is sent, except heartbeats without news."""

    def __init__(self, size: int, seed: int) -> None:
        self.lines: list[str | Line] = []
        self.is_recording = False
        self.routine = 0
        """How many heartbeats and replies were left out since the last line."""
        self.known: dict[tuple[str, str], object] = {}
        """The content of the last heartbeat, or reply to one, from each node to each other one."""
        self.shown_changes = 0
        self.shown_replies = 0
        super().__init__(size, seed)

    # --- telling

    def chapter(self, title: str, *text: str) -> None:
        """Start a chapter of the story."""
        self._add_routine()
        self.lines += ["", f"== {title} ==", *text, ""]

    def story(self) -> str:
        """Return the story so far."""
        self._add_routine()
        return "\n".join(map(str, self.lines)).strip("\n") + "\n"

    def asks(self, asker: str, name: str, message: Propose | Read) -> None:
        """Send a client's request to a node."""
        what = ", ".join(map(_command, message.commands)) if isinstance(message, Propose) else _queries(message)
        self._add(f"{asker} -> {name}", what)
        self.ask(name, message, asker)

    def happens(self, name: str, what: str) -> None:
        """Add an event that is not a message."""
        self._add(f"{name} !", what)

    def step(self) -> None:
        """Run one step of the cluster, and add changes of role and answers to clients."""
        super().step()
        for change in self.changes[self.shown_changes :]:
            self._add_change(change)
        self.shown_changes = len(self.changes)
        for asker, reply in self.replies[self.shown_replies :]:
            self._add(f"{asker} <-", _reply(reply))
        self.shown_replies = len(self.replies)

    def _post(self, source: str, target: str, message: Any) -> None:
        lost = (source, target) in self.cut or target not in self.stage.actors
        if self._is_routine(source, target, message):
            self.routine += self.is_recording
        else:
            self._add(f"{source} {'-x' if lost else '->'} {target}", in_words(message))
        super()._post(source, target, message)

    def _is_routine(self, source: str, target: str, message: Any) -> bool:
        """Whether a message has the same content as the last one of its kind to this node."""
        if isinstance(message, AppendEntries) and not message.entries:
            news: object = (message.term, message.prev_log_index, message.leader_commit, message.read_round)
        elif isinstance(message, AppendEntriesReply) and message.success:
            news = (message.term, message.match_index, message.read_round)
        else:
            return not self.is_recording
        before, self.known[source, target] = self.known.get((source, target)), news
        return news == before

    def _add_change(self, change: RoleChanged) -> None:
        """Add a change of role before the messages that the node sent in the new role at the same time."""
        self._add(f"{change.id} *", f"{change.role} in term {change.term}: {change.reason}")
        place = len(self.lines) - 1
        while self.is_recording and place > 0 and self._was_sent_now(self.lines[place - 1], change.id):
            self.lines[place - 1], self.lines[place] = self.lines[place], self.lines[place - 1]
            place -= 1

    def _was_sent_now(self, line: str | Line, name: str) -> bool:
        return isinstance(line, Line) and line.ms == self.stage.clock.ms and line.who.startswith(f"{name} -")

    def _add(self, who: str, what: str) -> None:
        if self.is_recording:
            self._add_routine()
            self.lines.append(Line(self.stage.clock.ms, who, what))

    def _add_routine(self) -> None:
        if self.routine:
            plural = "s" * (self.routine > 1)
            self.lines.append(f"{'':13}(… {self.routine} message{plural} with nothing new)")
            self.routine = 0


# --- in words


def in_words(message: PeerMessage) -> str:
    """Return a message between nodes in words."""
    match message:
        case RequestVote():
            log = f"my log ends with {message.last_log_index} of term {message.last_log_term}"
            if message.pre_vote:
                return f"would you vote for me in term {message.term}? {log}"
            return f"vote for me in term {message.term}: {log}{', and the leader asked me to' * message.transfer}"
        case RequestVoteReply(pre_vote=True):
            return f"I would, in term {message.term}" if message.vote_granted else f"no; it is term {message.term} here"
        case RequestVoteReply():
            return (
                f"you have my vote in term {message.term}"
                if message.vote_granted
                else f"no, not in term {message.term}"
            )
        case AppendEntries():
            return _append(message)
        case AppendEntriesReply():
            return _append_reply(message)
        case TimeoutNow():
            return f"take over from me, the leader of term {message.term}"
        case Forward(request=Propose() as propose):
            return f"request {message.number} for you: {', '.join(map(_command, propose.commands))}"
        case Forward(request=AskReadIndex()):
            return f"request {message.number} for you: up to where must I have applied to read now?"
        case ForwardReply():
            return f"to your request {message.number}: {_reply(message.reply)}"
        case BootstrapHello():
            met = ", ".join(name for _, name in message.met)
            return "this is how our cluster was founded" if message.founding else f"I am here, and have met {met}"
        case Forward() | AdvertiseAddress():
            return type(message).__name__
        case _:
            raise AssertionError(f"no words for {type(message).__name__}")


def _append(message: AppendEntries) -> str:
    after = f"{message.prev_log_index} of term {message.prev_log_term}"
    round_of_reads = f"; round {message.read_round} of reads" if message.read_round else ""
    commit = f"; committed up to {message.leader_commit}{round_of_reads}"
    if not message.entries:
        return f"I lead in term {message.term}; you should have {after}{commit}"
    entries = ", ".join(map(_entry, message.entries))
    return f"I lead in term {message.term}; after {after} comes {entries}{commit}"


def _append_reply(message: AppendEntriesReply) -> str:
    if message.success:
        return f"in term {message.term} I have all up to {message.match_index} on disk"
    if message.conflict_term:
        return (
            f"in term {message.term}, no: my entry {message.match_index} is of term {message.conflict_term}, "
            f"which begins at {message.conflict_index}"
        )
    if message.conflict_index:
        return (
            f"in term {message.term}, no: I have no {message.match_index}, my log ends before {message.conflict_index}"
        )
    return f"no: it is term {message.term} here"


def _entry(entry: Entry) -> str:
    if entry.kind == Kind.NOOP:
        what = "no-op"
    elif entry.kind == Kind.CONFIGURATION:
        what = f"configuration {', '.join(decode_configuration(entry.data).ids)}"
    else:
        what = ", ".join(map(_command, decode_commands(entry.data)))
    return f"{entry.index} of term {entry.term} ({what})"


def _command(command: Command) -> str:
    return f"put {command.key}={command.value.decode()}" if isinstance(command, Put) else f"delete {command.key}"


def _queries(message: Read) -> str:
    return f"get {', '.join(query.key for query in message.queries)}"


def _reply(reply: Any) -> str:
    match reply:
        case Applied():
            return f"done, with entry {reply.index} of term {reply.term}"
        case ReadResult():
            return "found " + ", ".join(item.value.decode() if item else "nothing" for item in reply.items)
        case ReadIndex():
            return f"up to {reply.index}"
        case Refused():
            return f"{reply.code}: {reply.detail}"
        case _:
            return type(reply).__name__
