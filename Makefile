# PYTHON is the interpreter that .venv is made with: make quickstart PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-slow test-cuda lint clean

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(INSTALLED) ## Make .venv (Python 3.11 to 3.13), install the pinned versions, compile the kernels

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	$(BIN)/python -m harness.automata
	touch $@

quickstart: setup ## Run the smoke study (under 5 minutes on 2 cores) and write its report
	$(BIN)/python -m harness run search_spaces/smoke.py --beside results/crossover

test: setup ## Run the tests, but for the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup ## Run the slow tests: kills, resumes and whole studies
	$(BIN)/python -m pytest -m slow

test-cuda: setup ## Run the tests of the CUDA kernels, without a device in Triton's interpreter
	$(BIN)/python -c "import triton" 2>/dev/null || $(BIN)/python -m pip install triton==3.9.0
	$(BIN)/python -m pytest tests/test_cuda.py

lint: setup ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean: ## Remove the environment and what tools left behind; the store of results stays
	rm -rf .venv *.egg-info build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
