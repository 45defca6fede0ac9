"""Python 3.11, 3.12 and 3.13: the package is built and tested under each, in a separate environment."""

import os
import shutil
import subprocess
from pathlib import Path

from campaign import ROOT, Run, campaign

VERSIONS = ("3.11", "3.12", "3.13")
# What an interpreter can change: the binding, its checks, threads and forks, files, and what is trained.
TESTS = (
    "arguments",
    "determinism",
    "files",
    "kernels",
    "network",
    "packaging",
    "storage",
    "threads",
)


def interpreter(version):
    """Return a Python of that version that runs, from PATH or from pyenv, or None."""
    number = version.removesuffix("t")  # without the GIL
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    there = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{number}.*/bin/python"))]
    ask = (
        "import sys, sysconfig; "
        "print('%d.%d' % sys.version_info[:2] + 't' * bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
    )
    for python in filter(None, map(str, filter(None, there))):
        said = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
        if said.stdout.strip() == version:
            return python
    return None


def copied(directory):
    """Copy what git knows of: `make` keeps its environment and its objects next to it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    return directory


def tested(directory, python, files):
    """Run `make test` there with that Python; return its exit code and what pytest says at the end."""
    done = subprocess.run(
        ["make", "test", f"PYTHON={python}", "ARGS=-q -p no:cacheprovider " + " ".join(files)],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]


@campaign(24)
def interpreters(run: Run):
    """`make test` of the files that an interpreter can break, under each Python of 3.11, 3.12 and 3.13."""
    pythons = {version: interpreter(version) for version in VERSIONS}
    missing = [version for version, python in pythons.items() if python is None]
    if missing:
        raise SystemExit(
            f"cdrop: this campaign needs Python {' and '.join(missing)}, which is not here. "
            "pyenv install " + " ".join(missing)
        )
    files = [f"tests/test_{name}.py" for name in TESTS[: run.trials(len(TESTS))]]
    for version, python in pythons.items():
        code, said = tested(copied(run.directory / version), python, files)
        run.figure(24, f"Python {version}: {said}", code == 0)
    directory = run.directory / VERSIONS[0]
    (directory / "tests" / "test_control.py").write_text("def test_control():\n    assert False\n")
    code, said = tested(directory, pythons[VERSIONS[0]], ["tests/test_control.py"])
    run.figure(24, f"control, a test that fails: {said}", code != 0)
