"""Two versions side by side: their rounds alternate, so that both meet the same machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.cluster import ROOT, new_cluster
from bench.machine import BenchError
from bench.throughput import Case, Figures, fill, measure


@contextlib.contextmanager
def checkout(revision: str, directory: Path) -> Iterator[Path]:
    """Give a checkout of ``revision``; where that is the path of a checkout, this very one."""
    if (Path(revision) / "raftkv" / "__main__.py").exists():
        yield _checked(Path(revision).resolve())
        return
    # A copy of its files, rather than a worktree: the repository learns nothing of it, however this ends.
    with tempfile.TemporaryDirectory(prefix="checkout-", dir=directory) as copy:
        archive = Path(copy) / "archive.tar"
        command = ["git", "archive", "--format=tar", f"--output={archive}", revision]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"--against: {revision} can't be checked out: {done.stderr.strip()}")
        with tarfile.open(archive) as files:
            files.extractall(copy, filter="data")
        yield _checked(Path(copy))


def _checked(source: Path) -> Path:
    """Return ``source`` if a process that starts there runs what is in there, and nothing that was installed."""
    command = [sys.executable, "-c", "import raftkv; print(raftkv.__file__)"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if done.returncode or not Path(done.stdout.strip()).resolve().is_relative_to(source.resolve()):
        raise BenchError(f"--against: in {source} runs not what is there: {done.stdout.strip() or done.stderr.strip()}")
    return source


def compare_round(
    number: int,
    sources: tuple[Path, Path],
    cases: Sequence[Case],
    directory: Path,
    base_port: int,
    seconds: float,
    warm_up_s: float,
) -> tuple[list[Figures], list[Figures]]:
    """Measure both, each with new data; who begins alternates with the round's number."""
    found: dict[Path, list[Figures]] = {}
    for source in sources if number % 2 == 0 else reversed(sources):
        with new_cluster(directory, base_port, source) as cluster:
            fill(cluster)
            found[source] = [measure(cluster, case, seconds, warm_up_s) for case in cases]
    return found[sources[0]], found[sources[1]]
