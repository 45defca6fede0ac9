"""The data of an experiment, and the rows that each repeat trains, validates and tests on.

A split is a function of the targets, the seed and the sizes alone, so it does not depend on where a run takes place.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdrop._features import csr
from cdrop._shared import SharedRows
from cdrop.checkpoints import digest
from cdrop.datasets.dataset import SPLITTING, in_shares

__all__ = ["Part", "Problem", "Split", "Splitter", "take", "text"]

_GROUPS = 3  # purpose of the random order of groups, next to those of `cdrop.datasets`


class Split(NamedTuple):
    """Row numbers of one repeat; `test` is None where the test set is given."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp] | None


@dataclass(frozen=True, eq=False)
class Splitter:
    """How the rows are divided.

    Attributes
    ----------
    y : ndarray, shape (n,) or (n, outputs)
        Targets, by which classes are stratified.
    stratify : bool
        Whether each class has its share of every part.
    test_size : int
        Rows held out for testing; 0 where the test set is given.
    validation_size : float
        Share of the other rows that is held out for early stopping and for the choice among candidates.
    train_size : int or None
        Rows to train on, validation included; all that are left by default.
    groups : ndarray or None, shape (n,)
        Rows of one group stay on one side.
    times : ndarray or None, shape (n,)
        Every repeat tests on rows later than those it trains on; repeats move forward in time.
    folds : sequence of tuple or None
        Row numbers for training and testing, instead of random ones.
    repeats : int
        Repeats planned, into which `times` divides the rows.
    """

    y: NDArray[Any]
    stratify: bool
    test_size: int
    validation_size: float = 0.2
    train_size: int | None = None
    groups: NDArray[Any] | None = None
    times: NDArray[Any] | None = None
    folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]] | None = None
    repeats: int = 1

    def split(self, repeat: int, seed: int) -> Split:
        """Return the rows of a repeat, in ascending order; only `seed` and the sizes decide random ones."""
        rows, test = self._outer(repeat, seed)
        if self.train_size is not None:
            # By time, those next to the test rows: the first would be the same in each repeat.
            latest = self.times is not None and self.folds is None
            rows = rows[-self.train_size :] if latest else rows[: self.train_size]
        held = min(max(1, round(self.validation_size * len(rows))), len(rows) - 1)
        rows, validation = self._hold_out(rows, held, seed)
        parts = rows, validation, test
        return Split(*(None if p is None else np.sort(p) for p in parts))  # type: ignore[arg-type]

    def _outer(self, repeat: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
        """Divide all rows into those for testing and the others."""
        everything = np.arange(len(self.y))
        if self.folds is not None:
            rows, test = self.folds[repeat]
            return self._ordered(rows, seed), test
        if self.times is not None and self.test_size:
            # As scikit-learn's TimeSeriesSplit: equal test blocks at the end, each after all it trains on.
            block = len(self.y) // (self.repeats + 1)
            end = len(self.y) - (self.repeats - 1 - repeat) * block
            order = np.argsort(self.times, kind="stable")[:end]
            rows, test = order[:-block], order[-block:]
            # Rows of the same time as a test row are not earlier: neither side may have them but the test rows.
            return rows[self.times[rows] < self.times[test[0]]], test
        if not self.test_size:
            if self.times is not None:
                return np.argsort(self.times, kind="stable"), None
            return self._ordered(everything, seed), None
        if self.groups is not None:
            # Two groups are left, one of them for validation.
            rows, test = self._hold_out_groups(everything, self.test_size, seed, 2)
            return self._ordered(rows, seed), test
        return self._hold_out(everything, self.test_size, seed)

    def _hold_out(
        self, rows: NDArray[np.intp], size: int, seed: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Divide some rows into most of them and about `size`, by time, by groups, or at random."""
        if self.times is not None:
            rows = rows[np.argsort(self.times[rows], kind="stable")]
        elif self.groups is not None:
            return self._hold_out_groups(rows, size, seed)
        else:
            rows = self._ordered(rows, seed)
        return rows[:-size], rows[-size:]

    def _ordered(self, rows: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
        """Return rows in an order any beginning of which has each class's share."""
        labels = self.y[rows] if self.stratify else np.zeros(len(rows), np.int64)
        return rows[in_shares(labels, seed, SPLITTING)]

    def _hold_out_groups(
        self, rows: NDArray[np.intp], size: int, seed: int, left: int = 1
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Hold out whole groups, in a random order, until there are `size` rows or `left` groups are left."""
        assert self.groups is not None
        names, place, counts = np.unique(self.groups[rows], return_inverse=True, return_counts=True)
        order = in_shares(np.zeros(len(names), np.int64), seed, _GROUPS)
        enough = int(np.searchsorted(np.cumsum(counts[order]), size)) + 1
        held = np.isin(place, order[: min(enough, len(names) - left)])
        return rows[~held], rows[held]


class Part:
    """The rows of one repeat, as estimators and networks take them.

    Networks get numbers: the transformer is fitted on the rows that train, never on validation or test rows.
    """

    def __init__(self, problem: Problem, repeat: int, seed: int) -> None:
        self._problem, self._which = problem, (repeat, seed)

    @cached_property
    def _split(self) -> Split:
        """The split; what trains on all rows next to a given test set never asks for it."""
        return self._problem.splitter.split(*self._which)

    @cached_property
    def fit_rows(self) -> NDArray[np.intp]:
        """Numbers of the rows for training and validation."""
        problem = self._problem
        if not problem.tests_on_splits and problem.splitter.train_size is None:
            return np.arange(len(problem.y))
        return np.sort(np.concatenate([self._split.train, self._split.validation]))

    def targets(self, which: str) -> NDArray[Any]:
        """Return the targets of ``"fit"``, ``"train"``, ``"validation"`` or ``"test"`` rows."""
        problem = self._problem
        if which == "test" and problem.y_test is not None:
            return problem.y_test
        rows = self.fit_rows if which == "fit" else getattr(self._split, which)
        return problem.y[rows]

    def scaled_targets(self, fitted: str) -> Callable[[str], NDArray[Any]]:
        """Return what gives targets as networks learn them: numbers standardized by the rows that train."""
        if self._problem.task != "regression":
            return self.targets
        center, scale = self._scale(fitted)
        return lambda which: (self.targets(which) - center) / scale

    def unscaled(self, values: NDArray[Any], fitted: str) -> NDArray[np.float64]:
        """Return a network's numbers in the units of the targets."""
        center, scale = self._scale(fitted)
        shaped = values.reshape(-1) if self._problem.y.ndim == 1 else values
        return np.asarray(shaped.astype(np.float64) * scale + center)

    def _scale(self, fitted: str) -> tuple[Any, Any]:
        y = self.targets(fitted)
        scale = y.std(axis=0)
        return y.mean(axis=0), np.where(scale > 0, scale, 1.0)

    def _rows(self, which: str) -> Any:
        """Return rows as they were given."""
        problem = self._problem
        if which == "test" and not problem.tests_on_splits:
            return problem.X_test
        if which == "fit":
            whole = len(self.fit_rows) == len(problem.y)
            return problem.X if whole else take(problem.X, self.fit_rows)
        return take(problem.X, getattr(self._split, which))

    @cached_property
    def raw(self) -> dict[str, Any]:
        """Rows as they were given, for estimators: ``fit`` is training and validation rows together."""
        return {"fit": self._rows("fit"), "test": self._rows("test")}

    @cached_property
    def selection(self) -> dict[str, Any]:
        """Numbers for networks that use validation rows."""
        return self._numbers("train", "validation", "test")

    @cached_property
    def selection_raw(self) -> dict[str, Any]:
        """Rows as they were given, for estimators among which validation rows choose."""
        return {which: self._rows(which) for which in ("train", "validation", "test")}

    @cached_property
    def whole(self) -> dict[str, Any]:
        """Numbers for networks that train on validation rows, too."""
        return self._numbers("fit", "test")

    def _numbers(self, fitted: str, *others: str) -> dict[str, Any]:
        rows = {which: self._rows(which) for which in (fitted, *others)}
        if self._problem.transformer is None:
            return rows
        transformer = copy.deepcopy(self._problem.transformer)
        transformer.fit(rows[fitted], self.targets(fitted))
        return {which: transformer.transform(part) for which, part in rows.items()}


@dataclass(eq=False)
class Problem:
    """Checked data.

    Attributes
    ----------
    X : ndarray, sparse matrix or DataFrame, n rows
    y : ndarray
        Class numbers, numbers, or a matrix of them.
    task : {"classification", "multilabel", "regression"}
    classes : tuple
        Values of the classes, by number; empty for numbers.
    splitter : Splitter
    X_test, y_test : as `X` and `y`, or None
        The given test set.
    transformer : object or None
        With ``fit(X, y)`` and ``transform(X)``, which networks are trained behind.
    """

    X: Any
    y: NDArray[Any]
    task: str
    classes: tuple[Any, ...]
    splitter: Splitter
    X_test: Any = None
    y_test: NDArray[Any] | None = None
    transformer: Any = None

    def part(self, repeat: int, seed: int) -> Part:
        """Return the rows of a repeat; those of the last one are kept, because its arms share them."""
        key, part = self.__dict__.get("_last", (None, None))
        if key != (repeat, seed):
            part = Part(self, repeat, seed)
            self._last = ((repeat, seed), part)
        return part  # type: ignore[no-any-return]

    @cached_property
    def shared(self) -> SharedRows:
        """Checks and lists of the rows, for the networks of all arms and repeats."""
        return SharedRows()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what another process can make again."""
        left_out = ("_last", "shared")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    @property
    def tests_on_splits(self) -> bool:
        """Whether every repeat holds out its own test rows."""
        return self.y_test is None

    def sizes(self, repeat: int, seed: int) -> tuple[int, int]:
        """Return the numbers of training (with validation) and test rows of a repeat."""
        s = self.splitter
        if self.y_test is not None:
            return min(len(self.y), s.train_size or len(self.y)), len(self.y_test)
        if all(given is None for given in (s.folds, s.groups, s.times)):
            return min(len(self.y) - s.test_size, s.train_size or len(self.y)), s.test_size
        split = s.split(repeat, seed)
        assert split.test is not None
        return len(split.train) + len(split.validation), len(split.test)

    def memory(self, jobs: int, runs: int, row_bytes: int) -> int:
        """Return about how many bytes an experiment takes, without what Python and the libraries take.

        Parameters
        ----------
        jobs : int
            Runs at a time. Each has its copy of the rows of its split, their numbers in float32, and in the making of
            these two matrices of float64; and some 64 bytes a row for the order of the rows.
        runs : int
            Runs in all, each of which keeps a value per test row.
        row_bytes : int
            Bytes of such a value.
        """
        n, tested = len(self.y), self.sizes(0, 0)[1]
        given = _bytes(self.X) + _bytes(self.X_test)
        rows = n + (tested if self.y_test is not None else 0)
        numbers = 0 if self.transformer is None else 20 * rows * math.prod(self.X.shape[1:])
        copies = given if self.tests_on_splits else 0
        return given + jobs * (copies + numbers + 64 * n) + runs * tested * row_bytes

    def digest(self) -> str:
        """Return the SHA-256 of data, split rule and transformer."""
        s = self.splitter
        folds = None if s.folds is None else [np.asarray(p) for fold in s.folds for p in fold]
        rule = [s.stratify, s.test_size, s.validation_size, s.train_size, folds]
        by_time = s.repeats if s.times is not None else None
        arrays = [_plain(a) for a in (self.X, self.y, self.X_test, self.y_test, s.groups, s.times)]
        return digest([*arrays, rule, by_time, self.task, _settings(self.transformer)])


def take(X: Any, rows: NDArray[np.intp]) -> Any:
    """Return some rows of an array, a sparse matrix or a DataFrame."""
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def _bytes(X: Any) -> int:
    """Return the memory of rows."""
    if hasattr(X, "iloc"):
        return int(X.memory_usage(deep=True).sum())
    parts = (X.data, X.indices, X.indptr) if hasattr(X, "tocsr") else (X,)
    return sum(getattr(part, "nbytes", 0) for part in parts)


def _settings(transformer: Any) -> str:
    """Return a transformer's class and settings, without addresses."""
    of = getattr(transformer, "get_params", None)
    settings = of() if callable(of) else getattr(transformer, "__dict__", {})
    return f"{type(transformer).__qualname__} {text(settings)}"


def text(value: Any) -> str:
    """Return the text of an object without addresses, which differ in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _plain(value: Any) -> Any:
    """Return what `digest` takes: arrays of numbers as they are, others by their text."""
    if hasattr(value, "iloc"):
        return [[str(name), _plain(value[name].to_numpy())] for name in value.columns]
    if hasattr(value, "tocsr"):
        value = csr("X", value)
        return [list(value.shape), value.data, value.indices, value.indptr]
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biufmM":
        return value.astype(str).tolist()
    if isinstance(value, np.ndarray) and value.dtype.kind in "mM":
        return value.astype(np.int64)
    return value
