"""Clusters of real node processes on loopback, which a test starts, kills, freezes and looks at.

Nothing of a cluster outlives it: its processes end with it, and with ours if that is killed.
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
"""How long anything may take on a machine that is busy with other things; nothing here is fast because of it."""

POLL_S = 0.02
ASK_TIMEOUT_S = PATIENCE_S
ANSWER_S = 30
"""The timeout of a request that is to succeed."""

LOG_LINES = 120

# Small, so that a test fills several segments, and the files of many clusters take little of the disk.
SMALL = {"key-bytes": "1KiB", "value-bytes": "64KiB", "append-bytes": "64KiB", "segment-bytes": "192KiB"}

CALM = {"heartbeat_ms": "200", "election_min_ms": "1000", "election_max_ms": "2000"}
"""Settings with which no leader is replaced only because the machine is busy, and no refusal comes too late."""

Found = TypeVar("Found")


def wait_for(look: Callable[[], Found | None], what: Callable[[], str] | str, within_s: float = PATIENCE_S) -> Found:
    """Look again and again until something is found, and return it."""
    deadline_s = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {within_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(POLL_S)
    return found


class Reserved:
    """A free port that stays ours: bound, but not listened on, so that the system gives it to nobody else.

    A node that listens there again after it was killed would otherwise find it taken, now and then, by one of the
    many connections that come and go in a test.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        # Whoever sets this too may listen on the port meanwhile, as servers do.
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
        """What an error says of what was asked for: ``not_done``, ``unknown``, or None where there is no error."""
        return None if self.status == 200 else self.body["error"]["outcome"]


def ask(
    port: int,
    method: str,
    path: str,
    body: object = None,
    timeout_s: float = ASK_TIMEOUT_S,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Do one request on a connection of its own; raises ``OSError`` or ``HTTPException``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, json.loads(answer.read()), dict(answer.headers.items()))


class Node:
    """One node: its places, and its process while it has one."""

    def __init__(self, node_id: str, directory: Path) -> None:
        self.id = node_id
        self.directory = directory / node_id
        self.log_path = directory / f"{node_id}.log"
        self._http, self._raft = Reserved(), Reserved()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

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
        """All that it has said, in all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self, cluster: str, settings: Mapping[str, str]) -> None:
        """Start its process, which ends when ours does."""
        assert self._process is None, f"{self.id} runs already"
        flags = {
            "id": self.id,
            "http": f"127.0.0.1:{self.http}",
            "raft": f"127.0.0.1:{self.raft}",
            "cluster": cluster,
            "data-dir": str(self.directory),
            **settings,
        }
        self._line, its_end = socket.socketpair()
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
        """Write into its log what is done to it."""
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
        """Return the exit status of a process that has ended by itself."""
        return None if self._process is None else self._process.poll()

    def freeze(self) -> None:
        """Stop its process where it is, as a machine does that swaps or is being moved."""
        self.signal(signal.SIGSTOP)
        wait_for(self._stands_still, f"{self.id} stands still")

    def _stands_still(self) -> bool:
        """Whether every thread has stopped: a signal takes its time to reach them."""
        states = [
            path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{self.pid}/task").glob("*/stat")
        ]
        return all(state == "T" for state in states)

    def close(self) -> None:
        """Leave nothing behind, in whatever state it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()
        self._http.close()
        self._raft.close()

    def _forget(self) -> None:
        self._process = None
        if self._line is not None:
            self._line.close()


class Cluster:
    """Nodes ``n1``, ``n2`` … that know each other; none of them is started by making this."""

    def __init__(self, directory: Path, size: int = 3, **settings: str) -> None:
        self.directory = directory
        self.settings = SMALL | {name.replace("_", "-"): value for name, value in settings.items()}
        self.expected_complaints: list[str] = []
        """Texts of errors that this test causes."""
        self.nodes = {f"n{number}": Node(f"n{number}", directory) for number in range(1, size + 1)}

    def __getitem__(self, node_id: str) -> Node:
        return self.nodes[node_id]

    @property
    def ids(self) -> list[str]:
        """All nodes, whether they run or not."""
        return list(self.nodes)

    @property
    def running(self) -> list[str]:
        """The nodes that run."""
        return [node.id for node in self.nodes.values() if node.runs]

    @property
    def initial_cluster(self) -> str:
        """What every node is told of the others."""
        return self.list_of(*self.ids)

    def list_of(self, *ids: str) -> str:
        """Return a start list of these nodes."""
        return ",".join(f"{node_id}=127.0.0.1:{self.nodes[node_id].raft}" for node_id in ids)

    def add(self, node_id: str) -> Node:
        """Return a further node, which the others do not know of."""
        node = self.nodes[node_id] = Node(node_id, self.directory)
        return node

    def start(self, *ids: str, initial_cluster: str | None = None, **settings: str) -> None:
        """Start these nodes, or all that do not run."""
        own = {name.replace("_", "-"): value for name, value in settings.items()}
        for node_id in ids or [node.id for node in self.nodes.values() if not node.runs]:
            self[node_id].start(initial_cluster or self.initial_cluster, self.settings | own)

    def kill(self, *ids: str) -> None:
        """Kill these nodes, or all, with SIGKILL: all of them get it before the first is waited for."""
        killed = ids or tuple(self.running)
        for node_id in killed:
            self[node_id].signal(signal.SIGKILL)
        for node_id in killed:
            self[node_id].wait()

    def terminate(self, *ids: str) -> dict[str, int]:
        """Stop these nodes, or all, with SIGTERM; return their exit statuses."""
        told = ids or tuple(self.running)
        for node_id in told:
            self[node_id].signal(signal.SIGTERM)
        return {node_id: self[node_id].wait() for node_id in told}

    def close(self) -> None:
        """Leave nothing behind."""
        for node in self.nodes.values():
            node.close()

    # --- looking

    def ask(self, node_id: str, method: str, path: str, body: object = None, **options: Any) -> Answer:
        """Do one request at a node; raises ``OSError`` or ``HTTPException``."""
        return ask(self[node_id].http, method, path, body, **options)

    def put(self, node_id: str, key: str, value: str) -> Answer:
        """Write a key through a node."""
        return self.ask(node_id, "PUT", f"/keys/{key}/?timeout={ANSWER_S}", {"value": value})

    def get(self, node_id: str, key: str, level: str = "linearizable") -> Any:
        """Return a key's value as a node has it; None if it is not there."""
        answer = self.ask(node_id, "GET", f"/keys/{key}/?missing=404&level={level}&timeout={ANSWER_S}")
        assert answer.status in (200, 404), answer
        return answer.body["value"] if answer.status == 200 else None

    def status(self, node_id: str) -> dict[str, Any] | None:
        """Return what a node says of itself; None while it says nothing."""
        self.check_alive()
        if not self[node_id].runs:
            return None
        try:
            answer = self.ask(node_id, "GET", "/status", timeout_s=2.0)
        except (OSError, http.client.HTTPException):
            return None
        return answer.body if answer.status == 200 else None

    def statuses(self) -> dict[str, dict[str, Any] | None]:
        """Return what the nodes that run say of themselves."""
        return {node_id: self.status(node_id) for node_id in self.running}

    def check_alive(self) -> None:
        """Raise if a node has ended by itself."""
        died = {node.id: status for node in self.nodes.values() if (status := node.died()) is not None}
        assert not died, f"ended by themselves: {died}"

    def wait_for_status(
        self, node_id: str, holds: Callable[[dict[str, Any]], bool] = bool, what: str = "a status"
    ) -> dict[str, Any]:
        """Return the first status of a node for which this holds."""

        def look() -> dict[str, Any] | None:
            status = self.status(node_id)
            return status if status is not None and holds(status) else None

        return wait_for(look, lambda: f"{what}; {node_id} says {self.status(node_id)}")

    def wait_for_leader(self, *among: str, not_in: tuple[str, ...] = ()) -> str:
        """Return the leader that these nodes, or all that run, agree upon; it is none of ``not_in``."""

        def look() -> str | None:
            statuses = [self.status(node_id) for node_id in among or self.running]
            told = {(status["leader"], status["term"]) if status else None for status in statuses}
            agreed = told.pop() if len(told) == 1 else None
            leads = agreed and agreed[0] in self.nodes and agreed[0] not in not_in
            return agreed[0] if agreed and leads and (self.status(agreed[0]) or {}).get("role") == "leader" else None

        return wait_for(look, lambda: f"a leader; {self.statuses()}")

    def wait_until_equal(self) -> None:
        """Return when every node that runs has applied everything that is in the leader's log."""

        def look() -> bool:
            statuses = list(self.statuses().values())
            if None in statuses:
                return False
            places = {(s["last_applied"], s["last_log_index"], s["term"], s["leader"]) for s in statuses if s}
            return len(places) == 1 and all(applied == last and leader for applied, last, _, leader in places)

        wait_for(look, lambda: f"all nodes have applied everything; {self.statuses()}")

    def wait_for_log(self, node_id: str, text: str, after: int = 0) -> str:
        """Return the first line of a node's log with this text, from character ``after`` on."""

        def look() -> str | None:
            return next((line for line in self[node_id].log[after:].splitlines() if text in line), None)

        return wait_for(look, lambda: f"{text!r} in the log of {node_id}")

    # --- telling

    def complaints(self) -> list[str]:
        """Return the lines of all logs that no node should ever write, but for those that are expected."""
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
    """Let a fault last: this is what the fault is, and nothing is expected to have happened by its end."""
    time.sleep(seconds)


def rounds(default: int) -> int:
    """Return how often a test repeats what it does: ``RAFTKV_ROUNDS`` times, for those who have more time."""
    return int(os.environ.get("RAFTKV_ROUNDS") or default)


def timeout_s(default_rounds: int, round_s: int) -> int:
    """Return when a test of so many rounds is given up as hanging."""
    return 120 + round_s * rounds(default_rounds)
