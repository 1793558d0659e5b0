# Every target sets up what it needs: .venv with the pinned requirements, and in it the package, built and installed.
#
#   make demo         mix real photographs and leave demo.png
#   make test         run the tests, a process on each core (PYTEST_ARGS="-k plan" picks some, "-n 0" leaves it at one)
#   make lint         check style, types and formatting;  make format mends what can be mended
#   make bench        measure on this machine's CPU;  make bench-gpu on its GPU
#   make gpu-check    on a machine with a GPU: test, check memory accesses and measure
#   make cuda-report  what nvcc makes of the CUDA kernels;  make ptx-report counts what the PTX of both executes
#   make train        what mixing does to a small network on Fashion-MNIST;  make data gets that
#   make install      no more than .venv and the package
#   make clean        remove everything that was made, .venv as well
#
# CUTMIX_CUDA_BUILD and TORCH_CUDA_ARCH_LIST choose what is compiled (see setup.py); a change of either builds anew.

PYTHON ?= python3
BIN := .venv/bin
PYTEST_ARGS ?=

SOURCES := setup.py pyproject.toml $(shell find csrc cutmix_cuda triton_kernels -name '*.py' -o -name '*.typed' \
    -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h')
CXX_SOURCES := $(shell find csrc tests -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h')
BUILD_SETTINGS := $(CUTMIX_CUDA_BUILD) $(TORCH_CUDA_ARCH_LIST) $(CUDA_HOME) $(CXX) $(CXXFLAGS) $(CPPFLAGS) $(LDFLAGS)

.PHONY: demo test lint format bench bench-gpu gpu-check cuda-report ptx-report train data install clean FORCE

# -I keeps this folder off sys.path, where the sources would hide the installed package.
demo: .venv/installed
	$(BIN)/python -I -m cutmix_cuda demo

test: .venv/installed
	$(BIN)/pytest --numprocesses logical --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

lint: .venv/requirements
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

format: .venv/requirements
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_SOURCES)

bench: .venv/installed
	$(BIN)/python benchmarks cpu

bench-gpu: .venv/installed
	$(BIN)/python benchmarks gpu

gpu-check: .venv/installed
	$(BIN)/python tests/gpu/check.py

cuda-report: .venv/installed
	$(BIN)/python benchmarks cuda-report

ptx-report: .venv/installed
	$(BIN)/python benchmarks ptx-report

train: .venv/installed
	$(BIN)/python benchmarks train

data: .venv/installed
	$(BIN)/python benchmarks data

install: .venv/installed

clean:
	rm -rf .venv build data dist *.egg-info cutmix_cuda/*.so demo.png .hypothesis .mypy_cache .pytest_cache .ruff_cache

.venv/requirements: requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

# Not editable: what the wheel lacks is missing in the tests too. --force-reinstall: the version stays the same.
.venv/installed: .venv/requirements .venv/settings $(SOURCES)
	$(BIN)/python -m pip install --verbose --no-build-isolation --no-deps --force-reinstall .
	touch $@

.venv/settings: FORCE | .venv/requirements
	@echo '$(BUILD_SETTINGS)' | cmp -s - $@ || echo '$(BUILD_SETTINGS)' > $@
