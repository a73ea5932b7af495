"""Summaries in text: of one run, of a sweep while it goes on and at its end, and the line for the ledger."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from raftkv import __version__
from raftkv.simulation.checks.violation import first_line, kind_of
from raftkv.simulation.cluster.describe import counted
from raftkv.simulation.faults.faults import KINDS
from raftkv.simulation.run import RunResult
from raftkv.simulation.shrink import Shrunk
from raftkv.simulation.sweep import Tally, TaskResult

FAILURES = 5
"""How many failures a sweep prints in full."""


def of_run(result: RunResult) -> str:
    """Return the result of a run, without its violation."""
    return "\n".join(
        [
            f"seed {result.seed}: {counted(result.nodes, 'node')}, {counted(result.events, 'event')} in "
            f"{result.virtual_ms / 1000:.1f} s of virtual time, {counted(result.elections, 'election')}",
            f"faults: {by_class(Counter(fault.kind for fault in result.faults))}",
            f"answers: {_counts(result.answers)}",
        ]
    )


def by_class(kinds: Mapping[str, int]) -> str:
    """Return how many faults there were, by class and kind."""
    parts = []
    for name, of_class in KINDS.items():
        counts = {kind: kinds[kind] for kind in of_class if kinds.get(kind)}
        if counts:
            parts.append(f"{name} {sum(counts.values()):,} ({_counts(counts)})")
    return ", ".join(parts) or "none"


def _counts(counts: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda item: -item[1])) or "none"
    )


def progress(tally: Tally) -> str:
    """Return the progress of a sweep in one line."""
    return f"{counted(tally.runs.total(), 'run')}, {counted(tally.events, 'event')}, {pace(tally)}"


def pace(tally: Tally) -> str:
    """Return the speed of a sweep, and how many runs have failed."""
    return f"{_speed(tally)}, {len(tally.failures)} failed"


def _speed(tally: Tally) -> str:
    return f"{tally.runs_per_minute:,.0f} runs/min, {tally.events_per_minute_and_core:,.0f} events/min and core"


def of_failure(result: TaskResult) -> str:
    """Return the violation of a failed run, and how to see it again."""
    lines = [
        f"FAILED: seed {result.task.seed}, {result.task.profile}: {first_line(result.violation)}",
        f"  repeat:   {result.task.command()}",
    ]
    if result.schedule:
        lines += [f"  schedule: {result.schedule}", f"  timeline: {result.picture}"]
    return "\n".join(lines)


def of_shrunk(shrunk: Shrunk, path: Path) -> str:
    """Return a plan that was made smaller, and how to run it."""
    faults = "\n".join(f"    {fault.at_ms:10.3f} ms: {fault}" for fault in shrunk.plan.faults)
    return (
        f"  smaller:  python -m raftkv simulate --schedule {path}\n"
        f"    {counted(shrunk.plan.nodes, 'node')}, {counted(len(shrunk.plan.faults), 'fault')}, "
        f"{counted(shrunk.result.events, 'event')}, "
        f"found in {counted(shrunk.runs, 'run')}: {first_line(shrunk.result.violation)}"
        + (f"\n{faults}" if faults else "")
    )


def of_sweep(tally: Tally) -> str:
    """Return the sums over all runs of a sweep."""
    profiles = "; ".join(f"{name} {number:,}" for name, number in tally.runs.items())
    lines = [
        f"{counted(tally.runs.total(), 'run')}, {seeds_of(tally)} ({profiles or 'none'}), in {tally.minutes:.1f} min: "
        f"{counted(len(tally.failures), 'failure') if tally.failures else 'no failures'}",
        f"  {counted(tally.events, 'event')}, {tally.virtual_ms / 3_600_000:,.1f} h of virtual time",
        f"  {_speed(tally)}",
        f"  faults: {by_class(tally.faults)}",
        f"  answers: {_counts(tally.answers)}",
    ]
    return "\n".join(lines)


def seeds_of(tally: Tally) -> str:
    """Return the range of the seeds."""
    return f"seeds {min(tally.seeds)} to {max(tally.seeds)}" if tally.seeds else "no seeds"


def ledger_line(tally: Tally) -> str:
    """Return a row for the table in docs/simulation-ledger.md: date, build, seeds, runs, events, findings, fixes."""
    kinds = Counter(kind_of(result.violation) for result in tally.failures)
    profiles = ", ".join(tally.runs)
    findings = "; ".join(f"{number} x {kind}" for kind, number in kinds.items()) or "none"
    cells = [
        date.today().isoformat(),
        build(),
        f"{seeds_of(tally).removeprefix('seeds ')} ({profiles})",
        f"{tally.runs.total():,}",
        f"{tally.events:,}",
        findings,
        "",
    ]
    return f"| {' | '.join(cells)} |"


def build() -> str:
    """Return the commit of the source, with a "+" if files differ from it; without git, the version."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return f"{commit}+" if _git("status", "--porcelain") else commit
    except (OSError, subprocess.CalledProcessError):
        return __version__


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    return subprocess.run(
        ["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()
