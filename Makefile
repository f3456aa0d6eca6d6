# `make app` and `make test` set everything up from nothing; the second time they start at once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install app test test-fast check bench-check format clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint constraints.txt torch
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

install: .venv/installed

app: .venv/installed
	$(BIN)/python app.py

test: .venv/installed
	$(BIN)/pytest

test-fast: .venv/installed
	$(BIN)/pytest -m "not slow and not real and not gpu"

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# Has a ratio to a plain LoRA become worse than the committed one? Some minutes on two cores.
bench-check: .venv/installed
	$(BIN)/python -m benchmarks.speed --check benchmarks/results/speed-cpu.json

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
