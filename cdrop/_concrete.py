"""Rates that concrete dropout learns: what a network keeps of them between steps, which the engine updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import drop_rate
from cdrop.rates import Rate, logit

__all__ = ["begin", "check", "checked"]

_FARTHEST = 12.0  # the logit's distance from 0, in learned.c
_COLUMNS = 5  # of cdrop_learned_rate: logit, mean, mean square, and the powers of both betas


def check(name: str, rate: float | Rate) -> None:
    """Raise unless a learned rate can begin with this one."""
    if isinstance(rate, Rate) or not drop_rate(name, rate) > 0:
        raise ValueError(
            f"{name} is {rate!r} with dropout_kind 'concrete'; expected a number above 0, with which learning begins"
        )


def begin(rates: Sequence[Any], kinds: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the state of all layers' rates before the first step; None if no layer learns its rate."""
    if "concrete" not in kinds:
        return None
    learned = np.zeros((len(kinds), _COLUMNS))
    for row, kind, rate in zip(learned, kinds, rates, strict=True):
        if kind == "concrete":
            row[0], row[3:] = min(max(logit(rate), -_FARTHEST), _FARTHEST), 1
    return learned


def checked(given: Any, own: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Return a state's learned rates for a network with `own`: its own where the state has none."""
    if own is None or given is None:
        return own
    array = np.array(given, np.float64)
    good = array.shape == own.shape and np.isfinite(array).all()
    if good:
        logits, powers = array[:, 0], array[:, 3:]
        good = (
            (np.abs(logits) <= _FARTHEST).all()
            and (array[:, 2] >= 0).all()
            and ((powers >= 0) & (powers <= 1)).all()
        )
    if not good:
        raise ValueError(
            f"the state's learned_rates are {given!r}; expected an array of shape {own.shape}, as state_dict returns it"
        )
    return array
