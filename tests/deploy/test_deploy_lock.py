"""The lock between commands: a second command waits for the first, and never for a process that has ended."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy.lock import CommandLock
from tests.support.processes import ROOT, environment

HOLDING = """
import sys
from deploy.lock import CommandLock

with CommandLock(sys.argv[1], print):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def what() -> str:
    """Return a subject that no other process locks."""
    return f"test-{secrets.token_hex(8)}"


@contextlib.contextmanager
def another(what: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, what],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_second_command_says_that_it_waits_and_goes_on_when_the_first_has_ended(what: str) -> None:
    with contextlib.ExitStack() as first:
        path = first.enter_context(CommandLock(what, pytest.fail)).path
        with another(what) as second:
            assert line_of(second) == f"another command is working on {what}; waiting for it to finish\n"
            first.close()
            assert line_of(second) == "locked\n"
            assert path.exists()


def test_the_lock_of_a_killed_process_is_free(what: str) -> None:
    with another(what) as first:
        assert line_of(first) == "locked\n"
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert CommandLock(what, pytest.fail).path.exists()
        with CommandLock(what, pytest.fail):
            pass

    assert not CommandLock(what, pytest.fail).path.exists()


def test_the_holder_may_enter_again_and_other_subjects_are_free(what: str) -> None:
    mine = CommandLock(what, pytest.fail)
    with mine, mine, CommandLock(f"{what}-2", pytest.fail):
        assert mine.path.exists()
    with mine:
        pass

    assert not mine.path.exists()


def test_the_same_subject_on_another_engine_is_free(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with CommandLock(what, pytest.fail):
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
        with CommandLock(what, pytest.fail):
            pass
        monkeypatch.undo()
