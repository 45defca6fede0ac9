"""Whether validation rows lie far outside the training rows, as those do that a Pipeline did not transform."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

__all__ = ["moved_features"]

_AT_ONCE = 2**20  # entries
_RARE = np.log(1e-6)


def moved_features(x: Any, held_out: Any) -> tuple[int, int]:
    """Count features in which most validation values are above, or below, all training values.

    Zeros do not count, so that sparse rows are compared by their entries. A feature is compared if it has this many
    values that this happens with a probability below 1e-6 on either side where rows are exchangeable, which they are
    in a random split. That probability, of the k largest of m + n values all being among the m validation
    values, depends on no distribution: it is m! (m + n - k)! / ((m - k)! (m + n)!).

    Parameters
    ----------
    x, held_out : ndarray or CSR matrix, shape (n_samples, n_features)
        Training and validation rows.

    Returns
    -------
    int
        The number of these features.
    int
        The number of features that were compared.
    """
    low, high, n = _ranges(x)
    below, above, m = (np.zeros(x.shape[1]) for _ in range(3))
    for piece in _pieces(held_out):
        if isinstance(piece, np.ndarray):
            values = piece != 0
            m += values.sum(axis=0)
            below += (values & (piece < low)).sum(axis=0)
            above += (values & (piece > high)).sum(axis=0)
        else:
            columns, data = _stored(piece)
            for count, which in (
                (m, slice(None)),
                (below, data < low[columns]),
                (above, data > high[columns]),
            ):
                count += np.bincount(columns[which], minlength=len(count))
    k = np.floor(m / 2) + 1  # more than half
    compared = (m > 0) & (n > 0)
    m_, n_, k_ = m[compared], n[compared], k[compared]
    chance = (
        gammaln(m_ + 1) - gammaln(m_ - k_ + 1) + gammaln(m_ + n_ - k_ + 1) - gammaln(m_ + n_ + 1)
    )
    compared[compared] = chance < _RARE
    moved = compared & (np.maximum(below, above) >= k)
    return int(moved.sum()), int(compared.sum())


def _ranges(x: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return smallest and largest value of each feature, and how many it has; zeros do not count."""
    low, high = np.full(x.shape[1], np.inf), np.full(x.shape[1], -np.inf)
    n = np.zeros(x.shape[1])
    for piece in _pieces(x):
        if isinstance(piece, np.ndarray):
            values = piece != 0
            n += values.sum(axis=0)
            np.minimum(low, piece.min(axis=0, where=values, initial=np.inf), out=low)
            np.maximum(high, piece.max(axis=0, where=values, initial=-np.inf), out=high)
        else:
            columns, data = _stored(piece)
            n += np.bincount(columns, minlength=len(n))
            np.minimum.at(low, columns, data)
            np.maximum.at(high, columns, data)
    return low, high, n


def _pieces(x: Any) -> Iterator[Any]:
    """Yield some rows at a time, so that memory does not grow with their number."""
    rows = max(1, _AT_ONCE // max(1, x.shape[1]))
    for first in range(0, x.shape[0], rows):
        yield x[first : first + rows]


def _stored(piece: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return columns and values of a CSR matrix, without the zeros that it may store."""
    stored = piece.data != 0
    return piece.indices[stored], piece.data[stored]
