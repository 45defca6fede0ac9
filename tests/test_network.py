"""`Network` against the twin, PyTorch's recorded runs and finite differences; its whole interface."""

import copy
import importlib
import itertools
import math
import pickle
import re
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    ACTIVATIONS,
    LOSSES,
    OPTIMIZERS,
    TOLERANCE,
    assert_close,
    digest,
    distance,
    parameters,
    problem,
    run_python,
    spec_of,
    with_biases,
)

import cdrop
from cdrop import Network, _batches, kernels, load, make_network, reference
from cdrop.callbacks import Callback
from cdrop.optimizers import get_optimizer

DATA = Path(__file__).with_name("data")
sys.path.append(str(DATA))
torch_cases = importlib.import_module("torch_cases")
train_network = importlib.import_module("implementations").train_network
TORCH = np.load(DATA / "torch_steps.npz")


class Twin:
    """A network trained by the reference, from where `net` stands."""

    def __init__(self, net, optimizer="rmsprop", **settings):
        self.spec, self.settings, self.step = spec_of(net), settings, 0
        self.params = net.coefs_, net.intercepts_
        self.state = reference.initial_state(self.params, optimizer)
        self.losses = []

    def train_step(self, x, y, sample_weight=None, **rates):
        self.step += 1
        batch = {"step": self.step, "sample_weight": sample_weight, **rates, **self.settings}
        self.losses.append(reference.train_step(self.params, self.state, x, y, self.spec, **batch))

    @property
    def parameters(self):
        return [*self.params[0], *self.params[1]]


def assert_same(net, twin, start, kind):
    limit = TOLERANCE[kind][net.dtype.name]
    np.testing.assert_allclose(net.history.loss, twin.losses, rtol=limit)
    assert distance(parameters(net), twin.parameters, start) < limit


# ---- Training is that of the twin ----------------------------------------------------------

RATES = {"sgd": 0.1, "momentum": 0.005, "nesterov": 0.005, "adagrad": 0.05}  # the others: 0.003
SETTINGS = {
    "momentum": {"momentum": 0.8},
    "nesterov": {"momentum": 0.8, "start": 0.3, "ramp": 12, "dampened": True},
    "rmsprop": {"rho": 0.8},
    "adam": {"beta1": 0.7},
}
DESIGNS = [
    {"units": [9, 7, 4], "dropout": 0.5},
    {"units": [70, 65, 33, 5], "dropout": [0.5, 0.2], "input_dropout": 0.2},
    {"units": [12, 3], "input_dropout": 0.3},
    {"units": [5, 130, 8, 1, 6], "dropout": [0.1, 0.0, 0.3]},
    {"units": [20, 64, 10]},
]
CHOICES = list(itertools.product(ACTIVATIONS, LOSSES, OPTIMIZERS))


def training(number, activation, loss, optimizer, dtype):
    """A network and 20 batches; what is not paired exhaustively takes turns."""
    net = Network(
        **DESIGNS[number % 5],
        activation=activation,
        loss=loss,
        scaling=("train", "test")[number // 2 % 2],
        initializer=("he", "glorot")[number // 3 % 2],
        seed=number,
        dtype=dtype,
    )
    with_biases(net)
    rates = {"learning_rate": RATES.get(optimizer, 0.003)}
    if loss == "squared_error" and not optimizer.startswith(("ada", "rms")):  # or it diverges
        rates["learning_rate"] /= 10
    if optimizer != "adamw" and number % 3:
        rates["l2"] = 0.02
    batches = [problem(net.units, loss, 5 + i % 9, 100 * number + i, dtype) for i in range(20)]
    draw = np.random.default_rng(number)
    weights = [draw.random(len(x)) + 0.1 if number % 2 else None for x, _ in batches]
    return net, rates, batches, weights


@pytest.mark.parametrize(("activation", "loss", "optimizer"), CHOICES)
def test_steps_are_those_of_the_twin(activation, loss, optimizer):
    number = CHOICES.index((activation, loss, optimizer))
    net, rates, batches, weights = training(number, activation, loss, optimizer, "float64")
    settings = SETTINGS.get(optimizer, {}) if number % 2 else {}
    twin, start = Twin(net, optimizer, **settings), parameters(net)
    rule = get_optimizer(optimizer, **settings)
    for i, ((x, y), w) in enumerate(zip(batches, weights, strict=True)):
        loss = net.train_step(x, y, w, optimizer=rule, **rates)
        twin.train_step(x, y, w, **rates)
        assert loss == net.history.loss[-1]
        if i == 0:
            assert_same(net, twin, start, "step")
    assert_same(net, twin, start, "run")


@pytest.mark.parametrize(("activation", "loss", "optimizer"), CHOICES[::4])
def test_steps_in_float32_are_near_those_of_the_twin(activation, loss, optimizer, simd):
    number = CHOICES.index((activation, loss, optimizer))
    net, rates, batches, weights = training(number, activation, loss, optimizer, "float32")
    twin, start = Twin(net, optimizer), parameters(net)
    for i, ((x, y), w) in enumerate(zip(batches, weights, strict=True)):
        net.train_step(x, y, w, optimizer=optimizer, **rates)
        twin.train_step(x, y, w, **rates)
        if i == 0:
            assert_same(net, twin, start, "step")
    assert_same(net, twin, start, "run")


@pytest.mark.parametrize("name", torch_cases.SMALL)
def test_training_is_that_of_pytorch_on_every_path(name, simd):
    case = torch_cases.SMALL[name]
    initial, data = torch_cases.initial_weights(case), torch_cases.batches(case)
    run = train_network(case, initial, data, "float64")
    for part in fields(run):
        actual, expected = getattr(run, part.name), TORCH[f"{name}/{part.name}"]
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-13, err_msg=part.name)
    net = Network(case.sizes, initializer=case.initializer, seed=case.seed, dtype="float64")
    for own, recorded in zip(net.coefs_, initial[0], strict=True):
        assert_close(own, recorded, "normal")


# ---- Max-norm ------------------------------------------------------------------------------


def norms_of(net):
    """Return the norms of the incoming weights, unit by unit, in each layer."""
    return [np.linalg.norm(w.astype("float64"), axis=0) for w in net.coefs_]


def most(limit, dtype):
    """Return what a rounded weight vector of norm `limit` may have."""
    return limit * (1 + 4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("number", range(len(DESIGNS)))
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_limited_steps_are_those_of_the_twin(optimizer, number, dtype, simd):
    net, rates, batches, weights = training(number, "relu", LOSSES[0], optimizer, dtype)
    twin, start = Twin(net, optimizer), parameters(net)
    rates["max_norm"] = float(np.median(norms_of(net)[0]))
    net.threads = 1 + number % 3
    for i, ((x, y), w) in enumerate(zip(batches, weights, strict=True)):
        net.train_step(x, y, w, optimizer=optimizer, **rates)
        twin.train_step(x, y, w, **rates)
        for norms in norms_of(net)[:-1]:
            assert norms.max() <= most(rates["max_norm"], dtype)
        if i == 0:
            assert_same(net, twin, start, "step")
    assert_same(net, twin, start, "run")


def test_hidden_units_above_the_limit_alone_are_touched(dtype, simd, threads):
    design = {"units": [70, 131, 65, 10], "dropout": 0.5, "seed": 3, "dtype": dtype}
    x, y = problem(design["units"], dtype=dtype)
    free, limited = Network(**design), Network(**design)
    free.train_step(x, y)
    limited.train_step(x, y, max_norm=1.4)
    for layer, (a, b) in enumerate(zip(free.coefs_, limited.coefs_, strict=True)):
        above = norms_of(free)[layer] > 1.4
        assert 0 < above.sum() < above.size
        if layer == 2:  # outputs have no limit
            above[:] = False
        np.testing.assert_array_equal(a[:, ~above], b[:, ~above])
        np.testing.assert_allclose(norms_of(limited)[layer][above], 1.4, 4 * np.finfo(dtype).eps)
        if layer < 2:
            kernels.limit_norms(a, 1.4)
        np.testing.assert_array_equal(a, b)
    for a, b in zip(free.intercepts_, limited.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("limit", [1e6, 1e300])
def test_a_huge_limit_is_none(limit, dtype, simd):
    nets = [Network([70, 131, 65, 10], dropout=0.5, dtype=dtype) for _ in range(2)]
    x, y = problem(nets[0].units, dtype=dtype)
    nets[0].fit(x, y, iterations=5, l2=0.01)
    nets[1].fit(x, y, iterations=5, l2=0.01, max_norm=limit)
    assert digest(nets[0]) == digest(nets[1])


def test_a_limited_network_loaded_midway_resumes_byte_for_byte(dtype, simd):
    """The recorded squares are those of the limited weights."""
    net, other = (Network([70, 131, 65, 10], dropout=0.5, dtype=dtype) for _ in range(2))
    x, y = problem(net.units, dtype=dtype)
    for _ in range(4):
        net.train_step(x, y, l2=0.5, max_norm=1.2)
        other.load_state_dict(net.state_dict())
        squares = sum(np.sum(w.astype("float64") ** 2) for w in net.coefs_)
        without, penalized = copy.deepcopy(net), copy.deepcopy(net)
        penalty = penalized.train_step(x, y, l2=0.5) - without.train_step(x, y)
        assert penalty == pytest.approx(0.25 * squares, rel=1e-5 if dtype == "float32" else 1e-12)
        net.train_step(x, y, l2=0.5, max_norm=1.2)
        other.train_step(x, y, l2=0.5, max_norm=1.2)
        assert digest(other) == digest(net)


def test_the_limit_may_come_and_go():
    net, x_y = Network([9, 8, 3], seed=1), problem([9, 8, 3])
    net.train_step(*x_y, max_norm=0.5)
    assert norms_of(net)[0].max() <= most(0.5, "float32")
    net.fit(*x_y, learning_rate=0.05, iterations=20)
    assert norms_of(net)[0].max() > 0.6
    net.fit(*x_y, max_norm=0.25, iterations=1)
    assert norms_of(net)[0].max() <= most(0.25, "float32")


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("mode", ["iterations", "epochs"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_fit_is_that_of_the_twin(loss, mode, dtype):
    net = Network([30, 20, 4], dropout=0.4, input_dropout=0.1, loss=loss, seed=9, dtype=dtype)
    x, y = problem(net.units, loss, rows=103, dtype=dtype)
    weights = np.random.default_rng(1).random(103)
    twin, start = Twin(net, "adam"), parameters(net)
    rates = {"learning_rate": 0.003, "l2": 0.01}
    fit = {"optimizer": "adam", "batch_size": 25, mode: 12 if mode == "iterations" else 3, **rates}
    history = net.fit(x, y, weights, **fit)
    if mode == "iterations":
        cut = reference.fixed_batches(103, 25, seed=9)
        order = [cut[reference.drawn_batch(len(cut), 9, t)] for t in range(1, 13)]
    else:
        orders = [reference.epoch_order(103, 9, epoch) for epoch in (1, 2, 3)]
        order = [rows for o in orders for rows in reference.cut_batches(o, 25)]
    for rows in order:
        twin.train_step(x[rows], y[rows], weights[rows], **rates)
    assert history is net.history
    assert history.iterations == len(history.loss) == len(order)
    assert_same(net, twin, start, "run")


@pytest.mark.parametrize(
    "keys",
    [
        [5 << 60, 3 << 60, 4 << 60, 0],
        [9, 8, 2**63 + 1, 2**63, 7, 2**64 - 1],
        [2**40 + 1, 2**40, 2**40 + 1, 2**40, 0],
        [7] * 9,
        [],
    ],
)
def test_keys_that_differ_only_in_low_bits_or_not_at_all_are_sorted_stably(monkeypatch, keys):
    keys = np.array(keys, np.uint64)
    monkeypatch.setattr(_batches, "random_words", lambda *_: keys)
    order = _batches.epoch(len(keys), seed=0, number=1)
    np.testing.assert_array_equal(order, np.argsort(keys, kind="stable"), strict=True)


@pytest.mark.parametrize("done", [0, 1000])
def test_long_fits_draw_the_batches_of_the_twin(done):
    cut = reference.fixed_batches(50, 7, seed=2**64 - 1)
    np.testing.assert_array_equal(_batches.fixed(50, 2**64 - 1), np.concatenate(cut))
    for t, number in enumerate(_batches.drawn(len(cut), 2**64 - 1, done, 2500), start=done + 1):
        assert number == reference.drawn_batch(len(cut), 2**64 - 1, t)
    assert t == done + 2500


@pytest.mark.parametrize("initializer", ["he", "glorot"])
def test_initial_weights_are_those_of_the_twin(initializer, dtype, simd):
    net = Network([70, 33, 4], initializer=initializer, seed=2**64 - 1, dtype=dtype)
    weights, biases = reference.initial_weights(net.units, initializer, 2**64 - 1, dtype)
    for own, expected in zip(net.coefs_, weights, strict=True):
        assert_close(own, expected, "normal")
        assert own.dtype == dtype
    for own, expected in zip(net.intercepts_, biases, strict=True):
        np.testing.assert_array_equal(own, expected, strict=True)


# ---- Finite differences through a whole network --------------------------------------------


def safe_problem(net, rows=6):
    """Inputs with which no live unit stands near the kink of a ReLU."""
    for seed in range(100):
        x, y = problem(net.units, net.loss, rows, seed, "float64")
        spec, params = spec_of(net), (net.coefs_, net.intercepts_)
        masks = reference.keyed_masks(spec, rows, 1)
        near = []
        outputs = reference.forward(params, x, spec, masks=masks)
        for i in range(len(net.units) - 2):
            scale = spec.scales(training=True)[i]
            layer = outputs[i], params[0][i], params[1][i]
            near.append(np.abs(reference.masked_gemm(*layer, mask=masks[i], scale=scale)).min())
        if min(near) > 1e-3:
            return x, y
    raise AssertionError("no seed keeps away from the kinks")


def numeric_gradients(net, x, y, weights, l2):
    """Central differences of the next step's loss, by weight and bias, under that step's masks."""
    start, h, numeric = net.state_dict(), 1e-5, {}

    def loss():
        net.load_state_dict(start)
        return net.train_step(x, y, weights, optimizer="sgd", learning_rate=1e-300, l2=l2)

    for name, array in start["arrays"].items():
        if name.startswith("state"):
            continue
        numeric[name] = np.empty_like(array)
        for index in np.ndindex(array.shape):
            value, ends = array[index], []
            for array[index] in (value + h, value - h):
                ends.append(loss())
            array[index] = value
            numeric[name][index] = (ends[0] - ends[1]) / (2 * h)
    net.load_state_dict(start)
    return numeric


def assert_within_difference(actual, expected):
    error, limit = np.abs(actual - expected), TOLERANCE["difference"]["float64"]
    assert np.all(error < limit * np.abs(actual) + 1e-9)
    assert np.linalg.norm(error) < limit * np.linalg.norm(expected)


@pytest.mark.parametrize("scaling", ["train", "test"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_against_central_differences(activation, loss, scaling):
    options = {"activation": activation, "loss": loss, "scaling": scaling, "dtype": "float64"}
    net = Network([5, 4, 3, 3], dropout=[0.5, 0.25], input_dropout=0.2, seed=3, **options)
    with_biases(net)
    x, y = safe_problem(net)
    weights = np.random.default_rng(0).random(len(x)) + 0.5
    numeric, start = numeric_gradients(net, x, y, weights, 0.1), net.state_dict()["arrays"]
    # A step moves by exactly the gradient.
    net.train_step(x, y, weights, optimizer="sgd", learning_rate=1.0, l2=0.1)
    moved = net.state_dict()["arrays"]
    for name, gradient in numeric.items():
        assert_within_difference(start[name] - moved[name], gradient)
    assert sum(a.size for a in numeric.values()) == 5 * 4 + 4 + 4 * 3 + 3 + 3 * 3 + 3


# The rules as their papers have them, with a rate of 0.01: how far number t moves from w, its gradients being g.
def _momentum(g):
    return -0.01 * sum(0.9 ** (len(g) - 1 - i) * gradient for i, gradient in enumerate(g))


def _ramped(g):
    velocity = 0.0
    for momentum, gradient in zip((0.4, 0.6, 0.8), g, strict=False):
        step = 0.01 * (1 - momentum) * gradient
        velocity = momentum * velocity - step
    return momentum * velocity - step


def _decayed(g, rho, power):
    return sum((1 - rho) * rho ** (len(g) - 1 - i) * x**power for i, x in enumerate(g))


def _adam(g):
    first = _decayed(g, 0.9, 1) / (1 - 0.9 ** len(g))
    return -0.01 * first / (np.sqrt(_decayed(g, 0.999, 2) / (1 - 0.999 ** len(g))) + 1e-8)


RAMPED = get_optimizer("nesterov", momentum=0.8, start=0.4, ramp=2, dampened=True)
RULES = {
    "sgd": lambda w, g: -0.01 * g[-1],
    "momentum": lambda w, g: _momentum(g),
    "nesterov": lambda w, g: 0.9 * _momentum(g) - 0.01 * g[-1],
    RAMPED: lambda w, g: _ramped(g),
    "adagrad": lambda w, g: -0.01 * g[-1] / (np.sqrt(sum(x**2 for x in g)) + 1e-8),
    "rmsprop": lambda w, g: -0.01 * g[-1] / (np.sqrt(_decayed(g, 0.9, 2)) + 1e-8),
    "adam": lambda w, g: _adam(g),
    "adamw": lambda w, g: _adam(g) - 0.01 * 0.01 * w,
}


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, RAMPED], ids=str)
def test_steps_follow_their_rule_on_central_differences(optimizer):
    net = Network([5, 4, 3, 3], dropout=0.25, activation="tanh", seed=3, dtype="float64")
    with_biases(net)
    x, y = problem(net.units, rows=6, dtype="float64")
    weights, l2 = np.random.default_rng(0).random(6) + 0.5, 0.0 if optimizer == "adamw" else 0.1
    seen = {}
    for _ in range(3):
        start = net.state_dict()["arrays"]
        for name, gradient in numeric_gradients(net, x, y, weights, l2).items():
            seen.setdefault(name, []).append(gradient)
        net.train_step(x, y, weights, optimizer=optimizer, learning_rate=0.01, l2=l2)
        moved = net.state_dict()["arrays"]
        for name, gradients in seen.items():
            decays = start[name] if name.startswith("weight") else 0
            assert_within_difference(moved[name] - start[name], RULES[optimizer](decays, gradients))
    assert set(RULES) == {*OPTIMIZERS, RAMPED}


# ---- The two scalings ----------------------------------------------------------------------


def training_outputs(net, x, rows):
    """Mean and variance of a one-output network's training outputs, from its squared errors."""
    state, losses = net.state_dict(), []
    for target in (1.0, -1.0):
        net.load_state_dict(state)
        batch = np.tile(x, (rows, 1)), np.full((rows, 1), target)
        losses.append(net.train_step(*batch, optimizer="sgd", learning_rate=1e-300))
    net.load_state_dict(state)
    mean = (losses[1] - losses[0]) / 2
    return mean, losses[0] + losses[1] - 1 - mean**2


def test_the_two_scalings_agree_in_expectation():
    # In a linear network the mean over masks is what prediction gives, in both forms.
    rates = {"dropout": [0.5, 0.25], "input_dropout": 0.2}
    settings = {"activation": "identity", "loss": "squared_error", "dtype": "float64", "seed": 4}
    nets = {s: Network([6, 5, 4, 1], scaling=s, **rates, **settings) for s in ("train", "test")}
    state = nets["test"].state_dict()
    for layer, rate in enumerate((0.2, 0.5, 0.25)):  # the classic form's are 1 / keep as large
        state["arrays"][f"weight.{layer}"] /= kernels.drawn_keep(1 - rate)
    nets["test"].load_state_dict(state)
    x, rows, predictions = np.random.default_rng(0).standard_normal((1, 6)), 40_000, {}
    for scaling, net in nets.items():
        predictions[scaling] = net.predict(x).item()
        mean, variance = training_outputs(net, x, rows)
        assert variance > 0.01 * mean**2
        assert abs(mean - predictions[scaling]) < 4 * math.sqrt(variance / rows), scaling
    assert predictions["train"] == pytest.approx(predictions["test"], rel=1e-13)
    first, second = (training_outputs(net, x, rows) for net in nets.values())
    np.testing.assert_allclose(first, second, rtol=1e-10)  # under the same masks, even exactly


@pytest.mark.parametrize("width", [9, 2150])  # within one round of 1,024 columns, and in three
def test_prediction_uses_no_mask_and_every_unit(width):
    for scaling in ("train", "test"):
        rates = {"dropout": 0.5, "input_dropout": 0.3}
        net = Network([width, 70, 4], **rates, scaling=scaling, dtype="float64")
        with_biases(net)
        x, _ = problem(net.units, rows=300, dtype="float64")
        expected = reference.forward((net.coefs_, net.intercepts_), x, spec_of(net))[-1]
        np.testing.assert_allclose(net.predict_proba(x), softmax(expected), rtol=1e-12)
        np.testing.assert_array_equal(net.predict(x), expected.argmax(axis=1))
        np.testing.assert_array_equal(net.predict(x), net.predict(x))


# ---- Predicting ----------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 700])
def test_predictions_do_not_depend_on_how_rows_are_cut(rows, dtype, simd):
    net = Network([9, 70, 4], dtype=dtype)
    x, _ = problem(net.units, rows=rows, dtype=dtype)
    whole = net.predict_proba(x)
    assert whole.shape == (rows, 4)
    assert whole.dtype == dtype
    assert net.predict(x).dtype == np.int64
    for i in range(0, rows, 97):
        np.testing.assert_array_equal(net.predict_proba(x[i : i + 1]), whole[i : i + 1])


def test_probabilities_and_labels_of_each_loss():
    x = problem([5, 3])[0]
    net = Network([5, 8, 3], dtype="float64")
    assert net.predict_proba(x).sum(axis=1) == pytest.approx(1, rel=1e-12)
    np.testing.assert_array_equal(net.predict(x), net.predict_proba(x).argmax(axis=1))
    several = Network([5, 8, 3], loss="sigmoid_cross_entropy", dtype="float64")
    np.testing.assert_array_equal(several.predict(x), several.predict_proba(x) > 0.5)
    assert several.predict(x).shape == (len(x), 3)
    numbers = Network([5, 8, 3], loss="squared_error", dtype="float64")
    logits = reference.forward(
        (numbers.coefs_, numbers.intercepts_), x.astype(float), spec_of(numbers)
    )
    np.testing.assert_allclose(numbers.predict(x), logits[-1], rtol=1e-12)
    with pytest.raises(ValueError, match="predict_proba"):
        numbers.predict_proba(x)


def test_scores():
    net = Network([4, 3])
    x, y = problem(net.units, rows=200)
    assert net.score(x, y) == np.mean(net.predict(x) == y)
    assert net.score(x, net.predict(x)) == 1.0
    labels = Network([4, 3], loss="sigmoid_cross_entropy")
    assert labels.score(x, labels.predict(x)) == 1.0
    one_wrong = labels.predict(x)
    one_wrong[:50, 1] ^= 1
    assert labels.score(x, one_wrong) == 0.75
    numbers = Network([4, 2], loss="squared_error", dtype="float64")
    outputs = numbers.predict(x)
    assert numbers.score(x, outputs) == 1.0
    assert numbers.score(x, outputs - outputs.mean(axis=0)) < 1
    noisy = outputs + np.random.default_rng(0).standard_normal(outputs.shape)
    residual = ((noisy - outputs) ** 2).sum(axis=0)
    spread = ((noisy - noisy.mean(axis=0)) ** 2).sum(axis=0)
    assert numbers.score(x, noisy) == pytest.approx(np.mean(1 - residual / spread), rel=1e-12)
    with pytest.raises(ValueError, match="constant"):
        numbers.score(x, np.ones_like(outputs))


def test_one_output_takes_vectors_of_targets():
    x, _ = problem([3, 1])
    y = x[:, 0] - x[:, 1]
    one, two = (Network([3, 8, 1], loss="squared_error") for _ in range(2))
    one.fit(x, y, iterations=5)
    two.fit(x, y[:, None], iterations=5)
    assert digest(one) == digest(two)
    assert one.score(x, y) == two.score(x, y[:, None])


# ---- Fitting -------------------------------------------------------------------------------


def test_networks_learn():
    x = np.random.default_rng(0).standard_normal((600, 5))
    y = (x[:, 0] > x[:, 1]).astype(int) + (x[:, 2] > 0.5)
    for scaling in ("train", "test"):
        net = Network([5, 32, 3], dropout=0.2, scaling=scaling)
        loss = net.fit(x, y, learning_rate=0.01, batch_size=64, epochs=40).loss
        assert np.mean(loss[-20:]) < 0.5 * np.mean(loss[:20])
        assert net.score(x, y) > 0.9
    target = np.column_stack([x[:, 0] * x[:, 1], x[:, 2]])
    net = Network([5, 64, 2], loss="squared_error", activation="tanh")
    net.fit(x, target, optimizer="adam", learning_rate=0.01, epochs=100)
    assert net.score(x, target) > 0.9


def test_fit_defaults_to_a_thousand_iterations():
    net = Network([3, 2])
    assert net.fit(*problem([3, 2])).iterations == 1000
    assert net.fit(*problem([3, 2]), iterations=0).iterations == 1000


def test_a_second_fit_continues_and_counts_epochs():
    x, y = problem([6, 3], rows=50)
    whole, parts = Network([6, 9, 3], dropout=0.5), Network([6, 9, 3], dropout=0.5)
    whole.fit(x, y, epochs=5, batch_size=16)
    first = parts.fit(x, y, epochs=2, batch_size=16)
    second = parts.fit(x, y, epochs=3, batch_size=16)
    assert first is second
    assert second.iterations == 5 * 4
    assert digest(parts) == digest(whole)


def test_another_rule_begins_with_a_fresh_memory():
    x, y = problem([6, 3])
    net, other = Network([6, 3]), Network([6, 3])
    for n in (net, other):
        n.train_step(x, y, optimizer="rmsprop")
        n.train_step(x, y, optimizer="adam")
    fresh = Network([6, 3])
    state = fresh.state_dict()
    state["losses"] = net.history.loss[:1]
    weights = Network([6, 3])
    weights.train_step(x, y, optimizer="rmsprop")
    state["arrays"] |= {"weight.0": weights.coefs_[0], "bias.0": weights.intercepts_[0]}
    fresh.load_state_dict(state)
    fresh.train_step(x, y, optimizer="adam")
    assert digest(net) == digest(other) == digest(fresh)


def test_batches_as_large_as_the_data_are_all_of_it():
    x, y = problem([6, 3], rows=20)
    nets = [Network([6, 3]) for _ in range(3)]
    for net, size in zip(nets, (20, 21, 10**12), strict=True):
        net.fit(x, y, batch_size=size, iterations=4)
    assert len({digest(net) for net in nets}) == 1


def test_weights_of_rows_are_ratios_and_zero_leaves_a_row_out():
    x, y = problem([6, 3], rows=20)
    one, two, none = (Network([6, 9, 3], dtype="float64") for _ in range(3))
    weights = np.arange(20) % 3
    one.train_step(x, y, weights)
    two.train_step(x, y, weights * 0.25)
    none.train_step(x[weights > 0], y[weights > 0], weights[weights > 0])
    assert digest(one) == digest(two)
    assert distance(parameters(one), parameters(none), parameters(Network([6, 9, 3]))) < 1e-6


@pytest.mark.parametrize("how", [{"epochs": 2}, {"iterations": 40}], ids=str)
def test_rows_without_weight_make_no_minibatches(how):
    x, y = problem([6, 3], rows=600)
    weights = np.ones(600)
    weights[np.random.default_rng(0).permutation(600)[:540]] = [0, 1e-320] * 270
    chosen = np.flatnonzero(weights > 1e-300)
    nets = [Network([6, 3], seed=1) for _ in range(4)]
    nets[0].fit(x, y, weights, batch_size=16, **how)
    nets[1].fit(x, y, weights, batch_size=16, rows=np.arange(600), **how)
    nets[2].fit(x, y, batch_size=16, rows=chosen, **how)
    nets[3].fit(x[chosen], y[chosen], batch_size=16, **how)
    assert len(set(map(digest, nets))) == 1
    with pytest.raises(ValueError, match="sample_weight is 0 for all rows to train on"):
        nets[0].fit(x, y, weights, rows=np.flatnonzero(weights < 1e-300), **how)
    assert digest(nets[0]) == digest(nets[1])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_biases_are_not_regularized(optimizer):
    net = Network([2, 2], loss="squared_error", dtype="float64")
    with_biases(net)
    bias, weight = net.intercepts_[0], net.coefs_[0]
    x, y = np.zeros((1, 2)), bias[None]  # the outputs are the biases: no error, no gradient
    l2 = 0.5 if optimizer == "sgd" else 0.0
    loss = net.train_step(x, y, optimizer=optimizer, learning_rate=0.1, l2=l2)
    assert loss == pytest.approx(0.5 * l2 * np.sum(weight**2), rel=1e-14)
    assert np.all(np.abs(net.coefs_[0]) < np.abs(weight))
    np.testing.assert_array_equal(net.intercepts_[0], bias)


class Recorder(Callback):
    """Keeps what it is called with, and asks to stop at iteration `stop`."""

    def __init__(self, stop=None):
        self.stop, self.calls = stop, []

    def on_fit_begin(self, net, total):
        self.calls.append(("begin", total))

    def on_iteration(self, net, iteration, loss):
        self.calls.append((iteration, loss))
        return iteration == self.stop

    def on_fit_end(self, net):
        self.calls.append("end")


def test_callbacks_are_notified_and_may_stop():
    x, y = problem([6, 3])
    net, quiet = Network([6, 3]), Network([6, 3])
    recorder = Recorder(stop=7)
    history = net.fit(x, y, iterations=10, callbacks=[recorder, Callback()])
    assert recorder.calls == [("begin", 10), *enumerate(history.loss, start=1), "end"]
    assert history.iterations == 7
    assert not history.interrupted
    quiet.fit(x, y, iterations=7)
    assert digest(net) == digest(quiet)
    net.fit(x, y, iterations=3, callbacks=(recorder,))
    quiet.fit(x, y, iterations=3)
    assert [entry[0] for entry in recorder.calls[9:]] == ["begin", 8, 9, 10, "e"]
    assert digest(net) == digest(quiet)


def test_an_error_in_a_callback_leaves_the_network_usable():
    class Breaks(Callback):
        def on_iteration(self, net, iteration, loss):
            raise RuntimeError("mine")

    x, y = problem([6, 3])
    net, other = Network([6, 3]), Network([6, 3])
    with pytest.raises(RuntimeError, match="mine"):
        net.fit(x, y, iterations=5, callbacks=[Breaks()])
    assert net.history.iterations == 1
    net.fit(x, y, iterations=4)
    other.fit(x, y, iterations=5)
    assert digest(net) == digest(other)


def test_labels_changed_by_a_callback_do_no_harm():
    class Vandal(Callback):
        def on_iteration(self, net, iteration, loss):
            y[:] = 10**9

    x, y = problem([6, 3])
    net, other = Network([6, 3]), Network([6, 3])
    other.fit(x, y.copy(), iterations=5)
    net.fit(x, y, iterations=5, callbacks=[Vandal()])
    assert digest(net) == digest(other)


# ---- A loss that is not finite -------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_that_is_not_finite_stops_before_the_update(loss, dtype, threads):
    net = Network([6, 9, 3], dropout=0.5, loss=loss, dtype=dtype)
    x, y = problem(net.units, loss)
    net.fit(x, y, iterations=3, optimizer="adam")
    before, state = digest(net), net.state_dict()
    huge = np.full_like(x, 3e38) if dtype == "float32" else np.full(x.shape, 1e308)
    with pytest.raises(FloatingPointError, match=r"step 4\b.*learning_rate"):
        net.fit(huge, y, iterations=3, optimizer="adam")
    with pytest.raises(FloatingPointError, match=r"step 4\b"):
        net.train_step(huge, y, optimizer="adam")
    assert digest(net) == before
    other = Network([6, 9, 3], dropout=0.5, loss=loss, dtype=dtype)
    other.load_state_dict(state)
    for n in (net, other):
        n.fit(x, y, iterations=3, optimizer="adam")
    assert digest(net) == digest(other)


def test_a_divergence_is_reported_by_its_step():
    net = Network([6, 9, 3], loss="squared_error")
    x, y = problem(net.units, "squared_error")
    with pytest.raises(FloatingPointError, match=r"step \d+ .*1e\+10"):
        net.fit(x, y, optimizer="sgd", learning_rate=1e10, iterations=100)
    assert 0 < net.history.iterations < 100
    assert np.isfinite(net.history.loss).all()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_divergence_names_the_layer(layer, dtype, threads):
    net = Network([6, 9, 8, 3], dropout=0.2, dtype=dtype)
    x, y = problem(net.units, dtype=dtype)
    first = net.coefs_, net.intercepts_
    for part, value, message in (
        (0, np.finfo(dtype).max, f"nor are the outputs of layer {layer + 1} of 3"),
        (0, np.nan, f"because the weights of layer {layer + 1} of 3 (coefs_[{layer}]"),
        (1, -np.nan, f"because the weights of layer {layer + 1} of 3 (coefs_[{layer}]"),
    ):
        changed = copy.deepcopy(first)
        changed[part][layer][:] = value
        net.set_weights(*changed)
        with pytest.raises(FloatingPointError, match=r"step 1\b.*" + re.escape(message)):
            net.fit(np.abs(x), y, iterations=3)
    assert net.history.iterations == 0


def test_weights_too_large_for_max_norm_end_the_fit():
    x, y = problem([3, 4, 2], dtype="float64")
    for dtype, size in (("float64", 1e200), ("float32", 1e30)):
        net = Network([3, 4, 2], dtype=dtype)
        coefs = [net.coefs_[0] * size, net.coefs_[1] * 0]
        net.set_weights(coefs, net.intercepts_)
        if dtype == "float32":
            net.train_step(x, y, max_norm=2.0)
            assert np.linalg.norm(net.coefs_[0], axis=0).max() < 2.0001
            continue
        with pytest.raises(
            FloatingPointError,
            match="not finite, or too large for max_norm, in the weights of layer 1 of 2",
        ):
            net.train_step(x, y, max_norm=2.0)
        net.set_weights(coefs, net.intercepts_)
        net.train_step(x, y)  # without a limit these are weights like others


@pytest.mark.parametrize("limit", [1e-150, 1e149])
def test_the_ends_of_max_norm_limit(limit):
    x, y = problem([3, 4, 2], dtype="float64")
    net = Network([3, 4, 2], dtype="float64")
    net.set_weights([net.coefs_[0] * (limit * 100), net.coefs_[1] * 0], net.intercepts_)
    net.train_step(x, y, optimizer="sgd", max_norm=limit)
    norms = np.linalg.norm(net.coefs_[0] / limit, axis=0)
    np.testing.assert_allclose(norms.max(), 1, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
def test_rows_that_overflow_are_named(loss, dtype):
    net = Network([5, 9, 2], dropout=0.5, loss=loss, dtype=dtype, seed=2)
    x, _ = problem([5, 2], loss, rows=600, dtype=dtype)
    calls = [net.predict]
    if loss != "squared_error":
        calls.append(net.predict_proba)
    wide = x.copy()
    wide[[311, 400]] = np.finfo(dtype).max
    for call in calls:
        call(x)
        with pytest.raises(ValueError, match=rf"X\[311\] makes outputs.*not finite in {dtype}"):
            call(wide)
    if loss == "softmax_cross_entropy":  # such rows are wrong, whatever their label
        right = net.predict(x)
        assert net.score(wide, right) == 598 / 600
    net.set_weights([w * np.nan for w in net.coefs_], net.intercepts_)
    with pytest.raises(ValueError, match=r"X\[0\] makes outputs.*expected .* finite weights"):
        net.predict(x)


@pytest.mark.parametrize("value", [0.1, 3e38, 0.0])
def test_r2_of_constant_targets_is_0_or_1(value):
    net = Network([2, 1], loss="squared_error", dtype="float64")
    x = np.zeros((7, 2))
    targets = np.full((7, 1), value)
    assert net.evaluate(x, targets).score == (value == 0)
    net.set_weights(net.coefs_, [np.array([value])])
    assert net.evaluate(x, targets).score == 1
    weights = np.arange(7) % 2
    targets[0] = 1.0  # of weight 0
    assert net.evaluate(x, targets, weights).score == 1
    targets[1:] += 0.1 + value  # others are predicted
    assert net.evaluate(x, targets, weights).score == 0


def test_a_loss_that_overflows_by_itself_is_reported():
    net = Network([2, 3, 1], loss="squared_error", dtype="float64")
    with pytest.raises(FloatingPointError, match="step 1 .*though all outputs are;"):
        net.fit(np.ones((4, 2)), np.full(4, 1e200), iterations=3)


@pytest.mark.parametrize("loss", LOSSES)
def test_an_update_that_leaves_infinite_weights_is_reported_at_once(loss, dtype, threads):
    """No loss would show it, were it the last step."""
    net = Network([6, 9, 3], loss=loss, dtype=dtype, activation="tanh")
    x, y = problem(net.units, loss, dtype=dtype)
    with pytest.raises(FloatingPointError, match=r"update of step 1 .*weights of layer 1 of 2"):
        net.fit(x * 1e5, y, optimizer="sgd", learning_rate=1e308, l2=1e4, iterations=1)
    assert net.history.iterations == 1
    assert not np.isfinite(net.coefs_[0]).all()
    with pytest.raises(
        FloatingPointError, match=r"loss of step 2 .*because the weights of layer 1"
    ):
        net.fit(x, y, iterations=1)


# ---- Ctrl-C --------------------------------------------------------------------------------

INTERRUPT = """
import os, signal, threading, warnings
from conftest import digest, problem
from cdrop import Network
from cdrop.callbacks import Callback

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & may have switched it off
warnings.filterwarnings("ignore", "Training interrupted")

class Press(Callback):
    def __init__(self, at, times=1):
        self.at, self.times = at, times
    def on_iteration(self, net, iteration, loss):
        if iteration == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)

x, y = problem([6, 3])
net, quiet = Network([6, 9, 3], dropout=0.5), Network([6, 9, 3], dropout=0.5)
"""


def interrupted(code):
    process = run_python(INTERRUPT + code)
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


@pytest.mark.posix
def test_ctrl_c_ends_a_fit_between_steps():
    assert interrupted("""
history = net.fit(x, y, iterations=50, callbacks=[Press(5)])
assert history.interrupted and history.iterations == 5
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
history = net.fit(x, y, iterations=5)
assert not history.interrupted
quiet.fit(x, y, iterations=10)
assert digest(net) == digest(quiet)
timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
timer.start()
history = net.fit(x, y, iterations=10**12)
assert history.interrupted and history.iterations > 10
quiet.fit(x, y, iterations=history.iterations - 10)
assert digest(net) == digest(quiet)
print("done")
""") == ["done"]


@pytest.mark.posix
def test_a_second_ctrl_c_is_raised_at_once():
    assert interrupted("""
try:
    net.fit(x, y, iterations=50, callbacks=[Press(5, times=2)])
except KeyboardInterrupt:
    print("raised", net.history.iterations)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
net.fit(x, y, iterations=5)
quiet.fit(x, y, iterations=10)
assert digest(net) == digest(quiet)
""") == ["raised", "5"]


@pytest.mark.posix
def test_a_program_that_handles_ctrl_c_itself_keeps_doing_so():
    assert interrupted("""
steps = []
signal.signal(signal.SIGINT, lambda *args: steps.append(net.history.iterations))
assert not net.fit(x, y, iterations=10, callbacks=[Press(5)]).interrupted
print(steps, net.history.iterations)
def train():
    net.fit(x, y, iterations=5)
worker = threading.Thread(target=train)  # signals reach the main thread alone
worker.start(); worker.join()
print(net.history.iterations)
""") == ["[5]", "10", "15"]


# ---- State ---------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_network_loaded_midway_resumes_byte_for_byte(optimizer, dtype):
    settings = {"dropout": [0.5, 0.2], "input_dropout": 0.1, "seed": 6, "dtype": dtype}
    net, other = (Network([6, 9, 8, 3], **settings) for _ in range(2))
    x, y = problem(net.units)
    net.fit(x, y, optimizer=optimizer, batch_size=8, iterations=7)
    net.fit(x, y, optimizer=optimizer, batch_size=8, epochs=1)
    other.load_state_dict(net.state_dict())
    pickled, copied = pickle.loads(pickle.dumps(net)), copy.deepcopy(net)
    for n in (net, other, pickled, copied):
        n.fit(x, y, optimizer=optimizer, batch_size=8, epochs=2)
        n.fit(x, y, optimizer=optimizer, batch_size=8, iterations=7)
        assert n.history.iterations == 7 + 5 + 10 + 7
        assert digest(n) == digest(net)
        assert repr(n) == repr(net)
    assert len(set(map(id, (net.history, other.history, pickled.history, copied.history)))) == 4


def test_a_state_is_a_copy():
    x, y = problem([6, 3])
    net = Network([6, 9, 3])
    net.fit(x, y, iterations=3)
    state, before = net.state_dict(), digest(net)
    for array in [*state["arrays"].values(), *net.coefs_, *net.intercepts_]:
        array[...] = 7
    state["losses"].append(7.0)
    state["settings"]["units"].append(7)
    assert digest(net) == before
    loaded = net.state_dict()
    other = Network([6, 9, 3])
    other.load_state_dict(loaded)
    for array in loaded["arrays"].values():
        array[...] = 7
    assert digest(other) == before
    assert other.state_dict()["optimizer"] == {"name": "rmsprop", "rho": 0.9, "epsilon": 1e-8}


def test_the_state_keeps_an_optimizers_settings():
    x, y = problem([6, 3])
    net, other = Network([6, 3]), Network([6, 3])
    net.fit(x, y, optimizer=get_optimizer("momentum", momentum=0.5), iterations=3)
    other.load_state_dict(net.state_dict())
    assert other.state_dict()["optimizer"] == {"name": "momentum", "momentum": 0.5}


def test_a_diverged_network_can_be_copied():
    net = Network([2, 2], loss="squared_error")
    state = net.state_dict()
    state["arrays"]["weight.0"][0, 0] = np.inf
    net.load_state_dict(state)
    assert digest(copy.deepcopy(net)) == digest(net)


# ---- One output ----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared_error", "sigmoid_cross_entropy"])
@pytest.mark.parametrize("step", ["fit", "train_step"])
def test_predictions_have_the_shape_that_targets_had(loss, step, tmp_path):
    x, y = problem([4, 1], loss)
    net = Network([4, 8, 1], loss=loss, dropout=0.5)
    assert net.predict(x).shape == (40, 1)

    def shapes(net):
        yield net.predict(x).shape
        yield net.subnetworks(3).predict(x).shape
        yield net.subnetworks(3)[0].predict(x).shape
        result = vars(net.predict_uncertainty(x, 3, samples=True))
        yield result.pop("samples").shape[1:]
        yield from (array.shape for array in result.values())
        if loss != "squared_error":
            yield net.predict_proba(x).shape
            yield net.predict_proba(x, mc_samples=2).shape

    for targets in (y[:, 0], y, list(y[:, 0])):
        getattr(net, step)(x, targets, **({"iterations": 2} if step == "fit" else {}))
        expected = np.shape(targets)
        net.save(tmp_path / "m")
        for n in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), load(tmp_path / "m")):
            assert set(shapes(n)) == {expected}
            assert n.score(x, y > 0.5) == n.score(x, y[:, 0] > 0.5)
    other = Network([4, 8, 1], loss=loss, dropout=0.5)
    other.load_state_dict({**net.state_dict(), "one_column": False})
    assert set(shapes(other)) == {(40, 1)}


def test_predictions_of_several_outputs_or_classes_keep_their_shapes():
    x, y = problem([4, 1])
    net = Network([4, 1])
    net.fit(x, y, iterations=1)
    assert net.predict(x).shape == (40,)
    assert net.predict_proba(x).shape == (40, 1)
    several = Network([4, 2], loss="squared_error")
    for bad in (True, 1, None):
        with pytest.raises((TypeError, ValueError), match="one_column"):
            several.load_state_dict({**several.state_dict(), "one_column": bad})


# ---- Making networks -----------------------------------------------------------------------


def test_attributes_and_shapes(dtype):
    net = Network((5, 4, 3), dropout=0.25, dtype=dtype)
    assert net.units == (5, 4, 3)
    assert net.dropout == (0.25,)
    assert net.dtype == dtype
    assert [w.shape for w in net.coefs_] == [(5, 4), (4, 3)]
    assert [b.shape for b in net.intercepts_] == [(4,), (3,)]
    assert {a.dtype for a in parameters(net)} == {np.dtype(dtype)}
    assert net.history.loss == []
    assert net.history.interrupted is False


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_are_kept(threads):
    net = Network([3, 2], threads=threads)
    assert net.threads == copy.deepcopy(net).threads == threads


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"units": np.array([5, 4, 3])}, {}),
        ({"units": (np.int32(5), 4, np.uint8(3))}, {}),
        ({"dropout": [0.5]}, {"dropout": 0.5}),
        ({"dropout": np.array([0.5])}, {"dropout": 0.5}),
        ({"dropout": np.float32(0.5)}, {"dropout": 0.5}),
        ({"dropout": np.array(0.5)}, {"dropout": 0.5}),
        ({"dropout": 0}, {"dropout": 0.0}),
        ({"dtype": np.float64}, {"dtype": "float64"}),
        ({"dtype": np.dtype("f4")}, {"dtype": "float32"}),
        ({"seed": np.uint64(2**64 - 1)}, {"seed": 2**64 - 1}),
    ],
    ids=str,
)
def test_settings_may_be_given_as_numpys(given, same):
    nets = [Network(**{"units": [5, 4, 3], **settings}) for settings in (given, same)]
    x, y = problem([5, 3])
    for net in nets:
        net.fit(x, y, iterations=3)
    assert repr(nets[0]) == repr(nets[1])
    assert digest(nets[0]) == digest(nets[1])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dropout": 0.5},
        {"dropout": [0.5, 0.25]},
        {"dropout": [0.0, 0.1], "input_dropout": 0.2, "activation": "tanh"},
        {"loss": "squared_error", "initializer": "glorot", "scaling": "test"},
        {"seed": 7, "dtype": "float64"},
    ],
    ids=str,
)
def test_the_representation_makes_the_network_again(settings):
    net = Network([5, 4, 4, 3], **settings)
    again = eval(repr(net), {"Network": Network})
    assert repr(again) == repr(net)
    assert digest(again) == digest(net)
    assert again._settings() == net._settings()


def test_make_network_is_the_articles():
    net = make_network(5, 3)
    assert net.units == (5, 100, 100, 3)
    assert make_network(5, 3, H=7, dropout=0.5, seed=2).units == (5, 7, 7, 3)
    assert digest(net) == digest(Network([5, 100, 100, 3]))
    assert cdrop.make_network is make_network


@pytest.mark.parametrize("scaling", ["train", "test"])
@pytest.mark.parametrize("name", ["dropout", "input_dropout"])
def test_rates_that_would_keep_nothing_are_refused(name, scaling):
    for rate in (1 - 2.0**-34, 1.0):
        with pytest.raises(ValueError, match=rf"^{name} is .*below 1"):
            Network([3, 4, 2], **{name: rate}, scaling=scaling)
    net = Network([3, 4, 2], **{name: 1 - 2.0**-32}, scaling=scaling)  # keeps next to nothing
    assert math.isfinite(net.train_step(*problem(net.units)))


def test_seeds_give_other_weights_masks_and_orders():
    x, y = problem([6, 3], rows=100)
    nets = [Network([6, 9, 3], dropout=0.5, seed=seed) for seed in range(3)]
    assert len({net.coefs_[0].tobytes() for net in nets}) == 3
    state = nets[0].state_dict()["arrays"]
    losses = set()
    for net in nets:  # the same weights, still other batches and masks
        net.load_state_dict({**net.state_dict(), "arrays": state})
        losses.add(tuple(net.fit(x, y, iterations=3, batch_size=32).loss))
    assert len(losses) == 3


def total(times: dict[str, list[float]]) -> float:
    return sum(map(sum, times.values()))


def test_times_account_for_what_the_threads_do() -> None:
    net = Network([64, 256, 256, 10], dropout=0.5, activation="tanh")
    X = np.random.default_rng(0).random((256, 64))
    y = np.arange(256) % 10
    assert total(net._engine.times(True)) == 0
    net.fit(X, y, iterations=20, max_norm=3)
    times = net._engine.times(False)
    assert [len(times[name]) for name in ("masks", "loss", "waiting: end")] == [1, 1, 1]
    assert all(seconds > 0 for seconds in times["products: forward"])
    assert all(seconds > 0 for seconds in times["update: weights"])
    # The first layer passes no gradient on, and the last one has no activation.
    assert [s > 0 for s in times["products: gradient by input"]] == [False, True, True]
    assert [s > 0 for s in times["activation: forward"]] == [True, True, False]
    groups = {name.partition(":")[0] for name in times}
    assert groups == {
        "masks", "thinned weights", "lists", "products", "activation", "loss", "update", "waiting",
        "checks of the result",
    }  # fmt: skip
    net.fit(X, y, iterations=1)
    assert total(net._engine.times(False)) == 0


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_times_are_those_of_the_calls_on_every_thread(threads: int) -> None:
    net = Network([64, 256, 256, 10], dropout=0.5, threads=threads)
    X = np.random.default_rng(0).random((256, 64))
    net._engine.times(True)
    begin = time.perf_counter()
    net.fit(X, np.arange(256) % 10, iterations=50)
    elapsed = time.perf_counter() - begin
    # Waiting is measured as well, so the threads' times together are those of the calls, once for each thread. A team
    # may be smaller than asked for where the pool is busy.
    measured = total(net._engine.times(False))
    assert (elapsed / 5 if threads == 1 else 0) < measured <= threads * elapsed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("units", (4, 9, 3)),
        ("dropout", (0.9,)),
        ("input_dropout", 0.5),
        ("activation", "tanh"),
        ("loss", "squared_error"),
        ("initializer", "glorot"),
        ("scaling", "test"),
        ("seed", 7),
        ("dtype", np.dtype("float64")),
    ],
)
def test_settings_of_a_network_that_is_made_cannot_be_changed(name: str, value: object) -> None:
    """The engine would continue with the old ones, and a saved file would be of another network."""
    net = Network([4, 8, 3], dropout=0.2, seed=1)
    before = repr(net), digest(net)
    with pytest.raises(AttributeError, match=f"^{name} of a network cannot be changed; expected a"):
        setattr(net, name, value)
    assert (repr(net), digest(net)) == before


def test_the_number_of_threads_is_checked_where_it_is_set() -> None:
    net = Network([4, 8, 3])
    for value, error in ((0, ValueError), ("2", TypeError)):
        with pytest.raises(error, match=f"^threads is {value!r}; expected"):
            net.threads = value
    net.threads = 2
    assert net.threads == 2


def test_a_history_that_would_not_load_is_not_saved(tmp_path: Path) -> None:
    net = Network([4, 8, 4])
    net.fit(np.eye(4), np.arange(4), epochs=2)
    net.history.epoch_loss.clear()
    with pytest.raises(ValueError, match="the history's curves differ in length: {'epoch_loss': 0"):
        net.save(tmp_path / "net")
    assert not (tmp_path / "net").exists()
