# Everything a fresh machine needs is put into .venv; all it must have itself is make and Python 3.11 or newer.
# `make help` lists what there is.

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo serve test check soak lint format docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo '  settings: SEQREC_HOME (./var), SEQREC_HOST (127.0.0.1), SEQREC_PORT (8000); PYTHON (the Python to use)'

demo: $(VENV)/.installed-cpu ## train, evaluate, index and serve the bundled data set
	@SEQREC_HOME="$${SEQREC_HOME:-var}/demo" $(VENV)/bin/python -m seqrec up data/online-retail/shop.toml

serve: $(VENV)/.installed-cpu ## serve what is published under SEQREC_HOME
	@$(VENV)/bin/python -m seqrec serve

test: lint ## style, types, import directions and every test
	$(VENV)/bin/python -m pytest -n 2 --dist loadscope

check: lint ## style, types, import directions and the tests that are not slow
	$(VENV)/bin/python -m pytest -n 2 --dist loadscope -m 'not slow'

soak: $(VENV)/.installed-dev ## 200 random kills under load, then the proofs of tests/e2e at length
	$(VENV)/bin/python -m benchmarks.soak
	$(VENV)/bin/python -m pytest tests/e2e --soak

lint: $(VENV)/.installed-dev ## style, types and import directions
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed-dev ## put the style right
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

docs: $(VENV)/.installed-dev ## build the documentation as a site in build/site; a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --clean --quiet
	@echo 'look at it: $(VENV)/bin/python -m http.server --directory build/site'

clean: ## remove .venv and caches; what lies under SEQREC_HOME stays
	rm -rf $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch is asked for alone and first: exactly this request takes the build without CUDA where pip finds one, a looser
# one pulls gigabytes. The marks are made last, so an installation that was broken off is taken up again.
$(VENV)/.installed-cpu: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install $(TORCH) -c constraints.txt
	$(PIP) install -c constraints.txt -e '.[cpu,shop,train]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install $(TORCH) -c constraints.txt
	$(PIP) install -c constraints.txt -e '.[cpu,shop,train,dev]'
	@touch $(VENV)/.installed-cpu $@

# A name on the PATH proves little (it may be a shim, or lack the module that makes environments): each is tried.
$(VENV)/bin/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$($$python --version)"; \
	    exec $$python -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo 'Python 3.11 or newer with the modules venv and ensurepip is needed, and was not found.' >&2; \
	echo 'Debian, Ubuntu: apt-get install python3 python3-venv. Elsewhere: make PYTHON=/path/to/python demo' >&2; \
	exit 1
