"""Whether simulated runs find mistakes: with each mistake, one of the first seeds fails.

Mistakes that take more than a few seeds are only on the page docs/mutation.md, with the scripts that find them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulation.mutation import MISTAKES, first_caught

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mutation.md"
QUICK = 3
"""Mistakes that took at most this many seeds are tried here."""

ALLOWED = 15
"""How many seeds are tried: any change of the product or of the faults changes the runs of the same seeds."""


def seeds_taken() -> dict[str, int | None]:
    """Return how many seeds each mistake took according to the page; None if none of them failed."""
    rows = re.findall(r"^\| `(\w+)` \|.*?\| (\d+|none of \d+) \|", PAGE.read_text(), re.M)
    return {name: int(seeds) if seeds.isdigit() else None for name, seeds in rows}


def test_the_page_has_every_mistake() -> None:
    """The page lists each mistake, in the same order."""
    assert list(seeds_taken()) == list(MISTAKES)


@pytest.mark.parametrize(
    "name", [name for name, seeds in seeds_taken().items() if seeds is not None and seeds <= QUICK]
)
def test_one_of_the_first_seeds_catches(name: str) -> None:
    """One of the seeds fails."""
    assert first_caught(name, range(ALLOWED)) is not None, f"replay: python -m tests.simulation.mutation {name}"
