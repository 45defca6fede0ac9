"""Classifier and regressor with dropout for scikit-learn. Needs scikit-learn: ``pip install 'cdrop[sklearn]'``.

Parameters and fitted attributes are named as those of scikit-learn's ``MLPClassifier`` and mean the same, but for what
the docstrings say. All training is that of `cdrop.Network`; the estimators check arguments, encode labels, and decide
when to stop.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "the estimators need scikit-learn 1.6 or newer: pip install 'cdrop[sklearn]'",
        name="sklearn",
    ) from error

from cdrop import schedules
from cdrop.estimators.classifier import DropoutMLPClassifier
from cdrop.estimators.regressor import DropoutMLPRegressor

__all__ = ["SKOPS_TYPES", "DropoutMLPClassifier", "DropoutMLPRegressor"]

for _estimator in (DropoutMLPClassifier, DropoutMLPRegressor):
    _estimator.__module__ = __name__  # pickles and model files know them by their public place

#: Names of all types of cdrop that an estimator in a file of skops contains, for `skops.io.load(file, trusted=...)` and
#: `mlflow.sklearn.log_model(model, skops_trusted_types=...)`. Loading them runs no code from the file.
SKOPS_TYPES = [
    "cdrop.estimators.DropoutMLPClassifier",
    "cdrop.estimators.DropoutMLPRegressor",
    "cdrop.network.Network",
    *(f"cdrop.schedules.{kind.__name__}" for kind in schedules._SCHEDULES.values()),
]
