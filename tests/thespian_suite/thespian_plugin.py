"""A pytest plugin that runs Thespian's own test suite on the event-loop base, with not a line of it changed.

The suite knows its bases by name and skips by name what a base can't do. This plugin gives it a fixture ``asys`` for
our base only, and tells it what ours does not have: conventions of several systems, which are the transport's affair.

Environment: ``SUITE_REPORT`` names a file for the outcome, ``SUITE_SHARD`` ("1/4": every fourth test, from the second
on) does a part of the work, ``SUITE_PICKLE=1`` runs everything in the debug mode that pickles every message.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import thespian.test
from thespian.actors import ActorSystem

from raftkv.actors.system.base import eventloop
from raftkv.actors.system.base.sources import ALLOWED

CAPABILITIES = {
    "Foo Allowed": True,
    "Cows Allowed": True,
    "Dogs Allowed": True,
    "dog": "food",
    ALLOWED: True,
    eventloop.PICKLE_MESSAGES: bool(os.environ.get("SUITE_PICKLE")),
}

# Where the suite excuses this base from a test, it is for want of conventions; so it has to excuse ours as well.
WITHOUT_CONVENTIONS = "multiprocQueueBase"

_thespians_unsupported = thespian.test.actor_system_unsupported
_bases: set[str] = set()
_outcomes: Counter[str] = Counter()


@pytest.fixture(params=[eventloop.BASE_NAME])
def asys(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An actor system on the event-loop base, with what the suite wants to know of it."""
    system = ActorSystem(eventloop.BASE_NAME, dict(CAPABILITIES), logDefs=False, transientUnique=True)
    system.base_name = request.param
    system.port_num = None
    system.txonly = False
    _bases.add(f"{type(system._systemBase).__module__}.{type(system._systemBase).__qualname__}")
    yield system
    system.shutdown()


def actor_system_unsupported(system: Any, *bases: str) -> None:
    """Skip what can't be done without conventions."""
    if system.base_name == eventloop.BASE_NAME and WITHOUT_CONVENTIONS in bases:
        pytest.skip("no conventions on the event-loop base")
    _thespians_unsupported(system, *bases)


# The test modules copy all that is in thespian.test when they are imported, so this has to be there before.
eventloop.install()
thespian.test.asys = asys
thespian.test.actor_system_unsupported = actor_system_unsupported


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that use no system base, or one of their own choice."""
    ours = [item for item in items if isinstance(item, pytest.Function) and eventloop.BASE_NAME in item.name]
    part, parts = map(int, os.environ.get("SUITE_SHARD", "0/1").split("/"))
    chosen = ours[part::parts]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
    for item in chosen:
        if item.module.__name__.endswith("test_threadedExternal"):
            # A hundred actors that sleep in their handlers can't share one thread.
            item.module.Computer.own_thread = True
        elif item.module.__name__.endswith("test_runcommand"):
            # What this module excuses the queue base from is watching files, which ours can do.
            item.module.actor_system_unsupported = _thespians_unsupported


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count outcomes: of the call, or of what comes before or after it if that did not pass."""
    if report.when == "call" or not report.passed:
        _outcomes[report.outcome] += 1


def pytest_sessionfinish() -> None:
    """Write down the outcome."""
    target = os.environ.get("SUITE_REPORT")
    if target:
        Path(target).write_text(json.dumps({"bases": sorted(_bases), "outcomes": dict(_outcomes)}))
