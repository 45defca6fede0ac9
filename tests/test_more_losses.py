"""Losses of numbers, soft labels and label smoothing: definitions, gradients, and networks that train on them."""

import pickle

import numpy as np
import pytest
from conftest import (
    LOSSES,
    THREADS,
    TOLERANCE,
    assert_close,
    digest,
    distance,
    parameters,
    spec_of,
    with_biases,
)
from sklearn import metrics
from test_kernels import assert_gradient, central_differences

import cdrop
from cdrop import Network, _kernels, kernels, reference
from cdrop.uncertainty import RegressionUncertainty

NUMBERS = {  # keyword arguments of the kernel, of the network, and what scikit-learn calls it
    "absolute_error": ({}, {}),
    "huber": ({"delta": 0.5}, {"huber_delta": 0.5}),
    "poisson": ({}, {}),
    "quantile": ({"quantiles": [0.1, 0.9, 0.5]}, {"quantiles": [0.1, 0.9, 0.5]}),
}
SMOOTH = {"label_smoothing": 0.2}


def case(rows=60, outputs=3, dtype="float64", seed=0):
    draw = np.random.default_rng(seed)
    z, t = draw.standard_normal((2, rows, outputs)).astype(dtype)
    return z, np.abs(t), draw.random(rows) + 0.1


def network(loss, dtype="float64", **changed):
    settings = {"units": [6, 70, 3], "dropout": 0.3, "seed": 2, **NUMBERS.get(loss, ({}, {}))[1]}
    return with_biases(Network(**{**settings, **changed}, loss=loss, dtype=dtype))


# ---- Definitions -------------------------------------------------------------------------------


def test_every_loss_has_a_test():
    assert set(_kernels.LOSSES) == {*LOSSES, *NUMBERS}
    assert tuple(reference.LOSSES) == _kernels.LOSSES


def test_definitions_are_those_of_scikit_learn():
    z, t, weight = case()
    expected = {
        "absolute_error": metrics.mean_absolute_error(t, z, sample_weight=weight) * 3,
        "poisson": sum(
            metrics.mean_poisson_deviance(t[:, i], np.exp(z[:, i]), sample_weight=weight) / 2
            for i in range(3)
        ),
        "quantile": sum(
            metrics.mean_pinball_loss(t[:, i], z[:, i], alpha=q, sample_weight=weight)
            for i, q in enumerate([0.1, 0.9, 0.5])
        ),
    }
    for name, value in expected.items():
        loss, _ = getattr(kernels, name)(z, t, weight, **NUMBERS[name][0])
        assert loss == pytest.approx(value, rel=1e-12)
    size = np.abs(z - t)
    rows = np.where(size <= 0.5, size**2 / 2, 0.5 * (size - 0.25)).sum(axis=1)
    loss, _ = kernels.huber(z, t, weight, delta=0.5)
    assert loss == pytest.approx(np.average(rows, weights=weight), rel=1e-12)
    assert kernels.huber(z, t, delta=1e9)[0] == pytest.approx(kernels.squared_error(z, t)[0])


@pytest.mark.isa
@pytest.mark.parametrize("name", [*NUMBERS, *LOSSES[:2]])
def test_gradients_are_central_differences(name, simd):
    z, t, weight = case(rows=5)
    options = NUMBERS[name][0] if name in NUMBERS else SMOOTH
    if name in LOSSES:
        t /= t.sum(axis=1, keepdims=True)
    away = np.abs(np.abs(z - t) - 0.5) > 1e-3  # from Huber's joint
    assert away.all()
    assert (np.abs(z - t) > 1e-3).all()
    loss = getattr(kernels, name)
    numeric = central_differences(lambda: loss(z, t, weight, **options)[0], z)
    assert_gradient(loss(z, t, weight, **options)[1], numeric)


@pytest.mark.isa
def test_equal_numbers_have_a_gradient_of_zero(dtype, simd):
    t = np.array([[1.5, 0.0, 3.0]], dtype)
    for name in ("absolute_error", "huber", "quantile"):
        loss, gradient = getattr(kernels, name)(t, t)
        assert (loss, gradient.tolist()) == (0.0, [[0.0] * 3])


@pytest.mark.isa
def test_poisson_at_its_limits(dtype, simd):
    # A target of 0 has no logarithm; the mean overflows where NumPy's exponential does, or just before.
    zero = np.zeros((1, 1), dtype)
    assert kernels.poisson(zero - 800, zero)[0] == 0.0
    loss, gradient = kernels.poisson(zero, zero)
    assert (loss, gradient[0, 0]) == (1.0, 1.0)
    high = 88 if dtype == "float32" else 709
    assert np.isfinite(kernels.poisson(zero + high - 0.01, zero)[0])
    assert kernels.poisson(zero + high, zero)[0] == np.inf
    large = np.array([[1e5]], dtype)
    assert kernels.poisson(np.log(large), large)[0] == pytest.approx(0, abs=0.1)


@pytest.mark.isa
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_not_finite_show_in_the_loss(name, dtype, simd):
    for bad in (np.nan, np.inf, -np.inf):
        z, t, _ = case(rows=3, dtype=dtype)
        z[1, 2] = bad
        loss, gradient = getattr(kernels, name)(z, t, **NUMBERS[name][0])
        assert not np.isfinite(loss)
        assert np.isfinite(gradient[0]).all()
        assert np.isnan(bad) == np.isnan(gradient[1, 2])


@pytest.mark.isa
def test_exponentials_are_near_those_of_numpy(dtype, simd):
    x = np.linspace(-80, 87, 999, dtype=dtype)[None, :]
    means, eps = _kernels.exponential(x), np.finfo(dtype).eps
    np.testing.assert_allclose(means.astype(float), np.exp(x.astype(float)), rtol=2 * eps)


def test_one_target_may_be_that_of_every_quantile(dtype):
    z, t, _ = case(dtype=dtype)
    options = NUMBERS["quantile"][0]
    repeated = np.repeat(t[:, :1], 3, axis=1)
    once, each = (kernels.quantile(z, y, **options) for y in (t[:, :1].copy(), repeated))
    assert once[0] == each[0]
    np.testing.assert_array_equal(once[1], each[1])


def test_smoothed_and_soft_labels_are_those_of_the_equations(dtype):
    z, t, weight = case(dtype=dtype)
    labels = np.arange(60) % 3
    hot, share = np.eye(3, dtype=dtype)[labels], z.dtype.type(0.2)
    for smoothing in (0.0, 0.2):
        by_label = kernels.softmax_cross_entropy(z, labels, weight, label_smoothing=smoothing)
        soft = kernels.softmax_cross_entropy(z, hot, weight, label_smoothing=smoothing)
        assert by_label[0] == pytest.approx(soft[0], rel=TOLERANCE["loss"][dtype])
        assert_close(by_label[1], soft[1], "loss")
    smoothed = hot * (1 - share) + share / 3
    assert_close(by_label[1], kernels.softmax_cross_entropy(z, smoothed, weight)[1], "loss")
    several = np.minimum(t, 1)
    smoothed = kernels.sigmoid_cross_entropy(z, several, **SMOOTH)
    plain = kernels.sigmoid_cross_entropy(z, several * (1 - share) + share / 2)
    assert smoothed[0] == pytest.approx(plain[0], rel=TOLERANCE["loss"][dtype])
    assert_close(smoothed[1], plain[1], "loss")


# ---- Networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NUMBERS, *LOSSES[:2]])
def test_steps_are_those_of_the_twin(name, dtype, simd):
    net = network(name, dtype, **(SMOOTH if name in LOSSES else {}))
    start, params = parameters(net), (net.coefs_, net.intercepts_)
    state = reference.initial_state(params, "adam")
    for step in range(1, 6):
        z, t, weight = case(30, 6, dtype, step)
        y = (t / t.sum(axis=1, keepdims=True))[:, :3] if name in LOSSES else t[:, :3]
        y = np.arange(30) % 3 if name == LOSSES[0] and step % 2 else y
        if name == LOSSES[0] and y.ndim == 2:
            y /= y.sum(axis=1, keepdims=True)
        loss = net.train_step(z, y, weight, optimizer="adam")
        expected = reference.train_step(
            params, state, z, y, spec_of(net), step=step, sample_weight=weight
        )
        assert loss == pytest.approx(expected, rel=TOLERANCE["run"][dtype])
    moved = distance(parameters(net), [*params[0], *params[1]], start)
    assert moved < TOLERANCE["run"][dtype]


@pytest.mark.isa
@pytest.mark.parametrize("name", [*NUMBERS, *LOSSES[:2]])
def test_weights_do_not_depend_on_path_or_threads(name, dtype, on_each_path):
    z, t, weight = case(90, 9, dtype)
    labels = np.arange(90) % 3
    y = labels if name == LOSSES[0] else np.minimum(t[:, :3], 1)

    def results():
        for threads in THREADS[:3]:
            net = network(name, dtype, threads=threads, **(SMOOTH if name in LOSSES else {}))
            net.fit(z[:, :6], y, weight, epochs=2, batch_size=32, validation=(z[:, :6], y))
            result = net.predict_uncertainty(z[:, :6], 3)
            yield digest(net), net.predict(z[:, :6]).tobytes(), result.mean.tobytes()
            yield net.history.validation_loss, net.history.validation_score

    by_path = on_each_path(lambda: list(results()))
    for found in by_path.values():
        assert found == by_path["scalar"]
        assert found[0] == found[2] == found[4]


def test_one_hot_probabilities_train_as_labels_do(dtype):
    x, labels = case(90, 6, dtype)[0], np.arange(90) % 3
    by_label, soft = network(LOSSES[0], dtype), network(LOSSES[0], dtype)
    by_label.fit(x, labels, epochs=2)
    soft.fit(x, np.eye(3)[labels], epochs=2)
    for a, b in zip(parameters(by_label), parameters(soft), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert by_label.score(x, labels) == pytest.approx(soft.score(x, np.eye(3)[labels]))


@pytest.mark.parametrize("name", LOSSES[:2])
def test_evaluation_does_not_smooth(name):
    x, t, _ = case(50, 6)
    y = np.arange(50) % 3 if name == LOSSES[0] else np.minimum(t[:, :3], 1)
    plain, smooth = network(name), network(name, label_smoothing=0.5)
    assert smooth.evaluate(x, y) == plain.evaluate(x, y)
    assert smooth.train_step(x, y) != plain.train_step(x, y)


def test_poisson_predicts_means():
    x, t, _ = case(80, 6)
    net = network("poisson")
    net.fit(x, t[:, :3], epochs=30)
    outputs = net._engine.predict(_kernels.Rows(x), "outputs", 0)
    np.testing.assert_allclose(net.predict(x), np.exp(outputs), rtol=1e-14)
    result = net.predict_uncertainty(x, 20, seed=1)
    twin = reference.uncertainty((net.coefs_, net.intercepts_), x, spec_of(net), 20, seed=1)
    assert type(result) is RegressionUncertainty
    assert_close(result.mean, twin["mean"], "product")
    assert_close(result.std, twin["std"], "product")
    assert net.subnetworks(3).predict(x).min() > 0
    score = metrics.r2_score(t[:, :3], net.predict(x))
    assert net.score(x, t[:, :3]) == pytest.approx(score)
    assert net.evaluate(x, t[:, :3]).score == pytest.approx(score)


def test_quantiles_cover_their_shares():
    draw = np.random.default_rng(0)
    x = draw.uniform(-1, 1, (2000, 1))
    y = x[:, 0] + draw.exponential(1, 2000)
    levels = [0.1, 0.5, 0.9]
    net = Network([1, 16, 3], loss="quantile", quantiles=levels, seed=1)
    net.fit(x, y, epochs=30, learning_rate=0.003, batch_size=64, optimizer="adam")
    covered = (y[:, None] <= net.predict(x)).mean(axis=0)
    np.testing.assert_allclose(covered, levels, atol=0.04)
    scores = [
        metrics.d2_pinball_score(y, net.predict(x)[:, i], alpha=q) for i, q in enumerate(levels)
    ]
    assert net.score(x, y) == pytest.approx(np.mean(scores), abs=1e-3)
    assert net.evaluate(x, y[:, None]).score == net.score(x, y)


def test_a_row_of_weight_two_scores_as_two_rows():
    x, t, _ = case(9, 6)
    net, twice = network("quantile"), np.r_[np.arange(9), 0, 1]
    weight = np.bincount(twice).astype(float)
    for y in (t[:, 0], t[:, :3]):
        score = net.score(x, y, weight)
        assert score == pytest.approx(net.score(x[twice], y[twice]))
        assert score != pytest.approx(net.score(x, y))


def test_soft_labels_score_as_their_most_probable_class():
    x, t, _ = case(50, 6)
    soft, net = t[:, :3] / t[:, :3].sum(axis=1, keepdims=True), network(LOSSES[0])
    assert net.score(x, soft) == net.score(x, soft.argmax(axis=1))
    assert net.evaluate(x, soft).score == net.score(x, soft)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full((4, 3), 0.3), r"y\[0\] is .* sum to 1"),
        (np.array([[1.0, 0, 0], [0, 2, -1], [0, 0, 1], [0, 1, 0]]), r"y\[1\] is"),
        (
            np.full((4, 2), 0.5),
            r"y has shape \(4, 2\); expected \(4,\), one label per row, or \(4, 3\)",
        ),
        (np.full((4, 3), np.nan), r"y\[0, 0\] is nan"),
        (np.full((4, 3, 1), 1 / 3), r"y has shape"),
    ],
)
def test_probabilities_that_are_none_are_errors(y, message):
    with pytest.raises(ValueError, match=message):
        network(LOSSES[0]).fit(np.ones((4, 6)), y)


def test_counts_below_zero_are_errors():
    y = np.array([[1, 2, 3], [1, -2, 3]])
    with pytest.raises(ValueError, match=r"y\[1, 1\] is -2.0; expected numbers of at least 0"):
        network("poisson").fit(np.ones((2, 6)), y)


@pytest.mark.parametrize("name", ["huber", "quantile", LOSSES[1]])
def test_settings_of_a_loss_are_kept(name, tmp_path):
    x, t, _ = case(50, 6)
    y = np.minimum(t[:, :3], 1)
    net = network(name, **(SMOOTH if name in LOSSES else {}))
    net.fit(x, y, epochs=1)
    net.save(tmp_path / "net")
    for copy in (cdrop.load(tmp_path / "net"), pickle.loads(pickle.dumps(net))):
        assert repr(copy) == repr(net)
        assert copy.train_step(x, y) == pickle.loads(pickle.dumps(net)).train_step(x, y)
    other = network(name, **dict.fromkeys(net._loss_settings, 0.25))
    with pytest.raises(ValueError, match=f"the state's {next(iter(net._loss_settings))} is"):
        other.load_state_dict(net.state_dict())
    with pytest.raises(AttributeError, match="cannot be changed"):
        setattr(net, next(iter(net._loss_settings)), 0.25)


def test_states_and_files_without_these_settings_are_as_before():
    assert "label_smoothing" not in Network([2, 2]).state_dict()["settings"]
    plain, smooth = Network([2, 2]), Network([2, 2], label_smoothing=0.1)
    for one, other in ((plain, smooth), (smooth, plain)):
        with pytest.raises(ValueError, match="the state's label_smoothing is"):
            one.load_state_dict(other.state_dict())


def test_losses_report_what_they_do_not_use():
    for name, value in (("label_smoothing", 0.1), ("huber_delta", 2.0), ("quantiles", [0.1])):
        with pytest.raises(ValueError, match=f"{name} is .*, which loss 'squared_error' does not"):
            Network([2, 1], loss="squared_error", **{name: value})
