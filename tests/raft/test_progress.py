"""A leader's knowledge of one peer, under any order of what the peer may say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftkv.raft.progress import Progress

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 3)),
        st.tuples(st.just("matched"), st.integers(0, 30)),
        st.tuples(st.just("rejected"), st.integers(0, 30), st.integers(1, 30)),
        st.tuples(st.just("probe")),
        st.tuples(st.just("beat")),
    ),
    max_size=60,
)


@given(EVENTS)
def test_match_index_never_falls_and_stays_below_next_index(events: list[tuple[object, ...]]) -> None:
    """Figure 3.1; and bytes under way are those of the messages under way."""
    progress = Progress(next_index=10, now_ms=0.0, inflight_limit_bytes=1000)
    matched = 0
    for event in events:
        match event:
            case ("send", int(count)):
                if progress.may_send(0.0):
                    progress.sent(progress.next_index + count - 1, 400, 0.0)
            case ("matched", int(index)):
                news = progress.matched(index, 0.0)
                assert news == (index > matched)
            case ("rejected", int(at), int(hint)):
                if progress.rejected(at, hint):
                    assert progress.next_index <= max(at, progress.match_index + 1)
            case ("probe",):
                progress.probe()
            case _:
                progress.resume()
        assert progress.match_index >= matched
        matched = progress.match_index
        assert progress.match_index < progress.next_index
        assert progress.inflight_bytes <= 1000 + 400
        assert (progress.inflight_bytes > 0) == progress.has_inflight


def test_a_probe_is_one_message_at_a_time() -> None:
    progress = Progress(next_index=5, now_ms=0.0, inflight_limit_bytes=1000)
    progress.sent(7, 100, 0.0)
    assert (progress.state, progress.may_send(0.0), progress.next_index) == ("probe", False, 5)
    progress.matched(7, 1.0)
    assert (progress.state, progress.may_send(0.0), progress.next_index) == ("replicate", True, 8)


def test_replicating_runs_ahead_of_the_answers_up_to_the_limit() -> None:
    progress = Progress(next_index=1, now_ms=0.0, inflight_limit_bytes=1000)
    progress.matched(0, 0.0)
    for last in (1, 2, 3):
        progress.sent(last, 400, 0.0)
    assert (progress.next_index, progress.may_send(0.0)) == (4, False)
    progress.matched(1, 0.0)
    assert (progress.inflight_bytes, progress.may_send(0.0)) == (800, True)
