"""The whole benchmark, once and briefly: a real cluster is started, loaded, has its leader killed, and is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.outage import Outage
from bench.throughput import Figures
from tests.support.processes import ROOT, free_ports

COMMAND = "--runs 1 --seconds 0.3 --warm-up 0.1 --only write-1-leader --elections 1 --starts 1 --json"


class Printed(msgspec.Struct):
    figures: list[Figures]
    elections: list[Outage]
    starts: list[Outage]


@pytest.mark.cluster
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to identify the file system")
def test_a_short_run_measures_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    arguments = [*COMMAND.split(), "--directory", str(tmp_path), "--base-port", str(free_ports(6))]
    done = subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True)
    if "in memory" in done.stderr:
        pytest.skip("the directory for temporary files is in memory")

    assert (done.returncode, done.stderr) == (0, "")
    printed = msgspec.json.decode(done.stdout.splitlines()[-1], type=Printed)
    assert [(figures.case, figures.errors) for figures in printed.figures] == [("write-1-leader", {})]
    assert printed.figures[0].answers > 0
    assert (len(printed.elections), len(printed.starts)) == (1, 1)
    assert os.listdir(tmp_path) == [".gitignore"]
