# make demo    the main job on phantom data, nothing to download
# make test    every test, in WORKERS (2) processes
# make check   lint, types, architecture and tests, as CI does
# make docs    write the pages and draw the pictures that are made from the code; make site builds them all into site/
# make fuzz    attack every reader for MINUTES (10) with inputs that are new each time

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo setup test check lint types architecture fuzz bench docs site notebooks clean

demo: setup
	$(BIN)/clearmargin demo --out demo

setup: .venv/.installed

WORKERS ?= 2

test: .venv/.installed-dev
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

check: lint types architecture test

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev
	$(BIN)/mypy

architecture: .venv/.installed-dev
	$(BIN)/lint-imports

MINUTES ?= 10

fuzz: .venv/.installed-dev
	$(BIN)/python -m tests.fuzz.run --minutes $(MINUTES)

# KERAS_PYTHON=PYTHON measures Keras too; how to make its environment is told in benchmarks/predict_peers.py
bench: .venv/.installed-dev
	$(BIN)/python benchmarks/pack.py
	$(BIN)/python benchmarks/audit.py
	$(BIN)/python benchmarks/similar.py
	$(BIN)/python benchmarks/epoch.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/train_peers.py $(if $(KERAS_PYTHON),--keras-python $(KERAS_PYTHON))
	$(BIN)/python benchmarks/predict_peers.py $(if $(KERAS_PYTHON),--keras-python $(KERAS_PYTHON))
	$(BIN)/python benchmarks/bootstrap.py
	$(BIN)/python benchmarks/serve.py

notebooks: .venv/.installed-dev
	$(BIN)/python notebooks/write.py

docs: .venv/.installed
	$(BIN)/python -m docs.writing
	$(BIN)/python -m docs.drawing

site: docs .venv/.installed-docs
	$(BIN)/zensical build

clean:
	rm -rf .venv demo build dist site

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) --editable .
	touch $@

.venv/.installed-docs: .venv/.installed
	$(PIP) --group docs
	touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) --editable . --group dev
	$(PIP) --no-deps timm huggingface_hub  # without torchvision, which does not import beside every build of torch
	touch $@
