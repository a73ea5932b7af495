"""One at a time: who is at work on a cluster, who waits for him, and that nobody waits for the dead."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy.alone import Alone
from tests.support.processes import ROOT, environment

HOLDING = """
import sys
from deploy.alone import Alone

with Alone(sys.argv[1], print):
    print("alone", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def what() -> str:
    """Return what nobody else is at work on."""
    return f"test-{secrets.token_hex(8)}"


@contextlib.contextmanager
def another(what: str) -> Iterator[subprocess.Popen[str]]:
    """Let another process be at work on it, until its input ends."""
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


def test_who_comes_later_is_told_and_waits_until_the_first_has_ended(what: str) -> None:
    with contextlib.ExitStack() as first:
        path = first.enter_context(Alone(what, pytest.fail)).path
        with another(what) as second:
            assert line_of(second) == f"another command is at work on {what}; waiting for it\n"
            first.close()
            assert line_of(second) == "alone\n"
            assert path.exists()


def test_nobody_waits_for_who_was_killed(what: str) -> None:
    with another(what) as first:
        assert line_of(first) == "alone\n"
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert Alone(what, pytest.fail).path.exists()
        with Alone(what, pytest.fail):
            pass

    assert not Alone(what, pytest.fail).path.exists()


def test_who_is_alone_may_enter_again_and_whatever_else_has_another_name_is_free(what: str) -> None:
    mine = Alone(what, pytest.fail)
    with mine, mine, Alone(f"{what}-2", pytest.fail):
        assert mine.path.exists()
    with mine:
        pass

    assert not mine.path.exists()


def test_what_has_the_same_name_on_another_engine_is_something_else(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Alone(what, pytest.fail):
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
        with Alone(what, pytest.fail):
            pass
        monkeypatch.undo()
