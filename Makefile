# The commands of README.md and CONTRIBUTING.md. Each makes the virtual environment it needs, once.

VENV ?= .venv
BIN := $(VENV)/bin
# Two test processes with one thread each: small networks are slower on several.
TEST_PROCESSES ?= 2
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint slow clean

help:
	@echo 'make demo    learn from rewards, from comparisons of clips, and of texts (some four minutes once installed)'
	@echo 'make test    every check: linter, formatting, types, tests'
	@echo 'make lint    the checks without the tests'
	@echo 'make slow    the learning tests, which take minutes each'
	@echo 'make clean   remove the virtual environment and caches'

demo: $(VENV)/installed-all
	$(BIN)/rllab demo

test: lint
	$(BIN)/python -m pytest -n $(TEST_PROCESSES)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# What `dev` installs contains `all`, so the demo need not install anything after the tests.
$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing into $(VENV); the first time takes a few minutes.'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(VENV)/installed-all $@

$(VENV)/installed-all: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing into $(VENV); the first time takes a few minutes.'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

# The first interpreter that is new enough and can make a virtual environment (Debian ships venv apart).
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
	    echo "Making $(VENV) with $$("$$python" --version)."; \
	    exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo 'rllab needs Python 3.11 or newer with its venv module: install it (on Debian: apt install python3-venv),' \
	  'or name one by make PYTHON=/path/to/python.' >&2; \
	exit 1
