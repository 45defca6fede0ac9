"""The parameter `scoring`: what early stopping goes by."""

import math
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from model_files import forged, parts
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.metrics import average_precision_score, get_scorer, make_scorer, recall_score
from sklearn.model_selection import train_test_split

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, load
from cdrop.callbacks import Callback

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(240, 5))
Y = np.array(["a", "b", "c"])[np.digitize(X[:, 0] + 0.5 * X[:, 1], [-0.5, 0.5])]
HELD = {"X_val": X[:60], "y_val": Y[:60]}
WEIGHT = DRAW.integers(1, 4, 60).astype(float)


def classifier(**settings):
    defaults = {"early_stopping": True, "learning_rate_init": 0.02, "max_iter": 12}
    return DropoutMLPClassifier((8,), random_state=0, **{**defaults, **settings})


def log_loss(model, x, y, sample_weight=None):
    places = np.searchsorted(model.classes_, y)
    logs = model.predict_log_proba(x)[np.arange(len(y)), places]
    return float(np.average(logs, weights=sample_weight))


def test_rare_positives_do_not_keep_an_untrained_model():
    rows = make_classification(
        3000, 20, n_informative=5, weights=[0.99], flip_y=0.002, class_sep=1.5, random_state=1
    )
    x, test, y, truth = train_test_split(*rows, stratify=rows[1], test_size=0.3, random_state=0)

    def precision(**settings):
        model = classifier(
            max_iter=150, learning_rate_init=0.002, validation_fraction=0.3, **settings
        ).fit(x, y)
        return average_precision_score(truth, model.predict_proba(test)[:, 1])

    untrained = precision(scoring=get_scorer("accuracy"))
    assert untrained < 0.1
    for scoring in ("loss", "average_precision"):
        assert precision(scoring=scoring) > 0.3


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_values_are_the_scorers(weight):
    model = classifier(scoring="recall_macro", n_iter_no_change=50)
    model.fit(X[60:], Y[60:], **HELD, sample_weight_val=weight)
    best = recall_score(HELD["y_val"], model.predict(X[:60]), average="macro", sample_weight=weight)
    assert model.best_validation_score_ == pytest.approx(best)
    assert model.best_validation_score_ == max(model.validation_scores_)
    at = model.validation_scores_.index(model.best_validation_score_)
    assert model.best_validation_loss_ == model.validation_loss_curve_[at]


def test_loss_is_negative_and_decides():
    model = classifier(scoring="loss", max_iter=60, n_iter_no_change=3, learning_rate_init=0.1)
    model.fit(X[60:], Y[60:], **HELD)
    assert model.validation_scores_ == [-loss for loss in model.validation_loss_curve_]
    assert model.best_validation_score_ == -min(model.validation_loss_curve_)
    assert log_loss(model, X[:60], Y[:60]) == pytest.approx(model.best_validation_score_)


def test_weights_reach_a_callable_and_are_refused_by_one_that_takes_none():
    model = classifier(scoring=log_loss)
    model.fit(X[60:], Y[60:], **HELD, sample_weight_val=WEIGHT)
    by_loss = classifier(scoring="loss").fit(X[60:], Y[60:], **HELD, sample_weight_val=WEIGHT)
    assert np.allclose(model.validation_scores_, by_loss.validation_scores_)
    two = classifier(scoring=lambda model, x, y: 1.0)
    with pytest.raises(TypeError, match=r"expected \(estimator, X, y, sample_weight\)"):
        two.fit(X[60:], Y[60:], **HELD, sample_weight_val=WEIGHT)
    assert not hasattr(two, "network_")


@pytest.mark.parametrize("rows", [csr_array, pd.DataFrame, np.asarray])
def test_rows_of_every_kind_and_targets_as_given(rows):
    seen = []

    def scorer(model, x, y):
        seen.append((np.shape(x), y.dtype.kind, model.predict(x).shape))
        return model.score(x, y)

    model = classifier(scoring=scorer, max_iter=2).fit(rows(X), Y)
    assert seen == [((24, 5), "U", (24,))] * 3
    assert classifier(max_iter=2, scoring="accuracy").fit(rows(X), Y).validation_scores_ == (
        model.validation_scores_
    )


def test_several_labels_one_class_and_numbers():
    labels = np.stack([Y == "a", X[:, 2] > 0], axis=1).astype(int)
    model = classifier(scoring="f1_macro", max_iter=3).fit(X, labels)
    assert len(model.validation_scores_) == 3
    assert classifier(scoring="accuracy", max_iter=3).fit(X, Y == Y).best_validation_score_ == 1
    for targets in (X[:, 0], X[:, :2]):
        net = DropoutMLPRegressor(
            (8,), early_stopping=True, random_state=0, max_iter=3, scoring="neg_mean_squared_error"
        ).fit(X, targets)
        halves = [-2 * loss / targets.ndim for loss in net.validation_loss_curve_]
        assert np.allclose(net.validation_scores_, halves)


@pytest.mark.parametrize("scoring", ["loss", "neg_log_loss", log_loss])
def test_k_fits_of_one_epoch_are_one_fit_of_k(scoring):
    whole = classifier(scoring=scoring, max_iter=9).fit(X, Y)
    steps = classifier(scoring=scoring, max_iter=1, warm_start=True)
    for _ in range(9):
        steps.fit(X, Y)
    assert steps.validation_scores_ == whole.validation_scores_
    assert np.array_equal(steps.coefs_[0], whole.coefs_[0])
    assert steps.best_validation_score_ == whole.best_validation_score_


def test_another_scoring_counts_afresh():
    model = classifier(scoring="accuracy", warm_start=True, max_iter=4).fit(X, Y)
    model.set_params(scoring="neg_log_loss").fit(X, Y)
    assert model.best_validation_score_ == max(model.validation_scores_[4:])


def test_adaptive_rate_and_schedules_follow_it():
    model = classifier(scoring="accuracy", learning_rate="adaptive", n_iter_no_change=1, tol=1.0)
    assert model.fit(X, Y).learning_rate_ < 0.02
    model = classifier(scoring="loss", learning_rate="adaptive").fit(X, Y)
    assert model.network_._schedule.monitor == "validation_loss"


class Crash(Callback):
    def on_iteration(self, net, iteration, loss):
        if iteration == 7:
            raise MemoryError

    def state_dict(self):
        return None


def test_resumes_from_a_checkpoint(tmp_path, monkeypatch):
    whole = classifier(scoring="neg_log_loss").fit(X, Y)
    path = {"checkpoint": tmp_path / "run", "checkpoint_every": 2}
    with monkeypatch.context() as patch:
        patch.setattr("cdrop.estimators.base._shown", lambda verbose: [Crash()])
        with pytest.raises(MemoryError):
            classifier(scoring="neg_log_loss").fit(X, Y, **path)
    with pytest.raises(ValueError, match="another scoring"):
        classifier(scoring="loss").fit(X, Y, **path)
    again = classifier(scoring="neg_log_loss").fit(X, Y, **path)
    assert again.validation_scores_ == whole.validation_scores_
    assert np.array_equal(again.coefs_[0], whole.coefs_[0])


BAD = [
    (lambda model, x, y: math.nan, None),
    (lambda model, x, y: math.inf, None),
    (lambda model, x, y: None, TypeError),
    (lambda model, x, y: "0.5", TypeError),
    (lambda model, x, y: True, TypeError),
    (lambda model, x, y: {"score": 1.0}, TypeError),
    (lambda model, x, y: np.ones(2), TypeError),
    (lambda model, x, y: 1j, TypeError),
    (lambda model, x, y: 1 / 0, ZeroDivisionError),
    (lambda model, x: 1.0, TypeError),
    (recall_score, ValueError),
    ("neg_gamma_deviance", ValueError),
]


@pytest.mark.parametrize(("scoring", "error"), BAD, ids=range(len(BAD)))
def test_scorers_that_cannot_be_used(scoring, error):
    model = classifier(scoring=scoring, n_iter_no_change=3)
    if error is None:  # NaN is never progress, nor is infinity
        with pytest.warns(UserWarning, match="no validation score was a finite number"):
            model.fit(X, Y)
        assert model.n_iter_ == 4
        assert model.best_validation_score_ == -math.inf
        return
    with pytest.raises(error):
        model.fit(X, Y)
    assert not hasattr(model, "network_")


def test_error_in_a_later_epoch_leaves_a_trained_estimator():
    calls = []

    def scorer(model, x, y):
        calls.append(1)
        if len(calls) > 3:
            raise ValueError("no more")
        return len(calls)

    model = classifier(scoring=scorer)
    with pytest.raises(ValueError, match="no more") as raised:
        model.fit(X, Y)
    assert "raised by scoring=" in raised.value.__notes__[0]
    assert model.n_iter_ == 2
    assert model.predict(X).shape == (240,)


def test_parameter_is_cloned_pickled_and_saved(tmp_path):
    scorer = make_scorer(recall_score, average="macro")
    assert repr(clone(classifier(scoring=scorer)).scoring) == repr(scorer)
    assert clone(classifier(scoring=log_loss)).scoring is not None
    model = classifier(scoring="recall_macro").fit(X, Y)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.scoring == pickle.loads(pickle.dumps(model)).scoring == "recall_macro"
    assert again.best_validation_score_ == model.best_validation_score_
    with pytest.raises(TypeError, match="scoring is"):
        model.set_params(scoring=scorer).save(tmp_path / "other")


def test_files_of_earlier_versions_go_by_the_score_as_they_did(tmp_path):
    path = tmp_path / "model"
    classifier(scoring=None).fit(X, Y).save(path)
    about, arrays = parts(path.read_bytes())
    del about["settings"]["parameters"]["scoring"]
    path.write_bytes(forged(about, arrays))
    assert load(path).scoring is None
    state = DropoutMLPClassifier().__getstate__()
    del state["scoring"]
    old = object.__new__(DropoutMLPClassifier)
    old.__setstate__(state)
    assert old.get_params()["scoring"] is None


def test_without_early_stopping_only_the_values_change():
    settings = {"early_stopping": False, "max_iter": 4}
    one, two = classifier(**settings), classifier(scoring="neg_log_loss", **settings)
    with warnings.catch_warnings(action="ignore"):
        one.fit(X[60:], Y[60:], **HELD), two.fit(X[60:], Y[60:], **HELD)
    assert np.array_equal(one.coefs_[0], two.coefs_[0])
    assert np.allclose(two.validation_scores_, -np.array(two.validation_loss_curve_))
