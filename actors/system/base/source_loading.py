"""Loading modules from the zip files of actor sources, with Thespian's ``sourceLoader``.

A loaded source patches ``sys.meta_path`` and ``builtins.__import__`` for the whole process, and runs code that was
handed in. So this module is imported only after a source has been validated (see ``sources``), which never happens in a
node.
"""

from __future__ import annotations

import builtins
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from thespian.system.sourceLoader import SourceHashFinder, loadModuleFromHashSource

# Every module of a loaded source replaces builtins.__import__ by a function of its own, for the whole process.
_original_import = builtins.__import__


def class_loader(source_hash: str, loaded: Mapping[str, Any]) -> Callable[[str, str], Any]:
    """Return a function of (module, class) names that finds a class in the source ``source_hash``."""
    return functools.partial(loadModuleFromHashSource, source_hash, loaded)


def check_archive(source_hash: str, data: bytes) -> None:
    """Raise unless ``data`` is a readable zip file."""
    SourceHashFinder(source_hash, lambda data: data, data).getZipNames()


def forget_modules(source_hash: str) -> None:
    """Remove the modules of a source from Python."""
    for finder in [finder for finder in sys.meta_path if getattr(finder, "srcHash", None) == source_hash]:
        sys.meta_path.remove(finder)
        root = finder.hashRoot()  # type: ignore[attr-defined]
        for module in [name for name in sys.modules if name.startswith(root)]:
            del sys.modules[module]


def restore_import() -> None:
    """Restore the ``import`` that was in place before the first source."""
    builtins.__import__ = _original_import
