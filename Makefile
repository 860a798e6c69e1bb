# `make` alone lists the targets. Everything that needs the environment makes it first; that is quick when nothing changed.
PYTHON ?=
BIN := .venv/bin
# The second for the chart: Helm reads nothing outside of it.
CRDS := crds/swapstats.io_swapstats.yaml charts/swapstats/files/swapstats.io_swapstats.yaml
REACHING := $(addprefix tests/,core decider aggregator api)
MEMBERS := core/src runtime/src decider/src aggregator/src api/src operator/src cli/src

.DEFAULT_GOAL := help
.PHONY: help install kafka kubernetes run test coverage chaos cluster cluster-down e2e soak check lint types layers pins audit generated crds reference format bench version lock clean

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
	    printf '  make %-12s %s\n' "$$target" "$$text"; done

# Candidates are run, not only looked up: a version manager's shim may exist for a Python that doesn't. The environment's
# own comes first, so that another shell's PATH doesn't remake it.
install: ## Make .venv with everything (PYTHON=/path/to/python3 to choose; 3.11 to 3.13)
	@for python in $(or $(PYTHON),$(BIN)/python python3.13 python3.12 python3.11 python3); do \
	    if "$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	done; \
	command -v "$$python" >/dev/null || { echo "Python 3.11 or newer is needed: there is no $$python" >&2; exit 1; }; \
	"$$python" requirements/install.py

kafka: install ## Fetch Apache Kafka for `swapstats dev --broker kafka` and the tests that need it (Java 17, Maven)
	@$(BIN)/python requirements/kafka/fetch.py

kubernetes: install ## Build Kubernetes' servers for the tests that need them (Go; 7 minutes the first time)
	@$(BIN)/python -m e2e.cluster.build kubernetes

run: install ## Start the whole system on this machine, with a live demo stream
	@$(BIN)/swapstats dev -f examples/demo.yaml --data-dir .swapstats --demo

test: install ## Run every test but those of chaos and reads
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

coverage: install ## Measure which lines and branches the tests reach that start no whole system
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --cov $(REACHING)

chaos: install ## Kill and stop everything while swaps flow, on real servers and in 500 simulations (SWAPSTATS_SEED=N: again; 10 minutes)
	@SWAPSTATS_SEEDS=500 $(BIN)/python -m pytest tests/simulation tests/chaos tests/reads
	@SWAPSTATS_EXAMPLES=100 HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest tests/core/test_events.py tests/core/test_oracle.py tests/core/test_partition_against_oracle.py

cluster: install ## Start a Kubernetes cluster of two nodes on this machine, without Docker (root, Go; prints its kubeconfig)
	@$(BIN)/python -m e2e.cluster up

cluster-down: install ## Stop it, and take away all of it but its logs
	@$(BIN)/python -m e2e.cluster down

e2e: install ## Test on a real cluster: SWAPSTATS_E2E_KUBECONFIG's, or one that is made for it
	@$(BIN)/python -m pytest e2e --timeout 600

soak: install ## The system tests with the times of real faults, and new examples for the property tests (about an hour)
	@SWAPSTATS_LONG=1 $(BIN)/python -m pytest tests/system tests/aggregator/test_failpoints.py tests/simulation
	@SWAPSTATS_LONG=1 $(BIN)/python -m pytest tests/chaos tests/reads
	@SWAPSTATS_LONG=1 $(BIN)/python -m pytest e2e/test_upgrade.py --timeout 1200
	@SWAPSTATS_EXAMPLES=3000 HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest tests/core --timeout 1200

check: lint types layers pins audit generated ## Lint, format, types, layers, pins, known holes, generated files (make -k check: go on after a finding)

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: install
	$(BIN)/mypy

layers: install
	$(BIN)/lint-imports

pins: install
	$(BIN)/python requirements/lock.py --check
	$(BIN)/python requirements/declared.py
	$(BIN)/python requirements/version.py --check
	$(BIN)/python requirements/kafka/fetch.py --check

audit: install ## Hold the pins against the holes that are known in what they name
	@$(BIN)/python requirements/audit.py

generated: install
	@$(BIN)/python -m swapstats_operator.crd --check $(CRDS)
	@$(BIN)/python -m swapstats_operator.reference --check docs/reference.md

crds: install ## Generate the custom resource definition from the model
	@$(BIN)/python -m swapstats_operator.crd $(CRDS)

reference: install ## Generate docs/reference.md, the page of all keys, from the model
	@$(BIN)/python -m swapstats_operator.reference docs/reference.md

format: install ## Format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

bench: install ## Measure; writes bench/results.json
	@$(BIN)/python -m bench

version: install ## Write what VERSION says wherever the version stands
	@$(BIN)/python requirements/version.py

lock: install ## Pin and hash the requirements again after an edit of requirements/*.in
	$(BIN)/python requirements/lock.py

clean: ## Remove the environment and caches (not .swapstats, which is data)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
