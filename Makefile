# `make demo` and `make test` set everything up in .venv and run, from nothing but Python 3.11+ and make.
# WORKERS: processes that tests run in.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin

.PHONY: setup demo docs test test-docs test-all lint types format audit sample-data qgis-plugin clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or later is needed, found {sys.version}"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# What only the pages need has a part of its own, so that the tests need not install it.
.venv/docs: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

# The site, without a network: docs/_build/html. SPHINXOPTS='-D nb_execution_mode=cache' runs changed notebooks only.
docs: .venv/docs
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going $(SPHINXOPTS) docs docs/_build/html

demo: setup
	$(BIN)/geopsp demo --out demo --overwrite

test test-docs test-all: export OMP_NUM_THREADS = 1

# Compiled files are kept, even where the environment says otherwise: tests start many processes.
unexport PYTHONDONTWRITEBYTECODE

test: setup
	$(BIN)/python tests/compile_kernels.py
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The code of the README and of all notebooks, at small size; `make test` runs one notebook.
test-docs: setup
	$(BIN)/python -m pytest -n $(WORKERS) -m 'slow or not slow' tests/test_readme.py tests/test_notebooks.py

test-all: setup
	$(BIN)/python tests/compile_kernels.py
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'slow or not slow' --hypothesis-profile=other

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Both lists have exact versions, so that nothing is resolved or installed. Floors: `"name>=1.2",` becomes name==1.2.
audit: setup
	@if ! $(BIN)/python -c 'import socket; socket.create_connection(("api.osv.dev", 443), 10)' 2>/dev/null; then \
		echo 'audit: skipped, as api.osv.dev, which lists known holes, cannot be reached from here.'; exit 0; \
	fi; set -e; \
	test -x .venv/audit/bin/pip-audit || { $(PYTHON) -m venv .venv/audit; .venv/audit/bin/pip install --quiet pip-audit; }; \
	sed -nE '/^dependencies/,/^]/s/^  "([A-Za-z0-9_-]+)>=([0-9.]+)",.*/\1==\2/p' pyproject.toml > .venv/floors.txt; \
	for list in constraints.txt .venv/floors.txt; do \
		echo "audit: $$list"; \
		.venv/audit/bin/pip-audit --vulnerability-service osv --no-deps --disable-pip --requirement $$list; \
	done

sample-data: setup
	$(BIN)/python sample_data/make.py

# The plugin for QGIS, in a ZIP that QGIS installs.
qgis-plugin:
	$(PYTHON) qgis/make_zip.py

clean:
	rm -rf .venv demo build dist docs/_build docs/reference/shell .pytest_cache .mypy_cache .ruff_cache
