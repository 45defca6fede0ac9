"""The estimators beyond scikit-learn's checks: what they promise of training, data, files and the tools around them."""

import io
import pickle
import re
import sys
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_iris, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

import cdrop
from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, rates, schedules
from cdrop._parts import decode, encode
from cdrop.optimizers import SGD, Adam, AdamW, Momentum, Nesterov
from cdrop.schedules import Step

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
BOTH = (DropoutMLPClassifier, DropoutMLPRegressor)
X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)


def quick(estimator=DropoutMLPClassifier, **settings):
    """Make a small estimator."""
    defaults = {"hidden_layer_sizes": (9, 8), "dropout": 0.3, "max_iter": 5, "random_state": 3}
    return estimator(**{**defaults, **settings})


def same(a, b):
    """Whether two estimators have the same weights, bit for bit."""
    pairs = zip([*a.coefs_, *a.intercepts_], [*b.coefs_, *b.intercepts_], strict=True)
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


# ---- Training ------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", BOTH)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"early_stopping": True},
        {"learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 1},
        {"learning_rate": "invscaling", "solver": "sgd"},
        {"learning_rate": Step(0.01, every=2), "solver": "rmsprop", "max_norm": 1.0},
        {"learning_rate": "plateau", "n_iter_no_change": 2, "tol": 1.0},
    ],
)
def test_many_short_fits_are_one_long_one(estimator, settings):
    settings = {"n_iter_no_change": 10, **settings}
    long = quick(estimator, max_iter=4, batch_size=32, **settings).fit(X, Y)
    short = quick(estimator, max_iter=1, batch_size=32, warm_start=True, **settings)
    for _ in range(long.n_iter_):
        short.fit(X, Y)
    assert same(short, long)
    assert short.loss_curve_ == long.loss_curve_
    assert short.validation_scores_ == long.validation_scores_
    assert (short.t_, short.learning_rate_) == (long.t_, long.learning_rate_)
    assert not same(quick(estimator, max_iter=1, batch_size=32, **settings).fit(X, Y), long)


@pytest.mark.parametrize("estimator", BOTH)
def test_partial_fit_continues_like_fit(estimator):
    net = quick(estimator)
    for _ in range(5):
        net.partial_fit(X, Y, **({"classes": [0, 1, 2]} if estimator is BOTH[0] else {}))
    assert same(net, quick(estimator).fit(X, Y))
    assert net.n_iter_ == 1
    assert net.t_ == 5 * len(X)


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_threads_do_not_change_the_weights(n_jobs):
    assert same(quick(n_jobs=n_jobs).fit(X, Y), quick().fit(X, Y))


@pytest.mark.parametrize("n_jobs", [0, 1.5, "2", True])
def test_n_jobs_is_checked(n_jobs):
    with pytest.raises((TypeError, ValueError), match="n_jobs"):
        quick(n_jobs=n_jobs).fit(X, Y)


def test_a_seed_is_the_networks_and_a_generator_is_drawn_from():
    assert quick(random_state=7).fit(X, Y).network_.seed == 7
    draws = np.random.RandomState(0)
    first, second = (quick(random_state=draws).fit(X, Y) for _ in range(2))
    assert not same(first, second)
    assert same(quick(random_state=np.random.RandomState(0)).fit(X, Y), first)


def test_the_network_is_trained_as_by_hand():
    net = Network((4, 9, 8, 3), dropout=0.3, seed=3, dtype="float64", initializer="glorot")
    net.fit(X, Y, optimizer="adam", l2=1e-4, share_l2=True, batch_size=150, epochs=5)
    assert all(map(np.array_equal, quick().fit(X, Y).coefs_, net.coefs_))


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"solver": "sgd", "momentum": 0}, SGD()),
        ({"solver": "sgd"}, Nesterov(0.9)),
        ({"solver": "sgd", "nesterovs_momentum": False}, Momentum(0.9)),
        ({"solver": "momentum", "momentum": 0.5}, Momentum(0.5)),
        ({"solver": "nesterov", "nesterovs_momentum": False}, Nesterov(0.9)),
        ({"solver": "adam", "beta_1": 0.8, "epsilon": 1e-6}, Adam(0.8, 0.999, 1e-6)),
        ({"solver": "adamw", "alpha": 0.1}, AdamW(weight_decay=0.1)),
    ],
)
def test_solvers(settings, rule):
    assert quick(**settings).fit(X, Y).network_._optimizer == rule


def test_alpha_is_divided_by_the_minibatch():
    strong, weak = (quick(alpha=a, batch_size=b).fit(X, Y) for a, b in ((15.0, 150), (0.1, 1)))
    by_hand = Network((4, 9, 8, 3), dropout=0.3, seed=3, dtype="float64", initializer="glorot")
    by_hand.fit(X, Y, optimizer="adam", l2=0.1, batch_size=150, epochs=5)
    assert np.allclose(strong.coefs_[0], by_hand.coefs_[0], atol=1e-12)
    by_hand = Network((4, 9, 8, 3), dropout=0.3, seed=3, dtype="float64", initializer="glorot")
    by_hand.fit(X, Y, optimizer="adam", l2=0.1, batch_size=1, epochs=5)
    assert np.allclose(weak.coefs_[0], by_hand.coefs_[0], atol=1e-12)


def test_a_weight_of_two_is_two_rows_and_one_of_zero_none():
    weight = np.arange(len(X)) % 3
    once = quick(dropout=0.0, batch_size=1000, max_iter=8)
    with pytest.warns(UserWarning, match="clipped"):
        weighted = clone(once).fit(X, Y, weight)
    with pytest.warns(UserWarning, match="clipped"):
        repeated = clone(once).fit(np.repeat(X, weight, axis=0), np.repeat(Y, weight))
    assert np.allclose(weighted.coefs_[0], repeated.coefs_[0], atol=1e-9)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 3.0, 2: 0.5}])
def test_class_weights_are_sample_weights(class_weight):
    y, weight = np.where(Y == 1, 0, Y), np.linspace(0.5, 1, len(Y))
    by_class = compute_sample_weight(class_weight, y)
    weighted = quick(class_weight=class_weight).fit(X, y, weight)
    assert same(weighted, quick().fit(X, y, weight * by_class))
    assert not same(weighted, quick().fit(X, y, weight))


def test_balanced_counts_the_rows_that_have_weight():
    weight = np.where((Y == 0) & (np.arange(len(Y)) % 5 > 0), 0.0, 1.0)
    kept = weight > 0
    balanced = quick(class_weight="balanced", shuffle=False, batch_size=30)
    assert same(clone(balanced).fit(X, Y, weight), clone(balanced).fit(X[kept], Y[kept]))


def test_validation_rows_are_not_weighted_by_class():
    weights = {0: 50.0, 1: 1.0, 2: 1.0}
    net = quick(class_weight=weights, early_stopping=True, scoring=None, max_iter=1).fit(X, Y)
    _, held_out = train_test_split(
        np.arange(len(Y)), test_size=0.1, random_state=net.network_.seed % 2**32, stratify=Y
    )
    assert net.validation_scores_ == [net.score(X[held_out], Y[held_out])]


def test_a_piece_without_some_of_the_weighted_classes_is_fine():
    few, weights = Y < 2, {0: 3.0, 1: 1.0, 2: 0.5}
    net = quick(class_weight=weights).partial_fit(X[few], Y[few], classes=[0, 1, 2])
    by_class = np.where(Y[few] == 0, 3.0, 1.0)
    assert same(net, quick().partial_fit(X[few], Y[few], by_class, classes=[0, 1, 2]))
    net.partial_fit(X[~few], Y[~few])


# ---- Validation and stopping ---------------------------------------------------------------


def test_own_validation_rows_are_scored_each_epoch():
    weight = np.linspace(0.1, 2, 50)
    words = np.array(["setosa", "versicolor", "virginica"])[Y]
    net = quick(scoring=None).fit(
        X[::2], words[::2], X_val=X[1:100:2], y_val=words[1:100:2], sample_weight_val=weight
    )
    assert len(net.validation_scores_) == len(net.validation_loss_curve_) == net.n_iter_ == 5
    loss, score = net.network_.evaluate(X[1:100:2], Y[1:100:2], weight)
    assert (net.validation_loss_curve_[-1], net.validation_scores_[-1]) == (loss, score)
    assert score == pytest.approx(net.score(X[1:100:2], words[1:100:2], weight))
    assert net.best_validation_score_ == max(net.validation_scores_)
    assert same(net, quick().fit(X[::2], words[::2]))  # they are looked at, and change nothing


@pytest.mark.parametrize("estimator", BOTH)
def test_early_stopping_keeps_the_best_weights(estimator):
    net = quick(estimator, early_stopping=True, scoring=None, max_iter=60, tol=0.0)
    net.set_params(learning_rate_init=0.02)
    net.fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    best = net.best_validation_score_
    assert best == max(net.validation_scores_)
    assert net.score(X[1::2], Y[1::2]) == pytest.approx(best)
    assert not np.array_equal(net._last_weights[0][0], net.coefs_[0])
    assert net.best_loss_ is None


def test_the_split_is_stratified_and_stays():
    net = quick(early_stopping=True, warm_start=True, validation_fraction=0.2).fit(X, Y)
    train, held = train_test_split(np.arange(150), test_size=0.2, random_state=3, stratify=Y)
    by_hand = quick(early_stopping=True).fit(X[train], Y[train], X_val=X[held], y_val=Y[held])
    assert net.validation_scores_ == by_hand.validation_scores_
    assert np.allclose(net.loss_curve_, by_hand.loss_curve_)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X_val": X}, "y_val"),
        ({"y_val": Y}, "X_val"),
        ({"sample_weight_val": np.ones(150)}, "sample_weight_val"),
        ({"X_val": X, "y_val": Y[1:]}, "y_val has 149 rows"),
        ({"X_val": X, "y_val": Y + 1}, "y_val has the classes"),
        ({"X_val": X[:, 1:], "y_val": Y}, "3 features"),
        ({"X_val": X, "y_val": Y, "sample_weight_val": -np.ones(150)}, "sample_weight_val"),
    ],
)
def test_validation_rows_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        quick().fit(X, Y, **arguments)


def test_early_stopping_and_partial_fit_exclude_each_other():
    with pytest.raises(ValueError, match="early_stopping=True"):
        quick(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])


def test_a_diverged_run_warns():
    with pytest.raises(ValueError, match="non-finite.*loss of step"):
        quick(BOTH[1], solver="sgd", activation="identity", learning_rate_init=1e6).fit(X, Y)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"learning_rate_init": 1e6}, "learning_rate_init"),
        ({"learning_rate_init": 1e6, "learning_rate": "cosine"}, "learning_rate_init"),
        ({"learning_rate": schedules.Constant(1e6)}, "learning_rate"),
        ({"learning_rate": rates.Constant(1e6)}, "learning_rate"),
    ],
)
def test_a_diverged_run_names_the_parameter_of_the_rate(settings, name):
    model = quick(BOTH[1], solver="sgd", activation="identity", max_iter=20, **settings)
    with pytest.raises(ValueError, match=rf"A smaller {name} \(it is "):
        model.fit(X, Y)


def test_max_iter_warns_that_it_was_reached():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning, match=r"\(5\)"):
            quick().fit(X, Y)


def test_a_warm_start_needs_the_same_network():
    net = quick(warm_start=True).fit(X, Y)
    for name, value, shown in (
        ("hidden_layer_sizes", 5, r"\(9, 8\); it would now be \(5,\)"),
        ("activation", "logistic", "relu; it would now be logistic"),
    ):
        with pytest.raises(ValueError, match=f"was made with {name} {shown}, which takes"):
            clone(net).fit(X, Y).set_params(**{name: value}).fit(X, Y)


OTHER_FITS = {  # parameters of a second fit, and what its error shows
    "max_iter": ({"max_iter": 4}, r"with another max_iter \(3, and here 4\)"),
    "alpha": ({"alpha": 1.0}, r"with another alpha \(0.0001, and here 1.0\)"),
    "solver": ({"solver": "sgd"}, "with another solver .*'beta_1': 0.9, 'beta_2': 0.999, "),
    "weight_decay": (
        {"solver": "adamw"},
        "with another solver .*'name': 'adamw', .*'alpha': 0.0001}",
    ),
    "learning_rate_init": (
        {"learning_rate_init": 0.1},
        "with another learning_rate .*'learning_rate_init': 0.001}, .*'learning_rate_init': 0.1}",
    ),
    "power_t": ({"learning_rate": "invscaling"}, "with another learning_rate .*'power_t': 0.5}"),
    "validation_fraction": ({"early_stopping": True}, r"training rows \(early_stopping, "),
    "X_val": ({}, "with another X_val, y_val or sample_weight_val;"),
    "random_state": ({"random_state": 3}, r"\(random_state 0, and here 3\)"),
    "hidden_layer_sizes": (
        {"hidden_layer_sizes": (5, 6)},
        r"hidden_layer_sizes \(4,\), and here \(5, 6\)",
    ),
    "activation": ({"activation": "logistic"}, r"\(activation 'relu', and here 'logistic'\)"),
}


@pytest.mark.parametrize("name", OTHER_FITS)
def test_a_checkpoint_of_another_fit_is_refused_by_the_names_of_the_parameters(name, tmp_path):
    pytest.importorskip("safetensors")
    changed, shown = OTHER_FITS[name]
    path = tmp_path / "with another l2 (seed 3)"
    net = quick(hidden_layer_sizes=(4,), max_iter=3, random_state=0).fit(X, Y, checkpoint=path)
    validation = {"X_val": X, "y_val": Y} if name == "X_val" else {}
    with pytest.raises(
        ValueError, match=f"l2 \\(seed 3\\)', which is of a fit .*{shown}"
    ) as caught:
        net.set_params(**changed).fit(X, Y, checkpoint=path, **validation)
    theirs = str(caught.value).rpartition(", which is of a fit ")[2]
    assert not re.search(
        r"\b(epochs|l2|optimizer|beta[12]|weight_decay|power|seed|units)\b", theirs
    )


# ---- Bad parameters ------------------------------------------------------------------------

BAD = {
    "hidden_layer_sizes": [0, (3, -1), 2.5, "ab", None],
    "activation": ["swish", None],
    "dropout": [1.0, -0.1, [0.1], "half", None],
    "input_dropout": [1.0, "a"],
    "solver": ["lbfgs", None],
    "alpha": [-1, np.nan, "a"],
    "max_norm": [0, -1, "a"],
    "batch_size": [0, "all", 2.5],
    "learning_rate": ["fast", 0.1],
    "learning_rate_init": [0, -1, np.inf],
    "max_iter": [0, 1.5],
    "shuffle": ["no", 1],
    "random_state": [-1, "a"],
    "tol": [-1, np.nan],
    "early_stopping": [1],
    "validation_fraction": [1.0, -0.1],
    "n_iter_no_change": [0, 1.5],
    "beta_1": [0.0, 1.0],
    "epsilon": [0.0],
    "class_weight": ["even", 3],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_bad_parameters_are_reported(name, value):
    net = quick(early_stopping=name == "validation_fraction").set_params(**{name: value})
    with pytest.raises((TypeError, ValueError), match=name):
        net.fit(X, Y)


# ---- Data ----------------------------------------------------------------------------------


def test_sparse_rows_are_never_densified():
    rows, features = 4000, 3000
    draw = np.random.default_rng(0)
    wide = sparse.random_array((rows, features), density=0.002, rng=draw, format="csr")
    y = draw.integers(0, 3, rows)
    net = quick(hidden_layer_sizes=16, dropout=0.0, max_iter=1, early_stopping=True)
    tracemalloc.start()
    net.fit(wide, y).predict(wide)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows * features * 8 / 20
    dense = quick(hidden_layer_sizes=16, dropout=0.0, max_iter=1, early_stopping=True)
    assert same(dense.fit(wide.toarray(), y), net)
    assert np.array_equal(dense.predict(wide.toarray()), net.predict(wide))


def test_float32_stays_float32_without_a_copy():
    x = np.random.default_rng(0).random((20000, 200), "float32")
    y = x[:, 0] > 0.5
    net = quick(hidden_layer_sizes=4, max_iter=2, early_stopping=True)
    tracemalloc.start()
    net.fit(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 4  # a tenth of the rows, their order, and labels
    assert {a.dtype.name for a in [*net.coefs_, net.predict_proba(x)]} == {"float32"}


def test_chunks_of_a_memory_map_are_trained_on_as_in_memory(tmp_path):
    draw = np.random.default_rng(0)
    path, shape = tmp_path / "x.dat", (20000, 100)
    np.memmap(path, "float32", "w+", shape=shape)[:] = draw.random(shape, "float32")
    y = draw.integers(0, 2, shape[0])
    mapped = np.memmap(path, "float32", "r", shape=shape)
    whole = np.array(mapped)
    nets = [quick(hidden_layer_sizes=8) for _ in range(2)]
    peaks = []
    for net, x in zip(nets, (mapped, whole), strict=True):
        tracemalloc.start()
        for first in range(0, shape[0], 1000):
            chunk = slice(first, first + 1000)
            net.partial_fit(x[chunk], y[chunk], classes=[0, 1])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert same(*nets)
    assert max(peaks) < whole.nbytes / 10
    assert nets[0].t_ == shape[0]


def test_classes_may_be_words_one_or_several_at_once():
    words = np.array(["no", "yes"], object)[(Y > 0).astype(int)]
    net = quick(max_iter=60, dropout=0.1, learning_rate_init=0.01).fit(X, words)
    assert net.classes_.tolist() == ["no", "yes"]
    assert net.n_outputs_ == 1
    assert net.out_activation_ == "logistic"
    assert net.score(X, words) > 0.9
    assert np.array_equal(net.predict_proba(X)[:, 1] > 0.5, net.predict(X) == "yes")
    one = quick().fit(X, np.full(150, "only"))
    assert set(one.predict(X)) == {"only"}
    assert np.array_equal(one.predict_proba(X), np.ones((150, 1)))
    several = np.stack([Y > 0, Y > 1], axis=1).astype(int)
    settings = {"max_iter": 60, "dropout": 0.1, "learning_rate_init": 0.01}
    many = quick(**settings).fit(X, several)
    assert many.predict(X).shape == many.predict_proba(X).shape == (150, 2)
    assert many.score(X, several) > 0.8
    assert same(quick(**settings).fit(X, sparse.csr_array(several)), many)


def test_wrong_classes_are_reported():
    net = quick(warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="same classes"):
        net.fit(X, Y + 1)
    with pytest.raises(ValueError, match="classes"):
        quick().partial_fit(X, Y)
    with pytest.raises(ValueError, match="balanced"):
        quick(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="several columns"):
        quick().fit(X, np.stack([Y, Y], axis=1))
    labels = np.stack([Y == 0, Y > 0], axis=1).astype(int)
    with pytest.raises(ValueError, match="y_val has shape"):
        quick().fit(X, Y, X_val=X, y_val=labels)
    with pytest.raises(ValueError, match="y_val has shape"):
        quick().fit(X, labels, X_val=X, y_val=Y % 2)


def test_regression_of_several_targets():
    x, y = make_regression(200, 10, n_targets=3, random_state=0)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    settings = {"dropout": 0.0, "hidden_layer_sizes": 50, "max_iter": 200}
    net = quick(BOTH[1], learning_rate_init=0.01, **settings).fit(x, y)
    assert net.score(x, y) > 0.95
    assert net.predict(x).shape == (200, 3)
    assert net.out_activation_ == "identity"
    assert quick(BOTH[1]).fit(x, y[:, 0]).predict(x).shape == (200,)


# ---- Uncertainty ---------------------------------------------------------------------------


def test_uncertainty_has_the_shape_of_the_problem():
    three = quick().fit(X, Y)
    result = three.predict_uncertainty(X, 7)
    assert np.array_equal(result.mean, three.predict_proba(X, mc_samples=7))
    assert result.mutual_information.shape == (150,)
    two = quick().fit(X, Y > 0)
    result = two.predict_uncertainty(X, 7)
    assert np.array_equal(result.mean, two.predict_proba(X, 7))
    assert result.mean.shape == (150, 2)
    assert result.mutual_information.shape == (150,)
    number = quick(BOTH[1]).fit(X, Y)
    result = number.predict_uncertainty(X, 7, seed=1)
    assert result.mean.shape == result.std.shape == (150,)
    assert (result.std > 0).any()


@pytest.mark.parametrize("targets", [1, 2])
def test_a_pipeline_predicts_with_the_standard_deviation(targets):
    y = X[:, 0] if targets == 1 else X[:, :2]
    pipe = make_pipeline(StandardScaler(), quick(BOTH[1])).fit(X, y)
    mean, std = pipe.predict(X, return_std=True)
    assert np.array_equal(mean, pipe.predict(X))
    assert np.array_equal(std, pipe[-1].predict_uncertainty(pipe[:-1].transform(X)).std)
    assert std.shape == mean.shape == y.shape
    assert std.dtype == mean.dtype
    with pytest.raises(TypeError, match="return_std is 'yes'; expected"):
        pipe.predict(X, return_std="yes")


def test_single_passes_are_those_of_subnetworks():
    net = quick(BOTH[1]).fit(X, X[:, 0]).network_
    passes = net.subnetworks(5)
    mean = np.mean([passes[i].predict(X) for i in range(5)], axis=0)
    np.testing.assert_allclose(mean, passes.predict(X), rtol=1e-5, atol=1e-6)


def test_one_rate_for_all_layers_is_named_without_a_number():
    with pytest.raises(ValueError, match=r"^dropout is 1\.5; expected"):
        quick(dropout=1.5).fit(X, Y)
    with pytest.raises(ValueError, match=r"^dropout\[1\] is 1\.5; expected"):
        quick(dropout=[0.5, 1.5]).fit(X, Y)


def test_uncertainty_without_dropout_is_an_error():
    net = quick(dropout=0.0).fit(X, Y)
    number = quick(BOTH[1], dropout=0.0).fit(X, X[:, 0])
    for ask in (
        net.predict_uncertainty,
        lambda x: net.predict_proba(x, 10),
        lambda x: number.predict(x, return_std=True),
    ):
        with pytest.raises(ValueError, match="dropout"):
            ask(X)


# ---- Tools of scikit-learn -----------------------------------------------------------------


def test_model_selection_and_pipelines():
    net = quick(max_iter=60, dropout=0.1, learning_rate_init=0.01)
    pipeline = make_pipeline(StandardScaler(), net)
    search = GridSearchCV(
        pipeline, {"dropoutmlpclassifier__dropout": [0.0, 0.2]}, n_jobs=2, cv=2
    ).fit(X, Y)
    assert search.best_score_ > 0.6
    assert cross_val_score(pipeline, X, Y, cv=3).mean() > 0.6
    calibrated = CalibratedClassifierCV(net, cv=2).fit(X, Y)
    assert np.allclose(calibrated.predict_proba(X).sum(axis=1), 1)
    assert same(clone(net).fit(X, Y), net.fit(X, Y))


def test_frames_and_set_output():
    frame = pd.DataFrame(X, columns=list("abcd"))
    net = quick().fit(frame, pd.Series(Y))
    assert net.feature_names_in_.tolist() == list("abcd")
    assert same(net, quick().fit(X, Y))
    with pytest.raises(ValueError, match="feature names"):
        net.predict(frame[list("dcba")])
    scaled = make_column_transformer((StandardScaler(), ["a", "b"])).set_output(transform="pandas")
    model = make_pipeline(scaled, quick()).fit(frame, Y)
    assert model[-1].feature_names_in_.tolist() == ["standardscaler__a", "standardscaler__b"]
    net.fit(frame, Y, X_val=frame, y_val=Y)


def test_bars_on_terminals_and_lines_elsewhere(capsys, monkeypatch):
    quick(verbose=True, early_stopping=True, max_iter=2).fit(X, Y)
    out = capsys.readouterr().out
    assert "Iteration 1, loss = " in out
    assert "Validation score: " in out
    quick(verbose=True, tol=10.0, n_iter_no_change=1).fit(X, Y)
    assert "did not improve more than tol=10" in capsys.readouterr().out
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    quick(verbose=True, early_stopping=True).fit(X, Y)
    assert "0/5" in terminal.getvalue()
    assert "Iteration" not in capsys.readouterr().out


# ---- Files and pickles ---------------------------------------------------------------------


@pytest.mark.parametrize("estimator", BOTH)
@pytest.mark.parametrize(
    "settings",
    [
        {"early_stopping": True, "random_state": 5},
        {"learning_rate": Step(0.01, every=2), "dropout": [0.1, 0.2]},
        {"learning_rate": "plateau", "n_iter_no_change": np.inf, "hidden_layer_sizes": [4, 5]},
        {"random_state": np.random.RandomState(1), "max_norm": np.float64(2)},
        {"hidden_layer_sizes": range(4, 6)},
    ],
)
def test_a_loaded_estimator_resumes_bit_for_bit(estimator, settings, tmp_path):
    frame = pd.DataFrame(X, columns=list("abcd"))
    words = np.array(["a", "bb", "ccc"], object)[Y] if estimator is BOTH[0] else Y
    net = quick(estimator, warm_start=True, **settings).fit(frame, words)
    net.save(tmp_path / "net")
    for other in (cdrop.load(tmp_path / "net"), pickle.loads(pickle.dumps(net))):
        assert type(other) is estimator
        assert np.array_equal(other.predict(frame), net.predict(frame))
        assert other.validation_scores_ == net.validation_scores_
        assert other.feature_names_in_.tolist() == list("abcd")
        copy = pickle.loads(pickle.dumps(net)).fit(frame, words)
        assert same(other.fit(frame, words), copy)
        assert other.loss_curve_ == copy.loss_curve_


def test_an_unfitted_estimator_is_saved(tmp_path):
    for class_weight in (None, "balanced", {0: 1.5, 2: 3.0}, {"a": 1, "b": 2}):
        quick(class_weight=class_weight).save(tmp_path / "net")
        loaded = cdrop.load(tmp_path / "net")
        assert loaded.get_params() == quick(class_weight=class_weight).get_params()
        assert not hasattr(loaded, "coefs_")


def test_what_a_file_cannot_hold_is_reported(tmp_path):
    for name, value in (("random_state", object()), ("class_weight", {0: {1}})):
        with pytest.raises(TypeError, match=name):
            quick(**{name: value}).save(tmp_path / "net")
        assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"n_features_in_": 3},
        {"n_iter_": -1},
        {"t_": "many"},
        {"best_loss_": "low"},
        {"_stopped": 1},
        {"_multilabel": True},
        {"classes_": {"array": ["int64", [0, 1]]}},
        {"classes_": {"array": ["int64", [2, 1, 0]]}},
        {"classes_": {"array": ["void", [0, 1, 2]]}},
        {"classes_": {"array": ["int8", [0, 1, 300]]}},
        {"classes_": {"array": ["str", [0, 1, 2]]}},
        {"classes_": {"nonsense": 1}},
        {"classes_": {}},
        {"feature_names_in_": {"array": ["object", ["a"]]}},
        {"predict": 1},
    ],
)
def test_what_does_not_fit_is_refused(change):
    settings, arrays = quick().fit(X, Y)._to_parts()
    DropoutMLPClassifier._from_parts(settings, arrays)
    settings["fitted"] |= change
    with pytest.raises((TypeError, ValueError)):
        DropoutMLPClassifier._from_parts(settings, arrays)


def test_a_file_that_lacks_something_is_refused():
    settings, arrays = quick().fit(X, Y)._to_parts()
    for name in settings["fitted"]:
        fitted = {n: value for n, value in settings["fitted"].items() if n != name}
        with pytest.raises(KeyError, match=name):
            DropoutMLPClassifier._from_parts({**settings, "fitted": fitted}, arrays)


def test_a_file_without_classes_is_refused():
    settings, arrays = quick().fit(X, Y == 0)._to_parts()
    settings["fitted"]["classes_"] = {"array": ["int64", []]}
    with pytest.raises(ValueError, match="classes_"):
        DropoutMLPClassifier._from_parts(settings, arrays)


STATE = encode("random_state", np.random.RandomState(0))["RandomState"]["tuple"]


@pytest.mark.parametrize(
    "state",
    [
        *[[], {}, 3, {"tuple": STATE[:2]}, {"tuple": [*STATE, 1]}, {"tuple": []}],
        *[{"tuple": [*STATE[:2], at, *STATE[3:]]} for at in (-1, 625, 10**7, 2**40, 1.0, None)],
        *[{"tuple": ["MT19937", w, *STATE[2:]]} for w in (1, [], {"array": ["uint32", [1]]})],
        *[{"tuple": [*STATE[:3], *rest]} for rest in ([2, 0.0], ["", 0.0], [0, None], [0, 1])],
        {"tuple": ["PCG64", *STATE[1:]]},
        {"tuple": ["MT19937", {"array": ["int64", [0] * 624]}, *STATE[2:]]},
    ],
)
def test_a_generator_s_state_is_checked(state):
    """NumPy itself takes any place in its 624 words, and reads there."""
    decode("random_state", {"RandomState": {"tuple": STATE}})
    with pytest.raises((TypeError, ValueError)):
        decode("random_state", {"RandomState": state})


def test_strings_take_no_more_memory_than_their_file_allows():
    """NumPy gives each string the room of the longest: 300 KB of them could claim 80 GB."""
    names = [*map(str, range(99)), "x" * 999]
    with pytest.raises(ValueError, match="classes_ has one string far longer"):
        encode("classes_", np.array(names))
    assert decode("classes_", encode("classes_", np.array(names, object))).tolist() == names
    hostile = {"array": ["str", [*["a"] * 100_000, "x" * 100_000]]}
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="one string far longer"):
            decode("classes_", hostile)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


# ---- Next to scikit-learn -------------------------------------------------------------------


def test_digits_are_learned():
    x, y = load_digits(return_X_y=True)
    net = DropoutMLPClassifier((64,), dropout=0.2, max_iter=80, random_state=0)
    assert cross_val_score(net, x / 16, y, cv=3).mean() > 0.92


def test_no_hidden_layer_is_logistic_regression():
    settings = {"alpha": 1.0, "learning_rate_init": 0.05, "tol": 0, "random_state": 0}
    net = DropoutMLPClassifier((), max_iter=1000, n_iter_no_change=np.inf, **settings).fit(X, Y)
    other = LogisticRegression(C=1.0, tol=1e-8).fit(X, Y)
    assert np.allclose(net.predict_proba(X), other.predict_proba(X), atol=2e-3)
