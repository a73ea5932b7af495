"""Whether calls to a store of keys could have taken effect one after the other, each at one moment while it lasted.

The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993): what began before the first
open end may be next. With Lowe's memory of configurations that led nowhere ("Testing for linearizability", 2017): which
calls have their place, and what the store holds then. It believes values and times only, never an index or a revision
that a server told. What it may leave out, and why no verdict changes by it:

- A call that changes nothing gets its place as soon as it fits: for those after it nothing is different.
- A call that never ended and whose effect nobody saw was never done, for all that anybody can tell. The condition of
  another one that never ended counts as seen, as long as somebody saw the effect of that one.
- A value that a single call leaves was there before the first call that saw it ended, and so that call was done. Where
  the one that saw it never ended, this holds from the moment on by which that one was done for the same reason.
- Of calls that never ended and do the same on the same condition, the one that began first is done first.
- A call that never ended is done right before something that notices it, or after which its condition might not hold:
  earlier is as good as that.
- A value that somebody has yet to see is not overwritten where nobody will leave it again. Who never ended need not.
- One value that nobody saw, or saw missing, is as good as another.
- Where the store holds the same and the same calls that were done have their place, fewer of those that never ended are
  as good: whatever may follow may follow then, too.

Keys that no call connects are different stores. What is left is exponential in the worst case, and so there is a
limit to the configurations that are tried; a search that reaches it is ``undecided``, which is not a pass.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from math import inf
from typing import Final, Literal, NamedTuple

Value = bytes | None
"""What the store holds under a key; ``None`` when it is not there."""


class Not(NamedTuple):
    """What a call saw of a key of which it only learned that it did not hold this value."""

    value: Value


SOMETHING: Final = Not(None)
"""What a call saw of a key of which it only learned that it was there."""

Seen = Value | Not

Judgement = Literal["linearizable", "not linearizable", "undecided"]

LIMIT = 100_000
"""Configurations that are tried for one store: some seconds, and less than a hundred megabytes."""

CULPRITS = 5
"""Calls without a place that are looked for before the search leaves it at that."""


class Call(NamedTuple):
    """What a client did at one moment between ``invoked`` and ``returned``: it saw values, and then left others.

    A call that ended never (``inf``) may have been done at any moment since it began, or not at all. What it saw is
    then what it must have seen to leave what it leaves, were it done. Calls that were certainly not done, and reads
    without an answer, are no calls.
    """

    invoked: float
    returned: float
    sees: tuple[tuple[str, Seen], ...] = ()
    leaves: tuple[tuple[str, Value], ...] = ()
    label: str = ""
    """For people."""
    hint: float = inf
    """Calls with smaller ones are tried earlier. It changes no verdict, only how soon a search comes to one."""
    request: str = ""
    """Of calls that never ended and name the same one, at most one was done: they are the ways in which it went."""

    @property
    def keys(self) -> list[str]:
        """The keys that it saw or left, each once."""
        return list(dict.fromkeys([key for key, _ in self.sees] + [key for key, _ in self.leaves]))


class Verdict(NamedTuple):
    """What became of the calls to one store.

    ``order`` explains them, or else all that had ended before the first of the ``unexplained`` did: with that one's
    end, no order is left. The others are what has no place even so, were that one forgiven; ``CULPRITS`` at most.
    """

    keys: tuple[str, ...]
    outcome: Judgement
    order: tuple[Call, ...]
    unexplained: tuple[Call, ...]
    configurations: int
    """How many were tried before it was clear, or the search gave up."""


def fits(seen: Seen, held: Value) -> bool:
    """Return whether a key that held this may have been seen so."""
    return held != seen.value if isinstance(seen, Not) else held == seen


def linearize(calls: Iterable[Call], limit: int = LIMIT) -> list[Verdict]:
    """Find an order for the calls to each store; nothing is in any of them in the beginning."""
    return [_verdict(store, limit) for store in stores(_useful(list(calls)))]


def stores(calls: Iterable[Call]) -> list[list[Call]]:
    """Return the calls in groups that have no key, and no request, in common, in the order of their first keys."""
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
            # The ways in which it may have gone exclude each other, whatever keys they are about.
            others.append(requests.setdefault(call.request, first))
        for other in others:
            # The smaller one stays, so that the groups come in the same order whatever the order of the calls.
            low, high = sorted((root(first), root(other)))
            above[high] = low
    groups: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        groups[root(call.keys[0])].append(call)
    return [groups[key] for key in sorted(groups)]


def _verdict(calls: list[Call], limit: int) -> Verdict:
    keys = tuple(sorted({key for call in calls for key in call.keys}))
    search = _Search(calls, limit)
    outcome: Judgement = "linearizable"
    if not search.follow_hints():
        search = _Search(calls, limit)
        outcome = search.run()
    if outcome != "not linearizable":
        order = search.order() if outcome == "linearizable" else []
        return Verdict(keys, outcome, tuple(order), (), search.configurations)
    explanation = _Explanation(calls, limit)
    explanation.find_culprits()
    return Verdict(keys, outcome, tuple(explanation.order), tuple(explanation.culprits), search.configurations)


class _Explanation:
    """Looks for the call with whose end a history stops being linearizable, and then for the next one.

    Whoever goes on with a history that is not linearizable does not make it so. So the first end after which there is
    no order can be found by halving, which does not depend on the way that a search has taken.
    """

    def __init__(self, calls: list[Call], limit: int) -> None:
        self.calls = calls
        self.left = limit
        """Configurations that may still be tried, in all searches together."""
        known = [number for number, call in enumerate(calls) if call.returned < inf]
        self.ends = sorted(known, key=lambda number: (calls[number].returned, calls[number].invoked))
        self.forgiven: set[int] = set()
        self.order: list[Call] = []
        """What explains all that ended before the first culprit did."""

    @property
    def culprits(self) -> list[Call]:
        """What was found, in the order of the ends."""
        return [self.calls[number] for number in self.ends if number in self.forgiven]

    def find_culprits(self) -> None:
        """Find one after the other, until all is well without them."""
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
        """Whether there is certainly no order for what is known when so many calls have ended."""
        search = _Search(self._prefix(ended), self.left)
        outcome = search.run()
        self.left -= search.configurations
        if outcome == "linearizable" and not self.forgiven:
            self.order = search.order()
        return outcome == "not linearizable"

    def _prefix(self, ended: int) -> list[Call]:
        """Return the history up to that end: what ends later is open, and what begins later is not there."""
        until = self.calls[self.ends[ended - 1]].returned
        known = set(self.ends[:ended]) - self.forgiven
        prefix = []
        for number, call in enumerate(self.calls):
            if number in known or (call.returned == inf and call.invoked <= until):
                prefix.append(call)
            elif call.leaves and call.invoked <= until:
                # What it is going to see is not known yet.
                prefix.append(call._replace(returned=inf, sees=()))
        return prefix


def _useful(calls: list[Call]) -> list[Call]:
    """Return the calls without those that never ended and whose effect nobody saw.

    Were such a call done, nobody had seen any of its keys before the next call changed that. Without it, nobody may
    be left who saw what another one leaves.
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
    """Return when each call had been done: at its end, or earlier where what others saw tells that.

    Without this, each call that never ended would double the configurations from there on to the end.
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
            # What is not there comes from nobody, in the beginning.
            ends = [seen.get(fact, inf) for fact in call.leaves if fact[1] is not None and sources[fact] == 1]
            # Somebody who saw it before it began is wrong, but that is for the search to find.
            earlier.append(max(call.invoked, min([done, *ends])))
        if earlier == settled:
            return settled
        # Where that one has seen something too, whoever left it had been done even earlier.
        settled = earlier


class _Event:
    """The beginning or the end of a call, in a list of those of all calls that have no place yet."""

    __slots__ = ("after", "before", "move")

    def __init__(self, move: _Move | None) -> None:
        self.move = move
        """The call that begins here, if one does."""
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


State = tuple[int, ...]
"""The number of what is under each key."""


ABSENT = 0
UNSEEN = 1


class _Move:
    """A call with numbers for its keys and for what is under them.

    ``ABSENT`` is nothing, ``UNSEEN`` is any value that nobody saw or missed: one is as good as the other. Of what was
    seen, ``~number`` is anything but that.
    """

    __slots__ = ("beginning", "bit", "call", "done", "end", "hint", "leaves", "rivals", "sees", "twin")

    def __init__(self, call: Call, done: float, bit: int) -> None:
        self.call = call
        self.done = done
        """When it certainly had been."""
        self.bit = bit
        self.hint = call.hint
        self.sees: list[tuple[int, int]] = []
        self.leaves: list[tuple[int, int]] = []
        self.twin = 0
        """The bit of the call that does the same, is as little known to have been done, and began right before it."""
        self.rivals = 0
        """The bits of the calls of the same request: it went in one way at most."""
        self.beginning = _Event(self)
        self.end: _Event | None = None

    def fits(self, state: State) -> bool:
        """Whether it would see what it saw."""
        return all(_fits(value, state[key]) for key, value in self.sees)

    def changed(self, state: State) -> State:
        """Return what it makes of ``state``."""
        values = list(state)
        for key, value in self.leaves:
            values[key] = value
        return tuple(values)

    def notices(self, other: _Move, before: State, after: State) -> bool:
        """Whether this one, if it were next, could tell that ``other`` has just been done.

        It can if it saw what it would not have seen before. It can also if it leaves some of the same keys: afterwards
        the store would be another if the two had gone the other way round; or if it leaves some that the other saw,
        which might have found something else then. But where it leaves all that has changed, the other had better not
        be done at all.
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
    """A change and then all those that fit, with what may be tried next, the most likely last.

    ``state`` was before, in the first step what is.
    """

    moves: list[_Move]
    state: State
    changes: list[_Move]


def _hint(move: _Move) -> float:
    return move.hint


class _Search:
    """Gives one call after the other its place; only what began before the first open end can be the next one."""

    def __init__(self, calls: list[Call], limit: int) -> None:
        self.limit = limit
        useful = _useful(calls)
        settled = sorted(zip(useful, _settled(useful), strict=True), key=lambda pair: (pair[0].invoked, pair[1]))
        self.moves = [_Move(call, done, 1 << number) for number, (call, done) in enumerate(settled)]
        self.placed = 0
        """The bits of the calls that have their place."""
        self.left = sum(move.done < inf for move in self.moves)
        """Calls that were done and have no place yet."""
        self.state: State = ()
        self.waiting: list[list[int]] = []
        """How many calls that were done and have no place have seen each value under each key."""
        self.sources: list[list[int]] = []
        """How many calls without a place leave it there."""
        self.steps: list[_Step] = []
        self.configurations = 0
        """How many were tried."""
        self.optional = sum(move.bit for move in self.moves if move.done == inf)
        """The bits of the calls that may not have been done."""
        self.tried: dict[tuple[int, State], list[int]] = {}
        """The calls that had a place and what they left, wherever the search has been; the optional ones by themselves.

        None of those is part of another one of the same configuration.
        """
        self._count_values()
        self._find_rivals()
        self._find_twins()
        self.head = self._link_events()

    def order(self) -> list[Call]:
        """Return the calls that have a place, one after the other."""
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
                # Number 1 is for what nobody saw.
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
            # What has rivals may not be done any more when it is the turn of its twin.
            if move.done == inf and not move.rivals:
                families[tuple(move.sees), tuple(move.leaves)].append(move)
        for family in families.values():
            for earlier, move in pairwise(family):
                move.twin = earlier.bit
            # Whichever of them was done first, here it is the one that began first.
            for move, hint in zip(family, sorted(move.hint for move in family), strict=True):
                move.hint = hint

    def _link_events(self) -> _Event:
        events: list[tuple[float, int, _Event]] = []
        for move in self.moves:
            # Of two events at the same moment the beginning goes first: nothing says that they did not overlap.
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
        """Try the one order that the hints tell, as far as they do: whether it explains all."""
        self.steps.append(_Step(self._place_all_that_fit(), self.state, []))
        while self.left:
            # The most likely one comes last.
            move = next((move for move in reversed(self._changes()) if self._is_possible(move)), None)
            if move is None or move.hint == inf or self.configurations >= self.limit:
                return False
            self.configurations += 1
            before, self.state = self.state, move.changed(self.state)
            self._place(move)
            self.steps.append(_Step([move, *self._place_all_that_fit()], before, []))
        return True

    def run(self) -> Judgement:
        """Try one change after the other; where none can be next, take the last one back and try another."""
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
                # Somebody else has yet to see what nobody would leave there any more.
                return False
        return not self._was_tried(self.placed | move.bit, move.changed(self.state))

    def _was_tried(self, placed: int, state: State) -> bool:
        """Whether the search has been there, or where no call that may not have been done had a place but these."""
        used = placed & self.optional
        return any(earlier & ~used == 0 for earlier in self.tried.get((placed & ~self.optional, state), ()))

    def _remember(self, placed: int, state: State) -> None:
        used, known = placed & self.optional, (placed & ~self.optional, state)
        self.tried[known] = [used, *(earlier for earlier in self.tried.get(known, ()) if used & ~earlier)]

    def _try(self, move: _Move) -> None:
        """Give a change its place, and all that fit then; take it back where that was not worth it."""
        before, self.state = self.state, move.changed(self.state)
        placed = self.placed | move.bit
        self._place(move)
        seen = self._place_all_that_fit()
        self.steps.append(_Step([move, *seen], before, self._changes()))
        if move.done == inf and not self._is_noticed(move, seen, before):
            # The configuration is not tried: what came before this change may be worth it in another order.
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
        """Give every call that changes nothing and can be next its place."""
        moves = []
        event = self.head.after
        while event is not None and (move := event.move) is not None:
            if not move.leaves and move.fits(self.state):
                self._place(move)
                moves.append(move)
            event = event.after
        return moves

    def _place(self, move: _Move) -> None:
        # The end goes first, or what comes after the beginning could still be that very end.
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
