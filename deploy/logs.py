"""The logs of all nodes as one: in the order of time, and as they come."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Iterator, Mapping
from queue import SimpleQueue
from typing import Any, NamedTuple

from docker.errors import APIError

from deploy.containers import Found, find
from deploy.engine import explained, in_parallel
from deploy.names import Names

ATTACH_AGAIN_S = 0.3
# What the engine answers when a container is not there any more, or soon will not be.
GONE = (404, 409)


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
    """Return what all nodes have logged, or no more than the last ``tail`` lines of each, in order."""

    def read(found: Found) -> list[Line]:
        count = "all" if tail is None else tail
        chunk = client.api.logs(found.container, stdout=True, stderr=True, timestamps=True, tail=count)
        return list(as_lines(found.node_id, [chunk]))

    with explained():
        return list(heapq.merge(*in_parallel(read, nodes.values())))


def follow(client: Any, names: Names, after: Iterable[Line]) -> Iterator[Line]:
    """Return what is logged from now on, also by nodes that are started again, as long as there is one of them.

    ``after`` is known already.
    """
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
            # Nobody sees what a thread meets.
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


def from_now_on(client: Any, found: Found) -> Iterator[Line]:
    """Return what a container logs until it ends; nothing if it is being removed."""
    try:
        chunks = client.api.logs(found.container, stdout=True, stderr=True, timestamps=True, stream=True, follow=True)
        yield from as_lines(found.node_id, chunks)
    except APIError as error:
        if error.status_code not in GONE:
            raise


def follow_one(client: Any, names: Names, node_id: str, last: str, put: Any) -> None:
    """Give everything that a node logs after ``last`` to ``put``, until the cluster is removed."""
    pause = threading.Event()
    while (found := find(client, names).get(node_id)) is not None:
        if found.state in ("running", "paused"):
            for line in from_now_on(client, found):
                if line.stamp > last:
                    last = line.stamp
                    put(line)
        pause.wait(ATTACH_AGAIN_S)
