"""The command `simulate`: what it prints, what it leaves, and with which status it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import pytest

from raftkv.cli import cli, run
from raftkv.simulation import command
from raftkv.simulation.report import summary
from raftkv.simulation.run import EVENTS, Run
from raftkv.simulation.schedule import load
from raftkv.simulation.sweep import Tally, Task, TaskResult, parse_seeds, profiles, tasks
from raftkv.simulation.workers import Workers, run_task
from tests.simulation.mistaken import ForgetfulNode, bad_plan
from tests.support.processes import ROOT

Simulate = Callable[..., tuple[int, str]]


@pytest.fixture
def simulate(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulate:
    """Return a function that runs the command in an empty directory and returns its status and output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        status = run(["simulate", *arguments])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return call


# --- one run


def test_a_run_is_summarized_in_a_few_lines(simulate: Simulate) -> None:
    status, text = simulate("--seed", "1", "--nodes", "3", "--events", "500", "--faults", "crash,network")

    assert status == 0
    head, faults, answers, ok = text.splitlines()
    assert re.fullmatch(r"seed 1: 3 nodes, [\d,]+ events in \d+\.\d s of virtual time, \d+ elections?", head)
    assert re.fullmatch(r"faults: (none|(network|crash) .*)", faults)
    assert re.fullmatch(r"answers: .*Applied \d+.*", answers)
    assert ok == "OK"
    assert list(Path().iterdir()) == []


def test_a_trace_has_every_event_and_is_the_same_each_time(simulate: Simulate) -> None:
    arguments = ("--seed", "2", "--nodes", "3", "--events", "300", "--trace")
    (status, text), again = simulate(*arguments), simulate(*arguments)

    assert (status, text) == again
    assert status == 0
    assert len(re.findall(r"^ +\d+\.\d{3} (n[123]|\*) ", text, re.M)) >= 300


def test_a_saved_schedule_gives_the_same_run_and_a_timeline_is_written(simulate: Simulate) -> None:
    arguments = ("--seed", "5", "--nodes", "3", "--events", "800", "--faults", "partition,pause")
    _, text = simulate(*arguments, "--save", "a/run.json", "--html", "b/run.html")
    assert text.endswith("OK\nschedule: a/run.json\ntimeline: b/run.html\n")
    assert "<html" in Path("b/run.html").read_text()

    status, again = simulate("--schedule", "a/run.json")

    assert (status, again.splitlines()) == (0, text.splitlines()[:-2])


def test_a_violation_leaves_a_schedule_and_a_timeline_and_is_made_smaller(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "Run", partial(Run, node_class=ForgetfulNode))
    monkeypatch.setattr("raftkv.simulation.shrink.Run", partial(Run, node_class=ForgetfulNode))
    seed = bad_plan().seed

    status, text = simulate(*f"--seed {seed} --nodes 3 --events 1500 --faults crash --shrink".split())

    assert status == 1
    assert re.search(r"^VIOLATION: n\d .*stale read", text, re.M)
    again = f"python -m raftkv simulate --seed {seed} --faults crash --nodes 3 --events 1500"
    assert f"\nrepeat with: {again}\n" in text
    page = Path(f".raftkv-simulation/{seed}-crash.html").read_text()
    assert '<h1 class="wrong">n' in page
    assert f"seed {seed}, crash: {again}" in page
    assert f"\nschedule: .raftkv-simulation/{seed}-crash.json\ntimeline: .raftkv-simulation/{seed}-crash.html\n" in text
    assert f"python -m raftkv simulate --schedule .raftkv-simulation/{seed}-crash-small.json\n" in text
    small, whole = (load(Path(f".raftkv-simulation/{seed}-crash{part}.json")) for part in ("-small", ""))
    assert 0 < len(small.faults) < len(whole.faults)
    for name in ("", "-small"):
        status, text = simulate("--schedule", f".raftkv-simulation/{seed}-crash{name}.json")
        assert status == 1
        assert re.search(r"^VIOLATION: n\d .*stale read", text, re.M)


# --- a sweep


def test_a_sweep_is_summarized_with_a_line_for_the_ledger(simulate: Simulate) -> None:
    status, text = simulate("--seeds", "3-6", "--events", "300", "--faults", "each", "--jobs", "2")

    assert status == 0
    lines = text.splitlines()
    assert re.fullmatch(r"32 runs, seeds 3 to 6 \(.*mixed 4.*\), in \d+\.\d min: no failures", lines[0])
    assert re.match(r"  \d+,\d{3} events, ", lines[1])
    assert re.match(r"  [\d,]+ runs/min, [\d,]+ events/min and core", lines[2])
    assert lines[3].startswith("  faults: ")
    assert lines[-2] == "for docs/simulation-ledger.md:"
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", cells[0])
    assert (cells[2].split(" (")[0], cells[3], cells[5:]) == ("3 to 6", "32", ["none", ""])
    ledger = (ROOT / "docs" / "simulation-ledger.md").read_text()
    assert len(cells) == len(re.findall(r"^\| date .*$", ledger, re.M)[0].strip("|").split("|"))


def test_a_sweep_ends_when_its_time_is_over(simulate: Simulate) -> None:
    status, text = simulate("--minutes", "0.02", "--events", "100", "--jobs", "1", "--faults", "none")

    assert status == 0
    # On a busy machine there may be only one run.
    assert re.match(r"\d+ runs?, seeds 0 to \d+ \(none \d+\)", text)


def test_ctrl_c_ends_a_sweep_at_once_with_a_summary() -> None:
    arguments = ("simulate", "--seeds", "0-99999", "--events", "200", "--jobs", "1")
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", INTERRUPTED, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    text, _ = process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGINT
    assert re.match(r"interrupted\n\d+ runs, seeds \d+ to \d+ \(mixed \d+\)", text)
    assert text.splitlines()[-1].startswith("| ")


INTERRUPTED = """
import os, signal, sys
from raftkv.cli import run
from raftkv.simulation.sweep import Tally
add = Tally.add
def interrupt_after_three(tally, result):
    add(tally, result)
    if tally.runs.total() == 3:
        os.kill(os.getpid(), signal.SIGINT)
if __name__ == "__main__":
    Tally.add = interrupt_after_three
    sys.exit(run(sys.argv[1:]))
"""


def failed(seed: int, violation: str) -> TaskResult:
    task = Task(seed, "crash", nodes=3, events=500, directory="d")
    return TaskResult(
        task, violation, 400, 5000.0, {"kill": 2}, {"Applied": 3}, 0.5, f"d/{seed}.json", f"d/{seed}.html"
    )


def test_a_failure_is_reported_with_the_command_that_repeats_it() -> None:
    assert summary.of_failure(failed(17, "n1 is wrong: very\n--- n1 …")) == (
        "FAILED: seed 17, crash: n1 is wrong: very\n"
        "  repeat:   python -m raftkv simulate --seed 17 --faults crash --nodes 3 --events 500\n"
        "  schedule: d/17.json\n"
        "  timeline: d/17.html"
    )


def test_findings_are_counted_by_kind_in_the_ledger() -> None:
    tally = Tally()
    for seed in range(3):
        tally.add(failed(seed, f"n{seed} is wrong in term {seed}: very"))
    tally.add(failed(9, ""))

    assert [result.task.seed for result in tally.failures] == [0, 1, 2]
    line = summary.ledger_line(tally)
    assert line.endswith("| 0 to 9 (crash) | 4 | 1,600 | 3 x a node is wrong in term # |  |")


def test_the_command_in_a_report_repeats_the_same_run() -> None:
    for task in (Task(5), Task(6, "none"), Task(7, "disk", 4, 700), Task(8, "crash,disk")):
        words = task.command().split()[3:]
        with click.Context(cli.commands["simulate"]) as context:
            context.command.parse_args(context, words[1:])
        given = context.params
        assert words[0] == "simulate"
        again = Task(given["seed"], given["faults"], given["nodes"] or 0, given["events"] or EVENTS)
        assert again == task


def test_a_worker_that_crashes_is_a_failure_and_the_others_go_on(capfd: pytest.CaptureFixture[str]) -> None:
    with Workers(1) as workers:
        wanted = [Task(1, "none", 1, 100), Task(2, "unknown"), Task(3, "none", 1, 100)]
        results = [result for result in workers.results(iter(wanted)) if result is not None]

    assert [result.task for result in results] == wanted
    assert [result.violation for result in results] == [
        "",
        "the run did not end: its process ended with status 1",
        "",
    ]
    assert "KeyError: 'unknown'" in capfd.readouterr().err


def test_a_worker_returns_the_result_of_the_run(tmp_path: Path) -> None:
    task = Task(4, "mixed", 3, 500, str(tmp_path))
    with Workers(1) as workers:
        (there,) = [result for result in workers.results(iter([task])) if result is not None]
    here = run_task(task)

    assert (there.events, there.virtual_ms, there.faults, there.answers) == (
        here.events,
        here.virtual_ms,
        here.faults,
        here.answers,
    )


# --- options


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-1999", (0, 1999)), ("7-7", (7, 7)), ("500-", (500, None)), ("2000", (0, 1999))]
)
def test_seeds_are_a_range_or_a_number(text: str, seeds: tuple[int, int | None]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "5-4", "0", "-3", "1-x", "1-2-3", "1_0-1_1", "+1-2", " 1-2", "1- 2"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not like|contains no seeds"):
        parse_seeds(text)


def test_each_profile_runs_with_each_seed() -> None:
    assert profiles("each")[:3] == ("mixed", "network", "partition")
    assert profiles(" disk, crash ") == ("disk,crash",)
    wanted = list(tasks((5, 6), ("mixed", "disk"), Task(0, nodes=3)))

    assert wanted == [Task(seed, profile, 3) for seed in (5, 6) for profile in ("mixed", "disk")]
    assert list(tasks((0, None), ("mixed",), Task(0), seconds=0.0)) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", "--seed, --seeds, --schedule or --minutes is needed"),
        ("--seed 1 --seeds 1-2", "--seed and --seeds exclude each other"),
        ("--seed 1 --jobs 2", "--jobs does not go with --seed"),
        ("--seed 1 --faults each", "--faults: each goes with --seeds only"),
        (
            "--seed 1 --faults nix",
            "--faults: 'nix' is not one of network, partition, crash, pause, clock, disk",
        ),
        ("--seeds 1-2 --trace", "--trace does not go with --seeds"),
        ("--seeds 1-", "--seeds without a last one goes with --minutes only"),
        ("--seeds x", "--seeds: 'x' is not like 0-1999, 500- or 2000"),
        ("--schedule nix.json", "--schedule nix.json: No such file or directory\n"),
        ("--schedule /dev/null", "--schedule /dev/null is not a schedule: it is not JSON"),
        ("--seed -1", "--seed: '-1' is not a whole number from 0 to "),
        ("--seed 1 --nodes 0", "--nodes: '0' is not a whole number from 1 to 99"),
        ("--seed 1 --events x", "--events: 'x' is not a whole number from 1 to "),
        ("--seeds 1-2 --jobs 0", "--jobs: '0' is not a whole number from 1 to "),
        ("--minutes nan", "--minutes: 'nan' is not a number from 0.001 to "),
        ("--minutes 0", "--minutes: '0' is not a number from 0.001 to "),
        ("--seeds=", "--seeds: '' is not like 0-1999, 500- or 2000"),
        ("--seed 1 --html=", "--html: the path is empty"),
        ("--seed 1 --html /dev/null/x.html", "--html: cannot write /dev/null/x.html: "),
        ("--seed 1 --save .", "--save: cannot write .: Is a directory"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(simulate: Simulate, arguments: str, line: str) -> None:
    status, text = simulate(*arguments.split())

    assert (status, text.count("\n")) == (2, 1)
    assert text.startswith(f"raftkv: {line}")


def test_other_commands_load_no_part_of_the_simulator() -> None:
    code = "import sys, raftkv.cli; print([name for name in sys.modules if name.startswith('raftkv.simulation')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ}
    )

    assert done.stdout == "[]\n"


def test_the_command_line_works_without_the_simulator() -> None:
    """The image of a node does not contain it."""
    code = (
        "import sys; sys.modules['raftkv.simulation'] = None\n"
        "from raftkv.cli import run\n"
        "print(run(['--version']), run(['simulate', '--seed', '1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[1:] == ["0 2"]
    assert done.stderr == "raftkv: No such command 'simulate'.\n"
