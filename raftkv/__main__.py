"""`python -m raftkv`, and the `raftkv` command."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit with its status; 1, and one line, if a package is not installed."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        # The imports take a while: until they are done, Ctrl-C ends the process without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from raftkv.cli import run

        signal.signal(signal.SIGINT, handler)
        status = run(sys.argv[1:])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "raftkv":
            raise
        sys.exit(
            f"raftkv: the package {error.name} is not installed for {sys.executable}; "
            "run `pip install .` in the checkout, or use `make run`"
        )
    sys.exit(status)


if __name__ == "__main__":
    main()
