# Each target makes what it needs on a fresh machine with Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-all check format docs clean

demo: $(VENV)/.demo  ## install, then the whole pipeline on the embedded default (no hub, no download of data)
	@echo 'some minutes: every text through MiniLM, three heads, the scores, a page'
	$(BIN)/pipeline run icd10cm --backbone minilm
	@echo '  . $(VENV)/bin/activate    first: it puts `pipeline` on your path'

PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

test: $(VENV)/.dev  ## install, then every test but the slow ones, as many files at a time as there are cores
	$(PYTEST) -m 'not slow'

test-all: $(VENV)/.dev  ## every test: before a release
	$(PYTEST)

check: $(VENV)/.dev  ## lint, format, types: what CI checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev  ## the documentation as a site in build/site, strict, without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: $(VENV)/.dev  ## mend what the linter and the formatter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[offline,report]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.demo
