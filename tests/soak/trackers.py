"""The examples of docs/callbacks.md for other tools, run with the newest releases of these."""

from _examples import environment, examples, run_script
from campaign import ROOT, Run, campaign

PAGE = ROOT / "docs" / "callbacks.md"
TOOLS = (
    "numpy",
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


@campaign()
def trackers(run: Run) -> None:
    """Run the examples of docs/callbacks.md in a separate environment; needs the network."""
    scripts = examples(PAGE)
    if scripts.keys() != CHECKS.keys():
        raise SystemExit(f"cdrop: sections {sorted(scripts)}; expected {sorted(CHECKS)}")
    python = environment(run.directory / "venv", *TOOLS)
    for name, script in scripts.items():
        code, printed = run_script(
            python, f"{PREPARE}{script}\n{CHECKS[name]}", run.directory / name, WANDB_SILENT="true"
        )
        run.failures += code != 0
        print(f"{name}: {'works' if code == 0 else printed}", flush=True)
