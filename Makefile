# bridge: `make` lists what there is to do. Every target bootstraps what it needs from the package registries.
PY ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
V := .venv/bin
export UV_SYSTEM_CERTS = 1
export PYTHONDONTWRITEBYTECODE =
SYNC = $(V)/uv pip install -q --python $(V)/python --compile-bytecode --require-hashes
COMPILE = $(V)/uv pip compile -q pyproject.toml --universal --generate-hashes --no-header --no-annotate
WORKERS ?= 2
PYTEST = $(V)/python -m pytest -q

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.ok ## the main job on this machine: webhooks become runs that always end in a status
	@$(V)/bridgectl demo

test: .venv/.ok ## everything a clone can run; what the cluster's tests need is built once, 10 minutes
	@$(V)/python -m tests.cluster build --node >/dev/null
	@$(V)/python -m tests.browser >/dev/null
	$(PYTEST) -n $(WORKERS) -m "not node" tests
	$(PYTEST) -m node tests/node

test-local: .venv/.ok ## the tests of one machine alone, which need nothing built
	@$(V)/python -m tests.browser >/dev/null
	$(PYTEST) -n $(WORKERS) -m "not cluster and not node" tests

test-cluster: .venv/.ok ## the tests of the cluster's adapters, on a real API server (built once, 5 minutes)
	@$(V)/python -m tests.cluster build >/dev/null
	$(PYTEST) -n $(WORKERS) -m cluster tests

test-node: .venv/.ok ## the tests with pods that really run: image, chart, upgrade (root; what they need is built once, 10 minutes)
	$(PYTEST) -m node tests/node

test-browser: .venv/.ok ## the tests of the pages, in Debian's Chromium (which root gets when it is missing)
	@$(V)/python -m tests.browser >/dev/null
	$(PYTEST) -n $(WORKERS) -m browser tests/browser

test-js: .venv/.ok ## the tests of the JavaScript: the worker of one machine, and the package js/
	$(PYTEST) tests/local/test_worker_js.py tests/js

check: .venv/.ok ## format, lint, types, layers
	$(V)/ruff format --check .
	$(V)/ruff check .
	$(V)/mypy
	$(V)/lint-imports

format: .venv/.ok ## let ruff format and mend what it can
	$(V)/ruff format .
	$(V)/ruff check --fix .

bench: .venv/.ok ## side-by-side measurements (WHAT=accept|step|reconcile for one of them); needs wrk
	@$(V)/python -m tests.cluster build >/dev/null
	@$(V)/python -m bench $(WHAT)

chaos: .venv/.ok ## N runs (200) of real processes on a real API server, each with a fault; none may be lost or doubled
	@$(V)/python -m tests.cluster build >/dev/null
	BRIDGE_CHAOS_RUNS=$(or $(N),200) $(PYTEST) -s tests/cluster/test_chaos.py

cluster-up: .venv/.ok ## a real API server on this machine, built once (5 minutes), that runs until cluster-down
	@$(V)/python -m tests.cluster up

cluster-down: .venv/.ok ## stop it
	@$(V)/python -m tests.cluster down

node-up: .venv/.ok ## a node on which pods really run, with its API server (root; built once, 7 minutes), until node-down
	@$(V)/python -m tests.cluster node-up

node-down: .venv/.ok ## stop it, and remove all that it made
	@$(V)/python -m tests.cluster node-down

render: .venv/.ok ## render the committed pipelines into argo-templates/ and the chart
	$(V)/bridgectl render bridge/local/default_pipelines -o argo-templates
	$(V)/bridgectl render bridge/local/default_pipelines -o charts/bridge/files --image image-of-the-chart --namespace namespace-of-the-workflows
	$(V)/bridgectl render examples/widgets/pipelines -o argo-templates

lock: .venv/.ok ## resolve the locks again (UP=--upgrade takes newer versions)
	$(COMPILE) --group dev $(UP) -o requirements-dev.lock
	$(COMPILE) -c requirements-dev.lock -o requirements.lock
	$(COMPILE) --extra node -c requirements-dev.lock -o requirements-node.lock
	awk '/^uv==/{p=1;print;next} /^[a-z]/{p=0} p' requirements-dev.lock > requirements-uv.lock
	$(V)/uv pip compile -q --group web --universal --no-deps --generate-hashes --no-header --no-annotate $(UP) -o requirements-web.lock
	! grep -nE '[a-z]+://' requirements*.lock

bootstrap: .venv/.ok ## build .venv from the locks, and nothing else

clean: ## remove what was built and cached here
	rm -rf bridge/web/static/htmx.min.js .venv build dist .demo .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis examples/deliveries/node_modules js/test/node_modules tests/browser/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.ok: requirements-dev.lock requirements-uv.lock requirements-node.lock requirements-web.lock pyproject.toml hatch_build.py
	@test -n '$(PY)' || { echo 'bridge needs Python 3.11 or newer: install it, or say where it is: make PY=/path/to/python3' >&2; exit 2; }
	@$(PY) -c 'import ensurepip, venv' 2>/dev/null || { echo 'this Python has no venv module: apt-get install python3-venv' >&2; exit 2; }
	@echo 'bootstrap: building .venv from the locks (once)'
	@# One that was interrupted is made again.
	@test -e .venv/.made -a -x $(V)/python || { $(PY) -m venv --clear .venv && touch .venv/.made; }
	@$(V)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-uv.lock
	@$(SYNC) -r requirements-dev.lock
	@# For htmx, one file of it, which hatch_build.py takes; Django is not needed.
	@$(SYNC) --no-deps -r requirements-web.lock
	@$(V)/uv pip install -q --python $(V)/python --no-deps --no-build-isolation -e .
	@$(V)/python -c 'from bridge.local.node import find_node; find_node()' 2>/dev/null || { echo 'bootstrap: no Node on the PATH that is new enough, taking the one from PyPI'; $(SYNC) -r requirements-node.lock; }
	@touch $@

.PHONY: help demo bench chaos test test-local test-cluster test-node test-browser test-js cluster-up cluster-down node-up node-down check format render lock bootstrap clean
.DEFAULT_GOAL := help
