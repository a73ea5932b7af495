"""Clusters of real node processes on loopback, which a test starts, kills, freezes and inspects.

No process of a cluster outlives it, not even when the test process is killed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.support.processes import ROOT, environment

PATIENCE_S = 45.0
"""Deadline for anything, long enough for a busy machine; no test waits that long when all is well."""

POLL_S = 0.02
ASK_TIMEOUT_S = PATIENCE_S
ANSWER_S = 30
"""The timeout of a request that must succeed."""

LOG_LINES = 120

# Small, so that a test fills several segments and the files of many clusters take little space.
SMALL = {"key-bytes": "1KiB", "value-bytes": "64KiB", "append-bytes": "64KiB", "segment-bytes": "192KiB"}

CALM = {"heartbeat_ms": "200", "election_min_ms": "1000", "election_max_ms": "2000"}
"""Settings with which a busy machine alone replaces no leader, and every refusal comes in time."""

Found = TypeVar("Found")


def wait_for(look: Callable[[], Found | None], what: Callable[[], str] | str, within_s: float = PATIENCE_S) -> Found:
    """Poll until ``look`` finds something, and return it; fails after ``within_s`` with ``what``."""
    deadline_s = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {within_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(POLL_S)
    return found


class Reserved:
    """A free port, kept by a socket that is bound but does not listen, so that the system does not give it away.

    Otherwise one of the many connections of a test would now and then take the port of a node between its kill and its
    restart.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        # Another socket with this option, as servers have it, may listen on the port meanwhile.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give it back."""
        self._socket.close()


class Answer(NamedTuple):
    """What a node answered; ``body`` is decoded JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def outcome(self) -> str | None:
        """The outcome that an error states, ``not_done`` or ``unknown``; None without an error."""
        return None if self.status == 200 else self.body["error"]["outcome"]


def ask(
    port: int,
    method: str,
    path: str,
    body: object = None,
    timeout_s: float = ASK_TIMEOUT_S,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request on a new connection; raises ``OSError`` or ``HTTPException``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, json.loads(answer.read()), dict(answer.headers.items()))


class Node:
    """One node: its ports and files, and its process while it runs."""

    def __init__(self, node_id: str, directory: Path) -> None:
        self.id = node_id
        self.directory = directory / node_id
        self.log_path = directory / f"{node_id}.log"
        self._http, self._raft = Reserved(), Reserved()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: socket.socket | None = None

    @property
    def http(self) -> int:
        """The port for clients."""
        return self._http.port

    @property
    def raft(self) -> int:
        """The port for the other nodes."""
        return self._raft.port

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None, f"{self.id} has no process"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started, and has not been stopped since."""
        return self._process is not None

    @property
    def log(self) -> str:
        """Its log, of all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self, cluster: str, settings: Mapping[str, str]) -> None:
        """Start its process, which ends when this process does."""
        assert self._process is None, f"{self.id} runs already"
        flags = {
            "id": self.id,
            "http": f"127.0.0.1:{self.http}",
            "raft": f"127.0.0.1:{self.raft}",
            "cluster": cluster,
            "data-dir": str(self.directory),
            **settings,
        }
        self._pipe, its_end = socket.socketpair()
        with its_end, self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "raftkv", "serve", "--events-fd", str(its_end.fileno())),
                    *(part for name, value in flags.items() for part in (f"--{name}", value)),
                ],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(its_end.fileno(),),
            )
        self.note(f"started as process {self._process.pid}")

    def note(self, text: str) -> None:
        """Write a line into its log about what the test does to it."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        with self.log_path.open("a") as log:
            log.write(f"{stamp} ------- {self.id} {text}\n")

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        assert self._process is not None, f"{self.id} does not run"
        self.note(f"gets {number.name}")
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return the exit status, once its process has ended."""
        assert self._process is not None, f"{self.id} does not run"
        status = self._process.wait(PATIENCE_S)
        self.note(f"has ended with status {status}")
        self._forget()
        return status

    def died(self) -> int | None:
        """Return the exit status of a process that ended without being asked."""
        return None if self._process is None else self._process.poll()

    def freeze(self) -> None:
        """Suspend its process, as if its machine were swapping or being migrated."""
        self.signal(signal.SIGSTOP)
        wait_for(self._is_suspended, f"{self.id} is suspended")

    def _is_suspended(self) -> bool:
        """Whether every thread is suspended; the signal reaches them one after another."""
        states = [
            path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{self.pid}/task").glob("*/stat")
        ]
        return all(state == "T" for state in states)

    def close(self) -> None:
        """Kill its process and release its ports."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()
        self._http.close()
        self._raft.close()

    def _forget(self) -> None:
        self._process = None
        if self._pipe is not None:
            self._pipe.close()


class Cluster:
    """Nodes ``n1``, ``n2`` … of one cluster; ``start`` starts them."""

    def __init__(self, directory: Path, size: int = 3, **settings: str) -> None:
        self.directory = directory
        self.settings = SMALL | {name.replace("_", "-"): value for name, value in settings.items()}
        self.expected_complaints: list[str] = []
        """Parts of log lines with errors that the test causes on purpose."""
        self.nodes = {f"n{number}": Node(f"n{number}", directory) for number in range(1, size + 1)}

    def __getitem__(self, node_id: str) -> Node:
        return self.nodes[node_id]

    @property
    def ids(self) -> list[str]:
        """The ids of all nodes, running or not."""
        return list(self.nodes)

    @property
    def running(self) -> list[str]:
        """The ids of the running nodes."""
        return [node.id for node in self.nodes.values() if node.runs]

    @property
    def initial_cluster(self) -> str:
        """The value of --cluster of every node."""
        return self.list_of(*self.ids)

    def list_of(self, *ids: str) -> str:
        """Return a value of --cluster with these nodes."""
        return ",".join(f"{node_id}=127.0.0.1:{self.nodes[node_id].raft}" for node_id in ids)

    def add(self, node_id: str) -> Node:
        """Return a new node, which is not in the configuration of the others."""
        node = self.nodes[node_id] = Node(node_id, self.directory)
        return node

    def start(self, *ids: str, initial_cluster: str | None = None, **settings: str) -> None:
        """Start these nodes, or all that are not running."""
        own = {name.replace("_", "-"): value for name, value in settings.items()}
        for node_id in ids or [node.id for node in self.nodes.values() if not node.runs]:
            self[node_id].start(initial_cluster or self.initial_cluster, self.settings | own)

    def kill(self, *ids: str) -> None:
        """Send SIGKILL to these nodes, or to all, and then wait for each."""
        killed = ids or tuple(self.running)
        for node_id in killed:
            self[node_id].signal(signal.SIGKILL)
        for node_id in killed:
            self[node_id].wait()

    def terminate(self, *ids: str) -> dict[str, int]:
        """Stop these nodes, or all, with SIGTERM; return their exit statuses."""
        stopped = ids or tuple(self.running)
        for node_id in stopped:
            self[node_id].signal(signal.SIGTERM)
        return {node_id: self[node_id].wait() for node_id in stopped}

    def close(self) -> None:
        """Kill all processes and release all ports."""
        for node in self.nodes.values():
            node.close()

    # --- Requests and observations.

    def ask(self, node_id: str, method: str, path: str, body: object = None, **options: Any) -> Answer:
        """Send one request to a node; raises ``OSError`` or ``HTTPException``."""
        return ask(self[node_id].http, method, path, body, **options)

    def put(self, node_id: str, key: str, value: str) -> Answer:
        """Write a key through a node."""
        return self.ask(node_id, "PUT", f"/keys/{key}/?timeout={ANSWER_S}", {"value": value})

    def get(self, node_id: str, key: str, level: str = "linearizable") -> Any:
        """Return the value of a key read through a node; None if there is none."""
        answer = self.ask(node_id, "GET", f"/keys/{key}/?missing=404&level={level}&timeout={ANSWER_S}")
        assert answer.status in (200, 404), answer
        return answer.body["value"] if answer.status == 200 else None

    def status(self, node_id: str) -> dict[str, Any] | None:
        """Return the body of a node's /status; None while it does not answer."""
        self.check_alive()
        if not self[node_id].runs:
            return None
        try:
            answer = self.ask(node_id, "GET", "/status", timeout_s=2.0)
        except (OSError, http.client.HTTPException):
            return None
        return answer.body if answer.status == 200 else None

    def statuses(self) -> dict[str, dict[str, Any] | None]:
        """Return the status of every running node."""
        return {node_id: self.status(node_id) for node_id in self.running}

    def check_alive(self) -> None:
        """Raise if a node ended without being asked."""
        died = {node.id: status for node in self.nodes.values() if (status := node.died()) is not None}
        assert not died, f"ended without being asked: {died}"

    def wait_for_status(
        self, node_id: str, holds: Callable[[dict[str, Any]], bool] = bool, what: str = "a status"
    ) -> dict[str, Any]:
        """Wait for a status of a node for which ``holds`` is true, and return it."""

        def look() -> dict[str, Any] | None:
            status = self.status(node_id)
            return status if status is not None and holds(status) else None

        return wait_for(look, lambda: f"{what}; status of {node_id}: {self.status(node_id)}")

    def wait_for_leader(self, *among: str, not_in: tuple[str, ...] = ()) -> str:
        """Wait until these nodes, or all that run, agree on a leader that is not in ``not_in``, and return it."""

        def look() -> str | None:
            statuses = [self.status(node_id) for node_id in among or self.running]
            views = {(status["leader"], status["term"]) if status else None for status in statuses}
            agreed = views.pop() if len(views) == 1 else None
            leads = agreed and agreed[0] in self.nodes and agreed[0] not in not_in
            return agreed[0] if agreed and leads and (self.status(agreed[0]) or {}).get("role") == "leader" else None

        return wait_for(look, lambda: f"a leader; {self.statuses()}")

    def wait_until_equal(self) -> None:
        """Wait until every running node has applied the whole log of the leader."""

        def look() -> bool:
            statuses = list(self.statuses().values())
            if None in statuses:
                return False
            places = {(s["last_applied"], s["last_log_index"], s["term"], s["leader"]) for s in statuses if s}
            return len(places) == 1 and all(applied == last and leader for applied, last, _, leader in places)

        wait_for(look, lambda: f"all nodes have applied everything; {self.statuses()}")

    def wait_for_log(self, node_id: str, text: str, after: int = 0) -> str:
        """Wait for a line with this text in a node's log, from character ``after`` on, and return it."""

        def look() -> str | None:
            return next((line for line in self[node_id].log[after:].splitlines() if text in line), None)

        return wait_for(look, lambda: f"{text!r} in the log of {node_id}")

    # --- Reports.

    def complaints(self) -> list[str]:
        """Return the log lines that report errors, except the expected ones."""
        bad = re.compile(r"^raftkv: | (ERROR|CRITICAL) |^\s*Traceback |was never (awaited|retrieved)")
        lines = [line for node in self.nodes.values() for line in node.log.splitlines() if bad.search(line)]
        return [line for line in lines if not any(expected in line for expected in self.expected_complaints)]

    def report(self) -> Iterator[tuple[str, str]]:
        """Return (title, text) for each node: the end of its log."""
        for node in self.nodes.values():
            lines = node.log.splitlines()
            left_out = f"… {len(lines) - LOG_LINES} lines before: {node.log_path}\n" if len(lines) > LOG_LINES else ""
            yield f"log of {node.id}", left_out + "\n".join(lines[-LOG_LINES:])


MakeCluster = Callable[..., Cluster]
"""A fixture: takes the size and the settings of a cluster, and closes it after the test."""


def suspend_for(seconds: float) -> None:
    """Let a fault last this long; the duration is the fault itself, not a wait for something to happen."""
    time.sleep(seconds)


def rounds(default: int) -> int:
    """Return the number of rounds of a test: ``RAFTKV_ROUNDS``, or else ``default``."""
    return int(os.environ.get("RAFTKV_ROUNDS") or default)


def timeout_s(default_rounds: int, round_s: int) -> int:
    """Return the timeout of a test with so many rounds."""
    return 120 + round_s * rounds(default_rounds)
