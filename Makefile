# Everything is installed into .venv; a fresh machine only needs make and Python 3.11 or newer.
# `make help` lists the targets.

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo serve test check quick-tests soak image lint format docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo '  settings: SEQREC_HOME (./var), SEQREC_HOST (127.0.0.1), SEQREC_PORT (8000); PYTHON (the Python to use)'

demo: $(VENV)/.installed-cpu ## train, evaluate, index and serve the bundled data set
	@SEQREC_HOME="$${SEQREC_HOME:-var}/demo" $(VENV)/bin/python -m seqrec up data/online-retail/shop.toml

serve: $(VENV)/.installed-cpu ## serve what is published under SEQREC_HOME
	@$(VENV)/bin/python -m seqrec serve

test: lint ## style, types, import directions and every test
	$(VENV)/bin/python -m pytest -n 2 --dist loadscope

check: $(VENV)/.installed-dev ## style, types, import directions and the tests that are not slow
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint quick-tests

quick-tests: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n 2 --dist loadscope -m 'not slow'

soak: $(VENV)/.installed-dev ## 200 random kills under load, then the proofs of tests/e2e at length
	$(VENV)/bin/python -m seqrec bench soak
	$(VENV)/bin/python -m pytest tests/e2e --soak

image: $(VENV)/.installed-cpu ## build the serving image with buildah, start it read-only, query it (root, Debian)
	./deploy/image.sh

lint: $(VENV)/.installed-dev ## style, types and import directions
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed-dev ## format the code
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

docs: $(VENV)/.installed-dev ## build the documentation as a site in build/site; a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --clean --quiet
	@echo 'to view it: $(VENV)/bin/python -m http.server --directory build/site'

clean: ## remove .venv and caches; SEQREC_HOME stays
	rm -rf $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch is installed first and alone: the exact version selects the build without CUDA where pip finds one, a looser
# request downloads gigabytes. The marker files are touched last, so an interrupted installation is continued.
$(VENV)/.installed-cpu: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install $(TORCH) -c constraints.txt
	$(PIP) install -c constraints.txt -e '.[cpu,shop,train]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install $(TORCH) -c constraints.txt
	$(PIP) install -c constraints.txt -e '.[cpu,shop,train,dev]'
	@touch $(VENV)/.installed-cpu $@

# A name on the PATH may be a shim, or lack the module venv, so each is tried.
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
