"""The logs of all nodes, merged: sorted by time for the past, in the order of arrival when followed."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Iterator, Mapping
from queue import SimpleQueue
from typing import Any, NamedTuple

from docker.errors import APIError

from deploy.containers import NodeContainer, find
from deploy.engine import explained, in_parallel
from deploy.names import Names

ATTACH_AGAIN_S = 0.3
# The engine's statuses for a container that does not exist or is being removed.
GONE = (404, 409)


class Line(NamedTuple):
    """A line of a node's log; ``stamp`` is the time at which the engine received it, as text that sorts by time."""

    stamp: str
    node_id: str
    text: str


def as_lines(node_id: str, chunks: Iterable[bytes]) -> Iterator[Line]:
    """Return the lines in the engine's output, whose chunks may end anywhere in a line."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            stamp, _, text = line.decode("utf-8", "replace").partition(" ")
            yield Line(stamp, node_id, text)


def so_far(client: Any, nodes: Mapping[str, NodeContainer], tail: int | None) -> list[Line]:
    """Return what all nodes have logged, at most the last ``tail`` lines of each, sorted by time."""

    def read(found: NodeContainer) -> list[Line]:
        count = "all" if tail is None else tail
        chunk = client.api.logs(found.container_id, stdout=True, stderr=True, timestamps=True, tail=count)
        return list(as_lines(found.node_id, [chunk]))

    with explained():
        return list(heapq.merge(*in_parallel(read, nodes.values())))


def follow(client: Any, names: Names, after: Iterable[Line]) -> Iterator[Line]:
    """Yield the lines after those in ``after``, through restarts, until the last node is removed."""
    last: dict[str, str] = {}
    for line in after:
        last[line.node_id] = max(line.stamp, last.get(line.node_id, ""))
    with explained():
        left = set(find(client, names))
    came: SimpleQueue[Line | Exception | str] = SimpleQueue()

    def work(node_id: str) -> None:
        try:
            follow_one(client, names, node_id, last.get(node_id, ""), came.put)
        except Exception as error:
            # An exception in a thread would go unnoticed: raise it in the main thread.
            came.put(error)
        came.put(node_id)

    for node_id in left:
        threading.Thread(target=work, args=(node_id,), daemon=True).start()
    with explained():
        while left:
            match came.get():
                case Line() as line:
                    yield line
                case Exception() as error:
                    raise error
                case str(node_id):
                    left.remove(node_id)


def lines_until_exit(client: Any, found: NodeContainer) -> Iterator[Line]:
    """Yield all that a container logs until it ends; nothing if it is being removed."""
    try:
        chunks = client.api.logs(
            found.container_id, stdout=True, stderr=True, timestamps=True, stream=True, follow=True
        )
        yield from as_lines(found.node_id, chunks)
    except APIError as error:
        if error.status_code not in GONE:
            raise


def follow_one(client: Any, names: Names, node_id: str, last: str, put: Any) -> None:
    """Call ``put`` with each line that a node logs after ``last``, until the node is removed."""
    pause = threading.Event()
    while (found := find(client, names).get(node_id)) is not None:
        if found.state in ("running", "paused"):
            for line in lines_until_exit(client, found):
                if line.stamp > last:
                    last = line.stamp
                    put(line)
        pause.wait(ATTACH_AGAIN_S)
