"""A node with a mistake that takes a crash to show, for tests of those who look for mistakes."""

from __future__ import annotations

from raftkv.actors.node import ROLES, Node
from raftkv.simulation.run import Run, RunPlan, RunResult, plan
from tests.roles.mutants import StaleReadsAtOnce, everywhere

KIND = "a node takes # for what stale reads have to show"
"""The kind of violation that comes of it."""

SEEDS = 100
"""Among so many seeds there is one that shows it."""


class ForgetfulNode(Node):
    """After a restart it shows what it has applied again so far."""

    role_classes = everywhere(StaleReadsAtOnce)


assert [role.role for role in ForgetfulNode.role_classes] == [role.role for role in ROLES]


def live(plan: RunPlan) -> RunResult:
    """Live a plan with such nodes."""
    return Run(plan, node_class=ForgetfulNode).run()


def bad_plan() -> RunPlan:
    """Return the first plan that shows it, and not at once."""
    plans = (plan(seed, nodes=3, events=1500, classes=["crash"]) for seed in range(SEEDS))
    outcomes = ((each, live(each)) for each in plans)
    return next(each for each, outcome in outcomes if not outcome.ok and len(outcome.faults) > 3)
