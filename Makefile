# `make` alone says what there is. Every target makes its own environment from nothing, once.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DEMO_ARGS ?= --data demo-data
TEST_ARGS ?=
TEST_WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench soak clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make the environment ($(VENV)) and install headrace into it

$(STAMP): pyproject.toml hatch_build.py $(wildcard core/headrace/core/_*.[ch])
	@command -v $(PYTHON) >/dev/null || \
	  { echo "There is no $(PYTHON). Name a Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "headrace needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	         "Name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make an environment; on Debian and Ubuntu: apt install python3-venv"; \
	    exit 1; }
	@# The pip that comes with older Pythons gives up on the versions of boto3 and s3fs.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

demo: $(STAMP) ## Web server, agent, stream, handler, Parquet, and a reckoning of every line
	$(BIN)/headrace demo $(DEMO_ARGS)

test: $(STAMP) ## Run the tests (TEST_ARGS="-k name" for some, TEST_WORKERS=0 for one after another)
	@# Most of them wait most of the time: for processes to die, for clocks, for disks.
	$(BIN)/python -m pytest -q -m "not slow" -n $(TEST_WORKERS) --dist loadfile $(TEST_ARGS)

check: $(STAMP) ## Formatting, lint, types, import rules, the files in configs/
	$(BIN)/ruff format --check .
	@# Without its cache, which does not see that an imported file came or went.
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy
	$(BIN)/lint-imports
	for file in configs/*.yaml; do $(BIN)/headrace check $$file || exit; done

format: $(STAMP) ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure this machine
	$(BIN)/python -m tests.bench

soak: $(STAMP) ## The tests that take minutes
	$(BIN)/python -m pytest -q -m slow $(TEST_ARGS)

clean: ## Remove the environment, caches and the demo's folder
	rm -rf $(VENV) demo-data .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f core/headrace/core/_speedups.*.so
	find agent core sinks tests triggers -name __pycache__ -type d -prune -exec rm -rf {} +
