# Two commands on a fresh machine with Python 3.11 or newer, pip and make:
#   make evaluate
#   make test
# Works with GNU make 3.81 and later. Everything is installed into .venv, nothing outside it.

PYTHON ?= python3
METHOD ?= imp
SUITE  ?= quick

# Files of tests run beside each other, and classes of tests; `make test PYTEST_PARALLEL=` runs one
# after the other.
PYTEST_PARALLEL ?= --numprocesses logical --maxprocesses 4 --dist loadscope \
  --no-loadscope-reorder

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install .venv evaluate site test test-all check clean

install: .venv/run.stamp

.venv: .venv/test.stamp

evaluate: .venv/run.stamp
	.venv/bin/lthbench evaluate $(METHOD) --suite $(SUITE)

# The leaderboard as files: open site/index.html.
site: .venv/run.stamp
	.venv/bin/lthbench leaderboard build site

test: .venv/test.stamp
	.venv/bin/python -m pytest -m "not slow" $(PYTEST_PARALLEL)

test-all: .venv/test.stamp
	.venv/bin/python -m pytest $(PYTEST_PARALLEL)

check: .venv/test.stamp
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# Results (lthbench-out) and the user's cache stay.
clean:
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What `lthbench` needs to run.
.venv/run.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'lthbench needs Python 3.11 or newer: name one, as in "make PYTHON=python3.12 ..."' >&2; \
	  exit 1; }
	@test -x .venv/bin/pip || $(MAKE_VENV)
	.venv/bin/python -m pip install --editable .
	@touch $@

# What the checks and tests need besides.
.venv/test.stamp: .venv/run.stamp
	.venv/bin/python -m pip install --editable '.[test]'
	@touch $@

# Some systems split ensurepip off `python3 -m venv`; virtualenv, fetched into a folder that is
# removed again, does without it, and --target leaves a Python that its system manages alone.
define MAKE_VENV
if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
  $(PYTHON) -m venv --clear .venv; \
elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
  tools=`mktemp -d` && \
  $(PYTHON) -m pip install --quiet --target "$$tools" virtualenv && \
  PYTHONPATH="$$tools" $(PYTHON) -m virtualenv --quiet --clear .venv; \
  status=$$?; rm -rf "$$tools"; exit $$status; \
else \
  echo '$(PYTHON) has neither ensurepip nor pip: install python3-venv (apt) or a full Python' >&2; \
  exit 1; \
fi
endef
