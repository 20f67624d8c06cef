# `make run` and `make test` do all the set-up they need: Debian packages where they may, the rest in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --quiet --disable-pip-version-check

# Addresses of `make run`.
HOST         ?= 127.0.0.1
LDAP_PORT    ?= 3389
LDAPS_PORT   ?= 6636
RADIUS_PORT  ?= 1812
METRICS_PORT ?= 9300
DIRECTORY    ?= examples/directory.yaml

BASE     := dc=ldap,dc=goauthentik,dc=io
SOURCES  := pyproject.toml setup.py $(shell find outpost -name '*.pyx' -o -name '*.pxd')
COMPILED  = $(shell find outpost -name '*.pyx' | sort | sed -e 's/\.pyx$$//' -e 's,/,.,g')
LISTEN    = --set listen.ldap=$(HOST):$(LDAP_PORT) --set listen.ldaps=$(HOST):$(LDAPS_PORT) \
            --set listen.radius=$(HOST):$(RADIUS_PORT) --set listen.metrics=$(HOST):$(METRICS_PORT)

.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@PYTHON=$(PYTHON) .ci/packages build
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: $(SOURCES) | $(BIN)/python
	$(PIP) install --editable .
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	@.ci/packages clients headers peers || echo "Tests that need them are skipped."
	@$(PIP) install --editable '.[test,clients]' || \
		{ echo "python-ldap cannot be built here; its tests are skipped."; $(PIP) install --editable '.[test]'; }
	@touch $@

build: $(VENV)/run.stamp  ## set up .venv and compile

# The commands are printed once the server answers, by a watcher that ends when it does or when the server is gone.
run: $(VENV)/run.stamp  ## serve examples/directory.yaml in the foreground on loopback (Ctrl-C stops)
	@.ci/packages clients || true
	@( while kill -0 $$$$ 2>/dev/null; do \
		if $(BIN)/outpost healthcheck --set listen.metrics=$(HOST):$(METRICS_PORT) 2>/dev/null; then \
			$(MAKE) --no-print-directory --silent commands; exit; \
		fi; sleep 0.2; done ) & \
	exec $(BIN)/outpost run --directory $(DIRECTORY) $(LISTEN)

commands:  ## the commands that `make run` prints
	@echo
	@echo "Serving $(DIRECTORY). Paste these into another terminal; Ctrl-C here stops."
	@echo
	@echo "ldapsearch -LLL -x -H ldap://$(HOST):$(LDAP_PORT) -D 'cn=ldapservice,ou=users,$(BASE)' -w service-pw -b '$(BASE)' '(cn=alice)'"
	@echo "echo 'User-Name=\"alice\",User-Password=\"alice-pw\",Message-Authenticator=0x00' | radclient -x $(HOST):$(RADIUS_PORT) auth testing123"
	@echo

lint: $(VENV)/test.stamp  ## ruff, mypy, stubtest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest $(COMPILED)

test: lint  ## set up, lint, type-check and test
	$(BIN)/pytest -q -n 2 -m "not slow"

slow: $(VENV)/test.stamp  ## the tests that take longer than a minute each
	$(BIN)/pytest -q -m slow --timeout 3600

fuzz: $(VENV)/test.stamp  ## those of them that feed the decoders noise
	$(BIN)/pytest -q -m slow -k fuzz --timeout 3600

micro: $(VENV)/test.stamp  ## time decoders, encoders and search against other libraries
	$(BIN)/pytest -q --benchmark-only bench/micro_*.py

# Written only once all of it has been measured. BENCH= shortens it: make bench BENCH="--seconds 1 --rounds 2".
bench: $(VENV)/test.stamp  ## load the whole server in turn with slapd and FreeRADIUS; write bench/RESULTS.md (16 minutes)
	@.ci/packages build bench || echo "Measured without them."
	$(BIN)/python -m bench.load_side_by_side --write bench $(BENCH)

# For every subject the ratio to a reference loop that runs in turn with it; see bench/guard.py.
bench-check: $(VENV)/test.stamp  ## codec and search against bench/baseline.json: none more than 15 % slower (half a minute)
	$(BIN)/pytest -q --benchmark-columns=min,median,iqr,rounds --benchmark-sort=name bench/check.py

bench-baseline: $(VENV)/test.stamp  ## store the ratios of this machine and build instead
	$(BIN)/pytest -q --renew --benchmark-columns=min,median,iqr,rounds --benchmark-sort=name bench/check.py

# SCALE= makes it smaller: make scale SCALE="--users 10000 --groups 500".
scale: $(VENV)/test.stamp  ## memory, compiling, refreshing and a warm start with 100,000 users of a server (10 minutes)
	@.ci/packages build bench || true
	$(BIN)/python -m bench.load_scale $(SCALE)

# TAIL= shortens or changes it: make tail TAIL="--seconds 60 --workers 2". The stub of the tests is the server.
tail: $(VENV)/test.stamp  ## a bad day: the slowest of warm binds between refreshes, slow readers and handshakes (10 minutes)
	@.ci/packages build bench || true
	$(BIN)/python -m bench.load_tail $(TAIL)

wheel: $(BIN)/python  ## build dist/outpost-*.whl
	$(PIP) wheel --no-deps --wheel-dir dist .

clean:  ## remove what was built
	rm -rf $(VENV) build dist *.egg-info bench/bin .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find outpost \( -name '*.so' -o -name '*.c' \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help build run commands lint test slow fuzz micro bench bench-check bench-baseline scale tail wheel clean
