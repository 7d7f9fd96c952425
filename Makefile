# Two commands do all the set-up: `make serve` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install serve stack test test-faults test-stack test-gpu check audit format bench clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tollgate needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || { echo "[1/3] creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "[2/3] installing the locked packages (about 1 GB with PyTorch; a few minutes the first time)"
	@$(BIN)/pip install --progress-bar on --disable-pip-version-check -q -c constraints.txt torch
	@$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[starter,dev]'
	@echo "[3/3] compiling the kernels for this machine"
	@$(BIN)/python -m app.engine.compute.precompile
	@touch $@

serve: install
	@$(BIN)/tollgate serve --welcome

test: install
	$(BIN)/pytest

# The long ones, wherever they are: 20 kills under 32 streams, a minute without PostgreSQL, Redis away under a crowd, 5 x the
# capacity, 10,000 jobs, 10,000 cases of the OpenAPI document, … 35 tests, 15 to 32 minutes on two quiet cores; each has a
# bound of its own. Each makes its own data folder, and a fresh database on the one PostgreSQL they share.
test-faults: install
	$(BIN)/pytest -s -m fault_long

# What needs a CUDA device. Its torch may be another build than the lock's: run it with the Python that has it.
test-gpu:
	$(or $(GPU_PYTHON),$(BIN)/python) -m pytest -m gpu tests/gpu

# The compose stack as plain processes, from the files under deploy/: nginx, two replicas, PostgreSQL, Redis, Prometheus.
stack: install
	@$(BIN)/python -m deploy.stack

# 64 customers on that stack while its parts are killed; throughput; a soak of SOAK_S seconds (1800 is the full one).
SOAK_S ?= 60
test-stack: install
	SOAK_S=$(SOAK_S) $(BIN)/pytest -s -m stack tests/stack

check: install
	$(BIN)/ruff format --check app tests benchmarks deploy
	$(BIN)/ruff check app tests benchmarks deploy
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/bandit -q -r app -ll

# Known vulnerabilities of the locked packages. No part of CI: it asks osv.dev, and says so when it cannot.
audit: install
	@curl -sS --max-time 10 -o /dev/null https://api.osv.dev/ || { echo "make audit: NOT AUDITED: osv.dev cannot be reached from here"; exit 2; }
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install -q pip-audit; }
	$(VENV)/audit/bin/pip-audit --vulnerability-service osv --no-deps --disable-pip -r constraints.txt

format: install
	$(BIN)/ruff format app tests benchmarks deploy
	$(BIN)/ruff check --fix app tests benchmarks deploy

bench: install
	@echo "installing the engines to compare with; then every work runs (--help: python -m benchmarks --help)"
	@$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks --write

clean:
	rm -rf $(VENV) build *.egg-info
