"""The observer: how the rest of the process learns of role changes."""

from __future__ import annotations

from typing import Any

from raftkv.actors.messages.node import AdvertiseAddress, RoleChanged
from raftkv.actors.observer import Observe, Observer
from tests.roles.rehearsal import start_message
from tests.support.stage import Stage

CHANGE = RoleChanged("n1", "candidate", 2, None, "why")
ADDRESS = AdvertiseAddress("n2", "10.0.0.2:4001")


class Watcher:
    """An observer with a callback that keeps what it hears, and fails on demand."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.stage.put("observer", Observer)
        self.failures: list[str] = []
        self.heard: list[RoleChanged | AdvertiseAddress] = []
        self.error: Exception | None = None
        start = start_message(self.stage.clock, lambda status, line: self.failures.append(f"{status}: {line}"))
        self.observe = Observe(self.hear, start.environment)

    def hear(self, event: RoleChanged | AdvertiseAddress) -> None:
        if self.error is not None:
            raise self.error
        self.heard.append(event)

    def gets(self, *messages: Any) -> None:
        for message in messages:
            self.stage.give("observer", message)


def test_each_role_change_is_reported_in_order_and_nothing_else() -> None:
    watcher = Watcher()
    # The first change comes before `Observe`, so there is nothing to report it to.
    watcher.gets(CHANGE, watcher.observe, CHANGE, "something else", ADDRESS)

    assert (watcher.heard, watcher.failures) == ([CHANGE, ADDRESS], [])


def test_a_report_that_fails_stops_the_node() -> None:
    """Like any other handler; a node whose reports are lost would be watched in vain."""
    watcher = Watcher()
    watcher.error = ValueError("no")
    watcher.gets(watcher.observe, CHANGE)

    assert [line.splitlines()[0] for line in watcher.failures] == [
        f"70: bug in observer: ValueError('no') on {CHANGE!r}"
    ]
