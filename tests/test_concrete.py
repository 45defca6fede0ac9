"""Concrete dropout: rates of hidden layers that training learns."""

import itertools
import pickle

import numpy as np
import pytest

import cdrop
from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, kernels, reference
from cdrop.rates import Linear, logit, sigmoid

UNITS = (70, 90, 130, 5)


def data(rows=70, dtype="float64"):
    draw = np.random.default_rng(0)
    X = np.maximum(draw.normal(size=(rows, UNITS[0])), 0).astype(dtype)
    return X, draw.integers(0, UNITS[-1], rows)


def network(kinds=("concrete", "concrete"), dropout=(0.5, 0.3), **settings):
    arguments = {"seed": 4, "dtype": "float64"} | settings
    return Network(UNITS, dropout=list(dropout), dropout_kind=list(kinds), **arguments)


def weights(net):
    arrays = (*net.coefs_, *net.intercepts_, net.state_dict()["learned_rates"])
    return b"".join(array.tobytes() for array in arrays)


def learned(kinds, dropout):
    return reference.LearnedRates(
        {
            i: float(np.log(rate / (1 - rate)))
            for i, (kind, rate) in enumerate(zip(kinds, dropout, strict=True), 1)
            if kind == "concrete"
        }
    )


# ---- The noise ------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-4), ("float64", 1e-12)])
@pytest.mark.parametrize("keep", [0.03, 0.5, 0.9, 0.999])
def test_noise_equals_the_reference(dtype, error, keep):
    key = {"kind": "concrete", "seed": 3, "step": 5, "layer": 2, "purpose": 4}
    noise = kernels.dropout_noise(130, 129, keep, dtype=dtype, **key)
    expected = reference.dropout_noise(130, 129, keep, dtype="float64", **key)
    np.testing.assert_allclose(noise * keep, expected * keep, atol=error)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_half_of_a_unit_is_kept_with_the_probability(keep):
    noise = kernels.dropout_noise(2000, 500, keep, kind="concrete", dtype="float64", seed=7)
    kept = (noise * keep > 0.5).mean()
    assert abs(kept - keep) < 4 * np.sqrt(keep * (1 - keep) / noise.size)
    assert abs(noise.mean() - 1) < 0.02
    assert ((noise * keep < 0.01) | (noise * keep > 0.99)).mean() > 0.6


# ---- Training -------------------------------------------------------------------------------


def test_concrete_noise_that_keeps_all_is_1_for_every_draw():
    """One of these draws is rounded to 1 in float32, where 0 times infinity was NaN."""
    settings = {"kind": "concrete", "seed": 1}
    rows = kernels.dropout_noise(64, 4096, 1.0, first_row=640, **settings)
    assert (rows == 1).all()


@pytest.mark.parametrize(
    "kinds", [("concrete",) * 2, ("shared", "concrete"), ("concrete", "bernoulli")]
)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_steps_equal_those_of_the_reference(kinds, activation, l2):
    X, y = data()
    dropout = (0.5, 0.3)
    net = network(kinds, dropout, activation=activation, input_dropout=0.2)
    spec = reference.NetworkSpec(
        UNITS, list(dropout), 0.2, activation=activation, seed=4, kinds=("bernoulli", *kinds)
    )
    params = reference.initial_weights(UNITS, seed=4, dtype="float64")
    state = reference.initial_state(params, "adam")
    rates = learned(kinds, dropout)
    rule = {"learning_rate": 0.01, "l2": l2}
    for step in (1, 2, 3, 4):
        rule["max_norm"] = 2.0 if step == 2 else None
        expected = reference.train_step(
            params, state, X, y, spec, step=step, learned=rates, entropy=1 / len(X), **rule
        )
        assert net.train_step(X, y, optimizer="adam", **rule) == pytest.approx(expected, 1e-10)
    for ours, theirs in zip((*net.coefs_, *net.intercepts_), itertools.chain(*params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
    rows = net.state_dict()["learned_rates"]
    for layer, expected in rates.logits.items():
        assert rows[layer, 0] == pytest.approx(expected, abs=1e-9)
        assert not np.array_equal(rows[layer, 0], learned(kinds, dropout).logits[layer])


@pytest.mark.parametrize("kinds", [("concrete", "concrete"), ("bernoulli", "concrete")])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_steps_with_two_masks_for_each_row_equal_those_of_the_reference(kinds, activation):
    X, y = data()
    net = network(kinds, activation=activation)
    spec = reference.NetworkSpec(
        UNITS, [0.5, 0.3], activation=activation, seed=4, kinds=("bernoulli", *kinds)
    )
    params = reference.initial_weights(UNITS, seed=4, dtype="float64")
    state = reference.initial_state(params, "adam")
    rates = learned(kinds, (0.5, 0.3))
    rule = {"learning_rate": 0.01, "l2": 1e-3, "mask_samples": 2, "consistency": 1.0}
    for step in (1, 2, 3):
        expected = reference.train_step(
            params, state, X, y, spec, step=step, learned=rates, entropy=1 / len(X), **rule
        )
        assert net.train_step(X, y, optimizer="adam", **rule) == pytest.approx(expected, 1e-10)
    for layer, expected in rates.logits.items():
        assert net.state_dict()["learned_rates"][layer, 0] == pytest.approx(expected, abs=1e-9)


def test_rates_of_the_last_step_are_those_of_predictions():
    X, y = data()
    net = network()
    for _ in range(2):
        net.train_step(X, y)
    spec = reference.NetworkSpec(
        UNITS, list(net.dropout_), seed=4, kinds=("bernoulli", *["concrete"] * 2)
    )
    params = (net.coefs_, net.intercepts_)
    result = net.predict_uncertainty(X, 5)
    for name, expected in reference.uncertainty(params, X, spec, 5).items():
        np.testing.assert_allclose(getattr(result, name), expected, atol=1e-9)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
def test_gradients_are_finite_differences(loss):
    """Of the reference, whose steps are those of the library."""
    X, y = data(rows=20)
    if loss == "squared_error":
        y = np.random.default_rng(1).normal(size=(20, UNITS[-1]))
    kinds = ("bernoulli", "concrete", "concrete")
    spec = reference.NetworkSpec(
        UNITS, [0.4, 0.2], loss=loss, seed=4, kinds=kinds, activation="tanh"
    )
    params = reference.initial_weights(UNITS, seed=4, dtype="float64")
    l2, entropy, h = 1e-2, 1e-2, 1e-4

    def objective(logits):
        there = reference.LearnedRates(logits).applied_to(spec)
        masks = reference.keyed_masks(there, len(X), 1)
        value, _ = reference.loss_and_gradients(params, X, y, there, masks=masks)
        for own, weight in zip(there.l2_by_layer(l2), params[0], strict=True):
            value += 0.5 * own * (weight**2).sum()
        for rate, width in zip(there.rates[1:], UNITS[1:-1], strict=True):
            value += entropy * width * (rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
        return value

    logits = learned(kinds[1:], (0.4, 0.2)).logits
    masks = reference.keyed_masks(spec, len(X), 1)
    slopes = reference.rate_gradients(params, X, y, spec, masks=masks, l2=l2, entropy=entropy)
    for layer, slope in slopes.items():
        up, down = ({**logits, layer: logits[layer] + sign * h} for sign in (1, -1))
        numeric = (objective(up) - objective(down)) / (2 * h)
        assert slope == pytest.approx(numeric, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bytes_are_the_same_with_any_number_of_threads(dtype):
    X, y = data(200, dtype)
    runs = []
    for threads in (1, 2, 3):
        net = network(dtype=dtype, threads=threads)
        net.fit(X, y, iterations=5, batch_size=150)
        runs.append(weights(net))
    assert runs[0] == runs[1] == runs[2]


class Stop(cdrop.callbacks.Callback):
    """Ends a fit after some steps, or breaks it."""

    def __init__(self, steps, fails=False):
        self.steps, self.fails = steps, fails

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def on_iteration(self, net, iteration, loss):
        if iteration >= self.steps and self.fails:
            raise OSError("full")
        return iteration >= self.steps


def test_a_fit_that_is_continued_gives_the_bytes_of_one_that_was_not_stopped(tmp_path):
    pytest.importorskip("safetensors")
    X, y = data(150)
    settings = {"batch_size": 64, "l2": 1e-3}
    whole, part, resumed = (network() for _ in range(3))
    whole.fit(X, y, iterations=10, **settings)
    part.fit(X, y, iterations=10, callbacks=[Stop(4)], **settings)
    part.save(tmp_path / "net")
    saved = {"iterations": 10, "checkpoint": tmp_path / "fit", "checkpoint_every": 3}
    with pytest.raises(OSError, match="full"):
        network().fit(X, y, callbacks=[Stop(5, fails=True)], **saved, **settings)
    resumed.fit(X, y, callbacks=[Stop(99)], **saved, **settings)
    assert weights(resumed) == weights(whole)
    for net in (part, cdrop.load(tmp_path / "net"), pickle.loads(pickle.dumps(part))):
        assert net.history.iterations == 4
        net.fit(X, y, iterations=6, **settings)
        assert weights(net) == weights(whole)


def test_a_step_that_is_refused_leaves_the_rates():
    X, y = data()
    net, other = network(), network()
    with pytest.raises(FloatingPointError):
        net.train_step(np.full_like(X, 1e308), y)
    assert net.dropout_ == other.dropout_ == pytest.approx((0.5, 0.3))
    assert net.train_step(X, y) == other.train_step(X, y)
    assert weights(net) == weights(other)


@pytest.mark.parametrize(("rows", "falls"), [(1000, True), (30, False)])
def test_rates_fall_with_many_rows_and_rise_with_few(rows, falls):
    """The entropy weighs as much as one row."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(rows, 10))
    y = ((X[:, 0] > 0) ^ (X[:, 1] > 0)).astype(int)
    net = Network([10, 32, 32, 2], dropout=0.3, dropout_kind="concrete", seed=1)
    net.fit(X, y, learning_rate=0.003, batch_size=min(50, rows), iterations=300, l2=1e-3)
    assert [rate < 0.3 for rate in net.dropout_] == [falls, falls]


# ---- The arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dropout": 0.0}, r"dropout\[0\] is 0.0 with dropout_kind 'concrete'; expected a number"),
        (
            {"dropout": [0.5, Linear(0.1, 0.2)]},
            r"dropout\[1\] is Linear.*; expected a number above 0",
        ),
        ({"input_dropout_kind": "concrete"}, "input_dropout_kind is 'concrete'; expected one of"),
    ],
    ids=str,
)
def test_invalid_arguments(settings, expected):
    arguments = {"dropout": 0.5, "dropout_kind": "concrete"} | settings
    with pytest.raises(ValueError, match=expected):
        Network([4, 8, 8, 2], **arguments)
    with pytest.raises(ValueError, match=expected):
        DropoutMLPClassifier((8, 8), **arguments).fit(*data(20))


@pytest.mark.parametrize(
    "spoilt",
    [
        "a",
        [[0.0] * 5] * 2,
        [[13.0, 0, 0, 1, 1]] * 3,
        [[np.nan, 0, 0, 1, 1]] * 3,
        [[0, 0, -1, 1, 1]] * 3,
    ],
)
def test_a_state_is_checked(spoilt):
    net = network()
    before = weights(net)
    with pytest.raises((TypeError, ValueError), match="learned_rates|could not convert"):
        net.load_state_dict({**net.state_dict(), "learned_rates": spoilt})
    assert weights(net) == before


def test_kinds_may_change_to_concrete_and_back():
    X, y = data()
    concrete, plain = network(), network(("bernoulli", "bernoulli"))
    for net in (concrete, plain):
        net.train_step(X, y)
    back, forth = network(("bernoulli", "bernoulli")), network()
    back.load_state_dict(concrete.state_dict())
    forth.load_state_dict(plain.state_dict())
    assert back.dropout_ == (0.5, 0.3)
    for net in (back, forth):
        net.train_step(X, y)
    assert forth.dropout_ == pytest.approx((0.5, 0.3))  # of the first step that learned them


def test_estimators_learn_rates_and_save_them(tmp_path):
    pytest.importorskip("safetensors")
    X, y = data(200)
    for kind, target in ((DropoutMLPClassifier, y), (DropoutMLPRegressor, X[:, 0])):
        model = kind((16, 8), dropout=0.3, dropout_kind="concrete", max_iter=5, random_state=0)
        with pytest.warns(UserWarning, match="did not converge|Maximum iterations"):
            model.fit(X, target)
        rates = model.network_.dropout_
        assert len(rates) == 2
        assert 0.3 not in rates
        model.save(tmp_path / "model")
        assert cdrop.load(tmp_path / "model").network_.dropout_ == rates


@pytest.mark.parametrize("rate", [1e-5, 0.1, 0.5, 0.9, 0.99999])
def test_logit_and_sigmoid_are_inverse(rate):
    assert logit(rate) == pytest.approx(np.log(rate / (1 - rate)), rel=1e-13, abs=1e-15)
    assert sigmoid(logit(rate)) == pytest.approx(rate, rel=1e-13)


def test_no_noise_without_subnetworks():
    with pytest.raises(ValueError, match="concrete noise, which drops none"):
        network().subnetworks(3)
