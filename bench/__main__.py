"""The command line: ``python -m bench`` measures this checkout, ``python -m bench compare`` another one in turns."""

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
from bench.options import BenchOptions
from bench.outage import Outage, measure_election, measure_start
from bench.report import comparison_table, figures_table, outages_table
from bench.stalled import BASES, Stall, Times, faults, in_own_network, measure_stall, stalls_table
from bench.throughput import CASES, Figures, fill, measure


def common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``BenchOptions``."""
    names = click.Choice([case.name for case in CASES])
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Also print all figures of all runs as one line of JSON."),
        click.option("--base-port", default=4201, show_default=True, help="The first of six consecutive ports."),
        click.option(
            "--directory",
            type=click.Path(path_type=Path, file_okay=False),
            default=ROOT / ".raftkv-bench",
            show_default=".raftkv-bench",
            help="Where the nodes keep their data; must be on a real disk.",
        ),
        click.option("--only", multiple=True, type=names, help="Measure only this case; may be repeated."),
        click.option("--warm-up", default=1.0, show_default=True, help="Seconds of load before each measurement."),
        click.option("--seconds", default=5.0, show_default=True, help="Seconds of each measurement."),
        click.option("--runs", default=3, show_default=True, help="The number of runs, each on a new cluster."),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@common_options
@click.option("--elections", default=20, show_default=True, help="How often to kill the leader.")
@click.option("--starts", default=5, show_default=True, help="How often to start three empty nodes.")
@click.pass_context
def cli(context: click.Context, /, elections: int, starts: int, **given: Any) -> None:
    """Measure throughput and latency of three nodes on this machine, and how long they cannot serve after a kill."""
    if context.invoked_subcommand is not None:
        return
    options = BenchOptions(**given)
    with prepared(options) as machine:
        figures: list[Figures] = []
        for run in range(options.runs):
            with new_cluster(options.directory, options.base_port) as cluster:
                fill(cluster)
                for case in options.cases:
                    progress(f"run {run + 1} of {options.runs}: {case.name}")
                    figures.append(measure(cluster, case, options.seconds, options.warm_up))
        elected: list[Outage] = []
        if elections:
            with new_cluster(options.directory, options.base_port) as cluster:
                for number in range(elections):
                    progress(f"election {number + 1} of {elections}")
                    elected.append(measure_election(cluster))
        started: list[Outage] = []
        for number in range(starts):
            progress(f"start {number + 1} of {starts}")
            started.append(measure_start(options.directory, options.base_port))
    if figures:
        click.echo(figures_table(figures) + "\n")
    if elected or started:
        click.echo(outages_table({"after kill -9 of the leader": elected, "after the first start": started}) + "\n")
    print_json(
        options.as_json, machine, options.parameters | {"figures": figures, "elections": elected, "starts": started}
    )


@cli.command()
@common_options
@click.option("--against", required=True, metavar="REV", help="A git revision, or the directory of another checkout.")
def compare(against: str, **given: Any) -> None:
    """Measure this checkout, with its uncommitted changes, and another version in turns."""
    options = BenchOptions(**given)
    ours: list[Figures] = []
    theirs: list[Figures] = []
    with prepared(options) as machine, checkout(against, options.directory) as other:
        for number in range(options.runs):
            progress(f"round {number + 1} of {options.runs}")
            here, there = compare_round(number, (ROOT, other), options)
            ours += here
            theirs += there
    click.echo(comparison_table(ours, theirs, against) + "\n")
    print_json(options.as_json, machine, options.parameters | {"against": against, "here": ours, "there": theirs})


@cli.command()
@click.option("--rounds", default=5, show_default=True, help="How often to inject each fault.")
@click.option("--seconds", default=30.0, show_default=True, help="How long each fault lasts.")
@click.option("--around", default=15.0, show_default=True, help="Seconds to measure before and after each fault.")
@click.option("--json", "as_json", is_flag=True, help="Also print all figures as one line of JSON.")
@click.option("--base-port", default=4301, show_default=True, help="The first of three consecutive ports.")
@click.option("--only", multiple=True, type=click.Choice(BASES), help="Measure only this base; may be repeated.")
def stalled(only: tuple[str, ...], rounds: int, seconds: float, around: float, as_json: bool, base_port: int) -> None:
    """Measure the effect of a stopped or unreachable peer on a healthy one, with our base and with Thespian's."""
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
def prepared(options: BenchOptions) -> Iterator[MachineInfo]:
    """Create the directory and print the revision, the time and the machine."""
    options.directory.mkdir(parents=True, exist_ok=True)
    # Git must ignore what a crash leaves here.
    (options.directory / ".gitignore").write_text("*\n")
    machine = describe(options.directory)
    click.echo(f"{revision()}, {datetime.datetime.now():%Y-%m-%d %H:%M}, {options.runs} runs of {options.seconds:g} s")
    click.echo(f"{machine}\n")
    yield machine


def revision() -> str:
    """Return the revision as git describes it; ``dirty`` means that there are uncommitted changes."""
    command = ["git", "describe", "--always", "--dirty=, dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown revision"


def progress(text: str) -> None:
    """Show the current step if stderr is a terminal."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text} …", err=True, nl=False)


def print_json(as_json: bool, machine: MachineInfo, found: dict[str, object]) -> None:
    """Print everything as one line of JSON, if ``as_json``."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    if as_json:
        document = {
            "revision": revision(),
            "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": machine,
            **found,
        }
        click.echo(msgspec.json.encode(document).decode())


def main() -> int:
    """Run the command line and return the exit status; an error is one line on stderr."""
    # Handled like Ctrl-C, so that nodes are stopped and their data is removed.
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
