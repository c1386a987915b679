# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
BENCH := .venv-bench/bin

.PHONY: demo demo-pairs demo-tables demo-text demo-sound demo-rl test lint format bench clean

demo: .venv/installed  ## pretrain on the pictures that come with the package, and show that it learned
	$(BIN)/polysense pretrain --config examples/demo.yaml --overwrite

demo-pairs: .venv/installed-dev  ## train picture and text towers from nothing, and ask them
	$(BIN)/python examples/demo_pairs.py

demo-tables: .venv/installed-dev  ## fill a table's gaps, draw rows for a sentence, and judge them
	$(BIN)/python examples/demo_tables.py

demo-text: .venv/installed-dev  ## learn sentences from a dictionary
	$(BIN)/python examples/demo_text.py

demo-sound: .venv/installed-dev  ## learn recordings of speech, and listen to what lies near what
	$(BIN)/python examples/demo_sound.py

demo-rl: .venv/installed-dev  ## collect frames of a game, learn states, and give them to an agent
	$(BIN)/python examples/demo_rl.py

test: .venv/installed-dev  ## the whole suite, doctests and documentation included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv-bench/installed  ## every benchmark beside its peers; tables on the screen, JSON in benchmarks/results
	for script in views step knn teacher objectives contrastive; do $(BENCH)/python -m benchmarks.$$script || exit 1; done

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# The peers live in an environment of their own that sees ours: torch is not installed twice.
.venv-bench/installed: .venv/installed-dev benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" \
	  > $$($(BENCH)/python -c "import site; print(site.getsitepackages()[0])")/polysense-environment.pth
	$(BENCH)/pip install --quiet --no-deps -r benchmarks/requirements.txt
	$(BENCH)/pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf .venv .venv-bench build dist *.egg-info
