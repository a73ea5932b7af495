"""The clock of the operating system."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's clock; it goes on while the machine is suspended, so that a woken leader knows how late it is."""

    _clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now_ms(self) -> float:
        """Return milliseconds since the machine's start."""
        return time.clock_gettime(self._clock) * 1000.0
