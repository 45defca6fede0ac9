"""Link cdrop's extension for another system, of the limited API and objects of the C tests; check what it exports.

Arguments: the configuration, the compiler with its flags, the extension's path, and the objects of src_c.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from abi3info import DATAS, FUNCTIONS
from binaries import mach_o, portable_executable

ROOT = Path(__file__).resolve().parents[2]
LIMITED = (3, 11)
EXPORTS = {"PyInit__kernels", "cdrop_get_num_threads", "cdrop_set_num_threads"}

# Of Python's configuration for the other system what its headers look at.
CONFIGURATION = """
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_LONG_LONG 8
#define SIZEOF_INT 4
#define SIZEOF_SHORT 2
#define SIZEOF_WCHAR_T %(wchar_t)d
#define SIZEOF_LONG %(long)d
#define ALIGNOF_MAX_ALIGN_T 16
#define HAVE_STDINT_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_SSIZE_T 1
#ifdef _WIN32
#define MS_WINDOWS 1
#define MS_WIN64 1
#define HAVE_DECLSPEC_DLL 1
#define Py_ENABLE_SHARED 1
#else
#define HAVE_UNISTD_H 1
#endif
"""

# Where the objects of the C tests allocate, which is the tests' own (see the Makefile).
ALLOCATIONS = """
#include <stdlib.h>
void *check_malloc(size_t bytes) { return malloc(bytes); }
void *check_calloc(size_t n, size_t bytes) { return calloc(n, bytes); }
"""


def run(*command: object) -> None:
    """Run a command; end with what it said if it fails."""
    process = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    if process.returncode or process.stderr:
        raise SystemExit(
            f"cdrop: {shlex.join(map(str, command))}\n{process.stdout}{process.stderr}"
        )


def headers(directory: Path, windows: bool) -> Path:
    """Copy Python's headers, with the other system's configuration for this one's."""
    include = directory / "include"
    shutil.copytree(sysconfig.get_paths()["include"], include)
    sizes = {"wchar_t": 2, "long": 4} if windows else {"wchar_t": 4, "long": 8}
    (include / "pyconfig.h").write_text(CONFIGURATION % sizes)
    return include


def import_library(directory: Path, cpu: str) -> Path:
    """Make the library through which a linker for Windows finds python3.dll: the limited API, and no other name."""
    symbols = [(known, "") for known in FUNCTIONS.values()] + [
        (known, " DATA") for known in DATAS.values()
    ]
    known = [
        symbol.symbol.name + kind
        for symbol, kind in symbols
        if (symbol.added.major, symbol.added.minor) <= LIMITED
    ]
    (directory / "python3.def").write_text(
        "LIBRARY python3.dll\nEXPORTS\n" + "\n".join(sorted(known))
    )
    tool = [sys.executable, "-m", "ziglang", "dlltool", "-m", cpu]
    run(*tool, "-d", directory / "python3.def", "-l", directory / "libpython3.a")
    return directory / "libpython3.a"


def main(system: str, compiler: str, output: str, *objects: str) -> None:
    """Compile what Cython makes of the extension, link it, and check it."""
    windows = system == "windows"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source, stub = directory / "_kernels.c", directory / "allocations.c"
        stub.write_text(ALLOCATIONS)
        run(sys.executable, "-m", "cython", "-3", ROOT / "cdrop" / "_kernels.pyx", "-o", source)
        limited = f"-DPy_LIMITED_API=0x03{LIMITED[1]:02X}0000"
        command = [*shlex.split(compiler), "-Wno-error", "-w", limited, "-DCYTHON_LIMITED_API=1"]
        found = [f"-I{headers(directory, windows)}", f"-I{ROOT / 'src_c'}"]
        cpu = "arm64" if "aarch64" in compiler else "i386:x86-64"
        link = [import_library(directory, cpu)] if windows else ["-Wl,-undefined,dynamic_lookup"]
        shared = ["-shared", "-o", output]
        run(*command, *found, *shared, source, stub, *objects, *link)
    data = Path(output).read_bytes()
    binary = (portable_executable if windows else mach_o)(data)
    if binary.exports != EXPORTS:
        raise SystemExit(
            f"cdrop: {output} exports {sorted(binary.exports)}; expected {sorted(EXPORTS)}"
        )
    needs = ", ".join(binary.libraries)
    release = f"macOS {binary.minimum}" if binary.minimum else "Windows"
    print(
        f"cdrop: {output}: for {binary.cpu}, {release}, needs {needs}; exports {', '.join(sorted(EXPORTS))}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
