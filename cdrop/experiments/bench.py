"""How long a training step takes on this machine, with and without dropout, and what it is spent on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cdrop import Network

__all__ = ["SIZES", "StepTime", "measure"]

# The article's net and batch, and a larger one.
SIZES = {
    "small": ((784, 256, 256, 10), 256),
    "large": ((784, 1024, 1024, 1024, 10), 128),
}
DROPOUT = 0.5
_IMAGES = 2560


@dataclass(frozen=True)
class StepTime:
    """Time of one training step.

    Attributes
    ----------
    dropout : float
        Probability of dropping a hidden unit.
    threads : int
    seconds : list of float
        Mean time of a step, round by round.
    parts : dict of str to float
        Share of the threads' time: masks, lists, products, loss, update, waiting.
    """

    dropout: float
    threads: int
    seconds: list[float]
    parts: dict[str, float]

    @property
    def median(self) -> float:
        """Median over rounds, in seconds."""
        return median(self.seconds)


def measure(
    size: str = "small",
    *,
    threads: int | None = None,
    rounds: int = 7,
    steps: int = 100,
    on_round: Callable[[int], None] | None = None,
) -> list[StepTime]:
    """Time training steps on drawn digits: with and without dropout in turn, on all threads and on one.

    Parameters
    ----------
    size : {"small", "large"}, default "small"
        See `SIZES`.
    threads : int, optional
        Default: what `cdrop.get_num_threads` says.
    rounds, steps : int, default 7 and 100
        Rounds, of which the median counts, and steps in each.
    on_round : callable, optional
        Told the number of rounds that are done.

    Returns
    -------
    list of StepTime
        With dropout and without; then, if there is more than one thread, the same on one.
    """
    from cdrop import Network, get_num_threads
    from cdrop.datasets import make_digits

    units, batch = SIZES[size]
    images, labels = make_digits(_IMAGES)
    X = images.reshape(_IMAGES, -1).astype(np.float32) / np.float32(255)
    most = threads or get_num_threads()
    contestants = [(rate, n) for n in sorted({1, most}, reverse=True) for rate in (DROPOUT, 0.0)]
    nets = [Network(units, dropout=rate, seed=1, threads=n) for rate, n in contestants]
    seconds: list[list[float]] = [[] for _ in nets]

    def train(net: Network, count: int) -> float:
        start = time.perf_counter()
        net.fit(X, labels, l2=1e-3, batch_size=batch, iterations=count)
        return (time.perf_counter() - start) / count

    for net in nets:
        train(net, steps)  # warm, and past the first weights
    for done in range(1, rounds + 1):
        for net, times in zip(nets, seconds, strict=True):
            times.append(train(net, steps))
        if on_round is not None:
            on_round(done)
    return [
        StepTime(rate, n, times, _parts(net, partial(train, net, steps)))
        for (rate, n), net, times in zip(contestants, nets, seconds, strict=True)
    ]


def _parts(net: Network, train: Callable[[], object]) -> dict[str, float]:
    """Share of each part in the threads' time, measured apart: looking at the clock takes time as well."""
    net._engine.times(True)
    train()
    times = net._engine.times(False)
    total = sum(map(sum, times.values()))
    return {part: sum(spent) / total for part, spent in times.items()}
