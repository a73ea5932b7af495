"""What all tests share."""

from __future__ import annotations

import hypothesis
import pytest

from tests.support.stage import Stage

# The same examples in every run: what fails here fails everywhere, and again with the command that ran it.
hypothesis.settings.register_profile("short", derandomize=True, deadline=None)
# New ones in every run. On failure, hypothesis prints the seed and the option that brings them back.
hypothesis.settings.register_profile(
    "long",
    max_examples=3000,
    stateful_step_count=100,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("short")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the stories in tests/golden anew instead of comparing them"
    )
    parser.addoption("--pickled", action="store_true", help="pickle every message to an actor on a stage")


def pytest_configure(config: pytest.Config) -> None:
    """Tell the stages how to carry messages."""
    Stage.pickles = config.getoption("--pickled")
