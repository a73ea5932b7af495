"""The trace of a run: every message that an actor handles and every fault, one line each.

Two runs of the same plan have the same trace, byte by byte. A violation comes with the last lines of each machine.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.simulation.cluster.cluster import Machine, SimulatedCluster, SimulatedNode
from raftkv.simulation.cluster.describe import describe

KEPT = 4000
"""How many of the last events are kept, of all machines together."""

SHOWN = 30
"""How many of the last events of each machine a violation comes with."""


class Trace:
    """Records the messages that actors handle, and what faults do to machines.

    Messages are frozen, so they are put into words only when the text is needed.
    """

    def __init__(self, cluster: SimulatedCluster, write: Callable[[str], None] | None = None) -> None:
        """Pass each line to ``write`` at once, if it is given."""
        self._cluster = cluster
        self._write = write
        self._kept: deque[tuple[float, str, str, Any]] = deque(maxlen=KEPT)
        cluster.handled.append(self._on_handled)
        cluster.ended.append(self._on_ended)
        cluster.power_lost.append(lambda machine: self.note(machine.name, "its power fails"))

    def note(self, name: str, text: str) -> None:
        """Record something that happens to a machine, or to all of them if the name is ""."""
        self._add(name, "!", text)

    def last(self, shown: int = SHOWN) -> str:
        """Return the last events of each machine, machine by machine."""
        lines = []
        for name in self._cluster.names:
            own = [item for item in self._kept if item[1] in (name, "")]
            lines += [f"--- {name}, the last {min(shown, len(own))} of {len(own)}", *map(_line, own[-shown:])]
        return "\n".join(lines)

    def _on_handled(self, node: SimulatedNode, cell: ActorCell, message: Any, sender: Any) -> None:
        self._add(node.machine.name, type(cell.instance).__name__, message)

    def _on_ended(self, machine: Machine, status: int, line: str) -> None:
        self.note(machine.name, f"the process ends itself with status {status}: {line}")

    def _add(self, name: str, actor: str, message: Any) -> None:
        item = (self._cluster.now_ms, name, actor, message)
        self._kept.append(item)
        if self._write is not None:
            self._write(_line(item))


class Digest:
    """A hash of the lines of a trace, to compare two traces."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.lines = 0

    def __call__(self, line: str) -> None:
        """Add a line."""
        self.lines += 1
        self._hash.update(line.encode() + b"\n")

    def value(self) -> str:
        """Return the hash."""
        return self._hash.hexdigest()


def _line(item: tuple[float, str, str, Any]) -> str:
    at_ms, name, actor, message = item
    text = message if isinstance(message, str) else describe(message)
    return f"{at_ms:12.3f} {name or '*':4} {actor:10} {text}"
