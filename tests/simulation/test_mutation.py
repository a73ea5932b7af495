"""Whether the lives that are drawn from seeds would notice: with each mistake put in, one of the first goes wrong.

Those that take more than a few seeds are only on the page docs/mutation.md, with the scripts that notice them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulation.mutation import MISTAKES, first_caught

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mutation.md"
QUICK = 3
"""Seeds that a mistake may have taken to be tried here."""

ALLOWED = 15
"""How many are tried: any change to the product or to the faults makes other lives of the same seeds."""


def taken() -> dict[str, int | None]:
    """Return how many seeds each mistake took, as the page says; None where all were lived in vain."""
    rows = re.findall(r"^\| `(\w+)` \|.*?\| (\d+|none of \d+) \|", PAGE.read_text(), re.M)
    return {name: int(seeds) if seeds.isdigit() else None for name, seeds in rows}


def test_the_page_has_every_mistake() -> None:
    """No mistake is put in that nobody has tried."""
    assert list(taken()) == list(MISTAKES)


@pytest.mark.parametrize("name", [name for name, seeds in taken().items() if seeds is not None and seeds <= QUICK])
def test_one_of_the_first_seeds_catches(name: str) -> None:
    """The life of some cluster goes wrong."""
    assert first_caught(name, range(ALLOWED)) is not None, f"replay: python -m tests.simulation.mutation {name}"
