"""The verdict on a history in words: which operations have no place in any order, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from raftkv.actors.messages.requests import Propose
from raftkv.simulation.checks.linearizability import SOMETHING, Not, Seen, Value, Verdict, fits
from raftkv.simulation.checks.operation import Anomaly, Operation, shown
from raftkv.store.commands import Put, PutIf

LINES = 12
"""Operations of an order that are listed; of a longer one, the last."""

KEYS = 8
"""Keys of a group that are named."""

ANOMALIES = 20
"""Anomalies that are described; of more, only the number."""


def of(found: Verdict, operations: Sequence[Operation]) -> Anomaly:
    """Describe a group of keys whose calls have no order; labels are positions in ``operations``."""
    order = tuple(operations[int(call.label)] for call in found.order)
    culprits = tuple(operations[int(call.label)] for call in found.unexplained)
    first, *others = culprits
    text = f"{_keys(found.keys)}: not linearizable\n"
    if order:
        text += (
            f"  All operations that had ended before fit this order{_the_last(len(order))}:\n{_lines(order[-LINES:])}"
        )
    text += f"  With the end of this operation, no order is left:\n{_lines([first])}"
    text += "".join(f"  It saw {why}.\n" for why in _reasons(found, operations))
    if others:
        text += f"  Without it, these would have no place either:\n{_lines(others)}"
    return Anomaly(text.rstrip(), culprits, order)


def undecided(found: Verdict) -> str:
    """Describe a group of keys for which the search gave up."""
    return f"{_keys(found.keys)}: undecided, no order was found in {found.configurations} configurations"


def whole(operations: Sequence[Operation], anomalies: Sequence[Anomaly], undecided: Sequence[str]) -> str:
    """Describe a whole history: one line if there is no anomaly."""
    counts = ", ".join(
        f"{sum(each.outcome == completion for each in operations)} {completion}"
        for completion in ("ok", "failed", "unknown")
    )
    clients = len({operation.client for operation in operations})
    head = f"{len(operations)} operations by {clients} clients ({counts})"
    if not anomalies and not undecided:
        return f"{head}: linearizable, and all indexes and revisions agree"
    more = [f"and {len(anomalies) - ANOMALIES} more"] if len(anomalies) > ANOMALIES else []
    return "\n".join(
        [f"{head}: {_count(anomalies, undecided)}", *[each.text for each in anomalies[:ANOMALIES]], *more, *undecided]
    )


def _count(anomalies: Sequence[Anomaly], undecided: Sequence[str]) -> str:
    counts = []
    if anomalies:
        counts.append(f"{len(anomalies)} anomal{'ies' if len(anomalies) > 1 else 'y'}")
    if undecided:
        counts.append(f"{len(undecided)} undecided, which does not count as passed")
    return ", ".join(counts)


def _keys(keys: Sequence[str]) -> str:
    return ", ".join(islice(keys, KEYS)) + (f" and {len(keys) - KEYS} more" if len(keys) > KEYS else "")


def _the_last(count: int) -> str:
    return f" (the last {LINES} of {count})" if count > LINES else ""


def _lines(operations: Iterable[Operation]) -> str:
    return "".join(f"    {operation}\n" for operation in operations)


def _reasons(found: Verdict, operations: Sequence[Operation]) -> list[str]:
    """Explain, for each key that the first culprit saw, why it cannot have seen that, if one key suffices."""
    culprit = found.unexplained[0]
    reasons = []
    for key, seen in culprit.sees:
        source = _no_source(key, seen, operations[int(culprit.label)], operations) if isinstance(seen, bytes) else None
        reasons.append(_saw(key, seen) + (source or _too_late(key, seen, found, operations)))
    return reasons


def _saw(key: str, seen: Seen) -> str:
    if seen == SOMETHING:
        return f"{key} there"
    return f"{key} without {shown(seen.value)}" if isinstance(seen, Not) else f"{key} = {shown(seen)}"


def _too_late(key: str, seen: Seen, found: Verdict, operations: Sequence[Operation]) -> str:
    """Say when, in the order before, a key last was as the first culprit saw it, and what changed it."""
    held: Value = None
    fitting = fits(seen, None)
    ending: int | None = None
    for at, call in enumerate(found.order):
        if key in dict(call.leaves):
            held = dict(call.leaves)[key]
            fitted, fitting = fitting, fits(seen, held)
            ending = at if fitted and not fitting else ending
    if fitting:
        return ", which is possible by itself"
    if ending is None:
        return ", but in that order it never was"
    after = [call for call in found.order[ending:] if call.returned < found.unexplained[0].invoked]
    changed = found.order[ending]
    text = f", but in that order #{operations[int(changed.label)].number} left {shown(dict(changed.leaves)[key])} there"
    if changed in after:
        return f"{text}, and had ended before this began"
    if after:
        return f"{text}, and #{operations[int(after[0].label)].number}, after it, had ended before this began"
    return text


def _no_source(key: str, value: bytes, seen_by: Operation, operations: Sequence[Operation]) -> str | None:
    """Say why no operation can have written this value before the one that saw it ended, or None."""
    asked = [
        operation
        for operation in operations
        if isinstance(operation.request, Propose)
        and any(
            isinstance(each, Put | PutIf) and (each.key, each.value) == (key, value)
            for each in operation.request.commands
        )
    ]
    writers = [each for each in asked if any((put.key, put.value) == (key, value) for put in each.puts)]
    if asked and not writers:
        return f", which only #{asked[0].number} could have written, but its condition did not hold"
    if not writers:
        return ", which no operation wrote"
    if all(writer.outcome == "failed" for writer in writers):
        return f", which only #{writers[0].number} could have written, but it was refused"
    if all(writer.outcome == "failed" or writer.began > seen_by.ended for writer in writers):
        return f", which #{min(writer.number for writer in writers if writer.outcome != 'failed')} wrote only later"
    return None
