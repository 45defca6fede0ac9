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
# The extras that pyproject.toml has for users.
ALL    := $(shell sed -n 's/^all = \["cdrop\[\(.*\)\]"\]$$/\1/p' pyproject.toml)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

JOBS   := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
SAY    := @echo "cdrop:"
# Modules are compiled when they are first imported, not all of them by pip; so imports must be able to store what they compiled.
PIP    := $(PY) -m pip install --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE
INSTALL_WITH ?= pip
# Tests spend much of their time in one thread or waiting for other processes: they run in one process per CPU, at most 4.
PYTEST_FLAGS := --timeout 300 --timeout-method thread -n auto --maxprocesses 4 --dist worksteal
PYTEST := $(PY) -m pytest $(PYTEST_FLAGS)

C_FILES   := $(wildcard src_c/*.c src_c/simd/*.c)
C_HEADERS := $(wildcard src_c/*.h src_c/simd/*.h)
C_TESTS   := $(wildcard tests/c/*.[ch] tests/soak/*.[ch])
CYTHON    := $(wildcard cdrop/*.pyx cdrop/*.pxd cdrop/*.pxi)

# ---- The main job and the tests -----------------------------------------------------------------------------------

.PHONY: help compare test test-isa test-c test-peers test-sdist test-wheel wheel wheels sanitize bench guard soak \
        lint types format docs browser check clean FORCE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

compare: $(STAMPS)/extras-data,io,progress,stats ## Train the article's comparison: with dropout and without
	@$(PY) -m cdrop compare $(ARGS)

test: $(STAMPS)/extras-$(ALL) $(STAMPS)/group-test ## Run the tests (all but the slow ones)
	@$(PYTEST) $(ARGS)

test-isa: $(STAMPS)/extras-$(ALL) $(STAMPS)/group-test ## Run the tests on each SIMD path that this CPU has
	@for path in $$($(PY) -c "import cdrop.kernels; print(*cdrop.kernels.simd_paths())"); do \
	  echo "cdrop: tests with CDROP_SIMD=$$path"; \
	  CDROP_SIMD=$$path $(PYTEST) $(ARGS) || exit 1; \
	done

test-c: c-host c-neon ## Run the C tests here, and cross-compiled for ARM under qemu

test-peers: $(STAMPS)/extras-$(ALL) $(STAMPS)/group-test $(STAMPS)/group-peers ## Compare with PyTorch (installs it into .venv)
	@$(PYTEST) tests/peers $(ARGS)

sanitize: c-sanitize ## Run the C tests under the address and undefined behavior sanitizers

bench: $(STAMPS)/extras-plot,sklearn $(STAMPS)/group-bench ## Time cdrop, PyTorch, JAX, scikit-learn and NumPy (installs them)
	@$(PY) -m benchmarks $(ARGS)

guard: $(STAMPS)/venv ## Count each kernel's instructions (valgrind), and fail where they have grown by 10 %
	@$(PY) -m benchmarks.guard $(ARGS)

soak: $(STAMPS)/extras-$(ALL) $(STAMPS)/group-test ## Long campaigns, figures of docs/reliability.md (ARGS=--help lists them)
	@$(PY) tests/soak $(ARGS)

check: lint types test ## All that must be green before a change goes in: lint, types, test

# ---- The environment ----------------------------------------------------------------------------------------------
# Stamps in .venv/stamps say what has been done. One rewritten only when its text changes is the way to depend on a
# text (here: which directory, interpreter and compiler).

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
    exec "$$python" -m venv --clear --upgrade-deps $(VENV)  # a new pip: old ones take several times as long
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

# Made again in a copied directory, for another PYTHON=, and when its interpreter has gone.
$(STAMPS)/venv: FORCE
	@was=$$(cat $@ 2>/dev/null); \
	case "$(CURDIR)|$(PYTHON)" in "$$was"|"$${was%|*}|") $(PY) -c "" 2>/dev/null && exit 0;; esac; \
	sh -c "$$MAKE_VENV" && mkdir -p $(STAMPS) && echo "$(CURDIR)|$(PYTHON)" > $@

# uv takes a quarter of pip's time, but does not read pip's settings: where it fails, pip follows.
define INSTALL
if [ "$(INSTALL_WITH)" = uv ]; then
  $(PIP) uv && $(PY) -m uv pip install --quiet --python $(PY) "$$@" && exit
fi
exec $(PIP) "$$@"
endef
export INSTALL
WITH_PIP := sh -c "$$INSTALL" -

# Not all packages have wheels for free-threaded Python, and some need compilers of other languages: there each part of what is
# asked for is tried by itself.
HAS_LOCK := $(PY) -c "import sys, sysconfig; sys.exit(bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
NO_WHEELS := for free-threaded Python; the tests that need it are skipped

# A dependency group of pyproject.toml, which pip reads since 25.1: an environment may have an older one.
define INSTALL_GROUP
$(PY) -m pip install --help | grep -q -e --group || $(PIP) --upgrade 'pip>=25.1' || exit
if [ "$$1" != test ] || $(HAS_LOCK); then
  $(WITH_PIP) --group "$$1"
  exit
fi
for part in $$(sed -n 's/^\([a-z]*-tests\) = .*/\1/p' pyproject.toml); do
  $(WITH_PIP) --group "$$part" --only-binary :all: 2>/dev/null || echo "cdrop: no wheels of the group $$part $(NO_WHEELS)"
done
endef
export INSTALL_GROUP

$(STAMPS)/group-%: $(STAMPS)/venv pyproject.toml
	$(SAY) "installing packages into $(VENV) ($*)"
	@sh -c "$$INSTALL_GROUP" - $*
	@touch $@

$(STAMPS)/compiler: FORCE | $(STAMPS)/venv
	@[ "$$(cat $@ 2>/dev/null)" = "$$CC $$CFLAGS" ] || echo "$$CC $$CFLAGS" > $@

# setup.py compiles only what a change asks for, in place, and names what is missing in one line. The stamp bears the time of
# the start, because a file may change meanwhile.
$(STAMPS)/extension: $(STAMPS)/group-build $(STAMPS)/compiler setup.py pyproject.toml $(CYTHON) $(C_FILES) $(C_HEADERS)
	$(SAY) "compiling cdrop._kernels"
	@touch $@.start
	@$(PY) setup.py --quiet build_ext --inplace
	@mv $@.start $@

# cdrop itself, editable. No isolation: the build needs no network, and finds the objects that were just compiled. setuptools
# warns of every editable install, and pip passes that on.
CDROP := PYTHONWARNINGS=ignore $(WITH_PIP) --no-build-isolation --editable

$(STAMPS)/package: $(STAMPS)/extension setup.py pyproject.toml
	@$(CDROP) .
	@touch $@

# The packages of some extras.
define INSTALL_EXTRAS
if $(HAS_LOCK); then
  $(CDROP) ".[$$1]"
  exit
fi
$(CDROP) . || exit
for extra in $$(echo "$$1" | tr , ' '); do
  $(CDROP) ".[$$extra]" --only-binary :all: 2>/dev/null || echo "cdrop: no wheels of the extra $$extra $(NO_WHEELS)"
done
endef
export INSTALL_EXTRAS

$(STAMPS)/extras-%: $(STAMPS)/extension setup.py pyproject.toml
	$(SAY) "installing packages into $(VENV) (extras $*)"
	@sh -c "$$INSTALL_EXTRAS" - $*
	@touch $@

# ---- Style and types ----------------------------------------------------------------------------------------------

# What Cython adds to a module, as regular expressions for stubtest.
NOT_IN_STUB := 'cdrop\._kernels\.__test__' 'cdrop\._kernels\..*\.__(reduce|setstate)_cython__'

C_STYLED := $(C_FILES) $(C_HEADERS) $(C_TESTS) benchmarks/guard/kernels.c $(wildcard docs/browser/*.[ch])

lint: $(STAMPS)/group-lint $(STAMPS)/group-build ## Check the style, and that CC and clang compile without a warning
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive cdrop
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint cdrop  # it runs pycodestyle
	@$(VENV)/bin/clang-format --dry-run -Werror $(C_STYLED)
	@echo "cdrop: compiling, warnings as errors"
	@CDROP_WERROR=1 $(PY) setup.py --quiet build_ext --build-lib build/lint
	@command -v clang >/dev/null || { echo "cdrop: no clang here, so it is not tried"; exit 0; }; \
	  echo "cdrop: compiling with clang, warnings as errors"; \
	  CC=clang CDROP_WERROR=1 $(PY) setup.py --quiet build_ext --build-lib build/lint-clang

types: $(STAMPS)/group-lint $(STAMPS)/package ## Check the type hints, also as a user's editor does, and the stub
	@$(VENV)/bin/mypy
	@$(VENV)/bin/basedpyright --pythonpath $(PY)
	@mkdir -p build && printf '%s\n' $(NOT_IN_STUB) > build/not-in-stub
	@$(PY) -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist build/not-in-stub --ignore-unused-allowlist --ignore-disjoint-bases cdrop._kernels

format: $(STAMPS)/group-lint ## Rewrite the sources in the project's style
	@$(VENV)/bin/ruff check --fix-only --quiet .
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/clang-format -i $(C_STYLED)

# ---- The site -----------------------------------------------------------------------------------------------------

docs: $(STAMPS)/extras-$(ALL) $(STAMPS)/group-docs ## Build the site into build/docs, warnings as errors
	@$(PY) -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --doctree-dir build/doctrees docs build/docs
	$(SAY) "build/docs/index.html"

# The page of docs/browser.md, which the site has if this has been made before: zig's compiler is a package of 100 MB.
browser: $(STAMPS)/package $(STAMPS)/group-browser ## Build the page that trains in the browser, for `make docs`
	@$(PY) docs/browser/build.py

# ---- C tests ------------------------------------------------------------------------------------------------------
# Each tests/c/test_*.c is a program, linked with all of src_c and the other files of tests/c. One configuration is
# built by its own make, with C_CONFIG set: its compilers and programs run side by side, and no two of pip's do.
# A configuration has a compiler (else CC), flags, a command that runs its programs, and programs that it does without;
# names of Debian packages for a command that is missing.

# A part of the cases, where programs are slow.
SHORT := -DCHECK_SHORT
ZIG  := $(PY) -m ziglang cc
QEMU := qemu-user-static

CC_neon    := aarch64-linux-gnu-gcc
FLAGS_neon := -static $(SHORT)
# The default CPU of qemu 7.2 computes wrong products.
RUN_neon   := qemu-aarch64-static -cpu cortex-a76
APT_neon   := gcc-aarch64-linux-gnu libc6-dev-arm64-cross $(QEMU)

# On Windows itself nothing runs them but it: make C_CONFIG=windows PY=python run-c-tests.
CC_windows  := $(ZIG) -target $(if $(filter ARM64,$(PROCESSOR_ARCHITECTURE)),aarch64,x86_64)-windows-gnu
RUN_windows := $(if $(filter Windows_NT,$(OS)),,wine)
APT_windows := wine wine64
# Nothing runs a program for macOS here: it is linked, with little optimization to save time, and its header is checked.
FLAGS_macos-arm64  := -O1
FLAGS_macos-x86_64 := -O1
CC_macos-arm64   := $(ZIG) -target aarch64-macos.11.0
RUN_macos-arm64  := $(PY) tests/c/binaries.py arm64 11.0
CC_macos-x86_64  := $(ZIG) -target x86_64-macos.10.15
RUN_macos-x86_64 := $(PY) tests/c/binaries.py x86_64 10.15

CC_musl     := $(ZIG) -target x86_64-linux-musl
CC_i686     := $(ZIG) -target x86-linux-musl
CC_ppc64le  := $(ZIG) -target powerpc64le-linux-musl
FLAGS_ppc64le := $(SHORT)
RUN_ppc64le := qemu-ppc64le-static
CC_riscv64  := $(ZIG) -target riscv64-linux-musl
FLAGS_riscv64 := $(SHORT)
RUN_riscv64 := qemu-riscv64-static
CC_s390x    := $(ZIG) -target s390x-linux-musl
FLAGS_s390x := $(SHORT)
RUN_s390x   := qemu-s390x-static
APT_ppc64le := $(QEMU)
APT_riscv64 := $(QEMU)
APT_s390x   := $(QEMU)

FLAGS_sanitize := $(SHORT) -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
CC_thread      := clang-19
FLAGS_thread   := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
# Workers live until the process ends, and what the C library holds for them is not lost.
FLAGS_valgrind := -g
RUN_valgrind   := valgrind --quiet --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite \
                  --show-leak-kinds=definite --fair-sched=yes
# Nothing is inlined, or the branches of a kernel would count once in each copy.
FLAGS_coverage := -O0 -fPIC --coverage -Dalways_inline=

# test_large reserves terabytes of addresses, for which qemu takes memory; its indices are the same text everywhere.
# test_check forks.
WITHOUT := $(if $(filter-out musl host sanitize thread valgrind coverage macos-%,$(C_CONFIG)),test_large)
WITHOUT += $(if $(filter Darwin,$(shell uname)),test_large)
WITHOUT += $(if $(filter windows,$(C_CONFIG)),test_check)
C_PROGRAMS := $(filter-out $(WITHOUT),$(patsubst tests/c/%.c,%,$(wildcard tests/c/test_*.c)))
C_SUPPORT  := $(filter-out $(wildcard tests/c/test_*.c),$(wildcard tests/c/*.c))
POSIX_FLAGS := $(shell sed -n 's/^POSIX_FLAGS = "\(.*\)"$$/\1/p' setup.py)
C_FLAGS = $(or $(POSIX_FLAGS),$(error setup.py has no line POSIX_FLAGS = "...")) -Werror -Isrc_c -pthread $(FLAGS_$(C_CONFIG))
C_RUN  := $(RUN_$(C_CONFIG))

C_LOCAL := host sanitize thread valgrind coverage
C_CROSS := neon
C_ZIG   := windows macos-arm64 macos-x86_64 musl i686 ppc64le riscv64 s390x

.PHONY: c-macos $(addprefix c-,$(C_LOCAL) $(C_CROSS) $(C_ZIG))
c-macos: c-macos-arm64 c-macos-x86_64
c-windows: export WINEDEBUG := -all
$(C_ZIG:%=c-%): $(STAMPS)/group-build $(STAMPS)/group-wheel
$(addprefix c-,$(C_LOCAL) $(C_CROSS) $(C_ZIG)): c-%:
	@for tool in $(firstword $(CC_$*)) $(firstword $(RUN_$*)); do command -v "$$tool" >/dev/null || { \
	  echo "cdrop: c-$* needs $$tool. Debian: apt install $(APT_$*)" >&2; exit 1; }; done
	@$(MAKE) --no-print-directory -j$(JOBS) C_CONFIG=$* run-c-tests

ifdef C_CONFIG
override CC := $(or $(CC_$(C_CONFIG)),$(CC))
OBJ := build/c-$(C_CONFIG)
OBJECTS := $(patsubst %.c,$(OBJ)/%.o,$(C_FILES) $(C_SUPPORT))

C_RUNS := $(C_PROGRAMS:%=run-%)
.PHONY: run-c-tests run-planted $(C_RUNS)
run-c-tests: $(C_RUNS)
$(C_RUNS): run-%: $(OBJ)/%
	@said=$$($(C_RUN) $< 2>&1) && failed= || failed="cdrop: $< failed"; \
	  printf '%s\n' "cdrop: $(C_RUN) $<" "$$said"; [ -z "$$failed" ] || { echo "$$failed" >&2; exit 1; }

# For other systems the extension is linked, too.
ifneq ($(filter windows macos-%,$(C_CONFIG)),)
run-c-tests: run-extension
.PHONY: run-extension
run-extension: $(filter $(OBJ)/src_c/%,$(OBJECTS))
	@$(PY) tests/c/extension.py $(C_CONFIG) "$(CC) $(C_FLAGS)" $(OBJ)/_kernels.abi3.$(if $(filter windows,$(C_CONFIG)),pyd,so) $^
endif

# The campaigns' control: the same flags and the same command, with a fault in the program.
run-planted: $(OBJ)/planted
	@$(C_RUN) $< $(FAULT)

$(OBJ)/planted: $(OBJ)/tests/soak/planted.o
	@$(CC) $(C_FLAGS) $^ -o $@

.SECONDARY:
$(OBJ)/test_%: $(OBJ)/tests/c/test_%.o $(OBJECTS)
	@$(CC) $(C_FLAGS) $^ -lm -o $@

# The library's allocations are counted, and may be refused.
$(OBJ)/src_c/%.o: C_FLAGS += -Dmalloc=check_malloc -Dcalloc=check_calloc

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
# As a user gets them: the sdist is unpacked and built in an isolated build, and the wheel is installed in a new environment
# and tested far from here, by the sdist's tests, with neither the package's sources nor the C files next to them. For the
# tests, that environment also sees the packages in $(VENV): installing all of them again takes longer than the tests.

define MAKE_SDIST
set -eu
$(PY) -c "from setuptools.build_meta import build_sdist; build_sdist('$$1')" >"$$1/log" 2>&1 || { cat "$$1/log" >&2; exit 1; }
endef
export MAKE_SDIST

define TEST_PACKAGE
set -eu
if [ -n "$${CDROP_DATA:-}" ]; then CDROP_DATA=$$(cd "$$CDROP_DATA" && pwd); fi
directory=$$(mktemp -d)
trap 'rm -rf "$$directory"' EXIT
sh -c "$$MAKE_SDIST" - "$$directory"
tar -xzf "$$directory"/cdrop-*.tar.gz -C "$$directory"
$(PY) -m venv --upgrade-deps "$$directory/venv"
python=$$directory/venv/bin/python
package=$${1:-$$(echo "$$directory"/cdrop-*.tar.gz)}
echo "cdrop: installing $$(basename "$$package") in a new environment"
"$$python" -m pip install --quiet --no-compile $${1:+--only-binary :all:} "$$package"
(cd "$$directory" && "$$python" -m cdrop info >info) || { cat "$$directory/info" >&2; exit 1; }
$(PY) -c "import sysconfig; print(sysconfig.get_path('platlib'))" \
  >"$$("$$python" -c "import sysconfig; print(sysconfig.get_path('platlib'))")/zz_packages_for_tests.pth"
cd "$$directory"/cdrop-*/
rm -r cdrop cdrop.egg-info src_c
"$$python" -m pytest $(PYTEST_FLAGS) $(ARGS)
endef
export TEST_PACKAGE

test-sdist: $(STAMPS)/extras-$(ALL) $(STAMPS)/group-test ## Build the sdist, install it elsewhere, and run the tests there
	@sh -c "$$TEST_PACKAGE"

# Wheels are built from the sdist, for the limited API: one for every Python from 3.11 on. A free-threaded Python has its own.
# auditwheel gives the oldest tag that the library's symbols allow; it would add any library but libc and its kin, and a test
# says that there is none. LDSHARED is not the interpreter's, whose run path would get in where it was built here.
# $$1 is zig's name of a system, $$2 Python's; none are this one. $$3 is a compiler in place of zig's, which then only links: the
# symbols are those of zig's C library all the same. zig calls musl libc.so, as musl itself does: the exclusion keeps auditwheel
# from looking for it here.
define MAKE_WHEEL
set -eu
here=$$(pwd)
out=$$here/build/wheels/$${1:-here}
rm -rf "$$out" && mkdir -p "$$out/dist"
cc=$${CC:-cc} repair=--strip link= build=
if [ -n "$${1:-}" ]; then
  cc="$$($(PY) -c 'import os, ziglang; print(os.path.dirname(ziglang.__file__))')/zig cc -target $$1"
  export CC="$${3:-$$cc}" _PYTHON_HOST_PLATFORM="$$2"
  repair="--exclude libc.so" link=-s # the strip of this machine refuses the files of another
  build=--no-build-isolation # pip would fetch a Cython for that system
  # Debian's header leads to one for each machine: they differ in nothing that matters between 64-bit Linux systems.
  headers=$$out/include/$${1%%-*}-linux-gnu/$$($(PY) -c "import sys; print('python%d.%d' % sys.version_info[:2])")
  mkdir -p "$$headers"
  cp "$$($(PY) -c "import sysconfig; print(sysconfig.get_config_h_filename())")" "$$headers"
  export CFLAGS="-I$$out/include"
fi
export CDROP_ABI3=$$($(PY) -c "import sysconfig; print(int(not sysconfig.get_config_var('Py_GIL_DISABLED')))")
sh -c "$$MAKE_SDIST" - "$$out"
{
  LDSHARED="$$cc -shared $$link" $(PY) -m pip wheel $$build --no-deps --wheel-dir "$$out" "$$out"/cdrop-*.tar.gz &&
  $(PY) -m auditwheel repair $$repair --wheel-dir "$$out/dist" "$$out"/cdrop-*.whl &&
  if [ "$$CDROP_ABI3" = 1 ]; then $(PY) -m abi3audit --strict --report "$$out"/dist/*.whl; fi
} >"$$out/log" 2>&1 || { cat "$$out/log" >&2; exit 1; }
mkdir -p dist
for wheel in "$$out"/dist/*.whl; do
  mv "$$wheel" dist
  echo "cdrop: dist/$$(basename "$$wheel"), $$(($$(wc -c <"dist/$$(basename "$$wheel")") / 1024)) KiB"
done
endef
export MAKE_WHEEL
WITH_TOOLS := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh -c "$$MAKE_WHEEL" -

wheel: $(STAMPS)/group-build $(STAMPS)/group-wheel ## Build a wheel that installs without a compiler, into dist/
	@rm -f dist/*.whl
	@$(WITH_TOOLS)

# As old as the C library that NumPy's wheels ask for, or older: the symbols are those of glibc 2.17 and musl 1.2. Kernels compiled by
# gcc are faster than those by clang (steps of 784-256-256-10 take a tenth to a fifth longer, Zen 3), hence CC where it can.
wheels: $(STAMPS)/group-build $(STAMPS)/group-wheel ## Build wheels for Linux on x86-64 and ARM, glibc and musl, with zig
	@rm -f dist/*.whl
	@$(WITH_TOOLS) x86_64-linux-gnu.2.17 linux-x86_64 $(if $(filter x86_64,$(shell uname -m)),"$${CC:-cc}")
	@$(WITH_TOOLS) aarch64-linux-gnu.2.17 linux-aarch64
	@$(WITH_TOOLS) x86_64-linux-musl musllinux_1_2_x86_64
	@$(WITH_TOOLS) aarch64-linux-musl musllinux_1_2_aarch64

test-wheel: $(STAMPS)/extras-$(ALL) $(STAMPS)/group-test wheel ## Build the wheel, install it elsewhere without a compiler, and run the tests there
	@sh -c "$$TEST_PACKAGE" - "$(CURDIR)/$$(echo dist/cdrop-*.whl)"

clean: ## Remove all that make has made, .venv included
	@rm -rf $(VENV) build dist docs/gallery *.egg-info cdrop/*.so .coverage htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
