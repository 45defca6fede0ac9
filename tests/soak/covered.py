"""Branch coverage: of src_c by the C tests on every path of this machine, of cdrop by the Python tests."""

import json
import os
import shutil
import subprocess

from campaign import ROOT, Run, binding, campaign, need

TARGET = 95  # percent


def report(run, what, covered, total, of_files):
    """Report the share of branches that were taken, and of which files not all were."""
    for name, taken, branches in sorted(of_files):
        if taken < branches:
            print(f"  {name}: {taken} of {branches} branches")
    percent = 100 * covered / total
    text = f"{what}: {covered} of {total} branches taken, {percent:.1f} %"
    run.figure(23, text, percent >= TARGET)


# Of the Python tests, those that reach what no C test does: sparse rows, backgrounds, answers, faults.
REACHING = (
    "arguments",
    "background",
    "kernels",
    "losses",
    "optimizers",
    "sparse",
    "subnetworks",
    "threads",
)


# Where the C tests' objects allocate, which is the tests' own (see the Makefile).
ALLOCATIONS = """
#include <stdlib.h>
void *check_malloc(size_t bytes) { return malloc(bytes); }
void *check_calloc(size_t n, size_t bytes) { return calloc(n, bytes); }
"""


def run_python_tests(run, build):
    """Run Python tests on a library of the same objects, which count on."""
    (run.directory / "allocations.c").write_text(ALLOCATIONS)
    shutil.copytree(ROOT / "cdrop", run.directory / "cdrop", ignore=shutil.ignore_patterns("*.so"))
    objects = [*build.glob("src_c/**/*.o"), binding(run.directory), run.directory / "allocations.c"]
    output = ["-o", run.directory / "cdrop" / "_kernels.so"]
    gcc = [need("gcc", debian="gcc"), "-shared", "--coverage", "-pthread", *objects, "-lm", *output]
    subprocess.run(gcc, check=True)
    files = [f"tests/test_{name}.py" for name in REACHING]
    env = {**os.environ, "PYTHONPATH": str(run.directory)}
    # Not python -m pytest, which would find cdrop here first.
    subprocess.run([need("pytest", pip="pytest"), "-q", *files], cwd=ROOT, env=env, check=True)


@campaign(23)
def c_coverage(run: Run):
    """Count which branches of the library the C tests take, and the Python tests of the kernels."""
    gcovr, build, out = (
        need("gcovr", pip="gcovr"),
        ROOT / "build" / "c-coverage",
        run.directory / "c",
    )
    for counts in build.rglob("*.gcda"):  # of earlier runs
        counts.unlink()
    make = [need("make", debian="make"), "--no-print-directory", "c-coverage"]
    subprocess.run(make, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    run_python_tests(run, build)
    # A kernel's line is one line in all paths and types; some run more often than gcovr believes.
    options = ["--merge-lines", "--gcov-suspicious-hits-threshold", "0", "--filter", "src_c/"]
    options += ["--root", ROOT, "--json-summary", out]
    subprocess.run([gcovr, *options, build], cwd=ROOT, check=True)
    result = json.loads(out.read_text())
    files = [(f["filename"], f["branch_covered"], f["branch_total"]) for f in result["files"]]
    report(run, "C", result["branch_covered"], result["branch_total"], files)


@campaign(23)
def python_coverage(run: Run):
    """Count which branches of the package the Python tests take."""
    coverage, out = need("coverage", pip="coverage"), run.directory / "python"
    env = {**os.environ, "COVERAGE_FILE": str(run.directory / "data")}
    subprocess.run([coverage, "run", "-m", "pytest", "-q"], cwd=ROOT, env=env, check=True)
    subprocess.run([coverage, "json", "-q", "-o", out], cwd=ROOT, env=env, check=True)
    result = json.loads(out.read_text())
    files = [
        (name, file["summary"]["covered_branches"], file["summary"]["num_branches"])
        for name, file in result["files"].items()
    ]
    report(
        run, "Python", result["totals"]["covered_branches"], result["totals"]["num_branches"], files
    )
