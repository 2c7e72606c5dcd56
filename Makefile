PYTHON ?= python3

.PHONY: rig rig-build rig-down

rig:          ## start two real Kubernetes clusters for `pytest -m rig`; builds what is missing first
	PYTHONPATH=tests/rig $(PYTHON) -m mcrig up

rig-build:    ## build and fetch what the rig runs, into the cache
	PYTHONPATH=tests/rig $(PYTHON) -m mcrig build

rig-down:     ## end the clusters and leave nothing
	PYTHONPATH=tests/rig $(PYTHON) -m mcrig down
