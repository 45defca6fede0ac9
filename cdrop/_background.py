"""The background of the inputs: their most common values, which the first layer handles once instead of row by row.

Inputs that are mostly one value (ink on paper, counts, one-hot columns, all of these minus a mean) are sparse once that
value is subtracted. With background c, ``x @ w + b = (x - c) @ w + (b + c @ w)``, and the gradient by w gains
``outer(c, sum of the deltas)``: the kernels run on the few entries that differ from c. Only rounding changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["find_background"]

_SAMPLE = 256  # rows to look at
_WORTH = 0.6  # at most this share of the entries may differ from the background
_CANCELS = 64.0  # a background this many times above a column's spread would cost digits


def find_background(x: NDArray[Any]) -> NDArray[Any] | None:
    """Find the background of the rows of `x`, if subtracting one leaves markedly more zeros than there are.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (n, features)
        A few rows spread over all are looked at.

    Returns
    -------
    ndarray of the same dtype, shape (features,), or None
        0 in a column whose background is far above its spread, since the difference would lose digits.

    Examples
    --------
    >>> import numpy as np
    >>> find_background(np.array([[-0.5, -0.5], [-0.5, 0.5], [-0.5, -0.5]]))
    array([-0.5, -0.5])
    """
    sample = x[:: -(-len(x) // _SAMPLE)]
    zeros = (sample == 0).mean()
    if zeros > 1 - _WORTH:
        return None  # the kernels skip zeros in any case
    background = _most_common(sample)
    spread = np.abs(sample - background).max(axis=0)
    background[(np.abs(background) > _CANCELS * spread) & (spread > 0)] = 0
    return background if (sample == background).mean() >= 1 - _WORTH else None


def _most_common(sample: NDArray[Any]) -> NDArray[Any]:
    """Each column's background: its median, or what is most common in the whole sample.

    A value that is over half of a column is its median; one that is everywhere may be less than half of some columns.
    """
    values, counts = np.unique(sample, return_counts=True)
    everywhere = np.full(sample.shape[1], values[counts.argmax()], sample.dtype)
    middle = np.sort(sample, axis=0)[len(sample) // 2]
    of_middle, of_everywhere = (sample == middle).mean(axis=0), (sample == everywhere).mean(axis=0)
    return np.where(of_middle > of_everywhere, middle, everywhere)
