"""How losses differ: their parameters, the predictions that outputs stand for, and their scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop._checks import (
    as_array,
    class_probabilities,
    finite_number,
    label_vector,
    nonnegative,
    probabilities,
    quantile_levels,
    smoothing_share,
    target_matrix,
)

__all__ = ["CROSS_ENTROPIES", "is_regression", "parameters", "score", "settings", "truth"]

CROSS_ENTROPIES = ("softmax_cross_entropy", "sigmoid_cross_entropy")
_NUMBERS = (int, float, np.integer, np.floating)
_USED_BY = {  # the settings that only some losses have, with their defaults
    "label_smoothing": (CROSS_ENTROPIES, 0.0),
    "huber_delta": (("huber",), 1.0),
    "quantiles": (("quantile",), 0.5),
}


def is_regression(loss: str) -> bool:
    """Whether a loss is one of numbers, not of classes."""
    return loss not in CROSS_ENTROPIES


def settings(loss: str, outputs: int, **given: Any) -> dict[str, Any]:
    """Check the settings of `_USED_BY`; return those that the loss uses.

    Raises
    ------
    TypeError, ValueError
        If one is invalid, or is not used by the loss and does not have its default.
    """
    for name, (losses, default) in _USED_BY.items():
        value = given[name]
        same = isinstance(value, _NUMBERS) and not isinstance(value, bool) and value == default
        if loss not in losses and not same:
            expected = " or ".join(f"loss={each!r}" for each in losses)
            raise ValueError(
                f"{name} is {value!r}, which loss {loss!r} does not use; expected {default}, or {expected}"
            )
    if loss == "huber":
        delta = finite_number("huber_delta", given["huber_delta"], positive=True)
        return {"huber_delta": delta}
    if loss == "quantile":
        return {"quantiles": quantile_levels("quantiles", given["quantiles"], outputs)}
    if is_regression(loss):
        return {}
    return {"label_smoothing": smoothing_share("label_smoothing", given["label_smoothing"])}


def parameters(used: dict[str, Any]) -> NDArray[np.float64] | None:
    """Return what `settings` returned as the kernels take it."""
    values = [np.ravel(value) for value in used.values()]
    return values[0].astype(np.float64) if values else None


def truth(
    name: str, value: ArrayLike, loss: str, shape: tuple[int, int], dtype: np.dtype[Any]
) -> tuple[NDArray[np.int64] | None, NDArray[Any] | None]:
    """Return checked labels, or targets, for outputs of `shape`; the other is None."""
    array = as_array(name, value)
    if loss == "softmax_cross_entropy":
        if array.ndim == 2:
            return None, class_probabilities(name, array, shape, dtype)
        return label_vector(name, array, *shape), None
    # One target may be that of all quantiles.
    shared = loss == "quantile" and (array.ndim == 1 or array.shape[1:] == (1,))
    targets = target_matrix(name, array, (shape[0], 1) if shared else shape, dtype)
    if loss == "sigmoid_cross_entropy":
        probabilities(name, targets)
    elif loss == "poisson":
        nonnegative(name, targets)
    return None, targets


def score(
    levels: tuple[float, ...] | None,
    truth: NDArray[np.float64],
    predicted: NDArray[Any],
    weights: NDArray[np.float64] | None,
) -> float:
    """Return the mean over the outputs of R^2, or with `levels` of the D^2 of the pinball losses.

    D^2 is 1 - loss / (loss of the best constant). Where all targets of an output are equal, both are 1 if it predicts
    them exactly, else 0.
    """
    truth = np.broadcast_to(truth, predicted.shape)
    if levels is None:
        losses = [np.square(truth - guess) for guess in (predicted, _mean(truth, weights))]
    else:
        constant = _quantiles(truth, levels, weights)
        losses = [_pinball(truth - guess, np.array(levels)) for guess in (predicted, constant)]
    residual, spread = (_mean(loss, weights) for loss in losses)
    counted = truth if weights is None else truth[weights > 0]
    # The mean of equal numbers may be rounded, and then their spread is not 0.
    is_constant = (np.ptp(counted, axis=0) == 0) | (spread == 0)
    explained = np.where(
        is_constant, residual == 0, 1 - residual / np.where(is_constant, 1, spread)
    )
    return float(np.mean(explained))


def _mean(rows: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[Any]:
    return np.asarray(np.average(rows, axis=0, weights=weights))


def _pinball(error: NDArray[Any], levels: NDArray[Any]) -> NDArray[Any]:
    """Return the loss of truth - prediction (Koenker and Bassett 1978)."""
    return np.asarray(np.maximum(levels * error, (levels - 1) * error))


def _quantiles(
    truth: NDArray[Any], levels: tuple[float, ...], weights: NDArray[np.float64] | None
) -> NDArray[Any]:
    """Return the weighted quantile of each column, which has the smallest pinball loss of all constants."""
    shares = np.ones(len(truth)) if weights is None else weights
    found = np.empty(len(levels))
    for i, (column, level) in enumerate(zip(truth.T, levels, strict=True)):
        order = np.argsort(column, kind="stable")
        below = np.cumsum(shares[order])
        found[i] = column[order[np.searchsorted(below, level * below[-1])]]
    return found
