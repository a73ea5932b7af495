"""A histogram of latencies whose buckets grow with the value, so that its size and its relative error are bounded.

This is the idea of HdrHistogram. Its Python package is not used: it has no types, requires setuptools at run time, and
rounds the highest value.
"""

from __future__ import annotations

from math import ceil

import msgspec

SUB_BITS = 8
# The number of buckets for each power of two: a bucket is at most 1/128 as wide as the values in it.
HALF = 1 << (SUB_BITS - 1)


class Histogram(msgspec.Struct):
    """Counts of values (integers ≥ 0, such as nanoseconds) by bucket.

    A percentile is reported as the upper end of its bucket: at most 0.8 % too high, never too low. ``highest`` is
    exact. Its JSON form is complete, so histograms of several processes and runs can be merged.
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
        """Add the counts of ``other``."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.highest = max(self.highest, other.highest)

    def percentile(self, percent: float) -> int:
        """Return the value that ``percent`` of all values do not exceed; 0 if there are no values."""
        rank = max(1, ceil(self.total * percent / 100))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return min(_upper_end(bucket), self.highest)
        return 0


def _upper_end(bucket: int) -> int:
    """Return the highest value in ``bucket``."""
    shift = max(0, bucket // HALF - 1)
    return ((bucket - shift * HALF + 1) << shift) - 1
