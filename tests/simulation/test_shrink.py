"""Shrinking plans that fail, and schedule files."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from raftkv.config.settings import Limits
from raftkv.simulation.checks.violation import first_line, kind_of
from raftkv.simulation.cluster.cluster import SIMULATED_LIMITS
from raftkv.simulation.cluster.describe import counted
from raftkv.simulation.faults.faults import CLASSES, Fault
from raftkv.simulation.run import Run, RunPlan, RunResult, plan
from raftkv.simulation.schedule import Schedule, load, save
from raftkv.simulation.shrink import shrink
from tests.simulation.mistaken import KIND, bad_plan, run_forgetful

FOUND = Path(__file__).resolve().parent / "found"


@pytest.mark.parametrize(
    ("violation", "kind"),
    [
        ("n3 sends Hello of term 2 to n2\n--- n1", "a node sends Hello of term # to a node"),
        ("two leaders in term 7: n1 and n12", "two leaders in term #"),
        ("n3 counts entry 19 of term 2 (k0=17) as committed", "a node counts entry # of term #"),
        ("n1 ends itself with status 70: a bug", "a node ends itself with status 70"),
        ("the history has no explanation:\n5 operations", "the history has no explanation"),
        ("KeyError in the simulation: 5\nTraceback", "KeyError in the simulation"),
    ],
)
def test_violations_of_a_kind_differ_in_nodes_and_numbers_alone(violation: str, kind: str) -> None:
    assert kind_of(violation) == kind


def test_the_first_line_says_what_is_wrong() -> None:
    assert first_line("n1 is wrong: very\n--- n1\n…") == "n1 is wrong: very"
    assert (
        first_line("no order:\n3 operations: 1 anomaly\n  k0 is bad\nmore")
        == "no order: 3 operations: 1 anomaly k0 is bad"
    )


def pretended(plan: RunPlan) -> RunResult:
    """Pretend that a run fails if n2 crashes and n1 pauses later, with at least two nodes."""
    done = tuple(fault for fault in plan.faults if fault.kind != "idle")
    crashed = [fault.at_ms for fault in done if fault.kind == "crash" and "n2" in fault.target]
    bad = plan.nodes >= 2 and any(
        fault.kind == "pause" and "n1" in fault.target and fault.at_ms >= crashed[0] for fault in done if crashed
    )
    violation = f"n1 is wrong in term {len(done)}: {plan.events}" if bad else ""
    return RunResult(plan.seed, plan.nodes, plan.events, 0.0, violation, done, {}, 0)


def test_faults_that_are_not_needed_are_removed() -> None:
    noise = [Fault(at_ms=10.0 * number, kind="loss", value=0.5, seed=number) for number in range(40)]
    idle = [Fault(at_ms=1.0, kind="idle")]
    needed = [Fault(200.0, "crash", "n1,n2,n3", 500.0), Fault(300.0, "pause", "n1", 700.0)]
    large = RunPlan(5, 7, 10_000, True, False, Limits(), (*idle, *noise, *needed, *noise))

    small = shrink(large, run=pretended)

    assert small.plan.faults == (Fault(0.0, "crash", "n2"), Fault(0.0, "pause", "n1", 1.0))
    assert (small.plan.nodes, small.plan.events, small.plan.shuffled, small.plan.calm_start) == (2, 1, False, True)
    assert kind_of(small.result.violation) == "a node is wrong in term #"
    assert small.runs < 150


def test_another_kind_of_violation_does_not_count() -> None:
    def two_kinds(plan: RunPlan) -> RunResult:
        kind = "n1 is wrong" if len(plan.faults) > 1 else "n1 is right"
        return RunResult(plan.seed, plan.nodes, plan.events, 0.0, kind, plan.faults, {}, 0)

    large = RunPlan(5, 1, 0, False, True, Limits(), tuple(Fault(float(number), "order") for number in range(9)))

    assert len(shrink(large, run=two_kinds).plan.faults) == 2


def test_the_search_ends_at_its_limit_of_runs_or_time() -> None:
    faults = tuple(Fault(float(number), "crash", "n2") for number in range(50))
    large = RunPlan(5, 7, 10_000, True, False, Limits(), (*faults, Fault(99.0, "pause", "n1", 700.0)))

    assert shrink(large, run=pretended, runs=5).runs == 6
    assert shrink(large, run=pretended, seconds=0.0).runs == 1


def test_ctrl_c_ends_the_search_with_the_smallest_so_far() -> None:
    executed: list[RunPlan] = []

    def interrupted(plan: RunPlan) -> RunResult:
        executed.append(plan)
        if len(executed) == 10:
            raise KeyboardInterrupt
        return pretended(plan)

    faults = tuple(Fault(float(number), "crash", "n2") for number in range(50))
    large = RunPlan(5, 7, 10_000, True, False, Limits(), (*faults, Fault(99.0, "pause", "n1", 700.0)))

    small = shrink(large, run=interrupted)

    assert (len(executed), small.interrupted) == (10, True)
    assert 2 <= len(small.plan.faults) < 51
    assert not pretended(small.plan).ok
    assert pretended(small.plan) == small.result


def test_a_single_thing_is_singular() -> None:
    assert [counted(number, "node") for number in (0, 1, 2, 3000)] == ["0 nodes", "1 node", "2 nodes", "3,000 nodes"]


def test_a_plan_that_does_not_fail_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="does not fail"):
        shrink(plan(1, nodes=1, events=50, classes=()))


def test_the_schedule_of_a_real_mistake_gets_smaller_and_shows_it_again_from_a_file(tmp_path: Path) -> None:
    drawn = bad_plan()
    result = run_forgetful(drawn)

    small = shrink(drawn, run=run_forgetful, runs=60)
    save(tmp_path / "small.json", small.plan, first_line(small.result.violation))
    again = load(tmp_path / "small.json")

    assert kind_of(small.result.violation) == KIND
    assert 0 < len(small.plan.faults) < len(result.faults)
    assert run_forgetful(again) == small.result
    assert again.story == first_line(small.result.violation)
    # Nodes without the mistake pass.
    assert Run(again).run().ok


# --- schedules


def test_a_schedule_comes_back_as_it_was_written(tmp_path: Path) -> None:
    drawn = plan(3, events=100)

    save(tmp_path / "new" / "3.json", drawn, 'a story with “quotes” and "quotes"')
    read = load(tmp_path / "new" / "3.json")

    assert read.story == 'a story with “quotes” and "quotes"'
    assert read == Schedule(**msgspec.structs.asdict(drawn), story=read.story)
    lines = (tmp_path / "new" / "3.json").read_text().splitlines()
    assert len([line for line in lines if '"at_ms"' in line]) == len(drawn.faults)


@pytest.mark.parametrize("text", ["", "{}", '{"seed": 1}', "[]", '{"seed":1,"unknown":2}'])
def test_a_file_that_is_not_a_schedule_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)

    with pytest.raises(ValueError, match=r"^is not a schedule: "):
        load(tmp_path / "x.json")


def crash(**fields: object) -> dict[str, object]:
    """Return fields of a plan with one valid fault, changed by ``fields``."""
    return {"faults": (msgspec.structs.replace(Fault(1.0, "crash", "n1", 5.0), **fields),)}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"nodes": 0}, "nodes is 0, must be from 1 to 99"),
        ({"nodes": 100}, "nodes is 100, must be from 1 to 99"),
        ({"events": 0}, "events is 0, must be at least 1"),
        ({"limits": Limits(segment_bytes=65535)}, "segment_bytes is 65535, must be at least 65536"),
        ({"limits": Limits(held_requests=0)}, "held_requests is 0, must be at least 1"),
        (crash(kind="crush"), "fault 1: kind 'crush' is not one of loss, "),
        (crash(at_ms=-1.0), "fault 1: at_ms is -1, must not be negative"),
        (crash(for_ms=-0.5), "fault 1: for_ms is -0.5, must not be negative"),
        (crash(kind="loss", value=-0.1), "fault 1: value is -0.1, must not be negative"),
        (crash(kind="loss", value=1.5), "fault 1: value is 1.5, must be a probability from 0 to 1 for loss"),
        (crash(kind="rate"), "fault 1: value is 0, must be positive for rate"),
        (crash(kind="flap"), "fault 1: value is 0, must be positive for flap"),
        (
            crash(target="n4"),
            "fault 1: target 'n4' is neither one of leader, follower, any, most, all nor a node",
        ),
        (crash(target="n1,leader"), "fault 1: target 'leader' is neither one of "),
        (crash(target=""), "fault 1: target '' is neither one of "),
    ],
)
def test_an_invalid_plan_is_refused(tmp_path: Path, fields: dict[str, object], line: str) -> None:
    sound = RunPlan(1, 3, 100, False, True, SIMULATED_LIMITS, (Fault(1.0, "crash", "n1"), Fault(2.0, "halves")))
    save(tmp_path / "x.json", sound)
    assert load(tmp_path / "x.json").faults == sound.faults
    save(tmp_path / "x.json", msgspec.structs.replace(sound, **fields))

    with pytest.raises(ValueError, match=f"^is not a schedule: {re.escape(line)}"):
        load(tmp_path / "x.json")


@pytest.mark.parametrize("seed", range(20))
def test_every_drawn_plan_can_be_saved_and_loaded(tmp_path: Path, seed: int) -> None:
    save(tmp_path / "x.json", plan(seed, events=100, classes=CLASSES))

    assert load(tmp_path / "x.json").faults


@pytest.mark.parametrize("path", sorted(FOUND.glob("*.json")), ids=lambda path: path.stem)
def test_a_schedule_that_once_failed_passes_now(path: Path) -> None:
    """Each of these schedules has shown a mistake, see README.md there."""
    schedule = load(path)

    assert schedule.story
    assert Run(schedule).run().violation == ""


def test_the_sample_still_shows_the_mistake_that_was_put_in() -> None:
    """The clients' requests come from the seed: if they are drawn in another way, the sample has to be found again."""
    assert kind_of(run_forgetful(load(FOUND / "sample-stale-read-after-restart.json")).violation) == KIND


def test_the_page_lists_every_schedule() -> None:
    named = set(re.findall(r"^\| `(.+?\.json)` \| .+ \|$", (FOUND / "README.md").read_text(), re.M))

    assert named
    assert named == {path.name for path in FOUND.glob("*.json")}
