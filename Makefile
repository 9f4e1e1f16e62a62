# fediwarden: `make` shows what there is to make. ARGS="..." is handed on to the command of a target.

VENV ?= .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
GPU := $(VENV)/.gpu-installed
SWEEP := $(VENV)/.sweep-installed
EXCHANGES := $(VENV)/.exchanges-installed
DEV := $(VENV)/.dev-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV_COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --group build
ARGS ?=
SECONDS ?= 60
# Tests wait as much as they work: three at a time fill two cores. WORKERS=0 runs them in one process.
WORKERS ?= 3

# Progress bars belong on a terminal; elsewhere they fill a log. (Make reads the shell's standard output itself.)
QUIET := $(shell test -t 2 || echo --quiet)
PIP_INSTALL := $(PIP) install $(QUIET)

# Hundreds of processes start in a run of the tests: what they import is compiled once, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup gpu sweep exchanges dev up demo test test-all check bench audit fuzz licences test-faults test-long test-pictrs test-rules \
	test-synapse test-compose sbom reference docs docs-serve lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(RUNTIME) ## Make the virtual environment with the fediwarden command in it
	@echo "Ready: $(BIN)/fediwarden. Start it all with: make up"

gpu: $(GPU) ## The same, with what CLIP models need: the extra fediwarden[gpu], 6 GB

sweep: $(SWEEP) ## The same, with what sweeps of folders, S3 and SFTP need: the extra fediwarden[sweep]

exchanges: $(EXCHANGES) ## The same, with what hash exchanges need: the extra fediwarden[exchanges] and a C++ compiler

dev: $(DEV) ## The same, with everything that tests and checks need

up: $(RUNTIME) ## Start Kafka, gateway and scanner (ARGS="--port 14061" and the like)
	@$(BIN)/fediwarden up $(ARGS)

demo: $(RUNTIME) ## A week of an invented fediverse through the real pipeline, and the pages that show who is bad
	@$(BIN)/fediwarden demo $(ARGS)

test: $(DEV) ## Run the whole suite but for the parts against a real pict-rs and a real Synapse
	$(PYTEST) -m "not pictrs and not synapse and not compose and not long" $(ARGS)

test-all: $(DEV) ## The suite with those parts: what CI runs
	sh tests/pictrs/build.sh
	sh tests/synapse/install.sh $(BIN)/uv $(BIN)/python
	FEDIWARDEN_REQUIRE_PICTRS=1 FEDIWARDEN_REQUIRE_SYNAPSE=1 $(PYTEST) -m "not compose and not long" $(ARGS)

test-long: $(DEV) ## What takes minutes: the demo, how every page looks, the audit on a failing PostgreSQL, more examples
	$(BIN)/python -m pytest -m "long or hypothesis" --hypothesis-profile=thorough $(ARGS)

check: $(DEV) ## Lint, types, import rules, dependencies, licences, known vulnerabilities (where osv.dev answers)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry .
	$(BIN)/pip-licenses >/dev/null
	$(PIP) check
	sh .ci/audit $(BIN)/uv || [ $$? -eq 3 ]

audit: $(DEV) ## Ask osv.dev about known vulnerabilities of what is locked: as check does, but without an answer it fails
	sh .ci/audit $(BIN)/uv

fuzz: $(DEV) ## Fuzz each parser for SECONDS (60); what breaks one is left in .fuzz (make test has a short form)
	$(BIN)/python -m tests.fuzz .fuzz -max_total_time=$(SECONDS) $(ARGS)

licences: $(DEV) ## Write dist/licences.txt: what `make setup` installs, each with its licence's text
	@mkdir -p dist
	$(BIN)/pip-licenses --allow-only= --ignore-packages pip --packages $$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/\1/p' requirements.lock) \
		--format=plain-vertical --with-urls --with-license-file --no-license-path --with-notice-file --output-file dist/licences.txt

bench: $(DEV) ## Measure the pipeline on this machine (minutes)
	$(BIN)/python -m bench.run $(ARGS)

test-faults: $(DEV) ## Break every part under load, one by one and at random (15 minutes; make test has a short form)
	FEDIWARDEN_FAULTS=long $(BIN)/python -m pytest tests/faults --durations=0 $(ARGS)

test-pictrs: $(DEV) ## Build pict-rs with cargo (once) and test against it
	sh tests/pictrs/build.sh
	FEDIWARDEN_REQUIRE_PICTRS=1 $(BIN)/python -m pytest -m pictrs tests/pictrs $(ARGS)

test-synapse: $(DEV) ## Install Synapse beside us (once) and test our module in it
	sh tests/synapse/install.sh $(BIN)/uv $(BIN)/python
	FEDIWARDEN_REQUIRE_SYNAPSE=1 $(BIN)/python -m pytest -m synapse tests/synapse $(ARGS)

test-compose: $(DEV) ## Build the images and run compose/ with them: Docker, or the compose lab (docs/compose.md; some 15 minutes, the first time more)
	sh tests/compose/run.sh $(BIN)/python $(ARGS)

sbom: $(BIN)/python ## What fediwarden consists of, by the lock files, in CycloneDX: dist/*.cdx.json
	test -x dist/cyclonedx/bin/cyclonedx-py || { $(BIN)/python -m venv dist/cyclonedx && \
		dist/cyclonedx/bin/python -m pip --disable-pip-version-check install $(QUIET) --require-hashes --requirement compose/sbom.lock; }
	for which in "" -gpu; do dist/cyclonedx/bin/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml \
		--output-format JSON --output-file dist/fediwarden$$which.cdx.json requirements$$which.lock || exit 1; done

test-rules: $(DEV) ## Check and test the alert rules with Prometheus' promtool (from Debian's package)
	sh tests/promtool.sh $(VENV)/promtool
	FEDIWARDEN_REQUIRE_PROMTOOL=1 PATH="$(VENV)/promtool:$$PATH" $(BIN)/python -m pytest tests/unit/fediwarden/metrics/test_rules.py $(ARGS)

reference: $(DEV) ## Write the references in docs/settings.md, commands.md and metrics.md anew from the code
	$(BIN)/python -m fediwarden.reference

docs: $(DEV) ## Build the site of docs/ into website/build; a broken link or anchor fails
	$(BIN)/python -m website.pages
	$(BIN)/zensical build --config-file website/zensical.toml --strict --clean
	@! grep -lE '<(script|link|img|iframe)[^>]+(src|href)="?(https?:)?//' website/build/*.html || \
		{ echo "these pages load something from elsewhere" >&2; exit 1; }

docs-serve: docs ## The same, and show it on http://127.0.0.1:14059 (after an edit: make docs)
	$(BIN)/python -m http.server 14059 --bind 127.0.0.1 --directory website/build

lock: $(DEV) ## Write the lock files anew from pyproject.toml (ARGS=--upgrade for newer versions)
	$(UV_COMPILE) --output-file requirements.lock $(ARGS)
	$(UV_COMPILE) --extra gpu --constraint requirements.lock --output-file requirements-gpu.lock $(ARGS)
	$(UV_COMPILE) --extra sweep --constraint requirements.lock --output-file requirements-sweep.lock $(ARGS)
	$(UV_COMPILE) --extra exchanges --constraint requirements-sweep.lock --output-file requirements-exchanges.lock $(ARGS)
	$(UV_COMPILE) --extra gpu --extra sweep --group dev --constraint requirements-gpu.lock --output-file requirements-dev.lock $(ARGS)
	echo "matrix-synapse==1.163.2" | $(BIN)/uv pip compile - --quiet --universal --python-version 3.11 --no-annotate \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		--output-file tests/synapse/requirements.lock $(ARGS)
	echo "cyclonedx-bom" | $(BIN)/uv pip compile - --quiet --universal --python-version 3.11 --no-annotate \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		--output-file compose/sbom.lock $(ARGS)

clean: ## Remove the virtual environment and what the tools cached (no data, no downloads)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	sh .ci/venv $(VENV)

# Hatchling is in the lock and build isolation is off: nothing without a hash is fetched.
$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing fediwarden's packages into $(VENV) (about a minute)"
	$(PIP_INSTALL) --require-hashes --requirement requirements.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(GPU): requirements-gpu.lock $(RUNTIME)
	@echo "Installing what CLIP models need into $(VENV) (some 3 GB to download)"
	$(PIP_INSTALL) --require-hashes --requirement requirements-gpu.lock
	@touch $@

$(SWEEP): requirements-sweep.lock $(RUNTIME)
	@echo "Installing what sweeps of folders, S3 and SFTP need into $(VENV)"
	$(PIP_INSTALL) --require-hashes --requirement requirements-sweep.lock
	@touch $@

$(EXCHANGES): requirements-exchanges.lock $(RUNTIME)
	@echo "Installing what hash exchanges need into $(VENV) (some of it is compiled)"
	$(PIP_INSTALL) --require-hashes --requirement requirements-exchanges.lock
	@touch $@

# By uv, which takes a fifth of pip's time for these 6 GB; it has a registry setting of its own, so pip is the way out.
$(DEV): requirements-dev.lock pyproject.toml | $(BIN)/python
	@echo "Installing what tests and checks need into $(VENV)"
	@sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.lock >$(VENV)/uv.lock
	$(PIP_INSTALL) --require-hashes --requirement $(VENV)/uv.lock
	$(BIN)/uv pip install $(QUIET) --python $(BIN)/python --require-hashes --requirement requirements-dev.lock || \
		$(PIP_INSTALL) --require-hashes --requirement requirements-dev.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(RUNTIME) $@
