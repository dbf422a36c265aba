# `make demo`, `make test` and `make proof` create .venv, or reuse it, and install what they need into it.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := .venv-extras/bin
PIP := -m pip --disable-pip-version-check install --quiet
# Named after the contents of what it installs, so that a checkout's new file times alone reinstall nothing.
INSTALLED := .installed-$(shell cat pyproject.toml requirements.txt | cksum | cut -d' ' -f1)
STAMP := .venv/$(INSTALLED)
# A process for each core; the tests of a file stay together, as they share what is made once for the file, and files
# come in the order that tests/conftest.py gives them: fast ones first.
WORKERS := -n auto --dist loadfile --no-loadscope-reorder
# The optional parts that a CPU can run; of the fast tests, the files that need one.
OPTIONAL := timm>=1.0 pyiqa>=0.1.14 bitsandbytes>=0.49 ray[data]>=2.50 wandb>=0.20
OPTIONAL_TESTS = $(shell grep -lE 'importorskip."(pyiqa|ray|wandb|bitsandbytes)|find_spec."(timm|torchvision)' tests/*.py)

.PHONY: demo test proof torture lint install clean

demo: $(STAMP)
	$(BIN)/python -m imvideoedit.demo

test: lint
	$(BIN)/python -m pytest $(WORKERS) --maxfail=5 -m "not proof"

proof: lint .venv-extras/$(INSTALLED)
	$(BIN)/python -m pytest $(WORKERS)
	$(EXTRAS)/python -m pytest $(OPTIONAL_TESTS)

# Half an hour on two cores; parts alone: PARTS="kills disks"; PARTS=--check plants faults that must be found.
torture: $(STAMP)
	$(BIN)/python -m tests.torture $(PARTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

$(STAMP):
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=...')"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv: about two minutes the first time"
	@$(BIN)/python $(PIP) -r requirements.txt
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation --editable .
	@rm -f .venv/.installed-*
	@touch $@

# torchvision comes without what it names: the package index's is a CUDA build, which would bring its own torch.
.venv-extras/$(INSTALLED):
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=...')"
	@test -x $(EXTRAS)/python || $(PYTHON) -m venv .venv-extras
	@echo "Installing into .venv-extras: some minutes the first time"
	@$(EXTRAS)/python $(PIP) -r requirements.txt
	@$(EXTRAS)/python $(PIP) --no-deps "torchvision>=0.26"
	@$(EXTRAS)/python $(PIP) -c requirements.txt $(foreach part,$(OPTIONAL),"$(part)")
	@$(EXTRAS)/python $(PIP) --no-deps --no-build-isolation --editable .
	@rm -f .venv-extras/.installed-*
	@touch $@

clean:
	rm -rf .venv .venv-extras build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
