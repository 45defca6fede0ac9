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
    _limit_norms,
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
    "limit_norms",
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
        Number of this step, from 1; Adam's bias correction and a ramp of momentum need it.
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


def limit_norms(weight: NDArray[Any], max_norm: float) -> None:
    """Scale the columns of `weight` whose Euclidean norm is above `max_norm` to that norm, in place (max-norm).

    A column holds the incoming weights of one unit. The others do not change in a bit, and neither does a column with
    a weight that is NaN or infinite. `cdrop.Network` does the same after a step, for hidden units.

    Parameters
    ----------
    weight : ndarray of float32 or float64, shape (n_in, n_out)
        C-contiguous.
    max_norm : float
        Above 0.

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is not as above.

    References
    ----------
    Srivastava et al., "Dropout", JMLR 15 (2014), section 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop.kernels import limit_norms
    >>> weight = np.array([[3.0, 0.5], [4.0, 0.5]])
    >>> limit_norms(weight, 2.5)
    >>> weight
    array([[1.5, 0.5],
           [2. , 0.5]])
    """
    _limit_norms(weight, finite_number("max_norm", max_norm, positive=True))
