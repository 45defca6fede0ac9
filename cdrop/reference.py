"""The NumPy twin: what every kernel of ``cdrop.kernels`` and a whole training step must compute.

This file is the specification of the library. It is written to be read, knows NumPy only, and
states three things the compiled code has to reproduce: which random bits a key gives (exactly),
what each kernel computes (to rounding, in the dtype of its inputs), and in which order a step
calls them. Throughout:

- arrays are float32 or float64, the same in a call, and results have their dtype; another dtype
  is a `TypeError`, a wrong shape, number or name a `ValueError`, before anything changes;
- a mask is packed: bit ``j`` of 64-bit word ``w`` is unit ``64 * w + j``, 1 = kept, padding 0;
- ``keep`` is a probability of keeping a unit, ``dropout`` one of dropping it;
- a key is ``seed`` and ``step`` below 2**64, ``purpose`` and ``layer`` below 2**32, ``block``
  below 2**61; the streams are part of the contract: the same on every platform and release.

References
----------
Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15,
2014 (sections 4 and 5: the model and its training, section 10: both scalings).

Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2018.

Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cdrop._checks import (
    as_array,
    check_shape,
    check_some,
    choice,
    class_probabilities,
    drop_rate,
    drop_rates,
    finite_number,
    float_array,
    float_dtype,
    label_vector,
    layer_widths,
    mask_words,
    nonnegative,
    norm_limit,
    probabilities,
    quantile_levels,
    row_weights,
    smoothing_share,
    state_arrays,
    unit_flags,
    updated_array,
    whole_number,
)
from cdrop.optimizers import get_optimizer

Array = NDArray[Any]
Params = tuple[list[Array], list[Array]]

MASKS, WEIGHTS, ORDER, USER, SAMPLES, SUBNETWORKS = range(6)  # the purposes of a stream
BLOCK_ROWS = 64  # rows of a mask that share one stream
LANES = 8  # generators in a stream, words in a draw
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, the increment of SplitMix64


# ---- Random words --------------------------------------------------------------------------


def _mix(z: Array) -> Array:
    """Apply the finalizer of SplitMix64, a bijection of 64 bits."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return np.asarray(z ^ (z >> 31))


def _streams(blocks: Array, seed: int, step: int, purpose: int, layer: int) -> Array:
    """States (4, blocks, LANES) of the streams of one key, one stream for each block.

    Two rounds of sums and bijections: every bit of the key reaches every word of the state, and
    as each assignment can be undone no two keys share a state.
    """
    k0, k1, k2, k3 = np.empty((4, blocks.size, LANES), np.uint64)
    k0[:] = whole_number("seed", seed, 0, 2**64)
    k1[:] = whole_number("step", step, 0, 2**64)
    k2[:] = whole_number("purpose", purpose, 0, 2**32) << 32 | whole_number(
        "layer", layer, 0, 2**32
    )
    k3[:] = blocks[:, None] * np.uint64(LANES) + np.arange(LANES, dtype=np.uint64)
    carry = np.zeros_like(k3)
    for _ in range(2):
        k0 = _mix(k0 + carry + _GOLDEN)
        k1 = _mix(k1 + k0 + _GOLDEN)
        k2 = _mix(k2 + k1 + _GOLDEN)
        k3 = _mix(k3 + k2 + _GOLDEN)
        carry = k3
    state = np.stack([k0, k1, k2, k3])
    state[0][~state.any(axis=0)] = _GOLDEN  # xoshiro never leaves the all-zero state
    return state


def _rotate(x: Array, bits: int) -> Array:
    return np.asarray((x << bits) | (x >> (64 - bits)))


def _draw(s: Array) -> Array:
    """Advance every generator of ``s`` (4, ...) in place by one xoshiro256++ step."""
    result: Array = _rotate(s[0] + s[3], 23) + s[0]
    t = s[1] << 17
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = _rotate(s[3], 45)
    return result


def _words(n: int, blocks: Array, *key: int) -> Array:
    """First ``n`` words of each block's stream, (blocks, n): whole draws, in lane order."""
    state = _streams(blocks, *key)
    words = np.empty((blocks.size, -(-n // LANES), LANES), np.uint64)
    for i in range(words.shape[1]):
        words[:, i] = _draw(state)
    return words.reshape(blocks.size, words.shape[1] * LANES)[:, :n]


def random_words(
    n: int, *, seed: int = 0, step: int = 0, purpose: int = USER, layer: int = 0, block: int = 0
) -> NDArray[np.uint64]:
    """Return the first ``n`` words of a keyed stream, (n,) uint64.

    Purposes: 0 masks of training, 1 initial weights, 2 batch order, 3 free for users, 4 masks of
    predictions, 5 masks of subnetworks.

    References
    ----------
    Blackman and Vigna 2018 (xoshiro256++); Steele, Lea and Flood 2014 (mixing of the key).

    Examples
    --------
    >>> [hex(word) for word in random_words(2, seed=1)]
    ['0xc9ac29373a6570eb', '0xb8140a65b8ffb128']
    """
    blocks = np.array([whole_number("block", block, 0, 2**61)], np.uint64)
    words: Array = _words(whole_number("n", n, 0, 2**48), blocks, seed, step, purpose, layer)[0]
    return words


def random_normal(
    n: int, *, seed: int = 0, step: int = 0, purpose: int = USER, layer: int = 0, block: int = 0
) -> NDArray[np.float64]:
    """Return the first ``n`` standard normal numbers of a keyed stream, (n,) float64.

    The polar method runs over consecutive pairs of the stream's words; an accepted pair gives two.

    References
    ----------
    Marsaglia and Bray, "A convenient method for generating normal variables", 1964.
    """
    blocks = np.array([whole_number("block", block, 0, 2**61)], np.uint64)
    normals: Array = _normals(whole_number("n", n, 0, 2**48), blocks, seed, step, purpose, layer)[0]
    return normals


def _normals(n: int, blocks: Array, *key: int) -> Array:
    pairs = -(-n // 2)
    tried = pairs + pairs // 2 + 16  # a pair is accepted with probability pi / 4
    while True:
        words = _words(2 * tried, blocks, *key).reshape(blocks.size, tried, 2)
        uv = (words >> 11) * 2.0**-52 - 1.0  # 53 bits each, exact, in [-1, 1)
        s = uv[..., 0] * uv[..., 0] + uv[..., 1] * uv[..., 1]
        accepted = (s > 0) & (s < 1)
        if blocks.size == 0 or accepted.sum(axis=1).min() >= pairs:
            break
        tried *= 2
    first = np.argsort(~accepted, axis=1, kind="stable")[:, :pairs]
    s = np.take_along_axis(s, first, axis=1)
    uv = np.take_along_axis(uv, first[..., None], axis=1)
    normals = uv * np.sqrt(-2.0 * np.log(s) / s)[..., None]
    return np.asarray(normals.reshape(blocks.size, 2 * pairs)[:, :n])


# ---- Masks ---------------------------------------------------------------------------------


def drawn_keep(keep: float) -> float:
    """Return ``round(keep * 2**32) / 2**32``, ties to even: the probability a mask is drawn with.

    Every scale uses it, so that expectations are exact. ``keep`` must be in [0, 1].

    Examples
    --------
    >>> drawn_keep(0.5), drawn_keep(1e-10), drawn_keep(0.1)
    (0.5, 0.0, 0.10000000009313226)
    """
    return round(finite_number("keep", keep, 0, 1) * 2**32) / 2**32


def bernoulli_mask(
    rows: int,
    width: int,
    keep: float,
    *,
    seed: int = 0,
    step: int = 0,
    layer: int = 0,
    purpose: int = MASKS,
) -> NDArray[np.uint64]:
    """Draw the packed mask of one layer and step; each unit is kept with ``drawn_keep(keep)``.

    A unit's number ``u`` is read from its own bit of successive draws, highest bit first, and
    compared with ``keep``; a group of 512 units stops drawing when all of them are decided.

    Parameters
    ----------
    rows, width : int
        Samples and units. Row ``r`` is the same whatever ``rows`` is.
    keep : float in [0, 1]
        Probability of keeping a unit; 0 and 1 consume no random words.
    seed, step, layer, purpose : int
        The key, as in `random_words`. Every 64 rows have their own stream.

    Returns
    -------
    ndarray of uint64, shape (rows, ceil(width / 64))

    References
    ----------
    Srivastava et al. 2014, section 4.

    Examples
    --------
    >>> unpack_mask(bernoulli_mask(2, 8, 0.5, seed=1), 8).astype(int)
    array([[1, 1, 1, 1, 0, 1, 0, 1],
           [1, 1, 1, 1, 1, 0, 1, 0]])
    """
    rows, width = whole_number("rows", rows, 0, 2**48), whole_number("width", width, 0, 2**48)
    k = round(drawn_keep(keep) * 2**32)
    n_words, n_blocks = -(-width // 64), -(-rows // BLOCK_ROWS)
    row = pack_mask(np.ones((1, width), bool))
    state = _streams(np.arange(n_blocks, dtype=np.uint64), seed, step, purpose, layer)
    if k in (0, 2**32) or rows == 0 or width == 0:
        return np.tile(row if k else np.zeros_like(row), (rows, 1))
    valid = np.tile(row, (BLOCK_ROWS, 1)).reshape(-1, LANES)
    kept = np.zeros((n_blocks, len(valid), LANES), np.uint64)
    asked = -(-min(rows, BLOCK_ROWS) * n_words // LANES)  # nobody sees the groups after these
    for group in range(asked):
        kept[:, group] = _bernoulli_group(state, valid[group], k)
    return kept.reshape(n_blocks * BLOCK_ROWS, n_words)[:rows].copy()


def _bernoulli_group(state: Array, valid: Array, k: int) -> Array:
    """Draw the next 8 words of every block: a unit is kept when its ``u < k / 2**32``."""
    undecided = np.tile(valid, (state.shape[1], 1))
    kept = np.zeros_like(undecided)
    last = (k & -k).bit_length() - 1  # below k's last 1 an undecided unit has u >= k: dropped
    live = np.arange(state.shape[1])  # blocks whose group is not decided yet: only these draw
    for bit in range(31, last - 1, -1):
        s = state[:, live]
        draw = _draw(s)
        state[:, live] = s
        if k >> bit & 1:
            kept[live] |= undecided[live] & ~draw
            undecided[live] &= draw
        else:
            undecided[live] &= ~draw
        live = np.flatnonzero(undecided.any(axis=1))
        if live.size == 0:
            break
    return kept


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
    purpose: int = MASKS,
) -> Array:
    """Draw noise of mean 1 and variance ``(1 - keep) / keep`` for one layer and step.

    Row ``r`` takes the next ``ceil(width / 16)`` draws of 8 words of the stream of its 64 rows; a
    draw serves 16 units. A half of a word is a signed integer ``k``, and stands for the uniform
    number ``(k + 1/2) 2**-31``: ``v`` the upper half, ``w`` the lower. Units 0 to 7 of the 16 have
    ``z = v``, the others ``z = w``; for normal noise, with ``r = sqrt(-2 log |v|)`` and the sign of
    ``v``, they have ``r cos(w pi / 2)`` and ``r sin(w pi / 2)``. The noise is ``1 + spread * z``.
    Concrete noise is ``sigmoid(-10 (logit(1 - keep) + logit(u))) / keep``, ``u = (1 + z) / 2``.

    Parameters
    ----------
    rows, width, seed, step, layer, purpose
        As in `bernoulli_mask`.
    keep : float in (0, 1]
    kind : {"gaussian", "uniform", "concrete"}
    dtype : {"float32", "float64"}, default "float32"
        Of the result, which is computed in float64.

    Returns
    -------
    array (rows, width)

    References
    ----------
    Srivastava et al. 2014, section 10; Shen et al. 2018 (continuous dropout); Box and Muller 1958;
    Gal, Hron and Kendall 2017, equation 5.
    """
    rows, width = whole_number("rows", rows, 0, 2**48), whole_number("width", width, 0, 2**48)
    kept = drawn_keep(keep)
    if not kept:
        raise ValueError(
            f"keep is {keep!r}; expected a probability that is not 0 in units of 2**-32"
        )
    choice("kind", kind, _NOISE)
    dtype = float_dtype("dtype", dtype)
    spread = math.sqrt((1 - kept) / kept * (3 if kind == "uniform" else 1))
    draws, blocks = -(-width // 16), np.arange(-(-rows // BLOCK_ROWS), dtype=np.uint64)
    words = _words(BLOCK_ROWS * draws * LANES, blocks, seed, step, purpose, layer)
    halves = (
        np.ascontiguousarray(words, "<u8")
        .view("<i4")
        .reshape(len(blocks) * BLOCK_ROWS, draws, LANES, 2)[:rows]
    )
    w, v = np.moveaxis((halves + 0.5) * 2.0**-31, 3, 0)
    if kind == "gaussian":
        radius = np.copysign(np.sqrt(-2 * np.log(np.abs(v))), v)
        v, w = radius * np.cos(w * np.pi / 2), radius * np.sin(w * np.pi / 2)
    z = np.concatenate([v, w], axis=2).reshape(len(v), 16 * draws)[:, :width]
    if kind == "concrete":
        steepness = 10 * (math.log(max(1 - kept, 1e-300) / kept) + np.log1p(z) - np.log1p(-z))
        return np.asarray((_sigmoid(-steepness) / kept).astype(dtype))
    return np.asarray((1 + spread * z).astype(dtype))


def pack_mask(mask: ArrayLike) -> NDArray[np.uint64]:
    """Pack booleans (rows, width) into words (rows, ceil(width / 64)); inverse of `unpack_mask`.

    Examples
    --------
    >>> pack_mask([[True, False, True]])
    array([[5]], dtype=uint64)
    """
    units = unit_flags("mask", mask)
    units = np.pad(units, ((0, 0), (0, -units.shape[1] % 64)))
    octets = np.ascontiguousarray(np.packbits(units, axis=1, bitorder="little"))
    return octets.view("<u8").reshape(len(units), units.shape[1] // 64).astype(np.uint64)


def unpack_mask(mask: ArrayLike, width: int) -> NDArray[np.bool_]:
    """Unpack words (rows, ceil(width / 64)) into booleans (rows, width); padding is ignored."""
    width = whole_number("width", width, 0, 2**48)
    words = mask_words("mask", mask, width)
    octets = np.ascontiguousarray(words, "<u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=width, bitorder="little").astype(bool)


# ---- Layers --------------------------------------------------------------------------------


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))  # never overflows, and keeps its relative precision below 0
    return np.asarray(np.where(z >= 0, 1 / (1 + e), e / (1 + e)))


# name: (activation, its derivative written with its output). `not (h <= 0)` is `h > 0` for
# every number and lets NaN through: a NaN must never vanish as a dead unit.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "identity": (lambda z: z, np.ones_like),
    "relu": (lambda z: np.maximum(z, 0), lambda h: (~(h <= 0)).astype(h.dtype)),
    "leaky_relu": (
        lambda z: np.where(z <= 0, 0.01 * z, z),
        lambda h: np.where(h <= 0, 0.01, 1).astype(h.dtype),
    ),
    "tanh": (np.tanh, lambda h: 1 - h * h),
    "sigmoid": (_sigmoid, lambda h: h * (1 - h)),
}


def _dropped_out(x: Array, mask: ArrayLike | None, scale: float) -> Array:
    """``x * mask * scale``; a dropped unit gives 0 whatever it held."""
    x = x * finite_number("scale", scale, -math.inf)
    if mask is None:
        return x
    kept = unpack_mask(mask_words("mask", mask, x.shape[1], len(x)), x.shape[1])
    return np.where(kept, x, x.dtype.type(0))


def _product(a: Array, b: Array) -> Array:
    """Return ``a @ b`` unwarned of NaN: for five columns OpenBLAS's sgemv reads stale stack next to them."""
    with np.errstate(invalid="ignore"):
        product: Array = a @ b
    return product


def masked_gemm(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    mask: ArrayLike | None = None,
    scale: float = 1.0,
    activation: str = "identity",
) -> Array:
    """Compute ``act((x * mask * scale) @ weight + bias)``, one layer forward.

    Parameters
    ----------
    x : array (rows, n_in)
    weight : array (n_in, n_out)
    bias : array (n_out,), optional
    mask : array of uint64 (rows, ceil(n_in / 64)), optional
        Packed mask over the units of ``x``; none keeps all.
    scale : float
        1 / drawn_keep in inverted dropout's training, drawn_keep in the classic form's test.
    activation : {"identity", "relu", "leaky_relu", "tanh", "sigmoid"}
        leaky_relu has slope 0.01.

    Returns
    -------
    array (rows, n_out)

    References
    ----------
    Srivastava et al. 2014, sections 4 and 10.

    Examples
    --------
    >>> x, weight = np.array([[1.0, 2.0, 3.0]]), np.ones((3, 1))
    >>> masked_gemm(x, weight, mask=pack_mask([[True, False, True]]), scale=2.0)
    array([[8.]])
    """
    x = float_array("x", x, 2)
    weight = float_array("weight", weight, 2, x.dtype)
    check_shape("weight", weight, (x.shape[1], weight.shape[1]), "columns of x, outputs")
    z = _product(_dropped_out(x, mask, scale), weight)
    if bias is not None:
        bias = float_array("bias", bias, 1, x.dtype)
        z = z + check_shape("bias", bias, (weight.shape[1],), "outputs")
    return ACTIVATIONS[choice("activation", activation, ACTIVATIONS)][0](z)


def masked_gradients(
    dout: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    scale: float = 1.0,
    activation: str = "identity",
) -> tuple[Array, Array, Array]:
    """Compute the gradients of one layer's product by its input, weight and bias.

    ``dinput = (dout @ weight.T) * mask * scale * act'(x)``, the gradient by the *input* of the
    activation that made ``x``; ``dweight = (x * mask * scale).T @ dout``; ``dbias = dout.sum(0)``.

    Parameters
    ----------
    dout : array (rows, n_out)
        Gradient by the layer's ``(x * mask * scale) @ weight + bias``.
    x : array (rows, n_in)
        Output of ``activation``, before the mask.
    weight, mask, scale
        As in `masked_gemm`.
    activation : str
        What made ``x`` ("identity" for the net's input). relu is live where ``x > 0``, and
        where ``x`` is NaN.

    Returns
    -------
    dinput : array (rows, n_in)
    dweight : array (n_in, n_out)
    dbias : array (n_out,)

    References
    ----------
    Srivastava et al. 2014, section 5.1.
    """
    dout = float_array("dout", dout, 2)
    x = float_array("x", x, 2, dout.dtype)
    check_shape("x", x, (len(dout), x.shape[1]), "rows of dout, inputs")
    weight = float_array("weight", weight, 2, dout.dtype)
    check_shape("weight", weight, (x.shape[1], dout.shape[1]), "columns of x, columns of dout")
    slope = ACTIVATIONS[choice("activation", activation, ACTIVATIONS)][1](x)
    dinput = _dropped_out(_product(dout, weight.T) * slope, mask, scale)
    return dinput, _product(_dropped_out(x, mask, scale).T, dout), dout.sum(axis=0)


# ---- Losses --------------------------------------------------------------------------------


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    label_smoothing: float = 0.0,
) -> tuple[float, Array]:
    """Return the weighted mean of ``-t @ log softmax(logits)`` over the rows, and its gradient.

    The target t is 1 for the label's class and 0 for the others, or given, and smoothed to
    ``t * (1 - label_smoothing) + label_smoothing / classes`` (Szegedy et al. 2016, section 7).

    Parameters
    ----------
    logits : array (rows, classes)
        Finite, of any size.
    labels : array of integers (rows,) in [0, classes), or probabilities (rows, classes)
        At least one row and column, in this and the other losses. Rows of probabilities sum to 1.
    sample_weight : array (rows,), optional
        Weights >= 0 with a positive sum; the loss is ``sum(w * loss_r) / sum(w)``.
    label_smoothing : float in [0, 1)

    Returns
    -------
    loss : float
    dlogits : array (rows, classes)

    Examples
    --------
    >>> loss, dlogits = softmax_cross_entropy(np.array([[1e4, 0.0]]), [1])
    >>> loss, dlogits
    (10000.0, array([[ 1., -1.]]))
    """
    logits = check_some("logits", float_array("logits", logits, 2))
    z = logits - logits.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True)
    share = smoothing_share("label_smoothing", label_smoothing)
    t = (_one_hot(labels, logits) * (1 - share) + share / z.shape[1]).astype(z.dtype)
    mass = t.sum(axis=1, keepdims=True)  # 1, to rounding
    losses = mass[:, 0] * np.log(total[:, 0]) - (t * np.where(t > 0, z, 0)).sum(axis=1)
    return _weighted_mean(losses, e / total * mass - t, sample_weight)


def _one_hot(labels: ArrayLike, logits: Array) -> Array:
    """Return probabilities as they are, and labels as rows with a 1 for their class."""
    given = as_array("labels", labels)
    if given.ndim == 2:
        soft = float_array("labels", given, 2, logits.dtype)
        return class_probabilities("labels", soft, logits.shape, logits.dtype)
    t = np.zeros_like(logits)
    t[np.arange(len(t)), label_vector("labels", given, *logits.shape)] = 1
    return t


def sigmoid_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    label_smoothing: float = 0.0,
) -> tuple[float, Array]:
    """Return the weighted mean over the rows of the summed binary cross-entropies, and gradient.

    A row's loss is ``-sum_j t_j log s(z_j) + (1 - t_j) log (1 - s(z_j))``, s the sigmoid;
    logits z and targets t in [0, 1] are (rows, outputs). Smoothed targets are
    ``t * (1 - label_smoothing) + label_smoothing / 2``. All else is as in `softmax_cross_entropy`.
    """
    logits = check_some("logits", float_array("logits", logits, 2))
    targets = probabilities("targets", _targets(targets, logits))
    share = logits.dtype.type(smoothing_share("label_smoothing", label_smoothing))
    targets = targets * (1 - share) + share / 2
    losses = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return _weighted_mean(losses.sum(axis=1), _sigmoid(logits) - targets, sample_weight)


def squared_error(
    outputs: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Return the weighted mean of ``0.5 * sum((outputs - targets)**2)`` over rows, and gradient.

    Outputs and targets are (rows, outputs), all else as in `softmax_cross_entropy`.
    """
    outputs = check_some("outputs", float_array("outputs", outputs, 2))
    targets = _targets(targets, outputs)
    error = outputs - targets
    return _weighted_mean((0.5 * error * error).sum(axis=1), error, sample_weight)


def absolute_error(
    outputs: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Return the weighted mean of ``sum(abs(outputs - targets))`` over rows, and its gradient.

    The gradient is 0 where they are equal: one of the subgradients there. Outputs and targets are
    (rows, outputs), all else as in `softmax_cross_entropy`.
    """
    outputs = check_some("outputs", float_array("outputs", outputs, 2))
    error = outputs - _targets(targets, outputs)
    return _weighted_mean(np.abs(error).sum(axis=1), np.sign(error), sample_weight)


def huber(
    outputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    delta: float = 1.0,
) -> tuple[float, Array]:
    """Return the weighted mean of the rows' summed Huber losses, and its gradient.

    An error e costs ``e**2 / 2`` up to the size ``delta``, above 0, and
    ``delta * (abs(e) - delta / 2)`` beyond. All else is as in `absolute_error`.

    References
    ----------
    Huber, "Robust estimation of a location parameter", 1964.
    """
    outputs = check_some("outputs", float_array("outputs", outputs, 2))
    delta = outputs.dtype.type(finite_number("delta", delta, positive=True))
    error = outputs - _targets(targets, outputs)
    slope = np.clip(error, -delta, delta)
    losses = slope * (error - 0.5 * slope)  # e e / 2 within, delta (|e| - delta / 2) beyond
    return _weighted_mean(losses.sum(axis=1), slope, sample_weight)


def poisson(
    outputs: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Return the weighted mean of the rows' summed half Poisson deviances, and its gradient.

    Outputs z are logarithms of the means: a target t >= 0 costs
    ``exp(z) - t * z + t * log(t) - t``, where ``0 * log(0)`` is 0. All else is as in
    `absolute_error`.
    """
    outputs = check_some("outputs", float_array("outputs", outputs, 2))
    t = nonnegative("targets", _targets(targets, outputs))
    mean = np.exp(outputs)
    losses = mean - t * outputs + t * (np.log(np.where(t > 0, t, 1)) - 1)
    return _weighted_mean(losses.sum(axis=1), mean - t, sample_weight)


def quantile(
    outputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    quantiles: float | Sequence[float] = 0.5,
) -> tuple[float, Array]:
    """Return the weighted mean of the rows' summed pinball losses, and its gradient.

    An output z of quantile q costs ``q * (t - z)``, or ``(1 - q) * (z - t)`` above its target t;
    the gradient is 0 where they are equal. Quantiles are in (0, 1), one for each output or one for
    all; targets are (rows, outputs), or (rows, 1) for all outputs. All else is as in
    `absolute_error`.

    References
    ----------
    Koenker and Bassett, "Regression quantiles", 1978.
    """
    outputs = check_some("outputs", float_array("outputs", outputs, 2))
    levels = np.array(quantile_levels("quantiles", quantiles, outputs.shape[1]), outputs.dtype)
    error = outputs - _targets(targets, outputs, shared=True)
    slope = np.where(error > 0, 1 - levels, np.where(error < 0, -levels, error))
    return _weighted_mean((slope * error).sum(axis=1), slope, sample_weight)


def _targets(targets: ArrayLike, outputs: Array, shared: bool = False) -> Array:
    targets = float_array("targets", targets, 2, outputs.dtype)
    if shared and targets.shape == (len(outputs), 1):
        return targets
    return check_shape("targets", targets, outputs.shape, "like the outputs")


def _weighted_mean(
    losses: Array, gradients: Array, sample_weight: ArrayLike | None
) -> tuple[float, Array]:
    """Return ``sum(w * losses) / sum(w)`` and its gradient, from those of the single rows."""
    weights = row_weights("sample_weight", sample_weight, len(losses))
    weights = np.ones(len(losses)) if weights is None else weights
    share = weights / weights.sum()
    return float(share @ losses), gradients * share[:, None].astype(gradients.dtype)


LOSSES: dict[str, Callable[..., tuple[float, Array]]] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "huber": huber,
    "poisson": poisson,
    "quantile": quantile,
}


def divergence(
    logits: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    loss: str = "softmax_cross_entropy",
) -> tuple[float, Array]:
    """Return the weighted mean over pairs of rows of their symmetric divergence, and gradient.

    Rows 0 and 1 are a pair, rows 2 and 3, and so on. With p and q the probabilities that the loss
    makes of their logits, a pair's divergence is ``(KL(p || q) + KL(q || p)) / 2``; of the sigmoid
    the sum of that over the outputs, each a distribution of two values. ``sample_weight`` has the
    same weight for both rows of a pair.

    Parameters
    ----------
    logits : array (2 * pairs, outputs)
    sample_weight : array (2 * pairs,), optional
    loss : {"softmax_cross_entropy", "sigmoid_cross_entropy"}

    Returns
    -------
    divergence : float
    dlogits : array (2 * pairs, outputs)

    References
    ----------
    Liang et al., "R-Drop: regularized dropout for neural networks", NeurIPS 2021, section 2.

    Examples
    --------
    >>> divergence(np.array([[1.0, 0.0], [1.0, 0.0]]))
    (0.0, array([[0., 0.],
           [0., 0.]]))
    """
    choice("loss", loss, ("softmax_cross_entropy", "sigmoid_cross_entropy"))
    z = check_some("logits", float_array("logits", logits, 2)).astype(np.float64)
    if len(z) % 2:
        raise ValueError(f"logits has {len(z)} rows; expected an even number, in pairs")
    if loss == "sigmoid_cross_entropy":  # the logits z and 0 have its two probabilities
        z = np.stack([z, np.zeros_like(z)], axis=-1)
    z = z - z.max(axis=-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    p, log_ratio = np.exp(log_p), log_p[::2] - log_p[1::2]
    each = 0.5 * (p[::2] - p[1::2]) * log_ratio
    slope = np.empty_like(p)
    for first, ratio in ((0, log_ratio), (1, -log_ratio)):
        own, other = p[first::2], p[1 - first :: 2]
        slope[first::2] = 0.5 * (
            own - other + own * (ratio - (own * ratio).sum(axis=-1, keepdims=True))
        )
    if loss == "sigmoid_cross_entropy":
        each, slope = each.sum(axis=-1), slope[..., 0]
    gradient = slope.astype(np.asarray(logits).dtype)
    value, _ = _weighted_mean(np.repeat(each.sum(axis=-1), 2), gradient, sample_weight)
    return value, 2 * _weighted_mean(np.zeros(len(slope)), gradient, sample_weight)[1]


# ---- Updates -------------------------------------------------------------------------------


@dataclass
class _Step:
    """What an update rule may read in addition to weight, gradient and state."""

    lr: float
    t: int
    momentum: float = 0.9
    start: float = 0.5
    ramp: float = 0.0
    dampened: float = 0.0
    rho: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01


def _sgd(w: Array, g: Array, state: Sequence[Array], s: _Step) -> None:
    w -= s.lr * g


def _ramped(s: _Step) -> tuple[float, float]:
    """Return this step's momentum and learning rate."""
    momentum = s.momentum
    if s.t <= s.ramp:
        momentum = s.start + (momentum - s.start) * ((s.t - 1) / s.ramp)
    return momentum, s.lr * (1 - momentum) if s.dampened else s.lr


def _momentum(w: Array, g: Array, state: Sequence[Array], s: _Step) -> None:
    (v,) = state
    momentum, lr = _ramped(s)
    v[...] = momentum * v - lr * g
    w += v


def _nesterov(w: Array, g: Array, state: Sequence[Array], s: _Step) -> None:
    (v,) = state
    momentum, lr = _ramped(s)
    v[...] = momentum * v - lr * g
    w += momentum * v - lr * g


def _adagrad(w: Array, g: Array, state: Sequence[Array], s: _Step) -> None:
    (c,) = state
    c += g * g
    w -= s.lr * g / (np.sqrt(c) + s.epsilon)


def _rmsprop(w: Array, g: Array, state: Sequence[Array], s: _Step) -> None:
    (c,) = state
    c[...] = s.rho * c + (1 - s.rho) * g * g
    w -= s.lr * g / (np.sqrt(c) + s.epsilon)


def _adam(w: Array, g: Array, state: Sequence[Array], s: _Step) -> None:
    m, v = state
    m[...] = s.beta1 * m + (1 - s.beta1) * g
    v[...] = s.beta2 * v + (1 - s.beta2) * g * g
    unbiased = np.sqrt(v / (1 - s.beta2**s.t))
    w -= s.lr * (m / (1 - s.beta1**s.t)) / (unbiased + s.epsilon)


def _adamw(w: Array, g: Array, state: Sequence[Array], s: _Step) -> None:
    w -= s.lr * s.weight_decay * w
    _adam(w, g, state, s)


# name: (rule, number of state arrays, its hyperparameters)
OPTIMIZERS: dict[str, tuple[Callable[[Array, Array, Sequence[Array], _Step], None], int, str]] = {
    "sgd": (_sgd, 0, ""),
    "momentum": (_momentum, 1, "momentum start ramp dampened"),
    "nesterov": (_nesterov, 1, "momentum start ramp dampened"),
    "adagrad": (_adagrad, 1, "epsilon"),
    "rmsprop": (_rmsprop, 1, "rho epsilon"),
    "adam": (_adam, 2, "beta1 beta2 epsilon"),
    "adamw": (_adamw, 2, "beta1 beta2 epsilon weight_decay"),
}


def update(
    weight: Array,
    gradient: Array,
    state: Sequence[Array],
    *,
    optimizer: str = "sgd",
    learning_rate: float,
    l2: float = 0.0,
    step: int = 1,
    **hyper: float,
) -> None:
    """Update ``weight`` and the arrays of ``state`` in place, from ``g = gradient + l2 * weight``.

    ============ ===========================================================================
    sgd          ``w -= lr*g``
    momentum     ``v = momentum*v - lr*g;  w += v``
    nesterov     ``v = momentum*v - lr*g;  w += momentum*v - lr*g``
    adagrad      ``c += g*g;  w -= lr*g / (sqrt(c) + epsilon)``
    rmsprop      ``c = rho*c + (1-rho)*g*g;  w -= lr*g / (sqrt(c) + epsilon)``
    adam         ``m = beta1*m + (1-beta1)*g;  v = beta2*v + (1-beta2)*g*g;``
                 ``w -= lr * m/(1-beta1**t) / (sqrt(v/(1-beta2**t)) + epsilon)``
    adamw        ``w -= lr*weight_decay*w``, then adam; ``l2`` must be 0
    ============ ===========================================================================

    Parameters
    ----------
    weight, gradient : arrays of one shape and dtype, float32 or float64
    state : list of 0, 1 or 2 arrays like ``weight``
        ``[]``, ``[v]``, ``[c]`` or ``[m, v]``; zeros before the first update.
    optimizer : str
        One of the names above.
    learning_rate, l2 : float
    step : int
        ``t`` of adam, adamw and ramps, from 1.
    **hyper : float
        Those in the rule: momentum=0.9, rho=0.9, beta1=0.9, beta2=0.999, epsilon=1e-8,
        weight_decay=0.01. With a ramp=0 above 0, momentum goes linearly from start=0.5 at t = 1
        to its value at t = ramp + 1. dampened=False multiplies lr by 1 minus the step's momentum.
        Another name is a `TypeError`.

    References
    ----------
    Polyak 1964 (momentum); Hinton et al. 2012, arXiv:1207.0580, appendix A (its ramp, dampened);
    Sutskever et al. 2013 (Nesterov's form used here); Duchi, Hazan and Singer 2011 (Adagrad);
    Tieleman and Hinton 2012, lecture 6.5 (RMSprop); Kingma and Ba 2015 (Adam); Loshchilov and
    Hutter 2019 (AdamW).

    Examples
    --------
    >>> weight = np.array([1.0, 2.0])
    >>> update(weight, np.array([0.5, 0.0]), [], learning_rate=0.1)
    >>> weight
    array([0.95, 2.  ])
    """
    get_optimizer(optimizer, **hyper)  # which checks them
    rule, slots, _ = OPTIMIZERS[choice("optimizer", optimizer, OPTIMIZERS)]
    learning_rate, l2 = finite_number("learning_rate", learning_rate), finite_number("l2", l2)
    step = whole_number("step", step, 1, 2**64)
    if optimizer == "adamw" and l2 != 0:
        raise ValueError(f"l2 is {l2!r}; expected 0 with adamw, whose weight_decay takes its place")
    updated_array("weight", weight)
    gradient = float_array("gradient", gradient, weight.ndim, weight.dtype)
    check_shape("gradient", gradient, weight.shape, "like weight")
    state_arrays(state, weight, slots, optimizer)
    g = gradient + l2 * weight
    rule(
        weight,
        g,
        state,
        _Step(learning_rate, step, **{k: float(v) for k, v in hyper.items()}),
    )


def limit_norms(weight: Array, max_norm: float) -> None:
    """Scale the columns of ``weight`` whose Euclidean norm is above ``max_norm`` to it, in place.

    A column holds the incoming weights of one unit. Norms are computed in float64, and the factor
    ``max_norm / norm`` is rounded to the weights' dtype once; other columns are left alone, and
    so are those whose norm is NaN or infinite.

    Parameters
    ----------
    weight : array (n_in, n_out)
    max_norm : float
        At least 1e-150.

    References
    ----------
    Srivastava et al. 2014, section 5.1.

    Examples
    --------
    >>> weight = np.array([[3.0, 0.5], [4.0, 0.5]])
    >>> limit_norms(weight, 2.5)
    >>> weight
    array([[1.5, 0.5],
           [2. , 0.5]])
    """
    updated_array("weight", weight, ndim=2)
    max_norm = norm_limit("max_norm", max_norm)
    norms = np.sqrt((weight.astype(float) ** 2).sum(axis=0))
    above = (norms > max_norm) & (norms < math.inf)
    weight[:, above] *= (max_norm / norms[above]).astype(weight.dtype)


# ---- Networks ------------------------------------------------------------------------------


_NOISE = ("gaussian", "uniform", "concrete")  # kinds of dropout that drop no unit


@dataclass(frozen=True)
class NetworkSpec:
    """A fully connected net: what a training step needs in addition to weights, batch and optimizer.

    Parameters
    ----------
    sizes : sequence of int
        Units of the input, of each hidden layer and of the output.
    dropout : float or sequence of float
        Of the hidden layers, one for all or one for each. A rate is in [0, 1), and one whose
        ``drawn_keep(1 - rate)`` is 0 is an error.
    input_dropout : float
    activation : str
        Of the hidden layers; the last layer is linear and ``loss`` takes its outputs.
    loss : str
        One of ``LOSSES``.
    scaling : {"train", "test"}
        "train" (inverted dropout): training multiplies kept units by 1 / drawn_keep, prediction
        does nothing. "test" (the classic form): training applies the bare mask, prediction
        multiplies every unit by drawn_keep.
    seed : int
        Of the masks, initial weights and batch order.
    loss_settings : dict
        Keyword arguments of the loss, such as ``{"delta": 2.0}``.
    kinds : sequence of str, optional
        "bernoulli", "gaussian", "uniform", "shared" or "concrete", for each layer's input; default:
        "bernoulli". Noise is scaled neither in training nor in prediction. "shared" draws the mask
        of row 0, and all rows have it. "concrete" is noise whose rate `train_step` may learn.
        "masksembles" has ``members`` masks, those of subnetworks, which rows take in turn.
    members : int

    References
    ----------
    Srivastava et al. 2014, sections 4 and 10.
    """

    sizes: Sequence[int]
    dropout: float | Sequence[float] = 0.0
    input_dropout: float = 0.0
    activation: str = "relu"
    loss: str = "softmax_cross_entropy"
    scaling: str = "train"
    seed: int = 0
    loss_settings: dict[str, Any] = field(default_factory=dict)
    kinds: Sequence[str] = ()
    members: int = 8

    def __post_init__(self) -> None:
        """Check what was given."""
        layer_widths("sizes", self.sizes)
        choice("activation", self.activation, ACTIVATIONS)
        choice("loss", self.loss, LOSSES)
        choice("scaling", self.scaling, ("train", "test"))
        drop_rates("dropout", self.dropout, len(self.sizes) - 2)
        drop_rate("input_dropout", self.input_dropout)

    @property
    def rates(self) -> list[float]:
        """Dropout rate of each layer's input: of the net's input, then of each hidden layer."""
        hidden = len(self.sizes) - 2
        rates = [*self.dropout] if isinstance(self.dropout, Sequence) else [self.dropout] * hidden
        return [self.input_dropout, *rates]

    @property
    def each_kind(self) -> Sequence[str]:
        """Kind of dropout of each layer's input."""
        return self.kinds or ["bernoulli"] * (len(self.sizes) - 1)

    def l2_by_layer(self, l2: float) -> list[float]:
        """Return the L2 penalty of each layer's weights: under "concrete" noise ``l2 / drawn_keep``."""
        return [
            l2 / drawn_keep(1 - rate) if kind == "concrete" else l2
            for rate, kind in zip(self.rates, self.each_kind, strict=True)
        ]

    def scales(self, training: bool) -> list[float]:
        """Return the factor on each layer's input."""
        keeps = [
            1.0 if kind in _NOISE else drawn_keep(1 - rate)
            for rate, kind in zip(self.rates, self.each_kind, strict=True)
        ]
        if training:
            return [1 / keep if self.scaling == "train" else 1.0 for keep in keeps]
        return [keep if self.scaling == "test" else 1.0 for keep in keeps]


@dataclass
class LearnedRates:
    """Rates of the layers with "concrete" noise, by the number of the layer: their logits and Adam.

    Parameters
    ----------
    logits : dict of int to float
        log(rate / (1 - rate)). Adam has learning rate 0.01, betas 0.9 and 0.999, epsilon 1e-8.
    """

    logits: dict[int, float]
    slots: dict[int, list[Array]] = field(default_factory=dict)
    updates: int = 0

    def applied_to(self, spec: NetworkSpec) -> NetworkSpec:
        """Return the spec with these rates."""
        rates = spec.rates
        for layer, logit in self.logits.items():
            rates[layer] = float(_sigmoid(np.array(logit)))
        return replace(spec, input_dropout=rates[0], dropout=rates[1:])

    def update(self, slopes: dict[int, float]) -> None:
        """Make a step of Adam; logits stay within [-12, 12]."""
        self.updates += 1
        for layer in self.logits:
            logit = np.array([self.logits[layer]])
            slots = self.slots.setdefault(layer, [np.zeros(1), np.zeros(1)])
            hyper: dict[str, Any] = {
                "optimizer": "adam",
                "learning_rate": 0.01,
                "step": self.updates,
            }
            update(logit, np.array([slopes[layer]]), slots, **hyper)
            self.logits[layer] = min(max(float(logit[0]), -12.0), 12.0)


def initial_weights(
    sizes: Sequence[int], initializer: str = "he", seed: int = 0, dtype: DTypeLike = "float32"
) -> Params:
    """Draw the weights a net of these sizes starts from; its biases are 0.

    Row ``i`` of layer ``l`` holds ``random_normal(n_out, seed=seed, purpose=1, layer=l, block=i)``
    times a standard deviation: "he" sqrt(2 / fan_in), "glorot" sqrt(2 / (fan_in + fan_out)).
    All is computed in float64 and rounded to ``dtype`` once.

    Returns
    -------
    weights, biases : lists of arrays (sizes[l], sizes[l + 1]) and (sizes[l + 1],)

    References
    ----------
    He et al. 2015, section 2.2; Glorot and Bengio 2010, section 4.2.1.
    """
    choice("initializer", initializer, ("he", "glorot"))
    weights, biases = [], []
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        sd = math.sqrt(2 / (fan_in if initializer == "he" else fan_in + fan_out))
        rows = np.arange(fan_in, dtype=np.uint64)
        normals = _normals(fan_out, rows, seed, 0, WEIGHTS, layer)
        weights.append((normals * sd).astype(dtype))
        biases.append(np.zeros(fan_out, dtype))
    return weights, biases


def keyed_masks(
    spec: NetworkSpec, rows: int, step: int, *, seed: int | None = None, purpose: int = MASKS
) -> list[Array | None]:
    """Draw the masks, or noise, of one step (from 1): layer 0 is the input, None is no dropout.

    ``seed`` is the spec's where it is not given.
    """
    key = {"seed": spec.seed if seed is None else seed, "step": step, "purpose": purpose}

    def drawn(layer: int, kind: str, width: int, keep: float) -> Array | None:
        if drawn_keep(keep) == 1:
            return None
        if kind in _NOISE:
            return dropout_noise(rows, width, keep, kind=kind, dtype="float64", layer=layer, **key)
        if kind == "masksembles":
            fixed = {"seed": spec.seed, "purpose": SUBNETWORKS, "layer": layer}
            members: Array = bernoulli_mask(spec.members, width, keep, **fixed)
            turns: Array = np.arange(rows) + step if purpose == MASKS else np.full(rows, step)
            return np.asarray(members[turns % spec.members])
        mask = bernoulli_mask(rows, width, keep, layer=layer, **key)
        return np.repeat(mask[:1], rows, axis=0) if kind == "shared" else mask

    layers = zip(spec.each_kind, spec.sizes[:-1], spec.rates, strict=True)
    return [drawn(layer, kind, width, 1 - rate) for layer, (kind, width, rate) in enumerate(layers)]


def forward(
    params: Params, x: ArrayLike, spec: NetworkSpec, *, masks: Sequence[Array | None] | None = None
) -> list[Array]:
    """Run the net forward: for prediction, or with ``masks`` as in training.

    Parameters
    ----------
    params : (weights, biases)
        As from `initial_weights`.
    x : array (rows, sizes[0]), of the weights' dtype
    spec : NetworkSpec
    masks : list of packed masks, noise or None, one for each layer's input, optional
        As from `keyed_masks`. Without the list this is a prediction.

    Returns
    -------
    list of arrays (rows, sizes[l])
        The input, the hidden layers' activations before dropout, and last the net's linear
        outputs (logits).
    """
    scales = spec.scales(training=masks is not None)
    masks = [None] * len(scales) if masks is None else masks
    outputs = [np.asarray(x)]
    for layer, (weight, bias, mask, scale) in enumerate(zip(*params, masks, scales, strict=True)):
        last = layer == len(scales) - 1
        activation = "identity" if last else spec.activation
        x, mask = _noisy(outputs[-1], mask)
        outputs.append(masked_gemm(x, weight, bias, mask=mask, scale=scale, activation=activation))
    return outputs


def _noisy(x: Array, mask: Array | None) -> tuple[Array, Array | None]:
    """Return a layer's input times its noise, and no mask; or with a mask the two as they are."""
    if mask is None or mask.dtype == np.uint64:
        return x, mask
    return x * mask.astype(x.dtype), None


def uncertainty(
    params: Params,
    x: ArrayLike,
    spec: NetworkSpec,
    passes: int,
    *,
    seed: int | None = None,
    masks: Sequence[Array | None] | None = None,
) -> dict[str, Array]:
    """Predict under ``passes`` masks of dropout and return their mean and spread.

    Pass ``t`` from 0 is `forward` under ``keyed_masks(spec, rows, t, purpose=SAMPLES)``: scaled as
    in training. Everything after the outputs is computed in float64 and rounded once.

    Parameters
    ----------
    params, x, spec
        As in `forward`.
    passes : int
    seed : int, optional
        Of the masks; the spec's by default.
    masks : list of packed masks (passes, words) or None, one for each layer's input, optional
        Used instead: row ``t`` is the mask of all rows in pass ``t``.

    Returns
    -------
    dict of arrays
        ``mean`` (rows, outputs) of the probabilities, or for losses of numbers of the outputs (with
        "poisson" of their exponentials), and with it ``std`` (rows, outputs), the population's over
        the passes. Else, in nats,
        ``predictive_entropy`` H(mean), ``expected_entropy``, the mean of the passes' H, and
        ``mutual_information``, their difference: (rows,) for softmax, (rows, outputs) for sigmoid,
        where every output has its own entropy.

    References
    ----------
    Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016, section 4; Houlsby et al.,
    "Bayesian active learning for classification and preference learning", 2011, equation 2.
    """
    rows, dtype = len(np.asarray(x)), params[0][0].dtype
    outputs = []
    for t in range(passes):
        drawn = (
            keyed_masks(spec, rows, t, seed=seed, purpose=SAMPLES)
            if masks is None
            else [None if m is None else np.repeat(m[t : t + 1], rows, axis=0) for m in masks]
        )
        outputs.append(forward(params, x, spec, masks=drawn)[-1].astype(float))
    z = np.stack(outputs)
    if spec.loss not in ("softmax_cross_entropy", "sigmoid_cross_entropy"):
        z = np.exp(z) if spec.loss == "poisson" else z
        return {"mean": z.mean(axis=0).astype(dtype), "std": z.std(axis=0).astype(dtype)}
    if spec.loss == "softmax_cross_entropy":
        p = np.exp(z - z.max(axis=2, keepdims=True))
        p /= p.sum(axis=2, keepdims=True)
        predictive, each = (_p_log_p(q).sum(axis=-1) for q in (p.mean(axis=0), p))
    else:
        p = _sigmoid(z)
        predictive, each = (_p_log_p(q) + _p_log_p(1 - q) for q in (p.mean(axis=0), p))
    result = {"mean": p.mean(axis=0), "predictive_entropy": predictive}
    result["expected_entropy"] = each.mean(axis=0)
    result["mutual_information"] = np.maximum(predictive - result["expected_entropy"], 0)
    return {name: array.astype(dtype) for name, array in result.items()}


def _p_log_p(p: Array) -> Array:
    """Return ``-p log p``, 0 where ``p`` is."""
    return np.asarray(-p * np.log(np.where(p > 0, p, 1)))


def loss_and_gradients(
    params: Params,
    x: ArrayLike,
    y: ArrayLike,
    spec: NetworkSpec,
    *,
    masks: Sequence[Array | None],
    sample_weight: ArrayLike | None = None,
    consistency: float = 0.0,
) -> tuple[float, Params]:
    """Return the data loss of one batch under ``masks`` and its gradients by weights and biases.

    Parameters are those of `forward` and `train_step`; the L2 term is in neither result. With
    ``consistency``, rows 0 and 1, 2 and 3, ... are pairs, as `divergence` takes them.
    """
    outputs = forward(params, x, spec, masks=masks)
    loss, dout = _objective(outputs[-1], y, spec, sample_weight, consistency)
    scales = spec.scales(training=True)
    dweights: list[Array] = []
    dbiases: list[Array] = []
    for layer in reversed(range(len(scales))):
        dout, dweight, dbias = _layer_gradients(
            dout,
            outputs[layer],
            params[0][layer],
            masks[layer],
            scales[layer],
            spec.activation if layer > 0 else "identity",
        )
        dweights.insert(0, dweight)
        dbiases.insert(0, dbias)
    return loss, (dweights, dbiases)


def _objective(
    outputs: Array, y: ArrayLike, spec: NetworkSpec, weights: ArrayLike | None, consistency: float
) -> tuple[float, Array]:
    """Return the loss with the divergence of pairs of rows, and its gradient by the outputs."""
    loss, dout = LOSSES[spec.loss](outputs, y, weights, **spec.loss_settings)
    if consistency:
        term, by_outputs = divergence(outputs, weights, loss=spec.loss)
        loss, dout = loss + consistency * term, dout + consistency * by_outputs
    return loss, dout


def rate_gradients(
    params: Params,
    x: ArrayLike,
    y: ArrayLike,
    spec: NetworkSpec,
    *,
    masks: Sequence[Array | None],
    l2: float = 0.0,
    entropy: float = 0.0,
    sample_weight: ArrayLike | None = None,
    consistency: float = 0.0,
) -> dict[int, float]:
    """Return the gradients of the objective by the logits of the rates of "concrete" layers.

    The objective is the loss, plus for each layer whose input has K units and such noise with rate
    p, ``l2 / (2 (1 - p)) * sum(W**2) + entropy * K * (p log p + (1 - p) log(1 - p))``.

    Parameters are those of `train_step`; ``masks`` are noise drawn at the spec's rates.

    References
    ----------
    Gal, Hron and Kendall, "Concrete dropout", NeurIPS 2017, equations 3 to 5.
    """
    outputs = forward(params, x, spec, masks=masks)
    _, dout = _objective(outputs[-1], y, spec, sample_weight, consistency)
    scales, slopes = spec.scales(training=True), {}
    for layer in reversed(range(1, len(scales))):
        weight, activated, noise = params[0][layer], outputs[layer], masks[layer]
        if spec.each_kind[layer] == "concrete" and noise is not None:
            keep = drawn_keep(1 - spec.rates[layer])
            drop, logit = 1 - keep, math.log((1 - keep) / keep)
            slopes[layer] = drop * 0.5 * l2 / keep * float(np.sum(weight * weight))
            slopes[layer] += entropy * len(weight) * drop * keep * logit
            # d noise / d logit = noise (p - z / t), z = 1 - keep noise, t = 0.1
            by_noise = (dout @ weight.T) * activated * noise
            slopes[layer] += float(np.sum(by_noise * (drop - 10 * (1 - keep * noise))))
        activation, scale = spec.activation, scales[layer]
        dout, _, _ = _layer_gradients(dout, activated, weight, noise, scale, activation)
    return slopes


def _layer_gradients(
    dout: Array, x: Array, weight: Array, mask: Array | None, scale: float, activation: str
) -> tuple[Array, Array, Array]:
    """Return `masked_gradients`, also where ``mask`` is noise: then the product's input is noisy."""
    noisy, packed = _noisy(x, mask)
    if mask is None or packed is not None:
        return masked_gradients(dout, x, weight, mask=mask, scale=scale, activation=activation)
    dinput, _, _ = masked_gradients(dout, x, weight, activation=activation)
    _, dweight, dbias = masked_gradients(dout, noisy, weight)
    return dinput * mask.astype(x.dtype), dweight, dbias


@dataclass
class OptimizerState:
    """State of one optimizer: for weights and biases, per layer, the arrays of `update`."""

    optimizer: str
    weights: list[list[Array]]
    biases: list[list[Array]]
    updates: int = 0


def initial_state(params: Params, optimizer: str) -> OptimizerState:
    """Return the state of an optimizer that has made no update: zeros."""
    slots = OPTIMIZERS[choice("optimizer", optimizer, OPTIMIZERS)][1]
    weights, biases = ([[np.zeros_like(a) for _ in range(slots)] for a in part] for part in params)
    return OptimizerState(optimizer, weights, biases)


def train_step(
    params: Params,
    state: OptimizerState,
    x: ArrayLike,
    y: ArrayLike,
    spec: NetworkSpec,
    *,
    step: int,
    learning_rate: float = 1e-3,
    l2: float = 0.0,
    max_norm: float | None = None,
    sample_weight: ArrayLike | None = None,
    masks: Sequence[Array | None] | None = None,
    learned: LearnedRates | None = None,
    entropy: float = 0.0,
    mask_samples: int = 1,
    consistency: float = 0.0,
    **hyper: float,
) -> float:
    """Train on one batch, in place: draw masks, run forward, run the gradients, update, limit.

    Parameters
    ----------
    params : (weights, biases)
        Changed in place, all after the last gradient is known.
    state : OptimizerState
        Changed in place; its count of updates is Adam's ``t``.
    x : array (rows, sizes[0]), of the weights' dtype
    y : array
        Labels (rows,) for softmax_cross_entropy, else targets (rows, sizes[-1]).
    spec : NetworkSpec
    step : int
        From 1 over the life of the net: the key of the masks.
    learning_rate, l2, **hyper : float
        As in `update`. Biases are never regularized: neither l2 nor weight_decay touches them.
    max_norm : float, optional
        `limit_norms` of the updated weights of every layer but the last: of the hidden units.
    sample_weight : array (rows,), optional
    masks : list of packed masks, noise or None, optional
        Used instead of ``keyed_masks(spec, rows * mask_samples, step)``.
    mask_samples : int
        Every row is used that often, each time with the next mask.
    consistency : float
        Weight of the `divergence` of the two predictions of each row, where ``mask_samples`` is 2.
    learned : LearnedRates, optional
        Rates of the "concrete" layers, instead of the spec's; updated in place.
    entropy : float
        Weight of their entropies: see `rate_gradients`.

    Returns
    -------
    float
        The batch's loss plus ``0.5 * l2 * sum(W**2)`` over all weights, before the update. Where a
        layer's input has "concrete" noise, its ``l2`` is divided by ``drawn_keep``.

    Raises
    ------
    FloatingPointError
        If that is NaN or infinite; nothing has changed then. If a weight or bias is, after the update.

    References
    ----------
    Srivastava et al. 2014, section 5.1; Inoue 2019; Liang et al. 2021, section 2; Gal, Hron and
    Kendall, "Concrete dropout", 2017.
    """
    if max_norm is not None:
        max_norm = norm_limit("max_norm", max_norm)
    learned = LearnedRates({}) if learned is None else learned
    spec = learned.applied_to(spec)
    x, y = (np.repeat(np.asarray(rows), mask_samples, axis=0) for rows in (x, y))
    weights = None if sample_weight is None else np.repeat(np.asarray(sample_weight), mask_samples)
    if masks is None:
        masks = keyed_masks(spec, len(x), step)
    data: dict[str, Any] = {"masks": masks, "sample_weight": weights, "consistency": consistency}
    loss, gradients = loss_and_gradients(params, x, y, spec, **data)
    l2s = spec.l2_by_layer(l2)
    loss += sum(0.5 * own * float(np.sum(w * w)) for own, w in zip(l2s, params[0], strict=True))
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}: nothing was updated")
    slopes = rate_gradients(params, x, y, spec, l2=l2, entropy=entropy, **data)
    _update_all(params, gradients, state, l2s, {"learning_rate": learning_rate, **hyper})
    if max_norm is not None:
        for w in params[0][:-1]:
            limit_norms(w, max_norm)
    learned.update(slopes)
    if not all(np.isfinite(part).all() for part in (*params[0], *params[1])):
        raise FloatingPointError("the update left a weight or bias that is not finite")
    return loss


def _update_all(
    params: Params, gradients: Params, state: OptimizerState, l2s: list[float], rule: dict[str, Any]
) -> None:
    """Update all weights and biases, in place."""
    rule["step"] = state.updates + 1
    for w, g, slots, l2 in zip(params[0], gradients[0], state.weights, l2s, strict=True):
        update(w, g, slots, optimizer=state.optimizer, l2=l2, **rule)
    if state.optimizer == "adamw":
        rule["weight_decay"] = 0.0
    for b, g, slots in zip(params[1], gradients[1], state.biases, strict=True):
        update(b, g, slots, optimizer=state.optimizer, **rule)
    state.updates += 1


# ---- Batch order ---------------------------------------------------------------------------


def cut_batches(order: Array, batch_size: int) -> list[Array]:
    """Cut an order into consecutive batches; the last one may be shorter."""
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def fixed_batches(n: int, batch_size: int, seed: int = 0) -> list[Array]:
    """Return the row numbers of each batch of ``fit(iterations=...)``: one shuffle, then cut."""
    return cut_batches(_shuffle(n, seed=seed, step=0, purpose=ORDER), batch_size)


def drawn_batch(n_batches: int, seed: int, iteration: int) -> int:
    """Return which of the fixed batches iteration 1, 2, ... uses: drawn with replacement."""
    word = int(random_words(1, seed=seed, step=iteration, purpose=ORDER)[0])
    return (word >> 32) * n_batches >> 32


def epoch_order(n: int, seed: int, epoch: int) -> Array:
    """Return the order of the rows in epoch 1, 2, ... of ``fit(epochs=...)``, for `cut_batches`."""
    return _shuffle(n, seed=seed, step=epoch, purpose=ORDER, layer=1)


def _shuffle(n: int, **key: int) -> Array:
    return np.argsort(random_words(n, **key), kind="stable")
