"""Addresses: what an actor is known by, on its own node and from another one."""

from __future__ import annotations

import itertools
from typing import Any

from thespian.actors import ActorAddress

_numbers = itertools.count(1)


def new_number() -> int:
    """Return a number that no other actor of this process has or will have."""
    return next(_numbers)


class NodeAddress(ActorAddress):
    """The address of an actor: a node's id and, there, the actor's number (on our own node) or its global name.

    ``number`` is what tables are keyed by, as comparing two addresses costs more than looking one up; it is 0 in
    addresses by name, which no actor has. Like every ``ActorAddress`` this one has no hash: on other system bases
    an address may change while an actor is being made.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, node_id: str, actor: int | str) -> None:
        self._aaddr = (node_id, actor)
        self.number: int = actor if isinstance(actor, int) else 0

    @property
    def node_id(self) -> str:
        """The node on which the actor lives."""
        return self._aaddr[0]

    @property
    def name(self) -> str:
        """The actor's global name, or "" in an address by number."""
        actor = self._aaddr[1]
        return actor if isinstance(actor, str) else ""

    @property
    def actorAddressString(self) -> str:
        """The address for people."""
        return f"{self._aaddr[0]}/{self._aaddr[1]}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, NodeAddress):
            return self._aaddr == other._aaddr
        return NotImplemented

    def __ne__(self, other: object) -> bool:
        if isinstance(other, NodeAddress):
            return self._aaddr != other._aaddr
        return NotImplemented

    def __str__(self) -> str:
        return f"ActorAddr-{self.actorAddressString}"

    def __repr__(self) -> str:
        return f"<{self.actorAddressString}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return NodeAddress, self._aaddr

    def __deepcopy__(self, memo: object) -> NodeAddress:
        return self


def remote_address(node_id: str, name: str) -> NodeAddress:
    """Return the address of the actor whose global name on node ``node_id`` is ``name``.

    The actor need not exist: what is sent to a name that nobody has is a dead letter of that node.
    """
    return NodeAddress(node_id, name)
