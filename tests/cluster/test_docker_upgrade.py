"""In containers: a rolling upgrade replaces every node, and those who write do not notice."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from deploy import DeployError
from tests.support.containers import IMAGE
from tests.support.load import MakeLoad, check

pytestmark = pytest.mark.timeout(240)
NEXT, BROKEN = "raftkv:test-next", "raftkv:test-broken"


@pytest.fixture
def other_images(engine: Any) -> Iterator[None]:
    """Make an image that differs in nothing but a label, and one whose program ends at once."""
    for tag, line in ((NEXT, "LABEL raftkv.test=next"), (BROKEN, 'ENTRYPOINT ["false"]')):
        engine.images.build(fileobj=io.BytesIO(f"FROM {IMAGE}\n{line}\n".encode()), tag=tag, rm=True)
    yield
    for tag in (NEXT, BROKEN):
        engine.images.remove(tag, force=True)


def images(cluster: Any) -> set[str]:
    return {found.image for found in cluster.found().values()}


@pytest.mark.usefixtures("other_images")
def test_a_rolling_upgrade_loses_nothing_and_ends_where_the_new_image_does_not_work(
    engine: Any, containers: Any, make_load: MakeLoad
) -> None:
    load = make_load(containers)
    load.wait_for_writes(20)
    upgraded = engine.images.get(NEXT).id

    changed = containers.upgrade(NEXT)
    load.wait_for_writes(5, *containers.ids)

    assert changed == containers.ids
    assert images(containers) == {upgraded}
    assert containers.upgrade(NEXT) == []

    with pytest.raises(DeployError, match="does not get ready with the new image, and runs the old one"):
        containers.upgrade(BROKEN, within_s=2.0)
    load.wait_for_writes(5, *containers.ids)
    check(containers, load)

    assert images(containers) == {upgraded}
