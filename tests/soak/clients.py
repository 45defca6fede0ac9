"""Tools of other people: the examples of docs/with-other-tools.md, with the newest releases of all of them."""

import subprocess

from _examples import environment, examples, run_script
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


def version(python, package):
    """Return the installed release of a package."""
    code = f"import importlib.metadata as m; print(m.version({package.partition('[')[0]!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@campaign(ROW)
def clients(run: Run):
    """The examples of docs/with-other-tools.md, each with the newest releases."""
    scripts = examples(PAGE)
    if scripts.keys() != PACKAGES.keys():
        raise SystemExit(f"cdrop: sections {sorted(scripts)}; expected {sorted(PACKAGES)}")
    wanted = list(scripts)[: run.trials(len(scripts))]
    packages = {package for name in wanted for package in PACKAGES[name]}
    python = environment(run.directory / "venv", *ALWAYS, *sorted(packages))
    for name in wanted:
        code, printed = run_script(python, scripts[name], run.directory / name, **QUIET)
        release = version(python, PACKAGES[name][0])
        run.figure(ROW, f"{name} {release}: {printed}", code == 0)
    code, printed = run_script(python, CONTROL, run.directory / "control", **QUIET)
    run.figure(ROW, f"control, an unknown parameter: {printed}", code != 0)
