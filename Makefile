.DEFAULT_GOAL := help
# The first that runs and is new enough: a version manager's shim may stand there and not run.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
# Whoever has a certificate of their own in the way has it in the system store.
export UV_SYSTEM_CERTS := true
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin
# Extras stay in the lock: pip's hash mode wants a pin for each name as it is asked for.
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --no-header --quiet

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/runtime  ## Run 2,000 events through everything and reconcile (ARGS="--once --json FILE")
	DAGSTER_HOME=$(CURDIR) $(BIN)/marketing-pipeline demo $(ARGS)

up: .venv/runtime  ## Start ingest, Dagster's UI and its daemon (ARGS="--sandbox")
	DAGSTER_HOME=$(CURDIR) $(BIN)/marketing-pipeline up $(ARGS)

doctor: .venv/runtime  ## Check every part, and say how to mend it
	DAGSTER_HOME=$(CURDIR) $(BIN)/marketing-pipeline doctor $(ARGS)

# Half of their time they wait for servers to start and leases to end: more of them than cores.
test: .venv/dev  ## Run the tests (ARGS="-k name")
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: .venv/dev  ## Format check, lint, import law, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: .venv/dev  ## Measure it beside baselines and targets (ONLY=name JSON=FILE ARGS=--quick)
	$(BIN)/python -m benchmarks $(if $(ONLY),--only "$(ONLY)") $(if $(JSON),--json $(JSON)) $(ARGS)

bench-peers: .venv/dev .venv-peers/installed  ## The same beside pgqueuer and procrastinate, which are installed for it
	$(BIN)/python -m benchmarks --peers $(if $(ONLY),--only "$(ONLY)") $(if $(JSON),--json $(JSON)) $(ARGS)

chaos: .venv/dev  ## Kill everything, everywhere, and compare the books (TRIALS=n JSON=FILE)
	$(BIN)/python -m marketing_pipeline_tests.chaos --trials $(or $(TRIALS),1000) $(if $(JSON),--json $(JSON)) $(ARGS)

replay-proof: .venv/dev  ## Replay one log in every way and compare the digests (EVENTS=n JSON=FILE)
	$(BIN)/python -m marketing_pipeline_tests.replay_proof --events $(or $(EVENTS),1000000) $(if $(JSON),--json $(JSON)) $(ARGS)

campaign-trial: .venv/dev  ## Send one campaign through deaths and an unsubscribe storm (RECIPIENTS=n JSON=FILE)
	$(BIN)/python -m marketing_pipeline_tests.campaign_trial --recipients $(or $(RECIPIENTS),100000) $(if $(JSON),--json $(JSON)) $(ARGS)

browser-trial: .venv/dev  ## Replay and schedule in Dagster's pages, in a Chromium (ARGS="--pictures docs/images")
	$(BIN)/python -m marketing_pipeline_tests.browser_trial $(if $(JSON),--json $(JSON)) $(ARGS)

lock:  ## Pin the dependencies of pyproject.toml again, with hashes
	$(COMPILE) pyproject.toml -o requirements.txt
	$(COMPILE) --group dev -c requirements.txt pyproject.toml -o requirements-dev.txt
	$(COMPILE) benchmarks/peers/requirements.in -o benchmarks/peers/requirements.txt

clean:  ## Remove the virtual environment and caches; the log in .marketing/ stays
	rm -rf .venv .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed and none was found. Name one: make PYTHON=/path/to/python"; exit 1; }
ifdef UV
	uv venv --quiet --python "$$(command -v $(PYTHON))" .venv
else
	$(PYTHON) -m venv .venv
endif

# The project itself goes in last and without dependencies: those are pinned by hash.
ifdef UV
INSTALL := uv pip install --quiet --python .venv/bin/python
else
INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check
endif

.venv/runtime: requirements.txt pyproject.toml | .venv/bin/python
	$(INSTALL) --require-hashes -r requirements.txt
	$(INSTALL) --no-deps -e .
	@touch $@

.venv/dev: requirements-dev.txt pyproject.toml | .venv/bin/python
	$(INSTALL) --require-hashes -r requirements-dev.txt
	$(INSTALL) --no-deps -e .
	@touch $@ .venv/runtime

.venv-peers/installed: benchmarks/peers/requirements.txt | .venv/bin/python
ifdef UV
	uv venv --quiet --clear --python .venv/bin/python .venv-peers
	uv pip install --quiet --python .venv-peers/bin/python --require-hashes -r benchmarks/peers/requirements.txt
else
	.venv/bin/python -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/peers/requirements.txt
endif
	@touch $@

.PHONY: help demo up doctor test check bench bench-peers chaos replay-proof campaign-trial browser-trial lock clean
