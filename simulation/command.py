"""The command `simulate`: one run in detail, or a sweep of many."""

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
from raftkv.simulation.checks.violation import first_line
from raftkv.simulation.report import summary, timeline
from raftkv.simulation.run import EVENTS, Run, RunPlan
from raftkv.simulation.schedule import load, save
from raftkv.simulation.shrink import SECONDS, shrink
from raftkv.simulation.sweep import COMMAND, MIXED, Origin, Tally, Task, TaskResult, parse_seeds, profiles, tasks
from raftkv.simulation.workers import Workers

DIRECTORY = ".raftkv-simulation"
"""Where failures leave their schedules and timelines."""

PROGRESS_EVERY_S = 30.0
"""How often a sweep prints a line of progress if there is no terminal to show a bar."""

Say = Callable[[str], None]


class SimulateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command line; None and False where an option is not given."""

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


def simulate(options: SimulateOptions, say: Say) -> int:
    """Run and return 0 if every run passed, else 1; raises ``SettingsError`` for options that do not fit together."""
    # The log lines of nodes carry real time; the trace has the same events in virtual time.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return _simulate(options, say)
    finally:
        logging.disable(before)


def _simulate(options: SimulateOptions, say: Say) -> int:
    given = [name for name in ("seed", "seeds", "schedule") if getattr(options, name) is not None]
    if len(given) > 1:
        raise SettingsError(f"--{given[0]} and --{given[1]} exclude each other")
    if given in (["seed"], ["schedule"]):
        _refuse(options, f"--{given[0]}", "jobs", "minutes")
        return _run_one(options, say)
    if not given and options.minutes is None:
        raise SettingsError("--seed, --seeds, --schedule or --minutes is needed")
    _refuse(options, "--seeds", "trace", "html", "save")
    return _run_many(options, say)


def _refuse(options: SimulateOptions, by: str, *names: str) -> None:
    for name in names:
        if getattr(options, name):
            raise SettingsError(f"--{name} does not go with {by}")


def _profiles(options: SimulateOptions) -> tuple[str, ...]:
    try:
        return profiles(options.faults)
    except ValueError as error:
        raise SettingsError(f"--faults: {error}") from None


# --- one run


def _run_one(options: SimulateOptions, say: Say) -> int:
    plan, name, origin = _plan(options)
    for option, path in (("html", options.html), ("save", options.save)):
        if path is not None:
            _check_writable(option, Path(path))
    run = Run(plan, write=say if options.trace else None)
    result = run.run()
    executed = msgspec.structs.replace(plan, faults=result.faults)
    say(summary.of_run(result))
    html, schedule = options.html, options.save
    if result.ok:
        say("OK")
    else:
        say(f"VIOLATION: {result.violation}")
        say(f"repeat with: {origin.command}")
        html, schedule = html or f"{DIRECTORY}/{name}.html", schedule or f"{DIRECTORY}/{name}.json"
    if schedule:
        save(Path(schedule), executed, first_line(result.violation))
        say(f"schedule: {schedule}")
    if html:
        timeline.save(run, result, Path(html), str(origin))
        say(f"timeline: {html}")
    if options.shrink and not result.ok:
        _shrink(plan, Path(f"{DIRECTORY}/{name}-small.json"), say, say)
    return 0 if result.ok else 1


def _check_writable(option: str, path: Path) -> None:
    """Raise ``SettingsError`` before the run, rather than after it, if a file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opening a pipe or a terminal would already have an effect.
        if not path.exists() or path.is_file() or path.is_dir():
            is_new = not path.exists()
            path.open("ab").close()
            if is_new:
                path.unlink()
    except OSError as error:
        raise SettingsError(f"--{option}: cannot write {path}: {error.strerror}") from None


def _plan(options: SimulateOptions) -> tuple[RunPlan, str, Origin]:
    """Return the plan, the name of its files, and its origin."""
    if options.schedule is None:
        assert options.seed is not None
        names = _profiles(options)
        if len(names) > 1:
            raise SettingsError("--faults: each goes with --seeds only")
        task = Task(options.seed, names[0], options.nodes or 0, options.events or EVENTS)
        return task.plan(), task.name, task.origin
    if options.faults != MIXED:
        raise SettingsError("--faults does not go with --schedule")
    try:
        schedule = load(Path(options.schedule))
    except OSError as error:
        raise SettingsError(f"--schedule {options.schedule}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"--schedule {options.schedule} {error}") from None
    changed = {"nodes": options.nodes or schedule.nodes, "events": options.events or schedule.events}
    command = f"{COMMAND} --schedule {shlex.quote(options.schedule)}"
    command += f" --nodes {options.nodes}" if options.nodes else ""
    command += f" --events {options.events}" if options.events else ""
    path = Path(options.schedule)
    origin = Origin(f"seed {schedule.seed}, {path.name}", command)
    return msgspec.structs.replace(schedule, **changed), path.stem, origin


def _shrink(plan: RunPlan, path: Path, say: Say, progress: Say | None) -> bool:
    """Save and print the smallest plan found; return whether the search ended without Ctrl-C."""
    shrunk = shrink(plan, report=None if progress is None else lambda line: progress(f"  … {line}"))
    save(path, shrunk.plan, first_line(shrunk.result.violation))
    if shrunk.interrupted:
        say("  interrupted; this is the smallest so far")
    say(summary.of_shrunk(shrunk, path))
    return not shrunk.interrupted


# --- a sweep


def _run_many(options: SimulateOptions, say: Say) -> int:
    try:
        seeds = parse_seeds("0-" if options.seeds is None else options.seeds)
    except ValueError as error:
        raise SettingsError(f"--seeds: {error}") from None
    names = _profiles(options)
    if seeds[1] is None and options.minutes is None:
        raise SettingsError("--seeds without a last one goes with --minutes only")
    jobs = options.jobs or len(os.sched_getaffinity(0))
    pattern = Task(0, MIXED, options.nodes or 0, options.events or EVENTS, DIRECTORY)
    seconds = None if options.minutes is None else options.minutes * 60
    total = None if seeds[1] is None else (seeds[1] - seeds[0] + 1) * len(names)
    tally = Tally()
    interrupted = False
    try:
        with Workers(jobs) as workers, _progress(tally, total, say) as show:
            for result in workers.results(tasks(seeds, names, pattern, seconds)):
                if result is not None:
                    tally.add(result)
                show(result)
        say(summary.of_sweep(tally))
    except KeyboardInterrupt:
        interrupted = True
        say(f"interrupted\n{summary.of_sweep(tally)}")
    _report_failures(tally, options.shrink and not interrupted, say)
    if tally.seeds:
        say(f"for docs/simulation-ledger.md:\n{summary.ledger_line(tally)}")
    if tally.failures:
        return 1
    return 130 if interrupted else 0


def _report_failures(tally: Tally, shrinks: bool, say: Say) -> None:
    until_s = time.monotonic() + SECONDS * 2
    for result in islice(sorted(tally.failures, key=_order), summary.FAILURES):
        say(summary.of_failure(result))
        if shrinks and result.schedule and time.monotonic() < until_s:
            small = Path(result.schedule.replace(".json", "-small.json"))
            shrinks = _shrink(load(Path(result.schedule)), small, say, None)
    if len(tally.failures) > summary.FAILURES:
        rest = sorted({result.task.seed for result in tally.failures})
        say(f"and {len(tally.failures) - summary.FAILURES} more; all seeds that failed: {', '.join(map(str, rest))}")


def _order(result: TaskResult) -> tuple[int, str]:
    return result.task.seed, result.task.profile


@contextmanager
def _progress(tally: Tally, total: int | None, say: Say) -> Iterator[Callable[[TaskResult | None], None]]:
    """Yield a function that shows the progress: a bar on a terminal, else a line from time to time."""
    if sys.stdout.isatty() and find_spec("rich") is not None:
        from raftkv.simulation.report.bar import bar

        with bar(tally, total) as show:
            yield show
        return
    last_s = time.monotonic()

    def show_line(result: TaskResult | None) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= PROGRESS_EVERY_S:
            last_s = time.monotonic()
            say(summary.progress(tally))

    yield show_line
