"""Clusters of processes for tests: stopped with the test, and their logs are part of its failure report.

``RAFTKV_ROUNDS`` is the number of rounds of tests that work in rounds. ``RAFTKV_SEED`` repeats the random choices of a
test, though not their timing. Both together:
``RAFTKV_ROUNDS=50 RAFTKV_SEED=1 make test ARGS="tests/cluster/test_cluster_kill.py"``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import CALM, Cluster, MakeCluster
from tests.support.containers import TIMEOUT_S, containers, deploy, engine, make_containers
from tests.support.load import Load, MakeLoad
from tests.support.reports import CLUSTERS, FAILED

__all__ = ["containers", "deploy", "engine", "make_containers"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if item.path.name.startswith("test_docker_"):
                item.add_marker(pytest.mark.docker)
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of its nodes to the report of a test that failed."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        for cluster in item.stash.get(CLUSTERS, []):
            report.sections.extend(cluster.report())
    return report


@pytest.fixture
def make_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeCluster]:
    """Return a function that makes a cluster; its processes end with the test.

    The test fails if a node logged an error that is not in the cluster's ``expected_complaints``.
    """
    clusters: list[Cluster] = []
    request.node.stash[CLUSTERS] = clusters

    def make(size: int = 3, **settings: str) -> Cluster:
        place = tmp_path / f"cluster{len(clusters) + 1}"
        place.mkdir()
        cluster = Cluster(place, size, **settings)
        clusters.append(cluster)
        return cluster

    with contextlib.ExitStack() as stack:

        def close() -> None:
            for cluster in clusters:
                cluster.close()

        stack.callback(close)
        yield make
        if FAILED not in request.node.stash:
            for cluster in clusters:
                cluster.check_alive()
    if FAILED not in request.node.stash:
        assert [line for cluster in clusters for line in cluster.complaints()] == []


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    """Return three nodes that run and have a leader."""
    made = make_cluster()
    made.start()
    made.wait_for_leader()
    return made


@pytest.fixture
def calm_cluster(make_cluster: MakeCluster) -> Cluster:
    """Return three nodes that run and have a leader, which no busy machine replaces."""
    made = make_cluster(**CALM)
    made.start()
    made.wait_for_leader()
    return made


@pytest.fixture
def seed() -> int:
    """Return a seed, which the report of a failure shows; ``RAFTKV_SEED`` sets it."""
    given = int(os.environ.get("RAFTKV_SEED") or int.from_bytes(os.urandom(4)))
    print(f"RAFTKV_SEED={given}")
    return given


@pytest.fixture
def make_load(make_cluster: MakeCluster, seed: int) -> Iterator[MakeLoad]:
    """Return a function that starts clients of a cluster."""
    loads: list[Load] = []

    def make(cluster: Cluster, **options: Any) -> Load:
        load = Load({node_id: node.http for node_id, node in cluster.nodes.items()}, seed, **options)
        loads.append(load)
        return load

    yield make
    for load in loads:
        load.close()
