"""The image: small, without simulator and tests, not root, only the data writable, and stopped by SIGTERM."""

from __future__ import annotations

import io
import re
import secrets
from typing import Any

import pytest

from deploy.engine import DeployError
from deploy.image import DOCKERFILE, IMAGE_LABEL, STAGE_IMAGE, base_image, build
from deploy.waiting import wait_for
from tests.support.containers import IMAGE, UNDER_LOAD_S

MOST_BYTES = 60_000_000
# A registry on a port without a listener, so that the pull fails at once.
NOWHERE = "127.0.0.1:1/raftkv:no-such-version"


def inside(cluster: Any, node_id: str, *command: str) -> tuple[int, str]:
    """Run a command in a node's container; return its exit status and its output."""
    container = cluster.client.containers.get(cluster.found()[node_id].container_id)
    status, output = container.exec_run(list(command))
    return status, output.decode()


def test_it_adds_at_most_60_mb_to_its_base(engine: Any) -> None:
    sizes = {name: engine.images.get(name).attrs["Size"] for name in (IMAGE, base_image(DOCKERFILE.read_text()))}
    added = sizes.pop(IMAGE) - sizes.popitem()[1]
    print(f"{added / 1e6:.1f} MB")

    assert 0 < added <= MOST_BYTES


def test_it_is_configured_as_an_image_of_a_service(engine: Any) -> None:
    config = engine.images.get(IMAGE).attrs["Config"]

    assert (config["User"], list(config["Volumes"]), config["StopSignal"]) == ("10001:10001", ["/data"], "SIGTERM")
    assert config["Entrypoint"] == ["/opt/raftkv/bin/python", "-m", "raftkv"]
    assert config["Healthcheck"]["Test"][0] == "CMD"


def test_nothing_of_the_build_is_left_in_it(engine: Any) -> None:
    """Neither the settings of pip, which may contain a password, nor the packages that build others."""
    history = " ".join(layer["CreatedBy"] for layer in engine.images.get(IMAGE).history())
    script = (
        "import importlib.metadata as metadata\n"
        "print(*(each.name for each in metadata.distributions(path=['/opt/raftkv/lib/python3.11/site-packages'])))"
    )
    found = engine.containers.run(
        IMAGE, ["-c", script], entrypoint="/opt/raftkv/bin/python", remove=True, tmpfs={"/data": ""}
    )

    assert "PIP_" not in history
    assert set(found.decode().lower().split()) == {
        *("click", "google-crc32c", "msgspec", "sortedcontainers", "thespian", "tornado", "ujson", "uvloop")
    }


def run_once(engine: Any, *arguments: str, entrypoint: str = "/opt/raftkv/bin/python") -> str:
    """Run a program of the image in a container of its own; return its output."""
    output: bytes = engine.containers.run(
        IMAGE, list(arguments), entrypoint=entrypoint, remove=True, read_only=True, tmpfs={"/data": ""}, stderr=True
    )
    return output.decode()


def test_it_has_the_linked_folders_of_a_node(engine: Any) -> None:
    modules = "raftkv.actors.node, raftkv.http.server, raftkv.process.server"
    script = f"import os, {modules}; print(*sorted(n for n in os.listdir('raftkv') if os.path.islink('raftkv/' + n)))"

    assert run_once(engine, "-c", script).split() == ["actors", "http"]


def test_it_has_neither_the_simulator_nor_tests(engine: Any) -> None:
    script = (
        "import importlib.util, os\n"
        "print(importlib.util.find_spec('raftkv.simulation'), *sorted({*os.listdir('/app')} - {'__pycache__'}))\n"
        "names = [name for _, folders, files in os.walk('/app') for name in folders + files]\n"
        "print([name for name in names if 'test' in name or 'simulat' in name])"
    )

    assert run_once(engine, "-c", script).splitlines() == ["None actors http raftkv ready.py", "[]"]


def test_without_the_simulator_there_is_no_command_for_it(engine: Any) -> None:
    output = run_once(engine, "-m", "raftkv", "--help")

    assert re.findall(r"^  (\w+)  ", output, flags=re.M) == ["local", "serve"]


def test_a_node_is_not_root_and_can_write_only_its_data(containers: Any) -> None:
    container = containers.client.containers.get(containers.found()["n1"].container_id)
    host = container.attrs["HostConfig"]

    assert inside(containers, "n1", "id", "-u") == (0, "10001\n")
    assert {
        place: inside(containers, "n1", "touch", f"{place}/x")[0] for place in ("/data", "/app", "/tmp", "/secret")
    } == {
        **dict.fromkeys(("/app", "/tmp", "/secret"), 1),
        "/data": 0,
    }
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert (host["RestartPolicy"]["Name"], host["Memory"], host["PidsLimit"]) == ("unless-stopped", 512 << 20, 256)


def test_nodes_become_healthy_and_without_a_majority_unhealthy(containers: Any) -> None:
    def healths() -> dict[str, str | None]:
        return {node_id: found.health for node_id, found in containers.found().items()}

    def wait_until(expected: str, *ids: str) -> None:
        wait_for(lambda: {healths()[node_id] for node_id in ids} == {expected}, lambda: f"{healths()}", UNDER_LOAD_S)

    wait_until("healthy", "n1", "n2", "n3")
    containers.kill("n2", "n3")
    wait_until("unhealthy", "n1")


def test_every_node_exits_by_itself_on_sigterm(containers: Any) -> None:
    """Also the last, which has no peer to hand leadership over to."""
    containers.put("n1", "a", "1")
    statuses = {}
    for node_id, found in containers.found().items():
        # The engine kills a node that takes longer, which gives another exit status.
        containers.client.api.stop(found.container_id, timeout=int(UNDER_LOAD_S))
        container = containers.client.containers.get(found.container_id)
        statuses[node_id] = container.attrs["State"]["ExitCode"]

    assert statuses == {"n1": 0, "n2": 0, "n3": 0}


def test_an_image_that_does_not_exist_is_named(containers: Any) -> None:
    with pytest.raises(DeployError, match=rf"the image {NOWHERE} is not here and cannot be pulled"):
        containers.upgrade(NOWHERE)


def test_a_build_removes_nameless_images_of_earlier_builds_and_no_others(engine: Any) -> None:
    old = nameless(engine, f"FROM {IMAGE}\nLABEL made={secrets.token_hex(8)}\n")
    foreign = nameless(engine, f"FROM {base_image(DOCKERFILE.read_text())}\nLABEL made={secrets.token_hex(8)}\n")
    try:
        build(engine, IMAGE, lambda line: None)
        left = {image.id for image in engine.images.list(filters={"dangling": True})}
        labels = [engine.images.get(name).labels[IMAGE_LABEL] for name in (IMAGE, STAGE_IMAGE)]
        assert ({old, foreign} & left, labels) == ({foreign}, ["node", "build"])
    finally:
        engine.images.remove(foreign)


def nameless(engine: Any, dockerfile: str) -> str:
    """Build an image without a name and return its id."""
    made, _ = engine.images.build(fileobj=io.BytesIO(dockerfile.encode()), rm=True)
    image_id: str = made.id
    return image_id
