# make demo   set all up, then run the main job on the captures in the package
# make test   set all up, then run all tests
# make bench  the benchmarks that need no data of others
# make lint   formatting, types, the C warnings

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(shell find csrc shaders -type f)
INSTALL := $(BIN)/pip install -q --disable-pip-version-check

.PHONY: demo test bench lint clean system-demo system-test

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.test
	$(BIN)/python -m pytest

bench: $(VENV)/.test
	$(BIN)/python benchmarks/bench_encode.py
	$(BIN)/python benchmarks/bench_repair.py
	$(BIN)/python benchmarks/bench_validity.py --flows 500
	$(BIN)/python benchmarks/bench_ops.py
	$(BIN)/python benchmarks/bench_sample.py
	$(BIN)/python benchmarks/bench_quality.py --lab --quick

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_codebase.py

clean:
	rm -rf $(VENV) build out netdiffusion/*.so

system-demo system-test: system-%:
ifneq ($(SYSTEM),skip)
	@.ci/system-packages $*
endif

$(BIN)/pip: | system-demo
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(SOURCES) | system-demo $(BIN)/pip
	$(INSTALL) -e '.[ml,plot]'
	touch $@

$(VENV)/.test: $(SOURCES) | system-test $(BIN)/pip
	$(INSTALL) '$(TORCH)'
	$(INSTALL) -e '.[test]'
	touch $@ $(VENV)/.demo
