"""Data of your own: NumPy's .npz files, and tables in .csv files.

Design
------
Nothing a file says is believed before it is checked, as with IDX files: the sizes that an array's
header promises are compared with what the file can hold before memory is taken, pickled objects are
never read, and what a compressed file unpacks to is bounded. A table is read a line at a time, and
no line may be long.

Labels become numbers from 0 in the order of their names: as numbers where all of them are whole
numbers, else as text.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
import os
import zipfile
import zlib
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cdrop._checks import finite_number, real_numbers, whole_number
from cdrop.datasets.dataset import (
    MOST_BYTES,
    MOST_RATIO,
    SPLITTING,
    DataError,
    DataNotFoundError,
    Dataset,
    in_shares,
)

__all__ = ["load_csv", "load_npz"]

_LONGEST_LINE = 16 << 20  # characters: a row of a million numbers
_MOST_ROWS = 16 << 20  # each takes some memory of its own, however few bytes it has in the file
_TEST_SHARE = 0.2
_KEYS = {  # Keras writes the small ones
    "train": (("X_train", "x_train", "X", "x"), ("y_train", "y")),
    "val": (("X_val", "x_val"), ("y_val",)),
    "test": (("X_test", "x_test"), ("y_test",)),
}


class _Part(NamedTuple):
    """Rows, and for each row the place of its label in `names`; `where` is for errors."""

    rows: NDArray[Any]
    labels: NDArray[np.int64]
    names: Sequence[str]
    where: str


# --- .npz ---


def load_npz(
    path: str | os.PathLike[str],
    *,
    test_share: float | None = None,
    validation: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load arrays that ``numpy.savez`` or ``numpy.savez_compressed`` has written.

    Parameters
    ----------
    path : str or path-like
        A file with the arrays ``X_train`` and ``y_train``, or ``X`` and ``y``; and if it has them ``X_test`` and
        ``y_test``, ``X_val`` and ``y_val`` (Keras's ``x_train`` and so on will do). ``X`` are numbers of shape
        (rows, features), or images, uint8 of shape (n, height, width); ``y`` are labels of shape (rows,), whole numbers
        or text. Any other array is left unread.
    test_share : float, optional
        The share of the rows that is set apart for testing where the file has no test rows: 0.2 by default.
    validation : int, optional
        How many of the rows are set apart for validation where the file has no validation rows: none by default.
    seed : int, default 0
        Which rows are set apart, from 0 to 2**64 - 1. Each class has its share of them.

    Returns
    -------
    Dataset
        Images as they are; a table as float32 if that holds its type exactly, else as float64. Labels are numbered in
        the order of their names, which are its ``classes``.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    DataError
        If the file is damaged, has pickled objects, lacks an array, or would unpack to more than 1 GiB or than it can
        hold, or has more than 16 million rows; if the arrays do not fit together, a number is NaN or infinite, or a
        label unknown to the training rows. The message names file and array, what was found and what was expected.
    TypeError, ValueError
        If an argument is unfit, or the file has the rows that were to be set apart.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from cdrop.datasets import load_npz
    >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
    ...     np.savez(file, X=np.eye(10), y=["yes", "no"] * 5)
    ...     _ = file.seek(0)
    ...     data = load_npz(file.name)
    >>> data.X_train.shape, data.X_test.shape, data.classes
    ((8, 10), (2, 10), ('no', 'yes'))
    """
    seed = whole_number("seed", seed, 0, 2**64)
    share = _check_share(_TEST_SHARE if test_share is None else test_share)
    held = 0 if validation is None else whole_number("validation", validation, 0, 2**62)
    place = Path(path)
    parts = _read_parts(place)
    for part, name, value in (
        ("test", "test_share", test_share),
        ("val", "validation", validation),
    ):
        if part in parts and value is not None:
            raise ValueError(
                f"{name} is {value!r}; expected None: {place} has {part} rows of its own"
            )
    return _assemble(place, parts, share, held, seed)


def _read_parts(path: Path) -> dict[str, _Part]:
    """Read and check the arrays of a .npz file."""
    if not os.path.isfile(path):
        raise DataNotFoundError(f"{path}: expected a file, found none")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # whatever zipfile, zlib and NumPy raise at damaged files
        raise DataError(
            f"{path}: expected a whole .npz file, found: {error or type(error).__name__}"
        ) from error


def _read_archive(archive: zipfile.ZipFile, path: Path) -> dict[str, _Part]:
    """Read the arrays of training rows, and of the other parts that are there."""
    there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    left = MOST_BYTES
    parts: dict[str, _Part] = {}
    for part, pair in _KEYS.items():
        keys = [next((key for key in keys if key in there), None) for keys in pair]
        if part != "train" and keys == [None, None]:
            continue
        arrays = []
        for key, wanted in zip(keys, pair, strict=True):
            if key is None:
                raise DataError(
                    f"{path}: expected an array {' or '.join(wanted)}, found {_listed(there)}"
                )
            arrays.append(_read_array(archive, there[key], f"{path}: {key}", left))
            left -= arrays[-1].nbytes
        rows, where = _check_rows(arrays[0], f"{path}: {keys[0]}"), f"{path}: {keys[1]}"
        parts[part] = _Part(rows, *_check_labels(arrays[1], len(rows), where), where)
    _check_alike(parts, path)
    return parts


def _read_array(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str, most: int
) -> NDArray[Any]:
    """Read an array of at most so many bytes, once its header is known to promise what the file can hold."""
    ratios = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MOST_RATIO}
    if info.compress_type not in ratios:  # NumPy writes no other
        raise DataError(
            f"{where}: expected it stored or deflated, found zip's method {info.compress_type}"
        )
    with archive.open(info) as stream:
        shape, dtype = _read_header(stream, where)
        need = stream.tell() + math.prod(shape) * dtype.itemsize
    promise = f"{need} bytes for {dtype} of shape {shape}, as its header says"
    # A dimension of 0 must not hide others that no array can have.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > most:
        raise DataError(
            f"{where}: expected at most {MOST_BYTES} bytes of arrays in a file, found {promise}"
        )
    if shape and shape[0] > _MOST_ROWS:
        raise DataError(f"{where}: expected at most {_MOST_ROWS} rows, found {promise}")
    packed = min(info.compress_size, os.path.getsize(str(archive.filename)))
    if need != info.file_size or need > packed * ratios[info.compress_type]:
        raise DataError(
            f"{where}: expected {promise}, found {info.file_size} bytes, {packed} of them in the file"
        )
    with archive.open(info) as stream:  # read to its end, where zipfile compares the checksum
        return npy.read_array(stream, allow_pickle=False)


def _read_header(stream: Any, where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of an array in NumPy's format."""
    version = npy.read_magic(stream)
    # Later ones are for the names of fields; their headers may be of any size.
    if version != (1, 0):
        raise DataError(f"{where}: expected NumPy's format 1.0, found {version[0]}.{version[1]}")
    shape, _, dtype = npy.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise DataError(
            f"{where}: expected numbers or text, found Python objects, which are never unpickled"
        )
    if dtype.kind not in "biufU" or dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise DataError(f"{where}: expected real numbers or text, found {dtype} of shape {shape}")
    return shape, dtype


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    """Return some names, for an error."""
    some = [repr(name[:50]) for name in itertools.islice(names, 10)]
    return ", ".join(some) + (" ..." if len(names) > len(some) else "") if some else "none"


def _check_rows(rows: NDArray[Any], where: str) -> NDArray[Any]:
    """Return images as they are, or a table of finite float32 or float64."""
    if rows.size and rows.ndim == 3 and rows.dtype == np.uint8:
        return rows
    if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: expected numbers of shape (rows, features), or images, uint8 of shape (n, height, width), "
            f"found {rows.dtype} of shape {rows.shape}"
        )
    kind = np.float32 if np.can_cast(rows.dtype, np.float32) else np.float64
    try:
        return real_numbers(where, rows, np.dtype(kind))
    except ValueError as error:
        raise DataError(str(error)) from error


def _check_labels(
    labels: NDArray[Any], rows: int, where: str
) -> tuple[NDArray[np.int64], list[str]]:
    """Return for each row the place of its label among the names, and the names."""
    if labels.shape == (rows, 1):
        labels = labels[:, 0]
    if labels.shape != (rows,):
        raise DataError(f"{where}: expected shape ({rows},), one label a row, found {labels.shape}")
    distinct, places = np.unique(labels, return_inverse=True)
    # A float that is no whole number is told with the others, by its name.
    return places.astype(np.int64), [str(label) for label in distinct.tolist()]


def _check_alike(parts: Mapping[str, _Part], path: Path) -> None:
    """Raise DataError unless the rows of all parts have the training rows' type and shape."""
    train = parts["train"].rows
    for name, part in parts.items():
        if part.rows.shape[1:] != train.shape[1:] or (part.rows.dtype == np.uint8) != (
            train.dtype == np.uint8
        ):
            raise DataError(
                f"{path}: expected {name} rows like the training rows, {train.dtype} of shape {train.shape[1:]}, "
                f"found {part.rows.dtype} of shape {part.rows.shape[1:]}"
            )


# --- .csv ---


def load_csv(
    path: str | os.PathLike[str],
    *,
    label: str,
    test_share: float = _TEST_SHARE,
    validation: int = 0,
    seed: int = 0,
) -> Dataset:
    r"""Load a table of numbers with a column of labels.

    Parameters
    ----------
    path : str or path-like
        A file of values between commas, in UTF-8, plain or compressed by gzip. The first line names the columns; every
        other is a row, each value a finite number but the label. Quotes may be around a value, and lines may be empty.
    label : str
        Name of the column with the labels: whole numbers, or text.
    test_share : float, default 0.2
        The share of the rows that is set apart for testing.
    validation : int, default 0
        How many of the rows are set apart for validation.
    seed : int, default 0
        Which rows are set apart, from 0 to 2**64 - 1. Each class has its share of them.

    Returns
    -------
    Dataset
        The table in float64. Labels are numbered in the order of their names, which are its ``classes``.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    DataError
        If the file is no such table, unpacks to more than 1 GiB, or has too few rows or more than 16 million. The
        message names the file, the line and the column, what was found and what was expected.
    TypeError, ValueError
        If an argument is unfit.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from cdrop.datasets import load_csv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "flowers.csv")
    ...     _ = path.write_text("length,width,kind\n" + "5.1,3.5,setosa\n7.0,3.2,versicolor\n" * 5)
    ...     data = load_csv(path, label="kind")
    >>> data.name, data.X_train.shape, data.classes
    ('flowers.csv', (8, 2), ('setosa', 'versicolor'))
    """
    if not isinstance(label, str):
        raise TypeError(f"label is {label!r}; expected the name of a column")
    seed = whole_number("seed", seed, 0, 2**64)
    share = _check_share(test_share)
    held = whole_number("validation", validation, 0, 2**62)
    place = Path(path)
    return _assemble(place, {"train": _read_csv(place, label)}, share, held, seed)


def _read_csv(path: Path, label: str) -> _Part:
    """Read and check a .csv file."""
    if not os.path.isfile(path):
        raise DataNotFoundError(f"{path}: expected a file, found none")
    try:
        with _opened(path) as stream:
            return _read_table(_lines(stream, path), path, label)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: expected a readable .csv file in UTF-8, found: {error}"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a text file, plain or compressed."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        content: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        # Spreadsheets write a mark of byte order, which is no part of the first name.
        with io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as stream:
            yield stream


def _lines(stream: TextIO, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield for each line that is not empty where it is, for errors, and its values."""
    left = MOST_BYTES
    for number in itertools.count(1):
        where = f"{path}: line {number}"
        line = stream.readline(_LONGEST_LINE + 1)
        left -= len(line)
        if len(line) > _LONGEST_LINE or left < 0 or number > _MOST_ROWS:
            raise DataError(
                f"{where}: expected at most {_LONGEST_LINE} characters in a line, {MOST_BYTES} in all "
                f"and {_MOST_ROWS} lines, found more"
            )
        if not line:
            return
        if not line.isspace():
            try:  # a reader for each line: a forgotten quote must not swallow the rest of the file
                yield where, next(csv.reader([line], strict=True, skipinitialspace=True))
            except csv.Error as error:
                raise DataError(
                    f"{where}: expected values between commas, found: {error}"
                ) from error


def _read_table(lines: Iterator[tuple[str, list[str]]], path: Path, label: str) -> _Part:
    """Read the header, and the rows below it."""
    where, header = next(lines, (str(path), []))
    header = [name.strip() for name in header]
    if header.count(label) != 1 or len(header) < 2:
        raise DataError(
            f"{where}: expected the names of the columns, one of them {label!r} and others beside it, "
            f"found {_listed(header)}"
        )
    at = header.index(label)
    columns = header[:at] + header[at + 1 :]
    numbers, labels = array("d"), array("q")
    names: dict[str, int] = {}
    for where, values in lines:
        if len(values) != len(header):
            raise DataError(
                f"{where}: expected {len(header)} values, as many as names, found {len(values)}"
            )
        name = values.pop(at).strip()
        if not name:
            raise DataError(f"{where}, column {label!r}: expected a label, found none")
        labels.append(names.setdefault(name, len(names)))
        numbers.extend(_numbers(values, columns, where))
    if not labels:
        raise DataError(f"{path}: expected rows below the names of the columns, found none")
    rows = np.frombuffer(numbers, np.float64).reshape(len(labels), len(columns))
    return _Part(rows, np.frombuffer(labels, np.int64), list(names), f"{path}, column {label!r}")


def _numbers(values: list[str], columns: list[str], where: str) -> list[float]:
    """Return the numbers of a row, all of them finite."""
    try:
        numbers = list(map(float, values))
    except ValueError:
        numbers = [math.nan]
    if not math.isfinite(sum(numbers)):  # or finite ones are so large that their sum is not
        for column, value in zip(columns, values, strict=True):
            if not _is_finite(value):
                raise DataError(
                    f"{where}, column {column!r}: expected a finite number, found {value[:50]!r}"
                )
    return numbers


def _is_finite(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


# --- both ---


def _check_share(share: float) -> float:
    """Return `test_share` as a float."""
    number = finite_number("test_share", share, positive=True)
    if number >= 1:
        raise ValueError(f"test_share is {share!r}; expected a number above 0 and below 1")
    return number


def _assemble(
    path: Path, parts: Mapping[str, _Part], share: float, held: int, seed: int
) -> Dataset:
    """Build the `Dataset`; what the file has no rows for is set apart from the training rows."""
    classes, labels = _number_classes(parts)
    X, y = parts["train"].rows, labels["train"]
    testing = 0 if "test" in parts else max(1, round(share * len(y)))
    drawn = _set_apart(y, held, testing, len(classes), seed, path)
    pairs = {name: (X[rows], y[rows]) for name, rows in drawn.items()}
    pairs |= {name: (parts[name].rows, labels[name]) for name in parts if name != "train"}
    arrays: dict[str, Any] = {}
    for name, (rows, numbers) in pairs.items():
        arrays |= {f"X_{name}": rows, f"y_{name}": numbers}
    return Dataset(path.name, f"the file {path}", **arrays, classes=classes)


def _set_apart(
    labels: NDArray[np.int64], validation: int, testing: int, classes: int, seed: int, path: Path
) -> dict[str, NDArray[np.intp]]:
    """Return which rows are for what, in the order of the file; each class has its share, and a row for training."""
    spare = len(labels) - testing - classes
    if testing and spare < 0:
        raise DataError(
            f"{path}: expected at least {testing + classes} rows, {testing} for testing and one of each class for "
            f"training, found {len(labels)}"
        )
    validation = whole_number("validation", validation, 0, max(spare, 0) + 1)
    order = in_shares(labels, seed, SPLITTING)
    cut = len(labels) - testing - validation
    rows = np.split(order, [cut, cut + validation])
    return dict(zip(("train", "val", "test"), map(np.sort, rows), strict=True))


def _number_classes(
    parts: Mapping[str, _Part],
) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """Return the names of the classes in order, and each part's labels as their numbers."""
    kinds = _order_of(
        {name for part in parts.values() for name in part.names}, parts["train"].where
    )
    ordered = sorted({kinds[name] for name in parts["train"].names})
    number = {kind: place for place, kind in enumerate(ordered)}
    if len(number) < 2:
        raise DataError(
            f"{parts['train'].where}: expected labels of at least 2 classes, found {_listed(list(map(str, ordered)))}"
        )
    labels = {}
    for name, part in parts.items():
        unknown = [text for text in part.names if kinds[text] not in number]
        if unknown:
            raise DataError(
                f"{part.where}: expected labels that the training rows have, found {_listed(unknown)}"
            )
        labels[name] = np.array([number[kinds[text]] for text in part.names], np.int64)[part.labels]
    return tuple(map(str, ordered)), labels


def _order_of(names: Collection[str], where: str) -> dict[str, Any]:
    """Return for each name of a label what it is ordered by: a whole number if all are numbers, else itself."""
    numbers = {name: _number(name) for name in names}
    if None in numbers.values():
        return {name: name for name in names}
    broken = [
        n for n, number in numbers.items() if isinstance(number, float) and not number.is_integer()
    ]
    if broken:
        raise DataError(
            f"{where}: expected whole numbers or text, the names of classes, found {_listed(broken)}"
        )
    return {name: int(number) for name, number in numbers.items() if number is not None}


def _number(text: str) -> int | float | None:
    """Return what number a text is, if it is one."""
    for kind in (int, float):  # large whole numbers are different as int only
        try:
            return kind(text)
        except ValueError:
            pass
    return None
