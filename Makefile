# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUBS := twotower/v1/__init__.py
LOOPS := twotower/libloops.so
READY := $(VENV)/.installed $(STUBS) $(LOOPS)
# A set names all that it needs; asked for dependencies, an older pip finds their newest, which have no hash here.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r

DOCKER ?= docker
BUILD ?= build
IMAGES := user_tower_svc retrieval_svc gateway training
REGISTRY ?= twotower
TAG ?= latest
ARCH ?= $(notdir $(PLATFORM))
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
HOST := http://127.0.0.1:8000
# A file that git does not know gets into an image, too.
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)$(if $(shell git status --porcelain 2>/dev/null),-dirty)

.DEFAULT_GOAL := help
.PHONY: help run test train evaluate proto loops lint clean images $(IMAGES:%=image-%) push deploy release \
	destroy secrets test-deploy bench load

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

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

loops: $(VENV)/.installed ## compile the inner loops anew
	@rm -f $(LOOPS)
	@$(MAKE) --no-print-directory $(LOOPS)

lint: $(READY) ## check style, types, the laws between the packages, and the protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=tests $(BIN)/mypy --explicit-package-bases tests deploy bench examples
	$(BIN)/lint-imports
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf breaking --against baseline.binpb

images: $(IMAGES:%=image-%) ## build the images; REGISTRY=R TAG=T PYTHON_IMAGE=I PLATFORM=linux/arm64

$(IMAGES:%=image-%): image-%:
	@echo "building $(REGISTRY)/$*:$(TAG)"
	@DOCKER_BUILDKIT=1 $(DOCKER) $(BUILD) --quiet --file $*/Dockerfile --tag $(REGISTRY)/$*:$(TAG) \
		$(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) $(if $(PLATFORM),--platform $(PLATFORM)) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) . >/dev/null

push: $(VENV)/.aws-installed ## push the images to Amazon ECR; REGISTRY=R TAG=T ARCH=arm64 DIGESTS=FILE
	@DOCKER="$(DOCKER)" $(BIN)/python -m deploy.ecr push --registry "$(REGISTRY)" --tag "$(TAG)" \
		$(if $(ARCH),--arch "$(ARCH)") $(if $(DIGESTS),--digests "$(DIGESTS)") $(IMAGES)

deploy: $(VENV)/.aws-installed ## run them on EC2; STACK=S REGISTRY=R TAG=T BUNDLES=s3://B INSTANCE=I GRPC=true
	@$(BIN)/python -m deploy.stack deploy "$(STACK)" --registry "$(REGISTRY)" --tag "$(TAG)" \
		--bundles "$(BUNDLES)" $(foreach option,RELEASES INSTANCE GRPC CLIENTS SUBNET ALARMS IMAGE,$(if $($(option)),\
		--$(shell echo $(option) | tr A-Z a-z) "$($(option))"))

release: $(VENV)/.aws-installed ## have a host on EC2 run another tag; STACK=S TAG=T
	@$(BIN)/python -m deploy.stack release "$(STACK)" --tag "$(TAG)"

destroy: $(VENV)/.aws-installed ## delete a host on EC2; STACK=S YES=1
	@$(BIN)/python -m deploy.stack destroy "$(STACK)" $(if $(YES),--yes)

secrets: ## make the key, the certificate and the password that docker-compose.yml has in secrets/
	@deploy/secrets.sh $(NAMES)

test-deploy: $(READY) $(VENV)/.deploy-installed ## test the images and docker-compose.yml on a Docker engine
	$(BIN)/python -m pytest tests/deployment

bench: $(READY) ## measure serving beside other ways to serve; ARGS="--quick", "--bundles DIR", "--variants V"
	@$(MAKE) --no-print-directory $(VENV)/.bench-installed || \
		echo "requirements/bench.txt cannot be installed: what needs it is skipped" >&2
	@$(BIN)/python -m bench $(ARGS)

load: $(READY) $(VENV)/.bench-installed ## load a gateway as many users would; HOST=URL ARGS="--headless --users N"
	@PYTHONPATH=. $(BIN)/python -m locust --locustfile bench/locustfile.py --host "$(HOST)" $(ARGS)

clean: ## remove what was made here, but neither bundles nor data
	rm -rf $(VENV) twotower/v1 $(LOOPS) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: requirements/dev.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14) and \
		"error: Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d; set PYTHON=/path/to/python3" % v)'
	@echo "installing into $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) requirements/dev.txt
	@touch $@

$(VENV)/.%-installed: requirements/%.txt $(VENV)/.installed
	@$(INSTALL) $<
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

$(LOOPS): twotower/loops.c twotower/compile_loops.sh $(VENV)/.installed
	@twotower/compile_loops.sh $(BIN)/python $@
