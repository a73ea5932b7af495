"""The load: what it sends, and that it counts everything that comes back for what it is."""

from __future__ import annotations

import socket
from collections import Counter

import pytest

from bench.load import Load, LoadPlan, LoadResult, what_is_wrong
from bench.throughput import run_load
from bench.workload import KEYS, make_request, make_requests
from tests.bench.fake_server import CLOSE, FakeServer, answer, right_answer, serving


def well(number: int, request: bytes) -> list[bytes]:
    return [right_answer(request)]


def counted(server: FakeServer, requests: int, connections: int = 1, timeout_s: float = 20.0) -> LoadResult:
    return Load(LoadPlan([server.target], "write", connections, requests=requests, timeout_s=timeout_s)).run()


def answers(outcome: LoadResult) -> int:
    return outcome.all_latencies().total


def test_requests_are_well_formed_and_name_each_key_once() -> None:
    assert make_request("write", 42) == (
        b'POST /keys/key-00042/ HTTP/1.1\r\nHost: bench\r\nContent-Length: 28\r\n\r\n{"value":"0000000000000042"}',
        (b'\r\n\r\n{"value":"0000000000000042"}\n', b'\r\n\r\n{"value":"0000000000000042"}'),
    )
    assert make_request("read", 42).data == b"GET /keys/key-00042/ HTTP/1.1\r\nHost: bench\r\n\r\n"
    assert make_request("stale", 42).data == b"GET /keys/key-00042/?level=stale HTTP/1.1\r\nHost: bench\r\n\r\n"
    assert len({request.data for request in make_requests("read")}) == KEYS
    assert make_requests("write") == make_requests("write")


def test_a_counted_plan_sends_each_request_once_over_connections_that_stay() -> None:
    with serving(well) as server:
        outcome = counted(server, requests=100, connections=4)

    assert (answers(outcome), outcome.errors, server.connections) == (100, {}, 4)
    assert Counter(server.requests) == Counter(request.data for request in make_requests("write")[:100])


def test_a_connection_has_one_request_under_way() -> None:
    """The server would take two at once for one with rubbish behind it."""
    with serving(well) as server:
        counted(server, requests=50)

    assert server.requests == [request.data for request in make_requests("write")[:50]]


def test_connections_are_spread_evenly_over_the_targets() -> None:
    with serving(well) as first, serving(well) as second:
        outcome = Load(LoadPlan([first.target, second.target], "write", 6, requests=60)).run()

    assert (first.connections, second.connections) == (3, 3)
    assert [histogram.total for histogram in outcome.latencies] == [len(first.requests), len(second.requests)]
    assert answers(outcome) == 60


def test_an_answer_may_come_in_pieces() -> None:
    def in_pieces(number: int, request: bytes) -> list[bytes]:
        whole = right_answer(request)
        return [whole[at : at + 7] for at in range(0, len(whole), 7)]

    with serving(in_pieces) as server:
        outcome = counted(server, requests=20, connections=2)

    assert (answers(outcome), outcome.errors, server.connections) == (20, {}, 2)


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_an_answer_is_right_with_and_without_the_newline_at_its_end(ending: bytes) -> None:
    """Commits from before the newline are still measured beside later ones."""

    def split(number: int, request: bytes) -> list[bytes]:
        return [right_answer(request)[:-1], ending]

    with serving(split if ending else lambda number, request: [right_answer(request)[:-1]]) as server:
        outcome = counted(server, requests=20)

    assert (answers(outcome), outcome.errors, server.connections) == (20, {}, 1)


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (answer(503, b'{"error":{"code":"no_leader","message":"none"}}'), "503 no_leader"),
        (answer(404, b""), "404"),
        (answer(200, b'{"value":""}'), "wrong answer"),
    ],
)
def test_an_answer_that_is_not_the_right_one_is_an_error_and_the_connection_stays(bad: bytes, name: str) -> None:
    with serving(lambda number, request: [bad] if number in (1, 3) else well(number, request)) as server:
        outcome = counted(server, requests=5)

    assert (answers(outcome), outcome.errors) == (3, {name: 2})
    assert (len(server.requests), server.connections) == (5, 1)


def test_a_connection_that_is_closed_is_an_error_and_is_opened_anew() -> None:
    with serving(lambda number, request: [CLOSE] if number == 1 else well(number, request)) as server:
        outcome = counted(server, requests=4)

    assert (answers(outcome), outcome.errors, server.connections) == (3, {"connection closed": 1}, 2)


def test_a_server_may_close_after_an_error() -> None:
    """That one request failed is one error, not two."""
    closing = answer(503, b"").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with serving(lambda number, request: [closing, CLOSE] if number == 1 else well(number, request)) as server:
        outcome = counted(server, requests=4)

    assert (answers(outcome), outcome.errors) == (3, {"503": 1})


def test_silence_is_an_error_and_the_connection_is_opened_anew() -> None:
    with serving(lambda number, request: [] if number == 0 else well(number, request)) as server:
        outcome = counted(server, requests=3, timeout_s=1.0)

    assert (answers(outcome), outcome.errors, server.connections) == (2, {"no answer in time": 1}, 2)


def test_rubbish_is_an_error_and_the_connection_is_opened_anew() -> None:
    rubbish = b"SMTP ready\r\n\r\n"
    with serving(lambda number, request: [rubbish] if number == 0 else well(number, request)) as server:
        outcome = counted(server, requests=3)

    assert (answers(outcome), outcome.errors, server.connections) == (2, {"not HTTP": 1}, 2)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        outcome = Load(LoadPlan([f"127.0.0.1:{nobody.getsockname()[1]}"], "read", 1, requests=2)).run()

    assert (answers(outcome), outcome.errors) == (0, {"cannot connect": 2})


def test_what_is_answered_in_the_warm_up_is_not_measured_but_all_errors_are_counted() -> None:
    def three_and_no_more(number: int, request: bytes) -> list[bytes]:
        return [answer(429, b"")] if number == 0 else well(number, request) if number < 3 else []

    with serving(three_and_no_more) as server:
        outcome = Load(LoadPlan([server.target], "write", 1, seconds=0.05, warm_up_s=1.5)).run()

    assert (answers(outcome), outcome.errors, len(server.requests)) == (0, {"429": 1, "unanswered at the end": 1}, 4)


def test_an_incomplete_answer_is_waited_for() -> None:
    whole = answer(500, b"12345")

    assert {what_is_wrong(whole[:length]) for length in range(len(whole))} == {""}
    assert what_is_wrong(whole) == "500"


def test_the_load_is_a_process_that_reports_in_json() -> None:
    with serving(well) as server:
        outcome = run_load(LoadPlan([server.target], "write", 2, requests=10))

    assert (answers(outcome), outcome.errors, server.connections) == (10, {}, 2)
