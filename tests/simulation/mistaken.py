"""A node with a mistake that only shows after a crash, for tests of the tools that find and shrink failures."""

from __future__ import annotations

from raftkv.actors.node import ROLES, Node
from raftkv.simulation.run import Run, RunPlan, RunResult, plan
from tests.roles.mutants import StaleReadsAtOnce, everywhere

KIND = "a node allows stale reads from index #"
"""The kind of violation that the mistake causes."""

SEEDS = 100
"""One of this many seeds shows the mistake."""


class ForgetfulNode(Node):
    """After a restart, it shows the entries that it has applied again so far."""

    role_classes = everywhere(StaleReadsAtOnce)


assert [role.role for role in ForgetfulNode.role_classes] == [role.role for role in ROLES]


def run_forgetful(plan: RunPlan) -> RunResult:
    """Run a plan with nodes that have the mistake."""
    return Run(plan, node_class=ForgetfulNode).run()


def bad_plan() -> RunPlan:
    """Return the first plan that shows the mistake, and after more than three faults."""
    plans = (plan(seed, nodes=3, events=1500, classes=["crash"]) for seed in range(SEEDS))
    results = ((each, run_forgetful(each)) for each in plans)
    return next(each for each, result in results if not result.ok and len(result.faults) > 3)
