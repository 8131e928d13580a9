# Every target makes what it needs: `make demo` and `make test` run on a fresh machine that has Python 3.11 or
# newer and can reach a Python package index. Nothing here needs a GPU or writes outside this folder.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-newest lint venv notebooks clean

VENV   := .venv
PY     := $(VENV)/bin/python
NEWEST := .venv-newest
# The first interpreter that really runs and is new enough (a version manager's stand-in may exist and refuse).
FIND   = for p in $(1); do if "$$p" -c 'import sys; sys.exit(sys.version_info < $(2))' 2>/dev/null; then echo "$$p"; break; fi; done
PYTHON   ?= $(shell $(call FIND,python3.11 python3 python3.12 python3.13,(3,11)))
PYTHON12 ?= $(shell $(call FIND,python3.12 python3.13 python3,(3,12)))

# The host is enough for every target, and tests must not depend on what accelerator is there.
export JAX_PLATFORMS := cpu
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# No version look-ups and no progress bars: logs stay readable and installs quiet.
PIP := -m pip --disable-pip-version-check -qq --no-input

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: $(VENV)/.ready  ## the pinned virtual environment

$(VENV)/.ready: requirements/floor.txt requirements/floor-plugin.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "== setting up $(VENV) with $(PYTHON)"
	@time ( rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) \
	  && $(PY) $(PIP) install -r requirements/floor.txt \
	  && $(PY) $(PIP) install --no-deps -r requirements/floor-plugin.txt \
	  && $(PY) $(PIP) install --no-deps --no-build-isolation -e . )
	@touch $@

demo: venv  ## the main job: what prism finds, times and errors, on this machine's CPU
	$(PY) -m prism_jax demo

lint: venv  ## ruff and pyright
	@echo "== ruff"
	@time $(VENV)/bin/ruff check .
	@echo "== pyright"
	@time $(VENV)/bin/pyright --pythonpath $(PY)

test: lint  ## lint, types and every quick test
	@echo "== pytest"
	@time $(PY) -m pytest --durations=15 -m "not long and not gpu"

test-long: lint  ## the same with the long property tests (thousands of examples)
	$(PY) -m pytest --durations=30 -m "not gpu" --hypothesis-profile=long

test-newest: $(NEWEST)/.ready  ## the tests on Python 3.12 with the GPU machine's versions
	$(NEWEST)/bin/python -m pytest --durations=15 -m "not long and not gpu"

$(NEWEST)/.ready: requirements/mirror.txt requirements/mirror-plugin.txt pyproject.toml
	@test -n "$(PYTHON12)" || { echo "Python 3.12 is needed: make test-newest PYTHON12=/path/to/python3.12"; exit 1; }
	@echo "== setting up $(NEWEST) with $(PYTHON12)"
	@time ( rm -rf $(NEWEST) && $(PYTHON12) -m venv $(NEWEST) \
	  && $(NEWEST)/bin/python $(PIP) install -r requirements/mirror.txt \
	  && $(NEWEST)/bin/python $(PIP) install --no-deps -r requirements/mirror-plugin.txt \
	  && $(NEWEST)/bin/python $(PIP) install --no-deps --no-build-isolation -e . )
	@touch $@

notebooks: venv  ## run the notebooks and store their outputs
	$(PY) $(PIP) install -r requirements/notebooks.txt
	$(PY) notebooks/execute.py

clean:  ## remove the virtual environments and caches made here
	rm -rf $(VENV) $(NEWEST) .pytest_cache .ruff_cache .hypothesis build *.egg-info
