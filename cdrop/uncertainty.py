"""Uncertainty of predictions, estimated by predicting under many dropout masks (Monte Carlo dropout).

A network with dropout stands for many thinned ones. Where they agree, the network is sure of itself; where each gives
an answer of its own, it has seen too little of such inputs, and mutual information or standard deviation say so.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from numpy.typing import NDArray

from cdrop._losses import is_regression

__all__ = ["ClassificationUncertainty", "RegressionUncertainty"]


@dataclass(frozen=True, eq=False)
class ClassificationUncertainty:
    """Uncertainty of a cross-entropy network's predictions, in nats: arrays of the network's dtype.

    Attributes
    ----------
    mean : ndarray, shape (n, units[-1])
        Mean over the masks of the probabilities.
    predictive_entropy : ndarray
        Entropy of `mean`: all there is to doubt. Shape (n,) for softmax; (n, units[-1]) for sigmoid, label by label.
    expected_entropy : ndarray of the same shape
        Mean over the masks of the entropies: what would be left to doubt if the weights were known (noise in the data).
    mutual_information : ndarray of the same shape
        Predictive minus expected entropy, never below 0: what knowing the weights would tell. High where the thinned
        networks disagree.

    References
    ----------
    Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016. Houlsby, Huszár, Ghahramani and Lengyel,
    "Bayesian active learning for classification and preference learning", arXiv:1112.5745 (2011).
    """

    mean: NDArray[Any]
    predictive_entropy: NDArray[Any]
    expected_entropy: NDArray[Any]
    mutual_information: NDArray[Any]


@dataclass(frozen=True, eq=False)
class RegressionUncertainty:
    """Uncertainty of a network's predictions of numbers: arrays of the network's dtype.

    Attributes
    ----------
    mean : ndarray, shape (n, units[-1])
        Mean over the masks of the predictions: of the outputs, or of their exponentials with the Poisson loss.
    std : ndarray, shape (n, units[-1])
        Population standard deviation over the masks drawn (divided by their number, not by one less): 0 for one mask.
        It is the spread of the model alone, without the noise of the data.

    References
    ----------
    Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016.
    """

    mean: NDArray[Any]
    std: NDArray[Any]


Uncertainty = ClassificationUncertainty | RegressionUncertainty


def kind_of(loss: str) -> type[Uncertainty]:
    """Return the class of result for a network with that loss."""
    return RegressionUncertainty if is_regression(loss) else ClassificationUncertainty


def shapes(loss: str, rows: int, units: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array that such a network's uncertainty has for so many rows."""
    apart = (rows,) if loss == "softmax_cross_entropy" else (rows, units)
    names = (field.name for field in fields(kind_of(loss)))
    return {name: (rows, units) if name == "mean" else apart for name in names}
