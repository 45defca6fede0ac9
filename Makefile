# One door for each habit; `make help` lists them. Every target first makes what it needs: the virtual environment .venv
# from a Python that works, the packages, the compiled extension. Needed beforehand: Python 3.11+, a C compiler, make.
#   make test ARGS="-k mask -x"      further arguments for the command behind a target (ARGS="-n0 --pdb": one process)
#   make compare PYTHON=python3.12   another interpreter (also python3.14t); CC=clang and CFLAGS=... choose the compiler

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

VENV   := .venv
PY     := $(VENV)/bin/python
STAMPS := $(VENV)/stamps
ARGS   ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

JOBS   := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
SAY    := @echo "cdrop:"
PIP    := $(PY) -m pip install --quiet
# Tests spend much of their time in one thread or waiting for other processes: they run in one process per CPU, at most 4.
PYTEST_FLAGS := --timeout 300 --timeout-method thread -n auto --maxprocesses 4 --dist worksteal
PYTEST := $(PY) -m pytest $(PYTEST_FLAGS)

C_FILES   := $(wildcard src_c/*.c src_c/simd/*.c)
C_HEADERS := $(wildcard src_c/*.h src_c/simd/*.h)
C_TESTS   := $(wildcard tests/c/*.[ch] tests/soak/*.[ch])
CYTHON    := $(wildcard cdrop/*.pyx cdrop/*.pxd cdrop/*.pxi)

# ---- The main job and the tests -----------------------------------------------------------------------------------

.PHONY: help compare test test-isa test-c test-peers test-sdist test-wheel wheel sanitize bench guard soak \
        lint types format docs browser check clean FORCE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

compare: $(STAMPS)/packages-data,io,progress,stats $(STAMPS)/extension ## Train the article's comparison: with dropout and without
	@$(PY) -m cdrop compare $(ARGS)

test: $(STAMPS)/packages-test $(STAMPS)/extension ## Run the tests (all but the slow ones)
	@$(PYTEST) $(ARGS)

test-isa: $(STAMPS)/packages-test $(STAMPS)/extension ## Run the tests on each SIMD path that this CPU has
	@for path in $$($(PY) -c "import cdrop.kernels; print(*cdrop.kernels.simd_paths())"); do \
	  echo "cdrop: tests with CDROP_SIMD=$$path"; \
	  CDROP_SIMD=$$path $(PYTEST) $(ARGS) || exit 1; \
	done

test-c: c-host c-neon ## Run the C tests here, and cross-compiled for ARM under qemu

test-peers: $(STAMPS)/packages-test $(STAMPS)/extension $(STAMPS)/torch ## Compare with PyTorch (installs it into .venv)
	@$(PYTEST) tests/peers $(ARGS)

sanitize: c-sanitize ## Run the C tests under the address and undefined behaviour sanitizers

bench: $(STAMPS)/packages-bench $(STAMPS)/extension ## Time cdrop beside PyTorch, JAX, scikit-learn and NumPy (installs them)
	@$(PY) -m benchmarks $(ARGS)

guard: $(STAMPS)/venv ## Count each kernel's instructions (valgrind), and fail where they have grown by 10 %
	@$(PY) -m benchmarks.guard $(ARGS)

soak: $(STAMPS)/packages-test $(STAMPS)/extension ## Long campaigns, figures of docs/reliability.md (ARGS=--help lists them)
	@$(PY) tests/soak $(ARGS)

check: lint types test ## All that must be green before a change goes in: lint, types, test

# ---- The environment ----------------------------------------------------------------------------------------------
# Stamps in .venv/stamps say what has been done. One rewritten only when its text changes is the way to depend on a
# text (here: which folder, interpreter and compiler).

define FIND_FAULT
import os, shlex, subprocess, sys, sysconfig
name, version = sys.argv[1], "%d.%d" % sys.version_info[:2]
def check(works, what, debian, fedora):
    if not works:
        print("  %s: no %s. Debian: apt install %s. Fedora: dnf install %s." % (name, what, debian, fedora))
        sys.exit(1)
def compiles(text):
    try:
        subprocess.run(compiler + ["-fsyntax-only", "-x", "c", "-"], input=text, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True
check(sys.version_info >= (3, 11), "Python 3.11 or newer (it is %s)" % version, "python3", "python3")
from importlib.util import find_spec
check(find_spec("venv") and find_spec("ensurepip"), "modules venv and ensurepip", "python%s-venv" % version, "python3")
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
check(os.path.exists(header), "C headers of Python", "python%s-dev" % version, "python3-devel")
compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
check(compiles(b""), "C compiler that works (%s)" % compiler[0], "gcc libc6-dev", "gcc")
check(compiles(b"#include <math.h>"), "headers of the C library", "libc6-dev", "glibc-devel")
endef
export FIND_FAULT

# A candidate counts only if it runs: pyenv leaves commands on PATH that do nothing but fail.
define MAKE_VENV
for python in $${PYTHON:-python3.13 python3.12 python3.11 python3}; do
  if ! "$$python" -c "" 2>/dev/null; then
    fault="  $$python: not found, or does not run."
  elif fault=$$("$$python" -c "$$FIND_FAULT" "$$python"); then
    echo "cdrop: making $(VENV) with $$python ($$("$$python" -V))"
    exec "$$python" -m venv --clear $(VENV)
  fi
  faults="$$faults$$fault|"
done
{
  echo "cdrop: none of these can build the project:"
  printf %s "$$faults" | tr '|' '\n'
  echo "Install what is missing, or name another interpreter: make PYTHON=<path>. All that is needed:"
  echo "  Debian: apt install python3 python3-venv python3-dev gcc make    Fedora: dnf install python3-devel gcc make"
} >&2
exit 1
endef
export MAKE_VENV

# Made anew in a copied folder, for another PYTHON=, and when its interpreter has gone.
$(STAMPS)/venv: FORCE
	@was=$$(cat $@ 2>/dev/null); \
	case "$(CURDIR)|$(PYTHON)" in "$$was"|"$${was%|*}|") $(PY) -c "" 2>/dev/null && exit 0;; esac; \
	sh -c "$$MAKE_VENV" && mkdir -p $(STAMPS) && echo "$(CURDIR)|$(PYTHON)" > $@

# What pyproject.toml asks for: to build and run, or under the extras named.
define REQUIREMENTS
import re, sys, tomllib
settings = tomllib.load(open("pyproject.toml", "rb"))
project = settings["project"]
lists = {"build": settings["build-system"]["requires"] + project["dependencies"], **project["optional-dependencies"]}
def show(name):
    for requirement in lists[name]:
        extras = re.fullmatch(r"cdrop\[(.*)\]", requirement)
        for extra in extras[1].split(",") if extras else []:
            show(extra)
        if not extras:
            print(requirement)
for name in sys.argv[1].split(","):
    show(name)
endef
export REQUIREMENTS

# Some packages have no wheel for free-threaded Python, and need compilers for other languages to build: tests that need one
# of them are skipped.
define INSTALL_REQUIREMENTS
import subprocess, sys, sysconfig
file, pip = sys.argv[1], [sys.executable, "-m", "pip", "install", "--quiet"]
if not sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(subprocess.call([*pip, "-r", file]))
for requirement in open(file).read().splitlines():
    if subprocess.call([*pip, "--only-binary", ":all:", requirement], stderr=subprocess.DEVNULL):
        print("cdrop: no wheel of %s for free-threaded Python; the tests that need it are skipped" % requirement)
endef
export INSTALL_REQUIREMENTS

$(STAMPS)/packages-%: $(STAMPS)/venv pyproject.toml
	$(SAY) "installing packages into $(VENV) ($*)"
	@$(PY) -c "$$REQUIREMENTS" $* > $@.txt
	@$(PY) -c "$$INSTALL_REQUIREMENTS" $@.txt
	@touch $@

$(STAMPS)/torch: $(STAMPS)/packages-test
	$(SAY) "installing PyTorch into $(VENV), to compare with"
	@$(PIP) torch==2.13.0
	@touch $@

$(STAMPS)/compiler: FORCE | $(STAMPS)/venv
	@[ "$$(cat $@ 2>/dev/null)" = "$$CC $$CFLAGS" ] || echo "$$CC $$CFLAGS" > $@

# setup.py compiles only what a change asks for, in place; pip then makes the package known. No isolation: it needs no
# network, and keeps its objects. The stamp bears the time of the start, because a file may change meanwhile.
INSTALL := $(PIP) --no-build-isolation --no-deps --editable .
$(STAMPS)/extension: $(STAMPS)/packages-build $(STAMPS)/compiler setup.py pyproject.toml $(CYTHON) $(C_FILES) $(C_HEADERS)
	$(SAY) "compiling cdrop._kernels"
	@touch $@.start
	@$(PY) setup.py --quiet build_ext --inplace
	@$(if $(filter setup.py pyproject.toml,$?),$(INSTALL))
	@mv $@.start $@

# ---- Style and types ----------------------------------------------------------------------------------------------

# What Cython adds to a module, as regular expressions for stubtest.
NOT_IN_STUB := 'cdrop\._kernels\.__test__' 'cdrop\._kernels\..*\.__(reduce|setstate)_cython__'

C_STYLED := $(C_FILES) $(C_HEADERS) $(C_TESTS) benchmarks/guard/kernels.c $(wildcard docs/browser/*.[ch])

lint: $(STAMPS)/packages-lint $(STAMPS)/packages-build ## Check the style, and that gcc and clang compile without a warning
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive cdrop
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint cdrop  # it runs pycodestyle
	@$(VENV)/bin/clang-format --dry-run -Werror $(C_STYLED)
	@for cc in gcc clang; do \
	  command -v $$cc >/dev/null || { echo "cdrop: no $$cc here, so it is not tried"; continue; }; \
	  echo "cdrop: compiling with $$cc, warnings as errors"; \
	  CC=$$cc CDROP_WERROR=1 $(PY) setup.py --quiet build_ext --build-lib build/lint-$$cc || exit 1; \
	done

types: $(STAMPS)/packages-lint $(STAMPS)/extension ## Check the type hints, also as a user's editor does, and the stub
	@$(VENV)/bin/mypy
	@$(VENV)/bin/basedpyright --pythonpath $(PY)
	@mkdir -p build && printf '%s\n' $(NOT_IN_STUB) > build/not-in-stub
	@$(PY) -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist build/not-in-stub --ignore-unused-allowlist --ignore-disjoint-bases cdrop._kernels

format: $(STAMPS)/packages-lint ## Rewrite the sources in the project's style
	@$(VENV)/bin/ruff check --fix-only --quiet .
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/clang-format -i $(C_STYLED)

# ---- The site -----------------------------------------------------------------------------------------------------

docs: $(STAMPS)/packages-docs $(STAMPS)/extension ## Build the site into build/docs, warnings as errors
	@$(PY) -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --doctree-dir build/doctrees docs build/docs
	$(SAY) "build/docs/index.html"

# The page of docs/browser.md, which the site has if this has been made before: zig's compiler is a package of 100 MB.
browser: $(STAMPS)/packages-build,browser $(STAMPS)/extension ## Build the page that trains in the browser, for `make docs`
	@$(PY) docs/browser/build.py

# ---- C tests ------------------------------------------------------------------------------------------------------
# Each tests/c/test_*.c is a program, linked with all of src_c and the other files of tests/c. One configuration is
# built by a make of its own, with C_CONFIG set: its compilers and programs run side by side, and no two of pip's do.

C_PROGRAMS := $(patsubst tests/c/%.c,%,$(wildcard tests/c/test_*.c))
C_SUPPORT  := $(filter-out $(wildcard tests/c/test_*.c),$(wildcard tests/c/*.c))
C_FLAGS     = $(or $(POSIX_FLAGS),$(error setup.py has no line POSIX_FLAGS = "...")) -Werror -Isrc_c -pthread
POSIX_FLAGS := $(shell sed -n 's/^POSIX_FLAGS = "\(.*\)"$$/\1/p' setup.py)
C_RUN      :=
ifeq ($(C_CONFIG),neon)
override CC := aarch64-linux-gnu-gcc
C_FLAGS += -static
# qemu takes memory for every page of the terabytes of addresses that this one maps; its indices are the same text here.
C_PROGRAMS := $(filter-out test_large,$(C_PROGRAMS))
# The default CPU of qemu 7.2 computes wrong products.
C_RUN := qemu-aarch64-static -cpu cortex-a76
else ifeq ($(C_CONFIG),sanitize)
C_FLAGS += -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
else ifeq ($(C_CONFIG),thread)
override CC := clang-19
C_FLAGS += -O1 -g -fno-omit-frame-pointer -fsanitize=thread
else ifeq ($(C_CONFIG),valgrind)
C_FLAGS += -g
# Workers live until the process ends, and what the C library holds for them is not lost.
C_RUN := valgrind --quiet --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite --fair-sched=yes
else ifeq ($(C_CONFIG),coverage)
# Nothing is inlined, or the branches of a kernel would count once in each copy.
C_FLAGS += -O0 -fPIC --coverage -Dalways_inline=
endif

.PHONY: c-host c-neon c-sanitize c-coverage
c-host c-sanitize c-coverage: c-%:
	@$(MAKE) --no-print-directory -j$(JOBS) C_CONFIG=$* run-c-tests

c-neon:
	@command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64-static >/dev/null || { \
	  echo "cdrop: the tests for ARM need a cross compiler and qemu." >&2; \
	  echo "Debian: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static" >&2; exit 1; }
	@$(MAKE) --no-print-directory -j$(JOBS) C_CONFIG=neon run-c-tests

ifdef C_CONFIG
OBJ := build/c-$(C_CONFIG)
OBJECTS := $(patsubst %.c,$(OBJ)/%.o,$(C_FILES) $(C_SUPPORT))

C_RUNS := $(C_PROGRAMS:%=run-%)
.PHONY: run-c-tests run-planted $(C_RUNS)
run-c-tests: $(C_RUNS)
$(C_RUNS): run-%: $(OBJ)/%
	@said=$$($(C_RUN) $< 2>&1) && failed= || failed="cdrop: $< failed"; \
	  printf '%s\n' "cdrop: $(C_RUN) $<" "$$said"; [ -z "$$failed" ] || { echo "$$failed" >&2; exit 1; }

# The campaigns' control: the same flags and the same command, with a fault in the program.
run-planted: $(OBJ)/planted
	@$(C_RUN) $< $(FAULT)

$(OBJ)/planted: $(OBJ)/tests/soak/planted.o
	@$(CC) $(C_FLAGS) $^ -o $@

.SECONDARY:
$(OBJ)/test_%: $(OBJ)/tests/c/test_%.o $(OBJECTS)
	@$(CC) $(C_FLAGS) $(C_LINK) $^ -lm -o $@

$(OBJ)/test_allocations: C_LINK := -Wl,--wrap=malloc,--wrap=calloc

# Programs of the campaigns, which count on the machine they are compiled on.
$(OBJ)/soak_%: $(OBJ)/tests/soak/%.o $(OBJ)/tests/soak/words.o $(OBJECTS)
	@$(CC) $(C_FLAGS) $^ $(C_LIBS) -lm -o $@

$(OBJ)/tests/soak/%.o: C_FLAGS += -march=native
$(OBJ)/soak_crush: C_LIBS := -ltestu01 -ltestu01probdist -ltestu01mylib

$(OBJ)/%.o: %.c Makefile setup.py
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) -MMD -MP -c $< -o $@

-include $(OBJECTS:.o=.d) $(C_PROGRAMS:%=$(OBJ)/tests/c/%.d) $(wildcard $(OBJ)/tests/soak/*.d)
else
.NOTPARALLEL:
endif

# ---- The packages -------------------------------------------------------------------------------------------------
# As a user gets them: the sdist, or the wheel if one is named, is installed in an environment of its own and tested far
# from here, by the sdist's tests, with neither the package's sources nor the C files beside them. The sdist is compiled
# in an isolated build; beside the wheel nothing may be compiled.

define TEST_PACKAGE
set -eu
if [ -n "$${CDROP_DATA:-}" ]; then CDROP_DATA=$$(cd "$$CDROP_DATA" && pwd); fi
folder=$$(mktemp -d)
trap 'rm -rf "$$folder"' EXIT
$(PY) -c "from setuptools.build_meta import build_sdist; build_sdist('$$folder')" >"$$folder/log" 2>&1 || {
  cat "$$folder/log" >&2; exit 1; }
tar -xzf "$$folder"/cdrop-*.tar.gz -C "$$folder"
$(PY) -m venv "$$folder/venv"
package=$${1:-$$(echo "$$folder"/cdrop-*.tar.gz)}
echo "cdrop: installing $$(basename "$$package") in a new environment"
"$$folder/venv/bin/python" -m pip install --quiet $${1:+--only-binary :all:} "$$package[test]"
cd "$$folder"/cdrop-*/
rm -r cdrop src_c
../venv/bin/python -m pytest $(PYTEST_FLAGS) $(ARGS)
endef
export TEST_PACKAGE

test-sdist: $(STAMPS)/packages-build ## Build the sdist, install it elsewhere, and run the tests there
	@sh -c "$$TEST_PACKAGE"

# The oldest manylinux tag that the library's symbols allow. auditwheel would carry along any library but libc and its kin;
# a test says that there is none. What setuptools left in build/lib.* of modules since removed must not get in, nor the run
# path of an interpreter that was built here, which is why LDSHARED is not the interpreter's.
wheel: $(STAMPS)/packages-build,wheel $(STAMPS)/extension ## Build a wheel that installs without a compiler, into dist/
	@rm -rf build/lib.* build/wheel dist/*.whl
	@LDSHARED="$${CC:-cc} -shared" $(PY) -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir build/wheel .
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" auditwheel repair --strip --wheel-dir dist build/wheel/cdrop-*.whl \
	  >build/wheel/log 2>&1 || { cat build/wheel/log >&2; exit 1; }
	@for wheel in dist/cdrop-*.whl; do echo "cdrop: $$wheel, $$(($$(wc -c <$$wheel) / 1024)) KiB"; done

test-wheel: wheel ## Build the wheel, install it elsewhere without a compiler, and run the tests there
	@sh -c "$$TEST_PACKAGE" - "$(CURDIR)/$$(echo dist/cdrop-*.whl)"

clean: ## Remove all that make has made, .venv included
	@rm -rf $(VENV) build dist *.egg-info cdrop/*.so .coverage htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
