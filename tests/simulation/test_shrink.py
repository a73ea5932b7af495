"""Making plans smaller, and schedules that are written down and lived again."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from raftkv.config.settings import Limits
from raftkv.simulation.cluster.cluster import SIMULATED_LIMITS
from raftkv.simulation.faults.faults import CLASSES, Fault
from raftkv.simulation.faults.schedule import Schedule, load, save
from raftkv.simulation.run import Run, RunPlan, RunResult, plan
from raftkv.simulation.shrink import counted, first_line, kind_of, shrink
from tests.simulation.mistaken import KIND, bad_plan, live

FOUND = Path(__file__).resolve().parent / "found"


@pytest.mark.parametrize(
    ("violation", "kind"),
    [
        ("n3 speaks of term 2 to n2 in Hello, while it is 1\n--- n1", "a node speaks of term # to a node in Hello"),
        ("two leaders in term 7: n1 and n12", "two leaders in term #"),
        ("n3 takes entry 19 of term 2 (k0=17) for committed", "a node takes entry # of term #"),
        ("n1 ends itself with status 70: a bug", "a node ends itself with status 70"),
        ("the history can't be explained:\n5 operations", "the history can't be explained"),
        ("KeyError in the simulation: 5\nTraceback", "KeyError in the simulation"),
    ],
)
def test_violations_of_a_kind_differ_in_nodes_and_numbers_alone(violation: str, kind: str) -> None:
    assert kind_of(violation) == kind


def test_the_first_line_says_what_is_wrong() -> None:
    assert first_line("n1 is wrong: very\n--- n1\n…") == "n1 is wrong: very"
    assert (
        first_line("no order:\n3 operations: 1 fault\n  k0 is bad\nmore") == "no order: 3 operations: 1 fault k0 is bad"
    )


def pretended(plan: RunPlan) -> RunResult:
    """Pretend that what goes wrong takes a crash of n2 and a pause of n1 after it, and at least two nodes."""
    done = tuple(fault for fault in plan.faults if fault.kind != "idle")
    crashed = [fault.at_ms for fault in done if fault.kind == "crash" and "n2" in fault.target]
    bad = plan.nodes >= 2 and any(
        fault.kind == "pause" and "n1" in fault.target and fault.at_ms >= crashed[0] for fault in done if crashed
    )
    violation = f"n1 is wrong in term {len(done)}: {plan.events}" if bad else ""
    return RunResult(plan.seed, plan.nodes, plan.events, 0.0, violation, done, {}, 0)


def test_what_is_not_needed_is_left_out() -> None:
    noise = [Fault(at_ms=10.0 * number, kind="loss", value=0.5, seed=number) for number in range(40)]
    idle = [Fault(at_ms=1.0, kind="idle")]
    needed = [Fault(200.0, "crash", "n1,n2,n3", 500.0), Fault(300.0, "pause", "n1", 700.0)]
    large = RunPlan(5, 7, 10_000, True, False, Limits(), (*idle, *noise, *needed, *noise))

    small = shrink(large, live=pretended)

    assert small.plan.faults == (Fault(0.0, "crash", "n2"), Fault(0.0, "pause", "n1", 1.0))
    assert (small.plan.nodes, small.plan.events, small.plan.shuffled, small.plan.calm_start) == (2, 1, False, True)
    assert kind_of(small.outcome.violation) == "a node is wrong in term #"
    assert small.runs < 150


def test_another_kind_of_violation_does_not_count() -> None:
    def two_kinds(plan: RunPlan) -> RunResult:
        kind = "n1 is wrong" if len(plan.faults) > 1 else "n1 is right"
        return RunResult(plan.seed, plan.nodes, plan.events, 0.0, kind, plan.faults, {}, 0)

    large = RunPlan(5, 1, 0, False, True, Limits(), tuple(Fault(float(number), "order") for number in range(9)))

    assert len(shrink(large, live=two_kinds).plan.faults) == 2


def test_it_ends_after_so_many_lives() -> None:
    faults = tuple(Fault(float(number), "crash", "n2") for number in range(50))
    large = RunPlan(5, 7, 10_000, True, False, Limits(), (*faults, Fault(99.0, "pause", "n1", 700.0)))

    assert shrink(large, live=pretended, runs=5).runs == 6
    assert shrink(large, live=pretended, seconds=0.0).runs == 1


def test_ctrl_c_ends_the_search_with_the_smallest_so_far() -> None:
    lived: list[RunPlan] = []

    def interrupted(plan: RunPlan) -> RunResult:
        lived.append(plan)
        if len(lived) == 10:
            raise KeyboardInterrupt
        return pretended(plan)

    faults = tuple(Fault(float(number), "crash", "n2") for number in range(50))
    large = RunPlan(5, 7, 10_000, True, False, Limits(), (*faults, Fault(99.0, "pause", "n1", 700.0)))

    small = shrink(large, live=interrupted)

    assert (len(lived), small.interrupted) == (10, True)
    assert 2 <= len(small.plan.faults) < 51
    assert not pretended(small.plan).ok
    assert pretended(small.plan) == small.outcome


def test_one_of_a_kind_is_told_as_one() -> None:
    assert [counted(number, "node") for number in (0, 1, 2, 3000)] == ["0 nodes", "1 node", "2 nodes", "3,000 nodes"]


def test_a_plan_that_shows_nothing_cannot_be_made_smaller() -> None:
    with pytest.raises(ValueError, match="shows no violation"):
        shrink(plan(1, nodes=1, events=50, classes=()))


def test_the_schedule_of_a_real_mistake_gets_smaller_and_shows_it_again_from_a_file(tmp_path: Path) -> None:
    drawn = bad_plan()
    lived = live(drawn)

    small = shrink(drawn, live=live, runs=60)
    save(tmp_path / "small.json", small.plan, first_line(small.outcome.violation))
    again = load(tmp_path / "small.json")

    assert kind_of(small.outcome.violation) == KIND
    assert 0 < len(small.plan.faults) < len(lived.faults)
    assert live(again) == small.outcome
    assert again.story == first_line(small.outcome.violation)
    # Nodes without the mistake do well with it.
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
def test_what_is_no_schedule_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)

    with pytest.raises(ValueError, match=r"^is no schedule: "):
        load(tmp_path / "x.json")


def crash(**fields: object) -> dict[str, object]:
    """Return fields of a plan with one sound fault, but for what is given."""
    return {"faults": (msgspec.structs.replace(Fault(1.0, "crash", "n1", 5.0), **fields),)}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"nodes": 0}, "nodes is 0, not from 1 to 99"),
        ({"nodes": 100}, "nodes is 100, not from 1 to 99"),
        ({"events": 0}, "events is 0, not at least 1"),
        ({"limits": Limits(segment_bytes=65535)}, "segment_bytes is 65535, not at least 65536"),
        ({"limits": Limits(held_requests=0)}, "held_requests is 0, not at least 1"),
        (crash(kind="crush"), "fault 1: kind 'crush' is none of loss, "),
        (crash(at_ms=-1.0), "fault 1: at_ms is -1, which is negative"),
        (crash(for_ms=-0.5), "fault 1: for_ms is -0.5, which is negative"),
        (crash(kind="loss", value=-0.1), "fault 1: value is -0.1, which is negative"),
        (crash(kind="loss", value=1.5), "fault 1: value is 1.5, and how likely loss is goes from 0 to 1"),
        (crash(kind="rate"), "fault 1: value is 0, and rate needs more"),
        (crash(kind="flap"), "fault 1: value is 0, and flap needs more"),
        (crash(target="n4"), "fault 1: target 'n4' is none of leader, follower, any, most, all, and no node from n1"),
        (crash(target="n1,leader"), "fault 1: target 'leader' is none of "),
        (crash(target=""), "fault 1: target '' is none of "),
    ],
)
def test_what_no_life_can_be_made_from_is_refused(tmp_path: Path, fields: dict[str, object], line: str) -> None:
    sound = RunPlan(1, 3, 100, False, True, SIMULATED_LIMITS, (Fault(1.0, "crash", "n1"), Fault(2.0, "halves")))
    save(tmp_path / "x.json", sound)
    assert load(tmp_path / "x.json").faults == sound.faults
    save(tmp_path / "x.json", msgspec.structs.replace(sound, **fields))

    with pytest.raises(ValueError, match=f"^is no schedule: {re.escape(line)}"):
        load(tmp_path / "x.json")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_seed_draws_can_be_read_again(tmp_path: Path, seed: int) -> None:
    save(tmp_path / "x.json", plan(seed, events=100, classes=CLASSES))

    assert load(tmp_path / "x.json").faults


@pytest.mark.parametrize("path", sorted(FOUND.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_found_once_is_well_now(path: Path) -> None:
    """Each of these schedules has shown a mistake: README.md there tells which."""
    schedule = load(path)

    assert schedule.story
    assert Run(schedule).run().violation == ""


def test_the_sample_still_shows_the_mistake_that_was_put_in() -> None:
    """What clients ask for comes from the seed: where that is drawn in another way, the sample has to be found anew."""
    assert kind_of(live(load(FOUND / "sample-stale-read-after-restart.json")).violation) == KIND


def test_there_are_schedules_of_what_was_found() -> None:
    named = set(re.findall(r"^\| `(.+?\.json)` \| .+ \|$", (FOUND / "README.md").read_text(), re.M))

    assert named
    assert named == {path.name for path in FOUND.glob("*.json")}
