"""From typed columns to a `Table`: which rows and columns are left out, and the notes about it."""

from __future__ import annotations

import difflib
import itertools
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import truth_value
from cdrop._labels import joined
from cdrop.datasets.columns import Cells, drop_infinite, has_extra, number_reasons
from cdrop.datasets.dataset import DataError
from cdrop.datasets.table import Column, Table, check_task, encode_labels, is_missing

__all__ = [
    "Options",
    "Read",
    "Rows",
    "assemble",
    "build",
    "find",
    "finish_arrays",
    "listed",
    "unique",
]

_LEAST = 3  # rows of a class: one each for training, validation and testing
_EXACT = 2.0**53  # from here on not every integer is a float
_SCREEN = 1000  # rows that must agree before a column is compared with the target as a whole


@dataclass(frozen=True)
class Options:
    """The options of `load` for tables, as it documents them."""

    label: str | int | None = None
    task: str | None = None
    drop: Collection[str] = ()
    categories: Collection[str] = ()
    test: Any = None
    group: str | None = None
    time: str | None = None
    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    missing: Collection[str] = ()
    header: bool = True

    def __post_init__(self) -> None:
        for name in ("drop", "categories", "missing"):
            value = getattr(self, name)
            value = (value,) if isinstance(value, str) else value
            if not isinstance(value, Collection) or not all(isinstance(v, str) for v in value):
                raise TypeError(f"{name} is {value!r}; expected strings")
            object.__setattr__(self, name, tuple(value))
        if isinstance(self.label, bool) or not isinstance(self.label, str | int | None):
            raise TypeError(f"label is {self.label!r}; expected the name or number of a column")
        for name in ("group", "time", "sep", "decimal", "encoding"):
            if not isinstance(value := getattr(self, name), str | None):
                raise TypeError(f"{name} is {value!r}; expected a string or None")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"decimal is {self.decimal!r}; expected '.', ',' or None")
        truth_value("header", self.header)
        check_task(self.task)


@dataclass
class Read:
    """A table as it was read: numbers in one array, other columns one by one."""

    names: list[str]
    X: NDArray[Any]
    numbers: list[str]
    others: dict[str, Cells]
    notes: list[str] = field(default_factory=list)
    infinite: int = 0

    @classmethod
    def of(cls, columns: Mapping[str, Cells], notes: Sequence[str] = ()) -> Read:
        """Return a table of columns."""
        numbers = [name for name, cells in columns.items() if cells.kind == "number"]
        others = {name: cells for name, cells in columns.items() if cells.kind != "number"}
        rows = len(next(iter(columns.values())).values)
        X = np.column_stack([columns[n].values for n in numbers] or [np.empty((rows, 0))])
        infinite = sum(cells.infinite for cells in columns.values())
        return cls(list(columns), X, numbers, others, list(notes), infinite)

    def pick(self, name: str) -> Cells:
        """Return a column."""
        if name in self.others:  # also the target, if it is a number
            return self.others[name]
        return Cells("number", np.array(self.X[:, self.numbers.index(name)]))


def listed(names: Mapping[str, Any] | Collection[str]) -> str:
    """Return some names, for a message."""
    some = [repr(name[:50]) for name in itertools.islice(names, 10)]
    return ", ".join(some) + (" ..." if len(names) > len(some) else "") if some else "none"


def find(names: Sequence[str], wanted: str | int, option: str, where: object) -> str:
    """Return the name of a column given by its name, its number from 0, or as ``last``."""
    if names.count(wanted) == 1 if isinstance(wanted, str) else False:
        return str(wanted)
    place = -1 if wanted == "last" else wanted
    if isinstance(place, str) and place.lstrip("-").isascii() and place.lstrip("-").isdigit():
        place = int(place)
    if isinstance(place, int) and -len(names) <= place < len(names):
        return names[place]
    near = difflib.get_close_matches(str(wanted), names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DataError(
        f"{where}: {option} is {wanted!r}; expected a column among {listed(names)}, "
        f"a number from 0 to {len(names) - 1}, or 'last'{hint}"
    )


def unique(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return names without doubles or gaps, and a note about them."""
    seen: Counter[str] = Counter()
    result, doubled = [], []
    for place, name in enumerate(names):
        name = name or f"unnamed {place}"
        seen[name] += 1
        if seen[name] > 1:
            doubled.append(name)
            name = f"{name}.{seen[name] - 1}"
        result.append(name)
    return result, [f"names: {listed(doubled)} more than once; the later ones are numbered"] * bool(
        doubled
    )


# --- columns ---


def assemble(path: Path, options: Options, reader: Callable[..., Read]) -> Table:
    """Build a `Table` from a file, and from the file of test rows if there is one."""
    other = None if options.test is None else Path(options.test)
    if other is not None and other.exists() and path.exists() and path.samefile(other):
        raise ValueError(
            f"test is {str(other)!r}, the file of the training rows itself; expected a file of other rows, or none: "
            "then the rows are split"
        )
    read = reader(path, options)
    test = None if other is None else reader(other, options, like=read)
    return build(path.name, f"the file {path}", path, read, options, test)


def build(
    name: str, source: str, where: object, read: Read, options: Options, test: Read | None
) -> Table:
    """Build a `Table`; `where` begins the errors."""
    label = find(read.names, "last" if options.label is None else options.label, "label", where)
    columns = _columns(read, label, options, where)
    used = [column.name for column in columns if column.used]
    _check_used(columns, label, where)
    rows = _rows(read, label, used, options, where)
    held_out = None
    if test is not None:
        absent = [column for column in [label, *used] if column not in test.names]
        if absent:
            raise DataError(
                f"{where}: test rows have no column {listed(absent)}; expected the same columns"
            )
        held_out = _rows(test, label, used, Options(), where)
    notes = [*read.notes, *_column_notes(columns, read.infinite)]
    return finish(name, source, where, rows, held_out, options.task, label, columns, notes)


def _columns(read: Read, label: str, options: Options, where: object) -> tuple[Column, ...]:
    """Describe every column but the target."""
    said = {find(read.names, name, "drop", where): "dropped" for name in options.drop}
    kept = {find(read.names, name, "categories", where) for name in options.categories}
    for option in ("group", "time"):
        if (name := getattr(options, option)) is not None:
            said[find(read.names, name, option, where)] = f"used as {option}"
    if label in said:
        raise DataError(
            f"{where}: {label!r} is the label; expected another column where it is {said[label]}"
        )
    reasons, gaps = number_reasons(read.X, read.numbers)
    numbers = dict(zip(read.numbers, zip(reasons, gaps.tolist(), strict=True), strict=True))
    columns = []
    for name in read.names:
        if name == label:
            continue
        if name in numbers:
            kind, distinct, (reason, missing) = "number", 0, numbers[name]
        else:
            cells = read.others[name]
            kind, distinct, missing = cells.kind, len(cells.levels), int(cells.missing.sum())
            reason = "" if name in kept else cells.reason(name)
        reason = said.get(name, reason)
        columns.append(Column(name, kind, distinct, missing, not reason, reason))
    return tuple(columns)


def _check_used(columns: Sequence[Column], label: str, where: object) -> None:
    """Raise DataError unless there are features, and the extra that they need is installed."""
    if not any(column.used for column in columns):
        found = "; ".join(f"{column.name!r}: {column.reason}" for column in columns[:10]) or "none"
        raise DataError(
            f"{where}: expected columns other than the label {label!r} to learn from, found {found}"
        )
    unfit = [column.name for column in columns if column.used and column.kind != "number"]
    if unfit and not has_extra():
        raise DataError(
            f"{where}: columns {', '.join(map(repr, unfit))} are not numbers; expected numbers, or pandas and "
            'scikit-learn: pip install "cdrop[table]", '
            f"or leave them out (drop={unfit!r}, or --drop {shlex.quote(','.join(unfit))})"
        )


def _column_notes(columns: Sequence[Column], infinite: int) -> list[str]:
    """Return the notes about columns that were left out and cells that are missing."""
    notes = []
    out = [f"{column.name} ({column.reason})" for column in columns if not column.used]
    if out:
        notes.append(f"left out: {', '.join(out)}")
    gaps = [f"{c.name} {c.missing:,}" for c in columns if c.used and c.missing]
    if gaps:
        count = sum(column.missing for column in columns if column.used)
        some = ", ".join(gaps[:6]) + (", ..." if len(gaps) > 6 else "")
        notes.append(
            f"cells: {count:,} missing ({some}); numbers take the median of the training rows, and a column "
            "says where; of text, missing is a value"
        )
    if infinite:
        notes.append(f"cells: {infinite:,} infinite, taken as missing")
    return notes


# --- rows ---


class Rows(NamedTuple):
    """Features and raw labels of some rows; groups and times where there are any."""

    X: Any
    labels: NDArray[Any]
    groups: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None
    gaps: tuple[str, ...] = ()  # the labels that were taken as missing

    def take(self, rows: NDArray[np.bool_]) -> Rows:
        """Return some of the rows."""
        X = self.X[rows] if isinstance(self.X, np.ndarray) else self.X[rows].reset_index(drop=True)
        groups = None if self.groups is None else self.groups[rows]
        times = None if self.times is None else self.times[rows]
        return Rows(X, self.labels[rows], groups, times, self.gaps)


def _rows(read: Read, label: str, used: list[str], options: Options, where: object) -> Rows:
    """Return the features, labels, groups and times of a table."""
    cells = read.pick(label)
    if cells.kind == "date":
        raise DataError(
            f"{where}: label {label!r} is a column of dates; expected classes or numbers"
        )
    groups, times = None, None
    if options.group is not None:
        groups = _key(read, options.group, "group", where)
        groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    if options.time is not None:
        times = _key(read, options.time, "time", where).astype(np.float64)
    return Rows(_features(read, used), cells.objects(), groups, times, cells.gaps)


def _key(read: Read, name: str, option: str, where: object) -> NDArray[Any]:
    """Return the groups or times in a column, none of them missing."""
    name = find(read.names, name, option, where)
    cells = read.pick(name)
    absent = int(cells.missing.sum())
    if absent:
        raise DataError(f"{where}: {option} {name!r} has {absent} missing cells; expected none")
    if option == "time" and cells.kind not in ("number", "date"):
        raise DataError(
            f"{where}: time {name!r} is text like {cells.levels[0][:50]!r}; expected numbers or dates"
        )
    return cells.values


def _features(read: Read, used: list[str]) -> Any:
    """Return the features: an array if all are numbers, else a frame."""
    if used == read.numbers:
        return read.X
    places = {name: place for place, name in enumerate(read.numbers)}
    if all(name in places for name in used):
        return np.ascontiguousarray(read.X[:, [places[name] for name in used]])
    import pandas as pd

    columns = {
        name: read.X[:, places[name]] if name in places else read.others[name].frame_column()
        for name in used
    }
    return pd.DataFrame(columns)


def finish_arrays(
    name: str, source: str, where: object, rows: Rows, test: Rows | None, task: str | None
) -> Table:
    """Build a `Table` of arrays: images, or numbers whose columns have numbers for names."""
    if rows.X.dtype == np.uint8 and rows.X.ndim == 3:
        return finish(name, source, where, rows, test, task)
    names = list(map(str, range(rows.X.shape[1])))
    infinite = 0
    for part in (rows, test):
        infinite += 0 if part is None else drop_infinite(part.X)
    reasons, gaps = number_reasons(rows.X, names)
    columns = tuple(
        Column(name, "number", 0, int(missing), not reason, reason)
        for name, reason, missing in zip(names, reasons, gaps, strict=True)
    )
    _check_used(columns, "y", where)
    keep = [column.used for column in columns]
    if not all(keep):
        rows = rows._replace(X=rows.X[:, keep])
        test = None if test is None else test._replace(X=test.X[:, keep])
    notes = _column_notes(columns, infinite)
    return finish(name, source, where, rows, test, task, "y", columns, notes)


def finish(
    name: str,
    source: str,
    where: object,
    rows: Rows,
    test: Rows | None,
    task: str | None,
    label: str = "y",
    columns: tuple[Column, ...] = (),
    notes: Sequence[str] = (),
) -> Table:
    """Leave out rows without label, and number the labels."""
    rows, gone = _labeled(rows, "rows")
    notes = [*notes, *gone]
    if test is not None:
        test, gone = _labeled(test, "test rows")
        notes += gone
    try:
        task, y, classes = _encoded(rows.labels, test, task)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: label {label!r}: {str(error).removeprefix('y ')}") from error
    if task == "classification":
        _check_exact(rows.labels, label, where)
    n = len(rows.labels)
    notes += _target_notes(y[:n], task, classes, rows, columns, label)
    held_out = None if test is None else (test.X, y[n:])
    return Table(
        name=name,
        source=source,
        X=rows.X,
        y=y[:n],
        task=task,
        classes=classes,
        target=label,
        groups=rows.groups,
        times=rows.times,
        test=held_out,
        notes=tuple(notes),
        columns=columns,
    )


def _check_exact(labels: NDArray[Any], label: str, where: object) -> None:
    """Raise DataError if classes are integers so large that several are one 64-bit float."""
    if labels.dtype.kind == "f" and np.abs(labels).max() >= _EXACT:
        raise DataError(
            f"{where}: label {label!r} has integers of 2**53 and more, of which several may be one class; expected "
            f"them as text: categories=[{label!r}] (--categories {shlex.quote(label)})"
        )


def _labeled(rows: Rows, kind: str) -> tuple[Rows, list[str]]:
    """Leave out the rows without a label; return the others, and a note."""
    if rows.labels.dtype.kind not in "fO":
        return rows, []
    if rows.labels.dtype.kind == "f":
        absent = np.isnan(rows.labels)
    else:
        absent = np.fromiter(map(is_missing, rows.labels.tolist()), bool, len(rows.labels))
    count = int(absent.sum())
    if not count:
        return rows, []
    shown = f" ({', '.join(map(repr, rows.gaps))})" if rows.gaps else ""
    note = f"{kind}: {count:,} of {len(absent):,} without label{shown}, left out"
    return rows.take(~absent), [note]


def _encoded(
    labels: NDArray[Any], test: Rows | None, task: str | None
) -> tuple[str, NDArray[Any], tuple[str, ...]]:
    """Return task, targets of all rows, and classes; a label of a test row must be known."""
    task, y, classes = encode_labels(labels, task)
    if test is None:
        return task, y, classes
    both = joined([("y", labels), ("y of test rows", test.labels)])
    _, y, every = encode_labels(both, task)
    unknown = set(every) - set(classes)
    if unknown:
        raise ValueError(
            f"y has test labels {listed(sorted(unknown))}; expected labels of the other rows"
        )
    return task, y, classes


def _target_notes(
    y: NDArray[Any],
    task: str,
    classes: Sequence[str],
    rows: Rows,
    columns: Sequence[Column],
    label: str,
) -> list[str]:
    """Return warnings about classes, about the task that was found, and about features that give the answer."""
    notes = []
    folded = Counter(" ".join(name.lower().split()) for name in classes)
    similar = [name for name in classes if folded[" ".join(name.lower().split())] > 1]
    if similar:
        notes.append(f"classes: {listed(similar)} differ only in case or spaces, and are distinct")
    counts = np.bincount(y, minlength=len(classes)) if classes else np.zeros(0, int)
    few = [f"{name} {count}" for name, count in zip(classes, counts, strict=True) if count < _LEAST]
    if few:
        notes.append(
            f"classes: fewer than {_LEAST} rows in {', '.join(few[:6])}{', ...' if few[6:] else ''}"
        )
    if task == "regression" and (y == np.floor(y)).all():
        notes.append(
            f"task: {label} has {len(np.unique(y)):,} distinct integers, taken as a quantity"
        )
    used = [c.name for c in columns if c.used]
    given = [name for place, name in enumerate(used) if _gives_away(rows.X, place, name, y)]
    if given:
        notes.append(f"warning: {listed(given)} determines {label}: is it known before {label}?")
    return notes


def _gives_away(X: Any, place: int, name: str, y: NDArray[Any]) -> bool:
    """Return whether a feature is the target under another name: equal up to scale, or value by value."""
    values: Any = X[:, place] if isinstance(X, np.ndarray) else X[name]
    if getattr(values, "dtype", None) == "category":
        values = values.cat.codes.to_numpy()
    for part in (slice(_SCREEN), slice(None)):
        a, b = np.asarray(values[part]), y[part]
        if a.dtype.kind not in "if" or np.isnan(a.astype(float)).any() or not _one_to_one(a, b):
            return False
    return True


def _one_to_one(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Return whether two columns determine each other, and the target repeats or is a multiple."""
    pairs = len(np.unique(np.column_stack([a.astype(float), b.astype(float)]), axis=0))
    if not pairs == len(np.unique(a)) == len(np.unique(b)) or pairs < 2:
        return False
    if b.dtype.kind == "i":
        return True
    return bool(abs(np.corrcoef(a.astype(float), b)[0, 1]) > 1 - 1e-9)
