"""Checks of what users pass in: every message names the argument, what came and what was expected."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop._kernels import MAX_THREADS, all_finite

__all__ = [
    "KEEP_UNITS",
    "as_array",
    "by_name",
    "cast",
    "check_apart",
    "check_shape",
    "check_some",
    "check_unmasked",
    "choice",
    "class_probabilities",
    "drop_rate",
    "drop_rates",
    "finite_number",
    "float_array",
    "float_dtype",
    "keep_units",
    "label_vector",
    "layer_widths",
    "mask_words",
    "nonnegative",
    "norm_limit",
    "parameter_array",
    "probabilities",
    "quantile_levels",
    "real_numbers",
    "row_numbers",
    "row_weights",
    "smoothing_share",
    "state_arrays",
    "target_matrix",
    "thread_count",
    "truth_value",
    "unit_flags",
    "updated_array",
    "whole_number",
]

_SUM_TOLERANCE = 1e-3  # of probabilities, which float16 rounds to about that
KEEP_UNITS = 2**32  # the kernels take probabilities of keeping in units of 2**-32


def choice(name: str, value: Any, options: Collection[str]) -> str:
    """Return `value`, one of `options`."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, options))}")
    return value


def choice_by_layer(
    name: str, value: Any, options: Collection[str], hidden: int
) -> tuple[str, ...]:
    """Return one of `options` for each hidden layer, given one for all or a sequence."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (choice(name, value, options),) * hidden
    if len(value) != hidden:
        raise ValueError(
            f"{name} has {len(value)} entries; expected {hidden}, one for each hidden layer"
        )
    return tuple(choice(f"{name}[{i}]", entry, options) for i, entry in enumerate(value))


def by_name(
    what: str,
    given: Any,
    base: type[Any],
    kinds: Mapping[str, type[Any]],
    settings: Mapping[str, Any],
) -> Any:
    """Return an object of the dataclass that `given` names, made with `settings`; an object of `base` as it is."""
    if isinstance(given, base):
        if settings:
            raise TypeError(
                f"{what} is an object; expected its settings in it, not as {', '.join(settings)}"
            )
        return given
    if not isinstance(given, str) or given not in kinds:
        expected = ", ".join(map(repr, kinds))
        raise ValueError(f"{what} is {given!r}; expected one of {expected}, or an object")
    known = [field.name for field in dataclasses.fields(kinds[given])]
    for name in settings:
        if name not in known:
            expected = ", ".join(known) or "no settings"
            raise TypeError(f"{name} is not a setting of {given}; expected {expected}")
    return kinds[given](**settings)


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """Return `value` as an int, at least `low` and below `high`; NumPy's integers are valid, bools are not."""
    large = high > 2**20 and not high & (high - 1)
    last = f"2**{high.bit_length() - 1} - 1" if large else str(high - 1)
    expected = f"an integer between {low} and {last}"
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    try:
        number = int(value.__index__())
    except TypeError:  # an array with a dimension
        raise TypeError(f"{name} is {value!r}; expected {expected}") from None
    if not low <= number < high:
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    return number


def finite_number(
    name: str, value: Any, low: float = 0, high: float = math.inf, *, positive: bool = False
) -> float:
    """Return `value` as a finite float from `low` to `high`, or with `positive` above 0."""
    expected = _number_range(low, high, positive)
    no_number = (bool, np.bool_, str, bytes, complex, np.complexfloating)
    if isinstance(value, no_number) or not hasattr(value, "__float__") or np.ndim(value):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large; expected {expected}") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; expected {expected}") from None
    if not (math.isfinite(number) and low <= number <= high) or (positive and number == 0):
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    return number


def norm_limit(name: str, value: Any) -> float:
    """Return `value` as a limit of norms, whose square does not vanish."""
    return finite_number(name, value, 1e-150)


def smoothing_share(name: str, value: Any) -> float:
    """Return `value` as a share of label smoothing, at least 0 and below 1."""
    share = finite_number(name, value)
    if not share < 1:
        raise ValueError(f"{name} is {value!r}; expected a number of at least 0 and below 1")
    return share


def quantile_levels(name: str, value: Any, outputs: int) -> tuple[float, ...]:
    """Return a quantile level for each output, given one number for all or a sequence."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, (int, float, np.number)):
        return (_level(name, value),) * outputs
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(
            f"{name} is {value!r}; expected a number above 0 and below 1, or a list of them"
        )
    if len(value) != outputs:
        raise ValueError(f"{name} has {len(value)} entries; expected {outputs}, one per output")
    return tuple(_level(f"{name}[{i}]", level) for i, level in enumerate(value))


def _level(name: str, value: Any) -> float:
    level = finite_number(name, value)
    if not 0 < level < 1:
        raise ValueError(f"{name} is {value!r}; expected a number above 0 and below 1")
    return level


def _number_range(low: float, high: float, positive: bool) -> str:
    if high < math.inf:
        return f"a number between {low:g} and {high:g}"
    if low == -math.inf:
        return "a finite number"
    return f"a finite number {'above' if positive else 'of at least'} {low:g}"


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
            f"{name} is {rate!r}; expected a probability of dropping of at least 0 and below 1 (to within 2**-32)"
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


def check_unmasked(name: str, value: Any) -> None:
    """Raise if `value` is a masked array with masked entries: what is below the mask would be taken for data."""
    mask = getattr(value, "mask", None)  # a method of data frames
    if isinstance(mask, (np.ndarray, np.bool_)) and mask.any():
        raise ValueError(
            f"{name} has {int(np.sum(mask))} masked entries; expected none: leave those rows out, or fill the entries "
            "(numpy.ma.filled)"
        )


def as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return `value` as an array."""
    check_unmasked(name, value)
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} is not an array: {error}") from None


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
    if not all_finite(array):
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
        raise ValueError(f"{name} has shape {array.shape}; expected ({rows},), one label per row")
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
    name: str, value: ArrayLike, shape: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return a matrix of finite targets; a vector stands for one column."""
    array = as_array(name, value)
    if array.ndim == 1 and shape[1] == 1:
        array = array[:, None]
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    return real_numbers(name, array, dtype)


def probabilities(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of floats, all of them in [0, 1]."""
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(
            f"{name} has entries outside [0, 1]; expected the probability of each label"
        )
    return array


def class_probabilities(
    name: str, array: NDArray[Any], shape: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return a matrix of probabilities whose rows sum to 1, to within a thousandth."""
    if array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape}; expected ({shape[0]},), one label per row, or {shape}, the probabilities "
            "of the classes"
        )
    array = real_numbers(name, array, dtype)
    off = np.abs(array.sum(axis=1, dtype=np.float64) - 1)
    if (array < 0).any() or (off > _SUM_TOLERANCE).any():
        row = int(np.argmax((array < 0).any(axis=1) | (off > _SUM_TOLERANCE)))
        raise ValueError(
            f"{name}[{row}] is {array[row]}; expected probabilities of at least 0 that sum to 1"
        )
    return array


def nonnegative(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of floats, none of them below 0."""
    if (array < 0).any():
        row, column = map(int, np.argwhere(array < 0)[0])
        where = f"{row}, {column}" if array.shape[1] > 1 else row
        raise ValueError(
            f"{name}[{where}] is {array[row, column]}; expected numbers of at least 0 with the Poisson loss"
        )
    return array


def row_weights(name: str, value: ArrayLike | None, rows: int) -> NDArray[np.float64] | None:
    """Return finite weights of at least 0, one per row, all above 0 in at least one row."""
    if value is None:
        return None
    array = as_array(name, value)
    if array.shape != (rows,):
        raise ValueError(f"{name} has shape {array.shape}; expected ({rows},), one weight per row")
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


# ---- Arrays of the kernels, whose dtype is never converted -----------------------------------------------------------


def float_array(
    name: str, value: ArrayLike, ndim: int, dtype: np.dtype[Any] | None = None
) -> NDArray[Any]:
    """Return an aligned, C-contiguous, native array of float32 or float64, copied only if it must be."""
    array = as_array(name, value)
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise TypeError(f"{name} has dtype {array.dtype}; expected float32 or float64")
    native = np.dtype(f"f{array.dtype.itemsize}")
    if dtype is not None and native != dtype:
        raise TypeError(f"{name} has dtype {array.dtype}; expected {dtype}, like the other arrays")
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; expected {_dimensions(ndim)}")
    return cast(array, native)


def _dimensions(ndim: int) -> str:
    return f"{ndim} dimension{'s' if ndim != 1 else ''}"


def check_shape(
    name: str, array: NDArray[Any], expected: tuple[int, ...], meaning: str
) -> NDArray[Any]:
    """Return an array of the expected shape, whose dimensions `meaning` explains."""
    if array.shape != expected:
        raise ValueError(f"{name} has shape {array.shape}; expected {expected} ({meaning})")
    return array


def check_some(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return a matrix that is not empty."""
    if not array.size:
        raise ValueError(
            f"{name} has shape {array.shape}; expected at least one row and one column"
        )
    return array


def unit_flags(name: str, value: ArrayLike) -> NDArray[np.bool_]:
    """Return a matrix of booleans, which integers stand for too."""
    array = as_array(name, value)
    if array.size and array.dtype.kind not in "biu":
        raise TypeError(f"{name} has dtype {array.dtype}; expected booleans")
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; expected 2 dimensions, rows and units")
    return array.astype(np.bool_)


def mask_words(
    name: str, value: ArrayLike, width: int, rows: int | None = None
) -> NDArray[np.uint64]:
    """Return the words of a packed mask over `width` units, for any or a given number of rows."""
    array = as_array(name, value)
    if array.dtype != np.uint64:
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected uint64 words, as bernoulli_mask and pack_mask return them"
        )
    rows = len(array) if rows is None and array.ndim else rows
    check_shape(name, array, (rows or 0, -(-width // 64)), "rows, ceil(units / 64) words")
    return cast(array, np.dtype(np.uint64))


def updated_array(
    name: str, value: Any, like: NDArray[Any] | None = None, ndim: int | None = None
) -> NDArray[Any]:
    """Return an array that is updated in place, so that it must not be copied; `like` is the array of weights."""
    if not isinstance(value, np.ndarray):
        raise TypeError(
            f"{name} is a {type(value).__name__}; expected an ndarray, which is updated in place"
        )
    like = value if like is None else like
    if value.dtype not in (np.float32, np.float64) or value.dtype != like.dtype:
        expected = "float32 or float64" if like is value else f"{like.dtype}, like weight"
        raise TypeError(f"{name} has dtype {value.dtype}; expected native {expected}")
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{name} has shape {value.shape}; expected {_dimensions(ndim)}")
    check_shape(name, value, like.shape, "like weight")
    if not (value.flags.c_contiguous and value.flags.writeable and value.flags.aligned):
        raise ValueError(f"{name} is updated in place; expected a C-contiguous, writeable array")
    return value


def state_arrays(
    state: Any, weight: NDArray[Any], count: int, rule: str
) -> dict[str, NDArray[Any]]:
    """Return the arrays of an update rule's state by name."""
    expected = f"a list of {count} arrays for {rule}"
    if not isinstance(state, (list, tuple)):
        raise TypeError(f"state is a {type(state).__name__}; expected {expected}")
    if len(state) != count:
        raise ValueError(f"state has {len(state)} arrays; expected {expected}")
    names = [f"state[{i}]" for i in range(count)]
    return {
        name: updated_array(name, array, weight) for name, array in zip(names, state, strict=True)
    }


def check_apart(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise if two arrays may share memory."""
    for (name, array), (other, another) in combinations(arrays.items(), 2):
        if np.may_share_memory(array, another):
            raise ValueError(f"{other} shares memory with {name}; expected separate arrays")
