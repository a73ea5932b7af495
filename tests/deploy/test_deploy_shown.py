"""What people are shown: the table of nodes, the logs, and errors that say what would help."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
from requests import ReadTimeout

from deploy.asking import Answer, complaint
from deploy.cli import cli
from deploy.cluster import Cluster, ClusterView, reasons
from deploy.containers import Found, check_settings
from deploy.engine import (
    MOST_AT_ONCE,
    DeployError,
    PortTakenError,
    UsageError,
    as_error,
    explained,
    in_parallel,
    in_words,
    no_engine,
)
from deploy.image import check_name
from deploy.logs import Line, as_lines
from deploy.names import Names, in_order
from deploy.status import Row, colour, rows
from deploy.upgrading import in_turn
from tests.support.processes import ROOT, environment


def view(node_id: str, state: str = "running", **status: Any) -> ClusterView:
    found = Found(
        node_id, f"container {node_id}", state, "healthy" if state == "running" else None, "i", 4001, {}, None
    )
    given = {"role": "follower", "term": 3, "leader": "n1", "commit_index": 9, "last_applied": 9, "reason": None}
    return ClusterView(found, {**given, **status} if state == "running" else None)


def test_a_row_shows_what_a_node_says_and_how_far_it_is_behind() -> None:
    views = {
        "n1": view("n1", role="leader", commit_index=10, last_applied=10),
        "n2": view("n2", last_applied=7),
        "n3": view("n3", "paused"),
    }

    assert rows(views) == [
        Row("n1", "running, healthy", "leader", "3", "10", "10", "0", "n1", "4001"),
        Row("n2", "running, healthy", "follower", "3", "9", "7", "3", "n1", "4001"),
        Row("n3", "paused", *["–"] * 6, "4001"),  # type: ignore[call-arg]
    ]


def test_why_there_is_no_leader_is_told_node_by_node() -> None:
    views = {
        "n1": view("n1", leader=None, reason="an election is under way"),
        "n2": view("n2"),
        "n3": view("n3", "exited"),
        "n4": ClusterView(view("n4").found, None),
    }

    assert reasons(views) == "n1: an election is under way; n2: it follows n1; n3 is exited; n4 does not answer"


def test_nodes_are_in_the_order_of_their_numbers_and_differ_in_colour() -> None:
    assert sorted(["n10", "n2", "n1"], key=in_order) == ["n1", "n2", "n10"]
    assert len({colour(f"n{number}") for number in range(1, 9)}) == 8


def test_the_leader_is_upgraded_last() -> None:
    assert in_turn(["n1", "n2", "n3"], "n2") == ["n1", "n3", "n2"]


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a/b", "a" * 50])
def test_a_name_that_an_engine_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a cluster"):
        Names(name)
    with pytest.raises(UsageError, match="is no name for a cluster"):
        Cluster(name=name)


@pytest.mark.parametrize("nodes", [0, 10])
def test_a_cluster_of_no_nodes_or_too_many_is_refused(nodes: int) -> None:
    with pytest.raises(UsageError, match=f"a cluster of {nodes} nodes cannot be made; give 1 to 9"):
        Cluster(nodes)


def test_only_settings_that_all_nodes_share_can_be_set() -> None:
    check_settings({"log-level": "debug", "timing": "2"})
    for name in ("id", "http", "raft", "cluster", "data-dir", "advertise-http", "cluster-secret-file"):
        with pytest.raises(UsageError, match=f"{name} is not to be set"):
            check_settings({name: "x"})
    with pytest.raises(UsageError, match=r"'log-levle' is no setting of a node; there are timing, .*log-level"):
        check_settings({"log-levle": "debug"})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"log-level": "loud"}, "--log-level: 'loud' is not one of debug, info, warning, error"),
        ({"log-level": ""}, "--log-level: '' is not one of debug, info, warning, error"),
        ({"value-bytes": "900MiB"}, "--value-bytes: '900MiB' is out of range; give 1 to 16MiB"),
        (
            {"heartbeat-ms": "200", "election-min-ms": "300"},
            "--election-min-ms: 300 is less than twice the 200 of --heartbeat-ms, so one lost message would start "
            "an election; give 400 or more",
        ),
    ],
)
def test_a_setting_that_no_node_would_take_is_refused_in_its_own_words(settings: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError) as failure:
        check_settings(settings)

    assert str(failure.value) == why


def test_what_is_set_where_we_run_does_not_matter_to_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTKV_HEARTBEAT_MS", "999")

    check_settings({"election-min-ms": "100"})


@pytest.mark.parametrize("port", [0, -1, 65001])
def test_ports_that_there_are_not_are_refused(port: int) -> None:
    with pytest.raises(UsageError, match=f"nodes cannot serve clients from port {port} on; give 1 to 65000"):
        Cluster(base_port=port)


@pytest.mark.parametrize("image", ["", "a b", "-a", "a\nb", "ä"])
def test_a_name_that_no_image_can_have_is_refused(image: str) -> None:
    with pytest.raises(UsageError, match="is no name for an image"):
        Cluster(image=image)


def test_names_of_images_are_taken() -> None:
    for image in ("raftkv", "raftkv:1.0-a_b", "127.0.0.1:5000/a/b:c", "raftkv@sha256:12", "sha256:12"):
        check_name(image)


def test_who_answers_without_being_a_node_is_quoted() -> None:
    bodies: list[Any] = [{"error": {"message": "no leader"}}, [], {"error": "x"}]

    assert [complaint(Answer(503, body)) for body in bodies] == [
        *("no leader", "[], which no node says", "{'error': 'x'}, which no node says")
    ]


def test_a_name_that_is_taken_by_others_is_told() -> None:
    words = "already that is no part of this cluster, and stays as it is: remove it yourself, or give the cluster"

    assert [
        in_words(explanation).rpartition(" another --name")[0]
        for explanation in (
            'Conflict. The container name "/a-n1" is already in use by container "12ab". You have to remove (or '
            "rename) that container to be able to reuse that name.",
            "network with name a-peers already exists",
        )
    ] == [f"there is a container a-n1 {words}", f"there is a network a-peers {words}"]


def test_an_engine_that_takes_too_long_is_told() -> None:
    with pytest.raises(DeployError, match=r"has not answered for 120 s; it may have too much to do"), explained():
        raise ReadTimeout("read timed out")


def test_lines_of_a_log_may_come_in_any_pieces() -> None:
    whole = b"2026-01-01T00:00:00.1Z one\n2026-01-01T00:00:00.2Z \xc3\xa4 b\n2026-01-01T00:00:00.3Z \n"
    lines = [
        Line("2026-01-01T00:00:00.1Z", "n1", "one"),
        Line("2026-01-01T00:00:00.2Z", "n1", "ä b"),
        Line("2026-01-01T00:00:00.3Z", "n1", ""),
    ]

    for size in (1, 7, len(whole)):
        assert list(as_lines("n1", [whole[at : at + size] for at in range(0, len(whole), size)])) == lines


@pytest.mark.parametrize(
    "explanation",
    [
        "driver failed programming …: Bind for 127.0.0.1:4001 failed: port is already allocated",
        "driver failed programming …: Error starting userland proxy: listen tcp4 127.0.0.1:4001: bind: address already "
        "in use",
        "driver failed programming …: failed to bind host port for 127.0.0.1:4001:172.18.0.2:4001/tcp: address already "
        "in use",
        "Ports are not available: exposing port TCP 127.0.0.1:4001 -> 0.0.0.0:0: listen tcp 127.0.0.1:4001: bind: "
        "address already in use",
    ],
)
def test_a_port_that_is_taken_is_named(explanation: str) -> None:
    error = as_error(explanation)

    assert isinstance(error, PortTakenError)
    assert str(error).startswith("port 4001 of this machine is taken: ")


def test_an_error_that_nobody_foresaw_is_told_in_one_line() -> None:
    assert in_words("it is\nfull moon") == "the Docker Engine says: it is full moon"


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("PermissionError(13, 'Permission denied')", "does not let this user in; join the group docker"),
        ("FileNotFoundError(2, 'No such file or directory')", "install and start one"),
        ("[Errno 111] Connection refused", "install and start one"),
        ("something else", "something else"),
    ],
)
def test_a_missing_engine_is_explained(why: str, told: str) -> None:
    assert told in no_engine(why)


def test_all_is_done_before_the_first_error_is_raised() -> None:
    """Or something would be made of which nobody knows any more."""
    done = []

    def work(part: int) -> None:
        done.append(part)
        if part == 1:
            raise DeployError("one")

    with pytest.raises(DeployError, match="one"):
        in_parallel(work, [1, 2, 3])
    assert sorted(done) == [1, 2, 3]
    assert in_parallel(lambda part: 2 * part, [1, 2, 3]) == [2, 4, 6]


def test_no_more_is_done_at_once_than_an_engine_can_take() -> None:
    threads: set[int] = set()

    in_parallel(lambda _: threads.add(threading.get_ident()), range(100))

    assert 1 <= len(threads) <= MOST_AT_ONCE == 8


def run(*arguments: str, engine: str = "unix:///nowhere/docker.sock") -> tuple[int, str]:
    """Run `python -m deploy` where there is no engine; return its exit status and its complaint."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy", *arguments],
        cwd=ROOT,
        env=environment() | {"DOCKER_HOST": engine},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def test_every_command_says_that_there_is_no_engine() -> None:
    expected = (
        "deploy: no Docker Engine answers at unix:///nowhere/docker.sock; install and start one "
        "(on Linux: systemctl start docker), or let DOCKER_HOST say where one is\n"
    )

    commands = [
        *(["up"], ["down"], ["status"], ["status", "--watch"], ["heal"], ["logs", "-f"], ["shell", "n1"], ["build"]),
        *([act, "n1"] for act in ("start", "stop", "restart", "kill", "pause", "unpause", "isolate")),
        *(["partition", "n1/n2"], ["flaky", "n1", "--loss", "3%"], ["upgrade", "--image", "a"], ["demo"], ["measure"]),
    ]

    assert {arguments[0] for arguments in commands} == set(cli.commands)
    assert set(in_parallel(lambda arguments: run(*arguments), commands)) == {(1, expected)}


@pytest.mark.parametrize("engine", ["tcp://127.0.0.1:99999", "tcp://127.0.0.1:1", "nonsense"])
def test_a_place_where_no_engine_can_be_is_told_in_one_line(engine: str) -> None:
    status, told = run("status", engine=engine)

    assert (status, told.count("\n"), told.startswith(f"deploy: no Docker Engine answers at {engine}")) == (1, 1, True)


def test_output_that_cannot_be_written_is_told_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "deploy", "--help"],
            cwd=ROOT,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert (done.returncode, done.stderr) == (1, "deploy: [Errno 28] No space left on device\n")


def test_what_a_terminal_cannot_show_is_no_reason_to_end() -> None:
    script = "from deploy import cli; cli.run(['--help']); cli.say('term –')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment() | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )

    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, b"", b"term ?")


def test_little_is_loaded_before_ctrl_c_is_heard() -> None:
    script = "import deploy, sys; print(*sorted({'click', 'docker', 'requests', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True)

    assert (done.stdout, done.stderr) == ("\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["kill"],
        ["up", "--nodes", "0"],
        ["up", "--nodes", "10"],
        ["up", "--set", "log-level"],
        ["up", "--set", "no-such-setting=1"],
        ["up", "--set", "id=n7"],
        ["up", "--set", "=1"],
        ["up", "--set", "log-level="],
        ["up", "--set", "log-level=loud"],
        ["up", "--set", "log-level=info", "--set", "log-level=debug"],
        ["up", "--image", ""],
        ["up", "--base-port", "70000"],
        ["up", "more"],
        ["build", "--image", "a b"],
        ["upgrade", "--image", ""],
        ["demo", "--record", "."],
        ["demo", "--record", ""],
        ["demo", "--name", "A"],
        ["measure", "--kills", "0"],
        ["logs", "--tail", "-1"],
        ["status", "--name", ""],
        ["status", "--name", "A"],
        ["demo", "--record", "/nowhere/demo.svg"],
        ["flaky", "n1", "--loss", "130%"],
        ["flaky", "n1", "--loss", "much"],
        ["isolate", "n1", "--one-way", "up"],
        ["upgrade"],
    ],
)
def test_a_command_that_is_not_understood_ends_with_2_and_one_line(arguments: list[str]) -> None:
    status, told = run(*arguments)

    assert (status, told.count("\n"), told.startswith("deploy: ")) == (2, 1, True)
