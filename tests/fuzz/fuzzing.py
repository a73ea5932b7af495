"""Runs a target on its corpus and on mutations of it, and keeps the inputs that have a new result."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

from tests.fuzz.link_targets import Connections, Frames, Handshakes, Messages
from tests.fuzz.mutation import mutated
from tests.fuzz.request_target import Requests
from tests.fuzz.settings_target import Configuration
from tests.fuzz.storage_targets import Entries, Identities, Journal
from tests.fuzz.target import Target

TARGETS: dict[str, Callable[[], Target]] = {
    "frames": Frames,
    "handshakes": Handshakes,
    "connections": Connections,
    "messages": Messages,
    "journal": Journal,
    "identities": Identities,
    "entries": Entries,
    "requests": Requests,
    "configuration": Configuration,
}
CORPUS = Path(__file__).parent / "corpus"
_MOST_KEPT = 500


class Failed(Exception):
    """The check of a target failed for ``data``; ``__cause__`` is the exception."""

    def __init__(self, target: str, data: bytes, seed: int | None) -> None:
        self.path = CORPUS / target / f"found-{sha256(data).hexdigest()[:12]}"
        again = f"python -m tests.fuzz --target {target}" + (f" --seed {seed}" if seed is not None else "")
        super().__init__(f"{target} fails on {len(data)} bytes: {data[:200]!r}; reproduce with: {again}")
        self.data = data


@dataclass
class Run:
    """The results of a run: the endings, how often each occurred, and the shortest input for each."""

    executions: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    shortest: dict[str, bytes] = field(default_factory=dict)

    def add(self, ending: str, data: bytes) -> bool:
        """Count an input; return whether its ending is new."""
        self.executions += 1
        self.endings[ending] += 1
        if ending not in self.shortest or len(data) < len(self.shortest[ending]):
            self.shortest[ending] = data
        return self.endings[ending] == 1


def corpus(name: str) -> list[tuple[str, bytes]]:
    """Return the file names and contents of the corpus of a target."""
    directory = CORPUS / name
    return [(path.name, path.read_bytes()) for path in sorted(directory.iterdir())] if directory.is_dir() else []


def reduced(target: Target, data: bytes, error: type[Exception]) -> bytes:
    """Return a shorter input that raises an error of the same type, found by leaving out pieces."""
    size = len(data) // 2
    while size:
        for at in range(0, len(data), size):
            shorter = data[:at] + data[at + size :]
            try:
                target.check(shorter)
            except error:
                data = shorter
                break
            except Exception:
                continue
        else:
            size //= 2
    return data


def keep(name: str, run: Run, most: int, most_bytes: int = 600) -> int:
    """Add the shortest inputs for the rarest endings to the corpus; return how many."""
    rarest = sorted(run.shortest, key=lambda ending: (run.endings[ending], run.shortest[ending]))
    small = [run.shortest[ending] for ending in rarest if len(run.shortest[ending]) <= most_bytes]
    for data in small[:most]:
        path = CORPUS / name / f"ending-{sha256(data).hexdigest()[:12]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return len(small[:most])


def fuzz(name: str, seed: int, *, executions: int | None = None, seconds: float | None = None) -> Run:
    """Check a target on its seeds, its corpus, and then on mutations; raises ``Failed``.

    An input with a new ending is mutated further. The same seed makes the same inputs.
    """
    target, random, run = TARGETS[name](), Random(f"{name} {seed}"), Run()
    end = None if seconds is None else time.monotonic() + seconds

    def check(data: bytes, its_seed: int | None) -> bool:
        try:
            return run.add(target.check(data), data)
        except Exception as error:
            raise Failed(name, reduced(target, data, type(error)), its_seed) from error

    try:
        pool = [*target.seeds(), *(data for _, data in corpus(name))]
        for data in pool:
            check(data, None)
        while (executions is None or run.executions < executions) and (end is None or time.monotonic() < end):
            data = target.repaired(mutated(random.choice(pool), random, target.words, pool), random)
            if check(data, seed) and len(pool) < _MOST_KEPT:
                pool.append(data)
    finally:
        target.close()
    return run
