"""The books of a leadership transfer: its target, its deadline, and the requests to resign that wait for its end."""

from __future__ import annotations

from raftkv.actors.roles.leadership_transfer import LeadershipTransfer, most_up_to_date
from raftkv.raft.progress import Progress
from tests.roles.rehearsal import resign, write


def test_a_transfer_ends_with_the_first_deadline_of_a_request_to_resign() -> None:
    transfer = LeadershipTransfer()
    transfer.resigning = [write(until=700.0), write(until=400.0)]
    transfer.begin("n2", 600.0)

    assert (transfer.target, transfer.deadline_ms) == ("n2", 400.0)
    assert [transfer.is_overdue(now_ms) for now_ms in (399.0, 400.0)] == [False, True]


def test_a_transfer_without_such_a_request_ends_at_its_own_deadline() -> None:
    transfer = LeadershipTransfer()
    assert not transfer.is_overdue(1e12)
    transfer.begin("n2", 600.0)

    assert transfer.deadline_ms == 600.0


def test_each_request_to_resign_is_answered_once() -> None:
    transfer = LeadershipTransfer()
    request = resign()
    transfer.resigning.append(request)
    transfer.begin("n2", 600.0)

    assert (transfer.end(), transfer.target) == ([request], None)
    assert transfer.end() == []


def test_the_target_is_the_peer_with_most_of_the_log_on_its_disk() -> None:
    progress = {peer: Progress(10, 0.0, 1000) for peer in ("n2", "n3", "n4")}
    progress["n3"].match_index = 7

    assert most_up_to_date({"n2", "n3"}, progress) == "n3"
    assert most_up_to_date({"n2", "n4"}, progress) == "n4"
    assert most_up_to_date(set(), progress) is None
