"""Clusters in containers for tests; the tests are skipped without a Docker Engine."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from docker.errors import APIError
from requests import RequestException

from deploy import Cluster, DeployError
from deploy.engine import connect
from deploy.image import DOCKERFILE, base_image, build, image_id, pull
from deploy.names import CLUSTER_LABEL, Names
from deploy.resources import inventory
from deploy.waiting import POLL_S, wait_for
from tests.support.processes import ROOT, environment
from tests.support.reports import CLUSTERS, FAILED

IMAGE = "raftkv:test"
"""Built from this checkout, and kept, so that the next build is quick."""

LOG_LINES = 120
UNDER_LOAD_S = 120.0
"""The deadline for anything on a busy machine."""

TIMEOUT_S = 600.0
"""The deadline for a whole test; the first one also builds the image."""

NEVER_READY = {"election-min-ms": "3000000", "election-max-ms": "3600000"}
"""Settings with which no node ever campaigns, so that a command waits for a leader until it is interrupted."""


BUILDS = 3

Result = TypeVar("Result")


class Port(NamedTuple):
    """A node's port for clients, in the form that the load generator needs."""

    http: int


class Containers(Cluster):
    """A cluster in containers, with helpers for tests."""

    def __init__(self, directory: Path, size: int = 3, **options: Any) -> None:
        super().__init__(size, image=IMAGE, **options)
        self.directory = directory

    def put(self, node_id: str, key: str, value: str) -> None:
        """Write a key through a node; retries, because the leader may change at any moment."""
        until_done(lambda: super(Containers, self).put(node_id, key, value))

    def get(self, node_id: str, key: str) -> str | None:
        """Return the value of a key; retries until the node answers."""
        return until_done(lambda: super(Containers, self).get(node_id, key))

    @property
    def nodes(self) -> dict[str, Port]:
        """The nodes' ports for clients."""
        return {node_id: Port(port) for node_id, port in self.ports.items()}

    def wait_for_leader(self, *among: str, after_term: int = 0) -> str:
        """Return the leader on which these nodes, by default all that run, agree, in a term after ``after_term``."""

        def look() -> str | None:
            views = self.views()
            statuses = [views[each].status or {} for each in among or self.running]
            leaders = {(status.get("leader"), status.get("term", 0)) for status in statuses}
            leader, term = leaders.pop() if len(leaders) == 1 else (None, 0)
            return leader if term > after_term else None

        return wait_for(look, lambda: f"no leader on which all agree: {self.views()}", UNDER_LOAD_S)

    def leader_and_term(self) -> tuple[str, int]:
        """Return the leader and its term; if it no longer leads, that term is over."""

        def look() -> tuple[str, int] | None:
            status = self.views()[self.leader()].status or {}
            return (status["leader"], status["term"]) if status.get("role") == "leader" else None

        return wait_for(look, lambda: "no leader", UNDER_LOAD_S)

    def wait_until_alone(self, node_id: str) -> None:
        """Return when a node knows no leader, not even itself."""

        def look() -> bool:
            status = self.views()[node_id].status
            return status is not None and status["leader"] is None

        wait_for(look, lambda: f"{node_id} still knows a leader: {self.views()[node_id]}", UNDER_LOAD_S)

    def wait_until_equal(self) -> None:
        """Return when every running node has applied all entries of the leader's log."""

        def look() -> bool:
            statuses = [view.status for view in self.views().values() if view.container.is_running]
            places = {
                status and (status["last_applied"], status["last_log_index"], status["leader"]) for status in statuses
            }
            return len(places) == 1 and all(place and place[0] == place[1] and place[2] for place in places)

        wait_for(look, lambda: f"not all nodes have applied everything: {self.views()}", UNDER_LOAD_S)

    def logs(self) -> dict[str, str]:
        """Return what each node has logged."""
        return {
            node_id: self.client.api.logs(found.container_id).decode(errors="replace")
            for node_id, found in self.found().items()
        }

    def report(self) -> Iterator[tuple[str, str]]:
        """Return (title, text) for each node: the end of its log."""
        # An engine that does not answer must not hide the failure of the test.
        with contextlib.suppress(DeployError, APIError, RequestException):
            for node_id, log in self.logs().items():
                yield f"log of {node_id}", "\n".join(log.splitlines()[-LOG_LINES:])

    def complaints(self) -> list[str]:
        """Return the lines of all logs that report errors."""
        bad = re.compile(r"^raftkv: | (ERROR|CRITICAL) |^\s*Traceback ")
        return [line for log in self.logs().values() for line in log.splitlines() if bad.search(line)]


MakeContainers = Callable[..., Any]
"""A fixture: call it with the size and the options of a cluster to bring it up; it is removed after the test."""


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """Return the client of a Docker Engine with the image of this checkout; skips the tests if there is none."""
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
    try:
        build_patiently(client)
        yield client
    finally:
        client.close()


def build_patiently(client: Any) -> None:
    """Build the image; retries, because a download can fail."""
    for _ in range(BUILDS - 1):
        try:
            return build(client, IMAGE, lambda line: None)
        except DeployError as error:
            print(f"building again, because {error}")
    return build(client, IMAGE, lambda line: None)


@pytest.fixture
def make_containers(engine: Any, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeContainers]:
    """Return a function that brings a cluster up; it is removed after the test, and no node may log an error."""
    made: list[Containers] = []
    request.node.stash[CLUSTERS] = made

    with contextlib.ExitStack() as stack:

        def make(size: int = 3, **options: Any) -> Containers:
            cluster = Containers(tmp_path, size, **options)
            made.append(cluster)
            stack.callback(cluster.close)
            stack.callback(cluster.down, volumes=True)
            cluster.up(within_s=UNDER_LOAD_S)
            return cluster

        yield make
        complaints = [line for cluster in made for line in cluster.complaints()]
    if FAILED not in request.node.stash:
        assert complaints == []
    assert [inventory(engine, cluster.names) for cluster in made] == [set() for _ in made]


@pytest.fixture
def containers(make_containers: MakeContainers) -> Any:
    """Return a cluster of three nodes that is up."""
    return make_containers()


def until_done(act: Callable[[], Result]) -> Result:
    """Call ``act`` until it succeeds and return its result; after the deadline, raises its last ``DeployError``."""
    deadline_s = time.monotonic() + UNDER_LOAD_S
    while True:
        try:
            return act()
        except DeployError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(POLL_S)


def left_behind(client: Any, prefix: str) -> list[str]:
    """Return the cluster name of each resource that belongs to a cluster with this prefix."""
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
    """Return when a cluster has at least ``count`` resources of this kind."""
    deadline_s = time.monotonic() + within_s
    while len([part for part in inventory(client, Names(cluster)) if part.kind == kind]) < count:
        assert time.monotonic() < deadline_s, f"no {kind} of {cluster}"
        time.sleep(0.02)


Deploy = Callable[..., subprocess.Popen[str]]
"""A fixture: call it with the arguments of `python -m deploy` to start that; it is killed after the test."""


@pytest.fixture
def deploy() -> Iterator[Deploy]:
    """Return a function that starts a command."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy", *arguments],
            cwd=ROOT,
            env=environment() | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C in our terminal must not reach it.
            process_group=0,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def interrupted(process: subprocess.Popen[str], number: int = signal.SIGINT) -> str:
    """Send a signal; return all output until the process ends."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=UNDER_LOAD_S)
    assert process.returncode == 130, output
    return output
