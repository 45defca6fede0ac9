"""A network's state as plain values: how it goes into a dict or a file, and the checks before it is used again.

Nothing here knows `cdrop.Network`. A state comes from a user or a file and may hold anything, so every part is checked
before a network changes or takes memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import drop_rate, layer_widths, truth_value, whole_number
from cdrop.optimizers import Optimizer, get_optimizer
from cdrop.rates import decoded, dropping, dropping_by_layer, encoded
from cdrop.schedules import Schedule, get_schedule

__all__ = [
    "CURVES",
    "LAST",
    "State",
    "array_names",
    "as_settings",
    "check_ours",
    "checked",
    "from_parts",
    "to_parts",
    "with_state",
]

LAST = (
    2**62 - 1
)  # at which counters of updates and epochs stay: training never leads to what a file cannot hold
CURVES = ("epoch_loss", "validation_loss", "validation_score")
_PARTS = ("weight", "state1", "state2")  # in the order of cdrop_part
_RATES = ("dropout", "input_dropout")
_ADDED = (
    "dropping",
    "learned_rates",
)  # which states of networks whose rates do not change may lack
# Settings that a network may change during its training.
DROPOUT = (*_RATES, "dropout_kind", "input_dropout_kind", "members")


class State(NamedTuple):
    """A checked state; see `cdrop.Network.state_dict`."""

    arrays: dict[str, NDArray[Any]]
    optimizer: Optimizer | None
    updates: int
    schedule: Schedule | None
    schedule_state: tuple[float, ...]
    epoch: int
    background: NDArray[Any] | None
    losses: list[float]
    curves: tuple[list[float], list[float], list[float]]
    one_column: bool
    dropping: list[float] | None
    learned_rates: Any  # which the network checks, or None


def array_names(layers: int) -> Iterator[tuple[int, int, str, str]]:
    """Yield layer, number of the part in the engine, and the names of its weight and bias."""
    for layer in range(layers):
        for number, part in enumerate(_PARTS):
            prefix = "" if number == 0 else f"{part}."
            yield layer, number, f"{prefix}weight.{layer}", f"{prefix}bias.{layer}"


def as_settings(made: Optimizer | Schedule) -> dict[str, Any]:
    """Return name and settings; settings added after the first release are left out where they have their default."""
    settings = {"name": made.name}
    for field in dataclasses.fields(made):
        settings[field.name] = encoded(getattr(made, field.name))
        if "added" in field.metadata and settings[field.name] == field.default:
            del settings[field.name]
    return settings


def with_state(schedule: Schedule | None, state: tuple[float, ...]) -> dict[str, Any] | None:
    """Return a schedule's name, settings and state."""
    return None if schedule is None else {**as_settings(schedule), "state": list(state)}


def check_ours(optimizer: Optimizer | None, schedule: Schedule | None) -> None:
    """Raise if a file could not be read again: reading finds classes by name, and only in cdrop."""
    for name, made, ours in (
        ("optimizer", optimizer, "cdrop.optimizers"),
        ("learning_rate", schedule, "cdrop.schedules"),
    ):
        if made is not None and type(made).__module__ != ours:
            raise TypeError(
                f"{name} is {made!r}; expected one of {ours}, because a file holds no other"
            )


def to_parts(
    state: dict[str, Any], interrupted: bool, threads: int | None
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Split what `Network.state_dict` returns into settings and arrays, as `cdrop.storage` writes them."""
    arrays = {"losses": np.array(state.pop("losses"), np.float64), **state.pop("arrays")}
    curves = state.pop("curves")
    lengths = {name: len(curve) for name, curve in curves.items()}
    if (
        len(set(lengths.values())) > 1
    ):  # somebody has changed the lists; no file of theirs would load
        raise ValueError(
            f"the history's curves differ in length: {lengths}; expected one entry per epoch in each"
        )
    for name, curve in curves.items():
        arrays[f"curve.{name}"] = np.array(curve, np.float64)
    background = state.pop("background")
    if background is not None:
        arrays["background"] = background
    learned = state.pop("learned_rates")
    if learned is not None:
        arrays["learned_rates"] = learned
    if not state["one_column"]:
        del state["one_column"]  # as files had it at first
    settings = dict(state["settings"])
    for name in _RATES:
        settings[name] = _each(encoded, settings[name])
    if settings == state["settings"] and learned is None:
        del state["dropping"]  # no rate changes
    state["settings"] = settings
    return {**state, "interrupted": interrupted, "threads": threads}, arrays


def from_parts(settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Undo `to_parts`, with enough checks that a network of these settings can be made."""
    state, arrays = dict(settings), dict(arrays)
    state["losses"], state["background"] = arrays.pop("losses"), arrays.pop("background", None)
    state["curves"] = {name: arrays.pop(f"curve.{name}") for name in CURVES}
    state["learned_rates"] = arrays.pop("learned_rates", None)
    state["arrays"] = arrays
    state.setdefault("one_column", False)
    state.setdefault("dropping", None)
    if not isinstance(state["interrupted"], bool):
        raise TypeError(f"interrupted is {state['interrupted']!r}; expected a bool")
    _check_mapping("the state's settings", state["settings"])
    _check_sizes(state["settings"]["units"], arrays)
    state["settings"] = dict(state["settings"])
    for name in _RATES:
        state["settings"][name] = _each(decoded, state["settings"][name])
    return state


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    return [change(entry) for entry in value] if isinstance(value, list) else change(value)


def _check_sizes(units: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Compare the widths with the arrays, before a network of these widths takes memory."""
    layers = pairwise(layer_widths("units", units))
    expected = len(_PARTS) * sum((fan_in + 1) * fan_out for fan_in, fan_out in layers)
    found = sum(array.size for array in arrays.values())
    if found != expected:
        raise ValueError(f"there are {found} numbers; expected {expected} for these units")


def checked(state: Mapping[str, Any], own: dict[str, Any]) -> State:
    """Check a state against the network's own, which `Network.state_dict` has returned."""
    _check_mapping("the state", state)
    missing = [name for name in own if name not in state and name not in _ADDED]
    if missing:
        raise ValueError(
            f"the state lacks {', '.join(missing)}; expected the dict that state_dict returns"
        )
    _check_settings(state["settings"], own["settings"])
    arrays = _checked_arrays(state["arrays"], own["arrays"])
    optimizer = _optimizer(state["optimizer"])
    updates = whole_number("the state's updates", state["updates"], 0, LAST + 1)
    epoch = whole_number("the state's epoch", state["epoch"], 0, LAST + 1)
    losses, curves = _floats("losses", state["losses"]), _curves(state["curves"])
    schedule, schedule_state = _schedule(state["schedule"])
    background = _background(state["background"], arrays["weight.0"])
    one_column = truth_value("the state's one_column", state["one_column"])
    if one_column and own["settings"]["units"][-1] != 1:
        raise ValueError("the state's one_column is True; expected False with several outputs")
    return State(
        arrays,
        optimizer,
        updates,
        schedule,
        schedule_state,
        epoch,
        background,
        losses,
        curves,
        one_column,
        _dropping(state.get("dropping"), own["dropping"]),
        state.get("learned_rates"),
    )


def _dropping(rates: Any, own: list[float]) -> list[float] | None:
    """Return the rates of the last step; states of networks whose rates do not change may lack them."""
    if rates is None:
        return None
    if not isinstance(rates, (list, tuple)) or len(rates) != len(own):
        raise ValueError(f"the state's dropping is {rates!r}; expected a list of {len(own)} rates")
    return [drop_rate("the state's dropping", rate) for rate in rates]


def _check_mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {value!r}; expected a mapping, as state_dict returns it")


def _check_settings(given: Any, own: dict[str, Any]) -> None:
    """Raise unless a network of these settings has this one's arrays; its rates of dropout may be others."""
    _check_mapping("the state's settings", given)
    dropping_by_layer("the state's dropout", given.get("dropout"), len(own["dropout"]))
    dropping("the state's input_dropout", given.get("input_dropout"))
    for name in {**own, **given}:  # a loss may have settings that the other's lacks
        value = own.get(name)
        if name not in DROPOUT and given.get(name) != value:
            raise ValueError(
                f"the state's {name} is {given.get(name)!r}; expected {value!r}, as in this network"
            )


def _checked_arrays(given: Any, own: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    _check_mapping("the state's arrays", given)
    arrays = {}
    for name, mine in own.items():
        array = np.asarray(given.get(name))
        if array.shape != mine.shape or array.dtype != mine.dtype:
            raise ValueError(
                f"the state's array {name} has shape {array.shape} and dtype {array.dtype}; expected {mine.shape} "
                f"and {mine.dtype}"
            )
        arrays[name] = array
    return arrays


def _optimizer(settings: Mapping[str, Any] | None) -> Optimizer | None:
    if settings is None:
        return None
    _check_mapping("the state's optimizer", settings)
    known = dict(settings)
    if "name" not in known:
        raise ValueError("the state's optimizer lacks its name")
    return get_optimizer(
        known.pop("name"), **{name: decoded(value) for name, value in known.items()}
    )


def _schedule(settings: Mapping[str, Any] | None) -> tuple[Schedule | None, tuple[float, ...]]:
    if settings is None:
        return None, ()
    _check_mapping("the state's schedule", settings)
    known = dict(settings)
    if "name" not in known or "state" not in known:
        raise ValueError("the state's schedule lacks its name or its state")
    name, state = known.pop("name"), tuple(_floats("schedule", known.pop("state")))
    schedule = get_schedule(name, **known)
    schedule._check(state)
    return schedule, state


def _curves(curves: Any) -> tuple[list[float], list[float], list[float]]:
    _check_mapping("the state's curves", curves)
    if set(curves) != set(CURVES):
        raise ValueError(f"the state's curves are {list(curves)}; expected {list(CURVES)}")
    lists = [_floats("curves", curves[name]) for name in CURVES]
    if len(set(map(len, lists))) > 1:
        raise ValueError("the state's curves differ in length; expected one entry per epoch")
    return lists[0], lists[1], lists[2]


def _floats(name: str, numbers: Sequence[float]) -> list[float]:
    array = np.asarray(numbers)
    if array.ndim != 1 or (array.size and array.dtype.kind != "f"):
        raise TypeError(f"the state's {name} are {numbers!r}; expected a list of floats")
    return [float(number) for number in array]


def _background(background: Any, first_weight: NDArray[Any]) -> NDArray[Any] | None:
    if background is None:
        return None
    array, shape, dtype = np.asarray(background), first_weight.shape[:1], first_weight.dtype
    if array.shape != shape or array.dtype != dtype or not np.isfinite(array).all():
        raise ValueError(
            f"the state's background has shape {array.shape} and dtype {array.dtype}; expected {shape} and {dtype}, "
            "all finite, or None"
        )
    return array.copy()
