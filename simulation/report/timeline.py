"""The timeline of a run: one HTML file, which loads nothing else, to look at a verdict.

It has a lane for each client with a bar for each operation, and above these, lanes for faults and changes of leader.
Operations without a place in any order stand out, next to the explanation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest
from math import inf
from pathlib import Path
from typing import NamedTuple

import msgspec

from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    ReadResult,
)
from raftkv.simulation.checks.history import History, HistoryVerdict
from raftkv.simulation.checks.operation import NOT_REPORTED, Anomaly, Operation, shown
from raftkv.simulation.checks.violation import first_line
from raftkv.simulation.cluster.describe import condition
from raftkv.simulation.report.timeline_page import PAGE
from raftkv.simulation.run import Run, RunResult
from raftkv.store.commands import Put, PutIf, Unmatched

Mark = tuple[float, float | None, str, str]
"""From when, until when (ms; None: a moment), in which lane, and its text."""

ROW = 24
BAR = 20
GAP = 10
"""In pixels: from row to row, the height of a bar, and between two lanes."""

KEYS = 3
"""Keys that a bar names."""


class Bar(NamedTuple):
    """A bar between two times; ``attributes`` is HTML, ``label`` is text."""

    from_ms: float
    until_ms: float
    attributes: str
    label: str


class TimelineRow(NamedTuple):
    """The lane of a client or of marks: bars in rows, so that none covers another."""

    name: str
    kind: str
    rows: list[list[Bar]]


def draw(
    history: History,
    verdict: HistoryVerdict,
    marks: Iterable[Mark] = (),
    *,
    violation: str = "",
    origin: str = "",
) -> str:
    """Return the page, which loads nothing else.

    ``violation`` is what ended the run, in one line: the history by itself may be correct. ``origin`` is the name of
    the run and the command that repeats it.
    """
    marks = sorted(marks, key=lambda mark: (mark[0], mark[2], mark[3]))
    moments = sorted(_moments(history.operations, marks))
    start, end = (moments[0], moments[-1]) if moments else (0.0, 1.0)
    lanes = [*_marked(marks), *_clients(history.operations, end)]
    names, ground, bars, height = _place(lanes)
    head = violation or verdict.text.split("\n")[0]
    filled = {
        "title": escape(f"{head} ({origin})" if origin else head),
        "head": escape(head),
        "origin": f'<p class="origin">{escape(origin)}</p>' if origin else "",
        "outcome": "wrong" if violation else _outcome(verdict),
        "anomalies": "".join(_anomaly(number, anomaly) for number, anomaly in enumerate(verdict.anomalies))
        + "".join(f'<p class="undecided">{escape(line)}</p>' for line in verdict.undecided),
        "names": names,
        "lanes": ground,
        "bars": bars,
        "height": str(height),
        "data": _data(history.operations, verdict.anomalies, start, end, moments, bool(violation)),
    }
    page = PAGE
    for name, text in filled.items():
        page = page.replace(f"<!--{name}-->", text)
    return page


def save(run: Run, result: RunResult, path: Path, origin: str) -> None:
    """Write the timeline of a run to a file; ``origin`` is its name and the command that repeats it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    violation = first_line(result.violation)
    path.write_text(draw(run.history, run.history.verdict(), run.marks, violation=violation, origin=origin))


def _outcome(verdict: HistoryVerdict) -> str:
    return "undecided" if verdict.undecided and not verdict.anomalies else "ok" if verdict.ok else "wrong"


def _moments(operations: Iterable[Operation], marks: Iterable[Mark]) -> set[float]:
    moments = {moment for each in operations for moment in (each.invoked_ms, each.answered_ms) if moment < inf}
    for from_ms, until_ms, _, _ in marks:
        moments |= {from_ms, from_ms if until_ms is None else until_ms}
    return moments


def _data(
    operations: Sequence[Operation],
    anomalies: Iterable[Anomaly],
    start: float,
    end: float,
    moments: Sequence[float],
    violated: bool,
) -> str:
    """Return what the script needs besides the bars, as JSON that is safe inside HTML."""
    data = {
        "start": start,
        "end": end,
        "violated": violated,
        "moments": moments,
        "details": [_details(operation) for operation in operations],
        "keys": [operation.keys for operation in operations],
        "anomalies": [
            {
                "culprits": [each.number for each in anomaly.operations],
                "order": [each.number for each in anomaly.order],
                "keys": anomaly.operations[0].keys if anomaly.operations else (),
            }
            for anomaly in anomalies
        ],
    }
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")


# --- lanes


def _marked(marks: Sequence[Mark]) -> list[TimelineRow]:
    lanes: dict[str, list[Bar]] = {}
    for from_ms, until_ms, name, text in marks:
        kind = "moment" if until_ms is None else "span"
        attributes = f'class="mark {kind}" data-text="{escape(text)}"'
        lanes.setdefault(name, []).append(Bar(from_ms, from_ms if until_ms is None else until_ms, attributes, text))
    return [TimelineRow(name, "marks", _rows(lanes[name])) for name in sorted(lanes, key=_natural)]


def _clients(operations: Iterable[Operation], end: float) -> list[TimelineRow]:
    lanes: dict[str, list[Bar]] = {}
    for operation in operations:
        kind = "stale" if operation.kind == "stale read" else operation.kind
        attributes = f'class="operation {kind} {operation.outcome}" data-number="{operation.number}"'
        bar = Bar(operation.invoked_ms, min(operation.answered_ms, end), attributes, _label(operation))
        lanes.setdefault(operation.client, []).append(bar)
    # Clients of one kind are next to each other, kinds in the order of their first operation.
    kinds = list(dict.fromkeys(re.sub("[0-9]", "", name) for name in lanes))
    names = sorted(lanes, key=lambda name: (kinds.index(re.sub("[0-9]", "", name)), _natural(name)))
    return [TimelineRow(name, "clients", _rows(lanes[name])) for name in names]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts c10 after c9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _rows(bars: Iterable[Bar]) -> list[list[Bar]]:
    """Put each bar into the first row with room for it."""
    rows: list[list[Bar]] = []
    for bar in bars:
        # Two marks at one moment would cover each other.
        free = (row for row in rows if row[-1].until_ms <= bar.from_ms and row[-1].from_ms < bar.from_ms)
        row = next(free, None)
        if row is None:
            rows.append([bar])
        else:
            row.append(bar)
    return rows


def _place(lanes: Iterable[TimelineRow]) -> tuple[str, str, str, int]:
    """Return the names of the lanes, their background, their bars, and the total height."""
    names, ground, drawn = [], [], []
    top = GAP
    kind = ""
    for lane in lanes:
        if kind and lane.kind != kind:
            top += GAP
        kind = lane.kind
        height = len(lane.rows) * ROW
        name = escape(lane.name)
        names.append(f'<div class="name {kind}" style="top:{top}px;height:{height}px" title="{name}">{name}</div>')
        ground.append(f'<rect class="lane {kind}" x="0" y="{top - 3}" width="100%" height="{height + 2}"/>')
        for number, row in enumerate(lane.rows):
            y = top + number * ROW
            for bar, after in zip(row, [*row[1:], None], strict=True):
                until = "" if after is None else f' data-room="{after.from_ms!r}"'
                drawn.append(
                    f'<svg {bar.attributes} y="{y}" height="{BAR}" data-from="{bar.from_ms!r}" '
                    f'data-until="{bar.until_ms!r}"{until}><rect width="100%" height="100%" rx="3"/>'
                    f'<text x="5" y="14">{escape(bar.label)}</text></svg>'
                )
        top += height + GAP
    return "".join(names), "".join(ground), "\n".join(drawn), top


# --- text


def _label(operation: Operation) -> str:
    """Return the label of a bar, as short as possible."""
    if isinstance(operation.request, Propose):
        results = operation.reply.results if isinstance(operation.reply, Applied) else ()
        parts = [
            (f"{command.key}={shown(command.value)}" if isinstance(command, Put | PutIf) else f"del {command.key}")
            + condition(command)
            + " ✗" * isinstance(result, Unmatched)
            for command, result in zip_longest(operation.request.commands, results[: len(operation.request.commands)])
        ]
    elif isinstance(operation.reply, ReadResult):
        items = [None if item is None else item.value for item in operation.reply.items]
        keys = [query.key for query in operation.request.queries]
        parts = [f"{key}→{'∅' if value is None else shown(value)}" for key, value in zip(keys, items, strict=False)]
    else:
        parts = [f"{query.key}→?" for query in operation.request.queries]
    return " ".join(parts[:KEYS]) + (" …" if len(parts) > KEYS else "")


def _details(operation: Operation) -> list[str]:
    """Return the lines that are shown while the pointer is on an operation."""
    lasted = operation.answered_ms - operation.invoked_ms
    times = f"{operation.invoked_ms:.3f} ms to "
    times += f"{operation.answered_ms:.3f} ms ({lasted:.3f} ms)" if lasted < inf else "the end, without an answer"
    reply = operation.reply
    place = []
    if isinstance(reply, Applied | ReadResult):
        place = [f"index {reply.index}"] if reply.index != NOT_REPORTED else []
        place += [f"revision {reply.revision}"] if reply.revision != NOT_REPORTED else []
    answered = f"{operation.outcome}{': ' + operation.answer if operation.answer else ''}"
    return [
        f"#{operation.number} {operation.kind}, {operation.client} at {operation.node}",
        operation.describe(),
        ", ".join([answered, *place]),
        times,
    ]


def _anomaly(number: int, anomaly: Anomaly) -> str:
    """Return an anomaly as an element to click on: its first line, and the explanation below it."""
    head, _, explanation = anomaly.text.partition("\n")
    # The number of an operation becomes a link to its bar.
    linked = re.sub("#([0-9]+)", r'<a data-to="\1">#\1</a>', escape(explanation, quote=False))
    explanation = f"<pre>{linked}</pre>" if explanation else ""
    return (
        f'<details class="anomaly" data-anomaly="{number}"{" open" * (number == 0)}>'
        f"<summary>{escape(head)}</summary>{explanation}</details>"
    )
