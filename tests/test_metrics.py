"""Metrics: scores are scikit-learn's, and the values per row average to the score and vary as it does."""

import math
import pickle

import numpy as np
import pytest

from cdrop.experiments.metrics import (
    METRICS,
    Prediction,
    baseline,
    metric_for,
    metrics_of,
    score_all,
)

RNG = np.random.default_rng(0)
N = 400
TRUTH = RNG.integers(0, 3, N)
P = RNG.dirichlet([1, 1, 1], N) * 0.6 + 0.4 * np.eye(3)[TRUTH]
CLASSES = Prediction(P.argmax(axis=1), P)
TWO = (TRUTH > 0).astype(int)
# Probabilities in tenths, so that many rows tie.
TIED = np.round(np.clip(RNG.normal(0.4 + 0.2 * TWO, 0.25), 0, 1), 1)
BINARY = Prediction((TIED > 0.5).astype(int), np.column_stack([1 - TIED, TIED]))
NUMBERS = RNG.normal(3, 2, N)
FORECAST = Prediction(NUMBERS + RNG.standard_t(5, N))


def case(name):
    """Targets and a prediction for a metric."""
    if "regression" in METRICS[name].tasks:
        return NUMBERS, FORECAST
    return (TWO, BINARY) if name == "roc_auc" else (TRUTH, CLASSES)


def part(prediction, rows):
    p = prediction.probability
    return Prediction(prediction.values[rows], None if p is None else p[rows])


def score(name, y, prediction):
    return METRICS[name].measure(y, None, prediction)[0]


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_those_of_scikit_learn(name):
    metrics = pytest.importorskip("sklearn.metrics")
    y, prediction = case(name)
    of = {
        "log_loss": lambda: metrics.log_loss(y, prediction.probability),
        "accuracy": lambda: metrics.accuracy_score(y, prediction.values),
        "balanced_accuracy": lambda: metrics.balanced_accuracy_score(y, prediction.values),
        "roc_auc": lambda: metrics.roc_auc_score(y, prediction.probability[:, 1]),
        "rmse": lambda: metrics.root_mean_squared_error(y, prediction.values),
        "mae": lambda: metrics.mean_absolute_error(y, prediction.values),
        "r2": lambda: metrics.r2_score(y, prediction.values),
    }
    assert score(name, y, prediction) == pytest.approx(of[name](), rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_values_per_row_average_to_the_score(name):
    y, prediction = case(name)
    value, rows = METRICS[name].measure(y, None, prediction)
    assert rows.shape == (N,)
    assert rows.mean() == pytest.approx(value, rel=1e-12)
    assert rows.dtype == (np.bool_ if name == "accuracy" else np.float64)


@pytest.mark.parametrize("name", METRICS)
def test_values_per_row_vary_as_the_jackknife_does(name):
    y, prediction = case(name)
    _, rows = METRICS[name].measure(y, None, prediction)
    left_out = [score(name, np.delete(y, i), part(prediction, np.arange(N) != i)) for i in range(N)]
    jackknife = (N - 1) / N * np.square(left_out - np.mean(left_out)).sum()
    assert rows.astype(float).var(ddof=1) / N == pytest.approx(jackknife, rel=0.02)


def test_values_per_row_of_two_classifiers_covary_as_the_jackknife_says():
    other = Prediction(BINARY.values, BINARY.probability[:, ::-1] * 0.3 + 0.7 * BINARY.probability)
    pair = [(METRICS["roc_auc"].measure(TWO, None, p)[1], p) for p in (BINARY, other)]
    difference = pair[0][0] - pair[1][0]
    left_out = [
        np.subtract(
            *(score("roc_auc", np.delete(TWO, i), part(p, np.arange(N) != i)) for _, p in pair)
        )
        for i in range(N)
    ]
    jackknife = (N - 1) / N * np.square(left_out - np.mean(left_out)).sum()
    assert difference.var(ddof=1) / N == pytest.approx(jackknife, rel=0.02, abs=1e-12)


def test_the_variance_of_the_auc_is_delongs():
    """DeLong's estimate, computed pair by pair."""
    positive, negative = TIED[TWO == 1], TIED[TWO == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    assert (wins == 0.5).any()
    expected = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    value, rows = METRICS["roc_auc"].measure(TWO, None, BINARY)
    assert value == pytest.approx(wins.mean(), rel=1e-12)
    assert rows.var(ddof=1) / N == pytest.approx(expected, rel=0.02)


def test_several_columns_of_numbers():
    metrics = pytest.importorskip("sklearn.metrics")
    y = np.column_stack([NUMBERS, 10 * NUMBERS[::-1]])
    prediction = Prediction(y + RNG.normal(0, 1, y.shape))
    for name, of in (("r2", metrics.r2_score), ("mae", metrics.mean_absolute_error)):
        assert score(name, y, prediction) == pytest.approx(of(y, prediction.values), rel=1e-12)
    expected = math.sqrt(np.square(prediction.values - y).mean())
    assert score("rmse", y, prediction) == pytest.approx(expected, rel=1e-12)


def test_several_labels():
    y = np.column_stack([TWO, 1 - TWO, TRUTH == 2]).astype(float)
    p = np.clip(0.5 + 0.3 * (y - 0.5) + RNG.normal(0, 0.2, y.shape), 0, 1)
    prediction = Prediction(p > 0.5, p)
    right = ((p > 0.5) == (y > 0.5)).all(axis=1).mean()
    assert score("accuracy", y, prediction) == pytest.approx(right)
    eps = np.finfo(float).eps
    q = np.clip(np.where(y > 0.5, p, 1 - p), eps, 1)
    assert score("log_loss", y, prediction) == pytest.approx(-np.log(q).sum(axis=1).mean())
    assert set(score_all(metrics_of("multilabel", 0), y, None, prediction)) == {
        "log_loss",
        "accuracy",
    }


def test_undefined_scores_are_nan_without_a_warning():
    one = np.ones(N, int)
    assert math.isnan(score("roc_auc", one, BINARY))
    assert math.isnan(score("r2", np.full(N, 2.0), FORECAST))
    assert score("rmse", NUMBERS, Prediction(NUMBERS)) == 0.0
    assert score("balanced_accuracy", one, BINARY) == pytest.approx(BINARY.values.mean())


@pytest.mark.parametrize("name", ["rmse", "mae", "r2"])
def test_predictions_that_are_nan_have_no_score(name):
    y = np.array([0.0, 1.0, 3.0])
    for values in (np.full(3, math.nan), np.array([0.0, math.nan, 3.0])):
        assert math.isnan(METRICS[name].measure(y, None, Prediction(values))[0])


@pytest.mark.parametrize("name", ["log_loss", "roc_auc"])
def test_probabilities_that_are_nan_have_no_score(name):
    p = np.array([[0.5, 0.5], [math.nan, math.nan], [0.2, 0.8]])
    prediction = Prediction(np.array([0, 0, 1]), p)
    assert math.isnan(METRICS[name].measure(np.array([0, 1, 1]), None, prediction)[0])


def test_an_impossible_row_costs_a_bounded_loss():
    p = np.array([[1.0, 0.0], [0.0, 1.0]])
    worst = METRICS["log_loss"].measure(np.array([1, 1]), None, Prediction(p.argmax(1), p))[1]
    assert worst.tolist() == pytest.approx([-math.log(np.finfo(float).eps), 0.0])


# ---- The baseline ------------------------------------------------------------------------------


def test_the_baseline_is_scikit_learns_dummy():
    dummy = pytest.importorskip("sklearn.dummy")
    X, y = np.zeros((6, 1)), np.array([2, 0, 0, 2, 2, 3])
    made = baseline("classification", y, 4, 5)
    prior = dummy.DummyClassifier(strategy="prior").fit(X, y)
    np.testing.assert_array_equal(made.values, prior.predict(X[:4]))
    np.testing.assert_allclose(made.probability[:, [0, 2, 3]], prior.predict_proba(X[:4]))
    assert made.probability[:, [1, 4]].max() == 0
    columns = np.column_stack([y, -y]).astype(float)
    expected = dummy.DummyRegressor().fit(X, columns).predict(X[:4])
    np.testing.assert_allclose(baseline("regression", columns, 4, 0).values, expected)
    labels = baseline("multilabel", (columns > 0).astype(float), 2, 0)
    np.testing.assert_array_equal(labels.values, [[True, False]] * 2)
    np.testing.assert_allclose(labels.probability, [[4 / 6, 0]] * 2)


# ---- The argument metric -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "classes", "name"),
    [("classification", 2, "log_loss"), ("multilabel", 0, "log_loss"), ("regression", 0, "rmse")],
)
def test_the_default_metric(task, classes, name):
    assert metric_for(None, task, classes) is METRICS[name]


def test_each_metric_is_of_its_task():
    names = {
        (task, classes): {m.name for m in metrics_of(task, classes)}
        for task, classes in (("classification", 2), ("classification", 3), ("regression", 0))
    }
    assert names["classification", 3] == {"log_loss", "accuracy", "balanced_accuracy"}
    assert names["classification", 2] == names["classification", 3] | {"roc_auc"}
    assert names["regression", 0] == {"rmse", "mae", "r2"}


@pytest.mark.parametrize(
    ("metric", "task", "classes"),
    [
        ("r2", "classification", 2),
        ("roc_auc", "classification", 3),
        ("accuracy", "regression", 0),
        ("balanced_accuracy", "multilabel", 0),
        ("nonsense", "classification", 2),
        ("", "classification", 2),
    ],
)
def test_metrics_of_other_tasks_are_refused(metric, task, classes):
    with pytest.raises(ValueError, match=f"metric is {metric!r}; expected one of"):
        metric_for(metric, task, classes)


@pytest.mark.parametrize("metric", [3, ["accuracy"], {}, object(), b"accuracy", True])
def test_a_metric_is_a_name_or_a_scorer(metric):
    with pytest.raises(TypeError, match="metric is .*; expected a name or a scikit-learn scorer"):
        metric_for(metric, "classification", 2)


def test_without_scikit_learn_only_cdrops_metrics_are_known(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.metrics", None)
    with pytest.raises(ValueError, match="metric is 'f1'; expected one of 'log_loss', 'accuracy'"):
        metric_for("f1", "classification", 3)


def test_scorers_see_the_predictions():
    metrics = pytest.importorskip("sklearn.metrics")
    for name, expected in (
        ("f1_macro", metrics.f1_score(TRUTH, CLASSES.values, average="macro")),
        ("neg_log_loss", -metrics.log_loss(TRUTH, P)),
        ("roc_auc_ovr", metrics.roc_auc_score(TRUTH, P, multi_class="ovr")),
        ("matthews_corrcoef", metrics.matthews_corrcoef(TRUTH, CLASSES.values)),
    ):
        metric = metric_for(name, "classification", 3)
        value, rows = metric.measure(TRUTH, np.zeros((N, 1)), CLASSES)
        assert (metric.name, metric.greater_is_better, rows) == (name, True, None)
        assert value == pytest.approx(expected)
    brier = metric_for("neg_brier_score", "classification", 2).measure(
        TWO, np.zeros((N, 1)), BINARY
    )
    assert brier[0] == pytest.approx(-np.square(TIED - TWO).mean())
    error = metric_for("neg_median_absolute_error", "regression", 0).measure(
        NUMBERS, None, FORECAST
    )
    assert error[0] == pytest.approx(-np.median(np.abs(FORECAST.values - NUMBERS)))


def test_scorers_of_ones_own_have_a_name():
    metrics = pytest.importorskip("sklearn.metrics")

    def gain(y, predicted):
        return float((y == predicted).sum())

    def scorer(estimator, X, y):
        return float(len(X) + estimator.predict(X)[0])

    made = metric_for(metrics.make_scorer(gain), "classification", 3)
    assert made.name == "gain"
    assert made.measure(TRUTH, np.zeros((N, 1)), CLASSES)[0] == (CLASSES.values == TRUTH).sum()
    plain = metric_for(scorer, "classification", 3)
    assert plain.name == "scorer"
    assert plain.measure(TRUTH, np.zeros((N, 1)), CLASSES)[0] == N + CLASSES.values[0]


def test_a_scorer_of_probabilities_needs_them():
    pytest.importorskip("sklearn")
    metric = metric_for("neg_log_loss", "classification", 3)
    with pytest.raises(ValueError, match="metric needs more than the predictions.*predict_proba"):
        metric.measure(TRUTH, np.zeros((N, 1)), Prediction(CLASSES.values))


def test_a_scorer_named_like_a_metric_keeps_its_own_scores():
    metrics = pytest.importorskip("sklearn.metrics")

    def rmse(estimator, X, y):
        return -float(np.sqrt(np.square(estimator.predict(X) - y).mean()))

    for scorer, name, task, classes in (
        (metrics.get_scorer("neg_log_loss"), "log_loss", "classification", 3),
        (rmse, "rmse", "regression", 0),
    ):
        metric = metric_for(scorer, task, classes)
        y, prediction = (NUMBERS, FORECAST) if task == "regression" else (TRUTH, CLASSES)
        scores = score_all([metric, METRICS[name]], y, np.zeros((N, 1)), prediction)
        assert metric.name == f"{name} (scorer)"
        assert scores[metric.name] == pytest.approx(-scores[name])


def test_a_metric_of_a_scorer_can_be_pickled():
    pytest.importorskip("sklearn")
    metric = metric_for("f1_macro", "classification", 3)
    again = pickle.loads(pickle.dumps(metric))
    rows = TRUTH, np.zeros((N, 1)), CLASSES
    assert again.measure(*rows) == metric.measure(*rows)
