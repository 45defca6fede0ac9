"""The rows that each repeat trains, validates and tests on, and labels of any kind."""

from typing import ClassVar

import numpy as np
import pytest
from comparisons import FakeTrainer, small_dataset

from cdrop.datasets import Table, TableEncoder
from cdrop.experiments import open_ledger, paired_experiment
from cdrop.experiments.problem import make_problem

N = 120
ROWS = np.arange(N, dtype=np.float32)
X = np.column_stack([ROWS, ROWS % 7])
Y = np.r_[np.zeros(60, int), np.ones(36, int), np.full(24, 2)][
    np.random.default_rng(0).permutation(N)
]
TINY = {"hidden": 4, "iterations": 5}


def problem(y=Y, X=X, **options):
    """Check the data of an experiment, without running one."""
    defaults = dict.fromkeys(
        ("test_data", "task", "train_size", "groups", "times", "cv", "transformer")
    )
    defaults |= {
        "repeats": 5,
        "test_size": 0.2,
        "validation_size": 0.2,
        "stratify": True,
        "arms": {},
    }
    return make_problem(X, y, **{**defaults, **options})


def splits(seed=0, **options):
    made = problem(**options)
    return [made.splitter.split(r, seed + r) for r in range(made.splitter.repeats)]


def whole(split):
    return np.sort(np.concatenate([part for part in split if part is not None]))


# ---- Splits ------------------------------------------------------------------------------------


def test_each_repeat_has_one_split():
    made = splits(seed=3)
    for split in made:
        np.testing.assert_array_equal(whole(split), np.arange(N))  # disjoint, and nothing is lost
        assert [len(part) for part in split] == [77, 19, 24]
        assert all((np.diff(part) > 0).all() for part in split)
    assert len({split.test.tobytes() for split in made}) == 5
    assert len({split.validation.tobytes() for split in made}) == 5


def test_a_split_depends_on_the_seed_alone():
    first, again, other = splits(seed=3), splits(seed=3), splits(seed=4)
    for a, b, c in zip(first[1:], again[1:], other[:-1], strict=True):
        for i in range(3):
            np.testing.assert_array_equal(a[i], b[i])
            np.testing.assert_array_equal(a[i], c[i])  # seed 3, repeat 1 is seed 4, repeat 0


@pytest.mark.parametrize("stratify", [True, False])
def test_each_class_has_its_share_of_every_part(stratify):
    worst = 0
    for split in splits(repeats=30, stratify=stratify):
        for part in split:
            counts = np.bincount(Y[part], minlength=3)
            worst = max(worst, np.abs(counts - len(part) * np.bincount(Y) / N).max())
    assert (worst <= 2) == stratify


def test_sizes_may_be_rows():
    (split,) = splits(test_size=30, validation_size=0.5, train_size=40, repeats=1)
    assert [len(part) for part in split] == [20, 20, 30]
    counts = np.bincount(Y[np.concatenate(split[:2])])
    assert np.abs(counts - [20, 12, 8]).max() <= 1


def test_a_given_test_set_is_never_split():
    made = problem(test_data=(X[:10], Y[:10]), train_size=60)
    split = made.splitter.split(0, 7)
    assert split.test is None
    assert len(split.train) + len(split.validation) == 60
    assert not made.tests_on_splits
    assert made.sizes(0, 7) == (60, 10)
    np.testing.assert_array_equal(made.part(0, 7).targets("test"), Y[:10])


GROUPS = np.repeat(np.arange(24), 5)[np.random.default_rng(1).permutation(N)]


def test_rows_of_a_group_stay_on_one_side():
    names = np.array([f"patient {g}" for g in GROUPS])
    tested = set()
    for split in splits(groups=names, repeats=20):
        np.testing.assert_array_equal(whole(split), np.arange(N))
        sides = [set(GROUPS[part]) for part in split]
        assert sum(map(len, sides)) == 24
        assert 24 <= len(split.test) < 24 + 5
        tested |= sides[2]
    assert len(tested) > 18


def test_few_groups_leave_some_for_each_part():
    for split in splits(groups=np.arange(N) % 3, test_size=0.6, repeats=10):
        assert all(len(part) for part in split)


def test_tests_are_later_than_what_trains():
    times = np.random.default_rng(2).permutation(N)
    made = splits(times=times, repeats=4)
    starts = []
    for split in made:
        assert times[split.train].max() < times[split.validation].min()
        assert times[split.validation].max() < times[split.test].min()
        starts.append(times[split.test].min())
        assert len(split.test) == 24
    assert starts == sorted(starts)
    assert len(set(starts)) == 4
    tested = np.concatenate([split.test for split in made])
    assert len(set(tested)) == len(tested)
    assert times[made[-1].test].max() == N - 1


def test_few_rows_by_time_are_the_latest_before_the_test_rows():
    made = problem(times=ROWS, repeats=3, train_size=20)
    for repeat in range(3):
        rows = made.splitter.split(repeat, repeat)
        first = rows.test.min()
        np.testing.assert_array_equal(rows.train, np.arange(first - 20, first - 4))
        np.testing.assert_array_equal(rows.validation, np.arange(first - 4, first))


def test_rows_of_one_time_are_on_one_side():
    years = np.arange(N) // 7
    for split in splits(times=years, repeats=4):
        assert years[np.concatenate(split[:2])].max() < years[split.test].min()


def test_few_times_are_refused():
    with pytest.raises(
        ValueError, match="times leaves 0 rows before the test rows of the first of 4"
    ):
        problem(times=np.zeros(N), repeats=4)


def test_times_may_be_dates():
    days = np.datetime64("2020-01-01") + np.random.default_rng(2).permutation(N)
    for split in splits(times=days, repeats=3):
        assert days[np.concatenate(split[:2])].max() < days[split.test].min()


def test_folds_of_scikit_learn():
    selection = pytest.importorskip("sklearn.model_selection")
    for cv, groups in (
        (selection.KFold(5, shuffle=True, random_state=0), None),
        (selection.StratifiedKFold(4), None),
        (selection.GroupKFold(3), GROUPS),
    ):
        made = splits(cv=cv, groups=groups, repeats=None)
        expected = list(cv.split(X, Y, groups))
        assert len(made) == len(expected)
        for split, (train, test) in zip(made, expected, strict=True):
            np.testing.assert_array_equal(split.test, np.sort(test))
            inner = np.sort(np.concatenate(split[:2]))
            np.testing.assert_array_equal(inner, np.sort(train))
            assert groups is None or not set(groups[split.train]) & set(groups[split.validation])
    with pytest.raises(ValueError, match="cv fold 0 has rows of one group on both sides; expected"):
        problem(cv=selection.KFold(5), groups=GROUPS)


def test_folds_may_be_pairs_of_row_numbers():
    folds = ((np.arange(i, N, 2), np.arange(1 - i, N, 4)) for i in range(2))
    made = splits(cv=folds, repeats=None)
    assert [len(split.test) for split in made] == [30, 30]
    assert len(splits(cv=[(range(50), range(50, 60))] * 3, repeats=2)) == 2


def test_the_variance_correction_uses_the_sizes_of_the_folds():
    folds = [(np.arange(40), np.arange(40, 60)), (np.arange(80), np.arange(80, 120))]
    result = paired_experiment({"a": TINY}, X, Y, cv=folds)
    assert (result.asked, result.sampling.ratio) == (2, pytest.approx((20 / 40 + 40 / 80) / 2))
    random = paired_experiment({"a": TINY}, X, Y, repeats=2, test_size=30)
    assert random.sampling.ratio == pytest.approx(30 / 90)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_size": 0.0}, "test_size is 0.0"),
        ({"test_size": 1.0}, "test_size is 1.0; expected a number above 0 and below 1"),
        ({"test_size": N}, f"test_size is {N}"),
        (
            {"test_size": 0.999},
            "X has 120 rows, of which test_size holds out 120; expected at least 2",
        ),
        ({"validation_size": 1}, "validation_size is 1; expected"),
        ({"train_size": 1}, "train_size is 1"),
        ({"train_size": 97}, "train_size is 97"),
        ({"repeats": 0}, "repeats is 0"),
        ({"groups": np.zeros(N)}, "groups has 1 groups; expected at least 3"),
        ({"groups": np.zeros(N - 1)}, r"groups has shape \(119,\); expected \(120,\)"),
        ({"times": np.full(N, np.nan)}, "times has a value that is NaN or infinite"),
        ({"times": np.full(N, "NaT", "M8[D]")}, "times has a value that is NaN or infinite"),
        ({"times": ["a"] * N}, "times has shape"),
        ({"times": ROWS, "groups": GROUPS}, "groups and times are both given; expected one"),
        ({"groups": ["a", "b", "c", None] * 30}, "groups has 30 missing values; expected none"),
        (
            {"times": ROWS, "repeats": N},
            "repeats is 120 with times; expected fewer than the 120 rows",
        ),
        ({"cv": [(range(60), range(50, 70))]}, "cv fold 0 is not two disjoint sets"),
        ({"cv": [(range(60), range(60, 121))]}, "cv fold 0 is not two disjoint sets"),
        ({"cv": [(range(60), [])]}, "cv fold 0 is not two disjoint sets"),
        ({"cv": []}, "cv has no folds"),
        (
            {"cv": [(range(60), range(60, 70))], "times": -ROWS},
            "cv fold 0 has test rows no later than those it trains on",
        ),
        ({"cv": 5}, "cv is 5; expected a splitter of scikit-learn or pairs of row numbers"),
        ({"cv": [(range(60), range(60, 70))], "repeats": 2}, "repeats is 2; expected at most 1"),
        ({"cv": [], "test_data": (X, Y)}, "cv is given with a test set"),
        ({"stratify": 1}, "stratify is 1"),
        ({"transformer": 3}, "transformer is 3; expected an object with fit and transform"),
        ({"X": X[:, 0]}, r"X has shape \(120,\); expected \(n, features\)"),
        ({"X": X[:0], "y": Y[:0]}, r"X has shape \(0, 2\)"),
        ({"y": Y[:-1]}, r"y has shape \(119,\); expected 120 targets"),
        ({"test_data": X}, "test_data is a ndarray; expected a pair"),
        ({"test_data": (X[:, :1], Y)}, r"test_data\[0\] has 1 columns; expected 2"),
        ({"test_data": (X, Y[:5])}, r"test_data\[1\] has shape \(5,\)"),
        ({"y": None}, "y is None; expected targets"),
        ({"X": small_dataset()}, "X is a Dataset, which has its own y"),
        ({"task": "regression", "y": ["a", "b"] * 60}, "expected numbers for task='regression'"),
        ({"task": "clustering"}, "task is 'clustering'"),
    ],
)
def test_one_message_per_mistake(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        problem(**options)


def test_times_need_a_fixed_number_of_repeats():
    with pytest.raises(ValueError, match="until_decided is True; expected False with times"):
        paired_experiment({"a": TINY, "b": TINY}, X, Y, times=ROWS, until_decided=True)


# ---- Transformers ------------------------------------------------------------------------------


class Spy:
    """A transformer that records the rows it is fitted on, by their numbers."""

    log: ClassVar[list] = []

    def fit(self, X, y):
        self.log.append(("fit", X[:, 0].astype(int), np.array(y)))
        self.fitted = True
        return self

    def transform(self, X):
        self.log.append(("transform", X[:, 0].astype(int), None))
        return X / N


def test_transformers_are_fitted_on_the_rows_that_train(monkeypatch):
    monkeypatch.setattr(Spy, "log", [])
    given = Spy()
    stops = {"hidden": 4, "epochs": 3, "patience": 1}
    paired_experiment({"all": TINY, "stops": stops}, X, Y, repeats=2, seed=9, transformer=given)
    assert not hasattr(given, "fitted")
    fits = [(rows, y) for what, rows, y in Spy.log if what == "fit"]
    expected = []
    for split in splits(seed=9, repeats=2):
        expected += [np.sort(np.concatenate(split[:2])), split.train]
    assert len(fits) == 4  # one for each kind of rows, shared by the arms
    for (rows, y), wanted in zip(fits, expected, strict=True):
        np.testing.assert_array_equal(rows, wanted)
        np.testing.assert_array_equal(y, Y[wanted])


def test_estimators_get_the_rows_as_they_are(monkeypatch):
    pytest.importorskip("sklearn")
    from sklearn.dummy import DummyClassifier

    seen = []

    class Dummy(DummyClassifier):
        def fit(self, X, y):
            seen.append(X)
            return super().fit(X, y)

    paired_experiment({"a": Dummy(), "b": TINY}, X, Y, repeats=1, transformer=Spy())
    assert seen[0].max() > 1  # not divided by N


def test_frames_of_any_columns():
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    from sklearn.dummy import DummyClassifier

    frame = pandas.DataFrame({"n": ROWS, "t": np.where(Y == 1, "one", "other")}, index=ROWS[::-1])
    net = {"hidden": 8, "iterations": 100, "learning_rate": 0.01}
    arms = {"net": net, "prior": DummyClassifier()}
    result = paired_experiment(arms, frame, pandas.Series(Y == 1), repeats=2)
    assert min(result.arms["net"].scores("accuracy")) > 0.9
    encoder = TableEncoder({"n": "number"})
    given = paired_experiment({"net": net}, frame, Y, repeats=1, transformer=encoder)
    assert given.complete


def test_dates_with_a_time_zone_are_those_of_its_clocks():
    pd = pytest.importorskip("pandas")
    days = pd.date_range("2020-01-01", periods=N, freq="7h")
    parts = [
        problem(X=pd.DataFrame({"at": at})).part(0, 0).whole["fit"]
        for at in (days, days.tz_localize("Europe/Paris", ambiguous=False))
    ]
    np.testing.assert_array_equal(*parts)


def test_columns_of_frames_are_found_by_name():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["a", "b"])
    reversed_columns = problem(X=frame, test_data=(frame[["b", "a"]], Y))
    pd.testing.assert_frame_equal(reversed_columns.X_test, frame)
    for test, message in (
        (frame.rename(columns={"b": "c"}), "lacks the column 'b'; expected the columns of X"),
        (X, "is a ndarray, and X a DataFrame; expected two DataFrames"),
    ):
        with pytest.raises((TypeError, ValueError), match=rf"test_data\[0\] {message}"):
            problem(X=frame, test_data=(test, Y))
    with pytest.raises(ValueError, match="X has several columns 'a'; expected distinct names"):
        problem(X=frame.set_axis(["a", "a"], axis=1))


def test_a_table_brings_its_groups_test_rows_and_transformer():
    table = Table(
        "t", "made here", X.astype(float), Y, "classification", ("a", "b", "c"), groups=GROUPS
    )
    made = problem(X=table, y=None)
    split = made.splitter.split(0, 1)
    assert not set(GROUPS[split.test]) & set(GROUPS[split.train])
    numbers = made.part(0, 1).whole["fit"]
    assert np.abs(numbers.mean(axis=0)).max() < 1e-5
    assert made.classes == ("a", "b", "c")
    assert paired_experiment({"a": TINY}, table, repeats=1).arms["a"].trials[0].rows.shape[0] >= 24


def test_sparse_rows():
    sparse = pytest.importorskip("scipy.sparse")
    dense = (X > 3).astype(np.float32)
    for made in (sparse.csr_matrix(dense), sparse.coo_array(dense)):
        results = [paired_experiment({"a": TINY}, rows, Y, repeats=2) for rows in (made, dense)]
        assert results[0].arms["a"].score == results[1].arms["a"].score


# ---- Labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y + 1, 3),
        (np.array(["x", "yy", "z"])[Y], 3),
        (Y == 1, 2),
        (np.array([1000, 2000])[(Y > 0).astype(int)], 2),
        (np.array(["a", "b", "c"], object)[Y], 3),
        (Y.astype(np.float64), 3),
        (Y.astype(np.uint8)[:, None], 3),
        ((Y - 1).tolist(), 3),
    ],
)
def test_labels_of_any_kind_make_an_output_per_class(y, classes):
    trainer = FakeTrainer()
    result = paired_experiment({"a": TINY}, X, y, repeats=1, network=trainer, metric="accuracy")
    assert result.task == "classification"
    assert [call["units"] for call in trainer.calls] == [[2, 4, classes]]
    (call,) = trainer.calls
    assert set(call["y"]) == set(range(classes))
    # The rows of X are their own numbers, so that labels and rows can be matched.
    original = np.ravel(y)[call["X_test"][:, 0].astype(int)]
    codes = np.unique(np.ravel(y), return_inverse=True)[1]
    np.testing.assert_array_equal(call["y_test"], codes[call["X_test"][:, 0].astype(int)])
    assert len(set(zip(original.tolist(), call["y_test"].tolist(), strict=True))) == classes


def test_task_overrides_what_labels_look_like():
    trainer = FakeTrainer()
    result = paired_experiment({"a": TINY}, X, Y, task="regression", repeats=1)
    assert (result.task, result.metric.name) == ("regression", "rmse")
    counts = paired_experiment({"a": TINY}, X, np.arange(N), repeats=1)
    assert counts.task == "regression"
    paired_experiment(
        {"a": TINY},
        X,
        np.arange(N) // 4,
        task="classification",
        repeats=1,
        network=trainer,
        metric="accuracy",
    )
    assert trainer.calls[0]["units"][-1] == 30


def test_test_labels_are_those_of_y():
    names = np.array(["one", "two", "three"])
    trainer = FakeTrainer()
    paired_experiment(
        {"a": TINY},
        X,
        names[Y],
        test_data=(X[:9], names[Y[:9]]),
        repeats=1,
        network=trainer,
        metric="accuracy",
    )
    codes = np.unique(names, return_inverse=True)[1][Y]
    np.testing.assert_array_equal(trainer.calls[0]["y"], codes)
    np.testing.assert_array_equal(trainer.calls[0]["y_test"], codes[:9])
    other = np.array(["one", "two", "three", "four"] * 3)[:9]
    with pytest.raises(
        ValueError, match=r"test_data\[1\] has labels that y lacks: 'four'; expected labels"
    ):
        problem(y=names[Y], test_data=(X[:9], other))
    with pytest.raises(TypeError, match=r"test_data\[1\] has numbers such as 2, and y has text"):
        problem(y=names[Y], test_data=(X[:9], Y[:9]))


def test_missing_labels_are_refused():
    holes = Y.astype(float)
    holes[[3, 5]] = np.nan
    with pytest.raises(ValueError, match="y has 2 missing labels"):
        problem(y=holes)
    nones = np.array(["a", "b", None] * 40, object)
    with pytest.raises(ValueError, match="y has 40 missing labels"):
        problem(y=nones)
    with pytest.raises(ValueError, match="2 distinct"):
        problem(y=np.zeros(N))


def test_another_split_rule_is_another_experiment(tmp_path):
    base = {"repeats": 1, "network": FakeTrainer(), "metric": "accuracy"}
    paired_experiment({"a": TINY}, X, Y, ledger=open_ledger(tmp_path / "kept"), **base)
    for other in (
        {"test_size": 0.3},
        {"validation_size": 0.3},
        {"train_size": 50},
        {"stratify": False},
        {"groups": GROUPS},
        {"times": ROWS},
        {"cv": [(range(60), range(60, 80))]},
        {"transformer": Spy()},
        {"test_data": (X, Y)},
    ):
        kept = open_ledger(tmp_path / "kept", resume=True)
        with pytest.raises(ValueError, match="holds another experiment: data is"):
            paired_experiment({"a": TINY}, X, Y, ledger=kept, **base, **other)
