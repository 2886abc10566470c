# Everything runs in .venv, which is made on first use and brought up to date when
# pyproject.toml changes. The package is installed editable: edits need no new install.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST ?= $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types format bench clean

help:
	@echo "make demo    train on both data sets with every technique, print the tables"
	@echo "make test    run the whole test suite"
	@echo "make lint    ruff check and ruff format --check"
	@echo "make types   mypy over privjax/"
	@echo "make format  let ruff rewrite the files"
	@echo "make bench   time the kernels (ARGS='--only kernels --json out.json')"
	@echo "make clean   remove .venv, caches and build products"

# pip is the last thing that venv makes: a broken or interrupted start leaves none.
$(BIN)/pip:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed-demo: pyproject.toml | $(BIN)/pip
	@echo "Installing privjax and what the demo needs into $(VENV) ..."
	$(PIP) install -e ".[plots]"
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/pip
	@echo "Installing privjax and what the tests need into $(VENV) ..."
	$(PIP) install -e ".[test]"
	@touch $@

setup: $(VENV)/.installed-test

demo: $(VENV)/.installed-demo
	$(BIN)/privjax demo $(ARGS)

test: $(VENV)/.installed-test
	$(PYTEST) -n auto --dist worksteal $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/python -m mypy

format: $(VENV)/.installed-test
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

bench: $(VENV)/.installed-demo
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .cache .hypothesis
	rm -rf build dist demo-output *.egg-info
	find privjax tests benchmarks examples notebooks -name __pycache__ -type d \
		-prune -exec rm -rf {} + 2>/dev/null || true
