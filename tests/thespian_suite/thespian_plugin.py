"""A pytest plugin that runs Thespian's own test suite, unchanged, on the event-loop base.

The suite knows its bases by name, and skips by name the tests that a base does not support. This plugin replaces its
fixture ``asys`` by one for our base only, and skips the tests that need conventions of several systems: on our base the
transport connects systems.

Environment: ``SUITE_REPORT`` names a file for the outcome, ``SUITE_SHARD`` selects a part of the tests ("1/4": every
fourth test, from the second on), ``SUITE_PICKLE=1`` runs all tests in the debug mode that pickles every message.
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

# The suite skips tests on this base because it has no conventions; so they are skipped on ours too.
WITHOUT_CONVENTIONS = "multiprocQueueBase"

_thespians_unsupported = thespian.test.actor_system_unsupported
_bases: set[str] = set()
_outcomes: Counter[str] = Counter()


@pytest.fixture(params=[eventloop.BASE_NAME])
def asys(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An actor system on the event-loop base, with the attributes that the suite expects."""
    system = ActorSystem(eventloop.BASE_NAME, dict(CAPABILITIES), logDefs=False, transientUnique=True)
    system.base_name = request.param
    system.port_num = None
    system.txonly = False
    _bases.add(f"{type(system._systemBase).__module__}.{type(system._systemBase).__qualname__}")
    yield system
    system.shutdown()


def actor_system_unsupported(system: Any, *bases: str) -> None:
    """Skip tests that need conventions."""
    if system.base_name == eventloop.BASE_NAME and WITHOUT_CONVENTIONS in bases:
        pytest.skip("no conventions on the event-loop base")
    _thespians_unsupported(system, *bases)


# The test modules copy the names of thespian.test when they are imported, so these must be replaced before.
eventloop.install()
thespian.test.asys = asys
thespian.test.actor_system_unsupported = actor_system_unsupported


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that use no system base, or one of their own choice."""
    ours = [item for item in items if isinstance(item, pytest.Function) and eventloop.BASE_NAME in item.name]
    part, parts = map(int, os.environ.get("SUITE_SHARD", "0/1").split("/"))
    chosen = ours[part::parts]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
    for item in chosen:
        if item.module.__name__.endswith("test_threadedExternal"):
            # A hundred actors that sleep in their handlers can't share a thread.
            item.module.Computer.own_thread = True
        elif item.module.__name__.endswith("test_runcommand"):
            # This module skips tests on the queue base because it can't watch files; ours can.
            item.module.actor_system_unsupported = _thespians_unsupported


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the outcome of a test, or of its set-up or tear-down if that did not pass."""
    if report.when == "call" or not report.passed:
        _outcomes[report.outcome] += 1


def pytest_sessionfinish() -> None:
    """Write the outcomes to ``SUITE_REPORT``."""
    target = os.environ.get("SUITE_REPORT")
    if target:
        Path(target).write_text(json.dumps({"bases": sorted(_bases), "outcomes": dict(_outcomes)}))
