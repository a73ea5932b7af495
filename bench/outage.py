"""Times in which nothing can be written: after the leader was killed, and after the first start."""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from bench.cluster import HOST, ROOT, BenchCluster, BenchNode, unstarted_cluster
from bench.machine import BenchError, load_average
from bench.workload import VALUE_BYTES

TRY_S = 0.2
PAUSE_S = 0.01
WITHIN_S = 30.0
# Longer than any election timeout, and no multiple of a heartbeat: kills come at all moments between two heartbeats.
SETTLE_S = 1.013


class Outage(msgspec.Struct, frozen=True):
    """Milliseconds until a write was acknowledged again through any node, and until one was through every node.

    ``failed`` counts the tries that came to nothing until then.
    """

    any_ms: float
    every_ms: float
    failed: int
    load_average: float


def measure_election(cluster: BenchCluster) -> Outage:
    """Kill the leader and try to write through each of the others from then on; start it again afterwards."""
    leader = cluster.leader()
    time.sleep(SETTLE_S)
    load_before = load_average()
    killed_s = time.monotonic()
    cluster.kill(leader)
    outage = _first_writes([node for node in cluster.nodes if node is not leader], killed_s, load_before)
    cluster.restart(leader)
    cluster.wait_until_ready()
    return outage


def measure_start(directory: Path, base_port: int, source: Path = ROOT) -> Outage:
    """Start three empty nodes and try to write through each of them from when the last of them listens."""
    with unstarted_cluster(directory, base_port, source) as cluster:
        load_before = load_average()
        return _first_writes(cluster.nodes, cluster.start(), load_before)


def _first_writes(nodes: list[BenchNode], since_s: float, load_before: float) -> Outage:
    with ThreadPoolExecutor(len(nodes)) as clients:
        found = list(clients.map(_first_write, nodes))
    took_ms = [(when_s - since_s) * 1000 for when_s, _ in found]
    return Outage(min(took_ms), max(took_ms), sum(failed for _, failed in found), load_before)


def _first_write(node: BenchNode) -> tuple[float, int]:
    """Try to write through ``node``, as a client with short timeouts would.

    Return when (``time.monotonic``) that was acknowledged and how many tries had failed before.
    """
    deadline_s = time.monotonic() + WITHIN_S
    failed = 0
    while not _write(node):
        failed += 1
        if time.monotonic() > deadline_s:
            raise BenchError(f"nothing could be written through {node.id} for {WITHIN_S:g} s")
        time.sleep(PAUSE_S)
    return time.monotonic(), failed


def _write(node: BenchNode) -> bool:
    """Return whether a write through ``node`` was acknowledged within ``TRY_S``."""
    body = b'{"value":"%s"}' % node.id.encode().zfill(VALUE_BYTES)
    connection = http.client.HTTPConnection(HOST, node.port, timeout=TRY_S)
    try:
        connection.request("POST", f"/keys/outage-{node.id}/", body)
        answer = connection.getresponse()
        return answer.status == 200 and answer.read().rstrip(b"\n") == body
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
