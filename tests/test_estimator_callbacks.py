"""Callbacks in fits of the estimators, scikit-learn's own, and where warnings point."""

import inspect
import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor
from cdrop.callbacks import Callback, EpochPrinter, LossPrinter, Validation

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(120, 4))
Y = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]
DATA = {DropoutMLPClassifier: Y, DropoutMLPRegressor: X[:, 0]}
BOTH = pytest.mark.parametrize("kind", DATA)
QUIET = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def quick(kind=DropoutMLPClassifier, **settings):
    defaults = {"max_iter": 4, "random_state": 0, "batch_size": 40, "learning_rate_init": 0.01}
    return kind((6,), **{**defaults, **settings})


def weights(model):
    return [*model.coefs_, *model.intercepts_]


class Record(Callback):
    def __init__(self, model=None, stop=None):
        self.calls, self.model, self.stop = [], model, stop

    def on_fit_begin(self, net, total):
        self.calls.append(("begin", total))

    def on_iteration(self, net, iteration, loss):
        self.calls.append(iteration)

    def on_epoch_end(self, net, epoch):
        self.calls.append(("epoch", epoch.number, self.model and self.model.n_iter_))
        return self.stop == epoch.number

    def on_fit_end(self, net):
        self.calls.append("end")


# ---- Of cdrop --------------------------------------------------------------------------------------------------------


@BOTH
@QUIET
def test_every_moment_and_the_same_weights(kind):
    model = quick(kind, max_iter=2)
    record = Record(model)
    model.fit(X, DATA[kind], callbacks=[record])
    begin, *calls, end = record.calls
    assert (begin, end) == (("begin", 6), "end")
    assert calls == [1, 2, 3, ("epoch", 1, 1), 4, 5, 6, ("epoch", 2, 2)]
    plain = quick(kind, max_iter=2).fit(X, DATA[kind])
    assert all(map(np.array_equal, weights(model), weights(plain)))


@QUIET
def test_printers_print(capsys):
    quick(max_iter=1).fit(X, Y, callbacks=[LossPrinter(every=2), EpochPrinter()])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Iter-2", "Iteration"]


@BOTH
def test_true_stops_without_a_warning_and_a_warm_start_continues(kind):
    model = quick(kind, warm_start=True).fit(X, DATA[kind], callbacks=[Record(stop=2)])
    assert model.n_iter_ == 2
    model.set_params(max_iter=2).fit(X, DATA[kind])
    whole = quick(kind, warm_start=True).fit(X, DATA[kind])
    assert all(map(np.array_equal, weights(model), weights(whole)))


@BOTH
def test_partial_fit_has_them(kind):
    record = Record()
    more = {"classes": ["no", "yes"]} if kind is DropoutMLPClassifier else {}
    quick(kind).partial_fit(X, DATA[kind], callbacks=[record], **more)
    assert record.calls[0] == ("begin", 3)
    assert record.calls[-1] == "end"


@QUIET
def test_validation_has_the_labels_of_the_estimator():
    validation = Validation(X[:30], Y[:30], every=3)
    model = quick().fit(X, Y, callbacks=[validation])
    assert validation.iterations == [3, 6, 9, 12]
    assert validation.scores[-1] == model.score(X[:30], Y[:30])
    assert validation._estimator is None
    with pytest.raises(TypeError, match="callbacks: y has text, and the classes are|callbacks: "):
        quick().fit(X, (Y == "yes").astype(int), callbacks=[validation])


class Prune(Callback):
    """As Optuna's TrialPruned: raised in an epoch, by the validation score."""

    def __init__(self, error):
        self.error = error

    def on_epoch_end(self, net, epoch):
        if epoch.number == 3:
            raise self.error


@pytest.mark.parametrize("error", [ValueError("prune"), KeyError("prune"), KeyboardInterrupt()])
def test_error_leaves_a_fitted_estimator_with_its_best_weights(error):
    model = quick(early_stopping=True, validation_fraction=0.3, max_iter=9)
    with pytest.raises(type(error)):
        model.fit(X, Y, callbacks=[Prune(error)])
    assert model.n_iter_ == len(model.loss_curve_) == 3
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert set(model.predict(X)) <= {"no", "yes"}
    assert model.fit(X, Y, callbacks=[Record(stop=1)]).n_iter_ == 1


def test_error_before_the_first_step_changes_nothing():
    class Refuse(Callback):
        def on_fit_begin(self, net, total):
            raise OSError("no")

    record, model = Record(), quick()
    with pytest.raises(OSError, match="no"):
        model.fit(X, Y, callbacks=[record, Refuse()])
    assert record.calls[-1] == "end"
    assert not hasattr(model, "network_")


BAD = [None, 3, "ab", [3], [None], LossPrinter(), [LossPrinter], {"a": 1}, [object()], 1.5, True]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
@BOTH
def test_callbacks_that_are_none(kind, bad):
    model = quick(kind)
    with pytest.raises(TypeError, match="callbacks"):
        model.fit(X, DATA[kind], callbacks=bad)
    with pytest.raises(TypeError, match="callbacks"):
        quick().partial_fit(X, Y, classes=["no", "yes"], callbacks=bad)
    assert not hasattr(model, "network_")


@QUIET
def test_resumes_with_the_state_of_a_callback(tmp_path):
    class Crash(Callback):
        def __init__(self):
            self.seen = []

        def on_iteration(self, net, iteration, loss):
            self.seen.append(iteration)
            if iteration == 8 and len(self.seen) == 8 and not crashed:
                crashed.append(1)
                raise MemoryError

    crashed, path = [], {"checkpoint": tmp_path / "run", "checkpoint_every": 2}
    with pytest.raises(MemoryError):
        quick().fit(X, Y, callbacks=[Crash()], **path)
    again = Crash()
    model = quick().fit(X, Y, callbacks=[again], **path)
    assert again.seen == list(range(1, 13))
    assert all(map(np.array_equal, weights(model), weights(quick().fit(X, Y))))


@QUIET
def test_through_a_pipeline():
    record = Record()
    pipe = make_pipeline(StandardScaler(), quick())
    pipe.fit(X, Y, dropoutmlpclassifier__callbacks=[record])
    assert record.calls[-1] == "end"


# ---- Of scikit-learn -------------------------------------------------------------------------------------------------

NEWEST = pytest.mark.skipif(
    not hasattr(DropoutMLPClassifier, "set_callbacks"), reason="needs scikit-learn 1.9"
)


class Tasks:
    """A callback by scikit-learn's protocol."""

    def __init__(self, stop=None):
        self.calls, self.scores, self.stop, self.kept = [], [], stop, []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(
        self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None
    ):
        self.calls.append(("end", context.task_name, context.task_id))
        if fitted_estimator is not None:
            self.kept.append(fitted_estimator)
            self.scores.append(fitted_estimator.score(X, y, **(metadata or {})))
        return self.stop == context.task_id and context.task_name == "epoch"


@NEWEST
@QUIET
@BOTH
def test_tasks_of_epochs(kind):
    tasks = Tasks()
    model = quick(kind, max_iter=2).set_callbacks(tasks)
    model.fit(X, DATA[kind], np.ones(120))
    begins = [("begin", "fit", 0), ("begin", "epoch", 0), ("end", "epoch", 0)]
    ends = [("begin", "epoch", 1), ("end", "epoch", 1), ("end", "fit", 0)]
    assert tasks.calls == ["setup", *begins, *ends, "teardown"]
    assert tasks.scores[-1] == model.score(X, DATA[kind])
    first, _, last = tasks.kept
    assert len(first.loss_curve_) == 1
    assert all(map(np.array_equal, weights(last), weights(model)))
    assert not np.array_equal(first.coefs_[0], last.coefs_[0])
    again = pickle.loads(pickle.dumps(model))
    assert not any("ctx" in name or "teardown" in name for name in vars(again))


@NEWEST
@QUIET
def test_tasks_stop_and_survive_errors_and_clones():
    tasks = Tasks(stop=1)
    model = quick(max_iter=9).set_callbacks(tasks)
    assert clone(model).fit(X, Y).n_iter_ == 2
    assert tasks.calls[-2:] == [("end", "fit", 0), "teardown"]
    stopped = quick(max_iter=60, tol=1.0, n_iter_no_change=2).set_callbacks(Tasks()).fit(X, Y)
    assert stopped.n_iter_ < 60
    failing = Tasks()
    with pytest.raises(KeyError):
        quick().set_callbacks(failing).fit(X, Y, callbacks=[Prune(KeyError())])
    assert failing.calls[-1] == "teardown"
    with pytest.raises(ValueError, match="X has|Found|Expected|inconsistent"):
        quick().set_callbacks(failing).fit(X, Y[:5])


@NEWEST
@QUIET
def test_scoring_monitor_in_a_search():
    from sklearn.callback import ScoringMonitor
    from sklearn.model_selection import GridSearchCV

    monitor = ScoringMonitor(scoring="accuracy")
    quick(max_iter=3).set_callbacks(monitor).fit(X, Y)
    scores = [row["accuracy"] for row in monitor.get_logs().data]
    assert len(scores) == 4
    assert all(0 <= score <= 1 for score in scores)
    search = GridSearchCV(quick(max_iter=2).set_callbacks(monitor), {"dropout": [0.0, 0.2]}, cv=2)
    assert search.fit(X, Y).best_score_ > 0
    assert len(monitor.get_logs(select="all")) >= 2


@NEWEST
@QUIET
def test_progress_bar_of_scikit_learn(capfd):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    quick(max_iter=3).set_callbacks(ProgressBar()).fit(X, Y)
    assert "DropoutMLPClassifier - fit" in capfd.readouterr().out


# ---- Warnings --------------------------------------------------------------------------------------------------------


def test_filter_of_the_gallery_silences_cdrop_too():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")
        quick().fit(X, Y)


def test_warning_shows_the_line_of_the_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = inspect.currentframe().f_lineno + 1
        quick(batch_size=500).fit(X, Y)
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, line)] * 2
    assert [w.category for w in caught] == [UserWarning, ConvergenceWarning]


def test_loop_of_a_warm_start_does_not_warn():
    model = quick(warm_start=True, max_iter=1)
    for _ in range(3):
        model.fit(X, Y)
    with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
        model.set_params(warm_start=False).fit(X, Y)
