"""Installing the sdist and the wheel with old and new tools: it works, or one line names what is missing."""

import os
import re
import shutil
import subprocess
import sys

from campaign import ROOT, Run, campaign, need
from interpreters import VERSIONS, interpreter

ROW = 46
TRAINED = (
    "import numpy, cdrop; net = cdrop.Network((4, 8, 2), dropout=0.5);"
    "net.fit(numpy.eye(4, dtype='float32'), [0, 1, 0, 1], epochs=3); print('trained', cdrop.__version__)"
)
# How the sdist is installed where that works: tools for the environment, what installs, and variables.
WORKS = {
    "newest pip": (["pip"], "-m pip install", {}),
    "pip 21": (["pip==21.3.1"], "-m pip install", {}),
    "uv": (["uv"], "-m uv pip install", {}),
    "clang": (["pip"], "-m pip install", {"CC": "clang"}),
    "the limited API": (["pip"], "-m pip install", {"CDROP_ABI3": "1"}),
    "no isolation": (
        ["pip", "setuptools>=77", "cython", "numpy"],
        "-m pip install --no-build-isolation",
        {},
    ),
}
# What is missing, and the line that says so.
BARE = "-m pip install --no-build-isolation --no-deps"
FAILS = {
    "setuptools 65": (["setuptools==65.*", "wheel", "cython"], BARE, {}, "setuptools is 65.*expected setuptools 77"),
    "setuptools 68": (["setuptools==68.*", "wheel", "cython"], BARE, {}, "setuptools is 68.*expected setuptools 77"),
    "no Cython": (["setuptools>=77"], BARE, {}, "Cython is not installed; expected Cython 3.1"),
    "Cython 3.0": (["setuptools>=77", "cython==3.0.*"], BARE, {}, "Cython is 3.0.*expected Cython 3.1"),
    "no compiler": ([], "-m pip install", {"PATH": "/nowhere"}, "the C compiler is .*; expected gcc or clang"),
    "no headers of Python": ([], "-m pip install", {"CC": "{base}/no-headers"}, "Python.h is not in .*apt install"),
}  # fmt: skip
NO_HEADERS = """#!/bin/sh
case "$*" in *" -c -x c - "*) text=$(cat); case $text in *Python.h*) exit 1;; esac; echo "$text" | exec gcc "$@";; esac
exec gcc "$@"
"""


def environment(directory, python, *packages):
    """Make a virtual environment with some packages; return its Python."""
    subprocess.run([python, "-m", "venv", directory], check=True)
    made = directory / "bin" / "python"
    if packages:
        quiet = ["--quiet", "--disable-pip-version-check", "--upgrade"]
        subprocess.run([made, "-m", "pip", "install", *quiet, *packages], check=True)
    return made


def install(python, how, package, **variables):
    """Install a package; return whether that worked, and the last line of cdrop's own, else the last of all."""
    done = subprocess.run(
        [python, *how.split(), str(package)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("cdrop: ")]
    return done.returncode == 0, (ours or lines or [""])[-1]


def trained(python, directory):
    """Return what a network of the installed package says after training, or how that fails."""
    done = subprocess.run(
        [python, "-c", TRAINED], cwd=directory, capture_output=True, text=True, check=False
    )
    return (done.stdout or done.stderr).strip().splitlines()[-1]


@campaign(ROW)
def installs(run: Run):
    """The sdist by pip and uv, gcc and clang, and with something missing; the wheel in each Python."""
    need("clang", debian="clang")
    subprocess.run(
        [sys.executable, "-c", f"from setuptools.build_meta import build_sdist; build_sdist({str(run.directory)!r})"],
        cwd=ROOT, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    (sdist,) = run.directory.glob("cdrop-*.tar.gz")
    (run.directory / "no-headers").write_text(NO_HEADERS)
    (run.directory / "no-headers").chmod(0o755)
    for name in list(WORKS)[: run.trials(len(WORKS))]:
        packages, how, variables = WORKS[name]
        python = environment(run.directory / name, sys.executable, *packages)
        works, said = install(
            python, how, sdist, VIRTUAL_ENV=str(run.directory / name), **variables
        )
        result = trained(python, run.directory) if works else said
        run.figure(ROW, f"{name}: {result}", result.startswith("trained"))
    for name in list(FAILS)[: run.trials(len(FAILS))]:
        packages, how, variables, line = FAILS[name]
        python = environment(run.directory / name, sys.executable, *packages)
        variables = {key: text.format(base=run.directory) for key, text in variables.items()}
        works, said = install(python, how, sdist, **variables)
        run.figure(ROW, f"{name}: {said}", not works and bool(re.search(line, said)))
    wheels(run)


def wheels(run: Run):
    """The wheel that `make wheel` built, in each Python that is here."""
    found = sorted((ROOT / "dist").glob("cdrop-*-abi3-manylinux*_x86_64.whl"))
    if len(found) != 1:
        raise SystemExit(f"cdrop: dist/ has {len(found)} such wheels; expected 1: make wheel")
    for version in VERSIONS:
        python = interpreter(version)
        if python is None:
            run.figure(ROW, f"wheel in Python {version}: not here", holds=False)
            continue
        python = environment(run.directory / version, python)
        works, said = install(python, "-m pip install --only-binary :all:", found[0])
        result = trained(python, run.directory) if works else said
        run.figure(
            ROW, f"{found[0].name} in Python {version}: {result}", result.startswith("trained")
        )
        shutil.rmtree(run.directory / version)
