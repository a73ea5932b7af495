"""The keyspace compared with a dictionary under random operations."""

from __future__ import annotations

import random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raftkv.store.commands import (
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

KEYS = st.sampled_from(["a", "b", "ab", "B", "ä", "a/b", "\0", "\U0001f511", "z" * 300]) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3
)
VALUES = st.binary(max_size=6)
REVISIONS = st.integers(THERE, 20)
COMMANDS = (
    st.builds(Put, KEYS, VALUES)
    | st.builds(Delete, KEYS)
    | st.builds(PutIf, KEYS, VALUES, REVISIONS)
    | st.builds(DeleteIf, KEYS, REVISIONS.filter(lambda revision: revision != NOT_THERE))
)


class KeyspaceBesideADictionary(RuleBasedStateMachine):
    """One node applies commands as they come, another decodes entries; others replay the log or restore a capture."""

    def __init__(self) -> None:
        super().__init__()
        self.keyspace, self.follower = Keyspace(), Keyspace()
        self.model: dict[str, Item] = {}
        self.revision = 0
        self.history: list[Command] = []

    @rule(key=KEYS, value=VALUES)
    def put(self, key: str, value: bytes) -> None:
        """A put takes one revision and raises the key's version."""
        self._apply((Put(key, value),))

    @rule(key=KEYS)
    def delete_any(self, key: str) -> None:
        """Deleting a missing key takes no revision."""
        self._apply((Delete(key),))

    @precondition(lambda self: self.model)
    @rule(choice=st.integers(0, 1000))
    def delete_an_existing_key(self, choice: int) -> None:
        """A key that is set again later starts at version 1."""
        self._apply((Delete(sorted(self.model)[choice % len(self.model)]),))

    @precondition(lambda self: self.model)
    @rule(choice=st.integers(0, 1000), value=VALUES, late=st.integers(0, 1))
    def compare_and_set(self, choice: int, value: bytes, late: int) -> None:
        """A conditional put with the key's last revision succeeds; one with an earlier revision fails."""
        key = sorted(self.model)[choice % len(self.model)]
        known = self.model[key].modify_revision - late
        self._apply((PutIf(key, value, known or THERE), PutIf(key, value + b"again", known or NOT_THERE)))

    @rule(commands=st.lists(COMMANDS, min_size=1, max_size=6).map(tuple))
    def apply_an_entry(self, commands: tuple[Command, ...]) -> None:
        """An entry carries many commands; each takes a revision of its own."""
        self._apply(commands)

    @precondition(lambda self: self.history)
    @rule(seed=st.integers(0, 99))
    def replay_the_log(self, seed: int) -> None:
        """A node that applies the same commands, grouped into other entries, reaches the same state."""
        cuts, again, at = random.Random(seed), Keyspace(), 0
        while at < len(self.history):
            end = at + cuts.randint(1, 5)
            for command in decode_commands(encode_commands(tuple(self.history[at:end]))):
                again.apply(command)
            at = end
        assert (again.revision, again.items()) == (self.keyspace.revision, self.keyspace.items())
        assert (again, again.digest()) == (self.keyspace, self.keyspace.digest())

    @rule(commands=st.lists(COMMANDS, max_size=4).map(tuple))
    def restore_a_capture(self, commands: tuple[Command, ...]) -> None:
        """A follower restored from a capture goes on as if it had applied everything; the capture is not affected."""
        capture, digest = self.keyspace.capture(), self.keyspace.digest()
        if commands:
            self._apply(commands)
        self.follower = Keyspace.restore(capture)
        assert self.follower.digest() == digest
        for command in commands:
            self.follower.apply(command)

    @invariant()
    def holds_what_the_dictionary_holds(self) -> None:
        """Same items in key order, same revision; both replicas have one digest."""
        expected = sorted(self.model.items())
        for keyspace in (self.keyspace, self.follower):
            assert keyspace.items() == expected
            assert (keyspace.revision, len(keyspace)) == (self.revision, len(self.model))
        assert self.keyspace.digest() == self.follower.digest()

    @invariant()
    def each_change_has_a_revision_of_its_own(self) -> None:
        """Created no later than changed, with a revision for each version in between; no two keys share a revision."""
        records = [record for _, record in self.keyspace.items()]
        assert len({record.modify_revision for record in records}) == len(records)
        for record in records:
            assert 1 <= record.create_revision <= record.modify_revision <= self.revision
            assert 1 <= record.version <= record.modify_revision - record.create_revision + 1

    def _apply(self, commands: tuple[Command, ...]) -> None:
        assert invalid(commands) is None
        self.history += commands
        for command, same in zip(commands, decode_commands(encode_commands(commands)), strict=True):
            expected = self._expected(command)
            assert self.keyspace.apply(command) == self.follower.apply(same) == expected
            assert self.keyspace.get(command.key) == self.model.get(command.key)

    def _expected(self, command: Command) -> Result:
        """Apply ``command`` to the dictionary and return the expected result."""
        old = self.model.get(command.key)
        if isinstance(command, PutIf | DeleteIf):
            modified = NOT_THERE if old is None else old.modify_revision
            if modified == NOT_THERE if command.revision == THERE else modified != command.revision:
                return Unmatched(self.revision, modified)
        if isinstance(command, Delete | DeleteIf):
            self.revision += old is not None
            self.model.pop(command.key, None)
            return DeleteDone(self.revision, old is not None)
        self.revision += 1
        created, version = (old.create_revision, old.version + 1) if old else (self.revision, 1)
        self.model[command.key] = Item(command.value, created, self.revision, version)
        return PutDone(self.revision)


TestKeyspaceBesideADictionary = KeyspaceBesideADictionary.TestCase
