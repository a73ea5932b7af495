"""The line between a node and the process that started it: what the node reports, as one JSON object a line.

It is one end of a socket pair, so that it also tells a node that its parent has gone, however that happened: a node
that ``raftkv local`` started does not outlive it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import msgspec

from raftkv.raft.entry import NodeId


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The node is up, with these addresses."""

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
    """The node has known no leader for a while, and why."""

    id: NodeId
    reason: str


Event = Listening | RoleReport | Leaderless

decode_event: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode


class SupervisorPipe:
    """The node's end of the line, or none (``descriptor`` None): reports then go nowhere."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Take over ``descriptor``; raises ``OSError`` if it is no socket."""
        self._socket = None if descriptor is None else socket.socket(fileno=descriptor)
        if self._socket is not None:
            self._socket.setblocking(False)
            # Not for children of ours: the line must end with this process.
            self._socket.set_inheritable(False)

    def tell(self, event: Event) -> None:
        """Report ``event``, unless the parent does not read: a node never waits for its parent."""
        if self._socket is not None:
            # A socket that is full or closed has no use for this line; a part of one would spoil the next, but lines
            # are far smaller than what a socket takes at once.
            with contextlib.suppress(OSError):
                self._socket.send(msgspec.json.encode(event) + b"\n")

    def is_gone(self) -> bool:
        """Whether the parent has closed its end; call when the socket is readable."""
        try:
            return self._socket is not None and self._socket.recv(4096) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def fileno(self) -> int | None:
        """Return the descriptor, if there is a parent."""
        return None if self._socket is None else self._socket.fileno()

    def close(self) -> None:
        """Close our end."""
        if self._socket is not None:
            self._socket.close()
