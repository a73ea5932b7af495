"""Ctrl-C and the signals that mean the same: what they end, and what they must not break off."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def handle_as_interrupts() -> None:
    """Make SIGTERM and SIGHUP do what Ctrl-C does, so that each of them is followed by the clean-up.

    Only the first signal counts: further ones do not interrupt the clean-up.
    """
    for each in ENDING:
        # A process started by nohup ignores SIGHUP and is meant to outlive the terminal.
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise ``KeyboardInterrupt``, and ignore all further signals."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextlib.contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Only record these signals, in the list that this yields; in other threads, which get none, do nothing."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {each: signal.signal(each, lambda number, _: received.append(number)) for each in ENDING}
    try:
        yield received
    finally:
        for each, handler in before.items():
            # None is a handler that was not installed from Python; Python cannot install it again.
            signal.signal(each, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def interrupted_later() -> Iterator[None]:
    """Delay a signal until the context ends."""
    with uninterrupted() as received:
        yield
    if received:
        signal.raise_signal(received[0])
