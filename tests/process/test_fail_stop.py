"""Fail-stop: from any thread, the process ends and says why."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.processes import ROOT, WITHIN_S, full_pipe

BEGIN = """
import sys, threading, time
from raftkv.process.fail_stop import FailStop
from raftkv.process.log_output import start_logging
fail_stop = FailStop(start_logging("info", "text", node_id="n1"))
"""


def end_of(code: str) -> tuple[int, list[str]]:
    """Return the exit status of a failing program and the lines of its log, without their time."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code], cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S
    )
    return done.returncode, [re.sub(r"^\S+Z ", "", line) for line in done.stderr.splitlines()]


def test_the_reason_is_logged_and_printed_and_the_process_ends_with_the_status() -> None:
    assert end_of('fail_stop.fail(70, "it broke\\nTrace:\\n  deep\\n")') == (
        70,
        ["CRITICAL n1 raftkv.node: it broke", "    Trace:", "      deep", "raftkv: it broke"],
    )


def test_any_thread_may_fail_and_the_first_failure_decides() -> None:
    code = """
def fail(status):
    fail_stop.fail(status, "thread")
for status in (71, 71, 71):
    threading.Thread(target=fail, args=(status,)).start()
threading.Event().wait()
"""
    assert end_of(code) == (71, ["CRITICAL n1 raftkv.node: thread", "raftkv: thread"])


def test_a_process_that_does_not_end_in_time_is_ended() -> None:
    assert end_of('fail_stop.fail_after(0.01, 3, "too late"); threading.Event().wait()') == (
        3,
        ["CRITICAL n1 raftkv.node: too late", "raftkv: too late"],
    )


def test_a_process_that_ends_in_time_is_left_alone() -> None:
    assert end_of('fail_stop.fail_after(600, 3, "too late")') == (0, [])


def test_an_exception_in_a_thread_is_a_bug() -> None:
    status, lines = end_of(
        "threading.excepthook = fail_stop.on_thread_exception\n"
        "threading.Thread(target=lambda: 1 / 0, name='divider').start(); threading.Event().wait()"
    )

    message = "bug in thread divider: ZeroDivisionError('division by zero')"
    assert (status, lines[0], lines[-1]) == (70, f"CRITICAL n1 raftkv.node: {message}", f"raftkv: {message}")
    assert lines[-2] == "    ZeroDivisionError: division by zero"


@pytest.mark.parametrize("statement", ["fail_stop.fail(70, 'x')", "fail_stop.fail_after(0, 70, 'x'); time.sleep(600)"])
def test_a_log_that_nobody_reads_does_not_keep_the_process_alive(statement: str) -> None:
    with full_pipe() as stderr:
        program = [sys.executable, "-c", BEGIN + statement]
        assert subprocess.run(program, cwd=ROOT, stderr=stderr, timeout=WITHIN_S).returncode == 70
