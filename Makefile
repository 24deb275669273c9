# The commands of a checkout. `make help` lists them; CI types the same ones (.ci/run).
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Every part of LabLink is a process of its own, the tests start hundreds: none shall compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

# An environment that was built elsewhere or has lost its Python is built again.
BUILT := $(shell test -x .venv/bin/python && cat .venv/.user 2>/dev/null)
ifneq ($(BUILT),$(CURDIR))
.PHONY: .venv/.user .venv/.developer
endif

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  Pass options on with ARGS:  make up ARGS="--port 8123 --vms 5"    make test ARGS="-k queue"'

.PHONY: up
up: .venv/.user ## Start LabLink on this machine: PostgreSQL, the web page and three VMs (Ctrl-C stops it)
	@.venv/bin/lablink up $(ARGS)

.PHONY: test
test: .venv/.developer ## Run the tests; the slow ones too with ARGS="-m slow"
	@.venv/bin/pytest --numprocesses logical --maxprocesses 4 --dist worksteal $(or $(ARGS),-m "not slow")

.PHONY: check
check: .venv/.developer ## Check format, style, types, imports, SQL, scripts and Terraform
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	.venv/bin/squawk allocator/sql/V*.sql allocator/sql/functions/*.sql
	.venv/bin/shellcheck .ci/run .ci/images .ci/venv .ci/terraform .ci/terraform-settings
	.venv/bin/shellcheck docker/prepare docker/wheels docker/terraform docker/debian-base docker/allocator/invite tests/images/plugin tests/images/postgres/*.sh
	.venv/bin/shellcheck tests/support/ec2/power-on
	.venv/bin/hadolint docker/*/Dockerfile tests/images/postgres/Dockerfile
	.ci/terraform

.PHONY: scan
scan: build/checkov/bin/checkov ## Look for weak spots in Terraform; each exception stands where it is made
	@build/checkov/bin/checkov --directory terraform --framework terraform --quiet --compact --skip-download >build/scan.txt \
		|| { cat build/scan.txt; exit 1; }
	@cat build/scan.txt
	@! grep -q 'Parsing errors' build/scan.txt # what it cannot read, it would pass over

# What both images are made of, for the Python of a base: made again when that or the code has changed.
BASE ?= python:3.13-slim-trixie
WHEELS := build/wheels/.$(subst /,_,$(subst :,_,$(BASE)))
SOURCES := pyproject.toml README.md docker/constraints.txt docker/wheels $(shell find allocator client conf terraform/fleet terraform/modules/fleet -type f -not -name '*.pyc')
IMAGE = docker build --build-arg BASE=$(BASE) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) \
	--build-arg VERSION=$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: wheels
wheels: $(WHEELS) ## Fetch what the images are made of; building them needs no network then

$(WHEELS): $(SOURCES)
	@docker/wheels $(BASE)
	@touch $@

.PHONY: images
images: $(WHEELS) ## Build the images lablink-allocator and lablink-client on BASE, a Debian with Python
	$(IMAGE) --file docker/allocator/Dockerfile --tag lablink-allocator .
	$(IMAGE) --file docker/client/Dockerfile --tag lablink-client .

# It is thrice the size of the other, so only who has machines of EC2 carries it.
.PHONY: image-aws
image-aws: images build/terraform/bin/terraform ## Build lablink-allocator-aws besides, which can make machines of EC2
	docker build --file docker/allocator-aws/Dockerfile --tag lablink-allocator-aws build/terraform

build/terraform/bin/terraform: docker/terraform
	@docker/terraform

.PHONY: format
format: .venv/.developer ## Put code into shape
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .
	.venv/bin/python -m tests.terraform.readme
	if command -v terraform >/dev/null; then terraform fmt -recursive terraform; fi

.PHONY: bench
bench: .venv/.developer build/yardsticks/bin/procrastinate ## Measure LabLink beside the naive way, bare PostgreSQL and its aims
	@.venv/bin/python -m tests.bench $(ARGS)

.PHONY: clean
clean: ## Remove what was built; data under .lablink/ stays
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# What `make up` needs, and what everything else needs besides.
.venv/.user: pyproject.toml .ci/venv
	@.ci/venv allocator,local
	@echo '$(CURDIR)' > $@

.venv/.developer: pyproject.toml .ci/venv
	@.ci/venv allocator,local,dev
	@echo '$(CURDIR)' > .venv/.user
	@touch $@

# They bring uvloop, which the service would take.
build/yardsticks/bin/procrastinate: .venv/.developer
	.venv/bin/python -m venv build/yardsticks
	build/yardsticks/bin/pip install --quiet --no-input --disable-pip-version-check --editable '.[bench]'
	@touch $@

# It pins an old boto3, so it has an environment of its own.
build/checkov/bin/checkov: .venv/.developer
	.venv/bin/python -m venv build/checkov
	build/checkov/bin/pip install --quiet --no-input --disable-pip-version-check 'checkov>=3.2,<4'
	@touch $@
