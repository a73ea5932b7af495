"""Whole lives of clusters: whatever happened, all is well in the end, and nothing that was promised is lost."""

from __future__ import annotations

import pytest

from tests.roles.lifetimes import Lifetime, seeds_to_run
from tests.support.stage import Stage


# Pickling takes most of the time where every message is.
@pytest.mark.parametrize("seed", seeds_to_run(30 if Stage.pickles else 150))
def test_a_cluster_survives_its_troubles(seed: int) -> None:
    """Loss, repetition, delay, crashes, pauses, slow disks, cuts in one or both directions, and all nodes down."""
    Lifetime(seed).run()


def test_a_seed_is_a_whole_life() -> None:
    """The same seed gives the same life, or a failure could not be seen again."""
    lives = [Lifetime(8).run() for _ in range(2)]

    assert lives[0].cluster.replies == lives[1].cluster.replies
    assert lives[0].history.operations == lives[1].history.operations
