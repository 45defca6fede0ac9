"""The kernels, usable without `cdrop.Network`: masks, masked products and their gradients, losses, update rules.

Arrays are float32 or float64, all of one call alike; masks are packed, 64 units to a word. Results do not depend on the
SIMD path or the number of threads. `cdrop.reference` has the NumPy twin of each function, with the same signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from cdrop._checks import finite_number, whole_number
from cdrop._kernels import (
    _update,
    bernoulli_mask,
    drawn_keep,
    masked_gemm,
    masked_gradients,
    random_normal,
    random_words,
    sigmoid_cross_entropy,
    simd,
    simd_paths,
    softmax_cross_entropy,
    squared_error,
)
from cdrop.optimizers import get_optimizer
from cdrop.reference import pack_mask, unpack_mask

__all__ = [
    "bernoulli_mask",
    "drawn_keep",
    "masked_gemm",
    "masked_gradients",
    "pack_mask",
    "random_normal",
    "random_words",
    "sigmoid_cross_entropy",
    "simd",
    "simd_paths",
    "softmax_cross_entropy",
    "squared_error",
    "unpack_mask",
    "update",
]


def update(
    weight: NDArray[Any],
    gradient: NDArray[Any],
    state: Sequence[NDArray[Any]],
    *,
    optimizer: str = "sgd",
    learning_rate: float,
    l2: float = 0.0,
    step: int = 1,
    **settings: float,
) -> None:
    """Apply one step of an update rule, in place on `weight` and on the arrays in `state`.

    Parameters
    ----------
    weight : ndarray of float32 or float64
        C-contiguous, any shape.
    gradient : ndarray of the same dtype and shape
    state : sequence of ndarray
        The rule's memory, like `weight` and zero before the first step: none for sgd, one for momentum, nesterov,
        adagrad and rmsprop, two for adam and adamw.
    optimizer : str, default "sgd"
        See `cdrop.optimizers`, which also has each rule's formula and settings.
    learning_rate : float
        At least 0.
    l2 : float, default 0.0
        The gradient gets ``l2 * weight``.
    step : int, default 1
        Number of this step, from 1; Adam's bias correction needs it.
    **settings
        The rule's settings, such as ``rho=0.95``.

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is not as above.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop.kernels import update
    >>> weight = np.array([1.0, 2.0])
    >>> update(weight, np.array([0.5, -0.5]), [], learning_rate=0.1)
    >>> weight
    array([0.95, 2.05])
    """
    rule = get_optimizer(optimizer, **settings)
    rate, decay = finite_number("learning_rate", learning_rate), finite_number("l2", l2)
    constants = rule.constants(rate, decay, whole_number("step", step, 1, 2**64))
    _update(weight, gradient, state, constants)
