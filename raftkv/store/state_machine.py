"""The contract between the log and the state that follows from it.

Raft agrees on a sequence of commands; the state machine turns the sequence into a state (dissertation, 2.1). Replicas
stay equal only if the state is a function of that sequence alone. So a state machine is *deterministic*: it reads no
clock, no random numbers and no setting that could differ between nodes. And it is *total*: every command has a result,
and one that cannot be carried out changes nothing and says so in its result. An exception would stop every node at the
same entry, and again after each restart.

There are two ways to reach a state: to apply all commands, or to ``restore`` a *capture*, which is everything that an
equal state machine held at one moment. Snapshots are made of captures (dissertation, chapter 5).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, Self

from raftkv.store.commands import Command, Item, Query, Result


class Capture(NamedTuple):
    """Everything that a keyspace holds at ``revision``: pairs of key and item, keys ascending, to be read once."""

    revision: int
    items: Iterator[tuple[str, Item]]


class StateMachine(ABC):
    """A deterministic, total state machine."""

    __slots__ = ()

    @abstractmethod
    def apply(self, command: Command) -> Result:
        """Carry out a command and return its result. Never raises for a command that passes ``invalid``."""

    @abstractmethod
    def query(self, query: Query) -> Item | None:
        """Answer a query; changes nothing."""

    @abstractmethod
    def capture(self) -> Capture:
        """Return everything held now. Commands applied later do not show in it, even while it is being read."""

    @classmethod
    @abstractmethod
    def restore(cls, capture: Capture) -> Self:
        """Return a state machine equal to the captured one: it gives the same results from then on.

        Raises ``ValueError`` if the capture is not one that ``capture`` can return.
        """

    @abstractmethod
    def digest(self) -> bytes:
        """Return a hash of the whole state: 32 bytes, the same on two state machines if and only if they are equal."""
