"""The C extension; everything else about the package stands in pyproject.toml."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import setuptools

# pip checks the releases of what pyproject.toml requires in an isolated build alone.
if int(setuptools.__version__.partition(".")[0]) < 77:
    sys.exit(
        f"cdrop: setuptools is {setuptools.__version__}; expected setuptools 77 or newer: pip install 'setuptools>=77', or leave "
        "--no-build-isolation out"
    )

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

# No -march: every SIMD path is compiled in by function target attributes and chosen at run time.
# No fused multiply-adds but the written ones, and no errno from sqrt: one result on every path.
# A function whose arrays are written beyond ends the process instead of returning.
# The Makefile reads this line for its C tests.
POSIX_FLAGS = "-O3 -std=c11 -ffp-contract=off -fno-math-errno -fvisibility=hidden -fstack-protector-strong -Wall -Wextra"
# The same for clang-cl, which stops a function whose stack was written beyond by itself. It is of LLVM 19 or newer: older ones
# show a function no instructions beyond the flags'. Microsoft's cl takes none of this.
CLANG_CL_FLAGS = "/O2 /clang:-O3 /std:c11 /clang:-ffp-contract=off /clang:-fno-math-errno /W3"
CLANG_CL_OLDEST = 19
CLANG_CL_TARGETS = {"win-amd64": "x86_64-pc-windows-msvc", "win-arm64": "arm64-pc-windows-msvc"}
# No address of a function stays writable once the library is loaded, and no stack is executable.
ELF_FLAGS = "-Wl,-z,relro,-z,now,-z,noexecstack"
# Of each line the first that the compiler takes: calls of the C library that check the sizes of their arrays (level 3 needs gcc
# 12 or clang 9), pages of a large stack frame touched in order, and jumps only to where they may lead (x86).
HARDENING = (
    ("-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3", "-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"),
    ("-fstack-clash-protection",),
    ("-fcf-protection",),
)
# One library for every Python from 3.11 on, of the functions and structures that all of them share; see PEP 384.
ABI3_FLAGS = "-DPy_LIMITED_API=0x030B0000"


def abi3_wanted():
    """Return whether ``CDROP_ABI3=1`` asks for the limited API. Wheels are built so; it costs short calls some time."""
    asked = os.environ.get("CDROP_ABI3") or "0"
    if asked not in ("0", "1"):
        sys.exit(
            f"cdrop: CDROP_ABI3 is {asked!r}; expected 1 (a library for every Python from 3.11 on) or 0"
        )
    if asked == "1" and sysconfig.get_config_var("Py_GIL_DISABLED"):
        sys.exit(
            "cdrop: CDROP_ABI3 is '1' in a free-threaded Python, which has no limited API; expected it unset"
        )
    return asked == "1"


def first_line(*command):
    """Return the first line that a command prints."""
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return printed.partition("\n")[0].strip()


class BuildKernels(build_ext):
    """Choose the flags by compiler, compile the files side by side, and keep what is up to date."""

    def initialize_options(self):
        super().initialize_options()
        self.cython_c_in_temp = True

    def finalize_options(self):
        super().finalize_options()
        # An editable install would compile in a directory it deletes, so everything again each time.
        self.build_temp = os.path.join("build", "kernels")

    def run(self):
        found = import_module("Cython").__version__ if find_spec("Cython") else "not installed"
        if not re.match(r"3\.[1-9]|[4-9]|[1-9]\d", found):
            sys.exit(
                f"cdrop: Cython is {found}; expected Cython 3.1 or newer: pip install 'Cython>=3.1'"
            )
        super().run()

    def build_extension(self, ext):
        if self.compiler.compiler_type == "msvc":
            self.use_clang_cl()
            ext.extra_compile_args = [*CLANG_CL_FLAGS.split(), *([ABI3_FLAGS] if ABI3 else [])]
        else:
            self.check_compiler()
            ext.extra_compile_args = [*POSIX_FLAGS.split(), *self.hardening()]
            linking = [ELF_FLAGS] if sys.platform == "linux" else []
            ext.extra_link_args = ["-lm", "-pthread", *linking]
            self.compiler.compile = self.parallel_compiler(self.compiler.compile)
        # distutils would keep a library that another compiler made; linking again costs nothing.
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        super().build_extension(ext)

    def use_clang_cl(self):
        """Have distutils call clang-cl for Windows; exit with one line that names what is missing."""
        target = CLANG_CL_TARGETS.get(self.plat_name)
        if target is None:
            expected = " or ".join(CLANG_CL_TARGETS)
            sys.exit(f"cdrop: the platform is {self.plat_name}; expected {expected}")
        if not self.compiler.initialized:
            self.compiler.initialize(self.plat_name)
        name = os.environ.get("CC") or "clang-cl"
        # Visual Studio's own is not on PATH.
        path = shutil.which(name) or shutil.which(name, path=getattr(self.compiler, "_paths", ""))
        found = first_line(path, "--version") if path else "not found"
        version = re.match(r"clang version (\d+)", found)
        if not version or int(version[1]) < CLANG_CL_OLDEST:
            sys.exit(
                f"cdrop: the C compiler {name!r} is {found or 'not clang-cl'}; expected clang-cl of LLVM {CLANG_CL_OLDEST} or newer: "
                "winget install LLVM.LLVM, and add it to PATH or set CC to its path"
            )
        self.compiler.cc = path
        self.compiler.compile_options = ["/nologo", "/DNDEBUG", "/MD", f"--target={target}"]

    def check_compiler(self):
        """Exit with one line that names what is missing; the compiler's own errors name no package."""
        compiler, python = self.compiler.compiler_so[0], sysconfig.get_python_version()
        if not self.compiles("#include <math.h>"):
            sys.exit(
                f"cdrop: the C compiler is {compiler!r}, which is not there or compiles nothing; expected gcc or clang with the "
                "headers of the C library: apt install gcc libc6-dev (Debian), dnf install gcc (Fedora), xcode-select --install "
                "(macOS); CC names another"
            )
        if not self.compiles("#include <Python.h>", *(f"-I{path}" for path in self.include_dirs)):
            sys.exit(
                f"cdrop: Python.h is not in {sysconfig.get_path('include')}; expected the headers of Python {python}: apt "
                f"install python{python}-dev (Debian), dnf install python3-devel (Fedora)"
            )

    def compiles(self, text, *flags):
        """Return whether the compiler takes a program with these flags, without a warning if they include -Werror."""
        with tempfile.TemporaryDirectory() as directory:
            place = ["-c", "-x", "c", "-", "-o", os.path.join(directory, "probe.o")]
            command = [*self.compiler.compiler_so, *flags, *place]
            try:
                run = subprocess.run(
                    command, input=f"{text}\n".encode(), capture_output=True, check=False
                )
            except OSError:  # there is no such compiler
                return False
        return run.returncode == 0

    def hardening(self):
        """Return the flags of HARDENING that the compiler takes without a warning; none with those of a sanitizer."""
        if any("-fsanitize" in flag for flag in self.compiler.compiler_so):
            return []
        chosen = (next(filter(self.takes, flags), "") for flags in HARDENING)
        return [flag for flags in chosen for flag in flags.split()]

    def takes(self, flags):
        return self.compiles("#include <string.h>", "-O2", "-Werror", *flags.split())

    def parallel_compiler(self, compile_files):
        """Wrap ``compile``: a thread for each file, and nothing to do for an object up to date."""

        def compile_all(sources, output_dir, depends, extra_postargs, **options):
            def compile_one(source):
                flags = [*extra_postargs, *self.flags_of(source)]
                command = [self.compiler.compiler_so, options["include_dirs"], flags]
                directory = os.path.join(output_dir, f"{zlib.crc32(repr(command).encode()):08x}")
                objects = self.compiler.object_filenames([source], output_dir=directory)
                if newer_group([source, *depends], objects[0]):
                    start = time.time()
                    compile_files([source], directory, extra_postargs=flags, **options)
                    os.utime(objects[0], (start, start))  # the source may have changed meanwhile
                return objects

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [obj for objects in pool.map(compile_one, sources) for obj in objects]

        return compile_all

    def flags_of(self, source):
        """Return the flags of one file: of ours -Werror if ``CDROP_WERROR=1``, of Cython's which API it uses."""
        if Path(source).parts[0] == "src_c":
            return ["-Werror"] if os.environ.get("CDROP_WERROR") == "1" else []
        return [ABI3_FLAGS] if ABI3 else []


ABI3 = abi3_wanted()
kernels = Extension(
    "cdrop._kernels",
    sources=["cdrop/_kernels.pyx", *sorted(glob("src_c/*.c") + glob("src_c/simd/*.c"))],
    depends=["setup.py", *sorted(glob("src_c/*.h") + glob("src_c/simd/*.h"))],
    include_dirs=["src_c"],
    py_limited_api=ABI3,
)

setup(
    ext_modules=[kernels],
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
