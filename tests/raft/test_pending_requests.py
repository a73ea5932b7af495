"""Requests that wait: each is in one place, and leaves it once."""

from __future__ import annotations

from typing import NamedTuple

from raftkv.raft.pending_requests import PendingRequests, Waiter


class Request(NamedTuple):
    """Whatever has a deadline."""

    name: str
    deadline_ms: float


def test_clients_wait_at_an_index_in_any_term_until_it_is_applied_or_their_time_is_over() -> None:
    """An index may be appended to twice, by two leaderships of this node: only applying it shows which entry stays."""
    requests = PendingRequests()
    early, late = Waiter(2, "early", 10.0), Waiter(3, "late", 20.0)
    requests.wait_for(7, early)
    requests.wait_for(7, late)
    assert requests.take_expired_waiters(9.0) == []
    assert requests.take_expired_waiters(10.0) == ["early"]
    assert requests.take_waiters(7) == [late]
    assert requests.take_waiters(7) == []
    assert requests.take_expired_waiters(100.0) == []


def test_held_requests_stay_in_order_when_others_expire() -> None:
    requests = PendingRequests()
    requests.held.extend([Request("a", 9.0), Request("b", 5.0), Request("c", 9.0), Request("d", 5.0)])
    assert requests.take_expired_held(4.0) == []
    assert [request.name for request in requests.take_expired_held(5.0)] == ["b", "d"]
    assert [request.name for request in requests.held] == ["a", "c"]


def test_numbers_of_forwarded_requests_are_never_used_again() -> None:
    requests = PendingRequests()
    first, second = Request("first", 9.0), Request("second", 9.0)
    number = requests.forward(first, "n2")
    assert requests.take_answered(number, "n2") is first
    assert requests.forward(second, "n2") != number
    assert requests.take_answered(number, "n2") is None


def test_only_the_node_that_was_asked_can_answer() -> None:
    requests = PendingRequests()
    request = Request("r", 9.0)
    number = requests.forward(request, "n2")
    assert requests.take_answered(number, "n3") is None
    assert requests.take_answered(number, "n2") is request


def test_forwarded_requests_are_taken_back_by_leader_or_by_deadline() -> None:
    requests = PendingRequests()
    for name, leader, deadline_ms in (("a", "n2", 9.0), ("b", "n3", 5.0), ("c", "n2", 5.0)):
        requests.forward(Request(name, deadline_ms), leader)
    assert [request.name for request in requests.take_expired_forwarded(5.0)] == ["b", "c"]
    assert [request.name for request in requests.take_forwarded_to("n2")] == ["a"]
    assert requests.forwarded == {}
