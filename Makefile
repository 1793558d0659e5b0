# Every target sets up what it needs: .venv with the pinned requirements, and in it the package, built and installed.
#
#   make demo         mix real photographs and leave demo.png
#   make test         run the tests, a process on each core (PYTEST_ARGS="-k plan" picks some, "-n 0" leaves it at one)
#   make check-torch  build for and test under TORCHES, older versions of torch; downloads some gigabytes for each
#   make wheel        build dist/*.whl, which serves every Python and torch (CUDA 12 for publishing: docs/start.md)
#   make check-wheel  install that one wheel under WHEEL_CHECKS, Pythons and torches, and mix; downloads gigabytes, too
#   make lint         check style, types and formatting;  make format mends what can be mended
#   make stub         write cutmix_cuda/__init__.pyi, the types of the public names, from their signatures
#   make bench        measure on this machine's CPU;  make bench-gpu on its GPU
#   make gpu-check    on a machine with a GPU: test, check memory accesses and measure (docs/gpu.md)
#   make cuda-report  what nvcc makes of the CUDA kernels;  make ptx-report counts what the PTX of both executes
#   make docs         the documentation's pages, into docs/_build/html
#   make train        what mixing does to a small network on Fashion-MNIST;  make data gets that
#   make install      no more than .venv and the package
#   make clean        remove everything that was made, .venv as well
#
# VENV=/path/of/an/environment, of any target, takes that one as it is: nothing is fetched, and the package alone is
# installed there. CUTMIX_CUDA_BUILD and TORCH_CUDA_ARCH_LIST choose what is compiled (see setup.py); a change of either
# builds anew.

STARTED := $(shell date +%s)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What was made last; of an environment that is not ours, outside of it.
STAMPS := $(if $(filter .venv,$(VENV)),.venv,build/$(subst /,-,$(abspath $(VENV))))
PYTEST_ARGS ?=

SOURCES := setup.py pyproject.toml $(shell find csrc cutmix_cuda triton_kernels -name '*.py' -o -name '*.pyi' -o -name '*.typed' \
    -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h')
CXX_SOURCES := $(shell find csrc tests -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h')
BUILD_SETTINGS := $(CUTMIX_CUDA_BUILD) $(TORCH_CUDA_ARCH_LIST) $(CUDA_HOME) $(CXX) $(CXXFLAGS) $(CPPFLAGS) $(LDFLAGS)

TORCHES ?= 2.10.0 2.12.0
WHEEL_CHECKS ?= 3.10-2.10.0 3.13-2.14.1

.PHONY: demo test check-torch wheel check-wheel lint format stub docs bench bench-gpu gpu-check cuda-report ptx-report \
    train data install clean FORCE

# -I keeps this folder off sys.path, where the sources would hide the installed package.
demo: $(STAMPS)/installed
	$(BIN)/python -I -m cutmix_cuda demo

test: $(STAMPS)/installed
	$(BIN)/pytest --numprocesses logical --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

check-torch: $(TORCHES:%=check-torch-%)

check-torch-%:
	$(PYTHON) -m venv .venv/torch-$*
	.venv/torch-$*/bin/python -m pip install --quiet torch==$* torchvision 'setuptools>=77' wheel pybind11 numpy scipy \
	    hypothesis pytest pytest-timeout
	CUTMIX_CUDA_BUILD=cpu .venv/torch-$*/bin/python -m pip install --no-build-isolation --no-deps --force-reinstall .
	.venv/torch-$*/bin/pytest tests/ops tests/api tests/kernels/test_math.py $(PYTEST_ARGS)

# torch's libraries stay outside. auditwheel names the oldest glibc that this machine's compiler comes to.
wheel: $(STAMPS)/requirements
	rm -rf build/wheel dist/*.whl
	$(BIN)/python -m pip wheel --no-build-isolation --no-deps --wheel-dir build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' --wheel-dir dist \
	    build/wheel/*.whl

check-wheel: $(WHEEL_CHECKS:%=check-wheel-%)

check-wheel-%: wheel
	python$(firstword $(subst -, ,$*)) -m venv .venv/wheel-$*
	.venv/wheel-$*/bin/python -m pip install --quiet torch==$(lastword $(subst -, ,$*)) numpy scipy
	.venv/wheel-$*/bin/python -m pip install --quiet --no-deps --force-reinstall dist/*.whl
	.venv/wheel-$*/bin/python -I tests/project/smoke.py

lint: $(STAMPS)/requirements
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

format: $(STAMPS)/requirements
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_SOURCES)

stub: $(STAMPS)/installed
	$(BIN)/python -I tests/project/stub.py

docs: $(STAMPS)/installed
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: $(STAMPS)/installed
	$(BIN)/python benchmarks cpu

bench-gpu: $(STAMPS)/installed
	$(BIN)/python benchmarks gpu

gpu-check: $(STAMPS)/installed
	$(BIN)/python tests/gpu --since $(STARTED) $(if $(PART),--part $(PART)) $(if $(LIMIT),--limit $(LIMIT)) \
	    $(if $(OUT),--out $(OUT)) $(if $(QUICK),--quick)

cuda-report: $(STAMPS)/installed
	$(BIN)/python benchmarks cuda-report

ptx-report: $(STAMPS)/installed
	$(BIN)/python benchmarks ptx-report

train: $(STAMPS)/installed
	$(BIN)/python benchmarks train

data: $(STAMPS)/installed
	$(BIN)/python benchmarks data

install: $(STAMPS)/installed

clean:
	rm -rf .venv build data dist *.egg-info cutmix_cuda/*.so cutmix_cuda/build.json demo.png docs/_build docs/_gallery .hypothesis .mypy_cache \
	    .pytest_cache .ruff_cache

ifeq ($(VENV),.venv)
$(STAMPS)/requirements: requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@
else
$(STAMPS)/requirements:
	mkdir -p $(STAMPS)
	touch $@
endif

# Not editable: what the wheel lacks is missing in the tests too. --force-reinstall: the version stays the same.
$(STAMPS)/installed: $(STAMPS)/requirements $(STAMPS)/settings $(SOURCES)
	$(BIN)/python -m pip install --verbose --no-build-isolation --no-deps --force-reinstall .
	touch $@

$(STAMPS)/settings: FORCE | $(STAMPS)/requirements
	@echo '$(BUILD_SETTINGS)' | cmp -s - $@ || echo '$(BUILD_SETTINGS)' > $@
