# make demo    set everything up in .venv and run the demonstration
# make test    set everything up, check style, types and layers, run all tests
# make lint    the checks alone
# make bench   the benchmarks
# make clean   remove everything that was made
#
# It needs Python 3.11 or newer (PYTHON=... names one), pip's registry, and nothing else:
# the C compiler comes from there as well.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV := .venv
OLDEST := .venv-oldest
OLDEST_WASMTIME := 48
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

NATIVE_SOURCES := $(wildcard wali_core/_table.py wali_core/_constants.py wali_core/_layout.py \
                             wali_core/native/*.[ch] wali_core/native/*.py wasi_shim/src/*.[ch])
C_SOURCES = $(shell git ls-files -co --exclude-standard '*.c' '*.h' 2>/dev/null \
                    || find wali_core wasi_shim tests examples benchmarks -name '*.[ch]')

.PHONY: help setup demo test lint oldest bench clean
help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,5p'

setup: $(VENV)/.native

demo: setup
	@$(BIN)/python -m examples.demo

# pytest comes last, so that its closing line is the last line.
test: setup lint oldest
	@$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/clang-format --dry-run -Werror $(C_SOURCES)

oldest: setup $(OLDEST)/.installed
	@$(OLDEST)/bin/python -m pytest -m oldest -p no:cacheprovider

bench: setup
	@$(BIN)/python -m benchmarks.report

clean:
	rm -rf $(VENV) $(OLDEST) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	       .import_linter_cache wali_core/native/libwali.so wasi_shim/shim.wasm
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Names are tried by running them: a version manager's shim exists without its Python, and Debian
# packages venv apart.
$(VENV)/.made:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	            2>/dev/null; then \
	        echo "Making $(VENV) with $$("$$python" --version) ($$(command -v "$$python"))"; \
	        "$$python" -m venv --clear $(VENV); \
	        touch $@; \
	        exit 0; \
	    fi; \
	done; \
	echo "No Python 3.11 or newer with its venv module was found on PATH:" \
	     "install one (Debian: apt install python3 python3-venv) or name it with PYTHON=..." >&2; \
	exit 1

# Without build isolation: the compiler that the dev group installs also builds the package.
$(VENV)/.installed: $(VENV)/.made pyproject.toml
	@echo "Installing what $(VENV) needs (about 150 MB to fetch when pip has none of it yet)"
	@$(PIP) install --quiet --upgrade 'pip>=25.1'
	@$(PIP) install --quiet --group dev
	@$(PIP) install --quiet --no-build-isolation --editable .
	@touch $@

$(VENV)/.native: $(VENV)/.installed $(NATIVE_SOURCES)
	@echo "Compiling the core and the shim"
	@$(BIN)/python wali_core/native/compile.py
	@touch $@

# The oldest wasmtime alone; all else comes from .venv, which follows on the path.
$(OLDEST)/.installed: $(VENV)/.installed
	@echo "Making $(OLDEST) with wasmtime $(OLDEST_WASMTIME)"
	@$(BIN)/python -m venv --clear --without-pip $(OLDEST)
	@$(PIP) --python $(OLDEST)/bin/python install --quiet --no-deps 'wasmtime==$(OLDEST_WASMTIME).*'
	@site() { "$$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }; \
	    rest=$$(site $(BIN)/python); \
	    echo "import site; site.addsitedir('$$rest')" > "$$(site $(OLDEST)/bin/python)/rest.pth"
	@touch $@
