# Every target sets up what it needs first, says what it does, and is quick the second time.
# SUDO: how to become root where that is needed (empty for root). PYTHON: the interpreter for .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

SUDO ?= $(if $(filter 0,$(shell id -u)),,sudo -E)
export SUDO PYTHON
# Python that may not keep what it has compiled compiles all of it again for every process of the tests.
unexport PYTHONDONTWRITEBYTECODE
# Root must not leave files in the tree that its owner cannot remove.
AS_ROOT := $(SUDO) env PYTHONDONTWRITEBYTECODE=1
ROOT_PYTEST := $(AS_ROOT) .venv/bin/python -m pytest -p no:cacheprovider

.PHONY: help demo test check bench proto clean setup venv engine image test-machine doctor lock

help: ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: setup ## run the main job on 66 satellites and 5 ground nodes
	@$(AS_ROOT) .venv/bin/skyrack demo

test: check setup test-machine ## everything: check, long tests of the sky, agents as processes, then root and Docker
	@SKYRACK_SEARCHES=full .venv/bin/python -m pytest --numprocesses=auto -m hypothesis tests/unit
	@.venv/bin/python -m pytest --numprocesses=auto tests/sky
	@.venv/bin/python -m pytest --numprocesses=auto tests/agent
	@.venv/bin/python -m pytest tests/fuzz
	@$(ROOT_PYTEST) tests/kernel
	@$(ROOT_PYTEST) --numprocesses=2 --dist=loadscope tests/chaos tests/guests tests/runtimes tests/docker tests/survival

check: venv ## lint, types and unit tests: no root, under a minute
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy && .venv/bin/mypy deploy/build_image.py
	@.venv/bin/python -m pytest --numprocesses=auto tests/unit

bench: setup test-machine ## run every benchmark
	@for file in bench/[a-z]*.py; do echo "== $$file"; $(AS_ROOT) .venv/bin/python -m "bench.$$(basename "$$file" .py)"; done

doctor: venv ## say what this machine has and lacks
	@$(AS_ROOT) .venv/bin/skyrack doctor

setup: venv engine image ## virtual environment, Docker Engine, node image

venv:
	@deploy/venv.sh

engine: venv
	@.venv/bin/python -c 'from controller.runtime.engine import ask_engine; ask_engine()' 2>/dev/null || $(SUDO) deploy/engine.sh

image: engine
	@$(AS_ROOT) .venv/bin/python deploy/build_image.py

test-machine: venv
	@$(SUDO) deploy/test-machine.sh

proto: venv ## generate the stubs of protos/
	@deploy/proto.sh

lock: venv ## bring requirements.lock into line with pyproject.toml
	@[ -x .cache/uv/bin/uv ] || { .venv/bin/python -m venv .cache/uv && .cache/uv/bin/pip install --quiet uv; }
	@.cache/uv/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements.lock

clean: ## remove what make made in the tree, and the images
	@if [ -x .venv/bin/python ]; then \
		$(AS_ROOT) .venv/bin/python deploy/build_image.py --remove || echo "images stay: Docker does not answer"; \
	fi
	@$(SUDO) rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build skyrack.egg-info
	@find . -name __pycache__ -type d -prune -exec $(SUDO) rm -rf {} +
