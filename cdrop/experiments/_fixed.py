"""An estimator that has its predictions already, for scikit-learn's scorers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from cdrop.experiments.metrics import Prediction

__all__ = ["fixed_predictions"]


class _Fixed(BaseEstimator):  # type: ignore[misc]
    """Returns the same predictions whatever rows it is given."""

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Any) -> Any:
        """Return classes or numbers."""
        return self.prediction.values


class _FixedNumbers(RegressorMixin, _Fixed):  # type: ignore[misc]
    pass


class _FixedClasses(ClassifierMixin, _Fixed):  # type: ignore[misc]
    @property
    def classes_(self) -> Any:
        """Return the class numbers."""
        values, p = self.prediction.values, self.prediction.probability
        return np.arange(p.shape[1] if p is not None else int(values.max()) + 1)


class _FixedProbabilities(_FixedClasses):
    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class."""
        return self.prediction.probability


def fixed_predictions(prediction: Prediction, task: str) -> BaseEstimator:
    """Return an estimator whose ``predict`` and ``predict_proba`` return `prediction`."""
    if task == "regression":
        return _FixedNumbers(prediction)
    kind = _FixedClasses if prediction.probability is None else _FixedProbabilities
    return kind(prediction)
