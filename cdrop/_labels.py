"""Class labels: which values are the same class. Decided here once, by value and kind, and never through floats.

Numbers are one kind: 1, 1.0, True and an unsigned 1 are the same class, and integers of 64 bits are compared exactly.
Text is another kind, and numbers are never text. Dates are a third.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence, Set
from enum import EnumMeta
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import check_unmasked

__all__ = [
    "are_whole",
    "check_one_kind",
    "joined",
    "kind_of",
    "label_array",
    "same_type",
    "sorted_numbers",
]

_KINDS = {
    **dict.fromkeys("biuf", "numbers"),
    **dict.fromkeys("UO", "text"),
    "M": "dates",
    "c": "complex numbers",  # which scikit-learn refuses
}
_HIGHEST_SIGNED, _HIGHEST = 2**63, 2**64  # of integers in NumPy, plus 1


def label_array(name: str, values: Any) -> Any:
    """Return labels as an array of booleans, integers, floats, text or dates.

    Lists, arrays of objects and columns of data frames are converted value by value. What is not an array of labels,
    such as a sparse matrix, comes back unchanged.

    Raises
    ------
    TypeError, ValueError
        If a label is missing, or neither text nor a number; if text and numbers are mixed.
    """
    check_unmasked(name, values)
    array = _exact_array(values)
    if not isinstance(array, np.ndarray) or not array.size:
        return array
    if array.dtype.char == "g":  # longdouble, which differs from machine to machine
        array = array.astype(object)
    if array.dtype.kind == "O":
        array = _unboxed(name, array, keep=not isinstance(values, (Sequence, Set, EnumMeta)))
    if array.dtype.kind == "M":
        _check_none_missing(name, int(np.isnat(array).sum()))
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"{name} has dtype {array.dtype}; expected integers, text or booleans")
    return array


def _exact_array(values: Any) -> Any:
    """Return `values` as an array whose dtype loses nothing, of objects if need be; not what is not an array."""
    if values is None or hasattr(values, "tocsr"):
        return values
    if isinstance(values, (Set, EnumMeta)):  # also all members of an enumeration
        values = list(values)
    if hasattr(values, "iloc") and np.ndim(values) == 2:  # a DataFrame
        return values.to_numpy(dtype=object)
    if isinstance(getattr(values, "dtype", None), np.dtype):
        array = np.asarray(values)
        return np.array(array.tolist(), object) if array.dtype.kind == "T" else array
    if hasattr(values, "to_list"):  # an extension array of pandas, which NumPy may take for floats
        values = values.to_list()
    if not isinstance(values, Sequence) or isinstance(values, (str, range)):
        return np.asarray(values)
    try:
        return np.array(list(values), object)
    except ValueError:  # nested, of different shapes
        return values


def _unboxed(name: str, array: NDArray[Any], keep: bool) -> NDArray[Any]:
    """Return an array of objects as one of text or numbers; text stays as it is if `keep`."""
    flat = array.ravel().tolist()
    if len({type(value) for value in flat}) == 1 and isinstance(flat[0], str):
        return array if keep else _texts(flat).reshape(array.shape)
    if any(isinstance(value, (list, tuple, np.ndarray)) for value in flat):
        return array  # nested, of different shapes
    _check_none_missing(name, sum(map(_is_missing, flat)))
    if all(isinstance(value, np.datetime64) for value in flat):
        return np.array(flat).reshape(array.shape)
    texts = [isinstance(value, str) for value in flat]
    if all(texts):
        return array if keep else _texts(flat).reshape(array.shape)
    numbers = [isinstance(value, (Number, np.bool_)) for value in flat]
    if any(texts) and any(numbers):
        text, number = flat[texts.index(True)], flat[numbers.index(True)]
        raise TypeError(
            f"{name} has text such as {text!r} and numbers such as {number!r}; expected labels of one kind"
        )
    if not all(numbers):
        other = next(v for v, t, n in zip(flat, texts, numbers, strict=True) if not (t or n))
        raise TypeError(
            f"{name} has the label {other!r}; expected text or integers: convert the labels with str()"
        )
    return _numbers(name, flat).reshape(array.shape)


def _texts(values: list[str]) -> NDArray[Any]:
    """Return text by value: NumPy takes members of an enumeration by their names, and drops trailing NULs."""
    plain = [str.__str__(value) for value in values]
    return np.array(plain, object if any(text.endswith("\0") for text in plain) else str)


def _check_none_missing(name: str, absent: int) -> None:
    if absent:
        raise ValueError(
            f"{name} has {absent} missing labels, such as None; expected none: leave those rows out, or give them a "
            "their own label"
        )


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas.NA has no truth value
        return True


def _numbers(name: str, values: list[Any]) -> NDArray[Any]:
    """Return numbers as booleans, as integers of 64 bits or, if some have a fraction, as floats."""
    if all(isinstance(value, (bool, np.bool_)) for value in values):
        return np.array(values, bool)
    if any(isinstance(value, (complex, np.complexfloating)) for value in values):
        return np.array(values, complex)
    if all(isinstance(value, float) for value in values):
        return np.array(values, float)
    try:
        integers = [int(value) for value in values]
    except OverflowError:  # infinity
        integers = []
    if integers != values:
        return np.array([float(value) for value in values])
    dtype = _integer_dtype(min(integers), max(integers))
    if dtype.kind == "O":
        raise ValueError(
            f"{name} has labels between {min(integers)} and {max(integers)}; expected integers that int64 or uint64 "
            "holds, or text"
        )
    return np.array(integers, dtype)


def _integer_dtype(low: int, high: int) -> np.dtype[Any]:
    """Return the dtype that holds all integers from `low` to `high`: object where none of NumPy's does."""
    if low >= -_HIGHEST_SIGNED and high < _HIGHEST_SIGNED:
        return np.dtype(np.int64)
    return np.dtype(np.uint64 if low >= 0 and high < _HIGHEST else object)


def kind_of(labels: NDArray[Any]) -> str:
    """Return "numbers", "text" or "dates"."""
    return _KINDS[labels.dtype.kind]


def check_one_kind(arrays: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Raise TypeError unless arrays, given with their names, are of one kind."""
    (first, one), *others = arrays
    for name, array in others:
        if kind_of(array) != kind_of(one):
            raise TypeError(
                f"{name} has {kind_of(array)} such as {_example(array)}, and {first} has {kind_of(one)} such as "
                f"{_example(one)}; expected labels of one kind"
            )


def _example(array: NDArray[Any]) -> str:
    return reprlib.repr(array.ravel()[:1].tolist()[0])


def same_type(arrays: Iterable[tuple[str, NDArray[Any]]]) -> list[NDArray[Any]]:
    """Return arrays of labels, given with their names, in one dtype in which equal labels are equal.

    Raises
    ------
    TypeError
        If they are of different kinds.
    ValueError
        If numbers have a fraction.
    """
    named = list(arrays)
    check_one_kind(named)
    if kind_of(named[0][1]) != "numbers":
        dtype = np.result_type(*(array.dtype for _, array in named))
        return [array.astype(dtype, copy=False) for _, array in named]
    for name, array in named:
        if not are_whole(array):
            bad = array[~np.isfinite(array) | (np.floor(array) != array)][0]
            raise ValueError(f"{name} has the label {bad}; expected integers")
    extremes = [int(end) for _, array in named if array.size for end in (array.min(), array.max())]
    dtype = _integer_dtype(min(extremes, default=0), max(extremes, default=0))
    return [_as_integers(array, dtype) for _, array in named]


def joined(arrays: Iterable[tuple[str, NDArray[Any]]]) -> NDArray[Any]:
    """Return arrays of labels or targets, given with their names, as one array in which equal labels are equal.

    Raises
    ------
    TypeError
        If they are of different kinds.
    ValueError
        If no integer type of NumPy holds all of their labels.
    """
    named = list(arrays)
    check_one_kind(named)
    parts = [array for _, array in named]
    numbers = kind_of(parts[0]) == "numbers" and len({part.dtype for part in parts}) > 1
    if numbers and all(map(are_whole, parts)):  # which NumPy may join as floats
        parts = same_type(named)
        if parts[0].dtype.kind == "O":
            raise ValueError(
                f"{' and '.join(name for name, _ in reversed(named))} together have negative labels and labels from "
                "2**63; expected labels that int64 or uint64 holds"
            )
    if len({part.dtype for part in parts if part.dtype.kind == "U"}) > 1:
        parts = [part.astype(object) for part in parts]  # one long text would pad all others
    return np.concatenate(parts)


def are_whole(numbers: NDArray[Any]) -> bool:
    """Whether all numbers are finite and without a fraction."""
    if numbers.dtype.kind != "f":
        return True
    return bool((np.isfinite(numbers) & (np.floor(numbers) == numbers)).all())


def _as_integers(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "O":
        return np.array([int(value) for value in array.ravel().tolist()], object).reshape(
            array.shape
        )
    return array.astype(dtype, copy=False)


def sorted_numbers(name: str, labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the place of each label among sorted classes, -1 where it is none of them."""
    known, sought = same_type([("classes_", classes), (name, labels)])
    places = np.minimum(np.searchsorted(known, sought), len(known) - 1)
    return np.where(known[places] == sought, places, -1).astype(np.int64)
