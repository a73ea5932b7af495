"""Making a plan smaller that shows a violation: fewer faults, milder ones, fewer nodes, less time.

Faults are left out in ever smaller pieces (delta debugging: Zeller and Hildebrandt, 2002), then what is left is made
simpler, as long as the same kind of violation comes of it. It goes on until nothing can be left out any more, or
until so many lives were lived or so much time has passed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import msgspec

from raftkv.simulation.cluster.cluster import SIMULATED_LIMITS
from raftkv.simulation.faults.faults import Fault
from raftkv.simulation.run import Run, RunPlan, RunResult

RUNS = 400
"""Lives that are lived at most to make a plan smaller."""

SECONDS = 120.0
"""For how long it is tried at most, in real time."""

Live = Callable[[RunPlan], RunResult]


def live(plan: RunPlan) -> RunResult:
    """Live a plan."""
    return Run(plan).run()


def first_line(violation: str) -> str:
    """Return what is wrong in one line, without all that led to it."""
    first, *rest = violation.split("\n", 3)
    return " ".join([first, *(line.strip() for line in rest[:2])]) if first.endswith(":") else first


def counted(number: int, one: str) -> str:
    """Return a number of things, of which ``one`` is the word for a single one."""
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"


def kind_of(violation: str) -> str:
    """Return what kind of violation this is: its first words, whichever nodes and numbers they tell of."""
    words = re.split(r"[:(,]", first_line(violation), maxsplit=1)[0]
    words = re.sub(r"\bn\d+\b", "a node", words)
    # The status with which a process ends is no number like others: 1 is trouble, 70 is a bug.
    return re.sub(r"(?<!status )\b\d+\b", "#", words).strip()


class Shrunk(msgspec.Struct, frozen=True):
    """A smaller plan, what becomes of it, and how many lives it took to find."""

    plan: RunPlan
    outcome: RunResult
    runs: int
    interrupted: bool = False
    """Whether Ctrl-C ended the search."""


def shrink(
    plan: RunPlan,
    *,
    live: Live = live,
    runs: int = RUNS,
    seconds: float = SECONDS,
    told: Callable[[str], None] | None = None,
) -> Shrunk:
    """Return the smallest plan that was found; ``told`` is given a line on each smaller one.

    Ctrl-C ends the search with what was found so far. Raises ``ValueError`` for a plan that shows nothing.
    """
    return _Shrinker(plan, live, runs, seconds, told).shrink()


class _Shrinker:
    def __init__(
        self, plan: RunPlan, live: Live, runs: int, seconds: float, told: Callable[[str], None] | None
    ) -> None:
        self._live = live
        self._runs_left = runs
        self._until_s = time.monotonic() + seconds
        self._told = told
        self._runs = 1
        self._plan = plan
        self._outcome = live(plan)
        if self._outcome.ok:
            raise ValueError("this plan shows no violation")
        self._kind = kind_of(self._outcome.violation)
        self._tried: set[bytes] = set()

    def shrink(self) -> Shrunk:
        try:
            self._search()
        except KeyboardInterrupt:
            return Shrunk(self._plan, self._outcome, self._runs, interrupted=True)
        return Shrunk(self._plan, self._outcome, self._runs)

    def _search(self) -> None:
        self._try(_as_lived(self._plan, self._outcome))
        steps = (self._fewer_faults, self._fewer_nodes, self._simpler, self._milder, self._earlier, self._fewer_events)
        while True:
            before = self._plan
            for step in steps:
                step()
            if self._plan == before or not self._may_go_on():
                return

    def _may_go_on(self) -> bool:
        return self._runs_left > 0 and time.monotonic() < self._until_s

    def _try(self, plan: RunPlan) -> bool:
        """Take this plan if the same comes of it."""
        name = msgspec.json.encode(plan)
        if plan == self._plan or name in self._tried or not self._may_go_on():
            return False
        self._tried.add(name)
        self._runs_left -= 1
        self._runs += 1
        outcome = self._live(plan)
        if outcome.ok or kind_of(outcome.violation) != self._kind:
            return False
        # What did not come to pass is of no use, nor is what comes after the violation.
        self._plan, self._outcome = _as_lived(plan, outcome), outcome
        if self._told is not None:
            faults, nodes = counted(len(outcome.faults), "fault"), counted(plan.nodes, "node")
            self._told(f"{faults}, {nodes}, {counted(outcome.events, 'event')}")
        return True

    def _change(self, **fields: object) -> bool:
        return self._try(msgspec.structs.replace(self._plan, **fields))

    def _change_fault(self, place: int, **fields: object) -> bool:
        faults = list(self._plan.faults)
        faults[place] = msgspec.structs.replace(faults[place], **fields)
        return self._change(faults=tuple(faults))

    # --- steps

    def _fewer_faults(self) -> None:
        if self._plan.faults and self._change(faults=()):
            return
        size = len(self._plan.faults)
        while size:
            end = len(self._plan.faults)
            while end > 0 and self._may_go_on():
                faults = self._plan.faults
                start = max(0, end - size)
                self._change(faults=faults[:start] + faults[end:])
                end = min(start, len(self._plan.faults))
            size //= 2

    def _fewer_nodes(self) -> None:
        for nodes in range(1, self._plan.nodes):
            if self._change(nodes=nodes):
                return

    def _simpler(self) -> None:
        self._change(shuffled=False)
        self._change(calm_start=True)
        self._change(limits=SIMULATED_LIMITS)

    def _milder(self) -> None:
        for place in range(len(self._plan.faults) - 1, -1, -1):
            while place < len(self._plan.faults):
                if not any(self._change_fault(place, **fields) for fields in _milder(self._plan.faults[place])):
                    break

    def _earlier(self) -> None:
        """Shorten the time that passes before each fault, for it and all that come later."""
        for place in range(len(self._plan.faults)):
            for part in (0.0, 0.5):
                faults = self._plan.faults
                if place >= len(faults):
                    return
                gap_ms = faults[place].at_ms - (faults[place - 1].at_ms if place else 0.0)
                less_ms = gap_ms - float(round(gap_ms * part))
                later = [msgspec.structs.replace(each, at_ms=round(each.at_ms - less_ms, 3)) for each in faults[place:]]
                if less_ms > 1.0 and self._change(faults=(*faults[:place], *later)):
                    break

    def _fewer_events(self) -> None:
        for part in (0.0, 0.25, 0.5, 0.75, 0.9):
            if self._change(events=max(1, int(self._plan.events * part))):
                return


def _as_lived(plan: RunPlan, outcome: RunResult) -> RunPlan:
    return msgspec.structs.replace(plan, faults=outcome.faults, events=max(1, min(plan.events, outcome.events)))


_MILDER_IF_SMALLER = frozenset(
    {"loss", "repeat", "replay", "latency", "slow-way", "starve", "jump", "slow-sync", "hang-sync"}
)


def _milder(fault: Fault) -> Iterator[dict[str, object]]:
    """Give changes that make a fault simpler, the greatest first."""
    names = fault.target.split(",")
    # For the other kinds, the place of a name among them matters.
    if len(names) > 1 and fault.kind not in ("ring", "bridge", "slow-way"):
        for name in names:
            yield {"target": ",".join(each for each in names if each != name)}
    if fault.for_ms > 1.0:
        for part in (0.1, 0.5):
            yield {"for_ms": float(round(fault.for_ms * part))}
    if fault.kind in _MILDER_IF_SMALLER and fault.value > 0.01:
        yield {"value": round(fault.value / 2, 3)}
