"""The machine that is measured on: its disk, and who uses its processors meanwhile."""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path
from time import perf_counter

import msgspec

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_SYNCS = 200


class BenchError(Exception):
    """Nothing can be measured; the message is one line for people."""


class MachineInfo(msgspec.Struct, frozen=True):
    """What figures depend on; ``sync_ms`` is the median time to write and sync one sector in place."""

    system: str
    processor: str
    cores: int
    python: str
    file_system: str
    sync_ms: float

    def __str__(self) -> str:
        """Return all of it in one line."""
        disk = f"{self.file_system}, a synced 512-byte write takes {self.sync_ms:.2f} ms (median)"
        return f"{self.cores} cores ({self.processor}), {self.system}, Python {self.python}; disk: {disk}"


def describe(directory: Path) -> MachineInfo:
    """Return what this machine is like, with the disk that ``directory`` is on; raises ``BenchError``."""
    return MachineInfo(
        f"{platform.system()} {platform.release()}",
        _processor(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        platform.python_version(),
        checked_file_system(directory),
        measure_sync(directory),
    )


def checked_file_system(directory: Path) -> str:
    """Return the type of the file system ``directory`` is on; raises ``BenchError`` if it is in memory.

    Where that can't be told, as on systems other than Linux, it is ``unknown``.
    """
    mounts = Path("/proc/self/mounts")
    found = file_system(directory.resolve(), mounts.read_text()) if mounts.exists() else "unknown"
    if found in IN_MEMORY:
        raise BenchError(f"{directory} is in memory ({found}), where a sync costs nothing: choose another --directory")
    return found


def file_system(directory: Path, mounts: str) -> str:
    """Return the type of the file system that an absolute path is on, from what ``/proc/self/mounts`` says."""
    found, longest = "unknown", 0
    for _, point, kind, *_ in (line.split() for line in mounts.splitlines()):
        # Of those mounted at the same place, the last one is on top.
        if directory.is_relative_to(point) and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def measure_sync(directory: Path) -> float:
    """Return the median of the milliseconds that writing and syncing a sector takes, as the journal does it."""
    path = directory / "sync.tmp"
    sync = getattr(os, "fdatasync", os.fsync)
    took = []
    with open(path, "wb+", buffering=0) as file:
        file.write(bytes(512 * _SYNCS))
        os.fsync(file.fileno())
        for number in range(_SYNCS):
            started = perf_counter()
            os.pwrite(file.fileno(), b"x" * 512, 512 * number)
            sync(file.fileno())
            took.append((perf_counter() - started) * 1000)
    path.unlink()
    return statistics.median(took)


def use_one_core() -> None:
    """Keep this process, and those that it starts from now on, on one of the cores that it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def load_average() -> float:
    """Return how many processes wanted a processor during the last minute."""
    return os.getloadavg()[0]


def process_cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, or 0 where that can't be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_cpu_s() -> float:
    """Return the processor time that all processes have used, or 0 where that can't be told."""
    try:
        user, nice, system, _, _, irq, soft_irq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    except OSError:
        return 0.0
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
