# make report   the PDF, from the stored runs         make test   the tests of a few minutes
# make lint     format, lint, types, rooms            make test-all   all tests
# make venv     the environment (every target calls it), from requirements.lock; make lock writes that

PYTHON ?= python3
STUDY ?= three-epochs
BIN := .venv/bin
READY := .venv/ready
# One process a core; a test's tensors are too small to share among threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal

.PHONY: report test test-all lint venv lock clean

report: $(READY)
	$(BIN)/t5peft render $(STUDY)

test: $(READY)
	$(PYTEST) -m "not slow" --durations 10

test-all: $(READY)
	$(PYTEST) --durations 10

lint: $(READY)
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/lint-imports
	$(BIN)/pyright

venv: $(READY)

# torch first and by its exact version: other packages then take it as it is. opendelta alone,
# since what it requires cannot be installed any more; what it needs is among our own pins.
# Kernels, also those that Quarto starts, say what fails, and nothing of their own transport.
$(READY): pyproject.toml requirements.lock Makefile
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $$(grep '^torch==' requirements.lock)
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps $$(grep '^opendelta==' requirements.lock)
	mkdir -p .venv/etc/ipython
	echo '{"IPKernelApp": {"log_level": 40}}' > .venv/etc/ipython/ipython_kernel_config.json
	touch $@

# Without the build's own mark, as in torch 2.13.0+cpu.
lock:
	{ sed -n '/^#/p' requirements.lock; $(BIN)/pip freeze --exclude-editable | sed 's/+.*//'; } > .lock.tmp
	mv .lock.tmp requirements.lock

clean:
	rm -rf _output .cache/tokens .cache/code .cache/fingerprints.json
