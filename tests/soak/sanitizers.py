"""Sanitizers and valgrind: the C tests and the kernels' Python tests find nothing, and planted faults are found."""

import os
import re
import shutil
import subprocess
import sys
import time

from campaign import ROOT, Run, campaign, need

# The C tests that start threads, and those that valgrind runs within a few minutes.
WITH_THREADS = ("network", "products", "sample", "allocations", "special_values")
SMALL = ("dispatch", "lists", "masks", "sample")
PYTHON_TESTS = (
    "kernels",
    "masks",
    "losses",
    "optimizers",
    "sparse",
    "shapes",
    "uncertainty",
    "subnetworks",
)
SANITIZED = "-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"


def make(config, target, **variables):
    """Build and run a target of the C tests in one configuration; return the process."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    command = ["make", "--no-print-directory", f"C_CONFIG={config}", target, *settings]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def output_of(process):
    """Return all that a process said."""
    return process.stdout + process.stderr


def c_tests(run: Run, row, config, programs=(), **variables):
    """Run C tests in a configuration, all of them or some; report how many checks passed."""
    names = programs or sorted(path.stem[5:] for path in ROOT.glob("tests/c/test_*.c"))
    some = {"C_PROGRAMS": " ".join(f"test_{name}" for name in names[: run.trials(len(names))])}
    start = time.monotonic()
    process = make(config, "run-c-tests", **some, **variables)
    passed = sum(map(int, re.findall(r"^(\d+) passed, 0 failed$", process.stdout, re.MULTILINE)))
    paths = re.search(r"paths of this machine: (.*)", process.stdout)
    run.figure(
        row,
        f"{config}: {some['C_PROGRAMS']}: {passed} checks passed"
        + (f", on {paths[1]}" if paths else "")
        + f"; {time.monotonic() - start:.0f} s"
        + ("" if process.returncode == 0 else f"\n{output_of(process)[-4000:]}"),
        process.returncode == 0 and passed > 0,
    )


def control(run: Run, row, config, fault, report):
    """A program with a fault, made and run by the same command, must fail with a report of it."""
    process = make(config, "run-planted", FAULT=fault)
    found = process.returncode != 0 and report in output_of(process)
    run.figure(row, f"{config}: a planted fault ({fault}): {'found' if found else 'MISSED'}", found)


def preloaded(pythonpath):
    """Return the environment in which a Python that knows nothing of sanitizers loads a library that needs them."""
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("asan", "ubsan")
    ]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter itself frees little when it ends
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # so that its objects are watched as well
        "PYTHONPATH": str(pythonpath),
    }


def pytest(directory, *arguments):
    """Run tests with the package in a directory, not the one in place; return the process."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=preloaded(directory), capture_output=True, text=True, check=False
    )


def sanitized_package():
    """Build the package with both sanitizers; return its directory."""
    directory = ROOT / "build" / "address"
    shutil.rmtree(directory, ignore_errors=True)
    environment = {**os.environ, "CC": "gcc", "CFLAGS": SANITIZED, "LDFLAGS": SANITIZED}
    build = [sys.executable, "setup.py", "--quiet", "build", "--build-lib", str(directory)]
    subprocess.run(build, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return directory


PLANTED_TEST = """
import ctypes
import cdrop
library = ctypes.CDLL({library!r})
def test_read():
    assert {directory!r} in cdrop.__file__
    library.planted_read()
def test_overflow():
    library.planted_overflow()
"""


def python_controls(run: Run, directory):
    """Faults in a library made with the same flags, called by tests that are run by the same command."""
    library, tests = run.directory / "planted.so", run.directory / "test_planted.py"
    source = ROOT / "tests" / "soak" / "planted.c"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", *SANITIZED.split(), source, "-o", library], check=True
    )
    tests.write_text(PLANTED_TEST.format(library=str(library), directory=str(directory)))
    for fault, report in (
        ("read", "heap-buffer-overflow"),
        ("overflow", "signed integer overflow"),
    ):
        process = pytest(directory, str(tests), "-s", "-k", fault)
        found = process.returncode != 0 and report in output_of(process)
        run.figure(
            12, f"Python: a planted fault ({fault}): {'found' if found else 'MISSED'}", found
        )


@campaign(12)
def address(run: Run):
    """The C tests and the kernels' Python tests under the address and undefined behavior sanitizers."""
    need("gcc", debian="gcc")
    control(run, 12, "sanitize", "read", "heap-buffer-overflow")
    control(run, 12, "sanitize", "overflow", "signed integer overflow")
    c_tests(run, 12, "sanitize", SHORT="", OBJ="build/c-sanitize-whole")
    directory = sanitized_package()
    python_controls(run, directory)
    files = [f"tests/test_{name}.py" for name in PYTHON_TESTS[: run.trials(len(PYTHON_TESTS))]]
    process = pytest(directory, *files)
    run.figure(
        12,
        f"Python: {' '.join(files)}: {process.stdout.splitlines()[-1]}"
        + ("" if process.returncode == 0 else f"\n{output_of(process)[-4000:]}"),
        process.returncode == 0,
    )


@campaign(13)
def races(run: Run):
    """The C tests that use threads under clang's thread sanitizer."""
    need("clang-19", debian="clang-19 libclang-rt-19-dev")
    control(run, 13, "thread", "race", "WARNING: ThreadSanitizer: data race")
    c_tests(run, 13, "thread", WITH_THREADS)


@campaign(14)
def valgrind(run: Run):
    """C tests under valgrind, which hides AVX-512's foundation and reports its extensions: no error, no leak."""
    need("valgrind", debian="valgrind")
    control(run, 14, "valgrind", "uninitialized", "depends on uninitialised value")
    control(run, 14, "valgrind", "read", "Invalid read of size 4")
    c_tests(run, 14, "valgrind", SMALL)
