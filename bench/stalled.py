"""The effect of a stopped or unreachable peer on traffic to a healthy peer: throughput and memory.

There are three processes (``bench.flood``): a sender keeps a window of small messages in flight to a healthy peer, and
sends larger ones at a steady rate to another peer, which is stopped or cut off for a while. On a machine that other
programs use, the throughput of the window depends on them. So a second variant sends small messages at a steady rate,
which shows whether any are held up, and the sender's processor time per message shows whether it has more work.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.cluster import ROOT
from bench.flood import HEALTHY, OTHER, CounterFile, FloodSettings
from bench.flood_node import FloodPlan
from bench.flood_stock import FloodProcesses
from bench.machine import BenchError, machine_cpu_s, process_cpu_s
from bench.report import spread, table

STEADY, FLOODED, STOCK = "ours, at a steady rate", "ours, as fast as it goes", "multiprocTCPBase"
BASES = (STEADY, FLOODED, STOCK)
STOPPED, BLACK_HOLE = "SIGSTOP", "black hole"

_FLOOD = FloodSettings(window=500, acknowledged_each=50, other_bytes=32 << 10, other_rate=500)
SETTINGS = {FLOODED: _FLOOD, STEADY: msgspec.structs.replace(_FLOOD, healthy_rate=20_000)}

SAMPLE_S = 0.05
WITHIN_S = 30.0
STOP_S = 10.0
_PAGE = os.sysconf("SC_PAGE_SIZE")

# Each peer has its own pair of addresses, so that a fault can match the packets to and from the other peer.
SENDER_FOR_HEALTHY, SENDER_FOR_OTHER = "127.0.0.12", "127.0.0.13"
HEALTHY_HOST, OTHER_HOST = "127.0.0.2", "127.0.0.3"


class Flood(NamedTuple):
    """A running flood: the process ids of the sender and of the other peer, and all process sessions."""

    counters: CounterFile
    sender: int
    other: int
    sessions: Sequence[int]
    rules: Sequence[Sequence[str]]
    """The iptables matches for packets to and from the other peer."""


class Times(NamedTuple):
    """How long a fault lasts, and how long the measurements before and after it are.

    Each of those two begins ``warm_up_s`` after the start or after the fault, when connections are up again.
    """

    fault_s: float = 30.0
    around_s: float = 15.0
    warm_up_s: float = 3.0


class Phase(msgspec.Struct, frozen=True):
    """A measurement: small messages a second at the healthy peer, and the longest pause between two.

    ``sender_us`` is all processor time of the sender, per small message; ``most_mib`` is its highest memory use.
    """

    rate: float
    pause_ms: float
    sender_us: float
    most_mib: float


class Stall(msgspec.Struct, frozen=True):
    """One fault, with the phases before and after it; ``others`` is the number of processors other programs used."""

    base: str
    fault: str
    before: Phase
    during: Phase
    after: Phase
    others: float

    @property
    def ratio(self) -> float:
        """The rate during the fault, relative to the mean of the rates before and after it."""
        return self.during.rate / max(1.0, (self.before.rate + self.after.rate) / 2)


def in_own_network(arguments: Sequence[str]) -> None:
    """Run the program again in a network namespace of its own, where packets can be dropped.

    Returns if that is not possible: it needs root, or a system that allows user namespaces.
    """
    if os.environ.get(_MARK):
        return
    command = ["unshare", "--net", *(["--map-root-user"] if os.geteuid() else [])]
    trial = "ip link set lo up && iptables -w -A OUTPUT -d 127.0.0.3 -j DROP"
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run([*command, "sh", "-c", trial], capture_output=True).returncode == 0:
            program = [*command, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *arguments]
            os.execvpe(command[0], program, os.environ | {_MARK: "1"})


_MARK = "RAFTKV_BENCH_OWN_NETWORK"


def faults() -> list[str]:
    """Return the faults that can be injected here."""
    return [STOPPED, BLACK_HOLE] if os.environ.get(_MARK) else [STOPPED]


def measure_stall(base: str, fault: str, times: Times, port: int) -> Stall:
    """Start a flood, inject the fault for a while, and measure before, during and after it."""
    with stock_flood(port) if base == STOCK else event_loop_flood(port, SETTINGS[base]) as flood:
        time.sleep(times.warm_up_s)
        others_s, started_s = others_cpu_s(flood), time.monotonic()
        before = watch(flood, times.around_s)
        with faulty(flood, fault):
            during = watch(flood, times.fault_s)
        time.sleep(times.warm_up_s)
        after = watch(flood, times.around_s)
        others = (others_cpu_s(flood) - others_s) / (time.monotonic() - started_s)
        return Stall(base, fault, before, during, after, others)


def others_cpu_s(flood: Flood) -> float:
    """Return the processor time of all processes except those of the flood and this one."""
    ours = [pid for leader in flood.sessions for pid in session_of(leader)]
    return machine_cpu_s() - sum(map(process_cpu_s, [*ours, os.getpid()]))


@contextlib.contextmanager
def faulty(flood: Flood, fault: str) -> Iterator[None]:
    """Stop the other peer, or drop all packets to and from it."""
    if fault == STOPPED:
        os.kill(flood.other, signal.SIGSTOP)
        while _stat(flood.other)[0] != "T":
            time.sleep(0.001)
    else:
        _packets("-A", flood)
    try:
        yield
    finally:
        if fault == STOPPED:
            os.kill(flood.other, signal.SIGCONT)
        else:
            _packets("-D", flood)


def _packets(change: str, flood: Flood) -> None:
    for rule in flood.rules:
        subprocess.run(["iptables", "-w", change, "OUTPUT", *rule, "-j", "DROP"], check=True)


def watch(flood: Flood, seconds: float) -> Phase:
    """Measure the flood for ``seconds``."""
    started_s = moved_s = now_s = time.monotonic()
    first = last = flood.counters.get(0)
    pause_s, cpu_s = 0.0, process_cpu_s(flood.sender)
    most = memory_mib(flood.sender)
    while now_s < started_s + seconds:
        time.sleep(SAMPLE_S)
        now_s, count = time.monotonic(), flood.counters.get(0)
        pause_s = max(pause_s, now_s - moved_s)
        if count != last:
            last, moved_s = count, now_s
        most = max(most, memory_mib(flood.sender))
    sender_us = (process_cpu_s(flood.sender) - cpu_s) * 1e6 / max(1, last - first)
    return Phase((last - first) / (now_s - started_s), pause_s * 1000, sender_us, most)


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / (1 << 20)


# --- Floods.


@contextlib.contextmanager
def event_loop_flood(port: int, settings: FloodSettings) -> Iterator[Flood]:
    """Start a flood between three processes with our base, on ``port`` and the next two ports."""
    sender_port, healthy_port, other_port = port, port + 1, port + 2
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        path = Path(directory) / "counters"
        counters = CounterFile.create(path)
        peers = {HEALTHY: f"{HEALTHY_HOST}:{healthy_port}", OTHER: f"{OTHER_HOST}:{other_port}"}
        plans = [
            FloodPlan("n1", f"0.0.0.0:{sender_port}", peers, str(path), settings),
            FloodPlan(HEALTHY, peers[HEALTHY], {"n1": f"{SENDER_FOR_HEALTHY}:{sender_port}"}, str(path), settings, 0),
            FloodPlan(OTHER, peers[OTHER], {"n1": f"{SENDER_FOR_OTHER}:{sender_port}"}, str(path), settings, 1),
        ]
        nodes = [stack.enter_context(_program("bench.flood_node", msgspec.json.encode(p).decode())) for p in plans]
        for node in nodes:
            _line(node)
        _begin(nodes[0])
        hosts = (OTHER_HOST, SENDER_FOR_OTHER)
        rules = [[flag, host] for host in hosts for flag in ("-s", "-d")]
        yield Flood(counters, nodes[0].pid, nodes[2].pid, [node.pid for node in nodes], rules)


@contextlib.contextmanager
def stock_flood(port: int) -> Iterator[Flood]:
    """Start the same flood on Thespian's multiprocTCPBase."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "counters"
        counters = CounterFile.create(path)
        with _program("bench.flood_stock", str(port), str(path)) as system:
            processes = msgspec.json.decode(_line(system), type=FloodProcesses)
            _begin(system)
            rules = [["-p", "tcp", flag, str(processes.port)] for flag in ("--sport", "--dport")]
            yield Flood(counters, processes.sender, processes.other, [system.pid], rules)


@contextlib.contextmanager
def _program(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of our programs in a session of its own; kill what is left of the session at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        for pid in session_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def session_of(leader: int) -> list[int]:
    """Return the processes of a session: Thespian forks processes that outlive the one we started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(_stat(int(path.parent.name))[3]) == leader:
                found.append(int(path.parent.name))
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat``, from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a program prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchError(f"{process.args!r} has ended without a word")
    return line


def _begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("begin\n")
    process.stdin.flush()


# --- The table.


def stalls_table(stalls: Sequence[Stall]) -> str:
    """Return a table with a line for each base and fault."""
    headings = (
        *("other peer", "base", "rounds", "before, a second", "during", "relative", "after"),
        *("longest pause, ms", "sender, µs each, before", "during", "memory before, MiB", "highest during", "others"),
    )
    kinds = dict.fromkeys((stall.fault, stall.base) for stall in stalls)
    return table(headings, [_line_of([s for s in stalls if (s.fault, s.base) == kind]) for kind in kinds])


def _line_of(stalls: Sequence[Stall]) -> list[str]:
    def of(value: Callable[[Stall], float], form: str) -> str:
        return spread([value(stall) for stall in stalls], form)

    return [
        stalls[0].fault,
        stalls[0].base,
        str(len(stalls)),
        of(lambda stall: stall.before.rate, ",.0f"),
        of(lambda stall: stall.during.rate, ",.0f"),
        of(lambda stall: stall.ratio, ".1%"),
        of(lambda stall: stall.after.rate, ",.0f"),
        of(lambda stall: stall.during.pause_ms, ",.0f"),
        of(lambda stall: stall.before.sender_us, ".1f"),
        of(lambda stall: stall.during.sender_us, ".1f") if stalls[0].base != STOCK else "",
        format(statistics.median(stall.before.most_mib for stall in stalls), ".0f"),
        of(lambda stall: stall.during.most_mib, ".0f"),
        of(lambda stall: stall.others, ".1f"),
    ]
