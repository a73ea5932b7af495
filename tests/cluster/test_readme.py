"""The commands that the documentation shows give what it shows when they are pasted into a shell, on other ports."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, WITHIN_S, environment, free_ports, process

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl"))), reason="the documentation uses bash and curl"
)

README = (ROOT / "README.md").read_text()
REQUESTS = (ROOT / "docs" / "requests.md").read_text()
HTTP, RAFT = "400", "500"
"""The ports in the README without their last digit."""


def shell_block(beginning: str) -> str:
    """Return the lines of the one block for a shell that begins with ``beginning``."""
    (found,) = [block for block in re.findall(r"^```sh\n(.+?)^```", README, re.S | re.M) if block.startswith(beginning)]
    return str(found)


def free_ten() -> str:
    """Return ports that are free from 1 to 3 as their last digit, without that digit."""
    first = free_ports(12)
    return next(str(port // 10) for port in range(first, first + 10) if port % 10 == 1)


def shell(script: str, directory: Path, http: str, raft: str) -> subprocess.CompletedProcess[str]:
    """Run a script with other ports; `raftkv` is the command line of this checkout."""
    command = f'raftkv() {{ exec "{sys.executable}" -m raftkv "$@"; }}\n'
    ours = re.sub(rf"\b(?:{HTTP}|{RAFT})(?=\d\b|\$i|\[)", lambda found: {HTTP: http, RAFT: raft}[found[0]], script)
    running = subprocess.Popen(
        ["bash", "-c", command + ours],
        cwd=directory,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = running.communicate(timeout=2 * WITHIN_S)
    finally:
        # The nodes as well, should the script have left any.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(running.args, running.returncode, output, errors)


def test_a_value_is_read_from_the_others_after_the_leader_was_killed(tmp_path: Path) -> None:
    http, raft = free_ten(), free_ten()
    options = ("--base-port", f"{http}1", "--base-raft-port", f"{raft}1", "--data-dir", str(tmp_path / "data"))

    with process("local", *options) as cluster:
        cluster.wait_for("Try it")
        written = shell(shell_block("curl -X POST"), tmp_path, http, raft)
        killed = shell(shell_block("leader="), tmp_path, http, raft)
        cluster.wait_for(r"killed by signal 9, SIGKILL")
        cluster.stop()

    assert written.stdout == '{"value":"hello"}\n{"value":"hello"}\n'
    assert re.fullmatch(
        rf'http://127\.0\.0\.1:{http}[123] leads, process \d+\n{{"value":"hello"}}\n{{"value":"hello"}}\n',
        killed.stdout,
    )
    # Refused, or cut short: the system takes a moment to close what belonged to a process that was killed.
    assert re.match(r"curl: \((?:7|52|56)\) ", killed.stderr)


def test_three_nodes_are_started_by_the_lines_for_running_nodes(tmp_path: Path) -> None:
    http, raft = free_ten(), free_ten()
    ready = f"curl -sf --retry 60 --retry-all-errors --retry-delay 1 http://127.0.0.1:{HTTP}1/readyz"
    stop = "pids=$(jobs -p); kill %1 %2 %3; for pid in $pids; do wait $pid || exit; done"

    done = shell("\n".join([shell_block("(umask"), ready, stop]), tmp_path, http, raft)

    assert (done.returncode, done.stdout) == (0, '{"status":"ready"}\n')
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0


def test_requests_are_answered_as_their_page_shows(tmp_path: Path) -> None:
    http, raft = free_ten(), free_ten()
    options = ("--base-port", f"{http}1", "--base-raft-port", f"{raft}1", "--data-dir", str(tmp_path / "data"))
    lines = re.findall(r"^    (curl .+|\{.+)$", REQUESTS, re.M)
    commands = [line for line in lines if line.startswith("curl ")]

    with process("local", *options) as cluster:
        cluster.wait_for("Try it")
        done = shell("\n".join(f"echo {shlex.quote(command)}\n{command}" for command in commands), tmp_path, http, raft)
        cluster.stop()

    shown = [line.replace(f":{HTTP}", f":{http}") for line in lines]
    answered = [line for line in done.stdout.splitlines() if line.startswith(("curl ", "{"))]
    # The page leaves out the answer to its last command.
    assert answered[: len(shown)] == shown
    assert len(commands) >= 5
