"""Whole runs: a seed determines everything, the first seeds pass, and mistakes are found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from raftkv.actors.messages.requests import (
    Applied,
    PendingRequest,
    Propose,
)
from raftkv.actors.node import ROLES, Node
from raftkv.actors.roles.leader import Leader
from raftkv.simulation.checks.violation import kind_of
from raftkv.simulation.cluster.cluster import SimulatedNode
from raftkv.simulation.faults.faults import CLASSES, KINDS
from raftkv.simulation.run import Run, RunPlan, RunResult, plan
from raftkv.simulation.sweep import MIXED, NONE, classes_of
from raftkv.store.commands import Command, DeleteIf, PutIf
from tests.simulation.mistaken import KIND, bad_plan, run_forgetful

WANTED = ("not there", "there", "a revision")
"""What a condition may be on."""

ROOT = Path(__file__).resolve().parents[2]

DIGESTS = """
from raftkv.simulation.faults.faults import CLASSES
from raftkv.simulation.run import Run, plan
from raftkv.simulation.cluster.trace import Digest
for seed, nodes in ((1, 3), (2, 5), (3, 7)):
    digest = Digest()
    result = Run(plan(seed, nodes=nodes, events=4000, classes=CLASSES), write=digest).run()
    print(seed, digest.lines, digest.value(), result)
"""


def traced(plan: RunPlan) -> tuple[list[str], RunResult]:
    """Run a plan; return its trace and its result."""
    lines: list[str] = []
    result = Run(plan, write=lines.append).run()
    return lines, result


def test_a_seed_gives_the_same_trace_in_every_process_byte_by_byte() -> None:
    """With all classes of faults at once; sets of texts have another order in each of the two."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DIGESTS],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    one, other = [process.communicate()[0] for process in processes]

    assert one == other
    assert [int(line.split()[1]) > 4000 for line in one.splitlines()] == [True] * 3


def test_another_seed_gives_another_trace() -> None:
    assert traced(plan(1, nodes=3, events=500))[0] != traced(plan(2, nodes=3, events=500))[0]


@pytest.mark.parametrize("seed", range(4))
def test_injecting_the_recorded_faults_again_gives_the_same_run(seed: int) -> None:
    """Targets are recorded by name, and each fault has a seed for all other random choices."""
    drawn = plan(seed, nodes=5, events=3000, classes=CLASSES)
    lines, result = traced(drawn)

    again = traced(msgspec.structs.replace(drawn, faults=result.faults))

    assert again == (lines, result)
    assert {name for fault in result.faults for name in fault.target.split(",")} <= {"", "n1", "n2", "n3", "n4", "n5"}


@pytest.mark.parametrize("profile", [MIXED, NONE, *CLASSES])
def test_the_first_seeds_pass(profile: str) -> None:
    """Only a few; `make simulate` runs thousands."""
    classes = classes_of(profile)
    results = [Run(plan(seed, events=2000, classes=classes)).run() for seed in range(4)]

    assert [result.violation for result in results] == [""] * 4
    kinds = {fault.kind for result in results for fault in result.faults}
    if profile == NONE:
        assert kinds == set()
    else:
        assert kinds
        assert kinds <= {kind for each in classes or CLASSES for kind in KINDS[each]}
    assert sum(result.answers.get("Applied", 0) for result in results) > 0


def test_a_violation_comes_with_the_last_events_of_each_node() -> None:
    found = run_forgetful(bad_plan())

    assert kind_of(found.violation) == KIND
    assert [f"\n--- {name}, the last " in found.violation for name in ("n1", "n2", "n3")] == [True] * 3


def test_clients_write_with_conditions_that_hold_and_with_some_that_do_not() -> None:
    """Each kind comes with all that may become of it, and one entry with two conditions on one key."""
    came: set[tuple[str, str, str]] = set()
    twice = 0
    for seed in range(12):
        run = Run(plan(seed, events=2500))
        assert run.run().violation == "", seed
        for operation in run.history.operations:
            if isinstance(operation.request, Propose):
                commands = [each for each in operation.request.commands if isinstance(each, PutIf | DeleteIf)]
                twice += len({command.key for command in commands}) < len(commands)
                results = operation.reply.results if isinstance(operation.reply, Applied) else ()
                came |= {
                    (type(command).__name__, {0: "not there", -1: "there"}.get(command.revision, "a revision"), result)
                    for command, result in zip(
                        operation.request.commands, [type(each).__name__ for each in results], strict=False
                    )
                    if isinstance(command, PutIf | DeleteIf)
                }
    puts = {("PutIf", wanted, result) for wanted in WANTED for result in ("PutDone", "Unmatched")}
    deletes = {("DeleteIf", wanted, result) for wanted in WANTED[1:] for result in ("DeleteDone", "Unmatched")}
    assert came == puts | deletes
    assert twice > 0


def test_clients_send_every_command() -> None:
    """One that they never send would never be tried under faults."""
    sent: set[type] = set()
    for seed in range(12):
        run = Run(plan(seed, events=2000))
        run.run()
        for operation in run.history.operations:
            sent |= {type(each) for each in getattr(operation.request, "commands", ())}
    missing = [command.__name__ for command in get_args(Command) if command not in sent]

    assert not missing, f"simulated clients never send {', '.join(missing)}: see Mix in simulation/clients.py"


class LosesSome(Leader):
    """Drops some requests without an answer."""

    def propose(self, asked: PendingRequest, request: Propose) -> None:
        if self.replica.log.last_index % 7:
            super().propose(asked, request)


class LosingNode(Node):
    """Has such a leader."""

    role_classes = tuple(LosesSome if role is Leader else role for role in ROLES)


def test_a_healthy_node_that_does_not_answer_is_a_violation() -> None:
    """Without faults of the node itself; a paused node may be silent."""
    for seed in range(8):
        result = Run(plan(seed, nodes=1, events=2000, classes=["network"]), node_class=LosingNode).run()
        if not result.ok:
            break
    assert re.match(r"n1 is healthy but has not answered: #\d+ .*: write ", result.violation)


def test_a_task_that_ends_with_an_error_is_a_violation() -> None:
    """Its exception may never be retrieved; a real node would only log it at some time."""

    async def fail() -> None:
        raise LookupError("a mistake in the front end")

    def start_task(node: SimulatedNode, *unused: object) -> None:
        if not tasks:
            tasks.append(node.base.loop.create_task(fail()))

    tasks: list[Any] = []
    run = Run(plan(1, nodes=1, events=500, classes=()))
    run.cluster.handled.append(start_task)

    assert run.run().violation.startswith(
        "a task of n1 ended with an unhandled LookupError('a mistake in the front end'):\nTraceback "
    )


def test_an_error_of_the_simulation_itself_fails_the_run() -> None:
    run = Run(plan(1, nodes=1, events=100, classes=()))
    nothing: dict[str, None] = {}
    run.cluster.handled.append(lambda *unused: nothing["missing"])

    result = run.run()

    assert not result.ok
    assert result.violation.startswith("KeyError in the simulation: 'missing'\nTraceback ")
