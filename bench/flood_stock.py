"""The same flood on Thespian's multiprocTCPBase: sender and sinks are processes of one actor system.

    python -m bench.flood_stock PORT BOARD

It prints its processes (``FloodProcesses`` as JSON), starts on a line on its standard input, and ends with that input.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from thespian.actors import ActorSystem

from bench.flood import ASK_PID, HEALTHY, OTHER, AttachSink, FloodSettings, Sender, Sink, StartSender

# More than this overloads it even without a fault: the timers of its actors no longer fire.
SETTINGS = FloodSettings(window=20, acknowledged_each=10, other_bytes=1 << 10, other_rate=100)
WITHIN_S = 20.0


class FloodProcesses(msgspec.Struct, frozen=True):
    """The process ids of the three actors, and the port of the other peer."""

    sender: int
    healthy: int
    other: int
    port: int


def main(port: int, counters: str) -> None:
    """Run until the standard input ends."""
    capabilities = {"Admin Port": port, "Convention Address.IPv4": ""}
    system = ActorSystem("multiprocTCPBase", capabilities, logDefs={"version": 1}, transientUnique=True)
    sender, healthy, other = (system.createActor(kind) for kind in (Sender, Sink, Sink))
    for place, (sink, node) in enumerate([(healthy, HEALTHY), (other, OTHER)]):
        system.tell(sink, AttachSink(counters, place, node, SETTINGS))

    def pid(actor: Any) -> int:
        found: int = system.ask(actor, ASK_PID, WITHIN_S)
        return found

    processes = FloodProcesses(pid(sender), pid(healthy), pid(other), int(str(other).rpartition(":")[2].rstrip(")")))
    print(msgspec.json.encode(processes).decode(), flush=True)
    if sys.stdin.readline():
        system.tell(sender, StartSender(healthy, other, SETTINGS))
    sys.stdin.read()
    system.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
