"""Metrics of probabilistic predictions against independent implementations, and recalibration against optimizers."""

import math

import numpy as np
import pytest

from cdrop.experiments import calibration

RNG = np.random.default_rng(0)
N, CLASSES = 500, 4
LOGITS = RNG.normal(0, 2, (N, CLASSES))
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
Y = np.array([RNG.choice(CLASSES, p=p) for p in P])
MEAN = RNG.normal(0, 1, N)
VARIANCE = RNG.uniform(0.2, 3, N)
NUMBERS = MEAN + np.sqrt(VARIANCE) * RNG.standard_normal(N)


def test_negative_log_likelihood_is_the_log_loss_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    expected = metrics.log_loss(Y, P)
    assert calibration.negative_log_likelihood(Y, P) == pytest.approx(expected, rel=1e-12)


def test_an_impossible_label_costs_36_nats():
    value = calibration.negative_log_likelihood(np.array([1]), np.array([[1.0, 0.0]]))
    assert value == pytest.approx(-math.log(2**-52))


def test_brier_score_is_summed_over_the_classes():
    total = 0.0
    for label, row in zip(Y, P, strict=True):
        total += sum((p - (label == k)) ** 2 for k, p in enumerate(row))
    assert calibration.brier_score(Y, P) == pytest.approx(total / N, rel=1e-12)
    assert calibration.brier_score(np.array([0]), np.array([[0.0, 1.0]])) == 2


def binned(y, probability, bins):
    """Calibration error by its definition, bin by bin."""
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == y
    error = 0.0
    for m in range(1, bins + 1):
        inside = ((m - 1) / bins < confidence) & (confidence <= m / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
def test_calibration_error_is_that_of_the_definition(bins):
    sure = P**2 / (P**2).sum(axis=1, keepdims=True)
    for p in (P, sure, np.round(P, 0) * 0.5 + 0.125):  # the last: confidences 0.125, 0.625, ...
        expected = binned(Y, p, bins)
        value = calibration.expected_calibration_error(Y, p, bins)
        assert value == pytest.approx(expected, abs=1e-12)
    assert calibration.expected_calibration_error(Y, P, bins) != binned(Y, sure, bins)


def test_calibration_error_has_its_bounds_in_the_lower_bin():
    half = np.array([[0.5, 0.5], [0.75, 0.25]])  # bins (0, 0.5] and (0.5, 1]
    assert calibration.expected_calibration_error(np.array([1, 0]), half, 2) == 0.375
    certain = np.array([[1.0, 0.0]])
    assert calibration.expected_calibration_error(np.array([0]), certain) == 0
    assert calibration.expected_calibration_error(np.array([1]), certain) == 1


def test_calibration_error_of_100_perfect_rows_is_about_a_tenth():
    values = []
    for _ in range(200):
        confidence = RNG.uniform(0.5, 1, 100)
        y = (RNG.uniform(size=100) > confidence).astype(int)
        pair = np.column_stack([confidence, 1 - confidence])
        values.append(calibration.expected_calibration_error(y, pair))
    assert 0.07 < np.mean(values) < 0.13


def test_auroc_is_that_of_scikit_learn_with_ties():
    metrics = pytest.importorskip("sklearn.metrics")
    low, high = np.round(RNG.normal(0, 1, 80), 1), np.round(RNG.normal(0.5, 1, 50), 1)
    truth = np.repeat([0, 1], [80, 50])
    expected = metrics.roc_auc_score(truth, np.concatenate([low, high]))
    assert calibration.auroc(low, high) == pytest.approx(expected, rel=1e-12)
    assert calibration.auroc(low, low) == 0.5
    assert math.isnan(calibration.auroc(low, high[:0]))


# ---- Temperature ------------------------------------------------------------------------------------------------


def test_temperature_divides_the_logits():
    z = LOGITS / 1.7
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibration.with_temperature(P, 1.7), expected, rtol=1e-12)
    np.testing.assert_allclose(calibration.with_temperature(P, 1.0), P, rtol=1e-12)


def test_temperature_of_impossible_classes_is_finite():
    p = calibration.with_temperature(np.array([[1.0, 0.0]], np.float32), 20.0)
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1)


@pytest.mark.parametrize("power", [0.4, 1.0, 3.0])
def test_fitted_temperature_has_the_lowest_negative_log_likelihood(power):
    optimize = pytest.importorskip("scipy.optimize")
    p = P**power / (P**power).sum(axis=1, keepdims=True)

    def loss(log_temperature):
        z = np.log(p) / math.exp(log_temperature)
        return (np.log(np.exp(z).sum(axis=1)) - z[np.arange(N), Y]).mean()

    best = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    found = calibration.fit_temperature(Y, p)
    assert found == pytest.approx(math.exp(best.x), rel=1e-5)
    assert found == pytest.approx(power, rel=0.15)  # the labels were drawn from P


def test_temperature_stays_1_without_errors_and_is_20_without_hits():
    labels = P.argmax(axis=1)
    assert calibration.fit_temperature(labels, P) == 1
    assert calibration.fit_temperature(P.argmin(axis=1), P) == pytest.approx(20)


# ---- Numbers ----------------------------------------------------------------------------------------------------


def test_gaussian_nll_is_the_density_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    expected = -stats.norm.logpdf(NUMBERS, MEAN, np.sqrt(VARIANCE)).mean()
    assert calibration.gaussian_nll(NUMBERS, MEAN, VARIANCE) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_are_those_of_scipy(level):
    stats = pytest.importorskip("scipy.stats")
    low, high = stats.norm.interval(level, MEAN, np.sqrt(VARIANCE))
    coverage = (np.abs(NUMBERS - (low + high) / 2) <= (high - low) / 2).mean()
    alpha = 1 - level
    score = (
        (high - low)
        + 2 / alpha * np.maximum(low - NUMBERS, 0)
        + 2 / alpha * np.maximum(NUMBERS - high, 0)
    )
    found = calibration.intervals(NUMBERS, MEAN, VARIANCE, level)
    assert found == pytest.approx((coverage, (high - low).mean(), score.mean()), rel=1e-12)
    assert found.coverage == pytest.approx(level, abs=0.06)


def test_variance_scale_has_the_lowest_negative_log_likelihood():
    optimize = pytest.importorskip("scipy.optimize")
    small = VARIANCE / 4

    def loss(log_scale):
        return calibration.gaussian_nll(NUMBERS, MEAN, math.exp(log_scale) * small)

    best = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    found = calibration.fit_variance_scale(NUMBERS, MEAN, small)
    assert found == pytest.approx(math.exp(best.x), rel=1e-5)
    assert found == pytest.approx(4, rel=0.3)
