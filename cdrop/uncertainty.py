"""Uncertainty of predictions, estimated by predicting under many dropout masks (Monte Carlo dropout).

A network with dropout stands for many thinned ones. Where they agree, the network is sure of itself; where each gives
its own answer, it has seen too little of such inputs, and mutual information or standard deviation say so.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop._checks import as_array
from cdrop._losses import is_regression
from cdrop._memory import check_memory

__all__ = ["ClassificationUncertainty", "RegressionUncertainty"]


_AT_ONCE = 2**22  # samples that a quantile copies at once


class _Sampled:
    """What all results can do with their samples."""

    samples: NDArray[Any] | None

    def quantile(self, q: ArrayLike) -> NDArray[Any]:
        """Return quantiles of the samples over the masks.

        Parameters
        ----------
        q : float or sequence of float
            At least 0 and at most 1, such as ``[0.05, 0.95]`` for an interval that holds 90 % of the predictions.

        Returns
        -------
        ndarray of the samples' dtype
            The shape of `mean` for a number; for a sequence, one such array per quantile: shape (len(q), n, ...).
            Between two samples it is interpolated linearly, as `numpy.quantile` does.

        Raises
        ------
        TypeError, ValueError
            If `q` is invalid, or the result has no samples: `predict_uncertainty` returns them with ``samples=True``.
        """
        samples, wanted = self.samples, _quantiles(q)
        if samples is None:
            raise ValueError(
                "samples is None, and quantiles need them; expected a result of "
                "predict_uncertainty(..., samples=True)"
            )
        out = np.empty((wanted.size, *samples.shape[1:]), samples.dtype)
        piece = max(1, _AT_ONCE // max(1, samples[:, :1].size))
        for i in range(0, samples.shape[1], piece):
            some = samples[:, i : i + piece]
            out[:, i : i + piece] = np.quantile(some, wanted.ravel(), axis=0)
        return out.reshape(*wanted.shape, *samples.shape[1:])


def _quantiles(q: ArrayLike) -> NDArray[np.float64]:
    """Return one quantile, or a vector of them, checked."""
    array = as_array("q", q)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"q is {q!r}; expected a number between 0 and 1, or a sequence of them")
    if array.ndim > 1 or not array.size or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"q is {q!r}; expected a number between 0 and 1, or a sequence of them")
    return array.astype(np.float64)


@dataclass(frozen=True, eq=False)
class ClassificationUncertainty(_Sampled):
    """Uncertainty of a cross-entropy network's predictions, in nats: arrays of the network's dtype.

    Attributes
    ----------
    mean : ndarray, shape (n, units[-1])
        Mean over the masks of the probabilities.
    predictive_entropy : ndarray
        Entropy of `mean`: the total uncertainty. Shape (n,) for softmax; (n, units[-1]) for sigmoid, label by label.
    expected_entropy : ndarray of the same shape
        Mean over the masks of the entropies: the uncertainty that is left if the weights are known (noise in the data).
    mutual_information : ndarray of the same shape
        Predictive minus expected entropy, never below 0: what knowing the weights would add. High where the thinned
        networks disagree.
    samples : ndarray, shape (mc_samples, n, units[-1]), or None
        Probabilities under each mask, where ``samples=True`` asked for them.

    References
    ----------
    Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016. Houlsby, Huszár, Ghahramani and Lengyel,
    "Bayesian active learning for classification and preference learning", arXiv:1112.5745 (2011).
    """

    mean: NDArray[Any]
    predictive_entropy: NDArray[Any]
    expected_entropy: NDArray[Any]
    mutual_information: NDArray[Any]
    samples: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class RegressionUncertainty(_Sampled):
    """Uncertainty of a network's predictions of numbers: arrays of the network's dtype.

    Attributes
    ----------
    mean : ndarray, shape (n, units[-1])
        Mean over the masks of the predictions: of the outputs, or of their exponentials with the Poisson loss.
    std : ndarray, shape (n, units[-1])
        Population standard deviation over the masks drawn (divided by their number, not by one less): 0 for one mask.
        It is the spread of the model alone, without the noise of the data.
    samples : ndarray, shape (mc_samples, n, units[-1]), or None
        Predictions under each mask, where ``samples=True`` asked for them.

    References
    ----------
    Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016.
    """

    mean: NDArray[Any]
    std: NDArray[Any]
    samples: NDArray[Any] | None = None


Uncertainty = ClassificationUncertainty | RegressionUncertainty


def kind_of(loss: str) -> type[Uncertainty]:
    """Return the class of result for a network with that loss."""
    return RegressionUncertainty if is_regression(loss) else ClassificationUncertainty


def shapes(loss: str, rows: int, units: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array that such a network's uncertainty has for this number of rows."""
    apart = (rows,) if loss == "softmax_cross_entropy" else (rows, units)
    names = (field.name for field in fields(kind_of(loss)) if field.name != "samples")
    return {name: (rows, units) if name == "mean" else apart for name in names}


def room_for_samples(passes: int, rows: int, units: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array for the samples, not filled; raise MemoryError where there is no room for it."""
    check_memory(
        passes * rows * units * dtype.itemsize,
        f"samples of {passes} masks for {rows} rows",
        "fewer masks, or some rows at a time",
    )
    return np.empty((passes, rows, units), dtype)
