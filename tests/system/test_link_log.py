"""The link's log is bounded, whatever arrives from the network."""

from __future__ import annotations

import pytest

from raftkv.actors.system.link.handshake import printable
from raftkv.actors.system.link.settings import BoundedLog
from raftkv.actors.system.virtual.scheduler import Scheduler, VirtualClock, VirtualDispatcher, VirtualLoop


def test_each_kind_of_line_is_logged_once_per_interval_with_the_number_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler = Scheduler()
    dispatcher = VirtualDispatcher(scheduler, lambda receiver, message: 0.0, lambda *handled: None)
    loop = VirtualLoop(scheduler, VirtualClock(scheduler), dispatcher)  # type: ignore[abstract]
    log = BoundedLog(every_s=5.0)
    for at_s, kind in ((0.0, "a"), (1.0, "b"), (2.0, "a"), (4.0, "a"), (5.5, "a"), (6.5, "b"), (9.0, "b"), (99.0, "a")):
        loop.call_later(at_s, log.warning, kind, "%s at %g", kind, at_s)
    while scheduler.step():
        pass

    assert [record.getMessage() for record in caplog.records] == [
        "a at 0",
        "b at 1",
        "a at 5.5 (and 2 more like it)",
        "b at 6.5",
        "a at 99",
    ]


def test_text_from_the_network_is_made_printable_and_short() -> None:
    assert printable("a\r\nb\x00\x1b[31mé") == "a??b??[31mé"
    assert printable("x" * 1000) == "x" * 200
