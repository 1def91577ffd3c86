# simtti: `make run` and `make test` are all a fresh machine with python3 and make needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-every check golden bench fuzz kill-test traces clean help
help:
	@echo "make run     create .venv, install, simulate Stable Diffusion on an A100"
	@echo "make test    install the development extras, lint, type-check, run every test"
	@echo "make test-every  the same with every workload built anew, not one of each model's file"
	@echo "make check   ruff and mypy only"
	@echo "make golden  work the golden figures of tests/golden.csv out anew, and say which moved"
	@echo "make fuzz    1,000 odd inputs to each reader: every one answered or refused"
	@echo "make kill-test  runs killed 50 times: nothing lost, doubled, stale or left running"
	@echo "make bench   the benchmarks whose figures stand in the README"
	@echo "make traces  record the shipped traces again (byte for byte the same)"
	@echo "make clean   remove .venv and caches"

$(BIN)/simtti: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/dev.stamp: $(BIN)/simtti constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,torch,report,explore,ray,dask]'
	@touch $@

run: $(BIN)/simtti
	$(BIN)/simtti run stable-diffusion --hw a100-sxm

test: check
	$(BIN)/python -m pytest -n 2

test-every: check
	$(BIN)/python -m pytest -n 2 -m "every or not every"

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(VENV)/typing && ln -sfn "$(CURDIR)" $(VENV)/typing/simtti
	cd $(VENV)/typing && ../bin/mypy --config-file "$(CURDIR)/setup.cfg"

golden: $(VENV)/dev.stamp
	$(BIN)/python tests/test_golden.py

bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/explore.py

fuzz: $(VENV)/dev.stamp
	$(BIN)/python tests/fuzz.py --inputs 1000

kill-test: $(VENV)/dev.stamp
	$(BIN)/python tests/kill.py --kills 50

traces: $(VENV)/dev.stamp
	$(BIN)/python -m simtti.workloads.build_traces

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis build
