"""How long a training step takes on this machine, with and without dropout, and what it is spent on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from cdrop.callbacks import Callback

if TYPE_CHECKING:
    from cdrop import Network

__all__ = ["OUTSIDE", "SIZES", "StepTime", "measure"]

# The article's net and batch, and a larger one.
SIZES = {
    "small": ((784, 256, 256, 10), 256),
    "large": ((784, 1024, 1024, 1024, 10), 128),
}
DROPOUT = 0.5
OUTSIDE = "outside C"
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
    fit_seconds : list of float
        Time of a fit except its steps, round by round: checks of the data, background, lists of minibatches.
    parts : dict of str to list of float
        Share of each part in the threads' time, by the names of ``cdrop_time`` in cdrop.h: one number, or one for each
        layer. The last part is the time between two calls of C, in Python. All shares together are 1.
    """

    dropout: float
    threads: int
    seconds: list[float]
    fit_seconds: list[float]
    parts: dict[str, list[float]]

    @property
    def median(self) -> float:
        """Median over rounds, in seconds."""
        return median(self.seconds)


class _Clock(Callback):
    """Times steps from the end of the first one on, so that what a fit does once does not count."""

    def __init__(self, *, parts: bool = False) -> None:
        self.begin = self.end = 0.0
        self.parts = parts

    def on_iteration(self, net: Network, iteration: int, loss: float) -> None:
        """Note the time; after the first step also start the watches of the threads, if parts are measured."""
        del iteration, loss
        if self.begin == 0:
            if self.parts:
                net._engine.times(True)
            self.begin = time.perf_counter()
        self.end = time.perf_counter()


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
        Rounds, of which the median counts, and steps in each, at least 2.
    on_round : callable, optional
        Called with the number of rounds that are done.

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
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in nets]

    def train(net: Network, clock: _Clock) -> tuple[float, float]:
        """Train and return the time of one step, and that of the fit except its steps."""
        begin = time.perf_counter()
        net.fit(X, labels, l2=1e-3, batch_size=batch, iterations=steps, callbacks=[clock])
        whole, step = time.perf_counter() - begin, (clock.end - clock.begin) / (steps - 1)
        return step, whole - steps * step

    for net in nets:
        train(net, _Clock())  # warm, and past the first weights
    for done in range(1, rounds + 1):
        for net, (seconds, rest) in zip(nets, times, strict=True):
            step, fit = train(net, _Clock())
            seconds.append(step)
            rest.append(fit)
        if on_round is not None:
            on_round(done)

    def parts(net: Network, count: int) -> dict[str, list[float]]:
        """Return the share of each part, measured apart: looking at the clock takes time as well."""
        step, _ = train(net, _Clock(parts=True))
        return _shares(net._engine.times(False), count * (steps - 1) * step)

    return [
        StepTime(rate, n, *both, parts(net, n))
        for (rate, n), net, both in zip(contestants, nets, times, strict=True)
    ]


def _shares(times: dict[str, list[float]], whole: float) -> dict[str, list[float]]:
    """Return shares of the threads' time. What C has not measured was spent outside it."""
    inside = sum(map(sum, times.values()))
    whole = max(whole, inside)
    shares = {part: [t / whole for t in spent] for part, spent in times.items()}
    return shares | {OUTSIDE: [(whole - inside) / whole]}
