"""Same seed, same weights, byte for byte: recorded, at any number of threads, on every path.

``python tests/test_determinism.py`` records tests/data/weights.json again: only where a change of
the arithmetic is meant, which is one for the changelog.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    ACTIVATIONS,
    DTYPES,
    OPTIMIZERS,
    THREADS,
    digest,
    parameters,
    problem,
    run_python,
)

import cdrop
from cdrop import Network, kernels, make_network

RECORD = Path(__file__).with_name("data") / "weights.json"

# Odd sizes, every activation, loss, rule and form of dropout: (network, fit).
RUNS = {
    "article": (
        {"units": [784, 256, 256, 10], "dropout": 0.5},
        {"l2": 1e-3, "batch_size": 256, "iterations": 6},
    ),
    "odd": (
        {"units": [70, 65, 131, 10], "dropout": [0.5, 0.2], "input_dropout": 0.2, "seed": 1},
        {"optimizer": "adam", "l2": 1e-3, "batch_size": 77, "iterations": 25},
    ),
    "tanh": (
        {"units": [33, 129, 17], "dropout": 0.3, "activation": "tanh", "seed": 2},
        {"optimizer": "nesterov", "batch_size": 64, "epochs": 3},
    ),
    "several-labels": (
        {"units": [19, 70, 40, 21], "dropout": 0.1, "activation": "leaky_relu", "scaling": "test"}
        | {"loss": "sigmoid_cross_entropy", "seed": 3},
        {"optimizer": "adagrad", "batch_size": 130, "iterations": 20, "learning_rate": 0.05},
    ),
    "numbers": (
        {"units": [15, 63, 2], "input_dropout": 0.5, "activation": "sigmoid", "seed": 2**64 - 1}
        | {"loss": "squared_error", "initializer": "glorot"},
        {"optimizer": "adamw", "batch_size": 31, "epochs": 2},
    ),
    "deep": (
        {"units": [9, 8, 64, 1, 65, 7, 3], "dropout": 0.25, "seed": 4},
        {"optimizer": "momentum", "batch_size": 300, "iterations": 30, "l2": 0.01},
    ),
    "limited": (
        {"units": [70, 131, 65, 10], "dropout": 0.5, "input_dropout": 0.2, "seed": 6},
        {"l2": 1e-3, "max_norm": 1.2, "batch_size": 77, "iterations": 25},
    ),
    "linear": (
        {"units": [300, 3], "activation": "identity", "seed": 5},
        {"optimizer": "sgd", "learning_rate": 0.1, "batch_size": 5, "iterations": 200},
    ),
}


@functools.cache
def data(name, dtype):
    """Rows, labels or targets and weights from cdrop's own words: NumPy may change its streams."""
    network, _ = RUNS[name]
    units, loss = network["units"], network.get("loss", "softmax_cross_entropy")

    def unit_uniform(*shape, layer):
        words = kernels.random_words(int(np.prod(shape)), seed=7, layer=layer)
        return ((words >> 40) * 2.0**-24).reshape(shape)

    rows = 512 if name == "article" else 301
    x = unit_uniform(rows, units[0], layer=0)
    x = np.where(x < 0.3, 0.0, x - 0.65).astype(dtype)
    y = unit_uniform(rows, units[-1], layer=1)
    labels = y.argmax(axis=1) if loss == "softmax_cross_entropy" else y.astype(dtype)
    return x, labels, unit_uniform(rows, layer=2) if len(units) % 2 else None


def trained(name, dtype, **settings):
    network, fit = RUNS[name]
    net = Network(**network, dtype=dtype, **settings)
    net.fit(*data(name, dtype), **fit)
    return net


def digests():
    """Return the hashes of all runs, as recorded."""
    return {f"{name}-{dtype}": digest(trained(name, dtype)) for name in RUNS for dtype in DTYPES}


runs = pytest.mark.parametrize("name", RUNS)


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RECORD.read_text())["sha256"]


@runs
def test_weights_are_the_recorded_ones_on_every_path(name, dtype, simd, recorded):
    assert digest(trained(name, dtype)) == recorded[f"{name}-{dtype}"]


@runs
def test_weights_do_not_depend_on_threads(name, dtype, recorded):
    for threads in THREADS:
        assert digest(trained(name, dtype, threads=threads)) == recorded[f"{name}-{dtype}"]


def test_weights_do_not_depend_on_the_default_of_threads(threads, recorded):
    assert digest(trained("odd", "float32")) == recorded["odd-float32"]


@pytest.mark.isa
@pytest.mark.parametrize("path", kernels.simd_paths())
def test_weights_are_the_recorded_ones_in_another_process(path, recorded):
    code = "import json, test_determinism as t; print(json.dumps(t.digests()))"
    process = run_python(code, CDROP_SIMD=path, CDROP_NUM_THREADS="3")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == recorded


@runs
def test_recorded_runs_train_every_weight(name, dtype):
    """A comparison of numbers that are mostly zero or never move would not count."""
    network, _ = RUNS[name]
    net, start = trained(name, dtype), Network(**network, dtype=dtype)
    for after, before in zip(parameters(net), parameters(start), strict=True):
        assert np.isfinite(after).all()
        assert np.count_nonzero(after != before) > 0.5 * after.size
    assert len(set(net.history.loss)) > 0.9 * net.history.iterations


@pytest.mark.isa
def test_any_width_gives_the_same_bytes(dtype, on_each_path):
    def results():
        for n in range(1, 131):
            units = [n, 131 - n, 1 + n % 3, 1 + 7 * n % 67]
            x, y = problem(units, rows=1 + n % 70, seed=n, dtype=dtype)
            net = Network(units, dropout=0.3, activation=ACTIVATIONS[n % 5], seed=n, dtype=dtype)
            net.threads = 1 + n % 3
            net.fit(x, y, optimizer=OPTIMIZERS[n % 6], batch_size=64, iterations=2)
            yield digest(net), net.predict_proba(x).tobytes()

    by_path = on_each_path(lambda: list(results()))
    assert len(set(by_path["scalar"])) == 130
    assert all(result == by_path["scalar"] for result in by_path.values())


@pytest.mark.isa
def test_a_network_keeps_its_path_when_another_is_chosen(on_each_path, recorded):
    network, fit = RUNS["odd"]
    nets = on_each_path(lambda: Network(**network))

    def go_on():  # every network does a part of its training on every path
        for net in nets.values():
            net.fit(*data("odd", "float32"), **{**fit, "iterations": 5})

    on_each_path(go_on)
    for net in nets.values():
        net.fit(*data("odd", "float32"), **{**fit, "iterations": 25 - net.history.iterations})
        assert digest(net) == recorded["odd-float32"]


def test_recorded_runs_are_those_trained(recorded):
    assert set(recorded) == {f"{name}-{dtype}" for name in RUNS for dtype in DTYPES}
    assert len(set(recorded.values())) == len(recorded)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_two_fits_of_500_are_one_of_1000(optimizer, dtype):
    whole, parts = (make_network(20, 3, H=17, dropout=0.5, dtype=dtype) for _ in range(2))
    x, y = problem([20, 3], rows=90)
    fit = {"optimizer": optimizer, "batch_size": 20}
    whole.fit(x, y, iterations=1000, **fit)
    parts.fit(x, y, iterations=500, **fit)
    parts.fit(x, y, iterations=500, **fit)
    assert digest(parts) == digest(whole)


def test_steps_by_hand_are_those_of_fit():
    x, y = problem([20, 3], rows=90)
    fitted, stepped = (make_network(20, 3, H=17, dropout=0.5) for _ in range(2))
    fitted.fit(x, y, batch_size=90, iterations=20)
    rows = cdrop.reference.fixed_batches(90, 90)[0]
    for _ in range(20):
        stepped.train_step(x[rows], y[rows])
    assert digest(fitted) == digest(stepped)


def test_predicting_between_fits_changes_nothing():
    x, y = problem([20, 3], rows=300)
    quiet, asked = (make_network(20, 3, H=17, dropout=0.5) for _ in range(2))
    quiet.fit(x, y, iterations=20)
    for _ in range(4):
        asked.fit(x, y, iterations=5)
        asked.predict(x)
        asked.score(x[:7], y[:7])
    assert digest(asked) == digest(quiet)


def test_batches_and_threads_may_grow_and_shrink():
    x, y = problem([20, 3], rows=400)
    nets = [make_network(20, 3, H=17, dropout=0.5, threads=n) for n in THREADS]
    for rows in (10, 400, 1, 65, 300):
        for net in nets:
            net.train_step(x[:rows], y[:rows])
    changing = make_network(20, 3, H=17, dropout=0.5)
    for rows, threads in ((10, 1), (400, 8), (1, 2), (65, 3), (300, 8)):
        changing.threads = threads
        changing.train_step(x[:rows], y[:rows])
        changing.predict(x[:threads])
    assert len({digest(net) for net in [*nets, changing]}) == 1


def test_the_dtype_of_the_inputs_does_not_matter():
    x, y = problem([20, 3])
    nets = [make_network(20, 3, H=17, dropout=0.5) for _ in range(3)]
    for net, kind in zip(nets, ("float32", "float64", "f2"), strict=True):
        net.fit(x.astype("f2").astype(kind), y, iterations=5)
    assert len({digest(net) for net in nets}) == 1


def main():
    about = "sha256 of weights, biases, optimizer state, losses; python tests/test_determinism.py"
    RECORD.write_text(json.dumps({"about": about, "sha256": digests()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
