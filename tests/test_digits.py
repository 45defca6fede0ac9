"""Drawn digits: the same bytes everywhere, balanced, legible, and not too easy."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from cdrop.datasets import digits, drawn_digits, make_digits

# SHA-256 of the images' and then the labels' bytes of make_digits(50, seed). Recorded with NumPy 2.4 on
# x86-64 with AVX-512, and found again with NumPy 2.0, and with all of NumPy's SIMD switched off.
GOLDEN = {
    0: "893c6900ec0969c2dd103fb4b9b01b65978d339606d5b377daeb3ee315855a50",
    2**64 - 1: "0a50f70b4aac89ad00d3a30a426ca45644089c0803cccf6925c48fcfd5584efb",
}


def digest(n, seed):
    images, labels = make_digits(n, seed)
    return hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


@pytest.fixture(scope="module")
def sample():
    return make_digits(4000, seed=5)


@pytest.mark.parametrize("seed", GOLDEN)
def test_bytes_are_the_recorded_ones(seed):
    assert digest(50, seed) == GOLDEN[seed]


def test_bytes_do_not_depend_on_the_cpu():
    from numpy._core import _multiarray_umath as core

    here = [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]
    if not here:
        pytest.skip("NumPy has no optional SIMD path here")
    code = (
        "import hashlib; from cdrop.datasets import make_digits; x, y = make_digits(50, 0); "
        "print(hashlib.sha256(x.tobytes() + y.astype('<i8').tobytes()).hexdigest())"
    )
    environment = os.environ | {
        "NPY_DISABLE_CPU_FEATURES": " ".join(here),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == GOLDEN[0]


def test_shapes_and_types(sample):
    images, labels = sample
    assert images.shape == (4000, 28, 28)
    assert images.dtype == np.uint8
    assert labels.shape == (4000,)
    assert labels.dtype == np.int64


@pytest.mark.parametrize("n", [0, 1, 9, 10, 11, 513])
def test_fewer_digits_are_the_start_of_more(sample, n):
    images, labels = make_digits(n, seed=5)
    np.testing.assert_array_equal(images, sample[0][:n])
    np.testing.assert_array_equal(labels, sample[1][:n])


def test_bytes_do_not_depend_on_the_chunks(sample, monkeypatch):
    monkeypatch.setattr(digits, "_CHUNK", 7)
    np.testing.assert_array_equal(make_digits(40, seed=5)[0], sample[0][:40])


def test_every_ten_hold_each_digit_once_in_varying_order(sample):
    tens = sample[1].reshape(-1, 10)
    np.testing.assert_array_equal(np.sort(tens, axis=1), np.tile(np.arange(10), (400, 1)))
    assert len(np.unique(tens, axis=0)) > 390


def test_no_two_images_are_equal(sample):
    assert len(np.unique(sample[0].reshape(len(sample[0]), -1), axis=0)) == len(sample[0])


def test_other_seeds_give_other_digits(sample):
    images, labels = make_digits(4000, seed=6)
    assert (images != sample[0]).any(axis=(1, 2)).all()
    assert (labels == sample[1]).mean() == pytest.approx(0.1, abs=0.03)


def test_ink_is_about_as_much_as_mnists(sample):
    images = sample[0]
    # MNIST: 19 % of the pixels have ink, and their mean is 33.
    assert (images > 0).mean() == pytest.approx(0.19, abs=0.05)
    assert images.mean() == pytest.approx(33, abs=6)
    assert (images.reshape(len(images), -1).max(axis=1) > 150).all()


def test_digits_are_legible_but_not_trivial(sample):
    flat = sample[0].reshape(len(sample[0]), -1).astype(float)
    train, test = slice(0, 3000), slice(3000, None)
    means = np.stack([flat[train][sample[1][train] == digit].mean(axis=0) for digit in range(10)])
    distance = (means**2).sum(axis=1) - 2 * flat[test] @ means.T
    accuracy = (distance.argmin(axis=1) == sample[1][test]).mean()
    # The nearest class mean gets 82 % of MNIST right.
    assert 0.6 < accuracy < 0.9


def test_every_image_has_the_uniforms_it_asks_for():
    words = np.random.Philox(key=1).random_raw(10 * digits._WORDS).reshape(10, -1)
    asked = []

    class Counted(digits._Draws):
        def uniform(self, width=1):
            values = super().uniform(width)
            asked.append(values.shape[1] == width)
            return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "_Draws", Counted)
        digits._draw(np.arange(10), words)
    assert len(asked) > 10
    assert all(asked)


def test_every_template_has_its_points_and_passes_through_its_knots():
    paths = digits._paths()
    assert len(paths.knots) == sum(len(variants) for variants in digits._TEMPLATES)
    np.testing.assert_allclose(paths.weight.sum(axis=2), 1, atol=1e-6)
    curve = (
        paths.weight[..., None]
        * paths.knots[np.arange(len(paths.knots))[:, None, None], paths.near]
    ).sum(axis=2)
    for path, template in zip(curve, sum(digits._TEMPLATES, ()), strict=True):
        knots = np.array(digits._parse(template)[0]) / 50 - 1
        nearest = np.sqrt(((path[:, None] - knots) ** 2).sum(axis=2)).min(axis=0)
        assert nearest.max() < 0.06  # a point's distance, on a digit 2 high


@pytest.mark.parametrize("bad", [1.0, "3", None, True, np.float64(2), np.True_])
@pytest.mark.parametrize("name", ["n", "seed"])
def test_what_is_not_an_integer_is_refused(name, bad):
    with pytest.raises(TypeError, match=f"{name} is .*; expected an integer"):
        make_digits(**{"n": 1, name: bad})


@pytest.mark.parametrize(("name", "bad"), [("n", -1), ("n", 2**70), ("seed", -1), ("seed", 2**64)])
def test_what_is_out_of_range_is_refused(name, bad):
    with pytest.raises(ValueError, match=f"{name} is {bad}; expected an integer between 0 and "):
        make_digits(**{"n": 1, name: bad})


def test_numpy_integers_are_taken():
    np.testing.assert_array_equal(make_digits(np.int32(3), np.uint64(5))[1], make_digits(3, 5)[1])


def test_dataset_is_split_as_mnist_is():
    data = drawn_digits(seed=5)
    images, labels = make_digits(70, seed=5)
    assert "not MNIST" in data.name
    assert "seed=5" in data.source
    assert [len(x) for x in (data.X_val, data.X_train, data.X_test)] == [5000, 55_000, 10_000]
    assert [len(y) for y in (data.y_val, data.y_train, data.y_test)] == [5000, 55_000, 10_000]
    np.testing.assert_array_equal(data.X_val[:70], images)
    np.testing.assert_array_equal(data.y_val[:70], labels)
    with pytest.raises(ValueError, match="seed"):
        drawn_digits(seed=-1)
