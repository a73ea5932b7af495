"""A cluster to measure: three processes of ``raftkv serve`` on loopback, with new data on a real disk."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.machine import BenchError

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
NODES = 3
WITHIN_S = 30.0
STOP_S = 10.0
LOOK_S = 0.01


class BenchNode:
    """One node: its addresses, and its process while it runs."""

    def __init__(self, number: int, directory: Path, port: int, raft_port: int) -> None:
        self.id = f"n{number}"
        self.directory = directory / self.id
        self.port = port
        self.raft_port = raft_port
        self.process: subprocess.Popen[bytes] | None = None
        # Our end of the socket on which the node reports events. The node stops when it closes, so none outlives us.
        self.events: socket.socket | None = None

    @property
    def address(self) -> str:
        """Its address for clients."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the node, which must be running."""
        assert self.process is not None, f"{self.id} is not running"
        return self.process.pid

    def last_log_line(self) -> str:
        """Return the last line of its log."""
        lines = (self.directory / "node.log").read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "(empty)")


class BenchCluster:
    """Three nodes that run the checkout in ``source``, with their data in ``directory``, which must be empty or new."""

    def __init__(self, directory: Path, base_port: int, source: Path = ROOT) -> None:
        self.directory = directory
        self._source = source
        # The ports are below the range for outgoing connections, so that a restarted node finds its own ones free.
        self.nodes = [BenchNode(n + 1, directory, base_port + n, base_port + NODES + n) for n in range(NODES)]

    def start(self) -> float:
        """Start all nodes; return the time (``time.monotonic``) at which the last one listened for clients."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / "secret", "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(secrets.token_hex(32))
        for node in self.nodes:
            self._spawn(node)
        return self._wait_for_listening(self.nodes)

    def restart(self, node: BenchNode) -> None:
        """Start a killed node with its old data."""
        self._spawn(node)
        self._wait_for_listening([node])

    def kill(self, node: BenchNode) -> None:
        """Kill a node with SIGKILL and wait until it is gone."""
        assert node.process is not None, f"{node.id} is not running"
        assert node.events is not None, f"{node.id} is not running"
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
        node.events.close()
        node.process = node.events = None

    def stop(self) -> None:
        """Stop all nodes and remove their data."""
        running = [node.process for node in self.nodes if node.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()
            process.wait()
        for node in self.nodes:
            if node.events is not None:
                node.events.close()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory)

    def wait_until_ready(self) -> None:
        """Return when every node answers a linearizable read: there is a leader, and all have caught up with it."""
        deadline = time.monotonic() + WITHIN_S
        for node in self.nodes:
            while get(node, "/readyz")[0] != 200:
                self._check(node, deadline, "is not ready")
                time.sleep(LOOK_S)

    def leader(self) -> BenchNode:
        """Return the leader as soon as all nodes agree on it."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            found = {get(node, "/status")[1].get("leader") for node in self.nodes}
            for node in self.nodes:
                if found == {node.id}:
                    return node
            self._check(self.nodes[0], deadline, f"and the others do not agree on a leader: {found}")
            time.sleep(LOOK_S)

    def _check(self, node: BenchNode, deadline: float, what: str) -> None:
        """Raise ``BenchError`` if the node has stopped or the deadline has passed."""
        if node.process is None or node.process.poll() is not None:
            raise BenchError(f"{node.id} has stopped; last line of its log: {node.last_log_line()}")
        if time.monotonic() > deadline:
            raise BenchError(f"{node.id} {what} after {WITHIN_S:g} s; last line of its log: {node.last_log_line()}")

    def _spawn(self, node: BenchNode) -> None:
        node.directory.mkdir(exist_ok=True)
        node.events, theirs = socket.socketpair()
        cluster = ",".join(f"{other.id}={HOST}:{other.raft_port}" for other in self.nodes)
        with theirs, open(node.directory / "node.log", "ab") as log:
            node.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "raftkv", "serve", "--id", node.id, "--cluster", cluster),
                    *("--http", node.address, "--raft", f"{HOST}:{node.raft_port}"),
                    *("--data-dir", str(node.directory / "data")),
                    *("--cluster-secret-file", str(self.directory / "secret")),
                    *("--events-fd", str(theirs.fileno())),
                ],
                cwd=self._source,
                env={name: value for name, value in os.environ.items() if not name.startswith("RAFTKV_")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                # Ctrl-C reaches the whole process group; we stop the nodes ourselves.
                start_new_session=True,
            )

    def _wait_for_listening(self, nodes: list[BenchNode]) -> float:
        """Return the time (``time.monotonic``) at which the last of ``nodes`` reported that it listens."""
        waiting = {node.id for node in nodes}
        deadline = time.monotonic() + WITHIN_S
        with selectors.DefaultSelector() as selector:
            for node in nodes:
                assert node.events is not None, f"{node.id} is not running"
                selector.register(node.events, selectors.EVENT_READ, (node, node.events))
            while waiting:
                ready = selector.select(0.1)
                now = time.monotonic()
                for key, _ in ready:
                    node, events = key.data
                    if b'"listening"' in events.recv(4096):
                        waiting.discard(node.id)
                        selector.unregister(events)
                for node in nodes:
                    if node.id in waiting:
                        self._check(node, deadline, "does not listen")
        return now


@contextlib.contextmanager
def new_cluster(directory: Path, base_port: int, source: Path = ROOT) -> Iterator[BenchCluster]:
    """Start a cluster without data and wait until it is ready; stop it at the end."""
    with unstarted_cluster(directory, base_port, source) as cluster:
        cluster.start()
        cluster.wait_until_ready()
        yield cluster


@contextlib.contextmanager
def unstarted_cluster(directory: Path, base_port: int, source: Path = ROOT) -> Iterator[BenchCluster]:
    """Yield a cluster that is not started, and stop it at the end."""
    cluster = BenchCluster(directory / f"cluster-{secrets.token_hex(4)}", base_port, source)
    try:
        yield cluster
    finally:
        cluster.stop()


def get(node: BenchNode, path: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON body of a GET; status 0 if there is no answer."""
    connection = http.client.HTTPConnection(HOST, node.port, timeout=2.0)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, msgspec.json.decode(answer.read(), type=dict[str, Any])
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return 0, {}
    finally:
        connection.close()
