"""`python -m deploy`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        # Only here, because it takes a while, and Ctrl-C may come meanwhile.
        from deploy.cli import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    # All is done, and Python would only complain of an interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)


if __name__ == "__main__":
    main()
