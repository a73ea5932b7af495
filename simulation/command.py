"""The command `simulate`: one life in detail, or as many as there is time for."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import msgspec

from raftkv.config.option import SettingsError
from raftkv.simulation.faults.schedule import load, save
from raftkv.simulation.report import report
from raftkv.simulation.run import EVENTS, Run, RunPlan
from raftkv.simulation.shrink import SECONDS, first_line, shrink
from raftkv.simulation.sweep import COMMAND, MIXED, Origin, Result, Tally, Task, draw, parse_seeds, profiles, tasks
from raftkv.simulation.workers import Workers

LEFT = ".raftkv-simulation"
"""Where failures leave their schedules and pictures."""

TELL_EVERY_S = 30.0
"""How often it is told how far it is, where no terminal shows it all the time."""

Say = Callable[[str], None]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    seed: int | None = None
    seeds: str | None = None
    schedule: str | None = None
    minutes: float | None = None
    nodes: int | None = None
    events: int | None = None
    faults: str = MIXED
    trace: bool = False
    html: str | None = None
    save: str | None = None
    shrink: bool = False
    jobs: int | None = None


def simulate(wanted: Wanted, say: Say) -> int:
    """Do what is wanted and return 0 if all was well, 1 if not; raises ``SettingsError``."""
    # What nodes log is in the trace, in virtual time.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return _simulate(wanted, say)
    finally:
        logging.disable(before)


def _simulate(wanted: Wanted, say: Say) -> int:
    given = [name for name in ("seed", "seeds", "schedule") if getattr(wanted, name) is not None]
    if len(given) > 1:
        raise SettingsError(f"--{given[0]} and --{given[1]} exclude each other")
    if given in (["seed"], ["schedule"]):
        _refuse(wanted, f"--{given[0]}", "jobs", "minutes")
        return _one(wanted, say)
    if not given and wanted.minutes is None:
        raise SettingsError("--seed, --seeds, --schedule or --minutes is needed")
    _refuse(wanted, "--seeds", "trace", "html", "save")
    return _many(wanted, say)


def _refuse(wanted: Wanted, by: str, *names: str) -> None:
    for name in names:
        if getattr(wanted, name):
            raise SettingsError(f"--{name} does not go with {by}")


def _profiles(wanted: Wanted) -> tuple[str, ...]:
    try:
        return profiles(wanted.faults)
    except ValueError as error:
        raise SettingsError(f"--faults: {error}") from None


# --- one life


def _one(wanted: Wanted, say: Say) -> int:
    plan, name, origin = _plan(wanted)
    for option, path in (("html", wanted.html), ("save", wanted.save)):
        if path is not None:
            _must_be_writable(option, Path(path))
    life = Run(plan, write=say if wanted.trace else None)
    outcome = life.run()
    lived = msgspec.structs.replace(plan, faults=outcome.faults)
    say(report.one(outcome))
    html, schedule = wanted.html, wanted.save
    if outcome.ok:
        say("OK")
    else:
        say(f"VIOLATION: {outcome.violation}")
        say(f"again: {origin.command}")
        html, schedule = html or f"{LEFT}/{name}.html", schedule or f"{LEFT}/{name}.json"
    if schedule:
        save(Path(schedule), lived, first_line(outcome.violation))
        say(f"schedule: {schedule}")
    if html:
        draw(life, outcome, Path(html), str(origin))
        say(f"picture: {html}")
    if wanted.shrink and not outcome.ok:
        _shrink(plan, Path(f"{LEFT}/{name}-small.json"), say, say)
    return 0 if outcome.ok else 1


def _must_be_writable(option: str, path: Path) -> None:
    """Complain before a life, rather than after it, about a place where nothing can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A pipe or a terminal would take the opening itself for a sign.
        if not path.exists() or path.is_file() or path.is_dir():
            is_new = not path.exists()
            path.open("ab").close()
            if is_new:
                path.unlink()
    except OSError as error:
        raise SettingsError(f"--{option}: cannot write {path}: {error.strerror}") from None


def _plan(wanted: Wanted) -> tuple[RunPlan, str, Origin]:
    """Return the plan that is wanted, what its files are called, and where it comes from."""
    if wanted.schedule is None:
        assert wanted.seed is not None
        names = _profiles(wanted)
        if len(names) > 1:
            raise SettingsError("--faults: each goes with --seeds only")
        task = Task(wanted.seed, names[0], wanted.nodes or 0, wanted.events or EVENTS)
        return task.plan(), task.name, task.origin
    if wanted.faults != MIXED:
        raise SettingsError("--faults does not go with --schedule")
    try:
        read = load(Path(wanted.schedule))
    except OSError as error:
        raise SettingsError(f"--schedule {wanted.schedule}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"--schedule {wanted.schedule} {error}") from None
    changed = {"nodes": wanted.nodes or read.nodes, "events": wanted.events or read.events}
    command = f"{COMMAND} --schedule {shlex.quote(wanted.schedule)}"
    command += f" --nodes {wanted.nodes}" if wanted.nodes else ""
    command += f" --events {wanted.events}" if wanted.events else ""
    path = Path(wanted.schedule)
    return msgspec.structs.replace(read, **changed), path.stem, Origin(f"seed {read.seed}, {path.name}", command)


def _shrink(plan: RunPlan, path: Path, say: Say, told: Say | None) -> bool:
    """Save and tell the smallest plan that was found; return whether it was looked for to the end."""
    shrunk = shrink(plan, told=None if told is None else lambda line: told(f"  … {line}"))
    save(path, shrunk.plan, first_line(shrunk.outcome.violation))
    if shrunk.interrupted:
        say("  interrupted; this is the smallest so far")
    say(report.smaller(shrunk, path))
    return not shrunk.interrupted


# --- many lives


def _many(wanted: Wanted, say: Say) -> int:
    try:
        seeds = parse_seeds("0-" if wanted.seeds is None else wanted.seeds)
    except ValueError as error:
        raise SettingsError(f"--seeds: {error}") from None
    names = _profiles(wanted)
    if seeds[1] is None and wanted.minutes is None:
        raise SettingsError("--seeds without a last one goes with --minutes only")
    jobs = wanted.jobs or len(os.sched_getaffinity(0))
    pattern = Task(0, MIXED, wanted.nodes or 0, wanted.events or EVENTS, LEFT)
    seconds = None if wanted.minutes is None else wanted.minutes * 60
    total = None if seeds[1] is None else (seeds[1] - seeds[0] + 1) * len(names)
    tally = Tally()
    interrupted = False
    try:
        with Workers(jobs) as workers, _shown(tally, total, say) as show:
            for result in workers.results(tasks(seeds, names, pattern, seconds)):
                if result is not None:
                    tally.add(result)
                show(result)
        say(report.all_of(tally))
    except KeyboardInterrupt:
        interrupted = True
        say(f"interrupted\n{report.all_of(tally)}")
    _tell_failures(tally, wanted.shrink and not interrupted, say)
    say(f"for docs/simulation-ledger.md:\n{report.ledger_line(tally)}")
    if tally.failures:
        return 1
    return 130 if interrupted else 0


def _tell_failures(tally: Tally, shrinks: bool, say: Say) -> None:
    until_s = time.monotonic() + SECONDS * 2
    for result in islice(sorted(tally.failures, key=_place), report.FAILURES):
        say(report.failure(result))
        if shrinks and result.schedule and time.monotonic() < until_s:
            small = Path(result.schedule.replace(".json", "-small.json"))
            shrinks = _shrink(load(Path(result.schedule)), small, say, None)
    if len(tally.failures) > report.FAILURES:
        rest = sorted({result.task.seed for result in tally.failures})
        say(f"and {len(tally.failures) - report.FAILURES} more; all seeds that failed: {', '.join(map(str, rest))}")


def _place(result: Result) -> tuple[int, str]:
    return result.task.seed, result.task.profile


@contextmanager
def _shown(tally: Tally, total: int | None, say: Say) -> Iterator[Callable[[Result | None], None]]:
    """Give a function that shows how far it is: a bar on a terminal, else a line from time to time."""
    if sys.stdout.isatty() and find_spec("rich") is not None:
        from raftkv.simulation.report.bar import bar

        with bar(tally, total) as show:
            yield show
        return
    told_s = time.monotonic()

    def tell(result: Result | None) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= TELL_EVERY_S:
            told_s = time.monotonic()
            say(report.progress(tally))

    yield tell
