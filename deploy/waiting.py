"""Waiting for what is to come, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from deploy.engine import DeployError

PATIENCE_S = 60.0
"""How long to wait for what takes a second or two on a machine that has nothing else to do."""

POLL_S = 0.05

Seen = TypeVar("Seen")


def wait_for(
    look: Callable[[], Seen | None], what: Callable[[], str], within_s: float = PATIENCE_S, poll_s: float = POLL_S
) -> Seen:
    """Look again and again until something is seen, and return it; raises ``DeployError`` with ``what`` was not."""
    deadline_s = time.monotonic() + within_s
    while not (seen := look()):
        if time.monotonic() > deadline_s:
            raise DeployError(f"{what()} (waited {within_s:g} s)")
        time.sleep(poll_s)
    return seen
