"""What clients did and saw, and whether a store that keeps its promises could have shown them that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

from tests.support.linearizability import Call, Value, linearize

SHOWN = 12
"""Operations told of a history that can't be explained, on either side of where it goes wrong."""

Outcome = Literal["ok", "failed", "unknown"]


@dataclass(slots=True)
class Operation:
    """One request for a key: ``value`` is what it wrote, or what it read.

    ``failed`` was certainly not done. ``unknown`` may have been done since ``invoked_s``, or may yet be; that is also
    what it is until there is an answer.
    """

    action: Literal["read", "write"]
    key: str
    value: Value
    node: str
    client: str
    invoked_s: float
    answered_s: float = inf
    outcome: Outcome = "unknown"
    answer: str = ""
    """The answer's status, or why there was none."""

    def __str__(self) -> str:
        """Return it as one line."""
        end = f"{self.answered_s:.6f}" if self.answered_s < inf else "never"
        return (
            f"{self.invoked_s:.6f} to {end}  {self.client:>8} through {self.node}: {self.action} {self.key} "
            f"{self.value!r} {self.outcome} ({self.answer})"
        )


class History:
    """Operations in the order in which they began. No two writes write the same value."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def keys(self) -> list[str]:
        """Return the keys that anybody tried to write, in order."""
        return sorted({operation.key for operation in self.operations if operation.action == "write"})

    def faults(self, finals: Mapping[str, Mapping[str, Value]]) -> list[str]:
        """Return what is wrong, where ``finals`` is what each node has for each key when all is over."""
        by_key: dict[str, list[Operation]] = defaultdict(list)
        for operation in self.operations:
            by_key[operation.key].append(operation)
        faults = []
        for key, operations in sorted(by_key.items()):
            final = {node: values[key] for node, values in finals.items()}
            faults += _faults_of_key(key, operations, final)
        return faults


def _faults_of_key(key: str, operations: list[Operation], final: Mapping[str, Value]) -> list[str]:
    faults = []
    writes = [operation for operation in operations if operation.action == "write"]
    possible = {None} | {write.value for write in writes if write.outcome != "failed"}
    read = [operation for operation in operations if operation.action == "read" and operation.outcome == "ok"]
    faults += [f"{key}: a value that nobody wrote: {each}" for each in read if each.value not in possible]
    strange = {node: value for node, value in final.items() if value not in possible}
    faults += [f"{key}: {node} has {value!r}, which nobody wrote" for node, value in strange.items()]
    if len(set(final.values())) > 1:
        faults.append(f"{key}: the nodes differ in the end: {dict(final)}")
    acknowledged = [write for write in writes if write.outcome == "ok"]
    if acknowledged and None in final.values():
        faults.append(f"{key}: acknowledged and lost, the nodes have {dict(final)}: {acknowledged[-1]}")
    return faults or _order_faults(key, operations, final)


def _order_faults(key: str, operations: list[Operation], final: Mapping[str, Value]) -> list[str]:
    """Return what is wrong in time; what the nodes have in the end counts as a read after everything else."""
    calls, after = [], 0.0
    for number, operation in enumerate(operations):
        if operation.outcome == "ok" or (operation.outcome == "unknown" and operation.action == "write"):
            answered_s = operation.answered_s if operation.outcome == "ok" else inf
            calls.append(Call(operation.invoked_s, answered_s, operation.action, operation.value, str(number)))
        after = max([after, operation.invoked_s, *([operation.answered_s] if operation.answered_s < inf else [])])
    calls += [Call(after + 1, after + 2, "read", value, "") for value in set(final.values())]
    verdict = linearize(calls)
    if verdict.linearizable:
        return []

    def told(some: Iterable[Call]) -> str:
        return "".join(f"\n    {operations[int(call.label)] if call.label else call}" for call in some)

    return [
        f"{key}: not linearizable. In this order all is well (the last {SHOWN} of {len(verdict.order)}):"
        f"{told(verdict.order[-SHOWN:])}\n  and then there is no place for the first of these "
        f"(of {len(verdict.unexplained)}):{told(verdict.unexplained[:SHOWN])}"
    ]
