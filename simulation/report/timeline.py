"""A history as a picture: one HTML file that needs nothing else, to look at what a verdict says.

A lane for each client with a bar for each operation, and a band above for what happened meanwhile: faults, crashes,
changes of leader. Operations without a place stand out, and the story is told beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest
from math import inf
from typing import NamedTuple

import msgspec

from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    ReadResult,
)
from raftkv.simulation.checks.history import History, HistoryVerdict
from raftkv.simulation.checks.operation import NOT_TOLD, Anomaly, Operation, condition, shown
from raftkv.simulation.report.timeline_page import PAGE
from raftkv.store.commands import Put, PutIf, Unmatched

Mark = tuple[float, float | None, str, str]
"""From when, until when (milliseconds; None: at one moment), in which lane, and what."""

ROW = 24
BAR = 20
GAP = 10
"""Pixels from row to row, of a bar, and between two lanes."""

KEYS = 3
"""Keys that are named in a bar."""


class Bar(NamedTuple):
    """What is drawn between two times; ``attributes`` and ``label`` are ready for HTML."""

    from_ms: float
    until_ms: float
    attributes: str
    label: str


class TimelineRow(NamedTuple):
    """Bars in rows, so that none lies on another."""

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
    """Return the page. It can be opened from a disk: it loads nothing.

    ``violation`` is what ended the life, in one line: the history alone may well be good. ``origin`` says what was
    lived, and how to live it again.
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
        "faults": "".join(_told(number, fault) for number, fault in enumerate(verdict.faults))
        + "".join(f'<p class="undecided">{escape(line)}</p>' for line in verdict.undecided),
        "names": names,
        "lanes": ground,
        "bars": bars,
        "height": str(height),
        "data": _data(history.operations, verdict.faults, start, end, moments, bool(violation)),
    }
    page = PAGE
    for name, text in filled.items():
        page = page.replace(f"<!--{name}-->", text)
    return page


def _outcome(verdict: HistoryVerdict) -> str:
    return "undecided" if verdict.undecided and not verdict.faults else "ok" if verdict.ok else "wrong"


def _moments(operations: Iterable[Operation], marks: Iterable[Mark]) -> set[float]:
    moments = {moment for each in operations for moment in (each.invoked_ms, each.answered_ms) if moment < inf}
    for from_ms, until_ms, _, _ in marks:
        moments |= {from_ms, from_ms if until_ms is None else until_ms}
    return moments


def _data(
    operations: Sequence[Operation],
    faults: Iterable[Anomaly],
    start: float,
    end: float,
    moments: Sequence[float],
    violated: bool,
) -> str:
    """Return what the script needs beside the bars, as JSON that can stand in HTML."""
    data = {
        "start": start,
        "end": end,
        "violated": violated,
        "moments": moments,
        "told": [_details(operation) for operation in operations],
        "keys": [operation.keys for operation in operations],
        "faults": [
            {
                "culprits": [each.number for each in fault.operations],
                "order": [each.number for each in fault.order],
                "keys": fault.operations[0].keys if fault.operations else (),
            }
            for fault in faults
        ],
    }
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")


# --- lanes


def _marked(marks: Sequence[Mark]) -> list[TimelineRow]:
    lanes: dict[str, list[Bar]] = {}
    for from_ms, until_ms, name, text in marks:
        kind = "moment" if until_ms is None else "span"
        attributes = f'class="mark {kind}" data-told="{escape(text)}"'
        lanes.setdefault(name, []).append(Bar(from_ms, from_ms if until_ms is None else until_ms, attributes, text))
    return [TimelineRow(name, "marks", _rows(lanes[name])) for name in sorted(lanes, key=_natural)]


def _clients(operations: Iterable[Operation], end: float) -> list[TimelineRow]:
    lanes: dict[str, list[Bar]] = {}
    for operation in operations:
        kind = "stale" if operation.kind == "stale read" else operation.kind
        attributes = f'class="operation {kind} {operation.outcome}" data-number="{operation.number}"'
        bar = Bar(operation.invoked_ms, min(operation.answered_ms, end), attributes, _label(operation))
        lanes.setdefault(operation.client, []).append(bar)
    # Clients of one kind stand together; those who came first stand first.
    kinds = list(dict.fromkeys(re.sub("[0-9]", "", name) for name in lanes))
    names = sorted(lanes, key=lambda name: (kinds.index(re.sub("[0-9]", "", name)), _natural(name)))
    return [TimelineRow(name, "clients", _rows(lanes[name])) for name in names]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts c10 behind c9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _rows(bars: Iterable[Bar]) -> list[list[Bar]]:
    """Put each bar into the first row where there is room for it."""
    rows: list[list[Bar]] = []
    for bar in bars:
        # Two moments at one time would hide each other.
        free = (row for row in rows if row[-1].until_ms <= bar.from_ms and row[-1].from_ms < bar.from_ms)
        row = next(free, None)
        if row is None:
            rows.append([bar])
        else:
            row.append(bar)
    return rows


def _place(lanes: Iterable[TimelineRow]) -> tuple[str, str, str, int]:
    """Return the lanes' names, what is drawn below and what above the lines of the grid, and the height of all."""
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


# --- words


def _label(operation: Operation) -> str:
    """Return what is written on a bar: as short as can be understood."""
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
    """Return what is told of an operation that is pointed at, line by line."""
    lasted = operation.answered_ms - operation.invoked_ms
    times = f"{operation.invoked_ms:.3f} ms to "
    times += f"{operation.answered_ms:.3f} ms ({lasted:.3f} ms)" if lasted < inf else "the end, without an answer"
    reply = operation.reply
    place = []
    if isinstance(reply, Applied | ReadResult):
        place = [f"index {reply.index}"] if reply.index != NOT_TOLD else []
        place += [f"revision {reply.revision}"] if reply.revision != NOT_TOLD else []
    answered = f"{operation.outcome}{': ' + operation.answer if operation.answer else ''}"
    return [
        f"#{operation.number} {operation.kind}, {operation.client} at {operation.node}",
        operation.told(),
        ", ".join([answered, *place]),
        times,
    ]


def _told(number: int, fault: Anomaly) -> str:
    """Return a fault as something to click at: its first line, and the story below it."""
    head, _, story = fault.text.partition("\n")
    # What looks like the number of an operation leads to it.
    linked = re.sub("#([0-9]+)", r'<a data-to="\1">#\1</a>', escape(story, quote=False))
    story = f"<pre>{linked}</pre>" if story else ""
    return (
        f'<details class="fault" data-fault="{number}"{" open" * (number == 0)}>'
        f"<summary>{escape(head)}</summary>{story}</details>"
    )
