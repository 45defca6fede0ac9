"""Checks of the inputs, dense or sparse. SciPy is not imported: its objects are recognized by what they can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import as_array, cast, real_numbers
from cdrop._kernels import all_finite

__all__ = ["Features", "SparseRows", "checked_rows", "csr", "feature_matrix"]


@dataclass(frozen=True)
class SparseRows:
    """Rows of a sparse matrix: row r has ``data[indptr[r]:indptr[r + 1]]`` in the columns that `indices` has there.

    Columns ascend within a row. `indices` and `indptr` are copies: the kernels index with them.
    """

    data: NDArray[Any]
    indices: NDArray[np.uint32]
    indptr: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.indptr) - 1


Features = NDArray[Any] | SparseRows


def feature_matrix(name: str, value: Any, columns: int) -> Any:
    """Return an ndarray or a sparse matrix in CSR form, with `columns` columns; its entries are not looked at."""
    sparse = hasattr(value, "tocsr")
    matrix: Any = value if sparse else as_array(name, value)
    shape = tuple(matrix.shape)
    if len(shape) != 2 or shape[1] != columns:
        raise ValueError(f"{name} has shape {shape}; expected (rows, {columns})")
    return csr(name, matrix, whole=False) if sparse else matrix


def csr(name: str, matrix: Any, *, whole: bool = True) -> Any:
    """Return a sparse matrix in CSR form, whose rows can be taken apart; if `whole`, its columns are checked too.

    What it says of itself is checked before: SciPy's conversions read and write wherever it points to.
    """
    if (check := _CHECKS.get(getattr(matrix, "format", ""))) is not None:
        check(name, matrix, tuple(matrix.shape))
    matrix = matrix.tocsr()
    _check_csr(name, matrix, tuple(matrix.shape))
    if whole:
        _check_columns(name, matrix)
    return matrix


def checked_rows(name: str, matrix: Any, dtype: np.dtype[Any], first: int = 0) -> Features:
    """Return rows as the engine takes them, copied only if they must be, with finite entries of `dtype`.

    Parameters
    ----------
    name : str
    matrix : ndarray or sparse matrix
        From `feature_matrix`, or rows of that. It is not changed.
    dtype : dtype
    first : int
        What errors call the first row.
    """
    if isinstance(matrix, np.ndarray):
        return real_numbers(name, matrix, dtype, first)
    return _sparse_rows(name, matrix, dtype, first)


def _sparse_rows(name: str, matrix: Any, dtype: np.dtype[Any], first: int) -> SparseRows:
    data, indices, indptr = (
        np.asarray(part) for part in (matrix.data, matrix.indices, matrix.indptr)
    )
    if data.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {data.dtype}; expected real numbers")
    _check_csr(name, matrix, tuple(matrix.shape))
    _check_columns(name, matrix)
    data, indices = data[: indptr[-1]], indices[: indptr[-1]].astype(np.uint32)
    indptr = indptr.astype(np.int64)
    if not _ascends(indices, indptr):
        data, indices, indptr = _canonical(data, indices, indptr)
    data = cast(data, dtype)
    if not all_finite(data):
        at = int(np.flatnonzero(~np.isfinite(data))[0])
        row = first + int(np.searchsorted(indptr, at, side="right")) - 1
        raise ValueError(
            f"{name}[{row}, {indices[at]}] is {data[at]}; expected finite numbers of {dtype}"
        )
    return SparseRows(data, indices, indptr)


def _check_pointers(name: str, matrix: Any, entries: int, rows: int) -> None:
    """Validate where the rows begin: what takes rows apart would read out of bounds."""
    indices, indptr = np.asarray(matrix.indices), np.asarray(matrix.indptr)
    if indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise TypeError(
            f"{name} has indices of {indices.dtype} and indptr of {indptr.dtype}; expected integers"
        )
    fits = indices.ndim == 1 and indptr.shape == (rows + 1,) and indptr[0] == 0
    if not fits or (indptr[1:] < indptr[:-1]).any() or indptr[-1] > min(entries, len(indices)):
        raise ValueError(
            f"{name} has an indptr that does not fit its {rows} rows and {entries} entries; expected ascending "
            "numbers from 0 to at most the number of its entries"
        )


def _check_indices(name: str, kind: str, used: NDArray[Any], count: int) -> None:
    """Validate rows or columns: what sorts or adds by them would write out of bounds."""
    if used.dtype.kind not in "iu":
        raise TypeError(f"{name} has {kind} indices of {used.dtype}; expected integers")
    if len(used) and not (used.min() >= 0 and used.max() < count):
        raise ValueError(
            f"{name} has {kind} indices from {used.min()} to {used.max()}; expected 0 to {count - 1}"
        )


def _check_csr(name: str, matrix: Any, shape: tuple[int, ...]) -> None:
    if np.ndim(matrix.data) != 1:
        raise ValueError(f"{name} has entries of shape {np.shape(matrix.data)}; expected a vector")
    _check_pointers(name, matrix, len(matrix.data), shape[0])


def _check_columns(name: str, matrix: Any) -> None:
    used = np.asarray(matrix.indices)[: matrix.indptr[-1]]
    _check_indices(name, "column", used, matrix.shape[1])


def _check_csc(name: str, matrix: Any, shape: tuple[int, ...]) -> None:
    _check_csr(name, matrix, shape[::-1])
    _check_indices(name, "row", np.asarray(matrix.indices)[: matrix.indptr[-1]], shape[0])


def _check_bsr(name: str, matrix: Any, shape: tuple[int, ...]) -> None:
    blocks = np.shape(matrix.data)
    if len(blocks) != 3 or 0 in blocks[1:] or shape[0] % blocks[1] or shape[1] % blocks[2]:
        raise ValueError(
            f"{name} has blocks of shape {blocks}; expected (blocks, r, c), r and c divisors of {shape}"
        )
    _check_pointers(name, matrix, blocks[0], shape[0] // blocks[1])
    used = np.asarray(matrix.indices)[: matrix.indptr[-1]]
    _check_indices(name, "column block", used, shape[1] // blocks[2])


def _check_coo(name: str, matrix: Any, shape: tuple[int, ...]) -> None:
    for kind, places, count in zip(("row", "column"), (matrix.row, matrix.col), shape, strict=True):
        if np.shape(places) != np.shape(matrix.data) or np.ndim(places) != 1:
            raise ValueError(
                f"{name} has {kind} indices of shape {np.shape(places)} for entries of shape "
                f"{np.shape(matrix.data)}; expected one for each entry"
            )
        _check_indices(name, kind, np.asarray(places), count)


def _check_dia(name: str, matrix: Any, shape: tuple[int, ...]) -> None:
    diagonals, offsets = np.shape(matrix.data), np.asarray(matrix.offsets)
    if len(diagonals) != 2 or offsets.shape != diagonals[:1] or offsets.dtype.kind not in "iu":
        raise ValueError(
            f"{name} has offsets of shape {offsets.shape} for diagonals of shape {diagonals}; expected an integer for "
            "each diagonal"
        )


def _check_lil(name: str, matrix: Any, shape: tuple[int, ...]) -> None:
    rows, data = matrix.rows, matrix.data
    if not len(rows) == len(data) == shape[0] or any(map(_unlike, rows, data)):
        raise ValueError(
            f"{name} has rows of different numbers of columns and entries; expected equal ones, for {shape[0]} rows"
        )


def _unlike(columns: Any, entries: Any) -> bool:
    return len(columns) != len(entries)


# By SciPy's name of the format; dok is checked by SciPy itself, when it is converted.
_CHECKS = {
    "csr": _check_csr,
    "csc": _check_csc,
    "bsr": _check_bsr,
    "coo": _check_coo,
    "dia": _check_dia,
    "lil": _check_lil,
}


def _ascends(indices: NDArray[np.uint32], indptr: NDArray[np.int64]) -> bool:
    """Whether columns are sorted, and none occurs twice, within each row."""
    rises = indices[1:] > indices[:-1]
    starts = indptr[(indptr > 0) & (indptr < len(indices))]  # a row may begin with any column
    rises[starts - 1] = True
    return bool(rises.all())


def _canonical(
    data: NDArray[Any], indices: NDArray[np.uint32], indptr: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.uint32], NDArray[np.int64]]:
    """Sort each row's entries, and add those that stand in one place."""
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((indices, rows))
    rows, indices = rows[order], indices[order]
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:] != rows[:-1]) | (indices[1:] != indices[:-1])
    with np.errstate(all="ignore"):  # the caller reports infinity and NaN
        data = np.add.reduceat(data[order], np.flatnonzero(first))
    counts = np.bincount(rows[first], minlength=len(indptr) - 1)
    return data, indices[first], np.concatenate([[0], np.cumsum(counts)])
