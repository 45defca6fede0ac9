"""What an experiment measures on test rows: a score for each run, and a value for each row.

A score is judged over test rows as well as over seeds, so each metric also gives a value per row whose mean is the
score. For a metric that is not itself a mean (AUC, R2, ...) the values are its linearization: score plus influence of
the row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cdrop._checks import choice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["METRICS", "Metric", "Prediction", "baseline", "metric_for", "metrics_of"]

# scikit-learn clips probabilities at the rounding unit, too: one row that was "impossible" must not decide alone.
_SMALLEST = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Prediction:
    """The predictions of one run for some rows.

    Attributes
    ----------
    values : ndarray, shape (n,) or (n, outputs)
        Class numbers, or numbers.
    probability : ndarray, shape (n, classes), or None
        Probability of each class (of each label, for several at once); None for numbers, and for an estimator
        without ``predict_proba``.
    """

    values: NDArray[Any]
    probability: NDArray[Any] | None = None


@dataclass(frozen=True)
class Metric:
    """A measure of a run.

    Attributes
    ----------
    name : str
        As the argument ``metric`` takes it.
    label : str
        As tables and figures show it.
    tasks : tuple of str
        The kinds of target it is defined for.
    greater_is_better : bool
    rows : callable or None
        From targets and a ``Prediction`` to a value per row, float64 or bool, shape (n,), whose mean is the score.
    score : callable or None
        From targets, rows X and a ``Prediction`` to the score; by default the mean of `rows`.
    """

    name: str
    label: str
    tasks: tuple[str, ...]
    greater_is_better: bool
    rows: Callable[[NDArray[Any], Prediction], NDArray[Any]] | None
    score: Callable[[NDArray[Any], Any, Prediction], float] | None = None

    def measure(self, y: NDArray[Any], X: Any, prediction: Prediction) -> tuple[float, Any]:
        """Return the score, NaN where it is undefined, and the values per row or None."""
        if self.score is not None:
            return self.score(y, X, prediction), None
        assert self.rows is not None
        values = self.rows(y, prediction)
        return float(values.mean(dtype=np.float64)), values


# ---- Classes ----------------------------------------------------------------------------------------------------


def _correct(y: NDArray[Any], prediction: Prediction) -> NDArray[Any]:
    """Return whether each row's class, or all of its labels, is right."""
    right = prediction.values == (y if y.ndim == 1 else y > 0.5)
    return np.asarray(right if right.ndim == 1 else right.all(axis=1))


def _log_loss(y: NDArray[Any], prediction: Prediction) -> NDArray[np.float64]:
    """Return minus the log-probability of each row's class, or of all its labels, in nats."""
    p = np.asarray(prediction.probability, np.float64)
    if y.ndim == 1:
        return np.asarray(-np.log(np.maximum(p[np.arange(len(y)), y], _SMALLEST)))
    p = np.clip(p, _SMALLEST, 1 - _SMALLEST)
    return np.asarray(-(y * np.log(p) + (1 - y) * np.log1p(-p)).sum(axis=1))


def _balanced_accuracy(y: NDArray[Any], prediction: Prediction) -> NDArray[np.float64]:
    """Linearize the mean over classes of the share that is right."""
    _, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    right = _correct(y, prediction)
    recall = np.bincount(place, weights=right) / counts
    influence = (len(y) / (len(counts) * counts))[place] * (right - recall[place])
    return np.asarray(recall.mean() + influence)


def _roc_auc(y: NDArray[Any], prediction: Prediction) -> NDArray[np.float64]:
    """Linearize the area under the ROC curve of two classes, by DeLong's placements.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837-845.
    """
    p = np.asarray(prediction.probability)[:, 1]
    positive = y == 1
    sides = np.sort(p[~positive]), np.sort(p[positive])
    if not (len(sides[0]) and len(sides[1])) or np.isnan(p).any():
        return np.full(len(y), math.nan)
    # The share of the other class that a row is on the right side of; ties count half.
    below = [
        (np.searchsorted(side, p, "left") + np.searchsorted(side, p, "right")) / (2 * len(side))
        for side in sides
    ]
    placement = np.where(positive, below[0], 1 - below[1])
    area = placement[positive].mean()
    share = np.where(positive, positive.mean(), 1 - positive.mean())
    return np.asarray(area + (placement - area) / share)


# ---- Numbers ----------------------------------------------------------------------------------------------------


def _columns(y: NDArray[Any], prediction: Prediction) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return targets and errors as float64 matrices."""
    truth = np.asarray(y, np.float64).reshape(len(y), -1)
    return truth, np.asarray(prediction.values, np.float64).reshape(len(y), -1) - truth


def _absolute(y: NDArray[Any], prediction: Prediction) -> NDArray[np.float64]:
    return np.asarray(np.abs(_columns(y, prediction)[1]).mean(axis=1))


def _root_squared(y: NDArray[Any], prediction: Prediction) -> NDArray[np.float64]:
    """Linearize the root of the mean squared error."""
    squares = np.square(_columns(y, prediction)[1]).mean(axis=1)
    mean = squares.mean()
    root = math.sqrt(mean)
    # NaN stays NaN: a prediction that is not a number must not look like one without errors.
    return np.zeros(len(y)) if root == 0 else np.asarray(root + (squares - mean) / (2 * root))


def _r2(y: NDArray[Any], prediction: Prediction) -> NDArray[np.float64]:
    """Linearize R2, the mean over columns; NaN where the targets of a column are all equal."""
    truth, errors = _columns(y, prediction)
    squares, spread = np.square(errors), np.square(truth - truth.mean(axis=0))
    a, b = squares.mean(axis=0), spread.mean(axis=0)
    if not (b > 0).all():
        return np.full(len(y), math.nan)
    influence = (a / b) * (spread - b) / b - (squares - a) / b
    return np.asarray((1 - a / b + influence).mean(axis=1))


_CLASSES, _ALL_CLASSES = ("classification",), ("classification", "multilabel")
METRICS = {
    metric.name: metric
    for metric in (
        Metric("log_loss", "log loss", _ALL_CLASSES, False, _log_loss),
        Metric("accuracy", "accuracy", _ALL_CLASSES, True, _correct),
        Metric("balanced_accuracy", "balanced accuracy", _CLASSES, True, _balanced_accuracy),
        Metric("roc_auc", "AUC", _CLASSES, True, _roc_auc),
        Metric("rmse", "RMSE", ("regression",), False, _root_squared),
        Metric("mae", "MAE", ("regression",), False, _absolute),
        Metric("r2", "R2", ("regression",), True, _r2),
    )
}


def metrics_of(task: str, classes: int) -> list[Metric]:
    """Return the metrics that are defined for a task; AUC for two classes only."""
    return [
        metric
        for metric in METRICS.values()
        if task in metric.tasks and (metric.name != "roc_auc" or classes == 2)
    ]


def metric_for(metric: Any, task: str, classes: int) -> Metric:
    """Return the metric that an experiment judges by.

    Parameters
    ----------
    metric : str, callable or None
        A name of `METRICS`, the name of a scikit-learn scorer, a scorer, or None: log loss for classes, RMSE for
        numbers.
    task : {"classification", "multilabel", "regression"}
    classes : int
        Number of classes.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or is not defined for the task.
    """
    known = {m.name: m for m in metrics_of(task, classes)}
    if metric is None:
        return next(iter(known.values()))
    if isinstance(metric, str) and metric in known:
        return known[metric]
    if isinstance(metric, str):
        if metric in METRICS:  # scikit-learn has scorers of these names, which would fail
            choice("metric", metric, tuple(known))
        try:
            from sklearn.metrics import get_scorer, get_scorer_names
        except ImportError:
            choice("metric", metric, tuple(known))
        # A scorer of the same name would measure class numbers, or fail after the first run.
        if metric in METRICS or metric not in get_scorer_names():
            raise ValueError(
                f"metric is {metric!r}; expected one of {', '.join(map(repr, known))} for {task}, or the name of a "
                "scikit-learn scorer"
            )
        return _scorer(metric, get_scorer(metric), task)
    if not callable(metric):
        raise TypeError(f"metric is {metric!r}; expected a name or a scikit-learn scorer")
    function = getattr(metric, "_score_func", metric)  # of what make_scorer returns
    return _scorer(getattr(function, "__name__", type(metric).__name__), metric, task)


@dataclass(frozen=True)
class _ScorerScore:
    """The score of a scikit-learn scorer; a class, so that results can be pickled."""

    scorer: Any
    task: str

    def __call__(self, y: NDArray[Any], X: Any, prediction: Prediction) -> float:
        from cdrop.experiments._fixed import fixed_predictions

        try:
            return float(self.scorer(fixed_predictions(prediction, self.task), X, y))
        except AttributeError as error:
            raise ValueError(
                f"metric needs more than the predictions of an arm, for {self.task}: {error}"
            ) from error


def _scorer(name: str, scorer: Any, task: str) -> Metric:
    """Wrap a scikit-learn scorer: greater is better, and there is no value per row."""
    if name in METRICS:  # whose scores, perhaps of the other sign, would take its place
        name = f"{name} (scorer)"
    return Metric(name, name, (task,), True, None, _ScorerScore(scorer, task))


def baseline(task: str, y_train: NDArray[Any], rows: int, classes: int) -> Prediction:
    """Predict without looking at X: shares of the classes and the commonest one, or the mean target.

    Parameters
    ----------
    task : {"classification", "multilabel", "regression"}
    y_train : ndarray
        Targets that are known.
    rows : int
        Rows to predict.
    classes : int
        Number of classes.
    """
    if task == "classification":
        shares = np.bincount(y_train, minlength=classes) / len(y_train)
        return Prediction(np.full(rows, shares.argmax()), np.tile(shares, (rows, 1)))
    mean = np.tile(y_train.mean(axis=0), (rows, *[1] * (y_train.ndim - 1)))
    return Prediction(mean > 0.5, mean) if task == "multilabel" else Prediction(mean)


def score_all(
    metrics: Sequence[Metric], y: NDArray[Any], X: Any, prediction: Prediction
) -> dict[str, float]:
    """Return each metric's score; those that need probabilities are left out where there are none."""
    needs = ("log_loss", "roc_auc")
    return {
        metric.name: metric.measure(y, X, prediction)[0]
        for metric in metrics
        if prediction.probability is not None or metric.name not in needs
    }
