"""How fast: from nothing to a cluster that serves, and from a leader's death to the next one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import NamedTuple

from deploy.asking import ask, ask_if_there
from deploy.cluster import Cluster
from deploy.waiting import wait_for

TIGHT_S = 0.005


class Figure(NamedTuple):
    """What was measured, in seconds, so many times."""

    what: str
    seconds: list[float]

    def line(self) -> str:
        """Return it as a line of a Markdown table."""
        low, middle, high = min(self.seconds), statistics.median(self.seconds), max(self.seconds)
        return f"| {self.what} | {low:.2f} | {middle:.2f} | {high:.2f} | {len(self.seconds)} |"


HEADING = "| seconds | least | median | most | times |\n|---|---|---|---|---|"


def measure(make: Callable[[], Cluster], ups: int, kills: int, say: Callable[[str], None]) -> list[Figure]:
    """Bring a cluster up so many times, and kill the leader of the last so many times; everything is removed again."""
    up, healthy, elected, served, stopped = [], [], [], [], []
    for number in range(1, ups + 1):
        say(f"up {number} of {ups}")
        began_s = time.monotonic()
        with make() as cluster:
            up.append(time.monotonic() - began_s)
            wait_for(lambda: {each.health for each in cluster.found().values()} == {"healthy"}, lambda: "not healthy")
            healthy.append(time.monotonic() - began_s)
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
    """Kill the leader; return the time to the next leader and to the next write, both since the command began."""
    cluster.wait_until_caught_up()
    leader = cluster.leader()
    others = [port for node_id, port in cluster.ports.items() if node_id != leader]
    container = cluster.found()[leader].container
    began_s = time.monotonic()
    cluster.client.api.kill(container)
    wait_for(lambda: any(leads(port) for port in others), lambda: "nobody leads", poll_s=TIGHT_S)
    elected_s = time.monotonic() - began_s
    # Whatever it takes: a write that fails would be a figure that is too good.
    wait_for(lambda: writes(others[0]), lambda: "nothing can be written", poll_s=TIGHT_S)
    served_s = time.monotonic() - began_s
    cluster.start(leader)
    return elected_s, served_s


def leads(port: int) -> bool:
    """Whether the node there says that it leads."""
    answer = ask_if_there(port, "/status")
    return answer is not None and answer.status == 200 and answer.body["role"] == "leader"


def writes(port: int) -> bool:
    """Whether the node there answers a write, as it should."""
    try:
        return ask(port, "PUT", "/keys/measured/", {"value": "x"}).status == 200
    except (OSError, HTTPException, ValueError):
        return False


def measure_stop(cluster: Cluster) -> float:
    """Stop a node in order and return how long it took."""
    node_id = cluster.leader()
    began_s = time.monotonic()
    cluster.stop(node_id)
    return time.monotonic() - began_s
