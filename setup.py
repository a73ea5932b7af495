"""The build is described in pyproject.toml; this file only keeps the links to folders in the source archive."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist


class SourceArchive(sdist):
    """Packs `raftkv/actors`, `raftkv/http` and `raftkv/simulation` as links, as they are in a checkout.

    setuptools would pack a copy of each folder. The tests of an unpacked archive would then run against two copies.
    """

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Collect the files, then put the links back in place of the copies that were made through them."""
        super().make_release_tree(base_dir, files)
        for link in Path("raftkv").iterdir():
            if link.is_symlink():
                copy = Path(base_dir) / link
                shutil.rmtree(copy)
                copy.symlink_to(link.readlink())


setup(cmdclass={"sdist": SourceArchive})
