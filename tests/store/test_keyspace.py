"""The state machine, beside a dictionary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.store.commands import (
    MAX_REVISION,
    MAX_VALUE_BYTES,
    NOT_THERE,
    THERE,
    Command,
    Delete,
    DeleteDone,
    DeleteIf,
    Item,
    Put,
    PutDone,
    PutIf,
    Result,
    Unmatched,
    cost,
    decode_commands,
    encode_commands,
    invalid,
)
from raftkv.store.keyspace import Keyspace

KEYS = st.sampled_from(["a", "b", "ä", "a/b", "\0", "z" * 300])
REVISIONS = st.integers(THERE, 12)
CONDITIONAL = st.one_of(
    st.builds(PutIf, KEYS, st.binary(max_size=8), REVISIONS),
    st.builds(DeleteIf, KEYS, REVISIONS.filter(lambda revision: revision != NOT_THERE)),
)
COMMANDS = st.lists(
    st.one_of(st.builds(Put, KEYS, st.binary(max_size=8)), st.builds(Delete, KEYS), CONDITIONAL), max_size=30
)


@given(COMMANDS)
def test_applying_is_what_a_dictionary_does_with_revisions(commands: list[Command]) -> None:
    """One revision for each command that changes anything; none for what changes nothing."""
    keyspace = Keyspace()
    model: dict[str, Item] = {}
    revision = 0
    for command in commands:
        old = model.get(command.key)
        if isinstance(command, PutIf | DeleteIf) and not holds(command.revision, old):
            assert keyspace.apply(command) == Unmatched(revision, old.modify_revision if old else NOT_THERE)
        elif isinstance(command, Put | PutIf):
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


def holds(demanded: int, item: Item | None) -> bool:
    """Say whether what is there is as demanded."""
    if demanded == THERE:
        return item is not None
    return demanded == (NOT_THERE if item is None else item.modify_revision)


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (PutIf("a", b"3", 1), PutDone(3)),
        (PutIf("a", b"3", 2), Unmatched(2, 1)),
        (PutIf("a", b"3", NOT_THERE), Unmatched(2, 1)),
        (PutIf("a", b"3", THERE), PutDone(3)),
        (PutIf("c", b"3", NOT_THERE), PutDone(3)),
        (PutIf("c", b"3", THERE), Unmatched(2, NOT_THERE)),
        (PutIf("c", b"3", 2), Unmatched(2, NOT_THERE)),
        (DeleteIf("a", 1), DeleteDone(3, True)),
        (DeleteIf("a", 2), Unmatched(2, 1)),
        (DeleteIf("a", THERE), DeleteDone(3, True)),
        (DeleteIf("c", THERE), Unmatched(2, NOT_THERE)),
    ],
    ids=str,
)
def test_a_condition_is_on_the_key_s_own_modify_revision(command: Command, result: Result) -> None:
    keyspace = Keyspace()
    keyspace.apply(Put("a", b"1"))
    keyspace.apply(Put("b", b"2"))
    assert keyspace.apply(command) == result


@pytest.mark.parametrize(
    "command",
    [
        PutIf("a", b"", THERE - 1),
        PutIf("a", b"", MAX_REVISION + 1),
        PutIf("a", bytes(MAX_VALUE_BYTES + 1), 1),
        DeleteIf("a", NOT_THERE),
        DeleteIf("a", MAX_REVISION + 1),
        PutIf("", b"", 1),
    ],
    ids=lambda command: f"{type(command).__name__} {command.revision}",
)
def test_a_condition_that_means_nothing_does_not_get_into_the_log(command: Command) -> None:
    assert invalid((Put("a", b""), command)) is not None


@given(COMMANDS.filter(bool))
def test_commands_come_back_from_an_entry_as_they_went_in(commands: list[Command]) -> None:
    data = encode_commands(tuple(commands))
    assert decode_commands(data) == tuple(commands)
    assert invalid(tuple(commands)) is None
    # The estimate by which the front end fills its messages is never far too low.
    assert len(data) <= sum(map(cost, commands)) + 5
