"""Run Thespian's own test suite on the event-loop base and check its counts.

    python tests/thespian_suite/run.py [--parts 6] [--pickle]

Of its 356 tests for a system base, 277 pass. The suite itself skips the other 79: 75 need a convention of several actor
systems, two would send signals to the process of the tests, one is for Python 2, one takes too long on any base but the
simplest. The counts and the class of the base are checked, because a plugin without effect would silently test another
base.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

EXPECTED = {"passed": 277, "skipped": 79}
BASE = "raftkv.actors.system.base.eventloop.ActorSystemBase"
FOLDER = Path(__file__).resolve().parent


def start(directory: str, part: int, parts: int, pickled: bool, *arguments: str) -> subprocess.Popen[str]:
    """Start pytest on one part of the suite; it writes its report to ``directory``."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parent.parent)]),
        "SUITE_REPORT": f"{directory}/{part}.json",
        "SUITE_SHARD": f"{part}/{parts}",
        "SUITE_PICKLE": "1" if pickled else "",
    }
    # One of the tests reads the output of a Python process that must buffer it.
    environment.pop("PYTHONUNBUFFERED", None)
    pytest = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", directory, "-p", "no:cacheprovider"]
    suite = ["-p", "thespian_plugin", "-q", "--timeout", "100", "--pyargs", *(arguments or ["thespian.test"])]
    return subprocess.Popen(
        pytest + suite,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(parts: int, pickled: bool, *arguments: str) -> tuple[dict[str, int], list[str], str]:
    """Run the suite, or the part that ``arguments`` name, in ``parts`` processes; return outcomes, bases, output."""
    outcomes: Counter[str] = Counter()
    bases: set[str] = set()
    output = ""
    with tempfile.TemporaryDirectory() as directory:
        processes = [start(directory, part, parts, pickled, *arguments) for part in range(parts)]
        for part, process in enumerate(processes):
            output += process.communicate()[0]
            report = json.loads(Path(directory, f"{part}.json").read_text())
            outcomes.update(report["outcomes"])
            bases.update(report["bases"])
    return dict(outcomes), sorted(bases), output


def main() -> int:
    """Run the suite; return 0 if its counts are as expected."""
    parser = argparse.ArgumentParser(description="Run Thespian's own test suite on the event-loop base.")
    parser.add_argument("--parts", type=int, default=6, help="number of processes (the tests mostly wait)")
    parser.add_argument("--pickle", action="store_true", help="pickle every message")
    arguments = parser.parse_args()
    outcomes, bases, output = run(arguments.parts, arguments.pickle)
    if (outcomes, bases) == (EXPECTED, [BASE]):
        print(f"Thespian's suite on {BASE}: {outcomes['passed']} passed, {outcomes['skipped']} skipped, 0 failed")
        return 0
    print(output)
    print(f"expected {EXPECTED} on {[BASE]}, got {outcomes} on {bases}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
