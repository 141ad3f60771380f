# Needs Python >= 3.11 and make. Each target makes .venv first when it is missing or pyproject.toml has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Every test process would compile all modules again, and pytest would rewrite all tests again.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest --dist worksteal --numprocesses

.PHONY: demo test test-oldest campaign test-all lint lock clean

demo: $(VENV)/.ready
	$(BIN)/sagelink demo

# All tests but the long ones.
test: $(VENV)/.ready
	$(PYTEST) 3

# The long ones, and the property tests with many examples.
campaign: $(VENV)/.ready
	$(PYTEST) 5 --campaign

# The oldest versions that pyproject.toml accepts, of all but PyTorch (3 GB), and a smoke set of tests.
OLDEST := .venv-oldest
SMOKE := tests/pipeline/config/test_schema.py tests/transport/codecs tests/transport/test_contract.py \
	tests/stages/test_sources.py tests/models/test_demo.py tests/app/test_run_files.py
test-oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest -o filterwarnings=default --numprocesses 2 --dist worksteal $(SMOKE)

$(OLDEST)/.ready: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet pyproject.toml --extra webrtc --extra nats --resolution lowest-direct \
		--no-annotate --no-header --no-emit-package torch --no-emit-package torchvision --output-file $(VENV)/oldest.txt
	$(BIN)/python -m venv --clear --without-pip $(OLDEST)
	grep -vE '^(triton|nvidia-)' $(VENV)/oldest.txt > $(VENV)/oldest-without-torch.txt
	$(BIN)/uv pip install --quiet --python $(OLDEST) --no-deps --requirement $(VENV)/oldest-without-torch.txt
	$(BIN)/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" > \
		$$($(OLDEST)/bin/python -c "import site; print(site.getsitepackages()[0])")/newest.pth
	touch $@

test-all: test campaign

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pins every package of a deployment, and of a camera box, with its hashes: Linux x86-64, Python 3.11.
# Run it after a change of dependencies.
# Limit single packages with LOCK="--constraint FILE".
lock: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra webrtc --group build $(LOCK) --generate-hashes --no-annotate \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" \
		--output-file deploy/requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra webrtc --group build --group box $(LOCK) \
		--override deploy/edge-overrides.txt --generate-hashes --no-annotate \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" \
		--output-file deploy/edge-requirements.txt

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sagelink needs Python 3.11 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages into $(VENV): a few minutes the first time, because PyTorch is large."
	$(BIN)/python -m pip install --upgrade --quiet pip
	$(BIN)/python -m pip install --editable '.[webrtc,nats]' --group dev
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) runs build src/*.egg-info
