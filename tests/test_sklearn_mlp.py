"""Scikit-learn's own tests of its multilayer perceptrons, with cdrop's estimators in their place.

The installed scikit-learn's test module is read, two names are exchanged, and every test runs. Those that cannot pass
are named below with the reason, and must fail: one that passes has no place in the table.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

SWAPPED = (
    "from cdrop import DropoutMLPClassifier as MLPClassifier, DropoutMLPRegressor as MLPRegressor"
)
# What is private there and public here.
PUBLIC = {"._optimizer.learning_rate": ".learning_rate_"}

LBFGS = "uses the solver lbfgs, which has no minibatches and no dropout"
EXCLUDED = {
    "test_gradient": LBFGS,
    "test_lbfgs_classification": LBFGS,
    "test_lbfgs_regression": LBFGS,
    "test_lbfgs_classification_maxfun": LBFGS,
    "test_lbfgs_regression_maxfun": LBFGS,
    "test_multilabel_classification": LBFGS,
    "test_multioutput_regression": LBFGS,
    "test_partial_fit_errors": LBFGS + " (expects it to have no partial_fit)",
    "test_predict_proba_multilabel": LBFGS,
    "test_sparse_matrices": LBFGS,
    "test_warm_start": LBFGS,
    "test_mlp_vs_poisson_glm_equivalent": LBFGS,
}
# Where lbfgs is only a means, they run with another solver, too.
WITH_ADAM = ("test_lbfgs_classification", "test_sparse_matrices", "test_warm_start")
# Adam needs many steps to get where lbfgs gets.
CONVERGED = {
    '"lbfgs",\n        tol=1e-7': '"adam", learning_rate_init=0.05, max_iter=2000, n_iter_no_change=2000'
}


@pytest.fixture
def global_random_seed():
    """Seed of tests that scikit-learn runs with several."""
    return 42


def load(swaps=()):
    """Return what the exchanged module defines, with further texts exchanged."""
    directory = Path(find_spec("sklearn.neural_network").origin).parent
    source = (directory / "tests" / "test_mlp.py").read_text(encoding="utf-8")
    source, found = re.subn(
        r"^from sklearn\.neural_network import MLPClassifier, MLPRegressor$",
        SWAPPED,
        source,
        flags=re.MULTILINE,
    )
    assert found == 1
    for theirs, ours in PUBLIC.items():
        source = source.replace(theirs, ours)
    source = source.replace('"adam", "lbfgs"]', '"adam"]')
    for theirs, ours in dict(swaps).items():
        source = source.replace(theirs, ours)
    names = {"__name__": __name__}
    exec(compile(source, f"{__name__}_swapped", "exec"), names)
    return names


def excluded(test, reason):
    """Mark a test as one that must fail."""
    return pytest.mark.xfail(reason=reason, strict=True)(test)


pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
for _name, _test in load().items():
    if _name.startswith("test_"):
        globals()[_name] = excluded(_test, EXCLUDED[_name]) if _name in EXCLUDED else _test
for _name, _test in load({'"lbfgs"': '"adam"'}).items():
    if _name in WITH_ADAM:
        globals()[f"{_name}_with_adam"] = _test
for _name, _test in load(CONVERGED).items():
    if _name == "test_mlp_vs_poisson_glm_equivalent":  # which scikit-learn has since 1.7
        globals()[f"{_name}_with_adam"] = _test
