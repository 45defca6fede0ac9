"""The kernels on their own, without `cdrop.Network`: masks, masked products and their gradients, losses, update rules.

All arrays of a call are float32 or all are float64; masks are packed, 64 units per word. Results do not depend on the
SIMD path or the number of threads. `cdrop.reference` has a NumPy twin of each function, with the same signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cdrop import _kernels
from cdrop._checks import (
    KEEP_UNITS,
    as_array,
    check_apart,
    check_shape,
    check_some,
    choice,
    class_probabilities,
    finite_number,
    float_array,
    float_dtype,
    label_vector,
    mask_words,
    nonnegative,
    norm_limit,
    probabilities,
    quantile_levels,
    row_weights,
    smoothing_share,
    state_arrays,
    thread_count,
    unit_flags,
    updated_array,
    whole_number,
)
from cdrop.optimizers import get_optimizer

__all__ = [
    "absolute_error",
    "bernoulli_mask",
    "drawn_keep",
    "dropout_noise",
    "huber",
    "limit_norms",
    "masked_gemm",
    "masked_gradients",
    "pack_mask",
    "poisson",
    "quantile",
    "random_normal",
    "random_words",
    "sigmoid_cross_entropy",
    "simd",
    "simd_parameters",
    "simd_paths",
    "softmax_cross_entropy",
    "squared_error",
    "unpack_mask",
    "update",
]


def simd() -> str:
    """Return the name of the SIMD path in use: ``"scalar"``, ``"avx2"``, ``"avx512"`` or ``"neon"``."""
    return _kernels.simd()


def simd_paths(*, built: bool = False) -> list[str]:
    """Return the names of the SIMD paths that this CPU can run, the best one last.

    Parameters
    ----------
    built : bool, default False
        Return all paths compiled into the library for this architecture instead.

    Returns
    -------
    list of str
    """
    return _kernels.simd_paths(built)


def simd_parameters() -> dict[str, dict[str, float]]:
    """Return what the SIMD path in use was tuned to, for each dtype. Speed depends on it; results do not.

    Returns
    -------
    dict of str to dict
        ``float32`` and ``float64``, each with ``panel``, the columns of a panel of weights, and ``dense_above``, the
        share of live entries above which a product runs without lists.
    """
    return {dtype: _kernels.simd_parameters(dtype) for dtype in ("float32", "float64")}


# ---- Random words and masks ------------------------------------------------------------------------------------------


def drawn_keep(keep: float) -> float:
    """Return the probability that masks are actually drawn with: `keep` rounded to a multiple of 2**-32.

    Scaling kept units by its reciprocal makes the expectation exact.

    Parameters
    ----------
    keep : float
        Probability of keeping a unit, 0 to 1.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If `keep` is not a number from 0 to 1.

    Examples
    --------
    >>> from cdrop.kernels import drawn_keep
    >>> drawn_keep(0.5), drawn_keep(0.1)
    (0.5, 0.10000000009313226)
    """
    return _drawn_units(keep) / KEEP_UNITS


def _drawn_units(keep: float) -> int:
    return round(finite_number("keep", keep, 0, 1) * KEEP_UNITS)


def bernoulli_mask(
    rows: int,
    width: int,
    keep: float,
    *,
    seed: int = 0,
    step: int = 0,
    layer: int = 0,
    first_row: int = 0,
    purpose: int = 0,
) -> NDArray[np.uint64]:
    """Draw packed Bernoulli masks, a function of (seed, step, purpose, layer, row, unit), `keep` and `width` alone.

    Parameters
    ----------
    rows, width : int
        Number of rows, and of units in a row.
    keep : float
        Probability of *keeping* a unit, 0 to 1, rounded to a multiple of 2**-32 (see `drawn_keep`).
    seed, step : int, default 0
        0 to 2**64 - 1.
    layer : int, default 0
        0 to 2**32 - 1.
    first_row : int, default 0
        A multiple of 64: the result has rows ``first_row`` to ``first_row + rows - 1`` of the mask.
    purpose : int, default 0
        0 for training, 4 for predictions under dropout (`step` is then the number of the pass, from 0), 5 for
        subnetworks (each has one row).

    Returns
    -------
    ndarray of uint64, shape (rows, ceil(width / 64))
        Bit j of word w is unit 64 w + j; 1 means kept; padding bits are 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    References
    ----------
    Blackman and Vigna, "Scrambled linear pseudorandom number generators" (2018): xoshiro256++, eight interleaved.

    Examples
    --------
    >>> from cdrop.kernels import bernoulli_mask, unpack_mask
    >>> mask = bernoulli_mask(2, 10, 0.5, seed=1)
    >>> mask.shape, unpack_mask(mask, 10).shape
    ((2, 1), (2, 10))
    """
    rows, width = whole_number("rows", rows, 0, 2**48), whole_number("width", width, 0, 2**48)
    units, first = _drawn_units(keep), _first_row(first_row)
    seed, step, purpose, layer, _ = _stream_key(seed, step, purpose, layer)
    return _kernels.bernoulli_mask(rows, width, units, seed, step, layer, first, purpose)


def dropout_noise(
    rows: int,
    width: int,
    keep: float,
    *,
    kind: str = "gaussian",
    dtype: DTypeLike = "float32",
    seed: int = 0,
    step: int = 0,
    layer: int = 0,
    first_row: int = 0,
    purpose: int = 0,
) -> NDArray[Any]:
    """Draw noise to multiply inputs by, of mean 1 and variance ``(1 - keep) / keep``, which concrete noise nearly has.

    A function of (seed, step, purpose, layer, row, unit), `kind`, `keep`, `dtype` and `width` alone: the same bytes on
    every SIMD path. float32 and float64 draw the same numbers, up to rounding.

    Parameters
    ----------
    rows, width : int
        Number of rows, and of units in a row.
    keep : float
        Above 0, at most 1, rounded to a multiple of 2**-32 (see `drawn_keep`): Bernoulli dropout with this probability
        of keeping a unit, and kept units divided by it, has noise of the same mean and variance.
    kind : {"gaussian", "uniform", "concrete"}, default "gaussian"
        Normal; uniform between ``1 - h`` and ``1 + h`` with ``h = sqrt(3 (1 - keep) / keep)``; or concrete,
        ``(1 - z) / keep`` with ``z = sigmoid(10 (logit(1 - keep) + logit(u)))``, u uniform between 0 and 1: mostly
        near 0 or 1 / keep.
    dtype : {"float32", "float64"}, default "float32"
    seed, step, layer, first_row, purpose
        As in `bernoulli_mask`.

    Returns
    -------
    ndarray of `dtype`, shape (rows, width)

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    References
    ----------
    Srivastava et al., "Dropout", JMLR 15 (2014), section 10: Gaussian noise. Shen et al., "Continuous dropout", IEEE
    Transactions on Neural Networks and Learning Systems 29 (2018): Gaussian and uniform noise. Gal, Hron and Kendall,
    "Concrete dropout", NeurIPS 2017, equation 5, with temperature 0.1. Box and Muller, "A note
    on the generation of random normal deviates", Annals of Mathematical Statistics 29 (1958).

    Examples
    --------
    >>> from cdrop.kernels import dropout_noise
    >>> noise = dropout_noise(1000, 100, 0.8, seed=1)
    >>> bool(abs(noise.mean() - 1) < 0.01), bool(abs(noise.var() - 0.25) < 0.01)
    (True, True)
    """
    rows, width = whole_number("rows", rows, 0, 2**48), whole_number("width", width, 0, 2**48)
    units, first = _drawn_units(keep), _first_row(first_row)
    if not units:
        raise ValueError(
            f"keep is {keep!r}; expected a probability that is not 0 in units of 2**-32"
        )
    choice("kind", kind, _kernels.NOISE_KINDS)
    seed, step, purpose, layer, _ = _stream_key(seed, step, purpose, layer)
    return _kernels.dropout_noise(
        rows, width, units, kind, float_dtype("dtype", dtype), seed, step, layer, first, purpose
    )


def _first_row(first_row: int) -> int:
    first = whole_number("first_row", first_row, 0, 2**62)
    if first % 64:
        raise ValueError(
            f"first_row is {first_row}; expected a multiple of 64, since 64 rows share a stream of the generator"
        )
    return first


def _stream_key(
    seed: int, step: int, purpose: int, layer: int, block: int = 0
) -> tuple[int, int, int, int, int]:
    return (
        whole_number("seed", seed, 0, 2**64),
        whole_number("step", step, 0, 2**64),
        whole_number("purpose", purpose, 0, 2**32),
        whole_number("layer", layer, 0, 2**32),
        whole_number("block", block, 0, 2**61),
    )


def random_words(
    n: int, *, seed: int = 0, step: int = 0, purpose: int = 3, layer: int = 0, block: int = 0
) -> NDArray[np.uint64]:
    """Return the first `n` 64-bit words of a keyed stream.

    Parameters
    ----------
    n : int
    seed, step, layer, block : int, default 0
        The key: `seed` and `step` below 2**64, `layer` below 2**32, `block` below 2**61.
    purpose : int, default 3
        0 masks, 1 initial weights, 2 batch order, 4 masks of predictions, 5 of subnetworks; others are free.

    Returns
    -------
    ndarray of uint64, shape (n,)

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    Examples
    --------
    >>> from cdrop.kernels import random_words
    >>> hex(random_words(1, seed=1)[0])
    '0xc9ac29373a6570eb'
    """
    n = whole_number("n", n, 0, 2**48)
    return _kernels.random_words(n, *_stream_key(seed, step, purpose, layer, block))


def random_normal(
    n: int, *, seed: int = 0, step: int = 0, purpose: int = 3, layer: int = 0, block: int = 0
) -> NDArray[np.float64]:
    """Return `n` standard normal numbers from a keyed stream, the same on every machine.

    Parameters are those of `random_words`.

    Returns
    -------
    ndarray of float64, shape (n,)

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    References
    ----------
    Marsaglia and Bray, "A convenient method for generating normal variables" (1964): the polar method.
    """
    n = whole_number("n", n, 0, 2**48)
    return _kernels.random_normal(n, *_stream_key(seed, step, purpose, layer, block))


def pack_mask(mask: ArrayLike) -> NDArray[np.uint64]:
    """Pack booleans into the words of a mask.

    Parameters
    ----------
    mask : array_like of bool or integers, shape (rows, width)
        True, or not 0, means kept.

    Returns
    -------
    ndarray of uint64, shape (rows, ceil(width / 64))
        Bit j of word w is unit 64 w + j; padding bits are 0.

    Raises
    ------
    TypeError, ValueError
        If `mask` is not a matrix of booleans or integers.

    Examples
    --------
    >>> from cdrop.kernels import pack_mask
    >>> pack_mask([[True, False, True]])
    array([[5]], dtype=uint64)
    """
    units = unit_flags("mask", mask)
    words = np.zeros((len(units), -(-units.shape[1] // 64)), "<u8")
    octets = np.packbits(units, axis=1, bitorder="little")
    words.view(np.uint8)[:, : octets.shape[1]] = octets
    return words.astype(np.uint64, copy=False)


def unpack_mask(mask: ArrayLike, width: int) -> NDArray[np.bool_]:
    """Unpack the words of a mask into booleans, the inverse of `pack_mask`; padding bits are ignored.

    Parameters
    ----------
    mask : ndarray of uint64, shape (rows, ceil(width / 64))
    width : int
        Number of units in a row.

    Returns
    -------
    ndarray of bool, shape (rows, width)

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    Examples
    --------
    >>> from cdrop.kernels import unpack_mask
    >>> import numpy as np
    >>> unpack_mask(np.array([[5]], np.uint64), 3)
    array([[ True, False,  True]])
    """
    width = whole_number("width", width, 0, 2**48)
    octets = mask_words("mask", mask, width).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=1, count=width, bitorder="little").view(np.bool_)


# ---- Masked products -------------------------------------------------------------------------------------------------


def masked_gemm(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    mask: ArrayLike | None = None,
    scale: float = 1.0,
    activation: str = "identity",
    threads: int | None = None,
) -> NDArray[Any]:
    """Compute ``activation((x * mask * scale) @ weight + bias)``, skipping dropped and zero entries of `x`.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (rows, n_in)
    weight : ndarray of the same dtype, shape (n_in, n_out)
    bias : ndarray of the same dtype, shape (n_out,), optional
    mask : ndarray of uint64, shape (rows, ceil(n_in / 64)), optional
        Packed, as `bernoulli_mask` returns it. Default: all units are kept.
    scale : float, default 1.0
        Factor for kept entries; 1 / keep in inverted dropout.
    activation : {"identity", "relu", "leaky_relu", "tanh", "sigmoid"}, default "identity"
        The leaky ReLU has a slope of 0.01 below 0.
    threads : int, optional
        Default: `cdrop.get_num_threads`. The result does not depend on it.

    Returns
    -------
    ndarray of the same dtype, shape (rows, n_out)

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is invalid.

    References
    ----------
    Srivastava et al., "Dropout", JMLR 15 (2014), section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop.kernels import masked_gemm, pack_mask
    >>> mask = pack_mask(np.array([[True, False]]))
    >>> masked_gemm(np.array([[1.0, 5.0]]), np.array([[2.0], [3.0]]), mask=mask, scale=2.0)
    array([[4.]])
    """
    x = float_array("x", x, 2)
    weight = float_array("weight", weight, 2, x.dtype)
    n_out = weight.shape[1]
    check_shape("weight", weight, (x.shape[1], n_out), "columns of x, outputs")
    if bias is not None:
        bias = float_array("bias", bias, 1, x.dtype)
        check_shape("bias", bias, (n_out,), "outputs")
    options = _layer_options(x, mask, scale, activation, threads)
    return _kernels.masked_gemm(x, weight, bias, *options)


def _layer_options(
    x: NDArray[Any], mask: ArrayLike | None, scale: float, activation: str, threads: int | None
) -> tuple[NDArray[np.uint64] | None, float, str, int]:
    rows, width = x.shape
    return (
        None if mask is None else mask_words("mask", mask, width, rows),
        finite_number("scale", scale, -np.inf),
        choice("activation", activation, _kernels.ACTIVATIONS),
        thread_count("threads", threads) or 0,
    )


def masked_gradients(
    dout: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    scale: float = 1.0,
    activation: str = "identity",
    threads: int | None = None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Compute the gradients of `masked_gemm` (with identity activation) by its input, weight and bias.

    Parameters
    ----------
    dout : ndarray of float32 or float64, shape (rows, n_out)
        Gradient by the output, before the output's own activation.
    x : ndarray of the same dtype, shape (rows, n_in)
        Output of `activation` in the layer below, before the mask.
    weight : ndarray of the same dtype, shape (n_in, n_out)
    mask : ndarray of uint64, shape (rows, ceil(n_in / 64)), optional
    scale : float, default 1.0
    activation : str, default "identity"
        The activation that made `x`; its derivative is computed from `x`.
    threads : int, optional

    Returns
    -------
    dinput : ndarray, shape (rows, n_in)
        ``(dout @ weight.T) * mask * scale * activation'``: the gradient by the input of that activation.
    dweight : ndarray, shape (n_in, n_out)
        ``(x * mask * scale).T @ dout``
    dbias : ndarray, shape (n_out,)
        ``dout.sum(0)``

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is invalid.

    References
    ----------
    Srivastava et al., "Dropout", JMLR 15 (2014), section 5.1.
    """
    dout = float_array("dout", dout, 2)
    x = float_array("x", x, 2, dout.dtype)
    check_shape("x", x, (len(dout), x.shape[1]), "rows of dout, inputs")
    weight = float_array("weight", weight, 2, dout.dtype)
    check_shape("weight", weight, (x.shape[1], dout.shape[1]), "columns of x, columns of dout")
    options = _layer_options(x, mask, scale, activation, threads)
    return _kernels.masked_gradients(dout, x, weight, *options)


# ---- Losses ----------------------------------------------------------------------------------------------------------


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    label_smoothing: float = 0.0,
) -> tuple[float, NDArray[Any]]:
    """Compute the weighted mean of the cross-entropies between softmax(logits) and labels, and its gradient.

    Finite for finite logits of any size.

    Parameters
    ----------
    logits : ndarray of float32 or float64, shape (rows, classes)
    labels : ndarray of integers, shape (rows,)
        0 to classes - 1. Or probabilities of the classes, an ndarray of the logits' dtype and shape.
    sample_weight : array_like, shape (rows,), optional
        At least 0, not all 0; the mean is divided by their sum.
    label_smoothing : float, default 0.0
        At least 0 and below 1: the share of the target that is spread evenly over the classes (Szegedy et al. 2016,
        section 7).

    Returns
    -------
    loss : float
    dlogits : ndarray, shape (rows, classes)

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop.kernels import softmax_cross_entropy
    >>> loss, gradient = softmax_cross_entropy(np.array([[0.0, 0.0]]), np.array([1]))
    >>> round(loss, 6), gradient.tolist()
    (0.693147, [[0.5, -0.5]])
    """
    logits = check_some("logits", float_array("logits", logits, 2))
    share = np.array([smoothing_share("label_smoothing", label_smoothing)])
    weights = row_weights("sample_weight", sample_weight, len(logits))
    labels = as_array("labels", labels)
    name = "softmax_cross_entropy"
    if labels.ndim == 2:
        soft = float_array("labels", labels, 2, logits.dtype)
        class_probabilities("labels", soft, logits.shape, logits.dtype)
        return _kernels.loss_and_gradient(name, share, logits, None, soft, weights)
    numbers = label_vector("labels", labels, *logits.shape)
    return _kernels.loss_and_gradient(name, share, logits, numbers, None, weights)


def sigmoid_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    label_smoothing: float = 0.0,
) -> tuple[float, NDArray[Any]]:
    """Compute the weighted mean of the rows' summed binary cross-entropies between sigmoid(logits) and targets.

    Parameters
    ----------
    logits : ndarray of float32 or float64, shape (rows, labels)
    targets : ndarray of the same dtype and shape
        0 to 1.
    sample_weight : array_like, shape (rows,), optional
    label_smoothing : float, default 0.0
        At least 0 and below 1: targets t become ``t * (1 - label_smoothing) + label_smoothing / 2``.

    Returns
    -------
    loss : float
    dlogits : ndarray, shape (rows, labels)

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is invalid.
    """
    logits = check_some("logits", float_array("logits", logits, 2))
    targets = probabilities("targets", _targets(targets, logits))
    share = np.array([smoothing_share("label_smoothing", label_smoothing)])
    weights = row_weights("sample_weight", sample_weight, len(logits))
    return _kernels.loss_and_gradient(
        "sigmoid_cross_entropy", share, logits, None, targets, weights
    )


def squared_error(
    outputs: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[float, NDArray[Any]]:
    """Compute the weighted mean over rows of half the summed squares of ``outputs - targets``, and its gradient.

    Parameters
    ----------
    outputs, targets : ndarray of float32 or float64, shape (rows, n)
    sample_weight : array_like, shape (rows,), optional

    Returns
    -------
    loss : float
    doutputs : ndarray, shape (rows, n)

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is invalid.
    """
    return _of_numbers("squared_error", outputs, targets, sample_weight)


def absolute_error(
    outputs: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[float, NDArray[Any]]:
    """Compute the weighted mean over rows of the summed ``abs(outputs - targets)``, and its gradient.

    The gradient is 0 where an output equals its target. Parameters, results and errors are those of `squared_error`.
    """
    return _of_numbers("absolute_error", outputs, targets, sample_weight)


def huber(
    outputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    delta: float = 1.0,
) -> tuple[float, NDArray[Any]]:
    """Compute the weighted mean over rows of the summed Huber losses, and its gradient.

    The loss of an error e is ``e**2 / 2`` up to the size `delta`, above 0, and ``delta * (abs(e) - delta / 2)`` beyond.
    All else is as for `squared_error`.

    References
    ----------
    Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35 (1964).
    """
    parameter = np.array([finite_number("delta", delta, positive=True)])
    return _of_numbers("huber", outputs, targets, sample_weight, parameter)


def poisson(
    outputs: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[float, NDArray[Any]]:
    """Compute the weighted mean over rows of the summed half Poisson deviances, and its gradient.

    Outputs z are logarithms of the means; the loss of a target t, at least 0, is ``exp(z) - t * z + t * log(t) - t``.
    All else is as for `squared_error`.
    """
    return _of_numbers("poisson", outputs, targets, sample_weight)


def quantile(
    outputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    quantiles: float | Sequence[float] = 0.5,
) -> tuple[float, NDArray[Any]]:
    """Compute the weighted mean over rows of the summed pinball losses, and its gradient.

    The loss of an output z for the quantile q and target t is ``q * (t - z)``, or ``(1 - q) * (z - t)`` where z is
    larger. The gradient is 0 where they are equal. `quantiles` has a number above 0 and below 1 for each output, or one
    for all. Targets of shape (rows, 1) are those of all outputs. All else is as for `squared_error`.

    References
    ----------
    Koenker and Bassett, "Regression quantiles", Econometrica 46 (1978).
    """
    outputs = check_some("outputs", float_array("outputs", outputs, 2))
    levels = np.array(quantile_levels("quantiles", quantiles, outputs.shape[1]))
    return _of_numbers("quantile", outputs, targets, sample_weight, levels)


def _of_numbers(
    loss: str,
    outputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None,
    parameters: NDArray[np.float64] | None = None,
) -> tuple[float, NDArray[Any]]:
    outputs = check_some("outputs", float_array("outputs", outputs, 2))
    targets = _targets(targets, outputs, shared=loss == "quantile")
    if loss == "poisson":
        nonnegative("targets", targets)
    weights = row_weights("sample_weight", sample_weight, len(outputs))
    return _kernels.loss_and_gradient(loss, parameters, outputs, None, targets, weights)


def _targets(targets: ArrayLike, outputs: NDArray[Any], shared: bool = False) -> NDArray[Any]:
    targets = float_array("targets", targets, 2, outputs.dtype)
    if shared and targets.shape == (len(outputs), 1):
        return targets
    return check_shape("targets", targets, outputs.shape, "like the outputs")


# ---- Update rules ----------------------------------------------------------------------------------------------------


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
        State of the rule, arrays like `weight` and zero before the first step: none for sgd, one for momentum,
        nesterov, adagrad and rmsprop, two for adam and adamw.
    optimizer : str, default "sgd"
        See `cdrop.optimizers`, which has the formula and the settings of each rule.
    learning_rate : float
        At least 0.
    l2 : float, default 0.0
        Adds ``l2 * weight`` to the gradient.
    step : int, default 1
        Number of this step, from 1; Adam's bias correction and a ramp of momentum need it.
    **settings
        The rule's settings, such as ``rho=0.95``.

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is invalid.

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
    updated_array("weight", weight)
    gradient = float_array("gradient", gradient, weight.ndim, weight.dtype)
    check_shape("gradient", gradient, weight.shape, "like weight")
    states = state_arrays(state, weight, _kernels.rule_states(constants[0]), constants[0])
    check_apart({"weight": weight, "gradient": gradient, **states})
    _kernels.update(weight, gradient, state, constants)


def limit_norms(weight: NDArray[Any], max_norm: float) -> None:
    """Scale the columns of `weight` whose Euclidean norm is above `max_norm` to that norm, in place (max-norm).

    A column holds the incoming weights of one unit. No other column changes, and neither does one whose sum of squares
    is NaN or infinite in float64. `cdrop.Network` does the same for hidden units, after each step.

    Parameters
    ----------
    weight : ndarray of float32 or float64, shape (n_in, n_out)
        C-contiguous.
    max_norm : float
        At least 1e-150.

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is invalid.

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
    limit = norm_limit("max_norm", max_norm)
    _kernels.limit_norms(updated_array("weight", weight, ndim=2), limit)
