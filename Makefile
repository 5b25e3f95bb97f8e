# PYTHON is the interpreter that .venv is made with: make quickstart PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# What a core sustains on the laptop's models, for the hours of a plan: the crossover study took 56 minutes on two.
TFLOPS ?= 0.0245
CLAIMS := paper c0 c5 c6
ifdef ALL
CLAIMS := paper c0 c3 c4 c5 c6 c7 c8 c9 c11 c12 c13
endif

.DEFAULT_GOAL := help
.PHONY: help setup quickstart claims test test-slow test-cuda chaos calibration lint clean

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(INSTALLED) ## Make .venv (Python 3.11 to 3.13), install the pinned versions, compile the kernels

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	$(BIN)/python -m harness.automata
	touch $@

quickstart: setup ## Run the smoke study (about 6 minutes on 2 cores) and write its report
	$(BIN)/python -m harness run search_spaces/smoke.py --beside results/crossover

claims: setup ## Run claims C0, C1, C2, C5, C6 on a laptop (4 hours on 2 cores), tables in results/; ALL=1: every claim
	for name in $(CLAIMS); do \
	  $(BIN)/python -m harness plan search_spaces/$$name.py:laptop --tflops $(TFLOPS) || exit; \
	done
	for name in $(CLAIMS); do \
	  $(BIN)/python -m harness run search_spaces/$$name.py:laptop --in-trial --tflops $(TFLOPS) || exit; \
	  $(BIN)/python -m analysis export $${NCA_STORE:-store} $${name}_laptop results/$${name}_laptop || exit; \
	  cp $${NCA_STORE:-store}/studies/$${name}_laptop/report.md results/$${name}_laptop/ || exit; \
	done

test: setup ## Run the tests, but for the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup ## Run the slow tests: kills, resumes and whole studies
	$(BIN)/python -m pytest -m slow

chaos: setup ## Kill generators, workers, machines and drivers 50 times under the smoke study
	$(BIN)/python -m tests.chaos

test-cuda: setup ## Run the tests of CUDA: kernels, without a device in Triton's interpreter; stages, on a device
	$(BIN)/python -c "import triton" 2>/dev/null || $(BIN)/python -m pip install triton==3.9.0
	$(BIN)/python -m pytest tests/test_cuda.py tests/test_on_cuda.py

calibration: setup ## Simulate how often intervals and verdicts are right (10 minutes on 2 cores): docs/calibration.md
	$(BIN)/python -m benchmarks.calibration --markdown docs/calibration.md --csv results/calibration.csv

lint: setup ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean: ## Remove the environment and what tools left behind; the store of results stays
	rm -rf .venv *.egg-info build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
