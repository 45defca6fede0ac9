"""Backgrounds of the input, and the choice between lists and dense products: speed changes, results do not."""

import copy

import numpy as np
import pytest
from conftest import THREADS, TOLERANCE, digest

from cdrop import Network, kernels, reference
from cdrop._background import find_background


def ink(rows=300, columns=70, share=0.2, seed=0, dtype="float64"):
    """Mostly paper: ink on a `share` of the entries, minus the mean of all."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((rows, columns)) < share, rng.random((rows, columns)), 0)
    x[:, 5] = 0  # a column that is always paper
    return (x - x.mean()).astype(dtype)


def labels(rows=300, seed=0):
    return np.random.default_rng(seed).integers(0, 4, rows)


def train(x, *, background, threads=None, **settings):
    units = [
        x.shape[1],
        401,
        20,
        4,
    ]  # more units next to the background than any path has in a panel
    net = Network(units, dropout=0.4, seed=3, dtype=x.dtype, threads=threads, **settings)
    if not background:
        net._set_background(None)  # decided: none
    net.fit(x, labels(len(x)), l2=1e-3, batch_size=50, iterations=20)
    return net


def test_the_article_s_mean_is_found():
    x = ink()
    background = find_background(x)
    assert background.dtype == x.dtype
    assert np.array_equal(background, np.full(70, x[0, 5]))


def test_backgrounds_may_differ_from_feature_to_feature():
    x = ink() - np.arange(70) / 7
    expected = ink()[0, 5] - np.arange(70) / 7
    assert np.array_equal(find_background(x), expected)


@pytest.mark.parametrize(
    "x",
    [
        np.random.default_rng(1).standard_normal((300, 20)),
        np.where(np.random.default_rng(1).random((300, 20)) < 0.2, 1.0, 0.0),
        1e4 + np.random.default_rng(1).standard_normal((300, 20)),
        np.where(np.random.default_rng(1).random((300, 20)) < 0.2, 1e4 + 1, 1e4),
    ],
    ids=["dense", "zeros already", "far from 0", "far above its spread"],
)
def test_no_background_where_it_would_not_pay_or_would_cost_digits(x):
    assert find_background(x) is None


def test_a_column_far_above_its_spread_has_no_background_and_the_others_keep_theirs():
    x = ink()
    expected = np.full(70, x[0, 5])
    x[:, 9] = np.where(x[:, 9] == expected[9], 1e4, 1e4 + 1)
    expected[9] = 0
    np.testing.assert_array_equal(find_background(x), expected)


def errors_of(x, *, background, **settings):
    """How far a step and a prediction in float32 are from the twin's in float64, relative to them."""
    y, wide = labels(len(x)), x.astype("float64")
    net = Network([x.shape[1], 33, 4], seed=3, **settings)
    if not background:
        net._set_background(None)
    net.fit(x, y, iterations=0)
    spec = reference.NetworkSpec(net.units, seed=3, **settings)
    params = [[a.astype("float64") for a in part] for part in (net.coefs_, net.intercepts_)]
    start, state = copy.deepcopy(params[0][0]), reference.initial_state(params, "sgd")
    own, rate = net.coefs_[0], 1e3  # large steps, so that rounding the weights hides nothing
    outputs = reference.forward(params, wide, spec)[-1]
    error = np.abs(net._predicted(x, "outputs") - outputs).max() / np.abs(outputs).max()
    net.train_step(x, y, optimizer="sgd", learning_rate=rate)
    reference.train_step(params, state, wide, y, spec, step=1, learning_rate=rate)
    moved = params[0][0] - start
    return error, np.abs(net.coefs_[0] - own - moved).max() / np.abs(moved).max(), net


# float32 rounds to 6e-8, and a sum of 300 such numbers to a few times that.
@pytest.mark.parametrize(
    ("make", "settings", "has_background", "limit"),
    [
        (ink, {}, True, 1e-6),
        (ink, {"input_dropout": 0.2}, False, 1e-6),
        (lambda: 1e4 + np.random.default_rng(2).standard_normal((300, 70)), {}, False, 1e-6),
        (lambda: np.where(ink() > 0, 1e4 + 1, 1e4), {}, False, 1e-6),
    ],
    ids=["ink", "input dropout", "column mean 1e4", "ink on 1e4"],
)
def test_a_background_costs_no_accuracy(make, settings, has_background, limit):
    x = make().astype("float32")
    *errors, net = errors_of(x, background=True, **settings)
    *without, _ = errors_of(x, background=False, **settings)
    assert net._background.any() == has_background
    for error, plain in zip(errors, without, strict=True):
        assert error < limit
        assert error < 2 * plain


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_training_on_a_background_is_training(dtype, activation):
    x = ink(dtype=dtype)
    plain, shifted = (train(x, background=b, activation=activation) for b in (False, True))
    assert shifted._background.any()
    tolerance = {"float32": 2e-4, "float64": 1e-11}[dtype]
    for a, b in zip(
        plain.coefs_ + plain.intercepts_, shifted.coefs_ + shifted.intercepts_, strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance)
    np.testing.assert_allclose(shifted.history.loss, plain.history.loss, rtol=10 * tolerance)
    np.testing.assert_allclose(
        shifted.predict_proba(x), plain.predict_proba(x), atol=10 * tolerance
    )


def test_columns_far_from_zero_train_as_they_are():
    x = 1e4 + np.random.default_rng(2).standard_normal((300, 70))
    net = train(x, background=True)
    assert not net._background.any()


def test_input_dropout_takes_no_background():
    x = ink()
    with_, without = (train(x, background=b, input_dropout=0.2) for b in (True, False))
    assert not with_._background.any()
    assert all(np.array_equal(a, b) for a, b in zip(with_.coefs_, without.coefs_, strict=True))


def test_same_bytes_at_any_thread_count_and_on_every_path(on_each_path):
    def digests():
        nets = (train(ink(dtype="float32"), background=True, threads=t) for t in THREADS)
        return {digest(net) for net in nets}

    assert len(set.union(*on_each_path(digests).values())) == 1


def test_the_background_is_part_of_the_state():
    x, y = ink(), labels()
    whole = train(x, background=True)
    half = copy.deepcopy(whole)
    whole.fit(x, y, iterations=10)
    half.fit(x * 2, y, iterations=0)  # other data does not change what the first fit found
    half.fit(x, y, iterations=10)
    assert np.array_equal(half._background, whole._background)
    assert all(np.array_equal(a, b) for a, b in zip(half.coefs_, whole.coefs_, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_in", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("n_out", [1, 16, 70, 130, 200])
def test_lists_and_dense_products_agree_to_the_bit(simd, dtype, n_in, n_out):
    """The same rows among many full or many empty ones: the sample then chooses the one product or the other."""
    rng = np.random.default_rng(n_in + n_out)
    rows, w = (
        rng.standard_normal((7, n_in)).astype(dtype),
        rng.standard_normal((n_in, n_out)).astype(dtype),
    )
    d = rng.standard_normal((7, n_out)).astype(dtype)
    # 60 empty rows after 7 full ones: at most 1 of the 8 sampled rows is full.
    sparse_x, sparse_d = (
        np.vstack([rows, np.zeros((60, n_in), dtype)]),
        np.vstack([d, np.zeros((60, n_out), dtype)]),
    )
    few = kernels.masked_gradients(d, rows, w)
    many = kernels.masked_gradients(sparse_d, sparse_x, w)
    assert np.array_equal(kernels.masked_gemm(rows, w), kernels.masked_gemm(sparse_x, w)[:7])
    assert np.array_equal(few[0], many[0][:7])
    assert np.array_equal(few[1], many[1])
    np.testing.assert_allclose(few[1], rows.T @ d, rtol=0, atol=100 * TOLERANCE["product"][dtype])
