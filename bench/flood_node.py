"""One process of a flood: an event-loop base, a link to the other nodes, and a sender or a sink.

    python -m bench.flood_node '{"node": "n2", "listen": "127.0.0.2:0", …}'

It prints ``ready`` when all its peers are connected, starts on a line on its standard input, and ends with that input.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import msgspec
import uvloop

from bench.flood import HEALTHY, OTHER, AttachSink, FloodSettings, Sender, Sink, StartSender, decode, encode, is_control
from raftkv.actors.system.base.addresses import remote_address
from raftkv.actors.system.base.eventloop import start_on_loop
from raftkv.actors.system.link.link import Codec, Link, LinkSettings

ACTOR = "flood"
CODEC = Codec(encode, decode, is_control, lambda message: message.sender)


class FloodPlan(msgspec.Struct, frozen=True):
    """The configuration of one process: its id, its address and those of its peers (``host:port``).

    A sink writes the counter number ``place`` of the file ``counters``; without ``place`` the process is the sender.
    """

    node: str
    listen: str
    peers: dict[str, str]
    counters: str
    settings: FloodSettings
    place: int | None = None


async def run(plan: FloodPlan) -> None:
    """Run until the standard input ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    up: set[str] = set()
    connected = asyncio.Event()

    def on_up(peer: str) -> None:
        up.add(peer)
        system.base.peer_changed(peer, True)
        if len(up) == len(plan.peers):
            connected.set()

    def receive(peer: str, target: str, source: str, message: Any) -> None:
        system.base.deliver(peer, target, source, message)

    host, _, port = plan.listen.rpartition(":")
    link = Link(
        LinkSettings(node_id=plan.node, incarnation="1", secret=b"bench", listen_host=host, listen_port=int(port)),
        plan.peers,
        CODEC,
        receive=receive,
        on_up=on_up,
        on_down=lambda peer, reason: system.base.peer_changed(peer, False),
        on_refused=lambda *what: None,
        cluster_id=lambda: None,
        rng=random.Random(1),
    )
    system = start_on_loop(node_id=plan.node, transport=link)
    actor = system.createActor(Sender if plan.place is None else Sink, globalName=ACTOR)
    if plan.place is not None:
        system.tell(actor, AttachSink(plan.counters, plan.place, plan.node, plan.settings))
    await link.start()
    await connected.wait()
    print("ready", flush=True)
    if await lines.readline() and plan.place is None:
        system.tell(actor, StartSender(remote_address(HEALTHY, ACTOR), remote_address(OTHER, ACTOR), plan.settings))
    await lines.read()
    system.shutdown()
    await system.base.wait_closed()
    await link.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(msgspec.json.decode(sys.argv[1], type=FloodPlan)))
