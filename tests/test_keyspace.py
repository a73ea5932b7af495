"""The state machine, beside a dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftkv.commands import (
    Command,
    Delete,
    DeleteDone,
    Item,
    Put,
    PutDone,
    cost,
    decode_commands,
    encode_commands,
    invalid,
)
from raftkv.keyspace import Keyspace

KEYS = st.sampled_from(["a", "b", "ä", "a/b", "\0", "z" * 300])
COMMANDS = st.lists(st.one_of(st.builds(Put, KEYS, st.binary(max_size=8)), st.builds(Delete, KEYS)), max_size=30)


@given(COMMANDS)
def test_applying_is_what_a_dictionary_does_with_revisions(commands: list[Command]) -> None:
    """One revision for each command that changes anything; none for a deletion of what is not there."""
    keyspace = Keyspace()
    model: dict[str, Item] = {}
    revision = 0
    for command in commands:
        old = model.get(command.key)
        if isinstance(command, Put):
            revision += 1
            created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
            model[command.key] = Item(command.value, created, revision, version)
            assert keyspace.apply(command) == PutDone(revision)
        else:
            revision += old is not None
            model.pop(command.key, None)
            assert keyspace.apply(command) == DeleteDone(revision, old is not None)
        assert keyspace.get(command.key) == model.get(command.key)
    assert keyspace.items() == sorted(model.items())
    assert (keyspace.revision, len(keyspace)) == (revision, len(model))


@given(COMMANDS.filter(bool))
def test_commands_come_back_from_an_entry_as_they_went_in(commands: list[Command]) -> None:
    data = encode_commands(tuple(commands))
    assert decode_commands(data) == tuple(commands)
    assert invalid(tuple(commands)) is None
    # The estimate by which the front end fills its messages is never far too low.
    assert len(data) <= sum(map(cost, commands)) + 5
