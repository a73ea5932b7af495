"""Makes a plan that fails smaller: fewer faults, milder ones, fewer nodes, less time.

Faults are removed in ever smaller pieces (delta debugging: Zeller and Hildebrandt, 2002), then the rest is simplified,
and a change is kept if the run still fails with the same kind of violation. The search ends when no change is kept any
more, or at a limit of runs or of time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec

from raftkv.simulation.checks.violation import kind_of
from raftkv.simulation.cluster.cluster import SIMULATED_LIMITS
from raftkv.simulation.cluster.describe import counted
from raftkv.simulation.faults.faults import Fault
from raftkv.simulation.run import Run, RunPlan, RunResult

RUNS = 400
"""How many runs a search takes at most."""

SECONDS = 120.0
"""How long a search takes at most, in real time."""

RunFunction = Callable[[RunPlan], RunResult]


def run_plan(plan: RunPlan) -> RunResult:
    """Run a plan."""
    return Run(plan).run()


class Shrunk(msgspec.Struct, frozen=True):
    """A smaller plan, its result, and how many runs it took to find."""

    plan: RunPlan
    result: RunResult
    runs: int
    interrupted: bool = False
    """Whether Ctrl-C ended the search."""


def shrink(
    plan: RunPlan,
    *,
    run: RunFunction = run_plan,
    runs: int = RUNS,
    seconds: float = SECONDS,
    report: Callable[[str], None] | None = None,
) -> Shrunk:
    """Return the smallest plan found; ``report`` gets a line for each smaller one.

    Ctrl-C ends the search with the smallest plan so far. Raises ``ValueError`` for a plan that does not fail.
    """
    return _Shrinker(plan, run, runs, seconds, report).shrink()


class _Shrinker:
    def __init__(
        self, plan: RunPlan, run: RunFunction, runs: int, seconds: float, report: Callable[[str], None] | None
    ) -> None:
        self._run = run
        self._runs_left = runs
        self._until_s = time.monotonic() + seconds
        self._report = report
        self._runs = 1
        self._plan = plan
        self._result = run(plan)
        if self._result.ok:
            raise ValueError("this plan does not fail")
        self._kind = kind_of(self._result.violation)
        self._tried: set[bytes] = set()

    def shrink(self) -> Shrunk:
        try:
            self._search()
        except KeyboardInterrupt:
            return Shrunk(self._plan, self._result, self._runs, interrupted=True)
        return Shrunk(self._plan, self._result, self._runs)

    def _search(self) -> None:
        self._try(_as_executed(self._plan, self._result))
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
        """Keep this plan if it fails in the same way."""
        name = msgspec.json.encode(plan)
        if plan == self._plan or name in self._tried or not self._may_go_on():
            return False
        self._tried.add(name)
        self._runs_left -= 1
        self._runs += 1
        result = self._run(plan)
        if result.ok or kind_of(result.violation) != self._kind:
            return False
        # Faults that had no effect, and those after the violation, go at once.
        self._plan, self._result = _as_executed(plan, result), result
        if self._report is not None:
            faults, nodes = counted(len(result.faults), "fault"), counted(plan.nodes, "node")
            self._report(f"{faults}, {nodes}, {counted(result.events, 'event')}")
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
        """Shorten the time before each fault, for it and all later ones."""
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


def _as_executed(plan: RunPlan, result: RunResult) -> RunPlan:
    return msgspec.structs.replace(plan, faults=result.faults, events=max(1, min(plan.events, result.events)))


_MILDER_IF_SMALLER = frozenset(
    {"loss", "repeat", "replay", "latency", "slow-way", "starve", "jump", "slow-sync", "hang-sync"}
)


def _milder(fault: Fault) -> Iterator[dict[str, object]]:
    """Yield changes that make a fault simpler, the largest first."""
    names = fault.target.split(",")
    # In the other kinds, the position of a name matters.
    if len(names) > 1 and fault.kind not in ("ring", "bridge", "slow-way"):
        for name in names:
            yield {"target": ",".join(each for each in names if each != name)}
    if fault.for_ms > 1.0:
        for part in (0.1, 0.5):
            yield {"for_ms": float(round(fault.for_ms * part))}
    if fault.kind in _MILDER_IF_SMALLER and fault.value > 0.01:
        yield {"value": round(fault.value / 2, 3)}
