"""One process of a node, as the last check left it: each check compares what has changed since with what may change.

Between two messages only a few fields of a replica change, so that most checks are comparisons of integers. The rules
are those of figure 3.1 and 3.2 of the dissertation: terms and indexes never fall, a vote never changes within a term,
a leader never removes entries, committed entries are on the disks of a majority and in the log of every later leader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raftkv.actors.messages.node import Apply
from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
    Refused,
)
from raftkv.actors.roles.leader import Leader
from raftkv.actors.roles.role import Role
from raftkv.actors.system.base.endpoint import Ask
from raftkv.raft.entry import Entry
from raftkv.raft.replica import Replica
from raftkv.simulation.checks.expected_disk import ExpectedDisk
from raftkv.simulation.checks.record import ClusterRecord
from raftkv.simulation.checks.send_checker import SendChecker
from raftkv.simulation.checks.violation import Violation, at, same
from raftkv.simulation.cluster.describe import describe_entry
from raftkv.store.commands import encode_commands


@dataclass(slots=True)
class OpenRequest:
    """A client's request that waits for its answer, and the index that a read must have reached."""

    ask: Ask
    request: Propose | Read
    min_index: int


class NodeChecker:
    """Checks one process of a node, from its boot on."""

    __slots__ = ("_applying_index", "_commit_index", "_disk", "_durable_index", "_durable_term", "_entries",
                 "_has_min_stale_read_index", "_last", "_last_applied", "_led_term", "_match", "_record", "_requests",
                 "_send_checker", "_shown_before", "_store", "_store_applied", "_term", "_voted_for",
                 "name")  # fmt: skip

    def __init__(self, name: str, record: ClusterRecord, send_checker: SendChecker) -> None:
        self.name = name
        self._record = record
        self._send_checker = send_checker
        self._disk: ExpectedDisk = record.disks[name]
        self._term = 0
        self._voted_for: str | None = None
        self._durable_term = 0
        self._entries: list[Entry] = []
        self._last: Entry | None = None
        self._commit_index = 0
        self._durable_index = 0
        self._applying_index = 0
        self._last_applied = 0
        self._led_term = 0
        """The latest term in which the node was seen to lead."""
        self._has_min_stale_read_index = False
        self._shown_before = 0
        """The latest index that a stale read has shown in an earlier process of the node."""
        self._match: dict[str, int] = {}
        self._store: Any = None
        self._store_applied = 0
        self._requests: dict[int, OpenRequest] = {}

    def start_from_disk(self) -> None:
        """Start with what the node has read from its disk."""
        self._term, self._voted_for = self._disk.term, self._disk.voted_for
        self._shown_before = self._disk.seen_index

    # --- the replica

    def check(self, role: Role) -> None:
        """Check what has changed in the replica since the last check; cheap if nothing has."""
        replica = role.replica
        if replica.current_term != self._term or replica.voted_for != self._voted_for:
            self._check_term(replica)
        log = replica.log
        last = log.last_index
        if last != len(self._entries) or (last and log.entry(last) is not self._last):
            self._check_log(role, replica)
        if role.role == "leader" and self._led_term != replica.current_term:
            self._check_election(replica)
        if replica.durable_index != self._durable_index or replica.saves.durable_term != self._durable_term:
            self._check_durable(replica)
        if replica.commit_index != self._commit_index:
            self._check_commit(replica)
        if replica.min_stale_read_index is not None and not self._has_min_stale_read_index:
            self._has_min_stale_read_index = True
            if replica.min_stale_read_index < self._shown_before:
                raise Violation(
                    f"{self.name} allows stale reads from index {replica.min_stale_read_index}, but has shown index "
                    f"{self._shown_before} before"
                )
        if replica.applying_index != self._applying_index or replica.last_applied != self._last_applied:
            self._check_applied(replica)

    def _check_term(self, replica: Replica) -> None:
        term, vote = replica.current_term, replica.voted_for
        if term < self._term:
            raise Violation(f"{self.name} goes back from term {self._term} to term {term}")
        if term == self._term and self._voted_for not in (None, vote):
            raise Violation(f"{self.name} changes its vote in term {term}: from {self._voted_for} to {vote}")
        self._term, self._voted_for = term, vote

    def _check_log(self, role: Role, replica: Replica) -> None:
        log, entries = replica.log, self._entries
        kept = min(len(entries), log.last_index)
        while kept and entries[kept - 1] is not log.entry(kept):
            kept -= 1
        if kept < len(entries):
            if kept < self._commit_index:
                raise Violation(
                    f"{self.name} truncates {describe_entry(entries[kept])}, but entries up to {self._commit_index} "
                    "are committed"
                )
            if role.role == "leader" and self._led_term == replica.current_term:
                raise Violation(
                    f"{self.name} leads in term {replica.current_term} and removes {describe_entry(entries[kept])}"
                )
            self._durable_index = min(self._durable_index, kept)
            del entries[kept:]
        term = entries[-1].term if entries else 0
        for entry in log.span(kept + 1, log.last_index):
            if entry.index != len(entries) + 1:
                raise Violation(f"the log of {self.name} has {describe_entry(entry)} at index {len(entries) + 1}")
            self._record.note_entry(self.name, entry, term)
            entries.append(entry)
            term = entry.term
        self._last = at(entries, len(entries))

    def _check_election(self, replica: Replica) -> None:
        term, record = replica.current_term, self._record
        leadership = record.note_leader(term, self.name)
        self._led_term = term
        self._match = {}
        inherited = len(self._entries)
        while inherited and self._entries[inherited - 1].term == term:
            inherited -= 1
        leadership.inherited = self._entries[:inherited]
        votes = record.votes.get(term, {})
        voters = {voter for (voter, _), candidate in votes.items() if candidate == self.name}
        ballot = self._disk.ballots.get(term)
        if ballot is not None and ballot.voted_for == self.name:
            voters.add(self.name)
        if not replica.configuration.has_quorum(voters):
            everyone = ", ".join(sorted(replica.configuration.all_voters))
            raise Violation(
                f"{self.name} leads in term {term} with votes from {', '.join(sorted(voters)) or 'no node'}: "
                f"of {everyone}"
            )
        self._check_completeness(term, leadership.inherited)

    def _check_completeness(self, term: int, log: list[Entry]) -> None:
        """Check that a leader has every entry that was committed before its term (leader completeness, 3.6.3)."""
        committed = self._record.committed
        needed = committed.before(term)
        if log[:needed] != committed.entries[:needed]:
            for entry in committed.entries[:needed]:
                if not same(at(log, entry.index), entry):
                    raise Violation(
                        f"{self.name} leads in term {term} without {describe_entry(entry)}, which was committed in "
                        f"term {committed.terms[entry.index - 1]}: its log has {describe_entry(at(log, entry.index))}"
                    )

    def _check_durable(self, replica: Replica) -> None:
        index, term = replica.durable_index, replica.saves.durable_term
        if index < self._durable_index:
            raise Violation(f"the durable index of {self.name} falls from {self._durable_index} to {index}")
        if term < self._durable_term:
            raise Violation(f"the durable term of {self.name} falls from {self._durable_term} to {term}")
        entry = at(self._entries, index)
        if (index and entry is None) or (entry is not None and not self._disk.holds(entry)):
            there = at(self._disk.log, index)
            raise Violation(
                f"{self.name} counts {describe_entry(entry)} at {index} as durable, but its disk holds "
                f"{describe_entry(there)}"
            )
        if term > self._disk.term:
            raise Violation(f"{self.name} counts term {term} as durable, but its disk holds term {self._disk.term}")
        self._durable_index, self._durable_term = index, term

    def _check_commit(self, replica: Replica) -> None:
        index, known, committed = replica.commit_index, self._commit_index, self._record.committed
        if index < known:
            raise Violation(f"the commit index of {self.name} falls from {known} to {index}")
        if index > len(self._entries):
            raise Violation(f"the commit index of {self.name} is {index}, but its log ends at {len(self._entries)}")
        news = len(committed)
        for entry in self._entries[known:index]:
            if entry.index > len(committed):
                committed.add(entry, replica.current_term)
            elif not same(committed.entries[entry.index - 1], entry):
                there = committed.entries[entry.index - 1]
                raise Violation(
                    f"{self.name} counts {describe_entry(entry)} as committed, but {describe_entry(there)} is"
                )
        if len(committed) > max(news, 1):
            self._check_quorum(replica, committed.entries[-1])
        self._commit_index = index

    def _check_quorum(self, replica: Replica, entry: Entry) -> None:
        """Check that a majority has an entry on disk; entry 1 needs none, because each node makes it by itself.

        A wiped disk counts as it was: its node had confirmed the entry before, and does not come back as that member.
        """
        configuration, disk_of = replica.configuration, self._record.disk_of
        holders = {
            member.id for member in configuration.members if (disk := disk_of(member)) is not None and disk.holds(entry)
        }
        if not configuration.has_quorum(holders):
            raise Violation(
                f"{self.name} commits {describe_entry(entry)} in term {replica.current_term}, which is on disk only at "
                f"{', '.join(sorted(holders)) or 'no node'}, of {', '.join(sorted(configuration.all_voters))}"
            )

    def _check_applied(self, replica: Replica) -> None:
        applying, applied = replica.applying_index, replica.last_applied
        if applying < self._applying_index or applied < self._last_applied:
            raise Violation(
                f"{self.name} goes back from {self._applying_index} sent to the store and {self._last_applied} applied "
                f"to {applying} and {applied}"
            )
        if applying > min(replica.commit_index, replica.durable_index):
            raise Violation(
                f"{self.name} applies entries up to {applying}, but only {replica.commit_index} are committed and "
                f"{replica.durable_index} durable"
            )
        if applied > self._store_applied:
            raise Violation(
                f"{self.name} counts entries up to {applied} as applied, but its store has applied "
                f"{self._store_applied}"
            )
        self._applying_index, self._last_applied = applying, applied

    def check_match(self, leader: Leader, peer: str) -> None:
        """Check that a peer's ``match_index`` only grows, and that the entries are on that peer's disk."""
        progress = leader.replication.progress.get(peer)
        if progress is None:
            return
        index, known = progress.match_index, self._match.get(peer, 0)
        if index == known:
            return
        term = leader.replica.current_term
        if index < known:
            raise Violation(
                f"the match index of {peer} at its leader {self.name} falls from {known} to {index} in term {term}"
            )
        member = leader.replica.configuration.member(peer)
        disk = self._record.disk_of(member) if member is not None else None
        reached = disk.reached.get(term, 0) if disk is not None else 0
        if index > reached:
            raise Violation(
                f"{self.name}, the leader of term {term}, counts entries up to {index} as on the disk of {peer}, which "
                f"had {reached} at most in that term"
            )
        self._match[peer] = index

    # --- the store

    def check_apply(self, store: Any, message: Apply) -> None:
        """Compare the store with the model, after it has applied the entries of ``message``."""
        self._store = store
        index, before, committed = store.last_applied, self._store_applied, self._record.committed
        if index < before:
            raise Violation(f"the store of {self.name} goes back from {before} applied entries to {index}")
        for entry in message.entries[before + 1 - message.first_index :]:
            there = at(committed.entries, entry.index)
            if not same(there, entry):
                raise Violation(
                    f"{self.name} applies {describe_entry(entry)}, but committed is {describe_entry(there)}"
                )
            if not self._disk.holds(entry):
                raise Violation(f"{self.name} applies {describe_entry(entry)}, which is not on its disk")
        if index > len(committed):
            raise Violation(
                f"the store of {self.name} has applied entries up to {index}, but only {len(committed)} are committed"
            )
        for each in range(before + 1, index + 1):
            for key in committed.keys(each):
                if store.keyspace.get(key) != committed.item(key, index):
                    raise self._wrong_item(key, index)
        if store.keyspace.revision != committed.revision(index):
            raise Violation(
                f"the keyspace of {self.name} is at revision {store.keyspace.revision} after "
                f"{describe_entry(at(committed.entries, index))}, but the log gives {committed.revision(index)}"
            )
        self._store_applied = index

    def _wrong_item(self, key: str, index: int) -> Violation:
        return Violation(
            f"the keyspace of {self.name} after entry {index} has {self._store.keyspace.get(key)} under {key}, but the "
            f"log gives {self._record.committed.item(key, index)}"
        )

    # --- answers to clients

    def note_request(self, ask: Ask, request: Propose | Read) -> None:
        """Note a client's request, and the index that the answer to a read must have reached."""
        min_index = 0
        if isinstance(request, Read):
            # Whatever is committed anywhere was committed in the term of the leader that serves the read, or lies
            # before the no-op that it has to commit first: so a read misses nothing that was committed when it came.
            min_index = len(self._record.committed) if request.level == "linearizable" else self._disk.seen_index
        self._requests[ask.address.number] = OpenRequest(ask, request, min_index)

    def check_answers(self) -> None:
        """Check the answers that clients got since the last call."""
        for number in [number for number, request in self._requests.items() if request.ask.done()]:
            request = self._requests.pop(number)
            answer = None if request.ask.cancelled() else request.ask.result()
            if isinstance(answer, Applied) and isinstance(request.request, Propose):
                self._check_write(request, answer)
            elif isinstance(answer, ReadResult) and isinstance(request.request, Read):
                self._check_read(request, answer)
            elif answer is not None and not isinstance(answer, Refused):
                # A refusal, or no answer at all, is for History to judge.
                kind = type(request.request).__name__
                raise Violation(f"no check for {type(answer).__name__}, which {self.name} answers to {kind}")

    def _check_write(self, request: OpenRequest, answer: Applied) -> None:
        self._send_checker.check_applied(self.name, answer)
        entry = self._record.committed.entries[answer.index - 1]
        if isinstance(request.request, Propose) and encode_commands(request.request.commands) != entry.data:
            raise Violation(f"{self.name} answers {request.request} as applied with {describe_entry(entry)}")
        self._record.acknowledged_index = max(self._record.acknowledged_index, answer.index)

    def _check_read(self, request: OpenRequest, answer: ReadResult) -> None:
        assert isinstance(request.request, Read)
        index, committed = answer.index, self._record.committed
        if index < request.min_index:
            was = "committed" if request.request.level == "linearizable" else "shown by that node"
            raise Violation(
                f"{self.name} answers a {request.request.level} read from index {index}, but {request.min_index} was "
                f"{was} when the read came"
            )
        if index > len(committed):
            raise Violation(
                f"{self.name} answers a read from index {index}, but only {len(committed)} entries are committed"
            )
        right = tuple([committed.item(query.key, index) for query in request.request.queries])
        if answer.items != right or answer.revision != committed.revision(index):
            raise Violation(
                f"{self.name} answers a read with {answer}, but the log gives {right} at revision "
                f"{committed.revision(index)}"
            )
        self._disk.seen_index = max(self._disk.seen_index, index)

    # --- whole logs and keyspaces

    def check_everything(self, role: Role | None) -> None:
        """Compare the whole log and keyspace; the other checks look at changes only."""
        committed = self._record.committed
        if role is not None:
            self.check(role)
            log = role.replica.log
            if log.span(1, log.last_index) != self._entries:
                raise Violation(f"the log of {self.name} has changed in the middle")
            if self._entries[: self._commit_index] != committed.entries[: self._commit_index]:
                raise Violation(f"the log of {self.name} differs from the committed entries up to {self._commit_index}")
        if self._store is not None:
            if self._store.last_applied != self._store_applied:
                raise Violation(
                    f"the store of {self.name} has applied entries up to {self._store.last_applied} without an Apply"
                )
            if self._store.keyspace.items() != committed.items(self._store_applied):
                self._raise_for_keyspace()

    def _raise_for_keyspace(self) -> None:
        index, committed = self._store_applied, self._record.committed
        here, there = dict(self._store.keyspace.items()), dict(committed.items(index))
        raise self._wrong_item(next(key for key in {**here, **there} if here.get(key) != there.get(key)), index)
