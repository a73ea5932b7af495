"""The state machine: applying compared with a dictionary, conditions, captures and the digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import islice
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.store.commands import (
    MAX_COMMANDS,
    MAX_KEY_BYTES,
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
    decode_commands,
    encode_commands,
    invalid,
)
from raftkv.store.keyspace import Keyspace
from raftkv.store.state_machine import Capture

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
def test_applying_does_what_a_dictionary_does_and_counts_revisions(commands: list[Command]) -> None:
    """A command that changes something takes one revision; a command that changes nothing takes none."""
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
    """Return whether ``item`` has the demanded modify revision."""
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
def test_a_condition_compares_the_keys_own_modify_revision(command: Command, result: Result) -> None:
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
def test_a_condition_that_can_never_hold_does_not_enter_the_log(command: Command) -> None:
    assert invalid((Put("a", b""), command)) is not None


BAD_KEY, BAD_VALUE = f"a key has 1 to {MAX_KEY_BYTES} bytes", f"a value has at most {MAX_VALUE_BYTES} bytes"


@pytest.mark.parametrize(
    "with_key", [lambda key: Put(key, b""), Delete, lambda key: PutIf(key, b"", 1), lambda key: DeleteIf(key, 1)]
)
def test_a_key_has_a_limited_number_of_bytes_in_utf_8(with_key: Callable[[str], Command]) -> None:
    keys = ["", "k", "k" * MAX_KEY_BYTES, "k" * (MAX_KEY_BYTES + 1), "ä" * (MAX_KEY_BYTES // 2), "ä" * MAX_KEY_BYTES]
    found = [with_key(key).invalid() for key in keys]
    assert found == [BAD_KEY, None, None, BAD_KEY, None, BAD_KEY]
    assert with_key("a\ud800").invalid() == "a key is Unicode text without lone surrogates"


@pytest.mark.parametrize("with_value", [Put, lambda key, value: PutIf(key, value, 1)])
def test_a_value_has_a_limited_number_of_bytes(with_value: Callable[[str, bytes], Command]) -> None:
    values = [b"", bytes(MAX_VALUE_BYTES), bytes(MAX_VALUE_BYTES + 1)]
    for key in ("k", "ä"):
        assert [with_value(key, value).invalid() for value in values] == [None, None, BAD_VALUE]
    assert with_value("", values[-1]).invalid() == BAD_KEY


def test_an_entry_has_a_limited_number_of_commands() -> None:
    put = (Put("k", b""),)
    assert [invalid(put * count) for count in (1, MAX_COMMANDS)] == [None, None]
    assert [invalid(put * count) for count in (0, MAX_COMMANDS + 1)] == [
        f"an entry has 1 to {MAX_COMMANDS} commands"
    ] * 2


@given(COMMANDS.filter(bool))
def test_an_entry_decodes_to_the_commands_that_were_encoded(commands: list[Command]) -> None:
    data = encode_commands(tuple(commands))
    assert decode_commands(data) == tuple(commands)
    assert invalid(tuple(commands)) is None
    # The front end fills its messages by this estimate, so it must never be far too low.
    assert len(data) <= sum(command.cost() for command in commands) + 5


def test_only_commands_that_remove_free_space() -> None:
    """The leader keeps room on its disk for these commands; a new one must be put on one side or the other."""
    assert {command.__name__ for command in get_args(Command) if command.frees_space} == {"Delete", "DeleteIf"}


def applied(*commands: Command) -> Keyspace:
    """Return a keyspace after ``commands``."""
    keyspace = Keyspace()
    for command in commands:
        keyspace.apply(command)
    return keyspace


@given(COMMANDS, COMMANDS)
def test_a_restored_keyspace_is_equal_and_gives_the_same_results_from_then_on(
    before: list[Command], after: list[Command]
) -> None:
    keyspace = applied(*before)
    restored = Keyspace.restore(keyspace.capture())
    assert (restored, restored.items(), restored.digest()) == (keyspace, keyspace.items(), keyspace.digest())
    assert [restored.apply(command) for command in after] == [keyspace.apply(command) for command in after]
    assert (restored, restored.items(), restored.digest()) == (keyspace, keyspace.items(), keyspace.digest())


@given(COMMANDS, COMMANDS, st.integers(0, 5))
def test_a_capture_shows_one_revision_whatever_is_applied_while_it_is_read(
    before: list[Command], after: list[Command], read: int
) -> None:
    keyspace = applied(*before)
    expected = keyspace.revision, keyspace.items()
    capture = keyspace.capture()
    items = list(islice(capture.items, read))
    for command in after:
        keyspace.apply(command)
    assert (capture.revision, [*items, *capture.items]) == expected


@given(COMMANDS, COMMANDS)
def test_digests_are_equal_exactly_where_keyspaces_are(one: list[Command], other: list[Command]) -> None:
    keyspaces = applied(*one), applied(*other)
    same = (keyspaces[0].revision, keyspaces[0].items()) == (keyspaces[1].revision, keyspaces[1].items())
    assert (keyspaces[0] == keyspaces[1]) == same
    assert (keyspaces[0].digest() == keyspaces[1].digest()) == same


FEW = (Put("a", b"1"), Put("b", b"2"))


@pytest.mark.parametrize(
    "other",
    [
        (),
        (*FEW, Delete("c"), Put("a", b"1")),
        (*FEW, Put("c", b""), Delete("c")),
        (Put("b", b"2"), Put("a", b"1")),
        (Put("a", b"1"), Put("b", b"")),
        (Put("a", b"1b"), Put("b", b"2")),
        (Put("a", b""), Put("1b", b"2")),
        (Delete("a"), Put("a", b"1"), Delete("a"), Put("a", b"1"), Put("b", b"2")),
    ],
    ids=str,
)
def test_a_digest_covers_every_field_of_the_state(other: tuple[Command, ...]) -> None:
    assert applied(*other) != applied(*FEW)
    assert applied(*other).digest() != applied(*FEW).digest()


def test_the_digest_is_the_hash_of_the_documented_form() -> None:
    """Nodes of different builds compare digests, so the form changes with its version only."""

    def u(size: int, *numbers: int) -> bytes:
        return b"".join(number.to_bytes(size, "little") for number in numbers)

    keyspace = applied(Put("ä", b"old"), Put("a", b"\0" * 3), Put("ä", b""))
    form = b"raftkv keyspace 1\n" + u(8, 3)
    form += u(4, 1, 3) + u(8, 2, 2, 1) + b"a" + b"\0\0\0"
    form += u(4, 2, 0) + u(8, 1, 3, 2) + "ä".encode()
    assert keyspace.digest() == hashlib.sha256(form).digest()
    assert Keyspace().digest() == hashlib.sha256(b"raftkv keyspace 1\n" + u(8, 0)).digest()


@pytest.mark.parametrize(
    ("revision", "items"),
    [
        (2, [("b", Item(b"", 1, 1, 1)), ("a", Item(b"", 2, 2, 1))]),
        (2, [("a", Item(b"", 1, 1, 1)), ("a", Item(b"", 2, 2, 1))]),
        (1, [("a", Item(b"", 1, 2, 1))]),
        (2, [("a", Item(b"", 2, 1, 1))]),
        (2, [("a", Item(b"", 0, 1, 1))]),
        (2, [("a", Item(b"", 1, 2, 0))]),
        (2, [("a", Item(b"", 1, 2, 3))]),
    ],
    ids=[
        "order",
        "twice",
        "later than the keyspace",
        "changed before created",
        "never created",
        "no version",
        "version",
    ],
)
def test_an_impossible_capture_is_not_restored(revision: int, items: list[tuple[str, Item]]) -> None:
    with pytest.raises(ValueError, match=r"key '[ab]'"):
        Keyspace.restore(Capture(revision, iter(items)))
