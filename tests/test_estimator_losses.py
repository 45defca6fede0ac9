"""Losses of the regressor; soft labels and label smoothing of the classifier."""

import pickle
import warnings

import numpy as np
import pytest
from conftest import digest
from sklearn import metrics
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import PoissonRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

import cdrop
from cdrop import DropoutMLPClassifier, DropoutMLPRegressor
from cdrop.convert import to_onnx

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

LOSSES = ("squared_error", "absolute_error", "huber", "poisson", "quantile")
DRAW = np.random.default_rng(0)
X = DRAW.uniform(0, 1, (300, 2))
Y = DRAW.poisson(np.exp(X[:, 0] + X[:, 1])).astype(float)
BOTH = np.column_stack([Y, 2 * Y + 1])
LEVELS = [0.9, 0.1, 0.5]
IRIS, CLASSES = load_iris(return_X_y=True)
IRIS = scale(IRIS)
SOFT = np.eye(3)[CLASSES] * 0.7 + 0.1


def regressor(loss="quantile", **changed):
    given = {"hidden_layer_sizes": (16,), "dropout": 0.1, "max_iter": 60, "random_state": 0}
    if loss == "quantile" and "quantile" not in changed:
        changed["quantile"] = LEVELS
    return DropoutMLPRegressor(loss=loss, **{**given, "learning_rate_init": 0.01, **changed})


def classifier(**changed):
    given = {"hidden_layer_sizes": (16,), "max_iter": 30, "random_state": 0}
    return DropoutMLPClassifier(**{**given, "learning_rate_init": 0.01, **changed})


@pytest.fixture(scope="module")
def fitted():
    return {loss: regressor(loss).fit(X, Y) for loss in LOSSES}


# ---- The regressor ---------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_predictions_minimize_the_loss(loss, fitted):
    predicted = fitted[loss].predict(X)
    assert predicted.shape == ((300, 3) if loss == "quantile" else (300,))
    assert fitted[loss].score(X, Y) > 0.1
    if loss == "quantile":
        covered = (Y[:, None] <= predicted).mean(axis=0)
        np.testing.assert_allclose(covered, LEVELS, atol=0.1)
    elif loss == "absolute_error":
        assert abs((predicted >= Y).mean() - 0.5) < 0.1
    else:
        assert abs(predicted.mean() - Y.mean()) < 0.4
    assert fitted[loss].out_activation_ == ("exp" if loss == "poisson" else "identity")


@pytest.mark.parametrize("loss", LOSSES)
def test_scores_are_those_of_scikit_learn(loss, fitted):
    model, weight = fitted[loss], 0.5 + X[:, 0]
    if loss == "quantile":
        scores = [
            metrics.d2_pinball_score(Y, model.predict(X)[:, i], alpha=q)
            for i, q in enumerate(LEVELS)
        ]
        assert model.score(X, Y) == pytest.approx(np.mean(scores), abs=5e-3)
        assert model.score(X, Y, weight) != model.score(X, Y)
    else:
        expected = metrics.r2_score(Y, model.predict(X), sample_weight=weight)
        assert model.score(X, Y, weight) == expected
    assert model.network_.score(X, Y, weight) == pytest.approx(model.score(X, Y, weight))


@pytest.mark.parametrize("loss", LOSSES)
def test_early_stopping_goes_by_the_score(loss):
    model = regressor(loss, early_stopping=True, max_iter=10)
    model.fit(X[:200], Y[:200], X_val=X[200:], y_val=Y[200:])
    best = max(model.validation_scores_)
    assert model.best_validation_score_ == best
    assert model.score(X[200:], Y[200:]) == pytest.approx(best)


@pytest.mark.parametrize("loss", LOSSES)
def test_everything_works_with_every_loss(loss, fitted, tmp_path):
    model, weight = fitted[loss], 0.5 + X[:, 0]
    predicted, std = model.predict(X[:5], return_std=True)
    assert predicted.shape == std.shape
    result = model.predict_uncertainty(X[:5], 4, samples=True)
    np.testing.assert_allclose(result.samples.mean(axis=0), result.mean)
    if loss == "poisson":
        assert result.samples.min() > 0
    model.save(tmp_path / "model")
    for copy in (cdrop.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        assert copy.get_params() == model.get_params() == clone(model).get_params()
        np.testing.assert_array_equal(copy.predict(X), model.predict(X))
        copy.partial_fit(X, Y, weight)
        again = pickle.loads(pickle.dumps(model)).partial_fit(X, Y, weight)
        assert digest(copy.network_) == digest(again.network_)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_warm_fits_are_one(loss):
    once = regressor(loss, max_iter=4).fit(X, Y)
    twice = regressor(loss, max_iter=2, warm_start=True).fit(X, Y).fit(X, Y)
    assert digest(once.network_) == digest(twice.network_)


@pytest.mark.parametrize("loss", LOSSES)
def test_several_targets(loss):
    model = regressor(loss, **({"quantile": 0.8} if loss == "quantile" else {}))
    model.fit(X, BOTH)
    assert model.predict(X).shape == (300, 2)
    assert model.score(X, BOTH) > 0.1
    # Targets of the same quantile are not sorted.
    sort = pickle.loads(pickle.dumps(model)).set_params(sort_quantiles=True)
    np.testing.assert_array_equal(sort.predict(X), model.predict(X))


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_targets_are_learned_without_a_warning(loss):
    model = regressor(
        loss, early_stopping=True, max_iter=400, n_iter_no_change=20, quantile=[0.4, 0.6]
    )
    with warnings.catch_warnings(action="error", category=ConvergenceWarning):
        model.fit(X[:60], np.full(60, 3.0))
    assert model.predict(X[:60]) == pytest.approx(3, abs=1)


def test_sorted_quantiles_do_not_cross():
    # Hardly trained, so that quantiles cross.
    model = regressor(max_iter=1, learning_rate_init=1e-3, random_state=3).fit(X, Y)
    crossed = model.predict(X)
    assert (np.diff(crossed[:, [1, 2, 0]]) < 0).any()
    model.set_params(sort_quantiles=True)
    ordered = model.predict(X)
    assert (np.diff(ordered[:, [1, 2, 0]]) >= 0).all()
    np.testing.assert_array_equal(np.sort(ordered), np.sort(crossed))
    assert model.score(X, Y) > model.set_params(sort_quantiles=False).score(X, Y)


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_onnx_predicts_the_same(loss, sort):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = regressor(loss, max_iter=1, sort_quantiles=sort).fit(X, Y)
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString())
    output = session.run(None, {"X": X.astype("f4")})[0]
    np.testing.assert_allclose(output, model.predict(X).reshape(300, -1), rtol=1e-5, atol=1e-5)


def test_poisson_is_a_generalized_linear_model():
    glm = PoissonRegressor(alpha=0, tol=1e-9).fit(X, Y)
    converged = {"learning_rate_init": 0.05, "max_iter": 1500, "n_iter_no_change": 1500}
    model = DropoutMLPRegressor((1,), "identity", loss="poisson", alpha=0, batch_size=300)
    model.set_params(random_state=1, **converged).fit(X, Y)
    np.testing.assert_allclose(model.predict(X), glm.predict(X), rtol=1e-5)


def test_several_quantiles_of_several_targets_are_an_error():
    with pytest.raises(ValueError, match="expected one target for several quantiles"):
        regressor().fit(X, BOTH)
    regressor(quantile=[0.5], max_iter=1).fit(X, BOTH)


def test_negative_targets_of_poisson_are_an_error():
    with pytest.raises(ValueError, match=r"y\[3\] is -1.0; expected numbers of at least 0"):
        regressor("poisson").fit(X, np.where(np.arange(300) == 3, -1, Y))
    with pytest.raises(ValueError, match=r"y_val\[0\] is -1.0"):
        regressor("poisson").fit(X, Y, X_val=X[:1], y_val=[-1.0])


def test_the_loss_cannot_change_in_a_warm_start_but_its_settings_can():
    model = regressor("huber", max_iter=1, warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="the network was made with loss huber"):
        model.set_params(loss="absolute_error").fit(X, Y)
    model.set_params(loss="huber", huber_delta=0.25).fit(X, Y)
    assert model.network_.huber_delta == 0.25
    quantiles = regressor(max_iter=1, warm_start=True).fit(X, Y)
    quantiles.set_params(quantile=[0.2, 0.3, 0.4]).fit(X, Y)
    assert quantiles.network_.quantiles == (0.2, 0.3, 0.4)
    with pytest.raises(
        ValueError, match="the network was made with n_outputs_ 3; it would now be 2,"
    ):
        quantiles.set_params(quantile=[0.2, 0.3]).fit(X, Y)


def test_a_search_over_losses():
    pipe = make_pipeline(StandardScaler(), regressor("huber", max_iter=2))
    grid = {"dropoutmlpregressor__loss": LOSSES[:4]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_estimators_of_earlier_versions_have_the_defaults(tmp_path):
    for model in (regressor("squared_error", max_iter=1), classifier(max_iter=1)):
        model.fit(IRIS, CLASSES)
        added = {"loss", "huber_delta", "quantile", "sort_quantiles"}
        for name in (added | {"soft_labels", "label_smoothing"}) & set(vars(model)):
            delattr(model, name)
        old = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(old.predict(IRIS), model.predict(IRIS))
        assert old.fit(IRIS, CLASSES).score(IRIS, CLASSES) == model.score(IRIS, CLASSES)


# ---- The classifier --------------------------------------------------------------------------


def test_one_hot_soft_labels_train_as_labels_do():
    hard = classifier(max_iter=3).fit(IRIS, CLASSES)
    soft = classifier(max_iter=3, soft_labels=True).fit(IRIS, np.eye(3)[CLASSES])
    for a, b in zip(hard.coefs_, soft.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7)
    assert soft.classes_.tolist() == [0, 1, 2]
    assert soft.score(IRIS, np.eye(3)[CLASSES]) == soft.score(IRIS, CLASSES)
    assert soft.score(IRIS, CLASSES) == hard.score(IRIS, CLASSES)


@pytest.mark.parametrize("columns", [2, 3])
def test_probabilities_become_those_of_the_targets(columns):
    y = np.full((150, columns), 0.2)
    y[:, 0] = 1 - y[:, 1:].sum(axis=1)
    model = classifier(soft_labels=True, max_iter=60).fit(IRIS, y)
    np.testing.assert_allclose(model.predict_proba(IRIS).mean(axis=0), y[0], atol=0.03)
    assert model.network_.units[-1] == (1 if columns == 2 else 3)
    assert model.predict(IRIS).tolist() == [0] * 150


def test_smoothing_is_that_of_soft_labels():
    smooth = classifier(label_smoothing=0.3, max_iter=3).fit(IRIS, CLASSES)
    soft = classifier(soft_labels=True, max_iter=3).fit(IRIS, SOFT)
    for a, b in zip(smooth.coefs_, soft.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    binary = CLASSES == 1
    smooth = classifier(label_smoothing=0.3, max_iter=3).fit(IRIS, binary)
    y = np.where(binary, 0.85, 0.15)
    soft = classifier(soft_labels=True, max_iter=3).fit(IRIS, np.column_stack([1 - y, y]))
    for a, b in zip(smooth.coefs_, soft.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_validation_does_not_smooth():
    model = classifier(label_smoothing=0.3, max_iter=2)
    model.fit(IRIS, CLASSES, X_val=IRIS, y_val=CLASSES)
    loss = metrics.log_loss(CLASSES, model.predict_proba(IRIS))
    assert model.validation_loss_curve_[-1] == pytest.approx(loss)


@pytest.mark.parametrize("scoring", [None, "loss", "accuracy", "neg_log_loss"])
def test_early_stopping_with_soft_labels(scoring):
    model = classifier(soft_labels=True, early_stopping=True, scoring=scoring, max_iter=5)
    model.fit(IRIS, SOFT)
    assert len(model.validation_scores_) == 5
    held = model.fit(IRIS[::2], SOFT[::2], X_val=IRIS[1::2], y_val=SOFT[1::2])
    if scoring in (None, "accuracy"):
        best = held.score(IRIS[1::2], SOFT[1::2])
        assert held.best_validation_score_ == pytest.approx(best)


def test_partial_fit_takes_soft_labels(tmp_path):
    model = classifier(soft_labels=True).partial_fit(IRIS, SOFT)
    model.partial_fit(IRIS[:5], SOFT[:5])
    assert model.t_ == 155
    named = classifier(soft_labels=True).partial_fit(IRIS, SOFT, classes=["c", "a", "b"])
    assert set(named.predict(IRIS)) <= {"a", "b", "c"}
    assert named.classes_.tolist() == ["a", "b", "c"]
    model.save(tmp_path / "model")
    loaded = cdrop.load(tmp_path / "model").partial_fit(IRIS, SOFT)
    assert digest(loaded.network_) == digest(model.partial_fit(IRIS, SOFT).network_)


def test_a_warm_start_may_change_the_smoothing():
    model = classifier(max_iter=1, warm_start=True).fit(IRIS, CLASSES)
    model.set_params(label_smoothing=0.2).fit(IRIS, CLASSES)
    assert model.network_.label_smoothing == 0.2
    assert len(model.loss_curve_) == 2


def test_a_search_with_soft_labels():
    search = GridSearchCV(
        classifier(soft_labels=True, max_iter=3), {"alpha": [0, 1]}, cv=2, error_score="raise"
    )
    assert np.isfinite(search.fit(IRIS, SOFT).best_score_)


@pytest.mark.parametrize(
    ("changed", "y", "message"),
    [
        ({"soft_labels": False}, SOFT, "Unknown label type.*soft_labels=True"),
        ({}, CLASSES, r"y has shape \(150,\); expected \(n_samples, n_classes\)"),
        ({}, SOFT[:, :1], r"y has shape \(150,.*at least 2 classes"),
        ({}, SOFT * 2, r"y\[0\] is .*; expected probabilities of at least 0 that sum to 1"),
        ({}, SOFT * [1, 1, -1], r"y\[0\] is"),
        ({}, np.full((150, 3), "a"), "y has dtype <U1; expected real numbers"),
        ({"class_weight": "balanced"}, SOFT, "class_weight is 'balanced'; expected None with"),
        ({"class_weight": {0: 2.0}}, SOFT, "class_weight is .*; expected None with soft_labels"),
    ],
)
@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_soft_labels_that_are_none_are_errors(changed, y, message):
    with pytest.raises((TypeError, ValueError), match=message):
        classifier(**{"soft_labels": True, **changed}).fit(IRIS, y)


def test_soft_labels_of_another_width_are_errors():
    model = classifier(soft_labels=True, max_iter=1, warm_start=True).fit(IRIS, SOFT)
    for call in (model.fit, model.score, model.partial_fit):
        with pytest.raises(ValueError, match=r"y has shape \(150, 2\); expected 3 columns of prob"):
            call(IRIS, np.full((150, 2), 0.5))
    with pytest.raises(ValueError, match="y_val has shape"):
        classifier(soft_labels=True).fit(IRIS, SOFT, X_val=IRIS, y_val=CLASSES)
    with pytest.raises(ValueError, match="expected 3 classes, one for each column"):
        classifier(soft_labels=True).partial_fit(IRIS, SOFT, classes=[0, 1])
