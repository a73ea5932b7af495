"""Decoders of what comes from outside: the kept inputs, and some changes of them, never do what they must not."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzzing import CORPUS, TARGETS, corpus, fuzz

SEED = 1
EXECUTIONS = {"requests": 250, "messages": 500, "connections": 1000, "journal": 800, "configuration": 800}


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_decoder(name: str) -> None:
    """The whole corpus and as many changes as there is time for; a failure tells the command that makes it again."""
    run = fuzz(name, SEED, executions=EXECUTIONS.get(name, 2000))
    assert run.executions >= EXECUTIONS.get(name, 2000)
    # Inputs that are all refused at the first look would test nothing.
    assert len(run.endings) > 2


def test_every_found_input_is_explained_in_the_readme() -> None:
    """Each input that is in the corpus by its name is told of in its README; nothing is there that no target reads."""
    told = (CORPUS / "README.md").read_text()
    kept = {f"{name}/{file}" for name in TARGETS for file, _ in corpus(name)}
    there = {str(path.relative_to(CORPUS)) for path in CORPUS.rglob("*") if path.is_file()} - {"README.md"}
    assert there == kept
    assert [file for file in sorted(kept) if "/ending-" not in file and f"`{file}`" not in told] == []


def test_the_same_seed_makes_the_same_inputs() -> None:
    """So that a failure is found again by its seed."""
    assert fuzz("frames", 7, executions=400).endings == fuzz("frames", 7, executions=400).endings
