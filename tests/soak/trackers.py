"""The examples of docs/callbacks.md for other tools, run with the newest releases of these."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from campaign import ROOT, Run, campaign

TOOLS = (
    "scikit-learn",
    "pandas",
    "safetensors",
    "tensorboardX",
    "wandb",
    "mlflow-skinny",
    "optuna",
)
PREPARE = """
import warnings
warnings.simplefilter("ignore")
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from cdrop import DropoutMLPClassifier
X, X_val, y, y_val = train_test_split(*load_digits(return_X_y=True), random_state=0)
model = DropoutMLPClassifier(max_iter=5, dropout=0.2, random_state=0)
"""
CHECKS = {  # what an example must have left
    "Callbacks of scikit-learn": "assert len(monitor.get_logs().data) == 21",
    "TensorBoard": "import glob; assert glob.glob('runs/1/*tfevents*')",
    "MLflow": "assert mlflow.search_runs(output_format='list')[0].data.metrics.keys() >= {'loss'}",
    "Weights & Biases": "import glob; assert glob.glob('wandb/offline-run-*/*.wandb')",
    "Optuna: pruning within a fit": (
        "states = [t.state.name for t in study.trials]; print(states); assert 'PRUNED' in states"
    ),
}


def examples():
    """Return the page's blocks for other tools by the heading above them."""
    page = (ROOT / "docs" / "callbacks.md").read_text(encoding="utf-8")
    found = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```py\n(.*?)^```", page, re.M | re.S)
    return dict(found)


@campaign()
def trackers(run: Run) -> None:
    """Run the examples of docs/callbacks.md in an environment of their own; needs the network."""
    assert examples().keys() == CHECKS.keys()
    python = run.folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", run.folder / "venv"], check=True)
    install = [python, "-m", "pip", "install", "--quiet", f"numpy=={np.__version__}", *TOOLS]
    subprocess.run(install, check=True)
    run_examples(run, python)


def run_examples(run: Run, python: Path) -> None:
    """Run each example in a directory of its own, and print a line for each."""
    assert find_spec("cdrop") is not None
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_SILENT": "true"}
    for name, code in examples().items():
        folder = run.folder / re.sub(r"\W+", "-", name)
        folder.mkdir()
        done = subprocess.run(
            [python, "-c", PREPARE + code + "\n" + CHECKS[name]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        run.failures += done.returncode != 0
        print(
            f"{name}: {'works' if not done.returncode else done.stderr.strip()[-300:]}", flush=True
        )
