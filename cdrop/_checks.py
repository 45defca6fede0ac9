"""Checks of what users pass in: every message names the argument, what came and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop._kernels import MAX_THREADS, _all_finite

__all__ = [
    "KEEP_UNITS",
    "as_array",
    "cast",
    "choice",
    "drop_rate",
    "drop_rates",
    "finite_number",
    "float_dtype",
    "keep_units",
    "label_vector",
    "layer_widths",
    "parameter_array",
    "real_numbers",
    "row_numbers",
    "row_weights",
    "target_matrix",
    "thread_count",
    "truth_value",
    "whole_number",
]

KEEP_UNITS = 2**32  # the kernels take probabilities of keeping in units of 2**-32


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """Return `value`, one of `options`."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, options))}")
    return value


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """Return `value` as an int from `low` to below `high`; NumPy's integers are fine, bools are not."""
    expected = f"a whole number from {low} to {high - 1 if high < 10**6 else f'below {high:.3g}'}"
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    try:
        number = int(value.__index__())
    except TypeError:  # an array that is no scalar
        raise TypeError(f"{name} is {value!r}; expected {expected}") from None
    if not low <= number < high:
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    return number


def finite_number(name: str, value: Any, *, positive: bool = False) -> float:
    """Return `value` as a finite float of at least 0, or with `positive` above 0."""
    expected = f"a finite number {'above' if positive else 'of at least'} 0"
    no_number = (bool, np.bool_, str, bytes, complex, np.complexfloating)
    if isinstance(value, no_number) or not hasattr(value, "__float__") or np.ndim(value):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large; expected {expected}") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; expected {expected}") from None
    if not (np.isfinite(number) and (number > 0 if positive else number >= 0)):
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    return number


def truth_value(name: str, value: Any) -> bool:
    """Return `value`, a bool of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}; expected True or False")
    return bool(value)


def thread_count(name: str, value: Any) -> int | None:
    """Return a number of threads, or None for the default."""
    return None if value is None else whole_number(name, value, 1, MAX_THREADS + 1)


def float_dtype(name: str, value: Any) -> np.dtype[Any]:
    """Return float32 or float64, given by name, as a dtype or as a type."""
    known = value
    if value is not None:  # which NumPy takes for float64
        try:
            known = np.dtype(value).name
        except (TypeError, ValueError):
            pass  # `choice` names it
    return np.dtype(choice(name, known, ("float32", "float64")))


def layer_widths(name: str, value: Any) -> tuple[int, ...]:
    """Return the widths of a network's layers, at least an input and an output."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(
            f"{name} is {value!r}; expected a sequence of widths such as [784, 256, 256, 10]"
        )
    if len(value) < 2:
        raise ValueError(f"{name} is {value!r}; expected at least an input and an output width")
    return tuple(whole_number(f"{name}[{i}]", width, 1, 2**32) for i, width in enumerate(value))


def keep_units(rate: float) -> int:
    """Return the probability of keeping that belongs to a rate of dropping, as the kernels take it."""
    return round((1 - rate) * KEEP_UNITS)


def drop_rate(name: str, value: Any) -> float:
    """Return a probability of dropping under which some units are kept."""
    rate = finite_number(name, value)
    if not rate < 1 or keep_units(rate) == 0:
        raise ValueError(
            f"{name} is {rate!r}; expected a probability of dropping from 0 to below 1 (to within 2**-32)"
        )
    return rate


def drop_rates(name: str, value: Any, hidden: int) -> tuple[float, ...]:
    """Return a rate for each hidden layer, given one number for all or a sequence."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, (int, float, np.number)):
        return (drop_rate(name, value),) * hidden
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} is {value!r}; expected a number, or one for each hidden layer")
    if len(value) != hidden:
        raise ValueError(
            f"{name} has {len(value)} entries; expected {hidden}, one for each hidden layer"
        )
    return tuple(drop_rate(f"{name}[{i}]", rate) for i, rate in enumerate(value))


def as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return `value` as an array."""
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} is no array: {error}") from None


def cast(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a native, aligned, C-contiguous array of `dtype`, copied only if it must be."""
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array  # at once: what follows takes a tenth of a prediction for one row
    with np.errstate(over="ignore"):  # a number too large for the dtype becomes infinite
        return np.require(array, dtype, ["C", "A"])


def real_numbers(
    name: str, array: NDArray[Any], dtype: np.dtype[Any], first: int = 0
) -> NDArray[Any]:
    """`cast` an array of real numbers, all of them finite then; errors call its first row `first`."""
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {array.dtype}; expected real numbers")
    array = cast(array, dtype)
    if not _all_finite(array):
        bad = np.argwhere(~np.isfinite(array))[0]
        where = ", ".join(map(str, (first + bad[0], *bad[1:])))
        raise ValueError(
            f"{name}[{where}] is {array[tuple(bad)]}; expected finite numbers of {dtype}"
        )
    return array


def parameter_array(
    name: str, value: ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return an array of `shape` and `dtype`; infinite numbers and NaN are let through."""
    array = as_array(name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {array.dtype}; expected real numbers")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    return cast(array, dtype)


def row_numbers(name: str, value: ArrayLike, rows: int) -> NDArray[np.int64]:
    """Return a vector of at least one row number from 0 to `rows` - 1, a copy: the kernels index with them."""
    array = as_array(name, value)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} has shape {array.shape}; expected one dimension, at least 1 row")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {array.dtype}; expected integers, the numbers of rows")
    if not (array.min() >= 0 and array.max() < rows):
        raise ValueError(
            f"{name} runs from {array.min()} to {array.max()}; expected row numbers from 0 to {rows - 1}"
        )
    return np.array(array, np.int64, order="C")


def label_vector(name: str, value: ArrayLike, rows: int, classes: int) -> NDArray[np.int64]:
    """Return a vector of labels from 0 to `classes` - 1, a copy: the kernels index with them."""
    array = as_array(name, value)
    if array.shape != (rows,):
        raise ValueError(f"{name} has shape {array.shape}; expected ({rows},), one label a row")
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected integers, the numbers of the classes"
        )
    if rows and not (array.min() >= 0 and array.max() < classes):
        raise ValueError(
            f"{name} runs from {array.min()} to {array.max()}; expected labels from 0 to {classes - 1}"
        )
    return np.array(array, np.int64, order="C")


def target_matrix(
    name: str, value: ArrayLike, shape: tuple[int, int], dtype: np.dtype[Any], unit_interval: bool
) -> NDArray[Any]:
    """Return a matrix of finite targets; a vector stands for one column."""
    array = as_array(name, value)
    if array.ndim == 1 and shape[1] == 1:
        array = array[:, None]
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    array = real_numbers(name, array, dtype)
    if unit_interval and not ((array >= 0) & (array <= 1)).all():
        raise ValueError(
            f"{name} has entries outside [0, 1]; expected the probability of each label"
        )
    return array


def row_weights(name: str, value: ArrayLike | None, rows: int) -> NDArray[np.float64] | None:
    """Return finite weights of at least 0, one a row, all above 0 in at least one row."""
    if value is None:
        return None
    array = as_array(name, value)
    if array.shape != (rows,):
        raise ValueError(f"{name} has shape {array.shape}; expected ({rows},), one weight a row")
    array = real_numbers(name, array, np.dtype(np.float64))
    if not (array >= 0).all() or not (array > 0).any():
        raise ValueError(
            f"{name} is negative or zero everywhere; expected weights of at least 0, one above"
        )
    with np.errstate(over="ignore"):
        total = array.sum()
    if not np.finfo(np.float64).tiny <= total < np.inf:
        raise ValueError(f"{name} sums to {total}; expected a sum from 2.3e-308 that is finite")
    return array
