"""The progress bar of a sweep, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raftkv.simulation.report import summary
from raftkv.simulation.sweep import Tally, TaskResult


@contextmanager
def bar(tally: Tally, total: int | None) -> Iterator[Callable[[TaskResult | None], None]]:
    """Show a bar while the context lasts; yield a function that updates it."""
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=total)

        def show(result: TaskResult | None) -> None:
            progress.update(task, completed=tally.runs.total(), description=summary.pace(tally))
            if result is not None and result.violation:
                progress.console.print(summary.of_failure(result), markup=False, highlight=False, soft_wrap=True)

        yield show
