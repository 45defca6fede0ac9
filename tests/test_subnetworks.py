"""Thinned networks that stay: their masks, their mean, and each as its own network."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import ACTIVATIONS, LOSSES, assert_close, digest, problem, spec_of, with_biases

from cdrop import Network, Subnetworks, kernels, reference

SUBNETWORKS = 5  # the purpose of the masks
DESIGNS = [
    {"units": [9, 7, 4], "dropout": 0.5},
    {"units": [70, 65, 33, 5], "dropout": [0.5, 0.2], "input_dropout": 0.2, "scaling": "test"},
    {"units": [12, 3], "input_dropout": 0.3},
    {"units": [5, 130, 8, 1, 6], "dropout": [0.0, 0.0, 0.3], "activation": "leaky_relu"},
    {"units": [40, 300, 70, 21], "dropout": [0.1, 0.4], "activation": "sigmoid"},
]


def case(number, loss="softmax_cross_entropy", dtype="float32", rows=70):
    net = with_biases(Network(**DESIGNS[number], loss=loss, seed=number, dtype=dtype))
    return net, problem(net.units, loss, rows, number, dtype)[0]


def outputs(net, x):
    return net.predict(x) if net.loss == "squared_error" else net.predict_proba(x)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("number", range(len(DESIGNS)))
def test_their_results_are_those_of_the_twin(number, loss, dtype, simd):
    net, x = case(number, loss, dtype)
    subs = net.subnetworks(6)
    params = net.coefs_, net.intercepts_
    twin = reference.uncertainty(params, x, spec_of(net), 6, masks=subs.masks)
    result = subs.predict_uncertainty(x)
    for name, expected in twin.items():
        assert_close(getattr(result, name), expected, "product")
    mean = subs.predict(x) if loss == "squared_error" else subs.predict_proba(x)
    assert mean.tobytes() == result.mean.tobytes()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("number", range(len(DESIGNS)))
def test_extracted_ones_predict_what_they_did_as_masks(number, loss, dtype, simd):
    net, x = case(number, loss, dtype)
    subs, whole = net.subnetworks(5), (net.coefs_, net.intercepts_)
    each = []
    for i, smaller in enumerate(subs):
        masks = [None if m is None else np.repeat(m[i : i + 1], len(x), axis=0) for m in subs.masks]
        masked = reference.forward(whole, x, spec_of(net), masks=masks)[-1]
        params = smaller.coefs_, smaller.intercepts_
        assert_close(reference.forward(params, x, spec_of(smaller))[-1], masked, "product")
        each.append(outputs(smaller, x))
    mean = subs.predict(x) if loss == "squared_error" else subs.predict_proba(x)
    assert_close(np.mean(each, axis=0, dtype=dtype), mean, "product")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("scaling", ["train", "test"])
def test_a_scale_that_is_a_power_of_2_changes_no_bit(activation, scaling, dtype):
    net = Network(
        [30, 70, 20, 3],
        0.5,
        activation=activation,
        loss="squared_error",
        scaling=scaling,
        dtype=dtype,
    )
    x = problem(with_biases(net).units, rows=100, dtype=dtype)[0]
    subs = net.subnetworks(1)
    np.testing.assert_array_equal(subs[0].predict(x), subs.predict(x))


def test_extracted_ones_are_smaller_and_have_no_dropout():
    net, _ = case(1)
    net.threads = 2
    subs = net.subnetworks(4)
    for i, smaller in enumerate(subs):
        kept = [int(np.bitwise_count(mask[i]).sum()) for mask in subs.masks[1:]]
        assert smaller.units == (70, *kept, 5)
        assert not any((smaller.input_dropout, *smaller.dropout))
        assert (smaller.dtype, smaller.threads, smaller.seed) == (net.dtype, 2, net.seed)
        dropped = ~kernels.unpack_mask(subs.masks[0][i : i + 1], 70)[0]
        assert dropped.any()
        assert not smaller.coefs_[0][dropped].any()
        assert smaller.coefs_[0][~dropped].all()


def test_a_layer_that_keeps_no_unit():
    net = with_biases(Network([4, 2, 3, 2], [0.7, 0.0], loss="squared_error", dtype="float64"))
    subs = net.subnetworks(20)
    empty = int(np.flatnonzero(subs.masks[1][:, 0] == 0)[0])
    x = problem(net.units, rows=30, dtype="float64")[0]
    smaller = subs[empty]
    assert smaller.units == (4, 1, 3, 2)
    (_, _, w), (_, b1, b2) = net.coefs_, net.intercepts_
    alone = np.maximum(b1, 0) @ w + b2  # the same for every row
    np.testing.assert_allclose(smaller.predict(x), np.tile(alone, (30, 1)), rtol=1e-14)
    mean = np.mean([net.predict(x) for net in subs], axis=0)
    np.testing.assert_allclose(subs.predict(x), mean, rtol=1e-13)


def test_an_input_that_is_dropped_whole():
    net = with_biases(Network([1, 3], input_dropout=0.5, dtype="float64", loss="squared_error"))
    subs = net.subnetworks(10)
    empty = int(np.flatnonzero(subs.masks[0][:, 0] == 0)[0])
    np.testing.assert_array_equal(subs[empty].predict([[3.0]])[0], net.intercepts_[0])


def test_a_background_stays_right():
    x, y = problem([20, 3], rows=300)
    x = np.where(x > 1, x, np.float32(-0.5))
    net = Network([20, 40, 3], dropout=0.5, seed=2)
    net.fit(x, y, iterations=30)
    assert net._background.any()
    subs = net.subnetworks(8)
    other = x + 1  # far from the background
    for rows in (x, other):
        mean = np.mean([net.predict_proba(rows) for net in subs], axis=0)
        assert_close(subs.predict_proba(rows), mean, "product")
    subs[0].fit(x, y, iterations=3)
    assert net._background.any()


# ---- Masks ---------------------------------------------------------------------------------


def test_masks_are_drawn_by_their_key():
    net, _ = case(1)
    for seed in (None, 9):
        masks = net.subnetworks(70, seed=seed).masks
        key = {"seed": net.seed if seed is None else seed, "purpose": SUBNETWORKS}
        for layer, (width, keep) in enumerate([(70, 0.8), (65, 0.5), (33, 0.8)]):
            expected = reference.bernoulli_mask(70, width, keep, layer=layer, **key)
            np.testing.assert_array_equal(masks[layer], expected)


def test_more_of_them_begin_with_the_same():
    net, _ = case(1)
    few, many = net.subnetworks(3), net.subnetworks(100)
    for a, b in zip(few.masks, many.masks, strict=True):
        np.testing.assert_array_equal(a, b[:3])
    assert digest(few[2]) == digest(many[2])


def test_layers_without_dropout_have_no_masks():
    masks = case(3)[0].subnetworks(2).masks
    assert [mask is None for mask in masks] == [True, True, True, False]
    assert not masks[3].flags.writeable


# ---- Use -----------------------------------------------------------------------------------


def test_calls_agree_and_follow_the_weights(threads):
    net, x = case(0, rows=300)
    subs = net.subnetworks(6)
    first, extracted = subs.predict_proba(x), subs[0]
    assert subs.predict_proba(x).tobytes() == first.tobytes()
    assert subs.predict_proba(x[40:]).tobytes() == first[40:].tobytes()  # rows share their masks
    before = digest(extracted)
    net.train_step(x, problem(net.units, rows=300)[1])
    assert subs.predict_proba(x).tobytes() != first.tobytes()
    assert digest(extracted) == before


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_are_those_of_the_mean(loss):
    net, x = case(1, loss)
    subs = net.subnetworks(9)
    predicted = subs.predict(x)
    if loss == "squared_error":
        assert predicted.dtype == np.float32
        with pytest.raises(ValueError, match="predict_proba needs a cross-entropy loss"):
            subs.predict_proba(x)
        return
    assert predicted.dtype == np.int64
    mean = subs.predict_proba(x)
    softmax = loss == "softmax_cross_entropy"
    np.testing.assert_array_equal(predicted, mean.argmax(axis=1) if softmax else mean > 0.5)


@pytest.mark.parametrize("number", [0, 1])
def test_sparse_rows(number):
    net, x = case(number)
    subs = net.subnetworks(4)
    assert subs.predict_proba(sp.csr_array(x)).tobytes() == subs.predict_proba(x).tobytes()


def test_indices_are_those_of_a_sequence():
    subs = case(0)[0].subnetworks(3)
    assert isinstance(subs, Subnetworks)
    assert len(subs) == len(list(subs)) == 3
    assert digest(subs[-1]) == digest(subs[2]) == digest(subs.extract(np.int8(2)))
    for index in (3, -4):
        with pytest.raises(IndexError, match="there are 3 subnetworks"):
            subs[index]
    for index in (1.0, "0", slice(2)):
        with pytest.raises(TypeError, match="index is"):
            subs[index]
    assert repr(subs) == "Network([9, 7, 4], dropout=0.5).subnetworks(3, seed=0)"


def test_copies_and_pickles_predict_the_same():
    net, x = case(1)
    subs = net.subnetworks(3, seed=4)
    for other in (copy.deepcopy(subs), pickle.loads(pickle.dumps(subs))):
        assert other.predict_proba(x).tobytes() == subs.predict_proba(x).tobytes()
