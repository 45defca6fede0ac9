# cython: language_level=3, boundscheck=False, initializedcheck=False, cdivision=True
# cython: embedsignature=True, embedsignature.format=python
"""Typed memoryviews onto the C kernels: take addresses, release the GIL, call, raise on a status; no arithmetic.

Arguments have been checked, by `cdrop.kernels` or `cdrop.Network`: arrays are aligned, C-contiguous and native, and
their shapes fit together. What a memoryview sees by itself (dtype, dimensions, order) is checked once more; shapes are
not.
"""
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
_ANSWERS = {
    "outputs": CDROP_OUTPUTS,
    "probabilities": CDROP_PROBABILITIES,
    "labels": CDROP_LABELS,
}
ACTIVATIONS = tuple(_ACTIVATIONS)
LOSSES = tuple(_LOSSES)
OPTIMIZERS = tuple(_RULES)
MAX_THREADS = CDROP_MAX_THREADS


# ---- Addresses -----------------------------------------------------------------------------------------------------


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


def all_finite(array):
    """Return whether all numbers of a native, C-contiguous array of float32 or float64 are finite."""
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
    """Return the name of the SIMD path in use."""
    return cdrop_simd_active().decode()


def simd_paths(bint built=False):
    """Return the names of the SIMD paths that this CPU can run, or that are built; the best one last."""
    cdef const char *name
    names = []
    while True:
        name = cdrop_simd_built(len(names)) if built else cdrop_simd_usable(len(names))
        if name == NULL:
            return names
        names.append(name.decode())


def simd_parameters(dtype):
    """Return what the path in use was built or chosen with, by name; see kernels.h."""
    cdef cdrop_dtype kind = _dtype_of(np.empty(0, dtype))
    cdef const char *name
    cdef double value
    found = {}
    while True:
        name = cdrop_simd_parameter(kind, len(found), &value)
        if name == NULL:
            return found
        found[name.decode()] = value


def _select_simd(name):
    if name is None:
        cdrop_select_simd(NULL)
        return
    encoded = name.encode()
    if cdrop_select_simd(encoded) != CDROP_OK:
        raise ImportError(f"CDROP_SIMD is {name!r}; expected one of {', '.join(simd_paths())} on this machine")


def get_num_threads():
    """Return the number of threads that calls use by default."""
    return cdrop_get_num_threads()


def set_num_threads(int threads):
    """Set the number that `get_num_threads` returns."""
    cdrop_set_num_threads(threads)


def _set_cpus(cpus):
    cdrop_set_cpus(cpus)


# ---- Generator -----------------------------------------------------------------------------------------------------


def bernoulli_mask(size_t rows, size_t width, uint64_t keep, uint64_t seed, uint64_t step, uint32_t layer, size_t first,
                   uint32_t purpose):
    """Draw packed masks; `keep` is in units of 2**-32, `first` a multiple of 64."""
    cdef uint64_t[:, ::1] view
    mask = np.empty((rows, cdrop_words(width)), np.uint64)
    if mask.size:
        view = mask
        with nogil:
            cdrop_bernoulli_mask(&view[0, 0], first, rows, width, keep, seed, step, purpose, layer)
    return mask


def random_words(size_t n, uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer, uint64_t block):
    """Return the first `n` words of a keyed stream."""
    cdef uint64_t[::1] view
    out = np.empty(n, np.uint64)
    if n:
        view = out
        with nogil:
            cdrop_random_words(&view[0], n, seed, step, purpose, layer, block)
    return out


def first_words(size_t n, uint64_t seed, uint64_t step, uint32_t purpose):
    """Return the first word of each of `n` streams, of step `step`, `step` + 1, and so on."""
    cdef uint64_t[::1] view
    cdef size_t i
    out = np.empty(n, np.uint64)
    if n:
        view = out
        with nogil:
            for i in range(n):
                cdrop_random_words(&view[i], 1, seed, step + i, purpose, 0, 0)
    return out


def random_normal(size_t n, uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer, uint64_t block):
    """Return `n` standard normal numbers from a keyed stream."""
    cdef double[::1] view
    out = np.empty(n, np.float64)
    if n:
        view = out
        with nogil:
            cdrop_random_normal(&view[0], n, seed, step, purpose, layer, block)
    return out


def normal_rows(size_t rows, size_t n, uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer):
    """Return `n` standard normal numbers from each of `rows` streams, of block 0, 1, and so on."""
    cdef double[:, ::1] view
    cdef size_t i
    out = np.empty((rows, n), np.float64)
    if out.size:
        view = out
        with nogil:
            for i in range(rows):
                cdrop_random_normal(&view[i, 0], n, seed, step, purpose, layer, i)
    return out


# ---- Masked products -----------------------------------------------------------------------------------------------


def masked_gemm(x, weight, bias, mask, double scale, activation, int threads):
    """Compute ``activation((x * mask * scale) @ weight + bias)``; bias and mask may be None."""
    cdef size_t rows = x.shape[0], n_in = x.shape[1], n_out = weight.shape[1]
    cdef int function = _ACTIVATIONS[activation]
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
            status = cdrop_masked_gemm(dtype, po, px, pw, pb, pm, rows, n_in, n_out, scale,
                                       <cdrop_activation>function, threads)
    _raise_on(status)
    return out


def masked_gradients(dout, x, weight, mask, double scale, activation, int threads):
    """Compute the gradients of `masked_gemm` by input, weight and bias; mask may be None."""
    cdef size_t rows = x.shape[0], n_in = x.shape[1], n_out = weight.shape[1]
    cdef int function = _ACTIVATIONS[activation]
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
        status = cdrop_masked_gradients(dtype, pi, pdw, pb, pg, px, pw, pm, rows, n_in, n_out, scale,
                                        <cdrop_activation>function, threads)
    _raise_on(status)
    return dinput, dweight, dbias


# ---- Losses --------------------------------------------------------------------------------------------------------


def loss_and_gradient(loss, outputs, labels, targets, weights):
    """Compute a loss and its gradient; of labels and targets one is None, weights may be."""
    cdef int kind = _LOSSES[loss]
    cdef size_t rows = outputs.shape[0], n = outputs.shape[1]
    cdef cdrop_dtype dtype = _dtype_of(outputs)
    gradient = np.empty_like(outputs)
    cdef const void *po = _address(outputs)
    cdef const void *pt = _address(targets)
    cdef const void *pw = _address(weights)
    cdef const int64_t *pl = _integers(labels)
    cdef void *pd = <void *>_address(gradient)
    cdef double value
    with nogil:
        value = cdrop_loss_and_gradient(dtype, <cdrop_loss>kind, pd, po, pl, pt, <const double *>pw, rows, n)
    return value, gradient


# ---- Update rules --------------------------------------------------------------------------------------------------


cdef cdrop_optimizer _optimizer(constants) except *:
    """From the tuple that `cdrop.optimizers` makes: (name, rate, l2, weight_decay, a, b, epsilon, corr1, corr2)."""
    cdef cdrop_optimizer o
    name, o.learning_rate, o.l2, o.weight_decay, o.a, o.b, o.epsilon, o.correction1, o.correction2 = constants
    cdef int rule = _RULES[name]
    o.rule = <cdrop_rule>rule
    o.max_norm = 0
    return o


def rule_states(name):
    """Return the number of arrays that an update rule keeps for each array of weights."""
    cdef int rule = _RULES[name]
    return cdrop_rule_states(<cdrop_rule>rule)


cdef void *_data(array) except NULL:
    """Address of an array of any shape that is written to."""
    cdef size_t address = array.ctypes.data
    return <void *>address


def update(weight, gradient, state, constants):
    """Apply an update rule, in place on `weight` and the arrays in `state`."""
    cdef cdrop_optimizer o = _optimizer(constants)
    cdef void *pw = _data(weight)
    cdef const void *pg = _data(gradient)
    cdef void *p1 = _data(state[0]) if len(state) > 0 else NULL
    cdef void *p2 = _data(state[1]) if len(state) > 1 else NULL
    cdef size_t n = weight.size
    cdef cdrop_dtype dtype = _dtype_of(weight)
    with nogil:
        cdrop_update_weights(dtype, pw, pg, p1, p2, n, &o)


def limit_norms(weight, double max_norm):
    """Scale the columns of `weight` whose norm is above `max_norm` to that norm, in place."""
    cdef void *pw = _data(weight)
    cdef cdrop_dtype dtype = _dtype_of(weight)
    cdef size_t n_in = weight.shape[0], n_out = weight.shape[1]
    cdef cdrop_status status
    with nogil:
        status = cdrop_limit_norms(dtype, pw, n_in, n_out, max_norm)
    _raise_on(status)


# ---- Networks ------------------------------------------------------------------------------------------------------


cdef class Turn:
    """A lock that detects a fork that left its holder behind: in the child nothing would ever release it."""
    cdef object lock
    cdef object process  # of the last holder

    def __cinit__(self):
        self.lock, self.process = threading.Lock(), os.getpid()

    def __enter__(self):
        if not self.lock.acquire(False):
            if self.process != os.getpid():
                raise RuntimeError("another thread was using this network when the process forked, so in this child "
                                   "its weights may be half updated; expected a fork between calls on the network")
            self.lock.acquire()
        self.process = os.getpid()  # no fork comes before this: the GIL is kept, or it was this process already

    def __exit__(self, *error):
        self.lock.release()


cdef class KeptBatches:
    """Lists of minibatches that come again, made by `Engine.keep_batches` and used by engines to which they apply."""
    cdef cdrop_kept *kept

    def __dealloc__(self):
        cdrop_kept_free(self.kept)


cdef class Rows:
    """Checked arrays of a call, as C sees them: kept alive here, with their addresses taken once.

    `x` is a matrix, or has the `data`, `indices` and `indptr` of a sparse one. Predictions use `kept`, lists of all
    rows in their order, unless it is None.
    """

    cdef cdrop_batch batch
    cdef readonly object x, labels, targets, weights
    cdef public KeptBatches kept

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
    """The weights, optimizer state and memory of a network, in C. `cdrop.Network` checks all arguments.

    Each engine has one lock: threads that share a network take turns.
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
        """Return weight and bias of a layer, or for part 1 and 2 their optimizer states, as new arrays."""
        weight = np.empty(self.shapes[layer], self.dtype)
        bias = np.empty(weight.shape[1], self.dtype)
        with self.lock:
            cdrop_network_get(self.network, layer, <cdrop_part>part, <void *>_address(weight), <void *>_address(bias))
        return weight, bias

    def set(self, size_t layer, int part, weight, bias):
        """Copy weight and bias (or their states), which have the shape of the layer, into the engine."""
        weight = np.require(weight, self.dtype, ["C", "A"])
        bias = np.require(bias, self.dtype, ["C", "A"])
        with self.lock:
            cdrop_network_set(self.network, layer, <cdrop_part>part, _address(weight), _address(bias))

    def set_background(self, background):
        """Set the most common value of each feature, shape (units[0],), 0 for none. See cdrop.h."""
        background = np.require(background, self.dtype, ["C", "A"])
        with self.lock:
            cdrop_network_set_background(self.network, _address(background))

    def reserve(self, size_t rows, int threads):
        """Take the memory of steps on up to `rows` rows, so that no later step of that size can lack it."""
        cdef cdrop_status status
        with self.lock, nogil:
            status = cdrop_network_reserve(self.network, rows, threads)
        _raise_on(status)

    def keep_batches(self, Rows data not None, order, size_t size, int threads):
        """Make the lists of minibatches order[i * size:(i + 1) * size] of the data for steps; see cdrop.h.

        With the order None, all rows are taken in their order, and the lists are for predictions."""
        cdef KeptBatches kept = KeptBatches()
        cdef cdrop_batch batch = data.batch
        cdef bint by_unit = order is not None
        cdef cdrop_status status
        if by_unit:
            batch.rows = _integers(order)
            batch.n = order.shape[0]
        with self.lock, nogil:
            status = cdrop_keep_batches(&kept.kept, self.network, &batch, size, by_unit, threads)
        _raise_on(status)
        return kept

    def step(self, Rows data not None, rows, constants, double max_norm, uint64_t step, int threads,
             KeptBatches kept=None, size_t number=0):
        """Make one training step on `rows` of the data, None for all; return the loss.

        FloatingPointError has three arguments: the loss (if it is not finite, nothing has changed); the first layer
        with numbers that are not finite, or the number of layers; and whether they are in its weights. `max_norm` 0
        means no
        limit. With `kept`, the rows are its minibatch `number`."""
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
        """Return the seconds that threads spent in each part since the last call, and turn measuring on or off.

        By the names of cdrop.h: a list with the time of each layer, or with one time for what happens once a step."""
        seconds = np.empty((len(self.shapes), <int>CDROP_TIMES))
        cdef double[:, ::1] view = seconds
        cdef int by_layer
        with self.lock:
            _raise_on(cdrop_network_times(self.network, on, &view[0, 0]))
        found = {}
        for part in range(<int>CDROP_TIMES):
            name = cdrop_time_name(part, &by_layer).decode()
            found[name] = seconds[:, part].tolist() if by_layer else [float(seconds[0, part])]
        return found

    def predict(self, Rows data not None, answer, int threads):
        """Predict "outputs", "probabilities" or "labels" of all rows without dropout; see cdrop.h."""
        cdef int kind = _ANSWERS[answer]
        cdef cdrop_batch batch = data.batch
        if data.kept is not None:
            batch.kept = data.kept.kept
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
            status = cdrop_network_predict(self.network, po, &batch, <cdrop_answer>kind, threads)
        _raise_on(status)
        return out

    def sample(self, Rows data not None, dict out, size_t passes, uint64_t seed, size_t first_row, masks, int threads):
        """Fill arrays with the statistics of passes under dropout; see cdrop_uncertainty in cdrop.h.

        `masks` has one array per layer, None where nothing is dropped; or it is None, and masks are drawn."""
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
