"""The plugin that runs Thespian's suite works (``run.py`` runs the whole suite, which takes minutes)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# The folder is not a package, so that its plugin can be named on the command line.
_spec = importlib.util.spec_from_file_location("thespian_suite_run", Path(__file__).with_name("run.py"))
assert _spec is not None
assert _spec.loader is not None
_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_run)


def test_thespians_tests_of_simple_actors_pass_on_the_event_loop_base() -> None:
    """Also in debug mode; tests that use no base are left out."""
    modules = ("thespian.test.test_simpleActor", "thespian.test.test_timing")

    for pickled in (False, True):
        outcomes, bases, output = _run.run(1, pickled, *modules)
        assert (outcomes, bases) == ({"passed": 7}, [_run.BASE]), output
