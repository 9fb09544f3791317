WINDOWS := $(filter Windows_NT,$(OS))
PYTHON ?= $(if $(WINDOWS),python,python3)
BIN := .venv/$(if $(WINDOWS),Scripts,bin)
READY := .venv/.ready

.PHONY: bench test test-slow lint docs asv pytest-bench clean

bench: $(READY)  ## verify, measure, train and chart the ladder
	$(BIN)/matmulbench run

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(READY)  ## what is left out of `test` for its length
	$(BIN)/pytest -n 2 -m slow

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32

docs: $(READY)  ## the documentation, in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

asv: $(READY)  ## airspeed velocity, in an environment that it builds itself
	$(BIN)/asv machine --yes
	$(BIN)/asv run --show-stderr HEAD^!
	$(BIN)/asv publish
	@echo "The site is in .asv/html. Its pages load scripts from public servers: without a network, a browser shows"
	@echo "'Can not determine continental origin of swallow'. 'asv show HEAD' prints the figures in any case."

pytest-bench: $(READY)
	$(BIN)/pytest benchmarks/pytest_suite --benchmark-only --benchmark-columns=median,iqr,rounds

clean:
	rm -rf .venv .asv docs/_build runs

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
