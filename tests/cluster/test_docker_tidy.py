"""Nothing that was made in containers is left behind, however it ends, and nothing of others is touched."""

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
from deploy.making import inventory, remove
from deploy.names import Names
from tests.support.containers import IMAGE, left_behind, wait_for_part
from tests.support.processes import ROOT, environment, free_ports

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def name(engine: Any) -> Iterator[str]:
    """Return a name that no other cluster has; what a failing test leaves of it does not stay."""
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


@pytest.mark.parametrize(
    ("kind", "count", "number"),
    [("volume", 1, signal.SIGINT), ("container", 1, signal.SIGINT), ("container", 3, signal.SIGTERM)],
)
def test_up_takes_back_what_it_made_when_it_is_interrupted(
    engine: Any, name: str, kind: str, count: int, number: signal.Signals
) -> None:
    process = deploy("up", "--name", name, "--image", IMAGE, "--base-port", str(free_ports(3)))
    wait_for_part(engine, name, kind, count)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 130, output
    assert parts(engine, name) == set()


def test_a_measurement_that_is_interrupted_leaves_nothing(engine: Any) -> None:
    process = deploy("measure", "--image", IMAGE, "--ups", "1", "--kills", "9")
    wait_for_part(engine, "raftkv-measure", "container", 3)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 130, output
    assert left_behind(engine, "raftkv-measure") == []


def test_nothing_is_left_where_a_port_is_taken(engine: Any, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = Cluster(name=name, image=IMAGE, base_port=port)
        try:
            with pytest.raises(DeployError, match=rf"port {port} of this machine is taken"):
                cluster.up()
        finally:
            cluster.close()

    assert parts(engine, name) == set()


def test_a_failed_up_keeps_what_was_there_before(engine: Any, name: str) -> None:
    """The data of a cluster that was taken down, above all."""
    cluster = Cluster(name=name, image=IMAGE)
    try:
        cluster.up()
        cluster.put("n1", "a", "1")
        assert cluster.down()
        kept = parts(engine, name)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            again = Cluster(name=name, image=IMAGE, base_port=taken.getsockname()[1])
            with pytest.raises(DeployError, match="is taken"):
                again.up()
            again.close()
        assert {part.kind for part in kept} == {"volume"}
        assert parts(engine, name) == kept
        cluster.up()
        assert cluster.get("n3", "a") == "1"
    finally:
        cluster.down(volumes=True)
        cluster.close()

    assert parts(engine, name) == set()


def test_what_belongs_to_others_stays(engine: Any, name: str) -> None:
    """Also where it has a name like ours, or is of another cluster."""
    volume = engine.volumes.create(f"{name}-n9")
    network = engine.networks.create(f"{name}-others")
    try:
        with Cluster(1, name=f"{name}-2", image=IMAGE) as other:
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


def deploy(*arguments: str) -> subprocess.Popen[str]:
    """Start a command of `python -m deploy`."""
    return subprocess.Popen(
        [sys.executable, "-m", "deploy", *arguments],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C in our terminal is not meant for it.
        process_group=0,
    )
