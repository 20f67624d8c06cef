# `make run` and `make test` do all the set-up they need, in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
APT    := ldap-utils freeradius-utils libldap2-dev libsasl2-dev

.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

SOURCES := pyproject.toml setup.py $(shell find outpost -name '*.py[xd]')

$(VENV)/run.stamp: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@

test: $(VENV)/test.stamp  ## set up, lint, type-check and test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2

clean:  ## remove what was built
	rm -rf $(VENV) build dist *.egg-info
	find outpost -name '*.so' -delete -o -name '*.c' -delete

.PHONY: help test clean
