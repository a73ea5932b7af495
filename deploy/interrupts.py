"""Ctrl-C, and the signals that mean the same: what they end, and what they must not break off."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_all_alike() -> None:
    """Let SIGTERM, and a terminal that is closed, be what Ctrl-C is: whoever ends us gets everything cleaned up.

    The first of them counts, and whoever is impatient does not interrupt what cleans up.
    """
    for each in ENDING:
        # Whoever said nohup wants us to outlive the terminal.
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise ``KeyboardInterrupt``, once."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextlib.contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Let these signals do nothing meanwhile but be noted in what this gives; other threads get none of them anyway."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {each: signal.signal(each, lambda number, _: noted.append(number)) for each in ENDING}
    try:
        yield noted
    finally:
        for each, handler in before.items():
            # None is a handler that somebody has installed without Python, and that it cannot install again.
            signal.signal(each, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def interrupted_later() -> Iterator[None]:
    """Do all of this before a signal that comes meanwhile does what it does."""
    with uninterrupted() as noted:
        yield
    if noted:
        signal.raise_signal(noted[0])
