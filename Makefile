# Two commands do everything on a fresh machine with Python 3.11+ and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo-out
MUTATIONS ?= 100000

.DELETE_ON_ERROR:
.PHONY: help install demo test test-slow fuzz lint docs bench clean

help:
	@echo "make demo       install, then run the whole pipeline on sample_data into $(OUT)/"
	@echo "make test       install, then run every test"
	@echo "make test-slow  the long validity studies"
	@echo "make fuzz       100,000 damaged inputs (MUTATIONS=N for another number); findings go to fuzz-findings/"
	@echo "make lint       ruff and mypy"
	@echo "make docs       write docs/cli.md from the command line's own help"
	@echo "make bench      segcal next to its peers: time and memory, as ratios (FULL=1: everything, hours)"

install: $(VENV)/.installed

# The stamp is last, so that an interrupted installation is taken up again.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

demo: install
	PATH="$(CURDIR)/$(BIN):$$PATH" $(MAKE) --no-print-directory -C sample_data -f demo.mk OUT="$(abspath $(OUT))"

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term:skip-covered -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -m slow

fuzz: install
	OMP_NUM_THREADS=1 MALLOC_ARENA_MAX=1 $(BIN)/python -m tests.fuzz.campaign --mutations $(MUTATIONS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/python docs/make_cli_reference.py

bench: install
	$(BIN)/python benchmarks/run.py --write $(if $(FULL),--full)

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info
