"""Masksembles: a fixed number of masks, which rows take in turn."""

import pickle

import numpy as np
import pytest
from conftest import check_steps, check_uncertainty

import cdrop
from cdrop import DropoutMLPClassifier, Network, kernels, reference
from cdrop.rates import Linear

UNITS = (70, 90, 130, 5)
KINDS = [
    ("masksembles",) * 3,
    ("bernoulli", "masksembles", "shared"),
    ("gaussian", "masksembles", "masksembles"),
]


def data(rows=70, dtype="float64"):
    draw = np.random.default_rng(0)
    X = np.maximum(draw.normal(size=(rows, UNITS[0])), 0).astype(dtype)
    return X, draw.integers(0, UNITS[-1], rows)


def network(kinds=("masksembles",) * 3, **settings):
    arguments = {"seed": 4, "dtype": "float64", "members": 3, "input_dropout": 0.2} | settings
    return Network(
        UNITS,
        dropout=[0.5, 0.3],
        dropout_kind=list(kinds[1:]),
        input_dropout_kind=kinds[0],
        **arguments,
    )


def weights(net):
    return b"".join(array.tobytes() for array in (*net.coefs_, *net.intercepts_))


@pytest.mark.parametrize("kinds", KINDS, ids=" ".join)
@pytest.mark.parametrize("members", [1, 3, 100])
def test_steps_and_predictions_equal_those_of_the_reference(kinds, members):
    X, y = data()
    net = network(kinds, members=members)
    spec = reference.NetworkSpec(UNITS, [0.5, 0.3], 0.2, seed=4, kinds=kinds, members=members)
    params = check_steps(net, [spec] * 3, X, y)
    check_uncertainty(net, spec, params, X)


def test_members_are_the_first_subnetworks():
    X, y = data(200)
    net = network()
    net.fit(X, y, iterations=20, batch_size=50)
    members = net.subnetworks(3)
    np.testing.assert_array_equal(members.predict_proba(X), net.predict_proba(X, mc_samples=3))
    np.testing.assert_array_equal(
        members.predict_proba(X), net.predict_proba(X, mc_samples=3, seed=9)
    )
    samples = net.predict_uncertainty(X, 7, samples=True).samples
    np.testing.assert_array_equal(samples[:3], samples[3:6])
    np.testing.assert_array_equal(samples[0], samples[6])
    assert (samples[0] != samples[1]).any()
    single = members[1].predict_proba(X)
    np.testing.assert_allclose(single, samples[1], atol=1e-12)


def test_no_unit_that_all_members_drop_is_trained():
    X, y = data(200)
    net = network(input_dropout=0.0, members=2)
    before = net.coefs_
    net.fit(X, y, iterations=20, batch_size=50)
    masks = net.subnetworks(2).masks
    used = kernels.unpack_mask(masks[2], UNITS[2]).any(axis=0)
    assert 0 < used.sum() < UNITS[2]
    same = (before[2] == net.coefs_[2]).all(axis=1)
    np.testing.assert_array_equal(same, ~used)


@pytest.mark.parametrize("kinds", KINDS, ids=" ".join)
def test_same_bytes_on_every_thread_count(kinds):
    X, y = data(200, "float32")
    fits = []
    for threads in (1, 2, 3):
        net = network(kinds, dtype="float32", threads=threads)
        net.fit(X, y, iterations=6, batch_size=150, l2=1e-3)
        fits.append(weights(net) + net.predict_proba(X, mc_samples=4).tobytes())
    assert len(set(fits)) == 1


def test_saved_pickled_and_shown(tmp_path):
    pytest.importorskip("safetensors")
    X, y = data()
    net = network()
    net.train_step(X, y)
    net.save(tmp_path / "net")
    for copy in (cdrop.load(tmp_path / "net"), pickle.loads(pickle.dumps(net))):
        assert copy.members == 3
        assert "dropout_kind='masksembles'" in repr(copy)
        assert "members=3" in repr(copy)
        assert copy.train_step(X, y) == pickle.loads(pickle.dumps(net)).train_step(X, y)
    assert "members" not in repr(Network([2, 3, 2], dropout=0.5))
    assert "members" not in Network([2, 3, 2], dropout=0.5).state_dict()["settings"]


def test_rates_may_change():
    """With a rate that falls, each member keeps what it kept, and more."""
    X, y = data()
    net = Network(
        [70, 64, 5], dropout=Linear(0.9, 0.0, steps=3), dropout_kind="masksembles", seed=1
    )
    losses = [net.train_step(X, y) for _ in range(4)]
    assert np.isfinite(losses).all()
    with pytest.raises(ValueError, match="all rates of this network are 0 after its last step"):
        net.subnetworks(8)


@pytest.mark.parametrize("members", [0, 65_537, 1.5, None])
def test_invalid_members(members):
    with pytest.raises((TypeError, ValueError), match="members is"):
        Network([4, 8, 2], members=members)
    with pytest.raises((TypeError, ValueError), match="members is"):
        DropoutMLPClassifier((8,), members=members).fit(*data(20))
    with pytest.raises(AttributeError, match="members of a network cannot be changed"):
        Network([4, 8, 2]).members = members


def test_estimators_take_members():
    X, y = data(100)
    model = DropoutMLPClassifier(
        (16,), dropout=0.3, dropout_kind="masksembles", members=4, max_iter=3, random_state=0
    )
    with pytest.warns(UserWarning, match="did not converge|Maximum iterations"):
        model.fit(X, y)
    assert model.network_.members == 4
    samples = model.predict_uncertainty(X, 8, samples=True).samples
    np.testing.assert_array_equal(samples[:4], samples[4:])
