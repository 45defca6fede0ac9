"""Initial weights, from cdrop's own keyed streams: the same on every machine and with every NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cdrop import _kernels
from cdrop._checks import choice, whole_number

__all__ = ["INITIALIZERS", "initial_weight"]

_PURPOSE = 1  # of the generator's streams: initial weights


def _he(fan_in: int, fan_out: int) -> float:
    return math.sqrt(2 / fan_in)


def _glorot(fan_in: int, fan_out: int) -> float:
    return math.sqrt(2 / (fan_in + fan_out))


INITIALIZERS: dict[str, Callable[[int, int], float]] = {"he": _he, "glorot": _glorot}


def initial_weight(
    fan_in: int, fan_out: int, *, initializer: str, seed: int, layer: int
) -> NDArray[np.float64]:
    """Draw a layer's weights from a normal distribution around 0.

    Parameters
    ----------
    fan_in, fan_out : int
        Shape of the weight matrix.
    initializer : {"he", "glorot"}
        Standard deviation: sqrt(2 / fan_in), or sqrt(2 / (fan_in + fan_out)).
    seed : int
        0 to 2**64 - 1.
    layer : int
        Index of the layer, from 0. Row i of the matrix is stream (seed, step 0, weights, layer, block i).

    Returns
    -------
    ndarray of float64, shape (fan_in, fan_out)

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    References
    ----------
    He, Zhang, Ren and Sun, "Delving deep into rectifiers" (2015), section 2.2.
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010),
    section 4.2.1.
    """
    choice("initializer", initializer, tuple(INITIALIZERS))
    fan_in = whole_number("fan_in", fan_in, 1, 2**32)
    fan_out = whole_number("fan_out", fan_out, 1, 2**32)
    seed = whole_number("seed", seed, 0, 2**64)
    layer = whole_number("layer", layer, 0, 2**32)
    # Past the checks of `kernels.random_normal`, which take as long for each row as its numbers.
    draw = _kernels.random_normal
    rows = [draw(fan_out, seed, 0, _PURPOSE, layer, i) for i in range(fan_in)]
    return np.array(rows) * INITIALIZERS[initializer](fan_in, fan_out)
