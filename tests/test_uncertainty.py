"""Predictions under many masks: against the twin, by hand, in the limit; the same bytes everywhere.

``python tests/test_uncertainty.py`` records tests/data/uncertainty.json again: only where a change
of the arithmetic or of the masks is meant, which is one for the changelog.
"""

import hashlib
import itertools
import json
import math
import os
import time
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import (
    DTYPES,
    LOSSES,
    THREADS,
    assert_close,
    digest,
    problem,
    run_python,
    spec_of,
    with_biases,
)
from test_determinism import RUNS, data, trained

import cdrop
from cdrop import ClassificationUncertainty, Network, RegressionUncertainty, kernels, reference

RECORD = Path(__file__).with_name("data") / "uncertainty.json"
SAMPLES = 4  # the purpose of the masks

DESIGNS = [
    {"units": [9, 7, 4], "dropout": 0.5},
    {"units": [70, 65, 33, 5], "dropout": [0.5, 0.2], "input_dropout": 0.2, "scaling": "test"},
    {"units": [12, 3], "input_dropout": 0.3},
    {"units": [5, 130, 8, 1, 6], "dropout": [0.0, 0.0, 0.3], "activation": "leaky_relu"},
    {"units": [40, 300, 70, 21], "dropout": [0.0, 0.4], "activation": "tanh", "scaling": "test"},
    {"units": [8, 20, 1], "dropout": 0.25, "activation": "sigmoid"},
    {"units": [4, 2150, 9, 2], "dropout": 0.5},  # three rounds of 1,024 columns
]


def arrays(result):
    found = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: array for name, array in found.items() if array is not None}


def bytes_of(result):
    return b"".join(array.tobytes() for array in arrays(result).values())


def case(number, loss, dtype, rows=150):
    net = with_biases(Network(**DESIGNS[number], loss=loss, seed=number, dtype=dtype))
    return net, problem(net.units, loss, rows, number, dtype)[0]


# ---- What it computes ----------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("number", range(len(DESIGNS)))
def test_it_is_what_the_twin_says(number, loss, dtype, simd):
    net, x = case(number, loss, dtype)
    result = net.predict_uncertainty(x, 6, seed=11)
    kind = RegressionUncertainty if loss == "squared_error" else ClassificationUncertainty
    assert type(result) is kind
    twin = reference.uncertainty((net.coefs_, net.intercepts_), x, spec_of(net), 6, seed=11)
    assert arrays(result).keys() == twin.keys()
    for name, expected in twin.items():
        assert_close(getattr(result, name), expected, "product")
    if loss != "squared_error":
        assert net.predict_proba(x, 6, seed=11).tobytes() == result.mean.tobytes()


def test_it_is_what_plain_numpy_says():
    """Nothing of the twin: masks from the kernel, the layers and the entropies in NumPy."""
    net = with_biases(Network([6, 5, 4, 3], dropout=[0.5, 0.25], seed=3, dtype="float64"))
    x = problem(net.units, rows=200, dtype="float64")[0]
    (w0, w1, w2), (b0, b1, b2) = net.coefs_, net.intercepts_
    each = []
    for t in range(4):
        key = {"seed": 8, "step": t, "purpose": SAMPLES}
        first = kernels.unpack_mask(kernels.bernoulli_mask(200, 5, 0.5, layer=1, **key), 5)
        second = kernels.unpack_mask(kernels.bernoulli_mask(200, 4, 0.75, layer=2, **key), 4)
        hidden = np.maximum(x @ w0 + b0, 0) * first / 0.5
        hidden = np.maximum(hidden @ w1 + b1, 0) * second / 0.75
        z = np.exp(hidden @ w2 + b2)
        each.append(z / z.sum(axis=1, keepdims=True))
    mean = np.mean(each, axis=0)
    entropies = [-(p * np.log(p)).sum(axis=-1) for p in (mean, np.array(each))]
    result = net.predict_uncertainty(x, 4, seed=8)
    close = {"rtol": 0, "atol": 1e-14}
    np.testing.assert_allclose(result.mean, mean, **close)
    np.testing.assert_allclose(result.predictive_entropy, entropies[0], **close)
    np.testing.assert_allclose(result.expected_entropy, entropies[1].mean(axis=0), **close)
    np.testing.assert_allclose(
        result.mutual_information, entropies[0] - entropies[1].mean(axis=0), **close
    )


def every_mask(net, x):
    """Outputs under every mask of input and hidden layer, each with its probability."""
    (w0, w1), (b0, b1) = net.coefs_, net.intercepts_
    keep_in, keep = 1 - net.input_dropout, 1 - net.dropout[0]
    up_in, up = (1 / keep_in, 1 / keep) if net.scaling == "train" else (1.0, 1.0)
    for bits in itertools.product([0, 1], repeat=len(w0) + len(w1)):
        m_in, m = np.split(np.array(bits), [len(w0)])
        chance = np.prod(np.where(m_in, keep_in, 1 - keep_in)) * np.prod(
            np.where(m, keep, 1 - keep)
        )
        yield chance, (np.maximum((x * m_in * up_in) @ w0 + b0, 0) * m * up) @ w1 + b1


@pytest.mark.parametrize("scaling", ["train", "test"])
@pytest.mark.parametrize("loss", LOSSES)
def test_means_come_to_the_exact_expectation(loss, scaling):
    net = Network([2, 4, 3], 0.4, 0.2, loss=loss, scaling=scaling, seed=5, dtype="float64")
    with_biases(net)
    x, n = np.array([[0.5, -1.0], [2.0, 1.0]]), 40_000
    chances, z = map(np.array, zip(*every_mask(net, x), strict=True))
    assert math.isclose(chances.sum(), 1)
    if loss == "softmax_cross_entropy":
        p = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
        entropy = -(p * np.log(p)).sum(axis=2)
    elif loss == "sigmoid_cross_entropy":
        p = 1 / (1 + np.exp(-z))
        entropy = -p * np.log(p) - (1 - p) * np.log1p(-p)
    else:
        p, entropy = z, None

    def expected(values):
        return np.tensordot(chances, values, 1)

    def within(found, values):
        """Within 5 standard errors."""
        error = np.sqrt(expected((values - expected(values)) ** 2) / n)
        assert (np.abs(found - expected(values)) < 5 * error).all()

    result = net.predict_uncertainty(x, n)
    within(result.mean, p)
    if entropy is None:
        spread = np.sqrt(expected((p - expected(p)) ** 2))
        np.testing.assert_allclose(result.std, spread, rtol=0.03)
    else:
        within(result.expected_entropy, entropy)
        mean = expected(p)
        terms = -mean * np.log(mean)
        labels = loss == "sigmoid_cross_entropy"
        exact = terms - (1 - mean) * np.log(1 - mean) if labels else terms.sum(axis=-1)
        np.testing.assert_allclose(result.predictive_entropy, exact, rtol=0.02)
        np.testing.assert_allclose(result.mutual_information, exact - expected(entropy), rtol=0.05)


@pytest.mark.parametrize("loss", LOSSES)
def test_one_mask_disagrees_with_none(loss, dtype):
    net, x = case(1, loss, dtype)
    result = net.predict_uncertainty(x, 1)
    if loss == "squared_error":
        assert not result.std.any()
    else:
        assert result.mutual_information.max() < 1e-15
        assert result.expected_entropy.min() > 0


@pytest.mark.parametrize("loss", LOSSES[:2])
def test_information_is_never_negative(loss, dtype):
    """Small weights: entropies are all but equal, and their difference is rounding."""
    net = Network([20, 30, 4], dropout=0.5, loss=loss, dtype=dtype)
    weight, bias = net._engine.get(1, 0)
    net._engine.set(1, 0, weight * 1e-9, bias)
    result = net.predict_uncertainty(problem(net.units, rows=500)[0], 7)
    assert (result.mutual_information >= 0).all()
    assert not np.signbit(result.mutual_information).any()
    assert result.mutual_information.max() < 1e-14


def test_the_std_of_far_outputs_keeps_its_digits(dtype):
    near = Network([20, 30, 2], dropout=0.5, loss="squared_error", dtype="float64")
    far = Network([20, 30, 2], dropout=0.5, loss="squared_error", dtype="float64")
    weight, bias = far._engine.get(1, 0)
    far._engine.set(1, 0, weight, bias + 1e6)
    x = problem(near.units, rows=100)[0]
    stds = [net.predict_uncertainty(x, 30).std for net in (near, far)]
    np.testing.assert_allclose(stds[1], stds[0], rtol=1e-8)


@pytest.mark.parametrize("size", [1e3, 1e30])
@pytest.mark.parametrize("loss", LOSSES[:2])
def test_large_logits_are_certain_and_finite(loss, size):
    net = Network([20, 30, 4], dropout=0.5, loss=loss)
    weight, bias = net._engine.get(1, 0)
    net._engine.set(1, 0, weight * size, bias)
    result = net.predict_uncertainty(problem(net.units, rows=50)[0], 5)
    for array in arrays(result).values():
        assert np.isfinite(array).all()
    assert result.mutual_information.max() > 0.1  # masks that are certain of different labels
    assert np.median(result.expected_entropy) < 0.05


@pytest.mark.parametrize("loss", LOSSES)
def test_nan_weights_never_look_certain(loss):
    net = Network([5, 30, 3], dropout=0.5, loss=loss)
    weight, bias = net._engine.get(1, 0)
    net._engine.set(1, 0, weight * np.nan, bias)
    for array in arrays(net.predict_uncertainty(np.ones((3, 5)), 20)).values():
        assert np.isnan(array).all()


def test_a_background_changes_rounding_only():
    x, y = problem([20, 3], rows=300)
    x = np.where(x > 1, x, np.float32(-0.5))
    net = Network([20, 40, 3], dropout=0.5, seed=2)
    net.fit(x, y, iterations=30)
    assert net._background.any()
    twin = reference.uncertainty((net.coefs_, net.intercepts_), x, spec_of(net), 5)
    for name, array in arrays(net.predict_uncertainty(x, 5)).items():
        assert_close(array, twin[name], "product")


# ---- What it depends on --------------------------------------------------------------------

DROPPING = [name for name, (net, _) in RUNS.items() if net.get("dropout") or "input_dropout" in net]


def hash_of(name, dtype, **settings):
    """Hash of the uncertainty of a trained network and its subnetworks."""
    net = trained(name, dtype, **settings)
    x = data(name, dtype)[0]
    result = [net.predict_uncertainty(x, 9, seed=1), net.subnetworks(7).predict_uncertainty(x)]
    sha = hashlib.sha256()
    for array in itertools.chain.from_iterable(arrays(each).values() for each in result):
        sha.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return sha.hexdigest()


def hashes():
    return {f"{name}-{dtype}": hash_of(name, dtype) for name in DROPPING for dtype in DTYPES}


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RECORD.read_text())["sha256"]


@pytest.mark.parametrize("name", DROPPING)
def test_bytes_are_the_recorded_ones_on_every_path(name, dtype, simd, recorded):
    assert hash_of(name, dtype) == recorded[f"{name}-{dtype}"]


@pytest.mark.parametrize("name", DROPPING)
def test_bytes_do_not_depend_on_threads(name, dtype, recorded):
    for threads in THREADS:
        assert hash_of(name, dtype, threads=threads) == recorded[f"{name}-{dtype}"]


@pytest.mark.isa
@pytest.mark.parametrize("path", kernels.simd_paths())
def test_bytes_are_the_recorded_ones_in_another_process(path, recorded):
    code = "import json, test_uncertainty as t; print(json.dumps(t.hashes()))"
    process = run_python(code, CDROP_SIMD=path, CDROP_NUM_THREADS="3")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == recorded
    assert len(set(recorded.values())) == len(recorded)


def test_bytes_do_not_depend_on_how_rows_are_cut(monkeypatch):
    net, x = case(1, LOSSES[0], "float32", rows=1000)
    whole = bytes_of(net.predict_uncertainty(x, 5))
    roomy, _ = case(1, LOSSES[0], "float32")
    roomy.train_step(*problem(net.units, rows=777), learning_rate=1e-30)  # longer chunks
    roomy.load_state_dict(net.state_dict())
    assert bytes_of(roomy.predict_uncertainty(x, 5)) == whole
    monkeypatch.setattr("cdrop.network._PIECE", 1)
    assert bytes_of(net.predict_uncertainty(x, 5)) == whole
    monkeypatch.setattr("cdrop.network._PIECE", 2**22)
    monkeypatch.setattr("cdrop.network._PASSED_ROWS", 5 * 330)
    assert bytes_of(net.predict_uncertainty(x, 5)) == whole


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 257, 400])
def test_a_row_does_not_depend_on_those_after_it(rows):
    net, x = case(0, LOSSES[0], "float32", rows=500)
    whole, part = net.predict_uncertainty(x, 3), net.predict_uncertainty(x[:rows], 3)
    for name, array in arrays(part).items():
        np.testing.assert_array_equal(array, getattr(whole, name)[:rows], strict=True)


@pytest.mark.isa
def test_any_width_gives_the_same_bytes(dtype, on_each_path):
    def results():
        for n in range(1, 131, 3):
            net = Network(
                [1 + n % 7, n, 1 + 7 * n % 67, 1 + n % 19],
                dropout=0.3,
                loss=LOSSES[n % 3],
                seed=n,
                dtype=dtype,
                threads=1 + n % 3,
            )
            x = problem(net.units, rows=1 + n % 70, seed=n, dtype=dtype)[0]
            yield bytes_of(net.predict_uncertainty(x, 3))

    by_path = on_each_path(lambda: list(results()))
    assert len(set(by_path["scalar"])) == 44
    assert all(result == by_path["scalar"] for result in by_path.values())


def test_the_seed_is_the_network_s_unless_another_is_given():
    net, x = case(0, LOSSES[0], "float32")
    seeds = (None, net.seed, net.seed + 1)
    result = [bytes_of(net.predict_uncertainty(x, 5, seed=seed)) for seed in seeds]
    assert result[0] == result[1] != result[2]
    assert bytes_of(net.predict_uncertainty(x, 5)) == result[0]


def test_masks_of_predictions_are_not_those_of_training():
    """Pass t of a prediction against the forward pass of step t in training."""
    net, x = case(2, LOSSES[2], "float64")
    params, spec = (net.coefs_, net.intercepts_), spec_of(net)
    result = net.predict_uncertainty(x, 1).mean
    for purpose, same in ((0, False), (SAMPLES, True)):
        masks = reference.keyed_masks(spec, len(x), 0, purpose=purpose)
        outputs = reference.forward(params, x, spec, masks=masks)[-1]
        assert np.allclose(result, outputs) == same


def test_predicting_changes_nothing():
    x, y = problem([20, 3], rows=300)
    quiet, asked = (Network([20, 17, 3], dropout=0.5) for _ in range(2))
    for net in (quiet, asked):
        for _ in range(4):
            net.fit(x, y, iterations=5)
            if net is asked:
                net.predict_uncertainty(x, 3)
                net.subnetworks(2).predict_proba(x[:7])
    assert digest(asked) == digest(quiet)
    assert asked.predict_proba(x).tobytes() == quiet.predict_proba(x).tobytes()


@pytest.mark.parametrize("number", [0, 1, 4])
def test_every_kind_of_input(number, tmp_path):
    net, x = case(number, LOSSES[0], "float32")
    expected = bytes_of(net.predict_uncertainty(x, 4))
    stored = np.memmap(tmp_path / "x", x.dtype, "w+", shape=x.shape)
    stored[:] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    others = [frozen, stored, np.asfortranarray(x), x.astype("f8"), x[::-1].copy()[::-1]]
    for other in [*others, sp.csr_array(x), sp.coo_array(x), x.tolist()]:
        assert bytes_of(net.predict_uncertainty(other, 4)) == expected


def test_the_first_product_is_computed_once():
    """The wide first layer costs far more than all others; 64 passes cost less than 8 of it."""
    net = Network([8192, 256, 16, 2], dropout=[0.0, 0.5], threads=1)
    x = np.random.default_rng(0).standard_normal((256, 8192), np.float32)

    def cost(passes):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            net.predict_uncertainty(x, passes)
            times.append(time.perf_counter() - start)
        return min(times)

    assert cost(64) < 8 * cost(1)


# ---- What is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("units", [[5, 4, 3], [5, 3]])
def test_without_dropout_it_is_refused(units):
    net, x = Network(units), np.ones((2, 5))
    asks = [lambda: net.predict_uncertainty(x), lambda: net.predict_proba(x, 3)]
    for call in [*asks, lambda: net.subnetworks(3)]:
        with pytest.raises(ValueError, match="all rates of this network are 0"):
            call()


def test_rates_that_round_to_0_are_refused():
    with pytest.raises(ValueError, match="all rates of this network are 0"):
        Network([5, 4, 3], dropout=1e-12).predict_uncertainty(np.ones((2, 5)))


def test_squared_error_has_no_probabilities():
    net = Network([5, 4, 3], dropout=0.5, loss="squared_error")
    with pytest.raises(ValueError, match="predict_proba needs a cross-entropy loss"):
        net.predict_proba(np.ones((2, 5)), 3)


def test_what_is_reported_is_frozen():
    result = Network([5, 4, 3], dropout=0.5).predict_uncertainty(np.ones((2, 5)))
    with pytest.raises(FrozenInstanceError):
        result.mean = None


def test_probabilities_without_samples_are_as_ever():
    net, x = case(0, LOSSES[0], "float32")
    assert net.predict_proba(x).tobytes() == net.predict_proba(x, None, seed=3).tobytes()


@pytest.mark.mnist
@pytest.mark.skipif("CDROP_DATA" not in os.environ, reason="no real MNIST here")
def test_rotated_digits_are_less_certain_than_clean_ones():
    features = cdrop.datasets.load_mnist().to_features()
    net = cdrop.make_network(784, 10, H=256, dropout=0.5, seed=1)
    net.fit(features.X_train[:20_000], features.y_train[:20_000], epochs=3)
    clean = features.X_test[:1000]
    rotated = np.rot90(clean.reshape(-1, 28, 28), axes=(1, 2)).reshape(-1, 784)
    information = [net.predict_uncertainty(x).mutual_information for x in (clean, rotated)]
    ranks = np.argsort(np.argsort(np.concatenate(information)))
    auroc = (ranks[1000:].sum() - 1000 * 999 / 2) / 1000**2
    assert auroc > 0.85


def main():
    about = "sha256 of the uncertainty of trained networks; python tests/test_uncertainty.py"
    RECORD.write_text(json.dumps({"about": about, "sha256": hashes()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
