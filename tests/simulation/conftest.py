"""What all tests of the simulation need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raftkv.actors.system.virtual.scheduler import VirtualLoop


@pytest.fixture(autouse=True)
def _simulations_end_with_their_test() -> Iterator[None]:
    yield
    VirtualLoop.close_all()
