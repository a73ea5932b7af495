"""Measure how fast a cluster comes up, and how fast it serves again after its leader is killed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import NamedTuple

from deploy.cluster import Cluster
from deploy.node_http import ask, try_get
from deploy.waiting import wait_for

TIGHT_S = 0.005


class Figure(NamedTuple):
    """Several measurements of one duration, in seconds."""

    what: str
    seconds: list[float]

    def line(self) -> str:
        """Return it as a line of a Markdown table."""
        low, middle, high = min(self.seconds), statistics.median(self.seconds), max(self.seconds)
        return f"| {self.what} | {low:.2f} | {middle:.2f} | {high:.2f} | {len(self.seconds)} |"


HEADING = "| seconds | lowest | median | highest | rounds |\n|---|---|---|---|---|"


def measure(make: Callable[[], Cluster], ups: int, kills: int, say: Callable[[str], None]) -> list[Figure]:
    """Bring a cluster up ``ups`` times, and kill the leader of the last one ``kills`` times; remove each cluster."""
    up, healthy, elected, served, stopped = [], [], [], [], []
    for number in range(1, ups + 1):
        say(f"up {number} of {ups}")
        started_s = time.monotonic()
        with make() as cluster:
            up.append(time.monotonic() - started_s)
            wait_for(lambda: {each.health for each in cluster.found().values()} == {"healthy"}, lambda: "not healthy")
            healthy.append(time.monotonic() - started_s)
            for count in range(1, kills + 1) if number == ups else ():
                say(f"kill {count} of {kills}")
                to_leader, to_write = measure_kill(cluster)
                elected.append(to_leader)
                served.append(to_write)
            stopped.append(measure_stop(cluster))
    return [
        Figure("`up`, until every node answers a linearizable read", up),
        Figure("`up`, until the engine calls every container healthy", healthy),
        Figure("`kill leader`, until another node leads", elected),
        Figure("`kill leader`, until the next write is answered", served),
        Figure("`stop` of one node, until its container has ended", stopped),
    ]


def measure_kill(cluster: Cluster) -> tuple[float, float]:
    """Kill the leader; return the time from the kill to the next leader, and to the next acknowledged write."""
    cluster.wait_until_caught_up()
    leader = cluster.leader()
    others = [port for node_id, port in cluster.ports.items() if node_id != leader]
    container = cluster.found()[leader].container_id
    started_s = time.monotonic()
    cluster.client.api.kill(container)
    wait_for(lambda: any(leads(port) for port in others), lambda: "no node leads", poll_s=TIGHT_S)
    elected_s = time.monotonic() - started_s
    # A failed write does not count: it would make the figure too good.
    wait_for(lambda: writes(others[0]), lambda: "no write is acknowledged", poll_s=TIGHT_S)
    served_s = time.monotonic() - started_s
    cluster.start(leader)
    return elected_s, served_s


def leads(port: int) -> bool:
    """Whether the node at this port reports that it leads."""
    answer = try_get(port, "/status")
    return answer is not None and answer.status == 200 and answer.body["role"] == "leader"


def writes(port: int) -> bool:
    """Whether the node at this port acknowledges a write."""
    try:
        return ask(port, "PUT", "/keys/measured/", {"value": "x"}).status == 200
    except (OSError, HTTPException, ValueError):
        return False


def measure_stop(cluster: Cluster) -> float:
    """Stop the leader with SIGTERM and return how long it takes."""
    node_id = cluster.leader()
    started_s = time.monotonic()
    cluster.stop(node_id)
    return time.monotonic() - started_s
