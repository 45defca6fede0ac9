"""Class labels: equal by value and kind, in every place where labels are given."""

from collections import UserList, deque
from decimal import Decimal
from enum import Enum

import numpy as np
import pandas as pd
import pytest
from onnx.reference import ReferenceEvaluator
from sklearn.metrics import r2_score

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, load
from cdrop._labels import joined, label_array, same_type, sorted_numbers
from cdrop.convert import to_onnx
from cdrop.experiments import paired_experiment
from cdrop.experiments.problem import _encode, _targets

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DRAW = np.random.default_rng(0)
IDS = 10**18 + 7 * np.arange(20)  # next to each other as float64
PLACES = DRAW.integers(0, 20, 400)
Y = IDS[PLACES]
X = (DRAW.normal(size=(20, 4)) * 4)[PLACES] + 0.3 * DRAW.normal(size=(400, 4))
X3, Y3 = X[:60], np.arange(60) % 3


def quick(**settings):
    defaults = {"hidden_layer_sizes": 9, "max_iter": 3, "random_state": 3, "scoring": None}
    return DropoutMLPClassifier(**{**defaults, **settings})


SAME_IDS = {
    "uint64": Y.astype("u8"),
    "big-endian": Y.astype(">i8"),
    "objects": Y.astype(object),
    "list": Y.tolist(),
    "Int64": pd.Series(Y, dtype="Int64"),
    "UInt64": pd.Series(Y.astype("u8"), dtype="UInt64"),
    "category": pd.Series(Y).astype("category"),
    "frame": pd.DataFrame({"id": Y}),
    "Decimal": [Decimal(int(value)) for value in Y],
}


@pytest.mark.parametrize("kind", SAME_IDS)
@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_integers_of_any_type_are_the_same_classes(kind):
    other = SAME_IDS[kind]
    model = quick().fit(X, Y, X_val=X, y_val=other)
    assert model.validation_scores_[-1] == model.score(X, Y) == model.score(X, other)
    again = quick().fit(X, other)
    assert again.classes_.tolist() == IDS.tolist()
    assert np.array_equal(again.predict(X).astype("i8"), model.predict(X))
    streamed = quick().partial_fit(X, Y, classes=IDS).partial_fit(X, other, classes=IDS)
    assert streamed.t_ == 800


def test_negative_labels_next_to_unsigned_ones_above_int64():
    high = np.array([1, 2**63 + 1, 2**63 + 2], "u8")
    assert sorted_numbers("y", np.array([-1, 1]), high).tolist() == [-1, 0]
    assert sorted_numbers("y", high, np.array([-5, 1])).tolist() == [1, -1, -1]
    a, b = same_type([("a", high), ("b", np.array([2.0**63 + 2048]))])
    assert a.dtype == b.dtype == np.uint64


def test_floats_booleans_and_integers_are_numbers():
    model = quick().fit(X3, Y3)
    assert model.score(X3, Y3.astype(float)) == model.score(X3, Y3.astype("u1"))
    two = quick().fit(X3, Y3 > 0)
    assert two.score(X3, Y3 > 0) == two.score(X3, (Y3 > 0) * 1.0)
    with pytest.raises(ValueError, match="y_val has the label 0.5; expected integers"):
        quick().fit(X3, Y3, X_val=X3, y_val=Y3 + 0.5)
    assert quick().fit(X3, Y3.astype(float)).classes_.dtype == float


def words(y):
    return np.array([str(value) for value in y])


def test_text_and_numbers_are_an_error_that_names_both():
    named = r"such as '.*numbers such as|numbers such as .*such as '"
    with pytest.raises(TypeError, match="y_val has text such as '0', and classes_ has numbers"):
        quick().fit(X3, Y3, X_val=X3, y_val=words(Y3))
    for text in (words(Y3), words(Y3).astype(object)):
        with pytest.raises(TypeError, match=named):
            quick().fit(X3, Y3).score(X3, text)
        with pytest.raises(TypeError, match=named):
            quick().fit(X3, text).score(X3, Y3)
        with pytest.raises(TypeError, match=named):
            quick().partial_fit(X3, text, classes=[0, 1, 2])
        with pytest.raises(TypeError, match=named):
            quick().partial_fit(X3, Y3, classes=[0, 1, 2]).partial_fit(X3, text)
        with pytest.raises(TypeError, match=named):
            quick(warm_start=True).fit(X3, Y3).fit(X3, text)
        with pytest.raises(TypeError, match=named):
            paired_experiment({"a": {}}, X3, Y3, test_data=(X3, text))
    for mixed in ([1, "1", 2] * 20, np.array([1, "1", 2] * 20, object)):
        with pytest.raises(TypeError, match="y has text such as '1' and numbers such as 1"):
            quick().fit(X3, mixed)
        with pytest.raises(TypeError, match="y has text such as '1' and numbers such as 1"):
            paired_experiment({"a": {}}, X3, mixed)


def test_codes_with_zeros_in_front_are_separate_classes():
    assert quick().fit(X3, ["007", "7", "12"] * 20).classes_.tolist() == ["007", "12", "7"]


@pytest.mark.parametrize(
    "y",
    [
        [None, "a", "b"] * 20,
        np.array([None, "a", "b"] * 20, object),
        pd.Series(["a", pd.NA, "b"] * 20, dtype="string"),
        pd.Series([1, pd.NA, 2] * 20, dtype="Int64"),
        [1, float("nan"), 2] * 20,
    ],
)
def test_missing_labels_are_named(y):
    with pytest.raises(ValueError, match="y has 20 missing labels.*leave those rows out"):
        quick().fit(X3, y)
    with pytest.raises(ValueError, match="y_val has 20 missing labels"):
        quick().fit(X3, Y3, X_val=X3, y_val=y)


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        (b"a", TypeError, "expected text or integers"),
        (object(), TypeError, "expected text or integers"),
        (2**70, ValueError, "int64 or uint64"),
        (1j, ValueError, "Complex data not supported"),
    ],
)
def test_other_labels_are_refused(label, error, message):
    with pytest.raises(error, match=message):
        quick().fit(X3, [label, 1, 2] * 20)
    with pytest.raises(ValueError, match="int64 or uint64"):
        label_array("y", [-1, 2**63])


def test_classes_may_come_in_a_set():
    for classes in ({0, 1, 2}, frozenset([2, 1, 0]), dict.fromkeys([0, 1, 2]).keys(), range(3)):
        assert quick().partial_fit(X3, Y3, classes=classes).classes_.tolist() == [0, 1, 2]
    for classes in ([], 3, [[0, 1]]):
        with pytest.raises(ValueError, match="classes is"):
            quick().partial_fit(X3, Y3, classes=classes)
    with pytest.raises(ValueError, match="classes has the label 0.5"):
        quick().partial_fit(X3, Y3, classes=[0, 0.5, 1, 2])


def test_a_vector_and_a_matrix_of_labels_are_distinguished():
    matrix = np.eye(3, dtype=int)[Y3]
    with pytest.raises(ValueError, match=r"y has shape \(60, 3\); expected one class a row"):
        quick().partial_fit(X3, Y3, classes=range(3)).partial_fit(X3, matrix)
    several = quick().partial_fit(X3, matrix, classes=range(3))
    for y in (Y3, matrix[:, :2]):
        with pytest.raises(ValueError, match="y has shape.*expected 3 columns of 0 and 1"):
            several.partial_fit(X3, y)


def test_rows_one_by_one_with_warm_start():
    model, plain = quick(warm_start=True), quick()
    for i in range(60):
        for each in (model, plain):
            each.partial_fit(X3[i : i + 1], Y3[i : i + 1], classes=[0, 1, 2])
    assert model.t_ == 60
    assert np.array_equal(model.coefs_[0], plain.coefs_[0])
    with pytest.raises(ValueError, match="same classes"):
        model.fit(X3, Y3 % 2)


def test_a_class_that_was_not_trained_counts_as_wrong():
    model = quick().fit(X3, Y3)
    assert model.score(X3, Y3 + 100) == 0
    weight = np.where(Y3 == 0, 1.0, 0.0)
    unseen = np.where(Y3 == 0, model.predict(X3), 77)
    assert model.score(X3, unseen, weight) == 1


def experiment_classes(y, y_test):
    """Return what `paired_experiment` makes of labels."""
    named = [("y", y), ("test_data[1]", y_test)]
    both = joined([(name, _targets(name, labels, X)) for name, labels in named])
    return _encode(both, "classification", False)[2]


def test_experiments_keep_integers_apart():
    names = tuple(map(str, IDS))
    for other in (Y.astype("u8"), Y.tolist(), pd.Series(Y, dtype="Int64"), Y.astype(object)):
        assert experiment_classes(Y, other) == experiment_classes(other, Y) == names
    assert len(experiment_classes(Y.astype("u8") + 2**63, Y)) == 40
    with pytest.raises(ValueError, match="negative labels"):
        experiment_classes(Y.astype("u8") + 2**63, -Y)


def test_onnx_refuses_labels_that_it_cannot_hold():
    high = Y3.astype("u8") + 2**63
    model = quick().fit(X3, high)
    assert set(model.predict(X3)) <= set(high)
    with pytest.raises(ValueError, match="ONNX's int64"):
        to_onnx(model)
    fits = quick().fit(X3.astype("f4"), Y3.astype("u8"))
    labels = ReferenceEvaluator(to_onnx(fits)).run(["label"], {"X": X3.astype("f4")})[0]
    assert np.array_equal(labels, fits.predict(X3))


# ---- Masked arrays, dates, long doubles, several labels ------------------------------------


def test_masked_entries_are_refused_wherever_there_are_arrays():
    def masked(array):
        return np.ma.array(array, mask=np.arange(array.size).reshape(array.shape) == 7)

    model = quick().fit(X3, np.ma.array(Y3, mask=False))
    target = X3[:, 0]
    regressor = DropoutMLPRegressor(max_iter=1).fit(X3, target)
    for name, call in {
        "X": lambda: quick().fit(masked(X3), Y3),
        "y": lambda: quick().fit(X3, masked(Y3)),
        "sample_weight": lambda: quick().fit(X3, Y3, masked(np.ones(60))),
        "X_val": lambda: quick().fit(X3, Y3, X_val=masked(X3), y_val=Y3),
        "y_val": lambda: quick().fit(X3, Y3, X_val=X3, y_val=masked(Y3)),
        "classes": lambda: quick().partial_fit(X3, Y3, classes=masked(np.arange(9))),
        "X ": lambda: model.predict(masked(X3)),
        "   y ": lambda: regressor.score(X3, masked(target)),
        " sample_weight": lambda: regressor.score(X3, target, masked(np.ones(60))),
        "y ": lambda: model.score(X3, masked(Y3)),
        " y ": lambda: DropoutMLPRegressor(max_iter=1).fit(X3, masked(target)),
        " X ": lambda: Network([4, 3]).fit(masked(X3), Y3, epochs=1),
        "  y ": lambda: Network([4, 3]).fit(X3, masked(Y3), epochs=1),
        "  X ": lambda: Network([4, 3]).predict(masked(X3)),
    }.items():
        with pytest.raises(ValueError, match=f"{name.strip()}.* has 1 masked entries; expected"):
            call()


DATES = np.array(["2020-01-01", "2020-02-01", "2021-01-01"], "M8[D]")


def test_dates_can_be_classes(tmp_path):
    days = DATES[Y3]
    weights = dict.fromkeys(DATES, 1.0)
    for y in (days, days.astype("M8[ns]"), days.astype("M8[M]"), pd.Series(days)):
        model = quick(class_weight=weights).fit(X3, y, X_val=X3, y_val=days)
        model.save(tmp_path / "m")
        again = load(tmp_path / "m")
        assert again.classes_.dtype == model.classes_.dtype
        assert np.array_equal(again.predict(X3), model.predict(X3))
        assert again.score(X3, days) == model.validation_scores_[-1]
        with pytest.raises(TypeError, match="y has text such as .*, and classes_ has dates"):
            model.score(X3, days.astype(str))
    missing = np.append(days[:-1], np.datetime64("NaT"))
    for call in (
        lambda: quick().fit(X3, missing),
        lambda: model.score(X3, missing),
        lambda: quick().fit(X3, days, X_val=X3, y_val=missing),
        lambda: quick().fit(X3, pd.Series(missing)),
        lambda: quick().partial_fit(X3, days, classes=[*DATES, np.datetime64("NaT")]),
    ):
        with pytest.raises(ValueError, match="has 1 missing labels"):
            call()


def test_long_doubles_are_numbers_as_others(tmp_path):
    y = np.array([0, 1, 2], np.longdouble)[Y3] + 2**60
    model = quick().fit(X3, y)
    assert model.classes_.tolist() == [2**60, 2**60 + 1, 2**60 + 2]
    model.save(tmp_path / "m")
    assert load(tmp_path / "m").score(X3, y) == model.score(X3, Y3 + 2**60)
    with pytest.raises(ValueError, match="y has 1 missing labels"):
        quick().fit(X3, np.where(np.arange(60) == 5, np.nan, y))


def test_classes_of_several_labels():
    labels = np.stack([Y3 > 0, Y3 > 1, X3[:, 0] > 0], axis=1).astype(int)
    models = [quick(), quick(), quick()]
    for _ in range(3):
        for model, classes in zip(models, (np.unique(labels), [0, 1, 2], {0, 1}), strict=True):
            model.partial_fit(X3, labels, classes=classes)
    first, *others = (model.predict_proba(X3) for model in models)
    assert all(np.array_equal(first, other) for other in others)
    for model in (quick(), models[0]):
        for classes in ([0, 2], [1], range(4), range(2, 5)):
            with pytest.raises(ValueError, match=r"classes is .*; expected \[0 1 2\], or \[0 1\]"):
                model.partial_fit(X3, labels, classes=classes)


class Mixed(str, Enum):  # noqa: UP042  (its str is not its value)
    first = "setosa"
    second = "virginica"
    third = "versicolor"


@pytest.mark.parametrize("make", [list, lambda y: np.array(y, object)])
@pytest.mark.parametrize("names", [list(Mixed), ["a", "a\0", "b"]])
def test_text_is_compared_by_value_whatever_its_type(names, make):
    """NumPy makes "Mi" of the first, which are then one class, and "a" of "a\\0"."""
    values = [str.__str__(name) for name in names]
    y = [names[k] for k in Y3]
    model = quick(max_iter=60, class_weight={names[0]: 2}).fit(X3, make(y))
    assert model.classes_.tolist() == sorted(values)
    texts = np.array([values[k] for k in Y3], object)
    assert model.score(X3, texts) == model.score(X3, make(y)) > 0
    if "a\0" in names:
        with pytest.raises(ValueError, match="without NUL characters"):
            to_onnx(model)
        return
    constants = {array.name: array for array in to_onnx(model).graph.initializer}
    assert [text.decode() for text in constants["classes"].string_data] == sorted(values)


DAYS = np.arange(60).astype("M8[D]")
TARGETS = {
    "dates": (DAYS, TypeError, "{} has dtype datetime64"),
    "list of dates": (DAYS.tolist(), TypeError, "{}: float"),
    "text": (["a"] * 60, TypeError, "{} has dtype <U1"),
    "huge": ([10**400] * 60, ValueError, "{}: int too large"),
    "complex": (np.full(60, 1j, object), TypeError, "{}: float"),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_that_are_not_numbers_are_refused_by_name_wherever_they_are_given(kind):
    y, error, message = TARGETS[kind]
    model = DropoutMLPRegressor(max_iter=1, random_state=0).fit(X3, X3[:, 0])
    before = model.coefs_
    for name, call in {
        "y": lambda: model.fit(X3, y),
        "y ": lambda: model.partial_fit(X3, y),
        "y_val": lambda: model.fit(X3, X3[:, 0], X_val=X3, y_val=y),
        " y": lambda: model.score(X3, y),
    }.items():
        with pytest.raises(error, match="^" + message.format(name.strip())):
            call()
    assert all(map(np.array_equal, model.coefs_, before))


def test_the_score_of_a_regressor_checks_what_it_is_given():
    model = DropoutMLPRegressor(max_iter=3, random_state=0).fit(X3, X3[:, 0])
    expected = r2_score(X3[:, 0], model.predict(X3))
    for y in (X3[:, 0], X3[:, :1], X3[:, 0].tolist(), pd.Series(X3[:, 0]), X3[:, 0].astype(object)):
        assert model.score(X3, y) == expected
    with pytest.raises(ValueError, match=r"y has shape \(60, 2\); expected \(60,\)"):
        model.score(X3, X3[:, :2])
    with pytest.raises(ValueError, match="sample_weight is negative"):
        model.score(X3, X3[:, 0], -np.ones(60))
    two = DropoutMLPRegressor(max_iter=3, random_state=0).fit(X3, X3[:, :2])
    assert two.score(X3, X3[:, :2]) == r2_score(X3[:, :2], two.predict(X3))


def test_sequences_are_taken_value_by_value_as_lists_are():
    """NumPy makes text of all labels of the first, and floats of the second."""
    with pytest.raises(TypeError, match="y has text such as '1' and numbers such as 1"):
        quick().fit(X3, deque([1, "1"] * 30))
    ids = [2**63 + 1, 2**53 + 1, 3.0]
    assert quick().fit(X3, UserList(ids * 20)).classes_.tolist() == sorted(map(int, ids))
    assert quick().partial_fit(X3[:2], ["setosa"] * 2, classes=Mixed).classes_.tolist() == sorted(
        Mixed
    )
