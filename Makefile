# What CI runs is `make test`. Every target sets up what it needs; `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv controlplane demo demo-down test lint unit e2e bench clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

venv: $(INSTALLED) ## a virtual environment with vkubelet and what its tests need

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "vkubelet needs Python 3.11 or newer: set PYTHON, as in 'make $(MAKECMDGOALS) PYTHON=python3.12'" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing vkubelet and its development tools into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

controlplane: venv ## etcd, the Kubernetes servers and kubectl, built once into .cache/bin
	@$(BIN)/python -m e2e.harness.go

demo: venv ## a node, its pods, logs, exec, scaling: all of it shown and left running
	@$(BIN)/python -m e2e.demo

demo-down: ## stops what demo started
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m e2e.demo down; fi

# One pytest run, so that one line at the end counts all tests.
test: lint controlplane ## what CI runs: format, lint, types, layering, unit and end-to-end tests
	@$(BIN)/python -m pytest tests e2e; status=$$?; $(BIN)/python -m e2e.harness.processes; exit $$status

lint: venv ## format, lint, types, layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: venv ## the quick tests
	@$(BIN)/python -m pytest tests

e2e: venv controlplane ## the tests against a real control plane and Docker engine
	@$(BIN)/python -m pytest e2e; status=$$?; $(BIN)/python -m e2e.harness.processes; exit $$status

bench: venv controlplane ## pods per second, beside kwok and the limit of the API server
	@$(BIN)/python -m bench pods

clean: demo-down ## removes all that was built or written
	rm -rf $(VENV) .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
