"""The command line, with real processes: how a node starts, what it says where it can't, and how it stops."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raftkv import __version__
from raftkv.cli import run
from raftkv.journal.os_disk import OsDisk
from raftkv.local.files import LocalLayout, LocalNode, busy_port
from raftkv.process.supervisor import RoleReport, SupervisorPipe
from tests.support.processes import ROOT, WITHIN_S, Process, environment, free_ports, full_pipe, process, request


def alone(directory: Path, raft_port: int, http: str = "127.0.0.1:0", node_id: str = "n1") -> list[str]:
    """Return the arguments of a node that is a cluster of its own."""
    address = f"127.0.0.1:{raft_port}"
    return [
        *("serve", "--id", node_id, "--http", http, "--raft", address),
        *("--cluster", f"{node_id}={address}", "--data-dir", str(directory)),
    ]


def http_port(node: Process) -> int:
    return int(node.wait_for(r"listening at 127\.0\.0\.1:(\d+) for clients")[1])


@pytest.fixture
def raft_port() -> int:
    return free_ports()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAFTKV_")]:
        monkeypatch.delenv(name)


# --- What is wrong is one line on stderr, and status 2.


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["serve"], "--id is missing: give --id ID, set RAFTKV_ID, or write id = … in the file that --config names"),
        (["serve", "--bogus"], "No such option '--bogus'."),
        (["serve", "--id"], "Option '--id' requires an argument."),
        (["serve", "more"], "Got unexpected extra argument (more)"),
        (["bogus"], "No such command 'bogus'."),
        (["local", "--nodes", "0"], "--nodes: '0' is not a whole number from 1 to 99"),
        (["local", "--base-port", "x"], "--base-port: 'x' is not a whole number from 1 to 65535"),
        (["local", "--timing", "never"], "--timing: 'never' is not a number from 0.1 to 100"),
        (
            ["serve", "--id", "n1", "--cluster", "n1=a:1", "--raft", "a:1", "--data-dir", "d", "--events-fd", "999"],
            "--events-fd: 999 is not a socket: Bad file descriptor",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    status = run(arguments)

    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    # How click words its own hints differs between its versions.
    assert captured.err.rstrip("\n").removeprefix("raftkv: ").replace("No such option: --bogus", line).startswith(line)
    assert captured.err.count("\n") == 1


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert re.findall(r"^  (\w+)  ", capsys.readouterr().out, flags=re.MULTILINE)[-3:] == ["local", "serve", "simulate"]


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"raftkv {__version__}\n"


# --- What prevents a start is one line, and status 1.


def test_a_package_that_is_not_installed_is_named_with_how_to_install_it() -> None:
    # -S hides the installed packages.
    command = [sys.executable, "-S", "-m", "raftkv", "--version"]
    outside = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True)

    assert (outside.returncode, outside.stdout) == (1, "")
    assert re.fullmatch(
        r"raftkv: the package \w+ is not installed for .+; run `pip install \.` in the checkout, or use `make run`\n",
        outside.stderr,
    )


def test_a_port_in_use_is_told_and_leaves_no_data_directory(tmp_path: Path, raft_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process(*alone(tmp_path / "a", raft_port, http=f"127.0.0.1:{port}")) as node:
            assert (node.wait(), node.text) == (
                1,
                f"raftkv: cannot listen at 127.0.0.1:{port} (--http): another process listens there\n",
            )
        with process(*alone(tmp_path / "b", port)) as node:
            assert (node.wait(), node.text) == (
                1,
                f"raftkv: cannot listen at 127.0.0.1:{port} (--raft): another process listens there\n",
            )
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_not_ours_is_told(tmp_path: Path, raft_port: int) -> None:
    with process(*alone(tmp_path / "a", raft_port, http="192.0.2.1:4001")) as node:
        assert node.wait() == 1
        assert re.fullmatch(r"raftkv: cannot listen at 192\.0\.2\.1:4001 \(--http\): .+\n", node.text)


def test_a_data_directory_that_cannot_be_used_is_told(tmp_path: Path, raft_port: int) -> None:
    directory = tmp_path / "data"
    with process(*alone(directory, raft_port)) as node:
        http_port(node)
        with process(*alone(directory, free_ports())) as second:
            assert (second.wait(), second.text) == (
                1,
                f"raftkv: data directory {directory} is held by another process\n",
            )
        node.stop()

    with process(*alone(directory, raft_port, node_id="n2")) as other:
        assert (other.wait(), other.text) == (
            1,
            f"raftkv: data directory {directory} belongs to node n1, not to n2\n",
        )


def test_a_damaged_journal_is_told_and_the_node_stays_out(tmp_path: Path, raft_port: int) -> None:
    with process(*alone(tmp_path, raft_port)) as node:
        assert request(http_port(node), "/keys/a/", {"value": "1"}) == (200, {"value": "1"})
        node.stop()
    segment = min(path for path in (tmp_path / "journal").iterdir() if path.suffix != ".tmp")
    data = bytearray(segment.read_bytes())
    # The second sector is the first batch, which others follow.
    data[600] ^= 0xFF
    segment.write_bytes(data)

    with process(*alone(tmp_path, raft_port)) as node:
        status = node.wait()

        last = node.text.splitlines()[-1]
        assert status not in (0, -signal.SIGTERM)
        assert last.startswith("raftkv: ")
        assert str(segment) in last
        assert "Traceback" not in node.text


# --- A node that runs, and stops.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_serves_and_stops_on_a_signal_with_status_0(tmp_path: Path, raft_port: int, number: int) -> None:
    with process(*alone(tmp_path, raft_port)) as node:
        port = http_port(node)
        assert request(port, "/keys/a/", {"value": "1"}) == (200, {"value": "1"})
        assert node.stop(number) == 0

    with process(*alone(tmp_path, raft_port)) as node:
        assert request(http_port(node), "/keys/a/") == (200, {"value": "1"})
        assert node.stop(number) == 0
        assert "Traceback" not in node.text
        assert " ERROR " not in node.text


def test_settings_come_from_the_environment_too(tmp_path: Path, raft_port: int) -> None:
    variables = {
        "RAFTKV_ID": "n1",
        "RAFTKV_HTTP": "127.0.0.1:0",
        "RAFTKV_RAFT": f"127.0.0.1:{raft_port}",
        "RAFTKV_CLUSTER": f"n1=127.0.0.1:{raft_port}",
        "RAFTKV_DATA_DIR": str(tmp_path),
        "RAFTKV_LOG_FORMAT": "json",
        "RAFTKV_LOG_LEVL": "debug",
    }
    with process("serve", variables=variables) as node:
        node.wait_for("listening at")
        assert node.stop() == 0
        first = json.loads(node.text.splitlines()[0])
    assert (first["level"], first["node"], first["message"]) == (
        "warning",
        "n1",
        "RAFTKV_LOG_LEVL in the environment is not a setting and has no effect; did you mean RAFTKV_LOG_LEVEL?",
    )


def test_a_node_that_waits_says_for_whom(tmp_path: Path) -> None:
    first = free_ports(2)
    arguments = alone(tmp_path, first)
    arguments[arguments.index("--cluster") + 1] += f",n2=127.0.0.1:{first + 1}"
    with process(*arguments) as node:
        found = node.wait_for("no leader: (.*)")
        assert found[1].startswith("waiting for n2: the cluster begins when all its nodes have met (n2: ")
        assert node.stop() == 0


def test_a_node_does_not_wait_for_whoever_reads_its_log(tmp_path: Path, raft_port: int) -> None:
    port = free_ports()
    arguments = [*alone(tmp_path, raft_port, http=f"127.0.0.1:{port}"), "--log-level", "debug"]
    with full_pipe() as stderr:
        node = subprocess.Popen(
            [sys.executable, "-m", "raftkv", *arguments], cwd=ROOT, env=environment(), stderr=stderr
        )
        try:
            wait_for_listener(port)

            assert request(port, "/keys/a/", {"value": "1"}) == (200, {"value": "1"})
            node.terminate()
            assert node.wait(WITHIN_S) == 0
        finally:
            node.kill()
            node.wait()


def wait_for_listener(port: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def unfinished_request(port: int) -> socket.socket:
    """Return a connection whose request the node has begun to read, and which never ends."""
    connection = socket.create_connection(("127.0.0.1", port), WITHIN_S)
    connection.sendall(b"POST /keys/a/ HTTP/1.1\r\nHost: n1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
    return connection


def test_a_request_that_never_ends_does_not_keep_a_node_from_stopping(tmp_path: Path, raft_port: int) -> None:
    with process(*alone(tmp_path, raft_port)) as node, unfinished_request(http_port(node)):
        assert node.stop() == 0


def test_a_second_signal_ends_a_node_at_once(tmp_path: Path, raft_port: int) -> None:
    with process(*alone(tmp_path, raft_port)) as node, unfinished_request(http_port(node)):
        node.popen.terminate()
        node.wait_for("stopping on SIGTERM")
        assert node.stop(signal.SIGINT) == 1
        assert node.text.splitlines()[-1] == "raftkv: stopped at once, on a second SIGINT"


def test_a_node_ends_with_the_process_that_started_it(tmp_path: Path, raft_port: int) -> None:
    ours, its = socket.socketpair()
    with (
        ours,
        its,
        process(*alone(tmp_path, raft_port), "--events-fd", str(its.fileno()), descriptor=its.fileno()) as node,
    ):
        its.close()
        http_port(node)
        ours.settimeout(WITHIN_S)
        report = b""
        while b'"role":"leader"' not in report:
            received = ours.recv(4096)
            assert received, f"it has ended: {node.text}"
            report += received
        ours.close()

        assert node.wait() == 0
        assert "stopping, because the process that started this one has gone" in node.text
    assert json.loads(report.splitlines()[0])["type"] == "listening"


def test_a_node_never_waits_for_a_parent_that_does_not_read() -> None:
    ours, its = socket.socketpair()
    with ours:
        parent = SupervisorPipe(its.detach())
        for _ in range(100_000):
            parent.tell(RoleReport("n1", "leader", 1, "n1", "x" * 100))
        assert not parent.is_gone()
    assert parent.is_gone()
    parent.close()


# --- A cluster on this machine.


@pytest.fixture
def cluster(tmp_path: Path) -> list[str]:
    first = free_ports(6)
    return [
        *("local", "--nodes", "3", "--data-dir", str(tmp_path / "data")),
        *("--base-port", str(first), "--base-raft-port", str(first + 3)),
    ]


def port_of(cluster: list[str], node: str) -> int:
    return int(cluster[cluster.index("--base-port") + 1]) + int(node[1:]) - 1


def pid_of(local: Process, node: str) -> int:
    return int(local.wait_for(rf"{node} is up: .*\(pid (\d+),")[1])


def wait_for_leader(local: Process, but: str = "nobody") -> str:
    """Return who was told to be the leader last, as soon as that is another node than ``but``."""

    def leader() -> str | None:
        told = re.findall(r"(n\d) is the leader now", local.text)
        return told[-1] if told and told[-1] != but else None

    return local.wait_until(leader, f"a leader other than {but}")


@pytest.mark.cluster
def test_a_local_cluster_survives_its_leader_and_goes_on_with_its_data(cluster: list[str]) -> None:
    with process(*cluster) as local:
        shown = int(local.wait_for(r"kill -9 (\d+)")[1])
        assert shown in [pid_of(local, node) for node in ("n1", "n2", "n3")]
        first = wait_for_leader(local)
        assert request(port_of(cluster, first), "/keys/greeting/", {"value": "hello"}) == (200, {"value": "hello"})

        so_far = len(local.text)
        pid = pid_of(local, first)
        os.kill(pid, signal.SIGKILL)
        local.wait_for(rf"{first} stopped \(pid {pid}, killed by signal 9, SIGKILL\)\.", so_far)
        command = local.wait_for(r"To start it again: (.+)", so_far)[1]
        second = wait_for_leader(local, but=first)
        assert request(port_of(cluster, second), "/keys/greeting/") == (200, {"value": "hello"})

        # The leader of before is started by the very command that was printed, and follows.
        arguments = shlex.split(command)
        with process(*arguments[arguments.index("raftkv") + 1 :]) as again:
            again.wait_for(r"(follower|leader) in term \d+, leader n\d")
            assert request(port_of(cluster, first), "/keys/greeting/") == (200, {"value": "hello"})
            assert again.stop() == 0
        assert local.stop(signal.SIGINT) == 0
        assert re.search(r"Stopping n\d, n\d …\nAll nodes have stopped; their data stays in .+\.\n$", local.text)

    with process(*cluster[:1], *cluster[3:]) as local:
        local.wait_for("is the leader now")
        assert request(port_of(cluster, "n3"), "/keys/greeting/") == (200, {"value": "hello"})
        assert local.stop() == 0


@pytest.mark.cluster
def test_a_local_cluster_whose_ports_are_in_use_is_not_started(cluster: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", port_of(cluster, "n2"))), process(*cluster) as local:
        assert local.wait() == 1
        assert local.text == (
            f"raftkv: 127.0.0.1:{port_of(cluster, 'n2')} is in use. Is this cluster already running? "
            "If not, choose other ports with --base-port and --base-raft-port\n"
        )
    assert not (tmp_path / "data").exists()


@pytest.mark.cluster
def test_a_node_that_cannot_start_is_told_with_its_reason(cluster: list[str], tmp_path: Path) -> None:
    for node in ("n1", "n2", "n3"):
        (tmp_path / "data" / node).mkdir(parents=True)
        (tmp_path / "data" / node / "data").write_text("in the way")
    with process(*cluster) as local:
        assert local.wait() == 1
        assert re.search(
            r"n1 stopped \(pid \d+, exit status 2\)\.\n  The last it said \(.+/n1/node\.log\): raftkv: "
            r"data-dir in .+/n1/serve\.toml: .+/n1/data is not a directory",
            local.text,
        )
        assert "No node is left." in local.text


@pytest.mark.cluster
def test_nodes_do_not_outlive_a_local_cluster_that_is_killed(cluster: list[str], tmp_path: Path) -> None:
    with process(*cluster) as local:
        local.wait_for("is the leader now")
        local.popen.kill()
    nodes = LocalLayout(3, port_of(cluster, "n1"), port_of(cluster, "n1") + 3).local_nodes(tmp_path / "data")
    deadline = time.monotonic() + WITHIN_S
    # One of them may have been about to begin only.
    while busy_port(nodes) or not all(has_ended(node) for node in nodes):
        assert time.monotonic() < deadline, {node.id: node.log.read_text() for node in nodes}
        time.sleep(0.02)

    with process(*cluster) as local:
        local.wait_for("is the leader now")
        assert local.stop() == 0


def has_ended(node: LocalNode) -> bool:
    """Whether a node has said why it stops, and has let go of its data."""
    if "the process that started this one has gone" not in node.log.read_text():
        return False
    try:
        OsDisk().lock(str(node.directory / "data" / "lock")).close()
    except BlockingIOError:
        return False
    return True
