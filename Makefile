# Everything runs in .venv, which the first call makes and later ones reuse; a package index is all
# that is needed.
#   make demo               install, train a small network, look at the results
#   make test               install, run the fast tests
#   PYTHON=python3.11 make demo   choose the Python that makes .venv
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# UV=uv installs with that program: at most a quarter of pip's CPU time, but it reads no pip.conf.
UV ?=
pip_install = $(if $(UV),$(UV) pip install --python $(1)/bin/python,$\
	$(1)/bin/python -m pip --disable-pip-version-check install)
# Tests of a file mostly stay in one process, with its fixtures; idle processes take tests of others.
XDIST := --dist worksteal
NEEDS := pyproject.toml
DETECTRON2 := $(wildcard fbnetv3/cli/detectron2/*.py fbnetv3/cli/detectron2/*.patch)
OLDEST := .venv-oldest
# what `make test-oldest` runs: the layers that call torch, numpy, scipy and Optuna directly
OLDEST_TESTS := tests/arch tests/modeling tests/search/space tests/search/predictors \
	tests/search/acquisition tests/search/storage tests/search/test_jointnas.py \
	tests/search/test_quality.py

.DEFAULT_GOAL := help
.PHONY: help install dev demo search-demo detect-demo paper-rehearsal test oldest test-oldest test-slow \
	test-all soak lint format docs dist clean distclean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

# An interrupted step leaves no stamp, and the next call repeats it.
$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; install Python 3.10 or newer, or name one: PYTHON=python3.11 make $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) tools/check_machine.py .
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made $(NEEDS)
	@echo "Installing into $(VENV): torch's CUDA build is some 3 GB to download, 5.5 GB on disk."
	$(call pip_install,$(VENV)) --editable ".[all]"
	@touch $@

$(VENV)/.detectron2: $(VENV)/.installed $(DETECTRON2)
	$(BIN)/python tools/install_detectron2.py
	@touch $@

# The extra dev contains all, which is not installed before it: pip would look for versions twice.
$(VENV)/.dev: $(VENV)/.made $(NEEDS)
	@echo "Installing into $(VENV): torch's CUDA build is some 3 GB to download, 5.5 GB on disk."
	$(call pip_install,$(VENV)) --editable ".[dev]"
	@touch $(VENV)/.installed $@

install: $(VENV)/.detectron2 ## make .venv with the package and detectron2

dev: $(VENV)/.dev $(VENV)/.detectron2 ## the same, with what tests and lint need

# Several processes with several threads each would wait for each other on few cores.
demo search-demo detect-demo paper-rehearsal test test-oldest test-slow test-all soak: export OMP_NUM_THREADS ?= 1

demo: install ## train a small FBNetV3 on handwritten digits
	$(BIN)/python tools/demo.py

search-demo: install ## search network and recipe on the digits, train the winner, report
	$(BIN)/python tools/jointnas_search.py --config-file model_zoo/search/digits.yaml SEARCH.WORKERS 2
	$(BIN)/python tools/train_net.py --config-file output/search/digits/best.yaml --resume
	$(BIN)/python tools/jointnas_search.py --report output/search/digits

detect-demo: install ## train a RetinaNet on scenes of digits
	$(BIN)/python tools/train_net.py --overwrite --config-file model_zoo/detection/retinanet_fbnetv3_a0_digits.yaml

paper-rehearsal: install ## run the commands of docs/paper.md on a made-up ImageNet, in minutes
	rm -rf output/paper_rehearsal
	$(BIN)/python -m projects.paper.rehearsal output/paper_rehearsal

test: dev ## fast tests, some 10 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 $(XDIST) -m "not slow"

# The oldest torch needs 8 GB on disk.
$(OLDEST)/.oldest: $(VENV)/.made constraints-oldest.txt $(DETECTRON2)
	rm -rf $(OLDEST)
	$(BIN)/python -m venv $(OLDEST)
	$(call pip_install,$(OLDEST)) --requirement constraints-oldest.txt 'setuptools>=77' wheel \
		hypothesis pytest pytest-timeout pytest-xdist timm==1.0.22
	PYTHONPATH=. $(OLDEST)/bin/python tools/install_detectron2.py
	@touch $@

oldest: $(OLDEST)/.oldest ## make the environment of test-oldest

test-oldest: oldest ## fast tests of some packages with the oldest dependencies
	$(OLDEST)/bin/python -m pytest -n 2 $(XDIST) -m "not slow" $(OLDEST_TESTS)

# Three at once, because many of these tests wait for processes that end or do not answer.
test-slow: dev ## kills, wheel, long comparisons, some 30 minutes
	$(BIN)/python -m pytest -n 3 $(XDIST) -m slow --timeout 900

# Four at once on two cores, so that tests that compute run while others wait for processes.
test-all: dev ## test and test-slow in one run
	$(BIN)/python -m pytest -n 4 $(XDIST) --timeout 900

KILLS ?= 500
TRAINING_KILLS ?= 50
MUTATIONS ?= 10000
soak: dev ## faults for hours: KILLS=500 of searches, TRAINING_KILLS=50, MUTATIONS=10000 of a document
	$(BIN)/python -m pytest -s tests/faults --kills $(KILLS) --timeout 1800
	$(BIN)/python -m pytest -s tests/engine/test_kills.py tests/detection/test_kills.py \
		--training-kills $(TRAINING_KILLS) --timeout 0
	$(BIN)/python -m pytest tests/test_untrusted_*.py --mutations $(MUTATIONS) --timeout 0

lint: dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: dev ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: dev ## build and check dist/: the source archive, and the wheel from it
	rm -rf build dist # setuptools would pack files that were deleted since the last build
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

# The variable silences an advertisement; nothing is loaded from the internet.
docs: dev ## build the documentation site into site/; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean: ## remove what was built, keep .venv
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find fbnetv3 tests tools projects -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf $(VENV) $(OLDEST)
