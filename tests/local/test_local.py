"""A cluster on one machine: its files, and the lines that it prints."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from raftkv.config.option import SettingsError
from raftkv.config.settings import Secret, Settings, Timing
from raftkv.config.values import HostPort
from raftkv.local.cluster import last_line
from raftkv.local.files import (
    LocalLayout,
    LocalNode,
    busy_port,
    choose_layout,
    config_text,
    prepare,
    restart_command,
)
from raftkv.local.story import Story, how_it_ended
from raftkv.process.supervisor import Event, Leaderless, Listening, RoleReport
from tests.support.settings import settings_of_node

PIDS = {"n1": 101, "n2": 102, "n3": 103}


def story_of(nodes: int = 3) -> tuple[Story, list[str]]:
    """Return a story and the list of the lines that it prints."""
    lines: list[str] = []
    return Story(lines.append, LocalLayout(nodes, 4001, 5001).local_nodes(Path("data")), PIDS.get), lines


def up(number: int) -> Listening:
    return Listening(f"n{number}", f"127.0.0.1:{4000 + number}", f"127.0.0.1:{5000 + number}")


def role(node_id: str, role: str, term: int, leader: str | None, reason: str = "because") -> RoleReport:
    return RoleReport(node_id, role, term, leader, reason)


ELECTION: list[Event] = [
    role("n2", "candidate", 1, None, "no leader"),
    role("n2", "candidate", 2, None, "asks for votes in term 2"),
    role("n2", "leader", 2, "n2"),
    role("n1", "follower", 2, "n2"),
    role("n3", "follower", 2, "n2"),
]


def test_a_first_election_is_printed_and_then_what_to_try() -> None:
    story, lines = story_of()

    for event in [up(1), up(2), up(3), role("n1", "bootstrap", 0, None), *ELECTION]:
        story.add(event)

    assert lines == [
        "n1 is up: http://127.0.0.1:4001 (pid 101, log data/n1/node.log)",
        "n2 is up: http://127.0.0.1:4002 (pid 102, log data/n2/node.log)",
        "n3 is up: http://127.0.0.1:4003 (pid 103, log data/n3/node.log)",
        "n1 is new and waits until all nodes are connected.",
        "n2 starts an election: no leader",
        "n2 is the leader now (term 2).",
        "n1 follows n2 (term 2).",
        "n3 follows n2 (term 2).",
        "",
        "Try it in another terminal:",
        """  curl -X POST http://127.0.0.1:4001/keys/greeting/ -d '{"value": "hello"}'""",
        "  curl http://127.0.0.1:4003/keys/greeting/",
        "Kill the leader; the others elect a new one, and no write is lost:",
        "  kill -9 102",
        "  curl http://127.0.0.1:4001/keys/greeting/",
        "Ctrl-C here stops all nodes.",
        "",
    ]


def test_what_to_try_is_printed_once() -> None:
    story, lines = story_of()
    for event in [up(1), up(2), up(3), *ELECTION]:
        story.add(event)
    lines.clear()

    story.forget("n2")
    story.add(role("n3", "candidate", 2, None, "no leader"))
    story.add(role("n3", "leader", 3, "n3"))
    story.add(role("n1", "follower", 3, "n3"))

    assert lines == [
        "n3 starts an election: no leader",
        "n3 is the leader now (term 3). To stop it too: kill -9 103",
        "n1 follows n3 (term 3).",
    ]


def test_a_leader_is_known_from_its_followers_too() -> None:
    """Its own report may come later, or never if it was started by hand."""
    story, lines = story_of()

    story.add(role("n1", "follower", 2, "n2"))
    story.add(role("n2", "leader", 2, "n2"))

    assert lines[:2] == ["n2 is the leader now (term 2).", "n1 follows n2 (term 2)."]
    assert [line for line in lines if "is the leader" in line] == lines[:1]


def test_a_leader_that_steps_down_is_printed() -> None:
    story, lines = story_of()
    story.add(role("n1", "leader", 2, "n1"))
    lines.clear()

    story.add(role("n1", "follower", 2, None, "no majority has answered"))
    story.add(role("n2", "follower", 2, None))

    assert lines == ["n1 is no longer the leader: no majority has answered"]


def test_the_reason_for_no_leader_is_printed_once() -> None:
    story, lines = story_of()

    for _ in range(3):
        story.add(Leaderless("n1", "n2 is away"))
    story.add(Leaderless("n1", "n2 and n3 are away"))

    assert lines == ["n1 has no leader: n2 is away", "n1 has no leader: n2 and n3 are away"]


def test_a_single_node_prints_nothing_about_other_nodes() -> None:
    story, lines = story_of(nodes=1)

    story.add(up(1))
    story.add(role("n1", "leader", 1, "n1"))

    assert not [line for line in lines if "kill" in line]


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (70, "exit status 70"), (-9, "killed by signal 9, SIGKILL"), (-64, "killed by signal 64")],
)
def test_how_a_process_ended_is_printed_in_words(status: int, words: str) -> None:
    assert how_it_ended(status).startswith(words)


def test_a_new_cluster_has_the_requested_layout(tmp_path: Path) -> None:
    assert choose_layout(tmp_path, None, None, None) == LocalLayout(3, 4001, 5001)
    assert choose_layout(tmp_path, 5, 7001, 8001) == LocalLayout(5, 7001, 8001)


def test_a_cluster_keeps_its_layout_but_may_serve_at_other_ports(tmp_path: Path) -> None:
    prepare(tmp_path, LocalLayout(5, 7001, 8001), {})

    assert choose_layout(tmp_path, None, None, None) == LocalLayout(5, 7001, 8001)
    assert choose_layout(tmp_path, 5, 7101, 8001) == LocalLayout(5, 7101, 8001)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            (3, None, None),
            "--nodes: {} holds a cluster with --nodes 5, not 3; "
            "leave out --nodes, or start another cluster with another --data-dir",
        ),
        (
            (None, None, 9001),
            "--base-raft-port: {} holds a cluster with --base-raft-port 8001, not 9001; "
            "leave out --base-raft-port, or start another cluster with another --data-dir",
        ),
        ((None, 65533, None), "--base-port: there are no 5 ports from 65533 on; give a lower port"),
        (
            (None, 7998, None),
            "--base-port: the ports for clients, from 7998 on, overlap with the Raft ports, from 8001 on "
            "(--base-raft-port); keep the two at least 5 apart",
        ),
    ],
)
def test_an_impossible_layout_is_refused_in_one_line(
    tmp_path: Path, asked: tuple[int | None, int | None, int | None], message: str
) -> None:
    prepare(tmp_path, LocalLayout(5, 7001, 8001), {})

    with pytest.raises(SettingsError) as raised:
        choose_layout(tmp_path, *asked)
    assert str(raised.value) == message.format(tmp_path)


@pytest.mark.parametrize("damage", [{"nodes": 0}, {"nodes": -1}, {"base-port": 0}, {"base-raft-port": -5}])
def test_a_kept_layout_that_is_impossible_is_refused_in_one_line(tmp_path: Path, damage: dict[str, int]) -> None:
    layout = {"nodes": 3, "base-port": 4001, "base-raft-port": 5001, **damage}
    (tmp_path / "local.json").write_text(json.dumps(layout))

    with pytest.raises(SettingsError, match=r"^--data-dir: cannot read .*local\.json: Expected `int`"):
        choose_layout(tmp_path, None, None, None)


def test_each_node_gets_settings_that_start_it(tmp_path: Path) -> None:
    nodes = prepare(tmp_path, LocalLayout(2, 4001, 5001), {"timing": "2", "log-level": "debug"})

    found = [settings_of_node({}, {}, str(node.config)) for node in nodes]

    secret = Secret((tmp_path / "secret").read_bytes().strip())
    cluster = (("n1", HostPort("127.0.0.1", 5001)), ("n2", HostPort("127.0.0.1", 5002)))
    assert found == [
        (
            Settings(
                id=f"n{number}",
                http=HostPort("127.0.0.1", 4000 + number),
                raft=HostPort("127.0.0.1", 5000 + number),
                advertise_http=HostPort("127.0.0.1", 4000 + number),
                cluster=cluster,
                data_dir=str(tmp_path / f"n{number}" / "data"),
                secret=secret,
                timing=Timing(100, 300, 600),
                log_level="debug",
            ),
            [],
        )
        for number in (1, 2)
    ]
    assert len(secret.value) == 64


def test_the_secret_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    prepare(tmp_path, LocalLayout(1, 4001, 5001), {})
    first = (tmp_path / "secret").read_bytes()

    prepare(tmp_path, LocalLayout(1, 4001, 5001), {})

    assert (tmp_path / "secret").read_bytes() == first
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_cannot_be_written_is_reported_in_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")

    with pytest.raises(SettingsError, match=r"^--data-dir: cannot write .*file.*: \w"):
        prepare(blocked / "data", LocalLayout(1, 4001, 5001), {})


def test_a_settings_file_can_contain_any_directory(tmp_path: Path) -> None:
    directory = tmp_path / 'a "quoted" \\ näme\x7f'
    node = LocalNode("n1", HostPort("127.0.0.1", 4001), HostPort("127.0.0.1", 5001), directory)
    file = tmp_path / "serve.toml"
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o600)

    file.write_text(config_text(node, (node,), secret, {}))

    assert settings_of_node({}, {}, str(file))[0].data_dir == str(directory / "data")


def test_the_restart_command_unsets_variables_that_would_change_the_node() -> None:
    (node,) = LocalLayout(1, 4001, 5001).local_nodes(Path("my data"))

    assert restart_command(node, {"HOME": "/"}).endswith(" -m raftkv serve --config 'my data/n1/serve.toml'")
    assert restart_command(node, {"RAFTKV_TIMING": "2", "RAFTKV_ID": "n9"}).startswith(
        "env -u RAFTKV_ID -u RAFTKV_TIMING "
    )


def test_a_port_in_use_is_found(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        nodes = (LocalNode("n1", HostPort("127.0.0.1", 0), HostPort("127.0.0.1", port), tmp_path),)
        assert busy_port(nodes) == HostPort("127.0.0.1", port)
    assert busy_port(nodes) is None


def test_the_last_line_of_a_log_is_the_last_with_text(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    assert last_line(log) == ""
    log.write_text("first\n" + "x" * 10_000 + "\nlast\n\n")
    assert last_line(log) == "last"
