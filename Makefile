# make demo   train a small GPT-NeoX, measure every checkpoint, draw the planes   (about 6 minutes on 2 cores)
# make test   all tests                                                          (10 to 12 minutes on 2 cores)
# make bench  speed and memory as ratios                                         (about 50 minutes on 2 cores)
# make check  format, lint, types
# Each sets up .venv first; nothing else is needed but Python >= 3.11 and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test bench check clean

demo: $(READY)
	$(BIN)/infocomp demo --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

bench: $(READY)
	$(BIN)/python -m benchmarks

check: $(READY)
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright --pythonpath $(BIN)/python

# soft-entropy is an oracle of the tests; it asks for jax, which neither it nor they need
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "infocomp needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	@echo "setting up $(VENV): about 2 GB, 2 to 5 minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps soft-entropy
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
