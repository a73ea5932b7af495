"""Clusters in containers for tests: they need a Docker Engine, and are skipped where there is none."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy import Cluster, DeployError
from deploy.engine import connect
from deploy.image import DOCKERFILE, base_image, build, image_id, pull
from deploy.making import inventory
from deploy.names import CLUSTER_LABEL, Names
from deploy.waiting import wait_for
from tests.support.reports import CLUSTERS, FAILED

IMAGE = "raftkv:test"
"""Built from this checkout; it stays, because building it the next time is quick then."""

LOG_LINES = 120
UNDER_LOAD_S = 60.0


class Port(NamedTuple):
    """Where a node serves clients, as those who make load want to know."""

    http: int


class Containers(Cluster):
    """A cluster in containers, with what tests ask of one."""

    def __init__(self, directory: Path, size: int = 3, **options: Any) -> None:
        super().__init__(size, image=IMAGE, **options)
        self.directory = directory

    @property
    def nodes(self) -> dict[str, Port]:
        """Where the nodes serve clients."""
        return {node_id: Port(port) for node_id, port in self.ports.items()}

    def wait_for_leader(self, *among: str, not_in: tuple[str, ...] = ()) -> str:
        """Return the leader that these nodes, or all that run, agree upon."""

        def look() -> str | None:
            views = self.views()
            told = {(views[each].status or {}).get("leader") for each in among or self.running}
            leader = told.pop() if len(told) == 1 else None
            return leader if leader and leader not in not_in else None

        return wait_for(look, lambda: "no leader upon whom all agree", UNDER_LOAD_S)

    def wait_until_equal(self) -> None:
        """Return when every node that runs has applied everything that is in the leader's log."""

        def look() -> bool:
            statuses = [view.status for view in self.views().values() if view.found.runs]
            places = {
                status and (status["last_applied"], status["last_log_index"], status["leader"]) for status in statuses
            }
            return len(places) == 1 and all(place and place[0] == place[1] and place[2] for place in places)

        wait_for(look, lambda: f"not all nodes have applied everything: {self.views()}", UNDER_LOAD_S)

    def logs(self) -> dict[str, str]:
        """Return what each node has logged."""
        return {
            node_id: self.client.api.logs(found.container).decode(errors="replace")
            for node_id, found in self.found().items()
        }

    def report(self) -> Iterator[tuple[str, str]]:
        """Return (title, text) for each node: the end of its log."""
        for node_id, log in self.logs().items():
            yield f"log of {node_id}", "\n".join(log.splitlines()[-LOG_LINES:])

    def complaints(self) -> list[str]:
        """Return the lines of all logs that no node should ever write."""
        bad = re.compile(r"^raftkv: | (ERROR|CRITICAL) |^\s*Traceback ")
        return [line for log in self.logs().values() for line in log.splitlines() if bad.search(line)]


MakeContainers = Callable[..., Any]
"""A fixture: takes the size and the options of a cluster, brings it up, and removes it after the test."""


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """Return the client of a Docker Engine that has the image of this checkout; skips where that cannot be had."""
    try:
        client = connect()
    except DeployError as error:
        pytest.skip(f"no tests with containers: {error}")
    base = base_image(DOCKERFILE.read_text())
    try:
        if image_id(client, base) is None:
            pull(client, base, "deploy/ensure-engine.sh can make one", lambda line: None)
    except DeployError as error:
        client.close()
        pytest.skip(f"no tests with containers: {error}")
    build(client, IMAGE, lambda line: None)
    yield client
    client.close()


@pytest.fixture
def make_containers(engine: Any, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeContainers]:
    """Return a function that makes a cluster, of which nothing is left after the test; no node may log an error."""
    made: list[Containers] = []
    request.node.stash[CLUSTERS] = made

    def make(size: int = 3, **options: Any) -> Containers:
        cluster = Containers(tmp_path, size, **options)
        made.append(cluster)
        cluster.up(within_s=UNDER_LOAD_S)
        return cluster

    try:
        yield make
        complaints = [line for cluster in made for line in cluster.complaints()]
    finally:
        for cluster in made:
            cluster.down(volumes=True)
            cluster.close()
    if FAILED not in request.node.stash:
        assert complaints == []
    assert [inventory(engine, cluster.names) for cluster in made] == [set() for _ in made]


@pytest.fixture
def containers(make_containers: MakeContainers) -> Any:
    """Return a cluster of three nodes that serves."""
    return make_containers()


def left_behind(client: Any, prefix: str) -> list[str]:
    """Return whatever the engine has of clusters whose name begins so."""
    api = client.api
    every = {"label": [CLUSTER_LABEL]}
    parts = [
        *api.containers(all=True, filters=every),
        *api.networks(filters=every),
        *(api.volumes(filters=every)["Volumes"] or ()),
    ]
    clusters = [part["Labels"][CLUSTER_LABEL] for part in parts]
    return [cluster for cluster in clusters if cluster.startswith(prefix)]


def wait_for_part(client: Any, cluster: str, kind: str, count: int = 1, within_s: float = UNDER_LOAD_S) -> None:
    """Return when the engine has so many parts of this kind for a cluster."""
    deadline_s = time.monotonic() + within_s
    while len([part for part in inventory(client, Names(cluster)) if part.kind == kind]) < count:
        assert time.monotonic() < deadline_s, f"no {kind} of {cluster}"
        time.sleep(0.02)
