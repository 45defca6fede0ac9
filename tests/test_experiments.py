"""Paired experiments: what is trained and shared, where runs take place, when they stop, what results hold."""

import json
import math
import os
import re
import signal
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
from comparisons import FakeTrainer, made_up, small_dataset, timeless
from conftest import problem

from cdrop import Network, optimizers, schedules
from cdrop.callbacks import Callback
from cdrop.experiments import open_ledger, paired_experiment
from cdrop.experiments.arms import parse_arms
from cdrop.experiments.statistics import plan_looks

FEATURES = small_dataset().to_features("float32")
TRAIN, TEST = (FEATURES.X_train, FEATURES.y_train), (FEATURES.X_test, FEATURES.y_test)
SHARED = {"hidden": (12, 8), "batch_size": 32, "iterations": 25}
ARMS = {
    "plain": SHARED,
    "light": {**SHARED, "dropout": 0.2},
    "wide": {**SHARED, "hidden": 20, "dropout": 0.5, "optimizer": "adam", "max_norm": 2.0},
}
RNG = np.random.default_rng(0)
X = RNG.standard_normal((150, 6)).astype(np.float32)
SCORES = X[:, 0] + X[:, 1] * X[:, 2]
Y = np.where(SCORES > 0.5, "high", np.where(SCORES > -0.5, "middle", "low"))
TINY = {"hidden": 6, "iterations": 20}


def experiment(arms=ARMS, **options):
    """Train on digits with a given test set."""
    options = {"repeats": 3, "seed": 5, "metric": "accuracy", **options}
    return paired_experiment(arms, *TRAIN, test_data=TEST, **options)


def on_splits(arms=None, y=Y, **options):
    """Train on 150 rows of 6 numbers, split in each repeat."""
    arms = {"a": TINY, "b": {**TINY, "dropout": 0.5}} if arms is None else arms
    return paired_experiment(arms, X, y, **{"repeats": 3, **options})


@pytest.fixture(scope="module")
def alone():
    """The result of the runs one after the other, in this process."""
    return timeless(experiment(curve_every=10))


# ---- What is trained ---------------------------------------------------------------------------


def test_a_run_is_network_and_fit():
    arm = experiment(curve_every=10).arms["wide"]
    for repeat, seed in enumerate((5, 6, 7)):
        net = Network([784, 20, 10], dropout=0.5, seed=seed)
        trial = arm.trials[repeat]
        for iterations in (10, 10, 5):
            net.fit(*TRAIN, optimizer="adam", max_norm=2.0, batch_size=32, iterations=iterations)
            number = arm.iterations.index(net.history.iterations)
            seen = net.evaluate(*TEST)
            assert trial.test_score[number] == seen.score
            assert trial.test_loss[number] == seen.loss
            assert trial.loss[number] == net.history.loss[-1]
        np.testing.assert_array_equal(trial.rows, net.predict(TEST[0]) == TEST[1])
        assert trial.scores["log_loss"] == pytest.approx(net.evaluate(*TEST).loss, rel=1e-6)
    assert arm.iterations == [10, 20, 25]
    assert arm.score == [trial.test_score[-1] for trial in arm.trials]


def test_arms_share_weights_and_minibatches():
    trainer = FakeTrainer()
    experiment(repeats=2, network=trainer)
    assert [(call["seed"], call["units"]) for call in trainer.calls] == [
        (seed, [784, *hidden, 10]) for seed in (5, 6) for hidden in ((12, 8), (12, 8), (20,))
    ]
    assert all(call["X"] is trainer.calls[0]["X"] for call in trainer.calls)
    same = experiment({"a": SHARED, "b": {**SHARED, "dropout": 0.0}})
    assert same.arms["a"].curves("loss") == same.arms["b"].curves("loss")
    assert same.contrasts()[0].score.estimate == 0.0
    assert same.contrasts()[0].verdict == "not decided"


def test_arms_share_the_split_of_a_repeat():
    trainer = FakeTrainer()
    on_splits(network=trainer, metric="accuracy")
    for a, b in zip(trainer.calls[::2], trainer.calls[1::2], strict=True):
        for part in ("X", "y", "X_test", "y_test"):
            np.testing.assert_array_equal(a[part], b[part])
    assert len({call["X_test"].tobytes() for call in trainer.calls}) == 3


def test_epochs_optimizers_and_schedules_are_settings():
    rule = optimizers.Momentum(momentum=0.9, start=0.5, ramp=10)
    arm = {"hidden": 8, "epochs": 3, "batch_size": 100, "optimizer": rule}
    result = experiment(
        {"fixed": arm, "cosine": {**arm, "learning_rate": schedules.Cosine(0.1, 3)}},
        curve_every=3,
        repeats=1,
    )
    assert result.arms["fixed"].iterations == [3, 6, 9]
    (settings,) = json.loads(json.dumps(result.to_dict()))["arms"]["cosine"]["candidates"]
    assert settings["optimizer"]["name"] == "momentum"
    assert settings["learning_rate"]["name"] == "cosine"
    assert result.arms["fixed"].curves("loss") != result.arms["cosine"].curves("loss")


def test_several_labels_at_once():
    both = np.column_stack([SCORES > 0, X[:, 3] > 0]).astype(float)
    arm = {"hidden": 16, "iterations": 200, "loss": "sigmoid_cross_entropy"}
    result = on_splits({"a": arm, "b": {**arm, "dropout": 0.5}}, both, repeats=2)
    assert (result.task, result.metric.name) == ("multilabel", "log_loss")
    assert result.arms["a"].scores("accuracy") > result.baseline["accuracy"]


def test_parameters_of_estimators_hide_neither_class_nor_run(tmp_path):
    multiclass = pytest.importorskip("sklearn.multiclass")
    dummy = pytest.importorskip("sklearn.dummy")

    class Long(dummy.DummyClassifier):
        def __init__(self, iterations=None):
            super().__init__()
            self.iterations = iterations

    arms = {"ovo": multiclass.OneVsOneClassifier(Long()), "long": Long()}
    ledger = open_ledger(tmp_path / "kept")
    result = on_splits(arms, ledger=ledger, repeats=1, metric="accuracy")
    settings = result.arms["ovo"].candidates[0]
    assert settings["estimator"] == "sklearn.multiclass.OneVsOneClassifier"
    assert settings["base estimator"] == "Long()"


def test_settings_may_be_arrays(tmp_path):
    ledger = open_ledger(tmp_path / "kept")
    arms = {"a": {**TINY, "dropout": np.array([0.5])}, "b": {**TINY, "dropout": (np.float32(0.5),)}}
    result = on_splits(arms, ledger=ledger, repeats=1)
    assert [a.candidates[0]["dropout"] for a in result.arms.values()] == [[0.5], [0.5]]


@pytest.mark.parametrize("y", [SCORES, np.column_stack([SCORES > 0, SCORES > 1]).astype(int)])
def test_classifiers_of_numbers_are_refused(y):
    pytest.importorskip("sklearn")
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.pipeline import make_pipeline

    on_splits({"a": DummyRegressor()}, y, repeats=1)
    with pytest.raises(ValueError, match=r"arms\['b'\] is a classifier, and y is taken as numbers"):
        on_splits({"a": DummyRegressor(), "b": [make_pipeline(DummyClassifier())]}, y)


@pytest.mark.parametrize("labels", [1, 2])
def test_estimators_of_several_labels_score_as_by_hand(labels):
    ensemble = pytest.importorskip("sklearn.ensemble")
    y = np.column_stack([SCORES > 0, X[:, 3] > 0]).astype(int)[:, :labels]
    network = {"hidden": 4, "iterations": 5, "loss": "sigmoid_cross_entropy"}
    forest = ensemble.RandomForestClassifier(9, max_depth=3)
    rows = X[:100], y[:100]
    result = paired_experiment(
        {"a": network, "b": forest}, *rows, test_data=(X[100:], y[100:]), repeats=1
    )
    forest = ensemble.RandomForestClassifier(9, max_depth=3, random_state=0)
    p = forest.fit(X[:100], y[:100].squeeze()).predict_proba(X[100:])
    p = np.column_stack([part[:, 1] for part in ([p] if labels == 1 else p)])
    loss = -np.log(np.where(y[100:] == 1, p, 1 - p)).sum(axis=1).mean()
    assert result.arms["b"].scores("log_loss") == [pytest.approx(loss)]
    right = ((p > 0.5) == y[100:]).all(axis=1).mean()
    assert result.arms["b"].scores("accuracy") == [pytest.approx(right)]


# ---- Regression --------------------------------------------------------------------------------


def test_numbers_are_predicted_in_their_units():
    y = 1000.0 + 50 * (X @ np.arange(6.0))
    arm = {"hidden": 16, "iterations": 300, "learning_rate": 0.01}
    result = on_splits({"a": arm, "b": {**arm, "dropout": 0.5}}, y, repeats=2)
    assert (result.task, result.metric.name) == ("regression", "rmse")
    rmse, r2 = result.arms["a"].score, result.arms["a"].scores("r2")
    assert min(r2) > 0.95
    spread = np.std(y)
    assert all(0 < error < 0.4 * spread for error in rmse)
    assert min(result.baseline["rmse"]) > 0.8 * spread
    # Errors with dropout are larger: that the smaller error is the better one, the verdict knows.
    assert result.contrasts()[0].score.estimate > 0
    assert result.contrasts()[0].verdict != "better"


def test_targets_are_standardized_by_the_rows_that_train():
    y = np.exp(3 * X[:, 0]) * 100

    class Predicts(FakeTrainer):
        def __call__(self, units, **options):
            net = super().__call__(units, **options)
            net.predict = lambda rows: np.zeros((len(rows), 1))
            return net

    trainer = Predicts()
    result = on_splits({"a": TINY}, y, network=trainer, repeats=2)
    for repeat, call in enumerate(trainer.calls):
        assert call["y"].mean() == pytest.approx(0, abs=1e-12)
        assert call["y"].std() == pytest.approx(1)
        # A network that predicts 0 predicts the mean of the rows it trained on: the baseline.
        for name in ("rmse", "mae", "r2"):
            expected = result.baseline[name][repeat]
            assert result.arms["a"].scores(name)[repeat] == pytest.approx(expected, rel=1e-12)


def test_a_target_that_is_constant_in_training_rows_is_not_scaled():
    y = np.full(150, 7.0)
    y[-20:] = np.linspace(0.5, 30, 20)
    folds = [(np.arange(130), np.arange(130, 150))]
    result = on_splits({"a": TINY}, y, task="regression", cv=folds, repeats=1)
    assert all(math.isfinite(score) for score in result.arms["a"].score)


def test_several_numbers_per_row():
    y = X @ np.random.default_rng(1).standard_normal((6, 2)) * [1.0, 1e4]
    arm = {"hidden": 16, "iterations": 300, "learning_rate": 0.01}
    result = on_splits({"a": arm}, y, repeats=2)
    assert min(result.arms["a"].scores("r2")) > 0.9


# ---- Estimators --------------------------------------------------------------------------------


class Spy:
    """A scikit-learn estimator that records how it was used; it predicts the class that its `guess` says."""

    log: ClassVar[list] = []

    def __init__(self, guess=0, random_state=None):
        self.guess, self.random_state = guess, random_state

    def get_params(self, deep=True):
        return {"guess": self.guess, "random_state": self.random_state}

    def set_params(self, **params):
        vars(self).update(params)
        return self

    def __sklearn_clone__(self):
        return Spy(**self.get_params())

    def fit(self, X, y):
        self.log.append((self.guess, self.random_state, X, y))
        self.classes_, self.fitted_ = np.unique(y), True
        return self

    def predict(self, X):
        return np.full(len(X), self.guess)


@pytest.fixture
def spy(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(Spy, "log", [])
    return Spy


def test_estimators_are_cloned_and_get_the_seed_of_the_repeat(spy):
    given = spy()
    result = on_splits({"spy": given, "net": TINY}, metric="accuracy", seed=2**31 + 4)
    assert not hasattr(given, "fitted_")
    assert given.random_state is None
    assert [seed for _, seed, _, _ in spy.log] == [4, 5, 6]
    assert all(rows.shape == (120, 6) for _, _, rows, _ in spy.log)  # validation rows train too
    assert result.arms["spy"].candidates[0]["guess"] == 0
    assert not result.arms["spy"].has_curves
    trial = result.arms["spy"].trials[0]
    assert (trial.iterations, trial.loss) == ([], [])
    assert set(trial.scores) == {"accuracy", "balanced_accuracy"}
    assert math.isnan(result.arms["spy"].scores("log_loss")[0])
    assert result.to_dict()["arms"]["spy"]["test_log_loss"] == [None] * 3


def test_nested_random_states_are_set_too():
    pytest.importorskip("sklearn")
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), SGDClassifier(max_iter=3, tol=None))
    result = on_splits({"sgd": pipeline}, metric="accuracy")
    again = on_splits({"sgd": pipeline}, metric="accuracy")
    assert timeless(result) == timeless(again)
    assert pipeline[-1].random_state is None


def test_an_estimator_scores_as_by_hand():
    pytest.importorskip("sklearn")
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import balanced_accuracy_score, log_loss

    model = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=5)
    trainer = FakeTrainer()
    options = {"network": trainer, "seed": 3, "repeats": 2}
    result = on_splits({"trees": model, "net": TINY}, **options)
    codes = np.unique(Y, return_inverse=True)[1]
    for repeat, call in enumerate(trainer.calls):
        model.set_params(random_state=3 + repeat).fit(call["X"], call["y"])
        p = model.predict_proba(call["X_test"])
        trial = result.arms["trees"].trials[repeat]
        assert trial.scores["log_loss"] == pytest.approx(log_loss(call["y_test"], p))
        right = balanced_accuracy_score(call["y_test"], model.predict(call["X_test"]))
        assert trial.scores["balanced_accuracy"] == pytest.approx(right)
        assert set(codes) == set(call["y_test"])


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_cdrops_own_estimators_and_numbers():
    pytest.importorskip("sklearn")
    from cdrop.estimators import DropoutMLPClassifier, DropoutMLPRegressor

    classifier = DropoutMLPClassifier(hidden_layer_sizes=(6,), max_iter=3)
    assert on_splits({"own": classifier, "net": TINY}, repeats=1).complete
    regressor = DropoutMLPRegressor(hidden_layer_sizes=(6,), max_iter=3)
    assert on_splits({"own": regressor}, SCORES.astype(float), repeats=1).task == "regression"


def test_lightgbm():
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1)
    result = on_splits({"trees": model, "net": TINY}, seed=2**40)
    assert result.complete
    assert min(result.arms["trees"].scores("accuracy")) > 0.3


def test_a_metric_of_probabilities_needs_them(spy):
    with pytest.raises(
        ValueError, match=r"metric is 'log_loss', and arms\['spy'\] has no predict_pr"
    ):
        on_splits({"net": TINY, "spy": spy()})


def test_a_class_absent_from_the_training_rows_has_probability_0():
    pytest.importorskip("sklearn")
    from sklearn.naive_bayes import GaussianNB

    rare = np.where(np.arange(150) == 0, "rare", Y)
    folds = [(np.arange(1, 120), np.r_[0, np.arange(120, 150)])]
    result = on_splits({"bayes": GaussianNB(), "net": TINY}, rare, cv=folds, repeats=1)
    bayes = result.arms["bayes"].trials[0]
    assert bayes.rows.shape == (31,)
    eps = np.finfo(float).eps
    assert bayes.rows[0] == pytest.approx(-math.log(eps))
    assert bayes.rows[1:].max() < bayes.rows[0]
    assert result.baseline["log_loss"][0] > -math.log(eps) / 31


# ---- Choices inside the split -------------------------------------------------------------------


def test_the_candidate_that_is_best_on_validation_rows_is_tested(spy):
    y = np.r_[np.full(90, "common"), np.full(40, "seldom"), np.full(20, "rare")]
    guesses = [spy(2), spy(0), spy(1)]  # classes in alphabetical order: common, rare, seldom
    result = on_splits({"chosen": guesses, "one": spy(0)}, y, metric="accuracy")
    assert result.arms["chosen"].chosen == [1, 1, 1]
    assert result.arms["chosen"].score == result.arms["one"].score
    sizes = {len(rows) for guess, _, rows, _ in spy.log}
    assert sizes == {96, 120}  # without the validation rows where these choose, with them elsewhere


def test_equal_candidates_leave_the_first(spy):
    assert on_splits({"a": [spy(0), spy(0)]}, metric="accuracy").arms["a"].chosen == [0, 0, 0]


@pytest.mark.parametrize("tested", [1, 2])
def test_test_rows_choose_nothing(spy, tested):
    """Class 0 is the commonest in all rows but the test rows, which are all of another class."""
    y = np.r_[np.resize([0, 0, 1, 0, 0, 2], 110), np.full(40, tested)]
    folds = [(np.arange(110), np.arange(110, 150))] * 2
    result = on_splits({"a": [spy(2), spy(1), spy(0)]}, y, cv=folds, repeats=2, metric="accuracy")
    assert result.arms["a"].chosen == [2, 2]
    assert result.arms["a"].score == [0.0, 0.0]


def test_test_rows_train_nothing():
    folds = [(np.arange(110), np.arange(110, 150))] * 2
    rates = [{"hidden": 12, "epochs": 30, "patience": 2, "dropout": r} for r in (0.9, 0.5, 0.0)]
    other = Y.copy()
    other[110:] = np.random.default_rng(3).permutation(Y[110:])
    results = [on_splits({"a": rates}, y, cv=folds, repeats=2) for y in (Y, other)]
    first, second = (result.arms["a"] for result in results)
    assert first.chosen == second.chosen
    assert 0 not in first.chosen
    assert first.curves("loss") == second.curves("loss")
    assert first.score != second.score


def test_early_stopping_keeps_the_best_weights():
    losses = []

    class Watch(Callback):
        def on_epoch_end(self, net, epoch):
            losses.append((epoch.validation_loss, net.coefs_))

    arm = {"hidden": 30, "epochs": 60, "patience": 4, "batch_size": 16, "learning_rate": 0.01}
    made = []

    def network(units, **options):
        made.append(Network(units, **options))
        return made[-1]

    result = on_splits({"a": arm}, repeats=1, callbacks=[Watch()], network=network)
    best = min(range(len(losses)), key=lambda i: losses[i][0])
    assert 4 < len(losses) == best + 1 + 4 < 60
    for kept, expected in zip(made[0].coefs_, losses[best][1], strict=True):
        np.testing.assert_array_equal(kept, expected)
    (trial,) = result.arms["a"].trials
    assert trial.test_loss[-1] == pytest.approx(trial.scores["log_loss"], rel=1e-6)
    assert result.arms["a"].candidates == [{**arm, "hidden": [30]}]


def test_validation_rows_train_where_nothing_uses_them():
    trainer = FakeTrainer()
    on_splits({"a": TINY}, network=trainer, repeats=1, metric="accuracy")
    assert len(trainer.calls[0]["X"]) == 120
    stops = {"hidden": 6, "epochs": 3, "patience": 2}
    sizes = []

    def network(units, **options):
        net = Network(units, **options)
        net.fit, fit = lambda X, y, **o: sizes.append(len(X)) or fit(X, y, **o), net.fit
        return net

    result = on_splits({"a": TINY, "b": [TINY, TINY], "c": stops}, network=network, repeats=1)
    assert sizes == [120, 96, 96, 96]
    assert (result.data["train"], result.data["test"]) == (120, 30)


def test_a_candidate_that_diverges_loses():
    bad = {**TINY, "learning_rate": 1e30, "iterations": 50}
    result = on_splits({"a": [bad, TINY]})
    assert result.arms["a"].chosen == [1, 1, 1]
    stopped = on_splits({"a": [bad, bad]}).stopped
    assert stopped.startswith("every candidate of arms['a'] diverged: ")


def test_candidates_are_shown_and_counted():
    pytest.importorskip("sklearn")
    from sklearn.dummy import DummyClassifier

    result = on_splits({"a": [TINY, DummyClassifier(strategy="prior")]})
    plain = result.to_dict()["arms"]["a"]
    assert plain["candidates"][0] == {"hidden": [6], "iterations": 20}
    assert plain["candidates"][1]["estimator"] == "sklearn.dummy.DummyClassifier"
    assert plain["chosen"] == result.arms["a"].chosen


# ---- Mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({}, "arms is {}; expected a mapping of one or more names"),
        ([TINY], "arms is .*; expected a mapping"),
        ({1: TINY}, "arms has the name 1; expected a str"),
        ({"a": []}, r"arms\['a'\] is empty; expected at least one candidate"),
        ({"a": 3}, r"arms\['a'\] is 3; expected a mapping of settings, a scikit-learn estimator"),
        ({"a": [TINY, None]}, r"arms\['a'\]\[1\] is None; expected a mapping"),
        ({"a": {"hiden": 3}}, r"arms\['a'\] has 'hiden'; expected some of hidden, patience"),
        ({"a": {"seed": 3}}, r"arms\['a'\] has 'seed'"),
        ({"a": {"hidden": 0}}, r"arms\['a'\] hidden is 0"),
        ({"a": {"hidden": "8"}}, r"arms\['a'\] hidden is '8'"),
        ({"a": {"epochs": 9, "patience": 0}}, r"arms\['a'\] patience is 0"),
        ({"a": {"iterations": 9, "patience": 2}}, r"arms\['a'\] has patience 2 without epochs"),
        ({"a": Spy}, r"arms\['a'\] is <class .*Spy'>; expected a mapping"),
    ],
)
def test_arms_of_other_kinds_are_refused(arms, message):
    with pytest.raises((TypeError, ValueError), match=message):
        parse_arms(arms)


@pytest.mark.parametrize("where", ["X", "test_data[0]"])
def test_rows_and_targets_in_one_tuple_are_refused_with_the_right_way(where):
    given = {"X": X, "y": Y, "test_data": (X, Y)}
    given |= {"X": (X, Y)} if where == "X" else {"test_data": ((X, Y), Y)}
    with pytest.raises(TypeError, match=rf"^{re.escape(where)} is a tuple, .*as `y`.*`test_data`$"):
        paired_experiment(ARMS, **given)


def test_what_a_network_refuses_is_raised():
    with pytest.raises(ValueError, match="dropout"):
        on_splits({"a": {**TINY, "dropout": 1.5}})
    with pytest.raises(ValueError, match="no such optimizer"):
        experiment(network=FakeTrainer(fault=ValueError("no such optimizer"), fault_at=0))


def test_callbacks_need_runs_in_this_process():
    pytest.importorskip("joblib")
    with pytest.raises(ValueError, match="callbacks is not empty, and 2 runs take place at a time"):
        experiment(n_jobs=2, callbacks=[Slow()])


def test_a_callback_must_not_end_a_run():
    class Stops(Callback):
        def on_iteration(self, net, iteration, loss):
            return iteration == 7

    with pytest.raises(ValueError, match="a callback ended a run after 7 of 25 iterations"):
        experiment(callbacks=[Stops()])


# ---- Where it stops ----------------------------------------------------------------------------


class Slow(Callback):
    def on_iteration(self, net, iteration, loss):
        time.sleep(0.02)


def test_the_time_limit_stops_within_a_run():
    begin = time.monotonic()
    result = experiment(repeats=50, time_limit=0.7, callbacks=[Slow()])
    assert result.stopped == "time limit"
    assert time.monotonic() - begin < 4
    assert 0 < len(result.repeats) < 50 or not result.repeats
    assert not result.complete
    assert experiment(repeats=1, time_limit=60).complete


@pytest.mark.parametrize(
    ("number", "finished"), [(0, []), (2, []), (3, [0]), (5, [0]), (6, [0, 1])]
)
def test_only_repeats_whose_runs_are_all_done_count(number, finished):
    result = experiment(network=FakeTrainer(fault=KeyboardInterrupt, fault_at=number))
    assert (result.stopped, result.complete, result.repeats) == ("interrupted", False, finished)
    assert [len(arm.score) for arm in result.arms.values()] == [len(finished)] * 3
    assert len(result.trials) == number
    plain = result.to_dict()
    assert plain["seeds"] == [5 + repeat for repeat in finished]
    assert (plain["repeats_asked"], plain["repeats_done"]) == (3, len(finished))


def test_ctrl_c_in_the_report_of_a_run_keeps_that_run():
    def interrupt(run):
        if (run.repeat, run.arm) == (1, "wide"):
            raise KeyboardInterrupt

    result = experiment(network=FakeTrainer(), on_trial=interrupt)
    assert (result.stopped, result.repeats) == ("interrupted", [0, 1])


def test_training_that_diverges_keeps_the_finished_repeats():
    trainer = FakeTrainer(fault=FloatingPointError("the loss of step 7 is not finite"), fault_at=4)
    result = experiment(network=trainer)
    assert (result.stopped, result.repeats) == (
        "arms['light'] with seed 6: the loss of step 7 is not finite",
        [0],
    )


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_rows_that_overflow_end_no_experiment(task):
    x, y = problem([4, 3], rows=60)
    y, metric = (y, "log_loss") if task == "classification" else (x[:, 0] * 1.5, "rmse")
    wide = x[:20].copy()
    wide[3] = np.finfo("float32").max
    arms = {name: {"iterations": 5} for name in "ab"}
    with np.errstate(all="ignore"):
        result = paired_experiment(arms, x, y, test_data=(wide, y[:20]), repeats=2)
    assert len(result.trials) == 4
    assert not any(np.isfinite(trial.scores[metric]) for trial in result.trials)


def test_on_begin_has_everything_but_repeats():
    seen = []

    def begin(result):
        seen.append((list(result.arms), result.asked, result.repeats, result.condition))

    experiment(network=FakeTrainer(), on_begin=begin)
    on_splits(network=FakeTrainer(), on_begin=begin, metric="accuracy")
    assert seen[0][:3] == (["plain", "light", "wide"], 3, [])
    assert [condition for *_, condition in seen] == [
        "for this training set, over seeds and test rows",
        "over 3 splits of these data",
    ]


# ---- Until decided -----------------------------------------------------------------------------


def decisive(gap):
    """A network whose second arm is better by `gap` and a little noise."""
    return FakeTrainer(
        accuracy=lambda seed, dropout: (
            0.6 + 0.04 * (seed % 3) + (gap + 0.02 * (seed % 2)) * (dropout > 0)
        )
    )


def test_an_experiment_stops_at_the_first_look_that_decides():
    pytest.importorskip("scipy")
    options = {"metric": "accuracy", "repeats": 20, "until_decided": True, "test_size": 50}
    result = on_splits(network=decisive(0.2), **options)
    looks = plan_looks(20)
    assert result.decided_at == looks[0].repeats == len(result.repeats) < 20
    assert result.alpha == looks[0].alpha < 0.05
    assert (result.asked, result.complete, result.stopped) == (20, True, None)
    assert result.contrasts()[0].verdict == "better"
    level = result.to_dict()["alpha"]
    assert level == looks[0].alpha

    undecided = on_splits(
        network=FakeTrainer(accuracy=lambda seed, d: 0.6 + 0.04 * (seed % 3)), **options
    )
    assert (undecided.decided_at, len(undecided.repeats)) == (None, 20)
    assert undecided.alpha == looks[-1].alpha
    assert undecided.complete


def test_all_contrasts_must_be_decided():
    pytest.importorskip("scipy")
    arms = {"a": TINY, "b": {**TINY, "dropout": 0.5}, "c": {**TINY, "dropout": 0.1}}
    rates = {
        0.0: lambda seed: 0.0,
        0.5: lambda seed: 0.2 + 0.02 * (seed % 2),
        0.1: lambda seed: 0.02 * (seed % 2),
    }
    network = FakeTrainer(lambda seed, dropout: 0.6 + 0.04 * (seed % 3) + rates[dropout](seed))
    options = {"metric": "accuracy", "repeats": 10, "until_decided": True, "test_size": 50}
    result = on_splits(arms, network=network, **options)
    assert [contrast.verdict for contrast in result.contrasts()] == ["better", "not decided"]
    assert (result.decided_at, len(result.repeats)) == (None, 10)


def test_numbers_are_those_of_a_prefix_of_a_longer_experiment(tmp_path):
    pytest.importorskip("scipy")
    options = {"metric": "accuracy", "repeats": 20, "test_size": 50}
    longer = on_splits(network=decisive(0.2), ledger=open_ledger(tmp_path / "kept"), **options)
    short = on_splits(network=decisive(0.2), until_decided=True, **options)
    for name, arm in short.arms.items():
        assert arm.score == longer.arms[name].score[: len(short.repeats)]
    # Runs of later repeats that a ledger has do not count at an earlier look.
    kept = open_ledger(tmp_path / "kept", resume=True)
    resumed = on_splits(network=decisive(0.2), until_decided=True, ledger=kept, **options)
    assert timeless(resumed) == timeless(short)


# ---- Results -----------------------------------------------------------------------------------


def test_contrasts_are_paired_and_corrected_by_holm():
    pytest.importorskip("scipy")
    base = [0.1, 0.5, 0.3, 0.9]
    result = made_up(
        base=base,
        near=[b + d for b, d in zip(base, (0.01, 0.0, 0.02, 0.02), strict=True)],
        far=[b + d for b, d in zip(base, (0.1, 0.11, 0.1, 0.09), strict=True)],
    )
    near, far = result.contrasts()
    assert (near.first, near.second, far.second) == ("base", "near", "far")
    assert near.score.estimate == pytest.approx(0.0125)
    assert far.p_holm == pytest.approx(2 * far.score.p_value)
    assert near.p_holm == pytest.approx(max(near.score.p_value, far.p_holm))
    assert (near.verdict, far.verdict) == ("not decided", "better")
    assert [c.first for c in result.contrasts("far")] == ["far", "far"]
    assert result.contrasts("far")[0].verdict == "worse"
    with pytest.raises(
        ValueError, match="baseline is 'none'; expected one of 'base', 'near', 'far'"
    ):
        result.contrasts("none")


def test_holm_may_take_a_verdict_away():
    pytest.importorskip("scipy")
    base = [0.1, 0.5, 0.3, 0.9, 0.2]
    shifted = [b + d for b, d in zip(base, (0.02, 0.01, 0.03, 0.0, 0.03), strict=True)]
    (alone,) = made_up(base=base, near=shifted).contrasts()
    assert 0.025 < alone.score.p_value < 0.05
    assert alone.verdict == "better"
    other = [b + d for b, d in zip(base, (0.0, 0.05, -0.05, 0.01, -0.02), strict=True)]
    near = made_up(base=base, near=shifted, other=other).contrasts()[0]
    assert near.score.p_value == alone.score.p_value
    assert near.verdict == "not decided"


@pytest.mark.parametrize(
    ("shift", "margin", "verdict"),
    [
        (0.1, 0.0, "better"),
        (-0.1, 0.0, "worse"),
        (0.1, 0.2, "no difference that matters"),
        (0.001, 0.0, "not decided"),
    ],
)
def test_four_verdicts(shift, margin, verdict):
    pytest.importorskip("scipy")
    base = np.linspace(0.4, 0.6, 12)
    second = base + shift + 0.01 * np.random.default_rng(0).standard_normal(12)
    for metric, sign in (("accuracy", 1), ("log_loss", -1)):
        scores = {"a": sign * base, "b": sign * second}
        (contrast,) = made_up(metric, 0.25, margin=margin, **scores).contrasts()
        assert contrast.verdict == verdict
        assert contrast.score.test == "corrected resampled t-test"


def test_splits_widen_the_interval():
    pytest.importorskip("scipy")
    rng = np.random.default_rng(2)
    scores = {"a": rng.random(10), "b": rng.random(10)}
    seeds, splits = (made_up(ratio=ratio, **scores).contrasts()[0].score for ratio in (None, 0.25))
    width = [interval[1] - interval[0] for interval in (seeds.interval, splits.interval)]
    assert width[1] == pytest.approx(width[0] * math.sqrt((0.1 + 0.25) / 0.1))


def test_a_given_test_set_is_judged_over_its_rows_too():
    pytest.importorskip("scipy")
    result = experiment(
        network=FakeTrainer(lambda seed, dropout: 0.8 + 0.01 * seed + 0.1 * dropout)
    )
    score = result.contrasts()[1].score
    assert "test rows" in score.test
    assert "not covered" not in score.test
    pytest.importorskip("sklearn")
    custom = experiment(network=FakeTrainer(), metric="f1_macro")
    assert "not covered" in custom.contrasts()[0].score.test
    assert custom.condition == "for this training set, over seeds, with these test rows"


def test_results_are_plain(alone):
    plain = json.loads(alone)
    assert plain["repeats"] == [0, 1, 2]
    assert plain["seeds"] == [5, 6, 7]
    assert np.shape(plain["arms"]["light"]["loss"]) == (3, 3)
    assert np.shape(plain["arms"]["light"]["test_loss_curve"]) == (3, 3)
    assert len(plain["arms"]["light"]["test_accuracy"]) == 3
    assert plain["arms"]["light"]["mean_test_accuracy"] == pytest.approx(
        np.mean(plain["arms"]["light"]["test_accuracy"])
    )
    assert plain["arms"]["wide"]["candidates"][0]["hidden"] == [20]
    assert [c["second"] for c in plain["contrasts"]] == ["light", "wide"]
    assert (plain["data"]["train"], plain["data"]["test"]) == (300, 100)
    assert len(plain["baseline"]["accuracy"]) == 3


def test_curves_are_named_for_what_they_are():
    plain = on_splits({"a": {**TINY, "iterations": 20}}, curve_every=10).to_dict()["arms"]["a"]
    assert plain["test_log_loss"] == pytest.approx(
        [curve[-1] for curve in plain["test_loss_curve"]]
    )
    scores = [curve[-1] for curve in plain["test_accuracy_curve"]]
    assert scores == pytest.approx(plain["test_accuracy"])


def test_numbers_that_json_lacks_become_null():
    result = made_up(a=[math.nan, 0.5, math.inf], b=[0.5, 0.6, 0.7], loss=[[[math.nan]] * 3] * 2)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["arms"]["a"]["test_accuracy"] == [None, 0.5, None]
    assert plain["arms"]["a"]["loss"] == [[None]] * 3
    assert plain["contrasts"][0]["score"]["estimate"] is None
    assert plain["contrasts"][0]["verdict"] == "not decided"


def test_numpy_numbers_of_the_caller_are_ready_for_json():
    about = {"n": np.int64(3), "share": np.float32(0.5), "list": np.arange(2)}
    plain = json.loads(json.dumps(on_splits(repeats=1, about=about).to_dict(), allow_nan=False))
    assert {name: plain["data"][name] for name in about} == {"n": 3, "share": 0.5, "list": [0, 1]}


def test_a_single_arm_has_scores_and_nothing_to_decide():
    arms = {"only": {"hidden": (4,), "iterations": 3}}
    result = paired_experiment(arms, X, Y, repeats=2)
    assert len(result.arms["only"].score) == 2
    assert result.contrasts() == []
    with pytest.raises(
        ValueError, match="^until_decided is True, and arms has the name 'only' alone"
    ):
        paired_experiment(arms, X, Y, until_decided=True)


def test_repr_is_one_short_line():
    result = experiment(network=FakeTrainer(), repeats=2)
    assert repr(result) == "<ExperimentResult: 'plain', 'light', 'wide'; 2 repeats, accuracy>"
    result.stopped = "interrupted"
    assert repr(result).endswith("accuracy, stopped='interrupted'>")


def test_a_sweep_is_one_setting_that_differs():
    def sweep(*settings):
        result = made_up(**{f"arm{i}": [0.5, 0.6] for i in range(len(settings))})
        for arm, one in zip(result.arms.values(), settings, strict=True):
            arm.candidates = one if isinstance(one, list) else [one]
        return result.sweep()

    rates = [{"dropout": rate, "l2": 0.1} for rate in (0.5, 0.0, 0.2)]
    assert sweep(*rates) == ("dropout", {0.0: "arm1", 0.2: "arm2", 0.5: "arm0"})
    assert sweep(*rates[:2]) is None
    assert sweep(*rates, {"dropout": 0.3, "l2": 0.2}) is None
    assert sweep(*rates, {"l2": 0.1}) is None
    assert sweep(*rates, [rates[0], rates[1]]) is None
    assert sweep(*({"activation": name} for name in ("relu", "tanh", "elu"))) is None


def test_curves_are_of_iterations_that_all_repeats_have():
    result = made_up(a=[0.5, 0.6], loss=[[[3.0, 2.0, 1.0], [5.0, 4.0]]])
    arm = result.arms["a"]
    assert arm.iterations == [100, 200]
    assert arm.curves("loss") == [[3.0, 2.0], [5.0, 4.0]]
    means, deviations = arm.curve("loss")
    assert means == [4.0, 3.0]
    assert deviations == pytest.approx([math.sqrt(2)] * 2)
    with pytest.raises(ValueError, match="name is 'rows'; expected one of 'loss'"):
        arm.curve("rows")


# ---- Where it runs -----------------------------------------------------------------------------


def mixed():
    """Networks and an estimator as arms."""
    from sklearn.tree import DecisionTreeClassifier

    return {**ARMS, "tree": DecisionTreeClassifier(max_depth=3)}


@pytest.fixture(scope="module")
def mixed_alone():
    pytest.importorskip("sklearn")
    return timeless(experiment(mixed(), curve_every=10))


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_other_processes_and_threads_make_the_same(backend, mixed_alone, tmp_path):
    joblib = pytest.importorskip("joblib")
    kept, seen = open_ledger(tmp_path / "kept"), []
    with joblib.parallel_config(backend=backend, n_jobs=2):
        result = experiment(mixed(), curve_every=10, ledger=kept, on_trial=seen.append)
    assert timeless(result) == mixed_alone
    assert result.machine["jobs"] == 2
    assert result.machine["threads"] == 1
    assert len(kept.trials) == len(seen) == 12
    assert len(open_ledger(tmp_path / "kept", resume=True).trials) == 12


def test_splits_in_other_processes_are_the_same():
    pytest.importorskip("joblib")
    assert timeless(on_splits(n_jobs=2)) == timeless(on_splits())


def test_a_run_that_diverges_elsewhere_is_reported():
    pytest.importorskip("joblib")
    result = experiment({"a": SHARED, "b": {**SHARED, "learning_rate": 1e30}}, n_jobs=2)
    assert "is not finite" in result.stopped or "NaN" in result.stopped, result.stopped


def test_without_joblib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r"pip install 'cdrop\[parallel\]'"):
        experiment(n_jobs=2)


class KillsItsWorker:
    """Stands for `Network`: the first to be made for seed 6 kills its process."""

    def __init__(self, flag):
        self.flag = flag

    def __call__(self, units, **options):
        if options["seed"] == 6:
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return Network(units, **options)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("killed", [False, True])
def test_a_cluster_makes_the_same_also_when_a_worker_is_killed(killed, mixed_alone, tmp_path):
    joblib = pytest.importorskip("joblib")
    distributed = pytest.importorskip("distributed")
    flag = tmp_path / "killed"
    network = KillsItsWorker(flag) if killed else None
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=50,
        local_directory=tmp_path,
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        result = experiment(mixed(), curve_every=10, network=network)
    assert timeless(result) == mixed_alone
    assert result.machine["jobs"] == 2
    assert flag.exists() == killed
    assert math.isfinite(result.seconds)
