"""What was found in a history, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from raftkv.actors.messages.requests import Propose
from raftkv.simulation.checks.linearizability import SOMETHING, Not, Seen, Value, Verdict, fits
from raftkv.simulation.checks.operation import Anomaly, Operation, shown
from raftkv.store.commands import Put, PutIf

LINES = 12
"""Operations told of an order, before it is the end of the story that counts."""

KEYS = 8
"""Keys that are named, of those of one store."""

FAULTS = 20
"""Faults that are told, of those that were found."""


def of(found: Verdict, operations: Sequence[Operation]) -> Anomaly:
    """Tell of calls to one store that have no order; their labels are places in ``operations``."""
    order = tuple(operations[int(call.label)] for call in found.order)
    culprits = tuple(operations[int(call.label)] for call in found.unexplained)
    first, *others = culprits
    text = f"{_keys(found.keys)}: not linearizable\n"
    if order:
        text += f"  All that had ended before fits this order{_the_last(len(order))}:\n{_lines(order[-LINES:])}"
    text += f"  With the end of this one no order is left:\n{_lines([first])}"
    text += "".join(f"  It saw {why}.\n" for why in _reasons(found, operations))
    if others:
        text += f"  Were it forgiven, these would have no place either:\n{_lines(others)}"
    return Anomaly(text.rstrip(), culprits, order)


def undecided(found: Verdict) -> str:
    """Tell of a search that gave up."""
    return f"{_keys(found.keys)}: undecided, no order was found in {found.configurations} configurations"


def whole(operations: Sequence[Operation], faults: Sequence[Anomaly], undecided: Sequence[str]) -> str:
    """Tell of a whole history: one line where all is well."""
    counts = ", ".join(
        f"{sum(each.outcome == outcome for each in operations)} {outcome}" for outcome in ("ok", "failed", "unknown")
    )
    clients = len({operation.client for operation in operations})
    head = f"{len(operations)} operations by {clients} clients ({counts})"
    if not faults and not undecided:
        return f"{head}: linearizable, and all positions agree"
    more = [f"and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
    return "\n".join(
        [f"{head}: {_count(faults, undecided)}", *[each.text for each in faults[:FAULTS]], *more, *undecided]
    )


def _count(faults: Sequence[Anomaly], undecided: Sequence[str]) -> str:
    counts = []
    if faults:
        counts.append(f"{len(faults)} fault{'s' * (len(faults) > 1)}")
    if undecided:
        counts.append(f"{len(undecided)} undecided, which is not a pass")
    return ", ".join(counts)


def _keys(keys: Sequence[str]) -> str:
    return ", ".join(islice(keys, KEYS)) + (f" and {len(keys) - KEYS} more" if len(keys) > KEYS else "")


def _the_last(count: int) -> str:
    return f" (the last {LINES} of {count})" if count > LINES else ""


def _lines(operations: Iterable[Operation]) -> str:
    return "".join(f"    {operation}\n" for operation in operations)


def _reasons(found: Verdict, operations: Sequence[Operation]) -> list[str]:
    """Say of each key that the first culprit saw why that can't be, as far as one key alone tells it."""
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
    """Say when, in the order that there was before, a key was last as the first culprit saw it, and what came then."""
    held: Value = None
    fitting = fits(seen, None)
    ending: int | None = None
    for at, call in enumerate(found.order):
        if key in dict(call.leaves):
            held = dict(call.leaves)[key]
            fitted, fitting = fitting, fits(seen, held)
            ending = at if fitted and not fitting else ending
    if fitting:
        return ", which by itself could be"
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
    """Say why nobody can have put this value there before the one that saw it ended, if so."""
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
        return f", which only #{asked[0].number} would have written, and its condition did not hold"
    if not writers:
        return ", which nobody wrote"
    if all(writer.outcome == "failed" for writer in writers):
        return f", which only #{writers[0].number} would have written, and that was refused"
    if all(writer.outcome == "failed" or writer.began > seen_by.ended for writer in writers):
        return f", which #{min(writer.number for writer in writers if writer.outcome != 'failed')} wrote only later"
    return None
