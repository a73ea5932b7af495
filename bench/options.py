"""The options that `python -m bench` and its command `compare` share."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.throughput import CASES, Case


class BenchOptions(msgspec.Struct, frozen=True):
    """How to measure; ``seconds`` and ``warm_up`` are those of each measurement."""

    runs: int
    seconds: float
    warm_up: float
    only: tuple[str, ...]
    directory: Path
    base_port: int
    as_json: bool

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases to measure."""
        return tuple(case for case in CASES if not self.only or case.name in self.only)

    @property
    def parameters(self) -> dict[str, object]:
        """The options on which the figures depend."""
        return {"seconds": self.seconds}
