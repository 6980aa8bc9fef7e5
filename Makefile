# The two commands are `make demo` and `make test`. Both set up .venv by themselves, from requirements.lock.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test check docs mutate lock clean

DEMO_ARGS ?=
TEST_ARGS ?=
MUTATE_ARGS ?=
# Two processes share the tests; each computes on one thread.
TEST_PROCESSES ?= 2
BIN := .venv/bin

# Compiled bytecode halves the import time of the large libraries: an empty value counts as unset.
export PYTHONDONTWRITEBYTECODE :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export MPLBACKEND := Agg

help:
	@echo "make demo    the whole story on a simulated cohort: pretrain, fine-tune, evaluate, impact, report"
	@echo "             (DEMO_ARGS=--quick: the short form)"
	@echo "make test    lint, types, architecture, the documentation and every test"
	@echo "make check   lint, types and architecture only"
	@echo "make docs    the documentation as a site: build/site/index.html, which opens from the folder"
	@echo "make mutate  small faults put into the code, and how many of them the tests notice (MUTATE_ARGS='losses -n 0')"
	@echo "make lock    resolve requirements.lock again after a change of pyproject.toml"
	@echo "make clean   remove .venv and caches; runs/ is kept"

install: .venv/.installed

# Content decides, not the time stamp: a fresh checkout of the same lock installs nothing.
.venv/.installed: requirements.lock pyproject.toml
	@bash tools/install.sh

demo: install
	@$(BIN)/medssml demo $(DEMO_ARGS)

check: install
	@echo "== ruff" && $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== mypy" && $(BIN)/mypy
	@echo "== architecture" && $(BIN)/python -m pytest tests/test_architecture.py

# A broken link, an unknown name or a figure that cannot be drawn fails the build.
docs: install
	@echo "== docs" && NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict && echo "build/site/index.html"

test: check docs
	@echo "== pytest, $(TEST_PROCESSES) processes"
	@start=$$SECONDS; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --durations 10 $(TEST_ARGS); \
	echo "make test: passed in $$((SECONDS - start)) s"

# Not part of `make test`: minutes to hours. See docs/testing.md.
mutate: install
	@OMP_NUM_THREADS=1 $(BIN)/python tools/mutate.py $(MUTATE_ARGS)

lock: install
	@echo "resolving pyproject.toml, about two minutes"
	@$(BIN)/python tools/lock.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
