"""Before anything is timed: every library's step is the same step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.nets import CdropNet, Problem
from cdrop import kernels

__all__ = ["TOLERANCE", "largest_difference"]

TOLERANCE = 1e-4  # of the loss, in float32 after a few steps
STEPS = 5


def scaled_masks(problem: Problem, step: int) -> list[NDArray[np.float32]]:
    """Return the masks that `CdropNet` draws in a step, from 1, as numbers: 0 or 1 / keep."""
    keep = 1 - problem.dropout
    return [
        kernels.unpack_mask(
            kernels.bernoulli_mask(problem.batch, width, keep, seed=1, step=step, layer=layer),
            width,
        ).astype(np.float32)
        / np.float32(keep)
        for layer, width in enumerate(problem.units[1:-1], start=1)
    ]


def largest_difference(problem: Problem, peer: Callable[[Problem], Any]) -> float:
    """Return the largest relative difference of a peer's losses from ours, over steps with the same masks.

    Raises
    ------
    AssertionError
        If it is above `TOLERANCE`: times of different steps say nothing.
    """
    ours, theirs = CdropNet(problem), peer(problem)
    worst = 0.0
    for step in range(STEPS):
        masks = scaled_masks(problem, step + 1)
        loss = ours.loss(step)
        worst = max(worst, abs(theirs.loss(step, masks) - loss) / loss)
    if worst > TOLERANCE:
        raise AssertionError(f"losses differ by {worst:.1e}; expected at most {TOLERANCE:g}")
    return worst
