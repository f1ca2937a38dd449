# Every target sets itself up: a bare Python 3.10-3.13 and the package registries are enough.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ARGS ?=
# The tests start many servers: their code is compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-slow test-browser test-all demo lint types docs bench patches clean

run: $(VENV)/.installed
	$(BIN)/python main.py $(ARGS)

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow and not browser" -n 2 $(ARGS)

test-browser: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

test-all: test test-slow test-browser

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/docs $(ARGS)

# Needs no environment: the weaver runs in any bare Python.
patches:
	$(PYTHON) patches/weave.py verify .

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/executor_cost.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/download_speed.py

$(VENV)/.installed: requirements.txt scripts/check_python.py
	$(PYTHON) scripts/check_python.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt requirements-s3.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .demo
