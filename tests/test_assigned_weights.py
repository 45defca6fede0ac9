"""Assigning `coefs_` and `intercepts_`."""

import pickle

import numpy as np
import pytest

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(80, 4))
Y = (X[:, 0] > 0).astype(int)


def classifier(**settings):
    return DropoutMLPClassifier((6,), random_state=0, **{"max_iter": 3, **settings})


def weights(model):
    return [*model.coefs_, *model.intercepts_]


def same(one, other):
    return all(map(np.array_equal, one, other))


def test_federated_averaging():
    clients = [classifier().fit(X[i::2], Y[i::2]) for i in range(2)]
    model = classifier(warm_start=True).fit(X, Y)
    model.coefs_ = [sum(layers) / 2 for layers in zip(*(c.coefs_ for c in clients), strict=True)]
    model.intercepts_ = [
        sum(layers) / 2 for layers in zip(*(c.intercepts_ for c in clients), strict=True)
    ]
    other = classifier(warm_start=True).fit(X, Y)
    other.network_.set_weights(model.coefs_, model.intercepts_)
    assert np.array_equal(model.coefs_[0], (clients[0].coefs_[0] + clients[1].coefs_[0]) / 2)
    assert same(weights(model.fit(X, Y)), weights(other.fit(X, Y)))


BAD = [
    None,
    5,
    "coefs",
    [],
    [np.zeros((4, 6))],
    [np.zeros((4, 6)), np.zeros((6, 2))],
    [np.zeros((6, 4)), np.zeros((1, 6))],
    [np.zeros((4, 6)), "text"],
    [np.zeros((4, 6)), None],
    [np.zeros((4, 6), complex), np.zeros((6, 1))],
    np.zeros((4, 6)),
]


@pytest.mark.parametrize("name", ["coefs_", "intercepts_"])
@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_nothing_changes_on_a_bad_value(name, bad):
    model = classifier().fit(X, Y)
    for owner in (model, model.network_):
        before = pickle.dumps(owner)
        with pytest.raises((TypeError, ValueError), match=name):
            setattr(owner, name, bad)
        assert pickle.dumps(owner) == before


def test_early_stopping_does_not_return_to_weights_from_before():
    settings = {"early_stopping": True, "warm_start": True, "learning_rate_init": 1e-12}
    model = classifier(**settings).fit(X, Y)
    model.coefs_ = [0 * layer for layer in model.coefs_]
    model.fit(X, Y)
    assert max(np.abs(layer).max() for layer in model.coefs_) < 1e-9


def test_not_during_a_fit_of_the_network():
    class Assign:
        def __getattr__(self, name):
            return lambda *args: None

        def on_iteration(self, net, iteration, loss):
            net.coefs_ = net.coefs_

    net = Network([4, 6, 2])
    with pytest.raises(RuntimeError, match="in a fit"):
        net.fit(X, Y, iterations=2, callbacks=[Assign()])


def test_first_fit_begins_with_assigned_weights():
    fitted = classifier().fit(X, Y)
    pair = fitted.coefs_, fitted.intercepts_
    model = classifier(warm_start=True, learning_rate_init=1e-12)
    model.coefs_, model.intercepts_ = pair
    assert model.coefs_ is pair[0]
    model.fit(X, Y)
    assert np.allclose(model.coefs_[0], pair[0][0])
    part = classifier(learning_rate_init=1e-12)
    part.coefs_ = pair[0]
    assert np.allclose(part.partial_fit(X, Y, classes=[0, 1]).coefs_[1], pair[0][1])
    new = classifier(learning_rate_init=1e-12)
    new.coefs_ = pair[0]
    assert not np.allclose(new.fit(X, Y).coefs_[0], pair[0][0])


def test_bad_weights_before_the_first_fit(tmp_path):
    model = classifier(warm_start=True)
    model.coefs_ = [np.zeros((3, 6)), np.zeros((6, 1))]
    with pytest.raises(TypeError, match="assigned before the first fit"):
        model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"coefs_\[0\] has shape \(3, 6\)"):
        model.fit(X, Y)
    assert model.coefs_[0].shape == (3, 6)
    assert not hasattr(model, "network_")
    model.coefs_ = [np.zeros((4, 6)), np.zeros((6, 1))]
    assert model.fit(X, Y).n_layers_ == 3


@pytest.mark.parametrize("name", ["n_layers_", "n_outputs_", "out_activation_", "loss_curve_"])
def test_what_is_computed_cannot_be_assigned(name):
    model = DropoutMLPRegressor((6,), max_iter=2, random_state=0).fit(X, X[:, 0])
    with pytest.raises(AttributeError, match=f"{name} of a fitted DropoutMLPRegressor"):
        setattr(model, name, getattr(model, name))
