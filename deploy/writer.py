"""A client that writes continuously and records which writes were acknowledged, and when."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import NamedTuple

from deploy.node_http import ask

PAUSE_S = 0.005
REQUEST_TIMEOUT_S = 10.0


class AcknowledgedWrite(NamedTuple):
    """A write that was acknowledged; ``acknowledged_s`` is a time of ``time.monotonic``."""

    key: str
    value: str
    acknowledged_s: float


class Writer:
    """Writes to these ports in turn, one write after another, in a thread that runs as long as the context lasts."""

    def __init__(self, ports: Sequence[int], key: str) -> None:
        self.written: list[AcknowledgedWrite] = []
        self.ports = list(ports)
        """Where to write; may be changed at any time."""
        self._key = key
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _write_all(self) -> None:
        number = 0
        while not self._ending.wait(PAUSE_S):
            number += 1
            key, value = f"{self._key}-{number}", str(number)
            port = self.ports[number % len(self.ports)]
            try:
                answer = ask(port, "PUT", f"/keys/{key}/", {"value": value}, REQUEST_TIMEOUT_S)
            except (OSError, http.client.HTTPException, ValueError):
                continue
            if answer.status == 200:
                self.written.append(AcknowledgedWrite(key, value, time.monotonic()))

    def wait_for_more(self, count: int, within_s: float = 20.0) -> None:
        """Return when ``count`` more writes are acknowledged, or after ``within_s``."""
        goal = len(self.written) + count
        deadline_s = time.monotonic() + within_s
        while len(self.written) < goal and time.monotonic() < deadline_s:
            time.sleep(PAUSE_S)

    def longest_gap_s(self) -> float:
        """Return the longest time between two acknowledgements: how long the cluster did not serve."""
        times = [each.acknowledged_s for each in self.written]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)
