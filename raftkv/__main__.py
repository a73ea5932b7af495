"""`python -m raftkv`, and the `raftkv` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its status; 1, and one line, if a package is not installed."""
    try:
        from raftkv.cli import run

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
