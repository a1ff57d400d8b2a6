# Every target sets up what it needs, once. `make demo` first: it reads the images of samples/.

PYTHON ?= python3

# Reading has an environment of its own: that it works there proves that the light install is enough.
LIGHT := build/light
VENV := .venv

IMAGES ?= samples
COUNT ?= 200
# What reading is made of; needs the light half and no more.
READING := $(addprefix tests/test_,$(addsuffix .py,charset compat filelist images infer pattern reader reading records resume))
# Tests run on several processors, each process with one thread.
ONE_THREAD := OMP_NUM_THREADS=1
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile
SCALE ?= small
FAMILIES := imagecaptcha imagecaptcha_digits4 imagecaptcha_upper4 \
	kcaptcha kcaptcha_generator kcaptcha_gnuboard kcaptcha_original

.PHONY: demo test test-reading test-browser check serve bench comparison audit data web clean
.DELETE_ON_ERROR:

demo: $(LIGHT)/.installed  ## read sample captchas; the boxes are drawn into build/demo
	$(LIGHT)/bin/python infer.py $(IMAGES) --draw build/demo

test: $(VENV)/.installed-dev  ## run the tests
	$(ONE_THREAD) $(VENV)/bin/python -m pytest $(PARALLEL)

# `make test-reading PYTHON=python3.13` runs them with another Python, in an environment of its own.
test-reading: build/$(notdir $(PYTHON))/.installed  ## run the tests of reading with the light half alone
	$(ONE_THREAD) build/$(notdir $(PYTHON))/bin/python -m pytest $(PARALLEL) $(READING)

test-browser: $(VENV)/.installed-dev  ## run the tests of both pages in chromium
	$(VENV)/bin/python -m pytest tests/browser/test_*.py

serve: $(VENV)/.installed-dev  ## start the service with its page
	$(VENV)/bin/python -m serving

check: $(VENV)/.installed-dev  ## format, lint and types
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m mypy

bench: $(VENV)/.installed-peers  ## measure the speed of drawing and of reading
	$(VENV)/bin/python benchmarks/rendering.py
	$(VENV)/bin/python benchmarks/reading.py

audit: $(VENV)/.installed-dev  ## audit six captchas of the generators
	$(VENV)/bin/python benchmarks/audits.py

comparison: $(VENV)/.installed-peers  ## train all networks on the same images, compare: SCALE=small (hours) or full
	$(VENV)/bin/python benchmarks/comparison.py scale=$(SCALE)

data: $(VENV)/.installed-dev  ## write COUNT images of every family into data/
	set -e; for family in $(FAMILIES); do \
		$(VENV)/bin/python -m datagen family=$$family count=$(COUNT) out=data/$$family; \
	done

web: $(LIGHT)/.installed  ## assemble the browser demo in build/web: static files for any web server
	$(LIGHT)/bin/python web/assemble.py

clean:  ## remove what the targets made, but neither .venv nor data/
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.*' -prune -exec rm -rf {} +

# An environment that is already there is used as it is; pip adds only what it lacks.
$(LIGHT)/bin/python $(VENV)/bin/python build/$(notdir $(PYTHON))/bin/python:
	$(PYTHON) -m venv $(patsubst %/bin/python,%,$@)

$(LIGHT)/.installed: pyproject.toml constraints.txt | $(LIGHT)/bin/python
	$(LIGHT)/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

build/$(notdir $(PYTHON))/.installed: pyproject.toml constraints.txt | build/$(notdir $(PYTHON))/bin/python
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --editable . pytest pytest-xdist hypothesis onnx
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[train,sweep,scale,serve,dev]'
	touch $@

$(VENV)/.installed-peers: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[train,sweep,scale,serve,dev,peers]'
	touch $@
