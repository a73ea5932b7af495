"""Linearizability: whether calls to a key-value store fit one order, each taking effect at a moment while it lasted.

The search is the one of Wing and Gong ("Testing and verifying concurrent objects", 1993): the next call of the order is
one that began before the first end of a call without a place. It remembers the configurations that led nowhere (Lowe,
"Testing for linearizability", 2017): which calls have a place, and what the store holds then. It uses values and times
only, never an index or a revision that a server reported. The search skips orders where this changes no verdict:

- A call that changes nothing gets its place as soon as it fits: it makes no difference to the calls after it.
- A call that never ended, and whose effect no call saw, counts as not done. The condition of another call that never
  ended counts as having seen an effect, as long as some call saw the effect of that other call.
- If one call only leaves a value, that call was done before the first call that saw the value ended. If the call that
  saw it never ended, take the moment by which that call was done for the same reason.
- Of calls that never ended, with the same effect and the same condition, the one that began first is done first.
- A call that never ended is done right before a call that notices it, or after which its condition might not hold:
  any earlier place is equivalent.
- A value that a call has yet to see is not overwritten if no other call will leave it again. Calls that never ended do
  not count here.
- All values that no call saw, or missed, are equivalent.
- With the same store and the same finished calls placed, fewer placed calls that never ended are at least as good:
  everything that may follow may follow then too.

Groups of keys without a call in common are separate stores. The rest is exponential in the worst case, so the number of
configurations is limited; a search that reaches the limit is ``undecided``, which does not count as passed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from math import inf
from typing import Final, Literal, NamedTuple

Value = bytes | None
"""The value under a key; ``None`` if the key is absent."""


class Not(NamedTuple):
    """What a call saw if it only learned that a key did not hold this value."""

    value: Value


SOMETHING: Final = Not(None)
"""What a call saw if it only learned that a key was present."""

Seen = Value | Not

Judgement = Literal["linearizable", "not linearizable", "undecided"]

LIMIT = 100_000
"""Configurations to try for one store: some seconds, and less than a hundred megabytes."""

CULPRITS = 5
"""How many calls without a place an explanation looks for."""


class Call(NamedTuple):
    """What a client did at one moment between ``invoked`` and ``returned``: it saw values, then left others.

    A call that never ended (``inf``) was done at some moment since it began, or not at all; ``sees`` is then what it
    must have seen if it was done. Requests that were certainly not done, and reads without an answer, are not calls.
    """

    invoked: float
    returned: float
    sees: tuple[tuple[str, Seen], ...] = ()
    leaves: tuple[tuple[str, Value], ...] = ()
    label: str = ""
    """The operation's position, for explanations."""
    hint: float = inf
    """Calls with smaller hints are tried first. Hints change no verdict, only how soon the search reaches one."""
    request: str = ""
    """Calls that never ended and have the same request are its possible effects: at most one was done."""

    @property
    def keys(self) -> list[str]:
        """The keys that it saw or left, each once."""
        return list(dict.fromkeys([key for key, _ in self.sees] + [key for key, _ in self.leaves]))


class Verdict(NamedTuple):
    """The judgement on the calls to one store.

    ``order`` explains them all, or else those that had ended before the first of the ``unexplained`` did: with its
    end, no order is left. The others have no place even without the first; at most ``CULPRITS``.
    """

    keys: tuple[str, ...]
    judgement: Judgement
    order: tuple[Call, ...]
    unexplained: tuple[Call, ...]
    configurations: int
    """How many the search tried."""


def fits(seen: Seen, held: Value) -> bool:
    """Return whether a call may have seen this of a key that held ``held``."""
    return held != seen.value if isinstance(seen, Not) else held == seen


def linearize(calls: Iterable[Call], limit: int = LIMIT) -> list[Verdict]:
    """Find an order for the calls to each store; all stores are empty at first."""
    return [_verdict(store, limit) for store in stores(_useful(list(calls)))]


def stores(calls: Iterable[Call]) -> list[list[Call]]:
    """Return the calls in groups without a common key or request, in the order of their first keys."""
    calls = list(calls)
    above: dict[str, str] = {key: key for call in calls for key in call.keys}

    def root(key: str) -> str:
        while above[key] != key:
            above[key] = above[above[key]]
            key = above[key]
        return key

    requests: dict[str, str] = {}
    for call in calls:
        first, *others = call.keys
        if call.request:
            # The possible effects of a request exclude each other, whatever their keys.
            others.append(requests.setdefault(call.request, first))
        for other in others:
            # The smaller root stays, so that the groups do not depend on the order of the calls.
            low, high = sorted((root(first), root(other)))
            above[high] = low
    groups: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        groups[root(call.keys[0])].append(call)
    return [groups[key] for key in sorted(groups)]


def _verdict(calls: list[Call], limit: int) -> Verdict:
    keys = tuple(sorted({key for call in calls for key in call.keys}))
    search = _Search(calls, limit)
    judgement: Judgement = "linearizable"
    if not search.follow_hints():
        search = _Search(calls, limit)
        judgement = search.run()
    if judgement != "not linearizable":
        order = search.order() if judgement == "linearizable" else []
        return Verdict(keys, judgement, tuple(order), (), search.configurations)
    explanation = _Explanation(calls, limit)
    explanation.find_culprits()
    return Verdict(keys, judgement, tuple(explanation.order), tuple(explanation.culprits), search.configurations)


class _Explanation:
    """Finds the call whose end makes a history not linearizable, and then the next one.

    A history that is not linearizable does not become so by further calls. So bisection finds the first end after
    which there is no order, whatever path a search has taken.
    """

    def __init__(self, calls: list[Call], limit: int) -> None:
        self.calls = calls
        self.left = limit
        """Configurations left to try, in all searches together."""
        known = [number for number, call in enumerate(calls) if call.returned < inf]
        self.ends = sorted(known, key=lambda number: (calls[number].returned, calls[number].invoked))
        self.forgiven: set[int] = set()
        self.order: list[Call] = []
        """An order of all calls that ended before the first culprit."""

    @property
    def culprits(self) -> list[Call]:
        """The calls found, in the order of their ends."""
        return [self.calls[number] for number in self.ends if number in self.forgiven]

    def find_culprits(self) -> None:
        """Find one after the other, until the rest is linearizable."""
        good, bad = 0, len(self.ends)
        while len(self.forgiven) < CULPRITS:
            while bad - good > 1:
                middle = (good + bad) // 2
                if self._is_bad(middle):
                    bad = middle
                else:
                    good = middle
            self.forgiven.add(self.ends[bad - 1])
            good, bad = bad, len(self.ends)
            if good == bad or not self._is_bad(bad):
                return

    def _is_bad(self, ended: int) -> bool:
        """Whether there is certainly no order for the history up to this number of ends."""
        search = _Search(self._prefix(ended), self.left)
        judgement = search.run()
        self.left -= search.configurations
        if judgement == "linearizable" and not self.forgiven:
            self.order = search.order()
        return judgement == "not linearizable"

    def _prefix(self, ended: int) -> list[Call]:
        """Return the history up to that end: calls that end later are open, calls that begin later are missing."""
        until = self.calls[self.ends[ended - 1]].returned
        known = set(self.ends[:ended]) - self.forgiven
        prefix = []
        for number, call in enumerate(self.calls):
            if number in known or (call.returned == inf and call.invoked <= until):
                prefix.append(call)
            elif call.leaves and call.invoked <= until:
                # What it will see is not known yet.
                prefix.append(call._replace(returned=inf, sees=()))
        return prefix


def _useful(calls: list[Call]) -> list[Call]:
    """Return the calls without those that never ended and whose effect no call saw.

    Removing one may leave another one without a call that saw its effect, so this repeats.
    """
    while True:
        kept = _noticed(calls)
        if len(kept) == len(calls):
            return kept
        calls = kept


def _noticed(calls: list[Call]) -> list[Call]:
    seen: set[tuple[str, Value]] = set()
    missing: dict[str, set[Value]] = defaultdict(set)
    for call in calls:
        for key, value in call.sees:
            if isinstance(value, Not):
                missing[key].add(value.value)
            else:
                seen.add((key, value))

    def noticed(key: str, value: Value) -> bool:
        return (key, value) in seen or (key in missing and missing[key] != {value})

    return [call for call in calls if call.returned < inf or any(noticed(*fact) for fact in call.leaves)]


def _settled(calls: list[Call]) -> list[float]:
    """Return when each call had certainly been done: at its end, or earlier if another call saw its effect.

    Without this, each call that never ended would double the number of configurations after it.
    """
    sources = Counter(fact for call in calls for fact in call.leaves)
    settled = [call.returned for call in calls]
    while True:
        seen: dict[tuple[str, Seen], float] = {}
        for call, done in zip(calls, settled, strict=True):
            for fact in call.sees:
                seen[fact] = min(seen.get(fact, inf), done)
        earlier = []
        for call, done in zip(calls, settled, strict=True):
            # An absent key needs no call: stores are empty at first.
            ends = [seen.get(fact, inf) for fact in call.leaves if fact[1] is not None and sources[fact] == 1]
            # A call that saw it before it began is wrong, but the search finds that.
            earlier.append(max(call.invoked, min([done, *ends])))
        if earlier == settled:
            return settled
        # This may settle, even earlier, the calls whose effects those calls saw.
        settled = earlier


class _Event:
    """The beginning or the end of a call, in the linked list of those of all calls without a place."""

    __slots__ = ("after", "before", "move")

    def __init__(self, move: _Move | None) -> None:
        self.move = move
        """The call that begins here, or None at an end."""
        self.before: _Event = self
        self.after: _Event | None = None

    def unlink(self) -> None:
        self.before.after = self.after
        if self.after is not None:
            self.after.before = self.before

    def relink(self) -> None:
        """Undo ``unlink``; in the reverse order of the calls of ``unlink``."""
        self.before.after = self
        if self.after is not None:
            self.after.before = self


State = tuple[int, ...]
"""The number of the value under each key."""


ABSENT = 0
UNSEEN = 1


class _Move:
    """A call with numbers for its keys and values.

    ``ABSENT`` stands for no value, ``UNSEEN`` for all values that no call saw or missed. In ``sees``, ``~number``
    stands for anything but that value.
    """

    __slots__ = ("beginning", "bit", "call", "done", "end", "hint", "leaves", "rivals", "sees", "twin")

    def __init__(self, call: Call, done: float, bit: int) -> None:
        self.call = call
        self.done = done
        """When it had certainly been done."""
        self.bit = bit
        self.hint = call.hint
        self.sees: list[tuple[int, int]] = []
        self.leaves: list[tuple[int, int]] = []
        self.twin = 0
        """The bit of the call with the same effect that never ended either and began right before it."""
        self.rivals = 0
        """The bits of the other possible effects of the same request."""
        self.beginning = _Event(self)
        self.end: _Event | None = None

    def fits(self, state: State) -> bool:
        """Whether the store holds what it saw."""
        return all(_fits(value, state[key]) for key, value in self.sees)

    def changed(self, state: State) -> State:
        """Return ``state`` after the call."""
        values = list(state)
        for key, value in self.leaves:
            values[key] = value
        return tuple(values)

    def notices(self, other: _Move, before: State, after: State) -> bool:
        """Whether this call, if it came next, could tell that ``other`` has just been done.

        It can if it saw a value that it would not have seen before. It can also if it leaves some of the same keys,
        because the store would differ if the two had their places exchanged, or some keys that the other call saw,
        which might then have seen something else. But if it overwrites every change, the other call need not be done.
        """
        for key, value in self.sees:
            if before[key] != after[key] and _fits(value, after[key]) and not _fits(value, before[key]):
                return True
        mine = [key for key, _ in self.leaves]
        changed = [key for key, _ in other.leaves if before[key] != after[key]]
        if all(key in mine for key in changed):
            return False
        return any(key in mine for key, _ in other.leaves) or any(key in mine for key, _ in other.sees)


def _fits(seen: int, held: int) -> bool:
    return seen == held if seen >= 0 else held != ~seen


class _Step(NamedTuple):
    """A change and then all reads that fit, with the changes to try next, the most likely one last.

    ``state`` is the one before the step; in the first step, the present one.
    """

    moves: list[_Move]
    state: State
    changes: list[_Move]


def _hint(move: _Move) -> float:
    return move.hint


class _Search:
    """Places one call after the other; only calls that began before the first open end can be next."""

    def __init__(self, calls: list[Call], limit: int) -> None:
        self.limit = limit
        useful = _useful(calls)
        settled = sorted(zip(useful, _settled(useful), strict=True), key=lambda pair: (pair[0].invoked, pair[1]))
        self.moves = [_Move(call, done, 1 << number) for number, (call, done) in enumerate(settled)]
        self.placed = 0
        """The bits of the calls that have a place."""
        self.left = sum(move.done < inf for move in self.moves)
        """How many calls were certainly done and have no place yet."""
        self.state: State = ()
        self.waiting: list[list[int]] = []
        """How many calls that were certainly done and have no place have seen each value under each key."""
        self.sources: list[list[int]] = []
        """How many calls without a place leave each value under each key."""
        self.steps: list[_Step] = []
        self.configurations = 0
        """How many have been tried."""
        self.optional = sum(move.bit for move in self.moves if move.done == inf)
        """The bits of the calls that may not have been done."""
        self.tried: dict[tuple[int, State], list[int]] = {}
        """Where the search has been: by placed calls that were certainly done and state, the placed optional calls.

        No entry of a list is a subset of another.
        """
        self._count_values()
        self._find_rivals()
        self._find_twins()
        self.head = self._link_events()

    def order(self) -> list[Call]:
        """Return the placed calls in their order."""
        return [move.call for step in self.steps for move in step.moves]

    def _count_values(self) -> None:
        numbers: dict[str, dict[Value, int]] = {}
        keys: dict[str, int] = {}
        for move in self.moves:
            for key in move.call.keys:
                keys.setdefault(key, len(keys))
                numbers.setdefault(key, {None: ABSENT})
            for key, seen in dict.fromkeys(move.call.sees):
                value = seen.value if isinstance(seen, Not) else seen
                # Number 1 is UNSEEN.
                number = numbers[key].setdefault(value, len(numbers[key]) + 1)
                move.sees.append((keys[key], ~number if isinstance(seen, Not) else number))
        for move in self.moves:
            move.leaves += [(keys[key], numbers[key].get(value, UNSEEN)) for key, value in move.call.leaves]
        self.state = (ABSENT,) * len(keys)
        self.waiting = [[0] * (len(values) + 1) for values in numbers.values()]
        self.sources = [[0] * (len(values) + 1) for values in numbers.values()]
        for move in self.moves:
            self._count(move, 1)

    def _count(self, move: _Move, difference: int) -> None:
        for key, value in move.sees if move.done < inf else ():
            if value >= 0:
                self.waiting[key][value] += difference
        for key, value in move.leaves:
            self.sources[key][value] += difference

    def _find_rivals(self) -> None:
        requests: dict[str, int] = defaultdict(int)
        for move in self.moves:
            requests[move.call.request] |= move.bit
        for move in self.moves:
            move.rivals = requests[move.call.request] & ~move.bit if move.call.request else 0

    def _find_twins(self) -> None:
        families: dict[object, list[_Move]] = defaultdict(list)
        for move in self.moves:
            # A call with rivals may be excluded by the time its twin could be placed.
            if move.done == inf and not move.rivals:
                families[tuple(move.sees), tuple(move.leaves)].append(move)
        for family in families.values():
            for earlier, move in pairwise(family):
                move.twin = earlier.bit
            # The one that began first takes the smallest hint.
            for move, hint in zip(family, sorted(move.hint for move in family), strict=True):
                move.hint = hint

    def _link_events(self) -> _Event:
        events: list[tuple[float, int, _Event]] = []
        for move in self.moves:
            # At the same moment, beginnings come before ends: the calls may have overlapped.
            events.append((move.call.invoked, 0, move.beginning))
            if move.done < inf:
                move.end = _Event(None)
                events.append((move.done, 1, move.end))
        head = last = _Event(None)
        for _, _, event in sorted(events, key=lambda each: each[:2]):
            last.after, event.before = event, last
            last = event
        return head

    def follow_hints(self) -> bool:
        """Try the one order that the hints give; return whether it explains all calls."""
        self.steps.append(_Step(self._place_all_that_fit(), self.state, []))
        while self.left:
            # The most likely change comes last.
            move = next((move for move in reversed(self._changes()) if self._is_possible(move)), None)
            if move is None or move.hint == inf or self.configurations >= self.limit:
                return False
            self.configurations += 1
            before, self.state = self.state, move.changed(self.state)
            self._place(move)
            self.steps.append(_Step([move, *self._place_all_that_fit()], before, []))
        return True

    def run(self) -> Judgement:
        """Try one change after the other; if none can be next, take back the last one and try another."""
        self.steps.append(_Step(self._place_all_that_fit(), self.state, self._changes()))
        while self.left:
            changes = self.steps[-1].changes
            if changes:
                move = changes.pop()
                if self._may_be_next(move):
                    if self.configurations >= self.limit:
                        return "undecided"
                    self.configurations += 1
                    self._try(move)
            elif len(self.steps) == 1:
                return "not linearizable"
            else:
                self._take_back()
        return "linearizable"

    def _changes(self) -> list[_Move]:
        """Return the calls that change something and can be next, the most likely one last."""
        changes = []
        event = self.head.after
        while event is not None and (move := event.move) is not None:
            if move.leaves:
                changes.append(move)
            event = event.after
        changes.reverse()
        changes.sort(key=_hint, reverse=True)
        return changes

    def _is_possible(self, move: _Move) -> bool:
        return not (move.twin & ~self.placed or move.rivals & self.placed) and move.fits(self.state)

    def _may_be_next(self, move: _Move) -> bool:
        if not self._is_possible(move):
            return False
        for key, value in move.leaves:
            old = self.state[key]
            own = move.done < inf and (key, old) in move.sees
            if old != value and self.waiting[key][old] > own and not self.sources[key][old]:
                # Another call has yet to see the old value, and no call would leave it again.
                return False
        return not self._was_tried(self.placed | move.bit, move.changed(self.state))

    def _was_tried(self, placed: int, state: State) -> bool:
        """Whether the search has been there, or there with a subset of the optional calls."""
        used = placed & self.optional
        return any(earlier & ~used == 0 for earlier in self.tried.get((placed & ~self.optional, state), ()))

    def _remember(self, placed: int, state: State) -> None:
        used, known = placed & self.optional, (placed & ~self.optional, state)
        self.tried[known] = [used, *(earlier for earlier in self.tried.get(known, ()) if used & ~earlier)]

    def _try(self, move: _Move) -> None:
        """Place a change, and all reads that fit then; take it back if no call notices it."""
        before, self.state = self.state, move.changed(self.state)
        placed = self.placed | move.bit
        self._place(move)
        seen = self._place_all_that_fit()
        self.steps.append(_Step([move, *seen], before, self._changes()))
        if move.done == inf and not self._is_noticed(move, seen, before):
            # Do not remember this configuration: another order may reach it through a change that is noticed.
            self._take_back()
        else:
            self._remember(placed, self.state)

    def _is_noticed(self, move: _Move, seen: list[_Move], before: State) -> bool:
        if any(each.notices(move, before, self.state) for each in seen):
            return True
        event = self.head.after
        while event is not None and (other := event.move) is not None:
            if other.notices(move, before, self.state):
                return True
            event = event.after
        return False

    def _place_all_that_fit(self) -> list[_Move]:
        """Place every call that changes nothing and can be next."""
        moves = []
        event = self.head.after
        while event is not None and (move := event.move) is not None:
            if not move.leaves and move.fits(self.state):
                self._place(move)
                moves.append(move)
            event = event.after
        return moves

    def _place(self, move: _Move) -> None:
        # Unlink the end first: it may directly follow the beginning.
        if move.end is not None:
            move.end.unlink()
            self.left -= 1
        move.beginning.unlink()
        self.placed |= move.bit
        self._count(move, -1)

    def _take_back(self) -> None:
        """Undo the last step."""
        step = self.steps.pop()
        for move in reversed(step.moves):
            move.beginning.relink()
            if move.end is not None:
                move.end.relink()
                self.left += 1
            self.placed &= ~move.bit
            self._count(move, 1)
        self.state = step.state
