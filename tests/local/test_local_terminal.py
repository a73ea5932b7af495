"""A cluster in a terminal: Enter restarts stopped nodes, Ctrl-C stops it, and a second Ctrl-C does not wait."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.processes import ROOT, WITHIN_S, environment, free_ports

pytestmark = pytest.mark.cluster

ENTER, CTRL_C, CTRL_D = b"\n", b"\x03", b"\x04"
# The first process of a session that asks for a terminal gets it as its controlling terminal.
IN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A cluster of one node in the foreground of a terminal."""

    def __init__(self, directory: Path) -> None:
        port = free_ports(2)
        self._fd, theirs = os.openpty()
        command = [
            *(sys.executable, "-m", "raftkv", "local", "--nodes", "1", "--data-dir", str(directory / "data")),
            *("--base-port", str(port), "--base-raft-port", str(port + 1)),
        ]
        self.popen = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *command],
            cwd=ROOT,
            env=environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # Reading fails once no process has the other end open.
        with suppress(OSError):
            while data := os.read(self._fd, 1 << 16):
                self.text += data.decode(errors="replace")

    def types(self, key: bytes) -> int:
        """Press a key; return the length of the output before it."""
        so_far = len(self.text)
        os.write(self._fd, key)
        return so_far

    def waits_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Wait for ``pattern`` in the output, from character ``after`` on, and return the match."""
        deadline = time.monotonic() + WITHIN_S
        while (found := re.compile(pattern).search(self.text, after)) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in: {self.text}"
            time.sleep(0.01)
        return found

    def ends(self) -> int:
        """Return the exit status."""
        status = self.popen.wait(WITHIN_S)
        self._reader.join(WITHIN_S)
        return status

    def close(self) -> None:
        """Kill the cluster; its node ends with it."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self._reader.join(WITHIN_S)
        os.close(self._fd)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """Return a cluster that has a leader, in a terminal."""
    made = Terminal(tmp_path)
    try:
        made.waits_for(r"n1 is the leader now")
        yield made
    finally:
        made.close()


def pid_of_node(terminal: Terminal, after: int = 0) -> int:
    return int(terminal.waits_for(r"n1 is up: .*\(pid (\d+),", after)[1])


def test_enter_restarts_stopped_nodes(terminal: Terminal) -> None:
    os.kill(pid_of_node(terminal), signal.SIGKILL)
    terminal.waits_for(r"n1 stopped \(pid \d+, killed by signal 9, SIGKILL\)\.")
    terminal.waits_for("or press Enter here")

    so_far = terminal.types(ENTER)

    assert pid_of_node(terminal, so_far) != pid_of_node(terminal)
    terminal.waits_for("n1 is the leader now", so_far)
    terminal.types(CTRL_C)
    assert terminal.ends() == 0
    assert "All nodes have stopped; their data stays in" in terminal.text


def test_the_end_of_the_input_stops_nothing(terminal: Terminal) -> None:
    terminal.types(CTRL_D)
    os.kill(pid_of_node(terminal), signal.SIGKILL)
    terminal.waits_for("n1 stopped")

    assert terminal.popen.poll() is None
    terminal.types(CTRL_C)
    assert terminal.ends() == 0


def test_a_second_ctrl_c_does_not_wait_for_nodes(terminal: Terminal) -> None:
    """Not even for a node that is suspended and cannot stop."""
    os.kill(pid_of_node(terminal), signal.SIGSTOP)
    so_far = terminal.types(CTRL_C)
    terminal.waits_for("Stopping n1", so_far)

    terminal.types(CTRL_C)

    assert terminal.ends() == 0
    assert "did not stop within" not in terminal.text


def test_a_node_that_does_not_stop_is_killed_in_the_end(terminal: Terminal) -> None:
    os.kill(pid_of_node(terminal), signal.SIGSTOP)

    terminal.types(CTRL_C)

    terminal.waits_for(r"n1 did not stop within \d+ s; killing\.")
    assert terminal.ends() == 0
