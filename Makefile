# Every target sets up .venv by itself; `make demo` and `make test` are all that a fresh machine needs.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo serve-demo test test-fast test-faults test-lowest lint types check bench install clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml requirements.txt constraints.txt
	@echo "# setting up .venv (a few minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	# Real sample patches for the tests; only its data files are read, so its own dependencies are left out.
	$(BIN)/python -m pip install --quiet --no-deps bigearthnet-common==2.8.0
	touch $@

demo: $(INSTALLED)
	@bash project/demo.sh $(BIN)/python

# The page that finds similar patches, on the demo world; PORT=8001 takes another port.
PORT ?= 8000
serve-demo: $(INSTALLED)
	test -f logs/demo/default/checkpoints_model_best.pth.tar || $(MAKE) demo
	$(BIN)/python project/index.py --filepath logs/demo/default
	$(BIN)/python project/serve.py --filepath logs/demo/default --port $(PORT)

test: $(INSTALLED)
	$(BIN)/python -m pytest -q --ignore=tests/faults

# Without the tests marked slow, which take three quarters of the time.
test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -q -m "not slow" --ignore=tests/faults

# Every stage killed, starved of disk and met by a second command; docs/reliability.md has the table of a longer run.
test-faults: $(INSTALLED)
	$(BIN)/python -m tests.faults

# What a dependency can break, on the lowest versions that requirements.txt allows. PyPI has old releases of PyTorch with
# gigabytes of CUDA libraries only, so its release is that of constraints.txt; LOWEST_TORCH=1 takes the lowest.
LOWEST := .venv-lowest
LOWEST_TESTS := $(addprefix tests/,data evaluation losses models pipelines report search storage training)
LOWEST_SLOW := $(addprefix tests/,test_compiled.py test_packaging.py test_scripts.py::test_real_patches_go_all_the_way \
  pipelines/test_export_embeddings.py query/test_index.py training/test_run.py)
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	if [ -n "$(LOWEST_TORCH)" ]; then cat constraints-lowest.txt; else grep -v ^torch constraints-lowest.txt; \
	  grep ^torch constraints.txt; fi > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/constraints.txt --editable ".[test]"
	$(LOWEST)/bin/python -m pip install --quiet --no-deps bigearthnet-common==2.8.0
	$(LOWEST)/bin/python -m pytest -q -m "not slow" $(LOWEST_TESTS)
	$(LOWEST)/bin/python -m pytest -q $(LOWEST_SLOW)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types test

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/retrieval.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/lists.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/int8.py
	$(BIN)/python benchmarks/stages.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/serve_on_ray.py
	$(BIN)/python benchmarks/map_dots.py
	$(BIN)/python benchmarks/query.py

clean:
	rm -rf demo_data logs/demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
