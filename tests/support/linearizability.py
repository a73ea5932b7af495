"""Whether reads and writes of one register could have happened one after the other, each at some moment of its call.

The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of
configurations that led nowhere ("Testing for linearizability", 2017).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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
    """The beginning or the end of a call, in a list of all that has not been given its place."""

    __slots__ = ("after", "before", "end", "number")

    def __init__(self, number: int, end: _Event | None) -> None:
        self.number = number
        self.end = end
        """The event of the call's end; None for that event itself, and for a call that never ended."""
        self.before: _Event = self
        self.after: _Event | None = None

    def unlink(self) -> None:
        self.before.after = self.after
        if self.after is not None:
            self.after.before = self.before

    def relink(self) -> None:
        self.before.after = self
        if self.after is not None:
            self.after.before = self


class _Search:
    def __init__(self, calls: Sequence[Call], initial: Value) -> None:
        self.calls = sorted(calls, key=lambda call: call[:2])
        self.initial = initial
        self.head = _Event(-1, None)
        self.starts: set[_Event] = set()
        self._link_events()

    def _link_events(self) -> None:
        events: list[tuple[float, int, _Event]] = []
        for number, call in enumerate(self.calls):
            end = _Event(number, None) if call.returned < inf else None
            start = _Event(number, end)
            self.starts.add(start)
            # Of two events at the same moment the beginning goes first: nothing says that they did not overlap.
            events.append((call.invoked, 0, start))
            if end is not None:
                events.append((call.returned, 1, end))
        last = self.head
        for _, _, event in sorted(events, key=lambda each: each[:2]):
            last.after, event.before = event, last
            last = event

    def run(self) -> Verdict:
        """Give one call after the other its place; at the end of a call that has none yet, take the last one back."""
        state, done, open_calls = self.initial, 0, sum(call.returned < inf for call in self.calls)
        placed: list[tuple[_Event, Value]] = []
        longest: list[_Event] = []
        seen: set[tuple[int, Value]] = {(0, state)}
        event = self.head.after
        while open_calls:
            assert event is not None, "a known call has neither been placed nor come to its end"
            if event in self.starts:
                call = self.calls[event.number]
                next_state = call.value if call.action == "write" else state
                configuration = (done | 1 << event.number, next_state)
                if next_state != call.value or configuration in seen:
                    event = event.after
                    continue
                seen.add(configuration)
                placed.append((event, state))
                done, state = configuration
                open_calls -= self._take_out(event)
                event = self.head.after
            elif placed:
                if len(placed) > len(longest):
                    longest = [each for each, _ in placed]
                event, state = placed.pop()
                done &= ~(1 << event.number)
                open_calls += self._put_back(event)
                event = event.after
            else:
                return self._verdict(longest, linearizable=False)
        return self._verdict([each for each, _ in placed], linearizable=True)

    def _take_out(self, start: _Event) -> bool:
        """Take a call out of the list; return whether it is a known one."""
        start.unlink()
        if start.end is None:
            return False
        start.end.unlink()
        return True

    def _put_back(self, start: _Event) -> bool:
        if start.end is not None:
            start.end.relink()
        start.relink()
        return start.end is not None

    def _verdict(self, order: list[_Event], *, linearizable: bool) -> Verdict:
        explained = {event.number for event in order}
        unexplained = [
            call
            for number, call in enumerate(self.calls)
            if not linearizable and number not in explained and call.returned < inf
        ]
        return Verdict(tuple(self.calls[event.number] for event in order), tuple(unexplained))
