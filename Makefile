# `make app` and `make test` set everything up from nothing; the second time they start at once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install app test test-fast test-release models check bench-check format clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint constraints.txt torch
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

install: .venv/installed

app: .venv/installed
	$(BIN)/python app.py

# Every core takes a share of the tests.
PYTEST := $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test: .venv/installed
	$(PYTEST) -m "not release"

test-fast: .venv/installed
	$(PYTEST) -m "not slow and not real and not gpu and not release"

# Before a release: more of what `make test` has some of, and another CPU's rounding (tests/other_rounding.py).
test-release: .venv/installed
	$(PYTEST)
	PYTHONPATH=tests $(PYTEST) -p other_rounding -m "not slow and not real"

# Which base models work: every architecture of tests/zoo, against PEFT, as docs/models.md (ten minutes).
models: .venv/installed
	PYTHONPATH=tests:. $(BIN)/python -m zoo --page docs/models.md

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# Has a ratio to a plain LoRA become worse than at another commit? Both are measured here and now, in
# turns. BASE=<commit>; left out, it is the last tag, or HEAD where there are changes to it.
bench-check: .venv/installed
	$(BIN)/python -m benchmarks.speed.against --base "$(BASE)"

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
