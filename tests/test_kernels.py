"""The kernels against their NumPy twins, among themselves, and against finite differences."""

import copy
import inspect
import itertools

import numpy as np
import pytest
from conftest import ACTIVATIONS, EDGES, LOSSES, OPTIMIZERS, THREADS, TOLERANCE, assert_close
from hypothesis import given
from hypothesis import strategies as st

import cdrop
from cdrop import kernels, reference

EXACT = "exact"
KIND = {  # how results are compared
    "bernoulli_mask": EXACT,
    "dropout_noise": "noise",
    "drawn_keep": EXACT,
    "pack_mask": EXACT,
    "unpack_mask": EXACT,
    "random_words": EXACT,
    "random_normal": "normal",
    "masked_gemm": "product",
    "masked_gradients": "product",
    "softmax_cross_entropy": "loss",
    "sigmoid_cross_entropy": "loss",
    "squared_error": "loss",
    "absolute_error": "loss",
    "huber": "loss",
    "poisson": "loss",
    "quantile": "loss",
    "update": "update",
    "limit_norms": "update",
}
IN_PLACE = {"update", "limit_norms"}
OWN = {"threads", "first_row", "settings", "hyper"}  # arguments that only one side has

sizes = st.sampled_from(EDGES) | st.integers(0, 140)
some = sizes.filter(bool)
seeds = st.integers(0, 2**64 - 1)
keeps = st.sampled_from([0.0, 2.0**-32, 0.1, 0.5, 0.8, 1 - 2.0**-32, 1.0]) | st.floats(0, 1)


# ---- One body over kernels and twin --------------------------------------------------------


@st.composite
def key(draw, purpose=True):
    names = {"seed": 64, "step": 64, "layer": 32, **({"block": 61} if purpose else {})}
    chosen = {name: draw(st.integers(0, 2**bits - 1)) for name, bits in names.items()}
    return {**chosen, "purpose": draw(st.integers(0, 3))} if purpose else chosen


class Draw:
    """Arrays of a drawn shape: many zeros, both signs."""

    def __init__(self, draw, dtype):
        self.rng, self.dtype = np.random.default_rng(draw(st.integers(0, 2**32))), dtype

    def __call__(self, *shape):
        kept = self.rng.random(shape) < 0.7
        return (self.rng.standard_normal(shape) * kept).astype(self.dtype)

    def uniform(self, *shape):
        return self.rng.random(shape).astype(self.dtype)


@st.composite
def layers(draw, dtype, gradients):
    array, (rows, n_in, n_out) = Draw(draw, dtype), draw(st.tuples(sizes, sizes, sizes))
    options = {"activation": draw(st.sampled_from(ACTIVATIONS))}
    if draw(st.booleans()):
        keep = draw(keeps)
        options["mask"] = reference.bernoulli_mask(rows, n_in, keep, seed=draw(seeds))
        options["scale"] = draw(st.sampled_from([1.0, 2.0, 1.25, -0.3]))
    x, weight = array(rows, n_in), array(n_in, n_out)
    if not gradients:
        return [x, weight, draw(st.sampled_from([None, array(n_out)]))], options
    x = reference.ACTIVATIONS[options["activation"]][0](x)  # x is an output of the activation
    return [array(rows, n_out), x, weight], options


@st.composite
def losses(draw, dtype, name):
    array, rows, n = Draw(draw, dtype), draw(some), draw(some)
    outputs = array(rows, n) * draw(st.sampled_from([1, 1 if name == "poisson" else 30]))
    y = array.uniform(rows, 1 if name == "quantile" and draw(st.booleans()) else n)
    if name == "softmax_cross_entropy":
        y /= y.sum(axis=1, keepdims=True)
        y = draw(st.sampled_from([y, array.rng.integers(0, n, rows)]))
    weights = draw(st.sampled_from([None, array.rng.random(rows) + 0.1]))
    options = {
        "huber": {"delta": [0.5, 2.0]},
        "quantile": {"quantiles": [0.5, array.rng.uniform(0.01, 0.99, n)]},
        "softmax_cross_entropy": {"label_smoothing": [0.0, 0.1]},
        "sigmoid_cross_entropy": {"label_smoothing": [0.0, 0.1]},
    }.get(name, {})
    return [outputs, y, weights], {k: draw(st.sampled_from(v)) for k, v in options.items()}


@st.composite
def updates(draw, dtype):
    array, shape = Draw(draw, dtype), draw(st.tuples(sizes) | st.tuples(sizes, sizes))
    name = draw(st.sampled_from(OPTIMIZERS))
    state = [array.uniform(*shape) for _ in range(reference.OPTIMIZERS[name][1])]
    options = {"optimizer": name, "learning_rate": draw(st.sampled_from([1e-3, 0.1, 1.0]))}
    options["step"] = draw(st.sampled_from([1, 2, 10, 1000]))
    if name != "adamw":
        options["l2"] = draw(st.sampled_from([0.0, 0.25]))
    for setting in draw(st.sets(st.sampled_from([*reference.OPTIMIZERS[name][2].split(), ""]))):
        if setting:
            values = {"ramp": [0, 5, 2000], "dampened": [False, True]}
            options[setting] = draw(st.sampled_from(values.get(setting, [0.125, 0.5, 0.75])))
    return [array(*shape), array(*shape), state], options


@st.composite
def norms(draw, dtype):
    weight = Draw(draw, dtype)(*draw(st.tuples(sizes, sizes)))
    weight *= weight.dtype.type(draw(st.sampled_from([1e-3, 1, 1e15])))
    return [weight, draw(st.sampled_from([1e-6, 0.5, 5, 1e16, 1e300]))], {}


@st.composite
def masks(draw, packed):
    rows, width = draw(st.tuples(sizes, sizes))
    units = Draw(draw, bool)(rows, width)
    if not packed:
        return [units], {}
    words = reference.pack_mask(units)
    if width % 64 and draw(st.booleans()):  # padding is ignored
        words[:, -1] |= np.uint64(2**64 - 2 ** (width % 64))
    return [words, width], {}


def arguments(name, dtype):
    """Return a strategy for the arguments of a function of `cdrop.kernels`."""
    if name == "bernoulli_mask":
        return st.tuples(st.tuples(sizes, sizes, keeps), key(purpose=False))
    if name == "dropout_noise":
        kinds = st.fixed_dictionaries(
            {"kind": st.sampled_from(["gaussian", "uniform"]), "dtype": st.just(dtype)}
        )
        named = st.tuples(key(purpose=False), kinds).map(lambda two: {**two[0], **two[1]})
        return st.tuples(st.tuples(sizes, sizes, keeps.filter(lambda keep: keep > 1e-3)), named)
    if name == "drawn_keep":
        return st.tuples(st.tuples(keeps), st.just({}))
    if name in ("pack_mask", "unpack_mask"):
        return masks(name == "unpack_mask")
    if name.startswith("random"):
        return st.tuples(st.tuples(sizes), key())
    if name.startswith("masked"):
        return layers(dtype, name == "masked_gradients")
    if name == "limit_norms":
        return norms(dtype)
    return updates(dtype) if name == "update" else losses(dtype, name)


def flat(value):
    """Return the arrays and numbers in nested lists, tuples and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return list(itertools.chain.from_iterable(map(flat, value)))
    return [value]


@pytest.mark.parametrize("name", KIND)
@given(data=st.data())
def test_kernels_are_their_twins(name, dtype, simd, data):
    args, options = data.draw(arguments(name, dtype))
    mine, twins = copy.deepcopy((args, options)), copy.deepcopy((args, options))
    actual = flat(getattr(kernels, name)(*mine[0], **mine[1]))
    expected = flat(getattr(reference, name)(*twins[0], **twins[1]))
    if name in IN_PLACE:
        actual, expected = flat(mine), flat(twins)  # the arguments are the results
    else:
        np.testing.assert_equal(mine, (args, options))  # inputs are left alone
    largest = 1.0
    if name == "masked_gemm":  # a saturated activation hides how large the rounded sums are
        sums = reference.masked_gemm(*args, **{**options, "activation": "identity"})
        largest = float(np.abs(sums).max(initial=0))
    for a, b in zip(actual, expected, strict=True):
        if KIND[name] == EXACT or not isinstance(b, (np.ndarray, float)):
            np.testing.assert_array_equal(a, b, strict=isinstance(b, np.ndarray))
        elif isinstance(b, float) and name not in IN_PLACE:
            assert type(a) is float
            limit = TOLERANCE["loss"][
                dtype
            ]  # that of the Poisson loss is a difference of larger numbers
            assert a == pytest.approx(b, rel=limit, abs=limit if name == "poisson" else 1e-13)
        else:
            assert_close(a, b, KIND[name], largest)


def test_every_public_kernel_is_compared():
    assert set(kernels.__all__) - {"simd", "simd_parameters", "simd_paths"} == set(KIND)


@pytest.mark.parametrize("name", KIND)
def test_signatures_are_those_of_the_twins(name):
    def described(function):
        signature = inspect.signature(function).parameters.values()
        return [(p.name, p.kind, p.default) for p in signature if p.name not in OWN]

    assert described(getattr(kernels, name)) == described(getattr(reference, name))
    assert getattr(kernels, name).__doc__


@pytest.mark.isa
@pytest.mark.parametrize("keep", [0.25, 1.0], ids=["lists", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_more_columns_and_rows_than_are_worked_on_at_a_time(keep, dtype, simd):
    """16 blocks of 64 columns, and 4 of rows: the third round of columns begins at 2048."""
    rng = np.random.default_rng(6)
    x, weight = rng.standard_normal((300, 2150)), rng.standard_normal((2150, 70)) / 46
    dout = rng.standard_normal((300, 70))
    x, weight, dout = (a.astype(dtype) for a in (x, weight, dout))
    mask = reference.bernoulli_mask(300, 2150, keep, seed=1)
    expected = reference.masked_gemm(x, weight, mask=mask, scale=1 / keep)
    assert_close(kernels.masked_gemm(x, weight, mask=mask, scale=1 / keep), expected, "product")
    own = kernels.masked_gradients(dout, x, weight, mask=mask, scale=1 / keep)
    expected = reference.masked_gradients(dout, x, weight, mask=mask, scale=1 / keep)
    for a, b in zip(own, expected, strict=True):
        assert_close(a, b, "product")


# ---- The same bytes everywhere -------------------------------------------------------------


def layer_results(n, dtype, threads=None):
    """Everything a layer and the losses give at size n, as bytes, and how much of it is not 0."""
    rng = np.random.default_rng(n)
    rows, n_in, n_out = 1 + n % 7, n, (37 * n + 5) % 131
    activation = ACTIVATIONS[n % len(ACTIVATIONS)]
    x, weight = rng.standard_normal((rows, n_in)), rng.standard_normal((n_in, n_out))
    dout, bias = rng.standard_normal((rows, n_out)), rng.standard_normal(n_out)
    x, weight, dout, bias = (a.astype(dtype) for a in (x, weight, dout, bias))
    mask = kernels.bernoulli_mask(rows, n_in, 0.75, seed=n)
    options = {"mask": mask, "scale": 1 / 0.75, "activation": activation, "threads": threads}
    results = [kernels.masked_gemm(x, weight, bias, **options)]
    results += kernels.masked_gradients(dout, np.tanh(x), weight, **options)
    if n_out:
        labels = rng.integers(0, n_out, rows)
        results += kernels.softmax_cross_entropy(dout * 5, labels, 0.5 + rng.random(rows))
        targets = rng.random((rows, n_out)).astype(dtype)
        results += kernels.sigmoid_cross_entropy(dout * 5, targets)
        results += kernels.squared_error(dout, targets)
    state = [np.abs(bias), bias * bias]
    kernels.update(weight, np.ones_like(weight), [], learning_rate=0.1)
    kernels.update(bias, dout[0], state, optimizer="adam", learning_rate=0.1, step=3)
    results += [weight, bias, *state]
    filled = [np.count_nonzero(a) for a in results], [np.size(a) for a in results]
    return b"".join(np.asarray(a).tobytes() for a in results), *map(sum, filled)


@pytest.mark.isa
def test_every_path_gives_the_same_bytes(dtype, on_each_path):
    by_path = on_each_path(lambda: [layer_results(n, dtype) for n in range(131)])
    for path, results in by_path.items():
        for n, (result, scalar) in enumerate(zip(results, by_path["scalar"], strict=True)):
            assert result[0] == scalar[0], (path, n)
    filled, size = np.sum([result[1:] for result in by_path["scalar"]], axis=0)
    assert filled > 0.8 * size  # zeros agree too easily


@pytest.mark.parametrize("n", [1, 64, 129])
def test_threads_give_the_same_bytes(n, dtype, simd):
    results = {threads: layer_results(n, dtype, threads)[0] for threads in THREADS}
    assert len(set(results.values())) == 1


def test_threads_share_many_rows_and_panels(dtype, threads):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((300, 200)), rng.standard_normal((200, 300))
    x, weight = x.astype(dtype), weight.astype(dtype)
    mask = kernels.bernoulli_mask(300, 200, 0.5)
    for one, all_ in zip(
        kernels.masked_gradients(x @ weight, x, weight, mask=mask, threads=1),
        kernels.masked_gradients(x @ weight, x, weight, mask=mask),
        strict=True,
    ):
        np.testing.assert_array_equal(one, all_)
    one = kernels.masked_gemm(x, weight, mask=mask, threads=1)
    np.testing.assert_array_equal(one, kernels.masked_gemm(x, weight, mask=mask))


@pytest.mark.parametrize("cut", [1, 63, 64, 65, 129])
def test_how_rows_are_cut_into_calls_does_not_matter(cut, dtype, simd):
    rng = np.random.default_rng(cut)
    x, weight = rng.standard_normal((130, 70)), rng.standard_normal((70, 33))
    x, weight = x.astype(dtype), weight.astype(dtype)
    mask = kernels.bernoulli_mask(130, 70, 0.5)
    whole = kernels.masked_gemm(x, weight, mask=mask)
    parts = [
        kernels.masked_gemm(x[s], weight, mask=mask[s]) for s in (slice(cut), slice(cut, None))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


# ---- What live means -----------------------------------------------------------------------


def test_a_dropped_nan_is_gone_and_a_live_one_stays(dtype, simd):
    x, weight = np.ones((2, 70), dtype), np.ones((70, 3), dtype)
    x[:, 66] = np.nan
    kept = np.ones((2, 70), bool)
    kept[0, 66] = False
    mask = kernels.pack_mask(kept)
    for activation in ("identity", "relu", "leaky_relu", "tanh", "sigmoid"):
        out = kernels.masked_gemm(x, weight, mask=mask, activation=activation)
        assert np.isfinite(out[0]).all()
        assert np.isnan(out[1]).all(), activation
    dout = np.ones((2, 3), dtype)
    for activation in ("identity", "relu"):
        dinput, dweight, _ = kernels.masked_gradients(
            dout, x, weight, mask=mask, activation=activation
        )
        assert dinput[0, 66] == 0
        assert dinput[1, 66] == 3  # live, as in the twin: a NaN must never vanish as a dead unit
        assert np.isnan(dweight[66]).all()
        assert np.isfinite(dweight[:66]).all()


@pytest.mark.parametrize("n_in", [1, 63, 70, 130])
def test_what_stands_in_the_padding_of_a_mask_is_nobodys_unit(n_in, dtype, simd):
    x, weight = np.ones((3, n_in), dtype), np.ones((n_in, 2), dtype)
    full = np.full((3, -(-n_in // 64)), 2**64 - 1, np.uint64)
    assert (kernels.masked_gemm(x, weight, mask=full) == n_in).all()
    dinput, dweight, _ = kernels.masked_gradients(np.ones((3, 2), dtype), x, weight, mask=full)
    assert (dinput == 2).all()
    assert (dweight == 3).all()


def test_dropped_units_leave_activation_of_bias(dtype, simd):
    x, weight, bias = np.ones((2, 9), dtype), np.ones((9, 3), dtype), np.array([-1, 0, 2], dtype)
    empty = np.zeros((2, 1), np.uint64)
    out = kernels.masked_gemm(x, weight, bias, mask=empty, scale=0.0, activation="relu")
    assert out.tolist() == [[0.0, 0.0, 2.0]] * 2
    for array in kernels.masked_gradients(out, x, weight, mask=empty)[:2]:
        assert not array.any()
        assert not np.signbit(array).any()


def test_zeros_are_positive(dtype, simd):
    minus = np.full((1, 3), -0.0, dtype)
    for activation in ("identity", "relu", "leaky_relu", "tanh"):
        out = kernels.masked_gemm(minus, np.ones((3, 2), dtype), activation=activation)
        assert not np.signbit(out).any(), activation


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_of_huge_numbers(activation, dtype, simd):
    z = np.array([[-3e38, -1e4, -90.0, 0.0, 90.0, 1e4, 3e38]], dtype)
    out = kernels.masked_gemm(z, np.eye(7, dtype=dtype), activation=activation)
    expected = reference.ACTIVATIONS[activation][0](z)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-37)


def test_the_callers_treatment_of_denormals_is_restored(dtype, simd):
    small = np.array([np.finfo(dtype).smallest_subnormal] * 8, dtype)
    layer_results(65, dtype, threads=2)
    assert (small * np.array(1, dtype) > 0).all()
    net = cdrop.Network([3, 4, 2], dtype=dtype, threads=2)
    net.train_step(np.ones((2, 3)), [0, 1])
    net.predict(np.ones((2, 3)))
    assert (small * np.array(1, dtype) > 0).all()


# ---- Finite differences --------------------------------------------------------------------


def central_differences(function, array, h=1e-5):
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        ends = []
        for array[index] in (value + h, value - h):
            ends.append(function())
        array[index] = value
        gradient[index] = (ends[0] - ends[1]) / (2 * h)
    return gradient


def assert_gradient(gradient, numeric):
    error = np.abs(gradient - numeric)
    limit = TOLERANCE["difference"]["float64"]
    assert np.all(error < limit * np.abs(gradient) + 1e-9), error.max()
    assert np.linalg.norm(error) < limit * np.linalg.norm(numeric)


@pytest.mark.isa
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_a_layer_against_central_differences(activation, loss, simd):
    rng = np.random.default_rng(5)
    rows, n_in, n_out = 5, 7, 4
    z = rng.standard_normal((rows, n_in))
    z += np.copysign(0.1, z)  # a step of 1e-5 does not cross the kink at 0
    weight, bias = rng.standard_normal((n_in, n_out)), rng.standard_normal(n_out)
    mask = kernels.pack_mask(rng.random((rows, n_in)) < 0.6)
    y = rng.integers(0, n_out, rows) if loss.startswith("softmax") else rng.random((rows, n_out))
    row_weights = rng.random(rows) + 0.5

    def forward():
        x = kernels.masked_gemm(z, np.eye(n_in), activation=activation)
        out = kernels.masked_gemm(x, weight, bias, mask=mask, scale=1.6)
        return x, *getattr(kernels, loss)(out, y, row_weights)

    x, _, dout = forward()
    got = kernels.masked_gradients(dout, x, weight, mask=mask, scale=1.6, activation=activation)
    for gradient, array in zip(got, (z, weight, bias), strict=True):
        assert_gradient(gradient, central_differences(lambda: forward()[1], array))
