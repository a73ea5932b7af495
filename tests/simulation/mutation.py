"""Mistakes in simulated clusters: how many seeds it takes until a run fails.

    python -m tests.simulation.mutation [--seeds 60] [NAME …]

runs the seeds from 0 on with each mistake, and prints the table of docs/mutation.md.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from thespian.actors import Actor

from raftkv.actors.gateway import Gateway
from raftkv.actors.journal import Journal
from raftkv.actors.node import ROLES, Node
from raftkv.actors.roles.role import Role
from raftkv.actors.store import Store
from raftkv.simulation.run import Run, RunResult, plan
from raftkv.store.keyspace import Keyspace
from tests.roles import test_mutants
from tests.simulation import condition_mutants, disk_mutants

EVENTS = 10_000

MISTAKES: dict[str, tuple[type, ...]] = {
    **{each.values[0].name: each.values[0].classes for each in test_mutants.ALL},
    **{mistake.__name__: (mistake,) for mistake in disk_mutants.ALL},
    **{classes[0].__name__: classes for classes in condition_mutants.ALL},
}
"""The classes of each mistake, by its name."""

PLACES: dict[type, tuple[str, ...]] = {
    **test_mutants.PLACES,
    # The model of the invariants keeps the right one.
    Keyspace: ("raftkv.actors.store.Keyspace",),
    Gateway: ("raftkv.simulation.cluster.cluster.Gateway",),
}
"""The names under which classes that are not actors are used."""


@contextmanager
def mistaken(classes: tuple[type, ...]) -> Iterator[type[Node]]:
    """Replace classes by the mistakes derived from them; yields the class of nodes with the mistakes."""
    roles: list[type[Role]] = list(ROLES)
    parts: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        for wrong in classes:
            if issubclass(wrong, Role):
                roles = [wrong if role.role == wrong.role else role for role in roles]
            elif issubclass(wrong, Store):
                parts["store_class"] = wrong
            elif issubclass(wrong, Actor):
                assert issubclass(wrong, Journal), wrong
                parts["journal_class"] = wrong
            else:
                for place in next(places for right, places in PLACES.items() if issubclass(wrong, right)):
                    if place.startswith("raftkv."):
                        patch.setattr(place, wrong)
        yield type("MistakenNode", (Node,), {"role_classes": tuple(roles), **parts})


def results(name: str, seeds: range) -> Iterator[RunResult]:
    """Yield the results of these seeds with a mistake."""
    with mistaken(MISTAKES[name]) as node_class:
        for seed in seeds:
            yield Run(plan(seed, events=EVENTS), node_class=node_class).run()


def first_caught(name: str, seeds: range) -> RunResult | None:
    """Return the first result that fails."""
    return next((result for result in results(name, seeds) if not result.ok), None)


def row(name: str, seeds: int) -> str:
    """Return the row of the table for this mistake, after at most this many seeds."""
    result = first_caught(name, range(seeds))
    mistake = (inspect.getdoc(MISTAKES[name][0]) or "-").splitlines()[0]
    if result is None:
        return f"| `{name}` | {mistake} | none of {seeds} | |"
    violation = re.sub(r" \(\[[^)]*\]\)", "", result.violation.splitlines()[0]).rstrip(":").replace("|", "/")
    return f"| `{name}` | {mistake} | {result.seed + 1} | {textwrap.shorten(violation, 150, placeholder=' …')} |"


def main() -> None:
    """Print the row of each mistake."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for name in arguments.names or MISTAKES:
        print(row(name, arguments.seeds), flush=True)


if __name__ == "__main__":
    main()
