"""Values of an estimator in what JSON can carry, and back: for `cdrop.storage`, which see.

Plain values and lists stand for themselves, everything else is an object with one member that says what it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import choice, whole_number
from cdrop.rates import Rate, decoded, encoded
from cdrop.schedules import Schedule, get_schedule

__all__ = ["decode", "encode"]

_DTYPES = (
    *("bool", "object", "str", "float16", "float32", "float64"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *(f"datetime64[{unit}]" for unit in ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns")),
)
_STATE_MEMBERS, _STATE_WORDS = 5, ((624,), "uint32")  # of MT19937
_MOST_PADDING = (
    64  # times the characters there are: no loss to an array of up to this number of strings
)


def encode(name: str, value: Any) -> Any:
    """Return `value` in what JSON can carry.

    Raises
    ------
    TypeError, ValueError
        If it is of a kind that a file does not hold; the message calls it `name`.
    """
    if isinstance(value, (np.ndarray, np.datetime64)):
        kind = "array" if isinstance(value, np.ndarray) else "date"
        return {kind: _array_content(name, np.asarray(value))}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [encode(name, item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [encode(name, item) for item in value]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, dict):
        return {"dict": [[encode(name, k), encode(name, v)] for k, v in value.items()]}
    if isinstance(value, (Schedule, Rate)):
        return _encode_changing(name, value)
    if isinstance(value, np.random.RandomState):
        return {"RandomState": encode(name, value.get_state(legacy=True))}
    raise TypeError(
        f"{name} is {value!r}; a file holds numbers, strings, None, lists, tuples, ranges, dicts, arrays of them, "
        "schedules, rates and RandomState objects"
    )


def _encode_changing(name: str, value: Schedule | Rate) -> Any:
    if isinstance(value, Rate):
        return {"rate": encode(name, encoded(value))}
    return {"schedule": [value.name, encode(name, dataclasses.asdict(value))]}


def decode(name: str, value: Any) -> Any:
    """Return what `encode` was given; `value` comes from a file and may be anything that JSON can carry.

    Raises
    ------
    TypeError, ValueError
        If `encode` does not write such things.
    """
    if isinstance(value, list):
        return [decode(name, item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"{name} is {value!r}; expected one member that says what it is")
    kind, content = next(iter(value.items()))
    return _DECODERS[choice(name, kind, tuple(_DECODERS))](decode(name, content))


def _date(content: Any) -> Any:
    return _array(content)[()]


def _array_content(name: str, array: NDArray[Any]) -> list[Any]:
    items = array.astype(np.int64) if array.dtype.kind == "M" else array
    return [_dtype_name(name, array), encode(name, items.tolist())]


def _dtype_name(name: str, array: NDArray[Any]) -> str:
    text = array.dtype.kind == "U"
    if text:
        _check_padding(name, array)
    elif array.dtype == object:
        _check_texts(name, array)
    return choice(name, "str" if text else array.dtype.name, _DTYPES)


def _array(content: Any) -> NDArray[Any]:
    dtype, items = content
    choice("dtype", dtype, _DTYPES)
    if dtype == "str":
        items = np.array(items, object)
        _check_texts("an array", items)
        _check_padding("an array", items)
    try:
        return np.array(items, dtype)
    except OverflowError as error:
        raise ValueError(f"an array of {dtype} cannot hold its numbers: {error}") from error


def _check_texts(name: str, array: NDArray[Any]) -> None:
    if not all(isinstance(item, str) for item in array.flat):
        raise TypeError(f"{name} holds objects that are no strings; a file does not hold them")


def _check_padding(name: str, array: NDArray[Any]) -> None:
    """Raise if NumPy, which gives each string the room of the longest, makes far more of them than their file is."""
    sizes = [len(item) + 1 for item in array.flat]
    if array.size * max(sizes, default=0) > _MOST_PADDING * sum(sizes):
        raise ValueError(
            f"{name} has one string far longer than most; a file holds such strings with dtype object"
        )


def _range(content: Any) -> range:
    start, stop, step = content
    return range(start, stop, step)


def _schedule(content: Any) -> Schedule:
    name, settings = content
    if not isinstance(name, str) or not isinstance(settings, Mapping):
        raise TypeError(f"a schedule is {content!r}; expected its name and settings")
    return get_schedule(name, **settings)


def _rate(content: Any) -> Rate:
    if not isinstance(content, Mapping):
        raise TypeError(f"a rate is {content!r}; expected its name and settings")
    rate: Rate = decoded(content)
    return rate


def _random_state(content: Any) -> np.random.RandomState:
    """Check all of a generator's state: NumPy reads the word at `at` wherever that points."""
    if not isinstance(content, tuple) or len(content) != _STATE_MEMBERS:
        raise TypeError(f"a RandomState is {content!r}; expected what its get_state gives")
    name, words, at, has_gauss, gauss = content
    choice("the generator", name, ("MT19937",))
    if not isinstance(words, np.ndarray) or (words.shape, words.dtype.name) != _STATE_WORDS:
        raise ValueError(f"a RandomState has the words {words!r}; expected {_STATE_WORDS}")
    whole_number("its place", at, 0, len(words) + 1)
    whole_number("has_gauss", has_gauss, 0, 2)
    if not isinstance(gauss, float):
        raise TypeError(f"gauss is {gauss!r}; expected a float")
    state = np.random.RandomState()
    state.set_state(content)
    return state


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "dict": dict,
    "range": _range,
    "array": _array,
    "date": _date,
    "schedule": _schedule,
    "rate": _rate,
    "RandomState": _random_state,
}
