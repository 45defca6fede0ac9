"""Checks and lists that networks share: faster, never other results."""

import gc
import threading
import weakref

import numpy as np
import pytest
from conftest import DTYPES, digest

from cdrop import Network
from cdrop._shared import SharedRows
from cdrop.experiments import paired_experiment

UNITS = [70, 130, 20, 4]


def paper(rows=300, ink=0.2, seed=0, level=-0.25, dtype="float32"):
    """Mostly paper of one level."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((rows, 70)) < ink, rng.random((rows, 70)), level)
    return x.astype(dtype), rng.integers(0, 4, rows)


def made(shared=None, **settings):
    net = Network(UNITS, **{"dropout": 0.4, "seed": 3, **settings})
    net._shared = shared
    return net


def fitted(x, y, shared=None, test=None, **settings):
    """A network, and what it says of test rows after each of three fits and at the end."""
    net, seen = made(shared, **settings), []
    for _ in range(3):
        net.fit(x, y, batch_size=64, iterations=15)
        if test is not None:
            seen.append(net.evaluate(*test))
    return net, seen if test is None else [*seen, net.predict_proba(test[0]).tobytes()]


def count_lists(monkeypatch):
    """Record the calls that make lists: of minibatches True, for predictions False."""
    calls = []

    class Counting:
        def __init__(self, engine):
            self.engine = engine

        def __getattr__(self, name):
            return getattr(self.engine, name)

        def keep_batches(self, data, order, size, threads):
            calls.append(order is not None)
            return self.engine.keep_batches(data, order, size, threads)

    make = Network._make_engine
    monkeypatch.setattr(Network, "_make_engine", lambda net: Counting(make(net)))
    return calls


@pytest.mark.parametrize("dtype", DTYPES)
def test_shared_lists_change_no_bit(dtype, simd):
    (x, y), test = paper(dtype=dtype), paper(rows=700, seed=1, dtype=dtype)
    shared = SharedRows()
    for array in (x, test[0]):
        shared.share(array)
    for dropout in (0.4, 0.0):
        alone, expected = fitted(x, y, None, test, dtype=dtype, dropout=dropout)
        net, seen = fitted(x, y, shared, test, dtype=dtype, dropout=dropout)
        assert seen == expected
        assert digest(net) == digest(alone)


def test_lists_are_made_once_for_networks_of_one_order(monkeypatch):
    calls = count_lists(monkeypatch)
    (x, y), test, shared = paper(), paper(seed=1), SharedRows()
    for array in (x, test[0]):
        shared.share(array)
    for dropout in (0.0, 0.4):
        fitted(x, y, shared, test, dropout=dropout)
    assert sorted(calls) == [False, True]
    fitted(x, y, shared, test, seed=4)  # another order of the rows
    assert sorted(calls) == [False, True, True]


def test_lists_are_made_again_for_another_background(monkeypatch):
    calls = count_lists(monkeypatch)
    (x, y), shared = paper(), SharedRows()
    shared.share(x)
    dropping, _ = fitted(x, y, shared, (x, y), input_dropout=0.2)
    assert dropping._background.any() == 0
    del calls[:]
    fitted(x, y, shared, (x, y))
    assert sorted(calls) == [False, True]
    net = made(shared)
    net._set_background(np.full(70, 0.5, np.float32))
    net.fit(x, y, batch_size=64, iterations=15)
    net.evaluate(x, y)
    assert sorted(calls) == [False, False, True, True]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 9},
        {"input_dropout": 0.3},
        {"dtype": "float64"},
        {"level": 0.5},
        {"ink": 0.9},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_network_to_which_lists_do_not_apply_makes_its_own(other):
    """After one network has left its lists: another order, inputs that are dropped out, dtype, background."""
    x, y = paper(ink=other.get("ink", 0.2))
    test, shared = paper(rows=300, seed=1), SharedRows()
    for array in (x, test[0]):
        shared.share(array)
    fitted(x, y, shared, test)
    settings = {name: value for name, value in other.items() if name not in ("level", "ink")}

    def again(shared):
        net = made(shared, **settings)
        if "level" in other:  # as of a network that was first trained on other data
            net._set_background(np.full(70, other["level"], np.float32))
        net.fit(x, y, batch_size=64, iterations=15)
        return net, [net.evaluate(*test) for _ in range(3)]

    (alone, expected), (net, seen) = again(None), again(shared)
    assert digest(net) == digest(alone)
    assert seen == expected


def test_lists_that_do_not_apply_are_ignored_by_the_engine():
    x, y = paper()
    maker = made()
    maker.fit(x, y, batch_size=64, iterations=0)
    rows = maker._training_data(x, y, None)
    kept = maker._engine.keep_batches(rows, None, 256, 0)
    for settings in ({}, {"input_dropout": 0.5}):
        net = made(**settings)  # without a background: the lists are differences from one
        expected = net.predict_proba(x)
        rows.kept = kept
        np.testing.assert_array_equal(net._engine.predict(rows, "probabilities", 1), expected)


def test_other_sizes_and_batches_of_lists_predict_the_same():
    x, y = paper(rows=333)
    net = made()
    net.fit(x, y, batch_size=64, iterations=9)
    expected = net.predict_proba(x)
    for size in (1, 64, 100, 333, 1000):
        rows = net._training_data(x, y, None)
        rows.kept = net._engine.keep_batches(rows, None, size, 0)
        np.testing.assert_array_equal(net._engine.predict(rows, "probabilities", 0), expected)


def test_validation_rows_are_listed_once_for_a_fit(monkeypatch):
    (x, y), held_out = paper(), paper(seed=1)
    alone = made()
    for _ in range(4):
        alone.fit(x, y, epochs=1, validation=held_out)
    calls = count_lists(monkeypatch)
    net = made()
    net.fit(x, y, epochs=4, validation=held_out)
    assert calls == [False]
    assert net.history.validation_loss == alone.history.validation_loss
    assert net.history.validation_score == alone.history.validation_score
    assert digest(net) == digest(alone)


def test_what_is_not_shared_may_change():
    (x, y), shared = paper(), SharedRows()
    shared.share(x.copy())
    net, _ = fitted(x, y, shared)
    test = paper(seed=1)
    for _ in range(3):
        net.evaluate(*test)
    test[0][:] = paper(seed=2)[0]
    expected = fitted(x, y)[0].evaluate(*test)
    assert net.evaluate(*test) == expected
    test[0][7, 3] = np.nan
    with pytest.raises(ValueError, match=r"X\[7, 3\] is nan"):
        net.evaluate(*test)


def test_shared_arrays_are_forgotten():
    (x, y), shared = paper(), SharedRows()
    shared.share(x)
    net, _ = fitted(x, y, shared, (x, y))
    assert shared.has_checked(x, np.dtype("float32"))
    shared.forget()
    x[7, 3] = np.nan
    with pytest.raises(ValueError, match=r"X\[7, 3\] is nan"):
        net.evaluate(x, y)


def test_arrays_are_not_kept_alive():
    shared, lists = SharedRows(), []
    for seed in range(3):
        x, y = paper(seed=seed)
        shared.share(x)
        lists.append(weakref.ref(x))
        fitted(x, y, shared, (x, y))
        del x
    gc.collect()
    assert [ref() is None for ref in lists] == [True, True, True]
    shared.share(paper()[0])
    assert len(shared._known) == 1


def test_threads_share_lists():
    (x, y), test, shared = paper(), paper(seed=1), SharedRows()
    for array in (x, test[0]):
        shared.share(array)
    expected = {seed: digest(fitted(x, y, None, test, seed=seed)[0]) for seed in (0, 1)}
    seen = []

    def train(seed):
        seen.append((seed, digest(fitted(x, y, shared, test, seed=seed, threads=1)[0])))

    threads = [threading.Thread(target=train, args=(i % 2,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted((i % 2, expected[i % 2]) for i in range(6))


def test_arms_of_a_repeat_share_lists_until_the_experiment_ends(monkeypatch):
    calls = count_lists(monkeypatch)
    (x, y), test, nets = paper(), paper(seed=1), []

    def network(*args, **settings):
        nets.append(Network(*args, **settings))
        return nets[-1]

    shared = {"hidden": (20,), "iterations": 30, "batch_size": 64}
    paired_experiment(
        {"without": shared, "with": {**shared, "dropout": 0.5}},
        x,
        y,
        test_data=test,
        repeats=3,
        curve_every=10,
        network=network,
    )
    assert sorted(calls) == [False, True, True, True]  # of the test rows; of each repeat's order
    assert len(nets) == 6
    test[0][7, 3] = np.inf
    with pytest.raises(ValueError, match=r"X\[7, 3\] is inf"):
        nets[-1].evaluate(*test)
