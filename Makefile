# `make demo`, `make test` and `make proof` create .venv, or reuse it, and install what they need into it.
# What is installed must have the hashes of .ci/locked/, which `make lock` writes from requirements.txt. An index may
# offer a build of torch that is not listed there: `make install CHECKED=` installs the same versions without hashes.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := .venv-extras/bin
TOOLS := .venv-tools/bin
CHECKED ?= --require-hashes
PIP := -m pip --disable-pip-version-check install --quiet
# Named after the contents of what it installs, so that a checkout's new file times alone reinstall nothing.
INSTALLED := .installed-$(shell cat pyproject.toml requirements.txt .ci/locked/*.txt | cksum | cut -d' ' -f1)
STAMP := .venv/$(INSTALLED)
# A process for each core; the tests of a file stay together, as they share what is made once for the file, and files
# come in the order that tests/conftest.py gives them: fast ones first.
WORKERS := -n auto --dist loadfile --no-loadscope-reorder
# The optional parts that a CPU can run; of the fast tests, the files that need one.
OPTIONAL := timm>=1.0,<2 pyiqa>=0.1.14 bitsandbytes>=0.49 ray[data]>=2.50,<3 wandb>=0.20 peft>=0.18 torchao>=0.15 gguf>=0.10
OPTIONAL_TESTS = $(shell grep -lE 'importorskip."(pyiqa|ray|wandb|bitsandbytes|peft|torchao|gguf)|find_spec."(timm|torchvision)' tests/*.py)

# Installs the pins with a Python: wheels, of which nothing runs meanwhile; torch, the CPU-only build where the index has
# that, else its own with its CUDA packages; and the few that the index has as source alone, built with what is there.
define install_pins
@$(if $(CHECKED),$(call install_locked,$(1),wheels),$(1) $(PIP) -r requirements.txt)
@$(if $(CHECKED),$(call install_locked,$(1),cpu) 2>/dev/null || $(call install_locked,$(1),cuda))
@$(if $(CHECKED),$(1) $(PIP) --no-deps $(CHECKED) --no-build-isolation -r .ci/locked/sources.txt)
endef
install_locked = $(1) $(PIP) --no-deps $(CHECKED) --only-binary :all: -r .ci/locked/$(2).txt

.PHONY: demo test proof torture lint bytecode audit sbom lock install wheel clean

demo: $(STAMP)
	$(BIN)/python -m imvideoedit.demo

test: lint bytecode
	$(BIN)/python -m pytest $(WORKERS) --maxfail=5 -m "not proof"

proof: lint bytecode audit .venv-extras/$(INSTALLED)
	$(BIN)/python -m pytest $(WORKERS)
	$(EXTRAS)/python -m pytest $(OPTIONAL_TESTS)

# Half an hour on two cores; parts alone: PARTS="kills disks"; PARTS=--check plants faults that must be found.
torture: $(STAMP)
	$(BIN)/python -m tests.torture $(PARTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Some hundred processes of the tests import the package: compiled once, also where PYTHONDONTWRITEBYTECODE is set.
bytecode: $(STAMP)
	@$(BIN)/python -m compileall -q imvideoedit data_recipes tests

# Known vulnerabilities of what is pinned, by the package index's own list.
audit: .venv-tools/$(INSTALLED)
	@.ci/audit wheels sources cuda
	@.ci/audit tools

# What is installed, with licences, in CycloneDX's form.
sbom: $(STAMP) .venv-tools/$(INSTALLED)
	@$(TOOLS)/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
		--output-format JSON --output-file sbom.cdx.json $(BIN)/python
	@echo "wrote sbom.cdx.json"

# dist/imvideoedit-VERSION-py3-none-any.whl of the commit that is checked out; a tag v1.2.3 on it is its version.
wheel: $(STAMP)
	@.ci/wheel

# With TORCH=FILE also the hash of another build of the pinned torch.
lock: .venv-tools/$(INSTALLED)
	.ci/lock $(TORCH)

install: $(STAMP)

$(STAMP):
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=...')"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv: about two minutes the first time"
	$(call install_pins,$(BIN)/python)
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation --editable .
	@rm -f .venv/.installed-*
	@touch $@

# torchvision comes without what it names: the package index's is a CUDA build, which would bring its own torch.
.venv-extras/$(INSTALLED):
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=...')"
	@test -x $(EXTRAS)/python || $(PYTHON) -m venv .venv-extras
	@echo "Installing into .venv-extras: some minutes the first time"
	$(call install_pins,$(EXTRAS)/python)
	@$(EXTRAS)/python $(PIP) --no-deps "torchvision>=0.26"
	@$(EXTRAS)/python $(PIP) -c requirements.txt $(foreach part,$(OPTIONAL),"$(part)")
	@$(EXTRAS)/python $(PIP) --no-deps --no-build-isolation --editable .
	@rm -f .venv-extras/.installed-*
	@touch $@

.venv-tools/$(INSTALLED):
	@test -x $(TOOLS)/python || $(PYTHON) -m venv .venv-tools
	@$(TOOLS)/python $(PIP) --no-deps $(CHECKED) --only-binary :all: -r .ci/locked/tools.txt
	@rm -f .venv-tools/.installed-*
	@touch $@

clean:
	rm -rf .venv .venv-extras .venv-tools sbom.cdx.json build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
