"""The command line: ``python -m bench`` measures this checkout, ``python -m bench compare`` another one beside it."""

from __future__ import annotations

import contextlib
import datetime
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from bench.cluster import ROOT, new_cluster
from bench.compare import checkout, compare_round
from bench.machine import BenchError, MachineInfo, describe
from bench.outage import Outage, measure_election, measure_start
from bench.report import comparison_table, figures_table, outages_table
from bench.stalled import BASES, Stall, Times, faults, in_own_network, measure_stall, stalls_table
from bench.throughput import CASES, Case, Figures, fill, measure


class Asked(msgspec.Struct, frozen=True):
    """What both commands are told."""

    runs: int
    seconds: float
    warm_up: float
    only: tuple[str, ...]
    directory: Path
    base_port: int
    as_json: bool

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases to measure."""
        return tuple(case for case in CASES if not self.only or case.name in self.only)

    @property
    def told(self) -> dict[str, object]:
        """What of it the figures depend on."""
        return {"seconds": self.seconds}


def common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``Asked``."""
    names = click.Choice([case.name for case in CASES])
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print all figures of all runs as one line at the end."),
        click.option("--base-port", default=4201, show_default=True, help="First of the six that are used."),
        click.option(
            "--directory",
            type=click.Path(path_type=Path, file_okay=False),
            default=ROOT / ".raftkv-bench",
            show_default=".raftkv-bench",
            help="Where the nodes keep their data meanwhile; on a real disk.",
        ),
        click.option("--only", multiple=True, type=names, help="Measure this case only; may be given again."),
        click.option("--warm-up", default=1.0, show_default=True, help="Seconds before each measurement."),
        click.option("--seconds", default=5.0, show_default=True, help="Seconds of each measurement."),
        click.option("--runs", default=3, show_default=True, help="How often all is measured, each with new data."),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@common_options
@click.option("--elections", default=20, show_default=True, help="How often the leader is killed.")
@click.option("--starts", default=5, show_default=True, help="How often three empty nodes are started.")
@click.pass_context
def cli(context: click.Context, /, elections: int, starts: int, **options: Any) -> None:
    """Measure the throughput and latency of three nodes on this machine, and the times without a leader."""
    if context.invoked_subcommand is not None:
        return
    asked = Asked(**options)
    with prepared(asked) as machine:
        figures: list[Figures] = []
        for run in range(asked.runs):
            with new_cluster(asked.directory, asked.base_port) as cluster:
                fill(cluster)
                for case in asked.cases:
                    progress(f"run {run + 1} of {asked.runs}: {case.name}")
                    figures.append(measure(cluster, case, asked.seconds, asked.warm_up))
        elected: list[Outage] = []
        if elections:
            with new_cluster(asked.directory, asked.base_port) as cluster:
                for number in range(elections):
                    progress(f"election {number + 1} of {elections}")
                    elected.append(measure_election(cluster))
        started: list[Outage] = []
        for number in range(starts):
            progress(f"start {number + 1} of {starts}")
            started.append(measure_start(asked.directory, asked.base_port))
    if figures:
        click.echo(figures_table(figures) + "\n")
    if elected or started:
        click.echo(outages_table({"after kill -9 of the leader": elected, "after the first start": started}) + "\n")
    print_json(asked.as_json, machine, asked.told | {"figures": figures, "elections": elected, "starts": started})


@cli.command()
@common_options
@click.option("--against", required=True, metavar="REV", help="A revision, or the directory of another checkout.")
def compare(against: str, **options: Any) -> None:
    """Measure this checkout, as it is now, and another version in turns."""
    asked = Asked(**options)
    ours: list[Figures] = []
    theirs: list[Figures] = []
    with prepared(asked) as machine, checkout(against, asked.directory) as other:
        for number in range(asked.runs):
            progress(f"round {number + 1} of {asked.runs}")
            both = compare_round(
                number, (ROOT, other), asked.cases, asked.directory, asked.base_port, asked.seconds, asked.warm_up
            )
            ours += both[0]
            theirs += both[1]
    click.echo(comparison_table(ours, theirs, against) + "\n")
    print_json(asked.as_json, machine, asked.told | {"against": against, "here": ours, "there": theirs})


@cli.command()
@click.option("--rounds", default=5, show_default=True, help="How often each fault is made.")
@click.option("--seconds", default=30.0, show_default=True, help="How long each lasts.")
@click.option("--around", default=15.0, show_default=True, help="Seconds that are measured before and after it.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as one line at the end.")
@click.option("--base-port", default=4301, show_default=True, help="First of the three that are used.")
@click.option("--only", multiple=True, type=click.Choice(BASES), help="Measure this one only; may be given again.")
def stalled(only: tuple[str, ...], rounds: int, seconds: float, around: float, as_json: bool, base_port: int) -> None:
    """Measure what a peer that is stopped, or cut off, costs the others: with our base and with Thespian's."""
    in_own_network(["-m", "bench", *sys.argv[1:]])
    stalls: list[Stall] = []
    with tempfile.TemporaryDirectory(dir=ROOT) as directory:
        machine = describe(Path(directory))
    click.echo(f"{revision()}, {datetime.datetime.now():%Y-%m-%d %H:%M}, {rounds} rounds of {seconds:g} s")
    click.echo(f"{machine}\n")
    for number in range(rounds):
        for base in only or BASES:
            for fault in faults():
                progress(f"round {number + 1} of {rounds}: {fault}, {base}")
                stalls.append(measure_stall(base, fault, Times(seconds, around), base_port))
    click.echo(stalls_table(stalls) + "\n")
    print_json(as_json, machine, {"seconds": seconds, "around": around, "stalls": stalls})


@contextlib.contextmanager
def prepared(asked: Asked) -> Iterator[MachineInfo]:
    """Make the directory and say what is measured, and on what."""
    asked.directory.mkdir(parents=True, exist_ok=True)
    # Whatever a crash leaves here is nothing for the repository.
    (asked.directory / ".gitignore").write_text("*\n")
    machine = describe(asked.directory)
    click.echo(f"{revision()}, {datetime.datetime.now():%Y-%m-%d %H:%M}, {asked.runs} runs of {asked.seconds:g} s")
    click.echo(f"{machine}\n")
    yield machine


def revision() -> str:
    """Return what is measured, as git names it; ``dirty`` means that there are changes nobody has committed."""
    command = ["git", "describe", "--always", "--dirty=, dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown revision"


def progress(text: str) -> None:
    """Tell somebody who watches what is going on."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text} …", err=True, nl=False)


def print_json(as_json: bool, machine: MachineInfo, found: dict[str, object]) -> None:
    """Print everything in one line, if that is wanted."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    if as_json:
        told = {
            "revision": revision(),
            "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": machine,
            **found,
        }
        click.echo(msgspec.json.encode(told).decode())


def main() -> int:
    """Run the command line; what can't be measured is told in one line."""
    # So that nodes are stopped and their data is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli.main(prog_name="python -m bench", standalone_mode=False)
    except (BenchError, click.ClickException) as error:
        click.echo(f"bench: {error.format_message() if isinstance(error, click.ClickException) else error}", err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
