"""Decoders of outside input hold their checks on the corpus and on some mutations of it."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzzing import CORPUS, TARGETS, corpus, fuzz

SEED = 1
EXECUTIONS = {"requests": 250, "messages": 500, "connections": 1000, "journal": 800, "configuration": 800}


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_decoder(name: str) -> None:
    """The whole corpus and as many mutations as time allows; a failure names the command that reproduces it."""
    run = fuzz(name, SEED, executions=EXECUTIONS.get(name, 2000))
    assert run.executions >= EXECUTIONS.get(name, 2000)
    # If all inputs were refused at the first check, the run would test nothing.
    assert len(run.endings) > 2


def test_every_found_input_is_explained_in_the_readme() -> None:
    """The README of the corpus explains each named input, and every file belongs to a target."""
    readme = (CORPUS / "README.md").read_text()
    kept = {f"{name}/{file}" for name in TARGETS for file, _ in corpus(name)}
    found = {str(path.relative_to(CORPUS)) for path in CORPUS.rglob("*") if path.is_file()} - {"README.md"}
    assert found == kept
    assert [file for file in sorted(kept) if "/ending-" not in file and f"`{file}`" not in readme] == []


def test_the_same_seed_makes_the_same_inputs() -> None:
    """So the seed of a failure reproduces it."""
    assert fuzz("frames", 7, executions=400).endings == fuzz("frames", 7, executions=400).endings
