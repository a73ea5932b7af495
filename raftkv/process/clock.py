"""The clock of the operating system."""

from __future__ import annotations

import time


class SystemClock:
    """A monotonic clock that counts suspended time too, where the system has one.

    A leader whose machine was suspended must see on waking that its followers have long been silent.
    """

    _clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now_ms(self) -> float:
        """Return milliseconds since the machine started."""
        return time.clock_gettime(self._clock) * 1000.0
