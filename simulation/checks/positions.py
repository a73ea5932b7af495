"""Whether the indexes and revisions in the answers agree with each other, with the values and with the times.

``linearizability`` uses values and times only. This check trusts the positions that servers report: an index is a
position in the log, a revision counts the changes of the keyspace, so every reply has a place in one history. The check
is fast, and covers more: a stale read must show the keyspace as it was at its revision, however old, and no node may
ever go back, not even by a restart. Operations with one index came in one entry: the front end batches requests.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
)
from raftkv.simulation.checks.linearizability import SOMETHING, Not, Seen, Value
from raftkv.simulation.checks.operation import NOT_REPORTED, Anomaly, Moment, Operation, shown
from raftkv.store.commands import (
    NOT_THERE,
    THERE,
    Command,
    Delete,
    DeleteDone,
    DeleteIf,
    Item,
    Put,
    PutDone,
    PutIf,
    Result,
    Unmatched,
)


def contradictions(operations: Sequence[Operation], wipes: Iterable[tuple[str, Moment]] = ()) -> list[Anomaly]:
    """Return the contradictions; ``wipes`` are nodes that restarted with an empty disk, and when."""
    answered = [operation for operation in operations if operation.outcome == "ok"]
    return [
        *_strange_replies(answered),
        *_order_of_indexes(answered),
        *_order_in_time(answered),
        *_order_at_a_node(answered, wipes),
        *_Changes(operations).contradictions(),
    ]


def found(request: Read, reply: ReadResult) -> list[tuple[str, Value]]:
    """Return the keys of a read and the values that it saw."""
    return [
        (query.key, None if item is None else item.value)
        for query, item in zip(request.queries, reply.items, strict=False)
    ]


def revisions(operations: Iterable[Operation]) -> dict[tuple[str, Value], int]:
    """Return the modify revision of each (key, value) that a read reported."""
    reported: dict[tuple[str, Value], int] = {}
    for operation in operations:
        if isinstance(operation.request, Read) and isinstance(operation.reply, ReadResult):
            for query, item in zip(operation.request.queries, operation.reply.items, strict=False):
                if item is not None and item.modify_revision != NOT_REPORTED:
                    reported.setdefault((query.key, item.value), item.modify_revision)
    return reported


def _uses_revision(result: Result) -> bool:
    return isinstance(result, PutDone) or (isinstance(result, DeleteDone) and result.existed)


def before(operation: Operation) -> int:
    """Return the revision before an operation took effect, as its reply reports it."""
    if isinstance(operation.reply, Applied) and operation.reply.results:
        first = operation.reply.results[0]
        return NOT_REPORTED if first.revision == NOT_REPORTED else first.revision - _uses_revision(first)
    return _after(operation)


def _after(operation: Operation) -> int:
    assert isinstance(operation.reply, Applied | ReadResult)
    return operation.reply.revision


def _index(operation: Operation) -> int:
    assert isinstance(operation.reply, Applied | ReadResult)
    return operation.reply.index


# --- each reply by itself


def _strange_replies(answered: Iterable[Operation]) -> Iterator[Anomaly]:
    for operation in answered:
        reply, request = operation.reply, operation.request
        if isinstance(request, Propose) and isinstance(reply, Applied):
            pairs = list(zip(request.commands, reply.results, strict=False))
            if len(request.commands) != len(reply.results) or not all(_answers(*pair) for pair in pairs):
                yield Anomaly(f"the results do not belong to the commands of the request: {operation}", (operation,))
            elif not all(_misses(*pair) for pair in pairs):
                yield Anomaly(f"a condition is reported not to hold, but does: {operation}: {reply}", (operation,))
            elif not _counts_on(reply):
                yield Anomaly(f"the revisions do not count the changes: {operation}: {reply}", (operation,))
        elif isinstance(request, Read) and isinstance(reply, ReadResult):
            if len(reply.items) != len(request.queries):
                yield Anomaly(f"the items do not belong to the queries of the request: {operation}", (operation,))
            for item in reply.items:
                if item is not None and item.modify_revision != NOT_REPORTED and not _can_be(item, reply.revision):
                    yield Anomaly(
                        f"the item is not possible at revision {reply.revision}: {item}: {operation}", (operation,)
                    )


def _answers(command: Command, result: Result) -> bool:
    """Whether this command can have this kind of result."""
    if isinstance(command, PutIf | DeleteIf) and isinstance(result, Unmatched):
        return True
    if isinstance(command, Put | PutIf):
        return isinstance(result, PutDone)
    return isinstance(result, DeleteDone) and (result.existed or isinstance(command, Delete))


def _misses(command: Command, result: Result) -> bool:
    """Whether a condition that was reported not to hold fits the revisions in the result."""
    if not isinstance(result, Unmatched) or not isinstance(command, PutIf | DeleteIf):
        return True
    modified = result.modify_revision
    if NOT_REPORTED in (result.revision, modified):
        return True
    wanted = modified != NOT_THERE if command.revision == THERE else modified == command.revision
    return not wanted and modified <= result.revision


def _counts_on(reply: Applied) -> bool:
    """Whether each command with an effect takes the next revision, up to the revision of the whole entry."""
    revisions = [result.revision for result in reply.results]
    if not revisions or NOT_REPORTED in revisions:
        return True
    steps = zip(revisions, revisions[1:], reply.results[1:], strict=False)
    return (
        all(later - one == _uses_revision(result) for one, later, result in steps) and revisions[-1] <= reply.revision
    )


def _can_be(item: Item, revision: int) -> bool:
    if item.modify_revision > revision:
        return False
    if NOT_REPORTED in (item.create_revision, item.version):
        return True
    # Every version but the first took a revision after the first one's.
    return 0 <= item.version - 1 <= item.modify_revision - item.create_revision and (item.version == 1) == (
        item.modify_revision == item.create_revision
    )


# --- all replies in the order of their indexes, and of their times


def _order_of_indexes(answered: Iterable[Operation]) -> Iterator[Anomaly]:
    """Entries later in the log have no smaller term, and start at no smaller revision."""
    placed = [operation for operation in answered if _index(operation) != NOT_REPORTED]
    # A write at an index comes before the reads at that index.
    placed.sort(key=lambda operation: (_index(operation), operation.kind != "write"))
    written: Operation | None = None
    for last, operation in zip([None, *placed], placed, strict=False):
        if isinstance(operation.reply, Applied):
            if written is not None and isinstance(written.reply, Applied):
                one, later = written.reply, operation.reply
                if later.term < one.term or (later.index == one.index and later.term != one.term):
                    yield _pair("a later index has an earlier term, or one index two terms", written, operation)
            written = operation
        if last is None:
            continue
        if _index(last) == _index(operation):
            if _after(last) != _after(operation):
                yield _pair("one index has two revisions", last, operation)
        elif before(operation) < _after(last):
            yield _pair("a later index has an earlier revision", last, operation)


def _order_in_time(answered: Sequence[Operation]) -> Iterator[Anomaly]:
    """An operation that began after another had ended has no smaller index, and a write has a larger one."""
    linearizable = [operation for operation in answered if operation.kind != "stale read"]
    for floor, operation in _floors([each for each in linearizable if _index(each) != NOT_REPORTED], _index):
        if _index(operation) < _index(floor) + (operation.kind == "write"):
            yield _pair("the second began after the end of the first, at no later index", floor, operation)
    # An index says all that a revision does, so that revisions only count without one.
    without = [each for each in linearizable if _index(each) == NOT_REPORTED != _after(each)]
    for floor, operation in _floors(without, _after):
        if before(operation) < _after(floor):
            yield _pair("the second began after the end of the first, at an earlier revision", floor, operation)


def _order_at_a_node(answered: Sequence[Operation], wipes: Iterable[tuple[str, Moment]]) -> Iterator[Anomaly]:
    """A node never shows a reader less than it has shown another one before."""
    wiped: dict[str, list[Moment]] = defaultdict(list)
    for node, moment in wipes:
        wiped[node].append(moment)
    periods: dict[tuple[str, int], list[Operation]] = defaultdict(list)
    for operation in answered:
        if operation.kind != "write":
            wipes_before = bisect_right(sorted(wiped[operation.node]), operation.began)
            if wipes_before == bisect_right(sorted(wiped[operation.node]), operation.ended):
                periods[operation.node, wipes_before].append(operation)
    for reads in periods.values():
        without = [read for read in reads if _index(read) == NOT_REPORTED != _after(read)]
        for position, placed in ((_index, [read for read in reads if _index(read) != NOT_REPORTED]), (_after, without)):
            for floor, read in _floors(placed, position):
                if position(read) < position(floor):
                    yield _pair(f"{read.node} went back to an earlier state", floor, read)


def _floors(
    operations: Sequence[Operation], position: Callable[[Operation], int]
) -> Iterator[tuple[Operation, Operation]]:
    """Yield, with each operation, the one with the latest position among those that had ended when it began."""
    ends = sorted(operations, key=lambda operation: operation.ended)
    latest: Operation | None = None
    ended = 0
    for operation in sorted(operations, key=lambda operation: operation.began):
        while ended < len(ends) and ends[ended].ended < operation.began:
            if latest is None or position(ends[ended]) > position(latest):
                latest = ends[ended]
            ended += 1
        if latest is not None:
            yield latest, operation


def _pair(what: str, one: Operation, other: Operation) -> Anomaly:
    return Anomaly(f"{what}:\n    {one}\n    {other}", (other, one))


# --- what was changed at each revision, and what was seen of it


class _Change(NamedTuple):
    """The value of a key from a revision on, and the operation that wrote or read it."""

    revision: int
    key: str
    value: Seen
    """``SOMETHING`` if only the revision was reported."""
    known_by: Operation


class _Sight(NamedTuple):
    """At a revision of the keyspace, a key had this modify revision, or was absent."""

    revision: int
    key: str
    modified: int
    value: Seen
    seen_by: Operation


class _Changes:
    """What is known of each revision from acknowledged writes and from reads; many are unknown."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = list(operations)
        self.known: list[_Change] = []
        self.sights: list[_Sight] = []
        self.sources: dict[tuple[str, Value], Operation] = {}
        """The first operation that may have left a value under a key."""
        self.deleters: dict[str, Moment] = {}
        """When the first deletion of a key began whose revision is unknown."""
        for operation in self.operations:
            request, reply = operation.request, operation.reply
            if isinstance(request, Propose) and operation.outcome != "failed":
                self._note_write(operation, request)
            elif isinstance(request, Read) and isinstance(reply, ReadResult):
                self._note_read(operation, request, reply)

    def _note_write(self, operation: Operation, request: Propose) -> None:
        for put in operation.puts:
            self.sources.setdefault((put.key, put.value), operation)
        if isinstance(operation.reply, Applied):
            for command, result in zip(request.commands, operation.reply.results, strict=False):
                self._note_result(operation, command, result)
        if not isinstance(operation.reply, Applied) or operation.reply.revision == NOT_REPORTED:
            for command in request.commands:
                if isinstance(command, Delete | DeleteIf):
                    self.deleters.setdefault(command.key, operation.began)

    def _note_result(self, operation: Operation, command: Command, result: Result) -> None:
        """Note the change, and what a condition shows of the value before."""
        if result.revision == NOT_REPORTED:
            return
        if _uses_revision(result):
            value = command.value if isinstance(command, Put | PutIf) else None
            self.known.append(_Change(result.revision, command.key, value, operation))
        if isinstance(result, Unmatched):
            self._note_sight(result.revision, command.key, result.modify_revision, operation)
        elif isinstance(command, PutIf | DeleteIf) and command.revision != THERE:
            self._note_sight(result.revision - 1, command.key, command.revision, operation)

    def _note_sight(self, revision: int, key: str, modified: int, operation: Operation) -> None:
        self.sights.append(_Sight(revision, key, modified, None if modified == NOT_THERE else SOMETHING, operation))
        if modified not in (NOT_THERE, NOT_REPORTED):
            self.known.append(_Change(modified, key, SOMETHING, operation))

    def _note_read(self, operation: Operation, request: Read, reply: ReadResult) -> None:
        for query, item in zip(request.queries, reply.items, strict=False):
            modified = NOT_THERE if item is None else item.modify_revision
            if item is not None and modified != NOT_REPORTED:
                self.known.append(_Change(modified, query.key, item.value, operation))
            if reply.revision != NOT_REPORTED:
                value = None if item is None else item.value
                self.sights.append(_Sight(reply.revision, query.key, modified, value, operation))

    def contradictions(self) -> Iterator[Anomaly]:
        """Yield the contradictions."""
        yield from self._values_from_nowhere()
        by_revision: dict[int, _Change] = {}
        for change in self.known:
            first = by_revision.setdefault(change.revision, change)
            if not _agree(first, change):
                text = f"revision {change.revision} is {_shown(first)} and {_shown(change)}"
                yield _pair(text, first.known_by, change.known_by)
            elif first.value == SOMETHING:
                by_revision[change.revision] = change
        yield from self._wrong_states(by_revision.values())

    def _values_from_nowhere(self) -> Iterator[Anomaly]:
        """Check stale reads; linearizability covers the others."""
        for operation in self.operations:
            request, reply = operation.request, operation.reply
            if operation.kind != "stale read" or not isinstance(request, Read) or not isinstance(reply, ReadResult):
                continue
            for key, value in found(request, reply):
                source = self.sources.get((key, value))
                if value is not None and (source is None or source.began > operation.ended):
                    when = "no operation wrote" if source is None else "was written only later"
                    yield Anomaly(f"{key} = {shown(value)}, which {when}: {operation}", (operation,))

    def _wrong_states(self, changes: Iterable[_Change]) -> Iterator[Anomaly]:
        """A reader of a key sees its last change up to the revision of the answer, as far as that change is known."""
        by_key: dict[str, list[_Change]] = defaultdict(list)
        for change in sorted(changes, key=lambda change: change.revision):
            by_key[change.key].append(change)
        revisions = {key: [change.revision for change in some] for key, some in by_key.items()}
        for sight in self.sights:
            known = bisect_right(revisions.get(sight.key, []), sight.revision)
            last = by_key[sight.key][known - 1] if known else None
            if last is not None and not self._may_show(sight, last):
                text = f"{_shown(sight, 'was')} at revision {sight.revision}, though revision {last.revision} is "
                yield _pair(text + _shown(last), last.known_by, sight.seen_by)
            elif sight.modified > sight.revision and sight.seen_by.kind == "write":
                # For a read, ``_strange_replies`` reports such an item.
                yield Anomaly(
                    f"the condition names a later revision than its answer: {sight.seen_by}", (sight.seen_by,)
                )

    def _may_show(self, sight: _Sight, last: _Change) -> bool:
        if sight.value is not None:
            return sight.modified == NOT_REPORTED or sight.modified >= last.revision
        # An unknown deletion may have come after the last known change.
        deleted = self.deleters.get(last.key)
        return last.value is None or (deleted is not None and deleted < sight.seen_by.ended)


def _agree(one: _Change, other: _Change) -> bool:
    if one.key != other.key:
        return False
    if isinstance(one.value, Not) or isinstance(other.value, Not):
        return one.value is not None and other.value is not None
    return one.value == other.value


def _shown(what: _Change | _Sight, verb: str = "=") -> str:
    if isinstance(what.value, Not):
        at = what.modified if isinstance(what, _Sight) else what.revision
        return f"{what.key} {verb} what came at {at}"
    return f"{what.key} {verb} {shown(what.value)}"
