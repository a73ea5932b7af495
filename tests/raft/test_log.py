"""The log in memory, beside a list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftkv.raft.configuration import Member, founding_configuration
from raftkv.raft.entry import Entry, Kind
from raftkv.raft.log import Log


def entries(*terms: int) -> tuple[Entry, ...]:
    """Return entries from index 1 on, of these terms."""
    return tuple(Entry(index, term, Kind.COMMANDS, bytes(term)) for index, term in enumerate(terms, 1))


TERMS = st.lists(st.integers(1, 5), max_size=12).map(sorted)


def test_an_empty_log_ends_at_0_in_term_0() -> None:
    log = Log()
    assert (log.last_index, log.last_term, log.term(0)) == (0, 0, 0)
    assert log.matches(0, 0)
    assert not log.matches(1, 0)


@given(TERMS, st.integers(0, 14), st.integers(0, 6))
def test_matches_is_there_and_of_that_term(terms: list[int], index: int, term: int) -> None:
    """3.5: the consistency check of AppendEntries."""
    there = [(0, 0), *((entry.index, entry.term) for entry in entries(*terms))]
    assert Log(entries(*terms)).matches(index, term) == ((index, term) in there)


@given(TERMS, TERMS)
def test_one_of_two_logs_is_at_least_as_up_to_date(ours: list[int], theirs: list[int]) -> None:
    """3.6.1: the last terms decide, then the lengths; never neither."""
    one, other = Log(entries(*ours)), Log(entries(*theirs))
    forth = one.is_up_to_date(other.last_index, other.last_term)
    back = other.is_up_to_date(one.last_index, one.last_term)
    assert forth or back
    assert (forth and back) == ((one.last_index, one.last_term) == (other.last_index, other.last_term))
    if one.last_term != other.last_term:
        assert forth == (other.last_term > one.last_term)


@given(TERMS.filter(bool), st.data())
def test_truncating_leaves_what_came_before(terms: list[int], data: st.DataObject) -> None:
    log = Log(entries(*terms))
    index = data.draw(st.integers(1, len(terms)))
    log.truncate(index)
    assert log.span(1, len(terms)) == list(entries(*terms[: index - 1]))
    assert log.last_index == index - 1


@given(TERMS.filter(bool), st.data())
def test_a_piece_is_bounded_by_bytes_and_has_at_least_one_entry(terms: list[int], data: st.DataObject) -> None:
    """What goes into one message, or one piece for the store."""
    first = data.draw(st.integers(1, len(terms)))
    last = data.draw(st.integers(first, len(terms)))
    limit = data.draw(st.integers(0, 400))
    piece = Log(entries(*terms)).between(first, last, limit)
    assert piece == entries(*terms)[first - 1 : first - 1 + len(piece)]
    assert 1 <= len(piece) <= last - first + 1
    assert len(piece) == 1 or sum(entry.size for entry in piece) <= limit
    if first + len(piece) <= last:
        assert sum(entry.size for entry in entries(*terms)[first - 1 : first + len(piece)]) > limit


@given(TERMS.filter(bool), st.integers(0, 6), st.data())
def test_terms_are_found_by_their_first_and_last_entry(terms: list[int], term: int, data: st.DataObject) -> None:
    """3.5: what the hints of a rejection are made of, and how the leader reads them."""
    log = Log(entries(*terms))
    index = data.draw(st.integers(1, len(terms)))
    assert log.first_of_term(index) == terms.index(terms[index - 1]) + 1
    before = data.draw(st.integers(1, len(terms) + 2))
    of_term = [at for at, other in enumerate(terms, 1) if other == term and at < before]
    assert log.last_of_term(term, before) == max(of_term, default=0)


def test_the_configuration_is_that_of_the_latest_entry_and_goes_with_it() -> None:
    """4.1: it holds from the moment it is appended, and no longer than its entry."""
    one, two = (founding_configuration([Member(name, f"{name}:1", "1")]) for name in ("n1", "n2"))
    log = Log((Entry(1, 1, Kind.CONFIGURATION, one.encode()), Entry(2, 1, Kind.NOOP, b"")))
    assert log.configuration == one
    log.append((Entry(3, 2, Kind.CONFIGURATION, two.encode()),))
    assert log.configuration == two
    log.truncate(3)
    assert log.configuration == one
