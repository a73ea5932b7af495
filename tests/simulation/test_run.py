"""Whole lives: that a seed decides everything, that all is well in those of today, and that mistakes are found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raftkv.actors.gateway import Gateway
from raftkv.actors.messages.requests import (
    Applied,
    PendingRequest,
    Propose,
)
from raftkv.actors.node import ROLES, Node
from raftkv.actors.roles.leader import Leader
from raftkv.simulation.faults.faults import CLASSES, KINDS
from raftkv.simulation.run import Run, RunPlan, RunResult, plan
from raftkv.simulation.shrink import kind_of
from raftkv.simulation.sweep import MIXED, NONE, classes_of
from raftkv.store.commands import DeleteIf, PutIf
from tests.simulation.mistaken import KIND, bad_plan, live

WANTED = ("not there", "there", "a revision")
"""What a condition may be on."""

ROOT = Path(__file__).resolve().parents[2]

DIGESTS = """
from raftkv.simulation.faults.faults import CLASSES
from raftkv.simulation.run import Run, plan
from raftkv.simulation.report.trace import Digest
for seed, nodes in ((1, 3), (2, 5), (3, 7)):
    digest = Digest()
    outcome = Run(plan(seed, nodes=nodes, events=4000, classes=CLASSES), write=digest).run()
    print(seed, digest.lines, digest.value(), outcome)
"""


def traced(plan: RunPlan) -> tuple[list[str], RunResult]:
    """Live a plan; return its trace and what came of it."""
    lines: list[str] = []
    outcome = Run(plan, write=lines.append).run()
    return lines, outcome


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
def test_the_faults_that_came_to_pass_done_again_come_to_the_same(seed: int) -> None:
    """Targets are recorded by name, and what else is left to chance has a seed of its own in each fault."""
    drawn = plan(seed, nodes=5, events=3000, classes=CLASSES)
    lines, outcome = traced(drawn)

    again = traced(msgspec.structs.replace(drawn, faults=outcome.faults))

    assert again == (lines, outcome)
    assert {name for fault in outcome.faults for name in fault.target.split(",")} <= {"", "n1", "n2", "n3", "n4", "n5"}


@pytest.mark.parametrize("profile", [MIXED, NONE, *CLASSES])
def test_all_is_well_in_the_lives_of_the_first_seeds(profile: str) -> None:
    """As many as fit here; `make simulate` lives thousands."""
    classes = classes_of(profile)
    outcomes = [Run(plan(seed, events=2000, classes=classes)).run() for seed in range(4)]

    assert [outcome.violation for outcome in outcomes] == [""] * 4
    kinds = {fault.kind for outcome in outcomes for fault in outcome.faults}
    if profile == NONE:
        assert kinds == set()
    else:
        assert kinds
        assert kinds <= {kind for each in classes or CLASSES for kind in KINDS[each]}
    assert sum(outcome.answers.get("Applied", 0) for outcome in outcomes) > 0


def test_a_mistake_is_found_and_the_last_happenings_of_each_node_are_told() -> None:
    found = live(bad_plan())

    assert kind_of(found.violation) == KIND
    assert [f"\n--- {name}, the last " in found.violation for name in ("n1", "n2", "n3")] == [True] * 3


def test_clients_write_on_conditions_that_hold_and_on_some_that_do_not() -> None:
    """Each kind comes with all that may become of it, and one entry with two conditions on one key."""
    came: set[tuple[str, str, str]] = set()
    twice = 0
    for seed in range(12):
        life = Run(plan(seed, events=2500))
        assert life.run().violation == "", seed
        for operation in life.history.operations:
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


class LosesSome(Leader):
    """Forgets a request, now and then, and nobody is ever told."""

    def propose(self, asked: PendingRequest, request: Propose) -> None:
        if self.replica.log.last_index % 7:
            super().propose(asked, request)


class LosingNode(Node):
    """Has such a leader."""

    role_classes = tuple(LosesSome if role is Leader else role for role in ROLES)


def test_a_node_that_is_well_and_does_not_answer_is_a_finding() -> None:
    """Without any fault, and with those that leave it as it is; a node that stands still may be silent."""
    for seed in range(8):
        outcome = Run(plan(seed, nodes=1, events=2000, classes=["network"]), node_class=LosingNode).run()
        if not outcome.ok:
            break
    assert re.match(r"n1 is well and has not answered: #\d+ .*: write ", outcome.violation)


def test_a_task_that_ends_with_an_error_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may ever ask it how it ended; in earnest it would be a line in the log, at some time."""

    async def carry(self: Gateway, batch: Any) -> None:
        raise LookupError("a mistake in the front end")

    monkeypatch.setattr(Gateway, "_carry_writes", carry)
    outcome = Run(plan(1, nodes=1, events=500, classes=())).run()

    assert outcome.violation.startswith(
        "a task of n1 ended with LookupError('a mistake in the front end'), of which nobody is told:\nTraceback "
    )


def test_an_error_of_the_simulation_itself_is_a_finding_too() -> None:
    life = Run(plan(1, nodes=1, events=100, classes=()))
    nothing: dict[str, None] = {}
    life.cluster.handled.append(lambda *unused: nothing["missing"])

    outcome = life.run()

    assert not outcome.ok
    assert outcome.violation.startswith("KeyError in the simulation: 'missing'\nTraceback ")
