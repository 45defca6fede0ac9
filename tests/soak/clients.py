"""Tools of other people: the examples of docs/with-other-tools.md, with the newest releases of all of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from campaign import ROOT, Run, campaign

PAGE = ROOT / "docs" / "with-other-tools.md"
ROW = 46
# By section of the page: what pip installs for it, of which the first is what its line shows.
PACKAGES = {
    "MLflow": ("mlflow", "skops"),
    "Optuna": ("optuna",),
    "ONNX": ("skl2onnx", "onnx", "onnxruntime"),
    "imbalanced-learn": ("imbalanced-learn",),
    "SHAP": ("shap",),
    "MAPIE": ("mapie",),
    "Dask": ("dask[distributed]", "joblib"),
    "Ray": ("ray",),
    "FastAPI": ("fastapi", "httpx", "safetensors"),
    "polars": ("polars", "pyarrow"),
    "skops and joblib": ("skops", "joblib"),
}
ALWAYS = ("numpy", "scikit-learn", "scipy", "pandas")
QUIET = {  # no servers, files and messages but those of the examples
    "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONWARNINGS": "ignore",
}
CONTROL = "from cdrop import DropoutMLPClassifier\nDropoutMLPClassifier(dropuot=0.5)\n"
OLD_SETUPTOOLS = ("65", "68")


def examples(text):
    """Return the script of each section of the page."""
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    pairs = zip(sections[::2], sections[1::2], strict=True)
    return {
        name: block[1]
        for name, body in pairs
        if (block := re.search(r"^```py\n(.*?)^```$", body, re.MULTILINE | re.DOTALL))
    }


def environment(folder, *packages):
    """Make a virtual environment with the newest releases of some packages; return its Python."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    installed = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*installed, "--upgrade", "pip"], check=True)
    subprocess.run([*installed, *packages], check=True)
    return python


def ran(python, script: Path):
    """Run a script in its folder; return its exit code and the last line it printed."""
    done = subprocess.run(
        [python, script.name],
        cwd=script.parent,
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode, said[-1][:100] if said else "no output"


def version(python, package):
    """Return the installed release of a package."""
    code = f"import importlib.metadata as m; print(m.version({package.partition('[')[0]!r}))"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return said.stdout.strip()


@campaign(ROW)
def clients(run: Run):
    """The examples of the page "With other tools", each with the newest releases."""
    scripts = examples(PAGE.read_text(encoding="utf-8"))
    if scripts.keys() != PACKAGES.keys():
        raise SystemExit(f"cdrop: sections {sorted(scripts)}; expected {sorted(PACKAGES)}")
    wanted = list(scripts)[: run.trials(len(scripts))]
    packages = {package for name in wanted for package in PACKAGES[name]}
    python = environment(run.folder / "venv", *ALWAYS, *sorted(packages))
    for name in wanted:
        folder = run.folder / name.replace(" ", "-")
        folder.mkdir()
        (folder / "example.py").write_text(scripts[name], encoding="utf-8")
        code, said = ran(python, folder / "example.py")
        release = version(python, PACKAGES[name][0])
        run.figure(ROW, f"{name} {release}: {said}", code == 0)
    (run.folder / "control.py").write_text(CONTROL)
    code, said = ran(python, run.folder / "control.py")
    run.figure(ROW, f"control, a parameter that there is not: {said}", code != 0)


@campaign(ROW)
def old_builds(run: Run):
    """`pip install --no-build-isolation` with a setuptools that is too old: one line says which is needed."""
    for release in OLD_SETUPTOOLS:
        folder = run.folder / release
        python = environment(folder, f"setuptools=={release}.*", "wheel", "cython", "numpy")
        command = [python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        found = [line.strip() for line in lines if "setuptools 77" in line]
        said = found[0] if found else "setuptools 77 is not named"
        run.figure(ROW, f"setuptools {release}: {said}", done.returncode != 0 and bool(found))
