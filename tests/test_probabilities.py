"""The estimators' probabilities: digits of small ones, logarithms, and rows that overflow."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import expit, log_softmax
from sklearn.utils.validation import validate_data

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network
from cdrop.estimators import base

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(300, 5))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
TASKS = {
    "two": (Y > 0).astype(int),
    "three": Y,
    "labels": np.stack([Y > 0, Y > 1], axis=1).astype(int),
    "one": np.zeros(300, int),
}
EPS = {"float32": 1e-5, "float64": 1e-12}


def trained(task, dtype, **settings):
    defaults = {"max_iter": 20, "learning_rate_init": 0.02, "random_state": 0, "dropout": 0.2}
    x = X.astype(dtype)
    return DropoutMLPClassifier((30,), **{**defaults, **settings}).fit(x, TASKS[task]), x


def log_odds(model, x):
    """Return the outputs, in float64."""
    (w, v), (a, b) = model.coefs_, model.intercepts_
    return np.maximum(x.astype("f8") @ w.astype("f8") + a, 0) @ v.astype("f8") + b


@pytest.mark.parametrize("dtype", EPS)
def test_both_of_two_classes_keep_their_digits(dtype):
    model, x = trained("two", dtype)
    x = 20 * x
    z, p = log_odds(model, x)[:, 0], model.predict_proba(x)
    assert p.dtype == dtype
    assert np.array_equal(p[:, 1], model.network_.predict_proba(x)[:, 0])
    assert z.max() > 40
    assert z.min() < -40
    seen = np.abs(z) < 80  # those that float32 holds
    tolerance = EPS[dtype] * 100
    assert np.allclose(p[seen], np.stack([expit(-z), expit(z)], axis=1)[seen], tolerance, 0)


@pytest.mark.parametrize("dtype", EPS)
def test_both_keep_their_digits_under_masks(dtype):
    model, x = trained("two", dtype)
    p = model.predict_proba(30 * x, mc_samples=1)
    result = model.predict_uncertainty(30 * x, 1)
    single = model.network_.predict_uncertainty(30 * x, 1)
    assert np.array_equal(p, result.mean)
    assert np.array_equal(p[:, 1], single.mean[:, 0])
    assert np.array_equal(result.predictive_entropy, single.predictive_entropy[:, 0])
    certain = p[:, 1] == 1
    assert certain.any()
    assert (p[certain, 0] > 0).any()
    flipped, _ = trained("two", dtype)
    coefs, biases = flipped.coefs_, flipped.intercepts_
    flipped.network_.set_weights([coefs[0], -coefs[1]], [biases[0], -biases[1]])
    assert np.array_equal(flipped.predict_proba(30 * x, mc_samples=1), p[:, ::-1])


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("task", TASKS)
def test_logarithms_are_finite_and_right(task, dtype):
    model, x = trained(task, dtype)
    x = 300 * x
    z, logs = log_odds(model, x), model.predict_log_proba(x)
    expected = {
        "two": lambda: np.hstack([-np.logaddexp(0, z), -np.logaddexp(0, -z)]),
        "three": lambda: log_softmax(z, axis=1),
        "labels": lambda: -np.logaddexp(0, -z),
        "one": lambda: np.zeros_like(z),
    }[task]()
    assert logs.dtype == dtype
    assert np.isfinite(logs).all()
    assert task == "one" or logs.min() < -200
    assert np.allclose(logs, expected, atol=EPS[dtype] * np.abs(z).max(), rtol=EPS[dtype])


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("task", TASKS)
def test_rows_that_overflow_are_named(task, dtype):
    model, x = trained(task, dtype)
    wide = x.copy()
    wide[7] = np.finfo(dtype).max
    calls = [model.predict, model.predict_proba, model.predict_log_proba]
    calls += [lambda x: model.score(x, TASKS[task]), model.predict_uncertainty]
    calls += [lambda x: model.predict_proba(x, mc_samples=3)]
    for call in calls:
        for rows in (wide, sparse.csr_array(wide)):
            with pytest.raises(ValueError, match=rf"X\[7\] makes outputs.*not finite in {dtype}"):
                call(rows)


@pytest.mark.parametrize("dtype", EPS)
def test_rows_that_overflow_a_regressor_are_named(dtype):
    x = X.astype(dtype)
    model = DropoutMLPRegressor((9,), dropout=0.3, max_iter=2, random_state=0).fit(x, X[:, 0])
    wide = x.copy()
    wide[3] = np.finfo(dtype).max
    for call in (model.predict, model.predict_uncertainty):
        with pytest.raises(ValueError, match=r"X\[3\] makes outputs"):
            call(wide)


@pytest.mark.parametrize("task", TASKS)
def test_pieces_make_the_whole(task, monkeypatch):
    model, x = trained(task, "float32")
    names = ("predict", "predict_proba", "predict_log_proba")
    rows = np.tile(x, (3, 1))
    whole = [getattr(model, name)(rows) for name in names]
    monkeypatch.setattr(base, "_OUTPUTS_AT_ONCE", 1)  # 256 rows
    for name, expected in zip(names, whole, strict=True):
        assert np.array_equal(getattr(model, name)(rows), expected)
    labels = model.network_.predict(rows)
    number = whole[0] if task in ("three", "labels") else whole[0][:, None]
    assert task == "one" or np.array_equal(labels, number)
    wide = rows.copy()
    wide[700] = 3e38
    with pytest.raises(ValueError, match=r"X\[700\] makes"):
        model.predict(wide)


# ---- One row at a time ---------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", EPS)
def test_a_row_has_the_networks_probabilities_and_no_network_is_made(task, dtype, monkeypatch):
    model, x = trained(task, dtype)
    net, whole = model.network_, model.predict_proba(x)
    monkeypatch.setattr(Network, "__init__", None)
    rows = np.concatenate([model.predict_proba(x[i : i + 1]) for i in range(len(x))])
    assert np.array_equal(rows, whole)
    if task != "one":
        assert np.array_equal(rows[:, -net.units[-1] :], net.predict_proba(x))


def test_rows_that_are_taken_as_they_are_meet_the_same_checks():
    model, x = trained("two", "float64")
    whole, strange = model.predict_proba(x), x.copy()
    for rows in (x.tolist(), np.asfortranarray(x), x.astype(">f8"), x[::-1].copy()[::-1]):
        assert np.array_equal(model.predict_proba(rows), whole)
    strange[7, 2] = np.nan
    for rows in (x[:0], x[:, :3], x[0], x[None], x + 0j, strange, strange.astype("f4")):
        with pytest.raises(ValueError, match=".") as theirs:
            validate_data(model, rows, accept_sparse="csr", reset=False)
        with pytest.raises(ValueError, match=f"^{re.escape(str(theirs.value))}$"):
            model.predict_proba(rows)
    model.fit(pd.DataFrame(x, columns=list("abcde")), TASKS["two"])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict_proba(x)


def test_one_class_leaves_nothing_uncertain():
    x = np.random.default_rng(0).normal(size=(30, 4))
    model = DropoutMLPClassifier(dropout=0.5, max_iter=2, random_state=0).fit(x, np.full(30, "a"))
    result = model.predict_uncertainty(x)
    assert (result.mean == 1).all()
    for name in ("predictive_entropy", "expected_entropy", "mutual_information"):
        assert getattr(result, name).tolist() == [0.0] * 30
