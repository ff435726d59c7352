# Two commands do everything: `make demo` and `make test`. Both install what is missing, or name the command that does.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
BUILD := build/make
TORCH := 2.13.0
JOBS ?= $(shell nproc)

# What setup.py builds is what `make` builds: same folder, same options. The suites join after the first `make test`.
export FUSIBLE_BUILD_DIR := $(CURDIR)/$(BUILD)
export CMAKE_ARGS = -DFUSIBLE_TESTS=$(shell test -e $(BUILD)/with-tests && echo ON || echo OFF)

APT_BUILD := cmake g++ ninja-build ccache nlohmann-json3-dev
APT_TEST := libgtest-dev libgmock-dev libbenchmark-dev
# The interpreter may be Debian's, which needs two packages for this, or one that has them built in.
APT_PYTHON := $(shell $(PYTHON) -c 'import ensurepip, venv' 2>&1 | grep -q . && echo python3-venv; \
  $(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || echo python3-dev)

.DEFAULT_GOAL := help
.PHONY: help demo readme test bench fuzz lesser sanitize threads libfuzzer build cpp-test python-test lint-style clean system-build system-test

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: build  ## build, then fuse a ResNet-50: lint, fuse, verify, save, load, time
	@$(PY) -m fusible.demo

readme: build  ## run the demo and put what it prints into README.md
	@$(PY) -m fusible.demo --write README.md

test: cpp-test python-test  ## build, then every test: ctest and pytest
	@echo "ctest:  $$(grep -h 'tests passed' $(BUILD)/ctest.log)"
	@echo "pytest: $$(tail -n 1 $(BUILD)/pytest.log)"

build: $(VENV)/ready system-build  ## the library and the Python package, in place (incremental)
	@mkdir -p $(BUILD)
	@cmake -S . -B $(BUILD) -G Ninja -DFUSIBLE_PACKAGE_LAYOUT=ON -DPython3_EXECUTABLE=$(CURDIR)/$(PY) -DCMAKE_INSTALL_LIBDIR=lib $(CMAKE_ARGS) \
	  > $(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; exit 1; }
	cmake --build $(BUILD) --parallel $(JOBS)
	@$(PY) -m pip install --quiet --no-build-isolation --no-deps --editable .

.PHONY: test-build
test-build: $(VENV)/ready system-test
	@mkdir -p $(BUILD) && touch $(BUILD)/with-tests
	@$(MAKE) --no-print-directory build

cpp-test: lint-style test-build  ## the GoogleTest suites
	@bash -o pipefail -c 'ctest --test-dir $(BUILD) --output-on-failure --no-tests=error --parallel $(JOBS) 2>&1 | tee $(BUILD)/ctest.log'

# A crash prints long: its first lines say where, and a log that is cut keeps its last ones.
CRASHED = grep -a -B 3 -A 12 '^Fatal Python error' $(BUILD)/pytest.log; df -h . $${TMPDIR:-/tmp}

python-test: cpp-test $(VENV)/tests-ready  ## the pytest suites
	@bash -o pipefail -c '$(PY) -m pytest 2>&1 | tee $(BUILD)/pytest.log' || { $(CRASHED); exit 1; }

fuzz: test-build  ## 3,000 random modules of the day against the original
	$(BUILD)/tests/fuzz/fuzz_graphs --count 3000 --minutes 3 2> /dev/null

LESSER := "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2" "ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41" "OMP_NUM_THREADS=1"

lesser: test-build  ## the suites of kernels, operators and regions, and 200 random modules, as lesser machines run them
	@for machine in $(LESSER); do echo "$$machine"; \
	  env $$machine ctest --test-dir $(BUILD) --output-on-failure --parallel $(JOBS) -R '^(kernels|ops|region)[.]' -E 'Conv.MatchesAten' && \
	  env $$machine $(BUILD)/tests/fuzz/fuzz_graphs --count 200 --minutes 3 2> /dev/null || exit 1; done

sanitize: $(VENV)/ready system-test  ## AddressSanitizer and UndefinedBehaviorSanitizer: kernels, operators, regions, patterns, load and unload, 200 random modules
	cmake --preset asan -DPython3_EXECUTABLE=$(CURDIR)/$(PY) > /dev/null
	cmake --build --preset asan --parallel $(JOBS) --target test_kernels test_ops test_region patterns_test share_fused unload_library fuzz_graphs
	$(SANITIZED) ctest --test-dir build/asan --output-on-failure --parallel $(JOBS) -R '^(kernels|ops|region|patterns)[.]|^load[.](unload|first_calls)' -E 'Conv.MatchesAten|ParserErr|Cost'
	$(SANITIZED) build/asan/tests/fuzz/fuzz_graphs --count 200 --minutes 10

threads: $(VENV)/ready system-test  ## ThreadSanitizer: first calls beside save, copies and fuse, the JIT pass switched meanwhile, teams, and the load test
	cmake --preset tsan -DPython3_EXECUTABLE=$(CURDIR)/$(PY) > /dev/null
	cmake --build --preset tsan --parallel $(JOBS) --target share_fused load_fused test_ops test_region test_kernels
	$(RACES) build/tsan/tests/load/share_fused 10
	$(RACES) build/tsan/tests/load/load_fused --minutes 1
	$(RACES) build/tsan/tests/test_ops --gtest_filter='*AtOnce*'
	$(RACES) build/tsan/tests/test_region --gtest_filter='*.ThreadsAnd*'
	$(RACES) build/tsan/tests/test_kernels --gtest_filter='Team.*'

# It does not know the barriers of libgomp, which is not instrumented: loops run in the thread that calls. gcc 12 cannot place its memory where a kernel
# moves mappings by more than 28 bits, so they stay where they are, if this machine lets one say so.
RACES = $(shell setarch -R true 2> /dev/null && echo setarch -R) env OMP_NUM_THREADS=1 \
  TSAN_OPTIONS=suppressions=$(CURDIR)/tests/load/tsan.supp

LIBFUZZER_SECONDS ?= 300

libfuzzer: $(VENV)/ready system-build  ## coverage-guided fuzzing, LIBFUZZER_SECONDS (300) each: pattern files, texts of regions, archives
	$(call install,clang libclang-rt-14-dev)
	cmake --preset libfuzzer -DPython3_EXECUTABLE=$(CURDIR)/$(PY) > /dev/null
	cmake --build --preset libfuzzer --parallel $(JOBS) --target parse_patterns read_region
	$(PY) -m pip install --quiet atheris
	@mkdir -p build/libfuzzer/corpus/parse_patterns build/libfuzzer/corpus/read_region build/libfuzzer/corpus/read_archive
	cd build/libfuzzer && $(SANITIZED) tests/libfuzzer/parse_patterns corpus/parse_patterns $(CORPUS)/parse_patterns $(CURDIR)/patterns $(FUZZED)
	cd build/libfuzzer && $(SANITIZED) tests/libfuzzer/read_region corpus/read_region $(CORPUS)/read_region $(FUZZED)
	cd build/libfuzzer && $(CURDIR)/$(PY) $(CURDIR)/tests/libfuzzer/read_archive.py corpus/read_archive $(CORPUS)/read_archive $(FUZZED)

CORPUS := $(CURDIR)/tests/libfuzzer/corpus
FUZZED = -max_total_time=$(LIBFUZZER_SECONDS) -max_len=6000 -len_control=0 -timeout=60 -rss_limit_mb=4000 -print_final_stats=1

# torch itself is not instrumented: what it leaks at exit, and symbols that it and the tests both hold, say nothing about fusible.
# Memory that no machine has is refused to torch as the system does it, which raises.
SANITIZED := env ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

bench: build $(VENV)/bench-ready  ## the race against other engines and the kernels against the roof; RACE="--quick", RACE="--models resnet50 --batches 1"
	$(PY) bench/race.py --prepared build/race/prepared $(RACE)
	cmake -S . -B build/bench -G Ninja -DFUSIBLE_TESTS=OFF -DFUSIBLE_PYTHON=OFF -DFUSIBLE_BENCH=ON -DPython3_EXECUTABLE=$(CURDIR)/$(PY) > /dev/null
	cmake --build build/bench --parallel $(JOBS) --target kernels_bench
	build/bench/bench/kernels_bench bench/shapes.csv 1
	@echo "The table: build/race/race.md, the plot: build/race/race.svg. For README.md and docs/performance.md: $(PY) bench/publish.py build/race/race.json"

lint-style:  ## file lengths and forbidden strings
	@$(PYTHON) .ci/style.py

clean:  ## everything that was built; the environment stays
	rm -rf build python/fusible/lib python/fusible/include python/fusible/share python/fusible/_build_info.json python/fusible/_C.*.so

# torch goes first, alone and without its accelerator packages: any other order lets pip choose a CUDA build.
$(VENV)/ready: | system-python
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --no-deps torch==$(TORCH)
	$(PY) -m pip install --quiet 'setuptools>=70.1' wheel numpy filelock 'typing-extensions>=4.10' 'sympy>=1.13.3' 'networkx>=2.5.1' jinja2 fsspec
	@$(PY) -c 'import torch, sys; sys.exit(torch.version.cuda and "a CPU build of torch was needed, pip chose one for CUDA: point PIP_INDEX_URL to an index of CPU wheels, remove $(VENV) and try again")'
	@touch $@

$(VENV)/tests-ready: tests/requirements.txt | $(VENV)/ready
	$(PY) -m pip install --quiet --requirement tests/requirements.txt
	$(PY) -m pip install --quiet --no-deps torchvision==0.28.0
	@touch $@

# Nothing here may bring a torch of its own.
$(VENV)/bench-ready: | $(VENV)/tests-ready
	$(PY) -m pip install --quiet onnxruntime openvino onnx 'transformers==4.57.1'
	$(PY) -m pip install --quiet --no-deps onnxscript onnx_ir ml_dtypes torchvision==0.28.0 timm==1.0.31
	@touch $@

# $(call install,PACKAGES): Debian packages that are missing are installed by root or sudo, else the command is named.
define install
@command -v dpkg-query > /dev/null || exit 0; \
missing=$$(for package in $(1); do dpkg-query -W -f '$${Status}' $$package 2> /dev/null | grep -q 'install ok installed' || echo $$package; done); \
test -z "$$missing" && exit 0; \
if [ "$$(id -u)" = 0 ]; then as_root=; elif sudo -n true 2> /dev/null; then as_root="sudo -n"; else \
  echo "These Debian packages are missing. Run: sudo apt-get install --no-install-recommends" $$missing; exit 1; fi; \
echo "installing" $$missing; \
$$as_root apt-get update -qq && $$as_root apt-get install -qq -y --no-install-recommends $$missing
endef

.PHONY: system-python
system-python:
	$(call install,$(APT_PYTHON))
system-build:
	$(call install,$(APT_BUILD))
system-test: system-build
	$(call install,$(APT_TEST))
