"""Addresses: how an actor is known, on its own node and on other nodes."""

from __future__ import annotations

import itertools
from typing import Any

from thespian.actors import ActorAddress

_numbers = itertools.count(1)


def new_number() -> int:
    """Return a number that is unique in this process, for ever."""
    return next(_numbers)


class NodeAddress(ActorAddress):
    """The address of an actor: the id of its node, and its number (on our own node) or its global name.

    Tables are keyed by ``number``, since comparing two addresses costs more than a look-up; it is 0 in addresses by
    name, and no actor has the number 0. Like every ``ActorAddress`` it is unhashable: on other system bases an address
    may change while its actor is being created.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, node_id: str, actor: int | str) -> None:
        self._aaddr = (node_id, actor)
        self.number: int = actor if isinstance(actor, int) else 0

    @property
    def node_id(self) -> str:
        """The node of the actor."""
        return self._aaddr[0]

    @property
    def name(self) -> str:
        """The actor's global name; "" in an address by number."""
        actor = self._aaddr[1]
        return actor if isinstance(actor, str) else ""

    @property
    def actorAddressString(self) -> str:
        """The address in readable form."""
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
    """Return the address of the actor with the global name ``name`` on node ``node_id``.

    The actor need not exist: a message to an unused name becomes a dead letter on that node.
    """
    return NodeAddress(node_id, name)
