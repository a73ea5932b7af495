"""Data that a test keeps for its failure report."""

from __future__ import annotations

from typing import Any

import pytest

CLUSTERS = pytest.StashKey[list[Any]]()
"""The test's clusters; ``report()`` gives titles and texts for each."""

FAILED = pytest.StashKey[bool]()
"""Set when a phase of the test has failed."""
