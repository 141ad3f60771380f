# Needs Python >= 3.11 and make. Each target makes .venv first when it is missing or pyproject.toml has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: demo test campaign test-all lint clean

demo: $(VENV)/.ready
	$(BIN)/sagelink demo

# All tests but the long ones.
test: $(VENV)/.ready
	$(PYTEST)

# The long ones, and the property tests with many examples.
campaign: $(VENV)/.ready
	$(PYTEST) --campaign

test-all: test campaign

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sagelink needs Python 3.11 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages into $(VENV): a few minutes the first time, because PyTorch is large."
	$(BIN)/python -m pip install --upgrade --quiet pip
	$(BIN)/python -m pip install --editable '.[webrtc]' --group dev
	touch $@

clean:
	rm -rf $(VENV) runs build src/*.egg-info
