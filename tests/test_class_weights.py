"""Weights of classes and rows: checked and applied before the first step, whatever classes a piece of the data has."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

import cdrop
from cdrop import DropoutMLPClassifier, DropoutMLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(120, 4))
Y = np.arange(120) % 3
LABELS = (X[:, :3] > 0.5).astype(int)
DICTS = [{0: 1, 1: 5}, {1: 2.5}, {0: 0.5, 1: 9}]


def quick(**settings):
    return DropoutMLPClassifier(
        **{"hidden_layer_sizes": 9, "max_iter": 3, "random_state": 3, **settings}
    )


def same(a, b):
    return all(map(np.array_equal, [*a.coefs_, *a.intercepts_], [*b.coefs_, *b.intercepts_]))


def test_a_dict_for_each_of_several_labels(tmp_path):
    by_hand = np.prod([compute_sample_weight(d, LABELS[:, k]) for k, d in enumerate(DICTS)], axis=0)
    for y in (LABELS, LABELS.astype(bool), LABELS.astype(float)):
        weighted = quick(class_weight=DICTS).fit(X, y)
        assert same(weighted, quick().fit(X, LABELS, by_hand))
        assert not same(weighted, quick().fit(X, LABELS))
    trees = compute_sample_weight([{0: 1, 1: 5}, {0: 1, 1: 2.5}, {0: 0.5, 1: 9}], LABELS)
    assert np.array_equal(trees, by_hand)
    streamed = quick(class_weight=DICTS)
    for rows in (slice(0, 1), slice(1, 2), slice(2, 60)):  # most lack a 0 or a 1
        streamed.partial_fit(X[rows], LABELS[rows], classes=[0, 1, 2])
    weighted.save(tmp_path / "model")
    assert cdrop.load(tmp_path / "model").class_weight == DICTS
    balanced = compute_sample_weight("balanced", LABELS)
    assert same(quick(class_weight="balanced").fit(X, LABELS), quick().fit(X, LABELS, balanced))


@pytest.mark.parametrize(
    ("weights", "y", "message"),
    [
        ({0: 1, 1: 5}, LABELS, "expected a list of 3 dicts, one for each label, or 'balanced'"),
        (DICTS[:2], LABELS, "expected a list of 3 dicts"),
        ([*DICTS[:2], None], LABELS, "expected a list of 3 dicts"),
        ([*DICTS[:2], {2: 1.0}], LABELS, r"class_weight\[2\] has weights for \[2\], which are no"),
        ([*DICTS[:2], {0: -1.0}], LABELS, r"class_weight\[2\]\[0\] is -1.0"),
        (DICTS, Y, "expected a dict of weights by class or 'balanced'"),
        ("even", Y, "expected a dict of weights by class or 'balanced'"),
        ({0: 3.0, 7: 2.0}, Y, r"weights for \[7\], which are no classes; .*\[0 1 2\]"),
        ({0: 0, 1: 0, 2: 0}, Y, "class_weight, with sample_weight, is negative or zero everywhere"),
        ({(0,): 1}, Y, r"class_weight is \{\(0,\): 1\}; expected a dict of weights by class"),
        ({0: 1e308, 1: 1e308}, Y, "class_weight, with sample_weight, sums to inf"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, y, message):
    model = quick(class_weight=weights)
    with pytest.raises((TypeError, ValueError), match=message):
        model.fit(X, y)
    assert not hasattr(model, "network_")


def test_weights_name_classes_of_their_kind():
    with pytest.raises(TypeError, match="class_weight has text such as '0', and classes_ has num"):
        quick(class_weight={"0": 2.0, "1": 1.0}).fit(X, Y)
    with pytest.raises(TypeError, match="class_weight has text such as '1' and numbers such as 0"):
        quick(class_weight={0: 2.0, "1": 1.0}).fit(X, Y)
    expected = quick().fit(X, Y, np.where(Y == 1, 4.0, 1.0))
    for y in (Y.astype("u8"), Y.astype(float), Y.tolist(), Y.astype(object)):
        for key in (1, 1.0, np.uint64(1)):
            assert same(quick(class_weight={key: 4.0}).fit(X, y), expected)
    two = quick().fit(X, Y > 0, np.where(Y > 0, 4.0, 1.0))
    assert same(quick(class_weight={True: 4.0}).fit(X, Y > 0), two)
    words = np.array(["a", "b", "c"])[Y]
    assert same(quick(class_weight={"b": 4.0}).fit(X, words), expected)


def test_pieces_and_folds_that_lack_a_class():
    for weights in ({0: 3.0}, {2: 3.0}, {0: 3.0, 1: 1.0, 2: 0.5}, {}):
        model, plain = quick(class_weight=weights), quick()
        for piece in (Y == 0, Y == 1, Y == 2, Y < 2):
            by_class = np.array([weights.get(k, 1.0) for k in Y[piece].tolist()])
            model.partial_fit(X[piece], Y[piece], classes=[0, 1, 2])
            plain.partial_fit(X[piece], Y[piece], by_class, classes=[0, 1, 2])
        assert same(model, plain)
    few = Y < 2
    fold = quick(class_weight={0: 3.0, 1: 1.0, 2: 0.5}).fit(X[few], Y[few])
    assert fold.classes_.tolist() == [0, 1]


@pytest.mark.parametrize("kind", [DropoutMLPClassifier, DropoutMLPRegressor])
def test_no_minibatch_is_without_weight(kind):
    for nothing in (0.0, 1e-320):
        weight = np.full(120, nothing)
        weight[::17] = 1.0
        settings = {"hidden_layer_sizes": 5, "batch_size": 4, "max_iter": 3, "random_state": 0}
        model = kind(**settings).fit(X, Y, weight)
        assert same(model, kind(**settings).fit(X[::17], Y[::17], weight[::17]))
    with pytest.raises(ValueError, match=r"below 2.3e-308 in each row"):
        kind().fit(X, Y, np.full(120, 2e-308))
    rare = quick(class_weight={0: 0.0}, batch_size=4, early_stopping=True).fit(X, Y)
    assert rare.t_ == 3 * 72
