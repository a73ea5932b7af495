"""Sweeps of many runs: which seeds run with which faults, the result of each run, and the sums over all of them."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

import msgspec

from raftkv.simulation.faults.faults import CLASSES
from raftkv.simulation.run import EVENTS, RunPlan, plan

MIXED = "mixed"
"""The profile in which the seed chooses the classes of faults; other profiles name their classes."""

NONE = "none"
"""The profile without faults."""

EACH = "each"
"""Several profiles: the mixed one, and each class by itself."""

COMMAND = "python -m raftkv simulate"
"""The beginning of every command that repeats a run."""


class Origin(NamedTuple):
    """Where a run comes from: its name, and the command that repeats it."""

    name: str
    command: str

    def __str__(self) -> str:
        """Return both in one line."""
        return f"{self.name}: {self.command}"


class Task(msgspec.Struct, frozen=True):
    """A run to be done. ``nodes`` is 0 if the seed decides; ``directory`` is for the files of a failure."""

    seed: int
    profile: str = MIXED
    nodes: int = 0
    events: int = EVENTS
    directory: str = ""

    def plan(self) -> RunPlan:
        """Return the plan of this run."""
        return plan(self.seed, nodes=self.nodes, events=self.events, classes=classes_of(self.profile))

    @property
    def name(self) -> str:
        """The name of its files, without an ending."""
        return f"{self.seed}-{self.profile.replace(',', '-')}"

    @property
    def origin(self) -> Origin:
        """The seed and profile, and the command that repeats the run."""
        return Origin(f"seed {self.seed}, {self.profile}", self.command())

    def command(self) -> str:
        """Return the command that repeats the run."""
        words = [COMMAND, "--seed", str(self.seed)]
        if self.profile != MIXED:
            words += ["--faults", self.profile]
        if self.nodes:
            words += ["--nodes", str(self.nodes)]
        if self.events != EVENTS:
            words += ["--events", str(self.events)]
        return " ".join(words)


class TaskResult(msgspec.Struct, frozen=True):
    """The result of a task; ``violation`` is empty if the run passed."""

    task: Task
    violation: str
    events: int = 0
    virtual_ms: float = 0.0
    faults: dict[str, int] = {}
    """How many took effect, by kind."""
    answers: dict[str, int] = {}
    cpu_s: float = 0.0
    schedule: str = ""
    """The schedule file of a failure."""
    picture: str = ""
    """The timeline file of a failure."""


def classes_of(profile: str) -> tuple[str, ...] | None:
    """Return the classes of faults that a profile names, or None if the seed chooses."""
    if profile == MIXED:
        return None
    return () if profile == NONE else tuple(profile.split(","))


def profiles(faults: str) -> tuple[str, ...]:
    """Return the profiles that ``--faults`` names; raises ``ValueError`` with a text to follow the option's name."""
    faults = ",".join(name.strip() for name in faults.split(","))
    if faults == EACH:
        return (MIXED, *CLASSES)
    if faults not in (MIXED, NONE):
        for name in faults.split(","):
            if name not in CLASSES:
                raise ValueError(f"{name!r} is not one of {', '.join((*CLASSES, MIXED, EACH, NONE))}")
    return (faults,)


def parse_seeds(text: str) -> tuple[int, int | None]:
    """Return the first and the last seed of "5-9", of "5-" (no last one) or of "2000" (0 to 1999)."""
    match = re.fullmatch("([0-9]{1,15})(-([0-9]{1,15})?)?", text)
    if match is None:
        raise ValueError(f"{text!r} is not like 0-1999, 500- or 2000")
    begin, end = int(match[1]), int(match[3]) if match[3] else None
    if not match[2]:
        begin, end = 0, begin - 1
    if end is not None and end < begin:
        raise ValueError(f"{text!r} contains no seeds")
    return begin, end


def tasks(
    seeds: tuple[int, int | None], profiles: Sequence[str], pattern: Task, seconds: float | None = None
) -> Iterator[Task]:
    """Yield a task like ``pattern`` for each seed and profile, until ``seconds`` have passed."""
    first, last = seeds
    until_s = None if seconds is None else time.monotonic() + seconds
    for seed in count(first) if last is None else range(first, last + 1):
        for profile in profiles:
            if until_s is not None and time.monotonic() >= until_s:
                return
            yield msgspec.structs.replace(pattern, seed=seed, profile=profile)


class Tally:
    """The sums over all results so far."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.runs = Counter[str]()
        """By profile."""
        self.events = 0
        self.virtual_ms = 0.0
        self.cpu_s = 0.0
        self.faults = Counter[str]()
        self.answers = Counter[str]()
        self.seeds: set[int] = set()
        self.failures: list[TaskResult] = []

    def add(self, result: TaskResult) -> None:
        """Add a result."""
        self.runs[result.task.profile] += 1
        self.events += result.events
        self.virtual_ms += result.virtual_ms
        self.cpu_s += result.cpu_s
        self.faults.update(result.faults)
        self.answers.update(result.answers)
        self.seeds.add(result.task.seed)
        if result.violation:
            self.failures.append(result)

    @property
    def minutes(self) -> float:
        """Real time since the start."""
        return (time.monotonic() - self.started_s) / 60

    @property
    def runs_per_minute(self) -> float:
        """Runs per minute of real time, of all processes together."""
        return self.runs.total() / max(self.minutes, 1e-9)

    @property
    def events_per_minute_and_core(self) -> float:
        """Events per minute of processor time."""
        return self.events / max(self.cpu_s / 60, 1e-9)
