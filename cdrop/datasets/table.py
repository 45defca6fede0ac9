"""`Table`: rows without a split, as they were read; and what kind of target a column of labels is."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop._checks import as_array, choice
from cdrop._labels import label_array
from cdrop.datasets.dataset import MOST_CLASSES
from cdrop.datasets.transform import TableEncoder, Transformer, array_transformer

__all__ = ["Column", "Table", "encode_labels", "is_missing"]

# A target with more distinct numbers than this, in more than this share of the rows, is a quantity:
# the largest count of classes among the integer labels of common benchmarks is 26 (letters), in
# 20,000 rows, whereas counts, years and prices repeat in few rows. In a small table it is one with
# more than 5 distinct numbers of less than 4 rows each, unless they are 0, 1, 2, ... or 1, 2, 3, ...
_MOST_CLASSES, _CLASS_SHARE, _MOST_GAPS = 20, 0.05, 10
_FEW_CLASSES, _CLASS_ROWS = 5, 4
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)


@dataclass(frozen=True)
class Column:
    """A column of a table as it was read.

    Attributes
    ----------
    name : str
        Its name, or its number from 0 where the table has no header.
    kind : {"number", "text", "boolean", "date"}
        What its cells are.
    distinct, missing : int
        Number of distinct values, and of missing cells.
    used : bool
        Whether it is a feature.
    reason : str
        Why it is not one; empty for a feature.
    """

    name: str
    kind: str
    distinct: int
    missing: int
    used: bool = True
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with a target, without a split; nothing is imputed or scaled.

    Attributes
    ----------
    name, source : str
        What the data are, and where they came from.
    X : ndarray or pandas.DataFrame
        Numbers, float32 or float64 of shape (n, features), where NaN is a missing cell; images,
        uint8 of shape (n, height, width); or a frame with text, dates or booleans.
    y : ndarray, shape (n,)
        Numbers of the classes, int64; or the targets of regression, float64.
    task : {"classification", "regression"}
        What `y` is.
    classes : tuple of str
        The name of each class; empty for regression.
    target : str
        Name of the column of labels.
    groups : ndarray of int64, shape (n,), or None
        The group of each row; rows of one group belong on the same side of a split.
    times : ndarray of float64, shape (n,), or None
        When each row was observed, in any unit.
    test : tuple of (X, y), or None
        Rows for testing only, from their own file.
    notes : tuple of str
        What was left out or changed, a line each, which begins with its heading and ": ".
    columns : tuple of Column
        Every column but the target, used or not.
    """

    name: str
    source: str
    X: Any = field(repr=False)
    y: NDArray[Any] = field(repr=False)
    task: str
    classes: tuple[str, ...] = field(default=(), repr=False)
    target: str = "y"
    groups: NDArray[np.int64] | None = field(default=None, repr=False)
    times: NDArray[np.float64] | None = field(default=None, repr=False)
    test: tuple[Any, NDArray[Any]] | None = field(default=None, repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)
    columns: tuple[Column, ...] = field(default=(), repr=False)

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.classes)

    @property
    def has_images(self) -> bool:
        """Whether the rows are images."""
        return getattr(self.X, "dtype", None) == np.uint8

    @property
    def row_name(self) -> str:
        """What one row of `X` is called, "image" or "row"."""
        return "image" if self.has_images else "row"

    def transformer(self) -> Transformer:
        """Return a new, unfitted transformer of these rows.

        Returns
        -------
        Transformer
            `ImageScaler`, `Standardizer` or `TableEncoder`, to be fitted on the training rows of a
            split.

        Examples
        --------
        >>> import numpy as np
        >>> from cdrop.datasets import Table
        >>> table = Table("t", "made here", np.array([[1.0], [3.0]]), np.array([0, 1]), "classification")
        >>> table.transformer().fit(table.X).transform(table.X).tolist()
        [[-1.0], [1.0]]
        """
        used = [column for column in self.columns if column.used]
        if isinstance(self.X, np.ndarray):
            names = [column.name for column in used]
            return array_transformer(self.X, names=names)  # type: ignore[no-any-return]
        return TableEncoder({column.name: column.kind for column in used})

    def describe(self) -> dict[str, Any]:
        """Return what identifies the table, as plain values for JSON.

        Returns
        -------
        dict
            ``sha256`` is taken over features, targets and names of classes, so that it is the same
            wherever the data came from.
        """
        return {
            "name": self.name,
            "source": self.source,
            "sha256": self._digest(),
            "is_mnist": self.name == "MNIST",
            "row": self.row_name,
            "rows": len(self.y),
            "test": None if self.test is None else len(self.test[1]),
            "columns": [column.name for column in self.columns if column.used],
            "task": self.task,
            "target": self.target,
            "classes": list(self.classes),
            "notes": list(self.notes),
        }

    def facts(self) -> dict[str, str]:
        """Return what a reader must know of the table, as lines with a heading.

        Returns
        -------
        dict of str
            ``task`` and ``columns``; and from the notes ``left out``, ``rows``, ``cells`` and
            others, where there is something to say.
        """
        facts = {"task": self._task_line()}
        if self.columns:
            facts["columns"] = self._columns_line()
        for note in self.notes:
            key, text = note.split(": ", 1)
            facts[key] = f"{facts[key]}; {text}" if key in facts else text
        return facts

    def _task_line(self) -> str:
        """Return the line about the target, with what a guess without features achieves."""
        if self.task == "regression":
            low, high, mean = self.y.min(), self.y.max(), self.y.mean()
            return f"regression: {self.target}, {low:g} to {high:g}; always {mean:.4g}, the mean, has R2 0"
        counts = Counter(self.y.tolist()).most_common()
        some = "; ".join(f"{self.classes[label]}: {count:,}" for label, count in counts[:5])
        top, most = counts[0]
        return (
            f"classification: {self.target}, {self.n_classes} classes ({some}{'; ...' if len(counts) > 5 else ''}); "
            f"always {self.classes[top]} has accuracy {most / len(self.y):.3f}"
        )

    def _columns_line(self) -> str:
        """Return the line about the features by kind, and what was left out."""
        parts = []
        for kind, text in _KINDS.items():
            of_kind = [c for c in self.columns if c.used and c.kind == kind]
            counts = kind in ("text", "boolean")
            some = ", ".join(c.name + f" {c.distinct}" * counts for c in of_kind[:6])
            more = ", ..." if len(of_kind) > 6 else ""
            if of_kind:
                noun = text.removesuffix("s") if len(of_kind) == 1 else text
                parts.append(f"{len(of_kind)} {noun} ({some}{more})")
        left_out = sum(not column.used for column in self.columns)
        return f"{', '.join(parts)}; {left_out or 'none'} left out"

    def _digest(self) -> str:
        """Return the SHA-256 of features, targets and names of classes."""
        digest = hashlib.sha256()
        for X, y in [(self.X, self.y), *([self.test] if self.test else [])]:
            for values in [X] if isinstance(X, np.ndarray) else [X[name] for name in X]:
                digest.update(_plain_bytes(values))
            digest.update(_plain_bytes(y))
        if self.classes != tuple(map(str, range(self.n_classes))):
            digest.update(json.dumps(self.classes).encode())
        return digest.hexdigest()


_KINDS = {"number": "numbers", "text": "of text", "boolean": "booleans", "date": "dates"}


def _plain_bytes(values: Any) -> Any:
    """Return the bytes of an array or a column of a frame, little-endian."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        return json.dumps(["" if is_missing(cell) else str(cell) for cell in array]).encode()
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, NaT or pandas.NA."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):  # pandas.NA has no truth value
        return True


# --- targets ---


def encode_labels(
    y: ArrayLike, task: str | None = None
) -> tuple[str, NDArray[Any], tuple[str, ...]]:
    """Return what kind of target labels are, and the labels as numbers.

    Text, booleans and integers are classes; so are floats without a fraction. Numbers are the
    targets of regression if some have a fraction; if there are more than 20 distinct ones, in more
    than 5 % of the rows or spread over more than 10 times as many integers; or if there are more
    than 5, in less than 4 rows each, and they are not consecutive from 0 or 1.

    Parameters
    ----------
    y : array-like, shape (n,) or (n, 1)
        Labels of any kind, none missing.
    task : {"classification", "regression"}, optional
        What they are; by default as above.

    Returns
    -------
    task : {"classification", "regression"}
        The given one, or the one found.
    y : ndarray of int64 or float64, shape (n,)
        Numbers of the classes from 0, or the targets.
    classes : tuple of str
        Names of the classes, in the order of numbers where all are numbers, else of text; empty for
        regression.

    Raises
    ------
    TypeError, ValueError
        If labels are missing, infinite, of an unfit shape or kind, or all equal, or if there are more than 100,000
        classes.

    Examples
    --------
    >>> from cdrop.datasets import encode_labels
    >>> task, y, classes = encode_labels(["no", "yes", "no"])
    >>> task, y.tolist(), classes
    ('classification', [0, 1, 0], ('no', 'yes'))
    >>> encode_labels([1000, 2000, 1000])[2]
    ('1000', '2000')
    """
    check_task(task)
    labels = _label_array(y)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(
            f"y has {(~np.isfinite(labels)).sum()} infinite labels; expected finite ones"
        )
    distinct, places = _distinct(labels)
    if len(distinct) < 2:
        some = f"{str(distinct[0])[:50]!r} in each row" if len(distinct) else "no rows"
        raise ValueError(f"y has {some}; expected at least 2 distinct labels")
    task = task or _guess_task(distinct, len(labels))
    if task == "classification":
        _check_count(len(distinct))
        return task, *_in_order(distinct.tolist(), places)
    if labels.dtype.kind not in "iuf":
        raise ValueError(
            f"y has labels like {str(labels[0])[:50]!r}; expected numbers for task='regression'"
        )
    return task, labels.astype(np.float64), ()


def _check_count(classes: int) -> None:
    """Raise ValueError if the names of the classes would take the memory."""
    if classes > MOST_CLASSES:
        raise ValueError(
            f"y has {classes:,} distinct labels; expected at most {MOST_CLASSES:,} classes, or numbers with "
            "task='regression'"
        )


def check_task(task: Any) -> None:
    """Raise ValueError unless `task` is one, or None."""
    if task is not None:
        choice("task", task, ("classification", "regression"))


def _label_array(y: ArrayLike) -> NDArray[Any]:
    """Return labels as a vector of numbers, booleans or text, none of them missing."""
    labels = as_array("y", label_array("y", y))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"y has shape {labels.shape}; expected (n,), one label for each row")
    if labels.dtype.kind not in "biufUO":
        raise TypeError(f"y has dtype {labels.dtype}; expected numbers, booleans or text")
    absent = np.isnan(labels).sum() if labels.dtype.kind == "f" else 0
    if absent:
        raise ValueError(
            f"y has {absent} missing labels; expected none: leave those rows out of X and y"
        )
    return labels


def _distinct(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the distinct labels in order, and the place of each label among them."""
    if labels.dtype.kind != "O":
        distinct, places = np.unique(labels, return_inverse=True)
        return distinct, places.ravel()
    texts = labels.tolist()  # which an array of text would pad to the longest
    distinct = np.array(sorted(set(texts)), object)
    _check_count(len(distinct))
    place = {text: i for i, text in enumerate(distinct.tolist())}
    return distinct, np.fromiter(map(place.__getitem__, texts), np.intp, len(texts))


def _guess_task(values: NDArray[Any], rows: int) -> str:
    """Return the task that the distinct labels of some rows suggest."""
    if values.dtype.kind not in "iuf":
        return "classification"
    if values.dtype.kind == "f" and (values != np.floor(values)).any():
        return "regression"
    distinct = len(values)
    reach = float(values[-1]) - float(values[0]) + 1  # the numbers of classes have few gaps
    wide = distinct > _CLASS_SHARE * rows or reach > _MOST_GAPS * distinct
    many = distinct > _MOST_CLASSES and wide
    counted = values[0] in (0, 1) and reach == distinct
    sparse = distinct > _FEW_CLASSES and distinct * _CLASS_ROWS > rows and not counted
    return "regression" if many or sparse else "classification"


def _in_order(
    distinct: list[Any], places: NDArray[np.intp]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels as numbers of classes, and the classes; text of integers is ordered as integers."""
    names = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in distinct]
    order = list(range(len(names)))
    if all(map(_INTEGER.fullmatch, names)):
        order.sort(key=lambda place: int(names[place]))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[places], tuple(names[place] for place in order)
