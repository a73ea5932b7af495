"""What all tests share."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the stories in tests/golden anew instead of comparing them"
    )
