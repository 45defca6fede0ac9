"""From raw rows and labels to a `Table`: which rows and columns are left out, and what is said of it."""

from __future__ import annotations

import difflib
import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdrop.datasets.dataset import DataError
from cdrop.datasets.table import Column, Table, encode_labels, is_missing

__all__ = ["Options", "Rows", "assemble", "listed"]


@dataclass(frozen=True)
class Options:
    """The options of `load` that concern any table."""

    label: str | int | None = None
    task: str | None = None
    drop: Collection[str] = ()
    categories: Collection[str] = ()
    group: str | None = None
    time: str | None = None


class Rows(NamedTuple):
    """Features and raw labels of some rows; groups and times where there are any."""

    X: Any
    labels: NDArray[Any]
    groups: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[Any]) -> Rows:
        """Return some of the rows."""
        return Rows(*(None if part is None else _taken(part, rows) for part in self))


def _taken(part: Any, rows: NDArray[Any]) -> Any:
    """Return some rows of an array or a frame."""
    return part[rows] if isinstance(part, np.ndarray) else part.loc[rows].reset_index(drop=True)


def listed(names: Mapping[str, Any] | Collection[str]) -> str:
    """Return some names, for a message."""
    some = [repr(name[:50]) for name in itertools.islice(names, 10)]
    return ", ".join(some) + (" ..." if len(names) > len(some) else "") if some else "none"


def assemble(
    path: Path, names: Sequence[str], rows: Rows, test: Rows | None, options: Options
) -> Table:
    """Build a `Table` of numbers or images."""
    rows, notes = _labeled(rows, "row")
    if test is not None:
        test, more = _labeled(test, "test row")
        notes += more
    try:
        task, y, classes = _encoded(rows.labels, test, options.task)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    X, columns = rows.X, tuple(_judge(name, rows.X[:, i]) for i, name in enumerate(names))
    keep = [i for i, column in enumerate(columns) if column.used]
    n = len(X)
    held_out = None if test is None else (test.X, y[n:])
    if len(keep) < len(columns):
        X = X[:, keep]
        held_out = None if held_out is None else (held_out[0][:, keep], held_out[1])
    return Table(
        path.name,
        f"the file {path}",
        X,
        y[:n],
        task,
        classes,
        str(options.label or "y"),
        rows.groups,
        rows.times,
        held_out,
        tuple(notes),
        columns,
    )


def _labeled(rows: Rows, name: str) -> tuple[Rows, list[str]]:
    """Leave out the rows without a label."""
    if rows.labels.dtype.kind not in "fO":
        return rows, []
    absent = np.fromiter(map(is_missing, rows.labels.tolist()), bool, len(rows.labels))
    count = int(absent.sum())
    if not count:
        return rows, []
    return rows.take(~absent), [f"{count:,} {name}{'s' * (count > 1)} without label left out"]


def _encoded(
    labels: NDArray[Any], test: Rows | None, task: str | None
) -> tuple[str, NDArray[Any], tuple[str, ...]]:
    """Return task, targets of all rows, and classes; a test label must be known."""
    task, _, classes = encode_labels(labels, task)
    if test is None:
        return encode_labels(labels, task)
    _, y, every = encode_labels(np.concatenate([labels, test.labels]), task)
    unknown = set(every) - set(classes)
    if unknown:
        raise ValueError(f"test labels are {listed(sorted(unknown))}; expected labels of the other rows")
    return task, y, classes


def _judge(name: str, values: NDArray[Any]) -> Column:
    """Describe a column of numbers, and say why it is not a feature if it is none."""
    missing = int(np.isnan(values).sum())
    return Column(name, "number", 0, missing)
