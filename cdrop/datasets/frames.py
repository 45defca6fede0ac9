"""Data frames, and the files that pandas and SciPy read into them (extra ``table``)."""

from __future__ import annotations

import datetime
import decimal
import numbers
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdrop.datasets.assemble import Options, Read, build, find, unique
from cdrop.datasets.columns import Cells, number_cells, typed
from cdrop.datasets.dataset import MOST_BYTES, MOST_ROWS, DataError, DataNotFoundError
from cdrop.datasets.table import Table, is_missing

__all__ = ["SUFFIXES", "from_frame", "read_file"]

SUFFIXES = (".xlsx", ".xls", ".ods", ".parquet", ".feather", ".json", ".jsonl", ".arff")
_NEEDS = {
    ".xlsx": "openpyxl",
    ".xls": "xlrd",
    ".ods": "odfpy",
    ".parquet": "pyarrow",
    ".feather": "pyarrow",
}


def from_frame(
    frame: Any, label: str | int | None = None, *, name: str = "frame", **options: Any
) -> Table:
    """Return the table in a data frame.

    Parameters
    ----------
    frame : pandas.DataFrame or polars.DataFrame
        Its index, if it has one, is ignored.
    label : str or int
        Name of the column of labels; or its number from 0, or "last".
    name : str, default "frame"
        Name of the result.
    **options
        ``task``, ``drop``, ``categories``, ``group``, ``time`` and ``missing``, as of `load`;
        ``test`` is another frame with the same columns.

    Returns
    -------
    Table
        Prepared as a file with the same cells is.

    Raises
    ------
    DataError
        If the frame has no such label, no features, or values that are neither numbers, text,
        booleans nor dates.
    TypeError, ValueError
        If an argument is unfit.

    Examples
    --------
    >>> import pandas as pd
    >>> from cdrop.datasets import from_frame
    >>> frame = pd.DataFrame({"size": [1.5, 2.5, 3.5], "kind": ["oak", "elm", "oak"]})
    >>> from_frame(frame, "kind").classes
    ('elm', 'oak')
    """
    if not hasattr(frame, "columns") or len(getattr(frame, "shape", ())) != 2:
        raise TypeError(
            f"frame is {type(frame).__name__}; expected a DataFrame of pandas or polars"
        )
    chosen = Options(label=label, **options)
    read = _read_frame(frame, name, chosen)
    test = None if chosen.test is None else _read_frame(chosen.test, "test", chosen, like=read)
    return build(name, "a data frame", name, read, chosen, test)


def read_file(path: Path, options: Options, like: Read | None = None) -> Read:
    """Read a file of one of the `SUFFIXES`."""
    if not os.path.isfile(path):
        raise DataNotFoundError(f"{path}: expected a file, found none")
    _check_size(path)
    try:
        frame = _frame(path, path.suffix.lower(), options)
    except ImportError as error:
        needs = _NEEDS.get(path.suffix.lower())
        more = f" {needs}" if needs else ""
        found = " ".join(str(error).split())
        raise DataError(f'{path}: {found}. Install: pip install "cdrop[table]"{more}') from error
    except Exception as error:  # whatever the libraries raise at damaged files
        found = " ".join(str(error).split())
        raise DataError(
            f"{path}: expected a readable {path.suffix} file, found: {found}"
        ) from error
    return _read_frame(frame, path, options, like)


def _check_size(path: Path) -> None:
    """Raise DataError if the file, or what a spreadsheet in it unpacks to, is too large."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
    if size > MOST_BYTES:
        raise DataError(f"{path}: expected at most {MOST_BYTES} bytes, found {size}")


def _frame(path: Path, suffix: str, options: Options) -> Any:
    """Return the frame in a file."""
    if suffix == ".arff":
        return _read_arff(path)
    import pandas as pd

    if suffix == ".parquet":
        return pd.read_parquet(path)
    if suffix == ".feather":
        return pd.read_feather(path)
    if suffix.startswith(".json"):
        return pd.read_json(path, lines=suffix == ".jsonl", dtype=False)
    header = 0 if options.header else None
    return pd.read_excel(path, header=header, dtype=object, keep_default_na=False, na_values=[""])


def _read_arff(path: Path) -> Any:
    """Return the frame in a file of Weka's."""
    import pandas as pd
    from scipy.io import arff

    rows, _ = arff.loadarff(path)
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        if frame[name].dtype == object:
            frame[name] = [cell.decode() for cell in frame[name]]
    return frame


def _read_frame(frame: Any, where: object, options: Options, like: Read | None = None) -> Read:
    """Return a frame's columns by their kinds."""
    names, notes = unique([str(name).strip() for name in frame.columns])
    if not 0 < len(frame) <= MOST_ROWS or not names:
        raise DataError(
            f"{where}: expected 1 to {MOST_ROWS} rows and some columns, found {frame.shape}"
        )
    forced = {find(names, name, "categories", where): "text" for name in options.categories}
    if like is not None:
        forced = dict.fromkeys(like.numbers, "number")
        forced |= {name: cells.kind for name, cells in like.others.items()}
    columns = {}
    for name, values in zip(names, _arrays(frame), strict=True):
        try:
            columns[name] = _cells(values, options, forced.get(name))
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: column {name!r} has {error}") from error
    return Read.of(columns, notes)


def _arrays(frame: Any) -> Iterator[NDArray[Any]]:
    """Yield the columns as arrays: of numbers, dates or objects."""
    for place in range(frame.shape[1]):
        column = frame.iloc[:, place] if hasattr(frame, "iloc") else frame[:, place]
        values = column.to_numpy()
        yield values if values.dtype.kind in "biufM" else np.array(column.to_list(), object)


def _cells(values: NDArray[Any], options: Options, kind: str | None) -> Cells:
    """Return a column by the kind of its values."""
    if values.dtype == object:
        values = _plain(values)
    if values.dtype.kind == "M" and kind in (None, "date"):
        return Cells("date", values.astype("datetime64[s]"))
    if values.dtype.kind in "iuf" and kind in (None, "number"):
        return number_cells(values.astype(np.float64))
    levels: dict[str, int] = {}
    codes = [
        -1 if is_missing(value) else levels.setdefault(_text(value), len(levels))
        for value in values.tolist()
    ]
    return typed(list(levels), np.array(codes), missing=options.missing, kind=kind)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Return Python objects as numbers or dates where all are."""
    there = [value for value in values.tolist() if not is_missing(value)]
    if any(isinstance(value, (complex, list, dict, tuple, set, bytes)) for value in there):
        raise TypeError(f"values like {there[0]!r:.50}; expected numbers, text, booleans or dates")
    if there and all(
        isinstance(value, (numbers.Real, decimal.Decimal)) and not isinstance(value, bool)
        for value in there
    ):
        return np.array([np.nan if is_missing(value) else float(value) for value in values])
    if there and all(isinstance(value, datetime.date) for value in there):
        gone = np.datetime64("NaT")
        return np.array(
            [gone if is_missing(v) else np.datetime64(v) for v in values], "datetime64[s]"
        )
    return values


def _text(value: Any) -> str:
    """Return a value as text; a number without fraction as an integer."""
    return (
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    )
