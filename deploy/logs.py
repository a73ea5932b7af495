"""The logs of all nodes as one: in the order of time, and as they come."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Iterator, Mapping
from queue import SimpleQueue
from typing import Any, NamedTuple

from deploy.containers import Found, find
from deploy.engine import explained, in_parallel
from deploy.names import Names

ATTACH_AGAIN_S = 0.3


class Line(NamedTuple):
    """A line of a node's log; ``stamp`` is when the engine got it, as text that sorts as time does."""

    stamp: str
    node_id: str
    text: str


def as_lines(node_id: str, chunks: Iterable[bytes]) -> Iterator[Line]:
    """Return the lines in the engine's output, which may break off anywhere between two chunks."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            stamp, _, text = line.decode("utf-8", "replace").partition(" ")
            yield Line(stamp, node_id, text)


def so_far(client: Any, nodes: Mapping[str, Found], tail: int | None) -> list[Line]:
    """Return what all nodes have logged, or the last ``tail`` lines of each, in order."""

    def read(found: Found) -> list[Line]:
        count = "all" if tail is None else tail
        chunk = client.api.logs(found.container, stdout=True, stderr=True, timestamps=True, tail=count)
        return list(as_lines(found.node_id, [chunk]))

    with explained():
        return list(heapq.merge(*in_parallel(read, nodes.values())))


def follow(client: Any, names: Names, after: Iterable[Line]) -> Iterator[Line]:
    """Return what is logged from now on, for ever, also by nodes that are started again; ``after`` is known already."""
    last: dict[str, str] = {}
    for line in after:
        last[line.node_id] = max(line.stamp, last.get(line.node_id, ""))
    found = find(client, names)
    lines: SimpleQueue[Line] = SimpleQueue()
    for node_id in found:
        threading.Thread(
            target=follow_one, args=(client, names, node_id, last.get(node_id, ""), lines.put), daemon=True
        ).start()
    while True:
        yield lines.get()


def follow_one(client: Any, names: Names, node_id: str, last: str, put: Any) -> None:
    """Give everything that a node logs after ``last`` to ``put``, until the cluster is removed."""
    pause = threading.Event()
    while (found := find(client, names).get(node_id)) is not None:
        if found.state in ("running", "paused"):
            chunks = client.api.logs(
                found.container, stdout=True, stderr=True, timestamps=True, stream=True, follow=True
            )
            for line in as_lines(node_id, chunks):
                if line.stamp > last:
                    last = line.stamp
                    put(line)
        pause.wait(ATTACH_AGAIN_S)
