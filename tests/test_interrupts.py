"""Ctrl-C in estimators, searches and experiments; that of `Network` is in test_whole_steps."""

import pickle

import numpy as np
import pytest
from conftest import run_python
from sklearn.base import clone

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor

BOTH = (DropoutMLPClassifier, DropoutMLPRegressor)

PREPARE = """
import os, signal, threading, time, warnings
import numpy as np
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network
from cdrop.callbacks import Callback
from cdrop.estimators.base import _Watch
from cdrop.experiments import paired_experiment

signal.signal(signal.SIGINT, signal.default_int_handler)
X = np.random.default_rng(0).normal(size=(90, 4))
Y = np.arange(90) % 3
X += Y[:, None]
QUICK = dict(random_state=0, max_iter=9, batch_size=30, dropout=0.5, learning_rate_init=0.01)

def press():
    os.kill(os.getpid(), signal.SIGINT)

def press_in(seconds):
    threading.Timer(seconds, press).start()

def press_after(epoch, end=_Watch.on_epoch_end):
    def then(self, net, seen):
        stops = end(self, net, seen)
        if seen.number == epoch:
            press()
        return stops
    _Watch.on_epoch_end = then
"""


def said_by(code):
    process = run_python(PREPARE + code, flags=())
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


@pytest.mark.posix
@pytest.mark.parametrize("estimator", [kind.__name__ for kind in BOTH])
@pytest.mark.parametrize("early", [False, True])
def test_ctrl_c_keeps_or_raises_and_the_estimator_stays_whole(estimator, early):
    said = said_by(f"""
make = lambda **more: {estimator}(
    **QUICK, early_stopping={early}, scoring=None, **more
)
data = dict(X=X, y=Y, X_val=X, y_val=Y)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    full = make().fit(**data)
    press_after(4)
    kept = make().fit(**data)
    print([str(w.message) for w in caught].count("Training interrupted by user."))
    raised = make(interrupt="raise", warm_start=True)
    try:
        raised.fit(**data)
    except KeyboardInterrupt:
        print("raised")
    for model in (kept, raised):
        assert model.n_iter_ == 4 and model.network_.history.interrupted
        assert model.loss_curve_ == full.loss_curve_[:4]
        assert all(map(np.array_equal, model.coefs_, kept.coefs_))
        assert model.best_validation_score_ == max(model.validation_scores_)
        assert model.score(X, Y) == model.best_validation_score_ or not {early}
    press_after(0)
    assert raised.fit(**data).n_iter_ == 9 and len(raised.loss_curve_) == 13
    press_after(raised.network_._epoch + 1)
    try:
        raised.set_params(early_stopping=False).partial_fit(X, Y)
    except KeyboardInterrupt:
        print("raised")
""")
    assert said == ["1", "raised", "raised"]


@pytest.mark.posix
def test_ctrl_c_ends_searches_and_loops_if_asked_to():
    said = said_by("""
warnings.simplefilter("ignore")
begin = _Watch.on_fit_begin
def count(self, net, total):
    begun.append(net)
    begin(self, net, total)
_Watch.on_fit_begin = count
press_after(2)
for interrupt in ("raise", "keep"):
    net = DropoutMLPClassifier(**QUICK, interrupt=interrupt)
    for search in (
        lambda: GridSearchCV(net, {"alpha": [1e-4, 1e-3]}, cv=2).fit(X, Y),
        lambda: cross_validate(make_pipeline(StandardScaler(), net), X, Y, cv=3),
        lambda: [net.fit(X, Y) for _ in range(2)],
    ):
        begun = []
        try:
            search()
            print("ended", len(begun))
        except KeyboardInterrupt:
            print("raised", len(begun))
""")
    assert said == ["raised", "1"] * 3 + ["ended", "5", "ended", "3", "ended", "2"]


@pytest.mark.posix
def test_ctrl_c_is_handled_within_long_calls_of_estimators():
    said = said_by("""
warnings.simplefilter("ignore")
X = np.tile(np.linspace(0, 1, 1000, dtype="f4")[:, None], (1000, 2))
y = np.arange(len(X)) % 2
few = dict(hidden_layer_sizes=(2000, 2000), dropout=0.5, max_iter=1, interrupt="raise")
model = DropoutMLPClassifier(**few).fit(X[:8], y[:8])
regressor = DropoutMLPRegressor(**few).fit(X[:8], y[:8])
def later():
    pressed.append(time.process_time())  # this process may be stopped for a while
    press()
for call in (
    lambda: model.predict(X),
    lambda: model.predict_proba(X),
    lambda: model.predict_proba(X[:40], mc_samples=10**8),
    lambda: model.predict_log_proba(X),
    lambda: model.predict_uncertainty(X[:40], mc_samples=10**8),
    lambda: regressor.predict_uncertainty(X[:40], mc_samples=10**8),
    lambda: model.score(X, y),
    lambda: model.fit(X[:8], y[:8], X_val=X, y_val=y),
):
    pressed = []
    threading.Timer(0.2, later).start()
    try:
        call()
        print("ended")
    except KeyboardInterrupt:
        late = time.process_time() - pressed[0]
        print("raised", late) if late > 5 else print("raised")
""")
    assert said == ["raised"] * 8


@pytest.mark.posix
def test_ctrl_c_ends_an_experiment_whatever_its_arms():
    said = said_by("""
warnings.simplefilter("ignore")
net, theirs = DropoutMLPClassifier((9,), max_iter=100), MLPClassifier((9,), max_iter=100)
def on_trial(trial):
    if trial.repeat == 1:
        press_in(0.01)
for arm in ({"hidden": [9], "iterations": 300}, net, make_pipeline(StandardScaler(), theirs), [net, theirs]):
    result = paired_experiment({"it": arm}, X, Y, repeats=5000, on_trial=on_trial)
    print(result.stopped, result.repeats[:2] == [0, 1], len(result.repeats) < 100)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
""")
    assert said == ["interrupted", "True", "True"] * 4


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", BOTH)
def test_estimators_stored_before_there_was_interrupt_keep(estimator):
    X = np.random.default_rng(0).normal(size=(20, 2))
    model = estimator((4,), max_iter=2, random_state=0).fit(X, np.arange(20) % 2)
    state = model.__getstate__()
    del state["interrupt"]
    settings, arrays = model._to_parts()
    del settings["parameters"]["interrupt"]
    again = estimator.__new__(estimator)
    again.__setstate__(state)
    for old in (again, pickle.loads(pickle.dumps(again)), estimator._from_parts(settings, arrays)):
        assert clone(old).get_params() == model.get_params()
        assert old.interrupt == "keep"
        old.set_params(interrupt="raise").fit(X, np.arange(20) % 2)
        assert clone(old).interrupt == "raise"
