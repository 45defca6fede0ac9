# cython: language_level=3, boundscheck=False, initializedcheck=False, cdivision=True
# cython: embedsignature=True, embedsignature.format=python, freethreading_compatible=True
"""Typed memoryviews onto the C kernels: take addresses, release the GIL, call, raise on a status; no arithmetic.

Arguments have been checked, by `cdrop.kernels` or `cdrop.Network`: arrays are aligned, C-contiguous and native, and
their shapes fit together. What a buffer says of itself (dtype, dimensions and order) is checked once more; shapes are
not.
"""
import os

import numpy as np

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer
from cpython.dict cimport PyDict_GetItem, PyDict_Next, PyDict_SetItem, PyDict_Update
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_FromDouble
from cpython.list cimport PyList_Append
from cpython.pythread cimport (
    NOWAIT_LOCK,
    PY_LOCK_ACQUIRED,
    PyLockStatus,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)
from cpython.ref cimport Py_DECREF, PyObject
from libc.math cimport NAN
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport strchr


cdef extern from *:
    """
    /* PyFloatObject, which the limited API does not show; checked when this module is imported. */
    typedef struct { PyObject_HEAD double value; } cdrop_float;
    #define CDROP_SET_SIZE(list, size) Py_SET_SIZE((PyVarObject *)(list), size)
    """
    ctypedef struct cdrop_float:
        double value
    void CDROP_SET_SIZE(list, Py_ssize_t)

cdef extern from "Python.h":
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock, long long, int) nogil

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define has_room(list) (Py_SIZE(list) < ((PyListObject *)(list))->allocated)
    #else
    #define has_room(list) 0
    #endif
    """
    bint has_room(list)

cdef extern from "<stdatomic.h>":
    ctypedef long atomic_long
    long atomic_load(atomic_long *)
    void atomic_store(atomic_long *, long)
    bint atomic_compare_exchange_strong(atomic_long *, long *, long)

ctypedef fused real:
    float
    double

_KINDS = {
    "bernoulli": CDROP_BERNOULLI,
    "gaussian": CDROP_GAUSSIAN,
    "uniform": CDROP_UNIFORM,
    "shared": CDROP_SHARED,
    "concrete": CDROP_CONCRETE,
    "masksembles": CDROP_MEMBERS,
}
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
    "absolute_error": CDROP_ABSOLUTE_ERROR,
    "huber": CDROP_HUBER,
    "poisson": CDROP_POISSON,
    "quantile": CDROP_QUANTILE,
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
# Multiplications of a call into C, between which signal handlers run: about half a second.
cdef uint64_t _WORK = <uint64_t>1 << 32
cdef uint64_t _PASSED_ROWS = 1 << 20  # and rows times masks, where a row's work is small
_KEEP_ALL = 2**32
cdef object _ndarray = np.ndarray
KINDS = tuple(_KINDS)
INPUT_KINDS = tuple(kind for kind in KINDS if kind != "concrete")
NOISE_KINDS = ("gaussian", "uniform", "concrete")  # that drop no unit
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


# The functions of `cdrop.kernels` see arrays through typed memoryviews; a fused type is chosen by one of them.
cdef const void *_matrix_or_vector(array) except? NULL:
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


cdef const uint64_t *_mask_words(array) except? NULL:
    cdef const uint64_t[:, ::1] words
    if array is None or array.size == 0:
        return NULL
    words = array
    return &words[0, 0]


# A network's calls, of which a small one makes thousands a second, use the buffer protocol itself: a memoryview makes
# an object each time. Addresses stay valid after the release: an array lends its own memory, and callers hold it.
cdef const void *_elements(array, const char *kinds, Py_ssize_t size, Py_buffer *view) except? NULL:
    """Return the address of a C-contiguous array's elements, NULL of none; their format must be one of `kinds`.

    `size` is that of an element, 0 for any; None is an array without elements."""
    cdef bint right
    view.len, view.itemsize = 0, 1
    if array is None:
        return NULL
    PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    right = strchr(kinds, view.format[0]) != NULL and view.format[1] == 0 and (size == 0 or view.itemsize == size)
    PyBuffer_Release(view)
    if not right:
        raise ValueError(f"array has dtype {array.dtype}; expected one that struct calls {kinds.decode()}")
    return view.buf if view.len else NULL


cdef const void *_address(array) except? NULL:
    cdef Py_buffer view
    return _elements(array, b"fd", 0, &view)


cdef const uint64_t *_mask_address(array) except? NULL:
    cdef Py_buffer view
    return <const uint64_t *>_elements(array, b"LQ", sizeof(uint64_t), &view)


cdef const int64_t *_integers(array) except? NULL:
    cdef Py_buffer view
    return <const int64_t *>_elements(array, b"lq", sizeof(int64_t), &view)


cdef const uint32_t *_columns(array) except? NULL:
    cdef Py_buffer view
    return <const uint32_t *>_elements(array, b"IL", sizeof(uint32_t), &view)


cdef size_t *_sizes(array) except? NULL:
    cdef Py_buffer view
    return <size_t *>_elements(array, b"ILQ", sizeof(size_t), &view)


def all_finite(array):
    """Return whether all numbers of a native, C-contiguous array of float32 or float64 are finite."""
    cdef Py_buffer view
    cdef const void *address = _elements(array, b"fd", 0, &view)
    cdef cdrop_dtype dtype = CDROP_FLOAT32 if view.itemsize == 4 else CDROP_FLOAT64
    cdef size_t n = view.len // view.itemsize
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


def dropout_noise(size_t rows, size_t width, uint64_t keep, kind, dtype, uint64_t seed, uint64_t step, uint32_t layer,
                  size_t first, uint32_t purpose):
    """Draw noise of one of `NOISE_KINDS`; `keep` is in units of 2**-32, `first` a multiple of 64."""
    cdef int number = _KINDS[kind]
    cdef size_t pitch = (width + 15) // 16 * 16
    cdef cdrop_dtype element = CDROP_FLOAT32 if dtype.itemsize == 4 else CDROP_FLOAT64
    cdef void *address
    noise = np.empty((rows, pitch), dtype)
    address = <void *>_address(noise)
    with nogil:
        cdrop_noise(element, address, pitch, first, rows, width, <cdrop_kind>number, keep, seed, step, purpose, layer)
    return np.ascontiguousarray(noise[:, :width])


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
    cdef const void *px = _matrix_or_vector(x)
    cdef const void *pw = _matrix_or_vector(weight)
    cdef const void *pb = _matrix_or_vector(bias)
    cdef void *po = <void *>_matrix_or_vector(out)
    cdef const uint64_t *pm = _mask_words(mask)
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
    cdef const void *pg = _matrix_or_vector(dout)
    cdef const void *px = _matrix_or_vector(x)
    cdef const void *pw = _matrix_or_vector(weight)
    cdef void *pi = <void *>_matrix_or_vector(dinput)
    cdef void *pdw = <void *>_matrix_or_vector(dweight)
    cdef void *pb = <void *>_matrix_or_vector(dbias)
    cdef const uint64_t *pm = _mask_words(mask)
    cdef cdrop_dtype dtype = _dtype_of(x)
    cdef cdrop_status status
    with nogil:
        status = cdrop_masked_gradients(dtype, pi, pdw, pb, pg, px, pw, pm, rows, n_in, n_out, scale,
                                        <cdrop_activation>function, threads)
    _raise_on(status)
    return dinput, dweight, dbias


# ---- Losses --------------------------------------------------------------------------------------------------------


cdef cdrop_truth _truth(labels, targets, weights) except *:
    cdef cdrop_truth truth
    truth.labels = _integers(labels)
    truth.targets = _address(targets)
    truth.one_target = targets is not None and targets.shape[1] == 1
    truth.weights = <const double *>_address(weights)
    return truth


def loss_and_gradient(loss, parameters, outputs, labels, targets, weights):
    """Compute a loss and its gradient; of labels and targets one is None, parameters and weights may be."""
    cdef int kind = _LOSSES[loss]
    cdef size_t rows = outputs.shape[0], n = outputs.shape[1]
    cdef cdrop_dtype dtype = _dtype_of(outputs)
    gradient = np.empty_like(outputs)
    cdef const void *po = _matrix_or_vector(outputs)
    cdef const double *pp = <const double *>_address(parameters)
    cdef cdrop_truth truth = _truth(labels, targets, weights)
    cdef void *pd = <void *>_matrix_or_vector(gradient)
    cdef double value
    with nogil:
        value = cdrop_loss_and_gradient(dtype, <cdrop_loss>kind, pp, pd, po, &truth, rows, n)
    return value, gradient


def exponential(outputs):
    """Return the exponentials of a matrix: the means that the outputs of a Poisson loss stand for."""
    means = outputs.copy()
    cdef void *address = <void *>_matrix_or_vector(means)
    cdef size_t n = means.size
    cdef cdrop_dtype dtype = _dtype_of(means)
    with nogil:
        cdrop_exponential(dtype, address, n)
    return means


# ---- Update rules --------------------------------------------------------------------------------------------------


cdef cdrop_optimizer _optimizer(constants) except *:
    """From the tuple that `cdrop.optimizers` makes: (name, rate, l2, weight_decay, a, b, epsilon, corr1, corr2)."""
    cdef cdrop_optimizer o
    name, o.learning_rate, o.l2, o.weight_decay, o.a, o.b, o.epsilon, o.correction1, o.correction2 = constants
    cdef int rule = _RULES[name]
    o.rule = <cdrop_rule>rule
    o.max_norm = 0
    o.learned = NULL
    o.entropy = 0
    return o


def rule_states(name):
    """Return the number of arrays that an update rule keeps for each array of weights."""
    cdef int rule = _RULES[name]
    return cdrop_rule_states(<cdrop_rule>rule)


def update(weight, gradient, state, constants):
    """Apply an update rule, in place on `weight` and the arrays in `state`."""
    cdef cdrop_optimizer o = _optimizer(constants)
    cdef void *pw = <void *>_address(weight)
    cdef const void *pg = _address(gradient)
    cdef void *p1 = <void *>_address(state[0]) if len(state) > 0 else NULL
    cdef void *p2 = <void *>_address(state[1]) if len(state) > 1 else NULL
    cdef size_t n = weight.size
    cdef cdrop_dtype dtype = _dtype_of(weight)
    with nogil:
        cdrop_update_weights(dtype, pw, pg, p1, p2, n, &o)


def limit_norms(weight, double max_norm):
    """Scale the columns of `weight` whose norm is above `max_norm` to that norm, in place."""
    cdef void *pw = <void *>_address(weight)
    cdef cdrop_dtype dtype = _dtype_of(weight)
    cdef size_t n_in = weight.shape[0], n_out = weight.shape[1]
    cdef cdrop_status status
    with nogil:
        status = cdrop_limit_norms(dtype, pw, n_in, n_out, max_norm)
    _raise_on(status)


# ---- Networks ------------------------------------------------------------------------------------------------------


# While an engine's lock is held, no Python code runs: only C, and changes of lists and dicts that allocate nothing.
# So no signal handler, finalizer, asynchronous exception or failed allocation can come between the parts of a change,
# none can find the lock held by its own thread, and a thread that waits for it waits for C alone. The lock is what
# makes a change atomic, not the GIL, which free-threaded Python lacks: objects that other threads may change
# meanwhile are read and written by calls that lock the object, never by PyDict_Next.


cdef class Turn:
    """A lock that detects a fork that left its holder behind: in the child nothing would ever release it."""
    cdef PyThread_type_lock lock
    cdef atomic_long process  # that may hold it; negative while one of its threads finds out whether the lock is free

    def __cinit__(self):
        cdef long process = os.getpid()
        atomic_store(&self.process, process)
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError("cdrop could not get a lock")

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef int take(self) except -1:
        cdef PyLockStatus got
        while True:
            self.enter(os.getpid())  # what can fail does so before the lock is held
            if PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
                return 0
            with nogil:
                got = PyThread_acquire_lock_timed(self.lock, -1, True)
            if got == PY_LOCK_ACQUIRED:
                return 0
            PyErr_CheckSignals()  # a handler may fork

    cdef int enter(self, long process) except -1:
        """Make this the lock's process. The first of its threads to come here tries the lock; others wait for it."""
        cdef long last = atomic_load(&self.process)
        while last != process:
            if last == -process or not atomic_compare_exchange_strong(&self.process, &last, -process):
                last = atomic_load(&self.process)
                continue
            if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
                atomic_store(&self.process, last)
                raise RuntimeError("another thread was using this network when the process forked, so in this child "
                                   "its weights may be half updated; expected a fork between calls on the network")
            PyThread_release_lock(self.lock)
            atomic_store(&self.process, process)
            return 0
        return 0

    cdef void give(self) noexcept:
        PyThread_release_lock(self.lock)


cdef class Fitting:
    """Context of a fit, which the network's `state` holds under "_fit" meanwhile.

    It is entered and left in C, so that no exception from outside can leave it there; entered by `Engine.put`, so that
    of several threads one does."""
    cdef dict state
    cdef readonly object process

    def __cinit__(self, dict state not None):
        self.state, self.process = state, os.getpid()

    @staticmethod
    def of(dict state not None):
        """Return what the state holds; raise if it is a fit of this process, not one that a fork left behind."""
        fit = state["_fit"]
        if fit is not None and (<Fitting?>fit).process == os.getpid():
            raise RuntimeError(
                "the network is in a fit, which alone may change it; expected this call after the fit, or on a copy "
                "(copy.deepcopy). Meanwhile other threads, callbacks, signal handlers and finalizers may predict and "
                "save"
            )
        return fit

    def __enter__(self):
        entered = False
        while not entered:
            entered = self.state["_engine"].put(self.state, {"_fit": self}, {"_fit": Fitting.of(self.state)})
        return self

    def __exit__(self, kind, error, traceback):
        PyDict_SetItem(self.state, "_fit", None)


cdef bint _same(dict state, dict was) noexcept:
    """Whether each name in `was` still stands for the same object in `state`."""
    cdef PyObject *name
    cdef PyObject *value
    cdef Py_ssize_t at = 0
    while PyDict_Next(was, &at, &name, &value):
        if PyDict_GetItem(state, <object>name) != value:
            return False
    return True


cdef int _assign(dict state, dict new) except -1:
    """Set names that `state` has, which takes no memory."""
    cdef PyObject *name
    cdef PyObject *value
    cdef Py_ssize_t at = 0
    while PyDict_Next(new, &at, &name, &value):
        PyDict_SetItem(state, <object>name, <object>value)
    return 0


cdef int _make_room(list numbers, number) except -1:
    """Make sure that the next append takes no memory: `list.pop` might give it back.

    Without the GIL, threads that read the list may see `number` for a moment, but only where the list grows."""
    if has_room(numbers):
        return 0
    PyList_Append(numbers, number)
    CDROP_SET_SIZE(numbers, len(numbers) - 1)
    Py_DECREF(number)
    return 0


cdef class KeptBatches:
    """Lists of minibatches that come again, made by `Engine.keep_batches` and used by engines to which they apply."""
    cdef cdrop_kept *kept
    cdef size_t size  # rows of each, where they are for predictions

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
        cdef bint dense = isinstance(x, _ndarray)
        self.x, self.labels, self.targets, self.weights = x, labels, targets, weights
        self.batch.x = _address(x if dense else x.data)
        if not dense:  # pointers are NULL at first
            self.batch.indptr = _integers(x.indptr)
            self.batch.indices = _columns(x.indices)
        self.batch.n = len(x)
        self.batch.truth = _truth(labels, targets, weights)


def power(double base, unsigned long long exponent):
    """Return ``base**exponent`` by squaring: the C library's pow differs from platform to platform."""
    cdef double result = 1
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


cdef class Engine:
    """The weights, optimizer state and memory of a network, in C. `cdrop.Network` checks all arguments.

    Each engine has one lock: threads that share a network take turns. A `state` is the network's `vars`, with
    "history" and "_fit" in it.
    """

    cdef cdrop_network *network
    cdef Turn lock
    cdef readonly object dtype
    cdef readonly list shapes
    cdef readonly bint varies  # whether a probability of keeping may change from step to step
    cdef size_t row_size, outputs  # bytes of a dense row of input, and units of the output layer
    cdef cdrop_loss loss
    cdef size_t work  # multiplications for a row
    cdef size_t masked_work  # of which those from the first layer on whose input may be dropped out
    cdef object keep  # of the input, then of each hidden layer: an array, and
    cdef const uint64_t *kept  # its address

    def __cinit__(self, units, keep, dtype, activation, loss, loss_parameters, scale_in_training, seed, varies=(),
                  kinds=(), size_t members=0):
        cdef cdrop_design d
        cdef Py_buffer view
        cdef int function = _ACTIVATIONS[activation], kind = _LOSSES[loss]
        widths, changing = np.asarray(units, np.uintp), np.array(varies or [0] * len(keep), np.intc)
        noises = np.array([_KINDS[name] for name in kinds] or [<int>CDROP_BERNOULLI] * len(keep), np.intc)
        self.lock = Turn()
        self.varies = any(varies)
        self.keep = np.array(keep, np.uint64)
        self.kept = _mask_address(self.keep)
        self.dtype = np.dtype(dtype)
        self.shapes = list(zip(units[:-1], units[1:]))
        self.row_size, self.outputs = units[0] * self.dtype.itemsize, units[-1]
        self.loss = <cdrop_loss>kind
        self.work = sum(fan_in * fan_out for fan_in, fan_out in self.shapes)
        masked = [i for i, units_kept in enumerate(keep) if units_kept != _KEEP_ALL or changing[i]] or [0]
        self.masked_work = sum(fan_in * fan_out for fan_in, fan_out in self.shapes[masked[0]:])
        d.dtype = CDROP_FLOAT32 if self.dtype.itemsize == 4 else CDROP_FLOAT64
        d.layers = len(units) - 1
        d.units, d.keep = _sizes(widths), self.kept
        d.varies = <const int *>_elements(changing, b"il", sizeof(int), &view)
        d.kinds = <const cdrop_kind *>_elements(noises, b"il", sizeof(int), &view)
        d.members = members
        d.scale_in_training = scale_in_training
        d.activation = <cdrop_activation>function
        d.loss = self.loss
        d.loss_parameters = <const double *>_address(loss_parameters)
        d.seed = seed
        _raise_on(cdrop_network_create(&self.network, &d))

    def __dealloc__(self):
        cdrop_network_free(self.network)

    def copy(self, parts, dict state=None):
        """Return copies of weight and bias for each (layer, part), all of one moment; with `state`, its values then,
        and the lengths of its history's lists, too. Parts 1 and 2 are the optimizer states."""
        cdef Py_ssize_t i, count = len(parts)
        cdef Py_ssize_t lengths[4]
        cdef dict now = {} if state is None else dict(state)
        _replaced = dict(now)  # whose finalizers must wait for the lock
        arrays, table = [], np.empty((count, 4), np.uintp)
        cdef size_t *row = _sizes(table)
        for i, (layer, part) in enumerate(parts):
            weight = np.empty(self.shapes[layer], self.dtype)
            bias = np.empty(weight.shape[1], self.dtype)
            arrays.append((weight, bias))
            row[4 * i], row[4 * i + 1] = layer, part
            row[4 * i + 2], row[4 * i + 3] = <size_t>_address(weight), <size_t>_address(bias)
        self.lock.take()
        try:
            with nogil:
                for i in range(count):
                    cdrop_network_get(self.network, row[4 * i], <cdrop_part>row[4 * i + 1], <void *>row[4 * i + 2],
                                      <void *>row[4 * i + 3])
            if state is not None:
                PyDict_Update(now, state)
                history = now["history"]
                lengths[0], lengths[1] = len(history.loss), len(history.epoch_loss)
                lengths[2], lengths[3] = len(history.validation_loss), len(history.validation_score)
        finally:
            self.lock.give()
        return arrays if state is None else (arrays, now, [lengths[i] for i in range(4)])

    def get(self, layer, part):
        """Return copies of weight and bias of a layer, or for part 1 and 2 of their optimizer states."""
        return self.copy([(layer, part)])[0]

    def put(self, dict state not None, dict new not None, dict was not None, parts=(), background=None, keep=None):
        """Change a network at once: copy weights and biases, as (layer, part, weight, bias), the background, and the
        probabilities of keeping (an array of uint64) into the engine, and set the names of `new` in `state`. Return
        False, with nothing changed, if a name in `was` stands for another object by now.

        The background is the most common value of each feature, shape (units[0],), 0 for none. See cdrop.h."""
        cdef Py_ssize_t i, count = len(parts)
        cdef const void *most_common = NULL
        cdef const uint64_t *kept = _mask_address(keep)
        table, _replaced = np.empty((count, 4), np.uintp), dict(state)  # whose finalizers must wait for the lock
        cdef size_t *row = _sizes(table)
        arrays = []
        for i, (layer, part, weight, bias) in enumerate(parts):
            weight = np.require(weight, self.dtype, ["C", "A"])
            bias = np.require(bias, self.dtype, ["C", "A"])
            arrays.append((weight, bias))
            row[4 * i], row[4 * i + 1] = layer, part
            row[4 * i + 2], row[4 * i + 3] = <size_t>_address(weight), <size_t>_address(bias)
        if background is not None:
            background = np.require(background, self.dtype, ["C", "A"])
            most_common = _address(background)
        self.lock.take()
        try:
            if not _same(state, was):
                return False
            with nogil:
                for i in range(count):
                    cdrop_network_set(self.network, row[4 * i], <cdrop_part>row[4 * i + 1],
                                      <const void *>row[4 * i + 2], <const void *>row[4 * i + 3])
                if most_common != NULL:
                    cdrop_network_set_background(self.network, most_common)
                if kept != NULL:
                    cdrop_network_set_keep(self.network, kept)
            if kept != NULL:
                self.keep, self.kept = keep, kept
            _assign(state, new)
        finally:
            self.lock.give()
        return True

    def set(self, layer, part, weight, bias):
        """Copy weight and bias (or their states), which have the shape of the layer, into the engine."""
        self.put({}, {}, {}, [(layer, part, weight, bias)])

    def end_epoch(self, dict state not None, dict new not None, tuple seen not None):
        """Append loss, validation loss and score to the history's curves, and set the names of `new`, at once."""
        history = state["history"]
        cdef list loss = history.epoch_loss, tested = history.validation_loss, score = history.validation_score
        loss_seen, tested_seen, score_seen = seen
        self.lock.take()
        try:
            _make_room(loss, loss_seen)
            _make_room(tested, tested_seen)
            _make_room(score, score_seen)
            PyList_Append(loss, loss_seen)
            PyList_Append(tested, tested_seen)
            PyList_Append(score, score_seen)
            _assign(state, new)
        finally:
            self.lock.give()

    def reserve(self, size_t rows, int threads, size_t samples=1):
        """Take the memory of steps on up to `rows` rows, with up to `samples` masks each, so that no later step of that
        size can lack it."""
        cdef cdrop_status status
        self.lock.take()
        try:
            with nogil:
                status = cdrop_network_reserve(self.network, rows, samples, threads)
        finally:
            self.lock.give()
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
        kept.size = size
        self.lock.take()
        try:
            with nogil:
                status = cdrop_keep_batches(&kept.kept, self.network, &batch, size, by_unit, threads)
        finally:
            self.lock.give()
        _raise_on(status)
        return kept

    def step(self, Rows data not None, rows, constants, double max_norm, dict state not None, dict was not None,
             dict new not None, int threads, KeptBatches kept=None, size_t number=0, keep=None, learned=None,
             double entropy=0, size_t samples=1, double consistency=0.0):
        """Make one training step on `rows` of the data, None for all; return the loss, or None if a name in `was`
        stands for another object in `state` by now. Weights, the history's losses and the names of `new` change at
        once, and with them the probabilities of keeping, an array of uint64, if `keep` is not None, and the array
        `learned`, the cdrop_learned_rate of each layer, if that is not None; `entropy` is the one of cdrop_optimizer.

        FloatingPointError has four arguments: the number of the step; the loss (if it is not finite, nothing has
        changed); the first layer with numbers that are not finite, or the number of layers; and whether they are in its
        weights. `max_norm` 0 means no limit. With `kept`, the rows are its minibatch `number`. `samples` and
        `consistency` are described in cdrop.h."""
        cdef cdrop_batch batch = data.batch
        cdef cdrop_optimizer o = _optimizer(constants)
        cdef cdrop_status status
        cdef double loss = 0
        cdef size_t layer = 0
        cdef uint64_t step
        cdef int in_weights = 0
        cdef list losses = was["history"].loss
        cdef const uint64_t *kept_now = _mask_address(keep)
        cdef bint updated = False
        result = PyFloat_FromDouble(NAN)  # a new object, which gets its value when there is one
        o.max_norm = max_norm
        o.learned = <cdrop_learned_rate *>_address(learned)
        o.entropy = entropy
        batch.samples, batch.consistency = samples, consistency
        if rows is not None:
            batch.rows = _integers(rows)
            batch.n = rows.shape[0]
        if kept is not None:
            batch.kept = kept.kept
            batch.number = number
        self.lock.take()
        try:
            if not _same(state, was):
                return None
            _make_room(losses, result)
            step = len(losses) + 1
            with nogil:
                if kept_now != NULL:
                    cdrop_network_set_keep(self.network, kept_now)
                status = cdrop_network_step(self.network, &batch, &o, step, threads, &loss)
                updated = status == CDROP_OK or status == CDROP_DIVERGED
                if kept_now != NULL and not updated:
                    cdrop_network_set_keep(self.network, self.kept)
                if status == CDROP_NOT_FINITE or status == CDROP_DIVERGED:
                    layer = cdrop_network_fault(self.network, batch.n if status == CDROP_NOT_FINITE else 0, &in_weights)
            (<cdrop_float *>result).value = loss
            if updated:
                if kept_now != NULL:
                    self.keep, self.kept = keep, kept_now
                PyList_Append(losses, result)
                _assign(state, new)
        finally:
            self.lock.give()
        if status == CDROP_NOT_FINITE or status == CDROP_DIVERGED:
            raise FloatingPointError(step, loss, layer, bool(in_weights))
        _raise_on(status)
        return result

    def times(self, bint on):
        """Return the seconds that threads spent in each part since the last call, and turn measuring on or off.

        By the names of cdrop.h: a list with the time of each layer, or with one time for what happens once a step."""
        seconds = np.empty((len(self.shapes), <int>CDROP_TIMES))
        cdef double *view = <double *>_address(seconds)
        cdef int by_layer
        cdef cdrop_status status
        self.lock.take()
        try:
            status = cdrop_network_times(self.network, on, view)
        finally:
            self.lock.give()
        _raise_on(status)
        found = {}
        for part in range(<int>CDROP_TIMES):
            name = cdrop_time_name(part, &by_layer).decode()
            found[name] = seconds[:, part].tolist() if by_layer else [float(seconds[0, part])]
        return found

    def predict(self, Rows data not None, answer, int threads):
        """Predict "outputs", "probabilities" or "labels" of all rows without dropout; see cdrop.h. Rows with outputs
        that are not finite get NaN and -1.

        Between pieces of rows, signal handlers run, and other threads may change the network."""
        cdef int kind = _ANSWERS[answer]
        cdef cdrop_batch batch = data.batch
        cdef size_t rows = batch.n, piece = self.piece(), first = 0
        cdef bint labels = kind == CDROP_LABELS and self.loss < CDROP_SQUARED_ERROR
        cdef bint one_each = labels and self.loss == CDROP_SOFTMAX_CROSS_ENTROPY
        cdef Py_buffer view
        cdef char *address
        cdef cdrop_status status
        if data.kept is not None:
            batch.kept = data.kept.kept
            piece = max(<size_t>1, piece // data.kept.size) * data.kept.size
        out = np.empty(<object>rows if one_each else (rows, self.outputs), np.int64 if labels else self.dtype)
        address = <char *>_elements(out, b"lq" if labels else b"fd", 0, &view)
        while first < rows:
            batch.n = min(piece, rows - first)
            if data.batch.indptr != NULL:
                batch.indptr = data.batch.indptr + first
            else:
                batch.x = <const char *>data.batch.x + first * self.row_size
            if data.kept is not None:
                batch.number = first // data.kept.size
            self.lock.take()
            try:
                with nogil:
                    status = cdrop_network_predict(self.network, address, &batch, <cdrop_answer>kind, threads)
            finally:
                self.lock.give()
            _raise_on(status)
            PyErr_CheckSignals()
            address += batch.n * (view.len // rows)
            first += batch.n
        return out

    cdef size_t piece(self) noexcept:
        """Return how many rows a call into C takes, in whole blocks of 256, so that it ends within a second or so."""
        return <size_t>max(<uint64_t>256, _WORK // self.work // 256 * 256)

    def rows_at_once(self):
        """Return how many rows a call into C takes."""
        return self.piece()

    def sample(self, Rows data not None, dict out, size_t passes, uint64_t seed, size_t first_row, masks, int threads,
               size_t stride=0):
        """Fill arrays with the statistics of passes under dropout; see cdrop_uncertainty in cdrop.h.

        `samples`, if it is wanted, is the first pass of the batch; the others follow `stride` rows apart.

        `masks` has one array per layer, None where nothing is dropped; or it is None, and masks are drawn. Between
        pieces of the passes, signal handlers run, and other threads may change the network."""
        cdef cdrop_uncertainty results
        cdef cdrop_sampling how
        cdef cdrop_status status
        cdef size_t rows = data.batch.n
        cdef size_t piece = <size_t>min(_WORK // self.masked_work, _PASSED_ROWS) // max(<size_t>1, rows)
        results.mean = <void *>_address(out.get("mean"))
        results.deviation = <void *>_address(out.get("std"))
        results.predictive_entropy = <void *>_address(out.get("predictive_entropy"))
        results.expected_entropy = <void *>_address(out.get("expected_entropy"))
        results.mutual_information = <void *>_address(out.get("mutual_information"))
        results.samples = <void *>_address(out.get("samples"))
        results.stride = stride
        how.passes, how.seed, how.first_row, how.masks, how.sums = passes, seed, first_row, NULL, NULL
        if masks is not None:
            addresses = np.array([<size_t>_mask_address(mask) for mask in masks], np.uintp)
            how.masks = <const uint64_t *const *>_sizes(addresses)
        piece = max(<size_t>1, piece)
        if rows and piece < passes:
            sums = np.empty(2 * rows * self.shapes[-1][1])
            how.sums = <double *>_address(sums)
        how.done = 0
        while how.done < passes:
            how.until = min(passes, how.done + piece) if how.sums != NULL else passes
            self.lock.take()
            try:
                with nogil:
                    status = cdrop_network_sample(self.network, &results, &data.batch, &how, threads)
            finally:
                self.lock.give()
            _raise_on(status)
            PyErr_CheckSignals()
            how.done = how.until


cdef double _stored_value(number) noexcept:
    return (<cdrop_float *>number).value


if _stored_value(0.1) != 0.1:
    raise ImportError("cdrop was not built for this Python; expected one that stores floats as CPython 3.11 to 3.15 do")
_select_simd(os.environ.get("CDROP_SIMD") or None)
