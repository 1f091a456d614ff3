# Each target makes what it needs on a fresh machine with Python >= 3.11, or with nothing but uv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
comma := ,

.PHONY: demo test test-all check docs-check format docs clean

demo: $(VENV)/.demo  ## install, then the whole pipeline on the embedded default (no hub, no download of data)
	@echo 'some minutes: every text through MiniLM, four methods, the scores, a page'
	$(BIN)/pipeline run icd10cm --backbone minilm
	@echo '  . $(VENV)/bin/activate    first: it puts `pipeline` on your path'

PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8

test: $(VENV)/.dev  ## install, then every test but the slow ones, as many files at a time as there are cores
	$(PYTEST) -m 'not slow'

test-all: $(VENV)/.dev  ## every test: before a release
	$(PYTEST)

check: $(VENV)/.dev docs-check  ## lint, format, types, prose, figures: what CI checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/check_prose.py

docs-check: $(VENV)/.dev  ## every figure in README and docs has a source
	$(BIN)/python scripts/check_figures.py

docs: $(VENV)/.dev  ## the documentation as a site in build/site, strict, without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: $(VENV)/.dev  ## fix what the linter and the formatter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	@if $(PYTHON) -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then $(PYTHON) -m venv $(VENV); \
	elif command -v uv > /dev/null; then uv venv --quiet $(VENV); \
	else echo 'Python 3.11 or newer with venv, or uv, is needed: make PYTHON=python3.11 ...' >&2; exit 1; fi

# An environment that uv made has no pip.
install = if [ -x $(BIN)/pip ]; then $(BIN)/pip install --quiet $(1); else uv pip install --quiet --python $(BIN)/python $(1); fi

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@$(call install,--constraint constraints.txt --editable '.[offline$(comma)report]')
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@$(call install,--constraint constraints.txt --editable '.[dev]')
	@touch $@ $(VENV)/.demo
