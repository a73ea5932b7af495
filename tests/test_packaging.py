"""The source archive is the whole checkout, and the wheel is the whole package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("setuptools", minversion="77", reason="`make test` installs the setuptools that the build needs")

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".ci", "actors", "bench", "deploy", "docs", "http", "raftkv", "simulation", "tests")
LINKS = {"raftkv/actors": "../actors", "raftkv/http": "../http", "raftkv/simulation": "../simulation"}
TOP_LEVEL = ("*.md", "*.toml", "*.txt", "*.in", "*.py", "LICENSE", "Makefile", ".dockerignore", ".gitignore")
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]
print(build_meta.build_sdist(folder), build_meta.build_wheel(folder))
"""


class Archives(NamedTuple):
    """The paths of what was built."""

    sdist: Path
    wheel: Path


def files_of(root: Path) -> set[str]:
    """Return the files of a checkout, without those that git ignores; links are not followed."""
    ignored = shutil.ignore_patterns(*(line.rstrip("/") for line in (root / ".gitignore").read_text().split()))
    found = {path.name for pattern in TOP_LEVEL for path in root.glob(pattern)}
    for folder in FOLDERS:
        for place, folders, names in os.walk(root / folder):
            skipped = ignored(place, [*folders, *names])
            folders[:] = [name for name in folders if name not in skipped]
            found |= {os.path.relpath(os.path.join(place, name), root) for name in names if name not in skipped}
    return found


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """Build both in a copy of the checkout: a build leaves files behind."""
    place = tmp_path_factory.mktemp("build")
    copy, out = place / "checkout", place / "dist"
    for name in files_of(ROOT):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    for link, target in LINKS.items():
        (copy / link).symlink_to(target)
    out.mkdir()
    done = subprocess.run([sys.executable, "-c", BUILD, out], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sdist, wheel = done.stdout.split()[-2:]
    return Archives(out / sdist, out / wheel)


@pytest.fixture(scope="module")
def unpacked(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the source archive, with the filter that refuses links to anything outside of it."""
    place = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archives.sdist) as archive:
        archive.extractall(place, filter="data")
    (root,) = place.iterdir()
    return root


def test_the_source_archive_has_every_file_of_a_checkout(unpacked: Path) -> None:
    assert files_of(unpacked) == files_of(ROOT)


def test_the_source_archive_keeps_the_links_to_folders(unpacked: Path) -> None:
    assert {link: os.readlink(unpacked / link) for link in LINKS} == LINKS


def test_the_tests_of_the_source_archive_run(unpacked: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_layout.py", "tests/raft"]

    done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


def test_the_wheel_has_the_package_and_nothing_else(archives: Archives) -> None:
    folders = {"raftkv": "raftkv", **{name.removeprefix("raftkv/"): name for name in LINKS}}
    modules = [name.split("/", 1) for name in files_of(ROOT) if name.endswith(".py") and "/" in name]
    expected = {f"{folders[folder]}/{rest}" for folder, rest in modules if folder in folders}

    with zipfile.ZipFile(archives.wheel) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert packed == expected | {"raftkv/py.typed"}


def test_the_wheel_has_the_command_and_the_readme(archives: Archives) -> None:
    with zipfile.ZipFile(archives.wheel) as wheel:
        texts = {name.split("/", 1)[1]: wheel.read(name).decode() for name in wheel.namelist() if "dist-info/" in name}

    assert "raftkv = raftkv.__main__:main" in texts["entry_points.txt"].splitlines()
    assert (ROOT / "README.md").read_text().strip() in texts["METADATA"]
