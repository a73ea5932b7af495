"""The house: folders, links and imports on which everything else relies."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("actors", "http", "simulation")
OURS = ("raftkv", *LINKED)
SYSTEM = "actors/system"


def sources(*folders: str) -> Iterator[Path]:
    """Return the Python files of the project, each once."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not (folder == "raftkv" and set(LINKED) & set(path.relative_to(ROOT / folder).parts[:1])):
                yield path


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    names = set()
    for part in ast.walk(ast.parse(path.read_text())):
        if isinstance(part, ast.Import):
            names |= {alias.name for alias in part.names}
        elif isinstance(part, ast.ImportFrom):
            names.add("." * part.level + (part.module or ""))
            names |= {f"{part.module}.{alias.name}" for alias in part.names if not part.level}
    return names


def offenders(is_wrong: Callable[[str], bool], *folders: str) -> dict[str, set[str]]:
    """Return the imports that are wrong, by file."""
    found = {str(path.relative_to(ROOT)): set(filter(is_wrong, imports(path))) for path in sources(*folders)}
    return {path: names for path, names in found.items() if names}


def under(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def python(code: str) -> str:
    """Return what a program prints that starts in the root of the repository."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_folder_http_is_no_package_of_its_own() -> None:
    """With an __init__.py, every program started from here would lose the standard library's http."""
    assert not (ROOT / "http" / "__init__.py").exists()


def test_http_is_the_standard_library_s_also_in_the_root_of_the_repository() -> None:
    assert (
        python("import http, http.client; print(http.HTTPStatus(404).phrase, bool(http.__file__))") == "Not Found True"
    )


@pytest.mark.parametrize("name", LINKED)
def test_the_folders_are_linked_into_the_package(name: str) -> None:
    link = ROOT / "raftkv" / name

    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"


def test_nobody_imports_a_second_copy_of_the_actors() -> None:
    """`actors.x` would be another module than `raftkv.actors.x`, and its classes others."""
    assert offenders(lambda name: under(name, "actors", "simulation"), *OURS, "tests", "bench", "deploy") == {}


def test_imports_are_written_in_full() -> None:
    """A relative import in a linked folder finds its package under either name."""
    assert offenders(lambda name: name.startswith("."), *OURS, "deploy") == {}


def test_rules_and_data_know_nothing_of_actors_and_http() -> None:
    """Arrows go one way: http -> actors -> raftkv; only what puts a node together knows all of it."""
    outside = ("raftkv.actors", "raftkv.http", "thespian", "tornado")
    found = offenders(lambda name: under(name, *outside), "raftkv")

    assert set(found) == {"raftkv/process/server.py"}


def test_the_actor_system_imports_only_itself_and_without_cycles() -> None:
    """Imports for type checking and imports inside of functions count: they are dependencies too."""
    modules = {".".join(("raftkv", *path.relative_to(ROOT).with_suffix("").parts)): path for path in sources(SYSTEM)}
    needed = {module: {name for name in imports(path) if under(name, *OURS)} for module, path in modules.items()}
    graph = {module: names & modules.keys() for module, names in needed.items()}

    assert {name for names in needed.values() for name in names if not under(name, "raftkv.actors.system")} == set()
    assert sum(map(len, graph.values())) > len(graph)
    graphlib.TopologicalSorter(graph).prepare()


def test_a_node_does_not_patch_the_import_machinery() -> None:
    """Loading actors from zip files does, for the whole process; its module is imported only where that is done."""
    loaded = python("import sys, raftkv.process.server; print(*sys.modules)").split()

    assert "raftkv.actors.system.base.sources" in loaded
    assert not {"raftkv.actors.system.base.source_loading", "thespian.system.sourceLoader"} & set(loaded)


def test_deploy_has_no_import_cycle() -> None:
    """Imports for type checkers only and imports within functions count too."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sources("deploy")}
    graph = {name: {module for module in imports(path) if module in modules} for name, path in modules.items()}
    # Only the package itself imports its modules; they do not use the names that it passes on.
    package = {"deploy.Cluster", "deploy.DeployError", "deploy.UsageError"}

    assert {name for name, path in modules.items() if imports(path) & package} == set()
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(modules)


def test_there_is_no_pickle() -> None:
    """What comes from a disk or a network must never be able to run code."""
    assert offenders(lambda name: under(name, "pickle", "marshal", "shelve"), "raftkv", "http", "deploy") == {}


def test_libraries_log_and_never_print() -> None:
    calls = {
        (str(path.relative_to(ROOT)), part.lineno)
        for path in sources(*OURS, "deploy")
        for part in ast.walk(ast.parse(path.read_text()))
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "print"
    }

    assert calls == set()


def test_a_package_has_all_folders() -> None:
    """A wheel takes what this finds: through the links, and http as a package without __init__.py."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    include = project["tool"]["setuptools"]["packages"]["find"]["include"]
    found = python(
        f"import setuptools; print(*sorted(setuptools.find_namespace_packages('.', include={include!r})))"
    ).split()

    assert {"raftkv", "raftkv.actors", "raftkv.actors.system", "raftkv.http", "raftkv.simulation"} <= set(found)
    assert all(under(name, "raftkv") for name in found)


def test_assertions_are_part_of_the_program() -> None:
    done = subprocess.run([sys.executable, "-O", "-m", "raftkv"], cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "raftkv does not run under python -O: its assertions protect the data\n"
