"""Compare two versions: their rounds alternate, so that both are measured under the same conditions."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.cluster import ROOT, new_cluster
from bench.machine import BenchError
from bench.options import BenchOptions
from bench.throughput import Figures, fill, measure


@contextlib.contextmanager
def checkout(revision: str, directory: Path) -> Iterator[Path]:
    """Yield the path of a checkout of ``revision``, which may also be the path of a checkout itself."""
    if (Path(revision) / "raftkv" / "__main__.py").exists():
        yield _checked(Path(revision).resolve())
        return
    # A copy rather than a worktree: it leaves no trace in the repository, however this ends.
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
    """Return ``source`` if a process that starts there imports the code in it and not an installed package."""
    command = [sys.executable, "-c", "import raftkv; print(raftkv.__file__)"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if done.returncode or not Path(done.stdout.strip()).resolve().is_relative_to(source.resolve()):
        found = done.stdout.strip() or done.stderr.strip()
        raise BenchError(f"--against: a process in {source} does not import the code there: {found}")
    return source


def compare_round(
    number: int, sources: tuple[Path, Path], options: BenchOptions
) -> tuple[list[Figures], list[Figures]]:
    """Measure both versions, each on a new cluster; which one is first alternates with ``number``."""
    found: dict[Path, list[Figures]] = {}
    for source in sources if number % 2 == 0 else reversed(sources):
        with new_cluster(options.directory, options.base_port, source) as cluster:
            fill(cluster)
            found[source] = [measure(cluster, case, options.seconds, options.warm_up) for case in options.cases]
    return found[sources[0]], found[sources[1]]
