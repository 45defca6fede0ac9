"""From what a caller passes as data to a checked `Problem`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop._checks import as_array, finite_number, truth_value, whole_number
from cdrop._features import csr
from cdrop._labels import joined, label_array
from cdrop.datasets import Dataset, Table, encode_labels
from cdrop.datasets.table import is_missing
from cdrop.experiments.arms import Candidate, Configuration, Estimator
from cdrop.experiments.data import Problem, Splitter

__all__ = ["count_test_rows", "make_problem"]


def make_problem(
    X: Any,
    y: Any,
    *,
    test_data: Any,
    task: str | None,
    repeats: int | None,
    test_size: Any,
    validation_size: Any,
    train_size: Any,
    stratify: Any,
    groups: Any,
    times: Any,
    cv: Any,
    transformer: Any,
    arms: Mapping[str, Sequence[Candidate]],
) -> Problem:
    """Check the data and the split rule of `paired_experiment`; see there for the arguments."""
    multilabel = any(
        isinstance(c, Configuration) and c.network.get("loss") == "sigmoid_cross_entropy"
        for several in arms.values()
        for c in several
    )
    problem, rule = _data(X, y, test_data, task, multilabel)
    if problem.task == "regression":
        _check_no_classifier(arms)
    n = len(problem.y)
    problem.transformer = _transformer(transformer, problem)
    given = problem.y_test is not None
    if cv is not None and given:
        raise ValueError("cv is given with a test set; expected one of them")
    groups = rule.get("groups") if groups is None else _group_codes(groups, n)
    times = rule.get("times") if times is None else _time_numbers(times, n)
    if groups is not None and times is not None:
        raise ValueError("groups and times are both given; expected one of them")
    folds = None if cv is None else _folds(cv, problem, groups, times)
    if repeats is None:
        repeats = len(folds) if folds is not None else 1
    repeats = whole_number("repeats", repeats, 1, 2**62)
    if folds is not None and repeats > len(folds):
        raise ValueError(f"repeats is {repeats}; expected at most {len(folds)}, the folds of cv")
    testing = 0 if given or folds is not None else count_test_rows(test_size, n)
    if times is not None and testing and n // (repeats + 1) < 1:
        raise ValueError(f"repeats is {repeats} with times; expected fewer than the {n} rows")
    if train_size is not None:
        least = max(2, len(problem.classes) if truth_value("stratify", stratify) else 2)
        train_size = whole_number("train_size", train_size, least, n - testing + 1)
    problem.splitter = Splitter(
        problem.y,
        truth_value("stratify", stratify) and problem.task == "classification",
        testing,
        _share("validation_size", validation_size),
        train_size,
        groups,
        times,
        folds,
        repeats,
    )
    if times is not None and testing:
        _check_earliest(problem.splitter)
    return problem


def _check_no_classifier(arms: Mapping[str, Sequence[Candidate]]) -> None:
    """Raise if an arm would take each number for its own class."""
    for name, several in arms.items():
        if any(isinstance(c, Estimator) and c.classifies for c in several):
            raise ValueError(
                f"arms[{name!r}] is a classifier, and y is taken as numbers; expected a regressor, or "
                "task='classification' (for a matrix of labels, one arm with loss='sigmoid_cross_entropy')"
            )


def _transformer(given: Any, problem: Problem) -> Any:
    """Return the given transformer, the table's, or one for a frame; None for arrays."""
    for method in ("fit", "transform") if given is not None else ():
        if not callable(getattr(given, method, None)):
            raise TypeError(f"transformer is {given!r}; expected an object with fit and transform")
    if given is None and problem.transformer is None and hasattr(problem.X, "iloc"):
        return _encoder(problem.X)
    return problem.transformer if given is None else given


def _encoder(frame: Any) -> Any:
    """Return the unfitted transformer of a pandas DataFrame, by the dtypes of its columns."""
    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"X has several columns {name!r}; expected distinct names")
    from cdrop.datasets import TableEncoder

    kinds = {"b": "boolean", "M": "date", **dict.fromkeys("iuf", "number")}
    return TableEncoder({name: kinds.get(frame[name].dtype.kind, "text") for name in frame})


def _check_earliest(splitter: Splitter) -> None:
    """Raise if the first repeat, which trains on the fewest rows, has too few rows before its test rows."""
    train, validation, _ = splitter.split(0, 0)
    if not len(train) or not len(validation):
        raise ValueError(
            f"times leaves {len(train) + len(validation)} rows before the test rows of the first of {splitter.repeats} "
            "repeats; expected at least 2: fewer repeats, or more distinct times"
        )


def _data(
    X: Any, y: Any, test_data: Any, task: str | None, multilabel: bool
) -> tuple[Problem, dict[str, Any]]:
    """Return the data without a split rule, and what a table knows of that."""
    empty: Any = None  # the splitter follows
    if not isinstance(X, (Dataset, Table)):
        if y is None:
            raise TypeError("y is None; expected targets, unless X is a Table or Dataset")
        return _arrays(X, y, test_data, task, multilabel), {}
    if y is not None or test_data is not None:
        raise ValueError(
            f"X is a {type(X).__name__}, which has its own y and test rows; expected None for both"
        )
    if isinstance(X, Dataset):
        f = X.to_features("float32")
        rows = f.X_train, f.y_train, "classification", X.classes, empty, f.X_test, f.y_test
        return Problem(*rows), {}
    X_test, y_test = X.test or (None, None)
    problem = Problem(X.X, X.y, X.task, X.classes, empty, X_test, y_test, X.transformer())
    return problem, {"groups": X.groups, "times": X.times}


def _arrays(X: Any, y: Any, test_data: Any, task: str | None, multilabel: bool) -> Problem:
    """Return arrays, matrices and frames without a split rule."""
    empty: Any = None
    rows = _rows("X", X)
    targets = _targets("y", y, rows)
    if test_data is None:
        kind, encoded, classes = _encode(targets, task, multilabel)
        return Problem(rows, encoded, kind, classes, empty)
    if not isinstance(test_data, (tuple, list)) or len(test_data) != 2:
        raise TypeError(f"test_data is a {type(test_data).__name__}; expected a pair (X, y)")
    X_test = _in_order(rows, _rows("test_data[0]", test_data[0]))
    y_test = _targets("test_data[1]", test_data[1], X_test)
    kind, both, classes = _encode(
        joined([("y", targets), ("test_data[1]", y_test)]), task, multilabel
    )
    encoded, tested = both[: len(targets)], both[len(targets) :]
    if kind == "classification":
        unseen = sorted(set(np.unique(tested)) - set(np.unique(encoded)))
        if unseen:
            names = ", ".join(repr(classes[i]) for i in unseen[:10])
            raise ValueError(f"test_data[1] has labels that y lacks: {names}; expected labels of y")
    return Problem(rows, encoded, kind, classes, empty, X_test, tested)


def _in_order(X: Any, X_test: Any) -> Any:
    """Return test rows with the columns of X; those of a DataFrame are found by name, as the transformer does."""
    if X_test.shape[1] != X.shape[1]:
        raise ValueError(
            f"test_data[0] has {X_test.shape[1]} columns; expected {X.shape[1]}, as X has"
        )
    if not hasattr(X, "iloc"):
        return X_test
    if not hasattr(X_test, "iloc"):
        raise TypeError(
            f"test_data[0] is a {type(X_test).__name__}, and X a DataFrame; expected two DataFrames"
        )
    absent = [name for name in X.columns if name not in X_test.columns]
    if absent:
        raise ValueError(f"test_data[0] lacks the column {absent[0]!r}; expected the columns of X")
    return X_test if list(X_test.columns) == list(X.columns) else X_test[list(X.columns)]


def _encode(
    y: NDArray[Any], task: str | None, multilabel: bool
) -> tuple[str, NDArray[Any], tuple[Any, ...]]:
    """Return the task, the targets as numbers, and the classes."""
    if multilabel:
        return "multilabel", y if y.ndim == 2 else y[:, None], ()
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        if task == "classification":
            raise ValueError(
                "task is 'classification', and y has several columns; expected one label a row"
            )
        return "regression", y.astype(np.float64), ()
    return encode_labels(y, task)


def _rows(name: str, value: Any) -> Any:
    """Return an array, a CSR matrix or a pandas DataFrame of at least one row."""
    if hasattr(value, "to_pandas") and not hasattr(value, "iloc"):
        value = value.to_pandas()
    if hasattr(value, "tocsr"):
        value = _sparse(name, value)
    elif not hasattr(value, "iloc"):
        if isinstance(value, tuple) and len(value) == 2 and np.ndim(value[0]) == 2:
            raise TypeError(
                f"{name} is a tuple, perhaps of rows and targets; expected rows. Give the targets as `y`, and test "
                "rows with theirs as `test_data`"
            )
        value = as_array(name, value)
    if value.ndim != 2 or not value.shape[0]:
        raise ValueError(f"{name} has shape {value.shape}; expected (n, features), n at least 1")
    return value


def _sparse(name: str, value: Any) -> Any:
    """Return a CSR matrix whose rows can be taken apart."""
    if len(value.shape) != 2:
        raise ValueError(f"{name} has shape {value.shape}; expected (n, features), n at least 1")
    return csr(name, value)


def _targets(name: str, value: Any, rows: Any) -> NDArray[Any]:
    """Return targets, one for each row."""
    array = label_array(name, value)
    if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or len(array) != rows.shape[0]:
        raise ValueError(
            f"{name} has shape {np.shape(array)}; expected {rows.shape[0]} targets, one for each row"
        )
    return array


def _share(name: str, value: Any) -> float:
    """Return a share between 0 and 1."""
    number = finite_number(name, value, positive=True)
    if number >= 1:
        raise ValueError(f"{name} is {value!r}; expected a number above 0 and below 1")
    return number


def count_test_rows(test_size: Any, n: int) -> int:
    """Return the number of test rows for a share, or for a number of rows."""
    if isinstance(test_size, (int, np.integer)) and not isinstance(test_size, bool):
        return whole_number("test_size", test_size, 1, n - 1)
    rows = max(1, round(_share("test_size", test_size) * n))
    if n - rows < 2:
        raise ValueError(
            f"X has {n} rows, of which test_size holds out {rows}; expected at least 2 others"
        )
    return rows


def _group_codes(groups: ArrayLike, n: int) -> NDArray[np.int64]:
    array = as_array("groups", groups)
    if array.shape != (n,):
        raise ValueError(f"groups has shape {array.shape}; expected ({n},), one group a row")
    if absent := sum(map(is_missing, array.tolist())):
        raise ValueError(f"groups has {absent} missing values; expected none")
    codes = np.unique(array, return_inverse=True)[1].astype(np.int64)
    if codes.max() < 2:
        raise ValueError(f"groups has {codes.max() + 1} groups; expected at least 3")
    return codes


def _time_numbers(times: ArrayLike, n: int) -> NDArray[Any]:
    array = as_array("times", times)
    if array.shape != (n,) or array.dtype.kind not in "iufM":
        raise ValueError(
            f"times has shape {array.shape} and dtype {array.dtype}; expected ({n},) numbers or datetimes"
        )
    if not np.isfinite(array).all():
        raise ValueError("times has a value that is NaN or infinite; expected finite numbers")
    return array.astype("datetime64[ns]").astype(np.int64) if array.dtype.kind == "M" else array


def _folds(
    cv: Any, problem: Problem, groups: NDArray[Any] | None, times: NDArray[Any] | None
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return the row numbers of each fold."""
    folds = []
    try:
        with (
            warnings.catch_warnings()
        ):  # a splitter that ignores groups is refused below if that matters
            warnings.filterwarnings("ignore", "The groups parameter is ignored", UserWarning)
            made = cv.split(problem.X, problem.y, groups) if hasattr(cv, "split") else cv
            for train, test in made:
                folds.append((np.asarray(train, np.intp), np.asarray(test, np.intp)))
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"cv is {cv!r}; expected a splitter of scikit-learn or pairs of row numbers: {error}"
        ) from error
    n = len(problem.y)
    for i, (train, test) in enumerate(folds):
        both = np.concatenate([train, test])
        fits = (
            both.ndim == 1 and len(train) > 1 and len(test) and both.min() >= 0 and both.max() < n
        )
        if not fits or len(np.intersect1d(train, test)):
            raise ValueError(
                f"cv fold {i} is not two disjoint sets of row numbers below {n}, with 2 to train on"
            )
        if groups is not None and len(np.intersect1d(groups[train], groups[test])):
            raise ValueError(
                f"cv fold {i} has rows of one group on both sides; expected a splitter such as GroupKFold"
            )
        if times is not None and times[train].max() >= times[test].min():
            raise ValueError(
                f"cv fold {i} has test rows no later than those it trains on; expected TimeSeriesSplit on rows in "
                "order of time, or no times"
            )
    if not folds:
        raise ValueError("cv has no folds; expected at least one")
    return folds
