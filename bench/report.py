"""Tables of figures in Markdown: medians over all runs, with the lowest and the highest."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.outage import Outage
from bench.throughput import Figures

HEADINGS = ("what", "a second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "errors", "leader", "follower", "client",
            "others", "load")  # fmt: skip


def figures_table(runs: Sequence[Figures]) -> str:
    """Return a table with a line for each case; ``leader`` to ``client`` are µs of processor time per answer."""
    return table(HEADINGS, [_figures_line(case, of_case) for case, of_case in by_case(runs).items()])


def by_case(runs: Sequence[Figures]) -> dict[str, list[Figures]]:
    """Return the runs of each case, in the order in which the cases were first measured."""
    found: dict[str, list[Figures]] = {}
    for figures in runs:
        found.setdefault(figures.case, []).append(figures)
    return found


def _figures_line(case: str, runs: Sequence[Figures]) -> list[str]:
    def middle(value: Callable[[Figures], float], form: str) -> str:
        return format(statistics.median(map(value, runs)), form)

    return [
        case,
        spread([run.rate for run in runs], ",.0f"),
        spread([run.p50_ms for run in runs], ".2f"),
        middle(lambda run: run.p99_ms, ".1f"),
        middle(lambda run: run.p999_ms, ".1f"),
        format(max(run.max_ms for run in runs), ".0f"),
        errors_text(run.errors for run in runs),
        middle(lambda run: run.leader_us, ".0f"),
        middle(lambda run: run.follower_us, ".0f"),
        middle(lambda run: run.load_us, ".0f"),
        spread([run.others for run in runs], ".1f"),
        spread([run.load_average for run in runs], ".1f"),
    ]


def outages_table(named: Mapping[str, Sequence[Outage]]) -> str:
    """Return a table of outages in ms, with a line for each kind."""
    headings = (
        "until a write was acknowledged",
        "rounds",
        "by any node, ms",
        "by every node, ms",
        "failed tries",
        "load",
    )
    return table(
        headings,
        [
            [
                name,
                str(len(outages)),
                spread([outage.any_ms for outage in outages], ".0f"),
                spread([outage.every_ms for outage in outages], ".0f"),
                spread([float(outage.failed) for outage in outages], ".0f"),
                spread([outage.load_average for outage in outages], ".1f"),
            ]
            for name, outages in named.items()
            if outages
        ],
    )


def comparison_table(ours: Sequence[Figures], theirs: Sequence[Figures], their_name: str) -> str:
    """Return a table with a line for each case and version.

    A ratio is taken within a round, whose two measurements follow one another directly, so a disturbance affects both.
    ``nodes`` is the processor time of all nodes in µs per answer.
    """
    headings = ("what", "version", "a second", "ratio", "p50 ms", "p99 ms", "errors", "nodes", "ratio", "others")
    lines = []
    there = by_case(theirs)
    for case, here in by_case(ours).items():
        rates = ratios([run.rate for run in here], [run.rate for run in there[case]])
        cpu = ratios([run.nodes_us for run in here], [run.nodes_us for run in there[case]])
        lines.append(_comparison_line(case, their_name, there[case], "", ""))
        lines.append(_comparison_line("", "here", here, rates, cpu))
    return table(headings, lines)


def _comparison_line(case: str, version: str, runs: Sequence[Figures], rates: str, cpu: str) -> list[str]:
    return [
        case,
        version,
        spread([run.rate for run in runs], ",.0f"),
        rates,
        spread([run.p50_ms for run in runs], ".2f"),
        spread([run.p99_ms for run in runs], ".1f"),
        errors_text(run.errors for run in runs),
        spread([run.nodes_us for run in runs], ".0f"),
        cpu,
        spread([run.others for run in runs], ".1f"),
    ]


def ratios(here: Sequence[float], there: Sequence[float]) -> str:
    """Return the spread of the ratios of paired values; empty if there are none."""
    found = [a / b for a, b in zip(here, there, strict=True) if b]
    return spread(found, ".2f") if found else ""


def spread(values: Sequence[float], form: str) -> str:
    """Return the median and, for more than one value, the lowest and the highest."""
    median = format(statistics.median(values), form)
    return median if len(values) < 2 else f"{median} ({format(min(values), form)}–{format(max(values), form)})"


def errors_text(runs: Iterable[dict[str, int]]) -> str:
    """Return the errors of all runs, counted by kind; ``0`` if there were none."""
    total: Counter[str] = Counter()
    for errors in runs:
        total.update(errors)
    return ", ".join(f"{count} {what}" for what, count in sorted(total.items())) or "0"


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns, all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return f"| {' | '.join(aligned)} |"

    return "\n".join(map(line, (headings, rule, *lines)))
