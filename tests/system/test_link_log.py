"""The link's log is bounded, whatever arrives from the network."""

from __future__ import annotations

import pytest

from raftkv.actors.system.link.handshake import printable
from raftkv.actors.system.link.settings import BoundedLog
from tests.system.link_nodes import on_a_loop, until


@on_a_loop
async def test_each_kind_of_line_is_logged_once_per_interval_with_the_number_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = BoundedLog(every_s=60)
    log.warning("one kind", "%s comes", "one")
    log.warning("one kind", "%s comes", "two")
    log.warning("another kind", "%s goes", "three")
    assert [record.getMessage() for record in caplog.records] == ["one comes", "three goes"]

    caplog.clear()
    lines_logged = 0
    log = BoundedLog(every_s=0.02)

    def say_again() -> bool:
        nonlocal lines_logged
        lines_logged += 1
        log.warning("one kind", "%s comes", "it")
        return len(caplog.records) == 2

    await until(say_again)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["it comes", f"it comes (and {lines_logged - 2} more like it)"]


def test_text_from_the_network_is_made_printable_and_short() -> None:
    assert printable("a\r\nb\x00\x1b[31mé") == "a??b??[31mé"
    assert printable("x" * 1000) == "x" * 200
