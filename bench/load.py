"""The load: a process that keeps connections busy, one request under way on each, and counts what comes back.

    echo '{"targets": ["127.0.0.1:4001"], "kind": "write", "connections": 64}' | python -m bench.load

It shares the machine with the cluster, so it is made to cost little: plain sockets, requests made beforehand, and a
right answer is recognised by its beginning and its end. Each request waits for the one before it (a closed loop), so
that the latencies are those at this number of connections, not at a given rate.
"""

from __future__ import annotations

import gc
import re
import selectors
import socket
import sys
from collections import Counter, deque
from collections.abc import Iterator
from itertools import cycle
from time import perf_counter_ns, process_time

import msgspec

from bench.histogram import Histogram
from bench.machine import machine_cpu_s, process_cpu_s
from bench.workload import Kind, Request, make_requests

PAUSE_NS = 50_000_000
NEVER_NS = 1 << 62
LEFT_WAITING_S = 1.0
TICK_S = 0.05
CONNECT_TIMEOUT_S = 2.0

_OK = b"HTTP/1.1 200 "
_NEWLINE = 0x0A
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CODE = re.compile(rb'"code":"(\w{1,40})"')


class LoadPlan(msgspec.Struct):
    """What to do: ``connections`` spread evenly over ``targets`` (``host:port``), for a time or a number of requests.

    What is answered during ``warm_up_s`` is not measured. With ``requests``, that many are sent, each once, and there
    is no warm-up. A connection on which nothing came back for ``timeout_s`` is opened anew. ``pids`` are processes of
    which it is to be found out how much processor time they use.
    """

    targets: list[str]
    kind: Kind
    connections: int
    seconds: float = 5.0
    warm_up_s: float = 1.0
    requests: int | None = None
    timeout_s: float = 10.0
    pids: list[int] = []


class LoadResult(msgspec.Struct):
    """What came of it: the nanoseconds that right answers took, by target, within ``seconds``.

    ``errors`` counts everything else by what it was, from the first request on: during the warm-up too. The seconds
    of processor time in that time are the load's own, those of the plan's processes, and those of the whole machine.
    """

    seconds: float
    latencies: list[Histogram]
    errors: dict[str, int]
    own_cpu_s: float
    pids_cpu_s: list[float]
    machine_cpu_s: float

    def all_latencies(self) -> Histogram:
        """Return the latencies at all targets together."""
        merged = Histogram()
        for histogram in self.latencies:
            merged.merge(histogram)
        return merged


class Load:
    """One run of a plan."""

    def __init__(self, plan: LoadPlan) -> None:
        self.errors: Counter[str] = Counter()
        self.begin_ns = self.end_ns = 0
        self._plan = plan
        requests = make_requests(plan.kind)
        self._requests: Iterator[Request] = cycle(requests) if plan.requests is None else self._counted(requests)
        self._selector = selectors.DefaultSelector()
        self._paused: deque[tuple[int, LoadConnection]] = deque()
        self._latencies = [Histogram() for _ in plan.targets]
        self._connections = [self._connection(number) for number in range(plan.connections)]

    def _counted(self, requests: list[Request]) -> Iterator[Request]:
        assert self._plan.requests is not None
        return iter([requests[number % len(requests)] for number in range(self._plan.requests)])

    def _connection(self, number: int) -> LoadConnection:
        which = number % len(self._plan.targets)
        return LoadConnection(self, self._plan.targets[which], self._latencies[which])

    def run(self) -> LoadResult:
        """Do it all and return what came of it."""
        self.begin_ns = started_ns = perf_counter_ns()
        self.end_ns = started_ns + NEVER_NS
        if self._plan.requests is None:
            self.begin_ns += int(self._plan.warm_up_s * 1e9)
            self.end_ns = self.begin_ns + int(self._plan.seconds * 1e9)
        for connection in self._connections:
            connection.begin()
        self._serve_until(self.begin_ns)
        before = self._cpu_s()
        self._serve_until(self.end_ns)
        ended_ns = min(perf_counter_ns(), self.end_ns)
        cpu_s = [now - then for now, then in zip(self._cpu_s(), before, strict=True)]
        for connection in self._connections:
            # Those that the end cuts off are nobody's fault, but no answer at all must not look like no error.
            if connection.sent_ns < ended_ns - int(LEFT_WAITING_S * 1e9):
                self.errors["unanswered at the end"] += 1
            connection.close()
        self._selector.close()
        seconds = (ended_ns - self.begin_ns) / 1e9
        return LoadResult(seconds, self._latencies, dict(self.errors), cpu_s[0], cpu_s[2:], cpu_s[1])

    def _cpu_s(self) -> list[float]:
        return [process_time(), machine_cpu_s(), *map(process_cpu_s, self._plan.pids)]

    def _serve_until(self, end_ns: int) -> None:
        """Take answers until then, or until no connection has anything left to do."""
        select = self._selector.select
        look_ns = 0
        while (now_ns := perf_counter_ns()) < end_ns and (self._selector.get_map() or self._paused):
            for key, _ in select(min(TICK_S, (end_ns - now_ns) / 1e9)):
                key.data.on_readable()
            while self._paused and self._paused[0][0] <= perf_counter_ns():
                self._paused.popleft()[1].begin()
            if now_ns >= look_ns:
                look_ns = now_ns + int(TICK_S * 1e9)
                self._look_for_silence(now_ns - int(self._plan.timeout_s * 1e9))

    def _look_for_silence(self, since_ns: int) -> None:
        for connection in self._connections:
            if connection.socket is not None and connection.sent_ns < since_ns:
                connection.fail("no answer in time")

    # --- What connections need.

    def next_request(self) -> Request | None:
        """Return what to send next, if there is anything left."""
        return next(self._requests, None)

    def watch(self, connection: LoadConnection, opened: socket.socket) -> None:
        """Call ``on_readable`` when there is something to read."""
        self._selector.register(opened, selectors.EVENT_READ, connection)

    def forget(self, closed: socket.socket) -> None:
        """Watch it no longer."""
        self._selector.unregister(closed)

    def pause(self, connection: LoadConnection) -> None:
        """Let ``connection`` begin again, but not at once: a cluster without a leader must not be stormed."""
        self._paused.append((perf_counter_ns() + PAUSE_NS, connection))


class LoadConnection:
    """A connection that is kept alive, with at most one request under way."""

    __slots__ = ("_address", "_got", "_latencies", "_load", "_request", "sent_ns", "socket")

    def __init__(self, load: Load, target: str, latencies: Histogram) -> None:
        host, _, port = target.rpartition(":")
        self._load = load
        self._address = (host, int(port))
        self._latencies = latencies
        self._request = Request(b"", (b"", b""))
        self._got = b""
        # When the request under way was sent; NEVER_NS while there is none.
        self.sent_ns = NEVER_NS
        self.socket: socket.socket | None = None

    def begin(self) -> None:
        """Send a request, on a new connection if there is none."""
        request = self._load.next_request()
        if request is None:
            self.close()
            return
        self._request = request
        try:
            if self.socket is None:
                self.socket = socket.create_connection(self._address, CONNECT_TIMEOUT_S)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.socket.setblocking(False)
                self._load.watch(self, self.socket)
            self.sent_ns = perf_counter_ns()
            # A request is far smaller than what a socket takes at once.
            self.socket.send(request.data)
        except OSError as error:
            self.fail("cannot connect" if self.socket is None else type(error).__name__)

    def on_readable(self) -> None:
        """Read, and go on to the next request when the answer is complete."""
        assert self.socket is not None, "a closed connection is not watched"
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            self.fail(type(error).__name__)
            return
        if not data or self.sent_ns == NEVER_NS:
            self._on_end(data)
            return
        if self._got:
            data = self._got + data
        elif data[0] == _NEWLINE:
            # It ends the answer before, which was complete without it.
            data = data[1:]
        if data.startswith(_OK) and data.endswith(self._request.endings):
            self._got = b""
            now_ns = perf_counter_ns()
            if self._load.begin_ns <= now_ns < self._load.end_ns:
                self._latencies.record(now_ns - self.sent_ns)
            self.sent_ns = NEVER_NS
            self.begin()
        else:
            self._got = data
            if error_text := what_is_wrong(data):
                self.fail(error_text, keep=error_text != "not HTTP" and b"\r\nconnection: close" not in data.lower())

    def _on_end(self, data: bytes) -> None:
        """The other side has closed, or sends what nobody asked for. Closing an idle connection is no error."""
        if self.sent_ns != NEVER_NS:
            self.fail("connection closed")
            return
        if data:
            self._load.errors["more than one answer"] += 1
        self.close()

    def fail(self, why: str, keep: bool = False) -> None:
        """Count an error, and go on a little later; the connection goes too unless ``keep``."""
        self._load.errors[why] += 1
        self._got = b""
        if not keep:
            self.close()
        self.sent_ns = NEVER_NS
        self._load.pause(self)

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self.socket is not None:
            self._load.forget(self.socket)
            self.socket.close()
            self.socket = None


def what_is_wrong(data: bytes) -> str:
    """Return what kind of error an answer is that is not the right one, or nothing if there is more of it to come."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return "" if len(data) < 65536 else "not HTTP"
    status, length = _STATUS.match(data), _LENGTH.search(data, 0, end + 2)
    if status is None or length is None:
        return "not HTTP"
    body = data[end + 4 :]
    if len(body) < int(length[1]):
        return ""
    if status[1] == b"200":
        return "wrong answer"
    code = _CODE.search(body)
    return status[1].decode() + (f" {code[1].decode()}" if code else "")


def main() -> None:
    """Read a plan in JSON, run it, and print what came of it in JSON."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=LoadPlan)
    load = Load(plan)
    # Nothing here makes cycles, and a collection would look like latency.
    gc.disable()
    sys.stdout.buffer.write(msgspec.json.encode(load.run()) + b"\n")


if __name__ == "__main__":
    main()
