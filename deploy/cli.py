"""The command line: clusters in containers on a Docker Engine, from `up` to `down`, and what can go wrong between."""

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
from deploy.alone import Alone
from deploy.asking import HOST
from deploy.cluster import DEFAULT_NODES, HIGHEST_PORT, MOST_NODES, Cluster
from deploy.engine import DeployError, UsageError, brief, connect
from deploy.faults import percent, read_groups
from deploy.interrupts import end_all_alike, interrupted_later, uninterrupted
from deploy.making import is_free
from deploy.names import DEFAULT_IMAGE, DEFAULT_NAME, HTTP_PORT
from deploy.status import colour, whole

BAD_USAGE = 2
WATCH_S = 0.5
DEMO_NAME, MEASURE_NAME = "raftkv-demo", "raftkv-measure"

console = Console(highlight=False, soft_wrap=True)


def run(arguments: list[str]) -> int:
    """Run the command that ``arguments`` name and return the exit status; complaints go to stderr."""
    end_all_alike()
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show is no reason to end.
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
    """Let what could not be written be lost; Python would try again when it ends, and complain in its own words."""
    with open(os.devnull, "w") as nowhere, contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@click.group(invoke_without_command=True, context_settings={"max_content_width": 110})
@click.pass_context
def cli(context: click.Context) -> None:
    """Run clusters of raftkv in containers.

    A NODE is n1, n2 …, or leader, random-follower or all. Whatever is done already is not done again.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


named = click.option("--name", default=DEFAULT_NAME, show_default=True, help="Which cluster.")
nodes_argument = click.argument("node", nargs=-1, required=True, metavar="NODE…")
node_argument = click.argument("node")


@contextlib.contextmanager
def cluster_of(name: str, **options: Any) -> Iterator[Cluster]:
    """Return the cluster of this name, for as long as a command takes."""
    cluster = Cluster(name=name, say=say, **options)
    try:
        yield cluster
    finally:
        cluster.close()


def say(line: str) -> None:
    """Tell what is being done."""
    console.print(Text(line))


# --- Up, down, and how it is.


def parse_image(context: click.Context, parameter: click.Parameter, image: str | None) -> str | None:
    """Return the name of an image, if it can be one."""
    if image is not None:
        images.check_name(image)
    return image


@cli.command()
@click.option("--image", default=DEFAULT_IMAGE, show_default=True, callback=parse_image, help="What to call it.")
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
            raise click.BadParameter(f"{name} cannot be both {settings[name]!r} and {value!r}")
    return settings


@cli.command()
@named
@click.option(
    "--nodes", type=click.IntRange(1, MOST_NODES), help=f"How many.  [default: as it has, else {DEFAULT_NODES}]"
)
@click.option(
    "--image",
    callback=parse_image,
    help=f"What to run.  [default: as it has, else {DEFAULT_IMAGE}, which is built if missing]",
)
@click.option(
    "--base-port",
    type=click.IntRange(1, HIGHEST_PORT),
    help=f"n1 serves clients at this port of 127.0.0.1, n2 at the next, and so on.  [default: {HTTP_PORT}]",
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the nodes; may be repeated.")
def up(name: str, nodes: int | None, image: str | None, base_port: int | None, settings: tuple[str, ...]) -> None:
    """Make and start what does not run yet, and wait until each node can serve."""
    began_s = time.monotonic()
    options = {"nodes": nodes, "image": image, "settings": parse_settings(settings)}
    with cluster_of(name, base_port=base_port, **options) as cluster:
        cluster.up(default_port=HTTP_PORT)
        leader = cluster.leader()
        for node_id, port in cluster.ports.items():
            leads = "  (leader)" if node_id == leader else ""
            console.print(f"[{colour(node_id)}]{node_id}[/]  http://{HOST}:{port}{leads}")
    console.print(f"{name} is up, after {time.monotonic() - began_s:.1f} s.")


@cli.command()
@named
@click.option("--volumes", is_flag=True, help="Remove the data as well.")
def down(name: str, volumes: bool) -> None:
    """Remove the containers and networks of a cluster, and nothing of anybody else."""
    with cluster_of(name) as cluster:
        changed = cluster.down(volumes)
    if not changed:
        say(f"There is nothing of {name} here.")
    else:
        say(f"{name} is removed, with its data." if volumes else f"{name} is down; `up` goes on with its data.")


@cli.command()
@named
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")
def status(name: str, watch: bool) -> None:
    """Show what the nodes are and do."""
    with cluster_of(name) as cluster:

        def look() -> Any:
            return whole(cluster.views(), cluster.losses())

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


# --- What can happen to nodes.


def on_nodes(name: str, targets: tuple[str, ...], act: str, done: str, otherwise: str) -> None:
    """Do what the method ``act`` does to the nodes that are meant, and say for each what came of it."""
    with cluster_of(name) as cluster:
        ids = list(dict.fromkeys(node_id for target in targets for node_id in cluster.resolve(target)))
        changed = getattr(cluster, act)(*ids)
    for node_id in ids:
        say(f"{node_id} {done if node_id in changed else otherwise}.")


def add_node_command(act: str, help_text: str, done: str, otherwise: str) -> None:
    """Add a command that does something to nodes."""

    @cli.command(act, help=help_text)
    @named
    @nodes_argument
    def command(name: str, node: tuple[str, ...]) -> None:
        on_nodes(name, node, act, done, otherwise)


add_node_command("start", "Start nodes, or let paused ones go on.", "is started", "runs already")
add_node_command("stop", "Stop nodes in order: a leader hands over first.", "is stopped", "does not run")
add_node_command("restart", "Stop nodes in order, and start them again.", "is started again", "runs already")
add_node_command("kill", "Kill nodes, as a power cut does; all at the same moment.", "is killed", "does not run")
add_node_command("pause", "Freeze nodes where they are.", "is paused", "does not run, or is paused already")
add_node_command("unpause", "Let paused nodes go on.", "goes on", "is not paused")


@cli.command()
@named
@click.option("--image", required=True, callback=parse_image, help="What all nodes are to run.")
def upgrade(name: str, image: str) -> None:
    """Give the nodes another image, one after the other, each when the one before has caught up."""
    with cluster_of(name) as cluster:
        changed = cluster.upgrade(image)
    say(f"{', '.join(changed)} run {image} now." if changed else f"All nodes run {image} already.")


# --- What can happen between nodes.


@cli.command()
@named
@click.argument("groups")
def partition(name: str, groups: str) -> None:
    """Cut the network into groups, as in n1,n2/n3: only nodes of the same group hear of each other."""
    with cluster_of(name) as cluster:
        cluster.partition(*read_groups(groups, cluster.resolve("all")))
    say(f"The network is cut: {groups}. Clients still reach all nodes; `heal` ends it.")


@cli.command()
@named
@node_argument
@click.option("--one-way", type=click.Choice(["in", "out"]), help="in: it hears nobody; out: nobody hears it.")
def isolate(name: str, node: str, one_way: Any) -> None:
    """Cut a node off from the others."""
    words = {None: "is cut off from the others", "in": "hears nobody", "out": "is heard by nobody"}[one_way]
    with cluster_of(name) as cluster:
        for node_id in cluster.resolve(node):
            cluster.isolate(node_id, one_way)
            say(f"{node_id} {words}. Clients still reach it; `heal` ends it.")


def parse_loss(context: click.Context, parameter: click.Parameter, text: str) -> float:
    """Return the part that is lost, of a text such as 30% or 0.3."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text)
    loss = float(match[1]) / (100 if match[2] else 1) if match else 2.0
    if loss >= 1:
        raise click.BadParameter(f"{text!r} is no loss; give 0% to 99%, such as 30%", context, parameter)
    return loss


@cli.command()
@named
@node_argument
@click.option("--loss", required=True, callback=parse_loss, help="The part of all packets that is lost, such as 30%.")
def flaky(name: str, node: str, loss: float) -> None:
    """Let packets between a node and the others be lost."""
    with cluster_of(name) as cluster:
        for node_id in cluster.resolve(node):
            cluster.flaky(node_id, loss)
            if loss:
                say(f"{node_id} loses {percent(loss)} of all packets to and from the others; `heal` ends it.")
            else:
                say(f"{node_id} loses nothing any more.")


@cli.command()
@named
def heal(name: str) -> None:
    """Let everything through again."""
    with cluster_of(name) as cluster:
        changed = cluster.heal()
    say("The network is whole again." if changed else "The network is whole.")


# --- Looking inside.


@cli.command()
@named
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--tail", type=click.IntRange(0), help="Only so many of the last lines of each node.")
def logs(name: str, follow: bool, tail: int | None) -> None:
    """Show the logs of all nodes as one."""
    with cluster_of(name) as cluster:
        nodes = cluster.there()
        # To go on, one must know where.
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
            raise UsageError("a shell is in one node")
        found = cluster.found()[ids[0]]
        if not found.runs:
            raise DeployError(f"{ids[0]} does not run (it is {found.state}); `start {ids[0]}` first")
        return shell.run(cluster.client, found.container, command or ("sh",))


# --- To be shown, and measured.


imaged = click.option("--image", default=DEFAULT_IMAGE, show_default=True, callback=parse_image, help="What to run.")


def parse_record(context: click.Context, parameter: click.Parameter, record: Path | None) -> Path | None:
    """Return where to write the picture, if something can be written there; asked before the tour, not after it."""
    if record is not None and record.is_dir():
        raise click.BadParameter(f"{record} is a directory", context, parameter)
    if record is not None and not os.access(record.parent, os.W_OK):
        raise click.BadParameter(f"nothing can be written in {record.parent}", context, parameter)
    return record


def named_by_default(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a cluster that it makes and removes."""
    return click.option("--name", default=default, show_default=True, help="What to call its cluster.")


@cli.command()
@named_by_default(DEMO_NAME)
@imaged
@click.option(
    "--record",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=parse_record,
    help="Write it as a picture (SVG) as well.",
)
def demo(name: str, image: str, record: Path | None) -> None:
    """Take a guided tour with a cluster of its own, which is removed in the end."""
    screen = Console(record=record is not None, width=tour.WIDTH if record else None, highlight=False)
    # Where the README has them, if they are free.
    ports = range(HTTP_PORT, HTTP_PORT + DEFAULT_NODES)
    base_port = HTTP_PORT if all(map(is_free, ports)) else None
    with cluster_of(name, image=image, base_port=base_port) as cluster, cluster.alone:
        make_room(cluster, DEMO_NAME)
        with removed_in_the_end(cluster):
            tour.Demo(cluster, screen).run()
    if record is not None:
        tour.save_svg(screen, record, "python -m deploy demo")
        say(f"The picture is {record}.")


@contextlib.contextmanager
def removed_in_the_end(cluster: Cluster) -> Iterator[None]:
    """Leave nothing of a cluster, however this ends."""
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


def make_room(cluster: Cluster, own_name: str) -> None:
    """Remove what is left of an earlier cluster, of the name that is only for that; raises ``UsageError`` for others.

    They may be dear to somebody.
    """
    if cluster.name == own_name:
        cluster.down(volumes=True)
    elif cluster.parts:
        raise UsageError(f"there is something of {cluster.name} already, and this would remove it; give another --name")


@cli.command()
@named_by_default(MEASURE_NAME)
@imaged
@click.option("--ups", type=click.IntRange(1), default=3, show_default=True, help="How often to bring a cluster up.")
@click.option("--kills", type=click.IntRange(1), default=9, show_default=True, help="How often to kill the leader.")
def measure(name: str, image: str, ups: int, kills: int) -> None:
    """Measure how fast a cluster comes up, and how fast it elects, with one that is removed in the end."""

    def tell(line: str) -> None:
        click.echo(line, err=True)

    with Alone(f"a measurement with {name}", tell):
        with cluster_of(name) as left:
            make_room(left, MEASURE_NAME)
        figures = measuring.measure(lambda: Cluster(DEFAULT_NODES, name=name, image=image), ups, kills, tell)
    click.echo(measuring.HEADING)
    for figure in figures:
        click.echo(figure.line())
