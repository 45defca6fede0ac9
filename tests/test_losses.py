"""The losses and their gradients: by hand, at extremes, weighted, and the same on every path."""

import math

import numpy as np
import pytest
from conftest import EDGES, LOSSES, TOLERANCE, assert_close
from test_kernels import assert_gradient, central_differences

from cdrop import kernels, reference


def case(name, rows, n, dtype, seed=0):
    rng = np.random.default_rng(seed)
    outputs = (3 * rng.standard_normal((rows, n))).astype(dtype)
    if name == "softmax_cross_entropy":
        return outputs, rng.integers(0, n, rows)
    return outputs, rng.random((rows, n)).astype(dtype)


def test_losses_of_plain_numbers(dtype, simd):
    z = np.array([[0.5, -1.0, 2.0], [0.0, 0.25, -3.0]], dtype)
    t = np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.25]], dtype)
    softmax = [
        math.log(sum(math.exp(v - row[k]) for v in row)) for row, k in zip(z, (2, 0), strict=True)
    ]
    s = 1 / (1 + np.exp(-z.astype(float)))
    sigmoid = -(t * np.log(s) + (1 - t) * np.log(1 - s)).sum(axis=1)
    square = 0.5 * ((z - t).astype(float) ** 2).sum(axis=1)
    share = np.array([[0.25], [0.75]])
    exponentials = np.exp(z.astype(float))
    gradients = [exponentials / exponentials.sum(axis=1, keepdims=True), s - t, z - t]
    gradients[0][[0, 1], [2, 0]] -= 1
    for rows, y, name, expected in zip(
        (softmax, sigmoid, square), (np.array([2, 0]), t, t), LOSSES, gradients, strict=True
    ):
        loss = getattr(kernels, name)
        value, gradient = loss(z, y, np.array([1.0, 3.0]))
        assert type(value) is float
        assert value == pytest.approx((rows[0] + 3 * rows[1]) / 4, rel=TOLERANCE["loss"][dtype])
        assert_close(gradient, (expected * share).astype(dtype), "loss")
        assert loss(z, y)[0] == pytest.approx(sum(rows) / 2, rel=TOLERANCE["loss"][dtype])


def test_losses_are_stable_for_logits_of_any_size(dtype, simd):
    z = np.array([[1e4, -1e4], [1e4, -1e4], [-1e30, 1e30]], dtype)
    loss, gradient = kernels.softmax_cross_entropy(z[:2], [0, 1])
    assert loss == 1e4  # rows 0 and 2e4
    assert gradient.tolist() == [[0.0, 0.0], [0.5, -0.5]]
    assert kernels.softmax_cross_entropy(z[2:], [1])[0] == 0.0
    loss, gradient = kernels.sigmoid_cross_entropy(z[:2], np.array([[1, 0], [0, 0.5]], dtype))
    assert loss == pytest.approx(0.5 * (1e4 + 5e3), rel=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0], [0.5, -0.25]], atol=0)
    tiny = kernels.sigmoid_cross_entropy(np.array([[-40.0]], dtype), np.zeros((1, 1), dtype))
    np.testing.assert_allclose([tiny[0], tiny[1][0, 0]], math.exp(-40), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3, 1e30])
@pytest.mark.parametrize("name", LOSSES[:2])
def test_cross_entropies_over_many_scales(name, scale, dtype, simd):
    z, y = case(name, 20, 37, dtype)
    z *= np.array(scale, dtype)
    loss, gradient = getattr(kernels, name)(z, y)
    expected, expected_gradient = getattr(reference, name)(z, y)
    assert loss == pytest.approx(expected, rel=TOLERANCE["loss"][dtype])
    assert_close(gradient, expected_gradient, "loss")
    if name == "softmax_cross_entropy":
        np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=TOLERANCE["loss"][dtype])


def test_one_class_has_nothing_to_learn(dtype, simd):
    loss, gradient = kernels.softmax_cross_entropy(np.array([[3.0], [-1e9]], dtype), [0, 0])
    assert loss == 0.0
    assert gradient.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_of_weight_two_counts_as_two_rows(name, dtype, simd):
    z, y = case(name, 3, 21, dtype)
    twice = [0, 1, 1]
    loss, gradient = getattr(kernels, name)(z, y, np.array([1.0, 2.0, 0.0]))
    same, rows = getattr(kernels, name)(z[twice], y[twice])
    assert loss == pytest.approx(same, rel=TOLERANCE["loss"][dtype])
    assert_close(gradient, np.array([rows[0], rows[1] + rows[2], 0 * rows[0]]), "loss")
    scaled = getattr(kernels, name)(z, y, np.array([0.25, 0.5, 0.0]))  # only ratios matter
    assert scaled[0] == loss
    np.testing.assert_array_equal(scaled[1], gradient)


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_without_weight_may_hold_anything_finite(name, dtype, simd):
    z, y = case(name, 2, 5, dtype)
    z[1] = [1e30, -1e30, 0, 1e30, -1e30]
    loss, gradient = getattr(kernels, name)(z, y, [1.0, 0.0])
    assert loss == getattr(kernels, name)(z[:1], y[:1])[0]
    assert not gradient[1].any()


@pytest.mark.parametrize("kind", [bool, np.int32, np.float32, np.float64, list])
def test_weights_of_any_real_dtype(kind):
    z, y = case("squared_error", 3, 2, "float32")
    weights = [1, 0, 1] if kind is list else np.array([1, 0, 1], kind)
    assert kernels.squared_error(z, y, weights)[0] == kernels.squared_error(z[::2], y[::2])[0]


@pytest.mark.parametrize("kind", ["i1", "u1", "i4", "u8", ">i8", list])
def test_labels_of_any_integer_dtype(kind):
    z, y = case("softmax_cross_entropy", 9, 4, "float32")
    labels = y.tolist() if kind is list else y.astype(kind)
    assert kernels.softmax_cross_entropy(z, labels)[0] == kernels.softmax_cross_entropy(z, y)[0]


@pytest.mark.isa
@pytest.mark.parametrize("name", LOSSES)
def test_every_path_gives_the_same_bytes(name, dtype, on_each_path):
    def results():
        for n in sorted({*EDGES, *range(1, 40)} - {0}):
            loss, gradient = getattr(kernels, name)(*case(name, 3, n, dtype, seed=n))
            assert np.count_nonzero(gradient) >= 0.9 * gradient.size or n == 1
            yield loss.hex(), gradient.tobytes()

    by_path = on_each_path(lambda: list(results()))
    assert all(result == by_path["scalar"] for result in by_path.values())


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_against_central_differences(name, simd):
    z, y = case(name, 4, 19, "float64", seed=1)
    weights = np.array([0.5, 1.0, 0.0, 2.0])
    loss = getattr(kernels, name)
    assert_gradient(loss(z, y, weights)[1], central_differences(lambda: loss(z, y, weights)[0], z))


@pytest.mark.parametrize("name", LOSSES)
def test_outputs_that_are_not_finite_give_a_loss_that_is_not(name, dtype, simd):
    for bad in (np.nan, np.inf):
        z, y = case(name, 3, 20, dtype)
        z[1, 17] = bad
        if name == "softmax_cross_entropy":
            y[1] = 3
        assert not math.isfinite(getattr(kernels, name)(z, y)[0]), bad
