"""The pipe between a node and its supervisor, the process that started it: reports upwards, one JSON object a line.

The node holds one end of a socket pair, the supervisor the other. The kernel closes the supervisor's end however it
ends, so a node always notices and stops: no node that ``raftkv local`` started outlives it, not even after ``kill
-9``. Neither a pid nor a signal would do, because a pid can be reused and a killed supervisor sends no signal.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import msgspec

from raftkv.raft.entry import NodeId


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The node is up, at these addresses."""

    id: NodeId
    http: str
    raft: str


class RoleReport(msgspec.Struct, frozen=True, tag="role"):
    """The node's role, term or leader changed; ``reason`` is a sentence for people."""

    id: NodeId
    role: str
    term: int
    leader: NodeId | None
    reason: str


class Leaderless(msgspec.Struct, frozen=True, tag="waiting"):
    """The node has known no leader for a while, for this reason."""

    id: NodeId
    reason: str


Event = Listening | RoleReport | Leaderless

decode_event: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode


class SupervisorPipe:
    """The node's end of the pipe; without a supervisor (``descriptor`` is None) reports are dropped."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Take over ``descriptor``; raises ``OSError`` if it is not a socket."""
        self._socket = None if descriptor is None else socket.socket(fileno=descriptor)
        if self._socket is not None:
            self._socket.setblocking(False)
            # A child of this process must not keep the pipe open after this process has ended.
            self._socket.set_inheritable(False)

    def report(self, event: Event) -> None:
        """Report ``event``, or drop it if the supervisor does not read: a node never waits for its supervisor."""
        if self._socket is not None:
            # Part of a line would spoil the next one, but lines are far smaller than what a socket takes at once.
            with contextlib.suppress(OSError):
                self._socket.send(msgspec.json.encode(event) + b"\n")

    def is_gone(self) -> bool:
        """Whether the supervisor has closed its end; call when the socket is readable."""
        try:
            return self._socket is not None and self._socket.recv(4096) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def fileno(self) -> int | None:
        """Return the descriptor, or None without a supervisor."""
        return None if self._socket is None else self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        if self._socket is not None:
            self._socket.close()
