"""The kind of a column, found from its cells: numbers, text, booleans or dates; and why it may be no feature."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AMONG_NUMBERS",
    "MISSING",
    "Cells",
    "drop_infinite",
    "has_extra",
    "is_number",
    "number_cells",
    "number_reasons",
    "typed",
]

# What pandas takes for missing, and the question mark of the UCI repository.
_PANDAS_NA = """
    #N/A #NA -1.#IND -1.#QNAN -NaN -nan 1.#IND 1.#QNAN <NA> N/A NA NULL NaN NaT None n/a nan null
"""
MISSING = frozenset(["", "#N/A N/A", "?", *_PANDAS_NA.split()])
# Missing only where all other cells are numbers: elsewhere they may be values, as the classes + and -.
AMONG_NUMBERS = frozenset({"-", "--", "."})
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_PADDED = re.compile(r"[+-]?0[0-9]")  # codes: 007 is not 7
_FORMATTED = re.compile(r"[-+($€£ ]*[0-9][0-9.,' ]*[)%$€£ ]*|[-+ ]*[0-9.,]+ *[kKmMbB%]?")
_DATE = re.compile(
    r"[0-9]{4}[-/.][0-9]{1,2}([-/.][0-9]{1,2})?\b.*"
    r"|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2,4}\b.*"
    r"|[A-Za-z]{3,9}\.? [0-9]{1,2},? [0-9]{4}\b.*"
    r"|[0-9]{1,2}[- ][A-Za-z]{3,9}[- ][0-9]{2,4}\b.*"
)
_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
_ROW_NAMES = re.compile(r"unnamed.*|rownames|row[ _.]?(id|names?|num(ber)?)|index|id|obs", re.I)
_FEWEST_ROWS = 10  # fewer numbers count up too often by chance
_EACH_ROW = 0.9  # the share of distinct texts from which they are taken for names of rows


@dataclass(frozen=True, eq=False)
class Cells:
    """A column: its kind, and its values."""

    kind: str  # "number", "text", "boolean" or "date"
    values: NDArray[
        Any
    ]  # float64, datetime64[s], or places in `levels`, -1 where a cell is missing
    levels: tuple[str, ...] = ()  # the distinct texts, in the order of their first rows
    gaps: tuple[str, ...] = ()  # the texts that were taken as missing
    infinite: int = 0  # numbers, which count as missing

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Where a cell is missing."""
        if self.kind == "number":
            return np.asarray(np.isnan(self.values))
        return np.asarray(np.isnat(self.values) if self.kind == "date" else self.values < 0)

    def objects(self) -> NDArray[Any]:
        """Return numbers or dates as they are, texts as Python's, None where a cell is missing."""
        if self.kind in ("number", "date"):
            return self.values
        return np.asarray(np.array([*self.levels, None], object)[self.values])

    def frame_column(self) -> Any:
        """Return the column as pandas takes it."""
        import pandas as pd

        if self.kind in ("number", "date"):
            return self.values
        return pd.Categorical.from_codes(self.values, list(self.levels))

    def reason(self, name: str) -> str:
        """Return why the column is not a feature, or nothing; of text and dates."""
        rows, distinct = len(self.values), len(self.levels)
        gaps = int(self.missing.sum())
        if gaps == rows:
            return "empty"
        if self.kind == "date":
            return "constant" if not gaps and (self.values == self.values[0]).all() else ""
        if distinct == 1 and not gaps:
            return "constant"
        if distinct > _FEWEST_ROWS and distinct >= _EACH_ROW * (rows - gaps):
            if sum(map(bool, map(_FORMATTED.fullmatch, self.levels))) > _EACH_ROW * distinct:
                return f"text like {self.levels[0]!r} instead of plain numbers, as {_plain(self.levels[0])}"
            return f"text, {distinct:,} values in {rows - gaps:,} rows"
        return ""


def _plain(text: str) -> str:
    """Return the number that a formatted one may mean, for a hint."""
    return re.sub(r"[^0-9.-]", "", text) or "0"


def has_extra() -> bool:
    """Return whether pandas and scikit-learn are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("pandas", "sklearn"))


def is_number(cell: str, decimal: str = ".") -> bool:
    """Return whether a text is a plain number in ASCII digits, without leading zeros."""
    cell = cell.replace(decimal, ".") if decimal != "." else cell
    return bool(_NUMBER.fullmatch(cell) or _INFINITE.fullmatch(cell)) and not _PADDED.match(cell)


def typed(
    levels: Sequence[str],
    codes: NDArray[np.intp],
    *,
    decimal: str = ".",
    missing: Collection[str] = (),
    kind: str | None = None,
) -> Cells:
    """Return a column by the kind of its cells: `levels` are the distinct ones, `codes` their places, -1 if missing.

    ValueError if the column cannot have the given `kind`; `missing` are further texts of missing cells.
    """
    gaps = {level for level in levels if level in MISSING or level in missing}
    present = [level for level in levels if level not in gaps]
    numbers = [level for level in present if level not in AMONG_NUMBERS]
    plain = (numbers or not present) and all(is_number(level, decimal) for level in numbers)
    if kind in (None, "number") and plain:
        return _numbers(levels, codes, set(numbers), decimal)
    if kind == "number":
        odd = next((level for level in numbers if not is_number(level, decimal)), "")
        raise ValueError(f"{odd[:50]!r}; expected a number")
    shown = tuple(sorted(gaps))
    if kind in (None, "date") and (dates := _dates(present)) is not None:
        look = np.full(len(levels) + 1, np.datetime64("NaT", "s"))
        look[[i for i, level in enumerate(levels) if level not in gaps]] = dates
        return Cells("date", look[codes], gaps=shown)
    look = np.full(len(levels) + 1, -1)
    look[[i for i, level in enumerate(levels) if level not in gaps]] = np.arange(len(present))
    lower = {level.lower() for level in present}
    boolean = len(lower) == len(present) == 2 and lower in _BOOLEANS
    return Cells("boolean" if boolean else "text", look[codes], tuple(present), shown)


def _numbers(
    levels: Sequence[str], codes: NDArray[np.intp], numbers: Collection[str], decimal: str
) -> Cells:
    """Return a column of numbers."""
    look = np.full(len(levels) + 1, np.nan)
    for place, level in enumerate(levels):
        if level in numbers:
            look[place] = float(level.replace(decimal, "."))
    gaps = tuple(sorted(level for level in levels if level not in numbers))
    return number_cells(look[codes], gaps)


def number_cells(values: NDArray[np.float64], gaps: tuple[str, ...] = ()) -> Cells:
    """Return a column of these numbers, which is the caller's no longer: infinite ones become NaN."""
    return Cells("number", values, gaps=gaps, infinite=drop_infinite(values))


def _dates(texts: list[str]) -> NDArray[Any] | None:
    """Return dates if all texts are dates; months before days where both are possible, as pandas has it."""
    if not texts or not all(map(_DATE.fullmatch, texts)) or not has_extra():
        return None
    import pandas as pd

    for options in ({}, {"dayfirst": True}, {"format": "ISO8601"}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                dates = pd.to_datetime(pd.Series(texts, dtype=object), utc=True, **options)
            except (ValueError, TypeError, OverflowError):
                continue
        if not any("Could not infer format" in str(warning.message) for warning in caught):
            return np.asarray(dates.dt.tz_localize(None).to_numpy("datetime64[s]"))
    return None


def drop_infinite(X: NDArray[Any]) -> int:
    """Make infinite numbers NaN, in place; return how many there were."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum()):  # no NaN and no infinity among the terms: one pass for most tables
            return 0
    bad = np.isinf(X)
    X[bad] = np.nan
    return int(bad.sum())


def number_reasons(X: NDArray[Any], names: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return for each column of numbers why it is not a feature, or nothing; and its missing cells."""
    rows = len(X)
    low, high = X.min(axis=0), X.max(axis=0)  # NaN where a cell is
    gaps = np.zeros(X.shape[1], np.int64)
    for column in np.flatnonzero(np.isnan(low)):
        gaps[column] = np.isnan(X[:, column]).sum()
    reasons = []
    for i, name in enumerate(names):
        if gaps[i] == rows:
            reasons.append("empty")
        elif gaps[i] == 0 and low[i] == high[i]:
            reasons.append("constant")
        elif gaps[i] == 0 and _numbers_rows(X, i, name, low[i], high[i]):
            reasons.append("numbers the rows")
        else:
            reasons.append("")
    return reasons, gaps


def _numbers_rows(X: NDArray[Any], i: int, name: str, low: float, high: float) -> bool:
    """Return whether a column without gaps counts rows, in any order, or has its own number for each."""
    rows = len(X)
    named = bool(_ROW_NAMES.fullmatch(name))
    counts = low in (0, 1) and high - low == rows - 1 and rows >= _FEWEST_ROWS
    if not (counts or named) or rows < 2:
        return False
    values = X[:, i]
    return bool((values == np.floor(values)).all()) and len(np.unique(values)) == rows
