"""What is told of lives: of one, of many while they are lived and afterwards, and the line for the ledger."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from raftkv import __version__
from raftkv.simulation.faults.faults import KINDS
from raftkv.simulation.run import RunResult
from raftkv.simulation.shrink import Shrunk, counted, first_line, kind_of
from raftkv.simulation.sweep import Result, Tally

FAILURES = 5
"""How many failures are told in full."""


def one(outcome: RunResult) -> str:
    """Return what became of a life, but for its violation."""
    return "\n".join(
        [
            f"seed {outcome.seed}: {counted(outcome.nodes, 'node')}, {counted(outcome.events, 'event')} in "
            f"{outcome.virtual_ms / 1000:.1f} s of virtual time, {counted(outcome.elections, 'election')}",
            f"faults: {by_class(Counter(fault.kind for fault in outcome.faults))}",
            f"answers: {_counts(outcome.answers)}",
        ]
    )


def by_class(kinds: Mapping[str, int]) -> str:
    """Return how many faults there were, by class and kind."""
    told = []
    for name, of_class in KINDS.items():
        here = {kind: kinds[kind] for kind in of_class if kinds.get(kind)}
        if here:
            told.append(f"{name} {sum(here.values()):,} ({_counts(here)})")
    return ", ".join(told) or "none"


def _counts(counts: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda item: -item[1])) or "none"
    )


def progress(tally: Tally) -> str:
    """Return in one line how far it is."""
    return f"{lives(tally)}, {counted(tally.events, 'event')}, {pace(tally)}"


def lives(tally: Tally) -> str:
    """Return how many lives were lived."""
    return "1 life" if tally.lives.total() == 1 else f"{tally.lives.total():,} lives"


def pace(tally: Tally) -> str:
    """Return how quickly it goes, and how well."""
    return (
        f"{tally.lives_per_minute:,.0f} lives/min, {tally.events_per_minute_and_core:,.0f} events/min and core, "
        f"{len(tally.failures)} failed"
    )


def failure(result: Result) -> str:
    """Return what went wrong, and how to see it again."""
    lines = [
        f"FAILED: seed {result.task.seed}, {result.task.profile}: {first_line(result.violation)}",
        f"  again:    {result.task.command()}",
    ]
    if result.schedule:
        lines += [f"  schedule: {result.schedule}", f"  picture:  {result.picture}"]
    return "\n".join(lines)


def smaller(shrunk: Shrunk, path: Path) -> str:
    """Return what is left of a plan that was made smaller."""
    faults = "\n".join(f"    {fault.at_ms:10.3f} ms: {fault}" for fault in shrunk.plan.faults)
    return (
        f"  smaller:  python -m raftkv simulate --schedule {path}\n"
        f"    {counted(shrunk.plan.nodes, 'node')}, {counted(len(shrunk.plan.faults), 'fault')}, "
        f"{counted(shrunk.outcome.events, 'event')}, "
        f"found in {counted(shrunk.runs, 'run')}: {first_line(shrunk.outcome.violation)}"
        + (f"\n{faults}" if faults else "")
    )


def all_of(tally: Tally) -> str:
    """Return what came of all lives."""
    told = "; ".join(f"{name} {number:,}" for name, number in tally.lives.items())
    lines = [
        f"{lives(tally)} of clusters, {seeds_of(tally)} ({told or 'none'}), in {tally.minutes:.1f} min: "
        f"{counted(len(tally.failures), 'failure') if tally.failures else 'no failures'}",
        f"  {counted(tally.events, 'event')}, {tally.virtual_ms / 3_600_000:,.1f} h of virtual time",
        f"  {tally.lives_per_minute:,.0f} lives/min, {tally.events_per_minute_and_core:,.0f} events/min and core",
        f"  faults: {by_class(tally.faults)}",
        f"  answers: {_counts(tally.answers)}",
    ]
    return "\n".join(lines)


def seeds_of(tally: Tally) -> str:
    """Return which seeds these were."""
    return f"seeds {min(tally.seeds)} to {max(tally.seeds)}" if tally.seeds else "no seeds"


def ledger_line(tally: Tally) -> str:
    """Return a row for the table in docs/simulation-ledger.md: date, build, seeds, lives, events, findings, fixes."""
    kinds = Counter(kind_of(result.violation) for result in tally.failures)
    profiles = ", ".join(tally.lives)
    findings = "; ".join(f"{number} x {kind}" for kind, number in kinds.items()) or "none"
    cells = [
        date.today().isoformat(),
        build(),
        f"{seeds_of(tally).removeprefix('seeds ')} ({profiles})",
        f"{tally.lives.total():,}",
        f"{tally.events:,}",
        findings,
        "",
    ]
    return f"| {' | '.join(cells)} |"


def build() -> str:
    """Return which build this is: the commit, with a "+" if anything differs from it, or the version."""
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
