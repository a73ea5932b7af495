"""Entry point of `python -m deploy`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        # Imported here, because the import takes a while and Ctrl-C must already work.
        from deploy.cli import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    # All work is done: a Ctrl-C during Python's shutdown would only print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)


if __name__ == "__main__":
    main()
