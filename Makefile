# simtti: `make run` and `make test` are all a fresh machine with python3 and make needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-every check docs golden figures bench fuzz kill-test test-bounds traces clean help
help:
	@echo "make run     create .venv, install, simulate Stable Diffusion on an A100"
	@echo "make test    install the development extras, lint, type-check, run every test"
	@echo "make test-every  the same with every workload built anew, not one of each model's file"
	@echo "make check   ruff and mypy only"
	@echo "make golden  work the golden figures of tests/golden.csv out anew, and say which moved"
	@echo "make figures  run the commands whose outputs stand in README and docs again, and put in what they print"
	@echo "make docs    the documentation as a site, in build/site; a warning is an error"
	@echo "make fuzz    1,000 odd inputs to each reader: every one answered or refused"
	@echo "make kill-test  runs of five kinds, each killed 50 times: nothing lost, doubled, stale or left running"
	@echo "make test-bounds  the tests that meet other libraries, with the oldest releases that setup.cfg allows and with today's newest"
	@echo "make bench   the benchmarks whose figures stand in the README"
	@echo "make traces  record the shipped traces again (byte for byte the same)"
	@echo "make clean   remove .venv and caches"

$(BIN)/simtti: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/dev.stamp: $(BIN)/simtti constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,torch,report,explore,fit,ray,dask]'
	@touch $@

run: $(BIN)/simtti
	$(BIN)/simtti run stable-diffusion --hw a100-sxm

test: check
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-every: check
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "every or not every"

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(VENV)/typing && ln -sfn "$(CURDIR)" $(VENV)/typing/simtti
	cd $(VENV)/typing && ../bin/mypy --config-file "$(CURDIR)/setup.cfg"

# The reader of docstrings looks for a folder called simtti and follows links, so that it holds what is read and nothing else. Notebooks are run anew.
docs: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	rm -rf build/package && mkdir -p build/package/simtti
	for each in *.py simulator workloads hw_configs explore pages validation commands; do ln -s "$(CURDIR)/$$each" build/package/simtti/; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

golden: $(VENV)/dev.stamp
	$(BIN)/python tests/test_golden.py

figures: $(VENV)/dev.stamp
	$(BIN)/python tests/figures.py

bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/explore.py

fuzz: $(VENV)/dev.stamp
	$(BIN)/python tests/fuzz.py --inputs 1000

kill-test: $(VENV)/dev.stamp
	$(BIN)/python tests/kill.py --kills 50

# A quarter of an hour and 3 GB each. What is deprecated in one release and not yet there in another is no error here.
MEETS_LIBRARIES := tests/commands tests/pages tests/hw_configs tests/explore/test_spec.py tests/explore/test_search.py tests/explore/test_formula.py \
	tests/workloads/test_trace_file.py tests/workloads/test_kineto_file.py tests/workloads/test_recorder.py tests/workloads/models \
	tests/validation/report tests/validation/fit tests/simulator/test_predict.py tests/simulator/test_compare.py

test-bounds:
	mkdir -p build && $(PYTHON) tests/bounds.py > build/lowest.txt
	for bound in lowest newest; do \
		at=$(VENV)-$$bound && $(PYTHON) -m venv $$at && grep '^torch==' constraints.txt > $$at/torch.txt && \
		$$at/bin/python -m pip install --quiet -r $$at/torch.txt && \
		if test $$bound = lowest; then $$at/bin/python -m pip install --quiet -c $$at/torch.txt -r build/lowest.txt; fi && \
		$$at/bin/python -m pip install --quiet -c $$at/torch.txt -e '.[torch,explore,report]' pytest pytest-xdist hypothesis && \
		$$at/bin/python -m pytest -o filterwarnings=default $(MEETS_LIBRARIES) || exit 1; \
	done

traces: $(VENV)/dev.stamp
	$(BIN)/python -m simtti.workloads.build_traces
	$(BIN)/python -m simtti.workloads.build_shapes

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis build
