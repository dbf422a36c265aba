# `make demo` and `make test` create .venv, or reuse it, and install what they need into it.
PYTHON ?= python3
BIN := .venv/bin
# Named after the contents of what it installs, so that a checkout's new file times alone reinstall nothing.
STAMP := .venv/.installed-$(shell cat pyproject.toml requirements.txt | cksum | cut -d' ' -f1)

.PHONY: demo test proof lint install clean

demo: $(STAMP)
	$(BIN)/python -m imvideoedit.demo

test: lint
	$(BIN)/python -m pytest -m "not slow"
	$(BIN)/python -m pytest -m "slow and not proof"

proof: $(STAMP)
	$(BIN)/python -m pytest -m proof

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

$(STAMP):
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=...')"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "Installing into .venv: about two minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -f .venv/.installed-*
	@touch $@

clean:
	rm -rf .venv build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
