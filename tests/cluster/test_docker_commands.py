"""`python -m deploy` and Docker Compose, used as the README describes them."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from deploy.names import Names
from deploy.resources import inventory, remove
from deploy.waiting import wait_for
from tests.support.cluster import ask
from tests.support.containers import IMAGE, UNDER_LOAD_S, left_behind
from tests.support.processes import ROOT, environment, free_ports


def start(*arguments: str, terminal: int | None = None, closed: bool = False) -> subprocess.Popen[str]:
    """Start `python -m deploy`, in a terminal if one is given; ``closed`` closes its standard input."""
    return subprocess.Popen(
        [*(["sh", "-c", 'exec "$@" <&-', "sh"] if closed else []), sys.executable, "-m", "deploy", *arguments],
        cwd=ROOT,
        env=environment() | {"COLUMNS": "100", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL if terminal is None else terminal,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0 if terminal is None else None,
    )


def run(*arguments: str, status: int = 0) -> str:
    """Run `python -m deploy`, check its exit status, and return its output."""
    output, ended = run_to_end(*arguments)
    assert ended == status, output
    return output


def run_to_end(*arguments: str) -> tuple[str, int]:
    """Run `python -m deploy`; return its output and its exit status."""
    process = start(*arguments)
    output, _ = process.communicate()
    return output, process.returncode


class Commands:
    """Runs commands on one cluster."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, first: str, *rest: str, status: int = 0) -> str:
        """Run a command and return its output."""
        return run(first, "--name", self._name, *rest, status=status)

    def start(self, first: str, *rest: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command."""
        return start(first, "--name", self._name, *rest, **options)


@contextlib.contextmanager
def brought_up(client: Any) -> Iterator[Commands]:
    """Bring a cluster up with the command `up`, and remove it at the end."""
    name = f"raftkv-command-{secrets.token_hex(4)}"
    commands = Commands(name)
    try:
        output, status = "is in use", 1
        # Other processes may take the ports before the nodes do.
        while status and "is in use" in output:
            output, status = run_to_end("up", "--name", name, "--image", IMAGE, "--base-port", str(free_ports(3)))
        assert status == 0, output
        yield commands
    finally:
        remove(client, inventory(client, Names(name)))


@pytest.fixture
def command(engine: Any) -> Iterator[Commands]:
    """Return an object that runs commands on a cluster that is up, and that is removed after the test."""
    with brought_up(engine) as commands:
        yield commands


@pytest.fixture(scope="module")
def shared(engine: Any) -> Iterator[Commands]:
    """Return the same for a cluster that several tests share; each leaves it as it was."""
    with brought_up(engine) as commands:
        yield commands


def columns(table: str, *headings: str) -> dict[str, list[str]]:
    """Return these columns of the table of nodes, by node."""
    lines = [re.split(r" {2,}", line.strip()) for line in table.splitlines()]
    places = [lines[0].index(heading) for heading in headings]
    return {line[0]: [line[place] for place in places] for line in lines[1:] if len(line) == len(lines[0])}


def test_the_session_of_the_readme(command: Commands) -> None:
    """Each command once, and most of them twice, because repeating a command is harmless."""
    assert list(columns(command("status"), "leader")) == ["n1", "n2", "n3"]
    killed = re.fullmatch(r"(n\d) is killed\.\n", command("kill", "leader"))
    assert killed is not None
    leader = killed[1]
    other = "n1" if leader != "n1" else "n2"
    assert command("kill", leader) == f"{leader} is not running.\n"
    assert columns(command("status"), "container", "role")[leader] == ["exited", "–"]
    assert command("start", leader) == f"{leader} is started.\n"
    assert command("start", leader) == f"{leader} is already running.\n"
    assert command("pause", other) == f"{other} is paused.\n"
    assert columns(command("status"), "container")[other] == ["paused"]
    assert command("unpause", "all").count("is unpaused.") == 1
    assert re.fullmatch(r"n\d is stopped\.\n", command("stop", "random-follower"))
    assert command("up").count("http://127.0.0.1:") == 3
    assert "n1 receives nothing" in command("isolate", "n1", "--one-way", "in")
    assert "n1 receives nothing from n2, n3" in command("status")
    assert command("partition", "n1,n2/n3").startswith("The network is partitioned: n1,n2/n3.")
    assert "n3 is cut off from n1, n2" in command("status")
    assert "n2 loses 30%" in command("flaky", "n2", "--loss", "30%")
    assert "n3 is cut off from n1, n2" in command("status")
    assert command("flaky", "n2", "--loss", "0%") == "n2 no longer loses packets.\n"
    assert command("heal") == "The network is healed.\n"
    assert command("heal") == "The network has no faults.\n"
    assert "its data is kept for the next `up`" in command("down")
    assert "There is no cluster" not in command("down", "--volumes")
    assert "There is no cluster" in command("down")
    assert "there is no cluster" in command("heal", status=1)


def test_logs_are_merged_in_the_order_of_time(shared: Commands) -> None:
    lines = [re.fullmatch(r"(n\d) +(\S+) (\w+) +(n\d) .*", line) for line in shared("logs").splitlines()]
    found = [match for match in lines if match is not None]
    stamps = [match[2] for match in found]

    assert {match[1] for match in found} == {"n1", "n2", "n3"}
    assert all(match[1] == match[4] for match in found)
    # They are sorted by the engine's clock; a node's own time stamp may be a moment older.
    assert stamps[0][:16] <= stamps[-1][:16]


def test_logs_are_followed_through_a_restart(shared: Commands) -> None:
    following = shared.start("logs", "-f", "--tail", "1")
    try:
        assert following.stdout is not None
        lines = iter(following.stdout.readline, "")
        # After its first line it knows where to continue.
        before = next(lines)
        shared("restart", "n2")
        assert "listening" not in before
        assert any(re.search(r"n2 raftkv\.[\w.]+: listening at 0\.0\.0\.0:4001 for clients", line) for line in lines)
    finally:
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=60)

    assert following.returncode == 0


def test_following_logs_ends_with_the_cluster(command: Commands) -> None:
    following = command.start("logs", "-f", "--tail", "1")
    try:
        assert following.stdout is not None
        assert following.stdout.readline() != ""
        command("down")
        output, _ = following.communicate(timeout=UNDER_LOAD_S)
    finally:
        following.kill()
        following.communicate()

    assert following.returncode == 0, output


def test_a_shell_has_a_terminal(shared: Commands) -> None:
    ours, its = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        shell = shared.start("shell", "n1", "sh", terminal=its)
        os.close(its)
        terminal.write(b"test -t 0 && test -t 1 && echo has-a-$((40+2))\nexit 7\n")
        output = b""
        try:
            with contextlib.suppress(OSError):  # The other end is closed.
                while part := terminal.read(4096):
                    output += part
            assert shell.wait(60) == 7
        finally:
            shell.kill()
            shell.wait()

    assert b"has-a-42" in output


def test_the_status_is_watched_until_ctrl_c(shared: Commands) -> None:
    watching = shared.start("status", "--watch")
    try:
        assert watching.stdout is not None
        tables = (line for line in iter(watching.stdout.readline, "") if line.startswith("node "))
        assert [next(tables).split()[0] for _ in range(3)] == ["node"] * 3
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)

    assert watching.returncode == 0


def test_a_shell_runs_in_the_container(shared: Commands) -> None:
    assert shared("shell", "n1", "id", "-u") == "10001\n"
    assert shared("shell", "leader", "sh", "-c", "echo oops >&2; exit 3", status=3) == "oops\n"


def test_a_shell_without_an_input_is_refused(shared: Commands) -> None:
    process = shared.start("shell", "n1", "id", closed=True)
    output, _ = process.communicate()

    assert (process.returncode, output) == (
        *(1, "deploy: standard input or output is closed; redirect it, for example from /dev/null\n"),
    )


def test_errors_name_the_cause(command: Commands) -> None:
    assert "n9 is not in" in command("kill", "n9", status=2)
    assert "n9 is not in" in command("partition", "n1/n9", status=2)
    assert "is not a partition" in command("partition", "n1,n2,n3", status=2)
    assert "has 3 nodes (n1, n2, n3), not 5" in command("up", "--nodes", "5", status=1)
    assert "does not have log-level=debug" in command("up", "--set", "log-level=debug", status=1)
    assert "does not run raftkv:no-such-version" in command("up", "--image", "raftkv:no-such-version", status=1)
    assert "take it `down` first" in command("up", "--base-port", "60000", status=1)
    command("up", "--image", IMAGE)
    command("pause", "all")
    assert "has no leader: n1 is paused; n2 is paused; n3 is paused" in command("kill", "leader", status=1)
    command("kill", "all")
    assert command("shell", "n3", status=1) == "deploy: n3 is not running (it is exited); `start n3` first\n"
    assert "has no leader: n1 is exited; n2 is exited; n3 is exited" in command("kill", "leader", status=1)


def test_the_demo_ends_well_and_records_a_picture(engine: Any, tmp_path: Path) -> None:
    picture, name = tmp_path / "demo.svg", f"raftkv-tour-{secrets.token_hex(4)}"
    output = run("demo", "--name", name, "--image", IMAGE, "--record", str(picture))

    assert re.search(r"n\d is killed\. n\d is the new leader; the client waited \d+\.\d\d s for the election\.", output)
    assert "Nothing was lost." in output
    assert ElementTree.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "font-face" not in picture.read_text()
    assert left_behind(engine, name) == []


def compose() -> list[str] | None:
    """Return the command of Docker Compose, or None if it is not installed."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) and subprocess.run([*words, "version"], capture_output=True).returncode == 0:
            return words
    return None


@pytest.mark.skipif(compose() is None, reason="no test of compose.yaml: there is no Docker Compose here")
@pytest.mark.usefixtures("engine")
def test_compose_brings_up_three_nodes_whose_data_survives_down() -> None:
    words, name, base = compose(), f"raftkv-compose-{secrets.token_hex(4)}", free_ports(3)
    assert words is not None
    ports = {f"PORT_{number}": str(base + number - 1) for number in (1, 2, 3)}
    variables = {"IMAGE": IMAGE, "COMPOSE_HTTP_TIMEOUT": f"{UNDER_LOAD_S:.0f}", **ports}

    def compose_run(*arguments: str) -> str:
        done = subprocess.run(
            [*words, "-p", name, "-f", "deploy/compose.yaml", *arguments],
            cwd=ROOT,
            env=environment() | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def answer(port: int, method: str, body: object = None) -> Any:
        """Return the body of a successful answer; retries, because a node may be starting or without a leader."""

        def look() -> Any:
            try:
                came = ask(port, method, "/keys/greeting/", body)
            except (OSError, HTTPException, ValueError):
                return None
            return came.body if came.status == 200 else None

        return wait_for(look, lambda: compose_run("logs"), UNDER_LOAD_S)

    try:
        compose_run("up", "-d", "--no-build")
        assert answer(base, "POST", {"value": "hello"}) == {"value": "hello"}
        compose_run("down")
        compose_run("up", "-d", "--no-build")
        assert answer(base + 2, "GET") == {"value": "hello"}
    finally:
        compose_run("down", "--volumes")
