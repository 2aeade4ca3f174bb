# Everything a newcomer needs; `make help` lists it. Needs only Python 3.11+, make and git.
PYTHON ?= python3
STATE ?= .dev
EVENTS ?= examples/events.jsonl
RULES ?= examples/rules.yaml
BADGES ?= examples/badges.yaml
TESTS ?= tests
JOBS ?= 2
ENTRIES ?= 10000000
ACCOUNTS ?= 100000

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help setup demo up status test lint format proto proto-check bench-ledger bench-connect bench-nft bench-gateway lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the virtual environment: hash-locked, with uv if present, else pip

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV) (once; about a minute with pip, seconds with uv)"
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) && \
	  VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet --require-hashes -r requirements.lock && \
	  VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet --no-deps --no-build-isolation -e . ; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $@

demo: $(READY) ## play a week of events through the whole mesh (EVENTS= RULES= BADGES= FRESH=1)
	@python -m devstack demo --state $(STATE)/demo --events $(EVENTS) --rules $(RULES) --badges $(BADGES) $(if $(FRESH),--fresh)

up: $(READY) ## start everything and serve until Ctrl-C
	@python -m devstack up --state $(STATE)/up

status: $(READY) ## show what `make up` is running
	@python -m devstack status --state $(STATE)/up

test: $(READY) ## run the tests (TESTS=tests/unit for a part, JOBS=1 for one at a time)
	@python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

lint: $(READY) ## ruff, types, buf, import rules
	@ruff check .
	@ruff format --check --quiet .
	@mypy
	@buf lint
	@buf format --diff --exit-code
	@lint-imports --no-logo

format: $(READY) ## format Python and proto files
	@ruff check --fix --quiet . ; ruff format . ; buf format -w

proto: $(READY) ## lint, format and generate code from proto/
	@buf lint
	@buf format -w
	@buf generate
	@echo "gen/ is current"

proto-check: $(READY) ## check that gen/ is current and nothing breaks the contracts on main
	@tools/proto_check.sh

bench-ledger: $(READY) ## measure the ledger (ENTRIES= older entries to load first)
	@python -m bench.ledger --entries $(ENTRIES)

bench-connect: $(READY) ## measure Connect: rules, queue, the whole mesh (uses npm if there)
	@python -m bench.connect

bench-gateway: $(READY) ## measure minting and the devnet (ACCOUNTS= on the devnet)
	@GRPC_ENABLE_FORK_SUPPORT=false python -m bench.gateway --accounts $(ACCOUNTS)

bench-nft: $(READY) ## measure the NFT service: rewards, and the feed with a crowd of watchers
	@GRPC_ENABLE_FORK_SUPPORT=false python -m bench.nft

lock: $(READY) ## renew requirements.lock from pyproject.toml (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --all-extras pyproject.toml -o requirements.lock

clean: ## remove the virtual environment, state and caches
	rm -rf $(VENV) .dev .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
