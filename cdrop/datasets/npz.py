"""Arrays in NumPy's .npz files.

Nothing that a file says is trusted before it is checked: the sizes in an array's header are
compared with what the file can hold before memory is allocated, pickled objects are never read, and
what a compressed file unpacks to is bounded.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cdrop._checks import cast
from cdrop._labels import joined
from cdrop.datasets.assemble import Rows, finish_arrays, listed
from cdrop.datasets.dataset import (
    MOST_BYTES,
    MOST_RATIO,
    MOST_ROWS,
    DataError,
    DataNotFoundError,
)
from cdrop.datasets.table import Table, check_task

__all__ = ["load_npz"]

_MOST_COLUMNS = 1 << 20  # each takes a name and more, however few rows there are
_KEYS = {  # Keras writes the small ones
    "train": (("X_train", "x_train", "X", "x"), ("y_train", "y")),
    "val": (("X_val", "x_val"), ("y_val",)),
    "test": (("X_test", "x_test"), ("y_test",)),
}


def load_npz(
    path: str | os.PathLike[str],
    *,
    task: str | None = None,
    test: str | os.PathLike[str] | None = None,
) -> Table:
    """Load arrays that ``numpy.savez`` or ``numpy.savez_compressed`` has written.

    Parameters
    ----------
    path : str or path-like
        A file with the arrays ``X_train`` and ``y_train``, or ``X`` and ``y``; and optionally
        ``X_test`` and ``y_test``, ``X_val`` and ``y_val``. Keras's ``x_train`` and so on are
        accepted. ``X`` are numbers of shape (rows, features), or images, uint8 of shape (n, height,
        width); ``y`` are labels of shape (rows,). Any other array is ignored. Validation rows are
        appended to the training rows: an experiment draws its own.
    task : {"classification", "regression"}, optional
        What the labels are; found by `encode_labels` by default.
    test : str or path-like, optional
        Another such file, all rows of which are for testing only.

    Returns
    -------
    Table
        Images as they are; numbers as float32 if that holds their type exactly, else as float64.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    DataError
        If the file is damaged, contains pickled objects, lacks an array, would take more than 1 GiB
        (tables as floats) or unpack to more than it can hold, or has more than 16 million rows or
        a million columns; if the arrays do not fit together, or test labels are unknown to the
        training rows.
    TypeError, ValueError
        If an argument is unfit, or both `path` and `test` have test rows.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from cdrop.datasets import load_npz
    >>> rows = np.random.default_rng(0).normal(size=(10, 3))
    >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
    ...     np.savez(file, X=rows, y=["yes", "no"] * 5)
    ...     _ = file.seek(0)
    ...     table = load_npz(file.name)
    >>> table.X.shape, table.classes
    ((10, 3), ('no', 'yes'))
    """
    place = Path(path)
    other = None if test is None else Path(test)
    check_task(task)
    parts = _read_parts(place)
    if other is not None:
        if "test" in parts:
            raise ValueError(f"test is {str(test)!r}; expected None: {place} has its own test rows")
        parts["test"] = _joined(_read_parts(other), other)
        _check_alike(parts, other)
    held_out = parts.pop("test", None)
    rows = _joined(parts, place)
    return finish_arrays(place.name, f"the file {place}", place, rows, held_out, task)


def _joined(parts: Mapping[str, Rows], path: Path) -> Rows:
    """Return the rows of all parts as one."""
    if len(parts) == 1:  # usually: no copy
        return parts["train"]
    try:
        labels = joined([(_KEYS[part][1][0], rows.labels) for part, rows in parts.items()])
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    return Rows(np.concatenate([rows.X for rows in parts.values()]), labels)


def _read_parts(path: Path) -> dict[str, Rows]:
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
            f"{path}: expected a complete .npz file, found: {error or type(error).__name__}"
        ) from error


def _read_archive(archive: zipfile.ZipFile, path: Path) -> dict[str, Rows]:
    """Read the arrays of training rows, and of the other parts that are there."""
    there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    left = MOST_BYTES
    parts: dict[str, Rows] = {}
    for part, pair in _KEYS.items():
        keys = [next((key for key in keys if key in there), None) for keys in pair]
        if part != "train" and keys == [None, None]:
            continue
        arrays = []
        for key, wanted in zip(keys, pair, strict=True):
            if key is None:
                raise DataError(
                    f"{path}: expected an array {' or '.join(wanted)}, found {listed(there)}"
                )
            arrays.append(_read_array(archive, there[key], f"{path}: {key}", left))
            left -= _held(arrays[-1].shape, arrays[-1].dtype)
        X, labels = _check_rows(arrays[0], f"{path}: {keys[0]}"), arrays[1]
        if labels.shape not in ((len(X),), (len(X), 1)):
            raise DataError(
                f"{path}: {keys[1]}: expected shape ({len(X)},), one label a row, found {labels.shape}"
            )
        parts[part] = Rows(X, _check_text(labels.ravel(), f"{path}: {keys[1]}"))
    _check_alike(parts, path)
    return parts


def _read_array(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str, most: int
) -> NDArray[Any]:
    """Read an array of at most this many bytes, once its header is known to promise what the file can hold."""
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
    if _held(shape, dtype) > most:
        raise DataError(
            f"{where}: expected at most {MOST_BYTES} bytes of arrays in a file, images as bytes and tables as floats, "
            f"found {promise}"
        )
    if shape and shape[0] > MOST_ROWS:
        raise DataError(f"{where}: expected at most {MOST_ROWS} rows, found {promise}")
    if len(shape) == 2 and shape[1] > _MOST_COLUMNS:
        raise DataError(f"{where}: expected at most {_MOST_COLUMNS} columns, found {promise}")
    packed = min(info.compress_size, os.path.getsize(str(archive.filename)))
    if need != info.file_size or need > packed * ratios[info.compress_type]:
        raise DataError(
            f"{where}: expected {promise}, found {info.file_size} bytes, {packed} of them in the file"
        )
    with archive.open(info) as stream:  # read to its end, where zipfile compares the checksum
        return npy.read_array(stream, allow_pickle=False)


def _held(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the bytes that an array takes when it has been read: tables become floats."""
    size = dtype.itemsize
    if len(shape) == 2 and dtype.kind in "biuf":
        size = _float_for(dtype).itemsize
    return math.prod(max(side, 1) for side in shape) * size


def _float_for(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of float that holds numbers of another type."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)


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


def _check_rows(rows: NDArray[Any], where: str) -> NDArray[Any]:
    """Return images as they are, or a table of float32 or float64."""
    if rows.size and rows.ndim == 3 and rows.dtype == np.uint8:
        return rows
    if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: expected numbers of shape (rows, features), or images, uint8 of shape (n, height, width), "
            f"found {rows.dtype} of shape {rows.shape}"
        )
    return cast(rows, _float_for(rows.dtype))


def _check_text(labels: NDArray[Any], where: str) -> NDArray[Any]:
    """Return labels; DataError if they are text that Python cannot hold, or cannot print."""
    if labels.dtype.kind == "U":
        codes = labels.view(labels.dtype.str[0] + "u4")
        bad = codes[(codes > 0x10FFFF) | (codes >> 11 == 0xD800 >> 11)]
        if bad.size:
            raise DataError(f"{where}: expected Unicode text, found the code {bad[0]:#x}")
    return labels


def _check_alike(parts: Mapping[str, Rows], path: Path) -> None:
    """Raise DataError unless the rows of all parts have the training rows' type and shape."""
    train = parts["train"].X
    for name, part in parts.items():
        if part.X.shape[1:] != train.shape[1:] or (part.X.dtype == np.uint8) != (
            train.dtype == np.uint8
        ):
            raise DataError(
                f"{path}: expected {name} rows like the training rows, {train.dtype} of shape {train.shape[1:]}, "
                f"found {part.X.dtype} of shape {part.X.shape[1:]}"
            )
