# A fresh clone needs Python 3.11 or newer, make and a package index: `make demo` or `make test` does the rest.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LEXICON := $(VENV)/.lexicon

# These interpreters are tried in order. Each is run, not only looked up: a version manager's shim is on the PATH even
# for versions that are not installed.
PYTHON ?= python3.11 python3.12 python3.13 python3
PROBE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

# Number of test processes. torch uses one thread in each (tests/conftest.py), so one per core is best.
WORKERS ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install lexicon demo test lint types unit format docs bench performance published clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv with the package (editable), its extras and the pinned versions

# If the stamp is older than one of these two files, which say what to install, the installation runs again.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c '$(PROBE)' 2>/dev/null; then \
		for python in $(PYTHON); do \
			if $$python -c '$(PROBE)' 2>/dev/null; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "error: Python 3.11 or newer with the module venv is needed, and none was found. Tried:" >&2; \
			for python in $(PYTHON); do \
				version=$$($$python -c 'import sys; print(*sys.version_info[:3], sep=".")' 2>/dev/null); \
				if [ -z "$$version" ]; then echo "  $$python: does not run" >&2; \
				elif ! $$python -c 'import venv, ensurepip' 2>/dev/null; then \
					echo "  $$python: $$version without venv (on Debian and Ubuntu: apt install $$python-venv)" >&2; \
				else echo "  $$python: $$version is too old" >&2; fi; \
			done; \
			echo "Install one, or name it: make PYTHON=/path/to/python3.11 install" >&2; \
			exit 1; \
		fi; \
		echo "Creating $(VENV) with $$found ($$($$found --version))"; \
		$$found -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[offline,track,augment,tune,dev]'
	@touch $@

lexicon: $(LEXICON) ## Put WordNet, which synonyms and their tests need, into .venv

$(LEXICON): $(STAMP) scripts/install_lexicon.sh
	scripts/install_lexicon.sh $(VENV)
	@touch $@

demo: $(STAMP) ## Train, test and report on the shipped news items with the bundled MiniLM
	$(BIN)/submillion demo

test: lint types unit ## The whole gate: lint, types, tests

lint: $(STAMP) ## Check style and format with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check types with mypy --strict
	$(BIN)/mypy

unit: $(STAMP) $(LEXICON) ## Run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

format: $(STAMP) ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## Write docs/recipes.md again from the settings and the shipped recipes
	$(BIN)/python docs/build_recipes.py

bench: $(STAMP) ## Measure speed and memory of training, scoring and data on this machine
	$(BIN)/python -m benchmarks

performance: $(STAMP) ## Write the tables of docs/performance.md again from benchmarks/results
	$(BIN)/python -m benchmarks.build_table

published: $(STAMP) ## Train the published systems' recipes on MiniLM (DATA=...) and write docs/published-systems.md
	$(BIN)/python -m benchmarks.reproduce --data $(or $(DATA),$(error name the rows: make published DATA=agnews)) --complete

clean: ## Remove .venv, caches and build output (runs/ stays)
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
