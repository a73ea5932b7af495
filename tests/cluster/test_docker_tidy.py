"""Nothing is left behind, however a command ends, and nothing that belongs to others is touched."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import Cluster, DeployError
from deploy.bring_up import BringUp, ClusterOptions
from deploy.containers import find
from deploy.engine import PortTakenError
from deploy.monitor import Monitor
from deploy.names import Names
from deploy.nodes import Nodes
from deploy.resources import inventory, remove
from deploy.waiting import wait_for
from tests.support.containers import (
    IMAGE,
    NEVER_READY,
    UNDER_LOAD_S,
    Containers,
    Deploy,
    MakeContainers,
    interrupted,
    left_behind,
    until_done,
    wait_for_part,
)
from tests.support.processes import ROOT, environment, free_ports


@pytest.fixture
def name(engine: Any) -> Iterator[str]:
    """Return a name that no other cluster has; remove what a failing test leaves of that cluster."""
    made = f"raftkv-tidy-{secrets.token_hex(4)}"
    yield made
    remove(engine, inventory(engine, Names(made)))


def parts(client: Any, name: str) -> set[Any]:
    return inventory(client, Names(name))


FAILING = """
from deploy import Cluster

def test_that_fails():
    with Cluster(name={name!r}, image={image!r}) as cluster:
        assert cluster.leader() == "nobody"
"""


def test_a_failed_test_leaves_nothing(engine: Any, name: str, tmp_path: Path) -> None:
    test = tmp_path / "test_failing.py"
    test.write_text(FAILING.format(name=name, image=IMAGE))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(test)],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert "assert 'n" in done.stdout, done.stdout + done.stderr
    assert (done.returncode, parts(engine, name)) == (1, set())


def unready(name: str) -> list[str]:
    """Return the arguments to bring up a cluster that never gets ready, so that there is time to interrupt it."""
    settings = [part for setting, value in NEVER_READY.items() for part in ("--set", f"{setting}={value}")]
    return ["up", "--name", name, "--image", IMAGE, "--base-port", str(free_ports(3)), *settings]


@pytest.mark.parametrize(
    ("kind", "count", "number"),
    [
        ("volume", 1, signal.SIGINT),
        ("network", 1, signal.SIGHUP),
        ("container", 1, signal.SIGINT),
        ("container", 3, signal.SIGTERM),
    ],
)
def test_an_interrupted_up_removes_what_it_created(
    engine: Any, name: str, kind: str, count: int, number: signal.Signals, deploy: Deploy
) -> None:
    process = deploy(*unready(name))
    wait_for_part(engine, name, kind, count)

    assert "interrupted; cleaning up" in interrupted(process, number)
    assert parts(engine, name) == set()


def test_an_up_interrupted_while_all_nodes_run_removes_what_it_created(engine: Any, name: str, deploy: Deploy) -> None:
    process = deploy(*unready(name))
    wait_for(
        lambda: [each.is_running for each in find(engine, Names(name)).values()] == [True] * 3, lambda: "three nodes"
    )
    interrupted(process)

    assert parts(engine, name) == set()


def test_repeated_interrupts_leave_nothing(engine: Any, name: str, deploy: Deploy) -> None:
    process = deploy(*unready(name))
    wait_for_part(engine, name, "container")
    wait_for(lambda: impatient(process), lambda: "the process does not end", UNDER_LOAD_S)
    output, _ = process.communicate()

    assert process.returncode == 130, output
    assert parts(engine, name) == set()


def impatient(process: subprocess.Popen[str]) -> bool:
    """Interrupt a process; return whether it has ended."""
    process.send_signal(signal.SIGINT)
    return process.poll() is not None


def test_a_measurement_that_is_interrupted_leaves_nothing(engine: Any, name: str, deploy: Deploy) -> None:
    process = deploy("measure", "--name", name, "--image", IMAGE, "--ups", "1", "--kills", "999")
    wait_for_part(engine, name, "container", 3)
    interrupted(process)

    assert parts(engine, name) == set()


@pytest.mark.parametrize("after", ["creating", "The leader, n"])
def test_a_tour_that_is_interrupted_leaves_nothing(engine: Any, name: str, after: str, deploy: Deploy) -> None:
    process = deploy("demo", "--name", name, "--image", IMAGE)
    assert process.stdout is not None
    assert any(line.startswith(after) for line in iter(process.stdout.readline, ""))

    assert "interrupted; removing" in interrupted(process)
    assert parts(engine, name) == set()


@pytest.mark.parametrize("command", ["demo", "measure"])
def test_demo_and_measure_refuse_a_cluster_that_exists(engine: Any, name: str, command: str, deploy: Deploy) -> None:
    existing = engine.volumes.create(f"{name}-n1", labels=Names(name).labels())
    output, _ = (process := deploy(command, "--name", name, "--image", IMAGE)).communicate()

    assert (process.returncode, output) == (
        *(2, f"deploy: the cluster {name} exists, and this command would remove it; give another --name\n"),
    )
    existing.reload()


def test_two_commands_that_bring_up_the_same_cluster_both_succeed(engine: Any, name: str, deploy: Deploy) -> None:
    arguments = ["up", "--name", name, "--image", IMAGE, "--base-port", str(free_ports(3))]
    both = [deploy(*arguments), deploy(*arguments)]
    outputs = [process.communicate()[0] for process in both]

    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted(output.count("creating n1, n2, n3") for output in outputs) == [0, 1]
    assert len([part for part in parts(engine, name) if part.kind == "container"]) == 3


def test_an_interrupted_command_that_waits_for_another_does_no_harm(engine: Any, name: str, deploy: Deploy) -> None:
    first = deploy(*unready(name))
    wait_for_part(engine, name, "container", 3)
    second = deploy(*unready(name))
    try:
        assert second.stdout is not None
        assert second.stdout.readline() == f"another command is working on {name}; waiting for it to finish\n"
        interrupted(second)
        assert first.poll() is None
        assert len([part for part in parts(engine, name) if part.node_id and part.kind == "container"]) == 3
    finally:
        interrupted(first)

    assert parts(engine, name) == set()


@pytest.mark.parametrize(("kind", "count"), [("volume", 1), ("volume", 2), ("container", 1), ("container", 2)])
def test_the_next_command_completes_what_a_killed_one_has_left(
    engine: Any, name: str, tmp_path: Path, kind: str, count: int, deploy: Deploy
) -> None:
    process = deploy("up", "--name", name, "--image", IMAGE, "--nodes", "3", "--base-port", str(free_ports(3)))
    wait_for_part(engine, name, kind, count)
    process.kill()
    process.communicate()

    cluster = Containers(tmp_path, name=name)
    try:
        # The engine may still be processing a request of the killed command.
        until_done(lambda: cluster.up(within_s=UNDER_LOAD_S))
        cluster.put("n1", "a", "1")
        assert {node_id: cluster.get(node_id, "a") for node_id in cluster.ids} == {"n1": "1", "n2": "1", "n3": "1"}
    finally:
        cluster.down(volumes=True)
        cluster.close()


def test_an_incomplete_node_is_created_again(name: str, make_containers: MakeContainers) -> None:
    """Its command was killed between creating the container and attaching it to the nodes' network."""
    cluster = make_containers(3, name=name)
    cluster.put("n1", "a", "1")
    cluster.kill("n2", "n3")
    for node_id in ("n2", "n3"):
        cluster.client.api.disconnect_container_from_network(cluster.found()[node_id].container_id, f"{name}-peers")
    cluster.up(within_s=UNDER_LOAD_S)

    assert {node_id: cluster.get(node_id, "a") for node_id in cluster.ids} == {"n1": "1", "n2": "1", "n3": "1"}


@pytest.mark.parametrize("kind", ["container", "network", "volume"])
def test_a_resource_of_others_in_the_way_stays_and_is_named(engine: Any, name: str, kind: str) -> None:
    if kind == "container":
        foreign = engine.containers.create(IMAGE, name=f"{name}-n2", tmpfs={"/data": ""})
    elif kind == "network":
        foreign = engine.networks.create(f"{name}-clients")
    else:
        foreign = engine.volumes.create(f"{name}-n2")
    cluster = Cluster(name=name, image=IMAGE)
    try:
        with pytest.raises(DeployError, match=rf"a {kind} named {name}-(n2|clients) exists and does not belong to"):
            cluster.up()
        assert parts(engine, name) == set()
        foreign.reload()
    finally:
        cluster.close()
        foreign.remove(**({"v": True} if kind == "container" else {}))


def test_a_volume_of_others_is_not_used_as_the_record_of_losses(
    name: str, make_containers: MakeContainers, engine: Any
) -> None:
    cluster = make_containers(2, name=name)
    foreign = engine.volumes.create(f"{name}-faults")
    try:
        with pytest.raises(DeployError, match=f"a volume named {name}-faults exists"):
            cluster.isolate("n1")
        assert not cluster.heal()
        foreign.reload()
    finally:
        foreign.remove()


def test_a_node_that_is_created_again_is_like_the_others(
    name: str, make_containers: MakeContainers, engine: Any
) -> None:
    """As after an upgrade that was killed: it gets the image and settings of the others, not the defaults."""
    cluster = make_containers(3, name=name, settings={"log-level": "warning"})
    before = cluster.found()
    engine.containers.get(before["n2"].container_id).remove(force=True)
    again = Cluster(name=name)
    try:
        again.up(within_s=UNDER_LOAD_S)
    finally:
        again.close()

    after = cluster.found()
    assert {node_id: (each.image, each.settings, each.port) for node_id, each in after.items()} == {
        node_id: (each.image, each.settings, each.port) for node_id, each in before.items()
    }


def test_nothing_is_left_if_a_port_is_taken(engine: Any, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = Cluster(name=name, image=IMAGE, base_port=port)
        try:
            with pytest.raises(DeployError, match=rf"port {port} of this machine is in use"):
                cluster.up()
        finally:
            cluster.close()

    assert parts(engine, name) == set()


class Unlucky(BringUp):
    """Finds on every attempt that other processes have taken the ports that were free before."""

    attempts = 0

    def attempt(self, within_s: float, default_port: int | None) -> None:
        self.attempts += 1
        raise PortTakenError("port 20000 of this machine is in use")


@pytest.mark.parametrize(("base_port", "attempts"), [(None, 3), (20000, 1)])
def test_other_ports_are_tried_unless_the_user_chose_them(
    engine: Any, name: str, base_port: int | None, attempts: int
) -> None:
    nodes = Nodes(engine, Names(name))
    unlucky = Unlucky(nodes, Monitor(nodes), ClusterOptions(base_port=base_port), print)

    with pytest.raises(DeployError, match="is in use"):
        unlucky.run(UNDER_LOAD_S, None)

    assert unlucky.attempts == attempts


def test_a_failed_up_keeps_what_was_there_before(engine: Any, name: str, tmp_path: Path) -> None:
    """Above all the data of a cluster that is down."""
    cluster = Containers(tmp_path, name=name)
    try:
        cluster.up(within_s=UNDER_LOAD_S)
        cluster.put("n1", "a", "1")
        assert cluster.down()
        kept = parts(engine, name)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            again = Cluster(name=name, image=IMAGE, base_port=taken.getsockname()[1])
            with pytest.raises(DeployError, match="is in use"):
                again.up()
            again.close()
        assert {part.kind for part in kept} == {"volume"}
        assert parts(engine, name) == kept
        cluster.up(within_s=UNDER_LOAD_S)
        assert cluster.get("n3", "a") == "1"
    finally:
        cluster.down(volumes=True)
        cluster.close()

    assert parts(engine, name) == set()


def test_resources_of_others_stay(engine: Any, name: str, tmp_path: Path) -> None:
    """Also if their names are like ours, or if they belong to another cluster."""
    volume = engine.volumes.create(f"{name}-n9")
    network = engine.networks.create(f"{name}-others")
    try:
        with Containers(tmp_path, 1, name=f"{name}-2") as other:
            with Cluster(1, name=name, image=IMAGE):
                pass
            other.put("n1", "a", "1")
            assert other.get("n1", "a") == "1"
        volume.reload()
        network.reload()
    finally:
        volume.remove()
        network.remove()

    assert left_behind(engine, name) == []
