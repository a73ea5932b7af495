"""Measure the link between two nodes over loopback, both in one process on one core.

    python -m bench.link [--repeat 10] [--messages 100000] [--rounds 2000]

It measures the throughput with many messages in flight (small control messages, small forwarded requests, large
entries), and the round-trip time of single messages. The figures are medians of several rounds, with the lowest and
the highest. Both ends share one event loop, so two processes on two cores would be faster. ``bench.system_base``
measures the same message between two processes of Thespian's multiprocTCPBase.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import uvloop

from bench.machine import load_average, use_one_core
from bench.report import spread, table
from raftkv.actors.messages.raft import AppendEntries, AppendEntriesReply
from raftkv.actors.messages.requests import Forward, Propose
from raftkv.actors.messages.wire import decode_peer, encode_peer, is_control
from raftkv.actors.system.link.link import Codec, Link, LinkSettings
from raftkv.raft.entry import Entry
from raftkv.store.commands import Put, encode_commands

CODEC = Codec(encode_peer, decode_peer, is_control, lambda message: message.sender)
REPLY = AppendEntriesReply(sender="n1", term=7, success=True, match_index=123456, read_round=99)
FORWARD = Forward(sender="n1", boot_id=1, number=2, request=Propose((Put("some-key", b"some value"),), 1000.0))
ENTRIES = AppendEntries(
    "n1", 7, 1, 7, tuple(Entry(i, 7, 2, encode_commands((Put("k", bytes(1 << 16)),))) for i in range(2, 6)), 0
)


class LinkNode:
    """One end of the link. ``got`` is called for each message; while ``closing``, connections may end."""

    def __init__(self, name: str) -> None:
        self.closing = False
        self.got: Callable[[Any], None] = lambda message: None
        self.link = Link(
            LinkSettings(node_id=name, incarnation="1", secret=b"bench"),
            {},
            CODEC,
            receive=lambda peer, target, source, message: self.got(message),
            on_up=lambda peer: None,
            on_down=self.lost,
            on_refused=lambda peer, target, source, message, reason: None,
            cluster_id=lambda: None,
            rng=random.Random(1),
        )

    def lost(self, peer: str, reason: str) -> None:
        """Exit if a connection ends during a measurement, which would otherwise never end."""
        if not self.closing:
            raise SystemExit(f"{peer} is not connected: {reason}")


async def pair() -> tuple[LinkNode, LinkNode]:
    """Return two nodes that are connected both ways."""
    first, second = LinkNode("n1"), LinkNode("n2")
    await first.link.start()
    await second.link.start()
    first.link.add_peer("n2", f"127.0.0.1:{second.link.port}")
    second.link.add_peer("n1", f"127.0.0.1:{first.link.port}")
    while not (first.link.connected("n2") and second.link.connected("n1")):
        await asyncio.sleep(0.001)
    return first, second


async def throughput(
    first: LinkNode, second: LinkNode, message: Any, count: int, window: int, burst: int
) -> tuple[float, float]:
    """Send ``count`` messages, ``burst`` at a time, at most ``window`` in flight.

    Return messages a second and the µs of processor time for each.
    """
    received = 0
    moved = asyncio.Event()

    def got(message: Any) -> None:
        nonlocal received
        received += 1
        if received % burst == 0:
            moved.set()

    second.got = got
    started, busy = time.perf_counter(), time.process_time()
    for sent in range(0, count, burst):
        for _ in range(burst):
            first.link.send("n2", "node", "node", message)
        while sent + burst - received > window:
            moved.clear()
            await moved.wait()
    while received < count:
        moved.clear()
        await moved.wait()
    return count / (time.perf_counter() - started), (time.process_time() - busy) / count * 1e6


async def round_trips(first: LinkNode, second: LinkNode, rounds: int) -> list[float]:
    """Return the round-trip times of ``rounds`` single messages in µs, sorted."""
    answer = AppendEntriesReply(sender="n2", term=7, success=True, match_index=1)
    second.got = lambda message: second.link.send("n1", "node", "node", answer)
    took = []
    finished = asyncio.get_running_loop().create_future()
    started = 0.0

    def again(message: Any) -> None:
        nonlocal started
        now = time.perf_counter()
        took.append((now - started) * 1e6)
        if len(took) == rounds:
            finished.set_result(None)
            return
        started = time.perf_counter()
        first.link.send("n2", "node", "node", REPLY)

    first.got = again
    started = time.perf_counter()
    first.link.send("n2", "node", "node", REPLY)
    await finished
    return sorted(took)


async def measure(messages: int, rounds: int) -> dict[str, float]:
    """Return the figures of one round by name."""
    first, second = await pair()
    found: dict[str, float] = {}
    for name, message in (("small control", REPLY), ("small forwarded", FORWARD)):
        rate, cpu = await throughput(first, second, message, messages // 100 * 100, window=2000, burst=100)
        found[f"{name} messages a second"] = rate
        found[f"µs of processor for each {name} message, both ends"] = cpu
    rate, _ = await throughput(first, second, ENTRIES, 500, window=20, burst=1)
    found["entries of 256 KiB: MiB a second"] = rate / 4
    took = await round_trips(first, second, rounds)
    found["µs for one message, one at a time"] = statistics.median(took) / 2
    found["the same, the slowest in a hundred"] = took[len(took) * 99 // 100] / 2
    first.closing = second.closing = True
    await asyncio.gather(first.link.close(), second.link.close())
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure the link between two nodes, both ends on one core.")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2_000)
    arguments = parser.parse_args()
    use_one_core()
    load = load_average()
    found = []
    for _ in range(arguments.repeat):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found.append(runner.run(measure(arguments.messages, arguments.rounds)))
    print(f"one core, {arguments.repeat} rounds, load average {load:.1f} before\n")
    print(
        table(["between two nodes", ""], [[name, spread([each[name] for each in found], ",.0f")] for name in found[0]])
    )


if __name__ == "__main__":
    main()
