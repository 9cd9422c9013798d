# The two commands of the README:
#   make demo   the main job end to end, on videos it makes itself
#   make test   lint, types, import contract, tests
# Both make a virtual environment in .venv first. TORCH says which torch: make demo TORCH='torch>=2.10'

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
READY_DEV := $(VENV)/ready-dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint clean

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY_DEV) lint
	$(BIN)/python -m pytest

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# torch first and by itself: a small CPU build then satisfies the project, which would otherwise fetch several GB.
$(READY): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)"
	$(PIP) --constraint constraints.txt --editable .
	touch $@

$(READY_DEV): $(READY)
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) --constraint constraints.txt --group dev --editable ".[parquet]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
