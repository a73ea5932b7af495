# What a newcomer needs: make run, make test. Everything else stands below.
# Further arguments go in ARGS, as in: make run ARGS="--nodes 5", make test ARGS="-k settings".

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first interpreter on the path that is new enough.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)

# A plugin of docker, or a command of its own, as older systems have it.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.PHONY: help run docker test pickled thespian simulate coverage check fix bench clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20

run: $(STAMP) ## start three nodes here and tell what they do; Ctrl-C stops them
	@$(BIN)/python -m raftkv local $(ARGS)

docker: $(STAMP) ## start three nodes in containers, at 127.0.0.1:4001 to 4003; ARGS=down ends them
	@$(COMPOSE) version >/dev/null 2>&1 || \
		{ echo "there is no Docker Compose here; \`$(BIN)/python -m deploy up\` does the same without it" >&2; exit 1; }
	@$(if $(ARGS),true,$(BIN)/python -m deploy build)
	$(COMPOSE) -p raftkv -f deploy/compose.yaml $(or $(ARGS),up -d --no-build)

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest $(ARGS)

pickled: $(STAMP) ## run the tests of the roles with every message pickled
	$(BIN)/python -m pytest --pickled tests/roles $(ARGS)

thespian: $(STAMP) ## run Thespian's own tests on the event-loop system base
	$(BIN)/python tests/thespian_suite/run.py

# SEEDS is 2000, 500-999 or 500-; MINUTES ends it, whichever comes first. More: python -m raftkv simulate --help
SEEDS ?= $(if $(MINUTES),0-,2000)
simulate: $(STAMP) ## run thousands of simulated clusters, with faults: SEEDS=2000, MINUTES=10, ARGS="--faults each"
	@$(BIN)/python -m raftkv simulate --seeds $(SEEDS) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

coverage: $(STAMP) ## run the tests and show which lines and branches they miss
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(ARGS)
	$(BIN)/python -m coverage combine --quiet
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
