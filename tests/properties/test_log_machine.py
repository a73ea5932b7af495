"""The log in memory beside a list, as followers and leaders use it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raftkv.raft.configuration import Configuration, Member, founding_configuration
from raftkv.raft.entry import Entry, Kind
from raftkv.raft.log import Log

CONFIGURATIONS = [founding_configuration([Member(f"n{i}", f"n{i}:1", "1") for i in range(1, n + 1)]) for n in (1, 2, 3)]
ANY = st.integers(0, 10_000)


class LogBesideAList(RuleBasedStateMachine):
    """Entries come and go at the end; everything else is asked, of every place and of some beyond."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.model: list[Entry] = []

    @rule(rises=st.lists(st.integers(0, 2), min_size=1, max_size=4), size=st.integers(0, 9))
    def append(self, rises: list[int], size: int) -> None:
        """Terms never fall."""
        new: list[Entry] = []
        term = self._last_term()
        for rise in rises:
            term += rise
            new.append(Entry(len(self.model) + len(new) + 1, term, Kind.COMMANDS, bytes(size)))
        self.log.append(new)
        self.model += new

    @rule(configuration=st.sampled_from(CONFIGURATIONS), rise=st.integers(0, 1))
    def append_a_configuration(self, configuration: Configuration, rise: int) -> None:
        """It is in force from now on (4.1)."""
        new = Entry(len(self.model) + 1, self._last_term() + rise, Kind.CONFIGURATION, configuration.encode())
        self.log.append((new,))
        self.model.append(new)

    @precondition(lambda self: self.model)
    @rule(choice=ANY)
    def truncate(self, choice: int) -> None:
        """A leader of a later term has something else from there on."""
        index = choice % len(self.model) + 1
        self.log.truncate(index)
        del self.model[index - 1 :]

    @rule(index=st.integers(0, 40), term=st.integers(0, 12))
    def ask_whether_it_matches(self, index: int, term: int) -> None:
        """3.5; before the first entry all logs are the same."""
        expected = term == 0 if index == 0 else index <= len(self.model) and self.model[index - 1].term == term
        assert self.log.matches(index, term) == expected

    @rule(index=st.integers(0, 40), term=st.integers(0, 12))
    def ask_whether_another_is_up_to_date(self, index: int, term: int) -> None:
        """3.6.1; the later last term decides, and the length where they are the same."""
        ours = self._last_term()
        assert self.log.is_up_to_date(index, term) == (term > ours or (term == ours and index >= len(self.model)))

    @precondition(lambda self: self.model)
    @rule(choice=ANY, more=ANY, limit=st.integers(0, 300))
    def take_a_piece(self, choice: int, more: int, limit: int) -> None:
        """As many as the limit allows, and at least one."""
        first = choice % len(self.model) + 1
        last = first + more % (len(self.model) - first + 1)
        expected: list[Entry] = []
        size = 0
        for entry in self.model[first - 1 : last]:
            size += entry.size
            if expected and size > limit:
                break
            expected.append(entry)
        assert self.log.between(first, last, limit) == tuple(expected)
        assert self.log.span(first, last) == self.model[first - 1 : last]

    @precondition(lambda self: self.model)
    @rule(choice=ANY, term=st.integers(0, 12), before=st.integers(1, 40))
    def look_for_terms(self, choice: int, term: int, before: int) -> None:
        """What the hints of a rejection are made of (3.5)."""
        entry = self.model[choice % len(self.model)]
        assert self.log.first_of_term(entry.index) == min(e.index for e in self.model if e.term == entry.term)
        expected = max((e.index for e in self.model if e.term == term and e.index < before), default=0)
        assert self.log.last_of_term(term, before) == expected

    @rule()
    def start_anew(self) -> None:
        """A log made of what the journal holds is the same log."""
        self.log = Log(self.model)

    @invariant()
    def is_the_list(self) -> None:
        """Every entry, every term, every sum."""
        assert self.log.last_index == len(self.model)
        assert self.log.last_term == self._last_term() == self.log.term(self.log.last_index)
        assert [self.log.entry(index) for index in range(1, len(self.model) + 1)] == self.model
        assert self.log.bytes_after(len(self.model) // 2) == sum(e.size for e in self.model[len(self.model) // 2 :])

    @invariant()
    def the_configuration_is_the_latest_entry_s(self) -> None:
        """And none where there is none."""
        latest = [entry.data for entry in self.model if entry.kind == Kind.CONFIGURATION]
        assert self.log.configuration == (
            next(c for c in CONFIGURATIONS if c.encode() == latest[-1]) if latest else Configuration()
        )

    def _last_term(self) -> int:
        return self.model[-1].term if self.model else 0


TestLogBesideAList = LogBesideAList.TestCase
