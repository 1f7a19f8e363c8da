# make report   the PDF, from the stored runs         make test   the tests
# make lint     format, lint, types, rooms   make venv   the environment (every target calls it)

PYTHON ?= python3
STUDY ?= self-contained
BIN := .venv/bin
READY := .venv/ready

.PHONY: report test lint venv clean

report: $(READY)
	$(BIN)/t5peft render $(STUDY)

# One process a core; a test's tensors are too small to share among threads.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/lint-imports
	$(BIN)/pyright

venv: $(READY)

# torch first and by its exact version: other packages then take it as it is. opendelta alone,
# since what it requires cannot be installed any more; what it needs is among our own pins.
$(READY): pyproject.toml Makefile
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $$(grep -o 'torch==[0-9.]*' pyproject.toml)
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps opendelta==0.3.2
	touch $@

clean:
	rm -rf _output .cache/tokens .cache/code .cache/fingerprints.json
