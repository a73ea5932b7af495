"""Commands that change the keyspace, queries that read it, and their results.

A command is one class here, listed in ``Command`` below; everything else about it is in that class:

    tag          its number on disk and on the wire; never reused
    fields       in this order on disk and on the wire
    frees_space  whether it can only make the keyspace smaller
    cost()       about how many bytes it takes in an entry
    invalid()    why it cannot become part of an entry, or None
    execute()    what it does to the keyspace; returns its result

A command is validated before it becomes part of an entry. Executing it is deterministic and total (see
``state_machine``): a command that cannot be carried out yields a result that says so, the same on every node.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import msgspec

MAX_COMMANDS = 10_000
MAX_KEY_BYTES = 64 << 10
MAX_VALUE_BYTES = 16 << 20
MAX_REVISION = (1 << 63) - 1
"""Limits that no setting can exceed: a command beyond them is refused wherever it comes from."""

THERE = -1
"""In place of a modify revision: the key exists, whatever its modify revision."""
NOT_THERE = 0
"""In place of a modify revision: the key does not exist."""


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The value under a key, and its history; revisions count changes of the whole keyspace, from 1."""

    value: bytes
    create_revision: int
    modify_revision: int
    version: int


class Items(Protocol):
    """The keyspace as commands and queries see it: these methods are all that a result can depend on."""

    @property
    def revision(self) -> int:
        """The number of changes so far."""

    def get(self, key: str) -> Item | None:
        """Return the item under ``key``, or None."""

    def put(self, key: str, value: bytes) -> int:
        """Set ``key`` to ``value``; return the new revision."""

    def remove(self, key: str) -> bool:
        """Remove ``key``; return whether it existed. Only then is there a new revision."""


class PutDone(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The key was set; ``revision`` is the new revision of the keyspace and the key's modify revision."""

    revision: int


class DeleteDone(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The key does not exist at ``revision``; ``existed`` says whether this command removed it."""

    revision: int
    existed: bool


class Unmatched(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The condition did not hold and nothing changed.

    The keyspace was at ``revision`` and the key at ``modify_revision``, which is ``NOT_THERE`` if it did not exist.
    """

    revision: int
    modify_revision: int


Result = PutDone | DeleteDone | Unmatched


class Put(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Set ``key`` to ``value`` (the bytes of a text in UTF-8, or any bytes)."""

    frees_space: ClassVar[bool] = False

    key: str
    value: bytes

    def cost(self) -> int:
        """Return about how many bytes this takes in an entry."""
        return len(self.key) * 2 + len(self.value) + 16

    def invalid(self) -> str | None:
        """Return why this cannot become part of an entry, or None."""
        key = self.key
        if key.isascii() and 0 < len(key) <= MAX_KEY_BYTES and len(self.value) <= MAX_VALUE_BYTES:
            # Almost every command ends here: no call, and no copy of the key to measure it.
            return None
        return _invalid_key(key) or (_LARGE_VALUE if len(self.value) > MAX_VALUE_BYTES else None)

    def execute(self, items: Items) -> PutDone:
        """Set the key, whatever is there."""
        return PutDone(items.put(self.key, self.value))


class Delete(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Remove ``key``; if it does not exist, nothing changes and no revision is used."""

    frees_space: ClassVar[bool] = True

    key: str

    def cost(self) -> int:
        """Return about how many bytes this takes in an entry."""
        return len(self.key) * 2 + 17

    def invalid(self) -> str | None:
        """Return why this cannot become part of an entry, or None."""
        return _invalid_key(self.key)

    def execute(self, items: Items) -> DeleteDone:
        """Remove the key if it exists."""
        existed = items.remove(self.key)
        return DeleteDone(items.revision, existed)


class PutIf(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Set ``key`` to ``value`` if its modify revision is ``revision`` (``THERE``: any; ``NOT_THERE``: it has none)."""

    frees_space: ClassVar[bool] = False

    key: str
    value: bytes
    revision: int

    def cost(self) -> int:
        """Return about how many bytes this takes in an entry."""
        return len(self.key) * 2 + len(self.value) + 25

    def invalid(self) -> str | None:
        """Return why this cannot become part of an entry, or None."""
        if why := _invalid_key(self.key) or _invalid_revision(self.revision):
            return why
        return _LARGE_VALUE if len(self.value) > MAX_VALUE_BYTES else None

    def execute(self, items: Items) -> PutDone | Unmatched:
        """Set the key if the condition holds."""
        return _unmatched(items, self.key, self.revision) or PutDone(items.put(self.key, self.value))


class DeleteIf(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Remove ``key`` if its modify revision is ``revision`` (``THERE``: any)."""

    frees_space: ClassVar[bool] = True

    key: str
    revision: int

    def cost(self) -> int:
        """Return about how many bytes this takes in an entry."""
        return len(self.key) * 2 + 17

    def invalid(self) -> str | None:
        """Return why this cannot become part of an entry, or None."""
        if why := _invalid_key(self.key) or _invalid_revision(self.revision):
            return why
        return "a key that must not exist cannot be removed" if self.revision == NOT_THERE else None

    def execute(self, items: Items) -> DeleteDone | Unmatched:
        """Remove the key if the condition holds."""
        if unmatched := _unmatched(items, self.key, self.revision):
            return unmatched
        existed = items.remove(self.key)
        return DeleteDone(items.revision, existed)


Command = Put | Delete | PutIf | DeleteIf


class Get(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Read one key."""

    key: str

    def execute(self, items: Items) -> Item | None:
        """Return the item under the key, or None."""
        return items.get(self.key)


Query = Get


def invalid(commands: tuple[Command, ...]) -> str | None:
    """Return why these commands cannot become an entry, or None."""
    if not 0 < len(commands) <= MAX_COMMANDS:
        return f"an entry has 1 to {MAX_COMMANDS} commands"
    for command in commands:
        if why := command.invalid():
            return why
    return None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Command, ...])


def encode_commands(commands: tuple[Command, ...]) -> bytes:
    """Return the data of an entry of kind ``COMMANDS``."""
    return _encoder.encode(commands)


def decode_commands(data: bytes) -> tuple[Command, ...]:
    """Return the commands of an entry; raises ``msgspec.DecodeError`` if ``data`` is not an encoding of commands."""
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.ValidationError(f"a key is not UTF-8: {error}") from None
    except RecursionError:
        raise msgspec.ValidationError("nested too deeply") from None


_LARGE_VALUE = f"a value has at most {MAX_VALUE_BYTES} bytes"


def _invalid_key(key: str) -> str | None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "a key is Unicode text without lone surrogates"
    return None if 0 < size <= MAX_KEY_BYTES else f"a key has 1 to {MAX_KEY_BYTES} bytes"


def _invalid_revision(revision: int) -> str | None:
    if THERE <= revision <= MAX_REVISION:
        return None
    return f"a revision has at most {MAX_REVISION.bit_length()} bits"


def _unmatched(items: Items, key: str, demanded: int) -> Unmatched | None:
    """Return the result of a command whose condition does not hold; None if the condition holds."""
    item = items.get(key)
    modified = NOT_THERE if item is None else item.modify_revision
    if demanded == modified or (demanded == THERE and item is not None):
        return None
    return Unmatched(items.revision, modified)
