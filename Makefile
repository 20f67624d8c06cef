# `make run` and `make test` do all the set-up they need: Debian packages where they may, the rest in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Addresses of `make run`.
HOST         ?= 127.0.0.1
LDAP_PORT    ?= 3389
LDAPS_PORT   ?= 6636
RADIUS_PORT  ?= 1812
METRICS_PORT ?= 9300
DIRECTORY    ?= examples/directory.yaml

SOURCES  := pyproject.toml setup.py $(shell find outpost -name '*.pyx' -o -name '*.pxd')
COMPILED  = $(shell find outpost -name '*.pyx' | sed -e 's/\.pyx$$//' -e 's,/,.,g')

.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@PYTHON=$(PYTHON) .ci/packages build
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	@.ci/packages clients headers
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

build: $(VENV)/run.stamp  ## set up .venv and compile

run: $(VENV)/run.stamp  ## serve examples/directory.yaml in the foreground (Ctrl-C stops)
	@.ci/packages clients || true
	@echo "Serving $(DIRECTORY). Paste one of these into another terminal:"
	@echo
	@$(MAKE) --no-print-directory commands
	@echo
	@echo "Other ports: make run LDAP_PORT=$(LDAP_PORT) LDAPS_PORT=$(LDAPS_PORT) RADIUS_PORT=$(RADIUS_PORT) METRICS_PORT=$(METRICS_PORT)"
	@echo "Ctrl-C stops."
	@echo
	@exec $(BIN)/outpost run --directory $(DIRECTORY) \
		--set listen.ldap=$(HOST):$(LDAP_PORT) --set listen.ldaps=$(HOST):$(LDAPS_PORT) \
		--set listen.radius=$(HOST):$(RADIUS_PORT) --set listen.metrics=$(HOST):$(METRICS_PORT)

commands:
	@echo "ldapsearch -LLL -x -H ldap://$(HOST):$(LDAP_PORT) -D 'cn=svc-ldap,ou=users,dc=example,dc=org' -w 'TODO' -b 'dc=example,dc=org' '(cn=alice)'"
	@echo "echo 'User-Name=\"alice\",User-Password=\"TODO\",Message-Authenticator=0x00' | radclient -x $(HOST):$(RADIUS_PORT) auth 'TODO'"

lint: $(VENV)/test.stamp  ## ruff, mypy, stubtest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest $(COMPILED)

test: lint  ## set up, lint, type-check and test
	$(BIN)/pytest -q -n 2 -m "not slow"

test-long: $(VENV)/test.stamp  ## the tests that take longer than a minute each
	$(BIN)/pytest -q -m slow --timeout 3600

clean:  ## remove what was built
	rm -rf $(VENV) build dist *.egg-info bench/bin .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find outpost \( -name '*.so' -o -name '*.c' \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help build run commands lint test test-long clean
