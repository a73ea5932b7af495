"""The files of `deploy/` agree with the project and with each other: pins, build context, settings, limits."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from docker.utils.build import exclude_paths

from deploy import containers
from deploy.engine import DeployError
from deploy.image import base_image, follow_build, split_tag
from raftkv.config.settings import OPTIONS

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = (DEPLOY / "compose.yaml").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
LOCKS = ["requirements.lock", "build.lock"]


def pins(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return version and hashes by package."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", (DEPLOY / name).read_text(), flags=re.M))
    found = {}
    for line in text.splitlines():
        package, version, rest = re.fullmatch(r"([\w-]+)==([\w.]+)(.*)", line).groups()  # type: ignore[union-attr]
        found[package] = (version, re.findall(r"--hash=sha256:([0-9a-f]{64})(?=\s|$)", rest))
    return found


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_every_dependency_of_the_package_is_pinned_to_a_version_that_it_allows() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ranges = {re.split(r"[<>=~!]", line)[0]: re.findall(r"(>=|<)([\d.]+)", line) for line in needed}
    locked = pins("requirements.lock")

    assert set(locked) >= set(ranges)
    for package, bounds in ranges.items():
        version = numbers(locked[package][0])
        assert all(version >= numbers(bound) if sign == ">=" else version < numbers(bound) for sign, bound in bounds)


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes_and_no_index_is_named(name: str) -> None:
    assert all(hashes for _, hashes in pins(name).values())
    assert re.findall(r"https?:|-index-url \S+:|--find-links", (DEPLOY / name).read_text()) == []


def build_context() -> set[str]:
    """Return the files, folders and links that a build of the image gets."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    return {path for path in exclude_paths(str(ROOT), patterns, "deploy/Dockerfile") if "__pycache__" not in path}


def test_the_build_context_has_what_a_node_needs_and_neither_simulator_nor_tests() -> None:
    context = build_context()
    links = {path for path in context if (ROOT / path).is_symlink()}

    assert links == {"raftkv/actors", "raftkv/http"}
    assert {path.split("/")[0] for path in context} == {"raftkv", "actors", "http", "deploy", ".dockerignore"}
    assert {path for path in context if path.startswith("deploy/")} == {
        *(f"deploy/{name}" for name in ("Dockerfile", "ready.py", *LOCKS))
    }
    assert {"actors/node.py", "http/server.py", "raftkv/process/server.py"} <= context
    assert {path for path in context if "test" in path or "simulation" in path or "virtual" in path} == set()


def test_every_module_in_the_build_context_can_be_imported_and_simulate_is_no_command(tmp_path: Path) -> None:
    for path in sorted(build_context()):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if not (ROOT / path).is_dir() or (ROOT / path).is_symlink():
            shutil.copy(ROOT / path, tmp_path / path, follow_symlinks=False)
    # A walk that follows the links finds each module under the name by which it is imported.
    script = (
        "import importlib, os\n"
        "paths = [os.path.join(folder, name) for folder, _, names in os.walk('raftkv', followlinks=True) "
        "for name in names if name.endswith('.py') and name != '__main__.py']\n"
        "for path in paths: importlib.import_module(path[:-3].removesuffix('/__init__').replace('/', '.'))\n"
        "from raftkv.cli import cli\n"
        "print(len(paths) > 50, *sorted(cli.commands))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)

    assert (done.stdout, done.stderr) == ("True local serve\n", "")


def test_every_linked_folder_but_the_simulator_is_copied() -> None:
    linked = {path.name for path in (ROOT / "raftkv").iterdir() if path.is_symlink()}

    assert set(re.findall(r"^COPY (\w+) /app/\1$", DOCKERFILE, re.M)) == {"raftkv", *linked} - {"simulation"}


def test_every_variable_that_is_set_is_a_setting() -> None:
    known = {option.variable for option in OPTIONS}
    set_by_us = set(containers.environment("n1", ["n1"], 4001, {}))
    variables = set(re.findall(r"\b(RAFTKV_\w+)", DOCKERFILE + COMPOSE)) | set_by_us

    assert variables - known == set()
    assert len(variables) >= 8


def test_compose_runs_the_nodes_as_the_library_does() -> None:
    for line in (
        f"mem_limit: {containers.MEMORY}",
        f"pids_limit: {containers.PROCESSES}",
        f"interval: {containers.HEALTH_INTERVAL_S}s",
        f"timeout: {containers.HEALTH_TIMEOUT_S}s",
        f"start_period: {containers.HEALTH_START_S}s",
        f"stop_grace_period: {containers.STOP_S}s",
        f"RAFTKV_CLUSTER_SECRET_FILE: {containers.SECRET_FILE}",
        "restart: unless-stopped",
        "read_only: true",
        "cap_drop: [ALL]",
    ):
        assert line in COMPOSE
    cluster = containers.environment("n1", ["n1", "n2", "n3"], 4001, {})["RAFTKV_CLUSTER"]
    assert f"RAFTKV_CLUSTER: {cluster}" in COMPOSE
    assert re.findall(r'"(127\.0\.0\.1:\S+):4001"', COMPOSE) == [f"127.0.0.1:${{PORT_{n}:-400{n}}}" for n in (1, 2, 3)]


def test_a_node_gets_its_identity_from_its_environment() -> None:
    assert containers.environment("n2", ["n1", "n2"], 4002, {"log-level": "debug"}) == {
        "RAFTKV_ID": "n2",
        "RAFTKV_HTTP": "0.0.0.0:4001",
        "RAFTKV_RAFT": "0.0.0.0:5001",
        "RAFTKV_CLUSTER": "n1=n1.peers:5001,n2=n2.peers:5001",
        "RAFTKV_CLUSTER_SECRET_FILE": "/secret/cluster",
        "RAFTKV_ADVERTISE_HTTP": "127.0.0.1:4002",
        "RAFTKV_LOG_LEVEL": "debug",
    }


def test_image_names_are_split_into_name_and_tag() -> None:
    assert base_image(DOCKERFILE) == "python:3.11-slim-bookworm"
    assert [split_tag(name) for name in ("a", "a:1", "host:5000/a", "host:5000/a:1")] == [
        *(("a", "latest"), ("a", "1"), ("host:5000/a", "latest"), ("host:5000/a", "1"))
    ]


def test_the_error_of_a_failed_build_has_its_last_lines() -> None:
    output: list[Any] = [{"stream": f"line {number}\n"} for number in range(20)]
    follow_build(output)

    with pytest.raises(DeployError) as failure:
        follow_build([*output, {"error": "it\nbroke"}])

    assert str(failure.value).splitlines() == [
        "the image cannot be built: it broke",
        *(f"  line {number}" for number in range(12, 20)),
    ]
