"""Long runs: ``python -m tests.fuzz --seconds 60 --target frames``; without --target, each target in turn."""

from __future__ import annotations

import argparse
import logging
import secrets
import time
import traceback

from tests.fuzz.fuzzing import TARGETS, Failed, fuzz, keep


def main() -> int:
    """Fuzz, print the results, and add failing inputs to the corpus; return 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, action="append", help="may be given several times")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same inputs")
    parser.add_argument("--keep", type=int, default=0, help="add this many inputs with rare endings to the corpus")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    # Targets check for logged errors themselves.
    logging.getLogger().addHandler(logging.NullHandler())
    failures = 0
    for name in arguments.target or TARGETS:
        seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
        began = time.monotonic()
        try:
            run = fuzz(name, seed, seconds=arguments.seconds)
        except Failed as failed:
            failures += 1
            traceback.print_exception(failed.__cause__)
            failed.path.parent.mkdir(parents=True, exist_ok=True)
            failed.path.write_bytes(failed.data)
            print(f"{failed}\nkept as {failed.path}")
            continue
        rate = run.executions / (time.monotonic() - began)
        keep(name, run, arguments.keep)
        print(f"{name}: {run.executions} inputs, {rate:.0f}/s, {len(run.endings)} endings, seed {seed}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
