"""A histogram of latencies: buckets that grow with the value, so that its size and its relative error are bounded."""

from __future__ import annotations

from math import ceil

import msgspec

SUB_BITS = 8
# Each power of two has this many buckets, so a bucket is at most 1/128 of the values in it wide.
HALF = 1 << (SUB_BITS - 1)


class Histogram(msgspec.Struct):
    """Counts of values (whole numbers from 0 on, such as nanoseconds) by bucket.

    A percentile is reported as the upper end of its bucket: at most 0.8 % too high, never too low. ``highest`` is
    exact. The form in JSON is the whole of it, so that histograms of other processes and runs can be merged.
    """

    counts: dict[int, int] = {}
    total: int = 0
    highest: int = 0

    def record(self, value: int) -> None:
        """Count one value."""
        shift = value.bit_length() - SUB_BITS
        bucket = value if shift <= 0 else shift * HALF + (value >> shift)
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + 1
        self.total += 1
        if value > self.highest:
            self.highest = value

    def merge(self, other: Histogram) -> None:
        """Count all that ``other`` has counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.highest = max(self.highest, other.highest)

    def percentile(self, percent: float) -> int:
        """Return the value that ``percent`` of all values do not exceed, or 0 if there are none."""
        rank = max(1, ceil(self.total * percent / 100))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return min(_upper_end(bucket), self.highest)
        return 0


def _upper_end(bucket: int) -> int:
    """Return the highest value that belongs to ``bucket``."""
    shift = max(0, bucket // HALF - 1)
    return ((bucket - shift * HALF + 1) << shift) - 1
