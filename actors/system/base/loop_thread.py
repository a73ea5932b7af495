"""A thread with an event loop of its own, for programs that run none."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable


class LoopThread:
    """An event loop on a daemon thread, until it is stopped."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._last: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="actor-loop", daemon=True)

    def start(self) -> int:
        """Start the thread; returns its identity."""
        self._thread.start()
        assert self._thread.ident is not None
        return self._thread.ident

    def stop(self, last: Callable[[], None]) -> None:
        """Stop the loop, call ``last`` on its thread, and let the thread end. On the loop's thread."""
        self._last = last
        self.loop.stop()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end, unless this is that thread."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while self._last is None:
            try:
                self.loop.run_forever()
            except KeyboardInterrupt:
                # An interrupt is for the main thread; raised in a handler, it must not end all other actors. It is
                # passed on as a real signal, since interrupt_main() does not wake a thread that waits for a lock.
                signal.pthread_kill(_main_thread(), signal.SIGINT)
        self._last()
        try:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()


def _main_thread() -> int:
    identity = threading.main_thread().ident
    assert identity is not None
    return identity
