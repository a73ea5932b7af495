"""Commands that change the keyspace, queries that read it, and what comes of both.

A command is validated before it becomes part of an entry; applying it is total: what cannot be done yields a result
that says so, the same on every node. Tags are on disk and on the wire and are never used again.
"""

from __future__ import annotations

import msgspec


class Put(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Set ``key`` to ``value`` (the bytes of a text in UTF-8, or any bytes)."""

    key: str
    value: bytes


class Delete(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Remove ``key``; a key that is not there stays not there and uses up no revision."""

    key: str


THERE = -1
"""In the place of a modify revision: any that the key has."""
NOT_THERE = 0
"""In the place of a modify revision: the key is not there."""


class PutIf(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Set ``key`` to ``value`` if its modify revision is ``revision``, or as ``THERE`` and ``NOT_THERE`` say."""

    key: str
    value: bytes
    revision: int


class DeleteIf(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Remove ``key`` if its modify revision is ``revision``, or with ``THERE`` if it has one."""

    key: str
    revision: int


Command = Put | Delete | PutIf | DeleteIf


class PutDone(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The key was set; ``revision`` is the keyspace's, and the key's modify revision, from then on."""

    revision: int


class DeleteDone(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The key is not there at ``revision``; ``existed`` says whether this command removed it."""

    revision: int
    existed: bool


class Unmatched(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Nothing was changed: when all was at ``revision``, the key was at ``modify_revision``, or ``NOT_THERE``."""

    revision: int
    modify_revision: int


Result = PutDone | DeleteDone | Unmatched


class Get(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Read one key."""

    key: str


Query = Get


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the keyspace holds under a key; revisions count changes of the whole keyspace, from 1."""

    value: bytes
    create_revision: int
    modify_revision: int
    version: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Command, ...])


def encode_commands(commands: tuple[Command, ...]) -> bytes:
    """Return the data of an entry of kind ``COMMANDS``."""
    return _encoder.encode(commands)


def decode_commands(data: bytes) -> tuple[Command, ...]:
    """Return the commands of an entry; raises ``msgspec.DecodeError`` where ``data`` is not what we encode."""
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.ValidationError(f"a key that is not UTF-8: {error}") from None
    except RecursionError:
        raise msgspec.ValidationError("nested too deeply") from None


MAX_COMMANDS = 10_000
MAX_KEY_BYTES = 64 << 10
MAX_VALUE_BYTES = 16 << 20
MAX_REVISION = (1 << 63) - 1
"""What no configuration can exceed: a command beyond it is refused wherever it came from."""


def invalid(commands: tuple[Command, ...]) -> str | None:
    """Say why these commands can't become an entry; None when they can."""
    if not 0 < len(commands) <= MAX_COMMANDS:
        return f"an entry has 1 to {MAX_COMMANDS} commands"
    for command in commands:
        try:
            size = len(command.key.encode())
        except UnicodeEncodeError:
            return "a key is Unicode text without lone surrogates"
        if not 0 < size <= MAX_KEY_BYTES:
            return f"a key has 1 to {MAX_KEY_BYTES} bytes"
        if isinstance(command, Put):
            # By far the most are of this kind.
            if len(command.value) > MAX_VALUE_BYTES:
                return f"a value has at most {MAX_VALUE_BYTES} bytes"
        elif not isinstance(command, Delete) and (why := _invalid_condition(command)):
            return why
    return None


def _invalid_condition(command: PutIf | DeleteIf) -> str | None:
    if not THERE <= command.revision <= MAX_REVISION:
        return f"a revision has at most {MAX_REVISION.bit_length()} bits"
    if isinstance(command, PutIf):
        return f"a value has at most {MAX_VALUE_BYTES} bytes" if len(command.value) > MAX_VALUE_BYTES else None
    return "what is not there cannot be removed" if command.revision == NOT_THERE else None


def cost(command: Command) -> int:
    """Return about how many bytes ``command`` takes in an entry."""
    if isinstance(command, Put):
        return len(command.key) * 2 + len(command.value) + 16
    if isinstance(command, PutIf):
        return len(command.key) * 2 + len(command.value) + 25
    return len(command.key) * 2 + 17
