# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUBS := twotower/v1/__init__.py
READY := $(VENV)/.installed $(STUBS)

.DEFAULT_GOAL := help
.PHONY: help run test train evaluate proto lint clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

run: $(READY) ## train a model if none is promoted, serve it, and show a top 10
	@exec $(BIN)/python -m deploy.local

test: $(READY) ## run the whole test suite
	$(BIN)/python -m pytest --cov --cov-report=term

train: $(READY) ## train a model and promote it; ARGS="--data PATH --recipe R --seed N"
	@$(BIN)/python -m training train --promote $(ARGS)

evaluate: $(READY) ## judge recipes beside the baselines; ARGS="--data PATH --protocol P --seeds N"
	@$(BIN)/python -m training evaluate $(ARGS)

proto: $(VENV)/.installed ## generate the gRPC stubs anew
	@rm -rf twotower/v1
	@$(MAKE) --no-print-directory $(STUBS)

lint: $(READY) ## check style, types, the laws between the packages, and the protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=tests $(BIN)/mypy --explicit-package-bases tests deploy
	$(BIN)/lint-imports
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf breaking --against baseline.binpb

clean: ## remove what was made here, but neither bundles nor data
	rm -rf $(VENV) twotower/v1 .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: requirements/dev.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14) and \
		"error: Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d; set PYTHON=/path/to/python3" % v)'
	@echo "installing into $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(STUBS): $(wildcard protos/twotower/v1/*.proto) $(VENV)/.installed
	@rm -rf $(@D)
	@$(BIN)/python -m grpc_tools.protoc -I protos \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
		protos/twotower/v1/*.proto
	@rm -f $(@D)/embedding_pb2_grpc.py*
	@touch $@
