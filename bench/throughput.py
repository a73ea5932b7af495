"""Throughput and latency: the cases, and the measurement of one case with the load generator."""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Literal, NamedTuple

import msgspec

from bench.cluster import ROOT, BenchCluster
from bench.load import LoadPlan, LoadResult
from bench.machine import BenchError, load_average
from bench.workload import KEYS, Kind

FILL_TRIES = 3


class Case(NamedTuple):
    """A kind of load; ``where`` are the nodes to which the connections go."""

    name: str
    kind: Kind
    connections: int
    where: Literal["all", "leader", "follower"]


CASES = (
    Case("write-64", "write", 64, "all"),
    Case("write-64-leader", "write", 64, "leader"),
    Case("write-1-leader", "write", 1, "leader"),
    Case("write-1-follower", "write", 1, "follower"),
    Case("read-64", "read", 64, "all"),
    Case("read-64-leader", "read", 64, "leader"),
    Case("read-1-leader", "read", 1, "leader"),
    Case("read-1-follower", "read", 1, "follower"),
    Case("stale-64", "stale", 64, "all"),
    Case("stale-1", "stale", 1, "follower"),
)


class Figures(msgspec.Struct, frozen=True):
    """One measurement: correct answers a second, latencies in ms, and errors by kind.

    Processor time is in µs per answer: of the leader, of its followers on average, of all nodes together, and of the
    load. On a busy machine it shows the difference between versions better than the rate. ``others`` is the number of
    processors that other programs used, ``load_average`` is from before the measurement.
    """

    case: str
    rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    answers: int
    errors: dict[str, int]
    leader_us: float
    follower_us: float
    nodes_us: float
    load_us: float
    others: float
    load_average: float


def fill(cluster: BenchCluster) -> None:
    """Write every key once, so that reads find them."""
    plan = LoadPlan([node.address for node in cluster.nodes], "write", 64, requests=KEYS)
    for _ in range(FILL_TRIES):
        errors = run_load(plan).errors
        if not errors:
            return
    raise BenchError(f"the keys could not be written: {errors}")


def measure(cluster: BenchCluster, case: Case, seconds: float, warm_up_s: float) -> Figures:
    """Measure one case; the leader is looked up each time."""
    leader = cluster.leader()
    followers = [node for node in cluster.nodes if node is not leader]
    targets = {"all": cluster.nodes, "leader": [leader], "follower": followers[:1]}[case.where]
    plan = LoadPlan(
        [node.address for node in targets],
        case.kind,
        case.connections,
        seconds,
        warm_up_s,
        pids=[node.pid for node in (leader, *followers)],
    )
    load_before = load_average()
    result = run_load(plan)
    latencies = result.all_latencies()
    p50, p99, p999 = (latencies.percentile(percent) / 1e6 for percent in (50, 99, 99.9))
    leader_s, *followers_s = result.pids_cpu_s
    ours_s = result.own_cpu_s + sum(result.pids_cpu_s)
    # Without any answer the quotient is meaningless, and the errors show why.
    answer_s = 1e6 / max(1, latencies.total)
    return Figures(
        case.name,
        latencies.total / result.seconds,
        p50,
        p99,
        p999,
        latencies.highest / 1e6,
        latencies.total,
        result.errors,
        leader_s * answer_s,
        statistics.mean(followers_s) * answer_s,
        sum(result.pids_cpu_s) * answer_s,
        result.own_cpu_s * answer_s,
        max(0.0, result.machine_cpu_s - ours_s) / result.seconds,
        load_before,
    )


def run_load(plan: LoadPlan) -> LoadResult:
    """Run the load generator in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"], cwd=ROOT, input=msgspec.json.encode(plan), capture_output=True
    )
    if done.returncode:
        raise BenchError(f"the load failed: {done.stderr.decode(errors='replace').strip()}")
    return msgspec.json.decode(done.stdout, type=LoadResult)
