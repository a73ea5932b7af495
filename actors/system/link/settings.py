"""The settings of a link, its counters, and the context that its parts share."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from raftkv.actors.system.link.handshake import ID_BYTES, PeerIdentity
from raftkv.actors.system.link.lanes import MESSAGE_OVERHEAD

logger = logging.getLogger("raftkv.link")


class Codec(NamedTuple):
    """How messages become bytes. ``encode`` raises only for objects that are no messages.

    ``decode`` gets bytes or a ``memoryview``, must not keep a view of it, and raises ``msgspec.DecodeError``.
    ``is_control`` chooses the lane. ``sender`` is the node id that a message claims to come from.
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[Any], Any]
    is_control: Callable[[Any], bool]
    sender: Callable[[Any], str]


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A node's identity, its listening address, and its limits. All nodes of a cluster use the same limits.

    ``frame_bytes`` and ``message_bytes`` bound the body of a frame and of a message. ``bulk_bytes``,
    ``control_messages`` and ``control_bytes`` bound the queues to one peer, ``ahead_bytes`` the part of them that the
    transport gets at once. Each connection is pinged every ``ping_ms``; it is closed after ``silence_ms`` without an
    answer. ``handshakes`` bounds the connections that have not finished their handshake.
    """

    node_id: str
    incarnation: str
    secret: bytes
    initial_cluster_hash: str = ""
    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    frame_bytes: int = 256 << 10
    message_bytes: int = 16 << 20
    bulk_bytes: int = 32 << 20
    control_messages: int = 10_000
    control_bytes: int = 4 << 20
    ahead_bytes: int = 256 << 10
    connect_ms: int = 1000
    handshake_ms: int = 2000
    handshakes: int = 128
    backoff_min_ms: int = 50
    backoff_max_ms: int = 1000
    ping_ms: int = 500
    silence_ms: int = 3000
    close_ms: int = 250

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for limits that contradict each other and names that do not fit into a handshake."""
        if not self.node_id or any(
            len(name.encode()) > ID_BYTES for name in (self.node_id, self.incarnation, self.initial_cluster_hash)
        ):
            raise ValueError(
                f"node_id, incarnation and initial_cluster_hash take at most {ID_BYTES} bytes each, node_id one or more"
            )
        if not 0 < self.frame_bytes <= self.message_bytes <= self.bulk_bytes - MESSAGE_OVERHEAD:
            raise ValueError("frame_bytes must be above 0 and at most message_bytes, which must fit into bulk_bytes")
        if not 0 < self.backoff_min_ms <= self.backoff_max_ms:
            raise ValueError("backoff_min_ms must be above 0 and not above backoff_max_ms")
        if not 0 < self.ping_ms <= self.silence_ms:
            raise ValueError("ping_ms must be above 0 and not above silence_ms")
        if min(self.control_messages, self.control_bytes, self.ahead_bytes, self.handshakes) < 1:
            raise ValueError("control_messages, control_bytes, ahead_bytes and handshakes must be above 0")

    @property
    def silent_ticks(self) -> int:
        """The number of pings in a row that may stay unanswered."""
        return max(1, self.silence_ms // self.ping_ms)


@dataclass(slots=True)
class Stats:
    """Counts since the start. The keys of the counters come from fixed sets, so the counters stay small."""

    frames_sent: int = 0
    frames_received: int = 0
    bytes_sent: int = 0
    connects: int = 0
    losses: int = 0
    overflows: int = 0
    replaced: int = 0
    control_dropped: int = 0
    bulk_refused: int = 0
    failed_dials: Counter[str] = field(default_factory=Counter)
    refused_handshakes: Counter[str] = field(default_factory=Counter)
    bad_frames: Counter[str] = field(default_factory=Counter)


class BoundedLog:
    """Logs each kind of line at most once in ``every_s`` seconds, with the number of lines left out."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s = every_s
        self._next: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def warning(self, kind: str, text: str, *values: object) -> None:
        """Log a line; ``kind`` is one of a fixed set."""
        now = asyncio.get_running_loop().time()
        if now < self._next.get(kind, now):
            self._left_out[kind] += 1
            return
        self._next[kind] = now + self._every_s
        left_out = self._left_out.pop(kind, 0)
        if left_out:
            text, values = text + " (and %d more like it)", (*values, left_out)
        logger.warning(text, *values)


@dataclass(frozen=True, slots=True)
class Context:
    """What the parts of one link share; see ``Link`` for the callbacks."""

    settings: LinkSettings
    codec: Codec
    receive: Callable[[str, str, str, Any], None]
    on_up: Callable[[str], None]
    on_down: Callable[[str, str], None]
    on_refused: Callable[[str, str, str, Any, str], None]
    cluster_id: Callable[[], str | None]
    rng: random.Random
    stats: Stats = field(default_factory=Stats)
    log: BoundedLog = field(default_factory=BoundedLog)

    def identity(self) -> PeerIdentity:
        """Return this node's identity now: it may have joined a cluster since the last call."""
        settings = self.settings
        return PeerIdentity(
            settings.node_id, settings.incarnation, self.cluster_id() or "", settings.initial_cluster_hash
        )
