# Every target is one line into a real tool. `make help` explains them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTHON ?= python3
UV := $(BIN)/uv
export UV_SYSTEM_CERTS ?= true
PACKAGES := libs/flux_common libs/flux_client libs/flux_devkit services/ingest services/transform services/checkpoint services/audit
COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet \
  $(foreach name,flux-common flux-client flux-devkit flux-ingest flux-transform flux-checkpoint flux-audit,--no-emit-package $(name))
STAMP := .venv/.flux-setup

.PHONY: help
help: ## Explain every target
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Make .venv from the hash-pinned lock, and install Flux into it
$(STAMP): requirements/dev.lock requirements/bootstrap.lock $(PACKAGES:%=%/pyproject.toml)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "Flux needs Python >= 3.11 with venv (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Flux needs Python >= 3.11; call: make PYTHON=python3.11 ..." >&2; exit 1; }
	@test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	@touch $@

.PHONY: lock
lock: ## Compile the hash-pinned locks again (UPGRADE=--upgrade takes newer releases)
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet $(UPGRADE) -o requirements/bootstrap.lock requirements/bootstrap.in
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet $(UPGRADE) -o requirements/tools.lock requirements/tools.in
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet $(UPGRADE) -o requirements/linters.lock requirements/linters.in
	$(COMPILE) $(UPGRADE) --group dev -o requirements/dev.lock pyproject.toml $(PACKAGES:%=%/pyproject.toml)
	$(foreach service,ingest transform checkpoint audit,$(COMPILE) -c requirements/dev.lock -o requirements/$(service).lock libs/flux_common/pyproject.toml services/$(service)/pyproject.toml &&) true

.PHONY: schemas
schemas: setup ## Write schemas/ and docs/error-codes.md from the contract models (RELEASE=--release freezes new ones)
	$(BIN)/python -m flux_common.contracts $(RELEASE)

.PHONY: check
check: setup ## Check format, lint, types, imports and the tidy rules; change nothing
	$(BIN)/ruff format --check && $(BIN)/ruff check && $(BIN)/mypy && $(BIN)/lint-imports --no-logo && $(BIN)/pytest -q tests/architecture

.PHONY: format
format: setup ## Format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix --exit-zero --quiet && $(BIN)/ruff format

.PHONY: demo
demo: setup ## Run the main job end to end on real servers, and show what came out (SOURCE=/your/folder)
	@$(BIN)/python -m flux_devkit.demo $(if $(SOURCE),--source "$(SOURCE)")

.PHONY: test
test: setup ## Set up, and pass every test (real Kafka and PostgreSQL; about 25 minutes on two cores)
	$(BIN)/pytest -q $(or $(TESTS),tests/architecture tests/contracts tests/unit tests/deploy tests/integration tests/e2e)

.PHONY: up
up: setup ## Start Kafka, PostgreSQL and the four services in the background; write .flux/dev.env
	@$(BIN)/flux-dev up

.PHONY: down
down: setup ## Stop exactly what `make up` started
	@$(BIN)/flux-dev down

.PHONY: logs
logs: setup ## Show the last log lines of everything that `make up` started
	@$(BIN)/flux-dev logs

.PHONY: prove-backbone
prove-backbone: setup ## Show, with figures, that the backbone holds what it promises (an hour and a quarter on two cores)
	@$(BIN)/python -m flux_devkit.prove backbone $(if $(ONLY),--only "$(ONLY)")

.PHONY: prove-trust
prove-trust: setup ## Show, with figures, that nobody asks in another's name and nothing stops a lane (about twenty minutes)
	@$(BIN)/python -m flux_devkit.prove trust $(if $(ONLY),--only "$(ONLY)")

.PHONY: prove-deployment
prove-deployment: setup ## Show, with figures, that the deployment holds what it promises (about forty minutes; promtool needs Go)
	@$(BIN)/python -m flux_devkit.prove deployment $(if $(ONLY),--only "$(ONLY)")

.PHONY: render
render: setup ## Write what follows from the code into deploy/k8s, and every overlay and component to .flux/rendered
	@$(BIN)/python -m flux_devkit.manifests generate && $(BIN)/python -m flux_devkit.manifests render

.PHONY: agency
agency: setup ## Add an agency to deploy/k8s: entry, topics, login, quota (make agency ARGS='esa --name … --issuer …'; see deploy/k8s)
	@$(BIN)/flux-etl agencies add $(ARGS) --agencies deploy/k8s/registry/agencies.yaml && $(BIN)/python -m flux_devkit.manifests generate

.PHONY: schema-sql
schema-sql: setup ## Write schema.sql, where the migrations lead, from a database that was just migrated
	@$(BIN)/python -m flux_devkit.schema_sql
