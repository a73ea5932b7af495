"""What README, CONTRIBUTING, CHANGELOG and the pages of `docs/` say is so."""

from __future__ import annotations

import re
import subprocess
import textwrap
import tomllib
from pathlib import Path

import click
import pytest
from click.core import ParameterSource

from raftkv import __version__, exit_status
from raftkv.cli import cli, run
from raftkv.config.settings import OPTIONS
from tests.support.settings import settings_of_node

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
RUNNING = (ROOT / "docs" / "running.md").read_text()
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
]
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
    """The rows follow from the table in the code: a failure shows those to put into the page."""
    rows = [
        f"| `{option.name}` | {'–' if option.default is None else f'`{option.default}`'} | {option.help} |"
        for option in OPTIONS
    ]

    assert "| setting | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n\n" in CONFIGURATION, "\n".join(
        rows
    )


def test_every_exit_status_is_explained() -> None:
    used = {status for name, status in vars(exit_status).items() if name.startswith("EXIT_")}

    assert {int(row[0]) for row in table(CONFIGURATION, "status")} == used | {0}


def test_the_example_of_a_settings_file_starts_a_node(tmp_path: Path) -> None:
    example = re.search(r"\n## A file\n\n((?:    .*\n|\n)+)", CONFIGURATION)
    assert example is not None
    secret = tmp_path / "secret"
    create = re.search(r"^    (\(umask .*\))$", CONFIGURATION, re.M)
    assert create is not None
    subprocess.run(create[1], shell=True, check=True, cwd=tmp_path)
    assert secret.stat().st_mode & 0o777 == 0o600
    file = tmp_path / "node.toml"
    file.write_text(textwrap.dedent(example[1]).replace("/etc/raftkv/secret", str(secret)))

    settings, warnings = settings_of_node({}, {}, str(file))

    assert (settings.id, settings.limits.value_bytes, settings.timing.heartbeat_ms) == ("n1", 256 << 10, 100)
    assert [node_id for node_id, _ in settings.cluster] == ["n1", "n2", "n3"]
    assert warnings == []


def test_help_tells_how_a_secret_is_made_as_the_page_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--help"]) == 0

    assert "(umask 077; head -c 32 /dev/urandom | base64 > secret)" in " ".join(capsys.readouterr().out.split())
    assert "    (umask 077; head -c 32 /dev/urandom | base64 > secret)\n" in CONFIGURATION


def test_the_commands_that_are_shown_exist() -> None:
    shown = set(re.findall(r"\bmake ([a-z]+)\b", README + CONTRIBUTING)) - {"it"}
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))
    ours = set(re.findall(r"(?:-m raftkv|^ *raftkv|`raftkv) ([a-z]+)", README + RUNNING, re.M))

    assert {"run", "test", "check", "fix"} <= shown <= targets
    assert ours == {"serve", "local", "simulate"} == set(cli.commands)


@pytest.mark.parametrize("page", ["README.md", "docs/running.md"])
def test_the_example_of_a_node_can_be_started_so(page: str) -> None:
    example = re.search(r"raftkv serve (--id (?:.+\\\n)*.+)", (ROOT / page).read_text())
    assert example is not None
    serve = cli.commands["serve"]

    with click.Context(serve) as context:
        arguments = example[1].replace("\\\n", " ").replace("$i", "1").removesuffix(" &").split()
        serve.parse_args(context, arguments)

    given = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    assert given == {"id", "http", "raft", "data_dir", "cluster", "cluster_secret_file"}


@pytest.mark.parametrize("name", PAGES)
def test_files_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    paths = re.findall(r"`((?:raftkv|actors|http|tests|docs)/[\w/]+\.py)`", text)
    folder = (ROOT / name).parent

    assert [link for link in links if not (folder / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_headings_that_are_linked_exist(name: str) -> None:
    """A heading's anchor is its words in lower case, without punctuation, joined by hyphens."""
    folder = (ROOT / name).parent
    links = re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", (ROOT / name).read_text())

    missing = [
        f"{page}#{anchor}" for page, anchor in links if anchor not in anchors(folder / page if page else ROOT / name)
    ]

    assert missing == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_links_to_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}

    assert pages == set(re.findall(r"\]\(([^)/]+\.md)\)", index))
    assert re.findall(r"^\*\*(\w+)\*\*$", index, re.M) == ["Start", "Concepts", "Coding", "Operating", "Reference"]


def test_the_readme_shows_no_picture_from_this_checkout() -> None:
    """On a package index such a picture would be missing."""
    assert re.findall(r"!\[.*?\]\((?!https:)", README) == []
    assert "```mermaid" not in README


def test_the_changelog_begins_with_what_is_not_released_or_with_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)

    assert headings[0] in ("Unreleased", __version__)


def test_every_target_of_make_says_what_it_does() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))

    assert set(re.findall(r"^([a-z]+):.*## \S", MAKEFILE, re.M)) == targets
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.M)
    assert phony is not None
    assert set(phony[1].split()) == targets


def figures(text: str) -> list[int]:
    """Return the whole numbers in a text; a comma separates thousands."""
    return [int(found.replace(",", "")) for found in re.findall(r"\d+(?:,\d{3})*", text)]


def rows_after(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the table whose heading contains ``heading``."""
    text = (ROOT / page).read_text()
    lines = text[text.index(heading) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_readme_counts_the_simulated_runs_of_the_ledger() -> None:
    claimed = re.search(r"More than ([\d,]+) whole clusters", README)
    assert claimed is not None

    runs = sum(figures(row[3])[0] for row in rows_after("docs/simulation-ledger.md", "| date | build |"))

    assert figures(claimed[1])[0] <= runs < figures(claimed[1])[0] + 1000


def test_the_readme_counts_the_rounds_of_kill_9_as_the_guarantees_do() -> None:
    claimed = re.search(r"^- \*\*kill -9\.\*\* (.+?)\n- ", README, re.S | re.M)
    assert claimed is not None
    rows = rows_after("docs/guarantees.md", "| rounds | seeds |")

    assert figures(re.sub(r"-9|\(.*\)", "", claimed[1])) == [
        *(figures(row[1])[0] for row in rows),
        sum(figures(row[4])[0] for row in rows),
    ]


def test_the_readme_counts_the_mistakes_as_the_page_about_them_does() -> None:
    claimed = re.search(r"notice (\d+) of (\d+) mistakes.+?other (\d+)", README, re.S)
    assert claimed is not None
    rows = [row.split("|") for row in (ROOT / "docs" / "mutation.md").read_text().splitlines() if row.startswith("| `")]

    missed = sum(row[3].strip().startswith("none") for row in rows)

    assert [int(number) for number in claimed.groups()] == [len(rows) - missed, len(rows), missed]


def test_the_readme_has_the_recorded_figures() -> None:
    claimed = re.search(r"^- \*\*Speed\.\*\* (.+?)\n\n", README, re.S | re.M)
    assert claimed is not None
    targets = (ROOT / "bench" / "RESULTS.md").read_text().split("## Targets")[1].split("\n## ")[0]

    shown = re.findall(r"[\d,.]+ (?:durable writes a second|ms)", claimed[1])

    assert len(shown) == 3
    assert all(f" {number.split()[0]} " in targets for number in shown)
