"""One life of a node, as it was seen last: what may have changed since then is held against what may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raftkv.actors.messages.node import Apply
from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
)
from raftkv.actors.roles.leader import Leader
from raftkv.actors.roles.role import Role
from raftkv.actors.system.base.endpoint import Ask
from raftkv.raft.entry import Entry
from raftkv.raft.replica import Replica
from raftkv.simulation.checks.expected_disk import ExpectedDisk
from raftkv.simulation.checks.record import ClusterRecord
from raftkv.simulation.checks.send_checker import SendChecker
from raftkv.simulation.checks.violation import Violation, at, same, told
from raftkv.store.commands import encode_commands


@dataclass(slots=True)
class OpenAsk:
    """A request from outside that waits for its answer, and the index that the answer must have reached."""

    ask: Ask
    request: Propose | Read
    floor: int


class NodeChecker:
    """A life of a node, from its boot on."""

    __slots__ = ("_asks", "_commit_index", "_durable", "_durable_index", "_durable_term", "_entries", "_handed_index",
                 "_has_floor", "_last", "_last_applied", "_led_term", "_match", "_record", "_said", "_shown_before",
                 "_store", "_store_applied", "_term", "_voted_for", "name")  # fmt: skip

    def __init__(self, name: str, record: ClusterRecord, said: SendChecker) -> None:
        self.name = name
        self._record = record
        self._said = said
        self._durable: ExpectedDisk = record.durable[name]
        self._term = 0
        self._voted_for: str | None = None
        self._durable_term = 0
        self._entries: list[Entry] = []
        self._last: Entry | None = None
        self._commit_index = 0
        self._durable_index = 0
        self._handed_index = 0
        self._last_applied = 0
        self._led_term = 0
        """The latest term that it was seen to lead."""
        self._has_floor = False
        self._shown_before = 0
        """The latest index that a stale read has shown in an earlier life."""
        self._match: dict[str, int] = {}
        self._store: Any = None
        self._store_applied = 0
        self._asks: dict[int, OpenAsk] = {}

    def recovered(self) -> None:
        """Begin with what is on disk."""
        self._term, self._voted_for = self._durable.term, self._durable.voted_for
        self._shown_before = self._durable.seen_index

    # --- the replica

    def look(self, role: Role) -> None:
        """Compare the replica with what it was; little is done where nothing has changed."""
        replica = role.replica
        if replica.current_term != self._term or replica.voted_for != self._voted_for:
            self._see_term(replica)
        log = replica.log
        last = log.last_index
        if last != len(self._entries) or (last and log.entry(last) is not self._last):
            self._see_log(role, replica)
        if role.role == "leader" and self._led_term != replica.current_term:
            self._see_election(replica)
        if replica.durable_index != self._durable_index or replica.saves.durable_term != self._durable_term:
            self._see_durable(replica)
        if replica.commit_index != self._commit_index:
            self._see_commit(replica)
        if replica.min_stale_read_index is not None and not self._has_floor:
            self._has_floor = True
            if replica.min_stale_read_index < self._shown_before:
                raise Violation(
                    f"{self.name} takes {replica.min_stale_read_index} for what stale reads have to show, and "
                    f"{self._shown_before} was shown there before"
                )
        if replica.applying_index != self._handed_index or replica.last_applied != self._last_applied:
            self._see_applied(replica)

    def _see_term(self, replica: Replica) -> None:
        term, vote = replica.current_term, replica.voted_for
        if term < self._term:
            raise Violation(f"{self.name} goes back to term {term} from term {self._term}")
        if term == self._term and self._voted_for not in (None, vote):
            raise Violation(f"{self.name} changes its vote in term {term}: from {self._voted_for} to {vote}")
        self._term, self._voted_for = term, vote

    def _see_log(self, role: Role, replica: Replica) -> None:
        log, entries = replica.log, self._entries
        kept = min(len(entries), log.last_index)
        while kept and entries[kept - 1] is not log.entry(kept):
            kept -= 1
        if kept < len(entries):
            if kept < self._commit_index:
                raise Violation(
                    f"{self.name} cuts off {told(entries[kept])}, and knew that everything up to {self._commit_index} "
                    "is committed"
                )
            if role.role == "leader" and self._led_term == replica.current_term:
                raise Violation(
                    f"{self.name} leads in term {replica.current_term} and removes {told(entries[kept])} from its log"
                )
            self._durable_index = min(self._durable_index, kept)
            del entries[kept:]
        term = entries[-1].term if entries else 0
        for entry in log.span(kept + 1, log.last_index):
            if entry.index != len(entries) + 1:
                raise Violation(f"the log of {self.name} has {told(entry)} in place {len(entries) + 1}")
            self._record.enter(self.name, entry, term)
            entries.append(entry)
            term = entry.term
        self._last = at(entries, len(entries))

    def _see_election(self, replica: Replica) -> None:
        term, record = replica.current_term, self._record
        reign = record.claim(term, self.name)
        self._led_term = term
        self._match = {}
        inherited = len(self._entries)
        while inherited and self._entries[inherited - 1].term == term:
            inherited -= 1
        reign.inherited = self._entries[:inherited]
        votes = record.votes.get(term, {})
        voters = {voter for (voter, _), candidate in votes.items() if candidate == self.name}
        ballot = self._durable.ballots.get(term)
        if ballot is not None and ballot.voted_for == self.name:
            voters.add(self.name)
        if not replica.configuration.has_quorum(voters):
            everyone = ", ".join(sorted(replica.configuration.all_voters))
            raise Violation(
                f"{self.name} leads in term {term} with votes of {', '.join(sorted(voters)) or 'nobody'}: of {everyone}"
            )
        self._see_completeness(term, reign.inherited)

    def _see_completeness(self, term: int, log: list[Entry]) -> None:
        """See that a leader has all that was committed before its term (leader completeness, 3.6.3)."""
        committed = self._record.committed
        needed = committed.before(term)
        if log[:needed] != committed.entries[:needed]:
            for entry in committed.entries[:needed]:
                if not same(at(log, entry.index), entry):
                    raise Violation(
                        f"{self.name} leads in term {term} without {told(entry)}, which was committed in term "
                        f"{committed.terms[entry.index - 1]}: it has {told(at(log, entry.index))}"
                    )

    def _see_durable(self, replica: Replica) -> None:
        index, term = replica.durable_index, replica.saves.durable_term
        if index < self._durable_index:
            raise Violation(f"the durable index of {self.name} falls from {self._durable_index} to {index}")
        if term < self._durable_term:
            raise Violation(f"the durable term of {self.name} falls from {self._durable_term} to {term}")
        entry = at(self._entries, index)
        if (index and entry is None) or (entry is not None and not self._durable.holds(entry)):
            there = at(self._durable.log, index)
            raise Violation(f"{self.name} takes {told(entry)} at {index} for durable, on its disk is {told(there)}")
        if term > self._durable.term:
            raise Violation(f"{self.name} takes term {term} for durable, on its disk is {self._durable.term}")
        self._durable_index, self._durable_term = index, term

    def _see_commit(self, replica: Replica) -> None:
        index, known, committed = replica.commit_index, self._commit_index, self._record.committed
        if index < known:
            raise Violation(f"the commit index of {self.name} falls from {known} to {index}")
        if index > len(self._entries):
            raise Violation(f"the commit index of {self.name} is {index}, its log ends at {len(self._entries)}")
        news = len(committed)
        for entry in self._entries[known:index]:
            if entry.index > len(committed):
                committed.add(entry, replica.current_term)
            elif not same(committed.entries[entry.index - 1], entry):
                there = committed.entries[entry.index - 1]
                raise Violation(f"{self.name} takes {told(entry)} for committed, where {told(there)} is")
        if len(committed) > max(news, 1):
            self._see_quorum(replica, committed.entries[-1])
        self._commit_index = index

    def _see_quorum(self, replica: Replica, entry: Entry) -> None:
        """See that a majority has an entry on disk; entry 1 needs none, since all nodes make it by themselves.

        A disk that was taken away counts as it was: its node had confirmed the entry before, and is out for good.
        """
        configuration, disk = replica.configuration, self._record.disk
        holders = {
            member.id
            for member in configuration.members
            if (durable := disk(member)) is not None and durable.holds(entry)
        }
        if not configuration.has_quorum(holders):
            raise Violation(
                f"{self.name} commits {told(entry)} in term {replica.current_term}, which is on the disk of "
                f"{', '.join(sorted(holders)) or 'nobody'} alone, of {', '.join(sorted(configuration.all_voters))}"
            )

    def _see_applied(self, replica: Replica) -> None:
        handed, applied = replica.applying_index, replica.last_applied
        if handed < self._handed_index or applied < self._last_applied:
            raise Violation(
                f"{self.name} goes back from {self._handed_index} handed to the store and {self._last_applied} applied "
                f"to {handed} and {applied}"
            )
        if handed > min(replica.commit_index, replica.durable_index):
            raise Violation(
                f"{self.name} has entries applied up to {handed}, with {replica.commit_index} committed and "
                f"{replica.durable_index} durable"
            )
        if applied > self._store_applied:
            raise Violation(f"{self.name} takes {applied} for applied, its store has applied {self._store_applied}")
        self._handed_index, self._last_applied = handed, applied

    def match(self, leader: Leader, peer: str) -> None:
        """See that what a leader knows of a peer's log only grows, and is on that peer's disk."""
        progress = leader.replication.progress.get(peer)
        if progress is None:
            return
        index, known = progress.match_index, self._match.get(peer, 0)
        if index == known:
            return
        term = leader.replica.current_term
        if index < known:
            raise Violation(f"what {self.name} knows of {peer}'s log falls from {known} to {index}, in term {term}")
        member = leader.replica.configuration.member(peer)
        disk = self._record.disk(member) if member is not None else None
        reached = disk.reached.get(term, 0) if disk is not None else 0
        if index > reached:
            raise Violation(
                f"{self.name}, the leader of term {term}, believes that {peer} has everything up to {index} on its "
                f"disk, it had {reached} at most in that term"
            )
        self._match[peer] = index

    # --- the store

    def applied(self, store: Any, message: Apply) -> None:
        """Compare what the store has now applied with the model."""
        self._store = store
        index, before, committed = store.last_applied, self._store_applied, self._record.committed
        if index < before:
            raise Violation(f"the store of {self.name} goes back from {before} applied to {index}")
        for entry in message.entries[before + 1 - message.first_index :]:
            there = at(committed.entries, entry.index)
            if not same(there, entry):
                raise Violation(f"{self.name} applies {told(entry)}, committed is {told(there)}")
            if not self._durable.holds(entry):
                raise Violation(f"{self.name} applies {told(entry)}, which is not on its disk")
        if index > len(committed):
            raise Violation(f"the store of {self.name} has applied {index}, committed are {len(committed)}")
        for each in range(before + 1, index + 1):
            for key in committed.keys(each):
                if store.keyspace.get(key) != committed.item(key, index):
                    raise self._another_keyspace(key, index)
        if store.keyspace.revision != committed.revision(index):
            raise Violation(
                f"the keyspace of {self.name} is at revision {store.keyspace.revision} after "
                f"{told(at(committed.entries, index))}, the log comes to {committed.revision(index)}"
            )
        self._store_applied = index

    def _another_keyspace(self, key: str, index: int) -> Violation:
        return Violation(
            f"the keyspace of {self.name} after entry {index} has {self._store.keyspace.get(key)} under {key}, the log "
            f"comes to {self._record.committed.item(key, index)}"
        )

    # --- answers to the outside

    def asked(self, ask: Ask, request: Propose | Read) -> None:
        """Note a request that comes from outside, and what is committed or was shown by then."""
        floor = 0
        if isinstance(request, Read):
            # Whatever is committed anywhere was committed in the term of the leader that serves the read, or lies
            # before the no-op that it has to commit first: so a read misses nothing that was committed when it came.
            floor = len(self._record.committed) if request.level == "linearizable" else self._durable.seen_index
        self._asks[ask.address.number] = OpenAsk(ask, request, floor)

    def see_answers(self) -> None:
        """Judge what was answered since."""
        for number in [number for number, asked in self._asks.items() if asked.ask.done()]:
            asked = self._asks.pop(number)
            answer = None if asked.ask.cancelled() else asked.ask.result()
            if isinstance(answer, Applied):
                self._see_write(asked, answer)
            elif isinstance(answer, ReadResult):
                self._see_read(asked, answer)

    def _see_write(self, asked: OpenAsk, answer: Applied) -> None:
        self._said.applied(self.name, answer)
        entry = self._record.committed.entries[answer.index - 1]
        if isinstance(asked.request, Propose) and encode_commands(asked.request.commands) != entry.data:
            raise Violation(f"{self.name} answers {asked.request} as applied with {told(entry)}")
        self._record.acknowledged_index = max(self._record.acknowledged_index, answer.index)

    def _see_read(self, asked: OpenAsk, answer: ReadResult) -> None:
        assert isinstance(asked.request, Read)
        index, committed = answer.index, self._record.committed
        if index < asked.floor:
            was = "committed" if asked.request.level == "linearizable" else "shown there"
            raise Violation(
                f"{self.name} answers a {asked.request.level} read from index {index}, {asked.floor} was {was} when it "
                "came"
            )
        if index > len(committed):
            raise Violation(f"{self.name} answers a read from index {index}, committed are {len(committed)}")
        right = tuple([committed.item(query.key, index) for query in asked.request.queries])
        if answer.items != right or answer.revision != committed.revision(index):
            raise Violation(
                f"{self.name} answers a read with {answer}, the log comes to {right} at revision "
                f"{committed.revision(index)}"
            )
        self._durable.seen_index = max(self._durable.seen_index, index)

    # --- everything

    def look_at_everything(self, role: Role | None) -> None:
        """Compare whole logs and keyspaces, where otherwise only what changes is looked at."""
        committed = self._record.committed
        if role is not None:
            self.look(role)
            log = role.replica.log
            if log.span(1, log.last_index) != self._entries:
                raise Violation(f"the log of {self.name} has changed in the middle")
            if self._entries[: self._commit_index] != committed.entries[: self._commit_index]:
                raise Violation(f"the log of {self.name} is not what is committed, up to {self._commit_index}")
        if self._store is not None:
            if self._store.last_applied != self._store_applied:
                raise Violation(f"the store of {self.name} has applied {self._store.last_applied} in silence")
            if self._store.keyspace.items() != committed.items(self._store_applied):
                self._raise_for_keyspace()

    def _raise_for_keyspace(self) -> None:
        index, committed = self._store_applied, self._record.committed
        here, there = dict(self._store.keyspace.items()), dict(committed.items(index))
        raise self._another_keyspace(next(key for key in {**here, **there} if here.get(key) != there.get(key)), index)
