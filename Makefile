# `make demo` and `make test` need Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SAE_LIBRARIES := dictionary-learning saev overcomplete visaebench

LOWEST := .venv-lowest
NEXT := .venv-next

.PHONY: install test test-portable test-lowest test-next test-browser browser lint demo verify benchmark mutants clean

install: $(STAMP)

# torch goes first and alone, so that the pinned build is taken and nothing else chooses one. The SAE libraries make
# checkpoints for tests, and come without what they would pull in (nnsight, torchvision, timm), which they do not need.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps $(SAE_LIBRARIES)
	touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A file's tests stay together, since they share what is slow to make; a process a core, each with one thread.
test: lint browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

# The same under other arithmetic: sums in the order of a processor without vector instructions, then of two threads.
test-portable: $(STAMP) browser
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

# The suite with the oldest release of each library that pyproject.toml takes; constraints.txt is the other end. PYTHON is
# 3.11 here: the oldest releases have no wheels for later ones.
test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest --numprocesses auto --dist loadfile

$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable ".[test]"
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --no-deps $(SAE_LIBRARIES)
	touch $@

# The encoders' tests with transformer-lens 4, which SAE-Lens 6 does not take: hence --no-deps.
test-next: $(NEXT)/.installed
	OMP_NUM_THREADS=1 $(NEXT)/bin/python -m pytest --numprocesses auto --dist loadfile tests/test_encoders_*.py \
		tests/test_demo_encoder.py tests/test_store*.py

$(NEXT)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(NEXT)
	$(NEXT)/bin/pip install --quiet --constraint constraints.txt torch
	$(NEXT)/bin/pip install --quiet uv
	$(NEXT)/bin/uv pip install --quiet --python $(NEXT) --constraint constraints.txt --editable ".[test]"
	$(NEXT)/bin/uv pip install --quiet --python $(NEXT) --no-deps "transformer-lens>=4.3,<5"
	touch $@

# Chromium from the system's packages, for the tests of the report; where it cannot be had, they are skipped.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || sh tests/install-chromium.sh

test-browser: $(STAMP) browser
	$(BIN)/python -m pytest tests/test_report_browser.py

demo: $(STAMP)
	$(BIN)/medsae demo --out runs/demo

# What training learns, which no test asserts: make verify SEEDS=10
SEEDS ?= 3
verify: $(STAMP)
	$(BIN)/python -W ignore benchmarks/verify.py --seeds $(SEEDS)

# Which changes of one operator or number no test notices, of a sample a module; hours, so in the background:
# nice make mutants > mutants.txt 2>&1 &   or of some: make mutants MODULES="scores/scoring data/splits" EACH=4
EACH ?= 14
mutants: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt "cosmic-ray>=8.4"
	$(BIN)/python scripts/mutants.py --each $(EACH) $(MODULES)

benchmark: $(STAMP)
	$(BIN)/python benchmarks/extract.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/evaluate.py
	$(BIN)/python benchmarks/report.py

clean:
	rm -rf $(VENV) $(LOWEST) $(NEXT) build dist *.egg-info
