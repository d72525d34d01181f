# Everything from a clean clone: each target makes .venv first when it is missing or out of date.

VENV   := .venv
READY  := $(VENV)/.ready
EXTRAS := text,image,graph,offline,search,mteb,docs,dev
# Python 3.11 is the tested one; any later one may do. Another: make PYTHON=/path/to/python demo
PYTHON ?= $(shell for each in python3.11 python3; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)

# The pins hold for what pip builds with as well. By a relative path: pip splits these at spaces.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: demo test lint docs bench clean help

demo: $(READY)  ## an English sentence encoder learns Latvian, in minutes
	$(VENV)/bin/contrapose demo

test: $(READY)  ## the tests, two at a time
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal

lint: $(READY)  ## style, formatting and the import rules
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/lint-imports --no-logo

docs: $(READY)  ## the documentation, into site/
	$(VENV)/bin/mkdocs build --strict
	@echo "Written: site/index.html"

bench: $(READY)  ## a benchmark: make bench ONLY=demo, or with arguments ONLY=training ARGS=speed; without ONLY their names
	@$(if $(ONLY),$(VENV)/bin/python $(or $(wildcard benchmarks/bench_$(ONLY).py),$(error There is no benchmarks/bench_$(ONLY).py)) $(ARGS),\
		for script in benchmarks/bench_*.py; do echo "$$script"; head -n 1 $$script | sed 's/"""/    /;s/"""//'; done)

clean:  ## remove .venv and everything that was built; runs/ stays
	rm -rf $(VENV) site dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	find src tests docs -name __pycache__ -type d -exec rm -rf {} +

help:
	@echo "make TARGET:"
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST)

# PyTorch goes in alone and first: no other package's looser request can then fetch a larger build of it.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "contrapose needs Python 3.11 or later, and none was found. Install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): once, about two minutes."
	@$(PYTHON) -m venv $(VENV)
	@echo "  1/2  PyTorch (200 MB as a CPU build, gigabytes otherwise: README, 'CPU build')"
	@$(VENV)/bin/pip install -qq torch -c constraints.txt
	@echo "  2/2  contrapose and the libraries it stands on"
	@$(VENV)/bin/pip install -qq -e ".[$(EXTRAS)]" -c constraints.txt
	@touch $@
	@echo "Ready."
