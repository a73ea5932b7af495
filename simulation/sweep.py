"""Many lives: which seeds are lived under which faults, what came of each, and of all of them together."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import msgspec

from raftkv.simulation.faults.faults import CLASSES
from raftkv.simulation.faults.schedule import save
from raftkv.simulation.report import timeline
from raftkv.simulation.run import EVENTS, Run, RunPlan, RunResult, plan
from raftkv.simulation.shrink import first_line

MIXED = "mixed"
"""The profile in which a seed chooses the classes of its faults; the others are named by their classes."""

NONE = "none"
"""The profile without any fault."""

EACH = "each"
"""Not a profile, but many: the mixed one and each class by itself."""


COMMAND = "python -m raftkv simulate"
"""What a command that lives something again begins with."""


class Origin(NamedTuple):
    """Where a life comes from: what it is called, and the command that lives it again."""

    name: str
    command: str

    def __str__(self) -> str:
        """Return both in one line."""
        return f"{self.name}: {self.command}"


class Task(msgspec.Struct, frozen=True):
    """A life to be lived. Without ``nodes`` the seed says how many; ``directory`` is for what a failure leaves."""

    seed: int
    profile: str = MIXED
    nodes: int = 0
    events: int = EVENTS
    directory: str = ""

    def plan(self) -> RunPlan:
        """Return the plan of this life."""
        return plan(self.seed, nodes=self.nodes, events=self.events, classes=classes_of(self.profile))

    @property
    def name(self) -> str:
        """Return what files on it are called."""
        return f"{self.seed}-{self.profile.replace(',', '-')}"

    @property
    def origin(self) -> Origin:
        """Return which life this is."""
        return Origin(f"seed {self.seed}, {self.profile}", self.command())

    def command(self) -> str:
        """Return the command that lives it again."""
        words = [COMMAND, "--seed", str(self.seed)]
        if self.profile != MIXED:
            words += ["--faults", self.profile]
        if self.nodes:
            words += ["--nodes", str(self.nodes)]
        if self.events != EVENTS:
            words += ["--events", str(self.events)]
        return " ".join(words)


class Result(msgspec.Struct, frozen=True):
    """What came of it: all was well if ``violation`` is empty."""

    task: Task
    violation: str
    events: int = 0
    virtual_ms: float = 0.0
    faults: dict[str, int] = {}
    """How many came to pass, by kind."""
    answers: dict[str, int] = {}
    cpu_s: float = 0.0
    schedule: str = ""
    """The file with the plan, if there is a violation, and with the faults that came to pass."""
    picture: str = ""


def classes_of(profile: str) -> tuple[str, ...] | None:
    """Return the classes of faults that a profile names, or None where the seed chooses."""
    if profile == MIXED:
        return None
    return () if profile == NONE else tuple(profile.split(","))


def profiles(faults: str) -> tuple[str, ...]:
    """Return the profiles that ``--faults`` asks for; raises ``ValueError`` with the rest of the sentence."""
    faults = ",".join(name.strip() for name in faults.split(","))
    if faults == EACH:
        return (MIXED, *CLASSES)
    if faults not in (MIXED, NONE):
        for name in faults.split(","):
            if name not in CLASSES:
                raise ValueError(f"{name!r} is none of {', '.join((*CLASSES, MIXED, EACH, NONE))}")
    return (faults,)


def parse_seeds(text: str) -> tuple[int, int | None]:
    """Return the first and the last seed of "5-9", "5-" (no last one), or "2000" (as many, from 0)."""
    match = re.fullmatch("([0-9]{1,15})(-([0-9]{1,15})?)?", text)
    if match is None:
        raise ValueError(f"{text!r} is not like 0-1999, 500- or 2000")
    begin, end = int(match[1]), int(match[3]) if match[3] else None
    if not match[2]:
        begin, end = 0, begin - 1
    if end is not None and end < begin:
        raise ValueError(f"{text!r} has no seeds in it")
    return begin, end


def tasks(
    seeds: tuple[int, int | None], profiles: Sequence[str], pattern: Task, seconds: float | None = None
) -> Iterator[Task]:
    """Give a task like ``pattern`` for each seed and profile, as long as there is time."""
    first, last = seeds
    until_s = None if seconds is None else time.monotonic() + seconds
    for seed in count(first) if last is None else range(first, last + 1):
        for profile in profiles:
            if until_s is not None and time.monotonic() >= until_s:
                return
            yield msgspec.structs.replace(pattern, seed=seed, profile=profile)


def live(task: Task) -> Result:
    """Live one life, here and now; of a failure there is a schedule and a picture afterwards."""
    began_s = time.process_time()
    life = Run(task.plan())
    outcome = life.run()
    schedule = picture = ""
    if not outcome.ok:
        schedule = str(Path(task.directory) / f"{task.name}.json")
        picture = str(Path(task.directory) / f"{task.name}.html")
        lived = msgspec.structs.replace(life.plan, faults=outcome.faults)
        save(Path(schedule), lived, first_line(outcome.violation))
        draw(life, outcome, Path(picture), str(task.origin))
    kinds = Counter(fault.kind for fault in outcome.faults)
    cpu_s = time.process_time() - began_s
    answers = outcome.answers
    return Result(task, outcome.violation, outcome.events, outcome.virtual_ms, kinds, answers, cpu_s, schedule, picture)


def draw(life: Run, outcome: RunResult, path: Path, origin: str) -> None:
    """Write the timeline of a life that was lived; ``origin`` says which one, and how to live it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    violation = first_line(outcome.violation)
    page = timeline.draw(life.history, life.history.verdict(), life.marks, violation=violation, origin=origin)
    path.write_text(page)


class Tally:
    """What came of all lives so far."""

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.lives = Counter[str]()
        """By profile."""
        self.events = 0
        self.virtual_ms = 0.0
        self.cpu_s = 0.0
        self.faults = Counter[str]()
        self.answers = Counter[str]()
        self.seeds: set[int] = set()
        self.failures: list[Result] = []

    def add(self, result: Result) -> None:
        """Count one more."""
        self.lives[result.task.profile] += 1
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
        """How long it has taken so far, in real time."""
        return (time.monotonic() - self.began_s) / 60

    @property
    def lives_per_minute(self) -> float:
        """How many lives were lived in a minute, by all processes together."""
        return self.lives.total() / max(self.minutes, 1e-9)

    @property
    def events_per_minute_and_core(self) -> float:
        """How many events there were in a minute in which one core did nothing else."""
        return self.events / max(self.cpu_s / 60, 1e-9)
