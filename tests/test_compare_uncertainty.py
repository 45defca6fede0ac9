"""Methods of uncertainty on the same fits: which networks they use, what is measured, and how they are compared."""

import json
import math
from importlib.util import find_spec

import numpy as np
import pandas
import pytest

from cdrop import Network
from cdrop.datasets import TableEncoder
from cdrop.experiments import arms_for, calibration, paired_experiment, statistics, uncertainty
from cdrop.experiments.statistics import Sampling, Scores
from cdrop.experiments.uncertainty import (
    METHODS,
    SCALED,
    UncertaintyResult,
    compare_uncertainty,
    last_layer,
    shuffled_columns,
)

metrics = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((160, 5))
LABELS = (X[:, 0] + X[:, 1] + RNG.normal(0, 0.5, 160) > 0).astype(int)
NUMBERS = 7 + 3 * X[:, 0] + np.abs(X[:, 1]) + RNG.normal(0, 0.5, 160)
SIZES = {"train": 0.5, "validation": 2.0, "test": 1.0}  # of the noise
QUICK = {"hidden": (16, 8), "epochs": 30, "patience": 5, "rates": (0.1, 0.5)}
SMALL = {**QUICK, "repeats": 3, "members": 3, "mc_samples": 20, "seed": 5, "threads": 1}


@pytest.fixture(scope="module")
def classes():
    return compare_uncertainty(X, LABELS, **SMALL)


@pytest.fixture(scope="module")
def numbers():
    return compare_uncertainty(X, NUMBERS, task="regression", **SMALL)


# ---- The networks -------------------------------------------------------------------------------


def arms():
    return arms_for(128, l2=(0.0,), **QUICK)


def in_laboratory(y, metric, **rest):
    """Scores of the same two arms in a paired experiment."""
    trials = []
    more = {"repeats": 3, "seed": 5, "threads": 1, "on_trial": trials.append, **rest}
    paired_experiment(arms(), X, y, metric=metric, **more)
    return {
        name: [trial.scores[metric] for trial in trials if trial.arm == name] for name in arms()
    }, [QUICK["rates"][trial.candidate] for trial in trials if trial.arm == "dropout"]


def test_networks_are_those_of_a_paired_experiment(classes):
    scores, rates = in_laboratory(LABELS, "log_loss")
    assert classes.scores["nll"]["plain"].tolist() == pytest.approx(scores["dropout"])
    assert classes.scores["nll"]["no dropout"].tolist() == pytest.approx(scores["no dropout"])
    assert classes.rates == rates


def test_numbers_are_measured_in_standard_deviations_of_the_training_targets(numbers):
    scores, _ = in_laboratory(NUMBERS, "rmse", task="regression")
    ratios = np.array(scores["dropout"]) / numbers.scores["rmse"]["plain"]
    np.testing.assert_allclose(ratios, NUMBERS.std(), rtol=0.2)
    ratios_without = np.array(scores["no dropout"]) / numbers.scores["rmse"]["no dropout"]
    np.testing.assert_allclose(ratios_without, ratios)


def test_last_layer_has_the_weights_and_the_variance_of_its_masks_alone():
    net = Network([5, 16, 12, 1], dropout=[0.2, 0.4], loss="squared_error", seed=3)
    net.fit(X, NUMBERS, iterations=50)
    last = last_layer(net)
    assert last.dropout == (0.0, 0.4)
    assert np.array_equal(last.predict(X), net.predict(X))
    hidden = X
    for w, b in zip(net.coefs_[:-1], net.intercepts_[:-1], strict=True):
        hidden = np.maximum(hidden @ w + b, 0)
    # Var of sum m_j h_j w_j / 0.6, where m_j is 0 or 1.
    variance = np.square(hidden) @ np.square(net.coefs_[-1][:, 0]) * 0.4 / 0.6
    found = last.predict_uncertainty(X, 5000).std ** 2
    assert found.mean() == pytest.approx(variance.mean(), rel=0.03)
    np.testing.assert_allclose(found, variance, rtol=0.15)
    assert (net.predict_uncertainty(X, 200).std ** 2).mean() > 1.1 * variance.mean()


def test_ensembles_differ_in_seeds_and_are_better_than_their_first_member(numbers):
    alone = compare_uncertainty(X, NUMBERS, task="regression", **{**SMALL, "members": 2})
    assert numbers.scores["rmse"]["plain"].tolist() == alone.scores["rmse"]["plain"].tolist()
    assert (numbers.scores["rmse"]["ensemble"] != alone.scores["rmse"]["ensemble"]).all()
    assert numbers.mean("nll", "ensemble") < numbers.mean("nll", "plain")


def test_members_have_seeds_and_masks_have_separate_layers(classes, monkeypatch):
    fit, seeds = uncertainty._Repeat._fit, []

    def note(self, settings, seed):
        seeds.append(seed)
        return fit(self, settings, seed)

    monkeypatch.setattr(uncertainty._Repeat, "_fit", note)
    compare_uncertainty(X, LABELS, **{**SMALL, "repeats": 1, "members": 5})
    assert seeds[:5] == [5] * 5  # without dropout, and each rate with both kinds of masks
    assert len(set(seeds[4:])) == len(seeds[4:]) == 5
    nll = classes.scores["nll"]
    assert (nll["MC dropout"] != nll["last-layer MC"]).all()


def test_the_same_seed_gives_the_same_result(classes):
    again = compare_uncertainty(X, LABELS, **{**SMALL, "repeats": 1, "seed": 6})
    for metric, of in classes.scores.items():
        for name, values in of.items():
            np.testing.assert_equal(again.scores[metric][name][0], values[1])


# ---- What is measured ---------------------------------------------------------------------------


def test_classes_have_their_metrics(classes):
    calibrated = {"nll", "accuracy", "brier", "ece"}
    ranked = {"auroc of errors", "auroc of foreign rows", "auroc of foreign rows by disagreement"}
    assert set(classes.scores) == calibrated | ranked
    both = {*METHODS, *(name + SCALED for name in METHODS)}
    for metric, of in classes.scores.items():
        assert set(of) == (both if metric in calibrated else set(METHODS))
        assert all(values.shape == (3,) for values in of.values())
    for name in METHODS:
        same = classes.scores["accuracy"]
        assert np.array_equal(same[name], same[name + SCALED])


def test_temperature_changes_what_it_should(classes):
    nll = classes.scores["nll"]
    for name in METHODS:
        moved = nll[name] != nll[name + SCALED]
        assert np.array_equal(moved, classes.scales[name] != 1)
    assert all((classes.scales[name] != 1).any() for name in METHODS)


def test_numbers_have_their_metrics(numbers):
    scaled = {"nll", "rmse", "coverage", "width", "interval score"}
    others = {"auroc of errors", "auroc of foreign rows", "coverage without noise"}
    assert set(numbers.scores) == scaled | others
    width = numbers.scores["width"]
    for name in METHODS:
        ratio = width[name + SCALED] / width[name]
        np.testing.assert_allclose(ratio, np.sqrt(numbers.scales[name]))
    assert (width["plain"] < width["MC dropout"]).all()
    assert (numbers.scores["auroc of foreign rows"]["plain"] == 0.5).all()


def test_foreign_rows_are_found_where_columns_depend_on_each_other():
    column = RNG.standard_normal((300, 1))
    same = np.repeat(column, 6, axis=1) + RNG.normal(0, 0.05, (300, 6))
    result = compare_uncertainty(same, column[:, 0], task="regression", **SMALL)
    assert result.mean("auroc of foreign rows", "ensemble") > 0.8


@pytest.mark.parametrize("frame", [False, True])
def test_foreign_rows_have_the_values_of_each_column(frame):
    rows = pandas.DataFrame({"a": np.arange(50), "b": list("xy") * 25}) if frame else X
    shuffled = shuffled_columns(rows, 1)
    again, other = shuffled_columns(rows, 1), shuffled_columns(rows, 2)
    if frame:
        assert (shuffled.dtypes == rows.dtypes).all()
        rows, shuffled, again, other = (r.to_numpy() for r in (rows, shuffled, again, other))
    for j in range(rows.shape[1]):
        assert sorted(shuffled[:, j]) == sorted(rows[:, j])
        assert not np.array_equal(shuffled[:, j], rows[:, j])
    assert not np.array_equal(np.argsort(shuffled[:, 0]), np.argsort(shuffled[:, 1]))
    assert np.array_equal(shuffled, again)
    assert not np.array_equal(shuffled, other)


def test_frames_are_encoded_by_their_training_rows(monkeypatch):
    fit, sizes = TableEncoder.fit, []

    def note(self, rows, y):
        sizes.append((len(rows), len(y)))
        return fit(self, rows, y)

    monkeypatch.setattr(TableEncoder, "fit", note)
    frame = pandas.DataFrame({"number": X[:, 0], "text": np.where(X[:, 1] > 0, "up", "down")})
    result = compare_uncertainty(frame, np.where(LABELS, "yes", "no"), **{**SMALL, "repeats": 1})
    assert result.task == "classification"
    assert np.isfinite(result.scores["nll"]["ensemble"]).all()
    assert sizes == [(102, 102)]  # 160, less a fifth, less a fifth of that


def predictives(draw, rows=90):
    """Probabilities with disagreement, and means with variances, of each part."""
    parts = ("train", "validation", "test", "foreign")
    p = {part: draw.dirichlet([1, 1, 1], rows) for part in parts}
    y = {part: np.array([draw.choice(3, p=row) for row in p[part]]) for part in parts[:3]}
    spread = {part: draw.uniform(0, 1 + (part == "foreign"), rows) for part in parts}
    return p, y, spread


def test_measures_of_classes_are_those_of_scikit_learn():
    p, y, spread = predictives(np.random.default_rng(1))
    of = {part: uncertainty._Predictive(p[part], spread[part]) for part in p}
    temperature, scores, scaled = uncertainty._measure_classes(y, of)
    assert temperature == calibration.fit_temperature(y["validation"], p["validation"])
    assert scores["nll"] == pytest.approx(metrics.log_loss(y["test"], p["test"]))
    moved = calibration.with_temperature(p["test"], temperature)
    assert scaled["nll"] == pytest.approx(metrics.log_loss(y["test"], moved))
    right = p["test"].argmax(axis=1) == y["test"]
    assert scores["accuracy"] == right.mean()
    area = metrics.roc_auc_score(~right, -p["test"].max(axis=1))
    assert scores["auroc of errors"] == pytest.approx(area)
    foreign = np.repeat([0, 1], 90)
    entropy = stats.entropy(np.concatenate([p["test"], p["foreign"]]), axis=1)
    area = metrics.roc_auc_score(foreign, entropy)
    assert scores["auroc of foreign rows"] == pytest.approx(area)
    area = metrics.roc_auc_score(foreign, np.concatenate([spread["test"], spread["foreign"]]))
    assert scores["auroc of foreign rows by disagreement"] == pytest.approx(area)


def test_measures_of_numbers_are_those_of_scipy_and_scikit_learn():
    draw = np.random.default_rng(2)
    _, _, spread = predictives(draw)
    mean = {part: draw.normal(0, 1, 90) for part in spread}
    y = {part: mean[part] + draw.normal(0, size, 90) for part, size in SIZES.items()}
    of = {part: uncertainty._Predictive(mean[part], spread[part]) for part in spread}
    scale, scores, scaled = uncertainty._measure_numbers(y, of)
    noise = ((y["train"] - mean["train"]) ** 2).mean()
    variance = {part: noise + spread[part] for part in spread}
    squares = (y["validation"] - mean["validation"]) ** 2 / variance["validation"]
    assert scale == pytest.approx(squares.mean())
    for factor, found in ((1, scores), (scale, scaled)):
        deviation = np.sqrt(factor * variance["test"])
        density = stats.norm.logpdf(y["test"], mean["test"], deviation)
        assert found["nll"] == pytest.approx(-density.mean())
        low, high = stats.norm.interval(0.9, mean["test"], deviation)
        assert found["width"] == pytest.approx((high - low).mean())
    error = np.abs(y["test"] - mean["test"])
    inside = error <= stats.norm.ppf(0.95) * np.sqrt(spread["test"])
    assert scores["coverage without noise"] == inside.mean()
    area = metrics.roc_auc_score(np.argsort(np.argsort(error)) >= 81, spread["test"])
    assert scores["auroc of errors"] == pytest.approx(area)
    both = np.concatenate([spread["test"], spread["foreign"]])
    area = metrics.roc_auc_score(np.repeat([0, 1], 90), both)
    assert scores["auroc of foreign rows"] == pytest.approx(area)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
def test_predictions_are_averages_over_networks_and_masks(loss):
    units = [5, 12, 3 if loss == "softmax_cross_entropy" else 1]
    nets = [Network(units, dropout=0.3, loss=loss, seed=seed) for seed in range(3)]
    of_masks = uncertainty._of_masks(nets[0], X, 30)
    drawn = nets[0].predict_uncertainty(X, 30, samples=True).samples
    if loss == "squared_error":
        members, drawn = np.array([net.predict(X)[:, 0] for net in nets]), drawn[:, :, 0]
    else:
        members = np.array([net.predict_proba(X) for net in nets])

    def spread(samples):
        if loss == "squared_error":
            return samples.var(axis=0)
        between = stats.entropy(samples.mean(axis=0), axis=1)
        return between - stats.entropy(samples, axis=2).mean(axis=0)

    close = {"rtol": 1e-4, "atol": 1e-5}
    for found, samples in ((of_masks, drawn), (uncertainty._of_networks(nets, X), members)):
        np.testing.assert_allclose(found.mean, samples.mean(axis=0), **close)
        np.testing.assert_allclose(found.spread, spread(samples), **close)
    alone = uncertainty._of_networks(nets[:1], X)
    np.testing.assert_allclose(alone.mean, members[0], **close)
    expected = 0 if loss == "squared_error" else stats.entropy(members[0], axis=1)
    np.testing.assert_allclose(alone.spread, expected, **close)


# ---- How they are compared ----------------------------------------------------------------------


def made(plain, other, metric="nll"):
    of = {name: np.array(plain, float) for name in METHODS} | {"ensemble": np.array(other, float)}
    return UncertaintyResult("classification", len(plain), 0, Sampling(0.25), {metric: of})


def test_contrasts_are_those_of_the_laboratory(classes):
    found = classes.contrasts("nll")
    assert set(found) == {*(m + s for m in METHODS for s in ("", SCALED))} - {"plain"}
    nll = classes.scores["nll"]
    for name, first in (
        ("ensemble", "plain"),
        ("ensemble" + SCALED, "plain" + SCALED),
        ("plain" + SCALED, "plain"),
    ):
        pair = Scores(nll[first]), Scores(nll[name])
        expected = statistics.difference(*pair, Sampling(32 / 128), greater_is_better=False)
        assert found[name].estimate == pytest.approx(expected.estimate)
        assert found[name].interval == pytest.approx(expected.interval)
    against = classes.contrasts("nll", "MC dropout")
    assert against["ensemble"].estimate == pytest.approx(
        (nll["ensemble"] - nll["MC dropout"]).mean()
    )
    assert "MC dropout" not in against


def test_lower_losses_and_higher_areas_are_better():
    low, high = [1.0, 1.1, 1.2, 1.1], [2.0, 2.2, 2.1, 2.2]
    assert made(high, low).contrasts("nll")["ensemble"].verdict == "better"
    assert made(low, high).contrasts("nll")["ensemble"].verdict == "worse"
    area = "auroc of errors"
    assert made(low, high, area).contrasts(area)["ensemble"].verdict == "better"


def test_verdicts_are_corrected_for_the_number_of_methods():
    first, second = [0.0, 0.0, 0.0, 0.0], [0.9, 1.2, 2.0, 1.5]
    evidence = made(first, second).contrasts("nll")["ensemble"]
    assert 0.05 / 4 < evidence.p_value < 0.05
    one_of_three = made(first, second)
    one_of_three.scores["nll"]["MC dropout"] = np.array([0.1, -0.1, 0.2, 0.0])
    assert one_of_three.contrasts("nll")["ensemble"].verdict == "not decided"


def test_repeats_without_a_value_are_left_out():
    area = "auroc of errors"
    result = made([math.nan, 0.6, 0.7, 0.7], [0.9, 0.8, math.nan, 0.8], area)
    assert result.contrasts(area)["ensemble"].estimate == pytest.approx(0.15)
    assert result.mean(area, "plain") == pytest.approx(2 / 3)
    none = made([math.nan] * 3, [math.nan] * 3, area)
    assert none.contrasts(area)["ensemble"].verdict == "not decided"


def test_results_survive_json(numbers):
    numbers.scores["nll"]["plain"][0] = math.nan
    plain = json.loads(json.dumps(numbers.to_dict(), allow_nan=False))
    again = UncertaintyResult.from_dict(plain)
    assert str(again) == str(numbers)
    assert again.to_dict() == numbers.to_dict()


def test_a_result_shows_each_method(classes):
    lines = str(classes).splitlines()
    assert len(lines) == 1 + 2 * len(METHODS)
    assert f"{classes.mean('nll', 'ensemble'):.4g}" in lines[-2]


# ---- Arguments ----------------------------------------------------------------------------------

SETTINGS = {
    "repeats": [0, -1, 1.5, "2", None, True],
    "seed": [-1, 1.5, "0", 2**64],
    "members": [1, 0, 2.5, None],
    "mc_samples": [0, 1.5, None],
    "rates": [0.1, (), (0.0,), (0.1, 0.0), (1.5,), ("a",)],
    "hidden": [(), (0,), 16, None],
    "epochs": [0, None],
    "patience": [0, None],
    "test_size": [0.0, 1.0, "a"],
    "validation_size": [0.0, 1.0],
    "task": ["ranking", 3],
    "threads": [0, 1.5],
    "on_repeat": [3, "print"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, some in SETTINGS.items() for v in some])
def test_bad_settings_are_refused_before_training(name, value):
    with pytest.raises((TypeError, ValueError), match=rf"^(arms )?{name}\b"):
        compare_uncertainty(X, LABELS, **{**SMALL, "repeats": 1, name: value})


def test_bad_data_are_refused():
    sparse = pytest.importorskip("scipy.sparse").csr_array(X)
    two = np.column_stack([NUMBERS, NUMBERS])
    for rows, y, words in ((sparse, LABELS, "X is sparse"), (X, two, "several columns")):
        with pytest.raises(ValueError, match=words):
            compare_uncertainty(rows, y, **SMALL)


def test_unknown_metrics_and_baselines_are_refused(numbers):
    for metric in ("coverage", "width", "brier", 3):
        with pytest.raises((TypeError, ValueError), match="metric"):
            numbers.contrasts(metric)
    with pytest.raises(ValueError, match="baseline"):
        numbers.contrasts("nll", "plain, scaled")


def test_repeats_are_reported():
    seen = []
    compare_uncertainty(X, LABELS, **{**SMALL, "repeats": 2, "on_repeat": seen.append})
    assert seen == [0, 1]


# ---- The page -----------------------------------------------------------------------------------


@pytest.mark.skipif(not find_spec("benchmarks"), reason="needs the checkout's benchmarks")
def test_the_page_shows_each_table(classes, numbers):
    from benchmarks import uncertainty as bench

    some = {"classification": classes, "regression": numbers}
    results = {}
    for name in bench.TABLES:
        kind = "regression" if name in ("bike rentals", "cars", "diabetes", "wages") else None
        results[name] = {"rows": 160, **some[kind or "classification"].to_dict()}
    lines = list(bench.page({"date": "2026-01-01", "cpu": "CPU", "results": results}))
    text = "\n".join(lines)
    for heading in (*bench.HEADINGS.values(), *bench.TABLES):
        assert heading in text
    for block in text.split("\n\n"):
        widths = {line.count(" | ") for line in block.splitlines() if line.startswith("| ")}
        assert len(widths) <= 1
