"""The bar that shows on a terminal how far many lives are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raftkv.simulation.report import report
from raftkv.simulation.sweep import Result, Tally


@contextmanager
def bar(tally: Tally, total: int | None) -> Iterator[Callable[[Result | None], None]]:
    """Show a bar as long as the context lasts; give a function that brings it up to date."""
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=total)

        def show(result: Result | None) -> None:
            progress.update(task, completed=tally.lives.total(), description=report.pace(tally))
            if result is not None and result.violation:
                progress.console.print(report.failure(result), markup=False, highlight=False, soft_wrap=True)

        yield show
