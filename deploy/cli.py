"""The command line of `python -m deploy`: clusters in containers on a Docker Engine, and faults for them."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from deploy import demo as tour
from deploy import image as images
from deploy import logs as merged
from deploy import measuring, shell
from deploy.bring_up import DEFAULT_NODES, HIGHEST_PORT, MOST_NODES
from deploy.cluster import Cluster
from deploy.engine import DeployError, UsageError, brief, connect
from deploy.faults import percent, read_groups
from deploy.interrupts import handle_as_interrupts, interrupted_later, uninterrupted
from deploy.lock import CommandLock
from deploy.names import DEFAULT_IMAGE, DEFAULT_NAME, HTTP_PORT
from deploy.node_http import HOST
from deploy.resources import is_free
from deploy.status import colour, overview

BAD_USAGE = 2
WATCH_S = 0.5
DEMO_NAME, MEASURE_NAME = "raftkv-demo", "raftkv-measure"

console = Console(highlight=False, soft_wrap=True)


def run(arguments: list[str]) -> int:
    """Run the command that ``arguments`` name and return the exit status; errors go to stderr."""
    handle_as_interrupts()
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal cannot show must not end the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = cli.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"deploy: {error.format_message()}", err=True)
        return BAD_USAGE
    except DeployError as error:
        click.echo(f"deploy: {error}", err=True)
        return BAD_USAGE if isinstance(error, UsageError) else 1
    except OSError as error:
        drop_output()
        click.echo(f"deploy: {brief(str(error))}", err=True)
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return int(status or 0)


def drop_output() -> None:
    """Discard output that could not be written; Python would try again at exit and print a traceback."""
    with open(os.devnull, "w") as nowhere, contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@click.group(invoke_without_command=True, context_settings={"max_content_width": 110})
@click.pass_context
def cli(context: click.Context) -> None:
    """Run clusters of raftkv in containers.

    A NODE is n1, n2 …, or leader, random-follower or all. Repeating a command is harmless.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


named = click.option("--name", default=DEFAULT_NAME, show_default=True, help="The name of the cluster.")
nodes_argument = click.argument("node", nargs=-1, required=True, metavar="NODE…")
node_argument = click.argument("node")


@contextlib.contextmanager
def cluster_of(name: str, **options: Any) -> Iterator[Cluster]:
    """Yield the cluster of this name, and close its connection to the engine afterwards."""
    cluster = Cluster(name=name, say=say, **options)
    try:
        yield cluster
    finally:
        cluster.close()


def say(line: str) -> None:
    """Print a line."""
    console.print(Text(line))


# --- Up, down and status.


def parse_image(context: click.Context, parameter: click.Parameter, image: str | None) -> str | None:
    """Return the name of an image if it is valid."""
    if image is not None:
        images.check_name(image)
    return image


@cli.command()
@click.option("--image", default=DEFAULT_IMAGE, show_default=True, callback=parse_image, help="The name to give it.")
def build(image: str) -> None:
    """Build the image from this checkout."""
    images.build(connect(), image, say)


def parse_settings(given: tuple[str, ...]) -> dict[str, str]:
    """Return settings given as NAME=VALUE."""
    settings: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{each!r} is not NAME=VALUE, such as log-level=debug")
        if settings.setdefault(name, value) != value:
            raise click.BadParameter(f"{name} is given twice, as {settings[name]!r} and {value!r}")
    return settings


@cli.command()
@named
@click.option(
    "--nodes",
    type=click.IntRange(1, MOST_NODES),
    help=f"The number of nodes.  [default: that of the existing cluster, else {DEFAULT_NODES}]",
)
@click.option(
    "--image",
    callback=parse_image,
    help=f"The image to run.  [default: that of the existing cluster, else {DEFAULT_IMAGE}, built if missing]",
)
@click.option(
    "--base-port",
    type=click.IntRange(1, HIGHEST_PORT),
    help=f"The port of n1 for clients, on 127.0.0.1; n2 has the next one, and so on.  [default: {HTTP_PORT}]",
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the nodes; may be repeated.")
def up(name: str, nodes: int | None, image: str | None, base_port: int | None, settings: tuple[str, ...]) -> None:
    """Create and start everything that does not run, and wait until each node is ready."""
    started_s = time.monotonic()
    options = {"nodes": nodes, "image": image, "settings": parse_settings(settings)}
    with cluster_of(name, base_port=base_port, **options) as cluster:
        cluster.up(default_port=HTTP_PORT)
        leader = cluster.leader()
        for node_id, port in cluster.ports.items():
            leads = "  (leader)" if node_id == leader else ""
            console.print(f"[{colour(node_id)}]{node_id}[/]  http://{HOST}:{port}{leads}")
    console.print(f"{name} is up, after {time.monotonic() - started_s:.1f} s.")


@cli.command()
@named
@click.option("--volumes", is_flag=True, help="Remove the data as well.")
def down(name: str, volumes: bool) -> None:
    """Remove the containers and networks of a cluster."""
    with cluster_of(name) as cluster:
        changed = cluster.down(volumes)
    if not changed:
        say(f"There is no cluster {name} here.")
    else:
        say(f"{name} is removed, with its data." if volumes else f"{name} is down; its data is kept for the next `up`.")


@cli.command()
@named
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
def status(name: str, watch: bool) -> None:
    """Show the state of each node, and the faults of the network."""
    with cluster_of(name) as cluster:

        def look() -> Any:
            return overview(cluster.views(), cluster.losses())

        if not watch:
            console.print(look())
            return
        with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
            while True:
                if console.is_terminal:
                    live.update(look(), refresh=True)
                else:
                    console.print(look())
                time.sleep(WATCH_S)


# --- Faults of nodes.


def on_nodes(name: str, targets: tuple[str, ...], act: str, done: str, otherwise: str) -> None:
    """Call the method ``act`` of the cluster with the nodes that ``targets`` name; print the result for each."""
    with cluster_of(name) as cluster:
        ids = list(dict.fromkeys(node_id for target in targets for node_id in cluster.resolve(target)))
        changed = getattr(cluster, act)(*ids)
    for node_id in ids:
        say(f"{node_id} {done if node_id in changed else otherwise}.")


def add_node_command(act: str, help_text: str, done: str, otherwise: str) -> None:
    """Add a command that changes the state of nodes."""

    @cli.command(act, help=help_text)
    @named
    @nodes_argument
    def command(name: str, node: tuple[str, ...]) -> None:
        on_nodes(name, node, act, done, otherwise)


add_node_command("start", "Start nodes, or unpause them.", "is started", "is already running")
add_node_command("stop", "Stop nodes with SIGTERM; a leader hands over first.", "is stopped", "is not running")
add_node_command("restart", "Stop nodes with SIGTERM, and start them.", "is restarted", "is already running")
add_node_command("kill", "Kill nodes with SIGKILL, all at once.", "is killed", "is not running")
add_node_command("pause", "Freeze nodes.", "is paused", "is not running, or is already paused")
add_node_command("unpause", "Let frozen nodes continue.", "is unpaused", "is not paused")


@cli.command()
@named
@click.option("--image", required=True, callback=parse_image, help="The new image.")
def upgrade(name: str, image: str) -> None:
    """Give the nodes another image, one at a time; each waits until the previous one has caught up."""
    with cluster_of(name) as cluster:
        changed = cluster.upgrade(image)
    say(f"Upgraded to {image}: {', '.join(changed)}." if changed else f"All nodes already run {image}.")


# --- Faults of the network.


@cli.command()
@named
@click.argument("groups")
def partition(name: str, groups: str) -> None:
    """Partition the network, as in n1,n2/n3: nodes communicate only within their group."""
    with cluster_of(name) as cluster:
        cluster.partition(*read_groups(groups, cluster.resolve("all")))
    say(f"The network is partitioned: {groups}. Clients still reach all nodes. `heal` undoes this.")


@cli.command()
@named
@node_argument
@click.option(
    "--one-way", type=click.Choice(["in", "out"]), help="in: it receives nothing; out: nothing it sends arrives."
)
def isolate(name: str, node: str, one_way: Any) -> None:
    """Cut a node off from the other nodes."""
    effect = {
        None: "is cut off from the other nodes",
        "in": "receives nothing from the other nodes",
        "out": "cannot reach the other nodes",
    }[one_way]
    with cluster_of(name) as cluster:
        for node_id in cluster.resolve(node):
            cluster.isolate(node_id, one_way)
            say(f"{node_id} {effect}. Clients still reach it. `heal` undoes this.")


def parse_loss(context: click.Context, parameter: click.Parameter, text: str) -> float:
    """Return the fraction that a text such as 30% or 0.3 means."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text)
    loss = float(match[1]) / (100 if match[2] else 1) if match else 2.0
    if loss >= 1:
        raise click.BadParameter(f"{text!r} is not a valid loss; give 0% to 99%, such as 30%", context, parameter)
    return loss


@cli.command()
@named
@node_argument
@click.option("--loss", required=True, callback=parse_loss, help="The share of packets to drop, such as 30%.")
def flaky(name: str, node: str, loss: float) -> None:
    """Drop packets between a node and the other nodes at random."""
    with cluster_of(name) as cluster:
        for node_id in cluster.resolve(node):
            cluster.flaky(node_id, loss)
            if loss:
                say(f"{node_id} loses {percent(loss)} of the packets to and from the other nodes. `heal` undoes this.")
            else:
                say(f"{node_id} no longer loses packets.")


@cli.command()
@named
def heal(name: str) -> None:
    """End all faults of the network."""
    with cluster_of(name) as cluster:
        changed = cluster.heal()
    say("The network is healed." if changed else "The network has no faults.")


# --- Logs and shell.


@cli.command()
@named
@click.option("-f", "--follow", is_flag=True, help="Continue with new lines until Ctrl-C.")
@click.option("--tail", type=click.IntRange(0), help="Show at most this many of the last lines of each node.")
def logs(name: str, follow: bool, tail: int | None) -> None:
    """Show the logs of all nodes, merged."""
    with cluster_of(name) as cluster:
        nodes = cluster.there()
        # Following needs the last line of each node, even for --tail 0.
        before = merged.so_far(cluster.client, nodes, max(tail, 1) if follow and tail is not None else tail)
        for line in before if tail != 0 else ():
            show(line)
        with contextlib.suppress(KeyboardInterrupt):
            for line in merged.follow(cluster.client, cluster.names, before) if follow else ():
                show(line)


def show(line: merged.Line) -> None:
    """Print a line of a node's log in the node's colour."""
    console.print(Text.assemble((f"{line.node_id:<4}", colour(line.node_id)), line.text))


@cli.command(name="shell", context_settings={"ignore_unknown_options": True})
@named
@node_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def shell_command(name: str, node: str, command: tuple[str, ...]) -> int:
    """Open a shell in a node's container, or run a command there."""
    with cluster_of(name) as cluster:
        ids = cluster.resolve(node)
        if len(ids) > 1:
            raise UsageError("`shell` takes one node, not all")
        found = cluster.found()[ids[0]]
        if not found.is_running:
            raise DeployError(f"{ids[0]} is not running (it is {found.state}); `start {ids[0]}` first")
        return shell.run(cluster.client, found.container_id, command or ("sh",))


# --- Demo and measurement.


imaged = click.option(
    "--image", default=DEFAULT_IMAGE, show_default=True, callback=parse_image, help="The image to run."
)


def parse_record(context: click.Context, parameter: click.Parameter, record: Path | None) -> Path | None:
    """Return the path of the picture if it can be written; checked before the tour, not after it."""
    if record is not None and record.is_dir():
        raise click.BadParameter(f"{record} is a directory", context, parameter)
    if record is not None and not os.access(record.parent, os.W_OK):
        raise click.BadParameter(f"{record.parent} is not writable", context, parameter)
    return record


def named_by_default(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that creates and removes its own cluster the option ``--name``."""
    return click.option("--name", default=default, show_default=True, help="The name of its cluster.")


@cli.command()
@named_by_default(DEMO_NAME)
@imaged
@click.option(
    "--record",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=parse_record,
    help="Also write the output as a picture (SVG).",
)
def demo(name: str, image: str, record: Path | None) -> None:
    """Show a guided tour on a cluster of its own, which is removed at the end."""
    screen = Console(record=record is not None, width=tour.WIDTH if record else None, highlight=False)
    # The ports in the README, if they are free.
    ports = range(HTTP_PORT, HTTP_PORT + DEFAULT_NODES)
    base_port = HTTP_PORT if all(map(is_free, ports)) else None
    with cluster_of(name, image=image, base_port=base_port) as cluster, cluster.lock:
        remove_leftovers(cluster, DEMO_NAME)
        with removed_at_the_end(cluster):
            tour.Demo(cluster, screen).run()
    if record is not None:
        tour.save_svg(screen, record, "python -m deploy demo")
        say(f"The picture is in {record}.")


@contextlib.contextmanager
def removed_at_the_end(cluster: Cluster) -> Iterator[None]:
    """Remove a cluster with its data, however the context ends."""
    try:
        yield
    except BaseException as error:
        with uninterrupted():
            if isinstance(error, KeyboardInterrupt):
                with contextlib.suppress(OSError):
                    say(f"interrupted; removing {cluster.name}")
            cluster.down(volumes=True)
        raise
    with interrupted_later():
        cluster.down(volumes=True)


def remove_leftovers(cluster: Cluster, own_name: str) -> None:
    """Remove what an earlier run has left under the command's own name.

    Raises ``UsageError`` if a cluster of another name exists: the user may need it.
    """
    if cluster.name == own_name:
        cluster.down(volumes=True)
    elif cluster.resources:
        raise UsageError(f"the cluster {cluster.name} exists, and this command would remove it; give another --name")


@cli.command()
@named_by_default(MEASURE_NAME)
@imaged
@click.option("--ups", type=click.IntRange(1), default=3, show_default=True, help="How often to bring a cluster up.")
@click.option("--kills", type=click.IntRange(1), default=9, show_default=True, help="How often to kill the leader.")
def measure(name: str, image: str, ups: int, kills: int) -> None:
    """Measure how fast a cluster comes up and elects a leader, on a cluster that is removed at the end."""

    def say_on_stderr(line: str) -> None:
        click.echo(line, err=True)

    with CommandLock(f"a measurement with {name}", say_on_stderr):
        with cluster_of(name) as left:
            remove_leftovers(left, MEASURE_NAME)
        figures = measuring.measure(lambda: Cluster(DEFAULT_NODES, name=name, image=image), ups, kills, say_on_stderr)
    click.echo(measuring.HEADING)
    for figure in figures:
        click.echo(figure.line())
