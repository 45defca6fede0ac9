"""What users of similar libraries reported as faults, and what the estimators do there."""

import copy
import pickle
import threading

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.ensemble import BaggingRegressor, StackingClassifier, VotingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import RandomizedSearchCV, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.semi_supervised import SelfTrainingClassifier

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, load
from cdrop.schedules import Cosine

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
DRAW = np.random.default_rng(0)
Y = DRAW.integers(0, 3, 400)
X = DRAW.normal(size=(400, 5)) + 3 * (np.arange(5) == 0) * Y[:, None]
TARGET = 2 * X[:, 0] - 1
TEXT = np.array(["a", "b", "c"])[Y]
FRAME = pd.DataFrame(X, columns=list("abcde"))
SWAPPED = FRAME[list("edcba")]


def classifier(hidden=(10,), **settings):
    defaults = {"max_iter": 12, "learning_rate_init": 0.02, "random_state": 0}
    return DropoutMLPClassifier(hidden, **{**defaults, **settings})


def regressor(**settings):
    defaults = {"max_iter": 12, "learning_rate_init": 0.02, "random_state": 0}
    return DropoutMLPRegressor((10,), **{**defaults, **settings})


def same(a, b):
    return all(map(np.array_equal, [*a.coefs_, *a.intercepts_], [*b.coefs_, *b.intercepts_]))


def test_best_weights_are_shown_also_where_max_iter_ends_the_fit():
    for model, y in ((classifier(), Y), (regressor(), TARGET)):
        model.set_params(early_stopping=True, scoring=None, learning_rate_init=0.3)
        model.set_params(n_iter_no_change=99)
        model.fit(X, y, X_val=X[:80], y_val=y[:80])
        best = max(model.validation_scores_)
        assert model.n_iter_ == 12
        assert model.score(X[:80], y[:80]) == model.best_validation_score_ == best


def test_max_iter_counts_each_call_of_a_warm_start():
    model = regressor(warm_start=True, max_iter=3, tol=0, n_iter_no_change=99).fit(X, TARGET)
    assert (model.n_iter_, len(model.loss_curve_)) == (3, 3)
    model.set_params(max_iter=5).fit(X, TARGET)
    assert (model.n_iter_, len(model.loss_curve_)) == (5, 8)


def test_rows_held_out_keep_their_weights():
    right = np.arange(400) % 2 == 0
    y, weight = np.where(right, Y, (Y + 1) % 3), np.where(right, 1.0, 1e-9)
    model = classifier(early_stopping=True, scoring=None, max_iter=40).fit(X, y, weight)
    assert model.best_validation_score_ > 0.7 > model.score(X, y)
    only = (Y == 1).astype(float)
    model.fit(X, Y, X_val=X, y_val=Y, sample_weight_val=only)
    assert model.best_validation_score_ == model.score(X, Y, only) != model.score(X, Y)


def test_columns_in_another_order_are_refused_everywhere():
    model = classifier(warm_start=True).fit(FRAME, Y)
    for call in (
        lambda: model.predict(SWAPPED),
        lambda: model.predict_proba(SWAPPED),
        lambda: model.fit(FRAME, Y, X_val=SWAPPED, y_val=Y),
        lambda: model.partial_fit(SWAPPED, Y),
        lambda: model.fit(SWAPPED, Y),
    ):
        with pytest.raises(ValueError, match="feature names should match"):
            call()


def test_sparse_matrices_written_in_other_ways_are_the_same_rows():
    dense = X * (abs(X) > 0.7)
    each, starts = np.tile(np.arange(5), 400), np.arange(0, 2001, 5)
    zeros = sparse.csr_array((dense.ravel(), each, starts))
    unsorted = sparse.csr_array((dense[:, ::-1].ravel(), each[::-1].copy(), starts))
    halves = np.r_[dense.ravel(), dense.ravel()] / 2
    twice = sparse.coo_array((halves, (np.tile(np.repeat(np.arange(400), 5), 2), np.tile(each, 2))))
    for part in (unsorted.data, unsorted.indices, unsorted.indptr):
        part.setflags(write=False)  # as joblib maps them
    model = classifier().fit(dense, Y)
    for matrix in (zeros, unsorted, twice, sparse.csc_array(dense)):
        assert np.array_equal(model.predict_proba(matrix), model.predict_proba(dense))
        assert same(classifier().fit(matrix, Y), model)


def test_nullable_columns_and_columns_of_one():
    nullable = FRAME.convert_dtypes().assign(count=pd.array(Y, dtype="Int64"))
    model = classifier().fit(nullable, Y)
    nullable.loc[3, "count"] = pd.NA
    for call in (model.predict, lambda x: model.fit(x, Y)):
        with pytest.raises(ValueError, match="X contains NaN"):
            call(nullable)
    with pytest.warns(UserWarning, match="A column-vector y was passed"):
        one = regressor().fit(X, TARGET[:, None])
    assert same(one, regressor().fit(X, TARGET))
    assert one.predict(X[:1]).shape == (1,)


def test_parameters_are_never_changed_and_clones_are_not_fitted():
    given = {"class_weight": {0: 1, 1: 2}, "learning_rate": Cosine(0.1, epochs=4), "dropout": [0.1]}
    before, model = copy.deepcopy(given), classifier(**given).fit(X, Y)
    assert given == before
    assert all(model.get_params()[name] is value for name, value in given.items())
    assert not hasattr(clone(model), "network_")


@pytest.mark.parametrize("early", [False, True])
def test_stored_models_are_trained_further(early, tmp_path):
    model = classifier(warm_start=True, early_stopping=early, max_iter=3).fit(FRAME, Y)
    joblib.dump(model, tmp_path / "joblib")
    model.save(tmp_path / "own")
    stored = [pickle.loads(pickle.dumps(model)), load(tmp_path / "own")]
    stored.append(joblib.load(tmp_path / "joblib", mmap_mode="r"))
    model.fit(FRAME, Y)
    for other in stored:
        with pytest.raises(ValueError, match="feature names should match"):
            other.predict(SWAPPED)
        assert same(other.fit(FRAME, Y), model)


def test_a_path_that_cannot_be_written_is_known_before_the_training(tmp_path):
    net = Network([5, 4, 3])
    for path in (tmp_path / "missing" / "file", tmp_path):
        for fit in (
            lambda path=path: net.fit(X, Y, epochs=1, checkpoint=path),
            lambda path=path: classifier().fit(X, Y, checkpoint=path),
        ):
            with pytest.raises(OSError, match="directory"):
                fit()
    assert net.history.iterations == 0


def test_probabilities_sum_to_1_for_many_classes_in_float32():
    rows = DRAW.normal(size=(900, 20)).astype("f4")
    classes = np.arange(900) % 300
    model = classifier(dropout=0.3, max_iter=2).fit(rows, classes)
    for p in (model.predict_proba(rows), model.predict_proba(30 * rows, mc_samples=3)):
        assert np.allclose(p.sum(axis=1, dtype="f8"), 1, rtol=1e-6)
        assert 0 < roc_auc_score(classes, p, multi_class="ovr") <= 1


def test_text_classes_in_tools_around_early_stopping():
    net = classifier(early_stopping=True)
    for tool in (
        VotingClassifier([("a", net), ("b", classifier())], voting="soft"),
        StackingClassifier([("a", net)], cv=2),
        OneVsRestClassifier(net),
    ):
        assert tool.fit(X, TEXT).score(X, TEXT) > 0.5
    assert cross_val_predict(net, X, TEXT, cv=2, method="predict_log_proba").shape == (400, 3)
    labeled = np.where(np.arange(400) % 3, Y, -1)
    assert SelfTrainingClassifier(net).fit(X, labeled).score(X, Y) > 0.5
    assert BaggingRegressor(regressor(), 2, random_state=0).fit(X, TARGET).score(X, TARGET) > 0.5
    choices = {"batch_size": np.array([16, 32]), "alpha": np.logspace(-4, -1, 4)}
    search = RandomizedSearchCV(net, choices, n_iter=2, cv=2, random_state=0).fit(X, TEXT)
    assert search.best_score_ > 0.5


def test_threads_that_predict_with_one_estimator_agree():
    model = classifier().fit(X, Y > 0)
    want, wrong = model.predict_proba(X), []

    def predict():
        answers = (model.predict_proba(X) for _ in range(100))
        wrong.extend(answer for answer in answers if not np.array_equal(answer, want))

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
