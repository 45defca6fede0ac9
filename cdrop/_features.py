"""Checks of the inputs, dense or sparse. SciPy is not imported: its objects are recognised by what they can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import as_array, cast, real_numbers
from cdrop._kernels import all_finite

__all__ = ["Features", "SparseRows", "checked_rows", "feature_matrix"]


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
    return matrix.tocsr() if sparse else matrix


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


def _sparse_rows(name: str, csr: Any, dtype: np.dtype[Any], first: int) -> SparseRows:
    data, indices, indptr = (np.asarray(part) for part in (csr.data, csr.indices, csr.indptr))
    if data.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {data.dtype}; expected real numbers")
    _check_structure(name, data, indices, indptr, tuple(csr.shape))
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


def _check_structure(
    name: str,
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    shape: tuple[int, ...],
) -> None:
    """Doubt what the matrix says of itself: the kernels would read and write out of bounds."""
    if indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise TypeError(
            f"{name} has indices of {indices.dtype} and indptr of {indptr.dtype}; expected integers"
        )
    rows = data.ndim == indices.ndim == 1 and indptr.shape == (shape[0] + 1,) and indptr[0] == 0
    if not rows or (indptr[1:] < indptr[:-1]).any() or indptr[-1] > min(len(data), len(indices)):
        raise ValueError(
            f"{name} has an indptr that does not fit its {shape[0]} rows and {len(data)} entries; expected ascending "
            "numbers from 0 to at most the number of its entries"
        )
    used = indices[: indptr[-1]]
    if len(used) and not (used.min() >= 0 and used.max() < shape[1]):
        raise ValueError(
            f"{name} has column indices from {used.min()} to {used.max()}; expected 0 to {shape[1] - 1}"
        )


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
