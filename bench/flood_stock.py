"""The same flood on Thespian's multiprocTCPBase: sender and sinks are processes of one actor system.

    python -m bench.flood_stock PORT BOARD

It says which processes they are (``Cast`` as JSON), begins upon a line on its standard input, and ends with that.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from thespian.actors import ActorSystem

from bench.flood import ASK_PID, HEALTHY, OTHER, Attach, Begin, Sender, Sink, Strength

# More than this chokes it, with nobody standing still: the timers of its actors don't get their turn any more.
STRENGTH = Strength(window=20, acknowledged_each=10, other_bytes=1 << 10, other_rate=100)
WITHIN_S = 20.0


class Cast(msgspec.Struct, frozen=True):
    """The processes of the three, and the port of the other peer."""

    sender: int
    healthy: int
    other: int
    port: int


def main(port: int, board: str) -> None:
    """Take part until the standard input ends."""
    capabilities = {"Admin Port": port, "Convention Address.IPv4": ""}
    system = ActorSystem("multiprocTCPBase", capabilities, logDefs={"version": 1}, transientUnique=True)
    sender, healthy, other = (system.createActor(kind) for kind in (Sender, Sink, Sink))
    for place, (sink, node) in enumerate([(healthy, HEALTHY), (other, OTHER)]):
        system.tell(sink, Attach(board, place, node, STRENGTH))

    def pid(actor: Any) -> int:
        found: int = system.ask(actor, ASK_PID, WITHIN_S)
        return found

    cast = Cast(pid(sender), pid(healthy), pid(other), int(str(other).rpartition(":")[2].rstrip(")")))
    print(msgspec.json.encode(cast).decode(), flush=True)
    if sys.stdin.readline():
        system.tell(sender, Begin(healthy, other, STRENGTH))
    sys.stdin.read()
    system.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
