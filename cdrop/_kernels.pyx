# cython: language_level=3, boundscheck=False, initializedcheck=False, cdivision=True
# cython: embedsignature=True, embedsignature.format=python
"""Typed memoryviews onto the C kernels: check every argument, release the GIL, call. No arithmetic happens here."""
import os
import threading

import numpy as np

from libc.stdint cimport int64_t, uint32_t, uint64_t

ctypedef fused real:
    float
    double

_ACTIVATIONS = {
    "identity": CDROP_IDENTITY,
    "relu": CDROP_RELU,
    "leaky_relu": CDROP_LEAKY_RELU,
    "tanh": CDROP_TANH,
    "sigmoid": CDROP_SIGMOID,
}
_LOSSES = {
    "softmax_cross_entropy": CDROP_SOFTMAX_CROSS_ENTROPY,
    "sigmoid_cross_entropy": CDROP_SIGMOID_CROSS_ENTROPY,
    "squared_error": CDROP_SQUARED_ERROR,
}
_RULES = {
    "sgd": CDROP_SGD,
    "momentum": CDROP_MOMENTUM,
    "nesterov": CDROP_NESTEROV,
    "adagrad": CDROP_ADAGRAD,
    "rmsprop": CDROP_RMSPROP,
    "adam": CDROP_ADAM,
    "adamw": CDROP_ADAM,
}
_TIMES = ("masks", "lists", "products", "loss", "update", "waiting")  # in the order of cdrop_time
_ANSWERS = {
    "outputs": CDROP_OUTPUTS,
    "probabilities": CDROP_PROBABILITIES,
    "labels": CDROP_LABELS,
}
ACTIVATIONS = tuple(_ACTIVATIONS)
LOSSES = tuple(_LOSSES)
OPTIMIZERS = tuple(_RULES)
MAX_THREADS = CDROP_MAX_THREADS
_KEEP_UNITS = 2**32
_LARGEST = float(np.finfo(np.float64).max)


# ---- Checks --------------------------------------------------------------------------------------------------------


def _choice(name, value, table):
    if not isinstance(value, str) or value not in table:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, table))}")
    return table[value]


def _whole(name, value, low, high):
    """An int in [low, high); numpy integers are fine, bools and floats are not."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; expected an integer")
    try:
        value = value.__index__()
    except TypeError:  # an array that is no scalar
        raise TypeError(f"{name} is {value!r}; expected an integer") from None
    if not low <= value < high:
        limit = f"2**{high.bit_length() - 1}" if high & (high - 1) == 0 else str(high)
        raise ValueError(f"{name} is {value}; expected an integer from {low} to below {limit}")
    return value


def _number(name, value, low, high):
    no_number = (bool, np.bool_, str, bytes, complex, np.complexfloating)
    if isinstance(value, no_number) or not hasattr(value, "__float__") or np.ndim(value):
        raise TypeError(f"{name} is {value!r}; expected a number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large; expected a number from {low} to {high}") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; expected a number") from None
    if not low <= number <= high:
        raise ValueError(f"{name} is {value!r}; expected a number from {low} to {high}")
    return number


def _array(name, value):
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} is no array: {error}") from None


def _real_array(name, value, ndim, dtype=None):
    """`value` as an aligned, C-contiguous, native float32 or float64 array, copied only when it must be."""
    array = _array(name, value)
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise TypeError(f"{name} has dtype {array.dtype}; expected float32 or float64")
    native = np.dtype(f"f{array.dtype.itemsize}")
    if dtype is not None and native != dtype:
        raise TypeError(f"{name} has dtype {array.dtype}; expected {dtype}, like the other arrays")
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; expected {ndim} dimension{'s' if ndim > 1 else ''}")
    return _plain(array, native)


def _plain(array, dtype):
    """The array itself if it is aligned, C-contiguous and of that dtype in native byte order, or a copy that is."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype == dtype:
        return array if type(array) is np.ndarray else array.view(np.ndarray)
    return np.require(array, dtype, ["C", "A"])


def _shape(name, array, expected, meaning):
    if array.shape != expected:
        raise ValueError(f"{name} has shape {array.shape}; expected {expected} ({meaning})")


def _mask_array(mask, rows, width):
    if mask is None:
        return None
    array = _array("mask", mask)
    if array.dtype != np.uint64:
        raise TypeError(f"mask has dtype {array.dtype}; expected uint64 words as bernoulli_mask and pack_mask give")
    _shape("mask", array, (rows, cdrop_words(width)), "rows, ceil(units / 64) words")
    return _plain(array, np.uint64)


def _labels_array(labels, rows, classes):
    array = _array("labels", labels)
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels has dtype {array.dtype}; expected integers")
    _shape("labels", array, (rows,), "one label a row")
    if rows and not (0 <= array.min() and array.max() < classes):
        raise ValueError(f"labels runs from {array.min()} to {array.max()}; expected 0 to {classes - 1}")
    return np.require(array, np.int64, ["C", "A"])


def _row_weights(sample_weight, rows):
    if sample_weight is None:
        return None
    array = _array("sample_weight", sample_weight)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"sample_weight has dtype {array.dtype}; expected numbers")
    array = np.require(array, np.float64, ["C", "A"])
    _shape("sample_weight", array, (rows,), "one weight a row")
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError("sample_weight has negative, infinite or NaN entries; expected finite weights of at least 0")
    with np.errstate(over="ignore"):
        total = array.sum()
    if not np.finfo(np.float64).tiny <= total < np.inf:
        raise ValueError(f"sample_weight sums to {total}; expected a positive, finite sum")
    return array


def _threads(threads):
    return 0 if threads is None else _whole("threads", threads, 1, CDROP_MAX_THREADS + 1)


cdef int _raise_on(cdrop_status status) except -1:
    """The one place where a status becomes an exception."""
    if status == CDROP_NO_MEMORY:
        raise MemoryError("cdrop could not get the memory for this call")
    if status == CDROP_UNSUPPORTED:
        raise RuntimeError("this CPU does not support the SIMD path asked for")
    return 0


cdef cdrop_dtype _dtype_of(array) except *:
    return CDROP_FLOAT32 if array.dtype.itemsize == 4 else CDROP_FLOAT64


cdef const void *_matrix(const real[:, ::1] a) noexcept:
    return &a[0, 0]


cdef const void *_vector(const real[::1] a) noexcept:
    return &a[0]


# A fused type is chosen by a typed memoryview, which checks dtype, order and dimensions once more.
cdef const void *_address(array) except? NULL:
    cdef const float[:, ::1] m32
    cdef const double[:, ::1] m64
    cdef const float[::1] v32
    cdef const double[::1] v64
    if array is None or array.size == 0:
        return NULL
    if array.dtype.itemsize == 4:
        if array.ndim == 2:
            m32 = array
            return _matrix[float](m32)
        v32 = array
        return _vector[float](v32)
    if array.ndim == 2:
        m64 = array
        return _matrix[double](m64)
    v64 = array
    return _vector[double](v64)


cdef const uint64_t *_mask_address(array) except? NULL:
    cdef const uint64_t[:, ::1] words
    if array is None or array.size == 0:
        return NULL
    words = array
    return &words[0, 0]


cdef const int64_t *_integers(array) except? NULL:
    cdef const int64_t[::1] view
    if array is None or array.size == 0:
        return NULL
    view = array
    return &view[0]


cdef const uint32_t *_columns(array) except? NULL:
    cdef const uint32_t[::1] view
    if array is None or array.size == 0:
        return NULL
    view = array
    return &view[0]


def _all_finite(array):
    """Whether none of a native, C-contiguous array's numbers, float32 or float64, is NaN or infinite."""
    flat = array.reshape(-1)
    cdef const void *address = _address(flat)
    cdef cdrop_dtype dtype = _dtype_of(flat)
    cdef size_t n = flat.size
    cdef bint finite
    with nogil:
        finite = cdrop_all_finite(dtype, address, n)
    return finite


# ---- SIMD and threads ----------------------------------------------------------------------------------------------


def simd():
    """Name of the SIMD path in use: ``"scalar"``, ``"avx2"``, ``"avx512"`` or ``"neon"``."""
    return cdrop_simd_active().decode()


def simd_paths(*, built=False):
    """Names of the SIMD paths that this CPU can run, the best one last.

    Parameters
    ----------
    built : bool, default False
        List instead all paths compiled into the library for this architecture.

    Returns
    -------
    list of str
    """
    cdef const char *name
    names = []
    while True:
        name = cdrop_simd_built(len(names)) if built else cdrop_simd_usable(len(names))
        if name == NULL:
            return names
        names.append(name.decode())


def _select_simd(name):
    if name is None:
        cdrop_select_simd(NULL)
        return
    encoded = name.encode()
    if cdrop_select_simd(encoded) != CDROP_OK:
        raise ImportError(f"CDROP_SIMD is {name!r}; expected one of {', '.join(simd_paths())} on this machine")


def get_num_threads():
    """Threads that calls use when they are not told a number.

    At import: ``CDROP_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the CPUs this process may use (affinity and
    cgroup).

    Returns
    -------
    int
    """
    return cdrop_get_num_threads()


def set_num_threads(threads):
    """Set the number that `get_num_threads` returns. Results do not depend on it, only speed.

    Parameters
    ----------
    threads : int
        1 to 256.
    """
    cdrop_set_num_threads(_whole("threads", threads, 1, CDROP_MAX_THREADS + 1))


def _set_cpus(cpus):
    cdrop_set_cpus(cpus)


# ---- Generator -----------------------------------------------------------------------------------------------------


def _keep_units(keep, name="keep"):
    """`keep` in units of 2**-32, as the kernels take it."""
    return int(round(_number(name, keep, 0, 1) * _KEEP_UNITS))


def drawn_keep(keep):
    """The probability that masks are really drawn with: `keep` rounded to a multiple of 2**-32.

    Scaling by its reciprocal makes the expectation of a dropped-out unit exact.

    Parameters
    ----------
    keep : float
        Probability of keeping a unit, 0 to 1.

    Returns
    -------
    float
    """
    return _keep_units(keep) / _KEEP_UNITS


def bernoulli_mask(rows, width, keep, *, seed=0, step=0, layer=0, first_row=0, purpose=0):
    """Packed Bernoulli masks, a function of (seed, step, purpose, layer, row, unit), `keep` and `width` alone.

    Parameters
    ----------
    rows, width : int
        Rows of the mask, units of a row.
    keep : float
        Probability of *keeping* a unit, 0 to 1, used to the nearest multiple of 2**-32 (see `drawn_keep`).
    seed, step : int, default 0
        0 to 2**64 - 1.
    layer : int, default 0
        0 to 2**32 - 1.
    first_row : int, default 0
        A multiple of 64: the call returns rows ``first_row`` to ``first_row + rows - 1`` of the mask.
    purpose : int, default 0
        0 for training, 4 for predictions under dropout (step is then the pass, from 0), 5 for subnetworks (a row each).

    Returns
    -------
    ndarray of uint64, shape (rows, ceil(width / 64))
        Bit j of word w is unit 64 w + j; 1 = kept; padding bits are 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind or in the range above.

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
    cdef size_t n_rows = _whole("rows", rows, 0, 2**48)
    cdef size_t n_units = _whole("width", width, 0, 2**48)
    cdef size_t first = _whole("first_row", first_row, 0, 2**62)
    cdef uint64_t units = _keep_units(keep), key = _whole("seed", seed, 0, 2**64), at = _whole("step", step, 0, 2**64)
    cdef uint32_t of_layer = _whole("layer", layer, 0, 2**32), use = _whole("purpose", purpose, 0, 2**32)
    cdef uint64_t[:, ::1] view
    if first % 64:
        raise ValueError(f"first_row is {first_row}; expected a multiple of 64, where a generator block begins")
    mask = np.empty((n_rows, cdrop_words(n_units)), np.uint64)
    if mask.size:
        view = mask
        with nogil:
            cdrop_bernoulli_mask(&view[0, 0], first, n_rows, n_units, units, key, at, use, of_layer)
    return mask


def _stream_key(seed, step, purpose, layer, block):
    return (_whole("seed", seed, 0, 2**64), _whole("step", step, 0, 2**64), _whole("purpose", purpose, 0, 2**32),
            _whole("layer", layer, 0, 2**32), _whole("block", block, 0, 2**61))


def random_words(n, *, seed=0, step=0, purpose=3, layer=0, block=0):
    """The first `n` 64-bit words of a keyed stream.

    Parameters
    ----------
    n : int
    seed, step, layer, block : int, default 0
        The key; `block` is below 2**61, `layer` below 2**32.
    purpose : int, default 3
        0 masks, 1 initial weights, 2 batch order, 4 masks of predictions, 5 of subnetworks; others are free.

    Returns
    -------
    ndarray of uint64, shape (n,)
    """
    cdef uint64_t a, b, block_
    cdef uint32_t use, of_layer
    cdef uint64_t[::1] view
    a, b, use, of_layer, block_ = _stream_key(seed, step, purpose, layer, block)
    out = np.empty(_whole("n", n, 0, 2**48), np.uint64)
    if out.size:
        view = out
        with nogil:
            cdrop_random_words(&view[0], view.shape[0], a, b, use, of_layer, block_)
    return out


def _first_words(size_t n, uint64_t seed, uint64_t step, uint32_t purpose):
    """The first word of each of `n` streams, which differ in their step: `step`, `step` + 1, and so on."""
    cdef uint64_t[::1] view
    cdef size_t i
    out = np.empty(n, np.uint64)
    if n:
        view = out
        with nogil:
            for i in range(n):
                cdrop_random_words(&view[i], 1, seed, step + i, purpose, 0, 0)
    return out


def random_normal(n, *, seed=0, step=0, purpose=3, layer=0, block=0):
    """`n` standard normal numbers from a keyed stream, the same on every machine.

    Parameters are those of `random_words`.

    Returns
    -------
    ndarray of float64, shape (n,)

    References
    ----------
    Marsaglia and Bray, "A convenient method for generating normal variables" (1964): the polar method.
    """
    cdef uint64_t a, b, block_
    cdef uint32_t use, of_layer
    cdef double[::1] view
    a, b, use, of_layer, block_ = _stream_key(seed, step, purpose, layer, block)
    out = np.empty(_whole("n", n, 0, 2**48), np.float64)
    if out.size:
        view = out
        with nogil:
            cdrop_random_normal(&view[0], view.shape[0], a, b, use, of_layer, block_)
    return out


# ---- Masked products -----------------------------------------------------------------------------------------------


def masked_gemm(x, weight, bias=None, *, mask=None, scale=1.0, activation="identity", threads=None):
    """``activation((x * mask * scale) @ weight + bias)``, with no arithmetic for dropped or zero entries of `x`.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (rows, n_in)
    weight : ndarray of the same dtype, shape (n_in, n_out)
    bias : ndarray of the same dtype, shape (n_out,), optional
    mask : ndarray of uint64, shape (rows, ceil(n_in / 64)), optional
        Packed as by `bernoulli_mask`; all units are kept without it.
    scale : float, default 1.0
        What kept entries are multiplied by; 1 / keep in inverted dropout.
    activation : {"identity", "relu", "leaky_relu", "tanh", "sigmoid"}, default "identity"
        The leaky ReLU's slope below 0 is 0.01.
    threads : int, optional
        Default `get_num_threads`. The result does not depend on it.

    Returns
    -------
    ndarray of the same dtype, shape (rows, n_out)

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is not as above.

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
    x = _real_array("x", x, 2)
    cdef size_t rows = x.shape[0], n_in = x.shape[1], n_out
    weight = _real_array("weight", weight, 2, x.dtype)
    n_out = weight.shape[1]
    _shape("weight", weight, (n_in, n_out), "columns of x, outputs")
    if bias is not None:
        bias = _real_array("bias", bias, 1, x.dtype)
        _shape("bias", bias, (n_out,), "outputs")
    mask = _mask_array(mask, rows, n_in)
    cdef double factor = _number("scale", scale, -_LARGEST, _LARGEST)
    cdef int function = _choice("activation", activation, _ACTIVATIONS), team = _threads(threads)
    out = np.empty((rows, n_out), x.dtype)
    cdef const void *px = _address(x)
    cdef const void *pw = _address(weight)
    cdef const void *pb = _address(bias)
    cdef void *po = <void *>_address(out)
    cdef const uint64_t *pm = _mask_address(mask)
    cdef cdrop_dtype dtype = _dtype_of(x)
    cdef cdrop_status status = CDROP_OK
    if out.size:
        with nogil:
            status = cdrop_masked_gemm(dtype, po, px, pw, pb, pm, rows, n_in, n_out, factor,
                                       <cdrop_activation>function, team)
    _raise_on(status)
    return out


def masked_gradients(dout, x, weight, *, mask=None, scale=1.0, activation="identity", threads=None):
    """Gradients of `masked_gemm` (with identity activation) by its input, weight and bias.

    Parameters
    ----------
    dout : ndarray of float32 or float64, shape (rows, n_out)
        Gradient by the output, before the output's own activation.
    x : ndarray of the same dtype, shape (rows, n_in)
        What the layer below gave: the output of `activation`, before the mask.
    weight : ndarray of the same dtype, shape (n_in, n_out)
    mask : ndarray of uint64, shape (rows, ceil(n_in / 64)), optional
    scale : float, default 1.0
    activation : str, default "identity"
        The activation that made `x`; its derivative is told from `x`.
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
        If a dtype, shape or value is not as above.

    References
    ----------
    Srivastava et al., "Dropout", JMLR 15 (2014), section 5.1.
    """
    dout = _real_array("dout", dout, 2)
    cdef size_t rows = dout.shape[0], n_out = dout.shape[1], n_in
    x = _real_array("x", x, 2, dout.dtype)
    n_in = x.shape[1]
    _shape("x", x, (rows, n_in), "rows of dout, inputs")
    weight = _real_array("weight", weight, 2, dout.dtype)
    _shape("weight", weight, (n_in, n_out), "columns of x, columns of dout")
    mask = _mask_array(mask, rows, n_in)
    cdef double factor = _number("scale", scale, -_LARGEST, _LARGEST)
    cdef int function = _choice("activation", activation, _ACTIVATIONS), team = _threads(threads)
    dinput = np.empty_like(x)
    dweight = np.empty_like(weight)
    dbias = np.empty(n_out, x.dtype)
    cdef const void *pg = _address(dout)
    cdef const void *px = _address(x)
    cdef const void *pw = _address(weight)
    cdef void *pi = <void *>_address(dinput)
    cdef void *pdw = <void *>_address(dweight)
    cdef void *pb = <void *>_address(dbias)
    cdef const uint64_t *pm = _mask_address(mask)
    cdef cdrop_dtype dtype = _dtype_of(x)
    cdef cdrop_status status
    with nogil:
        status = cdrop_masked_gradients(dtype, pi, pdw, pb, pg, px, pw, pm, rows, n_in, n_out, factor,
                                        <cdrop_activation>function, team)
    _raise_on(status)
    return dinput, dweight, dbias


# ---- Losses --------------------------------------------------------------------------------------------------------


def _loss(kind, outputs, labels, targets, sample_weight):
    cdef cdrop_loss loss = kind
    cdef size_t rows = outputs.shape[0], n = outputs.shape[1]
    cdef cdrop_dtype dtype = _dtype_of(outputs)
    cdef const void *po
    cdef const void *pt
    cdef const void *pw
    cdef const int64_t *pl
    cdef void *pd
    cdef double value
    if not outputs.size:
        raise ValueError(f"the outputs have shape {outputs.shape}; expected at least one row and one column")
    weights = _row_weights(sample_weight, rows)
    gradient = np.empty_like(outputs)
    po, pt, pw, pl = _address(outputs), _address(targets), _address(weights), _integers(labels)
    pd = <void *>_address(gradient)
    with nogil:
        value = cdrop_loss_and_gradient(dtype, loss, pd, po, pl, pt, <const double *>pw, rows, n)
    return value, gradient


def softmax_cross_entropy(logits, labels, sample_weight=None):
    """Weighted mean of the rows' cross-entropies between softmax(logits) and labels, and its gradient.

    Finite for logits of any size.

    Parameters
    ----------
    logits : ndarray of float32 or float64, shape (rows, classes)
    labels : ndarray of integers, shape (rows,)
        0 to classes - 1.
    sample_weight : array_like, shape (rows,), optional
        At least 0, not all 0; the mean divides by their sum.

    Returns
    -------
    loss : float
    dlogits : ndarray, shape (rows, classes)

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is not as above.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop.kernels import softmax_cross_entropy
    >>> loss, gradient = softmax_cross_entropy(np.array([[0.0, 0.0]]), np.array([1]))
    >>> round(loss, 6), gradient.tolist()
    (0.693147, [[0.5, -0.5]])
    """
    logits = _real_array("logits", logits, 2)
    labels = _labels_array(labels, logits.shape[0], logits.shape[1])
    return _loss(CDROP_SOFTMAX_CROSS_ENTROPY, logits, labels, None, sample_weight)


def _targets_array(targets, outputs, unit_interval):
    targets = _real_array("targets", targets, 2, outputs.dtype)
    _shape("targets", targets, outputs.shape, "like the outputs")
    if unit_interval and targets.size and not ((targets >= 0) & (targets <= 1)).all():
        raise ValueError("targets has entries outside [0, 1]; expected the probability of each label")
    return targets


def sigmoid_cross_entropy(logits, targets, sample_weight=None):
    """Weighted mean over rows of the summed binary cross-entropies between sigmoid(logits) and targets (multilabel).

    Parameters
    ----------
    logits : ndarray of float32 or float64, shape (rows, labels)
    targets : ndarray of the same dtype and shape
        0 to 1.
    sample_weight : array_like, shape (rows,), optional

    Returns
    -------
    loss : float
    dlogits : ndarray, shape (rows, labels)

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or value is not as above.
    """
    logits = _real_array("logits", logits, 2)
    targets = _targets_array(targets, logits, True)
    return _loss(CDROP_SIGMOID_CROSS_ENTROPY, logits, None, targets, sample_weight)


def squared_error(outputs, targets, sample_weight=None):
    """Weighted mean over rows of half the summed squares of ``outputs - targets``, and its gradient.

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
        If a dtype, shape or value is not as above.
    """
    outputs = _real_array("outputs", outputs, 2)
    targets = _targets_array(targets, outputs, False)
    return _loss(CDROP_SQUARED_ERROR, outputs, None, targets, sample_weight)


# ---- Update rules --------------------------------------------------------------------------------------------------


cdef cdrop_optimizer _optimizer(constants) except *:
    """From the tuple that `cdrop.optimizers` makes: (name, rate, l2, weight_decay, a, b, epsilon, corr1, corr2)."""
    cdef cdrop_optimizer o
    name, o.learning_rate, o.l2, o.weight_decay, o.a, o.b, o.epsilon, o.correction1, o.correction2 = constants
    cdef int rule = _RULES[name]
    o.rule = <cdrop_rule>rule
    o.max_norm = 0
    return o


def _rule_states(name):
    cdef int rule = _RULES[name]
    return cdrop_rule_states(<cdrop_rule>rule)


cdef void *_in_place(name, array, like) except NULL:
    """Address of an array that is written to: nothing may be copied."""
    real = isinstance(array, np.ndarray) and array.dtype in (np.float32, np.float64)
    if not real or array.dtype != like.dtype or not array.dtype.isnative:
        raise TypeError(f"{name} must be a native ndarray of float32 or float64, with the dtype of weight")
    if array.shape != like.shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {like.shape}, like weight")
    if not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned):
        raise ValueError(f"{name} is updated in place; expected a C-contiguous, writeable array")
    cdef size_t address = array.ctypes.data
    return <void *>address


def _update(weight, gradient, state, constants):
    if not isinstance(weight, np.ndarray):
        raise TypeError(f"weight is a {type(weight).__name__}; expected an ndarray, which is updated in place")
    if not isinstance(state, (list, tuple)):
        raise TypeError(f"state is a {type(state).__name__}; expected a list of arrays")
    cdef void *pw = _in_place("weight", weight, weight)
    gradient = _array("gradient", gradient)
    flat = _real_array("gradient", gradient, gradient.ndim, weight.dtype)
    _shape("gradient", flat, weight.shape, "like weight")
    if len(state) != _rule_states(constants[0]):
        raise ValueError(f"state has {len(state)} arrays; expected {_rule_states(constants[0])} for {constants[0]}")
    cdef cdrop_optimizer o = _optimizer(constants)
    cdef void *p1 = _in_place("state[0]", state[0], weight) if len(state) > 0 else NULL
    cdef void *p2 = _in_place("state[1]", state[1], weight) if len(state) > 1 else NULL
    for i, array in enumerate(state):
        for other in (weight, flat, *state[:i]):
            if np.may_share_memory(array, other):
                raise ValueError(f"state[{i}] shares memory with another array; expected arrays apart")
    if np.may_share_memory(flat, weight):
        raise ValueError("gradient shares memory with weight; expected arrays apart")
    flat = flat.reshape(-1)
    cdef const void *pg = _address(flat)
    cdef size_t n = flat.size
    cdef cdrop_dtype dtype = _dtype_of(weight)
    with nogil:
        cdrop_update_weights(dtype, pw, pg, p1, p2, n, &o)


def _limit_norms(weight, double max_norm):
    if not isinstance(weight, np.ndarray):
        raise TypeError(f"weight is a {type(weight).__name__}; expected an ndarray, which is changed in place")
    if weight.ndim != 2:
        raise ValueError(f"weight has shape {weight.shape}; expected (inputs, units)")
    cdef void *pw = _in_place("weight", weight, weight)
    cdef cdrop_dtype dtype = _dtype_of(weight)
    cdef size_t n_in = weight.shape[0], n_out = weight.shape[1]
    cdef cdrop_status status
    with nogil:
        status = cdrop_limit_norms(dtype, pw, n_in, n_out, max_norm)
    _raise_on(status)


# ---- Networks ------------------------------------------------------------------------------------------------------


cdef class Turn:
    """A lock that can tell when a fork has left its holder behind: in the child nobody would ever release it."""
    cdef object lock
    cdef object process  # of the last holder

    def __cinit__(self):
        self.lock, self.process = threading.Lock(), os.getpid()

    def __enter__(self):
        if not self.lock.acquire(False):
            if self.process != os.getpid():
                raise RuntimeError("another thread was at work on this network when the process forked, so in this "
                                   "child its weights may be half updated; expected a fork between its calls")
            self.lock.acquire()
        self.process = os.getpid()  # no fork comes before this: the GIL is kept, or it was this process already

    def __exit__(self, *error):
        self.lock.release()


cdef class KeptBatches:
    """The lists of minibatches that come again; made by `Engine.keep_batches`, for that engine's steps."""
    cdef cdrop_kept *kept

    def __dealloc__(self):
        cdrop_kept_free(self.kept)


cdef class Rows:
    """Checked arrays of a call, as C sees them: kept alive here, their addresses taken once.

    `x` is a matrix, or has the `data`, `indices` and `indptr` of a sparse one.
    """

    cdef cdrop_batch batch
    cdef readonly object x, labels, targets, weights

    def __cinit__(self, x, labels=None, targets=None, weights=None):
        dense = isinstance(x, np.ndarray)
        self.x, self.labels, self.targets, self.weights = x, labels, targets, weights
        self.batch.x = _address(x if dense else x.data)
        if not dense:  # pointers are NULL at first
            self.batch.indptr = _integers(x.indptr)
            self.batch.indices = _columns(x.indices)
        self.batch.n = len(x)
        self.batch.labels = _integers(labels)
        self.batch.targets = _address(targets)
        self.batch.weights = <const double *>_address(weights)


cdef class Engine:
    """A network's weights, optimiser state and memory, in C. `cdrop.Network` is its public face, and has checked all.

    One lock an engine: threads that share a network take turns.
    """

    cdef cdrop_network *network
    cdef Turn lock
    cdef readonly object dtype
    cdef readonly list shapes
    cdef cdrop_loss loss

    def __cinit__(self, units, keep, dtype, activation, loss, scale_in_training, seed):
        cdef cdrop_design d
        cdef int function = _ACTIVATIONS[activation], kind = _LOSSES[loss]
        cdef size_t[::1] widths = np.asarray(units, np.uintp)
        cdef uint64_t[::1] kept = np.asarray(keep, np.uint64)
        self.lock = Turn()
        self.dtype = np.dtype(dtype)
        self.shapes = list(zip(units[:-1], units[1:]))
        self.loss = <cdrop_loss>kind
        d.dtype = CDROP_FLOAT32 if self.dtype.itemsize == 4 else CDROP_FLOAT64
        d.layers = len(units) - 1
        d.units = &widths[0]
        d.keep = &kept[0]
        d.scale_in_training = scale_in_training
        d.activation = <cdrop_activation>function
        d.loss = self.loss
        d.seed = seed
        _raise_on(cdrop_network_create(&self.network, &d))

    def __dealloc__(self):
        cdrop_network_free(self.network)

    def get(self, size_t layer, int part):
        """(weight, bias) of a layer, or for part 1 and 2 the optimiser's states of them: new arrays."""
        weight = np.empty(self.shapes[layer], self.dtype)
        bias = np.empty(weight.shape[1], self.dtype)
        with self.lock:
            cdrop_network_get(self.network, layer, <cdrop_part>part, <void *>_address(weight), <void *>_address(bias))
        return weight, bias

    def set(self, size_t layer, int part, weight, bias):
        """Copies weight and bias (or their states), which have the layer's shape and the engine's dtype."""
        weight = np.require(weight, self.dtype, ["C", "A"])
        bias = np.require(bias, self.dtype, ["C", "A"])
        with self.lock:
            cdrop_network_set(self.network, layer, <cdrop_part>part, _address(weight), _address(bias))

    def set_background(self, background):
        """What the input mostly is, feature by feature: shape (units[0],), zeros for nothing. See cdrop.h."""
        background = np.require(background, self.dtype, ["C", "A"])
        with self.lock:
            cdrop_network_set_background(self.network, _address(background))

    def reserve(self, size_t rows, int threads):
        """Takes the memory of steps on up to `rows` rows: MemoryError, or no later step of that size lacks any."""
        cdef cdrop_status status
        with self.lock, nogil:
            status = cdrop_network_reserve(self.network, rows, threads)
        _raise_on(status)

    def keep_batches(self, Rows data not None, order, size_t size, int threads):
        """The lists of minibatches order[i * size:(i + 1) * size] of the data, for steps to come; see cdrop.h."""
        cdef KeptBatches kept = KeptBatches()
        cdef cdrop_batch batch = data.batch
        cdef cdrop_status status
        batch.rows = _integers(order)
        batch.n = order.shape[0]
        with self.lock, nogil:
            status = cdrop_keep_batches(&kept.kept, self.network, &batch, size, threads)
        _raise_on(status)
        return kept

    def step(self, Rows data not None, rows, constants, double max_norm, uint64_t step, int threads,
             KeptBatches kept=None, size_t number=0):
        """One training step on `rows` of the data (or all of them); the loss, or FloatingPointError.

        Its arguments are the loss, which if not finite has changed nothing; the layer where numbers first were not
        finite, or the number of layers; and whether it is in the weights there. `max_norm` 0 is no limit. With `kept`,
        these rows are its minibatch `number`."""
        cdef cdrop_batch batch = data.batch
        cdef cdrop_optimizer o = _optimizer(constants)
        cdef cdrop_status status
        cdef double loss
        cdef size_t layer = 0
        cdef int in_weights = 0
        o.max_norm = max_norm
        if rows is not None:
            batch.rows = _integers(rows)
            batch.n = rows.shape[0]
        if kept is not None:
            batch.kept = kept.kept
            batch.number = number
        with self.lock, nogil:
            status = cdrop_network_step(self.network, &batch, &o, step, threads, &loss)
            if status == CDROP_NOT_FINITE or status == CDROP_DIVERGED:
                layer = cdrop_network_fault(self.network, batch.n if status == CDROP_NOT_FINITE else 0, &in_weights)
        if status == CDROP_NOT_FINITE or status == CDROP_DIVERGED:
            raise FloatingPointError(loss, layer, bool(in_weights))
        _raise_on(status)
        return loss

    def times(self, bint on):
        """Where the threads' time went since the last call, in seconds by part; whether to measure from now on."""
        cdef double seconds[<int>CDROP_TIMES]
        with self.lock:
            _raise_on(cdrop_network_times(self.network, on, seconds))
        return dict(zip(_TIMES, seconds))

    def predict(self, Rows data not None, answer, int threads):
        """Answers without dropout for all rows of the data: "outputs", "probabilities" or "labels", as in cdrop.h."""
        cdef int kind = _ANSWERS[answer]
        labels = kind == CDROP_LABELS and self.loss != CDROP_SQUARED_ERROR
        one_each = labels and self.loss == CDROP_SOFTMAX_CROSS_ENTROPY
        rows, units = data.batch.n, self.shapes[-1][1]
        out = np.empty(rows if one_each else (rows, units), np.int64 if labels else self.dtype)
        cdef void *po
        if labels:
            po = <void *>_integers(out.reshape(-1))
        else:
            po = <void *>_address(out)
        cdef cdrop_status status
        with self.lock, nogil:
            status = cdrop_network_predict(self.network, po, &data.batch, <cdrop_answer>kind, threads)
        _raise_on(status)
        return out

    def sample(self, Rows data not None, dict out, size_t passes, uint64_t seed, size_t first_row, masks, int threads):
        """Fills arrays with what passes under dropout tell together; see cdrop_uncertainty in cdrop.h.

        `masks` are given (one a layer, or None where nothing is dropped), or None: they are drawn."""
        cdef cdrop_uncertainty results
        cdef cdrop_sampling how
        cdef size_t[::1] addresses
        cdef cdrop_status status
        results.mean = <void *>_address(out.get("mean"))
        results.deviation = <void *>_address(out.get("std"))
        results.predictive_entropy = <void *>_address(out.get("predictive_entropy"))
        results.expected_entropy = <void *>_address(out.get("expected_entropy"))
        results.mutual_information = <void *>_address(out.get("mutual_information"))
        how.passes, how.seed, how.first_row, how.masks = passes, seed, first_row, NULL
        if masks is not None:
            addresses = np.array([<size_t>_mask_address(mask) for mask in masks], np.uintp)
            how.masks = <const uint64_t *const *>&addresses[0]
        with self.lock, nogil:
            status = cdrop_network_sample(self.network, &results, &data.batch, &how, threads)
        _raise_on(status)


_select_simd(os.environ.get("CDROP_SIMD") or None)
