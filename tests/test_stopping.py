"""When the estimators stop, what they keep, and what a fit leaves that is refused."""

import copy
import io
import math
import pickle
import re
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, load
from cdrop.estimators import base as estimators
from cdrop.estimators.options import checked_options
from cdrop.schedules import Epoch, Plateau

QUIET = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(600, 6))
TARGET = X[:, 0]
CENTERS = DRAW.normal(size=(3, 6)) * 2
Y = DRAW.integers(0, 3, 600)
XC = CENTERS[Y] + DRAW.normal(size=(600, 6))
NEXT = XC[:, ::-1] * 2 + 1  # the next month's rows


def regressor(**settings):
    defaults = {"early_stopping": True, "learning_rate_init": 0.01, "random_state": 0}
    return DropoutMLPRegressor((10,), **{**defaults, **settings})


def classifier(**settings):
    defaults = {"early_stopping": True, "scoring": None, "learning_rate_init": 0.02}
    defaults["random_state"] = 0
    return DropoutMLPClassifier((20,), **{**defaults, **settings})


def has_weights(model, pair):
    return all(map(np.array_equal, [*model.coefs_, *model.intercepts_], [*pair[0], *pair[1]]))


# ---- Scores that cannot move ---------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        (X[:1], TARGET[:1]),
        (X[:30], np.zeros(30)),
        (X[:30], np.full(30, 0.1)),  # whose mean is rounded
    ],
)
@QUIET
def test_the_loss_decides_where_all_targets_are_equal(rows):
    model = regressor(max_iter=30, n_iter_no_change=40).fit(X, TARGET, X_val=rows[0], y_val=rows[1])
    losses = model.validation_loss_curve_
    assert model.best_validation_loss_ == min(losses)
    loss, _ = model.network_.evaluate(*rows)
    assert loss == min(losses)
    assert losses.index(min(losses)) > 0


@QUIET
def test_the_loss_decides_where_all_labels_are_equal():
    settings = {"max_iter": 60, "n_iter_no_change": 3}
    for y in (Y, (Y > 0).astype(int), np.stack([Y > 0, Y > 1], axis=1).astype(int)):
        few = np.flatnonzero((y == y[0]).reshape(600, -1).all(axis=1))[:8]
        weight = np.ones(9)
        weight[-1] = 0  # of the only different row
        other = np.flatnonzero((y != y[0]).reshape(600, -1).any(axis=1))[:1]
        held = np.append(few, other)
        model = classifier(**settings)
        model.fit(XC, y, X_val=XC[held], y_val=y[held], sample_weight_val=weight)
        assert model.best_validation_loss_ == min(model.validation_loss_curve_)
        assert model.score(XC, y) > 0.7
        at = model.validation_loss_curve_.index(model.best_validation_loss_)
        assert model.best_validation_score_ == model.validation_scores_[at]


@QUIET
def test_an_adaptive_rate_follows_the_loss_there():
    model = regressor(learning_rate="adaptive", max_iter=40)
    model.fit(X, TARGET, X_val=X[:1], y_val=TARGET[:1])
    assert model.network_._schedule.monitor == "validation_loss"


@QUIET
def test_a_score_that_moves_still_decides():
    model = regressor(max_iter=40).fit(X, TARGET)
    assert model.best_validation_score_ == max(model.validation_scores_)
    at = model.validation_scores_.index(model.best_validation_score_)
    assert model.best_validation_loss_ == model.validation_loss_curve_[at]
    assert regressor(early_stopping=False, max_iter=3).fit(X, TARGET).best_validation_loss_ is None


# ---- NaN -----------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [True, False])
def test_nan_is_never_progress(early):
    model = regressor(early_stopping=early, max_iter=1, n_iter_no_change=5)
    with warnings.catch_warnings(action="ignore"):
        model.fit(X, TARGET)
    watch = type("Watch", (), {"by_loss": False, "watched": "", "options": None})
    watch.options = type("Options", (), {"early_stopping": early, "tol": 0.0, "patience": 5})
    watch.options.verbose = False
    for by_loss in (False, True):
        watch.by_loss = by_loss
        for bad in (math.nan, math.inf):
            before = model._no_improvement_count
            noted = model._noted(Epoch(9, 600, bad, 0.1, bad, math.nan), watch)
            assert noted["_no_improvement_count"] == before + 1
            assert noted.get("best_loss_", 0) != bad
            assert "best_validation_loss_" not in noted


def test_nan_is_no_progress_of_a_plateau():
    plateau = Plateau(1.0, patience=1)
    state = plateau.begin()
    for _ in range(2):
        state = plateau.after(state, Epoch(1, 10, math.nan, 1.0, math.nan, math.nan))
    assert state[0] == pytest.approx(0.2)


@QUIET
@pytest.mark.filterwarnings("ignore:X_val lies far outside X")
def test_validation_rows_that_overflow_do_not_train_forever():
    rows = np.full((5, 6), 1e308)
    with np.errstate(all="ignore"):
        model = regressor(n_iter_no_change=4).fit(X, TARGET, X_val=rows, y_val=np.arange(5.0))
    assert model.n_iter_ == 5
    assert model.best_validation_score_ == -math.inf


# ---- Nothing untrained in silence ----------------------------------------------------------


def test_a_fit_that_stopped_untrained_is_reported():
    rare = (DRAW.random(600) < 0.04).astype(int)
    with pytest.warns(ConvergenceWarning, match="not above the .* of the best constant prediction"):
        classifier(solver="sgd", learning_rate_init=1e-3, tol=0.02).fit(X, rare)
    with pytest.warns(ConvergenceWarning, match="not above the 0 of the best constant prediction"):
        regressor(learning_rate_init=1e-9).fit(X, TARGET)
    with pytest.warns(ConvergenceWarning, match="validation loss never fell"):
        regressor(learning_rate_init=1e-9).fit(X, TARGET, X_val=X[:1], y_val=TARGET[:1])
    with pytest.warns(ConvergenceWarning, match="training loss never fell"):
        regressor(early_stopping=False, tol=1e3).fit(X, TARGET)
    with warnings.catch_warnings(action="error"):
        classifier().fit(XC, Y)
        regressor(max_iter=1000).fit(X, TARGET)
        regressor(early_stopping=False, max_iter=1000).fit(X, TARGET)


@QUIET
def test_the_end_is_printed_only_where_there_is_an_output(monkeypatch, capsys):
    model = regressor(early_stopping=False, tol=1e3)
    watch = estimators._Watch(model, checked_options(model.set_params(verbose=True)))
    model.set_params(verbose=False).fit(X, TARGET)
    worse = Epoch(13, 600, 1e6, 0.1, math.nan, math.nan)
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stdout", stream)
        assert model._end_epoch(worse, watch)
    monkeypatch.undo()
    model._end_epoch(worse, watch)
    assert "Training loss did not improve more than tol=1000" in capsys.readouterr().out


# ---- Warm starts ---------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["constant", "adaptive", "plateau"])
@pytest.mark.parametrize("early", [True, False])
@QUIET
def test_a_warm_start_after_a_stop_counts_afresh(rate, early, tmp_path):
    settings = {"learning_rate": rate, "early_stopping": early, "n_iter_no_change": 5}
    model = classifier(warm_start=True, **settings).fit(XC, Y)
    assert model._stopped
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    fresh = classifier(**settings).fit(NEXT, Y)
    first, start = model.n_iter_, (model.coefs_, model.intercepts_)
    model.fit(NEXT, Y)
    assert model.n_iter_ > 5
    assert model.score(NEXT, Y) > fresh.score(NEXT, Y) - 0.05
    assert not has_weights(model, start)
    if early:
        assert model.best_validation_score_ == max(model.validation_scores_[first:])
    assert has_weights(again.fit(NEXT, Y), (model.coefs_, model.intercepts_))


@QUIET
def test_a_file_that_lacks_a_best_value_can_be_trained_further():
    model = regressor(warm_start=True, max_iter=2).fit(X, TARGET)
    settings, arrays = model._to_parts()
    for name in ("best_validation_score_", "best_validation_loss_", "best_loss_"):
        fitted = {**settings["fitted"], name: None}
        again = DropoutMLPRegressor._from_parts({**settings, "fitted": fitted}, arrays)
        assert again.fit(X, TARGET, X_val=X[:1], y_val=TARGET[:1]).n_iter_ == 2


@QUIET
def test_a_warm_start_before_a_stop_continues_counting():
    long = classifier(max_iter=12, n_iter_no_change=8).fit(XC, Y)
    short = classifier(max_iter=1, n_iter_no_change=8, warm_start=True)
    for _ in range(long.n_iter_):
        short.fit(XC, Y)
    assert has_weights(short, (long.coefs_, long.intercepts_))
    assert short._no_improvement_count == long._no_improvement_count


@pytest.mark.parametrize("after", [{"dropout": 0.1}, {"dropout": [0.0]}, {"input_dropout": 0.2}])
@QUIET
def test_rates_of_dropout_may_change_in_a_warm_start(after):
    settings = {"max_iter": 3, "early_stopping": False, "dropout": 0.5}
    model = classifier(warm_start=True, **settings).fit(XC, Y)
    by_hand = Network((6, 20, 3), dropout=0.5, dtype="float64", initializer="glorot")
    how = {"optimizer": "adam", "l2": 1e-4, "share_l2": True, "learning_rate": 0.02}
    by_hand.fit(XC, Y, **how, batch_size=200, epochs=3)
    assert has_weights(model, (by_hand.coefs_, by_hand.intercepts_))
    model.set_params(**after).fit(XC, Y)
    assert not np.array_equal(model.coefs_[0], by_hand.coefs_[0])
    assert model.t_ == 6 * 600
    assert len(model.loss_curve_) == 6
    other = Network((6, 20, 3), **{"dropout": 0.5, **after}, dtype="float64", initializer="glorot")
    other.load_state_dict({**by_hand.state_dict(), "settings": other.state_dict()["settings"]})
    other.fit(XC, Y, **how, batch_size=200, epochs=3)
    assert np.allclose(other.coefs_[0], model.coefs_[0])
    with pytest.raises(ValueError, match="dropout"):
        model.set_params(dropout=1.0).fit(XC, Y)


# ---- Strata --------------------------------------------------------------------------------


@QUIET
def test_classes_too_rare_for_strata_are_split_without():
    for y in (np.arange(600) % 200, np.append(np.arange(599) % 3, 3)):
        model = classifier(max_iter=2).fit(XC, y)
        assert len(model.validation_scores_) == 2
    with pytest.raises(
        ValueError, match=r"only 1 member.*\['no' 'yes'\], of which 60 of 600 rows would.*X_val"
    ):
        classifier().fit(XC, np.append(np.full(599, "yes"), "no"))
    with pytest.raises(ValueError, match="validation_fraction"):
        classifier(validation_fraction=0.999).fit(XC[:2], [0, 1])


# ---- Fits that are refused -----------------------------------------------------------------


def snapshot(model):
    """Everything there is to a model, as plain values."""
    settings, arrays = model._to_parts()
    arrays = {name: array.tobytes() for name, array in arrays.items()}
    net = model.network_
    return copy.deepcopy(settings), arrays, net.threads, net._schedule, net._under_way


@pytest.mark.parametrize(
    "bad",
    [
        {"y": Y[:-1]},
        {"y": ["a"] * 600},
        {"X": X[:, 1:]},
        {"sample_weight": -np.ones(600)},
        {"X_val": XC},
        {"X_val": XC, "y_val": Y + 1},
        {"X_val": XC, "y_val": Y, "sample_weight_val": np.zeros(600)},
        {"checkpoint": "model.cdrop", "checkpoint_every": 0},
        {"checkpoint_every": 5},
        {"checkpoint": 5},
        {"checkpoint": "missing/directory/model.cdrop"},
    ],
)
@pytest.mark.parametrize("rate", ["plateau", "constant"])
@QUIET
def test_a_refused_warm_start_changes_nothing(bad, rate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for max_iter in (3, 100):  # one that has stopped, one that has not
        model = classifier(warm_start=True, max_iter=max_iter, learning_rate=rate)
        model.fit(XC, Y)
        model.set_params(n_jobs=2, random_state=np.random.RandomState(1))
        before = snapshot(model)
        with pytest.raises((TypeError, ValueError, OSError)):
            model.fit(**{"X": XC, "y": Y, **bad})
        assert snapshot(model) == before


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (0, "0.0, so that 0 of 30 rows would be held out; expected at least 2"),
        (0.999, "0.999, so that 30 of 30 rows would be held out; expected at least 2"),
    ],
)
def test_rows_that_cannot_be_held_out_are_refused_with_other_ways(fraction, message):
    net = classifier(validation_fraction=fraction)
    with pytest.raises(ValueError, match=f"validation_fraction is {message}.*X_val and y_val"):
        net.fit(XC[:30], np.arange(30) % 2)


@QUIET
def test_a_refused_or_diverged_first_fit_changes_nothing():
    draws = np.random.RandomState(1)
    for warm in (True, False):
        model = regressor(early_stopping=False, random_state=draws, warm_start=warm)
        before = [str(each) for each in draws.get_state()]
        with pytest.raises(ValueError, match="checkpoint_every"):
            model.fit(X, TARGET, checkpoint_every=3)
        model.set_params(solver="sgd", activation="identity", learning_rate_init=1e6)
        with pytest.raises(ValueError, match="non-finite"):
            model.fit(X, TARGET)
        assert not hasattr(model, "network_")
        assert [str(each) for each in draws.get_state()] == before


# ---- One fit at a time ---------------------------------------------------------------------


@QUIET
@pytest.mark.parametrize("warm", [False, True])
def test_a_second_fit_meanwhile_is_refused_and_changes_nothing(warm, monkeypatch):
    model = regressor(early_stopping=False, max_iter=5, warm_start=warm).fit(X, TARGET)
    alone = clone(model).fit(X, TARGET)
    if warm:
        alone.fit(X, TARGET)
    seen, end = [], estimators._Watch.on_epoch_end

    def again(watch, net, epoch):
        mine = watch.estimator is model
        monkeypatch.setattr(estimators._Watch, "on_epoch_end", end)
        for call in (model.fit, model.partial_fit) if mine else ():
            with ThreadPoolExecutor(1) as other:
                seen.append(other.submit(call, X, TARGET).exception())
            with pytest.raises(RuntimeError, match="is in a fit"):  # of a callback or handler
                call(X, TARGET)
        for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
            assert estimators._HELD not in vars(copied)
        copied = copy.deepcopy(model)
        copied.partial_fit(X, TARGET)
        return end(watch, net, epoch)

    monkeypatch.setattr(estimators._Watch, "on_epoch_end", again)
    model.fit(X, TARGET)
    assert len(seen) == 2
    for error in seen:
        assert re.match(r"this .*Regressor is in a fit; expected one fit at a time", str(error))
    assert snapshot(model)[:2] == snapshot(alone)[:2]
    assert estimators._HELD not in vars(model)


@QUIET
def test_a_fit_that_a_fork_left_behind_bars_nothing():
    model = regressor(max_iter=2)
    vars(model)[estimators._HELD] = [0]
    assert estimators._HELD not in vars(model.fit(X, TARGET))


@QUIET
@pytest.mark.parametrize("at", ["validate_data", "Network", "row_weights", "threads"])
def test_a_fit_that_is_being_prepared_is_seen_whole_or_not_at_all(at, monkeypatch, tmp_path):
    frame = pd.DataFrame(XC[:, :4], columns=list("abcd"))
    model, seen = classifier(max_iter=2).fit(frame, Y), []
    before = model.predict(frame)
    function = getattr(estimators, at)

    def look(*arguments, **settings):
        result = function(*arguments, **settings)
        monkeypatch.setattr(estimators, at, function)
        model.save(tmp_path / "m")
        for other in (load(tmp_path / "m"), pickle.loads(pickle.dumps(model)), copy.copy(model)):
            assert np.array_equal(other.predict(frame), before)
            assert list(other.feature_names_in_) == list("abcd")
        seen.append(at)
        monkeypatch.setattr(estimators, at, look)
        return result

    monkeypatch.setattr(estimators, at, look)
    model.fit(XC, Y % 2)
    assert seen
    assert not hasattr(model, "feature_names_in_")
    assert model.classes_.tolist() == [0, 1]


@pytest.mark.parametrize("first", [{"early_stopping": True}, {"early_stopping": False}])
@QUIET
def test_best_scores_of_other_validation_rows_do_not_count(first):
    """Rows that are harder than those of the last fit, which had not stopped: no epoch would reach its best score."""
    model = classifier(warm_start=True, max_iter=15, n_iter_no_change=20, **first)
    easy = model.fit(XC, Y, X_val=XC, y_val=Y).best_validation_score_
    hard = np.where(DRAW.random(600) < 0.3, (Y + 1) % 3, Y)
    model.set_params(early_stopping=True, max_iter=100, n_iter_no_change=10)
    model.fit(-XC, hard, X_val=-XC, y_val=hard)
    assert (
        model.best_validation_score_ == model.score(-XC, hard) == max(model.validation_scores_[15:])
    )
    assert 0.6 < model.best_validation_score_ < easy


@QUIET
def test_divergence_without_early_stopping_is_an_error_also_after_a_fit_with_it():
    model = regressor(warm_start=True, max_iter=5).fit(X, TARGET)
    model.set_params(early_stopping=False, solver="sgd", learning_rate_init=1e30)
    with pytest.raises(ValueError, match="non-finite"):
        model.fit(X, TARGET)


def test_equal_targets_that_were_not_learned_are_reported():
    with pytest.warns(ConvergenceWarning, match="validation loss never fell"):
        model = regressor(learning_rate_init=1e-9).fit(X, np.full(600, 5.0))
    assert abs(model.predict(X)).max() < 4
    learned = regressor(max_iter=2000, learning_rate_init=0.01).fit(X, np.full(600, 5.0))
    assert abs(learned.predict(X) - 5).max() < 2
