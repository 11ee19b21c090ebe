# Everything runs in a virtual environment that these targets create; nothing else is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NEURAL_TANGENTS := neural-tangents==0.6.5
# Atomistic data; its code, which wants an older scikit-learn, is never imported.
ATOMS := skmatter==0.4.1

# What benchmarks are measured against (engine, landscape); each in an environment of its own.
PEER_PYTHON ?= python3.11
PEERS := .venv-peers
PEER_PINS := studies/benchmarks/peers
PEER_INSTALLED := $(addprefix $(PEERS)/,$(addsuffix /.installed,neural-tangents pylfl topsearch))

.PHONY: demo test test-slow test-gpu lint types docs check peers clean

demo: $(VENV)/.installed
	$(BIN)/python -m studies run quickstart

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not gpu"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -m gpu

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check ntkstats studies tests

types: $(VENV)/.installed-dev
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: test lint types docs

# neural-tangents declares dependencies (TensorFlow among them) that nothing here needs.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(NEURAL_TANGENTS) $(ATOMS)
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

peers: $(PEER_INSTALLED)

$(PEERS)/neural-tangents/.installed: $(PEER_PINS)/neural_tangents.txt
$(PEERS)/pylfl/.installed: $(PEER_PINS)/pylfl.txt
$(PEERS)/topsearch/.installed: $(PEER_PINS)/topsearch.txt

$(PEER_INSTALLED):
	$(PEER_PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) site runs .pytest_cache .mypy_cache .ruff_cache
