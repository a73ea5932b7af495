"""The one place where configuration is read and validated."""

from __future__ import annotations

import msgspec


class Timing(msgspec.Struct, frozen=True):
    """Raft's times, in milliseconds; a follower waits between ``election_min_ms`` and ``election_max_ms``."""

    heartbeat_ms: float = 50.0
    election_min_ms: float = 150.0
    election_max_ms: float = 300.0

    @property
    def disk_stall_ms(self) -> float:
        """How old a leader's oldest save may become before it steps down."""
        return max(1000.0, 3 * self.election_max_ms)


class Limits(msgspec.Struct, frozen=True):
    """What is bounded, in bytes unless the name says otherwise."""

    key_bytes: int = 4096
    value_bytes: int = 1 << 20
    header_bytes: int = 16 << 10
    uncommitted_bytes: int = 64 << 20
    append_bytes: int = 256 << 10
    inflight_bytes: int = 4 << 20
    held_requests: int = 4096
    segment_bytes: int = 16 << 20
