"""In containers: a rolling upgrade replaces every node, and clients that write do not notice."""

from __future__ import annotations

import contextlib
import io
import re
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from docker.errors import ImageNotFound

from deploy import DeployError
from deploy.waiting import wait_for
from tests.support.containers import IMAGE, Deploy, interrupted
from tests.support.load import MakeLoad, check


@pytest.fixture
def other_images(engine: Any) -> Iterator[tuple[str, str]]:
    """Build an image that differs only in a label, and one whose program exits at once; return their names."""
    token = secrets.token_hex(4)
    names = (f"raftkv:test-next-{token}", f"raftkv:test-broken-{token}")
    try:
        for name, line in zip(names, (f"LABEL raftkv.test={token}", 'ENTRYPOINT ["false"]'), strict=True):
            engine.images.build(fileobj=io.BytesIO(f"FROM {IMAGE}\n{line}\n".encode()), tag=name, rm=True)
        yield names
    finally:
        for name in names:
            with contextlib.suppress(ImageNotFound):
                engine.images.remove(name, force=True)


@pytest.mark.parametrize("moment", ["before it is removed", "after it is replaced"])
def test_a_node_whose_upgrade_is_interrupted_gets_its_old_image_back(
    other_images: tuple[str, str], containers: Any, make_load: MakeLoad, deploy: Deploy, moment: str
) -> None:
    load = make_load(containers)
    load.wait_for_writes(20)
    before = {node_id: found.image for node_id, found in containers.found().items()}

    process = deploy("upgrade", "--name", containers.name, "--image", other_images[0])
    assert process.stdout is not None
    first_line = process.stdout.readline()
    if moment == "after it is replaced":
        wait_for(lambda: images(containers) != set(before.values()), lambda: "a container of the new image")
    output = interrupted(process)

    # Earlier nodes may have the new image, and the signal can arrive between two nodes.
    after = {node_id: found.image for node_id, found in containers.found().items()}
    undone = re.findall(r"^(n\d) is not upgraded, because of an interrupt; it gets its old image back$", output, re.M)
    assert first_line.startswith("upgrading n")
    assert {node_id: after[node_id] for node_id in undone} == {node_id: before[node_id] for node_id in undone}
    assert containers.running == list(before)
    load.wait_for_writes(5, *containers.ids)
    check(containers, load)


def images(cluster: Any) -> set[str]:
    return {found.image for found in cluster.found().values()}


def test_a_rolling_upgrade_loses_nothing_and_stops_at_a_node_on_which_the_new_image_fails(
    engine: Any, other_images: tuple[str, str], containers: Any, make_load: MakeLoad
) -> None:
    newer, broken = other_images
    load = make_load(containers)
    load.wait_for_writes(20)
    upgraded = engine.images.get(newer).id

    changed = containers.upgrade(newer)
    load.wait_for_writes(5, *containers.ids)

    assert changed == containers.ids
    assert images(containers) == {upgraded}
    assert containers.upgrade(newer) == []

    with pytest.raises(DeployError, match="does not get ready with the new image, and runs the old one"):
        containers.upgrade(broken, within_s=2.0)
    load.wait_for_writes(5, *containers.ids)
    check(containers, load)

    assert images(containers) == {upgraded}
