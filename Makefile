# What a newcomer needs: make run, make test. Everything else stands below.
# Further arguments go in ARGS, as in: make run ARGS="--nodes 5", make test ARGS="-k settings".

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first interpreter on the path that is new enough.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)

.PHONY: help run test thespian coverage check fix bench clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20

run: $(STAMP) ## start three nodes here and tell what they do; Ctrl-C stops them
	@$(BIN)/python -m raftkv local $(ARGS)

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest $(ARGS)

thespian: $(STAMP) ## run Thespian's own tests on the event-loop system base
	$(BIN)/python tests/thespian_suite/run.py

coverage: $(STAMP) ## run the tests and show which lines and branches they miss
	$(BIN)/python -m coverage run -m pytest $(ARGS)
	$(BIN)/python -m coverage report --show-missing --skip-covered

check: $(STAMP) ## format, lint, types, import contracts; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(STAMP) ## format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure throughput and latency
	$(BIN)/python -m bench $(ARGS)

clean: ## remove everything that was made here, but the data in .raftkv
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew only when what it is made from has changed.
$(STAMP): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "raftkv needs Python 3.11 or later; none is on the PATH" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@
