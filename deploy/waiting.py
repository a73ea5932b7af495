"""Polling with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from deploy.engine import DeployError

PATIENCE_S = 60.0
"""The default deadline, for things that take a second or two on an idle machine."""

POLL_S = 0.05

Seen = TypeVar("Seen")


def wait_for(
    look: Callable[[], Seen | None], what: Callable[[], str], within_s: float = PATIENCE_S, poll_s: float = POLL_S
) -> Seen:
    """Call ``look`` until it returns something true, and return that.

    Raises ``DeployError`` after ``within_s``; ``what()`` says what is still missing.
    """
    deadline_s = time.monotonic() + within_s
    while not (seen := look()):
        if time.monotonic() > deadline_s:
            raise DeployError(f"{what()} (waited {within_s:g} s)")
        time.sleep(poll_s)
    return seen
