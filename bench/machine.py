"""The machine: its processor and disk, and how much of it other programs use."""

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
    """The measurement cannot be done; the message is one line for the user."""


class MachineInfo(msgspec.Struct, frozen=True):
    """The properties of the machine on which figures depend.

    ``sync_ms`` is the median time to write and sync one sector in place.
    """

    system: str
    processor: str
    cores: int
    python: str
    file_system: str
    sync_ms: float

    def __str__(self) -> str:
        """Return a description on one line."""
        disk = f"{self.file_system}, a synced 512-byte write takes {self.sync_ms:.2f} ms (median)"
        return f"{self.cores} cores ({self.processor}), {self.system}, Python {self.python}; disk: {disk}"


def describe(directory: Path) -> MachineInfo:
    """Return the properties of this machine and of the disk under ``directory``; raises ``BenchError``."""
    return MachineInfo(
        f"{platform.system()} {platform.release()}",
        _processor(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        platform.python_version(),
        checked_file_system(directory),
        measure_sync(directory),
    )


def checked_file_system(directory: Path) -> str:
    """Return the type of the file system of ``directory``; raises ``BenchError`` if it is in memory.

    On systems other than Linux it is ``unknown``.
    """
    mounts = Path("/proc/self/mounts")
    found = file_system(directory.resolve(), mounts.read_text()) if mounts.exists() else "unknown"
    if found in IN_MEMORY:
        raise BenchError(f"{directory} is in memory ({found}), where a sync is free: choose another --directory")
    return found


def file_system(directory: Path, mounts: str) -> str:
    """Return the type of the file system of an absolute path, given the content of ``/proc/self/mounts``."""
    found, longest = "unknown", 0
    for _, point, kind, *_ in (line.split() for line in mounts.splitlines()):
        # Of several mounts at the same place, the last one is on top.
        if directory.is_relative_to(point) and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def measure_sync(directory: Path) -> float:
    """Return the median time in ms to write and sync one sector, as the journal does."""
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
    """Restrict this process and its future children to one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def load_average() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def process_cpu_s(pid: int) -> float:
    """Return the processor time of a process in seconds, or 0 if it cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_cpu_s() -> float:
    """Return the processor time of all processes in seconds, or 0 if it cannot be read."""
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
