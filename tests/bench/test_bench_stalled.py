"""The effect of a stopped peer on a healthy one: the flood, the fault and the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import stalled
from bench.stalled import FLOODED, STEADY, STOCK, STOPPED, Phase, Stall, Times, measure_stall, stalls_table
from tests.support.processes import free_ports

SHORT = Times(fault_s=0.3, around_s=0.3, warm_up_s=0.3)


def stall(before: float, during: float, after: float, pause_ms: float = 50.0) -> Stall:
    return Stall(STEADY, STOPPED, Phase(before, 9, 4, 30), Phase(during, pause_ms, 3, 66), Phase(after, 9, 4, 31), 0.25)


def test_a_fault_is_compared_with_the_time_before_and_after_it() -> None:
    stalls = [stall(900, 1000, 1100), stall(1000, 900, 1000, 80.0), stall(1000, 1000, 1000)]

    *_, line = stalls_table(stalls).splitlines()
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("SIGSTOP", STEADY, "3", "1,000 (900–1,000)", "1,000 (900–1,000)", "100.0% (90.0%–100.0%)"),
        *("1,000 (1,000–1,100)", "50 (50–80)", "4.0 (4.0–4.0)", "3.0 (3.0–3.0)", "30", "66 (66–66)", "0.2 (0.2–0.2)"),
    ]


@pytest.mark.cluster
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc of other processes")
@pytest.mark.parametrize("base", [STEADY, FLOODED, STOCK])
def test_a_flood_is_measured_and_leaves_no_process_behind(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other peer counts nothing while it is stopped."""
    counted: list[int] = []
    sessions: list[int] = []
    watch = stalled.watch

    def watch_both(flood: stalled.Flood, seconds: float) -> Phase:
        before = flood.counters.get(1)
        phase = watch(flood, seconds)
        counted.append(flood.counters.get(1) - before)
        sessions.extend(flood.sessions)
        return phase

    monkeypatch.setattr(stalled, "watch", watch_both)
    found = measure_stall(base, STOPPED, SHORT, free_ports(3))

    assert counted[1] == 0
    assert found.before.rate > 0
    assert found.during.most_mib > 1
    assert [pid for leader in sessions for pid in stalled.session_of(leader)] == []
