# Everything goes through .venv, which `make setup` builds; each target does set-up by itself.
#   make demo                    a load test of a local relay with 40 browser connections
#   make test                    lint, types and the tests
#   make test ARGS="-k cli -x"   with arguments for pytest

PYTHON ?=
SCENARIO ?= local
ARGS ?=
RUN := .venv/bin
export PYTHON
# Processes of ours start one another by the dozen: each would compile Prefect anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup test-hosts demo test slow lint format bench faults faults-full lock clean

help:
	@echo "make demo    load a local relay with 40 browser connections for about 75 s, and report"
	@echo "make test    lint, types and tests (ARGS=... goes to pytest)"
	@echo "make slow    the tests that take a minute each"
	@echo "make lint    lint and types only"
	@echo "make bench   measure what the README claims; writes benchmarks/results.md"
	@echo "make faults  interrupt and kill runs at random instants, and count what leaks"
	@echo "make clean   remove all that set-up made; results/ stays"

setup:
	@scripts/setup

test-hosts: setup
	@scripts/setup-test-hosts

demo: setup
	@$(RUN)/relay-load run $(SCENARIO)

test: lint test-hosts
	@scripts/test $(ARGS)

slow: test-hosts
	@$(RUN)/python -m pytest -m slow $(ARGS)

lint: setup
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy

format: setup
	@$(RUN)/ruff check --fix .
	@$(RUN)/ruff format .

bench: test-hosts
	@$(RUN)/python -m benchmarks $(ARGS)

faults: test-hosts
	@$(RUN)/python -m benchmarks.faults $(ARGS)

faults-full: test-hosts
	@$(RUN)/python -m benchmarks.faults --full $(ARGS)

lock: setup
	@scripts/lock

clean:
	rm -rf .venv node_modules .setup worker_agent/page/dist worker_agent/examples/dist \
		reports/templates/vendor \
		local_relay/dist .mypy_cache .ruff_cache .pytest_cache build dist
