"""Metrics of probabilistic predictions, and their recalibration on held-out rows.

Classes are probabilities, shape (n, classes), with labels from 0; numbers are the mean and variance of a normal
distribution for each row. Everything is NumPy alone.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cdrop.experiments.metrics import METRICS, Prediction

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Intervals",
    "auroc",
    "brier_score",
    "expected_calibration_error",
    "fit_temperature",
    "fit_variance_scale",
    "gaussian_nll",
    "intervals",
    "negative_log_likelihood",
    "with_temperature",
]

_LOWEST = float(np.finfo(np.float32).tiny)  # of a probability whose logarithm is taken
_TEMPERATURES = 0.05, 20.0
_HALVINGS = 60


class Intervals(NamedTuple):
    """How good central intervals are.

    Attributes
    ----------
    coverage : float
        Share of the targets within.
    width : float
        Mean width.
    score : float
        Mean interval score, lower is better: the width, plus 2 / (1 - level) times the distance of targets outside.
    """

    coverage: float
    width: float
    score: float


# ---- Classes ----------------------------------------------------------------------------------------------------


def negative_log_likelihood(y: NDArray[Any], probability: NDArray[Any]) -> float:
    """Return the mean of minus the log-probability of the labels, in nats: the log loss.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
    probability : ndarray, shape (n, classes)
        Clipped at 2.2e-16, as in scikit-learn, so that one row adds at most 36 nats.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> round(negative_log_likelihood(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])), 4)
    0.6931
    """
    rows = METRICS["log_loss"].rows
    assert rows is not None
    return float(rows(y, Prediction(y, probability)).mean())


def brier_score(y: NDArray[Any], probability: NDArray[Any]) -> float:
    """Return the mean squared distance of the probabilities from the labels, summed over the classes: 0 to 2.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
    probability : ndarray, shape (n, classes)

    Returns
    -------
    float

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78 (1950).

    Examples
    --------
    >>> import numpy as np
    >>> brier_score(np.array([0]), np.array([[0.5, 0.5]]))
    0.5
    """
    p = np.asarray(probability, np.float64)
    return float(np.square(p - np.eye(p.shape[1])[y]).sum(axis=1).mean())


def expected_calibration_error(y: NDArray[Any], probability: NDArray[Any], bins: int = 15) -> float:
    """Return how far accuracy and confidence differ, on average over bins of the confidence.

    The confidence of a row is its largest probability. Bin m of M holds the rows whose confidence is above (m - 1) / M
    and at most m / M. The error is the mean over the rows of abs(accuracy - mean confidence) of their bin.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
    probability : ndarray, shape (n, classes)
    bins : int, default 15

    Returns
    -------
    float

    Notes
    -----
    It is biased upwards in small samples, where the accuracy of a bin is noise: of 100 rows with perfect calibration
    it is about 0.1. It compares methods on the same rows.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017, equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> y, p = np.array([0, 0, 0, 1]), np.array([[0.75, 0.25]] * 4)
    >>> expected_calibration_error(y, p)
    0.0
    """
    p = np.asarray(probability, np.float64)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    excess = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(excess).sum() / len(p))


def auroc(low: NDArray[Any], high: NDArray[Any]) -> float:
    """Return the probability that a value of `high` is above one of `low`, ties half: the area under the ROC curve.

    Parameters
    ----------
    low, high : ndarray, shapes (n,) and (m,)
        Scores of the rows that should have low ones, and of those that should have high ones.

    Returns
    -------
    float
        NaN where one of them has no rows.

    Examples
    --------
    >>> import numpy as np
    >>> auroc(np.array([0.1, 0.4]), np.array([0.4, 0.9]))
    0.875
    """
    if not (len(low) and len(high)):
        return math.nan
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.mean() / (2 * len(low)))


def _logits(probability: NDArray[Any]) -> NDArray[np.float64]:
    """Return logits that softmax takes to these probabilities."""
    return np.asarray(np.log(np.maximum(np.asarray(probability, np.float64), _LOWEST)))


def with_temperature(probability: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities of the logits divided by a temperature.

    Parameters
    ----------
    probability : ndarray, shape (n, classes)
        Of a mixture (MC dropout, an ensemble) its mean: the logarithm of that takes the place of the logits.
    temperature : float
        Above 1 for less confidence, below 1 for more.

    Returns
    -------
    ndarray of float64, shape (n, classes)

    Examples
    --------
    >>> import numpy as np
    >>> with_temperature(np.array([[0.8, 0.2]]), 0.5).round(4).tolist()
    [[0.9412, 0.0588]]
    """
    z = _logits(probability) / temperature
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def fit_temperature(y: NDArray[Any], probability: NDArray[Any]) -> float:
    """Return the temperature whose probabilities have the lowest negative log-likelihood.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        Labels of held-out rows.
    probability : ndarray, shape (n, classes)

    Returns
    -------
    float
        Between 0.05 and 20; 1 where every label has the largest probability of its row, because the likelihood then
        has no maximum: it grows up to a temperature of 0.

    Notes
    -----
    The likelihood is concave in 1 / temperature, so the root of its derivative is found by bisection.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> y, sure = np.array([0, 0, 0, 1]), np.array([[0.99, 0.01]] * 4)
    >>> temperature = fit_temperature(y, sure)
    >>> with_temperature(sure, temperature)[0].round(6).tolist()
    [0.75, 0.25]
    """
    z = _logits(probability)
    truth = z[np.arange(len(z)), y]
    if (truth == z.max(axis=1)).all():
        return 1.0
    low, high = (math.log(temperature) for temperature in _TEMPERATURES)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        mean = (with_temperature(probability, math.exp(middle)) * z).sum(axis=1)
        if (mean - truth).mean() > 0:  # the model is surer than it is right
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


# ---- Numbers ----------------------------------------------------------------------------------------------------


def gaussian_nll(y: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any]) -> float:
    """Return the mean of minus the log-density of the targets, in nats.

    Parameters
    ----------
    y, mean, variance : ndarray, shape (n,)
        Targets, and the normal distribution predicted for each.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> round(gaussian_nll(np.array([1.0]), np.array([0.0]), np.array([1.0])), 4)
    1.4189
    """
    return float((np.log(2 * math.pi * variance) + (y - mean) ** 2 / variance).mean() / 2)


def intervals(
    y: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any], level: float = 0.9
) -> Intervals:
    """Measure the central intervals of normal distributions.

    Parameters
    ----------
    y, mean, variance : ndarray, shape (n,)
        Targets, and the normal distribution predicted for each.
    level : float, default 0.9
        Share of the targets that the intervals should hold.

    Returns
    -------
    Intervals

    References
    ----------
    Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", Journal of the American
    Statistical Association 102 (2007), section 6.2.

    Examples
    --------
    >>> import numpy as np
    >>> zero, one = np.zeros(2), np.ones(2)
    >>> [round(number, 3) for number in intervals(np.array([0.0, 2.0]), zero, one)]
    [0.5, 3.29, 6.841]
    """
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(variance)
    outside = np.maximum(np.abs(y - mean) - half, 0.0)
    score = 2 * half + 2 / (1 - level) * outside
    return Intervals(float((outside == 0).mean()), float(2 * half.mean()), float(score.mean()))


def fit_variance_scale(y: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any]) -> float:
    """Return the factor of the variances that gives the lowest negative log-likelihood.

    It is to numbers what the temperature is to classes: a mean of squared standardized errors.

    Parameters
    ----------
    y, mean, variance : ndarray, shape (n,)
        Targets of held-out rows, and the normal distribution predicted for each.

    Returns
    -------
    float

    References
    ----------
    Laves, Ihler, Fast, Kahrs and Ortmaier, "Well-calibrated regression uncertainty in medical imaging with deep
    learning", MIDL 2020.

    Examples
    --------
    >>> import numpy as np
    >>> fit_variance_scale(np.array([2.0, -2.0]), np.zeros(2), np.ones(2))
    4.0
    """
    return float(((y - mean) ** 2 / variance).mean())
