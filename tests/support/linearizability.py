"""Whether reads and writes of one register could have happened one after the other, each at some moment of its call.

The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of
configurations that led nowhere ("Testing for linearizability", 2017).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import Literal, NamedTuple

Value = str | None
"""What a register holds; ``None`` when it is not there."""


class Call(NamedTuple):
    """A read or a write: when it began and ended, and what it read or wrote.

    A write that ended never (``inf``) may have been done at any moment since it began, or not at all. Writes that
    were certainly not done, and reads without an answer, are no calls.
    """

    invoked: float
    returned: float
    action: Literal["read", "write"]
    value: Value
    label: str = ""
    """For people."""


class Verdict(NamedTuple):
    """An order that explains the calls, or the longest beginning of one, with the known calls that it leaves out."""

    order: tuple[Call, ...]
    unexplained: tuple[Call, ...]

    @property
    def linearizable(self) -> bool:
        """Whether every call that is known to have happened has its place."""
        return not self.unexplained


def linearize(calls: Iterable[Call], initial: Value = None) -> Verdict:
    """Find an order in which each call takes effect between its beginning and its end."""
    return _Search(_settle(calls, initial), initial).run()


def _settle(calls: Iterable[Call], initial: Value) -> list[Call]:
    """Return the calls with less that is open: of each write that never ended, what the reads say of it.

    Nobody misses a write whose value no read saw: between it and the next write there is no read. And a write whose
    value comes from nobody else happened before the first read that saw it ended. Without this, every open write
    would double the configurations from there on to the end.
    """
    calls = list(calls)
    sources = Counter([initial, *(call.value for call in calls if call.action == "write")])
    seen: dict[Value, float] = {}
    for call in calls:
        if call.action == "read":
            seen[call.value] = min(seen.get(call.value, inf), call.returned)
    settled = []
    for call in calls:
        if call.returned < inf:
            settled.append(call)
        elif call.value in seen:
            # A read that ended before the write began is wrong, but that is for the search to find.
            ended = seen[call.value] if sources[call.value] == 1 else inf
            settled.append(call._replace(returned=max(call.invoked, ended)))
    return settled


class _Event:
    """The beginning or the end of a call, in a list of those of all calls that have no place yet."""

    __slots__ = ("after", "before", "begins", "end", "number")

    def __init__(self, number: int, begins: bool) -> None:
        self.number = number
        self.begins = begins
        self.end: _Event | None = None
        """Where the call ends that begins here, if it does."""
        self.before: _Event = self
        self.after: _Event | None = None

    def unlink(self) -> None:
        self.before.after = self.after
        if self.after is not None:
            self.after.before = self.before

    def relink(self) -> None:
        """Undo ``unlink``; whatever was unlinked since must have been linked again."""
        self.before.after = self
        if self.after is not None:
            self.after.before = self


class _Step(NamedTuple):
    """A write and the reads right after it, in an order under trial; ``state`` was before, in the first step None."""

    calls: list[_Event]
    state: Value


class _Search:
    """Gives one call after the other its place; only what began before the first open end can be the next one."""

    def __init__(self, calls: Iterable[Call], initial: Value) -> None:
        self.calls = sorted(calls, key=lambda call: call[:2])
        self.state = initial
        self.placed = 0
        """A bit for each call that has its place."""
        self.left = sum(call.returned < inf for call in self.calls)
        """Known calls that have no place yet."""
        self.head = _Event(-1, False)
        self._link_events()

    def _link_events(self) -> None:
        events: list[tuple[float, int, _Event]] = []
        for number, call in enumerate(self.calls):
            beginning = _Event(number, True)
            # Of two events at the same moment the beginning goes first: nothing says that they did not overlap.
            events.append((call.invoked, 0, beginning))
            if call.returned < inf:
                beginning.end = _Event(number, False)
                events.append((call.returned, 1, beginning.end))
        last = self.head
        for _, _, event in sorted(events, key=lambda each: each[:2]):
            last.after, event.before = event, last
            last = event

    def run(self) -> Verdict:
        """Try one write after the other; where a call has come to its end without a place, take the last one back."""
        steps = [_Step(self._place_reads(), None)]
        longest: list[_Event] = []
        tried: set[tuple[int, Value]] = set()
        event = self.head.after
        while self.left:
            assert event is not None, "a known call has neither a place nor an end"
            call = self.calls[event.number]
            if event.begins and (call.action == "read" or self._with(event) in tried):
                event = event.after
            elif event.begins:
                tried.add(self._with(event))
                steps.append(_Step([event], self.state))
                self.state = call.value
                self._place(event)
                steps[-1].calls.extend(self._place_reads())
                event = self.head.after
            else:
                if self.placed.bit_count() > len(longest):
                    longest = [each for step in steps for each in step.calls]
                if len(steps) == 1:
                    return self._verdict(longest)
                event = self._take_back(steps.pop())
        return self._verdict([each for step in steps for each in step.calls])

    def _with(self, event: _Event) -> tuple[int, Value]:
        """Return the configuration that this write leads to: which calls have a place, and the register's value."""
        return self.placed | 1 << event.number, self.calls[event.number].value

    def _place_reads(self) -> list[_Event]:
        """Give every read that can be next its place.

        There is no other choice to try: a read that fits here changes nothing for those after it.
        """
        reads = []
        event = self.head.after
        while event is not None and event.begins:
            call = self.calls[event.number]
            if call.action == "read" and call.value == self.state:
                self._place(event)
                reads.append(event)
            event = event.after
        return reads

    def _place(self, event: _Event) -> None:
        # The end goes first, or what comes after the beginning could still be that very end.
        if event.end is not None:
            event.end.unlink()
            self.left -= 1
        event.unlink()
        self.placed |= 1 << event.number

    def _take_back(self, step: _Step) -> _Event | None:
        """Undo a step; return what comes after its write, which is to be tried next."""
        for event in reversed(step.calls):
            event.relink()
            if event.end is not None:
                event.end.relink()
                self.left += 1
            self.placed &= ~(1 << event.number)
        self.state = step.state
        return step.calls[0].after

    def _verdict(self, order: list[_Event]) -> Verdict:
        placed = {event.number for event in order}
        known = [number for number, call in enumerate(self.calls) if call.returned < inf]
        return Verdict(
            tuple(self.calls[event.number] for event in order),
            tuple(self.calls[number] for number in known if number not in placed),
        )
