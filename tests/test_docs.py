"""What README, CONTRIBUTING and CHANGELOG say must be so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest

from raftkv import __version__
from raftkv.cli import cli
from raftkv.config.settings import OPTIONS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def requirements() -> dict[str, str]:
    """Return the requirements by name."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return by_name([line for line in lines if line and not line.startswith("#")])


def by_name(lines: list[str]) -> dict[str, str]:
    return {re.split(r"[<>=~!]", line)[0]: line for line in lines}


def table(text: str, heading: str) -> list[list[str]]:
    """Return the rows of the table whose first cell is ``heading``."""
    rows = text[text.index(f"\n| {heading} |") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_requirements_are_what_the_package_and_its_extras_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    asked = by_name([*project["dependencies"], *(line for extra in extras.values() for line in extra)])

    assert requirements() == asked


def test_each_dependency_has_a_reason() -> None:
    named = {name for row in table(CONTRIBUTING, "dependency") for name in row[0].split(", ")}

    assert named == set(requirements())
    assert all(len(row[1]) > 5 for row in table(CONTRIBUTING, "dependency"))


def test_each_dependency_is_used() -> None:
    """One that nobody imports only costs whoever installs it."""
    modules = {"google-crc32c": "google_crc32c"}
    tools = {"pytest", "pytest-timeout", "hypothesis", "coverage", "ruff", "mypy", "import-linter", "setuptools"}
    folders = ("raftkv", "actors", "http", "deploy")
    sources = [path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")]

    unused = {
        name
        for name in set(requirements()) - tools
        if not any(re.search(rf"^\s*(?:import|from) {modules.get(name, name)}\b", text, re.M) for text in sources)
    }

    assert unused == set()


def test_the_table_of_settings_is_complete_and_right() -> None:
    assert table(README, "setting") == [
        [f"`{option.name}`", "–" if option.default is None else f"`{option.default}`", option.help]
        for option in OPTIONS
    ]


def test_the_commands_that_are_shown_exist() -> None:
    shown = {found.replace(" ", "") for found in re.findall(r"\bmake ([a-z]+)\b", README + CONTRIBUTING)} - {"it"}
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))

    assert {"run", "test", "check", "fix"} <= shown <= targets
    assert set(re.findall(r"python -m raftkv ([a-z]+)", README)) <= set(cli.commands)


def test_the_example_of_a_node_can_be_started_so() -> None:
    example = re.search(r"python -m raftkv serve (--id.*?)\n\n", README, re.S)
    assert example is not None
    serve = cli.commands["serve"]

    with click.Context(serve) as context:
        arguments = example[1].replace("\\\n", " ").split()
        serve.parse_args(context, arguments)

    given = {name for name, value in context.params.items() if value is not None}
    assert given == {"id", "http", "raft", "data_dir", "cluster", "cluster_secret_file"}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_files_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    paths = re.findall(r"`((?:raftkv|actors|http|tests|docs)/[\w/]+\.py)`", text)

    assert [path for path in links + paths if not (ROOT / path).exists()] == []


def test_the_changelog_begins_with_what_is_not_released_or_with_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)

    assert headings[0] in ("Unreleased", __version__)


def test_every_target_of_make_says_what_it_does() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))

    assert set(re.findall(r"^([a-z]+):.*## \S", MAKEFILE, re.M)) == targets
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.M)
    assert phony is not None
    assert set(phony[1].split()) == targets
